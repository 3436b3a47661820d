"""Download a known data set: whole or not at all, every file checked, resumed where it broke off.

Files arrive in `<name>.part/` beside the place where they belong, and the folder gets its name
only when it is complete, so nobody trains on half a data set without noticing.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from urllib.parse import urlsplit

from tqdm import tqdm

from core.console import progress
from core.datasets.checksums import Record, check_recorded, other_copy, read_records, write_metadata
from core.datasets.download import (
    Download,
    FetchOptions,
    NotServedError,
    UnreachableError,
    fetch_file,
)
from core.datasets.fetch_kaggle import fetch_kaggle
from core.datasets.registry import KNOWN, DatasetError

_DEFAULTS = FetchOptions()


class IncompleteError(DatasetError):
    """Some files could not be had; path is the folder that holds the others, failed names them."""

    def __init__(self, message: str, path: Path, failed: dict[str, str]) -> None:
        super().__init__(message)
        self.path, self.failed = path, failed


def fetch_dataset(
    name: str,
    data_root: str | Path,
    base_url: str | None = None,
    *,
    records_csv: str | Path | None = None,
    options: FetchOptions = _DEFAULTS,
) -> Path:
    """Fetch a known data set into `data_root/name` and return that folder.

    base_url: a mirror laid out as the published repository; records_csv: another list of files
    (columns git_blob, path, image_id, then metadata). A download that is complete already costs
    one reading of its files. Raises DatasetError (one sentence) where nothing can be had, and
    IncompleteError where the server answered but some files are missing or not the recorded ones.
    """
    data_root, known = Path(data_root), KNOWN.get(name)
    if known is None:
        raise DatasetError(f"Unknown data set {name!r}: expected one of {', '.join(KNOWN)}.")
    if known.recorded:
        records = read_records(records_csv or known.records_csv)
        job = Download([base_url] if base_url else known.base_urls, options)
        return _fetch_recorded(name, data_root, records, job)
    if known.kaggle:
        return fetch_kaggle(known, data_root)
    if known.drawn:
        from core.datasets.phantom.generate import PhantomError, write_phantoms

        try:
            return write_phantoms(data_root / name)
        except PhantomError as error:
            raise DatasetError(str(error)) from None
    raise DatasetError(f"Data set {name} cannot be downloaded: {known.how_to_get}.")


def _fetch_recorded(name: str, data_root: Path, records: Sequence[Record], job: Download) -> Path:
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
            failed = _download_all(name, root, records, missing + wrong, job)
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
        # An image that its publisher has withdrawn must not make the whole set unusable: it
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
    name: str, root: Path, records: Sequence[Record], wanted: Sequence[Record], job: Download
) -> dict[str, str]:
    """Download what is wanted; {path: reason} for what the server does not have as recorded.

    Raises DatasetError where the server does not answer, or no more: trying again may help then.
    """
    transfer = _Transfer(job, root, done=len(records) - len(wanted))
    if wanted:
        with contextlib.suppress(UnreachableError):  # its reason stands in transfer.broken
            transfer.run(name, wanted)
    broken = transfer.broken
    if not broken:
        return transfer.refused
    host, why = urlsplit(job.base_urls[0]).netloc, next(reversed(broken.values()))
    if transfer.done == 0:
        _remove_empty(root)
        raise DatasetError(
            f"No connection to {host} ({why}), so {name} cannot be downloaded: put its folder at "
            f"{root.with_name(name)}, or run `make demo`, which needs no data."
        )
    raise DatasetError(
        f"The download of {name} broke off at {transfer.done} of {len(records)} images ({host}, "
        f"{next(reversed(broken))}: {why}): run `python -m core data {name}` again to go on from "
        "there."
    )


@dataclass
class _Transfer:
    """Many files on their way: how many are done, which were refused and which broke off, why."""

    job: Download
    root: Path
    done: int
    refused: dict[str, str] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)
    failures_in_a_row: int = 0

    def run(self, name: str, wanted: Sequence[Record]) -> None:
        """Fetch what is wanted; raises UnreachableError where it is no use to ask on."""
        total, first = self.done + len(wanted), wanted[0]
        # One file alone first: without a network this is where it ends, after seconds.
        self._settle(first, lambda: self._fetch(first), is_first=True)
        show = self.job.options.progress
        with progress(total, name, " files", initial=self.done, show=show) as bar:
            self._fetch_others(wanted[1:], bar)

    def _fetch(self, record: Record) -> None:
        fetch_file(self.job, record, self.root / record.path)

    def _fetch_others(self, wanted: Sequence[Record], bar: tqdm) -> None:
        queue, threads = iter(wanted), self.job.options.threads
        with ThreadPoolExecutor(threads) as pool:

            def ask(n: int) -> dict:
                return {pool.submit(self._fetch, record): record for record in islice(queue, n)}

            try:
                # No more are asked for at once than threads can fetch: a queue would let the
                # threads ask on, file after file, before the failures of a dead server have been
                # counted.
                waiting = ask(threads)
                while waiting:
                    for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                        self._settle(waiting.pop(future), future.result)
                        bar.set_postfix_str(f"{self.job.received_bytes / 1e6:.0f} MB", False)
                        bar.update(1)
                        waiting |= ask(1)
            except BaseException:  # Ctrl-C as well: the threads must end before this call does
                self.job.stop.set()
                pool.shutdown(cancel_futures=True)
                raise

    def _settle(self, record: Record, get: Callable[[], None], is_first: bool = False) -> None:
        """Count what came of one file."""
        try:
            get()
        except NotServedError as error:
            self.refused[record.path] = str(error)
        except UnreachableError as error:
            # One file may break off again and again for reasons of its own; many in a row, or a
            # first one without any answer, mean that there is no server to ask.
            self.broken[record.path] = str(error)
            self.failures_in_a_row += 1
            many = self.failures_in_a_row > self.job.options.threads
            if many or (is_first and not error.answered):
                raise
        else:
            self.done += 1
            self.failures_in_a_row = 0


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
