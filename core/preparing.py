"""What a training starts from: images, classes, split, and how each model is to be made."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from core import artifacts
from core.cache import PixelCache, build_pixel_cache
from core.config import Config, ConfigError, cache_root, data_root
from core.console import progress
from core.datasets import Dataset, order_classes, resolve_dataset
from core.leakage import leak_sentence, measure_split
from core.manifest import build_manifest, find_duplicates
from core.phantom import write_phantoms
from core.recipes import Recipe, adapt_recipe, find_recipe
from core.resume import begun_init, plan_again
from core.weights import InitPlan, plan_init

CONTROL = "mobilenetv2_random"


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


def plan_models(
    config: Config, begun: Path | None, finished: dict[str, Any] | None
) -> tuple[dict[str, InitPlan], dict[str, Recipe]]:
    """Init and recipe of every model; a random-weights control joins where inits differ.

    What began with some first weights, or is finished, keeps them.
    """
    names = list(dict.fromkeys(config.models))
    plans = {}
    for name in names:
        kind = begun_init(begun, name) if begun else None
        if finished is not None:
            kind = finished["init"][name].replace("scratch", "random")
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


def check_leakage(manifest: pd.DataFrame, pairs: pd.DataFrame, config: Config, say) -> dict | None:
    """run.json's `leakage`, None where the test part is clean.

    Raises:
        ConfigError: the test part leaks and nobody said that this is wanted.
    """
    measured = measure_split(manifest, pairs)
    sentence = leak_sentence(measured)
    if not sentence:
        return None
    if not config.allow_leakage:
        raise ConfigError(
            f"{sentence} Such a run would look better than it is, so it is not trained; split by "
            "group, or give --allow-leakage to train it all the same and have it marked."
        )
    say(f"LEAKS: {sentence} The run will be marked.")
    return measured | {"allowed": True}


def all_skipped(table: pd.DataFrame, cache: PixelCache) -> pd.DataFrame:
    """Files left out while listing the folder and while decoding, with the reason."""
    listed = pd.DataFrame(table.attrs.get("skipped", []), columns=artifacts.SKIPPED_COLUMNS)
    return pd.concat([listed, cache.skipped], ignore_index=True)
