"""Outputs of a model's frozen layers, computed once for every image and view, kept on the disk.

A backbone whose weights do not change gives the same answer in every epoch and in every fold, so
its answers are stored and only the layers above are run again.
"""

from __future__ import annotations

import io
import os
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np

from core.config import cache_root
from core.console import progress
from core.engine import import_openvino
from core.files import write_bytes
from core.imageio.pixel_cache import forget_array
from core.models.recipes import Recipe, Stage
from core.training.augmentation import build_augmentation
from core.training.data_loader import Reader
from core.training.openvino import cached_openvino

PRECISION = "f32"
_BATCH = 32  # images that are read and altered at once
_ASKED = 4  # of them at once in the engine: their maps stay in the processor's own memory


@dataclass(frozen=True)
class FrozenStore:
    """Frozen outputs of one set of images, shared by all trainings of one model on them.

    pixels uint8 (n, size, size); folder: where the outputs are kept. Views of an image are drawn
    for the image and not for the training, so folds share them as they share the pixels.
    precision: at which OpenVINO computes them, "f32", "bf16" or "f16"; what is served is another
    matter. A CPU without the half precision that is asked for takes the one it has.
    """

    pixels: np.ndarray
    folder: Path
    recipe: Recipe
    seed: int
    title: str
    precision: str = PRECISION

    def outputs(
        self, bottom: keras.Model, stage: Stage, train: np.ndarray, val: np.ndarray
    ) -> np.ndarray:
        """float16 (views, n, ...), memory-mapped; `bottom` must still have its first weights.

        Filled in are all views of the rows `train` and the first view of the rows `val`, ints;
        what an earlier training left there is not computed again, and other rows say nothing.
        """
        wanted = np.zeros((stage.views, len(self.pixels)), dtype=bool)
        wanted[:, train] = wanted[0, val] = True
        mark = "" if self.precision == PRECISION else f"-{self.precision}"
        file = self.folder / f"{stage.cut}-{stage.views}{mark}.npy"
        done_file = file.with_suffix(".done.npy")
        done = np.load(done_file) if done_file.exists() else np.zeros_like(wanted)
        if (wanted & ~done).any():
            self.folder.mkdir(parents=True, exist_ok=True)
            self._compute(bottom, stage, file, wanted & ~done)
            written = io.BytesIO()
            np.save(written, wanted | done)
            write_bytes(done_file, written.getvalue())
        return np.load(file, mmap_mode="r")

    def _compute(self, bottom: keras.Model, stage: Stage, file: Path, wanted: np.ndarray) -> None:
        """Runs the layers in OpenVINO, several times faster than Keras on a CPU."""
        model = cached_openvino(bottom, cache_root() / "graphs")
        ov = import_openvino()
        # A few at once, each on its share of the cores, and the next ones drawn meanwhile.
        settings = {"INFERENCE_PRECISION_HINT": self.precision, "PERFORMANCE_HINT": "THROUGHPUT"}
        compiled = ov.Core().compile_model(str(model), "CPU", settings)
        queue = ov.AsyncInferQueue(compiled, jobs=2 * _BATCH // _ASKED)  # none waits for drawing
        shape = (*wanted.shape, *bottom.output_shape[1:])
        if not file.exists():  # whole or not at all: empty, and as large as it will be
            temporary = file.with_name(f".{file.name}.tmp")
            np.lib.format.open_memmap(temporary, "w+", np.float16, shape)
            os.replace(temporary, file)
        result = np.load(file, mmap_mode="r+")
        what = f"{self.title}: frozen part, {stage.views} views"
        with progress(int(wanted.sum()), what, "image") as bar:

            def keep(request, place) -> None:
                view, rows, number = place
                result[view, rows] = request.get_output_tensor(0).data
                if number % 16 == 0:
                    forget_array(result)
                bar.update(len(rows))

            queue.set_callback(keep)
            drawn = augmented_views(self.pixels, self.recipe, stage.views, self.seed, wanted)
            for number, (view, rows, images) in enumerate(drawn):
                for start in range(0, len(rows), _ASKED):
                    part = slice(start, start + _ASKED)
                    queue.start_async([images[part]], (view, rows[part], number))
            queue.wait_all()
        result.flush()


def augmented_views(
    pixels: np.ndarray, recipe: Recipe, views: int, seed: int, wanted: np.ndarray | None = None
):
    """Batches (view, rows, images): first the images themselves, then views - 1 altered copies.

    pixels uint8 (n, size, size); wanted bool (views, n): which to give (None: all). rows (b,) ints;
    images float32 (b, size, size, 1), whole numbers 0..255, so that a view is an image that could
    have been decoded. How an image is altered depends on seed, view and row, not on who asks.
    """
    reader = Reader(pixels[None, ..., None])
    for view in range(views):
        held_rows, held = np.empty(0, dtype=int), np.empty((0, *pixels.shape[1:], 1), "float32")
        for start in range(0, len(pixels), _BATCH):
            rows = np.arange(start, min(start + _BATCH, len(pixels)))
            chosen = np.ones(len(rows), dtype=bool) if wanted is None else wanted[view, rows]
            if not chosen.any():
                continue
            images = reader.read(np.zeros_like(rows), rows)
            if view:
                augment = build_augmentation(recipe, _seed_of(seed, view, start))
                drawn = keras.ops.convert_to_numpy(augment(images, training=True))
                images = np.clip(np.rint(drawn), 0, 255)
            held_rows = np.concatenate([held_rows, rows[chosen]])
            held = np.concatenate([held, images[chosen]])
            if len(held) >= _BATCH:  # all of one size, for which the engine prepares once
                yield view, held_rows[:_BATCH], held[:_BATCH]
                held_rows, held = held_rows[_BATCH:], held[_BATCH:]
        if len(held):
            yield view, held_rows, held


def _seed_of(*numbers: int) -> int:
    return int(np.random.SeedSequence(numbers).generate_state(1)[0])
