"""What several commands take: the run that they are about, its images, names, JSON."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from core.config import artifacts_root

if TYPE_CHECKING:
    from core.runs.run import Run


def add_run_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--run`, the finished run that a command is about."""
    parser.add_argument(
        "--run", required=True, help="name of a run, a folder in artifacts/ (or $CXR_ARTIFACTS)"
    )


def add_data_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--data`, where the run's own images are."""
    parser.add_argument(
        "--data",
        type=Path,
        metavar="PATH",
        help="folder that holds the run's images (default: its data set's in data/ or $CXR_DATA)",
    )


def add_json_argument(parser: argparse._ActionsContainer) -> None:
    """Add `--json`."""
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")


def split_names(text: str) -> tuple[str, ...]:
    """The names in a text with commas between them."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def open_named(name: str) -> Run:
    """The run of that name in artifacts/. Raises ArtifactError."""
    from core.runs.artifacts import open_run

    return open_run(find_run(name))


def find_run(name: str) -> Path:
    """The run's folder, whole or not; ArtifactError where there is none."""
    from core.runs.artifacts import ArtifactError, list_runs

    path = artifacts_root() / name
    if not path.is_dir():
        known = ", ".join(entry.name for entry in list_runs(artifacts_root())) or "none"
        raise ArtifactError(f"No run {name!r} in {artifacts_root()}/. There are: {known}.")
    return path
