"""core.explain: maps worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from core.explain import ExplainError, class_heat, heat_colours, heat_map, overlay


def test_heat_map_keeps_only_what_speaks_for_the_class() -> None:
    heat = heat_map(np.array([[-3.0, 0.0], [1.0, 4.0]]))
    assert heat.dtype == np.float32
    np.testing.assert_allclose(heat, [[0, 0], [0.25, 1]])


def test_heat_map_does_not_depend_on_the_scale_of_the_activation() -> None:
    class_map = np.random.default_rng(0).normal(size=(7, 7))
    np.testing.assert_allclose(heat_map(class_map), heat_map(class_map * 50), rtol=1e-5)


def test_heat_map_of_nothing_is_zero_and_not_nan() -> None:
    assert (heat_map(np.full((3, 3), -1.0)) == 0).all()


@pytest.mark.parametrize("bad", [np.zeros(4), np.zeros((0, 3)), np.array([[np.nan, 1.0]])])
def test_heat_map_refuses_what_is_no_map(bad: np.ndarray) -> None:
    with pytest.raises(ExplainError):
        heat_map(bad)


def test_class_heat_does_not_see_what_all_classes_share() -> None:
    maps = np.random.default_rng(1).normal(size=(5, 4, 3))
    shared = maps + np.linspace(0, 9, 20).reshape(5, 4, 1)
    np.testing.assert_allclose(class_heat(maps, 1), class_heat(shared, 1), atol=1e-5)


def test_class_heat_is_where_the_class_beats_the_others() -> None:
    maps = np.zeros((2, 2, 2))
    maps[0, 0] = [3, 1]  # for class 0 by 2
    maps[1, 1] = [0, 4]  # for class 1 by 4
    np.testing.assert_allclose(class_heat(maps, 0), [[1, 0], [0, 0]])
    np.testing.assert_allclose(class_heat(maps, 1), [[0, 0], [0, 1]])


def test_class_heat_refuses_a_class_that_is_not_there() -> None:
    with pytest.raises(ExplainError):
        class_heat(np.zeros((2, 2, 3)), 3)


def test_overlay_with_opacity_zero_is_the_picture() -> None:
    grey = np.arange(48, dtype=np.uint8).reshape(6, 8)
    mixed = overlay(grey, np.ones((2, 2)), 0)
    assert mixed.shape == (6, 8, 3) and mixed.dtype == np.uint8
    assert (mixed == grey[..., None]).all()


def test_overlay_puts_the_heat_where_the_map_has_it() -> None:
    grey = np.full((40, 20), 100, np.uint8)
    heat = np.zeros((4, 2), np.float32)
    heat[3, 1] = 1  # lower right
    mixed = overlay(grey, heat, 1)
    assert (mixed[0, 0] == 100).all(), "cold places stay as they are"
    np.testing.assert_allclose(mixed[-1, -1], heat_colours(np.array(1.0)), atol=1)


def test_overlay_mixes_by_opacity_times_heat() -> None:
    mixed = overlay(np.full((4, 4), 200, np.uint8), np.full((2, 2), 0.5), 0.5)
    expected = 0.75 * 200 + 0.25 * heat_colours(np.array(0.5))
    np.testing.assert_allclose(mixed[2, 2], expected, atol=1)


def test_colours_get_lighter_with_heat() -> None:
    luma = heat_colours(np.linspace(0, 1, 50)) @ np.array([0.299, 0.587, 0.114])
    assert (np.diff(luma) > 0).all()


@pytest.mark.parametrize(
    ("grey", "heat", "opacity"),
    [
        (np.zeros((4, 4, 3), np.uint8), np.zeros((2, 2)), 0.5),
        (np.zeros((4, 4), np.float32), np.zeros((2, 2)), 0.5),
        (np.zeros((4, 4), np.uint8), np.full((2, 2), 2.0), 0.5),
        (np.zeros((4, 4), np.uint8), np.zeros((2, 2)), 1.5),
    ],
)
def test_overlay_refuses_what_does_not_fit(
    grey: np.ndarray, heat: np.ndarray, opacity: float
) -> None:
    with pytest.raises(ExplainError):
        overlay(grey, heat, opacity)
