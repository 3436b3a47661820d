"""core/runs/artifacts.py, core/runs/schema: what a run must hold, and the sentence where it does
not.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Annotated, Any, NotRequired, TypedDict

import pandas as pd
import pytest

from core.runs import artifacts, writing
from core.runs.artifacts import ArtifactError
from core.runs.run import Run
from core.runs.schema.checking import find_problem
from tests.support.runs import make_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to copy, never to write to."""
    return make_run(tmp_path_factory.mktemp("whole"), n=30, images=False, models=("cnn",))


@pytest.fixture
def run_dir(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "demo"))


def change_json(file: Path, **values) -> None:
    whole = json.loads(file.read_text(encoding="utf-8"))
    kept = {k: v for k, v in (whole | values).items() if v != "absent"}
    file.write_text(json.dumps(kept), encoding="utf-8")


# --------------------------------------------------------------------------------- types


class OneNumber(TypedDict):
    a: int
    b: NotRequired[int]


class Both(TypedDict):
    a: int
    b: int


class Neither(TypedDict):
    a: None
    b: None


class Perhaps(TypedDict, total=False):
    a: int


class Named(Perhaps):
    name: str


@pytest.mark.parametrize(
    ("value", "expected", "problem"),
    [
        ("x", str, None),
        (None, str, "`k` must be text, not null"),
        (1, int, None),
        (1.0, int, "`k` must be a whole number, not 1"),
        (True, int, "`k` must be a whole number, not true"),
        (1, float, None),
        (float("nan"), float, "`k` must be a number, not nan"),
        (float("inf"), float, "`k` must be a number, not inf"),
        (10**400, float, "`k` must be a number, not a whole number"),
        (None, float | None, None),
        ("x", float | None, "`k` must be a number or null, not text"),
        (["a", None], list[str], "`k.1` must be text, not null"),
        ("ab", list[str], "`k` must be a list, not text"),
        ({}, dict, None),
        ([], dict, "`k` must be an object, not a list"),
        ({"a": 1, "z": None}, OneNumber, None),
        ({"b": 1}, OneNumber, "`k.a` is missing"),
        ({"a": 1, "b": None}, OneNumber, "`k.b` must be a whole number, not null"),
        ({"x": 1, "y": "1"}, dict[str, int], "`k.y` must be a whole number, not text"),
        ({"a": 1, "y": 1}, Annotated[dict[str, int], Both], "`k.b` is missing"),
        ({"a": 1, "b": 1, "y": "1"}, Annotated[Both, dict[str, int]], "`k.y` must be a whole"),
        ({"a": 1, "b": 1, "y": 1}, Annotated[Both, dict[str, int]], None),
        ([], Annotated[Both, dict[str, int]], "`k` must be an object, not a list"),
        ({"name": "x"}, Named, None),
        ({"a": 1}, Named, "`k.name` is missing"),
        ({"name": "x", "a": "1"}, Named, "`k.a` must be a whole number, not text"),
        ({"k": None}, dict[str, Any], None),
        ({"a": 1, "b": None}, Both | Neither, "`k.b` must be a "),
        ({"a": None, "b": None}, Both | Neither, None),
        (1, Both | Neither, "`k` must be an object, not a whole number"),
    ],
)
def test_what_does_not_fit_is_named_with_what_was_expected(value, expected, problem) -> None:
    found = find_problem(value, expected, "k")
    assert found is None if problem is None else found.startswith(problem)


# --------------------------------------------------------------------------------- run.json


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"display": None}, "`display` must be an object, not null"),
        ({"name": "absent"}, "`name` is missing"),
        ({"files": []}, "`files` must be an object, not a list"),
        ({"models": []}, "`models` must be a list of 1 or more names, all different"),
        ({"models": ["cnn", "cnn"]}, "`models` must be a list of 1 or more names, all different"),
        ({"models": [".."]}, "`models` must be names of folders, which '..' is not"),
        ({"class_names": ["x"]}, "`class_names` must be a list of 2 or more names, all different"),
    ],
)
def test_a_damaged_run_json_is_one_sentence(run_dir: Path, values: dict, problem: str) -> None:
    change_json(run_dir / "run.json", **values)
    sentence = f"demo/run.json is damaged: {problem}. Restore the file or train the run anew."
    with pytest.raises(ArtifactError) as caught:
        artifacts.open_run(run_dir)
    assert str(caught.value) == sentence
    assert artifacts.verify_run(run_dir) == [sentence]
    assert [entry.problem for entry in artifacts.list_runs(run_dir.parent)] == [sentence]


def test_a_newer_format_is_said_before_what_it_may_have_changed(run_dir: Path) -> None:
    change_json(run_dir / "run.json", format_version=2, models=None)
    with pytest.raises(ArtifactError, match="has format version 2, this program reads 1"):
        artifacts.open_run(run_dir)


def test_keys_that_may_be_absent_and_keys_that_nobody_reads(run_dir: Path) -> None:
    optional = ("display", "init", "kind", "floors", "comparisons", "model_input_size_px")
    change_json(run_dir / "run.json", **dict.fromkeys(optional, "absent"), later={"a": [None]})
    run = artifacts.open_run(run_dir)
    assert run.title("cnn") == "cnn" and run.info["later"] == {"a": [None]}


@pytest.mark.parametrize("text", ["[" * 100_000, "1" * 5000, '{"a": NaN', ""])
def test_text_that_is_no_json_is_a_sentence(run_dir: Path, text: str) -> None:
    (run_dir / "run.json").write_text(text, encoding="utf-8")
    with pytest.raises(ArtifactError, match=r"demo/run\.json is damaged: it is not valid JSON"):
        artifacts.open_run(run_dir)


# --------------------------------------------------------------------------------- other files


def test_a_card_that_is_not_utf8_is_an_artifact_error(run_dir: Path) -> None:
    run = artifacts.open_run(run_dir)
    assert artifacts.load_card(run, "cnn").startswith("# CNN")
    (run_dir / "cnn" / "card.md").write_bytes(b"caf\xe9")
    for read in (lambda: artifacts.load_card(run, "cnn"), lambda: artifacts.open_run(run_dir)):
        with pytest.raises(ArtifactError, match=r"demo/cnn/card\.md is damaged: .* not UTF-8"):
            read()
    (run_dir / "cnn" / "card.md").unlink()
    assert artifacts.load_card(artifacts.open_run(run_dir), "cnn") is None


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"intervals": None}, "`intervals` must be an object, not null"),
        ({"intervals": "absent"}, "`intervals` is missing"),
        ({"intervals": {"auc": {"low": 0.1, "high": None, "level": 0.95}}}, "`intervals.auc.high`"),
        ({"macro_f1": "0.9"}, "`macro_f1` must be a number, not text"),
        ({"per_class": {}}, "`per_class` must hold the classes covid, normal, pneumonia"),
        ({"confusion_matrix": [[1, 2], [3, 4]]}, "`confusion_matrix` must have 3 rows of 3"),
    ],
)
def test_damaged_metrics_are_named(run_dir: Path, values: dict, problem: str) -> None:
    change_json(run_dir / "cnn" / "metrics.json", **values)
    with pytest.raises(ArtifactError) as caught:
        artifacts.load_metrics(artifacts.open_run(run_dir), "cnn")
    assert str(caught.value).startswith(f"demo/cnn/metrics.json is damaged: {problem}")


def test_metrics_that_are_undefined_or_were_not_measured_are_whole(run_dir: Path) -> None:
    nothing = {"accuracy": {"low": None, "high": None, "level": 0.95, "method": "undefined"}}
    change_json(run_dir / "cnn" / "metrics.json", auc=None, cost=None, intervals=nothing)
    assert artifacts.load_metrics(artifacts.open_run(run_dir), "cnn")["auc"] is None


def test_figures_of_a_covid_class_need_one(run_dir: Path) -> None:
    run = artifacts.open_run(run_dir)
    info = run.info | {"class_names": ["flu", "normal", "pneumonia"]}
    file = run_dir / "cnn" / "metrics.json"
    file.write_text(file.read_text(encoding="utf-8").replace('"covid"', '"flu"'), encoding="utf-8")
    with pytest.raises(ArtifactError, match="`binary` needs a class covid"):
        artifacts.load_metrics(Run(run_dir, info), "cnn")


def test_empty_numbers_are_nan_and_text_stays_text(run_dir: Path) -> None:
    file = run_dir / "cnn" / "history.csv"
    table = pd.read_csv(file)
    table.loc[0, "val_loss"], table["phase"] = None, "NA"
    table.to_csv(file, index=False)
    history = artifacts.load_history(artifacts.open_run(run_dir), "cnn")
    assert history["val_loss"].isna().tolist() == [True] + [False] * 9
    assert set(history["phase"]) == {"NA"} and history["epoch"].tolist() == list(range(1, 11))
    writing.write_history(run_dir, "cnn", table.iloc[:0])
    assert len(artifacts.load_history(artifacts.open_run(run_dir), "cnn")) == 0


@pytest.mark.parametrize(
    ("column", "cell", "found"),
    [("val_loss", "oops", "oops"), ("epoch", "", "an empty cell"), ("lr", "inf", "inf")],
)
def test_text_in_a_number_cell_is_named_with_its_row(
    run_dir: Path, column: str, cell: str, found: str
) -> None:
    file = run_dir / "cnn" / "history.csv"
    table = pd.read_csv(file, dtype=str)
    table.loc[2, column] = cell
    table.to_csv(file, index=False)
    with pytest.raises(ArtifactError) as caught:
        artifacts.load_history(artifacts.open_run(run_dir), "cnn")
    assert str(caught.value) == (
        f"demo/cnn/history.csv is damaged: `{column}` in row 3 must be a number, not {found}. "
        "Restore the file or train the run anew."
    )
