"""How sure the numbers are: intervals over patients.

The patient is the unit everywhere: images of one patient are not independent, so whole
patients are drawn (and swapped, in core.metrics.significance). Every metric is a function of sums
over images, so a draw is a matrix product with the patients' weights and never a loop over images.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.sparse import csc_array

from core.metrics.bootstrap import (
    UNIT,
    check_drawing,
    count_patients,
    draw_weights,
    patient_index,
    percentile_interval,
    sum_by_patient,
    wilson_interval,
)
from core.metrics.classification import (
    COVID,
    ECE_BINS,
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
from core.metrics.ranking import score_steps, weighted_auc

COVID_TASK = "binary.covid_vs_rest"


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


def bootstrap_draws(
    y_true: np.ndarray,
    y_prob: np.ndarray,
    groups: ArrayLike,
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
            sum_by_patient(
                patient, n_patients, np.where(bins == np.arange(ECE_BINS)[:, None], gaps, 0)
            ),
            sum_by_patient(
                patient,
                n_patients,
                np.stack([log_loss_terms(y_true, y_prob), brier_terms(y_true, y_prob)]),
            ),
        ]
    )
    present = np.bincount(y_true, minlength=n_classes)
    ranked = [k for k in range(n_classes) if 0 < present[k] < n]
    steps = [score_steps(y_true == k, y_prob[:, k], patient, n_patients) for k in ranked]
    drawn, aucs = [], []
    sparse = csc_array(sums)
    for weights in draw_weights(n_patients, draws, seed, cells=n):
        drawn.append(sparse @ weights)
        aucs.append(
            np.stack([weighted_auc(*s.split(weights), s.won) for s in steps] or [np.empty(0)])
        )
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


def _patients_behind(
    y_true: np.ndarray, predicted: np.ndarray, patient: np.ndarray, class_names: list[str]
) -> dict[str, int]:
    """How many patients stand in the denominator of each rate that is a proportion."""
    everyone = count_patients(patient, np.ones(len(patient), dtype=bool))
    result = {"accuracy": everyone}
    for k, name in enumerate(class_names):
        is_class, called = y_true == k, predicted == k
        result[f"recall.{name}"] = count_patients(patient, is_class)
        result[f"precision.{name}"] = count_patients(patient, called)
        result[f"specificity.{name}"] = count_patients(patient, ~is_class)
        result[f"f1.{name}"] = count_patients(patient, is_class | called)
        # Pairs of images: the rarer side limits what is known.
        result[f"auc.{name}"] = min(result[f"recall.{name}"], result[f"specificity.{name}"])
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


def _extreme_interval(
    key: str, estimate: float, patients: int, level: float
) -> tuple[float, float]:
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
    groups: ArrayLike,
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
    check_drawing(draws, level)
    values = bootstrap_draws(y_true, y_prob, groups, class_names, draws=draws, seed=seed)
    estimates = flatten_metrics(compute_metrics(y_true, y_prob, class_names))
    y_true, y_prob = check_predictions(y_true, y_prob, class_names)
    class_names = [str(name) for name in class_names]
    patient, n_patients = patient_index(groups, len(y_true))
    behind = _patients_behind(y_true, predicted_index(y_prob), patient, class_names)
    bounds: dict[str, tuple[float | None, float | None, str, int]] = {}
    # Classes before their macro means, which are made of the classes' bounds.
    for key in sorted(estimates, key=lambda name: name in _MACROS):
        estimate, patients = estimates[key], behind.get(key, n_patients)
        extreme = estimate in (0.0, 1.0) and (key in behind or key in _MACROS)
        low, high, used = percentile_interval(values[key], level)
        if estimate is None or (not extreme and (patients < 2 or used == 0)):
            bounds[key] = (None, None, "undefined", 0)
        elif extreme and key in behind:
            bounds[key] = (*_extreme_interval(key, estimate, patients, level), "wilson", 0)
        elif extreme:
            bounds[key] = (*_macro_bounds(key, estimates, behind, class_names, level), "wilson", 0)
        else:
            method = "percentile"
            if key == "ece":
                low, high = shift_ece(low, high, values[key], estimate)
                method = "percentile, shifted"
            bounds[key] = (low, high, method, used)
    return {key: interval_entry(*bounds[key], level, seed) for key in estimates}


def interval_entry(
    low: float | None, high: float | None, method: str, used: int, level: float, seed: int
) -> dict:
    """One interval as metrics.json holds it; used: how many draws it comes from."""
    return {
        "low": low,
        "high": high,
        "level": level,
        "method": method,
        "unit": UNIT,
        "draws": used,
        "seed": seed,
    }


def shift_ece(low: float, high: float, drawn: np.ndarray, estimate: float) -> tuple[float, float]:
    """Bounds of ECE moved back by the mean excess of its draws; see bootstrap_intervals."""
    bias = float(drawn.mean()) - estimate
    return max(0.0, low - bias), high - bias


def _macro_bounds(
    key: str, estimates: dict, behind: dict[str, int], class_names: list[str], level: float
) -> tuple[float, float]:
    """Mean of the class bounds of a macro mean that is 0 or 1 (so every class in it is too)."""
    keys = [f"{_MACROS[key]}.{name}" for name in class_names]
    # A class that nobody has is no part of the mean (balanced accuracy, AUC) or tells nothing.
    keys = [name for name in keys if estimates[name] == estimates[key] and behind[name] > 0]
    bounds = [_extreme_interval(k, estimates[k], behind[k], level) for k in keys]
    low, high = np.mean(bounds, axis=0)
    return float(low), float(high)
