"""Intervals, against slow loops, statsmodels and cases worked by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from core.metrics.bootstrap import StatisticsError, draw_weights, wilson_interval
from core.metrics.classification import compute_metrics, flatten_metrics
from core.metrics.intervals import bootstrap_draws, bootstrap_intervals
from tests.support.predictions import NAMES, sample


def test_draws_equal_a_slow_loop_over_the_same_draws():
    y_true, y_prob, groups = sample(n=40, n_patients=12)
    patients = np.unique(groups)
    fast = bootstrap_draws(y_true, y_prob, groups, NAMES, draws=50, seed=7)
    (weights,) = draw_weights(len(patients), 50, 7)
    whole = flatten_metrics(compute_metrics(y_true, y_prob, NAMES))
    assert set(fast) == set(whole)
    for draw in range(50):
        rows = [
            row
            for patient, times in zip(patients, weights[:, draw], strict=True)
            for row in np.flatnonzero(groups == patient).tolist() * int(times)
        ]
        slow = flatten_metrics(compute_metrics(y_true[rows], y_prob[rows], NAMES))
        if any(slow[f"auc.{name}"] is None for name in NAMES):
            slow["auc"] = None
        for key, value in slow.items():
            if value is None:
                assert np.isnan(fast[key][draw])
            else:
                assert fast[key][draw] == pytest.approx(value, abs=1e-12), key


def test_draws_without_a_class_give_zero_and_no_auc():
    y_true = np.array([0, 1, 1, 2, 2, 1])
    y_prob = np.eye(3)[y_true] * 0.7 + 0.1
    groups = np.arange(6)
    values = bootstrap_draws(y_true, y_prob, groups, NAMES, draws=400, seed=1)
    (weights,) = draw_weights(6, 400, 1)
    without_covid = weights[0] == 0
    assert 50 < without_covid.sum() < 250
    assert (values["recall.covid"][without_covid] == 0).all()
    assert (values["recall.covid"][~without_covid] == 1).all()
    assert (np.isnan(values["auc.covid"]) == without_covid).all()
    assert (values["balanced_accuracy"] == 1).all()


def test_skipped_auc_draws_are_counted():
    y_true = np.array([0, 0, 1, 1, 2, 2])
    y_prob = np.array([[5, 3, 2], [2, 5, 3], [3, 5, 2], [5, 3, 2], [2, 3, 5], [5, 2, 3]]) / 10
    intervals = bootstrap_intervals(y_true, y_prob, np.arange(6), NAMES, draws=300, seed=2)
    assert 100 < intervals["auc.covid"]["draws"] < 300
    assert intervals["auc"]["draws"] < intervals["auc.covid"]["draws"]
    assert intervals["macro_f1"]["draws"] == 300


def test_weights_are_multinomial_and_free_of_chunking(monkeypatch):
    whole = np.concatenate(list(draw_weights(40, 3000, 5)), axis=1)
    assert (whole.sum(axis=0) == 40).all()
    assert whole.mean(axis=1) == pytest.approx(np.ones(40), abs=0.1)
    assert whole.var() == pytest.approx(1 - 1 / 40, rel=0.02)
    monkeypatch.setattr("core.metrics.bootstrap.CHUNK_CELLS", 7 * 40)
    assert np.array_equal(np.concatenate(list(draw_weights(40, 3000, 5)), axis=1), whole)


def test_intervals_are_the_quantiles_of_the_draws():
    y_true, y_prob, groups = sample()
    values = bootstrap_draws(y_true, y_prob, groups, NAMES, draws=200, seed=3)
    intervals = bootstrap_intervals(y_true, y_prob, groups, NAMES, draws=200, seed=3, level=0.9)
    estimates = flatten_metrics(compute_metrics(y_true, y_prob, NAMES))
    assert set(intervals) == set(estimates)
    for key, interval in intervals.items():
        assert set(interval) == {"low", "high", "level", "method", "unit", "draws", "seed"}
        shift = values["ece"].mean() - estimates["ece"] if key == "ece" else 0
        assert interval["low"] == pytest.approx(np.nanquantile(values[key], 0.05) - shift)
        assert interval["high"] == pytest.approx(np.nanquantile(values[key], 0.95) - shift)
        method = "percentile, shifted" if key == "ece" else "percentile"
        assert (interval["method"], interval["unit"]) == (method, "patient")
        assert (interval["level"], interval["seed"], interval["draws"]) == (0.9, 3, 200)


def test_ece_of_a_calibrated_model_lies_in_its_own_interval():
    inside = 0
    for seed in range(30):
        rng = np.random.default_rng(seed)
        y_prob = rng.dirichlet(np.ones(3), size=200)
        y_true = (rng.random((200, 1)) > y_prob.cumsum(axis=1)).sum(axis=1).clip(0, 2)
        ece = compute_metrics(y_true, y_prob, NAMES)["ece"]
        interval = bootstrap_intervals(y_true, y_prob, np.arange(200), NAMES, draws=200)["ece"]
        inside += interval["low"] <= ece <= interval["high"]
    assert inside == 30


def test_interval_of_accuracy_matches_theory_with_one_image_a_patient():
    y_true = np.array([0, 1] * 200)
    right = np.arange(400) % 5 > 0
    y_prob = np.where((y_true == 0) == right, 0.9, 0.1)[:, None] * [1, -1] + [0, 1]
    interval = bootstrap_intervals(y_true, y_prob, np.arange(400), ["a", "b"])["accuracy"]
    half = 1.96 * np.sqrt(0.8 * 0.2 / 400)
    assert interval["low"] == pytest.approx(0.8 - half, abs=0.005)
    assert interval["high"] == pytest.approx(0.8 + half, abs=0.005)


def test_patients_with_many_images_widen_the_interval():
    y_true = np.repeat(np.arange(2), 100)
    right = np.repeat(np.arange(40) % 4 > 0, 5)
    y_prob = np.where((y_true == 0) == right, 0.9, 0.1)[:, None] * [1, -1] + [0, 1]

    def width(groups):
        interval = bootstrap_intervals(y_true, y_prob, groups, ["a", "b"])["accuracy"]
        return interval["high"] - interval["low"]

    assert width(np.arange(200) // 5) / width(np.arange(200)) == pytest.approx(5**0.5, rel=0.1)


def test_perfect_classifier_gets_wilson_on_patients():
    y_true = np.array([0, 0, 0, 1, 1, 2])
    groups = ["p", "p", "q", "r", "s", "t"]
    intervals = bootstrap_intervals(y_true, np.eye(3)[y_true], groups, NAMES)
    low, high = proportion_confint(2, 2, method="wilson")  # two covid patients, three images
    assert intervals["recall.covid"]["low"] == pytest.approx(low)
    assert intervals["recall.covid"]["high"] == pytest.approx(high) == 1
    assert intervals["recall.covid"]["method"] == "wilson"
    assert intervals["accuracy"]["low"] == pytest.approx(
        proportion_confint(5, 5, method="wilson")[0]
    )
    assert intervals["f1.covid"]["low"] == pytest.approx(2 * low / (1 + low))
    assert intervals["auc.covid"]["low"] == pytest.approx(low)
    # Two covid patients, two normal, one pneumonia: the macro mean takes the mean of the bounds.
    one = proportion_confint(1, 1, method="wilson")[0]
    assert intervals["macro_recall"]["low"] == pytest.approx((low + low + one) / 3)
    assert intervals["binary.covid_vs_rest.sensitivity"] == intervals["recall.covid"]


def test_constant_classifier_gets_wilson_at_zero():
    y_true = np.array([0, 0, 1, 1, 1, 2])
    y_prob = np.tile([0.2, 0.5, 0.3], (6, 1))
    intervals = bootstrap_intervals(y_true, y_prob, list("uvwxyz"), NAMES)
    assert intervals["recall.covid"]["low"] == 0
    assert intervals["recall.covid"]["high"] == pytest.approx(
        proportion_confint(0, 2, method="wilson")[1]
    )
    never_called = intervals["precision.covid"]
    assert (never_called["low"], never_called["high"]) == (0, 1)
    assert intervals["recall.normal"]["low"] < 1 == intervals["recall.normal"]["high"]
    assert intervals["accuracy"]["method"] == "percentile"


def test_absent_class_and_one_patient_are_undefined_not_certain():
    y_true, y_prob = np.array([0, 1, 1]), np.array([[0.6, 0.3, 0.1]] * 3)
    intervals = bootstrap_intervals(y_true, y_prob, ["a", "b", "c"], NAMES, draws=100)
    assert intervals["auc.pneumonia"]["method"] == "undefined"
    assert intervals["auc.pneumonia"]["low"] is None
    assert (intervals["recall.pneumonia"]["low"], intervals["recall.pneumonia"]["high"]) == (0, 1)
    alone = bootstrap_intervals(y_true, y_prob, ["a"] * 3, NAMES, draws=100)
    assert alone["accuracy"]["low"] is None
    assert alone["log_loss"]["method"] == "undefined"
    only_covid = bootstrap_intervals(np.zeros(3, int), y_prob, ["a", "b", "c"], NAMES, draws=100)
    assert only_covid["auc"]["low"] is None
    assert only_covid["recall.covid"]["method"] == "wilson"


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 12), st.randoms(use_true_random=False))
def test_row_order_does_not_matter_and_bounds_are_in_order(seed, n_patients, random):
    y_true, y_prob, groups = sample(n=20, n_patients=n_patients, seed=seed)
    rows = random.sample(range(20), 20)
    before = bootstrap_intervals(y_true, y_prob, groups, NAMES, draws=60, seed=seed)
    after = bootstrap_intervals(
        y_true[rows], y_prob[rows], groups[rows], NAMES, draws=60, seed=seed
    )
    for key, interval in before.items():
        assert after[key] == pytest.approx(interval)
        if interval["low"] is not None:
            assert interval["low"] <= interval["high"]


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(3)))
def test_class_order_does_not_matter(seed, order):
    y_true, y_prob, groups = sample(n=30, n_patients=12, seed=seed, decimals=6)
    place = np.argsort(order)
    before = bootstrap_intervals(y_true, y_prob, groups, NAMES, draws=60)
    after = bootstrap_intervals(
        place[y_true], y_prob[:, order], groups, [NAMES[k] for k in order], draws=60
    )
    for key, interval in before.items():
        assert after[key] == pytest.approx(interval)


def test_one_image():
    intervals = bootstrap_intervals(np.array([0]), np.array([[0.6, 0.3, 0.1]]), ["p"], NAMES)
    assert intervals["accuracy"]["low"] == pytest.approx(
        proportion_confint(1, 1, method="wilson")[0]
    )


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (5, 5), (3, 10), (82, 82), (1, 1)])
def test_wilson_is_statsmodels(successes, trials):
    expected = proportion_confint(successes, trials, method="wilson")
    assert wilson_interval(successes, trials) == pytest.approx(expected, abs=1e-12)
    low, high = wilson_interval(successes, trials)
    assert low <= successes / trials <= high


def test_groups_must_fit():
    y_true, y_prob, groups = sample()
    with pytest.raises(StatisticsError, match="one patient for each"):
        bootstrap_intervals(y_true, y_prob, groups[:-1], NAMES)
    with pytest.raises(StatisticsError, match="have no patient"):
        bootstrap_intervals(y_true, y_prob, [None, *groups[1:]], NAMES)
    with pytest.raises(StatisticsError, match="draws"):
        bootstrap_intervals(y_true, y_prob, groups, NAMES, draws=0)
