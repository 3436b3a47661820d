"""How each model does in groups of test images: by source, view, size, format, further metadata.

Groups are of what is known about an image beside its class. Where that gives the class away, a
group's accuracy would say which classes are in it, so sensitivity by class alone is given.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from core.datasets.subgroup_columns import UNKNOWN, list_columns
from core.errors import UserError
from core.evaluation.group_figures import DRAWS, MIN_N, measure_group
from core.formatting import percent
from core.metrics.classification import arrays_from_predictions, predicted_index
from core.metrics.intervals import patient_index
from core.runs.artifacts import load_manifest
from core.runs.run import Run

GIVES_AWAY = 0.75  # balanced accuracy: halfway from guessing to knowing
RULE = (
    "Intervals draw whole patients of the group. A column gives the class away where some class "
    "is told from the others, by the column alone and in every image from the other patients' "
    f"images, with a balanced accuracy of {percent(GIVES_AWAY, 0)} or more over all images "
    "of the run (50\u202f% is guessing). Groups are shown as they are; differences between them "
    "are not tested."
)


class SubgroupsError(UserError):
    """Subgroups that cannot be computed; the message is one sentence a person can act on."""


def compute_subgroups(
    run: Run,
    table: pd.DataFrame | None,
    predictions: Mapping[str, pd.DataFrame],
    seed: int,
    *,
    draws: int = DRAWS,
) -> dict[str, Any]:
    """The audit's section `subgroups`: every model in every group of the test images.

    table: the data set's listing with any further columns (needs image_id, any order, rows that
    the run lacks do no harm), or None; predictions: model -> its predictions.csv of the test part.

    Returns {min_n, rule, columns[], left_out[{column, reason}]}. A column is {column, title,
    gives_class_away, why ("" or a sentence), told{class: balanced accuracy of the column alone},
    groups[]}; a group {value, n, n_patients, small (fewer than min_n patients), classes{class: n},
    models{m: {accuracy: {value, low, high} | None, sensitivity{class: {value, low, high, n,
    n_patients}}}}} with the classes that the group has. accuracy is None where the column gives
    the class away and where the group has one class only. Intervals: 95 %, bootstrap over
    patients (Wilson on patients where the draws do not differ), None for one patient.
    Raises SubgroupsError, GroupingError, MetricsError or ArtifactError.
    """
    manifest, class_names = load_manifest(run), run.class_names
    columns, left_out = list_columns(manifest, table)
    ids, y_true, predicted = _aligned(predictions, class_names)
    place = pd.Index(manifest["image_id"]).get_indexer(ids)
    if (place < 0).any():
        raise SubgroupsError(
            f"The manifest of run {run.name} lacks {int((place < 0).sum())} of the "
            f"{len(ids)} predicted images; evaluate the run anew."
        )
    patients = manifest["patient_id"].to_numpy()
    found = []
    for column in columns:
        values = column.values[place]
        if len(np.unique(values)) < 2:
            reason = f"all test images are in one group ({values[0]})"
            left_out.append({"column": column.name, "reason": reason})
            continue
        told = separate_classes(column.values, manifest["label"], patients, class_names)
        away = {name: share for name, share in told.items() if share >= GIVES_AWAY}
        groups = [
            {"value": value}
            | measure_group(
                values == value, y_true, predicted, patients[place], class_names, seed, draws
            )
            for value in _in_order(values, column.order)
        ]
        single = [group["value"] for group in groups if len(group["classes"]) == 1]
        for group in groups:
            if away or group["value"] in single:
                for row in group["models"].values():
                    row["accuracy"] = None
        found.append(
            {
                "column": column.name,
                "title": column.title,
                "gives_class_away": bool(away),
                "why": _why(column.title, away, single),
                "told": told,
                "groups": groups,
            }
        )
    return {"min_n": MIN_N, "rule": RULE, "columns": found, "left_out": left_out}


def separate_classes(
    values: ArrayLike, labels: ArrayLike, patients: ArrayLike, class_names: Sequence[str]
) -> dict[str, float]:
    """How well a column alone tells each class from the others: class -> balanced accuracy.

    Each image is called by the images of all other patients: as the class where its value is
    more frequent among that class's images than among the others'. So a column of many values
    gains nothing by chance, and one that knows nothing stays at or below one half. A class that
    no image or every image has is left out.
    """
    y = pd.Index(class_names).get_indexer(pd.Index(labels))
    value = np.unique(np.asarray(values, dtype=object).astype(str), return_inverse=True)[1]
    patient, n_patients = patient_index(np.asarray(patients, dtype=object), len(y))
    n_classes, n_values = len(class_names), int(value.max(initial=-1)) + 1

    def count(cell: np.ndarray, n_cells: int) -> np.ndarray:
        """Images of each class in each cell: (n_cells, C)."""
        return np.bincount(cell * n_classes + y, minlength=n_cells * n_classes).reshape(n_cells, -1)

    both = np.unique(value * n_patients + patient, return_inverse=True)[1]
    # Of the images of other patients: how many have this value, and how many there are.
    alike = count(value, n_values)[value] - count(both, int(both.max(initial=-1)) + 1)[both]
    others = count(np.zeros_like(y), 1) - count(patient, n_patients)[patient]
    told = {}
    for k, name in enumerate(class_names):
        mine = y == k
        if not mine.any() or mine.all():
            continue
        rest_alike, rest = alike.sum(axis=1) - alike[:, k], others.sum(axis=1) - others[:, k]
        called = alike[:, k] * rest > rest_alike * others[:, k]
        told[str(name)] = float((called[mine].mean() + (~called[~mine]).mean()) / 2)
    return told


def _aligned(
    predictions: Mapping[str, pd.DataFrame], class_names: list[str]
) -> tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]:
    """image_id (n,), true class (n,) and each model's predicted class (n,), in one order."""
    first: tuple[np.ndarray, np.ndarray] | None = None
    predicted = {}
    for model, table in predictions.items():
        rows = table.sort_values("image_id")
        labels, y_prob = arrays_from_predictions(rows, class_names)
        images = rows["image_id"].to_numpy(), labels
        first = first or images
        if not all(
            np.array_equal(ours, theirs) for ours, theirs in zip(first, images, strict=True)
        ):
            raise SubgroupsError(
                f"The predictions of {model} are not of the same images as the other models'; "
                "evaluate the run anew."
            )
        predicted[model] = predicted_index(y_prob)
    if first is None:
        raise SubgroupsError("Subgroups need the predictions of at least one model.")
    return *first, predicted


def _why(title: str, away: Mapping[str, float], single: Sequence[str]) -> str:
    if away:
        best = max(away, key=lambda name: away[name])
        return (
            f"{title} gives the class away: from it alone {best} is told from the others with a "
            f"balanced accuracy of {percent(away[best], 0)} (50\u202f% is guessing), so a "
            "group's accuracy would mostly say which classes are in it, and only the sensitivity "
            "for each class is shown."
        )
    if single:
        return (
            f"All test images of one class in: {', '.join(single)}; accuracy there would be that "
            "class's sensitivity and is left out."
        )
    return ""


def _in_order(values: np.ndarray, order: Sequence[str]) -> list[str]:
    """Each value once: in the given order, else the most frequent first; the unknown at the end."""
    names, counts = np.unique(values, return_counts=True)
    rank = {name: place for place, name in enumerate(order)}
    key = {
        name: (name == UNKNOWN, rank.get(name, -count), name)
        for name, count in zip(names.tolist(), counts.tolist(), strict=True)
    }
    return sorted(key, key=lambda name: key[name])
