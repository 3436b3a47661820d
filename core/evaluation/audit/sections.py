"""The sections of an audit: each is given what the run has and says what could not be done."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pandas as pd

from core.console import progress
from core.datasets.extra_tables import READERS_FILE, stem_of
from core.datasets.leakage import find_leaks
from core.datasets.registry import DatasetError
from core.datasets.several import describe_own, load_images, read_own_readings
from core.evaluation.audit.blackout import (
    FILLS,
    NO_BOX,
    PARTS,
    BaselineImages,
    Masking,
    measure_blackout,
)
from core.evaluation.audit.doubtful_labels import find_doubtful_labels
from core.evaluation.audit.images import RunImages, read_masks
from core.evaluation.audit.perturbation import count_questions, measure_perturbations
from core.evaluation.audit.readers import measure_readers
from core.evaluation.audit.source_probe import Known, predict_probe
from core.evaluation.audit.source_probe_images import Probe
from core.evaluation.audit.subgroups import compute_subgroups
from core.evaluation.sample import Sample
from core.inference.ensemble import AuditError, ModelGroup
from core.runs import artifacts
from core.runs.run import Run

logger = logging.getLogger(__name__)

NO_IMAGES = "The images of the run are not here, so {what} could not be done; give --data."


@dataclass(frozen=True)
class AuditContext:
    """What an audit has to go by.

    root: where the run's images would lie; predictions: model -> its predictions.csv; model_group
    is None where there is nothing to ask, images where the run's are not here, masks (image_id ->
    file) and probe where none were given. Sections add to `missing` what could not be done, in
    words.
    """

    run: Run
    root: Path
    manifest: pd.DataFrame
    predictions: dict[str, pd.DataFrame]
    model_group: ModelGroup | None
    images: RunImages | None
    masks: dict[str, Path] | None
    probe: Probe | None
    missing: list[str]

    def lack_images(self, what: str) -> None:
        """Note what could not be done without the run's images."""
        self.missing.append(NO_IMAGES.format(what=what))

    def readings(self) -> pd.DataFrame | None:
        """image_id, reader, reading of the run's images; None where the data set brings none."""
        readings = read_own_readings(self.run.info["dataset"], self.root)
        if readings is None:
            return None
        stems = self.manifest["path"].map(stem_of)
        ids = pd.Series(self.manifest["image_id"].to_numpy(), index=stems)
        readings = readings[readings.index.isin(ids.index)]
        return readings.assign(image_id=ids.loc[readings.index].to_numpy()).reset_index(drop=True)

    def sample(self, rows: pd.DataFrame) -> Sample:
        """Rows of the manifest as images whose truth is known."""
        y_true = pd.Index(self.run.class_names).get_indexer(rows["label"])
        seed = int(self.run.info["seed"])
        return Sample(y_true, rows["patient_id"].to_numpy(), self.run.class_names, seed)


class Section(Protocol):
    """One section of audit.json; `name` is its key there."""

    name: str

    def measure(self, context: AuditContext) -> dict[str, Any] | None:
        """The section, None where it could not be done, which then stands in `missing`."""


class LeakageSection:
    """Copies and patients that two splits share."""

    name = "leakage"

    def measure(self, context: AuditContext) -> dict[str, Any]:
        """core.datasets.leakage.find_leaks, by the images where they are here."""
        logger.info("Leakage: copies and patients in two parts of the split ...")
        if context.images is not None:
            return find_leaks(context.images.manifest, context.images.small)
        context.missing.append(
            "The images of the run are not here, so copies were told by their hashes and by what "
            "the training found; give --data to have the pictures compared."
        )
        known = pd.DataFrame(context.run.info.get("near_duplicates") or [])
        return find_leaks(context.manifest, None, known)


class SubgroupsSection:
    """How each model does in groups of test images."""

    name = "subgroups"

    def measure(self, context: AuditContext) -> dict[str, Any]:
        """core.evaluation.audit.subgroups, with the data set's columns where it can be listed."""
        logger.info("Subgroups ...")
        table = None
        if context.images is not None:
            try:
                table = load_images(
                    describe_own(context.run.info["dataset"], context.root), context.root
                )
            except DatasetError as error:
                context.missing.append(f"Subgroups know only the run's own columns: {error}")
        seed = int(context.run.info["seed"])
        return compute_subgroups(context.run, table, context.predictions, seed)


class ReadersSection:
    """How often the models and the labels agree with radiologists who read the images again."""

    name = "readers"

    def measure(self, context: AuditContext) -> dict[str, Any] | None:
        """core.evaluation.audit.readers, where the data set brings readings; no image is needed."""
        run = context.run
        readings = context.readings()
        if readings is None:
            context.missing.append(
                f"No second readers: {context.root.name} brings no {READERS_FILE}."
            )
            return None
        logger.info("Second readers ...")
        predictions = {
            model: artifacts.load_predictions(run, model, "folds")
            if artifacts.has_predictions(run, model, "folds")
            else table
            for model, table in context.predictions.items()
        }
        return measure_readers(readings, context.manifest, predictions, int(run.info["seed"]))


class DoubtfulLabelsSection:
    """Labels that all cross-validated models together doubt."""

    name = "doubtful_labels"

    def measure(self, context: AuditContext) -> dict[str, Any] | None:
        """core.evaluation.audit.doubtful_labels; no image is needed."""
        run = context.run
        predictions = {
            model: artifacts.load_predictions(run, model, "folds")
            for model in run.models
            if not run.members(model) and artifacts.has_predictions(run, model, "folds")
        }
        if not predictions:
            context.missing.append(
                "Doubtful labels were not looked for: they need out-of-fold predictions (--folds)."
            )
            return None
        logger.info("Doubtful labels ...")
        patients = context.manifest.set_index("image_id")["patient_id"]
        return find_doubtful_labels(
            predictions,
            patients,
            run.class_names,
            int(run.info["seed"]),
            readings=context.readings(),
        )


class ProbeSection:
    """What the models call images of another disease from the covid images' collection."""

    name = "probe"

    def measure(self, context: AuditContext) -> dict[str, Any] | None:
        """core.evaluation.audit.source_probe, where a probe was given."""
        probe, images = context.probe, context.images
        if probe is None or context.model_group is None:
            context.missing.append(
                "No source probe was given: whether the models read the collection was not asked."
            )
            return None
        logger.info(f"Source probe {probe.name}: {len(probe.table)} images ...")
        parts = context.run.info["dataset"].get("parts", [])
        folders = {part["name"]: part["folder"] for part in parts}
        known = Known(context.manifest[context.manifest["split"] != "test"], folders=folders)
        if images is not None:
            rows = np.flatnonzero(images.manifest["split"] != "test")
            ids = list(images.manifest["image_id"].iloc[rows])
            known = replace(known, image_ids=ids, pixels=np.asarray(images.small[rows]))
        else:
            context.lack_images("a search of the probe for copies of training images")
        patients = context.manifest.set_index("image_id")["patient_id"]
        own = {
            name: table.assign(patient_id=patients.loc[table["image_id"]].to_numpy())
            for name, table in context.predictions.items()
        }
        try:
            return predict_probe(context.model_group, probe, context.run.class_names, known, own)
        except AuditError as error:  # nothing of the probe is left, which costs no other section
            context.missing.append(str(error))
            return None


class BlackoutSection:
    """What the models still know when the lungs are hidden."""

    name = "blackout"

    def measure(self, context: AuditContext) -> dict[str, Any] | None:
        """core.evaluation.audit.blackout, with masks on the images that have one."""
        images = context.images
        if images is None or context.model_group is None:
            context.lack_images("blackout and perturbation tests")
            return None
        if context.run.modality == "ct" and context.masks is None:
            context.missing.append(f"The blackout test was left out. {NO_BOX}")
            return None
        learned = images.manifest["split"].isin(["train", "val"]).to_numpy()
        if not learned.any():
            context.lack_images("the blackout test, which needs train's mean grey")
            return None
        labels = images.manifest["label"][learned]
        counts = np.bincount(pd.Index(context.run.class_names).get_indexer(labels))
        test, pixels, lungs = self._masked_test(context, images)
        baselines = self._baselines(context, images)
        questions = 1 + len(PARTS) * len(FILLS) * (2 if baselines else 1)
        logger.info(
            f"Blackout: {len(test)} images with the lungs hidden and with only the lungs left ..."
        )
        mean_grey = float(np.mean([image.mean() for image in images.small[learned]]))
        sample = context.sample(test)
        with progress(questions, "Blackout", "step") as bar:
            return measure_blackout(
                context.model_group,
                pixels,
                sample,
                Masking(mean_grey, sample.seed, lungs),
                majority=int(counts.argmax()),
                baselines=baselines,
                tick=bar.update,
            )

    @staticmethod
    def _masked_test(
        context: AuditContext, images: RunImages
    ) -> tuple[pd.DataFrame, dict[int, np.ndarray], dict[int, np.ndarray] | None]:
        """The test images asked about, their pixels by size and, where masks were given, lungs."""
        test, pixels, masks = images.test_rows, images.test, context.masks
        if masks is None:
            return test, pixels, None
        has = test["image_id"].isin(masks).to_numpy()
        test, pixels = test[has].reset_index(drop=True), {s: p[has] for s, p in pixels.items()}
        if not has.all():
            context.missing.append(
                f"{int((~has).sum())} of the {len(has)} test images have no mask, so the blackout "
                "test is made without them."
            )
        return test, pixels, {s: read_masks(masks, test["image_id"], s) for s in pixels}

    @staticmethod
    def _baselines(context: AuditContext, images: RunImages) -> BaselineImages | None:
        """All images, small, that baselines are trained and scored on; None where too few."""
        rows, pixels, lungs = images.manifest, np.asarray(images.small), None
        if context.masks is not None:
            chosen = np.flatnonzero(rows["image_id"].isin(context.masks))
            rows, pixels = rows.iloc[chosen].reset_index(drop=True), pixels[chosen]
            lungs = read_masks(context.masks, rows["image_id"], pixels.shape[1])
        if rows.loc[rows["split"] != "test", "label"].nunique() < 2:
            context.missing.append("No floors on masked images: train and val have too few masks.")
            return None
        return BaselineImages(pixels, rows, lungs)


class PerturbationSection:
    """How the models bear brightness, contrast, noise, blur, JPEG, rotation and shifts."""

    name = "perturbation"

    def measure(self, context: AuditContext) -> dict[str, Any] | None:
        """core.evaluation.audit.perturbation; that images are missing stands with the blackout."""
        images = context.images
        if images is None or context.model_group is None:
            return None
        logger.info(
            f"Perturbation: {len(images.test_rows)} images, altered in {count_questions() - 1} "
            "ways ..."
        )
        with progress(count_questions(), "Perturbation", "step") as bar:
            return measure_perturbations(
                context.model_group, images.test, context.sample(images.test_rows), tick=bar.update
            )


# In the order in which they are measured, and in which `missing` names what was not.
SECTIONS: tuple[Section, ...] = (
    LeakageSection(),
    SubgroupsSection(),
    ReadersSection(),
    DoubtfulLabelsSection(),
    ProbeSection(),
    BlackoutSection(),
    PerturbationSection(),
)
