"""Pages of a run whose weights were not kept: all as before, and Predict says what to do."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core.runs.artifacts import open_run
from core.runs.prune import slim_run
from dashboard.data import runs as run_data
from dashboard.server import warmup
from tests.dashboard.test_predict import PHANTOM, cards, open_page, plain, sentences, upload
from tests.support.guard import add_guard
from tests.support.runs import make_run

AGAIN = "python -m core train --dataset phantom --run demo-again"


@pytest.fixture
def slim(empty_app: Path) -> Path:
    """An app with the run `demo`, which has no weights; returns its artifacts root."""
    make_run(empty_app, n=30, weights=False, ensemble=True)
    return empty_app


def info(app: AppTest) -> str:
    assert not app.exception
    return plain(app.main.info[0].value)


def test_predict_names_the_command_that_trains_it_again(slim: Path) -> None:
    app = open_page()
    assert "weights of run **demo** were not kept" in info(app)
    assert "No other run here can be asked either" in info(app)
    assert app.main.code[0].value == AGAIN
    assert not app.file_uploader


def test_predict_names_runs_that_can_be_asked(slim: Path) -> None:
    make_run(slim, name="older", n=30, tiny_openvino=True, created="2025-01-01T00:00:00Z")
    make_run(slim, name="empty", n=30, images=False, created="2025-01-01T00:00:00Z")
    app = open_page()
    assert "choose the run **older** in the sidebar" in info(app)
    assert run_data.list_usable_models("demo") == ["older"]
    app.sidebar.selectbox[0].set_value("older").run()
    assert not app.exception and len(app.file_uploader) == 1 and not app.main.code


@pytest.mark.parametrize(
    "page",
    ["overview", "confusion", "errors", "trust", "curves", "protocol", "training", "data"],
)
def test_every_other_page_shows_what_it_shows_with_weights(
    slim: Path, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without = open_page(page)
    assert not without.exception and "not kept" not in "".join(t.value for t in without.main.info)
    run = open_run(slim / "demo")
    kept = make_run(slim.parent / "with" / "artifacts", n=30, ensemble=True)
    assert open_run(kept).models == run.models
    monkeypatch.setenv("CXR_ARTIFACTS", str(kept.parent))
    whole = open_page(page)
    texts = [[m.value for m in app.main.markdown] for app in (without, whole)]
    assert texts[0] == texts[1]


def test_models_that_were_kept_answer_and_the_others_are_named_once(empty_app: Path) -> None:
    path = make_run(empty_app, n=30, tiny_openvino=True, ensemble=True)
    add_guard(path)
    slim_run(open_run(path), ["cnn", "mobilenetv2"])
    app = upload(open_page(), "a.png", PHANTOM)
    assert not app.exception and sentences(app)
    # A plain mean of the two stands beside them, since the run's own ensemble cannot answer.
    assert [card.split("**")[1] for card in cards(app)] == ["CNN", "MobileNetV2", "Mean of the 2"]
    warned = [plain(w.value) for w in app.main.warning if "not kept" in w.value]
    assert len(warned) == 1 and "ResNet50 and Mean of the models cannot be asked" in warned[0]
    code = re.findall("(?<!\\\\)`(.*?)`", app.main.warning[0].value)
    assert len(code) == 1 and code[0].startswith("python -m core train --dataset phantom ")
    app.sidebar.pills[0].set_value(["cnn"]).run()
    assert not app.exception and not [w for w in app.main.warning if "not kept" in w.value]


def test_nothing_is_loaded_ahead_for_a_run_without_weights(
    slim: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setattr(run_data, "load_predictor", asked.append)
    monkeypatch.setattr("core.imageio.sandbox.start_sandbox", lambda: None)
    monkeypatch.setattr(warmup.gc, "freeze", lambda: None)
    warmup.preload()
    assert asked == []
