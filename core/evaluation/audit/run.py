"""Audit of a finished run: leakage, blackout, source probe, perturbation, subgroups.

The sections (core.evaluation.audit.sections) are given what the run has, and what cannot be done is
named. Models are asked without mirrored copies (tta "none"), the whole images too, so that altered
and whole images are answered alike and the audit takes half the time.
"""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from core.evaluation.audit.images import RunImages, find_images, find_masks, read_images
from core.evaluation.audit.sections import SECTIONS, AuditContext
from core.evaluation.audit.source_probe_images import load_probe
from core.inference.ensemble import AuditError, ModelGroup, open_models
from core.metrics.classification import COVID
from core.runs import artifacts, writing
from core.runs.additions import AUDIT_SECTIONS
from core.runs.missing_weights import left_out, left_out_sentence
from core.runs.run import Run

logger = logging.getLogger(__name__)


def audit_run(
    run: Run,
    root: Path,
    *,
    probe: Path | None = None,
    masks: Path | None = None,
    precision: str | None = None,
) -> dict[str, Any]:
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
    model_group = images = None
    missing = []
    # Without images and probe there is nothing to ask, so the model files need not be here either.
    if found or asked:
        model_group = open_unmirrored_models(run, precision)
        missing += [left_out_sentence(run)] if left_out(run) else []
        if found:
            images = read_images(run, manifest, root, found, model_group.sizes_px)
            missing += _name_excluded(images, len(manifest))
    predictions = {name: artifacts.load_predictions(run, name) for name in run.models}
    context = AuditContext(
        run, root, manifest, predictions, model_group, images, mask_files, asked, missing
    )
    measured = {section.name: section.measure(context) for section in SECTIONS}
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
        **{name: measured[name] for name in AUDIT_SECTIONS},
    }


def _name_excluded(images: RunImages, n_images: int) -> list[str]:
    """Name the images that could not be used; returns what the audit lacks for it, in words."""
    for entry in images.excluded:
        logger.warning(f"{entry['image_id']}: {entry['reason']}")
    missing = []
    if images.excluded:
        missing.append(
            f"{len(images.excluded)} of the {n_images} images could not be used, and the "
            "audit is made without them."
        )
    if images.changed_n:
        missing.append(
            f"{images.changed_n} of {len(images.manifest)} images are other files than the run "
            "was made with (re-encoded copies, say), so figures may differ a little."
        )
    return missing


def open_unmirrored_models(run: Run, precision: str) -> ModelGroup:
    """The models of a run, asked without mirrored copies at that precision.

    Raises ArtifactError or InferenceError as core.inference.ensemble.open_models does.
    """
    # Models are opened as run.json says, so the wish is written there (into a copy).
    return open_models(replace(run, info=run.info | {"tta": "none", "precision": precision}))
