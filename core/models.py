"""The networks: BUILDERS maps a name to a function that returns a keras.Model.

Every model takes grey images, float32 (n, size, size, 1) in 0..255, prepares them itself and
returns probabilities (n, classes). All end in global average pooling ("features"), dropout and one
dense softmax layer ("probabilities"), so that a class activation map comes with the same forward
pass (Zhou et al. 2016, Learning Deep Features for Discriminative Localization, section 2).
"""

from __future__ import annotations

from collections.abc import Callable

import keras

from core.config import ConfigError

Builder = Callable[[int, int, float], keras.Model]


def build_cnn(image_size_px: int, n_classes: int, dropout: float) -> keras.Model:
    """A small network from scratch: four pairs of convolutions with max pooling between them."""
    layers: list = [_image_input(image_size_px), keras.layers.Rescaling(1 / 127.5, offset=-1)]
    for block, filters in enumerate((32, 64, 128, 256), start=1):
        for index in (1, 2):
            name = f"block{block}_{index}"
            layers += [
                keras.layers.Conv2D(
                    filters, 3, padding="same", use_bias=False, name=f"{name}_conv",
                    kernel_initializer="he_normal",
                ),
                keras.layers.BatchNormalization(momentum=0.9, name=f"{name}_bn"),
                keras.layers.Activation("relu", name=f"{name}_relu"),
            ]  # fmt: skip
        if block < 4:
            layers += [
                keras.layers.MaxPooling2D(name=f"block{block}_pool"),
                keras.layers.SpatialDropout2D(dropout / 4, name=f"block{block}_drop"),
            ]
    return keras.Sequential([*layers, *_head(n_classes, dropout)], name="cnn")


def build_resnet50(image_size_px: int, n_classes: int, dropout: float) -> keras.Model:
    """ResNet50 (He et al. 2016), its ImageNet preparation (BGR means taken off) inside."""
    means = keras.layers.Normalization(
        axis=-1, mean=[103.939, 116.779, 123.68], variance=[1.0, 1.0, 1.0], name="imagenet_means"
    )
    return _from_application(
        keras.applications.ResNet50, "resnet50", means, image_size_px, n_classes, dropout
    )


def build_mobilenetv2(image_size_px: int, n_classes: int, dropout: float) -> keras.Model:
    """MobileNetV2 (Sandler et al. 2018), its preparation (-1 to 1) inside."""
    scale = keras.layers.Rescaling(1 / 127.5, offset=-1, name="minus_one_to_one")
    return _from_application(
        keras.applications.MobileNetV2, "mobilenetv2", scale, image_size_px, n_classes, dropout
    )


BUILDERS: dict[str, Builder] = {
    "cnn": build_cnn,
    "resnet50": build_resnet50,
    "mobilenetv2": build_mobilenetv2,
    "mobilenetv2_random": build_mobilenetv2,
}

# The mean of a run's models; no network of its own.
ENSEMBLE = "ensemble"

_TITLES = {
    "cnn": "CNN",
    "resnet50": "ResNet50",
    "mobilenetv2": "MobileNetV2",
    "mobilenetv2_random": "MobileNetV2 control",
    ENSEMBLE: "Mean of the models",
}


def model_title(name: str) -> str:
    """The name for people; a model without one of its own is called by its key."""
    return _TITLES.get(name, name)


def build_model(name: str, image_size_px: int, n_classes: int, dropout: float) -> keras.Model:
    """Build a model by name; an unknown name raises ConfigError that lists the choices."""
    if name not in BUILDERS:
        raise ConfigError(f"Unknown model {name!r}. Known models: {', '.join(BUILDERS)}.")
    return BUILDERS[name](image_size_px, n_classes, dropout)


def split_model(model: keras.Model, cut: str) -> tuple[keras.Model, keras.Model]:
    """(bottom, top) that share the layers of `model`; `cut` is the last layer of the bottom."""
    edge = model.get_layer(cut).output
    return keras.Model(model.inputs, edge), keras.Model(edge, model.outputs)


def build_serving_model(model: keras.Model) -> keras.Model:
    """The model with three outputs: probabilities, class_maps and features.

    class_maps (n, h, w, classes) are the logits that each place of the last feature map would
    give alone, so their mean over places is the logit of the image.
    """
    if isinstance(model, keras.Sequential):
        model = _as_functional(model)
    pool, dense = model.get_layer("features"), model.get_layer("probabilities")
    maps = keras.layers.Conv2D(dense.units, 1, name="class_maps")
    class_maps = maps(pool.input)
    kernel, bias = dense.get_weights()
    maps.set_weights([kernel[None, None], bias])
    outputs = {
        "probabilities": dense.output,
        "class_maps": class_maps,
        "features": pool.output,
    }
    return keras.Model(model.inputs, outputs)


def set_batch_norm(model: keras.Model, *, momentum: float | None = None, frozen: bool) -> None:
    """Freeze every batch normalisation or give it a momentum that fits a few hundred steps.

    Keras' MobileNetV2 has 0.999: its moving statistics would still be the old ones at the end.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.trainable = not frozen
            if momentum is not None:
                layer.momentum = momentum


def _as_functional(model: keras.Sequential) -> keras.Model:
    # Copied layer by layer: a Sequential's own layers keep the tensors of every earlier call.
    image = outputs = _image_input(model.input_shape[1])
    for layer in model.layers:
        outputs = type(layer).from_config(layer.get_config())(outputs)
    copy = keras.Model(image, outputs, name=model.name)
    copy.set_weights(model.get_weights())
    return copy


def _image_input(image_size_px: int):
    return keras.Input((image_size_px, image_size_px, 1), dtype="float32", name="image")


def _head(n_classes: int, dropout: float) -> list:
    return [
        keras.layers.GlobalAveragePooling2D(name="features"),
        keras.layers.Dropout(dropout, name="head_dropout"),
        keras.layers.Dense(n_classes, activation="softmax", name="probabilities"),
    ]


def _from_application(application, name, prepare, image_size_px, n_classes, dropout):
    image = _image_input(image_size_px)
    prepared = prepare(keras.layers.Concatenate(name="grey_to_rgb")([image] * 3))
    outputs = application(include_top=False, weights=None, input_tensor=prepared).output
    for layer in _head(n_classes, dropout):
        outputs = layer(outputs)
    return keras.Model(image, outputs, name=name)
