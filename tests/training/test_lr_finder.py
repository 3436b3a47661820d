"""The learning-rate search, and waiting for a better validation loss."""

import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest

from core.datasets.phantom.generate import class_names, make_phantom
from core.models.architectures import build_model
from core.models.recipes import Recipe, Stage
from core.training import fit as fitting
from core.training.callbacks import Recorder, StageModels
from core.training.data_loader import Batches, TrainingImages
from core.training.fit import FitTask, fit_model
from core.training.lr_finder import DIVISOR, HIGHEST, LOWEST, pick_rate, search_rate


@pytest.fixture(scope="module")
def easy():
    """Phantoms whose brightness tells the class, so that a few steps teach something."""
    y = np.arange(36) % 3
    pixels = [make_phantom(class_names[k], i, 32, i).pixels for i, k in enumerate(y)]
    return (np.stack(pixels) * 0.3 + 70 * y[:, None, None]).astype("uint8"), y


def compiled(rate=1e-3):
    keras.utils.set_random_seed(0)
    model = build_model("cnn_32_64_128", 32, 3, 0.5)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss="categorical_crossentropy")
    model.optimizer.build(model.trainable_variables)
    return model


def make_batches(easy, size=12):
    pixels, y = easy
    onehot = np.eye(3, dtype="float32")[y]
    return Batches(pixels[None, ..., None], onehot, np.ones(len(y), dtype="float32"), size, 0)


def test_the_rate_is_a_tenth_of_the_one_with_the_lowest_loss():
    assert pick_rate([1e-4, 1e-3, 1e-2, 1e-1], [1.0, 0.8, 0.5, 3.0]) == pytest.approx(1e-2 / 10)
    assert pick_rate([1e-4, 1e-3], [1.0, 0.985]) is None, "a curve that hardly falls says nothing"
    assert pick_rate([], []) is None


def test_a_search_finds_a_rate_that_works_and_leaves_the_model_as_it_was(easy, tmp_path):
    model = compiled(rate=3e-4)
    variables = [*model.variables, *model.optimizer.variables]
    before = [np.array(keras.ops.convert_to_numpy(v)) for v in variables]
    found = search_rate(model, make_batches(easy), tmp_path / "rate.json")
    after = [keras.ops.convert_to_numpy(v) for v in variables]
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert found.found and LOWEST < found.learning_rate < HIGHEST / DIVISOR
    assert list(found.rates) == sorted(found.rates)
    assert min(found.losses) < 0.9 * found.losses[0], "it trained on the way"
    saved = json.loads((tmp_path / "rate.json").read_text())
    assert saved["learning_rate"] == found.learning_rate and len(saved["losses"]) > 20


def test_the_first_step_of_a_search_reports_that_step_alone(easy, tmp_path):
    model = compiled()
    batches = make_batches(easy)
    x, y, _ = batches[0]
    # Dropout is drawn anew: the loss is that of the step itself, near the one without it.
    expected = float(np.mean(keras.losses.categorical_crossentropy(y, model(x, training=False))))
    found = search_rate(model, batches, tmp_path / "rate.json")
    assert found.losses[0] == pytest.approx(expected, rel=0.1)


def test_a_stage_trains_at_the_rate_that_was_found_also_after_an_interruption(
    easy, tmp_path, monkeypatch
):
    pixels, y = easy
    stage = Stage("all", 2, 1e-3, optimizer="adam", schedule="constant", augment=False,
                  find_rate=True)  # fmt: skip
    recipe = Recipe(32, (stage,), batch_size=12, dropout=0.0)
    searched = []

    def search(model, batches, file):
        searched.append(file)
        file.write_text(json.dumps({"learning_rate": 0.0042}))
        return SimpleNamespace(learning_rate=0.0042)

    monkeypatch.setattr(fitting, "search_rate", search)

    def fit():
        keras.utils.set_random_seed(0)
        model = build_model("cnn_32_64_128", 32, 3, 0.0)
        images = TrainingImages(pixels, y)
        return fit_model(model, recipe, FitTask(images, images, 3, 0, "CNN"), tmp_path)

    assert list(fit()["lr"]) == pytest.approx([0.0042] * 2)
    (tmp_path / "stage0" / "done").unlink()
    fit()
    assert len(searched) == 1, "the file of the first search is read"


@pytest.mark.parametrize(
    ("losses", "min_delta", "keep", "stops"),
    [
        ([1.0, 0.9, 0.95, 0.96], 0.0, "best", True),
        ([1.0, 0.9, 0.895, 0.893], 0.01, "best", True),  # lower, by less than min_delta
        ([1.0, 0.9, 0.895, 0.85], 0.01, "best", False),
        ([1.0, 2.0, 3.0, 4.0], 0.0, "last", False),
    ],
)
def test_waiting_ends_as_keras_early_stopping_would(losses, min_delta, keep, stops, tmp_path):
    stage = Stage("all", 9, 1e-3, patience=2, min_delta=min_delta, keep=keep)
    recorder = Recorder(StageModels(None, None, None), stage, tmp_path, "t", 1, 0.0)
    recorder.rows = [{"epoch": i, "val_loss": loss} for i, loss in enumerate(losses, start=1)]
    assert recorder._waited_long() is stops
    if keep == "best":
        theirs = keras.callbacks.EarlyStopping("val_loss", min_delta=min_delta, patience=2)
        theirs.set_model(SimpleNamespace(stop_training=False))
        theirs.on_train_begin()
        for epoch, loss in enumerate(losses):
            theirs.on_epoch_end(epoch, {"val_loss": loss})
        assert theirs.model.stop_training is stops


def test_tracked_metrics_stand_in_the_history(easy, tmp_path):
    pixels, y = easy
    stage = Stage("all", 1, 1e-3, augment=False)
    recipe = Recipe(32, (stage,), batch_size=12, dropout=0.0, track=("precision", "recall"))
    data = TrainingImages(pixels, y)
    model = build_model("model_1", 32, 3, 0.0)
    history = fit_model(model, recipe, FitTask(data, data, 3, 0, "M"), tmp_path)
    assert {"val_precision", "val_recall", "precision", "recall"} <= set(history.columns)
