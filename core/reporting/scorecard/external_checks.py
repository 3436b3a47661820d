"""The check on images from elsewhere: do the run's own figures hold there?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.formatting import interval_text, join, percent, with_interval
from core.reporting.scorecard.base import (
    FAILED,
    NOT_DONE,
    PASSED,
    POINTS,
    TOLERANCE,
    Check,
    Evidence,
    external_command,
    judge_models,
    shown,
    value_or,
)

CLASS_IMAGES = 10  # fewer images of a class than these say nothing either way


def check_external(evidence: Evidence) -> Check:
    """Whether figures hold on images from elsewhere."""
    title = "External validation"
    rule = (
        "Passes when images from elsewhere, with every class of the run and at least "
        f"{CLASS_IMAGES} of each, were scored, and macro-F1 there is at most {POINTS} lower than "
        "on the own test images, the worse end of the 95\u202f% interval counted. With some "
        "classes only it is not done; it fails also then, where a sensitivity is lower than on the "
        "own test images and the interval of the difference leaves out 0."
    )
    command = external_command(evidence.run)
    if not evidence.external:
        sentence = "No images from elsewhere were scored."
        return Check("external", title, NOT_DONE, sentence, rule, "trust", "", command=command)
    sets = list(evidence.external.values())
    judged = [_judge_set(evidence, doc) for doc in sets]
    statuses = [one["status"] for one in judged]
    status = _over_sets(statuses)
    models = {m: _over_sets([one["models"][m] for one in judged]) for m in evidence.run.models}
    figures = {
        m: " ".join(
            f"{doc['title']}: {one['figures'][m]}." for doc, one in zip(sets, judged, strict=True)
        )
        for m in evidence.run.models
    }
    return Check(
        "external",
        title,
        status,
        _sets_sentence(sets, judged, status),
        rule,
        "trust",
        "results do not hold on images from other hospitals",
        models,
        figures,
        command if status == NOT_DONE else "",
    )


def _sets_sentence(
    sets: Sequence[Mapping[str, Any]], judged: Sequence[Mapping[str, Any]], status: str
) -> str:
    """The sets that decide speak, the others are named."""
    speaking = [one["sentence"] for one in judged if one["status"] == status]
    others = [
        f"{doc['title']} ({one['status']})"
        for doc, one in zip(sets, judged, strict=True)
        if one["status"] != status
    ]
    return " ".join(speaking) + (f" Scored too: {join(others)}." if others else "")


def _over_sets(statuses: list[str]) -> str:
    """One set that shows it is enough, unless another shows the contrary."""
    if FAILED in statuses:
        return FAILED
    return PASSED if PASSED in statuses else NOT_DONE


def _judge_set(evidence: Evidence, doc: Mapping[str, Any]) -> dict[str, Any]:
    """status, sentence and models for one set from elsewhere."""
    name = f"{doc['title']}, n = {doc['n']}"
    if not doc.get("labelled", True):
        unlabelled = (NOT_DONE, "answers, but no truth to hold them against")
        return judge_models(evidence, dict.fromkeys(doc["models"], unlabelled), name)
    found = {}
    for model, far in doc["models"].items():
        fall = macro_f1_fall(doc, model)
        if doc["classes_missing"] or fall is None:
            found[model] = _one_sided(evidence.metrics.get(model), far, doc, model)
            continue
        few = [c for c, row in far.get("per_class", {}).items() if _few(row)]
        words = (
            f"macro-F1 {percent(fall['external'])} after {percent(fall['internal'])}, "
            f"{fall_text(fall)}"
        )
        if few:
            found[model] = (NOT_DONE, f"{words}, with fewer than {CLASS_IMAGES} of {join(few)}")
        else:
            found[model] = (shown(value_or(fall["high"], 1) <= TOLERANCE), words)
    return judge_models(evidence, found, name)


def _few(row: Mapping[str, Any]) -> bool:
    return (row.get("support") or 0) < CLASS_IMAGES


def _one_sided(
    own: Mapping[str, Any] | None, far: Mapping[str, Any], doc: Mapping[str, Any], model: str
) -> tuple[str, str]:
    """What sensitivities tell where classes are missing; the worst class speaks."""
    rows = []
    for name in doc["classes_present"]:
        there = far.get("per_class", {}).get(name, {}).get("recall")
        home = ((own or {}).get("per_class", {}).get(name) or {}).get("recall")
        if there is None or home is None:
            continue
        bounds = far.get("intervals", {}).get(f"recall.{name}")
        fall = macro_f1_fall(doc, model, f"recall.{name}")
        below = fall is not None and value_or(fall["low"], -1) > 0
        words = f"{name} found {with_interval(there, bounds)} after {percent(home)}"
        rows.append((FAILED if below else NOT_DONE, there - home, words))
    if not rows:
        return NOT_DONE, "no figure there"
    status, _, words = min(rows, key=lambda row: (row[0] != FAILED, row[1]))
    missing = join(doc["classes_missing"])
    return status, words + (f", without {missing}" if missing else "")


def macro_f1_fall(doc: Mapping[str, Any], model: str, key: str = "macro_f1") -> dict | None:
    """{internal, external, fall, low, high, home, there}: how much lower macro-F1 is elsewhere.

    key: any of the file's `drop`, such as recall.covid. `low` and `high` have the direction of
    `fall` (internal less external), whichever the file's difference has; home and there are the
    two sides' own {low, high}, None where the set has none.
    """
    row = ((doc.get("drop") or {}).get(model) or {}).get(key)
    if not row:
        return None
    fall = row["internal"] - row["external"]
    low, high = row["low"], row["high"]
    if abs(row["difference"] - fall) > abs(row["difference"] + fall):
        low, high = (None if end is None else -end for end in (high, low))
    sides = {
        name: {end: row.get(f"{side}_{end}") for end in ("low", "high")}
        for name, side in (("home", "internal"), ("there", "external"))
    }
    return {
        "internal": row["internal"],
        "external": row["external"],
        "fall": fall,
        "low": low,
        "high": high,
        **sides,
    }


def fall_text(fall: Mapping[str, Any]) -> str:
    """ "12.3 points lower (4.1 to 20.0)"."""
    low, high, word = fall["low"], fall["high"], "lower"
    if fall["fall"] < 0:
        low, high = (None if end is None else -end for end in (high, low))
        word = "higher"
    bounds = interval_text({"low": low, "high": high})
    return f"{100 * abs(fall['fall']):.1f} points {word} ({bounds})"
