"""Which images of a folder a source probe asks about: those of another disease than covid."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from core.datasets.folder import IMAGE_SUFFIXES, load_table
from core.datasets.registry import DatasetError, canonical_label, describe_folder
from core.inference.ensemble import AuditError
from core.metrics.classification import COVID

# What is asked where nothing else is given: run on this data set -> the probes below the data root,
# of which the first that is there counts (the larger one).
DEFAULT_PROBES = {
    "darkcovidnet": ("cohen-2020", "kaggle-covid19-xray"),
    "darkcovidnet+cohen-2020": ("cohen-2020", "kaggle-covid19-xray"),
}
# Whose images of other classes than covid come from elsewhere, so that they say nothing of it.
FOREIGN_CLASSES = ("kaggle-covid19-xray",)
NORMAL = "normal"
NOT_STATED = "not stated"
_UNKNOWN = frozenset({"", "unknown", "todo", "na", "n/a", "none", "?"})


@dataclass(frozen=True)
class Probe:
    """Images to ask about, before any is opened.

    table: image_id, path (below root), finding, patient_id, normal (bool: no disease, counted
    apart). excluded: [{image_id, reason}]. left_out: what of the folder is no part of the question,
    in words.
    """

    name: str
    title: str
    root: Path
    table: pd.DataFrame
    excluded: list[dict] = field(default_factory=list)
    left_out: str = ""


def default_probe(dataset_name: str, data_root: Path) -> Path | None:
    """The probe that is asked when none is named: a folder with findings that are known."""
    for name in DEFAULT_PROBES.get(dataset_name, ()):
        if (data_root / name).is_dir():
            try:
                probe = load_probe(data_root / name)
            except ValueError:
                continue
            if len(probe.table):
                return data_root / name
    return None


def load_probe(path: Path) -> Probe:
    """The images of a folder that show another disease than covid.

    The finding is the column `finding` where metadata.csv (or the Kaggle set's findings file) has
    one, else the class; in a folder without classes every image is taken to show another
    disease. Covid images are left out, those without disease are kept apart, those of unknown
    finding are excluded by name. Raises AuditError or DatasetError.
    """
    path = Path(path)
    if not path.is_dir():
        raise AuditError(f"--probe names no folder: give one with images. Received: {path}.")
    dataset = describe_folder(path)
    try:
        table = load_table(dataset, path)
    except DatasetError:
        table = _loose_images(path)
        if table is None:
            raise
    skipped = [
        {"image_id": entry["path"], "reason": entry["reason"]}
        for entry in table.attrs.get("skipped", [])
        if Path(entry["path"]).suffix.lower() in IMAGE_SUFFIXES
    ]
    other = ""
    if "finding" not in table:
        table = table.assign(finding=table["original_label"])
    elif dataset.name in FOREIGN_CLASSES:
        # Its NORMAL images come from elsewhere, so they say nothing about the collection.
        foreign = table["label"] != COVID
        other = f"{int(foreign.sum())} images of other classes, which come from elsewhere"
        table = table[~foreign]
    kinds = table["finding"].map(_kind_of)
    covid_n = int((kinds == COVID).sum())
    left_out = " and ".join(filter(None, [f"{covid_n} images of covid" if covid_n else "", other]))
    unknown = [
        {"image_id": image_id, "reason": "the finding is not known"}
        for image_id in table.loc[kinds == "", "image_id"]
    ]
    asked = table[kinds.isin(["other", NORMAL])].reset_index(drop=True)
    asked = asked[["image_id", "path", "finding", "patient_id"]].assign(
        normal=(kinds[kinds.isin(["other", NORMAL])] == NORMAL).to_numpy()
    )
    if asked["normal"].all():
        raise AuditError(
            f"--probe found no image of a disease other than covid in {path}; give a folder or a "
            "metadata.csv (with a column finding or label) that has some."
        )
    return Probe(dataset.name, dataset.title, path, asked, skipped + unknown, left_out)


def _kind_of(finding: str) -> str:
    """covid, normal, other, or "" where a finding is unknown; one word for several counts."""
    words = [word.strip() for word in re.split(r"[,;/|+&]", str(finding))]
    names = {canonical_label(word) for word in words}
    if COVID in names:
        return COVID
    if NORMAL in names:
        return NORMAL
    return "" if all(name.casefold() in _UNKNOWN for name in names) else "other"


def _loose_images(path: Path) -> pd.DataFrame | None:
    """A folder of images without classes as a table; None where it holds none."""
    files = sorted(file for file in path.iterdir() if file.is_file())
    names = [file.name for file in files if file.suffix.lower() in IMAGE_SUFFIXES]
    if not names or (path / "metadata.csv").is_file():
        return None
    ids = [Path(name).stem for name in names]
    ids = [stem if ids.count(stem) == 1 else name for stem, name in zip(ids, names, strict=True)]
    return pd.DataFrame(
        {
            "image_id": ids,
            "path": names,
            "original_label": NOT_STATED,
            "patient_id": [f"image:{image_id}" for image_id in ids],
        }
    )
