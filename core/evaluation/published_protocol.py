"""The published protocol: the papers' table with our pooled rows beside, and the target.

Ours are pooled out-of-fold figures (core.evaluation.cross_validation), each image answered for once
by the model of the fold that left it out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from core.evaluation.cross_validation import (
    Estimate,
    draw_rates,
    fold_count,
    fold_predictions,
    is_grouped,
    load_pooled,
    make_estimate,
    run_seed,
    trials_on_judged_images,
)
from core.evaluation.published_results import (
    DATASET,
    FIGURES,
    ROWS,
    TARGETS,
    TASKS,
    THREE,
    TWO,
    Published,
    PublishedTask,
)
from core.formatting import interval_text, join, percent
from core.metrics.bootstrap import rate_estimate
from core.metrics.classification import arrays_from_predictions
from core.runs.run import Run

# The papers average in ways of their own; ours are means over the classes.
MEANS = {"sensitivity": "macro_recall", "precision": "macro_precision", "f1": "macro_f1"}
BINARY = "binary.covid_vs_rest."


@dataclass(frozen=True)
class ProtocolRow:
    """One row of the table. model: None where the row is published; figures: FIGURES -> Estimate,
    a key absent where it is not known; grouped: whether patients are kept together."""

    label: str
    model: str | None
    task: PublishedTask
    figures: dict[str, Estimate]
    n: int
    grouped: bool
    protocol: str
    reference: str = ""

    @property
    def accuracy(self) -> Estimate:
        return self.figures["accuracy"]


@dataclass(frozen=True)
class TaskVerdict:
    """Our best row against the target row in one task; best is None where we have none."""

    task: PublishedTask
    best: ProtocolRow | None
    above: bool
    overlap: bool
    sentence: str


@dataclass(frozen=True)
class PublishedTarget:
    """status: "reached", "not reached" or "not judged"; basis: how it was judged."""

    status: str
    sentence: str
    tasks: tuple[TaskVerdict, ...] = ()
    basis: str = ""


# ------------------------------------------------------------------------------ the table


def is_published_set(run: Run) -> bool:
    """Whether the run's images are those of the published rows."""
    return run.info["dataset"].get("name") == DATASET


def protocol_words(run: Run) -> str:
    """Such as "5 folds, grouped by patient"."""
    how = "grouped by patient" if is_grouped(run) else "random: images of a patient on both sides"
    return f"{fold_count(run)} folds, {how}"


def table_rows(run: Run) -> list[ProtocolRow]:
    """The published rows, where they are about these images, then ours; by task."""
    rows = [_published_row(row) for row in ROWS] if is_published_set(run) else []
    for model, metrics in load_pooled(run).items():
        rows += _own_rows(run, model, metrics)
    return sorted(rows, key=lambda row: list(TASKS).index(row.task.key))


def _published_row(row: Published) -> ProtocolRow:
    figures = {key: getattr(row, key) for key in FIGURES}
    known = {key: Estimate(value / 100) for key, value in figures.items() if value is not None}
    known["accuracy"] = Estimate(row.accuracy / 100, *row.interval())
    return ProtocolRow(row.label, None, row.task, known, row.n, False, row.protocol, row.reference)


def _own_rows(run: Run, model: str, metrics: Mapping[str, Any]) -> list[ProtocolRow]:
    """Our row of one model in each task that its classes allow."""

    def row(task: PublishedTask, n: int, figures: Mapping[str, Estimate | None]) -> ProtocolRow:
        found = {key: figures.get(key) for key in FIGURES}
        known = {key: figure for key, figure in found.items() if figure is not None}
        return ProtocolRow(
            run.title(model), model, task, known, n, is_grouped(run), protocol_words(run)
        )

    intervals = metrics["intervals"]
    if set(run.class_names) == set(TWO.class_names):
        covid = metrics["binary"]["covid_vs_rest"]
        figures = {k: make_estimate(covid.get(k), intervals.get(BINARY + k)) for k in FIGURES}
        return [row(TWO, metrics["n"], figures)]
    if set(run.class_names) != set(THREE.class_names):
        return []
    names = {"accuracy": "accuracy", **MEANS}
    figures = {k: make_estimate(metrics[m], intervals.get(m)) for k, m in names.items()}
    figures["specificity"] = _mean_specificity(run, model)
    rows = [row(THREE, metrics["n"], figures)]
    two = metrics.get("two_class")
    if two:
        figures = {k: make_estimate(two.get(k), two["intervals"].get(k)) for k in FIGURES}
        rows.append(row(TWO, two["n"], figures))
    return rows


def _mean_specificity(run: Run, model: str) -> Estimate:
    """Mean of the classes' specificities, drawn here: metrics_folds.json has them one by one."""
    table, groups = fold_predictions(run, model)
    arrays = arrays_from_predictions(table, run.class_names)
    values, drawn = draw_rates(*arrays, groups, run_seed(run))
    value, means = values["specificity"].mean(), drawn["specificity"].mean(axis=1)
    return Estimate(**rate_estimate(value, means, len(set(groups))))


def published_table(run: Run) -> str:
    """The table as Markdown, and how to read it; "" where the run has no folds.

    Raises ArtifactError where a file of the folds is damaged.
    """
    rows = table_rows(run)
    if not any(row.model for row in rows):
        return ""
    head = ["", "task", *(f"{name}, %" for name in FIGURES), "n", "patients grouped", "protocol"]
    lines = [head, ["---"] * len(head)]
    for row in rows:
        label = f"**{row.label}**" if row.model else row.label
        grouped = "yes" if row.grouped else "no"
        lines.append(
            [label, row.task.title, *figure_cells(row), f"{row.n:,}", grouped, row.protocol]
        )
    table = "\n".join("| " + " | ".join(cells) + " |" for cells in lines)
    return f"{table}\n\nIn bold: this run. {table_note(run)}"


def figure_cells(row: ProtocolRow) -> list[str]:
    """FIGURES in percent with their intervals; published ones with the decimals that are printed,
    a dash where the paper gives none."""
    decimals = 1 if row.model else 2
    return [row.figures[key].text(decimals) if key in row.figures else "–" for key in FIGURES]


def table_note(run: Run) -> str:
    """How to read the table: whose intervals these are and what is averaged."""
    notes = ["Ours are pooled over the folds, with 95% intervals over patients."]
    if is_published_set(run):
        notes.append(
            "The papers give no intervals: those of their accuracies are ours (Wilson, every image "
            "for itself), and they average sensitivity to F1 in ways of their own."
        )
    else:
        notes.append(
            "No published rows stand beside: they are about the darkcovidnet images, and this run "
            "is about others."
        )
    if set(run.class_names) == set(THREE.class_names):
        notes.append(
            "Ours are means over the classes; with two classes they are those of covid, from the "
            "answers to the covid and no-findings images with the third probability left out, and "
            "not from a model trained for two."
        )
    return " ".join(notes)


# ------------------------------------------------------------------------------ the target


def judge_target(run: Run) -> PublishedTarget:
    """Whether one row of ours is above the published accuracy in both tasks, on grouped folds.

    Reached is a matter of the estimates; whether the intervals overlap is said beside it.
    Raises ArtifactError where a file of the folds is damaged.
    """
    reason = _not_judged(run)
    if reason:
        return PublishedTarget("not judged", f"The target was not judged: {reason}.")
    whole = _whole_pools(run)
    rows = [row for row in table_rows(run) if row.model in whole]
    tasks = tuple(
        _judge_task(task, [row for row in rows if row.task is task]) for task in TASKS.values()
    )
    basis = (
        f"Accuracy pooled over {protocol_words(run)}, against {TARGETS['three'].label}, whose "
        "folds are random. "
    )
    if len(whole) > 1:
        basis += f"The best of {len(whole)} rows was taken after looking, which flatters it. "
    ahead = len(trials_on_judged_images(run))
    if ahead:
        what = "1 recipe was" if ahead == 1 else f"{ahead} recipes were"
        basis += f"{what} read beforehand on images that are judged here, which flatters it too. "
    basis += (
        "Published intervals: Wilson on the published number of images, computed here; ours are "
        "over patients."
    )
    return PublishedTarget(*_status(run, rows, tasks), tasks, basis)


def _not_judged(run: Run) -> str | None:
    """Why the target cannot be judged on this run, in words; None where it can."""
    if not is_published_set(run):
        return "the published figures are about the darkcovidnet images, and this run's are others"
    if not load_pooled(run):
        return "the run has no folds"
    if not is_grouped(run):
        return "it asks for folds that keep the images of a patient together, and these are random"
    if run.info.get("leakage"):
        return "images of this run's test part are not independent of its training"
    if not set(run.class_names) <= set(THREE.class_names):
        return "the run has other classes"
    if not _whole_pools(run):
        return "not all images of the data set have an out-of-fold answer"
    return None


def _whole_pools(run: Run) -> list[str]:
    """Models whose folds answer for every image of the data set."""
    n = int(run.info["dataset"].get("n") or 0)
    return [model for model, metrics in load_pooled(run).items() if metrics["n"] >= n]


def _status(run: Run, rows: list[ProtocolRow], tasks: tuple[TaskVerdict, ...]) -> tuple[str, str]:
    """The verdict over both tasks, and its sentence."""
    words = join(f"{TARGETS[t.key].accuracy:.2f}\u202f% in {t.title}" for t in TASKS.values())
    missing = join(one.task.title for one in tasks if one.best is None)
    if missing:
        return "not judged", f"The target was not judged as a whole: no pooled figure in {missing}."
    ours = dict.fromkeys(row.model for row in rows if row.model is not None)
    above = {model: [r for r in rows if r.model == model and _is_above(r)] for model in ours}
    winners = {model: own for model, own in above.items() if len(own) == len(TASKS)}
    if winners:
        verb = "is" if len(winners) == 1 else "are"
        text = (
            f"Target reached: {join(run.title(model) for model in winners)} {verb} above {words}."
        )
        if any(_overlaps(row) for own in winners.values() for row in own):
            text += " Above is not yet better: the intervals overlap."
        return "reached", text
    only = [one.task.title for one in tasks if one.above]
    if len(only) == len(tasks):
        text = f"no single row is above both {words}"
    elif only:
        text = f"above in {only[0]} only, of {words}"
    else:
        text = f"no row is above {words.replace(' and ', ' or ')}"
    return "not reached", f"Target not reached: {text}."


def _judge_task(task: PublishedTask, rows: list[ProtocolRow]) -> TaskVerdict:
    target = TARGETS[task.key]
    low, high = target.interval()
    theirs = f"{target.accuracy:.2f}\u202f% ({interval_text((low, high))}, n = {target.n:,})"
    best = max(rows, key=lambda row: row.accuracy.value, default=None)
    if best is None:
        return TaskVerdict(task, None, False, False, f"{task.title}: not measured.")
    own, above, overlap = best.accuracy, _is_above(best), _overlaps(best)
    interval = interval_text((own.low, own.high))
    gap = abs(100 * own.value - target.accuracy)
    text = (
        f"{task.title}: {best.label} {percent(own.value, 2)} ({interval}, n = {best.n:,}) "
        f"against the published {theirs}, {gap:.2f} points {'above' if above else 'below'}; "
    )
    if not overlap:
        text += "the intervals do not overlap."
    elif above:
        text += f"with {best.n:,} images above is not yet better, for the intervals overlap."
    else:
        text += "the intervals overlap."
    return TaskVerdict(task, best, above, overlap, text)


def _is_above(row: ProtocolRow) -> bool:
    return 100 * row.accuracy.value > TARGETS[row.task.key].accuracy


def _overlaps(row: ProtocolRow) -> bool:
    """Whether its interval meets the published one; an unknown interval may."""
    low, high = TARGETS[row.task.key].interval()
    own = row.accuracy
    return own.low is None or own.high is None or (own.low <= high and own.high >= low)
