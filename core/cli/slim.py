"""`python -m core slim`: delete a run's weights and keep its figures."""

from __future__ import annotations

import argparse

from core.cli.arguments import add_json_argument, add_run_argument, open_named, split_names
from core.console import print_json, say

EXAMPLES = """examples:
  python -m core slim --run zoo-darkcovidnet
  python -m core slim --run zoo-darkcovidnet --keep mobilenetv2,cnn

Every figure, curve and page stays as it was; only asking a model about new pictures needs weights.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `slim`."""
    add_run_argument(parser)
    parser.add_argument(
        "--keep",
        default=(),
        type=split_names,
        metavar="NAMES",
        help="models whose weights stay, with commas between them (default: none)",
    )
    add_json_argument(parser)


def run_command(args: argparse.Namespace) -> int:
    """Say how many MB were freed."""
    from core.reporting.model_card import refresh_cards
    from core.runs.missing_weights import join_titles, retrain_command
    from core.runs.prune import slim_run

    run, freed = slim_run(open_named(args.run), args.keep, refresh_cards)
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
