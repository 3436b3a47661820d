"""Several data sets as one: labels, ids, patients, sources, and pictures that two of them have."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from core.config import Config, config_to_json
from core.datasets.folder import find_image
from core.datasets.phantom.generate import make_phantom
from core.datasets.registry import KNOWN, Dataset, DatasetError, dataset_folder
from core.datasets.several import (
    describe_own,
    load_images,
    name_source,
    read_own_readings,
    resolve_datasets,
)
from core.datasets.splits import build_manifest
from core.models.recipes import Recipe, Stage
from core.training import prepare
from core.training.run_metadata import command_line, describe_parts, known_names

SIZE_PX = 160
RECIPES = {"small": Recipe(64, (Stage("all layers", 1, 1e-3),), batch_size=16)}
ONE = Dataset("one", "Set one", "phantom", {"Ill": "covid", "Well": "normal"}, ("First caveat.",))
TWO = Dataset(
    "two",
    "Set two",
    "phantom",
    {"Ill": "pneumonia", "C": "covid", "Well": "normal"},
    ("Second caveat.",),
    source_names={"radiopaedia.org": "radiopaedia.org"},
    other_sources="journals",
)
PUBLISHERS = ("radiopaedia.org", "nejm.org", "")


@pytest.fixture
def data(tmp_path, monkeypatch):
    """Two sets of phantoms: patient cohen-1 is in both, and so are three pictures."""
    monkeypatch.setitem(KNOWN, "one", ONE)
    monkeypatch.setitem(KNOWN, "two", TWO)
    monkeypatch.setenv("CXR_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    rows = {"one": [], "two": []}
    for number, name in enumerate(rows):
        for k in range(24):
            label, drawn = [("Ill", "covid"), ("Well", "normal")][k % 2]
            if name == "two" and k % 3 == 0:
                label, drawn = "C", "covid"
            picture = make_phantom(drawn, 0, SIZE_PX, patient=100 * number + k).pixels
            write(tmp_path, name, f"{label}/p{k:02d}.png", picture)
            patient = "cohen-1" if k == 0 else str(k) if k < 20 else ""
            source = PUBLISHERS[k % 3] if name == "two" else ""
            rows[name].append((f"{label}/p{k:02d}.png", label, patient, source))
    first = {k: tmp_path / "data" / "one" / rows["one"][k][0] for k in (3, 5, 7)}
    whole, coded, cropped = (np.asarray(Image.open(file)) for file in first.values())
    write(tmp_path, "two", "Well/whole.png", whole)
    write(tmp_path, "two", "Well/coded.jpg", coded)
    write(tmp_path, "two", "Well/cropped.png", cropped[8:-6, 4:-14])
    for name, patient in (("whole.png", "cohen-9"), ("coded.jpg", ""), ("cropped.png", "77")):
        rows["two"].append((f"Well/{name}", "Well", patient, "sirm.org"))
    for name, lines in rows.items():
        table = pd.DataFrame(lines, columns=["path", "label", "patient_id", "source"])
        table = table if name == "two" else table.drop(columns="source")
        table.to_csv(tmp_path / "data" / name / "metadata.csv", index=False)
    return tmp_path / "data"


def write(root, name, path, pixels):
    file = root / "data" / name / path
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(file, **({"quality": 75} if file.suffix == ".jpg" else {}))


def load(data):
    dataset, root = resolve_datasets("one,two", data)
    return dataset, root, load_images(dataset, root)


def test_labels_ids_patients_and_sources(data):
    dataset, root, table = load(data)
    assert dataset.name == "one+two" and root == data
    assert dataset.caveats == ("First caveat.", "Second caveat.")
    rows = table.set_index("image_id")
    assert rows.loc["one/Ill/p02", "label"] == "covid"
    assert rows.loc["two/Ill/p02", "label"] == "pneumonia", "by the set's own map"
    assert rows.loc["one/Ill/p00", "patient_id"] == rows.loc["two/C/p00", "patient_id"] == "cohen-1"
    assert rows.loc["one/Ill/p02", "patient_id"] == "one:2"
    assert rows.loc["two/Ill/p02", "patient_id"] == "two:2"
    assert rows.loc["two/Ill/p22", "patient_id"] == "image:two/Ill/p22"
    assert rows.loc["one/Ill/p00", "source"] == "one"
    published = rows.loc[["two/C/p00", "two/Well/p01", "two/Ill/p02"]]
    assert list(published["source"]) == ["radiopaedia.org", "journals", "two"]
    assert list(published["publisher"]) == ["radiopaedia.org", "nejm.org", ""]
    for row in table.itertuples():
        assert find_image(root, row.image_id) == root / row.path
    assert dataset_folder("one+two", data) == data


def test_sources_of_the_known_sets():
    dark, cohen = KNOWN["darkcovidnet"], KNOWN["cohen-2020"]
    assert name_source(dark, "ChestX-ray8 (Wang et al., NIH)") == "NIH"
    assert name_source(dark, "covid-chestxray-dataset (Cohen et al.)") == "darkcovidnet"
    named = [name_source(cohen, text) for text in ("sirm.org", "eurorad.org", "nejm.org", " ")]
    assert named == ["sirm.org", "eurorad.org", "journals", "cohen-2020"]
    assert name_source(Dataset("mine", "Mine", "xray"), "ward b") == "ward b"


def split(data, **options):
    config = Config("one,two", ("small",), "x", **options)
    dataset, root = prepare.find_images(config)
    table = prepare.choose_classes(load_images(dataset, root), config.classes)
    cache = prepare.decode(table, root, RECIPES)
    cache.table.attrs.update(table.attrs)
    cache = prepare.count_shared_once(cache, root, RECIPES)
    manifest, pairs = prepare.split_images(cache, config)
    return dataset, table, cache, manifest, pairs


def test_a_picture_in_both_sets_counts_once_where_its_publisher_is_named(data):
    dataset, table, cache, manifest, _ = split(data)
    skipped = prepare.all_skipped(table, cache)
    assert set(skipped["path"]) == {f"one/Well/p0{k}.png" for k in (3, 5, 7)}
    reasons = skipped.set_index("path")["reason"]
    for k, name in ((3, "whole"), (5, "coded"), (7, "cropped")):
        assert f"the same picture as two/Well/{name}," in reasons[f"one/Well/p0{k}.png"]
    rows = manifest.set_index("image_id")
    assert len(rows) == len(table) - 3 and "one/Well/p03" not in rows.index
    assert rows.loc["two/Well/cropped", "source"] == "journals"
    assert any("3 pictures are in two" in text for text in manifest.attrs["caveats"])
    # Who is behind one picture is one patient; a known one gives the name.
    assert rows.loc["two/Well/whole", "patient_id"] == "cohen-9"
    assert rows.loc["two/Well/coded", "patient_id"] == "one:5"
    assert rows.loc["one/Ill/p00", "group_id"] == rows.loc["two/C/p00", "group_id"]
    assert rows.groupby("group_id")["split"].nunique().max() == 1
    parts = describe_parts(dataset, manifest)
    assert [part["n"] for part in parts["parts"]] == [21, 27]
    assert parts["sources"] == ["journals", "one", "radiopaedia.org", "two"]
    assert cache.pixels(64).shape == (48, 64, 64)


def test_other_images_of_a_copys_patient_stay_with_the_picture_that_counts(data):
    table = pd.read_csv(data / "one" / "metadata.csv", dtype=str, keep_default_na=False)
    table.loc[table["path"] == "Ill/p04.png", "patient_id"] = "3"
    table.to_csv(data / "one" / "metadata.csv", index=False)
    rows = split(data)[3].set_index("image_id")
    assert rows.loc["one/Ill/p04", "group_id"] == rows.loc["two/Well/whole", "group_id"]


def test_one_set_is_what_it_was(data):
    dataset, root = resolve_datasets("two", data)
    assert (dataset, root) == (TWO, data / "two")
    table = load_images(dataset, root)
    assert "several" not in table.attrs and "Ill/p02" in set(table["image_id"])
    assert table["source"].isin([*PUBLISHERS, "sirm.org"]).all(), "its own column, as published"
    table = table.assign(sha256="", width=1, height=1, format="PNG")
    assert "source" not in build_manifest(table, seed=0)
    assert describe_parts(dataset, table) == {}


def test_the_task_calls_labels_by_their_set(data):
    task = split(data)[1].attrs["task"]
    assert task["map"]["one: Ill"] == "covid" and task["map"]["two: Ill"] == "pneumonia"


def test_sets_by_path_and_what_cannot_go_together(data, tmp_path, monkeypatch):
    named = f"{data / 'one'},{data / 'two'}"
    dataset, root = resolve_datasets(named, tmp_path / "elsewhere")
    assert dataset.name == "one+two" and root == data
    config = Config(named, ("cnn",), "x")
    assert config_to_json(config)["dataset"] == "one,two"
    assert "--dataset one,two " in command_line(config, known_names(dataset))
    with pytest.raises(DatasetError, match="give each data set once"):
        resolve_datasets("one,one", data)
    with pytest.raises(DatasetError, match="No data set or folder 'three'"):
        resolve_datasets("one,three", data)
    (tmp_path / "far" / "c").mkdir(parents=True)
    monkeypatch.setitem(KNOWN, "c", Dataset("c", "C", "phantom"))
    with pytest.raises(DatasetError, match="lie in one folder"):
        resolve_datasets(f"one,{tmp_path / 'far' / 'c'}", data)
    monkeypatch.setitem(KNOWN, "two", Dataset("two", "Two", "ct"))
    with pytest.raises(DatasetError, match=r"one kind of images.*two: ct"):
        resolve_datasets("one,two", data)


def test_a_run_finds_its_sets_again_and_their_readings(data):
    (data / "two" / "readers.csv").write_text("path,reader,reading\nIll/p02.png,A,Opacity\n")
    known = {"name": "one+two"} | describe_parts(load(data)[0], split(data)[3])
    dataset = describe_own(known, data)
    assert dataset.name == "one+two" and len(load_images(dataset, data)) == 51
    assert list(read_own_readings(known, data).index) == ["two/Ill/p02"]
    assert describe_own({"name": "two"}, data / "two") == TWO
