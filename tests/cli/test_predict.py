"""`predict` on files of every kind: zips, DICOM, pictures that the guard refuses, reports."""

from __future__ import annotations

import io
import json
import os
import shutil
import zipfile
from pathlib import Path

import pandas as pd
import pytest
from PIL import Image

from core.__main__ import main
from core.bench.fuzz_seeds import make_dicom
from core.datasets.phantom.generate import make_phantom
from tests.support.guard import add_guard
from tests.support.runs import make_run

SIZE_PX = 96


def drawn(label: str = "covid", seed: int = 0):
    return make_phantom(label, seed, SIZE_PX).pixels


def png_bytes(pixels) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("guarded")
    run_dir = make_run(root / "artifacts", n=30, tiny_openvino=True)
    add_guard(run_dir)
    return root


@pytest.fixture
def predict(whole: Path, tmp_path: Path, monkeypatch, capsys):
    """Ask the guarded demo run; (status, rows of --json or None, stdout, stderr)."""
    monkeypatch.setenv("CXR_ARTIFACTS", str(whole / "artifacts"))
    monkeypatch.setenv("CXR_DATA", str(whole / "data"))

    def run(*words: object) -> tuple[int, list | None, str]:
        capsys.readouterr()
        status = main(["predict", "--run", "demo", *map(str, words)])
        out, err = capsys.readouterr()
        return status, json.loads(out) if "--json" in words else out, err

    return run


def test_a_zip_stands_for_its_pictures_and_a_bad_one_costs_itself(predict, tmp_path):
    path = tmp_path / "some.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/one.png", png_bytes(drawn()))
        archive.writestr("broken.png", png_bytes(drawn())[:200])
        archive.writestr("two.png", png_bytes(drawn("normal", 3)))
    status, rows, said = predict(path, "--json", "--even-if-refused")
    assert status == 1
    assert [row["path"].removeprefix(f"{path}/") for row in rows] == [
        "a/one.png", "broken.png", "two.png",
    ]  # fmt: skip
    assert [bool(row["models"]) for row in rows] == [True, False, True]
    assert "broken.png: " in said and rows[1]["error"]
    alone = tmp_path / "two.png"
    alone.write_bytes(png_bytes(drawn("normal", 3)))
    _, (same,), _ = predict(alone, "--json", "--even-if-refused")
    assert same["sha256"] == rows[2]["sha256"]
    for name, said_alone in same["models"].items():
        assert rows[2]["models"][name]["probabilities"] == pytest.approx(
            said_alone["probabilities"], abs=1e-6
        )


def test_a_dicom_is_answered_as_the_same_pixels_in_a_png(predict, tmp_path):
    plain, dicom = tmp_path / "x.png", tmp_path / "x.dcm"
    plain.write_bytes(png_bytes(drawn()))
    dicom.write_bytes(make_dicom(drawn(), PatientName="Doe^Jane", PatientID="4711"))
    status, rows, said = predict(plain, dicom, "--json", "--even-if-refused")
    assert status in (0, 1) and [row["error"] for row in rows] == [None, None]
    for name, own in rows[0]["models"].items():
        assert rows[1]["models"][name]["probabilities"] == pytest.approx(
            own["probabilities"], abs=1e-5
        )
    assert "Doe" not in json.dumps(rows) + said and "4711" not in json.dumps(rows) + said


def test_what_the_guard_refuses_is_not_answered_unless_asked_for(predict, whole, tmp_path):
    blank = tmp_path / "blank.png"
    blank.write_bytes(png_bytes(drawn() * 0))
    real = next((whole / "data" / "phantom" / "covid").glob("*.png"))
    status, rows, said = predict(real, blank, "--json")
    assert status == 1
    assert rows[0]["looks_like_cxr"] is True and rows[0]["models"]
    assert rows[1]["looks_like_cxr"] is False and rows[1]["models"] == {}
    assert rows[1]["error"] is None and rows[1]["guard"]["sentence"] in said
    assert f"{blank}: " in said and "--even-if-refused" in said
    status, rows, _ = predict(real, blank, "--json", "--even-if-refused")
    assert status == 1 and rows[1]["models"] and rows[1]["looks_like_cxr"] is False
    status, out, _ = predict(blank)
    assert status == 2 and out == f"{blank}\tNOT ANSWERED\n"
    _, out, _ = predict(blank, "--even-if-refused")
    assert out.count("\n") == out.count("REFUSED BY THE GUARD") == 3
    status, out, said = predict(real, "--even-if-refused")
    assert status == 0 and "no guard" not in said


def test_a_table_says_what_was_refused_and_what_failed(predict, whole, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "bad.png").write_bytes(b"bad")
    blank = tmp_path / "blank.png"
    blank.write_bytes(png_bytes(drawn() * 0))
    real = next((whole / "data" / "phantom" / "covid").glob("*.png"))
    status, _, said = predict(
        real, blank, tmp_path / "bad.png", tmp_path / "empty", "--csv", tmp_path / "out.csv"
    )
    assert status == 1 and "empty: The folder holds no image files" in said
    table = pd.read_csv(tmp_path / "out.csv").set_index("path")
    assert len(table) == 4
    assert table.loc[str(real), "cnn_predicted"] in ("covid", "normal", "pneumonia")
    assert pd.isna(table.loc[str(blank), "cnn_predicted"])
    assert str(table.loc[str(blank), "looks_like_cxr"]) == "False"
    assert table.loc[str(blank), "guard_distance"] > 0
    assert table.loc[str(tmp_path / "bad.png"), "error"]


def test_reports_are_written_for_what_was_answered(predict, whole, tmp_path):
    real = next((whole / "data" / "phantom" / "covid").glob("*.png"))
    blank = tmp_path / "blank.png"
    blank.write_bytes(png_bytes(drawn() * 0))
    _, rows, _ = predict(real, blank, "--json", "--report", tmp_path / "reports")
    (page,) = (tmp_path / "reports").iterdir()
    assert rows[0]["report"] == page.as_posix() and "report" not in rows[1]
    html = page.read_text(encoding="utf-8")
    assert rows[0]["sha256"] in html and "not for diagnosis" in html
    (tmp_path / "file").write_text("no folder")
    status, _, said = predict(real, "--report", tmp_path / "file")
    assert status == 2 and "cannot be written" in said


def test_a_name_that_is_not_utf8_is_shown_and_answered(predict, whole, tmp_path):
    odd = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff.png"))
    shutil.copy(next((whole / "data" / "phantom" / "covid").glob("*.png")), odd)
    status, rows, _ = predict(odd, "--json")
    assert status == 0 and rows[0]["path"].endswith("\\xff.png") and rows[0]["models"]


def test_a_guard_that_is_damaged_is_said_and_costs_the_status(whole, tmp_path, monkeypatch, capsys):
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("CXR_ARTIFACTS", str(tmp_path / "artifacts"))
    (tmp_path / "artifacts" / "demo" / "guard" / "guard.npz").write_bytes(b"changed")
    real = next((tmp_path / "data" / "phantom" / "covid").glob("*.png"))
    status = main(["predict", "--run", "demo", str(real), "--json"])
    out, err = capsys.readouterr()
    assert status == 1 and "Guard: " in err and "guard.npz" in err
    assert json.loads(out)[0]["looks_like_cxr"] is None and json.loads(out)[0]["models"]
