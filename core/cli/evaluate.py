"""`python -m core evaluate`: a run's models on its own test images, or on images from elsewhere."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.cli.arguments import add_run_argument, open_named
from core.config import cache_root, data_root
from core.console import print_json, progress, say
from core.datasets.registry import Dataset, dataset_folder, describe_folder, resolve_dataset
from core.evaluation.external.dataset import (
    UNREADABLE,
    ExternalError,
    OwnImages,
    find_own_images,
    name_external,
)
from core.evaluation.external.describe import external_lines
from core.evaluation.external.evaluate import evaluate_external
from core.evaluation.published_protocol import is_published_set, published_table
from core.evaluation.scoring import predictions_table, score_predictions
from core.imageio.decode import ImageError, read_image, resize_square
from core.inference.answers import open_models
from core.inference.ensemble import ModelGroup
from core.reporting.run_summary import score_line
from core.runs import additions, artifacts
from core.runs.missing_weights import check_no_loss, left_out, left_out_sentence, need_weights
from core.runs.run import Run

_EXAMPLES = """examples:
  python -m core evaluate --run release                             its own test images again
  python -m core evaluate --run release --data kaggle-covid19-xray  images from elsewhere
  python -m core evaluate --run release --data path/to/folder --name hospital-b --json

Images from elsewhere: one folder a class, train/ and test/ with class folders (all parts are used),
a metadata.csv with path,label[,patient_id], or images without labels flat in one folder. Those that
overlap with what the run learned from are left out and listed; the result is kept in the run.
"""


def add_evaluate_parser(subparsers: argparse._SubParsersAction) -> None:
    """Add the command `evaluate`."""
    parser = subparsers.add_parser(
        "evaluate",
        help="score a run's models on its test split again, or on images from elsewhere",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add_run_argument(parser)
    parser.add_argument(
        "--data", metavar="NAME|PATH",
        help="a known data set or a folder of images (default: the run's own in data/ or "
        "$CXR_DATA)",
    )  # fmt: skip
    parser.add_argument(
        "--name", help="what to keep the result on images from elsewhere under (default: theirs)"
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout")
    parser.set_defaults(func=run_evaluate)


def run_evaluate(args: argparse.Namespace) -> int:
    """Exit status 1 when some of the images could not be used."""
    run = open_named(args.run)
    if args.data is None:
        if args.name is not None:
            raise ExternalError("--name is for images from elsewhere: give them with --data.")
        root = dataset_folder(run.info["dataset"]["name"], data_root())
        return _evaluate_own(run, find_own_images(run, describe_folder(root), root), args.json)
    dataset, root = resolve_dataset(args.data, data_root())
    own = find_own_images(run, dataset, root)
    if own is None or (args.name is not None and not own.same_bytes):
        return _evaluate_external(run, dataset, root, args)
    if args.name is not None:
        raise ExternalError(
            f"{root} holds the test images of run {run.name} itself, so this is no external "
            "validation: leave --name out."
        )
    return _evaluate_own(run, own, args.json)


def _evaluate_own(run: Run, own: OwnImages | None, as_json: bool) -> int:
    """Predict the test split anew where its images are, else score predictions.csv again."""
    manifest = artifacts.load_manifest(run)
    test = manifest[manifest["split"] == "test"]
    excluded: list[dict] = []
    if own and run.served:
        source = "images"
        if left_out(run):
            say(left_out_sentence(run))
        tables, excluded = _predict_test(run, open_models(run), test, own.files)
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
        tables = {name: artifacts.load_predictions(run, name) for name in run.models}
    for entry in excluded:
        say(f"{entry['image_id']}: {entry['reason']}")
    if excluded:
        say(f"Scored without {len(excluded)} of the {len(test)} test images.")
    patients = manifest.set_index("image_id")["patient_id"]
    results = {}
    for name, table in tables.items():
        results[name] = score_predictions(
            table, patients, run.class_names, seed=int(run.info["seed"])
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


def _predict_test(
    run: Run, model_group: ModelGroup, test: pd.DataFrame, files: dict[str, Path | None]
) -> tuple[dict[str, pd.DataFrame], list[dict]]:
    """Each model's predictions of the images that can be read, and the others with the reason.

    Raises ImageError where none can be read.
    """
    # Decoded once and kept only as small as the models want them.
    pixels = {size: np.empty((len(test), size, size), np.uint8) for size in model_group.sizes_px}
    kept, excluded = [], []
    with progress(len(test), "Reading images", "image") as bar:
        for image_id in test["image_id"]:
            bar.update(1)
            file = files[image_id]
            try:
                if file is None:
                    raise ImageError("The image is not in the folder.")
                grey = read_image(file).pixels
            except ImageError as error:
                excluded.append({"image_id": image_id, "reason": str(error)})
                continue
            for size in pixels:
                pixels[size][len(kept)] = resize_square(grey, size)
            kept.append(image_id)
    if not kept:
        raise ImageError(
            f"None of the {len(test)} test images of run {run.name} can be used "
            f"(first: {excluded[0]['image_id']}: {excluded[0]['reason']})."
        )
    rows = test[test["image_id"].isin(kept)].assign(fold="")
    answers = model_group.ask({size: images[: len(kept)] for size, images in pixels.items()})
    names = [name for name in run.models if name in answers]
    tables = {name: predictions_table(rows, answers[name], run.class_names) for name in names}
    return tables, excluded


def _evaluate_external(run: Run, dataset: Dataset, root: Path, args: argparse.Namespace) -> int:
    """External validation, kept in the run as external/<name>."""
    name = name_external(dataset, args.name)
    document = evaluate_and_keep(run, dataset, root, name, replace=args.name is not None)
    say(f"Kept in run {run.name} as external/{name}. Research use, not for diagnosis.")
    if args.json:
        head = {"run": run.name, "data": dataset.name, "source": "images", "name": name}
        print_json({**head, **document})
    unread = [entry for entry in document["excluded"] if entry["kind"] == UNREADABLE]
    return int(bool(unread or document["skipped"]))


def evaluate_and_keep(
    run: Run, dataset: Dataset, root: Path, name: str, *, replace: bool = False
) -> dict[str, Any]:
    """Score the run on the images below root, say what came of it, and write external/<name>.

    replace: also where a result of other images has that name. Returns the document; raises what
    evaluate_external does, and ArtifactError where no model can be asked or figures of models that
    cannot be asked any more would be lost.
    """
    need_weights(run)
    if name in additions.list_external(run):
        earlier = additions.load_external(run, name)
        check_no_loss(run, f"a result named {name}", earlier["models"])
    result = evaluate_external(
        run,
        open_models(run),
        dataset,
        root,
        own_root=dataset_folder(run.info["dataset"]["name"], data_root()),
        cache_dir=cache_root(),
        name=None if replace else name,
    )
    for line in external_lines(run, result.document):
        say(line)
    additions.write_external(run, name, result.document, result.manifest, result.predictions)
    return result.document
