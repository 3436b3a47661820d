"""`python -m core cross`: every run on the data sets of the others, and a matrix for each model."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from core.cli.arguments import add_json_argument, open_named, split_names
from core.config import artifacts_root
from core.console import print_json, say
from core.errors import UserError

if TYPE_CHECKING:
    from core.runs.run import Run

EXAMPLES = """examples:
  python -m core cross
  python -m core cross --runs release,zoo-kaggle --data kaggle-covid19-xray,darkcovidnet --json

Each run is scored on the data sets that the other runs were trained on, as `evaluate --data` does:
what overlaps with what it learned from is left out first, and the result is kept in the run. What
is there already is not made again. Runs that leak or were split at random take no part.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `cross`."""
    parser.add_argument(
        "--runs",
        type=split_names,
        metavar="NAMES",
        help="only these runs, with commas between them (default: all that can be read)",
    )
    parser.add_argument(
        "--data",
        type=split_names,
        metavar="NAMES",
        help="test on these data sets (default: those that the runs were trained on)",
    )
    parser.add_argument(
        "--again", action="store_true", help="score anew also where a result is there already"
    )
    add_json_argument(parser)


def run_command(args: argparse.Namespace) -> int:
    """Exit status 1 when something could not be scored."""
    from core.evaluation.external.cross_dataset import build_matrices
    from core.evaluation.external.cross_dataset_tasks import list_tasks, score_task
    from core.reporting.cross_dataset import matrix_text, to_json

    runs = _open_runs(args.runs)
    tasks = list_tasks(runs, args.data)
    problems = []
    for number, (run, name) in enumerate(tasks, start=1):
        say(f"[{number}/{len(tasks)}] {run.name} on {name}:")
        try:
            if not score_task(run, name, again=args.again):
                say("  there already (--again makes it anew).")
        except (UserError, OSError) as error:
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
    from core.runs.artifacts import list_runs, open_run

    if names is not None:
        if not names:
            raise UserError("--runs names no run: give names with commas between them.")
        return [open_named(name) for name in dict.fromkeys(names)]
    runs = []
    for entry in list_runs(artifacts_root()):
        if entry.problem is None:
            runs.append(open_run(entry.path))
        else:
            say(f"Run {entry.name} is left out: {entry.problem}")
    if not runs:
        raise UserError(f"No runs in {artifacts_root()}/ to cross. Run `make train-all`.")
    return runs
