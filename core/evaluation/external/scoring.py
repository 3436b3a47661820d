"""Figures on an external set, and how the run's own test figures changed.

A set may lack classes that the run has: then its means are over the classes it has, and the
in-domain figures beside them are computed anew on the test images of these classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from core.metrics.bootstrap import percentile_interval
from core.metrics.classification import (
    COVID,
    arrays_from_predictions,
    compute_metrics,
    mean_of_defined,
    predicted_index,
)
from core.metrics.intervals import COVID_TASK, bootstrap_draws, bootstrap_intervals

DRAWS = 2000
MEANS = {"macro_f1": "f1", "macro_precision": "precision", "macro_recall": "recall"}
COMPARED = ("accuracy", "balanced_accuracy", "macro_f1")


def count_predicted(predictions: pd.DataFrame, class_names: Sequence[str]) -> dict[str, int]:
    """How many images were called what."""
    return {name: int((predictions["predicted"] == name).sum()) for name in class_names}


def score_external(
    predictions: pd.DataFrame,
    groups: Sequence[str],
    class_names: Sequence[str],
    present: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, Any]:
    """The figures of one model, with the keys of metrics.json as far as they make sense.

    present: the run's classes that the labels name. None: counts of calls only. One: its
    sensitivity, for all else needs images of another class. Fewer than the run has: per_class and
    the macro means are about these classes (a call of another class is an error), and intervals
    likewise. `called` {class: n} is always there.
    """
    called = count_predicted(predictions, class_names)
    head = {"n": len(predictions), "n_patients": len(set(groups)), "called": called}
    if not present:
        return head
    y_true, y_prob = arrays_from_predictions(predictions, class_names)
    metrics = compute_metrics(y_true, y_prob, class_names)
    intervals = bootstrap_intervals(y_true, y_prob, groups, class_names, draws=draws, seed=seed)
    per_class = {name: metrics["per_class"][name] for name in present}
    if len(present) == 1:
        name = present[0]
        row = {key: per_class[name][key] for key in ("recall", "support")}
        key = f"recall.{name}"
        return head | {"per_class": {name: row}, "intervals": {key: intervals[key]}}
    metrics |= {"per_class": per_class, "calibrated": None, "cost": None}
    if len(present) < len(class_names):
        absent = {name for name in class_names if name not in present}
        # A rate is called rate.class, and what is about covid alone binary.covid_vs_rest.rate.
        kept = [key for key in intervals if key.partition(".")[2] not in absent]
        if COVID in absent:
            metrics.pop("binary", None)
            kept = [key for key in kept if not key.startswith(COVID_TASK)]
        intervals = {key: intervals[key] for key in kept}
        drawn = bootstrap_draws(y_true, y_prob, groups, class_names, draws=draws, seed=seed)
        for key, rate in MEANS.items():
            metrics[key] = mean_of_defined([per_class[name][rate] for name in present])
            intervals[key] = _mean_interval(
                intervals[key], rate, metrics[key], drawn, intervals, present
            )
    return head | metrics | {"intervals": intervals}


def _mean_interval(
    whole: Mapping[str, Any],
    rate: str,
    value: float,
    drawn: Mapping[str, np.ndarray],
    intervals: Mapping[str, Mapping[str, Any]],
    present: Sequence[str],
) -> dict[str, Any]:
    """The interval of a macro mean over the classes present.

    Percentiles of the draws; where the mean is 0 or 1 all draws are alike, so the mean of the
    classes' own bounds stands in, as core.metrics.intervals does it.
    """
    if whole["method"] == "undefined":
        return dict(whole)
    keys = [f"{rate}.{name}" for name in present]
    if value in (0.0, 1.0):
        bounds = [(intervals[key]["low"], intervals[key]["high"]) for key in keys]
        low, high = np.mean(bounds, axis=0).tolist()
        return {**whole, "low": low, "high": high, "method": "wilson", "draws": 0}
    low, high, used = percentile_interval(np.mean([drawn[key] for key in keys], axis=0))
    return {**whole, "low": low, "high": high, "method": "percentile", "draws": used}


@dataclass(frozen=True)
class ScoredImages:
    """Predictions of one model, and the patient of each row."""

    predictions: pd.DataFrame
    groups: Sequence[str]

    def of_classes(self, present: Sequence[str]) -> ScoredImages:
        """The images of these classes alone."""
        chosen = self.predictions["label"].isin(list(present)).to_numpy()
        return ScoredImages(self.predictions[chosen], np.asarray(self.groups)[chosen].tolist())


def compare_with_test_split(
    internal: ScoredImages,
    external: ScoredImages,
    class_names: Sequence[str],
    present: Sequence[str],
    *,
    draws: int = DRAWS,
    seed: int = 0,
) -> dict[str, dict[str, float | None]]:
    """What changed from the run's test images to external ones, one model's row of `drop`.

    internal: the model's predictions.csv, of which only images of the classes present count.
    Returns {accuracy, balanced_accuracy, macro_f1, recall.<class>}, each
    {internal, external, difference (external less internal), low, high} and the two sides' own
    intervals {internal_low, internal_high, external_low, external_high}; of one class its
    recall.<class> alone; {} without labels, or where the test part has none of these classes.
    Patients of the two sides are drawn independently of each other.
    """
    internal = internal.of_classes(present)
    if not present or set(internal.predictions["label"]) != set(present):
        return {}
    keys = [f"recall.{name}" for name in present]
    keys = keys if len(present) == 1 else [*COMPARED, *keys]
    sides = []
    for number, (table, who) in enumerate(
        (side.predictions, side.groups) for side in (internal, external)
    ):
        figures = score_external(table, who, class_names, present, draws=draws, seed=seed)
        arrays = arrays_from_predictions(table, class_names)
        # A seed of its own: with the same one, sets of one size would be drawn in step.
        drawn = bootstrap_draws(*arrays, who, class_names, draws=draws, seed=seed + number)
        for key, rate in MEANS.items():
            drawn[key] = np.mean([drawn[f"{rate}.{name}"] for name in present], axis=0)
        sides.append((figures, drawn))
    return {key: _compare(key, *sides) for key in keys}


def _compare(
    key: str,
    internal: tuple[Mapping[str, Any], Mapping[str, np.ndarray]],
    external: tuple[Mapping[str, Any], Mapping[str, np.ndarray]],
) -> dict[str, float | None]:
    """One figure on both sides, and their difference with its interval."""
    (inner, low_in, high_in), (outer, low_out, high_out) = (
        _value_and_bounds(figures, key) for figures, _ in (internal, external)
    )
    difference = outer - inner
    low: float | None
    high: float | None
    if low_in is None or high_in is None or low_out is None or high_out is None:
        low = high = None
    elif {inner, outer} & {0.0, 1.0}:
        # All draws of a side at 0 or 1 are alike, so the two intervals are put together instead
        # (Newcombe 1998, "Interval estimation for the difference between independent
        # proportions", method 10).
        low = difference - float(np.hypot(outer - low_out, high_in - inner))
        high = difference + float(np.hypot(high_out - outer, inner - low_in))
    else:
        low, high, _ = percentile_interval(external[1][key] - internal[1][key])
    return {
        **{"internal": inner, "external": outer, "difference": difference},
        **{"low": low, "high": high},
        **{"internal_low": low_in, "internal_high": high_in},
        **{"external_low": low_out, "external_high": high_out},
    }


def _value_and_bounds(
    figures: Mapping[str, Any], key: str
) -> tuple[float, float | None, float | None]:
    name = key.removeprefix("recall.")
    value = figures["per_class"][name]["recall"] if name != key else figures[key]
    bounds = figures["intervals"][key]
    return value, bounds["low"], bounds["high"]


def count_findings(
    findings: Sequence[str],
    labels: Sequence[str],
    predictions: Mapping[str, pd.DataFrame],
    class_names: Sequence[str],
) -> dict[str, dict[str, Any]]:
    """What the images show by the set's own record, where that says more than the label.

    {finding: {n, labels{label: n}, called{model: {class: n}}}}, the most frequent first; images
    without a record are left out.
    """
    recorded, label_of = np.asarray(findings, dtype=object), pd.Series(list(labels), dtype=object)
    counted = {}
    for finding, n in pd.Series(recorded[recorded != ""]).value_counts().items():
        here = recorded == finding
        counted[str(finding)] = {
            "n": int(n),
            "labels": {k: int(v) for k, v in label_of[here].value_counts().items()},
            "called": {
                model: count_predicted(table[here], class_names)
                for model, table in predictions.items()
            },
        }
    return counted


def accuracy_with_overlap(
    predictions: pd.DataFrame, groups: Sequence[str], class_names: Sequence[str], *, seed: int = 0
) -> dict[str, Any]:
    """{n, accuracy, low, high} with the images that overlap left in: what leaking would show."""
    y_true, y_prob = arrays_from_predictions(predictions, class_names)
    right = float((predicted_index(y_prob) == y_true).mean())
    bounds = bootstrap_intervals(y_true, y_prob, groups, class_names, seed=seed)["accuracy"]
    return {"n": len(y_true), "accuracy": right, "low": bounds["low"], "high": bounds["high"]}
