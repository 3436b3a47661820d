"""Figures by source, held against sums made another way, and what a run keeps of them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from core.evaluation.group_figures import score_sources
from core.evaluation.scoring import score_run
from core.reporting.run_summary import summarise_run
from core.reporting.source_table import source_table
from core.runs import artifacts, writing
from tests.support.runs import make_run

NAMES = ["covid", "normal", "pneumonia"]


def made_up(n=90, seed=0):
    rng = np.random.default_rng(seed)
    label = rng.choice(NAMES, n)
    shares = rng.dirichlet(np.ones(3), n) + 0.4 * (label[:, None] == np.array(NAMES))
    table = pd.DataFrame({"image_id": [f"i{k}" for k in range(n)], "label": label})
    for k, name in enumerate(NAMES):
        table[f"p_{name}"] = shares[:, k] / shares.sum(axis=1)
    table["predicted"] = np.array(NAMES)[shares.argmax(axis=1)]
    patients = pd.Series([f"p{k // 2}" for k in range(n)], index=table["image_id"])
    sources = pd.Series(rng.choice(["a", "b"], n), index=table["image_id"])
    return table, patients, sources


def test_each_source_is_what_pandas_makes_of_its_rows():
    table, patients, sources = made_up()
    found = score_sources(table, patients, sources, NAMES, seed=0, draws=300)
    assert list(found) == ["a", "b"] and sum(row["n"] for row in found.values()) == len(table)
    for name, row in found.items():
        mine = table[(sources.loc[table["image_id"]] == name).to_numpy()]
        right = mine["label"] == mine["predicted"]
        assert row["n"] == len(mine) and row["n_patients"] == patients[mine["image_id"]].nunique()
        assert row["accuracy"]["value"] == pytest.approx(right.mean())
        assert row["accuracy"]["low"] < right.mean() < row["accuracy"]["high"]
        by_class = right.groupby(mine["label"]).mean()
        assert {c: s["value"] for c, s in row["sensitivity"].items()} == pytest.approx(
            by_class.to_dict()
        )
        assert row["classes"] == mine["label"].value_counts().to_dict()


def test_a_run_with_sources_says_how_it_does_in_each_and_others_stay_as_they_are(tmp_path):
    path = make_run(tmp_path / "artifacts", images=False, folds=3)
    run = artifacts.open_run(path)
    assert artifacts.sources_of(artifacts.load_manifest(run)) is None
    assert "sources" not in artifacts.load_metrics(run, "cnn")
    before = (path / "manifest.csv").read_bytes()
    writing.write_manifest(path, artifacts.load_manifest(run))
    assert (path / "manifest.csv").read_bytes() == before

    manifest = artifacts.load_manifest(run)
    patient = manifest["patient_id"].str.extract(r"(\d+)$")[0].astype(int)
    manifest["source"] = np.where(patient % 2 == 0, "NIH", "journals")
    writing.write_manifest(path, manifest)
    info = {key: value for key, value in run.info.items() if key not in ("files",)}
    costs = {model: artifacts.load_metrics(run, model)["cost"] for model in run.models}
    run = writing.finish_run(path, info | score_run(path, info, costs, draws=50))
    found = artifacts.load_metrics(run, "cnn")["sources"]
    test = manifest[manifest["split"] == "test"]
    assert {k: v["n"] for k, v in found.items()} == test["source"].value_counts().to_dict()
    pooled = artifacts.load_fold_metrics(run, "cnn")["sources"]
    assert sum(row["n"] for row in pooled.values()) == len(manifest)
    text = source_table(found, run.class_names)
    assert "| NIH | " in text and text in summarise_run(run)
    assert source_table(None, run.class_names) == ""
