"""Where a model's first weights come from: ImageNet, a file, or chance; never silently."""

from __future__ import annotations

import os
import socket
import urllib.request
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import keras
import pooch

from core.config import ConfigError
from core.models.names import BACKBONES, NOTEBOOK, PARTIAL, is_control


@dataclass(frozen=True)
class WeightsFile:
    """A published file of ImageNet weights without the classifier.

    versions: size in bytes -> its hash as "md5:..." or "sha256:...", "" where nobody published one.
    url: "" where it is not downloaded. covers: the last layer of those that it holds with all below
    them, "" where it holds the whole network; what lies above starts from random weights.
    """

    name: str
    versions: Mapping[int, str]
    url: str = ""
    covers: str = ""

    @property
    def kind(self) -> str:
        """run.json's `init` of a model that started from it."""
        return f"{PARTIAL}{self.covers}" if self.covers else "imagenet"


_STORAGE = "https://storage.googleapis.com/tensorflow/keras-applications/"
IMAGENET: dict[str, WeightsFile] = {
    "resnet50": WeightsFile(
        "resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
        {94_765_736: "md5:4d473c1dd8becc155b73f8504c6f6626"},
        _STORAGE + "resnet/resnet50_weights_tf_dim_ordering_tf_kernels_notop.h5",
    ),
    # Keras checks no hash of its own file; the other is the same tensors, packed again.
    "mobilenetv2": WeightsFile(
        "mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
        {
            9_406_464: "",
            9_419_728: "sha256:dd062f34946ae4e12e9cd38b52bf173201b754b1d1e5ede2e57efa23d718b1f5",
        },
        _STORAGE + "mobilenet_v2/mobilenet_v2_weights_tf_dim_ordering_tf_kernels_1.0_224_no_top.h5",
    ),
}
# He et al.'s own ResNet50 up to the end of conv4, from which Keras' whole file was converted: taken
# where the whole file is not to be had.
PARTIAL_IMAGENET: dict[str, WeightsFile] = {
    "resnet50": WeightsFile(
        "resnet50_imagenet_conv1to4.npz",
        {36_539_106: "sha256:df63994346ab761ae6f459c4a165cff2db92bf312e0a82bcec4f9a9c41cd2ffc"},
        covers="conv4_block6_out",
    ),
}


@dataclass(frozen=True)
class InitPlan:
    """What a model will start from.

    kind: "imagenet", "imagenet-partial:LAYER" (up to that layer), "random" or "file:NAME".
    file: the weights to load, None for random; reason: why (whole) ImageNet weights were wanted and
    are not to be had, "" otherwise.
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

    "auto" takes ImageNet weights where they are on disk or can be downloaded, of ResNet50 also
    those up to conv4, and random weights otherwise. A file of another hash is never loaded,
    replaced or deleted.

    Raises:
        ConfigError: "imagenet" without the file, or a file that is not there or broken off.
    """
    if is_control(model) or init == "random":  # a control is random, whatever --init says
        return InitPlan("random")
    # The notebooks' frozen networks read the last layer: a part of the weights is none to them.
    partial = PARTIAL_IMAGENET.get(model if model in NOTEBOOK else BACKBONES.get(model, model))
    if init not in ("auto", "imagenet") and not init.startswith(PARTIAL):
        return _plan_file(Path(init), partial)
    known = IMAGENET.get(BACKBONES.get(model, model))
    if known is None:
        return InitPlan("random")
    reason = "the run began with a part of them."
    if not init.startswith(PARTIAL):
        found, reason = find_imagenet(known, download=download)
        if found is not None:
            return InitPlan(known.kind, found)
    if partial is not None and init != "imagenet":
        found, problem = find_imagenet(partial, download=False)
        if found is not None:
            return InitPlan(partial.kind, found, reason)
        if init.startswith(PARTIAL) or (keras_models_folder() / partial.name).is_file():
            reason += f" {partial.name}: {problem}"
    if init != "auto":
        wanted = partial if partial and init.startswith(PARTIAL) else known
        raise ConfigError(
            f"ImageNet weights for {model} are not to be had: {reason} Put {wanted.name} "
            f"({_describe_versions(wanted)}) into {keras_models_folder()}, or use --init auto to "
            "train from what is there."
        )
    return InitPlan("random", reason=reason)


def _plan_file(file: Path, partial: WeightsFile | None) -> InitPlan:
    if not file.is_file():
        raise ConfigError(f"--init names no file: {file}. Give auto, imagenet, random or a file.")
    problem = find_damage(file)
    if problem:
        raise ConfigError(f"--init: {file.name} {problem}")
    if partial is not None and not differs(file, partial):
        return InitPlan(partial.kind, file)
    return InitPlan(f"file:{file.name}", file)


def find_imagenet(known: WeightsFile, *, download: bool) -> tuple[Path | None, str]:
    """(file, "") or (None, why not)."""
    file = keras_models_folder() / known.name
    if file.is_file():
        problem = differs(file, known)
        return (None, f"the file in the Keras home {problem}") if problem else (file, "")
    if not download or not known.url:
        return None, "the file is not in the Keras home."
    if not _reachable(known.url):
        return None, "the file is not in the Keras home and its server cannot be reached."
    md5 = next(iter(known.versions.values())).removeprefix("md5:")
    try:
        # Keras' own cache may be read-only, and get_file deletes what fails its hash.
        got = keras.utils.get_file(
            known.name, known.url, file_hash=md5 or None, cache_subdir="models"
        )
    except Exception as error:  # urllib, hash and disk errors have no common class
        return None, f"the download failed ({type(error).__name__})."
    return Path(got), ""


def differs(file: Path, known: WeightsFile) -> str:
    """How a file differs from the published one, "" where size and hash are its."""
    size = file.stat().st_size
    problem = find_damage(file)
    if size not in known.versions:
        if size < max(known.versions):
            return problem or _broken_off(size, max(known.versions))
        return f"is not the published one ({size:,} bytes; expected {_describe_versions(known)})."
    kind, _, expected = known.versions[size].partition(":")
    if expected and (found := pooch.file_hash(str(file), alg=kind)) != expected:
        return f"is not the published one ({kind} {found}, expected {expected})."
    return problem


def find_damage(file: Path) -> str:
    """What is wrong with a file of weights as a whole, "" for nothing; no array is read.

    A zip archive (.npz, .keras) has its list of contents at its end; HDF5 (.h5) names its length in
    its first bytes (HDF5 File Format Specification 3.0, III.A, superblock: end of file address).
    """
    size = file.stat().st_size
    if file.suffix in (".npz", ".keras"):
        if zipfile.is_zipfile(file):
            return ""
        with open(file, "rb") as stream:
            begun = stream.read(4) == b"PK\3\4"
        return "is broken off: delete it." if begun else f"is no {file.suffix} file."
    with open(file, "rb") as stream:
        head = stream.read(64)
    if head[:8] != b"\x89HDF\r\n\x1a\n":
        return "is no HDF5 file."
    at = 40 if head[8] < 2 else 28  # superblock versions 0 and 1, and later ones
    whole = int.from_bytes(head[at : at + 8], "little")
    return _broken_off(size, whole) if size < whole else ""


def _broken_off(size: int, whole: int) -> str:
    return f"is broken off at {size:,} of {whole:,} bytes: delete it."


def _describe_versions(known: WeightsFile) -> str:
    return " or ".join(
        f"{size:,} bytes, {known_hash.replace(':', ' ') or 'no hash is published'}"
        for size, known_hash in known.versions.items()
    )


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
