"""`python -m core summary`: what docs/results.md shows of a run."""

from __future__ import annotations

import argparse

from core.cli.arguments import add_run_argument, open_named

EXAMPLES = "example: python -m core summary --run release"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `summary`."""
    add_run_argument(parser)


def run_command(args: argparse.Namespace) -> int:
    """Print the summary as Markdown."""
    from core.reporting.run_summary import summarise_run

    print(summarise_run(open_named(args.run)), end="")
    return 0
