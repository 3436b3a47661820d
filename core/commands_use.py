"""`evaluate`, `predict`, `summary` and `verify`: what can be done with a run that exists."""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm import tqdm

from core import artifacts
from core.config import artifacts_root, data_root
from core.console import print_json, say
from core.evaluation import predictions_table, score_predictions
from core.files import write_csv
from core.images import ImageError, decode_image, read_bytes, read_image, resize_square
from core.inference import load_model
from core.listing import IMAGE_SUFFIXES, find_image
from core.metrics import predicted_index
from core.summary import score_line, summarise_run

_RUN_HELP = "name of a run, a folder in artifacts/ (or $CXR_ARTIFACTS)"
_JSON_HELP = "one JSON document on stdout"


def add_use_parsers(subparsers) -> None:
    """Add the commands `evaluate`, `predict`, `summary` and `verify`."""
    evaluate = subparsers.add_parser(
        "evaluate", help="score a run's models on its test split again",
        epilog="example: python -m core evaluate --run release --json",
    )  # fmt: skip
    evaluate.add_argument("--run", required=True, help=_RUN_HELP)
    evaluate.add_argument(
        "--data", type=Path, metavar="PATH",
        help="folder that holds the run's images (default: its data set's in data/ or $CXR_DATA)",
    )  # fmt: skip
    evaluate.add_argument("--json", action="store_true", help=_JSON_HELP)
    evaluate.set_defaults(func=run_evaluate)

    predict = subparsers.add_parser(
        "predict", help="ask every model of a run about image files",
        epilog="example: python -m core predict --run release image.png folder/ --csv out.csv",
    )  # fmt: skip
    predict.add_argument("--run", required=True, help=_RUN_HELP)
    predict.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH", help="image files, or folders that hold some"
    )
    output = predict.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help=_JSON_HELP)
    output.add_argument("--csv", type=Path, metavar="FILE", help="write a table, a row an image")
    predict.set_defaults(func=run_predict)

    summary = subparsers.add_parser(
        "summary", help="a run's models, floors and verdict as Markdown",
        epilog="example: python -m core summary --run release",
    )  # fmt: skip
    summary.add_argument("--run", required=True, help=_RUN_HELP)
    summary.set_defaults(func=run_summary)

    verify = subparsers.add_parser(
        "verify", help="hold the files of runs against their hashes",
        epilog="example: python -m core verify --run release",
    )  # fmt: skip
    verify.add_argument("--run", help="one run (default: all)")
    verify.set_defaults(func=run_verify)


def run_evaluate(args: argparse.Namespace) -> int:
    """Predict the test split anew where its images are, else score predictions.csv again.

    Exit status 1 when some of the images could not be used.
    """
    run = _open(args.run)
    manifest = artifacts.load_manifest(run)
    test = manifest[manifest["split"] == "test"]
    root = args.data or data_root() / run.info["dataset"]["name"]
    files = {image_id: find_image(root, image_id) for image_id in test["image_id"]}
    excluded: list[dict] = []
    if any(files.values()):
        source = "images"
        tables, excluded = _predict_test(run, test, files)
    elif args.data:
        raise artifacts.ArtifactError(
            f"{args.data} holds none of the {len(test)} test images of run {run.name} (such as "
            f"{test['image_id'].iloc[0]}); scoring images from elsewhere is not built yet."
        )
    else:
        source = "predictions.csv"
        say(f"The images of {run.name} are not here, so predictions.csv is scored again.")
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
    if args.json:
        document = {"run": run.name, "data": run.info["dataset"]["name"], "source": source}
        print_json({**document, "models": results, "excluded": excluded})
    return int(bool(excluded))


def _predict_test(
    run: artifacts.Run, test: pd.DataFrame, files: dict[str, Path | None]
) -> tuple[dict[str, pd.DataFrame], list[dict]]:
    """Each model's predictions of the images that can be read, and the others with the reason.

    Raises ImageError where none can be read.
    """
    models = [load_model(run, name) for name in run.models]
    # Decoded once and kept only as small as the models want them.
    sizes = {model.input_size_px for model in models}
    pixels = {size: np.empty((len(test), size, size), np.uint8) for size in sizes}
    kept, excluded = [], []
    for image_id in tqdm(test["image_id"], desc="Reading images", unit="image"):
        file = files[image_id]
        try:
            if file is None:
                raise ImageError("The image is not in the folder.")
            grey = read_image(file).pixels
        except ImageError as error:
            excluded.append({"image_id": image_id, "reason": str(error)})
            continue
        for size in sizes:
            pixels[size][len(kept)] = resize_square(grey, size)
        kept.append(image_id)
    if not kept:
        raise ImageError(
            f"None of the {len(test)} test images of run {run.name} can be used "
            f"(first: {excluded[0]['image_id']}: {excluded[0]['reason']})."
        )
    rows = test[test["image_id"].isin(kept)].assign(fold="")
    tables = {}
    for model in models:
        output = model.predict(pixels[model.input_size_px][: len(kept)])
        tables[model.name] = predictions_table(rows, output.probabilities, run.class_names)
    return tables, excluded


def run_predict(args: argparse.Namespace) -> int:
    """Exit status 1 when some files failed, 2 when none could be used."""
    run = _open(args.run)
    paths = _expand(args.paths)
    if not paths:
        raise ImageError("No image files there: give image files or folders that hold some.")
    models = [load_model(run, name) for name in run.models]
    results = [_predict_file(path, models) for path in tqdm(paths, unit="image")]
    failed = [row for row in results if row["error"]]
    for row in failed:
        say(f"{row['path']}: {row['error']}")
    if args.json:
        print_json(results)
    elif args.csv:
        try:
            write_csv(args.csv, pd.DataFrame([_flat(row) for row in results]))
        except OSError as error:
            raise artifacts.ArtifactError(
                f"{args.csv} cannot be written: {error.strerror}."
            ) from error
        say(f"Wrote {args.csv}.")
    else:
        for row in results:
            for name, answer in row["models"].items():
                share = answer["probabilities"][answer["predicted"]]
                print(f"{row['path']}\t{run.title(name)}\t{answer['predicted']}\t{share:.3f}")
    say("Research use, not for diagnosis. Probabilities are not calibrated.")
    return 2 if len(failed) == len(results) else int(bool(failed))


def run_summary(args: argparse.Namespace) -> int:
    """Print what the README shows of a run."""
    print(summarise_run(_open(args.run)), end="")
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """Exit status 1 when a run differs from what it was when written."""
    entries = artifacts.list_runs(artifacts_root())
    paths = [_find_run(args.run)] if args.run else [entry.path for entry in entries]
    if not paths:
        raise artifacts.ArtifactError(f"No runs in {artifacts_root()}/. Run `make train-all`.")
    status = 0
    for path in paths:
        problems = artifacts.verify_run(path)
        say(f"{path.name}: {'whole' if not problems else 'DAMAGED'}")
        for problem in problems:
            say(f"  {problem}")
        status = max(status, int(bool(problems)))
    return status


def _predict_file(path: Path, models: list) -> dict:
    row = {"path": path.as_posix(), "sha256": None, "looks_like_cxr": None, "models": {}}
    try:
        data = read_bytes(path)
        row["sha256"] = hashlib.sha256(data).hexdigest()
        grey = decode_image(data).pixels
    except ImageError as error:
        return row | {"error": str(error)}
    for model in models:
        pixels = resize_square(grey, model.input_size_px)[None]
        probabilities = model.predict(pixels).probabilities[0]
        row["models"][model.name] = {
            "predicted": model.class_names[int(predicted_index(probabilities))],
            "probabilities": dict(zip(model.class_names, map(float, probabilities), strict=True)),
            "calibrated": {},
            "conformal_set": [],
        }
    return row | {"error": None}


def _flat(row: dict) -> dict:
    flat = {"path": row["path"], "sha256": row["sha256"], "error": row["error"] or ""}
    for name, answer in row["models"].items():
        flat[f"{name}_predicted"] = answer["predicted"]
        for label, value in answer["probabilities"].items():
            flat[f"{name}_p_{label}"] = value
    return flat


def _expand(paths: list[Path]) -> list[Path]:
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(file for file in path.rglob("*") if file.is_file())
            found += [file for file in inside if file.suffix.lower() in IMAGE_SUFFIXES]
        else:
            found.append(path)
    return found


def _open(name: str) -> artifacts.Run:
    return artifacts.open_run(_find_run(name))


def _find_run(name: str) -> Path:
    """The run's folder, whole or not; ArtifactError where there is none."""
    path = artifacts_root() / name
    if not path.is_dir():
        known = ", ".join(entry.name for entry in artifacts.list_runs(artifacts_root())) or "none"
        raise artifacts.ArtifactError(
            f"No run {name!r} in {artifacts_root()}/. There are: {known}."
        )
    return path
