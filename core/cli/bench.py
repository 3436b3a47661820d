"""`python -m core bench`: how long the parts take on this machine."""

from __future__ import annotations

import argparse

from core.bench.measurement import to_json
from core.bench.registry import BENCHES, run_benches
from core.console import print_json, say

EXAMPLES = """examples:
  python -m core bench                     everything (half an hour of training, fuzz minutes)
  python -m core bench statistics pages    some of it
  python -m core bench audit --run release --json
"""


def add_bench_parser(subparsers) -> None:
    """Add the `bench` command."""
    parser = subparsers.add_parser(
        "bench",
        help="measure statistics, pages, live answers, training, memory and the audit here",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--run", help="the run whose audit and pages are timed (default: newest)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(func=run_bench)


def run_bench(args: argparse.Namespace) -> int:
    """Exit status 1 when something could not be measured; slowness is no failure."""
    results = run_benches(args.names, args.run, say)
    if args.json:
        print_json(to_json(results))
    return int(any(measured.value is None for measured in results))
