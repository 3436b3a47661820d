"""Audit of a finished run: leakage, blackout, source probe, perturbation, subgroups.

The parts compute in modules of their own; here they are given what they need, and what cannot be
done is named. Models are asked without mirrored copies (tta "none"), the whole images too, so that
altered and whole images are answered alike and the audit takes half the time.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from core.console import progress
from core.datasets.folder import load_table
from core.datasets.leakage import find_leaks
from core.datasets.registry import DatasetError, describe_folder
from core.evaluation.audit.blackout import FILLS, NO_BOX, PARTS, BaselineImages, measure_blackout
from core.evaluation.audit.images import RunImages, find_images, find_masks, read_images, read_masks
from core.evaluation.audit.perturbation import count_questions, measure_perturbations
from core.evaluation.audit.source_probe import Known, predict_probe
from core.evaluation.audit.source_probe_images import Probe, load_probe
from core.evaluation.audit.subgroups import compute_subgroups
from core.evaluation.sample import Sample
from core.inference.ensemble import AuditError, ModelGroup, open_models
from core.metrics.classification import COVID
from core.runs import artifacts, writing
from core.runs.missing_weights import left_out, left_out_sentence
from core.runs.run import Run

logger = logging.getLogger(__name__)

NO_IMAGES = "The images of the run are not here, so {what} could not be done; give --data."


def audit_run(
    run: Run,
    root: Path,
    *,
    probe: Path | None = None,
    masks: Path | None = None,
    precision: str | None = None,
) -> dict:
    """The document of audit/audit.json (docs/artifacts.md).

    root: folder that holds the run's images; where it has none of them, only what the run's files
    and the probe allow is done and `missing` says what was not. probe: a folder for
    core.evaluation.audit.source_probe; masks: a folder with a mask for each image under the image's
    name. Everything a person should know on the way is logged, one line each.

    Raises:
        AuditError, ArtifactError, DatasetError, InferenceError: wrong use, one sentence each.
    """
    started = time.perf_counter()
    precision = precision or run.info.get("precision", "f32")
    manifest = artifacts.load_manifest(run)
    if not (manifest["split"] == "test").any():
        raise AuditError(f"Run {run.name} has no test images, so there is nothing to audit.")
    asked = load_probe(probe) if probe is not None else None
    if asked is not None and COVID not in run.class_names:
        raise AuditError(f"A source probe needs a run with a class {COVID}; leave --probe out.")
    mask_files = find_masks(masks, manifest) if masks is not None else None
    found = find_images(manifest, root)
    # Without images and probe there is nothing to ask, so the model files need not be here either.
    model_group = open_unmirrored_models(run, precision) if found or asked else None
    images = read_images(run, manifest, root, found, model_group.sizes_px) if found else None
    predictions = {name: artifacts.load_predictions(run, name) for name in run.models}
    missing = [left_out_sentence(run)] if model_group is not None and left_out(run) else []
    if images is not None:
        _say_excluded(images, manifest, missing)

    logger.info("Leakage: copies and patients in two parts of the split ...")
    leakage = _leakage(run, manifest, images, missing)
    logger.info("Subgroups ...")
    table = _listing(root, missing) if images is not None else None
    subgroups = compute_subgroups(run, table, predictions, int(run.info["seed"]))
    answered = _probe(asked, model_group, run, manifest, images, predictions, missing)
    blackout = perturbation = None
    if images is None:
        missing.append(NO_IMAGES.format(what="blackout and perturbation tests"))
    else:
        blackout = _blackout(run, model_group, images, mask_files, missing)
        perturbation = _perturbation(run, model_group, images)
    for sentence in missing:
        logger.warning(sentence)
    return {
        "created": writing.utc_now(),
        "minutes": (time.perf_counter() - started) / 60,
        "precision": precision,
        "tta": "none",
        "n_test": len(images.test_rows) if images is not None else 0,
        "models": run.models,
        "missing": missing,
        "excluded": images.excluded if images is not None else [],
        "leakage": leakage,
        "blackout": blackout,
        "probe": answered,
        "perturbation": perturbation,
        "subgroups": subgroups,
    }


def _say_excluded(images: RunImages, manifest: pd.DataFrame, missing: list[str]) -> None:
    for entry in images.excluded:
        logger.warning(f"{entry['image_id']}: {entry['reason']}")
    if images.excluded:
        missing.append(
            f"{len(images.excluded)} of the {len(manifest)} images could not be used, and the "
            "audit is made without them."
        )
    if images.changed_n:
        missing.append(
            f"{images.changed_n} of {len(images.manifest)} images are other files than the run "
            "was made with (re-encoded copies, say), so figures may differ a little."
        )


def open_unmirrored_models(run: Run, precision: str) -> ModelGroup:
    """The models of a run, asked without mirrored copies at that precision.

    Raises ArtifactError or InferenceError as core.inference.ensemble.open_models does.
    """
    # Models are opened as run.json says, so the wish is written there (into a copy).
    return open_models(replace(run, info=run.info | {"tta": "none", "precision": precision}))


def _leakage(
    run: Run, manifest: pd.DataFrame, images: RunImages | None, missing: list[str]
) -> dict:
    if images is not None:
        return find_leaks(images.manifest, images.small)
    missing.append(
        "The images of the run are not here, so copies were told by their hashes and by what the "
        "training found; give --data to have the pictures compared."
    )
    return find_leaks(manifest, None, pd.DataFrame(run.info.get("near_duplicates") or []))


def _sample(run: Run, rows: pd.DataFrame) -> Sample:
    y_true = pd.Index(run.class_names).get_indexer(rows["label"])
    return Sample(y_true, rows["patient_id"].to_numpy(), run.class_names, int(run.info["seed"]))


def _blackout(
    run: Run,
    model_group: ModelGroup,
    images: RunImages,
    masks: dict[str, Path] | None,
    missing: list[str],
) -> dict | None:
    """The blackout test, with masks on the images that have one."""
    if run.modality == "ct" and masks is None:
        missing.append(f"The blackout test was left out. {NO_BOX}")
        return None
    rows, test = images.manifest, images.test_rows
    learned = rows["split"].isin(["train", "val"]).to_numpy()
    if not learned.any():
        missing.append(NO_IMAGES.format(what="the blackout test, which needs train's mean grey"))
        return None
    mean_grey = float(np.mean([image.mean() for image in images.small[learned]]))
    counts = np.bincount(pd.Index(run.class_names).get_indexer(rows["label"][learned]))
    pixels, lungs, floor_lungs = images.test, None, None
    baseline_rows = np.arange(len(rows))
    if masks is not None:
        has = test["image_id"].isin(masks).to_numpy()
        baseline_rows = np.flatnonzero(rows["image_id"].isin(masks))
        test, pixels = test[has].reset_index(drop=True), {s: p[has] for s, p in pixels.items()}
        lungs = {s: read_masks(masks, test["image_id"], s) for s in pixels}
        floor_ids = rows["image_id"].iloc[baseline_rows]
        floor_lungs = read_masks(masks, floor_ids, images.small.shape[1])
        if not has.all():
            missing.append(
                f"{int((~has).sum())} of the {len(has)} test images have no mask, so the blackout "
                "test is made without them."
            )
    floors = BaselineImages(
        np.asarray(images.small[baseline_rows]), rows.iloc[baseline_rows].reset_index(drop=True),
        floor_lungs,
    )  # fmt: skip
    if floors.manifest.loc[floors.manifest["split"] != "test", "label"].nunique() < 2:
        missing.append("No floors on masked images: train and val have too few masks.")
        floors = None
    questions = 1 + len(PARTS) * len(FILLS) * (2 if floors else 1)
    logger.info(
        f"Blackout: {len(test)} images with the lungs hidden and with only the lungs left ..."
    )
    with progress(questions, "Blackout", "step") as bar:
        return measure_blackout(
            model_group, pixels, _sample(run, test), majority=int(counts.argmax()),
            mean_grey=mean_grey, lungs=lungs, floors=floors, tick=bar.update,
        )  # fmt: skip


def _perturbation(run: Run, model_group: ModelGroup, images: RunImages) -> dict:
    logger.info(
        f"Perturbation: {len(images.test_rows)} images, altered in {count_questions() - 1} ways ..."
    )
    with progress(count_questions(), "Perturbation", "step") as bar:
        return measure_perturbations(
            model_group, images.test, _sample(run, images.test_rows), tick=bar.update
        )


def _probe(
    probe: Probe | None,
    model_group: ModelGroup | None,
    run: Run,
    manifest: pd.DataFrame,
    images: RunImages | None,
    predictions: dict[str, pd.DataFrame],
    missing: list[str],
) -> dict | None:
    if probe is None:
        missing.append(
            "No source probe was given: whether the models read the collection was not asked."
        )
        return None
    logger.info(f"Source probe {probe.name}: {len(probe.table)} images ...")
    learned = manifest[manifest["split"] != "test"]
    known = Known(learned)
    if images is not None:
        rows = np.flatnonzero(images.manifest["split"] != "test")
        known = Known(
            learned, list(images.manifest["image_id"].iloc[rows]), np.asarray(images.small[rows])
        )
    else:
        missing.append(NO_IMAGES.format(what="a search of the probe for copies of training images"))
    patients = manifest.set_index("image_id")["patient_id"]
    own = {
        name: table.assign(patient_id=patients.loc[table["image_id"]].to_numpy())
        for name, table in predictions.items()
    }
    try:
        return predict_probe(model_group, probe, run.class_names, known, own)
    except AuditError as error:  # nothing of the probe is left, which costs no other part
        missing.append(str(error))
        return None


def _listing(root: Path, missing: list[str]) -> pd.DataFrame | None:
    """The data set's table with its further columns; None where it cannot be listed."""
    try:
        return load_table(describe_folder(root), root)
    except DatasetError as error:
        missing.append(f"Subgroups know only the run's own columns: {error}")
        return None
