"""The matrices of `python -m core cross` as Markdown and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from core.evaluation.external.cross_dataset import Cell, Matrix
from core.formatting import percent, with_interval


def to_json(matrix: Matrix) -> dict[str, Any]:
    """A matrix as plain values; cells in a list, each with its `train` and `test`."""
    return {
        "model": matrix.model,
        "title": matrix.title,
        "names": matrix.names,
        "columns": matrix.columns,
        "runs": matrix.runs,
        "notes": matrix.notes,
        "cells": [asdict(cell) for cell in matrix.cells.values()],
    }


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
        text = with_interval(cell.balanced_accuracy, cell.intervals.get("balanced_accuracy"))
        home = cell.drop.get("balanced_accuracy")
        if home:
            counted += f", own test images {percent(home['internal'])}"
        return f"{text}, {counted}{marks}"
    found = [
        f"{name} found {with_interval(value, cell.intervals.get(f'recall.{name}'))}"
        for name, value in cell.sensitivity.items()
    ]
    return ", ".join([*found, counted]) + marks


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
