"""Fit one model stage by stage: batches, checkpoints, early stopping, progress.

State lives in files, so that a killed training goes on from its last finished epoch: every epoch
ends with an atomically written state (weights and optimizer), the best weights so far and a row
of history. Stopping and "best" are decided from the history alone.
"""

from __future__ import annotations

import math
import os
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd
from tqdm import tqdm

from core.artifacts import HISTORY_COLUMNS
from core.backend import import_openvino
from core.files import write_csv
from core.models import build_augmentation, set_batch_norm, split_model
from core.recipes import Recipe, Stage


@dataclass(frozen=True)
class Images:
    """What a model is fitted on. pixels uint8 (n, size, size); y int (n,), indices of classes."""

    pixels: np.ndarray
    y: np.ndarray


def class_weights(y: np.ndarray, n_classes: int) -> np.ndarray:
    """One weight an image, so that every class counts alike; mean 1."""
    counts = np.bincount(y, minlength=n_classes)
    return (len(y) / (np.count_nonzero(counts) * np.maximum(counts, 1)))[y].astype("float32")


class Batches(keras.utils.PyDataset):
    """Shuffled training batches; with views (k, n, ...) one view an image is drawn each epoch.

    The order depends on the seed and the epoch alone, so a resumed training goes on with the order
    that an uninterrupted one would have had. No image is dropped: the last batch may be smaller.
    """

    def __init__(self, views, y_onehot, weight, batch_size, seed, first_epoch=0):
        super().__init__(workers=1, use_multiprocessing=False)
        self.views, self.y, self.weight = views, y_onehot, weight
        self.batch_size, self.seed, self.epoch = batch_size, seed, first_epoch
        self._shuffle()

    def _shuffle(self) -> None:
        rng = np.random.default_rng([self.seed, self.epoch])
        self.order = rng.permutation(len(self.y))
        self.view = rng.integers(0, len(self.views), size=len(self.y))

    def on_epoch_end(self) -> None:
        self.epoch += 1
        self._shuffle()

    def __len__(self) -> int:
        return math.ceil(len(self.y) / self.batch_size)

    def __getitem__(self, index: int):
        rows = np.sort(self.order[index * self.batch_size : (index + 1) * self.batch_size])
        x = np.stack([self.views[v][i] for v, i in zip(self.view[rows], rows, strict=True)])
        return x.astype("float32"), self.y[rows], self.weight[rows]


def fit_model(
    model: keras.Model,
    recipe: Recipe,
    train: Images,
    val: Images,
    n_classes: int,
    work_dir: Path,
    *,
    seed: int,
    title: str,
) -> pd.DataFrame:
    """Train `model` in place through all stages; returns the history (HISTORY_COLUMNS).

    Stages already finished in `work_dir` are loaded instead of trained again.
    """
    histories, offset = [], 0
    for index, stage in enumerate(recipe.stages):
        folder = work_dir / f"stage{index}"
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "done").exists():
            _fit_stage(model, stage, recipe, train, val, n_classes, folder, seed, title)
            _load_state(folder / "best.npz", model.variables)
            (folder / "done").touch()
            (folder / "state.npz").unlink(missing_ok=True)
        else:
            _load_state(folder / "best.npz", model.variables)
        history = pd.read_csv(folder / "history.csv")
        history["epoch"] += offset
        offset = int(history["epoch"].max())
        histories.append(history)
    return pd.concat(histories, ignore_index=True)


def _fit_stage(model, stage, recipe, train, val, n_classes, folder, seed, title) -> None:
    started = time.perf_counter()
    frozen = stage.cut is not None
    if frozen:
        # Batch norm stays in inference mode: a few hundred steps cannot re-estimate it.
        set_batch_norm(model, frozen=True)
        bottom, top = split_model(model, stage.cut)
        for layer in top.layers:
            if not isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = True
        x_val = frozen_outputs(bottom, val.pixels[None], folder, f"{title}: frozen part, val")[0]
        pixels = augmented_views(train.pixels, recipe, stage.views, seed)
        views = frozen_outputs(bottom, pixels, folder, f"{title}: frozen part, {stage.views} views")
        fitted = top
    else:
        model.trainable = True
        set_batch_norm(model, momentum=0.9, frozen=False)
        image = keras.Input(model.input_shape[1:], dtype="float32", name="pixels")
        fitted = keras.Model(image, model(build_augmentation(recipe, seed)(image)))
        x_val, views = val.pixels[..., None], train.pixels[None, ..., None]

    steps = math.ceil(len(train.y) / recipe.batch_size)
    fitted.compile(
        optimizer=build_optimizer(stage, steps),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=["accuracy"],
    )
    fitted.optimizer.build(fitted.trainable_variables)
    prepared_s = time.perf_counter() - started
    recorder = Recorder(model, fitted, stage, folder, steps, title, prepared_s)
    first_epoch = recorder.restore()
    if recorder.exhausted():
        return
    onehot = np.eye(n_classes, dtype="float32")
    weight = class_weights(train.y, n_classes)
    batches = Batches(views, onehot[train.y], weight, recipe.batch_size, seed, first_epoch)
    fitted.fit(
        batches,
        validation_data=(np.asarray(x_val, dtype="float32"), onehot[val.y]),
        epochs=stage.epochs,
        initial_epoch=first_epoch,
        shuffle=False,
        verbose=0,
        callbacks=[recorder] if frozen else [BatchNormStatistics(model, fitted, batches), recorder],
    )


def build_optimizer(stage: Stage, steps: int) -> keras.optimizers.Optimizer:
    """AdamW (Loshchilov & Hutter 2019), linear warm-up, then cosine to a hundredth of the peak."""
    total = max(1, stage.epochs * steps)
    warmup = min(int(stage.warmup * steps), total - 1)
    schedule = keras.optimizers.schedules.CosineDecay(
        initial_learning_rate=stage.learning_rate / 20,
        warmup_target=stage.learning_rate,
        warmup_steps=warmup,
        decay_steps=max(1, total - warmup),
        alpha=0.01,
    )
    optimizer = keras.optimizers.AdamW(schedule, weight_decay=stage.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer


def augmented_views(pixels: np.ndarray, recipe: Recipe, views: int, seed: int) -> np.ndarray:
    """(views, n, size, size) uint8: the images themselves, then views - 1 augmented copies."""
    augment = build_augmentation(recipe, seed)
    result = np.empty((views, *pixels.shape), dtype=np.uint8)
    result[0] = pixels
    for view in range(1, views):
        for start in range(0, len(pixels), 64):
            rows = slice(start, start + 64)
            images = np.asarray(pixels[rows], dtype="float32")[..., None]
            drawn = keras.ops.convert_to_numpy(augment(images, training=True))
            result[view, rows] = np.clip(np.rint(drawn[..., 0]), 0, 255)
    return result


def frozen_outputs(bottom: keras.Model, views: np.ndarray, folder: Path, what: str) -> np.ndarray:
    """Outputs of the frozen layers for every view, computed once: float16 (views, n, ...).

    Runs the exported layers in OpenVINO at f32, several times faster than Keras on a CPU; the
    answers are stored as float16.
    """
    file = folder / "frozen.xml"
    bottom.export(str(file), format="openvino", verbose=False)
    core = import_openvino().Core()
    compiled = core.compile_model(str(file), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    result = None
    count = views.shape[0] * views.shape[1]
    with progress(count, what, "image") as bar:
        for v, view in enumerate(views):
            for start in range(0, len(view), 32):
                images = np.asarray(view[start : start + 32], dtype="float32")[..., None]
                outputs = compiled(images)[0]
                if result is None:
                    result = np.empty((*views.shape[:2], *outputs.shape[1:]), dtype="float16")
                result[v, start : start + len(images)] = outputs
                bar.update(len(images))
    file.unlink()
    file.with_suffix(".bin").unlink()
    return result


class BatchNormStatistics(keras.callbacks.Callback):
    """Re-estimate batch norm's statistics before each validation, as means over whole batches.

    After few steps the moving averages lag behind the weights, and validation (so also the choice
    of the best epoch) would judge that lag (Wu & Johnson 2021, Rethinking "Batch" in BatchNorm,
    section 3.1: precise batch norm).
    """

    BATCHES = 10

    def __init__(self, model, fitted, batches: Batches):
        super().__init__()
        self.norms = [m for m in model.layers if isinstance(m, keras.layers.BatchNormalization)]
        self.fitted, self.batches = fitted, batches

    def on_test_begin(self, logs=None) -> None:
        if not self.norms:
            return
        usual = [norm.momentum for norm in self.norms]
        # The last batch may be small, so only full ones count alike.
        for index in range(max(1, min(self.BATCHES, len(self.batches) - 1))):
            for norm in self.norms:
                norm.momentum = index / (index + 1)  # a plain mean over the batches so far
            self.fitted(self.batches[index][0], training=True)
        for norm, momentum in zip(self.norms, usual, strict=True):
            norm.momentum = momentum


class Recorder(keras.callbacks.Callback):
    """Progress, history, best weights, early stopping and the state to go on from."""

    def __init__(
        self, model, fitted, stage: Stage, folder: Path, steps: int, title: str, prepared_s: float
    ):
        super().__init__()
        self.prepared_s = prepared_s  # the frozen part's outputs; counted in the next epoch's time
        self.whole, self.fitted, self.stage, self.folder = model, fitted, stage, folder
        self.steps, self.title = steps, title
        self.rows: list[dict] = []

    def restore(self) -> int:
        """Load the last finished epoch, if there is one; returns the epoch to go on with."""
        state = self.folder / "state.npz"
        if not state.exists():
            return 0
        epoch = _load_state(state, self._variables())
        history = pd.read_csv(self.folder / "history.csv")
        self.rows = history[history["epoch"] <= epoch].to_dict("records")
        return epoch

    def exhausted(self) -> bool:
        """Whether the stage had already come to its end."""
        return bool(self.rows) and (len(self.rows) >= self.stage.epochs or self._waited_long())

    def on_train_begin(self, logs=None) -> None:
        total = self.steps * self.stage.epochs
        self.bar = progress(total, f"{self.title}: {self.stage.name}", "step")
        self.bar.update(self.steps * len(self.rows))

    def on_epoch_begin(self, epoch, logs=None) -> None:
        self.started = time.perf_counter()

    def on_train_batch_end(self, batch, logs=None) -> None:
        self.bar.update(1)

    def on_epoch_end(self, epoch, logs=None) -> None:
        row = {
            "epoch": epoch + 1,
            "phase": self.stage.name,
            "loss": logs["loss"],
            "val_loss": logs["val_loss"],
            "accuracy": logs["accuracy"],
            "val_accuracy": logs["val_accuracy"],
            "lr": float(keras.ops.convert_to_numpy(self.fitted.optimizer.learning_rate)),
            "seconds": time.perf_counter() - self.started + self.prepared_s,
        }
        self.prepared_s = 0.0
        if not math.isfinite(row["loss"]):
            raise FloatingPointError(f"{self.title}: the loss is no longer a number.")
        self.rows.append(row)
        if self._best_epoch() == row["epoch"]:
            _save_state(self.folder / "best.npz", self.whole.variables, row["epoch"])
        write_csv(self.folder / "history.csv", pd.DataFrame(self.rows)[HISTORY_COLUMNS])
        _save_state(self.folder / "state.npz", self._variables(), row["epoch"])
        self.bar.set_postfix_str(
            f"loss {row['loss']:.3f}, val {row['val_loss']:.3f}, "
            f"val accuracy {row['val_accuracy']:.3f}"
        )
        if self._waited_long():
            self.model.stop_training = True

    def on_train_end(self, logs=None) -> None:
        self.bar.total = self.bar.n
        self.bar.close()

    def _best_epoch(self) -> int:
        return min(self.rows, key=lambda row: row["val_loss"])["epoch"]

    def _waited_long(self) -> bool:
        return len(self.rows) - self._best_epoch() >= self.stage.patience

    def _variables(self) -> list:
        # What is fitted has more than the model: the augmentation's random state.
        known = {id(variable) for variable in self.whole.variables}
        more = [variable for variable in self.fitted.variables if id(variable) not in known]
        return [*self.whole.variables, *more, *self.fitted.optimizer.variables]


def progress(total: int, what: str, unit: str) -> tqdm:
    """A progress bar with time left on stderr; rare lines where it is no terminal."""
    quiet = not sys.stderr.isatty()
    return tqdm(
        total=total, desc=what, unit=unit, file=sys.stderr, dynamic_ncols=True,
        mininterval=30 if quiet else 0.2, leave=True,
    )  # fmt: skip


def _save_state(path: Path, variables: list, epoch: int) -> None:
    arrays = {str(i): keras.ops.convert_to_numpy(v) for i, v in enumerate(variables)}
    temporary = path.with_name(f".{path.name}.tmp.npz")
    with open(temporary, "wb") as file:
        np.savez(file, epoch=np.int64(epoch), **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def _load_state(path: Path, variables: list) -> int:
    """Assign saved arrays to variables; returns the epoch they are of."""
    with np.load(path) as saved:
        for index, variable in enumerate(variables):
            variable.assign(saved[str(index)])
        return int(saved["epoch"])
