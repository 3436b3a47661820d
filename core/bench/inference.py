"""A served model against the bare engine: what reading, preparing and averaging cost on top."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from core.bench.measurement import Measured, Measurements
from core.bench.task import FROZEN, FROZEN_PX, TIMES, BenchTask, first_model, open_task
from core.imageio.pixel_cache import build_pixel_cache
from core.timing import median_by_turns

LIMIT = 1.3


def bench_evaluation(run: str | None) -> Measurements:
    """A served model over a pixel cache against the bare engine on the same float batches."""
    del run
    with tempfile.TemporaryDirectory() as folder, open_task(Path(folder)) as task:
        for name in FROZEN:
            yield _bench_engine(task, name, Path(folder))


def _bench_engine(task: BenchTask, name: str, folder: Path) -> Measured:
    from core.inference.served_model import compile_model
    from core.models.recipes import Recipe
    from core.training.export import export_model, round_weights

    model = first_model(name, Recipe(FROZEN_PX, ()), task)
    cache = build_pixel_cache(task.table, task.root, folder / "cache", [FROZEN_PX])
    pixels = cache.pixels(FROZEN_PX)[:160]
    round_weights(model)
    target = folder / name
    export_model(model, target, np.asarray(pixels[:4]))
    served = compile_model(
        target / "model.xml",
        name=name,
        class_names=tuple(task.class_names),
        input_size_px=FROZEN_PX,
        tta="flip",
    )
    batches = []
    for start in range(0, len(pixels), 32):
        images = np.asarray(pixels[start : start + 32], dtype="float32")[..., None]
        batches.append(np.concatenate([images, images[:, :, ::-1]]))
    request = served.compiled.create_infer_request()

    def bare() -> None:
        for batch in batches:
            request.infer(batch)

    engine, whole = median_by_turns([bare, lambda: served.predict(pixels)], rounds=3)
    what = (
        f"served {name} with mirrored copies over the pixel cache, as a multiple of the bare "
        f"engine's time, {len(pixels)} {task.what.split(' ', 1)[1]}, {FROZEN_PX} px, f32"
    )
    note = f"{whole:.2f} s against {engine:.2f} s"
    return Measured("evaluation", what, whole / engine, LIMIT, note, TIMES)
