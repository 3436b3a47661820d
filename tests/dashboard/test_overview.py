"""The pages Overview, Training and Data, as people get them."""

import io
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from core.files import write_json
from core.metrics.classification import compute_metrics, flatten_metrics
from core.reporting.scorecard.scorecard import build_scorecard
from core.runs import artifacts, writing
from dashboard.tables import metrics as metric_tables
from tests.support.audit import add_audit, add_external
from tests.support.cross_validation import make_folded_run
from tests.support.runs import make_run

METRICS = compute_metrics(np.array([0, 1, 0, 1]), np.eye(2)[[0, 1, 1, 1]], ["covid", "normal"])
METRICS["intervals"] = {}
APP = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"


def open_page(page: str) -> AppTest:
    app = AppTest.from_file(APP, default_timeout=60)
    return app.switch_page(f"app_pages/{page}.py").run()


def main_text(app: AppTest) -> str:
    main = app.main
    kinds = (main.markdown, main.caption, main.info, main.code, main.title, main.subheader)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def tables_with(app: AppTest, column: str) -> list[pd.DataFrame]:
    """The tables of the page that have such a column, in order."""
    return [table.value for table in app.main.table if column in table.value.columns]


def plain(text: str) -> str:
    return text.replace("\u202f", " ").replace("\u00a0", " ").replace("\\", "")


def load_all(run_dir: Path, models) -> dict[str, dict]:
    run = artifacts.open_run(run_dir)
    return {model: artifacts.load_metrics(run, model) for model in models}


def cell(value: float, interval: dict) -> str:
    return (
        f"{100 * value:.1f}\u202f% :gray[{100 * interval['low']:.1f}\u00a0to\u00a0"
        f"{100 * interval['high']:.1f}]"
    )


# --------------------------------------------------------------------------------- overview


def test_overview_says_first_who_leads_and_whether_to_rely_on_it(demo_app: Path):
    app = open_page("overview")
    assert not app.exception
    words = [m.value for m in app.main.markdown if not m.value.startswith(":")]
    assert words[0].startswith("#### Drawn phantoms, no patients") and "macro-F1" in words[0]
    assert app.main.error[0].value.startswith("Not tested on images from other hospitals.")
    assert links(app)["trust"] == "See why"
    assert "compares initialisations as much as architectures" in app.info[0].value


def test_the_first_screen_holds_at_most_ninety_words(demo_app: Path):
    app = open_page("overview")
    chart = next(k for k, e in enumerate(app.main) if e.type == "plotly_chart")
    before = [str(getattr(e, "value", "")) for e in list(app.main)[:chart]]
    assert 20 < len(" ".join(before).split()) <= 90


def test_a_strip_gives_weights_and_cost_of_every_model(demo_app: Path):
    (strip,) = tables_with(open_page("overview"), "Weights at start")
    figures = load_all(demo_app / "demo", ["cnn", "resnet50", "mobilenetv2"])
    for place, model in enumerate(figures):
        cost = figures[model]["cost"]
        assert strip["ms per image"].iloc[place] == f"{cost['latency_ms']:.1f}"
        assert strip["MB"].iloc[place] == f"{cost['size_mb']:.1f}"
        assert strip["Training"].iloc[place] == f"{cost['train_s'] / 60:.0f} min"
    assert list(strip["Weights at start"]) == ["from scratch", "random init", "ImageNet init"]


def test_classification_report_is_the_one_of_metrics_json(demo_app: Path):
    app = open_page("overview")
    figures = load_all(demo_app / "demo", ["cnn", "resnet50", "mobilenetv2"])
    binary, *reports = tables_with(app, "F1")
    assert len(reports) == 3
    for name, report in zip(("covid", "normal", "pneumonia"), reports, strict=True):
        for row, model in enumerate(figures):
            for key, title in metric_tables.CLASS_SHARES.items():
                expected = cell(
                    figures[model]["per_class"][name][key],
                    figures[model]["intervals"][f"{key}.{name}"],
                )
                assert report[title].iloc[row] == expected
    covid = figures["resnet50"]["binary"]["covid_vs_rest"]["sensitivity"]
    interval = figures["resnet50"]["intervals"]["binary.covid_vs_rest.sensitivity"]
    assert binary["Sensitivity"].iloc[1] == cell(covid, interval)
    matrix = figures["cnn"]["confusion_matrix"]
    alarms = matrix[1][0] + matrix[2][0]
    line = next(m.value for m in app.markdown if m.value.startswith("Of "))
    assert line.startswith(f"Of {sum(matrix[0])} COVID-19 images, found: CNN **{matrix[0][0]}**")
    assert f"called COVID-19: CNN **{alarms}**" in line


def test_no_score_stands_without_its_interval(demo_app: Path):
    app = open_page("overview")
    scores = tables_with(app, "F1")
    scores += [table.filter(regex="before|after") for table in tables_with(app, "ECE, after")]
    assert len(scores) == 5
    for table in scores:
        for column in table.columns.drop("Model", errors="ignore"):
            for text in table[column]:
                assert re.fullmatch(r"(–|[\d.]+(\u202f%)?) :gray\[.+\]", text)
    shares = app.main.dataframe[0].value
    models = [c for c in shares.columns if f"interval:{c}" in shares.columns]
    assert models == ["cnn", "resnet50", "mobilenetv2"]
    assert shares[[f"interval:{m}" for m in models]].map(bool).all().all()
    costs = app.main.dataframe[1].value
    assert {f"{name}, 95%" for name in metric_tables.ERRORS.values()} <= set(costs.columns)


def test_names_that_look_like_formulas_are_text_in_a_spreadsheet():
    table = pd.DataFrame({"image_id": ["=1+1", "normal/a", "@x", "-3"], "p": [-0.5, 0.1, 0.2, 0.3]})
    lines = metric_tables.csv_download(table).decode().splitlines()
    assert lines == ["image_id,p", "'=1+1,-0.5", "normal/a,0.1", "'@x,0.2", "'-3,0.3"]


def test_csv_holds_every_figure_with_interval_and_n(demo_app: Path):
    figures = load_all(demo_app / "demo", ["cnn", "mobilenetv2"])
    names = ["covid", "normal", "pneumonia"]
    rows = metric_tables.metric_rows(figures, names, {"cnn": "CNN", "mobilenetv2": "M"})
    text = metric_tables.csv_table(rows, figures, "test").to_csv(index=False)
    table = pd.read_csv(io.StringIO(text)).set_index(["model", "metric"])
    assert not table.index.duplicated().any()
    for model, metrics in figures.items():
        flat = flatten_metrics(metrics)
        assert set(table.loc[model].index) == set(flat)
        for key, value in flat.items():
            row = table.loc[(model, key)]
            assert row["value"] == pytest.approx(value)
            assert row["low"] == pytest.approx(metrics["intervals"][key]["low"])
            assert (row["n"], row["part"], row["unit"]) == (metrics["n"], "test", "patient")


def test_conditions_and_what_is_not_done_are_stated(demo_app: Path):
    text = main_text(open_page("overview"))
    assert "precision f32" in text
    assert "made square by stretch" in text
    assert "**Not done**\n- Leakage and shortcut audit (no audit" in text
    assert "External validation" in text and "Cross-validation" in text


def test_what_is_there_is_not_called_missing(empty_app: Path):
    path = make_run(empty_app, n=30, images=False, models=("cnn",), folds=5)
    add_audit(path)
    text = main_text(open_page("overview"))
    assert "External validation" in text and "**External: not done.**" in text
    assert "Leakage and shortcut audit" not in text and "Cross-validation" not in text
    add_external(path)
    text = main_text(open_page("overview"))
    assert "**Not done**" not in text and "External: not done" not in text


def test_an_empty_audit_folder_is_no_audit(empty_app: Path):
    path = make_run(empty_app, n=30, images=False, models=("cnn",))
    (path / "audit").mkdir()
    assert "Leakage and shortcut audit (no audit" in main_text(open_page("overview"))


def test_models_without_folds_or_calibration_are_named(empty_app: Path):
    run = make_folded_run(empty_app, not_done={"cnn": "every layer is trained"})
    for model in run.models:
        metrics = artifacts.load_metrics(run, model)
        writing.write_metrics(run.path, model, metrics | {"calibrated": None})
    text = main_text(open_page("overview"))
    assert "Cross-validation of some models (CNN: every layer is trained)" in text
    assert "Calibration (no temperature is fitted for CNN, MobileNetV2)" in text
    assert "Probabilities, as served and calibrated" not in text


# ------------------------------------------------------------------- how far it can be trusted


def links(app: AppTest) -> dict[str, str]:
    """Page -> label of the links on the page."""
    return {link.proto.page: link.proto.label for link in app.main.get("page_link")}


def test_failed_checks_are_counted_beside_the_verdict(empty_app: Path):
    path = make_run(empty_app, n=60, images=False)
    add_audit(path, leaks=True)
    app = open_page("overview")
    assert not app.exception
    status = [check.status for check in build_scorecard(artifacts.open_run(path))]
    assert f"{status.count('failed')} of {len(status)} checks failed" in app.main.error[0].value


def test_an_audit_that_was_made_since_is_counted(empty_app: Path):
    path = make_run(empty_app, n=60, images=False)
    before = open_page("overview").main.error[0].value
    add_audit(path, leaks=True)
    assert open_page("overview").main.error[0].value != before


def test_a_damaged_audit_is_a_sentence_and_the_page_stays(empty_app: Path):
    path = make_run(empty_app, n=30, images=False)
    add_audit(path)
    (path / "audit" / "audit.json").write_text("{nonsense")
    app = open_page("overview")
    assert not app.exception and tables_with(app, "Weights at start")
    assert "audit.json is damaged" in plain(app.main.error[0].value)


def test_every_pair_has_its_verdict_with_interval_and_all_three_p(demo_app: Path):
    app = open_page("overview")
    run = artifacts.open_run(demo_app / "demo")
    (table,) = tables_with(app, "p, McNemar")
    assert len(table) == 3
    for (_, shown), row in zip(table.iterrows(), run.info["comparisons"], strict=True):
        assert shown["Pair"] == f"{run.title(row['a'])} less {run.title(row['b'])}"
        assert plain(shown["Difference"]) == (
            f"{100 * row['difference']:+.1f} :gray[{100 * row['low']:.1f} to "
            f"{100 * row['high']:.1f}]"
        )
        for column, key in (("p, permutation", "p_permutation"), ("p, Holm", "p_holm")):
            assert shown[column] in ("< 0.001", f"{row[key]:.3f}")
        better = {"a better": row["a"], "b better": row["b"]}.get(row["verdict"])
        assert shown["Verdict"] == (
            f"**{run.title(better)} better**" if better else "no difference shown"
        )
    caption = next(c.value for c in app.main.caption if "McNemar" in c.value)
    assert "ignores that a patient has up to 2 images here" in caption


def test_results_from_elsewhere_stand_beside_those_at_home(empty_app: Path):
    path = make_run(empty_app, n=60, images=False)
    document = add_external(path, drop=0.2)
    app = open_page("overview")
    assert not app.exception
    assert "**Images from elsewhere**, n = 180" in main_text(app)
    (table,) = tables_with(app, "Macro-F1 there")
    figures = load_all(path, document["models"])
    for place, (model, far) in enumerate(document["models"].items()):
        own, shown = figures[model], table.iloc[place]
        interval = own["intervals"]["macro_f1"]
        assert shown["Macro-F1 here"] == cell(own["macro_f1"], interval)
        interval = far["intervals"]["macro_f1"]
        assert plain(shown["Macro-F1 there"]) == (
            f"{100 * far['macro_f1']:.1f} "
            f":gray[{100 * interval['low']:.1f} to {100 * interval['high']:.1f}]"
        )
        word = "lower" if far["macro_f1"] < own["macro_f1"] else "higher"
        assert f"points {word} :gray[" in shown["Change"]


def test_a_set_of_one_class_gives_sensitivity_only(empty_app: Path):
    path = make_run(empty_app, n=60, images=False)
    add_external(path, classes=["covid"])
    (table,) = tables_with(open_page("overview"), "Macro-F1 there")
    assert set(table["Change"]) == {"–"}
    assert all(":gray[" in text for text in table["covid found there"])
    assert "normal found there" not in table.columns


def test_calibrated_figures_stand_beside_those_as_served(demo_app: Path):
    app = open_page("overview")
    (table,) = tables_with(app, "ECE, after")
    figures = load_all(demo_app / "demo", ["cnn", "resnet50", "mobilenetv2"])
    for place, metrics in enumerate(figures.values()):
        done = metrics["calibrated"]
        for key, name in (("log_loss", "Log loss"), ("ece", "ECE")):
            for when in ("before", "after"):
                interval = done[when]["intervals"][key]
                assert plain(table[f"{name}, {when}"].iloc[place]) == (
                    f"{done[when][key]:.3f} :gray[{interval['low']:.3f} to {interval['high']:.3f}]"
                )
        assert f"{done['n']} validation" in table["Temperature"].iloc[place]


def test_an_ensemble_has_its_own_card_and_no_size_of_its_own(empty_app: Path):
    path = make_run(empty_app, n=60, images=False, ensemble=True)
    app = open_page("overview")
    assert not app.exception
    figures = load_all(path, ["cnn", "resnet50", "mobilenetv2", "ensemble"])
    members = [figures[m]["cost"]["size_mb"] for m in list(figures)[:3]]
    assert figures["ensemble"]["cost"]["size_mb"] == pytest.approx(sum(members))
    (strip,) = tables_with(app, "Weights at start")
    assert strip["MB"].iloc[3] == f"{sum(members):.1f}"
    assert strip["Model"].iloc[3] == ":gray[★]\u00a0Mean of the models"
    line = re.search(r"\*\*Images\*\*: .*", main_text(app))[0]
    assert "CNN" in line and "Mean of the models" not in line


def test_a_model_that_does_not_beat_the_floor_is_named(empty_app: Path):
    path = make_run(empty_app, n=30, images=False)
    info = json.loads((path / "run.json").read_text(encoding="utf-8"))
    scores = {m: f["macro_f1"] for m, f in load_all(path, info["models"]).items()}
    ranking = sorted(scores, key=scores.get)
    info["floors"] = {"x": {"kind": "pixel", "macro_f1": scores[ranking[0]], "accuracy": 0.1}}
    write_json(path / "run.json", info)
    (line,) = (m.value for m in open_page("overview").markdown if "than a shortcut" in m.value)
    titles = {"cnn": "CNN", "resnet50": "ResNet50", "mobilenetv2": "MobileNetV2"}
    assert line == f"**{titles[ranking[0]]}** does no better than a shortcut."


@pytest.mark.parametrize("page", ["overview", "training", "data"])
def test_pages_with_one_model_and_without_pictures(empty_app: Path, page: str):
    make_run(empty_app, n=30, images=False, models=("mobilenetv2",))
    app = open_page(page)
    assert not app.exception
    assert len(main_text(app)) > 200


def test_validation_figures_are_called_so(empty_app: Path):
    make_run(empty_app, n=60, images=False)
    app = open_page("overview")
    app.sidebar.get("segmented_control")[0].set_value("val").run()
    assert not app.exception
    text = main_text(app)
    assert " validation images, 95" in text
    assert "no better than a shortcut" not in text  # known for the test split only


@pytest.mark.parametrize("page", ["overview", "training", "data"])
@pytest.mark.parametrize("broken", ["cnn/metrics.json", "cnn/history.csv", "manifest.csv"])
def test_a_file_damaged_inside_is_a_sentence(empty_app: Path, page: str, broken: str):
    path = make_run(empty_app, n=30, images=False)
    (path / broken).write_text("{nonsense\n", encoding="utf-8")
    app = open_page(page)
    assert not app.exception
    needed = {"overview": "cnn/metrics.json", "data": "manifest.csv"}
    if page == "training" or needed[page] == broken:
        assert "damaged" in app.info[0].value


def test_model_cards_are_shown(demo_app: Path):
    app = open_page("overview")
    cards = [e for e in app.main.expander if e.label in ("CNN", "ResNet50", "MobileNetV2")]
    assert len(cards) == 3
    assert all(any("never trained" in m.value for m in card.markdown) for card in cards)


# --------------------------------------------------------------------------------- training


def test_training_shows_curves_time_configuration_and_command(demo_app: Path):
    app = open_page("training")
    assert not app.exception
    run = artifacts.open_run(demo_app / "demo")
    table = app.main.table[0].value
    assert list(table["Epochs"]) == ["10", "10", "10"]
    history = artifacts.load_history(run, "cnn")
    best = history["val_loss"].idxmin()
    assert table["Lowest validation loss"].iloc[0] == (
        f"{history['val_loss'][best]:.3f} in epoch {history['epoch'][best]}"
    )
    assert len(app.get("plotly_chart")) == 9
    assert app.code[0].value == run.info["command"]
    settings = app.main.dataframe[0].value.set_index("setting")["value"]
    assert settings["seed"] == "0" and settings["models"] == "cnn, resnet50, mobilenetv2"
    counts = artifacts.load_manifest(run)["split"].value_counts()
    assert f"{counts['train']} training and {counts['val']} validation images" in main_text(app)


@pytest.mark.parametrize("page", ["overview", "training", "data"])
def test_every_chart_has_words_for_those_who_cannot_see_it(demo_app: Path, page: str):
    app = open_page(page)
    plots = app.get("plotly_chart")
    assert len(plots) >= 2
    for plot in plots:
        assert len(plot.proto.alt) > 60
        title = plot.proto.alt[:30].replace("·", "").split(":")[0].split(",")[0]
        assert title in main_text(app)


def test_a_model_without_epochs_has_a_sentence(empty_app: Path):
    path = make_run(empty_app, n=30, images=False, models=("cnn",))
    (path / "cnn" / "history.csv").unlink()
    app = open_page("training")
    assert not app.exception
    assert "was not trained in epochs" in main_text(app)


# --------------------------------------------------------------------------------- data


def test_data_shows_balance_rule_caveats_and_skipped_files(demo_app: Path):
    app = open_page("data")
    assert not app.exception
    run = artifacts.open_run(demo_app / "demo")
    manifest = artifacts.load_manifest(run)
    text = main_text(app)
    assert f"{len(manifest)} images of {manifest['patient_id'].nunique()} drawn patients" in text
    assert "Images of one patient (patient\\_id) stay together." in text
    assert "- SYNTHETIC\\: drawn phantoms, not images of people." in text
    assert "No patient is in two splits." in text
    counts = app.main.dataframe[0].value.set_index("split")
    assert counts.loc["test", "images"] == (manifest["split"] == "test").sum()
    skipped = app.main.dataframe[-1].value
    assert list(skipped["path"]) == ["covid/broken.png"]


def test_six_images_a_class_are_drawn_again_on_demand(demo_app: Path):
    def captions() -> list[str]:
        return [caption for image in app.get("image") for caption in image.captions]

    app = open_page("data")
    first = captions()
    assert len(first) == 18
    app.run()
    assert captions() == first
    app.button[0].click().run()
    assert len(captions()) == 18
    assert captions() != first


def test_missing_pictures_say_how_to_fetch_them_and_take_a_folder(
    empty_app: Path, demo_app: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
):
    monkeypatch.setenv("CXR_DATA", str(tmp_path / "nothing"))
    app = open_page("data")
    assert not app.exception
    assert "make demo" in main_text(app)
    assert len(app.get("image")) == 0
    app.text_input[0].set_value(str(demo_app.parent / "data")).run()
    assert len(app.get("image")) == 18
    app.switch_page("app_pages/training.py").run()
    app.switch_page("app_pages/data.py").run()
    assert len(app.get("image")) == 18  # the folder survives a look at another page


def test_patients_in_two_splits_are_said(empty_app: Path):
    path = make_run(empty_app, n=30, images=False, models=("cnn",))
    manifest = artifacts.load_manifest(artifacts.open_run(path))
    manifest.loc[manifest["label"] == "covid", "patient_id"] = "same"
    writing.write_manifest(path, manifest)
    assert "**1 patient is in more than one split**" in main_text(open_page("data"))
