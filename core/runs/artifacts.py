"""The files of a run, read and checked: the only place that knows their names and columns.

Layout and columns are the contract written down in docs/artifacts.md; core.runs.writing writes
them. What is added to a finished run (audit/, external/, guard/, maps/) is in core.runs.additions.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import pandas as pd

from core.datasets.schema import MANIFEST_COLUMNS, SOURCE_COLUMN
from core.files import sha256_file
from core.metrics.classification import COVID
from core.runs.readers import ArtifactError, damaged, read_csv, read_json, read_text
from core.runs.run import KEPT, NOT_KEPT, RUN_NAME, Run, RunEntry
from core.runs.schema.checking import find_problem
from core.runs.schema.metrics import LeftOutMetrics, Metrics, PooledMetrics
from core.runs.schema.run import RunInfo

FORMAT_VERSION = 1
RUN_FILE = "run.json"
MANIFEST_FILE = "manifest.csv"
SKIPPED_FILE = "skipped.csv"
METRICS_FILE = "metrics.json"
HISTORY_FILE = "history.csv"
CARD_FILE = "card.md"
MODEL_FILES = ("model.xml", "model.bin")
KERAS_FILE = "model.keras"
PREDICTION_FILES = {
    "test": "predictions.csv",
    "val": "predictions_val.csv",
    "folds": "predictions_folds.csv",
    # Out-of-fold over train and val by models that never saw the test part: calibrates.
    "inner": "predictions_inner.csv",
    # By models that never saw the image's source, which stands in the column `fold`.
    "sources": "predictions_sources.csv",
}
FOLD_METRICS_FILE = "metrics_folds.json"
SOURCE_METRICS_FILE = "metrics_sources.json"
OWN_HASHES = ("audit", "external", "guard", "maps")  # folders with their own files{path: sha256}
WORK_FOLDER = ".work"  # checkpoints of a training in progress; gone when the run is complete

SKIPPED_COLUMNS = ["path", "reason"]
HISTORY_COLUMNS = [
    "epoch",
    "phase",
    "loss",
    "val_loss",
    "accuracy",
    "val_accuracy",
    "lr",
    "seconds",
]


def list_runs(root: Path) -> list[RunEntry]:
    """All runs below `root`, damaged ones included: release runs first, then the newest first."""
    if not root.is_dir():
        return []
    entries: list[tuple[tuple, RunEntry]] = []
    for folder in sorted(root.iterdir()):
        if not folder.is_dir() or folder.name.startswith("."):
            continue
        created, problem = "", None
        try:
            created = str(open_run(folder).info["created"])
        except ArtifactError as error:
            problem = str(error)
        age = _timestamp(created)
        key = (problem is not None, not folder.name.startswith("release"), -age, folder.name)
        entries.append((key, RunEntry(folder.name, folder, problem)))
    return [entry for _, entry in sorted(entries, key=lambda pair: pair[0])]


def open_run(path: Path) -> Run:
    """Read run.json and check that what it promises can be read.

    Raises:
        ArtifactError: no run, an unfinished one, a damaged one or one of a newer format.
    """
    file = path / RUN_FILE
    if not file.is_file():
        if (path / WORK_FOLDER).is_dir():
            raise ArtifactError(
                f"Run {path.name} is not finished: its training was interrupted or is still "
                f"running. Go on with `python -m core train … --run {path.name} --resume`."
            )
        raise ArtifactError(f"{path.name} holds no {RUN_FILE}, so it is not a run.")
    document = read_json(path, RUN_FILE)
    if not isinstance(document, dict):
        raise ArtifactError(f"{path.name}/{RUN_FILE} is not a JSON object.")
    version = document.get("format_version")
    if isinstance(version, int) and version != FORMAT_VERSION:  # its keys may have other shapes
        raise ArtifactError(
            f"Run {path.name} has format version {version}, this program reads {FORMAT_VERSION}. "
            "Update the program or train the run anew."
        )
    info = cast(RunInfo, document)
    problem = find_problem(document, RunInfo)
    problem = problem or _names_problem(info) or _members_problem(info) or _weights_problem(info)
    if problem:
        raise damaged(path, RUN_FILE, problem)
    needed = [MANIFEST_FILE]
    needed += [f"{m}/{f}" for m in info["models"] for f in (PREDICTION_FILES["test"], METRICS_FILE)]
    for name in needed:
        if not (path / name).is_file():
            raise damaged(path, name, "the file is missing")
    run = Run(path, info)
    for model in run.models:
        load_card(run, model)  # cards are short, and one that cannot be read is like a missing file
    return run


def _names_problem(info: RunInfo) -> str | None:
    """Classes and models are told apart by their names, and a model's name is its folder's."""
    for key, names, fewest in (
        ("class_names", info["class_names"], 2),
        ("models", info["models"], 1),
    ):
        if len(names) < fewest or len(set(names)) < len(names):
            return f"`{key}` must be a list of {fewest} or more names, all different"
    strange = [model for model in info["models"] if not RUN_NAME.fullmatch(model)]
    return f"`models` must be names of folders, which {strange[0]!r} is not" if strange else None


def _members_problem(info: RunInfo) -> str | None:
    """An ensemble's members are single models of the same run."""
    kinds = info.get("kind", {})
    single = {model for model in info["models"] if kinds.get(model) != "ensemble"}
    for model in set(info["models"]) - single:
        members = info.get("members", {}).get(model, [])
        if len(members) < 2 or not set(members) <= single:
            return f"`members.{model}` must name two or more single models of the run"
    return None


def _weights_problem(info: RunInfo) -> str | None:
    """`weights` says of single models of the run whether theirs were kept."""
    kinds = info.get("kind", {})
    for model, kept in info.get("weights", {}).items():
        if model not in info["models"] or kinds.get(model) == "ensemble":
            return f"`weights.{model}` is about no single model of the run"
        if kept not in (KEPT, NOT_KEPT):
            return f"`weights.{model}` must be {KEPT!r} or {NOT_KEPT!r}"
    return None


def load_manifest(run: Run) -> pd.DataFrame:
    """One row an image: MANIFEST_COLUMNS (fold empty without cross-validation: ""), and `source`
    where the run was trained on several data sets.
    """
    table = read_csv(run.path, MANIFEST_FILE, MANIFEST_COLUMNS, numbers=("width", "height"))
    return _check_images(run, MANIFEST_FILE, table)


def sources_of(manifest: pd.DataFrame) -> pd.Series | None:
    """image_id -> where the image comes from; None where the run has one data set."""
    if SOURCE_COLUMN not in manifest:
        return None
    return manifest.set_index("image_id")[SOURCE_COLUMN].astype(str)


def load_skipped(run: Run) -> pd.DataFrame:
    """Files that were not used, with the reason; empty where none were skipped."""
    if not (run.path / SKIPPED_FILE).is_file():
        return pd.DataFrame(columns=SKIPPED_COLUMNS)
    return read_csv(run.path, SKIPPED_FILE, SKIPPED_COLUMNS)


def load_predictions(run: Run, model: str, part: str = "test") -> pd.DataFrame:
    """Rows of one part ("test", "val" or "folds"): image_id, split, fold, label, predicted, p_*."""
    name, columns = f"{model}/{PREDICTION_FILES[part]}", prediction_columns(run.class_names)
    shares = [f"p_{class_name}" for class_name in run.class_names]
    table = read_csv(run.path, name, columns, numbers=shares, filled=shares)
    strange = (set(table["label"]) | set(table["predicted"])) - set(run.class_names)
    if strange:
        listed = ", ".join(sorted(map(str, strange)))
        raise damaged(run.path, name, f"it names classes that the run does not have ({listed})")
    return _check_images(run, name, table)


def has_predictions(run: Run, model: str, part: str) -> bool:
    """Whether the run holds the predictions of one part; they are not opened."""
    return (run.path / model / PREDICTION_FILES[part]).is_file()


def load_metrics(run: Run, model: str) -> Metrics:
    """metrics.json of one model (derived from its predictions.csv), every figure in its place."""
    name, n = f"{model}/{METRICS_FILE}", len(run.class_names)
    document = read_json(run.path, name)
    if not isinstance(document, dict):
        raise damaged(run.path, name, "it is not a JSON object")
    metrics, problem = cast(Metrics, document), find_problem(document, Metrics)
    if not problem:
        if set(metrics["per_class"]) != set(run.class_names):
            problem = f"`per_class` must hold the classes {', '.join(run.class_names)}"
        elif [len(row) for row in metrics["confusion_matrix"]] != [n] * n:
            problem = f"`confusion_matrix` must have {n} rows of {n} numbers"
        elif "binary" in metrics and COVID not in run.class_names:
            problem = f"`binary` needs a class {COVID}, which the run does not have"
    if problem:
        raise damaged(run.path, name, problem)
    return metrics


def load_fold_metrics(run: Run, model: str) -> PooledMetrics | None:
    """metrics_folds.json: pooled out-of-fold figures; None where the model has none."""
    return _load_where_there(run, f"{model}/{FOLD_METRICS_FILE}", PooledMetrics)


def load_source_metrics(run: Run, model: str) -> LeftOutMetrics | None:
    """metrics_sources.json: each source judged by models that never saw it; None without."""
    return _load_where_there(run, f"{model}/{SOURCE_METRICS_FILE}", LeftOutMetrics)


def _load_where_there(run: Run, name: str, expected: type) -> Any:
    if not (run.path / name).is_file():
        return None
    document = read_json(run.path, name)
    problem = find_problem(document, expected)
    if problem:
        raise damaged(run.path, name, problem)
    return document


def calibration_split(run: Run, model: str) -> str | None:
    """The predictions that calibrate a model: "inner" where they are, else "val", else None."""
    return next((part for part in ("inner", "val") if has_predictions(run, model, part)), None)


def load_history(run: Run, model: str) -> pd.DataFrame:
    """One row an epoch: HISTORY_COLUMNS, and numbers that its recipe tracks besides.

    Empty where the model was not trained in epochs.
    """
    name = f"{model}/{HISTORY_FILE}"
    if not (run.path / name).is_file():
        return pd.DataFrame(columns=HISTORY_COLUMNS)
    numbers = [column for column in HISTORY_COLUMNS if column != "phase"]
    table = read_csv(run.path, name, HISTORY_COLUMNS, numbers=numbers, filled=["epoch", "seconds"])
    for column in table.columns.difference(HISTORY_COLUMNS):
        table[column] = pd.to_numeric(table[column], errors="coerce")
    return table


def load_card(run: Run, model: str) -> str | None:
    """The model card (Markdown) without the YAML that may stand above it, or None."""
    name = f"{model}/{CARD_FILE}"
    if not (run.path / name).is_file():
        return None
    return re.sub(r"\A---\n.*?\n---\n+", "", read_text(run.path, name), flags=re.DOTALL)


def model_files(run: Run, model: str) -> tuple[Path, Path]:
    """model.xml and model.bin, after their hashes agree with run.json.

    Raises:
        ArtifactError: missing, not listed or changed since the run was written.
    """
    paths = []
    for name in MODEL_FILES:
        relative = f"{model}/{name}"
        file = run.path / relative
        if not file.is_file():
            raise ArtifactError(
                f"Run {run.name} does not hold {relative}, so {run.title(model)} cannot predict. "
                "Restore the file or train the run anew."
            )
        if run.info["files"].get(relative) != sha256_file(file):
            raise ArtifactError(
                f"{run.name}/{relative} differs from the hash in {RUN_FILE}; it is not loaded. "
                "Restore the file or train the run anew."
            )
        paths.append(file)
    return paths[0], paths[1]


def verify_run(path: Path) -> list[str]:
    """Every disagreement between the folder and run.json's hashes, one sentence each."""
    try:
        run = open_run(path)
    except ArtifactError as error:
        return [str(error)]
    listed, problems = run.info["files"], []
    for name, digest in sorted(listed.items()):
        file = path / name
        if not file.is_file():
            problems.append(f"{name} is missing.")
        elif sha256_file(file) != digest:
            problems.append(f"{name} has changed since the run was written.")
    unlisted = [name for name in run_file_names(path) if name not in listed]
    return problems + [f"{name} is not listed in {RUN_FILE}." for name in unlisted]


def prediction_columns(class_names: Iterable[str]) -> list[str]:
    """The columns of every predictions file, in order."""
    return ["image_id", "split", "fold", "label", "predicted"] + [f"p_{c}" for c in class_names]


def run_file_names(path: Path) -> list[str]:
    """POSIX paths of the run's core files, run.json and OWN_HASHES folders left out, sorted."""
    names = []
    for file in path.rglob("*"):
        relative = file.relative_to(path)
        hidden = any(part.startswith(".") for part in relative.parts)
        if file.is_file() and not hidden and relative.parts[0] not in OWN_HASHES:
            names.append(relative.as_posix())
    return sorted(name for name in names if name != RUN_FILE)


def _timestamp(created: str) -> float:
    try:
        return datetime.fromisoformat(created).timestamp()
    except (ValueError, OverflowError):
        return 0.0


def _check_images(run: Run, name: str, table: pd.DataFrame) -> pd.DataFrame:
    """The table, in which some images must stand, and each of them only once."""
    if table.empty:
        raise damaged(run.path, name, "it lists no images")
    twice = table.loc[table["image_id"].duplicated(), "image_id"]
    if len(twice):
        raise damaged(run.path, name, f"it lists {twice.iloc[0]} more than once")
    return table
