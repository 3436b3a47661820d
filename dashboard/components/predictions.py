"""Parts of the page Predict: what each model says of a picture, and what that is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from core.formatting import percent
from core.models.names import is_control
from core.reporting.answer_reliability import agreement_sentence, answer_reliability, votes
from core.runs.artifacts import ArtifactError
from core.serving.predict import (
    ImagePrediction,
    ModelPrediction,
    conformal_promise,
    conformal_text,
)
from dashboard.charts.probabilities import plot_probabilities
from dashboard.components.guard import REFUSED
from dashboard.components.live_predictions import own_problems
from dashboard.components.markdown import escape, escape_sentence, model_mark
from dashboard.components.page import theme
from dashboard.components.sidebar import Selection
from dashboard.data import runs as run_data
from dashboard.predict.model_choice import moved_class, shown_predictions
from dashboard.predict.uploads import Upload

CARD_WIDTH_PX = 200
REFUSED_BADGE = ":red-badge[:material/block: refused picture]"


def show_agreement(selection: Selection, upload: Upload, answer: ImagePrediction) -> None:
    """What the models say, in one line; then what the picture's source says."""
    for sentence in own_problems(selection, answer):
        st.warning(escape_sentence(sentence), icon=":material/warning:")
    if selection.run.synthetic and not upload.decoded.synthetic:
        st.warning(
            "This run learned from drawn phantoms: what it says about a real picture means "
            "nothing.",
            icon=":material/draw:",
        )
    sentence = agreement_sentence(votes(answer.predictions))
    st.subheader(escape_sentence(sentence), anchor=False)
    words = [f":red[{REFUSED} These answers mean nothing.]"] if answer.refused else []
    if upload.label is not None:
        what = "drawn as" if upload.decoded.synthetic else "labelled"
        words.append(f"The picture is {what} **{escape(upload.label)}** in its source.")
    if words:
        st.markdown(" ".join(words))


def show_cards(selection: Selection, answer: ImagePrediction) -> None:
    """A card a model and their mean: class, share, classes not ruled out, worth and time."""
    shown = shown_predictions(selection.run, answer)
    if not shown:
        return
    with st.grid(min_column_width=CARD_WIDTH_PX, border=True, gap="small"):
        for own in shown:
            with st.container(gap="xsmall"):
                _card(selection, answer, own)
    promise = next(filter(None, (conformal_promise(selection.run, o.model) for o in shown)), "")
    st.caption(
        f"{promise} Found and right: from the run's test images, with 95 % intervals, n images. "
        "They hold for pictures like those of the test; elsewhere expect worse. Time: this "
        "picture on this machine, without reading the file."
    )


def _card(selection: Selection, answer: ImagePrediction, own: ModelPrediction) -> None:
    run, names = selection.run, answer.class_names
    if own.model:
        head = f"{model_mark(run, own.model)} **{escape(selection.title(own.model))}**"
        about = selection.init(own.model)
    else:
        head, about = f":gray[★] **{escape(own.title)}**", ""
    if is_control(own.model):
        about = f"control, has no vote · {about}" if about else "control, has no vote"
    if own.members:
        about = f"mean of {', '.join(run.title(member) for member in own.members)}"
    lines = [head + (f"  \n:gray[:small[{escape(about)}]]" if about else "")]
    if answer.refused:
        lines.insert(0, REFUSED_BADGE)
    st.markdown("  \n".join(lines))
    st.markdown(f"### {escape(own.predicted)} {percent(own.confidence)}")
    st.markdown("  \n".join(f":small[{line}]" for line in _details(selection, own, names)))


def _details(selection: Selection, own: ModelPrediction, names: tuple[str, ...]) -> list[str]:
    """Lines of Markdown under a card's class and share."""
    lines = ["calibrated probability" if own.calibrated is not None else ":orange[not calibrated]"]
    moved = moved_class(own, names)
    if moved:
        lines.append(
            f":orange[Calibrated, **{escape(moved[0])}** has the larger share "
            f"({percent(moved[1])}); the model's call stays {escape(own.predicted)}.]"
        )
    inside = conformal_text(own.conformal_set, names)
    if inside:
        lines.append(f"Not ruled out: **{escape(inside)}**")
    if own.model:
        lines += tested_lines(selection, own.model, own.predicted, list(names))
    else:
        lines.append(":gray[Not measured: a mean of models has no figures in this run.]")
    cost = [f"{own.latency_ms:.1f} ms", own.precision]
    if own.input_size_px:
        cost.append(f"{own.input_size_px} px")
    lines.append(f":gray[{escape(', '.join(filter(None, cost)))}]")
    return lines


def tested_lines(selection: Selection, model: str, predicted: str, names: list[str]) -> list[str]:
    """How far the test part bears this answer out, as Markdown."""
    says = escape(predicted)
    try:
        tested = answer_reliability(run_data.load_metrics(selection.run, model), predicted, names)
    except ArtifactError as error:
        return [escape_sentence(str(error))]
    return [
        f"Of {says} images it finds {_rate(tested, 'sensitivity', 'n_true')}",
        f"Of its answers {says}, right are {_rate(tested, 'precision', 'n_predicted')}",
    ]


def _rate(tested: Mapping[str, Any], key: str, n_key: str) -> str:
    if tested[key] is None:
        return "a share that no test image tells"
    interval = tested[f"{key}_interval"]
    words = f" :gray[{100 * interval[0]:.1f} to {100 * interval[1]:.1f}]" if interval else ""
    return f"{percent(tested[key])}{words} (n\u00a0=\u00a0{tested[n_key]})"


def show_bars(selection: Selection, answer: ImagePrediction) -> None:
    """The shares of all classes, one block a model."""
    shown = shown_predictions(selection.run, answer)
    if not shown:
        return
    calibrated = any(own.calibrated is not None for own in shown)
    bars = []
    for own in shown:
        title = selection.label(own.model) if own.model else own.title
        if calibrated and own.calibrated is None:
            title += ", not calibrated"
        colour = selection.frame.style(own.model or "ensemble").colour
        bars.append((title, colour, own.shares))
    figure, alt = plot_probabilities(
        bars,
        answer.class_names,
        "this picture, which the guard refused" if answer.refused else "this picture",
        theme(),
        predicted=[own.predicted for own in shown],
        what="Calibrated probabilities" if calibrated else "Probabilities",
    )
    st.plotly_chart(figure, key="predict_bars", config={"displayModeBar": False}, alt=alt)
