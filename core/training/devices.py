"""On what a training runs: CPU or GPUs, one or several, and in which precision.

Several devices: `keras.distribution.DataParallel`, each with a part of every batch and a copy of
the weights. Keras 3.15 distributes on the JAX backend only; with TensorFlow one GPU is used.
Precision: `mixed_bfloat16` on a GPU. Weights, loss and probabilities stay float32, and bfloat16
has float32's range, so that no loss scaling is needed. GPUs made before 2020 only emulate it
(`--mixed off` is for them), and so do some CPUs, others gain by it (docs/performance.md):
`--mixed measure` finds out (core.training.mixed_precision).
"""

from __future__ import annotations

import logging
from typing import Any

import keras
import numpy as np

from core.config import ConfigError

logger = logging.getLogger(__name__)

MIXED = ("auto", "on", "off")


def prepare_devices(mixed: str = "auto") -> dict[str, Any]:
    """Set Keras' distribution and precision for the trainings to come; returns what was chosen.

    mixed: "auto" (on a GPU only), "on" or "off"; "measure" is for core.training.mixed_precision to
    answer with one of these. The answer is run.json's `devices`: backend,
    kind ("cpu", "gpu"), n (how many are used), distribution ("none", "data parallel") and
    precision ("float32", "mixed_bfloat16").

    Raises:
        ConfigError: another value of `mixed`.
    """
    if mixed not in MIXED:
        raise ConfigError(f"--mixed must be one of {', '.join(MIXED)}. Received: {mixed!r}.")
    backend, names = keras.backend.backend(), keras.distribution.list_devices()
    kind, n = names[0].split(":")[0], len(names)
    keras.distribution.set_distribution(None)
    if n > 1 and backend == "jax":
        keras.distribution.set_distribution(keras.distribution.DataParallel(devices=names))
    elif n > 1:
        logger.warning(
            f"{n} devices are there, one is used: Keras distributes with KERAS_BACKEND=jax only."
        )
        n = 1
    on = mixed == "on" or (mixed == "auto" and kind != "cpu")
    precision = "mixed_bfloat16" if on else "float32"
    keras.config.set_dtype_policy(precision)
    devices = {
        "backend": backend,
        "kind": kind,
        "n": n,
        "distribution": "data parallel" if n > 1 else "none",
        "precision": precision,
    }
    logger.info(describe_devices(devices))
    return devices


def describe_devices(devices: dict[str, Any]) -> str:
    """One sentence on what prepare_devices chose."""
    many = f"{devices['n']} {devices['kind'].upper()}{'s' if devices['n'] > 1 else ''}"
    how = " side by side, each with a part of every batch" if devices["n"] > 1 else ""
    mixed = devices["precision"] != "float32"
    what = "bfloat16 (weights, loss and output in float32)" if mixed else "float32"
    return f"Training on {many}{how}, {devices['backend']}, in {what}."


def list_gpus() -> list[str]:
    """Names of the GPUs that the backend sees; empty where there are none."""
    # Asked for GPUs by name, JAX raises where there are none.
    return [name for name in keras.distribution.list_devices() if name.startswith("gpu")]


def clear_session() -> None:
    """Keras' clear_session, after which distribution and precision are what they were.

    Keras keeps both where it keeps the names of layers, and would forget them together.
    """
    policy, distribution = keras.config.dtype_policy(), keras.distribution.distribution()
    keras.utils.clear_session()
    keras.config.set_dtype_policy(policy)
    keras.distribution.set_distribution(distribution)


def count_replicas() -> int:
    """Into how many parts every batch is split."""
    distribution = keras.distribution.distribution()
    return 1 if distribution is None else distribution.num_model_replicas


def fill_batch(x: np.ndarray, y: np.ndarray, weight: np.ndarray, *, grow: bool = True) -> tuple:
    """(x, y, weight) with a length that the devices divide; nothing is dropped.

    Keras splits a batch evenly or not at all. What is missing is filled with the batch's own first
    rows at weight 0. With grow the other weights grow by the same factor as the batch, so that its
    mean loss and the gradient are those of the batch that came; batch norm sees some rows twice,
    and the mean over an epoch that Keras shows counts that batch a little more.
    """
    n, length = len(y), even_length(len(y))
    if n == length:
        return x, y, weight
    rows = np.arange(length) % n
    filled = weight[rows] * np.float32(length / n if grow else 1)
    filled[n:] = 0.0
    return x[rows], y[rows], filled


def even_length(n: int) -> int:
    """The next length of a batch that the devices divide."""
    return n + -n % count_replicas()


def validation_weight(n: int, batch_size: int) -> float:
    """The weight of n rows in filled batches (grow=False) with which their mean loss is exact.

    Keras divides the sum over an epoch by the number of rows, those that only fill among them.
    """
    full, rest = divmod(n, batch_size)
    return (full * even_length(batch_size) + even_length(rest)) / n


class Once(keras.metrics.Metric):
    """Another metric, over every row with a weight above 0 alike: rows that only fill are left out.

    Goes into `weighted_metrics`; without weights, or with all above 0, it is the other metric.
    """

    def __init__(self, metric: keras.metrics.Metric):
        super().__init__(name=metric.name)
        self.metric = metric

    def update_state(self, y_true, y_pred, sample_weight=None) -> None:
        """As the other metric's."""
        if sample_weight is not None:
            sample_weight = keras.ops.cast(sample_weight > 0, "float32")
        self.metric.update_state(y_true, y_pred, sample_weight=sample_weight)

    def result(self):
        """The other metric's."""
        return self.metric.result()

    def reset_state(self) -> None:
        """Begin anew."""
        self.metric.reset_state()
