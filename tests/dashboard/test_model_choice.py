"""What the Predict page works out beside the answers, and what it keeps of a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from core.imageio.decode import Decoded
from core.reporting.answer_reliability import votes
from core.runs.run import Run
from core.serving.predict import ModelPrediction
from dashboard.charts.probabilities import plot_probabilities
from dashboard.predict.model_choice import chosen_models, moved_class, plain_mean, shown_pixels
from dashboard.predict.uploads import make_upload, pixels_sha256

NAMES = ("covid", "normal", "pneumonia")


def said(*predicted: str, **more) -> list[ModelPrediction]:
    """One single model an answer: m1, m2 ..."""
    return [
        ModelPrediction(
            f"m{k}", f"M{k}", name, np.eye(3)[NAMES.index(name)], latency_ms=1.0, **more
        )
        for k, name in enumerate(predicted, start=1)
    ]


def a_run(members: dict[str, list[str]], *singles: str) -> Run:
    kind = dict.fromkeys(singles, "single") | dict.fromkeys(members, "ensemble")
    info = {"models": [*singles, *members], "kind": kind, "members": members}
    return Run(Path("r"), info | {"class_names": NAMES, "display": {"all": "All"}})


# ----------------------------------------------------------------------------- who counts


def test_controls_and_means_have_no_vote() -> None:
    first, second, third = said("covid", "normal", "normal")
    control = replace(first, model="m1_random")
    ensemble = replace(first, model="all", members=("m1", "m2"))
    assert votes([first, second, third, control, ensemble]) == [first, second, third]
    assert votes([control]) == [control], "alone it speaks for itself"
    assert votes([]) == []


@pytest.mark.parametrize(
    ("members", "chosen", "asked"),
    [
        ({}, ["m1", "m2"], ["m1", "m2"]),
        ({"all": ["m1", "m2"]}, ["all"], ["all"]),
        ({"all": ["m1", "m2"]}, ["m1", "m2"], ["m1", "m2", "all"]),
        ({"all": ["m1", "m2"]}, ["m1", "m2", "m1_random"], ["m1", "m2", "m1_random", "all"]),
        # Of other models it is another mean.
        ({"all": ["m1", "m2"]}, ["m1", "m2", "m3"], ["m1", "m2", "m3"]),
        ({"all": ["m1", "m2"]}, ["m1"], ["m1"]),
        # Who chooses one ensemble is not shown another.
        ({"few": ["m1"], "all": ["m1", "m2"]}, ["m1", "m2", "few"], ["m1", "m2", "few"]),
    ],
)
def test_a_mean_that_the_run_has_measured_is_asked_for_what_it_is_made_of(members, chosen, asked):
    assert chosen_models(a_run(members, "m1", "m2", "m3", "m1_random"), chosen) == asked


def test_a_plain_mean_is_of_the_votes_and_belongs_to_no_model() -> None:
    run = a_run({}, "m1", "m2", "m3")
    answers = said("covid", "normal", "normal")
    control = replace(answers[0], model="m1_random")
    mean = plain_mean(run, [*answers, control])
    assert (mean.model, mean.title, mean.predicted) == ("", "Mean of the 3", "normal")
    assert mean.members == ("m1", "m2", "m3") and mean.latency_ms == 3
    np.testing.assert_allclose(mean.probabilities, [1 / 3, 2 / 3, 0])
    assert mean.calibrated is None and mean.conformal_set == ()
    assert plain_mean(run, answers[:1]) is None
    assert plain_mean(run, [answers[0], control]) is None, "a control is no second model"
    ensemble = replace(answers[0], model="all", members=("m1", "m2"))
    assert plain_mean(run, [*answers, ensemble]) is None, "there is a measured one"


def test_a_class_that_calibration_puts_first_is_named() -> None:
    served = np.array([0.45, 0.4, 0.15])
    own = ModelPrediction("m", "M", "covid", served, calibrated=np.array([0.3, 0.6, 0.1]))
    assert moved_class(own, NAMES) == ("normal", 0.6)
    assert moved_class(replace(own, calibrated=served), NAMES) is None
    assert moved_class(replace(own, calibrated=None), NAMES) is None
    # Of equal shares the first counts, as for what is called.
    assert moved_class(replace(own, calibrated=np.array([0.4, 0.4, 0.2])), NAMES) is None


# ----------------------------------------------------------------------------- pictures


def test_large_pictures_are_shown_smaller_in_the_same_shape() -> None:
    assert shown_pixels(np.zeros((1000, 500), np.uint8), 200).shape == (200, 100)
    assert shown_pixels(np.zeros((10, 20), np.uint8), 200).shape == (10, 20)


def decoded(pixels: np.ndarray, **more) -> Decoded:
    return Decoded(pixels, pixels.shape[1], pixels.shape[0], "PNG", "L", **more)


def test_pictures_of_the_same_bytes_in_another_shape_are_other_pictures() -> None:
    pixels = np.arange(64 * 36, dtype=np.uint16).astype(np.uint8)
    tall, wide = pixels.reshape(64, 36), pixels.reshape(36, 64)
    assert pixels_sha256(tall) != pixels_sha256(wide)
    assert pixels_sha256(tall) == pixels_sha256(np.asfortranarray(tall))


def test_what_the_guard_looks_at_beside_the_pixels_makes_it_another_picture() -> None:
    grey = decoded(np.full((40, 40), 90, np.uint8))
    keys = {
        make_upload("x.png", own).key
        for own in (
            grey,
            replace(grey, colourfulness=0.4),
            replace(grey, synthetic=True),
            replace(grey, format="DICOM", facts={"Modality": "CT"}),
            replace(grey, format="DICOM", facts={"Modality": "DX"}),
        )
    }
    assert len(keys) == 5
    assert make_upload("other.png", grey).key == make_upload("x.png", grey).key


def test_a_picture_known_to_be_drawn_is_synthetic_whatever_its_file_says() -> None:
    grey = decoded(np.full((40, 40), 90, np.uint8))
    assert make_upload("x", grey, "covid", synthetic=True).decoded.synthetic
    assert not make_upload("x", grey, "covid").decoded.synthetic


def test_bars_mark_the_class_that_is_called_and_not_the_largest() -> None:
    rows = [("A", "#000000", (0.2, 0.5, 0.3)), ("B", "#000000", (0.6, 0.3, 0.1))]
    figure, alt = plot_probabilities(
        rows, NAMES, "this", predicted=["covid", "covid"], what="Calibrated probabilities"
    )
    marked = [trace.marker.opacity.index(1.0) for trace in figure.data]
    assert marked == [0, 0]
    assert alt.startswith("Calibrated probabilities, this. A: covid 20.0 %")
    figure, _ = plot_probabilities(rows, NAMES, "this")
    assert [trace.marker.opacity.index(1.0) for trace in figure.data] == [1, 0]
