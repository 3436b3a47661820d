"""Training: how each model was trained, and with what."""

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from core.runs.artifacts import ArtifactError
from dashboard.charts import training as training_charts
from dashboard.components.markdown import escape, escape_sentence, model_mark
from dashboard.components.page import empty_state, page_frame, show_chart, show_table
from dashboard.components.sidebar import Selection
from dashboard.components.training import describe_kept_epochs, trained_models
from dashboard.data import runs as run_data
from dashboard.tables import metrics as metric_tables


def minutes(seconds: float | None) -> str:
    """Seconds for people: "45 s" or "12 min 30 s"."""
    if seconds is None or math.isnan(seconds):
        return "–"
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"


def training_seconds(selection: Selection, model: str, history: pd.DataFrame) -> float | None:
    """What metrics.json says, else the sum of the epochs; None where neither is known."""
    cost = run_data.load_metrics(selection.run, model).get("cost") or {}
    if cost.get("train_s") is not None:
        return float(cost["train_s"])
    return float(history["seconds"].sum()) if len(history) else None


def summary(selection: Selection, histories: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """A row a model: epochs, lowest validation loss, time and image size."""
    rows = []
    for model, history in histories.items():
        best = history["val_loss"].idxmin() if history["val_loss"].notna().any() else None
        rows.append(
            {
                "Model": f"{model_mark(selection.run, model)}\u00a0"
                + escape(selection.label(model)),
                "Epochs": str(len(history)) if len(history) else "–",
                "Lowest validation loss": "–"
                if best is None
                else f"{history['val_loss'][best]:.3f} in epoch {history['epoch'][best]}",
                "Time": minutes(training_seconds(selection, model, history)),
                "Image side": f"{image_side(selection, model)} px",
            }
        )
    return pd.DataFrame(rows)


def image_side(selection: Selection, model: str) -> object:
    """Side of the square image that a model gets, in px; "?" where unknown."""
    info = selection.run.info
    return info.get("model_input_size_px", {}).get(model, info.get("input_size_px", "?"))


def show_curves(selection: Selection, model: str, history: pd.DataFrame, n_text: str) -> None:
    """One model's learning curves."""
    st.subheader(
        f"{model_mark(selection.run, model)} {escape(selection.label(model))}", anchor=False
    )
    if not len(history):
        st.caption("This model was not trained in epochs, so there are no curves.")
        return
    colour = selection.frame.style(model).colour
    tracked = [what for what in training_charts.TRACKED if f"val_{what}" in history]
    shown = [*training_charts.CURVES, *tracked]
    columns = [column for _ in range(0, len(shown), 3) for column in st.columns(3)]
    for column, what in zip(columns, shown, strict=False):
        with column:
            chart = training_charts.plot_learning_curve(
                history, what, label=selection.title(model), colour=colour, n_text=n_text
            )
            show_chart(chart, key=f"curve_{model}_{what}")


def show_setting(info: Mapping[str, Any]) -> None:
    """What was asked for, on what machine, with which programs."""
    st.subheader("Command and configuration", anchor=False)
    st.code(str(info.get("command", "not recorded")), language="bash", wrap_lines=True)
    left, middle, right = st.columns(3)
    for column, title, key in (
        (left, "Configuration", "config"),
        (middle, "Versions", "versions"),
        (right, "Hardware", "hardware"),
    ):
        with column:
            st.markdown(f"**{title}**")
            values = info.get(key) or {}
            if not isinstance(values, dict):
                values = {key: values}
            if not values:
                st.caption("not recorded")
                continue
            table = pd.DataFrame(
                {
                    "setting": list(values),
                    "value": [metric_tables.plain(v) for v in values.values()],
                }
            )
            st.dataframe(table, hide_index=True, height="content", alt=f"{title} of the run")


selection = page_frame("Training", ":material/show_chart:")
run = selection.run
try:
    histories = {model: run_data.load_history(run, model) for model in selection.models}
    table = summary(selection, histories)
    trained = trained_models(run, selection.models)
    seconds = [
        training_seconds(selection, model, run_data.load_history(run, model)) for model in trained
    ]
    splits = run_data.load_manifest(run)["split"].value_counts()
except ArtifactError as error:
    empty_state(escape_sentence(str(error)))

n_text = f"{splits.get('train', 0)} training and {splits.get('val', 0)} validation images"
known = [value for value in seconds if value is not None]
st.markdown(
    f"#### {len(seconds)} model{'s' if len(seconds) != 1 else ''} trained in "
    f"{minutes(sum(known)) if known else 'unknown time'}, seed {run.info.get('seed', '–')}, "
    f"{escape(str(run.info.get('created', ''))[:10])}."
)
st.markdown(
    "Training curves are taken while a model learns on altered copies of its images, each class "
    "weighted alike, so they lie apart from validation, which sees the images as they are and "
    f"counts each once. {describe_kept_epochs(selection)}; the test images are not in any of these "
    "curves."
)
show_table(table)
for model, history in histories.items():
    show_curves(selection, model, history, n_text)
show_setting(run.info)
