"""dashboard/components/page.py and dashboard/data/runs.py: the sidebar, empty states, pictures,
formats.
"""

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from core.files import write_json
from core.formatting import number, percent
from core.runs import artifacts, writing
from core.runs.run import Run
from dashboard.components.markdown import (
    escape,
    escape_sentence,
    interval_text,
    model_label,
    model_mark,
    shorten,
    with_interval,
)
from dashboard.components.sidebar import RESEARCH_LINE, WITH_SPLIT, WITHOUT_MODELS
from dashboard.data import runs as run_data
from tests.support.runs import make_run

APP = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"
PAGES = (
    "overview", "confusion", "errors", "predict", "trust", "labels", "curves", "protocol", "zoo",
    "training", "data",
)  # fmt: skip
LEAKAGE = {
    "patients": 40, "images": 99, "share": 0.44, "exact": 2, "near": 1, "by_patient": 98,
    "n_test": 225, "allowed": True,
}  # fmt: skip


def open_app(page: str = "overview") -> AppTest:
    app = AppTest.from_file(APP, default_timeout=60)
    return app.switch_page(f"app_pages/{page}.py").run()


def all_text(app: AppTest) -> str:
    kinds = (app.markdown, app.caption, app.info, app.code, app.title, app.subheader)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


@pytest.fixture
def two_runs(empty_app: Path) -> Path:
    make_run(empty_app, name="older", n=30, images=False, models=("cnn", "resnet50"))
    make_run(
        empty_app, name="newer", n=30, images=False, models=("cnn",), created="2026-03-01T00:00:00Z"
    )
    return empty_app


# --------------------------------------------------------------------------------- formats


def test_numbers_for_people():
    assert percent(0.8484) == "84.8\u202f%"
    assert percent(None) == percent(float("nan")) == "–"
    assert number(1234.5, 1) == "1\u202f234.5"
    interval = {"low": 0.821, "high": 0.873}
    assert interval_text(interval).replace("\u00a0", " ") == "82.1 to 87.3"
    assert interval_text({"low": None, "high": None}) == interval_text(None) == "no interval"
    assert with_interval(0.8484, interval).replace("\u00a0", " ") == (
        "84.8\u202f% :gray[82.1 to 87.3]"
    )


def test_text_from_files_is_not_markdown():
    assert escape("a_b *c* [d](e) :red[f]\n# g") == r"a\_b \*c\* \[d\](e) \:red\[f\] \# g"
    assert escape("1. x") == r"1\. x"
    assert escape("- x") == r"\- x"
    assert escape("2026-01-31, 1.5 px") == "2026-01-31, 1.5 px"
    assert shorten("abcdefghij", 5) == "ab…ij"


def test_commands_in_sentences_stay_commands_and_nothing_else_becomes_markdown():
    said = "**a**: run `make x_y --run a*b`, then `z`."
    assert escape_sentence(said) == r"\*\*a\*\*\: run `make x_y --run a*b`, then `z`."
    for text in ("a ` b *c*", "``` *c*", "*c*", "1. x", "a `` *b*"):
        assert escape_sentence(text) == escape(text)


def test_a_long_name_keeps_both_ends():
    assert shorten("abcdefghij", 5) == "ab…ij"
    assert shorten("abc", 5) == "abc"


@pytest.mark.parametrize(
    ("init", "label"),
    [
        ("random", "ResNet50 · random init"),
        ("imagenet", "ResNet50 · ImageNet init"),
        ("file:mine.h5", "ResNet50 · init from mine.h5"),
        (None, "ResNet50"),
    ],
)
def test_init_stands_beside_the_name(init: str | None, label: str):
    info = {"display": {"resnet50": "ResNet50"}, "init": {"resnet50": init} if init else {}}
    assert model_label(Run(Path("r"), info), "resnet50") == label


# --------------------------------------------------------------------------------- sidebar


@pytest.mark.parametrize("page", PAGES)
def test_without_runs_every_page_says_what_to_do(empty_app: Path, page: str):
    app = open_app(page)
    assert not app.exception
    assert "No runs in" in app.info[0].value
    assert "make train-all" in all_text(app)
    assert RESEARCH_LINE in all_text(app)


@pytest.mark.parametrize("page", PAGES)
def test_every_page_has_the_research_line_and_says_synthetic(demo_app: Path, page: str):
    app = open_app(page)
    assert not app.exception
    head = "\n".join(str(element.value) for element in app.main.markdown)
    assert RESEARCH_LINE in head
    assert "SYNTHETIC" in head
    pills = app.sidebar.get("pills")
    assert bool(pills) == (page not in WITHOUT_MODELS), "no control that the page does not obey"
    assert all("ResNet50 · random init" in one.options[1] for one in pills)
    parts = [c for c in app.sidebar.get("segmented_control") if c.label == "Measured on"]
    assert bool(parts) == (page in WITH_SPLIT)


def test_an_xray_run_is_not_called_synthetic(empty_app: Path):
    make_run(empty_app, n=30, images=False, modality="xray")
    app = open_app("training")
    assert not app.exception
    assert "SYNTHETIC" not in all_text(app)


def test_training_shows_what_a_recipe_tracks_and_survives_what_is_no_number(empty_app: Path):
    run = make_run(empty_app, n=30, images=False, models=("cnn",))
    file = run / "cnn" / "history.csv"
    history = pd.read_csv(file)
    history.assign(precision=0.5, val_precision=0.25, val_recall="much").to_csv(file, index=False)
    app = open_app("training")
    assert not app.exception
    alts = [plot.proto.alt for plot in app.main.get("plotly_chart")]
    assert len(alts) == 5 and sum("Precision of CNN" in alt for alt in alts) == 1
    assert any("Sensitivity of CNN" in alt and "no validation figures" in alt for alt in alts)


@pytest.fixture(scope="module")
def leaky_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that leaks, and a clean one."""
    root = tmp_path_factory.mktemp("leaky")
    leaky = make_run(root, name="leaky", n=30, images=False, modality="xray", models=("cnn",))
    info = artifacts.open_run(leaky).info
    write_json(leaky / "run.json", info | {"leakage": LEAKAGE})
    make_run(
        root, name="clean", n=30, images=False, modality="xray", models=("cnn",),
        created="2025-01-01T00:00:00Z",
    )  # fmt: skip
    return root


@pytest.mark.parametrize("page", PAGES)
def test_a_run_that_leaks_is_marked_on_every_page(
    leaky_root: Path, page: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CXR_ARTIFACTS", str(leaky_root))
    app = open_app(page)
    assert not app.exception
    badges = [m.value for m in app.main.markdown if m.value.startswith(":red-badge[")]
    assert any("LEAKS: 44\u202f% of test images share a patient with training" in b for b in badges)
    head = next(m for m in app.main.markdown if "LEAKS" in m.value)
    assert "99 images of 40 patients" in head.help and "exact copy" in head.help
    assert any("LEAKS" in m.value for m in app.sidebar.markdown)
    assert app.sidebar.selectbox[0].options == ["leaky (LEAKS)", "clean"]


@pytest.mark.parametrize("page", PAGES)
def test_a_run_that_does_not_leak_is_not_marked(
    leaky_root: Path, page: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("CXR_ARTIFACTS", str(leaky_root))
    monkeypatch.setenv("CXR_RUN", "clean")
    app = open_app(page)
    assert not app.exception
    assert "LEAKS" not in all_text(app)


def test_an_ensemble_has_no_init_but_members(empty_app: Path):
    run = artifacts.open_run(make_run(empty_app, n=30, images=False, ensemble=True))
    assert model_label(run, "ensemble") == "Mean of the models · 3 members"
    assert model_mark(run, "ensemble") == ":gray[★]"


def test_the_newest_run_is_open_and_another_can_be_chosen(two_runs: Path):
    app = open_app()
    assert app.sidebar.selectbox[0].value == "newer"
    app.sidebar.selectbox[0].select("older").run()
    assert "**older**" in all_text(app)
    assert not app.exception


def test_the_run_named_by_the_environment_is_open(two_runs: Path, monkeypatch):
    monkeypatch.setenv("CXR_RUN", "older")
    assert open_app().sidebar.selectbox[0].value == "older"
    monkeypatch.setenv("CXR_RUN", "gone")
    assert open_app().sidebar.selectbox[0].value == "newer"


def test_choices_survive_other_pages(two_runs: Path):
    app = open_app()
    app.sidebar.selectbox[0].select("older").run()
    app.sidebar.get("pills")[0].set_value(["resnet50"]).run()
    app.sidebar.get("segmented_control")[0].set_value("val").run()
    for page in ("training", "zoo", "data", "overview"):
        app.switch_page(f"app_pages/{page}.py").run()
        assert app.sidebar.selectbox[0].value == "older"
    assert app.sidebar.get("pills")[0].value == ["resnet50"]
    assert app.sidebar.get("segmented_control")[0].value == "val"
    assert "validation images" in all_text(app)


def test_no_model_chosen_is_a_sentence(two_runs: Path):
    app = open_app()
    app.sidebar.get("pills")[0].set_value([]).run()
    assert not app.exception
    said = "No model is chosen: choose at least one in the sidebar."
    assert app.info[0].value == escape_sentence(said)


def test_a_run_that_goes_away_gives_way_to_another(two_runs: Path):
    app = open_app()
    shutil.rmtree(two_runs / "newer")
    app.run()
    assert not app.exception
    assert app.sidebar.selectbox[0].value == "older"


def test_a_damaged_run_is_named_and_the_others_stay(two_runs: Path):
    (two_runs / "newer" / "run.json").write_text("{nope", encoding="utf-8")
    app = open_app()
    assert not app.exception
    assert app.sidebar.selectbox[0].options == ["older"]
    assert "1 run cannot be shown" in app.sidebar.expander[0].label
    named = app.sidebar.expander[0].markdown[0].value
    assert "newer" in named and "not valid JSON" in named


@pytest.mark.parametrize("page", PAGES)
def test_only_a_damaged_run_is_named_on_every_page(empty_app: Path, page: str):
    (empty_app / "bad").mkdir(parents=True)
    (empty_app / "bad" / "run.json").write_text("[]", encoding="utf-8")
    app = open_app(page)
    assert not app.exception
    assert "bad/run.json is not a JSON object" in app.info[0].value


def test_folds_are_offered_only_where_they_are(empty_app: Path):
    make_run(empty_app, name="plain", n=30, images=False, models=("cnn",))
    make_run(empty_app, name="release-folds", n=30, images=False, models=("cnn",), folds=5)
    app = open_app()
    assert app.sidebar.get("segmented_control")[0].options == ["test", "validation", "out-of-fold"]
    app.sidebar.get("segmented_control")[0].set_value("folds").run()
    assert "out-of-fold images" in all_text(app)
    app.sidebar.selectbox[0].select("plain").run()
    assert not app.exception
    assert app.sidebar.get("segmented_control")[0].options == ["test", "validation"]
    assert app.sidebar.get("segmented_control")[0].value == "test"


# --------------------------------------------------------------------------------- loaders


def test_prediction_table_has_patient_confidence_and_correct(demo_app: Path):
    run = artifacts.open_run(demo_app / "demo")
    table = run_data.load_prediction_table(run, "cnn")
    raw = artifacts.load_predictions(run, "cnn")
    assert list(table["image_id"]) == list(raw["image_id"])
    assert (table["confidence"] == raw[["p_covid", "p_normal", "p_pneumonia"]].max(axis=1)).all()
    assert (table["correct"] == (raw["label"] == raw["predicted"])).all()
    assert table["patient_id"].str.startswith("phantom-").all()


def test_a_run_trained_anew_is_read_anew(empty_app: Path):
    path = make_run(empty_app, n=30, images=False, models=("cnn",), seed=0)
    before = run_data.load_metrics(artifacts.open_run(path), "cnn")
    shutil.rmtree(path)
    make_run(empty_app, n=30, images=False, models=("cnn",), seed=1)
    os.utime(path / "run.json", ns=(1, 1))  # a clock too coarse to tell is no excuse
    after = run_data.load_metrics(artifacts.open_run(path), "cnn")
    assert after == json.loads((path / "cnn" / "metrics.json").read_text(encoding="utf-8"))
    assert after != before


def test_metrics_of_another_part_are_computed_with_intervals(demo_app: Path):
    run = artifacts.open_run(demo_app / "demo")
    figures = run_data.load_metrics(run, "cnn", "val")
    table = artifacts.load_predictions(run, "cnn", "val")
    assert figures["n"] == len(table)
    assert figures["accuracy"] == pytest.approx((table["label"] == table["predicted"]).mean())
    interval = figures["intervals"]["accuracy"]
    assert interval["low"] <= figures["accuracy"] <= interval["high"]
    assert figures["cost"] == run_data.load_metrics(run, "cnn")["cost"]


def test_comparisons_hold_every_pair_of_the_run(demo_app: Path):
    run = artifacts.open_run(demo_app / "demo")
    for part in ("test", "val"):
        pairs = {frozenset((row["a"], row["b"])) for row in run_data.load_comparisons(run, part)}
        assert len(pairs) == 3


def test_metrics_that_lack_figures_are_an_artifact_error(empty_app: Path):
    path = make_run(empty_app, n=30, images=False, models=("cnn",))
    write_json(path / "cnn" / "metrics.json", {"n": 3})
    with pytest.raises(artifacts.ArtifactError, match="json is damaged: `accuracy` is missing"):
        run_data.load_metrics(artifacts.open_run(path), "cnn")


# --------------------------------------------------------------------------------- pictures


def test_pictures_are_found_in_the_data_root(demo_app: Path):
    run = artifacts.open_run(demo_app / "demo")
    pictures = run_data.find_image_files(run)
    assert len(pictures.found) == pictures.n_images
    first = run_data.load_manifest(run).iloc[0]
    assert pictures.find(first["image_id"]).name == Path(first["path"]).name
    thumbnail = run_data.read_thumbnail(pictures.find(first["image_id"]), 48)
    assert thumbnail.shape == (48, 48) and thumbnail.dtype == "uint8"


def test_pictures_are_found_under_another_extension_in_a_folder_pointed_to(
    empty_app: Path, tmp_path: Path
):
    run = artifacts.open_run(make_run(empty_app, n=30, images=False, models=("cnn",)))
    image_id = run_data.load_manifest(run)["image_id"].iloc[0]
    assert run_data.find_image_files(run).find(image_id) is None
    elsewhere = tmp_path / "elsewhere" / "phantom"
    file = elsewhere / f"{image_id}.JPG"
    file.parent.mkdir(parents=True)
    file.write_bytes(b"x")
    file.with_suffix(".txt").write_bytes(b"x")
    for folder in (elsewhere, elsewhere.parent):
        pictures = run_data.find_image_files(run, str(folder))
        assert pictures.find(image_id) == file.resolve()
        assert len(pictures.found) == 1
        assert pictures.n_images > 1  # the others are still missing
    assert run_data.find_image_files(run, str(tmp_path / "elsewhere-not")).found == {}


def test_a_folder_without_pictures_does_not_hide_those_in_the_data_root(
    demo_app: Path, tmp_path: Path
):
    run = artifacts.open_run(demo_app / "demo")
    pictures = run_data.find_image_files(run, str(tmp_path))
    assert len(pictures.found) == pictures.n_images


def test_an_id_that_climbs_out_finds_nothing(empty_app: Path, tmp_path: Path):
    path = make_run(empty_app, n=30, images=False, models=("cnn",))
    (tmp_path / "secret.png").write_bytes(b"x")
    (tmp_path / "data" / "phantom").mkdir(parents=True)
    manifest = artifacts.load_manifest(artifacts.open_run(path))
    manifest.loc[0, "image_id"] = "../../secret"
    manifest.loc[1, "image_id"] = str(tmp_path / "secret")
    writing.write_manifest(path, manifest)
    pictures = run_data.find_image_files(artifacts.open_run(path))
    assert pictures.found == {}
