"""What every model said about every image: one long table, and the choices made from it.

Tables in, tables out; no Streamlit. A *predictions* table has a row an image and model: image_id,
label, model, predicted, confidence (the probability of `predicted`), right (bool), p_<class>.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from core.metrics.classification import confusion_counts

MISSED_BY = {
    "any": "at least one model",
    "one": "exactly one model",
    "all": "every model",
}
NORMALISE = {
    "counts": "Counts",
    "true": "By true",
    "predicted": "By predicted",
}


def worst_mistakes(
    counts: Mapping[str, np.ndarray], class_names: Sequence[str], titles: Mapping[str, str]
) -> str:
    """Each model's most frequent mistake in a sentence; said once where it is the same for all.

    counts: model -> its matrix (C, C), rows true; titles: model -> name, safe to show.
    """
    found = {}
    for model, matrix in counts.items():
        wrong = np.where(np.eye(len(matrix), dtype=bool), 0, matrix)
        i, j = np.unravel_index(int(wrong.argmax()), wrong.shape)
        found[model] = (int(i), int(j)) if wrong[i, j] else None

    def pair(place: tuple[int, int]) -> str:
        return f"{class_names[place[0]]} as {class_names[place[1]]}"

    def share(model: str, place: tuple[int, int]) -> str:
        return f"{int(counts[model][place])} of {int(counts[model][place[0]].sum())}"

    places = {place for place in found.values() if place}
    if len(places) == 1 and None not in found.values() and len(found) > 1:
        (place,) = places
        each = [f"{titles[model]} {share(model, place)}" for model in found]
        return f"Most frequent mistake of all models: {pair(place)} ({', '.join(each)})."
    each = [
        f"{titles[model]} {pair(place)} ({share(model, place)})"
        if place
        else f"{titles[model]} none"
        for model, place in found.items()
    ]
    return f"Most frequent mistake: {'; '.join(each)}."


def join_predictions(
    predictions: Mapping[str, pd.DataFrame], class_names: Sequence[str]
) -> pd.DataFrame:
    """Stack the predictions of several models (columns as in predictions.csv) to one table."""
    columns = [f"p_{name}" for name in class_names]
    parts = []
    for model, table in predictions.items():
        part = table[["image_id", "label", "predicted", *columns]].copy()
        part.insert(2, "model", model)
        where = [class_names.index(name) for name in part["predicted"]]
        part.insert(4, "confidence", part[columns].to_numpy()[np.arange(len(part)), where])
        part.insert(5, "right", part["predicted"] == part["label"])
        parts.append(part)
    if not parts:
        empty = ["image_id", "label", "model", "predicted", "confidence", "right", *columns]
        return pd.DataFrame(columns=empty)
    return pd.concat(parts, ignore_index=True)


def count_cells(predictions: pd.DataFrame, model: str, class_names: Sequence[str]) -> np.ndarray:
    """Confusion matrix (C, C) of one model: rows true, columns predicted, in class_names order."""
    order = {name: k for k, name in enumerate(class_names)}
    own = predictions[predictions["model"] == model]
    y_true = own["label"].map(order).to_numpy(np.int64)
    y_pred = own["predicted"].map(order).to_numpy(np.int64)
    return confusion_counts(y_true, y_pred, len(class_names))


def shares(counts: np.ndarray, normalise: str) -> np.ndarray:
    """Counts (C, C) divided by their row ("true") or column ("predicted") sums.

    NaN where that sum is 0: no image, so no share. "counts" gives the counts back as floats.
    """
    counts = np.asarray(counts, np.float64)
    if normalise == "counts":
        return counts
    total = counts.sum(axis=1 if normalise == "true" else 0, keepdims=True)
    total = np.broadcast_to(total, counts.shape)
    return np.divide(counts, total, out=np.full(counts.shape, np.nan), where=total > 0)


Cell = tuple[str, str, str]  # model, true class, predicted class


def clicked_cell(points: Sequence[Mapping], last: Cell | None, current: Cell | None) -> Cell | None:
    """The cell that a click on a matrix asks for; None takes the choice away.

    points: of the chart's selection; last: the cell of the click before on the same chart. Every
    second click on one cell arrives with no points, also where something else was chosen in
    between; so a click without points means `last`. A click on the current cell takes it away.
    """
    cell = tuple(points[-1]["customdata"][:3]) if points else last
    return None if cell == current else cell


def cell_images(predictions: pd.DataFrame, model: str, true: str, predicted: str) -> pd.DataFrame:
    """The rows of one cell of one model's matrix, the surest answer first."""
    here = (predictions["model"] == model) & (predictions["label"] == true)
    rows = predictions[here & (predictions["predicted"] == predicted)]
    return rows.sort_values(["confidence", "image_id"], ascending=[False, True])


def wrong_images(
    predictions: pd.DataFrame,
    models: Sequence[str],
    *,
    true: str | None = None,
    predicted: str | None = None,
    confidence: tuple[float, float] = (0.0, 1.0),
    missed_by: str = "any",
) -> pd.DataFrame:
    """Images that at least one of `models` got wrong, one row each, the surest mistake first.

    `missed_by` (a key of MISSED_BY) counts over all models of `predictions`, chosen or not;
    `predicted` and `confidence` are asked of at least one wrong prediction of `models`. Columns:
    image_id, label, confidence (of the surest wrong prediction that fits), wrong (all models that
    are wrong, joined by ", "), n_wrong.
    """
    all_wrong = predictions[~predictions["right"].astype(bool)]
    per_image = all_wrong.groupby("image_id")["model"].agg([", ".join, "size"])
    per_image.columns = ["wrong", "n_wrong"]
    wrong = all_wrong[all_wrong["model"].isin(models)]
    needed = {"any": None, "one": 1, "all": predictions["model"].nunique()}[missed_by]
    if needed is not None:
        per_image = per_image[per_image["n_wrong"] == needed]
    # The slider moves in hundredths, so its ends count as that near.
    low, high = confidence[0] - 0.005, confidence[1] + 0.005
    fits = wrong["confidence"].between(low, high)
    if true is not None:
        fits &= wrong["label"] == true
    if predicted is not None:
        fits &= wrong["predicted"] == predicted
    surest = wrong[fits].groupby("image_id").agg({"label": "first", "confidence": "max"})
    table = surest.join(per_image, how="inner").reset_index()
    return table.sort_values(["confidence", "image_id"], ascending=[False, True], ignore_index=True)


def export_table(
    wrong: pd.DataFrame,
    predictions: pd.DataFrame,
    manifest: pd.DataFrame,
    class_names: Sequence[str],
) -> pd.DataFrame:
    """`wrong` for a spreadsheet: path and patient, then each model's class and probabilities."""
    table = wrong.merge(
        manifest[["image_id", "path", "patient_id"]], on="image_id", how="left", validate="1:1"
    )
    for model, own in predictions.groupby("model", sort=False):
        columns = {"predicted": f"{model}_predicted"}
        columns |= {f"p_{name}": f"{model}_p_{name}" for name in class_names}
        part = own[["image_id", *columns]].rename(columns=columns)
        table = table.merge(part, on="image_id", how="left", validate="1:1")
    return table
