"""audit/audit.json; a section that was not done is null."""

from __future__ import annotations

from typing import NotRequired, TypedDict

from core.runs.schema.figures import AccuracyEstimate, Estimate, Excluded, Share


class LeakedPair(TypedDict):
    image_id_a: str
    split_a: str
    image_id_b: str
    split_b: str
    correlation: float | None


class SharedPatient(TypedDict):
    patient_id: str
    image_ids: dict[str, list[str]]


class SharedPatients(TypedDict):
    patients: int
    images: int
    examples: list[SharedPatient]


class Leakage(TypedDict):
    status: str
    checked: dict[str, int]
    method: str
    exact: list[LeakedPair]
    near: list[LeakedPair]
    shared_patients: dict[str, SharedPatients]


class Region(TypedDict):
    rule: str
    kind: str
    boxes: NotRequired[list[list[float]] | None]


class MaskedEstimate(AccuracyEstimate):
    kept: Share


class BlackoutModel(TypedDict):
    full: AccuracyEstimate
    without_lungs: dict[str, MaskedEstimate]
    lungs_only: dict[str, MaskedEstimate]
    sentence: NotRequired[str]


class MaskedBaseline(AccuracyEstimate):
    title: str


class MaskedBaselines(TypedDict):
    without_lungs: dict[str, MaskedBaseline]
    lungs_only: dict[str, MaskedBaseline]


class Blackout(TypedDict):
    region: Region
    majority_rate: float
    n: int
    fills: dict[str, str]
    models: dict[str, BlackoutModel]
    floors: dict[str, MaskedBaselines]
    rule: str


class CovidShare(Share):
    n: int


class ProbeModel(TypedDict):
    called: dict[str, int]
    covid: CovidShare


class ProbeImage(TypedDict):
    image_id: str
    predicted: dict[str, str]
    p_covid: dict[str, float]


class SourceProbe(TypedDict):
    title: str
    n: int
    n_patients: int
    question: str
    models: dict[str, ProbeModel]
    images: list[ProbeImage]
    excluded: list[Excluded]


class PerturbationKind(TypedDict):
    title: str
    unit: str
    strengths: list[float]
    neutral: float


class PerturbedEstimate(AccuracyEstimate):
    strength: float


class SteepestDrop(TypedDict):
    sentence: str


class PerturbationModel(TypedDict):
    baseline: AccuracyEstimate
    curves: dict[str, list[PerturbedEstimate]]
    steepest: SteepestDrop | None


class Perturbation(TypedDict):
    kinds: dict[str, PerturbationKind]
    models: dict[str, PerturbationModel]


class SubgroupSensitivity(Estimate):
    n: int
    n_patients: int


class SubgroupModel(TypedDict):
    accuracy: Estimate | None
    sensitivity: dict[str, SubgroupSensitivity]


class Subgroup(TypedDict):
    value: str
    n: int
    n_patients: int
    models: dict[str, SubgroupModel]


class SubgroupColumn(TypedDict):
    column: str
    title: str
    why: NotRequired[str | None]
    groups: list[Subgroup]


class LeftOutColumn(TypedDict):
    column: str
    reason: str


class Subgroups(TypedDict):
    min_n: int
    rule: NotRequired[str]
    left_out: NotRequired[list[LeftOutColumn]]
    columns: list[SubgroupColumn]


class Agreement(Estimate):
    n: int


class ReaderModel(TypedDict):
    n: int
    of: str
    label_agreement: Agreement
    questions: dict[str, Agreement]
    gap: dict[str, Agreement]


class Reader(TypedDict):
    n: int
    counts: dict[str, dict[str, int]]
    label: dict[str, Agreement]
    models: dict[str, ReaderModel]


class Readers(TypedDict):
    readers: dict[str, Reader]
    unknown: list[str]
    sentence: str


class DoubtfulImage(TypedDict):
    image_id: str
    label: str
    suggested: str
    quality: float
    p: dict[str, float]
    readings: dict[str, str]


class WithAndWithout(TypedDict):
    all: AccuracyEstimate
    without_doubtful: AccuracyEstimate


class DoubtfulLabels(TypedDict):
    method: str
    models: list[str]
    n: int
    n_doubtful: int
    suggested: dict[str, dict[str, int]]
    images: list[DoubtfulImage]
    scores: dict[str, WithAndWithout]


class Audit(TypedDict):
    """audit/audit.json; a section that was not done is null."""

    n_test: int
    models: list[str]
    missing: NotRequired[list[str]]
    excluded: NotRequired[list[Excluded]]
    leakage: Leakage | None
    blackout: Blackout | None
    probe: SourceProbe | None
    perturbation: Perturbation | None
    subgroups: Subgroups | None
    readers: NotRequired[Readers | None]
    doubtful_labels: NotRequired[DoubtfulLabels | None]
