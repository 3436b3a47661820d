"""The two views of the page Labels: second readers, and the queue of doubtful labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import pandas as pd
import streamlit as st

from core.datasets.phantom.generate import label_synthetic
from core.imageio.decode import ImageError
from core.runs import artifacts
from core.runs.run import Run
from dashboard.charts.labels import plot_agreement
from dashboard.components import gallery
from dashboard.components.choice import choose
from dashboard.components.markdown import escape, escape_sentence, shorten
from dashboard.components.page import (
    explain,
    offer_csv,
    offer_tables,
    show_chart,
    show_table,
    theme,
)
from dashboard.components.sidebar import Selection
from dashboard.components.trust import marked
from dashboard.data import label_verdicts
from dashboard.data import runs as run_data
from dashboard.data import trust as trust_data
from dashboard.data.label_verdicts import AnnotationError, LabelVerdict
from dashboard.tables import labels as label_tables
from dashboard.tables.labels import ANY, GIVEN, NOT_GIVEN

IMAGE_PX = 800
SHOWN_OTHERS = 12
READER_KEY = "labels_reader"
LABEL_KEY, SUGGESTED_KEY, VERDICT_KEY = (f"labels_{n}" for n in ("label", "suggested", "verdict"))
KEPT: dict[str, Any] = {"persist_state": "session"}  # filters outlive a visit to another page
_AT, _PROBLEM, _GIVEN = "labels_at", "labels_problem", "labels_given"
# Verdict -> its button: key to press, what it says.
BUTTONS = {
    "keep": ("K", "The label is right"),
    "wrong": ("W", "The label is wrong"),
    "unsure": ("U", "The image does not tell"),
}


# ------------------------------------------------------------------------------ second readers


def show_readers(selection: Selection, section: Mapping[str, Any]) -> None:
    """How often the labels and the models agree with radiologists who read the images again."""
    headline, _, rest = re.sub(r"\. (?=[A-Z])", ".\n", section["sentence"], count=1).partition("\n")
    st.markdown(f"#### {escape(headline)}")
    readers = section["readers"]
    if readers:
        name = _choose_reader(readers)
        show_agreement(selection, name, readers[name], rest)
    if section["unknown"]:
        said = ", ".join(section["unknown"])
        st.caption(f"Readings that answer no question here: {escape(said)}.")
    explain(
        "A reader says what they see, not the label, so each comparison is a question with yes or "
        "no. The label says yes where it is pneumonia, a model where it predicts any class but "
        "normal; only images labelled normal or pneumonia are compared. Models are asked out of "
        "fold where they have folds, else on test images, whatever is chosen in the sidebar. "
        "Intervals are patient-level bootstraps."
    )


def _choose_reader(readers: Mapping[str, Mapping[str, Any]]) -> str:
    """The one who read most, or who is chosen."""
    names = sorted(readers, key=lambda name: -readers[name]["n"])
    if len(names) == 1:
        return names[0]
    titles = {name: f"{name} ({readers[name]['n']} images)" for name in names}
    return choose("Reader", names, READER_KEY, titles, label_visibility="collapsed")


def show_agreement(
    selection: Selection, name: str, reader: Mapping[str, Any], verdict: str
) -> None:
    """The charts of one reader, what they mean, and the readings by label."""
    points = label_tables.agreement_points(reader, selection.models)
    if points.empty:
        st.info(escape(f"{name} read too few images to say how often anything agrees with them."))
    columns = st.columns(max(1, points["question"].nunique()), gap="medium")
    for column, question in zip(columns, points["question"].unique(), strict=False):
        build = partial(
            plot_agreement, points, selection.frame, question, reader=name, theme=theme()
        )
        key = f"readers_{question}_{name}_{theme()}"
        with column:
            show_chart(trust_data.keep_chart(selection.run, selection.models, key, build), key=key)
    hollow = (
        " Hollow: test images only, so not all that were read." if any(points.test_only) else ""
    )
    ceiling = label_tables.ceiling_sentence(name, reader)
    st.markdown("\n\n".join(escape(words) for words in (verdict, ceiling) if words))
    st.caption(
        f"Grey band: the label's interval.{hollow} "
        + escape(f"{name} chose which images to read, so all shares hold for those.")
    )
    st.markdown(f"**Readings by label, {escape(name)}**, images")
    show_table(label_tables.readings_table(reader).map(lambda cell: escape(str(cell))))
    if len(points):
        twin = label_tables.agreement_table(points, selection.titles)
        offer_tables(selection, {f"Agreement with {name}": twin})


# ------------------------------------------------------------------------------ doubts


@dataclass(frozen=True)
class QueueFiles:
    """What the queue shows of the run besides the audit. predictions: shown model -> its table,
    out of fold where it has folds; test_only: the models whose table is of the test split."""

    manifest: pd.DataFrame
    predictions: dict[str, pd.DataFrame]
    test_only: frozenset[str]
    image_files: run_data.ImageFiles


def load_queue_files(selection: Selection) -> QueueFiles:
    """Raises ArtifactError."""
    run = selection.run
    test_only = frozenset(
        m for m in selection.models if not artifacts.has_predictions(run, m, "folds")
    )
    predictions = {
        m: run_data.load_prediction_table(run, m, "test" if m in test_only else "folds")
        for m in selection.models
    }
    found = gallery.find_image_files(run)
    return QueueFiles(run_data.load_manifest(run), predictions, test_only, found)


def show_doubts(
    selection: Selection,
    section: Mapping[str, Any],
    readers: Mapping[str, Mapping[str, Any]],
    files: QueueFiles,
) -> None:
    """What is doubted, what second readers say of it, and the queue to judge."""
    st.markdown(f"#### {escape(label_tables.doubt_sentence(section, selection.titles))}")
    st.markdown(escape(label_tables.opinion_sentence(section, readers)))
    if section["images"]:
        show_queue(selection, section, files)
    scores = label_tables.scores_table(section, marked(selection))
    with st.expander("Scores with doubtful labels left out", icon=":material/filter_alt_off:"):
        st.markdown(label_tables.NO_BETTER)
        if len(scores):
            show_table(scores)
        else:
            st.caption("None of the shown models was cross-validated.")
    explain(escape(section["method"]))


def show_queue(selection: Selection, section: Mapping[str, Any], files: QueueFiles) -> None:
    """One doubted image at a time, with what is said of it and the buttons for a verdict."""
    run = selection.run
    problem = st.session_state.pop(_PROBLEM, "")
    usable = True
    verdicts: label_verdicts.Verdicts = {}
    try:
        verdicts = label_verdicts.load_verdicts(label_verdicts.verdicts_file(run))
    except AnnotationError as error:
        problem, usable = str(error), False
    if problem:
        st.error(escape_sentence(problem), icon=":material/error:")
    given = label_verdicts.verdict_table(verdicts)
    queue = label_tables.queue_table(section, given)
    with st.container(horizontal=True, vertical_alignment="center"):
        st.markdown(f"**{label_tables.progress_sentence(queue)}**", width="content")
        shown = label_tables.filter_queue(queue, **_filters(run))
        if verdicts:
            offer_csv("Verdicts as CSV", given, f"{run.name}-labels.csv", key="labels_csv")
    if shown.empty:
        st.info("No doubted label fits these filters.", icon=":material/filter_alt:")
        return
    place = label_tables.find_place(shown, st.session_state.get(_AT))
    st.session_state[_AT] = str(shown["image_id"][place])
    row = shown.iloc[place].to_dict()
    readings = next(i["readings"] for i in section["images"] if i["image_id"] == row["image_id"])
    left, right = st.columns(2, gap="medium")
    with left:
        _show_image(run, files.image_files, str(row["image_id"]))
    with right:
        _steps(shown, place)
        _show_case(row, readings)
        _verdict_buttons(run, shown, place, usable)
        answers = label_tables.answer_table(
            row, files.predictions, marked(selection), files.test_only
        )
        if len(answers):
            show_table(answers.rename(columns=escape))
        _show_others(run, files, str(row["image_id"]), set(queue["image_id"]))


def _filters(run: Run) -> dict[str, Any]:
    """The filters, behind a button that says how many are set; arguments of filter_queue."""
    options = {
        LABEL_KEY: ("Given label", [ANY, *run.class_names]),
        SUGGESTED_KEY: ("Suggested class", [ANY, *run.class_names]),
        VERDICT_KEY: ("Verdict", [ANY, NOT_GIVEN, GIVEN]),
    }
    for key, (_, choices) in options.items():
        if st.session_state.get(key, ANY) not in choices:
            st.session_state[key] = ANY
    n_set = sum(st.session_state.get(key, ANY) != ANY for key in options)
    with st.popover(f"Filter ({n_set} set)" if n_set else "Filter", icon=":material/filter_alt:"):
        label, suggested, verdict = (
            st.selectbox(title, choices, key=key, **KEPT)
            for key, (title, choices) in options.items()
        )
    return {
        "label": None if label == ANY else label,
        "suggested": None if suggested == ANY else suggested,
        "verdict": verdict,
    }


def _steps(shown: pd.DataFrame, place: int) -> None:
    """Previous, next, and where one is."""
    ids = list(shown["image_id"])
    with st.container(horizontal=True, vertical_alignment="center"):
        for words, icon, shortcut, to in (
            ("Previous", ":material/arrow_back:", "P", place - 1),
            ("Next", ":material/arrow_forward:", "N", place + 1),
        ):
            there = 0 <= to < len(ids)
            st.button(
                words,
                icon=icon,
                shortcut=shortcut,
                disabled=not there,
                on_click=_go_to,
                args=(ids[to] if there else "",),
                key=f"labels_{words.lower()}",
            )
        st.markdown(f"{place + 1} of {len(ids)}", width="content")


def _show_case(row: Mapping[str, Any], readings: Mapping[str, str]) -> None:
    """What is doubted, what readers saw, and the verdict that stands."""
    lines = [
        f"Labelled **{escape(row['label'])}**, the models suggest **{escape(row['suggested'])}**"
    ]
    lines += [f"{escape(reader)}: **{escape(said)}**" for reader, said in readings.items()]
    if row["verdict"]:
        when = escape(str(row["at"])[:16].replace("T", " "))
        lines.append(f":material/gavel: Verdict: **{row['verdict']}** :gray[{when} UTC]")
    lines.append(f":gray[{escape(shorten(str(row['image_id']), 60))}]")
    st.markdown("  \n".join(lines))


def _verdict_buttons(run: Run, shown: pd.DataFrame, place: int, usable: bool) -> None:
    row = shown.iloc[place]
    after = str(shown["image_id"][min(place + 1, len(shown) - 1)])
    with st.container(horizontal=True):
        for verdict, (shortcut, what) in BUTTONS.items():
            st.button(
                verdict.capitalize(),
                shortcut=shortcut,
                help=what,
                type="primary" if row["verdict"] == verdict else "secondary",
                disabled=not usable,
                on_click=_give,
                args=(run, str(row["image_id"]), row["label"], row["suggested"], verdict, after),
                # A key of its own an image: a late second press must not judge the next one unseen.
                key=f"labels_{verdict}_{row['image_id']}",
            )
        _undo_button(run, usable)


def _undo_button(run: Run, usable: bool) -> None:
    st.button(
        "Undo",
        shortcut="Z",
        type="tertiary",
        help="Takes back the last verdict that was given in this window",
        disabled=not (usable and _given(run)),
        on_click=_undo,
        args=(run,),
        key="labels_undo",
    )


def _given(run: Run) -> list[tuple[LabelVerdict, LabelVerdict | None]]:
    """The verdicts of this session on the run, each with the one it replaced; the last is last."""
    return st.session_state.setdefault(f"{_GIVEN}_{run.path.name}", [])


def _go_to(image_id: str) -> None:
    st.session_state[_AT] = image_id


def _give(run: Run, image_id: str, label: str, suggested: str, verdict: str, after: str) -> None:
    given = LabelVerdict(image_id, label, suggested, verdict, label_verdicts.now())
    try:
        earlier = label_verdicts.save_verdict(label_verdicts.verdicts_file(run), given)
    except AnnotationError as error:
        st.session_state[_PROBLEM] = str(error)
        return
    _given(run).append((given, earlier))
    _go_to(after)


def _undo(run: Run) -> None:
    given, earlier = _given(run)[-1]
    try:
        undone = label_verdicts.undo_verdict(label_verdicts.verdicts_file(run), given, earlier)
    except AnnotationError as error:
        st.session_state[_PROBLEM] = str(error)
        return
    _given(run).pop()
    if not undone:
        st.session_state[_PROBLEM] = (
            f"Not undone: the verdict on {given.image_id} was changed in another window since."
        )
    _go_to(given.image_id)


def _show_image(run: Run, image_files: run_data.ImageFiles, image_id: str) -> None:
    """The image whole, or why it is not shown."""
    path = image_files.find(image_id)
    if path is None:
        gallery.ask_for_folder(run, image_files)
        return
    try:
        pixels = gallery.letterboxed(run_data.read_thumbnail(path, IMAGE_PX), IMAGE_PX)
    except ImageError as error:
        st.caption(f":material/hide_image: {escape_sentence(str(error))}")
        return
    kind = "Drawn phantom, SYNTHETIC" if run.synthetic else "Image"
    st.image(
        label_synthetic(pixels) if run.synthetic else pixels,
        width="stretch",
        alt=f"{kind} {image_id}",
    )


def _show_others(run: Run, files: QueueFiles, image_id: str, doubted: set[str]) -> None:
    """The other images of the same patient, small, with their labels."""
    others = label_tables.other_images(files.manifest, image_id)
    if others.empty:
        st.caption("No other image of this patient is known.")
        return
    more = f", {SHOWN_OTHERS} shown" if len(others) > SHOWN_OTHERS else ""
    st.markdown(f"**Other images of this patient: {len(others)}**{more}")
    with st.grid(min_column_width=84):
        for other in others.head(SHOWN_OTHERS).itertuples():
            doubt = ", doubted" if other.image_id in doubted else ""
            caption = escape(f"{other.label}{doubt}")
            thumbnail, _ = gallery.square_thumbnail(run, files.image_files, str(other.image_id))
            with st.container():
                if thumbnail is None:
                    st.caption(f":material/hide_image: {caption}", help=str(other.image_id))
                    continue
                kind = "Drawn phantom, SYNTHETIC" if run.synthetic else "Image"
                alt = f"{kind} {other.image_id}, labelled {other.label}{doubt}"
                st.image(thumbnail, caption=caption, width="stretch", alt=alt)
