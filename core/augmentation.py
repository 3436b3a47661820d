"""How training images are altered."""

from __future__ import annotations

import keras

from core.recipes import Recipe


def build_augmentation(recipe: Recipe, seed: int) -> keras.Sequential:
    """Random flip, small rotation, zoom, shift and contrast, each drawn anew for every image."""
    options = {"fill_mode": "reflect", "interpolation": "bilinear"}
    turn = recipe.rotation_deg / 360
    layers: list = [keras.layers.RandomFlip("horizontal", seed=seed)] if recipe.flip else []
    layers += [
        keras.layers.RandomRotation(turn, seed=seed + 1, **options),
        keras.layers.RandomZoom(recipe.zoom, recipe.zoom, seed=seed + 2, **options),
        keras.layers.RandomTranslation(recipe.shift, recipe.shift, seed=seed + 3, **options),
        keras.layers.RandomContrast(recipe.contrast, value_range=(0, 255), seed=seed + 4),
    ]
    return keras.Sequential(layers, name="augmentation")
