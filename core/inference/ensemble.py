"""Several models asked the same about the same images, and figures that share their draws.

The parts of an audit (blackout, perturbation, probe) ask every model about altered images; here is
how they are asked and how their answers are scored, so that no two parts can differ in that.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from core.errors import UserError
from core.metrics.classification import check_predictions, compute_metrics, predicted_index
from core.metrics.confidence import bootstrap_intervals, draw_weights, patient_index

DRAWS = 2000
BATCH = 64  # images altered and asked about at once, so that memory stays flat


class AuditError(UserError):
    """An audit that cannot be made; the message is one sentence a person can act on."""


@dataclass(frozen=True)
class ModelGroup:
    """Models that answer together.

    models: name -> what is served (`predict(pixels)` -> Output, `input_size_px`); members: name of
    an ensemble -> its models, whose mean it is; titles: name -> name for people.
    """

    models: Mapping[str, object]
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

    def ask(
        self,
        pixels: Mapping[int, np.ndarray],
        alter: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
    ) -> dict[str, np.ndarray]:
        """Probabilities (n, C) float64 of every model about the same n images.

        pixels: input size -> uint8 (n, s, s); alter(images (k, s, s), their rows (k,)) -> what is
        asked about in their place. It is called once for each size and batch, so that models of
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
        answers = {name: np.concatenate(arrays) for name, arrays in parts.items()}
        for name, members in self.members.items():
            answers[name] = as_shares(np.mean([answers[m] for m in members], axis=0))
        return {name: answers[name] for name in self.names}


def as_shares(probabilities: np.ndarray) -> np.ndarray:
    """Probabilities (..., C) that sum to 1 in float64, whatever precision they were computed at."""
    values = np.asarray(probabilities, dtype=np.float64)
    return values / values.sum(axis=-1, keepdims=True)


@dataclass(frozen=True)
class Sample:
    """Images whose truth is known, with the drawn patients that all intervals about them share.

    y_true (n,) class numbers; groups (n,) the patient of each image.
    """

    y_true: np.ndarray
    groups: np.ndarray
    class_names: list[str]
    seed: int = 0
    draws: int = field(default_factory=lambda: DRAWS)

    def estimate(self, y_prob: np.ndarray) -> dict[str, float | None]:
        """{accuracy, low, high, macro_f1, macro_f1_low, macro_f1_high} of answers (n, C)."""
        metrics = compute_metrics(self.y_true, y_prob, self.class_names)
        intervals = bootstrap_intervals(
            self.y_true, y_prob, self.groups, self.class_names, draws=self.draws, seed=self.seed
        )
        return as_estimate(metrics, intervals)

    def right(self, y_prob: np.ndarray) -> np.ndarray:
        """Whether each image is answered right: (n,) bool."""
        return predicted_index(check_predictions(self.y_true, y_prob, self.class_names)[1]) == (
            self.y_true
        )

    def drawn_shares(self, *marks: np.ndarray) -> np.ndarray:
        """Share of images marked (n,) in each draw of whole patients: (marks, draws).

        The patients drawn are those of `estimate`'s intervals, the same for every mark.
        """
        patient, n_patients = patient_index(self.groups, len(self.y_true))
        rows = [np.ones(len(patient)), *marks]
        sums = np.stack([np.bincount(patient, weights=row, minlength=n_patients) for row in rows])
        drawn = np.concatenate(
            [sums @ weights for weights in draw_weights(n_patients, self.draws, self.seed)], axis=1
        )
        return drawn[1:] / drawn[0]


def as_estimate(figures: Mapping, intervals: Mapping) -> dict[str, float | None]:
    """accuracy and macro-F1 of a metrics.json or a floor, each with its interval, in one row."""
    return {
        "accuracy": figures["accuracy"],
        "low": intervals["accuracy"]["low"],
        "high": intervals["accuracy"]["high"],
        "macro_f1": figures["macro_f1"],
        "macro_f1_low": intervals["macro_f1"]["low"],
        "macro_f1_high": intervals["macro_f1"]["high"],
    }
