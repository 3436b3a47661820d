"""Leaving a source out: who trains, what cannot be told, what is taken over, and the figures."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from core.config import Config, ConfigError
from core.datasets.folder import load_table
from core.datasets.phantom.generate import write_phantoms
from core.datasets.registry import describe_folder
from core.datasets.splits import build_manifest, source_splits
from core.evaluation.left_out_sources import score_left_out
from core.imageio.pixel_cache import build_pixel_cache
from core.models.architectures import BUILDERS
from core.models.pretrained import InitPlan
from core.models.recipes import Recipe, Stage
from core.runs import artifacts
from core.runs.schema.checking import find_problem
from core.runs.schema.metrics import LeftOutMetrics
from core.training import cross_validation
from core.training.source_folds import leave_sources_out, sources_to_leave_out
from core.training.trainer import Materials, train_once
from tests.support.models import build_small

NAMES = ["covid", "normal", "pneumonia"]
RECIPE = Recipe(64, (Stage("blocks", 1, 1e-3, cut="low", views=2),), batch_size=16)
CONFIG = Config("a,b", ("small",), "mine", folds_by="source")


def made_up(patients=20):
    """Normals are nearly all NIH's; covid and pneumonia come from three sources."""
    rows = []
    for label in NAMES:
        for p in range(patients):
            source = "NIH" if label == "normal" and p else ["sirm.org", "journals", "own"][p % 3]
            for i in range(2):
                patient = f"{label}{p}"
                rows.append((f"{patient}_{i}", label, patient, "", source))
    columns = ["image_id", "label", "patient_id", "path", "source"]
    table = pd.DataFrame(rows, columns=columns)
    # One patient of two sources: neither may be trained on while the other is judged.
    table.loc[table["image_id"] == "covid0_1", "source"] = "journals"
    return build_manifest(table, seed=0, folds=3, sources=True)


@pytest.mark.parametrize("source", ["sirm.org", "journals", "own"])
def test_nothing_of_a_source_or_its_patients_is_trained_on(source):
    manifest = made_up()
    part = source_splits(manifest, source, "group", 0)
    assert ((part == "test") == (manifest["source"] == source)).all()
    groups = {who: set(manifest["group_id"][part == who]) for who in ("train", "val", "test")}
    assert not (groups["train"] | groups["val"]) & groups["test"]
    assert not groups["train"] & groups["val"]
    for who in ("train", "val"):
        assert set(manifest["label"][part == who]) == set(NAMES)
    order = np.random.default_rng(1).permutation(len(manifest))
    assert (source_splits(manifest.iloc[order], source, "group", 0) == part[order]).all()
    shared = (manifest["patient_id"] == "covid0").to_numpy() & (part != "test")
    assert (part[shared] == "").all() == (source != "own") and shared.any()


def test_a_source_with_nearly_all_of_a_class_cannot_be_told():
    able, cannot = sources_to_leave_out(made_up(), CONFIG)
    assert able == ["journals", "own", "sirm.org"]
    assert list(cannot) == ["NIH"] and "38 of the 40 images of normal" in cannot["NIH"]


def test_one_data_set_too_many_sources_or_none_left_is_refused():
    manifest = made_up()
    with pytest.raises(ConfigError, match="needs several data sets"):
        sources_to_leave_out(manifest.drop(columns="source"), CONFIG)
    many = manifest.assign(source=manifest["patient_id"])
    with pytest.raises(ConfigError, match="60 sources"):
        sources_to_leave_out(many, CONFIG)
    with pytest.raises(ConfigError, match="No source can be left out"):
        sources_to_leave_out(manifest.assign(source=manifest["label"]), CONFIG)


def test_settings_without_it_are_as_they_were():
    assert "folds_by" not in Config("a", ("cnn",), "mine").to_json()
    assert CONFIG.to_json()["folds_by"] == "source"


@pytest.fixture(scope="module")
def materials(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources")
    write_phantoms(root / "tiny", patients_per_class=9, images_per_patient=1, size_px=64)
    table = load_table(describe_folder(root / "tiny"), root / "tiny")
    cache = build_pixel_cache(table, root / "tiny", root / "cache", [64])
    number = cache.table["patient_id"].str[-1].astype(int)
    table = cache.table.assign(source=np.where(number % 2 == 0, "even", "odd"))
    manifest = build_manifest(table, seed=0, sources=True)
    return Materials(cache, manifest, NAMES, "group", "none", 0, root / "work")


def test_every_image_is_judged_without_its_source_and_what_was_done_is_taken_over(
    materials, tmp_path, monkeypatch
):
    monkeypatch.setitem(BUILDERS, "small", build_small)
    seen = []

    def watched(spec, materials, split, folder, *words, **options):
        seen.append(folder.name)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return train_once(spec, materials, split, folder, *words, **options)

    monkeypatch.setattr(cross_validation, "train_once", watched)
    made = tmp_path, CONFIG, materials, {"small": InitPlan("imagenet")}, {"small": RECIPE}
    with pytest.raises(KeyboardInterrupt):
        leave_sources_out(*made, {})
    new = leave_sources_out(*made, {})
    assert seen == ["source0", "source1", "source1"], "the first one was finished before"
    assert new["source_folds"]["models"]["small"]["status"] == "done"
    table = pd.read_csv(tmp_path / "small" / artifacts.PREDICTION_FILES["sources"])
    assert sorted(table["image_id"]) == sorted(materials.manifest["image_id"])
    source = materials.manifest.set_index("image_id")["source"]
    assert (table["fold"] == source.loc[table["image_id"]].to_numpy()).all()
    assert leave_sources_out(*made, new) == new and len(seen) == 3


def test_figures_are_what_counting_gives():
    manifest = made_up()
    rng = np.random.default_rng(0)
    kept = manifest[manifest["source"] != "NIH"].reset_index(drop=True)

    def answers(rows, skill):
        shares = rng.dirichlet(np.ones(3), len(rows))
        shares += skill * (rows["label"].to_numpy()[:, None] == np.array(NAMES))
        shares /= shares.sum(axis=1, keepdims=True)
        table = rows[["image_id", "split", "label"]].assign(fold=rows["source"])
        table["predicted"] = np.array(NAMES)[shares.argmax(axis=1)]
        return table.assign(**{f"p_{c}": shares[:, k] for k, c in enumerate(NAMES)})

    left_out, folds = answers(kept, 0.2), answers(manifest, 1.0)
    found = score_left_out(left_out, manifest, NAMES, {"NIH": "why"}, folds, seed=0, draws=300)
    assert find_problem(found, LeftOutMetrics) is None
    covid = left_out[left_out["label"] == "covid"]
    share = (covid["predicted"] == "covid").mean()
    assert found["covid_sensitivity"]["value"] == pytest.approx(share)
    assert found["covid_sensitivity"]["n"] == len(covid)
    mine = covid[covid["fold"] == "own"]
    by_source = found["sources"]["own"]["sensitivity"]["covid"]
    assert by_source["value"] == pytest.approx((mine["predicted"] == "covid").mean())
    other = left_out[left_out["label"] == "pneumonia"]
    assert found["false_covid"]["n"] == len(other), "healthy images are no other disease"
    called = other["predicted"] == "covid"
    assert found["false_covid"]["value"] == pytest.approx(called.mean())
    some = found["false_covid_by_source"]["journals"]
    assert some["value"] == pytest.approx(called[other["fold"] == "journals"].mean())
    same = folds.set_index("image_id").loc[covid["image_id"], "predicted"] == "covid"
    drop = found["drop"]
    assert drop["difference"] == pytest.approx(same.mean() - share) and drop["n"] == len(covid)
    assert drop["low"] < drop["difference"] < drop["high"]
    assert "sources that it never saw, against" in found["sentence"]
    alone = score_left_out(left_out, manifest, NAMES, {}, None, seed=0, draws=50)
    assert alone["drop"] is None and "--folds" in alone["drop_missing"]
