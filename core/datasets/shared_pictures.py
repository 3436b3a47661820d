"""Pictures that are in two of several data sets: each counts once, where its publisher is named."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from core.datasets.duplicate_pairs import spell_out
from core.datasets.image_matching import MatchableImage, describe_image, find_matching_images
from core.datasets.near_duplicates import find_duplicates
from core.datasets.schema import SOURCE_COLUMN
from core.datasets.several import SET_COLUMN, UNKNOWN_PATIENT

# Above this two images are one picture, whole or cropped. All 116 pictures that darkcovidnet and
# cohen-2020 both have correlate 0.997 and more, follow-ups of one patient at most 0.95.
SAME_PICTURE = 0.97
# Pairs of two sets whose local features are compared; beyond this it would take an hour.
MOST_PAIRS = 3_000_000


class SharedPictures(NamedTuple):
    """What two sets both have. kept: bool (n,); patients: text (n,), after joining.

    skipped: [{path, reason}] of the copies; n_conflicts: how many of them have another label than
    the image that counts; alike: pairs of images (as find_duplicates has them) that belong
    together and are not the same picture; cropped: whether cropped copies were looked for.
    """

    kept: np.ndarray
    patients: np.ndarray
    skipped: list[dict[str, str]]
    n_conflicts: int
    alike: list[dict[str, Any]]
    cropped: bool

    def sentence(self) -> str:
        """What has to be said of the run for it, "" where nothing has to."""
        n, text = len(self.skipped), ""
        if n:
            text = (
                f"{n} {'pictures are' if n > 1 else 'picture is'} in two of the data sets and "
                f"{'count' if n > 1 else 'counts'} once, as the copy whose publisher is named."
            )
        if self.n_conflicts:
            text += f" {self.n_conflicts} had another label in the set that does not count."
        if not self.cropped:
            text += (
                " The data sets are too large to look for cropped copies: pictures that two of "
                "them share with other edges may stand in two parts of the split."
            )
        return text.strip()


def find_shared_pictures(
    table: pd.DataFrame, pixels: np.ndarray, progress: Callable[[int], None] | None = None
) -> SharedPictures:
    """Which rows show a picture that a row of another set shows too.

    table: load_images' rows of several sets, with sha256, width, height; pixels: uint8 (n, s, s)
    in their order, s at least 64. Copies are whole (find_duplicates) or cropped, scaled or mirrored
    (image_matching). Where both sets name a publisher, or neither, the set that comes first in
    `table.attrs["sets"]` wins. A copy's patient and that of the picture which counts are one, so
    all images of the one are of the other from here on. progress: called with 1 for each of
    matching_steps.
    """
    ids = list(table["image_id"])
    sets = list(table.attrs.get("sets") or dict.fromkeys(table[SET_COLUMN]))
    number = np.array([sets.index(name) for name in table[SET_COLUMN]])
    unnamed = (table[SOURCE_COLUMN] == table[SET_COLUMN]).to_numpy()
    rank = np.lexsort((np.arange(len(table)), number, unnamed)).argsort()
    copy_of: dict[int, int] = {}
    alike: list[dict[str, Any]] = []
    found = [*_whole(table, pixels, number), *_cropped(table, pixels, number, progress)]
    for a, b, correlation in sorted(found, key=lambda pair: -pair[2]):
        counted, copy = sorted((a, b), key=lambda row: rank[row])
        if correlation >= SAME_PICTURE:
            copy_of.setdefault(copy, counted)
        else:
            pair = {"image_id_a": ids[counted], "image_id_b": ids[copy]}
            alike.append(pair | {"kind": "near", "correlation": correlation})
    kept = np.ones(len(table), dtype=bool)
    kept[list(copy_of)] = False
    label = table["label"].to_numpy()
    dropped = {ids[copy] for copy in copy_of}
    return SharedPictures(
        kept,
        _join_patients(table["patient_id"].astype(str).to_numpy(dtype=object), copy_of),
        [
            {
                "path": table["path"].iloc[copy],
                "reason": f"the same picture as {ids[counted]}, which counts in its place",
            }
            for copy, counted in sorted(copy_of.items())
        ],
        sum(bool(label[copy] != label[counted]) for copy, counted in copy_of.items()),
        [p for p in alike if not dropped & {p["image_id_a"], p["image_id_b"]}],
        all(n * m <= MOST_PAIRS for n, m in combinations(np.bincount(number), 2)),
    )


def matching_steps(table: pd.DataFrame) -> int:
    """What find_shared_pictures' progress adds up to."""
    sizes = table[SET_COLUMN].value_counts().to_numpy()
    return len(table) + sum(
        int(min(n, m)) for n, m in combinations(sizes, 2) if n * m <= MOST_PAIRS
    )


def _join_patients(patients: np.ndarray, copy_of: dict[int, int]) -> np.ndarray:
    """patients (n,) with those behind one picture made one; a known one gives the name."""
    patients = patients.copy()
    for copy, counted in copy_of.items():
        one, other = patients[counted], patients[copy]
        if one.startswith(UNKNOWN_PATIENT):
            one, other = other, one
        patients[patients == other] = one
    return patients


def _whole(
    table: pd.DataFrame, pixels: np.ndarray, number: np.ndarray
) -> Iterator[tuple[int, int, float]]:
    """Rows of two sets whose whole frames are the same or nearly so, and how alike they are."""
    ids = list(table["image_id"])
    pairs = find_duplicates(pixels, ids)
    same = pairs[pairs["correlation"] >= SAME_PICTURE]
    for pair in spell_out(ids, list(table["sha256"]), number, same):
        if number[pair.a] != number[pair.b]:
            yield pair.a, pair.b, pair.correlation


def _cropped(
    table: pd.DataFrame,
    pixels: np.ndarray,
    number: np.ndarray,
    progress: Callable[[int], None] | None,
) -> Iterator[tuple[int, int, float]]:
    """The same of rows that show one picture within other edges."""
    described: list[MatchableImage] = []
    for image, width, height in zip(pixels, table["width"], table["height"], strict=True):
        described.append(describe_image(image, int(width), int(height)))
        if progress is not None:
            progress(1)
    members = [np.flatnonzero(number == k) for k in range(number.max() + 1)]
    for some, others in combinations(sorted(members, key=len), 2):
        if len(some) * len(others) <= MOST_PAIRS:
            a, b = ([described[row] for row in rows] for rows in (some, others))
            for match in find_matching_images(a, b, progress):
                yield int(some[match.a]), int(others[match.b]), match.correlation
