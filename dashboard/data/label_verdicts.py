"""Verdicts that people give on doubtful labels: annotations/<run>/labels.csv, one row an image.

The only files that the dashboard writes. They lie beside the runs and never in one: a run is what
was measured. Every change reads the file again and writes it whole, under one lock a process, so
sessions keep each other's rows; a damaged file is named and never written over.
"""

from __future__ import annotations

import csv
import io
import threading
from collections.abc import Iterable
from dataclasses import astuple, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd

from core.config import annotations_root
from core.errors import UserError
from core.files import write_text
from core.runs.run import Run

LABELS_FILE = "labels.csv"
VERDICTS = ("keep", "wrong", "unsure")
_WRITING = threading.Lock()


class AnnotationError(UserError):
    """Verdicts that cannot be read or saved; the message is one sentence a person can act on."""


@dataclass(frozen=True)
class LabelVerdict:
    """What a person says of an image's label; at: when, UTC in ISO 8601."""

    image_id: str
    label: str
    suggested: str
    verdict: str
    at: str


COLUMNS = [field.name for field in fields(LabelVerdict)]
Verdicts = dict[str, LabelVerdict]  # image_id -> its verdict, in the order of the file


def verdicts_file(run: Run) -> Path:
    """Where the run's verdicts lie, there or not."""
    return annotations_root() / run.path.name / LABELS_FILE


def now() -> str:
    """The time of a verdict: UTC, ISO 8601."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def load_verdicts(file: Path) -> Verdicts:
    """All verdicts, none where there is no file. Raises AnnotationError where it is damaged."""
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            rows = list(csv.reader(stream, strict=True))
    except FileNotFoundError:
        return {}
    except (csv.Error, UnicodeDecodeError) as error:
        raise _damaged(file, "it is no UTF-8 CSV") from error
    except OSError as error:
        raise AnnotationError(f"{file} cannot be read: {error.strerror}.") from error
    if not rows or rows[0] != COLUMNS:
        raise _damaged(file, f"its first line must be {','.join(COLUMNS)}")
    found: Verdicts = {}
    for number, row in enumerate(rows[1:], start=2):
        problem = _row_problem(row, found)
        if problem:
            raise _damaged(file, f"row {number} {problem}")
        found[row[0]] = LabelVerdict(*row)
    return found


def verdict_table(verdicts: Verdicts) -> pd.DataFrame:
    """The file's columns, one row an image."""
    return pd.DataFrame([astuple(verdict) for verdict in verdicts.values()], columns=COLUMNS)


def save_verdict(file: Path, verdict: LabelVerdict) -> LabelVerdict | None:
    """Add a verdict or put it in the place of the image's earlier one, which is returned.

    Raises AnnotationError: the file is damaged or cannot be written; then nothing has changed.
    """
    with _WRITING:
        verdicts = load_verdicts(file)
        earlier = verdicts.get(verdict.image_id)
        verdicts[verdict.image_id] = verdict
        _write(file, verdicts.values())
    return earlier


def undo_verdict(file: Path, given: LabelVerdict, earlier: LabelVerdict | None) -> bool:
    """Put back what was there before `given`; False where another session has changed it since.

    Raises AnnotationError as save_verdict does.
    """
    with _WRITING:
        verdicts = load_verdicts(file)
        if verdicts.get(given.image_id) != given:
            return False
        if earlier is None:
            del verdicts[given.image_id]
        else:
            verdicts[given.image_id] = earlier
        _write(file, verdicts.values())
    return True


def _write(file: Path, verdicts: Iterable[LabelVerdict]) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(astuple(verdict) for verdict in verdicts)
    try:
        write_text(file, text.getvalue())
    except OSError as error:
        raise AnnotationError(
            f"The verdict was not saved: {file} cannot be written ({error.strerror}). Make the "
            "folder writable or point CXR_ANNOTATIONS at another one."
        ) from error


def _row_problem(row: list[str], earlier: Verdicts) -> str:
    """What is wrong with a row, "" where nothing is."""
    if len(row) != len(COLUMNS):
        return f"has {len(row)} cells instead of {len(COLUMNS)}"
    verdict = LabelVerdict(*row)
    if not verdict.image_id or verdict.image_id in earlier:
        return "has no image_id" if not verdict.image_id else "is a second one of the same image"
    if verdict.verdict not in VERDICTS:
        return f"has the verdict {verdict.verdict!r}, which is none of {', '.join(VERDICTS)}"
    return ""


def _damaged(file: Path, problem: str) -> AnnotationError:
    return AnnotationError(
        f"{file} is damaged: {problem}. Mend it or move it away; until then no verdict is saved, "
        "and nothing is written over it."
    )
