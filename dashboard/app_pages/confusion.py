"""Which class is taken for which, model by model, and the images behind each cell."""

from __future__ import annotations

import streamlit as st

from core.runs.artifacts import ArtifactError
from dashboard.charts.confusion import MatrixScale, describe_confusion, plot_confusion
from dashboard.components import gallery
from dashboard.components.choice import choose
from dashboard.components.markdown import escape, escape_sentence
from dashboard.components.page import empty_state, page_frame, theme
from dashboard.components.sidebar import Selection
from dashboard.data import runs as run_data
from dashboard.tables.predictions import (
    NORMALISE,
    cell_images,
    clicked_cell,
    count_cells,
    join_predictions,
)

MODEL, TRUE, PREDICTED = CELL = ("cell_model", "cell_true", "cell_predicted")
LAST = "confusion_last_click"


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


def worst_line(counts: dict, selection: Selection) -> str:
    """The page's answer in words: each model's most frequent mistake."""
    names = selection.run.class_names
    parts = []
    for model, matrix in counts.items():
        off = [(int(matrix[i, j]), i, j) for i in range(len(names)) for j in range(len(names))]
        n, i, j = max((cell for cell in off if cell[1] != cell[2]), default=(0, 0, 0))
        title = escape(selection.title(model))
        if n:
            parts.append(
                f"**{title}** most often takes {escape(names[i])} for {escape(names[j])} "
                f"({n} of {int(matrix[i].sum())})"
            )
        else:
            parts.append(f"**{title}** makes no mistake")
    return "; ".join(parts) + "."


selection = page_frame("Confusion matrices", ":material/grid_on:")
run, names = selection.run, selection.run.class_names
try:
    tables = {m: run_data.load_prediction_table(run, m, selection.split) for m in selection.models}
    predictions = join_predictions(tables, names)
    image_files = gallery.find_image_files(run)
except ArtifactError as error:
    empty_state(escape_sentence(str(error)))
counts = {model: count_cells(predictions, model, names) for model in selection.models}

st.markdown(worst_line(counts, selection))
normalise = choose("Shown as", NORMALISE, "confusion_normalise", NORMALISE, "true")
for name, options in zip(CELL, (selection.models, names, names), strict=True):
    if st.session_state.get(name) not in options:
        st.session_state[name] = None  # another run, or a model taken out in the sidebar
cell = tuple(st.session_state[name] for name in CELL)

scale = MatrixScale.over(list(counts.values()), normalise, theme())
with st.grid(columns=min(len(counts), 4), min_column_width=310, gap="small"):
    for model, matrix in counts.items():
        key = f"confusion_chart_{run.name}_{selection.split}_{model}"
        st.plotly_chart(
            plot_confusion(
                matrix,
                names,
                title=selection.label(model),
                model=model,
                scale=scale,
                chosen=cell[1:] if cell[0] == model and None not in cell else None,
            ),
            key=key,
            on_select=lambda key=key: choose_cell(key),
            selection_mode="points",
            config={"displayModeBar": False},
            alt=describe_confusion(matrix, names, selection.label(model), normalise),
        )
end = f"{scale.top:.0f} images" if normalise == "counts" else "100 %"
more = "lighter" if scale.theme == "dark" else "darker"
st.caption(
    f"One colour scale for all matrices, 0 to {end}: {more} is more. Measured on "
    f"{selection.split_name} images. Click a cell, or choose it here, to see its images."
)

with st.container(horizontal=True, vertical_alignment="bottom"):
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
            width=280,
            persist_state="session",
        )

if None in cell:
    st.stop()
rows = cell_images(predictions, *cell)
model, true, predicted = cell
said = f"{true} predicted as {predicted}"
plural = "image" if len(rows) == 1 else "images"
st.button(
    f"{escape(said)}, {escape(selection.title(model))}, {len(rows)} {plural}",
    icon=":material/close:",
    icon_position="right",
    help="Clear the choice",
    on_click=set_cell,
    args=(None,),
    key="confusion_chip",
)
if rows.empty:
    st.caption("No images are in this cell.")
    st.stop()
gallery.show(
    selection,
    predictions,
    list(rows["image_id"]),
    image_files,
    key=f"confusion_{'_'.join(cell)}",
)
