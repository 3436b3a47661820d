"""A pretrained network's features of several scales under one linear layer; nothing below learns.

Low layers see texture, higher ones shapes. Their means over the image, side by side, are what the
linear layer reads (Hariharan et al. 2015, Hypercolumns for Object Segmentation, section 3, have the
idea for every pixel).
"""

from __future__ import annotations

import keras

from core.models.layers import resnet50_backbone, softmax_layer

RESNET50_SCALES = ("conv3_block4_out", "conv4_block6_out")


def build_resnet50_logistic(image_size_px: int, n_classes: int, dropout: float) -> keras.Model:
    """ResNet50 up to conv4, the means of conv3 and conv4 under a logistic regression."""
    del dropout
    image, maps = resnet50_backbone(image_size_px)
    backbone = keras.Model(image, maps)
    means = [
        keras.layers.GlobalAveragePooling2D(name=f"{layer}_mean")(backbone.get_layer(layer).output)
        for layer in RESNET50_SCALES
    ]
    features = keras.layers.Concatenate(name="features")(means)
    return keras.Model(image, softmax_layer(n_classes)(features), name="resnet50_logistic")
