"""Do external images show what a run already knows: the same images, the same patients?

Images that overlap with train or val are no external validation. Those that overlap with test
are: no model learned from them. They are listed apart, because internal and external figures then
share something.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from core.datasets.image_matching import (
    SAME_IMAGE,
    MatchableImage,
    describe_image,
    find_matching_images,
)
from core.datasets.near_duplicates import find_duplicates

LEARNED, TEST = "train or val", "test"
DUPLICATE, SAME_PATIENT = "duplicate", "same patient"
# Pairs whose local features are compared; beyond this it would take tens of minutes.
MOST_PAIRS = 3_000_000
_UNKNOWN_PATIENT = "image:"

METHOD_FILES = "Same files by sha256; same patients by patient_id."
METHOD_IMAGES = (
    "Same pictures by their pixels, whole frames as in a run's own duplicates, and cropped, "
    "scaled, turned or mirrored copies by local features, laid over each other and taken for the "
    f"same where their detail correlates above {SAME_IMAGE:.2f}."
)


@dataclass(frozen=True)
class ImageSet:
    """Images whose pixels are at hand: ids, uint8 (n, s, s) stretched to squares, sizes in px."""

    image_ids: Sequence[str]
    pixels: np.ndarray
    widths: Sequence[int]
    heights: Sequence[int]


@dataclass(frozen=True)
class Match:
    """One external image that overlaps with a part of the run.

    part: LEARNED or TEST; other: the run's image, or the patient's id; correlation of the
    images, None for patients.
    """

    image_id: str
    part: str
    kind: str
    other: str
    correlation: float | None


def find_overlap(
    manifest: pd.DataFrame,
    table: pd.DataFrame,
    theirs: ImageSet,
    ours: ImageSet | None,
    progress: Callable[[int], None] | None = None,
) -> list[Match]:
    """At most one match an image and part: a copy before the same patient, the most alike first.

    manifest: the run's; table: image_id, patient_id, sha256 of the external images, whose
    pixels are `theirs`; ours: the run's images that are on this machine, None for none.
    progress is called with 1 for each of feature_steps.
    """
    part_of = dict(
        zip(
            manifest["image_id"],
            np.where(manifest["split"] == "test", TEST, LEARNED),
            strict=True,
        )
    )
    found: dict[tuple[str, str], Match] = {}

    def note(match: Match) -> None:
        found.setdefault((match.image_id, match.part), match)

    for match in _same_files(manifest, table, part_of):
        note(match)
    for image_id, other, correlation in _same_images(theirs, ours, progress):
        note(Match(image_id, part_of[other], DUPLICATE, other, correlation))
    for match in _same_patients(manifest, table, part_of):
        note(match)
    return list(found.values())


def _same_files(
    manifest: pd.DataFrame, table: pd.DataFrame, part_of: Mapping[str, str]
) -> Iterator[Match]:
    by_hash: dict[tuple[str, str], str] = {}
    for row in manifest.itertuples():
        by_hash.setdefault((row.sha256, part_of[row.image_id]), row.image_id)
    for row in table.itertuples():
        for part in (LEARNED, TEST):
            other = by_hash.get((row.sha256, part))
            if row.sha256 and other:
                yield Match(row.image_id, part, DUPLICATE, other, 1.0)


def _same_patients(
    manifest: pd.DataFrame, table: pd.DataFrame, part_of: Mapping[str, str]
) -> Iterator[Match]:
    patients: dict[str, set[str]] = {LEARNED: set(), TEST: set()}
    for row in manifest.itertuples():
        patients[part_of[row.image_id]].add(row.patient_id)
    for row in table.itertuples():
        for part, known in patients.items():
            if not row.patient_id.startswith(_UNKNOWN_PATIENT) and row.patient_id in known:
                yield Match(row.image_id, part, SAME_PATIENT, row.patient_id, None)


def _same_images(
    theirs: ImageSet, ours: ImageSet | None, progress: Callable[[int], None] | None
) -> list[tuple[str, str, float]]:
    """(external image, image of the run, correlation), the most alike first."""
    if ours is None or not len(ours.image_ids) or not len(theirs.image_ids):
        return []
    n = len(ours.image_ids)
    # Numbers for ids: the two sides may well use the same names.
    pairs = find_duplicates(
        np.concatenate([ours.pixels, theirs.pixels]), range(n + len(theirs.image_ids))
    )
    a, b = (pairs[side].astype(int).to_numpy() for side in ("image_id_a", "image_id_b"))
    across = (a < n) & (b >= n)
    found = [
        (theirs.image_ids[j - n], ours.image_ids[i], float(correlation))
        for i, j, correlation in zip(
            a[across], b[across], pairs["correlation"][across], strict=True
        )
    ]
    if compares_features(len(theirs.image_ids), n):
        described = _describe(theirs, progress), _describe(ours, progress)
        found += [
            (theirs.image_ids[copy.a], ours.image_ids[copy.b], copy.correlation)
            for copy in find_matching_images(*described, progress)
        ]
    return sorted(found, key=lambda match: -match[2])


def _describe(side: ImageSet, progress: Callable[[int], None] | None) -> list[MatchableImage]:
    """The patches of every image."""
    described = []
    for row in zip(side.pixels, side.widths, side.heights, strict=True):
        described.append(describe_image(*row))
        if progress is not None:
            progress(1)
    return described


def compares_features(n_theirs: int, n_ours: int) -> bool:
    """Whether so many images are few enough for local features."""
    return 0 < n_theirs * n_ours <= MOST_PAIRS


def feature_steps(n_theirs: int, n_ours: int) -> int:
    """What find_overlap's progress adds up to: both sides described, one compared."""
    return 2 * n_theirs + n_ours if compares_features(n_theirs, n_ours) else 0
