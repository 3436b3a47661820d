"""Runs without weights: every figure stays, models answer nothing new, and that is said plainly."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from core.__main__ import main
from core.datasets.phantom.generate import make_phantom
from core.imageio.decode import decode_image
from core.inference.ensemble import open_models
from core.inference.served_model import InferenceError, load_model
from core.reporting.run_summary import summarise_run
from core.runs import additions, artifacts, writing
from core.runs.artifacts import ArtifactError, open_run, verify_run
from core.runs.missing_weights import left_out, left_out_sentence, retrain_command
from core.runs.prune import SlimError, slim_run
from core.runs.run import NOT_KEPT, Run
from core.serving.guard.detector import load_guard
from core.serving.predict import NO_WEIGHTS, open_predictor
from tests.support.audit import add_audit, add_external, change_json
from tests.support.files import copy_workplace
from tests.support.guard import add_guard
from tests.support.runs import make_run

MODELS = ["cnn", "resnet50", "mobilenetv2"]
AGAIN = "python -m core train --dataset phantom --run demo-again"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of three models and their mean, with its phantoms; never written to."""
    root = tmp_path_factory.mktemp("slim")
    make_run(root / "artifacts", n=30, tiny_openvino=True, ensemble=True)
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    copy_workplace(whole, tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def run(root: Path) -> Run:
    return open_run(root / "artifacts" / "demo")


@pytest.fixture
def command(root: Path, capsys: pytest.CaptureFixture):
    def call(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(word) for word in words])
        out, err = capsys.readouterr()
        return status, out, err

    return call


def files_of(run: Run) -> set[str]:
    return set(artifacts.run_file_names(run.path))


# ------------------------------------------------------------------------------ the run


def test_all_weights_go_and_everything_else_stays(run: Run) -> None:
    before, said = files_of(run), summarise_run(run)
    sizes = [f.stat().st_size for m in MODELS for f in (run.path / m).glob("model.*")]
    slim, freed = slim_run(run)
    gone = {f"{model}/model.{kind}" for model in MODELS for kind in ("xml", "bin")}
    assert before - files_of(slim) == gone and len(sizes) == 6 and freed == sum(sizes)
    assert slim.info["weights"] == dict.fromkeys(MODELS, NOT_KEPT)
    assert slim.served == [] == slim.usable_models
    assert slim.singles == MODELS and slim.models == [*MODELS, "ensemble"]
    assert verify_run(run.path) == [] and summarise_run(slim) == said
    changed = {"weights", "files"}
    assert {k: v for k, v in slim.info.items() if k not in changed} == {
        k: v for k, v in run.info.items() if k not in changed
    }


def test_slimming_twice_is_harmless(run: Run) -> None:
    slim, _ = slim_run(run, ["cnn"])
    written = (run.path / "run.json").stat().st_mtime_ns
    again, freed = slim_run(slim, ["cnn"])
    assert freed == 0 and again.info == slim.info
    assert (run.path / "run.json").stat().st_mtime_ns == written


def test_kept_models_answer_and_a_mean_needs_all_its_members(run: Run) -> None:
    slim, _ = slim_run(run, ["cnn", "resnet50"])
    assert slim.served == ["cnn", "resnet50"] == slim.usable_models
    assert left_out(slim) == ["mobilenetv2", "ensemble"]
    assert open_models(slim).names == ["cnn", "resnet50"]
    assert load_model(slim, "cnn").name == "cnn"
    with pytest.raises(ArtifactError, match="weights of MobileNetV2 were not kept"):
        load_model(slim, "mobilenetv2")
    with pytest.raises(InferenceError, match="no model 'ensemble'"):
        load_model(slim, "ensemble")


def test_an_ensemble_that_is_kept_keeps_its_members(run: Run) -> None:
    slim, freed = slim_run(run, ["ensemble"])
    assert freed == 0 and slim.usable_models == slim.models and left_out_sentence(slim) == ""


def test_model_keras_goes_too(run: Run) -> None:
    (run.path / "cnn" / "model.keras").write_bytes(b"weights")
    writing.finish_run(run.path, {k: v for k, v in run.info.items() if k != "files"})
    slim_run(open_run(run.path), ["mobilenetv2"])
    assert not (run.path / "cnn" / "model.keras").exists() and verify_run(run.path) == []


@pytest.mark.parametrize("keep", [["vgg16"], ["cnn", "vgg16"]])
def test_unknown_names_are_refused_and_nothing_is_deleted(run: Run, keep) -> None:
    before = files_of(run)
    with pytest.raises(SlimError, match=r"no model vgg16\. It has: cnn, resnet50"):
        slim_run(run, keep)
    assert files_of(run) == before


def test_what_is_gone_cannot_be_kept(run: Run) -> None:
    slim, _ = slim_run(run)
    with pytest.raises(SlimError, match=f"CNN are gone from run demo already.*{AGAIN}"):
        slim_run(slim, ["cnn"])


def test_an_interrupted_call_is_completed_by_the_next(run: Run) -> None:
    with pytest.raises(ZeroDivisionError):
        slim_run(run, (), lambda run: 1 / 0)
    assert any("model.xml is missing" in problem for problem in verify_run(run.path))
    slim, _ = slim_run(open_run(run.path))
    assert slim.served == [] and verify_run(run.path) == []


def test_weights_stay_while_they_may_be_needed_to_mend_predictions(run: Run) -> None:
    file = run.path / "cnn" / "predictions.csv"
    file.write_text(file.read_text().replace("covid", "normal", 1))
    before = files_of(run)
    with pytest.raises(SlimError, match=r"demo/cnn/predictions\.csv is not as it was written"):
        slim_run(run)
    assert files_of(run) == before


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"cnn": "lost"}, "weights.cnn"),
        ({"ensemble": "kept"}, "weights.ensemble"),
        ({"vgg16": "kept"}, "weights.vgg16"),
        ({"cnn": None}, "weights.cnn"),
    ],
)
def test_what_run_json_says_of_weights_is_checked(run: Run, weights, says) -> None:
    change_json(run.path / "run.json", weights=weights)
    with pytest.raises(ArtifactError, match=says):
        open_run(run.path)


def test_the_factory_makes_a_run_without_weights(tmp_path: Path) -> None:
    made = open_run(make_run(tmp_path, n=30, images=False, tiny_openvino=True, weights=False))
    assert made.served == [] and made.singles == MODELS and verify_run(made.path) == []
    assert not list(made.path.glob("*/model.*"))


# ------------------------------------------------------------------------------ words


def test_the_command_that_trains_again_is_the_runs_own_under_another_name() -> None:
    command = "python -m core train --dataset x --models cnn --run a.b --folds 5"
    info = {"name": "a.b", "command": command}
    assert retrain_command(info) == command.replace("--run a.b", "--run a.b-again")


def test_a_run_that_tells_no_command_gets_one_without_ensembles() -> None:
    info = {
        "name": "old", "dataset": {"name": "x"}, "models": ["cnn", "mean"],
        "members": {"mean": ["cnn", "cnn"]},
    }  # fmt: skip
    expected = "python -m core train --dataset x --models cnn --run old-again"
    assert retrain_command(info) == expected


# ------------------------------------------------------------------------------ commands


def test_the_command_says_what_was_freed(command, run: Run) -> None:
    status, out, said = command("slim", "--run", "demo", "--keep", "mobilenetv2", "--json")
    assert status == 0 and "MB freed" in said and "Kept: the weights of MobileNetV2." in said
    document = json.loads(out)
    assert document["kept"] == ["mobilenetv2"] and document["not_kept"] == ["cnn", "resnet50"]
    assert document["freed_mb"] > 0
    assert command("verify", "--run", "demo")[0] == 0
    status, _, said = command("slim", "--run", "demo", "--keep", "vgg16")
    assert status == 2 and said.count("\n") == 1


@pytest.mark.parametrize("words", ["predict FILE", "guard", "maps", "audit"])
def test_without_weights_commands_say_so_in_one_sentence(command, run, root, words) -> None:
    slim_run(run)
    name, *rest = words.split()
    file = next((root / "data" / "phantom").rglob("*.png"))
    status, out, said = command(name, *(file for _ in rest), "--run", "demo")
    assert status == 2 and out == ""
    assert "weights of run demo were not kept" in said and AGAIN in said
    assert "Traceback" not in said and said.count("\n") == 1


def test_its_own_images_are_scored_from_its_predictions(command, run, root) -> None:
    before = json.loads(command("evaluate", "--run", "demo", "--json")[1])
    slim_run(run)
    status, out, said = command("evaluate", "--run", "demo", "--json")
    after = json.loads(out)
    assert status == 0 and before["source"] == "images" and after["source"] == "predictions.csv"
    assert "were not kept" in said and AGAIN in said
    stored = artifacts.load_metrics(run, "cnn")
    assert after["models"]["cnn"]["macro_f1"] == pytest.approx(stored["macro_f1"])
    shutil.rmtree(root / "data")
    assert "images of demo are not here" in command("evaluate", "--run", "demo")[2]


def draw_set(folder: Path) -> Path:
    for number, label in enumerate(("covid", "normal", "pneumonia")):
        (folder / label).mkdir(parents=True)
        for k in range(3):
            pixels = make_phantom(label, seed=700 + 9 * number + k, size_px=112, patient=700 + k)
            Image.fromarray(pixels.pixels).save(folder / label / f"{label}-{k}.png")
    return folder


def test_images_from_elsewhere_are_put_to_those_kept(command, run, root, monkeypatch) -> None:
    monkeypatch.setattr("core.evaluation.external.overlap.MOST_PAIRS", 0)
    folder = draw_set(root / "far")
    slim, _ = slim_run(run, ["cnn"])
    assert command("evaluate", "--run", "demo", "--data", folder)[0] == 0
    document = additions.load_external(slim, "far")
    assert list(document["models"]) == ["cnn"]
    assert any("weights were not kept" in caveat for caveat in document["caveats"])
    slim_run(slim)
    status, _, said = command("evaluate", "--run", "demo", "--data", folder)
    assert status == 2 and "weights of run demo were not kept" in said
    assert list(additions.load_external(slim, "far")["models"]) == ["cnn"]


def test_figures_that_cannot_be_made_again_stay(command, run, root) -> None:
    add_audit(run.path)
    add_external(run.path, "far")
    slim_run(run, ["cnn"])
    before = (run.path / "audit" / "audit.json").read_bytes()
    status, _, said = command("audit", "--run", "demo")
    assert status == 2 and "an audit with ResNet50" in said and "would be lost" in said
    assert (run.path / "audit" / "audit.json").read_bytes() == before
    folder = draw_set(root / "far")
    status, _, said = command("evaluate", "--run", "demo", "--data", folder, "--name", "far")
    assert status == 2 and "a result named far" in said
    assert set(additions.load_external(run, "far")["models"]) == set(run.models)


def test_predict_asks_those_kept_and_says_which_are_left_out(command, run, root) -> None:
    slim_run(run, ["cnn", "mobilenetv2"])
    file = next((root / "data" / "phantom").rglob("*.png"))
    status, out, said = command("predict", "--run", "demo", file)
    assert status == 0
    assert [line.split("\t")[1] for line in out.splitlines()] == ["CNN", "MobileNetV2"]
    assert "ResNet50 and Mean of the models cannot be asked" in said and AGAIN in said


# ------------------------------------------------------------------------------ answers


def test_the_guard_needs_the_model_it_looks_with(run: Run, root: Path) -> None:
    add_guard(run.path)
    file = next((root / "data" / "phantom").rglob("*.png"))
    decoded = decode_image(file.read_bytes())
    with_it, _ = slim_run(run, ["mobilenetv2"])
    predictor = open_predictor(with_it)
    assert predictor.predict(decoded).judgement is not None
    assert list(predictor.problems) == [NO_WEIGHTS]
    with pytest.raises(ArtifactError, match="weights of run demo were not kept"):
        open_predictor(slim_run(with_it)[0])


def test_without_that_model_nothing_is_judged_and_that_is_said(run: Run) -> None:
    add_guard(run.path)
    slim, _ = slim_run(run, ["cnn"])
    assert load_guard(slim) is not None  # its figures can still be read
    predictor = open_predictor(slim)
    assert predictor.guard is None and list(predictor.models) == ["cnn"]
    assert "MobileNetV2, whose features tell it, was not kept" in predictor.problems["Guard"]
    assert "ResNet50, MobileNetV2 and Mean of the models" in predictor.problems[NO_WEIGHTS]
