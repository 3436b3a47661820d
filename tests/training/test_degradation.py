"""How training images are made worse: against SciPy and Pillow, by strength, and by chance."""

import io
from dataclasses import asdict, fields

import keras
import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from core.datasets.phantom.generate import class_names, make_phantom
from core.models.recipes import Degradation, Recipe, Stage, recipe_from_json
from core.training import degradation
from core.training.augmentation import build_augmentation
from core.training.data_loader import TrainingImages
from core.training.degradation import CHANGES, Degrade
from core.training.fit import FitTask, fit_model
from tests.support.models import build_small

STRONG = {
    "gamma": 0.4,
    "brightness": 40.0,
    "local_contrast": 0.5,
    "blur": 0.01,
    "resolution": 1.0,
    "noise": 20.0,
    "jpeg": 3.0,
}


@pytest.fixture(scope="module")
def images():
    made = [make_phantom(class_names[i % 3], i, 96, i).pixels for i in range(6)]
    return np.stack(made).astype("float32")[..., None]


def degrade(images, seed=0, **settings):
    return np.asarray(Degrade(Degradation(**settings), seed)(images, training=True))


def run(change, images, strength, most=1.0):
    strengths = np.full((len(images), 1, 1, 1), strength, "float32")
    return np.asarray(change(images, strengths, most, keras.random.SeedGenerator(0)))


def test_every_change_has_a_setting_and_the_other_way_round():
    assert set(CHANGES) == {field.name for field in fields(Degradation)} - {"share"}
    assert set(degradation.EITHER_WAY) < set(CHANGES)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_drawn_anew_for_every_image_and_stays_in_range(name, images):
    changed = degrade(images, **{name: STRONG[name]}, share=1.0)
    assert changed.shape == images.shape and changed.min() >= 0 and changed.max() <= 255
    moved = np.abs(changed - images).mean(axis=(1, 2, 3))
    assert (moved > 0).all() and len(set(moved.round(6))) == len(images)
    assert np.array_equal(changed, degrade(images, **{name: STRONG[name]}, share=1.0))
    assert not np.array_equal(changed, degrade(images, seed=1, **{name: STRONG[name]}, share=1.0))


@pytest.mark.parametrize("name", CHANGES)
def test_strength_0_changes_nothing_that_can_be_seen(name, images):
    assert np.abs(run(CHANGES[name], images, 0.0, STRONG[name]) - images).max() < 0.51


def test_outside_training_and_without_settings_nothing_happens(images):
    layer = Degrade(Degradation(**STRONG), 0)
    assert np.array_equal(np.asarray(layer(images)), images)
    assert np.array_equal(degrade(images), images)
    assert np.array_equal(degrade(images, **STRONG, share=0.0), images)


def test_a_change_befalls_the_share_of_images_that_is_named(images):
    many = np.repeat(images, 60, axis=0)
    moved = np.abs(degrade(many, brightness=40.0, share=0.25) - many).max(axis=(1, 2, 3)) > 0
    # 360 images: standard deviation of the share 2.3 points.
    assert 0.16 < moved.mean() < 0.34


def test_blur_is_scipys_gaussian_of_that_share_of_the_side(images):
    blurred = run(degradation.blur, images, 0.02, most=0.02)[..., 0]
    for ours, image in zip(blurred, images[..., 0], strict=True):
        theirs = gaussian_filter(image, 0.02 * 96, mode="reflect", truncate=3.0)
        assert np.abs(ours - theirs).max() < 0.5


def test_noise_has_the_standard_deviation_that_is_named():
    grey = np.full((40, 96, 96, 1), 128, "float32")
    noise = run(degradation.add_noise, grey, 10.0) - 128
    assert noise.std(axis=(1, 2, 3)) == pytest.approx(np.full(40, 10.0), rel=0.1)
    # Grain of one pixel is told from coarse grain by how alike neighbours are.
    alike = [np.corrcoef(n[:, 1:, 0].ravel(), n[:, :-1, 0].ravel())[0, 1] for n in noise]
    assert min(alike) < 0.05
    wide = np.full((40, 448, 448, 1), 128, "float32")[:8]
    alike = [
        np.corrcoef(n[:, 1:, 0].ravel(), n[:, :-1, 0].ravel())[0, 1]
        for n in run(degradation.add_noise, wide, 10.0) - 128
    ]
    assert min(alike) < 0.05 and max(alike) > 0.7


def test_jpegs_blocks_are_those_of_pillow(images):
    """Quality 50 is the table itself; a file's own rounding makes up the rest."""
    for ours, image in zip(run(degradation.compress, images, 1.0), images, strict=True):
        file = io.BytesIO()
        Image.fromarray(image[..., 0].astype("uint8")).save(file, "JPEG", quality=50)
        theirs = np.asarray(Image.open(file), dtype=float)
        assert np.abs(ours[..., 0] - theirs).mean() < 0.6
        assert np.abs(ours - image).mean() > 0.5, "else the test could not tell"


def test_a_side_that_is_no_multiple_of_the_block_is_left_as_it_is(images):
    odd = images[:, :90, :90]
    assert np.array_equal(run(degradation.compress, odd, 3.0), odd)


def test_gamma_and_local_contrast_by_hand(images):
    bright = run(degradation.change_gamma, images, float(np.log(2.0)))
    assert bright == pytest.approx(255 * (images / 255) ** 2, abs=0.02)
    flat = np.full((1, 96, 96, 1), 90, "float32")
    assert run(degradation.change_local_contrast, flat, 0.5) == pytest.approx(flat, abs=1e-3)
    flat[:, 48, 48] = 100
    assert run(degradation.change_local_contrast, flat, 0.5)[0, 48, 48, 0] == pytest.approx(
        105, abs=0.3
    )


def test_a_recipe_with_degradation_makes_views_that_differ_and_travels(images):
    stages = (Stage("head", 1, 1e-3),)
    recipe = Recipe(96, stages, degradation=Degradation(noise=15.0, share=1.0))
    still = Recipe(96, stages, rotation_deg=0, zoom=0, shift=0, contrast=0, flip=False)
    worse = Recipe(**{**vars(still), "degradation": recipe.degradation})
    changed = np.asarray(build_augmentation(worse, 3)(images, training=True))
    assert np.abs(changed - images).mean() > 1
    unchanged = np.asarray(build_augmentation(still, 3)(images, training=True))
    assert unchanged == pytest.approx(images, abs=0.01)
    assert recipe_from_json(asdict(recipe)) == recipe
    assert recipe_from_json({k: v for k, v in asdict(still).items() if k != "degradation"}) == still


def test_a_stage_that_trains_every_layer_makes_its_images_worse(images, tmp_path):
    pixels, y = images[..., 0].astype("uint8"), np.arange(6) % 3
    recipe = Recipe(96, (Stage("all layers", 1, 1e-3),), degradation=Degradation(**STRONG))
    data = TrainingImages(pixels, y)
    history = fit_model(build_small(96, 3, 0.0), recipe, FitTask(data, data, 3, 0, "s"), tmp_path)
    assert np.isfinite(history["loss"]).all()
