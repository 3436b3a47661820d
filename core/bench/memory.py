"""Whether memory stays flat and time linear when the data set grows tenfold.

The grown set is a real file of memory-mapped pixels: images of the task, each altered a little,
over and over. Every measurement is a process of its own, whose highest resident memory (peak RSS,
as the kernel counts it, pages of mapped files included) is read at its end.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from core.bench.measurement import Measured, Measurements, last_line, run_python
from core.imageio.pixel_cache import build_pixel_cache

logger = logging.getLogger(__name__)

SIZES = (1_710, 17_099)
LIMIT_MB = 2_000  # as the demand says it: 2 GB
MODEL = "mobilenetv2"


@dataclass(frozen=True)
class Job:
    """A part of the way from pixels to a model; work(pixels, folder) does it.

    flat: whether its memory must not grow with the images, and its time only in proportion.
    """

    what: str
    size_px: int
    work: Callable[[np.ndarray, Path], None]
    flat: bool = True


def bench_memory(run: str | None) -> Measurements:
    """Peak memory and time an image of each of JOBS, at n images and at ten times as many."""
    del run
    for name, job in JOBS.items():
        with tempfile.TemporaryDirectory() as folder:
            found = [measure(name, n, Path(folder)) for n in SIZES]
        yield from _compare(job, *found)


def _compare(job: Job, few: dict[str, float], many: dict[str, float]) -> Measurements:
    for n, one in zip(SIZES, (few, many), strict=True):
        limit_mb = LIMIT_MB if n == max(SIZES) else None
        note = f"{one['seconds']:.1f} s, {1000 * one['seconds'] / n:.2f} ms an image"
        yield Measured(
            "memory", f"peak RSS, {job.what}, {n:,} images", one["peak_mb"], limit_mb, note, "MB"
        )
    limit = 1.1 if job.flat else None
    against = f"of {SIZES[1]:,} images against {SIZES[0]:,}, {job.what}"
    peak_ratio = many["peak_mb"] / few["peak_mb"]
    yield Measured("memory", f"peak RSS {against}", peak_ratio, limit, unit="x")
    time_ratio = (many["seconds"] / SIZES[1]) / (few["seconds"] / SIZES[0])
    note = f"start of the process included: {many['wall_s']:.0f} s"
    yield Measured("memory", f"time an image {against}", time_ratio, limit, note, "x")


def measure(name: str, n: int, folder: Path) -> dict[str, float]:
    """{peak_mb, seconds, wall_s} of one of JOBS on n images, in a process of its own."""
    file = folder / f"pixels-{n}.u8"
    logger.info(f"  {n:,} images: writing their pixels ...")
    grow_pixels(file, n, JOBS[name].size_px, folder)
    logger.info(f"  {n:,} images: {JOBS[name].what} ...")
    try:
        done = run_python(
            *("-m", "core.bench.memory", str(file), str(n), name), TF_CPP_MIN_LOG_LEVEL="3"
        )
    finally:
        file.unlink()
    if done.returncode:
        raise RuntimeError(last_line(done.stderr))
    return json.loads(last_line(done.stdout))


def grow_pixels(file: Path, n: int, size_px: int, folder: Path) -> None:
    """Write n uint8 images: the task's, over and over, each round brighter than the one before."""
    from core.bench.task import open_task

    with open_task(folder) as task:
        cache = build_pixel_cache(task.table, task.root, folder / "cache", [size_px])
        pixels = cache.pixels(size_px)
        with open(file, "wb") as target:
            for row in range(n):
                number, again = row % len(pixels), row // len(pixels)
                target.write(
                    np.clip(pixels[number].astype("int16") + again, 0, 255).astype("uint8")
                )


def train_frozen(pixels: np.ndarray, folder: Path) -> None:
    """A frozen stage: every image through the backbone once, two epochs of the head."""
    from core.models.recipes import Recipe, Stage

    head = Stage("head", 2, 1e-3, cut="features", views=1)
    _train(MODEL, Recipe(pixels.shape[1], (head,)), pixels, folder)


def train_whole(pixels: np.ndarray, folder: Path) -> None:
    """An epoch of the CNN by its own recipe, every layer trained, every image altered."""
    from core.models.recipes import find_recipe

    own = find_recipe("cnn", "random")
    stage = replace(own.stages[0], epochs=1)
    _train("cnn", replace(own, stages=(stage,)), pixels, folder)


def search_duplicates(pixels: np.ndarray, folder: Path) -> None:
    """Every image against every other; each round of the grown set is a near duplicate."""
    del folder
    from core.datasets.near_duplicates import find_duplicates

    find_duplicates(pixels, [str(number) for number in range(len(pixels))])


JOBS = {
    "frozen": Job(f"a frozen stage of {MODEL}, 2 epochs, 224 px", 224, train_frozen),
    "whole": Job("the whole cnn, 1 epoch, 112 px", 112, train_whole),
    "duplicates": Job("the search for duplicates, 224 px", 224, search_duplicates, flat=False),
}


def _train(name: str, recipe, pixels: np.ndarray, folder: Path) -> None:
    from core.backend import import_keras

    keras = import_keras()
    from core.models.architectures import build_model
    from core.training.data_loader import TrainingImages
    from core.training.feature_cache import FrozenStore
    from core.training.fit import FitTask, fit_model

    keras.utils.set_random_seed(0)
    model = build_model(name, recipe.image_size_px, 3, recipe.dropout)
    n = len(pixels)
    y = np.arange(n) % 3
    mixed, tenth = np.random.default_rng(0).permutation(n), n // 10
    train, val = (
        TrainingImages(pixels[:0], y[rows], np.sort(rows))
        for rows in (mixed[tenth:], mixed[:tenth])
    )
    store = FrozenStore(pixels, folder / "frozen", recipe, 0, name)
    fit_model(model, recipe, FitTask(train, val, 3, 0, name, store), folder / "fit")


def peak_bytes() -> int:
    """The highest resident memory of this process so far.

    Not getrusage's ru_maxrss where /proc is: Linux hands that one on through fork and exec, so that
    a process which a large one has started begins with the large one's figure.
    """
    status = Path("/proc/self/status")
    if status.exists():
        line = next(one for one in status.read_text().splitlines() if one.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _work(name: str, file: Path, n: int) -> dict[str, float]:
    """One of JOBS on the pixels in `file`; called in a process that does nothing else."""
    started = time.perf_counter()
    if name != "duplicates":
        from core.backend import import_keras

        import_keras()
    job = JOBS[name]
    pixels = np.memmap(file, np.uint8, "r", shape=(n, job.size_px, job.size_px))
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory(dir=file.parent) as folder:
        job.work(pixels, Path(folder))
    ended = time.perf_counter()
    return {
        "peak_mb": peak_bytes() / 1e6,
        "seconds": ended - begun,
        "wall_s": ended - started,
    }


def main() -> None:
    """What the child process does."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("n", type=int)
    parser.add_argument("job", choices=JOBS)
    args = parser.parse_args()
    print(json.dumps(_work(args.job, args.file, args.n)))


if __name__ == "__main__":
    main()
