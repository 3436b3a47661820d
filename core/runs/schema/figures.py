"""What several documents hold: figures, shares and their intervals, images left out."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict


class Bounds(TypedDict):
    """The ends of an interval."""

    low: float
    high: float


class NoBounds(TypedDict):
    """Without two patients to draw from there is no interval, and both ends are null."""

    low: None
    high: None


class Interval(Bounds):
    level: float


class MaybeBounds(TypedDict):
    """The ends of an interval, each of which may be null for itself."""

    low: float | None
    high: float | None


class Estimate(MaybeBounds):
    """A figure with its interval; all null where there is nothing to compute it from."""

    value: float | None


class Share(MaybeBounds):
    share: float | None


class AccuracyEstimate(MaybeBounds):
    accuracy: float


class Addition(TypedDict):
    """What every document of an addition has: the hashes of the files beside it."""

    files: NotRequired[dict[str, Any]]


class Excluded(TypedDict):
    """An image that was left out."""

    image_id: str
    reason: str


class Skipped(TypedDict):
    """A file that is no image to use."""

    path: str
    reason: str
