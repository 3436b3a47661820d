"""One recorded file over HTTP: tried again after a passing fault, checked before it is named."""

from __future__ import annotations

import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from core.datasets.checksums import Record, git_blob_sha1
from core.datasets.registry import DatasetError

MAX_FILE_BYTES = 64 * 2**20


class Unreachable(Exception):
    """No answer, or one that broke off: worth another try. answered: some server was there."""

    def __init__(self, message: str, *, answered: bool = False) -> None:
        super().__init__(message)
        self.answered = answered


class NotServed(Exception):
    """The server answered, but not with the right file."""


@dataclass
class Download:
    """The state that the threads of one download share."""

    base_urls: Sequence[str]
    retries: int
    backoff_s: float
    timeout_s: float
    stop: threading.Event = field(default_factory=threading.Event)
    base: int = 0
    received_bytes: int = 0


def fetch_file(job: Download, record: Record, target: Path) -> None:
    """One file into its place, by way of a hidden file beside it that is checked first."""
    part = target.with_name(f".{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    problem: Exception = Unreachable("stopped")
    try:
        for attempt in range(job.retries + 1):
            if attempt and job.stop.wait(job.backoff_s * 2 ** (attempt - 1)):
                break
            if job.stop.is_set():
                break
            try:
                _get(job, record, part)
            except Unreachable as error:
                problem = error
                continue
            if git_blob_sha1(part) == record.git_blob:
                part.replace(target)
                return
            # Worth another try: a cut connection can look like the end of the file.
            problem = NotServed("not the recorded file (its hash differs)")
        raise problem
    finally:
        part.unlink(missing_ok=True)


def _get(job: Download, record: Record, part: Path) -> None:
    """The file's bytes from the first base that has it, unchecked, into part."""
    pooch, requests = _import_pooch()
    downloader = pooch.HTTPDownloader(chunk_size=1 << 16, timeout=(5.0, job.timeout_s))
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
                raise Unreachable(f"status {status}", answered=True) from None
        except requests.RequestException as error:
            broken = isinstance(error, requests.exceptions.ChunkedEncodingError)
            answered = broken or part.stat().st_size > 0
            raise Unreachable(_reason(error), answered=answered) from None
    raise NotServed(f"not on the server (status {status})")


class _Sink:
    """A file that counts what it gets, and refuses what no picture of the set comes near."""

    def __init__(self, handle, job: Download) -> None:
        self.handle, self.job, self.size = handle, job, 0

    def write(self, data: bytes) -> None:
        if self.job.stop.is_set():
            raise Unreachable("stopped")
        self.size += len(data)
        if self.size > MAX_FILE_BYTES:
            raise NotServed(f"larger than {MAX_FILE_BYTES // 2**20} MiB")
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


def _import_pooch():
    try:
        import pooch
        import requests
    except ImportError:
        raise DatasetError(
            "Downloading needs the packages pooch and requests: run `make setup` and try again."
        ) from None
    return pooch, requests
