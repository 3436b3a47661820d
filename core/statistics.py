"""How sure the numbers are: intervals over patients.

The patient is the unit everywhere: images of one patient are not independent, so whole
patients are drawn (and swapped, in core.comparisons). Every metric is a function of sums over
images, so a draw is a matrix product with the patients' weights and never a loop over images.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.stats import norm

from core.metrics import (
    COVID,
    ECE_BINS,
    MetricsError,
    brier_terms,
    calibration_terms,
    check_predictions,
    compute_metrics,
    divide,
    flatten_metrics,
    log_loss_terms,
    predicted_index,
    rates_from_confusion,
)

UNIT = "patient"
COVID_TASK = "binary.covid_vs_rest"
# Weights held at once: small enough for the cache of one core, so memory stays flat.
CHUNK_CELLS = 1 << 19


class StatisticsError(MetricsError):
    """Intervals or tests that cannot be computed; the message is one sentence."""


def patient_index(groups: Sequence, n: int) -> tuple[np.ndarray, int]:
    """Number (n,) of each image's patient, in sorted order, and how many patients there are."""
    groups = np.asarray(groups, dtype=object)
    if groups.shape != (n,):
        raise StatisticsError(
            f"There must be one patient for each of the {n} images, but {groups.shape} was given."
        )
    if pd.isna(groups).any():
        raise StatisticsError(
            "Some images have no patient; fill patient_id with image:<image_id> where unknown."
        )
    names, index = np.unique(groups.astype(str), return_inverse=True)
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
        drawn = drawn * rows + np.arange(rows)[:, None]
        counts = np.bincount(drawn.ravel(), minlength=n_patients * rows)
        yield counts.reshape(n_patients, rows).astype(np.float64)


def _sum_by_patient(patient: np.ndarray, n_patients: int, terms: np.ndarray) -> np.ndarray:
    """(K, n_patients): each row of terms (K, n) summed over the images of each patient."""
    return np.stack([np.bincount(patient, weights=row, minlength=n_patients) for row in terms])


def patient_confusion(
    y_true: np.ndarray, predicted: np.ndarray, patient: np.ndarray, n_patients: int, n_classes: int
) -> np.ndarray:
    """One confusion matrix a patient, flattened: (C * C, n_patients)."""
    cell = y_true * n_classes + predicted
    size = n_classes**2
    counts = np.bincount(cell * n_patients + patient, minlength=size * n_patients)
    return counts.reshape(size, n_patients).astype(np.float64)


def as_matrices(cells: np.ndarray, n_classes: int) -> np.ndarray:
    """(C * C, rows) -> (rows, C, C)."""
    return cells.T.reshape(-1, n_classes, n_classes)


@dataclass(frozen=True)
class _RankPlan:
    """What a weighted AUC needs once the scores are sorted: patients and places, no scores."""

    positive: np.ndarray  # patient of each positive image
    negative: np.ndarray  # patient of each negative image, by rising score
    below: np.ndarray  # negatives scored strictly lower than each positive
    not_above: np.ndarray | None  # negatives scored no higher; None where nothing ties


def _plan_ranks(is_positive: np.ndarray, score: np.ndarray, patient: np.ndarray) -> _RankPlan:
    # Positives are sorted too: the places then rise, and reading the sums is a walk in memory.
    positive = np.flatnonzero(is_positive)
    positive = positive[np.argsort(score[positive], kind="stable")]
    negative = np.flatnonzero(~is_positive)
    negative = negative[np.argsort(score[negative], kind="stable")]
    below = np.searchsorted(score[negative], score[positive], side="left")
    not_above = np.searchsorted(score[negative], score[positive], side="right")
    tied = not np.array_equal(below, not_above)
    return _RankPlan(patient[positive], patient[negative], below, not_above if tied else None)


def _weighted_auc(plan: _RankPlan, weights: np.ndarray) -> np.ndarray:
    """AUC (rows,) under weights (n_patients, rows); NaN where a side was not drawn."""
    positive = weights[plan.positive]
    running = np.zeros((len(plan.negative) + 1, weights.shape[1]))
    np.cumsum(weights[plan.negative], axis=0, out=running[1:])
    places = running[plan.below]
    if plan.not_above is not None:
        places = (places + running[plan.not_above]) / 2
    wins = np.einsum("ij,ij->j", positive, places)
    pairs = positive.sum(axis=0) * running[-1]
    return np.divide(wins, pairs, out=np.full(wins.shape, np.nan), where=pairs > 0)


def bootstrap_draws(
    y_true: np.ndarray,
    y_prob: np.ndarray,
    groups: Sequence,
    class_names: Sequence[str],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, np.ndarray]:
    """Every metric in every draw of whole patients: key (as in flatten_metrics) -> (draws,).

    A class that a draw happens to miss is treated as the estimate treats one: its rates are 0
    (zero_division) and balanced accuracy leaves it out. AUC has no such value and is NaN in
    that draw; the macro AUC is NaN where any class that has an AUC in the estimate lacks one.
    """
    y_true, y_prob = check_predictions(y_true, y_prob, class_names)
    class_names = [str(name) for name in class_names]
    n, n_classes = y_prob.shape
    patient, n_patients = patient_index(groups, n)
    bins, gaps = calibration_terms(y_true, y_prob)
    predicted = predicted_index(y_prob)
    sums = np.concatenate(
        [
            patient_confusion(y_true, predicted, patient, n_patients, n_classes),
            _sum_by_patient(
                patient, n_patients, np.where(bins == np.arange(ECE_BINS)[:, None], gaps, 0)
            ),
            _sum_by_patient(
                patient,
                n_patients,
                np.stack([log_loss_terms(y_true, y_prob), brier_terms(y_true, y_prob)]),
            ),
        ]
    )
    present = np.bincount(y_true, minlength=n_classes)
    ranked = [k for k in range(n_classes) if 0 < present[k] < n]
    plans = {k: _plan_ranks(y_true == k, y_prob[:, k], patient) for k in ranked}
    drawn, aucs = [], []
    for weights in draw_weights(n_patients, draws, seed, cells=n):
        drawn.append(sums @ weights)
        aucs.append(np.stack([_weighted_auc(plans[k], weights) for k in ranked] or [[]]))
    return _metrics_of_sums(
        np.concatenate(drawn, axis=1),
        dict(zip(ranked, np.concatenate(aucs, axis=1), strict=False)),
        class_names,
    )


def _metrics_of_sums(
    sums: np.ndarray, aucs: dict[int, np.ndarray], class_names: list[str]
) -> dict[str, np.ndarray]:
    """The rows of bootstrap_draws' sums (K, draws) and the AUC of each class -> metric draws."""
    n_classes = len(class_names)
    size = n_classes**2
    rates = rates_from_confusion(as_matrices(sums[:size], n_classes))
    images = sums[:size].sum(axis=0)
    undefined = np.full(sums.shape[1], np.nan)
    result = {
        key: rates[key]
        for key in ("accuracy", "balanced_accuracy", "macro_f1", "macro_precision", "macro_recall")
    }
    result["auc"] = np.mean(list(aucs.values()), axis=0) if aucs else undefined
    result["log_loss"] = divide(sums[-2], images)
    result["brier"] = divide(sums[-1], images)
    result["ece"] = divide(np.abs(sums[size : size + ECE_BINS]).sum(axis=0), images)
    for k, name in enumerate(class_names):
        for key in ("precision", "recall", "specificity", "f1"):
            result[f"{key}.{name}"] = rates[key][:, k]
        result[f"auc.{name}"] = aucs.get(k, undefined)
    if COVID in class_names:
        names = {"sensitivity": "recall", "specificity": "specificity", "precision": "precision"}
        names |= {"f1": "f1", "auc": "auc"}
        result[f"{COVID_TASK}.accuracy"] = rates["binary_accuracy"][:, class_names.index(COVID)]
        result |= {f"{COVID_TASK}.{key}": result[f"{name}.{COVID}"] for key, name in names.items()}
    return result


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


def _patients_behind(
    y_true: np.ndarray, predicted: np.ndarray, patient: np.ndarray, class_names: list[str]
) -> dict[str, int]:
    """How many patients stand in the denominator of each rate that is a proportion."""

    def count(mask: np.ndarray) -> int:
        return len(np.unique(patient[mask]))

    everyone = count(np.ones(len(patient), dtype=bool))
    result = {"accuracy": everyone}
    for k, name in enumerate(class_names):
        is_class, called = y_true == k, predicted == k
        result[f"recall.{name}"] = count(is_class)
        result[f"precision.{name}"] = count(called)
        result[f"specificity.{name}"] = count(~is_class)
        result[f"f1.{name}"] = count(is_class | called)
        # Pairs of images: the rarer side limits what is known.
        result[f"auc.{name}"] = min(count(is_class), count(~is_class))
    if COVID in class_names:
        result[f"{COVID_TASK}.accuracy"] = everyone
        result[f"{COVID_TASK}.sensitivity"] = result[f"recall.{COVID}"]
        for key in ("specificity", "precision", "f1", "auc"):
            result[f"{COVID_TASK}.{key}"] = result[f"{key}.{COVID}"]
    return result


_MACROS = {
    "balanced_accuracy": "recall",
    "macro_recall": "recall",
    "macro_precision": "precision",
    "macro_f1": "f1",
    "auc": "auc",
}


def _extreme_interval(key: str, estimate: float, patients: int, level: float) -> tuple:
    """Interval of a rate that is exactly 0 or 1, where the bootstrap would have no width.

    Wilson on the number of patients. F1 = 2J / (1 + J) with J = TP / (TP + FP + FN), which is a
    proportion: J gets the interval and is carried over.
    """
    low, high = wilson_interval(estimate * patients, patients, level)
    if key.startswith("f1.") or key == f"{COVID_TASK}.f1":
        return 2 * low / (1 + low), 2 * high / (1 + high)
    return low, high


def bootstrap_intervals(
    y_true: np.ndarray,
    y_prob: np.ndarray,
    groups: Sequence,
    class_names: Sequence[str],
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> dict[str, dict]:
    """{low, high, level, method, unit, draws, seed} for every metric, by drawing whole patients.

    y_true (n,), y_prob (n, C), groups (n,) the patient of each image. Methods:
    `percentile`: quantiles of the draws (Efron & Tibshirani 1993, chapter 13) of a cluster
    bootstrap (Davison & Hinkley 1997, section 3.8); draws without an AUC are skipped and
    `draws` counts the ones used.
    `percentile, shifted`: ECE only, whose draws lie above the estimate because drawing again
    adds noise to every bin; they are moved back by their mean excess (of well-calibrated
    models on 225 images 17% would else lie outside their own interval).
    `wilson`: where the estimate is 0 or 1, on the number of patients in its denominator (the
    rarer side's for AUC; a macro mean takes the mean of its classes' bounds, which is
    conservative); draws is 0.
    `undefined` (low and high None): no AUC, or fewer than two patients to draw from.
    Raises MetricsError or StatisticsError.
    """
    if draws < 1 or not 0 < level < 1:
        raise StatisticsError(f"draws must be at least 1 and level in 0..1, not {draws}, {level}.")
    values = bootstrap_draws(y_true, y_prob, groups, class_names, draws=draws, seed=seed)
    estimates = flatten_metrics(compute_metrics(y_true, y_prob, class_names))
    y_true, y_prob = check_predictions(y_true, y_prob, class_names)
    class_names = [str(name) for name in class_names]
    patient, n_patients = patient_index(groups, len(y_true))
    behind = _patients_behind(y_true, predicted_index(y_prob), patient, class_names)
    bounds: dict[str, tuple] = {}
    # Classes before their macro means, which are made of the classes' bounds.
    for key in sorted(estimates, key=lambda name: name in _MACROS):
        estimate, patients = estimates[key], behind.get(key, n_patients)
        extreme = estimate in (0.0, 1.0) and (key in behind or key in _MACROS)
        used = values[key][~np.isnan(values[key])]
        if estimate is None or (not extreme and (patients < 2 or len(used) == 0)):
            bounds[key] = (None, None, "undefined", 0)
        elif extreme and key in behind:
            bounds[key] = (*_extreme_interval(key, estimate, patients, level), "wilson", 0)
        elif extreme:
            bounds[key] = (*_macro_bounds(key, estimates, behind, class_names, level), "wilson", 0)
        else:
            low, high = np.quantile(used, [(1 - level) / 2, (1 + level) / 2])
            method = "percentile"
            if key == "ece":
                bias, method = used.mean() - estimate, "percentile, shifted"
                low, high = max(0.0, low - bias), high - bias
            bounds[key] = (float(low), float(high), method, len(used))
    return {
        key: {
            "low": bounds[key][0],
            "high": bounds[key][1],
            "level": level,
            "method": bounds[key][2],
            "unit": UNIT,
            "draws": bounds[key][3],
            "seed": seed,
        }
        for key in estimates
    }


def _macro_bounds(
    key: str, estimates: dict, behind: dict[str, int], class_names: list[str], level: float
) -> tuple[float, float]:
    """Mean of the class bounds of a macro mean that is 0 or 1 (so every class in it is too)."""
    keys = [f"{_MACROS[key]}.{name}" for name in class_names]
    # A class that nobody has is no part of the mean (balanced accuracy, AUC) or tells nothing.
    keys = [name for name in keys if estimates[name] == estimates[key] and behind[name] > 0]
    return tuple(
        np.mean([_extreme_interval(k, estimates[k], behind[k], level) for k in keys], axis=0)
        .astype(float)
        .tolist()
    )
