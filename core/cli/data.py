"""`python -m core data`: list the known data sets, or fetch and check one."""

from __future__ import annotations

import argparse
from pathlib import Path

import pandas as pd

from core.config import data_root
from core.console import fail, print_json, say
from core.datasets.folder import MASKS_REASON, load_table
from core.datasets.registry import (
    KNOWN,
    SOURCES,
    DatasetError,
    dataset_folder,
    order_classes,
    resolve_dataset,
)

_EXAMPLES = """examples:
  python -m core data                        which data sets there are, and which are here
  python -m core data darkcovidnet           download it, or go on where that broke off
  python -m core data path/to/folder --json  what any folder of images holds, as JSON
"""


def add_data_parser(subparsers: argparse._SubParsersAction) -> argparse.ArgumentParser:
    """Add the `data` command to the subparsers of `python -m core`; its `func` is run_data."""
    parser = subparsers.add_parser(
        "data",
        help="list known data sets, or fetch and check one",
        description="List known data sets, or fetch one (if it is not here) and check it.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("dataset", nargs="?", metavar="NAME|PATH", help="known name, or a folder")
    parser.add_argument(
        "--fetch",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="download what is not here, or draw it",
    )
    parser.add_argument("--base-url", help="a mirror of the published repository")
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(func=run_data)
    return parser


def run_data(args: argparse.Namespace) -> int:
    """Run the command; 0 fine, 1 some images are missing or left out, 2 nothing usable."""
    name = getattr(args, "dataset", None)
    as_json = getattr(args, "json", False)
    try:
        if not name:
            _show(_list_known(data_root()), as_json, _print_list)
            return 0
        report = _report(
            name,
            data_root(),
            fetch=getattr(args, "fetch", True),
            base_url=getattr(args, "base_url", None),
        )
    except DatasetError as error:
        return fail(str(error), as_json)
    except KeyboardInterrupt:
        return fail(f"Stopped: run `python -m core data {name}` again to go on.", as_json, 130)
    _show(report, as_json, _print_report)
    lost = [entry for entry in report["skipped"] if entry["reason"] != MASKS_REASON]
    return 1 if lost or report["problem"] else 0


def _list_known(root: Path) -> dict:
    entries = []
    for name, dataset in KNOWN.items():
        folder = dataset_folder(name, root)
        present = folder.is_dir()
        entry = {
            "name": name,
            "title": dataset.title,
            "modality": dataset.modality,
            "present": present,
            "images": None,
            "classes": {},
            "problem": None,
            "how_to_get": dataset.how_to_get,
            "homepage": dataset.homepage,
        }
        if present:
            try:
                table = load_table(dataset, folder)
                entry["images"], entry["classes"] = len(table), _class_counts(table)
            except DatasetError as error:
                entry["problem"] = str(error)
        elif (root / f"{name}.part").is_dir():
            entry["problem"] = (
                f"A download broke off: `python -m core data {name}` goes on with it."
            )
        entries.append(entry)
    return {"data_root": str(root), "datasets": entries}


def _report(name: str, root: Path, *, fetch: bool, base_url: str | None) -> dict:
    """What is in the data set, fetched first where it is a known one that can be."""
    problem, checked = None, None
    if name in KNOWN and fetch:
        problem = _fetch(name, root, base_url)
    dataset, folder = resolve_dataset(name, root)
    table = load_table(dataset, folder)
    if dataset.name == "darkcovidnet":
        checked = _check_hashes(folder)
        if checked and checked["wrong"] and not problem:
            problem = f"{len(checked['wrong'])} files are not the published ones."
    return {
        "name": dataset.name,
        "title": dataset.title,
        "modality": dataset.modality,
        "path": str(folder),
        "images": len(table),
        "classes": _class_counts(table),
        "splits_given": {k: int(v) for k, v in table["split_given"].value_counts().items() if k},
        "patients": int(table["patient_id"].nunique()),
        "grouping": table.attrs["grouping"],
        "augmented": dataset.augmented,
        "hashes": checked,
        "problem": problem,
        "skipped": table.attrs["skipped"],
        "unlisted": table.attrs["unlisted_n"],
        "caveats": list(dataset.caveats),
        "licence": dataset.licence,
        "attribution": dataset.attribution,
        "homepage": dataset.homepage,
    }


def _fetch(name: str, root: Path, base_url: str | None) -> str | None:
    """Fetch what is missing; a sentence where the folder is usable, but not whole."""
    from core.datasets.checksums import other_copy, read_records
    from core.datasets.fetch import fetch_dataset

    folder = dataset_folder(name, root)
    if folder.is_dir():
        recorded = name == "darkcovidnet"
        if not recorded or other_copy(folder, read_records(SOURCES / "darkcovidnet.csv")):
            return None
    try:
        fetch_dataset(name, root, base_url)
    except DatasetError as error:
        if not folder.is_dir():
            raise
        return str(error)
    return None


def _check_hashes(folder: Path) -> dict | None:
    """How many files are the published ones, byte for byte; None for re-encoded copies."""
    from core.datasets.checksums import check_recorded, other_copy, read_records

    records = read_records(SOURCES / "darkcovidnet.csv")
    if other_copy(folder, records):
        return None
    missing, wrong = check_recorded(folder, records)
    right = len(records) - len(missing) - len(wrong)
    return {"right": right, "wrong": [r.path for r in wrong], "missing": [r.path for r in missing]}


def _class_counts(table: pd.DataFrame) -> dict[str, int]:
    counts = table["label"].value_counts()
    return {label: int(counts[label]) for label in order_classes(table["label"])}


def _show(document: dict, as_json: bool, printer) -> None:
    if as_json:
        print_json(document)
    else:
        printer(document)


def _print_list(document: dict) -> None:
    say(f"Data sets in {document['data_root']} (set CXR_DATA to look elsewhere):")
    widest = max(len(entry["name"]) for entry in document["datasets"])
    for entry in document["datasets"]:
        classes = ", ".join(f"{label} {n}" for label, n in entry["classes"].items())
        state = entry["problem"] or (f"{entry['images']} images ({classes})" if classes else "")
        say(f"  {entry['name']:<{widest}} {state or 'not here: ' + entry['how_to_get']}")


def _print_report(report: dict) -> None:
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
    elif report["name"] == "darkcovidnet":
        say("  re-encoded copies, so the published hashes say nothing about them")
    for entry in report["skipped"][:10]:
        say(f"  left out: {entry['path']}: {entry['reason']}")
    if len(report["skipped"]) > 10:
        say(f"  left out: {len(report['skipped']) - 10} more (--json names them all)")
    for caveat in report["caveats"]:
        say(f"  note: {caveat}")
    if report["problem"]:
        say(report["problem"])
