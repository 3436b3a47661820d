"""Files that somebody could send to harm: bombs, polyglots, lying headers, cut-off files."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib

import numpy as np
from PIL import Image

PNG_START = b"\x89PNG\r\n\x1a\n"


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        PNG_START
        + png_chunk(b"IHDR", header)
        + png_chunk(b"IDAT", zlib.compress(b"\0" * 100))
        + png_chunk(b"IEND", b"")
    )


def png_with(chunks: bytes, side_px: int = 40) -> bytes:
    """A whole grey PNG with further chunks behind its header."""
    buffer = io.BytesIO()
    Image.fromarray(np.full((side_px, side_px), 90, np.uint8)).save(buffer, "PNG")
    data = buffer.getvalue()
    return data[:33] + chunks + data[33:]


def text_bomb(n_bytes: int) -> bytes:
    """A PNG with one compressed text of so many bytes."""
    packed = zlib.compress(b"\0" * n_bytes, 9)
    return png_with(png_chunk(b"zTXt", b"Comment\0\0" + packed))


def text_flood(n_chunks: int) -> bytes:
    """A PNG with many texts just below Pillow's limit for one."""
    packed = zlib.compress(b"a" * (2**20 - 16), 9)
    return png_with(png_chunk(b"zTXt", b"Comment\0\0" + packed) * n_chunks)


def profile_bomb(n_bytes: int) -> bytes:
    """A PNG whose colour profile unpacks to so many bytes."""
    packed = zlib.compress(b"\0" * n_bytes, 9)
    return png_with(png_chunk(b"iCCP", b"profile\0\0" + packed))


def tiff(
    width: int,
    height: int,
    strip: bytes,
    *,
    compression: int = 1,
    further: dict[int, int] | None = None,
    next_ifd: int = 0,
) -> bytes:
    """A grey 8-bit little-endian TIFF of one strip, or of one tile where `further` has tags of
    tiles (322 to 325); every tag is one long."""
    tags = {
        256: width,
        257: height,
        258: 8,
        259: compression,
        262: 1,
        273: 0,
        277: 1,
        278: height,
        279: len(strip),
        **(further or {}),
    }
    if 324 in tags:
        del tags[273], tags[278], tags[279]
    start = 8 + 2 + 12 * len(tags) + 4
    tags[324 if 324 in tags else 273] = start
    entries = b"".join(struct.pack("<HHLL", tag, 4, 1, tags[tag]) for tag in sorted(tags))
    return (
        b"II*\0" + struct.pack("<LH", 8, len(tags)) + entries + struct.pack("<L", next_ifd) + strip
    )


def tiff_chain(n_frames: int, *, circular: bool = False) -> bytes:
    """A TIFF of many directories that all show the same strip; circular: the last leads back."""
    side = 40
    strip = bytes(side * side)
    size = 2 + 12 * 9 + 4
    out = [b"II*\0" + struct.pack("<L", 8)]
    for i in range(n_frames):
        last = i == n_frames - 1
        following = (8 if circular else 0) if last else 8 + (i + 1) * size
        values = (side, side, 8, 1, 1, 8 + n_frames * size, 1, side, len(strip))
        names = (256, 257, 258, 259, 262, 273, 277, 278, 279)
        entries = b"".join(
            struct.pack("<HHLL", tag, 4, 1, value) for tag, value in zip(names, values, strict=True)
        )
        out.append(struct.pack("<H", 9) + entries + struct.pack("<L", following))
    return b"".join(out) + strip


def webp_header(width: int, height: int) -> bytes:
    """A WebP (VP8X) that claims a canvas and holds one small frame."""
    buffer = io.BytesIO()
    Image.new("RGB", (40, 40)).save(buffer, "WEBP", lossless=True)
    frame = buffer.getvalue()[12:]
    canvas = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBP" + b"VP8X" + struct.pack("<L", 10) + b"\0\0\0\0" + canvas + frame
    return b"RIFF" + struct.pack("<L", len(body)) + body


def jpeg_header(width: int, height: int) -> bytes:
    """A small JPEG whose frame header claims another size."""
    buffer = io.BytesIO()
    Image.new("L", (40, 40), 90).save(buffer, "JPEG")
    data = bytearray(buffer.getvalue())
    at = data.index(b"\xff\xc0") + 5
    data[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(data)


def many_scans(n_scans: int) -> bytes:
    """A progressive JPEG whose last scan comes again and again."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    Image.fromarray(pixels).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()
    last = data.rindex(b"\xff\xda")
    return data[:last] + data[last:-2] * n_scans + data[-2:]


def bmp_header(width: int, height: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (40, 40)).save(buffer, "BMP")
    data = bytearray(buffer.getvalue())
    data[18:26] = struct.pack("<ll", width, height)
    return bytes(data)


def zip_of(*entries: tuple[str | zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED):
    """An archive of these entries as they are, whatever their names."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return buffer.getvalue()


def zip_link(name: str, target: str) -> tuple[zipfile.ZipInfo, bytes]:
    info = zipfile.ZipInfo(name)
    info.create_system = 3
    info.external_attr = 0o120777 << 16
    return info, target.encode()


def overlapping_zip(n_entries: int, content: bytes) -> bytes:
    """Many directory entries for the bytes of one (the kernel of Fifield's bomb, WOOT 2019)."""
    single = zip_of(("a.png", content))
    end = single.rindex(b"PK\x05\x06")
    start = struct.unpack_from("<L", single, end + 16)[0]
    central = single[start:end]
    directory = b"".join(
        central.replace(b"a.png", f"{i:05d}".encode(), 1) for i in range(n_entries)
    )
    record = struct.pack(
        "<4s4H2LH", b"PK\x05\x06", 0, 0, n_entries, n_entries, len(directory), start, 0
    )
    return single[:start] + directory + record


def patch_end(data: bytes, **values: int) -> bytes:
    """An archive whose end record says something else: n_here, n_entries, size, start."""
    offsets = {
        "n_here": (8, "<H"),
        "n_entries": (10, "<H"),
        "size": (12, "<L"),
        "start": (16, "<L"),
    }
    out = bytearray(data)
    end = data.rindex(b"PK\x05\x06")
    for name, value in values.items():
        offset, kind = offsets[name]
        struct.pack_into(kind, out, end + offset, value)
    return bytes(out)


def patch_central(data: bytes, name: str, **values: int) -> bytes:
    """An archive whose directory says something else of one entry: flags, method, file_size."""
    offsets = {
        "flags": (8, "<H"),
        "method": (10, "<H"),
        "packed": (20, "<L"),
        "file_size": (24, "<L"),
    }
    out = bytearray(data)
    at = data.rindex(name.encode()) - 46
    assert data[at : at + 4] == b"PK\x01\x02"
    for field, value in values.items():
        offset, kind = offsets[field]
        struct.pack_into(kind, out, at + offset, value)
    return bytes(out)
