"""The networks of the field's notebooks, in their own architectures.

Named there: the layers, their widths, dropout, L2 and pooling, as each function says. Where the
notebooks are silent stands what Keras does by itself (3×3 kernels, ReLU between, no padding), and
the widths of the dense network and of the two layers added to a frozen one are this project's.
All take grey images as the others do, and end in one sigmoid for two classes (`notebook_output`).
"Features" is the last layer before the output.
"""

from __future__ import annotations

import keras

from core.models.layers import (
    apply_layers,
    image_input,
    mobilenetv2_backbone,
    notebook_output,
    resnet50_backbone,
)
from core.models.names import POOLED

FNN_WIDTHS = (512, 128)
ADDED_WIDTHS = (256, 128)
L2 = 0.01


def build_fnn(image_size_px: int, n_classes: int, dropout: float) -> keras.Model:
    """Dense layers on the flattened pixels; dropout 0 is the plain one."""
    image = image_input(image_size_px)
    x = keras.layers.Rescaling(1 / 255)(image)
    x = keras.layers.Flatten(name="flat")(x)
    x = _dense_layers(x, FNN_WIDTHS, dropout)
    return keras.Model(image, notebook_output(x, n_classes), name="fnn")


def build_cnn_32_64_128(image_size_px: int, n_classes: int, dropout: float) -> keras.Model:
    """Convolutions of 32, 64 and 128 filters, each pooled; dropout, flatten, dense output."""
    layers = [
        _conv(32),
        _pool(),
        _conv(64),
        _pool(),
        _conv(128),
        _pool(),
        keras.layers.Dropout(dropout),
        _flat("features"),
    ]
    return _plain_cnn("cnn_32_64_128", image_size_px, n_classes, layers)


def build_baseline(image_size_px: int, n_classes: int, dropout: float) -> keras.Model:
    """Convolutions of 32 and 64 filters, dense 16."""
    del dropout
    layers = [_conv(32), _conv(64), _flat(), _hidden(16, "features")]
    return _plain_cnn("baseline", image_size_px, n_classes, layers)


def build_model_1(image_size_px: int, n_classes: int, dropout: float) -> keras.Model:
    """The baseline with max pooling after the second convolution and dense 64."""
    del dropout
    layers = [_conv(32), _conv(64), _pool(), _flat(), _hidden(64, "features")]
    return _plain_cnn("model_1", image_size_px, n_classes, layers)


def build_model_2(image_size_px: int, n_classes: int, dropout: float) -> keras.Model:
    """Model 1 with a third convolution; L2 0.01 on the second, the third and the dense layer."""
    del dropout
    layers = [
        _conv(32),
        _conv(64, L2),
        _pool(),
        _conv(64, L2),
        _pool(),
        _flat(),
        _hidden(64, "features", L2),
    ]
    return _plain_cnn("model_2", image_size_px, n_classes, layers)


def build_model_3(image_size_px: int, n_classes: int, dropout: float) -> keras.Model:
    """Four convolutions, of 32 and 64 filters, and two dense layers of 256."""
    del dropout
    layers = [
        _conv(32),
        _conv(32),
        _pool(),
        _conv(64),
        _conv(64),
        _pool(),
        _flat(),
        _hidden(256),
        _hidden(256, "features"),
    ]
    return _plain_cnn("model_3", image_size_px, n_classes, layers)


def build_resnet50_frozen(image_size_px: int, n_classes: int, dropout: float) -> keras.Model:
    """ResNet50, never trained itself, under two added dense layers with or without dropout."""
    return _frozen(resnet50_backbone(image_size_px), "resnet50_frozen", n_classes, dropout)


def build_mobilenetv2_frozen(image_size_px: int, n_classes: int, dropout: float) -> keras.Model:
    """The same on MobileNetV2, so that the question can be asked of ImageNet weights too.

    From random weights its outputs are next to nothing, as its batch norm never saw an image.
    """
    return _frozen(mobilenetv2_backbone(image_size_px), "mobilenetv2_frozen", n_classes, dropout)


def _frozen(backbone: tuple, name: str, n_classes: int, dropout: float) -> keras.Model:
    image, maps = backbone
    x = keras.layers.GlobalAveragePooling2D(name=POOLED)(maps)
    x = _dense_layers(x, ADDED_WIDTHS, dropout)
    return keras.Model(image, notebook_output(x, n_classes), name=name)


def _dense_layers(x, widths: tuple[int, ...], dropout: float):
    for place, width in enumerate(widths, start=1):
        last = place == len(widths)
        x = _hidden(width, "features" if last else f"hidden{place}")(x)
        if dropout:
            x = keras.layers.Dropout(dropout, name=f"dropout{place}")(x)
    return x


def _plain_cnn(name: str, image_size_px: int, n_classes: int, layers: list) -> keras.Model:
    image = image_input(image_size_px)
    x = apply_layers([keras.layers.Rescaling(1 / 255), *layers], image)
    return keras.Model(image, notebook_output(x, n_classes), name=name)


def _conv(filters: int, l2: float = 0.0) -> keras.layers.Conv2D:
    return keras.layers.Conv2D(
        filters, 3, activation="relu", kernel_regularizer=keras.regularizers.L2(l2) if l2 else None
    )


def _hidden(width: int, name: str | None = None, l2: float = 0.0) -> keras.layers.Dense:
    regularizer = keras.regularizers.L2(l2) if l2 else None
    return keras.layers.Dense(width, activation="relu", kernel_regularizer=regularizer, name=name)


def _pool() -> keras.layers.MaxPooling2D:
    return keras.layers.MaxPooling2D()


def _flat(name: str | None = None) -> keras.layers.Flatten:
    return keras.layers.Flatten(name=name)
