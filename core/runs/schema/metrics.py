"""metrics.json and metrics_folds.json of a model."""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict

from core.runs.schema.figures import Interval, NoBounds


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
