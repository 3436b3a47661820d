"""`python -m core data`: list the known data sets, or fetch and check one."""

from __future__ import annotations

import argparse
from typing import Any

from core.cli.arguments import add_json_argument
from core.config import data_root
from core.console import fail, print_json, say

EXAMPLES = """examples:
  python -m core data                        which data sets there are, and which are here
  python -m core data darkcovidnet           download it, or go on where that broke off
  python -m core data path/to/folder --json  what any folder of images holds, as JSON
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `data`."""
    parser.description = "List known data sets, or fetch one (if it is not here) and check it."
    parser.add_argument("dataset", nargs="?", metavar="NAME|PATH", help="known name, or a folder")
    parser.add_argument(
        "--fetch",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="download what is not here, or draw it",
    )
    parser.add_argument("--base-url", help="a mirror of the published repository")
    add_json_argument(parser)


def run_command(args: argparse.Namespace) -> int:
    """Exit status 0 fine, 1 some images are missing or left out; DatasetError: nothing usable."""
    from core.datasets.folder import MASKS_REASON
    from core.datasets.report import list_known, report_dataset

    if not args.dataset:
        document = list_known(data_root())
        print_json(document) if args.json else _print_list(document)
        return 0
    try:
        report = report_dataset(args.dataset, data_root(), fetch=args.fetch, base_url=args.base_url)
    except KeyboardInterrupt:
        again = f"Stopped: run `python -m core data {args.dataset}` again to go on."
        return fail(again, args.json, 130)
    print_json(report) if args.json else _print_report(report)
    lost = [entry for entry in report["skipped"] if entry["reason"] != MASKS_REASON]
    return 1 if lost or report["problem"] else 0


def _print_list(document: dict[str, Any]) -> None:
    say(f"Data sets in {document['data_root']} (set CXR_DATA to look elsewhere):")
    widest = max(len(entry["name"]) for entry in document["datasets"])
    for entry in document["datasets"]:
        classes = ", ".join(f"{label} {n}" for label, n in entry["classes"].items())
        state = entry["problem"] or (f"{entry['images']} images ({classes})" if classes else "")
        say(f"  {entry['name']:<{widest}} {state or 'not here: ' + entry['how_to_get']}")


def _print_report(report: dict[str, Any]) -> None:
    from core.datasets.registry import KNOWN

    say(f"{report['title']} in {report['path']}")
    classes = ", ".join(f"{label} {n}" for label, n in report["classes"].items())
    say(f"  {report['images']} images: {classes}")
    if report["splits_given"]:
        splits = ", ".join(f"{split} {n}" for split, n in report["splits_given"].items())
        say(f"  its own split is kept: {splits}")
    say(f"  {report['patients']} patients or groups; {report['grouping']}")
    if report["augmented"]:
        say("  augmented copies are looked for when a run is trained, and kept together")
    if report["hashes"]:
        say(f"  {report['hashes']['right']} files are the published ones, by their hashes")
    elif (known := KNOWN.get(report["name"])) and known.recorded:
        say("  re-encoded copies, so the published hashes say nothing about them")
    for entry in report["skipped"][:10]:
        say(f"  left out: {entry['path']}: {entry['reason']}")
    if len(report["skipped"]) > 10:
        say(f"  left out: {len(report['skipped']) - 10} more (--json names them all)")
    for caveat in report["caveats"]:
        say(f"  note: {caveat}")
    if report["problem"]:
        say(report["problem"])
