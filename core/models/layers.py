"""Pieces that the networks share: the image's input, how they end, and what Keras ships."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras


def image_input(image_size_px: int):
    """A grey image, float32 (size, size, 1) in 0..255."""
    return keras.Input((image_size_px, image_size_px, 1), dtype="float32", name="image")


def pooled_head(n_classes: int, dropout: float) -> list:
    """Pooling, dropout and one dense softmax layer: a class activation map comes with it."""
    return [
        keras.layers.GlobalAveragePooling2D(name="features"),
        keras.layers.Dropout(dropout, name="head_dropout"),
        softmax_layer(n_classes),
    ]


def softmax_layer(n_classes: int) -> keras.layers.Dense:
    """The last layer; in float32 also where the rest is half precision."""
    return keras.layers.Dense(
        n_classes, activation="softmax", dtype="float32", name="probabilities"
    )


def notebook_output(features, n_classes: int):
    """Probabilities (n, classes) as the notebooks end: one sigmoid for two classes, else softmax.

    The sigmoid is the probability of the first class; the second column is what is left of 1, so
    that categorical cross-entropy over both columns is binary cross-entropy.
    """
    if n_classes != 2:
        return softmax_layer(n_classes)(features)
    first = keras.layers.Dense(1, activation="sigmoid", dtype="float32", name="sigmoid")(features)
    rest = keras.layers.Rescaling(-1.0, offset=1.0, dtype="float32", name="one_minus")(first)
    return keras.layers.Concatenate(dtype="float32", name="probabilities")([first, rest])


def apply_layers(layers: Sequence, x):
    """The layers one after the other."""
    for layer in layers:
        x = layer(x)
    return x


def from_application(
    application: Callable, image_size_px: int, prepare: keras.layers.Layer
) -> tuple:
    """(image, last feature map) of a network of keras.applications without its classifier.

    prepare: what the network wants done to RGB images in 0..255; the grey image is repeated.
    """
    image = image_input(image_size_px)
    prepared = prepare(keras.layers.Concatenate(dtype="float32", name="grey_to_rgb")([image] * 3))
    return image, application(include_top=False, weights=None, input_tensor=prepared).output


def resnet50_backbone(image_size_px: int) -> tuple:
    """ResNet50 (He et al. 2016), its ImageNet preparation (BGR means taken off) inside."""
    means = keras.layers.Normalization(
        axis=-1,
        mean=[103.939, 116.779, 123.68],
        variance=[1.0, 1.0, 1.0],
        dtype="float32",
        name="imagenet_means",  # in bfloat16 103.939 is 104
    )
    return from_application(keras.applications.ResNet50, image_size_px, means)


def mobilenetv2_backbone(image_size_px: int) -> tuple:
    """MobileNetV2 (Sandler et al. 2018), its preparation (-1 to 1) inside."""
    scale = keras.layers.Rescaling(1 / 127.5, offset=-1, dtype="float32", name="minus_one_to_one")
    return from_application(keras.applications.MobileNetV2, image_size_px, scale)


def backbone_output(model: keras.Model):
    """The feature map that the first global pooling reads: where published weights end."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.GlobalAveragePooling2D):
            return layer.input
    raise ValueError(f"{model.name} has no global pooling, so no published weights fit it.")
