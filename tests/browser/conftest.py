"""A real dashboard in a real Chromium. Without a Chromium these tests skip; with CI=true they fail.

Everything is found by what people see: roles, labels and texts.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.support.audit import add_audit, add_external
from tests.support.guard import add_guard
from tests.support.runs import make_run
from tests.support.server import Server

HOW_TO_GET_CHROMIUM = (
    "No Chromium was found for the browser tests. Get one with `apt-get install chromium`, or say "
    "where it is with CHROMIUM=/path/to/chromium."
)
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
LAUNCH_ARGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]
# Opened by its own address, a page makes Streamlit look for its server below that address first.
STREAMLIT_LOOKS_FOR_ITS_SERVER = re.compile(r"/[a-z]+/_stcore/(health|host-config)$")
DESKTOP = {"width": 1440, "height": 1000}
PHONE = {"width": 390, "height": 844}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.browser)


def find_chromium(environ: dict[str, str]) -> str:
    """The Chromium to drive; skips where there is none, and fails where CI is set."""
    named = environ.get("CHROMIUM")
    found = next(filter(None, map(shutil.which, [named] if named else CHROMIUM_NAMES)), None)
    if found is None:
        (pytest.fail if environ.get("CI") == "true" else pytest.skip)(HOW_TO_GET_CHROMIUM)
    return found


@pytest.fixture(scope="module")
def browser():
    """One Chromium a module (Playwright's event loop must not outlive it into other tests)."""
    executable = find_chromium(dict(os.environ))
    sync_api = pytest.importorskip("playwright.sync_api")
    with sync_api.sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=executable, args=LAUNCH_ARGS)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def browser_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As demo_root, same predictions, and with folds, an audit and images from elsewhere."""
    root = tmp_path_factory.mktemp("browser")
    run = make_run(root / "artifacts", tiny_openvino=True, folds=5)
    add_audit(run)
    add_external(run, "elsewhere")
    return root


@pytest.fixture(scope="session")
def demo_server(browser_root: Path) -> Iterator[Server]:
    """The dashboard on the demo run of tests/support/runs.py."""
    server = Server(browser_root)
    yield server
    server.stop()


@pytest.fixture(scope="module")
def guarded_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three models, their mean and a guard, with its phantoms."""
    root = tmp_path_factory.mktemp("guarded")
    run = make_run(root / "artifacts", tiny_openvino=True, ensemble=True)
    add_guard(run)
    return root


@pytest.fixture(scope="module")
def watched_server(guarded_root: Path) -> Iterator[Server]:
    """The dashboard on it; what it holds of uploads can be asked, and its TMPDIR is its own."""
    if not hasattr(signal, "SIGUSR1"):
        pytest.skip("This system has no signal to ask the server by.")
    temporary = guarded_root / "tmp"
    temporary.mkdir()
    environ = {"WATCHED": str(guarded_root / "held.json"), "TMPDIR": str(temporary)}
    server = Server(guarded_root, module="tests.browser.watched", environ=environ)
    yield server
    server.stop()


@pytest.fixture
def start_server() -> Iterator[Callable[..., Server]]:
    """start_server(root) serves `root/artifacts`; stopped when the test ends."""
    started: list[Server] = []

    def start(root: Path, *args: str) -> Server:
        started.append(Server(root, *args))
        return started[-1]

    yield start
    for server in started:
        server.stop()


class Visit:
    """A browser tab on the dashboard that writes down what went wrong in it."""

    def __init__(self, page, url: str) -> None:
        self.page, self.url = page, url
        self.problems: list[str] = []
        self.strangers: list[str] = []
        page.set_default_timeout(30_000)
        page.on("console", self._on_console)
        page.on("pageerror", lambda error: self.problems.append(f"page error: {error}"))
        page.on("request", self._on_request)

    def open(self, path: str, heading: str) -> None:
        """Go to a page and wait until it is drawn."""
        self.page.goto(f"{self.url}/{path}")
        self.page.get_by_role("heading", name=re.compile(heading)).first.wait_for()
        self.settle()

    def go_to(self, title: str) -> None:
        """Open a page from the sidebar, without losing the session."""
        self.page.get_by_test_id("stSidebarNav").get_by_role("link", name=title).click()
        self.page.get_by_role("heading", name=title).first.wait_for()
        self.settle()

    def settle(self) -> None:
        """Wait until Streamlit's script has run and nothing is still being drawn."""
        self.page.wait_for_timeout(250)
        self.page.wait_for_function(
            """() => {
                const app = document.querySelector('[data-testid="stApp"]');
                const state = app && app.getAttribute('data-test-script-state');
                const busy = document.querySelector(
                    '[data-testid="stSpinner"], [data-testid="stSkeleton"]');
                return app && (state === null || state === 'notRunning') && !busy;
            }"""
        )
        self.page.wait_for_timeout(250)

    def assert_clean(self) -> None:
        """No console error, no exception on the page, nothing asked of other machines."""
        shown = self.page.locator('[data-testid="stException"]').all_inner_texts()
        assert shown == []
        assert self.strangers == []
        assert self.problems == []

    def _on_console(self, message) -> None:
        url = message.location.get("url", "")
        if message.type == "error" and not STREAMLIT_LOOKS_FOR_ITS_SERVER.search(url):
            self.problems.append(f"console: {message.text} ({url})")

    def _on_request(self, request) -> None:
        url = urlsplit(request.url)
        if url.scheme in ("http", "https", "ws", "wss") and url.hostname != "127.0.0.1":
            self.strangers.append(request.url)


@pytest.fixture
def visit(browser, demo_server: Server) -> Iterator[Callable[..., Visit]]:
    """visit(viewport=…, scheme=…, url=…) opens a fresh tab; closed when the test ends."""
    contexts = []

    def start(*, viewport=DESKTOP, scheme: str = "light", url: str | None = None) -> Visit:
        context = browser.new_context(
            viewport=viewport, color_scheme=scheme, reduced_motion="reduce"
        )
        contexts.append(context)
        return Visit(context.new_page(), url or demo_server.url)

    yield start
    for context in contexts:
        context.close()
