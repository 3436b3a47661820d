"""Calibration, against scipy's optimiser, scikit-learn, statsmodels and Bayes' own formula."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from scipy.special import softmax
from scipy.stats import norm
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve
from statsmodels.stats.proportion import proportion_confint

from core.metrics.bootstrap import draw_weights
from core.metrics.calibration import (
    COLDEST,
    HOTTEST,
    apply_calibration,
    calibrate,
    calibrated_metrics,
    class_shares,
    fit_calibration,
    fit_temperature,
    reliability,
    take_out_weights,
)
from core.metrics.classification import MetricsError, compute_metrics
from core.metrics.intervals import bootstrap_draws, bootstrap_intervals
from tests.support.predictions import NAMES, sample


def true_to(y_prob, seed=0):
    """Labels (n,) drawn from the probabilities themselves."""
    rng = np.random.default_rng(seed)
    n_classes = y_prob.shape[1]
    drawn = (rng.random((len(y_prob), 1)) > y_prob.cumsum(axis=1)).sum(axis=1)
    return drawn.clip(0, n_classes - 1)


def normal_model(x, prior):
    """P(class | x) (n, 3) by Bayes for three normal distributions and a prior."""
    joint = norm.pdf(x[:, None], loc=[-1, 0, 1.5]) * prior
    return joint / joint.sum(axis=1, keepdims=True)


# ------------------------------------------------------------------------------ class weights


def test_weights_taken_out_worked_by_hand():
    after = take_out_weights(np.array([[0.6, 0.3, 0.1]]), [0.1, 0.5, 0.4])
    assert after == pytest.approx(np.array([[0.06, 0.15, 0.04]]) / 0.25)


def test_a_model_of_equal_classes_becomes_the_model_of_the_real_shares():
    x = np.linspace(-4, 4, 50)
    prior = np.array([0.1, 0.45, 0.45])
    balanced = normal_model(x, np.full(3, 1 / 3))
    assert take_out_weights(balanced, prior) == pytest.approx(normal_model(x, prior))
    assert take_out_weights(balanced, [1, 1, 1]) == pytest.approx(balanced)


def test_calibrate_is_the_formula_and_nothing_by_default():
    _, y_prob, _ = sample()
    prior = np.array([0.2, 0.3, 0.5])
    expected = softmax((np.log(y_prob) + np.log(prior)) / 1.7, axis=1)
    assert calibrate(y_prob, prior, 1.7) == pytest.approx(expected)
    assert calibrate(y_prob) == pytest.approx(y_prob)


def test_certain_and_impossible_classes_stay_finite():
    y_prob = np.array([[1.0, 0.0, 0.0], [0.0, 0.5, 0.5]])
    for after in (calibrate(y_prob, [0.0, 0.5, 0.5], 0.1), calibrate(y_prob, None, 10.0)):
        assert np.isfinite(after).all()
        assert after.sum(axis=1) == pytest.approx(1)
    assert calibrate(y_prob, None, 2.0).argmax(axis=1).tolist() == [0, 1]


def test_class_shares_count_the_labels():
    shares = class_shares(["covid", "normal", "normal", "other"], NAMES)
    assert shares == {"covid": 1 / 3, "normal": 2 / 3, "pneumonia": 0.0}
    with pytest.raises(MetricsError, match="No label is one of"):
        class_shares(["other"], NAMES)


# ------------------------------------------------------------------------------ temperature


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.floats(0, 3))
def test_temperature_is_scipys_optimum_of_scikit_learns_log_loss(seed, skill):
    y_true, y_prob, _ = sample(n=80, seed=seed, skill=skill, decimals=6)

    def loss(log_temperature):
        after = softmax(np.log(y_prob) / np.exp(log_temperature), axis=1)
        return sk.log_loss(y_true, after, labels=[0, 1, 2])

    fitted = fit_temperature(y_true, y_prob)
    best = minimize_scalar(
        loss, bounds=np.log([COLDEST, HOTTEST]), method="bounded", options={"xatol": 1e-9}
    )
    assert loss(np.log(fitted)) <= best.fun + 1e-9
    assert loss(np.log(fitted)) <= loss(0.0) + 1e-12
    if COLDEST * 1.01 < fitted < HOTTEST * 0.99:
        assert fitted == pytest.approx(np.exp(best.x), rel=1e-3)


@pytest.mark.parametrize("temperature", [0.4, 1.0, 2.5])
def test_a_known_temperature_is_found(temperature):
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (20_000, 3))
    y_true = true_to(softmax(logits / temperature, axis=1))
    assert fit_temperature(y_true, softmax(logits, axis=1)) == pytest.approx(temperature, rel=0.05)


def test_temperature_of_perfect_hopeless_and_constant_classifiers():
    y_true = np.arange(30) % 3
    sure = np.eye(3)[y_true] * 0.9 + 0.1 / 3
    assert fit_temperature(y_true, sure) == COLDEST
    assert fit_temperature((y_true + 1) % 3, sure) == HOTTEST
    assert fit_temperature(y_true, np.full((30, 3), 1 / 3)) == 1
    assert fit_temperature(y_true, np.eye(3)[y_true]) == COLDEST
    assert fit_temperature(np.array([0]), np.array([[0.2, 0.5, 0.3]])) == HOTTEST


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(3)), st.randoms(use_true_random=False))
def test_order_of_rows_and_classes_does_not_matter(seed, order, random):
    y_true, y_prob, groups = sample(n=30, seed=seed, decimals=6)
    rows = random.sample(range(30), 30)
    prior = {"covid": 0.1, "normal": 0.6, "pneumonia": 0.3}
    names = [NAMES[k] for k in order]
    before = fit_calibration(y_true, y_prob, groups, prior, NAMES, draws=50)
    turned = np.argsort(order)[y_true][rows], y_prob[rows][:, order], groups[rows]
    after = fit_calibration(*turned, prior, names, draws=50)
    for key in ("temperature", "low", "high"):
        assert after[key] == pytest.approx(before[key], rel=1e-6)
    expected = apply_calibration(y_prob, before, NAMES)[rows][:, order]
    assert apply_calibration(turned[1], after, names) == pytest.approx(expected, abs=1e-6)
    # One temperature for all classes never changes which class comes first.
    calm = apply_calibration(y_prob, before | {"prior": None}, NAMES)
    assert (calm.argmax(axis=1) == y_prob.argmax(axis=1)).all()


def test_interval_of_the_temperature_is_that_of_refitting_to_drawn_patients():
    y_true, y_prob, groups = sample(n=200, n_patients=80, skill=1.5, decimals=6)
    prior = {"covid": 0.2, "normal": 0.4, "pneumonia": 0.4}
    entry = fit_calibration(y_true, y_prob, groups, prior, NAMES, draws=60, seed=3)
    patients = np.unique(groups)
    (weights,) = draw_weights(len(patients), 60, 3)
    unweighted = take_out_weights(y_prob, list(prior.values()))
    temperatures = []
    for draw in range(60):
        rows = [
            row
            for patient, times in zip(patients, weights[:, draw], strict=True)
            for row in np.flatnonzero(groups == patient).tolist() * int(times)
        ]
        temperatures.append(fit_temperature(y_true[rows], unweighted[rows]))
    expected = np.quantile(temperatures, [0.025, 0.975])
    assert (entry["low"], entry["high"]) == pytest.approx(tuple(expected), rel=0.01)
    assert entry["temperature"] == pytest.approx(fit_temperature(y_true, unweighted))
    assert entry["low"] < entry["temperature"] < entry["high"]


def test_the_entry_of_run_json_holds_what_applying_it_needs():
    y_true, y_prob, groups = sample()
    prior = class_shares(np.array(NAMES)[y_true], NAMES)
    entry = fit_calibration(y_true, y_prob, groups, prior, NAMES, draws=50)
    assert set(entry) == {*("temperature", "low", "high", "prior", "weighted", "n", "n_patients")}
    assert (entry["n"], entry["n_patients"]) == (60, len(set(groups)))
    assert entry["weighted"] and entry["prior"] == prior
    read = json.loads(json.dumps(entry, sort_keys=True))
    expected = calibrate(y_prob, [prior[name] for name in NAMES], entry["temperature"])
    assert apply_calibration(y_prob, read, NAMES) == pytest.approx(expected)
    assert np.array_equal(apply_calibration(y_prob, None, NAMES), y_prob)
    plain = fit_calibration(y_true, y_prob, groups, None, NAMES, draws=50)
    assert not plain["weighted"] and plain["prior"] is None
    assert plain["temperature"] == pytest.approx(fit_temperature(y_true, y_prob))


def test_one_patient_and_one_image_have_a_temperature_without_an_interval():
    y_true, y_prob, _ = sample(n=10)
    for rows in (slice(None), slice(1)):
        groups = ["p"] * len(y_true[rows])
        entry = fit_calibration(y_true[rows], y_prob[rows], groups, None, NAMES)
        assert COLDEST <= entry["temperature"] <= HOTTEST
        assert entry["low"] is entry["high"] is None


# ------------------------------------------------------------------------------ reliability


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([5, 10, 15]))
def test_reliability_of_a_class_is_scikit_learns(seed, bins):
    y_true, y_prob, groups = sample(n=80, seed=seed, decimals=6)
    for k in range(3):
        table = reliability(y_true, y_prob, groups, bins, k=k)
        filled = table[table["n"] > 0]
        share, mean = calibration_curve(y_true == k, y_prob[:, k], n_bins=bins)
        assert filled["accuracy"].to_numpy() == pytest.approx(share)
        assert filled["confidence"].to_numpy() == pytest.approx(mean)
        assert table["n"].sum() == 80 and len(table) == bins


def test_the_diagram_adds_up_to_ece_and_accuracy():
    y_true, y_prob, groups = sample(n=150, n_patients=80)
    table = reliability(y_true, y_prob, groups)
    metrics = compute_metrics(y_true, y_prob, NAMES)
    filled = table[table["n"] > 0]
    gap = (filled["accuracy"] - filled["confidence"]).abs()
    assert (gap * filled["n"]).sum() / 150 == pytest.approx(metrics["ece"])
    assert (filled["accuracy"] * filled["n"]).sum() / 150 == pytest.approx(metrics["accuracy"])
    assert table["low"].to_numpy() == pytest.approx(np.arange(15) / 15)
    assert table["high"].to_numpy() == pytest.approx(np.arange(1, 16) / 15)


def test_bins_worked_by_hand():
    y_prob = np.array([[0.5, 0.5], [0.6, 0.4], [0.61, 0.39], [0.7, 0.3], [1.0, 0.0]])
    y_true = np.array([0, 1, 0, 0, 0])
    table = reliability(y_true, y_prob, ["p", "q", "r", "r", "s"], bins=5)
    assert table["n"].tolist() == [0, 0, 2, 2, 1]  # 0.6 belongs to the bin that ends there
    assert table["n_patients"].tolist() == [0, 0, 2, 1, 1]
    assert table["confidence"].tolist()[2:] == pytest.approx([0.55, 0.655, 1.0])
    assert table["accuracy"].tolist()[2:] == [0.5, 1, 1]
    for row, (right, patients) in zip([2, 3, 4], [(1, 2), (1, 1), (1, 1)], strict=True):
        expected = proportion_confint(right, patients, method="wilson")
        assert tuple(table.loc[row, ["acc_low", "acc_high"]]) == pytest.approx(expected)
    assert table.loc[:1, ["confidence", "accuracy", "acc_low", "acc_high"]].isna().all(axis=None)


# ------------------------------------------------------------------------------ before, after


def test_scores_and_intervals_are_those_of_metrics_json():
    y_true, y_prob, groups = sample(n=120, n_patients=60)
    after = calibrate(y_prob, [0.2, 0.5, 0.3], 1.5)
    result = calibrated_metrics(y_true, y_prob, after, groups, NAMES, draws=300, seed=2)
    drawn = {}
    for name, probabilities in (("before", y_prob), ("after", after)):
        metrics = compute_metrics(y_true, probabilities, NAMES)
        drawn[name] = bootstrap_draws(y_true, probabilities, groups, NAMES, draws=300, seed=2)
        intervals = bootstrap_intervals(y_true, probabilities, groups, NAMES, draws=300, seed=2)
        assert set(result[name]["intervals"]) == {"log_loss", "brier", "ece", "accuracy"}
        for key, interval in result[name]["intervals"].items():
            assert result[name][key] == pytest.approx(metrics[key])
            assert interval == pytest.approx(intervals[key])
    for key in ("log_loss", "brier", "accuracy", "ece"):
        difference = drawn["after"][key] - drawn["before"][key]
        change = result["change"][key]
        if key == "ece":  # the draws of ECE lie above the estimate
            difference -= difference.mean() - change["value"]
        assert change["value"] == pytest.approx(result["after"][key] - result["before"][key])
        expected = tuple(np.quantile(difference, [0.025, 0.975]))
        assert (change["low"], change["high"]) == pytest.approx(expected)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_calibrating_an_overconfident_model_helps_on_images_it_was_not_fitted_on():
    rng = np.random.default_rng(5)
    logits = rng.normal(0, 1.5, (1200, 3))
    y_true = true_to(softmax(logits, axis=1))
    y_prob = softmax(3 * logits, axis=1)
    fitted, tested = slice(0, 600), slice(600, None)
    entry = fit_calibration(y_true[fitted], y_prob[fitted], np.arange(600), None, NAMES)
    assert entry["low"] < 3 < entry["high"]
    after = apply_calibration(y_prob[tested], entry, NAMES)
    result = calibrated_metrics(y_true[tested], y_prob[tested], after, np.arange(600), NAMES)
    for key in ("log_loss", "brier", "ece"):
        assert result["change"][key]["high"] < 0
    assert result["change"]["accuracy"]["value"] == 0


def test_no_change_is_no_change_and_extremes_get_wilson():
    y_true, y_prob, groups = sample()
    same = calibrated_metrics(y_true, y_prob, y_prob, groups, NAMES, draws=50)
    assert same["before"] == same["after"]
    for change in same["change"].values():
        assert change == pytest.approx({"value": 0, "low": 0, "high": 0})
    sure = np.eye(3)[y_true]
    perfect = calibrated_metrics(y_true, sure, sure, groups, NAMES, draws=50)["after"]
    assert perfect["intervals"]["accuracy"]["method"] == "wilson"
    assert perfect["intervals"]["accuracy"]["low"] < 1
    alone = calibrated_metrics(y_true, y_prob, sure, ["p"] * 60, NAMES, draws=50)
    assert alone["before"]["intervals"]["brier"]["low"] is None
    assert alone["change"]["brier"]["low"] is None


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: calibrate(np.eye(2), [0.5]), "one share for each of 2 classes"),
        (lambda: calibrate(np.eye(2), [0.5, -0.5]), "one share for each"),
        (lambda: calibrate(np.eye(2), None, 0), "temperature must be above 0"),
        (lambda: fit_calibration(*sample(), {"covid": 1.0}, NAMES), "no share for normal"),
        (lambda: reliability(*sample(), bins=0), "at least one bin, not 0"),
        (lambda: reliability(*sample(), k=3), "one of .0, 1, 2., not 3"),
    ],
)
def test_unusable_input_is_refused_in_one_sentence(call, says):
    with pytest.raises(MetricsError, match=says):
        call()
