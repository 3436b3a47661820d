"""Groups, splits and folds (with random tables), duplicates, fingerprint."""

import re
import time

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.ndimage import gaussian_filter

from core.config import data_root
from core.datasets.near_duplicates import find_duplicates
from core.datasets.schema import MANIFEST_COLUMNS, ManifestError
from core.datasets.splits import build_manifest, fingerprint
from core.imageio.pixel_cache import build_pixel_cache

PROPERTY = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True
)


def make_table(labels, patients=None, split_given=None) -> pd.DataFrame:
    ids = [f"image_{i:04d}" for i in range(len(labels))]
    return pd.DataFrame(
        {
            "image_id": ids,
            "path": [f"{name}.png" for name in ids],
            "label": list(labels),
            "original_label": list(labels),
            "patient_id": [f"image:{i}" for i in ids] if patients is None else list(patients),
            "split_given": split_given if split_given is not None else [""] * len(labels),
            "sha256": [f"{i:064x}" for i in range(len(labels))],
            "width": 100,
            "height": 90,
            "format": "PNG",
        }
    )


def big_table(n=600) -> pd.DataFrame:
    """60, 240 and 300 images in small groups; a tenth of them in groups of several classes."""
    rng = np.random.default_rng(0)
    labels = np.repeat(["covid", "normal", "pneumonia"], [n // 10, 4 * n // 10, 5 * n // 10])
    patients = [f"{label}-{rng.integers(n // 3)}" for label in labels]
    for i in rng.choice(n, n // 10, replace=False):
        patients[i] = f"both-{rng.integers(n // 30)}"
    return make_table(labels, patients)


def check_split(manifest: pd.DataFrame, unit: str = "group_id") -> None:
    assert set(manifest["split"]) == {"train", "val", "test"}
    assert (manifest.groupby(unit)["split"].nunique() == 1).all()
    present = manifest.groupby("label")["split"].nunique()
    assert (present == 3).all(), present


@st.composite
def random_tables(draw):
    n_classes = draw(st.integers(2, 4))
    n_images = draw(st.integers(4, 80))
    n_patients = draw(st.integers(2, 60))
    labels = draw(st.lists(st.integers(0, n_classes - 1), min_size=n_images, max_size=n_images))
    patients = draw(st.lists(st.integers(0, n_patients), min_size=n_images, max_size=n_images))
    given_parts = draw(st.sampled_from([[""], ["train", "test"], ["train", "val", "test"]]))
    split_given = draw(st.lists(st.sampled_from(given_parts), min_size=n_images, max_size=n_images))
    table = make_table([f"class {c}" for c in labels], [f"p{p}" for p in patients], split_given)
    copies = draw(st.lists(st.integers(0, n_images - 1), max_size=4))
    table.loc[copies, "sha256"] = "f" * 64
    pairs = draw(
        st.lists(st.tuples(st.integers(0, n_images - 1), st.integers(0, n_images - 1)), max_size=4)
    )
    near = pd.DataFrame(
        [(table["image_id"][a], table["image_id"][b]) for a, b in pairs],
        columns=["image_id_a", "image_id_b"],
    )
    return table, near


# --- properties over random tables --------------------------------------------------------------


@PROPERTY
@given(random_tables(), st.integers(0, 5), st.sampled_from([0, 2, 3, 5, 7]), st.randoms())
def test_any_table_is_split_soundly_or_refused_in_one_sentence(drawn, seed, folds, random):
    table, near = drawn
    try:
        manifest = build_manifest(table, seed=seed, folds=folds, near_duplicates=near)
    except ManifestError as error:
        assert re.fullmatch(r"[^\n]+\.", str(error))  # noqa: PT017
        return
    assert list(manifest.columns) == MANIFEST_COLUMNS
    assert list(manifest["image_id"]) == list(table["image_id"])
    assert (manifest.groupby("group_id")["split"].nunique() == 1).all()
    assert (manifest.groupby("patient_id")["group_id"].nunique() == 1).all()
    assert (manifest.groupby("sha256")["group_id"].nunique() == 1).all()
    group = manifest.set_index("image_id")["group_id"]
    for a, b in near.itertuples(index=False):
        assert group[a] == group[b]
    # Every class can be learnt and chosen by; it can be tested unless the given test part lacks it.
    n_classes = table["label"].nunique()
    assert manifest.loc[manifest["split"] == "train", "label"].nunique() == n_classes
    was_given = table["split_given"].to_numpy()
    if not (was_given == "test").any():
        check_split(manifest)
    assert (manifest["split"][was_given == "test"] == "test").all()
    if (was_given == "test").any():
        added = (manifest["split"] == "test") & (was_given != "test")
        kept_groups = set(manifest["group_id"][was_given == "test"])
        assert set(manifest["group_id"][added]) <= kept_groups
    if folds:
        assert set(manifest["fold"]) == set(range(folds))
        assert ((manifest["fold"] == 0) == (manifest["split"] == "test")).all()
        assert (manifest.groupby("group_id")["fold"].nunique() == 1).all()
    else:
        assert manifest["fold"].isna().all()
    # The order of the rows and of the pairs is nothing.
    order = list(range(len(table)))
    random.shuffle(order)
    swapped = near.iloc[::-1].rename(
        columns={"image_id_a": "image_id_b", "image_id_b": "image_id_a"}
    )
    again = build_manifest(table.iloc[order], seed=seed, folds=folds, near_duplicates=swapped)
    assert list(again["image_id"]) == list(table["image_id"].iloc[order])
    again = again.sort_values("image_id", ignore_index=True)
    pd.testing.assert_frame_equal(again, manifest.sort_values("image_id", ignore_index=True))


@PROPERTY
@given(
    st.integers(0, 1000),
    st.lists(st.integers(60, 160), min_size=2, max_size=4),
    st.integers(1, 3),
)
def test_fractions_are_near_70_10_20_in_every_class(seed, sizes, largest):
    rng = np.random.default_rng(seed)
    labels, patients = [], []
    for c, size in enumerate(sizes):
        left = size
        while left:
            k = min(left, int(rng.integers(1, largest + 1)))
            labels += [f"class {c}"] * k
            patients += [f"{c}-{left}"] * k
            left -= k
    manifest = build_manifest(make_table(labels, patients), seed=seed, folds=5)
    check_split(manifest)
    share = pd.crosstab(manifest["label"], manifest["split"], normalize="index")
    assert (share["test"] - 0.20).abs().max() < 0.05
    assert (share["val"] - 0.10).abs().max() < 0.05
    assert (share["train"] - 0.70).abs().max() < 0.06
    folds = pd.crosstab(manifest["label"], manifest["fold"], normalize="index")
    assert (folds - 0.20).abs().max(axis=None) < 0.05


@pytest.mark.parametrize("n_groups", [3, 4, 5, 6])
@PROPERTY
@given(st.integers(0, 200), st.integers(1, 3), st.integers(3, 60))
def test_a_class_of_a_few_patients_is_in_every_part(n_groups, seed, each, others):
    labels = ["covid"] * (n_groups * each) + ["normal"] * others
    patients = [f"c{i // each}" for i in range(n_groups * each)]
    patients += [f"n{i}" for i in range(others)]
    check_split(build_manifest(make_table(labels, patients), seed=seed))


# --- the rules one by one -----------------------------------------------------------------------


def test_the_seed_decides_and_nothing_else():
    table = big_table()
    first = build_manifest(table, seed=3, folds=5)
    assert first.equals(build_manifest(table.copy(), seed=3, folds=5))
    assert not first["split"].equals(build_manifest(table, seed=4)["split"])
    # Asking for folds does not change the split, and neither does their number.
    for folds in (0, 2, 3, 10):
        assert first["split"].equals(build_manifest(table, seed=3, folds=folds)["split"])


def test_rows_come_back_in_the_order_of_the_table():
    table = make_table(["a", "b"] * 10)[::-1]
    manifest = build_manifest(table, seed=0)
    assert list(manifest["image_id"]) == list(table["image_id"])
    assert list(manifest["label"]) == list(table["label"])


def test_a_patient_with_both_classes_stays_on_one_side():
    manifest = build_manifest(big_table(), seed=0, folds=5)
    both = manifest[manifest["patient_id"].str.startswith("both")]
    mixed = both.groupby("patient_id")["label"].nunique() > 1
    assert mixed.sum() > 5
    assert (both.groupby("patient_id")["split"].nunique() == 1).all()
    assert (both.groupby("patient_id")["fold"].nunique() == 1).all()
    check_split(manifest)


def test_groups_are_patients_joined_by_files_and_pairs():
    table = make_table(["a", "b"] * 10, [f"p{i // 2:02d}" for i in range(20)])
    table.loc[[4, 9], "sha256"] = "same"  # joins p02 and p04
    near = pd.DataFrame(
        {
            "image_id_a": ["image_0018", "image_0012", "image_0000"],
            "image_id_b": ["image_0012", "image_0008", "not in the table"],
        }
    )  # joins p09 and p06, then p06 and p04
    group = build_manifest(table, seed=0, near_duplicates=near).set_index("patient_id")["group_id"]
    assert set(group[["p02", "p04", "p06", "p09"]]) == {"p02"}
    rest = group.drop(["p02", "p04", "p06", "p09"])
    assert (rest == rest.index).all()


def test_missing_hashes_join_nothing():
    table = make_table(["a", "b"] * 10).drop(columns=["sha256", "width"])
    manifest = build_manifest(table, seed=0)
    assert manifest["group_id"].nunique() == 20
    assert list(manifest.columns) == MANIFEST_COLUMNS and (manifest["sha256"] == "").all()


def test_a_given_test_part_is_kept_and_val_comes_from_train():
    labels = ["a", "b"] * 100
    part = ["test" if i < 40 else "train" for i in range(200)]
    manifest = build_manifest(make_table(labels, split_given=part), seed=0, folds=5)
    assert list(manifest["split"] == "test") == [p == "test" for p in part]
    assert (manifest["split"] == "val").sum() == 20
    assert ((manifest["fold"] == 0) == (manifest["split"] == "test")).all()
    part = ["test" if i < 40 else "val" if i < 90 else "train" for i in range(200)]
    manifest = build_manifest(make_table(labels, split_given=part), seed=0)
    assert list(manifest["split"]) == part
    part = ["val" if i < 50 else "" for i in range(200)]
    manifest = build_manifest(make_table(labels, split_given=part), seed=0)
    assert list(manifest["split"] == "val") == [p == "val" for p in part]
    assert (manifest["split"] == "test").sum() == 30


def test_a_given_test_part_that_shares_a_patient_takes_the_patient_along():
    labels = ["a", "b"] * 100
    part = ["test" if i < 40 else "train" for i in range(200)]
    patients = [f"p{i}" for i in range(200)]
    patients[150] = "p3"
    manifest = build_manifest(make_table(labels, patients, part), seed=0)
    assert manifest["split"][150] == "test"
    assert (manifest["split"] == "test").sum() == 41
    # Without grouping the shipped split is kept to the letter.
    manifest = build_manifest(make_table(labels, patients, part), seed=0, split="random")
    assert (manifest["split"] == "test").sum() == 40


def test_a_random_split_parts_patients_and_says_who_they_are():
    table = big_table()
    grouped = build_manifest(table, seed=0)
    manifest = build_manifest(table, seed=0, split="random")
    assert (manifest["group_id"] == grouped["group_id"]).all()
    assert (manifest.groupby("group_id")["split"].nunique() > 1).any()
    check_split(manifest, unit="image_id")
    share = pd.crosstab(manifest["label"], manifest["split"], normalize="index")
    assert (share["test"] - 0.2).abs().max() < 0.02


@pytest.mark.parametrize(
    ("table", "options", "words"),
    [
        (make_table([]), {}, "no images"),
        (make_table(["a"] * 30), {}, "at least two classes"),
        (make_table(["a"] * 30 + ["b"] * 2), {}, "'b' has 2 groups .* at least 3"),
        (make_table(["a", "b"] * 9, ["x"] * 18), {}, "'a' has 1 groups"),
        (make_table(["a", "b"] * 9, [f"p{i // 6}" for i in range(18)]), {"folds": 5}, "5 folds"),
        (make_table(["a", "b"] * 9, split_given=["test"] * 18), {}, "'a' has 0 groups"),
        (make_table(["a", "b"] * 9, split_given=["dev"] * 18), {}, "Received: 'dev'"),
        (make_table(["a", "b"] * 9), {"split": "patient"}, "Received: 'patient'"),
        (make_table(["a", "b"] * 9), {"folds": 1}, "Received: 1"),
        (make_table(["a", "b"] * 9), {"folds": 30}, "30 folds"),
        (make_table(["a", "b"] * 9, [""] * 18), {}, "18 of 18 images have no patient_id"),
        (make_table(["a", "b"] * 9).drop(columns="label"), {}, "lacks the columns label"),
        (pd.concat([make_table(["a", "b"] * 9)] * 2), {}, "'image_0000' occurs twice"),
    ],
)
def test_what_cannot_be_split_is_one_sentence(table, options, words):
    with pytest.raises(ManifestError, match=words) as caught:
        build_manifest(table, seed=0, **options)
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_missing_values_in_the_table_are_told_apart():
    table = make_table(["a", "b"] * 9)
    table["split_given"] = None
    check_split(build_manifest(table, seed=0))
    table.loc[3, "label"] = None
    with pytest.raises(ManifestError, match="1 of 18 images have no label"):
        build_manifest(table, seed=0)


def test_fingerprint_is_of_the_content_and_not_of_the_order():
    manifest = build_manifest(make_table(["a", "b"] * 9), seed=0)
    first = fingerprint(manifest)
    assert re.fullmatch("[0-9a-f]{64}", first)
    assert fingerprint(manifest[::-1]) == first
    assert fingerprint(manifest.assign(split="x", path="y")) == first
    for column in ("image_id", "sha256", "label"):
        changed = manifest.copy()
        changed.loc[4, column] = "other"
        assert fingerprint(changed) != first
    # Letters that move from one column to the next make another table.
    moved = manifest.copy()
    moved["image_id"] += "x"
    glued = manifest.copy()
    glued["sha256"] = "x" + glued["sha256"]
    assert fingerprint(moved) != fingerprint(glued)


# --- duplicates ---------------------------------------------------------------------------------


def chests(n: int, size=128) -> np.ndarray:
    """Pictures alike in the large (one shape for all) and different in the detail."""
    rng = np.random.default_rng(5)
    x, y = np.meshgrid(np.linspace(-1, 1, size), np.linspace(-1, 1, size))
    shape = 150 - 90 * np.exp(-((np.abs(x) - 0.45) ** 2 * 12 + y**2 * 2))
    detail = gaussian_filter(rng.normal(size=(n, size, size)), (0, 2, 2)) * 60
    return np.clip(shape + detail, 0, 255).astype(np.uint8)


def pairs_of(found: pd.DataFrame) -> dict:
    return {(a, b): kind for a, b, kind, _ in found.itertuples(index=False)}


def test_alike_in_the_large_is_not_a_duplicate():
    pixels = chests(60)
    small = np.stack([Image.fromarray(p).resize((16, 16), Image.Resampling.BOX) for p in pixels])
    assert np.corrcoef(small.reshape(60, -1))[np.triu_indices(60, 1)].min() > 0.9
    found = find_duplicates(pixels, [str(i) for i in range(60)])
    assert found.empty
    assert list(found.columns) == ["image_id_a", "image_id_b", "kind", "correlation"]


def test_copies_exposures_and_recompressed_pictures_are_found():
    pixels = chests(40)
    pixels[7] = pixels[3]
    pixels[30] = pixels[3]
    pixels[11] = np.clip(pixels[10] * 0.7 + 40, 0, 255).astype(np.uint8)  # exposure
    small = Image.fromarray(pixels[20]).resize((90, 90))  # sampled down and up again
    pixels[21] = np.asarray(small.resize((128, 128)))
    pixels[25] = np.roll(pixels[24], 1, axis=1)
    names = [f"n{i:02d}" for i in range(40)]
    found = find_duplicates(pixels, names)
    assert pairs_of(found) == {
        ("n03", "n07"): "exact",
        ("n03", "n30"): "exact",
        ("n10", "n11"): "near",
        ("n20", "n21"): "near",
        ("n24", "n25"): "near",
    }
    assert (found["correlation"] <= 1).all() and found["correlation"].is_monotonic_decreasing


def test_pairs_far_apart_are_found_across_blocks():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2200, 16, 16), dtype=np.uint8)
    for a, b in ((3, 2100), (1023, 1024), (1500, 2199)):
        pixels[b] = np.clip(pixels[a].astype(int) + 1, 0, 255)
    found = find_duplicates(pixels, [str(i) for i in range(2200)])
    assert set(pairs_of(found)) == {("3", "2100"), ("1023", "1024"), ("1500", "2199")}


def test_flat_pictures_are_only_exact_duplicates():
    pixels = np.stack([np.full((64, 64), v, np.uint8) for v in (0, 0, 90, 255)])
    assert pairs_of(find_duplicates(pixels, list("abcd"))) == {("a", "b"): "exact"}


def test_few_pictures_and_wrong_shapes():
    assert find_duplicates(chests(1), ["a"]).empty
    assert find_duplicates(np.zeros((0, 64, 64), np.uint8), []).empty
    for pixels, ids in ((chests(2), ["a"]), (chests(2)[0], ["a"]), (chests(2)[:, :9, :9], "ab")):
        with pytest.raises(ManifestError, match="were expected"):
            find_duplicates(pixels, list(ids))


# --- the real data set --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def darkcovidnet(tmp_path_factory):
    root = data_root() / "darkcovidnet"
    if not (root / "metadata.csv").is_file():
        pytest.skip(f"darkcovidnet is not in {data_root()}; set CXR_DATA to the folder that has it")
    table = pd.read_csv(root / "metadata.csv")
    table["image_id"] = table["path"].str.rsplit(".", n=1).str[0]
    table["original_label"] = table["label"]
    table["split_given"] = ""
    return build_pixel_cache(table, root, tmp_path_factory.mktemp("cache"), [112, 224])


@pytest.mark.parametrize("size_px", [112, 224])
def test_darkcovidnet_has_its_two_known_pairs_and_no_other(darkcovidnet, size_px):
    started = time.perf_counter()
    found = find_duplicates(darkcovidnet.pixels(size_px), darkcovidnet.table["image_id"])
    assert time.perf_counter() - started < 10
    short = {(a.split("/")[1][:12], b.split("/")[1][:12]) for a, b in pairs_of(found)}
    assert short == {("00002658_001", "00002658_002"), ("E63574A7-418", "F4341CE7-73C")}


def test_darkcovidnet_is_split_by_patient(darkcovidnet):
    assert darkcovidnet.skipped.empty and len(darkcovidnet.table) == 1124
    found = find_duplicates(darkcovidnet.pixels(112), darkcovidnet.table["image_id"])
    manifest = build_manifest(darkcovidnet.table, seed=0, folds=5, near_duplicates=found)
    check_split(manifest)
    assert manifest["patient_id"].nunique() == 764
    counts = pd.crosstab(manifest["label"], manifest["split"], normalize="index")
    assert (counts["test"] - 0.2).abs().max() < 0.02
    assert (counts["val"] - 0.1).abs().max() < 0.02
    shared = manifest.groupby("patient_id")["label"].nunique() > 1
    assert shared.sum() == 21
