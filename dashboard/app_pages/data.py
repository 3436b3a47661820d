"""Data: what the models learned from and were measured on."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from core.datasets.phantom.generate import label_synthetic
from core.imageio.decode import ImageError
from core.runs.artifacts import ArtifactError
from dashboard.charts import training as training_charts
from dashboard.components import gallery
from dashboard.components.markdown import escape, escape_sentence, shorten
from dashboard.components.page import empty_state, page_frame, show_chart, synthetic_badge
from dashboard.components.sidebar import Selection
from dashboard.data import runs as run_data
from dashboard.tables import metrics as metric_tables

PER_CLASS = 6
THUMBNAIL_PX = 320
DRAW_KEY = "data_draw"
SPLIT_NAMES = {"train": "train", "val": "validation", "test": "test", "all": "all"}


def draw_again() -> None:
    """Other random images."""
    st.session_state[DRAW_KEY] = st.session_state.get(DRAW_KEY, 0) + 1


def show_samples(selection: Selection, manifest: pd.DataFrame) -> None:
    """PER_CLASS random images a class; the draw is seeded, so it stays until it is asked anew."""
    seed = st.session_state.get(DRAW_KEY, 0)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.subheader(f"{PER_CLASS} random images a class", anchor=False, width="content")
        st.button("Draw others", icon=":material/casino:", on_click=draw_again)
        if selection.run.synthetic:
            synthetic_badge()
    image_files = gallery.find_image_files(selection.run)
    gallery.ask_for_folder(selection.run, image_files)
    if not image_files.found:
        return
    for place, name in enumerate(selection.run.class_names):
        rows = manifest[manifest["label"] == name]
        rows = rows.sample(min(PER_CLASS, len(rows)), random_state=100 * seed + place)
        st.markdown(f"**{escape(name)}** · {int((manifest['label'] == name).sum())} images")
        with st.grid(PER_CLASS, min_column_width=150, gap="small"):
            for row in rows.itertuples():
                with st.container():
                    show_image(image_files, row, synthetic=selection.run.synthetic)


def show_image(image_files: run_data.ImageFiles, row, *, synthetic: bool) -> None:
    """One image with its split and name, or why it cannot be shown."""
    caption = f"{SPLIT_NAMES.get(row.split, row.split)}, {row.image_id.rsplit('/', 1)[-1]}"
    path = image_files.find(row.image_id)
    if path is None:
        st.caption(f":material/hide_image: not on this machine  \n{escape(caption)}")
        return
    try:
        pixels = run_data.read_thumbnail(path, THUMBNAIL_PX)
    except ImageError as error:
        st.caption(f":material/broken_image: {escape_sentence(str(error))}")
        return
    kind = "Drawn phantom, SYNTHETIC," if synthetic else "X-ray"
    st.image(
        label_synthetic(pixels) if synthetic else pixels,
        caption=escape(shorten(caption, 40)),
        width="stretch",
        alt=f"{kind} of class {row.label}, {caption}",
    )


def show_splits(selection: Selection, manifest: pd.DataFrame) -> None:
    """Images and patients of each split, and whether a patient is in two."""
    counts = metric_tables.split_counts(manifest, selection.run.class_names)
    counts["split"] = counts["split"].map(SPLIT_NAMES)
    left, right = st.columns(2, gap="medium", vertical_alignment="center")
    with left:
        show_chart(training_charts.plot_class_balance(manifest, selection.run.class_names))
    with right:
        st.dataframe(counts, hide_index=True, alt="Images a class and patients in each split")
        shared = int(manifest.groupby("patient_id")["split"].nunique().gt(1).sum())
        if shared:
            who = "patient is" if shared == 1 else "patients are"
            st.markdown(
                f":material/warning: **{shared} {who} in more than one split**, so the test images "
                "are not all new to the models."
            )
        else:
            st.markdown("No patient is in two splits.")


def show_rules(info: Mapping[str, Any]) -> None:
    """How the images were split, grouped, and what to know about them."""
    policy = {"group": "by group: what belongs together stays on one side"}
    policy |= {"random": "at random, groups ignored (leaks where a patient has several images)"}
    split = str(info.get("split_policy", "not stated"))
    st.markdown(f"**Split** {escape(policy.get(split, split))}.")
    st.markdown(f"**Grouping rule** {escape(str(info.get('grouping', 'not stated')))}")
    caveats = [str(caveat) for caveat in info["dataset"].get("caveats", [])]
    if caveats:
        st.markdown("**What to know about these images**")
        st.markdown("\n".join(f"- {escape(caveat)}" for caveat in caveats))


selection = page_frame("Data", ":material/folder_open:")
run = selection.run
try:
    manifest, skipped = run_data.load_manifest(run), run_data.load_skipped(run)
except ArtifactError as error:
    empty_state(escape_sentence(str(error)))

dataset = run.info["dataset"]
title = escape(str(dataset.get("title") or dataset.get("name", "an unnamed data set")))
unit = "drawn patients" if run.synthetic else "patients"
st.markdown(
    f"#### {len(manifest)} images of {manifest['patient_id'].nunique()} {unit} in "
    f"{len(run.class_names)} classes, from {title}."
)
if manifest["patient_id"].str.startswith("image:").any():
    lone = int(manifest["patient_id"].str.startswith("image:").sum())
    st.markdown(f"The patient of {lone} images is not known; each counts as a patient of its own.")

show_splits(selection, manifest)
show_rules(run.info)
show_samples(selection, manifest)
st.subheader("Image sizes", anchor=False)
left, right = st.columns([3, 2], gap="medium", vertical_alignment="center")
with left:
    show_chart(training_charts.plot_image_sizes(manifest, run.class_names))
with right:
    st.dataframe(
        metric_tables.size_table(manifest, run.class_names),
        hide_index=True,
        column_config={"square": st.column_config.NumberColumn("square, %", format="%.1f")},
        alt="Median size, share of square images and file formats of each class",
    )
    st.caption(
        "Where size, shape or format differ by class, a model can tell the classes apart without "
        "looking at lungs."
    )
st.subheader("Skipped files", anchor=False)
if len(skipped):
    st.markdown(f"{len(skipped)} file{'s were' if len(skipped) != 1 else ' was'} not used.")
    st.dataframe(skipped, hide_index=True, alt="Files that were not used and why")
else:
    st.markdown("No file was skipped.")
