"""Model cards (Mitchell et al. 2019): what a model is for, what made it, where it fails.

Values are gathered here; the words stand in templates/model_card*.md.j2. Where something was not
measured the card says so and names the command.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from core.datasets.registry import Dataset
from core.evaluation.heatmaps import sanity_checks
from core.evaluation.heatmaps.pointing_game import BASELINES
from core.files import sha256_file
from core.models.names import NOTEBOOK, PARTIAL, POOLED, init_title
from core.models.recipes import TRIALS_DATASET, Recipe, recipe_from_json
from core.reporting.source_table import source_table
from core.reporting.templating import render_markdown
from core.reporting.verdict import baselines_sentence, unbeaten_baselines
from core.runs import artifacts, writing
from core.runs.additions import load_guard_document, load_maps
from core.runs.missing_weights import retrain_command
from core.runs.run import KEPT, Run

INIT_TEXT = {
    "imagenet": "ImageNet weights, then fine-tuned",
    "random": "random weights, trained whole; no pretrained weights were used",
    "scratch": "random weights, as designed: this network has no pretrained weights",
}
FROZEN_INIT_TEXT = {
    "imagenet": "ImageNet weights, which stay as they are under the layers that are trained",
    "random": "random weights, which stay as they are under the layers that are trained: no "
    "pretrained weights were to be had, so the layers read what an untrained network makes of an "
    "image",
}
CALIBRATION_SPLITS = {
    "inner": "out-of-fold predictions of train and validation",
    "val": "validation",
}
MAP_KINDS = {
    "true": "own class",
    "called": "class that is called",
    "right": "own class, where called",
}
IMAGES = {"ct": "chest CT slice", "phantom": "drawn phantom"}


def write_cards(run_dir: Path, info: Mapping[str, Any], dataset: Dataset) -> list[str]:
    """Write card.md for every model of the run, from its metrics.json, run.json and additions.

    Returns the models' names; an ensemble has no card: it is its members.
    """
    run = Run.in_progress(run_dir, info)
    maps, guard = load_maps(run), load_guard_document(run)
    models = list(info.get("recipes") or {})
    for model in models:
        metrics = json.loads((run_dir / model / artifacts.METRICS_FILE).read_text())
        card = build_card(model, info, metrics, dataset, maps=maps, guard=guard)
        writing.write_card(run_dir, model, card)
    return models


def refresh_cards(run: Run) -> Run:
    """Rebuild the cards of a finished run after something was added to it.

    run.json is written anew with the cards' new hashes and is otherwise as it was: every other file
    is still held against the hash that it got when the run was made.

    Raises:
        ArtifactError: an addition, or a card's metrics, are damaged.
    """
    known: Mapping[str, Any] = run.info["dataset"]
    dataset = Dataset(
        name=known["name"],
        title=known.get("title", known["name"]),
        modality=run.modality,
        caveats=tuple(known.get("caveats", ())),
        licence=known.get("licence", ""),
        attribution=known.get("attribution", ""),
        homepage=known.get("homepage", ""),
    )
    files = dict(run.info["files"])
    for model in write_cards(run.path, run.info, dataset):
        name = f"{model}/{artifacts.CARD_FILE}"
        files[name] = sha256_file(run.path / name)
    return writing.rewrite_info(Run(run.path, run.info | {"files": files}))


def build_card(
    model: str,
    info: Mapping[str, Any],
    metrics: Mapping[str, Any],
    dataset: Dataset,
    *,
    maps: Mapping[str, Any] | None = None,
    guard: Mapping[str, Any] | None = None,
) -> str:
    """The card of one model: YAML for the Hugging Face Hub, then Markdown.

    Every figure comes from `metrics` with its interval. maps, guard: the documents of maps/ and
    guard/, None where these were not made.
    """
    recipe = recipe_from_json(info["recipes"][model])
    modality, leakage = info["modality"], info.get("leakage")
    warnings = {}
    if modality == "phantom":
        warnings["synthetic"] = "SYNTHETIC images: the figures say nothing about people."
    if leakage:
        warnings["leakage"] = (
            f"LEAKS: {leakage['share']:.0%} of the test images share a patient with training."
        )
    not_done = {"status": "not done", "reason": "not asked for"}
    return render_markdown(
        "model_card.md.j2",
        model=model,
        title=info["display"][model],
        info=info,
        metrics=metrics,
        dataset=dataset,
        warnings=warnings,
        image=IMAGES.get(modality, "chest X-ray"),
        images="chest CT slices" if modality == "ct" else "chest X-rays",
        init=_init_text(recipe, info["init"][model]),
        recipe=recipe,
        augmented=any(
            stage.views > 1 if stage.cut is not None else stage.augment for stage in recipe.stages
        ),
        from_notebook=model in NOTEBOOK,
        rate_searches=info.get("rate_search", {}).get(model, []),
        tried_where=tried_where(info, recipe.tried),
        has_weights=(info.get("weights") or {}).get(model, KEPT) == KEPT,
        retrain_command=retrain_command(info),
        results=_results(metrics),
        by_source=source_table(metrics.get("sources"), info["class_names"]),
        baselines=baselines_sentence(metrics, info["floors"]),
        beats_baselines=not unbeaten_baselines(metrics, info["floors"]),
        calibration=info["calibration"].get(model),
        calibration_splits=CALIBRATION_SPLITS,
        folds=(info.get("folds") or {}).get("models", {}).get(model, not_done),
        maps=maps,
        map_kinds=MAP_KINDS,
        map_baselines=BASELINES,
        sanity=sanity_checks,
        guard=guard,
    )


def tried_where(info: Mapping[str, Any], most: int) -> str:
    """What follows the number of recipes tried (`most` of a model) where it was on other data."""
    if most <= 1 or info["dataset"]["name"] == TRIALS_DATASET:
        return ""
    return f" (on {TRIALS_DATASET}, none on this data set)"


def _init_text(recipe: Recipe, init: str) -> str:
    frozen = all(stage.cut in (POOLED, "features") for stage in recipe.stages)
    texts = FROZEN_INIT_TEXT if frozen else INIT_TEXT
    if init.startswith(PARTIAL) and frozen:
        return f"{init_title(init)}, which stays as it is under the layer that is trained"
    if init.startswith(PARTIAL):
        return f"{init_title(init)}, fine-tuned; the layers above from random weights"
    return texts.get(init, f"weights from {init}")


def _results(metrics: Mapping[str, Any]) -> list[tuple[str, float | None, Mapping | None]]:
    """Title, estimate and interval of every figure of the card's table."""
    rows = [
        ("Accuracy", metrics["accuracy"], "accuracy"),
        ("Macro-F1", metrics["macro_f1"], "macro_f1"),
        ("Balanced accuracy", metrics["balanced_accuracy"], "balanced_accuracy"),
    ]
    for name, values in metrics["per_class"].items():
        rows.append((f"Sensitivity, {name}", values["recall"], f"recall.{name}"))
        rows.append((f"Precision, {name}", values["precision"], f"precision.{name}"))
    return [(title, value, metrics["intervals"].get(key)) for title, value, key in rows]
