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
from core.files import write_json
from core.fitting import Images, fit_model, progress
from core.floors import compute_floors
from core.inference import ServedModel, compile_model, measure_latencies_ms
from core.listing import load_table
from core.manifest import build_manifest, find_duplicates
from core.models import BUILDERS, build_model, model_title
from core.phantom import write_phantoms
from core.recipes import Recipe, adapt_recipe, find_recipe
from core.resume import (
    DONE,
    begun_init,
    check_images,
    check_plan,
    open_work_folder,
    plan_again,
    replaced_folder,
)
from core.weights import InitPlan, load_initial_weights, plan_init

CONTROL = "mobilenetv2_random"


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
    work = open_work_folder(run_dir, config, resume=resume, replace=replace)
    plans, recipes = plan_models(config, work)

    cache = decode(table, root, recipes, say)
    manifest, pairs = split_images(cache, config)
    check_images(work, manifest, config.run)
    class_names = order_classes(manifest["label"])
    say(describe_split(manifest, cache.skipped))
    announce_models(plans, recipes, manifest, say)

    tta = common_tta(recipes)
    facts = {}
    for name, plan in plans.items():
        check_plan(work, name, plan, recipes[name], config.run)
        done = work / name / DONE
        if done.is_file():
            say(f"{model_title(name)}: already trained, taken over.")
        else:
            made = train_model(
                name, plan, recipes[name], tta, cache, manifest, class_names, config, run_dir, work
            )
            write_json(done, made)
        facts[name] = json.loads(done.read_text())

    say("Shortcut floors, intervals and times ...")
    floors = compute_floors(
        cache.pixels(min(recipe.image_size_px for recipe in recipes.values())),
        manifest, class_names, config.seed, metadata=table,
    )  # fmt: skip
    latencies = time_models(run_dir, recipes, tta, class_names, cache)
    artifacts.write_manifest(run_dir, manifest)
    skipped = all_skipped(table, cache)
    artifacts.write_skipped(run_dir, skipped)
    inits = {name: made["init"] for name, made in facts.items()}
    info = describe_run(config, dataset, table, manifest, class_names, recipes, inits)
    info |= {"tta": tta, "skipped_n": len(skipped), "floors": floors}
    info["export_difference"] = {name: made["export_difference"] for name, made in facts.items()}
    info["near_duplicates"] = pairs.to_dict("records")
    costs = {name: made["cost"] | {"latency_ms": latencies[name]} for name, made in facts.items()}
    info["comparisons"] = score_run(run_dir, info, costs)
    write_cards(run_dir, info, dataset)
    run = artifacts.finish_run(run_dir, info)
    shutil.rmtree(work)
    shutil.rmtree(replaced_folder(run_dir), ignore_errors=True)
    say(f"Run {run.name} is complete after {(time.perf_counter() - started) / 60:.1f} minutes.")
    return run


def find_images(config: Config) -> tuple[Dataset, Path]:
    """The data set's folder; phantoms are drawn where they are asked for and not there yet."""
    if config.dataset == "phantom":
        write_phantoms(data_root() / "phantom")
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


def plan_models(config: Config, work: Path) -> tuple[dict[str, InitPlan], dict[str, Recipe]]:
    """Init and recipe of every model; a random-weights control joins where inits differ."""
    names = list(dict.fromkeys(config.models))
    plans = {}
    for name in names:
        kind = begun_init(work, name)
        if kind is None:
            # A quick run is for demonstrations: it does not wait for a server.
            plans[name] = plan_init(name, config.init, download=not config.quick)
        else:
            plans[name] = plan_again(name, kind, config.init)
    kinds = {plans[n].kind for n in names if n in ("resnet50", "mobilenetv2")}
    if len(kinds) > 1 and CONTROL not in plans and not config.quick:
        plans[CONTROL] = plan_init(CONTROL, "random")
    recipes = {
        name: adapt_recipe(
            find_recipe(name, plan.kind),
            image_size_px=config.image_size_px,
            epochs=config.epochs,
            quick=config.quick,
        )
        for name, plan in plans.items()
    }
    return plans, recipes


def common_tta(recipes: dict[str, Recipe]) -> str:
    """ "flip" or "none": the run is served as it was evaluated, so all models must agree."""
    wanted = {recipe.flip_at_test for recipe in recipes.values()}
    if len(wanted) > 1:
        raise ConfigError(
            "The recipes of these models differ in flip_at_test, and a run has one way to be "
            "served; make them agree or train the models in two runs."
        )
    return "flip" if wanted.pop() else "none"


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
    plan: InitPlan,
    recipe: Recipe,
    tta: str,
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
        parts[split] = Images(np.asarray(pixels[rows]), y[rows])

    model = build_model(name, recipe.image_size_px, len(class_names), recipe.dropout)
    if plan.file is not None:
        load_initial_weights(model, name, plan.file)
    history = fit_model(
        model, recipe, parts["train"], parts["val"], len(class_names), work / name,
        seed=config.seed, title=model_title(name),
    )  # fmt: skip
    round_weights(model)
    difference = export_model(model, run_dir / name, parts["val"].pixels[:32])
    if config.keep_keras:
        model.save(run_dir / name / artifacts.KERAS_FILE)
    artifacts.write_history(run_dir, name, history)

    served = serve(run_dir, name, recipe, tta, class_names)
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
    }
    init = "scratch" if name == "cnn" and plan.kind == "random" else plan.kind
    keras.backend.clear_session()
    return {"cost": cost, "export_difference": difference, "init": init}


def serve(
    run_dir: Path, name: str, recipe: Recipe, tta: str, class_names: list[str]
) -> ServedModel:
    """The exported model as pages will serve it."""
    return compile_model(
        run_dir / name / artifacts.MODEL_FILES[0], name=name, class_names=tuple(class_names),
        input_size_px=recipe.image_size_px, precision=PRECISION, tta=tta,
    )  # fmt: skip


def time_models(
    run_dir: Path, recipes: dict[str, Recipe], tta: str, class_names: list[str], cache: PixelCache
) -> dict[str, float]:
    """Milliseconds an image of every model, measured by turns and with nothing else going on."""
    served = {name: serve(run_dir, name, recipes[name], tta, class_names) for name in recipes}
    images = {name: np.asarray(cache.pixels(recipes[name].image_size_px)[:1]) for name in recipes}
    return measure_latencies_ms(served, images)


def all_skipped(table: pd.DataFrame, cache: PixelCache) -> pd.DataFrame:
    """Files left out while listing the folder and while decoding, with the reason."""
    listed = pd.DataFrame(table.attrs.get("skipped", []), columns=artifacts.SKIPPED_COLUMNS)
    return pd.concat([listed, cache.skipped], ignore_index=True)
