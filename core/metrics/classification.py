"""Predictions -> numbers: the figures of `metrics.json`, by one rule each.

Everything here is a fraction between 0 and 1 apart from log loss, Brier score and counts.
The formulas are written out in numpy, so that the estimate and its bootstrap draws
(core.metrics.intervals) run through the same lines; the tests hold them against scikit-learn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from core.errors import UserError

COVID = "covid"
ECE_BINS = 15
# The contract of predictions.csv; float32 softmaxes written with 9 digits stay within 2e-7.
SUM_TOLERANCE = 1e-5


class MetricsError(UserError):
    """Predictions that cannot be scored; the message is one sentence a person can act on."""


def predicted_index(y_prob: np.ndarray) -> np.ndarray:
    """Index of the predicted class (...,): the first largest of y_prob (..., C)."""
    return np.argmax(y_prob, axis=-1)


def check_predictions(
    y_true: np.ndarray, y_prob: np.ndarray, class_names: Sequence[object]
) -> tuple[np.ndarray, np.ndarray]:
    """y_true (n,) as int64 and y_prob (n, C) as float64, or MetricsError when they do not fit."""
    class_names = list(class_names)
    y_true, y_prob = np.asarray(y_true), np.asarray(y_prob, dtype=np.float64)
    n_classes = len(class_names)
    if n_classes < 2 or len(set(class_names)) != n_classes:
        raise MetricsError(f"At least two different class names are needed, not {class_names}.")
    if y_prob.ndim != 2 or y_prob.shape[1] != n_classes:
        raise MetricsError(
            f"Probabilities must have one column for each of {class_names}, "
            f"but their shape is {y_prob.shape}."
        )
    if y_true.shape != (len(y_prob),):
        raise MetricsError(
            f"There must be one true label for each of the {len(y_prob)} predictions, "
            f"but the labels have shape {y_true.shape}."
        )
    if len(y_prob) == 0:
        raise MetricsError("There are no predictions to score; give at least one.")
    if not np.issubdtype(y_true.dtype, np.integer):
        raise MetricsError(f"True labels must be whole class numbers, not {y_true.dtype}.")
    if y_true.min() < 0 or y_true.max() >= n_classes:
        raise MetricsError(
            f"True labels must lie between 0 and {n_classes - 1}, "
            f"but they run from {y_true.min()} to {y_true.max()}."
        )
    if not np.isfinite(y_prob).all() or y_prob.min() < 0:
        raise MetricsError("Probabilities must be finite and not negative; check predictions.csv.")
    off = np.abs(y_prob.sum(axis=1) - 1)
    if off.max() > SUM_TOLERANCE:
        raise MetricsError(
            f"Probabilities must sum to 1 in every row, but row {int(off.argmax())} "
            f"sums to {y_prob[off.argmax()].sum():.6g}."
        )
    return y_true.astype(np.int64), y_prob


def confusion_counts(y_true: np.ndarray, predicted: np.ndarray, n_classes: int) -> np.ndarray:
    """Counts (C, C): rows true, columns predicted."""
    cells = np.bincount(y_true * n_classes + predicted, minlength=n_classes**2)
    return cells.reshape(n_classes, n_classes)


def divide(numerator: ArrayLike, denominator: ArrayLike, otherwise: float = 0.0) -> np.ndarray:
    """numerator / denominator, 0 or `otherwise` where that is 0 (scikit-learn's zero_division)."""
    above, below = np.broadcast_arrays(
        np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    )
    return np.divide(
        above,
        below,
        out=np.full(below.shape, otherwise),
        where=below != 0,
    )


def rates_from_confusion(confusion: np.ndarray) -> dict[str, np.ndarray]:
    """Every rate that follows from confusion matrices (..., C, C); counts may be weighted.

    `accuracy, balanced_accuracy, macro_precision, macro_recall, macro_f1` have shape (...,);
    `precision, recall, specificity, f1, binary_accuracy` (this class or not) have (..., C).
    A rate whose denominator is 0 is 0 and counts as 0 in the macro means; balanced accuracy
    alone leaves out the classes that no image has, as scikit-learn does.
    """
    confusion = np.asarray(confusion, dtype=np.float64)
    true_positive = np.diagonal(confusion, axis1=-2, axis2=-1)
    support = confusion.sum(axis=-1)
    called = confusion.sum(axis=-2)
    total = support.sum(axis=-1)
    negatives = total[..., None] - support
    true_negative = negatives - (called - true_positive)
    precision = divide(true_positive, called)
    recall = divide(true_positive, support)
    f1 = divide(2 * true_positive, support + called)
    return {
        "accuracy": divide(true_positive.sum(axis=-1), total),
        "balanced_accuracy": divide(recall.sum(axis=-1), (support > 0).sum(axis=-1)),
        "macro_f1": f1.mean(axis=-1),
        "macro_precision": precision.mean(axis=-1),
        "macro_recall": recall.mean(axis=-1),
        "precision": precision,
        "recall": recall,
        "specificity": divide(true_negative, negatives),
        "f1": f1,
        "binary_accuracy": divide(true_positive + true_negative, total[..., None]),
    }


def rank_auc(is_positive: np.ndarray, score: np.ndarray) -> float | None:
    """Area under the ROC curve of score (n,), ties counted half; None where one side is empty."""
    positive, negative = score[is_positive], np.sort(score[~is_positive])
    if len(positive) == 0 or len(negative) == 0:
        return None
    below = np.searchsorted(negative, positive, side="left")
    not_above = np.searchsorted(negative, positive, side="right")
    return float((below + not_above).sum() / 2 / (len(positive) * len(negative)))


def mean_of_defined(values: Sequence[float | None]) -> float | None:
    """Mean of the values that are not None; None where there are none."""
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined else None


def log_loss_terms(y_true: np.ndarray, y_prob: np.ndarray) -> np.ndarray:
    """-log of the probability given to the true class (n,), clipped at the float64 epsilon."""
    chosen = y_prob[np.arange(len(y_true)), y_true]
    epsilon = np.finfo(np.float64).eps
    return -np.log(np.clip(chosen, epsilon, 1 - epsilon))


def brier_terms(y_true: np.ndarray, y_prob: np.ndarray) -> np.ndarray:
    """Sum over classes of (probability - truth) squared (n,), between 0 and 2."""
    return ((y_prob - np.eye(y_prob.shape[1])[y_true]) ** 2).sum(axis=1)


def probability_bins(probability: np.ndarray, bins: int = ECE_BINS) -> np.ndarray:
    """Number (n,) of the bin of each probability: `bins` equal ones, closed on the right."""
    return np.clip(np.ceil(probability * bins).astype(np.int64) - 1, 0, bins - 1)


def calibration_terms(y_true: np.ndarray, y_prob: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Bin (n,) of each image's top probability and its gap (n,): right (1 or 0) less confidence.

    ECE is sum over bins of |sum of gaps| / n, with ECE_BINS equal bins closed on the right
    (Guo et al. 2017, "On calibration of modern neural networks", section 2).
    """
    confidence = y_prob.max(axis=1)
    return probability_bins(confidence), (predicted_index(y_prob) == y_true) - confidence


def compute_metrics(
    y_true: np.ndarray, y_prob: np.ndarray, class_names: Sequence[str]
) -> dict[str, Any]:
    """The figures of one model on one set of images, with the keys of `metrics.json`.

    y_true (n,) whole numbers, y_prob (n, C) float; the answer holds plain Python values only.
    AUC is None for a class that no image or every image has, and `auc` is the mean of the
    defined ones; a rate that would divide by 0 is 0. Raises MetricsError.
    """
    y_true, y_prob = check_predictions(y_true, y_prob, class_names)
    class_names = [str(name) for name in class_names]
    confusion = confusion_counts(y_true, predicted_index(y_prob), len(class_names))
    rates = rates_from_confusion(confusion)
    aucs = [rank_auc(y_true == k, y_prob[:, k]) for k in range(len(class_names))]
    bins, gaps = calibration_terms(y_true, y_prob)
    per_class: dict[str, dict[str, Any]] = {
        name: {key: float(rates[key][k]) for key in ("precision", "recall", "specificity", "f1")}
        | {"support": int(confusion[k].sum()), "auc": aucs[k]}
        for k, name in enumerate(class_names)
    }
    metrics: dict[str, Any] = {"n": len(y_true)}
    for key in ("accuracy", "balanced_accuracy", "macro_f1", "macro_precision", "macro_recall"):
        metrics[key] = float(rates[key])
    metrics |= {
        "auc": mean_of_defined(aucs),
        "log_loss": float(log_loss_terms(y_true, y_prob).mean()),
        "brier": float(brier_terms(y_true, y_prob).mean()),
        "ece": float(np.abs(np.bincount(bins, weights=gaps)).sum() / len(y_true)),
        "per_class": per_class,
        "confusion_matrix": confusion.tolist(),
    }
    if COVID in class_names:
        covid = per_class[COVID]
        metrics["binary"] = {
            "covid_vs_rest": {
                "accuracy": float(rates["binary_accuracy"][class_names.index(COVID)]),
                "sensitivity": covid["recall"],
                "specificity": covid["specificity"],
                "precision": covid["precision"],
                "f1": covid["f1"],
                "auc": covid["auc"],
                "support": covid["support"],
            }
        }
    return metrics


def arrays_from_predictions(
    predictions: pd.DataFrame, class_names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
    """y_true (n,) and y_prob (n, C) of a predictions.csv table. Raises MetricsError.

    Needs `label` and `p_<class>` for each class; where `predicted` is there, it must be the
    first largest probability, so that no two figures can disagree about what was called.
    """
    columns = [f"p_{name}" for name in class_names]
    missing = [name for name in ["label", *columns] if name not in predictions.columns]
    if missing:
        raise MetricsError(
            f"The predictions lack the columns {', '.join(missing)}; make them anew."
        )
    y_true = pd.Index(class_names).get_indexer(predictions["label"])
    if (y_true < 0).any():
        unknown = sorted({str(label) for label in predictions["label"][y_true < 0]})
        raise MetricsError(
            f"The predictions have labels {', '.join(unknown)} beside the run's classes "
            f"{', '.join(class_names)}; leave those rows out."
        )
    try:
        y_prob = predictions[columns].to_numpy(dtype=np.float64)
    except ValueError as error:
        raise MetricsError(f"Every p_<class> must be a number: {error}.") from error
    y_true, y_prob = check_predictions(y_true, y_prob, class_names)
    if "predicted" in predictions.columns:
        called = np.asarray(class_names, dtype=object)[predicted_index(y_prob)]
        wrong = np.flatnonzero(predictions["predicted"].to_numpy(dtype=object) != called)
        if len(wrong):
            raise MetricsError(
                f"In {len(wrong)} rows `predicted` is not the class with the largest "
                f"probability (first: row {wrong[0]}); make the predictions anew."
            )
    return y_true, y_prob


def flatten_metrics(metrics: Mapping[str, Any]) -> dict[str, float | None]:
    """The same figures under the keys that `intervals` uses: macro_f1, recall.covid, ..."""
    flat = {
        key: metrics[key]
        for key in (
            *("accuracy", "balanced_accuracy", "macro_f1", "macro_precision", "macro_recall"),
            *("auc", "log_loss", "brier", "ece"),
        )
    }
    for name, row in metrics["per_class"].items():
        flat |= {f"{key}.{name}": value for key, value in row.items() if key != "support"}
    for task, row in metrics.get("binary", {}).items():
        flat |= {f"binary.{task}.{key}": v for key, v in row.items() if key != "support"}
    return flat
