"""Made-up runs with folds, dealt and named as a test asks."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.evaluation.scoring import score_run
from core.files import write_csv, write_json
from core.runs import artifacts
from core.runs.run import Run
from tests.support.runs import make_run

FOLDS = artifacts.FOLD_METRICS_FILE


def make_folded_run(
    root: Path,
    name: str = "folded",
    *,
    k: int = 5,
    split: str = "group",
    dataset: str = "darkcovidnet",
    skill: float = 0.0,
    ensemble: bool = False,
    not_done: Mapping[str, str] | None = None,
    models: Sequence[str] = ("cnn", "mobilenetv2"),
    n: int = 90,
    **info: Any,
) -> Run:
    """A run of the factory with folds.

    skill: share of the wrong out-of-fold answers that are made right; ensemble: a further model,
    the mean of the others; not_done: model -> reason; info: put into run.json.
    """
    path = make_run(
        root, name=name, n=n, images=False, models=models, folds=k, modality="xray",
        ensemble=ensemble,
    )  # fmt: skip
    run, rng = artifacts.open_run(path), np.random.default_rng(0)
    costs = {model: artifacts.load_metrics(run, model)["cost"] for model in models}
    for model in models:
        table = artifacts.load_predictions(run, model, "folds")
        write_csv(path / model / "predictions_folds.csv", mend(table, skill, rng))
    if skill:
        score_run(path, run.info, costs, draws=200)
    states = run.info["folds"]["models"]
    for model, reason in (not_done or {}).items():
        states[model] = {"status": "not done", "reason": reason}
        for file in ("predictions_folds.csv", FOLDS):
            (path / model / file).unlink()
    folds = run.info["folds"] | {"k": k, "split_policy": split, "models": states}
    whole = run.info | {"split_policy": split, "folds": folds, "trials": []}
    whole["dataset"] = whole["dataset"] | {"name": dataset}
    write_json(path / "run.json", whole | info)
    return artifacts.open_run(path)


def set_pooled(run: Run, model: str, three: tuple, two: tuple) -> None:
    """Put (accuracy, low, high) of both tasks into metrics_folds.json."""
    file = run.path / model / FOLDS
    metrics = json.loads(file.read_text())
    for figures, (value, low, high) in ((metrics, three), (metrics["two_class"], two)):
        figures["accuracy"] = value
        figures["intervals"]["accuracy"] |= {"low": low, "high": high}
    write_json(file, metrics)


def mend(table: pd.DataFrame, share: float, rng: np.random.Generator) -> pd.DataFrame:
    """The table with that share of the wrong rows made right, by swapping two probabilities."""
    wrong = np.flatnonzero((table["label"] != table["predicted"]).to_numpy())
    for row in wrong[rng.random(len(wrong)) < share]:
        label, said = table.loc[row, "label"], table.loc[row, "predicted"]
        right, other = table.loc[row, f"p_{said}"], table.loc[row, f"p_{label}"]
        table.loc[row, [f"p_{label}", f"p_{said}"]] = right, other
        table.loc[row, "predicted"] = label
    return table
