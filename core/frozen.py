"""Outputs of a model's frozen layers, computed once for every image and view, kept on the disk.

A backbone whose weights do not change gives the same answer in every epoch and in every fold, so
its answers are stored and only the layers above are run again.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from core.augmentation import build_augmentation
from core.backend import import_openvino
from core.console import progress
from core.recipes import Recipe, Stage

_BATCH = 32


@dataclass(frozen=True)
class FrozenStore:
    """Frozen outputs of one set of images, shared by all trainings of one model on them.

    pixels uint8 (n, size, size); folder: where the outputs are kept. Views of an image are drawn
    for the image and not for the training, so folds share them as they share the pixels.
    """

    pixels: np.ndarray
    folder: Path
    recipe: Recipe
    seed: int
    title: str

    def outputs(self, bottom: keras.Model, stage: Stage) -> np.ndarray:
        """float16 (views, n, ...), memory-mapped; `bottom` must still have its first weights."""
        file = self.folder / f"{stage.cut}-{stage.views}.npy"
        if not file.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._compute(bottom, stage, file)
        return np.load(file, mmap_mode="r")

    def _compute(self, bottom: keras.Model, stage: Stage, file: Path) -> None:
        """Runs the layers in OpenVINO at f32, several times faster than Keras on a CPU."""
        model = file.with_suffix(".xml")
        bottom.export(str(model), format="openvino", verbose=False)
        settings = {"INFERENCE_PRECISION_HINT": "f32"}
        compiled = import_openvino().Core().compile_model(str(model), "CPU", settings)
        n, result = len(self.pixels), None
        temporary = file.with_name(f".{file.name}.tmp")
        what = f"{self.title}: frozen part, {stage.views} views"
        with progress(stage.views * n, what, "image") as bar:
            for view, rows, images in augmented_views(
                self.pixels, self.recipe, stage.views, self.seed
            ):
                outputs = compiled(images)[0]
                if result is None:
                    shape = (stage.views, n, *outputs.shape[1:])
                    result = np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
                result[view, rows] = outputs
                bar.update(len(images))
        result.flush()
        os.replace(temporary, file)
        model.unlink()
        model.with_suffix(".bin").unlink()


def augmented_views(pixels: np.ndarray, recipe: Recipe, views: int, seed: int):
    """Batches (view, rows, images): first the images themselves, then views - 1 altered copies.

    pixels uint8 (n, size, size); rows: slice of them; images float32 (b, size, size, 1), whole
    numbers 0..255, so that a view is a picture that could have been decoded.
    """
    augment = build_augmentation(recipe, seed)
    for view in range(views):
        for start in range(0, len(pixels), _BATCH):
            rows = slice(start, min(start + _BATCH, len(pixels)))
            images = np.asarray(pixels[rows], dtype="float32")[..., None]
            if view:
                drawn = keras.ops.convert_to_numpy(augment(images, training=True))
                images = np.clip(np.rint(drawn), 0, 255)
            yield view, rows, images
