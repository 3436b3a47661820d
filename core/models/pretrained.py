"""Where a model's first weights come from: ImageNet, a file, or chance; never silently."""

from __future__ import annotations

import hashlib
import os
import socket
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import keras

from core.config import ConfigError
from core.models.layers import backbone_output
from core.models.names import BACKBONES, is_control


@dataclass(frozen=True)
class WeightsFile:
    """A published file of ImageNet weights without the classifier. md5 None: not checked."""

    name: str
    md5: str | None
    url: str
    size_bytes: int


_STORAGE = "https://storage.googleapis.com/tensorflow/keras-applications/"
IMAGENET: dict[str, WeightsFile] = {
    "resnet50": WeightsFile(
        "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        "4d473c1dd8becc155b73f8504c6f6626",
        _STORAGE + "resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        94_765_736,
    ),
    # Keras itself checks no hash for this one.
    "mobilenetv2": WeightsFile(
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        None,
        _STORAGE + "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        9_406_464,
    ),
}


@dataclass(frozen=True)
class InitPlan:
    """What a model will start from: kind "imagenet", "random" or "file:NAME".

    file: the weights to load, None for random; reason: why ImageNet weights were wanted and are
    not to be had, "" otherwise.
    """

    kind: str
    file: Path | None = None
    reason: str = ""


def keras_models_folder() -> Path:
    """The folder where Keras keeps downloaded weights (`KERAS_HOME`, default `~/.keras`)."""
    home = os.environ.get("KERAS_HOME") or Path.home() / ".keras"
    return Path(home) / "models"


def plan_init(model: str, init: str, *, download: bool = True) -> InitPlan:
    """What the model will start from.

    "auto" takes ImageNet weights where they are on disk or can be downloaded and random weights
    otherwise. A file of another hash is never loaded, replaced or deleted.

    Raises:
        ConfigError: "imagenet" without the file, or a file that is not there.
    """
    if (
        is_control(model) or init == "random"
    ):  # a control is from random weights, whatever --init says
        return InitPlan("random")
    if init not in ("auto", "imagenet"):
        file = Path(init)
        if not file.is_file():
            raise ConfigError(
                f"--init names no file: {init}. Give auto, imagenet, random or a file."
            )
        return InitPlan(f"file:{file.name}", file)
    known = IMAGENET.get(BACKBONES.get(model, model))
    if known is None:
        return InitPlan("random")
    found, problem = find_imagenet(known, download=download)
    if found is not None:
        return InitPlan("imagenet", found)
    if init == "imagenet":
        check = f"md5 {known.md5}" if known.md5 else "no hash is published"
        raise ConfigError(
            f"ImageNet weights for {model} are not to be had: {problem} Put {known.name} "
            f"({known.size_bytes:,} bytes, {check}) into {keras_models_folder()}, or use "
            "--init auto to train from random weights."
        )
    return InitPlan("random", reason=problem)


def find_imagenet(known: WeightsFile, *, download: bool) -> tuple[Path | None, str]:
    """(file, "") or (None, why not)."""
    file = keras_models_folder() / known.name
    if file.is_file():
        if known.md5 is None or md5_file(file) == known.md5:
            return file, ""
        return None, f"the file in the Keras home is not the published one (md5 {md5_file(file)})."
    if not download:
        return None, "the file is not in the Keras home."
    if not _reachable(known.url):
        return None, "the file is not in the Keras home and its server cannot be reached."
    try:
        # Keras' own cache may be read-only, and get_file deletes what fails its hash.
        got = keras.utils.get_file(
            known.name, known.url, file_hash=known.md5, cache_subdir="models"
        )
    except Exception as error:  # urllib, hash and disk errors have no common class
        return None, f"the download failed ({type(error).__name__})."
    return Path(got), ""


def load_initial_weights(model: keras.Model, name: str, file: Path) -> None:
    """Load ImageNet weights (.h5 without the classifier) or weights of a whole model.

    Raises:
        ConfigError: a file that does not fit the model.
    """
    try:
        if file.suffix == ".h5" and not file.name.endswith(".weights.h5"):
            keras.Model(model.inputs, backbone_output(model)).load_weights(file)
        elif file.suffix == ".keras":
            model.set_weights(keras.saving.load_model(file, compile=False).get_weights())
        else:
            model.load_weights(file)
    except (ValueError, KeyError, OSError, TypeError) as error:
        raise ConfigError(
            f"The weights in {file.name} do not fit {name}: expected ImageNet weights without the "
            "classifier (.h5), or a .weights.h5 or .keras file of the same architecture."
        ) from error


def md5_file(path: Path) -> str:
    """Hex MD5 of a file, the hash that Keras publishes (an identity, not a safeguard)."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def _reachable(url: str, seconds: float = 3.0) -> bool:
    """Asked first because Keras waits for minutes where a network drops what it is sent."""
    if urllib.request.getproxies().get("https"):
        return True  # only the proxy knows
    host = url.split("/")[2]
    try:
        with socket.create_connection((host, 443), timeout=seconds):
            return True
    except OSError:
        return False
