"""Images that are copies of each other, spelled out pair by pair across the splits."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from core.datasets.near_duplicates import find_duplicates
from core.imageio.decode import resize_square

# Mirrored copies are looked for among twice as many images, so four times as many pairs.
MIRROR_LIMIT = 10_000
MIRROR_PX = 64
PAIR_COLUMNS = ["image_id_a", "image_id_b", "kind", "correlation", "mirrored"]


class DuplicatePair(NamedTuple):
    """Rows a and b of a manifest show the same image; the earlier split stands first."""

    a: int
    b: int
    exact: bool
    correlation: float
    mirrored: bool


def find_pairs(pixels: np.ndarray, image_ids: Sequence[str]) -> tuple[pd.DataFrame, bool]:
    """find_duplicates' pairs and those of which one is the other mirrored.

    pixels: uint8 (n, s, s), s at least 16. Returns PAIR_COLUMNS and whether mirrored copies were
    looked for, which above MIRROR_LIMIT images they are not. Raises ManifestError.
    """
    ids = [str(image_id) for image_id in image_ids]
    found = find_duplicates(pixels, ids).assign(mirrored=False)
    if not 2 <= len(ids) <= MIRROR_LIMIT:
        return found, len(ids) <= MIRROR_LIMIT
    small = np.stack([resize_square(image, MIRROR_PX) for image in pixels])
    # Numbers in place of ids: 2k is image k, 2k + 1 its mirror image.
    numbers = [*range(0, 2 * len(ids), 2), *range(1, 2 * len(ids), 2)]
    mirrored = find_duplicates(np.concatenate([small, small[:, :, ::-1]]), numbers)
    a, b = (mirrored[side].astype(int) for side in ("image_id_a", "image_id_b"))
    # A symmetric image is its own mirror image, which says nothing.
    kept = ((a + b) % 2 == 1) & (a // 2 != b // 2)
    rows = [
        (ids[i // 2], ids[j // 2], "near", correlation, True)
        for i, j, correlation in zip(a[kept], b[kept], mirrored["correlation"][kept], strict=True)
    ]
    both = [found, pd.DataFrame(rows, columns=PAIR_COLUMNS)]
    return pd.concat([table for table in both if len(table)] or [found], ignore_index=True), True


def spell_out(
    image_ids: Sequence[str],
    sha256: Sequence[str],
    split: np.ndarray,
    pairs: pd.DataFrame | None,
) -> list[DuplicatePair]:
    """Every image beside the first of its copies in each split: exact ones, then the most alike.

    sha256: "" where unknown; split: int (n,), the order of the splits; pairs: PAIR_COLUMNS
    (`mirrored` may be absent), names that image_ids lacks are passed over. find_duplicates names
    one image of each kind only; here no image with a copy in another split goes without a
    pair of two splits. An image that is near to a copy of another is near to that other too.
    """
    exact, near = _exact_and_near(image_ids, sha256, pairs)
    kind = linked_sets(len(image_ids), exact)
    members: dict[int, list[int]] = {}
    for i, number in enumerate(kind.tolist()):
        members.setdefault(number, []).append(i)
    found: dict[tuple[int, int], DuplicatePair] = {}
    for same in members.values():
        for pair in _beside_the_first(same, same, split):
            found.setdefault(pair, DuplicatePair(*pair, True, 1.0, False))
    for mirrored, negated, a, b in sorted(near):
        for pair in _beside_the_first(members[kind[a]], members[kind[b]], split):
            found.setdefault(pair, DuplicatePair(*pair, False, -negated, mirrored))
    return sorted(found.values(), key=lambda copy: (not copy.exact, -copy.correlation, copy))


def _exact_and_near(
    image_ids: Sequence[str], sha256: Sequence[str], pairs: pd.DataFrame | None
) -> tuple[list[tuple[int, int]], list[tuple[bool, float, int, int]]]:
    """Rows of equal files and of pairs found, the near ones as (mirrored, -correlation, a, b)."""
    position = {image_id: row for row, image_id in enumerate(image_ids)}
    exact: list[tuple[int, int]] = []
    near: list[tuple[bool, float, int, int]] = []
    first: dict[str, int] = {}
    for i, digest in enumerate(sha256):
        if digest and first.setdefault(digest, i) != i:
            exact.append((first[digest], i))
    for row in [] if pairs is None else pairs.to_dict("records"):
        a, b = (position.get(str(row[side])) for side in ("image_id_a", "image_id_b"))
        if a is None or b is None or a == b:
            continue
        if row["kind"] == "exact":
            exact.append((a, b))
        else:
            near.append((bool(row.get("mirrored", False)), -float(row["correlation"]), a, b))
    return exact, near


def _beside_the_first(
    left: list[int], right: list[int], split: np.ndarray
) -> Iterator[tuple[int, int]]:
    """Pairs of each image on one side with the first of every split on the other side.

    All pairs of a thousand blank images would be half a million; these are three thousand.
    """
    for these, those in ((left, right), (right, left)):
        firsts: dict[int, int] = {}
        for i in those:
            firsts.setdefault(int(split[i]), i)
        for i in these:
            for other in firsts.values():
                if i != other:
                    a, b = sorted((i, other), key=lambda k: (split[k], k))
                    yield a, b


def linked_sets(n: int, links: Iterable[tuple[int, int]]) -> np.ndarray:
    """Number (n,) of the set of linked things that each of n things belongs to."""
    a, b = np.array(list(links), dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(n, n))
    return connected_components(graph, directed=False)[1]
