"""Figures of the page Curves and thresholds: ROC, precision-recall, thresholds, prevalence."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd
import plotly.graph_objects as go

from core.metrics.curves import Curve
from dashboard.charts.style import (
    AXIS,
    FAINT,
    FONT_PX,
    NEUTRAL,
    Chart,
    ChartFrame,
    ModelStyle,
    faint,
    finish_figure,
    whiskers,
)
from dashboard.tables.metrics import range_text

HEIGHT_PX = 470
# A model's line as its shape: told apart without colour.
DASHES = {
    "circle": "solid",
    "square": "dash",
    "diamond": "dot",
    "triangle-up": "dashdot",
    "star": "longdash",
    "triangle-down": "longdashdot",
    "hexagon": "8px,3px,2px,3px,2px,3px",
    "pentagon": "2px,6px",
}
MARKS_A_LINE = 8
KINDS = {
    # kind: name, area, title of x, title of y, how its points are joined
    "roc": (
        "ROC curve",
        "AUC",
        "false alarms, percent<br>(1 − specificity)",
        "found, percent (sensitivity)",
        "linear",
    ),
    "pr": (
        "Precision-recall curve",
        "average precision",
        "found, percent<br>(recall, sensitivity)",
        "alarms that are right, percent (precision)",
        "vh",
    ),
}


# ------------------------------------------------------------------------------ ROC and PR


def plot_curves(curves: Mapping[str, Curve], kind: str, frame: ChartFrame, *, n_text: str) -> Chart:
    """ROC ("roc") or precision-recall ("pr") curves, a line with its band a model.

    curves: model -> its curve; n_text: such as "24 covid among n = 225 test images".
    """
    title, area, x_title, y_title, shape = KINDS[kind]
    figure = go.Figure()
    baselines = [curve.baseline for curve in curves.values()]
    if baselines:
        _add_baseline(figure, kind, baselines[0])
    for model, curve in curves.items():
        _add_band(figure, curve, frame.style(model).colour, shape, model)
    for model, curve in curves.items():
        style, label = frame.style(model), frame.labels[model]
        bands = [range_text(low, high) for low, high in zip(curve.low, curve.high, strict=True)]
        x, y = list(100 * curve.x), list(100 * curve.y)
        if kind == "roc":  # the grid begins with what is found before any false alarm
            x, y, bands = [0, *x], [0, *y], ["nobody called", *bands]
        figure.add_scatter(
            x=x,
            y=y,
            mode="lines+markers",
            line={
                "color": style.colour,
                "width": 3,
                "dash": DASHES.get(style.symbol, "solid"),
                "shape": shape,
            },
            marker={"symbol": style.symbol, "size": 10, "maxdisplayed": MARKS_A_LINE},
            name=label,
            legendgroup=model,
            customdata=bands,
            hovertemplate=f"<b>{label}</b><br>x %{{x:.1f}} %<br>y %{{y:.1f}} %, "
            "95% band %{customdata}<extra></extra>",
        )
    axis = AXIS | {"range": [-1.5, 101.5], "dtick": 20}
    figure.update_xaxes(axis, title=x_title)
    figure.update_yaxes(axis, title=y_title)
    finish_figure(figure, HEIGHT_PX)
    title = f"{title} of {n_text}, with 95% bands by drawing whole patients"
    areas = "; ".join(
        f"{frame.labels[model]} {area} {100 * curve.area:.1f} % "
        f"({range_text(curve.area_low, curve.area_high)})"
        for model, curve in curves.items()
    )
    ground = f"; scores that know nothing reach {100 * baselines[0]:.1f} %" if baselines else ""
    return Chart(figure, f"{title}: {areas or 'no curve'}{ground}.", title)


def _add_baseline(figure: go.Figure, kind: str, baseline: float) -> None:
    """The chance line, or the share of positives, which is the precision of calling everybody.

    Named beside the line: in the legend it would push one chart lower than its neighbour.
    """
    name = "chance" if kind == "roc" else f"prevalence {100 * baseline:.1f} %"
    figure.add_scatter(
        x=[0, 100],
        y=[0, 100] if kind == "roc" else [100 * baseline] * 2,
        mode="lines",
        line={"color": NEUTRAL, "width": 2, "dash": "dot"},
        name=name,
        showlegend=False,
        hoverinfo="skip",
    )
    x, y = (50, 48) if kind == "roc" else (15, 100 * baseline)
    figure.add_annotation(
        x=x,
        y=y,
        text=name,
        showarrow=False,
        xanchor="left",
        yanchor="top",
        xshift=6,
        font={"size": FONT_PX - 2},
    )


def _add_band(figure: go.Figure, curve: Curve, colour: str, shape: str, model: str) -> None:
    known = ~(np.isnan(curve.low) | np.isnan(curve.high))
    if not known.any():
        return
    x, low, high = 100 * curve.x[known], 100 * curve.low[known], 100 * curve.high[known]
    invisible = {"width": 0, "shape": shape}
    shared = {"mode": "lines", "hoverinfo": "skip", "showlegend": False, "legendgroup": model}
    figure.add_scatter(x=x, y=low, line=invisible, **shared)
    figure.add_scatter(
        x=x, y=high, line=invisible, fill="tonexty", fillcolor=faint(colour, 0.16), **shared
    )


# ------------------------------------------------------------------------------ operating point


def plot_threshold(
    test: pd.DataFrame,
    chosen_on: pd.DataFrame | None,
    *,
    threshold: float,
    name: str,
    style: ModelStyle,
    chosen_text: str,
    n_text: str,
) -> Chart:
    """Sensitivity and specificity by threshold: on test strong, where it was chosen faint.

    test, chosen_on: core.metrics.operating_point.operating_table's; chosen_text: such as
    "validation".
    """
    figure = go.Figure()
    for table, part, strong in ((chosen_on, chosen_text, False), (test, "test", True)):
        if table is None:
            continue
        for column, dash in (("sensitivity", "solid"), ("specificity", "dash")):
            if table[column].isna().all():
                continue
            figure.add_scatter(
                x=100 * table["threshold"],
                y=100 * table[column],
                mode="lines",
                line={
                    "color": style.colour if strong else NEUTRAL,
                    "width": 3 if strong else 2,
                    "dash": dash,
                    "shape": "vh",
                },
                name=f"{column}, {part}",
                hovertemplate=f"{column}, {part}<br>threshold %{{x:.1f}} %<br>%{{y:.1f}} %"
                "<extra></extra>",
            )
    figure.add_vline(x=100 * threshold, line={"color": NEUTRAL, "width": 3})
    axis = AXIS | {"dtick": 20}
    figure.update_xaxes(axis, title="threshold on the probability, percent", range=[-1, 101])
    figure.update_yaxes(axis, title="percent", range=[-2, 102])
    finish_figure(figure, HEIGHT_PX)
    title = f"Sensitivity and specificity for {name} by threshold, {n_text}"
    row = test.iloc[(test["threshold"] - threshold).abs().argmin()]
    words = " and ".join(
        f"{column} {100 * row[column]:.1f} %"
        for column in ("sensitivity", "specificity")
        if not np.isnan(row[column])
    )
    return Chart(figure, f"{title}. At the threshold {100 * threshold:.2f} %: {words}.", title)


def plot_prevalence(
    table: pd.DataFrame,
    rates: Mapping[str, Mapping],
    *,
    prevalence: float,
    name: str,
    style: ModelStyle,
) -> Chart:
    """PPV and NPV against prevalence at one threshold; the chosen prevalence with its intervals.

    table: prevalence, ppv, npv (fractions); rates: ppv and npv at the chosen prevalence, each
    {value, low, high}, None where undefined.
    """
    figure = go.Figure()
    for column, dash, symbol in (("ppv", "solid", ""), ("npv", "dash", "-open")):
        figure.add_scatter(
            x=100 * table["prevalence"],
            y=100 * table[column],
            mode="lines",
            line={"color": style.colour, "width": 3, "dash": dash},
            name=column.upper(),
            legendgroup=column,
            hovertemplate=f"{column.upper()}<br>prevalence %{{x:.2g}} %<br>%{{y:.1f}} %"
            "<extra></extra>",
        )
        rate = rates[column]
        if rate["value"] is None:
            continue
        figure.add_scatter(
            x=[100 * prevalence],
            y=[100 * rate["value"]],
            error_y=whiskers(rate["value"], rate["low"], rate["high"], style.colour),
            mode="markers",
            marker={"color": style.colour, "symbol": style.symbol + symbol, "size": 14},
            showlegend=False,
            legendgroup=column,
            hovertemplate=f"{column.upper()} %{{y:.1f}} % "
            f"({range_text(rate['low'], rate['high'])})<extra></extra>",
        )
    figure.add_vline(x=100 * prevalence, line={"color": NEUTRAL, "width": 2, "dash": "dot"})
    ticks = [0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]
    figure.update_xaxes(
        title="prevalence, percent (log scale)",
        type="log",
        tickvals=ticks,
        ticktext=[f"{tick:g}" for tick in ticks],
        gridcolor=FAINT,
    )
    figure.update_yaxes(AXIS, title="percent", range=[-2, 102], dtick=20)
    finish_figure(figure, HEIGHT_PX)
    title = f"How much an answer is worth by prevalence of {name}, at this threshold"
    words = ", ".join(
        f"{column.upper()} {100 * rates[column]['value']:.1f} % "
        f"({range_text(rates[column]['low'], rates[column]['high'])})"
        for column in ("ppv", "npv")
        if rates[column]["value"] is not None
    )
    return Chart(figure, f"{title}. At {100 * prevalence:.3g} %: {words or 'undefined'}.", title)
