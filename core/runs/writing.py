"""The files of a run's core, written.

Every write is atomic (a temporary file in the same folder, flushed, then renamed), so a reader
never meets half a file.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pandas as pd

from core.datasets.schema import MANIFEST_COLUMNS, SOURCE_COLUMN
from core.files import sha256_file, write_csv, write_json, write_text
from core.runs.artifacts import (
    CARD_FILE,
    FOLD_METRICS_FILE,
    FORMAT_VERSION,
    HISTORY_COLUMNS,
    HISTORY_FILE,
    MANIFEST_FILE,
    METRICS_FILE,
    PREDICTION_FILES,
    RUN_FILE,
    SKIPPED_COLUMNS,
    SKIPPED_FILE,
    SOURCE_METRICS_FILE,
    open_run,
    run_file_names,
)
from core.runs.readers import ArtifactError
from core.runs.run import RUN_NAME, Run


def check_run_name(name: str) -> str:
    """Return `name` when it can be a folder name on every system, else raise ArtifactError."""
    if not RUN_NAME.fullmatch(name):
        raise ArtifactError(
            "A run's name holds 1 to 100 letters, digits, dots, dashes and underscores, and "
            f"begins with a letter or digit. Received: {name!r}."
        )
    return name


def write_predictions(run_dir: Path, model: str, part: str, table: pd.DataFrame) -> None:
    """Write one predictions file; `table` has prediction_columns of the run."""
    write_csv(run_dir / model / PREDICTION_FILES[part], table)


def write_manifest(run_dir: Path, table: pd.DataFrame) -> None:
    """Write manifest.csv: MANIFEST_COLUMNS, and `source` where `table` has it."""
    columns = [*MANIFEST_COLUMNS, *([SOURCE_COLUMN] if SOURCE_COLUMN in table else [])]
    write_csv(run_dir / MANIFEST_FILE, table[columns])


def write_skipped(run_dir: Path, table: pd.DataFrame) -> None:
    """Write skipped.csv; `table` has SKIPPED_COLUMNS."""
    write_csv(run_dir / SKIPPED_FILE, table[SKIPPED_COLUMNS])


def write_history(run_dir: Path, model: str, table: pd.DataFrame) -> None:
    """Write history.csv: HISTORY_COLUMNS, then what the recipe tracks besides."""
    more = [column for column in table if column not in HISTORY_COLUMNS]
    write_csv(run_dir / model / HISTORY_FILE, table[HISTORY_COLUMNS + more])


def write_metrics(run_dir: Path, model: str, metrics: Mapping[str, Any]) -> None:
    """Write the metrics.json of one model."""
    write_json(run_dir / model / METRICS_FILE, metrics)


def write_fold_metrics(run_dir: Path, model: str, figures: Mapping[str, Any]) -> None:
    """Write the metrics_folds.json of one model."""
    write_json(run_dir / model / FOLD_METRICS_FILE, figures)


def write_source_metrics(run_dir: Path, model: str, figures: Mapping[str, Any]) -> None:
    """Write the metrics_sources.json of one model."""
    write_json(run_dir / model / SOURCE_METRICS_FILE, figures)


def write_card(run_dir: Path, model: str, text: str) -> None:
    """Write the card of one model, Markdown."""
    write_text(run_dir / model / CARD_FILE, text)


def finish_run(run_dir: Path, info: Mapping[str, Any]) -> Run:
    """Hash every file of the run's core and write run.json last, so a run is whole or absent."""
    files = {name: sha256_file(run_dir / name) for name in run_file_names(run_dir)}
    write_json(run_dir / RUN_FILE, {"format_version": FORMAT_VERSION, **info, "files": files})
    return open_run(run_dir)


def rewrite_info(run: Run) -> Run:
    """Write `info` as the run.json of a finished run, and read it again."""
    write_json(run.path / RUN_FILE, run.info)
    return open_run(run.path)


def utc_now() -> str:
    """The time as run.json's `created` has it, such as 2026-01-31T09:30:00Z."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
