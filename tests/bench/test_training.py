"""Both ways of the comparison are fed alike, and the grown set is really read from the disk."""

import sys

import numpy as np
import pytest

from core.bench import memory, registry, training
from core.bench import task as bench_task
from core.bench.measurement import BenchError
from core.bench.task import open_task
from core.models import architectures
from core.models.recipes import Recipe, Stage
from tests.support.models import build_small


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """Sixty phantoms: no data set is where it is looked for."""
    folder = tmp_path_factory.mktemp("bench")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_DATA", str(folder / "none"))
        patch.setenv(bench_task.IMAGES, "60")
        with open_task(folder) as opened:
            yield opened


def test_a_smaller_run_is_asked_for_in_words_that_are_checked(monkeypatch, task):
    assert len(task.table) == 60 and task.what == "60 drawn phantoms"
    assert set(task.table["split"]) == {"train", "val", "test"}
    for wrong in ("12", "many", "-60"):
        monkeypatch.setenv(bench_task.IMAGES, wrong)
        with pytest.raises(BenchError, match="at least 60"):
            bench_task._images_wanted()


def test_both_ways_train_and_answer_about_the_same_test_images(task, tmp_path):
    pytest.importorskip("tensorflow")
    stage = Stage("head", 1, 1e-3, cut="features", views=2, keep="last")
    recipe = Recipe(32, (stage,))
    usual = training.train_usual(task, "mobilenetv2", recipe, tmp_path)
    here = training.train_here(task, "mobilenetv2", recipe, tmp_path, tmp_path / "cache", "f32")
    assert usual.y_prob.shape == here.y_prob.shape == (len(task.rows("test")), 3)
    assert usual.seconds > 0 and here.seconds > 0
    # The same first weights, and a head that a few steps have moved a little.
    assert usual.y_prob == pytest.approx(here.y_prob, abs=0.2)
    measured = training._score("training", "macro-F1", task, here)
    assert 0 <= measured.value <= 1 and "95% interval" in measured.note


def test_the_grown_set_has_as_many_images_and_memory_is_read_from_the_child(
    task, tmp_path, monkeypatch
):
    monkeypatch.setenv("CXR_DATA", str(tmp_path / "none"))
    monkeypatch.setenv(bench_task.IMAGES, "60")
    file = tmp_path / "pixels.u8"
    memory.grow_pixels(file, 130, 16, tmp_path)
    assert file.stat().st_size == 130 * 16 * 16
    pixels = np.fromfile(file, np.uint8).reshape(130, 16, 16)
    assert len(np.unique(pixels, axis=0)) > 100, "no two rounds are the same"


@pytest.fixture
def measured(monkeypatch):
    """Figures as `measure` gives them, without any process."""

    def measure(name, n, folder):
        more = 1 if memory.JOBS[name].flat else 5
        return {"peak_mb": 900.0 + more * n / 100, "seconds": n / 100, "wall_s": n / 90}

    monkeypatch.setattr(memory, "measure", measure)


@pytest.mark.usefixtures("measured")
def test_memory_is_said_in_words_with_its_limit():
    results = list(registry.run_benches(["memory"], None))
    assert len(results) == 4 * len(memory.JOBS) == 12
    within = [result.within for result in results]
    assert within[:4] == [None, True, False, True], "1,071 MB are more than 1.1 times 917 MB"
    assert within[8:] == [None, True, None, None], "the search is held to the limit of 2 GB alone"
    assert "17,099 images" in results[1].what and results[1].unit == "MB"


@pytest.mark.parametrize("name", ["frozen", "whole", "duplicates"])
def test_a_job_of_the_memory_bench_runs_in_a_process_of_its_own(name, tmp_path, monkeypatch):
    """With few images: what comes back is read from that process, not from this one."""
    monkeypatch.setenv("CXR_DATA", str(tmp_path / "none"))
    monkeypatch.setenv(bench_task.IMAGES, "60")
    found = memory.measure(name, 40, tmp_path)
    assert 100 < found["peak_mb"] < 4000 and 0 < found["seconds"] <= found["wall_s"]
    assert not list(tmp_path.glob("pixels-*")), "the grown pixels are not left behind"


def test_a_ratio_is_of_medians_and_says_the_spread():
    def ways(*seconds):
        return [training.Way(s, 2 * s, np.empty(0)) for s in seconds]

    found = training._ratio("w", ways(90.0, 110.0), ways(4.0, 12.0, 5.0), 20)
    assert found.value == 20 and found.within and found.at_least
    assert found.note == (
        "100.0 s (of 2, 90.0 to 110.0) against 5.0 s (of 3, 4.0 to 12.0); of CPU time 200 s "
        "against 10 s, 20.0 times"
    )
    once = training._ratio("w", ways(3.0), ways(2.0), 2)
    assert once.value == 1.5 and not once.within and once.note.startswith("3.0 s against 2.0 s;")


def test_asking_what_there_is_loads_no_engine():
    code = "import core.bench.registry, sys; print('keras' in sys.modules)"
    import subprocess

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.strip() == "False", done.stderr


def test_the_whole_bench_says_ratios_precisions_and_scores(tmp_path, monkeypatch):
    """Small enough to say nothing about speed; every line of the real one is there."""
    pytest.importorskip("tensorflow")
    monkeypatch.setenv("CXR_DATA", str(tmp_path / "none"))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "none"))
    monkeypatch.setenv(bench_task.IMAGES, "60")
    for name in ("cnn", "mobilenetv2"):
        monkeypatch.setitem(architectures.BUILDERS, name, build_small)
    monkeypatch.setattr(training, "EPOCHS", 1)
    monkeypatch.setattr(training, "FROZEN", ("mobilenetv2",))
    monkeypatch.setattr(training, "FROZEN_PX", 32)
    monkeypatch.setattr(training, "STEPPED", ())
    monkeypatch.setattr(training, "TURNS", 1)
    measured = list(training.bench_training(None))
    ratios = [m for m in measured if m.unit == bench_task.TIMES]
    assert [m.limit for m in ratios] == [10, 20, 10, 20, 2, 2]
    assert all(m.value > 0 and m.at_least and "CPU time" in m.note for m in ratios)
    scores = [m for m in measured if "macro-F1" in m.what]
    assert len(scores) == 6 and all(0 <= m.value <= 1 for m in scores)
    for word in ("f32", "bf16", "steps in float32", "steps in mixed_bfloat16"):
        assert any(word in m.what for m in ratios), word
