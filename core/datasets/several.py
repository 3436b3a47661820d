"""Several data sets as one: labels by each set's own map, paths and ids below a common folder.

Each image has a source: its publisher where the set names it, else the set's name. A patient with
the same number in two sets is one. core.datasets.shared_pictures finds pictures that are in two.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from core.config import split_datasets
from core.datasets.extra_tables import read_readings
from core.datasets.folder import TABLE_COLUMNS, load_table
from core.datasets.registry import (
    JOINED,
    KNOWN,
    Dataset,
    DatasetError,
    Part,
    describe_folder,
    resolve_dataset,
)
from core.datasets.schema import SOURCE_COLUMN

# Numbers that mean the same patient in whatever set they stand: ChestX-ray8's, and those of the
# covid-chestxray-dataset.
SHARED_NUMBERING = re.compile(r"(nih|cohen)-\d+")
UNKNOWN_PATIENT = "image:"
SET_COLUMN, PUBLISHER_COLUMN = "data_set", "publisher"
SPLITS_LEFT = (
    "The data sets' own train and test parts are left aside: all images are split anew, since a "
    "test part of one set alone would say nothing of the others."
)


def resolve_datasets(text: str, data_root: str | Path) -> tuple[Dataset, Path]:
    """One data set and its folder as resolve_dataset has them, or several and what holds them all.

    Several have to lie in the data folder, or in one other folder. Raises DatasetError.
    """
    names = split_datasets(text)
    if len(names) == 1:
        return resolve_dataset(names[0], data_root)
    found = [resolve_dataset(name, data_root) for name in names]
    modalities = {dataset.modality for dataset, _ in found}
    if len(modalities) > 1:
        kinds = ", ".join(f"{dataset.name}: {dataset.modality}" for dataset, _ in found)
        raise DatasetError(f"A run has one kind of images. Received: {kinds}.")
    folders = [Path(os.path.abspath(folder)) for _, folder in found]
    root, inside = _common_folder(folders, data_root)
    parts = [Part(dataset, folder) for (dataset, _), folder in zip(found, inside, strict=True)]
    return join_datasets(parts), root


def _common_folder(folders: list[Path], data_root: str | Path) -> tuple[Path, list[str]]:
    """The folder that holds them all, and each below it. Raises DatasetError."""
    for i, folder in enumerate(folders):
        for other in folders[:i]:
            if folder == other or folder in other.parents or other in folder.parents:
                raise DatasetError(
                    f"{other.name} and {folder.name} are one folder, or one lies in the other; "
                    "give each data set once."
                )
    top = Path(os.path.abspath(data_root))
    if all(top in folder.parents for folder in folders):
        return Path(data_root), [folder.relative_to(top).as_posix() for folder in folders]
    if len({folder.parent for folder in folders}) == 1:
        return folders[0].parent, [folder.name for folder in folders]
    raise DatasetError(
        f"Data sets that are used together have to lie in one folder ({data_root}, say), so that "
        "their images can be found again; put links to them there. Received: "
        f"{', '.join(folder.name for folder in folders)} in different folders."
    )


def join_datasets(parts: list[Part]) -> Dataset:
    """What is known of several data sets, as of one. Raises DatasetError for one name twice."""
    sets = [part.dataset for part in parts]
    names = [dataset.name for dataset in sets]
    if len(set(names)) < len(names):
        raise DatasetError(f"Two data sets have one name. Received: {', '.join(names)}.")
    caveats = dict.fromkeys(caveat for dataset in sets for caveat in dataset.caveats)
    attribution = dict.fromkeys(dataset.attribution for dataset in sets if dataset.attribution)
    return Dataset(
        name=JOINED.join(names),
        title=" + ".join(dataset.title for dataset in sets),
        modality=sets[0].modality,
        caveats=tuple(caveats),
        licence=" ".join(f"{d.name}: {d.licence}" for d in sets if d.licence),
        attribution=" ".join(attribution),
        augmented=any(dataset.augmented for dataset in sets),
        parts=tuple(parts),
    )


def describe_own(known: Mapping[str, Any], root: Path) -> Dataset:
    """The data set of a run, from run.json's `dataset` and the folder that holds its images."""
    if not known.get("parts"):
        return describe_folder(root)
    parts = []
    for entry in known["parts"]:
        name, folder = str(entry["name"]), str(entry["folder"])
        parts.append(Part(KNOWN.get(name) or describe_folder(root / folder), folder))
    return join_datasets(parts)


def load_images(dataset: Dataset, root: str | Path) -> pd.DataFrame:
    """What load_table says of one data set, or of several together.

    Of several, paths and image_ids begin with the set's folder, `source` says where an image comes
    from, `publisher` what the set says of it and `data_set` which set that is. Their own splits
    are left aside. attrs["several"] is then True, and attrs["sets"] has the sets' names in order.
    """
    if not dataset.parts:
        return load_table(dataset, root)
    tables = []
    for part in dataset.parts:
        table = load_table(part.dataset, Path(root) / part.folder)
        tables.append(_tell_apart(table, part))
    whole = pd.concat(tables, ignore_index=True)
    first = [*TABLE_COLUMNS, SOURCE_COLUMN, PUBLISHER_COLUMN, SET_COLUMN]
    whole = whole[[*first, *(column for column in whole if column not in first)]].fillna("")
    whole = whole.sort_values("image_id", kind="stable").reset_index(drop=True)
    whole.attrs.update(
        several=True,
        sets=[part.dataset.name for part in dataset.parts],
        grouping="; ".join(
            f"{part.dataset.name}: {table.attrs['grouping']}"
            for part, table in zip(dataset.parts, tables, strict=True)
        ),
        augmented=dataset.augmented,
        skipped=[
            {"path": f"{part.folder}/{entry['path']}", "reason": entry["reason"]}
            for part, table in zip(dataset.parts, tables, strict=True)
            for entry in table.attrs["skipped"]
        ],
        unlisted_n=sum(table.attrs["unlisted_n"] for table in tables),
        splits_left=any((table["split_given"] != "").any() for table in tables),
    )
    whole["split_given"] = ""
    return whole


def _tell_apart(table: pd.DataFrame, part: Part) -> pd.DataFrame:
    """The table of one set with its folder in paths and ids, and where its images come from."""
    name = part.dataset.name
    ids = part.folder + "/" + table["image_id"]
    patients = [
        _patient(patient_id, image_id, name)
        for patient_id, image_id in zip(table["patient_id"], ids, strict=True)
    ]
    column = part.dataset.source_column
    published = table[column] if column in table else pd.Series("", index=table.index)
    sources = [name_source(part.dataset, text) for text in published]
    out = table.drop(columns=[column], errors="ignore").assign(
        image_id=ids,
        path=part.folder + "/" + table["path"],
        patient_id=patients,
        **{SOURCE_COLUMN: sources, PUBLISHER_COLUMN: published, SET_COLUMN: name},
    )
    out.attrs.update(table.attrs)
    return out


def _patient(patient_id: str, image_id: str, set_name: str) -> str:
    if patient_id.startswith(UNKNOWN_PATIENT):
        return f"{UNKNOWN_PATIENT}{image_id}"
    return patient_id if SHARED_NUMBERING.fullmatch(patient_id) else f"{set_name}:{patient_id}"


def name_source(dataset: Dataset, published: str) -> str:
    """Where an image comes from, by what its set says of the publisher ("": nothing)."""
    published = published.strip()
    if not published:
        return dataset.name
    if dataset.source_names is None:
        return published
    return dataset.source_names.get(published) or dataset.other_sources or dataset.name


def read_own_readings(known: Mapping[str, Any], root: Path) -> pd.DataFrame | None:
    """read_readings of a run's data set, or of the several that it was trained on."""
    parts = known.get("parts")
    if not parts:
        return read_readings(root)
    found = []
    for entry in parts:
        readings = read_readings(root / str(entry["folder"]))
        if readings is not None:
            found.append(readings.set_axis(f"{entry['folder']}/" + readings.index))
    return pd.concat(found) if found else None
