"""guard/ of a run: what core.serving.guard.fit found, hashed like every addition
(core.runs.additions).
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from core.files import sha256_file
from core.runs import schema, schema_additions
from core.runs.additions import GUARD_FILE, GUARD_FOLDER, load_document, write_folder
from core.runs.artifacts import Run
from core.runs.readers import ArtifactError

GUARD_ARRAYS = "guard.npz"


def write_guard(run: Run, document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Path:
    """Write guard/: guard.json and the arrays (numbers and text) as guard.npz. Returns the folder.

    An earlier guard is replaced as a whole, once the new one is there.
    """
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    files = {GUARD_ARRAYS: packed.getvalue()}
    return write_folder(run.path / GUARD_FOLDER, GUARD_FILE, run, document, {}, files)


def load_guard_document(run: Run) -> dict[str, Any] | None:
    """guard/guard.json, None where no guard was fitted. Raises ArtifactError where damaged."""
    name = f"{GUARD_FOLDER}/{GUARD_FILE}"
    if not (run.path / name).is_file():
        return None
    document = load_document(run, name)
    problem = schema.find_problem(document, schema_additions.GUARD)
    if problem:
        raise damaged_guard(run, GUARD_FILE, problem)
    return document


def load_guard_files(run: Run) -> tuple[dict[str, Any], dict[str, np.ndarray]] | None:
    """guard.json and the arrays of guard.npz, None where no guard was fitted.

    Raises:
        ArtifactError: missing, changed since it was written, or damaged.
    """
    document = load_guard_document(run)
    if document is None:
        return None
    file = run.path / GUARD_FOLDER / GUARD_ARRAYS
    if not file.is_file():
        raise damaged_guard(run, GUARD_ARRAYS, "the file is missing")
    if document["files"].get(GUARD_ARRAYS) != sha256_file(file):
        raise damaged_guard(run, GUARD_ARRAYS, f"it differs from the hash in {GUARD_FILE}")
    try:
        with np.load(file, allow_pickle=False) as packed:
            return document, {name: packed[name] for name in packed.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise damaged_guard(run, GUARD_ARRAYS, "it is no archive of arrays") from error


def guard_command(run: Run) -> str:
    """What fits a guard."""
    return f"python -m core guard --run {run.name}"


def damaged_guard(run: Run, name: str, problem: str) -> ArtifactError:
    """One sentence: the file, what is wrong in it, and what to do."""
    return ArtifactError(
        f"{run.path.name}/{GUARD_FOLDER}/{name} is damaged: {problem}. Restore the file or fit the "
        f"guard anew with `{guard_command(run)}`."
    )
