"""Figures of what calibration gives: reliability diagrams and prediction sets."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.charts.curves import HEIGHT_PX
from dashboard.charts.style import (
    AXIS,
    FONT_PX,
    NEUTRAL,
    Chart,
    ChartFrame,
    ModelStyle,
    draw_lanes,
    faint,
    finish_figure,
    lane_offsets,
    round_down,
    row_whiskers,
    whiskers,
)
from dashboard.tables.metrics import range_text

# ------------------------------------------------------------------------------ calibration


def plot_reliability(
    before: pd.DataFrame, after: pd.DataFrame | None, style: ModelStyle, *, label: str, n_text: str
) -> Chart:
    """How often the answer was right, by the probability given to it; counts a bin below.

    A bin of more images has a larger mark: the lone ones swing from 0 to 100 percent.
    before, after: core.metrics.calibration.reliability's tables, None where the model has no
    calibration.
    """
    figure = make_subplots(
        rows=2, cols=1, shared_xaxes=True, row_heights=[0.74, 0.26], vertical_spacing=0.06
    )
    figure.add_scatter(
        x=[0, 100],
        y=[0, 100],
        mode="lines",
        line={"color": NEUTRAL, "width": 2, "dash": "dot"},
        name="as promised",
        showlegend=False,
        hoverinfo="skip",
        row=1,
        col=1,
    )
    for table, name, hollow in ((before, "as served", True), (after, "calibrated", False)):
        if table is None:
            continue
        part = table[table["n"] > 0]
        figure.add_scatter(
            x=100 * part["confidence"],
            y=100 * part["accuracy"],
            error_y=whiskers(
                part["accuracy"],
                part["acc_low"],
                part["acc_high"],
                faint(style.colour, 0.5) if hollow else style.colour,
                thickness=1.5 if hollow else 3,
                width=4,
            ),
            mode="markers",
            marker={
                "color": style.colour,
                "symbol": style.symbol + ("-open" if hollow else ""),
                "size": _mark_sizes(part["n"]),
                "opacity": 1,
                "line": {"color": style.colour, "width": 2},
            },
            name=name,
            legendgroup=name,
            customdata=[
                [row.n, row.n_patients, range_text(row.acc_low, row.acc_high)]
                for row in part.itertuples()
            ],
            hovertemplate=f"<b>{name}</b><br>said %{{x:.1f}} %<br>right %{{y:.1f}} % "
            "(%{customdata[2]})<br>%{customdata[0]} images of %{customdata[1]} patients"
            "<extra></extra>",
            row=1,
            col=1,
        )
        figure.add_bar(
            x=50 * (table["low"] + table["high"]),
            y=table["n"],
            marker={
                "color": "rgba(0,0,0,0)" if hollow else faint(style.colour, 0.6),
                "line": {"color": style.colour, "width": 1.5},
            },
            name=name,
            legendgroup=name,
            showlegend=False,
            hovertemplate=f"<b>{name}</b><br>%{{y}} images<extra></extra>",
            row=2,
            col=1,
        )
    figure.update_xaxes(AXIS, range=[0, 102], dtick=20)
    figure.update_xaxes(title="probability of the answer, percent", row=2, col=1)
    figure.update_yaxes(AXIS, title="right, percent", range=[-2, 104], dtick=20, row=1, col=1)
    figure.update_yaxes(AXIS, title="images", nticks=4, row=2, col=1)
    finish_figure(figure, HEIGHT_PX + 40)
    figure.update_layout(
        barmode="group", bargap=0.08, bargroupgap=0, legend={"itemsizing": "constant"}
    )
    title = f"{label}: how sure, and how often right, {n_text}"
    words = ["as served " + _reliability_text(before)]
    if after is not None:
        words.append("calibrated " + _reliability_text(after))
    return Chart(figure, f"{title}. Said, right and images in a bin: {'; '.join(words)}.", title)


def _mark_sizes(counts: pd.Series) -> list[float]:
    """Diameters in px, the area by the images, none too small to see."""
    return list(6 + 12 * (counts / counts.max()) ** 0.5)


def _reliability_text(table: pd.DataFrame) -> str:
    part = table[table["n"] > 0]
    return ", ".join(
        f"{100 * row.confidence:.0f} % right {100 * row.accuracy:.0f} % "
        f"({range_text(row.acc_low, row.acc_high)}) of {row.n}"
        for row in part.itertuples()
    )


# ------------------------------------------------------------------------------ prediction sets

SIZE_WORDS = ("one class", "two classes", "three classes")
# Greys: no model's colour and no class's. Ink that reads on each.
_SIZE_LOOKS = (("#46525E", "#FFFFFF"), ("#93A0AC", "#12171D"), ("#D3DAE1", "#12171D"))


def size_name(size: int) -> str:
    """1 -> "one class"."""
    return SIZE_WORDS[size - 1] if size <= len(SIZE_WORDS) else f"{size} classes"


def plot_coverage(rows: pd.DataFrame, frame: ChartFrame, *, promised: float, n_text: str) -> Chart:
    """How often the set holds the true class: dots with whiskers, the promise as a line.

    rows: model, group (what is promised first, then others), value, low, high (fractions), n.
    """
    groups = list(dict.fromkeys(rows["group"]))
    shown = list(dict.fromkeys(rows["model"]))
    figure = go.Figure()
    figure.add_scatter(
        x=[100 * promised] * 2,
        y=[-0.5, 0.5],
        mode="lines",
        line={"color": NEUTRAL, "width": 3},
        name=f"promised, {100 * promised:.0f} %",
        hoverinfo="skip",
    )
    for model, offset in zip(shown, lane_offsets(len(shown)), strict=True):
        part = rows[(rows["model"] == model) & rows["value"].notna()]
        figure.add_scatter(
            x=100 * part["value"],
            y=[groups.index(group) + offset for group in part["group"]],
            error_x=row_whiskers(part, frame.style(model).colour),
            mode="markers",
            marker=frame.marker(model),
            name=frame.labels[model],
            customdata=[
                [row.group, row.n, range_text(row.low, row.high)] for row in part.itertuples()
            ],
            hovertemplate=f"<b>{frame.labels[model]}</b><br>%{{customdata[0]}}, "
            "n = %{customdata[1]}<br>%{x:.1f} % (%{customdata[2]})<extra></extra>",
        )
    lowest = round_down(rows[["low", "value"]].min().min())
    counts = rows.drop_duplicates("group").set_index("group")["n"]
    figure.update_xaxes(
        AXIS, title="sets that hold the true class, percent", range=[max(0, lowest - 2), 101]
    )
    draw_lanes(figure, [f"{group}<br>n = {counts[group]}" for group in groups])
    finish_figure(figure, 120 + len(groups) * (24 + 20 * len(shown)))
    title = f"How often the set holds the true class, {n_text}, with 95% intervals"
    words = "; ".join(
        f"{frame.labels[row.model]}, {row.group}, {100 * row.value:.1f} % "
        f"({range_text(row.low, row.high)})"
        for row in rows.dropna(subset=["value"]).itertuples()
    )
    return Chart(figure, f"{title}; promised: {100 * promised:.0f} %. {words}.", title)


def plot_set_sizes(
    sizes: Mapping[str, Mapping[int, int]], *, labels: Mapping[str, str], n_text: str
) -> Chart:
    """How many answers name one class, two or more: a bar a model.

    sizes: model -> {size: images}.
    """
    figure = go.Figure()
    names = [labels[model].replace(" · ", "<br>", 1) for model in sizes]
    for size in sorted({size for counts in sizes.values() for size in counts}):
        counts = [own.get(size, 0) for own in sizes.values()]
        fill, ink = _SIZE_LOOKS[min(size, len(_SIZE_LOOKS)) - 1]
        totals = [sum(own.values()) or 1 for own in sizes.values()]
        shares = [100 * n / total for n, total in zip(counts, totals, strict=True)]
        figure.add_bar(
            y=names,
            x=shares,
            orientation="h",
            name=size_name(size),
            marker={"color": fill, "line": {"color": NEUTRAL, "width": 1}},
            text=[str(n) if share >= 4 else "" for n, share in zip(counts, shares, strict=True)],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            textfont={"color": ink, "size": FONT_PX},
            customdata=counts,
            hovertemplate=f"{size_name(size)}: %{{customdata}} images, %{{x:.1f}} %<extra></extra>",
        )
    figure.update_xaxes(AXIS, title="answers, percent", range=[0, 100])
    figure.update_yaxes(autorange="reversed", showgrid=False)
    finish_figure(figure, 150 + 56 * len(sizes))
    figure.update_layout(barmode="stack", bargap=0.3, legend={"traceorder": "normal"})
    title = f"How many classes an answer names, {n_text}"
    words = "; ".join(
        f"{labels[model]}: " + ", ".join(f"{size_name(s)} {n}" for s, n in sorted(own.items()))
        for model, own in sizes.items()
    )
    return Chart(figure, f"{title}. {words}.", title)
