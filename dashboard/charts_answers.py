"""Probabilities of one picture as bars, one block a model. Numbers in, plotly out."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from dashboard.charts import FAINT, FONT_PX

# Streamlit greys a chart's text; from across a room it has to be the page's own.
TEXT = {"light": "#1b1b22", "dark": "#f2f2f5"}


def plot_probabilities(
    rows: Sequence[tuple[str, str, Sequence[float]]],
    class_names: Sequence[str],
    subject: str,
    theme: str = "light",
    *,
    called: Sequence[str] | None = None,
    what: str = "Probabilities",
) -> tuple[go.Figure, str]:
    """rows: (title, colour, probabilities (C,)) a model. Returns the figure and its alt text.

    called: the class that each model calls, where that need not be the largest share (calibrated
    ones can put another first). Each model's block has one bar a class in the model's colour; the
    classes that it does not call are paler, so the answer is seen without reading. what, subject:
    words of the title, such as "Calibrated probabilities" and "this picture".
    """
    n_models, names = len(rows), [str(name) for name in class_names]
    figure = make_subplots(
        rows=n_models,
        cols=1,
        shared_xaxes=True,
        subplot_titles=[title for title, _, _ in rows],
        vertical_spacing=min(0.12, 0.36 / n_models),
    )
    words = []
    for place, (title, colour, probabilities) in enumerate(rows, start=1):
        best = max(range(len(names)), key=lambda k: (probabilities[k], -k))
        if called is not None:
            best = names.index(called[place - 1])
        figure.add_trace(
            go.Bar(
                y=names,
                x=[100 * p for p in probabilities],
                orientation="h",
                marker={
                    "color": colour,
                    "opacity": [1.0 if k == best else 0.4 for k in range(len(names))],
                },
                text=[f"{100 * p:.1f} %" for p in probabilities],
                textposition="outside",
                textfont={"size": FONT_PX, "color": TEXT[theme]},
                cliponaxis=False,
                hovertemplate=f"{title}<br>%{{y}}: %{{x:.2f}} %<extra></extra>",
            ),
            row=place,
            col=1,
        )
        each = ", ".join(f"{n} {100 * p:.1f} %" for n, p in zip(names, probabilities, strict=True))
        words.append(f"{title}: {each}")
    font = {"size": FONT_PX, "color": TEXT[theme]}
    figure.update_xaxes(
        range=[0, 118],
        tickvals=[0, 50, 100],
        ticktext=["0 %", "50 %", "100 %"],
        gridcolor=FAINT,
        zeroline=False,
        fixedrange=True,
        tickfont={**font, "size": FONT_PX - 2},
    )
    figure.update_yaxes(
        autorange="reversed", fixedrange=True, automargin=True, showgrid=False, tickfont=font
    )
    figure.update_annotations(x=0, xanchor="left", font=font)
    figure.update_layout(
        title={
            "text": two_lines(f"{what}, {subject}", "each model's add up to 100 %"),
            "x": 0,
            "y": 1,
            "yref": "container",
            "yanchor": "top",
            "pad": {"t": 12},
            "font": {"size": FONT_PX + 1},
        },
        showlegend=False,
        bargap=0.25,
        height=95 + n_models * (36 + 26 * len(names)),
        margin={"l": 8, "r": 8, "t": 90, "b": 24},
        dragmode=False,
    )
    return figure, f"{what}, {subject}. {'; '.join(words)}."


def two_lines(title: str, subtitle: str) -> str:
    """A chart's title with a smaller second line, as Plotly's markup."""
    return f"{title}<br><span style='font-size:14px;font-weight:normal'>{subtitle}</span>"
