"""Figures of how a run was made: learning curves, class balance, image sizes."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd
import plotly.graph_objects as go

from dashboard.charts.style import AXIS, FAINT, FONT_PX, NEUTRAL, Chart, class_colour, finish_figure

SHADE = "rgba(128,128,128,0.12)"
_CLASS_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross", "star")

# ------------------------------------------------------------------------------ training


CURVES = {
    "loss": ("Loss", "loss, mean over images", 1.0),
    "accuracy": ("Accuracy", "percent of images", 100.0),
    "lr": ("Learning rate", "learning rate (log scale)", 1.0),
}
# What a recipe may track besides; over all classes together, calls above one half counted.
TRACKED = {
    "precision": ("Precision", "percent of the calls above one half", 100.0),
    "recall": ("Sensitivity", "percent of images called above one half", 100.0),
}


def plot_learning_curve(
    history: pd.DataFrame, what: str, *, label: str, colour: str, n_text: str
) -> Chart:
    """One of CURVES or TRACKED by epoch: validation solid, training dotted, phases shaded.

    history: epoch, phase, loss, val_loss, accuracy, val_accuracy, lr, seconds; n_text: such as
    "420 training and 60 validation images".
    """
    name, axis, scale = (CURVES | TRACKED)[what]
    figure = go.Figure()
    spans = phase_spans(history)
    for place, (phase, first, last) in enumerate(spans):
        figure.add_vrect(
            x0=first - 0.5,
            x1=last + 0.5,
            fillcolor=SHADE if place % 2 == 0 else "rgba(0,0,0,0)",
            line_width=0,
            layer="below",
        )
        figure.add_annotation(
            x=first - 0.5,
            y=1,
            yref="paper",
            xanchor="left",
            yanchor="bottom",
            text=phase,
            showarrow=False,
            font={"size": FONT_PX - 4},
        )
    lines = [("", "rate", "solid")] if what == "lr" else _TRAIN_VAL
    for prefix, line_name, dash in lines:
        column = f"{prefix}{what}"
        if column not in history or history[column].isna().all():
            continue
        values = history[column]
        figure.add_scatter(
            x=history["epoch"],
            y=scale * values,
            mode="lines+markers" if len(history) < 60 else "lines",
            line={"color": colour, "dash": dash, "width": 3 if dash == "solid" else 2},
            marker={"size": 6},
            name=line_name,
            customdata=history[["phase"]],
            hovertemplate=f"epoch %{{x}} (%{{customdata[0]}})<br>{line_name} "
            f"%{{y:.4~g}}{'' if scale == 1 else ' %'}<extra></extra>",
        )
    title = f"{name} of {label} by epoch" + ("" if what == "lr" else f", {n_text}")
    figure.update_xaxes(AXIS, title="epoch")
    figure.update_yaxes(AXIS, title=axis)
    if what == "lr":
        figure.update_yaxes(type="log", dtick="D2", tickformat=".0e")
    finish_figure(figure, 340)
    figure.update_layout(legend={"y": 1.08})
    return Chart(figure, f"{title}: {_curve_text(history, what, scale)}", title)


_TRAIN_VAL = [("", "training, while it learns", "dot"), ("val_", "validation", "solid")]


def _curve_text(history: pd.DataFrame, what: str, scale: float) -> str:
    spans = "; ".join(f"{phase}: epochs {a} to {b}" for phase, a, b in phase_spans(history))
    if what == "lr":
        return f"from {history['lr'].iloc[0]:.3g} to {history['lr'].iloc[-1]:.3g}. {spans}."
    values = history[f"val_{what}"].dropna()
    if not len(values):
        return f"no validation figures. {spans}."
    best = values.idxmin() if what == "loss" else values.idxmax()
    return (
        f"validation begins at {scale * values.iloc[0]:.3g}, ends at {scale * values.iloc[-1]:.3g},"
        f" best {scale * values[best]:.3g} in epoch {history['epoch'][best]}. {spans}."
    )


def phase_spans(history: pd.DataFrame) -> list[tuple[str, int, int]]:
    """(phase, first epoch, last epoch) in order; a phase that comes again is a span of its own."""
    spans: list[tuple[str, int, int]] = []
    for row in history.itertuples():
        if spans and spans[-1][0] == row.phase:
            spans[-1] = (row.phase, spans[-1][1], int(row.epoch))
        else:
            spans.append((str(row.phase), int(row.epoch), int(row.epoch)))
    return spans


# ------------------------------------------------------------------------------ data


SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test"}


def plot_class_balance(manifest: pd.DataFrame, class_names: Sequence[str]) -> Chart:
    """Stacked bars: images of each class in each split, with their share of that split."""
    counts = pd.crosstab(manifest["split"], manifest["label"])
    counts = counts.reindex(columns=list(class_names), fill_value=0)
    splits = [s for s in SPLIT_NAMES if s in counts.index]
    counts = counts.loc[splits]
    totals = counts.sum(axis=1)
    ticks = [f"{SPLIT_NAMES[s]} ({totals[s]})" for s in splits]
    figure = go.Figure()
    for name in class_names:
        shares = 100 * counts[name] / totals
        figure.add_bar(
            y=ticks,
            x=shares,
            orientation="h",
            name=name,
            marker={"color": class_colour(name, class_names)},
            text=[str(n) if n else "" for n in counts[name]],
            textposition="inside",
            insidetextanchor="middle",
            insidetextfont={"size": FONT_PX},
            customdata=counts[name],
            hovertemplate=f"{name}, %{{y}}<br>%{{customdata}} images, %{{x:.1f}} % of the split"
            "<extra></extra>",
        )
    title = f"Percent of each split by class, {len(manifest)} images (counts inside the bars)"
    figure.update_layout(barmode="stack", bargap=0.25, legend={"traceorder": "normal"})
    figure.update_yaxes(autorange="reversed")
    figure.update_xaxes(title="percent of the split", range=[0, 100], gridcolor=FAINT)
    finish_figure(figure, 130 + 60 * len(splits))
    words = "; ".join(
        f"{SPLIT_NAMES[s]}: " + ", ".join(f"{name} {counts.loc[s, name]}" for name in class_names)
        for s in splits
    )
    return Chart(figure, f"{title}. {words}.", title)


def plot_image_sizes(manifest: pd.DataFrame, class_names: Sequence[str]) -> Chart:
    """Width against height of the files; equal sizes are one marker, larger with more images."""
    sizes = manifest.dropna(subset=["width", "height"])
    grouped = sizes.groupby(["label", "width", "height"]).size().rename("n").reset_index()
    figure = go.Figure()
    for place, name in enumerate(class_names):
        part = grouped[grouped["label"] == name]
        figure.add_scatter(
            x=part["width"],
            y=part["height"],
            mode="markers",
            name=name,
            marker={
                "color": class_colour(name, class_names),
                "symbol": _CLASS_SYMBOLS[place % len(_CLASS_SYMBOLS)],
                "size": [min(34, 8 + 2 * math.sqrt(n)) for n in part["n"]],
                "opacity": 0.75,
                "line": {"width": 1, "color": "rgba(255,255,255,0.6)"},
            },
            customdata=part["n"],
            hovertemplate=f"{name}<br>%{{x:.0f}} × %{{y:.0f}} px<br>%{{customdata}} images"
            "<extra></extra>",
        )
    largest = float(sizes[["width", "height"]].max().max()) if len(sizes) else 1.0
    figure.add_scatter(
        x=[0, largest],
        y=[0, largest],
        mode="lines",
        line={"color": NEUTRAL, "dash": "dot", "width": 1},
        name="square",
        hoverinfo="skip",
    )
    title = f"Width and height of {len(sizes)} image files, in pixels"
    figure.update_xaxes(AXIS, title="width, px")
    figure.update_yaxes(AXIS, title="height, px")
    finish_figure(figure, 440)
    words = "; ".join(_size_text(sizes[sizes["label"] == name], name) for name in class_names)
    return Chart(figure, f"{title}. {words}.", title)


def _size_text(sizes: pd.DataFrame, name: str) -> str:
    if not len(sizes):
        return f"{name}: none"
    square = 100 * (sizes["width"] == sizes["height"]).mean()
    return (
        f"{name}: {len(sizes)} images, {sizes['width'].min():.0f} to {sizes['width'].max():.0f} px "
        f"wide, {square:.0f} % square"
    )
