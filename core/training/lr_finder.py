"""Learning-rate search: a short training whose rate grows from step to step.

The range test of Smith 2017 (Cyclical Learning Rates for Training Neural Networks, section 3.3),
with the rate growing geometrically and the loss smoothed as in Smith 2018 (A Disciplined Approach
to Neural Network Hyper-Parameters, section 4). Training images only; validation is not asked.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from pathlib import Path

import keras
import numpy as np

from core.files import write_json

LOWEST, HIGHEST, STEPS = 1e-5, 1.0, 100
SMOOTHING = 0.9
DIVERGED = 1.5  # times the lowest smoothed loss: nothing is to be learned from going on
DIVISOR = 10.0  # from the rate with the lowest loss to one that is safe for a whole training
LEARNED = 0.98  # of the first loss: where no rate gets below that, the curve is only noise


@dataclass(frozen=True)
class RateSearch:
    """What a search found: learning_rate, and the curve it was read from (steps,) each.

    found: False where the curve said nothing and the rate is the one that was there before.
    """

    learning_rate: float
    found: bool
    rates: tuple[float, ...]
    losses: tuple[float, ...]


def search_rate(model: keras.Model, batches, file: Path) -> RateSearch:
    """Search with a compiled model, which afterwards is as it was; kept in `file` (JSON).

    model: its optimizer has a plain rate and no schedule. batches: a keras.utils.PyDataset of
    (x, y, weight), read in its order and again from the start.
    """
    before = [np.array(keras.ops.convert_to_numpy(v)) for v in _variables(model)]
    usual = float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))
    rates, losses, smooth = [], [], 0.0
    for step, rate in enumerate(np.geomspace(LOWEST, HIGHEST, STEPS)):
        model.optimizer.learning_rate = float(rate)
        x, y, weight = batches[step % len(batches)]
        # Keras answers with the running mean since the metrics were reset: one step's loss.
        model.reset_metrics()
        loss = float(model.train_on_batch(x, y, sample_weight=weight, return_dict=True)["loss"])
        if not math.isfinite(loss):
            break
        smooth = SMOOTHING * smooth + (1 - SMOOTHING) * loss
        rates.append(float(rate))
        losses.append(smooth / (1 - SMOOTHING ** (step + 1)))
        if losses[-1] > DIVERGED * min(losses):
            break
    model.optimizer.learning_rate = usual
    for variable, value in zip(_variables(model), before, strict=True):
        variable.assign(value)
    model.reset_metrics()
    picked = pick_rate(rates, losses)
    rate = usual if picked is None else picked
    result = RateSearch(rate, picked is not None, tuple(rates), tuple(losses))
    write_json(file, asdict(result))
    return result


def pick_rate(rates: list[float], losses: list[float]) -> float | None:
    """A tenth of the rate at which the smoothed loss was lowest; None where it hardly fell."""
    if not rates or min(losses) > LEARNED * losses[0]:
        return None
    return rates[int(np.argmin(losses))] / DIVISOR


def _variables(model: keras.Model) -> list:
    # Those of the augmentation's random state are among the model's; the optimizer's are not.
    return [*model.variables, *model.optimizer.variables]
