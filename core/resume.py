"""Going on with an interrupted run: only with the same settings, images and recipes.

A run's work folder holds what was decided when it began. A checkpoint of other images, another
recipe or other first weights would give a model that run.json describes wrongly.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pandas as pd

from core import artifacts
from core.config import Config, ConfigError
from core.files import jsonable, sha256_file, write_json, write_text
from core.recipes import Recipe
from core.weights import InitPlan, plan_init

SETTINGS, PLAN, DONE = "config.json", "plan.json", "done.json"


def open_work_folder(run_dir: Path, config: Config, *, resume: bool, replace: bool) -> Path:
    """The folder of checkpoints; refuses to touch a run that exists unless told to.

    A run that is replaced is set aside (replaced_folder) until the new one is complete.

    Raises:
        ConfigError: the run is there already, or was begun with other settings.
    """
    work = run_dir / artifacts.WORK_FOLDER
    settings = work / SETTINGS
    if (run_dir / artifacts.RUN_FILE).exists():
        if resume:
            raise ConfigError(f"Run {config.run} is complete; there is nothing to resume.")
        if not replace:
            raise ConfigError(
                f"Run {config.run} exists already. Choose another --run, or --replace to train it "
                "anew."
            )
        aside = replaced_folder(run_dir)
        shutil.rmtree(aside, ignore_errors=True)
        run_dir.rename(aside)
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
        return work
    elif replace and run_dir.exists():
        shutil.rmtree(run_dir)
    write_json(settings, config.to_json())
    return work


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
