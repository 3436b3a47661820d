"""A network that trains in a moment: how a fit goes does not depend on its size."""

from __future__ import annotations

import keras


def build_small(image_size_px: int, n_classes: int, dropout: float) -> keras.Model:
    """Two convolutions with batch norm, which may be cut at "low"."""
    layers = keras.layers
    return keras.Sequential([
        keras.Input((image_size_px, image_size_px, 1), dtype="float32", name="image"),
        layers.Rescaling(1 / 127.5, offset=-1),
        layers.Conv2D(8, 5, strides=4, use_bias=False, name="low_conv"),
        layers.BatchNormalization(name="low_bn"),
        layers.Activation("relu", name="low"),
        layers.Conv2D(16, 3, strides=2, use_bias=False, name="high_conv"),
        layers.BatchNormalization(name="high_bn"),
        layers.Activation("relu", name="high"),
        layers.GlobalAveragePooling2D(name="features"),
        layers.Dropout(dropout, name="head_dropout"),
        layers.Dense(n_classes, activation="softmax", dtype="float32", name="probabilities"),
    ], name="small")  # fmt: skip
