"""What a fit is fed with: images, class weights, and batches in an order that can be had again.

Pixels and frozen outputs stay on the disk: a batch reads its own rows through the memory map, so
memory does not grow with the data set.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
import numpy as np

from core.imageio.pixel_cache import forget_array
from core.training.devices import fill_batch, validation_weight

_FORGET_BYTES = 64 * 2**20  # mapped by reading before the pages are given back
_AROUND_BYTES = 256 * 2**10  # more than an image: Linux maps the neighbours of a page that is read


@dataclass(frozen=True)
class TrainingImages:
    """What a model is fitted on.

    pixels uint8 (n, size, size); y int (n,), indices of classes; rows int (n,): where the images
    stand among those of a FrozenStore, None where there is none.
    """

    pixels: np.ndarray
    y: np.ndarray
    rows: np.ndarray | None = None


def class_weights(y: np.ndarray, n_classes: int) -> np.ndarray:
    """One weight an image, so that every class counts alike; mean 1."""
    counts = np.bincount(y, minlength=n_classes)
    return (len(y) / (np.count_nonzero(counts) * np.maximum(counts, 1)))[y].astype("float32")


class Batches(keras.utils.PyDataset):
    """Shuffled training batches; with views (k, m, ...) one view an image is drawn each epoch.

    rows int (n,): which of the m belong to the training (None: all, m = n); y_onehot (n, classes)
    and weight (n,) go with rows. views may be a memory map, of which nothing is copied but the
    batch that is asked for, as float32.

    The order depends on the seed and the epoch alone, so a resumed training goes on with the order
    that an uninterrupted one would have had. No image is dropped: the last batch may be smaller.
    """

    def __init__(self, views, y_onehot, weight, batch_size, seed, first_epoch=0, rows=None):
        super().__init__(workers=1, use_multiprocessing=False)
        self.views, self.y, self.weight = views, y_onehot, weight
        self.rows = np.arange(len(y_onehot)) if rows is None else np.asarray(rows)
        self.batch_size, self.seed, self.epoch = batch_size, seed, first_epoch
        self.reader = Reader(views)
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
        chosen = np.sort(self.order[index * self.batch_size : (index + 1) * self.batch_size])
        x = self.reader.read(self.view[chosen], self.rows[chosen])
        return fill_batch(x, self.y[chosen], self.weight[chosen])


class InOrder(keras.utils.PyDataset):
    """Batches of one view in the order of rows, for validation and prediction.

    views (k, m, ...) as in Batches; view: which of the k; rows int (n,): which of the m;
    y_onehot (n, classes).
    """

    def __init__(self, views, y_onehot, batch_size, rows=None, view=0):
        super().__init__(workers=1, use_multiprocessing=False)
        self.y, self.batch_size, self.view = y_onehot, batch_size, view
        self.weight = validation_weight(len(y_onehot), batch_size)
        self.rows = np.arange(len(y_onehot)) if rows is None else np.asarray(rows)
        self.reader = Reader(views)

    def __len__(self) -> int:
        return math.ceil(len(self.y) / self.batch_size)

    def __getitem__(self, index: int):
        chosen = slice(index * self.batch_size, (index + 1) * self.batch_size)
        rows = self.rows[chosen]
        x = self.reader.read(np.full(len(rows), self.view), rows)
        weight = np.full(len(rows), self.weight, dtype="float32")
        return fill_batch(x, self.y[chosen], weight, grow=False)


class Reader:
    """Reads images of an array (k, m, ...) as float32; what a memory map has read is let go of.

    Pages read through a map count as this process' memory until somebody else wants it. Given
    back now and then they stay in the system's cache of the file, and reading them again is
    cheap; so the memory that is seen is what is needed.
    """

    def __init__(self, array: np.ndarray) -> None:
        self.array, self.n_mapped = array, 0

    def read(self, views: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """float32 (n, ...): image rows[i] of view views[i]."""
        x = np.empty((len(rows), *self.array.shape[2:]), dtype="float32")
        for place, (view, row) in enumerate(zip(views, rows, strict=True)):
            x[place] = self.array[view, row]
        self.n_mapped += x.size * self.array.itemsize + len(rows) * _AROUND_BYTES
        if self.n_mapped > _FORGET_BYTES:
            forget_array(self.array)
            self.n_mapped = 0
        return x
