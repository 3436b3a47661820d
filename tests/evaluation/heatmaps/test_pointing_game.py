"""core.evaluation.heatmaps.pointing_game: hits, mass and baselines worked by hand, intervals
against statsmodels.
"""

from __future__ import annotations

import numpy as np
import pytest
from statsmodels.stats.proportion import proportion_confint

from core.datasets.phantom.generate import make_phantom
from core.evaluation.heatmaps.pointing_game import (
    BASELINES,
    BETTER,
    CENTRE_SD_SHARE,
    SAME,
    SCORES,
    WORSE,
    find_peak,
    prepare_target,
    score_map,
    summarise_scores,
)


@pytest.fixture
def target():
    """100×100: a lesion of 10×20 px in lungs of 50×100; the tolerance is 3 px."""
    mask, lungs = np.zeros((2, 100, 100), bool)
    mask[10:20, 30:50] = True
    lungs[:50] = True
    return prepare_target(mask, lungs)


def spot(row: int, column: int, heat: float = 1.0) -> np.ndarray:
    surface = np.zeros((100, 100), np.float32)
    surface[row, column] = heat
    return surface


@pytest.mark.parametrize(
    ("place", "hit", "exact"),
    [
        ((10, 30), 1, 1),
        ((19, 49), 1, 1),
        ((22, 40), 1, 0),  # 3 px below the last row
        ((23, 40), 0, 0),
        ((22, 52), 0, 0),  # 3 px down and 3 px right are more than 3 px
        ((80, 80), 0, 0),
    ],
)
def test_a_hit_is_a_maximum_on_the_lesion_or_within_the_tolerance(target, place, hit, exact):
    scores = score_map(spot(*place), target)
    assert (scores["hit"], scores["hit_exact"], scores["mass"]) == (hit, exact, exact)


def test_mass_is_the_share_of_the_heat_on_the_lesion(target):
    surface = spot(15, 40, 0.75) + spot(90, 90, 1.0) + spot(21, 40, 0.25)
    scores = score_map(surface, target)
    assert scores == {"hit": 0, "hit_exact": 0, "mass": pytest.approx(0.75 / 2)}
    assert score_map(np.ones((100, 100), np.float32), target)["mass"] == pytest.approx(0.02)


def test_a_map_without_heat_points_nowhere(target):
    assert find_peak(np.zeros((5, 5))) is None
    assert score_map(np.zeros((100, 100)), target) == dict.fromkeys(SCORES, 0.0)


def test_the_middle_of_a_flat_top_is_its_maximum():
    surface = np.zeros((9, 9))
    surface[2:5, 3:8] = 1
    assert find_peak(surface) == (3, 5)


def test_baselines_are_exact(target):
    by_hand = np.zeros((100, 100), bool)
    for row in range(100):
        for column in range(100):
            down = max(10 - row, 0, row - 19)
            right = max(30 - column, 0, column - 49)
            by_hand[row, column] = down**2 + right**2 <= 9
    random, lungs, centre = (target.baselines[key] for key in BASELINES)
    assert random == {"hit": by_hand.mean(), "hit_exact": 0.02, "mass": 0.02}
    assert lungs == {"hit": by_hand[:50].mean(), "hit_exact": 0.04, "mass": 0.04}
    assert (centre["hit"], centre["hit_exact"]) == (0, 0)
    # A Gaussian is the product of one down and one across.
    line = np.exp(-((np.arange(100) + 0.5 - 50) ** 2) / (2 * (100 * CENTRE_SD_SHARE) ** 2))
    line /= line.sum()
    assert centre["mass"] == pytest.approx(line[10:20].sum() * line[30:50].sum())


def test_the_centre_hits_a_lesion_there():
    mask = np.zeros((100, 100), bool)
    mask[48:53, 48:53] = True
    baselines = prepare_target(mask, np.ones((100, 100), bool)).baselines
    assert baselines["centre"]["hit_exact"] == 1
    assert baselines["random"]["hit"] == baselines["lungs"]["hit"]


def test_a_perfect_map_of_a_phantom_is_perfect():
    phantom = make_phantom("pneumonia", 0, 96, 5)
    target = prepare_target(phantom.mask, phantom.lungs)
    perfect = phantom.mask.astype(np.float32)
    scores = score_map(perfect, target)
    assert scores["mass"] == 1 and scores["hit"] in (0, 1)
    inside = score_map(perfect * np.linspace(0.5, 1, 96, dtype=np.float32), target)
    assert inside == {"hit": 1, "hit_exact": 1, "mass": 1}


# ------------------------------------------------------------------------ figures over phantoms


def summarise(hits, chance, **options):
    """Figures of hits (n,) with one baseline of constant or given chance."""
    hits = np.asarray(hits, float)
    scores = dict.fromkeys(SCORES, hits)
    base = {"random": dict.fromkeys(SCORES, np.broadcast_to(np.asarray(chance, float), hits.shape))}
    return summarise_scores(scores, base, **options)


def test_hits_have_wilson_intervals():
    figures = summarise([1] * 30 + [0] * 70, 0.1)
    low, high = proportion_confint(30, 100, method="wilson")
    assert figures["hit"] == {"value": 0.3, "low": pytest.approx(low), "high": pytest.approx(high)}


def test_verdicts_follow_the_interval_of_the_paired_difference():
    better = summarise([1] * 30 + [0] * 70, 0.1)["against"]["random"]["hit"]
    assert better["verdict"] == BETTER and better["low"] > 0
    assert better["difference"] == pytest.approx(0.2) and better["value"] == pytest.approx(0.1)
    assert summarise([1] * 12 + [0] * 88, 0.1)["against"]["random"]["hit"]["verdict"] == SAME
    assert summarise([1] * 5 + [0] * 95, 0.3)["against"]["random"]["hit"]["verdict"] == WORSE


def test_the_difference_is_paired():
    """Phantoms on which both are high: unpaired, the spread would hide the difference."""
    rng = np.random.default_rng(0)
    chance = rng.uniform(0, 0.9, 60)
    row = summarise_scores(
        {"hit": np.ones(60), "hit_exact": np.ones(60), "mass": chance + 0.05},
        {"random": {"hit": chance, "hit_exact": chance, "mass": chance}},
    )["against"]["random"]["mass"]
    assert row["low"] == pytest.approx(0.05) and row["high"] == pytest.approx(0.05)
    assert row["verdict"] == BETTER


def test_no_hit_at_all_is_not_taken_for_certainty():
    """Two in a hundred by chance, none found: nobody can call that worse."""
    row = summarise([0] * 100, 0.02)["against"]["random"]["hit"]
    high = proportion_confint(0, 100, method="wilson")[1]
    assert (row["low"], row["high"]) == (pytest.approx(-0.02), pytest.approx(high - 0.02))
    assert row["verdict"] == SAME
    assert summarise([0] * 100, 0.2)["against"]["random"]["hit"]["verdict"] == WORSE


def test_without_phantoms_there_are_no_figures():
    figures = summarise([], 0.1)
    assert figures["n"] == 0 and figures["hit"]["value"] is None
    assert figures["against"]["random"]["mass"]["verdict"] is None
    single = summarise([1], 0.1)
    assert single["mass"]["low"] is not None, "one of one: Wilson"
    assert single["against"]["random"]["mass"]["verdict"] is None


def test_the_same_seed_gives_the_same_figures():
    hits = np.random.default_rng(1).random(50)
    assert summarise(hits, 0.4, seed=3) == summarise(hits, 0.4, seed=3)
    assert summarise(hits, 0.4, seed=3) != summarise(hits, 0.4, seed=4)
