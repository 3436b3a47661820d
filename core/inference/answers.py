"""What the models of a run say about images: as they are served, means of ensembles included."""

from __future__ import annotations

from typing import Any

import numpy as np

from core.inference.ensemble import ModelGroup
from core.inference.served_model import load_model
from core.metrics.calibration import apply_calibration
from core.metrics.classification import predicted_index
from core.metrics.conformal import prediction_sets
from core.runs.missing_weights import need_weights
from core.runs.run import Run


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


def describe_prediction(run: Run, model: str, probabilities: np.ndarray) -> dict[str, Any]:
    """One model's answer about one image: {predicted, probabilities, calibrated, conformal_set}.

    probabilities (C,), as served. calibrated {class: share} is {} and conformal_set (the classes
    that cannot be ruled out) [] where the run holds no calibration for the model.
    """
    names = run.class_names
    answer: dict[str, Any] = {
        "predicted": names[int(predicted_index(probabilities))],
        "probabilities": dict(zip(names, map(float, probabilities), strict=True)),
        "calibrated": {},
        "conformal_set": [],
    }
    calibration = (run.info.get("calibration") or {}).get(model)
    if calibration:
        shares = apply_calibration(np.asarray(probabilities)[None], calibration, names)
        answer["calibrated"] = dict(zip(names, map(float, shares[0]), strict=True))
        conformal = (run.info.get("conformal") or {}).get(model)
        if conformal:
            inside = prediction_sets(shares, conformal["threshold"])[0]
            answer["conformal_set"] = [
                name for name, is_in in zip(names, inside, strict=True) if is_in
            ]
    return answer
