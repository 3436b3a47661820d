"""The notebooks' networks: their layers, their outputs, their recipes, and adding one's own."""

import re
from pathlib import Path

import keras
import numpy as np
import pytest

from core.datasets.phantom.generate import class_names, make_phantom
from core.inference.served_model import compile_model
from core.models import architectures, layers
from core.models.architectures import BUILDERS, average_models, build_model, build_serving_model
from core.models.names import (
    BACKBONES,
    FEATURES,
    NOTEBOOK,
    OWN,
    ZOO,
    expand_names,
    from_scratch,
    model_title,
)
from core.models.recipes import adapt_recipe, find_recipe
from core.training.export import export_model, round_weights

PX = 64


@pytest.fixture(scope="module")
def pixels():
    return np.stack([make_phantom(class_names[i % 3], i, PX, i).pixels for i in range(6)])


def as_input(pixels):
    return pixels.astype("float32")[..., None]


def kinds(model, kind):
    return [layer for layer in model.layers if isinstance(layer, kind)]


@pytest.mark.parametrize("name", NOTEBOOK)
@pytest.mark.parametrize("n_classes", [2, 3])
def test_two_classes_end_in_one_sigmoid_and_three_in_a_softmax(name, n_classes, pixels):
    model = build_model(name, PX, n_classes, 0.3)
    answer = model.predict(as_input(pixels), verbose=0)
    assert answer.shape == (6, n_classes)
    assert answer.sum(axis=1) == pytest.approx(np.ones(6), abs=1e-6)
    ends = [d for d in kinds(model, keras.layers.Dense) if d.name in ("sigmoid", "probabilities")]
    assert [(d.units, d.activation.__name__) for d in ends] == [
        (1, "sigmoid") if n_classes == 2 else (3, "softmax")
    ]
    serving = build_serving_model(model)
    assert set(serving.output) == {"probabilities", "features"}, "no class activation map"
    if n_classes == 2:
        inner = keras.Model(model.inputs, model.get_layer("sigmoid").output)
        assert answer[:, 0] == pytest.approx(inner.predict(as_input(pixels), verbose=0)[:, 0])


def test_the_loss_over_both_columns_is_binary_cross_entropy():
    p, truth = np.array([0.9, 0.2, 0.6]), np.array([1.0, 0.0, 0.0])
    columns = np.stack([p, 1 - p], axis=1)
    both = keras.losses.categorical_crossentropy(np.stack([truth, 1 - truth], axis=1), columns)
    by_hand = -np.log([0.9, 0.8, 0.4])
    assert np.asarray(both) == pytest.approx(by_hand, abs=1e-5)


def test_the_layers_are_the_ones_that_the_notebooks_name():
    def conv(name):
        model = build_model(name, PX, 3, 0.3)
        filters = [c.filters for c in kinds(model, keras.layers.Conv2D)]
        dense = [d.units for d in kinds(model, keras.layers.Dense)][:-1]
        return filters, dense, len(kinds(model, keras.layers.MaxPooling2D))

    assert conv("cnn_32_64_128") == ([32, 64, 128], [], 3)
    assert conv("baseline") == ([32, 64], [16], 0)
    assert conv("model_1") == ([32, 64], [64], 1)
    assert conv("model_2")[0] == [32, 64, 64]
    assert conv("model_3") == ([32, 32, 64, 64], [256, 256], 2)
    assert [type(layer) for layer in build_model("model_1", PX, 3, 0).layers][2:5] == [
        keras.layers.Conv2D, keras.layers.Conv2D, keras.layers.MaxPooling2D
    ]  # fmt: skip
    regularised = [
        (type(layer).__name__, pytest.approx(float(layer.kernel_regularizer.l2)))
        for layer in build_model("model_2", PX, 3, 0).layers
        if getattr(layer, "kernel_regularizer", None)
    ]
    assert regularised == [("Conv2D", 0.01), ("Conv2D", 0.01), ("Dense", 0.01)]
    assert len(kinds(build_model("fnn", PX, 3, 0.0), keras.layers.Dropout)) == 0
    for name, dropouts in (("resnet50_frozen", 0), ("resnet50_frozen_dropout", 2)):
        model = build_model(name, PX, 3, find_recipe(name, "imagenet").dropout)
        assert len(kinds(model, keras.layers.Dropout)) == dropouts


def test_the_recipes_are_the_ones_that_the_notebooks_name():
    def recipe(name):
        found = find_recipe(name, "random")
        (stage,) = found.stages
        return found, stage

    found, stage = recipe("baseline")
    assert (found.batch_size, stage.min_delta, stage.patience) == (64, 1e-2, 5)
    for name, epochs in (("model_1", 10), ("model_2", 10), ("model_3", 20)):
        found, stage = recipe(name)
        assert (found.batch_size, stage.epochs, stage.optimizer) == (32, epochs, "adam")
        assert stage.keep == "last" and not stage.augment and not found.class_weights
    assert recipe("model_2")[0].track == ("precision", "recall")
    assert recipe("cnn_32_64_128")[1].find_rate and recipe("cnn_32_64_128")[1].keep == "best"
    plain, remedied = recipe("fnn"), recipe("fnn_remedies")
    assert not plain[1].augment and plain[0].dropout == 0
    assert remedied[1].augment and remedied[1].weight_decay and remedied[0].dropout
    assert recipe("fnn_ensemble")[0].members == 5
    one, other = recipe("resnet50_frozen"), recipe("resnet50_frozen_dropout")
    assert one[1] == other[1], "they differ in dropout alone"
    assert (one[0].dropout, other[0].dropout) == (0.0, 0.5)
    quick = adapt_recipe(one[0], image_size_px=None, epochs=1, quick=True)
    assert quick.dropout == 0.0, "a quick run still leaves dropout out"


def test_names():
    assert set(ZOO) == {*OWN, *FEATURES, *NOTEBOOK} and set(ZOO) <= set(BUILDERS)
    assert expand_names(("zoo", "cnn")) == ZOO
    assert expand_names(("cnn", "fnn", "cnn")) == ("cnn", "fnn")
    assert BACKBONES["resnet50_frozen_dropout"] == "resnet50"
    assert from_scratch("fnn") and not from_scratch("resnet50_frozen")
    assert all(model_title(name) != name for name in ZOO)


def test_an_average_answers_the_mean_of_its_members_and_is_served_so(pixels, tmp_path):
    members = [build_model("fnn", PX, 3, 0.3) for _ in range(3)]
    apart = [member.predict(as_input(pixels), verbose=0) for member in members]
    assert np.abs(apart[0] - apart[1]).max() > 0.01, "the test must be able to tell"
    whole = average_models(members, PX)
    answer = whole.predict(as_input(pixels), verbose=0)["probabilities"]
    assert answer == pytest.approx(np.mean(apart, axis=0), abs=1e-6)
    assert whole.count_params() == sum(member.count_params() for member in members)
    round_weights(whole)
    assert export_model(whole, tmp_path, pixels) <= 1e-5
    served = compile_model(
        tmp_path / "model.xml", name="fnn_ensemble", class_names=class_names, input_size_px=PX
    )
    output = served.predict(pixels)
    assert output.class_maps is None
    assert output.features.shape == (6, 3 * 128)
    assert output.probabilities == pytest.approx(answer, abs=2e-3)


@pytest.mark.parametrize("name", ["densenet121", "efficientnetb0"])
def test_contributing_shows_how_to_add_a_model(name, pixels, tmp_path, monkeypatch):
    """The page's own code is what runs here."""
    text = Path(__file__).resolve().parents[2].joinpath("CONTRIBUTING.md").read_text()
    (section,) = re.findall(r"## Add a model\n(.*?)\n## ", text, re.S)
    code = [block for block in re.findall(r"```python\n(.*?)```", section, re.S) if name in block]
    functions = [block for block in code if "def build" in block]
    lines = [line for line in "\n".join(code).splitlines() if line.strip().startswith(f'"{name}":')]
    assert len(functions) == 1 and len(lines) == 1, "one function and one line"
    room = vars(architectures) | {"from_application": layers.from_application}
    exec(functions[0].split("BUILDERS")[0], room)
    monkeypatch.setitem(BUILDERS, name, eval("{" + lines[0].strip().rstrip(",") + "}", room)[name])
    model = build_model(name, PX, 3, 0.2)
    assert model.name == name
    round_weights(model)
    assert export_model(model, tmp_path, pixels[:2]) <= 1e-4
    answer = compile_model(
        tmp_path / "model.xml", name=name, class_names=class_names, input_size_px=PX
    ).predict(pixels)
    assert answer.class_maps is not None, "a pooled head has a class activation map"
    assert find_recipe(name, "random").stages
