"""Devices, precision and even batches, on this process' backend and one CPU."""

import logging

import numpy as np
import pytest

from core.backend import import_keras

keras = import_keras()

from core.config import ConfigError  # noqa: E402
from core.training import devices, openvino  # noqa: E402
from tests.support.jax_backend import build_tiny, make_images  # noqa: E402


@pytest.fixture(autouse=True)
def usual_precision():
    yield
    keras.config.set_dtype_policy("float32")
    keras.distribution.set_distribution(None)


@pytest.fixture
def four_parts(monkeypatch):
    monkeypatch.setattr(devices, "count_replicas", lambda: 4)


def test_a_cpu_calculates_in_float32_unless_told_otherwise(caplog):
    caplog.set_level(logging.INFO, "core")
    chosen = devices.prepare_devices()
    assert chosen == {
        "backend": "tensorflow", "kind": "cpu", "n": 1, "distribution": "none",
        "precision": "float32",
    }  # fmt: skip
    assert caplog.messages == ["Training on 1 CPU, tensorflow, in float32."]
    assert devices.prepare_devices("on")["precision"] == "mixed_bfloat16"
    assert "bfloat16" in caplog.messages[-1] and build_tiny().layers[1].compute_dtype == "bfloat16"
    assert devices.prepare_devices("off")["precision"] == "float32"
    assert build_tiny().layers[1].compute_dtype == "float32"


def test_a_gpu_calculates_in_bfloat16_and_tensorflow_uses_one(monkeypatch, caplog):
    monkeypatch.setattr(keras.distribution, "list_devices", lambda: ["gpu:0", "gpu:1"])
    chosen = devices.prepare_devices()
    assert (chosen["kind"], chosen["n"], chosen["distribution"]) == ("gpu", 1, "none")
    assert chosen["precision"] == "mixed_bfloat16"
    assert caplog.messages[0].startswith("2 devices are there, one is used")
    assert devices.prepare_devices("off")["precision"] == "float32"
    assert devices.list_gpus() == ["gpu:0", "gpu:1"]


def test_an_unknown_choice_is_one_sentence():
    with pytest.raises(ConfigError, match="auto, on, off"):
        devices.prepare_devices("half")


def test_a_cleared_session_keeps_the_precision():
    keras.config.set_dtype_policy("mixed_bfloat16")
    keras.utils.clear_session()
    assert keras.config.dtype_policy().name == "float32", "Keras forgets it; else this is no test"
    keras.config.set_dtype_policy("mixed_bfloat16")
    devices.clear_session()
    assert keras.config.dtype_policy().name == "mixed_bfloat16"


def test_a_model_of_mixed_precision_becomes_one_of_float32():
    devices.prepare_devices("on")
    mixed = build_tiny()
    assert {v.dtype for v in mixed.trainable_variables} == {"float32"}
    assert mixed.outputs[0].dtype == "float32"
    whole = openvino.in_float32(mixed)
    assert "mixed" not in repr(whole.get_config())
    devices.prepare_devices("off")
    plain = build_tiny()
    plain.set_weights(mixed.get_weights())
    x = make_images(3)[0][..., None].astype("float32")
    np.testing.assert_array_equal(whole.predict(x, verbose=0), plain.predict(x, verbose=0))
    assert np.abs(mixed.predict(x, verbose=0) - plain.predict(x, verbose=0)).max() > 0
    assert openvino.in_float32(plain) is plain


def test_a_batch_is_filled_so_that_its_mean_loss_stays(four_parts):
    x, y = np.arange(5.0), np.eye(5)
    weight = np.array([1, 2, 3, 4, 5], dtype="float32")
    filled_x, filled_y, filled = devices.fill_batch(x, y, weight)
    assert list(filled_x) == [0, 1, 2, 3, 4, 0, 1, 2] and filled_y.shape == (8, 5)
    loss = x + 1
    assert np.sum(filled * (filled_x + 1)) / 8 == pytest.approx(np.sum(weight * loss) / 5)
    assert list(filled[5:]) == [0, 0, 0] and list(weight) == [1, 2, 3, 4, 5]
    even = devices.fill_batch(x[:4], y[:4], weight[:4])
    assert even[0] is not x and len(even[0]) == 4 and list(even[2]) == [1, 2, 3, 4]


def test_rows_that_fill_do_not_change_a_mean_over_validation(four_parts):
    loss, batch = np.arange(1.0, 14.0), 6  # batches of 6, 6 and 1 become 8, 8 and 4
    weight = np.full(13, devices.validation_weight(13, batch), dtype="float32")
    total = rows = 0.0
    for start in range(0, 13, batch):
        part = slice(start, start + batch)
        x, _, w = devices.fill_batch(loss[part], loss[part], weight[part], grow=False)
        total, rows = total + np.sum(w * x), rows + len(x)
    assert rows == 20
    assert total / rows == pytest.approx(loss.mean())


def test_a_metric_leaves_filling_rows_out_and_weighs_the_others_alike():
    metric = devices.Once(keras.metrics.CategoricalAccuracy(name="accuracy"))
    y_true = np.eye(2)[[0, 0, 1, 1]]
    y_pred = np.eye(2)[[0, 1, 1, 0]]
    metric.update_state(y_true, y_pred, sample_weight=np.array([5.0, 1.0, 1.0, 0.0]))
    assert float(metric.result()) == pytest.approx(2 / 3)
    metric.reset_state()
    metric.update_state(y_true, y_pred)
    assert float(metric.result()) == pytest.approx(1 / 2)
