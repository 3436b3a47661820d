"""Model cards (Mitchell et al. 2019): what a model is for, what made it, where it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core import artifacts
from core.datasets import Dataset
from core.verdict import floors_sentence, lost_floors

INIT_WORDS = {
    "imagenet": "ImageNet weights, then fine-tuned",
    "random": "random weights, trained whole; no pretrained weights were used",
    "scratch": "random weights, as designed: this network has no pretrained weights",
}


def write_cards(run_dir: Path, info: dict[str, Any], dataset: Dataset) -> None:
    """Write card.md for every model of the run, from its metrics.json and run.json."""
    for model in info["models"]:
        metrics = json.loads((run_dir / model / artifacts.METRICS_FILE).read_text())
        artifacts.write_card(run_dir, model, build_card(model, info, metrics, dataset))


def build_card(model: str, info: dict, metrics: dict, dataset: Dataset) -> str:
    """The card of one model as Markdown; every figure comes from `metrics` with its interval."""
    title, init = info["display"][model], info["init"][model]
    recipe, cost = info["recipes"][model], metrics["cost"]
    stages = "; ".join(_describe_stage(stage) for stage in recipe["stages"])
    rows = [
        ("Accuracy", metrics["accuracy"], "accuracy"),
        ("Macro-F1", metrics["macro_f1"], "macro_f1"),
        ("Balanced accuracy", metrics["balanced_accuracy"], "balanced_accuracy"),
    ]
    for name, values in metrics["per_class"].items():
        rows.append((f"Sensitivity, {name}", values["recall"], f"recall.{name}"))
        rows.append((f"Precision, {name}", values["precision"], f"precision.{name}"))
    table = "\n".join(
        f"| {label} | {_percent(value)} | {_interval(metrics['intervals'].get(key))} |"
        for label, value, key in rows
    )
    floors = floors_sentence(metrics, info["floors"])
    floors = f"**{floors}**" if lost_floors(metrics, info["floors"]) else floors
    caveats = "\n".join(f"- {text}" for text in info["dataset"]["caveats"]) or "- none recorded"
    synthetic = "**SYNTHETIC images: the figures say nothing about people.**\n\n"
    return f"""# {title} ({info["name"]})

{synthetic if info["modality"] == "phantom" else ""}**Research use, not for diagnosis.**

## Intended use
Comparing classifiers on one public collection of chest X-rays, teaching, and studying their
failures. Not for patients: no external validation has been done, and a high score here can come
from traits of the collection instead of the lung.

## Data
{dataset.title}: {info["dataset"]["n"]} images, classes {", ".join(info["class_names"])}.
Split: {info["split_policy"]}; {info["grouping"]}
Attribution: {dataset.attribution or "none recorded"}
Licence: {dataset.licence or "none recorded"}

Caveats:
{caveats}

## Training
- Init: {INIT_WORDS.get(init, "weights from " + init)}.
- Input: {recipe["image_size_px"]} px, grey, {info["resize"]}.
- Stages: {stages}.
- Class weights balanced; augmentation: flip, rotation {recipe["rotation_deg"]:g} degrees, zoom
  {recipe["zoom"]:g}, shift {recipe["shift"]:g}, contrast {recipe["contrast"]:g}.
- Seed {info["seed"]}, never chosen by its result.
- Recipes compared on validation: {recipe["tried"]}.
- {cost["params"]:,} parameters.
- Training took {cost["train_s"] / 60:.1f} minutes on {info["hardware"]}.

## Results on the test split
{metrics["n"]} images of {metrics["n_patients"]} patients, read once; served precision
{info["precision"]}, test-time augmentation: {info["tta"]}.

| | estimate | 95% interval over patients |
| --- | --- | --- |
{table}

{floors}

## Limits
- Probabilities are not calibrated.
- The model answers for any picture, also for one that is no chest X-ray.
- Not done: external validation, blackout test, source probe, cross-validation, subgroups.
"""


def _describe_stage(stage: dict) -> str:
    frozen = f"layers up to {stage['cut']} frozen" if stage["cut"] else "whole"
    peak = f"peak learning rate {stage['learning_rate']:g}"
    return f"{stage['name']} ({frozen}, up to {stage['epochs']} epochs, {peak})"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.1f} %"


def _interval(interval: dict | None) -> str:
    if not interval or interval["low"] is None:
        return "not defined"
    return f"{interval['low'] * 100:.1f} to {interval['high'] * 100:.1f}"
