"""Fitting a guard: from a run's training images, with bounds set on images out of fold.

What is fitted (means, directions, variances) never sees the images that set the bounds: train and
val are cut into folds by group, and each fold is measured by what the others fit. The network whose
features are looked at has learned from train, though, and not from val. Where images of val lie
farther away than those of train, the bound on features is widened by the ratio of their medians.
Test is looked at only to be measured.

The distance to the nearest neighbours (Sun et al. 2022, "Out-of-distribution detection with deep
nearest neighbors") was tried too: beside the two other measures it refused no more of the images
looked at, and it needs every training image's features whole.
"""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from core.datasets.folder import find_image
from core.formatting import percent
from core.inference.served_model import ServedModel, load_model
from core.runs import artifacts, writing
from core.runs.missing_weights import left_out, left_out_sentence, need_weights
from core.runs.run import Run
from core.serving.guard.detector import (
    CELLS,
    Guard,
    Space,
    even_out,
    measure_layouts,
    rotated_ratio,
)
from core.serving.guard.features import GuardError, GuardInput, read_negatives, see_images
from core.serving.guard.messages import SUBJECTS
from core.serving.guard.negatives import LOOKED_AT, Setting

logger = logging.getLogger(__name__)

LEVEL = 0.99
FOLDS = 5
SHRINKAGE = 0.01  # towards the mean variance, so that no direction counts without bound
DIRECTIONS = (32, 64, 128, 192)
FEWEST_IMAGES = 20
DEVELOPMENT_SEED, REPORT_SEED = 1, 0


@dataclass(frozen=True)
class Fitted:
    """A guard with how its bounds came about, and what it refused of the images looked at."""

    guard: Guard
    threshold: dict[str, Any]
    refusal: dict[str, float]

    @property
    def directions(self) -> int:
        return len(self.guard.features.variances)

    @property
    def score(self) -> float:
        return float(np.mean(list(self.refusal.values()))) if self.refusal else 0.0


def fit_guard(
    run: Run, root: Path, data_root: Path
) -> tuple[dict[str, Any], dict[str, np.ndarray], ServedModel]:
    """The best guard: guard.json so far (without measurements), guard.npz's arrays, its model.

    Candidates are compared by the mean share that they refuse of the LOOKED_AT kinds; the first
    of the best is kept, so fewer directions win a tie. Raises GuardError, ArtifactError and
    InferenceError.
    """
    need_weights(run)
    if left_out(run):
        logger.warning(left_out_sentence(run))
    manifest = artifacts.load_manifest(run)
    learned = manifest[manifest["split"] != "test"]
    here = [find_image(root, image_id) is not None for image_id in learned["image_id"]]
    if not any(here):
        raise GuardError(
            f"{root} holds none of the images that run {run.name} was trained on; a guard is "
            "fitted on them, so give their folder with --data."
        )
    learned = learned[here]
    n_train = int((learned["split"] == "train").sum())
    if n_train < FEWEST_IMAGES:
        raise GuardError(
            f"Only {n_train} training images of run {run.name} are in {root}; a guard needs at "
            f"least {FEWEST_IMAGES}."
        )
    best: tuple[Fitted, ServedModel, pd.DataFrame] | None = None
    choice = []
    for name in models_to_try(run):
        model = load_model(run, name)
        rows, seen = see_images(model, learned, root, f"Training images, {run.title(name)}")
        val = rows[rows["split"] == "val"]
        negatives = read_negatives(
            model, Setting(run, val, root, data_root, DEVELOPMENT_SEED), LOOKED_AT
        )
        n_train = int((rows["split"] == "train").sum())
        for directions in directions_to_try(seen.features.shape[1], n_train):
            fitted = fit_candidate(run, model, directions, rows, seen, negatives)
            alone = features_alone(fitted.guard, negatives)
            row = {"model": name, "directions": directions, "refusal": fitted.refusal}
            choice.append(row | {"mean": fitted.score, "features_alone": alone, "kept": "no"})
            logger.info(
                f"{run.title(name)}, {directions} directions: refuses {percent(fitted.score)} of "
                f"the kinds looked at (its features alone {percent(alone)})."
            )
            if best is None or fitted.score > best[0].score:
                best = fitted, model, rows
    if best is None:
        raise GuardError(f"Run {run.name} has no model whose features a guard could read.")
    fitted, model, rows = best
    for row in choice:
        if (row["model"], row["directions"]) == (model.name, fitted.directions):
            row["kept"] = "yes"
    document = describe_fit(run, fitted, rows, choice)
    return document, pack_arrays(fitted.guard), model


def models_to_try(run: Run) -> list[str]:
    """The served model that began with ImageNet weights; without one, every model of the run.

    Features learned on photos tell photos from X-rays best; without them that is to be seen.
    """
    served = [model for model in run.headline_models if model in run.served] or run.served
    init = run.info.get("init", {})
    return [model for model in served if init.get(model) == "imagenet"][:1] or served


def directions_to_try(n_features: int, n_train: int) -> list[int]:
    """DIRECTIONS, as far as so many features and images can give them."""
    most = min(n_features, n_train // 4)
    return list(dict.fromkeys(min(number, most) for number in DIRECTIONS))


# ------------------------------------------------------------------------------ fitting


def fit_space(vectors: np.ndarray, directions: int) -> Space:
    """Mean, first principal directions and their variances, shrunk, of vectors (n, D)."""
    mean = vectors.mean(axis=0)
    _, spread, basis = np.linalg.svd(vectors - mean, full_matrices=False)
    variances = spread[:directions] ** 2 / len(vectors)
    # At least a hair of variance, so that features that never change do not divide by zero.
    shrunk = (1 - SHRINKAGE) * variances + SHRINKAGE * max(float(variances.mean()), 1e-12)
    return Space(mean, basis[:directions].T, shrunk)


def fit_layouts(layouts: np.ndarray) -> Space:
    """The space of evened-out layouts (n, CELLS, CELLS) and their mirror images: an image hung the
    wrong way round is still one. Their mean is taken out, so one direction is none."""
    both = np.concatenate([layouts, layouts[:, :, ::-1]])
    return fit_space(even_out(both), CELLS**2 - 1)


def fit_parts(
    run: Run, model: ServedModel, directions: int, train: pd.DataFrame, seen: GuardInput
) -> Guard:
    """A guard without bounds (both 1) fitted on these images."""
    space = fit_space(seen.features, directions)
    return Guard(
        model=model.name,
        subject=SUBJECTS.get(run.modality, SUBJECTS["xray"]),
        modality=run.modality,
        input_size_px=model.input_size_px,
        level=LEVEL,
        bounds={"features": 1.0, "layout": 1.0},
        features=space,
        layout=fit_layouts(seen.layouts),
        projected=space.project(seen.features),
        image_ids=train["image_id"].to_numpy(dtype=str),
        labels=train["label"].to_numpy(dtype=str),
        patient_ids=train["patient_id"].to_numpy(dtype=str),
    )


def measure(guard: Guard, seen: GuardInput) -> np.ndarray:
    """features, layout and turned of images, not divided by any bound but 1: (n, 3)."""
    own, others = measure_layouts(guard.layout, seen.layouts)
    columns = [guard.features.mahalanobis(seen.features), own, rotated_ratio(own, others)]
    return np.stack(columns, axis=1)


def fit_candidate(
    run: Run,
    model: ServedModel,
    directions: int,
    rows: pd.DataFrame,
    seen: GuardInput,
    negatives: dict[str, GuardInput],
) -> Fitted:
    """Fit on train, set the bounds out of fold on train and val, try on the images looked at."""
    is_train = (rows["split"] == "train").to_numpy()
    measured = np.empty((len(rows), 3))
    for fit, held in group_folds(rows, int(run.info["seed"])):
        part = fit_parts(run, model, directions, rows.iloc[fit], seen.take(fit))
        measured[held] = measure(part, seen.take(held))
    bounds, threshold = set_bounds(measured, is_train)
    guard = fit_parts(run, model, directions, rows[is_train], seen.take(np.flatnonzero(is_train)))
    guard = replace(guard, bounds=bounds)
    refusal = {
        name: float((~passes(measure(guard, others), bounds)).mean())
        for name, others in negatives.items()
    }
    return Fitted(guard, threshold, refusal)


def group_folds(rows: pd.DataFrame, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """(rows to fit on, rows held out) of FOLDS folds that part no group."""
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    labels = rows["label"].to_numpy(dtype=str)
    return list(folds.split(labels, labels, rows["group_id"].to_numpy(dtype=str)))


def set_bounds(
    measured: np.ndarray, is_train: np.ndarray, level: float = LEVEL
) -> tuple[dict[str, float], dict[str, Any]]:
    """The bounds that keep `level` of images held out, and how they came about.

    measured (n, 3): out-of-fold features, layout and turned. `turned` has the bound 1 by its
    meaning. The two others stand at the same rank among the images, the lowest at which
    ceil((n + 1) * level) of them keep all three (the rank that conformal prediction takes). Then
    the bound on features is widened by the ratio of medians of val to train, where above 1.
    """
    n = len(measured)
    needed = min(n, math.ceil((n + 1) * level))
    ranked = np.sort(measured[:, :2], axis=0)
    # Most of the images are kept only at the last ranks, so the search begins there.
    rank = n - 1
    while rank > 0 and _count_passing(measured, ranked[rank - 1]) >= needed:
        rank -= 1
    bounds = {"features": float(ranked[rank, 0]), "layout": float(ranked[rank, 1])}
    widened, medians = 1.0, {}
    if is_train.any() and not is_train.all():
        medians = {
            "train": float(np.median(measured[is_train, 0])),
            "val": float(np.median(measured[~is_train, 0])),
        }
        widened = max(1.0, medians["val"] / max(medians["train"], 1e-12))
    passing = passes(measured, bounds)
    bounds = {**bounds, "features": bounds["features"] * widened}
    passing_wide = passes(measured, bounds)
    return bounds, {
        "n": n,
        "folds": FOLDS,
        "rank": rank + 1,
        "kept_out_of_fold": float(passing.mean()),
        "medians": medians,
        "widened": widened,
        "kept_in_the_end": float(passing_wide.mean()),
        "kept_of_val": float(passing_wide[~is_train].mean()) if not is_train.all() else None,
        "turned_n": int((measured[:, 2] > 1).sum()),
    }


def _count_passing(measured: np.ndarray, bounds: np.ndarray) -> int:
    return int(((measured[:, :2] <= bounds).all(axis=1) & (measured[:, 2] <= 1)).sum())


def passes(measured: np.ndarray, bounds: dict[str, float]) -> np.ndarray:
    """Which rows of measured (n, 3) keep all three bounds: (n,) bool."""
    return np.all(measured <= [bounds["features"], bounds["layout"], 1.0], axis=1)


def features_alone(guard: Guard, negatives: dict[str, GuardInput]) -> float:
    """Mean share of the images looked at that the features alone refuse, at the same bound."""
    shares = [(guard.distance(seen.features) > 1).mean() for seen in negatives.values()]
    return float(np.mean(shares)) if shares else 0.0


# ------------------------------------------------------------------------------ files


def pack_arrays(guard: Guard) -> dict[str, np.ndarray]:
    """The arrays of guard.npz, numbers as float32."""
    arrays = {
        f"{name}_{part}": getattr(getattr(guard, name), part).astype(np.float32)
        for name in ("features", "layout")
        for part in ("mean", "directions", "variances")
    }
    return arrays | {
        "train_projected": guard.projected.astype(np.float32),
        "train_image_id": guard.image_ids,
        "train_label": guard.labels,
        "train_patient_id": guard.patient_ids,
    }


def describe_fit(
    run: Run, fitted: Fitted, rows: pd.DataFrame, choice: list[dict[str, Any]]
) -> dict[str, Any]:
    """guard.json without what is measured afterwards."""
    guard, threshold = fitted.guard, fitted.threshold
    widened = (
        f"; the bound on features is then widened by {threshold['widened']:.3f}, the ratio of the "
        "medians of val (which the network has not learned from) and train"
        if threshold["widened"] > 1
        else ""
    )
    return {
        "created": writing.utc_now(),
        "model": guard.model,
        "model_files": {
            name: run.info["files"][name]
            for name in (f"{guard.model}/{file}" for file in artifacts.MODEL_FILES)
            if name in run.info["files"]
        },
        "subject": guard.subject,
        "modality": run.modality,
        "input_size_px": guard.input_size_px,
        "precision": run.info.get("precision", "f32"),
        "tta": run.info.get("tta", "none"),
        "level": guard.level,
        "method": "mahalanobis",
        "directions": fitted.directions,
        "bounds": dict(guard.bounds),
        "rule": (
            "A picture passes when three numbers keep their bounds: the Mahalanobis distance of "
            f"the model's features in the space of the first {fitted.directions} principal "
            f"components of {len(guard.image_ids)} training images; the same of its light and dark "
            f"areas in "
            f"{CELLS} by {CELLS} cells; and how much better those fit as a negative or turned. "
            f"Bounds keep {percent(guard.level, 0)} of {threshold['n']} images of train and "
            f"val, each measured by a guard fitted without its fold ({FOLDS} folds cut by group)"
            f"{widened}. Nearly blank pictures, noise, colour pictures and what a DICOM header "
            "says is something else are refused whatever the numbers. No test image was looked at."
        ),
        "train": {
            "n": len(guard.image_ids),
            "n_patients": len(set(guard.patient_ids)),
            "n_val": int((rows["split"] == "val").sum()),
        },
        "threshold": threshold,
        "choice": choice,
        "looked_at": list(fitted.refusal),
    }
