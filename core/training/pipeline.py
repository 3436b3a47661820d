"""Train the models of a run, export them, and evaluate what was exported."""

from __future__ import annotations

import json
import logging
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.config import Config, ConfigError, config_to_json
from core.datasets.registry import Dataset, order_classes
from core.datasets.several import load_images
from core.evaluation.scoring import score_run
from core.evaluation.shortcut_baselines import compute_baselines
from core.files import write_json
from core.inference.served_model import measure_latencies_ms
from core.models.architectures import BUILDERS
from core.models.names import from_scratch, model_title
from core.models.recipes import Recipe
from core.reporting.model_card import write_cards
from core.runs import artifacts, writing
from core.runs.run import Run
from core.training.cross_validation import announce_folds, cross_validate
from core.training.devices import prepare_devices
from core.training.fit import RATE_FILE
from core.training.mixed_precision import choose_precision
from core.training.prepare import (
    all_skipped,
    check_leakage,
    choose_classes,
    common_tta,
    count_shared_once,
    decode,
    find_images,
    list_pairs,
    plan_models,
    split_images,
)
from core.training.resume import (
    DONE,
    check_finished,
    check_images,
    check_plan,
    check_run_folder,
    finished_part,
    open_work_folder,
    replaced_folder,
)
from core.training.run_metadata import (
    announce_models,
    command_line,
    describe_run,
    describe_split,
    known_names,
)
from core.training.source_folds import leave_sources_out, sources_to_leave_out
from core.training.trainer import Materials, ModelSpec, serve, train_once

logger = logging.getLogger(__name__)


def train_and_evaluate(
    config: Config, run_dir: Path, *, resume: bool = False, replace: bool = False
) -> Run:
    """Make one run: data, split, models, predictions, metrics, cards, hashes.

    Everything a person should know on the way is logged, one line each.

    Raises:
        ConfigError, DatasetError, ManifestError, ArtifactError: wrong use, one sentence each.
    """
    started = time.perf_counter()
    writing.check_run_name(config.run)
    unknown = [name for name in config.models if name not in BUILDERS]
    if unknown or not config.models:
        raise ConfigError(
            f"--models names {', '.join(unknown) or 'no model'}. Known: {', '.join(BUILDERS)}."
        )
    dataset, root = find_images(config)
    table = choose_classes(load_images(dataset, root), config.classes)
    check_run_folder(run_dir, config, resume=resume, replace=replace)
    finished = None if replace else finished_part(run_dir)
    begun = run_dir / artifacts.WORK_FOLDER if resume else None
    plans, recipes = plan_models(config, begun, finished)

    cache = decode(table, root, recipes)
    cache.table.attrs.update(table.attrs)
    cache = count_shared_once(cache, root, recipes)
    manifest, pairs = split_images(cache, config)
    leakage = check_leakage(manifest, pairs, config)
    if config.folds_by:
        sources_to_leave_out(manifest, config)  # refused before anything is written
    # Until here nothing was written, so a refusal leaves every run as it was.
    work = open_work_folder(run_dir, config, replace=replace)
    check_images(work, manifest, config.run)
    devices = set_devices(config, recipes, manifest, finished, work)
    materials = Materials(
        cache,
        manifest,
        order_classes(manifest["label"]),
        config.split,
        common_tta(recipes),
        config.seed,
        work,
    )
    logger.info(describe_split(manifest, cache.skipped))
    if finished is None:
        announce_models(plans, recipes, manifest)
        facts = {
            name: hold_out(ModelSpec(name, plan, recipes[name]), materials, config, run_dir)
            for name, plan in plans.items()
        }
        info = describe_run(
            config,
            dataset,
            table,
            manifest,
            materials.class_names,
            recipes,
            {name: made["init"] for name, made in facts.items()},
        )
        info |= {
            "devices": devices,
            "leakage": leakage,
            "near_duplicates": list_pairs(pairs),
        }
        info |= measure_run(run_dir, table, recipes, materials, facts)
        run = close_run(run_dir, info, dataset)
    else:
        logger.info(f"The hold-out part of {config.run} is complete; its models stay as they are.")
        check_finished(finished, manifest, run_dir, recipes)
        info = finished | {"config": config_to_json(config)}
        info |= {"command": command_line(config, known_names(dataset))}
    if config.folds:
        announce_folds(config, plans, recipes, len(manifest), finished or {})
        info |= cross_validate(run_dir, config, materials, plans, recipes, finished or {})
        writing.write_manifest(run_dir, manifest)
        run = close_run(run_dir, info, dataset)
    if config.folds_by:
        info |= leave_sources_out(run_dir, config, materials, plans, recipes, finished or {})
        run = close_run(run_dir, info, dataset)
    shutil.rmtree(work)
    shutil.rmtree(replaced_folder(run_dir), ignore_errors=True)
    logger.info(
        f"Run {run.name} is complete after {(time.perf_counter() - started) / 60:.1f} minutes."
    )
    return run


def set_devices(
    config: Config,
    recipes: dict[str, Recipe],
    manifest: pd.DataFrame,
    finished: dict[str, Any] | None,
    work: Path,
) -> dict[str, Any]:
    """Prepare the devices; returns run.json's `devices`. Folds take the precision of their run."""
    if config.mixed != "measure":
        return prepare_devices(config.mixed)
    if finished is not None:
        found = {"precision": finished["devices"]["precision"]}
    else:
        n_train, n_classes = (manifest["split"] == "train").sum(), manifest["label"].nunique()
        found = choose_precision(recipes, n_classes, int(n_train), work)
    devices = prepare_devices("off" if found["precision"] == "float32" else "on")
    return devices | ({"measured_s": found["seconds"]} if "seconds" in found else {})


def close_run(run_dir: Path, info: dict[str, Any], dataset: Dataset) -> Run:
    """Score what was predicted and write metrics, cards and run.json: the run can be read now."""
    logger.info("Intervals, calibration, paired tests ...")
    costs = info.pop("costs", None) or {
        name: json.loads((run_dir / name / artifacts.METRICS_FILE).read_text())["cost"]
        for name in info["models"]
    }
    info |= score_run(run_dir, info, costs)
    write_cards(run_dir, info, dataset)
    return writing.finish_run(run_dir, info)


def hold_out(
    spec: ModelSpec, materials: Materials, config: Config, run_dir: Path
) -> dict[str, Any]:
    """Train one model on the hold-out split, or take it over where that was done before.

    Writes its model, history and predictions; returns what run.json will say of it.
    """
    name, work = spec.name, materials.work / spec.name
    check_plan(materials.work, name, spec.init, spec.recipe, config.run)
    done = work / DONE
    if done.is_file():
        logger.info(f"{model_title(name)}: already trained, taken over.")
        return json.loads(done.read_text())
    started = time.perf_counter()
    split = materials.manifest["split"].to_numpy()
    made = train_once(spec, materials, split, run_dir / name, checkpoints=work)
    if config.keep_keras:
        made.model.save(run_dir / name / artifacts.KERAS_FILE)
    writing.write_history(run_dir, name, made.history)
    for predicted in ("test", "val"):
        table = made.predict(np.flatnonzero(split == predicted)).assign(fold="")
        writing.write_predictions(run_dir, name, predicted, table)
    kind = spec.init.kind
    size_bytes = sum((run_dir / name / f).stat().st_size for f in artifacts.MODEL_FILES)
    facts = {
        "cost": {
            "params": int(made.model.count_params()),
            "size_mb": size_bytes / 1e6,
            # Summed over epochs, so that an interruption does not make a model look dearer.
            "train_s": float(made.history["seconds"].sum()),
            "wall_s": time.perf_counter() - started,
        },
        "export_difference": made.difference,
        "rate_search": [json.loads(f.read_text()) for f in sorted(work.rglob(RATE_FILE))],
        "init": "scratch" if kind == "random" and from_scratch(name) else kind,
    }
    write_json(done, facts)
    return facts


def measure_run(
    run_dir: Path,
    table: pd.DataFrame,
    recipes: dict[str, Recipe],
    materials: Materials,
    facts: dict[str, dict],
) -> dict[str, Any]:
    """Floors, latencies, manifest and skipped files; returns run.json's keys for them."""
    logger.info("Shortcut floors and times ...")
    cache, manifest = materials.cache, materials.manifest
    floors = compute_baselines(
        cache.pixels(min(recipe.image_size_px for recipe in recipes.values())),
        manifest,
        materials.class_names,
        materials.seed,
        metadata=table,
    )
    writing.write_manifest(run_dir, manifest)
    skipped = all_skipped(table, cache)
    writing.write_skipped(run_dir, skipped)
    latencies = time_models(run_dir, recipes, materials)
    return {
        "tta": materials.tta,
        "skipped_n": len(skipped),
        "floors": floors,
        "export_difference": {name: made["export_difference"] for name, made in facts.items()},
        "rate_search": {n: made["rate_search"] for n, made in facts.items() if made["rate_search"]},
        "costs": {n: made["cost"] | {"latency_ms": latencies[n]} for n, made in facts.items()},
    }


def time_models(
    run_dir: Path, recipes: dict[str, Recipe], materials: Materials
) -> dict[str, float]:
    """Milliseconds an image of every model, measured by turns and with nothing else going on."""
    names, tta, cache = materials.class_names, materials.tta, materials.cache
    served = {name: serve(run_dir / name, name, recipes[name], tta, names) for name in recipes}
    images = {name: np.asarray(cache.pixels(recipes[name].image_size_px)[:1]) for name in recipes}
    return measure_latencies_ms(served, images)
