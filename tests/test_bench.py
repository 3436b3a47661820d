"""Measurements: what is measured, what is said where nothing can be, and no verdict on speed."""

import json
import subprocess
import sys

import numpy as np
import pytest

from core import bench
from core.metrics import check_predictions
from tests.factory import make_run


def test_an_unknown_bench_is_refused_with_the_choices():
    with pytest.raises(bench.BenchError, match=r"'speed'\. There are: statistics, pages, audit"):
        bench.run_benches(["speed"], None, print)


def test_a_line_says_the_seconds_their_share_of_the_limit_and_when_it_is_broken():
    measured = bench.Measured("statistics", "intervals", 1.0, 2.0)
    assert bench.describe(measured) == "intervals: 1.00 s, 0.50 of the limit of 2 s."
    assert measured.within is True
    slow = bench.Measured("statistics", "intervals", 3.0, 2.0, "busy machine")
    assert "NOT within it (busy machine)." in bench.describe(slow) and slow.within is False
    missing = bench.Measured("audit", "audit", None, 480.0, "there is no run")
    assert bench.describe(missing) == "audit: not measured (there is no run)."
    assert missing.within is None
    assert bench.to_json([slow])[0]["within"] is False


def test_made_up_predictions_are_predictions_of_patients_with_several_images():
    y_true, probs, groups = bench.make_predictions(600, 2)
    assert set(probs) == {"model0", "model1"}
    check_predictions(y_true, probs["model0"], bench.CLASS_NAMES)
    right = (probs["model0"].argmax(axis=1) == y_true).mean()
    assert 0.5 < right < 0.99
    assert 1.5 < len(groups) / len(np.unique(groups)) < 5
    bench.all_statistics(y_true, probs["model0"], groups)


def test_without_a_run_nothing_is_invented(tmp_path, monkeypatch):
    monkeypatch.setenv("CXR_ARTIFACTS", str(tmp_path))
    results = bench.run_benches(["audit", "pages"], None, lambda text: None)
    assert [measured.seconds for measured in results] == [None, None]
    with pytest.raises(bench.BenchError, match="no run 'mine'"):
        bench.run_benches(["audit"], "mine", lambda text: None)


def test_every_page_is_timed_through_the_command(tmp_path, monkeypatch):
    make_run(tmp_path / "runs", n=40)
    monkeypatch.setenv("CXR_ARTIFACTS", str(tmp_path / "runs"))
    monkeypatch.setenv("CXR_DATA", str(tmp_path / "data"))
    done = subprocess.run(
        [sys.executable, "-m", "core", "bench", "pages", "--json"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    whats = {row["what"] for row in json.loads(done.stdout)}
    assert {"page overview of demo, warm", "page trust of demo, warm"} <= whats
    assert all(row["seconds"] > 0 for row in json.loads(done.stdout))
