"""The page Curves and thresholds: what it says is what the predictions of the run give."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from core.metrics import calibration, conformal, curves, operating_point
from core.metrics.classification import arrays_from_predictions, compute_metrics, rank_auc
from core.runs import artifacts, writing
from core.runs.run import Run
from dashboard.data import curves as curve_data
from dashboard.tables import curves as curve_tables
from tests.support.runs import make_run

PAGE = Path(__file__).resolve().parents[2] / "dashboard" / "app_pages" / "curves.py"
MODELS = ("cnn", "resnet50", "mobilenetv2")


def rewrite(run_dir: Path, change) -> Run:
    """Change run.json's document in place, hashes of the other files made anew."""
    info = json.loads((run_dir / artifacts.RUN_FILE).read_text(encoding="utf-8"))
    change(info)
    for key in ("files", "format_version"):
        info.pop(key)
    return writing.finish_run(run_dir, info)


def strip_calibration(run_dir: Path) -> Run:
    """The run as an older version wrote it: no inner folds and nothing that follows from them."""
    for file in run_dir.glob("*/predictions_inner.csv"):
        file.unlink()

    def change(info: dict) -> None:
        for key in ("calibration", "conformal", "inner"):
            info.pop(key, None)

    return rewrite(run_dir, change)


def arrays(run: Run, model: str, part: str):
    table = artifacts.load_predictions(run, model, part).sort_values("image_id")
    patients = artifacts.load_manifest(run).set_index("image_id")["patient_id"]
    groups = patients.loc[table["image_id"]].to_numpy()
    return (*arrays_from_predictions(table, run.class_names), groups)


def calibrate_run(run_dir: Path, part: str = "val") -> Run:
    """Fit every model of a stripped run on `part` ("inner": of validation, made surer)."""
    run = strip_calibration(run_dir)
    fitted, sets = {}, {}
    for model in run.models:
        if part == "inner":
            table = artifacts.load_predictions(run, model, "val")
            columns = [f"p_{name}" for name in run.class_names]
            sharp = table[columns] ** 2
            table[columns] = sharp.div(sharp.sum(axis=1), axis=0)
            writing.write_predictions(run_dir, model, "inner", table.assign(fold="1"))
        y_true, y_prob, groups = arrays(run, model, part)
        prior = {"covid": 0.2, "normal": 0.4, "pneumonia": 0.4}
        prior = {name: prior[name] for name in run.class_names}
        entry = calibration.fit_calibration(y_true, y_prob, groups, prior, run.class_names)
        fitted[model] = entry | {"part": part}
        after = calibration.apply_calibration(y_prob, entry, run.class_names)
        sets[model] = conformal.fit_conformal(y_true, after, groups) | {"part": part}
    return rewrite(run_dir, lambda info: info.update(calibration=fitted, conformal=sets))


@pytest.fixture(scope="module")
def curves_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`calibrated`, on inner folds, and `plain`, of an older version; read, never written to."""
    root = tmp_path_factory.mktemp("curves") / "artifacts"
    calibrate_run(make_run(root, name="calibrated", images=False, n=240), "inner")
    plain = make_run(root, name="plain", images=False, folds=3, modality="xray")
    strip_calibration(plain)
    return root


@pytest.fixture
def use(monkeypatch: pytest.MonkeyPatch, curves_root: Path, tmp_path: Path):
    """use(name) opens the page on that run of curves_root; use(root=…) on another folder's."""

    def start(name: str = "calibrated", *, root: Path = curves_root, section: str = "") -> AppTest:
        monkeypatch.setenv("CXR_ARTIFACTS", str(root))
        monkeypatch.setenv("CXR_DATA", str(tmp_path / "data"))
        monkeypatch.setenv("CXR_RUN", name)
        app = AppTest.from_file(PAGE, default_timeout=120).run()
        return show(app, section) if section else app

    return start


def show(app: AppTest, section: str) -> AppTest:
    return app.segmented_control(key="curves_section").set_value(section).run()


def open_run(root: Path, name: str) -> Run:
    return artifacts.open_run(root / name)


def charts(app: AppTest) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


def first_line(app: AppTest) -> str:
    said = [m.value for m in app.markdown if m.value.startswith("####")]
    return said[0]


def words(app: AppTest) -> str:
    return "\n".join(m.value for kind in (app.markdown, app.caption, app.info) for m in kind)


def lines(chart: dict) -> list[str]:
    return [t["name"] for t in chart["data"] if t.get("mode") == "lines+markers"]


# ------------------------------------------------------------------------------ separation


def test_first_line_names_the_largest_auc_with_its_interval(use, curves_root: Path) -> None:
    app = use()
    assert not app.exception
    run = open_run(curves_root, "calibrated")
    metrics = {m: artifacts.load_metrics(run, m) for m in run.models}
    best = max(metrics, key=lambda m: metrics[m]["auc"])
    said = first_line(app)
    assert said.startswith("#### SYNTHETIC") and run.title(best) in said
    assert f"AUC {100 * metrics[best]['auc']:.1f}\u202f%" in said and "95% interval" in said
    assert "difference is shown" in said or "more than chance" in said
    assert len(charts(app)) == 2


def test_table_of_areas_agrees_with_the_predictions(use, curves_root: Path) -> None:
    app = use()
    app.segmented_control(key="curves_class").set_value("covid").run()
    run = open_run(curves_root, "calibrated")
    table = app.table[0].value
    for row, model in zip(table.itertuples(), run.models, strict=True):
        y_true, y_prob, _ = arrays(run, model, "test")
        assert row.AUC.startswith(f"{100 * rank_auc(y_true == 0, y_prob[:, 0]):.1f}\u202f% :gray[")
    n = int((y_true == 0).sum())
    titles = [m.value for m in app.markdown if m.value.startswith("**")]
    assert any(f"{n} covid among n = {len(y_true)} test images" in t for t in titles)
    prevalence = f"prevalence {100 * n / len(y_true):.1f} %"
    assert prevalence in [t["name"] for t in charts(app)[1]["data"] if "name" in t]


def test_other_parts_and_fewer_models(use) -> None:
    app = use("plain")
    app.segmented_control(key="part").set_value("folds").run()
    assert "n = 120" in first_line(app) and "SYNTHETIC" not in first_line(app)
    assert "out-of-fold images" in words(app)
    app.pills(key="models_plain").set_value(["cnn"]).run()
    assert "CNN, the only model shown" in first_line(app)
    assert [lines(chart) for chart in charts(app)] == [["CNN"]] * 2
    for section in ("calibration", "sets", "operating"):
        assert not show(app, section).exception


def test_a_model_left_out_does_not_soften_the_correction(use) -> None:
    app = use("plain")
    everyone = re.findall(r"CNN \(by [^)]*\)", first_line(app))
    app.pills(key="models_plain").set_value(["cnn", "mobilenetv2"]).run()
    assert re.findall(r"CNN \(by [^)]*\)", first_line(app)) == everyone != []


# ------------------------------------------------------------------------------ calibration


def test_calibration_before_and_after(use, curves_root: Path) -> None:
    app = use(section="calibration")
    assert not app.exception and len(charts(app)) == 3
    run = open_run(curves_root, "calibrated")
    table = app.table[0].value
    assert list(table["Probabilities"]) == ["as served", "calibrated"] * 3
    for place, model in enumerate(run.models):
        y_true, y_prob, _ = arrays(run, model, "test")
        entry = run.info["calibration"][model]
        after = calibration.apply_calibration(y_prob, entry, run.class_names)
        for row, probs in ((2 * place, y_prob), (2 * place + 1, after)):
            metrics = compute_metrics(y_true, probs, run.class_names)
            shown = table.iloc[row]
            assert shown["Log loss"].startswith(f"{metrics['log_loss']:.3f} :gray[")
            assert shown["Brier score"].startswith(f"{metrics['brier']:.3f} :gray[")
            assert shown["ECE, 15 bins"].startswith(f"{metrics['ece']:.3f} :gray[")
        bars = [t for t in charts(app)[place]["data"] if t["type"] == "bar"]
        assert len(bars) == 2
    said = words(app)
    assert "whichever split is chosen" in said
    n = run.info["calibration"]["cnn"]["n"]
    assert f"inner folds, n = {n} images of" in said
    assert "% of the class weights' effect found and taken out" in said
    assert re.search(r"Calibration (made|shows)", said)


def test_a_run_as_it_is_written_shows_its_own_calibration(use, tmp_path: Path) -> None:
    make_run(tmp_path / "artifacts", images=False, folds=3, models=["cnn", "resnet50"])
    run = open_run(tmp_path / "artifacts", "demo")
    app = use("demo", root=tmp_path / "artifacts", section="calibration")
    assert not app.exception and not app.info and "inner folds, n =" in words(app)
    shown = iter(app.table[0].value["Log loss"])
    for model in run.models:
        stored = artifacts.load_metrics(run, model)["calibrated"]
        for key in ("before", "after"):
            assert next(shown).startswith(f"{stored[key]['log_loss']:.3f} ")
    app = show(app, "sets")
    assert not app.exception and not app.info and len(app.table[0].value) == 2


@pytest.mark.parametrize("section", ["calibration", "sets"])
def test_a_run_without_calibration_says_so(use, section: str) -> None:
    app = use("plain", section=section)
    assert not app.exception and len(app.info) == 1
    assert "CNN, ResNet50, MobileNetV2" in app.info[0].value
    assert "Training the run anew" in app.info[0].value or "training the run anew" in words(app)
    # As served there is still something to see; sets need calibrated probabilities.
    assert len(charts(app)) == (3 if section == "calibration" else 0)


def test_one_model_without_a_calibration(use, tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "artifacts", images=False, models=["cnn", "resnet50"])
    calibrate_run(run_dir)
    rewrite(run_dir, lambda info: info["calibration"].update(cnn=None))
    app = use("demo", root=tmp_path / "artifacts", section="calibration")
    assert not app.exception
    assert "Not calibrated in this run: CNN." in app.info[0].value
    assert list(app.table[0].value["Probabilities"]) == ["as served", "as served", "calibrated"]
    assert "validation, n =" in words(app)
    app = show(app, "sets")
    assert not app.exception and len(app.table[0].value) == 1


# ------------------------------------------------------------------------------ conformal sets


def test_sets_are_reported_against_the_promise(use, curves_root: Path) -> None:
    app = use(section="sets")
    assert not app.exception and len(charts(app)) == 2
    run = open_run(curves_root, "calibrated")
    said = words(app)
    assert "Promised is that 90\u202f%" in said and "only for images like these" in said
    assert "reported and not promised" in said
    table = app.table[0].value
    for row, model in enumerate(run.models):
        y_true, y_prob, groups = arrays(run, model, "test")
        after = calibration.apply_calibration(
            y_prob, run.info["calibration"][model], run.class_names
        )
        sets = conformal.prediction_sets(after, run.info["conformal"][model]["threshold"])
        sizes = sets.sum(axis=1)
        for size, title in ((1, "One class"), (2, "Two classes"), (3, "Three classes")):
            assert table.iloc[row][title] == str((sizes == size).sum())
        mean = f"{sizes.mean():.3f} :gray["
        assert table.iloc[row]["Classes in a set"].startswith(mean)
        held = conformal.evaluate_sets(y_true, sets, groups, run.class_names)
        share = f"{100 * held['patient_coverage']['value']:.1f}\u202f%"
        assert table.iloc[row]["Coverage"].startswith(share) and share in said


# ------------------------------------------------------------------------------ operating point


def metric_values(app: AppTest) -> dict[str, str]:
    return {metric.label: metric.value for metric in app.metric}


def test_the_default_threshold_is_chosen_off_test_and_measured_on_test(
    use, curves_root: Path
) -> None:
    app = use(section="operating")
    assert not app.exception
    run = open_run(curves_root, "calibrated")
    y_true, y_prob, _ = arrays(run, "cnn", "inner")
    chosen = operating_point.choose_threshold(y_true == 0, y_prob[:, 0], 0.95)
    assert app.select_slider(key="operating_threshold_calibrated_cnn_covid").value == chosen
    assert (y_prob[y_true == 0, 0] >= chosen).mean() >= 0.95
    y_true, y_prob, _ = arrays(run, "cnn", "test")
    called = y_prob[:, 0] >= chosen
    shown = metric_values(app)
    assert shown["Sensitivity"] == f"{100 * called[y_true == 0].mean():.1f}\u202f%"
    assert shown["Specificity"] == f"{100 * (~called[y_true != 0]).mean():.1f}\u202f%"
    # At the test part's own prevalence PPV is the share of alarms that are right there.
    assert shown["PPV"] == f"{100 * (y_true[called] == 0).mean():.1f}\u202f%"
    assert shown["NPV"] == f"{100 * (y_true[~called] != 0).mean():.1f}\u202f%"
    said = words(app)
    assert "inner folds" in said and "whichever split is chosen" in said
    assert "such drawn phantoms with" in said and "alarms" in said
    assert all(re.search(r"\d to|\d\u00a0to", metric.delta) for metric in app.metric)


def test_prevalence_changes_what_an_alarm_is_worth_and_nothing_else(use) -> None:
    app = use(section="operating")
    before = metric_values(app)
    app.select_slider(key="operating_prevalence_calibrated_covid").set_value(0.01).run()
    after = metric_values(app)
    assert after["Sensitivity"] == before["Sensitivity"]
    assert after["Specificity"] == before["Specificity"]
    sensitivity, specificity = (
        float(after[key].split("\u202f")[0]) / 100 for key in ("Sensitivity", "Specificity")
    )
    ppv = 0.01 * sensitivity / (0.01 * sensitivity + 0.99 * (1 - specificity))
    assert float(after["PPV"].split("\u202f")[0]) == pytest.approx(100 * ppv, abs=0.1)
    assert "Of 1,000 such drawn phantoms with 1\u202f% prevalence, 10 have covid" in words(app)


def test_threshold_class_and_model_can_be_set(use, curves_root: Path) -> None:
    app = use(section="operating")
    app.select_slider(key="operating_threshold_calibrated_cnn_covid").set_value(1.0).run()
    assert metric_values(app)["Sensitivity"] == "0.0\u202f%"
    assert metric_values(app)["PPV"] == "–" and "nobody is called covid" in words(app)
    app.segmented_control(key="operating_class").set_value("pneumonia").run()
    app.segmented_control(key="operating_model").set_value("resnet50").run()
    assert not app.exception
    key = "operating_threshold_calibrated_resnet50_pneumonia"
    run = open_run(curves_root, "calibrated")
    y_true, y_prob, _ = arrays(run, "resnet50", "inner")
    chosen = operating_point.choose_threshold(y_true == 2, y_prob[:, 2], 0.95)
    assert app.select_slider(key=key).value == chosen
    assert len(app.table[0].value) == 3
    # Back to the first choice: the reader's threshold is still there.
    app.segmented_control(key="operating_class").set_value("covid").run()
    app.segmented_control(key="operating_model").set_value("cnn").run()
    assert app.select_slider(key="operating_threshold_calibrated_cnn_covid").value == 1.0


def test_an_older_run_chooses_on_validation(use) -> None:
    app = use("plain", section="operating")
    assert not app.exception and "(validation)" in words(app)
    assert "such people with" in words(app)


def test_few_patients_behind_a_default_are_named_and_warned_of(use) -> None:
    """On the release the threshold of covid hangs on 13 images of 9 patients."""
    app = use("release", root=PAGE.parents[2] / "artifacts", section="operating")
    assert not app.exception
    warning = app.warning[0].value
    assert warning.startswith("This threshold was chosen on only 13 covid images of 9 patients")
    assert warning.count(". ") == 0 and "fewer than 20 patients" in warning
    assert "13 covid images of 9 patients, among 113 images (validation)" in words(app)
    app.segmented_control(key="operating_class").set_value("pneumonia").run()
    assert not app.warning
    assert re.search(r"\d+ pneumonia images of \d\d+ patients, among 113 images", words(app))


def test_without_anything_to_choose_on_the_page_says_so(use, tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "artifacts", images=False, models=["cnn"])
    strip_calibration(run_dir)
    (run_dir / "cnn" / "predictions_val.csv").unlink()
    rewrite(run_dir, lambda info: None)
    app = use("demo", root=tmp_path / "artifacts", section="operating")
    assert not app.exception and "Nothing to choose a threshold on" in words(app)
    assert app.select_slider(key="operating_threshold_demo_cnn_covid").value == 0.5
    assert len(app.metric) == 4 and not app.table  # no default, so no table of defaults


# ------------------------------------------------------------------------------ odd runs


def make_two_class_run(root: Path) -> Path:
    """covid and normal only."""
    run_dir = make_run(root, name="two", images=False, models=["cnn", "resnet50"])
    run = strip_calibration(run_dir)
    manifest = artifacts.load_manifest(run)
    writing.write_manifest(run_dir, manifest[manifest["label"] != "pneumonia"])
    for model in run.models:
        for part in ("test", "val"):
            table = artifacts.load_predictions(run, model, part)
            table = table[table["label"] != "pneumonia"].drop(columns="p_pneumonia")
            columns = ["p_covid", "p_normal"]
            table[columns] = table[columns].div(table[columns].sum(axis=1), axis=0)
            called = table[columns].to_numpy().argmax(axis=1)
            table["predicted"] = np.array(["covid", "normal"])[called]
            writing.write_predictions(run_dir, model, part, table)
        y_true, y_prob = arrays_from_predictions(table, ["covid", "normal"])
        metrics = compute_metrics(y_true, y_prob, ["covid", "normal"])
        writing.write_metrics(
            run_dir, model, metrics | {"intervals": {}, "calibrated": None, "cost": None}
        )
    rewrite(run_dir, lambda info: info.update(class_names=["covid", "normal"], comparisons=[]))
    calibrate_run(run_dir)
    return run_dir


def test_a_run_with_two_classes(use, tmp_path: Path) -> None:
    make_two_class_run(tmp_path / "artifacts")
    app = use("two", root=tmp_path / "artifacts")
    assert not app.exception
    by_class = []
    for name in ("covid", "normal"):
        app.segmented_control(key="curves_class").set_value(name).run()
        by_class.append([cell.split(" ")[0] for cell in app.table[0].value["AUC"]])
    assert by_class[0] == by_class[1]  # either class against the other is one question
    for section in ("calibration", "sets", "operating"):
        assert not show(app, section).exception
    show(app, "sets")
    assert "Three classes" not in app.table[0].value


def make_run_without(root: Path, gone: str) -> Path:
    """No test image is of the class `gone`."""
    run_dir = make_run(root, name="absent", images=False, models=["cnn", "resnet50"])
    run = calibrate_run(run_dir)
    for model in run.models:
        table = artifacts.load_predictions(run, model, "test")
        table = table[table["label"] != gone]
        writing.write_predictions(run_dir, model, "test", table)
    rewrite(run_dir, lambda info: None)
    return run_dir


def test_a_class_that_no_test_image_has(use, tmp_path: Path) -> None:
    make_run_without(tmp_path / "artifacts", "covid")
    app = use("absent", root=tmp_path / "artifacts")
    assert not app.exception and len(charts(app)) == 2
    app.segmented_control(key="curves_class").set_value("covid").run()
    assert not app.exception and not charts(app)
    assert "There is no curve of covid" in app.info[0].value
    for section in ("calibration", "sets"):
        assert not show(app, section).exception and charts(app)
    show(app, "operating")
    assert not app.exception and "No test image is covid" in app.info[0].value
    app.segmented_control(key="operating_class").set_value("normal").run()
    assert not app.exception and len(app.metric) == 4


def test_names_from_files_are_no_markdown(use, tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "artifacts", images=False, models=["cnn"])
    calibrate_run(run_dir)
    rewrite(run_dir, lambda info: info.update(display={"cnn": "**C*N:red[N]"}))
    app = use("demo", root=tmp_path / "artifacts")
    for section in ("separation", "calibration", "sets", "operating"):
        show(app, section)
        assert not app.exception
        assert "**C*N" not in words(app)
        assert "\\*\\*C\\*N" in first_line(app)


@pytest.mark.parametrize("section", ["separation", "calibration", "sets", "operating"])
def test_every_chart_has_words_and_a_table(use, section: str) -> None:
    app = use(section=section)
    for chart in app.get("plotly_chart"):
        assert len(chart.proto.alt) > 60
    assert app.dataframe
    assert [b for b in app.get("download_button") if "CSV" in b.proto.label]
    labels = [expander.label for expander in app.expander]
    assert "How this is computed" in labels and "The same as tables" in labels


@pytest.mark.parametrize("section", ["separation", "calibration", "sets", "operating"])
def test_what_was_computed_once_is_not_computed_again(use, monkeypatch, section: str) -> None:
    app = use(section=section)

    def compute_again(*args, **kwargs):
        raise AssertionError("computed twice")

    for module, names in (
        (curves, ["curve_bands"]),
        (calibration, ["calibrated_metrics", "reliability"]),
        (conformal, ["evaluate_sets"]),
        (operating_point, ["rates_at", "operating_table", "choose_threshold"]),
        (curve_tables, ["compare_areas"]),
    ):
        for name in names:
            monkeypatch.setattr(module, name, compute_again)
    app.run()
    assert not app.exception and charts(app)


def test_damaged_predictions_are_one_sentence(use, tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "artifacts", images=False, models=["cnn"])
    (run_dir / "cnn" / "predictions.csv").write_text("image_id,label\nx,y\n")
    app = use("demo", root=tmp_path / "artifacts")
    assert not app.exception and "is damaged" in app.info[0].value


def test_a_calibration_that_does_not_fit_the_run_is_one_sentence(use, tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "artifacts", images=False, models=["cnn"])
    calibrate_run(run_dir)
    rewrite(run_dir, lambda info: info["calibration"]["cnn"].update(temperature=-1))
    app = use("demo", root=tmp_path / "artifacts", section="calibration")
    assert not app.exception and len(app.info) == 1


def test_sections_survive_another_run(use) -> None:
    app = use(section="operating")
    app.selectbox(key="run").set_value("plain").run()
    assert not app.exception
    assert app.segmented_control(key="curves_section").value == "operating"


def test_fitted_on_says_part_and_n() -> None:
    entry = {"part": "inner", "n": 899, "n_patients": 700}
    assert curve_data.fitted_on(entry) == "inner folds, n = 899 images of 700 patients"
    assert curve_data.fitted_on({"part": "val", "n": 113}) == "validation, n = 113"
