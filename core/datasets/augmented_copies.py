"""Which images of a data set are augmented copies of one original, so that they stay together.

Some published collections were enlarged with rotated, mirrored, shifted, zoomed, sheared, brighter
or darker copies. A copy in train of an image in test makes every figure better than it is.

Candidates come from patches (`core.datasets.image_matching_rotated`): each votes for the images
that hold its likeliest partners, looked for in cells of alike patches (an inverted file, as in
Sivic & Zisserman 2003, "Video Google") so that not every image is compared with every other. File
names give further ones. The images decide, but for names that say outright what was done to which
file: those join without a look, because joining too much costs a little data and joining too little
makes figures wrong.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
from PIL import Image
from sklearn.cluster import MiniBatchKMeans

from core.datasets.image_matching_rotated import (
    N_VALUES,
    SCALE,
    RotatedMatch,
    compare_laid,
    describe_rotated,
    match_rotated,
    upright_size,
)
from core.datasets.schema import ManifestError

KIND = "augmented"
METHOD = (
    "copies that are turned, mirrored, shifted, zoomed, sheared, brighter or darker, found by "
    "their pictures and their file names"
)
PAIR_COLUMNS = ["image_id_a", "image_id_b", "kind", "correlation"]
_ALIKE = 0.93  # correlation of two patches, for a vote
_PARTNERS = 4  # likeliest ones of a patch; copies beyond that share the votes and are chained
# Measured among 1,124 images: copies have 19 votes and more (99 of 100; a crop to a third of the
# area at least 14), others 2 in the middle, and one in a thousand more than 19.
_MIN_VOTES = 6
_REFUSALS = 3  # of an image, then it is compared no more
_CELL_SIZE = 1000
_MOST_CELLS = 2048
_SAMPLE = 60_000
_BLOCK = 1024
_CHUNK = 64

_DONE = "aug|augmented|augment|augmentation|flip|flipped|fliplr|flipud|hflip|vflip|mirror|mirrored"
_DONE += "|rot|rotate|rotated|rotation|shift|shifted|zoom|zoomed|crop|cropped|shear|sheared|bright"
_DONE += "|brightness|dark|darker|contrast|noise|noisy|blur|blurred|scale|scaled|translated|copy"
_PART = re.compile(rf"(?:{_DONE})[-+]?\d*(?:\.\d+)?", re.IGNORECASE)
_ONLY_NUMBER = re.compile(r"[-+]?\d{1,3}(?:\.\d+)?")
_KERAS_END = re.compile(r"_\d+_\d{1,4}$")  # ImageDataGenerator(save_to_dir=...): prefix_row_random
_MOST_NAMED = 100  # more files of one name are a name for a kind of image, not for one


def find_augmented(
    pixels: np.ndarray,
    table: pd.DataFrame,
    progress: Callable[[int], None] | None = None,
) -> pd.DataFrame:
    """Pairs that join the augmented copies of each original to one set.

    pixels: uint8 (n, s, s), a size of the pixel cache (224 px and more tell copies best); table:
    n rows with image_id, path, width and height (px, upright). Returns image_id_a, image_id_b, kind
    "augmented" and correlation (of the images, 0 where their names alone join them), at most
    n - 1 pairs: enough to join every set, not all that could be named. progress is called with
    the number of steps just done, of `count_steps(n)`. Memory is about 40 KB an image.
    Raises ManifestError.
    """
    n = len(table)
    if pixels.ndim != 3 or len(pixels) != n:
        raise ManifestError(
            f"Pixels of shape ({n}, s, s) were expected for {n} rows. Received: {pixels.shape}."
        )
    tick = progress or (lambda _steps: None)
    parent = np.arange(n)
    pairs: list[tuple[int, int, float]] = []

    def join(a: int, b: int, correlation: float) -> None:
        first, second = sorted((_root(parent, a), _root(parent, b)))
        if first != second:
            parent[second] = first
            pairs.append((a, b, correlation))

    certain, likely = name_pairs(list(table["path"]))
    sizes = [upright_size(*size) for size in zip(table["width"], table["height"], strict=True)]
    images = _describe_all(pixels, table, tick)

    def compare(a: int, b: int) -> float:
        to_b = match_rotated(images[a], images[b])
        if to_b is None:
            return 0.0
        return compare_laid(_grey(pixels[a], sizes[a]), _grey(pixels[b], sizes[b]), to_b)

    for a, b in certain:
        join(a, b, compare(a, b))
    refused = np.zeros(n, dtype=np.int64)
    for a, b in [*likely, *vote(images, tick)]:
        if _root(parent, a) == _root(parent, b) or min(refused[a], refused[b]) >= _REFUSALS:
            continue
        correlation = compare(a, b)
        if correlation:
            join(a, b, correlation)
        else:
            refused[[a, b]] += 1
    ids = table["image_id"].astype(str).to_list()
    rows = [(ids[a], ids[b], KIND, correlation) for a, b, correlation in pairs]
    return pd.DataFrame(rows, columns=PAIR_COLUMNS).astype({"correlation": float})


def copies_sentence(pairs: pd.DataFrame) -> str:
    """What find_augmented found, as a part of a run's grouping."""
    ids = pd.concat([pairs["image_id_a"], pairs["image_id_b"]]).nunique()
    by_name = int((pairs["correlation"] == 0).sum())
    text = f"{METHOD}: {ids} images in {ids - len(pairs)} sets together"
    return f"{text}, {by_name} of them by their names alone" if by_name else text


def count_steps(n: int) -> int:
    """What find_augmented's progress adds up to for n images."""
    return 2 * n


def name_pairs(paths: Sequence[str]) -> tuple[list[tuple[int, int]], list[tuple[int, int]]]:
    """Rows whose file names say that one is a copy of the other, and rows where they may.

    paths: POSIX. Of a folder's files those are certain that leave the same name once words for
    what was done (`rot90_IMG7`, `IMG7_flip`, `aug_3_IMG7`) are taken out, where at least one had
    such a word and something with a digit is left. Keras' generator ends the names of all it saves
    with `_row_random`, the prefix being as likely one word for all as the original's name, so
    those are only candidates.
    """
    certain: dict[str, list[int]] = {}
    changed: set[str] = set()
    likely: dict[str, list[int]] = {}
    for row, path in enumerate(paths):
        folder, _, name = path.rpartition("/")
        stem = name.rsplit(".", 1)[0]
        base = _original_name(stem)
        key = f"{folder}/{base}"
        certain.setdefault(key, []).append(row)
        if base != _plain(stem):
            changed.add(key)
        saved = _KERAS_END.sub("", stem)
        if saved != stem:
            likely.setdefault(f"{folder}/{saved}", []).append(row)
    named = [
        rows
        for key, rows in certain.items()
        if key in changed and 1 < len(rows) <= _MOST_NAMED and re.search(r"\d", key.split("/")[-1])
    ]
    maybe = [rows for rows in likely.values() if 1 < len(rows) <= _MOST_NAMED]
    return [(rows[0], row) for rows in named for row in rows[1:]], [
        (a, b) for rows in maybe for a, b in itertools.pairwise(rows)
    ]


def vote(
    images: Sequence[RotatedMatch], tick: Callable[[int], None] = lambda _steps: None
) -> list[tuple[int, int]]:
    """Pairs (a, b), a < b, of images that many patches say are one, the most votes first."""
    n = len(images)
    counts = np.array([len(image.patches) for image in images], dtype=np.int64)
    if n < 2 or counts.sum() < 2:
        tick(n)
        return []
    patches = np.concatenate([image.patches for image in images])
    owner = np.repeat(np.arange(n, dtype=np.int32), counts)
    keys: list[np.ndarray] = []
    done = 0
    for members, asking in _cells(patches):
        for start in range(0, len(asking), _BLOCK):
            block = asking[start : start + _BLOCK]
            keys.append(_partners(patches, owner, block, members, n))
        now = int(n * len(members) / len(patches))
        tick(now)
        done += now
    tick(n - done)
    voted, votes = np.unique(np.concatenate(keys), return_counts=True)
    enough = votes >= _MIN_VOTES
    order = np.argsort(-votes[enough], kind="stable")
    chosen = voted[enough][order].astype(np.int64)
    return list(zip((chosen // n).tolist(), (chosen % n).tolist(), strict=True))


def _partners(
    patches: np.ndarray, owner: np.ndarray, asking: np.ndarray, members: np.ndarray, n: int
) -> np.ndarray:
    """Keys a * n + b (a < b) of the images that each asking patch votes for, one vote each."""
    alike = _floats(patches[asking]) @ _floats(patches[members]).T
    alike[owner[asking][:, None] == owner[members][None]] = -1
    if len(members) > _PARTNERS:
        best = np.argpartition(-alike, _PARTNERS - 1, axis=1)[:, :_PARTNERS]
    else:
        best = np.broadcast_to(np.arange(len(members)), alike.shape)
    row, column = np.nonzero(np.take_along_axis(alike, best, axis=1) > _ALIKE)
    mine = owner[asking[row]].astype(np.int64)
    theirs = owner[members[best[row, column]]].astype(np.int64)
    keys = np.minimum(mine, theirs) * n + np.maximum(mine, theirs)
    # A patch that finds three levels of one image has one vote for it.
    once = np.unique(row * n**2 + keys) % n**2
    return once.astype(np.uint32 if n < 2**16 else np.int64)


def _cells(patches: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Of each cell the patches in it, and those that ask there: its own and its neighbours'."""
    n_cells = int(np.clip(len(patches) // _CELL_SIZE, 1, _MOST_CELLS))
    if n_cells == 1:
        everything = np.arange(len(patches))
        yield everything, everything
        return
    step = max(1, len(patches) // _SAMPLE)
    model = MiniBatchKMeans(n_cells, n_init=1, max_iter=20, batch_size=4096, random_state=0)
    centres = model.fit(_floats(patches[::step])).cluster_centers_.astype(np.float32)
    half = (centres**2).sum(axis=1) / 2
    first = np.empty(len(patches), dtype=np.int16)
    second = np.empty(len(patches), dtype=np.int16)
    for start in range(0, len(patches), 8 * _BLOCK):
        rows = slice(start, start + 8 * _BLOCK)
        near = _floats(patches[rows]) @ centres.T - half
        first[rows] = near.argmax(axis=1)
        np.put_along_axis(near, first[rows, None].astype(np.int64), -np.inf, axis=1)
        second[rows] = near.argmax(axis=1)
    for cell in range(n_cells):
        members = np.flatnonzero(first == cell)
        if len(members):
            yield members, np.concatenate([members, np.flatnonzero(second == cell)])


def _describe_all(
    pixels: np.ndarray, table: pd.DataFrame, tick: Callable[[int], None]
) -> list[RotatedMatch]:
    shapes = list(zip(table["width"], table["height"], strict=True))

    def describe(row: int) -> RotatedMatch:
        return describe_rotated(pixels[row], *shapes[row])

    images: list[RotatedMatch] = []
    with ThreadPoolExecutor(max_workers=2) as pool:  # mostly SciPy, which lets go of the lock
        for start in range(0, len(table), _CHUNK):
            rows = range(start, min(start + _CHUNK, len(table)))
            images += pool.map(describe, rows)
            tick(len(rows))
    return images


def _grey(pixels: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(pixels))
    return np.asarray(image.resize(size, Image.Resampling.BILINEAR))


def _floats(patches: np.ndarray) -> np.ndarray:
    return patches.reshape(-1, N_VALUES).astype(np.float32) / SCALE


def _root(parent: np.ndarray, row: int) -> int:
    while parent[row] != row:
        parent[row] = parent[parent[row]]
        row = parent[row]
    return int(row)


def _plain(stem: str) -> str:
    return "_".join(part for part in re.split(r"[\s_]+", stem) if part)


def _original_name(stem: str) -> str:
    """The name without the words that say what was done, and the numbers right after them.

    "aug_3_IMG7" -> "IMG7", "IMG7_rot90" -> "IMG7", "IMG7-flip" -> "IMG7"; a name of nothing else
    stays as it is.
    """
    parts = [part for part in re.split(r"([\s_-]+)", stem) if part]
    kept: list[str] = []
    words = [part for part in parts if not re.fullmatch(r"[\s_-]+", part)]
    after_word = False
    for index, word in enumerate(words):
        if _PART.fullmatch(word):
            after_word = not re.search(r"\d$", word)
            continue
        left = any(not _PART.fullmatch(w) for w in [*kept, *words[index + 1 :]])
        if after_word and _ONLY_NUMBER.fullmatch(word) and left:
            after_word = False
            continue
        after_word = False
        kept.append(word)
    return "_".join(kept) if kept and len(kept) < len(words) else _plain(stem)
