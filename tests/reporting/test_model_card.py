"""Model cards, refreshed after something was added to a run that is finished."""

from __future__ import annotations

import json
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
import yaml

from core.datasets.registry import Dataset
from core.evaluation.heatmaps.evaluate import measure_maps
from core.reporting.model_card import build_card, refresh_cards, tried_where
from core.runs import artifacts
from core.runs.additions import write_guard, write_maps
from core.runs.run import Run
from tests.support.runs import make_run

RELEASE = Path(__file__).resolve().parents[2] / "artifacts" / "release"
MODEL = "mobilenetv2"


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """The release run without its models and additions."""
    leave = shutil.ignore_patterns("model.xml", "model.bin", "audit", "external", "maps", "guard")
    shutil.copytree(RELEASE, tmp_path / "release", ignore=leave)
    return artifacts.open_run(tmp_path / "release")


@pytest.fixture(scope="module")
def maps_document(tmp_path_factory: pytest.TempPathFactory):
    """What is measured of a tiny run, and its table."""
    root = tmp_path_factory.mktemp("maps")
    path = make_run(root / "artifacts", models=(MODEL,), n=30, images=False, tiny_openvino=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("core.evaluation.heatmaps.evaluate.SHUFFLES", 1)
        patch.setattr("core.evaluation.heatmaps.evaluate.SANITY_PHANTOMS", 3)
        return measure_maps(artifacts.open_run(path), per_class=2, size_px=64)


RATE = {"n": 200, "n_patients": 150, "share": 0.985, "low": 0.96, "high": 0.995}
GUARD = {
    "model": MODEL,
    "model_files": {"model.xml": "00"},
    "subject": "a frontal chest X-ray",
    "modality": "xray",
    "input_size_px": 448,
    "level": 0.99,
    "method": "mahalanobis",
    "k": 5,
    "bounds": {"features": 1.0, "layout": 1.0},
    "rule": "as fitted",
    "acceptance": {
        "test": {"all": RATE, "classes": {"covid": RATE | {"n": 24}}, "columns": {}},
        "elsewhere": {"kaggle": {"title": "From elsewhere", "all": RATE, "classes": {}}},
    },
    "refusal": {
        "cats": {
            "title": "Photos of cats", "pictures": 3, "looked_at": "no", "n": 3, "share": 1.0,
            "low": 0.44, "high": 1.0,
        }
    },
    "missing": ["hands: there were none"],
}  # fmt: skip


def card(run: Run, model: str = MODEL) -> str:
    return artifacts.load_card(run, model)


def build(run: Run, **changed) -> str:
    """A card of the run, with keys of run.json changed; maps and guard as in build_card."""
    documents = {key: changed.pop(key) for key in ("maps", "guard") if key in changed}
    known = run.info["dataset"]
    dataset = Dataset(known["name"], known["title"], run.modality, licence=known["licence"])
    metrics = artifacts.load_metrics(run, MODEL)
    return build_card(MODEL, run.info | changed, metrics, dataset, **documents)


def section(text: str, title: str) -> str:
    return text.split(f"## {title}\n")[1].split("\n## ")[0].strip()


def test_a_card_says_what_was_not_measured_and_how_to(run):
    fresh = refresh_cards(run)
    text = card(fresh)
    assert "## Heat maps\nNot measured. `python -m core maps --run release`" in text
    assert "answers for any picture" in text and "`python -m core guard --run release`" in text
    assert "DarkCovidNet chest X-rays" in text and "NIH ChestX-ray8" in text, "from run.json"
    assert artifacts.load_card(fresh, "ensemble") is None


def test_only_cards_and_their_hashes_change(run, maps_document):
    before = json.loads((run.path / "run.json").read_text())
    others = {
        file: file.read_bytes()
        for file in run.path.rglob("*")
        if file.is_file() and file.name not in ("card.md", "run.json")
    }
    write_maps(run, *maps_document)
    fresh = refresh_cards(run)
    after = json.loads((run.path / "run.json").read_text())
    changed = {name for name in after["files"] if after["files"][name] != before["files"][name]}
    assert changed == {f"{model}/card.md" for model in run.served}
    assert after | {"files": 0} == before | {"files": 0} and list(after) == list(before)
    assert list(after["files"]) == list(before["files"])
    assert all(file.read_bytes() == content for file, content in others.items())
    assert all("is missing" in problem for problem in artifacts.verify_run(fresh.path))
    again = (run.path / "run.json").read_bytes()
    refresh_cards(fresh)
    assert (run.path / "run.json").read_bytes() == again


def test_damage_elsewhere_is_not_covered_up(run):
    (run.path / MODEL / "history.csv").write_text("epoch\n")
    refresh_cards(run)
    assert f"{MODEL}/history.csv has changed since the run was written." in artifacts.verify_run(
        run.path
    )


def test_a_card_gives_the_figures_of_its_maps(run, maps_document):
    document, table = maps_document
    write_maps(run, document, table)
    text = card(refresh_cards(run))
    found = document["models"][MODEL]
    assert found["sentence"] in text and document["learned_from"] in text
    own = found["pointing"]["true"]["covid"]
    hit, mass = (line for line in text.splitlines() if line.startswith("| own class | covid |"))
    assert f"| {own['n']} | {100 * own['hit']['value']:.1f} %" in hit
    assert f"| {100 * own['against']['lungs']['mass']['value']:.1f} % " in mass
    lines = text.splitlines()
    for above, rule in pairwise(lines):
        if rule.startswith("| ---"):
            assert above.count("|") == rule.count("|"), "as many columns as titles"
    assert f"| all layers | {found['sanity']['all_layers']['rank_abs']:.2f} |" in text
    assert "Passed. A model fails when" in text or "**FAILED**. A model fails when" in text
    other = card(run, "cnn")
    assert "Not measured for this model." in other


def test_a_failed_check_stands_out(run, maps_document):
    document = json.loads(json.dumps(maps_document[0]))
    document["models"][MODEL]["sanity"]["all_layers"]["rank_abs"] = 0.9
    assert "**FAILED**" in section(build(run, maps=document), "Heat maps")


def test_maps_of_a_ct_run_are_not_done_for_a_reason(run):
    document = {"status": "not done", "reason": "The models read CT slices.", "models": {}}
    text = section(build(run, maps=document), "Heat maps")
    assert text == "Not measured: The models read CT slices."


def test_a_card_gives_the_figures_of_the_guard(run):
    write_guard(run, GUARD, {})
    text = card(refresh_cards(run))
    assert "looks like a frontal chest X-ray" in text and "let 99 % of real ones" in text
    assert "| test images | 200 | 98.5 % (96.0 to 99.5) |" in text
    assert "| test images, covid | 24 | 98.5 % (96.0 to 99.5) |" in text
    assert "| From elsewhere | 200 |" in text
    assert "| Photos of cats | 3 | 100.0 % (44.0 to 100.0) |" in text
    assert "Not measured: hands: there were none." in text
    assert "answers for any picture" not in text


def test_a_guard_that_was_not_measured_says_so(run):
    unmeasured = GUARD | {"acceptance": None, "refusal": {}}
    text = section(build(run, guard=unmeasured), "Refusing other pictures")
    assert "was not measured" in text and "|" not in text


def test_runs_without_recipes_keep_their_cards(tmp_path):
    run = artifacts.open_run(make_run(tmp_path / "runs", n=30, images=False))
    before = (run.path / "cnn" / "card.md").read_bytes()
    refresh_cards(run)
    assert (run.path / "cnn" / "card.md").read_bytes() == before
    assert artifacts.verify_run(run.path) == []


def test_recipes_tried_elsewhere_are_said_to_be():
    home, away = ({"dataset": {"name": name}} for name in ("darkcovidnet", "ucsd-covid-ct"))
    assert tried_where(home, 3) == tried_where(away, 1) == ""
    assert tried_where(away, 3) == " (on darkcovidnet, none on this data set)"


def test_a_card_says_that_weights_were_not_kept(run):
    said = section(build(run, weights={MODEL: "not kept"}), "Training")
    assert "Weights: not kept in this run" in said and "--run release-again" in said
    for kept in ({}, {"weights": {MODEL: "kept"}}):
        assert "not kept" not in section(build(run, **kept), "Training")


# ---------------------------------------------------------------- what the Hugging Face Hub reads


def front_matter(text: str) -> dict:
    first, metadata, card = text.split("---\n", 2)
    assert first == "" and card.startswith("\n# MobileNetV2 (release)\n")
    return yaml.safe_load(metadata)


def test_the_yaml_above_a_card_agrees_with_the_metrics(run):
    refresh_cards(run)
    found = front_matter((run.path / MODEL / "card.md").read_text(encoding="utf-8"))
    metrics = artifacts.load_metrics(run, MODEL)
    assert found["license"] == "other" and "MIT" in found["license_details"]
    assert run.info["dataset"]["licence"] in found["license_details"]
    assert found["datasets"] == ["darkcovidnet"] and found["metrics"] == ["accuracy", "f1"]
    assert "research-use-only" in found["tags"]
    (model,) = found["model-index"]
    (result,) = model["results"]
    assert result["task"] == {"type": "image-classification"}
    assert result["dataset"] == {
        "type": "darkcovidnet",
        "name": run.info["dataset"]["title"],
        "split": "test",
    }
    accuracy, macro_f1 = result["metrics"]
    assert (accuracy["type"], accuracy["value"]) == ("accuracy", metrics["accuracy"])
    assert (macro_f1["type"], macro_f1["value"]) == ("f1", metrics["macro_f1"])
    low, high = (100 * metrics["intervals"]["macro_f1"][end] for end in ("low", "high"))
    assert macro_f1["name"] == (
        f"Macro-F1, {metrics['n']} test images of {metrics['n_patients']} patients, "
        f"95% interval {low:.1f} to {high:.1f}"
    )


def test_the_yaml_above_a_card_names_what_makes_its_figures_worthless(run):
    found = front_matter(build(run, leakage={"share": 0.44}, modality="phantom"))
    name = found["model-index"][0]["results"][0]["dataset"]["name"]
    assert "SYNTHETIC" in name and "LEAKS: 44%" in name
    assert {"synthetic", "leakage"} <= set(found["tags"])


def test_a_card_is_shown_without_the_yaml_above_it(run):
    fresh = refresh_cards(run)
    assert (run.path / MODEL / "card.md").read_text(encoding="utf-8").startswith("---\nlicense:")
    text = card(fresh)
    assert text.startswith("# MobileNetV2 (release)\n") and "license:" not in text
