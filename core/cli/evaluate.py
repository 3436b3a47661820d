"""`python -m core evaluate`: a run's models on its own test images, or on images from elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from core.cli.arguments import add_json_argument, add_run_argument, open_named
from core.config import data_root
from core.console import print_json, say
from core.errors import UserError

if TYPE_CHECKING:
    from core.datasets.registry import Dataset
    from core.evaluation.external.dataset import OwnImages
    from core.runs.run import Run

EXAMPLES = """examples:
  python -m core evaluate --run release                             its own test images again
  python -m core evaluate --run release --data kaggle-covid19-xray  images from elsewhere
  python -m core evaluate --run release --data path/to/folder --name hospital-b --json

Images from elsewhere: one folder a class, train/ and test/ with class folders (all parts are used),
a metadata.csv with path,label[,patient_id], or images without labels flat in one folder. Those that
overlap with what the run learned from are left out and listed; the result is kept in the run.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `evaluate`."""
    add_run_argument(parser)
    parser.add_argument(
        "--data",
        metavar="NAME|PATH",
        help="a known data set or a folder of images (default: the run's own in data/ or "
        "$CXR_DATA)",
    )
    parser.add_argument(
        "--name", help="what to keep the result on images from elsewhere under (default: theirs)"
    )
    add_json_argument(parser)


def run_command(args: argparse.Namespace) -> int:
    """Exit status 1 when some of the images could not be used."""
    from core.datasets.registry import dataset_folder, resolve_dataset
    from core.datasets.several import describe_own
    from core.evaluation.external.dataset import find_own_images

    run = open_named(args.run)
    if args.data is None:
        if args.name is not None:
            raise UserError("--name is for images from elsewhere: give them with --data.")
        root = dataset_folder(run.info["dataset"]["name"], data_root())
        known = describe_own(run.info["dataset"], root)
        return _evaluate_own(run, find_own_images(run, known, root), args.json)
    dataset, root = resolve_dataset(args.data, data_root())
    own = find_own_images(run, dataset, root)
    if own is None or (args.name is not None and not own.same_bytes):
        return _evaluate_external(run, dataset, root, args)
    if args.name is not None:
        raise UserError(
            f"{root} holds the test images of run {run.name} itself, so this is no external "
            "validation: leave --name out."
        )
    return _evaluate_own(run, own, args.json)


def _evaluate_own(run: Run, own: OwnImages | None, as_json: bool) -> int:
    """Predict the test split anew where its images are, else score predictions.csv again."""
    from core.evaluation.predict_test_split import predict_test_images
    from core.evaluation.published_protocol import is_published_set, published_table
    from core.evaluation.scoring import score_predictions
    from core.inference.ensemble import open_models
    from core.reporting.run_summary import score_line
    from core.runs.artifacts import load_manifest, load_predictions, sources_of
    from core.runs.missing_weights import left_out, left_out_sentence

    manifest = load_manifest(run)
    test = manifest[manifest["split"] == "test"]
    excluded: list[dict] = []
    if own and run.served:
        source = "images"
        if left_out(run):
            say(left_out_sentence(run))
        tables, excluded = predict_test_images(run, open_models(run), test, own.files)
        if not own.same_bytes:
            say(
                "None of these files is, byte for byte, one that the run was tested on: taken for "
                "re-encoded copies, because the folder has the data set's name."
            )
    else:
        source = "predictions.csv"
        say(
            f"{left_out_sentence(run)} So predictions.csv is scored again."
            if own
            else f"The images of {run.name} are not here, so predictions.csv is scored again."
        )
        tables = {name: load_predictions(run, name) for name in run.models}
    for entry in excluded:
        say(f"{entry['image_id']}: {entry['reason']}")
    if excluded:
        say(f"Scored without {len(excluded)} of the {len(test)} test images.")
    patients = manifest.set_index("image_id")["patient_id"]
    results = {}
    for name, table in tables.items():
        results[name] = score_predictions(
            table,
            patients,
            run.class_names,
            seed=int(run.info["seed"]),
            sources=sources_of(manifest),
        )
        say(score_line(run.title(name), results[name]))
    if is_published_set(run):
        beside = published_table(run)
        if beside:
            say(f"\nOut of fold, beside what was published on these images:\n\n{beside}")
    if as_json:
        document = {"run": run.name, "data": run.info["dataset"]["name"], "source": source}
        print_json({**document, "models": results, "excluded": excluded})
    return int(bool(excluded))


def _evaluate_external(run: Run, dataset: Dataset, root: Path, args: argparse.Namespace) -> int:
    """External validation, kept in the run as external/<name>."""
    from core.evaluation.external.dataset import UNREADABLE, name_external
    from core.evaluation.external.into_run import evaluate_into_run

    name = name_external(dataset, args.name)
    document = evaluate_into_run(run, dataset, root, name, replace=args.name is not None)
    say(f"Kept in run {run.name} as external/{name}. Research use, not for diagnosis.")
    if args.json:
        head = {"run": run.name, "data": dataset.name, "source": "images", "name": name}
        print_json({**head, **document})
    unread = [entry for entry in document["excluded"] if entry["kind"] == UNREADABLE]
    return int(bool(unread or document["skipped"]))
