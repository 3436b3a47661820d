"""What goes along with a fit: batch norm's statistics, averaged weights, checkpoints, history."""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from core.console import progress
from core.files import write_csv
from core.models.recipes import Stage


@dataclass(frozen=True)
class StageModels:
    """What a stage fits of a model.

    below: the frozen layers whose outputs it gets, None where it gets images; saved: the model
    whose weights change. fitted is the same, after augmentation where there is some.
    """

    below: keras.Model | None
    fitted: keras.Model
    saved: keras.Model


class WeightAverage(keras.callbacks.Callback):
    """Moving average of the weights, validated and kept in place of the weights themselves.

    It takes out the noise of the last steps (Polyak & Juditsky 1992; Tarvainen & Valpola 2017,
    Mean Teachers, section 2). While young it averages over what there is. Comes before
    BatchNormStatistics, which then estimates for the averaged weights.
    """

    def __init__(self, fitted: keras.Model, momentum: float) -> None:
        super().__init__()
        self.set_model(fitted)
        self.momentum, self.count = momentum, 0
        self.values: list[np.ndarray] = []
        self.own: list[np.ndarray] = []

    def on_train_batch_end(self, batch, logs=None) -> None:
        # Within an epoch JAX keeps weights apart from variables until asked for self.model.
        weights = [keras.ops.convert_to_numpy(v) for v in self.model.trainable_variables]
        if not self.values:
            self.values = [np.array(weight) for weight in weights]
        self.count += 1
        keep = min(self.momentum, (self.count - 1) / (self.count + 9))
        for value, weight in zip(self.values, weights, strict=True):
            np.multiply(value, keep, out=value)
            np.add(value, (1 - keep) * weight, out=value)

    def on_test_begin(self, logs=None) -> None:
        """Put the average into the model, where it stays until take_out."""
        variables = self.model.trainable_variables
        self.own = [np.array(keras.ops.convert_to_numpy(v)) for v in variables]
        for variable, value in zip(variables, self.values, strict=True):
            variable.assign(value)

    def take_out(self) -> None:
        """Put back the weights that training goes on with."""
        for variable, value in zip(self.model.trainable_variables, self.own, strict=True):
            variable.assign(value)
        self.own = []

    def state(self) -> dict[str, np.ndarray]:
        """What restore needs, as named arrays."""
        arrays = {f"average{i}": value for i, value in enumerate(self.values)}
        return arrays | {"average_count": np.array(self.count, dtype=np.int64)}

    def restore(self, path: Path) -> None:
        with np.load(path) as saved:
            self.count = int(saved["average_count"])
            n = sum(name.startswith("average") for name in saved.files) - 1
            self.values = [saved[f"average{i}"] for i in range(n)]


class BatchNormStatistics(keras.callbacks.Callback):
    """Re-estimate batch norm's statistics before each validation, as means over whole batches.

    After few steps the moving averages lag behind the weights, and validation (so also the choice
    of the best epoch) would judge that lag (Wu & Johnson 2021, Rethinking "Batch" in BatchNorm,
    section 3.1: precise batch norm).
    """

    BATCHES = 10

    def __init__(self, model, fitted, batches):
        super().__init__()
        self.norms = [
            layer
            for layer in model.layers
            if isinstance(layer, keras.layers.BatchNormalization) and layer.trainable
        ]
        self.batches, self.as_trained = batches, _AsTrained(fitted)

    def on_test_begin(self, logs=None) -> None:
        if not self.norms:
            return
        variables = [v for norm in self.norms for v in (norm.moving_mean, norm.moving_variance)]
        usual = [norm.momentum for norm in self.norms]
        for norm in self.norms:
            norm.momentum = 0.0  # what a batch leaves behind is its own statistics
        sums: list = [0.0] * len(variables)
        # The last batch may be small, so only full ones count alike.
        n = max(1, min(self.BATCHES, len(self.batches) - 1))
        for index in range(n):
            self.as_trained.predict_on_batch(self.batches[index][0])
            values = (keras.ops.convert_to_numpy(v).astype("float64") for v in variables)
            sums = [total + value for total, value in zip(sums, values, strict=True)]
        for variable, total in zip(variables, sums, strict=True):
            variable.assign((total / n).astype("float32"))
        for norm, momentum in zip(self.norms, usual, strict=True):
            norm.momentum = momentum


class _AsTrained(keras.Model):
    """A model that runs as in training when it is asked to predict.

    So it is compiled; called directly, JAX would run it one small operation after the other.
    """

    def __init__(self, fitted: keras.Model):
        super().__init__(name="as_trained")
        self.fitted = fitted

    def call(self, images, training=None):
        return self.fitted(images, training=True)


class Recorder(keras.callbacks.Callback):
    """Progress, history, best weights, early stopping and the state to go on from."""

    def __init__(
        self,
        models: StageModels,
        stage: Stage,
        folder: Path,
        title: str,
        steps: int,
        prepared_s: float,
        average: WeightAverage | None = None,
    ) -> None:
        super().__init__()
        self.average = average
        self.prepared_s = prepared_s  # outputs of frozen layers; counted in the next epoch's time
        self.saved, self.fitted = models.saved, models.fitted
        self.stage, self.folder = stage, folder
        self.steps, self.title = steps, title
        self.rows: list[dict] = []

    def restore(self) -> int:
        """Load the last finished epoch, if there is one; returns the epoch to go on with."""
        state = self.folder / "state.npz"
        if not state.exists():
            return 0
        epoch = load_state(state, self._variables())
        if self.average:
            self.average.restore(state)
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
        row |= {name: float(value) for name, value in logs.items() if name not in row}
        self.prepared_s = 0.0
        if not math.isfinite(row["loss"]):
            raise FloatingPointError(f"{self.title}: the loss is no longer a number.")
        self.rows.append(row)
        if self._best_epoch() == row["epoch"]:
            save_state(self.folder / "best.npz", self.saved.variables, row["epoch"])
        write_csv(self.folder / "history.csv", pd.DataFrame(self.rows))
        more = {}
        if self.average:
            self.average.take_out()
            more = self.average.state()
        save_state(self.folder / "state.npz", self._variables(), row["epoch"], more)
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
        if self.stage.keep == "last":
            return self.rows[-1]["epoch"]
        return min(self.rows, key=lambda row: row["val_loss"])["epoch"]

    def _waited_long(self) -> bool:
        if self.stage.keep == "last":
            return False  # validation is only watched
        # As Keras' early stopping counts: a loss lower by less than min_delta ends no waiting.
        lowest, since = math.inf, 0
        for number, row in enumerate(self.rows, start=1):
            if row["val_loss"] < lowest - self.stage.min_delta:
                lowest, since = row["val_loss"], number
        return len(self.rows) - since >= self.stage.patience

    def _variables(self) -> list:
        # What is fitted has more than the model: the augmentation's random state.
        known = {id(variable) for variable in self.saved.variables}
        more = [variable for variable in self.fitted.variables if id(variable) not in known]
        return [*self.saved.variables, *more, *self.fitted.optimizer.variables]


def save_state(path: Path, variables: list, epoch: int, more: dict | None = None) -> None:
    """Write arrays of variables atomically, for load_state."""
    arrays = {str(i): keras.ops.convert_to_numpy(v) for i, v in enumerate(variables)}
    arrays |= {"epoch": np.int64(epoch)} | (more or {})
    temporary = path.with_name(f".{path.name}.tmp.npz")
    with open(temporary, "wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def load_state(path: Path, variables: list) -> int:
    """Assign saved arrays to variables; returns the epoch they are of."""
    with np.load(path) as saved:
        for index, variable in enumerate(variables):
            variable.assign(saved[str(index)])
        return int(saved["epoch"])
