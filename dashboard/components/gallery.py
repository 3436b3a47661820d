"""Pictures with what every model said about them: cards, pages of cards, one large view.

Thumbnails come from the data folder by image_id; where a file is not on the machine its card
stays, with a sentence in the picture's place.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image, ImageOps

from core.datasets import registry
from core.datasets.phantom.generate import label_synthetic
from core.formatting import percent
from core.imageio.decode import ImageError, read_image
from core.runs.run import Run
from dashboard.charts.probabilities import plot_probabilities
from dashboard.components.heat_map import show_heat
from dashboard.components.live_predictions import own_problems, predict_models
from dashboard.components.markdown import escape, escape_sentence
from dashboard.components.page import theme
from dashboard.components.sidebar import Selection
from dashboard.data import runs as run_data
from dashboard.predict.uploads import make_upload

PAGE_SIZE = 24
THUMBNAIL_PX = 256
CARD_WIDTH_PX = 240
_AT, _FOLDER, _CHOSEN_FOLDER = "gallery_at", "gallery_folder", "gallery_chosen_folder"


def show(
    selection: Selection,
    predictions: pd.DataFrame,
    image_ids: Sequence[str],
    image_files: run_data.ImageFiles,
    key: str,
    card_width_px: int = CARD_WIDTH_PX,
) -> None:
    """Draw the images as cards, PAGE_SIZE a page, in the order given.

    predictions: dashboard.tables.predictions.join_predictions', of the models to show. key
    names the choice that led here: it keeps a page number of its own, so a new choice begins at
    page 1.
    """
    ask_for_folder(selection.run, image_files)
    n_pages = -(-len(image_ids) // PAGE_SIZE)
    page = 1
    if n_pages > 1:
        page = _choose_page(n_pages, key)
        first = (page - 1) * PAGE_SIZE
        last = min(first + PAGE_SIZE, len(image_ids))
        st.caption(f"Images {first + 1} to {last} of {len(image_ids)}")
    by_image = dict(tuple(predictions[predictions["image_id"].isin(image_ids)].groupby("image_id")))
    start = (page - 1) * PAGE_SIZE
    opened = False
    with st.grid(min_column_width=card_width_px, border=True):
        for place, image_id in enumerate(image_ids[start : start + PAGE_SIZE], start=start):
            with st.container():
                opened |= _card(selection, by_image[image_id], image_files, image_id, place, key)
    if opened:
        large_view(selection, by_image, list(image_ids), image_files)


def find_image_files(run: Run) -> run_data.ImageFiles:
    """The run's pictures in the folder that a person pointed to, or else in the data folder."""
    return run_data.find_image_files(run, _folder())


def ask_for_folder(run: Run, image_files: run_data.ImageFiles) -> None:
    """Say which pictures are missing and take a folder that holds them; it counts on all pages."""
    folder, n_found = _folder(), len(image_files.found)
    if folder:
        with st.container(horizontal=True, vertical_alignment="center"):
            root = run_data.typed_folder(folder).resolve()
            if image_files.root and image_files.root.is_relative_to(root):
                found = f"{n_found} of {image_files.n_images} pictures are in {image_files.root}."
                st.caption(f":material/folder_open: {escape(found)}", width="content")
            else:
                none = f"No pictures of this run are in {folder}: point to the folder that has them"
                none += (
                    f"; those in {image_files.root.name}/ are shown." if image_files.root else "."
                )
                st.warning(escape(none), icon=":material/folder_off:")
            st.button("Forget this folder", type="tertiary", on_click=_use_folder, args=("",))
    if n_found == image_files.n_images:
        return
    if n_found:
        missing = (
            f"{image_files.n_images - n_found} of {image_files.n_images} pictures are missing."
        )
        st.info(missing, icon=":material/hide_image:")
    elif not folder:
        st.info(
            f"{how_to_fetch(run)} Or point to a folder that holds the pictures.",
            icon=":material/hide_image:",
        )
    st.text_input(
        "Folder that holds the pictures",
        key=_FOLDER,
        placeholder="the data set's own folder, or the one that holds it",
        on_change=_use_folder,
        persist_state="session",
    )


def _folder() -> str:
    return str(st.session_state.get(_CHOSEN_FOLDER, ""))


def _use_folder(folder: str | None = None) -> None:
    # The typed text lives in a widget; what counts lies beside it, where no page can drop it.
    if folder is None:
        folder = st.session_state[_FOLDER]
    else:
        st.session_state[_FOLDER] = folder
    st.session_state[_CHOSEN_FOLDER] = folder.strip()


def _choose_page(n_pages: int, key: str) -> int:
    name = f"page_{key}"
    if not 1 <= st.session_state.get(name, 1) <= n_pages:
        st.session_state[name] = 1
    return st.pagination(n_pages, key=name, persist_state="session")


def _card(
    selection: Selection,
    rows: pd.DataFrame,
    image_files: run_data.ImageFiles,
    image_id: str,
    place: int,
    key: str,
) -> bool:
    """One card; True when its large view is asked for."""
    label = str(rows["label"].iloc[0])
    thumbnail, problem = square_thumbnail(selection.run, image_files, image_id)
    if thumbnail is None:
        with st.container(height=THUMBNAIL_PX - 60, border=True, vertical_alignment="center"):
            st.caption(f":material/hide_image: {problem}")
    else:
        kind = "Drawn phantom, SYNTHETIC" if selection.run.synthetic else "Image"
        st.image(thumbnail, width="stretch", alt=f"{kind} {image_id}, true class {label}")
    lines = [f"True: **{escape(label)}**"]
    lines += [_said(selection, row) for row in rows.itertuples()]
    st.markdown("  \n".join(lines))
    return st.button(
        "Look closer",
        key=f"open_{key}_{place}",
        icon=":material/open_in_full:",
        help=image_id,
        width="stretch",
        on_click=_go_to,
        args=(place,),
    )


def _said(selection: Selection, row) -> str:
    """Markdown: the model, its answer and probability, right and wrong told by icon and colour."""
    colour, icon = ("blue", "check") if row.right else ("orange", "close")
    return (
        f":small[:{colour}[:material/{icon}:] {escape(selection.title(row.model))}: "
        f"{escape(row.predicted)} {percent(row.confidence)}]"
    )


def square_thumbnail(
    run: Run, image_files: run_data.ImageFiles, image_id: str
) -> tuple[np.ndarray | None, str]:
    """A square picture, letterboxed for an even grid, or None and why."""
    path = image_files.find(image_id)
    if path is None:
        return None, how_to_fetch(run)
    try:
        pixels = run_data.read_thumbnail(path, THUMBNAIL_PX)
    except ImageError as error:
        return None, escape_sentence(str(error))
    square = letterboxed(pixels, THUMBNAIL_PX)
    return (label_synthetic(square) if run.synthetic else square), ""


def letterboxed(pixels: np.ndarray, size_px: int) -> np.ndarray:
    """Grey uint8 (h, w) -> (size_px, size_px), shape kept, black beside it; for showing only."""
    fitted = ImageOps.contain(Image.fromarray(pixels), (size_px, size_px))
    return np.asarray(ImageOps.pad(fitted, (size_px, size_px), color=0))


def how_to_fetch(run: Run) -> str:
    """What stands in the place of a picture that is not on this machine (Markdown)."""
    if run.synthetic:
        return "Not on this machine: `make demo` draws it."
    name = str(run.info["dataset"].get("name", ""))
    if name not in registry.KNOWN:
        return "Not on this machine."
    return f"Not on this machine: `python -m core data {name}` fetches it or says how to get it."


def _go_to(place: int) -> None:
    st.session_state[_AT] = place


@st.dialog("Image", width="large", icon=":material/open_in_full:")
def large_view(
    selection: Selection,
    by_image: dict[str, pd.DataFrame],
    image_ids: list[str],
    image_files: run_data.ImageFiles,
) -> None:
    """One image with every model's probabilities and heat map; steps through image_ids."""
    place = min(st.session_state.get(_AT, 0), len(image_ids) - 1)
    image_id = image_ids[place]
    rows = by_image[image_id]
    with st.container(horizontal=True, vertical_alignment="center"):
        st.button(
            "Previous",
            icon=":material/arrow_back:",
            disabled=place == 0,
            shortcut="P",
            on_click=_go_to,
            args=(place - 1,),
            key="large_previous",
        )
        st.button(
            "Next",
            icon=":material/arrow_forward:",
            disabled=place == len(image_ids) - 1,
            shortcut="N",
            on_click=_go_to,
            args=(place + 1,),
            key="large_next",
        )
        st.markdown(f"{place + 1} of {len(image_ids)}", width="content")
    patient = str(
        run_data.load_manifest(selection.run).set_index("image_id")["patient_id"].get(image_id, "")
    )
    whose = f", patient {patient}" if patient and not patient.startswith("image:") else ""
    st.markdown(f"True: **{escape(rows['label'].iloc[0])}**  \n:gray[{escape(image_id + whose)}]")
    left, right = st.columns(2, gap="medium")
    with left:
        _large_image(selection, image_files, image_id)
    with right:
        st.markdown("  \n".join(_said(selection, row) for row in rows.itertuples()))
        names = selection.run.class_names
        probabilities = rows[[f"p_{name}" for name in names]].to_numpy()
        bars = [
            (selection.label(model), selection.frame.style(model).colour, values)
            for model, values in zip(rows["model"], probabilities, strict=True)
        ]
        figure, alt = plot_probabilities(bars, names, "as recorded in the run", theme())
        st.plotly_chart(figure, key="large_bars", config={"displayModeBar": False}, alt=alt)


def _large_image(selection: Selection, image_files: run_data.ImageFiles, image_id: str) -> None:
    path = image_files.find(image_id)
    if path is None:
        st.caption(f":material/hide_image: {how_to_fetch(selection.run)}")
        return
    try:
        decoded = read_image(path)
    except ImageError as error:
        st.caption(f":material/hide_image: {escape_sentence(str(error))}")
        return
    upload = make_upload(path.name, decoded, synthetic=selection.run.synthetic)
    answer = predict_models(selection, upload)
    for sentence in own_problems(selection, answer):
        st.caption(f":material/warning: {escape_sentence(sentence)}")
    show_heat(selection, upload, answer, "large")
