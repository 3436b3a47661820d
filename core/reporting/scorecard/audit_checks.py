"""Checks on what was added to the run: its audit and the images from elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.datasets.leakage import leak_sentence
from core.evaluation.audit.blackout import NO_BOX
from core.formatting import count, join, percent, with_interval
from core.reporting.scorecard.base import (
    FAILED,
    NOT_DONE,
    PASSED,
    POINTS,
    TOLERANCE,
    Check,
    Evidence,
    audit_command,
    judge_models,
    shown,
    value_or,
)

PAGE = "trust"
HALF = 0.5
PROBE_PATIENTS = 10  # fewer say nothing either way
NO_AUDIT = "No audit of this run was made."


def _not_audited(
    evidence: Evidence, key: str, title: str, rule: str, why: str = "", masks: bool = False
) -> Check:
    sentence = NO_AUDIT if evidence.audit is None else f"The audit left this out.{why}"
    command = audit_command(evidence.run, masks=masks)
    return Check(key, title, NOT_DONE, sentence, rule, PAGE, "", command=command)


# ------------------------------------------------------------------------------ leakage


def check_leakage(evidence: Evidence) -> Check:
    """Whether test images, copies of them or their patients were trained on."""
    title = "Leakage"
    rule = (
        "Passes when the audit compared every image of the run and found no copy, exact or near, "
        "and no patient in more than one of train, validation and test. A patient or an equal "
        "file on both sides fails also without an audit."
    )
    section, split = evidence.section("leakage"), evidence.split
    trained = leak_sentence(evidence.run.info.get("leakage"))
    fault = "test images, or copies of them, were trained on"
    command = ""
    if trained or split["images"]:
        status, sentence = FAILED, trained or leak_sentence(split)
    elif section is None:
        return _not_audited(evidence, "leakage", title, rule)
    elif section["status"] != "clean":
        status, sentence = FAILED, section.get("sentence") or _crossing_text(section)
    elif not evidence.n_test and "near_duplicates" not in evidence.run.info:
        status, command = NOT_DONE, audit_command(evidence.run)
        sentence = "The images were not there to be compared, so near copies were not looked for."
    elif sum(section["checked"].values()) < len(evidence.manifest):
        status, command = NOT_DONE, audit_command(evidence.run)
        sentence = (
            f"The audit looked at {sum(section['checked'].values()):,} of "
            f"{len(evidence.manifest):,} images."
        )
    else:
        status = PASSED
        others = sum(n for part, n in section["checked"].items() if part != "test")
        sentence = (
            f"None of {section['checked'].get('test', 0):,} test images has a copy among the "
            f"{others:,} others, exact or near, or shares a patient with them."
        )
        if split["unknown_patients"]:
            sentence += f" The patient of {count(split['unknown_patients'], 'image')} is not known."
    return Check("leakage", title, status, sentence, rule, PAGE, fault, command=command)


def crossing(pairs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The pairs whose two images stand in different parts."""
    return [pair for pair in pairs if pair["split_a"] != pair["split_b"]]


def _crossing_text(section: Mapping[str, Any]) -> str:
    parts = [
        f"{count(len(crossing(section[kind])), 'pair')} of {kind} copies across parts"
        for kind in ("exact", "near")
        if crossing(section[kind])
    ]
    parts += [
        f"{count(found['patients'], 'patient')} in both {' and '.join(pair.split('/'))} "
        f"({count(found['images'], 'image')})"
        for pair, found in section["shared_patients"].items()
        if found["images"]
    ]
    return f"Found: {join(parts)}." if parts else "The audit found that parts share images."


# ------------------------------------------------------------------------------ shortcuts


def check_blackout(evidence: Evidence) -> Check:
    """Whether models still tell the classes apart with the lungs hidden."""
    title = "Blackout test"
    rule = (
        "Passes when, with the lungs hidden, a model keeps less than half of its gain above "
        "always naming the most frequent class, with each kind of fill, the upper end of the "
        "95\u202f% interval counted."
    )
    section = evidence.section("blackout")
    if section is None and evidence.run.modality == "ct":
        return _not_audited(evidence, "blackout", title, rule, f" {NO_BOX}", masks=True)
    if section is None:
        return _not_audited(evidence, "blackout", title, rule)
    found = {}
    for model, row in section["models"].items():
        # The fill with which most is kept decides, and is the one that is told.
        masked = row["without_lungs"].values()
        worst = max(masked, key=lambda m: value_or(m["kept"]["share"], -9), default=None)
        if worst is None or worst["kept"]["share"] is None:
            found[model] = (NOT_DONE, "no gain on whole images, so nothing to keep")
            continue
        ends = [value_or(one["kept"]["high"], 9) for one in masked]
        words = (
            f"{with_interval(worst['kept']['share'], worst['kept'])} of the gain, accuracy "
            f"{with_interval(worst['accuracy'], worst)} after {percent(row['full']['accuracy'])}"
        )
        found[model] = (shown(max(ends) < HALF), words)
    lead = f"Kept without lungs, with the fill that keeps more (n = {section['n']} test images)"
    return Check(
        "blackout",
        title,
        rule=rule,
        page=PAGE,
        fault="predictions may not need the lungs",
        **judge_models(evidence, found, lead),
    )


def check_probe(evidence: Evidence) -> Check:
    """Whether other diseases from the target's own collection are called so."""
    target = evidence.target
    title = "Source probe"
    rule = (
        f"Images of other diseases from the {target} images' own collection are shown. Passes "
        f"when at most half of them are called {target}, the upper end of the 95\u202f% interval "
        "counted, and its lower end is no higher than the share of the run's own test images of "
        f"other diseases that are called so; not done with fewer than {PROBE_PATIENTS} patients."
    )
    section = evidence.section("probe")
    if section is None:
        check = _not_audited(evidence, "probe", title, rule)
        why = NO_AUDIT if evidence.audit is None else "The audit was given no such images."
        command = audit_command(evidence.run, probe=True)
        return Check(check.key, title, NOT_DONE, why, rule, PAGE, "", command=command)
    found, thin = {}, section["n_patients"] < PROBE_PATIENTS
    for model, row in section["models"].items():
        called = row["covid"]
        alarms, whose = false_alarms(row, evidence.metrics.get(model), target)
        words = f"{called['n']}, {with_interval(called['share'], called)}"
        if alarms is not None:
            words += f", against {percent(alarms)} of {whose}"
        status = shown(
            value_or(called["high"], 1) <= HALF
            and value_or(called["low"], 1) <= value_or(alarms, 0)
        )
        found[model] = (NOT_DONE if thin else status, words)
    lead = (
        f"Called {target}, of {count(section['n'], 'image')} of "
        f"{count(section['n_patients'], 'patient')} with another disease"
    )
    return Check(
        "probe",
        title,
        rule=rule,
        page=PAGE,
        fault="models may recognise the source of an image, not the disease",
        command=audit_command(evidence.run, probe=True) if thin else "",
        **judge_models(evidence, found, lead),
    )


def false_alarms(
    row: Mapping[str, Any], metrics: Mapping[str, Any] | None, target: str
) -> tuple[float | None, str]:
    """Share of the run's own test images that a model calls `target` wrongly, and of which.

    Of those with another disease where the audit has them apart, else of all other classes.
    """
    own = row.get("own")
    if own and own.get("share") is not None:
        return own["share"], "the test images of other diseases"
    rates = (metrics or {}).get("per_class", {}).get(target)
    return (None if rates is None else 1 - rates["specificity"]), "the other test images"


# ------------------------------------------------------------------------------ stability


def check_perturbation(evidence: Evidence) -> Check:
    """Whether mild changes of an image change what models predict."""
    title = "Stability"
    rule = (
        "Passes when the mildest change of every kind (brightness, contrast, noise, blur, JPEG, "
        f"rotation, shift; on each side of the unaltered image) costs at most {POINTS} of "
        "accuracy, the lower end of the 95\u202f% interval counted. Stronger changes are shown, "
        "not judged."
    )
    section = evidence.section("perturbation")
    if section is None:
        return _not_audited(evidence, "perturbation", title, rule)
    kinds, found = section["kinds"], {}
    for model, row in section["models"].items():
        base = row["baseline"]["accuracy"]
        mild = [
            (kind, point)
            for kind, points in row["curves"].items()
            if kind in kinds
            for point in mildest(points, kinds[kind]["neutral"])
        ]
        if not mild:
            found[model] = (NOT_DONE, "no altered image was shown")
            continue
        kind, worst = min(mild, key=lambda item: value_or(item[1]["low"], -1))
        words = (
            f"{with_interval(worst['accuracy'], worst)} after {percent(base)} "
            f"({kinds[kind]['title'].lower()} {worst['strength']:g})"
        )
        found[model] = (shown(value_or(worst["low"], -1) >= base - TOLERANCE), words)
    lead = f"Accuracy under the mild change that is worst (n = {evidence.n_test})"
    return Check(
        "perturbation",
        title,
        rule=rule,
        page=PAGE,
        fault="a slight change of an image may change the prediction",
        **judge_models(evidence, found, lead),
    )


def mildest(points: list[dict[str, Any]], neutral: float) -> list[dict[str, Any]]:
    """The point next to the unaltered image, on each side of it."""
    below = [p for p in points if p["strength"] < neutral]
    above = [p for p in points if p["strength"] > neutral]
    ends = [max(below, key=lambda p: p["strength"])] if below else []
    return ends + ([min(above, key=lambda p: p["strength"])] if above else [])


# ------------------------------------------------------------------------------ subgroups


def check_subgroups(evidence: Evidence) -> Check:
    """Whether some group of patients fares worse than all together."""
    section = evidence.section("subgroups")
    fewest = section["min_n"] if section else 0
    title = "Subgroups"
    rule = (
        "Passes when no group of images that is large enough lies, with its whole 95\u202f% "
        "interval, below the model's figure over all test images: accuracy, or the sensitivity "
        "for each class where the column gives the class away. Of many groups one may do so by "
        "chance."
    )
    if section is None:
        return _not_audited(evidence, "subgroups", title, rule)
    asked = _large_groups(section)
    n_groups = sum(len(groups) for groups in asked.values())
    if not n_groups:
        sentence = f"No column of the data set has two groups of {fewest} or more test patients."
        return Check("subgroups", title, NOT_DONE, sentence, rule, PAGE, "")
    found = {}
    for model in evidence.run.models:
        if not any(model in g["models"] for groups in asked.values() for g in groups):
            continue
        low = [
            f"{column}: {words}"
            for column, groups in asked.items()
            for group in groups
            for words in _behind(evidence.metrics.get(model), group, model, fewest)
        ]
        more = f" and {len(low) - 2} more" if len(low) > 2 else ""
        words = f"behind in {'; '.join(low[:2])}{more}" if low else "behind in none"
        found[model] = (shown(not low), words)
    small = sum(len(c["groups"]) for c in section["columns"]) - n_groups
    lead = f"{count(n_groups, 'group')} by {join(c.lower() for c in asked)}"
    lead += f", {small} more too small to judge" if small else ""
    return Check(
        "subgroups",
        title,
        rule=rule,
        page=PAGE,
        fault="some groups of patients fare worse",
        **judge_models(evidence, found, lead),
    )


def _large_groups(section: Mapping[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Column's title -> its groups that are large enough, where there are two or more."""
    large = {
        column["title"]: [group for group in column["groups"] if not group.get("small")]
        for column in section["columns"]
    }
    return {title: groups for title, groups in large.items() if len(groups) > 1}


def _behind(
    metrics: Mapping[str, Any] | None, group: Mapping[str, Any], model: str, fewest: int
) -> list[str]:
    """Each figure of the group whose interval lies wholly below the model's over all images."""
    row = group["models"].get(model)
    if row is None or metrics is None:
        return []
    figures = [("accuracy", row["accuracy"], metrics["accuracy"])]
    if row["accuracy"] is None:
        figures = [
            (f"sensitivity for {name}", figure, metrics["per_class"][name]["recall"])
            for name, figure in row["sensitivity"].items()
            if name in metrics["per_class"] and figure["n_patients"] >= fewest
        ]
    return [
        f"{group['value']}, {what} {with_interval(figure['value'], figure)} of n = "
        f"{figure.get('n', group['n'])} against {percent(whole)}"
        for what, figure, whole in figures
        if figure and figure["high"] is not None and figure["high"] < whole
    ]
