"""Drawn phantoms that models have never seen, and what the models say and show of them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from core.console import progress
from core.datasets.phantom.generate import make_phantom
from core.evaluation.heatmaps.pointing_game import LesionTarget, prepare_target
from core.imageio.decode import resize_square
from core.inference.class_activation import (
    MEAN_OF_MEMBERS,
    class_evidence,
    class_heat,
    mean_heat,
    model_maps,
)
from core.inference.served_model import ServedModel
from core.runs.run import Run

BATCH = 32


@dataclass(frozen=True)
class Drawn:
    """Phantoms of a run's classes: label and patient of each, pixels by size, targets of lesions.

    pixels: input size -> uint8 (n, s, s); targets: None for a phantom without a lesion.
    """

    labels: list[str]
    patients: list[int]
    pixels: dict[int, np.ndarray]
    targets: list[LesionTarget | None]


def _no_evidence(_i: int, _k: int) -> np.ndarray:
    raise TypeError("a mean of models has no evidence of its own")


@dataclass(frozen=True)
class Asked:
    """One model's answers: probabilities (n, C), heat(i, k) of phantom i and class k (h, w).

    evidence(i, k): the same with what speaks against the class; not for a mean of models.
    """

    probabilities: np.ndarray
    heat: Callable[[int, int], np.ndarray]
    method: str
    evidence: Callable[[int, int], np.ndarray] = _no_evidence


def draw_phantoms(labels: Sequence[str], per_class: int, size_px: int, sizes_px: set[int]) -> Drawn:
    """A phantom of another patient each, none of whom is in the phantom data set."""
    numbers = [(label, number) for label in labels for number in range(per_class)]
    pixels = {size: np.empty((len(numbers), size, size), np.uint8) for size in sizes_px}
    patients, targets = [], []
    with progress(len(numbers), "Drawing phantoms", "phantom") as bar:
        for row, (label, number) in enumerate(numbers):
            key = f"maps/{label}/{number}".encode()
            patients.append(int.from_bytes(hashlib.sha256(key).digest()[:4], "big"))
            phantom = make_phantom(label, 0, size_px, patients[-1])
            for size in sizes_px:
                pixels[size][row] = resize_square(phantom.pixels, size)
            lesion = phantom.mask.any()
            targets.append(prepare_target(phantom.mask, phantom.lungs) if lesion else None)
            bar.update(1)
    return Drawn([label for label, _ in numbers], patients, pixels, targets)


def predict_all(run: Run, models: dict[str, ServedModel], drawn: Drawn) -> dict[str, Asked]:
    """Every model of the run asked about the phantoms, ensembles as means of their members."""
    rows = np.arange(len(drawn.labels))
    with progress(len(models) * len(rows), "Asking the models", "phantom") as bar:
        asked = {
            name: predict_with_model(model, drawn, rows, bar.update)
            for name, model in models.items()
        }
    for name in run.usable_models:
        members = [asked[member] for member in run.members(name)]
        if members:
            asked[name] = _mean_of(members)
    return asked


def predict_with_model(
    model: ServedModel, drawn: Drawn, rows: np.ndarray, tick: Callable[[int], object]
) -> Asked:
    """A model's answers and maps of some phantoms; heat(i, k) counts within `rows`."""
    shares, values, method = [], [], ""
    for start in range(0, len(rows), BATCH):
        pixels = drawn.pixels[model.input_size_px][rows[start : start + BATCH]]
        output = model.predict(pixels)
        shares.append(output.probabilities)
        for row in range(len(pixels)):
            maps = model_maps(model, pixels[row], output, row)
            values.append(maps.values)
            method = maps.method
        tick(len(pixels))
    return Asked(
        np.concatenate(shares),
        lambda i, k: class_heat(values[i], k),
        method,
        lambda i, k: class_evidence(values[i], k),
    )


def _mean_of(members: list[Asked]) -> Asked:
    def heat(i: int, k: int) -> np.ndarray:
        return mean_heat([member.heat(i, k) for member in members])

    probabilities = np.mean([member.probabilities for member in members], axis=0)
    return Asked(probabilities, heat, MEAN_OF_MEMBERS)
