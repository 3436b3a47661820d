"""Labels that all models together doubt, by confident learning on out-of-fold predictions.

Northcutt, Jiang & Chuang 2021, Confident Learning: Estimating Uncertainty in Dataset Labels,
section 3 (cleanlab): an image's label is doubtful where another class is predicted with more
confidence than that class has on average, as often as the estimated joint distribution of given and
true labels says. A doubt is no proof: a model that learned a shortcut doubts labels that are right.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from core.evaluation.sample import DRAWS, Sample
from core.metrics.classification import arrays_from_predictions

METHOD = (
    "Confident learning (Northcutt et al. 2021; cleanlab) on the mean of the models' out-of-fold "
    "probabilities; no image is judged by a model that was trained on it or on its patient."
)


def find_doubtful_labels(
    predictions: Mapping[str, pd.DataFrame],
    patients: pd.Series,
    class_names: list[str],
    seed: int,
    *,
    readings: pd.DataFrame | None = None,
    draws: int = DRAWS,
) -> dict[str, Any]:
    """The audit's section `doubtful_labels`.

    predictions: model -> out-of-fold predictions of the same images (core.runs.artifacts);
    patients: patient_id, its index image_id; readings: image_id, reader, reading of second readers.

    Returns {method, models[], n, n_doubtful, suggested{given label: {suggested: n}}, images[{
    image_id, label, suggested, quality, p{model: probability of the label}, readings{reader:
    reading}}] (most doubtful first), scores{model: {all, without_doubtful: estimate}}}: accuracy,
    macro-F1 over all images and over those whose label is not doubtful. The latter leaves out the
    very images that the models get wrong, so it is no better estimate of anything.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    tables = {m: t.sort_values("image_id").reset_index(drop=True) for m, t in predictions.items()}
    first = next(iter(tables.values()))
    ids = first["image_id"].to_numpy()
    if any(not np.array_equal(table["image_id"], ids) for table in tables.values()):
        raise ValueError("The models' out-of-fold predictions are of different images.")
    arrays = {m: arrays_from_predictions(table, class_names) for m, table in tables.items()}
    y_true = next(iter(arrays.values()))[0]
    mean = np.mean([y_prob for _, y_prob in arrays.values()], axis=0)
    mean = mean / mean.sum(axis=1, keepdims=True)
    doubtful = find_label_issues(y_true, mean, n_jobs=1)
    quality = get_label_quality_scores(y_true, mean)
    order = np.flatnonzero(doubtful)[np.argsort(quality[doubtful], kind="stable")]
    suggested = mean.argmax(axis=1)
    read = _by_image(readings)
    table = pd.crosstab(
        first["label"][order], np.array(class_names, dtype=object)[suggested[order]]
    )
    groups = patients.loc[ids].to_numpy()
    scores = {}
    for model, (_, y_prob) in arrays.items():
        scores[model] = {
            name: Sample(y_true[rows], groups[rows], class_names, seed, draws).estimate(
                y_prob[rows]
            )
            for name, rows in (("all", slice(None)), ("without_doubtful", ~doubtful))
        }
    return {
        "method": METHOD,
        "models": list(arrays),
        "n": len(ids),
        "n_doubtful": int(doubtful.sum()),
        "suggested": {
            str(given): {str(name): int(n) for name, n in row.items() if n}
            for given, row in table.to_dict("index").items()
        },
        "images": [
            {
                "image_id": str(ids[i]),
                "label": class_names[y_true[i]],
                "suggested": class_names[suggested[i]],
                "quality": float(quality[i]),
                "p": {m: float(y_prob[i, y_true[i]]) for m, (_, y_prob) in arrays.items()},
                "readings": read.get(str(ids[i]), {}),
            }
            for i in order
        ],
        "scores": scores,
    }


def _by_image(readings: pd.DataFrame | None) -> dict[str, dict[str, str]]:
    if readings is None:
        return {}
    return {
        str(image): dict(zip(rows["reader"], rows["reading"], strict=True))
        for image, rows in readings.groupby("image_id")
    }
