"""Figures and sentences of Curves and thresholds: they say what the curves and tables hold."""

import ast
import math
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.metrics.classification import compute_metrics
from core.metrics.curves import Curve
from dashboard.charts import calibration as calibration_charts
from dashboard.charts import curves as curve_charts
from dashboard.charts import style
from dashboard.tables import curves as curve_tables
from tests.support.runs import CLASS_NAMES

MODELS = ("cnn", "resnet50", "mobilenetv2")
LABELS = {"cnn": "CNN", "resnet50": "ResNet50", "mobilenetv2": "MobileNetV2"}
FRAME = style.ChartFrame(MODELS, LABELS)
GRID = np.array([0, 0.5, 1])


def make_curve(area: float, *, band: bool = True, baseline: float = 0.5) -> Curve:
    y = np.array([0.2, 0.8, 1.0])
    gone = np.full(3, math.nan)
    low, high = (y - 0.1, np.minimum(y + 0.1, 1)) if band else (gone, gone)
    bounds = (area - 0.05, area + 0.02) if band else (None, None)
    return Curve(GRID, y, low, high, area, *bounds, n=225, n_positive=24, baseline=baseline)


def draw_curves(kind: str = "roc", **curves: Curve) -> style.Chart:
    curves = curves or {"cnn": make_curve(0.9), "resnet50": make_curve(0.95)}
    return curve_charts.plot_curves(curves, kind, FRAME, n_text="24 covid, n = 225")


def trace(chart: style.Chart, name: str):
    return next(t for t in chart.figure.data if t.name == name)


# ------------------------------------------------------------------------------ ROC and PR


def test_a_curve_stands_where_its_points_are_with_its_band():
    chart = draw_curves()
    line = trace(chart, "CNN")
    # From the corner where nobody is called, up to what is found before any false alarm.
    assert list(line.x) == [0, 0, 50, 100] and list(line.y) == pytest.approx([0, 20, 80, 100])
    assert list(trace(draw_curves("pr"), "CNN").y) == pytest.approx([20, 80, 100])
    low, high = [t for t in chart.figure.data if t.legendgroup == "cnn" and t.name is None]
    assert list(low.y) == pytest.approx([10, 70, 90])
    assert list(high.y) == pytest.approx([30, 90, 100])
    assert high.fill == "tonexty" and low.fill is None
    assert high.fillcolor.startswith("rgba(230,159,0,")  # the CNN's orange
    assert "CNN AUC 90.0 % (85.0\u00a0to\u00a092.0)" in chart.alt
    assert "24 covid, n = 225" in chart.title and "95% bands" in chart.title


def test_models_are_told_apart_by_colour_dash_and_mark():
    curves = {model: make_curve(0.9) for model in MODELS}
    lines = [trace(draw_curves(**curves), LABELS[model]) for model in MODELS]
    for looks in (
        [line.line.color for line in lines],
        [line.line.dash for line in lines],
        [line.marker.symbol for line in lines],
    ):
        assert len(set(looks)) == len(MODELS)
    assert [line.line.color for line in lines] == [style.model_style(m).colour for m in MODELS]
    symbols = {style.model_style(m).symbol for m in (*style.MODEL_STYLES, "x", "y", "z")}
    assert symbols <= set(curve_charts.DASHES)
    assert len(set(curve_charts.DASHES.values())) == len(curve_charts.DASHES)


def test_roc_has_the_chance_line_and_pr_the_prevalence():
    chance = trace(draw_curves(), "chance")
    assert (list(chance.x), list(chance.y)) == ([0, 100], [0, 100])
    pr = draw_curves("pr", cnn=make_curve(0.9, baseline=0.107))
    assert list(trace(pr, "prevalence 10.7 %").y) == pytest.approx([10.7, 10.7])
    assert "know nothing reach 10.7 %" in pr.alt and "average precision 90.0 %" in pr.alt


def test_precision_is_joined_by_steps_and_roc_by_straight_lines():
    # Straight lines between precisions flatter (Davis & Goadrich 2006).
    assert trace(draw_curves("pr"), "CNN").line.shape == "vh"
    assert trace(draw_curves("roc"), "CNN").line.shape == "linear"


def test_a_curve_without_a_band_is_drawn_alone():
    chart = draw_curves(cnn=make_curve(0.9, band=False))
    assert len(chart.figure.data) == 2  # chance and the line
    assert "(no interval)" in chart.alt


# ------------------------------------------------------------------------------ calibration


def make_reliability(n: tuple[int, int] = (4, 6)) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "bin": [0, 1, 2],
            "low": [0, 1 / 3, 2 / 3],
            "high": [1 / 3, 2 / 3, 1],
            "n": [0, *n],
            "n_patients": [0, 3, 5],
            "confidence": [math.nan, 0.5, 0.9],
            "accuracy": [math.nan, 0.25, 1.0],
            "acc_low": [math.nan, 0.1, 0.7],
            "acc_high": [math.nan, 0.6, 1.0],
        }
    )


def draw_reliability(after: pd.DataFrame | None) -> style.Chart:
    return calibration_charts.plot_reliability(
        make_reliability(), after, FRAME.style("cnn"), label="CNN", n_text="n = 10"
    )


def test_reliability_before_and_after_with_counts():
    chart = draw_reliability(make_reliability((7, 3)))
    points = [t for t in chart.figure.data if t.type == "scatter" and t.name != "as promised"]
    assert [t.name for t in points] == ["as served", "calibrated"]
    assert [list(t.x) for t in points] == [[50, 90]] * 2  # the empty bin has no point
    assert list(points[0].error_y.array) == pytest.approx([35, 0])
    assert list(points[0].error_y.arrayminus) == pytest.approx([15, 30])
    assert [t.marker.symbol for t in points] == ["circle-open", "circle"]
    small, large = points[0].marker.size  # of 4 and 6 images
    assert small < large
    bars = [t for t in chart.figure.data if t.type == "bar"]
    assert [list(t.y) for t in bars] == [[0, 4, 6], [0, 7, 3]]
    assert list(bars[0].x) == pytest.approx([100 / 6, 50, 500 / 6])
    assert "as served 50 % right 25 %" in chart.alt and "of 4" in chart.alt


def test_reliability_without_a_calibration_shows_what_is_served():
    chart = draw_reliability(None)
    assert {t.name for t in chart.figure.data} == {"as promised", "as served"}
    assert "calibrated" not in chart.alt


def make_sets(coverage: float = 0.91) -> dict:
    estimate = {"value": coverage, "low": 0.88, "high": 0.94}
    undefined = dict.fromkeys(("value", "low", "high"))
    return {
        "n": 10,
        "n_patients": 6,
        "coverage": {"value": 0.9, "low": 0.8, "high": 0.95},
        "patient_coverage": estimate,
        "mean_size": {"value": 1.25, "low": 1.1, "high": 1.4},
        "by_class": {
            "covid": undefined | {"n": 0, "n_patients": 0},
            "normal": estimate | {"n": 10, "n_patients": 6},
        },
        "sizes": {1: 8, 2: 2},
    }


def test_coverage_stands_beside_the_promise_and_a_class_without_images_has_no_dot():
    rows = curve_tables.coverage_rows({"cnn": make_sets()}, ["covid", "normal"])
    assert list(rows["group"]) == ["one image a patient", "all images", "covid", "normal"]
    assert list(rows["n"]) == [6, 10, 0, 10]
    chart = calibration_charts.plot_coverage(rows, FRAME, promised=0.9, n_text="n = 10 test images")
    promise, dots = chart.figure.data
    assert list(promise.x) == [90, 90]
    assert list(dots.x) == pytest.approx([91, 90, 91]) and [round(y) for y in dots.y] == [0, 1, 3]
    assert "CNN, all images, 90.0 %" in chart.alt and "covid" not in chart.alt.split("90 %. ")[1]


def test_set_sizes_are_shares_of_all_answers_with_their_counts():
    sizes = {"cnn": {1: 8, 2: 2, 3: 0}, "resnet50": {1: 0, 2: 0, 3: 10}}
    chart = calibration_charts.plot_set_sizes(sizes, labels=LABELS, n_text="n = 10 test images")
    assert [t.name for t in chart.figure.data] == ["one class", "two classes", "three classes"]
    assert [list(t.x) for t in chart.figure.data] == [[80, 0], [20, 0], [0, 100]]
    assert list(trace(chart, "one class").text) == ["8", ""]
    assert "CNN: one class 8, two classes 2, three classes 0" in chart.alt
    # No class's colour and no model's: a set is neither.
    used = {t.marker.color for t in chart.figure.data}
    taken = {style.colour for style in style.MODEL_STYLES.values()}
    assert not used & (taken | set(style.CLASS_COLOURS.values()))


def test_sentences_on_calibration_and_sets():
    changes = {
        "cnn": {"value": -0.05, "low": -0.08, "high": -0.02},
        "resnet50": {"value": 0.04, "low": 0.01, "high": 0.07},
        "mobilenetv2": {"value": -0.01, "low": -0.03, "high": 0.01},
    }
    said = curve_tables.calibration_sentence(changes, LABELS)
    assert "truer for CNN (-0.050" in said and "worse for ResNet50 (+0.040" in said
    assert "no difference for MobileNetV2" in said
    kept = curve_tables.coverage_sentence({"cnn": make_sets()}, 0.9, LABELS)
    assert "90\u202f% of the sets" in kept and "CNN 91.0\u202f%" in kept and "1.25 classes" in kept
    assert "less than promised" not in kept
    assert "less than promised" in curve_tables.coverage_sentence(
        {"cnn": make_sets()}, 0.95, LABELS
    )


# ------------------------------------------------------------------------------ operating point


def draw_threshold(chosen_on: pd.DataFrame | None) -> style.Chart:
    return curve_charts.plot_threshold(
        pd.DataFrame(
            {
                "threshold": [0, 0.5, 1],
                "sensitivity": [1, 0.9, 0],
                "specificity": [0, 0.8, 1],
            }
        ),
        chosen_on,
        threshold=0.5,
        name="covid",
        style=FRAME.style("cnn"),
        chosen_text="validation",
        n_text="n = 10",
    )


def test_threshold_chart_marks_the_threshold_and_both_parts():
    table = pd.DataFrame({"threshold": [0, 1], "sensitivity": [1, 0], "specificity": [0, 1]})
    chart = draw_threshold(table)
    assert list(trace(chart, "sensitivity, test").y) == pytest.approx([100, 90, 0])
    assert trace(chart, "sensitivity, test").line.color == style.model_style("cnn").colour
    assert trace(chart, "specificity, validation").line.color == style.NEUTRAL
    assert [shape.x0 for shape in chart.figure.layout.shapes] == [50]
    assert "sensitivity 90.0 % and specificity 80.0 %" in chart.alt
    assert len(draw_threshold(None).figure.data) == 2


def test_prevalence_chart_follows_bayes():
    table = curve_tables.prevalence_table(0.9, 0.8)
    row = table.iloc[(table["prevalence"] - 0.1).abs().argmin()]
    p = row["prevalence"]
    assert row["ppv"] == pytest.approx(0.9 * p / (0.9 * p + 0.2 * (1 - p)))
    assert row["npv"] == pytest.approx(0.8 * (1 - p) / (0.8 * (1 - p) + 0.1 * p))
    rates = {
        "ppv": {"value": 1 / 3, "low": 0.2, "high": 0.5},
        "npv": {"value": None, "low": None, "high": None},
    }
    chart = curve_charts.plot_prevalence(
        table, rates, prevalence=0.1, name="covid", style=FRAME.style("cnn")
    )
    dot = next(t for t in chart.figure.data if t.mode == "markers")
    assert (dot.x[0], dot.y[0]) == (10, pytest.approx(100 / 3))
    assert dot.error_y.arrayminus[0] == pytest.approx(100 / 3 - 20)
    assert "PPV 33.3 %" in chart.alt and "NPV" not in chart.alt


def rates(sensitivity: float, specificity: float) -> dict:
    return {"sensitivity": {"value": sensitivity}, "specificity": {"value": specificity}}


def test_natural_frequencies_by_hand():
    # 2 % of 1,000 are 20; 95 % of them 19; 980 others, 3.06 % of them called: 30.
    said = curve_tables.crowd_sentence(rates(0.95, 1 - 30 / 980), 0.02, "covid")
    assert said == (
        "Of 1,000 such people with 2\u202f% prevalence, 20 have covid: 19 found, 1 missed; 30 of "
        "980 others are called covid, so of 49 alarms 19 are right."
    )


def test_natural_frequencies_of_rare_common_and_silent():
    rare = curve_tables.crowd_sentence(rates(0.9, 0.9), 0.001, "covid")
    assert "Of 10,000 such people" in rare and "10 have covid: 9 found, 1 missed" in rare
    well = curve_tables.crowd_sentence(rates(0.5, 1.0), 0.5, "normal", "drawn phantoms")
    assert "500 are normal: 250 found" in well and "of 250 such answers 250 are right" in well
    assert "such drawn phantoms" in well
    silent = curve_tables.crowd_sentence(rates(0.0, 1.0), 0.1, "covid")
    assert silent.endswith("so nobody is called covid.")


@settings(deadline=None)
@given(st.floats(0, 1), st.floats(0, 1), st.sampled_from(curve_tables.PREVALENCES))
def test_natural_frequencies_sum_up(sensitivity: float, specificity: float, prevalence: float):
    said = curve_tables.crowd_sentence(rates(sensitivity, specificity), prevalence, "x")
    numbers = re.search(
        r"Of ([\d,]+) such .* prevalence, ([\d,]+) ha(?:s|ve) x: ([\d,]+) found, ([\d,]+) missed; "
        r"([\d,]+) of ([\d,]+) others",
        said,
    )
    crowd, ill, found, missed, false, others = [int(n.replace(",", "")) for n in numbers.groups()]
    assert found + missed == ill and ill + others == crowd and ill >= curve_tables.FEWEST_ILL
    assert 0 <= false <= others
    alarms = f"so of {found + false:,} alarm" if found + false else "so nobody is called x."
    assert alarms in said


@settings(deadline=None)
@given(st.floats(0, 1))
def test_what_can_be_set_rises_and_holds_the_default_unrounded(default: float):
    for options in (
        curve_tables.threshold_options(default),
        curve_tables.prevalence_options(default),
    ):
        assert default in options and options == sorted(set(options))


# ------------------------------------------------------------------------------ separation


def make_probs(skill: float, y_true: np.ndarray, seed: int) -> np.ndarray:
    logits = skill * np.eye(3)[y_true] + np.random.default_rng(seed).normal(0, 1, (len(y_true), 3))
    exps = np.exp(logits)
    return exps / exps.sum(axis=1, keepdims=True)


def test_areas_are_compared_over_the_same_patients_with_holms_correction():
    y_true = np.tile([0, 1, 2], 60)
    groups = np.repeat(np.arange(90), 2)
    good = make_probs(4, y_true, 1)
    probs = {"cnn": make_probs(0.5, y_true, 0), "resnet50": good, "mobilenetv2": good}
    found = curve_tables.compare_areas(y_true, probs, groups, CLASS_NAMES, draws=300)
    assert list(found) == ["macro", *CLASS_NAMES]
    weak, weak_too, same = found["macro"]
    aucs = {m: compute_metrics(y_true, p, CLASS_NAMES)["auc"] for m, p in probs.items()}
    assert weak["difference"] == pytest.approx(aucs["cnn"] - aucs["resnet50"])
    assert weak["low"] < weak["difference"] < weak["high"] < 0
    assert weak["verdict"] == weak_too["verdict"] == "b better"
    assert weak["p"] == pytest.approx(2 / 301)
    assert weak["p_holm"] == pytest.approx(6 / 301)  # the smallest of three, times three
    assert (same["p"], same["low"], same["high"]) == (1, 0, 0)
    assert same["verdict"] == "no difference shown"


def test_a_class_that_nobody_has_is_compared_nowhere():
    y_true = np.tile([0, 1], 20)
    probs = {m: make_probs(1, y_true, k) for k, m in enumerate(MODELS[:2])}
    found = curve_tables.compare_areas(y_true, probs, np.arange(40), CLASS_NAMES, draws=50)
    assert found["pneumonia"] == [] and len(found["covid"]) == len(found["macro"]) == 1


def judged(a: str, b: str, verdict: str, p: float = 0.01) -> dict:
    return {"a": a, "b": b, "verdict": verdict, "p_holm": p}


def say(areas: dict[str, float], comparisons: list[dict] | None) -> str:
    curves = {model: make_curve(area) for model, area in areas.items()}
    return curve_tables.area_sentence(curves, comparisons, LABELS, of="the classes")


def test_the_first_line_says_who_is_ahead_and_whether_that_is_sure():
    areas = {"cnn": 0.9, "resnet50": 0.93, "mobilenetv2": 0.95}
    sure = [
        judged("cnn", "mobilenetv2", "b better"),
        judged("resnet50", "mobilenetv2", "no difference shown", 0.2),
    ]
    said = say(areas, sure)
    assert said.startswith("MobileNetV2 separates the classes best: AUC 95.0\u202f% (95% interval")
    assert "more than chance explains over CNN (by 5.0 points, corrected p = 0.010)" in said
    assert "but over ResNet50 (by 2.0 points, corrected p = 0.20) no difference is shown" in said
    unsure = say({"cnn": 0.9, "resnet50": 0.93}, [judged("cnn", "resnet50", "no difference shown")])
    assert "ResNet50 has the highest AUC" in unsure and "may be chance" in unsure
    assert "was not tested" in say(areas, None)
    assert "the only model shown" in say({"cnn": 0.9}, [])
    assert "CNN and ResNet50 separate the classes equally well" in say(
        {"cnn": 0.9, "resnet50": 0.9}, []
    )
    assert "takes images of both sides" in say({}, [])


def test_tables_hold_every_curve():
    curves = {"cnn": {"roc": {"covid": make_curve(0.9)}, "pr": {"covid": make_curve(0.8)}}}
    areas = curve_tables.area_rows(curves)
    assert list(areas["area"]) == ["AUC", "average precision"]
    assert list(areas["value"]) == [0.9, 0.8] and list(areas["n_positive"]) == [24, 24]
    points = curve_tables.curve_points(curves)
    assert len(points) == 6 and list(points["y"][:3]) == [0.2, 0.8, 1.0]
    assert curve_tables.curve_points({}).empty


def test_charts_and_answers_do_not_import_streamlit():
    for module in (curve_charts, calibration_charts, curve_tables):
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        names = [
            alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names
        ]
        names += [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        assert names and not [name for name in names if name.startswith("streamlit")]
