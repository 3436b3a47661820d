"""Alterations mean the same at each size, and a model that thresholds brightness is found out."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from core.datasets.phantom.generate import make_phantom
from core.evaluation.audit.perturbation import (
    JPEG_PX,
    KINDS,
    add_noise,
    alter_images,
    blur,
    brighten,
    change_contrast,
    compress,
    count_questions,
    measure_perturbations,
    rotate,
    shift,
)
from core.evaluation.sample import Sample
from tests.support.fake_models import CLASSES, Rule, panel_of

SIZE = 64


@pytest.fixture(scope="module")
def phantoms():
    return np.stack([make_phantom("normal", seed, 112, seed).pixels for seed in range(3)])


def dark_and_bright(n=40):
    """Even pictures: covid is dark (100), normal bright (150), two images a patient."""
    y_true = np.resize([0, 0, 1, 1], n)
    pixels = np.broadcast_to(
        np.array([100, 150], np.uint8)[y_true][:, None, None], (n, SIZE, SIZE)
    ).copy()
    return pixels, Sample(y_true, np.arange(n) // 2, CLASSES, seed=0, draws=300)


def threshold(pixels):
    return (pixels.mean(axis=(1, 2)) > 125).astype(int)


def test_a_model_that_thresholds_brightness_is_found_out():
    pixels, sample = dark_and_bright()
    model_group, ticks = panel_of(threshold=Rule(threshold)), []
    result = measure_perturbations(
        model_group, {SIZE: pixels}, sample, tick=lambda: ticks.append(1)
    )
    row = result["models"]["threshold"]
    assert row["baseline"]["accuracy"] == 1
    curve = {point["strength"]: point for point in row["curves"]["brightness"]}
    accuracies = {strength: point["accuracy"] for strength, point in curve.items()}
    assert accuracies == {-60: 0.5, -40: 0.5, -20: 1, 20: 1, 40: 0.5, 60: 0.5}
    assert curve[40]["low"] < 0.5 < curve[40]["high"] and curve[40]["macro_f1"] == pytest.approx(
        (2 / 3) / 3  # normal is called everywhere: F1 2/3, the others 0
    )
    for kind in ("contrast", "blur", "rotation", "shift", "jpeg", "noise"):
        assert {point["accuracy"] for point in row["curves"][kind]} == {1}
    steepest = row["steepest"]
    assert (steepest["kind"], steepest["from"], steepest["to"]) == ("brightness", -20, -40)
    assert steepest["drop"] == 0.5 and steepest["low"] < 0.5 < steepest["high"]
    assert "Threshold loses most where brightness goes from -20 to -40" in steepest["sentence"]
    assert "50.0 points" in steepest["sentence"]
    assert len(ticks) == count_questions() == model_group.models["threshold"].asked


def test_the_steepest_step_is_between_neighbours_and_not_from_the_whole_image():
    """One third is lost at each of two steps, a half at the third: that one is named."""
    pixels, sample = dark_and_bright(40)

    def falls(images):
        noise = images.std(axis=(1, 2))
        right = sample.y_true
        lost = np.select([noise > 30, noise > 15, noise > 7], [0.9, 0.4, 0.2], 0)
        return np.where(np.arange(len(images)) % 20 < 20 * lost, 2, right)

    row = measure_perturbations(panel_of(one=Rule(falls)), {SIZE: pixels}, sample)["models"]["one"]
    assert [point["accuracy"] for point in row["curves"]["noise"]] == [1, 0.8, 0.6, 0.1]
    steepest = row["steepest"]
    assert (steepest["kind"], steepest["from"], steepest["to"]) == ("noise", 20, 40)
    assert steepest["drop"] == pytest.approx(0.5)


def test_a_step_that_every_patient_loses_keeps_an_interval_with_width():
    pixels, sample = dark_and_bright()
    gone = Rule(lambda images: np.where(images.std(axis=(1, 2)) > 15, 2, sample.y_true))
    steepest = measure_perturbations(panel_of(one=gone), {SIZE: pixels}, sample)["models"]["one"][
        "steepest"
    ]
    assert steepest["drop"] == 1 == steepest["high"] and 0.8 < steepest["low"] < 1


def test_a_model_that_loses_nothing_has_no_steepest_step():
    pixels, sample = dark_and_bright()
    dull = Rule(lambda images: np.zeros(len(images), dtype=int))
    row = measure_perturbations(panel_of(dull=dull), {SIZE: pixels}, sample)["models"]["dull"]
    assert row["steepest"]["kind"] is None and row["steepest"]["drop"] is None
    assert row["steepest"]["sentence"] == "No alteration that was tried costs Dull any accuracy."


def test_the_size_of_a_batch_does_not_matter(monkeypatch):
    """An image keeps its own grain, whichever images it is asked about with."""
    pixels, sample = dark_and_bright(20)
    model_group = panel_of(one=Rule(lambda images: images[:, 3, 5].astype(int) % 3))
    whole = measure_perturbations(model_group, {SIZE: pixels}, sample)
    monkeypatch.setattr("core.inference.ensemble.BATCH", 7)
    assert measure_perturbations(model_group, {SIZE: pixels}, sample) == whole


def test_kinds_are_described_for_the_charts():
    pixels, sample = dark_and_bright()
    dull = Rule(lambda images: np.zeros(len(images), dtype=int))
    kinds = measure_perturbations(panel_of(dull=dull), {SIZE: pixels}, sample)["kinds"]
    assert list(kinds) == [
        "brightness", "contrast", "noise", "blur", "jpeg", "rotation", "shift",
    ]  # fmt: skip
    for kind in kinds.values():
        assert set(kind) == {"title", "unit", "strengths", "neutral"}
        assert kind["strengths"] == sorted(kind["strengths"])
        assert kind["neutral"] not in kind["strengths"]


# The alterations


@given(
    kind=st.sampled_from(list(KINDS)),
    size=st.sampled_from([64, 80, 112]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40, deadline=None)
def test_pictures_stay_pictures(kind, size, seed):
    rng = np.random.default_rng(seed)
    pixels = rng.integers(0, 256, (2, size, size), dtype=np.uint8)
    before = pixels.copy()
    for strength in (KINDS[kind].strengths[0], KINDS[kind].strengths[-1]):
        altered = alter_images(pixels, kind, strength, seed)
        assert altered.shape == pixels.shape and altered.dtype == np.uint8
        assert np.array_equal(altered, alter_images(pixels, kind, strength, seed))
        assert not np.array_equal(altered, pixels)
    assert np.array_equal(pixels, before)


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "jpeg"])
def test_the_neutral_strength_changes_nothing(kind, phantoms):
    assert np.array_equal(alter_images(phantoms, kind, KINDS[kind].neutral, 0), phantoms)


@pytest.mark.parametrize("kind", list(KINDS))
def test_more_strength_changes_more(kind, phantoms):
    how = KINDS[kind]
    for side in (
        [s for s in reversed(how.strengths) if s < how.neutral],
        [s for s in how.strengths if s > how.neutral],
    ):
        changes = [
            np.abs(alter_images(phantoms, kind, s, 0).astype(int) - phantoms).mean() for s in side
        ]
        assert changes == sorted(changes) and (not changes or changes[0] > 0)


def test_brightness_and_contrast_are_in_grey_levels():
    picture = np.array([[0, 100], [150, 250]], np.uint8)
    assert brighten(picture, 20).tolist() == [[20, 120], [170, 255]]
    assert brighten(picture, -20).tolist() == [[0, 80], [130, 230]]
    assert change_contrast(picture, 0.4).tolist() == [[75, 115], [135, 175]]  # about 125
    assert change_contrast(picture, 2.5).tolist() == [[0, 62], [188, 255]]


@pytest.mark.parametrize("size", [64, 112, 448])
def test_noise_has_its_size_in_grey_levels_at_every_input_size(size):
    even = np.full((size, size), 128, np.uint8)
    noise = add_noise(even, 20, np.random.default_rng(1)).astype(float) - 128
    assert noise.std() == pytest.approx(20, rel=0.02) and abs(noise.mean()) < 0.3


def test_grain_is_as_coarse_at_every_input_size():
    """What is left after shrinking to 56 px is the same, whatever the size it was made at."""
    left = {}
    for size in (112, 448):
        even = np.full((size, size), 128, np.uint8)
        noisy = Image.fromarray(add_noise(even, 20, np.random.default_rng(1)))
        left[size] = np.asarray(noisy.resize((56, 56), Image.Resampling.BOX)).astype(float) - 128
    assert left[112].std() == pytest.approx(left[448].std(), rel=0.25)
    assert np.corrcoef(left[112].ravel(), left[448].ravel())[0, 1] > 0.9


@pytest.mark.parametrize("size", [112, 448])
def test_blur_is_a_share_of_the_side(size):
    """The spread of a thin bright line."""
    line = np.zeros((size, size), np.uint8)
    line[:, size // 2] = 255
    spread = blur(line, 0.02, None)[size // 2].astype(float)
    x = np.arange(size) - size // 2
    assert np.sqrt((spread * x**2).sum() / spread.sum()) == pytest.approx(0.02 * size, rel=0.1)


def test_jpeg_is_what_pillow_saves(phantoms):
    big = np.asarray(Image.fromarray(phantoms[0]).resize((JPEG_PX, JPEG_PX)))
    file = io.BytesIO()
    Image.fromarray(big).save(file, format="JPEG", quality=25)
    assert np.array_equal(compress(big, 25), np.asarray(Image.open(file)))
    # A small picture is saved as large: blocks of 8 px of 448, not of 112.
    small = np.abs(compress(phantoms[0], 25).astype(int) - phantoms[0]).mean()
    file = io.BytesIO()
    Image.fromarray(phantoms[0]).save(file, format="JPEG", quality=25)
    coarse = np.abs(np.asarray(Image.open(file)).astype(int) - phantoms[0]).mean()
    assert small < 0.7 * coarse


def test_rotation_turns_about_the_middle(phantoms):
    picture = phantoms[0]
    quarter = rotate(picture, 90)
    assert np.abs(quarter.astype(int) - np.rot90(picture)).mean() < 3
    # Outside the picture its edge goes on: no black corners.
    assert rotate(np.full((64, 64), 200, np.uint8), 20).min() == 200


def test_a_shift_is_a_share_of_the_side():
    for size in (64, 112, 448):
        picture = np.zeros((size, size), np.uint8)
        picture[size // 2, size // 2] = 255
        by = round(0.1 * size)
        assert shift(picture, 0.1)[size // 2 + by, size // 2 + by] == 255
        assert shift(picture, -0.1)[size // 2 - by, size // 2 - by] == 255
        assert shift(picture, 0.1).sum() == 255
    edge = np.arange(64, dtype=np.uint8)[None].repeat(64, axis=0)
    assert shift(edge, 0.1)[0, :7].tolist() == [0] * 7  # the edge goes on
