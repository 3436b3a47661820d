"""The run that a command names, or one sentence with the names there are."""

from __future__ import annotations

from pathlib import Path

from core import artifacts
from core.config import artifacts_root


def open_named(name: str) -> artifacts.Run:
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
