"""How long live predictions take: one image, a zip; and what the loader was fed.

Images are the run's own test images where they are here, else drawn phantoms as PNG; every one
goes the whole way: bytes, decoding in the sandbox, all headline models, guard, heat maps.
"""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
import time
import zipfile

import numpy as np
from PIL import Image

from core.bench.measurement import (
    BenchError,
    Measured,
    Measurements,
    find_entry,
    last_line,
    run_python,
)
from core.config import data_root
from core.datasets.phantom.generate import class_names as phantom_classes
from core.datasets.phantom.generate import make_phantom
from core.datasets.registry import dataset_folder
from core.evaluation.audit.images import find_images
from core.imageio.decode import ImageError, decode_image, read_bytes
from core.imageio.sandbox import decode_safely
from core.inference.class_activation import class_heat, overlay
from core.runs import artifacts
from core.runs.run import Run
from core.serving.predict import Predictor, open_predictor, warm_up
from core.serving.predict_files import bytes_sources, predict_files
from core.timing import median_by_turns

ONE_BY_ONE = 200
ZIPPED = 500
FUZZED, FUZZ_SEED = 24_000, 0
PHANTOM_PX = 448
MAP_PX = 448
NO_RUN = "there is no run that answers; `make train-all` makes one"
FIRST = """
import json, sys, time
from core.bench.serving import predict_one, predictor_of
with open(sys.argv[2], "rb") as file:
    data = file.read()
predict_one(predictor_of(sys.argv[1]), data)
print(json.dumps(time.time()))
"""


def bench_live(run: str | None) -> Measurements:
    """From bytes to three predictions with maps, at the start and warm; what the sandbox costs."""
    predictor = _open(run)
    if predictor is None:
        yield Measured("live", "answers about one picture", None, 0.15, NO_RUN)
        return
    images, kind = load_images(predictor.run, ONE_BY_ONE)
    yield _first(predictor.run, images[0])
    warm_up(predictor)
    for data in images[:5]:
        predict_one(predictor, data)
    times = []
    for number in range(ONE_BY_ONE):
        started = time.perf_counter()
        predict_one(predictor, images[number % len(images)])
        times.append(time.perf_counter() - started)
    what = _what(predictor, f"{ONE_BY_ONE} {kind} one after the other")
    yield Measured("live", f"median, {what}", float(np.median(times)), 0.15)
    yield Measured("live", f"95th percentile, {what}", float(np.quantile(times, 0.95)), 0.30)
    data = images[0]
    apart, here = median_by_turns([lambda: decode_safely(data), lambda: decode_image(data)], 30)
    what = f"decoding in a process of its own beside decoding here, one of {kind}"
    note = f"{1000 * apart:.1f} ms against {1000 * here:.1f} ms"
    yield Measured("live", what, 1000 * (apart - here), 10.0, note, "ms")


def bench_zip(run: str | None) -> Measurements:
    """A zip of many images, without maps, as the table of the Predict page has it."""
    predictor = _open(run)
    if predictor is None:
        yield Measured("zip", "a zip of pictures", None, 15.0, NO_RUN, "pictures/s", True)
        return
    images, kind = load_images(predictor.run, ZIPPED)
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(ZIPPED):
            archive.writestr(f"{number:04d}", images[number % len(images)])
    warm_up(predictor)
    chosen = predictor.run.headline_models
    started = time.perf_counter()
    sources = bytes_sources([("bench.zip", packed.getvalue())])
    rows = list(predict_files(predictor, sources, chosen=chosen))
    seconds = time.perf_counter() - started
    failed = sum(row.prediction is None for row in rows)
    note = f"{failed} of {len(rows)} failed" if failed else ""
    what = _what(predictor, f"a zip of {len(rows)} {kind}")
    yield Measured("zip", what, len(rows) / seconds, 15.0, note, "pictures/s", True)


def bench_fuzz(run: str | None) -> Measurements:
    """Mutations of real files of every format: what the loader was fed, and what went wrong."""
    del run
    try:
        from core.bench.fuzz import run_fuzz

        result = run_fuzz(FUZZED, FUZZ_SEED)
    except ModuleNotFoundError as error:
        note = f"{error.name} is not installed; `make test` installs it"
        yield Measured("fuzz", "inputs tried", None, 20_000, note, "inputs", True)
        return
    formats = ", ".join(f"{name} {n:,}" for name, n in result.by_format.items())
    note = (
        f"seed {FUZZ_SEED}; {result.accepted:,} read, {result.refused:,} refused in a sentence; "
        f"{formats}"
    )
    yield Measured("fuzz", "inputs tried", result.tried, 20_000, note, "inputs", True)
    wrong = [*result.wrong, *result.crashed]
    what = "errors other than the loader's own, and crashes"
    yield Measured("fuzz", what, len(wrong), 0, "; ".join(wrong[:1]), "inputs")


def predictor_of(name: str | None) -> Predictor:
    """The models of a run, opened. Raises BenchError or ArtifactError."""
    entry = find_entry(name)
    if entry is None:
        raise BenchError(f"{NO_RUN[0].upper()}{NO_RUN[1:]}.")
    return open_predictor(artifacts.open_run(entry.path))


def predict_one(predictor: Predictor, data: bytes) -> None:
    """All that a person gets: decoded in the sandbox, predicted, a map drawn for each model."""
    decoded = decode_safely(data)
    answer = predictor.predict(decoded, chosen=predictor.run.headline_models)
    names = list(answer.class_names)
    shown = np.array(Image.fromarray(decoded.pixels).resize((MAP_PX, MAP_PX)))
    for own in answer.predictions:
        if own.class_maps is not None:
            overlay(shown, class_heat(own.class_maps, names.index(own.predicted)), 0.5)


def load_images(run: Run, n: int) -> tuple[list[bytes], str]:
    """Files' bytes of up to n of the run's images, test images first, and what they are."""
    manifest = artifacts.load_manifest(run)
    found = find_images(manifest, dataset_folder(run.info["dataset"]["name"], data_root()))
    order = manifest.assign(later=manifest["split"] != "test").sort_values("later", kind="stable")
    images: list[bytes] = []
    for path in (found.get(image_id) for image_id in order["image_id"]):
        if path and len(images) < n:
            with contextlib.suppress(ImageError):  # an image that is gone is no matter of speed
                images.append(read_bytes(path))
    if images:
        return images, f"images of {run.info['dataset']['name']}"
    drawn = []
    for seed in range(min(n, 30)):
        buffer = io.BytesIO()
        label = phantom_classes[seed % len(phantom_classes)]
        Image.fromarray(make_phantom(label, seed, PHANTOM_PX).pixels).save(buffer, "PNG")
        drawn.append(buffer.getvalue())
    return drawn, "drawn phantoms"


def _open(run: str | None) -> Predictor | None:
    try:
        return predictor_of(run) if find_entry(run) else None
    except artifacts.ArtifactError:
        return None  # a run without its model files predicts nothing


def _first(run: Run, data: bytes) -> Measured:
    """The first answer of a new process, its start and all loading included."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        started = time.time()
        done = run_python("-c", FIRST, run.name, file.name)
    what = f"first answer of a new process, its start included, {run.name}"
    if done.returncode:
        return Measured("live", what, None, 3.0, last_line(done.stderr))
    return Measured("live", what, json.loads(done.stdout) - started, 3.0)


def _what(predictor: Predictor, what: str) -> str:
    chosen = [m for m in predictor.run.headline_models if m in predictor.models]
    guard = "guard" if predictor.guard else "no guard"
    precision = next(iter(predictor.models.values())).precision
    return f"{what}, {len(chosen)} models of {predictor.run.name} at {precision}, {guard}"
