"""Predictions of a served model -> the files that every figure derives from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core import artifacts
from core.comparisons import compare_models
from core.inference import ServedModel
from core.metrics import arrays_from_predictions, compute_metrics, predicted_index
from core.statistics import bootstrap_intervals


def predictions_table(
    rows: pd.DataFrame, probabilities: np.ndarray, class_names: list[str]
) -> pd.DataFrame:
    """A predictions table: `rows` has image_id, split, fold, label; probabilities (n, classes)."""
    table = rows[["image_id", "split", "fold", "label"]].reset_index(drop=True)
    # Rounded to what the file holds first, so that `predicted` agrees with the file.
    written = np.array([[float(f"{p:.9g}") for p in row] for row in probabilities])
    table["predicted"] = np.asarray(class_names, dtype=object)[predicted_index(written)]
    for index, name in enumerate(class_names):
        table[f"p_{name}"] = written[:, index]
    return table


def predict_split(
    model: ServedModel, pixels: np.ndarray, manifest: pd.DataFrame, split: str
) -> pd.DataFrame:
    """Predictions of one split; pixels (n, size, size) in the order of the manifest's n rows."""
    rows = np.flatnonzero(manifest["split"].to_numpy() == split)
    chosen = manifest.iloc[rows].assign(fold="")
    output = model.predict(pixels[rows])
    return predictions_table(chosen, output.probabilities, list(model.class_names))


def score_predictions(
    predictions: pd.DataFrame,
    patients: pd.Series,
    class_names: list[str],
    *,
    seed: int,
    cost: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """metrics.json of one predictions table; patients maps image_id to patient_id."""
    y_true, y_prob = arrays_from_predictions(predictions, class_names)
    groups = patients.loc[predictions["image_id"]].to_numpy()
    metrics: dict[str, Any] = compute_metrics(y_true, y_prob, class_names)
    metrics["n_patients"] = len(set(groups))
    metrics["intervals"] = bootstrap_intervals(y_true, y_prob, groups, class_names, seed=seed)
    metrics["calibrated"] = None  # no temperature is fitted yet
    metrics["cost"] = cost
    return metrics


def score_run(run_dir: Path, info: dict[str, Any], costs: dict[str, dict]) -> list[dict]:
    """Write every model's metrics.json from its predictions.csv; returns the paired comparisons."""
    run = artifacts.Run(run_dir, info)
    patients = artifacts.load_manifest(run).set_index("image_id")["patient_id"]
    class_names, seed = run.class_names, int(info["seed"])
    probabilities, y_true, groups = {}, None, None
    for model in run.models:
        predictions = artifacts.load_predictions(run, model)
        metrics = score_predictions(
            predictions, patients, class_names, seed=seed, cost=costs.get(model)
        )
        artifacts.write_metrics(run_dir, model, metrics)
        predictions = predictions.sort_values("image_id")
        y_true, probabilities[model] = arrays_from_predictions(predictions, class_names)
        groups = patients.loc[predictions["image_id"]].to_numpy()
    return compare_models(y_true, probabilities, groups, class_names, seed=seed)
