"""What goes along with a fit: batch norm's statistics, averaged weights, checkpoints, history."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from core.artifacts import HISTORY_COLUMNS
from core.console import progress
from core.files import write_csv
from core.recipes import Stage


class WeightAverage(keras.callbacks.Callback):
    """Moving average of the weights, validated and kept in place of the weights themselves.

    It takes out the noise of the last steps (Polyak & Juditsky 1992; Tarvainen & Valpola 2017,
    Mean Teachers, section 2). While young it averages over what there is. Comes before
    BatchNormStatistics, which then estimates for the averaged weights.
    """

    def __init__(self, fitted, momentum: float):
        super().__init__()
        self.fitted, self.momentum, self.count = fitted, momentum, 0
        self.values: list[np.ndarray] = []
        self.own: list[np.ndarray] | None = None

    def on_train_batch_end(self, batch, logs=None) -> None:
        weights = [keras.ops.convert_to_numpy(v) for v in self.fitted.trainable_variables]
        if not self.values:
            self.values = [np.array(weight) for weight in weights]
        self.count += 1
        keep = min(self.momentum, (self.count - 1) / (self.count + 9))
        for value, weight in zip(self.values, weights, strict=True):
            value *= keep
            value += (1 - keep) * weight

    def on_test_begin(self, logs=None) -> None:
        """Put the average into the model, where it stays until take_out."""
        variables = self.fitted.trainable_variables
        self.own = [np.array(keras.ops.convert_to_numpy(v)) for v in variables]
        for variable, value in zip(variables, self.values, strict=True):
            variable.assign(value)

    def take_out(self) -> None:
        """Put back the weights that training goes on with."""
        for variable, value in zip(self.fitted.trainable_variables, self.own, strict=True):
            variable.assign(value)
        self.own = None

    def state(self) -> dict[str, np.ndarray]:
        """What restore needs, as named arrays."""
        arrays = {f"average{i}": value for i, value in enumerate(self.values)}
        return arrays | {"average_count": np.int64(self.count)}

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
        self,
        model,
        fitted,
        stage: Stage,
        folder: Path,
        steps: int,
        title: str,
        prepared_s: float,
        average: WeightAverage | None = None,
    ):
        super().__init__()
        self.average = average
        self.prepared_s = prepared_s  # the frozen part's outputs; counted in the next epoch's time
        self.whole, self.fitted, self.stage, self.folder = model, fitted, stage, folder
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
        self.prepared_s = 0.0
        if not math.isfinite(row["loss"]):
            raise FloatingPointError(f"{self.title}: the loss is no longer a number.")
        self.rows.append(row)
        if self._best_epoch() == row["epoch"]:
            _save_state(self.folder / "best.npz", self.whole.variables, row["epoch"])
        write_csv(self.folder / "history.csv", pd.DataFrame(self.rows)[HISTORY_COLUMNS])
        more = {}
        if self.average:
            self.average.take_out()
            more = self.average.state()
        _save_state(self.folder / "state.npz", self._variables(), row["epoch"], more)
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
        return len(self.rows) - self._best_epoch() >= self.stage.patience

    def _variables(self) -> list:
        # What is fitted has more than the model: the augmentation's random state.
        known = {id(variable) for variable in self.whole.variables}
        more = [variable for variable in self.fitted.variables if id(variable) not in known]
        return [*self.whole.variables, *more, *self.fitted.optimizer.variables]


def _save_state(path: Path, variables: list, epoch: int, more: dict | None = None) -> None:
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
