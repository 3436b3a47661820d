"""Tables -> Plotly figures; never imports streamlit.

Every function returns a `Chart`: the figure and the words for those who cannot see it. Titles say
what is counted or divided by what, and n. Colours hold in both themes: a model keeps its colour
and its shape on every page, classes have colours of their own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd
import plotly.graph_objects as go

from core.formatting import interval_text

FONT_PX = 16
NEUTRAL = "rgba(128,128,128,0.75)"
FAINT = "rgba(128,128,128,0.25)"


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


# ------------------------------------------------------------------------------ quality


def plot_metric_dots(
    rows: pd.DataFrame,
    *,
    models: Sequence[str],
    labels: Mapping[str, str],
    n_text: str,
    floors: pd.DataFrame | None = None,
) -> Chart:
    """Dots with whiskers: one row a metric, one dot a model, floors as lines behind.

    rows: model, metric, metric_label, value, low, high (fractions; low and high may be NaN), in
    the order to show. floors: name, kind, metric, value.
    """
    metrics = list(dict.fromkeys(rows["metric"]))
    metric_labels = rows.drop_duplicates("metric").set_index("metric")["metric_label"]
    figure = go.Figure()
    for floor in _known_baselines(floors, metrics).itertuples():
        y = metrics.index(floor.metric)
        figure.add_scatter(
            x=[100 * floor.value] * 2,
            y=[y - 0.42, y + 0.42],
            mode="lines",
            line={"color": NEUTRAL, "width": 2, "dash": _baseline_dash(floor.kind)},
            hovertemplate=f"floor: {floor.name}<br>%{{x:.1f}} %<extra></extra>",
            name=_baseline_kind(floor.kind),
            legendgroup=f"floor {floor.kind}",
            showlegend=f"floor {floor.kind}" not in {trace.legendgroup for trace in figure.data},
        )
    step = 0.7 / max(len(models), 1)
    for place, model in enumerate(models):
        part = rows[rows["model"] == model].dropna(subset=["value"])
        style = model_style(model, models)
        offset = (place - (len(models) - 1) / 2) * step
        figure.add_scatter(
            x=100 * part["value"],
            y=[metrics.index(m) + offset for m in part["metric"]],
            error_x=_whiskers(part, style.colour),
            mode="markers",
            marker={"color": style.colour, "symbol": style.symbol, "size": 13},
            name=labels[model],
            customdata=_hover_rows(part),
            hovertemplate=f"<b>{labels[model]}</b><br>%{{customdata[0]}}: %{{x:.1f}} %"
            "<br>95% interval %{customdata[1]}<extra></extra>",
        )
    lowest = pd.concat([rows["low"], rows["value"]]).min()
    if floors is not None and len(floors):
        lowest = min(lowest, floors["value"].min())
    figure.update_xaxes(
        title="percent", range=[_round_down(100 * lowest), 101], gridcolor=FAINT, zeroline=False
    )
    figure.update_yaxes(
        tickvals=list(range(len(metrics))),
        ticktext=[metric_labels[m].replace(" ", "<br>", 1) for m in metrics],
        range=[len(metrics) - 0.5, -0.5],
        showgrid=False,
        zeroline=False,
    )
    for y in range(1, len(metrics)):
        figure.add_hline(y=y - 0.5, line={"color": FAINT, "width": 1}, layer="below")
    height = 110 + len(metrics) * (22 + 17 * len(models))
    title = f"Metrics in percent of {n_text}, with 95% intervals by drawing whole patients"
    finish_figure(figure, height)
    sentences = [
        f"{labels[m]}: "
        + ", ".join(
            f"{r.metric_label} {100 * r.value:.1f} % ({interval_text((r.low, r.high))})"
            for r in rows[rows["model"] == m].itertuples()
            if r.value == r.value
        )
        for m in models
    ]
    return Chart(figure, f"{title}. " + ". ".join(sentences) + ".", title)


def _known_baselines(floors: pd.DataFrame | None, metrics: Sequence[str]) -> pd.DataFrame:
    if floors is None or not len(floors):
        return pd.DataFrame(columns=["name", "kind", "metric", "value"])
    return floors[floors["metric"].isin(metrics)].dropna(subset=["value"])


def _baseline_kind(kind: str) -> str:
    names = {"pixel": "floor: pixel shortcuts", "metadata": "floor: file properties only"}
    return names.get(kind, f"floor: {kind}")


def _baseline_dash(kind: str) -> str:
    return "solid" if kind == "pixel" else "dot"


def plot_quality_cost(
    table: pd.DataFrame, *, models: Sequence[str], labels: Mapping[str, str], n_text: str
) -> Chart:
    """Macro-F1 against time an image.

    table: model, value, low, high (fractions), latency_ms, size_mb; models without a time are
    left out.
    """
    figure = go.Figure()
    table = table.dropna(subset=["latency_ms", "value"])
    for row in table.itertuples():
        style = model_style(row.model, models)
        part = table[table["model"] == row.model]
        figure.add_scatter(
            x=[row.latency_ms],
            y=[100 * row.value],
            error_y=_whiskers(part, style.colour),
            mode="markers",
            marker={"color": style.colour, "symbol": style.symbol, "size": 16},
            name=labels[row.model],
            # In the legend and not beside the marks: models of like speed would write over
            # each other.
            showlegend=True,
            hovertemplate=f"<b>{labels[row.model]}</b><br>macro-F1 %{{y:.1f}} % "
            f"({interval_text((row.low, row.high))})<br>%{{x:.1f}} ms an image<br>"
            f"{row.size_mb:.1f} MB<extra></extra>",
        )
    title = f"Macro-F1 in percent of {n_text} against time an image, with 95% intervals"
    figure.update_xaxes(
        title="ms an image, one at a time (log scale)",
        type="log",
        gridcolor=FAINT,
        range=_log_range(table["latency_ms"]),
        tickvals=[0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000],
    )
    figure.update_yaxes(title="macro-F1, percent", gridcolor=FAINT, zeroline=False)
    finish_figure(figure, 420)
    words = "; ".join(
        f"{labels[r.model]} {100 * r.value:.1f} % ({interval_text((r.low, r.high))}) in "
        f"{r.latency_ms:.1f} ms and {r.size_mb:.1f} MB"
        for r in table.itertuples()
    )
    return Chart(figure, f"{title}: {words}.", title)


def _log_range(values: pd.Series) -> list[float]:
    if not len(values) or values.min() <= 0:
        return [0, 2]
    return [math.log10(values.min() / 2), math.log10(values.max() * 2)]


# ------------------------------------------------------------------------------ shared


def finish_figure(figure: go.Figure, height: int) -> None:
    """The look that all charts share; height in px."""
    figure.update_layout(
        title_text="",  # the theme writes "undefined" over a figure that has none
        font={"size": FONT_PX},
        height=height,
        margin={"l": 10, "r": 20, "t": 40, "b": 50},
        hoverlabel={"font": {"size": FONT_PX - 1}},
        legend={
            "orientation": "h",
            "yanchor": "bottom",
            "y": 1.02,
            "x": 0,
            "xanchor": "left",
            "font": {"size": FONT_PX - 2},
        },
    )
    figure.update_xaxes(automargin=True, tickfont={"size": FONT_PX - 2})
    figure.update_yaxes(automargin=True, tickfont={"size": FONT_PX - 2})


def _whiskers(part: pd.DataFrame, colour: str) -> dict:
    return {
        "type": "data",
        "symmetric": False,
        "array": 100 * (part["high"] - part["value"]).fillna(0),
        "arrayminus": 100 * (part["value"] - part["low"]).fillna(0),
        "color": colour,
        "thickness": 3,
        "width": 6,
    }


def _hover_rows(part: pd.DataFrame) -> list[list[str]]:
    return [[row.metric_label, interval_text((row.low, row.high))] for row in part.itertuples()]


def _round_down(value: float, step: int = 10) -> float:
    return 0.0 if value != value else max(0.0, step * math.floor(value / step))
