"""Fused batch normalisation computes what Keras' own does."""

import keras
import numpy as np
import pytest

from core.models.architectures import build_model
from core.training.fused_batch_norm import fused_batch_norm

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow has the fused operation"
)


def small():
    image = keras.Input((6, 5, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(image)
    x = keras.layers.BatchNormalization(momentum=0.7, name="norm")(x)
    x = keras.layers.GlobalAveragePooling2D()(keras.layers.Activation("tanh")(x))
    model = keras.Model(image, keras.layers.Dense(2, activation="softmax")(x))
    model.compile("sgd", "categorical_crossentropy", jit_compile=False)
    return model


def steps(model, x, y):
    return [float(model.train_on_batch(x, y)) for _ in range(4)]


def test_losses_weights_and_moving_averages_are_those_of_keras():
    rng = np.random.default_rng(0)
    x = rng.normal(2, 3, (9, 6, 5, 3)).astype("float32")
    y = np.eye(2, dtype="float32")[rng.integers(0, 2, 9)]
    keras.utils.set_random_seed(0)
    own = small()
    fused = small()
    fused.set_weights(own.get_weights())
    fused.optimizer.learning_rate = own.optimizer.learning_rate = 0.5
    before = own.get_layer("norm").get_weights()
    expected = steps(own, x, y)
    with fused_batch_norm(fused):
        assert "call" in vars(fused.get_layer("norm")), "else nothing is tested"
        assert steps(fused, x, y) == pytest.approx(expected, rel=1e-4)
    for mine, theirs in zip(fused.get_weights(), own.get_weights(), strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3, abs=1e-4)
    for old, new in zip(before, own.get_layer("norm").get_weights(), strict=True):
        assert np.abs(old - new).max() > 0.01, "each of the four has moved"
    assert fused.predict(x, verbose=0) == pytest.approx(own.predict(x, verbose=0), abs=1e-4)


def test_a_frozen_layer_stays_frozen_and_the_layers_are_left_as_they_were():
    keras.utils.set_random_seed(0)
    model = build_model("cnn", 32, 3, 0.0)
    norms = [m for m in model.layers if isinstance(m, keras.layers.BatchNormalization)]
    norms[0].trainable = False
    x = np.random.default_rng(0).uniform(0, 255, (4, 32, 32, 1)).astype("float32")
    before = [norm.get_weights()[2] for norm in norms]
    with fused_batch_norm(model):
        model(x, training=True)
    assert not any("call" in vars(norm) for norm in norms)
    moved = [not np.array_equal(b, n.get_weights()[2]) for b, n in zip(before, norms, strict=True)]
    assert moved == [False] + [True] * (len(norms) - 1)
