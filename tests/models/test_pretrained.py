"""First weights: whole, in part, broken off, foreign, and what is said of each."""

import zipfile
from dataclasses import replace

import h5py
import keras
import numpy as np
import pooch
import pytest

from core.config import ConfigError
from core.models import pretrained
from core.models.architectures import build_model
from core.models.load_weights import load_initial_weights
from core.models.names import init_title
from tests.support.files import write_published_layout
from tests.support.models import build_small


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A Keras home whose files are stand-ins with random values."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def stand_in_for(monkeypatch, known, name, file):
    """Let `file` be the published one."""
    versions = {file.stat().st_size: f"sha256:{pooch.file_hash(str(file))}"}
    monkeypatch.setitem(known, name, replace(known[name], versions=versions))


def named_arrays(model, until):
    """layer/array -> values of the layers up to the one named."""
    names = [layer.name for layer in model.layers]
    return {
        f"{layer.name}/{variable.name}": np.asarray(variable)
        for layer in model.layers[: names.index(until) + 1]
        for variable in layer.weights
    }


@pytest.fixture(scope="module")
def resnet():
    keras.utils.set_random_seed(3)
    return build_model("resnet50", 64, 3, 0.0)


def test_weights_up_to_conv4_are_taken_where_the_whole_file_is_not(home, monkeypatch, resnet):
    known = pretrained.PARTIAL_IMAGENET["resnet50"]
    held = named_arrays(resnet, known.covers)
    np.savez(home / known.name, **held)
    stand_in_for(monkeypatch, pretrained.PARTIAL_IMAGENET, "resnet50", home / known.name)
    plan = pretrained.plan_init("resnet50", "auto", download=False)
    assert plan.kind == "imagenet-partial:conv4_block6_out"
    assert plan.file == home / known.name and "not in the Keras home" in plan.reason
    assert init_title(plan.kind) == "ImageNet up to conv4"
    keras.utils.set_random_seed(4)
    model = build_model("resnet50", 96, 3, 0.0)
    fresh = load_initial_weights(model, "resnet50", plan.file)
    assert "probabilities" in fresh and "conv5_block3_3_bn" in fresh
    assert not any(name.startswith(("conv1", "conv2", "conv3", "conv4")) for name in fresh)
    for layer in model.layers:
        if layer.weights:
            ours, theirs = layer.get_weights(), resnet.get_layer(layer.name).get_weights()
            same = all(map(np.array_equal, ours, theirs))
            assert same == (layer.name not in fresh) or not layer.name.endswith("conv"), layer.name
    # A run that began with them goes on with them, also where the whole file has come since.
    again = pretrained.plan_init("resnet50", plan.kind, download=False)
    assert (again.kind, again.file) == (plan.kind, plan.file)
    given = pretrained.plan_init("resnet50", str(plan.file), download=False)
    assert (given.kind, given.file) == (plan.kind, plan.file), "known by its hash wherever it lies"
    with pytest.raises(ConfigError, match="kernels_notop"):
        pretrained.plan_init("resnet50", "imagenet", download=False)
    assert pretrained.plan_init("resnet50_frozen", "auto", download=False).kind == "random"


def test_another_file_of_arrays_under_the_known_name_is_not_taken(home):
    known = pretrained.PARTIAL_IMAGENET["resnet50"]
    np.savez(home / known.name, **{"conv1_conv/kernel": np.zeros(3)})
    plan = pretrained.plan_init("resnet50", "auto", download=False)
    assert plan.kind == "random" and "broken off at" in plan.reason
    assert "36,539,106 bytes" in plan.reason


@pytest.mark.parametrize("name", ["weights.h5", "mine.weights.h5", "arrays.npz", "whole.keras"])
def test_a_file_that_is_broken_off_is_named_before_it_is_read(tmp_path, name):
    file, model = tmp_path / name, build_small(64, 3, 0.0)
    if name == "weights.h5":
        write_published_layout(file, model)
    elif name == "arrays.npz":
        np.savez(file, **named_arrays(model, "features"))
    else:
        (model.save if file.suffix == ".keras" else model.save_weights)(file)
    whole = file.read_bytes()
    assert pretrained.plan_init("cnn", str(file)).file == file
    file.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ConfigError) as caught:
        pretrained.plan_init("cnn", str(file))
    assert f"{name} is broken off" in str(caught.value) and "delete it" in str(caught.value)
    if file.suffix == ".h5":
        assert f"at {len(whole) // 2:,} of {len(whole):,} bytes" in str(caught.value)
    file.write_bytes(b"<html>Not found</html>" * 9)
    with pytest.raises(ConfigError, match="is no "):
        pretrained.plan_init("cnn", str(file))


@pytest.mark.parametrize("kind", ["npz", "h5"])
def test_arrays_of_some_layers_are_taken_and_the_rest_starts_fresh(tmp_path, kind):
    keras.utils.set_random_seed(1)
    other = build_small(64, 3, 0.0)
    held, file = named_arrays(other, "low"), tmp_path / f"low.{kind}"
    if kind == "npz":
        np.savez(file, **held)
    else:
        with h5py.File(file, "w") as stored:
            stored.attrs["layer_names"] = ["low_conv", "low_bn"]
            for layer in ("low_conv", "low_bn"):
                keys = [key for key in held if key.startswith(f"{layer}/")]
                stored.create_group(layer).attrs["weight_names"] = [f"{key}:0" for key in keys]
                for key in keys:
                    stored[layer][f"{key}:0"] = held[key]
    keras.utils.set_random_seed(2)
    model = build_small(64, 3, 0.0)
    before = model.get_layer("high_conv").get_weights()[0]
    assert load_initial_weights(model, "small", file) == {"high_conv", "high_bn", "probabilities"}
    assert np.array_equal(
        model.get_layer("low_conv").get_weights()[0], other.get_layer("low_conv").get_weights()[0]
    )
    assert np.array_equal(model.get_layer("high_conv").get_weights()[0], before)


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({}, "it is empty"),
        ({"conv9/kernel": np.zeros(3)}, "1 of 1 arrays, such as conv9/kernel, are no layer's"),
        ({"low_bn/gamma": np.zeros(8)}, "low_bn/beta is missing"),
        ({"low_conv/kernel": np.zeros((3, 3, 1, 8))}, "has the shape (3, 3, 1, 8), not (5, 5, 1"),
    ],
)
def test_arrays_that_do_not_fit_change_nothing_and_are_named(tmp_path, arrays, says):
    file, model = tmp_path / "arrays.npz", build_small(64, 3, 0.0)
    np.savez(file, **arrays)
    before = model.get_weights()
    with pytest.raises(ConfigError) as caught:
        load_initial_weights(model, "small", file)
    assert says in str(caught.value) and "\n" not in str(caught.value)
    assert all(map(np.array_equal, before, model.get_weights()))


@pytest.mark.parametrize(
    ("name", "application"),
    [("resnet50", keras.applications.ResNet50), ("mobilenetv2", keras.applications.MobileNetV2)],
)
def test_imagenet_weights_come_from_the_keras_home(home, monkeypatch, name, application):
    keras.utils.set_random_seed(7)
    base = application(include_top=False, weights=None, input_shape=(64, 64, 3))
    stand_in = home / pretrained.IMAGENET[name].name
    write_published_layout(stand_in, base)
    stand_in_for(monkeypatch, pretrained.IMAGENET, name, stand_in)
    assert pretrained.plan_init(name, "auto", download=False) == pretrained.InitPlan(
        "imagenet", stand_in
    )
    model = build_model(name, 96, 3, 0.2)
    load_initial_weights(model, name, stand_in)
    loaded = keras.Model(model.inputs, model.get_layer("features").input)
    for ours, theirs in zip(loaded.get_weights(), base.get_weights(), strict=True):
        assert (ours == theirs).all()


def test_weights_of_another_network_are_one_sentence(home):
    base = keras.applications.MobileNetV2(include_top=False, weights=None, input_shape=(64, 64, 3))
    write_published_layout(home / "other.h5", base)
    with pytest.raises(ConfigError, match="do not fit"):
        load_initial_weights(build_model("resnet50", 64, 3, 0.2), "resnet50", home / "other.h5")


def test_without_files_auto_is_random_and_imagenet_names_the_file(home):
    plan = pretrained.plan_init("resnet50", "auto", download=False)
    assert (plan.kind, plan.file) == ("random", None) and "not in the Keras home" in plan.reason
    known = pretrained.IMAGENET["resnet50"]
    with pytest.raises(ConfigError) as caught:
        pretrained.plan_init("resnet50", "imagenet", download=False)
    for part in (known.name, "4d473c1dd8becc155b73f8504c6f6626", str(home)):
        assert part in str(caught.value)


def test_a_file_of_another_hash_is_neither_loaded_nor_deleted(home):
    file = home / pretrained.IMAGENET["resnet50"].name
    file.write_bytes(b"not the published file")
    plan = pretrained.plan_init("resnet50", "auto", download=False)
    assert (plan.kind, plan.file) == ("random", None) and "is no HDF5 file" in plan.reason
    with pytest.raises(ConfigError, match="is no HDF5 file"):
        pretrained.plan_init("resnet50", "imagenet", download=False)
    assert file.read_bytes() == b"not the published file"


def test_a_control_is_random_whatever_is_asked_and_the_cnn_unless_a_file_is_given(home):
    for name in ("cnn", "mobilenetv2_random"):
        assert pretrained.plan_init(name, "imagenet", download=False) == pretrained.InitPlan(
            "random"
        )
    file = home / "mine.keras"
    zipfile.ZipFile(file, "w").close()
    assert pretrained.plan_init("cnn", str(file)) == pretrained.InitPlan("file:mine.keras", file)
    assert pretrained.plan_init("mobilenetv2_random", str(file)) == pretrained.InitPlan("random")


def test_a_file_that_is_not_there_is_one_sentence():
    with pytest.raises(ConfigError, match="names no file"):
        pretrained.plan_init("cnn_missing", "nowhere.h5")
