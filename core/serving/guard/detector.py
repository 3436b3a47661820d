"""Does an image look like what a run learned from? And which training images is it most like?

An image passes when three numbers are at most 1, each divided by its bound:

- features: how far the features of one of the run's models lie from those of its training images
  (Mahalanobis distance in the space of the first principal components, as Lee et al. 2018, "A
  simple unified framework for detecting out-of-distribution samples and adversarial attacks",
  section 2, with one class);
- layout: the same distance of its light and dark areas, 8 by 8 cells without mean and spread;
- turned: its layout's distance over the smallest that the image has as a negative or turned by
  90, 180 or 270 degrees. Networks hardly notice either; what is upright and positive fits best so.

Whatever is nearly blank, noise, in colour, or something else by its DICOM header is refused too.
Fitted by core.serving.guard.fit; the files are described in docs/artifacts.md.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from core.imageio.decode import Decoded, resize_square
from core.runs import additions
from core.runs.artifacts import ArtifactError
from core.runs.missing_weights import left_out
from core.runs.run import Run
from core.serving.guard.messages import (
    GuardMeasurement,
    explain_facts,
    looks_like,
    refusal,
    synthetic_sentence,
)

CELLS = 8  # of a layout, a side
FEWEST_GREYS = 8.0  # spread of a layout below which it is not stretched further: a blank stays one
# What no X-ray, CT slice or phantom comes near: see `measure_image`.
MIN_SPREAD, MIN_SMOOTHNESS, MAX_COLOUR = 16.0, 0.5, 0.15
FLAT_SHARE = 0.5  # of all pixels at one grey level: a page, a chart, a screenshot
# What a refused image is tried as, in words that follow "it": quarter turns, then the negative.
VARIANTS = (
    "turned by 90 degrees counterclockwise",
    "turned by 180 degrees",
    "turned by 90 degrees clockwise",
    "as a negative",
)


@dataclass(frozen=True)
class Judgement:
    """Whether an image looks right, and why not.

    distance: the largest of the three numbers; threshold: 1.0. reasons: in plain words, () where
    it looks right. synthetic: the file says of itself that it is drawn, and is let through as such.
    """

    looks_right: bool
    distance: float
    threshold: float
    sentence: str
    reasons: tuple[str, ...] = ()
    synthetic: bool = False


@dataclass(frozen=True)
class Neighbour:
    """A training image that is like the one shown.

    distance: between the two projected features, each of length 1: 0 the same, 1.41 nothing in
    common, 2 opposite.
    """

    image_id: str
    label: str
    patient_id: str
    distance: float


@dataclass(frozen=True)
class Space:
    """Where training vectors lie: mean (D,), principal directions (D, d), variances (d,)."""

    mean: np.ndarray
    directions: np.ndarray
    variances: np.ndarray

    def project(self, vectors: np.ndarray) -> np.ndarray:
        """(n, D) -> (n, d)."""
        return (np.asarray(vectors, dtype=np.float64) - self.mean) @ self.directions

    def mahalanobis(self, vectors: np.ndarray) -> np.ndarray:
        """Root of the mean over directions of squared deviation over variance: (n, D) -> (n,)."""
        return np.sqrt((self.project(vectors) ** 2 / self.variances).mean(axis=1))


@dataclass(frozen=True)
class Guard:
    """A fitted guard. Safe to share by threads.

    model: whose features it reads, from pixels of input_size_px; subject: what it lets
    pass, in words; level: the share of real images that its bounds keep. bounds: "features" and
    "layout". projected (n, d): the training images in `features`, told by image_ids, labels,
    patient_ids (n,).
    """

    model: str
    subject: str
    modality: str
    input_size_px: int
    level: float
    bounds: Mapping[str, float]
    features: Space
    layout: Space
    projected: np.ndarray
    image_ids: np.ndarray
    labels: np.ndarray
    patient_ids: np.ndarray
    threshold: float = field(default=1.0, init=False)

    def distance(self, features: np.ndarray) -> np.ndarray:
        """Of features (n, D) from the training images, divided by the bound: (n,)."""
        return self.features.mahalanobis(features) / self.bounds["features"]

    def layout_distances(self, layouts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of layouts (n, CELLS, CELLS), both (n, ...): as they are, divided by the bound, (n,); of
        the VARIANTS, likewise, (n, 4)."""
        bound = self.bounds["layout"]
        own, others = measure_layouts(self.layout, layouts)
        return own / bound, others / bound

    def measure(self, features: np.ndarray, decoded: Decoded) -> GuardMeasurement:
        """All that is measured of one image; features (D,)."""
        own, others = self.layout_distances(read_layout(decoded.pixels)[None])
        return measure_image(
            decoded,
            float(self.distance(features[None])[0]),
            float(own[0]),
            float(rotated_ratio(own, others)[0]),
            explain_facts(decoded, self.modality),
        )

    def check(
        self,
        features: np.ndarray,
        decoded: Decoded,
        predict_features: Callable[[np.ndarray], np.ndarray],
    ) -> Judgement:
        """Whether an image looks like those that the run learned from.

        features (D,) of the image by `model`; predict_features: pixels uint8 (n, s, s) -> features
        (n, D) by the same model, called only to find out why an image was refused.
        """
        measured = self.measure(features, decoded)
        distance = round(measured.distance, 4)
        if decoded.synthetic:
            sentence = synthetic_sentence(self.subject, measured)
            return Judgement(True, distance, self.threshold, sentence, (), True)
        if measured.passes:
            sentence = looks_like(self.subject, measured, self.level)
            return Judgement(True, distance, self.threshold, sentence)
        variant = "" if measured.plain_reasons else self._fitting_variant(decoded, predict_features)
        reasons = measured.reasons(variant, VARIANTS[self._best_variant(decoded)])
        return Judgement(False, distance, self.threshold, refusal(self.subject, reasons), reasons)

    def nearest(self, features: np.ndarray, k: int = 5) -> list[Neighbour]:
        """The k training images most like features (D,), the most alike first."""
        distances = chords(self.features.project(features[None]), self.projected)[0]
        order = np.argsort(distances, kind="stable")[:k]
        return [
            Neighbour(
                str(self.image_ids[i]),
                str(self.labels[i]),
                str(self.patient_ids[i]),
                float(distances[i]),
            )
            for i in order
        ]

    def _best_variant(self, decoded: Decoded) -> int:
        _, others = self.layout_distances(read_layout(decoded.pixels)[None])
        return int(others[0].argmin())

    def _fitting_variant(
        self, decoded: Decoded, predict_features: Callable[[np.ndarray], np.ndarray]
    ) -> str:
        """What would have to be done for the image to pass, "" where nothing of it would do."""
        square = resize_square(decoded.pixels, self.input_size_px)
        variants = np.ascontiguousarray(vary(square[None])[0])
        distances = self.distance(predict_features(variants))
        own, others = self.layout_distances(np.stack([read_layout(one) for one in variants]))
        worst = np.maximum.reduce([distances, own, rotated_ratio(own, others)])
        best = int(worst.argmin())
        return VARIANTS[best] if worst[best] <= self.threshold else ""


# ------------------------------------------------------------------------------ measuring


def measure_layouts(space: Space, layouts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances of layouts (n, CELLS, CELLS) as they are (n,) and of their VARIANTS (n, 4)."""
    n = len(layouts)
    turned = np.concatenate([layouts[:, None], vary(layouts)], axis=1)
    far = space.mahalanobis(even_out(turned.reshape(-1, CELLS, CELLS))).reshape(n, -1)
    return far[:, 0], far[:, 1:]


def rotated_ratio(own: np.ndarray, others: np.ndarray) -> np.ndarray:
    """own (n,) over the smallest of others (n, 4)."""
    return own / np.maximum(others.min(axis=1), 1e-9)


def vary(images: np.ndarray) -> np.ndarray:
    """The VARIANTS of square grey images (n, s, s) in 0..255: (n, 4, s, s)."""
    turned = [np.rot90(images, quarter, axes=(1, 2)) for quarter in (1, 2, 3)]
    return np.stack([*turned, 255 - images], axis=1)


def read_layout(pixels: np.ndarray) -> np.ndarray:
    """Mean greys of grey uint8 (height, width) in CELLS by CELLS cells, float64."""
    # Every few pixels of a large image do: the cells are coarse, and people wait.
    step = max(1, min(pixels.shape) // 256)
    small = resize_square(pixels[::step, ::step], 4 * CELLS).astype(np.float64)
    return small.reshape(CELLS, 4, CELLS, 4).mean(axis=(1, 3))


def even_out(layouts: np.ndarray) -> np.ndarray:
    """Layouts (n, CELLS, CELLS) as vectors (n, CELLS ** 2) of mean 0 and spread 1."""
    flat = layouts.reshape(len(layouts), -1)
    flat = flat - flat.mean(axis=1, keepdims=True)
    return flat / np.maximum(flat.std(axis=1, keepdims=True), FEWEST_GREYS)


def chords(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Distances between the directions of the rows of a (n, d) and b (m, d): (n, m) in 0..2."""
    a, b = (
        np.asarray(x, np.float64) / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        for x in (a, b)
    )
    return np.sqrt(np.clip(2 - 2 * a @ b.T, 0, None))


def measure_image(
    decoded: Decoded, features: float, layout: float, turned: float, facts: tuple[str, ...]
) -> GuardMeasurement:
    """The measured distances with what the pixels alone tell.

    Blank: 98% of the pixels within MIN_SPREAD grey levels. Noise: pixels side by side correlate
    below MIN_SMOOTHNESS. Colour: colourfulness above MAX_COLOUR.
    """
    pixels = decoded.pixels
    step = max(1, min(pixels.shape) // 256)
    counts = np.bincount(pixels[::step, ::step].ravel(), minlength=256)
    low, high = np.searchsorted(np.cumsum(counts) / counts.sum(), [0.01, 0.99])
    return GuardMeasurement(
        features=features,
        layout=layout,
        turned=turned,
        facts=facts,
        blank=bool(high - low < MIN_SPREAD),
        noise=smoothness(pixels) < MIN_SMOOTHNESS,
        colour=decoded.colourfulness > MAX_COLOUR,
        flat=float(counts.max() / counts.sum()) > FLAT_SHARE,
    )


def smoothness(pixels: np.ndarray) -> float:
    """Correlation of pixels side by side, the smaller of across and down, in the middle 256 px of
    grey (height, width); 1.0 where it is one grey level."""
    top, left = (max(0, (side - 256) // 2) for side in pixels.shape)
    middle = pixels[top : top + 256, left : left + 256].astype(np.float32)
    middle -= middle.mean()
    spread = float((middle**2).mean())
    if spread < 1e-6:
        return 1.0
    across = float((middle[:, 1:] * middle[:, :-1]).mean()) / spread
    down = float((middle[1:] * middle[:-1]).mean()) / spread
    return min(across, down)


# ------------------------------------------------------------------------------ reading


def load_guard(run: Run) -> Guard | None:
    """The run's guard, None where it has none.

    Raises:
        ArtifactError: its files are missing, changed, damaged, or of another model than the run's.
    """
    found = additions.load_guard_files(run)
    if found is None:
        return None
    document, arrays = found
    # Whether the model's files are the same is no question where they were not kept.
    files = document["model_files"] if document["model"] not in left_out(run) else {}
    for model_file, digest in files.items():
        if run.info["files"].get(model_file) != digest:
            raise ArtifactError(
                f"The guard of run {run.name} was fitted on another {model_file} than the run has; "
                f"fit it anew with `{additions.guard_command(run)}`."
            )
    try:
        return build_guard(document, arrays)
    except (KeyError, ValueError) as error:
        raise additions.damaged_guard(
            run, additions.GUARD_ARRAYS, f"its arrays do not fit ({error})"
        ) from error


def build_guard(document: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> Guard:
    """The guard that guard.json and the arrays of guard.npz describe.

    Raises KeyError or ValueError where they do not fit together.
    """
    spaces = {}
    for name in ("features", "layout"):
        parts = [arrays[f"{name}_{part}"] for part in ("mean", "directions", "variances")]
        size, n = parts[1].shape
        if parts[0].shape != (size,) or parts[2].shape != (n,):
            raise ValueError(f"{name} are of different sizes")
        if not all(np.isfinite(part).all() for part in parts) or not (parts[2] > 0).all():
            raise ValueError(f"{name} hold values that cannot be")
        spaces[name] = Space(*(np.asarray(part, dtype=np.float64) for part in parts))
    train = [arrays[f"train_{name}"] for name in ("projected", "image_id", "label", "patient_id")]
    n = len(train[0])
    if train[0].shape != (n, len(spaces["features"].variances)) or n == 0:
        raise ValueError("the training images are of another size")
    if any(part.shape != (n,) for part in train[1:]):
        raise ValueError("the training images are not all named")
    if spaces["layout"].mean.shape != (CELLS**2,):
        raise ValueError("of another kind than this program reads")
    bounds = {name: float(document["bounds"][name]) for name in ("features", "layout")}
    if min(bounds.values()) <= 0:
        raise ValueError("a bound is not above 0")
    return Guard(
        model=document["model"],
        subject=document["subject"],
        modality=document["modality"],
        input_size_px=int(document["input_size_px"]),
        level=float(document["level"]),
        bounds=bounds,
        features=spaces["features"],
        layout=spaces["layout"],
        projected=np.asarray(train[0], dtype=np.float64),
        image_ids=train[1],
        labels=train[2],
        patient_ids=train[3],
    )
