"""Fixtures for all tests: made-up runs, and a guard that keeps tests off the network."""

from __future__ import annotations

import gc
import ipaddress
import socket
from pathlib import Path

import pytest

from tests.support.files import record_decodes, write_pictures
from tests.support.runs import make_run

CONNECT = socket.socket.connect


# Whose tests train, audit, draw whole pages, start processes or read real sets: `make test-fast`
# leaves them out.
SLOW = (
    *("bench", "browser", "dashboard", "integration", "models", "training"),
    *("evaluation/audit", "evaluation/external", "serving/guard", "cli/test_light.py"),
    *("datasets/test_augmented_copies.py", "datasets/test_image_matching.py"),
    *("datasets/test_leakage.py", "datasets/test_several.py", "datasets/test_splits.py"),
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what is slow."""
    here = Path(__file__).parent
    slow = {here / name for name in SLOW}
    for item in items:
        if not slow.isdisjoint([item.path, *item.path.parents]):
            item.add_marker(pytest.mark.slow)


def connect_to_loopback_only(self: socket.socket, address) -> None:
    """Stands in for socket.connect: a test that reaches for the network fails, and says so."""
    if isinstance(address, tuple):
        host = str(address[0])
        try:
            local = ipaddress.ip_address(host.split("%")[0]).is_loopback
        except ValueError:
            local = host == "localhost"
        if not local:
            raise AssertionError(f"A test tried to reach {host}: tests use loopback only.")
    return CONNECT(self, address)


@pytest.fixture(autouse=True, scope="module")
def settled_heap():
    """Streamlit collects all garbage after each drawing; what libraries hold need not be walked."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True, scope="session")
def no_network():
    """No test leaves this machine (subprocesses are not covered)."""
    socket.socket.connect = connect_to_loopback_only
    yield
    socket.socket.connect = CONNECT


@pytest.fixture(scope="session")
def demo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `artifacts/demo` (three models that predict) and its phantoms in `data/`.

    Shared by all tests: read it, never write to it.
    """
    root = tmp_path_factory.mktemp("demo")
    make_run(root / "artifacts", tiny_openvino=True)
    return root


@pytest.fixture
def demo_app(demo_root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The environment of a dashboard on the demo run; returns its artifacts root."""
    monkeypatch.setenv("CXR_ARTIFACTS", str(demo_root / "artifacts"))
    monkeypatch.setenv("CXR_DATA", str(demo_root / "data"))
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CXR_ANNOTATIONS", str(tmp_path / "annotations"))
    return demo_root / "artifacts"


@pytest.fixture
def empty_app(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of a dashboard without runs; returns its artifacts root."""
    monkeypatch.setenv("CXR_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("CXR_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CXR_ANNOTATIONS", str(tmp_path / "annotations"))
    monkeypatch.delenv("CXR_RUN", raising=False)
    return tmp_path / "artifacts"


@pytest.fixture
def data(tmp_path: Path):
    """A folder of small pictures and its table, as write_pictures makes them."""
    root = tmp_path / "data"
    return root, write_pictures(root)


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch):
    """How many pictures were decoded since."""
    return record_decodes(monkeypatch)
