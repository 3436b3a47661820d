"""core/reporting/leaderboard/ranking.py and what is said of it: protocols, ranking, paired tests,
claims.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.files import write_csv
from core.metrics.classification import arrays_from_predictions
from core.metrics.significance import compare_models, holm
from core.models.names import NOTEBOOK, OWN
from core.reporting import verdict
from core.reporting.leaderboard import describe as leaderboard_describe
from core.reporting.leaderboard import ranking as zoo
from core.reporting.leaderboard.claims import (
    CANNOT_TELL,
    CLAIMS,
    HELD_UP,
    NOT_HELD_UP,
    judge_claims,
    judge_difference,
    judge_half,
)
from core.runs import artifacts
from core.runs.run import Run
from tests.support.leaderboard import change_info, make_notebook_run, make_zoo, set_called
from tests.support.runs import make_run

LEAKAGE = {"patients": 4, "images": 9, "share": 0.4, "exact": 0, "near": 0}


@pytest.fixture(scope="module")
def zoo_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs of one protocol, to read and to copy."""
    root = tmp_path_factory.mktemp("zoo")
    make_zoo(root)
    return root


@pytest.fixture
def copied(zoo_root: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(zoo_root, tmp_path / "artifacts"))


def open_runs(root: Path) -> list[Run]:
    return [artifacts.open_run(entry.path) for entry in artifacts.list_runs(root)]


def only_protocol(root: Path) -> zoo.Protocol:
    (protocol,) = zoo.find_protocols(open_runs(root))
    return protocol


# ------------------------------------------------------------------------------ protocols


def test_runs_of_the_same_split_are_one_protocol(zoo_root):
    protocol = only_protocol(zoo_root)
    assert [run.name for run in protocol.runs] == ["release", "zoo-phantom"]
    assert [model for _, model in protocol.entries] == [*OWN, "ensemble", *NOTEBOOK]
    assert protocol.n == {"train": 84, "val": 12, "test": 24} and protocol.n_patients == 12
    assert protocol.leaks == "" and protocol.has_zoo and protocol.seed == 0


def change_manifest(path: Path, change) -> None:
    table = artifacts.load_manifest(artifacts.open_run(path)).fillna({"fold": ""})
    change(table)
    write_csv(path / "manifest.csv", table)


@pytest.mark.parametrize(
    ("column", "value"),
    [("sha256", "0" * 64), ("label", "normal"), ("split", "val"), ("image_id", "covid/another")],
)
def test_one_other_row_is_another_protocol(copied, column, value):
    def change(table: pd.DataFrame) -> None:
        row = table.index[(table["split"] == "train") & (table["label"] == "covid")][0]
        table.loc[row, column] = value

    change_manifest(copied / "zoo-phantom", change)
    assert len(zoo.find_protocols(open_runs(copied))) == 2


def test_order_of_rows_and_other_columns_do_not_matter(copied):
    def change(table: pd.DataFrame) -> None:
        table["path"] = "elsewhere/" + table["path"]
        table[:] = table.iloc[::-1].to_numpy()

    change_manifest(copied / "zoo-phantom", change)
    assert len(zoo.find_protocols(open_runs(copied))) == 1


def test_other_classes_are_another_protocol_and_their_order_is_not(copied):
    run = artifacts.open_run(copied / "release")
    manifest = artifacts.load_manifest(run)
    turned = Run(run.path, run.info | {"class_names": run.class_names[::-1]})
    fewer = Run(run.path, run.info | {"class_names": run.class_names[:2]})
    key = zoo.protocol_key(run, manifest)
    assert zoo.protocol_key(turned, manifest) == key != zoo.protocol_key(fewer, manifest)


@pytest.mark.parametrize(
    ("keys", "words"),
    [({"leakage": LEAKAGE}, "LEAKS"), ({"split_policy": "random"}, "RANDOM SPLIT")],
)
def test_leaking_and_random_runs_stand_apart_and_last(copied, keys, words):
    change_info(copied / "zoo-phantom", **keys)
    clean, marked = zoo.find_protocols(open_runs(copied))
    assert [run.name for run in clean.runs] == ["release"] and clean.leaks == ""
    assert [run.name for run in marked.runs] == ["zoo-phantom"] and marked.leaks.startswith(words)


# ------------------------------------------------------------------------------ paired draws


def answers_of(**drawn: list[float]) -> zoo.TestPredictions:
    values = np.array(list(drawn.values()))
    place = {("run", model): row for row, model in enumerate(drawn)}
    return zoo.TestPredictions(
        np.zeros(1, int), {"accuracy": values}, {"accuracy": values.mean(axis=1)}, place
    )


@pytest.mark.parametrize(
    ("a", "b", "p"),
    [
        # 9 draws, all above: 2 (1 + 0) / (1 + 9).
        ([0.5] * 9, [0.4] * 9, 0.2),
        ([0.4] * 9, [0.5] * 9, 0.2),
        # Two of nine at or below zero: 2 (1 + 2) / 10.
        ([0.5] * 9, [0.5, 0.6, *[0.4] * 7], 0.6),
        # The same answers: no difference in any draw.
        ([0.5] * 9, [0.5] * 9, 1.0),
    ],
)
def test_p_counts_the_draws_beyond_zero(a, b, p):
    answers = answers_of(a=a, b=b)
    found = zoo.paired_difference(answers, ("run", "a"), ("run", "b"), "accuracy")
    assert found[0] == pytest.approx(np.mean(a) - np.mean(b))
    assert found[3] == pytest.approx(p)


def test_difference_and_interval_are_those_of_the_comparisons(zoo_root):
    protocol = only_protocol(zoo_root)
    answers = zoo.load_test_predictions(protocol)
    run, other = protocol.runs
    a, b = ("release", "mobilenetv2"), ("zoo-phantom", "fnn")
    tables = [
        artifacts.load_predictions(r, m).sort_values("image_id")
        for r, m in ((run, a[1]), (other, b[1]))
    ]
    patients = artifacts.load_manifest(run).set_index("image_id")["patient_id"]
    arrays = [arrays_from_predictions(table, run.class_names) for table in tables]
    (row,) = compare_models(
        arrays[0][0],
        {"a": arrays[0][1], "b": arrays[1][1]},
        tables[0]["image_id"].map(patients).to_numpy(),
        run.class_names,
    )
    found = zoo.paired_difference(answers, a, b, "macro_f1")
    assert found[:3] == pytest.approx((row["difference"], row["low"], row["high"]))


# ------------------------------------------------------------------------------ ranking


@pytest.mark.parametrize("metric", zoo.METRICS)
def test_ranking_is_sorted_and_holds_the_figures_of_metrics_json(zoo_root, metric):
    protocol = only_protocol(zoo_root)
    table = zoo.rank(protocol, metric)
    assert len(table) == len(protocol.entries)
    assert table[metric].is_monotonic_decreasing and table["rank"].is_monotonic_increasing
    for row in table.itertuples():
        stored = artifacts.load_metrics(protocol.run(row.run), row.model)
        for key in zoo.SHOWN:
            bounds = stored["intervals"][key]
            found = [getattr(row, f"{key}{end}") for end in ("", "_low", "_high")]
            assert found == pytest.approx([stored[key], bounds["low"], bounds["high"]])
        assert row.floors_lost == verdict.unbeaten_baselines(stored, protocol.first.info["floors"])
        if row.model != "ensemble":
            assert [row.params, row.train_s] == [stored["cost"][k] for k in ("params", "train_s")]
            assert row.epochs == 10
        assert row.weights == ("kept" if row.run == "release" else "not kept")


def test_holm_is_over_all_models_held_against_the_first(zoo_root):
    protocol = only_protocol(zoo_root)
    answers = zoo.load_test_predictions(protocol)
    table = zoo.rank(protocol, predictions=answers)
    first, *others = zip(table["run"], table["model"], strict=True)
    p = [zoo.paired_difference(answers, first, other, "macro_f1")[3] for other in others]
    assert table["p_holm"].to_list() == pytest.approx([1, *holm(p)])
    assert table["tied_with_best"].to_list() == [True, *(value >= 0.05 for value in holm(p))]
    assert table["tied_with_best"].sum() > 1 and not table["tied_with_best"].all()


def test_same_answers_share_a_rank_and_cannot_be_told(copied):
    for model in ("baseline", "model_1"):
        set_called(copied / "zoo-phantom", model, lambda t: t["label"] == "")
    table = zoo.rank(only_protocol(copied))
    assert table["label"].to_list()[:2] == ["Baseline", "Model 1"]
    assert table["rank"].to_list()[:3] == [1, 1, 3]
    assert table.loc[1, ["behind", "behind_low", "behind_high"]].to_list() == [0, 0, 0]
    assert table.loc[1, "p_holm"] == 1 and table.loc[1, "tied_with_best"]


def test_a_model_that_is_always_wrong_is_behind(copied):
    set_called(copied / "zoo-phantom", "baseline", lambda t: t["label"] == "")
    set_called(copied / "zoo-phantom", "fnn", lambda t: t["label"] != "")
    table = zoo.rank(only_protocol(copied), "accuracy")
    last = table.iloc[-1]
    assert (last["model"], last["accuracy"], last["behind"]) == ("fnn", 0, 1)
    assert not last["tied_with_best"]
    # 2 (1 + 0) / 2001, and Holm's factor is at most the 15 others.
    assert last["p_holm"] <= 15 * 2 / 2001


def test_the_same_model_in_two_runs_is_shown_twice_with_its_run(copied):
    make_notebook_run(copied, name="again", models=("fnn", "model_1"))
    labels = set(zoo.rank(only_protocol(copied))["label"])
    assert {"FNN, plain (again)", "FNN, plain (zoo-phantom)", "Model 2"} <= labels
    assert "FNN, plain" not in labels


def test_unknown_metric_and_other_images_are_refused(copied):
    protocol = only_protocol(copied)
    with pytest.raises(zoo.ZooError, match="Unknown metric 'auc'"):
        zoo.rank(protocol, "auc")
    file = copied / "zoo-phantom" / "fnn" / "predictions.csv"
    lines = file.read_text(encoding="utf-8").splitlines()
    file.write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    with pytest.raises(zoo.ZooError, match="FNN, plain of run zoo-phantom was tested on other"):
        zoo.rank(protocol)


def test_classes_in_another_order_are_the_same_answers(zoo_root):
    first, second = only_protocol(zoo_root).runs
    turned = Run(second.path, second.info | {"class_names": second.class_names[::-1]})
    both = zoo.find_protocols([first, turned])[0]
    plain = zoo.load_test_predictions(zoo.find_protocols([first, second])[0])
    assert zoo.load_test_predictions(both).drawn["macro_f1"] == pytest.approx(
        plain.drawn["macro_f1"]
    )


def test_kept_epochs_are_the_lowest_loss_of_a_phase_or_its_last(zoo_root):
    history = pd.DataFrame(
        {"epoch": [1, 2, 3, 4, 5], "phase": ["a", "a", "a", "b", "b"],
         "val_loss": [0.9, 0.7, 0.7, 0.4, 0.5]}
    )  # fmt: skip
    run = artifacts.open_run(zoo_root / "release")
    assert zoo.kept_epochs(run, "cnn", history) == [2, 4]
    stages = [{"name": "a", "keep": "best"}, {"name": "b", "keep": "last"}]
    told = Run(run.path, run.info | {"recipes": {"cnn": {"stages": stages}}})
    assert zoo.kept_epochs(told, "cnn", history) == [2, 5]
    assert zoo.kept_epochs(run, "cnn", history.assign(val_loss=np.nan)) == []
    assert zoo.kept_epochs(run, "cnn", history.iloc[:0]) == []


# ------------------------------------------------------------------------------ words


def ranking(tied: list[bool], lost: list[list[str]] | None = None) -> pd.DataFrame:
    n = len(tied)
    values = [0.9 - 0.1 * k for k in range(n)]
    return pd.DataFrame(
        {"label": [f"Model {k}" for k in "ABCDE"[:n]], "macro_f1": values,
         "macro_f1_low": [v - 0.05 for v in values], "macro_f1_high": [v + 0.05 for v in values],
         "tied_with_best": tied, "floors_lost": lost or [[]] * n}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("tied", "words"),
    [
        ([True], "One model on 24 test images: Model A, "),
        ([True, False, False], "Model A leads every other one by more than chance explains, "),
        ([True, True, False], "the first 2 cannot be told apart. In front is Model A, "),
        ([True, False, True], "1 other cannot be told from the one in front. In front is Model A"),
        ([True, False, True, True], "2 others cannot be told from the one in front. In front is"),
        ([True, True, True], "none can be told from the one in front. In front is Model A, "),
    ],
)
def test_headline_never_says_that_a_tie_leads(zoo_root, tied, words):
    said = leaderboard_describe.headline(only_protocol(zoo_root), ranking(tied), "macro_f1")
    assert words in said and said.startswith("SYNTHETIC")
    assert ("leads" in said) == (sum(tied) == 1 and len(tied) > 1) and "best" not in said
    assert "macro-F1 90.0\u202f% (85.0 to 95.0)" in said


def test_headline_of_a_leaking_run_begins_with_that(copied):
    change_info(copied / "zoo-phantom", leakage=LEAKAGE, modality="xray")
    marked = zoo.find_protocols(open_runs(copied))[-1]
    said = leaderboard_describe.headline(marked, ranking([True, True]), "macro_f1")
    assert said.startswith("LEAKS: 40") and "too high for new patients" in said


@pytest.mark.parametrize(
    ("lost", "words"),
    [
        ([[], []], "Every model is above all"),
        ([["x"], ["x"]], "No model is above all"),
        ([[], ["x"]], "Only 1 of 2 models is above all"),
    ],
)
def test_floors_words(zoo_root, lost, words):
    protocol = only_protocol(zoo_root)
    said = leaderboard_describe.baselines_text(protocol, ranking([True, True], lost))
    assert said.startswith(words) and "accuracy 55.0" in said
    assert ("Not above: Model B." in said) == (lost == [[], ["x"]])


def test_protocol_words(zoo_root):
    said = leaderboard_describe.protocol_text(only_protocol(zoo_root))
    assert "84 training, 12 validation and 24 test images (12 test patients)" in said
    assert said.endswith("split policy group, seed 0; runs release and zoo-phantom")


# ------------------------------------------------------------------------------ claims


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.45, 0.55, HELD_UP),
        (0.5, 0.6, HELD_UP),
        (0.41, 0.6, HELD_UP),
        (0.51, 0.6, NOT_HELD_UP),
        (0.3, 0.49, NOT_HELD_UP),
        (0.38, 0.6, CANNOT_TELL),
        (None, None, CANNOT_TELL),
    ],
)
def test_about_half(low, high, verdict):
    assert judge_half(low, high) == verdict


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.01, 0.1, HELD_UP),
        (-0.1, -0.01, NOT_HELD_UP),
        (-0.1, 0.1, CANNOT_TELL),
        (0, 0.1, CANNOT_TELL),
    ],
)
def test_difference(low, high, verdict):
    assert judge_difference(low, high) == verdict


def right(table: pd.DataFrame) -> pd.Series:
    return table["label"] == ""


def wrong(table: pd.DataFrame) -> pd.Series:
    return table["label"] != ""


def half(table: pd.DataFrame) -> pd.Series:
    """One image of each patient's two."""
    return table.groupby("patient_id").cumcount() == 0


def test_claims_are_judged_by_the_rules(copied):
    path = copied / "zoo-phantom"
    answers = {
        "fnn": half, "fnn_remedies": right, "resnet50_frozen": right,
        "resnet50_frozen_dropout": wrong, "mobilenetv2_frozen": half,
        "mobilenetv2_frozen_dropout": half,
    }  # fmt: skip
    for model, rule in answers.items():
        set_called(path, model, rule)
    change_info(path, init={"resnet50_frozen": "random", "resnet50_frozen_dropout": "random",
                            "mobilenetv2_frozen": "imagenet"})  # fmt: skip
    results = {r.subject: r for r in judge_claims(only_protocol(copied))}
    plain = results["FNN, plain"]
    assert (plain.verdict, plain.value) == (HELD_UP, 0.5)
    assert plain.measured == "accuracy 50.0\u202f% (50.0 to 50.0)"
    assert plain.note.endswith("guessing reaches 33.3\u202f%, always answering covid 33.3\u202f%")
    remedies = results["FNN with remedies"]
    assert remedies.verdict == NOT_HELD_UP
    assert remedies.measured.endswith("; +50.0 points (+50.0 to +50.0) over the plain one")
    resnet = results["ResNet50 frozen less ResNet50 frozen, dropout"]
    assert (resnet.verdict, resnet.value, resnet.low) == (HELD_UP, 1, 1)
    assert resnet.note.startswith("Both from random weights; one training each")
    mobile = results["MobileNetV2 frozen less MobileNetV2 frozen, dropout"]
    assert (mobile.verdict, mobile.low, mobile.high) == (CANNOT_TELL, 0, 0)
    assert mobile.note.startswith("from ImageNet weights against from weights of unstated origin")
    set_called(path, "resnet50_frozen_dropout", right)
    set_called(path, "resnet50_frozen", wrong)
    again = {r.subject: r for r in judge_claims(only_protocol(copied))}
    assert again[resnet.subject].verdict == NOT_HELD_UP


def test_what_was_not_trained_is_said_and_not_judged(tmp_path):
    make_run(tmp_path, models=OWN, n=60, images=False)
    results = judge_claims(only_protocol(tmp_path))
    assert len(results) == sum(len(claim.models) for claim in CLAIMS) == 5
    assert {(r.verdict, r.measured, r.value) for r in results} == {
        (CANNOT_TELL, "not trained under this protocol", None)
    }


def test_a_pair_is_taken_within_a_run_and_else_across_runs(tmp_path):
    pair = ("resnet50_frozen", "resnet50_frozen_dropout")
    for name, models in (("a", pair[:1]), ("b", pair[1:])):
        make_notebook_run(tmp_path, name=name, models=models, n=60)
    across = [r for r in judge_claims(only_protocol(tmp_path)) if r.value is not None]
    assert [r.subject for r in across] == ["ResNet50 frozen less ResNet50 frozen, dropout"]
    make_notebook_run(tmp_path, name="c", models=pair, n=60)
    within = [r for r in judge_claims(only_protocol(tmp_path)) if r.value is not None]
    assert [r.subject for r in within] == ["ResNet50 frozen (c) less ResNet50 frozen, dropout (c)"]


def test_only_what_is_known_is_claimed():
    assert [claim.key for claim in CLAIMS] == ["fnn_half", "no_dropout"]
    assert {model for claim in CLAIMS for models in claim.models for model in models} <= set(
        NOTEBOOK
    )
