"""Heat maps from forward passes: where in the image a class's score comes from.

Mostly the map is the class activation map of Zhou et al. 2016 ("Learning deep features for
discriminative localization", section 2): a model that ends in global average pooling and one dense
layer gives it with the same pass as the probabilities. It is coarse and shows what the score rests
on, which is not necessarily the disease. A model without one is explained by occlusion
(core.inference.occlusion). How far the maps of a run's models can be trusted is measured by
core.evaluation.heatmaps.evaluate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from PIL import Image

from core.errors import UserError
from core.inference.occlusion import occlusion_maps
from core.inference.served_model import Output

# How a map was made, as it is named everywhere.
CLASS_ACTIVATION = "class activation"
OCCLUSION = "occlusion"
MEAN_OF_MEMBERS = "mean of the members' maps"

# Black to yellow through violet and orange (points of the perceptually even "inferno" scale), so
# that lightness alone tells the order and no colour of a model or of right and wrong is used.
_SCALE = np.array(
    [
        (0, 0, 4),
        (51, 10, 95),
        (120, 28, 109),
        (187, 55, 84),
        (237, 105, 37),
        (251, 180, 26),
        (252, 255, 164),
    ],
    np.float32,
)


class ExplainError(UserError):
    """A map that cannot be drawn; the message is one plain sentence."""


class Model(Protocol):
    """What is served (core.inference.served_model.ServedModel)."""

    def predict(self, pixels: np.ndarray) -> Output: ...


@dataclass(frozen=True)
class Maps:
    """What speaks for each class by place: values float32 (h, w, C), any scale; method: its name.

    The map covers the whole image, as the image was stretched to the model's square.
    """

    values: np.ndarray
    method: str


def model_maps(model: Model, pixels: np.ndarray, output: Output, row: int = 0) -> Maps:
    """The maps of any served model for one image: class activation, else occlusion.

    pixels: uint8 (s, s), what the model was given; output: its prediction, in which the image is
    number `row`. Occlusion runs the model some dozens of times more.
    """
    if output.class_maps is not None:
        return Maps(np.asarray(output.class_maps[row], np.float32), CLASS_ACTIVATION)
    return Maps(occlusion_maps(lambda shown: model.predict(shown).probabilities, pixels), OCCLUSION)


def heat_map(class_map: np.ndarray) -> np.ndarray:
    """Class activation (h, w), any scale -> float32 (h, w), 0 to 1.

    What speaks against the class (negative) becomes 0; the rest is divided by its own maximum, so
    two maps compare by place and not by strength. All 0 where nothing speaks for the class.
    """
    values = np.asarray(class_map, np.float32)
    if values.ndim != 2 or values.size == 0:
        raise ExplainError(
            f"A class map of shape (height, width) was expected. Received: {values.shape}."
        )
    if not np.isfinite(values).all():
        raise ExplainError("The class map holds values that are no numbers (NaN or infinite).")
    values = np.maximum(values, 0)
    top = values.max()
    return values / top if top > 0 else values


def class_heat(class_maps: np.ndarray, k: int) -> np.ndarray:
    """Logits by place (h, w, C) -> heat map (h, w) of class k, 0 to 1.

    The places' mean over the classes is taken off first: softmax does not see what is added to
    every class alike, so only what speaks for k more than for the others is shown.
    """
    return heat_map(class_evidence(class_maps, k))


def class_evidence(class_maps: np.ndarray, k: int) -> np.ndarray:
    """What class_heat shows, with what speaks against class k left in as negative: (h, w)."""
    maps = np.asarray(class_maps, np.float32)
    if maps.ndim != 3 or not 0 <= k < maps.shape[-1]:
        raise ExplainError(
            "Class maps of shape (height, width, classes) and one of those classes were expected. "
            f"Received: {maps.shape} and class {k}."
        )
    return maps[..., k] - maps.mean(axis=-1)


def mean_heat(heats: Sequence[np.ndarray]) -> np.ndarray:
    """The heat map of a mean of models: the mean of its members' heat maps (h, w), 0 to 1.

    Every member counts alike, whatever the scale of its logits; maps of different sizes are
    stretched to the largest. The mean reaches 1 only where all members are hottest.
    """
    if not heats:
        raise ExplainError("The heat maps of at least one model were expected.")
    height, width = (max(np.shape(heat)[axis] for heat in heats) for axis in (0, 1))
    return np.mean([stretch_heat(heat, height, width) for heat in heats], axis=0)


def stretch_heat(heat: np.ndarray, height: int, width: int) -> np.ndarray:
    """A heat map (h, w), 0 to 1, over an image: float32 (height, width), 0 to 1, bicubic.

    Cell (i, j) covers its share of the image, so the map lies where the model looked, also when
    the image is no square.
    """
    heat = np.asarray(heat, np.float32)
    if heat.ndim != 2 or not np.isfinite(heat).all() or heat.min() < 0 or heat.max() > 1:
        raise ExplainError("A heat map of shape (height, width) with values 0 to 1 was expected.")
    large = Image.fromarray(heat).resize((width, height), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(large, np.float32), 0, 1)


def overlay(grey: np.ndarray, heat: np.ndarray, opacity: float) -> np.ndarray:
    """Lay a heat map over an image.

    grey uint8 (height, width); heat (h, w), 0 to 1, is stretched to the image as the image was
    stretched to the model's square. A pixel takes opacity × heat of the colour, so cold places
    stay as they are and opacity 0 gives the image back. Returns uint8 (height, width, 3).
    """
    grey = np.asarray(grey)
    if grey.ndim != 2 or grey.dtype != np.uint8:
        raise ExplainError(
            "Grey uint8 pixels of shape (height, width) were expected. "
            f"Received: {grey.dtype} {grey.shape}."
        )
    if not 0 <= opacity <= 1:
        raise ExplainError(f"Opacity must be between 0 and 1. Received: {opacity}.")
    heat = stretch_heat(heat, *grey.shape)
    weight = (opacity * heat)[..., None]
    mixed = (1 - weight) * grey[..., None].astype(np.float32) + weight * heat_colours(heat)
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def heat_colours(heat: np.ndarray) -> np.ndarray:
    """Heat 0 to 1 of any shape -> float32 RGB (..., 3), 0 to 255, along the scale."""
    position = np.clip(np.asarray(heat, np.float32), 0, 1) * (len(_SCALE) - 1)
    low = np.minimum(position.astype(np.int64), len(_SCALE) - 2)
    part = (position - low)[..., None]
    return _SCALE[low] * (1 - part) + _SCALE[low + 1] * part
