"""Networks, first weights, batch normalisation, rounding and export."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest

from core.config import ConfigError
from core.datasets.phantom.generate import class_names, make_phantom
from core.engine import import_openvino
from core.inference.served_model import InferenceError, compile_model
from core.models.architectures import build_model, build_serving_model, split_model
from core.models.names import OWN
from core.models.recipes import Recipe, Stage
from core.training import callbacks, export, openvino
from core.training import fit as fitting
from core.training.callbacks import Recorder, WeightAverage
from core.training.data_loader import Batches, TrainingImages, class_weights
from core.training.export import ExportError, export_model, round_weights
from core.training.feature_cache import FrozenStore, augmented_views
from core.training.fit import FitTask, fit_model
from core.training.openvino import cached_openvino
from tests.support.models import build_small


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


@pytest.mark.parametrize("name", [*OWN, "mobilenetv2_random"])
def test_our_models_give_probabilities_and_maps_whose_mean_is_the_logit(name, phantoms):
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


@pytest.mark.parametrize("name", ["cnn", "small"])
def test_batch_norm_answers_alike_in_training_and_inference_mode(name, phantoms, tmp_path):
    # Classes told by brightness are learned in few steps; where nothing is learned modes agree.
    y = phantoms[1][:48]
    pixels = (phantoms[0][:48] * 0.4 + 60 * y[:, None, None]).astype("uint8")
    keras.utils.set_random_seed(0)
    rate, epochs = (2e-3, 8) if name == "cnn" else (3e-2, 16)
    model = build_model(name, 64, 3, 0.0) if name == "cnn" else build_small(64, 3, 0.0)
    for layer in model.layers:  # as MobileNetV2's: hundreds of steps would not be enough
        if name == "small" and isinstance(layer, keras.layers.BatchNormalization):
            layer.momentum = 0.999
    stage = Stage("all layers", epochs, rate, patience=epochs)
    recipe = Recipe(64, (stage,), batch_size=12, dropout=0.0)
    data = TrainingImages(pixels, y)
    history = fit_model(model, recipe, FitTask(data, data, 3, 0, name), tmp_path)
    assert list(history["epoch"]) == list(range(1, len(history) + 1))
    x = as_input(pixels)

    def accuracy(training):
        # Dropout is 0 in this model, so only batch normalisation tells the modes apart.
        p = [model(x[i : i + 12], training=training) for i in range(0, len(x), 12)]
        return float((np.concatenate([np.asarray(a).argmax(axis=1) for a in p]) == y).mean())

    assert accuracy(False) > 0.6
    assert abs(accuracy(True) - accuracy(False)) < 0.03


def test_frozen_layers_are_computed_once_a_stage_and_stay_as_they_were(
    phantoms, tmp_path, monkeypatch
):
    pixels, y = phantoms[0][:48], phantoms[1][:48]
    keras.utils.set_random_seed(0)
    model = build_small(64, 3, 0.2)
    before = {layer.name: layer.get_weights() for layer in model.layers}
    computed, clock = [], []
    clocked = SimpleNamespace(perf_counter=lambda: float(sum(clock)))
    monkeypatch.setattr(fitting, "time", clocked)
    monkeypatch.setattr(callbacks, "time", clocked)

    compute = FrozenStore._compute

    def count(store, bottom, stage, file, wanted):
        computed.append((bottom.layers[-1].name, stage.views))
        clock.append(5)
        compute(store, bottom, stage, file, wanted)

    monkeypatch.setattr(FrozenStore, "_compute", count)
    stages = (
        Stage("head", 3, 1e-3, cut="features", views=2),
        Stage("blocks", 2, 1e-3, cut="low", views=3),
    )
    recipe = Recipe(64, stages, batch_size=16)
    data = TrainingImages(pixels, y)
    history = fit_model(model, recipe, FitTask(data, data, 3, 0, "MobileNetV2"), tmp_path)
    assert list(history["phase"]) == ["head"] * 3 + ["blocks"] * 2
    assert computed == [("features", 2), ("low", 3)]
    # The clock goes on by 5 s whenever a frozen part is computed, once a stage.
    assert list(history["seconds"]) == [5, 0, 0, 5, 0]
    names = [layer.name for layer in model.layers]
    cut = names.index("low")
    for layer in model.layers:
        same = all(map(np.array_equal, before[layer.name], layer.get_weights()))
        frozen = names.index(layer.name) <= cut
        frozen = frozen or isinstance(layer, keras.layers.BatchNormalization)
        assert same or not frozen, layer.name
    for name in ("high_conv", "probabilities"):
        assert not np.array_equal(before[name][0], model.get_layer(name).get_weights()[0]), name


def test_augmented_views_begin_with_the_images_themselves(phantoms):
    pixels = phantoms[0][:5]

    def views():
        drawn = augmented_views(pixels, Recipe(64, ()), 3, seed=1)
        return [images[..., 0] for _, rows, images in drawn if list(rows) == list(range(5))]

    first = views()
    assert len(first) == 3 and (first[0] == pixels).all()
    assert (first[1] != pixels).any() and (first[2] != first[1]).any()
    assert first[1].min() >= 0 and first[1].max() <= 255 and (first[1] % 1 == 0).all()
    assert all((a == b).all() for a, b in zip(first, views(), strict=True))


def test_a_view_of_an_image_is_the_same_whoever_else_is_asked_for(phantoms):
    pixels = phantoms[0][:70]
    recipe, wanted = Recipe(64, ()), np.zeros((2, 70), dtype=bool)
    wanted[1, [0, 3, 31, 32, 69]] = wanted[0, 5] = True
    every = {
        (view, row): image
        for view, rows, images in augmented_views(pixels, recipe, 2, seed=1)
        for row, image in zip(rows, images, strict=True)
    }
    assert len(every) == 140
    some = list(augmented_views(pixels, recipe, 2, 1, wanted))
    assert [(view, list(rows)) for view, rows, _ in some] == [(0, [5]), (1, [0, 3, 31, 32, 69])]
    for view, rows, images in some:
        assert all((image == every[view, r]).all() for r, image in zip(rows, images, strict=True))
    assert (every[1, 0] != every[1, 32]).any()


def test_trainings_that_share_a_store_compute_the_frozen_part_once(phantoms, tmp_path, monkeypatch):
    pixels, y = phantoms[0][:40], phantoms[1][:40]
    recipe = Recipe(64, (Stage("blocks", 1, 1e-3, cut="low", views=2),), batch_size=16)
    store = FrozenStore(pixels, tmp_path / "frozen", recipe, 0, "MobileNetV2")
    computed, compute = [], FrozenStore._compute

    def count(store, bottom, stage, file, wanted):
        computed.append(wanted)
        compute(store, bottom, stage, file, wanted)

    monkeypatch.setattr(FrozenStore, "_compute", count)

    def fit(rows, val_rows, folder, **options):
        keras.utils.set_random_seed(0)
        model = build_small(64, 3, 0.0)
        data = [TrainingImages(pixels[r], y[r], r) for r in (rows, val_rows)]
        fit_model(model, recipe, FitTask(*data, 3, 0, "M", **options), folder)
        return model.get_layer("probabilities").get_weights()[0]

    one, other = np.arange(30), np.arange(10, 40)
    shared = fit(one, other[20:], tmp_path / "a", store=store)
    fit(other, one[:10], tmp_path / "b", store=store)
    first, more = computed
    assert first.sum() == 2 * 30 + 10 and not first[1, 30:].any(), "validation has one view"
    assert not (first & more).any() and more.sum() == 10, "what is there is not computed again"
    fit(other, one[:10], tmp_path / "b2", store=store)
    assert len(computed) == 2
    # The store gives a training the rows that are its own: alone it learns the same.
    views = np.asarray(store.outputs(None, recipe.stages[0], one, other))
    assert views.shape[:2] == (2, 40)
    assert not np.array_equal(views[0, 0], views[0, 1])
    own = FrozenStore(pixels, tmp_path / "own", recipe, 0, "MobileNetV2")
    assert np.array_equal(shared, fit(one, other[20:], tmp_path / "c", store=own))


def test_the_average_stands_in_for_the_weights_while_they_are_validated():
    model = build_model("cnn", 64, 3, 0.0)
    average = WeightAverage(model, 0.5)
    variable, seen = model.trainable_variables[-1], []
    for step in range(3):
        variable.assign(np.full(3, float(step), dtype="float32"))
        average.on_train_batch_end(step)
        seen.append(float(average.values[-1][0]))
    # What is kept of the average: min(0.5, 0 / 10), then min(0.5, 1 / 11), then min(0.5, 2 / 12).
    first, second = 0.0, 1 * 10 / 11
    assert seen == pytest.approx([first, second, second * 2 / 12 + 2 * 10 / 12])
    average.on_test_begin()
    assert np.asarray(variable) == pytest.approx(np.full(3, seen[-1]))
    average.take_out()
    assert np.asarray(variable) == pytest.approx(np.full(3, 2.0))


@pytest.mark.parametrize("keep", ["best", "last"])
def test_the_epoch_that_is_kept_is_the_one_that_the_recipe_names(keep, phantoms, tmp_path):
    pixels, y = phantoms[0][:48], phantoms[1][:48]
    stage = Stage("all layers", 10, 3e-2, patience=10, average=0.9, keep=keep)
    # Wrong labels in validation: what is learned makes its loss worse.
    data, wrong = TrainingImages(pixels, y), TrainingImages(pixels[:24], (y[:24] + 1) % 3)
    keras.utils.set_random_seed(0)
    model = build_small(64, 3, 0.0)
    recipe = Recipe(64, (stage,), batch_size=16, dropout=0.0)
    history = fit_model(model, recipe, FitTask(data, wrong, 3, 0, "CNN"), tmp_path)
    best = int(history.loc[history["val_loss"].idxmin(), "epoch"])
    assert best < 10, "else this tells nothing"
    with np.load(tmp_path / "stage0" / "best.npz") as saved:
        assert int(saved["epoch"]) == (best if keep == "best" else 10)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_an_interrupted_stage_ends_as_an_uninterrupted_one(
    momentum, phantoms, tmp_path, monkeypatch
):
    pixels, y = phantoms[0][:48], phantoms[1][:48]
    stage = Stage("all layers", 4, 1e-3, average=momentum)
    recipe = Recipe(64, (stage,), batch_size=16)
    data = TrainingImages(pixels, y)

    def fit(folder):
        keras.utils.set_random_seed(0)
        model = build_small(64, 3, 0.2)
        return fit_model(model, recipe, FitTask(data, data, 3, 0, "CNN"), folder)

    whole = fit(tmp_path / "whole")
    restore, state = Recorder.on_epoch_begin, {"left": 2}

    def stop_at_the_third(self, epoch, logs=None):
        if epoch == 2 and state.pop("left", None):
            raise KeyboardInterrupt
        restore(self, epoch, logs)

    monkeypatch.setattr(Recorder, "on_epoch_begin", stop_at_the_third)
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "torn")
    resumed = fit(tmp_path / "torn")
    for column in ("epoch", "loss", "val_loss", "lr"):
        assert resumed[column].to_numpy() == pytest.approx(whole[column].to_numpy(), rel=0.02)


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

    def build_another(trained):
        other = keras.models.clone_model(trained)
        bias = other.get_layer("probabilities").bias
        other.set_weights(trained.get_weights())
        bias.assign(bias + np.array([0.01, 0, 0], dtype="float32"))
        return build_serving_model(other)

    monkeypatch.setattr(export, "build_serving_model", build_another)
    with pytest.raises(ExportError, match="differs"):
        export_model(model, tmp_path, phantoms[0][:4])


def test_flips_are_averaged_and_their_maps_turned_back(phantoms, tmp_path):
    pixels = phantoms[0][:3]
    model = build_model("cnn", 64, 3, 0.2)
    round_weights(model)
    export_model(model, tmp_path, pixels)
    options = {"name": "cnn", "class_names": class_names, "input_size_px": 64}
    with pytest.raises(InferenceError, match="takes images of 64 px, but its run says 96 px"):
        compile_model(tmp_path / "model.xml", **options | {"input_size_px": 96})
    plain = compile_model(tmp_path / "model.xml", **options)
    flipped = compile_model(tmp_path / "model.xml", **options, tta="flip")
    one, other, both = (
        m.predict(x) for m, x in ((plain, pixels), (plain, pixels[:, :, ::-1]), (flipped, pixels))
    )
    for name in ("probabilities", "features"):
        mean = (getattr(one, name) + getattr(other, name)) / 2
        assert getattr(both, name) == pytest.approx(mean, abs=1e-5)
    maps = (one.class_maps + other.class_maps[:, :, ::-1]) / 2
    assert both.class_maps == pytest.approx(maps, abs=1e-4)
    assert np.abs(maps - one.class_maps).max() > 1e-2, "the test must be able to tell"


def test_a_network_is_converted_once_and_anew_when_a_weight_changes(tmp_path, monkeypatch):
    written, write = [], openvino.write_openvino

    def count(model, file):
        written.append(file)
        write(model, file)

    monkeypatch.setattr(openvino, "write_openvino", count)

    def convert(seed, change=0.0):
        keras.utils.clear_session()  # as every training does: layers are counted from 1 again
        keras.utils.set_random_seed(seed)
        bottom, _ = split_model(build_model("cnn", 32, 3, 0.0), "block2_pool")
        bottom.trainable_variables[0].assign_add(np.full((3, 3, 1, 32), change, dtype="float32"))
        return cached_openvino(bottom, tmp_path / "graphs"), bottom

    first, bottom = convert(0)
    again, _ = convert(0)
    other, _ = convert(0, change=1e-3)
    assert first == again != other and len(written) == 2
    assert sorted(p.suffix for p in (tmp_path / "graphs").iterdir()) == [".bin"] * 2 + [".xml"] * 2
    x = np.ones((1, 32, 32, 1), dtype="float32") * 100
    compiled = import_openvino().Core().compile_model(str(again), "CPU")
    assert compiled(x)[0] == pytest.approx(np.asarray(bottom(x)), abs=1e-2)
