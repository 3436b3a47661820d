"""`python -m dashboard.bench`: how long pages take, and people at once, on this machine."""

from __future__ import annotations

import argparse
import sys

from core.bench.measurement import to_json
from core.bench.registry import run_benches
from core.console import fail, print_json, show_log
from core.errors import UserError
from dashboard.bench.benches import BENCHES


def main(argv: list[str] | None = None) -> int:
    """Exit status 1 when something could not be measured; slowness is no failure."""
    parser = argparse.ArgumentParser(prog="python -m dashboard.bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHES)}")
    parser.add_argument("--run", help="the run whose pages are timed (default: newest)")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    args = parser.parse_args(argv)
    show_log()
    try:
        results = run_benches(args.names, args.run, BENCHES)
    except UserError as error:
        return fail(str(error), args.json)
    if args.json:
        print_json(to_json(results))
    return int(any(measured.value is None for measured in results))


if __name__ == "__main__":
    sys.exit(main())
