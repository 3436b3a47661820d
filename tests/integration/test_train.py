"""Training through the real entry, on phantoms: files, resume after SIGKILL, refusals."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn import metrics as sk

from core.backend import import_keras
from core.datasets.phantom.generate import make_phantom, write_phantoms
from core.inference.served_model import load_model
from core.models import pretrained
from core.models.architectures import BUILDERS
from core.runs import artifacts
from tests.support.cli import run_here
from tests.support.files import write_published_layout
from tests.support.models import build_small

ROOT = Path(__file__).parents[2]
MODELS = "cnn,resnet50,mobilenetv2"


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training")
    write_phantoms(
        folder / "data" / "tiny", patients_per_class=12, images_per_patient=2, size_px=96
    )
    return folder


def folders(place):
    data = {"CXR_DATA": str(place / "data"), "CXR_CACHE": str(place / "cache")}
    return data | {"CXR_ARTIFACTS": str(place / "runs"), "KERAS_HOME": str(place / "no-keras")}


def start_core(place, *arguments):
    """In a process of its own, as a person starts it."""
    words, environment = [sys.executable, "-m", "core", *arguments], os.environ | folders(place)
    return subprocess.run(words, env=environment, capture_output=True, text=True, timeout=400)


def run_core(place, *arguments):
    return run_here(list(arguments), folders(place))


@pytest.fixture
def small_cnn(monkeypatch):
    """What happens around a training does not depend on the network."""
    monkeypatch.setitem(BUILDERS, "cnn", build_small)


def train_words(run, models, epochs, *more):
    return ["train", "--dataset", "tiny", "--models", models, "--run", run, "--quick",
            "--epochs", str(epochs), "--init", "random", *more]  # fmt: skip


@pytest.fixture(scope="module")
def trained(place):
    words = train_words("three", MODELS, 2)
    words[2] = str(place / "data" / "tiny")  # by path: no file of the run may hold it
    done = start_core(place, *words)
    assert done.returncode == 0, done.stderr
    return artifacts.open_run(place / "runs" / "three"), done


def test_the_run_is_whole_and_names_every_model(trained):
    run, done = trained
    assert artifacts.verify_run(run.path) == []
    assert run.served == MODELS.split(",") == run.members("ensemble")
    assert run.models == [*run.served, "ensemble"]
    assert run.synthetic
    assert run.info["precision"] == "f32"
    assert run.info["init"] == {"cnn": "scratch", "resnet50": "random", "mobilenetv2": "random"}
    assert not (run.path / artifacts.WORK_FOLDER).exists()
    assert "SYNTHETIC" in artifacts.load_card(run, "cnn")
    assert "Expected in all" in done.stderr and "random weights" in done.stderr
    assert "Traceback" not in done.stderr and "oneDNN" not in done.stderr


def test_no_absolute_path_is_in_any_file(trained, place):
    run, _ = trained
    for name in [*artifacts.run_file_names(run.path), artifacts.RUN_FILE]:
        assert str(place).encode() not in (run.path / name).read_bytes(), name


def test_every_test_image_is_predicted_exactly_once(trained):
    run, _ = trained
    manifest = artifacts.load_manifest(run)
    for model in run.models:
        for part, split in (("test", "test"), ("val", "val")):
            table = artifacts.load_predictions(run, model, part)
            expected = manifest.loc[manifest["split"] == split, "image_id"]
            assert sorted(table["image_id"]) == sorted(expected)
            p = table[[f"p_{c}" for c in run.class_names]].to_numpy()
            assert np.abs(p.sum(axis=1) - 1).max() <= 1e-5
            first = [run.class_names[i] for i in p.argmax(axis=1)]
            assert list(table["predicted"]) == first


def test_metrics_are_what_scikit_learn_makes_of_the_predictions(trained):
    run, _ = trained
    for model in run.models:
        table, stored = artifacts.load_predictions(run, model), artifacts.load_metrics(run, model)
        names = run.class_names
        assert stored["accuracy"] == pytest.approx(
            sk.accuracy_score(table["label"], table["predicted"])
        )
        assert stored["macro_f1"] == pytest.approx(
            sk.f1_score(
                table["label"], table["predicted"], labels=names, average="macro", zero_division=0
            )
        )
        matrix = sk.confusion_matrix(table["label"], table["predicted"], labels=names)
        assert stored["confusion_matrix"] == matrix.tolist()
        assert set(stored["cost"]) >= {"params", "size_mb", "train_s", "latency_ms"}


def test_the_served_model_gives_the_stored_predictions(trained, place):
    run, _ = trained
    done = run_core(place, "evaluate", "--run", "three", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert answer["source"] == "images"
    for model in run.models:
        stored = artifacts.load_metrics(run, model)
        assert answer["models"][model]["log_loss"] == pytest.approx(stored["log_loss"], abs=1e-4)
    assert load_model(run, "cnn").precision == "f32"


def test_predict_names_the_file_that_failed(trained, place):
    good = next((place / "data" / "tiny" / "covid").glob("*.png"))
    bad = place / "bad.png"
    bad.write_bytes(b"not an image")
    done = run_core(place, "predict", "--run", "three", str(good), str(bad), "--json")
    assert done.returncode == 1
    rows = json.loads(done.stdout)
    assert [bool(row["error"]) for row in rows] == [False, True]
    assert set(rows[0]["models"]) == {*MODELS.split(","), "ensemble"}
    for answer in rows[0]["models"].values():
        assert sum(answer["calibrated"].values()) == pytest.approx(1)
        assert answer["predicted"] in answer["calibrated"] and answer["conformal_set"]
    assert "bad.png" in done.stderr and "Traceback" not in done.stderr


def test_verify_finds_a_changed_file(trained, place):
    run, _ = trained
    assert run_core(place, "verify", "--run", "three").returncode == 0
    file = run.path / "cnn" / "card.md"
    before = file.read_bytes()
    file.write_bytes(before + b" ")
    try:
        done = run_core(place, "verify", "--run", "three")
        assert done.returncode == 1 and "cnn/card.md has changed" in done.stderr
    finally:
        file.write_bytes(before)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (train_words("three", "cnn", 2), "exists already"),
        (train_words("new", "vgg", 2), "vgg"),
        (train_words("a/b", "cnn", 2), "name"),
        (train_words("new", "cnn", 2, "--folds", "1"), "--folds"),
        (train_words("new", "cnn", 2, "--fold-models", "cnn"), "give --folds too"),
        (train_words("new", "cnn", 2, "--classes", "covid,flu"), "--classes"),
        (["train", "--dataset", "nowhere", "--run", "new"], "nowhere"),
        (["verify", "--run", "nowhere"], "nowhere"),
        (["predict", "--run", "nowhere", "x.png"], "nowhere"),
    ],
)
def test_wrong_use_is_one_sentence(trained, place, arguments, says):
    done = run_core(place, *arguments)
    assert done.returncode == 2
    assert says in done.stderr and "Traceback" not in done.stderr


def kill_once(words, place, ready):
    """Start a command, whose CNN is small, and kill it as soon as `ready` says so."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.support.small_core", *words],
        env=os.environ | folders(place), cwd=ROOT, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        deadline = time.monotonic() + 200
        while time.monotonic() < deadline and process.poll() is None and not ready():
            time.sleep(0.02)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()


@pytest.mark.usefixtures("small_cnn")
def test_a_killed_training_goes_on_from_its_last_finished_epoch_of_the_same_images(place):
    words = train_words("killed", "cnn", 60)
    history = place / "runs" / "killed" / ".work" / "cnn" / "stage0" / "history.csv"
    kill_once(words, place, lambda: history.exists() and len(pd.read_csv(history)) >= 2)
    before = pd.read_csv(history)
    assert 2 <= len(before) < 60
    refused = run_core(place, *words)
    assert refused.returncode == 2 and "--resume" in refused.stderr

    changed = next((place / "data" / "tiny" / "covid").glob("*.png"))
    pixels = changed.read_bytes()
    Image.fromarray(make_phantom("covid", 99, 96, patient=99).pixels).save(changed)
    try:
        refused = run_core(place, *words, "--resume")
    finally:
        changed.write_bytes(pixels)
    assert refused.returncode == 2 and "images or their split have changed" in refused.stderr
    assert "Traceback" not in refused.stderr
    pd.testing.assert_frame_equal(pd.read_csv(history), before)

    done = run_core(place, *words, "--resume")
    assert done.returncode == 0, done.stderr
    after = pd.read_csv(place / "runs" / "killed" / "cnn" / "history.csv")
    assert list(after["epoch"]) == list(range(1, len(after) + 1)) and len(after) > len(before)
    kept = len(before) - 1  # the row may be there before the state of its epoch is
    pd.testing.assert_frame_equal(after.head(kept), before.head(kept))


def test_imagenet_weights_go_through_their_stages(place, monkeypatch):
    home = place / "keras-home"
    (home / "models").mkdir(parents=True)
    keras = import_keras()
    base = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(64, 64, 3))
    known = pretrained.IMAGENET["mobilenetv2"]
    file = home / "models" / known.name
    write_published_layout(file, base)
    stand_in = replace(known, versions={file.stat().st_size: ""})
    monkeypatch.setitem(pretrained.IMAGENET, "mobilenetv2", stand_in)
    words = train_words("imagenet", "mobilenetv2", 1)
    words[words.index("random")] = "auto"
    done = run_here(words, folders(place) | {"KERAS_HOME": str(home)})
    assert done.returncode == 0, done.stderr
    assert "MobileNetV2: ImageNet weights" in done.stderr
    run = artifacts.open_run(place / "runs" / "imagenet")
    assert run.info["init"] == {"mobilenetv2": "imagenet"}
    history = artifacts.load_history(run, "mobilenetv2")
    assert list(history["phase"]) == ["blocks 13 to 16"]


@pytest.mark.usefixtures("small_cnn")
def test_folds_are_added_to_a_finished_run_and_each_image_is_predicted_once(place):
    words = train_words("folded", "cnn", 1)
    done = run_core(place, *words)
    assert done.returncode == 0, done.stderr
    before = artifacts.open_run(place / "runs" / "folded")
    test = artifacts.load_predictions(before, "cnn").set_index("image_id")
    other = run_core(
        place, *train_words("folded", "cnn", 1, "--folds", "2", "--resume", "--seed", "1")
    )
    assert other.returncode == 2 and "another seed" in other.stderr

    done = run_core(place, *words, "--folds", "2", "--resume")
    assert done.returncode == 0, done.stderr
    assert "stay as they are" in done.stderr and "inner folds: not done" in done.stderr
    run = artifacts.open_run(place / "runs" / "folded")
    assert artifacts.verify_run(run.path) == []
    assert run.info["files"]["cnn/model.bin"] == before.info["files"]["cnn/model.bin"]
    manifest = artifacts.load_manifest(run)
    folds = artifacts.load_predictions(run, "cnn", "folds")
    assert sorted(folds["image_id"]) == sorted(manifest["image_id"])
    kept = folds[folds["fold"] == "0"].set_index("image_id")
    assert set(kept.index) == set(test.index)
    assert list(kept["p_covid"]) == list(test.loc[kept.index, "p_covid"])
    pooled = artifacts.load_fold_metrics(run, "cnn")
    assert pooled["accuracy"] == pytest.approx((folds["label"] == folds["predicted"]).mean())
    assert [row["fold"] for row in pooled["folds"]] == [0, 1]
    two = folds[folds["label"] != "pneumonia"]
    called = np.where(two["p_covid"] >= two["p_normal"], "covid", "normal")
    assert pooled["two_class"]["accuracy"] == pytest.approx((called == two["label"]).mean())
    assert run.info["calibration"]["cnn"]["part"] == "val"
    again = run_core(place, *words, "--folds", "2", "--resume")
    assert again.returncode == 2 and "nothing to resume" in again.stderr


@pytest.mark.usefixtures("small_cnn")
def test_a_test_part_that_leaks_is_refused_and_marked_when_it_is_wanted(place):
    words = train_words("leaky", "cnn", 1, "--split", "random")
    done = run_core(place, *words)
    assert done.returncode == 2 and "--allow-leakage" in done.stderr
    assert "share a patient" in done.stderr and "Traceback" not in done.stderr
    assert not (place / "runs" / "leaky").exists(), "a refusal leaves nothing behind"
    done = run_core(place, *words, "--allow-leakage")
    assert done.returncode == 0, done.stderr
    run = artifacts.open_run(place / "runs" / "leaky")
    manifest = artifacts.load_manifest(run)
    test = manifest["split"] == "test"
    shared = test & manifest["patient_id"].isin(manifest["patient_id"][~test])
    assert run.info["leakage"]["images"] == int(shared.sum()) > 0
