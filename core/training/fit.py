"""Fit one model stage by stage: batches, checkpoints, early stopping, progress.

State lives in files, so that a killed training goes on from its last finished epoch: every epoch
ends with an atomically written state (weights and optimizer), the best weights so far and a row
of history. Stopping and "best" are decided from the history alone.
"""

from __future__ import annotations

import json
import math
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from core.models.architectures import set_batch_norm, split_model
from core.models.recipes import Recipe, Stage
from core.training.augmentation import build_augmentation
from core.training.callbacks import (
    BatchNormStatistics,
    Recorder,
    StageModels,
    WeightAverage,
    load_state,
)
from core.training.data_loader import Batches, InOrder, TrainingImages, class_weights
from core.training.devices import Once
from core.training.feature_cache import FrozenStore
from core.training.fused_batch_norm import fused_batch_norm
from core.training.logistic import fit_logistic
from core.training.lr_finder import search_rate

RATE_FILE = "rate.json"
_VAL_BATCH = 32


@dataclass(frozen=True)
class FitTask:
    """What a model is fitted on, from which seed, and what it is called meanwhile.

    store: frozen outputs of a set of images that train.rows and val.rows point into; None makes
    one of these images. fresh: the layers that start from random weights in a network of which
    others do not.
    """

    train: TrainingImages
    val: TrainingImages
    n_classes: int
    seed: int
    title: str
    store: FrozenStore | None = None
    fresh: frozenset[str] = frozenset()


def fit_model(model: keras.Model, recipe: Recipe, task: FitTask, work_dir: Path) -> pd.DataFrame:
    """Train `model` in place through all stages; returns the history (HISTORY_COLUMNS).

    Stages already finished in `work_dir` are loaded instead of trained again.
    """
    task = _with_store(task, recipe, work_dir)
    histories, offset = [], 0
    for index, stage in enumerate(recipe.stages):
        folder = work_dir / f"stage{index}"
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "done").exists():
            with fused_batch_norm(model):
                _fit_stage(model, stage, recipe, task, folder)
            (folder / "done").touch()
            (folder / "state.npz").unlink(missing_ok=True)
        saved = split_model(model, stage.cut)[1] if stage.cut else model
        load_state(folder / "best.npz", saved.variables)
        history = pd.read_csv(folder / "history.csv")
        history["epoch"] += offset
        offset = int(history["epoch"].max())
        histories.append(history)
    return pd.concat(histories, ignore_index=True)


def _with_store(task: FitTask, recipe: Recipe, work_dir: Path) -> FitTask:
    if task.store is not None:
        return task
    train, val, n = task.train, task.val, len(task.train.y)
    pixels = np.concatenate([train.pixels, val.pixels])
    return replace(
        task,
        train=replace(train, rows=np.arange(n)),
        val=replace(val, rows=n + np.arange(len(val.y))),
        store=FrozenStore(pixels, work_dir / "frozen", recipe, task.seed, task.title),
    )


def _fit_stage(
    model: keras.Model, stage: Stage, recipe: Recipe, task: FitTask, folder: Path
) -> None:
    started = time.perf_counter()
    models = stage_models(model, recipe, stage, task.seed, task.fresh)
    fitted, train, val, store = models.fitted, task.train, task.val, task.store
    assert store is not None and train.rows is not None and val.rows is not None  # _with_store
    if models.below is not None:
        views = store.outputs(models.below, stage, train.rows, val.rows)
    else:
        views = store.pixels[None, ..., None]

    onehot = np.eye(task.n_classes, dtype="float32")
    weight = np.ones(len(train.y), dtype="float32")
    if recipe.class_weights:
        weight = class_weights(train.y, task.n_classes)
    if stage.solver == "logistic":
        seen = np.concatenate([np.asarray(view[train.rows], "float32") for view in views])
        y, weight = (np.tile(values, len(views)) for values in (train.y, weight))
        checked = np.asarray(views[0, val.rows], "float32"), val.y
        fit_logistic(fitted, (seen, y), checked, weight, folder, task.title, task.seed)
        return
    # Read from the disk by row, since memory must not grow with the data set.
    make_batches = partial(
        Batches, views, onehot[train.y], weight, recipe.batch_size, task.seed, rows=train.rows
    )
    stage = _with_found_rate(fitted, stage, recipe, make_batches(), folder)
    steps = math.ceil(len(train.y) / recipe.batch_size)
    compile_stage(fitted, stage, recipe, steps)
    prepared_s = time.perf_counter() - started
    average = WeightAverage(fitted, stage.average) if stage.average else None
    recorder = Recorder(models, stage, folder, task.title, steps, prepared_s, average)
    first_epoch = recorder.restore()
    if recorder.exhausted():
        return
    batches = make_batches(first_epoch=first_epoch)
    callbacks: list = [average] if average else []
    callbacks.append(BatchNormStatistics(models.saved, fitted, batches))
    fitted.fit(
        batches,
        validation_data=InOrder(views, onehot[val.y], _VAL_BATCH, rows=val.rows),
        epochs=stage.epochs,
        initial_epoch=first_epoch,
        shuffle=False,
        verbose=0,
        callbacks=[*callbacks, recorder],
    )


def stage_models(
    model: keras.Model,
    recipe: Recipe,
    stage: Stage,
    seed: int,
    fresh: frozenset[str] = frozenset(),
) -> StageModels:
    """Freeze and free the layers of `model` for a stage; batch norm is set for few steps."""
    if stage.cut is None:
        model.trainable = True
        set_batch_norm(model, momentum=0.9, frozen=False)
        fitted = _with_augmentation(model, recipe, seed) if stage.augment else model
        return StageModels(None, fitted, model)
    below, top = split_model(model, stage.cut)
    # Batch norm that was learned stays in inference mode: a few hundred steps cannot re-estimate
    # it. Of fresh layers there is nothing to keep.
    set_batch_norm(model, frozen=True)
    set_batch_norm(top, momentum=0.9, frozen=False, only=fresh)
    for layer in top.layers:
        if not isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = True
    return StageModels(below, top, top)


def _with_augmentation(model: keras.Model, recipe: Recipe, seed: int) -> keras.Model:
    image = keras.Input(model.input_shape[1:], dtype="float32", name="pixels")
    return keras.Model(image, model(build_augmentation(recipe, seed)(image)))


def compile_stage(fitted: keras.Model, stage: Stage, recipe: Recipe, steps: int) -> None:
    """Optimizer, loss and metrics of a stage that has `steps` steps an epoch."""
    tracked = {"precision": keras.metrics.Precision, "recall": keras.metrics.Recall}
    fitted.compile(
        optimizer=build_optimizer(stage, steps),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        # Not weighted: Once counts every image alike, and leaves out rows that fill a batch.
        weighted_metrics=[
            Once(keras.metrics.CategoricalAccuracy(name="accuracy")),
            *(Once(tracked[name](name=name)) for name in recipe.track),
        ],
    )
    fitted.optimizer.build(fitted.trainable_variables)


def _with_found_rate(fitted, stage: Stage, recipe: Recipe, batches: Batches, folder: Path) -> Stage:
    """The stage with the rate that a search found, now or before an interruption."""
    if not stage.find_rate:
        return stage
    file = folder / RATE_FILE
    if file.exists():
        found = json.loads(file.read_text())["learning_rate"]
    else:
        # A rate that is set from outside needs an optimizer without a schedule.
        compile_stage(fitted, replace(stage, schedule="constant"), recipe, len(batches))
        found = search_rate(fitted, batches, file).learning_rate
    return replace(stage, learning_rate=found)


def build_optimizer(stage: Stage, steps: int) -> keras.optimizers.Optimizer:
    """AdamW (Loshchilov & Hutter 2019) or Adam, with the stage's schedule over `steps` an epoch.

    "cosine": linear warm-up, then a cosine to a hundredth of the peak.
    """
    rate: float | keras.optimizers.schedules.LearningRateSchedule = stage.learning_rate
    if stage.schedule == "cosine":
        total = max(1, stage.epochs * steps)
        warmup = min(int(stage.warmup * steps), total - 1)
        rate = keras.optimizers.schedules.CosineDecay(
            initial_learning_rate=stage.learning_rate / 20,
            warmup_target=stage.learning_rate,
            warmup_steps=warmup,
            decay_steps=max(1, total - warmup),
            alpha=0.01,
        )
    if stage.optimizer == "adam":
        return keras.optimizers.Adam(rate)
    optimizer = keras.optimizers.AdamW(rate, weight_decay=stage.weight_decay)
    optimizer.exclude_from_weight_decay(var_names=["bias", "gamma", "beta"])
    return optimizer
