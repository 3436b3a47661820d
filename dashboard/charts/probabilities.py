"""Probabilities of one image as bars, one block a model. Numbers in, plotly out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go

from dashboard.charts.style import FAINT, FONT_PX, TEXT, two_lines

HEAD_ROWS, BAR_ROWS = 1.3, 0.75  # in rows: the room above a block for its name, a bar's width


def plot_probabilities(
    rows: Sequence[tuple[str, str, Sequence[float] | np.ndarray]],
    class_names: Sequence[str],
    subject: str,
    theme: str = "light",
    *,
    predicted: Sequence[str] | None = None,
    what: str = "Probabilities",
) -> tuple[go.Figure, str]:
    """rows: (title, colour, probabilities (C,)) a model. Returns the figure and its alt text.

    predicted: the class that each model predicts, where that need not be the largest share
    (calibrated ones can put another first). Each model's block has one bar a class in the model's
    colour; the classes that it does not predict are paler, so the prediction is seen without
    reading. what, subject: words of the title, such as "Calibrated probabilities" and "this
    picture".
    """
    names = [str(name) for name in class_names]
    block = len(names) + HEAD_ROWS
    font = {"size": FONT_PX, "color": TEXT[theme]}
    bars: list[dict[str, Any]] = []
    heads, words = [], []
    for place, (title, colour, probabilities) in enumerate(rows):
        best = max(range(len(names)), key=lambda k: (probabilities[k], -k))
        if predicted is not None:
            best = names.index(predicted[place])
        bars.append(
            {
                "type": "bar",
                "y": [place * block + k for k in range(len(names))],
                "x": [100 * p for p in probabilities],
                "width": BAR_ROWS,
                "orientation": "h",
                "marker": {
                    "color": colour,
                    "opacity": [1.0 if k == best else 0.4 for k in range(len(names))],
                },
                "text": [f"{100 * p:.1f} %" for p in probabilities],
                "textposition": "outside",
                "textfont": font,
                "cliponaxis": False,
                "customdata": names,
                "hovertemplate": f"{title}<br>%{{customdata}}: %{{x:.2f}} %<extra></extra>",
            }
        )
        heads.append(
            {
                "text": title,
                "x": 0,
                "y": place * block - HEAD_ROWS / 2 - 0.2,
                "xanchor": "left",
                "showarrow": False,
                "font": font,
            }
        )
        each = ", ".join(f"{n} {100 * p:.1f} %" for n, p in zip(names, probabilities, strict=True))
        words.append(f"{title}: {each}")
    layout = {
        "title": {
            "text": two_lines(f"{what}, {subject}", "each model's add up to 100 %"),
            "x": 0,
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 12},
            "font": {"size": FONT_PX + 1},
        },
        "annotations": heads,
        "xaxis": {
            "range": [0, 118],
            "tickvals": [0, 50, 100],
            "ticktext": ["0 %", "50 %", "100 %"],
            "gridcolor": FAINT,
            "zeroline": False,
            "fixedrange": True,
            "tickfont": {**font, "size": FONT_PX - 2},
        },
        "yaxis": {
            "range": [len(rows) * block - HEAD_ROWS - 0.5, -HEAD_ROWS - 0.5],
            "tickvals": [y for bar in bars for y in bar["y"]],
            "ticktext": names * len(rows),
            "fixedrange": True,
            "automargin": True,
            "showgrid": False,
            "zeroline": False,
            "tickfont": font,
        },
        "showlegend": False,
        "height": 95 + len(rows) * (36 + 26 * len(names)),
        "margin": {"l": 8, "r": 8, "t": 66, "b": 24},
        "dragmode": False,
    }
    # Whole at once: subplots and updates took a fifth of a page's time.
    figure = go.Figure({"data": bars, "layout": layout})
    return figure, f"{what}, {subject}. {'; '.join(words)}."
