"""Augmented copies: found whatever was done to them, kept on one side, and nothing else joined."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from core.datasets import augmented_copies
from core.datasets.augmented_copies import (
    copies_sentence,
    count_steps,
    find_augmented,
    name_pairs,
    vote,
)
from core.datasets.folder import load_table
from core.datasets.image_matching_rotated import describe_rotated
from core.datasets.phantom.generate import make_phantom
from core.datasets.registry import DatasetError, resolve_dataset
from core.datasets.schema import ManifestError
from core.datasets.splits import build_manifest
from core.imageio.decode import read_image, resize_square
from core.imageio.pixel_cache import build_pixel_cache

SIZE = 224
BILINEAR = Image.Resampling.BILINEAR
CHANGES = {
    "mirrored": lambda i: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
    "upside down": lambda i: i.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
    "turned by 15": lambda i: i.rotate(15, BILINEAR),
    "turned by 40": lambda i: i.rotate(-40, BILINEAR),
    "turned by 90": lambda i: i.rotate(90, expand=True),
    "shifted": lambda i: moved(i, (1, 0, 0.15 * i.width, 0, 1, -0.1 * i.height)),
    "zoomed in": lambda i: i.crop(
        tuple(round(f * s) for f, s in zip((0.1, 0.15, 0.9, 0.95), i.size * 2, strict=True))
    ),
    "zoomed out": lambda i: moved(i, (1.25, 0, -0.125 * i.width, 0, 1.25, -0.125 * i.height)),
    "sheared": lambda i: moved(i, (1, 0.2, -0.1 * i.height, 0, 1, 0)),
    "brighter": lambda i: i.point(lambda v: min(255, int(1.3 * v + 20))),
    "darker": lambda i: i.point(lambda v: v // 2),
    "mirrored, turned and darker": lambda i: (
        i.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
        .rotate(20, BILINEAR)
        .point(lambda v: int(0.8 * v))
    ),
}


def moved(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    return image.transform(image.size, Image.Transform.AFFINE, matrix, BILINEAR)


def original(seed: int) -> Image.Image:
    return Image.fromarray(
        make_phantom(("covid", "normal")[seed % 2], seed=seed, patient=seed).pixels
    )


def as_input(images: list[Image.Image]) -> tuple[np.ndarray, pd.DataFrame]:
    """What find_augmented takes, with file names that say nothing."""
    pixels = [resize_square(np.array(image, dtype=np.uint8), SIZE) for image in images]
    names = [f"file{chr(97 + k // 26)}{chr(97 + k % 26)}" for k in range(len(images))]
    width, height = zip(*(image.size for image in images), strict=True)
    table = pd.DataFrame(
        {"image_id": names, "path": [f"a/{n}.png" for n in names], "width": width, "height": height}
    )
    return np.stack(pixels), table


def sets_of(table: pd.DataFrame, pairs: pd.DataFrame) -> set[frozenset[str]]:
    """The sets that the pairs join, by a rule of their own."""
    sets = [{name} for name in table["image_id"]]
    for a, b in pairs[["image_id_a", "image_id_b"]].itertuples(index=False):
        first, second = (next(s for s in sets if name in s) for name in (a, b))
        if first is not second:
            sets.remove(second)
            first |= second
    return {frozenset(s) for s in sets}


# Pictures


@pytest.mark.parametrize("change", CHANGES)
def test_a_copy_is_found_whatever_was_done_to_it(change):
    originals = [original(seed) for seed in range(4)]
    pixels, table = as_input([*originals, *(CHANGES[change](image) for image in originals)])
    pairs = find_augmented(pixels, table)
    names = table["image_id"]
    assert sets_of(table, pairs) == {frozenset((names[k], names[k + 4])) for k in range(4)}
    assert set(pairs["kind"]) == {"augmented"} and (pairs["correlation"] > 0.9).all()


def test_pictures_of_different_patients_are_not_joined():
    pixels, table = as_input([original(seed) for seed in range(24)])
    assert find_augmented(pixels, table).empty


def test_one_picture_none_and_flat_ones():
    steps: list[int] = []
    for n in (0, 1, 3):
        pixels, table = as_input([Image.new("L", (80, 60), 9)] * 3)
        assert find_augmented(pixels[:n], table[:n], steps.append).empty
    assert sum(steps) == sum(count_steps(n) for n in (0, 1, 3))
    with pytest.raises(ManifestError, match="were expected"):
        find_augmented(pixels[:2], table)


def test_every_patch_asks_and_is_asked_in_cells():
    patches = np.random.default_rng(0).integers(-60, 60, (5000, 64)).astype(np.int8)
    cells = list(augmented_copies._cells(patches))
    assert len(cells) > 1
    members = np.concatenate([inside for inside, _ in cells])
    assert sorted(members) == list(range(5000))
    asking = np.concatenate([asks for _, asks in cells])
    assert (np.bincount(asking) == 2).all()  # in its own cell and in the next nearest


def test_votes_do_not_depend_on_the_size_of_blocks(monkeypatch):
    images = [original(seed) for seed in range(3)]
    pictures = [
        describe_rotated(np.asarray(image), *image.size)
        for image in [*images, *(image.rotate(10, BILINEAR) for image in images)]
    ]
    found = vote(pictures)
    assert set(found[:3]) == {(0, 3), (1, 4), (2, 5)}
    monkeypatch.setattr(augmented_copies, "_BLOCK", 7)
    assert vote(pictures) == found


# Names


def test_names_that_say_what_was_done_are_certain():
    paths = ["a/IMG7.png", "a/rot90_IMG7.png", "a/IMG7_flip.jpg", "a/aug_3_IMG7.png", "b/IMG7.png"]
    paths += ["a/IMG8.png", "a/IMG8-zoom1.2.png"]
    certain, likely = name_pairs(paths)
    assert certain == [(0, 1), (0, 2), (0, 3), (5, 6)]
    assert likely == []


def test_names_that_say_nothing_join_nothing():
    paths = ["a/COVID (1).png", "a/COVID (2).png", "a/00000001_000.png", "a/00000001_001.png"]
    paths += [
        "a/IMG9.png",
        "a/IMG9.jpg",
        "a/aug_1.png",
        "a/aug_2.png",
        "a/copy.png",
        "a/flip.png",
        "a/x-aug.png",
        "a/x.png",
    ]
    assert name_pairs(paths) == ([], [])


def test_what_keras_saved_is_only_a_candidate():
    paths = ["a/IMG_0_1234.png", "a/IMG_0_77.png", "a/IMG.png", "a/IMG_1_5.png"]
    certain, likely = name_pairs(paths)
    assert certain == []
    assert likely == [(0, 1), (1, 3)]
    pixels, table = as_input([original(seed) for seed in range(4)])
    assert find_augmented(pixels, table.assign(path=paths)).empty  # the pictures say no


def test_names_alone_join_where_the_pictures_cannot_tell():
    pixels, table = as_input([original(0), original(1), original(2)])
    pairs = find_augmented(pixels, table.assign(path=["a/P1.png", "a/P1_noise.png", "a/P2.png"]))
    assert pairs.values.tolist() == [["fileaa", "fileab", "augmented", 0.0]]
    assert "2 images in 1 sets together, 1 of them by their names alone" in copies_sentence(pairs)


# A folder laid out as the Mendeley collection


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    """8 originals a class and five copies of each under names that say nothing; who is whose."""
    root = tmp_path_factory.mktemp("made") / "unpacked" / "COVID-19 Dataset"
    rng = np.random.default_rng(0)
    whose: dict[str, int] = {}
    for label, first in (("COVID", 0), ("Non-COVID", 100)):
        folder = root / "x-RAY" / label
        folder.mkdir(parents=True)
        names = rng.permutation(1000)
        for k in range(8):
            image = original(first + k)
            chosen = rng.choice(list(CHANGES), 5, replace=False)
            for made in [image, *(CHANGES[change](image) for change in chosen)]:
                name = f"{label} ({names[len(whose)]})"
                made.save(folder / f"{name}.png")
                whose[f"{label}/{name}"] = first + k
        (root / "CT" / label).mkdir(parents=True)
        image.save(root / "CT" / label / "1.png")
    return root, whose


def test_its_root_names_the_two_parts(collection):
    root, _ = collection
    for folder in (root, root.parent):
        with pytest.raises(DatasetError, match=r"holds X-rays and CT slices") as error:
            resolve_dataset(folder, "nowhere")
        assert str(root / "x-RAY") in str(error.value) and str(root / "CT") in str(error.value)
        assert "\n" not in str(error.value)


def test_each_part_loads_as_what_it_is(collection):
    root, whose = collection
    dataset, folder = resolve_dataset(root / "x-RAY", "nowhere")
    assert (dataset.name, dataset.modality) == ("mendeley-8h65ywd2jr-xray", "xray")
    assert dataset.augmented and any("augmented copies" in text for text in dataset.caveats)
    table = load_table(dataset, folder)
    assert set(table["image_id"]) == set(whose)
    assert table["label"].value_counts().to_dict() == {"covid": 48, "noncovid": 48}
    assert table.attrs["augmented"]
    dataset, folder = resolve_dataset(root / "CT", "nowhere")
    assert (dataset.name, dataset.modality) == ("mendeley-8h65ywd2jr-ct", "ct")
    assert len(load_table(dataset, folder)) == 2


def test_copies_of_one_image_never_cross(collection, tmp_path):
    root, whose = collection
    dataset, folder = resolve_dataset(root / "x-RAY", "nowhere")
    cache = build_pixel_cache(load_table(dataset, folder), folder, tmp_path, [SIZE])
    pairs = find_augmented(cache.pixels(SIZE), cache.table)
    manifest = build_manifest(cache.table, seed=0, folds=3, near_duplicates=pairs)
    mine = manifest["image_id"].map(whose)
    assert (manifest.groupby(mine)["split"].nunique() == 1).all()
    assert (manifest.groupby(mine)["fold"].nunique() == 1).all()
    assert (manifest.groupby("group_id")["split"].nunique() == 1).all()
    # No more is joined than has to be: each set is one original and its copies.
    assert manifest["group_id"].nunique() == 16
    assert len(pairs) == 16 * 5
    # And it is the search that does it: without the pairs nearly every set is torn apart.
    torn = build_manifest(cache.table, seed=0, folds=3)
    assert (torn.groupby(mine)["split"].nunique() > 1).mean() > 0.5


# Real images, where they are


def test_real_patients_are_told_apart_and_their_copies_found():
    root = Path(os.environ.get("CXR_DATA", "data")) / "darkcovidnet"
    if not root.is_dir():
        pytest.skip("darkcovidnet is not in CXR_DATA")
    dataset, root = resolve_dataset(root, "nowhere")
    table = load_table(dataset, root).drop_duplicates("patient_id")
    images = [Image.fromarray(read_image(root / path).pixels) for path in table["path"][::40]]
    chosen = list(CHANGES.values())
    copies = [chosen[k % len(chosen)](image) for k, image in enumerate(images)]
    pixels, table = as_input([*images, *copies])
    names, n = table["image_id"], len(images)
    assert n > 15
    assert sets_of(table, find_augmented(pixels, table)) == {
        frozenset((names[k], names[k + n])) for k in range(n)
    }
