"""`summary` and `verify`: what can be read from a run that exists."""

from __future__ import annotations

import argparse
from pathlib import Path

from core.cli.arguments import add_run_argument, find_run, open_named
from core.cli.evaluate import add_evaluate_parser
from core.config import artifacts_root
from core.console import say
from core.reporting.run_summary import summarise_run
from core.runs import artifacts
from core.runs.additions import verify_additions


def add_use_parsers(subparsers) -> None:
    """Add the commands `evaluate`, `predict`, `summary` and `verify`."""
    add_evaluate_parser(subparsers)
    summary = subparsers.add_parser(
        "summary", help="a run's models, floors and verdict as Markdown",
        epilog="example: python -m core summary --run release",
    )  # fmt: skip
    add_run_argument(summary)
    summary.set_defaults(func=run_summary)

    verify = subparsers.add_parser(
        "verify", help="hold the files of runs against their hashes",
        epilog="example: python -m core verify --run release",
    )  # fmt: skip
    verify.add_argument("--run", help="one run (default: all)")
    verify.set_defaults(func=run_verify)


def run_summary(args: argparse.Namespace) -> int:
    """Print what the README shows of a run."""
    print(summarise_run(open_named(args.run)), end="")
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """Exit status 1 when a run differs from what it was when written."""
    entries = artifacts.list_runs(artifacts_root())
    paths = [find_run(args.run)] if args.run else [entry.path for entry in entries]
    if not paths:
        raise artifacts.ArtifactError(f"No runs in {artifacts_root()}/. Run `make train-all`.")
    status = 0
    for path in paths:
        problems = artifacts.verify_run(path)
        problems += _addition_problems(path)
        say(f"{path.name}: {'whole' if not problems else 'DAMAGED'}")
        for problem in problems:
            say(f"  {problem}")
        status = max(status, int(bool(problems)))
    return status


def _addition_problems(path: Path) -> list[str]:
    """What is wrong with the audit and the external results of a run that can be opened."""
    try:
        return verify_additions(artifacts.open_run(path))
    except artifacts.ArtifactError:
        return []  # verify_run has said why
