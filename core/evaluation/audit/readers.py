"""Second readers: how often models, and the published labels, agree with radiologists.

Readers say what they see (an opacity, something not normal), not the label, so each comparison is
of one question with yes or no. Two questions can be asked of the classes normal and pneumonia:
whether there is an opacity (pneumonia is "yes"), and whether anything is not normal. A model says
yes where it predicts any class but normal. The share of images on which the label itself agrees
with the readers is an estimate of what a model of these labels can reach against readers, for the
images that were read: whoever chose them did not draw them at random.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    models{model: {n, of, label_agreement, questions{question: agreement}}}}}, unknown[readings that
    say nothing of the questions], sentence}; an agreement is {value, low, high, n}, its interval
    over drawn patients; label_agreement is of the model with the label on the same images.
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
    found = {}
    for question in QUESTIONS:
        answers = rows["reading"].str.strip().str.lower().map(lambda r, q=question: READINGS[r][q])
        told = answers.notna().to_numpy()
        if told.sum() >= MIN_N:
            same = (said != NORMAL)[told] == answers[told].astype(bool)
            found[question] = _agreement(same, rows["patient_id"][told], seed, draws)
    return found


def _agreement(same: pd.Series, patients: pd.Series, seed: int, draws: int) -> dict[str, Any]:
    marks = same.to_numpy(dtype=np.float64)
    sample = Sample(np.zeros(len(marks), dtype=int), patients.to_numpy(), [NORMAL], seed, draws)
    low, high = np.quantile(sample.drawn_shares(marks)[0], [0.025, 0.975])
    return {"value": float(marks.mean()), "low": float(low), "high": float(high), "n": len(marks)}


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
    wide = row["label"].get("abnormal") or row["label"].get("opacity")
    if not row["models"] or wide is None:
        return f"{said}."
    most = max(model["n"] for model in row["models"].values())
    answered = [m["label_agreement"] for m in row["models"].values() if m["n"] == most]
    best = max(answered, key=lambda agreement: agreement["value"])
    if best["low"] > wide["high"]:
        than = "more than the radiologists do"
    else:
        than = "less than the radiologists do" if best["high"] < wide["low"] else "about as often"
    return (
        f"{said}. On the images that were read, the label agrees with them in at most "
        f"{_text(wide)}; the model closest to the label agrees with it in {_text(best)} of {most}: "
        f"{than}."
    )


def _text(agreement: Mapping[str, Any]) -> str:
    return f"{percent(agreement['value'])} ({interval_text((agreement['low'], agreement['high']))})"
