"""Drawn phantoms: the same everywhere, a lesion where the mask says, no marker of the class."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from threadpoolctl import threadpool_limits

from core.datasets.phantom.anatomy import draw_view
from core.datasets.phantom.generate import (
    PhantomError,
    class_names,
    label_synthetic,
    make_phantom,
    write_phantoms,
)

REPOSITORY = Path(__file__).resolve().parents[3]
LESIONS = ("covid", "pneumonia")


@pytest.fixture(scope="module")
def collection():
    """64 px images of 70 patients a class, 3 each: pixels, class index, patient."""
    pixels, y, groups = [], [], []
    for c, label in enumerate(class_names):
        for number in range(70):
            patient = 1000 * c + number
            for seed in range(3):
                pixels.append(make_phantom(label, seed, 64, patient).pixels)
                y.append(c)
                groups.append(patient)
    return np.stack(pixels), np.array(y), np.array(groups)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data") / "phantom"
    return write_phantoms(folder, patients_per_class=2, images_per_patient=2, seed=3, size_px=96)


def linear_accuracy(features, y, groups):
    """Patient-grouped 5-fold accuracy of the better of two logistic regressions."""
    scores = []
    for strength in (1e-3, 1e-2):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=100))
        with threadpool_limits(1):  # BLAS threads only wait for each other on this little work
            folds = cross_val_score(model, features, y, groups=groups, cv=GroupKFold(5))
        scores.append(folds.mean())
    return max(scores)


def content(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.mark.parametrize("label", class_names)
@pytest.mark.parametrize("size_px", [32, 96, 224, 300])
def test_a_phantom_keeps_its_contract(label, size_px):
    phantom = make_phantom(label, 5, size_px, patient=2)
    shape = (size_px, size_px)
    assert phantom.pixels.shape == phantom.mask.shape == phantom.lungs.shape == shape
    assert phantom.pixels.dtype == np.uint8
    assert phantom.mask.dtype == phantom.lungs.dtype == bool
    assert phantom.label == label
    assert phantom.mask.any() == (label != "normal")


def test_the_same_arguments_give_the_same_pixels_in_another_process():
    calls = [("covid", 4, 96, 7), ("pneumonia", 2, 96, 1)]
    code = (
        "import hashlib, core.datasets.phantom.generate as p\n"
        "make = lambda a: p.make_phantom(a[0], a[1], size_px=a[2], patient=a[3])\n"
        "digest = lambda f: hashlib.sha256(f.pixels.tobytes() + f.mask.tobytes()).hexdigest()\n"
        f"print(' '.join(digest(make(a)) for a in {calls!r}))"
    )
    there = subprocess.run(
        [sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.split()
    for (label, seed, size_px, patient), digest in zip(calls, there, strict=True):
        here = make_phantom(label, seed, size_px, patient)
        assert digest == hashlib.sha256(here.pixels.tobytes() + here.mask.tobytes()).hexdigest()
    assert there[0] != there[1]


def test_another_seed_or_patient_is_another_image():
    first = make_phantom("normal", 0, 96, 0).pixels
    assert np.abs(first - make_phantom("normal", 1, 96, 0).pixels.astype(float)).mean() > 2
    assert np.abs(first - make_phantom("normal", 0, 96, 1).pixels.astype(float)).mean() > 2


@pytest.mark.parametrize("label", LESIONS)
def test_the_lesion_lies_in_the_lungs_and_is_all_that_differs_from_normal(label):
    for number in range(25):
        ill = make_phantom(label, number, 128, patient=number)
        well = make_phantom("normal", number, 128, patient=number)
        change = ill.pixels.astype(int) - well.pixels
        assert np.array_equal(ill.lungs, well.lungs)
        assert not (ill.mask & ~ill.lungs).any()
        assert not change[~ill.mask].any()
        assert 0.005 < ill.mask.mean() < 0.35
        # Visible: the middle of the lesion stands well above the rounding of grey values.
        assert np.percentile(change[ill.mask], 90) > 5


def test_covid_is_bilateral_and_peripheral_and_pneumonia_is_on_one_side():
    side_shares, heights = {"covid": [], "pneumonia": []}, []
    for label in LESIONS:
        for number in range(30):
            phantom = make_phantom(label, number, 128, patient=number)
            rows, columns = np.nonzero(phantom.lungs)
            middle = np.median(columns)
            lesion_rows, lesion_columns = np.nonzero(phantom.mask)
            right = (lesion_columns < middle).mean()
            side_shares[label].append(min(right, 1 - right))
            if label == "covid":
                heights.append(lesion_rows.mean() - rows.mean())
                reach = np.abs(columns - middle).mean()
                assert np.abs(lesion_columns - middle).mean() > reach
    assert np.mean(np.array(side_shares["covid"]) > 0.05) > 0.9
    assert np.median(side_shares["pneumonia"]) < 0.02
    assert np.mean(heights) > 0  # more in the lower zones


def test_a_patient_keeps_the_anatomy_and_changes_the_pose(monkeypatch):
    def lungs(seed, patient):
        return make_phantom("normal", seed, 96, patient).lungs.tobytes()

    assert len({lungs(seed, 3) for seed in range(4)}) == 4
    view = draw_view(np.random.default_rng(0))
    monkeypatch.setattr("core.datasets.phantom.generate.draw_view", lambda rng: view)
    # Seen in one and the same view, what is left is the anatomy.
    assert len({lungs(seed, 3) for seed in range(4)}) == 1
    assert len({lungs(0, patient) for patient in range(4)}) == 4


def test_a_linear_model_on_pixels_stays_under_80_percent(collection):
    pixels, y, groups = collection
    small = pixels.reshape(len(pixels), 32, 2, 32, 2).mean(axis=(2, 4))
    accuracy = linear_accuracy(small.reshape(len(small), -1), y, groups)
    assert 0.4 < accuracy < 0.8  # above chance too: the lesions are there to be learned


def test_the_grey_histogram_does_not_give_the_class_away(collection):
    pixels, y, groups = collection
    histograms = np.stack([np.histogram(image, 32, (0, 256))[0] for image in pixels])
    assert linear_accuracy(np.sqrt(histograms), y, groups) < 0.6


def test_written_phantoms_load_as_class_folders_with_masks_apart(written):
    table = pd.read_csv(written / "metadata.csv")
    assert list(table.columns) == ["path", "label", "patient_id", "synthetic"]
    assert table["label"].value_counts().to_dict() == dict.fromkeys(class_names, 4)
    assert table.groupby("patient_id").size().tolist() == [2] * 6
    assert table.groupby("patient_id")["label"].nunique().max() == 1
    assert table["synthetic"].all()
    on_disk = {
        p.relative_to(written).as_posix() for c in class_names for p in written.glob(f"{c}/*")
    }
    assert on_disk == set(table["path"])
    masks = {p.relative_to(written / "masks").as_posix() for p in written.glob("masks/*/*")}
    assert masks == set(table.loc[table["label"] != "normal", "path"])
    for path in masks:
        assert set(np.unique(Image.open(written / "masks" / path))) == {0, 255}


def test_written_files_say_that_they_are_synthetic(written):
    files = list(written.rglob("*.png"))
    assert files
    for path in files:
        with Image.open(path) as image:
            assert image.text["Synthetic"].startswith("SYNTHETIC")
            assert image.mode == "L" and image.size == (96, 96)
    assert json.loads((written / "phantoms.json").read_text())["synthetic"] is True


def test_writing_twice_does_nothing_and_a_broken_folder_is_made_again(tmp_path):
    def write(seed=0):
        return write_phantoms(
            tmp_path / "p", patients_per_class=1, images_per_patient=2, seed=seed, size_px=48
        )

    folder = write()
    before = content(folder)
    times = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    assert write() == folder
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == times

    for lost in ("covid/*.png", "masks/pneumonia/*.png"):
        next(folder.glob(lost)).unlink()
        write()
        assert content(folder) == before

    write(seed=1)
    assert content(folder) != before
    assert content(folder).keys() == before.keys()
    assert [path.name for path in tmp_path.iterdir()] == ["p"]  # nothing half-written is left


def test_a_failed_write_leaves_what_was_there(tmp_path, monkeypatch):
    folder = write_phantoms(
        tmp_path / "p", patients_per_class=1, images_per_patient=1, seed=0, size_px=48
    )
    before = content(folder)

    def fail(*args, **kwargs):
        raise OSError("disk full")

    monkeypatch.setattr("core.datasets.phantom.generate._save", fail)
    with pytest.raises(OSError, match="disk full"):
        write_phantoms(folder, patients_per_class=2, images_per_patient=1, seed=0, size_px=48)
    assert content(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["p"]


def test_a_folder_with_other_things_is_left_alone(tmp_path):
    (tmp_path / "holiday.png").write_bytes(b"mine")
    with pytest.raises(PhantomError, match="left alone"):
        write_phantoms(tmp_path, patients_per_class=1, images_per_patient=1, seed=0, size_px=48)
    assert (tmp_path / "holiday.png").read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("flu", 0), "covid, normal, pneumonia"),
        (("covid", -1), "must not be negative"),
        (("covid", 0, 16), "32 to 1024"),
    ],
)
def test_wrong_arguments_get_a_sentence(arguments, words):
    with pytest.raises(PhantomError, match=words):
        make_phantom(*arguments)


def test_no_patients_get_a_sentence(tmp_path):
    with pytest.raises(PhantomError, match="patients_per_class must be at least 1"):
        write_phantoms(
            tmp_path / "p", patients_per_class=0, images_per_patient=1, seed=0, size_px=48
        )


@pytest.mark.parametrize("shape", [(96, 96), (96, 96, 3)])
def test_the_word_synthetic_is_drawn_on_a_copy(shape):
    pixels = np.full(shape, 100, np.uint8)
    shown = label_synthetic(pixels)
    assert shown.shape == shape and shown.dtype == np.uint8
    assert (pixels == 100).all()
    assert (shown[:24] != 100).any() and (shown[24:] == 100).all()
    with pytest.raises(PhantomError, match="uint8"):
        label_synthetic(pixels.astype(float))
