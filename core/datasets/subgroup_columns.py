"""Ways to group images by what is known of them beside their class and their pixels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from core.datasets.schema import SOURCE_COLUMN
from core.errors import UserError

MOST_VALUES = 12
UNKNOWN = "not recorded"
SIZE_BANDS = {512: "up to 512 px", 1024: "513 to 1024 px", 2048: "1025 to 2048 px"}
LARGEST = "over 2048 px"
AGE_BANDS = {17: "under 18", 39: "18 to 39", 64: "40 to 64"}
OLDEST = "65 and over"
# Words in the names of columns that name an image and not a kind of image.
_NAMING = frozenset(
    {
        *("id", "ids", "uid", "uuid", "hash", "sha256", "md5", "path", "file", "filename"),
        *("url", "uri", "doi", "license", "licence", "copyright"),
        *("note", "notes", "comment", "comments", "width", "height"),
    }
)
# Columns of the project's own, and those that size and format are made from.
_OURS = frozenset(
    {
        *("image_id", "path", "label", "original_label", "patient_id", "group_id", "sha256"),
        *("split", "split_given", "fold", "width", "height", "format", "metadata_split"),
        *("original_width", "original_height", "original_format"),
    }
)


class GroupingError(UserError):
    """A table that cannot be grouped; the message is one sentence a person can act on."""


@dataclass(frozen=True)
class Column:
    """One way to group images: the value (text) of each row of the manifest.

    order: the values in their natural order, empty where the largest group comes first.
    """

    name: str
    title: str
    values: np.ndarray
    order: tuple[str, ...] = ()


def list_columns(
    manifest: pd.DataFrame, table: pd.DataFrame | None
) -> tuple[list[Column], list[dict[str, str]]]:
    """The columns that make groups of the manifest's rows, and the others with the reason.

    Source and view come first, then the longest side and the format of the file (the original
    one where the table knows it), then whatever else has 2 to MOST_VALUES values.
    Raises GroupingError.
    """
    rows = manifest[["image_id", *([SOURCE_COLUMN] if SOURCE_COLUMN in manifest else [])]]
    if table is not None:
        if "image_id" not in table:
            raise GroupingError("The data set's table has no column image_id; list it anew.")
        # What the run recorded itself comes before what a table says of it today.
        further = table.drop(columns=[c for c in table if c in manifest and c != "image_id"])
        rows = rows.merge(further.drop_duplicates("image_id"), on="image_id", how="left")
    made = [_size_column(manifest, rows), _format_column(manifest, rows)]
    found: list[Column] = [column for column in made if column is not None]
    left_out: list[dict[str, str]] = []
    for name in [name for name in rows.columns if str(name).lower() not in _OURS]:
        values = _texts(rows[name])
        words = re.split(r"[^a-z0-9]+", str(name).lower())
        title = str(name).replace("_", " ").strip().capitalize()
        column, reason = Column(str(name), title, values), ""
        if set(words) & _NAMING:
            reason = "it names images or their files, not groups of them"
        elif "age" in words and len(np.unique(values)) > MOST_VALUES:
            column = Column(str(name), title, *_bands(_numbers(values), AGE_BANDS, OLDEST))
        n = len(np.unique(column.values))
        if not reason and n < 2:
            reason = f"all images have one value ({column.values[0]})"
        elif not reason and n > MOST_VALUES:
            reason = f"{n:,} different values; 2 to {MOST_VALUES} make groups"
        if reason:
            left_out.append({"column": str(name), "reason": reason})
        else:
            found.append(column)
    first = ("source", "view")
    found.sort(key=lambda c: first.index(c.name.lower()) if c.name.lower() in first else len(first))
    return found, left_out


def _size_column(manifest: pd.DataFrame, rows: pd.DataFrame) -> Column | None:
    """The longest side in bands, of the original file where that is known."""
    for table, prefix, title in (
        (rows, "original_", "Longest side of the original file"),
        (manifest, "", "Longest side of the file"),
    ):
        sides = [f"{prefix}width", f"{prefix}height"]
        if set(sides) <= set(table.columns):
            longest = np.fmax(*(_numbers(_texts(table[side])) for side in sides))
            if np.isfinite(longest).any():
                return Column(f"{prefix}size", title, *_bands(longest, SIZE_BANDS, LARGEST))
    return None


def _format_column(manifest: pd.DataFrame, rows: pd.DataFrame) -> Column | None:
    for table, name, title in (
        (rows, "original_format", "Format of the original file"),
        (manifest, "format", "File format"),
    ):
        if name in table.columns:
            values = _texts(table[name])
            if (values != UNKNOWN).any() and len(np.unique(values)) <= MOST_VALUES:
                return Column(name, title, values)
    return None


def _bands(
    numbers: np.ndarray, bands: Mapping[int, str], above: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Numbers (n,) as the name of the first band whose upper end they do not exceed."""
    names = (*bands.values(), above, UNKNOWN)
    index = np.searchsorted(list(bands), np.nan_to_num(numbers))
    index = np.where(np.isfinite(numbers), index, len(names) - 1)
    return np.array(names, dtype=object)[index], names


def _texts(column: pd.Series) -> np.ndarray:
    """Stripped text (n,), UNKNOWN where there is none."""
    text = column.astype(object).where(column.notna(), "").astype(str).str.strip()
    return text.where(text != "", UNKNOWN).to_numpy(dtype=object)


def _numbers(values: np.ndarray) -> np.ndarray:
    """The first number in each text ("064Y" -> 64), NaN where there is none."""
    found = pd.Series(values, dtype=object).astype(str).str.extract(r"(\d+(?:\.\d+)?)")[0]
    return pd.to_numeric(found).to_numpy(dtype=np.float64)
