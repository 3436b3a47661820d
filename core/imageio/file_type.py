"""What a file is by its content, and whether it is two things at once.

Only bytes are looked at, never the name, and nothing is decoded here.
"""

from __future__ import annotations

import re
import struct

# (offset, first bytes, name); the first that fits counts.
_SIGNATURES = (
    (0, b"\x89PNG", "PNG"),
    (0, b"\xff\xd8", "JPEG"),
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (0, b"II+\x00", "TIFF"),
    (0, b"MM\x00+", "TIFF"),
    (8, b"WEBP", "WebP"),
    (0, b"BM", "BMP"),
    (0, b"GIF8", "GIF"),
    (0, b"%PDF", "PDF"),
    (0, b"PK\x03\x04", "ZIP"),
    (0, b"PK\x05\x06", "ZIP"),
    (0, b"PK\x07\x08", "ZIP"),
    (0, b"\x1f\x8b", "gzip"),
    (0, b"7z\xbc\xaf\x27\x1c", "7z"),
    (0, b"Rar!\x1a\x07", "RAR"),
    (0, b"BZh", "bzip2"),
    (0, b"\xfd7zXZ\x00", "xz"),
    (257, b"ustar", "tar"),
    (4, b"ftyp", "HEIC, AVIF or video"),
    (0, b"\x00\x00\x00\x0cjP", "JPEG 2000"),
    (0, b"\xff\x4f\xff\x51", "JPEG 2000"),
    (0, b"MZ", "Windows program"),
    (0, b"\x7fELF", "Linux program"),
    (0, b"#!", "script"),
    (0, b"<", "HTML or XML"),
    (0, b"version https://git-lfs", "Git LFS pointer"),
)
IMAGE_TYPES = ("PNG", "JPEG", "TIFF", "WebP", "BMP")
ARCHIVE_TYPES = ("ZIP", "gzip", "7z", "RAR", "bzip2", "xz", "tar")
DICOM = "DICOM"
_DICOM_PREFIX_AT = 128
# Programs look for a PDF's first line in the first kilobyte, and for its last one in the last.
_PDF_WINDOW = 1024
_HTML = re.compile(rb"<(?:!doctype\s+html|html|script)[\s>]", re.IGNORECASE)
_ZIP_END = b"PK\x05\x06"
_ZIP_END_BYTES, _ZIP_COMMENT_BYTES = 22, 65535
_EXPLICIT_VRS = frozenset(b"AE AS AT CS DA DS DT IS LO LT PN SH SL SS ST TM UI UL US".split())


def detect_file_type(data: bytes) -> str | None:
    """The name of what the content starts as, such as "PNG" or "ZIP"; None where nothing fits.

    DICOM comes before all others: its first 128 bytes may be anything (see `second_file_type`).
    """
    if data[_DICOM_PREFIX_AT : _DICOM_PREFIX_AT + 4] == b"DICM":
        return DICOM
    file_type = _starts_as(data)
    return DICOM if file_type is None and is_bare_dataset(data) else file_type


def second_file_type(data: bytes, file_type: str | None) -> str | None:
    """What else an image of that type would be taken for by other programs; None: nothing.

    Looked for: another format's first bytes in a DICOM preamble, a ZIP directory at the end, a
    PDF, a web page, and another image, an archive or a program behind the image's own end.
    """
    if file_type == DICOM and data[_DICOM_PREFIX_AT : _DICOM_PREFIX_AT + 4] == b"DICM":
        other = _starts_as(data[:_DICOM_PREFIX_AT])
        # Scanners do write a TIFF header there (PS3.10 7.1), most of them one that leads nowhere.
        if other is not None and (other != "TIFF" or _has_tiff_image(data)):
            return other
    elif file_type not in (*IMAGE_TYPES, DICOM):
        return None
    if find_zip_end(data) is not None:
        return "ZIP"
    if b"%PDF-" in data[:_PDF_WINDOW] or (
        b"%%EOF" in data[-_PDF_WINDOW:] and re.search(rb"%PDF-\d\.\d", data)
    ):
        return "PDF"
    if _HTML.search(data):
        return "HTML"
    end = _end_of_image(data, file_type)
    behind = None if end is None else _starts_as(data[end : end + 512])
    # Two letters are found by chance; what follows an image counts only where it is certain.
    return None if behind in ("BMP", "Windows program", "script", "HTML or XML") else behind


def find_zip_end(data: bytes) -> int | None:
    """Where the end record of a ZIP directory stands, its comment reaching to the file's end."""
    low = max(0, len(data) - _ZIP_END_BYTES - _ZIP_COMMENT_BYTES)
    at = len(data)
    while (at := data.rfind(_ZIP_END, low, at)) >= 0:
        if at + _ZIP_END_BYTES <= len(data):
            (comment_bytes,) = struct.unpack_from("<H", data, at + 20)
            if at + _ZIP_END_BYTES + comment_bytes == len(data):
                return at
    return None


def is_bare_dataset(data: bytes) -> bool:
    """Whether it is DICOM without its 128 bytes of preamble, as old programs wrote it.

    The first three elements must have known groups (file meta or identification), growing tags, a
    known value representation (or none at all), and lengths that stay inside.
    """
    for order in "<>":
        for explicit in (True, False):
            if _has_elements(data, order, explicit):
                return True
    return False


def webp_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a WebP file's first chunk claims; None where it cannot be told.

    Pillow's decoder sets aside the whole canvas as it opens a file.
    """
    chunk, body = data[12:16], data[20:30]
    if len(body) < 10:
        return None
    if chunk == b"VP8X":
        return int.from_bytes(body[4:7], "little") + 1, int.from_bytes(body[7:10], "little") + 1
    if chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if chunk == b"VP8 ":
        width, height = struct.unpack_from("<HH", body, 6)
        return width & 0x3FFF, height & 0x3FFF
    return None


def _starts_as(data: bytes) -> str | None:
    for offset, magic, name in _SIGNATURES:
        if data[offset : offset + len(magic)] == magic:
            return name
    return None


def _has_elements(data: bytes, order: str, explicit: bool) -> bool:
    at, last = 0, -1
    for _ in range(3):
        if at + 8 > len(data):
            return False
        group, element = struct.unpack_from(f"{order}HH", data, at)
        tag = group << 16 | element
        if group not in (2, 8) or tag <= last:
            return False
        if explicit:
            if data[at + 4 : at + 6] not in _EXPLICIT_VRS and data[at + 4 : at + 6] != b"OB":
                return False
            if data[at + 4 : at + 6] == b"OB":
                if at + 12 > len(data):
                    return False
                (length,) = struct.unpack_from(f"{order}L", data, at + 8)
                at += 4
            else:
                (length,) = struct.unpack_from(f"{order}H", data, at + 6)
        else:
            (length,) = struct.unpack_from(f"{order}L", data, at + 4)
        if length > 1024:
            return False
        at, last = at + 8 + length, tag
    return True


def _has_tiff_image(data: bytes) -> bool:
    """Whether the TIFF header leads to a directory with a width (256) and a height (257)."""
    order = "<" if data[:2] == b"II" else ">"
    if data[2:4] in (b"+\x00", b"\x00+"):  # BigTIFF
        at, count, entry, first = struct.unpack_from(f"{order}Q", data, 8)[0], "Q", 20, 8
    else:
        at, count, entry, first = struct.unpack_from(f"{order}L", data, 4)[0], "H", 12, 2
    if at + first > len(data):
        return False
    (n_entries,) = struct.unpack_from(f"{order}{count}", data, at)
    ends = range(at + first, min(at + first + n_entries * entry, len(data) - 2), entry)
    return {256, 257} <= {struct.unpack_from(f"{order}H", data, end)[0] for end in ends[:4096]}


def _end_of_image(data: bytes, file_type: str | None) -> int | None:
    """Where the image's own bytes end, for the formats that say so."""
    if file_type == "PNG":
        end = data.rfind(b"IEND\xaeB\x60\x82")
        return None if end < 0 else end + 8
    if file_type == "JPEG":
        end = data.rfind(b"\xff\xd9")
        return None if end < 0 else end + 2
    if file_type == "WebP":
        return 8 + int.from_bytes(data[4:8], "little")
    if file_type == "BMP":
        return int.from_bytes(data[2:6], "little") or None
    return None
