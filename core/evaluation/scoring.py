"""Predictions of a served model -> the files that every figure derives from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.evaluation.group_figures import score_sources
from core.evaluation.left_out_sources import score_left_out
from core.metrics.calibration import apply_calibration, calibrated_metrics, fit_calibration
from core.metrics.classification import (
    COVID,
    arrays_from_predictions,
    compute_metrics,
    predicted_index,
)
from core.metrics.conformal import fit_conformal
from core.metrics.intervals import bootstrap_intervals
from core.metrics.prior_correction import effective_prior, measure_weights_effect
from core.metrics.significance import compare_models
from core.runs import artifacts, writing
from core.runs.run import Run

NORMAL = "normal"
TWO_CLASSES = (COVID, NORMAL)
DRAWS = 2000


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


def mean_table(tables: Sequence[pd.DataFrame], class_names: list[str]) -> pd.DataFrame:
    """The ensemble's predictions: the mean of its members' probabilities, image by image."""
    first = tables[0].set_index("image_id")
    columns = [f"p_{name}" for name in class_names]
    parts = [table.set_index("image_id").loc[first.index, columns] for table in tables]
    mean = np.mean([part.to_numpy(dtype=float) for part in parts], axis=0)
    return predictions_table(first.reset_index(), mean, class_names)


def score_predictions(
    predictions: pd.DataFrame,
    patients: pd.Series,
    class_names: list[str],
    *,
    seed: int,
    cost: dict[str, Any] | None = None,
    draws: int = DRAWS,
    sources: pd.Series | None = None,
) -> dict[str, Any]:
    """metrics.json of one predictions table; patients maps image_id to patient_id.

    sources: image_id to where the image comes from, where the run has several data sets.
    """
    y_true, y_prob = arrays_from_predictions(predictions, class_names)
    groups = patients.loc[predictions["image_id"]].to_numpy()
    metrics: dict[str, Any] = compute_metrics(y_true, y_prob, class_names)
    metrics["n_patients"] = len(set(groups))
    metrics["intervals"] = bootstrap_intervals(
        y_true, y_prob, groups, class_names, draws=draws, seed=seed
    )
    metrics["calibrated"] = None
    metrics["cost"] = cost
    if sources is not None:
        metrics["sources"] = score_sources(
            predictions, patients, sources, class_names, seed=seed, draws=draws
        )
    return metrics


def score_folds(
    predictions: pd.DataFrame,
    patients: pd.Series,
    class_names: list[str],
    *,
    seed: int,
    draws: int = DRAWS,
    sources: pd.Series | None = None,
) -> dict[str, Any]:
    """metrics_folds.json: pooled figures with intervals, each fold's, and covid against normal.

    Every image counts once, predicted by the model of the fold that left it out.
    """
    metrics = score_predictions(
        predictions, patients, class_names, seed=seed, draws=draws, sources=sources
    )
    folds = []
    for fold, rows in predictions.groupby(predictions["fold"].astype(int)):
        figures = compute_metrics(*arrays_from_predictions(rows, class_names), class_names)
        kept = {key: figures[key] for key in ("n", "accuracy", "macro_f1")}
        folds.append({"fold": int(fold), **kept})
    metrics["folds"] = folds
    metrics["spread"] = {}
    for key in ("accuracy", "macro_f1"):
        values = [row[key] for row in folds]
        sd = float(np.std(values, ddof=1)) if len(values) > 1 else None
        metrics["spread"][key] = {"mean": float(np.mean(values)), "sd": sd}
    metrics["two_class"] = score_two_classes(
        predictions, patients, class_names, seed=seed, draws=draws
    )
    return metrics


def score_two_classes(
    predictions: pd.DataFrame,
    patients: pd.Series,
    class_names: list[str],
    *,
    seed: int,
    draws: int = DRAWS,
) -> dict[str, Any] | None:
    """Covid against normal: images of these two classes, asked which of the two is likelier.

    The probabilities of the two are divided by their sum. None where the run lacks one of them.
    """
    names = list(TWO_CLASSES)
    rows = predictions[predictions["label"].isin(names)]
    if not set(names) <= set(class_names) or not len(rows):
        return None
    y_true = pd.Index(names).get_indexer(rows["label"])
    shares = rows[[f"p_{name}" for name in names]].to_numpy(dtype=float) + 1e-12
    y_prob = shares / shares.sum(axis=1, keepdims=True)
    groups = patients.loc[rows["image_id"]].to_numpy()
    figures = compute_metrics(y_true, y_prob, names)
    intervals = bootstrap_intervals(y_true, y_prob, groups, names, draws=draws, seed=seed)
    of_covid = {"sensitivity": "recall", "specificity": "specificity", "precision": "precision"}
    of_covid |= {"f1": "f1", "auc": "auc"}
    covid = figures["per_class"][COVID]
    return {
        "classes": names,
        "n": figures["n"],
        "n_patients": len(set(groups)),
        "accuracy": figures["accuracy"],
        **{key: covid[name] for key, name in of_covid.items()},
        "confusion_matrix": figures["confusion_matrix"],
        "intervals": {"accuracy": intervals["accuracy"]}
        | {key: intervals[f"{name}.{COVID}"] for key, name in of_covid.items()},
    }


def score_run(
    run_dir: Path, info: Mapping[str, Any], costs: dict[str, dict], draws: int = DRAWS
) -> dict[str, Any]:
    """Write the ensemble's predictions and every model's metrics; returns run.json's new keys.

    Those are comparisons, temperature, calibration and conformal. All is computed from the
    predictions files alone, apart from `costs` (model -> metrics.json's cost).
    """
    run = Run.in_progress(run_dir, info)
    manifest = artifacts.load_manifest(run)
    patients = manifest.set_index("image_id")["patient_id"]
    sources = artifacts.sources_of(manifest)
    train = manifest.loc[manifest["split"] == "train", "label"]
    shares = train.value_counts(normalize=True)
    prior = {name: float(shares.get(name, 0.0)) for name in run.class_names}
    class_names, seed = run.class_names, int(info["seed"])
    new: dict[str, Any] = {"temperature": {}, "calibration": {}, "conformal": {}}
    probabilities: dict[str, np.ndarray] = {}
    y_true = groups = np.empty(0)
    for model in run.models:
        _write_ensemble(run, model)
        predictions = artifacts.load_predictions(run, model).sort_values("image_id")
        cost = _cost(run, model, costs)
        metrics = score_predictions(
            predictions,
            patients,
            class_names,
            seed=seed,
            cost=cost,
            draws=draws,
            sources=sources,
        )
        y_true, probabilities[model] = arrays_from_predictions(predictions, class_names)
        groups = patients.loc[predictions["image_id"]].to_numpy()
        calibration, conformal = _calibrate(run, model, patients, prior, seed, draws)
        new["temperature"][model] = calibration and calibration["temperature"]
        new["calibration"][model], new["conformal"][model] = calibration, conformal
        if calibration is not None:
            after = apply_calibration(probabilities[model], calibration, class_names)
            metrics["calibrated"] = {
                key: calibration[key] for key in ("part", "n", "temperature")
            } | calibrated_metrics(
                y_true, probabilities[model], after, groups, class_names, draws=draws, seed=seed
            )
        writing.write_metrics(run_dir, model, metrics)
        if artifacts.has_predictions(run, model, "folds"):
            table = artifacts.load_predictions(run, model, "folds")
            figures = score_folds(
                table, patients, class_names, seed=seed, draws=draws, sources=sources
            )
            writing.write_fold_metrics(run_dir, model, figures)
        if artifacts.has_predictions(run, model, "sources"):
            _score_left_out(run, model, manifest, draws)
    new["comparisons"] = compare_models(
        y_true, probabilities, groups, class_names, draws=draws, seed=seed
    )
    return new


def _score_left_out(run: Run, model: str, manifest: pd.DataFrame, draws: int) -> None:
    """Write metrics_sources.json: each source judged by models that never saw it."""
    grouped = run.info.get("split_policy") == "group"
    left_out: Mapping[str, Any] = run.info.get("source_folds") or {}
    folds = None
    if grouped and artifacts.has_predictions(run, model, "folds"):
        folds = artifacts.load_predictions(run, model, "folds")
    figures = score_left_out(
        artifacts.load_predictions(run, model, "sources"),
        manifest,
        run.class_names,
        left_out.get("cannot_tell", {}),
        folds,
        seed=int(run.info["seed"]),
        title=run.title(model),
        draws=draws,
    )
    writing.write_source_metrics(run.path, model, figures)


def _calibrate(
    run: Run,
    model: str,
    patients: pd.Series,
    prior: dict[str, float],
    seed: int,
    draws: int,
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """run.json's calibration and conformal of one model, fitted on images that are not test.

    None where the run has no such predictions.
    """
    part = artifacts.calibration_split(run, model)
    if part is None:
        return None, None
    table = artifacts.load_predictions(run, model, part)
    y_true, y_prob = arrays_from_predictions(table, run.class_names)
    groups = patients.loc[table["image_id"]].to_numpy()
    recipes: Mapping[str, Any] = run.info.get("recipes") or {}
    recipe = recipes.get(model, {})
    effect = 0.0  # of class weights that were not there; an average's may have had some
    if recipe.get("class_weights", True):
        effect = measure_weights_effect(y_true, y_prob, prior, run.class_names)
    taken_out = effective_prior(prior, effect)
    fitted = fit_calibration(
        y_true, y_prob, groups, taken_out, run.class_names, draws=draws, seed=seed
    )
    calibrated = apply_calibration(y_prob, fitted, run.class_names)
    conformal = fit_conformal(y_true, calibrated, groups, seed=seed)
    return fitted | {"effect": effect, "part": part}, conformal | {"part": part}


def _write_ensemble(run: Run, model: str) -> None:
    """Every part that all members have; an ensemble has no file of its own to serve."""
    members = run.members(model)
    for part in artifacts.PREDICTION_FILES:
        if members and all(artifacts.has_predictions(run, name, part) for name in members):
            tables = [artifacts.load_predictions(run, name, part) for name in members]
            table = mean_table(tables, run.class_names)
            writing.write_predictions(run.path, model, part, table)


def _cost(run: Run, model: str, costs: dict[str, dict]) -> dict[str, Any] | None:
    """An ensemble costs what its members cost together."""
    members = run.members(model)
    if not members:
        return costs.get(model)
    keys = costs[members[0]]
    return {key: sum(costs[name][key] for name in members) for key in keys}
