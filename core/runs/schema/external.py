"""external/<name>/external.json: a run's models on another data set."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from core.runs.schema.figures import (
    AccuracyEstimate,
    Bounds,
    Excluded,
    MaybeBounds,
    NoBounds,
    Skipped,
)


class Drop(MaybeBounds):
    internal: float
    external: float
    difference: float
    internal_low: NotRequired[float | None]
    internal_high: NotRequired[float | None]
    external_low: NotRequired[float | None]
    external_high: NotRequired[float | None]


class ExternalClassMetrics(TypedDict, total=False):
    recall: float | None
    support: int


class ExternalModel(TypedDict):
    n: int
    called: NotRequired[dict[str, int]]
    per_class: NotRequired[dict[str, ExternalClassMetrics]]
    intervals: NotRequired[dict[str, Bounds | NoBounds]]


class WithOverlap(AccuracyEstimate):
    n: int


class Finding(TypedDict):
    n: int
    called: dict[str, dict[str, int]]


class External(TypedDict):
    """external/<name>/external.json: a run's models on another data set."""

    name: str
    title: str
    n: int
    n_patients: int
    classes_present: list[str]
    classes_missing: list[str]
    caveats: list[str]
    classes_extra: dict[str, int]
    excluded: list[Excluded]
    models: dict[str, ExternalModel]
    drop: NotRequired[dict[str, dict[str, Drop | None]] | None]
    with_overlap: NotRequired[dict[str, WithOverlap] | None]
    findings: NotRequired[dict[str, Finding] | None]
    skipped: NotRequired[list[Skipped]]
