"""Cross-validation: who is predicted by whom, what is taken over, what is said to be not done."""

import numpy as np
import pandas as pd
import pytest

from core.config import Config, ConfigError
from core.datasets.folder import load_table
from core.datasets.phantom.generate import write_phantoms
from core.datasets.registry import describe_folder
from core.datasets.schema import ManifestError
from core.datasets.splits import build_manifest, fold_splits
from core.imageio.pixel_cache import build_pixel_cache
from core.models.architectures import BUILDERS
from core.models.pretrained import InitPlan
from core.models.recipes import Recipe, Stage
from core.runs import writing
from core.training import cross_validation
from core.training.trainer import Materials, ModelSpec, train_once
from tests.support.models import build_small

NAMES = ["covid", "normal", "pneumonia"]
FROZEN = Recipe(64, (Stage("blocks", 1, 1e-3, cut="low", views=2),), batch_size=16)
WHOLE = Recipe(64, (Stage("all layers", 1, 1e-3),), batch_size=16)
CONFIG = Config("tiny", ("cnn", "mobilenetv2"), "mine", folds=3)


def made_up(patients=30, k=5, images=2, seed=0):
    rows = [
        {"image_id": f"{label}{p}_{i}", "label": label, "patient_id": f"{label}{p}", "path": ""}
        for label in NAMES
        for p in range(patients)
        for i in range(images)
    ]
    return build_manifest(pd.DataFrame(rows), seed=seed, folds=k)


@pytest.mark.parametrize("inner", [False, True])
def test_no_patient_of_a_fold_is_in_its_training_and_inner_folds_never_see_the_test_part(inner):
    manifest = made_up()
    for fold in range(1, 5):
        part = fold_splits(manifest, fold, inner, "group", 0)
        assert ((part == "test") == (manifest["fold"] == fold)).all()
        assert ((part == "") == ((manifest["split"] == "test") & inner)).all()
        groups = {who: set(manifest["group_id"][part == who]) for who in ("train", "val", "test")}
        assert not groups["train"] & groups["test"]
        assert not groups["val"] & (groups["train"] | groups["test"])
        rest = np.isin(part, ["train", "val"]).sum()
        assert 0.05 < (part == "val").sum() / rest < 0.17
        for who in ("train", "val"):
            assert set(manifest["label"][part == who]) == set(NAMES)


def test_parts_of_a_fold_do_not_depend_on_the_order_of_the_rows():
    manifest = made_up()
    order = np.random.default_rng(1).permutation(len(manifest))
    shuffled = manifest.iloc[order]
    part = fold_splits(manifest, 2, True, "group", 0)
    assert (fold_splits(shuffled, 2, True, "group", 0) == part[order]).all()


def test_a_class_with_too_few_patients_for_a_validation_part_is_named():
    manifest = made_up()
    keep = (manifest["label"] != "covid") | manifest["patient_id"].isin(["covid0"])
    manifest = manifest[keep].assign(fold=lambda t: t["fold"].where(t["label"] != "covid", 1))
    with pytest.raises(ManifestError, match=r"'covid' has too few groups .* fewer folds"):
        fold_splits(manifest, 2, False, "group", 0)


def test_what_is_not_cross_validated_is_named_with_its_reason_and_cost():
    plans = dict.fromkeys(("cnn", "mobilenetv2", "mobilenetv2_random"), InitPlan("random"))
    recipes = {"cnn": WHOLE, "mobilenetv2": FROZEN, "mobilenetv2_random": WHOLE}
    config = Config("tiny", ("cnn", "mobilenetv2"), "mine", folds=5)
    planned = cross_validation.plan_folds(config, plans, recipes, 1000)
    assert planned["outer"]["cnn"] == planned["outer"]["mobilenetv2"] == {"status": "planned"}
    assert planned["inner"]["mobilenetv2"] == {"status": "planned"}
    assert "every layer is trained" in planned["inner"]["cnn"]["reason"]
    assert "4 more trainings" in planned["inner"]["cnn"]["reason"]
    assert "control" in planned["outer"]["mobilenetv2_random"]["reason"]
    config = Config("tiny", ("cnn", "mobilenetv2"), "x", folds=5, fold_models=("mobilenetv2",))
    left_out = cross_validation.plan_folds(config, plans, recipes, 1000)["outer"]["cnn"]
    assert left_out["status"] == "not done" and "--fold-models" in left_out["reason"]
    config = Config("tiny", ("mobilenetv2",), "x", folds=5, split="random")
    random = cross_validation.plan_folds(config, plans, {"mobilenetv2": FROZEN}, 1000)
    assert random["outer"]["mobilenetv2"] == {"status": "planned"}
    assert "leaks" in random["inner"]["mobilenetv2"]["reason"]


def test_fold_models_must_be_models_and_need_folds():
    with pytest.raises(ConfigError, match="give --folds too"):
        Config("tiny", ("cnn",), "mine", fold_models=("cnn",))
    with pytest.raises(ConfigError, match="resnet50, which --models does not"):
        Config("tiny", ("cnn",), "mine", folds=3, fold_models=("resnet50",))


@pytest.fixture(scope="module")
def materials(tmp_path_factory):
    root = tmp_path_factory.mktemp("folds")
    write_phantoms(root / "tiny", patients_per_class=9, images_per_patient=1, size_px=64)
    table = load_table(describe_folder(root / "tiny"), root / "tiny")
    cache = build_pixel_cache(table, root / "tiny", root / "cache", [64])
    manifest = build_manifest(cache.table, seed=0, folds=3)
    return Materials(cache, manifest, NAMES, "group", "none", 0, root / "work")


def test_every_image_is_predicted_once_and_what_was_finished_is_taken_over(
    materials, tmp_path, monkeypatch
):
    name, plans = "small", {"small": InitPlan("imagenet")}
    monkeypatch.setitem(BUILDERS, name, build_small)
    config = Config("tiny", (name,), "mine", folds=3)
    manifest, seen = materials.manifest, []

    def watched(spec, materials, split, folder, *words, **options):
        seen.append((folder.name, split))
        return train_once(spec, materials, split, folder, *words, **options)

    monkeypatch.setattr(cross_validation, "train_once", watched)
    run_dir = tmp_path / "mine"
    split = manifest["split"].to_numpy()
    hold_out = train_once(ModelSpec(name, plans[name], FROZEN), materials, split, run_dir / name)
    test = hold_out.predict(np.flatnonzero(split == "test")).assign(fold="")
    writing.write_predictions(run_dir, name, "test", test)
    assert not (run_dir / name / "frozen").exists(), "the store lies in the work folder"

    recipes = {name: FROZEN}
    new = cross_validation.cross_validate(run_dir, config, materials, plans, recipes, {})
    assert [folder for folder, _ in seen] == ["outer1", "outer2", "inner1", "inner2"]
    assert new["folds"]["models"][name]["status"] == "done" and new["folds"]["k"] == 3
    assert "about a tenth" in new["folds"]["rule"]
    outer = pd.read_csv(run_dir / name / "predictions_folds.csv")
    assert sorted(outer["image_id"]) == sorted(manifest["image_id"])
    fold = manifest.set_index("image_id")["fold"].astype(int)
    assert (outer["fold"] == fold.loc[outer["image_id"]].to_numpy()).all()
    same = outer[outer["fold"] == 0].set_index("image_id")["p_covid"]
    assert same.to_numpy() == pytest.approx(test.set_index("image_id")["p_covid"].loc[same.index])
    inner = pd.read_csv(run_dir / name / "predictions_inner.csv")
    assert sorted(inner["image_id"]) == sorted(manifest["image_id"][split != "test"])
    for folder, part in seen:
        assert (part[split == "test"] == "").all() == folder.startswith("inner")
    assert not list((materials.work / name).glob("outer1/model.*")), "only predictions are kept"

    again = cross_validation.cross_validate(run_dir, config, materials, plans, recipes, {})
    assert len(seen) == 4 and again == new
    kept = cross_validation.cross_validate(run_dir, config, materials, plans, recipes, new)
    assert kept["folds"]["models"] == new["folds"]["models"]
