"""Second readers, counted by hand on a few images."""

import numpy as np
import pandas as pd
import pytest

from core.evaluation.audit import readers
from core.evaluation.audit.readers import measure_readers

# label, reading, what the model predicts
ROWS = [
    *[("pneumonia", "Lung Opacity", "pneumonia")] * 6,
    *[("pneumonia", "Lung Opacity", "normal")] * 2,
    *[("pneumonia", "No Lung Opacity / Not Normal", "pneumonia")] * 7,
    *[("pneumonia", "Normal", "covid")] * 3,
    *[("normal", "Normal", "normal")] * 8,
    *[("normal", "Lung Opacity", "normal")] * 4,
]


def tables(rows=ROWS, reader="R"):
    ids = [f"i{k}" for k in range(len(rows))]
    manifest = pd.DataFrame({"image_id": ids, "label": [r[0] for r in rows], "patient_id": ids})
    readings = pd.DataFrame({"image_id": ids, "reader": reader, "reading": [r[1] for r in rows]})
    predictions = pd.DataFrame({"image_id": ids, "predicted": [r[2] for r in rows], "fold": "1"})
    return readings, manifest, predictions


def test_agreement_by_hand():
    readings, manifest, predictions = tables()
    found = measure_readers(readings, manifest, {"cnn": predictions}, 0, draws=300)
    row = found["readers"]["R"]
    assert row["n"] == 30
    assert row["counts"]["pneumonia"] == {
        "Lung Opacity": 8, "No Lung Opacity / Not Normal": 7, "Normal": 3
    }  # fmt: skip
    # The label says "opacity" 18 times, right 8 times; it says "none" 12 times, right 8 times.
    assert row["label"]["opacity"]["value"] == pytest.approx(16 / 30)
    # "Not normal": 18 times, right 15 times; "normal" 12 times, right 8 times.
    assert row["label"]["abnormal"]["value"] == pytest.approx(23 / 30)
    model = row["models"]["cnn"]
    assert (model["n"], model["of"]) == (30, "out of fold")
    # Covid is not normal too: 16 times "yes", right 6; 14 times "no", right 8.
    assert model["questions"]["opacity"]["value"] == pytest.approx(14 / 30)
    assert model["questions"]["abnormal"]["value"] == pytest.approx((13 + 8) / 30)
    assert model["label_agreement"]["value"] == pytest.approx(25 / 30)
    assert model["gap"]["abnormal"]["value"] == pytest.approx(25 / 30 - 23 / 30)
    assert model["gap"]["opacity"]["value"] == pytest.approx(25 / 30 - 16 / 30)
    assert model["gap"]["opacity"]["low"] > 0 > model["gap"]["abnormal"]["low"]
    assert "about as often as the radiologists do" in found["sentence"]
    for agreement in (row["label"]["opacity"], model["label_agreement"]):
        assert 0 <= agreement["low"] < agreement["value"] < agreement["high"] <= 1
    assert found["unknown"] == []
    assert "saw an opacity in 44.4" in found["sentence"] and "18 images" in found["sentence"]


def test_the_interval_is_over_patients():
    readings, manifest, predictions = tables()
    alone = measure_readers(readings, manifest, {"m": predictions}, 0, draws=500)
    few = manifest.assign(patient_id=np.arange(len(manifest)) // 6)
    together = measure_readers(readings, few, {"m": predictions}, 0, draws=500)

    def width(found):
        agreement = found["readers"]["R"]["label"]["opacity"]
        return agreement["high"] - agreement["low"]

    assert width(together) > 1.3 * width(alone)


def test_a_reading_that_cannot_tell_is_left_out_of_that_question_alone():
    rows = [("pneumonia", "airspace opacity", "pneumonia")] * 3
    rows += [("normal", "no airspace opacity", "normal")] * 20
    found = measure_readers(*tables(rows)[:2], {}, 0, draws=50)["readers"]["R"]
    assert found["label"]["opacity"]["n"] == 23
    assert "abnormal" not in found["label"], "three answers are too few to say anything"


def test_what_is_not_known_is_named_and_other_classes_are_not_asked():
    readings, manifest, predictions = tables()
    readings.loc[0, "reading"] = "Cardiomegaly"
    manifest.loc[1, "label"] = "covid"
    found = measure_readers(readings, manifest, {"cnn": predictions}, 0, draws=50)
    assert found["unknown"] == ["Cardiomegaly"] and found["readers"]["R"]["n"] == 28


def test_predictions_of_the_test_split_alone_are_called_so():
    readings, manifest, predictions = tables()
    test = predictions.iloc[:10].assign(fold="")
    model = measure_readers(readings, manifest, {"m": test}, 0, draws=50)["readers"]["R"]["models"]
    assert (model["m"]["n"], model["m"]["of"]) == (10, "test")
    assert model["m"]["questions"] == {}


def test_a_model_that_answered_about_fewer_images_is_not_held_against_all_readings():
    readings, manifest, predictions = tables()
    some = predictions.iloc[:25].assign(fold="")
    assert "model" not in measure_readers(readings, manifest, {"m": some}, 0, draws=50)["sentence"]


def test_no_image_that_was_read_is_no_section():
    readings, manifest, _ = tables()
    assert measure_readers(readings.assign(image_id="x"), manifest, {}, 0) is None


def test_every_reading_answers_every_question():
    assert all(set(answers) == set(readers.QUESTIONS) for answers in readers.READINGS.values())
