"""metrics.json and metrics_folds.json of a model."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict

from core.runs.schema.figures import Estimate, Interval, NoBounds


class Rates(TypedDict):
    precision: float
    specificity: float
    f1: float
    auc: float | None


class ClassMetrics(Rates):
    recall: float
    support: int


class BinaryMetrics(Rates):
    sensitivity: float
    accuracy: float


class Binary(TypedDict):
    covid_vs_rest: BinaryMetrics


class Cost(TypedDict, total=False):
    params: float | None
    size_mb: float | None
    train_s: float | None
    latency_ms: float | None


class SensitivityOf(Estimate):
    """Sensitivity for a class, and the images of it that it rests on."""

    n: int
    n_patients: int


class SourceFigures(TypedDict):
    """The images of one source."""

    n: int
    n_patients: int
    small: NotRequired[Any]
    classes: dict[str, int]
    accuracy: Estimate
    sensitivity: dict[str, SensitivityOf]


class Metrics(TypedDict):
    """metrics.json of a model."""

    n: int
    n_patients: NotRequired[Any]
    accuracy: float
    balanced_accuracy: float
    macro_f1: float
    macro_precision: float
    macro_recall: float
    log_loss: float
    brier: float
    ece: float
    auc: float | None
    per_class: dict[str, ClassMetrics]
    confusion_matrix: list[list[int]]
    binary: NotRequired[Annotated[Binary, dict[str, dict]]]
    intervals: dict[str, Interval | NoBounds]
    cost: NotRequired[Cost | None]
    sources: NotRequired[dict[str, SourceFigures]]  # only of runs on several data sets


class FoldMetrics(TypedDict):
    fold: int
    n: int
    accuracy: float
    macro_f1: float


class Spread(TypedDict):
    mean: float
    sd: float | None


class TwoClassMetrics(TypedDict):
    n: int
    accuracy: float
    intervals: dict[str, Interval | NoBounds]


class PooledMetrics(Metrics):
    """metrics_folds.json of a model."""

    folds: list[FoldMetrics]
    spread: dict[str, Spread]
    two_class: TwoClassMetrics | None


class ShareOf(Estimate):
    """A share of n images of n_patients patients; null where there are none."""

    n: int
    n_patients: int


class Drop(TypedDict):
    """Covid sensitivity of the patient-grouped folds minus that of sources left out (paired)."""

    folds: float
    left_out: float
    difference: float
    low: float | None
    high: float | None
    n: int


class LeftOutMetrics(TypedDict):
    """metrics_sources.json of a model."""

    rule: str
    sources: dict[str, SourceFigures]
    cannot_tell: dict[str, str]  # source -> why
    covid_sensitivity: ShareOf | None
    false_covid: ShareOf | None
    false_covid_by_source: dict[str, ShareOf]
    drop: Drop | None
    drop_missing: str
    sentence: str
