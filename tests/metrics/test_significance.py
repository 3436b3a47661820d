"""Paired tests, against every possible swap, statsmodels and cases worked by hand."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests

from core.metrics.classification import compute_metrics
from core.metrics.intervals import bootstrap_draws
from core.metrics.significance import compare_models, holm, mcnemar_p
from tests.support.predictions import NAMES, sample


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_mcnemar_is_statsmodels(seed):
    right = np.random.default_rng(seed).random((2, 40)) < [[0.8], [0.6]]
    table = [
        [(right[0] & right[1]).sum(), (right[0] & ~right[1]).sum()],
        [(~right[0] & right[1]).sum(), (~right[0] & ~right[1]).sum()],
    ]
    assert mcnemar_p(*right) == pytest.approx(mcnemar(table, exact=True).pvalue)


def test_mcnemar_of_equal_models_is_one():
    assert mcnemar_p(np.array([True, False]), np.array([True, False])) == 1


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_is_statsmodels(p_values):
    assert holm(p_values) == pytest.approx(multipletests(p_values, method="holm")[1])


def two_models(n_patients=6):
    """Two images a patient; a is right on all, b wrong on the first three patients."""
    y_true = np.tile([0, 1], n_patients)
    groups = np.repeat(np.arange(n_patients), 2)
    wrong = groups < 3
    a = np.eye(2)[y_true]
    return y_true, {"a": a, "b": np.where(wrong[:, None], 1 - a, a)}, groups


def test_permutation_p_against_every_possible_swap():
    y_true, probs, groups = two_models()
    (row,) = compare_models(y_true, probs, groups, ["x", "y"], draws=20_000)

    def macro_f1(y_prob):
        return compute_metrics(y_true, y_prob, ["x", "y"])["macro_f1"]

    observed = macro_f1(probs["a"]) - macro_f1(probs["b"])
    swaps = []
    for swap in product([False, True], repeat=6):
        mask = np.array(swap)[groups][:, None]
        first = np.where(mask, probs["b"], probs["a"])
        second = np.where(mask, probs["a"], probs["b"])
        swaps.append(abs(macro_f1(first) - macro_f1(second)) >= abs(observed) - 1e-12)
    assert row["difference"] == pytest.approx(observed)
    assert np.mean(swaps) == pytest.approx(0.25)  # all three patients one way, or the other
    assert row["p_permutation"] == pytest.approx(np.mean(swaps), abs=0.015)
    assert row["verdict"] == "no difference shown"
    # McNemar takes the six images as independent and so finds more than there is.
    assert row["mcnemar_p"] == pytest.approx(2 * 0.5**6)


def test_difference_interval_is_the_paired_bootstrap():
    y_true, y_prob, groups = sample(n=60, skill=2.0)
    other = sample(n=60, skill=0.3)[1]
    (row,) = compare_models(y_true, {"a": y_prob, "b": other}, groups, NAMES, draws=200, seed=4)
    drawn = [
        bootstrap_draws(y_true, p, groups, NAMES, draws=200, seed=4)["macro_f1"]
        for p in (y_prob, other)
    ]
    expected = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
    assert [row["low"], row["high"]] == pytest.approx(expected)


def test_verdicts_pairs_and_correction():
    y_true, good, groups = sample(n=300, n_patients=200, skill=3.0)
    bad = sample(n=300, n_patients=200, skill=0.2)[1]
    rows = compare_models(y_true, {"bad": bad, "good": good, "same": good}, groups, NAMES)
    assert [(row["a"], row["b"]) for row in rows] == [
        ("bad", "good"),
        ("bad", "same"),
        ("good", "same"),
    ]
    assert [row["verdict"] for row in rows] == ["b better", "b better", "no difference shown"]
    assert rows[2]["difference"] == rows[2]["low"] == rows[2]["high"] == 0
    assert rows[2]["p_permutation"] == rows[2]["mcnemar_p"] == 1
    # 2,000 swaps never reached the difference: 1 / 2001 and not 0, times three for the pairs.
    assert rows[0]["p_permutation"] == pytest.approx(1 / 2001)
    assert rows[0]["p_holm"] == pytest.approx(3 / 2001)
    assert compare_models(y_true, {"good": good}, groups, NAMES) == []


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(3)), st.randoms(use_true_random=False))
def test_order_of_rows_classes_and_models_does_not_matter(seed, order, random):
    y_true, y_prob, groups = sample(n=30, n_patients=12, seed=seed, decimals=6)
    other = sample(n=30, n_patients=12, seed=seed, skill=3.0, decimals=6)[1]
    rows = random.sample(range(30), 30)
    (before,) = compare_models(y_true, {"a": y_prob, "b": other}, groups, NAMES, draws=100)
    turned = {name: p[rows][:, order] for name, p in (("b", other), ("a", y_prob))}
    names = [NAMES[k] for k in order]
    place = np.argsort(order)
    (after,) = compare_models(place[y_true][rows], turned, groups[rows], names, draws=100)
    assert after["difference"] == pytest.approx(-before["difference"])
    assert (after["low"], after["high"]) == pytest.approx((-before["high"], -before["low"]))
    for key in ("p_permutation", "p_holm", "mcnemar_p"):
        assert after[key] == pytest.approx(before[key])
    words = {"a better": "b better", "b better": "a better"}
    assert after["verdict"] == words.get(before["verdict"], before["verdict"])
    assert 0 < before["p_permutation"] <= 1 and before["low"] <= before["high"]


def test_absent_class_constant_models_and_one_image_are_no_difference():
    y_true = np.array([0, 0, 1, 1])
    perfect, constant = np.eye(3)[y_true], np.full((4, 3), 1 / 3)
    (row,) = compare_models(y_true, {"a": perfect, "b": constant}, list("pqrs"), NAMES)
    # Nobody has pneumonia, so the best macro-F1 is 2/3; all covid gives 2/3 of a third.
    assert row["difference"] == pytest.approx(2 / 3 - 2 / 9)
    assert row["verdict"] == "no difference shown"  # four patients cannot show one
    (row,) = compare_models(y_true, {"a": constant, "b": constant}, list("pqrs"), NAMES)
    assert row["p_permutation"] == row["p_holm"] == 1
    one = {"a": perfect[:1], "b": perfect[[2]]}
    (row,) = compare_models(y_true[:1], one, ["p"], NAMES)
    assert row["p_permutation"] == row["mcnemar_p"] == 1
    assert row["verdict"] == "no difference shown"
    assert compare_models(y_true, {"a": perfect}, list("pqrs"), NAMES) == []


def test_permutation_test_keeps_its_level_with_many_images_a_patient():
    """Equal models with patient-wise errors: image-wise McNemar is wrong far too often."""
    rng = np.random.default_rng(0)
    patient_p, image_p = [], []
    for seed in range(60):
        y_true = np.repeat(rng.integers(0, 2, 30), 6)
        groups = np.repeat(np.arange(30), 6)
        probs = {}
        for name in "ab":
            right = np.repeat(rng.random(30) < 0.7, 6)
            probs[name] = np.eye(2)[np.where(right, y_true, 1 - y_true)]
        (row,) = compare_models(y_true, probs, groups, ["x", "y"], draws=200, seed=seed)
        patient_p.append(row["p_permutation"])
        image_p.append(row["mcnemar_p"])
    assert np.mean(np.array(patient_p) < 0.05) < 0.15
    assert np.mean(np.array(image_p) < 0.05) > 0.3
