"""How a model was trained, in the words of its card."""

from __future__ import annotations

from typing import Any

from core.models.names import NOTEBOOK, POOLED
from core.models.recipes import TRIALS_DATASET, Recipe, Stage, recipe_from_json

INIT_WORDS = {
    "imagenet": "ImageNet weights, then fine-tuned",
    "random": "random weights, trained whole; no pretrained weights were used",
    "scratch": "random weights, as designed: this network has no pretrained weights",
}
FROZEN_WORDS = {
    "imagenet": "ImageNet weights, which stay as they are under the layers that are trained",
    "random": "random weights, which stay as they are under the layers that are trained: no "
    "pretrained weights were to be had, so the layers read what an untrained network makes of an "
    "image",
}


def tried_where(info: dict[str, Any], most: int) -> str:
    """What follows the number of recipes tried (`most` of a model) where it was on other data."""
    if most <= 1 or info["dataset"]["name"] == TRIALS_DATASET:
        return ""
    return f" (on {TRIALS_DATASET}, none on this data set)"


def describe_training(model: str, info: dict[str, Any], cost: dict[str, Any]) -> str:
    """The lines of the card's section Training; cost: metrics.json's."""
    recipe, init = recipe_from_json(info["recipes"][model]), info["init"][model]
    pooled = all(stage.cut == POOLED for stage in recipe.stages)
    words = FROZEN_WORDS if pooled else INIT_WORDS
    lines = [
        f"Init: {words.get(init, 'weights from ' + init)}.",
        f"Input: {recipe.image_size_px} px, grey, {info['resize']}.",
        f"Stages: {'; '.join(_describe_stage(stage) for stage in recipe.stages)}.",
        "Class weights balanced." if recipe.class_weights else "No class weights.",
        _describe_augmentation(recipe),
    ]
    if model in NOTEBOOK:
        lines.append(
            "Architecture and recipe follow a notebook of the field as far as they are known; "
            "split, images and metrics are this run's."
        )
    if recipe.members > 1:
        lines.append(f"{recipe.members} networks, each from a seed of its own, averaged.")
    for search in info.get("rate_search", {}).get(model, []):
        found = "found by" if search["found"] else "not settled by"
        lines.append(f"Learning rate {search['learning_rate']:.2g}, {found} a search.")
    if info.get("devices"):
        lines.append(
            f"Trained with {info['devices']['backend']} in {info['devices']['precision']}."
        )
    lines += [
        f"Seed {info['seed']}, never chosen by its result.",
        f"Recipes compared on validation: {recipe.tried}{tried_where(info, recipe.tried)}.",
        f"{cost['params']:,} parameters.",
        f"Training took {cost['train_s'] / 60:.1f} minutes on {info['hardware']}.",
    ]
    return "\n".join(f"- {line}" for line in lines)


def _describe_stage(stage: Stage) -> str:
    frozen = f"layers up to {stage.cut} frozen" if stage.cut else "whole"
    rate = "learning rate" if stage.schedule == "constant" else "peak learning rate"
    kept = "the last epoch kept" if stage.keep == "last" else "the best epoch on validation kept"
    searched = "searched" if stage.find_rate else f"{stage.learning_rate:g}"
    optimizer = {"adam": "Adam", "adamw": "AdamW"}[stage.optimizer]
    return (
        f"{stage.name} ({frozen}, up to {stage.epochs} epochs, {optimizer}, {rate} {searched}, "
        f"{kept})"
    )


def _describe_augmentation(recipe: Recipe) -> str:
    altered = any(
        stage.views > 1 if stage.cut is not None else stage.augment for stage in recipe.stages
    )
    if not altered:
        return "Images are not altered in training."
    flip = "flip, " if recipe.flip else ""
    return (
        f"Augmentation: {flip}rotation {recipe.rotation_deg:g} degrees, zoom {recipe.zoom:g}, "
        f"shift {recipe.shift:g}, contrast {recipe.contrast:g}."
    )
