"""External validation: the models of a run on an external data set.

Every image of the set is used, also where the set has a train and a test part of its own: that
split is for those who train on it, and nothing here is trained. Left out, and listed: classes that
the run does not have, files that cannot be read, second copies within the set, and everything that
overlaps with what the run learned from.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.console import progress
from core.datasets import folder
from core.datasets.image_matching import SIDE_PX
from core.datasets.registry import KNOWN, Dataset
from core.datasets.splits import fingerprint
from core.evaluation.external import dataset as external_set
from core.evaluation.external.dataset import UNREADABLE, ExternalError
from core.evaluation.external.describe import list_caveats
from core.evaluation.external.overlap import (
    DUPLICATE,
    LEARNED,
    METHOD_FILES,
    METHOD_IMAGES,
    SAME_PATIENT,
    TEST,
    ImageSet,
    Match,
    compares_features,
    feature_steps,
    find_overlap,
)
from core.evaluation.external.scoring import (
    ScoredImages,
    accuracy_with_overlap,
    compare_with_test_split,
    count_findings,
    score_external,
)
from core.evaluation.scoring import predictions_table
from core.imageio.pixel_cache import PixelCache, build_pixel_cache
from core.inference.ensemble import ModelGroup
from core.runs import additions, artifacts, writing
from core.runs.missing_weights import left_out, left_out_sentence
from core.runs.run import Run

SPLIT = "external"
_BATCH = 64


@dataclass(frozen=True)
class Evaluation:
    """What core.runs.additions.write_external takes: external.json and its tables."""

    document: dict[str, Any]
    manifest: pd.DataFrame
    predictions: dict[str, pd.DataFrame]


@dataclass(frozen=True)
class ExternalSet:
    """What the models are asked about, and where.

    root: the folder of the data set; own_root: where the run's own images would lie; cache_dir: for
    decoded pixels; name: the result's, where it may not replace one of other images.
    """

    dataset: Dataset
    root: Path
    own_root: Path
    cache_dir: Path
    name: str | None = None


@dataclass(frozen=True)
class _ReadImages:
    """A set that was read and held against the run.

    cache: the images that can be read and are of the run's classes, kept (n,) bool those that are
    scored, once (n,) bool those and the ones that overlap. The rest is for the document.
    """

    cache: PixelCache
    kept: np.ndarray
    once: np.ndarray
    labelled: bool
    learned: list[Match]
    facts: dict[str, Any]


def evaluate_external(run: Run, model_group: ModelGroup, asked: ExternalSet) -> Evaluation:
    """Score the models on an external set; nothing is written.

    model_group: the run's models as they are served, those whose weights were kept. Raises
    ExternalError where no image is left to score, and what reading the set raises.
    """
    manifest, dataset = artifacts.load_manifest(run), asked.dataset
    images = _sort_out(run, manifest, model_group, asked)
    usable = images.cache.table
    everything = _predict(run, model_group, images.cache)
    rows = usable[images.kept].reset_index(drop=True)
    predictions = {
        model: table[images.kept].reset_index(drop=True) for model, table in everything.items()
    }
    names, seed, patients = run.class_names, int(run.info["seed"]), rows["patient_id"].tolist()
    present = [label for label in names if label in set(rows["label"])]
    own_patients = manifest.set_index("image_id")["patient_id"]
    models, drop = {}, {}
    for model, table in predictions.items():
        models[model] = score_external(table, patients, names, present, seed=seed)
        own = artifacts.load_predictions(run, model)
        internal = ScoredImages(own, own_patients.loc[own["image_id"]].tolist())
        external = ScoredImages(table, patients)
        drop[model] = compare_with_test_split(internal, external, names, present, seed=seed)
    with_overlap = {}
    if len(present) > 1 and images.learned:
        who = usable["patient_id"][images.once].tolist()
        with_overlap = {
            model: accuracy_with_overlap(table[images.once], who, names, seed=seed)
            for model, table in everything.items()
        }
    findings = {}
    if images.labelled and "finding" in rows:
        findings = count_findings(rows["finding"], rows["label"], predictions, names)
    known = dataset.name in KNOWN or dataset.modality == "phantom"
    document = {
        "title": dataset.title,
        "created": writing.utc_now(),
        "modality": dataset.modality if known else run.modality,
        "labelled": images.labelled,
        "n": len(rows),
        "n_patients": len(set(patients)),
        "fingerprint": fingerprint(rows),
        "classes_present": present,
        "classes_missing": [c for c in names if c not in present] if images.labelled else [],
        **images.facts,
        "findings": findings,
        "models": models,
        "drop": drop,
        "with_overlap": with_overlap,
        "precision": run.info.get("precision", "f32"),
        "tta": run.info.get("tta", "none"),
    }
    document["caveats"] = list_caveats(run, dataset, document, rows)
    if left_out(run):
        document["caveats"].append(left_out_sentence(run))
    return Evaluation(document, rows[additions.EXTERNAL_COLUMNS], predictions)


def _sort_out(
    run: Run, manifest: pd.DataFrame, model_group: ModelGroup, asked: ExternalSet
) -> _ReadImages:
    """Read the set and tell what of it is scored."""
    root, cache_dir = asked.root, asked.cache_dir
    table = external_set.read_set(run, asked.dataset, root)
    attrs, n_found = table.attrs, len(table)
    labelled = bool((table["label"] != "").any())
    excluded: list[dict[str, Any]] = []
    extra: dict[str, int] = {}
    if labelled:
        table, excluded, extra = external_set.leave_out_classes(run, table, root)
    cache = _read_pixels(table, root, cache_dir, [*model_group.sizes_px, SIDE_PX], "Reading images")
    ids = dict(zip(table["path"], table["image_id"], strict=True))
    unreadable = [
        external_set.entry(ids.get(row.path, row.path), row.reason, UNREADABLE)
        for row in cache.skipped.itertuples()
    ]
    usable = cache.table
    if not len(usable):
        raise ExternalError(
            f"None of the {len(table)} images in {root} can be used (first: "
            f"{unreadable[0]['image_id']}: {unreadable[0]['reason']})"
        )
    if asked.name is not None:
        external_set.check_name(run, asked.name, usable)
    second = external_set.duplicate_files(usable)
    matches, compared = _check_overlap(manifest, cache, asked.own_root, cache_dir)
    twice = {entry["image_id"] for entry in second}
    learned = [m for m in matches if m.part == LEARNED and m.image_id not in twice]
    once = ~usable["image_id"].isin(twice).to_numpy()
    out = {match.image_id for match in learned}
    kept = once & ~usable["image_id"].isin(out).to_numpy()
    excluded += unreadable + second + [external_set.overlap_entry(match) for match in learned]
    if not kept.any():
        first = external_set.overlap_entry(learned[0]) if learned else second[0]
        raise ExternalError(
            f"None of the {n_found} images in {root} is left to score: {len(learned)} overlap with "
            f"what run {run.name} learned from (first: {first['image_id']}: {first['reason']})"
        )
    kinds = Counter(match.kind for match in learned)
    in_test = [match for match in matches if match.part == TEST and match.image_id not in out]
    facts = {
        "grouping": attrs.get("grouping", ""),
        "classes_extra": extra,
        "excluded": excluded,
        "skipped": [e for e in attrs.get("skipped", []) if e["reason"] != folder.MASKS_REASON],
        "overlap": {
            "images": int(once.sum()),
            "learned": {"duplicate": kinds[DUPLICATE], "same_patient": kinds[SAME_PATIENT]},
            "test": [
                {key: getattr(match, key) for key in ("image_id", "kind", "other", "correlation")}
                for match in in_test
                if match.image_id not in twice
            ],
            **compared,
        },
    }
    return _ReadImages(cache, kept, once, labelled, learned, facts)


def _read_pixels(
    table: pd.DataFrame, root: Path, cache_dir: Path, sizes_px: list[int], what: str
) -> PixelCache:
    with progress(len(table), what, "image") as bar:
        return build_pixel_cache(
            table, root, cache_dir, sizes_px, lambda done, _: bar.update(done - bar.n)
        )


def _check_overlap(
    manifest: pd.DataFrame, cache: PixelCache, own_root: Path, cache_dir: Path
) -> tuple[list[Match], dict[str, Any]]:
    """Every overlap with the run, and what was compared how."""
    files = {image_id: folder.find_image(own_root, image_id) for image_id in manifest["image_id"]}
    here = pd.DataFrame(
        [
            (image_id, file.relative_to(own_root).as_posix())
            for image_id, file in files.items()
            if file is not None
        ],
        columns=["image_id", "path"],
    )
    ours = None
    if len(here):
        own = _read_pixels(here, own_root, cache_dir, [SIDE_PX], "Reading the run's own images")
        ours = _image_set(own)
    n_ours, n_theirs = len(ours.image_ids) if ours else 0, len(cache.table)
    by_features = compares_features(n_theirs, n_ours)
    with progress(feature_steps(n_theirs, n_ours), "Looking for copies", "step") as bar:
        matches = find_overlap(manifest, cache.table, _image_set(cache), ours, bar.update)
    words = METHOD_FILES + (f" {METHOD_IMAGES}" if n_ours else "")
    if n_ours and not by_features:
        words += " These are too many images for local features: whole frames only."
    known = {"own_images": len(manifest), "own_compared": n_ours, "by_features": by_features}
    return matches, known | {"method": words}


def _image_set(cache: PixelCache) -> ImageSet:
    table = cache.table
    return ImageSet(
        table["image_id"].tolist(),
        cache.pixels(SIDE_PX),
        table["width"].tolist(),
        table["height"].tolist(),
    )


def _predict(run: Run, model_group: ModelGroup, cache: PixelCache) -> dict[str, pd.DataFrame]:
    """Predictions of every model, in the run's order, for every image of the cache."""
    rows = cache.table.assign(split=SPLIT, fold="")
    parts = []
    with progress(len(rows), "Asking the models", "image") as bar:
        for start in range(0, len(rows), _BATCH):
            batch = slice(start, start + _BATCH)
            pixels = {size: np.array(cache.pixels(size)[batch]) for size in model_group.sizes_px}
            parts.append(model_group.predict(pixels))
            bar.update(len(rows.iloc[batch]))
    return {
        model: predictions_table(
            rows, np.concatenate([part[model] for part in parts]), run.class_names
        )
        for model in run.models
        if model in model_group.names
    }
