"""How all figures look, and the parts that several draw; nothing here imports streamlit.

Every chart is a `Chart`: the figure and the words for those who cannot see it. Titles say what is
counted or divided by what, and n. Colours hold in both themes: a model keeps its colour and its
shape on every page, classes have colours of their own. The look is in each figure's layout and in
no Plotly template: Streamlit's theme writes its own fonts, margins and grids over a template's.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go

FONT_PX = 16
NEUTRAL = "rgba(128,128,128,0.75)"
FAINT = "rgba(128,128,128,0.25)"
# Streamlit greys a chart's text; from across a room it has to be the page's own.
TEXT = {"light": "#1b1b22", "dark": "#f2f2f5"}
AXIS: dict[str, Any] = {"gridcolor": FAINT, "zeroline": False}
_TICKS: dict[str, Any] = {"automargin": True, "tickfont": {"size": FONT_PX - 2}}
_LAYOUT: dict[str, Any] = {
    "title": {"text": ""},  # the theme writes "undefined" over a figure that has none
    "font": {"size": FONT_PX},
    "margin": {"l": 10, "r": 20, "t": 40, "b": 50},
    "hoverlabel": {"font": {"size": FONT_PX - 1}},
    "legend": {
        "orientation": "h",
        "yanchor": "bottom",
        "y": 1.02,
        "x": 0,
        "xanchor": "left",
        "font": {"size": FONT_PX - 2},
    },
}


@dataclass(frozen=True)
class Chart:
    """A figure, its alternative text and its title.

    The title is words beside the figure, not inside it: Plotly does not wrap titles, so inside
    one of them is cut on a phone or lies over the legend.
    """

    figure: go.Figure
    alt: str
    title: str = ""


@dataclass(frozen=True)
class ModelStyle:
    """How a model looks everywhere. theme_colour: its name in Streamlit's theme; glyph: its
    shape as a character."""

    colour: str
    theme_colour: str
    symbol: str
    glyph: str


# Okabe & Ito's colours for the colour-blind; the theme's named colours are set to the same.
MODEL_STYLES = {
    "cnn": ModelStyle("#E69F00", "orange", "circle", "●"),
    "resnet50": ModelStyle("#0072B2", "blue", "square", "■"),
    "mobilenetv2": ModelStyle("#009E73", "green", "diamond", "◆"),
    "mobilenetv2_random": ModelStyle("#CC79A7", "violet", "triangle-up", "▲"),
    "ensemble": ModelStyle("#808080", "gray", "star", "★"),
}
_OTHER_STYLES = (
    ModelStyle("#D55E00", "red", "triangle-down", "▼"),
    ModelStyle("#B8A800", "yellow", "hexagon", "⬢"),
    ModelStyle("#808080", "gray", "pentagon", "⬟"),
)
CLASS_COLOURS = {"covid": "#A65B4B", "normal": "#9FB1BD", "pneumonia": "#6F62B5"}
_OTHER_CLASS_COLOURS = ("#7D8F3F", "#C9B79C", "#5B6770", "#B08BBB")


def model_style(model: str, models: Sequence[str] = ()) -> ModelStyle:
    """The model's style; unknown names take the spare ones in the order of `models`."""
    if model in MODEL_STYLES:
        return MODEL_STYLES[model]
    unknown = [name for name in models if name not in MODEL_STYLES]
    place = unknown.index(model) if model in unknown else 0
    return _OTHER_STYLES[place % len(_OTHER_STYLES)]


def class_colour(name: str, class_names: Sequence[str]) -> str:
    """The class's colour; unknown names take the spare ones in order."""
    if name in CLASS_COLOURS:
        return CLASS_COLOURS[name]
    unknown = [c for c in class_names if c not in CLASS_COLOURS]
    return _OTHER_CLASS_COLOURS[unknown.index(name) % len(_OTHER_CLASS_COLOURS)]


def faint(colour: str, opacity: float) -> str:
    """#rrggbb -> the same colour, see-through."""
    red, green, blue = (int(colour[place : place + 2], 16) for place in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


@dataclass(frozen=True)
class ChartFrame:
    """The run's models, whose order decides spare looks, and their names for people."""

    models: Sequence[str]
    labels: Mapping[str, str]

    def shown(self, models: Iterable[str]) -> list[str]:
        """Those of the run's models that are among `models`, in the run's order."""
        there = set(models)
        return [model for model in self.models if model in there]

    def style(self, model: str) -> ModelStyle:
        """How this model looks."""
        return model_style(model, self.models)

    def marker(self, model: str, size: int = 13, *, hollow: bool = False) -> dict[str, Any]:
        """The model's mark, as Plotly wants it; size in px."""
        style = self.style(model)
        symbol = f"{style.symbol}-open" if hollow else style.symbol
        return {"color": style.colour, "symbol": symbol, "size": size}


# ------------------------------------------------------------------------------ layout


def finish_figure(figure: go.Figure, height: int) -> None:
    """The look that all charts share; height in px."""
    figure.update_layout(_LAYOUT, height=height)
    figure.update_xaxes(_TICKS)
    figure.update_yaxes(_TICKS)


def still_layout(height: int, *, legend: bool = False) -> dict[str, Any]:
    """The same, whole at once (updates take a page's time), for charts that cannot be zoomed."""
    axis = AXIS | _TICKS | {"fixedrange": True}
    layout = _LAYOUT | {"height": height, "dragmode": False, "showlegend": legend}
    if not legend:
        layout["margin"] = _LAYOUT["margin"] | {"t": 16}
    return layout | {"xaxis": dict(axis), "yaxis": dict(axis)}


def lanes(names: Sequence[str]) -> dict[str, Any]:
    """The y axis of rows of marks: row k from k - 0.5 to k + 0.5, the first on top."""
    return {
        "tickvals": list(range(len(names))),
        "ticktext": list(names),
        "range": [len(names) - 0.5, -0.5],
        "showgrid": False,
        "zeroline": False,
    }


def lane_borders(n: int) -> list[dict[str, Any]]:
    """Thin lines between n rows."""
    line: dict[str, Any] = {"type": "line", "layer": "below", "xref": "x domain", "x0": 0, "x1": 1}
    line["line"] = {"color": FAINT, "width": 1}
    return [{**line, "y0": y - 0.5, "y1": y - 0.5} for y in range(1, n)]


def draw_lanes(figure: go.Figure, names: Sequence[str]) -> None:
    """Name the rows and draw the lines between them."""
    figure.update_yaxes(lanes(names))
    for border in lane_borders(len(names)):
        figure.add_shape(border)


def lane_offsets(n: int, room: float = 0.7) -> list[float]:
    """Where n marks stand in their row, in rows from its middle."""
    return [(place - (n - 1) / 2) * room / max(n, 1) for place in range(n)]


def legend_entry(name: str, **look: Any) -> dict[str, Any]:
    """A trace that only stands in the legend."""
    return {"type": "scatter", "x": [None], "y": [None], "name": name, "showlegend": True, **look}


def round_down(fraction: float | None, room: float = 0) -> float:
    """Where an axis in percent begins: the ten below a fraction less `room` percent, 0 if none."""
    if fraction is None or math.isnan(fraction):
        return 0.0
    return max(0.0, 10 * ((100 * fraction - room) // 10))


def log_range(values: pd.Series, room: float = 2) -> list[float]:
    """A logarithmic axis from the lowest value / room to the highest * room."""
    if not len(values) or values.min() <= 0:
        return [0, 2]
    return [math.log10(values.min() / room), math.log10(values.max() * room)]


# ------------------------------------------------------------------------------ parts


def whiskers(
    value: Any, low: Any, high: Any, colour: str, *, thickness: float = 3, width: float = 6
) -> dict[str, Any]:
    """Error bars in percent, of fractions: one or many. Where an end is not known there is none."""
    value, low, high = (np.atleast_1d(np.asarray(one, dtype=float)) for one in (value, low, high))
    return {
        "type": "data",
        "symmetric": False,
        "array": np.nan_to_num(100 * (high - value)).tolist(),
        "arrayminus": np.nan_to_num(100 * (value - low)).tolist(),
        "color": colour,
        "thickness": thickness,
        "width": width,
    }


def row_whiskers(rows: pd.DataFrame, colour: str, **look: float) -> dict[str, Any]:
    """whiskers of a table's columns value, low and high."""
    return whiskers(rows["value"], rows["low"], rows["high"], colour, **look)


def safe(text: object) -> str:
    """Text from a file inside a figure: no markup of Plotly's, no template, no formula."""
    return html.escape(str(text), quote=False).replace("%{", "% {").replace("$", "&#36;")


def break_lines(words: Iterable[str], width: int) -> str:
    """Words over lines of at most `width` characters: Plotly wraps nothing, a phone cuts it."""
    lines = [""]
    for word in words:
        if lines[-1] and len(lines[-1]) + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}" if lines[-1] else word
    return "<br>".join(lines)


def two_lines(title: str, subtitle: str) -> str:
    """A chart's title with a smaller second line, as Plotly's markup."""
    return f"{title}<br><span style='font-size:14px;font-weight:normal'>{subtitle}</span>"
