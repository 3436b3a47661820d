"""Train on one, test on another: which run stands for a data set, exact cells, and the command."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest
from sklearn.metrics import balanced_accuracy_score

from core.__main__ import main
from core.evaluation.external import cross_dataset_tasks
from core.evaluation.external.cross_dataset import build_matrices, build_matrix
from core.evaluation.external.run_choice import choose_runs, row_name
from core.evaluation.external.scoring import (
    ScoredImages,
    compare_with_test_split,
    score_external,
)
from core.reporting.cross_dataset import cell_text
from core.runs import additions, artifacts, writing
from core.runs.artifacts import open_run
from core.runs.run import NOT_KEPT, Run
from tests.support.audit import add_external, change_json
from tests.support.runs import CLASS_NAMES, make_run

# ------------------------------------------------------------------------------ rows


def made_up(name: str, data: str = "darkcovidnet", **info) -> Run:
    """A run without files; created in the order of the names' last letters."""
    start = {
        "name": name, "dataset": {"name": data}, "models": ["cnn"], "modality": "xray",
        "class_names": list(CLASS_NAMES), "created": f"2026-01-0{1 + ord(name[-1]) % 9}T00:00:00Z",
        "split_policy": "group",
    }  # fmt: skip
    return Run(Path(name), start | info)


LEAKAGE = {"images": 99, "share": 0.44, "patients": 75, "exact": 0, "near": 0}


def choose(*runs: Run, model: str = "cnn", **n_external: int):
    counts = {run.name: n_external.get(run.name, 0) for run in runs}
    rows, notes = choose_runs(runs, model, counts)
    return {row: run.name for row, run in rows.items()}, notes


def test_most_results_elsewhere_count_and_then_the_newest():
    a, b = (
        made_up("a", created="2026-01-01T00:00:00Z"),
        made_up("b", created="2026-02-01T00:00:00Z"),
    )
    rows, notes = choose(a, b)
    assert rows == {"darkcovidnet": "b"}
    assert notes == ["Run a gives way to b for darkcovidnet, which is newer."]
    rows, notes = choose(a, b, a=2, b=1)
    assert rows == {"darkcovidnet": "a"} and "more sets from elsewhere (2 to 1)" in notes[0]


def test_runs_that_leak_or_were_split_at_random_never_stand_for_a_set():
    leaky = made_up("leaky", leakage=LEAKAGE, split_policy="random")
    chance = made_up("chance", split_policy="random", leakage=None)
    rows, notes = choose(leaky, chance, leaky=5, chance=5)
    assert rows == {}
    assert notes[0].startswith("Run leaky is left out: 44") and "split at random" in notes[1]
    assert choose(leaky, made_up("z"))[0] == {"darkcovidnet": "z"}


def test_a_run_without_the_model_is_not_spoken_of():
    assert choose(made_up("a"), made_up("b", models=["resnet50"])) == ({"darkcovidnet": "a"}, [])


def test_phantoms_count_only_among_themselves():
    drawn = made_up("demo", "phantom", modality="phantom")
    assert choose(drawn)[0] == {"phantom": "demo"}
    rows, notes = choose(drawn, made_up("a"))
    assert rows == {"darkcovidnet": "a"}
    assert notes == ["Run demo is left out: it learned from drawn phantoms."]


def test_two_of_three_classes_are_another_row():
    two = ["covid", "normal"]
    by_config = made_up("a", config={"classes": two}, class_names=two)
    by_task = made_up("b", "set", task={"classes": two, "left_out": {"No": 5}}, class_names=two)
    all_there = made_up(
        "c", "set", task={"classes": two, "left_out": {}}, config={"classes": two}, class_names=two
    )
    assert row_name(by_config) == "darkcovidnet (covid, normal)"
    assert row_name(by_task) == "set (covid, normal)" and row_name(all_there) == "set"
    assert choose(made_up("z"), by_config)[0] == {
        "darkcovidnet": "z",
        "darkcovidnet (covid, normal)": "a",
    }


def test_other_classes_are_told_apart_even_where_a_run_does_not_say_why():
    rows, _ = choose(made_up("a"), made_up("b", class_names=["covid", "other"]))
    assert rows == {
        "darkcovidnet (covid, normal, pneumonia)": "a",
        "darkcovidnet (covid, other)": "b",
    }


def test_means_of_other_models_are_said_to_be_others():
    kinds = {"models": ["x", "y", "z", "mean"], "kind": {"mean": "ensemble"}}
    a = made_up("a", **kinds, members={"mean": ["x", "y"]})
    b = made_up("b", "other", **kinds, members={"mean": ["y", "z"]})
    assert any("not made of the same models" in n for n in choose(a, b, model="mean")[1])
    assert choose(a, b, model="x")[1] == []


# ------------------------------------------------------------------------------ cells


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("crossing")
    make_run(root, name="one", models=("cnn",), n=60, images=False, modality="xray")
    make_run(root, name="two", models=("cnn",), n=60, images=False, modality="xray", seed=1)
    return root


@pytest.fixture
def runs(whole: Path, tmp_path: Path) -> list[Run]:
    """Two runs of the same classes on the data sets `left` and `right`."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    for name, data in (("one", "left"), ("two", "right")):
        file = tmp_path / name / "run.json"
        dataset = json.loads(file.read_text())["dataset"] | {"name": data}
        change_json(file, dataset=dataset)
    return [open_run(tmp_path / name) for name in ("one", "two")]


def keep_external(run: Run, name: str, answers: list[tuple[str, str]], excluded=(), extra=None):
    """external/<name> of images, a patient each: (label, called) with all its probability."""
    rows = [
        {
            "image_id": f"far/{k}", "split": "external", "fold": "", "label": label,
            "predicted": called, **{f"p_{c}": float(c == called) for c in CLASS_NAMES},
        }
        for k, (label, called) in enumerate(answers)
    ]  # fmt: skip
    table = pd.DataFrame(rows)
    patients = [f"far-{k}" for k in range(len(rows))]
    present = [c for c in CLASS_NAMES if c in {label for label, _ in answers}]
    home = artifacts.load_manifest(run).set_index("image_id")["patient_id"].to_dict()
    own = artifacts.load_predictions(run, "cnn")
    document = {
        "title": name, "modality": "xray", "labelled": bool(present), "n": len(rows),
        "n_patients": len(rows), "classes_present": present,
        "classes_missing": [c for c in CLASS_NAMES if present and c not in present],
        "classes_extra": extra or {}, "caveats": [], "skipped": [],
        "excluded": [
            {"image_id": f"x{k}", "reason": "r", "kind": kind} for k, kind in enumerate(excluded)
        ],
        "models": {"cnn": score_external(table, patients, CLASS_NAMES, present, draws=50)},
        "drop": {
            "cnn": compare_with_test_split(
                ScoredImages(own, [home[image_id] for image_id in own["image_id"]]),
                ScoredImages(table, patients), CLASS_NAMES, present, draws=50,
            )
        },
        "with_overlap": {}, "findings": {},
    }  # fmt: skip
    manifest = pd.DataFrame(
        {
            "image_id": table["image_id"], "path": table["image_id"], "label": table["label"],
            "original_label": table["label"], "patient_id": patients, "sha256": patients,
        }
    )  # fmt: skip
    additions.write_external(run, name, document, manifest, {"cnn": table})


# Covid: 2 of 3 found, one called pneumonia; normal: both found.
FIVE = [("covid", "covid"), ("covid", "covid"), ("covid", "pneumonia")] + [("normal", "normal")] * 2


def test_the_diagonal_is_the_runs_own_test_part(runs):
    matrix = build_matrix(runs, "cnn")
    assert matrix.names == matrix.columns == ("left", "right")
    assert matrix.runs == {"left": "one", "right": "two"} and matrix.notes == ()
    for run, name in zip(runs, matrix.names, strict=True):
        own, cell = artifacts.load_predictions(run, "cnn"), matrix.cells[name, name]
        assert cell.in_domain and cell.n == len(own) and cell.n_patients == len(own) // 2
        expected = balanced_accuracy_score(own["label"], own["predicted"])
        assert cell.balanced_accuracy == pytest.approx(expected)
        assert cell.accuracy == pytest.approx((own["label"] == own["predicted"]).mean())
        assert cell.called == {c: int((own["predicted"] == c).sum()) for c in CLASS_NAMES}
        low, high = cell.intervals["balanced_accuracy"]
        assert low < expected < high and cell.reason == cell.note == "" and cell.drop == {}


def test_what_was_not_done_says_what_would_do_it(runs):
    cell = build_matrix(runs, "cnn").cells["left", "right"]
    assert not cell.measured and cell.balanced_accuracy is None
    assert cell.reason == "Not done: run `python -m core cross --runs one --data right`."
    slim = Run(runs[0].path, runs[0].info | {"weights": {"cnn": NOT_KEPT}})
    cell = build_matrix([slim, runs[1]], "cnn").cells["left", "right"]
    assert "weights of CNN were not kept in run one" in cell.reason


def test_a_cell_off_the_diagonal_is_counted_by_hand(runs):
    keep_external(runs[0], "right", FIVE, ["duplicate", "duplicate", "class"], {"effusion": 1})
    cell = build_matrix(runs, "cnn").cells["left", "right"]
    assert (cell.n, cell.n_patients, cell.n_left_out) == (5, 5, 3)
    assert cell.left_out == {"duplicate": 2, "class": 1} and not cell.in_domain
    assert cell.classes == ("covid", "normal")
    assert cell.accuracy == pytest.approx(4 / 5)
    assert cell.balanced_accuracy == pytest.approx((2 / 3 + 1) / 2)
    assert cell.macro_f1 == pytest.approx((4 / 5 + 1) / 2)  # covid: precision 1, recall 2/3
    assert cell.sensitivity == pytest.approx({"covid": 2 / 3, "normal": 1})
    assert cell.called == {"covid": 2, "normal": 2, "pneumonia": 1}
    assert cell.reason == ""
    assert cell.note == (
        "No pneumonia there: calls of pneumonia count as errors. Left out, as the model does not "
        "know the class: 1 effusion."
    )


def test_at_home_beside_it_are_the_same_classes(runs):
    keep_external(runs[0], "right", FIVE)
    cell = build_matrix(runs, "cnn").cells["left", "right"]
    own = artifacts.load_predictions(runs[0], "cnn")
    recalls = [
        (own["predicted"][own["label"] == label] == label).mean() for label in ("covid", "normal")
    ]
    drop = cell.drop["balanced_accuracy"]
    assert drop["internal"] == pytest.approx(sum(recalls) / 2)
    assert drop["external"] == pytest.approx(cell.balanced_accuracy)
    assert "own test images" in cell_text(cell, {})


def test_of_one_class_its_sensitivity_alone_is_known(runs):
    keep_external(runs[0], "right", FIVE[:3])
    cell = build_matrix(runs, "cnn").cells["left", "right"]
    assert cell.measured and cell.classes == ("covid",)
    assert (cell.accuracy, cell.balanced_accuracy, cell.macro_f1) == (None, None, None)
    assert cell.sensitivity == pytest.approx({"covid": 2 / 3}) and "recall.covid" in cell.intervals
    assert "nothing about false alarms" in cell.reason
    assert cell_text(cell, {}).startswith("covid found 66.7")


def test_images_without_labels_are_only_counted(runs):
    add_external(runs[0].path, "right", labelled=False)
    cell = build_matrix(runs, "cnn").cells["left", "right"]
    assert cell.measured and cell.balanced_accuracy is None and cell.sensitivity == {}
    assert sum(cell.called.values()) == cell.n and "no labels" in cell.reason


def test_sets_that_nobody_trained_on_are_columns_of_their_own(runs):
    keep_external(runs[0], "hospital", FIVE)
    matrix = build_matrix(runs, "cnn")
    assert matrix.names == ("left", "right") and matrix.columns == ("left", "right", "hospital")
    assert matrix.cells["left", "hospital"].n == 5
    assert not matrix.cells["right", "hospital"].measured
    assert set(matrix.cells) == {(a, b) for a in matrix.names for b in matrix.columns}


def test_ct_and_x_rays_are_not_crossed(runs):
    ct = Run(runs[1].path, runs[1].info | {"modality": "ct"})
    matrix = build_matrix([runs[0], ct], "cnn")
    assert matrix.cells["left", "right"].reason.startswith("CT slices are no chest X-rays")
    assert matrix.cells["right", "left"].reason.startswith("Chest X-rays are no CT slices")
    assert matrix.cells["right", "right"].measured


def test_a_damaged_result_is_a_reason_and_not_a_figure(runs):
    keep_external(runs[0], "right", FIVE)
    change_json(runs[0].path / "external" / "right" / "external.json", n="five")
    cell = build_matrix(runs, "cnn").cells["left", "right"]
    # Nothing tells whose figures it held, so the set is no column by it, but `right` is one anyway.
    assert not cell.measured and "external.json is damaged: `n`" in cell.reason


def test_every_model_has_a_matrix_and_an_unknown_one_is_empty(runs):
    assert list(build_matrices(runs)) == ["cnn"]
    empty = build_matrix(runs, "vgg16")
    assert empty.names == () == empty.columns and empty.cells == {}


# ------------------------------------------------------------------------------ command


@pytest.fixture(scope="module")
def two_sets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs `one` and `two` on the phantom sets `phantom` and `second`, which share one patient."""
    root = tmp_path_factory.mktemp("two")
    make_run(root / "artifacts", name="one", models=("cnn",), n=30, tiny_openvino=True)
    other = root / "other"
    make_run(other / "artifacts", name="two", models=("cnn",), n=30, tiny_openvino=True, seed=7)
    data = (other / "data" / "phantom").rename(root / "data" / "second")
    table = pd.read_csv(data / "metadata.csv", dtype=str)
    shared = (
        table["patient_id"]
        == artifacts.load_manifest(open_run(root / "artifacts" / "one"))["patient_id"].iloc[2]
    )
    assert shared.sum() == 2
    table.loc[~shared, "patient_id"] = "second-" + table["patient_id"]
    table.to_csv(data / "metadata.csv", index=False)
    run = (other / "artifacts" / "two").rename(root / "artifacts" / "two")
    dataset = json.loads((run / "run.json").read_text())["dataset"] | {"name": "second"}
    change_json(run / "run.json", dataset=dataset)
    manifest = artifacts.load_manifest(open_run(run))
    manifest["patient_id"] = "second-" + manifest["patient_id"]
    writing.write_manifest(run, manifest)
    return root


@pytest.fixture
def command(two_sets: Path, tmp_path: Path, monkeypatch, capsys):
    shutil.copytree(two_sets, tmp_path, dirs_exist_ok=True)
    for name, folder in (("ARTIFACTS", "artifacts"), ("DATA", "data"), ("CACHE", "cache")):
        monkeypatch.setenv(f"CXR_{name}", str(tmp_path / folder))
    monkeypatch.setattr("core.evaluation.external.overlap.MOST_PAIRS", 0)

    def call(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["cross", *words])
        return status, *capsys.readouterr()

    return call


def test_every_run_is_scored_on_the_others_data(command, tmp_path, monkeypatch):
    status, out, said = command("--json")
    assert status == 0 and "[2/2] two on phantom" in said
    document = json.loads(out)
    assert document["problems"] == []
    (matrix,) = document["matrices"]
    assert matrix["names"] == ["phantom", "second"]
    assert matrix["runs"] == {"phantom": "one", "second": "two"}
    cells = {(cell["train"], cell["test"]): cell for cell in matrix["cells"]}
    # Two images of the patient that run one learned from are left out; two knows no such patient.
    away = cells["phantom", "second"]
    assert away["n"] == 28 and away["left_out"] == {"same patient": 2}
    assert cells["second", "phantom"]["n"] == 30
    kept = additions.load_external(open_run(tmp_path / "artifacts" / "one"), "second")
    assert away["balanced_accuracy"] == kept["models"]["cnn"]["balanced_accuracy"]
    assert away["drop"]["macro_f1"]["internal"] == kept["drop"]["cnn"]["macro_f1"]["internal"]

    # What is there is not made again, unless that is asked for.
    made = []
    monkeypatch.setattr(
        cross_dataset_tasks,
        "evaluate_into_run",
        lambda run, *_, **more: made.append((run.name, more)),
    )
    status, out, said = command()
    assert status == 0 and made == [] and "there already" in said
    assert "| phantom, run one | " in out and "28 (covid, normal, pneumonia), 2 left out" in out
    assert command("--again", "--runs", "one,two", "--data", "second")[0] == 0
    assert made == [("one", {"replace": True})]


def test_a_set_that_is_not_here_costs_only_itself(command, tmp_path):
    shutil.rmtree(tmp_path / "data" / "second")
    status, out, said = command()
    assert status == 1 and "No data set or folder 'second'" in said and "1 of 2" in said
    assert "Traceback" not in said and "Not done: run `python -m core cross --runs one" in out
    assert additions.list_external(open_run(tmp_path / "artifacts" / "two")) == ["phantom"]


def test_a_run_without_weights_is_named_and_the_other_is_scored(command, tmp_path):
    assert main(["slim", "--run", "one"]) == 0
    status, _, said = command()
    assert status == 1 and "weights of run one were not kept" in said
    assert additions.list_external(open_run(tmp_path / "artifacts" / "two")) == ["phantom"]


def test_wrong_use_is_one_sentence(command, tmp_path):
    assert command("--runs", "nobody")[0] == 2
    assert command("--runs", ",")[0] == 2
    change_json(tmp_path / "artifacts" / "one" / "run.json", split_policy="random")
    status, _, said = command("--runs", "one")
    assert status == 2 and "None of the runs can be crossed" in said
