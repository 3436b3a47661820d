"""What the networks are called: keys, names for people, and who belongs to the zoo. No Keras."""

from __future__ import annotations

# The mean of a run's own models; no network of its own.
ENSEMBLE = "ensemble"

OWN = ("cnn", "resnet50", "mobilenetv2")
# The networks of the field's notebooks, in their own architectures and recipes.
NOTEBOOK = (
    *("fnn", "fnn_remedies", "fnn_ensemble", "cnn_32_64_128"),
    *("resnet50_frozen", "resnet50_frozen_dropout"),
    *("mobilenetv2_frozen", "mobilenetv2_frozen_dropout"),
    *("baseline", "model_1", "model_2", "model_3"),
)
# A pretrained network that is never trained, its features under a linear layer.
FEATURES = ("resnet50_logistic",)
ZOO = (*OWN, *FEATURES, *NOTEBOOK)

# Which ImageNet weights a model takes where it is not called as they are.
BACKBONES = {
    name: name.partition("_")[0]
    for name in (*FEATURES, *(name for name in NOTEBOOK if "_frozen" in name))
}

# A model trained from random weights whatever the others start from, to be compared with them.
_CONTROL_SUFFIX = "_random"
CONTROL = f"mobilenetv2{_CONTROL_SUFFIX}"

# run.json's `init` of a model of which only the layers up to the one named are ImageNet's.
PARTIAL = "imagenet-partial:"

# The layer of a frozen network whose output the added layers read.
POOLED = "pooled"

_TITLES = {
    "cnn": "CNN",
    "resnet50": "ResNet50",
    "mobilenetv2": "MobileNetV2",
    CONTROL: "MobileNetV2 control",
    ENSEMBLE: "Mean of the models",
    "resnet50_logistic": "ResNet50 features, logistic",
    "fnn": "FNN, plain",
    "fnn_remedies": "FNN with remedies",
    "fnn_ensemble": "FNN, mean of five",
    "cnn_32_64_128": "CNN 32-64-128",
    "resnet50_frozen": "ResNet50 frozen",
    "resnet50_frozen_dropout": "ResNet50 frozen, dropout",
    "mobilenetv2_frozen": "MobileNetV2 frozen",
    "mobilenetv2_frozen_dropout": "MobileNetV2 frozen, dropout",
    "baseline": "Baseline",
    "model_1": "Model 1",
    "model_2": "Model 2",
    "model_3": "Model 3",
}


def model_title(name: str) -> str:
    """The name for people; a model without one of its own is called by its key."""
    return _TITLES.get(name, name)


def is_control(name: str) -> bool:
    """Whether a model is the random-weights control of another: it has no part in votes and means.

    Told by its name, X_random being X's: run.json has no other sign of it.
    """
    return name.endswith(_CONTROL_SUFFIX)


def without_control(name: str) -> str:
    """The model that a control is compared with; any other model itself."""
    return name.removesuffix(_CONTROL_SUFFIX)


def init_title(init: str) -> str:
    """Where first weights came from, for people, from run.json's `init` of a model."""
    if init.startswith(PARTIAL):
        return f"ImageNet up to {init.removeprefix(PARTIAL).partition('_')[0]}"
    known = {"imagenet": "ImageNet", "scratch": "from scratch"}
    return known.get(init, init.removeprefix("file:"))


def from_scratch(name: str) -> bool:
    """Whether the network was made for random weights: there are no others for it."""
    return name == "cnn" or (name in NOTEBOOK and name not in BACKBONES)


def expand_names(names: tuple[str, ...]) -> tuple[str, ...]:
    """Names as asked for, each once, with "zoo" standing for all of ZOO."""
    found = (part for name in names for part in (ZOO if name == "zoo" else (name,)))
    return tuple(dict.fromkeys(found))
