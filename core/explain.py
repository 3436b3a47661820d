"""Heat maps from forward passes: where in the picture a class's score comes from.

The map is the class activation map of Zhou et al. 2016 ("Learning deep features for discriminative
localization", section 2): a model that ends in global average pooling and one dense layer gives it
with the same pass as the probabilities. It is coarse and shows what the score rests on, which is
not necessarily the disease.
"""

from __future__ import annotations

import numpy as np
from PIL import Image

# Black to yellow through violet and orange (points of the perceptually even "inferno" scale), so
# that lightness alone tells the order and no colour of a model or of right and wrong is used.
_SCALE = np.array(
    [(0, 0, 4), (51, 10, 95), (120, 28, 109), (187, 55, 84), (237, 105, 37), (251, 180, 26),
     (252, 255, 164)],
    np.float32,
)  # fmt: skip


class ExplainError(ValueError):
    """A map that cannot be drawn; the message is one plain sentence."""


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
    maps = np.asarray(class_maps, np.float32)
    if maps.ndim != 3 or not 0 <= k < maps.shape[-1]:
        raise ExplainError(
            "Class maps of shape (height, width, classes) and one of those classes were expected. "
            f"Received: {maps.shape} and class {k}."
        )
    return heat_map(maps[..., k] - maps.mean(axis=-1))


def overlay(grey: np.ndarray, heat: np.ndarray, opacity: float) -> np.ndarray:
    """Lay a heat map over a picture.

    grey uint8 (height, width); heat (h, w), 0 to 1, is stretched to the picture as the picture was
    stretched to the model's square. A pixel takes opacity × heat of the colour, so cold places
    stay as they are and opacity 0 gives the picture back. Returns uint8 (height, width, 3).
    """
    grey, heat = np.asarray(grey), np.asarray(heat, np.float32)
    if grey.ndim != 2 or grey.dtype != np.uint8:
        raise ExplainError(
            "Grey uint8 pixels of shape (height, width) were expected. "
            f"Received: {grey.dtype} {grey.shape}."
        )
    if heat.ndim != 2 or not np.isfinite(heat).all() or heat.min() < 0 or heat.max() > 1:
        raise ExplainError("A heat map of shape (height, width) with values 0 to 1 was expected.")
    if not 0 <= opacity <= 1:
        raise ExplainError(f"Opacity must be between 0 and 1. Received: {opacity}.")
    height, width = grey.shape
    large = Image.fromarray(heat).resize((width, height), Image.Resampling.BICUBIC)
    heat = np.clip(np.asarray(large, np.float32), 0, 1)
    weight = (opacity * heat)[..., None]
    mixed = (1 - weight) * grey[..., None].astype(np.float32) + weight * heat_colours(heat)
    return np.rint(mixed).clip(0, 255).astype(np.uint8)


def heat_colours(heat: np.ndarray) -> np.ndarray:
    """Heat 0 to 1 of any shape -> float32 RGB (..., 3), 0 to 255, along the scale."""
    position = np.clip(np.asarray(heat, np.float32), 0, 1) * (len(_SCALE) - 1)
    low = np.minimum(position.astype(np.int64), len(_SCALE) - 2)
    part = (position - low)[..., None]
    return _SCALE[low] * (1 - part) + _SCALE[low + 1] * part
