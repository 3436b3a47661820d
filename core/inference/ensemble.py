"""Predictions of several models about the same images.

The parts of an audit (blackout, perturbation, probe) run every model on altered images; here is how
that is done, so that no two parts can differ in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from core.errors import UserError
from core.inference.served_model import ServedModel, load_model
from core.runs.missing_weights import need_weights
from core.runs.run import Run

BATCH = 64  # images altered and predicted at once, so that memory stays flat


class AuditError(UserError):
    """An audit that cannot be made; the message is one sentence a person can act on."""


@dataclass(frozen=True)
class ModelGroup:
    """Models that predict together.

    models: name -> what is served (`predict(pixels)` -> Output, `input_size_px`); members: name of
    an ensemble -> its models, whose mean it is; titles: name -> name for people.
    """

    models: Mapping[str, ServedModel]
    members: Mapping[str, Sequence[str]] = field(default_factory=dict)
    titles: Mapping[str, str] = field(default_factory=dict)

    @property
    def names(self) -> list[str]:
        return [*self.models, *self.members]

    @property
    def sizes_px(self) -> list[int]:
        return sorted({model.input_size_px for model in self.models.values()})

    def title(self, name: str) -> str:
        return self.titles.get(name, name)

    def predict(
        self,
        pixels: Mapping[int, np.ndarray],
        alter: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Probabilities (n, C) float64 of every model about the same n images.

        pixels: input size -> uint8 (n, s, s); alter(images (k, s, s), their rows (k,)) -> what is
        shown in their place. It is called once for each size and batch, so that models of
        one size see the same pixels.
        """
        parts: dict[str, list[np.ndarray]] = {name: [] for name in self.models}
        for size in self.sizes_px:
            for start in range(0, len(pixels[size]), BATCH):
                images = np.asarray(pixels[size][start : start + BATCH])
                if alter is not None:
                    images = alter(images, np.arange(start, start + len(images)))
                for name, model in self.models.items():
                    if model.input_size_px == size:
                        parts[name].append(as_shares(model.predict(images).probabilities))
        y_prob = {name: np.concatenate(arrays) for name, arrays in parts.items()}
        for name, members in self.members.items():
            y_prob[name] = as_shares(np.mean([y_prob[m] for m in members], axis=0))
        return {name: y_prob[name] for name in self.names}


def open_models(run: Run) -> ModelGroup:
    """The models of a run at its precision and with its mirrored copies, ensembles as means.

    Those whose weights were not kept are no part of it (core.runs.missing_weights says so in
    words). Raises ArtifactError or InferenceError where none was kept, or a model's files are
    missing, changed or damaged.
    """
    need_weights(run)
    models = {name: load_model(run, name) for name in run.served}
    members = {name: run.members(name) for name in run.usable_models if run.members(name)}
    return ModelGroup(models, members, {name: run.title(name) for name in run.models})


def as_shares(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities (..., C) that sum to 1 in float64, whatever precision they were computed at."""
    values = np.asarray(probabilities, dtype=np.float64)
    return values / values.sum(axis=-1, keepdims=True)
