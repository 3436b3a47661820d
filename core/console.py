"""What commands say: text for people on stderr, with --json one document on stdout."""

from __future__ import annotations

import json
import sys

from tqdm import tqdm

from core.files import jsonable


def say(text: str) -> None:
    """One line for people; stdout stays free for what programs read."""
    print(text, file=sys.stderr, flush=True)


def print_json(document: object) -> None:
    """The one JSON document of a command (NaN becomes null)."""
    print(json.dumps(jsonable(document), indent=2, allow_nan=False))


def fail(sentence: str, as_json: bool = False, status: int = 2) -> int:
    """Say why nothing came of it, with --json as a document too; returns the exit status."""
    say(sentence)
    if as_json:
        print_json({"error": sentence})
    return status


def progress(total: int, what: str, unit: str) -> tqdm:
    """A progress bar with time left on stderr; rare lines where it is no terminal."""
    quiet = not sys.stderr.isatty()
    return tqdm(
        total=total, desc=what, unit=unit, file=sys.stderr, dynamic_ncols=True,
        mininterval=30 if quiet else 0.2, leave=True,
    )  # fmt: skip
