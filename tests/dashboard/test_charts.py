"""dashboard/charts (style, metrics, training) and dashboard/tables/metrics.py: the figures draw
what the tables say.
"""

import ast
import math
from pathlib import Path

import pandas as pd
import pytest

from dashboard.charts import metrics as metric_charts
from dashboard.charts import style
from dashboard.charts import training as training_charts
from dashboard.tables import metrics as metric_tables

CLASSES = ("covid", "normal", "pneumonia")
LABELS = {"cnn": "CNN · from scratch", "resnet50": "ResNet50 · random init"}
FRAME = style.ChartFrame(["cnn", "resnet50"], LABELS)


def make_rows() -> pd.DataFrame:
    return pd.DataFrame(
        [
            ("cnn", "macro_f1", "Macro-F1", 0.80, 0.70, 0.85),
            ("resnet50", "macro_f1", "Macro-F1", 0.90, 0.88, 0.95),
            ("cnn", "accuracy", "Accuracy", 0.75, 0.71, 0.79),
            ("resnet50", "accuracy", "Accuracy", 0.85, math.nan, math.nan),
        ],
        columns=["model", "metric", "metric_label", "value", "low", "high"],
    )


def make_floors() -> pd.DataFrame:
    return metric_tables.baseline_rows(
        {
            "histogram": {
                "title": "Grey-level histogram only",
                "kind": "pixel",
                "accuracy": 0.76,
                "macro_f1": 0.60,
                "intervals": {"macro_f1": {"low": 0.5, "high": 0.7}},
            }
        }
    )


def draw_ranked(**changes) -> style.Chart:
    given = {"n_text": "225 test images"}
    return metric_charts.plot_ranked_models(make_rows(), FRAME, **(given | changes))


def marks(chart: style.Chart, name: str) -> list:
    return [t for t in chart.figure.data if t.name == name]


def test_models_are_ranked_and_stand_at_their_values_with_whiskers():
    chart = draw_ranked()
    cnn, resnet = marks(chart, LABELS["cnn"]), marks(chart, LABELS["resnet50"])
    assert [m.x[0] for m in cnn] == pytest.approx([80, 75])
    assert [m.error_x.array[0] for m in cnn] == pytest.approx([5, 4])
    assert [m.error_x.arrayminus[0] for m in cnn] == pytest.approx([10, 4])
    assert [m.error_x.array[0] for m in resnet] == pytest.approx([5, 0])  # no interval, no whisker
    assert "88.0 to 95.0" in resnet[0].hovertemplate and "no interval" in resnet[1].hovertemplate
    assert [round(m.y[0]) for m in resnet + cnn] == [0, 0, 1, 1], "the best on top"
    assert resnet[0].y[0] < resnet[1].y[0]
    assert [m.marker.symbol for m in resnet] == ["square", "square-open"]
    assert chart.figure.layout.yaxis.ticktext[0].endswith("<b>90.0 · 85.0</b>")


def test_names_from_files_are_text_in_the_chart():
    frame = style.ChartFrame(["cnn", "resnet50"], {"cnn": "<b>x</b>", "resnet50": "%{y} $z$"})
    figure = metric_charts.plot_ranked_models(make_rows(), frame, n_text="n").figure
    said = "".join([*figure.layout.yaxis.ticktext, *(t.hovertemplate for t in figure.data)])
    assert "<b>x</b>" not in said and "%{y}" not in said and "$" not in said


def test_dots_say_what_they_are_percent_of_and_n():
    chart = draw_ranked()
    assert chart.title == "Macro-F1 (filled), accuracy (open), %, 225 test images, 95 % CI"
    assert "Macro-F1, ResNet50 · random init: 90.0 % (88.0 to 95.0)" in chart.alt
    assert "Accuracy, ResNet50 · random init: 85.0 % (no interval)" in chart.alt


def test_what_a_shortcut_reaches_is_shaded_in_the_half_lane_of_its_metric():
    lower = {"title": "Lower", "kind": "pixel", "accuracy": 0.7, "macro_f1": 0.5}
    floors = pd.concat([make_floors(), metric_tables.baseline_rows({"lower": lower})])
    chart = draw_ranked(baselines=floors)
    rects = [s for s in chart.figure.layout.shapes if s.type == "rect"]
    found = {(r.x1, r.y0, r.y1) for r in rects}
    assert found == {(60, -0.5, 0.0), (60, 0.5, 1.0), (76, 0.0, 0.5), (76, 1.0, 1.5)}
    assert {r.x0 for r in rects} == {chart.figure.layout.xaxis.range[0]}
    assert chart.figure.layout.xaxis.range[0] < 60
    (note,) = chart.figure.layout.annotations
    assert note.text == "no network needed: grey-level histogram only" and note.x == 76
    assert "Macro-F1, Grey-level histogram only: 60.0 %" in chart.alt


def test_every_model_has_its_own_colour_and_shape_everywhere():
    names = [*style.MODEL_STYLES, "vgg", "densenet"]
    styles = [style.model_style(name, names) for name in names]
    assert len({style.colour for style in styles}) == len(names)
    assert len({style.symbol for style in styles}) == len({s.glyph for s in styles}) == len(names)
    assert style.model_style("cnn", ["resnet50", "cnn"]) == style.model_style("cnn")
    assert (style.model_style("cnn").colour, style.model_style("resnet50").colour) == (
        "#E69F00",
        "#0072B2",
    )
    class_colours = {style.class_colour(c, [*CLASSES, "x"]) for c in [*CLASSES, "x"]}
    assert len(class_colours) == 4
    assert not class_colours & {style.colour for style in styles}


def test_quality_against_cost():
    table = make_rows()[:2].assign(latency_ms=[2.0, 25.0], size_mb=[0.8, 47.2])
    chart = metric_charts.plot_quality_cost(table, FRAME, n_text="n = 225 test images")
    points = {t.name: (t.x[0], t.y[0]) for t in chart.figure.data}
    assert points == {LABELS["cnn"]: (2.0, 80.0), LABELS["resnet50"]: (25.0, 90.0)}
    assert "90.0 % (88.0 to 95.0) in 25.0 ms and 47.2 MB" in chart.alt
    low, high = chart.figure.layout.xaxis.range
    assert 10**low < 2 < 25 < 10**high


def test_quality_against_cost_without_times_is_empty_and_does_not_fail():
    table = make_rows()[:2].assign(latency_ms=math.nan, size_mb=math.nan)
    chart = metric_charts.plot_quality_cost(table, FRAME, n_text="n = 225 test images")
    assert len(chart.figure.data) == 0


def trace(chart: style.Chart, name: str):
    return next(t for t in chart.figure.data if t.name == name)


def make_history() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "epoch": [1, 2, 3],
            "phase": ["head", "head", "fine"],
            "loss": [1.0, 0.8, 0.5],
            "val_loss": [1.1, 0.7, 0.9],
            "accuracy": [0.4, 0.5, 0.6],
            "val_accuracy": [0.3, 0.6, 0.5],
            "lr": [1e-3, 1e-3, 1e-4],
            "seconds": [1.0, 1.0, 1.0],
        }
    )


def test_learning_curves():
    given = {"label": "CNN", "colour": "#E69F00", "n_text": "70 training images"}
    loss = training_charts.plot_learning_curve(make_history(), "loss", **given)
    accuracy = training_charts.plot_learning_curve(make_history(), "accuracy", **given)
    rate = training_charts.plot_learning_curve(make_history(), "lr", **given)
    assert list(trace(loss, "validation").y) == [1.1, 0.7, 0.9]
    assert list(trace(accuracy, "validation").y) == [30, 60, 50]
    assert "best 0.7 in epoch 2" in loss.alt and "best 60 in epoch 2" in accuracy.alt
    assert [len(c.figure.data) for c in (loss, accuracy, rate)] == [2, 2, 1]
    assert "70 training images" in loss.title
    assert [(s.x0, s.x1) for s in loss.figure.layout.shapes] == [(0.5, 2.5), (2.5, 3.5)]
    assert [a.text for a in loss.figure.layout.annotations] == ["head", "fine"]


def test_what_a_recipe_tracks_has_a_curve_in_percent():
    history = make_history().assign(val_recall=[0.2, 0.5, 0.75], recall=[0.1, 0.4, 0.9])
    given = {"label": "Model 2", "colour": "#000000", "n_text": "70 training images"}
    chart = training_charts.plot_learning_curve(history, "recall", **given)
    assert list(trace(chart, "validation").y) == [20, 50, 75]
    assert "best 75 in epoch 3" in chart.alt and chart.title.startswith("Sensitivity of Model 2")


def test_a_phase_that_comes_again_is_shaded_again():
    history = make_history().assign(phase=["a", "b", "a"])
    assert training_charts.phase_spans(history) == [("a", 1, 1), ("b", 2, 2), ("a", 3, 3)]


def make_manifest() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "label": ["covid", "covid", "normal", "normal", "normal"],
            "split": ["train", "test", "train", "train", "train"],
            "patient_id": ["a", "b", "c", "c", "d"],
            "width": [100.0, 300.0, 200.0, 200.0, math.nan],
            "height": [120.0, 300.0, 200.0, 200.0, math.nan],
            "format": ["JPEG", "PNG", "PNG", "PNG", "PNG"],
        }
    )


def test_class_balance_is_percent_of_the_split_with_counts():
    chart = training_charts.plot_class_balance(make_manifest(), CLASSES)
    assert list(trace(chart, "covid").x) == [25, 100]
    assert list(trace(chart, "covid").text) == ["1", "1"]
    assert list(trace(chart, "pneumonia").text) == ["", ""]
    assert list(trace(chart, "normal").y) == ["train (4)", "test (1)"]
    assert "train: covid 1, normal 3, pneumonia 0" in chart.alt
    assert "5 images" in chart.title


def test_image_sizes_join_equal_ones():
    chart = training_charts.plot_image_sizes(make_manifest(), CLASSES)
    normal = trace(chart, "normal")
    assert (list(normal.x), list(normal.y), list(normal.customdata)) == ([200], [200], [2])
    assert "covid: 2 images, 100 to 300 px wide, 50 % square" in chart.alt
    assert "pneumonia: none" in chart.alt
    assert "4 image files" in chart.title


def test_split_counts_and_sizes():
    counts = metric_tables.split_counts(make_manifest(), CLASSES).set_index("split")
    assert list(counts.index) == ["train", "test", "all"]
    assert counts.loc["train"].to_list() == [1, 3, 0, 4, 3]
    assert counts.loc["all", "patients"] == 4
    sizes = metric_tables.size_table(make_manifest(), CLASSES).set_index("class")
    assert sizes.loc["covid", "square"] == 50
    assert sizes.loc["covid", "median px"] == "200 × 210"
    assert sizes.loc["pneumonia", "median px"] == "–"


def test_charts_and_tables_do_not_import_streamlit():
    for module in (metric_charts, style, training_charts, metric_tables):
        tree = ast.parse(Path(module.__file__).read_text(encoding="utf-8"))
        names = [
            alias.name for n in ast.walk(tree) if isinstance(n, ast.Import) for alias in n.names
        ]
        names += [n.module or "" for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
        assert names and not [name for name in names if name.startswith("streamlit")]
