"""A DICOM file -> upright grey pixels as its header wants them shown, and no word about whom.

Only the tags in `HEADER_TAGS` are ever read; names, dates, numbers and free text stay unread, and
no text of a header gets into a result or a message unless core/imageio/dicom_header.py lists it.
"""

from __future__ import annotations

import io
import logging
import struct
import warnings
import zlib
from dataclasses import dataclass, field

import numpy as np
from PIL import Image
from pydicom import config, uid
from pydicom.datadict import keyword_for_tag, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from core.imageio.dicom_codecs import CODECS, NATIVE, PixelError, decode_pixels
from core.imageio.dicom_header import read_facts
from core.imageio.dicom_window import (
    ShadeError,
    colour_to_bytes,
    grey_pixels,
    look_up,
    palette_table,
)
from core.imageio.picture import (
    MAX_BYTES,
    NO_MEMORY,
    Decoded,
    ImageError,
    check_size,
    measure_colour,
)

MAX_HEADER_BYTES = 8 * 1024 * 1024
MAX_ELEMENTS = 10_000
_PIXEL_DATA, _FLOAT_PIXEL_DATA = 0x7FE00010, (0x7FE00008, 0x7FE00009)

META_TAGS = ("TransferSyntaxUID", "MediaStorageSOPClassUID")
HEADER_TAGS = (
    "SpecificCharacterSet",  # pydicom reads it whatever is asked for
    "SOPClassUID",
    "Modality",
    "PresentationIntentType",
    "BodyPartExamined",
    "ViewPosition",
    "PatientOrientation",
    "SamplesPerPixel",
    "PhotometricInterpretation",
    "PlanarConfiguration",
    "NumberOfFrames",
    "Rows",
    "Columns",
    "BitsAllocated",
    "BitsStored",
    "HighBit",
    "PixelRepresentation",
    "PixelPaddingValue",
    "PixelPaddingRangeLimit",
    "RescaleIntercept",
    "RescaleSlope",
    "WindowCenter",
    "WindowWidth",
    "VOILUTFunction",
    "RedPaletteColorLookupTableDescriptor",
    "GreenPaletteColorLookupTableDescriptor",
    "BluePaletteColorLookupTableDescriptor",
    "RedPaletteColorLookupTableData",
    "GreenPaletteColorLookupTableData",
    "BluePaletteColorLookupTableData",
    "BurnedInAnnotation",
    "ModalityLUTSequence",
    "VOILUTSequence",
)
_GREY = ("MONOCHROME1", "MONOCHROME2")
_COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
_PALETTE = "PALETTE COLOR"
_DICOMDIR = "1.2.840.10008.1.3.10"

# What pydicom says of odd values repeats them: into no log and onto no screen.
config.settings.reading_validation_mode = config.IGNORE
logging.getLogger("pydicom").setLevel(logging.CRITICAL + 1)  # and all below it
warnings.filterwarnings("ignore", module=r"pydicom|core\.imageio\.dicom")


@dataclass(frozen=True)
class _File:
    """An opened file: its allow-listed header and where its pixel data stand in `body`."""

    header: Dataset
    syntax: str
    body: bytes
    pixels_at: int
    pixel_tag: int
    pixel_vr: str
    pixel_bytes: int
    little_endian: bool
    tags_read: tuple[str, ...]


@dataclass(frozen=True)
class _Shape:
    """The header's numbers about the pixels, checked against the limits."""

    rows: int
    columns: int
    samples: int
    photometric: str
    allocated: int
    stored: int
    signed: bool
    planar: int
    facts: dict[str, str] = field(default_factory=dict)


def decode_dicom(data: bytes) -> Decoded:
    """Decode one single-frame DICOM image of 8 to 16 bits. Raises ImageError.

    Grey images go through modality LUT or rescale, then VOI LUT or the first window (PS3.3
    C.11.1 and C.11.2); without either, 8-bit ones keep their grey levels and deeper ones are
    scaled by their own range. MONOCHROME1 is inverted, padding is black, colour becomes luma.
    """
    try:
        return _decode(data)
    except ImageError:
        raise
    except PixelError as error:  # says the codec's name and sizes, nothing of the header's words
        raise ImageError(str(error)) from None
    except MemoryError:
        raise ImageError(NO_MEMORY) from None
    except RecursionError:
        raise ImageError(
            "The DICOM header is nested too deeply; export the picture without private data."
        ) from None
    except Exception:
        # pydicom's exceptions repeat header values, so nothing of them is said or chained.
        raise ImageError(
            "The DICOM header is damaged or breaks the standard; export the picture again."
        ) from None


def _decode(data: bytes) -> Decoded:
    file = _open(data)
    shape = _check_shape(file)
    array = decode_pixels(
        memoryview(file.body)[file.pixels_at : file.pixels_at + file.pixel_bytes],
        file.syntax,
        rows=shape.rows,
        columns=shape.columns,
        samples_per_pixel=shape.samples,
        photometric_interpretation=shape.photometric,
        bits_allocated=shape.allocated,
        bits_stored=shape.stored,
        pixel_representation=int(shape.signed),
        planar_configuration=shape.planar,
        pixel_vr=file.pixel_vr,
    )
    facts, colour = dict(shape.facts), 0.0
    try:
        if shape.photometric in _GREY:
            pixels, facts["Window"] = grey_pixels(
                array,
                file.header,
                stored_bits=shape.stored,
                signed=shape.signed,
                inverted=shape.photometric == "MONOCHROME1",
                little_endian=file.little_endian,
            )
        else:
            if shape.photometric == _PALETTE:
                table = palette_table(file.header, array.dtype, file.little_endian)
                rgb = look_up(table, array)
            else:
                rgb = colour_to_bytes(array, shape.stored)
            colour = measure_colour(rgb)
            pixels = np.array(Image.fromarray(rgb).convert("L"))
    except ShadeError as error:
        raise ImageError(str(error)) from None
    height, width = pixels.shape
    mode = f"{shape.photometric} {shape.stored} bit"
    return Decoded(
        pixels, width, height, "DICOM", mode, False, colour, facts, tags_read=file.tags_read
    )


def _open(data: bytes) -> _File:
    """Read file meta and allow-listed header. Raises ImageError where no image can come of it."""
    file = io.BytesIO(data)
    has_preamble = data[128:132] == b"DICM"
    file.seek(132 if has_preamble else 0)
    meta = read_dataset(
        file, False, True, stop_when=lambda tag, *_: tag >> 16 != 2, specific_tags=_tags(META_TAGS)
    )
    start = file.tell()
    syntax = str(meta.get("TransferSyntaxUID") or "").strip()
    implicit, little, body = _encoding(data, start, syntax)
    if body is not data:
        start = 0
    syntax = syntax or (uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian)
    if not little:
        syntax = uid.ExplicitVRBigEndian
    walk = _Walk()
    # A view of the beginning: what pydicom walks through has an end, whatever lengths are claimed.
    head = io.BytesIO(body[: start + MAX_HEADER_BYTES])
    head.seek(start)
    is_long = len(body) - start > MAX_HEADER_BYTES
    try:
        header = read_dataset(
            head, implicit, little, stop_when=walk, specific_tags=_tags(HEADER_TAGS)
        )
    except (struct.error, EOFError):
        if is_long:  # the end of the view came in the middle of an element
            raise ImageError(_without_pixels("", is_long)) from None
        raise
    if walk.found is None:
        storage_class = str(header.get("SOPClassUID") or meta.get("MediaStorageSOPClassUID") or "")
        raise ImageError(_without_pixels(storage_class, is_long))
    tag, vr, length = walk.found
    at = head.tell() + (12 if vr in EXPLICIT_VR_LENGTH_32 else 8)
    here = len(body) - at
    read = [*(e.tag for e in meta), *(e.tag for e in header), tag]
    return _File(
        header=header,
        syntax=str(syntax),
        body=body,
        pixels_at=at,
        pixel_tag=tag,
        pixel_vr=vr or "OW",
        pixel_bytes=here if length == 0xFFFFFFFF else min(length, here),
        little_endian=little,
        tags_read=tuple(keyword_for_tag(tag) for tag in read),
    )


class _Walk:
    """Counts the header's elements and stops it at the pixel data."""

    def __init__(self) -> None:
        self.n_elements = 0
        self.found: tuple[int, str | None, int] | None = None

    def __call__(self, tag: int, vr: str | None, length: int) -> bool:
        self.n_elements += 1
        if self.n_elements > MAX_ELEMENTS:
            raise ImageError(
                f"The DICOM header has more than {MAX_ELEMENTS:,} elements, which is the limit; "
                "export the picture without private data."
            )
        tag = int(tag)
        if tag == _PIXEL_DATA or tag in _FLOAT_PIXEL_DATA:
            self.found = tag, vr, length
        return self.found is not None or tag > _PIXEL_DATA


def _tags(keywords: tuple[str, ...]) -> list[int]:
    return [tag for keyword in keywords if (tag := tag_for_keyword(keyword)) is not None]


def _encoding(data: bytes, start: int, syntax: str) -> tuple[bool, bool, bytes]:
    """Implicit VR? Little endian? And the bytes that hold the dataset (inflated where deflated)."""
    if syntax == uid.DeflatedExplicitVRLittleEndian:
        try:
            body = zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[start:], MAX_BYTES + 1)
        except zlib.error:
            raise ImageError(
                "The DICOM file is damaged or cut off: what is deflated in it cannot be unpacked; "
                "fetch the file again."
            ) from None
        if len(body) > MAX_BYTES:
            raise ImageError(
                f"The deflated DICOM file unpacks to more than {MAX_BYTES // 2**20} MiB, which is "
                "the limit; export it with another transfer syntax."
            )
        return False, True, body
    if not syntax:
        vr = data[start + 4 : start + 6]
        if not (vr.isalpha() and vr.isupper()):
            return True, True, data
        # The first group is small, so read in the wrong order it is large.
        return False, int.from_bytes(data[start : start + 2], "little") < 1024, data
    if syntax in NATIVE or syntax in CODECS:
        return syntax == uid.ImplicitVRLittleEndian, syntax != uid.ExplicitVRBigEndian, data
    known = uid.UID(syntax).name if syntax in uid.UID_dictionary else "one that is not known"
    raise ImageError(
        f"The DICOM transfer syntax ({known}) is not read; export the picture uncompressed, or "
        "compressed by JPEG, JPEG-LS, JPEG 2000 or RLE."
    )


def _without_pixels(storage_class: str, is_long: bool) -> str:
    if storage_class == _DICOMDIR:
        return "The file is a DICOMDIR, a list of files and no picture; open the files it lists."
    if is_long:
        return (
            f"The DICOM header is larger than {MAX_HEADER_BYTES // 2**20} MiB, which is the limit; "
            "export the picture without private data."
        )
    # Only a name that pydicom's own table gives: the value itself could be anything.
    known = uid.UID_dictionary.get(storage_class)
    what = f" ({known[0]})" if known else ""
    return f"The DICOM file{what} holds no picture, or is cut off before it; choose an image file."


def _check_shape(file: _File) -> _Shape:
    """The limits, all before any pixel is decoded. Raises ImageError."""
    header = file.header
    if file.pixel_tag in _FLOAT_PIXEL_DATA:
        raise ImageError("The DICOM pixels are floating point; 8 to 16 bit integers are read.")
    n_frames = _number(header, "NumberOfFrames", 1)
    if n_frames > 1:
        raise ImageError(
            f"The DICOM file holds several pictures ({n_frames} frames) where one was expected; "
            "export the one that is meant as a file of its own."
        )
    rows, columns = _number(header, "Rows"), _number(header, "Columns")
    check_size(columns, rows)
    photometric = str(header.get("PhotometricInterpretation") or "").strip().upper()
    if photometric not in (*_GREY, *_COLOUR, _PALETTE):
        raise ImageError(
            "The DICOM picture's photometric interpretation is not read; "
            f"{', '.join((*_GREY, _PALETTE, *_COLOUR))} are."
        )
    samples = _number(header, "SamplesPerPixel", 3 if photometric in _COLOUR else 1)
    if samples != (3 if photometric in _COLOUR else 1):
        raise ImageError(
            f"The DICOM picture has {samples} samples a pixel, which does not fit "
            f"{photometric}; export it again."
        )
    allocated = _number(header, "BitsAllocated")
    stored = _number(header, "BitsStored", allocated)
    if allocated not in (8, 16) or not 1 <= stored <= allocated:
        raise ImageError(
            f"The DICOM pixels have {stored} of {allocated} bits; 8 to 16 bits are read, stored "
            "in 8 or 16."
        )
    if _number(header, "HighBit", stored - 1) != stored - 1:
        raise ImageError(
            "The DICOM pixels do not begin at the lowest bit (an old way of storing them); "
            "export the picture again."
        )
    signed = _number(header, "PixelRepresentation", 0)
    planar = _number(header, "PlanarConfiguration", 0)
    if signed not in (0, 1) or planar not in (0, 1):
        raise ImageError("The DICOM header says neither how signs nor planes are stored.")
    facts = read_facts(header)
    facts |= {"PhotometricInterpretation": photometric, "BitsStored": str(stored)}
    name = CODECS[file.syntax].name if file.syntax in CODECS else "uncompressed"
    facts["TransferSyntaxUID"] = name
    return _Shape(
        rows, columns, samples, photometric, allocated, stored, bool(signed), planar, facts
    )


def _number(header: Dataset, keyword: str, default: int | None = None) -> int:
    """A whole number of the header. Raises ImageError, which names the tag and not its value."""
    try:
        value = header.get(keyword)
        if value is None or value == "":
            if default is not None:
                return default
        else:
            return int(value)
    except Exception:  # the value of a damaged header can be anything, and must not be told
        pass
    raise ImageError(f"The DICOM header has no usable {keyword}; export the picture again.")
