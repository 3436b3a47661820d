"""The pixel cache: each image decoded and resized once, then read as memory-mapped uint8.

`core.imageio.pixel_cache_store` keeps the files.
"""

from __future__ import annotations

import contextlib
import hashlib
import mmap
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from core.imageio import decode
from core.imageio.pixel_cache_store import CachedFile, Store, discard, file_stat, locked

_BATCH = 32


@dataclass(frozen=True)
class PixelCache:
    """Pixels of a table of images, resized to one or more sizes.

    table: the input rows that decoded, input order and index 0..n-1, with `sha256` (of the file),
    `width`, `height` (px, upright) and `format` added. skipped: `path`, `reason` of the others.
    """

    table: pd.DataFrame
    skipped: pd.DataFrame
    _files: dict[int, Path]

    @property
    def sizes(self) -> tuple[int, ...]:
        """The sizes (px) that `pixels` can be asked for, rising."""
        return tuple(sorted(self._files))

    def pixels(self, size_px: int) -> np.ndarray:
        """Read-only uint8 (n, size_px, size_px) on the disk, in the order of `table`."""
        if size_px not in self._files:
            raise decode.ImageError(
                f"The cache was built for {list(self.sizes)} px. Received: {size_px}; "
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
    Images that cannot be used end in `skipped` with the reason and never end the build.
    Raises ImageError only where the cache folder itself cannot be used.
    """
    sizes_px = sorted({int(size) for size in sizes_px})
    if not sizes_px or sizes_px[0] < 1:
        raise decode.ImageError(f"The cache needs sizes of at least 1 px. Received: {sizes_px}.")
    table = table.reset_index(drop=True)
    try:
        with locked(Path(cache_dir)) as folder:
            try:
                return _build(table, Path(root), folder, sizes_px, progress)
            except sqlite3.DatabaseError as error:
                if type(error) is not sqlite3.DatabaseError:
                    raise  # its subclasses are a full disk and the like, not a damaged index
                discard(folder)
                return _build(table, Path(root), folder, sizes_px, progress)
    except (OSError, sqlite3.Error) as error:
        raise decode.ImageError(
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
    with contextlib.closing(Store(folder, sizes_px)) as store:
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
    store: Store,
    progress: Callable[[int, int], None] | None,
) -> list[CachedFile]:
    """One entry a path; decodes what the store lacks, a batch at a time."""
    n = len(all_paths)
    found: list[CachedFile] = []
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


def _load(
    root: Path, path: str, sizes_px: Sequence[int], missing: Callable[[str], CachedFile | None]
) -> CachedFile:
    """Read, and decode unless the content is known under another name. Runs in a thread."""
    try:
        stat = file_stat(root, path)
        data = decode.read_bytes(root / path)
    except decode.ImageError as error:
        return CachedFile(reason=str(error))  # not remembered: the file may be readable next time
    sha256 = hashlib.sha256(data).hexdigest()
    known = missing(sha256)
    if known is not None:
        return CachedFile(
            known.sha256, known.width, known.height, known.format, known.reason, stat=stat
        )
    try:
        image = decode.decode_image(data)
    except decode.ImageError as error:
        return CachedFile(sha256, reason=str(error), stat=stat)
    squares = {size: decode.resize_square(image.pixels, size) for size in sizes_px}
    return CachedFile(sha256, image.width, image.height, image.format, "", squares, stat)


def forget_array(array: np.ndarray) -> None:
    """Take the pages of a memory map out of this process; what was written stays in the file.

    Nothing happens to an array that is no memory map or no view of one.
    """
    owner: object = array
    while isinstance(owner, np.ndarray):
        owner = owner.base
    if isinstance(owner, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        owner.madvise(mmap.MADV_DONTNEED)
