"""Made-up predictions of three classes for the tests of intervals and comparisons."""

from __future__ import annotations

import numpy as np

NAMES = ["covid", "normal", "pneumonia"]


def sample(n=60, n_patients=25, seed=0, skill=1.0, decimals=2):
    """Predictions of middling quality; rounded scores, so that ties are there."""
    rng = np.random.default_rng(seed)
    y_true = rng.integers(0, 3, n)
    y_true[:3] = [0, 1, 2]
    score = rng.normal(size=(n, 3))
    score[np.arange(n), y_true] += skill
    y_prob = np.round(np.exp(score), decimals) + 0.01
    groups = np.array([f"patient {number:03d}" for number in rng.integers(0, n_patients, n)])
    return y_true, y_prob / y_prob.sum(axis=1, keepdims=True), groups
