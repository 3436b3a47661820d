"""External validation: what is left out, what is said, and figures held against other sources."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import f1_score, precision_score, recall_score, roc_auc_score
from statsmodels.stats.proportion import confint_proportions_2indep, proportion_confint

from core.__main__ import main
from core.datasets.image_matching import SIDE_PX
from core.datasets.phantom.generate import make_phantom
from core.datasets.registry import Dataset, DatasetError, describe_folder
from core.evaluation.external.dataset import ExternalError, name_external
from core.evaluation.external.evaluate import ExternalSet, evaluate_external
from core.evaluation.external.overlap import (
    DUPLICATE,
    LEARNED,
    SAME_PATIENT,
    TEST,
    ImageSet,
    Match,
    feature_steps,
    find_overlap,
)
from core.evaluation.external.scoring import (
    ScoredImages,
    accuracy_with_overlap,
    compare_with_test_split,
    count_findings,
    score_external,
)
from core.evaluation.scoring import predictions_table
from core.imageio.decode import resize_square
from core.inference.ensemble import open_models
from core.runs import additions, artifacts
from core.runs.run import Run
from tests.support.files import write_metadata
from tests.support.predictions import NAMES, sample
from tests.support.runs import make_run


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 30 images with an ensemble; never written to."""
    root = tmp_path_factory.mktemp("external")
    make_run(
        root / "artifacts", models=("cnn", "resnet50"), n=30, tiny_openvino=True, ensemble=True
    )
    return root


@pytest.fixture
def root(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it where the commands look, and an empty folder `far`."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    (tmp_path / "far").mkdir()
    monkeypatch.setenv("CXR_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("CXR_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("CXR_CACHE", str(tmp_path / "cache"))
    # Whole frames are enough for most tests; those about cropped copies take `features` too.
    monkeypatch.setattr("core.evaluation.external.overlap.MOST_PAIRS", 0)
    return tmp_path


@pytest.fixture
def features(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("core.evaluation.external.overlap.MOST_PAIRS", 10_000)


def the_run(root: Path) -> Run:
    return artifacts.open_run(root / "artifacts" / "demo")


def draw(path: Path, label: str, patient: int) -> Path:
    """A phantom of a patient that the run does not have."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = make_phantom(label, seed=500 + patient, size_px=112, patient=500 + patient).pixels
    Image.fromarray(pixels).save(path)
    return path


def draw_set(folder: Path, *labels: str, each: int = 4) -> Path:
    """One folder a class with `each` pictures; labels as they might be written."""
    for number, label in enumerate(labels):
        plain = next((name for name in NAMES if name in label.lower()), "normal")
        for k in range(each):
            draw(folder / label / f"{plain}-{k}.png", plain, 20 * number + k)
    return folder


def train_image(root: Path, label: str = "covid", split: str = "train") -> Path:
    manifest = artifacts.load_manifest(the_run(root))
    rows = manifest[(manifest["split"] == split) & (manifest["label"] == label)]
    return root / "data" / "phantom" / rows["path"].iloc[0]


def evaluate(root: Path, folder: Path, **more) -> dict:
    """external.json of that folder, computed and not written."""
    run = the_run(root)
    own_root = root / "data" / "phantom"
    asked = ExternalSet(describe_folder(folder), folder, own_root, root / "cache", **more)
    return evaluate_external(run, open_models(run), asked).document


def left_out(document: dict) -> dict[str, tuple[str, str | None]]:
    return {row["image_id"]: (row["kind"], row["other"]) for row in document["excluded"]}


# ---------------------------------------------------------------- figures


def table_of(y_true, y_prob, names=NAMES, split="external") -> pd.DataFrame:
    rows = pd.DataFrame(
        {
            "image_id": [f"i{k:03d}" for k in range(len(y_true))],
            "split": split,
            "fold": "",
            "label": [names[k] for k in y_true],
        }
    )
    return predictions_table(rows, y_prob, names)


def two_of_three(n=60, seed=0):
    """Labels of covid and pneumonia only, answers of all three classes."""
    y_true, y_prob, groups = sample(n, seed=seed)
    y_true = np.where(y_true == 1, 2, y_true)
    return table_of(y_true, y_prob), groups


def test_means_are_over_the_classes_that_are_there():
    table, groups = two_of_three()
    present = ["covid", "pneumonia"]
    figures = score_external(table, groups, NAMES, present)
    kwargs = {"labels": present, "average": "macro", "zero_division": 0}
    truth, called = table["label"], table["predicted"]
    assert figures["macro_f1"] == pytest.approx(f1_score(truth, called, **kwargs))
    assert figures["macro_precision"] == pytest.approx(precision_score(truth, called, **kwargs))
    assert figures["macro_recall"] == pytest.approx(recall_score(truth, called, **kwargs))
    assert figures["macro_recall"] == pytest.approx(figures["balanced_accuracy"])
    aucs = [roc_auc_score(truth == name, table[f"p_{name}"]) for name in present]
    assert figures["auc"] == pytest.approx(np.mean(aucs))
    assert figures["n"] == 60 and figures["n_patients"] == len(set(groups))
    assert figures["called"] == {name: int((called == name).sum()) for name in NAMES}
    # Nothing is said about the class that is not there, and everything else has an interval.
    assert set(figures["per_class"]) == set(present)
    assert not [key for key in figures["intervals"] if "normal" in key]
    for key in ("accuracy", "macro_f1", "macro_precision", "macro_recall", "auc", "recall.covid"):
        bounds = figures["intervals"][key]
        assert bounds["low"] < bounds["high"]
    assert figures["intervals"]["macro_f1"]["low"] < figures["macro_f1"]
    assert figures["macro_f1"] < figures["intervals"]["macro_f1"]["high"]


def test_interval_of_a_mean_over_two_classes_is_the_bootstraps():
    """The same patients drawn again in a plain loop, scored by scikit-learn."""
    table, groups = two_of_three(40)
    present = ["covid", "pneumonia"]
    bounds = score_external(table, groups, NAMES, present, draws=2000)["intervals"]["macro_f1"]
    rng = np.random.default_rng(1)
    patients = np.unique(groups)
    rows = {patient: np.flatnonzero(groups == patient) for patient in patients}
    values = []
    for _ in range(400):
        drawn = np.concatenate([rows[p] for p in rng.choice(patients, len(patients))])
        part = table.iloc[drawn]
        values.append(
            f1_score(part["label"], part["predicted"], labels=present, average="macro",
                     zero_division=0)
        )  # fmt: skip
    low, high = np.quantile(values, [0.025, 0.975])
    assert bounds["low"] == pytest.approx(low, abs=0.03)
    assert bounds["high"] == pytest.approx(high, abs=0.03)


def test_covid_is_not_spoken_of_where_there_is_none():
    y_true, y_prob, groups = sample()
    table = table_of(np.where(y_true == 0, 1, y_true), y_prob)
    figures = score_external(table, groups, NAMES, ["normal", "pneumonia"])
    assert "binary" not in figures
    assert not [key for key in figures["intervals"] if "covid" in key]


def test_all_classes_there_gives_the_figures_of_a_run():
    from core.evaluation.scoring import score_predictions

    y_true, y_prob, groups = sample()
    table = table_of(y_true, y_prob)
    figures = score_external(table, groups, NAMES, NAMES)
    patients = pd.Series(groups, index=table["image_id"])
    expected = score_predictions(table, patients, NAMES, seed=0)
    assert figures["called"] == table["predicted"].value_counts().to_dict()
    assert {key: figures[key] for key in expected} == expected


def test_one_class_gives_its_sensitivity_and_no_more():
    _, y_prob, groups = sample(30)
    table = table_of(np.zeros(30, int), y_prob)
    figures = score_external(table, groups, NAMES, ["covid"])
    assert set(figures) == {"n", "n_patients", "called", "per_class", "intervals"}
    found = float((table["predicted"] == "covid").mean())
    assert figures["per_class"] == {"covid": {"recall": found, "support": 30}}
    assert set(figures["intervals"]) == {"recall.covid"}
    assert sum(figures["called"].values()) == 30


def test_one_class_all_found_has_wilsons_interval():
    y_prob = np.tile([0.8, 0.1, 0.1], (12, 1))
    groups = [f"patient {k // 2}" for k in range(12)]  # six patients
    figures = score_external(table_of([0] * 12, y_prob), groups, NAMES, ["covid"])
    low, high = proportion_confint(6, 6, method="wilson")
    bounds = figures["intervals"]["recall.covid"]
    assert (bounds["low"], bounds["high"]) == pytest.approx((low, high))


def test_without_labels_only_calls_are_counted():
    y_true, y_prob, groups = sample(20)
    table = table_of(y_true, y_prob).assign(label="")
    figures = score_external(table, groups, NAMES, [])
    called = {name: int((table["predicted"] == name).sum()) for name in NAMES}
    assert figures == {"n": 20, "n_patients": len(set(groups)), "called": called}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([["covid"], ["covid", "pneumonia"], NAMES]))
def test_order_of_images_does_not_matter(seed, present):
    y_true, y_prob, groups = sample(25, 12, seed=seed)
    classes = [NAMES.index(name) for name in present]
    table = table_of(np.array(classes)[y_true % len(classes)], y_prob)
    names = [name for name in NAMES if name in set(table["label"])]
    order = np.random.default_rng(seed).permutation(25)
    one = score_external(table, groups, NAMES, names, draws=50)
    other = score_external(table.iloc[order], groups[order], NAMES, names, draws=50)
    one, other = (json.loads(json.dumps(side)) for side in (one, other))
    for key in ("n", "n_patients", "called"):
        assert one[key] == other[key]
    for name in names:
        recall = one["per_class"][name]["recall"]
        assert other["per_class"][name]["recall"] == pytest.approx(recall)
        assert 0 <= recall <= 1
    for key in one["intervals"]:
        for end in ("low", "high"):
            assert other["intervals"][key][end] == pytest.approx(one["intervals"][key][end])


# ---------------------------------------------------------------- at home and elsewhere


def compare(home, at_home, away, groups, names, present):
    internal = ScoredImages(home, [at_home[image_id] for image_id in home["image_id"]])
    return compare_with_test_split(internal, ScoredImages(away, list(groups)), names, present)


def home_and_away(seed=0, skill_away=0.2):
    y_true, y_prob, groups = sample(90, 40, seed=seed, skill=2.0)
    home, at_home = table_of(y_true, y_prob, split="test"), groups
    y_true, y_prob, groups = sample(70, 30, seed=seed + 50, skill=skill_away)
    return home, dict(zip(home["image_id"], at_home, strict=True)), table_of(y_true, y_prob), groups


def test_difference_is_elsewhere_less_home_with_both_sides_drawn():
    home, at_home, away, groups = home_and_away()
    rows = compare(home, at_home, away, groups, NAMES, NAMES)
    assert list(rows) == [
        "accuracy", "balanced_accuracy", "macro_f1",
        "recall.covid", "recall.normal", "recall.pneumonia",
    ]  # fmt: skip
    row = rows["accuracy"]
    inner = float((home["label"] == home["predicted"]).mean())
    outer = float((away["label"] == away["predicted"]).mean())
    assert (row["internal"], row["external"]) == pytest.approx((inner, outer))
    assert row["difference"] == pytest.approx(outer - inner) and row["difference"] < 0

    def draws(table, patients, rng):
        right = (table["label"] == table["predicted"]).to_numpy()
        patients = np.asarray(patients)
        rows = [right[patients == name] for name in np.unique(patients)]
        return np.array(
            [
                np.concatenate([rows[k] for k in rng.integers(0, len(rows), len(rows))]).mean()
                for _ in range(1500)
            ]
        )

    rng = np.random.default_rng(3)
    spread = draws(away, groups, rng) - draws(home, list(at_home.values()), rng)
    low, high = np.quantile(spread, [0.025, 0.975])
    assert row["low"] == pytest.approx(low, abs=0.02)
    assert row["high"] == pytest.approx(high, abs=0.02)
    # Each side's own interval is that of its figures.
    own = score_external(away, groups, NAMES, NAMES)["intervals"]["accuracy"]
    assert (row["external_low"], row["external_high"]) == (own["low"], own["high"])


def test_the_two_sides_are_drawn_independently():
    """The same images on both sides: drawn in step, every difference would be 0."""
    home, at_home, _, _ = home_and_away()
    groups = list(at_home.values())
    row = compare(home, at_home, home, groups, NAMES, NAMES)["accuracy"]
    assert row["difference"] == 0
    assert row["low"] < -0.03 and row["high"] > 0.03


def test_home_counts_the_classes_that_are_there():
    home, at_home, _, _ = home_and_away()
    away, groups = two_of_three()
    present = ["covid", "pneumonia"]
    row = compare(home, at_home, away, groups, NAMES, present)["accuracy"]
    part = home[home["label"].isin(present)]
    assert row["internal"] == pytest.approx((part["label"] == part["predicted"]).mean())


def test_of_one_class_only_its_sensitivity_is_compared():
    home, at_home, away, groups = home_and_away()
    kept = (away["label"] == "covid").to_numpy()
    rows = compare(home, at_home, away[kept], groups[kept], NAMES, ["covid"])
    assert list(rows) == ["recall.covid"]


def test_nothing_to_compare_with():
    home, at_home, away, groups = home_and_away()
    assert compare(home, at_home, away, groups, NAMES, []) == {}
    home = home[home["label"] != "covid"]
    assert compare(home, at_home, away, groups, NAMES, NAMES) == {}


def test_difference_from_a_perfect_score_is_newcombes():
    """Each image a patient, 20 of 20 found at home and 15 of 24 elsewhere, bounds by Wilson."""
    right, wrong = [0.8, 0.1, 0.1], [0.1, 0.8, 0.1]
    home = table_of([0] * 20, np.array([right] * 20))
    away = table_of([0] * 24, np.array([right] * 24))
    at_home = {name: name for name in home["image_id"]}
    row = compare(home, at_home, away, away["image_id"], NAMES, ["covid"])
    row = row["recall.covid"]
    low, high = confint_proportions_2indep(24, 24, 20, 20, method="newcomb", compare="diff")
    assert row["difference"] == 0
    assert (row["low"], row["high"]) == pytest.approx((low, high))
    away = table_of([0] * 24, np.array([right] * 15 + [wrong] * 9))
    row = compare(home, at_home, away, away["image_id"], NAMES, ["covid"])
    row = row["recall.covid"]
    low, high = confint_proportions_2indep(15, 24, 20, 20, method="newcomb", compare="diff")
    # Elsewhere the bootstrap stands in for Wilson, which is near for single images.
    assert (row["low"], row["high"]) == pytest.approx((low, high), abs=0.03)


def test_findings_are_counted_by_what_they_are_called():
    labels = ["covid", "covid", "covid", "normal"]
    table = table_of(
        [0, 0, 0, 1], np.array([[0.8, 0.1, 0.1], [0.1, 0.1, 0.8]] * 2), split="external"
    )
    found = count_findings(["SARS", "SARS", "COVID-19", ""], labels, {"cnn": table}, NAMES)
    assert found["SARS"] == {
        "n": 2,
        "labels": {"covid": 2},
        "called": {"cnn": {"covid": 1, "normal": 0, "pneumonia": 1}},
    }
    assert found["COVID-19"]["called"]["cnn"] == {"covid": 1, "normal": 0, "pneumonia": 0}
    assert list(found) == ["SARS", "COVID-19"]


def test_accuracy_with_overlap_is_plain_accuracy():
    home, at_home, _, _ = home_and_away()
    row = accuracy_with_overlap(home, list(at_home.values()), NAMES)
    assert row["accuracy"] == pytest.approx((home["label"] == home["predicted"]).mean())
    assert row["low"] < row["accuracy"] < row["high"] and row["n"] == 90


# ---------------------------------------------------------------- overlap


def overlap_tables():
    manifest = pd.DataFrame(
        [
            ("a", "train", "p1", "aa"),
            ("b", "val", "image:b", "bb"),
            ("c", "test", "p3", "cc"),
            ("d", "test", "p1", "dd"),  # a patient on both sides
        ],
        columns=["image_id", "split", "patient_id", "sha256"],
    )
    table = pd.DataFrame(
        [
            ("a", "image:a", "xx"),  # a name that the run has too, another picture
            ("copy", "p3", "bb"),
            ("sick", "p1", "yy"),
            ("b", "image:b", "zz"),  # unknown patients, called alike by chance
            ("blank", "p9", ""),
        ],
        columns=["image_id", "patient_id", "sha256"],
    )
    return manifest, table


def no_pictures() -> ImageSet:
    return ImageSet([], np.zeros((0, 64, 64), np.uint8), [], [])


def test_overlap_by_files_and_patients():
    manifest, table = overlap_tables()
    found = find_overlap(manifest, table, no_pictures(), None)
    assert set(found) == {
        Match("copy", LEARNED, DUPLICATE, "b", 1.0),
        Match("copy", TEST, SAME_PATIENT, "p3", None),
        Match("sick", LEARNED, SAME_PATIENT, "p1", None),
        Match("sick", TEST, SAME_PATIENT, "p1", None),
    }


def test_overlap_by_pictures_and_never_by_names():
    """The run's `c` (test) is cropped in `b`; `a` and `b` are other pictures on either side."""
    manifest, table = overlap_tables()
    drawn = [make_phantom("normal", seed=k, patient=k).pixels for k in range(8)]
    squares = [resize_square(p, SIDE_PX) for p in drawn]
    part = resize_square(drawn[2][20:190, 30:210], SIDE_PX)
    ours = ImageSet(["a", "b", "c", "d"], np.stack(squares[:4]), [224] * 4, [224] * 4)
    pixels = np.stack([*squares[4:7], part, squares[7]])
    widths, heights = [224, 224, 224, 180, 224], [224, 224, 224, 170, 224]
    theirs = ImageSet(table["image_id"].tolist(), pixels, widths, heights)
    steps: list[int] = []
    found = find_overlap(manifest, table, theirs, ours, steps.append)
    by_picture = [match for match in found if match.image_id == "b"]
    assert [(match.part, match.kind, match.other) for match in by_picture] == [
        (TEST, DUPLICATE, "c")
    ]
    assert by_picture[0].correlation > 0.95
    assert len(found) == 5  # and those by files and patients
    assert sum(steps) == feature_steps(5, 4)


def test_too_many_pairs_are_compared_as_whole_frames(monkeypatch):
    manifest, table = overlap_tables()
    drawn = [make_phantom("normal", seed=k, patient=k).pixels for k in range(9)]
    squares = np.stack([resize_square(p, SIDE_PX) for p in drawn])
    ours = ImageSet(["a", "b", "c", "d"], squares[:4], [224] * 4, [224] * 4)
    pixels = np.concatenate([squares[:1] // 2, squares[5:]])  # a darker copy of the run's `a`
    theirs = ImageSet(table["image_id"].tolist(), pixels, [224] * 5, [224] * 5)
    monkeypatch.setattr("core.evaluation.external.overlap.MOST_PAIRS", 19)
    monkeypatch.setattr(
        "core.evaluation.external.overlap.find_matching_images", None
    )  # would fail when called
    found = find_overlap(manifest, table, theirs, ours)
    assert [(m.part, m.other) for m in found if m.image_id == "a"] == [(LEARNED, "a")]


# ---------------------------------------------------------------- sets


def test_clean_set_is_scored_whole(root, features):
    folder = draw_set(root / "far", "COVID-19", "NORMAL", "Viral Pneumonia")
    document = evaluate(root, folder)
    assert document["n"] == 12 and document["excluded"] == []
    assert document["labelled"] and document["classes_missing"] == []
    assert document["classes_present"] == NAMES
    assert set(document["models"]) == {"cnn", "resnet50", "ensemble"}
    assert set(document["drop"]["cnn"]) >= {"accuracy", "macro_f1"}
    overlap = document["overlap"]
    assert overlap["learned"] == {"duplicate": 0, "same_patient": 0} and overlap["test"] == []
    assert overlap["own_compared"] == overlap["own_images"] == 30 and overlap["by_features"]
    assert document["with_overlap"] == {}
    assert any("taken to be drawn phantoms" in caveat for caveat in document["caveats"])


def test_answers_are_those_of_the_served_models(root):
    """One picture through predict, and the ensemble is the mean of its members."""
    folder = draw_set(root / "far", "covid", "normal")
    run = the_run(root)
    own_root = root / "data" / "phantom"
    asked = ExternalSet(describe_folder(folder), folder, own_root, root / "cache")
    result = evaluate_external(run, open_models(run), asked)
    columns = [f"p_{name}" for name in NAMES]
    one, other, mean = (result.predictions[m][columns] for m in ("cnn", "resnet50", "ensemble"))
    assert np.allclose(mean, (one + other) / 2, atol=1e-8)
    for model, table in result.predictions.items():
        assert list(table.columns) == artifacts.prediction_columns(NAMES), model
        assert table["image_id"].tolist() == result.manifest["image_id"].tolist()
    served = open_models(run).models["cnn"]
    pixels = np.asarray(Image.open(folder / result.manifest["path"].iloc[3]))
    expected = served.predict(resize_square(pixels, 64)[None]).probabilities[0]
    assert np.allclose(one.iloc[3], expected, atol=1e-6)


def test_planted_copies_of_train_are_left_out(root, features):
    folder = draw_set(root / "far", "covid", "normal", "pneumonia")
    original = train_image(root)
    own_id = f"{original.parent.name}/{original.stem}"
    shutil.copy(original, folder / "covid" / "exact.png")
    pixels = np.asarray(Image.open(original).convert("L"))
    Image.fromarray(np.clip(pixels * 0.8 + 20, 0, 255).astype(np.uint8)).save(
        folder / "covid" / "near.jpg", quality=80
    )
    big = Image.fromarray(pixels).resize((300, 300), Image.Resampling.BICUBIC)
    big.crop((30, 10, 270, 250)).save(folder / "covid" / "cropped.png")
    document = evaluate(root, folder)
    assert left_out(document) == {
        f"covid/{name}": (DUPLICATE, own_id) for name in ("exact", "near", "cropped")
    }
    rows = {row["image_id"]: row for row in document["excluded"]}
    assert rows["covid/exact"]["correlation"] == 1
    assert 0.88 < rows["covid/cropped"]["correlation"] < 1
    assert own_id in rows["covid/near"]["reason"]
    assert document["n"] == 12
    assert document["overlap"]["learned"] == {"duplicate": 3, "same_patient": 0}
    assert document["with_overlap"]["cnn"]["n"] == 15
    assert any("3 of 15 images overlap" in caveat for caveat in document["caveats"])


def test_copies_in_test_stay_and_are_listed_apart(root, features):
    folder = draw_set(root / "far", "covid", "normal", "pneumonia")
    original = train_image(root, split="test")
    shutil.copy(original, folder / "covid" / "seen.png")
    document = evaluate(root, folder)
    assert document["n"] == 13 and document["excluded"] == []
    (match,) = document["overlap"]["test"]
    assert (match["image_id"], match["kind"]) == ("covid/seen", DUPLICATE)
    assert match["other"] == f"covid/{original.stem}"
    assert any("run's test part stay in" in caveat for caveat in document["caveats"])


def test_the_same_patient_is_left_out(root):
    folder = draw_set(root / "far", "covid", "normal")
    known = artifacts.load_manifest(the_run(root)).query("split == 'train'")["patient_id"].iloc[0]
    names = [f"{label}/{label}-{k}.png" for label in ("covid", "normal") for k in range(4)]
    patients = [known, *[f"far-{k}" for k in range(7)]]
    lines = [f"{n},{n.split('/')[0]},{p}" for n, p in zip(names, patients, strict=True)]
    write_metadata(folder, "\n".join(["path,label,patient_id", *lines]))
    document = evaluate(root, folder)
    assert left_out(document) == {"covid/covid-0": (SAME_PATIENT, known)}
    assert document["n"] == document["n_patients"] == 7
    assert any("number their patients alike" in caveat for caveat in document["caveats"])


def test_without_the_runs_images_only_hashes_speak(root):
    folder = draw_set(root / "far", "covid", "normal")
    original = train_image(root)
    shutil.copy(original, folder / "covid" / "exact.png")
    Image.open(original).convert("L").save(folder / "covid" / "near.jpg", quality=90)
    shutil.rmtree(root / "data")
    document = evaluate(root, folder)
    assert list(left_out(document)) == ["covid/exact"]
    assert document["overlap"]["own_compared"] == 0
    assert any("not on this machine" in caveat for caveat in document["caveats"])


def test_with_some_of_the_runs_images_that_is_said(root):
    train_image(root, "normal").unlink()
    document = evaluate(root, draw_set(root / "far", "covid", "normal"))
    assert document["overlap"]["own_compared"] == 29
    assert any("29 of the run's 30 images" in caveat for caveat in document["caveats"])


def test_second_copies_within_the_set_count_once(root):
    folder = draw_set(root / "far", "covid", "normal")
    shutil.copy(folder / "covid" / "covid-1.png", folder / "covid" / "covid-9.png")
    shutil.copy(folder / "covid" / "covid-2.png", folder / "normal" / "odd.png")
    document = evaluate(root, folder)
    assert left_out(document) == {
        "covid/covid-9": (DUPLICATE, "covid/covid-1"),
        "covid/covid-2": (DUPLICATE, "normal/odd"),
        "normal/odd": (DUPLICATE, "covid/covid-2"),
    }
    assert document["n"] == 7


def test_extra_classes_are_counted_and_missing_ones_named(root):
    folder = draw_set(root / "far", "covid", "normal", "Effusion")
    document = evaluate(root, folder)
    assert document["classes_extra"] == {"Effusion": 4}
    assert document["classes_missing"] == ["pneumonia"]
    assert {kind for kind, _ in left_out(document).values()} == {"class"}
    assert document["n"] == 8
    assert set(document["models"]["cnn"]["per_class"]) == {"covid", "normal"}
    caveats = " ".join(document["caveats"])
    assert "has no pneumonia" in caveats and "Effusion 4" in caveats


def test_one_class_only(root):
    document = evaluate(root, draw_set(root / "far", "covid"))
    assert document["classes_missing"] == ["normal", "pneumonia"]
    assert set(document["models"]["cnn"]) == {
        "n", "n_patients", "called", "per_class", "intervals"
    }  # fmt: skip
    assert list(document["drop"]["cnn"]) == ["recall.covid"]
    assert any("nothing about false alarms" in caveat for caveat in document["caveats"])


def test_unlabelled_folder(root):
    for k in range(5):
        draw(root / "far" / f"scan {k}.png", "normal", k)
    (root / "far" / "notes.txt").write_text("not an image")
    document = evaluate(root, root / "far")
    assert not document["labelled"] and document["n"] == 5
    assert document["classes_present"] == document["classes_missing"] == []
    assert set(document["models"]["cnn"]) == {"n", "n_patients", "called"}
    assert document["drop"]["cnn"] == {}
    assert any("no labels" in caveat for caveat in document["caveats"])


def test_train_and_test_folders_are_all_external(root):
    draw_set(root / "far" / "train", "covid", "normal", each=3)
    for k in range(2):
        draw(root / "far" / "test" / "covid" / f"t{k}.png", "covid", 70 + k)
    document = evaluate(root, root / "far")
    assert document["n"] == 8


def test_unreadable_files_are_named(root):
    folder = draw_set(root / "far", "covid", "normal")
    (folder / "covid" / "broken.png").write_bytes(b"no image")
    document = evaluate(root, folder)
    assert list(left_out(document).values()) == [("unreadable", None)]
    assert "covid/broken" in left_out(document)


def test_nothing_usable_is_one_sentence(root):
    folder = root / "far"
    with pytest.raises(DatasetError, match="No images to use"):
        evaluate(root, folder)
    (folder / "covid").mkdir()
    (folder / "covid" / "broken.png").write_bytes(b"no image")
    with pytest.raises(ExternalError, match=r"None of the 1 images in .* can be used"):
        evaluate(root, folder)
    draw_set(folder, "effusion")
    (folder / "covid" / "broken.png").unlink()
    with pytest.raises(ExternalError, match="holds the classes effusion, and none of them"):
        evaluate(root, folder)
    draw_set(folder, "covid")
    shutil.rmtree(folder / "covid")
    (folder / "covid").mkdir()
    shutil.copy(train_image(root), folder / "covid" / "copy.png")
    with pytest.raises(
        ExternalError, match="left to score: 1 overlap with what run demo learned from"
    ):
        evaluate(root, folder)


def test_the_record_of_findings_is_held_against_the_labels(root):
    folder = draw_set(root / "far", "covid", "normal")
    findings = ["COVID-19", "SARS", "SARS", "COVID-19", "", "", "", ""]
    names = [f"{label}/{label}-{k}.png" for label in ("covid", "normal") for k in range(4)]
    lines = [f"{n},{n.split('/')[0]},{f}" for n, f in zip(names, findings, strict=True)]
    write_metadata(folder, "\n".join(["path,label,finding", *lines]))
    document = evaluate(root, folder)
    assert document["findings"]["SARS"]["n"] == 2
    assert any(
        "2 of 4 images scored as covid show something else: SARS 2" in caveat
        for caveat in document["caveats"]
    )


@pytest.mark.parametrize("modality", ["xray", "ct"])
def test_images_of_another_modality_are_refused(root, modality):
    info = json.loads((root / "artifacts" / "demo" / "run.json").read_text())
    info["modality"] = modality
    (root / "artifacts" / "demo" / "run.json").write_text(json.dumps(info))
    folder = root / "data" / "phantom"  # every row of its metadata.csv says synthetic
    with pytest.raises(ExternalError, match="are drawn phantoms, and run demo was trained on"):
        evaluate(root, folder)


def test_names_of_results():
    def called(name):
        return name_external(Dataset(name, name, "xray"), None)

    assert called("kaggle-covid19-xray") == "kaggle-covid19-xray"
    assert called("Scans of ward 3 (new)") == "Scans-of-ward-3-new"
    assert called("胸部") == "external"
    assert name_external(Dataset("a", "a", "xray"), "b") == "b"
    for bad in ("../x", "", "a/b", ".hidden"):
        with pytest.raises(ExternalError, match="--name holds"):
            name_external(Dataset("a", "a", "xray"), bad)


# ---------------------------------------------------------------- the command


@pytest.fixture
def command(root: Path, capsys: pytest.CaptureFixture):
    def run(*words: object) -> tuple[int, str, str]:
        capsys.readouterr()
        status = main([str(word) for word in words])
        out, err = capsys.readouterr()
        said = [line for line in err.replace("\r", "\n").split("\n") if "%|" not in line]
        return status, out, "\n".join(line for line in said if line) + "\n"

    return run


def test_command_keeps_shows_and_prints_the_result(command, root, features):
    folder = draw_set(root / "far", "covid", "normal", "pneumonia")
    status, out, said = command("evaluate", "--run", "demo", "--data", folder, "--json")
    assert status == 0
    answer = json.loads(out)
    assert list(answer)[:4] == ["run", "data", "source", "name"]
    assert (answer["run"], answer["data"], answer["source"]) == ("demo", "far", "images")
    assert answer["excluded"] == [] and set(answer["models"]) == {"cnn", "resnet50", "ensemble"}
    assert "own test images" in said and "difference" in said and "external/far" in said
    run = the_run(root)
    assert additions.list_external(run) == ["far"]
    stored = additions.load_external(run, "far")
    assert stored["models"] == answer["models"] and stored["drop"] == answer["drop"]
    assert additions.verify_additions(run) == []
    manifest = additions.load_external_manifest(run, "far")
    assert len(manifest) == 12 and not Path(manifest["path"][0]).is_absolute()
    # Every figure follows from the predictions that were kept.
    table = additions.load_external_predictions(run, "far", "cnn")
    again = score_external(table, manifest["patient_id"], NAMES, NAMES, seed=run.info["seed"])
    assert again["macro_f1"] == pytest.approx(stored["models"]["cnn"]["macro_f1"])
    assert command("verify", "--run", "demo")[0] == 0


def test_changed_result_is_noticed(command, root):
    folder = draw_set(root / "far", "covid", "normal")
    assert command("evaluate", "--run", "demo", "--data", folder)[0] == 0
    file = root / "artifacts" / "demo" / "external" / "far" / "cnn" / "predictions.csv"
    file.write_text(file.read_text().replace("0.", "1.", 1))
    status, _, said = command("verify", "--run", "demo")
    assert status == 1 and "external/far/cnn/predictions.csv has changed" in said


def test_result_is_replaced_only_when_the_new_one_is_complete(command, root, monkeypatch):
    folder = draw_set(root / "far", "covid", "normal")
    command("evaluate", "--run", "demo", "--data", folder)
    before = additions.load_external(the_run(root), "far")
    monkeypatch.setattr("core.evaluation.external.evaluate.list_caveats", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        command("evaluate", "--run", "demo", "--data", folder)
    assert additions.load_external(the_run(root), "far") == before
    monkeypatch.undo()
    monkeypatch.setenv("CXR_ARTIFACTS", str(root / "artifacts"))
    monkeypatch.setenv("CXR_DATA", str(root / "data"))
    monkeypatch.setenv("CXR_CACHE", str(root / "cache"))
    draw(folder / "covid" / "one-more.png", "covid", 90)
    assert command("evaluate", "--run", "demo", "--data", folder)[0] == 0
    assert additions.load_external(the_run(root), "far")["n"] == before["n"] + 1


def test_a_result_of_other_images_is_not_replaced_unasked(command, root):
    folder = draw_set(root / "far", "covid", "normal")
    command("evaluate", "--run", "demo", "--data", folder)
    other = root / "elsewhere" / "far"
    for k in range(3):
        draw(other / "covid" / f"x{k}.png", "covid", 80 + k)
    status, out, said = command("evaluate", "--run", "demo", "--data", other, "--json")
    assert status == 2 and "of other images" in said and "--name far" in said
    assert json.loads(out)["error"] in said
    assert additions.load_external(the_run(root), "far")["n"] == 8
    assert command("evaluate", "--run", "demo", "--data", other, "--name", "ward-3")[0] == 0
    assert command("evaluate", "--run", "demo", "--data", other, "--name", "far")[0] == 0
    run = the_run(root)
    assert additions.list_external(run) == ["far", "ward-3"]
    assert additions.load_external(run, "far")["n"] == 3


def test_left_out_images_are_said_and_decide_the_status(command, root):
    folder = draw_set(root / "far", "covid", "normal", "effusion")
    status, _, said = command("evaluate", "--run", "demo", "--data", folder)
    assert status == 0 and "left out: effusion/normal-0: Its class 'effusion'" in said
    (folder / "covid" / "broken.png").write_bytes(b"no image")
    status, _, said = command("evaluate", "--run", "demo", "--data", folder)
    assert status == 1 and "left out: covid/broken: " in said


def test_other_pictures_under_the_runs_names_are_from_elsewhere(command, root):
    """Many sets number their images: the same ids prove nothing."""
    manifest = artifacts.load_manifest(the_run(root))
    for k, row in enumerate(manifest[manifest["split"] == "test"].itertuples()):
        draw(root / "far" / row.path, row.label, k)
    status, out, _ = command("evaluate", "--run", "demo", "--data", root / "far", "--json")
    answer = json.loads(out)
    assert status == 0 and answer["name"] == "far" and answer["excluded"] == []


def test_the_runs_own_images_are_its_own_wherever_they_lie(command, root):
    shutil.copytree(root / "data" / "phantom", root / "moved")
    words = ("evaluate", "--run", "demo", "--data", root / "moved")
    status, out, _ = command(*words, "--json")
    assert status == 0
    assert set(json.loads(out)) == {"run", "data", "source", "models", "excluded"}
    assert additions.list_external(the_run(root)) == []
    status, _, said = command(*words, "--name", "moved")
    assert status == 2 and "no external validation" in said


def test_re_encoded_copies_in_a_folder_of_the_same_name_are_its_own(command, root):
    copies = root / "elsewhere" / "phantom"
    for file in (root / "data" / "phantom").rglob("*_*.png"):
        if "masks" not in file.parts:
            target = copies / file.relative_to(root / "data" / "phantom").with_suffix(".bmp")
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.open(file).save(target)
    _, expected, _ = command("evaluate", "--run", "demo", "--json")
    status, out, said = command("evaluate", "--run", "demo", "--data", copies, "--json")
    assert status == 0 and "re-encoded copies" in said
    assert json.loads(out)["models"] == json.loads(expected)["models"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--name", "x"), "--name is for images from elsewhere"),
        (("--data", "nowhere"), "No data set or folder 'nowhere'"),
        (("--data", "ucsd-covid-ct"), "is not in"),
        (("--data", ""), "No data set named"),
    ],
)
def test_wrong_use_is_one_sentence(command, words, says):
    status, out, said = command("evaluate", "--run", "demo", *words, "--json")
    assert status == 2 and says in said and said.count("\n") == 1
    assert json.loads(out) == {"error": said.strip()}


def test_bad_name_and_empty_folder_are_one_sentence(command, root):
    status, out, said = command("evaluate", "--run", "demo", "--data", root / "far", "--json")
    assert status == 2 and "No images to use" in said
    assert json.loads(out) == {"error": said.strip()}
    draw_set(root / "far", "covid")
    words = ("evaluate", "--run", "demo", "--data", root / "far", "--name", "a/b")
    status, _, said = command(*words)
    assert status == 2 and said.startswith("--name holds")
