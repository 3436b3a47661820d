"""Live answers: the models asked about one picture, and the picture under a heat map."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import streamlit as st

from core.artifacts import ArtifactError, Run
from core.explain import class_heat, overlay
from core.phantom import label_synthetic
from dashboard import loaders, ui
from dashboard.predicting import ModelAnswer, PictureAnswer, answer_picture, asked_models

LARGE_PX = 440
ANSWERS_KEPT = 12
_ANSWERS = "live_answers"


def ask_models(selection: ui.Selection, data: bytes, name: str) -> PictureAnswer:
    """Every chosen model's live answer, an ensemble's members' in its place; the last few are
    remembered. Raises ImageError."""
    run = selection.run
    key = (hashlib.sha256(data).hexdigest(), name, loaders.run_token(run), selection.models)
    kept: dict = st.session_state.setdefault(_ANSWERS, {})
    if key not in kept:
        served, problems = load_models(run, asked_models(run, selection.models))
        titles = {model: selection.title(model) for model in run.models}
        answer = answer_picture(data, name, served, run.class_names, titles, problems)
        while len(kept) >= ANSWERS_KEPT:
            kept.pop(next(iter(kept)))
        kept[key] = answer
    return kept[key]


def load_models(run: Run, models: Sequence[str]) -> tuple[dict, dict[str, str]]:
    """The served models, and title -> one sentence for those that cannot be loaded.

    models: such as have a file (predicting.asked_models), no ensembles.
    """
    from core.inference import InferenceError  # the engine takes a second to import

    served, problems = {}, {}
    for model in models:
        try:
            served[model] = loaders.load_model(run, model)
        except (ArtifactError, InferenceError) as error:
            problems[run.title(model)] = str(error)
    return served, problems


def show_heat(answer: PictureAnswer, key: str, *, synthetic: bool) -> None:
    """The picture under a heat map, with model, class and opacity to choose."""
    kind = "Drawn phantom, SYNTHETIC, " if synthetic else "Picture "
    pixels, caption = answer.pixels, "No model could answer, so there is no heat map."
    slot = st.container()
    if answer.answers:
        with slot.container(horizontal=True):
            own, label = _choose_heat(answer, key)
        opacity = st.slider(
            "Opacity of the map",
            0,
            100,
            50,
            step=5,
            format="%d %%",
            key=f"{key}_opacity",
            persist_state="session",
        )
        heat = class_heat(own.class_maps, answer.class_names.index(label))
        pixels = overlay(pixels, heat, opacity / 100)
        caption = (
            f"Where {own.title} finds more for {label} than for the other classes (class "
            f"activation map, {heat.shape[0]}×{heat.shape[1]} places, scaled to its own maximum). "
            "It shows what the score rests on, not where a disease is."
        )
        if not heat.any():
            caption = f"{own.title} finds nothing anywhere that speaks for {label}."
    shown = label_synthetic(pixels) if synthetic else pixels
    slot.image(shown, width=_shown_width(shown), alt=f"{kind}{answer.name}. {caption}")
    st.caption(ui.escape(caption))


def _choose_heat(answer: PictureAnswer, key: str) -> tuple[ModelAnswer, str]:
    """The model and the class whose map is shown; each picture begins with the model's answer."""
    by_model = {own.model: own for own in answer.answers}
    options = list(by_model)
    model = _kept_choice(
        "Heat map of", options, f"{key}_heat_model", options[0], lambda name: by_model[name].title
    )
    own = by_model[model]
    class_key = f"{key}_heat_class"
    whose = (answer.name, model, own.predicted)
    if st.session_state.get(f"{class_key}_of") != whose:
        st.session_state[f"{class_key}_of"] = whose
        st.session_state[class_key] = own.predicted
    label = _kept_choice("for the class", answer.class_names, class_key, own.predicted, str)
    return own, label


def theme() -> str:
    """ "light" or "dark", as the page is shown."""
    return "dark" if st.context.theme.type == "dark" else "light"


def _kept_choice(label: str, options: Sequence[str], key: str, default: str, title) -> str:
    if st.session_state.get(key) not in options:
        st.session_state[key] = default
    return st.segmented_control(
        label,
        options,
        key=key,
        required=True,
        format_func=title,
        persist_state="session",
        wrap=True,
    )


def _shown_width(pixels: np.ndarray) -> int:
    """Small pictures are enlarged, tall ones kept to one screen's height, in px."""
    height, width = pixels.shape[:2]
    return max(1, round(min(LARGE_PX, LARGE_PX * width / height)))
