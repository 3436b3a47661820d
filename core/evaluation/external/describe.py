"""External results in words: what they rest on, and lines for a terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from core.datasets.registry import KNOWN, Dataset, canonical_label
from core.evaluation.external.dataset import MODALITY_WORDS
from core.formatting import count, join, with_interval
from core.metrics.classification import COVID
from core.runs.run import Run

_LISTED = 10
_NAMES = {"accuracy": "accuracy", "balanced_accuracy": "balanced accuracy", "macro_f1": "macro-F1"}


def list_caveats(
    run: Run, dataset: Dataset, document: Mapping[str, Any], rows: pd.DataFrame
) -> list[str]:
    """Every reservation about a result, a sentence each: the set's own first.

    rows: the images that are scored (image_id, label, patient_id).
    """
    return [
        *_about_set(run, dataset),
        *_about_classes(document),
        *_about_findings(document),
        *_about_overlap(dataset, document["overlap"], rows),
        *_about_patients(rows),
    ]


def _about_set(run: Run, dataset: Dataset) -> list[str]:
    if dataset.name in KNOWN or dataset.modality == "phantom":
        return list(dataset.caveats)
    words = MODALITY_WORDS.get(run.modality, run.modality)
    return [
        f"Not a data set this project knows: its images are taken to be {words}, as the run's are."
    ]


def _about_classes(document: Mapping[str, Any]) -> list[str]:
    present, missing = document["classes_present"], document["classes_missing"]
    said = []
    if not document["labelled"]:
        said.append("The images have no labels: what they were called is counted, and no more.")
    elif len(present) == 1:
        said.append(
            f"All images are {present[0]}: how many of them are found is known, and nothing about "
            "false alarms."
        )
    elif missing:
        said.append(
            f"The set has no {join(missing, 'or')}: means are over {join(present)}, calls of "
            f"{join(missing, 'or')} are errors, and the run's own figures beside them are those "
            "of its test images of these classes."
        )
    extra = document["classes_extra"]
    if extra:
        said.append(
            f"{count(sum(extra.values()), 'image', '')} of classes that the run does not have "
            f"({_counts(extra)}) were left out: what the models would say to such images is not in "
            "these figures."
        )
    return said


def _about_findings(document: Mapping[str, Any]) -> list[str]:
    """Where the set's own record of findings contradicts the labels of what is left to score."""
    said = []
    totals: Counter[str] = Counter()
    others: dict[str, Counter[str]] = {}
    for finding, row in document["findings"].items():
        for label, n in row["labels"].items():
            totals[label] += n
            if canonical_label(finding) != label:
                others.setdefault(label, Counter())[finding] += n
    for label, counter in others.items():
        said.append(
            f"By the set's own record {sum(counter.values())} of {totals[label]} images scored as "
            f"{label} show something else: {_counts(counter)}."
        )
    return said


def _about_overlap(dataset: Dataset, overlap: Mapping[str, Any], rows: pd.DataFrame) -> list[str]:
    said = []
    copies, patients = overlap["learned"]["duplicate"], overlap["learned"]["same_patient"]
    if copies or patients:
        parts = [f"{copies} show a picture"] * bool(copies)
        parts += [f"{patients} show a patient"] * bool(patients)
        text = (
            f"{copies + patients} of {overlap['images']} images overlap with what the run learned "
            f"from and were left out: {join(parts)} of its train or val part."
        )
        if patients and dataset.name not in KNOWN:
            text += (
                " If the two sets merely number their patients alike, put the set's name before "
                "its patient_id."
            )
        said.append(text)
    if not overlap["own_compared"]:
        said.append(
            "The run's own images are not on this machine, so copies were looked for by file "
            "hashes only: re-encoded or cropped copies of what the run learned from may be among "
            "these images."
        )
    elif overlap["own_compared"] < overlap["own_images"]:
        said.append(
            f"{overlap['own_compared']} of the run's {overlap['own_images']} images are on this "
            "machine; copies of the others were looked for by file hashes only."
        )
    if overlap["own_compared"] and not overlap["by_features"]:
        said.append("So many pictures are compared as whole frames only: cropped copies may stay.")
    if overlap["test"]:
        ids = {match["image_id"] for match in overlap["test"]}
        labels = Counter(rows["label"][rows["image_id"].isin(ids)])
        listed = f" ({_counts(labels)})" if any(labels) else ""
        said.append(
            f"{count(len(ids), 'image', '')}{listed} with a picture or patient of the run's test "
            "part stay in: no model learned from them, but they are not new, and the two sides of "
            "a difference are not quite independent."
        )
    return said


def _about_patients(rows: pd.DataFrame) -> list[str]:
    unknown = int(rows["patient_id"].str.startswith("image:").sum())
    if not unknown:
        return []
    whose = "every image" if unknown == len(rows) else f"{unknown} of {len(rows)} images"
    return [
        f"The patient of {whose} is not known: each such image counts as a patient, so intervals "
        "may be too narrow and shared patients cannot be seen."
    ]


def external_lines(run: Run, document: Mapping[str, Any]) -> list[str]:
    """What `evaluate` says of an external set, the in-domain figures beside those on it."""
    labels = join(document["classes_present"]) if document["labelled"] else "without labels"
    lines = [
        f"{document['title']}: scored on {document['n']} images of {document['n_patients']} "
        f"patients ({labels})."
    ]
    for model, figures in document["models"].items():
        lines.append(f"{run.title(model)} calls {_counts(figures['called'])}.")
        for key, row in document["drop"].get(model, {}).items():
            lines.append(f"  {_name(key)} {_row_words(row)}")
        lines += _finding_lines(run, model, document["findings"])
        inflated = document["with_overlap"].get(model)
        if inflated:
            lines.append(
                f"  with what overlaps left in, accuracy would read "
                f"{_share(inflated['accuracy'], inflated['low'], inflated['high'])}, "
                f"n = {inflated['n']}"
            )
    lines += excluded_lines([*document["excluded"], *document["skipped"]])
    return lines + [f"note: {caveat}" for caveat in document["caveats"]]


def _finding_lines(run: Run, model: str, findings: Mapping[str, Any]) -> list[str]:
    """How many of each recorded finding are called covid."""
    if COVID not in run.class_names or not findings:
        return []
    shown = [
        f"{row['called'][model][COVID]} of {row['n']} {finding}"
        for finding, row in findings.items()
    ]
    return [f"  called {COVID}, by what the set records: {', '.join(shown)}"]


def excluded_lines(excluded: Sequence[Mapping[str, Any]]) -> list[str]:
    """The first few that were left out, with the reason, and how many more there are."""
    lines = [
        f"left out: {entry.get('image_id', entry.get('path'))}: {entry['reason']}"
        for entry in excluded[:_LISTED]
    ]
    more = len(excluded) - _LISTED
    return lines + ([f"left out: {more} more (--json names them all)"] if more > 0 else [])


def _row_words(row: Mapping[str, Any]) -> str:
    there = _share(row["external"], row["external_low"], row["external_high"])
    here = _share(row["internal"], row["internal_low"], row["internal_high"])
    text = f"{there}, own test images {here}, difference {100 * row['difference']:+.1f}"
    if row["low"] is None:
        return f"{text} (no interval)"
    return f"{text} ({100 * row['low']:+.1f} to {100 * row['high']:+.1f})"


def _share(value: float, low: float | None, high: float | None) -> str:
    return with_interval(value, (low, high), unit="%")


def _name(key: str) -> str:
    return _NAMES.get(key) or f"{key.removeprefix('recall.')} found"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in counts.items())
