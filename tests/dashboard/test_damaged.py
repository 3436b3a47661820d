"""A damaged run is named in one sentence on every page, whatever is wrong with it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, is_typeddict

import pytest
from streamlit.testing.v1 import AppTest

from core.runs.artifacts import ArtifactError, load_metrics, open_run
from core.runs.schema.checking import fields_of, options_of
from core.runs.schema.metrics import Metrics
from core.runs.schema.run import RunInfo
from tests.support.runs import make_run

APP = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"
PAGES = (
    *("overview", "confusion", "errors", "curves", "protocol", "trust", "labels"),
    *("predict", "zoo", "training", "data"),
)
FIRST = "covid/phantom-c0000_0"  # the image in the first row of manifest and predictions
# Which pages cannot do without a file; Predict says it in the cards below an answer.
READERS = {
    "run.json": PAGES,
    "cnn/card.md": PAGES,
    "cnn/metrics.json": ("overview", "errors", "training"),
    "cnn/history.csv": ("training",),
    "cnn/predictions.csv": ("confusion", "errors"),
    "manifest.csv": ("confusion", "errors", "training", "data"),
    "skipped.csv": ("data",),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to copy, never to write to."""
    root = tmp_path_factory.mktemp("whole")
    run = make_run(root, n=30, images=False, models=("cnn", "resnet50"), folds=3, ensemble=True)
    info = json.loads((run / "run.json").read_text(encoding="utf-8"))
    info["leakage"] = {"patients": 1, "images": 2, "share": 0.1, "exact": 0, "near": 0}
    info["task"] = {"classes": ["a"], "map": {"A": "a"}, "left_out": {"B": 2}}
    info["weights"] = {"cnn": "kept"}
    info["recipes"] = {"cnn": {"stages": [{"name": "all layers", "keep": "last"}]}}
    info["devices"] = {"backend": "tensorflow", "kind": "cpu", "n": 1, "distribution": "none"}
    info["devices"]["precision"] = "float32"
    info["rate_search"] = {"cnn": [{"learning_rate": 1e-3}]}
    part = {"name": "a", "folder": "a", "title": "A", "classes": {"covid": 1}, "caveats": ["c"]}
    info["dataset"] |= {"parts": [part], "sources": ["NIH"], "weighting": "none"}
    state = {"status": "not done", "reason": "too few"}
    info["source_folds"] = {"rule": "r", "cannot_tell": {"NIH": "x"}, "models": {"cnn": state}}
    (run / "run.json").write_text(json.dumps(info), encoding="utf-8")
    figure = {"value": 0.5, "low": 0.4, "high": 0.6}
    sensitivity = {"covid": figure | {"n": 2, "n_patients": 2}}
    metrics = json.loads((run / "cnn" / "metrics.json").read_text(encoding="utf-8"))
    metrics["sources"] = {
        "NIH": {"n": 2, "n_patients": 2, "classes": {"covid": 2}, "accuracy": figure}
        | {"sensitivity": sensitivity}
    }
    (run / "cnn" / "metrics.json").write_text(json.dumps(metrics), encoding="utf-8")
    return run


@pytest.fixture
def torn(whole: Path, empty_app: Path) -> Path:
    """A copy to damage: the only run that the dashboard has."""
    return Path(shutil.copytree(whole, empty_app / "demo"))


def places(expected: Any, path: tuple = ()) -> Iterator[tuple[tuple, Any]]:
    """Every key that a type of core.runs.schema knows, with the type of its value; `any` and 0
    stand for all.
    """
    if expected is Any:
        return
    if path:
        yield path, expected
    for option in options_of(expected):
        if is_typeddict(option):
            for key, (inner, _) in fields_of(option).items():
                yield from places(inner, (*path, key))
        elif get_origin(option) is list:
            yield from places(get_args(option)[0], (*path, 0))
        elif get_origin(option) is dict:
            yield from places(get_args(option)[1], (*path, any))
        elif get_origin(option) is Annotated:
            for both in get_args(option):
                yield from list(places(both, path))[1:]


def wrong_value(expected: Any) -> Any:
    """null where null is wrong, else what no type that may be null takes."""
    return "x" if NoneType in options_of(expected) else None


def put_wrong(path: tuple, expected: Any) -> Callable[[Path], str]:
    """A change of a JSON file: the wrong value at that path; returns the path as it is named."""

    def change(file: Path) -> str:
        whole = value = json.loads(file.read_text(encoding="utf-8"))
        named = []
        for step in path:
            named.append(next(iter(value)) if step is any else step)
            parent, value = value, value[named[-1]]
        parent[named[-1]] = wrong_value(expected)
        file.write_text(json.dumps(whole), encoding="utf-8")
        return f"`{'.'.join(map(str, named))}` must be "

    return change


def set_keys(**values: Any) -> Callable[[Path], str]:
    def change(file: Path) -> str:
        whole = json.loads(file.read_text(encoding="utf-8"))
        file.write_text(json.dumps(whole | values), encoding="utf-8")
        return f"`{next(iter(values))}"

    return change


def set_cell(column: str, text: str, words: str) -> Callable[[Path], str]:
    """A change of a CSV file: text in the second row of a column."""

    def change(file: Path) -> str:
        lines = [line.split(",") for line in file.read_text(encoding="utf-8").splitlines()]
        lines[2][lines[0].index(column)] = text
        file.write_text("\n".join(map(",".join, lines)) + "\n", encoding="utf-8")
        return words

    return change


def write(content: bytes, words: str) -> Callable[[Path], str]:
    def change(file: Path) -> str:
        file.write_bytes(content)
        return words

    return change


def keep_only_the_head(file: Path) -> str:
    file.write_text(file.read_text(encoding="utf-8").splitlines()[0] + "\n", encoding="utf-8")
    return "it lists no images"


# What the types alone do not tell, and files that are no JSON.
MORE_DAMAGE = [
    # These were crashes once; here also where a key is taken out of the type.
    *(
        ("run.json", set_keys(**{key: None}))
        for key in ("display", "init", "class_names", "floors", "model_input_size_px")
    ),
    ("run.json", set_keys(dataset={"name": "x", "caveats": None})),
    ("run.json", set_keys(dataset="x")),
    ("run.json", set_keys(floors={"a": 1})),
    ("run.json", set_keys(comparisons=[{"a": "cnn", "p_holm": 0.5, "verdict": "b better"}])),
    ("run.json", set_keys(files=[])),
    ("run.json", set_keys(class_names=[])),
    ("run.json", set_keys(models=["cnn", "cnn"])),
    ("run.json", set_keys(models=["../demo/cnn"])),
    ("cnn/card.md", write(b"caf\xe9", "not UTF-8 text")),
    ("cnn/metrics.json", set_keys(intervals=None)),
    ("cnn/metrics.json", set_keys(macro_f1="x")),
    ("cnn/metrics.json", set_keys(macro_f1=float("nan"))),
    ("cnn/metrics.json", set_keys(per_class={})),
    ("cnn/metrics.json", set_keys(confusion_matrix=[[1, 2], [3, 4]])),
    ("cnn/metrics.json", write(b"[]", "not a JSON object")),
    ("cnn/history.csv", set_cell("val_loss", "x", "`val_loss` in row 2 must be a number")),
    ("cnn/history.csv", set_cell("epoch", "", "`epoch` in row 2 must be a number")),
    ("cnn/history.csv", set_cell("seconds", "inf", "`seconds` in row 2 must be a number")),
    ("cnn/predictions.csv", set_cell("p_covid", "x", "`p_covid` in row 2 must be a number")),
    ("cnn/predictions.csv", set_cell("p_covid", "7", "sum to 1 in every row")),
    ("cnn/predictions.csv", set_cell("label", "flu", "names classes that the run does not")),
    ("cnn/predictions.csv", set_cell("image_id", FIRST, "more than once")),
    ("cnn/predictions.csv", write(b"a,b\n1,2\n", "lacks the columns image_id")),
    ("manifest.csv", set_cell("width", "wide", "`width` in row 2 must be a number")),
    ("manifest.csv", set_cell("image_id", FIRST, "more than once")),
    ("manifest.csv", write(b"\xff\xfe\x00", "not a table")),
    ("manifest.csv", keep_only_the_head),
    ("cnn/predictions.csv", keep_only_the_head),
    ("skipped.csv", write(b"a,b\n1,2\n", "lacks the columns path")),
]


def keys_of_the_types() -> list:
    """(file, change) for every place that a type knows."""
    return [
        pytest.param(file, put_wrong(path, expected), id=f"{file}:{'.'.join(map(step_name, path))}")
        for file, document in (("run.json", RunInfo), ("cnn/metrics.json", Metrics))
        for path, expected in dict(places(document)).items()
    ]


def step_name(step: Any) -> str:
    return "*" if step is any else str(step)


@pytest.mark.parametrize(("file", "change"), keys_of_the_types())
def test_every_key_of_the_types_is_checked(torn: Path, file: str, change: Callable) -> None:
    words = change(torn / file)
    with pytest.raises(ArtifactError) as caught:
        load_metrics(open_run(torn), "cnn")
    assert str(caught.value).startswith(f"demo/{file} is damaged: {words}")


def damage() -> list:
    """(file, change, pages): each key of run.json, of which pages show something, and all else.

    A damaged file is read by the same function for every page, and what that says of each shape of
    damage is held above. So the first damage of a file is looked for on all pages, every other on
    one that reads the file: in turn, so that each page meets many.
    """
    keys = [
        (("run.json", put_wrong((key,), expected)), key)
        for key, (expected, _) in fields_of(RunInfo).items()
        if expected is not Any
    ]
    more = [(case, f"{case[0]}-{number}") for number, case in enumerate(MORE_DAMAGE)]
    cases, met = [], dict.fromkeys(READERS, 0)
    for (file, change), name in keys + more:
        pages = PAGES if not met[file] else (READERS[file][met[file] % len(READERS[file])],)
        met[file] += 1
        cases.append(pytest.param(file, change, pages, id=name))
    return cases


@pytest.mark.parametrize(("file", "change", "pages"), damage())
def test_pages_name_what_is_damaged(
    torn: Path, file: str, change: Callable, pages: tuple[str, ...]
) -> None:
    words = change(torn / file)
    app = AppTest.from_file(APP, default_timeout=60).run()
    for page in pages:
        app.switch_page(f"app_pages/{page}.py").run()
        assert not app.exception, page
        if page in READERS[file]:
            said = app.main.info[0].value.replace("\\", "")
            assert f"demo/{file} is damaged: " in said and words in said, (page, said)
            assert len(app.main) < 5, f"{page} shows more than that"


def test_a_run_that_is_whole_is_called_so_on_no_page(torn: Path) -> None:
    app = AppTest.from_file(APP, default_timeout=60).run()
    for page in PAGES:
        app.switch_page(f"app_pages/{page}.py").run()
        assert not app.exception
        assert not any("damaged" in info.value for info in app.info), page
