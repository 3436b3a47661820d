"""One training, whoever asks for it: fit, round, export, predict from what was exported."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from core import artifacts
from core.batches import Images
from core.cache import PixelCache
from core.describe import PRECISION
from core.evaluation import predictions_table
from core.export import export_model, round_weights
from core.fitting import fit_model
from core.frozen import FrozenStore
from core.inference import ServedModel, compile_model
from core.models import build_model, model_title
from core.recipes import Recipe
from core.weights import InitPlan, load_initial_weights


@dataclass(frozen=True)
class Materials:
    """What all trainings of a run share. manifest: a row an image of the cache, in its order."""

    cache: PixelCache
    manifest: pd.DataFrame
    class_names: list[str]
    split: str
    tta: str
    seed: int
    work: Path

    @property
    def y(self) -> np.ndarray:
        """int (n,): the class of every image."""
        return pd.Index(self.class_names).get_indexer(self.manifest["label"])

    def store(self, name: str, recipe: Recipe) -> FrozenStore:
        """Frozen outputs of one model for all images, shared by hold-out and folds."""
        pixels = self.cache.pixels(recipe.image_size_px)
        folder = self.work / name / "frozen"
        return FrozenStore(pixels, folder, recipe, self.seed, model_title(name))


@dataclass(frozen=True)
class Trained:
    """A model that was fitted and exported into `folder`; difference: of export and Keras."""

    model: keras.Model
    history: pd.DataFrame
    served: ServedModel
    difference: float
    folder: Path
    materials: Materials

    def predict(self, rows: np.ndarray) -> pd.DataFrame:
        """Predictions table of those rows of the manifest, fold as the manifest has it."""
        pixels = self.materials.cache.pixels(self.served.input_size_px)
        output = self.served.predict(pixels[rows])
        table = self.materials.manifest.iloc[rows]
        return predictions_table(table, output.probabilities, self.materials.class_names)

    def discard(self) -> None:
        """Delete what was exported and the checkpoints: of a fold only predictions are kept."""
        for name in artifacts.MODEL_FILES:
            (self.folder / name).unlink()
        for stage in self.folder.glob("stage*"):
            shutil.rmtree(stage)


def train_once(
    name: str,
    plan: InitPlan,
    recipe: Recipe,
    materials: Materials,
    part: np.ndarray,
    folder: Path,
    what: str = "",
    checkpoints: Path | None = None,
) -> Trained:
    """Fit on the rows where part (n,) is "train", choose the epoch on "val", export to `folder`.

    Checkpoints lie in `checkpoints` (default: `folder`); where some are, training goes on.
    """
    keras.backend.clear_session()
    keras.utils.set_random_seed(materials.seed)
    pixels, y = materials.cache.pixels(recipe.image_size_px), materials.y
    frozen = all(stage.cut is not None for stage in recipe.stages)
    parts = {}
    for split in ("train", "val"):
        rows = np.flatnonzero(part == split)
        # Frozen stages read the store; the export is held against Keras on a few pictures.
        whole = np.asarray(pixels[rows[:32]] if frozen else pixels[rows])
        parts[split] = Images(whole, y[rows], rows)
    model = build_model(name, recipe.image_size_px, len(materials.class_names), recipe.dropout)
    if plan.file is not None:
        load_initial_weights(model, name, plan.file)
    history = fit_model(
        model, recipe, parts["train"], parts["val"], len(materials.class_names),
        checkpoints or folder, seed=materials.seed,
        title=", ".join(word for word in (model_title(name), what) if word),
        store=materials.store(name, recipe),
    )  # fmt: skip
    round_weights(model)
    difference = export_model(model, folder, parts["val"].pixels[:32])
    served = serve(folder, name, recipe, materials.tta, materials.class_names)
    return Trained(model, history, served, difference, folder, materials)


def serve(folder: Path, name: str, recipe: Recipe, tta: str, class_names: list[str]) -> ServedModel:
    """The model exported into `folder` as pages will serve it."""
    return compile_model(
        folder / artifacts.MODEL_FILES[0], name=name, class_names=tuple(class_names),
        input_size_px=recipe.image_size_px, precision=PRECISION, tta=tta,
    )  # fmt: skip
