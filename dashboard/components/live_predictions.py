"""What the models say of one image, asked live; the last few predictions are kept."""

from __future__ import annotations

import streamlit as st

from core.runs.missing_weights import left_out
from core.serving.predict import NO_WEIGHTS, ImagePrediction
from dashboard.components.sidebar import Selection
from dashboard.data import runs as run_data
from dashboard.data import tokens
from dashboard.predict.model_choice import chosen_models
from dashboard.predict.uploads import Upload

MAX_KEPT = 12
_PREDICTIONS, MAPS, SHOWN = "live_answers", "live_maps", "live_shown"


def predict_models(selection: Selection, upload: Upload) -> ImagePrediction:
    """What the chosen models, an ensemble's members and the guard say; the last few are kept."""
    run = selection.run
    predictor = run_data.load_predictor(run)
    chosen = tuple(chosen_models(run, selection.models))
    key = (upload.key, tokens.predictor_token(run), chosen)
    kept: dict = st.session_state.setdefault(_PREDICTIONS, {})
    if key not in kept:
        answer = predictor.predict(upload.decoded, chosen=chosen)
        while len(kept) >= MAX_KEPT:
            kept.pop(next(iter(kept)))
        kept[key] = answer
    return kept[key]


def own_problems(selection: Selection, answer: ImagePrediction) -> list[str]:
    """Why some of the chosen models cannot answer; of others nothing is said."""
    run = selection.run
    asked = set(chosen_models(run, selection.models))
    asked |= {member for model in asked for member in run.members(model)}
    titles = {run.title(model) for model in asked}
    if not answer.predictions or asked & set(left_out(run)):
        titles.add(NO_WEIGHTS)
    return [words for title, words in answer.problems.items() if title in titles]


def forget_all() -> None:
    """Drop what is kept of pictures: answers, maps and small copies."""
    for name in [name for name in st.session_state if str(name).startswith(SHOWN)]:
        del st.session_state[name]
    for name in (_PREDICTIONS, MAPS):
        st.session_state.pop(name, None)
