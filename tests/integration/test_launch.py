"""`python -m dashboard`: ports, the printed address, Ctrl-C, a home without Streamlit files."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest

from dashboard.__main__ import is_free, main
from tests.support.server import ROOT, Server


@pytest.fixture
def servers(tmp_path: Path):
    started: list[Server] = []

    def start(*args: str) -> Server:
        started.append(Server(tmp_path, *args))
        return started[-1]

    yield start
    for server in started:
        server.stop()


def answers(url: str) -> bool:
    with urlopen(f"{url}/_stcore/health", timeout=10) as response:
        return response.status == 200


def test_two_dashboards_get_two_ports_and_print_them(servers):
    first, second = servers(), servers()
    assert first.url != second.url
    for server in (first, second):
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+", server.url)
        assert answers(server.url)
        assert server.output.count("http://") == 1


def test_fixed_port_is_kept(servers):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = servers("--port", str(port))
    assert server.url == f"http://127.0.0.1:{port}"
    assert answers(server.url)
    assert not is_free("127.0.0.1", port)


def test_fixed_port_that_is_taken_gives_one_sentence():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = subprocess.run(
            [sys.executable, "-m", "dashboard", "--port", str(port)],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.startswith(f"Port {port} on 127.0.0.1 cannot be used")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("address", ["203.0.113.7", "2001:db8::7", "ä..b"])
@pytest.mark.parametrize("port", [(), ("--port", "8600")])
def test_address_of_another_machine_gives_one_sentence(address: str, port, capsys, monkeypatch):
    monkeypatch.setitem(
        sys.modules, "streamlit.web", None
    )  # a server that starts would be an error
    assert main(["--address", address, *port]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith(f"This machine has no address '{address}'")
    assert err.count("\n") == 1


@pytest.mark.parametrize("port", ["none", "0", "70000"])
def test_port_that_is_no_port_is_refused(port: str):
    done = subprocess.run(
        [sys.executable, "-m", "dashboard", "--port", port],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 2
    assert "a port is a number from 1 to 65535" in done.stderr
    assert "Traceback" not in done.stderr


def test_ctrl_c_ends_quietly(servers):
    server = servers()
    server.process.send_signal(signal.SIGINT)
    assert server.process.wait(15) == 0
    server.stop()
    assert "Traceback" not in server.output


def test_nothing_asks_for_an_email_or_writes_to_the_home(servers, tmp_path: Path):
    server = servers()
    assert answers(server.url)
    server.stop()
    assert "mail" not in server.output.lower()
    assert list((tmp_path / "home").iterdir()) == []
