"""The command line in one process: exit statuses, one sentence, one JSON document."""

from __future__ import annotations

import json
import shutil
from argparse import ArgumentParser
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.__main__ import COMMANDS, build_parser, main
from core.config import Config, ConfigError
from core.runs import artifacts
from core.training.export import ExportError
from tests.support.files import copy_workplace, write_files, write_metadata
from tests.support.runs import make_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 30 images, 6 of them for testing, as it was written; never written to."""
    root = tmp_path_factory.mktemp("whole")
    make_run(
        root / "artifacts", models=("cnn", "resnet50"), n=30, tiny_openvino=True, ensemble=True
    )
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, where the commands look."""
    copy_workplace(whole, tmp_path, monkeypatch)
    return tmp_path


@pytest.fixture
def command(root: Path, capsys: pytest.CaptureFixture):
    """Run one command; its exit status, stdout and what it said (progress bars left out)."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(word) for word in words])
        out, err = capsys.readouterr()
        lines = [line.rsplit("\r", 1)[-1] for line in err.split("\n")]
        said = "\n".join(line for line in lines if "image/s" not in line and "s/image" not in line)
        return status, out, said

    return run


def images_of(root: Path) -> list[Path]:
    """The files of the run's test split, in the order of its manifest."""
    manifest = artifacts.load_manifest(artifacts.open_run(root / "artifacts" / "demo"))
    paths = manifest.loc[manifest["split"] == "test", "path"]
    return [root / "data" / "phantom" / path for path in paths]


def id_of(file: Path, root: Path) -> str:
    return file.relative_to(root / "data" / "phantom").with_suffix("").as_posix()


# evaluate


def test_evaluate_scores_the_images_that_are_there(command, root):
    images = images_of(root)
    status, out, _ = command("evaluate", "--run", "demo", "--json")
    before = json.loads(out)
    assert (status, before["source"], before["excluded"]) == (0, "images", [])
    assert before["models"]["cnn"]["n"] == len(images) == 6

    damaged, missing = images[1], images[4]
    damaged.write_bytes(damaged.read_bytes()[:400])
    missing.unlink()
    status, out, said = command("evaluate", "--run", "demo", "--json")
    answer = json.loads(out)
    assert status == 1
    assert answer["source"] == "images"
    assert [entry["image_id"] for entry in answer["excluded"]] == [
        id_of(damaged, root),
        id_of(missing, root),
    ]
    reasons = [entry["reason"] for entry in answer["excluded"]]
    assert "damaged or cut off" in reasons[0] and "not in the folder" in reasons[1]
    for entry in answer["excluded"]:
        assert f"{entry['image_id']}: {entry['reason']}\n" in said
    assert "without 2 of the 6 test images" in said
    for name in ("cnn", "resnet50"):
        metrics = answer["models"][name]
        assert metrics["n"] == sum(map(sum, metrics["confusion_matrix"])) == 4


def test_evaluate_gives_each_image_its_own_answer(command, root):
    """Leaving one out shifts no answer to another image."""
    images = images_of(root)
    images[0].write_bytes(b"no image")
    _, out, _ = command("predict", "--run", "demo", *images, "--json")
    manifest = artifacts.load_manifest(artifacts.open_run(root / "artifacts" / "demo"))
    labels = manifest.set_index("image_id")["label"]
    losses = [
        -np.log(row["models"]["cnn"]["probabilities"][labels[id_of(file, root)]])
        for file, row in zip(images, json.loads(out), strict=True)
        if not row["error"]
    ]
    assert len(losses) == 5 and len({round(loss, 6) for loss in losses}) == 5
    _, out, _ = command("evaluate", "--run", "demo", "--json")
    assert json.loads(out)["models"]["cnn"]["log_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


def test_evaluate_scores_one_image_alone(command, root):
    for file in images_of(root)[1:]:
        file.unlink()
    status, out, _ = command("evaluate", "--run", "demo", "--json")
    assert status == 1
    assert json.loads(out)["models"]["cnn"]["n"] == 1


def test_evaluate_without_any_image_scores_the_predictions_again(command, root):
    shutil.rmtree(root / "data")
    status, out, said = command("evaluate", "--run", "demo", "--json")
    answer = json.loads(out)
    assert (status, answer["source"], answer["excluded"]) == (0, "predictions.csv", [])
    assert "not here, so predictions.csv is scored again" in said
    stored = artifacts.load_metrics(artifacts.open_run(root / "artifacts" / "demo"), "cnn")
    assert answer["models"]["cnn"]["log_loss"] == pytest.approx(stored["log_loss"])


def test_evaluate_scores_an_ensemble_as_the_mean_of_its_members(command, root):
    _, out, _ = command("evaluate", "--run", "demo", "--json")
    answer = json.loads(out)
    assert list(answer["models"]) == ["cnn", "resnet50", "ensemble"]
    _, out, _ = command("predict", "--run", "demo", *images_of(root), "--json")
    manifest = artifacts.load_manifest(artifacts.open_run(root / "artifacts" / "demo"))
    labels = manifest.set_index("image_id")["label"]
    losses = []
    for file, row in zip(images_of(root), json.loads(out), strict=True):
        said = {m: row["models"][m]["probabilities"] for m in ("cnn", "resnet50", "ensemble")}
        for label, share in said["ensemble"].items():
            assert share == pytest.approx((said["cnn"][label] + said["resnet50"][label]) / 2)
        losses.append(-np.log(said["ensemble"][labels[id_of(file, root)]]))
    assert answer["models"]["ensemble"]["log_loss"] == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("text", ["", "| a table |"])
def test_evaluate_ends_with_what_was_published_on_the_same_images(command, root, monkeypatch, text):
    monkeypatch.setattr("core.evaluation.published_protocol.published_table", lambda run: text)
    monkeypatch.setattr("core.evaluation.published_protocol.is_published_set", lambda run: True)
    status, out, said = command("evaluate", "--run", "demo", "--json")
    assert status == 0 and set(json.loads(out)) == {"run", "data", "source", "models", "excluded"}
    assert said.strip().endswith("| a table |") == bool(text)
    assert ("beside what was published" in said) == bool(text)


def test_evaluate_speaks_of_publications_only_where_the_images_are_theirs(command, monkeypatch):
    def fails(run):
        raise AssertionError("not the published images")

    monkeypatch.setattr("core.evaluation.published_protocol.published_table", fails)
    assert command("evaluate", "--run", "demo")[0] == 0


def test_evaluate_finds_nothing_to_score_in_data(command, root):
    (root / "empty").mkdir()
    status, out, said = command("evaluate", "--run", "demo", "--data", root / "empty", "--json")
    assert status == 2
    assert said.count("\n") == 1 and "No images to use in" in said
    assert json.loads(out) == {"error": said.strip()}


def test_evaluate_refuses_where_no_image_can_be_read(command, root):
    for file in images_of(root):
        file.write_bytes(b"no image")
    status, out, said = command("evaluate", "--run", "demo", "--json")
    assert status == 2
    assert said.count("\n") == 1 and "None of the 6 test images" in said
    assert json.loads(out) == {"error": said.strip()}


# predict


def test_predict_answers_as_the_contract_says(command, root):
    good, bad = images_of(root)[0], root / "bad.png"
    bad.write_bytes(b"no image")
    status, out, said = command("predict", "--run", "demo", bad, good, "--json")
    rows = json.loads(out)
    assert status == 1
    assert [row["path"] for row in rows] == [bad.as_posix(), good.as_posix()]
    assert rows[0]["error"] and rows[0]["models"] == {} and rows[1]["error"] is None
    assert str(bad) in said
    assert set(rows[1]["models"]) == {"cnn", "resnet50", "ensemble"}
    for answer in rows[1]["models"].values():
        assert set(answer) == {"predicted", "probabilities", "calibrated", "conformal_set"}
        assert answer["predicted"] == max(answer["probabilities"], key=answer["probabilities"].get)
        assert sum(answer["probabilities"].values()) == pytest.approx(1, abs=1e-5)


def change_run(root: Path, **values: object) -> None:
    file = root / "artifacts" / "demo" / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_predict_gives_calibrated_shares_and_what_cannot_be_ruled_out(command, root):
    """Weights taken out and a temperature of 2, by hand: the root of share times prior."""
    prior = {"covid": 0.1, "normal": 0.4, "pneumonia": 0.5}
    change_run(
        root,
        calibration={
            "cnn": {"temperature": 2.0, "prior": prior, "weighted": True, "part": "val", "n": 9}
        },
        conformal={"cnn": {"alpha": 0.1, "threshold": 0.3, "part": "val", "n": 9}},
    )
    _, out, said = command("predict", "--run", "demo", images_of(root)[0], "--json")
    answer = json.loads(out)[0]["models"]["cnn"]
    raised = {c: (share * prior[c]) ** 0.5 for c, share in answer["probabilities"].items()}
    expected = {c: value / sum(raised.values()) for c, value in raised.items()}
    assert answer["calibrated"] == pytest.approx(expected)
    assert list(answer["calibrated"]) == list(answer["probabilities"])
    inside = [c for c, share in expected.items() if share >= 0.3]
    assert answer["conformal_set"] == inside and 0 < len(inside) < 3
    other = json.loads(out)[0]["models"]["resnet50"]
    assert other["calibrated"] == {} and other["conformal_set"] == []
    assert "not calibrated" not in said
    table = root / "out.csv"
    command("predict", "--run", "demo", images_of(root)[0], "--csv", table)
    row = pd.read_csv(table).iloc[0]
    assert row["cnn_conformal_set"] == "|".join(inside)
    assert row["cnn_calibrated_covid"] == pytest.approx(expected["covid"])


def test_predict_says_where_nothing_is_calibrated(command, root):
    """Runs from before calibration have neither key."""
    file = root / "artifacts" / "demo" / "run.json"
    info = json.loads(file.read_text())
    for key in ("calibration", "conformal"):
        info.pop(key, None)
    file.write_text(json.dumps(info))
    status, out, said = command("predict", "--run", "demo", images_of(root)[0], "--json")
    assert status == 0 and "Probabilities are not calibrated." in said
    for answer in json.loads(out)[0]["models"].values():
        assert answer["calibrated"] == {} and answer["conformal_set"] == []


def test_predict_writes_a_table_or_says_why_not(command, root):
    image = images_of(root)[0]
    status, out, _ = command("predict", "--run", "demo", image, "--csv", root / "new" / "x.csv")
    assert (status, out) == (0, "")
    assert list(pd.read_csv(root / "new" / "x.csv")["path"]) == [image.as_posix()]
    for place in (root / "bad.csv" / "x.csv", root / "new"):
        (root / "bad.csv").write_text("a file, so it is no folder")
        status, _, said = command("predict", "--run", "demo", image, "--csv", place)
        assert status == 2
        assert said.count("\n") == 1 and said.startswith(f"{place} cannot be written: ")


# verify


def test_verify_tells_a_damaged_run_from_none(command, root):
    status, out, said = command("verify", "--run", "demo")
    assert (status, out, said) == (0, "", "demo: whole\n")
    (root / "artifacts" / "demo" / "cnn" / "card.md").write_text("changed")
    status, _, said = command("verify")
    assert status == 1 and "DAMAGED" in said and "cnn/card.md has changed" in said
    status, _, said = command("verify", "--run", "nowhere")
    assert status == 2
    assert said.count("\n") == 1 and "'nowhere'" in said and "demo" in said
    assert "DAMAGED" not in said


# What goes wrong everywhere


@pytest.mark.parametrize(
    "words",
    [
        ("predict", "--run", "nowhere", "x.png", "--json"),
        ("predict", "--run", "demo", "--json"),
        ("predict", "--run", "demo", "x.png", "--csv", "x.csv", "--json"),
        ("evaluate", "--run", "nowhere", "--json"),
        ("evaluate", "--run", "demo", "--json", "--nonsense"),
        ("data", "nowhere", "--json"),
    ],
)
def test_errors_are_one_sentence_and_one_document(command, words):
    status, out, said = command(*words)
    assert status == 2
    assert said.count("\n") == 1
    assert json.loads(out) == {"error": said.strip()}


def test_a_folder_that_cannot_be_written_is_one_sentence(command, root, monkeypatch):
    (root / "file").write_text("no folder")
    monkeypatch.setenv("CXR_DATA", str(root / "file"))
    status, out, said = command("data", "phantom", "--json")
    assert status == 2
    assert said.count("\n") == 1 and f"{root / 'file'} cannot be used: " in said
    assert json.loads(out) == {"error": said.strip()}


@pytest.mark.parametrize(
    ("raised", "says", "expected"),
    [
        (FloatingPointError("CNN: the loss is no longer a number."), "no longer a number", 2),
        (ExportError("The export of cnn differs."), "The export of cnn differs.", 2),
        (OSError("No space left"), "No space left", 2),
        (KeyboardInterrupt(), "Stopped.", 130),
    ],
)
def test_errors_on_the_way_are_one_sentence(command, monkeypatch, raised, says, expected):
    def fails(_args):
        raise raised

    monkeypatch.setattr("core.cli.summary.run_command", fails)
    status, out, said = command("summary", "--run", "demo")
    assert (status, out) == (expected, "")
    assert said.count("\n") == 1 and says in said


@pytest.mark.parametrize("seed", [-1, 2**32, 2**40])
def test_seed_that_no_generator_takes_is_refused(command, seed):
    with pytest.raises(ConfigError, match=r"--seed must be between 0 and 4294967295"):
        Config(dataset="phantom", models=("cnn",), run="x", seed=seed)
    assert Config(dataset="phantom", models=("cnn",), run="x", seed=2**32 - 1).seed == 2**32 - 1
    status, _, said = command("train", "--dataset", "phantom", "--run", "x", f"--seed={seed}")
    assert status == 2 and said.count("\n") == 1 and "--seed" in said


# data


def test_data_names_every_image_that_is_left_out(command, root):
    folder = write_files(root / "mine", "a.png", "b.png", "c.png", "masks/a.png")
    write_metadata(folder, "path,label\na.png,COVID\nb.png,NORMAL\n")
    status, out, said = command("data", folder)
    assert (status, out) == (1, "")
    assert "left out: c.png: in the folder, but not named in metadata.csv\n" in said
    assert "left out: masks: a folder of masks, not of images\n" in said
    status, out, _ = command("data", folder, "--json")
    report = json.loads(out)
    assert status == 1 and report["unlisted"] == 1
    assert [entry["path"] for entry in report["skipped"]] == ["c.png", "masks"]


def test_data_with_masks_beside_it_is_whole(command, root):
    status, out, _ = command("data", "phantom", "--no-fetch", "--json")
    assert status == 0
    assert [entry["path"] for entry in json.loads(out)["skipped"]] == ["masks"]


# --help


def parsers() -> dict[str, ArgumentParser]:
    """The parser of the command line, and each command's own."""
    found = {"": build_parser()}
    for name in COMMANDS:
        (commands,) = (a for a in build_parser(name)._actions if a.dest == "command")
        found[name] = commands.choices[name]
    return found


@pytest.mark.parametrize("name", parsers())
def test_help_has_examples(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        main([name, "--help"] if name else ["--help"])
    assert stopped.value.code == 0
    assert f"python -m core {name}" in capsys.readouterr().out.split("example", 1)[1]


@pytest.mark.parametrize("name", ["data", "evaluate", "predict", "summary", "verify"])
def test_help_explains_every_option(name):
    assert [a.dest for a in parsers()[name]._actions if not a.help] == []
