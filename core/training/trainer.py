"""One training, whoever asks for it: fit, round, export, predict from what was exported."""

from __future__ import annotations

import itertools
import shutil
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
import pandas as pd

from core.config import MAX_SEED
from core.evaluation.scoring import predictions_table
from core.imageio.pixel_cache import PixelCache
from core.inference.served_model import ServedModel, compile_model
from core.models.architectures import average_models, build_model
from core.models.load_weights import load_initial_weights
from core.models.names import model_title
from core.models.pretrained import InitPlan
from core.models.recipes import Recipe
from core.runs import artifacts
from core.training.data_loader import TrainingImages
from core.training.devices import clear_session
from core.training.export import export_model, round_weights
from core.training.feature_cache import FrozenStore
from core.training.fit import FitTask, fit_model
from core.training.openvino import in_float32
from core.training.run_metadata import PRECISION


@dataclass(frozen=True)
class ModelSpec:
    """One model to be trained: its name, its first weights and its recipe."""

    name: str
    init: InitPlan
    recipe: Recipe


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
        for work in (*self.folder.glob("stage*"), *self.folder.glob("member*")):
            shutil.rmtree(work)


def train_once(
    spec: ModelSpec,
    materials: Materials,
    split: np.ndarray,
    folder: Path,
    what: str = "",
    checkpoints: Path | None = None,
) -> Trained:
    """Fit on the rows where split (n,) is "train", choose the epoch on "val", export to `folder`.

    Checkpoints lie in `checkpoints` (default: `folder`); where some are, training goes on.
    """
    clear_session()
    keras.utils.set_random_seed(materials.seed)
    pixels, y = materials.cache.pixels(spec.recipe.image_size_px), materials.y
    images = {}
    for name in ("train", "val"):
        rows = np.flatnonzero(split == name)
        # A fit reads the store by row; the export is held against Keras on a few images.
        images[name] = TrainingImages(np.asarray(pixels[rows[:32]]), y[rows], rows)
    model, history = _fit(spec, materials, images, checkpoints or folder, what)
    model = in_float32(model)
    round_weights(model)
    difference = export_model(model, folder, images["val"].pixels[:32])
    served = serve(folder, spec.name, spec.recipe, materials.tta, materials.class_names)
    return Trained(model, history, served, difference, folder, materials)


def _fit(
    spec: ModelSpec,
    materials: Materials,
    images: dict[str, TrainingImages],
    folder: Path,
    what: str,
) -> tuple[keras.Model, pd.DataFrame]:
    """The fitted model and its history; where a recipe has members, their mean."""
    name, recipe = spec.name, spec.recipe
    n_classes, members, histories = len(materials.class_names), [], []
    for number in range(recipe.members):
        seed, of, place = materials.seed, "", folder
        if recipe.members > 1:
            # Seeds of other runs are small numbers too; a member's lies far from them.
            seed, of = (seed + 1000 * number) % MAX_SEED, f"member {number + 1}"
            place = folder / f"member{number + 1}"
            keras.utils.set_random_seed(seed)
        model = build_model(name, recipe.image_size_px, n_classes, recipe.dropout)
        fresh: frozenset[str] = frozenset()
        if spec.init.file is not None:
            fresh = load_initial_weights(model, name, spec.init.file)
        title = ", ".join(word for word in (model_title(name), what, of) if word)
        store = materials.store(name, recipe)
        task = FitTask(images["train"], images["val"], n_classes, seed, title, store, fresh)
        history = fit_model(model, recipe, task, place)
        if of:
            history["phase"] = f"{of}: " + history["phase"]
        members.append(model)
        histories.append(history)
    for before, history in itertools.pairwise(histories):
        history["epoch"] += int(before["epoch"].max())
    whole = members[0] if len(members) == 1 else average_models(members, recipe.image_size_px)
    return whole, pd.concat(histories, ignore_index=True)


def serve(folder: Path, name: str, recipe: Recipe, tta: str, class_names: list[str]) -> ServedModel:
    """The model exported into `folder` as pages will serve it."""
    return compile_model(
        folder / artifacts.MODEL_FILES[0],
        name=name,
        class_names=tuple(class_names),
        input_size_px=recipe.image_size_px,
        precision=PRECISION,
        tta=tta,
    )
