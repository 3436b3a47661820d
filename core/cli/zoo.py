"""`python -m core zoo`: the models of all runs that share a protocol, ranked, as Markdown."""

from __future__ import annotations

import argparse

from core.cli.arguments import add_json_argument
from core.config import artifacts_root
from core.console import print_json, say

EXAMPLES = """examples:
  python -m core zoo
  python -m core zoo --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `zoo`."""
    add_json_argument(parser)


def run_command(args: argparse.Namespace) -> int:
    """Exit status 1 where a run had to be left out. Raises ZooError with nothing to rank."""
    from core.reporting.leaderboard.markdown import summarise_zoo, zoo_to_json
    from core.reporting.leaderboard.ranking import ZooError
    from core.runs.artifacts import ArtifactError, list_runs, open_run

    runs, left_out = [], 0
    for entry in list_runs(artifacts_root()):
        try:
            runs.append(open_run(entry.path))
        except ArtifactError as error:
            say(f"Run {entry.name} is left out: {error}")
            left_out = 1
    documents = zoo_to_json(runs) if args.json else summarise_zoo(runs)
    if not documents:
        raise ZooError(
            f"No run in {artifacts_root()} holds the networks of the field's notebooks; "
            "`make train-zoo` trains them."
        )
    print_json(documents) if args.json else print(documents)
    return left_out
