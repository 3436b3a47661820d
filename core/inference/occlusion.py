"""Heat maps by occlusion, for models that have no class activation map.

A grey patch is moved over the image, and where it makes a class less likely the class rests on
what it hid (Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks", section
4.2). Any model can be explained so; it costs one prediction for each place of the patch.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from core.errors import UserError

CELLS = 8
BATCH = 32
# Shares below it differ by rounding only: a float32 softmax has 7 digits.
SMALLEST_SHARE = 1e-7


class OcclusionError(UserError):
    """An image that cannot be explained; the message is one plain sentence."""


def occlusion_maps(
    predict: Callable[[np.ndarray], np.ndarray], pixels: np.ndarray, *, cells: int = CELLS
) -> np.ndarray:
    """How much each class loses when a place is hidden: float32 (cells, cells, C).

    predict(uint8 (n, s, s)) -> probabilities (n, C) is called with up to BATCH images at once;
    pixels: uint8 (s, s). The patch has the image's mean grey and is two cells wide, centred on
    its cell, so that neighbours overlap. The value is the fall of the class's log-probability,
    which without the mean over the classes (core.inference.class_activation.class_heat) is the fall
    of its logit, as in a class activation map; it does not vanish where a model is very sure.

    Raises:
        OcclusionError: no grey square, or more cells than pixels.
    """
    pixels = np.asarray(pixels)
    if pixels.ndim != 2 or pixels.shape[0] != pixels.shape[1] or pixels.dtype != np.uint8:
        raise OcclusionError(
            "Grey uint8 pixels of shape (size, size) were expected. "
            f"Received: {pixels.dtype} {pixels.shape}."
        )
    if not 1 <= cells <= len(pixels):
        raise OcclusionError(f"There can be 1 to {len(pixels)} cells a side. Received: {cells}.")
    whole = _evidence(predict(pixels[None]))
    places = [(row, column) for row in range(cells) for column in range(cells)]
    hidden = [
        _evidence(predict(_hide(pixels, places[start : start + BATCH], cells)))
        for start in range(0, len(places), BATCH)
    ]
    fall = whole - np.concatenate(hidden)
    return fall.reshape(cells, cells, -1).astype(np.float32)


def _evidence(probabilities: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(np.asarray(probabilities, np.float64), SMALLEST_SHARE))


def _hide(pixels: np.ndarray, places: list[tuple[int, int]], cells: int) -> np.ndarray:
    """Copies of the image (n, s, s), each with the patch over one of the places."""
    size = len(pixels)
    grey = np.uint8(round(float(pixels.mean())))
    copies = np.repeat(pixels[None], len(places), axis=0)
    for copy, place in zip(copies, places, strict=True):
        low = [max(0, round((cell - 0.5) * size / cells)) for cell in place]
        high = [round((cell + 1.5) * size / cells) for cell in place]
        copy[low[0] : high[0], low[1] : high[1]] = grey
    return copies
