"""First weights into a network: whole or in part, from Keras' files or from named arrays."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from zipfile import BadZipFile

import h5py
import keras
import numpy as np

from core.config import ConfigError
from core.models.layers import backbone_output

WHOLE_MODEL = (".keras", ".weights.h5")


def load_initial_weights(model: keras.Model, name: str, file: Path) -> frozenset[str]:
    """Load a file of weights into the model; returns the layers that it does not hold.

    A .keras or .weights.h5 file is a whole model's. Of named arrays (an .npz with keys
    layer/array, an .h5 as Keras publishes them) those that are there are taken, and layers of which
    nothing is there start fresh.

    Raises:
        ConfigError: a file that does not fit the model, or is none.
    """
    try:
        if file.name.endswith(WHOLE_MODEL):
            _load_whole(model, file)
            return frozenset()
        arrays = _read_npz(file) if file.suffix == ".npz" else _read_h5(file)
        if _names_match(model, arrays) or file.suffix == ".npz":
            return _assign(model, arrays)
        # An older Keras called layers differently: by their order then.
        backbone = keras.Model(model.inputs, backbone_output(model))
        backbone.load_weights(file)
        return frozenset(all_layers(model) - all_layers(backbone))
    except (ValueError, KeyError, OSError, TypeError, BadZipFile) as error:
        raise ConfigError(
            f"The weights in {file.name} do not fit {name} ({_first_sentence(error)}): expected "
            "arrays of its layers (.npz, or .h5 as Keras publishes ImageNet weights), or a "
            ".weights.h5 or .keras file of the same architecture."
        ) from error


def all_layers(model: keras.Model) -> set[str]:
    """Names of the layers that have weights."""
    return {layer.name for layer in model.layers if layer.weights}


def _load_whole(model: keras.Model, file: Path) -> None:
    if file.suffix == ".keras":
        model.set_weights(keras.saving.load_model(file, compile=False).get_weights())
    else:
        model.load_weights(file)


def _read_npz(file: Path) -> dict[str, np.ndarray]:
    with np.load(file, allow_pickle=False) as stored:
        return dict(stored)


def _read_h5(file: Path) -> dict[str, np.ndarray]:
    """layer/array -> values, of Keras' own older layout."""
    arrays = {}
    with h5py.File(file) as stored:
        for layer in stored.attrs["layer_names"]:
            group = stored[layer]
            for weight in group.attrs["weight_names"]:
                array = _text(weight).rpartition("/")[2].partition(":")[0]
                arrays[f"{_text(layer)}/{array}"] = np.asarray(group[weight])
    return arrays


def _text(name: bytes | str) -> str:
    return name.decode() if isinstance(name, bytes) else name


def _names_match(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> bool:
    return bool(arrays.keys() & _variables(model).keys())


def _variables(model: keras.Model) -> dict[str, keras.Variable]:
    return {
        f"{layer.name}/{variable.name}": variable
        for layer in model.layers
        for variable in layer.weights
    }


def _assign(model: keras.Model, arrays: Mapping[str, np.ndarray]) -> frozenset[str]:
    """All or nothing: every array must have its place in the model, each layer all or none."""
    variables = _variables(model)
    unknown = [key for key in arrays if key not in variables]
    held = {key.partition("/")[0] for key in arrays}
    # A network that ends below the file's last layers needs all of its own, but for its head.
    if unknown and all_layers(model) - held == {"probabilities"}:
        arrays = {key: values for key, values in arrays.items() if key in variables}
        unknown = []
    if unknown or not arrays:
        raise ValueError(
            f"{len(unknown)} of {len(arrays)} arrays, such as {unknown[0]}, are no layer's"
            if unknown
            else "it is empty"
        )
    for key, variable in variables.items():
        if key.partition("/")[0] not in held:
            continue
        if key not in arrays:
            raise ValueError(f"{key} is missing")
        if arrays[key].shape != tuple(variable.shape):
            raise ValueError(
                f"{key} has the shape {arrays[key].shape}, not {tuple(variable.shape)}"
            )
    for key, values in arrays.items():
        variables[key].assign(values)
    return frozenset(all_layers(model) - held)


def _first_sentence(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")[:150]
