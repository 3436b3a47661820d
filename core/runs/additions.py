"""What is added to a finished run: audit/, external/<name>/, guard/ and maps/, with own hashes.

Files, like those of the run's core (core.runs.artifacts), are written atomically; the document that
names the others comes last, so an addition is whole or absent.
"""

from __future__ import annotations

import io
import json
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from core.files import sha256_file, write_bytes, write_csv, write_json
from core.runs.artifacts import prediction_columns
from core.runs.readers import ArtifactError, damaged, read_csv, read_json
from core.runs.run import RUN_NAME, Run
from core.runs.schema.checking import find_problem
from core.runs.schema.guard import Guard
from core.runs.schema.maps import Maps

AUDIT_FOLDER, AUDIT_FILE = "audit", "audit.json"
MAPS_FOLDER, MAPS_FILE = "maps", "maps.json"
EXTERNAL_FOLDER, EXTERNAL_FILE = "external", "external.json"
GUARD_FOLDER, GUARD_FILE, GUARD_ARRAYS = "guard", "guard.json", "guard.npz"
ADDITION_FOLDERS = (AUDIT_FOLDER, EXTERNAL_FOLDER, GUARD_FOLDER, MAPS_FOLDER)
MANIFEST_FILE, PREDICTIONS_FILE = "manifest.csv", "predictions.csv"
SCORES_FILE, PHANTOMS_FILE = "scores.csv", "phantoms.csv"
ADDITION_VERSION = 1
EXTERNAL_COLUMNS = ["image_id", "path", "label", "original_label", "patient_id", "sha256"]
SCORE_COLUMNS = ["model", "map", "label", "patient", "called", "hit", "hit_exact", "mass"]
# What every reader takes for granted; the sections are described in docs/artifacts.md.
AUDIT_SECTIONS = (
    *("leakage", "blackout", "probe", "perturbation", "subgroups"),
    *("readers", "doubtful_labels"),
)


def write_audit(run: Run, document: Mapping[str, Any], tables: Mapping[str, pd.DataFrame]) -> Path:
    """Write audit/audit.json with `tables` (name below audit/, such as "blackout.csv") beside it.

    An earlier audit is replaced as a whole, once the new one is there. Returns the folder.
    """
    return write_folder(run.path / AUDIT_FOLDER, AUDIT_FILE, run, document, tables)


def load_audit(run: Run) -> dict[str, Any] | None:
    """audit/audit.json, None where no audit was made. Sections that were not done are null.

    Raises:
        ArtifactError: damaged, or of a newer format.
    """
    if not (run.path / AUDIT_FOLDER / AUDIT_FILE).is_file():
        return None
    document = load_document(run, f"{AUDIT_FOLDER}/{AUDIT_FILE}")
    for section in AUDIT_SECTIONS:
        if not isinstance(document.setdefault(section, None), dict | None):
            name = f"{AUDIT_FOLDER}/{AUDIT_FILE}"
            raise damaged(run.path, name, f"`{section}` must be an object or null")
    return document


def load_audit_table(run: Run, name: str, columns: list[str]) -> pd.DataFrame:
    """A table beside audit.json, all cells text."""
    return read_csv(run.path, f"{AUDIT_FOLDER}/{name}", columns)


def write_external(
    run: Run,
    name: str,
    document: Mapping[str, Any],
    manifest: pd.DataFrame,
    predictions: Mapping[str, pd.DataFrame],
) -> Path:
    """Write external/<name>/: external.json, manifest.csv and <model>/predictions.csv.

    manifest has EXTERNAL_COLUMNS, a row an image that was scored; predictions: model -> table with
    prediction_columns, label "" where the images have none. Returns the folder.
    """
    if not RUN_NAME.fullmatch(name):
        raise ArtifactError(
            "The name of an external set holds 1 to 100 letters, digits, dots, dashes and "
            f"underscores, and begins with a letter or digit. Received: {name!r}."
        )
    tables = {MANIFEST_FILE: manifest[EXTERNAL_COLUMNS]}
    tables |= {f"{model}/{PREDICTIONS_FILE}": table for model, table in predictions.items()}
    folder = run.path / EXTERNAL_FOLDER / name
    return write_folder(folder, EXTERNAL_FILE, run, {"name": name, **document}, tables)


def list_external(run: Run) -> list[str]:
    """Names of the external sets that the run was scored on, sorted."""
    found = (run.path / EXTERNAL_FOLDER).glob(f"*/{EXTERNAL_FILE}")
    return sorted(file.parent.name for file in found if not file.parent.name.startswith("."))


def load_external(run: Run, name: str) -> dict[str, Any]:
    """external/<name>/external.json. Raises ArtifactError where it is damaged."""
    document = load_document(run, f"{EXTERNAL_FOLDER}/{name}/{EXTERNAL_FILE}")
    for key in ("models", "excluded"):
        if not isinstance(document.get(key), dict if key == "models" else list):
            file = f"{EXTERNAL_FOLDER}/{name}/{EXTERNAL_FILE}"
            raise damaged(run.path, file, f"it lacks `{key}`")
    return document


def load_external_manifest(run: Run, name: str) -> pd.DataFrame:
    """EXTERNAL_COLUMNS, a row an image that was scored."""
    return read_csv(run.path, f"{EXTERNAL_FOLDER}/{name}/{MANIFEST_FILE}", EXTERNAL_COLUMNS)


def load_external_predictions(run: Run, name: str, model: str) -> pd.DataFrame:
    """The predictions of one model on one external set; label "" where the images have none."""
    shares = [f"p_{class_name}" for class_name in run.class_names]
    file = f"{EXTERNAL_FOLDER}/{name}/{model}/{PREDICTIONS_FILE}"
    columns = prediction_columns(run.class_names)
    return read_csv(run.path, file, columns, numbers=shares, filled=shares)


def write_guard(run: Run, document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Path:
    """Write guard/: guard.json and the arrays (numbers and text) as guard.npz. Returns the folder.

    An earlier guard is replaced as a whole, once the new one is there.
    """
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    files = {GUARD_ARRAYS: packed.getvalue()}
    return write_folder(run.path / GUARD_FOLDER, GUARD_FILE, run, document, {}, files)


def load_guard_document(run: Run) -> Guard | None:
    """guard/guard.json, None where no guard was fitted. Raises ArtifactError where damaged."""
    name = f"{GUARD_FOLDER}/{GUARD_FILE}"
    if not (run.path / name).is_file():
        return None
    document = load_document(run, name)
    problem = find_problem(document, Guard)
    if problem:
        raise damaged_guard(run, GUARD_FILE, problem)
    return cast(Guard, document)


def load_guard_files(run: Run) -> tuple[Guard, dict[str, np.ndarray]] | None:
    """guard.json and the arrays of guard.npz, None where no guard was fitted.

    Raises:
        ArtifactError: missing, changed since it was written, or damaged.
    """
    document = load_guard_document(run)
    if document is None:
        return None
    file = run.path / GUARD_FOLDER / GUARD_ARRAYS
    if not file.is_file():
        raise damaged_guard(run, GUARD_ARRAYS, "the file is missing")
    if document["files"].get(GUARD_ARRAYS) != sha256_file(file):
        raise damaged_guard(run, GUARD_ARRAYS, f"it differs from the hash in {GUARD_FILE}")
    try:
        with np.load(file, allow_pickle=False) as packed:
            return document, {name: packed[name] for name in packed.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise damaged_guard(run, GUARD_ARRAYS, "it is no archive of arrays") from error


def guard_command(run: Run) -> str:
    """What fits a guard."""
    return f"python -m core guard --run {run.name}"


def damaged_guard(run: Run, name: str, problem: str) -> ArtifactError:
    """One sentence: the file, what is wrong in it, and what to do."""
    return ArtifactError(
        f"{run.path.name}/{GUARD_FOLDER}/{name} is damaged: {problem}. Restore the file or fit the "
        f"guard anew with `{guard_command(run)}`."
    )


def write_maps(run: Run, document: Mapping[str, Any], table: pd.DataFrame) -> Path:
    """Write maps/: maps.json and the table of core.evaluation.heatmaps.evaluate in two; returns the
    folder.

    scores.csv has a row a map; what any place scores on a phantom is the same for all models, and
    stands once in phantoms.csv.
    """
    shared = ["label", "patient", *(name for name in table.columns if name not in SCORE_COLUMNS)]
    phantoms = table[shared].drop_duplicates(["label", "patient"])
    tables = {SCORES_FILE: table[SCORE_COLUMNS], PHANTOMS_FILE: phantoms}
    return write_folder(run.path / MAPS_FOLDER, MAPS_FILE, run, document, tables)


def load_maps(run: Run) -> Maps | None:
    """maps/maps.json, None where the maps were not measured.

    Raises:
        ArtifactError: damaged, or of a newer format.
    """
    name = f"{MAPS_FOLDER}/{MAPS_FILE}"
    if not (run.path / name).is_file():
        return None
    document = load_document(run, name)
    problem = find_problem(document, Maps)
    if problem is None and document["status"] == "done" and "phantoms" not in document:
        problem = "`phantoms` is missing"
    if problem:
        raise damaged(run.path, name, problem)
    return cast(Maps, document)


def verify_additions(run: Run) -> list[str]:
    """Every disagreement between what was added and its own hashes, a sentence each."""
    documents = [
        f"{folder}/{file}"
        for folder, file in ((AUDIT_FOLDER, AUDIT_FILE), (GUARD_FOLDER, GUARD_FILE))
        if (run.path / folder).is_dir()
    ]
    documents += [f"{EXTERNAL_FOLDER}/{name}/{EXTERNAL_FILE}" for name in list_external(run)]
    documents += [f"{MAPS_FOLDER}/{MAPS_FILE}"] if (run.path / MAPS_FOLDER).is_dir() else []
    problems = []
    for document in documents:
        try:
            listed = load_document(run, document)["files"]
        except ArtifactError as error:
            problems.append(str(error))
            continue
        folder = (run.path / document).parent
        for name, digest in sorted(listed.items()):
            file, shown = folder / name, f"{folder.relative_to(run.path).as_posix()}/{name}"
            if not file.is_file():
                problems.append(f"{shown} is missing.")
            elif sha256_file(file) != digest:
                problems.append(f"{shown} has changed since it was written.")
    return problems


def write_folder(
    folder: Path,
    document_name: str,
    run: Run,
    document: Mapping[str, Any],
    tables: Mapping[str, pd.DataFrame],
    files: Mapping[str, bytes] | None = None,
) -> Path:
    """Write an addition as a whole: tables, files and its document with the hashes of both."""
    # Written beside and then renamed: a reader meets the old addition or the new one.
    fresh, old = (folder.with_name(f".{folder.name}.{word}") for word in ("new", "old"))
    for leftover in (fresh, old):
        shutil.rmtree(leftover, ignore_errors=True)
    for name, table in tables.items():
        write_csv(fresh / name, table)
    for name, data in (files or {}).items():
        write_bytes(fresh / name, data)
    hashes = {name: sha256_file(fresh / name) for name in (*tables, *(files or {}))}
    head = {"format_version": ADDITION_VERSION, "run": run.name}
    write_json(fresh / document_name, {**head, **document, "files": hashes})
    if folder.exists():
        folder.rename(old)
    fresh.rename(folder)
    shutil.rmtree(old, ignore_errors=True)
    return folder


def load_document(run: Run, name: str) -> dict[str, Any]:
    """The document of an addition, by its path below the run. Raises ArtifactError."""
    document = read_json(run.path, name)
    if not isinstance(document, dict) or not isinstance(document.get("files"), dict):
        raise damaged(run.path, name, "it is not an object with `files`")
    if document.get("format_version") != ADDITION_VERSION:
        raise ArtifactError(
            f"{run.name}/{name} has format version {json.dumps(document.get('format_version'))}, "
            f"this program reads {ADDITION_VERSION}; make it anew."
        )
    return document
