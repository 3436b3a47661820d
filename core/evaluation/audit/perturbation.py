"""Perturbation test: models under brightness, contrast, noise, blur, JPEG, rotation and shifts.

Every strength is stated in grey levels or as a share of the side, so that it means the same at
each input size (Hendrycks & Dietterich 2019, "Benchmarking neural network robustness to common
corruptions and perturbations", has the idea of graded strengths).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter

from core.evaluation.sample import Sample
from core.formatting import interval_text, percent
from core.inference.ensemble import ModelGroup
from core.metrics.intervals import wilson_interval

# Grain is drawn on this grid and enlarged or shrunk, so that it is as coarse at every input size.
GRAIN_PX = 112
# A smaller image is enlarged to this for JPEG, whose blocks of 8 px then are as large a share of
# every image.
JPEG_PX = 448


@dataclass(frozen=True)
class Perturbation:
    """One way to alter images. alter(image uint8 (s, s), strength, rng) -> the same, altered.

    strengths rise; `neutral` is the strength that changes nothing.
    """

    title: str
    unit: str
    strengths: tuple[float, ...]
    neutral: float
    alter: Callable[[np.ndarray, float, np.random.Generator], np.ndarray]


def brighten(image: np.ndarray, levels: float, _rng=None) -> np.ndarray:
    """Grey levels added to every pixel."""
    return _as_grey(image + np.float32(levels))


def change_contrast(image: np.ndarray, factor: float, _rng=None) -> np.ndarray:
    """Every grey moved away from the image's mean, or towards it, by that factor."""
    mean = np.float32(image.mean())
    return _as_grey(mean + np.float32(factor) * (image - mean))


def add_noise(image: np.ndarray, levels: float, rng: np.random.Generator) -> np.ndarray:
    """Normal grain with that standard deviation; the same rng gives the same pattern."""
    coarse = Image.fromarray(rng.standard_normal((GRAIN_PX, GRAIN_PX), dtype=np.float32))
    grain = np.asarray(coarse.resize(image.shape[::-1], Image.Resampling.BICUBIC))
    return _as_grey(image + np.float32(levels) * (grain - grain.mean()) / grain.std())


def blur(image: np.ndarray, share: float, _rng=None) -> np.ndarray:
    """Gaussian whose standard deviation is that share of the side."""
    width_px = share * image.shape[0]
    return _as_grey(gaussian_filter(image.astype(np.float32), width_px, mode="nearest"))


def compress(image: np.ndarray, quality: float, _rng=None) -> np.ndarray:
    """There and back through JPEG of that quality."""
    whole, size = Image.fromarray(image), image.shape[::-1]
    if image.shape[0] < JPEG_PX:
        whole = whole.resize((JPEG_PX, JPEG_PX), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    whole.save(file, format="JPEG", quality=int(quality))
    with Image.open(file) as saved:
        return np.array(saved.resize(size, Image.Resampling.BOX))


def rotate(image: np.ndarray, degrees: float, _rng=None) -> np.ndarray:
    """Turned counterclockwise about the middle; the pixels of the edge go on outside."""
    edge = image.shape[0] // 4
    wide = Image.fromarray(np.pad(image, edge, mode="edge"))
    turned = np.asarray(wide.rotate(degrees, Image.Resampling.BILINEAR))
    return turned[edge:-edge, edge:-edge].copy()


def shift(image: np.ndarray, share: float, _rng=None) -> np.ndarray:
    """Moved right and down by that share of the side, to the nearest pixel."""
    by = round(share * image.shape[0])
    size = image.shape[0]
    source = np.clip(np.arange(size) - by, 0, size - 1)
    return image[np.ix_(source, source)]


KINDS: dict[str, Perturbation] = {
    "brightness": Perturbation(
        "Brightness", "grey levels of 255 added", (-60, -40, -20, 20, 40, 60), 0, brighten
    ),
    "contrast": Perturbation(
        "Contrast",
        "times, about the picture's own mean",
        (0.4, 0.6, 0.8, 1.25, 1.7, 2.5),
        1,
        change_contrast,
    ),
    "noise": Perturbation(
        "Noise",
        f"grey levels of standard deviation, grain of 1/{GRAIN_PX} of the side",
        (5, 10, 20, 40),
        0,
        add_noise,
    ),
    "blur": Perturbation(
        "Blur", "standard deviation as a share of the side", (0.005, 0.01, 0.015, 0.02), 0, blur
    ),
    "jpeg": Perturbation(
        "JPEG",
        f"quality, saved at {JPEG_PX} px or more (100: as it is)",
        (10, 25, 50, 75),
        100,
        compress,
    ),
    "rotation": Perturbation(
        "Rotation", "degrees counterclockwise", (-20, -10, -5, 5, 10, 20), 0, rotate
    ),
    "shift": Perturbation(
        "Shift",
        "share of the side, right and down",
        (-0.1, -0.05, -0.025, 0.025, 0.05, 0.1),
        0,
        shift,
    ),
}


def count_questions() -> int:
    """How often each model is asked about all images."""
    return 1 + sum(len(kind.strengths) for kind in KINDS.values())


def alter_images(
    pixels: np.ndarray, kind: str, strength: float, seed: int, rows: np.ndarray | None = None
) -> np.ndarray:
    """pixels uint8 (n, s, s), each altered.

    rows (n,): the images' numbers (0 to n-1 by default), which with the seed decide their grain:
    it is the same at every strength.
    """
    out = np.empty_like(pixels)
    numbers = range(len(pixels)) if rows is None else rows.tolist()
    for k, (i, image) in enumerate(zip(numbers, pixels, strict=True)):
        out[k] = KINDS[kind].alter(image, strength, np.random.default_rng([seed, i]))
    return out


def _alter(
    images: np.ndarray, rows: np.ndarray, *, kind: str, strength: float, seed: int
) -> np.ndarray:
    return alter_images(images, kind, strength, seed, rows)


def measure_perturbations(
    model_group: ModelGroup,
    pixels: Mapping[int, np.ndarray],
    sample: Sample,
    *,
    tick: Callable[[], object] = lambda: None,
) -> dict:
    """The audit's section `perturbation`.

    pixels: input size -> uint8 (n, s, s) of the images of `sample`, for every size of the models.
    tick is called after each question (count_questions of them).
    Returns {kinds{kind: {title, unit, strengths, neutral}}, models{model: {baseline, curves{kind:
    [{strength} + estimate]}, steepest}}}.
    """
    baseline = model_group.predict(pixels)
    tick()
    right: dict[str, dict[tuple[str, float], np.ndarray]] = {name: {} for name in model_group.names}
    curves: dict[str, dict[str, list]] = {name: {} for name in model_group.names}
    for kind, how in KINDS.items():
        for strength in how.strengths:
            alter = partial(_alter, kind=kind, strength=strength, seed=sample.seed)
            answers = model_group.predict(pixels, alter)
            for name, y_prob in answers.items():
                row = {"strength": strength} | sample.estimate(y_prob)
                curves[name].setdefault(kind, []).append(row)
                right[name][kind, strength] = sample.right(y_prob)
            tick()
    models = {}
    for name in model_group.names:
        whole = sample.right(baseline[name])
        models[name] = {
            "baseline": sample.estimate(baseline[name]),
            "curves": curves[name],
            "steepest": _steepest(sample, whole, right[name], model_group.title(name)),
        }
    kinds = {
        kind: {
            "title": how.title,
            "unit": how.unit,
            "strengths": list(how.strengths),
            "neutral": how.neutral,
        }
        for kind, how in KINDS.items()
    }
    return {"kinds": kinds, "models": models}


def mildest_strengths(kind: str) -> list[float]:
    """The strengths next to neutral, one a side where there are two."""
    how = KINDS[kind]
    below = [s for s in how.strengths if s < how.neutral][-1:]
    return below + [s for s in how.strengths if s > how.neutral][:1]


def _steps(kind: Perturbation) -> list[tuple[float, float]]:
    """Neighbouring strengths, the milder first, from neutral outwards on each side."""
    below = [s for s in reversed(kind.strengths) if s < kind.neutral]
    above = [s for s in kind.strengths if s > kind.neutral]
    return [
        pair for side in (below, above) for pair in zip([kind.neutral, *side], side, strict=False)
    ]


def _steepest(
    sample: Sample, whole: np.ndarray, right: Mapping[tuple[str, float], np.ndarray], title: str
) -> dict:
    """The step that costs most accuracy: {kind, from, to, drop, low, high, sentence}.

    whole (n,): right on the unaltered images; right: (kind, strength) -> the same when altered.
    The interval is over the same drawn patients on both sides. kind is None where no step costs
    anything.
    """
    steps = [(name, a, b) for name, kind in KINDS.items() for a, b in _steps(kind)]

    def marks(name: str, strength: float) -> np.ndarray:
        return whole if strength == KINDS[name].neutral else right[name, strength]

    drops = [marks(n, a).mean() - marks(n, b).mean() for n, a, b in steps]
    best = int(np.argmax(drops))
    name, milder, stronger = steps[best]
    if drops[best] <= 0:
        return dict.fromkeys(("kind", "from", "to", "drop", "low", "high")) | {
            "sentence": f"No alteration that was tried costs {title} any accuracy."
        }
    before, after = marks(name, milder), marks(name, stronger)
    drawn = sample.drawn_shares(before, after)
    low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    if high - low < 1e-9:  # every patient lost, which does not say that all would
        patients = len(set(sample.groups))
        low, high = wilson_interval(drops[best] * patients, patients)
    kind = KINDS[name]
    sentence = (
        f"{title} loses most where {kind.title.lower() if name != 'jpeg' else kind.title} goes "
        f"from {_strength(kind, milder)} to {_strength(kind, stronger)} ({kind.unit}): accuracy "
        f"{percent(before.mean())} to {percent(after.mean())}, {100 * drops[best]:.1f} points "
        f"({interval_text((low, high))})."
    )
    if low <= 0:
        sentence += " The interval holds 0, so this may be chance."
    return {
        "kind": name,
        "from": milder,
        "to": stronger,
        "drop": float(drops[best]),
        "low": float(low),
        "high": float(high),
        "sentence": sentence,
    }


def _strength(kind: Perturbation, value: float) -> str:
    return f"{value:+g}" if kind.strengths[0] < 0 and value else f"{value:g}"


def _as_grey(values: np.ndarray) -> np.ndarray:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
