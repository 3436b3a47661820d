"""Figures of cross-validation as tables: pooled, fold by fold, and the recipes tried before.

Everything is read from a run's files: metrics_folds.json (pooled out-of-fold figures),
predictions_folds.csv and run.json. A fold's model never saw the images that it answers for.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from core.formatting import interval_text, percent
from core.metrics.bootstrap import draw_sums, patient_index, wilson_interval
from core.metrics.classification import (
    arrays_from_predictions,
    predicted_index,
    rates_from_confusion,
)
from core.metrics.intervals import as_matrices, bootstrap_intervals, patient_confusion
from core.runs.artifacts import has_predictions, load_fold_metrics, load_manifest, load_predictions
from core.runs.run import Run
from core.runs.schema.run import Trial

DRAWS = 2000
POOLED = "pooled"
FOLD_METRICS = {"accuracy": "Accuracy", "macro_f1": "Macro-F1"}
FOLD_COLUMNS = ["model", "fold", "metric", "value", "low", "high", "n", "n_patients"]
TRIAL_COLUMNS = ["model", "change", "images", "n", "accuracy", "low", "high"]
TRIAL_COLUMNS += ["log_loss", "gain", "log_loss_gain", "kept"]
# Images that the hold-out figures or the target are judged on: no recipe should be read on them.
_JUDGED_ON = re.compile(r"\b(outer|test)\b", re.IGNORECASE)


@dataclass(frozen=True)
class Estimate:
    """A fraction with its 95% interval; low and high are None where there is none."""

    value: float
    low: float | None = None
    high: float | None = None

    def text(self, decimals: int = 1) -> str:
        """Percent, such as "87.0 (84.9 to 88.9)"."""
        shown = percent(self.value, decimals, unit="")
        if self.low is None or self.high is None:
            return shown
        return f"{shown} ({interval_text((self.low, self.high))})"


def fold_count(run: Run) -> int:
    """K; 0 where the run was trained on its hold-out alone."""
    folds: Mapping[str, Any] = run.info.get("folds") or {}
    return int(folds.get("k") or (run.info.get("config") or {}).get("folds") or 0)


def is_grouped(run: Run) -> bool:
    """Whether the folds keep the images of a patient together."""
    return run.info.get("split_policy") == "group"


def load_pooled(run: Run) -> dict[str, Mapping[str, Any]]:
    """Model -> metrics_folds.json, for the models that have out-of-fold predictions."""
    folded = [model for model in run.models if has_predictions(run, model, "folds")]
    found = {model: load_fold_metrics(run, model) for model in folded}
    return {model: metrics for model, metrics in found.items() if metrics is not None}


def folds_not_done(run: Run) -> dict[str, str]:
    """Model -> why it has no out-of-fold predictions."""
    folds: Mapping[str, Any] = run.info.get("folds") or {}
    said = folds.get("models", {})
    default = "no reason is recorded" if fold_count(run) else "trained without `--folds`"
    missing = [m for m in run.models if not has_predictions(run, m, "folds")]
    reasons = {model: str(said.get(model, {}).get("reason") or default) for model in missing}
    for model in missing:
        without = [run.title(m) for m in run.members(model) if m in missing]
        if without and fold_count(run):
            reasons[model] = (
                f"needs the folds of all its members, and these have none: {', '.join(without)}"
            )
    return reasons


def fold_table(run: Run) -> pd.DataFrame:
    """FOLD_COLUMNS: accuracy and macro-F1 pooled over the folds and in each fold, fractions.

    fold is POOLED or the fold's number as text. Pooled intervals are metrics_folds.json's, those
    of a fold drawn here: whole patients, 2,000 draws.
    """
    rows = []
    for model, metrics in load_pooled(run).items():
        for metric in FOLD_METRICS:
            bounds = metrics["intervals"].get(metric) or {}
            n_patients = metrics.get("n_patients")
            figures = (metrics[metric], bounds.get("low"), bounds.get("high"))
            rows.append((model, POOLED, metric, *figures, metrics["n"], n_patients))
        table, groups = fold_predictions(run, model)
        for fold in sorted(table["fold"].unique(), key=_fold_order):
            mask = (table["fold"] == fold).to_numpy()
            rows += _single_fold(run, model, str(fold), table[mask], groups[mask])
    table = pd.DataFrame(rows, columns=FOLD_COLUMNS)
    numbers = ["value", "low", "high"]
    table[numbers] = table[numbers].astype(float)
    return table


def _single_fold(
    run: Run, model: str, fold: str, part: pd.DataFrame, groups: np.ndarray
) -> list[tuple]:
    y_true, y_prob = arrays_from_predictions(part, run.class_names)
    values, drawn = draw_rates(y_true, y_prob, groups, run_seed(run))
    n_patients, rows = len(set(groups)), []
    for metric in FOLD_METRICS:
        value = float(values[metric])
        low, high = np.quantile(drawn[metric], [0.025, 0.975])
        if value in (0.0, 1.0):  # draws of a perfect fold are all alike
            own = bootstrap_intervals(y_true, y_prob, groups, run.class_names, draws=1)[metric]
            low, high = own["low"], own["high"]
        rows.append((model, fold, metric, value, low, high, len(part), n_patients))
    return rows


def fold_predictions(run: Run, model: str) -> tuple[pd.DataFrame, np.ndarray]:
    """predictions_folds.csv and the patient of each of its rows."""
    table = load_predictions(run, model, "folds")
    patients = load_manifest(run).set_index("image_id")["patient_id"]
    return table, patients.reindex(table["image_id"]).to_numpy()


def draw_rates(
    y_true: np.ndarray, y_prob: np.ndarray, groups: np.ndarray, seed: int
) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Every rate of the images as they are, and in each of DRAWS draws of whole patients."""
    n_classes = y_prob.shape[1]
    patient, n_patients = patient_index(groups, len(y_true))
    cells = patient_confusion(y_true, predicted_index(y_prob), patient, n_patients, n_classes)
    drawn = rates_from_confusion(as_matrices(draw_sums(cells, DRAWS, seed), n_classes))
    total = as_matrices(cells.sum(axis=1, keepdims=True), n_classes)[0]
    return rates_from_confusion(total), drawn


def _fold_order(fold: str) -> tuple[int, str]:
    return (int(fold), "") if str(fold).isdigit() else (10**9, str(fold))


def trial_table(run: Run) -> pd.DataFrame:
    """TRIAL_COLUMNS: the recipes compared on validation, in the order they were tried.

    gain and log_loss_gain: against the recipe of the model that was kept last before on the same
    images, or else the first of them (NaN for the first); a positive gain is better in both. low
    and high: Wilson's interval with every image for itself, since no trial's predictions are kept;
    over patients it is wider.
    """
    rows: list[tuple] = []
    kept: dict[tuple, Mapping[str, Any]] = {}
    for trial in run.info.get("trials") or []:
        accuracy, n = trial.get("accuracy"), int(trial["n"])
        bounds = wilson_interval(accuracy * n, n) if accuracy is not None else (None, None)
        key = (trial["model"], trial.get("images", ""), n)
        before = kept.get(key, {})
        gain = _less(accuracy, before.get("accuracy"))
        loss_gain = _less(before.get("log_loss"), trial.get("log_loss"))
        head = (trial["model"], trial["change"], key[1], n, accuracy, *bounds)
        rows.append((*head, trial.get("log_loss"), gain, loss_gain, bool(trial.get("kept"))))
        if trial.get("kept") or not before:
            kept[key] = trial
    table = pd.DataFrame(rows, columns=TRIAL_COLUMNS)
    numbers = ["accuracy", "low", "high", "log_loss", "gain", "log_loss_gain"]
    table[numbers] = table[numbers].astype(float)
    return table


def trials_on_judged_images(run: Run) -> list[Trial]:
    """Trials that were read on outer folds or test images, as their `images` say."""
    return [t for t in run.info.get("trials") or [] if _JUDGED_ON.search(str(t.get("images")))]


def _less(a: float | None, b: float | None) -> float | None:
    return None if a is None or b is None else a - b


def make_estimate(value: float | None, interval: Mapping[str, Any] | None) -> Estimate | None:
    """A figure with its interval as metrics.json has them; None where there is no figure."""
    interval = interval or {}
    return None if value is None else Estimate(value, interval.get("low"), interval.get("high"))


def run_seed(run: Run) -> int:
    """The seed that every draw about the run starts from."""
    return int(run.info["seed"])
