"""Bytes -> validated grey pixels, and grey pixels -> the square that the models see.

The format is told by the content, never by the file's name. Every limit is checked on the header,
before any pixel is decoded, and every failure is one `ImageError` with one plain sentence.
"""

from __future__ import annotations

import io
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from core.imageio.file_type import DICOM, IMAGE_TYPES, detect_file_type, second_file_type, webp_size
from core.imageio.picture import (
    MAX_BYTES,
    MAX_PIXELS,
    NO_MEMORY,
    Decoded,
    ImageError,
    check_size,
    measure_colour,
)

# An image of 50 million pixels has some thousands of PNG chunks and a dozen JPEG scans; each
# costs time, a scan as much as a whole image.
MAX_PNG_CHUNKS = 100_000
MAX_JPEG_SCANS = 200
# Counting on would only cost time: one image is all that is read.
_FRAMES_COUNTED = 100
# Stands in the names of cached pixels: raise it whenever the same bytes would give other pixels.
DECODER_VERSION = 1

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "WEBP")
_FORMATS_TEXT = "PNG, JPEG, TIFF, BMP, WebP or DICOM"
SYNTHETIC_CHUNK = (
    "Synthetic"  # the text chunk that core.datasets.phantom.generate writes into its PNGs
)
_EXIF_ORIENTATION = 0x0112
_TIFF_PHOTOMETRIC = 262

# Our own limits are below Pillow's, so its warning about large images would only be noise.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


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
    """Decode the bytes of one image to upright grey uint8 pixels. Raises ImageError.

    8-bit images keep their grey levels (colour by ITU-R 601 luma; transparency over black; CMYK
    through RGB). Deeper ones (16-bit, 32-bit, float) are scaled linearly so that their own
    smallest value becomes 0 and their largest 255: no percentiles, no window, no clipping. DICOM
    is shown as its header says (core/imageio/dicom.py).
    """
    _check_bytes(len(data))
    kind = detect_file_type(data)
    other = second_file_type(data, kind)
    if other is not None:
        raise ImageError(
            f"The file is {kind} and {other} at once, which no camera or scanner writes; "
            "open the picture and save it anew."
        )
    if kind == DICOM:
        from core.imageio.dicom import decode_dicom  # half a second, which only DICOM needs

        return decode_dicom(data)
    _check_before_opening(data, kind)
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            check_size(*image.size)
            n_frames = _count_frames(image)
            if n_frames > 1:
                many = f"more than {_FRAMES_COUNTED}" if n_frames > _FRAMES_COUNTED else n_frames
                raise ImageError(
                    f"The file holds several pictures ({many} frames) where one was "
                    "expected; save the one that is meant as a file of its own."
                )
            file_format, mode = str(image.format), image.mode
            # Loading may turn a TIFF upright by itself, so the orientation is read after it.
            image.load()
            pixels, colour = _grey(image)
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
        raise ImageError(_unidentified(kind)) from error
    except MemoryError as error:
        raise ImageError(NO_MEMORY) from error
    except Exception as error:
        # Pillow's decoders raise a dozen unrelated types on damaged files.
        raise ImageError(_damaged(error)) from error
    height, width = pixels.shape
    return Decoded(pixels, width, height, file_format, mode, synthetic, colour)


def resize_square(grey: np.ndarray, size_px: int) -> np.ndarray:
    """Stretch grey uint8 (height, width) to uint8 (size_px, size_px).

    Never padded: the borders would tell the model which images were not square. Bilinear with
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


def _check_before_opening(data: bytes, kind: str | None) -> None:
    """What Pillow would do at length, or set memory aside for, as it opens the file."""
    if kind == "PNG":
        n_chunks, at = 0, 8
        while at + 8 <= len(data) and n_chunks <= MAX_PNG_CHUNKS:
            at += 12 + int.from_bytes(data[at : at + 4], "big")
            n_chunks += 1
        if n_chunks > MAX_PNG_CHUNKS:
            raise ImageError(
                f"The PNG is cut into more than {MAX_PNG_CHUNKS:,} pieces (chunks), which is the "
                "limit; save the picture anew."
            )
    elif kind == "JPEG":
        n_scans = data.count(b"\xff\xda")
        if n_scans > MAX_JPEG_SCANS:
            raise ImageError(
                f"The JPEG builds its picture up in {n_scans:,} scans, at most {MAX_JPEG_SCANS} "
                "are read; save the picture anew."
            )
    elif kind == "WebP":
        size = webp_size(data)
        if size is not None:
            check_size(*size)


def _count_frames(image: Image.Image) -> int:
    """Frames in an opened file, counted up to one more than _FRAMES_COUNTED."""
    if image.format != "TIFF":
        return getattr(image, "n_frames", 1)
    # Pillow counts a TIFF's frames by reading all of them, however many a file chains together.
    n_frames = 1
    while n_frames <= _FRAMES_COUNTED:
        try:
            image.seek(n_frames)
        except EOFError:
            break
        n_frames += 1
    return n_frames


def _grey(image: Image.Image) -> tuple[np.ndarray, float]:
    """Loaded image of any mode -> uint8 (height, width), and its colourfulness."""
    if image.mode.startswith("I") or image.mode == "F":
        grey = _scale_deep(np.asarray(image))
        # Pillow inverts white-is-zero TIFFs at 8 bits but not at 16.
        tags = getattr(image, "tag_v2", {})
        return (255 - grey if tags.get(_TIFF_PHOTOMETRIC) == 0 else grey), 0.0
    if image.mode == "LAB":
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        rgb = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
        return np.array(image.getchannel("L")), measure_colour(np.asarray(rgb))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        black = Image.new("RGBA", image.size, (0, 0, 0, 255))
        image = Image.alpha_composite(black, image)
    if image.mode not in ("1", "L", "RGB"):
        image = image.convert("RGB")
    colour = measure_colour(np.asarray(image)) if image.mode == "RGB" else 0.0
    return np.array(image.convert("L")), colour


def _scale_deep(values: np.ndarray) -> np.ndarray:
    """Deep values (height, width) -> uint8 by their own range; a constant image becomes 0."""
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


def _unidentified(kind: str | None) -> str:
    """Why Pillow found no image, in one sentence."""
    if kind in IMAGE_TYPES:
        return f"The file starts like a {kind} but is damaged or cut off; fetch it again."
    if kind is not None:
        return f"The content is {kind}, which is not read; save it as {_FORMATS_TEXT}."
    return f"The content is no picture that is read here; {_FORMATS_TEXT} is expected."


def _damaged(error: Exception) -> str:
    """What Pillow's error means, in one sentence."""
    found = _one_line(error)
    if "Decompressed data too large" in found or "MAX_TEXT_MEMORY" in found:
        return (
            "The text or the colour profile beside the picture unpacks to more than "
            f"{PngImagePlugin.MAX_TEXT_CHUNK // 2**20} MiB a piece or "
            f"{PngImagePlugin.MAX_TEXT_MEMORY // 2**20} MiB in all; save the picture without it."
        )
    return f"The picture is damaged or cut off ({found}); fetch the file again."


def _one_line(error: Exception) -> str:
    printable = "".join(c if c.isprintable() else " " for c in str(error))
    return " ".join(printable.split())[:120].rstrip(". ") or type(error).__name__
