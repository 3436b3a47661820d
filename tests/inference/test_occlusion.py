"""core.inference.occlusion: falls worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from core.inference.class_activation import class_heat
from core.inference.occlusion import BATCH, OcclusionError, occlusion_maps


def ask_about_pixel(row: int, column: int, asked: list[int] | None = None):
    """A model whose first class has the odds 1 + the brightness of one pixel, against 1 and 1."""

    def ask(pixels: np.ndarray) -> np.ndarray:
        assert pixels.dtype == np.uint8 and pixels.ndim == 3
        if asked is not None:
            asked.append(len(pixels))
        odds = np.ones((len(pixels), 3))
        odds[:, 0] += pixels[:, row, column]
        return odds / odds.sum(axis=1, keepdims=True)

    return ask


def picture(row: int, column: int) -> np.ndarray:
    """8×8, black but for one pixel of 192, so that its mean grey is 3."""
    pixels = np.zeros((8, 8), np.uint8)
    pixels[row, column] = 192
    return pixels


def test_the_fall_is_that_of_the_log_probability_where_the_patch_hides_the_pixel() -> None:
    maps = occlusion_maps(ask_about_pixel(2, 5), picture(2, 5), cells=4)
    assert maps.shape == (4, 4, 3) and maps.dtype == np.float32
    # Cells are 2 px and patches 4 px: rows -1..3, 1..5 and columns 3..7, 5..9 hide (2, 5).
    hit = np.zeros((4, 4), bool)
    hit[0:2, 2:4] = True
    np.testing.assert_allclose(maps[hit][:, 0], np.log(193 / 195) - np.log(4 / 6), rtol=1e-5)
    np.testing.assert_allclose(maps[hit][:, 1], np.log(1 / 195) - np.log(1 / 6), rtol=1e-5)
    np.testing.assert_allclose(maps[~hit], 0, atol=1e-6)


def test_without_the_mean_over_the_classes_it_is_the_fall_of_the_logit() -> None:
    maps = occlusion_maps(ask_about_pixel(2, 5), picture(2, 5), cells=4)
    assert maps[0, 2, 0] - maps[0, 2, 1] == pytest.approx(np.log(193) - np.log(4), rel=1e-5)
    heat = class_heat(maps, 0)
    assert heat[0, 2] == 1 and heat[3, 0] == pytest.approx(0, abs=1e-6)


def test_a_very_sure_model_still_has_a_map() -> None:
    def ask(pixels: np.ndarray) -> np.ndarray:
        sure = 1 - 1e-5 * (pixels[:, 2, 5] < 100)
        return np.stack([sure, 1 - sure], axis=1).astype(np.float32)

    assert class_heat(occlusion_maps(ask, picture(2, 5), cells=4), 0)[0, 2] == 1


def test_a_flat_picture_has_nothing_to_hide() -> None:
    flat = np.full((8, 8), 90, np.uint8)
    assert (occlusion_maps(ask_about_pixel(2, 5), flat, cells=4) == 0).all()


def test_pictures_are_asked_about_in_batches() -> None:
    asked: list[int] = []
    occlusion_maps(ask_about_pixel(2, 5, asked), picture(2, 5), cells=7)
    assert max(asked) <= BATCH and sum(asked) == 1 + 49


@pytest.mark.parametrize(
    ("pixels", "cells"),
    [
        (np.zeros((8, 9), np.uint8), 4),
        (np.zeros((8, 8), np.float32), 4),
        (np.zeros((8, 8, 3), np.uint8), 4),
        (np.zeros((8, 8), np.uint8), 9),
        (np.zeros((8, 8), np.uint8), 0),
    ],
)
def test_what_is_no_grey_square_is_refused(pixels: np.ndarray, cells: int) -> None:
    with pytest.raises(OcclusionError):
        occlusion_maps(ask_about_pixel(0, 0), pixels, cells=cells)
