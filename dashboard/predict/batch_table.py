"""Rows of a batch -> the table that is shown, the one for a file, and what both say in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from core.models.names import is_control
from core.reporting.answer_reliability import votes
from core.runs.run import Run
from core.serving.predict import ImagePrediction, ModelPrediction
from dashboard.predict.batch import BatchProgress, BatchRow
from dashboard.predict.model_choice import chosen_models, plain_mean

ALL, RIGHT, REFUSED, SPLIT, FAILED = "all", "right", "refused", "split", "failed"
PICTURE, NAME, ARCHIVE, KIND, AGREE = "Picture", "File", "From", "Kind of picture", "Agreement"
REFUSED_MARK = " (refused)"


def voters(answer: ImagePrediction, models: Sequence[str]) -> list[ModelPrediction]:
    """The chosen models' answers that agreement is told of."""
    return votes([own for own in answer.predictions if own.model in models])


def agreement(answer: ImagePrediction, models: Sequence[str]) -> str:
    """How far the models agree, such as "2 of 3 say covid"; "" of fewer than two."""
    said = [own.predicted for own in voters(answer, models)]
    if len(said) < 2:
        return ""
    counts = {name: said.count(name) for name in said}
    top, most = max(counts.items(), key=lambda item: item[1])
    if list(counts.values()).count(most) > 1:
        return "no majority"
    return f"all say {top}" if most == len(said) else f"{most} of {len(said)} say {top}"


def disagree(answer: ImagePrediction, models: Sequence[str]) -> bool:
    """Whether the chosen models put different classes first."""
    return len({own.predicted for own in voters(answer, models)}) > 1


def kind_words(row: BatchRow) -> str:
    """What the guard says of the picture, or why there is no answer, in a table's cell."""
    if row.problem:
        return row.problem
    judgement = row.answer.judgement if row.answer else None
    if judgement is None:
        return "drawn (SYNTHETIC)" if row.synthetic else "not known"
    if judgement.synthetic:
        return "drawn (SYNTHETIC), let through"
    if judgement.looks_right:
        return "looks right"
    reasons = "; ".join(judgement.reasons)
    return f"refused: {reasons or judgement.sentence}"


def belongs(row: BatchRow, part: str, models: Sequence[str]) -> bool:
    """Whether a row is in one part of the table: ALL, RIGHT (not refused), REFUSED, SPLIT (not
    refused, and the models disagree) or FAILED (no answer)."""
    if part == ALL:
        return True
    if row.answer is None:
        return part == FAILED
    if part == REFUSED:
        return row.refused
    if part == SPLIT:
        return not row.refused and disagree(row.answer, models)
    return part == RIGHT and not row.refused


def count_parts(rows: Sequence[BatchRow], models: Sequence[str]) -> dict[str, int]:
    """Part -> how many rows are in it."""
    parts = (ALL, RIGHT, REFUSED, SPLIT, FAILED)
    return {part: sum(belongs(row, part, models) for row in rows) for part in parts}


def summary_words(
    rows: Sequence[BatchRow], progress: BatchProgress, subject: str, models: Sequence[str]
) -> str:
    """The table's answer in words. subject: what the run's guard lets through; "" without one."""
    n, counts = len(rows), count_parts(rows, models)
    if subject:
        drawn = sum(row.synthetic and not row.refused and row.answer is not None for row in rows)
        real = counts[RIGHT] - drawn
        words = [f"{real} of {n} look{'s' if real == 1 else ''} like {subject}"]
        words += [f"{drawn} {_be(drawn)} drawn (SYNTHETIC)"] if drawn else []
        words += [f"{counts[REFUSED]} {_do(counts[REFUSED])} not"] if counts[REFUSED] else []
    else:
        words = [f"{counts[RIGHT]} of {n} files were read"]
    if counts[FAILED]:
        files = "file" if counts[FAILED] == 1 else "files"
        words.append(f"{counts[FAILED]} {files} could not be read")
    if counts[SPLIT]:
        words.append(f"the models disagree on {counts[SPLIT]}")
    left = progress.n - progress.done
    if left:
        words.append(f"{left} {_be(left)} not done")
    return "; ".join(words) + "."


def _be(n: int) -> str:
    return "is" if n == 1 else "are"


def _do(n: int) -> str:
    return "does" if n == 1 else "do"


def shown_table(
    rows: Sequence[BatchRow], run: Run, models: Sequence[str], *, show_refused: bool
) -> pd.DataFrame:
    """One row a file, for the page: picture, file, kind, agreement, then for the mean and each
    model three columns: the class, its calibrated percent and the classes not ruled out.

    Answers of refused pictures are left out, or marked where show_refused.
    """
    titles = column_titles(run, models)
    table = []
    for row in rows:
        line: dict[str, object] = {
            PICTURE: row.thumbnail or None,
            # The table's own tool bar saves it as CSV, too.
            NAME: plain_text(row.name),
            ARCHIVE: plain_text(row.archive),
            KIND: kind_words(row),
        }
        answer = row.answer if show_refused or not row.refused else None
        mark = REFUSED_MARK if row.refused else ""
        line[AGREE] = agreement(answer, models) + mark if answer else ""
        for model, title in titles.items():
            own = _one(run, answer, model, models) if answer else None
            line[title] = own.predicted + mark if own else ""
            line[f"{title}, %"] = 100 * own.confidence if own else np.nan
            inside = getattr(own, "conformal_set", ())
            line[f"{title}, not ruled out"] = ", ".join(inside)
        table.append(line)
    columns = [PICTURE, NAME, ARCHIVE, KIND, AGREE]
    for title in titles.values():
        columns += [title, f"{title}, %", f"{title}, not ruled out"]
    return pd.DataFrame(table, columns=columns)


def column_titles(run: Run, models: Sequence[str]) -> dict[str, str]:
    """Model -> its column, means first; "" is one that nobody measured, where the run has none."""
    asked = chosen_models(run, models)
    ensembles = {model: run.title(model) for model in asked if run.members(model)}
    single = {model: run.title(model) for model in asked if not run.members(model)}
    counted = [model for model in single if not is_control(model)]
    if not ensembles and len(counted) > 1:
        ensembles[""] = f"Mean of the {len(counted)}"
    return ensembles | single


def _one(
    run: Run, answer: ImagePrediction, model: str, models: Sequence[str]
) -> ModelPrediction | None:
    return answer.of(model) if model else plain_mean(run, voters(answer, models))


def file_table(rows: Sequence[BatchRow], run: Run, *, show_refused: bool) -> pd.DataFrame:
    """One row a file with all numbers of all models (shares of 1, not percent), named as in the
    CSV of `python -m core predict`.

    refused says "yes" where the guard refused the picture; its answers are empty unless
    show_refused. error: why a file has no answer.
    """
    names = run.class_names
    lines = []
    for row in rows:
        judgement = row.answer.judgement if row.answer else None
        line: dict[str, object] = {
            "file": row.name,
            "archive": row.archive,
            "error": row.problem,
            "format": row.format,
            "width_px": row.width or None,
            "height_px": row.height or None,
            "synthetic": _yes(row.synthetic),
            "refused": "unknown" if judgement is None else _yes(row.refused),
            "guard_distance": judgement.distance if judgement else None,
            "guard_threshold": judgement.threshold if judgement else None,
            "guard_sentence": judgement.sentence if judgement else "",
        }
        answer = row.answer if show_refused or not row.refused else None
        line["agreement"] = agreement(answer, run.models) if answer else ""
        for model in run.models:
            own = answer.of(model) if answer else None
            line |= _figures(model, own, names)
        lines.append(line)
    table = pd.DataFrame(lines)
    return table.astype({"width_px": "Int64", "height_px": "Int64"})


def _figures(model: str, own: ModelPrediction | None, names: Sequence[str]) -> Mapping[str, object]:
    line: dict[str, object] = {f"{model}_predicted": own.predicted if own else ""}
    for kind, values in (
        ("p", own.probabilities if own else None),
        ("calibrated", own.calibrated if own else None),
    ):
        for place, name in enumerate(names):
            line[f"{model}_{kind}_{name}"] = None if values is None else float(values[place])
    line[f"{model}_conformal_set"] = "|".join(own.conformal_set) if own else ""
    return line


def plain_text(text: str) -> str:
    """Text that no spreadsheet takes for a formula, as tables.csv_download makes it."""
    return f"'{text}" if text[:1] in tuple("=+-@\t\r") else text


def _yes(value: bool) -> str:
    return "yes" if value else "no"
