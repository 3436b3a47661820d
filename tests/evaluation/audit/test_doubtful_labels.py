"""Labels that models doubt: planted faults are found, and scores without them are counted."""

import numpy as np
import pandas as pd
import pytest

from core.evaluation.audit.doubtful_labels import find_doubtful_labels
from core.metrics.classification import compute_metrics

NAMES = ["covid", "normal", "pneumonia"]


def made_up(wrong=(3, 33, 70, 100), n=120, seed=0):
    """Sure and mostly right predictions; the labels of `wrong` are another class's."""
    rng = np.random.default_rng(seed)
    truth = np.arange(n) % 3
    logits = rng.normal(0, 0.5, (n, 3)) + 4 * np.eye(3)[truth]
    y_prob = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    y_prob[list(wrong)] = 0.002 + 0.994 * np.eye(3)[truth[list(wrong)]]
    label = truth.copy()
    label[list(wrong)] = (truth[list(wrong)] + 1) % 3
    table = pd.DataFrame({"image_id": [f"i{k:03}" for k in range(n)], "fold": "1"})
    table["label"] = np.array(NAMES)[label]
    table["predicted"] = np.array(NAMES)[y_prob.argmax(axis=1)]
    table[[f"p_{name}" for name in NAMES]] = y_prob
    patients = pd.Series(table["image_id"].to_numpy(), index=table["image_id"])
    return table, patients


def test_planted_faults_are_found_and_named():
    table, patients = made_up()
    found = find_doubtful_labels({"cnn": table}, patients, NAMES, 0, draws=50)
    named = {entry["image_id"]: entry for entry in found["images"]}
    assert {"i003", "i033", "i070", "i100"} <= set(named) and found["n_doubtful"] == len(named) <= 8
    assert named["i003"]["label"] == "normal" and named["i003"]["suggested"] == "covid"
    qualities = [entry["quality"] for entry in found["images"]]
    assert qualities == sorted(qualities), "the most doubtful comes first"
    assert sum(n for row in found["suggested"].values() for n in row.values()) == len(named)


def test_scores_without_them_are_those_of_the_other_images():
    table, patients = made_up()
    found = find_doubtful_labels({"cnn": table}, patients, NAMES, 0, draws=50)
    rest = table[~table["image_id"].isin([entry["image_id"] for entry in found["images"]])]
    y = pd.Index(NAMES).get_indexer(rest["label"])
    expected = compute_metrics(y, rest[[f"p_{name}" for name in NAMES]].to_numpy(), NAMES)
    scores = found["scores"]["cnn"]
    assert scores["without_doubtful"]["accuracy"] == pytest.approx(expected["accuracy"])
    assert scores["all"]["accuracy"] < scores["without_doubtful"]["accuracy"]


def test_models_are_asked_together_and_the_order_of_their_rows_does_not_matter():
    table, patients = made_up()
    other, _ = made_up(seed=1)
    found = find_doubtful_labels({"a": table, "b": other}, patients, NAMES, 0, draws=20)
    mixed = {"a": table.sample(frac=1, random_state=0), "b": other.iloc[::-1]}
    assert find_doubtful_labels(mixed, patients, NAMES, 0, draws=20) == found
    entry = found["images"][0]
    given = other.set_index("image_id").loc[entry["image_id"], f"p_{entry['label']}"]
    assert entry["p"]["b"] == pytest.approx(given)
    with pytest.raises(ValueError, match="different images"):
        find_doubtful_labels({"a": table, "b": other.iloc[1:]}, patients, NAMES, 0)


def test_what_readers_say_stands_beside_it():
    table, patients = made_up()
    read = pd.DataFrame({"image_id": ["i003", "i003"], "reader": ["R1", "R2"],
                         "reading": ["Normal", "x"]})  # fmt: skip
    found = find_doubtful_labels({"m": table}, patients, NAMES, 0, readings=read, draws=20)
    by_id = {entry["image_id"]: entry["readings"] for entry in found["images"]}
    assert by_id["i003"] == {"R1": "Normal", "R2": "x"} and by_id["i070"] == {}
