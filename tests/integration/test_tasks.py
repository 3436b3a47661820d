"""Which labels are read as which classes, and what a run says of its split beside the table."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from core.config import Config, ConfigError
from core.datasets.folder import load_table
from core.datasets.registry import KNOWN, resolve_dataset
from core.datasets.splits import build_manifest
from core.imageio.pixel_cache import build_pixel_cache
from core.models.recipes import find_recipe
from core.runs import artifacts
from core.runs.schema.checking import find_problem
from core.runs.schema.run import Task
from core.training import prepare
from core.training.prepare import (
    choose_classes,
    conflict_sentence,
    decode,
    list_pairs,
    moved_sentence,
    split_images,
)
from tests.support.files import write_picture

PUBLISHED = {"covid": "Covid-19", "normal": "No_findings", "pneumonia": "Pneumonia"}


def make_table(n=90, **columns) -> pd.DataFrame:
    """n images by turns of three classes, two images a patient."""
    labels = [list(PUBLISHED)[k % 3] for k in range(n)]
    table = pd.DataFrame(
        {
            "image_id": [f"i{k:03d}" for k in range(n)],
            "path": [f"i{k:03d}.png" for k in range(n)],
            "label": labels,
            "original_label": [PUBLISHED[label] for label in labels],
            "patient_id": [f"p{k % 3}-{k // 6}" for k in range(n)],
            "split_given": "",
        }
    ).assign(**columns)
    table.attrs["grouping"] = "by patient"
    return table


def pairs_of(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        [(*row, 0.95) for row in rows], columns=["image_id_a", "image_id_b", "kind", "correlation"]
    )


def config(**more) -> Config:
    return Config("made", ("cnn",), "made", **more)


# Classes


def test_all_classes_are_a_task_too():
    chosen = choose_classes(make_table(), None)
    assert len(chosen) == 90 and chosen.attrs["grouping"] == "by patient"
    assert chosen.attrs["task"] == {
        "classes": ["covid", "normal", "pneumonia"],
        "map": {"Covid-19": "covid", "No_findings": "normal", "Pneumonia": "pneumonia"},
        "left_out": {},
    }


def test_two_classes_of_three_record_what_was_left_out():
    chosen = choose_classes(make_table(), ("normal", "covid"))
    assert chosen.attrs["task"] == {
        "classes": ["covid", "normal"],
        "map": {"Covid-19": "covid", "No_findings": "normal"},
        "left_out": {"Pneumonia": 30},
    }
    assert set(chosen["label"]) == {"covid", "normal"} and list(chosen.index) == list(range(60))


def test_labels_read_as_one_class():
    table = make_table()
    chosen = choose_classes(table, ("covid", "other=normal+pneumonia"))
    assert chosen.attrs["task"] == {
        "classes": ["covid", "other"],
        "map": {"Covid-19": "covid", "No_findings": "other", "Pneumonia": "other"},
        "left_out": {},
    }
    assert chosen["label"].value_counts().to_dict() == {"other": 60, "covid": 30}
    assert list(chosen["original_label"]) == list(table["original_label"])
    assert set(table["label"]) == set(PUBLISHED)  # the table given stays as it was


@pytest.mark.parametrize(
    ("classes", "words"),
    [
        (("covid",), "at least two of covid, normal, pneumonia"),
        (("covid", "flu"), "'flu' is none of them"),
        (("covid", "other=normal+flu"), "'flu' is none of them"),
        (("covid", "other="), "'' is none of them"),
        (("covid", "=normal"), "a name of its own"),
        (("covid", "covid"), "'covid' is named twice"),
        (("covid", "other=covid+normal"), "'covid' is named twice"),
        (("other=covid", "other=normal"), "a name of its own"),
        (("covid", "normal=pneumonia"), "'normal' would be another class's name"),
    ],
)
def test_wrong_classes_are_one_sentence(classes, words):
    with pytest.raises(ConfigError) as error:
        choose_classes(make_table(), classes)
    assert words in str(error.value) and "other=normal+pneumonia" in str(error.value)
    assert str(error.value).endswith(f"Received: {','.join(classes)}.")


def test_the_task_fits_the_shape_of_a_run():
    task = choose_classes(make_table(), ("covid", "normal")).attrs["task"]
    assert find_problem(task, Task) is None
    assert "left_out" in find_problem(task | {"left_out": {"Pneumonia": "30"}}, Task)


# Two tasks of the same images


def test_splits_of_two_tasks_contradict_each_other_and_the_run_says_so(tmp_path):
    """Each task is split for itself, so that its own classes are balanced."""
    table = make_table(180)
    for k, path in enumerate(table["path"]):
        write_picture(tmp_path / path, k)
    both = {}
    for classes in (None, ("covid", "normal"), ("covid", "other=normal+pneumonia")):
        cache = build_pixel_cache(
            choose_classes(table, classes), tmp_path, tmp_path / "cache", [32]
        )
        manifest, _ = split_images(cache, config(classes=classes))
        both[classes] = manifest.set_index("image_id")["split"]
        assert (manifest.attrs["caveats"] == [prepare.SPLIT_ANEW]) == (classes is not None)
        assert manifest.attrs["grouping"] == "by patient"
    two = both["covid", "normal"]
    three = both[None].loc[two.index]
    assert ((two == "test") & (three == "train")).any()


def test_naming_all_classes_changes_nothing(tmp_path):
    table = make_table(90)
    named = choose_classes(table, ("covid", "pneumonia", "normal"))
    assert named.equals(table) and not named.attrs["task"]["left_out"]
    assert build_manifest(named, seed=0)["split"].equals(build_manifest(table, seed=0)["split"])


# What a run says of its split


def test_images_moved_into_a_given_test_part_are_counted():
    given = ["test" if k < 12 else "train" for k in range(90)]
    table = make_table(split_given=given)
    assert moved_sentence(table, build_manifest(table, seed=0)) == ""
    pairs = pairs_of(("i000", "i050", "near"))  # and the other image of i050's patient
    moved = moved_sentence(table, build_manifest(table, seed=0, near_duplicates=pairs))
    assert "given as train, 2 stand in test" in moved
    assert moved.endswith("14 test images in place of 12.")
    assert moved_sentence(make_table(), build_manifest(make_table(), seed=0)) == ""


def test_copies_with_two_labels_are_said():
    manifest = build_manifest(make_table(), seed=0)
    assert conflict_sentence(manifest, pairs_of(("i000", "i003", "near"))) == ""
    text = conflict_sentence(manifest, pairs_of(("i000", "i003", "near"), ("i000", "i001", "near")))
    assert text.startswith("1 pair of ") and "i000 and i001" in text


def test_a_run_lists_all_duplicates_and_the_first_copies():
    copies = [(f"a{k}", f"b{k}", "augmented") for k in range(1200)]
    listed = list_pairs(pairs_of(*copies, ("x", "y", "exact"), ("x", "z", "near")))
    assert [row["kind"] for row in listed[:2]] == ["exact", "near"]
    assert len(listed) == 2 + prepare.LISTED_DUPLICATES


@pytest.mark.parametrize("augmented", [True, False])
def test_copies_are_looked_for_where_there_may_be_some(tmp_path, monkeypatch, augmented):
    table = make_table()
    for k, path in enumerate(table["path"]):
        write_picture(tmp_path / path, k)
    table.attrs["augmented"] = augmented
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    recipes = {"cnn": replace(find_recipe("cnn", "random"), image_size_px=48)}
    cache = decode(table, tmp_path, recipes)
    sizes = []

    def find(pixels, rows, tick):
        sizes.append(pixels.shape[1])
        return pairs_of(("i000", "i089", "augmented"), ("i001", "i088", "augmented"))

    monkeypatch.setattr(prepare, "find_augmented", find)
    manifest, pairs = split_images(cache, config())
    group = manifest.set_index("image_id")["group_id"]
    assert cache.sizes == ((48, 224) if augmented else (48,))
    assert sizes == [224] * augmented and len(pairs) == 2 * augmented
    assert (group["i000"] == group["i089"]) == augmented
    assert ("4 images in 2 sets together" in manifest.attrs["grouping"]) == augmented


def test_copies_count_as_one_unknown_patient():
    table = make_table(12, patient_id=[f"image:i{k:03d}" for k in range(10)] + ["p", "p"])
    table.attrs["task"] = {"kept": True}
    rows = [("i005", "i002"), ("i002", "i008"), ("i000", "i010")]
    joined = prepare.join_patients(table, pairs_of(*((*row, "augmented") for row in rows)))
    patient = dict(zip(joined["image_id"], joined["patient_id"], strict=True))
    assert {patient[name] for name in ("i002", "i005", "i008")} == {"image:i002"}
    assert patient["i000"] == "image:i000" and patient["i010"] == patient["i011"] == "p"
    assert joined["patient_id"].nunique() == 9 and joined.attrs == table.attrs
    assert prepare.join_patients(table, pairs_of()).equals(table)


# The real sets, where they are


def split_real(name: str, tmp_path: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    root = Path(os.environ.get("CXR_DATA", "data"))
    if not (root / name).is_dir():
        pytest.skip(f"{name} is not in CXR_DATA")
    dataset, folder = resolve_dataset(name, root)
    table = choose_classes(load_table(dataset, folder), None)
    return split_images(build_pixel_cache(table, folder, tmp_path, [112]), config())


def test_kaggle_keeps_its_own_test_part(tmp_path):
    manifest, _ = split_real("kaggle-covid19-xray", tmp_path)
    counts = pd.crosstab(manifest["split"], manifest["label"])
    assert counts.loc["test"].to_dict() == {"covid": 20, "normal": 20}
    assert counts.loc["train"].sum() + counts.loc["val"].sum() == 148
    assert manifest.attrs["caveats"] == []  # none had to move
    assert any("71 of the 94" in text for text in KNOWN["kaggle-covid19-xray"].caveats)
    patients = manifest["patient_id"].str.startswith("cohen-")
    assert patients.sum() > 80 and (manifest.loc[patients, "label"] == "covid").all()


def test_ucsd_says_how_slices_are_grouped(tmp_path):
    manifest, pairs = split_real("ucsd-covid-ct", tmp_path)
    assert "a guess at the case" in manifest.attrs["grouping"]
    assert f"{len(pairs)} pairs of the same or nearly" in manifest.attrs["grouping"]
    assert "different labels" in manifest.attrs["caveats"][0]
    group = manifest.set_index("image_id")["group_id"]
    for a, b in pairs[["image_id_a", "image_id_b"]].itertuples(index=False):
        assert group[a] == group[b]


def test_the_release_keeps_its_split(tmp_path):
    manifest, _ = split_real("darkcovidnet", tmp_path)
    release = Path(__file__).parents[2] / "artifacts" / "release"
    if not release.is_dir():
        pytest.skip("there is no release run here")
    stored = artifacts.load_manifest(artifacts.open_run(release)).set_index("image_id")["split"]
    now = manifest.set_index("image_id")["split"]
    assert np.array_equal(now.loc[stored.index], stored)
