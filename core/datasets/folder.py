"""A folder of images -> one table with a row an image; and back, from an id to its file.

Three layouts load unchanged: one folder a class; `train/` and `test/` (and `val/`) with class
folders inside; a `metadata.csv` with `path,label[,patient_id]`. Nothing is left out silently:
what cannot be used stands in `table.attrs["skipped"]` with the reason.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections import Counter
from pathlib import Path, PurePosixPath

import pandas as pd

from core.datasets.extra_tables import join_clinical, stem_of
from core.datasets.registry import SOURCES, Dataset, DatasetError, canonical_label, read_text_table

# Wider than what core.imageio.decode decodes: a file that looks like an image is refused there by
# name, with its reason, and not lost here.
IMAGE_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".tif", ".tiff", ".bmp", ".webp", ".gif"}
    | {".dcm", ".dicom"}
)
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
TABLE_COLUMNS = ("image_id", "path", "label", "original_label", "patient_id", "split_given")
# Column names that the table, the pixel cache and the manifest fill themselves.
_RESERVED = frozenset(
    {*TABLE_COLUMNS, "group_id", "split", "fold", "sha256", "width", "height", "format"}
)
_SYSTEM_NAMES = frozenset({"__macosx", "thumbs.db", "desktop.ini", "ehthumbs.db"})
_MASK_FOLDERS = frozenset({"mask", "masks"})
MASKS_REASON = "a folder of masks, not of images"
_UNLISTED_REASON = "in the folder, but not named in metadata.csv"
_REFUSED = "refused: the path is empty, absolute or leads out of the data set's folder"
_TWO_LABELS = "listed with two different labels in metadata.csv"
_NIH_NAME = re.compile(r"(\d{8})_\d{3}")


def load_table(dataset: Dataset, root: str | Path) -> pd.DataFrame:
    """One row an image, sorted by image_id.

    Columns: image_id (path without its extension; with it where two files would share one id),
    path (POSIX, relative to root), label (canonical), original_label, patient_id (never empty:
    `image:<image_id>` where unknown), split_given ("", train, val or test), then every further
    column of metadata.csv under its own name (`metadata_<name>` where ours has that name), then
    those of clinical.csv (core.datasets.extra_tables).
    attrs: grouping (the rule, in words), augmented (as the data set says), skipped (list of
    {path, reason}), unlisted_n (how many of them are images that metadata.csv does not name).
    Raises DatasetError if no image can be used.
    """
    root = Path(root)
    if not root.is_dir():
        raise DatasetError(f"{root} is not a folder: give the folder that holds the images.")
    files, skipped = _walk(root)
    images = [path for path in files if _suffix(path) in IMAGE_SUFFIXES]
    unlisted: list[str] = []
    if "metadata.csv" in files:
        rows, further, unlisted = _rows_from_metadata(root / "metadata.csv", images, skipped)
        skipped += [{"path": path, "reason": _UNLISTED_REASON} for path in unlisted]
    else:
        rows, further = _rows_from_folders(root, images, skipped), []
        skipped += [
            {"path": path, "reason": "not an image by its extension"}
            for path in files
            if _suffix(path) not in IMAGE_SUFFIXES and "/" in path
        ]
    # Masks were never meant as images, so they come after whatever may be a mistake.
    skipped.sort(key=lambda entry: entry["reason"] == MASKS_REASON)
    if not rows:
        why = f" ({skipped[0]['path']}: {skipped[0]['reason']})" if skipped else ""
        raise DatasetError(
            f"No images to use in {root}{why}: expected one folder a class, train/ and test/ with "
            "class folders, or a metadata.csv with path,label."
        )
    add_ids(rows, images)
    if dataset.findings:
        further = further + _add_findings(rows, root, dataset.findings)
    further = further + join_clinical(rows, further, root, _RESERVED)
    for row in rows:
        row["label"] = canonical_label(row["original_label"], dataset.class_map)
    grouping = add_patients(rows, further)
    columns = [*TABLE_COLUMNS, *further]
    table = pd.DataFrame(rows, columns=columns).fillna("").sort_values("image_id", kind="stable")
    table = table.reset_index(drop=True)
    table.attrs.update(
        grouping=grouping,
        augmented=dataset.augmented,
        skipped=skipped,
        unlisted_n=len(unlisted),
    )
    return table


def find_image(root: str | Path, image_id: str) -> Path | None:
    """The file of that id below root, whatever its extension; None where there is none.

    The id is never trusted: one that is absolute or climbs out with `..` finds nothing.
    """
    relative = _safe_relative(image_id)
    if relative is None:
        return None
    parent, stem = Path(root, *PurePosixPath(relative).parts[:-1]), relative.rsplit("/", 1)[-1]
    try:
        names = sorted(entry.name for entry in os.scandir(parent) if entry.is_file())
    except (OSError, ValueError):
        return None
    hits = [name for name in names if _suffix(name) in IMAGE_SUFFIXES]
    # The id with its extension names one file exactly, so it comes before a mere stem.
    for name in [n for n in hits if n == stem] + [n for n in hits if stem_of(n) == stem]:
        return parent / name
    return None


def _walk(root: Path) -> tuple[list[str], list[dict]]:
    """All files below root as sorted POSIX paths, and what could not be looked into.

    Links to folders are followed (big data sets are often linked in), each real folder once.
    """
    files: list[str] = []
    skipped: list[dict] = []
    seen: set[str] = set()

    def note(error: OSError) -> None:
        relative = Path(error.filename or root).relative_to(root).as_posix()
        skipped.append({"path": relative, "reason": f"cannot be opened ({error.strerror})"})

    for folder, folders, names in os.walk(root, followlinks=True, onerror=note):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        relative = Path(folder).relative_to(root)
        for name in [n for n in folders if n.lower() in _MASK_FOLDERS]:
            path = (relative / name).as_posix()
            skipped.append({"path": path, "reason": MASKS_REASON})
        hidden = (*_SYSTEM_NAMES, *_MASK_FOLDERS)
        folders[:] = sorted(n for n in folders if n.lower() not in hidden and n[0] != ".")
        files += [
            (relative / n).as_posix()
            for n in names
            if n.lower() not in _SYSTEM_NAMES and n[0] != "."
        ]
    return sorted(files), skipped


def _rows_from_folders(root: Path, images: list[str], skipped: list[dict]) -> list[dict]:
    tops = {path.split("/", 1)[0] for path in images if "/" in path}
    splits = {top for top in tops if top.lower() in SPLIT_NAMES}
    depth = 2 if splits else 1
    rows = []
    for path in images:
        parts = path.split("/")
        if splits and parts[0] not in splits and len(parts) > 1:
            skipped.append({"path": path, "reason": "outside the train, val and test folders"})
        elif len(parts) <= depth:
            skipped.append({"path": path, "reason": "in no class folder"})
        else:
            given = SPLIT_NAMES[parts[0].lower()] if splits else ""
            rows.append({"path": path, "original_label": parts[depth - 1], "split_given": given})
    inner = {path.split("/")[1].lower() for path in images if path.count("/") >= 2}
    if not splits and len(tops) == 1 and "train" in inner:
        top = next(iter(tops))
        raise DatasetError(f"The train folder is one level deeper: give {root / top} instead.")
    return rows


class _NamedFiles:
    """The images of a folder as metadata.csv names them; `unnamed` has those left over."""

    def __init__(self, images: list[str]) -> None:
        self.unnamed = set(images)
        self._by_path = {unicodedata.normalize("NFC", image): image for image in images}
        # Re-encoded copies keep the id and change the extension, and the same table serves both.
        self._by_stem: dict[str, list[str]] = {}
        for key, image in self._by_path.items():
            self._by_stem.setdefault(stem_of(key), []).append(image)

    def find(self, named: str) -> tuple[str | None, str]:
        """(image, "") or (None, why there is none)."""
        relative = _safe_relative(named)
        if relative is None:
            return None, _REFUSED
        key = unicodedata.normalize("NFC", relative)
        same_stem = self._by_stem.get(stem_of(key), [])
        found = self._by_path.get(key) or (same_stem[0] if len(same_stem) == 1 else None)
        if found is None:
            return None, "named in metadata.csv, but the file is missing"
        self.unnamed.discard(found)
        return found, ""


def _rows_from_metadata(
    path: Path, images: list[str], skipped: list[dict]
) -> tuple[list[dict], list[str], list[str]]:
    """Usable rows of metadata.csv, its further columns, and the images that it does not name."""
    raw = read_text_table(path)
    lower = {column.lower(): column for column in reversed(raw.columns)}
    for needed in ("path", "label"):
        if needed not in lower:
            raise DatasetError(
                f"{path} has no column {needed!r}: expected path,label[,patient_id], received "
                f"{','.join(raw.columns)}."
            )
    taken = {lower["path"], lower["label"], lower.get("patient_id")}
    further = {
        column: f"metadata_{column}" if column in _RESERVED else column
        for column in raw.columns
        if column not in taken
    }
    files = _NamedFiles(images)
    rows: dict[str, dict] = {}
    contradicted: set[str] = set()
    for record in raw.to_dict("records"):
        named, label = record[lower["path"]], record[lower["label"]].strip()
        found, reason = files.find(named)
        if not label and reason != _REFUSED:
            reason = "no label in metadata.csv"
        elif found is None:
            pass  # the reason stands
        elif found in contradicted:
            reason = _TWO_LABELS
        elif found not in rows:
            given = record.get(lower.get("split", ""), "").strip().lower()
            rows[found] = {
                "path": found,
                "original_label": label,
                "patient_id": record.get(lower.get("patient_id", ""), "").strip(),
                "split_given": SPLIT_NAMES.get(given, ""),
                **{ours: record[column] for column, ours in further.items()},
            }
        elif rows[found]["original_label"] == label:
            reason = "listed twice in metadata.csv"
        else:
            contradicted.add(found)
            del rows[found]
            reason = _TWO_LABELS
        if reason:
            skipped.append({"path": named, "reason": reason})
    return list(rows.values()), list(further.values()), sorted(files.unnamed)


def add_ids(rows: list[dict], images: list[str]) -> None:
    """Fill every image_id: the path without its extension, or with it where two would be alike."""
    # Counted over the whole folder: an id must not depend on which files a table happens to name.
    count = Counter(stem_of(image) for image in images)
    for row in rows:
        stem = stem_of(row["path"])
        row["image_id"] = stem if count[stem] == 1 else row["path"]


def add_patients(rows: list[dict], further: list[str]) -> str:
    """Fill every patient_id and return the rule used, in words."""
    rules: Counter[str] = Counter()
    for row in rows:
        nih = _NIH_NAME.fullmatch(stem_of(row["path"].rsplit("/", 1)[-1]))
        if row.get("patient_id"):
            rules["patient id from metadata"] += 1
        elif "group" in further and row.get("group", "").strip():
            row["patient_id"] = row["group"].strip()
            rules["column group of metadata.csv, a guess at the case and not a patient id"] += 1
        elif nih:
            row["patient_id"] = f"nih-{nih[1]}"
            rules["patient number in the file name (ChestX-ray8 rule NNNNNNNN_NNN)"] += 1
        else:
            row["patient_id"] = f"image:{row['image_id']}"
            rules["patient unknown, each image its own group"] += 1
    if len(rules) == 1:
        return next(iter(rules))
    return "; ".join(f"{rule} ({n} images)" for rule, n in rules.most_common())


def _add_findings(rows: list[dict], root: Path, name: str) -> list[str]:
    """Finding, patient and view of the images in the table of that name, from published metadata.

    The table beside the folder comes first, else the one recorded with the code.
    """
    path = root.resolve().parent / name
    path = path if path.is_file() else SOURCES / name
    if not path.is_file():
        return []
    found = read_text_table(path)
    missing = {"path", "finding", "patient_id", "view"}.difference(found.columns)
    if missing:
        raise DatasetError(f"{path} has no column {min(missing)!r}: put the file as it was.")
    by_stem = {stem_of(record["path"]): record for record in found.to_dict("records")}
    for row in rows:
        record = by_stem.get(stem_of(row["path"]), {})
        row["finding"], row["view"] = record.get("finding", ""), record.get("view", "")
        row["patient_id"] = row.get("patient_id") or record.get("patient_id", "").strip()
    return ["finding", "view"]


def _suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def _safe_relative(text: str) -> str | None:
    """A clean POSIX path below the root, or None: absolute, with a drive, or climbing out."""
    text = text.strip().replace("\\", "/")
    parts = [part for part in text.split("/") if part not in ("", ".")]
    if not parts or text.startswith("/") or re.match(r"[A-Za-z]:", text) or "\0" in text:
        return None
    return None if ".." in parts else "/".join(parts)
