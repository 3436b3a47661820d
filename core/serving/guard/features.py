"""Images as a guard sees them: features by a served model, and layouts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from core.console import progress
from core.datasets.folder import find_image
from core.errors import UserError
from core.imageio.decode import ImageError, read_image, resize_square
from core.inference.served_model import ServedModel
from core.serving.guard.detector import read_layout
from core.serving.guard.negatives import KINDS, Setting, Trial, TrialError

logger = logging.getLogger(__name__)

BATCH = 16


class GuardError(UserError):
    """A guard that cannot be fitted; the message is one sentence a person can act on."""


@dataclass(frozen=True)
class GuardInput:
    """Images as a guard sees them: features (n, D) and layouts (n, CELLS, CELLS)."""

    features: np.ndarray
    layouts: np.ndarray

    def take(self, rows: np.ndarray) -> GuardInput:
        return GuardInput(self.features[rows], self.layouts[rows])


def see_images(
    model: ServedModel, rows: pd.DataFrame, root: Path, what: str
) -> tuple[pd.DataFrame, GuardInput]:
    """The rows whose images can be read, and those images as the model sees them."""
    readable, parts, layouts = [], [], []
    squares: list[np.ndarray] = []

    def predict_batch() -> None:
        if squares:
            parts.append(model.predict(np.stack(squares)).features)
            squares.clear()

    with progress(len(rows), what, "image") as bar:
        for number, image_id in enumerate(rows["image_id"]):
            bar.update(1)
            try:
                pixels = read_image(find_image(root, image_id) or root).pixels
            except ImageError:
                continue
            readable.append(number)
            layouts.append(read_layout(pixels))
            squares.append(resize_square(pixels, model.input_size_px))
            if len(squares) == BATCH:
                predict_batch()
        predict_batch()
    if not readable:
        raise GuardError(f"None of the {len(rows)} images can be read; check {root}.")
    known = rows.iloc[readable].reset_index(drop=True)
    return known, GuardInput(np.concatenate(parts).astype(np.float64), np.stack(layouts))


def see_trials(model: ServedModel, trials: Sequence[Trial]) -> GuardInput:
    """Images of other things as the model sees them."""
    parts = []
    for start in range(0, len(trials), BATCH):
        some = trials[start : start + BATCH]
        squares = [resize_square(t.decoded.pixels, model.input_size_px) for t in some]
        parts.append(model.predict(np.stack(squares)).features)
    layouts = np.stack([read_layout(trial.decoded.pixels) for trial in trials])
    return GuardInput(np.concatenate(parts).astype(np.float64), layouts)


def read_negatives(
    model: ServedModel, setting: Setting, names: Sequence[str]
) -> dict[str, GuardInput]:
    """The kinds of images that a guard is chosen on, as far as they are here."""
    inputs = {}
    for name in names:
        try:
            trials = list(KINDS[name].make(setting))
        except TrialError as error:
            logger.info(f"{KINDS[name].title}: not looked at when choosing, {error}.")
            continue
        if trials:
            inputs[name] = see_trials(model, trials)
    return inputs
