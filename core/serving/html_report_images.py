"""The images of a report (core.serving.html_report) as data URIs: the image, its heat maps and
their scale.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image

from core.datasets.phantom.generate import label_synthetic
from core.imageio.decode import Decoded
from core.inference.class_activation import (
    CLASS_ACTIVATION,
    MEAN_OF_MEMBERS,
    OCCLUSION,
    class_heat,
    heat_colours,
    mean_heat,
    overlay,
)
from core.serving.predict import ImagePrediction, ModelPrediction

IMAGE_SIDE_PX, MAP_SIDE_PX = 768, 448
MAP_OPACITY = 0.6
METHODS = {
    CLASS_ACTIVATION: "class activation map (Zhou et al. 2016)",
    OCCLUSION: "occlusion map (Zeiler and Fergus 2014)",
    MEAN_OF_MEMBERS: "mean of its members' maps, each scaled to its own maximum",
}


def draw_maps(
    decoded: Decoded, prediction: ImagePrediction, occlusion: Mapping[str, np.ndarray]
) -> list[dict[str, Any]]:
    """A heat map of each model that has one, for the class that the model says."""
    grey, drawn = _shown(decoded.pixels, MAP_SIDE_PX), []
    for own in prediction.predictions:
        heat, method = _heat(prediction, own, occlusion)
        if heat is None:
            continue
        pixels = overlay(grey, heat, MAP_OPACITY)
        drawn.append(
            {
                "title": own.title,
                "predicted": own.predicted,
                "method": METHODS[method],
                "empty": not heat.any(),
                "uri": _uri(label_synthetic(pixels) if decoded.synthetic else pixels, "JPEG"),
            }
        )
    return drawn


def _heat(
    prediction: ImagePrediction, own: ModelPrediction, occlusion: Mapping[str, np.ndarray]
) -> tuple[np.ndarray | None, str]:
    """Heat (h, w), 0 to 1, for the class that `own` says, and how it was made; None without."""
    k = prediction.class_names.index(own.predicted)
    sources = [prediction.of(name) for name in own.members] or [own]
    maps = [
        occlusion.get(one.model) if one.class_maps is None else one.class_maps
        for one in sources
        if one is not None
    ]
    heats = [class_heat(one, k) for one in maps if one is not None]
    if len(heats) < len(sources):
        return None, ""
    if own.members:
        return mean_heat(heats), MEAN_OF_MEMBERS
    return heats[0], OCCLUSION if own.class_maps is None else CLASS_ACTIVATION


def titles_without_map(
    prediction: ImagePrediction, occlusion: Mapping[str, np.ndarray]
) -> list[str]:
    """The models that have no heat map, by title."""
    return [
        own.title for own in prediction.predictions if _heat(prediction, own, occlusion)[0] is None
    ]


def draw_image(decoded: Decoded) -> str:
    """The image itself, with a mark where it is synthetic."""
    grey = _shown(decoded.pixels, IMAGE_SIDE_PX)
    return _uri(label_synthetic(grey) if decoded.synthetic else grey, "PNG")


def _shown(grey: np.ndarray, side_px: int) -> np.ndarray:
    """Grey uint8 shrunk, shape kept, so that the longer side is at most side_px."""
    scale = side_px / max(grey.shape)
    if scale >= 1:
        return grey
    size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
    return np.asarray(Image.fromarray(grey).resize(size, Image.Resampling.LANCZOS))


def draw_scale() -> str:
    """The colours of heat 0 to 1, from left to right."""
    row = heat_colours(np.linspace(0, 1, 256))[None].repeat(8, axis=0)
    return _uri(np.rint(row).astype(np.uint8), "PNG")


def _uri(pixels: np.ndarray, file_format: str) -> str:
    """Pixels alone as a data URI: nothing of the file that they came from goes along."""
    buffer = io.BytesIO()
    settings = {"quality": 88, "subsampling": 0} if file_format == "JPEG" else {"optimize": True}
    Image.fromarray(pixels).save(buffer, file_format, **settings)
    data = base64.b64encode(buffer.getvalue()).decode()
    return f"data:image/{file_format.lower()};base64,{data}"
