"""dashboard/charts/leaderboard.py: what is drawn, and what is said to those who cannot see it."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from core.models.names import NOTEBOOK, OWN
from dashboard.charts import leaderboard as leaderboard_charts
from dashboard.charts.style import FAINT, MODEL_STYLES, NEUTRAL, Chart
from dashboard.tables import metrics as metric_tables

N_TEXT = "n = 24 test images of 12 patients"


def ranking() -> pd.DataFrame:
    """Three models: in front, not told from it, behind it; the last costs an unknown time."""
    values = [0.8, 0.7, 0.4]
    return pd.DataFrame(
        {
            "rank": [1, 2, 3],
            "run": "r",
            "model": ["cnn", "fnn", "baseline"],
            "label": ["CNN", "FNN, plain", "Baseline"],
            "macro_f1": values,
            "macro_f1_low": [0.7, 0.6, np.nan],
            "macro_f1_high": [0.9, 0.8, np.nan],
            "tied_with_best": [True, True, False],
            "latency_ms": [4.0, 1.0, np.nan],
            "train_s": [600.0, 60.0, 30.0],
        }
    )


def floors() -> pd.DataFrame:
    return metric_tables.baseline_rows(
        {
            "a": {"title": "Border", "kind": "pixel", "accuracy": 0.6, "macro_f1": 0.5},
            "b": {"title": "File size", "kind": "metadata", "accuracy": 0.3, "macro_f1": 0.55},
            "c": {"macro_f1": None},
        }
    )


def test_own_models_keep_their_look_and_all_others_share_one():
    assert [leaderboard_charts.zoo_style(m) for m in OWN] == [MODEL_STYLES[m] for m in OWN]
    shared = {leaderboard_charts.zoo_style(m) for m in (*NOTEBOOK, "densenet121")}
    assert shared == {leaderboard_charts.OTHER_STYLE}
    assert leaderboard_charts.OTHER_STYLE.symbol not in {s.symbol for s in MODEL_STYLES.values()}


def draw_ranking(baselines: pd.DataFrame) -> Chart:
    return leaderboard_charts.plot_ranking(
        ranking(), "macro_f1", n_text=N_TEXT, baselines=baselines
    )


def test_ranking_has_a_row_a_model_with_interval_and_what_the_test_says():
    chart = draw_ranking(floors())
    points = [t for t in chart.figure.data if t.mode == "markers" and t.error_x.array]
    assert [(t.x[0], t.y[0]) for t in points] == [(80, 0), (70, 1), (40, 2)]
    assert [t.error_x.array[0] for t in points] == pytest.approx([10, 10, 0])
    assert [t.error_x.arrayminus[0] for t in points] == pytest.approx([10, 10, 0])
    assert [t.marker.symbol for t in points] == ["circle", "hexagon", "hexagon-open"]
    axis = chart.figure.layout.yaxis
    assert list(axis.ticktext) == ["1  CNN", "2  FNN, plain", "3  Baseline"]
    assert axis.range[0] > axis.range[1], "the first on top"
    assert chart.figure.layout.xaxis.range[0] == 30
    assert N_TEXT in chart.title and chart.alt.startswith(chart.title)
    assert "1. CNN 80.0 % (70.0 to 90.0), in front" in chart.alt
    assert "2. FNN, plain 70.0 % (60.0 to 80.0), not told from the first" in chart.alt
    assert "3. Baseline 40.0 % (no interval), behind the first" in chart.alt


def test_the_highest_floor_stands_out_and_belongs_to_the_metric():
    chart = draw_ranking(floors())
    lines = [t for t in chart.figure.data if t.mode == "lines"]
    assert [(t.x[0], t.line.color) for t in lines] == [
        (50, FAINT),
        (pytest.approx(55), NEUTRAL),
    ]
    assert "highest floor, 55.0 %" in chart.alt
    assert [t.showlegend for t in lines] == [True, True]
    without = floors()[lambda table: table["metric"] == "accuracy"]
    chart = draw_ranking(without)
    assert not [t for t in chart.figure.data if t.mode == "lines"] and "floor" not in chart.alt


def test_cost_has_numbers_for_names_and_leaves_out_what_is_not_known():
    chart = leaderboard_charts.plot_cost(ranking(), "macro_f1", "latency_ms", n_text=N_TEXT)
    assert {t.text[0]: (t.x[0], t.y[0]) for t in chart.figure.data} == {
        "1": (4, 80),
        "2": (1, pytest.approx(70)),
    }
    assert chart.figure.layout.xaxis.type == "log"
    assert chart.alt.endswith("4.0 ms an image; 2. FNN, plain 70.0 % (60.0 to 80.0), 1.0 ms an "
                              "image. Not known: Baseline.")  # fmt: skip
    chart = leaderboard_charts.plot_cost(ranking(), "macro_f1", "train_s", n_text=N_TEXT)
    assert sorted(t.x[0] for t in chart.figure.data) == pytest.approx([0.5, 1, 10])
    assert "Not known" not in chart.alt


@pytest.mark.parametrize("colour", ["#E69F00", "#0072B2", "#009E73", "#CC79A7", "#6B7785"])
def test_numbers_can_be_read_on_every_colour(colour):
    def luminance(text: str) -> float:
        channels = [int(text[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    low, high = sorted((luminance(colour), luminance(leaderboard_charts._ink(colour))))
    assert (high + 0.05) / (low + 0.05) > 3


def history(val_loss: list[float]) -> pd.DataFrame:
    n = len(val_loss)
    return pd.DataFrame(
        {"epoch": range(1, n + 1), "val_loss": val_loss, "val_accuracy": [0.5] * n}
    )  # fmt: skip


def test_one_range_for_all_curves_and_an_outlier_is_cut():
    histories = [history([1.0] * 19), history([100.0])]
    assert leaderboard_charts.curve_range(histories, "val_loss") == [0, pytest.approx(2.1)]
    assert leaderboard_charts.curve_range([history([1.0, 1.5])], "val_loss") == [
        0,
        pytest.approx(1.575),
    ]
    assert leaderboard_charts.curve_range(histories, "val_accuracy") == [40, 101]
    assert leaderboard_charts.curve_range([history([])], "val_loss") == [0, 1]


def test_the_kept_epoch_is_ringed_and_said():
    chart = leaderboard_charts.plot_curve(
        history([0.9, 0.5, 0.7]), "val_loss", label="FNN", colour="#000000", kept=[2],
        y_range=[0, 1],
    )  # fmt: skip
    line, ring = chart.figure.data
    assert list(line.y) == [0.9, 0.5, 0.7]
    assert (list(ring.x), list(ring.y), ring.marker.symbol) == ([2], [0.5], "circle-open")
    assert list(chart.figure.layout.yaxis.range) == [0, 1]
    assert chart.alt == "Validation loss of FNN: from 0.9 to 0.7 in 3 epochs, kept epoch 2."


def test_matrix_says_every_cell_and_colours_only_what_was_measured():
    values = np.array([[0.9, 0.3], [np.nan, 0.8]])
    texts = [["<b>90.0</b><br>n = 5", "<b>30.0</b><br>n = 7"], ["–", "<b>80.0</b><br>n = 6"]]
    for theme in ("light", "dark"):
        chart = leaderboard_charts.plot_matrix(
            ["one", "two"], ["one", "two-of-many-words"], values, texts, title="T", theme=theme
        )
        cells, words = chart.figure.data
        assert np.array_equal(cells.z, 100 * values, equal_nan=True)
        assert (cells.zmin, cells.zmax) == (0, 100)
        assert list(zip(words.y, words.x, words.text, strict=True)) == [
            (0, 0, texts[0][0]), (0, 1, texts[0][1]), (1, 0, "–"), (1, 1, texts[1][1]),
        ]  # fmt: skip
        assert chart.figure.layout.xaxis.ticktext[1] == "two-of-<br>many-words"
        assert chart.figure.layout.yaxis.range == (1.5, -0.5), "the first row on top"
    assert "trained on one, tested on two-of-many-words: 30.0 n = 7" in chart.alt
    assert "trained on two, tested on one: –" in chart.alt
