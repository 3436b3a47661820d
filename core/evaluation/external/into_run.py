"""Evaluate a run on an external data set, say what came of it, and write it to the run."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from core.config import cache_root, data_root
from core.datasets.registry import Dataset, dataset_folder
from core.evaluation.external.describe import external_lines
from core.evaluation.external.evaluate import ExternalSet, evaluate_external
from core.inference.ensemble import open_models
from core.runs import additions
from core.runs.missing_weights import check_no_loss, need_weights
from core.runs.run import Run

logger = logging.getLogger(__name__)


def evaluate_into_run(
    run: Run, dataset: Dataset, root: Path, name: str, *, replace: bool = False
) -> dict[str, Any]:
    """Score the run on the images below root, say what came of it, and write external/<name>.

    replace: also where a result of other images has that name. Returns the document; raises what
    evaluate_external does, and ArtifactError where no model can be asked or figures of models that
    cannot be asked any more would be lost.
    """
    need_weights(run)
    if name in additions.list_external(run):
        earlier = additions.load_external(run, name)
        check_no_loss(run, f"a result named {name}", earlier["models"])
    own_root = dataset_folder(run.info["dataset"]["name"], data_root())
    asked = ExternalSet(dataset, root, own_root, cache_root(), None if replace else name)
    result = evaluate_external(run, open_models(run), asked)
    for line in external_lines(run, result.document):
        logger.info(line)
    additions.write_external(run, name, result.document, result.manifest, result.predictions)
    return result.document
