"""A decoded picture, the error of one that cannot be used, and limits of all formats."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from core.errors import UserError

MAX_SIDE_PX = 20_000
MAX_PIXELS = 50_000_000
MAX_BYTES = 64 * 1024 * 1024
MIN_SIDE_PX = 32
NO_MEMORY = "The picture does not fit into memory; save a smaller copy."


class ImageError(UserError):
    """A picture that cannot be used; the message is one sentence a person can act on."""


@dataclass(frozen=True)
class Decoded:
    """One picture: `pixels` uint8 (height, width), grey, turned upright; sizes in px.

    synthetic: the file says of itself that it is a drawn phantom; without that word it may be one.
    colourfulness: mean over the pixels of (largest - smallest of red, green, blue) / 255; 0.0 for
    a grey image. facts: DICOM only, what the header says that identifies nobody, by keyword.
    tags_read: DICOM only, the keywords of all header tags that were read.
    """

    pixels: np.ndarray
    width: int
    height: int
    format: str
    mode: str
    synthetic: bool = False
    colourfulness: float = 0.0
    facts: Mapping[str, str] = field(default_factory=dict)
    tags_read: tuple[str, ...] = ()


def check_size(width: int, height: int) -> None:
    """Raises ImageError where the sides, or the pixels in all, are too many or too few."""
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_PIXELS:
        raise ImageError(
            f"The picture is too large ({width}×{height} px); at most {MAX_SIDE_PX} px a side and "
            f"{MAX_PIXELS / 1e6:.0f} million pixels are read, so save a smaller copy."
        )
    if min(width, height) < MIN_SIDE_PX:
        raise ImageError(
            f"The picture is too small ({width}×{height} px); "
            f"each side must be at least {MIN_SIDE_PX} px."
        )


def measure_colour(rgb: np.ndarray) -> float:
    """Mean over the pixels of (largest - smallest of the three) / 255; rgb uint8 (h, w, 3)."""
    total = 0
    step = max(1, 2**20 // rgb.shape[1])
    for start in range(0, len(rgb), step):
        red, green, blue = (rgb[start : start + step, :, c] for c in range(3))
        highest = np.maximum(np.maximum(red, green), blue)
        lowest = np.minimum(np.minimum(red, green), blue)
        total += int((highest - lowest).sum(dtype=np.int64))
    return total / (255 * rgb.shape[0] * rgb.shape[1])
