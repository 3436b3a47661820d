"""Paired tests between models on the same images, with the patient as the unit.

The draws and sums are those of core.metrics.intervals, so a difference and the intervals beside it
come from the same drawn patients.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import binomtest

from core.metrics.bootstrap import CHUNK_CELLS, UNIT, draw_sums, patient_index
from core.metrics.classification import (
    check_predictions,
    confusion_counts,
    predicted_index,
    rates_from_confusion,
)
from core.metrics.intervals import as_matrices, patient_confusion

ALPHA = 0.05


def mcnemar_p(right_a: np.ndarray, right_b: np.ndarray) -> float:
    """Exact two-sided McNemar p of two models' hits (n,) bool; 1 where they never differ.

    Takes every image as independent, which images of one patient are not: it stands beside
    the tests over patients and never in their place (McNemar 1947; exact: binomial, 1/2).
    """
    only_a = int((right_a & ~right_b).sum())
    only_b = int((right_b & ~right_a).sum())
    if only_a + only_b == 0:
        return 1.0
    return float(binomtest(only_a, only_a + only_b, 0.5).pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down correction (Holm 1979), in the order given, never above 1."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted.tolist()


def _permutation_p(
    confusion_a: np.ndarray, confusion_b: np.ndarray, n_classes: int, draws: int, seed: int
) -> float:
    """Two-sided p of the macro-F1 difference, swapping the models' answers patient by patient.

    confusion_* (C * C, n_patients). The observed labelling counts as one draw, so p is never 0
    (Phipson & Smyth 2010, "Permutation p-values should never be zero").
    """

    def macro_f1(cells: np.ndarray) -> np.ndarray:
        return rates_from_confusion(as_matrices(cells, n_classes))["macro_f1"]

    total_a, total_b = (confusion_a.sum(axis=1)[:, None], confusion_b.sum(axis=1)[:, None])
    observed = abs(macro_f1(total_a) - macro_f1(total_b))[0]
    differ = (confusion_a != confusion_b).any(axis=0)
    change = (confusion_b - confusion_a)[:, differ]
    n_differ = int(differ.sum())
    rng = np.random.default_rng(seed)
    step = max(1, CHUNK_CELLS // max(n_differ, 1))
    as_large = 0
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        swapped = rng.integers(0, 2, size=(rows, n_differ), dtype=np.int8).astype(np.float64)
        moved = change @ swapped.T
        drawn = np.abs(macro_f1(total_a + moved) - macro_f1(total_b - moved))
        # The tolerance keeps a draw that equals the observed split from losing to rounding.
        as_large += int((drawn >= observed - 1e-12).sum())
    return (1 + as_large) / (1 + draws)


def compare_models(
    y_true: np.ndarray,
    probs: dict[str, np.ndarray],
    groups: ArrayLike,
    class_names: Sequence[str],
    *,
    draws: int = 2000,
    seed: int = 0,
    level: float = 0.95,
) -> list[dict]:
    """Each pair of models on the same images, judged on macro-F1 with the patient as the unit.

    probs: model name -> (n, C); groups (n,). One dict a pair, in the order of probs: a, b,
    metric, difference (a less b), low, high (percentile interval of the difference over the
    same drawn patients), p_permutation (whole patients swapped), p_holm (corrected over the
    pairs), mcnemar_p (on accuracy, image by image), verdict, level, unit, draws, seed.
    The verdict is "a better" or "b better" only where p_holm is below 0.05 and the interval
    leaves out 0; otherwise "no difference shown". Fewer than two models give [].
    """
    models = list(probs)
    if len(models) < 2:
        return []
    n_classes = len(class_names)
    checked = {name: check_predictions(y_true, probs[name], class_names) for name in models}
    truth = checked[models[0]][0]
    patient, n_patients = patient_index(groups, len(truth))
    called = {name: predicted_index(checked[name][1]) for name in models}
    confusion = {
        name: patient_confusion(truth, called[name], patient, n_patients, n_classes)
        for name in models
    }
    stacked = np.concatenate(list(confusion.values()))
    sums = draw_sums(stacked, draws, seed).reshape(len(models), n_classes**2, draws)
    drawn = {
        name: rates_from_confusion(as_matrices(sums[m], n_classes))["macro_f1"]
        for m, name in enumerate(models)
    }
    estimate = {
        name: float(
            rates_from_confusion(confusion_counts(truth, called[name], n_classes))["macro_f1"]
        )
        for name in models
    }
    rows: list[dict[str, Any]] = []
    for a, b in combinations(models, 2):
        low, high = np.quantile(drawn[a] - drawn[b], [(1 - level) / 2, (1 + level) / 2])
        rows.append(
            {
                "a": a,
                "b": b,
                "metric": "macro_f1",
                "difference": estimate[a] - estimate[b],
                "low": float(low),
                "high": float(high),
                "p_permutation": _permutation_p(confusion[a], confusion[b], n_classes, draws, seed),
                "mcnemar_p": mcnemar_p(called[a] == truth, called[b] == truth),
            }
        )
    for row, adjusted in zip(rows, holm([row["p_permutation"] for row in rows]), strict=True):
        row["p_holm"] = adjusted
        row["verdict"] = _verdict(row["difference"], row["low"], row["high"], adjusted)
        row |= {"level": level, "unit": UNIT, "draws": draws, "seed": seed}
    return rows


def _verdict(difference: float, low: float, high: float, p_holm: float) -> str:
    if p_holm >= ALPHA or low <= 0 <= high:
        return "no difference shown"
    return "a better" if difference > 0 else "b better"
