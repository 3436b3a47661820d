"""run.json, as training/run_metadata.py fills it."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

from core.runs.schema.figures import Bounds, NoBounds


class PartInfo(TypedDict):
    """One of the data sets that a run was trained on, where it was trained on several."""

    name: str
    folder: str
    title: NotRequired[str]
    n: NotRequired[Any]
    fingerprint: NotRequired[Any]
    classes: NotRequired[dict[str, int]]
    caveats: NotRequired[list[str]]
    licence: NotRequired[Any]
    attribution: NotRequired[Any]
    homepage: NotRequired[Any]


class DatasetInfo(TypedDict):
    name: str
    title: NotRequired[str]
    n: NotRequired[Any]
    caveats: NotRequired[list[str]]
    licence: NotRequired[Any]
    attribution: NotRequired[Any]
    homepage: NotRequired[Any]
    parts: NotRequired[list[PartInfo]]
    sources: NotRequired[list[str]]
    weighting: NotRequired[str]


class Task(TypedDict):
    classes: list[str]
    map: dict[str, str]
    left_out: dict[str, int]


class ShortcutBaseline(TypedDict, total=False):
    title: str
    kind: str
    accuracy: float | None
    macro_f1: float | None
    intervals: dict[str, Bounds | NoBounds]


class SharedImages(TypedDict):
    """What the test split shares with train and val."""

    patients: int
    images: int
    share: float
    exact: int
    near: int


class Status(TypedDict):
    status: str
    reason: NotRequired[str]


class CrossValidation(TypedDict):
    k: int
    split_policy: str
    rule: str
    models: dict[str, Status]


class SourceFolds(TypedDict):
    """Sources left out one at a time."""

    rule: str
    cannot_tell: dict[str, str]
    models: dict[str, Status]


class Calibration(TypedDict):
    temperature: float
    prior: dict[str, float]
    part: str
    n: int


class Conformal(TypedDict):
    alpha: float
    threshold: float
    part: str


class StageInfo(TypedDict):
    """core.models.recipes.Stage."""

    keep: NotRequired[str]  # "best" (on validation; also where nothing is said) or "last"


class RecipeInfo(TypedDict):
    """core.models.recipes.Recipe, as far as pages read it."""

    stages: NotRequired[list[StageInfo]]


class Trial(TypedDict):
    """A recipe that was compared before the test split was read."""

    model: str
    change: str
    images: str
    n: int
    log_loss: float
    accuracy: NotRequired[Any]
    kept: NotRequired[Any]


class Comparison(TypedDict):
    a: str
    b: str
    p_holm: float
    verdict: str
    draws: NotRequired[int]


class Devices(TypedDict):
    backend: str
    kind: str
    n: int
    distribution: str
    precision: str


class RateSearch(TypedDict):
    learning_rate: float


class RunInfo(TypedDict):
    """run.json."""

    format_version: int
    name: str
    created: str
    modality: NotRequired[str]
    dataset: DatasetInfo
    class_names: list[str]
    task: NotRequired[Task]
    models: list[str]
    kind: NotRequired[dict[str, str]]
    display: NotRequired[dict[str, str]]
    init: NotRequired[dict[str, str]]
    weights: NotRequired[dict[str, str]]  # "kept" or "not kept"; a model not named here is kept
    seed: int
    split_policy: NotRequired[str]
    grouping: NotRequired[str]
    recipes: NotRequired[dict[str, RecipeInfo]]
    recipes_tried: NotRequired[dict[str, int] | int]  # older runs: one number for all models
    input_size_px: int
    model_input_size_px: NotRequired[dict[str, int]]
    resize: NotRequired[str]
    precision: NotRequired[str]
    tta: NotRequired[str | list]  # older runs: a list
    floors: NotRequired[dict[str, ShortcutBaseline]]
    members: NotRequired[dict[str, list[str]]]
    leakage: NotRequired[SharedImages | None]
    near_duplicates: NotRequired[Any]
    folds: NotRequired[CrossValidation | None]
    inner: NotRequired[dict[str, Status] | None]
    source_folds: NotRequired[SourceFolds | None]
    calibration: NotRequired[dict[str, Calibration | None] | None]
    conformal: NotRequired[dict[str, Conformal | None] | None]
    trials: NotRequired[list[Trial]]
    comparisons: NotRequired[list[Comparison]]
    config: NotRequired[dict]
    devices: NotRequired[Devices]
    rate_search: NotRequired[dict[str, list[RateSearch]]]
    versions: NotRequired[dict]
    hardware: NotRequired[str | dict]
    command: NotRequired[str]
    files: dict[str, str]
