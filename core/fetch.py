"""Download a known data set: whole or not at all, every file checked, resumed where it broke off.

Files arrive in `<name>.part/` beside the place where they belong, and the folder gets its name
only when it is complete, so nobody trains on half a data set without noticing.
"""

from __future__ import annotations

import contextlib
import csv
import hashlib
import os
import shutil
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlsplit

from core.datasets import KNOWN, SOURCES, DatasetError, find_image

REPOSITORY_URL = "https://raw.githubusercontent.com/muhammedtalo/COVID-19"
# The commit that the list was recorded from, then the branch, should the server refuse the
# abbreviated commit. Which of them answers is no matter of trust: the recorded hash decides.
REVISIONS = ("ee3e2cff", "master")
LEFT_OUT = ("Covid-19/covid-19-pneumonia-14-PA.png",)
KAGGLE_HANDLE = "khoongweihao/covid19-xray-dataset-train-test-sets"
MAX_FILE_BYTES = 64 * 2**20
_METADATA_LEFT_OUT = ("git_blob", "image_id")


class IncompleteError(DatasetError):
    """Some files could not be had; path is the folder that holds the others, failed names them."""

    def __init__(self, message: str, path: Path, failed: dict[str, str]) -> None:
        super().__init__(message)
        self.path, self.failed = path, failed


class _Unreachable(Exception):
    """No answer, or one that broke off: worth another try. answered: some server was there."""

    def __init__(self, message: str, *, answered: bool = False) -> None:
        super().__init__(message)
        self.answered = answered


class _NotServed(Exception):
    """The server answered, but not with the right file."""


class Progress(Protocol):
    """What the downloader tells about its progress; tqdm's interface."""

    def update(self, n: int) -> object: ...
    def set_postfix_str(self, s: str) -> object: ...
    def close(self) -> object: ...


@dataclass(frozen=True)
class Record:
    """One recorded file: git_blob (hex), url_path in the repository, path below the root."""

    git_blob: str
    url_path: str
    path: str
    image_id: str
    metadata: dict[str, str]


@dataclass
class _Download:
    """The state that the threads of one download share."""

    base_urls: Sequence[str]
    retries: int
    backoff_s: float
    timeout_s: float
    stop: threading.Event = field(default_factory=threading.Event)
    base: int = 0
    received_bytes: int = 0


def fetch_dataset(
    name: str,
    data_root: str | Path,
    base_url: str | None = None,
    *,
    records_csv: str | Path | None = None,
    threads: int = 6,
    retries: int = 3,
    backoff_s: float = 0.5,
    timeout_s: float = 20.0,
    progress: bool = True,
) -> Path:
    """Fetch a known data set into `data_root/name` and return that folder.

    base_url: a mirror laid out as the published repository; records_csv: another list of files
    (columns git_blob, path, image_id, then metadata). A download that is complete already costs
    one reading of its files. Raises DatasetError (one sentence) where nothing can be had, and
    IncompleteError where the server answered but some files are missing or not the recorded ones.
    """
    data_root = Path(data_root)
    if name == "darkcovidnet":
        records = read_records(records_csv or SOURCES / "darkcovidnet.csv")
        base_urls = [base_url] if base_url else [f"{REPOSITORY_URL}/{rev}" for rev in REVISIONS]
        job = _Download(base_urls, retries, backoff_s, timeout_s)
        return _fetch_recorded(name, data_root, records, job, threads, progress)
    if name == "kaggle-covid19-xray":
        return _fetch_kaggle(name, data_root)
    if name == "phantom":
        from core.phantom import PhantomError, write_phantoms

        try:
            return write_phantoms(data_root / name)
        except PhantomError as error:
            raise DatasetError(str(error)) from None
    if name in KNOWN:
        raise DatasetError(f"Data set {name} cannot be downloaded: {KNOWN[name].how_to_get}.")
    raise DatasetError(f"Unknown data set {name!r}: expected one of {', '.join(KNOWN)}.")


def read_records(path: str | Path) -> list[Record]:
    """The recorded files of a data set (see core/sources/README.md)."""
    with Path(path).open(encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle))
    records = []
    for row in rows:
        suffix = Path(row["path"]).suffix
        path_below = row["image_id"] + suffix
        further = {k: v for k, v in row.items() if k not in (*_METADATA_LEFT_OUT, "path")}
        metadata = {"path": path_below, **further}
        records.append(Record(row["git_blob"], row["path"], path_below, row["image_id"], metadata))
    return records


def git_blob_sha1(path: Path) -> str:
    """SHA-1 of a file as git stores it: over `blob <length>`, a zero byte, and the bytes."""
    size = path.stat().st_size
    digest = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    with path.open("rb") as handle:
        for chunk in iter(lambda: handle.read(1 << 20), b""):
            digest.update(chunk)
    return digest.hexdigest()


def check_recorded(root: Path, records: Sequence[Record]) -> tuple[list[Record], list[Record]]:
    """The records whose file is missing below root, and those whose bytes are not the recorded."""
    missing, wrong = [], []
    for record in records:
        file = root / record.path
        if not file.is_file():
            missing.append(record)
        elif git_blob_sha1(file) != record.git_blob:
            wrong.append(record)
    return missing, wrong


def other_copy(root: Path, records: Sequence[Record]) -> bool:
    """Whether root holds a copy made otherwise (re-encoded, say), which hashes cannot check.

    Told by its images: some have a recorded id under another extension.
    """
    return any(
        not (root / record.path).is_file() and find_image(root, record.image_id) is not None
        for record in records
    )


def _fetch_recorded(
    name: str,
    data_root: Path,
    records: Sequence[Record],
    job: _Download,
    threads: int,
    progress: bool,
) -> Path:
    final = data_root / name
    if final.is_dir() and other_copy(final, records):
        raise DatasetError(
            f"{final} holds other copies of the published images: use them as they are, or move "
            "the folder away to download the published files."
        )
    root = final if final.is_dir() else data_root / f"{name}.part"
    try:
        missing, wrong = check_recorded(root, records)
        if root != final:
            for record in wrong:
                (root / record.path).unlink()
        if not missing and not wrong and root == final and (final / "metadata.csv").is_file():
            return final
        root.mkdir(parents=True, exist_ok=True)
        with _only_one(root):
            failed = _download_all(name, root, records, missing + wrong, job, threads, progress)
            return _finish(name, root, final, records, failed)
    except OSError as error:
        raise DatasetError(
            f"Cannot write to {root} ({error.strerror or error}): make room or set CXR_DATA to a "
            "folder that can be written."
        ) from error


def _finish(
    name: str, root: Path, final: Path, records: Sequence[Record], failed: dict[str, str]
) -> Path:
    _write_metadata(root / "metadata.csv", records)
    if len(failed) < len(records) and len(failed) <= max(1, len(records) // 100):
        # A picture that its publisher has withdrawn must not make the whole set unusable: it
        # stays listed in metadata.csv, so that every run names it as missing.
        if root != final:
            root.rename(final)
        root = final
    if failed:
        names = "; ".join(f"{path}: {reason}" for path, reason in list(failed.items())[:3])
        more = f"; and {len(failed) - 3} more" if len(failed) > 3 else ""
        raise IncompleteError(
            f"{len(failed)} of {len(records)} images of {name} could not be downloaded "
            f"({names}{more}): run `python -m core data {name}` again to try those once more.",
            root,
            failed,
        )
    return final


def _download_all(
    name: str,
    root: Path,
    records: Sequence[Record],
    wanted: Sequence[Record],
    job: _Download,
    threads: int,
    progress: bool,
) -> dict[str, str]:
    """Download what is wanted; {path: reason} for what the server does not have as recorded.

    Raises DatasetError where the server does not answer, or no more: trying again may help then.
    """
    refused: dict[str, str] = {}
    broken: dict[str, str] = {}
    done = len(records) - len(wanted)
    in_a_row = 0
    bar: Progress | None = None

    def settle(record: Record, get: Callable[[], None]) -> None:
        nonlocal done, in_a_row
        try:
            get()
        except _NotServed as error:
            refused[record.path] = str(error)
        except _Unreachable as error:
            # One file may break off again and again for reasons of its own; many in a row, or a
            # first one without any answer, mean that there is no server to ask.
            broken[record.path] = str(error)
            in_a_row += 1
            if in_a_row > threads or (record is wanted[0] and not error.answered):
                raise
        else:
            done += 1
            in_a_row = 0
        if bar is not None:
            bar.update(1)
            bar.set_postfix_str(f"{job.received_bytes / 1e6:.0f} MB")

    def fetch(record: Record) -> None:
        _fetch_file(job, record, root / record.path)

    try:
        if wanted:
            # One file alone first: without a network this is where it ends, after seconds.
            settle(wanted[0], lambda: fetch(wanted[0]))
            bar = _progress_bar(name, len(records), done) if progress else None
            _fetch_others(wanted[1:], fetch, settle, job, threads)
    except _Unreachable:
        pass  # its reason stands in broken, and the sentence below names it
    finally:
        if bar is not None:
            bar.close()
    if not broken:
        return refused
    host, why = urlsplit(job.base_urls[0]).netloc, next(reversed(broken.values()))
    if done == 0:
        _remove_empty(root)
        raise DatasetError(
            f"No connection to {host} ({why}), so {name} cannot be downloaded: put its folder at "
            f"{root.with_name(name)}, or run `make demo`, which needs no data."
        )
    raise DatasetError(
        f"The download of {name} broke off at {done} of {len(records)} images ({host}, "
        f"{next(reversed(broken))}: {why}): run `python -m core data {name}` again to go on from "
        "there."
    )


def _fetch_others(
    wanted: Sequence[Record],
    fetch: Callable[[Record], None],
    settle: Callable[[Record, Callable[[], None]], None],
    job: _Download,
    threads: int,
) -> None:
    with ThreadPoolExecutor(threads) as pool:
        try:
            waiting = {pool.submit(fetch, record): record for record in wanted}
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    settle(waiting.pop(future), future.result)
        except BaseException:  # Ctrl-C as well: the threads must end before this call does
            job.stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _remove_empty(root: Path) -> None:
    """Remove root where nothing but empty folders is in it."""
    for folder, _, _ in os.walk(root, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


def _fetch_file(job: _Download, record: Record, target: Path) -> None:
    """One file into its place, by way of a hidden file beside it that is checked first."""
    part = target.with_name(f".{target.name}.part")
    target.parent.mkdir(parents=True, exist_ok=True)
    problem: Exception = _Unreachable("stopped")
    try:
        for attempt in range(job.retries + 1):
            if attempt and job.stop.wait(job.backoff_s * 2 ** (attempt - 1)):
                break
            if job.stop.is_set():
                break
            try:
                _get(job, record, part)
            except _Unreachable as error:
                problem = error
                continue
            if git_blob_sha1(part) == record.git_blob:
                part.replace(target)
                return
            # Worth another try: a cut connection can look like the end of the file.
            problem = _NotServed("not the recorded file (its hash differs)")
        raise problem
    finally:
        part.unlink(missing_ok=True)


def _get(job: _Download, record: Record, part: Path) -> None:
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
                raise _Unreachable(f"status {status}", answered=True) from None
        except requests.RequestException as error:
            broken = isinstance(error, requests.exceptions.ChunkedEncodingError)
            answered = broken or part.stat().st_size > 0
            raise _Unreachable(_reason(error), answered=answered) from None
    raise _NotServed(f"not on the server (status {status})")


class _Sink:
    """A file that counts what it gets, and refuses what no picture of the set comes near."""

    def __init__(self, handle, job: _Download) -> None:
        self.handle, self.job, self.size = handle, job, 0

    def write(self, data: bytes) -> None:
        if self.job.stop.is_set():
            raise _Unreachable("stopped")
        self.size += len(data)
        if self.size > MAX_FILE_BYTES:
            raise _NotServed(f"larger than {MAX_FILE_BYTES // 2**20} MiB")
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


def _write_metadata(path: Path, records: Sequence[Record]) -> None:
    """metadata.csv as core.datasets reads it: path, label, patient_id and what else is recorded."""
    part = path.with_name(f".{path.name}.part")
    with part.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(records[0].metadata), lineterminator="\n")
        writer.writeheader()
        writer.writerows(record.metadata for record in records)
    part.replace(path)


@contextlib.contextmanager
def _only_one(root: Path) -> Iterator[None]:
    """A lock for the time of the download; the system drops it if the process is killed."""
    try:
        import fcntl
    except ImportError:  # Windows: two downloads at once are the user's own doing there
        yield
        return
    descriptor = os.open(root, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DatasetError(
                f"Another download into {root} is running: wait until it has ended."
            ) from None
        yield
    finally:
        os.close(descriptor)


def _progress_bar(name: str, total: int, initial: int) -> Progress:
    from tqdm import tqdm

    # A log gets a line now and then, a terminal a moving bar.
    interval_s = 0.2 if sys.stderr.isatty() else 15.0
    return tqdm(
        desc=name,
        total=total,
        initial=initial,
        unit=" files",
        file=sys.stderr,
        mininterval=interval_s,
        maxinterval=interval_s,
        dynamic_ncols=True,
    )


def _import_pooch():
    try:
        import pooch
        import requests
    except ImportError:
        raise DatasetError(
            "Downloading needs the packages pooch and requests: run `make setup` and try again."
        ) from None
    return pooch, requests


def _fetch_kaggle(name: str, data_root: Path) -> Path:
    final = data_root / name
    if final.is_dir():
        return final
    try:
        import kagglehub
        from kagglehub import exceptions
        from requests import RequestException
    except ImportError:
        raise DatasetError(
            f"Data set {name} comes from Kaggle: install kagglehub (`pip install kagglehub`), or "
            f"put its train/ and test/ folders in {final}."
        ) from None
    refused = (exceptions.UnauthenticatedError, exceptions.CredentialError)
    try:
        # stdout may have to be one JSON document, and kagglehub prints its progress there.
        with contextlib.redirect_stdout(sys.stderr):
            downloaded = Path(kagglehub.dataset_download(KAGGLE_HANDLE))
    except (*refused, exceptions.KaggleApiHTTPError) as error:
        status = getattr(getattr(error, "response", None), "status_code", "no sign-in")
        raise DatasetError(
            f"Kaggle refused {KAGGLE_HANDLE} ({status}): sign in with a token "
            "(https://www.kaggle.com/settings, KAGGLE_API_TOKEN), or put its train/ and test/ "
            f"folders in {final}."
        ) from None
    except (RequestException, exceptions.BackendError, OSError) as error:
        raise DatasetError(
            f"{KAGGLE_HANDLE} cannot be downloaded from Kaggle ({type(error).__name__}): check the "
            f"network, put its train/ and test/ folders in {final}, or run `make demo`, which "
            "needs no data."
        ) from None
    inner = next(
        (p.parent for p in sorted(downloaded.rglob("train")) if (p.parent / "test").is_dir()), None
    )
    if inner is None:
        raise DatasetError(
            f"{KAGGLE_HANDLE} was downloaded to {downloaded}, but has no train/ and test/ folders "
            f"any more: put the images in {final}/train and {final}/test by hand."
        )
    try:
        return _copy_splits(inner, final)
    except OSError as error:
        raise DatasetError(
            f"Cannot write to {final} ({error.strerror or error}): make room or set CXR_DATA to a "
            "folder that can be written."
        ) from error


def _copy_splits(source: Path, final: Path) -> Path:
    part = final.with_name(f"{final.name}.part")
    shutil.rmtree(part, ignore_errors=True)
    for split in ("train", "val", "test"):
        if (source / split).is_dir():
            shutil.copytree(source / split, part / split)
    part.rename(final)
    return final
