"""The configuration of one training run, and the folders that the project reads and writes."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass
from pathlib import Path

from core.errors import UserError

MAX_SEED = 2**32 - 1  # numpy and scikit-learn take no larger one


class ConfigError(UserError):
    """A setting that cannot be used; the message is one sentence a person can act on."""


def data_root() -> Path:
    """Folder that holds the data sets (`CXR_DATA`, default `data/`)."""
    return Path(os.environ.get("CXR_DATA") or "data")


def artifacts_root() -> Path:
    """Folder that holds the runs (`CXR_ARTIFACTS`, default `artifacts/`)."""
    return Path(os.environ.get("CXR_ARTIFACTS") or "artifacts")


def annotations_root() -> Path:
    """Folder for what people say of images, never a run's (`CXR_ANNOTATIONS`, default
    `annotations/`)."""
    return Path(os.environ.get("CXR_ANNOTATIONS") or "annotations")


def cache_root() -> Path:
    """Folder for pixels and features that can be made again (`CXR_CACHE`, default `.cache/`)."""
    return Path(os.environ.get("CXR_CACHE") or ".cache")


def split_datasets(text: str) -> list[str]:
    """The data sets in a text with commas between them; a folder's own name may have commas."""
    if Path(text).expanduser().is_dir() or (data_root() / text).is_dir():
        return [text]
    return [name.strip() for name in text.split(",") if name.strip()] or [text]


def plain_datasets(text: str) -> str:
    """The same text without the folders that the sets lie in."""
    return ",".join(Path(name).name for name in split_datasets(text))


@dataclass(frozen=True)
class Config:
    """What `python -m core train` was asked to do; saved with the run as `run.json`'s `config`.

    dataset: a name or path, or several with commas between them.
    image_size_px and epochs are None where each model's own recipe decides (core.models.recipes).
    fold_models: the models that are cross-validated, None for all. allow_leakage: score the run
    although patients of its test part are in train, and mark it as leaking. mixed: "auto", "on",
    "off" (core.training.devices) or "measure" (core.training.mixed_precision). group_copies: look
    for augmented copies also where none are known of. folds_by: "source" for one more training a
    source, which leaves that source out.
    """

    dataset: str
    models: tuple[str, ...]
    run: str
    classes: tuple[str, ...] | None = None
    split: str = "group"
    folds: int = 0
    fold_models: tuple[str, ...] | None = None
    allow_leakage: bool = False
    init: str = "auto"
    image_size_px: int | None = None
    epochs: int | None = None
    seed: int = 0
    quick: bool = False
    keep_keras: bool = False
    mixed: str = "auto"
    group_copies: bool = False
    folds_by: str | None = None

    def __post_init__(self) -> None:
        if self.split not in ("group", "random"):
            raise ConfigError(f"--split must be group or random. Received: {self.split!r}.")
        if self.folds == 1 or self.folds < 0:
            raise ConfigError(f"--folds must be 0 (none) or at least 2. Received: {self.folds}.")
        if self.folds_by not in (None, "source"):
            raise ConfigError(f"--folds-by must be source. Received: {self.folds_by!r}.")
        if self.fold_models is not None and not (self.folds or self.folds_by):
            raise ConfigError("--fold-models says which models --folds is for; give --folds too.")
        unknown = [name for name in self.fold_models or () if name not in self.models]
        if unknown:
            raise ConfigError(
                f"--fold-models names {', '.join(unknown)}, which --models does not "
                f"({', '.join(self.models)})."
            )
        if self.image_size_px is not None and not 32 <= self.image_size_px <= 1024:
            raise ConfigError(
                f"--image-size must be between 32 and 1024 px. Received: {self.image_size_px}."
            )
        if self.epochs is not None and self.epochs < 1:
            raise ConfigError(f"--epochs must be at least 1. Received: {self.epochs}.")
        if not 0 <= self.seed <= MAX_SEED:
            raise ConfigError(f"--seed must be between 0 and {MAX_SEED}. Received: {self.seed}.")

    def to_json(self) -> dict:
        """The same settings as plain JSON values; folds_by where it was asked for."""
        settings = asdict(self)
        if self.folds_by is None:  # runs that were begun before it was there go on
            del settings["folds_by"]
        return settings


def config_to_json(config: Config) -> dict:
    """The settings as run.json keeps them: no absolute path of the machine is in them."""
    return config.to_json() | {
        "dataset": plain_datasets(config.dataset),
        "init": Path(config.init).name,
    }
