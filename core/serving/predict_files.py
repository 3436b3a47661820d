"""Many files through the models: read and decode ahead, predict in batches, in input order."""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from core.files import shown_name
from core.imageio.decode import Decoded, ImageError, read_bytes
from core.imageio.sandbox import decode_safely
from core.imageio.zip_archive import MAX_ZIP_BYTES, is_zip, read_zip
from core.serving.predict import BATCH, ImagePrediction, Predictor

DECODERS = 2  # images decoded at once, beside the models
AHEAD = 2 * BATCH  # images decoded or on the way there while the models predict
# A batch ends before it would hold more than this, so that large images do not pile up.
BATCH_PIXELS = 64_000_000
ZIP_MAGIC = b"PK\x03\x04"


@dataclass(frozen=True)
class Source:
    """One thing to predict: `read` gives the file's bytes or raises ImageError."""

    name: str
    read: Callable[[], bytes]


@dataclass(frozen=True)
class UnpackedFile:
    """A file in memory, or why there is none (`problem`); archive: the zip that it was in."""

    name: str
    archive: str = ""
    data: bytes | None = None
    problem: str = ""


@dataclass(frozen=True)
class FilePrediction:
    """What came of one file: a prediction, or `error`, one sentence.

    sha256 of the file's bytes, None where they could not be read; decoded: the image, kept only
    as long as whoever reads this keeps it.
    """

    name: str
    sha256: str | None = None
    decoded: Decoded | None = None
    prediction: ImagePrediction | None = None
    error: str | None = None


def file_sources(paths: Iterable[Path]) -> Iterator[Source]:
    """Sources of files; a zip stands for the images in it, named "archive.zip/image.png"."""
    for path in paths:
        name = shown_name(path)
        try:
            data = _read(path)
        except ImageError as error:
            yield Source(name, _failing(str(error)))
            continue
        yield from bytes_sources([(name, data)])


def _read(path: Path) -> bytes:
    """A file's bytes; a zip may be larger than an image. Raises ImageError."""
    try:
        with path.open("rb") as file:
            if file.read(len(ZIP_MAGIC)) == ZIP_MAGIC and path.stat().st_size <= MAX_ZIP_BYTES:
                return path.read_bytes()
    except OSError:
        pass  # read_bytes says what is wrong
    return read_bytes(path)


def bytes_sources(files: Iterable[tuple[str, bytes]]) -> Iterator[Source]:
    """Sources of files that are in memory, zips unpacked one image after the other."""
    for file in unpack_files(files):
        name = f"{file.archive}/{file.name}" if file.archive else file.name
        read = _failing(file.problem) if file.data is None else partial(bytes, file.data)
        yield Source(name, read)


def unpack_files(files: Iterable[tuple[str, bytes]]) -> Iterator[UnpackedFile]:
    """Each file, or the files of a zip in its place, of which one at a time is unpacked."""
    for name, data in files:
        if not is_zip(data):
            yield UnpackedFile(name, data=data)
            continue
        try:
            for entry in read_zip(data):
                yield UnpackedFile(entry.name, name, entry.data, entry.problem or "")
        except ImageError as error:
            yield UnpackedFile(name, problem=str(error))


def predict_files(
    predictor: Predictor, sources: Iterable[Source], *, chosen: Sequence[str] | None = None
) -> Iterator[FilePrediction]:
    """Predictions in the order of `sources`, which is read only as far ahead as is decoded.

    Reading and decoding (core.imageio.sandbox) run beside the models, which predict in batches
    (core.serving.predict.BATCH). A file that cannot be used costs its own row and no other.
    """
    batch: list[FilePrediction] = []
    pixels = 0
    with ThreadPoolExecutor(DECODERS) as pool:
        for row in _decoded_ahead(pool, sources):
            batch.append(row)
            pixels += row.decoded.pixels.size if row.decoded is not None else 0
            if len(batch) >= BATCH or pixels >= BATCH_PIXELS:
                yield from _predict_batch(predictor, batch, chosen)
                batch, pixels = [], 0
        yield from _predict_batch(predictor, batch, chosen)


def _decoded_ahead(pool: ThreadPoolExecutor, sources: Iterable[Source]) -> Iterator[FilePrediction]:
    """Decoded rows in order, at most AHEAD of them waiting."""
    waiting: deque[Future] = deque()
    for source in sources:
        waiting.append(pool.submit(_decode, source))
        if len(waiting) > AHEAD:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _decode(source: Source) -> FilePrediction:
    digest = None
    try:
        data = source.read()
        digest = hashlib.sha256(data).hexdigest()
        return FilePrediction(source.name, digest, decode_safely(data))
    except ImageError as error:
        return FilePrediction(source.name, digest, error=str(error))


def _predict_batch(
    predictor: Predictor, batch: list[FilePrediction], chosen: Sequence[str] | None
) -> Iterator[FilePrediction]:
    decoded = [row.decoded for row in batch if row.decoded is not None]
    predictions = iter(predictor.predict_many(decoded, chosen=chosen)) if decoded else iter(())
    for row in batch:
        yield row if row.decoded is None else replace(row, prediction=next(predictions))


def _failing(sentence: str) -> Callable[[], bytes]:
    def read() -> bytes:
        raise ImageError(sentence)

    return read
