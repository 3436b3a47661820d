"""One measurement: what was done, the figure, and the limit that the project set itself."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from core.config import artifacts_root
from core.errors import UserError
from core.runs import artifacts
from core.runs.run import RunEntry

SECONDS = "s"


class BenchError(UserError):
    """A measurement that is not known; the message is one sentence."""


@dataclass(frozen=True)
class Measured:
    """One figure; value None where it could not be taken, and `note` says why.

    limit: for a machine with 2 cores; the value must be at most that, at_least: no less than that.
    """

    bench: str
    what: str
    value: float | None
    limit: float | None = None
    note: str = ""
    unit: str = SECONDS
    at_least: bool = False

    @property
    def within(self) -> bool | None:
        """Whether the limit was kept; None where there is none, or nothing was measured."""
        if self.value is None or self.limit is None:
            return None
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def describe(measured: Measured) -> str:
    """One line for people."""
    if measured.value is None:
        return f"{measured.what}: not measured ({measured.note})."
    unit = measured.unit
    text = f"{measured.what}: {_number(measured.value)} {unit}"
    if measured.limit is not None:
        share = measured.value / measured.limit if measured.limit else float(measured.value > 0)
        bound = "at least " if measured.at_least else ""
        text += f", {share:.2f} of the limit of {bound}{measured.limit:,g} {unit}"
        text += "" if measured.within else ", NOT within it"
    return text + (f" ({measured.note})." if measured.note else ".")


def to_json(results: list[Measured]) -> list[dict[str, Any]]:
    """Plain values, with `within` beside them."""
    return [asdict(measured) | {"within": measured.within} for measured in results]


def run_python(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Another process of this Python, with its output; `environment` is added to this one's."""
    return subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def last_line(text: str) -> str:
    """The last line of what a process said: why it failed, where it did."""
    return (text.strip().splitlines() or ["no reason given"])[-1]


def find_entry(name: str | None) -> RunEntry | None:
    """The run of that name, or the first that pages would show; None where there is none.

    Raises BenchError for a name that no readable run has.
    """
    entries = [entry for entry in artifacts.list_runs(artifacts_root()) if entry.problem is None]
    if name is None:
        return entries[0] if entries else None
    for entry in entries:
        if entry.name == name:
            return entry
    known = ", ".join(entry.name for entry in entries) or "none"
    raise BenchError(f"There is no run {name!r} that can be read. There are: {known}.")


def _number(value: float) -> str:
    return f"{value:,.0f}" if float(value).is_integer() and abs(value) >= 10 else f"{value:,.2f}"


Measurements = Iterator[Measured]
