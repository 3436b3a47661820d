"""Training against the usual way, in one process, on the same images.

The usual way is what the field's notebooks do: every epoch decodes the files again, alters each
image on the CPU (Keras' own ImageDataGenerator, which tensorflow.keras still has), runs the whole
network, frozen layers included, and is driven by Keras' fit. Both ways get the same network, first
weights, images, batch size, optimizer, schedule, class weights and number of epochs. As there, the
usual way reads RGB, the generator's default; here images are grey. docs/performance.md tells
more.
"""

from __future__ import annotations

import logging
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from core.bench.measurement import BenchError, Measured, Measurements
from core.bench.task import FROZEN, FROZEN_PX, SEED, TIMES, BenchTask, first_model, open_task
from core.imageio.pixel_cache import build_pixel_cache
from core.metrics.classification import compute_metrics
from core.metrics.intervals import bootstrap_intervals

logger = logging.getLogger(__name__)

EPOCHS, VIEWS = 10, 2
TURNS = 3  # of what takes seconds, since one alone can differ by a quarter; the usual way: 2
STEPPED = ("cnn", "resnet50", "mobilenetv2")
COLD, WARM, WHOLE = 10.0, 20.0, 2.0


@dataclass(frozen=True)
class Way:
    """One way's seconds and those of all its cores together, and probabilities of the test rows.

    The second hardly depends on what else the machine does.
    """

    seconds: float
    cpu_s: float
    y_prob: np.ndarray


def bench_training(run: str | None) -> Measurements:
    """Frozen stages and the CNN against the usual way; macro-F1 of both; mixed precision."""
    del run
    try:
        from tensorflow.keras.preprocessing.image import ImageDataGenerator  # noqa: F401
    except ImportError:
        note = "the usual way needs TensorFlow, which is not installed"
        yield Measured("training", "training against the usual way", None, COLD, note, TIMES, True)
        return
    with tempfile.TemporaryDirectory() as folder, open_task(Path(folder)) as task:
        for name in FROZEN:
            yield from _bench_frozen(task, name, Path(folder))
        yield from _bench_cnn(task, Path(folder))
    yield from map(_bench_mixed_precision, STEPPED)


@contextmanager
def _empty_cache(folder: Path) -> Iterator[None]:
    """Networks converted by an earlier training must not make "nothing cached" look faster."""
    usual = os.environ.get("CXR_CACHE")
    os.environ["CXR_CACHE"] = str(folder)
    try:
        yield
    finally:
        del os.environ["CXR_CACHE"]
        if usual is not None:
            os.environ["CXR_CACHE"] = usual


def _bench_frozen(task: BenchTask, name: str, folder: Path) -> Measurements:
    recipe = _recipe(FROZEN_PX, cut="features", views=VIEWS)
    common = (
        f"{name} frozen below its head ({_init(name)}), {EPOCHS} epochs, {VIEWS} views, "
        f"{FROZEN_PX} px, batch {recipe.batch_size}, {task.what}"
    )
    logger.info(f"  the usual way: {common} ...")
    usual = [train_usual(task, name, recipe, folder)]
    cold: dict[str, list[Way]] = {"f32": [], "bf16": []}
    warm: dict[str, list[Way]] = {"f32": [], "bf16": []}
    for turn in range(TURNS):
        for precision in cold:
            cache = folder / f"pixels-{name}-{precision}-{turn}"
            with _empty_cache(folder / f"{name}-{precision}-{turn}"):
                for found in (cold[precision], warm[precision]):
                    found.append(train_here(task, name, recipe, folder, cache, precision))
    usual.append(train_usual(task, name, recipe, folder))  # a machine grown slower shows in both
    yield _score("training", f"macro-F1 the usual way, {common}", task, usual[0])
    for precision in cold:
        what = f"from the files, nothing cached, features at {precision}, {common}"
        yield _ratio(what, usual, cold[precision], COLD)
        what = f"pixel cache warm and the network converted, features at {precision}, {common}"
        yield _ratio(what, usual, warm[precision], WARM)
        what = f"macro-F1 here, features at {precision}, {common}"
        yield _score("training", what, task, warm[precision][-1])


def _bench_cnn(task: BenchTask, folder: Path) -> Measurements:
    from core.models.recipes import find_recipe

    own = find_recipe("cnn", "random")
    stage = replace(own.stages[0], epochs=EPOCHS, patience=EPOCHS)
    recipe = replace(own, stages=(stage,))
    common = (
        f"cnn, every layer, {EPOCHS} epochs, {recipe.image_size_px} px, "
        f"batch {recipe.batch_size}, {task.what}"
    )
    logger.info(f"  the usual way: {common} ...")
    usual = train_usual(task, "cnn", recipe, folder)
    yield _score("training", f"macro-F1 the usual way, {common}", task, usual)
    for policy in ("float32", "mixed_bfloat16"):
        cache = folder / f"cache-cnn-{policy}"
        here = train_here(task, "cnn", recipe, folder, cache, "f32", policy)
        yield _ratio(f"from the files, steps in {policy}, {common}", [usual], [here], WHOLE)
        yield _score("training", f"macro-F1 here, steps in {policy}, {common}", task, here)


def _ratio(what: str, usual: list[Way], here: list[Way], limit: float) -> Measured:
    """How many times the seconds of the usual way are this project's, medians of each."""
    ours, theirs = _median_cpu_s(here), _median_cpu_s(usual)
    note = (
        f"{_seconds(usual)} against {_seconds(here)}; of CPU time {theirs:.0f} s "
        f"against {ours:.0f} s, {theirs / ours:.1f} times"
    )
    ratio = _median_s(usual) / _median_s(here)
    return Measured("training", f"times the usual way, {what}", ratio, limit, note, TIMES, True)


def _median_s(ways: list[Way]) -> float:
    return float(np.median([way.seconds for way in ways]))


def _median_cpu_s(ways: list[Way]) -> float:
    return float(np.median([way.cpu_s for way in ways]))


def _seconds(ways: list[Way]) -> str:
    """Such as "7.1 s (of 3, 6.8 to 7.9)"."""
    said = f"{_median_s(ways):.1f} s"
    if len(ways) == 1:
        return said
    each = [way.seconds for way in ways]
    return f"{said} (of {len(each)}, {min(each):.1f} to {max(each):.1f})"


def train_usual(task: BenchTask, name: str, recipe, folder: Path) -> Way:
    """Files -> ImageDataGenerator -> Keras' fit of the whole network, and its predictions."""
    from tensorflow.keras.preprocessing.image import ImageDataGenerator

    from core.backend import import_keras

    keras = import_keras()
    from core.training.data_loader import class_weights
    from core.training.fit import build_optimizer

    model = _with_three_channels(first_model(name, recipe, task))
    stage = recipe.stages[0]
    if stage.cut is not None:
        edge = [layer.name for layer in model.layers].index(stage.cut)
        for layer in model.layers[: edge + 1]:
            layer.trainable = False
    # What the generator offers of the recipe; it has no contrast, so none is altered here.
    altered = ImageDataGenerator(
        rotation_range=recipe.rotation_deg,
        width_shift_range=recipe.shift,
        height_shift_range=recipe.shift,
        zoom_range=recipe.zoom,
        fill_mode="reflect",
        horizontal_flip=recipe.flip,
    )
    size, names = recipe.image_size_px, task.class_names
    table = task.table.assign(file=[str(task.root / path) for path in task.table["path"]])

    def flow(generator, split: str, shuffle: bool):
        return generator.flow_from_dataframe(
            table[table["split"] == split],
            x_col="file",
            y_col="label",
            target_size=(size, size),
            classes=names,
            batch_size=recipe.batch_size,
            shuffle=shuffle,
            seed=SEED,
            interpolation="bilinear",
            validate_filenames=False,
        )

    started, cpu = time.perf_counter(), time.process_time()
    train, val = flow(altered, "train", True), flow(ImageDataGenerator(), "val", False)
    y = task.y[task.rows("train")]
    weights = class_weights(y, len(names))
    model.compile(
        optimizer=build_optimizer(stage, len(train)),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=recipe.label_smoothing),
        metrics=["accuracy"],
    )
    class_weight = {int(k): float(weights[y == k][0]) for k in np.unique(y)}
    model.fit(train, validation_data=val, epochs=stage.epochs, verbose=0, class_weight=class_weight)
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu
    y_prob = model.predict(flow(ImageDataGenerator(), "test", False), verbose=0)
    return Way(seconds, cpu_s, y_prob)


def train_here(
    task: BenchTask,
    name: str,
    recipe,
    folder: Path,
    cache_folder: Path,
    precision: str,
    policy: str = "float32",
) -> Way:
    """Pixel cache -> frozen outputs -> core.training.fit, and predictions; everything anew but
    pixels.

    precision: of frozen outputs; policy: Keras' dtype policy for what is trained. Predictions are
    made in float32 either way.

    The seconds include decoding where `cache_folder` lacks the pixels, the export to OpenVINO where
    the cache lacks the network, its compilation, all frozen outputs and the whole of fit_model.
    """
    from core.backend import import_keras
    from core.training.data_loader import TrainingImages
    from core.training.feature_cache import FrozenStore
    from core.training.fit import FitTask, fit_model
    from core.training.openvino import in_float32

    keras = import_keras()
    usual = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = first_model(name, recipe, task)
    finally:
        keras.config.set_dtype_policy(usual)
    size, n_classes = recipe.image_size_px, len(task.class_names)
    with tempfile.TemporaryDirectory(dir=folder) as work:
        started, cpu = time.perf_counter(), time.process_time()
        fitted_on = np.flatnonzero(task.table["split"] != "test")
        pixels = _cached(task, fitted_on, cache_folder, size)
        store = FrozenStore(pixels, Path(work, "frozen"), recipe, SEED, name, precision)
        train, val = (
            TrainingImages(pixels[:0], task.y[rows], np.searchsorted(fitted_on, rows))
            for rows in (task.rows("train"), task.rows("val"))
        )
        fit_task = FitTask(train, val, n_classes, SEED, name, store)
        fit_model(model, recipe, fit_task, Path(work, "fit"))
        seconds, cpu_s = time.perf_counter() - started, time.process_time() - cpu
        pixels = _cached(task, task.rows("test"), cache_folder, size)
        test_images = np.asarray(pixels, dtype="float32")[..., None]
        y_prob = in_float32(model).predict(test_images, batch_size=recipe.batch_size, verbose=0)
    return Way(seconds, cpu_s, y_prob)


def _cached(task: BenchTask, rows: np.ndarray, folder: Path, size_px: int) -> np.ndarray:
    cache = build_pixel_cache(task.table.iloc[rows], task.root, folder, [size_px])
    if len(cache.skipped):
        raise BenchError(f"{len(cache.skipped)} images of {task.root.name} could not be read.")
    return cache.pixels(size_px)


def _with_three_channels(model):
    """The same network for RGB images; of the CNN the first convolution is then larger."""
    from core.backend import import_keras

    keras = import_keras()
    from core.models.architectures import split_model

    if not isinstance(model, keras.Sequential):
        return split_model(model, "grey_to_rgb")[1]
    size = model.input_shape[1]
    layers = [type(layer).from_config(layer.get_config()) for layer in model.layers]
    return keras.Sequential([keras.Input((size, size, 3)), *layers])


def _bench_mixed_precision(name: str) -> Measured:
    """A step of a model trained whole in float32 against one in mixed_bfloat16, by turns."""
    from core.models.recipes import find_recipe
    from core.training.mixed_precision import POLICIES, time_step

    recipe = find_recipe(name, "random")
    times = time_step(name, recipe, recipe.stages[0], 3, rounds=8)
    whole, mixed = (times[policy] for policy in POLICIES)
    what = (
        f"mixed_bfloat16 against float32, a step of the whole {name}, {recipe.image_size_px} px, "
        f"batch {recipe.batch_size}"
    )
    note = f"{1000 * whole:.0f} ms against {1000 * mixed:.0f} ms"
    return Measured("training", what, whole / mixed, None, note, TIMES)


def _score(bench: str, what: str, task: BenchTask, way: Way) -> Measured:
    rows, names = task.rows("test"), task.class_names
    y = task.y[rows]
    y_prob = way.y_prob.astype(float)
    y_prob /= y_prob.sum(axis=1, keepdims=True)
    groups = task.table["patient_id"].to_numpy()[rows]
    found = bootstrap_intervals(y, y_prob, groups, names, seed=SEED)["macro_f1"]
    value = compute_metrics(y, y_prob, names)["macro_f1"]
    note = f"95% interval {found['low']:.3f} to {found['high']:.3f}, {len(rows)} test images"
    return Measured(bench, what, float(value), None, note, "of 1")


def _recipe(size_px: int, **stage):
    from core.models.recipes import Recipe, Stage

    head = Stage("head", EPOCHS, 1e-3, patience=EPOCHS, keep="last", **stage)
    return Recipe(size_px, (head,))


def _init(name: str) -> str:
    from core.models.pretrained import plan_init

    return f"{plan_init(name, 'auto', download=False).kind} weights"
