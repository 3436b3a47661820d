"""Folds, the papers' table, the target and random against grouped, on runs made up for that."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score, multilabel_confusion_matrix
from statsmodels.stats.proportion import proportion_confint

from core.evaluation.cross_validation import (
    POOLED,
    fold_count,
    fold_table,
    folds_not_done,
    trial_table,
    trials_on_judged_images,
)
from core.evaluation.published_protocol import judge_target, published_table, table_rows
from core.evaluation.published_results import TARGETS
from core.evaluation.split_comparison import (
    compare_splits,
    find_counterpart,
    optimism_sentence,
    recipe_differences,
)
from core.files import write_csv, write_json
from core.metrics.classification import arrays_from_predictions
from core.metrics.intervals import bootstrap_draws, bootstrap_intervals
from core.runs import artifacts
from core.runs.artifacts import ArtifactError
from tests.support.cross_validation import FOLDS, make_folded_run, set_pooled
from tests.support.runs import make_run

LOW_HIGH_3 = tuple(round(100 * end, 1) for end in TARGETS["three"].interval())


@pytest.fixture(scope="module")
def folded(tmp_path_factory):
    return make_folded_run(tmp_path_factory.mktemp("folded"), ensemble=True)


def out_of_fold(run, model):
    table = artifacts.load_predictions(run, model, "folds")
    patients = artifacts.load_manifest(run).set_index("image_id")["patient_id"]
    return table, patients.loc[table["image_id"]].to_numpy()


# ----------------------------------------------------------------------------------- folds


def test_pooled_figures_are_those_of_the_file_and_folds_those_of_scikit_learn(folded):
    rows = fold_table(folded)
    for model in folded.models:
        stored = artifacts.load_fold_metrics(folded, model)
        table, _ = out_of_fold(folded, model)
        for metric in ("accuracy", "macro_f1"):
            own = rows[(rows["model"] == model) & (rows["metric"] == metric)].set_index("fold")
            assert own.loc[POOLED, "value"] == stored[metric]
            interval = stored["intervals"][metric]
            assert (own.loc[POOLED, "low"], own.loc[POOLED, "high"]) == (
                interval["low"], interval["high"],
            )  # fmt: skip
            assert list(own.index) == [POOLED, "0", "1", "2", "3", "4"]
            for fold, part in table.groupby("fold"):
                expected = accuracy_score(part["label"], part["predicted"])
                if metric == "macro_f1":
                    expected = f1_score(
                        part["label"], part["predicted"], average="macro",
                        labels=folded.class_names, zero_division=0,
                    )  # fmt: skip
                assert own.loc[fold, "value"] == pytest.approx(expected)
                assert own.loc[fold, "n"] == len(part)


def test_a_folds_interval_is_the_bootstrap_over_its_patients(folded):
    rows = fold_table(folded).set_index(["model", "metric", "fold"])
    table, groups = out_of_fold(folded, "cnn")
    mask = (table["fold"] == "2").to_numpy()
    arrays = arrays_from_predictions(table[mask], folded.class_names)
    expected = bootstrap_intervals(*arrays, groups[mask], folded.class_names, seed=0)
    for metric in ("accuracy", "macro_f1"):
        own = rows.loc[("cnn", metric, "2")]
        assert own["low"] == pytest.approx(expected[metric]["low"])
        assert own["high"] == pytest.approx(expected[metric]["high"])
        assert own["low"] < own["value"] < own["high"]


def test_a_perfect_fold_has_wilsons_interval_on_its_patients(tmp_path):
    run = make_folded_run(tmp_path, skill=1.0)
    table, groups = out_of_fold(run, "cnn")
    row = fold_table(run).set_index(["model", "metric", "fold"]).loc[("cnn", "accuracy", "1")]
    n_patients = len(set(groups[(table["fold"] == "1").to_numpy()]))
    low, high = proportion_confint(n_patients, n_patients, method="wilson")
    assert (row["value"], row["n_patients"]) == (1, n_patients)
    assert (row["low"], row["high"]) == pytest.approx((low, high))


def test_what_was_not_done_is_listed_with_its_reason(tmp_path):
    run = make_folded_run(tmp_path, not_done={"cnn": "every layer is trained"})
    assert folds_not_done(run) == {"cnn": "every layer is trained"}
    assert fold_count(run) == 5
    assert set(fold_table(run)["model"]) == {"mobilenetv2"}
    plain = artifacts.open_run(make_run(tmp_path, name="plain", n=30, images=False))
    assert fold_count(plain) == 0
    assert set(folds_not_done(plain)) == set(plain.models)
    assert fold_table(plain).empty


# ----------------------------------------------------------------------------------- table


def test_the_table_has_their_rows_and_ours_with_protocol_and_intervals(folded):
    text = published_table(folded)
    lines = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("|")]
    assert len({len(line) for line in lines}) == 1
    table = {(line[0], line[1]): line for line in lines[2:]}
    low, high = LOW_HIGH_3
    theirs = table[("Ozturk et al. (DarkCovidNet) 2020", "3 classes")]
    assert theirs[2:7] == [f"87.02 ({low} to {high})", "85.35", "92.18", "89.96", "87.37"]
    assert theirs[7:] == [
        "1,125",
        "no",
        "5 folds, random: images of one patient stand on both sides",
    ]
    metrics = artifacts.load_fold_metrics(folded, "ensemble")
    ours = table[("**Mean of the models**", "3 classes")]
    for cell, key in zip(ours[2:4], ("accuracy", "macro_recall"), strict=True):
        interval = metrics["intervals"][key]
        assert cell == (
            f"{100 * metrics[key]:.1f} "
            f"({100 * interval['low']:.1f} to {100 * interval['high']:.1f})"
        )
    assert ours[8:] == ["yes", "5 folds, grouped by patient"]
    two = table[("**Mean of the models**", "covid / no findings")]
    assert two[3].startswith(f"{100 * metrics['two_class']['sensitivity']:.1f} (")
    assert two[7] == str(metrics["two_class"]["n"])
    assert [line[1] for line in lines[2:]] == sorted(
        (line[1] for line in lines[2:]), key=["3 classes", "covid / no findings"].index
    )


def test_mean_specificity_is_scikit_learns_with_the_paired_draws(folded):
    row = next(r for r in table_rows(folded) if r.model == "cnn" and r.task.key == "three")
    table, groups = out_of_fold(folded, "cnn")
    per_class = multilabel_confusion_matrix(
        table["label"], table["predicted"], labels=folded.class_names
    )
    expected = np.mean([m[0, 0] / m[0].sum() for m in per_class])
    own = row.figures["specificity"]
    assert own.value == pytest.approx(expected)
    drawn = bootstrap_draws(
        *arrays_from_predictions(table, folded.class_names), groups, folded.class_names
    )
    mean = np.mean([drawn[f"specificity.{name}"] for name in folded.class_names], axis=0)
    assert (own.low, own.high) == pytest.approx(tuple(np.quantile(mean, [0.025, 0.975])))


def test_no_folds_no_table_and_other_images_no_published_rows(tmp_path):
    plain = artifacts.open_run(make_run(tmp_path, name="plain", n=30, images=False))
    assert published_table(plain) == ""
    run = make_folded_run(tmp_path, dataset="phantom")
    assert "Ozturk" not in published_table(run)
    assert "No published rows stand beside" in published_table(run)


def test_a_damaged_fold_file_is_a_sentence(tmp_path):
    run = make_folded_run(tmp_path)
    (run.path / "cnn" / FOLDS).write_text("{}")
    with pytest.raises(ArtifactError, match="metrics_folds"):
        published_table(run)


# ----------------------------------------------------------------------------------- target

BELOW = (0.80, 0.78, 0.82)
ABOVE3, ABOVE2 = (0.8803, 0.861, 0.899), (0.985, 0.975, 0.994)


def test_target_reached_with_overlap_is_said_not_yet_to_be_better(tmp_path):
    run = make_folded_run(tmp_path)
    set_pooled(run, "cnn", BELOW, BELOW)
    set_pooled(run, "mobilenetv2", ABOVE3, ABOVE2)
    target = judge_target(run)
    assert target.status == "reached"
    assert target.sentence == (
        "Target reached: MobileNetV2 is above 87.02\u202f% in 3 classes and 98.08\u202f% in covid "
        "/ no findings. Above is not yet better: the intervals overlap."
    )
    three = target.tasks[0]
    assert three.best.model == "mobilenetv2" and three.above and three.overlap
    low, high = LOW_HIGH_3
    assert three.sentence == (
        f"3 classes: MobileNetV2 88.03\u202f% (86.1 to 89.9, n = {three.best.n}) against the "
        f"published 87.02\u202f% ({low} to {high}, n = 1,125), 1.01 points above; with "
        f"{three.best.n} images above is not yet better, for the intervals overlap."
    )
    assert "best of 2 rows" in target.basis and "Wilson" in target.basis


def test_far_above_does_not_overlap(tmp_path):
    run = make_folded_run(tmp_path, models=("cnn",))
    set_pooled(run, "cnn", (0.95, 0.93, 0.97), (0.999, 0.995, 1.0))
    target = judge_target(run)
    assert target.status == "reached" and "overlap" not in target.sentence
    assert [one.overlap for one in target.tasks] == [False, False]
    assert target.tasks[0].sentence.endswith("7.98 points above; the intervals do not overlap.")


def test_not_reached_gives_the_gap_as_it_is(tmp_path):
    run = make_folded_run(tmp_path)
    set_pooled(run, "cnn", BELOW, BELOW)
    set_pooled(run, "mobilenetv2", (0.8611, 0.841, 0.881), BELOW)
    target = judge_target(run)
    assert target.status == "not reached"
    assert "no row is above 87.02\u202f% in 3 classes or 98.08" in target.sentence
    assert "0.91 points below; the intervals overlap." in target.tasks[0].sentence
    assert "18.08 points below; the intervals do not overlap." in target.tasks[1].sentence


def test_equal_is_not_above(tmp_path):
    run = make_folded_run(tmp_path, models=("cnn",))
    set_pooled(run, "cnn", (0.8702, 0.85, 0.89), (0.9808, 0.97, 0.99))
    target = judge_target(run)
    assert target.status == "not reached"
    assert not any(one.above for one in target.tasks)


@pytest.mark.parametrize(
    ("cnn", "mobilenetv2", "words"),
    [
        ((ABOVE3, BELOW), (BELOW, ABOVE2), "no single row is above both 87.02"),
        ((ABOVE3, BELOW), (BELOW, BELOW), "above in 3 classes only"),
        ((BELOW, ABOVE2), (BELOW, BELOW), "above in covid / no findings only"),
    ],
)
def test_one_row_has_to_be_above_in_both_tasks(tmp_path, cnn, mobilenetv2, words):
    run = make_folded_run(tmp_path)
    set_pooled(run, "cnn", *cnn)
    set_pooled(run, "mobilenetv2", *mobilenetv2)
    target = judge_target(run)
    assert target.status == "not reached" and words in target.sentence


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"split": "random"}, "these are random"),
        ({"dataset": "phantom"}, "darkcovidnet images"),
        (
            {"leakage": {"patients": 3, "images": 9, "share": 0.4, "exact": 0, "near": 0}},
            "not independent",
        ),
    ],
)
def test_what_is_no_fair_comparison_is_not_judged(tmp_path, changes, words):
    target = judge_target(make_folded_run(tmp_path, **changes))
    assert target.status == "not judged" and words in target.sentence


def test_a_pool_that_lacks_images_is_not_judged(tmp_path):
    run = make_folded_run(tmp_path, models=("cnn",))
    table = artifacts.load_predictions(run, "cnn", "folds").iloc[1:]
    write_csv(run.path / "cnn" / "predictions_folds.csv", table)
    metrics = json.loads((run.path / "cnn" / FOLDS).read_text())
    write_json(run.path / "cnn" / FOLDS, metrics | {"n": len(table)})
    target = judge_target(run)
    assert target.status == "not judged" and "not all images" in target.sentence


def test_a_run_without_folds_is_not_judged(tmp_path):
    run = artifacts.open_run(make_run(tmp_path, n=30, images=False))
    run.info["dataset"]["name"] = "darkcovidnet"
    assert judge_target(run).sentence == "The target was not judged: the run has no folds."


# ----------------------------------------------------------------------------------- trials


def trial(change, accuracy, log_loss, kept, model="cnn", n=100):
    return {
        "model": model, "change": change, "images": "validation", "n": n,
        "accuracy": accuracy, "log_loss": log_loss, "kept": kept,
    }  # fmt: skip


def test_a_trial_gains_against_the_recipe_kept_before_it(tmp_path):
    trials = [
        trial("as it was", 0.80, 0.50, True),
        trial("larger", 0.78, 0.52, False),
        trial("longer", 0.83, 0.45, True),
        trial("flipped", 0.84, 0.47, False),
        trial("other images", 0.70, 0.80, True, n=50),
        trial("its first", 0.90, 0.30, False, model="mobilenetv2"),
        trial("its second", 0.91, 0.28, True, model="mobilenetv2"),
    ]
    table = trial_table(make_folded_run(tmp_path, trials=trials))
    nan = float("nan")
    assert list(table["gain"]) == pytest.approx(
        [nan, -0.02, 0.03, 0.01, nan, nan, 0.01], nan_ok=True
    )
    assert list(table["log_loss_gain"]) == pytest.approx(
        [nan, -0.02, 0.05, -0.02, nan, nan, 0.02], nan_ok=True
    )
    assert (table["low"][0], table["high"][0]) == pytest.approx(
        proportion_confint(80, 100, method="wilson")
    )
    assert trial_table(make_folded_run(tmp_path, name="none")).empty


@pytest.mark.parametrize(
    ("images", "ahead"),
    [
        ("validation", 0),
        ("inner folds 1 and 2", 0),
        ("OUTER folds 0 to 3", 1),
        ("the test part", 1),
    ],
)
def test_what_was_read_on_judged_images_is_said_in_the_verdict(tmp_path, images, ahead):
    run = make_folded_run(
        tmp_path, models=("cnn",), trials=[trial("x", 0.8, 0.5, True) | {"images": images}]
    )
    assert len(trials_on_judged_images(run)) == ahead
    assert ("1 recipe was read beforehand on images" in judge_target(run).basis) == bool(ahead)


# ----------------------------------------------------------------------------------- twins


@pytest.fixture(scope="module")
def twins(tmp_path_factory):
    root = tmp_path_factory.mktemp("twins")
    return (
        make_folded_run(root, "grouped"),
        make_folded_run(root, "shuffled", split="random", skill=0.5),
    )


def test_the_twin_has_the_same_images_and_folds_and_the_other_split(tmp_path, twins):
    grouped, shuffled = twins
    same = make_folded_run(tmp_path, "same")
    fewer = make_folded_run(tmp_path, "fewer", split="random", k=4)
    others = make_folded_run(tmp_path, "others", split="random", n=60)
    plain = artifacts.open_run(make_run(tmp_path, name="plain", n=90, images=False))
    plain.info["split_policy"] = "random"
    assert find_counterpart(grouped, [same, fewer, others, plain]) is None
    assert find_counterpart(grouped, [same, fewer, others, shuffled, plain]) is shuffled
    assert find_counterpart(shuffled, [grouped, same]) in (grouped, same)


def test_of_two_twins_the_one_with_the_same_recipes_counts(tmp_path, twins):
    other = make_folded_run(
        tmp_path, "zz", split="random", recipes={"cnn": {"dropout": 0.9}},
        created="2027-01-01T00:00:00Z",
    )  # fmt: skip
    assert find_counterpart(twins[0], [twins[1], other]) is twins[1]


def test_the_gap_is_random_less_grouped_on_the_same_draws_of_patients(twins):
    grouped, shuffled = twins
    gaps = {gap.model: gap for gap in compare_splits(grouped, shuffled)}
    assert set(gaps) == {"cnn", "mobilenetv2"}
    assert compare_splits(shuffled, grouped) == list(gaps.values())
    drawn, values = [], []
    for run in twins:
        table, groups = out_of_fold(run, "cnn")
        order = np.argsort(table["image_id"].to_numpy())
        y_true, y_prob = arrays_from_predictions(table.iloc[order], run.class_names)
        drawn.append(bootstrap_draws(y_true, y_prob, groups[order], run.class_names))
        values.append((table["label"] == table["predicted"]).mean())
    figure = gaps["cnn"].figures["accuracy"]
    assert (figure.grouped, figure.random) == pytest.approx(values)
    assert figure.difference == pytest.approx(values[1] - values[0])
    for metric in ("accuracy", "macro_f1"):
        expected = np.quantile(drawn[1][metric] - drawn[0][metric], [0.025, 0.975])
        own = gaps["cnn"].figures[metric]
        assert (own.low, own.high) == pytest.approx(tuple(expected))
    assert figure.shown and gaps["cnn"].differs == ()
    points = f"{100 * figure.difference:.1f} points more accuracy"
    assert points in optimism_sentence(gaps["cnn"], "CNN")


def test_a_run_against_its_own_copy_shows_no_gap(tmp_path, twins):
    copy = make_folded_run(tmp_path, "copy", split="random")
    for gap in compare_splits(twins[0], copy):
        assert gap.figures["accuracy"].difference == gap.figures["accuracy"].low == 0
        assert not gap.figures["accuracy"].shown
        assert "no gap shown" in optimism_sentence(gap, "x")


def test_what_differs_between_recipes_is_named(tmp_path):
    recipes = {"cnn": {"dropout": 0.4, "tried": 3}, "mobilenetv2": {"dropout": 0.3, "zoom": 0.1}}
    a = make_folded_run(tmp_path, "a", recipes=recipes, ensemble=True)
    recipes = {"cnn": {"dropout": 0.4, "tried": 9}, "mobilenetv2": {"dropout": 0.2}}
    b = make_folded_run(tmp_path, "b", recipes=recipes, split="random", tta="flip", ensemble=True)
    assert recipe_differences(a, b, "cnn") == ["test-time copies"]
    expected = ["test-time copies", "recipe (dropout, zoom)"]
    assert recipe_differences(a, b, "mobilenetv2") == expected
    assert recipe_differences(a, b, "ensemble") == sorted(expected)
    gap = next(gap for gap in compare_splits(a, b) if gap.model == "mobilenetv2")
    assert "not the same in both: test-time copies, recipe" in optimism_sentence(gap, "M")


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10_000))
def test_the_order_of_the_rows_plays_no_part(twins, seed):
    grouped, shuffled = twins
    before = compare_splits(grouped, shuffled)
    file = shuffled.path / "cnn" / "predictions_folds.csv"
    text = file.read_bytes()
    table = artifacts.load_predictions(shuffled, "cnn", "folds")
    try:
        write_csv(file, table.sample(frac=1, random_state=seed))
        assert compare_splits(grouped, shuffled) == before
    finally:
        file.write_bytes(text)
