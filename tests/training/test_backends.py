"""The same training code on JAX: averages, resuming, export, several devices.

JAX runs in one process of its own (tests/support/jax_backend.py), on two virtual devices.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from core.backend import import_keras
from core.inference.served_model import compile_model
from core.training.export import TOLERANCE
from tests.support.jax_backend import CLASSES, SIZE, build_tiny, make_images

pytest.importorskip("jax", reason="JAX is not installed; requirements-dev.txt brings it.")

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def forward():
    """Weights of a tiny network, and its probabilities on this process' backend."""
    keras = import_keras()
    keras.utils.set_random_seed(1)
    model = build_tiny()
    x = make_images(6)[0][..., None].astype("float32")
    return model.get_weights(), model.predict(x, verbose=0)


@pytest.fixture(scope="module")
def folder(forward, tmp_path_factory):
    place = tmp_path_factory.mktemp("jax")
    np.savez(place / "weights.npz", **{str(i): w for i, w in enumerate(forward[0])})
    flags = "--xla_force_host_platform_device_count=2 --xla_backend_optimization_level=0"
    environment = dict(os.environ, KERAS_BACKEND="jax", XLA_FLAGS=flags, JAX_PLATFORMS="cpu")
    # The same small network is compiled again for every training; here once.
    environment |= {"JAX_COMPILATION_CACHE_DIR": str(place / "compiled")}
    environment |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.jax_backend", str(place)],
        cwd=ROOT, env=environment, capture_output=True, text=True, timeout=500,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return place


@pytest.fixture(scope="module")
def answers(folder):
    return json.loads((folder / "answers.json").read_text())


def test_both_backends_give_the_same_probabilities(forward, answers):
    assert answers["backend"] == "jax" != import_keras().backend.backend()
    np.testing.assert_allclose(answers["forward"], forward[1], atol=1e-4)


def test_the_averaged_weights_are_those_of_every_step(answers):
    assert answers["averaged"] < 1e-6


def test_a_stopped_training_ends_where_one_that_was_not_does(answers):
    assert answers["resumed"] == 0


def test_a_model_trained_in_mixed_precision_is_exported_in_float32(folder, answers):
    assert answers["exported"] <= TOLERANCE
    served = compile_model(
        folder / "model" / "model.xml", name="tiny", class_names=CLASSES, input_size_px=SIZE,
        precision="f32",
    )  # fmt: skip
    given = served.predict(make_images(6)[0])
    np.testing.assert_allclose(given.probabilities, np.load(folder / "expected.npy"), atol=1e-5)
    assert given.class_maps.shape[-1] == len(CLASSES)
    assert "bf16" not in (folder / "model" / "model.xml").read_text()


def test_two_devices_train_as_one_does_and_drop_no_image(answers):
    found = answers["side_by_side"]
    assert found["devices"] == {
        "backend": "jax", "kind": "cpu", "n": 2, "distribution": "data parallel",
        "precision": "float32",
    }  # fmt: skip
    assert found["where"] == 2
    assert found["weights"] < 1e-5
    for name in ("accuracy", "val_loss", "val_accuracy"):
        assert found["second"][name] == pytest.approx(found["first"][name], abs=1e-5)
