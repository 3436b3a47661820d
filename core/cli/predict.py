"""`python -m core predict`: every model of a run asked about files, folders, DICOM and zips."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from core.cli.arguments import add_json_argument, add_run_argument, open_named
from core.console import print_json, progress, say
from core.errors import UserError
from core.files import shown_name, write_csv, write_text

if TYPE_CHECKING:
    from core.runs.run import Run
    from core.serving.predict import Predictor
    from core.serving.predict_files import FilePrediction

ALL_THE_SAME = "--even-if-refused gives the models' answers all the same"
EXAMPLES = """examples:
  python -m core predict --run release image.png
  python -m core predict --run release folder/ scans.zip image.dcm --csv out.csv
  python -m core predict --run release image.png --report reports/
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `predict`."""
    add_run_argument(parser)
    parser.add_argument(
        "paths",
        nargs="+",
        type=Path,
        metavar="PATH",
        help="image files (PNG, JPEG, TIFF, BMP, WebP, DICOM), zips of them, or folders",
    )
    output = parser.add_mutually_exclusive_group()
    add_json_argument(output)
    output.add_argument("--csv", type=Path, metavar="FILE", help="write a table, a row an image")
    parser.add_argument(
        "--report",
        type=Path,
        metavar="FOLDER",
        help="write an HTML page for each image, with heat maps, to hand over or print",
    )
    parser.add_argument(
        "--even-if-refused",
        action="store_true",
        help="answer, marked, also for images that do not look like those the run learned from",
    )


def run_command(args: argparse.Namespace) -> int:
    """Exit status 1 when some files failed or were refused, 2 when nothing was answered."""
    from core.serving.predict import NO_WEIGHTS, open_predictor
    from core.serving.predict_files import file_sources, predict_files
    from core.serving.prediction_rows import calibration_words, describe_file

    run = open_named(args.run)
    paths, problems = _expand(args.paths)
    if not paths and not problems:
        raise UserError("No image files there: give image files or folders that hold some.")
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
    say(f"Research use, not for diagnosis. {calibration_words(run)}")
    answered = sum(bool(row["models"]) for row in rows)
    if not answered:
        return 2
    left_out = sum(bool(row["error"]) or row["looks_like_cxr"] is False for row in rows)
    # That weights were not kept is how the run is, and was said above.
    return int(bool(left_out) or bool(set(predictor.problems) - {NO_WEIGHTS}))


def _write_report(
    args: argparse.Namespace, number: int, found: FilePrediction, predictor: Predictor
) -> Path:
    """The HTML page of one image; maps are computed only here, a table needs none."""
    from core.serving.html_report import ReportImage, ReportOptions, build_report

    assert found.decoded is not None and found.sha256 is not None, "it was answered"
    html = build_report(
        predictor.run,
        ReportImage(found.name, found.decoded, found.sha256),
        predictor.predict(found.decoded),
        ReportOptions(even_if_refused=args.even_if_refused),
    )
    # The number keeps apart files of one name from several folders.
    path = args.report / f"{number:04d}-{Path(found.name).stem}.html"
    try:
        write_text(path, html)
    except OSError as error:
        raise UserError(f"{path} cannot be written: {error.strerror}.") from error
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
    import pandas as pd

    from core.serving.prediction_rows import table_row, text_lines

    if args.json:
        print_json(rows)
    elif args.csv:
        try:
            write_csv(args.csv, pd.DataFrame([table_row(row) for row in rows]))
        except OSError as error:
            raise UserError(f"{args.csv} cannot be written: {error.strerror}.") from error
        say(f"Wrote {args.csv}.")
    else:
        for row in rows:
            for line in text_lines(run, row):
                print(line)


def _count(paths: list[Path]) -> int | None:
    """Pictures to come, None where a zip may hold any number."""
    return None if any(path.suffix.lower() == ".zip" for path in paths) else len(paths)


def _expand(paths: list[Path]) -> tuple[list[Path], list[dict[str, Any]]]:
    """Files, those of folders sorted; and an entry for each folder that has none or cannot be
    listed."""
    from core.datasets.folder import IMAGE_SUFFIXES
    from core.serving.predict_files import FilePrediction
    from core.serving.prediction_rows import describe_file

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
