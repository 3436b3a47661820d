"""`evaluate`, `predict`, `summary` and `verify`: what can be done with a run that exists."""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from pathlib import Path

import pandas as pd
from tqdm import tqdm

from core import artifacts
from core.config import artifacts_root, data_root
from core.evaluation import predictions_table, score_predictions
from core.images import ImageError, decode_image, read_bytes, resize_square
from core.inference import load_model
from core.listing import IMAGE_SUFFIXES, find_image
from core.summary import score_line, summarise_run


def add_use_parsers(subparsers) -> None:
    """Add the commands `evaluate`, `predict`, `summary` and `verify`."""
    evaluate = subparsers.add_parser(
        "evaluate", help="score a run's models on its test split again",
        epilog="example: python -m core evaluate --run release --json",
    )  # fmt: skip
    evaluate.add_argument("--run", required=True)
    evaluate.add_argument("--data", type=Path, help="folder that holds the run's images")
    evaluate.add_argument("--json", action="store_true")
    evaluate.set_defaults(func=run_evaluate)

    predict = subparsers.add_parser(
        "predict", help="ask every model of a run about image files",
        epilog="example: python -m core predict --run release image.png folder/ --csv out.csv",
    )  # fmt: skip
    predict.add_argument("--run", required=True)
    predict.add_argument("paths", nargs="+", type=Path, metavar="PATH")
    output = predict.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true")
    output.add_argument("--csv", type=Path, metavar="FILE")
    predict.set_defaults(func=run_predict)

    summary = subparsers.add_parser(
        "summary", help="a run's models, floors and verdict as Markdown",
        epilog="example: python -m core summary --run release",
    )  # fmt: skip
    summary.add_argument("--run", required=True)
    summary.set_defaults(func=run_summary)

    verify = subparsers.add_parser(
        "verify", help="hold the files of runs against their hashes",
        epilog="example: python -m core verify --run release",
    )  # fmt: skip
    verify.add_argument("--run", help="one run (default: all)")
    verify.set_defaults(func=run_verify)


def run_evaluate(args: argparse.Namespace) -> int:
    """Predict the test split anew where the images are, else recompute from predictions.csv."""
    run = _open(args.run)
    manifest = artifacts.load_manifest(run)
    test = manifest[manifest["split"] == "test"]
    root = args.data or data_root() / run.info["dataset"]["name"]
    files = {image_id: find_image(root, image_id) for image_id in test["image_id"]}
    missing = [image_id for image_id, file in files.items() if file is None]
    from_images = not missing
    if args.data and missing:
        raise artifacts.ArtifactError(
            f"{args.data} lacks {len(missing)} of {len(test)} test images of run {run.name} "
            f"(first: {missing[0]}); scoring images from elsewhere is not built yet."
        )
    if not from_images:
        _say(f"The images of {run.name} are not here, so predictions.csv is scored again.")
    patients = manifest.set_index("image_id")["patient_id"]
    results = {}
    for name in run.models:
        if from_images:
            model = load_model(run, name)
            pixels = [
                resize_square(decode_image(read_bytes(files[i])).pixels, model.input_size_px)
                for i in tqdm(test["image_id"], desc=run.title(name), unit="image")
            ]
            output = model.predict(_stack(pixels))
            table = predictions_table(test.assign(fold=""), output.probabilities, run.class_names)
        else:
            table = artifacts.load_predictions(run, name)
        results[name] = score_predictions(
            table, patients, run.class_names, seed=int(run.info["seed"])
        )
        _say(score_line(run.title(name), results[name]))
    if args.json:
        source = "images" if from_images else "predictions.csv"
        data = run.info["dataset"]["name"]
        _print_json(
            {"run": run.name, "data": data, "source": source, "models": results, "excluded": []}
        )
    return 0


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
        _say(f"{row['path']}: {row['error']}")
    if args.json:
        _print_json(results)
    elif args.csv:
        artifacts.write_csv(args.csv, pd.DataFrame([_flat(row) for row in results]))
        _say(f"Wrote {args.csv}.")
    else:
        for row in results:
            for name, answer in row["models"].items():
                share = answer["probabilities"][answer["predicted"]]
                print(f"{row['path']}\t{run.title(name)}\t{answer['predicted']}\t{share:.3f}")
    _say("Research use, not for diagnosis. Probabilities are not calibrated.")
    return 2 if len(failed) == len(results) else int(bool(failed))


def run_summary(args: argparse.Namespace) -> int:
    """Print what the README shows of a run."""
    print(summarise_run(_open(args.run)), end="")
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """Exit status 1 when a run differs from what it was when written."""
    entries = artifacts.list_runs(artifacts_root())
    paths = [artifacts_root() / args.run] if args.run else [entry.path for entry in entries]
    if not paths:
        raise artifacts.ArtifactError(f"No runs in {artifacts_root()}/. Run `make train-all`.")
    status = 0
    for path in paths:
        problems = artifacts.verify_run(path)
        _say(f"{path.name}: {'whole' if not problems else 'DAMAGED'}")
        for problem in problems:
            _say(f"  {problem}")
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
            "predicted": model.class_names[int(probabilities.argmax())],
            "probabilities": dict(zip(model.class_names, map(float, probabilities), strict=True)),
            "calibrated": None,
            "conformal_set": None,
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


def _stack(pixels: list):
    import numpy as np

    return np.stack(pixels)


def _open(name: str) -> artifacts.Run:
    path = artifacts_root() / name
    if not path.is_dir():
        known = ", ".join(entry.name for entry in artifacts.list_runs(artifacts_root())) or "none"
        raise artifacts.ArtifactError(
            f"No run {name!r} in {artifacts_root()}/. There are: {known}."
        )
    return artifacts.open_run(path)


def _print_json(data: object) -> None:
    print(json.dumps(artifacts.jsonable(data), indent=1, allow_nan=False))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
