"""Cached computing of Curves and thresholds: predictions -> curves, calibration, thresholds.

As in dashboard.data.runs every function is cached by the run, as it was written, and raises
ArtifactError where the run's files cannot be used. What is chosen (temperatures, thresholds) was
chosen on out-of-fold or validation predictions and is measured on test.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from core.metrics import calibration, classification, conformal, curves, operating_point
from core.metrics.curves import Curve
from core.runs import artifacts
from core.runs.run import Run
from core.runs.schema.run import Calibration, Conformal
from dashboard.data import runs as run_data
from dashboard.data.tokens import BY_RUN
from dashboard.tables import curves as curve_tables

TEST = "test"
UNCHOSEN = 0.5
SPLIT_PHRASES = {"inner": "inner folds", "val": "validation"}
_BUSY = "Computing …"
Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def load_arrays(run: Run, model: str, split: str) -> Arrays:
    """y_true (n,), y_prob (n, C), patients (n,) of one split, in the order of image ids."""
    table = run_data.load_prediction_table(run, model, split).sort_values("image_id")
    y_true, y_prob = classification.arrays_from_predictions(table, run.class_names)
    return y_true, y_prob, table["patient_id"].to_numpy()


@st.cache_data(hash_funcs=BY_RUN, show_spinner=_BUSY, max_entries=60)
def load_curves(run: Run, model: str, split: str) -> dict[str, dict[str, Curve]]:
    """{"roc": {class or "macro": Curve}, "pr": ...}; a class without a curve is absent."""
    roc, pr = curves.curve_bands(*load_arrays(run, model, split), run.class_names)
    return {"roc": roc, "pr": pr}


@st.cache_data(hash_funcs=BY_RUN, show_spinner=_BUSY, max_entries=20)
def load_area_comparisons(run: Run, split: str) -> dict[str, list[dict]] | None:
    """Each pair of the run's models judged on AUC, a class; None where no paired test exists.

    Always all models, as in dashboard.data.runs.load_comparisons: showing fewer must not soften the
    correction for the number of pairs.
    """
    asked = [run_data.load_prediction_table(run, model, split)["image_id"] for model in run.models]
    if len({tuple(sorted(ids)) for ids in asked}) > 1:
        return None
    arrays = {model: load_arrays(run, model, split) for model in run.models}
    y_true, _, groups = arrays[run.models[0]]
    probs = {model: y_prob for model, (_, y_prob, _) in arrays.items()}
    return curve_tables.compare_areas(y_true, probs, groups, run.class_names)


# ------------------------------------------------------------------------------ calibration


def calibration_entry(run: Run, model: str) -> Calibration | None:
    """The model's entry in run.json's `calibration`, None where it was not calibrated."""
    return (run.info.get("calibration") or {}).get(model)


def conformal_entry(run: Run, model: str) -> Conformal | None:
    """The model's entry in run.json's `conformal`; None without it or without a calibration."""
    entry = (run.info.get("conformal") or {}).get(model)
    return entry if entry and calibration_entry(run, model) else None


def fitted_on(entry: Mapping[str, Any]) -> str:
    """From what a calibration was fitted, such as "inner folds, n = 899 images"."""
    part = str(entry.get("part", ""))
    text = f"{SPLIT_PHRASES.get(part, part or 'part not stated')}, n = {entry.get('n', '–')}"
    if entry.get("n_images") is not None:
        text += f" patients, one of their {entry['n_images']} images each"
    elif entry.get("n_patients") is not None:
        text += f" images of {entry['n_patients']} patients"
    return text


@st.cache_data(hash_funcs=BY_RUN, show_spinner=_BUSY, max_entries=60)
def load_calibration(run: Run, model: str) -> dict[str, Any]:
    """Test probabilities as served and calibrated: reliability tables and metrics.

    {before, after: reliability tables, metrics: core.metrics.calibration.calibrated_metrics'};
    after is None where the model has no calibration, and metrics then holds "before" alone.
    """
    y_true, y_prob, groups = load_arrays(run, model, TEST)
    entry = calibration_entry(run, model)
    after = calibration.apply_calibration(y_prob, entry, run.class_names)
    measured = calibration.calibrated_metrics(y_true, y_prob, after, groups, run.class_names)
    bins = classification.ECE_BINS
    return {
        "before": calibration.reliability(y_true, y_prob, groups, bins),
        "after": calibration.reliability(y_true, after, groups, bins) if entry else None,
        "metrics": measured if entry else {"before": measured["before"]},
    }


@st.cache_data(hash_funcs=BY_RUN, show_spinner=_BUSY, max_entries=60)
def load_sets(run: Run, model: str) -> dict[str, Any]:
    """core.metrics.conformal.evaluate_sets on test; needs a conformal_entry (KeyError)."""
    y_true, y_prob, groups = load_arrays(run, model, TEST)
    entry, conformal_set = calibration_entry(run, model), conformal_entry(run, model)
    if conformal_set is None:
        raise KeyError(model)
    calibrated = calibration.apply_calibration(y_prob, entry, run.class_names)
    sets = conformal.prediction_sets(calibrated, conformal_set["threshold"])
    return conformal.evaluate_sets(y_true, sets, groups, run.class_names)


# ------------------------------------------------------------------------------ operating point


def _one_class(run: Run, model: str, split: str, name: str) -> Arrays:
    """is_positive (n,), score (n,), patients (n,) of one class against the rest."""
    y_true, y_prob, groups = load_arrays(run, model, split)
    k = run.class_names.index(name)
    return y_true == k, y_prob[:, k], groups


@st.cache_data(hash_funcs=BY_RUN, show_spinner=_BUSY, max_entries=200)
def load_default_threshold(run: Run, model: str, name: str) -> dict[str, Any]:
    """{part, n, n_positive, n_patients, threshold}: where a threshold is chosen and the default
    chosen there.

    n images, n_positive of them of the class, from n_patients patients. part is None without such
    predictions. Where it is, or none of them is of the class, nothing can be chosen: the threshold
    is then UNCHOSEN, and n_positive 0 says so.
    """
    part = artifacts.calibration_split(run, model)
    chosen = {"part": part, "n": 0, "n_positive": 0, "n_patients": 0, "threshold": UNCHOSEN}
    if part is not None:
        is_positive, score, patients = _one_class(run, model, part, name)
        chosen |= {"n": len(score), "n_positive": int(is_positive.sum())}
        chosen["n_patients"] = len(set(patients[is_positive]))
        if is_positive.any():
            chosen["threshold"] = operating_point.choose_threshold(is_positive, score)
    return chosen


@st.cache_data(hash_funcs=BY_RUN, show_spinner=_BUSY, max_entries=200)
def load_operating_table(
    run: Run, model: str, split: str, name: str, default: float
) -> pd.DataFrame:
    """core.metrics.operating_point.operating_table at every threshold that can be set."""
    y_true, y_prob, _ = load_arrays(run, model, split)
    thresholds = curve_tables.threshold_options(default)
    return operating_point.operating_table(y_true, y_prob, run.class_names.index(name), thresholds)


@st.cache_data(hash_funcs=BY_RUN, show_spinner=_BUSY, max_entries=500)
def load_rates(
    run: Run, model: str, name: str, threshold: float, prevalence: float
) -> dict[str, dict]:
    """core.metrics.operating_point.rates_at on test."""
    arrays = _one_class(run, model, TEST, name)
    return operating_point.rates_at(*arrays, threshold, prevalence)


def count_test(run: Run, model: str, name: str) -> tuple[int, int]:
    """Test images of the class, and of all classes."""
    table = run_data.load_prediction_table(run, model, TEST)
    return int((table["label"] == name).sum()), len(table)
