"""Parts of the page Predict that stand beside the answers: map, nearest cases, file, report."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import streamlit as st

from core.formatting import percent
from core.runs.additions import guard_command
from core.runs.artifacts import ArtifactError
from core.runs.run import Run
from core.serving.predict import ImagePrediction, Predictor
from dashboard.components import gallery
from dashboard.components.guard import REFUSED
from dashboard.components.heat_map import draw_heat, occlude
from dashboard.components.markdown import escape, escape_sentence, shorten, with_interval
from dashboard.components.sidebar import Selection
from dashboard.data import runs as run_data
from dashboard.predict.uploads import RETENTION_TEXT, Upload

NEIGHBOUR_WIDTH_PX = 112
# Nearer than this in features, a picture is a training image, or a copy of one.
DUPLICATE_DISTANCE = 0.05
# What a DICOM says of itself that is shown beside its name.
SHOWN_FACTS = ("Modality", "ViewPosition", "BodyPartExamined")
IDENTIFIERS_TEXT = "Identifiers in a DICOM header are not read."


# ------------------------------------------------------------------------------ the file


def show_file(upload: Upload) -> None:
    """What the picture is, in one line, and what was read of a DICOM's header."""
    decoded = upload.decoded
    words = f"{upload.name}, {decoded.width}×{decoded.height} px {decoded.format}"
    kinds = [decoded.facts[name] for name in SHOWN_FACTS if decoded.facts.get(name)]
    st.caption(escape(" · ".join([words, *kinds])))
    if decoded.tags_read:
        n = len(decoded.tags_read)
        with st.popover(f"The {n} DICOM tags that were read", icon=":material/label:"):
            facts = ", ".join(f"{name} {value}" for name, value in decoded.facts.items())
            st.markdown(f"It says: {escape(facts) if facts else 'nothing about the picture'}.")
            st.markdown(f"Read: {escape(', '.join(decoded.tags_read))}.")
            st.markdown(IDENTIFIERS_TEXT)


def show_retention_notice() -> None:
    """What becomes of an uploaded file."""
    st.caption(f"{RETENTION_TEXT} {IDENTIFIERS_TEXT}")


# ------------------------------------------------------------------------------ heat map


@st.fragment
def show_map(selection: Selection, upload: Upload, answer: ImagePrediction) -> None:
    """The picture under a heat map, and what such maps were measured to be worth."""
    warning = REFUSED if answer.refused else ""
    model = draw_heat(selection, upload, answer, "predict", warning)
    if model is not None:
        words, more = map_reliability(selection, model)
        st.caption(words)
        if more:
            with st.popover(
                "What such maps are worth", icon=":material/fact_check:", type="tertiary"
            ):
                st.markdown(more)


def map_reliability(selection: Selection, model: str) -> tuple[str, str]:
    """Markdown: what one model's maps were measured to be worth in a line, and all of it; where
    nothing was measured the line says how to, and there is no more."""
    run = selection.run
    if not model:
        return "Not measured: a mean of models that is no ensemble of this run.", ""
    try:
        document = run_data.load_maps(run)
    except ArtifactError as error:
        return escape_sentence(str(error)), ""
    if document is None:
        command = f"python -m core maps --run {run.name}"
        return f"What this map is worth was not measured in this run: `{command}` does.", ""
    found = document["models"].get(model)
    if found is None:
        why = document["reason"] or "this model was not asked."
        return f"What this map is worth was not measured: {escape(why)}", ""
    more = f"{found['sentence']} {document.get('learned_from', '')}"
    return _pointing_text(found), escape(more)


def _pointing_text(found: Mapping[str, Any]) -> str:
    """How often the hottest place lay on a drawn lesion, beside places that need no model."""
    figures = found["pointing"]["true"]["all"]
    chance = {name: own["hit"]["value"] for name, own in figures["against"].items()}
    words = (
        f"On {figures['n']} drawn phantoms the hottest place of its maps lay on the lesion in "
        f"**{with_interval(figures['hit']['value'], figures['hit'])}**; a random place does in "
        f"{percent(chance['random'])}, a random place in the lungs in "
        f"{percent(chance['lungs'])}, the centre in {percent(chance['centre'])}."
    )
    if found["sanity"] is None:
        return words
    if found["sanity"].get("passed"):
        return f"{words} With its weights shuffled the maps change, as they should."
    return (
        f"{words} :red[With its weights shuffled the maps stay much the same, as they should not.]"
    )


# ------------------------------------------------------------------------------ nearest cases


def warn_of_duplicate(run: Run, predictor: Predictor, answer: ImagePrediction) -> None:
    """Say where the picture is one that the models learned from."""
    if answer.refused or not answer.neighbours or predictor.guard is None:
        return
    nearest = answer.neighbours[0]
    if nearest.distance < DUPLICATE_DISTANCE:
        st.warning(
            f"To {escape(run.title(predictor.guard.model))} this picture is the training image "
            f"{escape(nearest.image_id)}: the models learned from it, so that their answers "
            "about it prove nothing.",
            icon=":material/content_copy:",
        )


def show_nearest(selection: Selection, predictor: Predictor, answer: ImagePrediction) -> None:
    """The training images that are most alike to the guard's model, with label and distance."""
    st.subheader("Nearest training cases", anchor=False)
    run = selection.run
    if not answer.neighbours or predictor.guard is None:
        st.info(
            "Not known: a run's guard holds the features of its training images, and this run "
            f"has none that can be asked. `{guard_command(run)}` fits one.",
            icon=":material/info:",
        )
        return
    if answer.refused:
        st.markdown(f":red[{REFUSED} Likeness to it means nothing.]")
    st.markdown(
        f"{alike_text([one.label for one in answer.neighbours])} Alike does not mean the same "
        "disease."
    )
    try:
        image_files = gallery.find_image_files(run)
    except ArtifactError as error:
        st.caption(escape_sentence(str(error)))
        image_files = None
    missing = False
    with st.grid(min_column_width=NEIGHBOUR_WIDTH_PX, border=True, gap="small"):
        for one in answer.neighbours:
            with st.container(gap="xsmall"):
                thumbnail = None
                if image_files is not None:
                    thumbnail, _ = gallery.square_thumbnail(run, image_files, one.image_id)
                kind = "Drawn phantom, SYNTHETIC" if run.synthetic else "Training image"
                if thumbnail is None:
                    missing = True
                else:
                    alt = f"{kind} {one.image_id}, labelled {one.label}"
                    st.image(thumbnail, width="stretch", alt=alt)
                shown_id = shorten(one.image_id, 28)
                st.markdown(
                    f":small[**{escape(one.label)}**  \ndistance {one.distance:.2f}  \n"
                    f":gray[{escape(shown_id)}]]"
                )
    if missing:
        st.caption(f":material/hide_image: {gallery.how_to_fetch(run)}")
    model = escape(run.title(predictor.guard.model))
    st.caption(
        f"Distance between the features of {model}: 0 is the same to the model, 1.41 "
        "nothing in common. Ids are the public collection's pseudonyms."
    )


def alike_text(labels: list[str]) -> str:
    """Markdown: how many of the nearest cases have which label, in their order."""
    names = list(dict.fromkeys(labels))
    if len(names) == 1:
        return f"The {len(labels)} most alike are labelled **{escape(names[0])}**."
    parts = [f"{labels.count(name)} {escape(name)}" for name in names]
    return f"The {len(labels)} most alike are labelled **{', '.join(parts)}**."


# ------------------------------------------------------------------------------ report


@st.fragment
def show_report(
    selection: Selection, predictor: Predictor, upload: Upload, answer: ImagePrediction
) -> None:
    """A page to hand over, made when its button is pressed."""
    from core.serving.html_report import MAX_NOTE, MAX_TYPED

    st.subheader("Report to hand over", anchor=False)
    st.caption(
        "One HTML page with the picture, the answers, maps, what they are worth, the run's "
        "identity and limits; it opens and prints anywhere. It says nothing of who the patient "
        "is, and no file name, unless you type it here."
    )
    left, right = st.columns([1, 2], gap="medium")
    typed = left.text_input(
        "Reference or name (optional)", key="predict_report_typed", max_chars=MAX_TYPED
    )
    note = right.text_area(
        "Note (optional)", key="predict_report_note", max_chars=MAX_NOTE, height=68
    )
    if answer.refused:
        st.markdown(f":red[{REFUSED} The report says so on top.]")
    st.download_button(
        "Report to hand over (HTML)",
        data=partial(make_report, predictor, upload, answer, typed, note),
        file_name=_report_name(selection),
        mime="text/html",
        icon=":material/description:",
        on_click="ignore",
        key="predict_report",
    )


def make_report(
    predictor: Predictor, upload: Upload, answer: ImagePrediction, typed: str = "", note: str = ""
) -> bytes:
    """The report's HTML; what is shown of a refused picture is marked in it."""
    from core.serving.html_report import ReportImage, ReportOptions, build_report

    maps = {
        own.model: occlude(predictor, upload, own)
        for own in answer.predictions
        if own.class_maps is None and not own.members
    }
    html = build_report(
        predictor.run,
        ReportImage(upload.name, upload.decoded, upload.file_sha256 or "no file", upload.label),
        answer,
        ReportOptions(typed, note, even_if_refused=True),
        guard=predictor.guard,
        occlusion=maps,
    )
    return html.encode()


def _report_name(selection: Selection) -> str:
    from datetime import UTC, datetime

    from core.serving.html_report import report_file_name

    return report_file_name(selection.run, datetime.now(UTC))
