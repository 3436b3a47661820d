"""Cross-validation: every image predicted by a model that saw nothing of its patient.

Outer folds are the published protocol: fold 0 is the hold-out split, whose predictions are the
run's own, and each other fold is predicted by a model trained on all the rest. Inner folds leave
the hold-out split out altogether; they give the predictions that calibration is fitted on.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.config import Config
from core.datasets.splits import fold_splits
from core.files import write_csv, write_json
from core.models.names import is_control, model_title
from core.models.pretrained import InitPlan
from core.models.recipes import Recipe, find_recipe
from core.runs import artifacts, writing
from core.training.run_metadata import expected_minutes
from core.training.trainer import Materials, ModelSpec, train_once

logger = logging.getLogger(__name__)

DONE, NOT_DONE, PLANNED = "done", "not done", "planned"


def plan_folds(
    config: Config, plans: dict[str, InitPlan], recipes: dict[str, Recipe], n_images: int
) -> dict[str, dict[str, dict]]:
    """{"outer": {model: {status, reason}}, "inner": ...}: what is trained, and why the rest is not.

    status is "planned" or "not done". n_images: images of the data set, for the expected minutes.
    """
    outer, inner = {}, {}
    for name, recipe in recipes.items():
        minutes = _minutes(config, plans[name], name, recipe, n_images)
        cost = f"{config.folds - 1} more trainings, about {minutes * (config.folds - 1):.0f} min"
        if is_control(name):
            outer[name] = inner[name] = _not_done("a control, compared on the hold-out part only")
            continue
        if config.fold_models is not None and name not in config.fold_models:
            outer[name] = inner[name] = _not_done(f"left out by --fold-models ({cost} on 2 cores)")
            continue
        outer[name] = {"status": PLANNED}
        whole = any(stage.cut is None for stage in recipe.stages)
        inner[name] = {"status": PLANNED}
        if config.split == "random":
            inner[name] = _not_done(
                "a random split shows what leaks and is not meant to be used; the validation part "
                "calibrates"
            )
        elif whole:
            inner[name] = _not_done(
                f"every layer is trained, so inner folds would cost {cost} on 2 cores; the "
                "validation part calibrates"
            )
    return {"outer": outer, "inner": inner}


def announce_folds(
    config: Config,
    plans: dict[str, InitPlan],
    recipes: dict[str, Recipe],
    n_images: int,
    former: dict[str, Any],
) -> None:
    """What is cross-validated, what is not and why, and the minutes to expect."""
    trainings, total = 0, 0.0
    planned = keep_done(plan_folds(config, plans, recipes, n_images), former)
    for kind, models in planned.items():
        for name, state in models.items():
            if state["status"] == NOT_DONE:
                logger.info(f"{model_title(name)}, {kind} folds: not done, {state['reason']}.")
            elif state["status"] == DONE:
                logger.info(f"{model_title(name)}, {kind} folds: done before, kept.")
            else:
                trainings += config.folds - 1
                total += (config.folds - 1) * _minutes(
                    config, plans[name], name, recipes[name], n_images
                )
    logger.info(f"Cross-validation: {trainings} trainings, about {total:.0f} minutes on 2 cores.")


def _minutes(config: Config, plan: InitPlan, name: str, recipe: Recipe, n_images: int) -> float:
    """Expected minutes of one fold's training on 2 cores."""
    n_train = round(0.9 * n_images * (config.folds - 1) / config.folds)
    return expected_minutes(recipe, find_recipe(name, plan.kind), n_train)


def _not_done(reason: str) -> dict[str, str]:
    return {"status": NOT_DONE, "reason": reason}


def validation_rule(config: Config) -> str:
    """How each fold's validation split is cut and what it is for, in words."""
    unit = "group (patient)" if config.split == "group" else "image"
    return (
        f"Each fold's model is trained on the other folds, of which about a tenth of the images, "
        f"cut by {unit} and class with seed {config.seed}, are left out as its validation part; "
        "it picks the epoch where the model's recipe keeps the best one, and is only watched "
        "where the recipe keeps the last. Fold 0 is the hold-out part with the run's own model."
    )


def cross_validate(
    run_dir: Path,
    config: Config,
    materials: Materials,
    plans: dict[str, InitPlan],
    recipes: dict[str, Recipe],
    former: dict[str, Any],
) -> dict[str, Any]:
    """Train what is planned and write the out-of-fold predictions; returns run.json's new keys.

    Every finished fold stays in the work folder, so that an interrupted call goes on behind it.
    former: run.json as it was; models whose folds are in it already keep them.
    """
    planned = plan_folds(config, plans, recipes, len(materials.manifest))
    planned = keep_done(planned, former)
    for name, recipe in recipes.items():
        for kind, predictions in (("outer", "folds"), ("inner", "inner")):
            state = planned[kind][name]
            if state["status"] != PLANNED:
                continue
            spec = ModelSpec(name, plans[name], recipe)
            tables, seconds = [], 0.0
            for fold in range(1, config.folds):
                table, took = _one_fold(kind, fold, spec, materials)
                tables.append(table)
                seconds += took
            if kind == "outer":
                tables.insert(0, _hold_out(run_dir, name, materials))
            table = pd.concat(tables, ignore_index=True)
            writing.write_predictions(run_dir, name, predictions, table)
            state |= {"status": DONE, "reason": "", "n": len(table), "train_s": seconds}
    return {
        "folds": {
            "k": config.folds,
            "split_policy": config.split,
            "rule": validation_rule(config),
            "models": planned["outer"],
        },
        "inner": planned["inner"],
    }


def keep_done(planned: dict[str, dict], former: dict[str, Any]) -> dict[str, dict]:
    """What is planned, with the models that were cross-validated before as they are in `former`."""
    before = {"outer": (former.get("folds") or {}).get("models", {}), "inner": former.get("inner")}
    return {
        kind: {
            name: before[kind][name]
            if (before[kind] or {}).get(name, {}).get("status") == DONE
            else state
            for name, state in models.items()
        }
        for kind, models in planned.items()
    }


def _hold_out(run_dir: Path, name: str, materials: Materials) -> pd.DataFrame:
    """The run's own predictions of the test split, which is fold 0."""
    file = run_dir / name / artifacts.PREDICTION_FILES["test"]
    text = {"image_id": str, "label": str, "predicted": str}
    table = pd.read_csv(file, dtype=text, keep_default_na=False)
    return table.assign(fold=0)


def _one_fold(
    kind: str, fold: int, spec: ModelSpec, materials: Materials
) -> tuple[pd.DataFrame, float]:
    """(predictions of the fold, seconds of training)."""
    split = fold_splits(materials.manifest, fold, kind == "inner", materials.split, materials.seed)
    return train_part(spec, materials, split, f"{kind}{fold}", f"{kind} fold {fold}")


def train_part(
    spec: ModelSpec, materials: Materials, split: np.ndarray, name: str, what: str
) -> tuple[pd.DataFrame, float]:
    """(predictions of "test", seconds of training), taken over where it was finished before.

    split (n,): "train", "val", "test" or ""; name: of its folder in the work folder.
    """
    folder = materials.work / spec.name / name
    result, record = folder / "predictions.csv", folder / "done.json"
    if not record.exists():
        logger.info(f"{model_title(spec.name)}: {what} ...")
        made = train_once(spec, materials, split, folder, what)
        table = made.predict(np.flatnonzero(split == "test"))
        write_csv(result, table)
        seconds = float(made.history["seconds"].sum())
        made.discard()
        write_json(record, {"train_s": seconds, "epochs": len(made.history)})
    table = pd.read_csv(
        result, dtype={"image_id": str, "label": str, "predicted": str}, keep_default_na=False
    )
    return table, json.loads(record.read_text())["train_s"]
