"""Groups of test images: who is in them, their figures, and columns that give the class away."""

import json

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score, recall_score
from sklearn.model_selection import LeaveOneGroupOut

from core.config import data_root
from core.datasets.extra_tables import find_extra_table
from core.datasets.folder import load_table
from core.datasets.registry import describe_folder
from core.datasets.subgroup_columns import UNKNOWN, GroupingError, list_columns
from core.evaluation.audit.subgroups import (
    GIVES_AWAY,
    SubgroupsError,
    compute_subgroups,
    separate_classes,
)
from core.metrics.intervals import bootstrap_intervals, wilson_interval
from core.runs import artifacts
from tests.support.runs import CLASS_NAMES, make_run

PROPERTY = settings(max_examples=40, deadline=None, derandomize=True)
MODELS = ("cnn", "resnet50", "mobilenetv2")


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """100 patients of each class, two images each; 20 patients of each class are in test."""
    folder = tmp_path_factory.mktemp("runs")
    return artifacts.open_run(make_run(folder, n=600, images=False))


@pytest.fixture(scope="module")
def manifest(run):
    return artifacts.load_manifest(run)


def subgroups(run, table=None, **options):
    predictions = {model: artifacts.load_predictions(run, model) for model in run.models}
    return compute_subgroups(run, table, predictions, 0, **({"draws": 200} | options))


def listing(manifest, **columns) -> pd.DataFrame:
    return manifest[["image_id"]].assign(**columns)


def columns_of(section) -> dict:
    return {column["column"]: column for column in section["columns"]}


def groups_of(column) -> dict:
    return {group["value"]: group for group in column["groups"]}


def by_patient(manifest, names, seed=0) -> np.ndarray:
    """One of names for each patient at random, so that no class is told by it."""
    patients = sorted(set(manifest["patient_id"]))
    chosen = np.random.default_rng(seed).choice(names, len(patients))
    return manifest["patient_id"].map(dict(zip(patients, chosen, strict=True))).to_numpy()


# --- faults planted in a clean set ----------------------------------------------------------------


def test_a_clean_set_of_phantoms_has_nothing_to_part_it(demo_root):
    run = artifacts.open_run(demo_root / "artifacts" / "demo")
    root = demo_root / "data" / "phantom"
    section = subgroups(run, load_table(describe_folder(root), root))
    assert section["columns"] == []
    assert {row["column"] for row in section["left_out"]} == {"size", "format", "synthetic"}
    json.dumps(section, allow_nan=False)


def test_a_column_that_has_nothing_to_do_with_the_class_keeps_its_accuracies(run, manifest):
    column = columns_of(subgroups(run, listing(manifest, sex=by_patient(manifest, ["F", "M"]))))[
        "sex"
    ]
    assert not column["gives_class_away"] and column["why"] == ""
    assert max(column["told"].values()) < 0.6
    assert set(groups_of(column)) == {"F", "M"}
    for group in column["groups"]:
        assert not group["small"]
        for row in group["models"].values():
            assert 0 < row["accuracy"]["low"] <= row["accuracy"]["value"] <= row["accuracy"]["high"]


PLANTED = {
    "original_size": lambda covid: {
        "original_width": "700", "original_height": np.where(covid, "900", "1100"),
    },
    "original_format": lambda covid: {"original_format": np.where(covid, "JPEG", "PNG")},
    "source": lambda covid: {"source": np.where(covid, "here", "there")},
    "view": lambda covid: {"view": np.where(covid, "PA", "")},
}  # fmt: skip


@pytest.mark.parametrize("name", PLANTED)
def test_a_class_given_away_is_found_and_only_sensitivity_is_shown(run, manifest, name):
    covid = (manifest["label"] == "covid").to_numpy()
    site = by_patient(manifest, ["A", "B"])
    section = subgroups(run, listing(manifest, **PLANTED[name](covid), site=site))
    column = columns_of(section)[name]
    assert column["gives_class_away"] and column["told"]["covid"] == 1
    assert "covid is told from the others with a balanced accuracy of 100\u202f%" in column["why"]
    assert column["why"].startswith(f"{column['title']} gives the class away")
    assert [set(group["classes"]) for group in column["groups"]] == [
        {"normal", "pneumonia"}, {"covid"},
    ] or [set(group["classes"]) for group in column["groups"]] == [
        {"covid"}, {"normal", "pneumonia"},
    ]  # fmt: skip
    for group in column["groups"]:
        for row in group["models"].values():
            assert row["accuracy"] is None
            assert set(row["sensitivity"]) == set(group["classes"])
    assert not columns_of(section)["site"]["gives_class_away"]


def test_a_class_given_away_in_most_images_is_found(run, manifest):
    """As darkcovidnet's formats do: most covid files are JPEG, and nothing else is."""
    covid = (manifest["label"] == "covid").to_numpy()
    some = covid & (np.arange(len(covid)) % 5 > 0)
    column = columns_of(subgroups(run, listing(manifest, camera=np.where(some, "x", "y"))))[
        "camera"
    ]
    assert column["gives_class_away"] and 0.88 < column["told"]["covid"] < 0.92


def test_where_one_group_only_has_one_class_its_accuracy_alone_is_left_out(run, manifest):
    test = (manifest["split"] == "test").to_numpy()
    few = test & (manifest["label"] == "covid").to_numpy() & (np.arange(len(test)) % 4 < 2)
    column = columns_of(subgroups(run, listing(manifest, ward=np.where(few, "ICU", "other"))))[
        "ward"
    ]
    assert not column["gives_class_away"]
    assert column["why"] == (
        "All test images of one class in: ICU; accuracy there would be that class's sensitivity "
        "and is left out."
    )
    icu, other = groups_of(column)["ICU"], groups_of(column)["other"]
    assert all(row["accuracy"] is None for row in icu["models"].values())
    assert all(row["accuracy"] is not None for row in other["models"].values())
    assert set(icu["models"]["cnn"]["sensitivity"]) == {"covid"}


# --- figures --------------------------------------------------------------------------------------


def test_figures_of_a_group_are_those_of_its_images_alone(run, manifest):
    site = by_patient(manifest, ["A", "B"])  # so that hardly a draw misses a class
    section = subgroups(run, listing(manifest, site=site))
    groups = groups_of(columns_of(section)["site"])
    of_image = dict(zip(manifest["image_id"], site, strict=True))
    patient = manifest.set_index("image_id")["patient_id"]
    for model in MODELS:
        rows = artifacts.load_predictions(run, model)
        for value in ("A", "B"):
            mine = rows[rows["image_id"].map(of_image) == value]
            groups_here = patient[mine["image_id"]].to_numpy()
            got = groups[value]["models"][model]
            assert groups[value]["n"] == len(mine)
            assert groups[value]["n_patients"] == len(set(groups_here))
            assert got["accuracy"]["value"] == accuracy_score(mine["label"], mine["predicted"])
            recalls = recall_score(
                mine["label"], mine["predicted"], labels=CLASS_NAMES, average=None
            )
            y_true = mine["label"].map(CLASS_NAMES.index).to_numpy()
            y_prob = mine[[f"p_{name}" for name in CLASS_NAMES]].to_numpy()
            intervals = bootstrap_intervals(
                y_true, y_prob, groups_here, CLASS_NAMES, draws=200, seed=0
            )
            check_bounds(got["accuracy"], intervals["accuracy"])
            for name, recall in zip(CLASS_NAMES, recalls, strict=True):
                sensitivity = got["sensitivity"][name]
                assert sensitivity["value"] == recall
                assert sensitivity["n"] == (mine["label"] == name).sum()
                assert sensitivity["n_patients"] == len(set(groups_here[mine["label"] == name]))
                check_bounds(sensitivity, intervals[f"recall.{name}"])


def check_bounds(row, interval):
    if interval["low"] == interval["high"]:  # all patients alike: wider here
        assert row["low"] < interval["low"] and interval["high"] < row["high"]
        return
    assert row["low"] == pytest.approx(interval["low"], abs=1e-12)
    assert row["high"] == pytest.approx(interval["high"], abs=1e-12)


def test_intervals_are_those_of_drawing_patients_one_by_one(run, manifest):
    """A bootstrap written out as a loop over drawn patients, with other random numbers."""
    site = by_patient(manifest, ["A", "B"])
    section = subgroups(run, listing(manifest, site=site), draws=4000)
    row = groups_of(columns_of(section)["site"])["A"]["models"]["cnn"]
    rows = artifacts.load_predictions(run, "cnn").merge(manifest[["image_id", "patient_id"]])
    rows = rows[rows["image_id"].map(dict(zip(manifest["image_id"], site, strict=True))) == "A"]
    right = (rows["label"] == rows["predicted"]).to_numpy()
    covid = (rows["label"] == "covid").to_numpy()
    patients = sorted(set(rows["patient_id"]))
    images = [np.flatnonzero(rows["patient_id"] == name) for name in patients]
    rng = np.random.default_rng(99)
    drawn = []
    for _ in range(4000):
        chosen = np.concatenate([images[k] for k in rng.integers(0, len(images), len(images))])
        if covid[chosen].any():
            drawn.append((right[chosen].mean(), right[chosen][covid[chosen]].mean()))
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    for k, got in enumerate((row["accuracy"], row["sensitivity"]["covid"])):
        assert got["low"] == pytest.approx(low[k], abs=0.03)
        assert got["high"] == pytest.approx(high[k], abs=0.03)


def one_model(run, wrong_patients=()):
    """Predictions that are right but for the patients named."""
    rows = artifacts.load_predictions(run, "cnn")
    patient = artifacts.load_manifest(run).set_index("image_id")["patient_id"]
    wrong = patient[rows["image_id"]].isin(wrong_patients).to_numpy()
    other = {"covid": "normal", "normal": "pneumonia", "pneumonia": "covid"}
    rows["predicted"] = np.where(wrong, rows["label"].map(other), rows["label"])
    for name in CLASS_NAMES:
        rows[f"p_{name}"] = np.where(rows["predicted"] == name, 0.8, 0.1)
    return {"cnn": rows}


def test_small_groups_are_marked_and_extremes_have_wilson_intervals(run, manifest):
    tested = manifest[manifest["split"] == "test"]
    patients = list(dict.fromkeys(tested["patient_id"]))
    ward = {p: "19" if k < 19 else "20" if k < 39 else "rest" for k, p in enumerate(patients)}
    ward[patients[-1]] = "one"
    table = listing(manifest, ward=manifest["patient_id"].map(ward).fillna(""))
    wrong = [patients[-1]]
    section = compute_subgroups(run, table, one_model(run, wrong), 0, draws=200)
    groups = groups_of(columns_of(section)["ward"])
    assert {value: group["small"] for value, group in groups.items()} == {
        "19": True, "20": False, "rest": False, "one": True,
    }  # fmt: skip
    assert section["min_n"] == 20
    right = groups["20"]["models"]["cnn"]
    assert right["accuracy"] is not None  # patients of two classes
    assert (right["accuracy"]["low"], right["accuracy"]["high"]) == wilson_interval(20, 20)
    for row in right["sensitivity"].values():
        assert (row["low"], row["high"]) == wilson_interval(row["n_patients"], row["n_patients"])
    one = groups["one"]["models"]["cnn"]["sensitivity"]["pneumonia"]
    assert (one["value"], one["low"], one["high"]) == (0, *wilson_interval(0, 1))


def test_a_patient_half_right_has_no_interval_and_two_such_have_a_wide_one(run, manifest):
    tested = manifest[(manifest["split"] == "test") & (manifest["label"] == "covid")]
    patients = sorted(set(tested["patient_id"]))[:3]
    predictions = one_model(run)
    rows = predictions["cnn"]
    first = rows["image_id"].isin([f"covid/{patient}_0" for patient in patients]).to_numpy()
    rows.loc[first, ["predicted", "p_covid", "p_normal"]] = ["normal", 0.1, 0.8]
    ward = manifest["patient_id"].map({patients[0]: "one", patients[1]: "two", patients[2]: "two"})
    section = compute_subgroups(run, listing(manifest, ward=ward), predictions, 0, draws=200)
    groups = groups_of(columns_of(section)["ward"])
    row = groups["one"]["models"]["cnn"]["sensitivity"]["covid"]
    assert (row["value"], row["low"], row["high"]) == (0.5, None, None)
    row = groups["two"]["models"]["cnn"]["sensitivity"]["covid"]
    assert (row["low"], row["high"]) == wilson_interval(1, 2)


def test_the_order_of_rows_does_not_matter(run, manifest):
    table = listing(manifest, site=by_patient(manifest, ["A", "B"]))
    predictions = {model: artifacts.load_predictions(run, model) for model in MODELS}
    shuffled = {m: rows.sample(frac=1, random_state=3) for m, rows in predictions.items()}
    before = compute_subgroups(run, table, predictions, 0, draws=50)
    stranger = pd.DataFrame({"image_id": ["not in the run"], "site": ["C"]})
    table = pd.concat([stranger, table, table[:5]]).sample(frac=1, random_state=4)
    assert compute_subgroups(run, table, shuffled, 0, draws=50) == before


# --- which columns make groups --------------------------------------------------------------------


def small_manifest(n=6, **columns) -> pd.DataFrame:
    table = {"image_id": [f"i{k}" for k in range(n)], "label": ["covid", "normal"] * (n // 2)}
    return pd.DataFrame(table | {"width": 300.0, "height": 200.0, "format": "PNG"} | columns)


def names(manifest, table=None) -> list:
    return [column.name for column in list_columns(manifest, table)[0]]


def test_source_and_view_come_first_and_originals_before_files():
    table = pd.DataFrame(
        {
            "image_id": [f"i{k}" for k in range(6)],
            "scanner": list("xxxyyy"),
            "original_width": ["1024"] * 5 + [""],
            "original_height": ["900"] * 5 + [""],
            "original_format": ["PNG"] * 3 + ["JPEG"] * 3,
            "View": ["PA", "AP", "", "PA", "AP", ""],
            "source": list("aabbbb"),
        }
    )
    assert names(small_manifest(), table) == [
        "source", "View", "original_size", "original_format", "scanner",
    ]  # fmt: skip
    assert names(small_manifest()) == ["size", "format"]
    columns = {column.name: column for column in list_columns(small_manifest(), table)[0]}
    assert list(columns["View"].values) == ["PA", "AP", UNKNOWN] * 2
    assert list(columns["original_size"].values) == ["513 to 1024 px"] * 5 + [UNKNOWN]
    unknown = table.assign(original_width="", original_height="", original_format="")
    assert "size" in names(small_manifest(), unknown) and "format" in names(
        small_manifest(), unknown
    )


def test_the_longest_side_falls_into_bands():
    manifest = small_manifest(
        width=[512.0, 100, 1025, np.nan, 2049, 2048], height=[1.0, 513, 7, np.nan, 7, np.nan]
    )
    (size, _), _ = list_columns(manifest, None)
    assert list(size.values) == [
        "up to 512 px", "513 to 1024 px", "1025 to 2048 px", UNKNOWN, "over 2048 px",
        "1025 to 2048 px",
    ]  # fmt: skip


def test_bands_are_shown_in_their_order_and_the_unknown_last(run, manifest):
    numbers = by_patient(manifest, ["3000", "400", "", "900"])
    table = listing(manifest, original_width=numbers, original_height=numbers)
    column = columns_of(subgroups(run, table))["original_size"]
    assert [group["value"] for group in column["groups"]] == [
        "up to 512 px", "513 to 1024 px", "over 2048 px", UNKNOWN,
    ]  # fmt: skip
    table = listing(manifest, site=by_patient(manifest, ["A", "B", "B", "B", ""]))
    column = columns_of(subgroups(run, table))["site"]
    assert [group["value"] for group in column["groups"]] == ["B", "A", UNKNOWN]


def test_ages_of_many_values_fall_into_bands_and_other_numbers_do_not():
    n = 40
    manifest = small_manifest(n, width=300.0)
    ages = [f"{2 * k:03d}Y" for k in range(n)]
    table = listing(manifest, patient_age=ages, weight=ages, age_group=["a", "b"] * (n // 2))
    found = {column.name: column for column in list_columns(manifest, table)[0]}
    assert "weight" not in found and set(found["age_group"].values) == {"a", "b"}
    band = dict(zip(ages, found["patient_age"].values, strict=True))
    assert (band["016Y"], band["018Y"]) == ("under 18", "18 to 39")
    assert (band["040Y"], band["064Y"], band["066Y"]) == ("40 to 64", "40 to 64", "65 and over")


def test_what_is_left_out_has_its_reason():
    n = 30
    manifest = small_manifest(n)
    many = [str(k) for k in range(n)]
    table = listing(
        manifest,
        study_id=["a", "b"] * 15,
        License=["CC BY", "CC BY-NC"] * 15,
        doi=["10.1/x", ""] * 15,
        original_file=many,
        city=many,
        twelve=[str(k % 12) for k in range(n)],
        thirteen=[str(k % 13) for k in range(n)],
        hospital="one",
        label=["covid", "normal"] * 15,
        metadata_split=["train", "test"] * 15,
    )
    found, left_out = list_columns(manifest, table)
    assert [column.name for column in found] == ["size", "format", "twelve"]
    reasons = {row["column"]: row["reason"] for row in left_out}
    assert set(reasons) == {
        "study_id", "License", "doi", "original_file", "city", "thirteen", "hospital",
    }  # fmt: skip
    assert reasons["city"] == "30 different values; 2 to 12 make groups"
    assert reasons["hospital"] == "all images have one value (one)"
    assert reasons["doi"] == "it names images or their files, not groups of them"


# --- the rule for giving the class away -----------------------------------------------------------


def told_by_leaving_out(values, labels, patients, name) -> float:
    """The same rule with scikit-learn's LeaveOneGroupOut and its balanced accuracy."""
    is_class = np.asarray(labels) == name
    called = np.zeros(len(is_class), dtype=bool)
    for rest, left in LeaveOneGroupOut().split(values, groups=patients):
        for i in left:
            alike = values[rest] == values[i]
            mine, others = is_class[rest], ~is_class[rest]
            if mine.any() and others.any():
                called[i] = alike[mine].mean() > alike[others].mean() + 1e-12
    return balanced_accuracy_score(is_class, called)


@PROPERTY
@given(
    st.lists(
        st.tuples(st.sampled_from("abc"), st.sampled_from(CLASS_NAMES), st.integers(0, 8)),
        min_size=2,
        max_size=40,
    ),
    st.randoms(),
)
def test_telling_classes_agrees_with_leaving_each_patient_out(rows, random):
    values, labels, patients = (np.array(list(side)) for side in zip(*rows, strict=True))
    told = separate_classes(values, labels, patients, CLASS_NAMES)
    present = set(labels)
    assert set(told) == (present if len(present) > 1 else set())
    if len(set(patients)) > 1:
        for name, share in told.items():
            expected = told_by_leaving_out(values, labels, patients, name)
            assert share == pytest.approx(expected)
    order = list(range(len(rows)))
    random.shuffle(order)
    again = separate_classes(values[order], labels[order], patients[order], CLASS_NAMES)
    assert again == pytest.approx(told)


@PROPERTY
@given(st.integers(0, 10_000), st.integers(2, 12))
def test_a_column_drawn_by_lot_gives_nothing_away(seed, n_values):
    rng = np.random.default_rng(seed)
    labels = rng.choice(CLASS_NAMES, 300, p=[0.1, 0.45, 0.45])
    told = separate_classes(rng.integers(0, n_values, 300), labels, np.arange(300), CLASS_NAMES)
    assert max(told.values()) < GIVES_AWAY


def test_a_patients_own_images_do_not_speak_for_each_other():
    """Each patient has a value of his own: it would tell all within patients, and tells nothing."""
    patients = np.repeat(np.arange(12), 5)
    labels = np.array(["covid", "normal"])[patients % 2]
    told = separate_classes(patients, labels, patients, ["covid", "normal"])
    assert told == {"covid": 0.5, "normal": 0.5}
    told = separate_classes(labels, labels, patients, ["covid", "normal", "pneumonia"])
    assert told == {"covid": 1, "normal": 1}


# --- what cannot be used, speed, the real data set ------------------------------------------------


def test_what_cannot_be_used_is_one_sentence(run, manifest):
    with pytest.raises(GroupingError, match="no column image_id"):
        subgroups(run, pd.DataFrame({"path": ["x"]}))
    with pytest.raises(SubgroupsError, match="at least one model"):
        compute_subgroups(run, None, {}, 0)
    predictions = {model: artifacts.load_predictions(run, model) for model in MODELS}
    less = predictions | {"resnet50": predictions["resnet50"].iloc[1:]}
    with pytest.raises(SubgroupsError, match="resnet50 are not of the same images"):
        compute_subgroups(run, None, less, 0)
    renamed = {"cnn": predictions["cnn"].assign(image_id=lambda t: t["image_id"] + "x")}
    with pytest.raises(SubgroupsError, match="lacks 120 of the 120"):
        compute_subgroups(run, None, renamed, 0)


def test_a_column_that_has_one_value_in_test_is_left_out(run, manifest):
    era = np.where(manifest["split"] == "test", "new", "old")
    section = subgroups(run, listing(manifest, era=era))
    assert "era" not in columns_of(section)
    assert {"column": "era", "reason": "all test images are in one group (new)"} in section[
        "left_out"
    ]


def test_many_columns_of_many_groups(run, manifest):
    table = listing(
        manifest, **{f"c{k}": by_patient(manifest, list("abcdefgh"), k) for k in range(12)}
    )
    predictions = {model: artifacts.load_predictions(run, model) for model in MODELS}
    predictions["ensemble"] = predictions["cnn"]
    section = compute_subgroups(run, table, predictions, 0)
    assert len(section["columns"]) == 12
    json.dumps(section, allow_nan=False)


def test_darkcovidnets_files_give_covid_away_and_its_patients_do_not():
    root = data_root() / "darkcovidnet"
    if not (root / "metadata.csv").is_file():
        pytest.skip(f"darkcovidnet is not in {data_root()}; set CXR_DATA to the folder that has it")
    if find_extra_table(root, "clinical.csv") is None:
        pytest.skip("darkcovidnet's clinical.csv is not beside it (darkcovidnet-extra)")
    table = load_table(describe_folder(root), root)
    columns, left_out = list_columns(table[["image_id", "label"]], table)
    files = ["source", "original_size", "original_format", "original_mode"]
    spacing = ["spacing_x_mm", "spacing_y_mm"]  # known of NIH's images alone
    people = ["view", "age_years", "sex"]
    assert {column.name for column in columns} == {*files, *spacing, *people}
    assert {row["column"] for row in left_out} == {
        *("original_file", "license", "doi", "follow_up", "nih_findings"),
        *("detector_width_px", "detector_height_px"),
    }
    for column in columns:
        told = separate_classes(column.values, table["label"], table["patient_id"], CLASS_NAMES)
        assert (told["covid"] > 0.8) == (column.name not in people), column.name
        assert (max(told["normal"], told["pneumonia"]) < 0.65) == (column.name not in spacing)
