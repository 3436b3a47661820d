"""Known data sets, labels, any folder by name or path, and the `data` command."""

from __future__ import annotations

import json

import pytest

from core.__main__ import main
from core.datasets.registry import (
    KNOWN,
    DatasetError,
    canonical_label,
    dataset_folder,
    order_classes,
    resolve_dataset,
)
from tests.support.files import write_files, write_metadata

# Labels


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("Covid-19", "covid"),
        ("COVID", "covid"),
        ("COVID_19", "covid"),
        ("No_findings", "normal"),
        ("No Finding", "normal"),
        ("NORMAL", "normal"),
        ("Pneumonia", "pneumonia"),
        ("Viral Pneumonia", "pneumonia"),
        ("NonCOVID", "NonCOVID"),
        ("Lung_Opacity", "Lung_Opacity"),
        (" Tuberculosis ", "Tuberculosis"),
    ],
)
def test_synonyms(name, label):
    assert canonical_label(name) == label


def test_own_label_map_comes_before_the_synonyms():
    kaggle = KNOWN["kaggle-covid19-xray"].class_map
    assert canonical_label("PNEUMONIA", kaggle) == "covid"
    assert canonical_label("NORMAL", kaggle) == "normal"
    assert canonical_label("Covid-19", kaggle) == "covid"
    assert canonical_label("NonCOVID", KNOWN["ucsd-covid-ct"].class_map) == "noncovid"


def test_class_order():
    labels = ["zebra", "pneumonia", "Ant", "normal", "covid", "normal"]
    assert order_classes(labels) == ["covid", "normal", "pneumonia", "Ant", "zebra"]


# Finding the folder


def test_unknown_and_absent_data_sets(tmp_path):
    with pytest.raises(DatasetError, match=r"No data set or folder 'x'.*darkcovidnet"):
        resolve_dataset("x", tmp_path)
    with pytest.raises(DatasetError, match="python -m core data darkcovidnet"):
        resolve_dataset("darkcovidnet", tmp_path)
    with pytest.raises(DatasetError, match=r"no simple download.*UCSD-AI4H"):
        resolve_dataset("ucsd-covid-ct", tmp_path)
    with pytest.raises(DatasetError, match="is a file"):
        resolve_dataset(write_files(tmp_path, "x.zip") / "x.zip", tmp_path)


def test_any_folder_by_path_and_by_name(tmp_path, monkeypatch):
    write_files(tmp_path, "mine/COVID/a.png")
    for name in (str(tmp_path / "mine"), "mine"):
        dataset, folder = resolve_dataset(name, tmp_path)
        assert (dataset.name, dataset.modality, folder) == ("mine", "xray", tmp_path / "mine")
    monkeypatch.chdir(tmp_path / "mine")
    assert resolve_dataset(".", tmp_path)[0].name == "mine"


def test_synthetic_images_are_phantoms_under_any_name(tmp_path):
    write_files(tmp_path, "p/a.png")
    write_metadata(tmp_path / "p", "path,label,synthetic\na.png,covid,True\n")
    dataset, _ = resolve_dataset(tmp_path / "p", tmp_path)
    assert dataset.modality == "phantom"
    assert "SYNTHETIC" in dataset.title


def test_parts_of_one_collection_are_known_by_name(tmp_path):
    place = tmp_path / "mendeley-8h65ywd2jr"
    write_files(place, "CT/COVID/a.png", "CT/Non-COVID/b.png")
    for name in ("mendeley-8h65ywd2jr-ct", str(place / "CT")):
        dataset, folder = resolve_dataset(name, tmp_path)
        assert (dataset.name, dataset.modality) == ("mendeley-8h65ywd2jr-ct", "ct")
        assert folder == place / "CT" == dataset_folder("mendeley-8h65ywd2jr-ct", tmp_path)
    with pytest.raises(
        DatasetError, match=r"Data set mendeley-8h65ywd2jr-xray is not in .*: downl"
    ):
        resolve_dataset("mendeley-8h65ywd2jr-xray", tmp_path)
    assert dataset_folder("darkcovidnet", tmp_path) == tmp_path / "darkcovidnet"
    assert [name for name, known in KNOWN.items() if known.augmented] == [
        "mendeley-8h65ywd2jr-xray",
        "mendeley-8h65ywd2jr-ct",
    ]


def test_the_layout_alone_tells_the_parts_and_needs_both(tmp_path):
    write_files(tmp_path / "one", "CT/COVID/a.png", "CT/NonCOVID/b.png")
    write_files(tmp_path / "two", "X-ray/COVID/a.png", "X-ray/Normal/b.png", "CT/COVID/c.png")
    for folder in ("one/CT", "one", "two", "two/X-ray"):
        assert resolve_dataset(tmp_path / folder, tmp_path)[0].name == folder.split("/")[-1]
    write_files(tmp_path / "both", "xray/covid/a.png", "xray/NON_covid/b.png")
    write_files(tmp_path / "both", "ct/Covid/a.png", "ct/non-covid/b.png", "readme.txt")
    assert resolve_dataset(tmp_path / "both/xray", "")[0].name == "mendeley-8h65ywd2jr-xray"
    with pytest.raises(DatasetError, match=r"both holds X-rays and CT slices.* or .*both/ct\.$"):
        resolve_dataset("both", tmp_path)


# The command


def run_command(*argv: str) -> int:
    return main(["data", *argv])


def test_command_lists_and_checks(tmp_path, monkeypatch, capsys):
    write_files(tmp_path, "mine/COVID/a.png", "mine/COVID/b.txt", "mine/NORMAL/c.png")
    monkeypatch.setenv("CXR_DATA", str(tmp_path))
    assert run_command("--json") == 0
    listed = json.loads(capsys.readouterr().out)["datasets"]
    assert [entry["name"] for entry in listed] == list(KNOWN)
    assert not any(entry["present"] for entry in listed)

    assert run_command("mine", "--json") == 1
    out = json.loads(capsys.readouterr().out)
    assert out["classes"] == {"covid": 1, "normal": 1}
    assert out["skipped"][0]["path"] == "mine/COVID/b.txt".removeprefix("mine/")

    assert run_command("nothing", "--json") == 2
    out, err = capsys.readouterr()
    assert json.loads(out)["error"] == err.strip()
    assert run_command("mendeley-8h65ywd2jr-ct", "--json") == 2
    assert "cannot be downloaded" in json.loads(capsys.readouterr().out)["error"]
    write_files(tmp_path / "mendeley-8h65ywd2jr/CT", "COVID/a.png", "Non-COVID/b.png")
    assert run_command("mendeley-8h65ywd2jr-ct") == 0
    assert "augmented copies are looked for" in capsys.readouterr().err
    assert run_command("darkcovidnet", "--no-fetch") == 2
    assert capsys.readouterr().err.count("\n") == 1
