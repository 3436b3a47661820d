"""Which precision trains a run's models faster here, by timing a few steps of each in both.

bfloat16 halves what is moved and, where the processor calculates in it, doubles the speed of
convolutions; where it only emulates it, steps take longer. Neither the processor's name nor its
flags tell which (docs/performance.md), so it is measured.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np

from core.files import write_json
from core.models.architectures import build_model
from core.models.names import model_title
from core.models.recipes import Recipe, Stage
from core.timing import median_by_turns
from core.training.devices import clear_session
from core.training.fit import compile_stage, stage_models
from core.training.fused_batch_norm import fused_batch_norm

logger = logging.getLogger(__name__)

POLICIES = ("float32", "mixed_bfloat16")
PRECISION_FILE = "precision.json"
_SEED = 0


def choose_precision(
    recipes: Mapping[str, Recipe],
    n_classes: int,
    n_train: int,
    work: Path,
) -> dict[str, Any]:
    """The faster of POLICIES for all trainings of these recipes together.

    Returns {"precision": one of POLICIES, "seconds": {policy: of all steps together}}. It stays in
    `work`, so that a resumed training goes on in the same precision. n_train: number of training
    images. Every stage counts with its steps over all its epochs; folds would change nothing.
    """
    file = work / PRECISION_FILE
    if file.is_file():
        return json.loads(file.read_text())
    logger.info("Timing a few steps in float32 and in bfloat16 ...")
    totals = dict.fromkeys(POLICIES, 0.0)
    for name, recipe in recipes.items():
        for stage in recipe.stages:
            times = time_step(name, recipe, stage, n_classes)
            words = " against ".join(f"{1000 * times[policy]:,.0f} ms" for policy in POLICIES)
            logger.info(f"{model_title(name)}, {stage.name}: {words} a step.")
            steps = recipe.members * stage.epochs * math.ceil(n_train / recipe.batch_size)
            for policy in POLICIES:
                totals[policy] += steps * times[policy]
    faster = min(POLICIES, key=lambda policy: totals[policy])
    found = {"precision": faster, "seconds": totals}
    write_json(file, found)
    words = " against ".join(f"{totals[policy] / 60:,.1f} min" for policy in POLICIES)
    logger.info(f"All steps together: {words} in bfloat16; {faster} is used.")
    return found


def time_step(
    name: str, recipe: Recipe, stage: Stage, n_classes: int, rounds: int = 3
) -> dict[str, float]:
    """Median seconds of one training step of a stage under each of POLICIES, by turns.

    The model has random weights and the batch is noise: neither changes what a step costs.
    Keras' precision is left as it was; its session is cleared.
    """
    usual = keras.config.dtype_policy()
    clear_session()
    rng = np.random.default_rng(_SEED)
    y = np.eye(n_classes, dtype="float32")[rng.integers(0, n_classes, recipe.batch_size)]
    steps: list[Callable[[], object]] = []
    try:
        for policy in POLICIES:
            keras.config.set_dtype_policy(policy)
            model = build_model(name, recipe.image_size_px, n_classes, recipe.dropout)
            with fused_batch_norm(model):
                fitted = stage_models(model, recipe, stage, _SEED).fitted
                compile_stage(fitted, stage, recipe, steps=1)
                shape = (recipe.batch_size, *fitted.input_shape[1:])
                x = rng.uniform(0, 255, shape).astype("float32")
                fitted.train_on_batch(x, y)  # traced here, with fused batch norm
            steps.append(partial(fitted.train_on_batch, x, y))
    finally:
        keras.config.set_dtype_policy(usual)
    return dict(zip(POLICIES, median_by_turns(steps, rounds), strict=True))
