"""Do heat maps lie on the lesion? The pointing game, lesion mass, and what needs no model.

- Pointing game (Zhang et al. 2018, "Top-down neural attention by excitation backprop", section
  4.1): a hit when the map's maximum lies on the lesion, or within a tolerance of it.
- Lesion mass (the energy-based pointing game of Wang et al. 2020, "Score-CAM", section 4.3): the
  share of the map's sum that lies on the lesion, here the lesion itself and not a box around it.

Both are compared with places that nobody had to look for: anywhere, anywhere in the lungs, and the
middle of the image. The values of these are exact and not drawn.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import distance_transform_edt

from core.metrics.bootstrap import draw_weights, percentile_interval, rate_estimate, wilson_interval

# 15 px of images some 500 px wide, the tolerance that the pointing game is played with.
TOLERANCE_SHARE = 0.03
# The centre as a map: a round Gaussian whose standard deviation is this share of the side.
CENTRE_SD_SHARE = 0.25
DRAWS = 2000
SCORES = ("hit", "hit_exact", "mass")
BASELINES = {
    "random": "a random place",
    "lungs": "a random place in the lungs",
    "centre": "the centre",
}
BETTER, SAME, WORSE = "better than", "no difference shown from", "worse than"


@dataclass(frozen=True)
class LesionTarget:
    """One phantom's lesion, ready to be pointed at.

    mask, near, lungs: bool (H, W); near is the mask with the tolerance around it. baselines:
    {baseline: {score: value}}, see `score_baselines`.
    """

    mask: np.ndarray
    near: np.ndarray
    baselines: dict[str, dict[str, float]]


def prepare_target(mask: np.ndarray, lungs: np.ndarray) -> LesionTarget:
    """mask, lungs: bool (H, W), the lesion and the lung fields; the lesion must not be empty."""
    mask, lungs = np.asarray(mask, bool), np.asarray(lungs, bool)
    if not mask.any() or not lungs.any():
        raise ValueError("A lesion and lungs with at least one pixel were expected.")
    near = distance_transform_edt(~mask) <= TOLERANCE_SHARE * max(mask.shape)
    return LesionTarget(mask, near, score_baselines(mask, near, lungs))


def score_baselines(
    mask: np.ndarray, near: np.ndarray, lungs: np.ndarray
) -> dict[str, dict[str, float]]:
    """What each of BASELINES scores on one image: the chance of a hit, or a flat map's mass."""
    height, width = mask.shape
    middle = (height // 2, width // 2)
    rows = (np.arange(height) + 0.5) / height - 0.5
    columns = (np.arange(width) + 0.5) / width - 0.5
    bump = np.exp(-(rows[:, None] ** 2 + columns[None] ** 2) / (2 * CENTRE_SD_SHARE**2))
    return {
        "random": {"hit": near.mean(), "hit_exact": mask.mean(), "mass": mask.mean()},
        "lungs": {
            "hit": near[lungs].mean(),
            "hit_exact": mask[lungs].mean(),
            "mass": mask[lungs].mean(),
        },
        "centre": {
            "hit": float(near[middle]),
            "hit_exact": float(mask[middle]),
            "mass": bump[mask].sum() / bump.sum(),
        },
    }


def score_map(surface: np.ndarray, target: LesionTarget) -> dict[str, float]:
    """{hit, hit_exact (0 or 1), mass (0 to 1)} of a heat map over the image, (H, W), >= 0.

    A map without any heat points nowhere and has no mass: 0 in all three.
    """
    peak = find_peak(surface)
    if peak is None:
        return dict.fromkeys(SCORES, 0.0)
    mass = float(surface[target.mask].sum(dtype=np.float64) / surface.sum(dtype=np.float64))
    return {
        "hit": float(target.near[peak]),
        "hit_exact": float(target.mask[peak]),
        "mass": mass,
    }


def find_peak(surface: np.ndarray) -> tuple[int, int] | None:
    """Row and column of the maximum, of a flat top the pixel nearest its middle; None: no heat."""
    top = surface.max()
    if not top > 0:
        return None
    tied = np.argwhere(surface == top)
    nearest = ((tied - tied.mean(axis=0)) ** 2).sum(axis=1).argmin()
    return int(tied[nearest, 0]), int(tied[nearest, 1])


def summarise_scores(
    scores: Mapping[str, np.ndarray],
    baselines: Mapping[str, Mapping[str, np.ndarray]],
    *,
    seed: int = 0,
    level: float = 0.95,
) -> dict:
    """Means over phantoms with intervals, and each against each baseline, phantom by phantom.

    scores: score -> (n,); baselines: baseline -> score -> (n,), the same phantoms. Returns {n, hit,
    hit_exact, mass: {value, low, high}, against {baseline: {score: {value, difference, low, high,
    verdict}}}}; values are null for n = 0. Hits have Wilson intervals; all others are quantiles of
    DRAWS draws of phantoms with replacement. Every phantom is a patient of its own.
    """
    n = len(scores["hit"])
    result: dict = {"n": n, "against": {}}
    weights = _draws(n, seed)
    for key in SCORES:
        value = float(scores[key].mean()) if n else None
        if key == "mass":
            drawn = scores[key] @ weights / n if n else np.empty(0)
            result[key] = rate_estimate(value, drawn, n, level)
        else:
            low, high = wilson_interval(scores[key].sum(), n, level) if n else (None, None)
            result[key] = {"value": value, "low": low, "high": high}
    for baseline, values in baselines.items():
        result["against"][baseline] = {
            key: _compare(scores[key], values[key], weights, key != "mass", level) for key in SCORES
        }
    return result


def _draws(n: int, seed: int) -> np.ndarray:
    """How often each phantom is in each draw, (n, DRAWS): the same for every figure."""
    return np.concatenate(list(draw_weights(n, DRAWS, seed)), axis=1) if n else np.empty((0, DRAWS))


def _compare(
    scores: np.ndarray, baseline: np.ndarray, weights: np.ndarray, counted: bool, level: float
) -> dict:
    """The model minus the baseline, (n,) each, with its interval and what it says in words."""
    n = len(scores)
    if n == 0:
        return dict.fromkeys(("value", "difference", "low", "high", "verdict"))
    gap = scores - baseline
    if counted and scores.min() == scores.max():
        # All hits or all misses: drawing again would give the same, as if it were certain.
        low, high = (x - baseline.mean() for x in wilson_interval(scores.sum(), n, level))
    elif n < 2:
        low = high = None
    else:
        low, high, _ = percentile_interval(gap @ weights / n, level)
    verdict = None
    if low is not None:
        verdict = BETTER if low > 0 else WORSE if high < 0 else SAME
    return {
        "value": float(baseline.mean()),
        "difference": float(gap.mean()),
        "low": low,
        "high": high,
        "verdict": verdict,
    }
