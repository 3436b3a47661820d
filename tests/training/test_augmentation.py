"""One map for four movements: against Keras' own layers, against SciPy, and what is drawn."""

import math

import keras
import numpy as np
import pytest
from scipy import ndimage

from core.models.recipes import Recipe
from core.training.augmentation import Augmentation, affine_maps, build_augmentation

SMOOTH = 3.0  # px: so that an interpolation more or less hardly counts


@pytest.fixture(scope="module")
def images():
    """Smooth pictures that are not square: a swap of height and width would be seen."""
    noise = np.random.default_rng(0).uniform(0, 255, (4, 60, 72))
    smooth = ndimage.gaussian_filter(noise, (0, SMOOTH, SMOOTH))
    return (255 * (smooth - smooth.min()) / np.ptp(smooth)).astype("float32")[..., None]


def moved(images, mirrored, angle, zoom, shift):
    n = len(images)
    maps = affine_maps(
        np.full(n, mirrored, "float32"), np.full(n, angle, "float32"),
        np.tile(np.array(zoom, "float32"), (n, 1)), np.tile(np.array(shift, "float32"), (n, 1)),
        *images.shape[1:3],
    )  # fmt: skip
    result = keras.ops.image.affine_transform(
        images, maps, interpolation="bilinear", fill_mode="reflect"
    )
    return keras.ops.convert_to_numpy(result), keras.ops.convert_to_numpy(maps)


@pytest.mark.parametrize("mirrored", [1, -1])
def test_one_map_does_what_keras_layers_do_one_after_the_other(images, mirrored):
    angle, zoom, shift = 0.12, (1.09, 0.94), (0.04, -0.03)
    options = {"fill_mode": "reflect", "interpolation": "bilinear"}
    turn = angle / (2 * math.pi)
    expected = images[:, :, ::mirrored]
    for layer in (
        keras.layers.RandomRotation((turn, turn), **options),
        keras.layers.RandomZoom((zoom[0] - 1,) * 2, (zoom[1] - 1,) * 2, **options),
        keras.layers.RandomTranslation((shift[0],) * 2, (shift[1],) * 2, **options),
    ):
        expected = keras.ops.convert_to_numpy(layer(expected, training=True))
    got, _ = moved(images, mirrored, angle, zoom, shift)
    # At the borders they reflect what was reflected already, so only the inside is the same.
    inside = np.abs(got - expected)[:, 10:-10, 10:-10]
    assert inside.max() < 4 and inside.mean() < 1
    assert np.abs(images - expected)[:, 10:-10, 10:-10].mean() > 10, "the test must be able to tell"


def test_one_map_is_read_as_scipy_reads_it(images):
    got, maps = moved(images, -1, -0.1, (0.95, 1.07), (0.02, 0.05))
    a0, a1, a2, b0, b1, b2 = maps[0, :6]
    for image, result in zip(images, got, strict=True):
        # SciPy counts rows first; its "reflect" repeats the border pixel as TensorFlow's does.
        expected = ndimage.affine_transform(
            image[..., 0], [[b1, b0], [a1, a0]], offset=[b2, a2], order=1, mode="reflect"
        )
        assert result[..., 0] == pytest.approx(expected, abs=0.05)


def test_nothing_drawn_is_nothing_altered(images):
    for mirrored in (1, -1):
        got, _ = moved(images, mirrored, 0.0, (1, 1), (0, 0))
        assert got == pytest.approx(images[:, :, ::mirrored], abs=1e-2)
    still = Augmentation(0, 0, 0, 0, flip=False, seed=0)
    assert keras.ops.convert_to_numpy(still(images, training=True)) == pytest.approx(
        images, abs=1e-2
    )
    whole = build_augmentation(Recipe(64, ()), seed=0)
    assert keras.ops.convert_to_numpy(whole(images, training=False)) == pytest.approx(images)


def test_only_what_is_asked_for_is_drawn_within_its_range(monkeypatch):
    seen = {}

    def look(mirrored, angle, zoom, shift, height, width):
        seen.update(mirrored=mirrored, angle=angle, zoom=zoom, shift=shift)
        return affine_maps(mirrored, angle, zoom, shift, height, width)

    monkeypatch.setattr("core.training.augmentation.affine_maps", look)
    images = np.tile(np.linspace(60, 180, 8, dtype="float32")[None, :, None, None], (4000, 1, 8, 1))
    layer = Augmentation(8.0, 0.1, 0.05, 0.2, flip=True, seed=3)
    altered = keras.ops.convert_to_numpy(layer(images, training=True))
    drawn = {name: keras.ops.convert_to_numpy(value) for name, value in seen.items()}
    for name, low, high in (
        ("angle", -math.radians(8), math.radians(8)), ("zoom", 0.9, 1.1), ("shift", -0.05, 0.05),
    ):  # fmt: skip
        values = drawn[name]
        assert low <= values.min() < low + 0.01 * (high - low), name
        assert high >= values.max() > high - 0.01 * (high - low), name
        # An even distribution has this mean and this spread.
        assert values.mean() == pytest.approx((low + high) / 2, abs=0.02 * (high - low)), name
        assert values.std() == pytest.approx((high - low) / math.sqrt(12), rel=0.03), name
    assert set(np.unique(drawn["mirrored"])) == {-1, 1}
    assert abs(drawn["mirrored"].mean()) < 0.06
    assert np.abs(np.corrcoef(np.c_[drawn["angle"], drawn["zoom"], drawn["shift"]].T)
                  - np.eye(5)).max() < 0.08  # fmt: skip
    assert altered.min() >= 0 and altered.max() <= 255


def test_contrast_turns_about_the_mean_of_each_image(images):
    layer = Augmentation(0, 0, 0, 0.2, flip=False, seed=1)
    altered = keras.ops.convert_to_numpy(layer(images / 2 + 60, training=True))
    before = images / 2 + 60
    factors = altered.std(axis=(1, 2, 3)) / before.std(axis=(1, 2, 3))
    assert (factors >= 0.8).all() and (factors <= 1.2).all() and np.ptp(factors) > 0.01
    assert altered.mean(axis=(1, 2, 3)) == pytest.approx(before.mean(axis=(1, 2, 3)), abs=0.1)


def test_a_seed_draws_the_same_again_and_another_time_something_else(images):
    def draw(seed, times):
        layer = build_augmentation(Recipe(64, ()), seed)
        return [keras.ops.convert_to_numpy(layer(images, training=True)) for _ in range(times)]

    first, second = draw(0, 2)
    assert np.array_equal(first, draw(0, 1)[0])
    assert not np.allclose(first, second) and not np.allclose(first, draw(1, 1)[0])
    assert not np.allclose(first[0] - images[0], first[1] - images[1]), "each image has its own"
