"""What scanners, screens and file formats do to an image, as augmentation: one Keras layer.

Noise, blur, lost resolution, JPEG's blocks, gamma, brightness and local contrast, each at a
strength drawn anew for every image (Hendrycks & Dietterich 2019, Benchmarking Neural Network
Robustness to Common Corruptions and Perturbations; Rusak et al. 2020, A simple way to make neural
networks robust against diverse image corruptions, for training on noise).
"""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
from keras import ops
from scipy.fft import dct

from core.models.recipes import Degradation

# Coarse grain is drawn on this grid, as in the audit (core.evaluation.audit.perturbation).
GRAIN_PX = 112
BLOCK_PX = 8
# Luminance quantisation at quality 50 (ITU-T T.81, Annex K, table K.1).
JPEG_TABLE = np.array([
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
], dtype="float32")  # fmt: skip
_DCT = dct(np.eye(BLOCK_PX), axis=0, norm="ortho").astype("float32")


class Degrade(keras.layers.Layer):
    """Images (n, s, s, 1) in 0..255 -> the same, of worse quality; unchanged unless training.

    Each change befalls an image with the probability `settings.share`, at a strength drawn evenly
    up to the one that `settings` names, or either way. They follow each other as an image goes from
    the scanner to a file: gamma, brightness, local contrast, blur, resolution, noise, JPEG.
    """

    def __init__(self, settings: Degradation, seed: int, name: str = "degradation") -> None:
        super().__init__(name=name, dtype="float32")
        self.settings = settings
        self.generator = keras.random.SeedGenerator(seed)

    def call(self, images, training=None):
        if not training:
            return images
        n = ops.shape(images)[0]
        for name, change in CHANGES.items():
            most = getattr(self.settings, name)
            if not most:
                continue
            chance = keras.random.uniform((n, 1, 1, 1), seed=self.generator)
            drawn = keras.random.uniform((n, 1, 1, 1), seed=self.generator)
            strength = most * (2 * drawn - 1 if name in EITHER_WAY else drawn)
            changed = ops.clip(change(images, strength, most, self.generator), 0.0, 255.0)
            images = ops.where(chance < self.settings.share, changed, images)
        return images

    def compute_output_shape(self, input_shape):
        return input_shape


# Each takes images (n, s, s, 1) in 0..255, strengths (n, 1, 1, 1) of which 0 changes nothing, the
# strongest there may be, and where chance comes from.


def change_gamma(images, strength, _most, _generator):
    """Greys to the power of exp(strength), as shares of 255."""
    return 255.0 * ops.power(images / 255.0 + 1e-6, ops.exp(strength))


def brighten(images, strength, _most, _generator):
    """Grey levels added."""
    return images + strength


def change_local_contrast(images, strength, _most, _generator):
    """What differs from the surroundings (an eighth of the side) made more of, or less."""
    size = images.shape[1]
    around = ops.image.resize(images, (8, 8), antialias=True)
    around = ops.image.resize(around, (size, size), interpolation="bicubic")
    return images + strength * (images - around)


def blur(images, strength, most, _generator):
    """Gaussian whose standard deviation is that share of the side, of its own for every image."""
    size = images.shape[1]
    radius = max(1, int(np.ceil(3 * most * size)))
    sigma_px = strength * size + 1e-3
    weights = [ops.exp(-0.5 * ops.square(float(k) / sigma_px)) for k in range(-radius, radius + 1)]
    total = sum(weights)
    for axis in (1, 2):
        edges = [(0, 0)] * 4
        edges[axis] = (radius, radius)
        wide = ops.pad(images, edges, mode="symmetric")
        part, summed = [slice(None)] * 4, 0.0
        for start, weight in enumerate(weights):
            part[axis] = slice(start, start + size)
            summed = summed + wide[tuple(part)] * weight
        images = summed / total
    return images


def lose_resolution(images, strength, _most, _generator):
    """That share of the way to half the resolution (anti-aliased) and back."""
    size = images.shape[1]
    halved = ops.image.resize(images, (size // 2, size // 2), antialias=True)
    return images + strength * (ops.image.resize(halved, (size, size)) - images)


def add_noise(images, strength, _most, generator):
    """Normal grain of that standard deviation: of one pixel, or of 1/112 of the side."""
    n, size = ops.shape(images)[0], images.shape[1]
    fine = keras.random.normal((n, size, size, 1), seed=generator)
    coarse = keras.random.normal((n, GRAIN_PX, GRAIN_PX, 1), seed=generator)
    coarse = ops.image.resize(coarse, (size, size), interpolation="bicubic")
    coarse = coarse / ops.std(coarse, axis=(1, 2, 3), keepdims=True)
    which = keras.random.uniform((n, 1, 1, 1), seed=generator)
    return images + strength * ops.where(which < 0.5, coarse, fine)


def compress(images, strength, _most, _generator):
    """What JPEG does to a grey image: blocks of 8 px, their cosine transform rounded.

    strength: times the table of quality 50. A side that is no multiple of 8 is left as it is.
    """
    size = images.shape[1]
    blocks = size // BLOCK_PX
    if blocks * BLOCK_PX != size:
        return images
    x = ops.reshape(images - 128.0, (-1, blocks, BLOCK_PX, blocks, BLOCK_PX))
    x = ops.transpose(x, (0, 1, 3, 2, 4))
    table = ops.reshape(ops.maximum(strength, 1e-3), (-1, 1, 1, 1, 1)) * JPEG_TABLE
    x = ops.matmul(ops.matmul(_DCT, x), _DCT.T)
    x = ops.round(x / table) * table
    x = ops.matmul(ops.matmul(_DCT.T, x), _DCT)
    x = ops.transpose(x, (0, 1, 3, 2, 4))
    return ops.reshape(x, (-1, size, size, 1)) + 128.0


CHANGES: dict[str, Callable] = {
    "gamma": change_gamma,
    "brightness": brighten,
    "local_contrast": change_local_contrast,
    "blur": blur,
    "resolution": lose_resolution,
    "noise": add_noise,
    "jpeg": compress,
}
EITHER_WAY = ("gamma", "brightness", "local_contrast")
