"""The lesions of drawn phantoms: attenuation added to a healthy chest, and where it was added.

Each function takes (rng, frame) and returns (added, mask): added is float32 (size, size) in the
units of `Frame.attenuation`, or None; mask is bool (size, size). Outside the mask, added is 0, and
the mask lies inside `frame.lungs`. Sources of the appearances: see
`core.datasets.phantom.generate`.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from core.datasets.phantom.chest import Frame

FLOOR = 0.012  # added attenuation too weak to be seen, which would only widen the mask


def draw_normal(rng: np.random.Generator, frame: Frame) -> tuple[None, np.ndarray]:
    """No lesion."""
    return None, np.zeros(frame.lungs.shape, bool)


def draw_covid(rng: np.random.Generator, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Ground-glass patches along the pleura of both lungs, mostly in the lower zones."""
    opacity = np.zeros_like(frame.x)
    ragged = _ragged(rng, frame.x.shape[0], 14)
    for sign in (-1, 1):
        for _ in range(int(rng.integers(1, 4))):
            centre_y = rng.triangular(-0.45, 0.25, 0.42)
            centre_side = rng.uniform(0.66, 0.95)
            wide, high = rng.uniform(0.14, 0.28), rng.uniform(0.10, 0.22)
            across = (frame.side * np.sign(frame.x) * sign - centre_side) / np.float32(wide)
            r = across * across + ((frame.y - centre_y) / np.float32(high)) ** 2
            patch = np.clip(1.25 - r - 0.4 * ragged, 0, 1)
            opacity = np.maximum(opacity, patch * np.float32(rng.uniform(0.65, 1.0)))
    grain = 0.85 + 0.15 * _ragged(rng, frame.x.shape[0], 40)
    return _settle(opacity * grain, rng.uniform(0.12, 0.26), frame)


def draw_pneumonia(rng: np.random.Generator, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """One lobe or segment of one lung consolidated, with a straight edge where a fissure is."""
    right = rng.random() < 0.55
    lobe = rng.choice(["upper", "middle", "lower"], p=[0.35, 0.25, 0.4])
    signed = -frame.x if right else frame.x
    fissure_y = rng.uniform(-0.08, 0.04)
    slope = rng.normal(0.05, 0.08)
    above = fissure_y + slope * signed - frame.y  # > 0 above the fissure
    edge = 0.016 if rng.random() < 0.7 else 0.12
    if lobe == "upper":
        centre, bound = (rng.uniform(0.28, 0.48), fissure_y - rng.uniform(0.08, 0.25)), above
    elif lobe == "middle":
        centre, bound = (rng.uniform(0.25, 0.45), fissure_y + rng.uniform(0.06, 0.18)), -above
    else:
        centre, bound = (rng.uniform(0.3, 0.55), rng.uniform(0.2, 0.42)), -above - 0.08
    wide, high = rng.uniform(0.22, 0.36), rng.uniform(0.18, 0.32)
    ragged = _ragged(rng, frame.x.shape[0], 10)
    r = ((signed - centre[0]) / np.float32(wide)) ** 2
    r += ((frame.y - centre[1]) / np.float32(high)) ** 2
    opacity = np.clip((1.2 - r - 0.3 * ragged) * 1.3, 0, 1)
    opacity *= np.clip(bound * np.float32(1 / edge), 0, 1) * (signed > 0)
    if rng.random() < 0.5:
        opacity = opacity * (1 - 0.55 * _bronchi(rng, frame, centre, right))
    return _settle(opacity, rng.uniform(0.14, 0.30), frame)


LESIONS = {"covid": draw_covid, "normal": draw_normal, "pneumonia": draw_pneumonia}


def _settle(opacity: np.ndarray, strength: float, frame: Frame) -> tuple[np.ndarray, np.ndarray]:
    """Opacity 0..1 -> added attenuation and mask; only aerated lung can lose its air."""
    added = opacity * np.float32(strength) * np.minimum(frame.air * 1.3, 1) - np.float32(FLOOR)
    mask = (added > 0) & frame.lungs
    return np.where(mask, added + np.float32(FLOOR), 0).astype(np.float32), mask


def _ragged(rng: np.random.Generator, size_px: int, cells: int) -> np.ndarray:
    noise = rng.standard_normal((cells, cells), dtype=np.float32)
    image = Image.fromarray(noise).resize((size_px, size_px), Image.Resampling.BICUBIC)
    return np.asarray(image, np.float32)


def _bronchi(
    rng: np.random.Generator, frame: Frame, centre: tuple[float, float], right: bool
) -> np.ndarray:
    """Air-filled bronchi that fork from the hilum into the lesion, float32 0..1."""
    size_px = frame.x.shape[0]
    image = Image.new("L", (size_px, size_px))
    draw = ImageDraw.Draw(image)
    sign = -1 if right else 1
    # The frame is nearly upright, so its origin and pixel size place points well enough here.
    row, column = np.unravel_index(np.argmin(np.abs(frame.x) + np.abs(frame.y)), frame.x.shape)
    main = np.arctan2(centre[1] + 0.02, centre[0] - 0.14)
    for _ in range(int(rng.integers(3, 6))):
        x, y = 0.14 * sign, -0.02
        angle = main + rng.normal(0, 0.3)
        points = []
        for _ in range(7):
            points.append((column + x / frame.pixel, row + y / frame.pixel))
            angle += rng.normal(0, 0.15)
            x, y = x + sign * 0.07 * np.cos(angle), y + 0.07 * np.sin(angle)
        draw.line(points, fill=255, width=max(1, round(0.013 / frame.pixel)))
    image = image.filter(ImageFilter.GaussianBlur(max(0.5, 0.005 / frame.pixel)))
    return np.asarray(image, np.float32) * np.float32(1 / 255)
