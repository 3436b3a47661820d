"""Whether memory stays flat and time linear when the data set grows tenfold.

The grown set is a real file of memory-mapped pixels: pictures of the task, each altered a little,
over and over. Every measurement is a process of its own, whose highest resident memory (peak RSS,
as the kernel counts it, pages of mapped files included) is read at its end.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from core.cache import build_pixel_cache
from core.console import say
from core.measuring import Measured, Measurements

SIZES = (1_710, 17_099)
SIZE_PX = 224
LIMIT_MB = 2_000  # as the demand says it: 2 GB
EPOCHS = 2
MODEL = "mobilenetv2"


def bench_memory(run: str | None) -> Measurements:
    """Peak memory and time an image of a frozen stage, at n images and at ten times as many."""
    del run
    with tempfile.TemporaryDirectory() as folder:
        found = [measure(n, Path(folder)) for n in SIZES]
    what = f"a frozen stage of {MODEL}, {EPOCHS} epochs, {SIZE_PX} px"
    for n, one in zip(SIZES, found, strict=True):
        limit = LIMIT_MB if n == max(SIZES) else None
        note = f"{one['seconds']:.0f} s, {1000 * one['seconds'] / n:.2f} ms an image"
        yield Measured(
            "memory", f"peak RSS, {what}, {n:,} images", one["peak_mb"], limit, note, "MB"
        )
    few, many = found
    yield Measured(
        "memory", f"peak RSS of {SIZES[1]:,} images against {SIZES[0]:,}, {what}",
        many["peak_mb"] / few["peak_mb"], 1.1, unit="x",
    )  # fmt: skip
    yield Measured(
        "memory", f"time an image of {SIZES[1]:,} images against {SIZES[0]:,}, {what}",
        (many["seconds"] / SIZES[1]) / (few["seconds"] / SIZES[0]), 1.1,
        f"files read, start of the process included: {many['wall_s']:.0f} s", "x",
    )  # fmt: skip


def measure(n: int, folder: Path) -> dict[str, float]:
    """{peak_mb, seconds, wall_s} of a frozen stage on n images, in a process of its own."""
    pixels = folder / f"pixels-{n}.u8"
    say(f"  {n:,} images: writing their pixels ...")
    grow_pixels(pixels, n, folder)
    say(f"  {n:,} images: a frozen stage ...")
    try:
        done = subprocess.run(
            [sys.executable, "-m", "core.bench_memory", str(pixels), str(n)],
            capture_output=True, text=True, env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        )  # fmt: skip
    finally:
        pixels.unlink()
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no reason given"])[-1])
    return json.loads(done.stdout.strip().splitlines()[-1])


def grow_pixels(file: Path, n: int, folder: Path) -> None:
    """Write n uint8 images of SIZE_PX: the task's, each time with another brightness."""
    from core.bench_training import open_task

    with open_task(folder) as task:
        cache = build_pixel_cache(task.table, task.root, folder / "cache", [SIZE_PX])
        pixels = cache.pixels(SIZE_PX)
        with open(file, "wb") as target:
            for row in range(n):
                number, time = row % len(pixels), row // len(pixels)
                target.write(np.clip(pixels[number].astype("int16") + time, 0, 255).astype("uint8"))


def draw_growth(found: dict[int, dict[str, float]]) -> str:
    """An SVG: peak memory and time against the number of images, both measured points joined.

    found: {n: {peak_mb, seconds}}. The straight line through zero is what linear time would be.
    """
    most = max(found)
    seconds = max(one["seconds"] for one in found.values()) * 1.1
    panels = [
        ("peak memory, MB (limit: 2,000)", "peak_mb", LIMIT_MB * 1.1, LIMIT_MB),
        ("time, s (dashed: in proportion)", "seconds", seconds, None),
    ]
    lines = [
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 280" font-family="sans-serif" '
        'font-size="12" role="img">',
        "<title>Peak memory and time of a frozen stage against the number of images</title>",
        '<rect width="720" height="280" fill="white"/>',
    ]
    for index, (title, key, top, limit) in enumerate(panels):
        left = 60 + 360 * index

        def place(
            n: float, value: float, left: int = left, top: float = top
        ) -> tuple[float, float]:
            return left + 260 * n / most, 230 - 180 * value / top

        points = [(n, *place(n, one[key])) for n, one in sorted(found.items())]
        dashed = [place(0, limit), place(most, limit)] if limit else None
        if limit is None:
            first = min(found)
            rate = found[first][key] / first
            dashed = [place(0, 0), place(most, rate * most)]
        lines += [
            f'<text x="{left}" y="30" font-weight="bold">{title}</text>',
            f'<path d="M{left} 50V230H{left + 270}" fill="none" stroke="#444"/>',
            "<path d=\"M{:.1f} {:.1f}L{:.1f} {:.1f}\" stroke=\"#a33\" "
            "stroke-dasharray=\"5 4\"/>".format(*dashed[0], *dashed[1]),
            '<polyline fill="none" stroke="#136" stroke-width="2" points="'
            + " ".join(f"{x:.1f},{y:.1f}" for _, x, y in points) + '"/>',
        ]  # fmt: skip
        for n, x, y in points:
            lines.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#136"/>')
            lines.append(f'<text x="{x - 4:.1f}" y="{y - 9:.1f}">{found[n][key]:,.0f}</text>')
            lines.append(f'<text x="{x - 12:.1f}" y="247">{n:,}</text>')
        lines.append(f'<text x="{left + 110}" y="268">images</text>')
    return "\n".join([*lines, "</svg>"]) + "\n"


def train_frozen(file: Path, n: int, work: Path) -> dict[str, float]:
    """A frozen stage on the pixels in `file`; called in a process that does nothing else."""
    import resource
    import time

    started = time.perf_counter()
    from core.backend import import_keras

    keras = import_keras()
    from core.batches import Images
    from core.fitting import fit_model
    from core.frozen import FrozenStore
    from core.models import build_model
    from core.recipes import Recipe, Stage

    keras.utils.set_random_seed(0)
    recipe = Recipe(SIZE_PX, (Stage("head", EPOCHS, 1e-3, cut="features", views=1),))
    model = build_model(MODEL, SIZE_PX, 3, recipe.dropout)
    pixels = np.memmap(file, np.uint8, "r", shape=(n, SIZE_PX, SIZE_PX))
    y = np.arange(n) % 3
    mixed, tenth = np.random.default_rng(0).permutation(n), n // 10
    parts = [Images(pixels[:0], y[r], np.sort(r)) for r in (mixed[tenth:], mixed[:tenth])]
    begun = time.perf_counter()
    store = FrozenStore(pixels, work / "frozen", recipe, 0, MODEL)
    fit_model(model, recipe, *parts, 3, work / "fit", seed=0, title=MODEL, store=store)
    ended = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {
        "peak_mb": peak * 1024 / 1e6,  # Linux counts kibibytes
        "seconds": ended - begun,
        "wall_s": ended - started,
    }


def main() -> None:
    """FILE N: what the child process does. --plot SVG: measure and draw, for the documentation."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("file", type=Path, nargs="?")
    parser.add_argument("n", type=int, nargs="?")
    parser.add_argument("--plot", type=Path, metavar="SVG")
    args = parser.parse_args()
    if args.plot:
        with tempfile.TemporaryDirectory() as folder:
            found = {n: measure(n, Path(folder)) for n in SIZES}
        args.plot.write_text(draw_growth(found), encoding="utf-8")
        print(json.dumps(found))
        return
    work = Path(tempfile.mkdtemp(dir=args.file.parent))
    try:
        print(json.dumps(train_frozen(args.file, args.n, work)))
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
