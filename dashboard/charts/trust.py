"""Figures of the page Trust: floors, blackout, probe, perturbation, subgroups, other images.

As in dashboard.charts.base, every function returns a `Chart`, and nothing here imports streamlit.
All but one are rows of dots with whiskers. A row's name stands above its line and not beside it:
names are long, and beside the line they would take half of a phone's width; for the same reason the
models' marks are told in words above a chart and not in its legend. Figures are put together from
plain objects and made in one go: there are many on the page, and Plotly checks at every step.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from core.formatting import interval_text
from dashboard.charts.base import FAINT, FONT_PX, NEUTRAL, Chart, finish_figure, model_style
from dashboard.tables.metrics import range_text

POINT_COLUMNS = ["row", "model", "value", "low", "high", "hollow", "faded", "note"]
REFERENCE_COLUMNS = ["row", "name", "kind", "value", "low", "high"]
_LINE_PX, _LANE_PX, _GAP_PX = 19, 17, 10
_NAME_LETTERS = 44  # a longer name of a row is broken: a phone shows no more in one line
_MARK_PX = 13
_REFERENCE_SYMBOLS = ("x", "cross", "asterisk-open")
_HOVER = "<b>%{customdata[0]}</b><br>%{x:.1f} %<br>95% interval %{customdata[1]}"


@dataclass(frozen=True)
class ChartFrame:
    """What all marks of one chart have in common. labels: model -> name for people."""

    models: Sequence[str]
    labels: Mapping[str, str]


def plot_dot_rows(
    points: pd.DataFrame,
    look: ChartFrame,
    *,
    title: str,
    axis: str,
    references: pd.DataFrame | None = None,
    line: tuple[str, float] | None = None,
    filled_name: str = "",
    hollow_name: str = "",
) -> Chart:
    """Rows of dots with whiskers, one mark a model and row.

    points: POINT_COLUMNS, fractions, in the order to show; hollow marks are a second figure of the
    same model; faded ones rest on few images; note: what the hover says further. references:
    REFERENCE_COLUMNS, grey crosses that no model made. line: (name, fraction), drawn across.
    """
    marks = _known(points, look.models)
    others = [] if references is None else _known(references, None)
    shape = _make_shape(marks, others, look.models)
    traces: list[dict] = []
    if line is not None:
        name = _safe(f"{line[0]} {100 * line[1]:.1f} %")
        traces.append(_legend_entry(name, mode="lines", line={"color": NEUTRAL, "dash": "dot"}))
    traces += _reference_traces(others, shape)
    for model in look.models:
        own = [mark for mark in marks if mark["model"] == model]
        traces += _model_traces(own, model, look, shape)
    if any(mark["hollow"] for mark in marks):
        for words, symbol in ((filled_name, "circle"), (hollow_name, "circle-open")):
            style = {"color": NEUTRAL, "symbol": symbol, "size": _MARK_PX, "line": {"width": 3}}
            traces.append(_legend_entry(_safe(words), mode="markers", marker=style))
    ends = [end for m in [*marks, *others] for end in (m["value"], m["low"]) if end == end]
    figure = go.Figure(
        data=traces,
        layout={
            "shapes": _lines(shape, line),
            "annotations": [_row_name(shape, marks, row) for row in shape.rows],
            "xaxis": {
                "title": {"text": axis},
                "range": _percent_range([*ends, *([line[1]] if line else [])]),
                "gridcolor": FAINT,
                "zeroline": False,
            },
            "yaxis": {
                "range": [len(shape.rows) - 0.5, -0.5],
                "showticklabels": False,
                "showgrid": False,
                "zeroline": False,
            },
        },
    )
    # On a phone each entry of the legend has a line of its own.
    entries = sum(bool(trace.get("showlegend")) for trace in traces)
    finish_figure(figure, 90 + 24 * entries + len(shape.rows) * shape.row_px)
    if not entries:
        figure.update_layout(margin_t=10)
    return Chart(figure, _alt(title, marks, others, shape, look, filled_name, hollow_name), title)


def _known(table: pd.DataFrame, models: Sequence[str] | None) -> list[dict[str, Any]]:
    """The rows that have a figure, as plain objects."""
    rows = table.to_dict("records")
    return [
        row
        for row in rows
        if row["value"] == row["value"] and (models is None or row["model"] in models)
    ]


@dataclass(frozen=True)
class _Shape:
    """Where things stand: each row has a head for its name and beneath it a lane a mark.

    names: row -> its name in lines; lanes: row -> key of a mark -> its lane, from above.
    """

    rows: list[str]
    names: Mapping[str, str]
    lanes: Mapping[str, Mapping[tuple, int]]

    @property
    def head_px(self) -> int:
        lines = [name.count("<br>") + 1 for name in self.names.values()]
        return _LINE_PX * max(lines, default=1)

    @property
    def n_lanes(self) -> int:
        return max((len(found) for found in self.lanes.values()), default=1)

    @property
    def row_px(self) -> int:
        return self.head_px + _LANE_PX * self.n_lanes + _GAP_PX

    def height(self, row: str, key: tuple) -> float:
        """On the axis, where row k runs from k - 0.5 to k + 0.5."""
        spare = (self.n_lanes - len(self.lanes[row])) / 2
        down = self.head_px + _LANE_PX * (spare + self.lanes[row][key] + 0.5)
        return self.rows.index(row) - 0.5 + down / self.row_px


def _make_shape(marks: list[dict], others: list[dict], models: Sequence[str]) -> _Shape:
    rows = list(dict.fromkeys(mark["row"] for mark in [*marks, *others]))
    lanes = {}
    for row in rows:
        there = {(mark["model"], mark["hollow"]) for mark in marks if mark["row"] == row}
        keys = [(m, hollow) for m in models for hollow in (False, True) if (m, hollow) in there]
        keys += dict.fromkeys(("", other["name"]) for other in others if other["row"] == row)
        lanes[row] = {key: place for place, key in enumerate(keys)}
    return _Shape(rows, {row: _wrap(row, _NAME_LETTERS) for row in rows}, lanes)


def _lines(shape: _Shape, line: tuple[str, float] | None) -> list[dict]:
    """Thin lines between the rows, and the dotted one across them all."""
    between = [
        {
            "type": "line", "layer": "below", "xref": "paper", "x0": 0, "x1": 1,
            "y0": place - 0.5, "y1": place - 0.5, "line": {"color": FAINT, "width": 1},
        }
        for place in range(1, len(shape.rows))
    ]  # fmt: skip
    if line is None:
        return between
    across = {
        "type": "line", "layer": "below", "yref": "paper", "y0": 0, "y1": 1,
        "x0": 100 * line[1], "x1": 100 * line[1],
        "line": {"color": NEUTRAL, "width": 2, "dash": "dot"},
    }  # fmt: skip
    return [*between, across]


def _row_name(shape: _Shape, marks: list[dict], row: str) -> dict:
    own = [mark["faded"] for mark in marks if mark["row"] == row]
    return {
        "x": 0, "xref": "paper", "xanchor": "left", "y": shape.rows.index(row) - 0.5,
        "yanchor": "top", "text": shape.names[row], "showarrow": False, "align": "left",
        "opacity": 0.6 if own and all(own) else 1, "font": {"size": FONT_PX - 2},
    }  # fmt: skip


def _legend_entry(name: str, **look: Any) -> dict:
    return {"type": "scatter", "x": [None], "y": [None], "name": name, "showlegend": True, **look}


def _reference_traces(others: list[dict], shape: _Shape) -> list[dict]:
    traces = []
    for place, kind in enumerate(dict.fromkeys(other["kind"] for other in others)):
        part = [other for other in others if other["kind"] == kind]
        symbol = _REFERENCE_SYMBOLS[place % len(_REFERENCE_SYMBOLS)]
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [100 * other["value"] for other in part],
                "y": [shape.height(other["row"], ("", other["name"])) for other in part],
                "error_x": _whiskers(part, NEUTRAL),
                "marker": {"color": NEUTRAL, "symbol": symbol, "size": 11},
                "name": _safe(kind),
                "showlegend": True,
                "customdata": [[_safe(o["name"]), _range(o)] for o in part],
                "hovertemplate": f"{_HOVER}<extra></extra>",
            }
        )
    return traces


def _model_traces(own: list[dict], model: str, look: ChartFrame, shape: _Shape) -> list[dict]:
    """The model's filled and hollow marks, those that rest on few images paler."""
    style, name = model_style(model, look.models), _safe(look.labels[model])
    traces = []
    for hollow, faded in product((False, True), repeat=2):
        part = [mark for mark in own if mark["hollow"] == hollow and mark["faded"] == faded]
        if not part:
            continue
        colour = _pale(style.colour, 0.35) if faded else style.colour
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [100 * mark["value"] for mark in part],
                "y": [shape.height(mark["row"], (model, hollow)) for mark in part],
                "error_x": _whiskers(part, colour),
                "marker": {
                    "color": colour,
                    "symbol": f"{style.symbol}-open" if hollow else style.symbol,
                    "size": _MARK_PX,
                    "line": {"width": 3 if hollow else 0, "color": colour},
                },
                "name": name,
                "showlegend": False,
                "customdata": [
                    [f"{name}</b><br><b>{_safe(m['row'])}", _range(m), _safe(m["note"])]
                    for m in part
                ],
                "hovertemplate": f"{_HOVER}<br>%{{customdata[2]}}<extra></extra>",
            }
        )
    return traces


def _pale(colour: str, opacity: float) -> str:
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return f"rgba({red},{green},{blue},{opacity})"


def _whiskers(part: list[dict], colour: str) -> dict:
    def reach(mark: dict, end: str) -> float:
        length = abs(mark[end] - mark["value"])
        return 100 * length if length == length else 0

    return {
        "type": "data", "symmetric": False, "color": colour, "thickness": 3, "width": 5,
        "array": [reach(mark, "high") for mark in part],
        "arrayminus": [reach(mark, "low") for mark in part],
    }  # fmt: skip


def _percent_range(fractions: Sequence[float]) -> list[float]:
    """From the ten percent below the lowest to just above 100, with room for marks at the ends."""
    start = 10 * int(10 * min(fractions, default=0))
    return [start - 2, 102]


def _range(row: Mapping[str, Any]) -> str:
    return range_text(row["low"], row["high"])


def _safe(text: object) -> str:
    """Text from a file inside a figure: no markup of Plotly's, no template, no formula."""
    return html.escape(str(text), quote=False).replace("%{", "% {").replace("$", "&#36;")


def _wrap(text: str, width: int) -> str:
    """Plotly wraps nothing: break the line where it would be cut on a phone."""
    lines = [""]
    for word in _safe(text).split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "<br>".join(lines)


def _alt(
    title: str,
    marks: list[dict],
    others: list[dict],
    shape: _Shape,
    look: ChartFrame,
    filled: str,
    hollow: str,
) -> str:
    said = []
    for row in shape.rows:
        words = [
            " ".join(
                filter(
                    None,
                    (look.labels[m["model"]], hollow if m["hollow"] else filled, _figure(m)),
                )
            )
            for m in marks
            if m["row"] == row
        ]
        words += [f"{o['name']} {_figure(o)}" for o in others if o["row"] == row]
        said.append(f"{row}: {', '.join(words)}")
    return f"{title}. {'. '.join(said) or 'No figure'}."


def _figure(row: Mapping[str, Any]) -> str:
    return f"{100 * row['value']:.1f} % ({interval_text(row)})"


# ------------------------------------------------------------------------------ perturbation


def plot_perturbation(
    curves: pd.DataFrame, look: ChartFrame, *, title: str, unit: str, neutral: float, lowest: float
) -> Chart:
    """Accuracy against the strength of one kind of change, with bands, one line a model.

    curves: model, strength, value, low, high (fractions), the unaltered image at `neutral`
    included. Strengths stand at equal distances; lowest: where the axis begins, as a fraction.
    """
    rows = sorted(_known(curves, look.models), key=lambda row: row["strength"])
    strengths = sorted({row["strength"] for row in rows})
    traces: list[dict] = []
    words = []
    for model in look.models:
        own = [row for row in rows if row["model"] == model]
        if not own:
            continue
        style, name = model_style(model, look.models), _safe(look.labels[model])
        traces += [
            _band([row for row in own if row["low"] == row["low"]], strengths, style.colour),
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": [strengths.index(row["strength"]) for row in own],
                "y": [100 * row["value"] for row in own],
                "line": {"color": style.colour, "width": 2},
                "marker": {"symbol": style.symbol, "size": 9, "color": style.colour},
                "name": name,
                "showlegend": False,
                "customdata": [[f"{row['strength']:g}", _range(row)] for row in own],
                "hovertemplate": f"<b>{name}</b><br>%{{customdata[0]}}: %{{y:.1f}} %"
                "<br>95% interval %{customdata[1]}<extra></extra>",
            },
        ]
        figures = ", ".join(f"{_figure(row)} at {row['strength']:g}" for row in own)
        words.append(f"{look.labels[model]} {figures}")
    at = strengths.index(neutral) if neutral in strengths else 0
    figure = go.Figure(
        data=traces,
        layout={
            "shapes": [
                {
                    "type": "line", "layer": "below", "yref": "paper", "y0": 0, "y1": 1,
                    "x0": at, "x1": at, "line": {"color": NEUTRAL, "width": 1, "dash": "dot"},
                }
            ],
            "xaxis": {
                "tickvals": list(range(len(strengths))),
                "ticktext": [f"{s:g}" for s in strengths],
                "showgrid": False,
                "zeroline": False,
                "fixedrange": True,
            },
            "yaxis": {
                "range": _percent_range([lowest]),
                "gridcolor": FAINT,
                "zeroline": False,
                "fixedrange": True,
            },
        },
    )  # fmt: skip
    finish_figure(figure, 240)
    figure.update_layout(margin={"l": 10, "r": 10, "t": 10, "b": 30})
    said = f"{title}, accuracy by {unit}, unaltered at {neutral:g}: {'; '.join(words)}."
    return Chart(figure, said, title)


def _band(own: list[dict], strengths: list[float], colour: str) -> dict:
    x = [strengths.index(row["strength"]) for row in own]
    return {
        "type": "scatter", "mode": "lines", "fill": "toself", "line": {"width": 0},
        "x": x + x[::-1],
        "y": [100 * row["high"] for row in own] + [100 * row["low"] for row in own[::-1]],
        "fillcolor": _pale(colour, 0.13), "hoverinfo": "skip", "showlegend": False,
    }  # fmt: skip
