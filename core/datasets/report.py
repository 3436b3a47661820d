"""What there is to say about data sets: which are here, and what one of them holds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from core.datasets.checksums import check_recorded, other_copy, read_records
from core.datasets.fetch import fetch_dataset
from core.datasets.folder import load_table
from core.datasets.registry import (
    KNOWN,
    Dataset,
    DatasetError,
    dataset_folder,
    order_classes,
    resolve_dataset,
)


def list_known(root: Path) -> dict[str, Any]:
    """The data sets known by name: which are below root, and what they hold."""
    entries = []
    for name, dataset in KNOWN.items():
        folder = dataset_folder(name, root)
        present = folder.is_dir()
        entry = {
            "name": name,
            "title": dataset.title,
            "modality": dataset.modality,
            "present": present,
            "images": None,
            "classes": {},
            "problem": None,
            "how_to_get": dataset.how_to_get,
            "homepage": dataset.homepage,
        }
        if present:
            try:
                table = load_table(dataset, folder)
                entry["images"], entry["classes"] = len(table), _class_counts(table)
            except DatasetError as error:
                entry["problem"] = str(error)
        elif (root / f"{name}.part").is_dir():
            entry["problem"] = (
                f"A download broke off: `python -m core data {name}` goes on with it."
            )
        entries.append(entry)
    return {"data_root": str(root), "datasets": entries}


def report_dataset(
    name: str, root: Path, *, fetch: bool = True, base_url: str | None = None
) -> dict[str, Any]:
    """What is in the data set, fetched first where it is a known one that can be."""
    problem = checked = None
    if name in KNOWN and fetch:
        problem = _fetch(name, root, base_url)
    dataset, folder = resolve_dataset(name, root)
    table = load_table(dataset, folder)
    if dataset.recorded:
        checked = _check_hashes(dataset, folder)
        if checked and checked["wrong"] and not problem:
            problem = f"{len(checked['wrong'])} files are not the published ones."
    return {
        "name": dataset.name,
        "title": dataset.title,
        "modality": dataset.modality,
        "path": str(folder),
        "images": len(table),
        "classes": _class_counts(table),
        "splits_given": {k: int(v) for k, v in table["split_given"].value_counts().items() if k},
        "patients": int(table["patient_id"].nunique()),
        "grouping": table.attrs["grouping"],
        "augmented": dataset.augmented,
        "hashes": checked,
        "problem": problem,
        "skipped": table.attrs["skipped"],
        "unlisted": table.attrs["unlisted_n"],
        "caveats": list(dataset.caveats),
        "licence": dataset.licence,
        "attribution": dataset.attribution,
        "homepage": dataset.homepage,
    }


def _fetch(name: str, root: Path, base_url: str | None) -> str | None:
    """Fetch what is missing; a sentence where the folder is usable, but not whole."""
    folder = dataset_folder(name, root)
    if folder.is_dir():
        known = KNOWN[name]
        if not known.recorded or other_copy(folder, read_records(known.records_csv)):
            return None
    try:
        fetch_dataset(name, root, base_url)
    except DatasetError as error:
        if not folder.is_dir():
            raise
        return str(error)
    return None


def _check_hashes(dataset: Dataset, folder: Path) -> dict[str, Any] | None:
    """How many files are the published ones, byte for byte; None for re-encoded copies."""
    records = read_records(dataset.records_csv)
    if other_copy(folder, records):
        return None
    missing, wrong = check_recorded(folder, records)
    right = len(records) - len(missing) - len(wrong)
    return {"right": right, "wrong": [r.path for r in wrong], "missing": [r.path for r in missing]}


def _class_counts(table: pd.DataFrame) -> dict[str, int]:
    counts = table["label"].value_counts()
    return {label: int(counts[label]) for label in order_classes(table["label"])}
