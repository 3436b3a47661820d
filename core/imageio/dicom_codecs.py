"""DICOM pixel data, uncompressed or compressed -> stored values.

One decoder is allowed for each transfer syntax. What a compressed stream says of its own size is
held against the header before its decoder sees it: decoders set memory aside by the stream.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom import uid
from pydicom.encaps import generate_frames
from pydicom.pixels import get_decoder

from core.errors import UserError

MAX_TILES = 65_535
MAX_SCANS = 200


class PixelError(UserError):
    """Pixel data that cannot be decoded; one sentence without any word of the header."""


@dataclass(frozen=True)
class Codec:
    """How one transfer syntax is called and which of pydicom's plugins decodes it."""

    name: str
    plugin: str
    family: str  # whose stream it is: jpeg, j2k or rle


CODECS = {
    str(uid.JPEGBaseline8Bit): Codec("JPEG baseline", "pillow", "jpeg"),
    str(uid.JPEGExtended12Bit): Codec("JPEG extended", "cxr-gdcm", "jpeg"),
    str(uid.JPEGLossless): Codec("JPEG lossless", "gdcm", "jpeg"),
    str(uid.JPEGLosslessSV1): Codec("JPEG lossless SV1", "gdcm", "jpeg"),
    str(uid.JPEGLSLossless): Codec("JPEG-LS", "pyjpegls", "jpeg"),
    str(uid.JPEGLSNearLossless): Codec("JPEG-LS near lossless", "pyjpegls", "jpeg"),
    str(uid.JPEG2000Lossless): Codec("JPEG 2000 lossless", "pylibjpeg", "j2k"),
    str(uid.JPEG2000): Codec("JPEG 2000", "pylibjpeg", "j2k"),
    str(uid.HTJ2KLossless): Codec("HTJ2K lossless", "pylibjpeg", "j2k"),
    str(uid.HTJ2KLosslessRPCL): Codec("HTJ2K lossless RPCL", "pylibjpeg", "j2k"),
    str(uid.HTJ2K): Codec("HTJ2K", "pylibjpeg", "j2k"),
    str(uid.RLELossless): Codec("RLE", "pylibjpeg", "rle"),
}
NATIVE = {
    str(syntax)
    for syntax in (
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    )
}
DECODER_DEPENDENCIES = {uid.JPEGExtended12Bit: ("gdcm>=3.0.10",)}  # pydicom asks a plugin for it


def decode_pixels(source: bytes | memoryview, syntax: str, **options: Any) -> np.ndarray:
    """Stored values (rows, columns) or, as RGB, (rows, columns, 3). Raises PixelError.

    source: the value of Pixel Data. options: what pydicom's decoders ask for, checked before.
    """
    codec = CODECS.get(syntax)
    if codec is None:
        n_bytes = options["rows"] * options["columns"] * options["samples_per_pixel"]
        n_bytes *= options["bits_allocated"] // 8
        if options["photometric_interpretation"] == "YBR_FULL_422":
            n_bytes = n_bytes // 3 * 2
        if len(source) < n_bytes:
            raise PixelError(
                f"The DICOM picture is damaged or cut off: {len(source):,} bytes of pixels where "
                f"{n_bytes:,} are due; fetch the file again."
            )
        source = source[: n_bytes + n_bytes % 2]
    else:
        source = bytes(source)  # pydicom's reading of fragments takes no view
        _check_stream(source, codec, options["rows"], options["columns"])
    decoder = get_decoder(syntax)
    try:
        array, _ = decoder.as_array(
            source,
            index=0,
            decoding_plugin=codec.plugin if codec else "",
            **options | {"number_of_frames": 1, "pixel_keyword": "PixelData"},
        )
    except (MemoryError, KeyboardInterrupt, SystemExit):
        raise
    except BaseException:  # a panic of pylibjpeg-rle, written in Rust, is no Exception
        raise PixelError(_damaged(codec)) from None
    expected: tuple[int, ...] = (options["rows"], options["columns"])
    if options["samples_per_pixel"] == 3:
        expected += (3,)
    if array.shape != expected or array.dtype.kind not in "iu" or array.dtype.itemsize > 2:
        raise PixelError(_damaged(codec))
    return np.ascontiguousarray(array, array.dtype.newbyteorder("="))


def _damaged(codec: Codec | None) -> str:
    how = f", compressed by {codec.name}," if codec else ""
    return (
        f"The DICOM picture is damaged or cut off: its pixels{how} cannot be decoded; "
        "fetch the file again."
    )


def _check_stream(source: bytes, codec: Codec, rows: int, columns: int) -> None:
    """Whole, one frame, and of the size that the header says. Raises PixelError."""
    if source[:4] != b"\xfe\xff\x00\xe0":
        raise PixelError(_damaged(codec))
    _check_fragments(source, codec)
    try:
        stream = next(generate_frames(source, number_of_frames=1))
    except MemoryError:
        raise
    except Exception:
        raise PixelError(_damaged(codec)) from None
    if codec.family == "rle":
        # A run never needs more than one byte in 128 beside what it stands for.
        most = rows * columns * 6 * 2 + 65536
        if len(stream) > most:
            raise PixelError(
                f"The DICOM picture's RLE data are {len(stream):,} bytes, at most {most:,} fit "
                f"{columns}×{rows} px; export it again."
            )
        return
    size = _jpeg_frame(stream)[:2] if codec.family == "jpeg" else _j2k_size(stream)
    if size is None or 0 in size:
        raise PixelError(_damaged(codec))
    if size != (columns, rows):
        raise PixelError(
            f"The DICOM header says {columns}×{rows} px and the {codec.name} data in it "
            f"{size[0]}×{size[1]} px; export the picture again."
        )


def _check_fragments(source: bytes, codec: Codec) -> None:
    """Every fragment lies inside the file: cut-off streams decode to half a picture elsewhere."""
    at = 0
    while at + 8 <= len(source):
        tag, length = struct.unpack_from("<LL", source, at)
        if tag == 0xE0DDFFFE:
            return
        if tag != 0xE000FFFE or at + 8 + length > len(source):
            raise PixelError(_damaged(codec))
        at += 8 + length
    if at != len(source):
        raise PixelError(_damaged(codec))


def _jpeg_frame(stream: bytes) -> tuple[int, int, int]:
    """Width, height and bits a sample of a JPEG or JPEG-LS stream; 0, 0, 0 where it says none."""
    if stream.count(b"\xff\xda") > MAX_SCANS:
        raise PixelError(
            f"The DICOM picture's JPEG data have more than {MAX_SCANS} scans, which is the limit; "
            "export it again."
        )
    at = 2
    while at + 9 <= len(stream) and stream[:2] == b"\xff\xd8" and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker == 0xFF:  # a fill byte
            at += 1
            continue
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            precision, height, width = struct.unpack_from(">BHH", stream, at + 4)
            return width, height, precision
        at += 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return 0, 0, 0


def _j2k_size(stream: bytes) -> tuple[int, int] | None:
    """Width and height of a JPEG 2000 stream (ISO 15444-1 A.5.1), bare or in its box."""
    at = stream.find(b"\xff\x4f\xff\x51", 0, 4096)
    if at < 0 or at + 40 > len(stream):
        return None
    right, bottom, left, top, tile_w, tile_h = struct.unpack_from(">6L", stream, at + 8)
    if not (right > left and bottom > top and tile_w and tile_h):
        return None
    n_tiles = -(-right // tile_w) * -(-bottom // tile_h)
    if n_tiles > MAX_TILES:
        raise PixelError(
            f"The DICOM picture's JPEG 2000 data have {n_tiles:,} tiles, at most {MAX_TILES:,} are "
            "read; export it again."
        )
    return right - left, bottom - top


def is_available(_uid: str) -> bool:
    """What pydicom asks a plugin: whether it can be used."""
    return True


def _decode_frame(stream: bytes, runner: Any) -> bytes:
    """JPEG extended of 8 or 12 bits by GDCM, which pydicom's own plugin does at 8 bits only.

    GDCM tells 12 bits from the stream where it is given the precision that the stream has.
    """
    import gdcm

    precision = _jpeg_frame(stream)[2]
    if (precision > 8) != (runner.bits_allocated > 8):
        raise ValueError("the stream's precision does not fit the header's")
    fragment = gdcm.Fragment()
    fragment.SetByteStringValue(stream)
    fragments = gdcm.SequenceOfFragments.New()
    fragments.AddFragment(fragment)
    element = gdcm.DataElement(gdcm.Tag(0x7FE0, 0x0010))
    element.SetValue(fragments.__ref__())
    image = gdcm.Image()
    image.SetNumberOfDimensions(2)
    image.SetDimensions((runner.columns, runner.rows, 1))
    image.SetDataElement(element)
    kind = gdcm.PhotometricInterpretation.GetPIType(runner.photometric_interpretation)
    image.SetPhotometricInterpretation(gdcm.PhotometricInterpretation(kind))
    if runner.samples_per_pixel > 1:
        image.SetPlanarConfiguration(0)
    syntax = gdcm.TransferSyntax.GetTSType(str(uid.JPEGExtended12Bit))
    image.SetTransferSyntax(gdcm.TransferSyntax(syntax))
    image.SetPixelFormat(
        gdcm.PixelFormat(
            runner.samples_per_pixel,
            runner.bits_allocated,
            precision,
            precision - 1,
            runner.pixel_representation,
        )
    )
    # GDCM hands its bytes over as text.
    return image.GetBuffer().encode("utf-8", "surrogateescape")


get_decoder(uid.JPEGExtended12Bit).add_plugin("cxr-gdcm", (__name__, "_decode_frame"))
