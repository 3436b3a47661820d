"""Whole patients drawn with replacement, and intervals of proportions.

Every figure is a function of sums over images, so a draw is a matrix product of each patient's
sums with how often the patient was drawn, and never a loop over images (cluster bootstrap:
Davison & Hinkley 1997, section 3.8).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.sparse import csc_array
from scipy.stats import norm

from core.metrics.classification import MetricsError

UNIT = "patient"
DRAWS = 2000
LEVEL = 0.95  # of every interval, unless a caller says otherwise
# Weights held at once: small enough for the cache of one core, so memory stays flat.
CHUNK_CELLS = 1 << 19


class StatisticsError(MetricsError):
    """Intervals or tests that cannot be computed; the message is one sentence."""


def check_drawing(draws: int, level: float = LEVEL) -> None:
    """Raises StatisticsError unless draws >= 1 and 0 < level < 1."""
    if draws < 1 or not 0 < level < 1:
        raise StatisticsError(f"draws must be at least 1 and level in 0..1, not {draws}, {level}.")


def patient_index(groups: ArrayLike, n: int) -> tuple[np.ndarray, int]:
    """Number (n,) of each image's patient, in sorted order, and how many patients there are."""
    patients = np.asarray(groups, dtype=object)
    if patients.shape != (n,):
        raise StatisticsError(
            f"There must be one patient for each of the {n} images, but {patients.shape} was given."
        )
    if pd.isna(patients).any():
        raise StatisticsError(
            "Some images have no patient; fill patient_id with image:<image_id> where unknown."
        )
    names, index = np.unique(patients.astype(str), return_inverse=True)
    return index, len(names)


def draw_weights(n_patients: int, draws: int, seed: int, cells: int = 0) -> Iterator[np.ndarray]:
    """How often each patient was drawn, (n_patients, rows) float64, until `draws` columns came.

    Each column is n_patients draws with replacement, so it sums to n_patients. The numbers
    depend on n_patients, draws and seed only, never on the chunking (rows times the larger of
    n_patients and `cells` stays near CHUNK_CELLS).
    """
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK_CELLS // max(n_patients, cells, 1))
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        drawn = rng.integers(0, n_patients, size=(rows, n_patients))
        drawn *= rows
        drawn += np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=n_patients * rows)
        yield counts.reshape(n_patients, rows).astype(np.float64)


def sum_by_patient(patient: np.ndarray, n_patients: int, terms: np.ndarray) -> np.ndarray:
    """(K, n_patients): each row of terms (K, n) summed over the images of each patient."""
    return np.stack([np.bincount(patient, weights=row, minlength=n_patients) for row in terms])


def draw_sums(sums: np.ndarray, draws: int, seed: int) -> np.ndarray:
    """(K, draws): the rows of sums (K, n_patients) added up over the patients of each draw."""
    # Most rows have nothing of most patients; by columns the weights are read once.
    sparse = csc_array(sums)
    chunks = draw_weights(sums.shape[1], draws, seed)
    return np.concatenate([sparse @ weights for weights in chunks], axis=1)


def count_patients(patient: np.ndarray, mask: np.ndarray) -> int:
    """How many patients have an image under mask (n,) bool."""
    return len(np.unique(patient[mask]))


def wilson_interval(successes: float, trials: int, level: float = 0.95) -> tuple[float, float]:
    """Wilson score interval of successes / trials; (0, 1) without any trial.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if trials == 0:
        return 0.0, 1.0
    z = float(norm.ppf((1 + level) / 2))
    share = successes / trials
    centre = (share + z**2 / (2 * trials)) / (1 + z**2 / trials)
    half = z / (1 + z**2 / trials)
    half *= float(np.sqrt(share * (1 - share) / trials + z**2 / (4 * trials**2)))
    # Rounding must not push the interval off the estimate it is about.
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    return low, 1.0 if successes == trials else min(1.0, centre + half)


def percentile_interval(drawn: np.ndarray, level: float = 0.95) -> tuple[float, float, int]:
    """(low, high, draws used) of drawn (draws,); NaN draws are left out, all NaN gives NaN.

    Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapter 13.
    """
    used = drawn[~np.isnan(drawn)]
    if len(used) == 0:
        return float("nan"), float("nan"), 0
    low, high = np.quantile(used, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high), len(used)


def rate_estimate(
    value: float | None, drawn: np.ndarray, patients: int, level: float = 0.95
) -> dict[str, Any]:
    """{value, low, high} of a proportion from its draws (draws,), as every interval here is made.

    Percentile of the draws; Wilson on the `patients` in its denominator where the value is 0 or 1,
    since all draws are then equal; low and high are None where it has no value or where there are
    fewer than two patients to draw from.
    """
    if value is None or np.isnan(value):
        return {"value": None, "low": None, "high": None}
    value = float(value)
    if value in (0.0, 1.0):
        low, high = wilson_interval(value * patients, patients, level)
        return {"value": value, "low": low, "high": high}
    low, high, used = percentile_interval(drawn, level)
    if patients < 2 or used == 0:
        return {"value": value, "low": None, "high": None}
    return {"value": value, "low": low, "high": high}
