"""Networks, first weights, batch normalisation, rounding and export."""

from dataclasses import replace

import h5py
import keras
import numpy as np
import pytest

from core import export, weights
from core.config import ConfigError
from core.export import ExportError, export_model, round_weights
from core.fitting import Batches, Images, class_weights, fit_model
from core.inference import compile_model
from core.models import BUILDERS, build_model, build_serving_model, split_model
from core.phantom import class_names, make_phantom
from core.recipes import Recipe, Stage


@pytest.fixture(scope="module")
def phantoms():
    pixels, y = [], []
    for patient in range(60):
        label = patient % 3
        for seed in range(2):
            pixels.append(make_phantom(class_names[label], seed, 64, patient).pixels)
            y.append(label)
    return np.stack(pixels), np.array(y)


def as_input(pixels):
    return pixels.astype("float32")[..., None]


@pytest.mark.parametrize("name", BUILDERS)
def test_every_model_gives_probabilities_and_maps_whose_mean_is_the_logit(name, phantoms):
    model = build_model(name, 64, 3, 0.2)
    answer = build_serving_model(model).predict(as_input(phantoms[0][:2]), verbose=0)
    logits = answer["class_maps"].mean(axis=(1, 2))
    softmax = np.exp(logits - logits.max(axis=1, keepdims=True))
    softmax /= softmax.sum(axis=1, keepdims=True)
    assert answer["probabilities"] == pytest.approx(softmax, abs=1e-5)
    assert answer["probabilities"].shape == (2, 3)


def test_cutting_a_model_changes_nothing(phantoms):
    model = build_model("mobilenetv2", 64, 3, 0.2)
    bottom, top = split_model(model, "block_12_add")
    x = as_input(phantoms[0][:3])
    whole = model.predict(x, verbose=0)
    assert top.predict(bottom.predict(x, verbose=0), verbose=0) == pytest.approx(whole, abs=1e-6)


def test_an_unknown_model_lists_the_choices():
    with pytest.raises(ConfigError, match="mobilenetv2"):
        build_model("vgg", 64, 3, 0.2)


def test_class_weights_count_every_class_alike():
    weight = class_weights(np.array([0, 0, 0, 1]), 2)
    assert weight.mean() == pytest.approx(1)
    assert weight[:3].sum() == pytest.approx(weight[3:].sum())


def test_batches_hold_every_image_once_and_repeat_after_a_resume():
    views = np.arange(2 * 7).reshape(2, 7, 1)
    y, w = np.eye(7, dtype="float32"), np.ones(7, dtype="float32")
    first = Batches(views, y, w, 3, seed=5)
    seen = [np.argmax(first[i][1], axis=1) for i in range(len(first))]
    assert sorted(np.concatenate(seen)) == list(range(7))
    first.on_epoch_end()
    resumed = Batches(views, y, w, 3, seed=5, first_epoch=1)
    for index in range(len(first)):
        for a, b in zip(first[index], resumed[index], strict=True):
            assert (a == b).all()


def test_batch_norm_answers_alike_in_training_and_inference_mode(phantoms, tmp_path):
    pixels, y = phantoms
    keras.utils.set_random_seed(0)
    model = build_model("cnn", 64, 3, 0.0)
    recipe = Recipe(64, (Stage("all layers", 25, 2e-3, patience=25),), batch_size=24, dropout=0.0)
    data = Images(pixels, y, class_weights(y, 3))
    history = fit_model(model, recipe, data, data, 3, tmp_path, seed=0, title="CNN")
    assert list(history["epoch"]) == list(range(1, len(history) + 1))
    x = as_input(pixels)

    def accuracy(training):
        # Dropout is 0 in this model, so only batch normalisation tells the modes apart.
        p = [model(x[i : i + 24], training=training) for i in range(0, len(x), 24)]
        return float((np.concatenate([np.asarray(a).argmax(axis=1) for a in p]) == y).mean())

    assert accuracy(False) > 0.6
    assert abs(accuracy(True) - accuracy(False)) < 0.03


@pytest.mark.parametrize("name", ["cnn", "mobilenetv2"])
def test_folding_batch_norm_and_rounding_keep_the_answers(name, phantoms, tmp_path):
    pixels = phantoms[0][:8]
    model = build_model(name, 64, 3, 0.2)
    rng = np.random.default_rng(0)
    for layer in model.layers:  # batch norm that is not the identity
        if isinstance(layer, keras.layers.BatchNormalization):
            gamma, beta, mean, var = layer.get_weights()
            layer.set_weights([
                gamma * rng.uniform(0.5, 1.5, gamma.shape), beta + rng.normal(0, 0.1, beta.shape),
                mean + rng.normal(0, 0.1, mean.shape), var * rng.uniform(0.5, 2, var.shape),
            ])  # fmt: skip
    before = model.predict(as_input(pixels), verbose=0)
    round_weights(model)
    assert model.predict(as_input(pixels), verbose=0) == pytest.approx(before, abs=5e-3)
    assert export_model(model, tmp_path, pixels) <= 1e-4
    served = compile_model(
        tmp_path / "model.xml", name=name, class_names=class_names, input_size_px=64
    )
    one = [served.predict(pixels[i : i + 1]).probabilities[0] for i in range(8)]
    assert served.predict(pixels).probabilities == pytest.approx(np.stack(one), abs=1e-5)


def test_an_export_that_differs_is_refused(phantoms, tmp_path, monkeypatch):
    model = build_model("cnn", 64, 3, 0.2)
    monkeypatch.setattr(export, "TOLERANCE", -1.0)
    with pytest.raises(ExportError, match="differs"):
        export_model(model, tmp_path, phantoms[0][:4])


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A Keras home whose files are stand-ins with random values."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


@pytest.mark.parametrize(
    ("name", "application"),
    [("resnet50", keras.applications.ResNet50), ("mobilenetv2", keras.applications.MobileNetV2)],
)
def test_imagenet_weights_come_from_the_keras_home(home, monkeypatch, name, application):
    keras.utils.set_random_seed(7)
    base = application(include_top=False, weights=None, input_shape=(64, 64, 3))
    known = weights.IMAGENET[name]
    stand_in = home / known.name
    write_published_layout(stand_in, base)
    md5 = weights.md5_file(stand_in)
    monkeypatch.setitem(weights.IMAGENET, name, replace(known, md5=md5))
    assert weights.plan_init(name, "auto", download=False) == ("imagenet", stand_in)
    model = build_model(name, 96, 3, 0.2)
    weights.load_initial_weights(model, name, stand_in)
    loaded = keras.Model(model.inputs, model.get_layer("features").input)
    for ours, theirs in zip(loaded.get_weights(), base.get_weights(), strict=True):
        assert (ours == theirs).all()


def test_weights_of_another_network_are_one_sentence(home):
    base = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(64, 64, 3))
    write_published_layout(home / "other.h5", base)
    with pytest.raises(ConfigError, match="do not fit"):
        weights.load_initial_weights(
            build_model("resnet50", 64, 3, 0.2), "resnet50", home / "other.h5"
        )


def write_published_layout(file, model):
    """The layout of the published files: one group a layer, named datasets in order."""
    with h5py.File(file, "w") as out:
        out.attrs["layer_names"] = [layer.name.encode() for layer in model.layers]
        out.attrs["backend"] = b"tensorflow"
        out.attrs["keras_version"] = b"2.1.6"
        for layer in model.layers:
            group = out.create_group(layer.name)
            names = [f"{layer.name}/w{i}".encode() for i in range(len(layer.weights))]
            group.attrs["weight_names"] = names
            for key, value in zip(names, layer.get_weights(), strict=True):
                group.create_dataset(key.decode(), data=value)


def test_without_files_auto_is_random_and_imagenet_names_the_file(home):
    assert weights.plan_init("resnet50", "auto", download=False) == ("random", None)
    known = weights.IMAGENET["resnet50"]
    with pytest.raises(ConfigError) as caught:
        weights.plan_init("resnet50", "imagenet", download=False)
    for part in (known.name, known.md5, str(home)):
        assert part in str(caught.value)


def test_a_file_of_another_hash_is_neither_loaded_nor_deleted(home):
    file = home / weights.IMAGENET["resnet50"].name
    file.write_bytes(b"not the published file")
    assert weights.plan_init("resnet50", "auto", download=False) == ("random", None)
    with pytest.raises(ConfigError, match="not the published one"):
        weights.plan_init("resnet50", "imagenet", download=False)
    assert file.read_bytes() == b"not the published file"


def test_the_cnn_and_the_control_are_random_whatever_is_asked(home):
    for name in ("cnn", "mobilenetv2_random"):
        assert weights.plan_init(name, "imagenet", download=False) == ("random", None)


def test_a_file_that_is_not_there_is_one_sentence():
    with pytest.raises(ConfigError, match="names no file"):
        weights.plan_init("cnn_missing", "nowhere.h5")
