"""Train on one data set, test on another: a matrix for each model, from what runs hold already.

Rows are what a model was trained on, columns what it was tested on. The diagonal is a run's own
test part; the rest is its external/<name>/, made by core.evaluation.external.evaluate after
everything that overlaps with what the run learned from was taken out. Nothing is computed anew and
no figure is filled in: a cell that was not measured says why. `python -m core cross` measures what
is missing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.datasets.registry import KNOWN
from core.errors import UserError
from core.evaluation.external.dataset import MODALITY_WORDS
from core.evaluation.external.run_choice import choose_runs, data_name
from core.runs import additions, artifacts
from core.runs.artifacts import ArtifactError
from core.runs.run import Run
from core.runs.schema.checking import find_problem
from core.runs.schema.external import External

FIGURES = ("accuracy", "balanced_accuracy", "macro_f1")
COMMAND = "python -m core cross"

Interval = tuple[float | None, float | None]


class CrossError(UserError):
    """Runs or models that cannot be crossed; the message is one sentence a person can act on."""


@dataclass(frozen=True)
class Cell:
    """One model trained on `train` (a row's name) and tested on the data set `test`.

    n images of n_patients were scored, of `classes`; n_left_out were not, left_out{kind: n} says
    why (core.evaluation.external.dataset: "class", "duplicate", "same patient", "unreadable").
    Figures are over the classes scored, and None where they are not defined; intervals {figure:
    (low, high)}, 95 % over patients, also of "recall.<class>". sensitivity {class: share}. called
    {class: n}. drop: off the diagonal, figure -> external.json's row of `drop` (internal: the same
    figure in-domain on the same classes). reason: why figures are missing, "" where all are there;
    note: what to know about the classes.
    """

    train: str
    test: str
    n: int = 0
    n_patients: int = 0
    n_left_out: int = 0
    classes: tuple[str, ...] = ()
    accuracy: float | None = None
    balanced_accuracy: float | None = None
    macro_f1: float | None = None
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    called: Mapping[str, int] = field(default_factory=dict)
    sensitivity: Mapping[str, float] = field(default_factory=dict)
    left_out: Mapping[str, int] = field(default_factory=dict)
    drop: Mapping[str, Mapping[str, float | None]] = field(default_factory=dict)
    in_domain: bool = False
    reason: str = ""
    note: str = ""

    @property
    def measured(self) -> bool:
        """Whether anything is known: images were scored."""
        return self.n > 0


@dataclass(frozen=True)
class Matrix:
    """Where one model was trained and tested.

    names: the rows, a data set each, with the classes behind it where a run took only some of them
    ("darkcovidnet (covid, normal)"); columns: the data sets tested on, the rows' first; runs {row:
    run}; cells {(row, column): Cell}, all of them; notes: which runs were passed over, and why.
    """

    model: str
    title: str
    names: tuple[str, ...]
    columns: tuple[str, ...]
    runs: Mapping[str, str]
    cells: Mapping[tuple[str, str], Cell]
    notes: tuple[str, ...] = ()


def build_matrix(runs: Sequence[Run], model: str) -> Matrix:
    """The matrix of one model over the runs that hold it; empty where none does."""
    return build_matrices(runs, [model])[model]


def build_matrices(runs: Sequence[Run], models: Iterable[str] | None = None) -> dict[str, Matrix]:
    """The matrix of each model (all that the runs hold where None), in the order of the runs."""
    names = list(dict.fromkeys(m for run in runs for m in run.models) if models is None else models)
    documents = {run.name: _load_documents(run) for run in runs}
    return {model: _build(runs, model, documents) for model in names}


def _build(runs: Sequence[Run], model: str, documents: Mapping[str, Mapping[str, Any]]) -> Matrix:
    counts = {
        run.name: sum(_holds(document, model) for document in documents[run.name].values())
        for run in runs
    }
    rows, notes = choose_runs(runs, model, counts)
    modalities = {name: known.modality for name, known in KNOWN.items()}
    modalities |= {data_name(run): run.modality for run in rows.values()}
    columns = list(dict.fromkeys(data_name(run) for run in rows.values()))
    for run in rows.values():
        found = documents[run.name]
        columns += [n for n in found if n not in columns and _holds(found[n], model)]
    cells = {}
    for row, run in rows.items():
        for column in columns:
            if column == data_name(run):
                cells[row, column] = _in_domain_cell(run, model, row)
            else:
                document = documents[run.name].get(column)
                cells[row, column] = _out_of_domain_cell(
                    run, model, row, column, document, modalities.get(column, run.modality)
                )
    title = next((run.title(model) for run in rows.values()), model)
    chosen = {row: run.name for row, run in rows.items()}
    return Matrix(model, title, tuple(rows), tuple(columns), chosen, cells, tuple(notes))


# ------------------------------------------------------------------------------ cells


def _in_domain_cell(run: Run, model: str, row: str) -> Cell:
    """A run's own test part."""
    try:
        metrics = artifacts.load_metrics(run, model)
        n_patients = metrics.get("n_patients")
        if not isinstance(n_patients, int):
            test = artifacts.load_manifest(run).query("split == 'test'")
            n_patients = int(test["patient_id"].nunique())
    except ArtifactError as error:
        return Cell(row, data_name(run), in_domain=True, reason=str(error))
    called = [sum(column) for column in zip(*metrics["confusion_matrix"], strict=True)]
    return Cell(
        row,
        data_name(run),
        n=metrics["n"],
        n_patients=n_patients,
        classes=tuple(run.class_names),
        accuracy=metrics["accuracy"],
        balanced_accuracy=metrics["balanced_accuracy"],
        macro_f1=metrics["macro_f1"],
        intervals=_intervals(metrics, run.class_names),
        called=dict(zip(run.class_names, called, strict=True)),
        sensitivity={name: metrics["per_class"][name]["recall"] for name in run.class_names},
        in_domain=True,
    )


def _out_of_domain_cell(
    run: Run, model: str, row: str, column: str, document: dict | str | None, modality: str
) -> Cell:
    """A result on an external data set, or why there is none."""
    if isinstance(document, str):
        return Cell(row, column, reason=document)
    if modality != run.modality:
        theirs, ours = (MODALITY_WORDS.get(m, m) for m in (modality, run.modality))
        return Cell(
            row,
            column,
            reason=f"{_capital(theirs)} are no {ours}: what a model that learned from {ours} says "
            "about them means nothing.",
        )
    if document is None or not _holds(document, model):
        return Cell(row, column, reason=_why_missing(run, model, column))
    far, present = document["models"][model], tuple(document["classes_present"])
    kinds = Counter(entry.get("kind", "other") for entry in document["excluded"])
    per_class = far.get("per_class") or {}
    whole = len(present) > 1
    accuracy, balanced, macro_f1 = (far.get(key) if whole else None for key in FIGURES)
    return Cell(
        row,
        column,
        n=far["n"],
        n_patients=far.get("n_patients", document["n_patients"]),
        n_left_out=len(document["excluded"]),
        classes=present,
        accuracy=accuracy,
        balanced_accuracy=balanced,
        macro_f1=macro_f1,
        intervals=_intervals(far, present),
        called=far.get("called") or {},
        sensitivity={
            name: per_class[name]["recall"]
            for name in present
            if per_class.get(name, {}).get("recall") is not None
        },
        left_out=dict(kinds),
        drop={k: row for k, row in ((document.get("drop") or {}).get(model) or {}).items() if row},
        reason="" if whole else _why_no_figure(present),
        note=_note(document),
    )


def _holds(document: dict | str, model: str) -> bool:
    return not isinstance(document, str) and model in document["models"]


def _load_documents(run: Run) -> dict[str, dict | str]:
    """external.json of every set, or the sentence that says what is wrong with it."""
    found: dict[str, dict | str] = {}
    for name in additions.list_external(run):
        try:
            found[name] = additions.load_external(run, name)
        except ArtifactError as error:
            found[name] = str(error)
            continue
        problem = find_problem(found[name], External)
        if problem:
            found[name] = f"{run.name}/external/{name}/external.json is damaged: {problem}."
    return found


def _intervals(figures: Mapping[str, Any], classes: Sequence[str]) -> dict[str, Interval]:
    stored = figures.get("intervals") or {}
    keys = [*FIGURES, *(f"recall.{name}" for name in classes)]
    return {key: (stored[key]["low"], stored[key]["high"]) for key in keys if key in stored}


# ------------------------------------------------------------------------------ words


def _why_missing(run: Run, model: str, column: str) -> str:
    if model not in run.usable_models:
        return (
            f"Not done, and the weights of {run.title(model)} were not kept in run {run.name}: "
            "train it again first."
        )
    return f"Not done: run `{COMMAND} --runs {run.name} --data {column}`."


def _why_no_figure(present: Sequence[str]) -> str:
    if not present:
        return "The images have no labels: what they were called is counted, and no more."
    return (
        f"All images that could be scored are {present[0]}: how many of them are found is known, "
        "and nothing about false alarms."
    )


def _note(document: Mapping[str, Any]) -> str:
    """What was scored where the classes of model and data set are not the same."""
    parts = []
    missing, extra = document["classes_missing"], document["classes_extra"]
    if missing and len(document["classes_present"]) > 1:
        either = " or ".join(missing)
        parts.append(f"No {either} there: calls of {either} count as errors.")
    if extra:
        counted = ", ".join(f"{n} {name}" for name, n in extra.items())
        parts.append(f"Left out, as the model does not know the class: {counted}.")
    return " ".join(parts)


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]
