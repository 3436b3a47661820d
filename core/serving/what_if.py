"""What if the image were brighter, turned, cropped, or partly hidden? Pixels in, pixels out.

Changes follow one another in a fixed order: flip, rotation, crop, contrast, brightness, hidden box.
So the crop is of the turned image and the box of the image as it then stands. Nothing is
reflected into the image: what rotation brings in from outside, and what the box hides, has one
level (`fill`). A change that is neutral touches no pixel, so the models' answer stays the same.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from core.errors import UserError

FILLS = ("mean", "black")
MIN_VISIBLE = 0.1  # share of each side that a crop has to leave


class AlteringError(UserError):
    """Changes that cannot be made; the message is one sentence."""


@dataclass(frozen=True)
class Box:
    """A rectangle in shares (0 to 1) of the image's width and height, from its upper left."""

    left: float
    top: float
    width: float
    height: float

    def __post_init__(self) -> None:
        inside = (
            0 <= self.left < 1
            and 0 <= self.top < 1
            and 0 < self.width <= 1 - self.left + 1e-9
            and 0 < self.height <= 1 - self.top + 1e-9
        )
        if not inside:
            raise AlteringError(
                "A box lies inside the picture, in shares of its sides, and is not empty. "
                f"Received: left {self.left:g}, top {self.top:g}, width {self.width:g}, height "
                f"{self.height:g}."
            )

    def slices(self, shape: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of an image (h, w) that the box covers, at least one of each."""
        return (
            _span(self.top, self.top + self.height, shape[0]),
            _span(self.left, self.left + self.width, shape[1]),
        )


@dataclass(frozen=True)
class Changes:
    """What is done to an image; as it is made, nothing.

    brightness: grey levels of 255 added. contrast: times, about the image's own mean. rotation:
    degrees counterclockwise about the middle, the image keeps its size. flip: left and right
    change places. across, down: what the crop keeps, from where to where in shares of the sides.
    hidden: the box painted over. fill: "mean", the image's mean grey, or "black".
    """

    brightness: float = 0.0
    contrast: float = 1.0
    rotation: float = 0.0
    flip: bool = False
    across: tuple[float, float] = (0.0, 1.0)
    down: tuple[float, float] = (0.0, 1.0)
    hidden: Box | None = None
    fill: str = "mean"

    def __post_init__(self) -> None:
        if not -255 <= self.brightness <= 255:
            raise AlteringError(f"Brightness is -255 to 255 levels. Received: {self.brightness}.")
        if not 0 <= self.contrast <= 100:
            raise AlteringError(f"Contrast is 0 to 100 times. Received: {self.contrast}.")
        if not -180 <= self.rotation <= 180:
            raise AlteringError(f"Rotation is -180 to 180 degrees. Received: {self.rotation}.")
        for name, (start, stop) in (("across", self.across), ("down", self.down)):
            if not (start >= 0 and stop <= 1 and stop - start >= MIN_VISIBLE - 1e-9):
                raise AlteringError(
                    f"A crop keeps at least {100 * MIN_VISIBLE:.0f} % of each side. "
                    f"Received: {name} from {start:g} to {stop:g}."
                )
        if self.fill not in FILLS:
            raise AlteringError(f"The fill is one of {', '.join(FILLS)}. Received: {self.fill!r}.")

    @property
    def neutral(self) -> bool:
        """Whether nothing is changed (the fill alone changes nothing)."""
        return self == Changes(fill=self.fill)


def apply_changes(pixels: np.ndarray, changes: Changes) -> np.ndarray:
    """Grey uint8 (h, w) -> changed uint8 (h', w'), smaller only where it is cropped; a new array.

    Raises:
        AlteringError: pixels of another kind.
    """
    if pixels.ndim != 2 or pixels.dtype != np.uint8 or not pixels.size:
        raise AlteringError(
            "Grey uint8 pixels of shape (height, width) were expected. "
            f"Received: {pixels.dtype} {pixels.shape}."
        )
    changed = pixels[:, ::-1] if changes.flip else pixels
    if changes.rotation:
        picture = Image.fromarray(np.ascontiguousarray(changed))
        changed = np.asarray(
            picture.rotate(
                changes.rotation,
                Image.Resampling.BILINEAR,
                fillcolor=_fill_level(changed, changes.fill),
            )
        )
    height, width = changed.shape
    changed = changed[_span(*changes.down, height), _span(*changes.across, width)]
    if changes.brightness or changes.contrast != 1:
        # By a table of the 256 levels: a large image in float would take four times its memory.
        changed = _level_table(changed, changes)[changed]
    changed = changed.copy()
    if changes.hidden is not None:
        changed[changes.hidden.slices(changed.shape)] = _fill_level(changed, changes.fill)
    return changed


def describe_changes(changes: Changes) -> str:
    """What was changed, in words, such as "flipped, turned 5° counterclockwise"; "" for nothing."""
    words = []
    if changes.flip:
        words.append("flipped left to right")
    if changes.rotation:
        way = "counterclockwise" if changes.rotation > 0 else "clockwise"
        words.append(f"turned {abs(changes.rotation):g}° {way}")
    kept = [100 * (stop - start) for start, stop in (changes.across, changes.down)]
    if (changes.across, changes.down) != ((0.0, 1.0), (0.0, 1.0)):
        words.append(f"cropped to {kept[0]:.0f} % of its width and {kept[1]:.0f} % of its height")
    if changes.contrast != 1:
        words.append(f"contrast times {changes.contrast:g}")
    if changes.brightness:
        way = "brighter" if changes.brightness > 0 else "darker"
        words.append(f"{abs(changes.brightness):g} levels {way}")
    if changes.hidden is not None:
        area = 100 * changes.hidden.width * changes.hidden.height
        level = "mean grey" if changes.fill == "mean" else "black"
        words.append(f"{area:.1f} % of its area hidden under {level}")
    return ", ".join(words)


def _span(start: float, stop: float, size: int) -> slice:
    """The pixels from one share of a side to another, to the nearest pixel, at least one."""
    first = min(round(start * size), size - 1)
    return slice(first, max(first + 1, min(round(stop * size), size)))


def _level_table(pixels: np.ndarray, changes: Changes) -> np.ndarray:
    """uint8 (256,): grey level -> changed level, rounded once and clipped."""
    mean = pixels.mean()
    levels = mean + changes.contrast * (np.arange(256) - mean) + changes.brightness
    return np.clip(np.rint(levels), 0, 255).astype(np.uint8)


def _fill_level(pixels: np.ndarray, fill: str) -> int:
    return 0 if fill == "black" else round(float(pixels.mean()))
