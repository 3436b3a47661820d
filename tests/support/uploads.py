"""One browser tab without a browser: a session with a running dashboard, and slow uploads to it."""

from __future__ import annotations

import http.client
import os
import time
import uuid
from pathlib import Path
from urllib.parse import urlsplit

from streamlit.proto.BackMsg_pb2 import BackMsg
from streamlit.proto.ForwardMsg_pb2 import ForwardMsg
from websockets.sync.client import connect

BOUNDARY = "boundary-of-the-test"


class Tab:
    """A session; `session_id` is what uploads are addressed to."""

    def __init__(self, url: str) -> None:
        self.host = urlsplit(url).netloc
        request = http.client.HTTPConnection(self.host, timeout=20)
        request.request("GET", "/_stcore/health")
        response = request.getresponse()
        response.read()
        cookies = response.headers.get_all("Set-Cookie") or []
        pairs = [cookie.split(";", 1)[0].split("=", 1) for cookie in cookies]
        self.cookies = dict(pairs)
        self.token = self.cookies.get("_streamlit_xsrf", "")
        request.close()
        self.socket = connect(
            f"ws://{self.host}/_stcore/stream",
            origin=f"http://{self.host}",
            subprotocols=["streamlit", self.token or "none"],
            additional_headers={"Cookie": self._cookie},
            max_size=None,
            legacy=True,
        )
        message = BackMsg()
        message.rerun_script.query_string = ""
        self.socket.send(message.SerializeToString())
        # The page is drawn to its end before anybody uploads to it.
        self.session_id, kind = "", ""
        while kind != "script_finished":
            answer = ForwardMsg()
            answer.ParseFromString(self.socket.recv(timeout=60))
            kind = answer.WhichOneof("type")
            if kind == "new_session":
                self.session_id = answer.new_session.initialize.session_id

    @property
    def _cookie(self) -> str:
        return "; ".join(f"{name}={value}" for name, value in self.cookies.items())

    def upload(self, data: bytes, while_sending=lambda: None) -> int:
        """PUT one file as the uploader does, call `while_sending` before its last piece."""
        head = (
            f"--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"f\"; filename=\"f.png\"\r\n"
            "Content-Type: image/png\r\n\r\n"
        ).encode()  # fmt: skip
        tail = f"\r\n--{BOUNDARY}--\r\n".encode()
        request = http.client.HTTPConnection(self.host, timeout=30)
        request.putrequest("PUT", f"/_stcore/upload_file/{self.session_id}/{uuid.uuid4()}")
        request.putheader("Content-Type", f"multipart/form-data; boundary={BOUNDARY}")
        request.putheader("Content-Length", str(len(head) + len(data) + len(tail)))
        request.putheader("Cookie", self._cookie)
        request.putheader("X-Xsrftoken", self.token)
        request.putheader("Origin", f"http://{self.host}")
        request.endheaders()
        request.send(head + data)
        time.sleep(0.5)
        while_sending()
        request.send(tail)
        response = request.getresponse()
        response.read()
        request.close()
        return response.status

    def close(self) -> None:
        self.socket.close()


def open_files(pid: int) -> set[str]:
    """What the process has open that is a file and no socket, pipe, device or library."""
    names = set()
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            name = os.readlink(entry)
        except OSError:
            continue
        if name.startswith("/") and not name.startswith(("/dev/", "/proc/", "/memfd")):
            names.add(name)
    return names


def resident_mib(pid: int) -> float:
    """Memory that the process holds."""
    text = Path(f"/proc/{pid}/statm").read_text(encoding="ascii")
    return int(text.split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20
