"""Changes to a picture, each worked out by hand or by another way, and their order."""

from __future__ import annotations

import numpy as np
import pytest

from core.datasets.phantom.generate import make_phantom
from core.evaluation.audit.perturbation import brighten, change_contrast
from core.serving.what_if import AlteringError, Box, Changes, apply_changes, describe_changes

RAMP = np.arange(12, dtype=np.uint8).reshape(3, 4) * 10  # 0 to 110, mean 55


def test_neutral_gives_the_very_same_pixels_in_an_array_of_its_own() -> None:
    pixels = make_phantom("covid", 3, 96).pixels
    for fill in ("mean", "black"):
        same = apply_changes(pixels, Changes(fill=fill))
        np.testing.assert_array_equal(same, pixels)
        assert not np.shares_memory(same, pixels) and Changes(fill=fill).neutral
    assert not Changes(brightness=1).neutral


def test_brightness_adds_levels_and_clips() -> None:
    bright = apply_changes(RAMP, Changes(brightness=150))
    assert bright.ravel().tolist() == [150, 160, 170, 180, 190, 200, 210, 220, 230, 240, 250, 255]
    dark = apply_changes(RAMP, Changes(brightness=-25))
    assert dark.ravel().tolist() == [0, 0, 0, 5, 15, 25, 35, 45, 55, 65, 75, 85]


def test_contrast_turns_about_the_mean() -> None:
    half = apply_changes(RAMP, Changes(contrast=0.5))  # 55 + (v - 55) / 2, half rounded to even
    assert half.ravel().tolist() == [28, 32, 38, 42, 48, 52, 58, 62, 68, 72, 78, 82]
    assert set(apply_changes(RAMP, Changes(contrast=0)).ravel()) == {55}


@pytest.mark.parametrize("levels", [-60, 40])
def test_brightness_is_that_of_the_audit(levels: int) -> None:
    pixels = make_phantom("normal", 1, 64).pixels
    np.testing.assert_array_equal(
        apply_changes(pixels, Changes(brightness=levels)), brighten(pixels, levels)
    )


@pytest.mark.parametrize("factor", [0.4, 1.7])
def test_contrast_is_that_of_the_audit(factor: float) -> None:
    pixels = make_phantom("normal", 1, 64).pixels
    ours = apply_changes(pixels, Changes(contrast=factor)).astype(int)
    assert np.abs(ours - change_contrast(pixels, factor)).max() <= 1  # float32 there


def test_contrast_comes_before_brightness() -> None:
    both = apply_changes(RAMP, Changes(contrast=0, brightness=20))
    assert set(both.ravel()) == {75}


def test_flip() -> None:
    assert apply_changes(RAMP, Changes(flip=True))[0].tolist() == [30, 20, 10, 0]


def test_rotation_is_counterclockwise_keeps_the_size_and_fills() -> None:
    square = np.zeros((5, 5), np.uint8)
    square[0, 2] = 200  # above the middle; a quarter turn counterclockwise puts it to the left
    turned = apply_changes(square, Changes(rotation=90))
    assert turned[2, 0] == 200 and turned.sum() == 200
    level = np.full((40, 60), 100, np.uint8)
    black = apply_changes(level, Changes(rotation=30, fill="black"))
    assert black.shape == (40, 60) and black[0, 0] == 0 and black[20, 30] == 100
    assert set(black.ravel()) == {0, 100}  # nothing from inside appears outside
    grey = apply_changes(level, Changes(rotation=30, fill="mean"))
    np.testing.assert_array_equal(grey, level)


def test_crop_keeps_what_is_said() -> None:
    cropped = apply_changes(RAMP, Changes(across=(0.25, 1.0), down=(1 / 3, 2 / 3)))
    assert cropped.tolist() == [[50, 60, 70]]
    tiny = apply_changes(RAMP, Changes(across=(0.0, 0.1), down=(0.9, 1.0)))
    assert tiny.shape == (1, 1) and tiny[0, 0] == 80  # at least one pixel is left


def test_box_hides_under_mean_or_black() -> None:
    box = Box(0.5, 0, 0.5, 1 / 3)
    grey = apply_changes(RAMP, Changes(hidden=box))
    assert grey[0].tolist() == [0, 10, 55, 55]
    np.testing.assert_array_equal(grey[1:], RAMP[1:])
    assert apply_changes(RAMP, Changes(hidden=box, fill="black"))[0].tolist() == [0, 10, 0, 0]


def test_box_is_of_the_picture_as_it_stands() -> None:
    """Flipped, cropped to its right half and brightened, then hidden: the mean is of that."""
    changes = Changes(flip=True, across=(0.5, 1.0), brightness=5, hidden=Box(0, 0, 0.5, 1))
    # Right half of the flipped rows: [10, 0], [50, 40], [90, 80]; plus 5, mean 50.
    assert apply_changes(RAMP, changes).tolist() == [[50, 5], [50, 45], [50, 85]]


def test_picture_itself_is_left_alone() -> None:
    before = RAMP.copy()
    apply_changes(RAMP, Changes(5, 2, 10, True, (0.1, 0.9), (0.1, 0.9), Box(0, 0, 1, 1)))
    np.testing.assert_array_equal(RAMP, before)


@pytest.mark.parametrize(
    "make",
    [
        lambda: Changes(brightness=300),
        lambda: Changes(contrast=-1),
        lambda: Changes(rotation=float("nan")),
        lambda: Changes(across=(0.5, 0.55)),
        lambda: Changes(down=(-0.1, 1.0)),
        lambda: Changes(fill="white"),
        lambda: Box(0.5, 0, 0.6, 0.5),
        lambda: Box(0, 0, 0, 0.5),
        lambda: Box(float("nan"), 0, 0.1, 0.5),
        lambda: apply_changes(np.zeros((3, 3)), Changes()),
        lambda: apply_changes(np.zeros((3, 3, 3), np.uint8), Changes()),
    ],
)
def test_nonsense_is_refused_in_a_sentence(make) -> None:
    with pytest.raises(AlteringError, match="Received"):
        make()


def test_words() -> None:
    assert describe_changes(Changes()) == ""
    changes = Changes(-20, 1.5, -5, True, (0.1, 0.9), (0, 0.5), Box(0, 0, 0.5, 0.25), "black")
    assert describe_changes(changes) == (
        "flipped left to right, turned 5° clockwise, cropped to 80 % of its width and 50 % of its "
        "height, contrast times 1.5, 20 levels darker, 12.5 % of its area hidden under black"
    )
