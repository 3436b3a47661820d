"""What a training starts from: images, classes, split, and how each model is to be made."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.config import Config, ConfigError, cache_root, data_root, split_datasets
from core.console import progress
from core.datasets.augmented_copies import KIND as AUGMENTED
from core.datasets.augmented_copies import copies_sentence, count_steps, find_augmented
from core.datasets.duplicate_pairs import linked_sets
from core.datasets.image_matching import SIDE_PX
from core.datasets.leakage import leak_sentence, measure_split
from core.datasets.near_duplicates import find_duplicates
from core.datasets.phantom.generate import write_phantoms
from core.datasets.registry import KNOWN, Dataset, order_classes
from core.datasets.several import SET_COLUMN, SPLITS_LEFT, resolve_datasets
from core.datasets.shared_pictures import find_shared_pictures, matching_steps
from core.datasets.splits import build_manifest
from core.imageio.pixel_cache import PixelCache, build_pixel_cache
from core.models.names import CONTROL
from core.models.pretrained import InitPlan, plan_init
from core.models.recipes import Recipe, adapt_recipe, find_recipe
from core.runs import artifacts
from core.training.resume import begun_init, plan_again

logger = logging.getLogger(__name__)

DUPLICATES_PX = 224  # smaller images have too little detail to tell copies by
LISTED_DUPLICATES = 1000
SPLIT_ANEW = (
    "The split was made for these classes alone: an image that is in test here may be in train in "
    "a run with other classes of the same data set, and the other way round."
)


def find_images(config: Config) -> tuple[Dataset, Path]:
    """The data set and its folder, or several and the folder that holds them.

    Phantoms are drawn where they are asked for and not there yet.
    """
    for name in split_datasets(config.dataset):
        if name in KNOWN and KNOWN[name].drawn:
            write_phantoms(data_root() / name)
    dataset, root = resolve_datasets(config.dataset, data_root())
    return (replace(dataset, augmented=True) if config.group_copies else dataset), root


def choose_classes(table: pd.DataFrame, classes: tuple[str, ...] | None) -> pd.DataFrame:
    """Only the rows of `classes` (all where None), labelled by them; attrs are kept.

    One of `classes` is a label of the table, or `name=label+label` for several labels read as one
    class. attrs["task"] is what `describe_task` says. Raises ConfigError.
    """
    known = order_classes(table["label"])
    if classes is None and len(known) < 2:
        raise ConfigError(f"The data set has one class only ({known[0]}); training needs two.")
    class_of = _read_classes(classes or tuple(known), known)
    chosen = table[table["label"].isin(class_of)].reset_index(drop=True)
    chosen["label"] = chosen["label"].map(class_of).astype(table["label"].dtype)
    chosen.attrs.update(table.attrs)
    chosen.attrs["task"] = describe_task(table, chosen, order_classes(chosen["label"]))
    return chosen


def _read_classes(classes: tuple[str, ...], known: list[str]) -> dict[str, str]:
    """{label of the data set: class}. Raises ConfigError."""
    class_of: dict[str, str] = {}
    problem = ""
    for text in classes:
        name, _, merged = text.partition("=")
        labels = merged.split("+") if "=" in text else [name]
        for label in labels:
            if label not in known:
                problem = problem or f"{label!r} is none of them"
            elif label in class_of:
                problem = problem or f"{label!r} is named twice"
            class_of[label] = name
        if name in known and name not in labels:
            problem = problem or f"{name!r} would be another class's name"
    if not problem and ("" in class_of.values() or len(set(class_of.values())) < len(classes)):
        problem = "each class needs a name of its own"
    if problem or len(classes) < 2:
        raise ConfigError(
            f"--classes needs at least two of {', '.join(known)}, or several read as one, such as "
            f"other={'+'.join(known[-2:])}{problem and f' ({problem})'}. Received: "
            f"{','.join(classes)}."
        )
    return class_of


def describe_task(
    before: pd.DataFrame, after: pd.DataFrame, class_names: list[str]
) -> dict[str, Any]:
    """run.json's `task`: which labels, as published, were read as which class.

    before: the table as listed; after: what `choose_classes` left of it. Returns {"classes",
    "map": {original label: class}, "left_out": {original label: n images}}.
    """
    before, after = _labels_by_set(before), _labels_by_set(after)
    left_out = before[~before["image_id"].isin(after["image_id"])]["original_label"]
    pairs = after[["original_label", "label"]].drop_duplicates().sort_values("original_label")
    return {
        "classes": list(class_names),
        "map": dict(zip(pairs["original_label"], pairs["label"], strict=True)),
        "left_out": {str(k): int(n) for k, n in left_out.value_counts().sort_index().items()},
    }


def _labels_by_set(table: pd.DataFrame) -> pd.DataFrame:
    """Two sets may mean different things by one label, so it is called by its set too."""
    if SET_COLUMN not in table or not table.attrs.get("several"):
        return table
    return table.assign(original_label=table[SET_COLUMN] + ": " + table["original_label"])


def plan_models(
    config: Config, begun: Path | None, finished: dict[str, Any] | None
) -> tuple[dict[str, InitPlan], dict[str, Recipe]]:
    """Init and recipe of every model; a control joins where only some are from random weights.

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
    if "random" in kinds and len(kinds) > 1 and CONTROL not in plans and not config.quick:
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


def decode(table: pd.DataFrame, root: Path, recipes: dict[str, Recipe]) -> PixelCache:
    """Every image decoded once, at every size that a recipe or the search for copies wants."""
    sizes = {recipe.image_size_px for recipe in recipes.values()}
    if table.attrs.get("augmented"):
        sizes.add(DUPLICATES_PX)
    if table.attrs.get("several"):
        sizes.add(SIDE_PX)
    with progress(len(table), "Decoding images", "image") as bar:
        cache = build_pixel_cache(
            table,
            root,
            cache_root() / "pixels",
            sorted(sizes),
            progress=lambda done, _total: bar.update(done - bar.n),
        )
    if not len(cache.table):
        reasons = "; ".join(cache.skipped["reason"].head(3))
        raise ConfigError(f"No image of {root.name} could be read ({reasons}).")
    if len(cache.skipped):
        logger.warning(
            f"{len(cache.skipped)} files were skipped; skipped.csv names each with the reason."
        )
    return cache


def count_shared_once(cache: PixelCache, root: Path, recipes: dict[str, Recipe]) -> PixelCache:
    """The images of several data sets without the copies that two of them share.

    The cache of a single data set is left as it is. attrs of the table: shared (words for the
    caveats), alike (pairs that belong together) and, among skipped, the copies.
    """
    table = cache.table
    if not table.attrs.get("several"):
        return cache
    with progress(matching_steps(table), "Looking for shared pictures", "step") as bar:
        shared = find_shared_pictures(table, cache.pixels(SIDE_PX), bar.update)
    logger.info(
        f"{len(shared.skipped)} pictures are in two data sets; each counts once (skipped.csv)."
    )
    attrs = table.attrs | {
        "shared": shared.sentence(),
        "alike": shared.alike,
        "skipped": [*table.attrs["skipped"], *shared.skipped],
    }
    rest = table.assign(patient_id=shared.patients)[shared.kept].reset_index(drop=True)
    rest.attrs = {"augmented": table.attrs["augmented"]}
    rest = rest.drop(columns=["sha256", "width", "height", "format"])
    smaller = decode(rest, root, recipes)
    smaller.table.attrs.update(attrs)
    return replace(smaller, skipped=cache.skipped)


def split_images(cache: PixelCache, config: Config) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The manifest and the confirmed duplicates whose images it keeps together.

    Augmented copies are looked for where the data set is said to hold some (the table's attrs).
    attrs of the manifest: grouping (the rule, in words) and caveats (what has to be said of this
    split beside the data set's own caveats).
    """
    table, ids = cache.table, list(cache.table["image_id"])
    pairs = find_duplicates(cache.pixels(min(cache.sizes)), ids)
    alike = pd.DataFrame(table.attrs.get("alike") or [], columns=pairs.columns)
    pairs = pd.concat([part for part in (pairs, alike) if len(part)] or [pairs], ignore_index=True)
    grouping = str(table.attrs.get("grouping", ""))
    if len(pairs):
        grouping += f"; {len(pairs)} pairs of the same or nearly the same picture together"
    if table.attrs.get("augmented"):
        with progress(count_steps(len(table)), "Looking for augmented copies", "step") as bar:
            copies = find_augmented(cache.pixels(max(cache.sizes)), table, bar.update)
        grouping += f"; {copies_sentence(copies)}"
        table = join_patients(table, copies)
        pairs = pd.concat([part for part in (pairs, copies) if len(part)] or [pairs])
        pairs = pairs.reset_index(drop=True)
    attrs = cache.table.attrs
    manifest = build_manifest(
        table,
        seed=config.seed,
        split=config.split,
        folds=config.folds,
        near_duplicates=pairs,
        sources=bool(attrs.get("several")),
    )
    caveats = [moved_sentence(table, manifest), conflict_sentence(manifest, pairs)]
    caveats += [attrs.get("shared", ""), SPLITS_LEFT if attrs.get("splits_left") else ""]
    merged = any("=" in text for text in config.classes or ())
    if merged or table.attrs.get("task", {}).get("left_out"):
        caveats.append(SPLIT_ANEW)
    manifest.attrs.update(grouping=grouping, caveats=[text for text in caveats if text])
    return manifest, pairs


def join_patients(table: pd.DataFrame, copies: pd.DataFrame) -> pd.DataFrame:
    """The table with one unknown patient (image:<first image_id>) for all copies of an original.

    Whoever it is, it is one: intervals that took each copy for a patient of its own would be
    too narrow. Patients that are known stay.
    """
    place = pd.Index(table["image_id"])
    links = zip(*(place.get_indexer(copies[f"image_id_{side}"]) for side in "ab"), strict=True)
    patient = table["patient_id"].astype(object)
    unknown = patient.str.startswith("image:")
    number = pd.Series(linked_sets(len(table), links), index=table.index)
    first = patient[unknown].groupby(number[unknown]).transform("min")
    return table.assign(patient_id=first.reindex(table.index).fillna(patient))


def moved_sentence(table: pd.DataFrame, manifest: pd.DataFrame) -> str:
    """How many images left the split that the data set gives them, "" where all are in it."""
    given = table["split_given"].to_numpy()
    moved = (given != "") & (given != manifest["split"].to_numpy())
    # Val is cut from the given train split, as was always meant.
    moved &= manifest["split"].to_numpy() == "test"
    if not moved.any():
        return ""
    n_test, n_given = int((manifest["split"] == "test").sum()), int((given == "test").sum())
    return (
        f"Of the images given as train, {int(moved.sum())} stand in test here, because their "
        f"patient or a copy of them is there: {n_test} test images in place of {n_given}."
    )


def conflict_sentence(manifest: pd.DataFrame, pairs: pd.DataFrame) -> str:
    """How many pairs of the same image have two labels, "" where none has."""
    label = manifest.set_index("image_id")["label"]
    both = [label.reindex(pairs[side]).to_numpy() for side in ("image_id_a", "image_id_b")]
    rows = np.flatnonzero(both[0] != both[1])
    if not len(rows):
        return ""
    first = pairs.iloc[rows[0]]
    count = "1 pair" if len(rows) == 1 else f"{len(rows)} pairs"
    return (
        f"{count} of the same or nearly the same picture {'has' if len(rows) == 1 else 'have'} two "
        f"different labels (such as {first['image_id_a']} and {first['image_id_b']}), so labels "
        "may be wrong."
    )


def list_pairs(pairs: pd.DataFrame) -> list[dict[str, Any]]:
    """run.json's `near_duplicates`: every duplicate, and of augmented copies the first thousand.

    Which images stay together is in the manifest's group_id, for all of them.
    """
    copies = pairs["kind"] == AUGMENTED
    listed = pd.concat([pairs[~copies], pairs[copies].head(LISTED_DUPLICATES)])
    return listed.to_dict("records")


def check_leakage(manifest: pd.DataFrame, pairs: pd.DataFrame, config: Config) -> dict | None:
    """run.json's `leakage`, None where the test split is clean.

    Raises:
        ConfigError: the test split leaks and nobody said that this is wanted.
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
    logger.warning(f"LEAKS: {sentence} The run will be marked.")
    return measured | {"allowed": True}


def all_skipped(table: pd.DataFrame, cache: PixelCache) -> pd.DataFrame:
    """Files left out while listing the folder, while decoding and as copies, with the reason."""
    attrs = cache.table.attrs if table.attrs.get("several") else table.attrs
    listed = pd.DataFrame(attrs.get("skipped", []), columns=artifacts.SKIPPED_COLUMNS)
    return pd.concat([listed, cache.skipped], ignore_index=True)
