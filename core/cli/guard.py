"""`python -m core guard`: fit what tells whether a picture looks like what a run learned from."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from core.cli.arguments import add_data_argument, add_json_argument, add_run_argument, open_named
from core.config import data_root
from core.console import print_json, say
from core.formatting import with_interval

if TYPE_CHECKING:
    from core.runs.run import Run
    from core.runs.schema.guard import Accepted, Guard

EXAMPLES = """examples:
  python -m core guard --run release
  python -m core guard --run mine --data FOLDER --json

Pictures of other things come with scikit-image, scikit-learn and pydicom, are drawn, or lie in
data/ (or $CXR_DATA). Of the run itself only the models' cards change; its folder guard/ is
replaced as a whole.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `guard`."""
    add_run_argument(parser)
    add_data_argument(parser)
    add_json_argument(parser)


def run_command(args: argparse.Namespace) -> int:
    """Exit status 1 when something could not be measured."""
    from core.datasets.registry import dataset_folder
    from core.reporting.model_card import refresh_cards
    from core.runs.additions import load_guard_document, write_guard
    from core.serving.guard.detector import build_guard
    from core.serving.guard.evaluate import measure_guard
    from core.serving.guard.fit import fit_guard

    run = open_named(args.run)
    root = args.data or dataset_folder(run.info["dataset"]["name"], data_root())
    document, arrays, model = fit_guard(run, root, data_root())
    # Measured as it will be read back, not as it was computed.
    guard = build_guard(document, arrays)
    document |= measure_guard(run, guard, model, root, data_root())
    write_guard(run, document, arrays)
    refresh_cards(run)
    whole = load_guard_document(run)
    assert whole is not None, "it was written just now"
    for line in summary_lines(run, whole):
        say(line)
    if args.json:
        print_json(whole)
    return int(bool(whole["missing"]))


def summary_lines(run: Run, document: Guard) -> list[str]:
    """What was measured, a line for each figure."""
    lines = [document["rule"]]
    if document["acceptance"]:
        test = document["acceptance"]["test"]
        lines.append(f"Keeps {_kept(test['all'])} of the test images.")
        for values in (test["classes"], *test["columns"].values()):
            lines += [f"  {name}: {_kept(row)}" for name, row in values.items()]
        for far in document["acceptance"]["elsewhere"].values():
            lines.append(f"Keeps {_kept(far['all'])} of {far['title']}.")
            lines += [f"  {name}: {_kept(row)}" for name, row in far["classes"].items()]
    for row in document["refusal"].values():
        looked = f"; looked at when choosing: {row['looked_at']}" if row["looked_at"] else ""
        lines.append(
            f"Refuses {with_interval(row['share'], row)} of {row['title']}: {row['refused']} of "
            f"{row['n']}, from {row['pictures']} pictures or patients{looked}."
        )
    lines.append(f"Guard of {run.name} written, by the features of {run.title(document['model'])}.")
    return lines


def _kept(row: Accepted) -> str:
    return f"{with_interval(row['share'], row)}, n = {row['n']} of {row['n_patients']} patients"
