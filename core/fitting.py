"""Fit one model stage by stage: batches, checkpoints, early stopping, progress.

State lives in files, so that a killed training goes on from its last finished epoch: every epoch
ends with an atomically written state (weights and optimizer), the best weights so far and a row
of history. Stopping and "best" are decided from the history alone.
"""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from core.augmentation import build_augmentation
from core.batches import Batches, Images, class_weights
from core.callbacks import BatchNormStatistics, Recorder, WeightAverage, load_state
from core.frozen import FrozenStore
from core.models import set_batch_norm, split_model
from core.recipes import Recipe, Stage


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
    store: FrozenStore | None = None,
) -> pd.DataFrame:
    """Train `model` in place through all stages; returns the history (HISTORY_COLUMNS).

    Stages already finished in `work_dir` are loaded instead of trained again. store: frozen
    outputs of a set of images that train.rows and val.rows point into; None makes one of these.
    """
    if store is None:
        n = len(train.y)
        train, val = replace(train, rows=np.arange(n)), replace(val, rows=n + np.arange(len(val.y)))
        pixels = np.concatenate([train.pixels, val.pixels])
        store = FrozenStore(pixels, work_dir / "frozen", recipe, seed, title)
    histories, offset = [], 0
    for index, stage in enumerate(recipe.stages):
        folder = work_dir / f"stage{index}"
        folder.mkdir(parents=True, exist_ok=True)
        if not (folder / "done").exists():
            _fit_stage(model, stage, recipe, train, val, n_classes, folder, seed, title, store)
            load_state(folder / "best.npz", model.variables)
            (folder / "done").touch()
            (folder / "state.npz").unlink(missing_ok=True)
        else:
            load_state(folder / "best.npz", model.variables)
        history = pd.read_csv(folder / "history.csv")
        history["epoch"] += offset
        offset = int(history["epoch"].max())
        histories.append(history)
    return pd.concat(histories, ignore_index=True)


def _fit_stage(model, stage, recipe, train, val, n_classes, folder, seed, title, store) -> None:
    started = time.perf_counter()
    frozen = stage.cut is not None
    if frozen:
        # Batch norm stays in inference mode: a few hundred steps cannot re-estimate it.
        set_batch_norm(model, frozen=True)
        bottom, top = split_model(model, stage.cut)
        for layer in top.layers:
            if not isinstance(layer, keras.layers.BatchNormalization):
                layer.trainable = True
        outputs = store.outputs(bottom, stage)
        # In memory, since every epoch reads them all in another order.
        x_val, views = outputs[0, val.rows], outputs[:, train.rows]
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
    average = WeightAverage(fitted, stage.average) if stage.average else None
    recorder = Recorder(model, fitted, stage, folder, steps, title, prepared_s, average)
    first_epoch = recorder.restore()
    if recorder.exhausted():
        return
    onehot = np.eye(n_classes, dtype="float32")
    weight = class_weights(train.y, n_classes)
    batches = Batches(views, onehot[train.y], weight, recipe.batch_size, seed, first_epoch)
    callbacks: list = [average] if average else []
    if not frozen:
        callbacks.append(BatchNormStatistics(model, fitted, batches))
    fitted.fit(
        batches,
        validation_data=(np.asarray(x_val, dtype="float32"), onehot[val.y]),
        epochs=stage.epochs,
        initial_epoch=first_epoch,
        shuffle=False,
        verbose=0,
        callbacks=[*callbacks, recorder],
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
