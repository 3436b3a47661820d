"""The page All models on a whole zoo of made-up models, in a real browser."""

from __future__ import annotations

import re

import pytest

from tests.browser.conftest import PHONE
from tests.support.leaderboard import make_zoo
from tests.support.server import Server


@pytest.fixture(scope="module")
def zoo_server(tmp_path_factory: pytest.TempPathFactory):
    root = tmp_path_factory.mktemp("zoo")
    make_zoo(root / "artifacts")
    server = Server(root)
    yield server
    server.stop()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_whole_zoo_fits_a_phone(visit, zoo_server: Server, scheme: str):
    tab = visit(viewport=PHONE, scheme=scheme, url=zoo_server.url)
    tab.open("zoo", "All models")
    tab.page.get_by_text(re.compile("16 models on the same")).first.wait_for()
    tab.page.wait_for_timeout(1500)  # charts take their width from the page a moment later
    widest = tab.page.evaluate(
        """() => Math.max(document.documentElement.scrollWidth,
            document.querySelector('[data-testid="stMain"]').scrollWidth)"""
    )
    assert widest <= PHONE["width"]
    names = tab.page.locator(".js-plotly-plot").first.evaluate(
        "plot => Array.from(plot.querySelectorAll('.ytick text'), t => t.textContent)"
    )
    assert len(names) == 16 and "FNN, plain" in " ".join(names)
    tab.assert_clean()


def test_the_metric_is_chosen_with_the_keyboard_and_outlives_the_page(visit, zoo_server: Server):
    tab = visit(url=zoo_server.url)
    tab.open("zoo", "All models")
    tab.page.get_by_role("radio", name="Macro-F1").focus()
    tab.page.keyboard.press("ArrowRight")
    tab.page.keyboard.press("Enter")
    said = tab.page.get_by_role("heading", name=re.compile("models on the same .* balanced"))
    said.wait_for()
    tab.go_to("Data")
    tab.go_to("All models")
    assert said.is_visible()
    tab.assert_clean()
