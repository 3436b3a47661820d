"""What the Predict page works out beside the answers of core.serving.predict: who is asked, who
counts.

No Streamlit, so tests can call it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image

from core.metrics.classification import predicted_index
from core.models.names import is_control
from core.reporting.answer_reliability import votes
from core.runs.run import Run
from core.serving.predict import ImagePrediction, ModelPrediction

# Larger pictures are shown smaller: a page needs no more, and the models see far less.
SHOWN_SIDE_PX = 768


def chosen_models(run: Run, chosen: Sequence[str]) -> list[str]:
    """The models whose answers a choice shows, ensembles among them, in run order.

    Where no ensemble is chosen, one that is made of just the chosen single models is shown too:
    their mean is then not a mean that nobody measured.
    """
    singles = [m for m in chosen if not run.members(m)]
    wanted = set(chosen)
    if len(singles) == len(chosen):
        voting = {m for m in singles if not is_control(m)}
        wanted |= {m for m in run.models if run.members(m) and set(run.members(m)) == voting}
    return [model for model in run.models if model in wanted]


def plain_mean(run: Run, answers: Sequence[ModelPrediction]) -> ModelPrediction | None:
    """The mean of the votes as served, each with the same weight, where no ensemble has answered.

    Its model is "": nobody measured or calibrated it. None of fewer than two votes.
    """
    parts = votes(answers)
    if len(parts) < 2 or any(own.members for own in answers):
        return None
    mean = np.mean([own.probabilities for own in parts], axis=0)
    return ModelPrediction(
        model="",
        title=f"Mean of the {len(parts)}",
        predicted=run.class_names[int(predicted_index(mean[None])[0])],
        probabilities=mean,
        members=tuple(own.model for own in parts),
        latency_ms=sum(own.latency_ms for own in parts),
        precision=parts[0].precision,
    )


def shown_predictions(run: Run, answer: ImagePrediction) -> list[ModelPrediction]:
    """All answers that a page shows: single models, then means, or else a plain mean."""
    mean = plain_mean(run, answer.predictions)
    return [*answer.predictions, *([mean] if mean else [])]


def shown_pixels(grey: np.ndarray, side_px: int = SHOWN_SIDE_PX) -> np.ndarray:
    """Grey uint8 (height, width) shrunk, shape kept, so that the longer side is at most side_px."""
    height, width = grey.shape
    if max(height, width) <= side_px:
        return grey
    scale = side_px / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.array(Image.fromarray(grey).resize(size, Image.Resampling.LANCZOS))


def moved_class(answer: ModelPrediction, class_names: Sequence[str]) -> tuple[str, float] | None:
    """The class with the largest calibrated share, and that share, where it is not the one called.

    Calibration takes out what the weights of the classes in training did, so it can put another
    class first. A model still calls the class with the largest probability as served.
    """
    if answer.calibrated is None:
        return None
    k = int(predicted_index(answer.calibrated[None])[0])
    if class_names[k] == answer.predicted:
        return None
    return class_names[k], float(answer.calibrated[k])
