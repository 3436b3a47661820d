"""Many people at once on a dashboard of its own: `python -m dashboard.bench.load_test FOLDER`,
answer as JSON.

Each has a tab on the page Predict, drops a picture of FOLDER, waits until the page with its answer
is drawn to its end, and drops the next. A tab is a session over loopback as a browser has it,
without the browser: what is timed is the server, from the first byte sent to the page's last.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import re
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect
from websockets.typing import Origin, Subprotocol

from core.errors import UserError

PEOPLE, SECONDS = 20, 60.0
BOUNDARY = "boundary-of-a-tab-without-a-browser"
# Stands in every model's card, or else in the guard's refusal: the page has its answer.
ANSWERED = ("Not ruled out", "not calibrated", "This does not look like")
LONGEST_S = 60.0


class LoadError(UserError):
    """A page that did not come, or came without an answer; one sentence."""


class Tab:
    """A session on the page Predict of the dashboard at `url`."""

    def __init__(self, url: str) -> None:
        self.host = urlsplit(url).netloc
        request = http.client.HTTPConnection(self.host, timeout=LONGEST_S)
        request.request("GET", "/_stcore/health")
        response = request.getresponse()
        response.read()
        cookies = response.headers.get_all("Set-Cookie") or []
        request.close()
        self._cookie = "; ".join(cookie.split(";", 1)[0] for cookie in cookies)
        found = re.search(r"_streamlit_xsrf=([^;]+)", self._cookie)
        self._token = found[1] if found else ""
        self._socket = connect(
            f"ws://{self.host}/_stcore/stream",
            origin=Origin(f"http://{self.host}"),
            subprotocols=[Subprotocol("streamlit"), Subprotocol(self._token or "none")],
            additional_headers={"Cookie": self._cookie},
            max_size=None,
            open_timeout=LONGEST_S,
            legacy=True,
        )
        self._session, self._uploader = "", ""
        self._draw(BackMsg())

    def ask(self, data: bytes) -> float:
        """Drop one picture; seconds until the page with its answer is drawn. Raises LoadError."""
        started = time.perf_counter()
        file_id = str(uuid.uuid4())
        place = f"/_stcore/upload_file/{self._session}/{file_id}"
        self._put(place, data)
        message = BackMsg()
        state = message.rerun_script.widget_states.widgets.add()
        state.id = self._uploader
        info = state.file_uploader_state_value.uploaded_file_info.add()
        info.name, info.size, info.file_id = f"{file_id}.png", len(data), file_id
        info.file_urls.file_id = file_id
        info.file_urls.upload_url = info.file_urls.delete_url = place
        texts = self._draw(message)
        if not any(words in text for text in texts for words in ANSWERED):
            raise LoadError("The page came without an answer.")
        return time.perf_counter() - started

    def close(self) -> None:
        self._socket.close()

    def _put(self, place: str, data: bytes) -> None:
        head = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="f"; filename="f.png"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        request = http.client.HTTPConnection(self.host, timeout=LONGEST_S)
        request.request(
            "PUT",
            place,
            body=head + data + f"\r\n--{BOUNDARY}--\r\n".encode(),
            headers={
                "Content-Type": f"multipart/form-data; boundary={BOUNDARY}",
                "Cookie": self._cookie,
                "X-Xsrftoken": self._token,
                "Origin": f"http://{self.host}",
            },
        )
        response = request.getresponse()
        response.read()
        request.close()
        if response.status >= 300:
            raise LoadError(f"The upload was answered with status {response.status}.")

    def _draw(self, message: BackMsg) -> list[str]:
        """Ask for a drawing and read it to its end; the texts on the page."""
        message.rerun_script.page_name = "predict"
        self._socket.send(message.SerializeToString())
        texts: list[str] = []
        while True:
            answer = ForwardMsg()
            answer.ParseFromString(self._socket.recv(timeout=LONGEST_S))
            kind = answer.WhichOneof("type")
            if kind == "new_session":
                self._session = answer.new_session.initialize.session_id or self._session
                texts = []
            elif kind == "delta":
                element = answer.delta.new_element
                if element.WhichOneof("type") == "exception":
                    raise LoadError(f"The page failed: {element.exception.type}.")
                if element.WhichOneof("type") == "file_uploader":
                    self._uploader = element.file_uploader.id
                if element.WhichOneof("type") == "markdown":
                    texts.append(element.markdown.body)
                if element.WhichOneof("type") == "alert":
                    texts.append(element.alert.body)
            elif (
                kind == "script_finished"
                and answer.script_finished == ForwardMsg.FINISHED_SUCCESSFULLY
            ):
                return texts


def predict_at_once(
    url: str, pictures: list[bytes], people: int, seconds: float
) -> tuple[list[float], list[str]]:
    """Seconds of every answer of `people` tabs that never pause, and what went wrong."""
    times: list[float] = []
    errors: list[str] = []
    tabs = [Tab(url) for _ in range(people)]
    until = time.perf_counter() + seconds

    def person(number: int) -> None:
        asked = number
        while time.perf_counter() < until:
            try:
                times.append(tabs[number].ask(pictures[asked % len(pictures)]))
            except (LoadError, OSError, WebSocketException, TimeoutError) as error:
                errors.append(f"{type(error).__name__}: {error}")
                return
            asked += 1

    threads = [threading.Thread(target=person, args=(number,)) for number in range(people)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for tab in tabs:
        tab.close()
    return times, errors


def serve_and_predict(pictures: list[bytes], people: int, seconds: float) -> dict[str, object]:
    """{median_s, slowest_s, answers, errors[]} of a dashboard started for it on this machine."""
    server = subprocess.Popen(
        [sys.executable, "-m", "dashboard"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "STREAMLIT_SERVER_HEADLESS": "true"},
    )
    try:
        address = re.search(r"http://\S+", server.stdout.readline()) if server.stdout else None
        if address is None:
            raise LoadError("The dashboard did not start.")
        Tab(address[0]).ask(pictures[0])  # warm
        times, errors = predict_at_once(address[0], pictures, people, seconds)
    finally:
        server.terminate()
        server.wait(30)
    return {
        "median_s": median(times) if times else None,
        "slowest_s": max(times, default=None),
        "answers": len(times),
        "errors": errors,
    }


def main(argv: list[str] | None = None) -> int:
    """Print the answer as JSON; the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m dashboard.bench.load_test",
        description="Many people at once on a dashboard.",
    )
    parser.add_argument("folder", type=Path, help="folder of pictures to drop")
    parser.add_argument("--people", type=int, default=PEOPLE)
    parser.add_argument("--seconds", type=float, default=SECONDS)
    args = parser.parse_args(argv)
    pictures = [path.read_bytes() for path in sorted(args.folder.iterdir())]
    try:
        print(json.dumps(serve_and_predict(pictures, args.people, args.seconds)))
    except (LoadError, OSError, WebSocketException) as error:
        print(error, file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
