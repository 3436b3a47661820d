"""ROC and precision-recall curves, one class against the rest and their mean, with bands.

The bands and the intervals of the areas come from whole patients drawn with replacement, as every
other interval does (core.metrics.intervals).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from core.metrics.bootstrap import (
    DRAWS,
    check_drawing,
    count_patients,
    draw_weights,
    patient_index,
    rate_estimate,
    wilson_interval,
)
from core.metrics.classification import check_predictions, divide, rank_auc
from core.metrics.ranking import score_steps, weighted_auc

MACRO = "macro"
ROC, PR = "roc", "precision-recall"
POINTS = 101
GRID = np.linspace(0, 1, POINTS)
# Sums of weights are whole numbers, so this only keeps rounding from missing one that is reached.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Curve:
    """One curve on a common grid of x, with its pointwise band and its area.

    x, y, low, high (POINTS,): fractions; ROC has the false positive rate (1 - specificity) on x
    and sensitivity on y, precision-recall has recall (sensitivity) on x and precision on y. low
    and high are NaN where fewer than two patients stand on a side. Draw ROC by straight lines and
    precision-recall by steps: y[i] holds on (x[i - 1], x[i]] (Plotly: line_shape "vh").
    area: AUC, or average precision; area_low and area_high are None where the band is NaN.
    baseline: the area of scores that know nothing: 0.5, or the share of positives.
    n images, n_positive of them of this class ("macro": of all classes that have a curve).
    """

    x: np.ndarray
    y: np.ndarray
    low: np.ndarray
    high: np.ndarray
    area: float
    area_low: float | None
    area_high: float | None
    n: int
    n_positive: int
    baseline: float


def curve_bands(
    y_true: np.ndarray,
    y_prob: np.ndarray,
    groups: ArrayLike,
    class_names: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> tuple[dict[str, Curve], dict[str, Curve]]:
    """ROC and precision-recall curves from the same drawn patients: (roc, precision_recall).

    y_true (n,) class numbers, y_prob (n, C), groups (n,) the patient of each image. A class that
    no image or every image has is absent from both; without any curve there is no "macro" either.

    ROC: sensitivity at a false positive rate, straight between thresholds; where it jumps, the
    upper value (Fawcett 2006). AUC counts ties half and equals metrics.json's, as its interval.
    Precision-recall: the precision at the first threshold whose recall reaches x, so by steps
    (Davis & Goadrich 2006 show why straight lines flatter); the area under them is the average
    precision as scikit-learn defines it.
    Macro: at each x the mean of the classes' y, and the mean of their areas.
    Bands: at each x, quantiles of the curves of drawn patients; draws that miss a side are left
    out. Where y is 0 or 1 the band also spans Wilson's interval on the patients behind it (ROC:
    with an image of the class; precision: with an image called there), the macro's the mean of
    the classes' bounds. So do the areas: AUC 0 or 1 takes the rarer side's patients, average
    precision 1 those of the class. Raises MetricsError or StatisticsError.

    A ROC band never falls and ends at (1, 1). Sensitivity cannot fall with the false positive
    rate, so what bounds it from below at one rate does at every higher one, and what bounds it
    from above does at every lower one (Chernozhukov, Fernandez-Val & Galichon 2009): Wilson's
    interval widens the band only as far as no bound from its left or right is nearer. Quantiles of
    curves that rise rise themselves, so the band is nowhere narrower than they are.
    """
    check_drawing(draws, level)
    y_true, y_prob = check_predictions(y_true, y_prob, class_names)
    n, n_classes = y_prob.shape
    patient, n_patients = patient_index(groups, n)
    present = np.bincount(y_true, minlength=n_classes)
    ranked = [k for k in range(n_classes) if 0 < present[k] < n]
    if not ranked:
        return {}, {}
    steps = [score_steps(y_true == k, y_prob[:, k], patient, n_patients) for k in ranked]
    cells = max(n, *(len(s.won) for s in steps))
    read = []  # of one pass over the draws, which serves both kinds and all classes
    for weights in draw_weights(n_patients, draws, seed, cells=cells):
        split = [(*s.split(weights), s.won) for s in steps]
        read.append([[READ[kind](*parts) for parts in split] for kind in READ])
    result = []
    for kind, chunks in zip(READ, zip(*read, strict=True), strict=True):
        drawn = {}
        for place, k in enumerate(ranked):
            ys = np.concatenate([chunk[place][0] for chunk in chunks], axis=1)
            areas = np.concatenate([chunk[place][1] for chunk in chunks])
            curve = _class_curve(kind, y_true == k, y_prob[:, k], patient, ys, areas, level)
            drawn[str(class_names[k])] = _Drawn(curve, ys, areas)
        curves = {name: one.curve for name, one in drawn.items()}
        macro = _macro_curve(kind, list(drawn.values()), n_patients, level)
        result.append(curves | {MACRO: macro})
    roc, precision_recall = result
    return roc, precision_recall


def _running(counts: np.ndarray) -> np.ndarray:
    """(rows, steps + 1): images at or above each threshold, from none to all, draw by draw."""
    running = np.zeros((counts.shape[1], len(counts) + 1))
    np.cumsum(counts.T, axis=1, out=running[:, 1:])
    return running


def _find(running: np.ndarray, wanted: np.ndarray, side: Literal["left", "right"]) -> np.ndarray:
    """np.searchsorted of wanted (rows, POINTS) in each row of running (rows, steps + 1)."""
    pairs = zip(running, wanted, strict=True)
    return np.stack([np.searchsorted(row, values, side) for row, values in pairs])


def _read_roc(
    positive: np.ndarray, negative: np.ndarray, won: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sensitivity (POINTS, rows) at each false positive rate of GRID, and AUC (rows,)."""
    found, false = _running(positive), _running(negative)
    total, wanted = found[:, -1:], false[:, -1:] * GRID
    here = _find(false, wanted + ROUNDING, "right") - 1
    after = np.minimum(here + 1, found.shape[1] - 1)
    found_here, false_here = np.take_along_axis(found, here, 1), np.take_along_axis(false, here, 1)
    rise = np.take_along_axis(found, after, 1) - found_here
    way = divide(wanted - false_here, np.take_along_axis(false, after, 1) - false_here)
    y = divide(found_here + way.clip(0, 1) * rise, total)
    return y.T, weighted_auc(positive, negative, won)


def _read_pr(
    positive: np.ndarray, negative: np.ndarray, won: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Precision (POINTS, rows) at each recall of GRID, and average precision (rows,)."""
    found, false = _running(positive), _running(negative)
    total = found[:, -1:]
    precision = divide(found, found + false)
    # At recall 0 stands the precision at the first positive found.
    wanted = np.maximum(total * GRID - ROUNDING, ROUNDING)
    here = np.minimum(_find(found, wanted, "left"), found.shape[1] - 1)
    area = divide(np.einsum("ij,ji->i", precision[:, 1:], positive), total[:, 0])
    both_sides = (total[:, 0] > 0) & (false[:, -1] > 0)
    return np.take_along_axis(precision, here, 1).T, np.where(both_sides, area, np.nan)


READ = {ROC: _read_roc, PR: _read_pr}


@dataclass(frozen=True)
class _Drawn:
    """One class's curve with what its draws gave: ys (POINTS, draws), areas (draws,)."""

    curve: Curve
    ys: np.ndarray
    areas: np.ndarray


def _class_curve(
    kind: str,
    is_positive: np.ndarray,
    score: np.ndarray,
    patient: np.ndarray,
    ys: np.ndarray,
    areas: np.ndarray,
    level: float,
) -> Curve:
    """The curve of all images, every score its own threshold, with the band of its draws."""
    n, n_positive = len(score), int(is_positive.sum())
    one = np.zeros(n, dtype=np.int64)
    exact = score_steps(is_positive, score, one, 1, most=n)
    one_draw = READ[kind](*exact.split(np.ones((1, 1))), exact.won)
    y, area = one_draw[0][:, 0], float(one_draw[1][0])
    with_class = count_patients(patient, is_positive)
    rarer = min(with_class, count_patients(patient, ~is_positive))
    low, high = _quantiles(ys, areas, level if rarer > 1 else None)
    if kind == ROC:
        ranked = rank_auc(is_positive, score)
        assert ranked is not None, "a class on one side only has no curve"
        area = ranked
        behind = np.full(POINTS, with_class)
        bounds = rate_estimate(area, areas, rarer, level)
    else:
        behind = _patients_predicted(is_positive, score, patient)
        bounds = rate_estimate(area, areas, with_class if area == 1 else rarer, level)
    for i in np.flatnonzero(((y == 0) | (y == 1)) & (behind > 0)):
        wilson = wilson_interval(y[i] * behind[i], behind[i], level)
        low[i], high[i] = np.fmin(low[i], wilson[0]), np.fmax(high[i], wilson[1])
    if kind == ROC:
        low, high = _rising_band(low, high)
    baseline = 0.5 if kind == ROC else n_positive / n
    return Curve(GRID, y, low, high, area, bounds["low"], bounds["high"], n, n_positive, baseline)


def _rising_band(low: np.ndarray, high: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A ROC band (POINTS,) each with every bound where the rising curve puts it."""
    low, high = low.copy(), high.copy()
    # Where everybody is called, sensitivity is 1 by definition.
    low[-1] = high[-1] = 1.0
    known = ~np.isnan(low)
    low[known] = np.maximum.accumulate(low[known])
    high[known] = np.minimum.accumulate(high[known][::-1])[::-1]
    return low, high


def _quantiles(
    ys: np.ndarray, areas: np.ndarray, level: float | None
) -> tuple[np.ndarray, np.ndarray]:
    """Pointwise band (POINTS,) each of the draws that have an area; NaN without any, or level."""
    used = ys[:, ~np.isnan(areas)]
    if level is None or used.shape[1] == 0:
        return np.full(POINTS, np.nan), np.full(POINTS, np.nan)
    low, high = np.quantile(used, [(1 - level) / 2, (1 + level) / 2], axis=1)
    return low, high


def _patients_predicted(
    is_positive: np.ndarray, score: np.ndarray, patient: np.ndarray
) -> np.ndarray:
    """(POINTS,): patients with an image at or above the threshold that reaches each recall."""
    positives = np.sort(score[is_positive])[::-1]
    needed = np.ceil(GRID * len(positives) - ROUNDING).astype(np.int64).clip(1)
    highest = np.full(patient.max() + 1, -np.inf)
    np.maximum.at(highest, patient, score)
    return len(highest) - np.searchsorted(np.sort(highest), positives[needed - 1], side="left")


def _macro_curve(kind: str, drawn: list[_Drawn], n_patients: int, level: float) -> Curve:
    """Mean of the classes' curves at each x, in the estimate as in every draw."""
    curves = [one.curve for one in drawn]

    def mean(key: str) -> np.ndarray:
        return np.mean([getattr(curve, key) for curve in curves], axis=0)

    ys = np.mean([one.ys for one in drawn], axis=0)
    areas = np.mean([one.areas for one in drawn], axis=0)
    y, area = mean("y"), float(mean("area"))
    low, high = _quantiles(ys, areas, level if n_patients > 1 else None)
    extreme = (y == 0) | (y == 1)
    low, high = np.where(extreme, mean("low"), low), np.where(extreme, mean("high"), high)
    if kind == ROC:
        low, high = _rising_band(low, high)
    bounds = rate_estimate(area, areas, n_patients, level)
    if area in (0, 1):
        bounds = {"low": float(mean("area_low")), "high": float(mean("area_high"))}
    return Curve(
        x=GRID,
        y=y,
        low=low,
        high=high,
        area=area,
        area_low=bounds["low"],
        area_high=bounds["high"],
        n=curves[0].n,
        n_positive=sum(curve.n_positive for curve in curves),
        baseline=float(mean("baseline")),
    )
