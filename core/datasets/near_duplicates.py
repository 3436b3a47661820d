"""Images of one data set that are the same or nearly so, told by thumbnails and by detail.

Between data sets, where frames differ: image_matching.py, by evaluation/external/overlap.py.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
import pandas as pd
from PIL import Image
from scipy.ndimage import gaussian_filter

from core.datasets.schema import ManifestError
from core.imageio.pixel_cache import forget_array

# Chest X-rays all look alike when small: on darkcovidnet 2,052 pairs correlate above 0.90 at 16 px.
# With the shape of the chest taken out (blur of 4 px subtracted at 64 px) the two known pairs have
# 1.00 and 0.93, and the most alike of all others 0.82 (two images of one patient); the threshold
# stands in the middle of that gap.
NEAR_COARSE = 0.90
NEAR_DETAIL = 0.88
_COARSE_PX = 16
_DETAIL_PX = 64
_DETAIL_SIGMA_PX = 4


def find_duplicates(pixels: np.ndarray, image_ids: Sequence[object]) -> pd.DataFrame:
    """Pairs of images that are the same or almost the same.

    pixels: uint8 (n, s, s), s at least 16; image_ids: n unique names. Returns image_id_a,
    image_id_b (in the order given), kind and correlation, most alike first:
    "exact" (equal pixels; each copy is paired with the first of its kind, correlation 1) and
    "near" (one of each kind compared with all others: 16 px thumbnails that correlate above
    NEAR_COARSE are candidates, confirmed where the detail at 64 px correlates above NEAR_DETAIL).
    Brightness and contrast do not matter; mirrored, rotated or strongly cropped copies are not
    found. Memory is about 20 KB an image, beside the pairs. Raises ManifestError.
    """
    ids = [str(image_id) for image_id in image_ids]
    if pixels.ndim != 3 or len(pixels) != len(ids) or min(pixels.shape[1:], default=0) < 16:
        raise ManifestError(
            "Pixels of shape (n, s, s), s at least 16, and n image_ids were expected. "
            f"Received: {pixels.shape} and {len(ids)}."
        )
    pairs: list[tuple[int, int, str, float]] = []
    first: dict[bytes, int] = {}
    for i in range(len(ids)):
        same = first.setdefault(hashlib.sha256(np.ascontiguousarray(pixels[i]).data).digest(), i)
        if same != i:
            pairs.append((same, i, "exact", 1.0))
        if i % 512 == 511:
            forget_array(pixels)  # the pages of a memory map would count as this process' memory
    unique = np.fromiter(first.values(), dtype=np.int64, count=len(first))
    pairs += [(a, b, "near", r) for a, b, r in _near_pairs(pixels, unique)]
    pairs.sort(key=lambda pair: (-pair[3], pair[0], pair[1]))
    return pd.DataFrame(
        [(ids[a], ids[b], kind, correlation) for a, b, kind, correlation in pairs],
        columns=["image_id_a", "image_id_b", "kind", "correlation"],
    ).astype({"correlation": float})


def _near_pairs(pixels: np.ndarray, rows: np.ndarray) -> list[tuple[int, int, float]]:
    """(a, b, correlation) of the near duplicates among `rows` of pixels, a < b."""
    if len(rows) < 2:
        return []
    coarse = _standardised(_thumbnails(pixels, rows, _COARSE_PX))
    found: list[tuple[np.ndarray, np.ndarray]] = []
    for start in range(0, len(rows), 1024):  # blocks keep n x n correlations out of memory
        block = coarse[start : start + 1024] @ coarse[start:].T
        a, b = np.nonzero(np.triu(block > NEAR_COARSE, 1))
        found.append((a + start, b + start))
    a, b = (np.concatenate(side) for side in zip(*found, strict=True))
    if not len(a):
        return []
    members, index = np.unique(np.concatenate([a, b]), return_inverse=True)
    detail = _details(pixels, rows[members])
    index_a, index_b = index[: len(a)], index[len(a) :]
    correlation = np.concatenate(
        [
            np.einsum("ij,ij->i", detail[index_a[i : i + 4096]], detail[index_b[i : i + 4096]])
            for i in range(0, len(a), 4096)
        ]
    )
    return [
        (int(rows[a[i]]), int(rows[b[i]]), min(float(correlation[i]), 1.0))
        for i in np.flatnonzero(correlation > NEAR_DETAIL)
    ]


def _details(pixels: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Standardised detail of each image at _DETAIL_PX: the only thing kept of all of them."""
    detail = np.empty((len(rows), _DETAIL_PX**2), np.float32)
    sigma = (0, _DETAIL_SIGMA_PX, _DETAIL_SIGMA_PX)
    for start in range(0, len(rows), 1024):
        thumbnails = _thumbnails(pixels, rows[start : start + 1024], _DETAIL_PX)
        detail[start : start + 1024] = _standardised(
            thumbnails - gaussian_filter(thumbnails, sigma)
        )
    return detail


def _thumbnails(pixels: np.ndarray, rows: np.ndarray, size_px: int) -> np.ndarray:
    """float32 (len(rows), size_px, size_px), each pixel the mean of the area it covers."""
    out = np.empty((len(rows), size_px, size_px), np.float32)
    for i, row in enumerate(rows):
        image = Image.fromarray(np.ascontiguousarray(pixels[row]))
        out[i] = np.asarray(image.resize((size_px, size_px), Image.Resampling.BOX))
        if i % 512 == 511:
            forget_array(pixels)
    return out


def _standardised(values: np.ndarray) -> np.ndarray:
    """(n, ...) -> (n, d) of mean 0 and length 1, so that products are correlations (0 if flat)."""
    flat = values.reshape(len(values), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True)
    return flat / np.where(length > 1e-3, length, np.inf)
