"""`python -m core audit`: what a sceptical reader would ask of a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from core.cli.arguments import add_data_argument, add_json_argument, add_run_argument, open_named
from core.config import data_root
from core.console import print_json, say
from core.engine import PRECISIONS
from core.errors import UserError

if TYPE_CHECKING:
    from core.runs.run import Run

EXAMPLES = """examples:
  python -m core audit --run release
  python -m core audit --run release --probe FOLDER --json
  python -m core audit --run mine --data FOLDER --masks FOLDER --precision bf16
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `audit`."""
    add_run_argument(parser)
    add_data_argument(parser)
    parser.add_argument(
        "--probe",
        type=Path,
        metavar="PATH",
        help="folder of images from the covid images' own collection that show another disease "
        "(default for darkcovidnet: cohen-2020 or else kaggle-covid19-xray, where it is in data/)",
    )
    parser.add_argument(
        "--masks",
        type=Path,
        metavar="PATH",
        help="folder of lung masks under the images' names (default: one box for all)",
    )
    parser.add_argument(
        "--precision",
        choices=PRECISIONS,
        help="compute at another precision than the run's; the audit is marked with it",
    )
    add_json_argument(parser)


def run_command(args: argparse.Namespace) -> int:
    """Exit status 1 when some images, or the probe that was named, could not be used."""
    from core.datasets.registry import dataset_folder
    from core.evaluation.audit.run import audit_run
    from core.evaluation.audit.source_probe_images import default_probe
    from core.metrics.classification import COVID
    from core.runs.additions import load_audit, write_audit

    run = open_named(args.run)
    name = run.info["dataset"]["name"]
    probe = args.probe
    if probe is None and COVID in run.class_names:
        probe = default_probe(name, data_root())
        if probe is not None:
            say(f"Source probe: {probe.name}, the one for {name}; --probe takes another.")
    _keep_models(run)
    document = audit_run(
        run,
        args.data or dataset_folder(name, data_root()),
        probe=probe,
        masks=args.masks,
        precision=args.precision,
    )
    if args.data and document["blackout"] is None and document["perturbation"] is None:
        raise UserError(
            f"{args.data} holds none of the test images of run {run.name}; give the folder of the "
            "data set that the run was trained on."
        )
    _keep_better(run, document)
    write_audit(run, document, {})
    whole = load_audit(run)
    assert whole is not None, "it was written just now"
    for line in summary_lines(run, whole):
        say(line)
    if args.json:
        print_json(whole)
    unasked = args.probe is not None and document["probe"] is None
    return int(document["n_test"] == 0 or bool(document["excluded"]) or unasked)


def summary_lines(run: Run, document: dict) -> list[str]:
    """What an audit found, a line for each finding."""
    lines = [f"Leakage: {document['leakage']['sentence']}"]
    for section, key in (("blackout", None), ("probe", None), ("perturbation", "steepest")):
        if document[section] is None:
            continue
        for found in document[section]["models"].values():
            row = found[key] if key else found
            flag = " FLAGGED" if row.get("flagged") else ""
            lines.append(f"{section.capitalize()}{flag}: {row['sentence']}")
    lines.append(
        f"Audit of {run.name} written after {document['minutes']:.1f} minutes, asked at "
        f"{document['precision']} without mirrored copies."
    )
    return lines


def _keep_models(run: Run) -> None:
    """An audit of models that cannot be asked any more stays."""
    from core.runs.additions import load_audit
    from core.runs.missing_weights import check_no_loss

    earlier = load_audit(run) or {}
    asked = {
        model
        for name in ("blackout", "probe", "perturbation")
        for model in (earlier.get(name) or {}).get("models", {})
    }
    check_no_loss(run, "an audit", asked)


def _keep_better(run: Run, document: dict) -> None:
    """An audit made with the images is not replaced by one made without them."""
    from core.runs.additions import load_audit

    earlier = load_audit(run) if document["n_test"] == 0 else None
    if earlier is not None and earlier["blackout"] is not None:
        raise UserError(
            f"The images of run {run.name} are not here, and its audit of {earlier['created']} was "
            "made with them, so that one is kept; give --data to make it anew."
        )
