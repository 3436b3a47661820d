"""The networks: BUILDERS maps a name to a function that returns a keras.Model.

Every model takes grey images, float32 (n, size, size, 1) in 0..255, prepares them itself and
returns probabilities (n, classes) from its last layer, "probabilities"; "features" is the layer
before it. This project's own end in global average pooling and one dense softmax layer, so that a
class activation map comes with the same forward pass (Zhou et al. 2016, Learning Deep Features for
Discriminative Localization, section 2); of the others (core.models.notebook_architectures) maps are
made by occlusion.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import keras

from core.config import ConfigError
from core.models import notebook_architectures
from core.models.feature_architectures import build_resnet50_logistic
from core.models.layers import (
    apply_layers,
    image_input,
    mobilenetv2_backbone,
    pooled_head,
    resnet50_backbone,
)
from core.models.names import CONTROL

Builder = Callable[[int, int, float], keras.Model]


def build_cnn(image_size_px: int, n_classes: int, dropout: float) -> keras.Model:
    """A small network from scratch: four pairs of convolutions with max pooling between them."""
    layers: list = [image_input(image_size_px), keras.layers.Rescaling(1 / 127.5, offset=-1)]
    for block, filters in enumerate((32, 64, 128, 256), start=1):
        for index in (1, 2):
            name = f"block{block}_{index}"
            layers += [
                keras.layers.Conv2D(
                    filters,
                    3,
                    padding="same",
                    use_bias=False,
                    name=f"{name}_conv",
                    kernel_initializer="he_normal",
                ),
                keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_bn"),
                keras.layers.Activation("relu", name=f"{name}_relu"),
            ]
        if block < 4:
            layers += [
                keras.layers.MaxPooling2D(name=f"block{block}_pool"),
                keras.layers.SpatialDropout2D(dropout / 4, name=f"block{block}_drop"),
            ]
    return keras.Sequential([*layers, *pooled_head(n_classes, dropout)], name="cnn")


def build_resnet50(image_size_px: int, n_classes: int, dropout: float) -> keras.Model:
    """ResNet50 under global pooling and one dense layer.

    Blocks that start fresh begin as their shortcut alone (Goyal et al. 2017, Accurate, Large
    Minibatch SGD, section 5.1), so that what lies below them is heard from the first step.
    """
    image, maps = resnet50_backbone(image_size_px)
    model = keras.Model(image, apply_layers(pooled_head(n_classes, dropout), maps), name="resnet50")
    for layer in model.layers:
        if layer.name.endswith("_3_bn"):
            layer.gamma.assign(keras.ops.zeros_like(layer.gamma))
    return model


def build_mobilenetv2(image_size_px: int, n_classes: int, dropout: float) -> keras.Model:
    """MobileNetV2 under global pooling and one dense layer."""
    image, maps = mobilenetv2_backbone(image_size_px)
    outputs = apply_layers(pooled_head(n_classes, dropout), maps)
    return keras.Model(image, outputs, name="mobilenetv2")


BUILDERS: dict[str, Builder] = {
    "cnn": build_cnn,
    "resnet50": build_resnet50,
    "mobilenetv2": build_mobilenetv2,
    "resnet50_logistic": build_resnet50_logistic,
    CONTROL: build_mobilenetv2,
    "fnn": notebook_architectures.build_fnn,
    "fnn_remedies": notebook_architectures.build_fnn,
    "fnn_ensemble": notebook_architectures.build_fnn,
    "cnn_32_64_128": notebook_architectures.build_cnn_32_64_128,
    "resnet50_frozen": notebook_architectures.build_resnet50_frozen,
    "resnet50_frozen_dropout": notebook_architectures.build_resnet50_frozen,
    "mobilenetv2_frozen": notebook_architectures.build_mobilenetv2_frozen,
    "mobilenetv2_frozen_dropout": notebook_architectures.build_mobilenetv2_frozen,
    "baseline": notebook_architectures.build_baseline,
    "model_1": notebook_architectures.build_model_1,
    "model_2": notebook_architectures.build_model_2,
    "model_3": notebook_architectures.build_model_3,
}


def build_model(name: str, image_size_px: int, n_classes: int, dropout: float) -> keras.Model:
    """Build a model by name; an unknown name raises ConfigError that lists the choices."""
    if name not in BUILDERS:
        raise ConfigError(f"Unknown model {name!r}. Known models: {', '.join(BUILDERS)}.")
    return BUILDERS[name](image_size_px, n_classes, dropout)


def average_models(models: Sequence[keras.Model], image_size_px: int) -> keras.Model:
    """One model whose probabilities are the mean of theirs; its features are theirs side by side.

    models: of one architecture, trained apart (Lakshminarayanan et al. 2017, Simple and Scalable
    Predictive Uncertainty Estimation, section 2.4, without the adversarial training).
    """
    image = image_input(image_size_px)
    parts = []
    for number, model in enumerate(models, start=1):
        outputs = [model.get_layer("features").output, model.output]
        parts.append(keras.Model(model.inputs, outputs, name=f"member{number}")(image))
    mean = keras.layers.Average(name="mean")([probabilities for _, probabilities in parts])
    features = keras.layers.Concatenate(name="features")([features for features, _ in parts])
    return keras.Model(image, {"probabilities": mean, "features": features}, name=models[0].name)


def split_model(model: keras.Model, cut: str) -> tuple[keras.Model, keras.Model]:
    """(bottom, top) that share the layers of `model`; `cut` is the last layer of the bottom."""
    edge = model.get_layer(cut).output
    return keras.Model(model.inputs, edge), keras.Model(edge, model.outputs)


def build_serving_model(model: keras.Model) -> keras.Model:
    """The model with the outputs probabilities, features and, where there are some, class_maps.

    class_maps (n, h, w, classes) are the logits that each place of the last feature map would
    give alone, so their mean over places is the logit of the image. Only a model that ends in
    global pooling and one dense layer has them.
    """
    if isinstance(model, keras.Sequential):
        model = _as_functional(model)
    if isinstance(model.output, dict):  # average_models
        return model
    pool, dense = model.get_layer("features"), model.get_layer("probabilities")
    if not isinstance(pool, keras.layers.GlobalAveragePooling2D):
        return keras.Model(model.inputs, {"probabilities": model.output, "features": pool.output})
    maps = keras.layers.Conv2D(dense.units, 1, dtype="float32", name="class_maps")
    class_maps = maps(pool.input)
    kernel, bias = dense.get_weights()
    maps.set_weights([kernel[None, None], bias])
    outputs = {
        "probabilities": dense.output,
        "class_maps": class_maps,
        "features": pool.output,
    }
    return keras.Model(model.inputs, outputs)


def set_batch_norm(
    model: keras.Model,
    *,
    momentum: float | None = None,
    frozen: bool,
    only: Collection[str] | None = None,
) -> None:
    """Freeze every batch normalisation or give it a momentum that fits a few hundred steps.

    only: names of the layers that it is done to, None for all.
    Keras' MobileNetV2 has 0.999: its moving statistics would still be the old ones at the end.
    """
    for layer in model.layers:
        if only is not None and layer.name not in only:
            continue
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = not frozen
            if momentum is not None:
                layer.momentum = momentum


def _as_functional(model: keras.Sequential) -> keras.Model:
    # Copied layer by layer: a Sequential's own layers keep the tensors of every earlier call.
    image = outputs = image_input(model.input_shape[1])
    for layer in model.layers:
        outputs = type(layer).from_config(layer.get_config())(outputs)
    copy = keras.Model(image, outputs, name=model.name)
    copy.set_weights(model.get_weights())
    return copy
