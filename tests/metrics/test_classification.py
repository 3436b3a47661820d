"""The figures of metrics.json, by hand and against scikit-learn."""

import json
import warnings

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from core.metrics.classification import (
    MetricsError,
    arrays_from_predictions,
    compute_metrics,
    flatten_metrics,
    predicted_index,
)

NAMES = ["covid", "normal", "pneumonia"]
DESIGN_KEYS = {
    *("n", "accuracy", "balanced_accuracy", "macro_f1", "macro_precision", "macro_recall"),
    *("auc", "log_loss", "brier", "ece", "per_class", "confusion_matrix", "binary"),
}


def from_confusion(confusion):
    """y_true, y_prob whose argmax gives exactly this matrix."""
    pairs = [
        (t, p)
        for t, row in enumerate(confusion)
        for p, count in enumerate(row)
        for _ in range(count)
    ]
    y_true = np.array([t for t, _ in pairs])
    y_prob = np.full((len(pairs), len(confusion)), 0.2 / (len(confusion) - 1))
    y_prob[np.arange(len(pairs)), [p for _, p in pairs]] = 0.8
    return y_true, y_prob


@st.composite
def predictions(draw, min_size=1, every_class=False):
    """y_true and y_prob with few distinct values, so that ties do happen."""
    n_classes = draw(st.integers(2, 4))
    n = draw(st.integers(max(min_size, 2 * n_classes if every_class else 1), 25))
    y_true = np.array(draw(st.lists(st.integers(0, n_classes - 1), min_size=n, max_size=n)))
    if every_class:
        y_true[:n_classes] = np.arange(n_classes)
    raw = draw(st.lists(st.integers(0, 4), min_size=n * n_classes, max_size=n * n_classes))
    y_prob = np.array(raw, dtype=float).reshape(n, n_classes) + 0.01
    return y_true, y_prob / y_prob.sum(axis=1, keepdims=True), list("abcd")[:n_classes]


def test_confusion_matrix_worked_by_hand():
    confusion = [[8, 1, 1], [2, 15, 3], [0, 4, 16]]
    result = compute_metrics(*from_confusion(confusion), NAMES)
    assert result["confusion_matrix"] == confusion
    assert result["n"] == 50
    assert result["accuracy"] == pytest.approx(39 / 50)
    covid, normal = result["per_class"]["covid"], result["per_class"]["normal"]
    assert covid["precision"] == pytest.approx(8 / 10)
    assert covid["recall"] == pytest.approx(8 / 10)
    assert covid["specificity"] == pytest.approx(38 / 40)
    assert covid["f1"] == pytest.approx(0.8)
    assert covid["support"] == 10
    assert normal["precision"] == pytest.approx(15 / 20)
    assert normal["specificity"] == pytest.approx(25 / 30)
    assert result["balanced_accuracy"] == pytest.approx((0.8 + 0.75 + 0.8) / 3)
    assert result["macro_f1"] == pytest.approx((0.8 + 0.75 + 32 / 40) / 3)
    # Covid or not: 8 found, 2 missed, 2 false alarms, 38 rightly left alone.
    binary = result["binary"]["covid_vs_rest"]
    assert binary["accuracy"] == pytest.approx(46 / 50)
    assert binary["sensitivity"] == pytest.approx(8 / 10)
    assert binary["specificity"] == pytest.approx(38 / 40)
    assert binary["support"] == 10
    # All at confidence 0.8 with 0.78 right: one bin, gap 0.02; Brier by the same counting.
    assert result["ece"] == pytest.approx(0.02)
    right, wrong = 0.2**2 + 2 * 0.1**2, 0.8**2 + 0.9**2 + 0.1**2
    assert result["brier"] == pytest.approx((39 * right + 11 * wrong) / 50)


def test_keys_are_the_designs_and_plain_json():
    result = compute_metrics(*from_confusion([[2, 1, 0], [0, 3, 0], [1, 0, 2]]), NAMES)
    assert set(result) == DESIGN_KEYS
    for row in result["per_class"].values():
        assert set(row) == {"precision", "recall", "specificity", "f1", "support", "auc"}
    assert set(result["binary"]["covid_vs_rest"]) == {
        *("accuracy", "sensitivity", "specificity", "precision", "f1", "auc", "support")
    }
    assert json.loads(json.dumps(result, allow_nan=False)) == result
    without_covid = compute_metrics(*from_confusion([[2, 1], [0, 3]]), ["a", "b"])
    assert "binary" not in without_covid


@settings(max_examples=60, deadline=None)
@given(predictions(every_class=True))
def test_agrees_with_scikit_learn(sample):
    y_true, y_prob, names = sample
    labels = np.arange(len(names))
    predicted = y_prob.argmax(axis=1)
    result = compute_metrics(y_true, y_prob, names)
    report = sk.classification_report(
        y_true, predicted, labels=labels, target_names=names, output_dict=True, zero_division=0
    )
    for name in names:
        mine, theirs = result["per_class"][name], report[name]
        assert mine["precision"] == pytest.approx(theirs["precision"])
        assert mine["recall"] == pytest.approx(theirs["recall"])
        assert mine["f1"] == pytest.approx(theirs["f1-score"])
        assert mine["support"] == theirs["support"]
    assert result["macro_f1"] == pytest.approx(report["macro avg"]["f1-score"])
    assert result["macro_precision"] == pytest.approx(report["macro avg"]["precision"])
    assert result["macro_recall"] == pytest.approx(report["macro avg"]["recall"])
    assert result["accuracy"] == pytest.approx(sk.accuracy_score(y_true, predicted))
    assert result["balanced_accuracy"] == pytest.approx(
        sk.balanced_accuracy_score(y_true, predicted)
    )
    matrix = sk.confusion_matrix(y_true, predicted, labels=labels)
    assert result["confusion_matrix"] == matrix.tolist()
    aucs = [sk.roc_auc_score(y_true == k, y_prob[:, k]) for k in labels]
    assert [result["per_class"][name]["auc"] for name in names] == pytest.approx(aucs)
    assert result["auc"] == pytest.approx(np.mean(aucs))
    assert result["log_loss"] == pytest.approx(sk.log_loss(y_true, y_prob, labels=labels))
    one_hot = np.eye(len(names))[y_true]
    assert result["brier"] == pytest.approx(((y_prob - one_hot) ** 2).sum(axis=1).mean())


def test_macro_auc_is_scikit_learns_one_against_rest():
    rng = np.random.default_rng(3)
    y_prob = rng.dirichlet(np.ones(3), size=80)
    y_true = rng.integers(0, 3, 80)
    expected = sk.roc_auc_score(y_true, y_prob, multi_class="ovr", labels=[0, 1, 2])
    assert compute_metrics(y_true, y_prob, NAMES)["auc"] == pytest.approx(expected)


def test_specificity_is_the_recall_of_the_rest():
    rng = np.random.default_rng(4)
    y_true, y_prob = rng.integers(0, 3, 60), rng.dirichlet(np.ones(3), size=60)
    result = compute_metrics(y_true, y_prob, NAMES)
    predicted = y_prob.argmax(axis=1)
    for k, name in enumerate(NAMES):
        expected = sk.recall_score(y_true != k, predicted != k)
        assert result["per_class"][name]["specificity"] == pytest.approx(expected)
    binary = result["binary"]["covid_vs_rest"]
    assert binary["accuracy"] == pytest.approx(sk.accuracy_score(y_true == 0, predicted == 0))
    assert binary["f1"] == pytest.approx(sk.f1_score(y_true == 0, predicted == 0))
    assert binary["auc"] == pytest.approx(sk.roc_auc_score(y_true == 0, y_prob[:, 0]))


def test_ece_by_a_slow_loop_over_the_bins():
    rng = np.random.default_rng(5)
    y_prob = rng.dirichlet(np.ones(3) / 2, size=300)
    # Well calibrated, so the gaps have either sign by chance and mixing bins would show.
    y_true = (rng.random((300, 1)) > y_prob.cumsum(axis=1)).sum(axis=1).clip(0, 2)
    confidence, right = y_prob.max(axis=1), y_prob.argmax(axis=1) == y_true
    ece = 0.0
    for low, high in zip(np.arange(15) / 15, np.arange(1, 16) / 15, strict=True):
        here = (confidence > low) & (confidence <= high)
        if here.any():
            ece += here.mean() * abs(right[here].mean() - confidence[here].mean())
    assert compute_metrics(y_true, y_prob, NAMES)["ece"] == pytest.approx(ece)


@settings(max_examples=30, deadline=None)
@given(predictions(), st.randoms(use_true_random=False))
def test_row_and_class_order_do_not_matter(sample, random):
    y_true, y_prob, names = sample
    before = compute_metrics(y_true, y_prob, names)
    rows = random.sample(range(len(y_true)), len(y_true))
    shuffled = compute_metrics(y_true[rows], y_prob[rows], names)
    assert flatten_metrics(shuffled) == pytest.approx(flatten_metrics(before), nan_ok=True)
    # Ties go to the first class, so a new order of classes may call them differently.
    top = np.sort(y_prob, axis=1)
    kept = top[:, -1] - top[:, -2] > 1e-9
    if not kept.any():
        return
    y_true, y_prob = y_true[kept], y_prob[kept]
    before = compute_metrics(y_true, y_prob, names)
    order = random.sample(range(len(names)), len(names))
    place = np.argsort(order)
    after = compute_metrics(place[y_true], y_prob[:, order], [names[k] for k in order])
    assert flatten_metrics(after) == pytest.approx(flatten_metrics(before))


@settings(max_examples=30, deadline=None)
@given(predictions(every_class=True))
def test_perfect_and_constant_classifiers(sample):
    y_true, _, names = sample
    perfect = compute_metrics(y_true, np.eye(len(names))[y_true], names)
    for key in ("accuracy", "balanced_accuracy", "macro_f1", "auc"):
        assert perfect[key] == 1
    assert perfect["log_loss"] == pytest.approx(0, abs=1e-12)
    assert perfect["brier"] == perfect["ece"] == 0
    constant = compute_metrics(y_true, np.eye(len(names))[np.zeros_like(y_true)], names)
    assert constant["accuracy"] == pytest.approx((y_true == 0).mean())
    assert constant["balanced_accuracy"] == pytest.approx(1 / len(names))
    assert constant["auc"] == pytest.approx(0.5)
    never_called = {"precision": 0, "recall": 0, "specificity": 1, "f1": 0}
    assert never_called.items() <= constant["per_class"]["b"].items()


def test_one_class_absent_gives_no_nonsense_auc():
    y_prob = np.array([[0.7, 0.2, 0.1], [0.2, 0.7, 0.1], [0.6, 0.3, 0.1]])
    result = compute_metrics(np.array([0, 1, 1]), y_prob, NAMES)
    assert result["per_class"]["pneumonia"]["auc"] is None
    assert result["per_class"]["pneumonia"]["recall"] == 0
    assert result["auc"] == pytest.approx(np.mean([0.5 + 0.5, 1.0]))
    assert result["macro_recall"] == pytest.approx((1 + 0.5 + 0) / 3)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = sk.balanced_accuracy_score([0, 1, 1], [0, 1, 0])
    assert result["balanced_accuracy"] == pytest.approx(expected)


def test_only_covid_images_and_one_image():
    only = compute_metrics(
        np.array([0, 0]), np.array([[0.9, 0.1], [0.2, 0.8]]), ["covid", "normal"]
    )
    assert only["auc"] is None
    assert only["binary"]["covid_vs_rest"]["sensitivity"] == 0.5
    assert only["binary"]["covid_vs_rest"]["specificity"] == 0
    one = compute_metrics(np.array([1]), np.array([[0.2, 0.5, 0.3]]), NAMES)
    assert one["n"] == 1
    assert one["accuracy"] == 1
    assert one["macro_f1"] == pytest.approx(1 / 3)


def test_first_largest_wins():
    assert predicted_index(np.array([[0.4, 0.4, 0.2], [0.2, 0.4, 0.4]])).tolist() == [0, 1]


@pytest.mark.parametrize(
    ("y_true", "y_prob", "names", "says"),
    [
        ([], np.empty((0, 2)), ["a", "b"], "no predictions"),
        ([0], [[0.5, 0.4]], ["a", "b"], "sum to 1"),
        ([0], [[0.5, 0.49998]], ["a", "b"], "row 0 sums to 0.99998"),
        ([0], [[np.nan, 1.0]], ["a", "b"], "finite"),
        ([0], [[1.2, -0.2]], ["a", "b"], "negative"),
        ([2], [[0.5, 0.5]], ["a", "b"], "between 0 and 1"),
        ([0.0], [[0.5, 0.5]], ["a", "b"], "whole class numbers"),
        ([0, 1], [[0.5, 0.5]], ["a", "b"], "one true label"),
        ([0], [[0.5, 0.5]], ["a", "b", "c"], "one column for each"),
        ([0], [[0.5, 0.5]], ["a", "a"], "different class names"),
    ],
)
def test_unusable_input_is_refused_in_one_sentence(y_true, y_prob, names, says):
    with pytest.raises(MetricsError, match=says):
        compute_metrics(np.array(y_true), np.array(y_prob), names)


def predictions_table():
    return pd.DataFrame(
        {
            "image_id": ["x", "y"],
            "label": ["covid", "normal"],
            "predicted": ["covid", "covid"],
            "p_normal": [0.2, 0.4],
            "p_covid": [0.8, 0.6],
        }
    )


def test_predictions_are_read_by_the_columns_names():
    names = ["covid", "normal"]
    result = compute_metrics(*arrays_from_predictions(predictions_table(), names), names)
    assert result["confusion_matrix"] == [[1, 0], [1, 0]]
    assert result["per_class"]["covid"]["precision"] == 0.5


def test_probabilities_as_they_are_written_sum_to_one():
    logits = np.random.default_rng(6).normal(0, 6, (2000, 3)).astype(np.float32)
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    shares /= shares.sum(axis=1, keepdims=True)
    written = np.array([[float(f"{p:.9g}") for p in row] for row in shares])
    assert written.dtype == np.float64 and (written.sum(axis=1) != 1).any()
    assert compute_metrics(shares.argmax(axis=1), written, NAMES)["accuracy"] == 1


def test_predictions_that_contradict_themselves_are_refused():
    table = predictions_table()
    with pytest.raises(MetricsError, match="not the class with the largest"):
        arrays_from_predictions(table.assign(predicted="normal"), ["covid", "normal"])
    with pytest.raises(MetricsError, match="lack the columns p_normal"):
        arrays_from_predictions(table.drop(columns="p_normal"), ["covid", "normal"])
    with pytest.raises(MetricsError, match="labels normal beside"):
        arrays_from_predictions(table.assign(p_other=0.0), ["covid", "other"])
    with pytest.raises(MetricsError, match="must be a number"):
        arrays_from_predictions(table.assign(p_covid=["a", "b"]), ["covid", "normal"])


def test_flat_keys_are_the_interval_keys():
    flat = flatten_metrics(compute_metrics(*from_confusion([[2, 1], [0, 3]]), ["covid", "normal"]))
    assert flat["recall.covid"] == pytest.approx(2 / 3)
    assert flat["binary.covid_vs_rest.sensitivity"] == pytest.approx(2 / 3)
    assert not any("support" in key for key in flat)
