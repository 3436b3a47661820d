"""A ZIP archive of images, unpacked in memory one entry at a time, trusting none of its claims.

Nothing is ever written: names only serve to be shown. What the directory says is held against
what is there before Python's zipfile looks at it, and bytes are counted as they come out.
"""

from __future__ import annotations

import io
import re
import stat
import struct
import unicodedata
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass

from core.imageio.file_type import ARCHIVE_TYPES, detect_file_type, find_zip_end
from core.imageio.picture import MAX_BYTES, ImageError

MAX_ZIP_BYTES = 200 * 1024 * 1024
MAX_ENTRIES = 2_000
MAX_UNPACKED_BYTES = 1024 * 1024 * 1024
MAX_ENTRY_BYTES = MAX_BYTES
# An X-ray packs to a half or a tenth; a black image in BMP to a thousandth, but then it is small.
MAX_RATIO = 200
RATIO_FREE_BYTES = 4 * 1024 * 1024
MAX_DIRECTORY_BYTES = 4 * 1024 * 1024
MAX_NAME_CHARS = 200
_CHUNK_BYTES = 256 * 1024
_LOCAL, _CENTRAL, _ZIP64_LOCATOR = b"PK\x03\x04", b"PK\x01\x02", b"PK\x06\x07"
_LOCAL_BYTES = 30
_METHODS = {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}
_ENCRYPTED = 0x1 | 0x40 | 0x2000
_SYSTEM_NAMES = {".ds_store", "thumbs.db", "desktop.ini", "ehthumbs.db"}
_DRIVE = re.compile(r"[A-Za-z]:")


@dataclass(frozen=True)
class Entry:
    """One file of an archive: its bytes or, in one sentence, why there are none.

    name: safe to show, no path that climbs out and no control characters; never use it as a path.
    """

    name: str
    data: bytes | None = None
    problem: str | None = None


def is_zip(data: bytes) -> bool:
    """Whether the content starts like a ZIP archive, whatever the file is called."""
    return detect_file_type(data) == "ZIP"


def read_zip(data: bytes) -> Iterator[Entry]:
    """The files of an archive in its own order, each unpacked when it is asked for.

    Folders and what macOS and Windows add (`__MACOSX`, `.DS_Store`, ...) are left out without a
    word. Raises ImageError, before the first entry, where the archive as a whole is refused.
    """
    archive, entries = _open(data)
    return _read(archive, entries)


def _open(data: bytes) -> tuple[zipfile.ZipFile, list[zipfile.ZipInfo]]:
    end = _check_end(data)
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
        entries = archive.infolist()
    except Exception:  # zipfile raises half a dozen types on damaged directories
        raise ImageError(
            "The ZIP archive is damaged or cut off: its directory cannot be read; pack it again."
        ) from None
    _check_places(data, entries, end)
    return archive, entries


def _check_end(data: bytes) -> tuple[int, int]:
    """Number of entries and start of the directory, from the end record, both believable."""
    if len(data) > MAX_ZIP_BYTES:
        raise ImageError(
            f"The ZIP archive is larger than {MAX_ZIP_BYTES // 2**20} MiB; send the pictures in "
            "several archives."
        )
    at = find_zip_end(data)
    if at is None:
        raise ImageError(
            "The ZIP archive is damaged or cut off: its directory is not at its end; "
            "fetch or pack it again."
        )
    disk, first_disk, n_here, n_entries, size, start = struct.unpack_from("<4H2L", data, at + 4)
    if disk or first_disk or n_here != n_entries:
        raise ImageError("The ZIP archive is split over several files; pack it as one.")
    if data[at - 20 : at - 16] == _ZIP64_LOCATOR or 0xFFFFFFFF in (size, start):
        raise ImageError(
            "The ZIP archive is of the kind for more than 4 GiB (ZIP64), which is not read; pack "
            f"at most {MAX_ZIP_BYTES // 2**20} MiB."
        )
    if n_entries > MAX_ENTRIES:
        raise ImageError(
            f"The ZIP archive has {n_entries:,} entries, at most {MAX_ENTRIES:,} are read; send "
            "the pictures in several archives."
        )
    if size > MAX_DIRECTORY_BYTES:
        raise ImageError(
            f"The ZIP archive's directory is {size:,} bytes long, at most "
            f"{MAX_DIRECTORY_BYTES:,} are read; pack it again without comments."
        )
    if start + size != at:
        raise ImageError(
            "The ZIP archive is damaged, or something else stands before it in the same file; "
            "pack it again."
        )
    if n_entries == 0:
        raise ImageError("The ZIP archive is empty; pack the pictures into it.")
    return n_entries, start


def _check_places(data: bytes, entries: list[zipfile.ZipInfo], end: tuple[int, int]) -> None:
    """Every entry has bytes of its own: overlapping ones unpack to far more than is there."""
    n_entries, directory_at = end
    if len(entries) != n_entries:
        raise ImageError(
            f"The ZIP archive says that it has {n_entries:,} entries and lists {len(entries):,}; "
            "pack it again."
        )
    free = 0
    for info in sorted(entries, key=lambda info: info.header_offset):
        at = info.header_offset
        inside = at >= 0 and at + _LOCAL_BYTES <= directory_at
        if not inside or data[at : at + 4] != _LOCAL:
            raise ImageError(
                "The ZIP archive is damaged: an entry is not where its directory says; "
                "pack it again."
            )
        name_bytes, extra_bytes = struct.unpack_from("<HH", data, at + 26)
        if at < free:
            raise ImageError(
                "The ZIP archive's entries lie over one another, as in a ZIP bomb; pack it again."
            )
        free = at + _LOCAL_BYTES + name_bytes + extra_bytes + info.compress_size
    if free > directory_at:
        raise ImageError(
            "The ZIP archive's entries lie over its directory, as in a ZIP bomb; pack it again."
        )


def _read(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo]) -> Iterator[Entry]:
    seen: set[str] = set()
    unpacked = 0
    for info in entries:
        name = info.orig_filename
        if _is_left_out(name):
            continue
        shown = shown_name(name)
        problem = _problem(info, name, seen)
        seen.add(_same(name))
        content = None
        if problem is None:
            room = MAX_UNPACKED_BYTES - unpacked
            content, n_bytes, problem = _unpack(archive, info, room)
            unpacked += n_bytes
        yield Entry(shown, content, problem)
        del content  # the caller's is the only one left
        if unpacked > MAX_UNPACKED_BYTES:
            return


def _unpack(
    archive: zipfile.ZipFile, info: zipfile.ZipInfo, room: int
) -> tuple[bytes | None, int, str | None]:
    """Content or problem of one entry, and how many bytes came out of it."""
    ratio_limit = max(RATIO_FREE_BYTES, MAX_RATIO * info.compress_size)
    limit = min(MAX_ENTRY_BYTES, room, ratio_limit)
    content = bytearray()
    try:
        with archive.open(info) as file:
            while len(content) <= limit and (chunk := file.read(_CHUNK_BYTES)):
                content += chunk
    except MemoryError:
        return None, 0, "It does not fit into memory; send a smaller picture."
    except Exception:  # zipfile and zlib raise half a dozen types where headers and bytes disagree
        return None, len(content), "It is damaged inside the archive; pack it again."
    problem = _limit_problem(len(content), room, ratio_limit)
    inner = detect_file_type(bytes(content[:512]))
    if problem is None and inner in ARCHIVE_TYPES:
        problem = f"It is itself an archive ({inner}), not opened inside another; send it alone."
    return None if problem else bytes(content), len(content), problem


def _limit_problem(n_bytes: int, room: int, ratio_limit: int) -> str | None:
    """Which limit the bytes that came out of one entry break."""
    if n_bytes > room:
        return (
            f"With it the archive unpacks to more than {MAX_UNPACKED_BYTES // 2**20:,} MiB, the "
            "limit; it and what follows are left out."
        )
    if n_bytes > MAX_ENTRY_BYTES:
        return (
            f"It unpacks to more than {MAX_ENTRY_BYTES // 2**20} MiB, the limit for one picture; "
            "send a smaller copy."
        )
    if n_bytes > ratio_limit:
        return (
            f"It unpacks to more than {MAX_RATIO} times its packed size, as ZIP bombs do; "
            "send it by itself."
        )
    return None if n_bytes else "It is empty; pack it again."


def _problem(info: zipfile.ZipInfo, name: str, seen: set[str]) -> str | None:
    """What is wrong with an entry before it is unpacked."""
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        return "It is a link and no file; pack the picture itself."
    if stat.S_IFMT(mode) not in (0, stat.S_IFREG):
        return "It is a device or a pipe and no file; pack the picture itself."
    if not _is_plain(name):
        return (
            "Its name leads out of the archive or holds control characters; "
            "pack it under a plain name."
        )
    if _same(name) in seen:
        return "The archive has another file of the same name; give each its own."
    if info.flag_bits & _ENCRYPTED:
        return "It is encrypted; pack it without a password."
    if info.compress_type not in _METHODS:
        return (
            f"It is packed by method {info.compress_type}; stored and deflated files are read, so "
            "pack it the usual way."
        )
    if info.file_size > MAX_ENTRY_BYTES:
        return (
            f"It is {info.file_size / 2**20:,.0f} MiB, at most {MAX_ENTRY_BYTES // 2**20} MiB are "
            "read of one picture; send a smaller copy."
        )
    return None


def _is_left_out(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    last = parts[-1].lower()
    return not last or last in _SYSTEM_NAMES or last.startswith("._") or "__MACOSX" in parts


def _is_plain(name: str) -> bool:
    return (
        "\\" not in name
        and not name.startswith("/")
        and not _DRIVE.match(name)
        and ".." not in name.split("/")
        and not any(_is_control(character) for character in name)
    )


def _is_control(character: str) -> bool:
    """Control and format characters, surrogates, unassigned: a name's letters could be turned."""
    return unicodedata.category(character)[0] == "C" or character in "\u2028\u2029"


def _same(name: str) -> str:
    """Equal for names that some file system takes for one."""
    return unicodedata.normalize("NFC", name.replace("\\", "/")).casefold()


def shown_name(name: str) -> str:
    """A name that is safe to show: no drive, no `..`, no control characters, not too long."""
    text = "".join("?" if _is_control(c) else c for c in name.replace("\\", "/"))
    parts = [p for p in _DRIVE.sub("", text).split("/") if p not in ("", ".", "..")]
    shown = "/".join(parts) or "?"
    if len(shown) > MAX_NAME_CHARS:
        shown = "…" + shown[-(MAX_NAME_CHARS - 1) :]
    return shown
