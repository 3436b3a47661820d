"""Figures of how good the models are: ranked with intervals, quality against time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from core.formatting import interval_text
from dashboard.charts.style import (
    AXIS,
    FAINT,
    FONT_PX,
    NEUTRAL,
    Chart,
    ChartFrame,
    draw_lanes,
    finish_figure,
    log_range,
    round_down,
    row_whiskers,
    safe,
    whiskers,
)

MARKS = ("filled", "open")  # of the first metric and of the second
LANE_PX, MANY_LANE_PX, MANY = 44, 34, 8  # the second where there are more lanes than MANY


def plot_ranked_models(
    rows: pd.DataFrame, frame: ChartFrame, *, n_text: str, baselines: pd.DataFrame | None = None
) -> Chart:
    """Dots with whiskers, a lane a model, the best on top; shaded what a shortcut reaches.

    rows: model, metric, metric_label, value, low, high (fractions; low and high may be NaN) of one
    or two metrics; the first ranks and its marks are filled, the other's are open. baselines: name,
    kind, metric, value; of each metric the highest is drawn.
    """
    rows = rows.dropna(subset=["value"])
    metrics = rows["metric"].drop_duplicates().to_list()
    first = rows[rows["metric"] == metrics[0]].sort_values("value", ascending=False, kind="stable")
    ranked = first["model"].to_list()
    tops = _highest(baselines, metrics)
    lowest = min([rows[["low", "value"]].min().min(), *(row.value for row in tops.values())])
    start = round_down(lowest, room=4)
    figure, sentences = go.Figure(), []
    share = 1 / len(metrics)
    for place, metric in enumerate(metrics):
        offset = (place + 0.5) * share - 0.5
        label = rows.loc[rows["metric"] == metric, "metric_label"].iloc[0]
        if metric in tops:
            top = tops[metric]
            for y in range(len(ranked)):
                _shade(figure, start, 100 * top.value, y + offset - share / 2, share)
            sentences.append(f"{label}, {top.name}: {100 * top.value:.1f} %")
        for y, model in enumerate(ranked):
            found = rows[(rows["metric"] == metric) & (rows["model"] == model)]
            for row in found.itertuples():
                name, interval = safe(frame.labels[model]), interval_text((row.low, row.high))
                colour = frame.style(model).colour
                figure.add_scatter(
                    x=[100 * row.value],
                    y=[y + 0.8 * offset],
                    error_x=whiskers(row.value, row.low, row.high, colour, thickness=2, width=4),
                    mode="markers",
                    marker=frame.marker(model, 13, hollow=place > 0),
                    name=name,
                    showlegend=False,
                    hovertemplate=f"<b>{name}</b><br>{label} %{{x:.1f}} %<br>95 % CI {interval}"
                    "<extra></extra>",
                )
                sentences.append(f"{label}, {name}: {100 * row.value:.1f} % ({interval})")
    figure.update_xaxes(AXIS, range=[start, 101])
    draw_lanes(figure, [_lane_name(rows, metrics, model, frame) for model in ranked])
    height = LANE_PX if len(ranked) <= MANY else MANY_LANE_PX
    finish_figure(figure, 34 + (26 if tops else 0) + height * len(ranked))
    figure.update_layout(margin={"t": 26 if tops else 4, "b": 30})
    if tops:
        figure.add_annotation(
            x=100 * max(row.value for row in tops.values()), xanchor="right", y=1, yref="paper",
            yanchor="bottom", text=_shaded_text(tops), showarrow=False, font={"size": FONT_PX - 3},
        )  # fmt: skip
    marks = [f"{name} ({mark})" for name, mark in zip(_labels(rows, metrics), MARKS, strict=False)]
    title = f"{', '.join(marks)}, %, {n_text}, 95 % CI"
    return Chart(figure, f"{title}. " + ". ".join(sentences) + ".", title)


def _lane_name(rows: pd.DataFrame, metrics: Sequence[str], model: str, frame: ChartFrame) -> str:
    """A model's name and its figures, to be read from afar."""
    found = rows[rows["model"] == model].set_index("metric")["value"]
    figures = [f"{100 * found[metric]:.1f}" for metric in metrics if metric in found.index]
    return f"{safe(frame.labels[model])}<br><b>{' · '.join(figures)}</b>"


def _labels(rows: pd.DataFrame, metrics: Sequence[str]) -> list[str]:
    names = rows.drop_duplicates("metric").set_index("metric")["metric_label"]
    return [names[metrics[0]], *(names[metric].lower() for metric in metrics[1:])]


def _highest(baselines: pd.DataFrame | None, metrics: Sequence[str]) -> dict[str, Any]:
    """metric -> its highest baseline's row."""
    if baselines is None:
        return {}
    known = baselines[baselines["metric"].isin(metrics)].dropna(subset=["value"])
    best = known.sort_values("value").drop_duplicates("metric", keep="last")
    return {row.metric: row for row in best.itertuples()}


def _shade(figure: go.Figure, start: float, end: float, top: float, height: float) -> None:
    area = {"x0": start, "x1": end, "y0": top, "y1": top + height, "layer": "below"}
    figure.add_shape(type="rect", fillcolor=FAINT, line={"width": 0}, **area)
    edge = {"color": NEUTRAL, "width": 2, "dash": "dot"}
    figure.add_shape(type="line", line=edge, **(area | {"x0": end}))


def _shaded_text(tops: Mapping[str, Any]) -> str:
    """What the best shortcut reaches, in a few words."""
    names = list(dict.fromkeys(str(row.name) for row in tops.values()))
    return f"no network needed: {safe(' or '.join(names)).lower()}"


def plot_quality_cost(table: pd.DataFrame, frame: ChartFrame, *, n_text: str) -> Chart:
    """Macro-F1 against time per image.

    table: model, value, low, high (fractions), latency_ms, size_mb; models without a time are
    left out.
    """
    figure, words = go.Figure(), []
    table = table.dropna(subset=["latency_ms", "value"])
    for row in table.itertuples():
        label, interval = frame.labels[row.model], interval_text((row.low, row.high))
        figure.add_scatter(
            x=[row.latency_ms],
            y=[100 * row.value],
            error_y=row_whiskers(table[table["model"] == row.model], frame.style(row.model).colour),
            mode="markers",
            marker=frame.marker(row.model, 16),
            name=label,
            # In the legend and not beside the marks: models of like speed would write over
            # each other.
            showlegend=True,
            hovertemplate=f"<b>{label}</b><br>macro-F1 %{{y:.1f}} % "
            f"({interval})<br>%{{x:.1f}} ms per image<br>"
            f"{row.size_mb:.1f} MB<extra></extra>",
        )
        words.append(
            f"{label} {100 * row.value:.1f} % ({interval}) in {row.latency_ms:.1f} ms and "
            f"{row.size_mb:.1f} MB"
        )
    title = f"Macro-F1 in percent of {n_text} against time per image, 95 % CI"
    figure.update_xaxes(
        AXIS,
        title="ms per image, one at a time (log scale)",
        type="log",
        range=log_range(table["latency_ms"]),
        tickvals=[0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000],
    )
    figure.update_yaxes(AXIS, title="macro-F1, percent")
    finish_figure(figure, 420)
    return Chart(figure, f"{title}: {'; '.join(words)}.", title)
