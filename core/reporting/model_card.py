"""Model cards (Mitchell et al. 2019): what a model is for, what made it, where it fails."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from core.datasets.registry import Dataset
from core.files import sha256_file, write_json
from core.reporting.model_card_measured import describe_guard, describe_maps, describe_weights
from core.reporting.model_card_training import describe_training
from core.reporting.verdict import baselines_sentence, unbeaten_baselines
from core.runs import artifacts
from core.runs.additions import load_guard_document, load_maps


def write_cards(run_dir: Path, info: dict[str, Any], dataset: Dataset) -> list[str]:
    """Write card.md for every model of the run, from its metrics.json, run.json and additions.

    Returns the models' names; an ensemble has no card: it is its members.
    """
    run = artifacts.Run(run_dir, info)
    maps, guard = load_maps(run), load_guard_document(run)
    models = list(info.get("recipes") or {})
    for model in models:
        metrics = json.loads((run_dir / model / artifacts.METRICS_FILE).read_text())
        card = build_card(model, info, metrics, dataset, maps=maps, guard=guard)
        artifacts.write_card(run_dir, model, card)
    return models


def refresh_cards(run: artifacts.Run) -> artifacts.Run:
    """Rebuild the cards of a finished run after something was added to it.

    run.json is written anew with the cards' new hashes and is otherwise as it was: every other file
    is still held against the hash that it got when the run was made.

    Raises:
        ArtifactError: an addition, or a card's metrics, are damaged.
    """
    known = run.info["dataset"]
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
    write_json(run.path / artifacts.RUN_FILE, run.info | {"files": files})
    return artifacts.open_run(run.path)


def build_card(
    model: str,
    info: dict,
    metrics: dict,
    dataset: Dataset,
    *,
    maps: dict | None = None,
    guard: dict | None = None,
) -> str:
    """The card of one model as Markdown; every figure comes from `metrics` with its interval.

    maps, guard: the documents of maps/ and guard/, None where these were not made.
    """
    title = info["display"][model]
    is_kept = (info.get("weights") or {}).get(model, artifacts.KEPT) == artifacts.KEPT
    images = "chest CT slices" if info["modality"] == "ct" else "chest X-rays"
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
    floors = baselines_sentence(metrics, info["floors"])
    floors = f"**{floors}**" if unbeaten_baselines(metrics, info["floors"]) else floors
    caveats = "\n".join(f"- {text}" for text in info["dataset"]["caveats"]) or "- none recorded"
    leaks = ""
    if info.get("leakage"):
        share = info["leakage"]["share"]
        leaks = f"**LEAKS: {share:.0%} of the test images share a patient with training.**\n\n"
    synthetic = "**SYNTHETIC images: the figures say nothing about people.**\n\n"
    return f"""# {title} ({info["name"]})

{synthetic if info["modality"] == "phantom" else ""}{leaks}**Research use, not for diagnosis.**

## Intended use
Comparing classifiers on one public collection of {images}, teaching, and studying their
failures. Not for patients: a high score here can come from traits of the collection instead of the
lung. Whether it holds on images from elsewhere is on the Trust page, where that was measured.

## Data
{dataset.title}: {info["dataset"]["n"]} images, classes {", ".join(info["class_names"])}.
Split: {info["split_policy"]}; {info["grouping"]}
Attribution: {dataset.attribution or "none recorded"}
Licence: {dataset.licence or "none recorded"}

Caveats:
{caveats}

## Training
{describe_training(model, info, metrics["cost"])}
{describe_weights(model, info)}
## Results on the test split
{metrics["n"]} images of {metrics["n_patients"]} patients; served precision
{info["precision"]}, test-time augmentation: {info["tta"]}.

| | estimate | 95% interval over patients |
| --- | --- | --- |
{table}

{floors}

## Calibration
{_describe_calibration(model, info, metrics)}

## Cross-validation
{_describe_folds(model, info)}

## Heat maps
{describe_maps(model, info["name"], maps)}

## Refusing other pictures
{describe_guard(info["name"], guard, info["modality"], is_kept)}

## Limits
- Leakage, blackout, source probe, perturbation, subgroups and external images: what was measured
  is in this run's `audit/` and `external/` and on the Trust page; what is not there was not done.
"""


def _describe_calibration(model: str, info: dict, metrics: dict) -> str:
    fitted, measured = info["calibration"].get(model), metrics["calibrated"]
    if fitted is None:
        return "Probabilities are not calibrated: there were no images to fit a temperature on."
    part = {"inner": "out-of-fold predictions of train and validation", "val": "validation"}
    rows = "\n".join(
        f"| {title} | {_plain(measured['before'], key)} | {_plain(measured['after'], key)} |"
        for key, title in (("log_loss", "Log loss"), ("brier", "Brier score"), ("ece", "ECE"))
    )
    temperature = f"{fitted['temperature']:.2f}"
    effect = fitted.get("effect", 1.0)
    rests = f"{part[fitted['part']]} ({fitted['n']} images of {fitted['n_patients']} patients)"
    return f"""Temperature {temperature}, after taking out what was found of the class weights'
effect ({effect:.0%} of what theory has); fitted on {rests}. On the
test split:

| | before | after |
| --- | --- | --- |
{rows}"""


def _describe_folds(model: str, info: dict) -> str:
    folds = info.get("folds")
    if not folds:
        return "Not done: the run was trained on one split."
    state = folds["models"].get(model, {"status": "not done", "reason": "not asked for"})
    if state["status"] != "done":
        return f"Not done: {state['reason']}."
    return f"{folds['k']} folds, split by {folds['split_policy']}. {folds['rule']}"


def _plain(figures: dict, key: str) -> str:
    interval = figures["intervals"].get(key) or {}
    if interval.get("low") is None:
        return f"{figures[key]:.3f} (no interval)"
    return f"{figures[key]:.3f} ({interval['low']:.3f} to {interval['high']:.3f})"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value * 100:.1f} %"


def _interval(interval: dict | None) -> str:
    if not interval or interval["low"] is None:
        return "not defined"
    return f"{interval['low'] * 100:.1f} to {interval['high'] * 100:.1f}"
