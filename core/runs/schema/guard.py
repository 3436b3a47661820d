"""guard/guard.json: what tells whether an image looks like those of the run."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from core.runs.schema.figures import Addition, Bounds


class Rate(Bounds):
    n: int
    share: float


class Accepted(Rate):
    n_patients: int


class GuardBounds(TypedDict):
    features: float
    layout: float


class SplitAcceptance(TypedDict):
    all: Accepted
    classes: dict[str, Accepted]
    columns: dict[str, dict[str, Accepted]]


class ExternalAcceptance(TypedDict):
    title: str
    all: Accepted
    classes: dict[str, Accepted]


class Acceptance(TypedDict):
    test: SplitAcceptance
    elsewhere: dict[str, ExternalAcceptance]


class Refusal(Rate):
    title: str
    refused: NotRequired[int]
    pictures: int
    looked_at: str


class Guard(Addition):
    """guard/guard.json."""

    model: str
    model_files: dict[str, str]
    subject: str
    modality: str
    input_size_px: int
    level: float
    method: str
    bounds: GuardBounds
    rule: str
    acceptance: Acceptance | None
    refusal: dict[str, Refusal]
    missing: list[str]
