"""Tiny models and documents for the tests of heat maps."""

from __future__ import annotations

import importlib
from pathlib import Path

import numpy as np

from core.engine import import_openvino
from core.inference.served_model import ServedModel, compile_model

SIZE_PX = 64
CLASS_NAMES = ("covid", "normal", "pneumonia")


def write_halving_model(
    folder: Path, *, halvings: int = 2, pads_begin: int = 0, with_maps: bool = True, layers: int = 2
) -> Path:
    """A model whose first class is bright places: it halves the picture by 3×3 means.

    pads_begin (0 or 1) says on which side each convolution is padded, which moves what its cells
    look at. Without maps it has probabilities and features only. Returns model.xml.
    """
    ov = import_openvino()
    ops = importlib.import_module("openvino.opset13")
    images = ops.parameter([-1, SIZE_PX, SIZE_PX, 1], np.float32, name="images")
    grey = ops.divide(images, np.float32(255))
    maps = ops.transpose(grey, np.array([0, 3, 1, 2]))
    kernel = np.full((1, 1, 3, 3), 1 / 9, np.float32)
    before, after = [pads_begin] * 2, [1 - pads_begin] * 2
    for _ in range(halvings):
        maps = ops.convolution(maps, kernel, [2, 2], before, after, [1, 1])
    maps = ops.transpose(maps, np.array([0, 2, 3, 1]))
    head = np.array([[30.0, -3.0, 3.0]], np.float32)
    features = ops.reduce_mean(maps, np.array([1, 2]), keep_dims=False)
    outputs = {
        "probabilities": ops.softmax(ops.matmul(features, head, False, False), axis=-1),
        "features": features,
    }
    if with_maps:
        outputs["class_maps"] = ops.matmul(maps, head, False, False)
    results = []
    for name, node in outputs.items():
        node.output(0).tensor.set_names({name})
        results.append(ops.result(node, name=f"{name}_result"))
    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(ov.Model(results, [images], "halving"), folder / "model.xml")
    return folder / "model.xml"


def serve(xml: Path, **options) -> ServedModel:
    return compile_model(
        xml, name="tiny", class_names=CLASS_NAMES, input_size_px=SIZE_PX, **options
    )


def write_striped_model(folder: Path) -> Path:
    """A model with structure that can be lost: its classes are lines down, lines across, and dark.

    Lines are what differs over 5×5 px in one direction and is the same in the other. Returns
    model.xml, which takes (n, 64, 64, 1) and has maps of 16×16.
    """
    ov = import_openvino()
    ops = importlib.import_module("openvino.opset13")
    wave = np.array([-1, -1, 4, -1, -1], np.float32) / 4
    down, dark = np.tile(wave, (5, 1)) / 5, np.full((5, 5), -1 / 25, np.float32)
    kernel = np.stack([down, -down, down.T, -down.T, dark])[:, None]
    head = np.zeros((5, 3), np.float32)
    head[[0, 1], 0], head[[2, 3], 1], head[4, 2] = 60, 60, 4
    images = ops.parameter([-1, SIZE_PX, SIZE_PX, 1], np.float32, name="images")
    grey = ops.subtract(ops.divide(images, np.float32(255)), np.float32(1))
    maps = ops.transpose(grey, np.array([0, 3, 1, 2]))
    maps = ops.relu(ops.convolution(maps, kernel, [1, 1], [2, 2], [2, 2], [1, 1]))
    maps = ops.avg_pool(maps, [4, 4], [0, 0], [0, 0], [4, 4], True)
    maps = ops.transpose(maps, np.array([0, 2, 3, 1]))
    features = ops.reduce_mean(maps, np.array([1, 2]), keep_dims=False)
    outputs = {
        "probabilities": ops.softmax(ops.matmul(features, head, False, False), axis=-1),
        "class_maps": ops.matmul(maps, head, False, False),
        "features": features,
    }
    results = []
    for name, node in outputs.items():
        node.output(0).tensor.set_names({name})
        results.append(ops.result(node, name=f"{name}_result"))
    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(ov.Model(results, [images], "striped"), folder / "model.xml")
    return folder / "model.xml"
