"""A run: its models, classes and titles, as run.json says."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from core.models.names import is_control
from core.runs.schema.run import RunInfo

KEPT, NOT_KEPT = "kept", "not kept"  # what run.json's `weights` says of a model
# What a run and a model may be called: a folder's name on every system.
RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True)
class Run:
    """A run that can be read. `info` is run.json as written."""

    path: Path
    info: RunInfo

    @classmethod
    def in_progress(cls, path: Path, info: Mapping[str, Any]) -> Run:
        """A run that is still being made, of the keys that its run.json has so far."""
        return cls(path, cast(RunInfo, info))

    @property
    def name(self) -> str:
        return str(self.info["name"])

    @property
    def models(self) -> list[str]:
        return list(self.info["models"])

    @property
    def headline_models(self) -> list[str]:
        """The models that the run is about: all but controls."""
        return [model for model in self.models if not is_control(model)] or self.models

    @property
    def singles(self) -> list[str]:
        """The models that are no ensemble, whether or not their weights were kept."""
        return [model for model in self.models if not self.members(model)]

    @property
    def served(self) -> list[str]:
        """The models that have a file to serve; an ensemble is the mean of its members."""
        weights = self.info.get("weights") or {}
        return [model for model in self.singles if weights.get(model, KEPT) == KEPT]

    @property
    def usable_models(self) -> list[str]:
        """The models that can be asked: those served, and ensembles all of whose members are."""
        served = set(self.served)
        return [m for m in self.models if served.issuperset(self.members(m) or [m])]

    def members(self, model: str) -> list[str]:
        """The models whose mean an ensemble is; [] for a single model."""
        if self.info.get("kind", {}).get(model) != "ensemble":
            return []
        return list(self.info.get("members", {}).get(model, []))

    @property
    def class_names(self) -> list[str]:
        return list(self.info["class_names"])

    @property
    def modality(self) -> str:
        return str(self.info.get("modality", "xray"))

    @property
    def synthetic(self) -> bool:
        """Whether the images are drawn phantoms: every page must say so."""
        return self.modality == "phantom"

    def title(self, model: str) -> str:
        """The model's name for people, such as "ResNet50"."""
        return str(self.info.get("display", {}).get(model, model))


@dataclass(frozen=True)
class RunEntry:
    """One folder below the artifacts root; `problem` is a sentence when it cannot be opened."""

    name: str
    path: Path
    problem: str | None
