"""maps/maps.json: how far the heat maps of a run's models can be trusted."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict

from core.runs.schema.figures import Addition, Estimate


class AgainstBaseline(Estimate):
    difference: float | None
    verdict: str | None


class ScoresAgainst(TypedDict):
    hit: AgainstBaseline
    hit_exact: AgainstBaseline
    mass: AgainstBaseline


class Baselines(TypedDict):
    random: ScoresAgainst
    lungs: ScoresAgainst
    centre: ScoresAgainst


class PointingScores(TypedDict):
    n: int
    hit: Estimate
    hit_exact: Estimate
    mass: Estimate
    against: Baselines


class OverAll(TypedDict):
    all: PointingScores


PointingByClass = Annotated[dict[str, PointingScores], OverAll]


class Pointing(TypedDict):
    true: PointingByClass
    called: PointingByClass
    right: PointingByClass


class RandomizedLayers(TypedDict):
    n: int
    rank: float
    rank_abs: float
    ssim: float
    blank: float


class Sanity(TypedDict):
    n: int
    shuffles: int
    between: float | None
    last_layer: RandomizedLayers
    all_layers: RandomizedLayers


class RightMaps(Estimate):
    n: int


class MapsModel(TypedDict):
    method: str
    sentence: str
    n: int
    right: RightMaps
    called: dict[str, dict[str, int]]
    pointing: Pointing
    sanity: Sanity | None


class Phantoms(TypedDict):
    classes: list[str]
    with_lesion: list[str]
    per_class: int
    size_px: int


class Maps(Addition):
    """maps/maps.json."""

    status: str
    reason: str | None
    created: str
    minutes: NotRequired[Any]
    baselines: NotRequired[Any]
    phantoms: NotRequired[Phantoms]
    learned_from: NotRequired[str]
    tolerance_share: NotRequired[float]
    sanity_rule: NotRequired[str]
    models: dict[str, MapsModel]
