"""Reading one file of a run: what is not as it must be is one sentence and never a traceback."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.errors import UserError


class ArtifactError(UserError):
    """A run that cannot be read or written; the message is one sentence a person can act on."""


def damaged(folder: Path, name: str, problem: str) -> ArtifactError:
    """One sentence: the file, what is wrong in it, and what to do."""
    return ArtifactError(
        f"{folder.name}/{name} is damaged: {problem}. Restore the file or train the run anew."
    )


def read_text(folder: Path, name: str) -> str:
    """A text file below `folder`. Raises ArtifactError."""
    try:
        return (folder / name).read_text(encoding="utf-8")
    except OSError as error:
        raise ArtifactError(f"{folder.name}/{name} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise damaged(folder, name, "it is not UTF-8 text") from error


def read_json(folder: Path, name: str) -> Any:
    """A JSON document below `folder`, of any kind. Raises ArtifactError."""
    text = read_text(folder, name)
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise damaged(folder, name, "it is not valid JSON") from error


def read_csv(
    folder: Path,
    name: str,
    columns: list[str],
    *,
    numbers: Sequence[str] = (),
    filled: Sequence[str] = (),
) -> pd.DataFrame:
    """A table with at least `columns`; all cells are text, apart from the columns `numbers`.

    An empty number is NaN; in the columns `filled` a finite number must stand in every row. Only
    an empty cell is empty: text such as "NA" stays text.
    """
    text = {column: str for column in columns if column not in numbers}
    empty = {column: ["", "nan"] for column in numbers}
    try:
        table = pd.read_csv(folder / name, dtype=text, keep_default_na=False, na_values=empty)
    except OSError as error:
        raise ArtifactError(f"{folder.name}/{name} cannot be read: {error.strerror}.") from error
    except ValueError as error:  # pandas' own errors and text that is not UTF-8 are ValueErrors
        raise damaged(folder, name, "it is not a table") from error
    missing = [column for column in columns if column not in table.columns]
    if missing:
        raise damaged(folder, name, f"it lacks the columns {', '.join(missing)}")
    for column in numbers:
        finite = np.isfinite(pd.to_numeric(table[column].astype(str), errors="coerce"))
        wrong = ~finite & (table[column].notna() | (column in filled))
        if wrong.any():
            row = int(wrong.to_numpy().argmax())
            found = "an empty cell" if table[column].isna().iloc[row] else table[column].iloc[row]
            where = f"`{column}` in row {row + 1}"
            raise damaged(folder, name, f"{where} must be a number, not {str(found)[:40]}")
    return table
