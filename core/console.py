"""What commands say: text for people on stderr, with --json one document on stdout."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING

from core.files import jsonable

if TYPE_CHECKING:
    from tqdm import tqdm


def say(text: str) -> None:
    """One line for people; stdout stays free for what programs read."""
    print(text, file=sys.stderr, flush=True)


class _Said(logging.Handler):
    """Log lines as `say` prints them."""

    def emit(self, record: logging.LogRecord) -> None:
        say(record.getMessage())


def show_log() -> None:
    """From now on what `core` logs (INFO and above) is said, each line as it is."""
    logger = logging.getLogger("core")
    if not any(isinstance(handler, _Said) for handler in logger.handlers):
        logger.addHandler(_Said())
    logger.setLevel(logging.INFO)


def print_json(document: object) -> None:
    """The one JSON document of a command (NaN becomes null)."""
    print(json.dumps(jsonable(document), indent=2, allow_nan=False))


def fail(sentence: str, as_json: bool = False, status: int = 2) -> int:
    """Say why nothing came of it, with --json as a document too; returns the exit status."""
    say(sentence)
    if as_json:
        print_json({"error": sentence})
    return status


def progress(
    total: int | None, what: str, unit: str, *, initial: int = 0, show: bool = True
) -> tqdm:
    """A progress bar with time left on stderr; rare lines where it is no terminal."""
    from tqdm import tqdm

    return tqdm(
        total=total,
        initial=initial,
        desc=what,
        unit=unit,
        file=sys.stderr,
        dynamic_ncols=True,
        mininterval=0.2 if sys.stderr.isatty() else 30,
        disable=not show,
    )
