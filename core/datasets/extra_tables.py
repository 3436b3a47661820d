"""Tables beside a data set: what is known of the patients, and what further readers saw.

`clinical.csv` (path, then any facts, such as age_years, sex, view) and `readers.csv` (path, reader,
reading) lie in the data set's folder or in a folder of its name with "-extra" beside it. Rows are
matched by path, whatever the extension.
"""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pandas as pd

from core.datasets.registry import DatasetError, read_text_table

CLINICAL_FILE, READERS_FILE = "clinical.csv", "readers.csv"
EXTRA_SUFFIX = "-extra"
READER_COLUMNS = ("path", "reader", "reading")


def find_extra_table(root: Path, name: str) -> Path | None:
    """The table of that name in or beside the data set's folder, None where there is none."""
    root = root.resolve()
    for folder in (root, root.with_name(root.name + EXTRA_SUFFIX)):
        if (folder / name).is_file():
            return folder / name
    return None


def read_clinical(root: Path) -> pd.DataFrame | None:
    """clinical.csv as text, a row a path (the index: without extension); None where there is none.

    Raises DatasetError where it has no path or names one twice.
    """
    table = _read(root, CLINICAL_FILE, ("path",))
    if table is None:
        return None
    twice = table.index[table.index.duplicated()]
    if len(twice):
        raise DatasetError(f"{CLINICAL_FILE} of {root.name} names {twice[0]} twice; keep one row.")
    return table


def read_readings(root: Path) -> pd.DataFrame | None:
    """readers.csv as text: the path without extension as index, reader, reading; None without."""
    table = _read(root, READERS_FILE, READER_COLUMNS)
    return None if table is None else table[list(READER_COLUMNS[1:])]


def join_clinical(rows: list[dict], further: list[str], root: Path, reserved: frozenset) -> list:
    """Put the facts of clinical.csv into the rows; returns the columns that came with it.

    What metadata.csv says of an image stays; a blank there is filled. reserved: column names that
    the data set's table fills itself.
    """
    clinical = read_clinical(root)
    if clinical is None:
        return []
    new = [column for column in clinical.columns if column not in reserved]
    facts = clinical[new].to_dict("index")
    for row in rows:
        known = facts.get(stem_of(row["path"]), {})
        for column in new:
            row[column] = str(row.get(column) or "").strip() or known.get(column, "").strip()
    return [column for column in new if column not in further]


def stem_of(path: str) -> str:
    """A POSIX path without its extension."""
    return path[: len(path) - len(PurePosixPath(path).suffix)]


def _read(root: Path, name: str, needed: tuple[str, ...]) -> pd.DataFrame | None:
    file = find_extra_table(root, name)
    if file is None:
        return None
    table = read_text_table(file)
    missing = [column for column in needed if column not in table.columns]
    if missing:
        raise DatasetError(
            f"{file.parent.name}/{name} has no column {missing[0]!r}: expected "
            f"{','.join(needed)}, received {','.join(table.columns)}."
        )
    table.index = pd.Index([stem_of(path) for path in table["path"]], name="stem")
    return table.drop(columns="path") if name == CLINICAL_FILE else table
