"""How training images are altered: flipped, rotated, zoomed, shifted, their contrast changed.

The four movements are one affine map, so that an image is resampled once and not three times:
that is faster, and it blurs less.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import keras
from keras import ops

from core.models.recipes import Recipe
from core.training.degradation import Degrade


def build_augmentation(recipe: Recipe, seed: int) -> Callable:
    """Random flip, small rotation, zoom, shift, contrast and loss of quality, anew every time."""
    moves = Augmentation(
        rotation_deg=recipe.rotation_deg,
        zoom=recipe.zoom,
        shift=recipe.shift,
        contrast=recipe.contrast,
        flip=recipe.flip,
        seed=seed,
    )
    if recipe.degradation is None:
        return moves
    worse = Degrade(recipe.degradation, seed)
    return lambda images, training=None: worse(moves(images, training=training), training=training)


class Augmentation(keras.layers.Layer):
    """Images (n, h, w, c) in 0..255 -> the same, altered; unchanged unless training is true.

    Drawn evenly and apart for every image: an angle of at most rotation_deg either way, factors
    1 ± zoom of height and width (above 1: more is seen), shifts of ± shift of height and width, a
    factor 1 ± contrast of what differs from the image's mean, and with flip whether the image is
    mirrored. These are the distributions of Keras' RandomFlip, RandomRotation, RandomZoom,
    RandomTranslation and RandomContrast, one after the other. What comes in from outside is the
    reflected image.
    """

    def __init__(
        self,
        rotation_deg: float,
        zoom: float,
        shift: float,
        contrast: float,
        flip: bool,
        seed: int,
        name: str = "augmentation",
    ) -> None:
        # Whole numbers up to 255 and places of pixels are too much for half precision.
        super().__init__(name=name, dtype="float32")
        self.rotation_deg, self.zoom, self.shift = rotation_deg, zoom, shift
        self.contrast, self.flip = contrast, flip
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, images, training=None):
        if not training:
            return images
        n, height, width = ops.shape(images)[:3]
        drawn = keras.random.uniform((n, 7), -1.0, 1.0, seed=self.generator)
        mirrored = ops.where(drawn[:, 0] < 0, -1.0, 1.0) if self.flip else ops.ones((n,))
        moved = ops.image.affine_transform(
            images,
            affine_maps(
                mirrored,
                drawn[:, 1] * math.radians(self.rotation_deg),
                1 + drawn[:, 2:4] * self.zoom,
                drawn[:, 4:6] * self.shift,
                height,
                width,
            ),
            interpolation="bilinear",
            fill_mode="reflect",
            data_format="channels_last",
        )
        mean = ops.mean(moved, axis=(1, 2), keepdims=True)
        factor = 1 + drawn[:, 6] * self.contrast
        return ops.clip(mean + (moved - mean) * factor[:, None, None, None], 0.0, 255.0)

    def compute_output_shape(self, input_shape):
        return input_shape


def affine_maps(mirrored, angle, zoom, shift, height: int, width: int):
    """Where each pixel of the altered image comes from: (n, 8) for keras.ops.image.

    mirrored (n,): -1 for a flipped image, else 1; angle (n,) in radians; zoom (n, 2) factors and
    shift (n, 2) fractions, of height and of width. The flip comes first and the shift last, all
    about the image's middle. A pixel (x, y) of the result is taken from
    (a0 x + a1 y + a2, b0 x + b1 y + b2); the last two of the eight are 0.
    """
    middle_x, middle_y = (width - 1) / 2, (height - 1) / 2
    middle_x, middle_y = ops.cast(middle_x, "float32"), ops.cast(middle_y, "float32")
    cosine, sine = ops.cos(angle), ops.sin(angle)
    # Backwards from a pixel of the result: take the shift off, zoom, turn, mirror.
    a0, a1 = mirrored * cosine * zoom[:, 1], -mirrored * sine * zoom[:, 0]
    b0, b1 = sine * zoom[:, 1], cosine * zoom[:, 0]
    from_x = -middle_x - shift[:, 1] * ops.cast(width, "float32")
    from_y = -middle_y - shift[:, 0] * ops.cast(height, "float32")
    a2 = a0 * from_x + a1 * from_y + middle_x
    b2 = b0 * from_x + b1 * from_y + middle_y
    nothing = ops.zeros_like(a0)
    return ops.stack([a0, a1, a2, b0, b1, b2, nothing, nothing], axis=1)
