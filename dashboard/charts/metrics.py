"""Figures of how good the models are: metrics with intervals, quality against time."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from core.formatting import interval_text
from dashboard.charts.style import (
    AXIS,
    NEUTRAL,
    Chart,
    ChartFrame,
    draw_lanes,
    finish_figure,
    lane_offsets,
    log_range,
    round_down,
    row_whiskers,
)

BASELINE_KINDS = {"pixel": "floor: pixel shortcuts", "metadata": "floor: file properties only"}


def plot_metric_dots(
    rows: pd.DataFrame, frame: ChartFrame, *, n_text: str, baselines: pd.DataFrame | None = None
) -> Chart:
    """Dots with whiskers: one row a metric, one dot a model, shortcut baselines as lines behind.

    rows: model, metric, metric_label, value, low, high (fractions; low and high may be NaN), in
    the order to show. baselines: name, kind, metric, value.
    """
    metrics = list(dict.fromkeys(rows["metric"]))
    metric_labels = rows.drop_duplicates("metric").set_index("metric")["metric_label"]
    figure = go.Figure()
    lowest = pd.concat([rows["low"], rows["value"]]).min()
    if baselines is not None and len(baselines):
        _draw_baselines(figure, baselines, metrics)
        lowest = min(lowest, baselines["value"].min())
    shown = frame.shown(rows["model"])
    for model, offset in zip(shown, lane_offsets(len(shown)), strict=True):
        part = rows[rows["model"] == model].dropna(subset=["value"])
        label = frame.labels[model]
        figure.add_scatter(
            x=100 * part["value"],
            y=[metrics.index(m) + offset for m in part["metric"]],
            error_x=row_whiskers(part, frame.style(model).colour),
            mode="markers",
            marker=frame.marker(model),
            name=label,
            customdata=[
                [r.metric_label, interval_text((r.low, r.high))] for r in part.itertuples()
            ],
            hovertemplate=f"<b>{label}</b><br>%{{customdata[0]}}: %{{x:.1f}} %"
            "<br>95% interval %{customdata[1]}<extra></extra>",
        )
    figure.update_xaxes(AXIS, title="percent", range=[round_down(lowest), 101])
    draw_lanes(figure, [metric_labels[m].replace(" ", "<br>", 1) for m in metrics])
    finish_figure(figure, 110 + len(metrics) * (22 + 17 * len(shown)))
    title = f"Metrics in percent of {n_text}, with 95% intervals by drawing whole patients"
    sentences = [
        f"{frame.labels[m]}: "
        + ", ".join(
            f"{r.metric_label} {100 * r.value:.1f} % ({interval_text((r.low, r.high))})"
            for r in rows[rows["model"] == m].dropna(subset=["value"]).itertuples()
        )
        for m in shown
    ]
    return Chart(figure, f"{title}. " + ". ".join(sentences) + ".", title)


def _draw_baselines(figure: go.Figure, baselines: pd.DataFrame, metrics: Sequence[str]) -> None:
    known = baselines[baselines["metric"].isin(metrics)].dropna(subset=["value"])
    for row in known.itertuples():
        y = metrics.index(row.metric)
        figure.add_scatter(
            x=[100 * row.value] * 2,
            y=[y - 0.42, y + 0.42],
            mode="lines",
            line={"color": NEUTRAL, "width": 2, "dash": "solid" if row.kind == "pixel" else "dot"},
            hovertemplate=f"floor: {row.name}<br>%{{x:.1f}} %<extra></extra>",
            name=BASELINE_KINDS.get(row.kind, f"floor: {row.kind}"),
            legendgroup=f"floor {row.kind}",
            showlegend=f"floor {row.kind}" not in {trace.legendgroup for trace in figure.data},
        )


def plot_quality_cost(table: pd.DataFrame, frame: ChartFrame, *, n_text: str) -> Chart:
    """Macro-F1 against time an image.

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
            f"({interval})<br>%{{x:.1f}} ms an image<br>"
            f"{row.size_mb:.1f} MB<extra></extra>",
        )
        words.append(
            f"{label} {100 * row.value:.1f} % ({interval}) in {row.latency_ms:.1f} ms and "
            f"{row.size_mb:.1f} MB"
        )
    title = f"Macro-F1 in percent of {n_text} against time an image, with 95% intervals"
    figure.update_xaxes(
        AXIS,
        title="ms an image, one at a time (log scale)",
        type="log",
        range=log_range(table["latency_ms"]),
        tickvals=[0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000],
    )
    figure.update_yaxes(AXIS, title="macro-F1, percent")
    finish_figure(figure, 420)
    return Chart(figure, f"{title}: {'; '.join(words)}.", title)
