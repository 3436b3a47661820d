"""`python -m core predict`: every model of a run asked about files, folders, DICOM and zips."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pandas as pd

from core.cli.arguments import add_run_argument, open_named
from core.console import print_json, progress, say
from core.datasets.folder import IMAGE_SUFFIXES
from core.files import shown_name, write_csv, write_text
from core.imageio.decode import ImageError
from core.runs import artifacts
from core.runs.run import Run
from core.serving.predict import (
    NOT_ASKED,
    ModelPrediction,
    Predictor,
    conformal_words,
    open_predictor,
)
from core.serving.predict_files import FilePrediction, file_sources, predict_files

REFUSED = "NOT ANSWERED"
ALL_THE_SAME = "--even-if-refused gives the models' answers all the same"
EXAMPLES = """examples:
  python -m core predict --run release image.png
  python -m core predict --run release folder/ scans.zip image.dcm --csv out.csv
  python -m core predict --run release image.png --report reports/
"""


def add_predict_parser(subparsers) -> None:
    """Add the `predict` command."""
    predict = subparsers.add_parser(
        "predict", help="ask every model of a run about image files",
        epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    add_run_argument(predict)
    predict.add_argument(
        "paths", nargs="+", type=Path, metavar="PATH",
        help="image files (PNG, JPEG, TIFF, BMP, WebP, DICOM), zips of them, or folders",
    )  # fmt: skip
    output = predict.add_mutually_exclusive_group()
    output.add_argument("--json", action="store_true", help="one JSON document on stdout")
    output.add_argument("--csv", type=Path, metavar="FILE", help="write a table, a row an image")
    predict.add_argument(
        "--report", type=Path, metavar="FOLDER",
        help="write an HTML page for each image, with heat maps, to hand over or print",
    )  # fmt: skip
    predict.add_argument(
        "--even-if-refused", action="store_true",
        help="answer, marked, also for images that do not look like those the run learned from",
    )  # fmt: skip
    predict.set_defaults(func=run_predict)


def run_predict(args: argparse.Namespace) -> int:
    """Exit status 1 when some files failed or were refused, 2 when nothing was answered."""
    run = open_named(args.run)
    paths, problems = _expand(args.paths)
    if not paths and not problems:
        raise ImageError("No image files there: give image files or folders that hold some.")
    predictor = open_predictor(run)
    for title, sentence in predictor.problems.items():
        say(f"{title}: {sentence}")
    rows = list(problems)
    with progress(_count(paths), "Asking the models", "image") as bar:
        for number, found in enumerate(predict_files(predictor, file_sources(paths)), start=1):
            row = describe_file(found, even_if_refused=args.even_if_refused)
            if args.report and row["models"]:
                row["report"] = _write_report(args, number, found, predictor).as_posix()
            rows.append(row)
            bar.update(1)
    _say_failed(rows)
    _give(args, run, rows)
    if predictor.guard is None and "Guard" not in predictor.problems:
        say(
            f"Run {run.name} has no guard, so any picture is answered, also one of a cat; "
            f"`python -m core guard --run {run.name}` fits one."
        )
    say(f"Research use, not for diagnosis. {_calibration_words(run)}")
    answered = sum(bool(row["models"]) for row in rows)
    if not answered:
        return 2
    left_out = sum(bool(row["error"]) or row["looks_like_cxr"] is False for row in rows)
    # That weights were not kept is how the run is, and was said above.
    return int(bool(left_out) or bool(set(predictor.problems) - {NOT_ASKED}))


def describe_file(found: FilePrediction, *, even_if_refused: bool = False) -> dict[str, Any]:
    """One file's entry in `predict --json`.

    {path, sha256, looks_like_cxr (null: no guard), synthetic, guard {sentence, distance,
    threshold, reasons} or null, models, error}. models is {} for a file that failed and, unless
    `even_if_refused`, for one that does not look like what the run learned from.
    """
    row: dict[str, Any] = {
        "path": found.name, "sha256": found.sha256, "looks_like_cxr": None, "synthetic": None,
        "guard": None, "models": {}, "error": found.error,
    }  # fmt: skip
    if found.answer is None:
        return row
    judged = found.answer.judgement
    row["synthetic"] = found.decoded.synthetic
    if judged is not None:
        row["looks_like_cxr"] = judged.looks_right
        row["guard"] = {
            "sentence": judged.sentence, "distance": judged.distance,
            "threshold": judged.threshold, "reasons": list(judged.reasons),
        }  # fmt: skip
    if even_if_refused or not found.answer.refused:
        names = found.answer.class_names
        row["models"] = {own.model: describe_model(own, names) for own in found.answer.answers}
    return row


def describe_model(own: ModelPrediction, class_names: Iterable[str]) -> dict[str, Any]:
    """One model's answer as the contract has it; calibrated {} and conformal_set [] if unknown."""
    names = list(class_names)
    calibrated = [] if own.calibrated is None else own.calibrated
    return {
        "predicted": own.predicted,
        "probabilities": dict(zip(names, map(float, own.probabilities), strict=True)),
        "calibrated": dict(zip(names, map(float, calibrated), strict=False)),
        "conformal_set": list(own.conformal_set),
    }


def _write_report(
    args: argparse.Namespace, number: int, found: FilePrediction, predictor: Predictor
) -> Path:
    """The HTML page of one image; maps are computed only here, a table needs none."""
    from core.serving.html_report import ReportImage, build_report

    answer = predictor.answer(found.decoded)
    html = build_report(
        predictor.run, ReportImage(found.name, found.decoded, found.sha256), answer,
        even_if_refused=args.even_if_refused,
    )  # fmt: skip
    # The number keeps apart files of one name from several folders.
    path = args.report / f"{number:04d}-{Path(found.name).stem}.html"
    try:
        write_text(path, html)
    except OSError as error:
        raise artifacts.ArtifactError(f"{path} cannot be written: {error.strerror}.") from error
    return path


def _say_failed(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["error"]:
            say(f"{row['path']}: {row['error']}")
        elif row["looks_like_cxr"] is False:
            say(f"{row['path']}: {row['guard']['sentence']}")
    refused = sum(row["looks_like_cxr"] is False and not row["models"] for row in rows)
    if refused:
        say(f"{refused} of {len(rows)} not answered for that reason; {ALL_THE_SAME}.")


def _give(args: argparse.Namespace, run: Run, rows: list[dict[str, Any]]) -> None:
    if args.json:
        print_json(rows)
    elif args.csv:
        try:
            write_csv(args.csv, pd.DataFrame([_flat(row) for row in rows]))
        except OSError as error:
            raise artifacts.ArtifactError(
                f"{args.csv} cannot be written: {error.strerror}."
            ) from error
        say(f"Wrote {args.csv}.")
    else:
        for row in rows:
            for line in _lines(run, row):
                print(line)


def _lines(run: Run, row: dict[str, Any]) -> list[str]:
    """path, model, class, its share and what cannot be ruled out, by tabs; a line a model.

    The class is the one with the largest served probability; where calibration puts another first
    the line says so.
    """
    if not row["models"]:
        return [f"{row['path']}\t{REFUSED}"]
    mark = ["REFUSED BY THE GUARD"] if row["looks_like_cxr"] is False else []
    mark += ["SYNTHETIC"] if row["synthetic"] else []
    lines = []
    for name, said in row["models"].items():
        shares = said["calibrated"] or said["probabilities"]
        words = conformal_words(said["conformal_set"], run.class_names)
        first = max(shares, key=shares.get)
        moved = [] if first == said["predicted"] else [f"calibrated shares put {first} first"]
        cells = [row["path"], run.title(name), said["predicted"]]
        cells += [f"{shares[said['predicted']]:.3f}", words, *moved, *mark]
        lines.append("\t".join(cells))
    return lines


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    guard = row["guard"] or {}
    flat = {"path": row["path"], "sha256": row["sha256"], "error": row["error"] or ""}
    flat |= {
        "looks_like_cxr": row["looks_like_cxr"], "guard_distance": guard.get("distance"),
        "guard_sentence": guard.get("sentence", ""), "synthetic": row["synthetic"],
    }  # fmt: skip
    if "report" in row:
        flat["report"] = row["report"]
    for name, said in row["models"].items():
        flat[f"{name}_predicted"] = said["predicted"]
        for label, value in said["probabilities"].items():
            flat[f"{name}_p_{label}"] = value
        for label, value in said["calibrated"].items():
            flat[f"{name}_calibrated_{label}"] = value
        if said["conformal_set"]:
            flat[f"{name}_conformal_set"] = "|".join(said["conformal_set"])
    return flat


def _calibration_words(run: Run) -> str:
    """What the shares that are shown are worth."""
    calibrated = [name for name in run.models if (run.info.get("calibration") or {}).get(name)]
    if not calibrated:
        return "Probabilities are not calibrated."
    return "Shares shown are calibrated; --json and --csv have those served beside them."


def _count(paths: list[Path]) -> int | None:
    """Pictures to come, None where a zip may hold any number."""
    return None if any(path.suffix.lower() == ".zip" for path in paths) else len(paths)


def _expand(paths: list[Path]) -> tuple[list[Path], list[dict[str, Any]]]:
    """Files, those of folders sorted; and an entry for each folder that has none or cannot be
    listed."""
    found: list[Path] = []
    problems: list[dict[str, Any]] = []
    for path in paths:
        if not path.is_dir():
            found.append(path)
            continue
        inside = [Path(top, name) for top, _, names in os.walk(path) for name in names]
        inside = sorted(file for file in inside if file.suffix.lower() in IMAGE_SUFFIXES)
        found += inside
        if not inside:
            sentence = "The folder holds no image files; give one that does."
            problems.append(describe_file(FilePrediction(shown_name(path), error=sentence)))
    return found, problems
