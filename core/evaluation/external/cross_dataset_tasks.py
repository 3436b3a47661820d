"""What is missing in the matrices of core.evaluation.external.cross_dataset, and measuring it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from core.config import data_root
from core.datasets.registry import DatasetError, resolve_dataset
from core.evaluation.external.cross_dataset import CrossError, build_matrices
from core.evaluation.external.dataset import find_own_images, name_external
from core.evaluation.external.into_run import evaluate_into_run
from core.evaluation.external.run_choice import data_name
from core.runs import additions
from core.runs.artifacts import ArtifactError
from core.runs.missing_weights import left_out_sentence
from core.runs.run import Run


def list_tasks(runs: Sequence[Run], data: Sequence[str] | None) -> list[tuple[Run, str]]:
    """Which run is to be scored on what: the runs that stand for a data set in any matrix."""
    standing = {name for matrix in build_matrices(runs).values() for name in matrix.runs.values()}
    chosen = [run for run in runs if run.name in standing]
    if not chosen:
        raise CrossError(
            "None of the runs can be crossed: their own figures are too high, since each leaks or "
            "was split at random."
        )
    modalities = {data_name(run): run.modality for run in chosen}
    names = list(modalities) if data is None else list(dict.fromkeys(data))
    return [
        (run, name)
        for run in chosen
        for name in names
        if name != data_name(run) and modalities.get(name, run.modality) == run.modality
    ]


def score_task(run: Run, source: str, *, again: bool) -> bool:
    """Score the run on one data set; False where that was done before (unless `again`).

    Raises UserError.
    """
    there = Path(source).name
    if there in additions.list_external(run) and not again:
        asked = additions.load_external(run, there)["models"]
        lacking = [model for model in run.models if model not in asked]
        if not lacking:
            return False
        if not set(lacking) & set(run.usable_models):
            raise ArtifactError(left_out_sentence(run))
    dataset, root = resolve_dataset(source, data_root())
    if find_own_images(run, dataset, root) is not None:
        raise DatasetError(f"{root} holds test images of run {run.name} itself.")
    evaluate_into_run(run, dataset, root, name_external(dataset, None), replace=again)
    return True
