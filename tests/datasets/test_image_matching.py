"""Copies of pictures: planted ones are found, whatever was cut off, and different ones are not."""

from __future__ import annotations

import io
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from core.datasets import image_matching
from core.datasets.folder import load_table
from core.datasets.phantom.generate import make_phantom
from core.datasets.registry import KNOWN
from core.imageio.decode import read_image, resize_square

LABELS = ("covid", "normal", "pneumonia")


def describe(pixels: np.ndarray) -> image_matching.Picture:
    """As evaluate does it: through a square, as the pixel cache holds it."""
    height, width = pixels.shape
    return image_matching.describe_image(
        resize_square(pixels, image_matching.SIDE_PX), width, height
    )


@pytest.fixture(scope="module")
def drawn() -> list[np.ndarray]:
    """Twelve phantoms, a patient each."""
    return [make_phantom(LABELS[k % 3], seed=k, patient=k).pixels for k in range(12)]


@pytest.fixture(scope="module")
def described(drawn) -> list[image_matching.Picture]:
    return [describe(pixels) for pixels in drawn]


def as_jpeg(pixels: np.ndarray) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=40)
    return np.asarray(Image.open(file))


def resized(pixels: np.ndarray, width: int, height: int) -> np.ndarray:
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))


CHANGES = {
    "the same": lambda p: p,
    "cropped": lambda p: p[10:190, 40:200],
    "cropped to half of each side": lambda p: p[60:172, 50:162],
    "smaller": lambda p: resized(p, 120, 120),
    "stretched": lambda p: resized(p, 300, 220),
    "turned": lambda p: np.asarray(Image.fromarray(p).rotate(5, Image.Resampling.BILINEAR)),
    "framed": lambda p: np.pad(p, 40),
    "darker, less contrast": lambda p: (p * 0.6 + 10).astype(np.uint8),
    "another grey curve": lambda p: (255 * (p / 255.0) ** 2).astype(np.uint8),
    "as JPEG": as_jpeg,
    "mirrored": lambda p: p[:, ::-1],
    "mirrored and cropped": lambda p: p[20:200, 215:35:-1],
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_is_found(drawn, described, change):
    changed = [describe(np.ascontiguousarray(CHANGES[change](p))) for p in drawn[:4]]
    found = image_matching.find_matching_images(changed, described)
    assert sorted((copy.a, copy.b) for copy in found) == [(k, k) for k in range(4)]
    assert all(copy.correlation > image_matching.SAME_IMAGE for copy in found)
    assert all(copy.share > 0.9 for copy in found)  # one holds all of the other
    assert {copy.mirrored for copy in found} == {"mirrored" in change}


def test_either_side_may_be_the_larger_one(drawn, described):
    part = describe(drawn[3][10:190, 40:200])
    (copy,) = image_matching.find_matching_images([described[3]], [described[0], part])
    assert (copy.a, copy.b) == (0, 1)


def test_share_is_of_the_smaller_picture(drawn):
    left, right = drawn[0][:, :170], drawn[0][:, 54:]
    (copy,) = image_matching.find_matching_images([describe(left)], [describe(right)])
    assert copy.share == pytest.approx((170 - 54) / 170, abs=0.03)


def test_other_patients_are_no_copies(described):
    assert image_matching.find_matching_images(described[:6], described[6:]) == []


def test_the_most_alike_stands_first(drawn, described):
    changed = [describe(as_jpeg(drawn[1])), described[0]]
    found = image_matching.find_matching_images(changed, described)
    assert [(copy.a, copy.b) for copy in found] == [(1, 0), (0, 1)]
    assert found[0].correlation == pytest.approx(1)


@pytest.mark.parametrize(
    "pixels",
    [
        np.zeros((64, 64), np.uint8),
        np.full((40, 400), 200, np.uint8),
        np.tile(np.arange(224, dtype=np.uint8), (224, 1)),
    ],
)
def test_pictures_without_corners_match_nothing(described, pixels):
    flat = describe(pixels)
    assert image_matching.find_matching_images([flat], [*described[:2], flat]) == []
    assert image_matching.find_matching_images(described[:1], [flat]) == []


def test_noise_matches_nothing(described):
    rng = np.random.default_rng(0)
    noise = [describe(rng.integers(0, 256, (200, 260), dtype=np.uint8)) for _ in range(3)]
    assert image_matching.find_matching_images(noise, described) == []


def test_nothing_to_compare(described):
    assert image_matching.find_matching_images([], described) == []
    assert image_matching.find_matching_images(described, []) == []


def test_progress_tells_every_picture(described):
    told: list[int] = []
    image_matching.find_matching_images(described[:5], described, told.append)
    assert sum(told) == 5


def test_map_is_fitted_through_wrong_pairs():
    """A map known by hand: twice as large, moved by (10, -5); a third of the pairs is wrong."""
    rng = np.random.default_rng(0)
    p = rng.uniform(20, 230, (30, 2))
    q = 2 * p + [10, -5]
    q[:10] = rng.uniform(0, 500, (10, 2))
    fitted = image_matching._fit_map(p, q, np.full(30, 2.0))
    assert fitted == pytest.approx(np.array([[2, 0], [0, 2], [10, -5]]), abs=1e-6)
    assert image_matching._fit_map(p[:12], q[:12], np.full(12, 2.0)) is None  # too few agree


def test_pairs_on_one_line_tell_no_map():
    p = np.column_stack([np.linspace(0, 200, 20), np.linspace(0, 100, 20)])
    assert image_matching._fit_map(p, p, np.ones(20)) is None


@pytest.mark.skipif(
    not all(
        (Path(os.environ.get("CXR_DATA", "")) / name).is_dir()
        for name in ("darkcovidnet", "kaggle-covid19-xray")
    ),
    reason="needs darkcovidnet and kaggle-covid19-xray in CXR_DATA",
)
def test_the_copies_of_two_published_sets_are_found():
    """71 of 94 PNEUMONIA images are in darkcovidnet too, 69 of them under the same file name."""
    root = Path(os.environ["CXR_DATA"])
    sides = []
    for name, label in (("kaggle-covid19-xray", None), ("darkcovidnet", "covid")):
        table = load_table(KNOWN[name], root / name)
        table = table[table["label"] == label] if label else table
        # Every fourth of those that show no pneumonia is enough to see that none is taken for one.
        table = pd.concat(
            [table[table["label"] == "covid"], table[table["label"] != "covid"].iloc[::4]]
        )
        pictures = [describe(read_image(root / name / path).pixels) for path in table["path"]]
        sides.append((table.reset_index(drop=True), pictures))
    (theirs, a), (_, b) = sides
    found = image_matching.find_matching_images(a, b)
    assert len({copy.a for copy in found}) == 71
    assert {theirs["label"][copy.a] for copy in found} == {"covid"}
    names = [table["image_id"].str.rsplit("/", n=1).str[-1] for table, _ in sides]
    by_name = {name: k for k, name in names[1].items()}
    same = {(k, by_name[name]) for k, name in names[0].items() if name in by_name}
    assert len(same) == 69
    assert same <= {(copy.a, copy.b) for copy in found}
    assert min(copy.correlation for copy in found) > 0.98
