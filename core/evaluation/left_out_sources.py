"""Leave one source out: each source's images judged by models that never saw that source."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from core.evaluation.group_figures import DRAWS, LEVEL, measure_group, score_sources
from core.formatting import percent, points, with_interval
from core.metrics.classification import COVID, arrays_from_predictions, predicted_index
from core.metrics.intervals import draw_weights, patient_index

NORMAL = "normal"
RULE = (
    "One training a source, without that source's images and without any other image of their "
    "groups (patients, copies); it judges that source's images. A source that holds nearly all "
    "images of a class cannot be left out. Intervals draw whole patients."
)
NO_FOLDS = "the model has no patient-grouped folds to compare with (--folds)"


def score_left_out(
    predictions: pd.DataFrame,
    manifest: pd.DataFrame,
    class_names: list[str],
    cannot_tell: Mapping[str, str],
    folds: pd.DataFrame | None,
    *,
    seed: int,
    title: str = "The model",
    draws: int = DRAWS,
) -> dict[str, Any]:
    """metrics_sources.json (core.runs.schema.metrics.LeftOutMetrics) of one model.

    predictions: predictions_sources.csv; manifest: with source; cannot_tell: source -> why it was
    not left out; folds: predictions of patient-grouped folds, None without.
    covid_sensitivity and false_covid (images of other diseases called covid) are pooled over all
    sources that were left out.
    """
    by_id = manifest.set_index("image_id")
    patients, sources = by_id["patient_id"], by_id["source"].astype(str)
    groups = patients.loc[predictions["image_id"]].to_numpy()
    source = sources.loc[predictions["image_id"]].to_numpy()
    _, y_prob = arrays_from_predictions(predictions, class_names)
    called = predicted_index(y_prob)
    document: dict[str, Any] = {
        "rule": RULE,
        "sources": score_sources(
            predictions, patients, sources, class_names, seed=seed, draws=draws
        ),
        "cannot_tell": dict(cannot_tell),
        "covid_sensitivity": None,
        "false_covid": None,
        "false_covid_by_source": {},
        "drop": None,
        "drop_missing": "",
    }
    if COVID in class_names:
        label = predictions["label"].to_numpy()
        marks = called == class_names.index(COVID)
        covid, other = label == COVID, ~np.isin(label, [COVID, NORMAL])

        def share(inside: np.ndarray) -> dict[str, Any] | None:
            return _share(marks, inside, groups, seed, draws)

        document["covid_sensitivity"] = share(covid)
        document["false_covid"] = share(other)
        found = {str(s): share(other & (source == s)) for s in sorted(set(source))}
        document["false_covid_by_source"] = {s: row for s, row in found.items() if row}
        if folds is not None and covid.any():
            document["drop"] = _drop(predictions[covid], folds, groups[covid], seed, draws)
    if document["drop"] is None:
        no_covid = "no covid image is of a source that was left out"
        document["drop_missing"] = NO_FOLDS if folds is None else no_covid
    document["sentence"] = _sentence(title, document)
    return document


def _share(
    marks: np.ndarray, inside: np.ndarray, groups: np.ndarray, seed: int, draws: int
) -> dict[str, Any] | None:
    """How many of the images inside are marked, None where there are none."""
    if not inside.any():
        return None
    right = {"": np.where(marks, 0, 1)}
    found = measure_group(inside, np.zeros(len(marks), int), right, groups, [COVID], seed, draws)
    return found["models"][""]["sensitivity"][COVID]


def _drop(
    left_out: pd.DataFrame, folds: pd.DataFrame, groups: np.ndarray, seed: int, draws: int
) -> dict[str, Any]:
    """Covid sensitivity of the folds minus that of sources left out, on the same images."""
    before = folds.set_index("image_id")["predicted"].loc[left_out["image_id"]].to_numpy() == COVID
    now = (left_out["predicted"] == COVID).to_numpy()
    patient, n_patients = patient_index(groups, len(now))
    cells = np.stack(
        [
            np.bincount(patient, weights=w, minlength=n_patients)
            for w in (np.ones(len(now)), before, now)
        ]
    )
    low = high = None
    if n_patients > 1:
        drawn = np.concatenate([cells @ w for w in draw_weights(n_patients, draws, seed)], axis=1)
        ends = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]
        low, high = (float(x) for x in np.quantile((drawn[1] - drawn[2]) / drawn[0], ends))
    return {
        "folds": float(before.mean()),
        "left_out": float(now.mean()),
        "difference": float(before.mean() - now.mean()),
        "low": low,
        "high": high,
        "n": len(now),
    }


def _sentence(title: str, document: Mapping[str, Any]) -> str:
    found, drop = document["covid_sensitivity"], document["drop"]
    if found is None:
        return f"{title}: no covid image is of a source that could be left out."
    text = (
        f"{title} finds {with_interval(found['value'], found)} of {found['n']} covid images from "
        "sources that it never saw"
    )
    if drop:
        text += (
            f", against {percent(drop['folds'])} of the same images in patient-grouped folds "
            f"({points(-drop['difference'])} points)"
        )
    other = document["false_covid"]
    if other:
        text += (
            f"; it calls {with_interval(other['value'], other)} of {other['n']} images of other "
            "diseases there covid"
        )
    return f"{text}."
