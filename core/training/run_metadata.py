"""What a run says of itself: run.json, the command that makes it, and what is said before it."""

from __future__ import annotations

import logging
import os
import platform
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import keras
import pandas as pd

from core.config import Config, config_to_json, plain_datasets
from core.datasets.registry import KNOWN, Dataset
from core.datasets.schema import SOURCE_COLUMN
from core.datasets.splits import fingerprint
from core.models.names import ENSEMBLE, NOTEBOOK, from_scratch, init_title, model_title
from core.models.pretrained import InitPlan
from core.models.recipes import TRIALS, TRIALS_DATASET, Recipe, find_recipe
from core.runs import writing
from core.training.devices import list_gpus

logger = logging.getLogger(__name__)

PRECISION = "f32"
WEIGHTING = (
    "Classes weigh as each recipe says (recipes, class_weights); sources are not weighted: each "
    "image counts the same within its class, whichever set or publisher it is from."
)
RESIZE = "stretch to a square, bilinear with antialiasing"


def describe_split(manifest: pd.DataFrame, skipped: pd.DataFrame) -> str:
    """One sentence: images, groups, parts and unreadable files."""
    counts = manifest["split"].value_counts()
    parts = ", ".join(f"{counts.get(s, 0)} {s}" for s in ("train", "val", "test"))
    return (
        f"{len(manifest)} images of {manifest['group_id'].nunique()} groups: {parts}; "
        f"{len(skipped)} unreadable."
    )


def announce_models(
    plans: dict[str, InitPlan], recipes: dict[str, Recipe], manifest: pd.DataFrame
) -> None:
    """What each model starts from and the time it is expected to take, before anything starts."""
    n_train, total = int((manifest["split"] == "train").sum()), 0.0
    for name, plan in plans.items():
        minutes = expected_minutes(recipes[name], find_recipe(name, plan.kind), n_train)
        total += minutes
        words = {"random": "random weights", "imagenet": "ImageNet weights"}.get(
            plan.kind, init_title(plan.kind)
        )
        if from_scratch(name) and plan.kind == "random":
            words = "random weights (made to be trained from scratch)"
        epochs = "+".join(str(stage.epochs) for stage in recipes[name].stages)
        logger.info(
            f"{model_title(name)}: {words}, {recipes[name].image_size_px} px, "
            f"up to {epochs} epochs, about {minutes:.0f} min on 2 cores."
        )
        if plan.reason:
            logger.info(f"  Not from whole ImageNet weights: {plan.reason}")
    logger.info(f"Expected in all: about {total:.0f} minutes on 2 cores without a GPU.")


def expected_minutes(recipe: Recipe, original: Recipe, n_train: int) -> float:
    """Minutes on 2 cores, scaled from the recipe's measured time by size, epochs and images."""
    scale = (recipe.image_size_px / original.image_size_px) ** 2
    epochs = sum(stage.epochs for stage in recipe.stages)
    return max(0.2, recipe.step_ms * scale * epochs * n_train / 60_000)


def describe_run(
    config: Config,
    dataset: Dataset,
    table: pd.DataFrame,
    manifest: pd.DataFrame,
    class_names: list[str],
    recipes: dict[str, Recipe],
    inits: dict[str, str],
) -> dict[str, Any]:
    """run.json without what is measured (floors, comparisons ...) and hashes; contract keys first.

    No absolute path is in it: a data set or a weights file given by path is called by its name.
    """
    sizes = {name: recipe.image_size_px for name, recipe in recipes.items()}
    members = [name for name in recipes if name in config.models and name not in NOTEBOOK]
    ensemble = {ENSEMBLE: members} if len(members) > 1 else {}
    return {
        "name": config.run,
        "created": writing.utc_now(),
        "modality": dataset.modality,
        "dataset": {
            "name": dataset.name,
            "title": dataset.title,
            "fingerprint": fingerprint(manifest),
            "n": len(manifest),
            "caveats": [*dataset.caveats, *manifest.attrs.get("caveats", [])],
            "licence": dataset.licence,
            "attribution": dataset.attribution,
            "homepage": dataset.homepage,
            **describe_parts(dataset, manifest),
        },
        "class_names": class_names,
        "models": [*recipes, *ensemble],
        "kind": dict.fromkeys(recipes, "single") | dict.fromkeys(ensemble, "ensemble"),
        "members": ensemble,
        "display": {name: model_title(name) for name in (*recipes, *ensemble)},
        "seed": config.seed,
        "split_policy": config.split,
        "grouping": manifest.attrs.get("grouping", ""),
        "task": table.attrs.get("task"),
        "recipes_tried": {name: recipe.tried for name, recipe in recipes.items()},
        "input_size_px": max(sizes.values()),
        "model_input_size_px": sizes,
        "resize": RESIZE,
        "precision": PRECISION,
        "init": inits,
        "config": config_to_json(config),
        "trials": [row for row in TRIALS if row["model"] in (*recipes, *ensemble)]
        if dataset.name == TRIALS_DATASET
        else [],
        "recipes": {name: asdict(recipe) for name, recipe in recipes.items()},
        "versions": versions(),
        "hardware": hardware(),
        "command": command_line(config, known_names(dataset)),
    }


def describe_parts(dataset: Dataset, manifest: pd.DataFrame) -> dict[str, Any]:
    """run.json's further keys of `dataset` where a run has several; {} where it has one."""
    if not dataset.parts:
        return {}
    parts = []
    for part in dataset.parts:
        known = part.dataset
        rows = manifest[manifest["path"].str.startswith(f"{part.folder}/")]
        parts.append(
            {
                "name": known.name,
                "folder": part.folder,
                "title": known.title,
                "n": len(rows),
                "fingerprint": fingerprint(rows),
                "classes": {c: int(n) for c, n in rows["label"].value_counts().items()},
                "caveats": list(known.caveats),
                "licence": known.licence,
                "attribution": known.attribution,
                "homepage": known.homepage,
            }
        )
    return {
        "parts": parts,
        "sources": sorted(manifest[SOURCE_COLUMN].unique()),
        "weighting": WEIGHTING,
    }


def known_names(dataset: Dataset) -> str:
    """The data set's name as a command takes it, "" where a set is not known by name."""
    sets = [part.dataset for part in dataset.parts] or [dataset]
    return ",".join(d.name for d in sets) if all(d.name in KNOWN for d in sets) else ""


def versions() -> dict[str, str]:
    """Versions of Python and of the libraries that a figure can depend on."""
    names = ("keras", "openvino", "numpy", "scikit-learn", "scipy", "pandas", "pillow")
    found = {name: version(name) for name in names}
    backend = keras.backend.backend()
    found[backend] = version(backend)
    return {"python": platform.python_version(), "backend": backend, **found}


def hardware() -> str:
    """The processor and the number of cores, as far as the system tells."""
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    gpus = list_gpus()
    return f"{model}, {os.cpu_count()} cores, {f'{len(gpus)} GPU' if gpus else 'no GPU used'}"


def command_line(config: Config, dataset: str = "") -> str:
    """The command that makes this run anew, where the data set lies in the data folder."""
    parts = [
        "python -m core train",
        f"--dataset {dataset or plain_datasets(config.dataset)}",
        f"--models {','.join(config.models)}",
        f"--run {config.run}",
    ]
    if config.classes:
        parts.append(f"--classes {','.join(config.classes)}")
    if config.fold_models is not None:
        parts.append(f"--fold-models {','.join(config.fold_models)}")
    parts += [f"--folds-by {config.folds_by}"] * bool(config.folds_by)
    parts += ["--allow-leakage"] * config.allow_leakage
    parts += ["--group-copies"] * config.group_copies
    defaults = {"split": "group", "folds": 0}
    defaults |= {"init": "auto", "mixed": "auto", "image_size_px": None, "epochs": None, "seed": 0}
    flags = {"image_size_px": "image-size"}
    for key, default in defaults.items():
        value = getattr(config, key)
        if value != default:
            value = Path(value).name if key == "init" else value
            parts.append(f"--{flags.get(key, key)} {value}")
    parts += ["--quick"] * config.quick + ["--keep-keras"] * config.keep_keras
    return " ".join(parts)
