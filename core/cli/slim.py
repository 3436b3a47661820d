"""`python -m core slim`: delete a run's weights and keep its figures."""

from __future__ import annotations

import argparse

from core.cli.arguments import add_run_argument, open_named
from core.console import print_json, say
from core.runs.missing_weights import join_titles, retrain_command
from core.runs.prune import slim_run

EXAMPLES = """examples:
  python -m core slim --run zoo-darkcovidnet
  python -m core slim --run zoo-darkcovidnet --keep mobilenetv2,cnn

Every figure, curve and page stays as it was; only asking a model about new pictures needs weights.
"""


def add_slim_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command `slim`."""
    parser = subparsers.add_parser(
        "slim",
        help="delete the weights of a run's models and keep its figures",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_run_argument(parser)
    parser.add_argument(
        "--keep", default=(), type=_names, metavar="NAMES",
        help="models whose weights stay, with commas between them (default: none)",
    )  # fmt: skip
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(func=run_slim)


def run_slim(args: argparse.Namespace) -> int:
    """Say how many MB were freed."""
    run, freed = slim_run(open_named(args.run), args.keep)
    say(f"{freed / 1e6:.1f} MB freed in run {run.name}.")
    if run.served:
        say(f"Kept: the weights of {join_titles(run, run.served)}.")
    gone = [model for model in run.singles if model not in run.served]
    if gone:
        say(
            f"`{retrain_command(run.info)}` trains the others again."
            if run.served
            else f"No weights are left; `{retrain_command(run.info)}` trains the models again."
        )
    if args.json:
        document = {"run": run.name, "freed_mb": freed / 1e6}
        print_json(document | {"kept": run.served, "not_kept": gone})
    return 0


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
