"""Operating points: one class called where its score reaches a threshold.

Everything is about one class against the rest: `is_positive` (n,) bool and `score` (n,).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from core.metrics.bootstrap import (
    DRAWS,
    LEVEL,
    StatisticsError,
    check_drawing,
    count_patients,
    draw_sums,
    patient_index,
    percentile_interval,
    rate_estimate,
    sum_by_patient,
)
from core.metrics.classification import divide

SENSITIVITY = 0.95
# With fewer patients one of them is more than the share that may be missed, so that a threshold
# follows whichever patient happens to score lowest.
FEWEST_PATIENTS = round(1 / (1 - SENSITIVITY))
RATES = ("sensitivity", "specificity", "ppv", "npv")


def called(score: np.ndarray, threshold: float | np.ndarray) -> np.ndarray:
    """Is the class called? The one rule: score >= threshold."""
    return score >= threshold


def operating_table(
    y_true: np.ndarray, y_prob: np.ndarray, k: int, thresholds: ArrayLike
) -> pd.DataFrame:
    """One row a threshold for class k: threshold, called, found, sensitivity, specificity.

    y_true (n,), y_prob (n, C); called: images at or above the threshold; found: those of them of
    class k. A rate without any image in its denominator is NaN. Raises StatisticsError.
    """
    is_positive, score = _check_scores(np.asarray(y_true) == k, np.asarray(y_prob)[:, k])
    at = np.asarray(thresholds, dtype=np.float64)
    found = _count_predicted(score[is_positive], at)
    false = _count_predicted(score[~is_positive], at)
    positives, negatives = int(is_positive.sum()), int((~is_positive).sum())
    return pd.DataFrame(
        {
            "threshold": at,
            "called": found + false,
            "found": found,
            "sensitivity": divide(found, positives, otherwise=np.nan),
            "specificity": divide(negatives - false, negatives, otherwise=np.nan),
        }
    )


def _count_predicted(score: np.ndarray, thresholds: np.ndarray) -> np.ndarray:
    """How many scores are `called` at each threshold, without n x thresholds comparisons."""
    return len(score) - np.searchsorted(np.sort(score), thresholds, side="left")


def _check_scores(is_positive: np.ndarray, score: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    is_positive = np.asarray(is_positive, dtype=bool)
    score = np.asarray(score, dtype=np.float64)
    if score.ndim != 1 or score.shape != is_positive.shape or len(score) == 0:
        raise StatisticsError(
            f"There must be one score and one truth for each of at least one image, but their "
            f"shapes are {score.shape} and {is_positive.shape}."
        )
    if not np.isfinite(score).all():
        raise StatisticsError("Scores must be finite numbers; check predictions.csv.")
    return is_positive, score


def choose_threshold(
    is_positive: np.ndarray, score: np.ndarray, sensitivity: float = SENSITIVITY
) -> float | None:
    """The largest threshold that finds at least `sensitivity` of the positives; None without any.

    To be chosen on out-of-fold predictions and reported on test. Raises StatisticsError.
    """
    is_positive, score = _check_scores(is_positive, score)
    if not 0 < sensitivity <= 1:
        raise StatisticsError(f"The sensitivity wanted must lie in 0..1, not {sensitivity}.")
    positives = np.sort(score[is_positive])[::-1]
    if len(positives) == 0:
        return None
    # 0.28 * 25 must stay 7, whatever rounding makes of it.
    needed = max(1, int(np.ceil(sensitivity * len(positives) - 1e-9)))
    return float(positives[needed - 1])


def at_prevalence(
    sensitivity: float | np.ndarray, specificity: float | np.ndarray, prevalence: float
) -> tuple[np.ndarray, np.ndarray]:
    """(ppv, npv) where a share `prevalence` of the people asked about has the class, by Bayes.

    NaN where nobody would be called (ppv) or everybody (npv). Raises StatisticsError.
    """
    if not 0 <= prevalence <= 1:
        raise StatisticsError(f"The prevalence must lie in 0..1, not {prevalence}.")
    sensitivity, specificity = np.asarray(sensitivity), np.asarray(specificity)
    found, missed = sensitivity * prevalence, (1 - sensitivity) * prevalence
    false, left = (1 - specificity) * (1 - prevalence), specificity * (1 - prevalence)
    ppv = divide(found, found + false, otherwise=np.nan)
    return ppv, divide(left, left + missed, otherwise=np.nan)


def rates_at(
    is_positive: np.ndarray,
    score: np.ndarray,
    groups: ArrayLike,
    threshold: float,
    prevalence: float,
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, dict]:
    """{sensitivity, specificity, ppv, npv}: each {value, low, high, n, n_patients}.

    prevalence: share of the class among the people asked about, set by the reader. Intervals from
    drawn patients, those of ppv and npv through Bayes in every draw; draws without a side are left
    out. Sensitivity or specificity of 0 or 1: Wilson on their patients, and ppv and npv then span
    what both intervals allow, which is conservative. value, low and high are None where the rate
    is undefined: without positives only specificity is defined and without negatives only
    sensitivity; ppv where nobody is called, npv where everybody is. n images and n_patients
    patients are in the denominator (ppv and npv: those of the side with fewer patients).
    Raises StatisticsError.
    """
    check_drawing(draws)
    is_positive, score = _check_scores(is_positive, score)
    patient, n_patients = patient_index(groups, len(score))
    is_called = called(score, threshold)
    sides = {"sensitivity": is_positive, "specificity": ~is_positive}
    right = {"sensitivity": is_called, "specificity": ~is_called}
    terms = np.stack([row for key, side in sides.items() for row in (side, side & right[key])])
    sums = sum_by_patient(patient, n_patients, terms)
    total, drawn = sums.sum(axis=1), draw_sums(sums, draws, seed)
    result: dict[str, dict[str, Any]] = {}
    rates = {}
    for place, (key, side) in enumerate(sides.items()):
        of, hits = 2 * place, 2 * place + 1
        rates[key] = divide(drawn[hits], drawn[of], otherwise=np.nan)
        value = float(divide(total[hits], total[of], otherwise=np.nan))
        patients = count_patients(patient, side)
        result[key] = rate_estimate(value, rates[key], patients, LEVEL)
        result[key] |= {"n": int(side.sum()), "n_patients": patients}
    rarer = min(sides, key=lambda key: result[key]["n_patients"])
    behind = {key: result[rarer][key] for key in ("n", "n_patients")}
    values = _predictive(result, rates, prevalence, LEVEL)
    return result | {key: value | behind for key, value in values.items()}


def _predictive(
    sides: dict[str, dict], rates: dict[str, np.ndarray], prevalence: float, level: float
) -> dict[str, dict]:
    """ppv and npv of sensitivity and specificity (`sides`), with intervals of their draws."""
    pair = [sides[key] for key in ("sensitivity", "specificity")]
    result: dict[str, dict[str, Any]] = {
        key: {"value": None, "low": None, "high": None} for key in ("ppv", "npv")
    }
    if None in [side["value"] for side in pair]:
        return result
    values = at_prevalence(pair[0]["value"], pair[1]["value"], prevalence)
    drawn = at_prevalence(rates["sensitivity"], rates["specificity"], prevalence)
    sure = any(side["value"] in (0.0, 1.0) for side in pair)
    for place, key in enumerate(result):
        if np.isnan(values[place]):
            continue
        result[key]["value"] = float(values[place])
        if any(side["low"] is None for side in pair):
            continue
        if sure:
            # Both predictive values rise with either rate, so the corners bound them.
            ends = [
                at_prevalence(pair[0][end], pair[1][end], prevalence)[place]
                for end in ("low", "high")
            ]
            low, high = (float(value) for value in ends)
        else:
            low, high, _ = percentile_interval(drawn[place], level)
        result[key] |= {"low": low, "high": high}
    return result
