"""What the pixel cache keeps on the disk, and what of it can be trusted after an interruption.

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
import hashlib
import os
import sqlite3
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np

from core.imageio import decode

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
class CachedFile:
    """What is known of one file; `squares` (size -> pixels) only where it was decoded just now."""

    sha256: str = ""
    width: int = 0
    height: int = 0
    format: str = ""
    reason: str = ""
    squares: dict[int, np.ndarray] | None = None
    stat: tuple[bytes, int, int] | None = None

    def without_pixels(self) -> CachedFile:
        return CachedFile(self.sha256, self.width, self.height, self.format, self.reason)


class Store:
    """The index and the pixel files of one cache folder, open for one build (under the lock)."""

    def __init__(self, folder: Path, sizes_px: Sequence[int]) -> None:
        self.folder = folder
        self.sizes_px = tuple(sizes_px)
        self.database = sqlite3.connect(folder / "index.sqlite")
        self.files = {size: _open_rows(self._rows_path(size)) for size in self.sizes_px}
        try:
            self.database.executescript(_SCHEMA)
            version = decode.DECODER_VERSION
            self.content: dict[str, CachedFile] = {
                row[0]: CachedFile(*row)
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

    def look_up(self, root: Path, path: str) -> CachedFile | None:
        """What the index has for this path, size and mtime; None where it must be read."""
        try:
            name, n_bytes, mtime_ns = file_stat(root, path)
        except decode.ImageError as error:
            return CachedFile(reason=str(error))
        row = self.database.execute(
            "SELECT sha256 FROM files WHERE path = ? AND n_bytes = ? AND mtime_ns = ?",
            (name, n_bytes, mtime_ns),
        ).fetchone()
        return self.missing(row[0]) if row else None

    def missing(self, sha256: str) -> CachedFile | None:
        """What is known of this content, None where it must be decoded (again)."""
        entry = self.content.get(sha256)
        if entry is None or entry.reason:
            return entry
        return entry if all(self._row_is_sound(size, sha256) for size in self.sizes_px) else None

    def add(self, batch: Sequence[CachedFile]) -> None:
        """Write a batch: pixels to the disk first, then the index in one transaction."""
        version = decode.DECODER_VERSION
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
                [(*e.stat, e.sha256) for e in seen if e.stat],
            )
        for entry in seen:
            self.content[entry.sha256] = entry.without_pixels()

    def view(self, size_px: int, hashes: Sequence[str]) -> Path:
        """A file that begins with the pixels of `hashes` in that order."""
        rows = [self.rows[size_px][sha256][0] for sha256 in hashes]
        if rows == list(range(len(rows))):
            return self._rows_path(size_px)
        key = hashlib.sha256("\n".join(hashes).encode()).hexdigest()[:20]
        path = self.folder / f"view-v{decode.DECODER_VERSION}-{size_px}-{key}.u8"
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
        return self.folder / f"pixels-v{decode.DECODER_VERSION}-{size_px}.u8"


def file_stat(root: Path, path: str) -> tuple[bytes, int, int]:
    """(absolute path, size in bytes, mtime in ns); the last two -1 where there is no such file."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\0" in path or not pure.parts:
        raise decode.ImageError(
            "The path leads outside the data set's folder; write it relative to that folder."
        )
    full = root.absolute() / path
    name = str(full).encode("utf-8", "surrogatepass")  # file names need not be valid text
    try:
        stat = full.stat()
    except (OSError, ValueError):
        return name, -1, -1
    return name, stat.st_size, stat.st_mtime_ns


def discard(folder: Path) -> None:
    """Delete what a damaged index spoke of; whoever has the old pixels mapped keeps them."""
    for pattern in ("index.sqlite*", "pixels-*.u8", "view-*.u8"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[Path]:
    """Hold the folder's lock; the system lets go of it even where the process is killed."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        # Windows has no fcntl: two builds at once are not kept apart there.
        with contextlib.suppress(ImportError):
            import fcntl

            fcntl.flock(lock, fcntl.LOCK_EX)
        for left_over in folder.glob(".view-*"):
            left_over.unlink(missing_ok=True)
        yield folder


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
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


def _open_rows(path: Path) -> BinaryIO:
    """Open for reading and writing without emptying; make the file where there is none."""
    with contextlib.suppress(FileExistsError):
        path.open("xb").close()
    return path.open("r+b")
