"""Figures of the page All models: the ranking, cost against quality, learning curves, data sets.

Fifteen models are more than colours can tell apart, so place and number say which is which: the
project's own keep their colour and shape, all others share one, and a model's number is its rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from core.formatting import interval_text
from core.reporting.leaderboard.ranking import METRICS
from dashboard.charts.confusion import SCALES, ink_on
from dashboard.charts.style import (
    FAINT,
    FONT_PX,
    MODEL_STYLES,
    NEUTRAL,
    TEXT,
    Chart,
    ModelStyle,
    break_lines,
    lane_borders,
    lanes,
    legend_entry,
    log_range,
    round_down,
    still_layout,
    whiskers,
)

OTHER_STYLE = ModelStyle("#6B7785", "gray", "hexagon", "⬢")
COSTS = {
    "latency_ms": ("Time an image", "ms an image, one at a time (log scale)", 1.0, "ms an image"),
    "train_s": ("Training time", "minutes of training (log scale)", 1 / 60, "minutes of training"),
}
CURVES = {
    "val_loss": ("Validation loss", 1.0),
    "val_accuracy": ("Validation accuracy", 100.0),
}
LINE_CHARACTERS = 18
_TICKS = [base * 10**power for power in range(-2, 5) for base in (1, 2, 5)]


def zoo_style(model: str) -> ModelStyle:
    """The model's own style, and one for all that have none."""
    return MODEL_STYLES.get(model, OTHER_STYLE)


# ------------------------------------------------------------------------------ the ranking


def plot_ranking(
    ranking: pd.DataFrame, metric: str, *, n_text: str, baselines: pd.DataFrame | None = None
) -> Chart:
    """A row a model, the first on top: point and interval; shortcut baselines as lines behind.

    ranking: core.reporting.leaderboard.ranking.rank. Filled: cannot be told from the first; open:
    behind it. baselines: name, kind, metric, value (fractions).
    """
    traces = _baseline_lines(baselines, metric, len(ranking))
    words = [trace["name"] for trace in traces if trace["legendgroup"] == "highest"]
    for y, row in enumerate(ranking.itertuples()):
        style = zoo_style(row.model)
        value, low, high = _values(row, metric)
        verdict = "not told from the first" if row.tied_with_best else "behind the first"
        if y == 0:
            verdict = "in front"
        text = f"{100 * value:.1f} % ({interval_text((low, high))})"
        traces.append(
            {
                "type": "scatter",
                "x": [100 * value],
                "y": [y],
                "error_x": whiskers(value, low, high, style.colour, width=5),
                "mode": "markers",
                "marker": {
                    "color": style.colour,
                    "symbol": style.symbol + ("" if row.tied_with_best else "-open"),
                    "size": 15,
                    "line": {"width": 3, "color": style.colour},
                },
                "name": row.label,
                "showlegend": False,
                "hovertemplate": f"<b>{row.label}</b><br>{METRICS[metric]} {text}<br>{verdict}"
                "<extra></extra>",
            }
        )
        words.append(f"{row.rank}. {row.label} {text}, {verdict}")
    marks = {"circle": "not told from the first"}
    if not ranking["tied_with_best"].all():
        marks["circle-open"] = "behind it"
    for symbol, name in marks.items():
        marker = {"symbol": symbol, "color": OTHER_STYLE.colour, "size": 13, "line": {"width": 3}}
        traces.append(legend_entry(name, mode="markers", marker=marker))
    lowest = np.nanmin([ranking[metric].min(), ranking[f"{metric}_low"].min()])
    if baselines is not None and len(baselines):
        own = baselines.loc[baselines["metric"] == metric, "value"]
        lowest = np.nanmin([lowest, own.min()])
    layout = still_layout(100 + 46 * len(ranking), legend=True)
    layout["xaxis"] |= {"title": {"text": "percent"}, "range": [round_down(lowest, 2), 101]}
    layout["yaxis"] |= lanes([_broken(f"{r.rank}  {r.label}") for r in ranking.itertuples()])
    layout["shapes"] = lane_borders(len(ranking))
    title = (
        f"{METRICS[metric]} in percent of {n_text}, with 95% intervals by drawing whole patients"
    )
    figure = go.Figure({"data": traces, "layout": layout})
    return Chart(figure, f"{title}. {'; '.join(words)}.", title)


def _baseline_lines(baselines: pd.DataFrame | None, metric: str, n: int) -> list[dict]:
    """The baseline that is hardest to beat, strong, and the others faint behind it."""
    if baselines is None or not len(baselines):
        return []
    own = baselines[baselines["metric"] == metric].dropna(subset=["value"]).sort_values("value")
    lines = []
    for place, row in enumerate(own.itertuples(), start=1):
        highest = place == len(own)
        lines.append(
            {
                "type": "scatter",
                # Points along the line, so that it can be hovered anywhere.
                "x": [100 * row.value] * (n + 1),
                "y": [y - 0.5 for y in range(n + 1)],
                "mode": "lines",
                "line": {"color": NEUTRAL if highest else FAINT, "width": 4 if highest else 2},
                "name": f"highest floor, {100 * row.value:.1f} %" if highest else "other floors",
                "legendgroup": "highest" if highest else "others",
                "showlegend": highest or place == 1,
                "hovertemplate": f"floor: {row.name}<br>%{{x:.1f}} %<extra></extra>",
            }
        )
    return lines


# ------------------------------------------------------------------------------ cost


def plot_cost(ranking: pd.DataFrame, metric: str, cost: str, *, n_text: str) -> Chart:
    """Quality against a cost (log scale); each marker holds the model's rank.

    Models whose cost is not known are left out, and the alternative text says which.
    """
    name, axis, scale, unit = COSTS[cost]
    known = ranking[ranking[cost] > 0]
    traces: list[dict] = []
    words: list[str] = []
    # The first on top of the others where marks meet.
    for row in known.iloc[::-1].itertuples():
        style = zoo_style(row.model)
        value, low, high = _values(row, metric)
        x = scale * getattr(row, cost)
        text = f"{100 * value:.1f} % ({interval_text((low, high))}), {x:,.1f} {unit}"
        traces.append(
            {
                "type": "scatter",
                "x": [x],
                "y": [100 * value],
                "error_y": whiskers(value, low, high, FAINT, thickness=2, width=5),
                "mode": "markers+text",
                "text": [str(row.rank)],
                "textfont": {"size": 13, "color": _ink(style.colour)},
                "marker": {
                    "color": style.colour,
                    "symbol": "circle",
                    "size": 24,
                    "line": {"width": 1, "color": "#FFFFFF"},
                },
                "name": row.label,
                "showlegend": False,
                "hovertemplate": f"<b>{row.rank}. {row.label}</b><br>{METRICS[metric]} {text}"
                "<extra></extra>",
            }
        )
        words.insert(0, f"{row.rank}. {row.label} {text}")
    layout = still_layout(560)
    layout["xaxis"] |= {
        "title": {"text": axis},
        "type": "log",
        "range": log_range(scale * known[cost], 1.7),
        "tickvals": _TICKS,
    }
    layout["yaxis"] |= {"title": {"text": f"{METRICS[metric]}, percent"}}
    title = f"{METRICS[metric]} in percent of {n_text} against {name.lower()}; numbers are ranks"
    unknown = ranking.loc[~(ranking[cost] > 0), "label"]
    more = f" Not known: {', '.join(unknown)}." if len(unknown) else ""
    figure = go.Figure({"data": traces, "layout": layout})
    return Chart(figure, f"{title}: {'; '.join(words)}.{more}", title)


def _ink(colour: str) -> str:
    """Black or white on a colour "#rrggbb", by perceived brightness."""
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return "#000000" if 0.299 * red + 0.587 * green + 0.114 * blue > 130 else "#FFFFFF"


# ------------------------------------------------------------------------------ learning curves


def curve_range(histories: Sequence[pd.DataFrame], what: str) -> list[float]:
    """The one range for all small charts: from 0, or the lowest ten below, to what fits most.

    A loss is cut where one epoch of one model would flatten all others: at twice the 90th
    percentile of the values.
    """
    _, scale = CURVES[what]
    values = pd.concat([scale * h[what] for h in histories]).dropna()
    if not len(values):
        return [0, 1]
    if what == "val_accuracy":
        return [round_down(values.min() / 100, 2), 101]
    return [0, 1.05 * float(min(values.max(), 2 * values.quantile(0.9)))]


def plot_curve(
    history: pd.DataFrame,
    what: str,
    *,
    label: str,
    colour: str,
    kept: Sequence[int],
    y_range: Sequence[float],
) -> Chart:
    """One model's validation curve, small; the epochs that were kept are ringed."""
    name, scale = CURVES[what]
    values = scale * history[what]
    own = history["epoch"].isin(kept)
    traces = [
        {
            "type": "scatter",
            "x": history["epoch"].to_list(),
            "y": values.to_list(),
            "mode": "lines" if len(history) > 1 else "markers",
            "line": {"color": colour, "width": 3},
            "hovertemplate": "epoch %{x}: %{y:.4~g}<extra></extra>",
        },
        {
            "type": "scatter",
            "x": history.loc[own, "epoch"].to_list(),
            "y": values[own].to_list(),
            "mode": "markers",
            "marker": {"color": colour, "symbol": "circle-open", "size": 14, "line": {"width": 3}},
            "cliponaxis": False,
            "hovertemplate": "epoch %{x}, kept: %{y:.4~g}<extra></extra>",
        },
    ]
    layout = still_layout(160)
    layout["margin"] = {"l": 6, "r": 10, "t": 8, "b": 24}
    layout["yaxis"] |= {"range": list(y_range), "nticks": 4}
    layout["xaxis"] |= {"nticks": 5, "rangemode": "tozero"}
    unit = " %" if what == "val_accuracy" else ""
    known = values.dropna()
    words = "no validation figures"
    if len(known):
        words = f"from {known.iloc[0]:.3g}{unit} to {known.iloc[-1]:.3g}{unit}"
        words += f" in {len(history)} epochs"
    if own.any():
        each = history.loc[own, "epoch"].astype(str)
        words += f", kept epoch {', '.join(each)}"
    return Chart(go.Figure({"data": traces, "layout": layout}), f"{name} of {label}: {words}.")


# ------------------------------------------------------------------------------ data sets


def plot_matrix(
    rows: Sequence[str],
    columns: Sequence[str],
    values: np.ndarray,
    texts: Sequence[Sequence[str]],
    *,
    title: str,
    theme: str = "light",
) -> Chart:
    """Trained on (R rows) against tested on (C columns); values (R, C) fractions, NaN where none.

    texts (R, C): what stands in each cell; the colour only repeats it.
    """
    ys, xs = list(range(len(rows))), list(range(len(columns)))
    colours = [
        TEXT[theme] if np.isnan(value) else ink_on(float(value), theme) for value in values.flat
    ]
    traces = [
        {
            "type": "heatmap",
            "z": 100 * values,
            "x": xs,
            "y": ys,
            "zmin": 0,
            "zmax": 100,
            "colorscale": SCALES[theme],
            "showscale": False,
            "xgap": 3,
            "ygap": 3,
            "hoverinfo": "skip",
        },
        {
            "type": "scatter",
            "mode": "text",
            "x": [x for _ in ys for x in xs],
            "y": [y for y in ys for _ in xs],
            "text": [text for row in texts for text in row],
            "textfont": {"size": FONT_PX - 3, "color": colours},
            "hoverinfo": "skip",
        },
    ]
    layout = still_layout(140 + 92 * len(rows))
    font = {"size": FONT_PX - 3, "color": TEXT[theme]}
    for axis, names, word, ends in (
        ("xaxis", columns, "Tested on", [-0.5, len(columns) - 0.5]),
        ("yaxis", rows, "Trained on", [len(rows) - 0.5, -0.5]),
    ):
        layout[axis] |= {
            "title": {"text": word, "font": font},
            "tickvals": list(range(len(names))),
            "ticktext": [_broken(name.replace("-", "- "), 10).replace("- ", "-") for name in names],
            "range": ends,
            "showgrid": False,
            "tickfont": font,
        }
    layout["xaxis"] |= {"side": "top", "tickangle": 0}
    words = [
        f"trained on {row}, tested on {column}: "
        + texts[y][x].replace("<br>", " ").replace("<b>", "").replace("</b>", "")
        for y, row in enumerate(rows)
        for x, column in enumerate(columns)
    ]
    figure = go.Figure({"data": traces, "layout": layout})
    return Chart(figure, f"{title}. {'; '.join(words)}.", title)


# ------------------------------------------------------------------------------ shared


def _values(row: Any, metric: str) -> tuple[float, float, float]:
    return getattr(row, metric), getattr(row, f"{metric}_low"), getattr(row, f"{metric}_high")


def _broken(name: str, width: int = LINE_CHARACTERS) -> str:
    """A name over lines, so that it leaves a phone room for the marks."""
    return break_lines(name.split(" "), width)
