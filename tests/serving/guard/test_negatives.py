"""Trying a guard: the other pictures, how they are counted, and the command that does it all."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from statsmodels.stats.proportion import proportion_confint

from core.__main__ import main
from core.datasets.phantom.generate import write_phantoms
from core.files import sha256_file
from core.runs import artifacts
from core.runs.additions import verify_additions
from core.serving.guard import fit as guard_fit
from core.serving.guard import negatives, synthetic_negatives
from core.serving.guard.detector import CELLS, load_guard
from core.serving.guard.evaluate import acceptance_rate, by_value, refused_rate
from core.serving.guard.features import GuardInput
from core.serving.guard.fit import directions_to_try, fit_guard, group_folds, models_to_try
from core.serving.guard.messages import GuardMeasurement
from core.serving.guard.negatives import (
    KINDS,
    LOOKED_AT,
    Setting,
    TrialError,
    as_decoded,
    kinds_for,
)
from tests.support.guard import FakeModel
from tests.support.runs import make_run

DRAWS = [
    getattr(synthetic_negatives, name)
    for name in dir(synthetic_negatives)
    if name.startswith("draw_")
]
PACKAGES = ("photos_colour", "photos_grey", "faces", "sky", "medical")


@pytest.fixture(autouse=True)
def few_drawings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negatives, "DRAWN_N", 3)


@pytest.fixture
def nowhere(tmp_path: Path) -> Setting:
    """A setting without a run or data."""
    rows = pd.DataFrame(columns=["image_id", "patient_id"])
    return Setting(None, rows, tmp_path, tmp_path)


# ------------------------------------------------------------------------------ pictures


@pytest.mark.parametrize("draw", DRAWS, ids=lambda draw: draw.__name__)
def test_drawings_follow_from_their_generator(draw) -> None:
    made = [draw(np.random.default_rng(seed)) for seed in (0, 0, 1, 2, 3)]
    assert np.array_equal(made[0], made[1])
    assert any(not np.array_equal(made[0], other) for other in made[2:])
    for picture in made:
        assert picture.dtype == np.uint8 and picture.ndim in (2, 3)
        assert min(picture.shape[:2]) >= 300 and len(as_decoded(picture).pixels.shape) == 2


def test_a_drawn_hand_has_bones_in_soft_tissue_on_black() -> None:
    hand = synthetic_negatives.draw_hand(np.random.default_rng(0))
    assert np.median(hand[:40, :40]) < 20  # no hand in the corner
    palm = hand[260:330, 200:260].astype(float)
    assert 60 < palm.mean() < 220 and palm.std() > 12


def test_colour_is_told_from_grey() -> None:
    grey = np.full((40, 40, 3), 99, np.uint8)
    assert as_decoded(grey).colourfulness == 0
    grey[..., 0] += 51
    assert as_decoded(grey).colourfulness == pytest.approx(0.2)


def test_pictures_come_from_packages_without_a_network(nowhere, monkeypatch) -> None:
    def reach(*words, **more):
        raise AssertionError("a connection was tried")

    monkeypatch.setattr(socket, "socket", reach)
    n = {name: len(list(KINDS[name].make(nowhere))) for name in PACKAGES}
    assert n["photos_colour"] == 48 and n["faces"] == 200 and n["sky"] == 12
    assert n["photos_grey"] == 72 and n["medical"] >= 30
    photos = list(KINDS["photos_colour"].make(nowhere))
    assert len({trial.picture for trial in photos}) == 8, "cuts are counted as what they are"
    assert all(t.decoded.colourfulness == 0 for t in KINDS["photos_grey"].make(nowhere))
    assert all(dict(t.decoded.facts) == {} for t in KINDS["medical"].make(nowhere))


def test_a_package_that_is_not_here_is_named(nowhere, monkeypatch) -> None:
    monkeypatch.setattr(negatives.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(TrialError, match="the package skimage is not installed"):
        list(KINDS["photos_grey"].make(nowhere))
    with pytest.raises(TrialError, match="none of ucsd-covid-ct, mendeley-8h65ywd2jr-ct lies"):
        list(KINDS["ct"].make(nowhere))


def test_chosen_on_other_draws_than_are_reported(nowhere, tmp_path) -> None:
    other = Setting(None, nowhere.rows, tmp_path, tmp_path, seed=1)
    for name in ("noise", "blank"):
        pairs = zip(KINDS[name].make(nowhere), KINDS[name].make(other), strict=True)
        same = [np.array_equal(a.decoded.pixels, b.decoded.pixels) for a, b in pairs]
        assert not all(same)
    assert all(KINDS[name].looked_at for name in LOOKED_AT)


def test_every_modality_is_tried_on_the_others() -> None:
    assert "ct" in kinds_for("xray") and "xray" not in kinds_for("xray")
    assert "xray" in kinds_for("ct") and "ct" not in kinds_for("ct")
    assert {"xray", "ct"} <= set(kinds_for("phantom"))


# ------------------------------------------------------------------------------ counting


def test_what_is_refused_is_counted_over_pictures_and_not_over_their_cuts() -> None:
    far, near = GuardMeasurement(2, 0, 0), GuardMeasurement(0.5, 0.5, 0.5)
    colour = GuardMeasurement(0.1, 0.1, 0.1, colour=True)
    row = refused_rate([("a", far), ("a", far), ("b", colour), ("b", near)])
    assert (row["n"], row["pictures"], row["refused"], row["share"]) == (4, 2, 3, 0.75)
    assert (row["low"], row["high"]) == pytest.approx(proportion_confint(1.5, 2, method="wilson"))
    assert row["by"] == {"features": 2, "layout": 0, "turned": 0, "plain": 1}
    assert row["passed"] == ["b"]


def test_what_is_kept_is_counted_over_patients() -> None:
    kept = np.array([True, True, False, True])
    patients = pd.Series(["p", "p", "q", "r"])
    row = acceptance_rate(kept, patients)
    assert (row["n"], row["n_patients"], row["share"]) == (4, 3, 0.75)
    assert (row["low"], row["high"]) == pytest.approx(proportion_confint(2.25, 3, method="wilson"))
    by = by_value(kept, pd.Series(["a", "a", "b", "a"]), patients)
    assert list(by) == ["a", "b"] and by["b"]["share"] == 0 and by["a"]["n_patients"] == 2


# ------------------------------------------------------------------------------ fitting


def test_imagenet_weights_come_first_and_controls_never(tmp_path) -> None:
    path = make_run(
        tmp_path, n=30, images=False, models=("cnn", "mobilenetv2", "mobilenetv2_random")
    )
    run = artifacts.open_run(path)
    assert models_to_try(run) == ["mobilenetv2"]
    run.info["init"] = {}
    assert models_to_try(run) == ["cnn", "mobilenetv2"]
    assert directions_to_try(8, 400) == [8] and directions_to_try(1280, 400) == [32, 64, 100]


def test_folds_part_no_group(tmp_path) -> None:
    run = artifacts.open_run(make_run(tmp_path, n=60, images=False))
    rows = artifacts.load_manifest(run)
    held = np.zeros(len(rows), int)
    for fit, out in group_folds(rows, 0):
        assert set(rows["group_id"].iloc[fit]).isdisjoint(rows["group_id"].iloc[out])
        held[out] += 1
    assert (held == 1).all()


def test_bounds_are_set_on_images_that_their_fold_was_not_fitted_on(tmp_path, monkeypatch) -> None:
    run = artifacts.open_run(make_run(tmp_path, n=60, images=False))
    manifest = artifacts.load_manifest(run)
    rows = manifest[manifest["split"] != "test"].reset_index(drop=True)
    rng = np.random.default_rng(0)
    features = rng.normal(size=(len(rows), 8))
    seen = GuardInput(features, rng.uniform(0, 255, (len(rows), CELLS, CELLS)))
    fitted_on, measured = [], []
    fit_parts, measure = guard_fit.fit_parts, guard_fit.measure

    def fit(run, model, directions, train, part):
        fitted_on.append(set(train["image_id"]))
        return fit_parts(run, model, directions, train, part)

    def look(made, part):
        found = [int(np.flatnonzero((features == one).all(axis=1))[0]) for one in part.features]
        measured.append(set(rows["image_id"].iloc[found]))
        return measure(made, part)

    monkeypatch.setattr(guard_fit, "fit_parts", fit)
    monkeypatch.setattr(guard_fit, "measure", look)
    fitted = guard_fit.fit_candidate(run, FakeModel(), 6, rows, seen, {})
    *folds, last = fitted_on
    everything = set(rows["image_id"])
    for learned, held in zip(folds, measured, strict=True):
        assert learned == everything - held and len(held) < len(learned)
    assert last == set(rows.loc[rows["split"] == "train", "image_id"])
    assert set(fitted.guard.image_ids) == last


# ------------------------------------------------------------------------------ the command


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with artifacts/ and data/, which the command uses."""
    monkeypatch.setenv("CXR_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("CXR_DATA", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def small_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a few of the kinds, so that a test takes seconds."""
    few = ("noise", "blank", "hands", "xray", "ct", "inverted", "turned")
    kept = {name: KINDS[name] for name in few}
    monkeypatch.setattr(negatives, "KINDS", kept)
    monkeypatch.setattr("core.serving.guard.features.KINDS", kept)
    monkeypatch.setattr(
        "core.serving.guard.fit.LOOKED_AT", ("noise", "blank", "inverted", "turned")
    )


@pytest.mark.usefixtures("small_kinds")
def test_a_ct_run_has_a_guard_of_its_own(root: Path, capsys) -> None:
    path = make_run(root / "artifacts", tiny_openvino=True, modality="ct", models=("mobilenetv2",))
    write_phantoms(root / "data" / "darkcovidnet", patients_per_class=2, images_per_patient=1)
    before = sha256_file(path / "run.json")
    assert main(["guard", "--run", "demo", "--json"]) == 1  # not all could be measured
    document = json.loads(capsys.readouterr().out)
    assert document["subject"] == "a chest CT slice" and document["modality"] == "ct"
    assert document["refusal"]["xray"]["n"] == 6 and "ct" not in document["refusal"]
    assert any("acceptance elsewhere" in sentence for sentence in document["missing"])
    assert document["refusal"]["noise"]["share"] == 1.0
    assert document["acceptance"]["test"]["all"]["n"] == 24
    text = (path / "guard" / "guard.json").read_text(encoding="utf-8")
    assert str(root) not in text and "/" + root.name not in text
    assert sha256_file(path / "run.json") == before
    run = artifacts.open_run(path)
    assert artifacts.verify_run(path) == [] and verify_additions(run) == []
    assert load_guard(run).subject == "a chest CT slice"
    assert (path / "guard" / "guard.npz").stat().st_size < 2_000_000
    assert main(["verify", "--run", "demo"]) == 0


@pytest.mark.usefixtures("small_kinds")
def test_no_test_image_has_a_say(root: Path) -> None:
    path = make_run(root / "artifacts", tiny_openvino=True, models=("mobilenetv2",))
    run, data = artifacts.open_run(path), root / "data" / "phantom"
    first, arrays, _ = fit_guard(run, data, root / "data")
    manifest = artifacts.load_manifest(run)
    for name in manifest.loc[manifest["split"] == "test", "path"]:
        (data / name).unlink()
    again, others, _ = fit_guard(run, data, root / "data")
    assert again["bounds"] == first["bounds"] and again["choice"] == first["choice"]
    assert all(np.array_equal(arrays[name], others[name]) for name in arrays)
    assert first["train"]["n"] == (manifest["split"] == "train").sum()
    assert main(["guard", "--run", "demo"]) == 1  # and then acceptance is not measured
    document = json.loads((path / "guard" / "guard.json").read_text(encoding="utf-8"))
    assert document["acceptance"] is None and "acceptance on test" in document["missing"][0]


def test_without_images_it_is_one_sentence(root: Path, capsys) -> None:
    make_run(root / "artifacts", n=60, images=False)
    assert main(["guard", "--run", "demo"]) == 2
    said = capsys.readouterr().err.strip()
    assert "holds none of the images that run demo was trained on" in said and "--data" in said
    assert not (root / "artifacts" / "demo" / "guard").exists()
