"""What cached readings of a run are kept by: its path, and times and sizes of the files read.

run_token: the run as it was trained. additions_token: with all that was added to it since.
predictor_token: with what predicts. BY_RUN, BY_ADDITIONS and BY_PREDICTOR are the `hash_funcs` of
Streamlit's caches for them.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from core.runs import artifacts
from core.runs.additions import ADDITION_FOLDERS, GUARD_FOLDER
from core.runs.run import Run, RunEntry

HashFuncs = dict[str | type[Any], Callable[[Any], Any]]


def run_token(run: Run | RunEntry) -> str:
    """What changes when the run is written anew, since run.json then holds new hashes."""
    return f"{os.path.abspath(run.path)}:{_stamp(run.path / artifacts.RUN_FILE)}"


def additions_token(run: Run, folders: Iterable[str] = ADDITION_FOLDERS) -> str:
    """What changes with the run, or when anything of `folders` is added, replaced or deleted."""
    files = [stamp for name in folders for stamp in _stamps_below(os.path.join(run.path, name))]
    return " ".join([run_token(run), *files])


def predictor_token(run: Run) -> str:
    """What changes when a model or the guard of a run is written anew, damaged or mended."""
    files = [run.path / model / name for model in run.served for name in artifacts.MODEL_FILES]
    return " ".join([additions_token(run, [GUARD_FOLDER]), *map(_stamp, files)])


def _stamps_below(folder: str) -> Iterator[str]:
    """A stamp of every file of a folder, however deep; none where there is no such folder.

    Page after page asks for it, dozens of times a drawing, so it lists and does not use Path.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    for entry in entries:
        if entry.is_dir():
            yield from _stamps_below(entry.path)
        else:
            yield f"{entry.path}:{_stamp(entry.path)}"


def _stamp(file: str | Path) -> str:
    try:
        status = os.stat(file)
    except OSError:
        return "gone"
    return f"{status.st_mtime_ns}:{status.st_size}"


BY_RUN: HashFuncs = {Run: run_token, RunEntry: run_token}
BY_ADDITIONS: HashFuncs = {Run: additions_token}
BY_PREDICTOR: HashFuncs = {Run: predictor_token}
