"""Decode images in processes of their own, each image with a time and a memory limit.

Workers are started with subprocess and spoken to over pipes (core/imageio/sandbox_worker.py), not
with multiprocessing: Streamlit replaces `__main__` by the page, which multiprocessing's "spawn"
would run again in every worker, and "fork" copies a server that has threads. They live on from
image to image, so that an image costs a copy over a pipe and not a start of Python.
"""

from __future__ import annotations

import atexit
import contextlib
import io
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import numpy as np

from core.imageio.picture import MAX_BYTES, MAX_PIXELS, MIN_SIDE_PX, Decoded, ImageError
from core.imageio.sandbox_worker import LENGTH, MAX_HEADER_BYTES, READY, read_exactly

N_WORKERS = 2
SECONDS_PER_IMAGE = 20.0
MEMORY_BYTES = 1536 * 1024 * 1024
# Sending, starting and waiting for others come on top of the image's own time.
START_SECONDS = 30.0
WAIT_SECONDS = 120.0
# A worker that holds more than this when it is done makes room for a fresh one.
MAX_RESIDENT_BYTES = 512 * 1024 * 1024
_ROOT = Path(__file__).resolve().parents[2]
_KEPT_VARIABLES = ("LD_LIBRARY_PATH", "SYSTEMROOT", "TZ")


class WorkerError(Exception):
    """The worker ended, or says what a worker never says; how, in a few words."""


class UnexpectedError(WorkerError):
    """Decoding raised another exception than ImageError, or made pixels of another kind."""


class _Worker:
    """One decoding process."""

    def __init__(self) -> None:
        environment = {name: os.environ[name] for name in _KEPT_VARIABLES if name in os.environ}
        environment |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "LC_ALL": "C.UTF-8"}
        self.process = subprocess.Popen(
            [
                *(sys.executable, "-s", "-B", "-m", "core.imageio.sandbox_worker"),
                *(str(MEMORY_BYTES), str(SECONDS_PER_IMAGE)),
            ],
            cwd=_ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        self._requests = cast(io.BufferedWriter, self.process.stdin)
        self._replies = cast(io.BufferedReader, self.process.stdout)
        with self._killed_after(START_SECONDS):
            try:
                if read_exactly(self._replies, len(READY)) != READY:
                    raise WorkerError("no greeting")
            except (EOFError, OSError, WorkerError) as error:
                self.end()
                raise WorkerError("it did not start") from error

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None

    def decode(self, data: bytes, seconds: float) -> tuple[dict, np.ndarray | None]:
        """The header that the worker sends, and pixels uint8 (height, width) unless it failed.

        Raises TimeoutError or WorkerError; the worker is gone after both.
        """
        killed = threading.Event()
        with self._killed_after(seconds, killed):
            try:
                return self._exchange(data)
            except (EOFError, OSError, ValueError, KeyError, WorkerError) as error:
                self.end()
                if killed.is_set():
                    raise TimeoutError from error
                if isinstance(error, UnexpectedError):
                    raise
                raise WorkerError(f"process ended by {self.process.returncode}") from error

    def _exchange(self, data: bytes) -> tuple[dict, np.ndarray | None]:
        self._requests.write(LENGTH.pack(len(data)))
        self._requests.write(data)
        self._requests.flush()
        (n_bytes,) = LENGTH.unpack(read_exactly(self._replies, LENGTH.size))
        if n_bytes > MAX_HEADER_BYTES:
            raise WorkerError("a header that is too long")
        header = json.loads(read_exactly(self._replies, n_bytes))
        if "unexpected" in header:
            raise UnexpectedError(str(header["unexpected"]))
        if "error" in header:
            return header, None
        width, height = int(header["width"]), int(header["height"])
        if min(width, height) < MIN_SIDE_PX or width * height > MAX_PIXELS:
            raise UnexpectedError(f"an image of {width}x{height} px")
        # Read into the array itself: a copy of a large image less.
        pixels = np.empty((height, width), np.uint8)
        view = pixels.data.cast("B")
        while view:
            n_read = self._replies.readinto(view)
            if not n_read:
                raise EOFError
            view = view[n_read:]
        return header, pixels

    @contextlib.contextmanager
    def _killed_after(
        self, seconds: float, killed: threading.Event | None = None
    ) -> Iterator[None]:
        def kill() -> None:
            if killed is not None:
                killed.set()
            self.process.kill()

        timer = threading.Timer(seconds, kill)
        timer.daemon = True
        timer.start()
        try:
            yield
        finally:
            timer.cancel()

    def end(self) -> None:
        """End the process at once and give its pipes back."""
        self.process.kill()
        for pipe in (self._requests, self._replies):
            with contextlib.suppress(OSError):
                pipe.close()
        self.process.wait()


class _Pool:
    """At most N_WORKERS workers; a thread has one to itself while its image is decoded."""

    def __init__(self) -> None:
        self._free = threading.Semaphore(N_WORKERS)
        self._lock = threading.Lock()
        self._idle: list[_Worker] = []
        self._all: set[_Worker] = set()
        self._generation = 0

    def decode(self, data: bytes) -> tuple[dict, np.ndarray | None]:
        if not self._free.acquire(timeout=WAIT_SECONDS):
            raise ImageError(
                f"Other pictures have kept the decoders busy for {WAIT_SECONDS:.0f} seconds; "
                "try again later."
            )
        try:
            worker, generation = self._take()
            header, pixels = worker.decode(data, SECONDS_PER_IMAGE)
            self._give_back(worker, generation, int(header.get("resident_bytes", 0)))
        finally:
            self._free.release()
        return header, pixels

    def _take(self) -> tuple[_Worker, int]:
        while True:
            with self._lock:
                generation = self._generation
                # The last one used first: what it has loaded is still in the caches.
                worker = self._idle.pop() if self._idle else None
            if worker is None:
                worker = _Worker()
                with self._lock:
                    self._all = {other for other in self._all if other.is_alive} | {worker}
                return worker, generation
            if worker.is_alive:
                return worker, generation
            worker.end()

    def _give_back(self, worker: _Worker, generation: int, resident_bytes: int) -> None:
        with self._lock:
            if generation == self._generation and resident_bytes <= MAX_RESIDENT_BYTES:
                self._idle.append(worker)
                return
            self._all.discard(worker)
        worker.end()

    def start(self) -> None:
        """Start a worker where none is idle, so that the first image need not wait for it."""
        if self._free.acquire(blocking=False):
            try:
                worker, generation = self._take()
                self._give_back(worker, generation, 0)
            finally:
                self._free.release()

    def processes(self) -> list[int]:
        with self._lock:
            return [worker.process.pid for worker in self._all if worker.is_alive]

    def close(self) -> None:
        with self._lock:
            workers, self._all, self._idle = self._all, set(), []
            self._generation += 1
        for worker in workers:
            worker.end()


_pool = _Pool()


def decode_safely(data: bytes) -> Decoded:
    """What core.imageio.decode.decode_image gives, decoded in a worker process. Raises ImageError.

    For bytes from strangers: a decoder that runs away, eats memory or crashes costs this one
    image a sentence and nobody else anything. Any number of threads may call it at once;
    N_WORKERS images are decoded at a time and the others wait.
    """
    if not 0 < len(data) <= MAX_BYTES:
        from core.imageio.decode import decode_image

        return decode_image(data)  # says so before it looks at anything
    started = time.monotonic()
    try:
        return decode_in_worker(data)
    except TimeoutError:
        raise ImageError(
            f"Decoding the picture took longer than {SECONDS_PER_IMAGE:.0f} seconds, which is the "
            "limit; save it anew or smaller."
        ) from None
    except (WorkerError, OSError):
        seconds = time.monotonic() - started
        raise ImageError(
            f"The process that decodes pictures ended over this one after {seconds:.1f} seconds "
            f"(its limits: {SECONDS_PER_IMAGE:.0f} seconds, {MEMORY_BYTES // 2**20:,} MiB of "
            "memory); try again, or save the picture anew."
        ) from None


def decode_in_worker(data: bytes) -> Decoded:
    """The same for those who want to know what happened to the worker, such as the fuzzer.

    Raises ImageError, TimeoutError, WorkerError, or OSError where no process can be started.
    """
    header, pixels = _pool.decode(data)
    if pixels is None:
        raise ImageError(str(header["error"]))
    return Decoded(
        pixels,
        int(header["width"]),
        int(header["height"]),
        str(header["format"]),
        str(header["mode"]),
        bool(header["synthetic"]),
        float(header["colourfulness"]),
        {str(key): str(value) for key, value in header["facts"].items()},
        tuple(str(tag) for tag in header["tags_read"]),
    )


def start_sandbox() -> None:
    """Start a worker now and in the background, so that the first image finds it ready."""
    threading.Thread(target=_start_quietly, daemon=True).start()


def _start_quietly() -> None:
    with contextlib.suppress(WorkerError, OSError):  # said where an image needs it
        _pool.start()


def worker_processes() -> list[int]:
    """The process ids of the workers that live now."""
    return _pool.processes()


def close_sandbox() -> None:
    """End all workers; the next image starts new ones."""
    _pool.close()


atexit.register(close_sandbox)
