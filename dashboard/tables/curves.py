"""What Curves and thresholds says: which model separates best, natural frequencies, choices.

Arrays and tables in, words and values out; no Streamlit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from core.formatting import PERCENT, join, percent
from core.metrics.classification import compute_metrics, flatten_metrics
from core.metrics.curves import MACRO, Curve
from core.metrics.intervals import bootstrap_draws
from core.metrics.operating_point import at_prevalence
from core.metrics.significance import ALPHA, holm
from dashboard.tables.metrics import range_text

# Steps that are nearly even on a logarithmic scale.
PREVALENCES = (
    *(0.001, 0.002, 0.003, 0.005, 0.007, 0.01, 0.015, 0.02, 0.03, 0.04, 0.05, 0.07),
    *(0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5),
)
AREAS = {"roc": "AUC", "pr": "average precision"}
HEALTHY = "normal"  # nobody has it: people are it
FEWEST_ILL = 10  # a crowd is large enough to speak of when so many in it have the class


# ------------------------------------------------------------------------------ separation


def compare_areas(
    y_true: np.ndarray,
    probs: Mapping[str, np.ndarray],
    groups: Sequence | np.ndarray,
    class_names: Sequence[str],
    *,
    draws: int = 2000,
    seed: int = 0,
) -> dict[str, list[dict]]:
    """Each pair of models judged on AUC: class or "macro" -> one dict a pair.

    probs: model -> (n, C) of the same n images; groups (n,) the patient of each. A dict holds a,
    b, difference (a less b), low, high (95% percentile interval over the same drawn patients), p,
    p_holm and verdict, as core.metrics.significance.compare_models does for macro-F1. p is the
    percentile interval turned round: the smallest level at which it leaves out 0, the estimate
    counted as one more draw so that it is never 0. Holm's correction is over the pairs of models. A
    class without an AUC has no pairs.
    """
    drawn, estimates = {}, {}
    for model, y_prob in probs.items():
        drawn[model] = bootstrap_draws(y_true, y_prob, groups, class_names, draws=draws, seed=seed)
        estimates[model] = flatten_metrics(compute_metrics(y_true, y_prob, class_names))
    result = {}
    for name in (MACRO, *class_names):
        key = "auc" if name == MACRO else f"auc.{name}"
        areas = {model: own[key] for model, own in estimates.items()}
        known = {model: area for model, area in areas.items() if area is not None}
        rows: list[dict[str, Any]] = [
            {"a": a, "b": b, "difference": known[a] - known[b]}
            | _judge(drawn[a][key] - drawn[b][key])
            for a, b in combinations(known, 2)
        ]
        for row, adjusted in zip(rows, holm([row["p"] for row in rows]), strict=True):
            row["p_holm"] = adjusted
            better = "a better" if row["difference"] > 0 else "b better"
            sure = adjusted < ALPHA and not row["low"] <= 0 <= row["high"]
            row["verdict"] = better if sure else "no difference shown"
        result[name] = rows
    return result


def _judge(differences: np.ndarray) -> dict[str, float]:
    """Interval and p of drawn differences; draws that missed a class (NaN) are left out."""
    used = differences[~np.isnan(differences)]
    low, high = np.quantile(used, [0.025, 0.975]) if len(used) else (-1.0, 1.0)
    beyond = min(int((used <= 0).sum()), int((used >= 0).sum()))
    return {"low": float(low), "high": float(high), "p": min(1, 2 * (1 + beyond) / (1 + len(used)))}


def area_sentence(
    curves: Mapping[str, Curve],
    comparisons: Iterable[dict] | None,
    titles: Mapping[str, str],
    *,
    of: str,
) -> str:
    """Which model separates best, by AUC with its interval, and whether that is sure.

    curves: model -> its ROC curve, models without one left out; comparisons: of the same class,
    None where the models were not asked about the same images; of: what is separated, such as
    "covid from the rest".
    """
    areas = {model: curve.area for model, curve in curves.items()}
    if not areas:
        return f"No model can be said to separate {of}: that takes images of both sides."
    leader = max(areas, key=lambda m: areas[m])
    name = {model: titles.get(model, model) for model in areas}
    score = f"AUC {area_text(curves[leader])}, n = {curves[leader].n}"
    if len(areas) == 1:
        return f"{name[leader]}, the only model shown, separates {of} with an {score}."
    tied = [name[m] for m in areas if areas[leader] - areas[m] < 1e-9]
    if len(tied) > 1:
        return f"{join(tied)} separate {of} equally well: {score}."
    sure, unsure, untested = _sort_others(leader, areas, comparisons, name)
    head = f"{name[leader]} separates {of} best: {score}"
    if sure:
        head += f"; more than chance explains over {join(sure)}"
        head += f", but over {join(unsure)} no difference is shown" if unsure else ""
    elif unsure:
        head = f"{name[leader]} has the highest AUC in separating {of}, {score[4:]}, but this "
        head += f"may be chance: over {join(unsure)} no difference is shown"
    if untested:
        head += f"; whether its lead over {join(untested)} is more than chance was not tested"
    return f"{head}."


def _sort_others(
    leader: str, areas: Mapping[str, float], comparisons: Iterable[dict] | None, name: Mapping
) -> tuple[list[str], list[str], list[str]]:
    """The other models in words: surely behind the leader, not surely, not tested."""
    pairs = {frozenset((row["a"], row["b"])): row for row in comparisons or ()}
    sure: list[str] = []
    unsure: list[str] = []
    untested: list[str] = []
    for other in sorted(set(areas) - {leader}, key=lambda m: areas[m], reverse=True):
        row = pairs.get(frozenset((leader, other)))
        if row is None:
            untested.append(name[other])
            continue
        points = 100 * (areas[leader] - areas[other])
        text = f"{name[other]} (by {points:.1f} points, corrected p {_p(row['p_holm'])})"
        (unsure if row["verdict"] == "no difference shown" else sure).append(text)
    return sure, unsure, untested


def area_text(curve: Curve) -> str:
    """97.1 % (95% interval 95.0 to 98.6)."""
    text = percent(curve.area)
    return f"{text} (95% interval {range_text(curve.area_low, curve.area_high)})"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"= {value:.{3 if value < 0.1 else 2}f}"


# ------------------------------------------------------------------------------ operating point


def prevalence_options(share: float) -> list[float]:
    """What the reader may set, with the measured share among it, rising."""
    return sorted({*PREVALENCES, share})


def threshold_options(default: float) -> list[float]:
    """Every half percent, finer near 0 and 1 where sure models decide, and the default; rising.

    The default is not rounded: rounded up, it would call fewer images than it was chosen for.
    """
    fine = (0.0001, 0.0002, 0.0005, 0.001, 0.002, 0.003)
    return sorted({*(k / 200 for k in range(201)), *fine, *(1 - edge for edge in fine), default})


def crowd_sentence(
    rates: Mapping[str, Mapping], prevalence: float, name: str, people: str = "people"
) -> str:
    """The rates as natural frequencies: of 1,000 such people, how many are found, missed, alarmed.

    rates: sensitivity and specificity, each {value}; the crowd grows until FEWEST_ILL have the
    class. Whole numbers throughout, so the parts sum up as a reader sums them.
    """
    crowd = 1000
    while crowd * prevalence < FEWEST_ILL and crowd < 1_000_000:
        crowd *= 10
    ill = round(crowd * prevalence)
    others = crowd - ill
    found = round(ill * rates["sensitivity"]["value"])
    alarms = found + round(others * (1 - rates["specificity"]["value"]))
    have = _are(ill) if name == HEALTHY else "has" if ill == 1 else "have"
    text = (
        f"Of {crowd:,} such {people} with {share_text(prevalence)} prevalence, {ill:,} {have} "
        f"{name}: {found:,} found, {ill - found:,} missed; {alarms - found:,} of {others:,} "
        f"others {_are(alarms - found)} called {name}"
    )
    if not alarms:
        return f"{text}, so nobody is called {name}."
    answers = ("such answer" if name == HEALTHY else "alarm") + ("" if alarms == 1 else "s")
    return f"{text}, so of {alarms:,} {answers} {found:,} {_are(found)} right."


def _are(n: int) -> str:
    return "is" if n == 1 else "are"


def share_text(share: float) -> str:
    """0.02 -> "2 %", 0.1067 -> "10.7 %", 0.0004 -> "0.04 %", 0.9995 -> "99.95 %"."""
    digits = f"{100 * share:.3g}" if share < 0.99 else f"{100 * share:.5g}"
    return f"{digits}{PERCENT}"


# ------------------------------------------------------------------------------ calibration, sets


def calibration_sentence(changes: Mapping[str, Mapping], titles: Mapping[str, str]) -> str:
    """For which models calibration made the log loss on test lower, and whether that is sure.

    changes: model -> {value, low, high}, log loss after less before.
    """
    lower: list[str] = []
    higher: list[str] = []
    unsure: list[str] = []
    for model, change in changes.items():
        low, high = change.get("low"), change.get("high")
        sure = low is not None and high is not None and not low <= 0 <= high
        where = (lower if change["value"] < 0 else higher) if sure else unsure
        where.append(
            f"{titles[model]} ({change['value']:+.3f}, {range_text(low, high, as_percent=False)})"
        )
    parts = []
    if lower:
        parts.append(f"made the probabilities truer for {join(lower)}")
    if higher:
        parts.append(f"made them worse for {join(higher)}")
    if unsure:
        parts.append(f"shows no difference for {join(unsure)}")
    return (
        f"Calibration {'; it '.join(parts)}. In brackets: change of the log loss on test, less is "
        "better, with its 95% interval."
    )


def coverage_sentence(sets: Mapping[str, Mapping], promised: float, titles: Mapping) -> str:
    """How often each model's set holds the true class, against the promise, and how large it is.

    sets: model -> core.metrics.conformal.evaluate_sets'.
    """
    parts = []
    for model, figures in sets.items():
        coverage, size = figures["patient_coverage"], figures["mean_size"]
        text = f"{titles[model]} {percent(coverage['value'])} "
        text += f"({range_text(coverage['low'], coverage['high'])}), naming {size['value']:.2f} "
        text += "classes on average"
        if coverage["high"] is not None and coverage["high"] < promised:
            text += ", less than promised"
        parts.append(text)
    return (
        f"Promised is that {percent(promised, 0)} of the sets hold the true class; "
        f"on test it is {'; '.join(parts)}."
    )


def coverage_rows(sets: Mapping[str, Mapping], class_names: Sequence[str]) -> pd.DataFrame:
    """model, group, value, low, high, n: what is promised first, then images and classes."""
    rows = []
    for model, figures in sets.items():
        groups = {"one image a patient": (figures["patient_coverage"], figures["n_patients"])}
        groups["all images"] = (figures["coverage"], figures["n"])
        groups |= {c: (figures["by_class"][c], figures["by_class"][c]["n"]) for c in class_names}
        rows += [
            (model, group, estimate["value"], estimate["low"], estimate["high"], n)
            for group, (estimate, n) in groups.items()
        ]
    table = pd.DataFrame(rows, columns=["model", "group", "value", "low", "high", "n"])
    numbers = ["value", "low", "high"]
    table[numbers] = table[numbers].astype(float)
    return table


# ------------------------------------------------------------------------------ tables


def curve_points(curves: Mapping[str, Mapping[str, Mapping[str, Curve]]]) -> pd.DataFrame:
    """model -> {"roc", "pr"} -> class -> Curve, as one long table of fractions."""
    parts = []
    for model, kinds in curves.items():
        for kind, by_class in kinds.items():
            for name, c in by_class.items():
                points = {"x": c.x, "y": c.y, "low": c.low, "high": c.high}
                parts.append(pd.DataFrame({"curve": kind, "model": model, "class": name} | points))
    columns = ["curve", "model", "class", "x", "y", "low", "high"]
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=columns)


def area_rows(curves: Mapping[str, Mapping[str, Mapping[str, Curve]]]) -> pd.DataFrame:
    """Every area with its interval (fractions): a row a model, class and curve."""
    rows = [
        (model, name, AREAS[kind], c.area, c.area_low, c.area_high, c.n, c.n_positive)
        for model, kinds in curves.items()
        for kind, by_class in kinds.items()
        for name, c in by_class.items()
    ]
    return pd.DataFrame(
        rows, columns=["model", "class", "area", "value", "low", "high", "n", "n_positive"]
    )


def prevalence_table(sensitivity: float, specificity: float) -> pd.DataFrame:
    """prevalence, ppv, npv (fractions) at one threshold, even steps of a logarithmic scale."""
    prevalence = np.geomspace(PREVALENCES[0], PREVALENCES[-1], 60)
    values = [at_prevalence(sensitivity, specificity, float(share)) for share in prevalence]
    ppv, npv = np.array(values, dtype=np.float64).T
    return pd.DataFrame({"prevalence": prevalence, "ppv": ppv, "npv": npv})
