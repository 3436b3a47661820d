"""Trials of recipes on inner folds: what is judged, against what; the test split is left alone."""

import json
import sys

import numpy as np
import pytest

from core.datasets.phantom.generate import write_phantoms
from core.metrics.classification import compute_metrics
from core.models.architectures import BUILDERS
from core.models.recipes import Degradation, Recipe, Stage
from core.training import trials
from core.training.trials import AS_IT_IS, UNALTERED, change_recipe, compare, judge, load_answers
from tests.support.models import build_small

NAMES = ["covid", "normal", "pneumonia"]


def answers(right, changed=None, fold=1, seed=0):
    """Twelve images of six patients, the first `right` of them answered right."""
    y = np.arange(12) % 3

    def said(n):
        predicted = np.where(np.arange(12) < n, y, (y + 1) % 3)
        return 0.1 + 0.7 * np.eye(3)[predicted]

    return {
        "y_true": y,
        "groups": np.repeat(np.arange(6), 2).astype(str),
        "class_names": np.array(NAMES),
        "fold": np.full(12, fold),
        AS_IT_IS: said(right),
        UNALTERED: said(right),
        "noise 5": said(right if changed is None else changed),
    }


def test_a_trial_is_judged_as_the_metrics_are_and_says_what_a_mild_change_costs():
    found = judge(answers(9, changed=6))
    expected = compute_metrics(answers(9)["y_true"], answers(9)[AS_IT_IS], NAMES)
    assert found["accuracy"] == pytest.approx(0.75) and found["n"] == 12
    assert found["macro_f1"] == pytest.approx(expected["macro_f1"])
    assert found["log_loss"] == pytest.approx(expected["log_loss"])
    assert found["lost"] == {"noise 5": pytest.approx(25.0)}
    assert found["worst"][0] == "noise 5"


def test_two_trials_are_compared_over_the_same_patients():
    found = compare(answers(9), answers(6))
    value, low, high = found["accuracy"]
    assert value == pytest.approx(0.25) and low <= value <= high
    loss = -np.log(0.8) + np.log(0.1)  # of an image that is now answered right
    assert found["log_loss"][0] == pytest.approx(0.25 * loss)
    assert compare(answers(9), answers(9))["accuracy"] == [0, 0, 0]


def test_only_folds_that_both_trials_have_are_compared():
    first, second = answers(9, fold=1), answers(3, fold=2)
    both = {
        key: value if key == "class_names" else np.concatenate([value, second[key]])
        for key, value in first.items()
    }
    assert compare(both, answers(6, fold=1))["accuracy"][0] == pytest.approx(0.25)


def test_fields_of_the_recipe_and_of_every_stage_are_changed():
    recipe = Recipe(64, (Stage("a", 3, 1e-3, cut="x"), Stage("b", 4, 1e-3)))
    changed = change_recipe(
        recipe, ["dropout=0.5", "degradation={'noise': 9.0}"], ["learning_rate=2e-4"]
    )
    assert changed.dropout == 0.5 and changed.degradation == Degradation(noise=9.0)
    assert [stage.learning_rate for stage in changed.stages] == [2e-4, 2e-4]
    assert [stage.epochs for stage in changed.stages] == [3, 4]


def test_a_trial_leaves_the_test_split_alone_and_goes_on_where_it_was(
    tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(BUILDERS, "small", build_small)
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "none"))
    write_phantoms(tmp_path / "tiny", patients_per_class=15, images_per_patient=1, size_px=64)
    used, fold_splits = [], trials.fold_splits

    def watched(manifest, *words):
        split = fold_splits(manifest, *words)
        used.append((manifest["split"].to_numpy() == "test", split))
        return split

    monkeypatch.setattr(trials, "fold_splits", watched)
    words = ["trials", "--data", str(tmp_path / "tiny"), "--model", "small", "--folds", "1,2"]
    words += ["--set", "image_size_px=64", "--stage", "epochs=1", "--out", str(tmp_path / "out")]
    monkeypatch.setattr(sys, "argv", [*words, "--name", "one"])
    assert trials.main() == 0
    said = json.loads(capsys.readouterr().out)
    assert len(used) == 2 and all((split[test] == "").all() for test, split in used)
    stored = load_answers(tmp_path / "out" / "small-one")
    judged = sum((split == "test").sum() for _, split in used)
    assert said["n"] == len(stored["y_true"]) == judged
    assert len(said["lost"]) == 11 and "shift 0.025" in said["lost"]
    monkeypatch.setattr(sys, "argv", [*words, "--name", "one", "--against", "one"])
    assert trials.main() == 0
    again = json.loads(capsys.readouterr().out)
    assert len(used) == 2, "folds that are done are not trained again"
    assert again["against"]["accuracy"] == [0, 0, 0] and again["accuracy"] == said["accuracy"]
