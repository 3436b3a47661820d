"""What the benches of training, evaluation and memory work on: images, networks, first weights."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from core.bench.measurement import BenchError
from core.config import data_root
from core.datasets.folder import load_table
from core.datasets.phantom.generate import write_phantoms
from core.datasets.registry import DatasetError, order_classes, resolve_dataset
from core.datasets.splits import build_manifest

IMAGES = "CXR_BENCH_IMAGES"  # environment: at most so many images, for a quick look
DATASET = "darkcovidnet"
SEED = 0
FROZEN = ("mobilenetv2", "resnet50")
FROZEN_PX = 224
TIMES = "x"


@dataclass(frozen=True)
class BenchTask:
    """The images of a comparison: table (path, label, patient_id, split), below root."""

    table: pd.DataFrame
    root: Path
    what: str

    @property
    def class_names(self) -> list[str]:
        return order_classes(self.table["label"])

    @property
    def y(self) -> np.ndarray:
        return pd.Index(self.class_names).get_indexer(self.table["label"])

    def rows(self, split: str) -> np.ndarray:
        return np.flatnonzero(self.table["split"] == split)


@contextmanager
def open_task(folder: Path) -> Iterator[BenchTask]:
    """darkcovidnet where it is here, else phantoms written as files below `folder`."""
    limit = _images_wanted()
    try:
        dataset, root = resolve_dataset(DATASET, data_root())
        kind = f"images of {DATASET}"
    except DatasetError:
        per_class = min(130, max(10, (limit or 1125) // 9))
        root = write_phantoms(folder / "phantoms", patients_per_class=per_class)
        dataset, root = resolve_dataset(root, data_root())
        kind = "drawn phantoms"
    table = load_table(dataset, root)
    if limit is not None and limit < len(table):
        table = table.sample(limit, random_state=SEED).sort_index().reset_index(drop=True)
    split = build_manifest(table, seed=SEED).set_index("image_id")["split"]
    table["split"] = split.loc[table["image_id"]].to_numpy()
    yield BenchTask(table, root, f"{len(table):,} {kind}")


def _images_wanted() -> int | None:
    text = os.environ.get(IMAGES, "")
    if text and not (text.isdecimal() and int(text) >= 60):
        raise BenchError(f"{IMAGES} must be a whole number of at least 60. Received: {text!r}.")
    return int(text) if text else None


def first_model(name: str, recipe, task: BenchTask):
    """A network as a training would begin with it, always the same; ImageNet weights if here."""
    from core.backend import import_keras

    keras = import_keras()
    from core.models.architectures import build_model
    from core.models.load_weights import load_initial_weights
    from core.models.pretrained import plan_init
    from core.training.devices import clear_session

    clear_session()
    keras.utils.set_random_seed(SEED)
    model = build_model(name, recipe.image_size_px, len(task.class_names), recipe.dropout)
    plan = plan_init(name, "auto", download=False)
    if plan.file is not None:
        load_initial_weights(model, name, plan.file)
    return model
