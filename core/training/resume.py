"""Going on with an interrupted run: only with the same settings, images and recipes.

A run's work folder holds what was decided when it began. A checkpoint of other images, another
recipe or other first weights would give a model that run.json describes wrongly.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pandas as pd

from core.config import Config, ConfigError, config_to_json
from core.files import jsonable, sha256_file, write_json, write_text
from core.models.pretrained import InitPlan, plan_init
from core.models.recipes import Recipe, recipe_from_json
from core.runs import artifacts
from core.runs.run import Run

SETTINGS, PLAN, DONE = "config.json", "plan.json", "done.json"
# What may differ when folds are added to a finished run.
FOLD_SETTINGS = ("folds", "fold_models", "folds_by", "allow_leakage")


def check_run_folder(run_dir: Path, config: Config, *, resume: bool, replace: bool) -> None:
    """Refuse to touch a run that exists unless told to; changes nothing.

    Raises:
        ConfigError: the run is there already, or was begun with other settings.
    """
    settings = run_dir / artifacts.WORK_FOLDER / SETTINGS
    if (run_dir / artifacts.RUN_FILE).exists():
        if resume:
            _check_more_folds(run_dir, config)
        elif not replace:
            raise ConfigError(
                f"Run {config.run} exists already. Choose another --run, --replace to train it "
                "anew, or --resume to add --folds to it."
            )
    elif settings.exists() and not replace:
        if not resume:
            raise ConfigError(
                f"Run {config.run} was begun and not finished. --resume goes on from its last "
                "finished epoch, --replace begins anew."
            )
        if json.loads(settings.read_text()) != jsonable(config.to_json()):
            raise ConfigError(
                f"Run {config.run} was begun with other settings than these; give the same ones "
                f"({settings.as_posix()} lists them) or --replace."
            )


def open_work_folder(run_dir: Path, config: Config, *, replace: bool) -> Path:
    """The folder of checkpoints, after check_run_folder had nothing against it.

    A run that is replaced is set aside (replaced_folder) until the new one is complete.
    """
    if replace and (run_dir / artifacts.RUN_FILE).exists():
        aside = replaced_folder(run_dir)
        shutil.rmtree(aside, ignore_errors=True)
        run_dir.rename(aside)
    elif replace and run_dir.exists():
        shutil.rmtree(run_dir)
    work = run_dir / artifacts.WORK_FOLDER
    write_json(work / SETTINGS, config.to_json())
    return work


def _check_more_folds(run_dir: Path, config: Config) -> None:
    """A run whose hold-out split is complete goes on only with folds that it does not have."""
    if not config.folds and not config.folds_by:
        raise ConfigError(f"Run {config.run} is complete; there is nothing to resume.")
    info = _run_info(run_dir)
    before = info.get("folds") or {}
    wanted = set(config.models if config.fold_models is None else config.fold_models)
    missing = bool(config.folds) and not wanted <= _done(before)
    missing |= bool(config.folds_by) and not wanted <= _done(info.get("source_folds") or {})
    if not missing:
        raise ConfigError(f"Run {config.run} is complete; there is nothing to resume.")
    if before and before["k"] != config.folds:
        raise ConfigError(
            f"Run {config.run} has {before['k']} folds; --folds must be the same to add models "
            f"to them. Received: {config.folds}."
        )
    settings = jsonable(config_to_json(config))
    changed = [
        key
        for key in sorted(settings)
        if key not in FOLD_SETTINGS and settings[key] != info["config"].get(key, settings[key])
    ]
    if changed:
        raise ConfigError(
            f"Run {config.run} was made with another {changed[0].replace('_', ' ')} "
            f"({info['config'].get(changed[0])}); give the same settings to add folds to it."
        )


def _done(folds: Mapping[str, Any]) -> set[str]:
    """The models of run.json's `folds` or `source_folds` that were cross-validated."""
    models = folds.get("models", {})
    return {name for name, state in models.items() if state["status"] == "done"}


def finished_part(run_dir: Path) -> dict | None:
    """run.json of a run whose hold-out split is complete, without what hashing adds; else None."""
    return _run_info(run_dir) if (run_dir / artifacts.RUN_FILE).exists() else None


def _run_info(run_dir: Path) -> dict[str, Any]:
    info = dict(artifacts.open_run(run_dir).info)
    return {key: value for key, value in info.items() if key not in ("files", "format_version")}


def check_finished(
    info: Mapping[str, Any], manifest: pd.DataFrame, run_dir: Path, recipes: dict
) -> None:
    """Hold the images, their split and the recipes against those that the run was made with."""
    before = artifacts.load_manifest(Run.in_progress(run_dir, info)).set_index("image_id")
    columns = ["sha256", "split", "group_id"]
    now = manifest.set_index("image_id")[columns].astype(str)
    same_images = set(before.index) == set(now.index)
    if not same_images or not before.loc[now.index, columns].equals(now):
        raise ConfigError(
            f"The images or their split have changed since run {info['name']} was made; bring "
            "them back, or use --replace to begin anew."
        )
    for name, recipe in recipes.items():
        # How many recipes were tried and how long they take says nothing of how one is made.
        made_with = replace(recipe_from_json(info["recipes"][name]), tried=0, step_ms=0)
        if replace(recipe, tried=0, step_ms=0) != made_with:
            raise ConfigError(
                f"The recipe of {name} has changed since run {info['name']} was made, so its "
                "folds would be of another model; use --replace to begin anew."
            )


def replaced_folder(run_dir: Path) -> Path:
    """Where the former run waits while --replace trains it anew."""
    return run_dir.with_name(f".{run_dir.name}.replaced")


def begun_init(work: Path, model: str) -> str | None:
    """The init with which the model's training began ("imagenet", ...), None where it did not."""
    file = work / model / PLAN
    return json.loads(file.read_text())["init"] if file.exists() else None


def plan_again(model: str, kind: str, init: str) -> InitPlan:
    """The plan of a model that was begun as `kind`; what --init auto finds today is not asked."""
    return plan_init(model, init if kind.startswith("file:") else kind)


def check_images(work: Path, manifest: pd.DataFrame, run: str) -> None:
    """Record the images and their split, or hold them against those that the run began with."""
    file = work / artifacts.MANIFEST_FILE
    text = manifest.to_csv(index=False)
    if not file.exists():
        write_text(file, text)
    elif file.read_text(encoding="utf-8") != text:
        raise ConfigError(
            f"The images or their split have changed since run {run} was begun; bring them back, "
            "or use --replace to begin anew."
        )


def check_plan(work: Path, model: str, plan: InitPlan, recipe: Recipe, run: str) -> None:
    """Record what the model is made from, or hold it against what its training began with."""
    file = work / model / PLAN
    made_from = {
        "init": plan.kind,
        "sha256": sha256_file(plan.file) if plan.file else None,
        "recipe": asdict(recipe),
    }
    made_from = jsonable(made_from)
    if not file.exists():
        write_json(file, made_from)
    elif (begun := json.loads(file.read_text())) != made_from:
        what = next(key for key in made_from if begun.get(key) != made_from[key])
        words = {"sha256": "file of first weights", "recipe": "recipe"}.get(what, what)
        raise ConfigError(
            f"The {words} of {model} has changed since run {run} was begun; use --replace to "
            f"begin anew, or delete {file.parent.as_posix()} to train this model again."
        )
