"""One recorded file over HTTP: tried again after a passing fault, checked before it is named.

pooch does the HTTP only. Its own fetch (pooch.create) would be worse here: it knows no git hashes,
asks again for what is not there, waits whole seconds that Ctrl-C does not end, and a killed one
leaves files of made-up names among the images.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import BinaryIO
from urllib.parse import quote

from core.datasets.checksums import Record, git_blob_sha1
from core.datasets.registry import DatasetError

MAX_FILE_BYTES = 64 * 2**20


class UnreachableError(Exception):
    """No answer, or one that broke off: worth another try. answered: some server was there."""

    def __init__(self, message: str, *, answered: bool = False) -> None:
        super().__init__(message)
        self.answered = answered


class NotServedError(Exception):
    """The server answered, but not with the right file."""


@dataclass(frozen=True)
class FetchOptions:
    """How to download: files at once, tries after the first, waits (doubled each time), a bar."""

    threads: int = 6
    retries: int = 3
    backoff_s: float = 0.5
    timeout_s: float = 20.0
    progress: bool = True


@dataclass
class Download:
    """The state that the threads of one download share."""

    base_urls: Sequence[str]
    options: FetchOptions
    stop: threading.Event = field(default_factory=threading.Event)
    base: int = 0
    received_bytes: int = 0


def fetch_file(job: Download, record: Record, target: Path) -> None:
    """One file into its place, by way of a hidden file beside it that is checked first."""
    part = target.with_name(f".{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    problem: Exception = UnreachableError("stopped")
    try:
        for attempt in range(job.options.retries + 1):
            if attempt and job.stop.wait(job.options.backoff_s * 2 ** (attempt - 1)):
                break
            if job.stop.is_set():
                break
            try:
                _get(job, record, part)
            except UnreachableError as error:
                problem = error
                continue
            if git_blob_sha1(part) == record.git_blob:
                part.replace(target)
                return
            # Worth another try: a cut connection can look like the end of the file.
            problem = NotServedError("not the recorded file (its hash differs)")
        raise problem
    finally:
        part.unlink(missing_ok=True)


def _get(job: Download, record: Record, part: Path) -> None:
    """The file's bytes from the first base that has it, unchecked, into part."""
    pooch, requests = _import_pooch()
    downloader = pooch.HTTPDownloader(chunk_size=1 << 16, timeout=(5.0, job.options.timeout_s))
    status = None
    first = job.base
    for step in range(len(job.base_urls)):
        base = (first + step) % len(job.base_urls)
        url = f"{job.base_urls[base].rstrip('/')}/{quote(record.url_path)}"
        try:
            with part.open("wb") as handle:
                downloader(url, _Sink(handle, job), None)
                handle.flush()
                os.fsync(handle.fileno())
            job.base = base
            return
        except requests.HTTPError as error:
            status = error.response.status_code
            if status == 429 or status >= 500:
                raise UnreachableError(f"status {status}", answered=True) from None
        except requests.RequestException as error:
            broken = isinstance(error, requests.exceptions.ChunkedEncodingError)
            answered = broken or part.stat().st_size > 0
            raise UnreachableError(_reason(error), answered=answered) from None
    raise NotServedError(f"not on the server (status {status})")


class _Sink:
    """A file that counts what it gets, and refuses what no image of the set comes near."""

    def __init__(self, handle: BinaryIO, job: Download) -> None:
        self.handle, self.job, self.size = handle, job, 0

    def write(self, data: bytes) -> None:
        if self.job.stop.is_set():
            raise UnreachableError("stopped")
        self.size += len(data)
        if self.size > MAX_FILE_BYTES:
            raise NotServedError(f"larger than {MAX_FILE_BYTES // 2**20} MiB")
        self.handle.write(data)
        self.job.received_bytes += len(data)

    def flush(self) -> None:
        """pooch flushes after each chunk; the file is flushed once, at its end."""


def _reason(error: Exception) -> str:
    """A few plain words for an error of requests."""
    requests = _import_pooch()[1]
    if isinstance(error, requests.Timeout):
        return "no answer in time"
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "the connection broke off"
    text = str(error)
    for sign, words in (
        ("NameResolutionError", "its name is not found"),
        ("Name or service", "its name is not found"),
        ("refused", "connection refused"),
        ("unreachable", "network unreachable"),
        ("RemoteDisconnected", "the connection broke off"),
        ("reset by peer", "the connection broke off"),
    ):
        if sign in text:
            return words
    return type(error).__name__


def _import_pooch() -> tuple[ModuleType, ModuleType]:
    try:
        import pooch
        import requests
    except ImportError:
        raise DatasetError(
            "Downloading needs the packages pooch and requests: run `make setup` and try again."
        ) from None
    return pooch, requests
