"""Stored DICOM values -> grey levels, by the tables of the header.

Everything is worked out once for each value that 8 or 16 bits can have and then looked up, so an
image's size costs one lookup a pixel. Section numbers are those of DICOM PS3.3.

Windows are pydicom's. Tables are not: `apply_voi` and `apply_color_lut` of pydicom 3.0 give values
beyond an 8-bit table its first entries again, and 12-bit modality or padded palette tables fail.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_windowing

from core.errors import UserError

_FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
_BLOCK_PX = 2**20


@dataclass(frozen=True)
class _Table:
    """A table (LUT) of the header: the entry of `first`, of the value after it, and so on."""

    first: int
    entries: np.ndarray  # float64
    bits: int

    def look_up(self, values: np.ndarray) -> np.ndarray:
        """The entry of each value; those beyond an end have the entry at that end."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        return self.entries[index.astype(np.int64)]


class ShadeError(UserError):
    """A table or window of the header that cannot be used; one sentence."""


def grey_pixels(
    array: np.ndarray,
    header: Dataset,
    *,
    stored_bits: int,
    signed: bool,
    inverted: bool,
    little_endian: bool,
) -> tuple[np.ndarray, str]:
    """Stored values (rows, columns) -> uint8 of the same shape, and in words which window it was.

    Raises ShadeError.
    """
    stored = _all_values(array.dtype)
    present = _present(array)
    padding = _padding(header, stored, signed)
    values = _modality(header, stored.astype(np.float64), signed, little_endian)
    shown = present & ~padding
    if not shown.any():
        shown = present
    shade, window = _shade(header, values, shown, stored_bits, signed, little_endian)
    grey = np.rint(np.clip(shade, 0, 1) * 255).astype(np.uint8)
    if inverted:
        grey = 255 - grey
    grey[padding] = 0
    return look_up(grey, array), window


def colour_to_bytes(array: np.ndarray, stored_bits: int) -> np.ndarray:
    """RGB of any depth (rows, columns, 3) -> uint8."""
    if stored_bits == 8 and array.dtype == np.uint8:
        return array
    top = 2**stored_bits - 1
    table = np.rint(np.clip(_all_values(array.dtype), 0, top) * (255 / top)).astype(np.uint8)
    return look_up(table, array)


def look_up(table: np.ndarray, array: np.ndarray) -> np.ndarray:
    """The table's row for each stored value; table: a row for each of `_all_values`."""
    out = np.empty(array.shape + table.shape[1:], table.dtype)
    for rows, block in _blocks(array):
        out[rows] = table[block]
    return out


def palette_table(header: Dataset, dtype: np.dtype, little_endian: bool) -> np.ndarray:
    """uint8 (values, 3): the colour of each stored value (C.7.6.3.1.5 and .6), by unsigned view."""
    stored = _all_values(dtype)
    colours = np.zeros((len(stored), 3), np.uint8)
    for c, name in enumerate(("Red", "Green", "Blue")):
        keyword = f"{name}PaletteColorLookupTable"
        descriptor = header.get(f"{keyword}Descriptor")
        data = header.get(f"{keyword}Data")
        if descriptor is None or data is None:
            raise ShadeError(
                "The DICOM picture's colour table is missing or segmented, which is not read; "
                "export it as RGB."
            )
        table = _read_table(descriptor, data, dtype.kind == "i", little_endian)
        # 8-bit entries are at times written as 16, in the low or the high byte.
        top = 65535 if table.bits > 8 or table.entries.max() > 255 else 255
        colours[:, c] = np.rint(table.look_up(stored) * (255 / top))
    return colours


def _all_values(dtype: np.dtype) -> np.ndarray:
    """Every value of an 8 or 16 bit type as int64, ordered as its unsigned view counts."""
    dtype = np.dtype(dtype)
    count = np.arange(2 ** (8 * dtype.itemsize), dtype=f"u{dtype.itemsize}")
    return count.view(dtype.newbyteorder("=")).astype(np.int64)


def _blocks(array: np.ndarray) -> Iterator[tuple[slice, np.ndarray]]:
    """Slices of rows and their unsigned values: one index for all is eight bytes a pixel."""
    unsigned = array.view(f"u{array.dtype.itemsize}")
    step = max(1, _BLOCK_PX // max(1, array[0].size))
    for start in range(0, len(array), step):
        rows = slice(start, start + step)
        yield rows, unsigned[rows]


def _present(array: np.ndarray) -> np.ndarray:
    """bool: which of all values the image has."""
    present = np.zeros(2 ** (8 * array.dtype.itemsize), bool)
    for _, block in _blocks(array):
        present[block.ravel()] = True
    return present


def _padding(header: Dataset, stored: np.ndarray, signed: bool) -> np.ndarray:
    """bool: the values that stand for no image at all (C.7.5.1.1.2)."""
    value, limit = header.get("PixelPaddingValue"), header.get("PixelPaddingRangeLimit")
    if value is None or isinstance(value, (bytes, str)):
        return np.zeros(len(stored), bool)
    ends = [_signed(int(value), signed)]
    if limit is not None and not isinstance(limit, (bytes, str)):
        ends.append(_signed(int(limit), signed))
    return (stored >= min(ends)) & (stored <= max(ends))


def _signed(value: int, signed: bool) -> int:
    """A value that may have been read as unsigned although the pixels are signed."""
    return value - 65536 if signed and value > 32767 else value


def _modality(header: Dataset, values: np.ndarray, signed: bool, little_endian: bool) -> np.ndarray:
    """C.11.1: modality LUT, or slope and intercept, or nothing."""
    item = _first_item(header, "ModalityLUTSequence")
    if item is not None:
        return _item_table(item, signed, little_endian).look_up(values)
    slope = _first_number(header, "RescaleSlope")
    intercept = _first_number(header, "RescaleIntercept")
    if slope is None and intercept is None:
        return values
    slope = 1.0 if slope is None else slope
    if slope == 0:
        raise ShadeError("The DICOM header's RescaleSlope is 0, which leaves nothing to show.")
    return values * slope + (0.0 if intercept is None else intercept)


def _shade(
    header: Dataset,
    values: np.ndarray,
    shown: np.ndarray,
    stored_bits: int,
    signed: bool,
    little_endian: bool,
) -> tuple[np.ndarray, str]:
    """Values -> 0 (black) to 1 (white), and which way it was done."""
    item = _first_item(header, "VOILUTSequence")
    if item is not None:
        table = _item_table(item, bool(values.min() < 0), little_endian)
        shade = table.look_up(values) / max(2**table.bits - 1, int(table.entries.max()))
        if np.ptp(shade[shown]) > 0:
            return shade, "VOI LUT"
    center = _first_number(header, "WindowCenter")
    width = _first_number(header, "WindowWidth")
    note = ""
    if center is not None and width is not None:
        function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
        function = function if function in _FUNCTIONS else "LINEAR"
        words = f"center {center:g}, width {width:g}, {function}"
        if width > 0:
            shade = _window(values, center, width, function)
            grey = np.rint(shade[shown] * 255)
            if np.ptp(grey) > 0 or np.ptp(values[shown]) == 0:
                return shade, words
        note = f" (the header's window, {words}, shows nothing)"
    rescaled = "RescaleSlope" in header or "ModalityLUTSequence" in header
    if stored_bits <= 8 and not rescaled and not note:
        low = -(2 ** (stored_bits - 1)) if signed else 0
        return (values - low) / (2**stored_bits - 1), "none; grey levels kept"
    low, high = values[shown].min(), values[shown].max()
    words = f"none; the picture's own range, {low:g} to {high:g}{note}"
    if not np.isfinite(high - low):
        raise ShadeError("The DICOM header's rescaling gives values that are no numbers.")
    return (values - low) / ((high - low) or 1.0), words


def _window(values: np.ndarray, center: float, width: float, function: str) -> np.ndarray:
    """0 to 1 by C.11.2.1.2.1 (LINEAR), C.11.2.1.3.1 (SIGMOID) or C.11.2.1.3.2 (LINEAR_EXACT)."""
    window = Dataset()
    window.PhotometricInterpretation = "MONOCHROME2"
    window.BitsStored, window.PixelRepresentation = 1, 0  # its black and white: 0 and 1
    window.VOILUTFunction, window.WindowCenter = function, center
    # A LINEAR window below 1 breaks the standard; as one of 1 it is a threshold.
    window.WindowWidth = max(width, 1.0) if function == "LINEAR" else width
    with np.errstate(over="ignore"):
        return apply_windowing(values, window)


def _item_table(item: Dataset, signed: bool, little_endian: bool) -> _Table:
    return _read_table(item.get("LUTDescriptor"), item.get("LUTData"), signed, little_endian)


def _read_table(descriptor: Any, data: Any, signed: bool, little_endian: bool) -> _Table:
    """Raises ShadeError."""
    order = "<" if little_endian else ">"
    if isinstance(descriptor, (bytes, bytearray)):
        descriptor = np.frombuffer(descriptor[: len(descriptor) // 2 * 2], f"{order}u2").tolist()
    if descriptor is None or data is None or len(descriptor) != 3:
        raise ShadeError("A table (LUT) of the DICOM header is damaged; export it again.")
    count, first, bits = (int(number) for number in descriptor)
    count = (count % 65536) or 65536
    if isinstance(data, (bytes, bytearray)):
        wide = len(data) >= 2 * count
        even = data if not wide else data[: 2 * count]
        entries = np.frombuffer(even, f"{order}u2" if wide else "u1")
    else:
        entries = np.atleast_1d(np.asarray(data, np.float64))
    if not 8 <= bits <= 16 or len(entries) < count:
        raise ShadeError("A table (LUT) of the DICOM header is damaged; export it again.")
    entries = entries[:count].astype(np.float64)
    entries = np.where(entries < 0, entries + 65536, entries)
    return _Table(_signed(first, signed), entries, bits)


def _first_item(header: Dataset, keyword: str) -> Dataset | None:
    sequence = header.get(keyword)
    return sequence[0] if sequence else None


def _first_number(header: Dataset, keyword: str) -> float | None:
    """The first of possibly several values as a finite float; None where there is none."""
    value = header.get(keyword)
    if value is None or value == "":
        return None
    if not isinstance(value, (str, bytes)) and hasattr(value, "__len__"):
        if not len(value):
            return None
        value = value[0]
    number = float(value)
    if not np.isfinite(number):
        raise ShadeError(f"The DICOM header's {keyword} is no number; export it again.")
    return number
