"""What the page Labels shows of second readers and doubtful labels: tables and sentences.

No Streamlit. Sentences are plain text with names from files in them; a page escapes them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd

from core.evaluation.audit.readers import READINGS, TEST
from core.formatting import count, percent, with_interval

PUBLISHED = ""  # stands for the published label where a model's name would
PUBLISHED_TITLE = "Published label"
QUESTIONS = {"opacity": "saw an opacity", "abnormal": "saw anything not normal"}
POINT_COLUMNS = ["question", "model", "value", "low", "high", "n", "test_only"]
QUEUE_COLUMNS = ["image_id", "label", "suggested", "quality", "verdict", "at"]
PNEUMONIA = "pneumonia"
# What the filter by verdict takes -> its name for people.
ANY, NOT_GIVEN, GIVEN = "any", "not given", "given"
NO_BETTER = (
    "Leaving doubtful labels out leaves out the very images that the models get wrong, so these "
    "scores rise by construction and are no better estimate of anything."
)


# ------------------------------------------------------------------------------ second readers


def agreement_points(reader: Mapping[str, Any], models: Collection[str]) -> pd.DataFrame:
    """How often the published label and each model agree with a reader, by question.

    POINT_COLUMNS, fractions; the label's rows (model PUBLISHED) come first in each question.
    test_only: the model's answers are of the test split, not of every image that was read.
    """
    rows: list[tuple] = []
    for question in QUESTIONS:
        sources = [(PUBLISHED, False, reader["label"])]
        sources += [
            (model, found["of"] == TEST, found["questions"])
            for model, found in reader["models"].items()
            if model in models
        ]
        for model, test_only, answers in sources:
            agreement = answers.get(question)
            if agreement:
                ends = (agreement[key] for key in ("value", "low", "high", "n"))
                rows.append((question, model, *ends, test_only))
    table = pd.DataFrame(rows, columns=POINT_COLUMNS)
    numbers = ["value", "low", "high"]
    table[numbers] = table[numbers].astype(float)
    return table


def agreement_table(points: pd.DataFrame, titles: Mapping[str, str]) -> pd.DataFrame:
    """The same to read and to take along; shares in percent."""
    return pd.DataFrame(
        {
            "readers": points["question"].map(QUESTIONS),
            "compared": [titles.get(m, PUBLISHED_TITLE) for m in points["model"]],
            "agreement, percent": (100 * points["value"]).round(1),
            "low": (100 * points["low"]).round(1),
            "high": (100 * points["high"]).round(1),
            "n": points["n"],
            "images": [
                "read, in the test split" if test_only else "read" for test_only in points.test_only
            ],
        }
    )


def readings_table(reader: Mapping[str, Any]) -> pd.DataFrame:
    """Readings by label: a row a label, counts and their sum."""
    table = pd.DataFrame(reader["counts"]).T.fillna(0).astype(int)
    table["all"] = table.sum(axis=1)
    return table.rename_axis("label").reset_index()


def ceiling_sentence(name: str, reader: Mapping[str, Any]) -> str:
    """What the published label's own agreement means for models; "" where there is none."""
    words = {"abnormal": "on anything not normal", "opacity": "on an opacity"}
    found = [
        f"{with_interval(answer['value'], answer)} {words[question]}"
        for question in words
        if (answer := reader["label"].get(question))
    ]
    if not found:
        return ""
    return (
        f"A model that repeats every label would agree with {name} in {' and '.join(found)}: an "
        "estimate of an accuracy ceiling, for the images that were read."
    )


# ------------------------------------------------------------------------------ doubts


def doubt_sentence(section: Mapping[str, Any], titles: Mapping[str, str]) -> str:
    """ "87 of 1,124 labels are doubted by the cross-validated models together." """
    models = section["models"]
    who = "the cross-validated models together"
    if len(models) == 1:
        who = f"{titles.get(models[0], models[0])}, the only cross-validated model"
    n = section["n_doubtful"]
    verb = "is" if n == 1 else "are"
    return f"{n:,} of {count(section['n'], 'label')} {verb} doubted by {who}."


def opinion_sentence(section: Mapping[str, Any], readers: Mapping[str, Mapping[str, Any]]) -> str:
    """That a doubt is no proof, and in how many doubted pneumonia labels readers saw an opacity.

    readers: those of the audit's section `readers`, {} where it has none; the one who read most
    comes first.
    """
    doubted = [image for image in section["images"] if image["label"] == PNEUMONIA]
    found = []
    for name in {name for image in doubted for name in image["readings"]}:
        answers = [_opacity(i["readings"][name]) for i in doubted if name in i["readings"]]
        saw = [answer for answer in answers if answer is not None]
        if saw:
            words = f"{name} saw an opacity in {sum(saw)} of the {len(saw)} that they read"
            every = readers.get(name, {}).get("counts", {}).get(PNEUMONIA, {})
            if every:
                seen = sum(n for reading, n in every.items() if _opacity(reading))
                words += f" (all pneumonia labels: {seen} of {sum(every.values())})"
            found.append((-len(saw), name, words))
    if not found:
        return "A doubt is no proof, and no second reader read a doubted pneumonia label."
    said = "; ".join(words for *_, words in sorted(found))
    return f"A doubt is no proof. Of {count(len(doubted), 'doubted pneumonia label')}, {said}."


def _opacity(reading: str) -> bool | None:
    return READINGS.get(reading.strip().lower(), {}).get("opacity")


def queue_table(section: Mapping[str, Any], verdicts: pd.DataFrame) -> pd.DataFrame:
    """QUEUE_COLUMNS of the doubted images, most doubtful first; verdict and at are "" if none.

    verdicts: image_id, label, verdict, at. One on another label than the doubted one, as an
    earlier run of that name may have had it, does not count.
    """
    queue = pd.DataFrame(section["images"], columns=QUEUE_COLUMNS[:4])
    given = verdicts[["image_id", "label", "verdict", "at"]]
    return queue.merge(given, on=["image_id", "label"], how="left").fillna(
        {"verdict": "", "at": ""}
    )


def filter_queue(
    queue: pd.DataFrame, label: str | None, suggested: str | None, verdict: str = ANY
) -> pd.DataFrame:
    """Those of a given label, a suggested class (None: any) and with or without a verdict."""
    rows = pd.Series(True, index=queue.index)
    if label is not None:
        rows &= queue["label"] == label
    if suggested is not None:
        rows &= queue["suggested"] == suggested
    if verdict != ANY:
        rows &= (queue["verdict"] != "") == (verdict == GIVEN)
    return queue[rows].reset_index(drop=True)


def find_place(queue: pd.DataFrame, image_id: str | None) -> int:
    """Where the image stands in the queue; else the first without a verdict, else the first."""
    there = queue.index[queue["image_id"] == image_id]
    waiting = queue.index[queue["verdict"] == ""]
    return int(next(iter([*there, *waiting]), 0))


def progress_sentence(queue: pd.DataFrame) -> str:
    """ "12 of 87 judged: 7 keep, 3 wrong, 2 unsure"."""
    said = queue.loc[queue["verdict"] != "", "verdict"]
    counts = ", ".join(f"{n} {verdict}" for verdict, n in said.value_counts().items())
    return f"{len(said)} of {len(queue)} judged" + (f": {counts}" if counts else "")


# ------------------------------------------------------------------------------ one image


def answer_table(
    row: Mapping[str, Any],
    predictions: Mapping[str, pd.DataFrame],
    names: Mapping[str, str],
    test_only: Collection[str],
) -> pd.DataFrame:
    """What each model says of an image of the queue, as text: probabilities of both classes.

    predictions: model -> its predictions, of which those in `test_only` are of the test split;
    names: model -> Markdown. A model that did not judge the image has no row.
    """
    classes = dict.fromkeys([row["label"], row["suggested"]])
    rows = []
    for model, table in predictions.items():
        own = table[table["image_id"] == row["image_id"]]
        if len(own):
            answer = own.iloc[0]
            name = names[model] + (" (test split)" if model in test_only else "")
            shares = {c: percent(answer[f"p_{c}"]) for c in classes}
            rows.append({"Model": name, "Says": answer["predicted"], **shares})
    return pd.DataFrame(rows, columns=["Model", "Says", *classes])


def other_images(manifest: pd.DataFrame, image_id: str) -> pd.DataFrame:
    """The manifest's other images of the same patient, in the order of their ids."""
    patient = manifest.loc[manifest["image_id"] == image_id, "patient_id"]
    same = manifest["patient_id"].isin(patient) & (manifest["image_id"] != image_id)
    return manifest[same].sort_values("image_id").reset_index(drop=True)


def scores_table(section: Mapping[str, Any], names: Mapping[str, str]) -> pd.DataFrame:
    """Accuracy and macro-F1 with and without doubtful labels, as text; names: the shown models."""
    kept = section["n"] - section["n_doubtful"]
    columns = {"all": f"all {section['n']:,}", "without_doubtful": f"{kept:,} not doubted"}
    rows = []
    for model, scores in section["scores"].items():
        if model not in names:
            continue
        row = {"Model": names[model]}
        for key, title in (("accuracy", "Accuracy"), ("macro_f1", "Macro-F1")):
            low, high = ("low", "high") if key == "accuracy" else (f"{key}_low", f"{key}_high")
            for which, words in columns.items():
                one = scores[which]
                bounds = (one.get(low), one.get(high))
                row[f"{title}, {words}"] = with_interval(one.get(key), bounds)
        rows.append(row)
    return pd.DataFrame(rows)
