"""`python -m core cross`: every run on the data sets of the others, and a matrix for each model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from core.cli.arguments import open_named
from core.cli.evaluate import evaluate_and_keep
from core.config import artifacts_root, data_root
from core.console import print_json, say
from core.datasets.registry import DatasetError, resolve_dataset
from core.datasets.splits import ManifestError
from core.evaluation.external.cross_dataset import Cell, CrossError, Matrix, build_matrices
from core.evaluation.external.cross_dataset_rows import data_name
from core.evaluation.external.dataset import find_own_images, name_external
from core.imageio.decode import ImageError
from core.inference.served_model import InferenceError
from core.runs import additions, artifacts
from core.runs.artifacts import ArtifactError
from core.runs.missing_weights import left_out_sentence
from core.runs.run import Run

EXAMPLES = """examples:
  python -m core cross
  python -m core cross --runs release,zoo-kaggle --data kaggle-covid19-xray,darkcovidnet --json

Each run is scored on the data sets that the other runs were trained on, as `evaluate --data` does:
what overlaps with what it learned from is left out first, and the result is kept in the run. What
is there already is not made again. Runs that leak or were split at random take no part.
"""
_EXPECTED = (ArtifactError, DatasetError, ImageError, InferenceError, ManifestError, OSError)


def add_cross_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command `cross`."""
    parser = subparsers.add_parser(
        "cross",
        help="train on one, test on another: a matrix of data sets for each model",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--runs", type=_names, metavar="NAMES",
        help="only these runs, with commas between them (default: all that can be read)",
    )  # fmt: skip
    parser.add_argument(
        "--data", type=_names, metavar="NAMES",
        help="test on these data sets (default: those that the runs were trained on)",
    )  # fmt: skip
    parser.add_argument(
        "--again", action="store_true", help="score anew also where a result is there already"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(func=run_cross)


def run_cross(args: argparse.Namespace) -> int:
    """Exit status 1 when something could not be scored."""
    runs = _open_runs(args.runs)
    tasks = _list_tasks(runs, args.data)
    problems = []
    for number, (run, name) in enumerate(tasks, start=1):
        say(f"[{number}/{len(tasks)}] {run.name} on {name}:")
        try:
            _score(run, name, again=args.again)
        except _EXPECTED as error:
            say(f"  {error}")
            problems.append({"run": run.name, "data": name, "problem": str(error)})
    matrices = build_matrices(runs)
    if args.json:
        print_json(
            {"matrices": [to_json(matrix) for matrix in matrices.values()], "problems": problems}
        )
    else:
        print("\n\n".join(matrix_text(matrix) for matrix in matrices.values() if matrix.names))
        print("\nResearch use, not for diagnosis.")
    if problems:
        say(f"{len(problems)} of {len(tasks)} could not be scored; the reasons are above.")
    return int(bool(problems))


def _open_runs(names: Sequence[str] | None) -> list[Run]:
    if names is not None:
        if not names:
            raise CrossError("--runs names no run: give names with commas between them.")
        return [open_named(name) for name in dict.fromkeys(names)]
    runs = []
    for entry in artifacts.list_runs(artifacts_root()):
        if entry.problem is None:
            runs.append(artifacts.open_run(entry.path))
        else:
            say(f"Run {entry.name} is left out: {entry.problem}")
    if not runs:
        raise CrossError(f"No runs in {artifacts_root()}/ to cross. Run `make train-all`.")
    return runs


def _list_tasks(runs: Sequence[Run], data: Sequence[str] | None) -> list[tuple[Run, str]]:
    """Which run is to be scored on what: the runs that stand for a data set in any matrix."""
    standing = {name for matrix in build_matrices(runs).values() for name in matrix.runs.values()}
    chosen = [run for run in runs if run.name in standing]
    if not chosen:
        raise CrossError(
            "None of the runs can be crossed: their figures at home are too high, since each leaks "
            "or was split at random."
        )
    modalities = {data_name(run): run.modality for run in chosen}
    names = list(modalities) if data is None else list(dict.fromkeys(data))
    return [
        (run, name)
        for run in chosen
        for name in names
        if name != data_name(run) and modalities.get(name, run.modality) == run.modality
    ]


def _score(run: Run, source: str, *, again: bool) -> None:
    """Score the run on one data set, unless that is there; raises what evaluating raises."""
    there = Path(source).name
    if there in additions.list_external(run) and not again:
        asked = additions.load_external(run, there)["models"]
        lacking = [model for model in run.models if model not in asked]
        if not lacking:
            say("  there already (--again makes it anew).")
            return
        if not set(lacking) & set(run.usable_models):
            raise ArtifactError(left_out_sentence(run))
    dataset, root = resolve_dataset(source, data_root())
    if find_own_images(run, dataset, root) is not None:
        raise DatasetError(f"{root} holds test images of run {run.name} itself.")
    evaluate_and_keep(run, dataset, root, name_external(dataset, None), replace=again)


# ------------------------------------------------------------------------------ what is shown


def to_json(matrix: Matrix) -> dict[str, Any]:
    """A matrix as plain values; cells in a list, each with its `train` and `test`."""
    return {
        "model": matrix.model, "title": matrix.title, "names": matrix.names,
        "columns": matrix.columns, "runs": matrix.runs, "notes": matrix.notes,
        "cells": [asdict(cell) for cell in matrix.cells.values()],
    }  # fmt: skip


def matrix_text(matrix: Matrix) -> str:
    """The matrix as a Markdown table of balanced accuracy, with every reservation below it."""
    lines = [
        f"## {matrix.title}: trained on (rows), tested on (columns)",
        "Balanced accuracy, 95\u202f% interval over patients, images scored.",
        "",
        _line(["", *matrix.columns]),
        _line(["---"] * (1 + len(matrix.columns))),
    ]
    remarks: dict[str, int] = {}
    for row in matrix.names:
        cells = [cell_text(matrix.cells[row, column], remarks) for column in matrix.columns]
        lines.append(_line([f"{row}, run {matrix.runs[row]}", *cells]))
    lines += ["", *(f"[{number}] {text}" for text, number in remarks.items())]
    return "\n".join([*lines, *matrix.notes]).rstrip()


def cell_text(cell: Cell, remarks: dict[str, int]) -> str:
    """One cell; what has to be said about it is numbered in `remarks`."""
    said = [text for text in (cell.reason, cell.note) if text]
    marks = "".join(f" [{remarks.setdefault(text, len(remarks) + 1)}]" for text in said)
    if not cell.measured:
        return f"–{marks}"
    counted = f"n = {cell.n} ({', '.join(cell.classes) or 'no labels'})"
    if cell.n_left_out:
        counted += f", {cell.n_left_out} left out"
    if cell.balanced_accuracy is not None:
        text = _share(cell.balanced_accuracy, cell.intervals.get("balanced_accuracy"))
        home = cell.drop.get("balanced_accuracy")
        if home:
            counted += f", at home {100 * home['internal']:.1f}\u202f%"
        return f"{text}, {counted}{marks}"
    found = [
        f"{name} found {_share(value, cell.intervals.get(f'recall.{name}'))}"
        for name, value in cell.sensitivity.items()
    ]
    return ", ".join([*found, counted]) + marks


def _share(value: float, bounds: Sequence[float | None] | None) -> str:
    if bounds is None or None in bounds:
        return f"{100 * value:.1f}\u202f% (no interval)"
    return f"{100 * value:.1f}\u202f% ({100 * bounds[0]:.1f} to {100 * bounds[1]:.1f})"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
