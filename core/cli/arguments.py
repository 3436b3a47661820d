"""The run that a command names: its option, and the run or a sentence with those there are."""

from __future__ import annotations

import argparse
from pathlib import Path

from core.config import artifacts_root
from core.runs import artifacts
from core.runs.run import Run


def add_run_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--run`, the finished run that a command is about."""
    parser.add_argument(
        "--run", required=True, help="name of a run, a folder in artifacts/ (or $CXR_ARTIFACTS)"
    )


def add_data_argument(parser: argparse.ArgumentParser) -> None:
    """Add `--data`, where the run's own images are."""
    parser.add_argument(
        "--data", type=Path, metavar="PATH",
        help="folder that holds the run's images (default: its data set's in data/ or $CXR_DATA)",
    )  # fmt: skip


def open_named(name: str) -> Run:
    """The run of that name in artifacts/. Raises ArtifactError."""
    return artifacts.open_run(find_run(name))


def find_run(name: str) -> Path:
    """The run's folder, whole or not; ArtifactError where there is none."""
    path = artifacts_root() / name
    if not path.is_dir():
        known = ", ".join(entry.name for entry in artifacts.list_runs(artifacts_root())) or "none"
        raise artifacts.ArtifactError(
            f"No run {name!r} in {artifacts_root()}/. There are: {known}."
        )
    return path
