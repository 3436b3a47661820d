"""Part of the page Predict: is the picture of the kind that the run learned from?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from core.runs.additions import guard_command
from core.runs.artifacts import ArtifactError
from core.runs.run import Run
from core.serving.predict import ImagePrediction, Predictor
from dashboard.components.markdown import escape, escape_sentence, with_interval
from dashboard.components.page import show_table
from dashboard.data import runs as run_data
from dashboard.predict.uploads import Upload

SHOW_REFUSED = "predict_show_refused"
# Stands wherever an answer about a refused picture is shown.
REFUSED = "The guard refused this picture."


def show_guard(predictor: Predictor, upload: Upload, answer: ImagePrediction) -> bool:
    """Say whether the picture is of the kind that the run learned from; True: show the answers."""
    judgement = answer.judgement
    if judgement is None:
        if answer.predictions:  # otherwise it is said that no model can answer
            _say_unguarded(predictor)
        return True
    if judgement.looks_right:
        icon = ":material/draw:" if judgement.synthetic else ":material/verified_user:"
        with st.container(horizontal=True, vertical_alignment="center"):
            st.info(escape(judgement.sentence), icon=icon)
            _offer_reliability(predictor.run)
        return True
    st.error(refusal_text(predictor, answer), icon=":material/block:")
    with st.container(horizontal=True, vertical_alignment="center"):
        shown = _choose_to_show(upload)
        _offer_reliability(predictor.run)
    return shown


def refusal_text(predictor: Predictor, answer: ImagePrediction) -> str:
    """Markdown: that the picture is refused, large, and why."""
    judgement, guard = answer.judgement, predictor.guard
    if judgement is None or guard is None:
        return REFUSED
    if len(judgement.reasons) < 2:
        return f"### {escape(judgement.sentence)}"
    lines = [f"### This does not look like {escape(guard.subject)}"]
    lines += [f"- {escape(reason[:1].upper() + reason[1:])}." for reason in judgement.reasons]
    return "\n".join(lines)


def _choose_to_show(upload: Upload) -> bool:
    """The switch; each picture begins with it off."""
    if st.session_state.get(f"{SHOW_REFUSED}_of") != upload.key:
        st.session_state[f"{SHOW_REFUSED}_of"] = upload.key
        st.session_state[SHOW_REFUSED] = False
    return st.toggle(
        "Show the models' answers all the same",
        key=SHOW_REFUSED,
        help="The models give one of their classes to any picture. About a picture of another "
        "kind these answers mean nothing.",
        persist_state="session",
    )


def _say_unguarded(predictor: Predictor) -> None:
    problem = predictor.problems.get("Guard")
    if problem:
        st.warning(
            f"{escape_sentence(problem)} These models answer for any picture.",
            icon=":material/gpp_maybe:",
        )
        return
    st.warning(
        "Nobody checked whether this picture is of the kind that the run learned from: the run "
        "has no guard, and its models answer for any picture. "
        f"`{guard_command(predictor.run)}` fits one.",
        icon=":material/gpp_maybe:",
    )


# ------------------------------------------------------------------------------ its worth


def _offer_reliability(run: Run) -> None:
    with st.popover("What the guard is worth", icon=":material/fact_check:", type="tertiary"):
        try:
            document = run_data.load_guard_document(run)
        except ArtifactError as error:
            st.markdown(escape_sentence(str(error)))
            return
        if document is None:
            st.markdown("The guard's figures are gone from the run.")
            return
        show_reliability(document)


def show_reliability(document: Mapping[str, Any]) -> None:
    """What the guard lets through and what it refuses, as measured when it was fitted."""
    kept = document.get("acceptance")
    if kept:
        st.markdown(
            f"**Let through: {_share(kept['test']['all'])} of {kept['test']['all']['n']} test "
            f"images** ({kept['test']['all']['n_patients']} patients), and of each class and "
            "collection:"
        )
        show_table(_kept_rows(kept))
    else:
        st.markdown("**Not measured** how many real images it lets through.")
    refused = document["refusal"]
    if refused:
        st.markdown("**Refused**, of pictures of other kinds:")
        show_table(_refused_rows(refused))
    else:
        st.markdown("**Not measured** how many pictures of other kinds it refuses.")
    if document["missing"]:
        st.caption(f"Not tried: {escape(', '.join(document['missing']))}.")
    st.caption(escape(document["rule"]))


def _kept_rows(kept: Mapping[str, Any]) -> list[dict[str, str]]:
    rows = [(f"test, {name}", found) for name, found in kept["test"]["classes"].items()]
    for column, values in kept["test"]["columns"].items():
        rows += [(f"test, {column}: {name}", found) for name, found in values.items()]
    for elsewhere in kept["elsewhere"].values():
        rows.append((elsewhere["title"], elsewhere["all"]))
        rows += [(f"{elsewhere['title']}, {n}", found) for n, found in elsewhere["classes"].items()]
    return [
        {"Images": escape(which), "n": str(found["n"]), "Let through": _share(found)}
        for which, found in rows
    ]


def _refused_rows(refused: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {"Pictures": escape(found["title"]), "n": str(found["n"]), "Refused": _share(found)}
        for found in refused.values()
    ]


def _share(found: Mapping[str, Any]) -> str:
    return with_interval(found["share"], found)
