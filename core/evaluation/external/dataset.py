"""Which external images a run can be scored on: reading the set, its name, its classes."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from core.datasets import folder
from core.datasets.registry import KNOWN, Dataset, DatasetError
from core.evaluation.external.overlap import DUPLICATE, SAME_PATIENT, Match
from core.files import sha256_file
from core.runs import additions, artifacts
from core.runs.run import RUN_NAME, Run

CLASS, UNREADABLE = "class", "unreadable"
MODALITY_WORDS = {"xray": "chest X-rays", "ct": "CT slices", "phantom": "drawn phantoms"}


class ExternalError(DatasetError):
    """External images that a run cannot be scored on; the message is one sentence."""


class OwnImages(NamedTuple):
    """A run's own test images: id -> file (None: missing), and whether one file is as it was."""

    files: dict[str, Path | None]
    same_bytes: bool


def find_own_images(run: Run, dataset: Dataset, root: Path) -> OwnImages | None:
    """The run's test images below root; None where what is there is something else.

    The names alone prove nothing, since many sets number their images. They count where one file
    is a test image by its sha256, or where the folder is named as the run's data set, which may
    hold re-encoded copies.
    """
    manifest = artifacts.load_manifest(run)
    test = manifest[manifest["split"] == "test"]
    files = {image_id: folder.find_image(root, image_id) for image_id in test["image_id"]}
    if not any(files.values()):
        return None
    pairs = zip(files.values(), test["sha256"], strict=True)
    same_bytes = any(file is not None and sha256_file(file) == sha256 for file, sha256 in pairs)
    if same_bytes or dataset.name == run.info["dataset"]["name"]:
        return OwnImages(files, same_bytes)
    return None


def name_external(dataset: Dataset, name: str | None) -> str:
    """What to keep the result under: the name asked for, else the data set's, cleaned."""
    if name is None:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", dataset.name).strip("-._")[:100] or "external"
    if not RUN_NAME.fullmatch(name):
        raise ExternalError(
            "--name holds 1 to 100 letters, digits, dots, dashes and underscores, and begins with "
            f"a letter or digit. Received: {name!r}."
        )
    return name


def check_name(run: Run, name: str, table: pd.DataFrame) -> None:
    """Refuse a name under which a result of other images is kept: none of `table` is among them.

    table: image_id and sha256 of the images at hand. Raises ExternalError.
    """
    if name not in additions.list_external(run):
        return
    if set(additions.load_external_manifest(run, name)["sha256"]).isdisjoint(table["sha256"]):
        raise ExternalError(
            f"Run {run.name} has a result named {name} already, of other images: give "
            f"--name another name, or --name {name} to replace it."
        )


def read_set(run: Run, dataset: Dataset, root: Path) -> pd.DataFrame:
    """The images below root as core.datasets.folder.load_table gives them, all labels "" where
    unlabelled.

    Unlabelled: image files in the folder itself, without class folders or metadata.csv. Raises
    ExternalError for images of another modality than the run's, DatasetError as load_table does.
    """
    known = dataset.name in KNOWN or dataset.modality == "phantom"
    if known and dataset.modality != run.modality:
        raise ExternalError(
            f"{dataset.title} are {MODALITY_WORDS[dataset.modality]}, and run {run.name} was "
            f"trained on {MODALITY_WORDS.get(run.modality, run.modality)}: what its models say "
            "about them means nothing, so they are not scored."
        )
    try:
        return folder.load_table(dataset, root)
    except DatasetError:
        flat = _flat_images(root)
        if not flat or (root / "metadata.csv").exists():
            raise
    rows = [{"path": name, "original_label": "", "label": "", "split_given": ""} for name in flat]
    folder.add_ids(rows, flat)
    grouping = folder.add_patients(rows, [])
    table = pd.DataFrame(rows, columns=list(folder.TABLE_COLUMNS))
    table.attrs.update(grouping=grouping, skipped=[], unlisted_n=0)
    return table


def _flat_images(root: Path) -> list[str]:
    if not root.is_dir():
        return []
    return sorted(
        path.name
        for path in root.iterdir()
        if path.is_file()
        and path.suffix.lower() in folder.IMAGE_SUFFIXES
        and not path.name.startswith(".")
    )


def leave_out_classes(
    run: Run, table: pd.DataFrame, root: Path
) -> tuple[pd.DataFrame, list[dict[str, Any]], dict[str, int]]:
    """Rows whose label is a class of the run; entries of the others, and how many of each label.

    Raises ExternalError where no row is left.
    """
    known = table["label"].isin(run.class_names).to_numpy()
    if not known.any():
        raise ExternalError(
            f"{root} holds the classes {', '.join(sorted(set(table['label'])))}, and none of them "
            f"is one that run {run.name} tells apart ({', '.join(run.class_names)}); images "
            "without labels go into one folder, without folders in it."
        )
    others = table[~known]
    entries = [
        entry(row.image_id, f"Its class {row.label!r} is not one of the run's.", CLASS)
        for row in others.itertuples()
    ]
    return table[known].reset_index(drop=True), entries, dict(Counter(others["label"]))


def duplicate_files(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Entries of files that come again, byte for byte; of all where their labels disagree."""
    entries = []
    for _, group in table.groupby("sha256", sort=False):
        first, *others = group["image_id"]
        if group["label"].nunique() > 1:
            others, first_too = [first, *others], others[0]
            for image_id in others:
                other = first if image_id != first else first_too
                reason = f"The same file as {other}, which has another label."
                entries.append(entry(image_id, reason, DUPLICATE, other, 1.0))
            continue
        for image_id in others:
            reason = f"The same file as {first} in this set, which counts once."
            entries.append(entry(image_id, reason, DUPLICATE, first, 1.0))
    return entries


def overlap_entry(match: Match) -> dict[str, Any]:
    """The entry of an image that overlaps with what the run learned from."""
    if match.kind == SAME_PATIENT:
        reason = f"Its patient {match.other} is also in the run's train or val part."
    else:
        reason = f"The same picture, or nearly, as {match.other} in the run's train or val part."
    return entry(match.image_id, reason, match.kind, match.other, match.correlation)


def entry(
    image_id: str,
    reason: str,
    kind: str,
    other: str | None = None,
    correlation: float | None = None,
) -> dict[str, Any]:
    """One item of external.json's `excluded`."""
    return {
        "image_id": image_id,
        "reason": reason,
        "kind": kind,
        "other": other,
        "correlation": correlation,
    }
