"""The downloader against a server on loopback that misbehaves in every way servers do."""

from __future__ import annotations

import concurrent.futures
import csv
import hashlib
import json
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

import pytest

from core.__main__ import main
from core.datasets import download, fetch, registry
from core.datasets.fetch import FetchOptions, IncompleteError, fetch_dataset
from core.datasets.folder import load_table
from core.datasets.registry import DatasetError, resolve_dataset

REPO_ROOT = Path(__file__).resolve().parents[2]
FILES = {
    f"X-Ray Image DataSet/{folder}/{name}": f"{folder}/{name}".encode() * 2000
    for folder, name in [
        ("Covid-19", "a.webp-day5.jpeg"),
        ("Covid-19", "b.png"),
        ("No_findings", "00000001_000.png"),
        ("No_findings", "00000001_001.png"),
        ("No_findings", "00000002_000.png"),
        ("Pneumonia", "00000001_002.png"),
        ("Pneumonia", "00000003_000.png"),
        ("Pneumonia", "00000004_000.png"),
    ]
}
PATHS = list(FILES)


class Server(ThreadingHTTPServer):
    """Serves FILES; faults: path -> list, used up one a request ("always" stays)."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: Counter[str] = Counter()
        self.faults: dict[str, list[str]] = {}
        self.release = threading.Event()
        self.held = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/repo"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        path = unquote(self.path).removeprefix("/repo/")
        self.server.requests[path] += 1
        faults = self.server.faults.get(path, [])
        fault = faults[0] if faults else None
        if faults and "always" not in faults:
            faults.pop(0)
        body = FILES.get(path)
        if body is None or fault == "404":
            self.send_error(404)
            return
        if fault == "503":
            self.send_error(503)
            return
        if fault == "wrong":
            body = body[:-1] + b"?"
        self.send_response(200)
        if fault == "short":  # ends early and says nothing of its length
            body = body[: len(body) // 2]
        else:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if fault == "drop":  # breaks off in mid-file
            self.wfile.write(body[: len(body) // 2])
            self.close_connection = True
            return
        if fault == "hold":
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            self.server.held.set()
            self.server.release.wait(30)
            return
        self.wfile.write(body)

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def records_csv(tmp_path) -> Path:
    path = tmp_path / "records.csv"
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["git_blob", "path", "image_id", "label", "patient_id"])
        for i, (name, body) in enumerate(FILES.items()):
            blob = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()
            below = name.split("/", 1)[1]
            writer.writerow([blob, name, below.rsplit(".", 1)[0], below.split("/")[0], f"p{i}"])
    return path


@pytest.fixture
def get(server, records_csv, tmp_path):
    def get(**kwargs):
        settings = {"backoff_s": 0.01, "timeout_s": 5, "retries": 2, "progress": False, **kwargs}
        return fetch_dataset(
            "darkcovidnet", tmp_path / "data", server.url, records_csv=records_csv,
            options=FetchOptions(**settings),
        )  # fmt: skip

    return get


def holds(root: Path) -> set[str]:
    """Every file below root, hidden ones as well."""
    return {p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file()}


def whole(root: Path) -> None:
    assert holds(root) == {path.split("/", 1)[1] for path in PATHS} | {"metadata.csv"}
    for path, body in FILES.items():
        assert (root / path.split("/", 1)[1]).read_bytes() == body


def test_whole_download_and_nothing_twice(get, server, tmp_path):
    root = get()
    assert root == tmp_path / "data" / "darkcovidnet"
    whole(root)
    assert server.requests == Counter(PATHS)
    assert not (tmp_path / "data" / "darkcovidnet.part").exists()
    dataset, folder = resolve_dataset("darkcovidnet", tmp_path / "data")
    table = load_table(dataset, folder).set_index("image_id")
    assert table.loc["Covid-19/a.webp-day5", "label"] == "covid"
    assert table.loc["Covid-19/b", "patient_id"] == "p1"
    assert table.attrs["skipped"] == []
    get()
    assert server.requests == Counter(PATHS)


def test_a_damaged_file_is_downloaded_again(get, server):
    root = get()
    damaged = root / "Covid-19/b.png"
    damaged.write_bytes(damaged.read_bytes()[:-1])
    get()
    whole(root)
    assert server.requests == Counter([*PATHS, PATHS[1]])


@pytest.mark.parametrize("fault", ["drop", "short", "503", "wrong"])
def test_a_passing_fault_is_tried_again(get, server, fault):
    server.faults = {PATHS[0]: [fault], PATHS[4]: [fault, fault]}
    whole(get())
    assert server.requests[PATHS[0]] == 2
    assert server.requests[PATHS[4]] == 3


@pytest.mark.parametrize(
    ("fault", "reason", "requests"),
    [("404", r"not on the server \(status 404\)", 1), ("wrong", "hash differs", 3),
     ("short", "hash differs", 3)],
)  # fmt: skip
def test_a_file_not_to_be_had_is_named_and_not_kept(get, server, tmp_path, fault, reason, requests):
    server.faults = {PATHS[4]: [fault, "always"]}
    with pytest.raises(IncompleteError, match=f"1 of 8 .*No_findings/00000002_000.png.*{reason}"):
        get()
    assert server.requests[PATHS[4]] == requests
    root = tmp_path / "data" / "darkcovidnet"
    lost = "No_findings/00000002_000.png"
    assert holds(root) == {p.split("/", 1)[1] for p in PATHS} - {lost} | {"metadata.csv"}
    table = load_table(*resolve_dataset("darkcovidnet", tmp_path / "data"))
    assert len(table) == 7
    assert [entry["path"] for entry in table.attrs["skipped"]] == [lost]
    server.faults = {}
    whole(get())
    assert server.requests[PATHS[0]] == 1


def test_many_lost_files_do_not_pass_for_the_data_set(get, server, tmp_path):
    server.faults = {path: ["404", "always"] for path in PATHS[3:]}
    with pytest.raises(IncompleteError, match=r"5 of 8 .* and 2 more"):
        get()
    assert not (tmp_path / "data" / "darkcovidnet").exists()


def test_a_file_that_always_breaks_off_stops_short_of_the_name(get, server, tmp_path):
    server.faults = {PATHS[0]: ["drop", "always"]}
    with pytest.raises(DatasetError, match=r"broke off at 7 of 8 .*a\.webp-day5\.jpeg") as error:
        get()
    assert not isinstance(error.value, IncompleteError)
    assert not (tmp_path / "data" / "darkcovidnet").exists()
    assert len(holds(tmp_path / "data" / "darkcovidnet.part")) == 7
    server.faults = {}
    whole(get())
    assert server.requests == Counter([*PATHS, *[PATHS[0]] * 3])


def test_server_down_from_the_start(get, server, tmp_path, monkeypatch):
    server.shutdown()
    server.server_close()
    asked, fetch_file = [], fetch.fetch_file
    monkeypatch.setattr(fetch, "fetch_file", lambda *job: (asked.append(job), fetch_file(*job)))
    with pytest.raises(DatasetError, match=r"No connection to 127.*refused.*make demo") as error:
        get()
    assert len(asked) == 1  # nobody waits for eight refusals
    assert "\n" not in str(error.value)
    assert holds(tmp_path / "data") == set()


def test_server_that_goes_down_ends_it_soon(get, server, tmp_path, monkeypatch):
    server.faults = {path: ["503", "always"] for path in PATHS[2:]}

    def late(*args, **kwargs):  # the thread that counts failures comes late on a busy machine
        time.sleep(0.2)
        return concurrent.futures.wait(*args, **kwargs)

    monkeypatch.setattr(fetch, "wait", late)
    with pytest.raises(DatasetError, match=r"broke off at 2 of 8 .*python -m core data"):
        get(threads=1, retries=0)
    # The first two files, then two failures in a row with one thread, and nothing after them.
    assert server.requests == Counter(PATHS[:4])
    assert len(holds(tmp_path / "data" / "darkcovidnet.part")) == 2


def test_the_next_revision_is_asked_where_one_is_not_served(
    server, records_csv, tmp_path, monkeypatch
):
    urls = tuple(f"http://127.0.0.1:{server.server_port}/{it}" for it in ("nothing-here", "repo"))
    known = replace(registry.KNOWN["darkcovidnet"], base_urls=urls)
    monkeypatch.setitem(registry.KNOWN, "darkcovidnet", known)
    root = fetch_dataset(
        "darkcovidnet",
        tmp_path,
        records_csv=records_csv,
        options=FetchOptions(threads=1, progress=False),
    )
    whole(root)
    assert sum(server.requests.values()) == len(PATHS) + 1


def test_a_huge_answer_is_cut_off(get, server, monkeypatch, tmp_path):
    monkeypatch.setattr(download, "MAX_FILE_BYTES", len(FILES[PATHS[0]]) - 1)
    with pytest.raises(IncompleteError, match="larger than"):
        get()


def test_other_copies_of_the_images_are_left_alone(get, server, tmp_path):
    copy = tmp_path / "data/darkcovidnet/No_findings/00000001_000.jpg"
    copy.parent.mkdir(parents=True)
    copy.write_bytes(b"re-encoded")
    with pytest.raises(DatasetError, match="other copies"):
        get()
    assert holds(tmp_path / "data") == {"darkcovidnet/No_findings/00000001_000.jpg"}
    assert not server.requests


def test_published_files_put_there_by_hand_are_completed(get, server, tmp_path):
    placed = tmp_path / "data/darkcovidnet/Covid-19/b.png"
    placed.parent.mkdir(parents=True)
    placed.write_bytes(FILES[PATHS[1]])
    whole(get())
    assert server.requests[PATHS[1]] == 0


def test_two_downloads_at_once_are_refused(get, server, tmp_path):
    server.faults = {PATHS[0]: ["hold"]}
    first = threading.Thread(target=get, kwargs={"retries": 3})
    first.start()
    assert server.held.wait(5)
    with pytest.raises(DatasetError, match="Another download"):
        get()
    server.release.set()
    first.join()
    whole(tmp_path / "data" / "darkcovidnet")


def test_killed_in_mid_file_then_resumed(get, server, records_csv, tmp_path):
    server.faults = {PATHS[5]: ["hold"]}
    script = (
        "import sys; from core.datasets.fetch import FetchOptions, fetch_dataset; "
        "folder, url, records = sys.argv[1:]; options = FetchOptions(threads=1); "
        "fetch_dataset('darkcovidnet', folder, url, records_csv=records, options=options)"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "data"), server.url, str(records_csv)],
        cwd=REPO_ROOT,
        stderr=subprocess.DEVNULL,
    )
    try:
        assert server.held.wait(20)
        part = tmp_path / "data" / "darkcovidnet.part"
        in_flight = part / "Pneumonia/.00000001_002.png.part"
        deadline = time.monotonic() + 20
        while not in_flight.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        child.send_signal(signal.SIGKILL)
        assert child.wait(10) == -signal.SIGKILL
    finally:
        child.kill()
    server.release.set()
    # The half file lies there under its hidden name, and the data set under no name.
    assert in_flight.exists()
    assert not (part / "Pneumonia/00000001_002.png").exists()
    assert not (tmp_path / "data" / "darkcovidnet").exists()
    assert server.requests == Counter(PATHS[:6])
    whole(get())
    assert server.requests == Counter([*PATHS, PATHS[5]])


def test_progress_goes_to_stderr_and_names_files_and_bytes(get, capsys):
    get(progress=True, threads=1)
    out, err = capsys.readouterr()
    assert out == ""
    assert "8/8" in err and "MB" in err


def run_command(*argv: str) -> int:
    return main(["data", *argv])


def test_command_without_a_network_says_one_sentence(server, tmp_path, monkeypatch, capsys):
    server.shutdown()
    server.server_close()
    monkeypatch.setenv("CXR_DATA", str(tmp_path))
    assert run_command("darkcovidnet", "--base-url", server.url, "--json") == 2
    out, err = capsys.readouterr()
    assert err.count("\n") == 1 and "make demo" in err
    assert json.loads(out) == {"error": err.strip()}


def test_ct_set_says_how_to_place_it(tmp_path):
    with pytest.raises(DatasetError, match=r"UCSD-AI4H/COVID-CT.*COVID/ and NonCOVID/"):
        fetch_dataset("ucsd-covid-ct", tmp_path)
    with pytest.raises(DatasetError, match="Unknown data set"):
        fetch_dataset("nope", tmp_path)
