"""Floors find what gives the class away, and only that."""

import numpy as np
import pandas as pd
import pytest

from core.evaluation.shortcut_baselines import (
    BaselineError,
    blackout_mask,
    border_mask,
    compute_baselines,
    grey_histograms,
    table_features,
)

NAMES = ["covid", "normal"]


@pytest.fixture(autouse=True)
def few_trees(monkeypatch):
    monkeypatch.setattr("core.evaluation.shortcut_baselines.TREES", 60)


def noise(n=80, size_px=64, seed=0):
    """Pixels that say nothing, and a manifest with 20 test images, two of each patient."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(60, 160, (n, size_px, size_px), dtype=np.uint8)
    manifest = pd.DataFrame(
        {
            "image_id": [f"image {k}" for k in range(n)],
            "label": np.where(np.arange(n) // 2 % 2 == 0, "covid", "normal"),
            "patient_id": [f"p{k // 2}" for k in range(n)],
            "split": np.where(np.arange(n) >= n - 20, "test", "train"),
        }
    )
    manifest.loc[:9, "split"] = "val"
    return pixels, manifest


def floors(pixels, manifest, **options):
    return compute_baselines(pixels, manifest, NAMES, 0, draws=100, **options)


def test_noise_gives_nothing_away():
    result = floors(*noise())
    assert set(result) == {"majority", "histogram", "thumbnail", "border", "blackout"}
    for floor in result.values():
        assert floor["accuracy"] < 0.85
        assert floor["n"] == 20
        assert floor["kind"] == "pixel"
        assert set(floor) == {"title", "kind", "accuracy", "macro_f1", "n", "intervals"}
        assert floor["intervals"]["accuracy"]["unit"] == "patient"
        assert set(floor["intervals"]) == {"accuracy", "macro_f1"}
    assert result["majority"]["accuracy"] == 0.5
    assert result["majority"]["macro_f1"] == pytest.approx(1 / 3)


def test_a_marker_in_the_corner_is_found_at_the_border_and_under_the_blackout():
    pixels, manifest = noise()
    covid = (manifest["label"] == "covid").to_numpy()
    pixels[covid, :8, :8] = 255
    result = floors(pixels, manifest)
    assert result["border"]["accuracy"] == 1
    assert result["blackout"]["accuracy"] == 1
    assert result["border"]["intervals"]["accuracy"]["method"] == "wilson"


def test_a_lesion_in_the_centre_is_seen_by_the_thumbnail_alone():
    pixels, manifest = noise()
    covid = (manifest["label"] == "covid").to_numpy()
    pixels[covid, 26:38, 26:38] += 60
    result = floors(pixels, manifest)
    assert result["thumbnail"]["accuracy"] == 1
    assert result["border"]["accuracy"] < 0.85
    assert result["blackout"]["accuracy"] < 0.85


def test_brightness_is_found_by_the_histogram():
    pixels, manifest = noise()
    pixels[(manifest["label"] == "covid").to_numpy()] += 40
    assert floors(pixels, manifest)["histogram"]["accuracy"] == 1


def test_size_and_format_of_the_files_are_metadata_floors():
    pixels, manifest = noise()
    covid = (manifest["label"] == "covid").to_numpy()
    manifest["width"], manifest["height"] = np.where(covid, 700, 1024), 1024
    extra = pd.DataFrame(
        {
            "image_id": manifest["image_id"],
            "original_format": np.where(covid, "JPEG", "PNG"),
            "original_width": 1024,
            "split": "not the run's split",
        }
    ).sample(frac=1, random_state=1)
    result = floors(pixels, manifest, metadata=extra)
    for name in ("file_properties", "original_properties"):
        assert result[name]["kind"] == "metadata"
        assert result[name]["accuracy"] == 1
    assert result["file_properties"]["title"] == "File properties (width, height)"
    assert result["original_properties"]["title"] == "Original file properties (width, format)"
    assert result["thumbnail"]["accuracy"] < 0.85


def test_what_is_known_of_patients_is_a_floor_and_so_is_their_number():
    pixels, manifest = noise()
    covid = (manifest["label"] == "covid").to_numpy()
    facts = pd.DataFrame(
        {
            "image_id": manifest["image_id"],
            "age_years": np.where(covid, "70", ""),
            "sex": "F",
            "nih_findings": manifest["label"],
        }
    )
    result = floors(pixels, manifest, metadata=facts)
    assert result["clinical"]["title"] == "Patient and exposure (age, sex)"
    assert result["clinical"]["accuracy"] == 1, "that the age is not known tells the class"
    assert result["patient_number"]["kind"] == "metadata"
    ordered = manifest.sort_values("label", kind="stable")
    ordered["patient_id"] = [f"p{k // 2}" for k in range(len(ordered))]
    numbered = floors(pixels, ordered.sort_index(), metadata=facts)
    # Near the border between the classes a number may fall on either side.
    assert numbered["patient_number"]["accuracy"] == 0.8 > result["patient_number"]["accuracy"]
    unknown = manifest.assign(patient_id="image:" + manifest["image_id"])
    assert "patient_number" not in floors(pixels, unknown, metadata=facts)


def test_test_labels_teach_nothing():
    """Flipping the test labels turns the score over: they are never trained on."""
    pixels, manifest = noise()
    pixels[(manifest["label"] == "covid").to_numpy()] += 40
    test = manifest["split"] == "test"
    manifest.loc[test, "label"] = manifest.loc[test, "label"].map(
        {"covid": "normal", "normal": "covid"}
    )
    assert floors(pixels, manifest)["histogram"]["accuracy"] == 0


def test_the_order_of_the_index_does_not_matter_and_seed_repeats():
    pixels, manifest = noise()
    before = floors(pixels, manifest)
    manifest.index = manifest.index[::-1]
    assert floors(pixels, manifest) == before


def test_a_class_missing_from_train():
    pixels, manifest = noise()
    manifest.loc[(manifest["split"] != "test"), "label"] = "normal"
    result = floors(pixels, manifest)
    assert result["thumbnail"]["accuracy"] == 0.5


def test_masks_and_features():
    assert border_mask(32).sum() == 32**2 - 28**2
    assert blackout_mask(32).sum() == 22**2
    assert grey_histograms(np.full((1, 4, 4), 255, np.uint8))[0, -1] == 1
    table = pd.DataFrame({"width": [10, None], "height": [5, 5], "format": ["PNG", None]})
    assert table_features(table).tolist() == [[10, 5, 0, 1, 2], [-1, 5, 1, 0, -0.2]]


def test_unusable_input_is_refused():
    pixels, manifest = noise()
    with pytest.raises(BaselineError, match="uint8 pixels"):
        floors(pixels[:-1], manifest)
    with pytest.raises(BaselineError, match="uint8 pixels"):
        floors(pixels / 255, manifest)
    with pytest.raises(BaselineError, match="images in test"):
        floors(pixels, manifest.assign(split="train"))
    with pytest.raises(BaselineError, match="labels flu beside"):
        floors(pixels, manifest.assign(label="flu"))
