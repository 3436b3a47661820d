"""`python -m core bench`: how long the parts take on this machine."""

from __future__ import annotations

import argparse

from core.bench.registry import BENCHES
from core.cli.arguments import add_json_argument
from core.console import print_json

EXAMPLES = """examples:
  python -m core bench                     everything (half an hour of training, fuzz minutes)
  python -m core bench statistics zip      some of it
  python -m core bench audit --run release --json
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `bench`."""
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--run", help="the run whose audit is timed (default: newest)")
    add_json_argument(parser)


def run_command(args: argparse.Namespace) -> int:
    """Exit status 1 when something could not be measured; slowness is no failure."""
    from core.bench.measurement import to_json
    from core.bench.registry import run_benches

    results = run_benches(args.names, args.run)
    if args.json:
        print_json(to_json(results))
    return int(any(measured.value is None for measured in results))
