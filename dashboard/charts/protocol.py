"""Figures of the page Cross-validation: folds, random against grouped, the papers' table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from core.evaluation.cross_validation import FOLD_METRICS, POOLED
from core.evaluation.published_protocol import ProtocolRow
from core.evaluation.published_results import TARGETS
from core.evaluation.split_comparison import Optimism
from core.formatting import interval_text
from dashboard.charts.style import (
    AXIS,
    FONT_PX,
    NEUTRAL,
    Chart,
    ChartFrame,
    break_lines,
    draw_lanes,
    finish_figure,
    round_down,
    row_whiskers,
    whiskers,
)

ROW_PX = 46
TARGET_SHADE = "rgba(128,128,128,0.16)"
THEIR_MARKER: dict[str, Any] = {"color": "#7A7A7A", "symbol": "circle-open", "size": 12}


def plot_folds(
    rows: pd.DataFrame, metric: str, frame: ChartFrame, *, n_text: str, target: bool = False
) -> Chart:
    """A lane a model: the pooled figure large, each fold small below it, all with whiskers.

    rows: core.evaluation.cross_validation.fold_table; target: draw the published accuracy with its
    interval behind.
    """
    rows = rows[rows["metric"] == metric]
    shown = frame.shown(rows["model"])
    figure, words = go.Figure(), []
    if target:
        _draw_target(figure, "three")
    for lane, model in enumerate(shown):
        own, label = rows[rows["model"] == model], frame.labels[model]
        colour = frame.style(model).colour
        pooled, folds = own[own["fold"] == POOLED], own[own["fold"] != POOLED]
        step = 0.55 / max(len(folds), 1)
        # Folds first, so that the pooled figure lies on top.
        figure.add_scatter(
            x=100 * folds["value"],
            y=[lane - 0.12 + step * k for k in range(len(folds))],
            error_x=row_whiskers(folds, colour, thickness=1.5, width=5),
            mode="markers",
            marker=frame.marker(model, 8, hollow=True),
            name=f"folds of {label}",
            showlegend=False,
            customdata=[
                [f"fold {r.fold}", interval_text((r.low, r.high)), r.n] for r in folds.itertuples()
            ],
            hovertemplate=_hover(label),
        )
        figure.add_scatter(
            x=100 * pooled["value"],
            y=[lane - 0.32] * len(pooled),
            error_x=row_whiskers(pooled, colour, thickness=4, width=5),
            mode="markers",
            marker=frame.marker(model, 16),
            name=label,
            showlegend=False,
            customdata=[
                ["pooled", interval_text((r.low, r.high)), r.n] for r in pooled.itertuples()
            ],
            hovertemplate=_hover(label),
        )
        each = ", ".join(f"{100 * value:.1f}" for value in folds["value"])
        words += [
            f"{label} {100 * r.value:.1f} % ({interval_text((r.low, r.high))}) pooled, folds {each}"
            for r in pooled.itertuples()
        ]
    title = (
        f"{FOLD_METRICS[metric]} in percent, {n_text}: pooled (large) and fold by fold (small), "
        "95% intervals by drawing whole patients"
    )
    lowest = round_down(rows[["low", "value"]].min().min(), 2)
    _finish(figure, [frame.labels[model] for model in shown], lowest, 110)
    return Chart(figure, f"{title}. {'; '.join(words)}.", title)


def plot_optimism(compared: Sequence[Optimism], frame: ChartFrame) -> Chart:
    """Random less grouped, in points: accuracy filled, macro-F1 open, zero as a line."""
    figure, words = go.Figure(), []
    figure.add_vline(x=0, line={"color": NEUTRAL, "width": 2}, layer="below")
    for lane, one in enumerate(compared):
        colour, label = frame.style(one.model).colour, frame.labels[one.model]
        for (metric, name), shift, hollow in zip(
            FOLD_METRICS.items(), (-0.14, 0.14), (False, True), strict=True
        ):
            own = one.figures[metric]
            figure.add_scatter(
                x=[100 * own.difference],
                y=[lane + shift],
                error_x=whiskers(own.difference, own.low, own.high, colour),
                mode="markers",
                marker=frame.marker(one.model, 14, hollow=hollow),
                name=f"{name}, {'open' if hollow else 'filled'}",
                legendgroup=metric,
                showlegend=lane == 0,
                hovertemplate=f"<b>{label}</b><br>{name}: random "
                f"{100 * own.random:.1f} %, grouped {100 * own.grouped:.1f} %<br>gap "
                f"{100 * own.difference:+.1f} points ({100 * own.low:.1f} to "
                f"{100 * own.high:.1f})<extra></extra>",
            )
            words.append(
                f"{label} {name.lower()} {100 * own.difference:+.1f} "
                f"({100 * own.low:.1f} to {100 * own.high:.1f})"
            )
    title = (
        "Random less grouped folds, in points, 95% intervals by drawing whole patients: right of "
        "zero random folds flatter"
    )
    _finish(figure, [frame.labels[one.model] for one in compared], None, 90)
    figure.update_xaxes(title="points")
    return Chart(figure, f"{title}. {'; '.join(words)}.", title)


def plot_published(rows: Sequence[ProtocolRow], task: str, frame: ChartFrame) -> Chart:
    """Accuracy of one task: published rows grey and open, ours in the models' colours."""
    rows = [row for row in rows if row.task.key == task]
    figure, words = go.Figure(), []
    published = any(row.model is None for row in rows)
    if published:
        _draw_target(figure, task)
    names = []
    for lane, row in enumerate(rows):
        marker = frame.marker(row.model, 15) if row.model else THEIR_MARKER
        own, name = row.accuracy, frame.labels[row.model] if row.model else row.label
        thickness, text = (3, own.text(1)) if row.model else (2, own.text(2))
        names.append(name)
        figure.add_scatter(
            x=[100 * own.value],
            y=[lane],
            error_x=whiskers(
                own.value, own.low, own.high, marker["color"], thickness=thickness, width=5
            ),
            mode="markers",
            marker=marker,
            name=name,
            showlegend=False,
            hovertemplate=f"<b>{name}</b><br>accuracy {text} %<br>"
            f"n = {row.n:,}, {row.protocol}<extra></extra>",
        )
        words.append(f"{name} {text} % of {row.n:,}, {row.protocol}")
    what = rows[0].task.title if rows else ""
    theirs = "published grey and open with intervals of ours, " if published else ""
    title = f"Accuracy in percent, {what}: {theirs}this run's rows filled and pooled over folds"
    lowest = min((row.accuracy.low or row.accuracy.value for row in rows), default=0)
    _finish(figure, names, round_down(lowest, 2), ROW_PX)
    return Chart(figure, f"{title}. {'; '.join(words)}.", title)


def _draw_target(figure: go.Figure, task: str) -> None:
    """The published accuracy as a line and its interval as a band, behind everything."""
    row = TARGETS[task]
    low, high = row.interval()
    figure.add_vrect(
        x0=100 * low, x1=100 * high, fillcolor=TARGET_SHADE, line_width=0, layer="below"
    )
    figure.add_vline(
        x=row.accuracy,
        line={"color": NEUTRAL, "width": 2, "dash": "dash"},
        layer="below",
        annotation={
            "text": f"target {row.accuracy:.2f}",
            "font": {"size": FONT_PX - 3},
            "yanchor": "bottom",
            "xanchor": "center",
        },
        annotation_position="top",
    )


def _finish(figure: go.Figure, names: Sequence[str], lowest: float | None, lane_px: int) -> None:
    if lowest is not None:
        figure.update_xaxes(title="percent", range=[lowest, 101])
    figure.update_xaxes(AXIS)
    # Broken, so that a name leaves a phone room for the dots.
    draw_lanes(figure, [break_lines(name.replace(" · ", " ").split(), 12) for name in names])
    finish_figure(figure, 120 + lane_px * max(len(names), 1))


def _hover(label: str) -> str:
    return (
        f"<b>{label}</b>, %{{customdata[0]}}<br>%{{x:.1f}} %, 95% interval %{{customdata[1]}}<br>"
        "n = %{customdata[2]}<extra></extra>"
    )
