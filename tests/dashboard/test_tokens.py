"""Cached readings know every change of a run: what was added, replaced or deleted is seen."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core.reporting import verdict
from core.reporting.scorecard.scorecard import Check, build_scorecard, scorecard_sentence
from core.runs import artifacts
from core.runs.additions import ADDITION_FOLDERS
from dashboard.components.markdown import escape
from dashboard.data import tokens
from tests.support.guard import add_guard
from tests.support.runs import make_run

APP = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"


def checks_of(path: Path) -> list[Check]:
    return build_scorecard(artifacts.open_run(path))


def guard_status(path: Path) -> str:
    return next(check.status for check in checks_of(path) if check.key == "guard")


def assert_pages_say(path: Path) -> None:
    """Overview and Reliability checks tell of the scorecard as it is now."""
    app = AppTest.from_file(APP, default_timeout=120).run()
    app.switch_page("app_pages/overview.py").run()
    checks = checks_of(path)
    said = verdict.reliance_sentence({check.key: check.status for check in checks}, [], [])
    assert escape(said.sentence) in [box.value for box in app.main.error]
    app.switch_page("app_pages/trust.py").run()
    said = scorecard_sentence(artifacts.open_run(path), checks).partition(" Most serious")[0]
    assert f"#### {escape(said)}" in [m.value for m in app.main.markdown]


def test_pages_see_a_guard_that_is_added_replaced_and_deleted(empty_app: Path) -> None:
    path = make_run(empty_app, n=60, images=False)
    steps: list[Callable[[], object]] = [
        lambda: None,
        lambda: add_guard(path),
        lambda: add_guard(path, kept=0.5),
        lambda: shutil.rmtree(path / "guard"),
    ]
    seen = []
    for step in steps:
        step()
        seen.append(guard_status(path))
        assert_pages_say(path)
    assert seen[0] == seen[-1] == "not done" and seen[2] == "failed"


@pytest.mark.parametrize("folder", ADDITION_FOLDERS)
def test_a_token_changes_with_each_addition_and_with_the_run(tmp_path: Path, folder: str) -> None:
    path = make_run(tmp_path, images=False, models=["cnn"])
    run = artifacts.open_run(path)
    core, tokens_seen = tokens.run_token(run), [tokens.additions_token(run)]
    file = path / folder / "deep" / "a.csv"
    for text in ("a", "a longer one", None):
        if text is None:
            file.unlink()
        else:
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        tokens_seen.append(tokens.additions_token(run))
    assert tokens_seen[0] == tokens_seen[-1]
    assert len(set(tokens_seen)) == 3
    assert tokens.run_token(run) == core
    (path / artifacts.RUN_FILE).write_text("{}")
    assert tokens.run_token(run) != core and tokens.additions_token(run) != tokens_seen[-1]
    (path / artifacts.RUN_FILE).unlink()
    assert tokens.run_token(run).endswith("gone")


def test_what_predicts_is_read_anew_with_a_model_or_the_guard_and_not_with_an_audit(
    tmp_path: Path,
) -> None:
    path = make_run(tmp_path, images=False, models=["cnn"], tiny_openvino=True)
    run = artifacts.open_run(path)
    seen = [tokens.predictor_token(run)]
    (path / "audit").mkdir()
    (path / "audit" / "audit.json").write_text("{}")
    assert tokens.predictor_token(run) == seen[0]
    add_guard(path)
    seen.append(tokens.predictor_token(run))
    (path / "cnn" / artifacts.MODEL_FILES[0]).unlink()
    seen.append(tokens.predictor_token(run))
    assert len(set(seen)) == 3
