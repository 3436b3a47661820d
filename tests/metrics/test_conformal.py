"""Prediction sets: worked by hand, against numpy's quantile, and their promise by simulation."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from statsmodels.stats.proportion import proportion_confint

from core.metrics.bootstrap import draw_weights
from core.metrics.classification import MetricsError
from core.metrics.conformal import evaluate_sets, fit_conformal, prediction_sets
from tests.support.predictions import NAMES, sample


def given_to_truth(p_true):
    """y_true and y_prob of two classes whose true one gets p_true (n,)."""
    p_true = np.asarray(p_true, dtype=float)
    return np.zeros(len(p_true), dtype=int), np.stack([p_true, 1 - p_true], axis=1)


# ------------------------------------------------------------------------------ fitting


def test_threshold_worked_by_hand():
    # 19 patients, alpha 0.1: ceil(20 * 0.9) = 18th smallest of 1 - p, so the 2nd smallest p.
    p_true = np.arange(1, 20) / 20
    entry = fit_conformal(*given_to_truth(p_true), np.arange(19), alpha=0.1)
    assert entry == {"alpha": 0.1, "threshold": 0.1, "n": 19, "n_images": 19}
    # alpha 0.25: ceil(20 * 0.75) = 15th smallest of 1 - p, so the 5th smallest p.
    assert fit_conformal(*given_to_truth(p_true), np.arange(19), 0.25)["threshold"] == 0.25


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 120), st.sampled_from([0.05, 0.1, 0.2, 0.3]))
def test_threshold_is_numpys_quantile(seed, n, alpha):
    y_true, y_prob, _ = sample(n=max(n, 3), seed=seed, decimals=6)
    n = len(y_true)
    entry = fit_conformal(y_true, y_prob, np.arange(n), alpha)
    level = np.ceil(np.round((n + 1) * (1 - alpha), 9)) / n
    if level > 1:
        assert entry["threshold"] == 0
    else:
        score = 1 - y_prob[np.arange(n), y_true]
        # The quantile of a whole number of n cases; rounding must not make it the next one.
        expected = 1 - np.quantile(score, level - 1e-9, method="inverted_cdf")
        assert entry["threshold"] == pytest.approx(expected)


def test_too_few_patients_admit_every_class():
    nine = given_to_truth(np.linspace(0.5, 0.9, 9))
    assert fit_conformal(*nine, np.arange(9), 0.1)["threshold"] == 0.5
    entry = fit_conformal(*nine, [0, *range(8)], 0.1)  # eight patients: nine would do
    assert entry["threshold"] == 0 and entry["n"] == 8
    sets = prediction_sets(np.array([[1.0, 0.0], [0.3, 0.7]]), entry["threshold"])
    assert sets.all()
    one = fit_conformal(*given_to_truth([0.9]), ["p"])
    assert (one["threshold"], one["n"]) == (0, 1)


def test_one_image_counts_for_a_patient():
    # A hundred poor images of one patient, and 29 patients with a good one each.
    p_true = np.concatenate([np.full(100, 0.01), np.linspace(0.6, 0.9, 29)])
    groups = np.concatenate([np.zeros(100, int), np.arange(1, 30)])
    entry = fit_conformal(*given_to_truth(p_true), groups)
    assert (entry["n"], entry["n_images"]) == (30, 129)
    assert entry["threshold"] >= 0.6


def test_every_image_of_a_patient_can_be_drawn_and_the_seed_decides():
    data = (*given_to_truth([0.1, 0.2, 0.3] * 3), np.repeat(np.arange(3), 3))
    found, again = (
        [fit_conformal(*data, alpha=0.25, seed=seed)["threshold"] for seed in range(60)]
        for _ in range(2)
    )
    assert found == again
    # The smallest of three draws: 0.1 but where none of the patients drew it.
    assert set(found) == {0.1, 0.2, 0.3}
    assert np.mean(np.array(found) == 0.1) == pytest.approx(19 / 27, abs=0.15)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_order_of_rows_does_not_matter(seed, random):
    y_true, y_prob, groups = sample(n=40, seed=seed)
    rows = random.sample(range(40), 40)
    before = fit_conformal(y_true, y_prob, groups, 0.2, seed=seed)
    assert fit_conformal(y_true[rows], y_prob[rows], groups[rows], 0.2, seed=seed) == before
    sets = prediction_sets(y_prob, before["threshold"])
    found = evaluate_sets(y_true, sets, groups, NAMES, draws=40)
    again = evaluate_sets(y_true[rows], sets[rows], groups[rows], NAMES, draws=40)
    for key in ("coverage", "patient_coverage", "mean_size"):
        assert again[key] == pytest.approx(found[key])
    assert again["sizes"] == found["sizes"]


def test_promised_coverage_holds_by_simulation():
    """Patients with one to six images alike: coverage of a new patient's image is 1 - alpha."""
    rng = np.random.default_rng(0)
    covered = []
    for seed in range(400):
        images = rng.integers(1, 7, 60)
        groups = np.repeat(np.arange(60), images)
        y_of_patient = rng.integers(0, 3, 60)
        shift = rng.normal(size=(60, 3)) + 1.5 * np.eye(3)[y_of_patient]
        y_prob = softmax(shift[groups] + 0.3 * rng.normal(size=(len(groups), 3)), axis=1)
        y_true = y_of_patient[groups]
        fitted = groups < 40
        entry = fit_conformal(y_true[fitted], y_prob[fitted], groups[fitted], 0.2, seed=seed)
        sets = y_prob[~fitted] >= entry["threshold"]
        hit = sets[np.arange(len(sets)), y_true[~fitted]]
        of = groups[~fitted]
        covered.append(np.mean([hit[of == patient].mean() for patient in range(40, 60)]))
    # Exactly ceil(41 * 0.8) / 41 = 33 / 41 = 0.805 in expectation (Vovk et al. 2005).
    assert np.mean(covered) == pytest.approx(33 / 41, abs=0.012)


# ------------------------------------------------------------------------------ sets


def test_sets_by_hand_never_empty_and_closed_at_the_threshold():
    y_prob = np.array([[0.5, 0.3, 0.2], [0.4, 0.35, 0.25], [0.34, 0.33, 0.33]])
    assert prediction_sets(y_prob, 0.3).tolist() == [
        [True, True, False],
        [True, True, False],
        [True, True, True],
    ]
    assert prediction_sets(y_prob, 0.9).tolist() == [[True, False, False]] * 3
    tied = prediction_sets(np.array([[0.2, 0.4, 0.4]]), 0.5)
    assert tied.tolist() == [[False, True, False]]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1))
def test_a_lower_threshold_never_takes_a_class_out(seed, a, b):
    _, y_prob, _ = sample(n=20, seed=seed)
    wide, narrow = prediction_sets(y_prob, min(a, b)), prediction_sets(y_prob, max(a, b))
    assert (wide | ~narrow).all()
    assert narrow.any(axis=1).all()


# ------------------------------------------------------------------------------ measuring


def test_evaluation_worked_by_hand():
    sets = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 1, 1], [1, 1, 1]], dtype=bool)
    y_true = np.array([0, 0, 0, 1, 2])
    found = evaluate_sets(y_true, sets, ["p", "p", "p", "q", "r"], NAMES)
    assert (found["n"], found["n_patients"]) == (5, 3)
    assert found["coverage"]["value"] == pytest.approx(4 / 5)
    assert found["patient_coverage"]["value"] == pytest.approx((2 / 3 + 1 + 1) / 3)
    assert found["mean_size"]["value"] == pytest.approx(9 / 5)
    assert found["sizes"] == {1: 2, 2: 2, 3: 1}
    covid, normal = found["by_class"]["covid"], found["by_class"]["normal"]
    assert covid == {"value": 2 / 3, "low": None, "high": None, "n": 3, "n_patients": 1}
    low, high = proportion_confint(1, 1, method="wilson")
    assert (normal["low"], normal["high"]) == pytest.approx((low, high))
    assert (normal["value"], normal["n"], normal["n_patients"]) == (1, 1, 1)
    read = json.loads(json.dumps(found, allow_nan=False))
    assert read["sizes"] == {"1": 2, "2": 2, "3": 1}


def test_intervals_are_quantiles_over_drawn_patients():
    y_true, y_prob, groups = sample(n=80, n_patients=40)
    sets = prediction_sets(y_prob, 0.25)
    found = evaluate_sets(y_true, sets, groups, NAMES, draws=200, seed=4)
    patients = np.unique(groups)
    (weights,) = draw_weights(len(patients), 200, 4)
    covered = sets[np.arange(80), y_true]
    own = {p: groups == p for p in patients}
    rows = [
        [p for p, times in zip(patients, column, strict=True) for _ in range(int(times))]
        for column in weights.T
    ]
    rows = [np.concatenate([np.flatnonzero(own[p]) for p in drawn]) for drawn in rows]
    expected = {
        "coverage": [covered[r].mean() for r in rows],
        "mean_size": [sets[r].sum(axis=1).mean() for r in rows],
        "patient_coverage": [
            np.average([covered[own[p]].mean() for p in patients], weights=column)
            for column in weights.T
        ],
        "covid": [covered[r][y_true[r] == 0].mean() for r in rows],
    }
    for key, values in expected.items():
        estimate = found["by_class"]["covid"] if key == "covid" else found[key]
        assert (estimate["low"], estimate["high"]) == pytest.approx(
            tuple(np.quantile(values, [0.025, 0.975]))
        )


def test_sets_of_one_size_and_full_coverage_get_wilson():
    y_true = np.array([0, 1, 2, 0])
    everything = evaluate_sets(y_true, np.ones((4, 3), bool), list("abcd"), NAMES)
    low = proportion_confint(4, 4, method="wilson")[0]
    assert everything["coverage"] == pytest.approx({"value": 1, "low": low, "high": 1})
    assert everything["patient_coverage"] == pytest.approx(everything["coverage"])
    assert everything["mean_size"] == pytest.approx({"value": 3, "low": 1 + 2 * low, "high": 3})
    single = evaluate_sets(y_true, np.eye(3, dtype=bool)[y_true], list("abcd"), NAMES)
    assert single["mean_size"]["value"] == single["mean_size"]["low"] == 1
    assert single["mean_size"]["high"] > 1
    pairs = np.array([[1, 1, 0], [0, 1, 1], [1, 0, 1], [1, 1, 0]], dtype=bool)
    size = evaluate_sets(y_true, pairs, list("abcd"), NAMES)["mean_size"]
    assert size["low"] < size["value"] == 2 < size["high"]


def test_absent_class_one_image_and_one_patient():
    found = evaluate_sets(np.array([0]), np.array([[True, True, False]]), ["p"], NAMES)
    assert found["coverage"]["value"] == 1 and 0 < found["coverage"]["low"] < 1
    assert found["mean_size"]["value"] == 2
    absent = found["by_class"]["pneumonia"]
    assert absent == {"value": None, "low": None, "high": None, "n": 0, "n_patients": 0}
    sets = np.array([[True, False], [True, True]])
    alone = evaluate_sets(np.array([1, 1]), sets, ["p", "p"], ["a", "b"], draws=20)
    assert alone["coverage"] == {"value": 0.5, "low": None, "high": None}
    assert alone["mean_size"] == {"value": 1.5, "low": None, "high": None}


def test_unusable_input_is_refused_in_one_sentence():
    y_true, y_prob, groups = sample()
    with pytest.raises(MetricsError, match="alpha must lie between 0 and 1"):
        fit_conformal(y_true, y_prob, groups, 0)
    with pytest.raises(MetricsError, match="none empty"):
        evaluate_sets(y_true, np.zeros((60, 3), bool), groups, NAMES)
    with pytest.raises(MetricsError, match="one true label"):
        evaluate_sets(y_true[1:], np.ones((60, 3), bool), groups, NAMES)
    with pytest.raises(MetricsError, match="one patient for each"):
        fit_conformal(y_true, y_prob, groups[1:])
