"""What the server keeps of uploads, and that docs/security.md has the limits of the code."""

from __future__ import annotations

import http.client
import os
import re
import subprocess
import sys
import threading
import time
import tomllib
from pathlib import Path

import pytest
from starlette.formparsers import MultiPartParser

from core.imageio import decode, dicom, dicom_codecs, file_type, picture, sandbox, zip_archive
from dashboard.server import upload_retention
from tests.support.server import ROOT
from tests.support.uploads import Tab, open_files, resident_mib

DOCS = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
CONFIG = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
on_linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
# As `python -m dashboard`, with a closed tab forgotten after one second and not two minutes.
MAIN = """
import sys
from dashboard.server import upload_retention
upload_retention.EXPIRE_EVERY_S = 0.3
import dashboard.__main__ as start
from streamlit.web import cli
right = cli.main
cli.main = lambda args, **kw: right([*args, "--server.disconnectedSessionTTL=1"], **kw)
sys.exit(start.main([]))
"""
PLAIN = """
import sys
from streamlit.web import cli
sys.argv = ["streamlit", "run", "dashboard/app.py", "--server.port=0", "--server.headless=true"]
cli.main()
"""


class Server:
    """A dashboard in a process of its own, from code; `url` is what it prints."""

    def __init__(self, code: str, home: Path) -> None:
        quiet = ("CXR_", "STREAMLIT_", "DISPLAY", "WAYLAND_DISPLAY")
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env={
                **{k: v for k, v in os.environ.items() if not k.startswith(quiet)},
                "HOME": str(home),
                "TMPDIR": str(home),
                "PYTHONUNBUFFERED": "1",
                "CXR_ARTIFACTS": str(home / "artifacts"),
                "CXR_DATA": str(home / "data"),
                "CXR_CACHE": str(home / "cache"),
            },
        )
        self.pid, self.home, self.url, self.lines = self.process.pid, home, "", []
        ready = threading.Event()

        def read() -> None:
            for line in self.process.stdout:
                self.lines.append(line)
                found = re.search(r"(http://(?:127\.0\.0\.1|localhost):\d+)", line)
                if found and not self.url:
                    self.url = found[1]
                    ready.set()
            ready.set()

        threading.Thread(target=read, daemon=True).start()
        if not ready.wait(60) or not self.url:
            self.stop()
            raise AssertionError("".join(self.lines))

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()


@pytest.fixture(scope="module")
def serve(tmp_path_factory):
    """Starts servers, one for each piece of code."""
    started: dict[str, Server] = {}

    def start(code: str) -> Server:
        if code not in started:
            home = tmp_path_factory.mktemp("home")
            (home / "artifacts").mkdir()
            started[code] = Server(code, home)
        return started[code]

    yield start
    for server in started.values():
        server.stop()


# --- uploads ----------------------------------------------------------------------------------


@on_linux
@pytest.mark.parametrize("code", [MAIN, PLAIN], ids=["python -m dashboard", "streamlit run"])
def test_no_upload_touches_the_disk(code, serve):
    server = serve(code)
    tab = Tab(server.url)
    before, new = open_files(server.pid), []
    status = tab.upload(os.urandom(8_000_000), lambda: new.extend(open_files(server.pid) - before))
    tab.close()
    assert status == 204
    assert not [name for name in new if "deleted" in name or name.startswith(str(server.home))], new
    assert not [path for path in server.home.rglob("*") if path.is_file()]


@on_linux
def test_a_closed_tab_is_forgotten_although_nobody_else_comes(serve):
    server = serve(MAIN)
    tab = Tab(server.url)
    tab.upload(b"\0" * 100)
    before = resident_mib(server.pid)
    assert tab.upload(os.urandom(80_000_000)) == 204
    full = resident_mib(server.pid)
    assert full > before + 70
    tab.close()
    deadline = time.monotonic() + 20
    while resident_mib(server.pid) > full - 70 and time.monotonic() < deadline:
        time.sleep(0.2)
    assert resident_mib(server.pid) < full - 70


@on_linux
def test_more_than_the_limit_is_refused_by_the_server(serve):
    server = serve(MAIN)
    tab = Tab(server.url)
    request_limit = CONFIG["server"]["maxUploadSize"] * 2**20
    connection = http.client.HTTPConnection(tab.host, timeout=20)
    connection.putrequest("PUT", f"/_stcore/upload_file/{tab.session_id}/x")
    connection.putheader("Content-Length", str(request_limit + 1))
    connection.putheader("Content-Type", "multipart/form-data; boundary=b")
    connection.putheader("Cookie", tab._cookie)
    connection.putheader("X-Xsrftoken", tab.token)
    connection.endheaders()
    assert connection.getresponse().status == 413
    tab.close()


@on_linux
def test_uploads_need_a_session_and_its_token(serve):
    server = serve(MAIN)
    tab = Tab(server.url)
    session, tab.session_id = tab.session_id, "somebody-else"
    assert tab.upload(b"x") == 400
    tab.session_id, tab.token = session, "wrong"
    assert tab.upload(b"x") == 403
    tab.close()


def test_the_parser_never_spools(monkeypatch):
    monkeypatch.setattr(MultiPartParser, "spool_max_size", 1024 * 1024)
    upload_retention.keep_uploads_in_memory()
    assert MultiPartParser.spool_max_size > CONFIG["server"]["maxUploadSize"] * 2**20


def test_without_a_server_there_is_nothing_to_forget():
    assert upload_retention.expire_sessions({}) is False


# --- what is said -----------------------------------------------------------------------------


def test_the_server_is_this_machines_own_unless_told():
    server = CONFIG["server"]
    assert server["address"] == "127.0.0.1"
    assert server["maxUploadSize"] * 2**20 >= max(zip_archive.MAX_ZIP_BYTES, picture.MAX_BYTES)
    assert server.get("enableXsrfProtection", True) is True
    assert CONFIG["browser"]["gatherUsageStats"] is False


def number(value: float) -> str:
    return f"{value:,.0f}"


@pytest.mark.parametrize(
    "text",
    [
        f"{picture.MAX_BYTES // 2**20} MiB",
        f"{picture.MIN_SIDE_PX} px",
        f"{number(picture.MAX_SIDE_PX)} px",
        f"{number(picture.MAX_PIXELS / 1e6)} million",
        f"{number(decode.MAX_PNG_CHUNKS)} chunks",
        f"{decode.MAX_JPEG_SCANS} scans",
        f"{dicom.MAX_HEADER_BYTES // 2**20} MiB",
        f"{number(dicom.MAX_ELEMENTS)} elements",
        f"{number(dicom_codecs.MAX_TILES)} tiles",
        f"{zip_archive.MAX_ZIP_BYTES // 2**20} MiB",
        f"{number(zip_archive.MAX_ENTRIES)} entries",
        f"{number(zip_archive.MAX_UNPACKED_BYTES // 2**20)} MiB",
        f"{zip_archive.MAX_RATIO} times",
        f"{sandbox.SECONDS_PER_IMAGE:.0f} s",
        f"{number(sandbox.MEMORY_BYTES // 2**20)} MiB",
        f"{sandbox.WAIT_SECONDS:.0f} s",
        f"{CONFIG['server']['maxUploadSize']} MB",
        f"{CONFIG['server']['disconnectedSessionTTL']} s",
        f"{upload_retention.EXPIRE_EVERY_S:.0f} s",
    ],
)
def test_the_limits_in_the_docs_are_those_in_the_code(text):
    assert text in DOCS


def test_the_tags_in_the_docs_are_those_in_the_code():
    for keyword in (*dicom.HEADER_TAGS, *dicom.META_TAGS):
        assert f"`{keyword}`" in DOCS, keyword


def test_scans_are_limited_alike_in_both_places():
    assert dicom_codecs.MAX_SCANS == decode.MAX_JPEG_SCANS
    assert set(file_type.IMAGE_TYPES) | {"DICOM"} >= {"PNG", "JPEG", "TIFF", "WebP", "BMP", "DICOM"}
