"""Operating points, against scikit-learn, Altman & Bland's example and every threshold tried."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from statsmodels.stats.proportion import proportion_confint

from core.metrics.bootstrap import draw_weights
from core.metrics.classification import MetricsError
from core.metrics.intervals import bootstrap_intervals
from core.metrics.operating_point import (
    at_prevalence,
    called,
    choose_threshold,
    operating_table,
    rates_at,
)
from tests.support.predictions import sample


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3))
def test_table_is_scikit_learns_roc_curve(seed, decimals):
    y_true, y_prob, _ = sample(n=40, seed=seed, decimals=decimals)
    fpr, tpr, thresholds = sk.roc_curve(y_true == 1, y_prob[:, 1], drop_intermediate=False)
    table = operating_table(y_true, y_prob, 1, thresholds)
    assert table["sensitivity"].to_numpy() == pytest.approx(tpr)
    assert 1 - table["specificity"].to_numpy() == pytest.approx(fpr)


def test_table_worked_by_hand():
    y_prob = np.array([[0.9, 0.1], [0.6, 0.4], [0.6, 0.4], [0.2, 0.8]])
    table = operating_table(np.array([0, 0, 1, 1]), y_prob, 0, [0.0, 0.6, 0.61, 1.0])
    assert table["called"].tolist() == [4, 3, 1, 0]
    assert table["found"].tolist() == [2, 2, 1, 0]
    assert table["sensitivity"].tolist() == [1, 1, 0.5, 0]
    assert table["specificity"].tolist() == [0, 0.5, 1, 1]
    alone = operating_table(np.array([0, 0]), y_prob[:2], 0, [0.5])
    assert alone["specificity"].isna().all() and alone["sensitivity"].tolist() == [1]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.floats(0.01, 1))
def test_threshold_is_the_largest_that_will_do(seed, wanted):
    y_true, y_prob, _ = sample(n=30, seed=seed)
    positive, score = y_true == 0, y_prob[:, 0]
    tried = [t for t in np.unique(score) if (score[positive] >= t).mean() >= wanted - 1e-9]
    assert choose_threshold(positive, score, wanted) == max(tried)


def test_threshold_keeps_nineteen_of_twenty():
    score = np.arange(1, 21) / 20
    assert choose_threshold(np.ones(20, bool), score, 0.95) == 0.1
    assert choose_threshold(np.ones(20, bool), score, 1.0) == 0.05
    assert 0.28 * 25 > 7  # rounding must not ask for an eighth
    assert choose_threshold(np.ones(25, bool), np.arange(25) / 25, 0.28) == 18 / 25
    assert choose_threshold(np.ones(1, bool), [0.3], 0.5) == 0.3
    assert choose_threshold(np.zeros(20, bool), score) is None


def test_called_is_closed_at_the_threshold():
    assert called(np.array([0.4, 0.5, 0.6]), 0.5).tolist() == [False, True, True]


def test_altman_and_blands_liver_scans():
    """BMJ 1994;309:102: 231 of 258 found, 54 of 86 cleared; at 75 and at 25 in a hundred."""
    ppv, npv = at_prevalence(231 / 258, 54 / 86, 258 / 344)
    assert (ppv, npv) == pytest.approx((231 / 263, 54 / 81))
    assert np.round(at_prevalence(231 / 258, 54 / 86, 0.25), 2).tolist() == [0.45, 0.95]


def test_predictive_values_at_the_ends():
    assert at_prevalence(0.9, 0.8, 0.0) == (0, 1)
    assert at_prevalence(0.9, 0.8, 1.0) == (1, 0)
    ppv, npv = at_prevalence(np.array([0.0, 1.0]), np.array([1.0, 0.0]), 0.3)
    assert np.isnan(ppv[0]) and np.isnan(npv[1])  # nobody called, everybody called
    assert (npv[0], ppv[1]) == pytest.approx((0.7, 0.3))


@settings(max_examples=40, deadline=None)
@given(st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.floats(0.01, 0.99), st.floats(0, 0.5))
def test_predictive_values_rise_with_either_rate(sensitivity, specificity, prevalence, more):
    base = at_prevalence(sensitivity, specificity, prevalence)
    better = [
        at_prevalence(min(1, sensitivity + more), specificity, prevalence),
        at_prevalence(sensitivity, min(1, specificity + more), prevalence),
    ]
    for ppv, npv in better:
        assert ppv >= base[0] - 1e-12 and npv >= base[1] - 1e-12


def test_rates_at_the_samples_own_prevalence_are_the_counts():
    y_true, y_prob, groups = sample(n=90, n_patients=50)
    positive, score = y_true == 0, y_prob[:, 0]
    rates = rates_at(positive, score, groups, 0.4, positive.mean(), draws=100)
    found = score >= 0.4
    assert rates["sensitivity"]["value"] == pytest.approx(sk.recall_score(positive, found))
    assert rates["specificity"]["value"] == pytest.approx(sk.recall_score(~positive, ~found))
    assert rates["ppv"]["value"] == pytest.approx(sk.precision_score(positive, found))
    assert rates["npv"]["value"] == pytest.approx(sk.precision_score(~positive, ~found))
    patients = len(set(groups[positive]))
    assert rates["sensitivity"]["n"] == positive.sum()
    assert rates["sensitivity"]["n_patients"] == rates["ppv"]["n_patients"] == patients
    assert rates["specificity"]["n"] == (~positive).sum()


def test_intervals_are_quantiles_over_drawn_patients():
    y_true, y_prob, groups = sample(n=90, n_patients=50)
    positive, score = y_true == 0, y_prob[:, 0]
    rates = rates_at(positive, score, groups, 0.4, 0.02, draws=300, seed=6)
    patients = np.unique(groups)
    (weights,) = draw_weights(len(patients), 300, 6)
    of = weights[np.searchsorted(patients, groups)]  # (n, draws): each image's weight
    found = score >= 0.4
    sensitivity = of[positive & found].sum(axis=0) / of[positive].sum(axis=0)
    specificity = of[~positive & ~found].sum(axis=0) / of[~positive].sum(axis=0)
    drawn = {
        "sensitivity": sensitivity,
        "specificity": specificity,
        "ppv": 0.02 * sensitivity / (0.02 * sensitivity + 0.98 * (1 - specificity)),
        "npv": 0.98 * specificity / (0.98 * specificity + 0.02 * (1 - sensitivity)),
    }
    for key, values in drawn.items():
        expected = tuple(np.quantile(values, [0.025, 0.975]))
        assert (rates[key]["low"], rates[key]["high"]) == pytest.approx(expected)


def test_at_one_half_two_classes_give_the_rates_of_metrics_json():
    y_true, y_prob, groups = sample(n=80, n_patients=40, seed=8, decimals=6)
    pair = np.stack([y_prob[:, 0], 1 - y_prob[:, 0]], axis=1)
    labels = np.where(y_true == 0, 0, 1)
    intervals = bootstrap_intervals(labels, pair, groups, ["covid", "rest"], seed=3)
    rates = rates_at(labels == 0, pair[:, 0], groups, 0.5, 0.1, seed=3)
    for key, name in (("sensitivity", "recall.covid"), ("specificity", "specificity.covid")):
        for end in ("low", "high"):
            assert rates[key][end] == pytest.approx(intervals[name][end])


def test_perfect_classifier_gets_wilson_through_bayes():
    positive = np.array([True, True, True, False, False, False])
    rates = rates_at(positive, positive * 1.0, list("aabcde"), 0.5, 0.01)
    low = [proportion_confint(n, n, method="wilson")[0] for n in (2, 3)]
    assert (rates["sensitivity"]["low"], rates["specificity"]["low"]) == pytest.approx(tuple(low))
    assert rates["ppv"]["value"] == rates["ppv"]["high"] == rates["npv"]["value"] == 1
    ppv, npv = at_prevalence(low[0], low[1], 0.01)
    assert rates["ppv"]["low"] == pytest.approx(float(ppv))
    assert rates["npv"]["low"] == pytest.approx(float(npv))
    assert rates["ppv"]["low"] < 0.05  # so little do five patients say about a rare disease


def test_one_sure_rate_is_not_taken_for_certain_in_the_other():
    positive = np.repeat([True, False], [4, 40])
    score = np.concatenate([np.ones(4), np.arange(40) % 4 == 0])
    rates = rates_at(positive, score, np.arange(44), 0.5, 0.1)
    assert rates["sensitivity"]["value"] == 1 and rates["specificity"]["value"] == 0.75
    low = [rates[key]["low"] for key in ("sensitivity", "specificity")]
    ppv, npv = at_prevalence(*low, 0.1)
    assert rates["ppv"]["low"] == pytest.approx(float(ppv))
    assert rates["npv"]["low"] == pytest.approx(float(npv)) and rates["npv"]["high"] == 1


def test_constant_classifier_calls_all_or_nobody():
    positive = np.array([True, True, False, False])
    everybody = rates_at(positive, np.full(4, 0.7), list("abcd"), 0.5, 0.2)
    assert (everybody["sensitivity"]["value"], everybody["specificity"]["value"]) == (1, 0)
    assert everybody["ppv"]["value"] == pytest.approx(0.2)
    assert everybody["ppv"]["low"] < 0.2 < everybody["ppv"]["high"]
    assert everybody["npv"]["value"] is everybody["npv"]["low"] is None
    nobody = rates_at(positive, np.full(4, 0.7), list("abcd"), 0.8, 0.2)
    assert nobody["ppv"]["value"] is None
    assert nobody["npv"]["value"] == pytest.approx(0.8)


def test_one_side_absent_one_image_and_one_patient():
    only = rates_at(np.ones(3, bool), np.array([0.1, 0.6, 0.7]), list("abc"), 0.5, 0.1)
    assert only["sensitivity"]["value"] == pytest.approx(2 / 3)
    assert only["specificity"] == {"value": None, "low": None, "high": None} | {
        "n": 0,
        "n_patients": 0,
    }
    assert only["ppv"]["value"] is only["npv"]["value"] is None
    one = rates_at(np.array([False]), np.array([0.2]), ["p"], 0.5, 0.1)
    assert one["specificity"]["value"] == 1 and 0 < one["specificity"]["low"] < 1
    mixed = np.array([True, True, False, False]), np.array([0.9, 0.1, 0.9, 0.1])
    alone = rates_at(*mixed, ["p"] * 4, 0.5, 0.1)
    assert alone["ppv"]["value"] == pytest.approx(0.1)
    assert alone["ppv"]["low"] is alone["sensitivity"]["low"] is None


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1), st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter_and_bounds_are_in_order(seed, threshold, prevalence, random):
    y_true, y_prob, groups = sample(n=25, n_patients=10, seed=seed)
    rows = random.sample(range(25), 25)
    positive, score = y_true == 2, y_prob[:, 2]
    before = rates_at(positive, score, groups, threshold, prevalence, draws=60)
    after = rates_at(positive[rows], score[rows], groups[rows], threshold, prevalence, draws=60)
    for key, rate in before.items():
        assert after[key] == pytest.approx(rate)
        if rate["low"] is not None:
            assert 0 <= rate["low"] <= rate["high"] <= 1
        if rate["value"] is not None:
            assert 0 <= rate["value"] <= 1


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: at_prevalence(0.9, 0.9, 1.1), "prevalence must lie in 0..1"),
        (lambda: choose_threshold([True], [0.5], 0.0), "sensitivity wanted must lie"),
        (lambda: choose_threshold([True, False], [0.5]), "one score and one truth"),
        (lambda: rates_at([], [], [], 0.5, 0.1), "at least one image"),
        (lambda: rates_at([True], [np.nan], ["p"], 0.5, 0.1), "must be finite"),
        (lambda: rates_at([True], [0.5], [], 0.5, 0.1), "one patient for each"),
    ],
)
def test_unusable_input_is_refused_in_one_sentence(call, says):
    with pytest.raises(MetricsError, match=says):
        call()
