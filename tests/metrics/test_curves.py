"""Curves and their bands, against scikit-learn, slow loops, Hanley & McNeil and DeLong."""

import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from statsmodels.stats.proportion import proportion_confint

from core.metrics.bootstrap import draw_weights
from core.metrics.classification import MetricsError, compute_metrics
from core.metrics.curves import GRID, MACRO, curve_bands
from core.metrics.intervals import bootstrap_intervals
from core.metrics.ranking import score_steps, weighted_auc
from tests.support.predictions import NAMES, sample


def roc_by_scikit_learn(is_positive, score):
    """Sensitivity at each false positive rate of GRID; the upper value where it jumps."""
    fpr, tpr, _ = sk.roc_curve(is_positive, score, drop_intermediate=False)
    y = []
    for x in GRID:
        here = np.isclose(fpr, x, rtol=0, atol=1e-12)
        y.append(tpr[here].max() if here.any() else np.interp(x, fpr, tpr))
    return np.array(y)


def precision_by_scikit_learn(is_positive, score):
    """Precision where recall first reaches each recall of GRID (above 0 at 0)."""
    precision, recall, _ = sk.precision_recall_curve(is_positive, score)
    precision, recall = precision[:-1], recall[:-1]  # the point (0, 1) that it adds
    y = []
    for x in GRID:
        reached = recall[recall >= max(x - 1e-12, 1e-12)].min()
        y.append(precision[recall == reached].max())
    return np.array(y)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 3), st.integers(8, 60))
def test_curves_and_areas_are_scikit_learns(seed, decimals, n):
    y_true, y_prob, groups = sample(n=n, seed=seed, decimals=decimals)
    roc, pr = curve_bands(y_true, y_prob, groups, NAMES, draws=20)
    for k, name in enumerate(NAMES):
        truth, score = y_true == k, y_prob[:, k]
        assert roc[name].y == pytest.approx(roc_by_scikit_learn(truth, score))
        assert roc[name].area == pytest.approx(sk.roc_auc_score(truth, score))
        assert pr[name].y == pytest.approx(precision_by_scikit_learn(truth, score))
        assert pr[name].area == pytest.approx(sk.average_precision_score(truth, score))
        assert pr[name].baseline == pytest.approx(truth.mean())
        assert (roc[name].n, roc[name].n_positive) == (n, truth.sum())
        assert roc[name].baseline == 0.5
    for curves in (roc, pr):
        classes = [curves[name] for name in NAMES]
        assert curves[MACRO].y == pytest.approx(np.mean([c.y for c in classes], axis=0))
        assert curves[MACRO].area == pytest.approx(np.mean([c.area for c in classes]))
        assert curves[MACRO].baseline == pytest.approx(np.mean([c.baseline for c in classes]))
        assert curves[MACRO].n_positive == n


def test_bands_equal_a_slow_loop_over_the_same_draws():
    y_true, y_prob, groups = sample(n=60, n_patients=30)
    patients = np.unique(groups)
    roc, pr = curve_bands(y_true, y_prob, groups, NAMES, draws=40, seed=7)
    (weights,) = draw_weights(len(patients), 40, 7)
    ys, areas = {"roc": [], "pr": []}, {"roc": [], "pr": []}
    for draw in range(40):
        rows = [
            row
            for patient, times in zip(patients, weights[:, draw], strict=True)
            for row in np.flatnonzero(groups == patient).tolist() * int(times)
        ]
        truths = [(y_true[rows] == k, y_prob[rows, k]) for k in range(3)]
        ys["roc"].append([roc_by_scikit_learn(*t) for t in truths])
        ys["pr"].append([precision_by_scikit_learn(*t) for t in truths])
        areas["roc"].append([sk.roc_auc_score(*t) for t in truths])
        areas["pr"].append([sk.average_precision_score(*t) for t in truths])
    for kind, curves in (("roc", roc), ("pr", pr)):
        drawn, area = np.array(ys[kind]), np.array(areas[kind])
        columns = [*((drawn[:, k], area[:, k], name) for k, name in enumerate(NAMES))]
        columns.append((drawn.mean(axis=1), area.mean(axis=1), MACRO))
        for values, values_area, name in columns:
            curve = curves[name]
            between = (curve.y > 0) & (curve.y < 1)
            low, high = np.quantile(values, [0.025, 0.975], axis=0)
            assert between.sum() > 30
            assert curve.low[between] == pytest.approx(low[between])
            assert curve.high[between] == pytest.approx(high[between])
            bounds = np.quantile(values_area, [0.025, 0.975])
            assert (curve.area_low, curve.area_high) == pytest.approx(tuple(bounds))


def test_area_and_interval_are_those_of_metrics_json():
    y_true, y_prob, groups = sample(n=120, n_patients=60, seed=3)
    roc = curve_bands(y_true, y_prob, groups, NAMES, seed=5)[0]
    metrics = compute_metrics(y_true, y_prob, NAMES)
    intervals = bootstrap_intervals(y_true, y_prob, groups, NAMES, seed=5)
    for name in NAMES:
        assert roc[name].area == metrics["per_class"][name]["auc"]
        interval = intervals[f"auc.{name}"]
        assert (roc[name].area_low, roc[name].area_high) == (interval["low"], interval["high"])
    assert roc[MACRO].area == pytest.approx(metrics["auc"])
    macro = (roc[MACRO].area_low, roc[MACRO].area_high)
    assert macro == pytest.approx((intervals["auc"]["low"], intervals["auc"]["high"]))


def two_class(is_positive, score):
    """y_true and y_prob of classes (rest, it) whose second probability ranks as score does."""
    score = np.asarray(score, dtype=float)
    return np.asarray(is_positive, dtype=int), np.stack([1 - score, score], axis=1)


def test_hanley_and_mcneils_ratings():
    """CT ratings of 109 patients (Hanley & McNeil 1982, table I): area 0.893, its SE 0.032."""
    normal, abnormal = [33, 6, 6, 11, 2], [3, 2, 2, 11, 33]
    rating = np.repeat([1, 2, 3, 4, 5] * 2, normal + abnormal)
    data = two_class(np.repeat([0, 1], [sum(normal), sum(abnormal)]), rating / 6)
    curve = curve_bands(*data, np.arange(109), ["normal", "abnormal"])[0]["abnormal"]
    assert curve.area == pytest.approx(0.893, abs=0.0005)
    assert (curve.area_high - curve.area_low) / (2 * 1.96) == pytest.approx(0.032, abs=0.003)


def test_auc_interval_is_delongs_with_one_image_a_patient():
    y_true, y_prob, _ = sample(n=400, seed=2, decimals=6)
    curve = curve_bands(y_true, y_prob, np.arange(400), NAMES, draws=4000)[0]["covid"]
    positive, negative = y_prob[y_true == 0, 0], y_prob[y_true != 0, 0]
    wins = (positive[:, None] > negative) + 0.5 * (positive[:, None] == negative)
    # DeLong, DeLong & Clarke-Pearson 1988: the variances of the two sides' placements.
    variance = wins.mean(axis=1).var(ddof=1) / len(positive)
    variance += wins.mean(axis=0).var(ddof=1) / len(negative)
    assert curve.area == pytest.approx(wins.mean())
    assert curve.area_high - curve.area_low == pytest.approx(2 * 1.96 * variance**0.5, rel=0.06)


def test_precision_goes_by_steps_and_not_straight():
    # By falling score: right, wrong, wrong, right. Recall 1/2 at precision 1, then 1 at 2/4.
    data = two_class([1, 0, 0, 1], [0.9, 0.8, 0.7, 0.6])
    curve = curve_bands(*data, np.arange(4), ["rest", "it"])[1]["it"]
    assert curve.y[GRID <= 0.5] == pytest.approx(1)
    assert curve.y[GRID > 0.5] == pytest.approx(0.5)
    assert curve.area == pytest.approx(0.75)
    # At precision 1 one patient was called: Wilson on one. The other way round likewise.
    low = proportion_confint(1, 1, method="wilson")[0]
    assert curve.low[10] <= low + 1e-12 and curve.high[10] == 1
    missed = curve_bands(*two_class([0, 1], [0.9, 0.8]), [0, 1], ["rest", "it"])[1]["it"]
    assert missed.y == pytest.approx(0.5)


def test_roc_is_straight_through_ties_and_upper_where_it_jumps():
    data = two_class([1, 1, 0, 0], [0.9, 0.5, 0.5, 0.1])
    curve = curve_bands(*data, np.arange(4), ["rest", "it"])[0]["it"]
    assert curve.y[[0, 25, 50, 100]] == pytest.approx([0.5, 0.75, 1, 1])
    assert curve.area == pytest.approx(3.5 / 4)


def test_perfect_classifier_has_a_band_from_wilson():
    y_true = np.repeat([0, 1, 2], 4)
    groups = np.repeat(np.arange(6), 2)  # two patients a class, two images each
    roc, pr = curve_bands(y_true, np.eye(3)[y_true], groups, NAMES, draws=200)
    low = proportion_confint(2, 2, method="wilson")[0]
    for curves in (roc, pr):
        for name in (*NAMES, MACRO):
            curve = curves[name]
            assert curve.area == curve.area_high == 1
            assert curve.area_low == pytest.approx(low)
            assert (curve.y == 1).all() and (curve.high == 1).all()
            assert curve.low[:-1] == pytest.approx(low)
    assert roc["covid"].low[-1] == 1  # where everybody is called
    assert pr["covid"].low[-1] == pytest.approx(low)
    # Average precision is a mean over the positives, of whom three patients stand against two.
    data = two_class([1, 1, 1, 0, 0], [0.9, 0.9, 0.9, 0.1, 0.1])
    roc, pr = curve_bands(*data, np.arange(5), ["rest", "it"], draws=50)
    assert roc["it"].area_low == pytest.approx(low)
    assert pr["it"].area_low == pytest.approx(proportion_confint(3, 3, method="wilson")[0])


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000),
    st.integers(8, 60),
    st.integers(1, 30),
    st.floats(0, 4),
    st.integers(1, 3),
)
def test_roc_bands_never_fall_and_end_where_everybody_is_called(
    seed, n, n_patients, skill, decimals
):
    y_true, y_prob, groups = sample(n, n_patients, seed, skill, decimals)
    roc, _ = curve_bands(y_true, y_prob, groups, NAMES, draws=60)
    for curve in roc.values():
        known = ~np.isnan(curve.low)
        assert (np.isnan(curve.high) == ~known).all()
        low, high = curve.low[known], curve.high[known]
        assert (np.diff(low) >= 0).all() and (np.diff(high) >= 0).all()
        assert (low <= high).all() and low.min() >= 0
        assert curve.y[-1] == curve.low[-1] == curve.high[-1] == 1


def test_a_roc_band_is_never_narrower_than_that_of_the_draws():
    # Both images of the class are found before the last false alarm: all draws agree from there.
    y_true, y_prob, groups = sample(n=60, n_patients=30, skill=3)
    curve = curve_bands(y_true, y_prob, groups, NAMES, draws=40, seed=7)[0]["covid"]
    patients = np.unique(groups)
    (weights,) = draw_weights(len(patients), 40, 7)
    drawn = []
    for draw in range(40):
        times = weights[np.searchsorted(patients, groups), draw].astype(int)
        rows = np.repeat(np.arange(60), times)
        drawn.append(roc_by_scikit_learn(y_true[rows] == 0, y_prob[rows, 0]))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    assert (curve.low <= low + 1e-12).all() and (curve.high >= high - 1e-12).all()
    wilson = proportion_confint(*[len(np.unique(groups[y_true == 0]))] * 2, method="wilson")[0]
    whole = (curve.y == 1) & (GRID < 1)
    before = curve.low[curve.y < 1].max()
    assert whole.any() and curve.low[whole] == pytest.approx(max(before, wilson))


def test_worst_classifier_has_a_band_too():
    data = two_class([1, 1, 0, 0], [0.1, 0.1, 0.9, 0.9])
    roc, pr = curve_bands(*data, np.arange(4), ["rest", "it"], draws=200)
    assert roc["it"].area == 0 and roc["it"].area_low == 0
    high = proportion_confint(0, 2, method="wilson")[1]
    assert roc["it"].area_high == pytest.approx(high)
    assert roc["it"].y[50] == 0 and roc["it"].high[50] == pytest.approx(high)
    assert pr["it"].y == pytest.approx(0.5)


def test_constant_classifier_is_the_diagonal():
    y_true, _, groups = sample(n=50, n_patients=20)
    roc, pr = curve_bands(y_true, np.full((50, 3), 1 / 3), groups, NAMES, draws=100)
    for k, name in enumerate(NAMES):
        assert roc[name].y == pytest.approx(GRID)
        assert roc[name].area == roc[name].area_low == roc[name].area_high == 0.5
        assert pr[name].y == pytest.approx((y_true == k).mean())


def test_absent_class_and_one_image_have_no_curve():
    y_prob = np.array([[0.6, 0.3, 0.1], [0.3, 0.6, 0.1], [0.5, 0.4, 0.1], [0.2, 0.7, 0.1]])
    roc, pr = curve_bands(np.array([0, 1, 1, 0]), y_prob, list("abcd"), NAMES, draws=50)
    assert list(roc) == list(pr) == ["covid", "normal", MACRO]
    assert roc[MACRO].n_positive == 4
    assert curve_bands(np.array([1]), y_prob[:1], ["a"], NAMES) == ({}, {})
    assert curve_bands(np.zeros(4, int), y_prob, list("abcd"), NAMES) == ({}, {})


def test_one_patient_on_a_side_leaves_the_band_undefined():
    data = two_class([1, 0, 1, 0], [0.9, 0.8, 0.7, 0.6])
    for groups in (list("aabb"), list("abab")):
        roc, pr = curve_bands(*data, groups, ["rest", "it"], draws=50)
        alone = groups == list("abab")  # both positives of one patient
        for curve in (roc["it"], pr["it"]):
            assert (curve.area_low is None) == alone
            assert np.isnan(curve.low[(curve.y > 0) & (curve.y < 1)]).all() == alone
    only = curve_bands(*data, list("aaaa"), ["rest", "it"], draws=50)[0]
    assert only["it"].area == 0.75 and only["it"].area_low is only[MACRO].area_low is None
    assert np.isnan(only[MACRO].low[only[MACRO].y < 1]).all()


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 12), st.randoms(use_true_random=False))
def test_order_of_rows_and_classes_does_not_matter(seed, n_patients, random):
    y_true, y_prob, groups = sample(n=20, n_patients=n_patients, seed=seed)
    rows, order = random.sample(range(20), 20), random.sample(range(3), 3)
    before = curve_bands(y_true, y_prob, groups, NAMES, draws=40)
    after = curve_bands(
        np.argsort(order)[y_true][rows],
        y_prob[rows][:, order],
        groups[rows],
        [NAMES[k] for k in order],
        draws=40,
    )
    for curves, others in zip(before, after, strict=True):
        assert set(curves) == set(others)
        for name, curve in curves.items():
            for key in ("y", "low", "high", "area", "area_low", "area_high"):
                expected = getattr(curve, key)
                if expected is None:
                    assert getattr(others[name], key) is None
                else:
                    assert getattr(others[name], key) == pytest.approx(expected, nan_ok=True)
            defined = ~np.isnan(curve.low)
            assert (curve.low <= curve.high)[defined].all()
            assert ((curve.low >= 0) & (curve.high <= 1))[defined].all()
    assert all((np.diff(curve.y) >= -1e-12).all() for curve in before[0].values())


def test_steps_of_many_scores_keep_the_estimate_and_the_draws():
    rng = np.random.default_rng(0)
    n = 5000
    truth = rng.random(n) < 0.02  # 100 positives: each keeps a step of its own
    score = rng.normal(size=n) + truth
    patient = rng.integers(0, 3000, n)
    exact = score_steps(truth, score, patient, 3000, most=n)
    steps = score_steps(truth, score, patient, 3000, most=128)
    assert len(exact.won) == n and len(steps.won) <= 256
    ones = np.ones((3000, 1))
    area = weighted_auc(*steps.split(ones), steps.won)
    assert area[0] == pytest.approx(sk.roc_auc_score(truth, score))
    (weights,) = draw_weights(3000, 100, 0)
    drawn = [weighted_auc(*s.split(weights), s.won) for s in (exact, steps)]
    assert np.abs(drawn[0] - drawn[1]).max() < 0.002
    assert np.quantile(drawn[0], 0.025) == pytest.approx(np.quantile(drawn[1], 0.025), abs=5e-4)


def test_memory_does_not_grow_with_the_draws():
    data = (*sample(n=20_000, n_patients=15_000, decimals=6), NAMES)
    peak = []
    for draws in (40, 160):
        tracemalloc.start()
        curve_bands(*data, draws=draws)
        peak.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # Of a draw its curves are kept, and not how often it drew each of the patients.
    n_patients = len(np.unique(data[2]))
    assert peak[1] - peak[0] < 120 * n_patients * 8 / 3


def test_bad_input_is_refused_in_one_sentence():
    y_true, y_prob, groups = sample()
    with pytest.raises(MetricsError, match="draws must be at least 1"):
        curve_bands(y_true, y_prob, groups, NAMES, draws=0)
    with pytest.raises(MetricsError, match="one patient for each"):
        curve_bands(y_true, y_prob, groups[:-1], NAMES)
    with pytest.raises(MetricsError, match="one column for each"):
        curve_bands(y_true, y_prob, groups, NAMES[:2])
