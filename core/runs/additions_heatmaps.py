"""maps/: what was measured of the heat maps of a run's models, with hashes of its own."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from core.runs.additions import MAPS_FILE, MAPS_FOLDER, load_document, write_folder
from core.runs.artifacts import Run
from core.runs.readers import damaged
from core.runs.schema import find_problem
from core.runs.schema_heatmaps import MAPS

SCORES_FILE, PHANTOMS_FILE = "scores.csv", "phantoms.csv"
SCORE_COLUMNS = ["model", "map", "label", "patient", "called", "hit", "hit_exact", "mass"]


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


def load_maps(run: Run) -> dict[str, Any] | None:
    """maps/maps.json, None where the maps were not measured.

    Raises:
        ArtifactError: damaged, or of a newer format.
    """
    name = f"{MAPS_FOLDER}/{MAPS_FILE}"
    if not (run.path / name).is_file():
        return None
    document = load_document(run, name)
    problem = find_problem(document, MAPS)
    if problem is None and document["status"] == "done" and "phantoms" not in document:
        problem = "`phantoms` is missing"
    if problem:
        raise damaged(run.path, name, problem)
    return document
