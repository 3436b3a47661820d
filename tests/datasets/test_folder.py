"""Any folder of images -> one table: layouts, ids, patients, and what is left out."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from core.datasets.folder import find_image, load_table
from core.datasets.registry import Dataset, DatasetError, resolve_dataset
from tests.support.files import write_files, write_metadata

PLAIN = Dataset("any", "any", "xray")


def reasons(table) -> dict[str, str]:
    return {entry["path"]: entry["reason"] for entry in table.attrs["skipped"]}


# Layouts


def test_class_folders(tmp_path):
    write_files(tmp_path, "Covid-19/b.jpeg", "Covid-19/a.png", "No_findings/n.png", "odd/o.bmp")
    table = load_table(PLAIN, tmp_path)
    assert list(table["image_id"]) == ["Covid-19/a", "Covid-19/b", "No_findings/n", "odd/o"]
    assert list(table["path"])[1] == "Covid-19/b.jpeg"
    assert list(table["label"]) == ["covid", "covid", "normal", "odd"]
    assert list(table["original_label"]) == ["Covid-19", "Covid-19", "No_findings", "odd"]
    assert list(table["patient_id"]) == [f"image:{i}" for i in table["image_id"]]
    assert set(table["split_given"]) == {""}
    assert table.attrs["skipped"] == []
    assert "each image its own group" in table.attrs["grouping"]


@pytest.mark.parametrize("val", [(), ("val/COVID/v.png",)])
def test_given_split_is_kept(tmp_path, val):
    write_files(tmp_path, "train/COVID/a.png", "train/NORMAL/b.png", "test/COVID/c.png", *val)
    table = load_table(PLAIN, tmp_path).set_index("image_id")
    assert table.loc["train/COVID/a", "split_given"] == "train"
    assert table.loc["test/COVID/c", "split_given"] == "test"
    assert table.loc["test/COVID/c", "label"] == "covid"
    assert len(table) == 3 + len(val)
    if val:
        assert table.loc["val/COVID/v", "split_given"] == "val"


def test_split_names_in_other_spellings_and_strangers_beside_them(tmp_path):
    write_files(tmp_path, "Train/NORMAL/b.png", "Validation/NORMAL/v.png", "extra/x.png", "y.png")
    table = load_table(PLAIN, tmp_path)
    assert list(table["split_given"]) == ["train", "val"]
    assert reasons(table) == {
        "extra/x.png": "outside the train, val and test folders",
        "y.png": "in no class folder",
    }


def test_train_folder_one_level_deeper_is_named(tmp_path):
    write_files(tmp_path, "unpacked/train/NORMAL/a.png", "unpacked/test/NORMAL/b.png")
    with pytest.raises(DatasetError, match=r"one level deeper: give .*unpacked instead"):
        load_table(PLAIN, tmp_path)


def test_metadata_with_further_columns(tmp_path):
    write_files(tmp_path, "c/1.png", "c/2.png", "c/3.png", "masks/1.png")
    write_metadata(
        tmp_path,
        "path,label,patient_id,view,sha256,image_id\n"
        "c/1.png,COVID,p1,PA,x,old1\nc/2.png,NORMAL,,AP,y,old2\n",
    )
    table = load_table(PLAIN, tmp_path)
    assert list(table["patient_id"]) == ["p1", "image:c/2"]
    assert list(table["view"]) == ["PA", "AP"]
    assert list(table["image_id"]) == ["c/1", "c/2"]
    assert list(table["metadata_image_id"]) == ["old1", "old2"]
    assert "sha256" not in table and "metadata_sha256" in table
    assert table.attrs["unlisted_n"] == 1
    assert table.attrs["skipped"] == [
        {"path": "c/3.png", "reason": "in the folder, but not named in metadata.csv"},
        {"path": "masks", "reason": "a folder of masks, not of images"},
    ]
    assert table.attrs["grouping"].count("(1 images)") == 2


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("path,label\na/1.png,COVID\n", "utf-8-sig"),
        ("path,label\r\na\\1.png,COVID\r\n", "utf-8"),
        ("path;label\na/1.png;COVID\n", "utf-8"),
        ("Path, Label \n./a//1.png, COVID \n", "utf-8"),
        ('path,label\n"a/1.png","COVID"\n', "utf-8"),
    ],
)
def test_metadata_as_people_write_it(tmp_path, text, encoding):
    write_files(tmp_path, "a/1.png")
    write_metadata(tmp_path, text, encoding)
    table = load_table(PLAIN, tmp_path)
    assert list(table.columns[:3]) == ["image_id", "path", "label"]
    assert table.loc[0, ["image_id", "path", "label"]].tolist() == ["a/1", "a/1.png", "covid"]


@pytest.mark.parametrize(
    "path", ["../outside.png", "a/../../outside.png", "/etc/x.png", "C:\\x.png", "..\\outside.png"]
)
def test_paths_out_of_the_folder_are_refused(tmp_path, path):
    root = write_files(tmp_path / "set", "a/1.png")
    write_files(tmp_path, "outside.png")
    write_metadata(root, f"path,label\na/1.png,COVID\n{path},COVID\n")
    table = load_table(PLAIN, root)
    assert list(table["path"]) == ["a/1.png"]
    assert reasons(table)[path].startswith("refused")


def test_missing_unlabelled_and_double_rows_are_named(tmp_path):
    write_files(tmp_path, "a.png", "b.png", "c.png")
    write_metadata(
        tmp_path,
        "path,label\na.png,COVID\na.png,COVID\nb.png,COVID\nb.png,NORMAL\nb.png,COVID\n"
        "c.png,\ngone.png,COVID\n",
    )
    table = load_table(PLAIN, tmp_path)
    assert list(table["image_id"]) == ["a"]
    assert "twice" in reasons(table)["a.png"]
    assert "two different labels" in reasons(table)["b.png"]
    assert "no label" in reasons(table)["c.png"]
    assert "missing" in reasons(table)["gone.png"]
    # Named, if in vain: none of them is called unlisted as well.
    assert table.attrs["unlisted_n"] == 0
    assert len(table.attrs["skipped"]) == 5


def test_masks_are_not_the_reason_why_no_image_can_be_used(tmp_path):
    write_files(tmp_path, "masks/a.png", "b.png")
    write_metadata(tmp_path, "path,label\ngone.png,COVID\n")
    with pytest.raises(DatasetError, match=r"gone\.png: named in metadata\.csv"):
        load_table(PLAIN, tmp_path)


def test_metadata_of_the_originals_serves_reencoded_copies(tmp_path):
    write_files(tmp_path, "a/1.JPG", "a/2.webp-day5.jpg")
    write_metadata(tmp_path, "path,label\na/1.png,COVID\na/2.webp-day5.png,COVID\n")
    table = load_table(PLAIN, tmp_path)
    assert list(table["path"]) == ["a/1.JPG", "a/2.webp-day5.jpg"]
    assert list(table["image_id"]) == ["a/1", "a/2.webp-day5"]


@pytest.mark.parametrize("text", ["", "file,finding\na.png,x\n", "path\na.png\n", '"broken'])
def test_unusable_metadata_is_one_sentence(tmp_path, text):
    write_files(tmp_path, "a.png")
    write_metadata(tmp_path, text)
    with pytest.raises(DatasetError, match=r"metadata\.csv .*path,label\[,patient_id\]"):
        load_table(PLAIN, tmp_path)


def test_metadata_in_another_encoding_is_one_sentence(tmp_path):
    write_metadata(tmp_path, "path,label\nä.png,COVID\n", "latin-1")
    with pytest.raises(DatasetError, match="UTF-8"):
        load_table(PLAIN, tmp_path)


# Files


def test_uppercase_nested_hidden_and_system_files(tmp_path):
    write_files(
        tmp_path,
        "COVID/A.PNG",
        "COVID/site/day/b.JPeG",
        "COVID/Thumbs.db",
        "COVID/.hidden.png",
        "COVID/._a.png",
        ".git/COVID/c.png",
        "__MACOSX/COVID/d.png",
        "COVID/notes.txt",
        "README.md",
        "COVID/masks/A.png",
    )
    table = load_table(PLAIN, tmp_path)
    assert list(table["image_id"]) == ["COVID/A", "COVID/site/day/b"]
    assert set(table["label"]) == {"covid"}
    assert reasons(table) == {
        "COVID/notes.txt": "not an image by its extension",
        "COVID/masks": "a folder of masks, not of images",
    }


def test_files_that_share_an_id_keep_the_extension(tmp_path):
    write_files(tmp_path, "COVID/a.png", "COVID/a.jpg", "COVID/b.png")
    table = load_table(PLAIN, tmp_path)
    assert list(table["image_id"]) == ["COVID/a.jpg", "COVID/a.png", "COVID/b"]
    assert find_image(tmp_path, "COVID/a.png") == tmp_path / "COVID/a.png"


def test_table_does_not_depend_on_the_order_of_creation(tmp_path):
    names = ["COVID/c.png", "COVID/a.png", "NORMAL/b.png"]
    first = load_table(PLAIN, write_files(tmp_path / "1", *names))
    second = load_table(PLAIN, write_files(tmp_path / "2", *reversed(names)))
    assert first.equals(second)


def test_linked_folder_is_read_and_a_loop_ends(tmp_path):
    write_files(tmp_path / "far", "a.png")
    root = write_files(tmp_path / "set", "NORMAL/b.png")
    (root / "COVID").symlink_to(tmp_path / "far")
    (root / "NORMAL" / "again").symlink_to(root)
    assert list(load_table(PLAIN, root)["image_id"]) == ["COVID/a", "NORMAL/b"]


@pytest.mark.parametrize("files", [(), ("readme.txt",), ("loose.png",)])
def test_folder_without_usable_images_is_one_sentence(tmp_path, files):
    write_files(tmp_path, *files)
    with pytest.raises(DatasetError, match=r"No images to use in .*one folder a class") as error:
        load_table(PLAIN, tmp_path)
    assert "\n" not in str(error.value)


def test_find_image_whatever_the_extension(tmp_path):
    write_files(tmp_path / "set", "a/1.webp.JPG", "a/2.txt")
    write_files(tmp_path, "secret.png")
    root = tmp_path / "set"
    assert find_image(root, "a/1.webp") == root / "a/1.webp.JPG"
    for image_id in ["a/2", "a/none", "../secret", "a/../../secret", "", "a\0b", "x" * 5000]:
        assert find_image(root, image_id) is None
    assert find_image(root, str(tmp_path / "secret")) is None


# Patients


def test_nih_names_give_patients(tmp_path):
    write_files(tmp_path, "No_findings/00001234_001.png", "Pneumonia/00001234_007.png")
    write_files(tmp_path, "Pneumonia/00001234_07.png")
    table = load_table(PLAIN, tmp_path).set_index("image_id")
    assert table.loc["No_findings/00001234_001", "patient_id"] == "nih-00001234"
    assert table.loc["Pneumonia/00001234_007", "patient_id"] == "nih-00001234"
    assert table.loc["Pneumonia/00001234_07", "patient_id"].startswith("image:")
    assert "ChestX-ray8" in table.attrs["grouping"]


def test_group_column_serves_and_is_called_a_guess(tmp_path):
    write_files(tmp_path, "a.png", "b.png", "c.png")
    write_metadata(tmp_path, "path,label,group\na.png,COVID,g\nb.png,COVID,g\nc.png,COVID,\n")
    table = load_table(PLAIN, tmp_path)
    assert list(table["patient_id"]) == ["g", "g", "image:c"]
    assert list(table["group"]) == ["g", "g", ""]
    assert "guess" in table.attrs["grouping"]


def test_kaggle_findings_beside_the_folder(tmp_path):
    root = write_files(
        tmp_path / "kaggle-covid19-xray",
        "train/PNEUMONIA/a.jpeg",
        "train/NORMAL/n.jpeg",
        "test/PNEUMONIA/b.png",
    )
    (tmp_path / "kaggle-covid19-xray-findings.csv").write_text(
        "path,finding,patient_id,view\ntrain/PNEUMONIA/a.jpeg,SARS,cohen-3,AP\n"
        "test/PNEUMONIA/b.png,COVID-19,cohen-3,PA\n"
    )
    dataset, folder = resolve_dataset("kaggle-covid19-xray", tmp_path)
    assert folder == root
    assert any("PNEUMONIA is read as covid" in caveat for caveat in dataset.caveats)
    table = load_table(dataset, folder).set_index("image_id")
    assert table.loc["train/PNEUMONIA/a", "label"] == "covid"
    assert table.loc["train/PNEUMONIA/a", "patient_id"] == "cohen-3"
    assert table.loc["train/PNEUMONIA/a", "finding"] == "SARS"
    assert table.loc["test/PNEUMONIA/b", "patient_id"] == "cohen-3"
    assert table.loc["train/NORMAL/n", "patient_id"] == "image:train/NORMAL/n"
    assert table.loc["train/NORMAL/n", "finding"] == ""


# The real sets, where they are


@pytest.mark.parametrize(
    ("name", "counts", "patients"),
    [
        ("darkcovidnet", {"covid": 124, "normal": 500, "pneumonia": 500}, 764),
        ("kaggle-covid19-xray", {"covid": 94, "normal": 94}, None),
        ("ucsd-covid-ct", {"covid": 349, "noncovid": 397}, None),
    ],
)
def test_real_sets(name, counts, patients):
    root = Path(os.environ.get("CXR_DATA", "data"))
    if not (root / name).is_dir():
        pytest.skip(f"{name} is not in CXR_DATA")
    dataset, folder = resolve_dataset(name, root)
    table = load_table(dataset, folder)
    assert table["label"].value_counts().to_dict() == counts
    assert table["image_id"].is_unique and table["patient_id"].ne("").all()
    assert table.attrs["skipped"] == []
    if patients:
        assert table["patient_id"].nunique() == patients
    if name == "kaggle-covid19-xray":
        assert table["split_given"].value_counts().to_dict() == {"train": 148, "test": 40}
