"""Confusion matrices as figures that can be clicked. Numbers in, plotly out; no Streamlit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import plotly.graph_objects as go

from core.formatting import percent
from dashboard.charts.style import TEXT, two_lines
from dashboard.tables.predictions import shares

HEIGHT_PX = 430
# Violet: the colour of no model, no class and not of right and wrong. More is further from the
# page: darker on a light page, lighter on a dark one.
SCALES: dict[str, list[list[Any]]] = {
    "light": [[0, "#f6f4fb"], [0.5, "#a99bd2"], [1, "#45287f"]],
    "dark": [[0, "#211d31"], [0.5, "#6a57a8"], [1, "#d6ccf5"]],
}
_INK, _PAPER = "#1b1b22", "#ffffff"
NORMALISED_BY = {
    "counts": "number of images",
    "true": "each row sums to 100 %",
    "predicted": "each column sums to 100 %",
}


@dataclass(frozen=True)
class MatrixScale:
    """How cells become colours, one for all matrices that are shown together.

    normalise: a key of NORMALISED_BY; top: where the colours end; theme: "light" or "dark".
    """

    normalise: str = "true"
    top: float = 1.0
    theme: str = "light"

    @classmethod
    def over(cls, counts: Sequence[np.ndarray], normalise: str, theme: str) -> MatrixScale:
        """The scale that ends at 100 %, or at the largest of the counts."""
        if normalise != "counts":
            return cls(normalise, theme=theme)
        return cls(
            normalise, float(max((matrix.max() for matrix in counts), default=1)) or 1, theme
        )


def plot_confusion(
    counts: np.ndarray,
    class_names: Sequence[str],
    *,
    title: str,
    model: str,
    scale: MatrixScale = MatrixScale(),
    chosen: tuple[str, str] | None = None,
) -> go.Figure:
    """One matrix; counts (C, C), rows true, columns predicted.

    A click on a heat map's cell reaches nobody, so square markers lie over the cells; their
    customdata is [model, true, predicted, count] and the hover that they need stays on.
    """
    values = shares(counts, scale.normalise)
    names = [str(name) for name in class_names]
    figure = go.Figure()
    figure.add_trace(
        go.Heatmap(
            z=values,
            x=names,
            y=names,
            zmin=0,
            zmax=scale.top,
            colorscale=SCALES[scale.theme],
            showscale=False,
            xgap=2,
            ygap=2,
            hoverinfo="skip",
        )
    )
    figure.add_trace(_markers(counts, values, names, model, scale))
    if chosen is not None:
        x, y = names.index(chosen[1]), names.index(chosen[0])
        figure.add_shape(
            type="rect",
            x0=x - 0.48,
            x1=x + 0.48,
            y0=y - 0.48,
            y1=y + 0.48,
            line={"width": 5, "color": _PAPER if scale.theme == "dark" else _INK},
        )
    figure.update_layout(
        title={
            "text": two_lines(title, f"{NORMALISED_BY[scale.normalise]}, n = {int(counts.sum())}"),
            "x": 0,
            "y": 0.96,
            "yanchor": "top",
            "font": {"size": 17},
        },
        height=HEIGHT_PX,
        margin={"l": 8, "r": 8, "t": 70, "b": 8},
        showlegend=False,
        dragmode=False,
        clickmode="event+select",
        hovermode="closest",
        # The nearest marker takes the click wherever in its cell the pointer is.
        hoverdistance=-1,
    )
    font = {"size": 16, "color": TEXT[scale.theme]}
    axes = {
        "fixedrange": True,
        "ticks": "",
        "showgrid": False,
        "zeroline": False,
        "automargin": True,
        "tickfont": font,
        "title_font": font,
    }
    # Fixed ranges: the markers' size would widen them otherwise.
    end = len(names) - 0.5
    figure.update_xaxes(title="Predicted", range=[-0.5, end], **axes)
    figure.update_yaxes(title="True", range=[end, -0.5], tickangle=-90, **axes)
    return figure


def _markers(
    counts: np.ndarray,
    values: np.ndarray,
    names: list[str],
    model: str,
    scale: MatrixScale,
) -> go.Scatter:
    row_shares = shares(counts, "true")
    cells = [(i, j) for i in range(len(names)) for j in range(len(names))]
    texts, colours, hovers = [], [], []
    for i, j in cells:
        n = int(counts[i, j])
        share = row_shares[i, j] if scale.normalise == "counts" else values[i, j]
        texts.append(
            f"<b>{n}</b><br>{percent(share, unit=' %')}"
            if scale.normalise == "counts"
            else f"<b>{percent(share, unit=' %')}</b><br>{n}"
        )
        level = 0.0 if np.isnan(values[i, j]) else values[i, j] / scale.top
        colours.append(ink_on(level, scale.theme))
        hovers.append(
            f"true {names[i]}, predicted {names[j]}<br>{n} images<br>"
            f"{percent(row_shares[i, j], unit=' %')} of true {names[i]}<br>"
            f"{percent(shares(counts, 'predicted')[i, j], unit=' %')} of predicted {names[j]}"
        )
    invisible = {"marker": {"opacity": 0}}
    return go.Scatter(
        x=[names[j] for _, j in cells],
        y=[names[i] for i, _ in cells],
        mode="markers+text",
        text=texts,
        textfont={"size": 16, "color": colours},
        marker={"symbol": "square", "size": 60, "opacity": 0},
        selected=invisible,
        unselected=invisible,
        customdata=[[model, names[i], names[j], int(counts[i, j])] for i, j in cells],
        hovertext=hovers,
        hovertemplate="%{hovertext}<extra></extra>",
    )


def describe_confusion(
    counts: np.ndarray, class_names: Sequence[str], title: str, normalise: str
) -> str:
    """The matrix in words, for the chart's alt text."""
    total = int(counts.sum())
    right = int(np.trace(counts))
    off = [
        (int(counts[i, j]), f"{class_names[i]} predicted as {class_names[j]}")
        for i in range(len(class_names))
        for j in range(len(class_names))
        if i != j
    ]
    n, most = max(off, default=(0, ""))
    end = f" Most frequent mistake: {most}, {n} images." if n else " No mistakes."
    return (
        f"Confusion matrix of {title}, {NORMALISED_BY[normalise]}: {right} of {total} images on "
        f"the diagonal.{end}"
    )


def ink_on(level: float, theme: str) -> str:
    """Black or white, whichever reads better on the scale's colour at `level` (0 to 1).

    By contrast as WCAG 2.2 defines it (relative luminance).
    """
    stops = SCALES[theme]
    channels = []
    for channel in range(3):
        ends = [int(colour[1 + 2 * channel : 3 + 2 * channel], 16) for _, colour in stops]
        value = np.interp(level, [place for place, _ in stops], ends) / 255
        channels.append(value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4)
    luminance = float(np.dot(channels, (0.2126, 0.7152, 0.0722)))
    return _PAPER if 1.05 / (luminance + 0.05) > (luminance + 0.05) / 0.06 else _INK
