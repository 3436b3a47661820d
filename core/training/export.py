"""Turn a trained Keras model into the files that are served, and prove that they agree."""

from __future__ import annotations

from pathlib import Path

import keras
import numpy as np

from core.engine import import_openvino
from core.inference.served_model import InferenceError, compile_model
from core.models.architectures import build_serving_model
from core.runs.artifacts import MODEL_FILES
from core.training.openvino import write_openvino

SMALL = 4096  # constants with fewer values (biases, the head) are stored whole
TOLERANCE = 1e-3  # largest allowed difference of a probability, at f32


class ExportError(InferenceError):
    """The exported model does not answer as the trained one does."""


def round_weights(model: keras.Model) -> None:
    """Round kernels to half precision in place, so that storing them so loses nothing more.

    Batch normalisation is first folded into the convolution before it, as serving does: rounding
    unfolded kernels and folding later would round twice. Vectors stay whole: they are small.
    """
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            _fold_batch_norm(layer)
    for variable in model.variables:
        value = keras.ops.convert_to_numpy(variable)
        if value.ndim >= 2:
            variable.assign(value.astype("float16").astype("float32"))


def _fold_batch_norm(norm: keras.layers.BatchNormalization) -> None:
    # Same function, other weights: y = (k*x + b - mean) * s + beta = (k*s)*x + (beta + (b-mean)*s)
    # Keras has no public way back to the layer that a tensor came from.
    before = norm.input._keras_history.operation  # noqa: SLF001
    if not isinstance(before, (keras.layers.Conv2D, keras.layers.DepthwiseConv2D)):
        return
    gamma, beta, mean, variance = (keras.ops.convert_to_numpy(v) for v in norm.weights)
    scale = gamma / np.sqrt(variance + norm.epsilon)
    kernel = keras.ops.convert_to_numpy(before.kernel)
    depthwise = isinstance(before, keras.layers.DepthwiseConv2D)
    before.kernel.assign(kernel * (scale[:, None] if depthwise else scale))
    bias = 0.0
    if before.use_bias:
        bias = keras.ops.convert_to_numpy(before.bias)
        before.bias.assign(np.zeros_like(bias))
    folded = (
        np.ones_like(gamma),
        beta + (bias - mean) * scale,
        np.zeros_like(mean),
        np.full_like(variance, 1 - norm.epsilon),
    )
    for variable, value in zip(norm.weights, folded, strict=True):
        variable.assign(value)


def _store_as_half(exported):
    """The OpenVINO model with every large constant kept as float16 and read as float32."""
    from openvino import opset13

    for node in exported.get_ordered_ops():
        if node.get_type_name() != "Constant" or node.get_element_type().get_type_name() != "f32":
            continue
        if node.data.size < SMALL:
            continue
        half = opset13.convert(opset13.constant(node.data.astype("float16")), "f32")
        for target in node.output(0).get_target_inputs():
            target.replace_source_output(half.output(0))
    return exported


def export_model(model: keras.Model, folder: Path, pixels: np.ndarray) -> float:
    """Write model.xml and model.bin (half-precision storage) for a model with rounded weights.

    pixels: uint8 (n, size, size), real images on which the export is held against Keras.
    Returns the largest difference of a probability.

    Raises:
        ExportError: the difference is above TOLERANCE.
    """
    folder.mkdir(parents=True, exist_ok=True)
    xml = folder / MODEL_FILES[0]
    raw = folder / ".raw.xml"
    write_openvino(build_serving_model(model), raw)
    ov = import_openvino()
    exported = ov.Core().read_model(raw)
    ov.save_model(_store_as_half(exported), xml, compress_to_fp16=False)
    del exported
    raw.unlink()
    raw.with_suffix(".bin").unlink()

    served = compile_model(
        xml, name=model.name, class_names=(), input_size_px=pixels.shape[1], precision="f32"
    )
    expected = model.predict(np.asarray(pixels, dtype="float32")[..., None], verbose=0)
    if isinstance(expected, dict):
        expected = expected["probabilities"]
    difference = float(np.abs(served.predict(pixels).probabilities - expected).max())
    if not difference <= TOLERANCE:
        raise ExportError(
            f"The export of {model.name} differs from the trained model by {difference:.2g} "
            f"(allowed: {TOLERANCE:g}), so it is not served."
        )
    return difference
