"""How much of the class weights' effect is really in a model's probabilities.

Training with balancing weights would, at its best fit, act as if every class were equally common,
which is taken out by multiplying with the classes' shares
(core.metrics.calibration.take_out_weights). A network that separates its training images nearly
perfectly is hardly moved by weights (Byrd & Lipton 2019, "What is the effect of importance
weighting in deep learning?", section 4), and taking out what is not there would spoil its
probabilities. So the effect is measured.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.special import log_softmax

from core.metrics.calibration import COLDEST, HOTTEST, SMALLEST


def measure_weights_effect(
    y_true: np.ndarray, y_prob: np.ndarray, prior: Mapping[str, float], class_names: Sequence[str]
) -> float:
    """The share of the weights' effect that is there, 0 to 1: 0 none, 1 as theory has it.

    y_true (n,), y_prob (n, C): predictions on images the model was not trained on; prior: class ->
    its share in the training part. It is the s that, with the temperature that suits it best,
    gives softmax((log p + s log prior) / T) the smallest log loss.
    """
    logs = np.log(np.maximum(np.asarray(y_prob, dtype=np.float64), SMALLEST))
    shares = np.log(np.maximum([prior[name] for name in class_names], SMALLEST))
    rows = np.arange(len(logs))

    def loss(values: np.ndarray) -> tuple[float, np.ndarray]:
        effect, inverse = values
        moved = logs + effect * shares
        found = log_softmax(inverse * moved, axis=1)
        expected = np.exp(found)
        slope_inverse = (expected * moved).sum(axis=1) - moved[rows, y_true]
        slope_effect = inverse * (expected @ shares - shares[y_true])
        slopes = np.array([slope_effect.mean(), slope_inverse.mean()])
        return float(-found[rows, y_true].mean()), slopes

    bounds = [(0.0, 1.0), (1 / HOTTEST, 1 / COLDEST)]
    starts = [(0.0, 1.0), (1.0, 1.0)]  # the loss is not convex in both at once
    found = [minimize(loss, x0, jac=True, method="L-BFGS-B", bounds=bounds) for x0 in starts]
    return float(min(found, key=lambda result: result.fun).x[0])


def effective_prior(prior: Mapping[str, float], effect: float) -> dict[str, float]:
    """The shares to multiply with where only `effect` (0 to 1) of the weights' effect is there."""
    raised = {name: share**effect if share > 0 else 0.0 for name, share in prior.items()}
    total = sum(raised.values())
    return {name: value / total for name, value in raised.items()}
