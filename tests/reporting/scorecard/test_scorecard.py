"""The scorecard: each rule at its edges, and nothing passed without figures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from core.reporting.scorecard import scorecard
from core.reporting.scorecard.audit_checks import mildest
from core.reporting.scorecard.base import overall
from core.reporting.scorecard.external_checks import fall_text, macro_f1_fall
from core.reporting.scorecard.scorecard import (
    FAILED,
    NOT_DONE,
    PASSED,
    Check,
    build_scorecard,
    scorecard_sentence,
)
from core.runs import artifacts, writing
from core.runs.artifacts import ArtifactError
from tests.support.audit import add_audit, add_external, change_json
from tests.support.guard import add_guard
from tests.support.runs import make_run

MODELS = ("cnn", "mobilenetv2", "mobilenetv2_random")
SECTIONS = {
    "leakage": "leakage",
    "blackout": "blackout",
    "perturbation": "perturbation",
    "subgroups": "subgroups",
    "probe": "probe",
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run to copy, never to write to."""
    return make_run(tmp_path_factory.mktemp("whole"), n=120, images=False, models=MODELS)


@pytest.fixture
def run_dir(whole: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(whole, tmp_path / "demo"))


def checks(run_dir: Path) -> dict[str, Check]:
    return {check.key: check for check in build_scorecard(artifacts.open_run(run_dir))}


def judge(run_dir: Path, key: str) -> Check:
    """One check alone."""
    return scorecard.CHECKS[key](scorecard.load_evidence(artifacts.open_run(run_dir)))


def change_audit(run_dir: Path, change) -> None:
    file = run_dir / "audit" / "audit.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    change(document)
    file.write_text(json.dumps(document), encoding="utf-8")


def change_external(run_dir: Path, change, name: str = "elsewhere") -> None:
    file = run_dir / "external" / name / "external.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    change(document)
    file.write_text(json.dumps(document), encoding="utf-8")


def change_metrics(run_dir: Path, model: str, change) -> None:
    file = run_dir / model / "metrics.json"
    metrics = json.loads(file.read_text(encoding="utf-8"))
    change(metrics)
    file.write_text(json.dumps(metrics), encoding="utf-8")


def change_manifest(run_dir: Path, change) -> None:
    file = run_dir / "manifest.csv"
    table = pd.read_csv(file, dtype=str, keep_default_na=False)
    change(table)
    table.to_csv(file, index=False)


# ------------------------------------------------------------------------------ the card


def test_the_list_is_what_reviewers_ask_for_each_with_rule_and_page(run_dir: Path) -> None:
    found = checks(run_dir)
    assert list(found) == [
        "leakage", "patient_split", "blackout", "probe", "floors", "external",
        "cross_validation", "intervals", "calibration", "operating", "perturbation",
        "subgroups", "guard",
    ]  # fmt: skip
    for check in found.values():
        assert check.status in (PASSED, FAILED, NOT_DONE)
        assert check.sentence.endswith(".") and "Passes when" in check.rule
        assert check.page in {"trust", "data", "overview", "curves", "protocol", "predict"}


def test_without_audit_and_external_nothing_of_them_passes(run_dir: Path) -> None:
    found = checks(run_dir)
    for key in (*SECTIONS, "external", "guard", "cross_validation"):
        assert found[key].status == NOT_DONE, key
    for key in SECTIONS:
        wanted = "python -m core audit --run demo"
        wanted += " --probe FOLDER" if key == "probe" else ""
        assert found[key].command == wanted
    assert found["external"].command == "python -m core evaluate --run demo --data FOLDER"
    assert found["guard"].command == "python -m core guard --run demo"
    assert "--folds 5" in found["cross_validation"].command
    assert "mobilenetv2_random" not in found["cross_validation"].command  # a control


@pytest.mark.parametrize("key", SECTIONS)
def test_a_section_that_the_audit_left_out_is_not_done(run_dir: Path, key: str) -> None:
    add_audit(run_dir, flagged=(), fooled=(), left_out=[SECTIONS[key]])
    found = checks(run_dir)
    assert found[key].status == NOT_DONE and found[key].command
    others = {k for k in SECTIONS if k != key}
    assert all(found[k].status != NOT_DONE for k in others)


def test_a_clean_audit_passes_what_it_covers(run_dir: Path) -> None:
    add_audit(run_dir, flagged=(), fooled=())
    found = checks(run_dir)
    assert {found[key].status for key in ("leakage", "blackout", "probe")} == {PASSED}
    assert "None of 24 test images has a copy among the 96 others" in found["leakage"].sentence


def test_one_failing_model_fails_the_check_and_is_named(run_dir: Path) -> None:
    add_audit(run_dir, flagged=["cnn"], fooled=[])
    check = judge(run_dir, "blackout")
    assert check.status == FAILED
    assert check.models == {"cnn": FAILED, "mobilenetv2": PASSED, "mobilenetv2_random": PASSED}
    assert "Failed: CNN 75.0" in check.sentence and "Passed: MobileNetV2." in check.sentence
    assert "20.0" in check.figures["mobilenetv2"]


def test_a_control_is_shown_and_does_not_count(run_dir: Path) -> None:
    add_audit(run_dir, flagged=["mobilenetv2_random"], fooled=[])
    check = judge(run_dir, "blackout")
    assert check.status == PASSED and check.models["mobilenetv2_random"] == FAILED
    assert artifacts.open_run(run_dir).title("mobilenetv2_random") not in check.sentence


def test_a_model_that_was_not_asked_keeps_the_check_from_passing(run_dir: Path) -> None:
    add_audit(run_dir, flagged=(), fooled=())
    change_audit(run_dir, lambda a: a["blackout"]["models"].pop("cnn"))
    check = judge(run_dir, "blackout")
    assert check.status == NOT_DONE and "Not done: CNN not asked" in check.sentence


def test_the_verdict_counts_and_names_the_most_serious(run_dir: Path) -> None:
    run = artifacts.open_run(run_dir)

    def made(key: str, status: str, models: dict[str, str] | None = None) -> Check:
        return Check(key, key.title(), status, "", "", "", f"fault of {key}", models or {})

    cards = [
        made("a", FAILED, {"cnn": FAILED, "mobilenetv2": PASSED}),
        made("b", PASSED),
        made("c", FAILED),
        made("d", FAILED),
        made("e", NOT_DONE),
    ]
    synthetic = "Drawn phantoms, no patients. "
    assert scorecard_sentence(run, cards) == (
        f"{synthetic}3 of 5 checks failed, 1 was not done. "
        "Most serious: fault of a (CNN); fault of c."
    )
    assert scorecard_sentence(run, [cards[1], cards[4]]) == (
        f"{synthetic}No check failed, but 1 of 2 was not done: e."
    )
    assert scorecard_sentence(run, [cards[1]]) == f"{synthetic}All 1 check passed."


def test_the_ugly_comes_first(run_dir: Path) -> None:
    add_audit(run_dir, leaks=True)
    ordered = scorecard.sort_checks(build_scorecard(artifacts.open_run(run_dir)))
    statuses = [check.status for check in ordered]
    assert statuses == sorted(statuses, key=[FAILED, NOT_DONE, PASSED].index)
    assert ordered[0].key == "leakage"


@given(st.lists(st.sampled_from([PASSED, FAILED, NOT_DONE])))
def test_a_check_passes_only_where_all_pass(statuses: list[str]) -> None:
    status = overall(statuses)
    assert (status == PASSED) == (bool(statuses) and set(statuses) == {PASSED})
    assert (status == FAILED) == (FAILED in statuses)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda a: a["blackout"]["models"]["cnn"].pop("full"), "blackout.models.cnn.full"),
        (lambda a: a["leakage"].update(exact=[1]), "leakage.exact.0"),
        (lambda a: a["probe"].update(n="x"), "probe.n"),
        (lambda a: a["subgroups"]["columns"][0].pop("groups"), "subgroups.columns.0.groups"),
        (lambda a: a["perturbation"]["kinds"]["blur"].pop("neutral"), "kinds.blur.neutral"),
    ],
)
def test_a_damaged_audit_is_one_sentence(run_dir: Path, change, words: str) -> None:
    add_audit(run_dir)
    change_audit(run_dir, change)
    with pytest.raises(ArtifactError, match=r"demo/audit/audit.json is damaged: ") as caught:
        checks(run_dir)
    assert words in str(caught.value) and "python -m core audit --run demo" in str(caught.value)


# ------------------------------------------------------------------------------ the run itself


def test_a_patient_on_both_sides_fails_without_any_audit(run_dir: Path) -> None:
    def share(table: pd.DataFrame) -> None:
        test = table.index[table["split"] == "test"][:3]
        table.loc[test, "patient_id"] = table.loc[table["split"] == "train", "patient_id"].iloc[0]

    change_manifest(run_dir, share)
    found = checks(run_dir)
    assert found["patient_split"].status == FAILED and found["leakage"].status == FAILED
    assert found["patient_split"].sentence.startswith("3 test images of 24 (12.5")


def test_an_equal_file_on_both_sides_fails_without_any_audit(run_dir: Path) -> None:
    def copy(table: pd.DataFrame) -> None:
        test = table.index[table["split"] == "test"][0]
        table.loc[test, "sha256"] = table.loc[table["split"] == "train", "sha256"].iloc[0]

    change_manifest(run_dir, copy)
    found = checks(run_dir)
    assert found["leakage"].status == FAILED and found["patient_split"].status == PASSED


def test_a_run_marked_at_training_fails(run_dir: Path) -> None:
    add_audit(run_dir)
    marked = {"patients": 2, "images": 3, "share": 0.125, "exact": 1, "near": 0, "allowed": True}
    change_json(run_dir / "run.json", leakage=marked)
    check = judge(run_dir, "leakage")
    assert check.status == FAILED and "3 images of 2 patients" in check.sentence


@pytest.mark.parametrize(("unknown", "status"), [(6, PASSED), (7, NOT_DONE)])
def test_patients_must_be_known(run_dir: Path, unknown: int, status: str) -> None:
    def forget(table: pd.DataFrame) -> None:
        rows = table.index[table["split"] == "train"][:unknown]
        for column in ("patient_id", "group_id"):
            table.loc[rows, column] = "image:" + table.loc[rows, "image_id"]

    change_manifest(run_dir, forget)  # 6 of 120 are 5 %
    assert judge(run_dir, "patient_split").status == status


def test_an_audit_of_fewer_images_is_not_done(run_dir: Path) -> None:
    add_audit(run_dir)
    change_audit(run_dir, lambda a: a["leakage"]["checked"].update(train=80))
    check = judge(run_dir, "leakage")
    assert check.status == NOT_DONE and "looked at 116 of 120 images" in check.sentence


def test_near_copies_that_nobody_looked_for_are_not_absent(run_dir: Path) -> None:
    add_audit(run_dir)
    change_audit(run_dir, lambda a: a.update(n_test=0))  # made without the images
    assert judge(run_dir, "leakage").status == NOT_DONE
    change_json(run_dir / "run.json", near_duplicates=[])  # looked for in training
    assert judge(run_dir, "leakage").status == PASSED


def test_what_leaks_is_counted(run_dir: Path) -> None:
    add_audit(run_dir, leaks=True)
    assert judge(run_dir, "leakage").sentence == (
        "Found: 1 pair of exact copies across parts, 9 pairs of near copies across parts and "
        "1 patient in both train and test (2 images)."
    )


def test_every_figure_needs_an_interval_over_patients(run_dir: Path) -> None:
    assert judge(run_dir, "intervals").status == PASSED
    change_metrics(run_dir, "cnn", lambda m: m["intervals"].pop("f1.covid"))
    check = judge(run_dir, "intervals")
    assert check.status == FAILED and "CNN without 1 of 30 intervals (f1.covid)" in check.sentence


def test_intervals_that_draw_images_fail(run_dir: Path) -> None:
    change_metrics(run_dir, "cnn", lambda m: m["intervals"]["accuracy"].update(unit="image"))
    check = judge(run_dir, "intervals")
    assert check.models["cnn"] == FAILED and "do not draw whole patients" in check.sentence


def calibrated(ece: float, high: float | None) -> dict[str, Any]:
    after = {"ece": ece, "intervals": {"ece": {"low": 0.0, "high": high}}}
    return {"part": "inner", "n": 96, "temperature": 1.2, "before": {}, "after": after}


@pytest.mark.parametrize(("high", "status"), [(0.1, PASSED), (0.1001, FAILED), (None, NOT_DONE)])
def test_calibration_is_judged_by_the_upper_end(run_dir: Path, high, status: str) -> None:
    for model in MODELS:
        change_metrics(run_dir, model, lambda m: m.update(calibrated=calibrated(0.04, 0.08)))
    assert judge(run_dir, "calibration").status == PASSED
    change_metrics(run_dir, "cnn", lambda m: m.update(calibrated=calibrated(0.05, high)))
    check = judge(run_dir, "calibration")
    assert check.status == check.models["cnn"] == status
    assert bool(check.command) == (status == NOT_DONE)


@pytest.mark.parametrize("empty", [None, {}])
def test_uncalibrated_is_not_done_with_what_is_known(run_dir: Path, empty) -> None:
    for model in MODELS:
        change_metrics(run_dir, model, lambda m: m.update(calibrated=empty))
    check = judge(run_dir, "calibration")
    own = json.loads((run_dir / "cnn/metrics.json").read_text())["ece"]
    assert check.status == NOT_DONE and f"CNN {100 * own:.1f}" in check.sentence


def test_floors_are_beaten_by_the_lower_end_on_both_metrics(run_dir: Path) -> None:
    def floor(accuracy: float, macro_f1: float | None) -> None:
        one = {"title": "F", "kind": "pixel", "accuracy": accuracy, "macro_f1": macro_f1}
        change_json(run_dir / "run.json", floors={"f": one})

    intervals = json.loads((run_dir / "cnn/metrics.json").read_text())["intervals"]
    lows = [intervals[key]["low"] for key in ("accuracy", "macro_f1")]
    floor(lows[0] - 1e-6, lows[1] - 1e-6)
    assert judge(run_dir, "floors").models["cnn"] == PASSED
    for high in ((lows[0], lows[1] - 1e-6), (lows[0] - 1e-6, lows[1])):
        floor(*high)
        assert judge(run_dir, "floors").models["cnn"] == FAILED
    floor(lows[0] - 1e-6, None)
    assert judge(run_dir, "floors").models["cnn"] == PASSED
    change_json(run_dir / "run.json", floors={})
    assert judge(run_dir, "floors").status == NOT_DONE


def write_folds(run_dir: Path, model: str, accuracy: float, k: int = 5) -> None:
    metrics = json.loads((run_dir / model / "metrics.json").read_text())
    folds = [{"fold": i, "n": 24, "accuracy": accuracy, "macro_f1": 0.8} for i in range(k)]
    spread = {"accuracy": {"mean": accuracy, "sd": 0.02}, "macro_f1": {"mean": 0.8, "sd": 0.02}}
    metrics |= {"accuracy": accuracy, "folds": folds, "spread": spread, "two_class": None}
    (run_dir / model / "metrics_folds.json").write_text(json.dumps(metrics))


@pytest.mark.parametrize(
    ("k", "policy", "shift", "status"),
    [
        (5, "group", 0.0, PASSED),
        (4, "group", 0.0, FAILED),
        (5, "random", 0.0, FAILED),
        (5, "group", -1.0, FAILED),
        (5, "group", 1.0, FAILED),
    ],
)
def test_cross_validation(run_dir: Path, k: int, policy: str, shift: float, status: str) -> None:
    """shift: how far beyond the end of the test part's interval the pooled accuracy lies."""
    for model in MODELS:
        metrics = json.loads((run_dir / model / "metrics.json").read_text())
        ends = metrics["intervals"]["accuracy"]
        wanted = {0.0: metrics["accuracy"], -1.0: ends["low"] - 0.01, 1.0: ends["high"] + 0.01}
        write_folds(run_dir, model, wanted[shift], k)
    plan = {"k": k, "split_policy": policy, "rule": "r", "models": {}}
    change_json(run_dir / "run.json", folds=plan)
    check = judge(run_dir, "cross_validation")
    assert check.status == status
    assert ("not cut by patient" in check.sentence) == (policy == "random")


def test_folds_that_were_too_costly_are_not_done_with_the_reason(run_dir: Path) -> None:
    write_folds(run_dir, "cnn", 0.5)
    models = {"mobilenetv2": {"status": "not done", "reason": "4 more trainings"}}
    plan = {"k": 5, "split_policy": "group", "rule": "r", "models": models}
    change_json(run_dir / "run.json", folds=plan)
    check = judge(run_dir, "cross_validation")
    assert "Not done: MobileNetV2 4 more trainings" in check.sentence


# ------------------------------------------------------------------------------ operating point


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 covid patients in test, 12 in val, 84 in train."""
    return make_run(tmp_path_factory.mktemp("large"), n=720, images=False, models=["cnn"])


def predict(run_dir: Path, part: str, splits: list[str], found: float) -> None:
    """Predictions of a model that gives the first share `found` of covid images away."""
    run = artifacts.open_run(run_dir)
    manifest = artifacts.load_manifest(run)
    rows = manifest[manifest["split"].isin(splits)].sort_values("image_id")
    covid = rows["label"] == "covid"
    place = covid.cumsum() / covid.sum()
    p = (covid & (place <= found)).map({True: 0.9, False: 0.05})
    table = rows[["image_id", "split"]].assign(fold="", label=rows["label"])
    table["predicted"] = p.map(lambda v: "covid" if v > 0.5 else "normal")
    table = table.assign(p_covid=p, p_normal=0.95 - p, p_pneumonia=0.05)
    writing.write_predictions(run_dir, "cnn", part, table)


@pytest.mark.parametrize(("found", "status"), [(1.0, PASSED), (0.8, FAILED)])
def test_an_operating_point_must_hold_on_test(
    large: Path, tmp_path: Path, found: float, status: str
) -> None:
    run_dir = Path(shutil.copytree(large, tmp_path / "demo"))
    predict(run_dir, "inner", ["train", "val"], 1.0)
    predict(run_dir, "test", ["test"], found)
    check = judge(run_dir, "operating")
    assert check.status == status and "chosen on 96 patients" in check.sentence
    assert f"{100 * (1.0 if found == 1 else 38 / 48):.1f}" in check.sentence


def test_a_threshold_chosen_on_few_patients_is_not_done(large: Path, tmp_path: Path) -> None:
    run_dir = Path(shutil.copytree(large, tmp_path / "demo"))
    predict(run_dir, "val", ["val"], 1.0)
    check = judge(run_dir, "operating")
    assert check.status == NOT_DONE
    assert "12 patients with covid to choose on, too few" in check.sentence


def test_no_images_to_choose_on_is_not_done(run_dir: Path) -> None:
    for model in MODELS:
        (run_dir / model / "predictions_val.csv").unlink()
    assert judge(run_dir, "operating").status == NOT_DONE


# ------------------------------------------------------------------------------ blackout, probe


HIGHS = st.one_of(st.none(), st.floats(-0.5, 1.5))


@settings(deadline=None)
@given(highs=st.tuples(HIGHS, HIGHS))
@example(highs=(0.5, 0.4))
@example(highs=(0.4, 0.5))
def test_blackout_passes_only_below_one_half_with_both_fills(tmp_once, highs) -> None:
    run_dir, document = tmp_once
    for row in document["blackout"]["models"].values():
        for masked, high in zip(row["without_lungs"].values(), highs, strict=True):
            masked["kept"] = {"share": 0.3, "low": 0.1, "high": high}
    evidence = scorecard.Evidence(artifacts.open_run(run_dir), document, {})
    check = scorecard.CHECKS["blackout"](evidence)
    assert (check.status == PASSED) == all(h is not None and h < 0.5 for h in highs)
    assert check.status != NOT_DONE


@pytest.fixture(scope="module")
def tmp_once(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    run_dir = Path(shutil.copytree(whole, tmp_path_factory.mktemp("once") / "demo"))
    return run_dir, add_audit(run_dir)


def test_nothing_to_keep_is_not_done(run_dir: Path) -> None:
    add_audit(run_dir)

    def empty(audit: dict) -> None:
        for masked in audit["blackout"]["models"]["cnn"]["without_lungs"].values():
            masked["kept"] = dict.fromkeys(("share", "low", "high"))

    change_audit(run_dir, empty)
    assert judge(run_dir, "blackout").models["cnn"] == NOT_DONE


@pytest.mark.parametrize(
    ("low", "high", "own", "n_patients", "status"),
    [
        (0.0, 0.5, 0.1, 16, PASSED),
        (0.0, 0.51, 0.1, 16, FAILED),  # more than half cannot be ruled out
        (0.2, 0.45, 0.1, 16, FAILED),  # more than the false alarms at home
        (0.1, 0.45, 0.1, 16, PASSED),
        (0.0, 0.2, 0.1, 9, NOT_DONE),  # too few patients
    ],
)
def test_source_probe(run_dir: Path, low, high, own, n_patients, status) -> None:
    add_audit(run_dir, fooled=())

    def ask(audit: dict) -> None:
        audit["probe"]["n_patients"] = n_patients
        for row in audit["probe"]["models"].values():
            row["covid"] |= {"share": (low + high) / 2, "low": low, "high": high}
            row["own"] = {"share": own}

    change_audit(run_dir, ask)
    assert judge(run_dir, "probe").status == status


def test_false_alarms_are_those_on_test_where_the_audit_has_none(run_dir: Path) -> None:
    add_audit(run_dir, fooled=())
    change_audit(run_dir, lambda a: [row.pop("own") for row in a["probe"]["models"].values()])
    table = pd.read_csv(run_dir / "cnn" / "predictions.csv")
    others = table[table["label"] != "covid"]
    alarms = 100 * (others["predicted"] == "covid").mean()
    figure = judge(run_dir, "probe").figures["cnn"]
    assert f"against {alarms:.1f}\u202f% of the other test images" in figure


# ------------------------------------------------------------------------------ stability


def test_the_mildest_stand_next_to_the_unaltered_image_on_both_sides() -> None:
    def strengths(values: list[float], neutral: float) -> list[float]:
        return [p["strength"] for p in mildest([{"strength": v} for v in values], neutral)]

    assert strengths([-60, -20, 20, 60], 0) == [-20, 20]
    assert strengths([10, 25, 50, 75], 100) == [75]
    assert strengths([5, 10], 0) == [5]
    assert strengths([0], 0) == []


@pytest.mark.parametrize(
    ("kind", "place", "low", "status"),
    [
        ("brightness", 2, 0.1, FAILED),  # -20, the mildest darkening
        ("brightness", 3, 0.1, FAILED),  # 20
        ("brightness", 0, 0.1, PASSED),  # -60 is shown and not judged
        ("jpeg", 3, 0.1, FAILED),  # quality 75
        ("jpeg", 0, 0.1, PASSED),
        ("jpeg", 3, None, FAILED),  # no interval, nothing shown
    ],
)
def test_only_mild_changes_are_judged(run_dir: Path, kind, place, low, status) -> None:
    add_audit(run_dir)

    def steady(audit: dict) -> None:
        for row in audit["perturbation"]["models"].values():
            base = row["baseline"]["accuracy"]
            for points in row["curves"].values():
                for point in points:
                    point |= {"accuracy": base, "low": base - 0.0999, "high": base}
        audit["perturbation"]["models"]["cnn"]["curves"][kind][place]["low"] = low

    change_audit(run_dir, steady)
    check = judge(run_dir, "perturbation")
    assert check.status == status
    if status == FAILED:
        assert f"({ {'jpeg': 'jpeg', 'brightness': 'brightness'}[kind] } " in check.sentence


# ------------------------------------------------------------------------------ subgroups


def set_group(audit: dict, column: int, group: int, **changes: Any) -> None:
    audit["subgroups"]["columns"][column]["groups"][group] |= changes


def test_a_group_behind_fails_and_is_named(run_dir: Path) -> None:
    add_audit(run_dir)

    def lag(audit: dict) -> None:
        row = audit["subgroups"]["columns"][0]["groups"][0]["models"]["cnn"]
        row["accuracy"] = {"value": 0.1, "low": 0.0, "high": 0.2}

    assert judge(run_dir, "subgroups").status == PASSED
    change_audit(run_dir, lag)
    check = judge(run_dir, "subgroups")
    assert check.status == FAILED and "CNN behind in View: AP, accuracy 10.0" in check.sentence
    change_audit(run_dir, lambda a: set_group(a, 0, 0, small=True))
    assert judge(run_dir, "subgroups").status == PASSED  # too small to judge


def test_where_the_class_is_given_away_sensitivity_is_judged(run_dir: Path) -> None:
    add_audit(run_dir)

    def lag(n_patients: int):
        def change(audit: dict) -> None:
            row = audit["subgroups"]["columns"][1]["groups"][1]["models"]["cnn"]
            low = {"value": 0.1, "low": 0.0, "high": 0.2, "n": 9, "n_patients": n_patients}
            row["sensitivity"]["pneumonia"] = low

        return change

    change_audit(run_dir, lag(20))
    check = judge(run_dir, "subgroups")
    assert check.status == FAILED and "sensitivity for pneumonia 10.0" in check.sentence
    change_audit(run_dir, lag(2))
    assert judge(run_dir, "subgroups").status == PASSED


def test_groups_that_are_all_small_are_not_done(run_dir: Path) -> None:
    add_audit(run_dir)

    def shrink(audit: dict) -> None:
        for column in audit["subgroups"]["columns"]:
            for group in column["groups"]:
                group["small"] = True

    change_audit(run_dir, shrink)
    assert judge(run_dir, "subgroups").status == NOT_DONE
    change_audit(run_dir, lambda a: a["subgroups"].update(columns=[]))
    assert judge(run_dir, "subgroups").status == NOT_DONE


# ------------------------------------------------------------------------------ external


@pytest.mark.parametrize(("high", "status"), [(0.10, PASSED), (0.11, FAILED), (None, FAILED)])
def test_external_is_judged_by_the_worse_end_of_the_drop(run_dir: Path, high, status) -> None:
    add_external(run_dir)

    def drop(doc: dict) -> None:
        for row in doc["drop"].values():
            row["macro_f1"] = {
                "internal": 0.8, "external": 0.76, "difference": 0.04, "low": -0.02, "high": high
            }  # fmt: skip

    change_external(run_dir, drop)
    assert judge(run_dir, "external").status == status


@given(st.floats(0.3, 1), st.floats(0, 1), st.floats(0, 0.2), st.floats(0, 0.2), st.booleans())
def test_a_drop_is_the_same_whichever_way_it_was_subtracted(home, there, down, up, flip) -> None:
    fall = home - there
    row = {"internal": home, "external": there, "difference": fall, "low": fall - down}
    row["high"] = fall + up
    if flip:
        row |= {"difference": -fall, "low": -fall - up, "high": -fall + down}
    found = macro_f1_fall({"drop": {"m": {"macro_f1": row}}}, "m")
    if abs(fall) > 1e-9:
        ends = (found["low"], found["high"])
        assert ends == pytest.approx((fall - down, fall + up))
    assert found["fall"] == pytest.approx(fall)


def test_falls_in_words() -> None:
    lower = {"fall": 0.12, "low": 0.04, "high": 0.2}
    assert fall_text(lower) == "12.0 points lower (4.0 to 20.0)"
    higher = {"fall": -0.03, "low": -0.05, "high": 0.01}
    assert fall_text(higher) == "3.0 points higher (-1.0 to 5.0)"
    assert fall_text({"fall": 0.1, "low": None, "high": None}).endswith("(no interval)")


def test_one_class_elsewhere_is_not_done_unless_it_shows_a_fall(run_dir: Path) -> None:
    add_external(run_dir, classes=["covid"])

    def set_high(high: float):
        """Of the difference, external less internal."""

        def change(doc: dict) -> None:
            for row in doc["drop"].values():
                row["recall.covid"] |= {"internal": 0.8, "external": 0.7, "difference": -0.1}
                row["recall.covid"] |= {"low": -0.2, "high": high}

        return change

    change_external(run_dir, set_high(0.0))
    check = judge(run_dir, "external")
    assert check.status == NOT_DONE and "without normal and pneumonia" in check.sentence
    change_external(run_dir, set_high(-0.01))
    assert judge(run_dir, "external").models["cnn"] == FAILED


def test_few_images_of_a_class_and_no_truth_are_not_done(run_dir: Path) -> None:
    add_external(run_dir, drop=0.0)

    def few(doc: dict) -> None:
        for far in doc["models"].values():
            far["per_class"]["covid"]["support"] = 9

    change_external(run_dir, few)
    check = judge(run_dir, "external")
    assert check.status == NOT_DONE and "fewer than 10 of covid" in check.sentence
    shutil.rmtree(run_dir / "external")
    add_external(run_dir, "blind", labelled=False)
    check = judge(run_dir, "external")
    assert check.status == NOT_DONE and "no truth" in check.sentence and check.command


def test_one_good_set_is_enough_unless_another_shows_the_contrary(run_dir: Path) -> None:
    def drop(high: float):
        def change(doc: dict) -> None:
            for row in doc["drop"].values():
                row["macro_f1"] |= {"internal": 0.8, "external": 0.8, "difference": 0.0}
                row["macro_f1"] |= {"low": -0.1, "high": high}

        return change

    add_external(run_dir)
    change_external(run_dir, drop(0.05))
    add_external(run_dir, "blind", labelled=False)
    check = judge(run_dir, "external")
    assert check.status == PASSED and "Scored too: Images from blind (not done)." in check.sentence
    add_external(run_dir, "worse")
    change_external(run_dir, drop(0.3), "worse")
    assert judge(run_dir, "external").status == FAILED


# ------------------------------------------------------------------------------ guard


def change_guard(run_dir: Path, change) -> None:
    file = run_dir / "guard" / "guard.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    change(document)
    file.write_text(json.dumps(document), encoding="utf-8")


@pytest.fixture
def guarded(run_dir: Path) -> Path:
    """A run whose guard passes, just: whole kept at 95%, five of six kinds refused at 90%."""
    add_guard(run_dir)

    def change(doc: dict) -> None:
        doc["acceptance"]["test"]["all"]["low"] = 0.95
        doc["refusal"]["hands"] |= {"low": 0.5}
        for kind in set(doc["refusal"]) - {"hands"}:
            doc["refusal"][kind]["low"] = 0.90

    change_guard(run_dir, change)
    return run_dir


def test_a_guard_passes_by_its_lower_ends(guarded: Path) -> None:
    check = judge(guarded, "guard")
    assert check.status == PASSED and check.command == "" and check.fault == ""
    assert "24 test images (covid 100.0\u202f%" in check.sentence
    assert "5 of 6 kinds of other pictures (of 1 too few pictures were" in check.sentence
    change_guard(guarded, lambda d: d["acceptance"]["test"]["all"].update(low=0.949))
    check = judge(guarded, "guard")
    assert check.status == FAILED and check.fault == "real images may be refused"


def test_a_class_that_is_shown_to_be_refused_fails_the_guard(guarded: Path) -> None:
    def high(value: float):
        row = {"share": 0.8, "low": 0.7, "high": value}
        return lambda d: d["acceptance"]["test"]["classes"]["covid"].update(row)

    change_guard(guarded, high(0.90))
    assert judge(guarded, "guard").status == PASSED
    change_guard(guarded, high(0.899))
    check = judge(guarded, "guard")
    assert check.status == FAILED and check.sentence.endswith("Kept too rarely: covid.")


def test_real_images_from_elsewhere_that_are_refused_are_said(guarded: Path) -> None:
    row = {"n": 50, "n_patients": 40, "share": 0.8, "low": 0.7, "high": 0.87}
    far = {"title": "Another hospital", "all": row, "classes": {"normal": row}}
    change_guard(guarded, lambda d: d["acceptance"].update(elsewhere={"far": far}))
    check = judge(guarded, "guard")
    assert check.status == PASSED
    assert check.sentence.endswith(
        "From elsewhere (Another hospital) it keeps 80.0\u202f% (70.0 to 87.0) of 50 images "
        "(normal 80.0\u202f%)."
    )


def test_four_kinds_are_too_few_and_a_weak_kind_fails(guarded: Path) -> None:
    change_guard(guarded, lambda d: d["refusal"]["noise"].update(low=0.899))
    check = judge(guarded, "guard")
    assert check.status == FAILED and check.fault == "pictures of other things may pass"
    change_guard(guarded, lambda d: d["refusal"]["noise"].update(low=0.90))
    assert judge(guarded, "guard").status == PASSED
    weak = {"share": 0.4, "low": 0.3, "high": 0.899}
    change_guard(guarded, lambda d: d["refusal"]["ct"].update(weak))
    check = judge(guarded, "guard")
    assert check.status == FAILED and "refused less often: CT slices" in check.sentence
    assert "least often: CT slices, 40.0\u202f% of 40 pictures" in check.sentence


def test_a_guard_that_was_measured_on_too_little_is_not_done(guarded: Path) -> None:
    change_guard(guarded, lambda d: [d["refusal"].pop(kind) for kind in ("noise", "ct")])
    check = judge(guarded, "guard")
    assert check.status == NOT_DONE and "4 kinds of other pictures" in check.sentence
    assert check.command == "python -m core guard --run demo"
    shutil.rmtree(guarded / "guard")
    add_guard(guarded)
    change_guard(guarded, lambda d: d.update(acceptance=None))
    check = judge(guarded, "guard")
    assert check.status == NOT_DONE and "on no test image" in check.sentence


def test_a_damaged_guard_is_named(guarded: Path) -> None:
    change_guard(guarded, lambda d: d["refusal"]["ct"].update(low=None))
    with pytest.raises(ArtifactError, match=r"guard/guard\.json is damaged: `refusal\.ct\.low`"):
        judge(guarded, "guard")


def test_the_guard_speaks_of_what_the_run_is_about(guarded: Path) -> None:
    titles = {
        "ct": "Refuses what is no chest CT slice",
        "phantom": "Refuses what is no chest phantom",
        "xray": "Refuses what is no chest X-ray",
    }
    for modality, title in titles.items():
        change_json(guarded / "run.json", modality=modality)
        assert judge(guarded, "guard").title == title
