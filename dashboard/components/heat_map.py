"""The image under a heat map: of which model and class, how it is made, what it means."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import streamlit as st

from core.datasets.phantom.generate import label_synthetic
from core.imageio.decode import resize_square
from core.inference.class_activation import (
    CLASS_ACTIVATION,
    MEAN_OF_MEMBERS,
    OCCLUSION,
    class_heat,
    mean_heat,
    overlay,
)
from core.inference.occlusion import occlusion_maps
from core.serving.predict import ImagePrediction, ModelPrediction, Predictor
from dashboard.components.choice import choose
from dashboard.components.live_predictions import MAPS, MAX_KEPT, SHOWN
from dashboard.components.markdown import escape
from dashboard.components.sidebar import Selection
from dashboard.data import runs as run_data
from dashboard.data import tokens
from dashboard.predict.model_choice import shown_pixels, shown_predictions
from dashboard.predict.uploads import Upload

LARGE_PX = 520
METHODS = {
    CLASS_ACTIVATION: "class activation map",
    OCCLUSION: "occlusion, what a grey patch took away, as this model has no class activation map",
    MEAN_OF_MEMBERS: "mean of its members' maps, each scaled to its own maximum",
}


@dataclass(frozen=True)
class Heat:
    """A heat map (h, w), 0 to 1, of one class, and how it was made
    (core.inference.class_activation's names).
    """

    values: np.ndarray
    method: str


def draw_heat(
    selection: Selection, upload: Upload, answer: ImagePrediction, key: str, warning: str = ""
) -> str | None:
    """The picture under a heat map, with model, class and opacity to choose.

    warning stands before the caption, such as that the guard refused the picture. Returns the
    model whose map is shown, None where there is none.
    """
    synthetic = upload.decoded.synthetic
    kind = "Drawn phantom, SYNTHETIC, " if synthetic else "Picture "
    pixels, caption = _shown(upload, key), "No model could answer, so there is no heat map."
    slot = st.container()
    own = None
    if answer.predictions:
        with slot.container(horizontal=True):
            own, label = _choose_heat(selection, upload, answer, key)
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
        heat = find_heat(selection, upload, answer, own, label)
        pixels = overlay(pixels, heat.values, opacity / 100)
        height, width = heat.values.shape
        caption = (
            f"Where {own.title} finds more for {label} than for the other classes "
            f"({METHODS[heat.method]}; {height}×{width} places, "
            "the brightest is its own maximum). "
            "It shows what the score rests on, not where a disease is."
        )
        if not heat.values.any():
            caption = f"{own.title} finds nothing anywhere that speaks for {label}."
    caption = f"{warning} {caption}".strip()
    shown = label_synthetic(pixels) if synthetic else pixels
    slot.image(shown, width=_shown_width(shown), alt=f"{kind}{upload.name}. {caption}")
    st.caption(escape(caption))
    return own.model if own else None


# A slider that moves draws the map again, and neither asks the models nor draws the page.
show_heat = st.fragment(draw_heat)


def find_heat(
    selection: Selection,
    upload: Upload,
    answer: ImagePrediction,
    own: ModelPrediction,
    label: str,
) -> Heat:
    """One answer's heat map for a class; a mean's is made of its members'."""
    k = answer.class_names.index(label)
    if not own.members:
        maps, method = model_maps(selection, upload, own)
        return Heat(class_heat(maps, k), method)
    parts = [part for part in map(answer.of, own.members) if part is not None]
    heats = [class_heat(model_maps(selection, upload, part)[0], k) for part in parts]
    return Heat(mean_heat(heats), MEAN_OF_MEMBERS)


def model_maps(
    selection: Selection, upload: Upload, own: ModelPrediction
) -> tuple[np.ndarray, str]:
    """A single model's maps (h, w, C) and how they are made; occlusion's are kept once made."""
    if own.class_maps is not None:
        return own.class_maps, CLASS_ACTIVATION
    kept: dict = st.session_state.setdefault(MAPS, {})
    key = (upload.key, tokens.predictor_token(selection.run), own.model)
    if key not in kept:
        with st.spinner("Hiding the picture place by place …"):
            maps = occlude(run_data.load_predictor(selection.run), upload, own)
        while len(kept) >= MAX_KEPT:
            kept.pop(next(iter(kept)))
        kept[key] = maps
    return kept[key], OCCLUSION


def occlude(predictor: Predictor, upload: Upload, own: ModelPrediction) -> np.ndarray:
    """Occlusion maps (h, w, C) of a model that has no class activation map; asks it anew."""
    model = predictor.models[own.model]
    pixels = resize_square(upload.decoded.pixels, own.input_size_px)
    return occlusion_maps(lambda shown: model.predict(shown).probabilities, pixels)


def _choose_heat(
    selection: Selection, upload: Upload, answer: ImagePrediction, key: str
) -> tuple[ModelPrediction, str]:
    """The model and the class whose map is shown; each picture begins with the model's answer."""
    by_model = {own.model: own for own in shown_predictions(selection.run, answer)}
    titles = {name: own.title for name, own in by_model.items()}
    model = choose("Heat map of", titles, f"{key}_heat_model", titles, wrap=True)
    own = by_model[model]
    class_key = f"{key}_heat_class"
    whose = (upload.sha256, model, own.predicted)
    if st.session_state.get(f"{class_key}_of") != whose:
        st.session_state[f"{class_key}_of"] = whose
        st.session_state[class_key] = own.predicted
    label = choose("for the class", answer.class_names, class_key, {}, own.predicted, wrap=True)
    return own, label


def _shown(upload: Upload, key: str) -> np.ndarray:
    """The picture small enough to show; made once, not each time that a slider moves."""
    name = f"{SHOWN}_{key}"
    kept = st.session_state.get(name)
    if kept is None or kept[0] != upload.sha256:
        kept = (upload.sha256, shown_pixels(upload.decoded.pixels))
        st.session_state[name] = kept
    return kept[1]


def _shown_width(pixels: np.ndarray) -> int:
    """Small pictures are enlarged, tall ones kept to one screen's height, in px."""
    height, width = pixels.shape[:2]
    return max(1, round(min(LARGE_PX, LARGE_PX * width / height)))
