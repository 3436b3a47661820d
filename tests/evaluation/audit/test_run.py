"""The audit command from end to end on drawn phantoms, with faults planted in them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.__main__ import main
from core.evaluation.audit.perturbation import KINDS
from core.evaluation.audit.run import open_unmirrored_models
from core.evaluation.sample import Sample
from core.formatting import with_interval
from core.inference.ensemble import ModelGroup
from core.metrics.intervals import bootstrap_intervals
from core.reporting.scorecard.scorecard import NOT_DONE, build_scorecard
from core.runs import artifacts
from core.runs.additions import load_audit
from core.runs.run import Run
from core.runs.schema.audit import Audit
from core.runs.schema.checking import find_problem
from tests.support.fake_models import CLASSES, Rule
from tests.support.files import copy_workplace
from tests.support.predictions import sample
from tests.support.runs import make_run

TEST_N = 12

NO_READERS_NO_FOLDS = [
    "No second readers: phantom brings no readers.csv.",
    "Doubtful labels were not looked for: they need out-of-fold predictions (--folds).",
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 60 images, 12 of them for testing, as it was written; never written to."""
    root = tmp_path_factory.mktemp("whole")
    make_run(root / "artifacts", models=("cnn", "resnet50"), n=60, tiny_openvino=True)
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, where the commands look."""
    copy_workplace(whole, tmp_path, monkeypatch)
    monkeypatch.setattr("core.evaluation.shortcut_baselines.TREES", 10)
    monkeypatch.setattr("core.evaluation.sample.DRAWS", 100)
    few = {name: KINDS[name] for name in ("brightness", "jpeg")}
    monkeypatch.setattr("core.evaluation.audit.perturbation.KINDS", few)
    return tmp_path


@pytest.fixture
def audit(root: Path, capsys: pytest.CaptureFixture):
    """Run the command; its exit status, stdout and what it said."""

    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main(["audit", "--run", "demo", *map(str, words)])
        out, err = capsys.readouterr()
        lines = [line.rsplit("\r", 1)[-1] for line in err.split("\n")]
        said = "\n".join(line for line in lines if "/s]" not in line and "?" not in line)
        return status, out, said

    return run


def run_of(root: Path) -> Run:
    return artifacts.open_run(root / "artifacts" / "demo")


def files_of(root: Path, split: str) -> list[Path]:
    manifest = artifacts.load_manifest(run_of(root))
    return [root / "data" / "phantom" / p for p in manifest.loc[manifest["split"] == split, "path"]]


def test_a_clean_run_is_audited_whole(audit, root):
    status, out, said = audit("--json")
    document = json.loads(out)
    assert status == 0
    assert document == load_audit(run_of(root))
    assert find_problem(document, Audit) is None
    assert (document["precision"], document["tta"], document["n_test"]) == ("f32", "none", TEST_N)
    assert document["models"] == ["cnn", "resnet50"] and document["excluded"] == []
    assert document["leakage"]["status"] == "clean"
    assert sum(document["leakage"]["checked"].values()) == 60
    assert set(document["blackout"]["models"]) == {"cnn", "resnet50"}
    assert set(document["blackout"]["floors"]) == {"mean", "surroundings"}
    assert document["blackout"]["n"] == TEST_N
    assert set(document["perturbation"]["models"]) == {"cnn", "resnet50"}
    assert document["subgroups"]["columns"] is not None
    assert document["probe"] is None
    assert document["readers"] is None and document["doubtful_labels"] is None
    assert document["missing"] == [
        *NO_READERS_NO_FOLDS,
        "No source probe was given: whether the models read the collection was not asked.",
    ]
    for line in ("Leakage: None of", "Blackout: ", "Perturbation: ", "asked at f32 without"):
        assert line in said
    # The baseline is what the models answer without mirrored copies, here as served.
    assert (
        document["perturbation"]["models"]["cnn"]["baseline"]
        == document["blackout"]["models"]["cnn"]["full"]
    )
    assert artifacts.verify_run(root / "artifacts" / "demo") == []


def test_an_audit_can_be_made_again_and_says_the_same(audit, root):
    first = json.loads(audit("--json")[1])
    second = json.loads(audit("--json")[1])
    for key in ("leakage", "blackout", "perturbation", "subgroups", "probe", "missing"):
        assert first[key] == second[key]
    assert not list((root / "artifacts" / "demo").glob(".audit*"))


def test_an_audit_that_breaks_off_leaves_the_earlier_one(audit, root, monkeypatch):
    before = json.loads(audit("--json")[1])

    def breaks(*_args, **_options):
        raise OSError("No space left")

    monkeypatch.setattr("core.evaluation.audit.sections.measure_perturbations", breaks)
    status, _, said = audit()
    assert status == 2 and "No space left" in said
    assert load_audit(run_of(root)) == before


def test_models_are_asked_without_mirrored_copies_at_the_precision_that_is_named(root):
    run = run_of(root)
    run = Run(run.path, run.info | {"tta": "flip"})
    model_group = open_unmirrored_models(run, "f32")
    assert [model.tta for model in model_group.models.values()] == ["none", "none"]
    assert [model.precision for model in model_group.models.values()] == ["f32", "f32"]
    assert {m.precision for m in open_unmirrored_models(run, "bf16").models.values()} == {"bf16"}
    assert run.info["tta"] == "flip" and model_group.sizes_px == [64]


def test_another_precision_marks_the_audit(audit):
    status, out, said = audit("--precision", "bf16", "--json")
    assert status == 0 and json.loads(out)["precision"] == "bf16"
    assert "asked at bf16" in said


def test_without_images_it_does_what_the_files_allow(audit, root):
    shutil.rmtree(root / "data")
    status, out, said = audit("--json")
    document = json.loads(out)
    assert status == 1
    assert find_problem(document, Audit) is None
    assert document["n_test"] == 0
    assert document["blackout"] is None and document["perturbation"] is None
    assert document["leakage"]["status"] == "clean" and document["subgroups"] is not None
    assert sum("give --data" in sentence for sentence in document["missing"]) == 2
    assert "blackout and perturbation tests could not be done" in said


def test_an_audit_with_images_is_not_replaced_by_one_without(audit, root):
    before = json.loads(audit("--json")[1])
    shutil.rmtree(root / "data")
    status, out, said = audit("--json")
    assert status == 2 and "so that one is kept" in said
    assert json.loads(out) == {"error": said.strip().splitlines()[-1]}
    assert load_audit(run_of(root)) == before


def test_images_that_cannot_be_used_are_named(audit, root):
    test, train = files_of(root, "test"), files_of(root, "train")
    test[1].write_bytes(test[1].read_bytes()[:300])
    train[0].unlink()
    status, out, said = audit("--json")
    document = json.loads(out)
    assert status == 1
    reasons = {entry["image_id"]: entry["reason"] for entry in document["excluded"]}
    assert len(reasons) == 2 and document["n_test"] == TEST_N - 1
    assert "damaged or cut off" in reasons[image_id(test[1], root)]
    assert "not in the folder" in reasons[image_id(train[0], root)]
    assert f"{image_id(test[1], root)}: " in said
    assert any("2 of the 60 images could not be used" in line for line in document["missing"])
    assert sum(document["leakage"]["checked"].values()) == 58


def image_id(file: Path, root: Path) -> str:
    return file.relative_to(root / "data" / "phantom").with_suffix("").as_posix()


def test_a_test_image_copied_from_train_is_found(audit, root):
    test, train = files_of(root, "test"), files_of(root, "train")
    pixels = np.asarray(Image.open(train[0])).astype(float)
    Image.fromarray(np.clip(0.9 * pixels + 10, 0, 255).astype(np.uint8)).save(test[0])
    status, out, said = audit("--json")
    document = json.loads(out)
    assert status == 0 and document["leakage"]["status"] == "leaks"
    (pair,) = document["leakage"]["near"]
    assert pair["crosses"] and {pair["image_id_a"], pair["image_id_b"]} == {
        image_id(train[0], root), image_id(test[0], root),
    }  # fmt: skip
    assert any("1 of 60 images are other files" in line for line in document["missing"])
    assert "Leakage: " in said and "None of" not in said.split("Leakage: ")[2]


def test_re_encoded_copies_serve_as_well(audit, root):
    for split in ("train", "val", "test"):
        for file in files_of(root, split):
            Image.open(file).save(file.with_suffix(".jpg"), quality=95)
            file.unlink()
    status, out, _ = audit("--json")
    document = json.loads(out)
    assert status == 0 and document["n_test"] == TEST_N
    assert any("60 of 60 images are other files" in line for line in document["missing"])


def test_a_probe_that_is_named_is_asked(audit, root):
    folder = root / "probe"
    (folder / "SARS").mkdir(parents=True)
    known = files_of(root, "train")[0]
    shutil.copy(known, folder / "SARS" / "known.png")
    for k in range(3):
        pixels = np.random.default_rng(k).integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).resize((96, 96)).save(folder / "SARS" / f"{k}.png")
    status, out, said = audit("--probe", folder, "--json")
    document = json.loads(out)
    assert status == 0
    assert find_problem(document, Audit) is None
    assert (document["probe"]["name"], document["probe"]["n"]) == ("probe", 3)
    assert [entry["image_id"] for entry in document["probe"]["excluded"]] == ["SARS/known"]
    assert set(document["probe"]["models"]) == {"cnn", "resnet50"}
    assert document["probe"]["models"]["cnn"]["own"]["images"] == 4
    assert "Probe: " in said and str(root) not in out
    assert document["missing"] == NO_READERS_NO_FOLDS
    # Without --probe the next audit has none, rather than an old answer.
    assert json.loads(audit("--json")[1])["probe"] is None


def test_ct_slices_are_not_blacked_out_by_a_box_for_chest_x_rays(audit, root, monkeypatch):
    monkeypatch.setattr(Run, "modality", property(lambda run: "ct"))
    document = json.loads(audit("--json")[1])
    assert document["blackout"] is None and document["perturbation"] is not None
    assert sum("frontal chest X-ray" in line for line in document["missing"]) == 1
    checks = {check.key: check for check in build_scorecard(run_of(root))}
    assert checks["blackout"].status == NOT_DONE
    assert "CT slices" in checks["blackout"].sentence
    assert checks["blackout"].command.endswith("--masks FOLDER")


def test_masks_take_the_place_of_the_box(audit, root):
    masks = root / "lungs"
    mask = np.zeros((96, 96), np.uint8)
    mask[20:70, 15:80] = 255
    for split in ("train", "val", "test"):
        for file in files_of(root, split):
            place = masks / file.relative_to(root / "data" / "phantom")
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(place)
    status, out, _ = audit("--masks", masks, "--json")
    document = json.loads(out)
    assert status == 0 and document["blackout"]["region"]["kind"] == "masks"
    assert document["blackout"]["n"] == TEST_N and document["blackout"]["floors"]

    for file in files_of(root, "test")[:5] + files_of(root, "train"):
        (masks / file.relative_to(root / "data" / "phantom")).unlink()
    for file in files_of(root, "val"):
        (masks / file.relative_to(root / "data" / "phantom")).unlink()
    status, out, said = audit("--masks", masks, "--json")
    document = json.loads(out)
    assert status == 0 and document["blackout"]["n"] == TEST_N - 5
    assert document["blackout"]["floors"] == {}
    assert "5 of the 12 test images have no mask" in said and "No floors" in said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--probe", "nowhere"), "--probe names no folder"),
        (("--masks", "nowhere"), "--masks names no folder"),
        (("--masks", "{root}/empty"), "holds no mask of any of the 12 test images"),
        (("--data", "{root}/empty"), "holds none of the test images of run demo"),
        (("--precision", "f64"), "--precision"),
    ],
)
def test_wrong_use_is_one_sentence(audit, root, words, says):
    (root / "empty").mkdir()
    status, out, said = audit(*(word.format(root=root) for word in words), "--json")
    sentence = said.strip().splitlines()[-1]
    assert status == 2 and says in sentence
    assert json.loads(out) == {"error": sentence}
    assert "Traceback" not in said
    assert load_audit(run_of(root)) is None


def test_no_test_image_can_be_read(audit, root):
    for file in files_of(root, "test"):
        file.write_bytes(b"no image")
    status, _, said = audit()
    assert status == 2 and "None of the 12 test images of run demo can be used" in said


def test_a_model_file_that_changed_is_not_asked(audit, root):
    (root / "artifacts" / "demo" / "cnn" / "model.bin").write_bytes(b"changed")
    status, _, said = audit()
    assert status == 2 and "differs from the hash" in said


def test_a_run_that_is_not_there(root, capsys):
    assert main(["audit", "--run", "nowhere"]) == 2
    assert "No run 'nowhere'" in capsys.readouterr().err


# How models are asked and scored


def test_the_estimate_is_that_of_the_metrics_and_shares_their_draws():
    y_true, y_prob, groups = sample(skill=1.5)
    one = Sample(y_true, groups, CLASSES, seed=3, draws=500)
    whole = bootstrap_intervals(y_true, y_prob, groups, CLASSES, draws=500, seed=3)
    estimate = one.estimate(y_prob)
    for key, low, high in (
        ("accuracy", "low", "high"),
        ("macro_f1", "macro_f1_low", "macro_f1_high"),
    ):
        assert (estimate[low], estimate[high]) == (whole[key]["low"], whole[key]["high"])
    right = one.right(y_prob)
    assert estimate["accuracy"] == right.mean()
    drawn = one.drawn_shares(right, ~right)
    assert np.quantile(drawn[0], [0.025, 0.975]) == pytest.approx(
        [estimate["low"], estimate["high"]]
    )
    assert drawn.sum(axis=0) == pytest.approx(np.ones(500))


def test_a_panel_asks_each_size_once_and_an_ensemble_is_the_mean():
    small = Rule(lambda images: (images[:, 0, 0] > 1).astype(int), size_px=32, sure=0.8)
    other = Rule(lambda images: np.ones(len(images), int), size_px=32, sure=0.6)
    large = Rule(lambda images: np.full(len(images), 2), size_px=64)
    model_group = ModelGroup(
        {"a": small, "b": large, "c": other}, {"e": ["a", "c"]}, {"a": "Model A"}
    )
    assert (model_group.names, model_group.sizes_px) == (["a", "b", "c", "e"], [32, 64])
    assert (model_group.title("a"), model_group.title("b")) == ("Model A", "b")
    asked = []

    def alter(images, rows):
        asked.append((images.shape[1], rows[0], rows[-1]))
        return images + (rows % 3).astype(np.uint8)[:, None, None]

    pixels = {size: np.zeros((70, size, size), np.uint8) for size in (32, 64)}
    answers = model_group.predict(pixels, alter)
    assert asked == [(32, 0, 63), (32, 64, 69), (64, 0, 63), (64, 64, 69)]
    assert list(answers) == model_group.names
    assert answers["a"].argmax(axis=1).tolist() == [0, 0, 1] * 23 + [0]
    assert answers["e"] == pytest.approx((answers["a"] + answers["c"]) / 2)
    assert answers["e"].sum(axis=1) == pytest.approx(np.ones(70), abs=1e-12)
    assert model_group.predict(pixels)["a"].argmax(axis=1).sum() == 0


def test_words_for_shares():
    assert with_interval(0.848, (0.8, 0.9)) == "84.8\u202f% (80.0 to 90.0)"
    assert with_interval(0.5, (None, None)) == "50.0\u202f% (no interval)"
