"""Figures of the page Protocol: folds, random against grouped, the papers' table.

As in dashboard.charts.base, every function returns a `Chart`, and nothing here imports streamlit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd
import plotly.graph_objects as go

from core.evaluation.cross_validation import FOLD_METRICS, POOLED
from core.evaluation.published_protocol import ProtocolRow
from core.evaluation.published_results import TARGETS
from core.evaluation.split_comparison import Optimism
from core.formatting import interval_text, with_interval
from dashboard.charts.base import FAINT, FONT_PX, NEUTRAL, Chart, finish_figure, model_style

ROW_PX = 46
TARGET_SHADE = "rgba(128,128,128,0.16)"
THEIR_COLOUR = "#7A7A7A"


def plot_folds(
    rows: pd.DataFrame,
    metric: str,
    *,
    models: Sequence[str],
    labels: Mapping[str, str],
    n_text: str,
    target: bool = False,
) -> Chart:
    """A lane a model: the pooled figure large, each fold small below it, all with whiskers.

    rows: core.evaluation.cross_validation.fold_table; target: draw the published accuracy with its
    interval behind.
    """
    rows = rows[rows["metric"] == metric]
    shown = [model for model in models if (rows["model"] == model).any()]
    figure, words = go.Figure(), []
    if target:
        _draw_target(figure, "three")
    for lane, model in enumerate(shown):
        own = rows[rows["model"] == model]
        style = model_style(model, models)
        pooled, folds = own[own["fold"] == POOLED], own[own["fold"] != POOLED]
        step = 0.55 / max(len(folds), 1)
        # Folds first, so that the pooled figure lies on top.
        figure.add_scatter(
            x=100 * folds["value"],
            y=[lane - 0.12 + step * k for k in range(len(folds))],
            error_x=_whiskers(folds, style.colour, 1.5),
            mode="markers",
            marker={"color": style.colour, "symbol": f"{style.symbol}-open", "size": 8},
            name=f"folds of {labels[model]}",
            showlegend=False,
            customdata=[
                [f"fold {r.fold}", interval_text((r.low, r.high)), r.n] for r in folds.itertuples()
            ],
            hovertemplate=_hover(labels[model]),
        )
        figure.add_scatter(
            x=100 * pooled["value"],
            y=[lane - 0.32] * len(pooled),
            error_x=_whiskers(pooled, style.colour, 4),
            mode="markers",
            marker={"color": style.colour, "symbol": style.symbol, "size": 16},
            name=labels[model],
            showlegend=False,
            customdata=[
                ["pooled", interval_text((r.low, r.high)), r.n] for r in pooled.itertuples()
            ],
            hovertemplate=_hover(labels[model]),
        )
        each = ", ".join(f"{100 * value:.1f}" for value in folds["value"])
        words += [
            f"{labels[model]} {with_interval(r.value, (r.low, r.high), ' %')} pooled, folds {each}"
            for r in pooled.itertuples()
        ]
    title = (
        f"{FOLD_METRICS[metric]} in percent, {n_text}: pooled (large) and fold by fold (small), "
        "95% intervals by drawing whole patients"
    )
    values = rows[["low", "value"]].min().min()
    _finish(figure, [labels[model] for model in shown], _floor10(values), 110)
    return Chart(figure, f"{title}. {'; '.join(words)}.", title)


def plot_optimism(
    gaps: Sequence[Optimism], *, models: Sequence[str], labels: Mapping[str, str]
) -> Chart:
    """Random less grouped, in points: accuracy filled, macro-F1 open, zero as a line."""
    figure, words = go.Figure(), []
    figure.add_vline(x=0, line={"color": NEUTRAL, "width": 2}, layer="below")
    for lane, gap in enumerate(gaps):
        style = model_style(gap.model, models)
        for (metric, name), shift, symbol in zip(
            FOLD_METRICS.items(), (-0.14, 0.14), ("", "-open"), strict=True
        ):
            own = gap.figures[metric]
            figure.add_scatter(
                x=[100 * own.difference],
                y=[lane + shift],
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [100 * (own.high - own.difference)],
                    "arrayminus": [100 * (own.difference - own.low)],
                    "color": style.colour,
                    "thickness": 3,
                    "width": 6,
                },
                mode="markers",
                marker={"color": style.colour, "symbol": style.symbol + symbol, "size": 14},
                name=f"{name}, {'filled' if not symbol else 'open'}",
                legendgroup=metric,
                showlegend=lane == 0,
                hovertemplate=f"<b>{labels[gap.model]}</b><br>{name}: random "
                f"{100 * own.random:.1f} %, grouped {100 * own.grouped:.1f} %<br>gap "
                f"{100 * own.difference:+.1f} points ({100 * own.low:.1f} to "
                f"{100 * own.high:.1f})<extra></extra>",
            )
            words.append(
                f"{labels[gap.model]} {name.lower()} {100 * own.difference:+.1f} "
                f"({100 * own.low:.1f} to {100 * own.high:.1f})"
            )
    title = (
        "Random less grouped folds, in points, 95% intervals by drawing whole patients: right of "
        "zero random folds flatter"
    )
    _finish(figure, [labels[gap.model] for gap in gaps], None, 90)
    figure.update_xaxes(title="points")
    return Chart(figure, f"{title}. {'; '.join(words)}.", title)


def plot_published(
    rows: Sequence[ProtocolRow], task: str, *, models: Sequence[str], labels: Mapping[str, str]
) -> Chart:
    """Accuracy of one task: published rows grey and open, ours in the models' colours."""
    rows = [row for row in rows if row.task.key == task]
    figure, words = go.Figure(), []
    published = any(row.model is None for row in rows)
    if published:
        _draw_target(figure, task)
    names = []
    for lane, row in enumerate(rows):
        style = model_style(row.model, models) if row.model else None
        colour = style.colour if style else THEIR_COLOUR
        own = row.accuracy
        part = pd.DataFrame([{"value": own.value, "low": own.low, "high": own.high}])
        name = labels[row.model] if row.model else row.label
        names.append(name)
        figure.add_scatter(
            x=[100 * own.value],
            y=[lane],
            error_x=_whiskers(part.astype(float), colour, 3 if style else 2),
            mode="markers",
            marker={
                "color": colour,
                "symbol": style.symbol if style else "circle-open",
                "size": 15 if style else 12,
            },
            name=name,
            showlegend=False,
            hovertemplate=f"<b>{name}</b><br>accuracy {own.text(1 if style else 2)} %<br>"
            f"n = {row.n:,}, {row.protocol}<extra></extra>",
        )
        words.append(f"{name} {own.text(1 if style else 2)} % of {row.n:,}, {row.protocol}")
    what = rows[0].task.title if rows else ""
    theirs = "published grey and open with intervals of ours, " if published else ""
    title = f"Accuracy in percent, {what}: {theirs}this run's rows filled and pooled over folds"
    lowest = min((row.accuracy.low or row.accuracy.value for row in rows), default=0)
    _finish(figure, names, _floor10(lowest), ROW_PX)
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
    figure.update_xaxes(gridcolor=FAINT, zeroline=False)
    figure.update_yaxes(
        tickvals=list(range(len(names))),
        ticktext=[_broken(name) for name in names],
        range=[len(names) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
    )
    for y in range(1, len(names)):
        figure.add_hline(y=y - 0.5, line={"color": FAINT, "width": 1}, layer="below")
    finish_figure(figure, 120 + lane_px * max(len(names), 1))


def _broken(name: str) -> str:
    """A name over lines of some twelve characters, so that it leaves a phone room for the dots."""
    lines = [""]
    for word in name.replace(" · ", " ").split():
        if lines[-1] and len(lines[-1]) + len(word) > 12:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(lines)


def _whiskers(part: pd.DataFrame, colour: str, thickness: float) -> dict:
    return {
        "type": "data",
        "symmetric": False,
        "array": 100 * (part["high"] - part["value"]).fillna(0),
        "arrayminus": 100 * (part["value"] - part["low"]).fillna(0),
        "color": colour,
        "thickness": thickness,
        "width": 5,
    }


def _hover(label: str) -> str:
    return (
        f"<b>{label}</b>, %{{customdata[0]}}<br>%{{x:.1f}} %, 95% interval %{{customdata[1]}}<br>"
        "n = %{customdata[2]}<extra></extra>"
    )


def _floor10(value: float) -> float:
    """The next ten below a fraction, in percent, a little further where it would touch the edge."""
    return 0.0 if value != value else max(0.0, 10 * ((100 * value - 2) // 10))
