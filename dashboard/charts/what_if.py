"""How predictions move when an image is changed, and the image to drag a box on.

Numbers in, Plotly out; never imports streamlit.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image

from core.formatting import join, percent
from core.serving.what_if import Box
from dashboard.charts.style import (
    AXIS,
    NEUTRAL,
    TEXT,
    Chart,
    ModelStyle,
    draw_lanes,
    finish_figure,
    lane_offsets,
)

HARDLY = 0.01  # a move below one point in a hundred is called none
GRID = 24  # invisible markers a side: without marks inside, a dragged box reports nothing
IMAGE_HEIGHT_PX = 400


@dataclass(frozen=True)
class Movement:
    """One model's shares (C,) before and after a change, and the class predicted each time."""

    model: str
    title: str
    style: ModelStyle
    before: np.ndarray
    after: np.ndarray
    predicted_before: str
    predicted_after: str

    @property
    def largest(self) -> float:
        """The largest move of any class, 0 to 1."""
        return float(np.abs(np.asarray(self.after) - np.asarray(self.before)).max())


def movement_text(movement: Movement, class_names: Sequence[str]) -> str:
    """One model in words, such as "CNN: covid 81 % to 34 %, now normal (60 %)"."""
    place = list(class_names).index(movement.predicted_before)
    before, after = float(movement.before[place]), float(movement.after[place])
    words = f"{movement.title}: {movement.predicted_before} {percent(before, 0)}"
    if movement.predicted_after != movement.predicted_before:
        now = float(movement.after[list(class_names).index(movement.predicted_after)])
        return f"{words} to {percent(after, 0)}, now {movement.predicted_after} ({percent(now, 0)})"
    if movement.largest == 0:
        return words
    return f"{words}, unmoved" if movement.largest < HARDLY else f"{words} to {percent(after, 0)}"


def headline(movements: Sequence[Movement], class_names: Sequence[str]) -> str:
    """What the change did, in one sentence."""
    if not movements:
        return "No model could answer."
    flipped = [one.title for one in movements if one.predicted_after != one.predicted_before]
    n = len(movements)
    if flipped:
        which = "The answer changes" if n == 1 else f"{len(flipped)} of {n} answers change"
        return f"{which}: {join(flipped)}."
    most = max(movements, key=lambda one: one.largest)
    none = "The answer stays" if n == 1 else f"All {n} answers stay"
    if most.largest < HARDLY:
        return f"{none}, and no probability moves by a point."
    moves = np.asarray(most.after) - np.asarray(most.before)
    place = int(np.abs(moves).argmax())
    step = f"{class_names[place]} {100 * moves[place]:+.1f} points"
    return f"{none}; {most.title} moves most, {step}."


def plot_movement(
    movements: Sequence[Movement], class_names: Sequence[str], theme: str = "light"
) -> Chart:
    """One row a class and model: a line from before (hollow) to after (filled)."""
    figure = go.Figure()
    names = [str(name) for name in class_names]
    offsets = lane_offsets(len(movements), 0.72)
    for one, offset in zip(movements, offsets, strict=True):
        y = np.arange(len(names)) + offset
        before, after = 100 * np.asarray(one.before), 100 * np.asarray(one.after)
        figure.add_scatter(
            x=np.column_stack([before, after, np.full(len(names), np.nan)]).ravel(),
            y=np.repeat(y, 3),
            mode="lines",
            line={"color": one.style.colour, "width": 4},
            opacity=0.55,
            hoverinfo="skip",
            showlegend=False,
            legendgroup=one.title,
        )
        marker = {"color": one.style.colour, "size": 13}
        hollow = {**marker, "symbol": f"{one.style.symbol}-open", "line": {"width": 3}}
        filled = {**marker, "symbol": one.style.symbol}
        for when, x, look in (("before", before, hollow), ("after", after, filled)):
            figure.add_scatter(
                x=x,
                y=y,
                mode="markers",
                marker=look,
                name=one.title,
                legendgroup=one.title,
                showlegend=when == "after",
                customdata=names,
                hovertemplate=f"<b>{one.title}</b>, {when}<br>%{{customdata}}: %{{x:.1f}} %"
                "<extra></extra>",
            )
    ink = {"color": TEXT[theme]}
    ticks = [0, 25, 50, 75, 100]
    figure.update_xaxes(
        AXIS, range=[-3, 103], tickvals=ticks, ticktext=[f"{tick} %" for tick in ticks]
    )
    draw_lanes(figure, names)
    finish_figure(figure, 110 + len(names) * (24 + 15 * len(movements)))
    figure.update_layout(dragmode=False, legend={"itemclick": False, "itemdoubleclick": False})
    figure.update_xaxes(tickfont=ink, fixedrange=True)
    figure.update_yaxes(tickfont=ink, fixedrange=True)
    title = "Probabilities before (hollow) and after (filled)"
    each = [
        f"{one.title}: "
        + ", ".join(
            f"{name} {percent(b, 0)} to {percent(a, 0)}"
            for name, b, a in zip(names, one.before, one.after, strict=True)
        )
        for one in movements
    ]
    return Chart(figure, f"{title}. {'; '.join(each)}.", title)


def plot_image(pixels: np.ndarray, alt: str, box: Box | None = None) -> Chart:
    """Grey uint8 (h, w) or RGB, to drag a box on; both axes run from 0 to 100 percent.

    box is drawn as an outline.
    """
    height, width = pixels.shape[:2]
    places = (np.arange(GRID) + 0.5) * 100 / GRID
    x, y = (grid.ravel() for grid in np.meshgrid(places, places))
    unseen = {"marker": {"opacity": 0}}
    figure = go.Figure(
        go.Scatter(
            x=x,
            y=y,
            mode="markers",
            marker={"opacity": 0, "size": 6},
            selected=unseen,
            unselected=unseen,
            hoverinfo="none",
            showlegend=False,
        )
    )
    figure.add_layout_image(
        source=jpeg_address(pixels),
        xref="x",
        yref="y",
        x=0,
        y=0,
        sizex=100,
        sizey=100,
        sizing="stretch",
        layer="below",
    )
    if box is not None:
        figure.add_shape(
            type="rect",
            x0=100 * box.left,
            x1=100 * (box.left + box.width),
            y0=100 * box.top,
            y1=100 * (box.top + box.height),
            line={"color": "#FFFFFF", "width": 2, "dash": "dot"},
        )
    hidden = {"visible": False, "fixedrange": True}
    figure.update_xaxes(range=[0, 100], constrain="domain", **hidden)
    figure.update_yaxes(
        range=[100, 0],
        scaleanchor="x",
        scaleratio=height / width,
        constrain="domain",
        constraintoward="top",
        **hidden,
    )
    figure.update_layout(
        title_text="",
        height=IMAGE_HEIGHT_PX,
        margin={"l": 16, "r": 16, "t": 4, "b": 4},
        dragmode="select",
        newselection={"line": {"color": NEUTRAL, "width": 2}},
        plot_bgcolor="rgba(0,0,0,0)",
    )
    return Chart(figure, alt)


def dragged_box(selected: Mapping[str, Any] | None) -> Box | None:
    """The box of a chart's selection, cut to the image and rounded to whole percents; None
    where there is none or it has no area."""
    boxes = (selected or {}).get("selection", {}).get("box") or []
    if not boxes:
        return None
    (left, right), (top, bottom) = (
        sorted(min(100, max(0, round(float(value)))) for value in (ends[0], ends[-1]))
        for ends in (boxes[-1]["x"], boxes[-1]["y"])
    )
    if right <= left or bottom <= top:
        return None
    return Box(left / 100, top / 100, (right - left) / 100, (bottom - top) / 100)


def jpeg_address(pixels: np.ndarray) -> str:
    """uint8 (h, w) or (h, w, 3) as a data address."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
