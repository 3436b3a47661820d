"""What a guard accepts and refuses, counted: test images by class and kind, other pictures by kind.

Every share stands with its count and a Wilson interval over patients (or over pictures, where cuts
of one are tried), since images of one patient are not independent.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.console import progress
from core.datasets.folder import find_image, load_table
from core.datasets.registry import KNOWN, DatasetError, dataset_folder
from core.datasets.several import describe_own, load_images
from core.datasets.subgroup_columns import list_columns
from core.imageio.decode import resize_square
from core.inference.served_model import ServedModel
from core.metrics.bootstrap import wilson_interval
from core.runs import artifacts
from core.runs.run import Run
from core.serving.guard.detector import Guard, chords
from core.serving.guard.fit import REPORT_SEED
from core.serving.guard.messages import GuardMeasurement
from core.serving.guard.negatives import Setting, Trial, TrialError, kinds_for, read_table

logger = logging.getLogger(__name__)

MOST_NAMED = 20  # pictures of other kinds that pass, named
NEAREST = 5
EXTERNAL_NOTE = (
    "Every image as it is; copies of images that the run knows are counted like the others."
)


def measure_guard(
    run: Run,
    guard: Guard,
    model: ServedModel,
    root: Path,
    data_root: Path,
) -> dict[str, Any]:
    """acceptance, refusal, nearest and missing of guard.json. What is not here is in missing."""
    missing: list[str] = []
    manifest = artifacts.load_manifest(run)
    test = manifest[manifest["split"] == "test"].reset_index(drop=True)
    here = [find_image(root, image_id) is not None for image_id in test["image_id"]]
    test = test[here].reset_index(drop=True)
    acceptance, nearest = None, None
    if test.empty:
        missing.append("acceptance on test: none of the run's test images is here")
    else:
        accepted, features, test = _run_guard_on_table(guard, model, root, test, "Test images")
        acceptance = {
            "test": {
                "all": acceptance_rate(accepted, test["patient_id"]),
                "classes": by_value(accepted, test["label"], test["patient_id"]),
                "columns": _by_column(run, accepted, test, root, missing),
                "refused": test["image_id"][~accepted].tolist(),
            },
            "elsewhere": _external_rows(run, guard, model, data_root),
        }
        if not acceptance["elsewhere"]:
            missing.append("acceptance elsewhere: no other known data set of its kind is here")
        nearest = {"k": NEAREST, "n": len(test), "same_label": _agreement(guard, features, test)}
    refusal = {}
    setting = Setting(run, test, root, data_root, REPORT_SEED)
    for name, kind in kinds_for(run.modality).items():
        reason = "no such picture is here"
        try:
            found = _run_guard(guard, model, kind.make(setting), kind.title)
        except (TrialError, DatasetError) as error:
            found, reason = [], str(error).rstrip(".")
        if found:
            head = {"title": kind.title, "looked_at": kind.looked_at}
            refusal[name] = head | refused_rate(found)
        else:
            missing.append(f"{kind.title}: {reason}")
    for sentence in missing:
        logger.warning(f"Not measured: {sentence}.")
    return {
        "acceptance": acceptance,
        "refusal": refusal,
        "nearest": nearest,
        "missing": missing,
    }


# ------------------------------------------------------------------------------ asking


def _run_guard(
    guard: Guard, model: ServedModel, trials: Iterable[Trial], title: str
) -> list[tuple[str, GuardMeasurement]]:
    """(picture, what is measured of it) of every trial; only a few are in memory at a time."""
    found = []
    with progress(None, title, "picture") as bar:
        for trial in trials:
            found.append((trial.picture, _measure(guard, model, trial)[1]))
            bar.update(1)
    return found


def _measure(guard: Guard, model: ServedModel, trial: Trial) -> tuple[np.ndarray, GuardMeasurement]:
    square = resize_square(trial.decoded.pixels, model.input_size_px)
    features = model.predict(square[None]).features[0]
    return features, guard.measure(features, trial.decoded)


def _run_guard_on_table(
    guard: Guard, model: ServedModel, root: Path, table: pd.DataFrame, title: str
) -> tuple[np.ndarray, np.ndarray, pd.DataFrame]:
    """Which images of a table pass (n,), their features (n, D), and the rows that can be read."""
    passed, features, rows = [], [], []
    with progress(len(table), title, "image") as bar:
        for number in range(len(table)):
            bar.update(1)
            for trial in read_table(root, table.iloc[number : number + 1]):
                vector, measured = _measure(guard, model, trial)
                rows.append(number)
                features.append(vector)
                passed.append(measured.passes)
    return np.array(passed, dtype=bool), np.array(features), table.iloc[rows].reset_index(drop=True)


def _agreement(guard: Guard, features: np.ndarray, test: pd.DataFrame) -> float:
    """Share of the NEAREST training images that have the test image's own label."""
    distances = chords(guard.features.project(features), guard.projected)
    order = np.argsort(distances, axis=1, kind="stable")[:, :NEAREST]
    return float((guard.labels[order] == test["label"].to_numpy(dtype=str)[:, None]).mean())


def _by_column(
    run: Run, accepted: np.ndarray, test: pd.DataFrame, root: Path, missing: list[str]
) -> dict[str, dict[str, Any]]:
    """Acceptance by the columns source and view of the data set's table, where it has them."""
    try:
        table = load_images(describe_own(run.info["dataset"], root), root)
    except DatasetError as error:
        missing.append(f"acceptance by source: {str(error).rstrip('.')}")
        return {}
    columns, _ = list_columns(test, table)
    found = {c.name: c.values for c in columns if c.name.lower() in ("source", "view")}
    if "source" not in found:
        missing.append("acceptance by source: the data set names none or one only")
    return {
        name: by_value(accepted, pd.Series(values, dtype=object), test["patient_id"])
        for name, values in found.items()
    }


def _external_rows(
    run: Run, guard: Guard, model: ServedModel, data_root: Path
) -> dict[str, dict[str, Any]]:
    """Acceptance on the known data sets of the run's modality that it was not trained on.

    All their images as they are: copies of images that the run knows are counted too.
    """
    found = {}
    own = {part["name"] for part in run.info["dataset"].get("parts", [])}
    own.add(run.info["dataset"]["name"])
    for name, dataset in KNOWN.items():
        root = dataset_folder(name, data_root)
        same = dataset.modality == run.modality and name not in own
        if not same or not root.is_dir():
            continue
        accepted, _, table = _run_guard_on_table(
            guard, model, root, load_table(dataset, root), dataset.title
        )
        if len(table):
            found[name] = {
                "title": dataset.title,
                "note": EXTERNAL_NOTE,
                "all": acceptance_rate(accepted, table["patient_id"]),
                "classes": by_value(accepted, table["label"], table["patient_id"]),
            }
    return found


# ------------------------------------------------------------------------------ counting


def acceptance_rate(accepted: np.ndarray, patients: pd.Series) -> dict[str, Any]:
    """{n, n_patients, share, low, high} of images accepted (n,) bool; Wilson over the patients."""
    n_patients = int(patients.nunique())
    share = float(np.mean(accepted))
    low, high = wilson_interval(share * n_patients, n_patients)
    return {"n": len(accepted), "n_patients": n_patients, "share": share, "low": low, "high": high}


def by_value(accepted: np.ndarray, values: pd.Series, patients: pd.Series) -> dict[str, Any]:
    """acceptance_rate of the images of each value, the most frequent first."""
    return {
        str(value): acceptance_rate(
            accepted[(values == value).to_numpy()], patients[values == value]
        )
        for value in values.value_counts().index
    }


def refused_rate(found: list[tuple[str, GuardMeasurement]]) -> dict[str, Any]:
    """{n, pictures, refused, share, low, high, passed[]} of a kind; Wilson over the pictures.

    n: all that was tried, cuts of one picture included. passed: which got through, the first few.
    by: how many each of the measures alone would have refused.
    """
    refused = np.array([not one.passes for _, one in found], dtype=bool)
    pictures = len({picture for picture, _ in found})
    share = float(refused.mean()) if len(refused) else 0.0
    low, high = wilson_interval(share * pictures, pictures)
    measured = [one for _, one in found]
    return {
        "n": len(found),
        "pictures": pictures,
        "refused": int(refused.sum()),
        "share": share,
        "low": low,
        "high": high,
        "by": {
            "features": sum(one.features > 1 for one in measured),
            "layout": sum(one.layout > 1 for one in measured),
            "turned": sum(one.turned > 1 for one in measured),
            "plain": sum(bool(one.plain_reasons) for one in measured),
        },
        "median_distance": float(np.median([one.distance for one in measured]))
        if measured
        else None,
        "passed": [picture for picture, one in found if one.passes][:MOST_NAMED],
    }
