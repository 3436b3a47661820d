"""Conformal prediction sets: the classes that cannot be ruled out, right in 1 - alpha of cases.

Least ambiguous sets (Sadinle, Lei & Wasserman 2019): every class whose calibrated probability
reaches one threshold. What is promised is marginal coverage for one image of a patient like those
it was calibrated on, not coverage of every class.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from core.metrics.bootstrap import (
    DRAWS,
    StatisticsError,
    check_drawing,
    count_patients,
    draw_sums,
    patient_index,
    rate_estimate,
    sum_by_patient,
    wilson_interval,
)
from core.metrics.classification import check_predictions, divide, predicted_index

ALPHA = 0.1


def fit_conformal(
    y_true: np.ndarray,
    y_prob: np.ndarray,
    groups: ArrayLike,
    alpha: float = ALPHA,
    *,
    seed: int = 0,
) -> dict:
    """{alpha, threshold, n, n_images}: a model's entry in run.json's `conformal`.

    y_prob (n, C): calibrated probabilities of images that the model was not trained on. One image
    is drawn from each patient (`n` of them), so that the cases are exchangeable; the threshold is
    1 less the ceil((n + 1)(1 - alpha)) / n quantile of 1 - probability of the true class (Sadinle
    et al. 2019; Angelopoulos & Bates 2023, section 1). Where n is too small for alpha the
    threshold is 0 and every set holds every class. Raises MetricsError or StatisticsError.
    """
    if not 0 < alpha < 1:
        raise StatisticsError(f"alpha must lie between 0 and 1, not {alpha}.")
    y_true, y_prob = check_predictions(y_true, y_prob, range(np.shape(y_prob)[-1]))
    patient, n_patients = patient_index(groups, len(y_true))
    chosen = _one_image_a_patient(y_true, y_prob, patient, seed)
    given = np.sort(y_prob[chosen, y_true[chosen]])
    # The quantile of 1 - p, from the other end; 1e-9 for a product that rounding left too small.
    may_miss = int(np.floor((n_patients + 1) * alpha + 1e-9))
    threshold = float(given[may_miss - 1]) if may_miss > 0 else 0.0
    return {
        "alpha": float(alpha),
        "threshold": threshold,
        "n": n_patients,
        "n_images": len(y_true),
    }


def _one_image_a_patient(
    y_true: np.ndarray, y_prob: np.ndarray, patient: np.ndarray, seed: int
) -> np.ndarray:
    """Places of one image drawn from each patient, whatever order the images come in."""
    order = np.lexsort([*y_prob.T, y_true, patient])
    first = np.flatnonzero(np.diff(patient[order], prepend=-1))
    images = np.diff(first, append=len(order))
    return order[first + np.random.default_rng(seed).integers(0, images)]


def prediction_sets(y_prob: np.ndarray, threshold: float) -> np.ndarray:
    """Which classes (n, C) bool are in each set: p >= threshold, and always the one called."""
    y_prob = np.asarray(y_prob, dtype=np.float64)
    sets = y_prob >= threshold
    sets[np.arange(len(y_prob)), predicted_index(y_prob)] = True
    return sets


def evaluate_sets(
    y_true: np.ndarray,
    sets: np.ndarray,
    groups: ArrayLike,
    class_names: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
    level: float = 0.95,
) -> dict:
    """How often the sets hold the true class and how large they are, on images not fitted on.

    {n, n_patients, coverage EST, patient_coverage EST, mean_size EST,
     by_class{name: EST + n, n_patients}, sizes{size: count}}, EST = {value, low, high}; value,
    low and high are None for a class that no image has. coverage: share of images;
    patient_coverage: share for one image drawn from each patient, which is what is promised.
    Intervals from drawn patients; Wilson on the patients where a coverage is 0 or 1, or where all
    sets are of one size (on (size - 1) / (C - 1)). sizes has every size from 1 to C, as whole
    numbers. Raises MetricsError or StatisticsError.
    """
    check_drawing(draws, level)
    y_true, sets = _check_sets(y_true, sets, class_names)
    n, n_classes = sets.shape
    patient, n_patients = patient_index(groups, n)
    covered, size = sets[np.arange(n), y_true], sets.sum(axis=1)
    is_class = y_true == np.arange(n_classes)[:, None]
    terms = np.stack([np.ones(n), covered, size, *is_class, *(is_class & covered)])
    sums = sum_by_patient(patient, n_patients, terms)
    sums = np.stack([*sums, np.ones(n_patients), sums[1] / sums[0]])
    total, drawn = sums.sum(axis=1), draw_sums(sums, draws, seed)

    def share(top: int, bottom: int, patients: int) -> dict[str, float | None]:
        value = float(divide(total[top], total[bottom], otherwise=np.nan))
        values = divide(drawn[top], drawn[bottom], otherwise=np.nan)
        return rate_estimate(value, values, patients, level)

    by_class = {}
    for k, name in enumerate(class_names):
        patients = count_patients(patient, is_class[k])
        estimate = share(3 + n_classes + k, 3 + k, patients)
        by_class[str(name)] = estimate | {"n": int(is_class[k].sum()), "n_patients": patients}
    return {
        "n": n,
        "n_patients": n_patients,
        "coverage": share(1, 0, n_patients),
        "patient_coverage": share(-1, -2, n_patients),
        "mean_size": _mean_size(size, drawn[2] / drawn[0], n_patients, n_classes, level),
        "by_class": by_class,
        "sizes": {k: int((size == k).sum()) for k in range(1, n_classes + 1)},
    }


def _check_sets(
    y_true: np.ndarray, sets: np.ndarray, class_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    sets = np.asarray(sets, dtype=bool)
    if sets.ndim != 2 or not sets.any(axis=1).all():
        raise StatisticsError("Prediction sets must be a table of images by classes, none empty.")
    # Equal shares of the classes in a set are probabilities, so the one check serves both.
    y_true, _ = check_predictions(y_true, sets / sets.sum(axis=1, keepdims=True), class_names)
    return y_true, sets


def _mean_size(
    size: np.ndarray, drawn: np.ndarray, n_patients: int, n_classes: int, level: float
) -> dict[str, float | None]:
    """Mean of size (n,) with its interval: (size - 1) / (C - 1) is a proportion, as others are."""
    spread = float(size.mean() - 1) / (n_classes - 1)
    estimate = rate_estimate(spread, (drawn - 1) / (n_classes - 1), n_patients, level)
    if np.ptp(size) == 0:
        low, high = wilson_interval(spread * n_patients, n_patients, level)
        estimate |= {"low": low, "high": high}
    return {
        key: None if value is None else 1 + value * (n_classes - 1)
        for key, value in estimate.items()
    }
