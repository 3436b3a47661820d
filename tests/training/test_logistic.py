"""The solved linear layer is scikit-learn's, at the penalty that validation prefers."""

import keras
import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from core.datasets.phantom.generate import class_names, make_phantom
from core.models.architectures import build_model, split_model
from core.models.recipes import Recipe, Stage
from core.training import logistic
from core.training.data_loader import TrainingImages
from core.training.fit import FitTask, fit_model
from core.training.logistic import STRENGTHS, fit_logistic


def made_up(n=240, d=12, seed=0):
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, n)
    x = rng.normal(0, 1, (n, d)) * np.geomspace(0.1, 30, d) + 5
    x[:, :3] += 0.15 * np.eye(3)[y]
    return x.astype("float32"), y


def linear(d=12):
    features = keras.Input((d,), name="features")
    outputs = keras.layers.Dense(3, activation="softmax", name="probabilities")(features)
    return keras.Model(features, outputs)


def test_the_layer_is_scikit_learns_at_the_penalty_with_the_lowest_validation_loss(tmp_path):
    train, val, top = made_up(), made_up(60, seed=1), linear()
    weight = np.linspace(0.5, 1.5, 240)
    history = fit_logistic(top, train, val, weight, tmp_path, "t", 0)
    best = STRENGTHS[int(history["val_loss"].idxmin())]
    assert len(history) == len(STRENGTHS)
    assert best != STRENGTHS[0], "else the test could not tell"
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=best, max_iter=2000))
    theirs.fit(*train, logisticregression__sample_weight=weight)
    expected = theirs.predict_proba(val[0])
    assert top.predict(val[0], verbose=0) == pytest.approx(expected, abs=2e-3)
    stored = pd.read_csv(tmp_path / "history.csv")
    loss = -np.log(expected[np.arange(60), val[1]]).mean()
    assert stored["val_loss"].min() == pytest.approx(loss, rel=1e-3)


def test_no_more_rows_are_held_than_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(logistic, "MOST_ROWS", 100)
    seen = []
    fit = LogisticRegression.fit

    def count(self, x, y, **options):
        seen.append(len(x))
        return fit(self, x, y, **options)

    monkeypatch.setattr(LogisticRegression, "fit", count)
    fit_logistic(linear(), made_up(), made_up(60), np.ones(240), tmp_path, "t", 0)
    assert set(seen) == {100}


def test_a_network_under_a_logistic_stage_keeps_its_own_weights_and_goes_on(tmp_path):
    pixels = np.stack([make_phantom(class_names[i % 3], i, 64, i).pixels for i in range(36)])
    data = TrainingImages(pixels, np.arange(36) % 3)
    stage = Stage("logistic regression", 6, 0.0, cut="features", views=2, solver="logistic")
    recipe = Recipe(64, (stage,))

    def fit():
        keras.utils.set_random_seed(0)
        model = build_model("resnet50_logistic", 64, 3, 0.0)
        before = split_model(model, "features")[0].get_weights()
        history = fit_model(model, recipe, FitTask(data, data, 3, 0, "R"), tmp_path)
        assert all(map(np.array_equal, before, split_model(model, "features")[0].get_weights()))
        return model, history

    model, history = fit()
    assert np.isfinite(history["val_loss"]).all() and history["lr"].isna().all()
    accuracy = (model.predict(pixels[..., None].astype("float32"), verbose=0).argmax(1)
                == np.arange(36) % 3).mean()  # fmt: skip
    assert accuracy == pytest.approx(history.loc[history["val_loss"].idxmin(), "val_accuracy"])
    again, same = fit()
    assert same.equals(history)
    assert np.array_equal(again.get_weights()[-1], model.get_weights()[-1])


def test_an_unknown_solver_is_refused():
    with pytest.raises(ValueError, match="solver is steps or logistic"):
        Recipe(64, (Stage("x", 1, 1e-3, solver="magic"),))
