"""The blackout test finds a model that reads a corner, and clears one that reads the lungs."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core.datasets.phantom.generate import make_phantom
from core.evaluation.audit.blackout import (
    BOX_RULE,
    FILLS,
    PARTS,
    BaselineImages,
    Masking,
    fill_hidden,
    lung_box,
    measure_blackout,
    retained_share,
    shrink_mask,
)
from core.evaluation.sample import Sample
from core.evaluation.shortcut_baselines import blackout_mask, compute_baselines
from core.inference.ensemble import ModelGroup
from core.metrics.bootstrap import draw_weights
from tests.support.fake_models import CLASSES, Rule, level_of, panel_of

SIZE = 64
NORMAL = 1
LEVELS = np.array([30, 128, 225])


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    monkeypatch.setattr("core.evaluation.shortcut_baselines.TREES", 60)


def pictures(n=60, seed=0):
    """Grainy pictures that say nothing, the class of each, and patients of two images."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(90, 160, (n, SIZE, SIZE), dtype=np.uint8)
    y_true = np.resize([0, 1, 1, 2], n)
    groups = np.array([f"patient {k // 2:03d}" for k in range(n)])
    return pixels, y_true, groups


def put_marker(pixels, y_true):
    """A class marker printed in the upper left corner, outside the box of the lungs."""
    pixels[:, :3, :32] = LEVELS[y_true][:, None, None]


def put_lesion(pixels, y_true):
    """A grey of the class in the middle of the picture."""
    pixels[:, 24:40, 24:40] = LEVELS[y_true][:, None, None]


def reads_corner(pixels):
    return level_of(pixels[:, :3, :32].mean(axis=(1, 2)))


def reads_lungs(pixels):
    return level_of(pixels[:, 24:40, 24:40].mean(axis=(1, 2)))


def blackout(model_group, pixels, y_true, groups, **options):
    sample = Sample(y_true, groups, CLASSES, seed=0, draws=400)
    masking = Masking(125.0, sample.seed, options.pop("lungs", None))
    return measure_blackout(
        model_group, {SIZE: pixels}, sample, masking, majority=NORMAL, **options
    )


def test_a_marker_in_the_corner_is_flagged_and_a_lesion_in_the_lungs_is_not():
    pixels, y_true, groups = pictures()
    put_marker(pixels, y_true)
    put_lesion(pixels, y_true)
    result = blackout(
        panel_of(corner=Rule(reads_corner), lungs=Rule(reads_lungs)), pixels, y_true, groups
    )
    assert result["majority_rate"] == 0.5 and result["n"] == 60
    corner, lungs = result["models"]["corner"], result["models"]["lungs"]
    for row in (corner, lungs):
        assert row["full"]["accuracy"] == 1 and row["full"]["low"] < 1
    for fill in FILLS:
        assert corner["without_lungs"][fill]["accuracy"] == 1
        assert corner["without_lungs"][fill]["kept"]["share"] == 1
        assert corner["without_lungs"][fill]["kept"]["low"] < 1  # 30 patients are not all
        assert lungs["lungs_only"][fill]["kept"]["share"] == 1
        assert lungs["without_lungs"][fill]["kept"]["share"] <= 0
    assert corner["flagged"] is True and "does not come from the lungs" in corner["sentence"]
    assert lungs["flagged"] is False and "less than half" in lungs["sentence"]
    # With nothing to go by it calls all alike, which a confused model would do too.
    assert max(lungs["without_lungs"]["mean"]["called"].values()) == 60
    assert "merely confuse" in lungs["sentence"]
    assert lungs["lungs_only"]["mean"]["called"] == {"covid": 15, "normal": 30, "pneumonia": 15}
    assert "Corner keeps 100.0" in corner["sentence"]


def test_floors_on_the_masked_images_know_of_the_marker_too():
    pixels, y_true, groups = pictures(120)
    put_marker(pixels, y_true)
    manifest = pd.DataFrame(
        {
            "image_id": [f"image {k}" for k in range(120)],
            "label": np.array(CLASSES)[y_true],
            "patient_id": groups,
            "split": np.where(np.arange(120) < 80, "train", "test"),
        }
    )
    test = np.arange(80, 120)
    result = blackout(
        panel_of(corner=Rule(reads_corner)), pixels[test], y_true[test], groups[test],
        baselines=BaselineImages(pixels, manifest),
    )  # fmt: skip
    assert set(result["floors"]) == set(FILLS)
    for fill in FILLS:
        assert set(result["floors"][fill]) == set(PARTS)
        floor = result["floors"][fill]["without_lungs"]["thumbnail"]
        assert floor["accuracy"] == 1 and floor["low"] < 1
        assert floor["title"] == "32×32 thumbnail"
        assert result["floors"][fill]["lungs_only"]["thumbnail"]["accuracy"] < 0.8
    border = compute_baselines(pixels, manifest, CLASSES, 0, draws=50)["border"]
    assert border["accuracy"] == 1  # the floor beside the models says so as well


def test_a_model_that_knows_one_fill_is_neither_flagged_nor_cleared():
    pixels, y_true, groups = pictures()
    put_marker(pixels, y_true)

    def reads_corner_of_even_patches(images):
        even = images[:, 10, 10:20].std(axis=1) == 0
        return np.where(even, reads_corner(images), NORMAL)

    full = Rule(reads_corner)
    row = blackout(panel_of(one=full), pixels, y_true, groups)["models"]["one"]
    assert row["flagged"]
    pixels[:, 10, 10:20] = 120  # so that the whole pictures are answered too
    row = blackout(
        panel_of(one=Rule(reads_corner_of_even_patches)), pixels, y_true, groups
    )["models"]["one"]  # fmt: skip
    assert row["without_lungs"]["mean"]["kept"]["share"] == 1
    assert row["without_lungs"]["surroundings"]["kept"]["share"] == 0
    assert row["flagged"] is False and "not flagged and not cleared" in row["sentence"]


def test_a_model_without_any_gain_has_none_to_keep():
    pixels, y_true, groups = pictures()
    always = Rule(lambda images: np.full(len(images), NORMAL))
    row = blackout(panel_of(dull=always), pixels, y_true, groups)["models"]["dull"]
    assert row["without_lungs"]["mean"]["kept"] == {"share": None, "low": None, "high": None}
    assert row["flagged"] is False and "no gain" in row["sentence"]


def answers(right, y_true):
    """Probabilities that are right where `right` says so and name another class elsewhere."""
    called = np.where(right, y_true, (y_true + 1) % 3)
    return np.eye(3)[called]


def test_the_share_kept_is_the_gain_left_over_the_gain():
    y_true = np.repeat([0, 1, 2], [5, 10, 5])
    sample = Sample(y_true, np.arange(20), CLASSES, draws=300)
    full = answers(np.arange(20) != 3, y_true)  # 19 of 20 right
    masked = answers(np.arange(20) >= 7, y_true)  # 13 of 20 right
    always = y_true == NORMAL  # 10 of 20
    kept = retained_share(sample, masked, full, always)
    assert kept["share"] == pytest.approx((13 - 10) / (19 - 10))
    assert kept["low"] < 1 / 3 < kept["high"]


def test_the_interval_of_the_share_draws_the_same_patients_above_and_below():
    """Against a loop that repeats the images of each drawn patient."""
    rng = np.random.default_rng(3)
    y_true = rng.integers(0, 3, 60)
    groups = rng.integers(0, 25, 60)
    full = answers(rng.random(60) < 0.9, y_true)
    masked = answers(rng.random(60) < 0.6, y_true)
    always = y_true == NORMAL
    sample = Sample(y_true, groups, CLASSES, seed=7, draws=200)
    weights = np.concatenate(list(draw_weights(len(set(groups)), 200, 7)), axis=1)
    names = sorted(set(map(str, groups)))
    shares = []
    for draw in weights.T.astype(int):
        rows = [
            row
            for name, times in zip(names, draw, strict=True)
            for row in np.flatnonzero(groups.astype(str) == name).tolist() * times
        ]
        majority = always[rows].mean()
        right = [(y_prob.argmax(axis=1) == y_true)[rows].mean() for y_prob in (masked, full)]
        shares.append((right[0] - majority) / (right[1] - majority))
    kept = retained_share(sample, masked, full, always)
    low, high = np.quantile(shares, [0.025, 0.975])
    assert (kept["low"], kept["high"]) == pytest.approx((low, high))


def test_a_gain_that_may_be_none_has_no_interval():
    y_true = np.resize([0, 1, 1, 2], 40)
    sample = Sample(y_true, np.arange(40), CLASSES, draws=400)
    always = y_true == NORMAL
    full = answers(always | (np.arange(40) < 2), y_true)
    kept = retained_share(sample, np.eye(3)[np.full(40, NORMAL)], full, always)
    assert kept == {"share": 0, "low": None, "high": None}


@given(
    seed=st.integers(0, 1000),
    fill=st.sampled_from(list(FILLS)),
    part=st.sampled_from(PARTS),
    size=st.sampled_from([64, 80]),
)
@settings(max_examples=25, deadline=None)
def test_nothing_of_what_is_hidden_is_left_and_the_rest_is_not_touched(seed, fill, part, size):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (2, size, size), dtype=np.uint8)
    hidden = lung_box(size) if part == "without_lungs" else ~lung_box(size)
    other = np.where(hidden, rng.integers(0, 256, pixels.shape, dtype=np.uint8), pixels)
    filled = fill_hidden(pixels, hidden, fill, 100.0, 0)
    assert np.array_equal(filled, fill_hidden(other, hidden, fill, 100.0, 0))
    assert np.array_equal(filled[:, ~hidden], pixels[:, ~hidden])
    assert filled.dtype == np.uint8


def test_fills_are_what_they_say():
    flat = np.full((1, SIZE, SIZE), 77, np.uint8)
    hidden = lung_box(SIZE)
    assert (fill_hidden(flat, hidden, "surroundings", 200.0, 0) == 77).all()
    assert (fill_hidden(flat, hidden, "mean", 200.0, 0)[0][hidden] == 200).all()
    # A dark left and a bright right side go on into the middle, and so does their grain.
    sides = np.where(np.arange(SIZE) < SIZE // 2, 60, 180)[None, None].repeat(SIZE, axis=1)
    grain = np.random.default_rng(0).normal(0, 8, sides.shape)
    filled = fill_hidden((sides + grain).astype(np.uint8), hidden, "surroundings", 0.0, 0)[0]
    inside = filled[10:50].astype(float)
    assert inside[:, 4:10].mean() == pytest.approx(60, abs=12)
    assert inside[:, -10:-4].mean() == pytest.approx(180, abs=12)
    assert np.diff(inside[:, 5:9], axis=1).std() / np.sqrt(2) == pytest.approx(8, rel=0.25)
    # Nothing to go on from: the mean grey.
    everything = np.ones((SIZE, SIZE), dtype=bool)
    assert (fill_hidden(flat, everything, "surroundings", 123.0, 0) == 123).all()


@pytest.mark.parametrize("size", [32, 64, 112, 224, 448])
def test_the_box_is_wider_than_the_blackout_of_the_floors(size):
    assert lung_box(size)[blackout_mask(size)].all()
    assert 0.7 < lung_box(size).mean() < 0.8


def test_the_box_holds_the_lungs_of_phantoms():
    inside = [
        lung_box(128)[make_phantom(label, seed, 128, seed).lungs].mean()
        for seed, label in enumerate(["covid", "normal", "pneumonia"] * 5)
    ]
    assert np.mean(inside) > 0.985 and min(inside) > 0.93


def test_masks_that_are_given_take_the_place_of_the_box():
    pixels, y_true, groups = pictures()
    put_lesion(pixels, y_true)
    pixels[:, 10:13, 10:13] = LEVELS[y_true][:, None, None]  # in the box, not in the lungs
    beside = Rule(lambda images: level_of(images[:, 10:13, 10:13].mean(axis=(1, 2))))
    model_group = panel_of(beside=beside, lungs=Rule(reads_lungs))
    masks = np.zeros(pixels.shape, dtype=bool)
    masks[:, 20:44, 20:44] = True
    result = blackout(model_group, pixels, y_true, groups, lungs={SIZE: masks})
    assert result["region"]["kind"] == "masks" and result["region"]["boxes"] == []
    assert result["models"]["beside"]["flagged"] and not result["models"]["lungs"]["flagged"]
    boxed = blackout(model_group, pixels, y_true, groups)
    assert boxed["region"] == {
        "rule": BOX_RULE, "kind": "box", "boxes": [[0.05, 0.05, 0.9, 0.95]],
    }  # fmt: skip
    assert not boxed["models"]["beside"]["flagged"]


def test_a_mask_is_stretched_as_its_image_is():
    mask = np.zeros((40, 100), np.uint8)
    mask[:20, 50:] = 1
    small = shrink_mask(mask, 20)
    assert small.dtype == bool
    assert small[:10, 10:].all() and small.sum() == 100


def test_an_ensemble_is_asked_as_the_mean_of_its_models():
    pixels, y_true, groups = pictures()
    put_marker(pixels, y_true)
    put_lesion(pixels, y_true)
    models = {"corner": Rule(reads_corner, sure=0.95), "lungs": Rule(reads_lungs, sure=0.6)}
    model_group = ModelGroup(models, {"ensemble": ["corner", "lungs"]})
    rows = blackout(model_group, pixels, y_true, groups)["models"]
    assert list(rows) == ["corner", "lungs", "ensemble"]
    assert rows["ensemble"]["flagged"]  # the surer of the two decides
    assert models["corner"].asked == 1 + len(FILLS) * len(PARTS)


def test_the_size_of_a_batch_does_not_matter(monkeypatch):
    """An image keeps its own grain and mask, whichever images it is asked about with."""
    pixels, y_true, groups = pictures(20)
    masks = np.zeros(pixels.shape, dtype=bool)
    masks[:, 20:44, 20:44] = np.arange(20)[:, None, None] % 2 == 0
    model_group = panel_of(one=Rule(lambda images: images[:, 30, 30].astype(int) % 3))
    whole = blackout(model_group, pixels, y_true, groups, lungs={SIZE: masks})
    monkeypatch.setattr("core.inference.ensemble.BATCH", 7)
    assert blackout(model_group, pixels, y_true, groups, lungs={SIZE: masks}) == whole


def test_the_same_seed_gives_the_same_result_and_ticks_are_counted():
    pixels, y_true, groups = pictures()
    put_marker(pixels, y_true)
    model_group, ticks = panel_of(corner=Rule(reads_corner)), []
    first = blackout(model_group, pixels, y_true, groups, tick=lambda: ticks.append(1))
    assert first == blackout(model_group, pixels, y_true, groups)
    assert len(ticks) == 1 + len(FILLS) * len(PARTS)
