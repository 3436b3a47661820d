"""Are the probabilities to be believed? Reliability, and temperature scaling after the weights.

Training with class weights acts as if every class were equally common. That is taken out first,
with the shares of the part the model was trained on, and one temperature is fitted on what is left.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import brentq
from scipy.special import softmax

from core.metrics.bootstrap import (
    DRAWS,
    LEVEL,
    StatisticsError,
    check_drawing,
    count_patients,
    draw_sums,
    patient_index,
    percentile_interval,
    sum_by_patient,
    wilson_interval,
)
from core.metrics.classification import (
    ECE_BINS,
    brier_terms,
    calibration_terms,
    check_predictions,
    divide,
    log_loss_terms,
    predicted_index,
    probability_bins,
)
from core.metrics.intervals import interval_entry, shift_ece

# Beyond these a temperature says no more than "as sure" or "as unsure as can be".
COLDEST, HOTTEST = 0.1, 10.0
# Steps of log T, away from the one fitted, where drawn patients' slopes are known.
NEARBY = np.geomspace(0.003, np.log(HOTTEST / COLDEST), 9)
# A float32 softmax holds nothing smaller; a class that was written as 0 is taken for this.
SMALLEST = float(np.finfo(np.float32).tiny)
RELIABILITY_COLUMNS = [
    *("bin", "low", "high", "n", "n_patients", "confidence", "accuracy", "acc_low", "acc_high")
]
SCORES = ("log_loss", "brier", "ece", "accuracy")


def class_shares(labels: Sequence[str], class_names: Sequence[str]) -> dict[str, float]:
    """Class -> its share of labels: the prior of the part a model was trained on."""
    counts = pd.Series(labels, dtype=object).value_counts()
    found = {str(name): int(counts.get(name, 0)) for name in class_names}
    total = sum(found.values())
    if total == 0:
        raise StatisticsError(f"No label is one of {list(found)}; the classes have no shares.")
    return {name: count / total for name, count in found.items()}


def take_out_weights(y_prob: np.ndarray, prior: Sequence[float]) -> np.ndarray:
    """y_prob (n, C) as if trained without balancing weights; prior (C,) in class order.

    Each probability times the share of its class in the training part, and each row divided by
    its sum (Elkan 2001, theorem 2; Saerens, Latinne & Decaestecker 2002, section 2).
    """
    return calibrate(y_prob, prior)


def calibrate(
    y_prob: np.ndarray, prior: Sequence[float] | None = None, temperature: float = 1.0
) -> np.ndarray:
    """Calibrated probabilities (n, C): softmax((log y_prob + log prior) / temperature).

    prior (C,) in class order: shares in the part the model was trained on, None where it was
    trained without class weights. Raises StatisticsError.
    """
    y_prob = np.asarray(y_prob, dtype=np.float64)
    if not temperature > 0:
        raise StatisticsError(f"A temperature must be above 0, not {temperature}.")
    return softmax((_logs(y_prob) + _log_prior(prior, y_prob.shape[-1])) / temperature, axis=-1)


def _logs(y_prob: np.ndarray) -> np.ndarray:
    return np.log(np.maximum(y_prob, SMALLEST))


def _log_prior(prior: Sequence[float] | None, n_classes: int) -> np.ndarray:
    if prior is None:
        return np.zeros(n_classes)
    shares = np.asarray(prior, dtype=np.float64)
    usable = shares.shape == (n_classes,) and np.isfinite(shares).all() and shares.min() >= 0
    if not usable or shares.sum() == 0:
        raise StatisticsError(
            f"The prior must hold one share for each of {n_classes} classes, not {shares.tolist()}."
        )
    return _logs(shares / shares.sum())


def fit_temperature(y_true: np.ndarray, y_prob: np.ndarray) -> float:
    """The T that makes the log loss of softmax(log(y_prob) / T) smallest (Guo et al. 2017, 4.2).

    The loss is convex in 1 / T, so its slope has one root, which is looked for between COLDEST
    and HOTTEST; 1 where every T is as good.
    """
    logs = _logs(np.asarray(y_prob, dtype=np.float64))

    def slope(log_temperature: float) -> float:
        return float(_slopes(y_true, logs, np.exp(log_temperature)).sum())

    if np.allclose(logs, logs[:, :1], rtol=0, atol=1e-9):
        return 1.0
    coldest, hottest = np.log(COLDEST), np.log(HOTTEST)
    if slope(coldest) <= 0:
        return COLDEST
    if slope(hottest) >= 0:
        return HOTTEST
    return float(np.exp(brentq(slope, coldest, hottest, xtol=1e-10)))


def _slopes(y_true: np.ndarray, logs: np.ndarray, temperature: float) -> np.ndarray:
    """Slope (n,) of each image's log loss against 1 / T; their sum falls as T rises."""
    expected = (softmax(logs / temperature, axis=1) * logs).sum(axis=1)
    return expected - logs[np.arange(len(logs)), y_true]


def _temperature_interval(
    y_true: np.ndarray,
    y_prob: np.ndarray,
    groups: ArrayLike,
    fitted: float,
    draws: int,
    seed: int,
    level: float,
) -> tuple[float | None, float | None]:
    """Quantiles of the temperatures that would be fitted to drawn patients; None under two."""
    patient, n_patients = patient_index(groups, len(y_true))
    if n_patients < 2:
        return None, None
    logs = _logs(y_prob)
    steps = np.concatenate([-NEARBY[::-1], [0], NEARBY])
    grid = np.log(fitted) + steps
    grid = np.unique(np.clip(grid, np.log(COLDEST), np.log(HOTTEST)))
    slopes = np.stack([_slopes(y_true, logs, temperature) for temperature in np.exp(grid)])
    drawn = draw_sums(sum_by_patient(patient, n_patients, slopes), draws, seed)
    # The slope falls along the grid: the root lies between the last place above 0 and the next.
    above = (drawn > 0).sum(axis=0)
    last = np.clip(above - 1, 0, len(grid) - 2)
    here, after = np.take_along_axis(drawn, np.stack([last, last + 1]), axis=0)
    way = divide(here, here - after).clip(0, 1)
    roots = np.exp(grid[last] + way * (grid[last + 1] - grid[last]))
    low, high, _ = percentile_interval(roots, level)
    return low, high


def fit_calibration(
    y_true: np.ndarray,
    y_prob: np.ndarray,
    groups: ArrayLike,
    prior: Mapping[str, float] | None,
    class_names: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict:
    """A model's entry in run.json's `calibration`, fitted on predictions it was not trained on.

    prior: class -> its share in the part the model was trained on (class_shares), None where it
    was trained without class weights. Returns {temperature, low, high, prior, weighted, n,
    n_patients}; low and high from drawn patients, None under two. Raises MetricsError.
    """
    check_drawing(draws)
    y_true, y_prob = check_predictions(y_true, y_prob, class_names)
    unweighted = calibrate(y_prob, _in_order(prior, class_names))
    fitted = fit_temperature(y_true, unweighted)
    low, high = _temperature_interval(y_true, unweighted, groups, fitted, draws, seed, LEVEL)
    return {
        "temperature": fitted,
        "low": low,
        "high": high,
        "prior": None if prior is None else {name: float(prior[name]) for name in class_names},
        "weighted": prior is not None,
        "n": len(y_true),
        "n_patients": patient_index(groups, len(y_true))[1],
    }


def apply_calibration(
    y_prob: np.ndarray, calibration: Mapping | None, class_names: Sequence[str]
) -> np.ndarray:
    """y_prob (n, C) through an entry of run.json's `calibration`; as it is where that is None."""
    if calibration is None:
        return np.asarray(y_prob, dtype=np.float64)
    prior = _in_order(calibration.get("prior"), class_names)
    return calibrate(y_prob, prior, calibration["temperature"])


def _in_order(prior: Mapping[str, float] | None, class_names: Sequence[str]) -> list[float] | None:
    if prior is None:
        return None
    missing = [name for name in class_names if name not in prior]
    if missing:
        raise StatisticsError(f"The prior has no share for {', '.join(missing)}.")
    return [prior[name] for name in class_names]


def reliability(
    y_true: np.ndarray,
    y_prob: np.ndarray,
    groups: ArrayLike,
    bins: int = ECE_BINS,
    *,
    k: int | None = None,
    level: float = 0.95,
) -> pd.DataFrame:
    """The reliability diagram: one row for each of `bins` equal bins, closed on the right.

    k None: the top probability, and how often the class called was right (what ECE sums up);
    k a class number: the probability of that class, and how often it was that class.
    Columns: bin (0..), low, high (edges), n, n_patients, confidence (mean probability), accuracy
    (share right), acc_low, acc_high (Wilson on the patients in the bin: images of one patient
    count as one, so it is never too narrow). Empty bins have n 0 and NaN in the last four.
    """
    names = range(np.shape(y_prob)[-1])
    y_true, y_prob = check_predictions(y_true, y_prob, names)
    patient, _ = patient_index(groups, len(y_true))
    if bins < 1:
        raise StatisticsError(f"A reliability diagram needs at least one bin, not {bins}.")
    if k is not None and k not in names:
        raise StatisticsError(f"The class number must be one of {list(names)}, not {k}.")
    if k is None:
        probability, right = y_prob.max(axis=1), predicted_index(y_prob) == y_true
    else:
        probability, right = y_prob[:, k], y_true == k
    place = probability_bins(probability, bins)
    rows = []
    for number in range(bins):
        here = place == number
        n, patients = int(here.sum()), count_patients(patient, here)
        share = float(right[here].mean()) if n else np.nan
        low, high = wilson_interval(share * patients, patients, level) if n else (np.nan, np.nan)
        confidence = float(probability[here].mean()) if n else np.nan
        edges = number / bins, (number + 1) / bins
        rows.append((number, *edges, n, patients, confidence, share, low, high))
    return pd.DataFrame(rows, columns=RELIABILITY_COLUMNS)


def calibrated_metrics(
    y_true: np.ndarray,
    y_prob_before: np.ndarray,
    y_prob_after: np.ndarray,
    groups: ArrayLike,
    class_names: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict:
    """What calibration changed, on images it was not fitted on: {"before", "after", "change"}.

    before and after: {log_loss, brier, ece, accuracy, intervals{key: as in metrics.json}};
    change: {key: {value, low, high}}, after less before over the same drawn patients (that of
    ECE moved back by its mean excess, as ECE itself is). Raises MetricsError.
    """
    check_drawing(draws)
    patient, n_patients = patient_index(groups, len(y_true))
    terms = {}
    for name, y_prob in (("before", y_prob_before), ("after", y_prob_after)):
        terms[name] = _score_terms(*check_predictions(y_true, y_prob, class_names))
    stacked = np.concatenate([np.ones((1, len(patient))), *terms.values()])
    drawn = draw_sums(sum_by_patient(patient, n_patients, stacked), draws, seed)
    images, *parts = np.split(drawn, [1, 1 + len(terms["before"])])
    values = {name: _scores(part, images[0]) for name, part in zip(terms, parts, strict=True)}
    estimates = {
        name: {key: float(v[0]) for key, v in _scores(t.sum(axis=1)[:, None], len(patient)).items()}
        for name, t in terms.items()
    }
    result = {}
    for name, estimate in estimates.items():
        intervals = {
            key: _interval(key, estimate[key], values[name][key], n_patients, LEVEL, seed)
            for key in SCORES
        }
        result[name] = estimate | {"intervals": intervals}
    change = {}
    for key in SCORES:
        value = estimates["after"][key] - estimates["before"][key]
        differences = values["after"][key] - values["before"][key]
        excess = differences.mean() - value if key == "ece" else 0.0
        low, high, _ = percentile_interval(differences - excess, LEVEL)
        bounds = {"low": low, "high": high} if n_patients > 1 else {"low": None, "high": None}
        change[key] = {"value": value} | bounds
    return result | {"change": change}


def _score_terms(y_true: np.ndarray, y_prob: np.ndarray) -> np.ndarray:
    """(3 + ECE_BINS, n): log loss, Brier, right or wrong, and the gap in its bin, of each image."""
    bins, gaps = calibration_terms(y_true, y_prob)
    rows = [log_loss_terms(y_true, y_prob), brier_terms(y_true, y_prob)]
    rows.append(predicted_index(y_prob) == y_true)
    return np.stack([*rows, *np.where(bins == np.arange(ECE_BINS)[:, None], gaps, 0)])


def _scores(sums: np.ndarray, images: np.ndarray | int) -> dict[str, np.ndarray]:
    """The rows of _score_terms summed over images, (3 + ECE_BINS, rows) -> score -> (rows,)."""
    log_loss, brier, right, *gaps = sums / images
    return {
        "log_loss": log_loss,
        "brier": brier,
        "ece": np.abs(gaps).sum(axis=0),
        "accuracy": right,
    }


def _interval(
    key: str, estimate: float, drawn: np.ndarray, n_patients: int, level: float, seed: int
) -> dict:
    """As core.metrics.intervals.bootstrap_intervals makes it."""
    if key == "accuracy" and estimate in (0.0, 1.0):
        bounds = wilson_interval(estimate * n_patients, n_patients, level)
        return interval_entry(*bounds, "wilson", 0, level, seed)
    if n_patients < 2:
        return interval_entry(None, None, "undefined", 0, level, seed)
    low, high, used = percentile_interval(drawn, level)
    if key == "ece":
        low, high = shift_ece(low, high, drawn, estimate)
        return interval_entry(low, high, "percentile, shifted", used, level, seed)
    return interval_entry(low, high, "percentile", used, level, seed)
