"""What a fit is fed with: images, class weights, and batches in an order that can be had again."""

from __future__ import annotations

import math
from dataclasses import dataclass

import keras
import numpy as np


@dataclass(frozen=True)
class Images:
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
