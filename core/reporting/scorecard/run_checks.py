"""Checks that need nothing but the run itself: its split, figures, folds and thresholds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from core.evaluation.cross_validation import folds_not_done
from core.formatting import count, percent, with_interval
from core.metrics.calibration import apply_calibration
from core.metrics.classification import arrays_from_predictions, flatten_metrics
from core.metrics.intervals import UNIT
from core.metrics.operating_point import choose_threshold, rates_at
from core.reporting import verdict
from core.reporting.scorecard.base import (
    FAILED,
    NOT_DONE,
    PASSED,
    POINTS,
    TOLERANCE,
    Check,
    Evidence,
    folds_command,
    judge_models,
    shown,
)
from core.runs import artifacts

# Share of images whose patient must be known before "no patient is shared" says anything.
KNOWN_PATIENTS = 0.95
FEWEST_FOLDS = 5
FOUND = 0.95  # share of the ill that a threshold is chosen to find
FEWEST_ILL = 30  # patients with the disease that a threshold is chosen on


def check_patient_split(evidence: Evidence) -> Check:
    """Whether a patient has images in test and in train or validation."""
    split, n = evidence.split, len(evidence.manifest)
    shared, unknown = split["by_patient"], split["unknown_patients"]
    patients = evidence.manifest.groupby("split")["patient_id"].nunique()
    known = 1 - unknown / n
    command = ""
    if shared:
        status = FAILED
        sentence = (
            f"{count(shared, 'test image')} of {split['n_test']} "
            f"({percent(shared / split['n_test'])}) "
            f"{'shows' if shared == 1 else 'show'} a patient who is in train or val too."
        )
    elif known < KNOWN_PATIENTS:
        status = NOT_DONE
        sentence = (
            f"The patient of {unknown:,} of {n:,} images is not known, so whether one stands on "
            "both sides cannot be said."
        )
        command = "# give the images a metadata.csv with path,label,patient_id and train anew"
    else:
        status = PASSED
        sentence = (
            f"None of the {patients.get('test', 0)} test patients (n = {split['n_test']} images) "
            f"is in train or val; the patient of {percent(known)} of all images is known."
        )
    return Check(
        "patient_split",
        "Split by patient",
        status,
        sentence,
        "Passes when no patient has images in test and in train or validation, and the patient is "
        f"known for at least {percent(KNOWN_PATIENTS)} of the images; not done where fewer are.",
        "data",
        "test patients were trained on",
        command=command,
    )


def check_intervals(evidence: Evidence) -> Check:
    """Whether every figure has an interval over patients."""
    found = {}
    for model, metrics in evidence.metrics.items():
        values = {k: v for k, v in flatten_metrics(metrics).items() if v is not None}
        intervals = metrics["intervals"]
        bare = [k for k in values if (intervals.get(k) or {}).get("low") is None]
        units = {(intervals.get(k) or {}).get("unit") for k in values} - {UNIT}
        accuracy = with_interval(metrics["accuracy"], intervals.get("accuracy"))
        if bare:
            words = f"without {len(bare)} of {len(values)} intervals ({', '.join(bare[:3])})"
        elif units:
            words = "intervals that do not draw whole patients"
        else:
            words = f"all {len(values)} figures, accuracy {accuracy}"
        found[model] = (shown(not bare and not units), words)
    first = evidence.metrics[evidence.headline[0]]
    n_patients = evidence.manifest.loc[evidence.manifest["split"] == "test", "patient_id"].nunique()
    lead = f"95\u202f% intervals by drawing whole patients ({n_patients}, n = {first['n']} images)"
    return Check(
        "intervals",
        "Intervals",
        rule="Passes when every figure of every model has a 95\u202f% interval that draws whole "
        "patients; how wide they are is for the reader to judge.",
        page="overview",
        fault="figures stand without intervals over patients",
        **judge_models(evidence, found, lead),
    )


def check_calibration(evidence: Evidence) -> Check:
    """Whether calibrated probabilities are right on test."""
    found = {}
    for model, metrics in evidence.metrics.items():
        done = metrics.get("calibrated") or {}
        after = done.get("after") or {}
        bounds = (after.get("intervals") or {}).get("ece") or {}
        if after.get("ece") is None or bounds.get("high") is None:
            raw = with_interval(metrics["ece"], metrics["intervals"].get("ece"))
            found[model] = (NOT_DONE, f"{raw}, as trained")
            continue
        split = str(done.get("part"))
        split = {"inner": "out-of-fold", "val": "validation"}.get(split, split)
        words = f"{with_interval(after['ece'], bounds)}, fitted on {done.get('n')} {split} images"
        found[model] = (shown(bounds["high"] <= TOLERANCE), words)
    judged = judge_models(evidence, found, _calibration_lead(evidence))
    missing = any(status == NOT_DONE for status in judged["models"].values())
    return Check(
        "calibration",
        "Calibration",
        rule="Passes when the probabilities were calibrated on images that are not test, and the "
        "expected calibration error on test (top label, 15 equal bins), with the upper end of its "
        f"95\u202f% interval, is at most {POINTS}.",
        page="curves",
        fault="probabilities do not mean what they say",
        command=folds_command(evidence) if missing else "",
        **judged,
    )


def _calibration_lead(evidence: Evidence) -> str:
    n = evidence.metrics[evidence.headline[0]]["n"]
    return f"Expected calibration error on {n} test images (0 is perfect)"


def check_baselines(evidence: Evidence) -> Check:
    """Whether models are above every shortcut baseline."""
    baselines: Mapping[str, Any] = evidence.run.info.get("floors") or {}
    found = {}
    for model, metrics in evidence.metrics.items():
        above = [
            _lower_end(metrics, key) > baseline[key]
            for key in verdict.BASELINE_METRICS
            for baseline in baselines.values()
            if baseline.get(key) is not None
        ]
        words = ", ".join(
            f"{word} {with_interval(metrics[key], metrics['intervals'].get(key))}"
            for key, word in verdict.BASELINE_METRICS.items()
        )
        found[model] = (shown(all(above)), words)
    title = "Shortcut floors"
    rule = (
        "Passes when the lower end of a model's 95\u202f% interval lies above what every shortcut "
        "reaches (file properties, grey levels, a thumbnail, the border ...), on accuracy and on "
        "macro-F1 alike."
    )
    if not baselines:
        return Check(
            "floors",
            title,
            NOT_DONE,
            "No shortcut was measured on this run's split.",
            rule,
            "trust",
            "",
            command=folds_command(evidence),
        )
    lead = f"The best shortcuts reach {verdict.highest_baselines(baselines)}"
    return Check(
        "floors",
        title,
        rule=rule,
        page="trust",
        fault="a shortcut such as brightness does about as well",
        **judge_models(evidence, found, lead),
    )


def _lower_end(metrics: Mapping[str, Any], key: str) -> float:
    low = (metrics["intervals"].get(key) or {}).get("low")
    return -1.0 if low is None else low


def check_operating(evidence: Evidence) -> Check:
    """Whether a threshold finds on test what it was chosen to find."""
    target = evidence.target
    found = {}
    for model in evidence.run.models:
        found[model] = _threshold_on_test(evidence, model, target)
    return Check(
        "operating",
        "Operating point",
        rule=f"A threshold for {target} is chosen on images that are not test, so that "
        f"{percent(FOUND)} of theirs are found. Passes when it finds as many on test to within "
        f"{POINTS}, the lower end of the 95\u202f% interval counted; not done where fewer than "
        f"{FEWEST_ILL} patients with {target} stand in the images it is chosen on.",
        page="curves",
        fault=f"a threshold for {target} does not find what it was set to find",
        command=folds_command(evidence)
        if any(found[m][0] == NOT_DONE for m in evidence.headline)
        else "",
        **judge_models(evidence, found, f"Share of {target} found on test"),
    )


def _threshold_on_test(evidence: Evidence, model: str, target: str) -> tuple[str, str]:
    run = evidence.run
    split = artifacts.calibration_split(run, model)
    if split is None:
        return NOT_DONE, "no images but those on test to choose on"
    chosen = _scores(evidence, model, split, target)
    ill = len(np.unique(chosen["groups"][chosen["is_positive"]]))
    threshold = choose_threshold(chosen["is_positive"], chosen["score"], FOUND) if ill else None
    if ill < FEWEST_ILL or threshold is None:
        return NOT_DONE, f"{count(ill, 'patient')} with {target} to choose on, too few"
    test = _scores(evidence, model, "test", target)
    if not test["is_positive"].any():
        return NOT_DONE, f"no {target} on test"
    share = float(test["is_positive"].mean())
    rates = rates_at(**test, threshold=threshold, prevalence=share)
    sensitivity, specificity = rates["sensitivity"], rates["specificity"]
    words = (
        f"{with_interval(sensitivity['value'], sensitivity)} of {int(test['is_positive'].sum())}, "
        f"at specificity {with_interval(specificity['value'], specificity)}, chosen on {ill} "
        "patients"
    )
    return shown((sensitivity["low"] or 0.0) >= FOUND - TOLERANCE), words


def _scores(evidence: Evidence, model: str, split: str, target: str) -> dict[str, Any]:
    """is_positive, score (calibrated probability) and groups of one split, as rates_at asks."""
    run = evidence.run
    table = artifacts.load_predictions(run, model, split)
    y_true, y_prob = arrays_from_predictions(table, run.class_names)
    fitted = (run.info.get("calibration") or {}).get(model)
    k = run.class_names.index(target)
    patients = evidence.manifest.set_index("image_id")["patient_id"]
    return {
        "is_positive": y_true == k,
        "score": apply_calibration(y_prob, fitted, run.class_names)[:, k],
        "groups": patients.reindex(table["image_id"]).to_numpy(),
    }


def check_cross_validation(evidence: Evidence) -> Check:
    """Whether figures hold over folds that each leave patients out."""
    run = evidence.run
    plan: Mapping[str, Any] = run.info.get("folds") or {}
    found = {}
    for model in run.models:
        figures = artifacts.load_fold_metrics(run, model)
        if figures is None:
            reason = folds_not_done(run).get(model) if plan else ""
            found[model] = (NOT_DONE, reason or "trained on one split only")
            continue
        folds = figures["folds"]
        spread: Mapping[str, Any] = figures["spread"].get("accuracy") or {}
        inside = _holds(evidence.metrics[model], figures)
        words = with_interval(figures["accuracy"], figures["intervals"].get("accuracy"))
        words += f", n = {figures['n']} in {len(folds)} folds"
        words += f", spread {percent(spread['sd'])}" if spread.get("sd") is not None else ""
        words += "" if inside else ", outside what the one test part promised"
        if len(folds) < FEWEST_FOLDS:
            words += f", fewer than {FEWEST_FOLDS} folds"
        found[model] = (shown(inside and len(folds) >= FEWEST_FOLDS), words)
    judged = judge_models(
        evidence, found, "Accuracy pooled over folds that each leave patients out"
    )
    if plan and plan.get("split_policy") != "group" and judged["status"] != NOT_DONE:
        judged["status"] = FAILED
        judged["sentence"] = f"The folds are not cut by patient. {judged['sentence']}"
        judged["models"] = dict.fromkeys(judged["models"], FAILED)
    return Check(
        "cross_validation",
        "Cross-validation",
        rule=f"Passes when every model was trained on {FEWEST_FOLDS} or more folds cut by patient, "
        "and the pooled accuracy lies inside the 95\u202f% interval of the one test part.",
        page="protocol",
        fault="one lucky or unlucky split decides the figures",
        command=folds_command(evidence) if judged["status"] == NOT_DONE else "",
        **judged,
    )


def _holds(metrics: Mapping[str, Any], figures: Mapping[str, Any]) -> bool:
    """Is the pooled accuracy what the test split's interval lets one expect?"""
    bounds = metrics["intervals"].get("accuracy") or {}
    if bounds.get("low") is None:
        return False
    return bounds["low"] <= figures["accuracy"] <= bounds["high"]
