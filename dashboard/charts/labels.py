"""Figure of the page Labels: how often labels and models agree with second readers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import plotly.graph_objects as go

from core.formatting import with_interval
from dashboard.charts.style import (
    FAINT,
    FONT_PX,
    NEUTRAL,
    TEXT,
    Chart,
    ChartFrame,
    lane_borders,
    lanes,
    round_down,
    safe,
    still_layout,
    whiskers,
)
from dashboard.tables.labels import PUBLISHED, PUBLISHED_TITLE, QUESTIONS

_LANE_PX = 44
_MARK_PX = 13
_MARK_AT = 0.2  # of a lane, below its middle: the name stands above its mark, as a phone is narrow


def plot_agreement(
    points: pd.DataFrame, frame: ChartFrame, question: str, *, reader: str, theme: str
) -> Chart:
    """Dots with whiskers of one question: the published label first, its interval shaded.

    points: dashboard.tables.labels.agreement_points; the axis is the same for all its questions.
    Hollow marks are of the test split only. theme: "light" or "dark".
    """
    rows = points[points["question"] == question].to_dict("records")
    layout = still_layout(_LANE_PX * len(rows) + 62)
    layout["xaxis"] |= {
        "title": {"text": "agreement, percent, with 95% intervals"},
        "range": [round_down(points["low"].fillna(points["value"]).min()) - 2, 102],
    }
    layout["yaxis"] |= lanes([""] * len(rows)) | {"showticklabels": False}
    layout["margin"] = layout["margin"] | {"t": 4}
    layout["shapes"] = [*_bands(rows), *lane_borders(len(rows))]
    font = {"size": FONT_PX - 2, "color": TEXT[theme]}
    layout["annotations"] = [_lane_name(row, lane, frame, font) for lane, row in enumerate(rows)]
    figure = go.Figure([_mark(row, lane, frame) for lane, row in enumerate(rows)], layout)
    title = f"{reader}: {QUESTIONS[question]}"
    said = "; ".join(f"{_name(row, frame)} {_figure(row)}" for row in rows)
    return Chart(figure, f"{title}, agreement. {said}.", title)


def _name(row: Mapping[str, Any], frame: ChartFrame) -> str:
    return PUBLISHED_TITLE if row["model"] == PUBLISHED else frame.labels[row["model"]]


def _count(row: Mapping[str, Any]) -> str:
    return f"n = {row['n']}" + (" test images" if row["test_only"] else "")


def _figure(row: Mapping[str, Any]) -> str:
    return f"{with_interval(row['value'], row)}, {_count(row)}"


def _lane_name(
    row: Mapping[str, Any], lane: int, frame: ChartFrame, font: dict[str, Any]
) -> dict[str, Any]:
    place = {"x": 0, "xref": "paper", "xanchor": "left", "y": lane - 0.5, "yanchor": "top"}
    text = f"{safe(_name(row, frame))}, {_count(row)}"
    return place | {"text": text, "font": font, "showarrow": False}


def _bands(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The published label's interval behind all marks; none where its ends are not known."""
    look = {"type": "rect", "layer": "below", "fillcolor": FAINT, "line": {"width": 0}}
    return [
        look | {"x0": 100 * row["low"], "x1": 100 * row["high"], "y0": -0.5, "y1": len(rows) - 0.5}
        for row in rows
        if row["model"] == PUBLISHED and not math.isnan(row["low"] + row["high"])
    ]


def _mark(row: Mapping[str, Any], lane: int, frame: ChartFrame) -> dict[str, Any]:
    if row["model"] == PUBLISHED:
        marker = {"color": NEUTRAL, "symbol": "x", "size": _MARK_PX}
    else:
        marker = frame.marker(row["model"], _MARK_PX, hollow=row["test_only"])
    colour = str(marker["color"])
    return {
        "type": "scatter",
        "mode": "markers",
        "x": [100 * row["value"]],
        "y": [lane + _MARK_AT],
        "error_x": whiskers(row["value"], row["low"], row["high"], colour, width=5),
        "marker": marker | {"line": {"width": 3 if row["test_only"] else 0, "color": colour}},
        "name": safe(_name(row, frame)),
        "customdata": [[safe(_figure(row))]],
        "hovertemplate": "<b>%{fullData.name}</b><br>%{customdata[0]}<extra></extra>",
    }
