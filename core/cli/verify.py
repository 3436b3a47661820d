"""`python -m core verify`: hold the files of runs against their hashes."""

from __future__ import annotations

import argparse
from pathlib import Path

from core.cli.arguments import find_run
from core.config import artifacts_root
from core.console import say

EXAMPLES = "example: python -m core verify --run release"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `verify`."""
    parser.add_argument("--run", help="one run (default: all)")


def run_command(args: argparse.Namespace) -> int:
    """Exit status 1 when a run differs from what it was when written."""
    from core.runs.artifacts import ArtifactError, list_runs

    root = artifacts_root()
    paths = [find_run(args.run)] if args.run else [entry.path for entry in list_runs(root)]
    if not paths:
        raise ArtifactError(f"No runs in {root}/. Run `make train-all`.")
    status = 0
    for path in paths:
        problems = _find_problems(path)
        say(f"{path.name}: {'whole' if not problems else 'DAMAGED'}")
        for problem in problems:
            say(f"  {problem}")
        status = max(status, int(bool(problems)))
    return status


def _find_problems(path: Path) -> list[str]:
    """What is wrong with a run and, where it can be opened, with what was added to it later."""
    from core.runs.additions import verify_additions
    from core.runs.artifacts import ArtifactError, open_run, verify_run

    problems = verify_run(path)
    try:
        return problems + verify_additions(open_run(path))
    except ArtifactError:
        return problems  # verify_run has said why
