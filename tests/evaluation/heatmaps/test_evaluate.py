"""The maps command from end to end, its files, and the figures that it makes of them."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.__main__ import main
from core.evaluation.heatmaps import evaluate
from core.evaluation.heatmaps.phantoms import draw_phantoms
from core.evaluation.heatmaps.pointing_game import BASELINES, SCORES
from core.inference.served_model import Output
from core.metrics.classification import predicted_index
from core.runs import artifacts
from core.runs.additions import load_maps, verify_additions, write_maps
from core.runs.readers import read_json
from core.runs.run import Run
from core.runs.schema.checking import find_problem
from core.runs.schema.maps import Maps
from tests.support.runs import make_run

PHANTOMS = 3


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    """A run whose maps were measured by the command, and the document it gave; never written to."""
    root = tmp_path_factory.mktemp("measured") / "artifacts"
    make_run(root, models=("cnn", "resnet50"), n=30, images=False, tiny_openvino=True,
             ensemble=True)  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_ARTIFACTS", str(root))
        patch.setattr(evaluate, "SHUFFLES", 2)
        patch.setattr(evaluate, "SANITY_PHANTOMS", 3)
        real = evaluate.measure_maps
        patch.setattr(
            evaluate,
            "measure_maps",
            lambda run: real(run, per_class=PHANTOMS, size_px=96),
        )
        assert main(["maps", "--run", "demo", "--json"]) == 0
    return root, read_json(root / "demo", "maps/maps.json")


@pytest.fixture
def run(measured, tmp_path: Path) -> Run:
    shutil.copytree(measured[0] / "demo", tmp_path / "demo")
    return artifacts.open_run(tmp_path / "demo")


def test_the_document_fits_its_shape_and_its_hashes(run, measured):
    document = load_maps(run)
    assert document == measured[1] and find_problem(document, Maps) is None
    assert verify_additions(run) == [] and artifacts.verify_run(run.path) == []
    (run.path / "maps" / "phantoms.csv").write_text("x\n")
    assert verify_additions(run) == ["maps/phantoms.csv has changed since it was written."]
    assert artifacts.verify_run(run.path) == [], "the run's own hashes do not count it"


def test_every_model_and_the_mean_is_measured(run):
    document = load_maps(run)
    assert list(document["models"]) == ["cnn", "resnet50", "ensemble"]
    for name, found in document["models"].items():
        assert sum(sum(row.values()) for row in found["called"].values()) == found["n"] == 9
        assert found["pointing"]["true"]["all"]["n"] == 2 * PHANTOMS, "normal has no lesion"
        assert found["pointing"]["called"]["covid"]["n"] == PHANTOMS
        right = sum(found["called"][label][label] for label in ("covid", "pneumonia"))
        assert found["pointing"]["right"]["all"]["n"] == right
        assert (found["sanity"] is None) == (name == "ensemble")
        assert found["sentence"].startswith(run.title(name))
    assert document["models"]["cnn"]["method"] == "class activation"
    assert document["models"]["ensemble"]["method"] == "mean of the members' maps"
    assert "learned from drawn phantoms" in document["learned_from"]


def test_figures_follow_from_the_table(run):
    scores = pd.read_csv(run.path / "maps" / "scores.csv")
    phantoms = pd.read_csv(run.path / "maps" / "phantoms.csv")
    assert len(phantoms) == 2 * PHANTOMS and len(scores) == 2 * len(phantoms) * 3
    table = scores.merge(phantoms, on=["label", "patient"], validate="many_to_one")
    assert list(table.columns) == evaluate.TABLE_COLUMNS
    found = load_maps(run)["models"]["cnn"]["pointing"]
    own = table[(table["model"] == "cnn") & (table["map"] == "true")]
    assert found["true"]["all"]["mass"]["value"] == pytest.approx(own["mass"].mean())
    covid = own[own["label"] == "covid"]
    assert found["true"]["covid"]["hit"]["value"] == pytest.approx(covid["hit"].mean())
    chance = found["true"]["covid"]["against"]["lungs"]["mass"]
    assert chance["value"] == pytest.approx(covid["lungs_mass"].mean())
    same = table[table["called"] == table["label"]]
    for _, pair in same.groupby(["model", "patient"]):
        assert len(pair) == 2 and pair["mass"].nunique() == 1, "own class and called class are one"


def row(kind: str, label: str, called: str, hit: int) -> dict:
    base = {f"{baseline}_{score}": 0.1 for baseline in BASELINES for score in SCORES}
    head = {"model": "m", "map": kind, "label": label, "patient": 1, "called": called}
    return head | dict.fromkeys(SCORES, hit) | base


def test_right_answers_are_counted_apart():
    table = pd.DataFrame(
        [
            row("true", "covid", "covid", 1),
            row("true", "covid", "normal", 0),
            row("true", "pneumonia", "covid", 0),
            row("called", "covid", "covid", 1),
            row("called", "covid", "normal", 1),
            row("called", "pneumonia", "covid", 1),
        ]
    )
    found = evaluate.summarise_table(table, seed=0)
    assert found["true"]["all"]["hit"]["value"] == pytest.approx(1 / 3)
    assert found["called"]["all"]["hit"]["value"] == 1
    assert (found["right"]["all"]["n"], found["right"]["all"]["hit"]["value"]) == (1, 1)
    assert found["right"]["pneumonia"]["n"] == 0


def test_phantoms_are_the_same_every_time_and_none_is_in_the_data_set(run):
    one, other = (draw_phantoms(["normal", "covid"], 2, 64, {32, 64}) for _ in range(2))
    assert one.labels == ["normal", "normal", "covid", "covid"]
    assert one.patients == other.patients and len(set(one.patients)) == 4
    assert one.pixels[32].shape == (4, 32, 32)
    np.testing.assert_array_equal(one.pixels[64], other.pixels[64])
    assert [target is None for target in one.targets] == [True, True, False, False]
    keys = [f"0/{c}/{number}".encode() for c in range(3) for number in range(200)]
    learned = {int.from_bytes(hashlib.sha256(key).digest()[:4], "big") for key in keys}
    assert not set(one.patients) & learned, (
        "as core.datasets.phantom.generate draws the data set, seed 0"
    )


def test_a_model_without_maps_is_asked_by_occlusion(run):
    class Blind:
        """Knows one pixel; has no class activation map."""

        input_size_px = 32

        def predict(self, pixels):
            odds = np.ones((len(pixels), 3))
            odds[:, 0] += pixels[:, 20, 20]
            shares = odds / odds.sum(axis=1, keepdims=True)
            return Output(shares, None, np.zeros((len(pixels), 1)))

    drawn = draw_phantoms(["covid"], 2, 64, {32})
    drawn.pixels[32][:, 20, 20] = 255
    asked = evaluate.predict_with_model(Blind(), drawn, np.arange(2), lambda n: None)
    assert asked.method == "occlusion"
    assert predicted_index(asked.probabilities).tolist() == [0, 0]
    assert np.unravel_index(asked.heat(1, 0).argmax(), (8, 8)) in ((4, 4), (4, 5), (5, 4), (5, 5))


@pytest.mark.parametrize(("modality", "says"), [("ct", "CT slices"), ("xray", None)])
def test_a_run_of_ct_slices_is_not_measured(run, modality, says):
    other = Run(run.path, run.info | {"modality": modality})
    assert (evaluate.why_not(other) is None) == (says is None)
    if says:
        document, table = evaluate.measure_maps(other)
        assert document["status"] == "not done" and says in document["reason"]
        write_maps(run, document, table)
        assert load_maps(run)["models"] == {}
        assert verify_additions(run) == []
    else:
        assert "nothing about patients" in evaluate.describe_learning(other)


def test_a_run_without_classes_that_have_lesions_is_not_measured(run):
    other = Run(run.path, run.info | {"class_names": ["cat", "normal"]})
    assert "None of the run's classes" in evaluate.why_not(other)


def test_the_command_says_why_and_ends_with_1(run, monkeypatch, capsys):
    info = run.info | {"modality": "ct"}
    (run.path / "run.json").write_text(json.dumps(info))
    monkeypatch.setenv("CXR_ARTIFACTS", str(run.path.parent))
    assert main(["maps", "--run", "demo", "--json"]) == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["status"] == "not done" and "CT slices" in err


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"models": None}, "`models` must be an object"),
        ({"models": {"cnn": {}}}, "is missing"),
        ({"phantoms": None}, "`phantoms`"),
        ({"files": None}, "not an object with `files`"),
    ],
)
def test_a_damaged_document_is_one_sentence(run, change, says):
    file = run.path / "maps" / "maps.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(artifacts.ArtifactError, match=says):
        load_maps(run)


def test_without_measurement_there_is_none(run):
    shutil.rmtree(run.path / "maps")
    assert load_maps(run) is None
