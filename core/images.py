"""Bytes -> validated grey pixels, and grey pixels -> the square that the models see.

The format is told by the content, never by the file's name. Every limit is checked on the header,
before any pixel is decoded, and every failure is one `ImageError` with one plain sentence.
"""

from __future__ import annotations

import io
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

MAX_SIDE_PX = 20_000
MAX_PIXELS = 50_000_000
MAX_BYTES = 64 * 1024 * 1024
MIN_SIDE_PX = 32
# Stands in the names of cached pixels: raise it whenever the same bytes would give other pixels.
DECODER_VERSION = 1

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
_FORMATS_TEXT = "PNG, JPEG, TIFF, BMP or WebP"
SYNTHETIC_CHUNK = "Synthetic"  # the text chunk that core.phantom writes into its PNGs
_EXIF_ORIENTATION = 0x0112
_TIFF_PHOTOMETRIC = 262

# What a file that is not read most likely is: (offset, first bytes, name).
_SIGNATURES = (
    (0, b"\x89PNG", "PNG"),
    (0, b"\xff\xd8", "JPEG"),
    (0, b"II*\x00", "TIFF"),
    (0, b"MM\x00*", "TIFF"),
    (8, b"WEBP", "WebP"),
    (0, b"BM", "BMP"),
    (128, b"DICM", "DICOM"),
    (0, b"GIF8", "GIF"),
    (0, b"%PDF", "PDF"),
    (0, b"PK\x03\x04", "ZIP"),
    (0, b"\x1f\x8b", "gzip"),
    (4, b"ftyp", "HEIC, AVIF or video"),
    (0, b"\x00\x00\x00\x0cjP", "JPEG 2000"),
    (0, b"<", "HTML or XML"),
    (0, b"version https://git-lfs", "Git LFS pointer"),
)

# Our own limits are below Pillow's, so its warning about large pictures would only be noise.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class ImageError(ValueError):
    """A picture that cannot be used; the message is one sentence a person can act on."""


@dataclass(frozen=True)
class Decoded:
    """One picture: `pixels` uint8 (height, width), grey, turned upright; sizes in px.

    synthetic: the file says of itself that it is a drawn phantom; without that word it may be one.
    """

    pixels: np.ndarray
    width: int
    height: int
    format: str
    mode: str
    synthetic: bool = False


def read_image(path: str | Path) -> Decoded:
    """Decode one file. Raises ImageError, whatever is wrong with the file."""
    return decode_image(read_bytes(path))


def read_bytes(path: str | Path) -> bytes:
    """The file's bytes, refused above MAX_BYTES before they are read. Raises ImageError."""
    path = Path(path)
    try:
        if not path.is_file():
            found = "The path is not a file" if path.exists() else "The file does not exist"
            raise ImageError(f"{found}; check that the data set is complete.")
        with path.open("rb") as file:
            # Python sets aside as much memory as is asked for, so ask for what the file has.
            n_bytes = os.fstat(file.fileno()).st_size
            data = file.read(min(n_bytes, MAX_BYTES) + 1)
    except (OSError, ValueError) as error:
        if isinstance(error, ImageError):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise ImageError(f"The file cannot be read ({reason}); check its permissions.") from error
    _check_bytes(len(data))
    return data


def decode_image(data: bytes) -> Decoded:
    """Decode the bytes of one picture to upright grey uint8 pixels. Raises ImageError.

    8-bit pictures keep their grey levels (colour by ITU-R 601 luma; transparency over black; CMYK
    through RGB). Deeper ones (16-bit, 32-bit, float) are scaled linearly so that their own
    smallest value becomes 0 and their largest 255: no percentiles, no window, no clipping.
    """
    _check_bytes(len(data))
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _check_size(*image.size)
            if getattr(image, "is_animated", False) or getattr(image, "n_frames", 1) > 1:
                raise ImageError(
                    f"The file holds several pictures ({image.n_frames} frames) where one was "
                    "expected; save the one that is meant as a file of its own."
                )
            file_format, mode = str(image.format), image.mode
            # Loading may turn a TIFF upright by itself, so the orientation is read after it.
            image.load()
            pixels = _grey(image)
            pixels = _upright(pixels, _orientation(image))
            synthetic = file_format == "PNG" and SYNTHETIC_CHUNK in image.info
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(
            f"The picture is larger than {MAX_PIXELS / 1e6:.0f} million pixels; "
            "save a smaller copy of it."
        ) from error
    except UnidentifiedImageError as error:
        raise ImageError(_unidentified(data)) from error
    except MemoryError as error:
        raise ImageError("The picture does not fit into memory; save a smaller copy.") from error
    except Exception as error:
        # Pillow's decoders raise a dozen unrelated types on damaged files.
        raise ImageError(
            f"The picture is damaged or cut off ({_one_line(error)}); fetch the file again."
        ) from error
    height, width = pixels.shape
    return Decoded(pixels, width, height, file_format, mode, synthetic)


def resize_square(grey: np.ndarray, size_px: int) -> np.ndarray:
    """Stretch grey uint8 (height, width) to uint8 (size_px, size_px).

    Never padded: the borders would tell the model which pictures were not square. Bilinear with
    Pillow's antialiasing when shrinking; training and serving both come through here.
    """
    if grey.ndim != 2 or grey.dtype != np.uint8:
        raise ImageError(
            "Grey uint8 pixels of shape (height, width) were expected. "
            f"Received: {grey.dtype} {grey.shape}."
        )
    if size_px < 1:
        raise ImageError(f"The size must be at least 1 px. Received: {size_px}.")
    if grey.shape == (size_px, size_px):
        return grey.copy()
    image = Image.fromarray(np.ascontiguousarray(grey))
    return np.array(image.resize((size_px, size_px), Image.Resampling.BILINEAR))


def _check_bytes(n_bytes: int) -> None:
    if n_bytes == 0:
        raise ImageError("The file is empty; fetch it again.")
    if n_bytes > MAX_BYTES:
        raise ImageError(
            f"The file is larger than {MAX_BYTES // 2**20} MiB; save a smaller copy of the picture."
        )


def _check_size(width: int, height: int) -> None:
    if max(width, height) > MAX_SIDE_PX or width * height > MAX_PIXELS:
        raise ImageError(
            f"The picture is too large ({width}×{height} px); at most {MAX_SIDE_PX} px a side and "
            f"{MAX_PIXELS / 1e6:.0f} million pixels are read, so save a smaller copy."
        )
    if min(width, height) < MIN_SIDE_PX:
        raise ImageError(
            f"The picture is too small ({width}×{height} px); "
            f"each side must be at least {MIN_SIDE_PX} px."
        )


def _grey(image: Image.Image) -> np.ndarray:
    """Loaded picture of any mode -> uint8 (height, width)."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = _scale_deep(np.asarray(image))
        # Pillow inverts white-is-zero TIFFs at 8 bits but not at 16.
        tags = getattr(image, "tag_v2", {})
        return 255 - grey if tags.get(_TIFF_PHOTOMETRIC) == 0 else grey
    if image.mode == "LAB":
        return np.array(image.getchannel("L"))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    if image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    return np.array(image.convert("L"))


def _scale_deep(values: np.ndarray) -> np.ndarray:
    """Deep values (height, width) -> uint8 by their own range; a constant picture becomes 0."""
    low, high = float(values.min()), float(values.max())
    # A NaN or infinite value anywhere shows in the smallest or the largest one.
    if not np.isfinite(high - low):
        raise ImageError(
            "The picture holds values that are no numbers (NaN or infinite); export it again."
        )
    grey = np.zeros(values.shape, np.uint8)
    if high == low:
        return grey
    step = max(1, 2**20 // values.shape[1])  # by blocks: float64 takes eight times the memory
    for start in range(0, len(values), step):
        block = values[start : start + step].astype(np.float64)
        grey[start : start + step] = np.rint((block - low) * (255.0 / (high - low)))
    return grey


def _orientation(image: Image.Image) -> int:
    """EXIF orientation 1 to 8; 1 where there is none or the EXIF block itself is damaged."""
    try:
        value = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # a broken EXIF block says nothing about the pixels, which did decode
        return 1
    return value if value in range(1, 9) else 1


def _upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn pixels (height, width) as the EXIF orientation says."""
    if orientation in (5, 6, 7, 8):
        pixels = pixels.T
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return np.ascontiguousarray(pixels)


def _unidentified(data: bytes) -> str:
    """Why Pillow found no picture, in one sentence."""
    for offset, magic, name in _SIGNATURES:
        if data[offset : offset + len(magic)] == magic:
            if name.upper() in FORMATS:
                return f"The file starts like a {name} but is damaged or cut off; fetch it again."
            return f"The content is {name}, which is not read; save it as {_FORMATS_TEXT}."
    return f"The content is no picture that is read here; {_FORMATS_TEXT} is expected."


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:120] or type(error).__name__
