"""Shortcut baselines: how far one gets on this very split without any network.

Each is a simple classifier on one harmless-looking property of the pixels that the models
get (or of the files). A model that does not beat them has shown nothing about disease.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from sklearn.ensemble import RandomForestClassifier

from core.errors import UserError
from core.imageio.decode import resize_square
from core.metrics.classification import compute_metrics
from core.metrics.intervals import bootstrap_intervals

THUMBNAIL_PX = 32
# Rows and columns of the thumbnail that count as border: 1/16 of the side at each edge.
BORDER_PX = 2
# Share of each side that is blacked out around the centre, as in the data notes.
BLACKOUT_SHARE = 0.66
GREY_BINS = 64
TREES = 300
_WORDS = {
    "age_years": "age",
    "follow_up": "follow-up",
    "detector_width_px": "detector width",
    "detector_height_px": "detector height",
    "spacing_x_mm": "pixel spacing x",
    "spacing_y_mm": "pixel spacing y",
}
FILE_COLUMNS = ("width", "height", "format", "mode")
ORIGINAL_COLUMNS = ("original_width", "original_height", "original_format", "original_mode")
# What is known of patient and exposure without looking at the image.
CLINICAL_COLUMNS = (
    *("age_years", "age", "sex", "view", "follow_up"),
    *("detector_width_px", "detector_height_px", "spacing_x_mm", "spacing_y_mm"),
)


class BaselineError(UserError):
    """Floors that cannot be computed; the message is one sentence a person can act on."""


def grey_histograms(pixels: np.ndarray) -> np.ndarray:
    """Share of each image's pixels in GREY_BINS equal grey ranges: (n, GREY_BINS)."""
    n = len(pixels)
    levels = pixels.reshape(n, -1) // (256 // GREY_BINS)
    return np.stack([np.bincount(row, minlength=GREY_BINS) for row in levels]) / levels.shape[1]


def thumbnails(pixels: np.ndarray) -> np.ndarray:
    """pixels (n, s, s) uint8 shrunk to (n, THUMBNAIL_PX, THUMBNAIL_PX) uint8."""
    return np.stack([resize_square(image, THUMBNAIL_PX) for image in pixels])


def blackout_mask(size_px: int) -> np.ndarray:
    """True in the central BLACKOUT_SHARE of each side: (size_px, size_px) bool."""
    edge = round(size_px * (1 - BLACKOUT_SHARE) / 2)
    mask = np.zeros((size_px, size_px), dtype=bool)
    mask[edge : size_px - edge, edge : size_px - edge] = True
    return mask


def border_mask(size_px: int) -> np.ndarray:
    """True in the outermost BORDER_PX rows and columns: (size_px, size_px) bool."""
    mask = np.ones((size_px, size_px), dtype=bool)
    mask[BORDER_PX : size_px - BORDER_PX, BORDER_PX : size_px - BORDER_PX] = False
    return mask


def table_features(table: pd.DataFrame) -> np.ndarray:
    """Columns as numbers (n, K): numeric ones as they are (unknown: -1), others one-hot.

    Where width and height are both there, their ratio joins them.
    """
    parts = []
    for name in table.columns:
        numbers = pd.to_numeric(table[name], errors="coerce")
        if numbers.notna().any():
            parts.append(numbers.fillna(-1).to_numpy(dtype=np.float64)[:, None])
        else:
            words = table[name].astype(object).where(table[name].notna(), "").astype(str)
            parts.append(pd.get_dummies(words).to_numpy(dtype=np.float64))
    for width, height in (("width", "height"), ("original_width", "original_height")):
        if width in table.columns and height in table.columns:
            sides = table[[width, height]].apply(pd.to_numeric, errors="coerce").fillna(-1)
            parts.append((sides[width] / sides[height]).to_numpy(dtype=np.float64)[:, None])
    return np.concatenate(parts, axis=1)


def compute_baselines(
    pixels: np.ndarray,
    manifest: pd.DataFrame,
    class_names: Sequence[str],
    seed: int,
    *,
    metadata: pd.DataFrame | None = None,
    draws: int = 2000,
) -> dict[str, dict]:
    """Each baseline trained on train and val of the run's split and scored on its test part.

    pixels (n, s, s) uint8, what the models get, in the order of manifest's n rows (label, split,
    patient_id, image_id; width, height, format where known); metadata: a further table with
    image_id and any of ORIGINAL_COLUMNS and CLINICAL_COLUMNS, any order. The answer maps a
    baseline's name to {title, kind: "pixel" | "metadata", accuracy, macro_f1, n,
    intervals{accuracy, macro_f1}}.
    `majority` looks at nothing and is listed with the pixel baselines. Raises BaselineError.
    """
    class_names = list(class_names)
    _check(pixels, manifest, class_names)
    manifest = manifest.reset_index(drop=True)
    small = thumbnails(pixels)
    flat = small.reshape(len(small), -1)
    border, centre = border_mask(THUMBNAIL_PX).ravel(), blackout_mask(THUMBNAIL_PX).ravel()
    baselines = {
        "majority": ("Always the most frequent class", "pixel", None),
        "histogram": ("Grey-level histogram only", "pixel", grey_histograms(pixels)),
        "thumbnail": (f"{THUMBNAIL_PX}×{THUMBNAIL_PX} thumbnail", "pixel", flat),
        "border": ("Image border only", "pixel", flat[:, border]),
        "blackout": (
            f"Thumbnail with the centre {BLACKOUT_SHARE:.0%} of each side blacked out",
            "pixel",
            np.where(centre, 0, flat),
        ),
    }
    for name, title, table in _file_tables(manifest, metadata):
        baselines[name] = (title, "metadata", table_features(table))
    return {
        name: {"title": title, "kind": kind}
        | score_baseline(features, manifest, class_names, seed, draws)
        for name, (title, kind, features) in baselines.items()
    }


def _file_tables(
    manifest: pd.DataFrame, metadata: pd.DataFrame | None
) -> list[tuple[str, str, pd.DataFrame]]:
    """Name, title and columns of each metadata baseline that the tables allow."""
    table = manifest
    if metadata is not None:
        extra = metadata.drop_duplicates("image_id").set_index("image_id")
        extra = extra.drop(columns=[name for name in extra.columns if name in manifest.columns])
        table = manifest.join(extra, on="image_id")
    found = []
    for name, title, columns in (
        ("file_properties", "File properties", FILE_COLUMNS),
        ("original_properties", "Original file properties", ORIGINAL_COLUMNS),
        ("clinical", "Patient and exposure", CLINICAL_COLUMNS),
    ):
        known = [column for column in columns if column in table and _known(table[column])]
        if known:
            listed = ", ".join(_WORDS.get(c, c.removeprefix("original_")) for c in known)
            found.append((name, f"{title} ({listed})", table[known]))
    numbers = table["patient_id"].astype(str).str.extract(r"(\d+)$")[0]
    # Asked where patients are described at all; unknown ones have the image's number.
    described = any(name == "clinical" for name, _, _ in found)
    if (
        described
        and numbers.notna().all()
        and not table["patient_id"].str.startswith("image:").any()
    ):
        found.append(("patient_number", "Patient number alone", numbers.to_frame("number")))
    return found


def _known(column: pd.Series) -> bool:
    return bool((column.notna() & (column.astype(str).str.strip() != "")).any())


def score_baseline(
    features: np.ndarray | None,
    manifest: pd.DataFrame,
    class_names: list[str],
    seed: int,
    draws: int,
) -> dict:
    """Figures of a random forest on features (n, K), or of the majority class for None.

    Trained on train and val of the manifest's n rows, scored on test: {accuracy, macro_f1, n,
    intervals{accuracy, macro_f1}}.
    """
    y = pd.Index(class_names).get_indexer(manifest["label"])
    test = (manifest["split"] == "test").to_numpy()
    train = manifest["split"].isin(["train", "val"]).to_numpy()
    y_prob = np.zeros((int(test.sum()), len(class_names)))
    if features is None:
        y_prob[:, np.bincount(y[train]).argmax()] = 1
    else:
        forest = RandomForestClassifier(TREES, random_state=seed, n_jobs=-1)
        forest.fit(features[train], y[train])
        y_prob[:, forest.classes_] = forest.predict_proba(features[test])
    metrics = compute_metrics(y[test], y_prob, class_names)
    intervals = bootstrap_intervals(
        y[test], y_prob, manifest["patient_id"][test], class_names, draws=draws, seed=seed
    )
    shown = ("accuracy", "macro_f1")
    return {key: metrics[key] for key in (*shown, "n")} | {
        "intervals": {key: intervals[key] for key in shown}
    }


def _check(pixels: np.ndarray, manifest: pd.DataFrame, class_names: list[str]) -> None:
    if pixels.ndim != 3 or pixels.dtype != np.uint8 or len(pixels) != len(manifest):
        raise BaselineError(
            f"Floors need uint8 pixels (n, s, s) for the manifest's {len(manifest)} rows, "
            f"not {pixels.dtype} {pixels.shape}."
        )
    unknown = sorted(set(manifest["label"]) - set(class_names))
    if unknown:
        raise BaselineError(
            f"The manifest has labels {', '.join(map(str, unknown))} beside the classes "
            f"{', '.join(class_names)}; leave those rows out."
        )
    for parts in (("train", "val"), ("test",)):
        if not manifest["split"].isin(parts).any():
            raise BaselineError(
                f"Floors need images in {' or '.join(parts)}, but the split has none; "
                "build the manifest anew."
            )
