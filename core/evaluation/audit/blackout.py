"""Blackout test: what the models still know when the lungs are hidden, and when only they are left.

A model that reads disease needs the lungs. One that keeps most of its gain without them reads the
collection that the image comes from (Maguolo & Nanni 2021, "A critic evaluation of methods for
COVID-19 automatic detection from X-ray images"; DeGrave et al. 2021, "AI for radiographic COVID-19
detection selects shortcuts over signal").
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter

from core.evaluation.sample import Sample, as_estimate
from core.evaluation.shortcut_baselines import (
    THUMBNAIL_PX,
    grey_histograms,
    score_baseline,
    thumbnails,
)
from core.formatting import percent, with_interval
from core.imageio.decode import resize_square
from core.inference.ensemble import ModelGroup
from core.metrics.classification import predicted_index
from core.metrics.intervals import wilson_interval

# Top, left, bottom, right as shares of the side. Wider than the lungs of nearly every frontal
# image (closely cropped ones fill the frame): what is left when it is hidden shows none of them.
LUNG_BOX = (0.05, 0.05, 0.90, 0.95)
BOX_RULE = (
    "One box that holds both lungs of a frontal chest X-ray with room to spare: the outer 5\u202f% "
    "of the picture stay at the top and at both sides, 10\u202f% at the bottom."
)
MASKS_RULE = "The masks that were given: every pixel of a mask that is not 0 is lung."
FILLS = {
    "mean": "the mean grey of the training images, one even patch with an edge",
    "surroundings": "greys that go on from the pixels around it, with their grain: no edge and "
    "no patch of another brightness, and nothing in it from what is hidden",
}
FLAG_SHARE = 0.5
# From this share on the masked images are called alike: what is retained then says little.
ALIKE_SHARE = 0.95
RULE = (
    "Flagged: without the lungs the model keeps more than half of its gain above the majority "
    "rate, with either fill. The interval of the share kept draws the same patients for both "
    "accuracies."
)
# The baselines of core.evaluation.shortcut_baselines that are trained on the masked images: where
# they too know the classes, the rest of the image (or the masking) gives them away to anyone.
BASELINES = {
    "histogram": ("Grey-level histogram only", grey_histograms),
    "thumbnail": (
        f"{THUMBNAIL_PX}×{THUMBNAIL_PX} thumbnail",
        lambda pixels: thumbnails(pixels).reshape(len(pixels), -1),
    ),
}
PARTS = ("without_lungs", "lungs_only")
_SMOOTH_PX = 64
# How much less each doubling of the distance counts: the nearest pixels decide.
_FADE = 0.05
# Why a blackout test of CT slices needs masks.
NO_BOX = (
    "Its box is where the lungs of a frontal chest X-ray lie, and the models read CT slices: give "
    "a lung mask for each slice (--masks)."
)


@dataclass(frozen=True)
class BaselineImages:
    """What the baselines are trained and scored on: all n images of the run, small.

    pixels uint8 (n, s, s); manifest: n rows with label, split, patient_id; lungs bool (n, s, s)
    where masks were given.
    """

    pixels: np.ndarray
    manifest: pd.DataFrame
    lungs: np.ndarray | None = None


@dataclass(frozen=True)
class Masking:
    """How lungs are hidden, or all else.

    mean_grey of the training images; seed of the grain; lungs: input size -> bool (n, s, s) where
    masks were given, else LUNG_BOX.
    """

    mean_grey: float
    seed: int
    lungs: Mapping[int, np.ndarray] | None = None

    def hide(self, images: np.ndarray, rows: np.ndarray, part: str, fill: str) -> np.ndarray:
        """Images uint8 (n, s, s), which are the numbers `rows` (n,), without a part of PARTS."""
        size_px = images.shape[1]
        inside = lung_box(size_px) if self.lungs is None else self.lungs[size_px][rows]
        hidden = inside if part == "without_lungs" else ~inside
        return fill_hidden(images, hidden, fill, self.mean_grey, self.seed, rows)


def lung_box(size_px: int) -> np.ndarray:
    """True inside LUNG_BOX: (size_px, size_px) bool."""
    top, left, bottom, right = (round(share * size_px) for share in LUNG_BOX)
    mask = np.zeros((size_px, size_px), dtype=bool)
    mask[top:bottom, left:right] = True
    return mask


def fill_hidden(
    pixels: np.ndarray,
    hidden: np.ndarray,
    fill: str,
    mean_grey: float,
    seed: int,
    rows: np.ndarray | None = None,
) -> np.ndarray:
    """pixels uint8 (n, s, s) with `hidden` (s, s) or (n, s, s) bool replaced; fill of FILLS.

    rows (n,): the images' numbers, which with the seed decide their grain (0 to n-1 by default).
    """
    hidden = np.broadcast_to(hidden, pixels.shape)
    out = np.empty_like(pixels)
    numbers = range(len(pixels)) if rows is None else rows.tolist()
    for k, (i, image, mask) in enumerate(zip(numbers, pixels, hidden, strict=True)):
        if fill == "mean":
            greys = np.full(image.shape, mean_grey, np.float32)
        else:
            rng = np.random.default_rng([seed, i])
            greys = _go_on(image, mask, mean_grey)
            greys += _grain(image, mask) * rng.standard_normal(image.shape, dtype=np.float32)
        out[k] = np.where(mask, np.clip(np.rint(greys), 0, 255).astype(np.uint8), image)
    return out


def measure_blackout(
    model_group: ModelGroup,
    pixels: Mapping[int, np.ndarray],
    sample: Sample,
    masking: Masking,
    *,
    majority: int,
    baselines: BaselineImages | None = None,
    tick: Callable[[], object] = lambda: None,
) -> dict[str, Any]:
    """The audit's section `blackout`.

    pixels: input size -> uint8 (n, s, s) of the images of `sample`, for every size of the models;
    majority: the most frequent class of train and val; baselines: the images to train baselines on
    (none are trained without). tick is called after each question and each baseline.

    Returns {region, majority_rate, n, fills, parts, models{model: {full, without_lungs{fill},
    lungs_only{fill}, flagged, sentence}}, floors{fill: {part: {baseline}}}, rule}; a part's fill is
    an estimate with kept{share, low, high} and called{class: n}. See docs/artifacts.md.
    """
    always = np.full(len(sample.y_true), majority) == sample.y_true
    full = model_group.predict(pixels)
    tick()
    result: dict[str, dict[str, Any]] = {
        name: {"full": sample.estimate(full[name])} | {part: {} for part in PARTS}
        for name in model_group.names
    }
    for part in PARTS:
        for fill in FILLS:
            answers = model_group.predict(pixels, partial(masking.hide, part=part, fill=fill))
            for name in model_group.names:
                called = np.bincount(
                    predicted_index(answers[name]), minlength=len(sample.class_names)
                )
                result[name][part][fill] = {
                    **sample.estimate(answers[name]),
                    "kept": retained_share(sample, answers[name], full[name], always),
                    "called": dict(zip(sample.class_names, called.tolist(), strict=True)),
                }
            tick()
    for name, row in result.items():
        row.update(_judge(row, model_group.title(name)))
    return {
        "region": {
            "rule": MASKS_RULE if masking.lungs else BOX_RULE,
            "kind": "masks" if masking.lungs else "box",
            "boxes": [] if masking.lungs else [list(LUNG_BOX)],
        },
        "majority_rate": float(always.mean()),
        "n": len(sample.y_true),
        "fills": FILLS,
        "models": result,
        "floors": _masked_baselines(baselines, sample, masking, tick) if baselines else {},
        "rule": RULE,
    }


def retained_share(
    sample: Sample, masked: np.ndarray, full: np.ndarray, always: np.ndarray
) -> dict[str, float | None]:
    """{share, low, high} of the gain above the majority rate that masked answers keep.

    masked and full: probabilities (n, C); always (n,): where the most frequent class is right.
    share = (accuracy masked - majority) / (accuracy full - majority), each draw with the same
    patients above and below. All None where the full accuracy is no gain; no interval where more
    than one draw in 40 has none, for then it has no end. Where every draw gives the same share,
    Wilson's interval of 0 in n patients stands for the patients who might answer otherwise.
    """
    right = sample.right(masked), sample.right(full)
    gain = right[1].mean() - always.mean()
    if gain <= 0:
        return {"share": None, "low": None, "high": None}
    share = float((right[0].mean() - always.mean()) / gain)
    masked_rate, full_rate, majority_rate = sample.drawn_shares(*right, always)
    gained = full_rate > majority_rate
    if gained.mean() < 0.975:
        return {"share": share, "low": None, "high": None}
    retained = (masked_rate - majority_rate)[gained] / (full_rate - majority_rate)[gained]
    low, high = np.quantile(retained, [0.025, 0.975])
    if high - low < 1e-9:  # no patient answered otherwise, which does not say that none would
        patients = len(set(sample.groups))
        width = wilson_interval(0, patients)[1] / gain
        low, high = share - width, min(share + width, (1 - always.mean()) / gain)
    return {"share": share, "low": float(low), "high": float(high)}


def _go_on(image: np.ndarray, hidden: np.ndarray, mean_grey: float) -> np.ndarray:
    """Smooth greys (s, s) float32 that take over from the pixels that are not hidden.

    Normalised convolution (Knutsson & Westin 1993) summed over doubling widths, so that near the
    edge the nearest pixels decide and far from it all of them do.
    """
    size = (_SMOOTH_PX, _SMOOTH_PX)
    seen = (~hidden).astype(np.float32)
    weight = np.asarray(Image.fromarray(seen).resize(size, Image.Resampling.BOX))
    value = np.asarray(Image.fromarray(image * seen).resize(size, Image.Resampling.BOX))
    total, weights = np.zeros(size), np.zeros(size)
    for octave in range(6):
        width = 2.0**octave
        total += _FADE**octave * gaussian_filter(value, width, mode="constant", output=np.float64)
        weights += _FADE**octave * gaussian_filter(
            weight, width, mode="constant", output=np.float64
        )
    # An image that is hidden altogether has nothing to go on from.
    smooth = (total + 1e-12 * mean_grey) / (weights + 1e-12)
    enlarged = Image.fromarray(smooth.astype(np.float32)).resize(
        image.shape[::-1], Image.Resampling.BICUBIC
    )
    return np.array(enlarged)


def _grain(image: np.ndarray, hidden: np.ndarray) -> float:
    """Standard deviation of the fine grain, from neighbours side by side that both are seen.

    Of normal noise with sd s the difference of two neighbours has mean size 2s / sqrt(pi).
    """
    both = ~(hidden[:, 1:] | hidden[:, :-1])
    if not both.any():
        return 0.0
    steps = np.abs(np.diff(image.astype(np.int16), axis=1))[both]
    return float(steps.mean() * np.sqrt(np.pi) / 2)


def _masked_baselines(
    images: BaselineImages, sample: Sample, masking: Masking, tick: Callable[[], object]
) -> dict[str, dict]:
    """Each fill and part -> baseline -> {title} and its figures on equally masked test images."""
    lungs = None if images.lungs is None else {images.pixels.shape[1]: images.lungs}
    masking, rows = replace(masking, lungs=lungs), np.arange(len(images.pixels))
    result: dict[str, dict] = {}
    for fill in FILLS:
        result[fill] = {}
        for part in PARTS:
            masked = masking.hide(images.pixels, rows, part, fill)
            result[fill][part] = {}
            for name, (title, features) in BASELINES.items():
                figures = score_baseline(
                    features(masked),
                    images.manifest,
                    sample.class_names,
                    sample.seed,
                    sample.draws,
                )
                estimate = as_estimate(figures, figures["intervals"])
                result[fill][part][name] = {"title": title, **estimate}
            tick()
    return result


def _judge(row: Mapping[str, dict], title: str) -> dict:
    """{flagged, sentence} from what each fill leaves of the gain without the lungs."""
    without = row["without_lungs"]
    retained = [without[fill]["kept"] for fill in FILLS]
    if any(one["share"] is None for one in retained):
        return {
            "flagged": False,
            "sentence": f"{title} is not above the majority rate on the whole images, so there "
            "is no gain that it could keep without the lungs.",
        }
    above = [one["share"] > FLAG_SHARE for one in retained]
    sentence = (
        f"Without the lungs {title} keeps {_words(retained[0])} of its gain above the majority "
        f"rate with mean grey in their place, {_words(retained[1])} with the greys around them"
    )
    if all(above):
        sentence += ": most of what it knows does not come from the lungs."
        if any(one["low"] is None or one["low"] <= FLAG_SHARE for one in retained):
            sentence += f" The interval reaches below {percent(FLAG_SHARE)}, so it may be less."
    elif any(above):
        sentence += ": more than half with one fill only, so it is not flagged and not cleared."
    else:
        sentence += ", which is less than half."
        if any(one["high"] is None or one["high"] > FLAG_SHARE for one in retained):
            sentence += f" The interval reaches above {percent(FLAG_SHARE)}, so it is not cleared."
        if all(
            max(without[f]["called"].values()) >= ALIKE_SHARE * _count(without[f]) for f in FILLS
        ):
            sentence += (
                " It calls nearly all of these images alike, as a model that needs the lungs "
                "would, and so would one that the filled pictures merely confuse."
            )
    left = [row["lungs_only"][fill]["kept"] for fill in FILLS]
    sentence += f" With only the lungs left it keeps {_words(left[0])} and {_words(left[1])}."
    return {"flagged": all(above), "sentence": sentence}


def _words(retained: Mapping[str, float | None]) -> str:
    return with_interval(retained["share"], retained)


def _count(masked: Mapping[str, dict]) -> int:
    return sum(masked["called"].values())


def shrink_mask(mask: np.ndarray, size_px: int) -> np.ndarray:
    """A mask (height, width), nonzero = lung, stretched as its image is: bool (s, s)."""
    return resize_square(np.where(mask > 0, np.uint8(255), np.uint8(0)), size_px) >= 128
