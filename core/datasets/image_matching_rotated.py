"""Do two images show the same, although one is rotated, mirrored, shifted, zoomed or sheared?

`core.datasets.image_matching` compares collections whose images are upright. Augmented copies are
not: here the patches around corners are rotated by the direction in which the image brightens
(Brown, Szeliski & Winder 2005, "Multi-image matching using multi-scale oriented patches", section
3) and seen from the side that makes them heavier on one half, so that a rotated or mirrored image
has the same patches. Every two patches that are alike propose how one image lies on the other;
what most of them agree about is fitted, and the details of both, laid over each other, have to
correlate.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy.ndimage import gaussian_filter, map_coordinates

from core.datasets.image_matching import (
    MIN_SHARE,
    SAME_IMAGE,
    SIDE_PX,
    find_corners,
    lay_over,
    refine_map,
)

N_VALUES = 64  # of a patch
SCALE = 127.0  # a patch has length 1 and is kept as whole numbers of 1 / SCALE
_SAMPLES = np.arange(-10.5, 11, 3)  # 8 × 8 samples around a corner, 3 px apart
_REACH_PX = 15  # a patch rotated by 45 degrees reaches that far
_STEP = 2 ** (1 / 3)  # between two levels of the pyramid
_LEVELS = 4
_CORNERS = 40  # on the largest level, fewer on the smaller ones
_WIDE_PX = 4.5  # blur before the direction is taken, as in the paper
_ALIKE = 0.85  # correlation of two patches
_MIN_AGREEING = 12  # of about 110; copies have 57 and more, unless two thirds were cut off
_NEAR_PX = 20
_SAME_TURN = 0.85  # cosine of about 30 degrees
_SAME_SCALE = 0.6  # in octaves
# Brighter copies are cut off at white, where nothing is left to correlate: there the tiles that
# still hold detail decide, by their median.
_SAME_TILES = 0.95
_TILE_PX = 24
_MIN_TILES = 12


@dataclass(frozen=True)
class RotatedMatch:
    """The patches of an image, whichever way up it is.

    patches int8 (k, 64), 127 times values of mean 0 and length up to 1; places (k, 2) x and y in
    px of the image at SIDE_PX; angles (k,) radians by which each was rotated; levels (k,) of the
    pyramid, 0 the finest; flipped (k,) which were mirrored.
    """

    patches: np.ndarray
    places: np.ndarray
    angles: np.ndarray
    levels: np.ndarray
    flipped: np.ndarray


def upright_size(width: int, height: int) -> tuple[int, int]:
    """Width and height in px of an image of that shape whose longest side is SIDE_PX."""
    scale = SIDE_PX / max(width, height)
    return max(2 * _REACH_PX + 2, round(width * scale)), max(
        2 * _REACH_PX + 2, round(height * scale)
    )


def describe_rotated(pixels: np.ndarray, width: int, height: int) -> RotatedMatch:
    """The patches of uint8 (h, w) pixels, first brought to the shape width : height.

    Pixels may be an image stretched to a square, as the pixel cache holds it.
    """
    size = upright_size(width, height)
    image = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BILINEAR)
    found: list[tuple[np.ndarray, ...]] = []
    for level in range(_LEVELS):
        small = [round(side * _STEP**-level) for side in size]
        if min(small) <= 2 * _REACH_PX:
            break
        grey = np.asarray(image.resize(small, Image.Resampling.BILINEAR), np.float32)
        x, y = find_corners(grey, round(_CORNERS * _STEP**-level), _REACH_PX)
        patches, angles, flipped = _cut_rotated(grey, x, y)
        places = np.stack([x * size[0] / small[0], y * size[1] / small[1]], axis=1)
        found.append((patches, places.astype(np.float32), angles, np.full(len(x), level), flipped))
    columns = [np.concatenate(column) for column in zip(*found, strict=True)]
    patches, places, angles, levels, flipped = columns
    return RotatedMatch(patches, places, angles, levels.astype(np.int8), flipped)


def match_rotated(a: RotatedMatch, b: RotatedMatch) -> np.ndarray | None:
    """The affine map (3, 2), q = [p 1] @ map, from places in a to places in b, or None."""
    if not len(a.patches) or not len(b.patches):
        return None
    alike = (a.patches.astype(np.float32) @ b.patches.astype(np.float32).T) / SCALE**2
    best = (alike == alike.max(axis=1, keepdims=True)) | (alike == alike.max(axis=0, keepdims=True))
    mine, theirs = np.nonzero(best & (alike > _ALIKE))
    if len(mine) < _MIN_AGREEING:
        return None
    p, q = a.places[mine].astype(np.float64), b.places[theirs].astype(np.float64)
    maps, scale, side = _proposed_maps(a, b, mine, theirs)
    expected = q[:, None] + np.einsum("ikl,ijl->ijk", maps, p[None] - p[:, None])
    turn = np.einsum("ikl,jkl->ij", maps, maps) / (2 * scale[:, None] * scale[None])
    agree = (
        (np.abs(expected - q[None]).max(axis=2) < _NEAR_PX)
        & (side[:, None] == side[None])
        & (turn > _SAME_TURN)
        & (np.abs(np.log2(scale[:, None] / scale[None])) < _SAME_SCALE)
    )
    agreed = agree[agree.sum(axis=1).argmax()]
    return refine_map(p, q, agreed) if agreed.sum() >= _MIN_AGREEING else None


def compare_laid(grey_a: np.ndarray, grey_b: np.ndarray, to_b: np.ndarray) -> float:
    """Correlation of two images laid over each other by that map; 0 where they differ.

    grey_a, grey_b: uint8 (h, w), the images at `upright_size`.
    """
    laid = lay_over(grey_a, grey_b, to_b)
    if laid.share <= MIN_SHARE:
        return 0.0
    correlation = laid.correlation()
    if correlation > SAME_IMAGE:
        return correlation
    tiles = laid.tiles(_TILE_PX)
    median = float(np.median(tiles)) if len(tiles) >= _MIN_TILES else 0.0
    return median if median > _SAME_TILES else 0.0


def _proposed_maps(
    a: RotatedMatch, b: RotatedMatch, mine: np.ndarray, theirs: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How each pair of patches would lay a on b: (m, 2, 2), its scale (m,), side -1 mirrored."""
    # The finer the level of a patch, the larger it is in the image's own pixels.
    scale = _STEP ** (b.levels[theirs].astype(float) - a.levels[mine])
    side = np.where(a.flipped[mine] != b.flipped[theirs], -1.0, 1.0)
    cos_a, sin_a = np.cos(a.angles[mine]), np.sin(a.angles[mine])
    cos_b, sin_b = np.cos(b.angles[theirs]), np.sin(b.angles[theirs])
    # Rotated back by a's angle, mirrored or not, rotated by b's.
    maps = np.array(
        [
            [cos_b * cos_a + side * sin_b * sin_a, cos_b * sin_a - side * sin_b * cos_a],
            [sin_b * cos_a - side * cos_b * sin_a, sin_b * sin_a + side * cos_b * cos_a],
        ]
    )
    return np.moveaxis(maps * scale, 2, 0), scale, side


def _cut_rotated(
    grey: np.ndarray, x: np.ndarray, y: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """int8 patches (k, 64) around corners, the angle of each, and which were mirrored."""
    down, right = np.gradient(gaussian_filter(grey, _WIDE_PX, truncate=3))
    angles = np.arctan2(down[y, x], right[y, x]).astype(np.float32)
    u, v = _SAMPLES[None, None, :], _SAMPLES[None, :, None]
    cos, sin = np.cos(angles)[:, None, None], np.sin(angles)[:, None, None]
    where = [y[:, None, None] + sin * u + cos * v, x[:, None, None] + cos * u - sin * v]
    patches = map_coordinates(gaussian_filter(grey, 1.5, truncate=3), where, order=1)
    patches -= patches.mean(axis=(1, 2), keepdims=True)
    length = np.linalg.norm(patches, axis=(1, 2), keepdims=True)
    patches /= np.maximum(length, len(_SAMPLES))
    flipped = (patches * _SAMPLES[None, :, None]).sum(axis=(1, 2)) < 0
    patches[flipped] = patches[flipped][:, ::-1]
    whole = np.rint(patches.reshape(len(x), N_VALUES) * SCALE).astype(np.int8)
    return whole, angles, flipped
