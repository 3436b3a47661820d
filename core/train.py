"""Train the models of a run, export them, and evaluate what was exported."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pandas as pd

from core import artifacts
from core.cache import PixelCache, build_pixel_cache
from core.cards import write_cards
from core.config import Config, ConfigError, cache_root, data_root
from core.datasets import Dataset, order_classes, resolve_dataset
from core.describe import PRECISION, announce_models, describe_run, describe_split
from core.evaluation import predict_split, score_run
from core.export import export_model, round_weights
from core.fitting import Images, class_weights, fit_model, progress
from core.floors import compute_floors
from core.inference import compile_model, measure_latency_ms
from core.listing import load_table
from core.manifest import build_manifest, find_duplicates
from core.models import BUILDERS, build_model, model_title
from core.phantom import write_phantoms
from core.recipes import Recipe, adapt_recipe, find_recipe
from core.weights import load_initial_weights, plan_init

CONTROL = "mobilenetv2_random"
PHANTOM_SIZES = {True: (40, 3), False: (120, 3)}  # quick -> patients a class, images a patient


def train_and_evaluate(
    config: Config, run_dir: Path, *, resume: bool = False, replace: bool = False, say=print
) -> artifacts.Run:
    """Make one run: data, split, models, predictions, metrics, cards, hashes.

    say is called with one line of text for everything a person should know on the way.

    Raises:
        ConfigError, DatasetError, ManifestError, ArtifactError: wrong use, one sentence each.
    """
    started = time.perf_counter()
    artifacts.check_run_name(config.run)
    unknown = [name for name in config.models if name not in BUILDERS]
    if unknown or not config.models:
        raise ConfigError(
            f"--models names {', '.join(unknown) or 'no model'}. Known: {', '.join(BUILDERS)}."
        )
    if config.folds:
        raise ConfigError("--folds is not built yet; leave it out to train on the hold-out split.")

    dataset, root = find_images(config)
    table = choose_classes(load_table(dataset, root), config.classes)
    plans, recipes = plan_models(config)
    work = open_work_folder(run_dir, config, resume=resume, replace=replace)

    cache = decode(table, root, recipes, say)
    manifest, pairs = split_images(cache, config)
    class_names = order_classes(manifest["label"])
    say(describe_split(manifest, cache.skipped))
    announce_models(plans, recipes, manifest, say)

    costs, differences, used = {}, {}, {}
    for name, (init, file) in plans.items():
        done = work / name / "done.json"
        if done.is_file():
            say(f"{model_title(name)}: already trained, taken over.")
        else:
            facts = train_model(
                name, init, file, recipes[name], cache, manifest, class_names, config, run_dir, work
            )
            artifacts.write_json(done, facts)
        facts = json.loads(done.read_text())
        costs[name], differences[name] = facts["cost"], facts["export_difference"]
        used[name] = facts["init"]

    say("Shortcut floors and intervals ...")
    floors = compute_floors(
        cache.pixels(min(recipe.image_size_px for recipe in recipes.values())),
        manifest, class_names, config.seed, metadata=table,
    )  # fmt: skip
    artifacts.write_manifest(run_dir, manifest)
    artifacts.write_skipped(run_dir, all_skipped(table, cache))
    info = describe_run(config, dataset, table, manifest, class_names, recipes, used)
    info |= {"skipped_n": len(all_skipped(table, cache)), "floors": floors}
    info |= {"export_difference": differences, "near_duplicates": pairs.to_dict("records")}
    info["comparisons"] = score_run(run_dir, info, costs)
    write_cards(run_dir, info, dataset)
    run = artifacts.finish_run(run_dir, info)
    shutil.rmtree(work)
    say(f"Run {run.name} is complete after {(time.perf_counter() - started) / 60:.1f} minutes.")
    return run


def find_images(config: Config) -> tuple[Dataset, Path]:
    """The data set's folder; phantoms are drawn where they are asked for and not there yet."""
    if config.dataset == "phantom":
        patients, images = PHANTOM_SIZES[config.quick]
        write_phantoms(
            data_root() / "phantom", patients_per_class=patients, images_per_patient=images
        )
    return resolve_dataset(config.dataset, data_root())


def choose_classes(table: pd.DataFrame, classes: tuple[str, ...] | None) -> pd.DataFrame:
    """Only the rows of `classes` (all where None); attrs are kept."""
    known = order_classes(table["label"])
    if classes is not None:
        missing = [name for name in classes if name not in known]
        if missing or len(set(classes)) < 2:
            raise ConfigError(
                f"--classes needs at least two of {', '.join(known)}. Received: "
                f"{', '.join(classes)}."
            )
        attrs = table.attrs
        table = table[table["label"].isin(classes)].reset_index(drop=True)
        table.attrs.update(attrs)
    elif len(known) < 2:
        raise ConfigError(f"The data set has one class only ({known[0]}); training needs two.")
    return table


def plan_models(config: Config) -> tuple[dict[str, tuple[str, Path | None]], dict[str, Recipe]]:
    """Init and recipe of every model; a random-weights control joins where inits differ."""
    names = list(dict.fromkeys(config.models))
    # A quick run is for demonstrations: it does not wait for a server.
    plans = {n: plan_init(n, config.init, download=not config.quick) for n in names}
    kinds = {plans[n][0] for n in names if n in ("resnet50", "mobilenetv2")}
    if len(kinds) > 1 and CONTROL not in plans and not config.quick:
        plans[CONTROL] = plan_init(CONTROL, "random")
    recipes = {
        name: adapt_recipe(
            find_recipe(name, init),
            image_size_px=config.image_size_px,
            epochs=config.epochs,
            quick=config.quick,
        )
        for name, (init, _) in plans.items()
    }
    return plans, recipes


def open_work_folder(run_dir: Path, config: Config, *, resume: bool, replace: bool) -> Path:
    """The folder of checkpoints; refuses to touch a run that exists unless told to.

    A replaced run is set aside until the new one has begun, and the same settings are demanded
    for going on.
    """
    work = run_dir / artifacts.WORK_FOLDER
    settings = work / "config.json"
    if (run_dir / artifacts.RUN_FILE).exists():
        if resume:
            raise ConfigError(f"Run {config.run} is complete; there is nothing to resume.")
        if not replace:
            raise ConfigError(
                f"Run {config.run} exists already. Choose another --run, or --replace to train it "
                "anew."
            )
        shutil.rmtree(run_dir)
    elif settings.exists() and not replace:
        if not resume:
            raise ConfigError(
                f"Run {config.run} was begun and not finished. --resume goes on from its last "
                "finished epoch, --replace begins anew."
            )
        if json.loads(settings.read_text()) != artifacts.jsonable(config.to_json()):
            raise ConfigError(
                f"Run {config.run} was begun with other settings than these; give the same ones "
                f"({settings.as_posix()} lists them) or --replace."
            )
        return work
    elif replace and run_dir.exists():
        shutil.rmtree(run_dir)
    artifacts.write_json(settings, config.to_json())
    return work


def decode(table: pd.DataFrame, root: Path, recipes: dict[str, Recipe], say) -> PixelCache:
    """Every image decoded once, at every size that a recipe wants."""
    sizes = sorted({recipe.image_size_px for recipe in recipes.values()})
    with progress(len(table), "Decoding images", "image") as bar:
        cache = build_pixel_cache(
            table, root, cache_root() / "pixels", sizes,
            progress=lambda done, _total: bar.update(done - bar.n),
        )  # fmt: skip
    if not len(cache.table):
        reasons = "; ".join(cache.skipped["reason"].head(3))
        raise ConfigError(f"No image of {root.name} could be read ({reasons}).")
    if len(cache.skipped):
        say(f"{len(cache.skipped)} files were skipped; skipped.csv names each with the reason.")
    return cache


def split_images(cache: PixelCache, config: Config) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The manifest and the confirmed duplicates whose images it keeps together."""
    size = min(cache.sizes)
    pairs = find_duplicates(cache.pixels(size), list(cache.table["image_id"]))
    manifest = build_manifest(
        cache.table, seed=config.seed, split=config.split, folds=config.folds, near_duplicates=pairs
    )
    return manifest, pairs


def train_model(
    name: str,
    init: str,
    file: Path | None,
    recipe: Recipe,
    cache: PixelCache,
    manifest: pd.DataFrame,
    class_names: list[str],
    config: Config,
    run_dir: Path,
    work: Path,
) -> dict[str, Any]:
    """Fit, round, export and predict one model; returns what run.json will say of it."""
    started = time.perf_counter()
    keras.utils.set_random_seed(config.seed)
    pixels = cache.pixels(recipe.image_size_px)
    y = pd.Index(class_names).get_indexer(manifest["label"])
    parts = {}
    for split in ("train", "val"):
        rows = np.flatnonzero(manifest["split"].to_numpy() == split)
        weight = class_weights(y[rows], len(class_names))
        parts[split] = Images(np.asarray(pixels[rows]), y[rows], weight)

    model = build_model(name, recipe.image_size_px, len(class_names), recipe.dropout)
    if file is not None:
        load_initial_weights(model, name, file)
    history = fit_model(
        model, recipe, parts["train"], parts["val"], len(class_names), work / name,
        seed=config.seed, title=model_title(name),
    )  # fmt: skip
    round_weights(model)
    difference = export_model(model, run_dir / name, parts["val"].pixels[:32])
    if config.keep_keras:
        model.save(run_dir / name / artifacts.KERAS_FILE)
    artifacts.write_history(run_dir, name, history)

    xml = run_dir / name / artifacts.MODEL_FILES[0]
    served = compile_model(
        xml, name=name, class_names=tuple(class_names), input_size_px=recipe.image_size_px,
        precision=PRECISION, tta="flip" if recipe.flip_at_test else "none",
    )  # fmt: skip
    for part, split in (("test", "test"), ("val", "val")):
        table = predict_split(served, pixels, manifest, split)
        artifacts.write_predictions(run_dir, name, part, table)
    size_bytes = sum((run_dir / name / f).stat().st_size for f in artifacts.MODEL_FILES)
    cost = {
        "params": int(model.count_params()),
        "size_mb": size_bytes / 1e6,
        # Summed over epochs, so that an interruption does not make a model look dearer.
        "train_s": float(history["seconds"].sum()),
        "wall_s": time.perf_counter() - started,
        "latency_ms": measure_latency_ms(served, np.asarray(pixels[:1])),
    }
    if name == "cnn":
        init = "scratch"
    keras.backend.clear_session()
    return {"cost": cost, "export_difference": difference, "init": init}


def all_skipped(table: pd.DataFrame, cache: PixelCache) -> pd.DataFrame:
    """Files left out while listing the folder and while decoding, with the reason."""
    listed = pd.DataFrame(table.attrs.get("skipped", []), columns=artifacts.SKIPPED_COLUMNS)
    return pd.concat([listed, cache.skipped], ignore_index=True)
