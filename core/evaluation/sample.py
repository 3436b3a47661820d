"""Images whose truth is known, and figures about them that share their draws."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from core.metrics.classification import check_predictions, compute_metrics, predicted_index
from core.metrics.intervals import bootstrap_intervals, draw_weights, patient_index

DRAWS = 2000


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
