"""What the notebooks claimed, and whether it held up under this project's protocol.

Only claims that are known to this project are here: of the notebooks' other models no figure is,
so nothing is said to have held up or not. Each rule is stated in words beside its verdict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.formatting import interval_text, percent, points
from core.models.names import PARTIAL, init_title
from core.reporting.leaderboard.ranking import (
    Entry,
    Protocol,
    TestPredictions,
    load_test_predictions,
    paired_difference,
)
from core.runs import artifacts

HELD_UP, NOT_HELD_UP, CANNOT_TELL = "held up", "did not hold up", "cannot be told"
HALF = 0.5
# An interval wider than this fits 40 % as well as 60 % and so says nothing of "about 50 %".
WIDEST = 0.2


@dataclass(frozen=True)
class Claim:
    """models: what it is judged on, each alone (one name) or as a pair (first less second)."""

    key: str
    text: str
    models: tuple[tuple[str, ...], ...]
    rule: str


CLAIMS = (
    Claim(
        "fnn_half",
        "A dense network on flattened pixels reaches about 50 % whatever is tried: augmentation, "
        "weight decay, dropout, early stopping, an ensemble of five",
        (("fnn",), ("fnn_remedies",), ("fnn_ensemble",)),
        "Held up: the 95 % interval of accuracy contains 50 % and is no wider than 20 points. "
        "Did not hold up: it leaves 50 % out. Cannot be told: it contains 50 % but is wider.",
    ),
    Claim(
        "no_dropout",
        "Removing dropout from the two added layers of a frozen ResNet50 helps",
        (
            ("resnet50_frozen", "resnet50_frozen_dropout"),
            ("mobilenetv2_frozen", "mobilenetv2_frozen_dropout"),
        ),
        "Macro-F1 without dropout less macro-F1 with it, over the same drawn patients. Held up: "
        "the 95 % interval lies above 0. Did not hold up: below 0. Cannot be told: it contains 0. "
        "The claim was made of ResNet50; MobileNetV2 stands beside it.",
    ),
)
UNKNOWN = (
    "What the notebooks reported of the other models is not known to this project, so nothing is "
    "judged there."
)


@dataclass(frozen=True)
class ClaimResult:
    """One claim on one model or pair. value, low, high: fractions, None where not measured.

    subject, measured, note: words; verdict: HELD_UP, NOT_HELD_UP or CANNOT_TELL.
    """

    claim: Claim
    subject: str
    measured: str
    verdict: str
    note: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None


def judge_claims(
    protocol: Protocol, predictions: TestPredictions | None = None
) -> list[ClaimResult]:
    """Every claim on every model it is about, those that were not trained included.

    Raises what core.reporting.leaderboard.ranking.load_test_predictions raises.
    """
    predictions = predictions or load_test_predictions(protocol)
    results = []
    for claim in CLAIMS:
        for models in claim.models:
            found = _find(protocol, models)
            if not found:
                subject = " less ".join(models)
                results.append(
                    ClaimResult(claim, subject, "not trained under this protocol", CANNOT_TELL)
                )
            for entries in found:
                judge = _judge_half if len(entries) == 1 else _judge_difference
                results.append(judge(protocol, predictions, claim, *entries))
    return results


def judge_half(low: float | None, high: float | None) -> str:
    """The verdict on "about 50 %" by the interval of an accuracy, fractions."""
    if low is None or high is None:
        return CANNOT_TELL
    if not low <= HALF <= high:
        return NOT_HELD_UP
    return HELD_UP if high - low <= WIDEST else CANNOT_TELL


def judge_difference(low: float, high: float) -> str:
    """The verdict on "helps" by the interval of a difference."""
    if low <= 0 <= high:
        return CANNOT_TELL
    return HELD_UP if low > 0 else NOT_HELD_UP


def _find(protocol: Protocol, models: tuple[str, ...]) -> list[tuple[Entry, ...]]:
    """The models in each run that has them all; else each from the first run that has it."""
    whole = [run for run in protocol.runs if set(models) <= set(run.models)]
    if whole:
        return [tuple((run.name, model) for model in models) for run in whole]
    each = [next((e for e in protocol.entries if e[1] == model), None) for model in models]
    found = [entry for entry in each if entry is not None]
    return [tuple(found)] if len(found) == len(models) else []


def _judge_half(
    protocol: Protocol, predictions: TestPredictions, claim: Claim, entry: Entry
) -> ClaimResult:
    run = protocol.run(entry[0])
    metrics = artifacts.load_metrics(run, entry[1])
    bounds: Mapping[str, Any] = metrics["intervals"].get("accuracy") or {}
    low, high = bounds.get("low"), bounds.get("high")
    measured = f"accuracy {percent(metrics['accuracy'])}"
    if low is not None:
        measured += f" ({interval_text((low, high))})"
    note = _chance_text(protocol, predictions.truth)
    plain = (entry[0], "fnn")
    if entry != plain and plain in predictions.place:
        change, *ends, _ = paired_difference(predictions, entry, plain, "accuracy")
        between = f"{points(ends[0])} to {points(ends[1])}"
        measured += f"; {points(change)} points ({between}) over the plain one"
    return ClaimResult(
        claim,
        protocol.label(entry),
        measured,
        judge_half(low, high),
        note,
        float(metrics["accuracy"]),
        low,
        high,
    )


def _chance_text(protocol: Protocol, truth: np.ndarray) -> str:
    """What 50 % has to be held against: it means another thing of two classes than of three."""
    counts = np.bincount(truth, minlength=len(protocol.class_names))
    most = int(counts.argmax())
    return (
        f"Of {len(counts)} classes: guessing reaches {percent(1 / len(counts))}, always answering "
        f"{protocol.class_names[most]} {percent(counts[most] / counts.sum())}"
    )


def _judge_difference(
    protocol: Protocol, predictions: TestPredictions, claim: Claim, without: Entry, with_it: Entry
) -> ClaimResult:
    change, low, high, _ = paired_difference(predictions, without, with_it, "macro_f1")
    each = [
        f"{protocol.label(e)} {percent(predictions.estimates['macro_f1'][predictions.place[e]])}"
        for e in (without, with_it)
    ]
    inits = [_init_text(protocol, entry) for entry in (without, with_it)]
    note = f"Both {inits[0]}" if inits[0] == inits[1] else f"{inits[0]} against {inits[1]}"
    return ClaimResult(
        claim,
        " less ".join(protocol.label(entry) for entry in (without, with_it)),
        f"macro-F1 {points(change)} points ({points(low)} to {points(high)}): {each[0]}, {each[1]}",
        judge_difference(low, high),
        f"{note}; one training each, so the chance of training is not in the interval",
        change,
        low,
        high,
    )


def _init_text(protocol: Protocol, entry: Entry) -> str:
    init = str(protocol.run(entry[0]).info.get("init", {}).get(entry[1], ""))
    if init.startswith(PARTIAL):
        return f"from {init_title(init)}"
    words = {"imagenet": "from ImageNet weights", "random": "from random weights"}
    return words.get(init, f"from weights of {init.removeprefix('file:') or 'unstated origin'}")
