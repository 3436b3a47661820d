"""The recorded files of a published data set, and whether a folder holds those very files."""

from __future__ import annotations

import csv
import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.datasets.folder import find_image

_METADATA_LEFT_OUT = ("git_blob", "image_id")


@dataclass(frozen=True)
class Record:
    """One recorded file: git_blob (hex), url_path in the repository, path below the root."""

    git_blob: str
    url_path: str
    path: str
    image_id: str
    metadata: dict[str, str]


def read_records(path: str | Path) -> list[Record]:
    """The recorded files of a data set (see core/sources/README.md)."""
    with Path(path).open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    records = []
    for row in rows:
        suffix = Path(row["path"]).suffix
        path_below = row["image_id"] + suffix
        further = {k: v for k, v in row.items() if k not in (*_METADATA_LEFT_OUT, "path")}
        metadata = {"path": path_below, **further}
        records.append(Record(row["git_blob"], row["path"], path_below, row["image_id"], metadata))
    return records


def git_blob_sha1(path: Path) -> str:
    """SHA-1 of a file as git stores it: over `blob <length>`, a zero byte, and the bytes."""
    size = path.stat().st_size
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as handle:
        for chunk in iter(lambda: handle.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def check_recorded(root: Path, records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """The records whose file is missing below root, and those whose bytes are not the recorded."""
    missing, wrong = [], []
    for record in records:
        file = root / record.path
        if not file.is_file():
            missing.append(record)
        elif git_blob_sha1(file) != record.git_blob:
            wrong.append(record)
    return missing, wrong


def other_copy(root: Path, records: Sequence[Record]) -> bool:
    """Whether root holds a copy made otherwise (re-encoded, say), which hashes cannot check.

    Told by its images: some have a recorded id under another extension.
    """
    return any(
        not (root / record.path).is_file() and find_image(root, record.image_id) is not None
        for record in records
    )


def write_metadata(path: Path, records: Sequence[Record]) -> None:
    """metadata.csv as core.datasets.folder reads it: path, label, patient_id and what else is
    recorded.
    """
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(records[0].metadata), lineterminator="\n")
        writer.writeheader()
        writer.writerows(record.metadata for record in records)
    part.replace(path)
