"""Download a known data set: whole or not at all, every file checked, resumed where it broke off.

Files arrive in `<name>.part/` beside the place where they belong, and the folder gets its name
only when it is complete, so nobody trains on half a data set without noticing.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from itertools import islice
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from core.datasets.checksums import Record, check_recorded, other_copy, read_records, write_metadata
from core.datasets.download import Download, NotServed, Unreachable, fetch_file
from core.datasets.fetch_kaggle import fetch_kaggle
from core.datasets.registry import KNOWN, SOURCES, DatasetError

REPOSITORY_URL = "https://raw.githubusercontent.com/muhammedtalo/COVID-19"
# The commit that the list was recorded from, then the branch, should the server refuse the
# abbreviated commit. Which of them answers is no matter of trust: the recorded hash decides.
REVISIONS = ("ee3e2cff", "master")


class IncompleteError(DatasetError):
    """Some files could not be had; path is the folder that holds the others, failed names them."""

    def __init__(self, message: str, path: Path, failed: dict[str, str]) -> None:
        super().__init__(message)
        self.path, self.failed = path, failed


class FetchProgress(Protocol):
    """What the downloader tells about its progress; tqdm's interface."""

    def update(self, n: int) -> object: ...
    def set_postfix_str(self, s: str) -> object: ...
    def close(self) -> object: ...


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
        job = Download(base_urls, retries, backoff_s, timeout_s)
        return _fetch_recorded(name, data_root, records, job, threads, progress)
    if name == "kaggle-covid19-xray":
        return fetch_kaggle(name, data_root)
    if name == "phantom":
        from core.datasets.phantom.generate import PhantomError, write_phantoms

        try:
            return write_phantoms(data_root / name)
        except PhantomError as error:
            raise DatasetError(str(error)) from None
    if name in KNOWN:
        raise DatasetError(f"Data set {name} cannot be downloaded: {KNOWN[name].how_to_get}.")
    raise DatasetError(f"Unknown data set {name!r}: expected one of {', '.join(KNOWN)}.")


def _fetch_recorded(
    name: str,
    data_root: Path,
    records: Sequence[Record],
    job: Download,
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
    write_metadata(root / "metadata.csv", records)
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
    job: Download,
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
    bar: FetchProgress | None = None

    def settle(record: Record, get: Callable[[], None]) -> None:
        nonlocal done, in_a_row
        try:
            get()
        except NotServed as error:
            refused[record.path] = str(error)
        except Unreachable as error:
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
        fetch_file(job, record, root / record.path)

    try:
        if wanted:
            # One file alone first: without a network this is where it ends, after seconds.
            settle(wanted[0], lambda: fetch(wanted[0]))
            bar = _progress_bar(name, len(records), done) if progress else None
            _fetch_others(wanted[1:], fetch, settle, job, threads)
    except Unreachable:
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
    job: Download,
    threads: int,
) -> None:
    queue = iter(wanted)
    with ThreadPoolExecutor(threads) as pool:
        try:
            # No more are asked for at once than threads can fetch: a queue would let the threads
            # ask on, file after file, before the failures of a dead server have been counted.
            waiting = {pool.submit(fetch, record): record for record in islice(queue, threads)}
            while waiting:
                for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                    settle(waiting.pop(future), future.result)
                    waiting |= {pool.submit(fetch, record): record for record in islice(queue, 1)}
        except BaseException:  # Ctrl-C as well: the threads must end before this call does
            job.stop.set()
            pool.shutdown(cancel_futures=True)
            raise


def _remove_empty(root: Path) -> None:
    """Remove root where nothing but empty folders is in it."""
    for folder, _, _ in os.walk(root, topdown=False):
        with contextlib.suppress(OSError):
            os.rmdir(folder)


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


def _progress_bar(name: str, total: int, initial: int) -> FetchProgress:
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
