"""Patients, copies and near copies on both sides of a split are found; a clean split is clean."""

import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from core.config import data_root
from core.datasets.duplicate_pairs import linked_sets, spell_out
from core.datasets.folder import load_table
from core.datasets.leakage import LeakageError, find_leaks, leak_sentence, measure_split
from core.datasets.near_duplicates import find_duplicates
from core.datasets.phantom.generate import write_phantoms
from core.datasets.registry import describe_folder
from core.datasets.splits import build_manifest
from core.imageio.pixel_cache import build_pixel_cache

PROPERTY = settings(max_examples=60, deadline=None, derandomize=True)
SLOW_PROPERTY = settings(PROPERTY, max_examples=12)
PARTS = ("train", "val", "test")


def make_manifest(*rows) -> pd.DataFrame:
    """Rows (split, patient_id[, group_id[, sha256]]), named a, b, c ..."""
    full = [(*row, *("", "", "")[len(row) - 1 :])[:4] for row in rows]
    table = pd.DataFrame(full, columns=["split", "patient_id", "group_id", "sha256"])
    table["group_id"] = table["group_id"].where(table["group_id"] != "", table["patient_id"])
    return table.assign(image_id=[chr(97 + k) for k in range(len(rows))])


def pairs(*rows) -> pd.DataFrame:
    columns = ["image_id_a", "image_id_b", "kind", "correlation"]
    return pd.DataFrame(rows, columns=columns)


def crossing(found) -> set:
    return {(row["image_id_a"], row["image_id_b"]) for row in found if row["crosses"]}


# --- a set of phantoms with faults planted in it --------------------------------------------------


@pytest.fixture(scope="module")
def clean(tmp_path_factory):
    """A folder of phantoms, three images a patient, and what a split by patient makes of it."""
    root = tmp_path_factory.mktemp("clean") / "phantom"
    write_phantoms(root, patients_per_class=8, images_per_patient=3, size_px=160)
    return root, *look_at(root)


def look_at(root):
    """The table of images that decode and their pixels at 112 px."""
    table = load_table(describe_folder(root), root)
    cache = build_pixel_cache(table, root, root.parent / "cache", [112])
    return cache.table, cache.pixels(112)


def split_of(manifest, image_id):
    return manifest.set_index("image_id").loc[image_id, "split"]


def plant(clean, tmp_path, change):
    """The clean set with change(picture) of a train image under a test patient's name.

    Returns find_leaks of the clean split with the planted file in test, and the two names.
    """
    root, table, _ = clean
    manifest = build_manifest(table, seed=0)
    original = manifest[manifest["split"] == "train"].iloc[0]
    host = manifest[manifest["split"] == "test"].iloc[0]
    copied = tmp_path / "phantom"
    shutil.copytree(root, copied)
    planted = f"{host['label']}/planted"
    change(copied / original["path"], copied / planted)
    with open(copied / "metadata.csv", "a", encoding="utf-8") as file:
        name = next(copied.glob(f"{planted}.*")).relative_to(copied).as_posix()
        file.write(f"{name},{host['label']},{host['patient_id']},true\n")
    table, pixels = look_at(copied)
    part = manifest.set_index("image_id")["split"]
    manifest = table.assign(split=table["image_id"].map(part).fillna("test"))
    return find_leaks(manifest, pixels), original["image_id"], planted


def test_a_clean_set_of_phantoms_comes_out_clean(clean):
    _, table, pixels = clean
    found = find_leaks(build_manifest(table, seed=0, folds=4), pixels)
    assert found["status"] == "clean"
    assert found["summary"]["images"] == 0 and leak_sentence(found["summary"]) == ""
    assert set(found["counts"].values()) == {0}
    assert found["exact"] == found["near"] == found["caveats"] == []
    n_test = found["checked"]["test"]
    assert sum(found["checked"].values()) == 72 and n_test > 0
    assert found["sentence"] == (
        f"None of the {n_test} test images shares a patient with train or val, and no copy of one "
        "was found there."
    )
    json.dumps(found, allow_nan=False)


def test_a_patient_in_two_splits_is_found(clean):
    _, table, pixels = clean
    manifest = build_manifest(table, seed=0)
    patient = manifest.loc[manifest["split"] == "train", "patient_id"].iloc[0]
    moved = manifest.index[manifest["patient_id"] == patient][-1]
    manifest.loc[moved, "split"] = "test"
    found = find_leaks(manifest, pixels)
    n_test = int((manifest["split"] == "test").sum())
    assert found["status"] == "leaks"
    shared = found["shared_patients"]["train/test"]
    assert shared["patients"] == shared["images"] == 1
    assert shared["share"] == 1 / n_test
    (example,) = shared["examples"]
    assert example["patient_id"] == patient
    assert example["image_ids"]["test"] == [manifest["image_id"][moved]]
    assert len(example["image_ids"]["train"]) == 2
    assert found["exact"] == found["near"] == []
    assert found["sentence"].endswith("share a patient with train or val (1 image of 1 patient).")


def test_an_exact_copy_under_another_patients_name_is_found(clean, tmp_path):
    found, original, planted = plant(
        clean, tmp_path, lambda source, to: shutil.copy(source, to.with_suffix(".png"))
    )
    assert found["status"] == "leaks"
    assert crossing(found["exact"]) == {(original, planted)}
    (pair,) = found["exact"]
    assert (pair["split_a"], pair["split_b"]) == ("train", "test")
    assert pair["same_file"] and not pair["same_group"] and not pair["mirrored"]
    assert pair["correlation"] == 1
    assert found["near"] == [] and found["summary"]["exact"] == 1
    assert found["shared_patients"]["train/test"]["images"] == 0
    assert "have a copy in train or val (1 image of 1 patient), 1 of them" in found["sentence"]


def reencode(source, to):
    """Brighter, with less contrast, smaller, and JPEG in place of PNG."""
    image = Image.open(source).convert("L").point(lambda grey: min(255, int(grey * 0.75) + 50))
    image.resize((120, 120)).save(to.with_suffix(".jpg"), quality=70)


def mirror(source, to):
    ImageOps.mirror(Image.open(source)).save(to.with_suffix(".png"))


@pytest.mark.parametrize("change", [reencode, mirror])
def test_an_altered_copy_under_another_patients_name_is_found(clean, tmp_path, change):
    found, original, planted = plant(clean, tmp_path, change)
    assert found["status"] == "leaks"
    assert crossing(found["near"]) == {(original, planted)}
    assert found["exact"] == []
    (pair,) = found["near"]
    assert 0.88 < pair["correlation"] <= 1
    assert not pair["same_file"] and pair["mirrored"] == (change is mirror)
    assert found["summary"] | {"near": 1, "images": 1, "by_patient": 0} == found["summary"]
    assert "1 of them with a near copy there" in found["sentence"]


# --- small cases by hand --------------------------------------------------------------------------


def test_counts_by_hand():
    manifest = make_manifest(
        ("train", "p1"),
        ("train", "p2", "p2", "x"),
        ("val", "p3"),
        ("test", "p1"),  # d: its patient
        ("test", "p1"),  # e: the same
        ("test", "p4", "p4", "x"),  # f: the file of b
        ("test", "p5", "p3"),  # g: the group of c, and a near copy of it
        ("test", "p6"),
        ("test", "image:i"),
        ("train", "image:j"),
    )
    near = pairs(("g", "c", "near", 0.95), ("h", "not in this run", "near", 0.99))
    assert measure_split(manifest, near) == {
        "patients": 3,
        "images": 4,
        "share": 4 / 6,
        "exact": 1,
        "near": 1,
        "by_patient": 2,
        "n_test": 6,
        "unknown_patients": 2,
    }
    without = measure_split(manifest)
    assert without["near"] == 0 and without["images"] == 4  # the group still tells
    found = find_leaks(manifest, None, near)
    assert found["summary"] == measure_split(manifest, near)
    assert found["caveats"] == [
        "Patients are unknown for 2 images, so overlap of patients cannot be excluded."
    ]
    shared = {name: row["images"] for name, row in found["shared_patients"].items()}
    assert shared == {"train/test": 2, "train/val": 0, "val/test": 1}
    (pair,) = found["near"]
    assert (pair["image_id_a"], pair["split_a"], pair["same_group"]) == ("c", "val", True)


def test_every_copy_in_another_part_has_its_pair():
    """find_duplicates pairs d and c with b alone, yet both show what a shows."""
    manifest = make_manifest(("train", "1"), ("test", "2"), ("test", "3"), ("test", "4"))
    found = find_leaks(
        manifest,
        None,
        pairs(("b", "c", "exact", 1.0), ("b", "d", "exact", 1.0), ("b", "a", "near", 0.9)),
    )
    assert crossing(found["near"]) == {("a", "b"), ("a", "c"), ("a", "d")}
    assert found["counts"] == {"exact": 2, "near": 3, "exact_crossing": 0, "near_crossing": 3}
    assert found["summary"]["near"] == 3 and found["summary"]["exact"] == 0


def test_what_train_and_val_share_is_said_and_is_no_leak_into_test():
    manifest = make_manifest(("train", "1"), ("val", "1"), ("test", "2"))
    found = find_leaks(manifest, None, pairs())
    assert found["status"] == "leaks" and found["summary"]["images"] == 0
    assert found["sentence"].endswith(
        "Val knows train too (1 of its images by patient, 0 by copy), so what was chosen on val "
        "was chosen too hopefully."
    )


def test_many_copies_stay_few_pairs():
    n = 3000
    part = np.arange(n) % 3
    ids = [str(k) for k in range(n)]
    copies = spell_out(ids, ["same"] * n, part, None)
    assert len(copies) < 3 * n
    for k in range(3):
        beside = {c.b for c in copies if part[c.a] != part[c.b]}
        beside |= {c.a for c in copies if part[c.a] != part[c.b]}
        assert set(np.flatnonzero(part == k)) <= beside
    manifest = pd.DataFrame({"image_id": ids, "patient_id": ids, "sha256": "same"})
    manifest["split"] = np.array(PARTS)[part]
    found = find_leaks(manifest, None, pairs())
    assert len(found["exact"]) == 200 and found["counts"]["exact"] == len(copies)
    assert all(pair["crosses"] for pair in found["exact"])
    assert found["summary"]["exact"] == 1000


def summary(**changed) -> dict:
    return {
        "patients": 2, "images": 4, "share": 0.4, "exact": 0, "near": 0, "by_patient": 4,
        "n_test": 10,
    } | changed  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "40 % of the 10 test images share a patient with train or val (4 images of 2 "
             "patients)."),
        ({"exact": 1, "near": 2}, "40 % of the 10 test images share a patient with train or val "
             "(4 images of 2 patients), 1 of them with an exact copy there and 2 with a near copy "
             "there."),
        ({"by_patient": 3, "near": 1}, "40 % of the 10 test images share a patient with train or "
             "val or have a copy there (4 images of 2 patients), 1 of them with a near copy "
             "there."),
        ({"by_patient": 0}, "40 % of the 10 test images belong to a group of copies that reaches "
             "into train or val (4 images of 2 patients)."),
        ({"images": 1, "patients": 1, "by_patient": 1, "share": 0.004, "n_test": 250}, "0.4 % of "
             "the 250 test images share a patient with train or val (1 image of 1 patient)."),
        ({"images": 1, "patients": 1, "by_patient": 1, "share": 1e-4, "n_test": 10_000}, "Less "
             "than 0.1 % of the 10,000 test images share a patient with train or val (1 image of "
             "1 patient)."),
        ({"images": 0}, ""),
    ],
)  # fmt: skip
def test_the_sentence(changed, words):
    assert leak_sentence(summary(**changed)).replace("\u202f", " ") == words


def test_the_sentence_of_a_shorter_summary():
    short = {key: summary()[key] for key in ("patients", "images", "share", "exact", "near")}
    assert leak_sentence(short) == leak_sentence(summary())
    assert leak_sentence(None) == ""


@pytest.mark.parametrize(
    ("manifest", "words"),
    [
        (make_manifest(("train", "1")).drop(columns="split"), "lacks the columns split"),
        (make_manifest(("dev", "1")), "Received: 'dev'"),
        (make_manifest(("train", ""), ("test", "1")), "1 of 2 images have no patient_id"),
        (make_manifest(("train", "1"), ("test", "2")).assign(image_id="a"), "'a' occurs twice"),
    ],
)
def test_an_unusable_manifest_is_one_sentence(manifest, words):
    with pytest.raises(LeakageError, match=words) as caught:
        measure_split(manifest)
    assert re.fullmatch(r"[^\n]+\.", str(caught.value))


def test_pixels_and_pairs_must_fit():
    manifest = make_manifest(("train", "1"), ("test", "2"))
    for pixels in (None, np.zeros((1, 64, 64), np.uint8), np.zeros((2, 64, 64))):
        with pytest.raises(LeakageError, match="the manifest's 2 rows"):
            find_leaks(manifest, pixels)
    with pytest.raises(LeakageError, match="lack the columns kind, correlation"):
        measure_split(manifest, pd.DataFrame([("a", "b")], columns=["image_id_a", "image_id_b"]))
    assert find_leaks(manifest, None, pd.DataFrame([]))["status"] == "clean"


# --- properties -----------------------------------------------------------------------------------

ROW = st.tuples(
    st.sampled_from(PARTS),
    st.integers(0, 6).map("p{}".format),
    st.integers(0, 6).map("g{}".format),
    st.sampled_from(["", "", "x", "y", "z"]),
)


@PROPERTY
@given(
    st.lists(ROW, min_size=1, max_size=14),
    st.lists(
        st.tuples(st.integers(0, 13), st.integers(0, 13), st.sampled_from(["exact", "near"])),
        max_size=4,
    ),
    st.randoms(),
)
def test_any_manifest_is_counted_as_one_would_by_looking(rows, links, random):
    manifest = make_manifest(*rows)
    ids = list(manifest["image_id"])
    found = pairs(*[(ids[a], ids[b], kind, 0.9) for a, b, kind in links if max(a, b) < len(ids)])
    part = [row[0] for row in rows]

    # By looking: grow the set of each image until nothing joins it any more.
    def reach(i, joined):
        seen, grown = set(), {i}
        while grown != seen:
            seen = grown
            grown = seen | {k for k in range(len(rows)) for j in seen if joined(j, k)}
        return seen

    def same_picture(j, k):
        named = (ids[j], ids[k])
        exact = found[found["kind"] == "exact"]
        sides = set(zip(exact["image_id_a"], exact["image_id_b"], strict=True))
        same_file = rows[j][3] != "" and rows[j][3] == rows[k][3]
        return same_file or named in sides or named[::-1] in sides

    kind = [reach(i, same_picture) for i in range(len(rows))]
    person = [
        reach(i, lambda j, k: rows[j][1] == rows[k][1] or rows[j][2] == rows[k][2])
        for i in range(len(rows))
    ]
    close = found[found["kind"] == "near"]
    alike = [
        {k for a, b in zip(close["image_id_a"], close["image_id_b"], strict=True)
         for one, other in ((a, b), (b, a))
         if ids.index(one) in kind[i] for k in kind[ids.index(other)]} - kind[i]
        for i in range(len(rows))
    ]  # fmt: skip
    tests = [i for i in range(len(rows)) if part[i] == "test"]

    def outside(sets):
        return {i for i in tests if any(part[k] != "test" for k in sets[i])}

    known = outside(kind) | outside(alike) | outside(person)
    measured = measure_split(manifest, found)
    assert measured["exact"] == len(outside(kind))
    assert measured["near"] == len(outside(alike))
    assert measured["images"] == len(known)
    assert measured["patients"] == len({rows[i][1] for i in known})
    assert measured["by_patient"] == len(
        {i for i in tests if any(rows[k][1] == rows[i][1] and part[k] != "test"
                                 for k in range(len(rows)))}
    )  # fmt: skip
    assert bool(leak_sentence(measured)) == (measured["images"] > 0)
    # The order of the rows is nothing.
    order = list(range(len(rows)))
    random.shuffle(order)
    assert measure_split(manifest.iloc[order], found.iloc[::-1]) == measured


@PROPERTY
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=12))
def test_linked_sets_are_the_reachable_ones(links):
    number = linked_sets(10, links)
    for a, b in links:
        assert number[a] == number[b]
    joined = {frozenset(np.flatnonzero(number == k)) for k in number}
    for some in joined:  # and nothing is joined without a link
        for one in some if len(some) > 1 else ():
            assert any(one in link and set(link) - {one} for link in links)


@SLOW_PROPERTY
@given(st.integers(0, 5), st.integers(10, 40), st.integers(0, 3))
def test_a_split_by_group_is_clean_and_a_random_one_is_not(seed, n_patients, n_files):
    rng = np.random.default_rng(seed)
    n = 4 * n_patients
    table = pd.DataFrame(
        {
            "image_id": [f"i{k:03d}" for k in range(n)],
            "label": np.array(["covid", "normal"])[np.arange(n) % 2],
            "patient_id": [f"p{k}" for k in rng.integers(0, n_patients, n)],
            "sha256": [str(k) for k in range(n)],
        }
    )
    table.loc[rng.choice(n, 2 * n_files, replace=False), "sha256"] = "same"
    near = pairs(*[(f"i{a:03d}", f"i{b:03d}", "near", 0.9) for a, b in rng.integers(0, n, (2, 2))])
    grouped = build_manifest(table, seed=seed, near_duplicates=near)
    assert find_leaks(grouped, None, near)["status"] == "clean"
    random = build_manifest(table, seed=seed, near_duplicates=near, split="random")
    assert find_leaks(random, None, near)["status"] == "leaks"
    assert measure_split(random, near)["images"] > 0


# --- the real data set ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def darkcovidnet(tmp_path_factory):
    root = data_root() / "darkcovidnet"
    if not (root / "metadata.csv").is_file():
        pytest.skip(f"darkcovidnet is not in {data_root()}; set CXR_DATA to the folder that has it")
    cache = build_pixel_cache(
        load_table(describe_folder(root), root), root, tmp_path_factory.mktemp("cache"), [112]
    )
    return cache.table, cache.pixels(112)


def test_darkcovidnet_by_patient_is_clean(darkcovidnet):
    table, pixels = darkcovidnet
    found = find_duplicates(pixels, table["image_id"])
    manifest = build_manifest(table, seed=0, near_duplicates=found)
    leaks = find_leaks(manifest, pixels)
    assert leaks["status"] == "clean"
    assert leaks["counts"] == {"exact": 1, "near": 1, "exact_crossing": 0, "near_crossing": 0}


def test_darkcovidnet_at_random_shares_patients_in_44_of_100_nih_test_images(darkcovidnet):
    table, pixels = darkcovidnet
    pairs_found = find_duplicates(pixels, table["image_id"])
    shares = []
    for seed in range(4):
        manifest = build_manifest(table, seed=seed, split="random", near_duplicates=pairs_found)
        nih = manifest[manifest["patient_id"].str.startswith("nih-")]
        shares.append(measure_split(nih)["share"])
    assert shares[0] == pytest.approx(0.44, abs=0.02)
    assert np.mean(shares) == pytest.approx(0.44, abs=0.02)
    assert "share a patient with train or val" in leak_sentence(measure_split(manifest))
