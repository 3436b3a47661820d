"""The precision that is measured: weighed by steps, kept for a resumed run, nothing left behind."""

import json
import logging

import pytest

from core import timing
from core.backend import import_keras

keras = import_keras()

from core.config import Config  # noqa: E402
from core.models.recipes import Recipe, Stage  # noqa: E402
from core.training import mixed_precision, pipeline  # noqa: E402

WHOLE, MIXED = mixed_precision.POLICIES


@pytest.fixture(autouse=True)
def usual_precision():
    yield
    keras.config.set_dtype_policy(WHOLE)


@pytest.fixture
def timed(monkeypatch):
    """A clock that says: the CNN gains by bfloat16, MobileNetV2 loses by it."""
    asked = []

    def time_step(name, recipe, stage, n_classes):
        asked.append((name, stage.name, n_classes))
        return {WHOLE: 0.4, MIXED: 0.2} if name == "cnn" else {WHOLE: 0.1, MIXED: 0.5}

    monkeypatch.setattr(mixed_precision, "time_step", time_step)
    return asked


def recipe(epochs: int, members: int = 1) -> Recipe:
    return Recipe(64, (Stage("all layers", epochs, 1e-3),), batch_size=32, members=members)


def test_the_precision_with_the_shorter_steps_of_all_models_is_taken(timed, tmp_path, caplog):
    caplog.set_level(logging.INFO, "core")
    recipes = {"cnn": recipe(20), "mobilenetv2": recipe(5)}
    found = mixed_precision.choose_precision(recipes, 3, 65, tmp_path)
    said = caplog.messages
    # 65 images are 3 steps: 20 * 3 * 0.4 + 5 * 3 * 0.1 against 20 * 3 * 0.2 + 5 * 3 * 0.5.
    assert found["seconds"] == pytest.approx({WHOLE: 25.5, MIXED: 19.5})
    assert found["precision"] == MIXED
    assert "400 ms against 200 ms" in said[1] and said[-1].endswith("mixed_bfloat16 is used.")
    assert timed == [("cnn", "all layers", 3), ("mobilenetv2", "all layers", 3)]


def test_members_count_and_the_slower_precision_loses(timed, tmp_path):
    recipes = {"cnn": recipe(20), "mobilenetv2": recipe(5, members=3)}
    found = mixed_precision.choose_precision(recipes, 3, 65, tmp_path)
    assert found["seconds"] == pytest.approx({WHOLE: 28.5, MIXED: 34.5})
    assert found["precision"] == WHOLE


def test_a_resumed_run_keeps_what_was_found_before(timed, tmp_path):
    first = mixed_precision.choose_precision({"cnn": recipe(20)}, 3, 65, tmp_path)
    timed.clear()
    again = mixed_precision.choose_precision({"mobilenetv2": recipe(5)}, 3, 65, tmp_path)
    assert again == first and timed == []


def test_steps_are_really_timed_in_both_precisions():
    kinds = []
    frozen = Stage("head", 1, 1e-3, cut="features", optimizer="adam", schedule="constant")
    for stage in (Stage("all layers", 1, 1e-3), frozen):
        times = mixed_precision.time_step(
            "cnn", Recipe(32, (stage,), batch_size=4), stage, 2, rounds=1
        )
        assert set(times) == {WHOLE, MIXED} and all(t > 0 for t in times.values())
        kinds.append(keras.config.dtype_policy().name)
    assert kinds == [WHOLE, WHOLE], "the precision is left as it was"


def test_both_models_are_built_in_their_own_precision(monkeypatch):
    seen = []
    build = mixed_precision.build_model

    def spy(*args):
        model = build(*args)
        seen.append(model.get_layer("block1_1_conv").compute_dtype)
        return model

    monkeypatch.setattr(mixed_precision, "build_model", spy)
    stage = Stage("all layers", 1, 1e-3)
    mixed_precision.time_step("cnn", Recipe(32, (stage,), batch_size=2), stage, 3, rounds=1)
    assert seen == ["float32", "bfloat16"]


def test_folds_added_to_a_run_take_its_precision(timed, tmp_path):
    config = Config("x", ("cnn",), "r", mixed="measure")
    finished = {"devices": {"precision": MIXED}}
    chosen = pipeline.set_devices(config, {"cnn": recipe(2)}, None, finished, tmp_path)
    assert chosen["precision"] == MIXED and "measured_s" not in chosen and timed == []


def test_a_run_records_what_was_measured(timed, tmp_path):
    import pandas as pd

    manifest = pd.DataFrame({"split": ["train"] * 65 + ["test"], "label": list("ab") * 33})
    config = Config("x", ("cnn",), "r", mixed="measure")
    chosen = pipeline.set_devices(config, {"cnn": recipe(20)}, manifest, None, tmp_path)
    assert chosen["precision"] == MIXED == keras.config.dtype_policy().name
    assert chosen["measured_s"] == pytest.approx({WHOLE: 24.0, MIXED: 12.0})
    assert timed == [("cnn", "all layers", 2)]
    kept = json.loads((tmp_path / mixed_precision.PRECISION_FILE).read_text())
    assert kept["precision"] == MIXED


def test_the_times_are_medians_taken_by_turns_after_a_warm_up(monkeypatch):
    now, order = [0.0], []
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])

    def step(name, seconds):
        waits = iter(seconds)

        def run():
            order.append(name)
            now[0] += next(waits)

        return run

    steps = [step("a", [90, 1, 7, 2]), step("b", [80, 5, 3, 4])]
    assert timing.median_by_turns(steps, rounds=3) == [2, 4]
    assert order == ["a", "b"] * 4
