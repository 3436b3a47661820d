"""Made-up runs of the whole zoo: the project's own models in one run, the notebooks' in another."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

import pandas as pd

from core.files import write_json
from core.metrics.classification import arrays_from_predictions, compute_metrics
from core.metrics.intervals import bootstrap_intervals
from core.models.names import BACKBONES, NOTEBOOK, OWN, model_title
from core.runs import artifacts, writing
from tests.support import runs

NOTEBOOK_SKILLS = dict(
    zip(NOTEBOOK, (0.3, 0.5, 0.4, 1.1, 1.5, 1.45, 2.3, 2.2, 0.9, 1.0, 0.8, 1.2), strict=True)
)


def make_zoo(root: Path | str, *, n: int = 120, weights: bool = False) -> tuple[Path, Path]:
    """Runs `release` (OWN and their mean) and `zoo-phantom` (NOTEBOOK) on the very same split.

    No images and no model files. weights False: the second run says that its were not kept.
    """
    own = runs.make_run(root, name="release", models=OWN, n=n, images=False, ensemble=True)
    zoo = make_notebook_run(root, n=n)
    if not weights:
        change_info(zoo, weights=dict.fromkeys(NOTEBOOK, "not kept"))
    return own, zoo


def make_notebook_run(
    root: Path | str,
    *,
    name: str = "zoo-phantom",
    models: Sequence[str] = NOTEBOOK,
    n: int = 120,
    seed: int = 0,
) -> Path:
    """One run of the notebooks' networks, with their titles, plausible skills and sizes."""
    inits = {model: "imagenet" if model in BACKBONES else "scratch" for model in models}
    sizes = {model: 200_000 * (1 + place) for place, model in enumerate(models)}
    with (
        mock.patch.dict(runs.SKILLS, NOTEBOOK_SKILLS),
        mock.patch.dict(runs.TITLES, {model: model_title(model) for model in models}),
        mock.patch.dict(runs.INITS, inits),
        mock.patch.dict(runs.PARAMS, sizes),
    ):
        return runs.make_run(root, name=name, models=models, n=n, images=False, seed=seed)


def set_called(path: Path, model: str, wrong: Callable[[pd.DataFrame], pd.Series]) -> None:
    """Give a model exact answers on the test part, and score it anew.

    wrong: the test rows (image_id, label, patient_id) -> bool, True where it calls the next class.
    """
    run = artifacts.open_run(path)
    names = run.class_names
    table = artifacts.load_predictions(run, model).drop(columns=[f"p_{name}" for name in names])
    patients = artifacts.load_manifest(run).set_index("image_id")["patient_id"]
    errs = wrong(table.assign(patient_id=table["image_id"].map(patients))).to_numpy()
    called = (table["label"].map(names.index).to_numpy() + errs) % len(names)
    table["predicted"] = [names[k] for k in called]
    for k, name in enumerate(names):
        table[f"p_{name}"] = [0.8 if place == k else 0.2 / (len(names) - 1) for place in called]
    writing.write_predictions(path, model, "test", table.fillna({"fold": ""}))
    y_true, y_prob = arrays_from_predictions(table, names)
    metrics = artifacts.load_metrics(run, model) | compute_metrics(y_true, y_prob, names)
    metrics["intervals"] = bootstrap_intervals(
        y_true, y_prob, table["image_id"].map(patients).to_numpy(), names, draws=200
    )
    writing.write_metrics(path, model, metrics)


def change_info(run: Path, **keys: Any) -> None:
    """Put keys into run.json."""
    info = json.loads((run / "run.json").read_text(encoding="utf-8"))
    write_json(run / "run.json", info | keys)
