"""Which class is taken for which, model by model, and the images behind each cell."""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

from core.formatting import count
from core.runs.artifacts import ArtifactError
from dashboard.charts.confusion import MatrixScale, describe_confusion, plot_confusion
from dashboard.components import gallery
from dashboard.components.choice import choose
from dashboard.components.markdown import escape, escape_sentence
from dashboard.components.page import empty_state, page_frame, theme
from dashboard.data import runs as run_data
from dashboard.tables.predictions import (
    NORMALISE,
    cell_images,
    clicked_cell,
    count_cells,
    join_predictions,
    worst_mistakes,
)

MODEL, TRUE, PREDICTED = CELL = ("cell_model", "cell_true", "cell_predicted")
LAST = "confusion_last_click"
BESIDE_PX = 165  # cards beside a matrix stand two in a row


def choose_cell(key: str) -> None:
    """A click on a chart (its key) puts the cell into the three boxes, a second takes it out."""
    points = st.session_state[key].get("selection", {}).get("points", [])
    last = st.session_state.setdefault(LAST, {})
    model, true, predicted = (st.session_state.get(k, "") for k in CELL)
    cell = clicked_cell(points, last.get(key), (model, true, predicted))
    if points:
        last[key] = tuple(points[-1]["customdata"][:3])
    set_cell(cell)


def set_cell(cell: tuple[str, str, str] | None) -> None:
    """Put a cell (model, true, predicted) into the three boxes, or nothing."""
    for name, value in zip(CELL, cell or (None, None, None), strict=True):
        st.session_state[name] = value


def show_matrix(model: str) -> None:
    """A model's matrix; a click on a cell chooses it."""
    key = f"confusion_chart_{run.name}_{selection.split}_{model}"
    st.plotly_chart(
        plot_confusion(
            counts[model],
            names,
            title=selection.label(model),
            model=model,
            scale=scale,
            chosen=cell[1:] if cell[0] == model and None not in cell else None,
        ),
        key=key,
        on_select=lambda: choose_cell(key),
        selection_mode="points",
        config={"displayModeBar": False},
        alt=describe_confusion(counts[model], names, selection.label(model), normalise),
    )


def show_matrices(models: Sequence[str]) -> None:
    """Several, beside each other as far as they fit."""
    with st.grid(columns=min(len(models), 4), min_column_width=310, gap="small"):
        for model in models:
            show_matrix(model)


def show_cell(model: str, true: str, predicted: str) -> None:
    """The images of the chosen cell, and a chip that clears the choice."""
    rows = cell_images(predictions, model, true, predicted)
    said = f"{true} predicted as {predicted}"
    st.button(
        f"{escape(said)}, {escape(selection.title(model))}, {count(len(rows), 'image')}",
        icon=":material/close:",
        icon_position="right",
        help="Clear the choice",
        on_click=set_cell,
        args=(None,),
        key="confusion_chip",
    )
    if rows.empty:
        st.caption("No images are in this cell.")
        return
    gallery.show(
        selection,
        predictions,
        list(rows["image_id"]),
        image_files,
        key=f"confusion_{model}_{true}_{predicted}",
        card_width_px=BESIDE_PX,
    )


selection = page_frame("Confusion matrices", ":material/grid_on:")
run, names = selection.run, selection.run.class_names
try:
    tables = {m: run_data.load_prediction_table(run, m, selection.split) for m in selection.models}
    predictions = join_predictions(tables, names)
    image_files = gallery.find_image_files(run)
except ArtifactError as error:
    empty_state(escape_sentence(str(error)))
counts = {model: count_cells(predictions, model, names) for model in selection.models}

safe_names = [escape(name) for name in names]
st.markdown(worst_mistakes(counts, safe_names, selection.safe_titles))
for name, options in zip(CELL, (selection.models, names, names), strict=True):
    if st.session_state.get(name) not in options:
        st.session_state[name] = None  # another run, or a model taken out in the sidebar
cell = tuple(st.session_state[name] for name in CELL)
with st.container(horizontal=True, vertical_alignment="bottom"):
    normalise = choose("Shown as", NORMALISE, "confusion_normalise", NORMALISE, "true")
    for label, key, options, title in (
        ("Model", MODEL, selection.models, selection.title),
        ("True class", TRUE, names, str),
        ("Predicted class", PREDICTED, names, str),
    ):
        st.selectbox(
            label,
            options,
            index=None,
            key=key,
            format_func=title,
            placeholder="Choose",
            width=168,
            persist_state="session",
        )

scale = MatrixScale.over(list(counts.values()), normalise, theme())
if None in cell:
    st.caption("Click a cell, or choose it above, to see its images.")
    show_matrices(selection.models)
else:
    left, right = st.columns([1, 1], gap="medium")
    with left:
        show_matrix(cell[0])
    with right:
        show_cell(*cell)
    others = [model for model in selection.models if model != cell[0]]
    if others:
        st.subheader("Other models", anchor=False)
        show_matrices(others)
end = f"{scale.top:.0f} images" if normalise == "counts" else "100 %"
more = "lighter" if scale.theme == "dark" else "darker"
st.caption(
    f"One colour scale for all matrices, 0 to {end}: {more} is more. Measured on "
    f"{selection.split_name} images."
)
