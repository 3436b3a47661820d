"""Measurements: what is measured, what is said where nothing can be, and no verdict on speed."""

import json
import subprocess
import sys

import numpy as np
import pytest

from core.bench import measurement, registry, serving, statistics
from core.metrics.classification import check_predictions
from dashboard.bench import benches
from tests.support.runs import make_run


def test_an_unknown_bench_is_refused_with_the_choices():
    with pytest.raises(measurement.BenchError, match=r"'speed'\. There are: statistics, live"):
        registry.run_benches(["speed"], None)


def test_a_bench_of_pages_names_the_command_that_has_it():
    with pytest.raises(measurement.BenchError, match="'people' needs pages: `make bench NAMES="):
        registry.run_benches(["audit", "people", "pages"], None)


def test_a_line_says_the_seconds_their_share_of_the_limit_and_when_it_is_broken():
    measured = measurement.Measured("statistics", "intervals", 1.0, 2.0)
    assert measurement.describe(measured) == "intervals: 1.00 s, 0.50 of the limit of 2 s."
    assert measured.within is True
    slow = measurement.Measured("statistics", "intervals", 3.0, 2.0, "busy machine")
    assert "NOT within it (busy machine)." in measurement.describe(slow) and slow.within is False
    missing = measurement.Measured("audit", "audit", None, 480.0, "there is no run")
    assert measurement.describe(missing) == "audit: not measured (there is no run)."
    assert missing.within is None
    assert measurement.to_json([slow])[0]["within"] is False


def test_a_rate_must_be_at_least_its_limit_and_a_count_may_be_none():
    rate = measurement.Measured("zip", "a zip", 18.0, 15.0, unit="pictures/s", at_least=True)
    assert rate.within is True
    assert measurement.describe(rate) == (
        "a zip: 18 pictures/s, 1.20 of the limit of at least 15 pictures/s."
    )
    slow = measurement.Measured("zip", "a zip", 12.5, 15.0, unit="pictures/s", at_least=True)
    assert slow.within is False and "12.50 pictures/s" in measurement.describe(slow)
    none = measurement.Measured("people", "errors", 0, 0, unit="errors")
    assert none.within is True
    one = measurement.Measured("people", "errors", 1, 0, unit="errors")
    assert one.within is False and "NOT within it" in measurement.describe(one)


def test_made_up_predictions_are_predictions_of_patients_with_several_images():
    y_true, probs, groups = statistics.make_predictions(600, 2)
    assert set(probs) == {"model0", "model1"}
    check_predictions(y_true, probs["model0"], statistics.CLASS_NAMES)
    right = (probs["model0"].argmax(axis=1) == y_true).mean()
    assert 0.5 < right < 0.99
    assert 1.5 < len(groups) / len(np.unique(groups)) < 5
    statistics.all_statistics(y_true, probs["model0"], groups)


def test_without_a_run_nothing_is_invented(tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_ARTIFACTS", str(tmp_path))
    results = [
        *registry.run_benches(["audit"], None),
        *registry.run_benches(["pages"], None, benches.BENCHES),
    ]
    assert [measured.value for measured in results] == [None, None]
    with pytest.raises(measurement.BenchError, match="no run 'mine'"):
        registry.run_benches(["audit"], "mine")


def test_every_page_is_timed_through_the_command(tmp_path, monkeypatch):
    make_run(tmp_path / "runs", n=40)
    monkeypatch.setenv("CXR_ARTIFACTS", str(tmp_path / "runs"))
    monkeypatch.setenv("CXR_DATA", str(tmp_path / "data"))
    done = subprocess.run(
        [sys.executable, "-m", "dashboard.bench", "pages", "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    whats = {row["what"] for row in json.loads(done.stdout)}
    assert {"page overview of demo, warm", "page trust of demo, warm"} <= whats
    assert all(row["value"] > 0 for row in json.loads(done.stdout))


@pytest.fixture
def demo(demo_app):
    """The demo run, ready to be asked."""
    return serving.predictor_of("demo")


def test_pictures_are_the_runs_own_or_drawn_ones(demo, monkeypatch, tmp_path):
    pictures, kind = serving.load_images(demo.run, 5)
    assert kind == "images of phantom" and len(pictures) == 5
    serving.predict_one(demo, pictures[0])
    monkeypatch.setenv("CXR_DATA", str(tmp_path))
    drawn, kind = serving.load_images(demo.run, 3)
    assert kind == "drawn phantoms" and len(set(drawn)) == 3
    serving.predict_one(demo, drawn[0])


def test_people_at_once_are_counted_with_what_went_wrong(demo, monkeypatch):
    monkeypatch.setattr(benches, "PEOPLE", 2)
    monkeypatch.setattr(benches, "PEOPLE_S", 1.0)
    median, errors = registry.run_benches(["people"], "demo", benches.BENCHES)
    assert median.value > 0 and median.note.split()[0] != "0"
    assert errors.value == 0 and errors.note == "" and errors.within is True
    # Pictures that no model answers about are errors, one a person, and there is no median.
    monkeypatch.setattr(serving, "load_images", lambda run, n: ([b"no picture"], "nothing"))
    (none,) = registry.run_benches(["people"], "demo", benches.BENCHES)
    assert none.value is None and none.note == "The page came without an answer."


def test_live_answers_and_a_zip_are_measured_whole(demo, monkeypatch):
    monkeypatch.setattr(serving, "ONE_BY_ONE", 4)
    monkeypatch.setattr(serving, "ZIPPED", 20)
    results = registry.run_benches(["live", "zip"], "demo")
    assert [measured.bench for measured in results] == [*["live"] * 4, "zip"]
    apart = results.pop(3)
    assert all(measured.value > 0 for measured in results)
    assert apart.unit == "ms" and "process of its own" in apart.what and " against " in apart.note
    assert results[-1].note == "" and "a zip of 20 images of phantom" in results[-1].what
    assert "3 models of demo at f32, no guard" in results[-1].what
