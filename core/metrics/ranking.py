"""One class against the rest at every threshold, for many weightings of the patients at once.

The images are counted by score and patient, so that the images found and the false alarms at each
threshold, under the weights of a draw, are one sparse product and a running sum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from core.metrics.classification import divide

# Scores finer than this are read in steps, for positives and negatives each: exact up to so many
# images of a side, and beyond it no step holds more than 1/2048 of either.
STEPS = 2048


@dataclass(frozen=True)
class ScoreSteps:
    """Images of one class and of the rest by step of the score, falling, and by patient.

    counts (2 * steps, n_patients): positives of each step, then negatives; won (steps, 1): the
    share of a step's own pairs that a positive wins, 1/2 where all scores in a step are equal.
    """

    counts: csr_array
    won: np.ndarray

    @property
    def n_steps(self) -> int:
        return len(self.won)

    def split(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weighted positives and negatives of each step, (steps, rows) each."""
        both = self.counts @ weights
        return both[: self.n_steps], both[self.n_steps :]


def score_steps(
    is_positive: np.ndarray,
    score: np.ndarray,
    patient: np.ndarray,
    n_patients: int,
    most: int = STEPS,
) -> ScoreSteps:
    """Count the images of one class against the rest; all three arrays are (n,)."""
    sides = (score[is_positive], score[~is_positive])
    edges = np.unique(np.concatenate([_thresholds(side, most) for side in sides]))
    # An image belongs to the highest edge that its score reaches.
    step = len(edges) - np.searchsorted(edges, score, side="right")
    n_steps = len(edges)
    row = step + np.where(is_positive, 0, n_steps)
    ones = np.ones(len(score))
    counts = csr_array((ones, (row, patient)), shape=(2 * n_steps, n_patients))
    return ScoreSteps(counts, _share_won(is_positive, score, step, n_steps))


def _thresholds(score: np.ndarray, most: int) -> np.ndarray:
    """All distinct scores, or `most` of them with about as many images between any two."""
    distinct = np.unique(score)
    if len(distinct) <= most:
        return distinct
    places = np.linspace(0, len(score) - 1, most).astype(np.int64)
    return np.sort(score)[places]


def _share_won(
    is_positive: np.ndarray, score: np.ndarray, step: np.ndarray, n_steps: int
) -> np.ndarray:
    """(steps, 1): pairs that a positive wins of all pairs within a step, ties counted half."""
    positive, negative = score[is_positive], np.sort(score[~is_positive])
    wins = np.searchsorted(negative, positive, side="left")
    wins = (wins + np.searchsorted(negative, positive, side="right")) / 2
    in_step = np.bincount(step[is_positive], minlength=n_steps)
    negatives = np.bincount(step[~is_positive], minlength=n_steps)
    lower = len(negative) - np.cumsum(negatives)
    wins = np.bincount(step[is_positive], weights=wins, minlength=n_steps) - in_step * lower
    pairs = in_step * negatives
    return divide(wins, pairs, otherwise=0.5)[:, None]


def weighted_auc(positive: np.ndarray, negative: np.ndarray, won: np.ndarray) -> np.ndarray:
    """AUC (rows,) of ScoreSteps.split's two arrays; NaN where a side was not drawn."""
    total = negative.sum(axis=0)
    lower = total - np.cumsum(negative, axis=0)
    wins = np.einsum("ij,ij->j", positive, lower + won * negative)
    pairs = positive.sum(axis=0) * total
    return divide(wins, pairs, otherwise=np.nan)
