"""Copies of images between two collections, cropped, shifted, scaled and mirrored ones included.

Published collections hold the same images with other edges:
`near_duplicates.find_duplicates` compares whole frames and finds none of those. Here small
patches around corners are matched (multi-scale patches as in Brown, Szeliski & Winder 2005,
"Multi-image matching using multi-scale oriented patches", upright), the patches that agree about
one affine map are kept (Fischler & Bolles 1981, with every match as a hypothesis), and the two
images, laid over each other by that map, must correlate in their detail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image
from scipy.ndimage import (
    affine_transform,
    binary_erosion,
    gaussian_filter,
    maximum_filter,
    uniform_filter,
)

# Measured on 188 images held against 1,124, of which 69 pairs have the same file name (27 whole,
# 42 cropped to 63 to 95% of the area): those correlate 0.997 and more, images of different
# patients at most 0.76 (also among the 1,124). Follow-ups of one patient reach 0.95, and belong
# together anyway. Copies spoilt on purpose (noise of 15 grey levels, a grey curve, 64 px, a turn of
# 10 degrees) stay above 0.93; of crops to a quarter of the area 84% are found.
SAME_IMAGE = 0.92
MIN_AGREEING = 8  # patches on one map; more can come by chance, so they are no proof
MIN_SHARE = 0.2  # of the smaller image's area that must lie in both

SIDE_PX = 256  # longest side of an image when its patches are taken
_STEP = 2 ** (1 / 3)  # between two levels of the pyramid
_LEVELS = 5
_CORNERS = 40  # on the largest level, fewer on the smaller ones
_PATCH = np.arange(-10, 12, 3)  # 8 × 8 samples around a corner, 3 px apart
_MARGIN_PX = 12
_ALIKE = 0.9  # correlation of two patches
_LOCAL_PX = 49  # around a pixel, for its local mean and contrast
_EDGE_PX = 4
_FLAT = 0.05  # variance of even detail, which is about 1, below which a tile shows nothing
_BLOCK = 65_536


@dataclass(frozen=True)
class MatchableImage:
    """A small upright image and its patches.

    grey uint8 (h, w), longest side SIDE_PX; patches (k, 64) float32 of mean 0 and length up to 1;
    places (k, 2) x and y in px of `grey`; levels (k,) of the pyramid, 0 the finest.
    """

    grey: np.ndarray
    patches: np.ndarray
    places: np.ndarray
    levels: np.ndarray


@dataclass(frozen=True)
class ImageMatch:
    """Image number `a` of one collection and `b` of the other show the same.

    correlation: of their detail where they overlap; share: of the smaller image that does.
    """

    a: int
    b: int
    correlation: float
    share: float
    mirrored: bool


def describe_image(pixels: np.ndarray, width: int, height: int) -> MatchableImage:
    """The patches of uint8 (h, w) pixels, first brought to the shape width : height.

    Pixels may be an image stretched to a square, as the pixel cache holds it.
    """
    scale = SIDE_PX / max(width, height)
    least = 2 * _MARGIN_PX + 2
    size = max(least, round(width * scale)), max(least, round(height * scale))
    image = Image.fromarray(np.ascontiguousarray(pixels)).resize(size, Image.Resampling.BILINEAR)
    patches, places, levels = [], [], []
    for level in range(_LEVELS):
        shrink = _STEP**-level
        small = [round(side * shrink) for side in size]
        if min(small) <= 2 * _MARGIN_PX:
            break
        grey = np.asarray(image.resize(small, Image.Resampling.BILINEAR), np.float32)
        x, y = find_corners(grey, round(_CORNERS * shrink), _MARGIN_PX)
        patches.append(_cut_patches(grey, x, y))
        places.append(np.stack([x * size[0] / small[0], y * size[1] / small[1]], axis=1))
        levels.append(np.full(len(x), level))
    return MatchableImage(
        np.asarray(image), np.concatenate(patches), np.concatenate(places), np.concatenate(levels)
    )


def find_matching_images(
    a: Sequence[MatchableImage],
    b: Sequence[MatchableImage],
    progress: Callable[[int], None] | None = None,
) -> list[ImageMatch]:
    """Every image of `a` that is also in `b`, the most alike first.

    Brightness, contrast, scale, a crop, a small turn and a mirror do not matter. progress is
    called with the number of images of `a` just done. Time grows with len(a) times len(b).
    """
    if not a or not b:
        return []
    patches = np.concatenate([image.patches for image in b])
    first = np.cumsum([0] + [len(image.patches) for image in b])
    found = []
    for number, image in enumerate(a):
        for mirrored in (False, True):
            asked = _mirror(image) if mirrored else image
            for other, mine, theirs in _candidates(asked, patches, first):
                copy = _confirm(asked, b[other], mine, theirs)
                if copy is not None:
                    found.append(ImageMatch(number, other, *copy, mirrored))
        if progress is not None:
            progress(1)
    return sorted(found, key=lambda copy: (-copy.correlation, copy.a, copy.b))


def find_corners(grey: np.ndarray, n: int, margin_px: int) -> tuple[np.ndarray, np.ndarray]:
    """x and y of the n strongest corners (Harris measure as a ratio: Noble 1988).

    grey float32 (h, w); none is nearer than margin_px to an edge.
    """
    dy, dx = np.gradient(gaussian_filter(grey, 1.0, truncate=3))
    xx, xy, yy = (uniform_filter(product, 7) for product in (dx * dx, dx * dy, dy * dy))
    strength = (xx * yy - xy * xy) / (xx + yy + 1e-3)
    inside = np.zeros(strength.shape, dtype=bool)
    inside[margin_px:-margin_px, margin_px:-margin_px] = True
    peaks = inside & (strength == maximum_filter(strength, 9)) & (strength > 1e-2)
    y, x = np.nonzero(peaks)
    strongest = np.argsort(-strength[y, x], kind="stable")[:n]
    return x[strongest], y[strongest]


def _cut_patches(grey: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """(k, 64) float32: mean 0 and length 1, shorter where there is next to no contrast."""
    smooth = gaussian_filter(grey, 1.5, truncate=3)
    rows, columns = y[:, None] + _PATCH, x[:, None] + _PATCH
    patches = smooth[rows[:, :, None], columns[:, None, :]].reshape(len(x), len(_PATCH) ** 2)
    patches -= patches.mean(axis=1, keepdims=True)
    length = np.linalg.norm(patches, axis=1, keepdims=True)
    return (patches / np.maximum(length, len(_PATCH))).astype(np.float32)


def _mirror(image: MatchableImage) -> MatchableImage:
    """The image mirrored horizontally, its patches with it (they are not cut anew)."""
    side = len(_PATCH)
    patches = image.patches.reshape(-1, side, side)[:, :, ::-1].reshape(-1, side * side)
    places = image.places.copy()
    # The samples lie from -10 to 11 about a corner, so the mirrored ones are about its next pixel.
    places[:, 0] = image.grey.shape[1] - 1 - places[:, 0] - _STEP**image.levels
    return MatchableImage(image.grey[:, ::-1], patches, places, image.levels)


def _candidates(
    image: MatchableImage, patches: np.ndarray, first: np.ndarray
) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """Images that hold the likeliest partner of at least MIN_AGREEING patches, most first.

    (number, the asked image's matched patches, their partners in that image); at most five.
    patches: of all images, those of image i in rows first[i] to first[i + 1].
    """
    n = len(image.patches)
    best, partner = np.full(n, -1.0, np.float32), np.zeros(n, np.int64)
    for start in range(0, len(patches), _BLOCK):
        alike = image.patches @ patches[start : start + _BLOCK].T
        where = alike.argmax(axis=1)
        value = alike[np.arange(n), where]
        better = value > best
        best[better], partner[better] = value[better], start + where[better]
    good = np.flatnonzero(best > _ALIKE)
    owner = np.searchsorted(first, partner[good], side="right") - 1
    count = np.bincount(owner, minlength=len(first) - 1)
    likely = np.argsort(-count, kind="stable")[:5]
    return [
        (int(other), mine, partner[mine] - first[other])
        for other in likely
        if count[other] >= MIN_AGREEING
        for mine in [good[owner == other]]
    ]


def _confirm(
    a: MatchableImage, b: MatchableImage, mine: np.ndarray, theirs: np.ndarray
) -> tuple[float, float] | None:
    """Correlation and shared area of two images; None where they are not the same."""
    scale = _STEP ** (b.levels[theirs] - a.levels[mine]).astype(float)
    # The finer the level of a patch, the larger it is in the image's own pixels.
    to_b = _fit_map(a.places[mine], b.places[theirs], scale)
    if to_b is None:
        return None
    laid = lay_over(a.grey, b.grey, to_b)
    if laid.share <= MIN_SHARE:
        return None
    correlation = laid.correlation()
    return (correlation, laid.share) if correlation > SAME_IMAGE else None


def _fit_map(p: np.ndarray, q: np.ndarray, scale: np.ndarray) -> np.ndarray | None:
    """The affine map (3, 2), q = [p 1] @ map, that most pairs of places agree about, or None.

    p, q (m, 2) px; scale (m,) of q to p by the levels, each a hypothesis with its pair.
    """
    expected = q[:, None] + scale[:, None, None] * (p[None] - p[:, None])
    alike = np.abs(np.log2(scale[:, None] / scale[None])) < 0.4
    agree = (np.abs(expected - q[None]).max(axis=2) < 20) & alike
    return refine_map(p, q, agree[agree.sum(axis=1).argmax()])


def refine_map(p: np.ndarray, q: np.ndarray, good: np.ndarray) -> np.ndarray | None:
    """The affine map (3, 2), q = [p 1] @ map, fitted to the good pairs of places and to all others
    that it brings near; None where fewer than MIN_AGREEING do or it deforms beyond reason.

    p, q (m, 2) px; good: bool (m,).
    """
    places = np.column_stack([p, np.ones(len(p))])
    for tolerance_px in (10, 6, 6):
        if good.sum() < MIN_AGREEING:
            return None
        to_q, _, rank, _ = np.linalg.lstsq(places[good], q[good], rcond=None)
        if rank < 3:
            return None  # all on one line
        good = np.abs(places @ to_q - q).max(axis=1) < tolerance_px
    small, large = np.sort(np.linalg.svd(to_q[:2], compute_uv=False))
    sane = good.sum() >= MIN_AGREEING and small > 0.2 and large < 5 and large < 1.5 * small
    return to_q if sane else None


@dataclass(frozen=True)
class Laid:
    """One image and another brought onto it, both float32 (h, w), compared where `inside` is.

    share: of the smaller image that lies in both.
    """

    first: np.ndarray
    second: np.ndarray
    inside: np.ndarray
    share: float

    def correlation(self) -> float:
        """Of the details of both, over all that is compared."""
        details = [detail[self.inside] for detail in self._details]
        first, second = (detail - detail.mean() for detail in details)
        length = float(np.linalg.norm(first) * np.linalg.norm(second))
        return float(first @ second) / length if length > 1e-3 else 0.0

    def tiles(self, tile_px: int) -> np.ndarray:
        """The same (m,) of each square of tile_px that lies inside and has detail in both."""
        mask = self.inside.astype(np.float32)
        a, b = (detail * mask for detail in self._details)
        n, sum_a, sum_b, aa, bb, ab = (
            _sum_tiles(values, tile_px) for values in (mask, a, b, a * a, b * b, a * b)
        )
        n = np.maximum(n, 1)
        var_a, var_b = (aa - sum_a**2 / n) / n, (bb - sum_b**2 / n) / n
        use = (n > 0.8 * tile_px**2) & (np.minimum(var_a, var_b) > _FLAT)
        return ((ab - sum_a * sum_b / n) / n)[use] / np.sqrt(var_a[use] * var_b[use])

    @cached_property
    def _details(self) -> tuple[np.ndarray, np.ndarray]:
        return _even_detail(self.first, self.inside), _even_detail(self.second, self.inside)


def lay_over(a: np.ndarray, b: np.ndarray, to_b: np.ndarray) -> Laid:
    """Image b (h, w) brought onto image a by the map (3, 2) from places in a to places in b."""
    matrix, offset = to_b[:2, ::-1].T[:, ::-1], to_b[2, ::-1]
    laid = affine_transform(
        b.astype(np.float32), matrix, offset, output_shape=a.shape, order=1, cval=np.nan
    )
    both = ~np.isnan(laid)
    # b in the pixels of a is its area over the map's change of area.
    smaller = min(a.size, b.size / abs(np.linalg.det(to_b[:2])))
    # What lies outside one image must not bleed into the comparison.
    inner = binary_erosion(both, iterations=_EDGE_PX)
    share = min(float(both.sum() / smaller), 1.0)
    return Laid(a.astype(np.float32), np.where(both, laid, 0), inner, share)


def _even_detail(values: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """What is left (h, w) of the pixels inside without their local mean, at one contrast all over.

    So neither brightness and contrast nor a curve or equalisation of grey levels matter.
    """
    mask = inside.astype(np.float32)
    smooth = gaussian_filter(mask * values, 1.5) / np.maximum(gaussian_filter(mask, 1.5), 1e-3)
    weight = np.maximum(uniform_filter(mask, _LOCAL_PX), 1e-3)
    detail = smooth - uniform_filter(mask * smooth, _LOCAL_PX) / weight
    spread = uniform_filter(mask * detail**2, _LOCAL_PX) / weight
    return detail / (np.sqrt(np.maximum(spread, 0)) + 1)


def _sum_tiles(values: np.ndarray, tile_px: int) -> np.ndarray:
    """Sums over whole squares of tile_px, (h // tile_px, w // tile_px)."""
    rows, columns = (side // tile_px for side in values.shape)
    whole = values[: rows * tile_px, : columns * tile_px]
    return whole.reshape(rows, tile_px, columns, tile_px).sum(axis=(1, 3))
