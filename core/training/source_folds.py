"""Leave one source out: one training a source of several data sets, which judges its images."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pandas as pd

from core.config import Config, ConfigError
from core.datasets.schema import SOURCE_COLUMN, ManifestError
from core.datasets.splits import source_splits
from core.evaluation.left_out_sources import RULE
from core.models.names import is_control, model_title
from core.models.pretrained import InitPlan
from core.models.recipes import Recipe
from core.runs import writing
from core.training.cross_validation import DONE, NOT_DONE, train_part
from core.training.trainer import Materials, ModelSpec

logger = logging.getLogger(__name__)

# Of a class's images: whoever holds so many of them cannot be left out.
NEARLY_ALL = 0.9
MOST_SOURCES = 12  # each is one training a model


def sources_to_leave_out(manifest: pd.DataFrame, config: Config) -> tuple[list[str], dict]:
    """Sources that can be left out, and of the others why nothing can be told of them.

    Raises ConfigError where there are no sources, too many, or none can be left out.
    """
    if SOURCE_COLUMN not in manifest:
        raise ConfigError(
            "--folds-by source needs several data sets, such as --dataset darkcovidnet,cohen-2020."
        )
    counts = pd.crosstab(manifest[SOURCE_COLUMN].astype(str), manifest["label"])
    if len(counts) > MOST_SOURCES:
        raise ConfigError(
            f"There are {len(counts)} sources, and each would be one training; at most "
            f"{MOST_SOURCES} are left out one by one."
        )
    shares = counts / counts.sum()
    able, cannot = [], {}
    for source in counts.index:
        label = shares.loc[source].idxmax()
        if shares.loc[source, label] >= NEARLY_ALL:
            cannot[source] = (
                f"{counts.loc[source, label]:,} of the {counts[label].sum():,} images of {label} "
                "are its own, so a model trained without it would hardly know that class"
            )
            continue
        try:
            source_splits(manifest, source, config.split, config.seed)
            able.append(source)
        except ManifestError as error:
            cannot[source] = str(error).rstrip(".")
    if not able:
        reasons = "; ".join(f"{source}: {reason}" for source, reason in cannot.items())
        raise ConfigError(f"No source can be left out ({reasons}).")
    return able, cannot


def leave_sources_out(
    run_dir: Path,
    config: Config,
    materials: Materials,
    plans: dict[str, InitPlan],
    recipes: dict[str, Recipe],
    former: dict[str, Any],
) -> dict[str, Any]:
    """Train once without each source, write predictions_sources.csv; returns run.json's new key.

    What was finished is taken over, from the work folder or from `former`, run.json as it was.
    """
    able, cannot = sources_to_leave_out(materials.manifest, config)
    for source, reason in cannot.items():
        logger.info(f"Without {source}: cannot tell, {reason}.")
    before = (former.get("source_folds") or {}).get("models", {})
    models = {}
    for name, recipe in recipes.items():
        chosen = config.fold_models is None or name in config.fold_models
        if before.get(name, {}).get("status") == DONE:
            models[name] = before[name]
        elif is_control(name):
            models[name] = {"status": NOT_DONE, "reason": "a control"}
        elif not chosen:
            models[name] = {"status": NOT_DONE, "reason": "left out by --fold-models"}
        else:
            logger.info(f"{model_title(name)}: {len(able)} trainings, one without each source.")
            spec, tables, seconds = ModelSpec(name, plans[name], recipe), [], 0.0
            for source in able:
                split = source_splits(materials.manifest, source, materials.split, materials.seed)
                folder = f"source{sorted([*able, *cannot]).index(source)}"
                table, took = train_part(spec, materials, split, folder, f"without {source}")
                tables.append(table.assign(fold=source))
                seconds += took
            table = pd.concat(tables, ignore_index=True)
            writing.write_predictions(run_dir, name, "sources", table)
            models[name] = {"status": DONE, "reason": "", "n": len(table), "train_s": seconds}
    return {"source_folds": {"rule": RULE, "cannot_tell": cannot, "models": models}}
