"""The source probe asks about other diseases only, and about no picture that was learned from."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from statsmodels.stats.proportion import proportion_confint

from core.config import data_root
from core.datasets.registry import DatasetError
from core.evaluation.audit.source_probe import Known, predict_probe, share_on_patients
from core.evaluation.audit.source_probe_images import default_probe, load_probe
from core.inference.ensemble import AuditError
from tests.support.fake_models import CLASSES, Rule, panel_of
from tests.support.files import write_files, write_metadata

SIZE = 64


def texture(seed: int, size: int = 80) -> np.ndarray:
    """A picture unlike that of any other seed, also when small."""
    coarse = np.random.default_rng(seed).integers(0, 256, (16, 16), dtype=np.uint8)
    return np.array(Image.fromarray(coarse).resize((size, size), Image.Resampling.BICUBIC))


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def write_probe(root: Path, rows: list[tuple[str, str, str]]) -> Path:
    """A folder with metadata.csv of (name, finding, patient); picture k has texture(k)."""
    for k, (name, _, _) in enumerate(rows):
        save(root / f"{name}.png", texture(k))
    table = pd.DataFrame(
        [(f"{name}.png", "x", finding, patient) for name, finding, patient in rows],
        columns=["path", "label", "finding", "patient_id"],
    )
    table.to_csv(root / "metadata.csv", index=False)
    return root


ROWS = [
    ("a", "SARS", "p1"),
    ("b", "SARS", "p1"),
    ("c", "Pneumonia/Viral/COVID-19", "p2"),
    ("d", "Streptococcus", "p3"),
    ("e", "", "p4"),
    ("f", "No Finding", "p5"),
    ("g", "ARDS", "p6"),
    ("h", "unknown", "p7"),
    ("i", "COVID-19, ARDS", "p8"),
]


def nothing_known() -> Known:
    return Known(pd.DataFrame({"image_id": [], "patient_id": [], "sha256": []}))


def calls_covid(images):
    return np.zeros(len(images), dtype=int)


def test_only_other_diseases_are_asked_about(tmp_path):
    probe = load_probe(write_probe(tmp_path / "set", ROWS))
    assert list(probe.table["image_id"]) == ["a", "b", "d", "f", "g"]
    assert list(probe.table["normal"]) == [False, False, False, True, False]
    assert [entry["image_id"] for entry in probe.excluded] == ["e", "h"]
    assert {entry["reason"] for entry in probe.excluded} == {"the finding is not known"}
    assert probe.left_out == "2 images of covid"


def test_how_many_are_called_covid_with_patients_as_the_unit(tmp_path):
    probe = load_probe(write_probe(tmp_path / "set", ROWS))
    own = pd.DataFrame(
        {
            "label": ["pneumonia"] * 10 + ["normal", "covid"],
            "predicted": ["covid"] + ["pneumonia"] * 9 + ["covid"] * 2,
            "patient_id": [f"q{k}" for k in range(12)],
        }
    )
    model_group = panel_of(fooled=Rule(calls_covid), wise=Rule(lambda i: np.full(len(i), 2)))
    result = predict_probe(model_group, probe, CLASSES, nothing_known(), {"fooled": own})
    assert (result["n"], result["n_patients"], result["name"]) == (4, 3, "set")
    fooled = result["models"]["fooled"]
    assert fooled["called"] == {"covid": 4, "normal": 0, "pneumonia": 0}
    low, _ = proportion_confint(3, 3, method="wilson")
    assert fooled["covid"] == {"n": 4, "share": 1, "low": pytest.approx(low), "high": 1}
    assert (fooled["own"]["images"], fooled["own"]["n"], fooled["own"]["share"]) == (10, 1, 0.1)
    assert "calls 4 of 4 images of other diseases" in fooled["sentence"]
    assert (
        "3 patients" in fooled["sentence"]
        and "10.0\u202f% of the 10 images" in (fooled["sentence"])
    )
    wise = result["models"]["wise"]
    assert wise["covid"]["n"] == 0 and wise["covid"]["share"] == 0 < wise["covid"]["high"]
    assert wise["own"] is None
    # The healthy picture is counted apart, and listed.
    assert result["without_disease"]["n"] == 1
    assert result["without_disease"]["models"]["fooled"]["called"]["covid"] == 1
    assert [row["image_id"] for row in result["images"]] == ["a", "b", "d", "f", "g"]
    first = result["images"][0]
    assert first["finding"] == "SARS" and first["predicted"] == {
        "fooled": "covid", "wise": "pneumonia",
    }  # fmt: skip
    assert first["p_covid"] == {"fooled": pytest.approx(0.9), "wise": pytest.approx(0.05)}
    assert "2 images of covid" in result["question"]
    assert [entry["image_id"] for entry in result["excluded"]] == ["e", "h"]


def test_pictures_that_were_learned_from_are_excluded(tmp_path):
    folder = write_probe(tmp_path / "set", [(name, "SARS", f"p{name}") for name in "abcde"]
        + [("f", "SARS", "7"), ("g", "SARS", "pg"), ("h", "SARS", "ph")],
    )  # fmt: skip
    save(folder / "g.png", texture(1)[:, ::-1])  # b in a mirror
    save(folder / "h.png", texture(3))  # d once more
    (folder / "c.png").write_bytes(b"no image")
    brighter = np.clip(texture(0, SIZE).astype(int) * 0.8 + 40, 0, 255).astype(np.uint8)
    learned = np.stack([texture(99, SIZE), brighter, texture(1, SIZE), texture(98, SIZE)])
    known = Known(
        pd.DataFrame({"image_id": [*"wxyz"], "patient_id": ["7", "image:d", "pe", "l4"]}),
        ["w", "x", "y", "z"],
        learned,
    )
    result = predict_probe(
        panel_of(one=Rule(calls_covid)), load_probe(folder), CLASSES, known, {}
    )  # fmt: skip
    excluded = {entry["image_id"]: entry["reason"] for entry in result["excluded"]}
    assert set(excluded) == {"a", "b", "c", "e", "g", "h"}
    assert excluded["a"] == "nearly a copy of x, which the models learned from"
    assert "copy of y" in excluded["b"] and "copy of y" in excluded["g"]
    assert "patient (pe)" in excluded["e"]
    assert excluded["h"] == "a copy of another image of the probe"
    assert [row["image_id"] for row in result["images"]] == ["d", "f"]
    assert result["n"] == 2 and result["n_patients"] == 2


def test_answers_stay_with_their_images(tmp_path):
    """Excluding one shifts no answer to another."""
    folder = write_probe(tmp_path / "set", [(name, "SARS", f"p{name}") for name in "abcdef"])
    levels = dict(zip("abcdef", [20, 240, 30, 230, 25, 235], strict=True))
    for name, level in levels.items():
        save(folder / f"{name}.png", np.clip(texture(ord(name)) // 8 + level - 16, 0, 255))
    (folder / "b.png").write_bytes(b"no image")
    shutil.copy(folder / "a.png", folder / "c.png")
    bright = Rule(lambda images: np.where(images.mean(axis=(1, 2)) > 128, 2, 0))
    result = predict_probe(panel_of(one=bright), load_probe(folder), CLASSES, nothing_known(), {})
    called = {row["image_id"]: row["predicted"]["one"] for row in result["images"]}
    assert called == {
        "a": "covid", "d": "pneumonia", "e": "covid", "f": "pneumonia",
    }  # fmt: skip


def test_a_folder_of_classes_and_a_folder_without(tmp_path):
    for k, path in enumerate(["SARS/1.png", "COVID/2.png", "normal/3.png", "ARDS/4.png"]):
        save(tmp_path / "classes" / path, texture(k))
    probe = load_probe(tmp_path / "classes")
    assert list(probe.table["finding"]) == ["ARDS", "SARS", "normal"]
    for name in ("x.png", "y.jpg", "y.png"):
        save(tmp_path / "loose" / name, texture(7))
    probe = load_probe(tmp_path / "loose")
    assert list(probe.table["image_id"]) == ["x", "y.jpg", "y.png"]
    assert set(probe.table["finding"]) == {"not stated"}
    answer = predict_probe(panel_of(one=Rule(calls_covid)), probe, CLASSES, nothing_known(), {})
    assert "not stated" in answer["question"]


def write_kaggle(root: Path) -> Path:
    """The Kaggle set as it is laid out, with its findings beside the folder."""
    folder = root / "kaggle-covid19-xray"
    names = {"sars": "SARS", "strep": "Streptococcus", "covid": "COVID-19", "odd": ""}
    for k, name in enumerate(names):
        save(folder / "train" / "PNEUMONIA" / f"{name}.png", texture(k))
    save(folder / "test" / "NORMAL" / "child.png", texture(50))
    pd.DataFrame(
        [(f"train/PNEUMONIA/{n}.png", f, f"c-{n}", "PA") for n, f in names.items()],
        columns=["path", "finding", "patient_id", "view"],
    ).to_csv(root / "kaggle-covid19-xray-findings.csv", index=False)
    return folder


def test_the_kaggle_set_is_the_probe_of_darkcovidnet(tmp_path):
    assert default_probe("darkcovidnet", tmp_path) is None
    folder = write_kaggle(tmp_path)
    assert default_probe("darkcovidnet", tmp_path) == folder
    assert default_probe("phantom", tmp_path) is None
    probe = load_probe(folder)
    assert sorted(probe.table["finding"]) == ["SARS", "Streptococcus"]
    assert sorted(probe.table["patient_id"]) == ["c-sars", "c-strep"]
    assert [entry["image_id"] for entry in probe.excluded] == ["train/PNEUMONIA/odd"]
    assert "1 images of covid" in probe.left_out and "1 images of other classes" in probe.left_out


@pytest.mark.parametrize(("k", "n"), [(0, 8), (3, 8), (8, 8)])
def test_wilson_on_patients(k, n):
    marks, groups = np.arange(n) < k, np.arange(n)
    low, high = proportion_confint(k, n, method="wilson")
    assert share_on_patients(marks, groups) == {
        "n": k, "share": k / n, "low": pytest.approx(low), "high": pytest.approx(high),
    }  # fmt: skip
    # Twice the images of the same patients tell no more.
    twice = share_on_patients(np.repeat(marks, 2), np.repeat(groups, 2))
    assert twice["n"] == 2 * k and twice["low"] == pytest.approx(low)


def test_what_cannot_be_asked_is_refused_in_a_sentence(tmp_path):
    with pytest.raises(AuditError, match="names no folder"):
        load_probe(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="No images to use"):
        load_probe(tmp_path / "empty")
    only_covid = write_probe(tmp_path / "covid", [("a", "COVID-19", "p1"), ("b", "normal", "p2")])
    with pytest.raises(AuditError, match="no image of a disease other than covid"):
        load_probe(only_covid)
    probe = load_probe(write_probe(tmp_path / "one", [("a", "SARS", "p1")]))
    with pytest.raises(AuditError, match="a class covid"):
        predict_probe(panel_of(one=Rule(calls_covid)), probe, ["flu", "none"], nothing_known(), {})
    (tmp_path / "one" / "a.png").write_bytes(b"no image")
    with pytest.raises(AuditError, match=r"No image of the probe one is left .* \(a: "):
        predict_probe(panel_of(one=Rule(calls_covid)), probe, CLASSES, nothing_known(), {})


def test_two_classes_leave_no_right_answer_and_the_question_says_so(tmp_path):
    probe = load_probe(write_probe(tmp_path / "set", ROWS))
    model_group = panel_of(one=Rule(calls_covid, n_classes=2))
    answer = predict_probe(model_group, probe, ["covid", "normal"], nothing_known(), {})
    assert "no answer is right" in answer["question"]
    assert answer["models"]["one"]["called"] == {"covid": 4, "normal": 0}


def test_the_published_findings_give_twenty_images():
    """The real set, where CXR_DATA names it."""
    folder = data_root() / "kaggle-covid19-xray"
    if not folder.is_dir():
        pytest.skip("kaggle-covid19-xray is not in CXR_DATA")
    probe = load_probe(folder)
    findings = probe.table.loc[~probe.table["normal"], "finding"].value_counts().to_dict()
    assert findings == {"SARS": 11, "Streptococcus": 5, "ARDS": 3, "Pneumocystis": 1}
    assert probe.table["normal"].sum() == 1 and len(probe.excluded) == 3


def test_a_probe_that_a_run_was_trained_on_is_asked_about_its_other_images_alone():
    columns = ["image_id", "patient_id", "sha256"]
    rows = [("sets/b/COVID/x", "b:1", ""), ("a/Well/y", "cohen-7", "")]
    known = Known(pd.DataFrame(rows, columns=columns), folders={"a": "a", "b": "sets/b"})

    def reason(image_id, patient_id, name="b"):
        row = pd.Series({"image_id": image_id, "patient_id": patient_id})
        return known.refuse(row, name)

    assert "learned from it (sets/b/COVID/x)" in reason("COVID/x", "9")
    assert "other images of its patient (b:1)" in reason("COVID/z", "1")
    assert "(cohen-7)" in reason("COVID/z", "cohen-7")
    assert reason("COVID/z", "2") is None
    assert reason("COVID/x", "1", "elsewhere") is None, "a set of another name"


def test_the_larger_probe_comes_first(tmp_path):
    text = "path,label,patient_id,finding\nPneumonia/a.png,Pneumonia,cohen-3,SARS\n"
    write_metadata(write_files(tmp_path / "cohen-2020", "Pneumonia/a.png"), text)
    (tmp_path / "kaggle-covid19-xray").mkdir()
    for name in ("darkcovidnet", "darkcovidnet+cohen-2020"):
        assert default_probe(name, tmp_path) == tmp_path / "cohen-2020"
