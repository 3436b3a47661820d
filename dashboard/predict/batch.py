"""Many pictures asked about in the background: files and zips in, a row each out. No Streamlit.

A batch lives as long as somebody looks at it: a page polls it, and when nobody did for PATIENCE_S
its thread stops by itself. What was uploaded is let go of as it is read; kept are thumbnails,
answers and, up to MAX_KEPT_BYTES for all viewers together, pixels to look at one picture alone.

Zips are unpacked by core.serving.predict_files. Its decoding ahead is not used: it has no way to
stop in the middle, bounds memory by pixels instead of bytes unpacked, and keeps large images
waiting that a batch predicts where they are decoded.
"""

from __future__ import annotations

import base64
import io
import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from core.datasets.phantom.generate import label_synthetic
from core.imageio.decode import Decoded, ImageError
from core.imageio.file_type import find_zip_end
from core.imageio.sandbox import decode_safely
from core.imageio.zip_archive import MAX_ENTRIES, is_zip
from core.serving.predict import BATCH, ImagePrediction, Predictor
from core.serving.predict_files import unpack_files

DECODERS = 2
READ_AT_ONCE = 16  # while the models are asked about as many before them
MAX_FILES = MAX_ENTRIES  # at once, those inside of zips included
# A browser wakes the clock of a hidden tab only once a minute.
PATIENCE_S = 90.0
MAX_KEPT_BYTES = 200 * 2**20
# So that no more than two large pictures are in memory: they are asked about alone, where they are
# decoded, and do not wait for others.
LARGE_PIXELS = 4_000_000
CHUNK_BYTES = 32 * 2**20  # of files unpacked ahead
THUMBNAIL_PX = 96
RUNNING, DONE, CANCELLED, LEFT, FAILED = "running", "done", "cancelled", "left", "failed"

_log = logging.getLogger(__name__)
_lock = threading.Lock()
_batches: weakref.WeakSet[Batch] = weakref.WeakSet()

Decode = Callable[[bytes], Decoded]


class Turns:
    """A lock that is given in the order in which it was asked for, so that no batch waits long."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._next, self._served = 0, 0

    def __enter__(self) -> None:
        with self._changed:
            mine, self._next = self._next, self._next + 1
            self._changed.wait_for(lambda: self._served == mine)

    def __exit__(self, *_) -> None:
        with self._changed:
            self._served += 1
            self._changed.notify_all()


# One batch asks at a time: each would take the memory of a network's layers once more.
_turns = Turns()


@dataclass(frozen=True)
class BatchRow:
    """One file: its answer, or in one sentence why there is none.

    number: from 1, in the order of the files. archive: the zip that it was in. thumbnail: a data
    address. width, height: the picture's own, in px.
    """

    number: int
    name: str
    archive: str = ""
    problem: str = ""
    answer: ImagePrediction | None = None
    thumbnail: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    synthetic: bool = False

    @property
    def refused(self) -> bool:
        """Whether the guard says that this is another kind of picture."""
        return self.answer is not None and self.answer.refused


@dataclass(frozen=True)
class BatchProgress:
    """How far a batch is. n: files expected; while zips are still closed their own word for it."""

    state: str
    n: int
    done: int
    seconds: float
    doing: str = ""

    @property
    def rate(self) -> float:
        """Files a second so far."""
        return self.done / self.seconds if self.seconds > 0 else 0.0

    @property
    def left_s(self) -> float | None:
        """Seconds that the rest will take at this rate; None before the first file."""
        return (self.n - self.done) / self.rate if self.done else None


class Batch:
    """Files that a thread of its own asks all models about, in chunks, others in between.

    rows and progress() may be read at any time; progress() also says that somebody still looks.
    """

    def __init__(
        self,
        predictor: Predictor,
        files: Sequence[tuple[str, bytes]],
        chosen: Sequence[str] | None = None,
        *,
        decode: Decode = decode_safely,
        patience_s: float = PATIENCE_S,
    ) -> None:
        self.predictor = predictor
        self.notes: list[str] = []
        self._chosen, self._decode, self._patience_s = chosen, decode, patience_s
        self._files = deque(files)
        self._expected = sum(_count_files(data) for _, data in files)
        self._rows: list[BatchRow] = []
        self._kept: dict[int, Decoded] = {}
        self.kept_bytes, self._closed = 0, False
        self._state, self._doing = RUNNING, "Reading the files"
        self._stop = threading.Event()
        self._started = self._polled = time.monotonic()
        self._ended: float | None = None
        self._thread = threading.Thread(target=self._run, name="batch", daemon=True)
        with _lock:
            _batches.add(self)

    def start(self) -> None:
        self._thread.start()

    @property
    def rows(self) -> tuple[BatchRow, ...]:
        """The rows so far, in the order of the files."""
        return tuple(self._rows)

    def progress(self) -> BatchProgress:
        """How far it is; the thread goes on only as long as this is called now and then."""
        self._polled = time.monotonic()
        done, ended = len(self._rows), self._ended
        seconds = (time.monotonic() if ended is None else ended) - self._started
        n = max(done, self._expected) if self._state == RUNNING else done + self._n_left
        return BatchProgress(self._state, n, done, seconds, self._doing)

    def picture(self, number: int) -> Decoded | None:
        """One row's pixels, None where there was no room to keep them."""
        return self._kept.get(number)

    def cancel(self) -> None:
        """Stop after what is being asked now; the rows so far stay."""
        self._finish(CANCELLED)

    def close(self) -> None:
        """Stop, and let go of everything."""
        self.cancel()
        with _lock:
            self._kept.clear()
            self.kept_bytes, self._closed = 0, True
        self._rows = []

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the thread's end; whether it has ended."""
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    # --------------------------------------------------------------------------- the thread

    @property
    def _n_left(self) -> int:
        """Files that a batch which was stopped did not come to."""
        return 0 if self._state == DONE else max(0, self._expected - len(self._rows))

    def _run(self) -> None:
        try:
            files = self._numbered()
            with ThreadPoolExecutor(DECODERS, thread_name_prefix="batch-decode") as pool:
                ahead = self._submit(pool, files)
                while ahead:
                    read = [future.result() for future in ahead]
                    if self._stopped():
                        break
                    # The next files are decoded while the models are asked about these.
                    ahead = self._submit(pool, files)
                    self._add_rows(read)
            self._finish(DONE)
        except Exception:  # a page would wait for ever for a thread that died without a word
            _log.exception("A batch of pictures failed.")
            self._finish(FAILED)
        finally:
            self._files.clear()

    def _stopped(self) -> bool:
        if time.monotonic() - self._polled > self._patience_s:
            self._finish(LEFT)
        return self._stop.is_set()

    def _finish(self, state: str) -> None:
        with _lock:
            if self._state == RUNNING:
                self._state, self._ended = state, time.monotonic()
            self._stop.set()

    def _taken(self) -> Iterator[tuple[str, bytes]]:
        """The files as they were dropped, each let go of as the next is taken."""
        while self._files:
            yield self._files.popleft()

    def _numbered(self) -> Iterator[tuple[BatchRow, bytes | None]]:
        """The files, each with a row that is still empty; at most MAX_FILES."""
        for number, file in enumerate(unpack_files(self._taken()), start=1):
            if number > MAX_FILES:
                self.notes.append(
                    f"Only the first {MAX_FILES} files were looked at, which is the most at once; "
                    f"drop the rest, from {file.name} on, after them."
                )
                return
            yield BatchRow(number, file.name, file.archive, file.problem), file.data

    def _submit(self, pool: ThreadPoolExecutor, files: Iterator) -> list[Future]:
        """The next chunk on its way to the decoding threads; [] at the end."""
        chunk: list[Future] = []
        n_bytes = 0
        while len(chunk) < READ_AT_ONCE and n_bytes < CHUNK_BYTES and not self._stop.is_set():
            row, data = next(files, (None, None))
            if row is None:
                break
            n_bytes += len(data or b"")
            chunk.append(pool.submit(self._read, row, data))
        return chunk

    def _read(self, row: BatchRow, data: bytes | None) -> tuple[BatchRow, Decoded | None]:
        """Decode one file; its picture is given back where the models are still to be asked."""
        if data is None or self._stop.is_set():
            return row, None
        try:
            decoded = self._decode(data)
        except ImageError as error:
            return replace(row, problem=str(error)), None
        row = replace(
            row,
            thumbnail=make_thumbnail(decoded),
            width=decoded.width,
            height=decoded.height,
            format=decoded.format,
            synthetic=decoded.synthetic,
        )
        if decoded.pixels.size <= LARGE_PIXELS:
            return row, decoded
        answer = self._predict([decoded])[0]
        self._keep(row.number, decoded)
        return replace(row, answer=answer), None

    def _add_rows(self, read: Sequence[tuple[BatchRow, Decoded | None]]) -> None:
        """Ask all models about a chunk, a few at once, and add its rows."""
        for start in range(0, len(read), BATCH):
            if self._stopped():
                return
            part = read[start : start + BATCH]
            first, last = part[0][0].number, part[-1][0].number
            self._doing = f"Asking the models about files {first} to {last}"
            answers = iter(self._predict([decoded for _, decoded in part if decoded is not None]))
            for row, decoded in part:
                if decoded is None:
                    self._rows.append(row)
                    continue
                self._keep(row.number, decoded)
                self._rows.append(replace(row, answer=next(answers)))

    def _predict(self, images: Sequence[Decoded]) -> list[ImagePrediction]:
        if not images:
            return []
        with _turns:
            return self.predictor.predict_many(images, chosen=self._chosen)

    def _keep(self, number: int, decoded: Decoded) -> None:
        with _lock:
            kept = sum(batch.kept_bytes for batch in _batches)
            if kept + decoded.pixels.nbytes <= MAX_KEPT_BYTES and not self._closed:
                self._kept[number] = decoded
                self.kept_bytes += decoded.pixels.nbytes


def start_batch(
    predictor: Predictor,
    files: Sequence[tuple[str, bytes]],
    chosen: Sequence[str] | None = None,
) -> Batch:
    """Begin to ask about files, (name, bytes) each; zips are unpacked.

    chosen: as in Answerer.predict_many. The caller lets go of the bytes.
    """
    batch = Batch(predictor, files, chosen)
    batch.start()
    return batch


def make_thumbnail(decoded: Decoded) -> str:
    """A small JPEG of the picture as a data address; a drawn phantom's says so."""
    picture = Image.fromarray(decoded.pixels)
    picture.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.BILINEAR, reducing_gap=2.0)
    if decoded.synthetic:
        picture = Image.fromarray(label_synthetic(np.asarray(picture)))
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=75)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"


def _count_files(data: bytes) -> int:
    """How many files a dropped one holds: 1, or what a zip's last record says, at most MAX_FILES.

    Only for the progress bar, so a zip that lies or is damaged costs nothing.
    """
    at = find_zip_end(data) if is_zip(data) else None
    if at is None:
        return 1
    return min(max(1, int.from_bytes(data[at + 10 : at + 12], "little")), MAX_FILES)
