"""Cached reading of runs, images and served models: st.cache_* around core, nothing else.

Every function takes a `Run` (or a path) and is cached by one of dashboard.data.tokens, so what is
written anew is read anew. Tables that are returned are copies that a page may change.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import streamlit as st
from PIL import Image

from core import config
from core.datasets.folder import IMAGE_SUFFIXES
from core.datasets.registry import dataset_folder
from core.imageio import decode
from core.metrics import classification, intervals, significance
from core.runs import additions, artifacts
from core.runs.run import Run, RunEntry
from core.runs.schema.guard import Guard
from core.runs.schema.maps import Maps
from dashboard.data.tokens import BY_ADDITIONS, BY_PREDICTOR, BY_RUN

if TYPE_CHECKING:  # only Predict needs them, and the engine takes a second to import
    from core.inference.served_model import ServedModel
    from core.serving.predict import Predictor


def list_runs() -> list[RunEntry]:
    """All runs below the artifacts folder, damaged ones included (not cached: it is quick)."""
    return artifacts.list_runs(config.artifacts_root())


def list_usable_models(but: str = "") -> list[str]:
    """Names of the runs, without `but`, that have weights to answer with (not cached)."""
    names = []
    for entry in list_runs():
        if entry.problem is not None or entry.name == but:
            continue
        try:
            run = artifacts.open_run(entry.path)
        except artifacts.ArtifactError:  # damaged since it was listed
            continue
        if any((run.path / model / artifacts.MODEL_FILES[0]).is_file() for model in run.served):
            names.append(entry.name)
    return names


@st.cache_data(hash_funcs=BY_RUN, show_spinner=False, max_entries=20)
def load_manifest(run: Run) -> pd.DataFrame:
    """manifest.csv, one row an image."""
    return artifacts.load_manifest(run)


@st.cache_data(hash_funcs=BY_RUN, show_spinner=False, max_entries=20)
def load_skipped(run: Run) -> pd.DataFrame:
    """path, reason of the files that were not used."""
    return artifacts.load_skipped(run)


@st.cache_data(hash_funcs=BY_RUN, show_spinner=False, max_entries=60)
def load_history(run: Run, model: str) -> pd.DataFrame:
    """history.csv, one row an epoch."""
    return artifacts.load_history(run, model)


@st.cache_data(hash_funcs=BY_RUN, show_spinner=False, max_entries=60)
def load_prediction_table(run: Run, model: str, split: str = "test") -> pd.DataFrame:
    """Predictions of one split with what a page needs beside them, in the order of the file.

    Columns: image_id, split, fold, label, predicted, p_<class> ..., confidence (the largest
    probability), correct (bool), patient_id, group_id, path. Raises ArtifactError.
    """
    table = artifacts.load_predictions(run, model, split)
    try:
        classification.arrays_from_predictions(table, run.class_names)
    except classification.MetricsError as error:
        name = f"{run.name}/{model}/{artifacts.PREDICTION_FILES[split]}"
        raise artifacts.ArtifactError(
            f"{name} is damaged: {error} Restore the file or train the run anew."
        ) from error
    columns = [f"p_{name}" for name in run.class_names]
    table["confidence"] = table[columns].max(axis=1)
    table["correct"] = table["label"] == table["predicted"]
    manifest = load_manifest(run).drop_duplicates("image_id").set_index("image_id")
    for column in ("patient_id", "group_id", "path"):
        table[column] = table["image_id"].map(manifest[column])
    unknown = table.loc[table["path"].isna(), "image_id"]
    if len(unknown):
        raise artifacts.ArtifactError(
            f"Run {run.name} is damaged: {len(unknown)} predicted images of {model} are not in "
            f"its manifest (first: {unknown.iloc[0]}). Restore it or train the run anew."
        )
    return table


@st.cache_data(hash_funcs=BY_RUN, show_spinner="Computing the intervals …", max_entries=60)
def load_metrics(run: Run, model: str, split: str = "test") -> Mapping[str, Any]:
    """The figures of one split with `intervals`, keys as metrics.json has them.

    The test split is read from metrics.json; other parts are computed from their predictions.
    Raises ArtifactError.
    """
    stored = artifacts.load_metrics(run, model)
    if split == "test":
        return stored
    table = load_prediction_table(run, model, split)
    y_true, y_prob = classification.arrays_from_predictions(table, run.class_names)
    computed = classification.compute_metrics(y_true, y_prob, run.class_names)
    computed["intervals"] = intervals.bootstrap_intervals(
        y_true, y_prob, table["patient_id"].to_numpy(), run.class_names
    )
    # What a model costs does not depend on the images it is measured on.
    computed["cost"] = stored.get("cost", {})
    return computed


@st.cache_data(hash_funcs=BY_RUN, show_spinner="Comparing the models …", max_entries=20)
def load_comparisons(run: Run, split: str = "test") -> Sequence[Mapping[str, Any]]:
    """Each pair of the run's models judged on one split: run.json's answer for the test split.

    Always all models, also where few are shown: leaving some out must not soften the correction
    for the number of pairs.
    """
    stored = run.info.get("comparisons")
    if split == "test" and stored:
        return stored
    tables = [load_prediction_table(run, m, split).sort_values("image_id") for m in run.models]
    probs = {}
    for model, table in zip(run.models, tables, strict=True):
        if list(table["image_id"]) != list(tables[0]["image_id"]):
            return []  # not the same images: no paired test exists
        y_true, probs[model] = classification.arrays_from_predictions(table, run.class_names)
    groups = tables[0]["patient_id"].to_numpy()
    return significance.compare_models(y_true, probs, groups, run.class_names)


@dataclass(frozen=True)
class ImageFiles:
    """Where a run's picture files are on this machine.

    root: the data set's folder, None where there is none; found: image_id -> path relative to it;
    n_images: images the run has.
    """

    root: Path | None
    found: dict[str, str]
    n_images: int

    def find(self, image_id: str) -> Path | None:
        """The picture's file, or None where it is not on this machine."""
        name = self.found.get(image_id)
        return self.root / name if self.root and name else None


def find_image_files(run: Run, folder: str = "") -> ImageFiles:
    """The run's pictures in `folder` (what a person pointed to), or else in the data root.

    Either may be the data set's own folder or the folder that holds it; the one with the most
    pictures counts, the earlier one where they are equal.
    """
    dataset = str(run.info["dataset"].get("name", ""))
    bases = [typed_folder(folder)] if folder.strip() else []
    bases.append(config.data_root())
    best = ImageFiles(None, {}, len(load_manifest(run)))
    for root in [root for base in bases for root in (dataset_folder(dataset, base), base)]:
        if os.path.isdir(root):  # unlike Path.is_dir, it takes names of any length
            found = _index_image_files(run, str(root.resolve()))
            if len(found) > len(best.found):
                best = ImageFiles(root.resolve(), found, best.n_images)
    return best


def typed_folder(text: str) -> Path:
    """The folder that a person typed; ~ of a user who is not there stays as it is."""
    return Path(os.path.expanduser(text.strip()))


@st.cache_data(hash_funcs=BY_RUN, show_spinner="Looking for the pictures …", ttl=60)
def _index_image_files(run: Run, root: str) -> dict[str, str]:
    """image_id -> relative path below root, whatever the extension; only the run's own folders.

    Only folders that the manifest names are listed, so a wrong folder such as / costs nothing,
    and an id with `..` finds nothing.
    """
    wanted: dict[str, set[str]] = {}
    for image_id in load_manifest(run)["image_id"]:
        pure = PurePosixPath(image_id)
        if not pure.is_absolute() and ".." not in pure.parts:
            wanted.setdefault(pure.parent.as_posix(), set()).add(image_id)
    found: dict[str, str] = {}
    for parent, ids in wanted.items():
        try:
            names = sorted(
                entry.name for entry in os.scandir(Path(root, parent)) if entry.is_file()
            )
        except OSError:
            continue
        prefix = "" if parent == "." else f"{parent}/"
        for name in names:
            suffix = PurePosixPath(name).suffix.lower()
            if suffix not in IMAGE_SUFFIXES:
                continue
            stem = name[: -len(suffix)]
            # The id with its extension names one file exactly, so it comes before a mere stem.
            if prefix + name in ids:
                found[prefix + name] = prefix + name
            elif prefix + stem in ids:
                found.setdefault(prefix + stem, prefix + name)
    return found


def read_thumbnail(path: Path, size_px: int) -> np.ndarray:
    """Grey uint8 (h, w), longest side `size_px` at most, aspect kept. Raises ImageError."""
    try:
        status = path.stat()
    except OSError as error:
        raise decode.ImageError(f"{path.name} cannot be read: {error.strerror}.") from error
    return _read_thumbnail(str(path), status.st_mtime_ns, size_px)


@st.cache_data(show_spinner=False, max_entries=1000)
def _read_thumbnail(path: str, modified_ns: int, size_px: int) -> np.ndarray:
    pixels = decode.read_image(Path(path)).pixels
    small = Image.fromarray(pixels)
    small.thumbnail((size_px, size_px), Image.Resampling.LANCZOS)
    return np.asarray(small)


@st.cache_resource(hash_funcs=BY_RUN, show_spinner="Loading the model …", max_entries=12)
def load_model(run: Run, model: str) -> ServedModel:
    """The served model, hash-checked (core.inference.served_model.ServedModel)."""
    from core.inference import served_model

    return served_model.load_model(run, model)


@st.cache_data(hash_funcs=BY_ADDITIONS, show_spinner=False, max_entries=20)
def load_guard_document(run: Run) -> Guard | None:
    """guard/guard.json, None where no guard was fitted. Raises ArtifactError."""
    return additions.load_guard_document(run)


# Shared, not copied for each reader: it is long, and nobody changes it.
@st.cache_resource(hash_funcs=BY_ADDITIONS, show_spinner=False, max_entries=20)
def load_maps(run: Run) -> Maps | None:
    """maps/maps.json, None where the maps were not measured. Raises ArtifactError."""
    return additions.load_maps(run)


@st.cache_resource(hash_funcs=BY_PREDICTOR, show_spinner="Loading the models …", max_entries=4)
def load_predictor(run: Run) -> Predictor:
    """The run's models and guard, each having predicted once so that it is warm.

    A run none of whose models can be loaded gives a predictor without models, whose problems say
    why.
    """
    from core.serving import predict

    try:
        predictor = predict.open_predictor(run, load_model)
    except artifacts.ArtifactError as error:
        return predict.Predictor(run, {}, None, {predict.NO_WEIGHTS: str(error)})
    predict.warm_up(predictor)
    return predictor
