"""core.inference.class_activation and core.inference.receptive_field: maps worked by hand, and
where they lie.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.evaluation.heatmaps.pointing_game import find_peak
from core.imageio.decode import resize_square
from core.inference.class_activation import (
    CLASS_ACTIVATION,
    OCCLUSION,
    ExplainError,
    class_evidence,
    class_heat,
    heat_colours,
    heat_map,
    mean_heat,
    model_maps,
    overlay,
    stretch_heat,
)
from core.inference.receptive_field import Places, align_maps
from core.inference.served_model import ServedModel
from tests.support.heatmaps import SIZE_PX, serve, write_halving_model


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


# ------------------------------------------------------------------------ maps of served models


def blob_offsets(model: ServedModel, method: str, shape: tuple[int, int]) -> np.ndarray:
    """How far a map's maximum lies from a bright blob, in shares of the picture: (blobs, 2)."""
    height, width = shape
    offsets = []
    for down in np.linspace(0.2, 0.8, 7):
        for right in np.linspace(0.2, 0.8, 7):
            rows = (np.arange(height) + 0.5) / height - down
            columns = (np.arange(width) + 0.5) / width - right
            near = np.exp(-(rows[:, None] ** 2 + columns[None] ** 2) / (2 * 0.06**2))
            picture = (20 + 220 * near).astype(np.uint8)
            pixels = resize_square(picture, SIZE_PX)
            maps = model_maps(model, pixels, model.predict(pixels[None]))
            assert maps.method == method
            row, column = find_peak(stretch_heat(class_heat(maps.values, 0), height, width))
            offsets.append(((row + 0.5) / height - down, (column + 0.5) / width - right))
    return np.array(offsets)


@pytest.mark.parametrize("shape", [(160, 160), (240, 110), (90, 210)])
@pytest.mark.parametrize(
    ("options", "method"),
    [
        ({"halvings": 3, "pads_begin": 0}, CLASS_ACTIVATION),
        ({"halvings": 3, "pads_begin": 1}, CLASS_ACTIVATION),
        ({"halvings": 1, "with_maps": False}, OCCLUSION),
    ],
)
def test_the_maximum_lies_at_a_bright_blob(tmp_path, options, method, shape) -> None:
    model = serve(write_halving_model(tmp_path, **options))
    offsets = blob_offsets(model, method, shape)
    assert np.abs(offsets).max() < 0.07, "within about half a cell of an eighth of the picture"
    assert np.abs(offsets.mean(axis=0)).max() < 0.02, "and to no side more than to the other"


def test_mirrored_answers_are_lined_up_too(tmp_path) -> None:
    xml = write_halving_model(tmp_path, halvings=3, pads_begin=1)
    assert np.abs(blob_offsets(serve(xml, tta="flip"), CLASS_ACTIVATION, (160, 160))).max() < 0.07


def test_places_are_the_centres_of_what_a_cell_sees(tmp_path) -> None:
    """Held against the model itself: which pixels change a cell at all."""
    for pads_begin in (0, 1):
        model = serve(write_halving_model(tmp_path, halvings=2, pads_begin=pads_begin))
        plain = replace(model, places=None)
        cell = (5, 9)
        seen = [[], []]
        before = plain.predict(np.zeros((1, SIZE_PX, SIZE_PX), np.uint8)).class_maps[0][cell][0]
        for axis in (0, 1):
            for line in range(SIZE_PX):
                pixels = np.zeros((1, SIZE_PX, SIZE_PX), np.uint8)
                pixels[(0, line) if axis == 0 else (0, slice(None), line)] = 255
                if plain.predict(pixels).class_maps[0][cell][0] != before:
                    seen[axis].append(line + 0.5)
        first, step = model.places.first_px, model.places.step_px
        for axis in (0, 1):
            assert first[axis] + step[axis] * cell[axis] == np.mean(seen[axis])


def test_maps_that_lie_right_are_left_as_they_are() -> None:
    maps = np.random.default_rng(0).normal(size=(2, 4, 4, 3)).astype(np.float32)
    assert align_maps(maps, Places((4.0, 4.0), (8.0, 8.0)), 32) is maps
    assert align_maps(maps, None, 32) is maps
    moved = align_maps(maps, Places((4.0, 8.0), (8.0, 8.0)), 32)  # columns half a cell to the right
    assert moved.shape == (2, 4, 8, 3)
    # Drawn cell 3 is centred on 14 px: between the cells that look at 8 px and at 16 px.
    np.testing.assert_allclose(
        moved[:, :, 3], maps[:, :, 0] * 0.25 + maps[:, :, 1] * 0.75, rtol=1e-5
    )


def test_a_model_without_maps_answers_and_says_so(tmp_path) -> None:
    output = serve(write_halving_model(tmp_path, with_maps=False), tta="flip").predict(
        np.zeros((3, SIZE_PX, SIZE_PX), np.uint8)
    )
    assert output.class_maps is None and output.probabilities.shape == (3, 3)


def test_the_mean_of_models_has_the_mean_of_their_heat() -> None:
    one, other = np.array([[1.0, 0.0], [0.0, 0.5]]), np.array([[0.0, 0.5], [0.0, 1.0]])
    np.testing.assert_allclose(mean_heat([one, other]), [[0.5, 0.25], [0, 0.75]])
    large = mean_heat([one, np.zeros((4, 4))])
    np.testing.assert_allclose(large, stretch_heat(one, 4, 4) / 2)
    with pytest.raises(ExplainError):
        mean_heat([])


def test_heat_is_what_speaks_for_the_class_alone() -> None:
    maps = np.random.default_rng(2).normal(size=(5, 4, 3))
    evidence = class_evidence(maps, 2)
    assert evidence.min() < 0
    np.testing.assert_allclose(class_heat(maps, 2), np.maximum(evidence, 0) / evidence.max())
