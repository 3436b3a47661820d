"""From a Keras model to OpenVINO's files, whatever backend trained it.

TensorFlow's graph is the one that OpenVINO reads: what JAX 0.10 hands over is one opaque operation
(XlaCallModule). A model of another backend is therefore saved, loaded by a second process on the
TensorFlow backend, and converted there: same layers, same weights.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.backend import import_keras
from core.inference.served_model import InferenceError

if TYPE_CHECKING:
    import keras


class ConversionError(InferenceError):
    """A model that could not be converted; the message is one sentence a person can act on."""


def write_openvino(model: keras.Model, file: Path) -> None:
    """Write model.xml and model.bin (float32 weights) of a model, calculating in float32.

    Raises:
        ConversionError: the backend is not TensorFlow, and the process on TensorFlow failed.
    """
    model = in_float32(model)
    if import_keras().backend.backend() == "tensorflow":
        model.export(str(file), format="openvino", verbose=False)
        return
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / "model.keras"
        model.save(saved)
        # The other process gets no GPU (this one holds its memory) and no flags meant for JAX.
        environment = {key: value for key, value in os.environ.items() if key != "XLA_FLAGS"}
        environment |= {"KERAS_BACKEND": "tensorflow", "CUDA_VISIBLE_DEVICES": ""}
        done = subprocess.run(
            [sys.executable, "-m", "core.training.openvino", saved, file.absolute()],
            env=environment,
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise ConversionError(
            f"{model.name} could not be converted to OpenVINO on the TensorFlow backend ({last}); "
            "requirements.txt must be installed whole."
        )


def cached_openvino(model: keras.Model, folder: Path) -> Path:
    """model.xml of the same network with the same weights, converted once and kept in `folder`.

    Networks are the same where their layers with their names, weights, Keras and OpenVINO are.
    Raises as write_openvino does.
    """
    config = model.get_config()
    config.pop("name", None)  # Keras counts models up
    made_by = [config, version("keras"), version("openvino")]
    digest = hashlib.sha256(json.dumps(made_by, default=str).encode())
    for array in model.get_weights():
        digest.update(np.ascontiguousarray(array).data)
    file = folder / f"{digest.hexdigest()[:32]}.xml"
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as work:
            write_openvino(model, Path(work, file.name))
            # The description comes last: where it is, its weights are.
            for name in (file.with_suffix(".bin").name, file.name):
                os.replace(Path(work, name), folder / name)
    return file


def in_float32(model: keras.Model) -> keras.Model:
    """The same model with every layer calculating in float32; itself where that is so already.

    Under mixed precision the weights are float32 all along, so nothing is rounded.
    """
    config = model.get_config()
    if "mixed_" not in repr(config):
        return model
    settings = import_keras().config
    usual = settings.dtype_policy()
    settings.set_dtype_policy("float32")  # a model's own, which no layer's config names
    try:
        whole = type(model).from_config(_without_mixed(config))
    finally:
        settings.set_dtype_policy(usual)
    whole.set_weights(model.get_weights())
    return whole


def _without_mixed(value: Any) -> Any:
    """A model's config with the names of mixed dtype policies replaced."""
    if isinstance(value, dict):
        return {key: _without_mixed(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(_without_mixed(item) for item in value)
    return "float32" if value in ("mixed_bfloat16", "mixed_float16") else value


def main(saved: str, file: str) -> None:
    """Convert a saved model; run on the TensorFlow backend."""
    write_openvino(import_keras().saving.load_model(saved, compile=False), Path(file))


if __name__ == "__main__":
    main(*sys.argv[1:])
