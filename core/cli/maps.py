"""`python -m core maps`: how far the heat maps of a run's models can be trusted."""

from __future__ import annotations

import argparse
from importlib.util import find_spec

from core.cli.arguments import add_json_argument, add_run_argument, open_named
from core.console import print_json, say
from core.errors import UserError

EXAMPLES = """example:
  python -m core maps --run release

Drawn phantoms with known lesions are shown to every model: does its map point at the lesion, more
than a random place or the centre would, and does it change when the weights are shuffled? Written
to the run's maps/ and into the models' cards. Takes a few minutes; no data set is needed.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `maps`."""
    add_run_argument(parser)
    add_json_argument(parser)


def run_command(args: argparse.Namespace) -> int:
    """Exit status 1 when the run's maps cannot be measured."""
    from core.evaluation.heatmaps.evaluate import measure_maps
    from core.reporting.model_card import refresh_cards
    from core.runs.additions import load_maps, write_maps
    from core.runs.missing_weights import check_no_loss, need_weights

    run = open_named(args.run)
    need_weights(run)
    earlier = load_maps(run)
    check_no_loss(run, "figures of heat maps", earlier["models"] if earlier else ())
    _need_skimage()
    document, table = measure_maps(run)
    write_maps(run, document, table)
    run = refresh_cards(run)
    whole = load_maps(run)
    assert whole is not None, "it was written just now"
    if whole["status"] != "done":
        say(f"Heat maps of {run.name} not measured: {whole['reason']}")
    else:
        say(whole["learned_from"])
        for found in whole["models"].values():
            say(found["sentence"])
        say(f"Written to run {run.name} and its cards after {whole['minutes']:.1f} minutes.")
    if args.json:
        print_json(whole)
    return int(whole["status"] != "done")


def _need_skimage() -> None:
    if find_spec("skimage") is None:
        raise UserError(
            "scikit-image is not installed, which this command needs; run `make setup`, or "
            "`pip install -r requirements.txt`."
        )
