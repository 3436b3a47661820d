"""`predict`, `summary` and `verify`: what can be done with a run that exists.

`evaluate` is in core.commands_evaluate.
"""

from __future__ import annotations

import argparse
import hashlib
from pathlib import Path

import pandas as pd

from core import artifacts
from core.additions import verify_additions
from core.answers import describe_answer, open_models
from core.commands_evaluate import add_evaluate_parser
from core.config import artifacts_root
from core.console import print_json, progress, say
from core.files import write_csv
from core.images import ImageError, decode_image, read_bytes, resize_square
from core.listing import IMAGE_SUFFIXES
from core.panel import Panel
from core.run_names import find_run, open_named
from core.summary import summarise_run

_RUN_HELP = "name of a run, a folder in artifacts/ (or $CXR_ARTIFACTS)"
_JSON_HELP = "one JSON document on stdout"


def add_use_parsers(subparsers) -> None:
    """Add the commands `evaluate`, `predict`, `summary` and `verify`."""
    add_evaluate_parser(subparsers)
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


def run_predict(args: argparse.Namespace) -> int:
    """Exit status 1 when some files failed, 2 when none could be used."""
    run = open_named(args.run)
    paths = _expand(args.paths)
    if not paths:
        raise ImageError("No image files there: give image files or folders that hold some.")
    panel = open_models(run)
    with progress(len(paths), "Asking the models", "image") as bar:
        results = []
        for path in paths:
            results.append(_predict_file(path, run, panel))
            bar.update(1)
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
    say(f"Research use, not for diagnosis. {_calibration_words(run)}")
    return 2 if len(failed) == len(results) else int(bool(failed))


def run_summary(args: argparse.Namespace) -> int:
    """Print what the README shows of a run."""
    print(summarise_run(open_named(args.run)), end="")
    return 0


def run_verify(args: argparse.Namespace) -> int:
    """Exit status 1 when a run differs from what it was when written."""
    entries = artifacts.list_runs(artifacts_root())
    paths = [find_run(args.run)] if args.run else [entry.path for entry in entries]
    if not paths:
        raise artifacts.ArtifactError(f"No runs in {artifacts_root()}/. Run `make train-all`.")
    status = 0
    for path in paths:
        problems = artifacts.verify_run(path)
        problems += _addition_problems(path)
        say(f"{path.name}: {'whole' if not problems else 'DAMAGED'}")
        for problem in problems:
            say(f"  {problem}")
        status = max(status, int(bool(problems)))
    return status


def _addition_problems(path: Path) -> list[str]:
    """What is wrong with the audit and the external results of a run that can be opened."""
    try:
        return verify_additions(artifacts.open_run(path))
    except artifacts.ArtifactError:
        return []  # verify_run has said why


def _predict_file(path: Path, run: artifacts.Run, panel: Panel) -> dict:
    row = {"path": path.as_posix(), "sha256": None, "looks_like_cxr": None, "models": {}}
    try:
        data = read_bytes(path)
        row["sha256"] = hashlib.sha256(data).hexdigest()
        grey = decode_image(data).pixels
    except ImageError as error:
        return row | {"error": str(error)}
    answers = panel.ask({size: resize_square(grey, size)[None] for size in panel.sizes_px})
    for name in run.models:
        row["models"][name] = describe_answer(run, name, answers[name][0])
    return row | {"error": None}


def _calibration_words(run: artifacts.Run) -> str:
    """What the shares that are shown are worth."""
    calibrated = [name for name in run.models if (run.info.get("calibration") or {}).get(name)]
    if not calibrated:
        return "Probabilities are not calibrated."
    return "Probabilities are as served; --json and --csv have calibrated ones beside them."


def _flat(row: dict) -> dict:
    flat = {"path": row["path"], "sha256": row["sha256"], "error": row["error"] or ""}
    for name, answer in row["models"].items():
        flat[f"{name}_predicted"] = answer["predicted"]
        for label, value in answer["probabilities"].items():
            flat[f"{name}_p_{label}"] = value
        for label, value in answer["calibrated"].items():
            flat[f"{name}_calibrated_{label}"] = value
        if answer["conformal_set"]:
            flat[f"{name}_conformal_set"] = "|".join(answer["conformal_set"])
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
