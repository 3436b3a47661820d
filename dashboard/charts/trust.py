"""Figures of Reliability checks: baselines, blackout, probe, perturbation, subgroups, other images.

All but one are rows of dots with whiskers. A row's name stands above its line and not beside it:
names are long, and beside the line they would take half of a phone's width; for the same reason the
models' marks are told in words above a chart and not in its legend. Figures are put together from
plain objects and made in one go: there are many on the page, and Plotly checks at every step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from core.formatting import interval_text
from dashboard.charts.style import (
    AXIS,
    FONT_PX,
    NEUTRAL,
    Chart,
    ChartFrame,
    break_lines,
    faint,
    finish_figure,
    lane_borders,
    lanes,
    legend_entry,
    round_down,
    safe,
    whiskers,
)
from dashboard.tables.metrics import range_text

_LINE_PX, _LANE_PX, _GAP_PX = 19, 17, 10
_NAME_LETTERS = 43  # a longer name of a row is broken: a phone shows no more in one line
_MARK_PX = 13
_REFERENCE_SYMBOLS = ("x", "cross", "asterisk-open")
_HOVER = "<b>%{customdata[0]}</b><br>%{x:.1f} %<br>95% interval %{customdata[1]}"


def plot_dot_rows(
    points: pd.DataFrame,
    frame: ChartFrame,
    *,
    title: str,
    axis: str,
    references: pd.DataFrame | None = None,
    line: tuple[str, float] | None = None,
    kinds: tuple[str, str] = ("", ""),
) -> Chart:
    """Rows of dots with whiskers, one mark a model and row.

    points, references: dashboard.tables.trust's, fractions, in the order to show. Of points,
    hollow marks are a second figure of the same model, faded ones rest on few images, and note is
    what the hover says further; references are grey crosses that no model made. line: (name,
    fraction), drawn across. kinds: what filled and what hollow marks are.
    """
    marks = _known(points, frame.models)
    others = [] if references is None else _known(references, None)
    shape = _make_shape(marks, others, frame.models)
    traces: list[dict] = []
    if line is not None:
        name = safe(f"{line[0]} {100 * line[1]:.1f} %")
        traces.append(legend_entry(name, mode="lines", line={"color": NEUTRAL, "dash": "dot"}))
    traces += _reference_traces(others, shape)
    for model in frame.models:
        own = [mark for mark in marks if mark["model"] == model]
        traces += _model_traces(own, model, frame, shape)
    if any(mark["hollow"] for mark in marks):
        for words, symbol in zip(kinds, ("circle", "circle-open"), strict=True):
            style = {"color": NEUTRAL, "symbol": symbol, "size": _MARK_PX, "line": {"width": 3}}
            traces.append(legend_entry(safe(words), mode="markers", marker=style))
    ends = [end for m in [*marks, *others] for end in (m["value"], m["low"]) if not math.isnan(end)]
    figure = go.Figure(
        data=traces,
        layout={
            "shapes": _lines(shape, line),
            "annotations": [_row_name(shape, marks, row) for row in shape.rows],
            "xaxis": AXIS
            | {
                "title": {"text": axis},
                "range": _percent_range([*ends, *([line[1]] if line else [])]),
            },
            "yaxis": lanes([""] * len(shape.rows)) | {"showticklabels": False},
        },
    )
    # On a phone each entry of the legend has a line of its own.
    entries = sum(bool(trace.get("showlegend")) for trace in traces)
    finish_figure(figure, 90 + 24 * entries + len(shape.rows) * shape.row_px)
    if not entries:
        figure.update_layout(margin_t=10)
    return Chart(figure, _alt(title, marks, others, shape, frame, kinds), title)


def _known(table: pd.DataFrame, models: Sequence[str] | None) -> list[dict[str, Any]]:
    """The rows that have a figure, as plain objects."""
    rows = table.dropna(subset=["value"]).to_dict("records")
    return [row for row in rows if models is None or row["model"] in models]


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
    return _Shape(rows, {row: break_lines(safe(row).split(), _NAME_LETTERS) for row in rows}, lanes)


def _lines(shape: _Shape, line: tuple[str, float] | None) -> list[dict]:
    """Thin lines between the rows, and the dotted one across them all."""
    across = [] if line is None else [_dotted_line(100 * line[1], 2)]
    return lane_borders(len(shape.rows)) + across


def _dotted_line(x: float, width: int) -> dict:
    """A vertical line through the whole chart."""
    line = {"color": NEUTRAL, "width": width, "dash": "dot"}
    ends = {"x0": x, "x1": x, "yref": "paper", "y0": 0, "y1": 1}
    return {"type": "line", "layer": "below", "line": line, **ends}


def _row_name(shape: _Shape, marks: list[dict], row: str) -> dict:
    own = [mark["faded"] for mark in marks if mark["row"] == row]
    place = {"x": 0, "xref": "paper", "xanchor": "left", "y": shape.rows.index(row) - 0.5}
    text = {"text": shape.names[row], "align": "left", "font": {"size": FONT_PX - 2}}
    faded = bool(own) and all(own)
    return place | text | {"yanchor": "top", "showarrow": False, "opacity": 0.6 if faded else 1}


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
                "error_x": _mark_whiskers(part, NEUTRAL),
                "marker": {"color": NEUTRAL, "symbol": symbol, "size": 11},
                "name": safe(kind),
                "showlegend": True,
                "customdata": [[safe(o["name"]), _range(o)] for o in part],
                "hovertemplate": f"{_HOVER}<extra></extra>",
            }
        )
    return traces


def _model_traces(own: list[dict], model: str, frame: ChartFrame, shape: _Shape) -> list[dict]:
    """The model's filled and hollow marks, those that rest on few images paler."""
    style, name = frame.style(model), safe(frame.labels[model])
    traces = []
    for hollow, faded in product((False, True), repeat=2):
        part = [mark for mark in own if mark["hollow"] == hollow and mark["faded"] == faded]
        if not part:
            continue
        colour = faint(style.colour, 0.35) if faded else style.colour
        marker = frame.marker(model, _MARK_PX, hollow=hollow) | {"color": colour}
        traces.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [100 * mark["value"] for mark in part],
                "y": [shape.height(mark["row"], (model, hollow)) for mark in part],
                "error_x": _mark_whiskers(part, colour),
                "marker": marker | {"line": {"width": 3 if hollow else 0, "color": colour}},
                "name": name,
                "showlegend": False,
                "customdata": [
                    [f"{name}</b><br><b>{safe(m['row'])}", _range(m), safe(m["note"])] for m in part
                ],
                "hovertemplate": f"{_HOVER}<br>%{{customdata[2]}}<extra></extra>",
            }
        )
    return traces


def _mark_whiskers(marks: list[dict], colour: str) -> dict:
    value, low, high = ([mark[key] for mark in marks] for key in ("value", "low", "high"))
    return whiskers(value, low, high, colour, width=5)


def _percent_range(fractions: Sequence[float]) -> list[float]:
    """From the ten percent below the lowest to just above 100, with room for marks at the ends."""
    return [round_down(min(fractions, default=0)) - 2, 102]


def _range(row: Mapping[str, Any]) -> str:
    return range_text(row["low"], row["high"])


def _alt(
    title: str,
    marks: list[dict],
    others: list[dict],
    shape: _Shape,
    frame: ChartFrame,
    kinds: tuple[str, str],
) -> str:
    said = []
    for row in shape.rows:
        words = [
            " ".join(filter(None, (frame.labels[m["model"]], kinds[m["hollow"]], _figure(m))))
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
    curves: pd.DataFrame, frame: ChartFrame, *, title: str, unit: str, neutral: float, lowest: float
) -> Chart:
    """Accuracy against the strength of one kind of change, with bands, one line a model.

    curves: model, strength, value, low, high (fractions), the unaltered image at `neutral`
    included. Strengths stand at equal distances; lowest: where the axis begins, as a fraction.
    """
    rows = sorted(_known(curves, frame.models), key=lambda row: row["strength"])
    strengths = sorted({row["strength"] for row in rows})
    traces: list[dict] = []
    words = []
    for model in frame.models:
        own = [row for row in rows if row["model"] == model]
        if not own:
            continue
        colour, name = frame.style(model).colour, safe(frame.labels[model])
        traces += [
            _band([row for row in own if not math.isnan(row["low"])], strengths, colour),
            {
                "type": "scatter",
                "mode": "lines+markers",
                "x": [strengths.index(row["strength"]) for row in own],
                "y": [100 * row["value"] for row in own],
                "line": {"color": colour, "width": 2},
                "marker": frame.marker(model, 9),
                "name": name,
                "showlegend": False,
                "customdata": [[f"{row['strength']:g}", _range(row)] for row in own],
                "hovertemplate": f"<b>{name}</b><br>%{{customdata[0]}}: %{{y:.1f}} %"
                "<br>95% interval %{customdata[1]}<extra></extra>",
            },
        ]
        figures = ", ".join(f"{_figure(row)} at {row['strength']:g}" for row in own)
        words.append(f"{frame.labels[model]} {figures}")
    at = strengths.index(neutral) if neutral in strengths else 0
    figure = go.Figure(
        data=traces,
        layout={
            "shapes": [_dotted_line(at, 1)],
            "xaxis": {
                "tickvals": list(range(len(strengths))),
                "ticktext": [f"{s:g}" for s in strengths],
                "showgrid": False,
                "zeroline": False,
                "fixedrange": True,
            },
            "yaxis": AXIS | {"range": _percent_range([lowest]), "fixedrange": True},
        },
    )
    finish_figure(figure, 240)
    figure.update_layout(margin={"l": 10, "r": 10, "t": 10, "b": 30})
    said = f"{title}, accuracy by {unit}, unaltered at {neutral:g}: {'; '.join(words)}."
    return Chart(figure, said, title)


def _band(own: list[dict], strengths: list[float], colour: str) -> dict:
    x = [strengths.index(row["strength"]) for row in own]
    return {
        "type": "scatter",
        "mode": "lines",
        "fill": "toself",
        "line": {"width": 0},
        "x": x + x[::-1],
        "y": [100 * row["high"] for row in own] + [100 * row["low"] for row in own[::-1]],
        "fillcolor": faint(colour, 0.13),
        "hoverinfo": "skip",
        "showlegend": False,
    }
