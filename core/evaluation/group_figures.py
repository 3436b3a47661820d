"""Figures of a group of images: accuracy, sensitivity by class, their intervals over patients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from core.metrics.classification import arrays_from_predictions, predicted_index
from core.metrics.intervals import draw_weights, patient_index, wilson_interval

MIN_N = 20  # patients; a smaller group is marked
DRAWS, LEVEL = 2000, 0.95


def score_sources(
    predictions: pd.DataFrame,
    patients: pd.Series,
    sources: pd.Series,
    class_names: list[str],
    *,
    seed: int,
    draws: int = DRAWS,
) -> dict[str, Any]:
    """Each source's figures in one predictions table: metrics.json's `sources`.

    patients and sources map image_id to patient_id and source. Returns {source: {n, n_patients,
    small (fewer than MIN_N patients), classes, accuracy, sensitivity}}, as measure_group has them.
    """
    y_true, y_prob = arrays_from_predictions(predictions, class_names)
    called = {"": predicted_index(y_prob)}
    groups = patients.loc[predictions["image_id"]].to_numpy()
    source = sources.loc[predictions["image_id"]].to_numpy()
    found = {}
    for name in sorted(set(source)):
        group = measure_group(source == name, y_true, called, groups, class_names, seed, draws)
        found[str(name)] = group | group.pop("models")[""]
    return found


def measure_group(
    inside: np.ndarray,
    y_true: np.ndarray,
    predicted: Mapping[str, np.ndarray],
    patients: np.ndarray,
    class_names: list[str],
    seed: int,
    draws: int,
) -> dict[str, Any]:
    """Counts and figures of the images where `inside` (n,) is True.

    y_true, patients (n,); predicted: model -> called class (n,). Returns {n, n_patients, small,
    classes{class: n}, models{model: {accuracy {value, low, high}, sensitivity{class: {value, low,
    high, n, n_patients}}}}} with the classes that the group has.
    """
    y, n_classes = y_true[inside], len(class_names)
    patient, n_patients = patient_index(patients[inside], len(y))

    def by_patient(chosen: np.ndarray) -> np.ndarray:
        """Chosen images of each class and patient: (C, n_patients)."""
        cell = y[chosen] * n_patients + patient[chosen]
        counts = np.bincount(cell, minlength=n_classes * n_patients)
        return counts.reshape(n_classes, n_patients).astype(np.float64)

    support = by_patient(np.ones(len(y), dtype=bool))
    right = {model: by_patient(called[inside] == y) for model, called in predicted.items()}
    stacked = np.concatenate([support, *right.values()])
    drawn = np.concatenate([stacked @ w for w in draw_weights(n_patients, draws, seed)], axis=1)
    drawn = drawn.reshape(1 + len(right), n_classes, -1)
    present = np.flatnonzero(support.sum(axis=1))
    models = {}
    for number, (model, hits) in enumerate(right.items(), start=1):
        accuracy = hits.sum() / len(y)
        models[model] = {
            "accuracy": {"value": float(accuracy)}
            | _bounds(accuracy, n_patients, drawn[number].sum(axis=0), drawn[0].sum(axis=0)),
            "sensitivity": {},
        }
        for k in present:
            n, share = int(support[k].sum()), hits[k].sum() / support[k].sum()
            behind = int((support[k] > 0).sum())
            models[model]["sensitivity"][class_names[k]] = (
                {"value": float(share)}
                | _bounds(share, behind, drawn[number, k], drawn[0, k])
                | {"n": n, "n_patients": behind}
            )
    return {
        "n": len(y),
        "n_patients": n_patients,
        "small": n_patients < MIN_N,
        "classes": {class_names[k]: int(support[k].sum()) for k in present},
        "models": models,
    }


def _bounds(share: float, n_patients: int, right: np.ndarray, n: np.ndarray) -> dict[str, Any]:
    """Interval of a share from its drawn counts; draws without any such image are left out."""
    low = high = share
    if share not in (0.0, 1.0):
        if n_patients < 2:
            return {"low": None, "high": None}
        some = n > 0
        low, high = np.quantile(right[some] / n[some], [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    if low == high:  # patients who are all alike would seem to leave no doubt
        low, high = wilson_interval(share * n_patients, n_patients, LEVEL)
    return {"low": float(low), "high": float(high)}
