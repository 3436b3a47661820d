"""Second readers: how often models, and the published labels, agree with radiologists.

Readers say what they see (an opacity, something not normal), not the label, so each comparison is
of one question with yes or no. Two questions can be asked of the classes normal and pneumonia:
whether there is an opacity (pneumonia is "yes"), and whether anything is not normal. A model says
yes where it predicts any class but normal. The share of images on which the label itself agrees
with the readers is an estimate of what a model of these labels can reach against readers, for the
images that were read: whoever chose them did not draw them at random.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd

from core.evaluation.sample import DRAWS, Sample
from core.formatting import interval_text, percent

NORMAL = "normal"
JUDGED = ("normal", "pneumonia")
MIN_N = 20  # images of one question, below which nothing is said
# Reading, in small letters -> whether it says yes to each question; None where it cannot tell.
READINGS: dict[str, dict[str, bool | None]] = {
    "lung opacity": {"opacity": True, "abnormal": True},
    "no lung opacity / not normal": {"opacity": False, "abnormal": True},
    "normal": {"opacity": False, "abnormal": False},
    "airspace opacity": {"opacity": True, "abnormal": True},
    "no airspace opacity": {"opacity": False, "abnormal": None},
}
QUESTIONS = {
    "opacity": "the readers saw an opacity",
    "abnormal": "the readers saw anything not normal",
}
OUT_OF_FOLD, TEST = "out of fold", "test"


def measure_readers(
    readings: pd.DataFrame,
    manifest: pd.DataFrame,
    predictions: Mapping[str, pd.DataFrame],
    seed: int,
    *,
    draws: int = DRAWS,
) -> dict[str, Any] | None:
    """The audit's section `readers`, None where no image of the run was read.

    readings: image_id, reader, reading (core.datasets.extra_tables); manifest of the run;
    predictions: model -> its out-of-fold predictions, or those of the test split.

    Returns {readers{reader: {n, counts{label: {reading: n}}, label{question: agreement},
    models{model: {n, of, label_agreement, questions{question: agreement}, gap{question:
    difference}}}}}, unknown[readings that
    say nothing of the questions], sentence}; an agreement is {value, low, high, n}, its interval
    over drawn patients; label_agreement is of the model with the label on the same images, and gap
    how much larger it is than the label's agreement with the readers there.
    """
    known = manifest[manifest["label"].isin(JUDGED)][["image_id", "label", "patient_id"]]
    table = readings.merge(known, on="image_id")
    if table.empty:
        return None
    words = table["reading"].str.strip().str.lower()
    found = {}
    for reader, rows in table[words.isin(list(READINGS))].groupby("reader", sort=True):
        found[str(reader)] = _judge_reader(rows, predictions, seed, draws)
    return {
        "readers": found,
        "unknown": sorted(set(table["reading"][~words.isin(list(READINGS))])),
        "sentence": _sentence(found),
    }


def _judge_reader(
    rows: pd.DataFrame, predictions: Mapping[str, pd.DataFrame], seed: int, draws: int
) -> dict[str, Any]:
    counts = pd.crosstab(rows["label"], rows["reading"])
    models = {}
    for model, table in predictions.items():
        answered = rows.merge(table[["image_id", "predicted", "fold"]], on="image_id")
        if answered.empty:
            continue
        right = answered["predicted"] == answered["label"]
        models[model] = {
            "n": len(answered),
            "of": OUT_OF_FOLD if (answered["fold"].astype(str) != "").all() else TEST,
            "label_agreement": _agreement(right, answered["patient_id"], seed, draws),
            "questions": _ask(answered, answered["predicted"], seed, draws),
            "gap": _gaps(answered, right, seed, draws),
        }
    return {
        "n": len(rows),
        "counts": {str(k): {str(r): int(n) for r, n in v.items()} for k, v in _nested(counts)},
        "label": _ask(rows, rows["label"], seed, draws),
        "models": models,
    }


def _nested(counts: pd.DataFrame):
    return ((label, row.to_dict()) for label, row in counts.iterrows())


def _ask(rows: pd.DataFrame, said: pd.Series, seed: int, draws: int) -> dict[str, Any]:
    """Each question that enough readings answer: how often `said` (labels) agrees."""
    return {
        question: _agreement(same, rows["patient_id"][told], seed, draws)
        for question, told, same in _answers(rows, said)
    }


def _gaps(rows: pd.DataFrame, right: pd.Series, seed: int, draws: int) -> dict[str, Any]:
    """By how much a model agrees with the label more often than the readers do, image by image."""
    return {
        question: _agreement(right[told], rows["patient_id"][told], seed, draws, same)
        for question, told, same in _answers(rows, rows["label"])
    }


def _answers(rows: pd.DataFrame, said: pd.Series) -> Iterator[tuple[str, np.ndarray, pd.Series]]:
    """Each question, the rows (n,) whose reading answers it, and on which of them `said` agrees."""
    for question in QUESTIONS:
        answers = rows["reading"].str.strip().str.lower().map(lambda r, q=question: READINGS[r][q])
        told = answers.notna().to_numpy()
        if told.sum() >= MIN_N:
            yield question, told, (said != NORMAL)[told] == answers[told].astype(bool)


def _agreement(
    same: pd.Series, patients: pd.Series, seed: int, draws: int, less: pd.Series | None = None
) -> dict[str, Any]:
    """Share of `same`, less that of `less` on the same images where there is one."""
    marks = [x.to_numpy(dtype=np.float64) for x in (same, less) if x is not None]
    n = len(marks[0])
    sample = Sample(np.zeros(n, dtype=int), patients.to_numpy(), [NORMAL], seed, draws)
    drawn, value = sample.drawn_shares(*marks), marks[0].mean()
    if less is not None:
        drawn, value = drawn[:1] - drawn[1:], value - marks[1].mean()
    low, high = np.quantile(drawn[0], [0.025, 0.975])
    return {"value": float(value), "low": float(low), "high": float(high), "n": n}


def _sentence(readers: Mapping[str, Mapping[str, Any]]) -> str:
    """What a stakeholder should know, about the reader who read most."""
    if not readers:
        return "No reading says whether there is an opacity."
    reader, row = max(readers.items(), key=lambda item: item[1]["n"])
    pneumonia = row["counts"].get("pneumonia", {})
    n = sum(pneumonia.values())
    seen = sum(
        k for reading, k in pneumonia.items() if READINGS[reading.strip().lower()]["opacity"]
    )
    said = f"{reader} read no image labelled pneumonia"
    if n:
        said = (
            f"{reader}: radiologists saw an opacity in {percent(seen / n)} of the {n} images "
            "labelled pneumonia that they read"
        )
    question = "abnormal" if "abnormal" in row["label"] else "opacity"
    # A model that answered about fewer images is no match for all readings.
    whole = [m for m in row["models"].values() if m["n"] == row["n"] and question in m["gap"]]
    if not whole:
        return f"{said}."
    best = max(whole, key=lambda model: model["label_agreement"]["value"])
    gap, than = best["gap"][question], "about as often as"
    if gap["low"] > 0 or gap["high"] < 0:
        than = "more than" if gap["low"] > 0 else "less than"
    return (
        f"{said}. The label agrees with them in at most {_text(row['label'][question])} of the "
        f"images that they read; the closest model agrees with the label in "
        f"{_text(best['label_agreement'])}: {than} the radiologists do."
    )


def _text(agreement: Mapping[str, Any]) -> str:
    return f"{percent(agreement['value'])} ({interval_text((agreement['low'], agreement['high']))})"
