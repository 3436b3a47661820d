"""Where the models are wrong: the misclassified images, the surest mistakes first."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from core.runs.artifacts import ArtifactError
from dashboard.components import gallery
from dashboard.components.markdown import escape, escape_sentence, with_interval
from dashboard.components.page import empty_state, offer_csv, page_frame
from dashboard.components.sidebar import Selection
from dashboard.data import runs as run_data
from dashboard.tables.predictions import MISSED_BY, export_table, join_predictions, wrong_images

MODELS, TRUE, PREDICTED, MISSED, CONFIDENCE = (
    f"errors_{name}" for name in ("models", "true", "predicted", "missed", "confidence")
)
ANY = "any"
KEPT: dict[str, Any] = {"persist_state": "session"}  # filters outlive a visit to another page


def error_line(selection: Selection, predictions: pd.DataFrame, model: str) -> str:
    """Markdown: "ResNet50: 31 of 225 wrong, 13.8 % (9.5 to 18.5)"."""
    own = predictions[predictions["model"] == model]
    n, wrong = len(own), int((~own["right"].astype(bool)).sum())
    metrics = run_data.load_metrics(selection.run, model, selection.split)
    accuracy = metrics.get("intervals", {}).get("accuracy")
    interval = None
    if accuracy and accuracy.get("low") is not None:
        interval = {"low": 1 - accuracy["high"], "high": 1 - accuracy["low"]}
    share = with_interval(wrong / n if n else None, interval)
    return f"**{escape(selection.label(model))}**: {wrong} of {n} wrong, {share}"


def filters(selection: Selection) -> dict:
    """One row of filters; returns the arguments of wrong_images."""
    names = selection.run.class_names
    models = list(selection.models)
    st.session_state[MODELS] = [m for m in st.session_state.get(MODELS, []) if m in models]
    for key, options in ((TRUE, names), (PREDICTED, names)):
        if st.session_state.get(key, ANY) not in (ANY, *options):
            st.session_state[key] = ANY
    row = st.columns([2.2, 1, 1, 1.2, 1.6], gap="small")
    chosen = row[0].multiselect(
        "Wrong model",
        models,
        key=MODELS,
        format_func=selection.title,
        placeholder="any of the models",
        **KEPT,
    )
    true = row[1].selectbox("True class", [ANY, *names], key=TRUE, **KEPT)
    predicted = row[2].selectbox("Predicted class", [ANY, *names], key=PREDICTED, **KEPT)
    missed_by = row[3].selectbox(
        "Missed by", list(MISSED_BY), key=MISSED, format_func=MISSED_BY.__getitem__, **KEPT
    )
    low, high = row[4].slider("Confidence, percent", 0, 100, (0, 100), 1, key=CONFIDENCE, **KEPT)
    return {
        "models": chosen or models,
        "true": None if true == ANY else true,
        "predicted": None if predicted == ANY else predicted,
        "confidence": (low / 100, high / 100),
        "missed_by": missed_by,
    }


def reset_filters() -> None:
    """Every filter as it was at first."""
    st.session_state[MODELS] = []
    st.session_state[TRUE] = st.session_state[PREDICTED] = ANY
    st.session_state[MISSED] = next(iter(MISSED_BY))
    st.session_state[CONFIDENCE] = (0, 100)


selection = page_frame("Errors", ":material/image_search:")
run, part = selection.run, selection.split
try:
    tables = {m: run_data.load_prediction_table(run, m, part) for m in selection.models}
    predictions = join_predictions(tables, run.class_names)
    lines = [error_line(selection, predictions, model) for model in selection.models]
    image_files = gallery.find_image_files(run)
    manifest = run_data.load_manifest(run)
except ArtifactError as error:
    empty_state(escape_sentence(str(error)))

st.markdown("  \n".join(lines))
st.caption(
    f"Measured on {selection.split_name} images, 95 % intervals from the accuracy's. An image is "
    "wrong where the class with the largest probability is not the true one."
)
chosen = filters(selection)
wrong = wrong_images(predictions, **chosen)
if wrong.empty:
    everything = predictions[predictions["model"].isin(chosen["models"])]
    if everything["right"].all():
        st.info("These models get every image right.", icon=":material/check:")
    else:
        st.info("No mistake fits these filters.", icon=":material/filter_alt:")
        st.button("Clear the filters", icon=":material/filter_alt_off:", on_click=reset_filters)
    st.stop()

with st.container(horizontal=True, vertical_alignment="center"):
    noun = "image" if len(wrong) == 1 else "images"
    st.markdown(f"**{len(wrong)} {noun}**, the surest mistake first", width="content")
    export = export_table(wrong, predictions, manifest, run.class_names)
    offer_csv(
        "CSV",
        export,
        f"{run.name}-errors-{part}.csv",
        help="These images with every model's answer and probabilities",
        key="errors_csv",
    )
told = "_".join(str(value) for value in chosen.values())
gallery.show(
    selection, predictions, list(wrong["image_id"]), image_files, key=f"errors_{part}_{told}"
)
