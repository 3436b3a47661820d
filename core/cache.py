"""The pixel cache: each picture decoded and resized once, then read as memory-mapped uint8.

Files in the cache folder, all of which can be deleted at any time (between builds):

    index.sqlite            files    path, size, mtime  -> sha256       (a file seen before)
                            content  sha256             -> width, height, format or a reason
                            pixels   sha256, size in px -> row, crc32
    pixels-v1-224.u8        rows of 224 × 224 bytes, in the order in which they were added
    view-v1-224-HASH.u8     the same rows in a table's order, made only where that order differs
    lock                    held by the one build that writes

A row counts only once the index has it, which is written after the pixels are on the disk; so a
build that is killed loses at most the batch it was at.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import sqlite3
import tempfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import pandas as pd

from core import images

_BATCH = 32
_SCHEMA = """
CREATE TABLE IF NOT EXISTS files (
    path BLOB PRIMARY KEY, n_bytes INTEGER, mtime_ns INTEGER, sha256 TEXT);
CREATE TABLE IF NOT EXISTS content (
    sha256 TEXT, decoder INTEGER, width INTEGER, height INTEGER, format TEXT, reason TEXT,
    PRIMARY KEY (sha256, decoder));
CREATE TABLE IF NOT EXISTS pixels (
    sha256 TEXT, decoder INTEGER, size_px INTEGER, row INTEGER, crc32 INTEGER,
    PRIMARY KEY (sha256, decoder, size_px));
"""


@dataclass(frozen=True)
class PixelCache:
    """Pixels of a table of images, resized to one or more sizes.

    table: the input rows that decoded, input order and index 0..n-1, with `sha256` (of the file),
    `width`, `height` (px, upright) and `format` added. skipped: `path`, `reason` of the others.
    """

    table: pd.DataFrame
    skipped: pd.DataFrame
    _files: dict[int, Path]

    def pixels(self, size_px: int) -> np.ndarray:
        """Read-only uint8 (n, size_px, size_px) on the disk, in the order of `table`."""
        if size_px not in self._files:
            raise images.ImageError(
                f"The cache was built for {sorted(self._files)} px. Received: {size_px}; "
                "build it with that size too."
            )
        shape = (len(self.table), size_px, size_px)
        if not len(self.table):
            return np.zeros(shape, np.uint8)  # an empty file cannot be mapped
        return np.memmap(self._files[size_px], np.uint8, "r", shape=shape)


def build_pixel_cache(
    table: pd.DataFrame,
    root: str | Path,
    cache_dir: str | Path,
    sizes_px: Sequence[int],
    progress: Callable[[int, int], None] | None = None,
) -> PixelCache:
    """Decode what the cache does not have yet and return the pixels of `table`.

    table needs `path` (POSIX, below root). progress is called with (images done, images in all).
    Pictures that cannot be used end in `skipped` with the reason and never end the build.
    Raises ImageError only where the cache folder itself cannot be used.
    """
    sizes_px = sorted({int(size) for size in sizes_px})
    if not sizes_px or sizes_px[0] < 1:
        raise images.ImageError(f"The cache needs sizes of at least 1 px. Received: {sizes_px}.")
    table = table.reset_index(drop=True)
    try:
        with _locked(Path(cache_dir)) as folder:
            try:
                return _build(table, Path(root), folder, sizes_px, progress)
            except sqlite3.DatabaseError as error:
                if type(error) is not sqlite3.DatabaseError:
                    raise  # its subclasses are a full disk and the like, not a damaged index
                _discard(folder)
                return _build(table, Path(root), folder, sizes_px, progress)
    except (OSError, sqlite3.Error) as error:
        raise images.ImageError(
            f"The pixel cache in {cache_dir} cannot be used ({error}); "
            "free space there, delete that folder or point CXR_CACHE at another one."
        ) from error


def _build(
    table: pd.DataFrame,
    root: Path,
    folder: Path,
    sizes_px: Sequence[int],
    progress: Callable[[int, int], None] | None,
) -> PixelCache:
    with contextlib.closing(_Store(folder, sizes_px)) as store:
        paths = [str(path) for path in table["path"]]
        found = _look_at_all(paths, root, store, progress)
        good = [entry for entry in found if not entry.reason]
        hashes = [entry.sha256 for entry in good]
        files = {size: store.view(size, hashes) for size in sizes_px}
    usable = np.array([not entry.reason for entry in found], dtype=bool)
    kept = table[usable].reset_index(drop=True)
    for column in ("sha256", "width", "height", "format"):
        kept[column] = [getattr(entry, column) for entry in good]
    skipped = pd.DataFrame(
        {
            # A file name that is no valid text is spelled out: no table or CSV could hold it.
            "path": [
                path.encode("utf-8", "backslashreplace").decode()
                for path, entry in zip(paths, found, strict=True)
                if entry.reason
            ],
            "reason": [entry.reason for entry in found if entry.reason],
        },
        dtype=str,
    )
    return PixelCache(kept, skipped, files)


def _look_at_all(
    all_paths: list[str],
    root: Path,
    store: _Store,
    progress: Callable[[int, int], None] | None,
) -> list[_Found]:
    """One entry a path; decodes what the store lacks, a batch at a time."""
    n = len(all_paths)
    found: list[_Found] = []
    with ThreadPoolExecutor(max_workers=min(4, os.cpu_count() or 1)) as pool:
        for start in range(0, n, _BATCH):
            paths = all_paths[start : start + _BATCH]
            known = [store.look_up(root, path) for path in paths]
            jobs = [
                (root, path, store.sizes_px, store.missing)
                for path, entry in zip(paths, known, strict=True)
                if entry is None
            ]
            fresh = iter(pool.map(lambda job: _load(*job), jobs))
            batch = [next(fresh) if entry is None else entry for entry in known]
            store.add(batch)
            found += [entry.without_pixels() for entry in batch]
            if progress is not None:
                progress(min(start + _BATCH, n), n)
    return found


@dataclass(frozen=True)
class _Found:
    """What is known of one file; `squares` (size -> pixels) only where it was decoded just now."""

    sha256: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    reason: str = ""
    squares: dict[int, np.ndarray] | None = None
    stat: tuple[bytes, int, int] | None = None

    def without_pixels(self) -> _Found:
        return _Found(self.sha256, self.width, self.height, self.format, self.reason)


def _load(
    root: Path, path: str, sizes_px: Sequence[int], missing: Callable[[str], _Found | None]
) -> _Found:
    """Read, and decode unless the content is known under another name. Runs in a thread."""
    try:
        stat = _stat(root, path)
        data = images.read_bytes(root / path)
    except images.ImageError as error:
        return _Found(reason=str(error))  # not remembered: the file may be readable next time
    sha256 = hashlib.sha256(data).hexdigest()
    known = missing(sha256)
    if known is not None:
        return _Found(
            known.sha256, known.width, known.height, known.format, known.reason, stat=stat
        )
    try:
        image = images.decode_image(data)
    except images.ImageError as error:
        return _Found(sha256, reason=str(error), stat=stat)
    squares = {size: images.resize_square(image.pixels, size) for size in sizes_px}
    return _Found(sha256, image.width, image.height, image.format, "", squares, stat)


def _stat(root: Path, path: str) -> tuple[bytes, int, int]:
    """(absolute path, size in bytes, mtime in ns); the last two -1 where there is no such file."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\0" in path or not pure.parts:
        raise images.ImageError(
            "The path leads outside the data set's folder; write it relative to that folder."
        )
    full = root.absolute() / path
    name = str(full).encode("utf-8", "surrogatepass")  # file names need not be valid text
    try:
        stat = full.stat()
    except (OSError, ValueError):
        return name, -1, -1
    return name, stat.st_size, stat.st_mtime_ns


class _Store:
    """The index and the pixel files of one cache folder, open for one build (under the lock)."""

    def __init__(self, folder: Path, sizes_px: Sequence[int]) -> None:
        self.folder = folder
        self.sizes_px = tuple(sizes_px)
        self.database = sqlite3.connect(folder / "index.sqlite")
        self.files = {size: _open_rows(self._rows_path(size)) for size in self.sizes_px}
        try:
            self.database.executescript(_SCHEMA)
            version = images.DECODER_VERSION
            self.content: dict[str, _Found] = {
                row[0]: _Found(*row)
                for row in self.database.execute(
                    "SELECT sha256, width, height, format, reason FROM content WHERE decoder = ?",
                    (version,),
                )
            }
            self.rows: dict[int, dict[str, tuple[int, int]]] = {}
            for size in self.sizes_px:
                cursor = self.database.execute(
                    "SELECT sha256, row, crc32 FROM pixels WHERE decoder = ? AND size_px = ?",
                    (version, size),
                )
                # Rows beyond the file's end were lost (cut off, or the file was deleted).
                n_rows = os.fstat(self.files[size].fileno()).st_size // size**2
                self.rows[size] = {
                    sha256: (row, crc) for sha256, row, crc in cursor if row < n_rows
                }
        except sqlite3.Error:
            self.close()
            raise
        self.next_row = {
            size: 1 + max((row for row, _ in rows.values()), default=-1)
            for size, rows in self.rows.items()
        }
        self.checked: dict[int, set[str]] = {size: set() for size in self.sizes_px}

    def close(self) -> None:
        for file in self.files.values():
            file.close()
        self.database.close()

    def look_up(self, root: Path, path: str) -> _Found | None:
        """What the index has for this path, size and mtime; None where it must be read."""
        try:
            name, n_bytes, mtime_ns = _stat(root, path)
        except images.ImageError as error:
            return _Found(reason=str(error))
        row = self.database.execute(
            "SELECT sha256 FROM files WHERE path = ? AND n_bytes = ? AND mtime_ns = ?",
            (name, n_bytes, mtime_ns),
        ).fetchone()
        return self.missing(row[0]) if row else None

    def missing(self, sha256: str) -> _Found | None:
        """What is known of this content, None where it must be decoded (again)."""
        entry = self.content.get(sha256)
        if entry is None or entry.reason:
            return entry
        return entry if all(self._row_is_sound(size, sha256) for size in self.sizes_px) else None

    def add(self, batch: Sequence[_Found]) -> None:
        """Write a batch: pixels to the disk first, then the index in one transaction."""
        version = images.DECODER_VERSION
        new_rows = []
        for entry in batch:
            for size, square in (entry.squares or {}).items():
                if self._row_is_sound(size, entry.sha256):
                    continue
                row, data = self.next_row[size], square.tobytes()
                self.files[size].seek(row * size * size)
                self.files[size].write(data)
                crc = zlib.crc32(data)
                self.next_row[size] = row + 1
                self.rows[size][entry.sha256] = (row, crc)
                self.checked[size].add(entry.sha256)
                new_rows.append((entry.sha256, version, size, row, crc))
        if new_rows:
            for file in self.files.values():
                file.flush()
                os.fsync(file.fileno())
        seen = [entry for entry in batch if entry.sha256 and entry.stat]
        if not seen:
            return
        with self.database:
            self.database.executemany(
                "INSERT OR REPLACE INTO pixels VALUES (?, ?, ?, ?, ?)", new_rows
            )
            self.database.executemany(
                "INSERT OR REPLACE INTO content VALUES (?, ?, ?, ?, ?, ?)",
                [(e.sha256, version, e.width, e.height, e.format, e.reason) for e in seen],
            )
            self.database.executemany(
                "INSERT OR REPLACE INTO files VALUES (?, ?, ?, ?)",
                [(*e.stat, e.sha256) for e in seen],
            )
        for entry in seen:
            self.content[entry.sha256] = entry.without_pixels()

    def view(self, size_px: int, hashes: Sequence[str]) -> Path:
        """A file that begins with the pixels of `hashes` in that order."""
        rows = [self.rows[size_px][sha256][0] for sha256 in hashes]
        if rows == list(range(len(rows))):
            return self._rows_path(size_px)
        key = hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:20]
        path = self.folder / f"view-v{images.DECODER_VERSION}-{size_px}-{key}.u8"
        row_bytes = size_px * size_px
        if path.is_file() and path.stat().st_size == len(rows) * row_bytes:
            return path  # the name holds the content's hashes, and it was put there whole
        with _replacing(path) as file:
            for row in rows:
                self.files[size_px].seek(row * row_bytes)
                file.write(self.files[size_px].read(row_bytes))
        return path

    def _row_is_sound(self, size_px: int, sha256: str) -> bool:
        """Whether the row is on the disk as it was written (checked once a build)."""
        if sha256 in self.checked[size_px]:
            return True
        row, crc = self.rows[size_px].get(sha256, (None, None))
        if row is None:
            return False
        data = os.pread(self.files[size_px].fileno(), size_px * size_px, row * size_px * size_px)
        if len(data) != size_px * size_px or zlib.crc32(data) != crc:
            return False
        self.checked[size_px].add(sha256)
        return True

    def _rows_path(self, size_px: int) -> Path:
        return self.folder / f"pixels-v{images.DECODER_VERSION}-{size_px}.u8"


def _discard(folder: Path) -> None:
    """Delete what a damaged index spoke of; whoever has the old pixels mapped keeps them."""
    for pattern in ("index.sqlite*", "pixels-*.u8", "view-*.u8"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[Path]:
    """Hold the folder's lock; the system lets go of it even where the process is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        for left_over in folder.glob(".view-*"):
            left_over.unlink(missing_ok=True)
        yield folder


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator:
    """Write a file beside `path` and put it in its place in one step."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".view-")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(name, path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _open_rows(path: Path):
    """Open for reading and writing without emptying; make the file where there is none."""
    with contextlib.suppress(FileExistsError):
        path.open("xb").close()
    return path.open("r+b")
