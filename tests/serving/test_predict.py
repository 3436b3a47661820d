"""Answers about pictures: the models as served, calibration, means, guard; one and many alike."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from core.datasets.phantom.generate import make_phantom
from core.imageio.decode import Decoded, resize_square
from core.inference.served_model import load_model
from core.runs import artifacts
from core.runs.run import Run
from core.serving.guard.detector import Judgement, Neighbour
from core.serving.predict import (
    BATCH,
    conformal_promise,
    conformal_text,
    open_predictor,
    warm_up,
)
from tests.support.runs import INPUT_SIZE_PX, make_run

NAMES = ("covid", "normal", "pneumonia")


class FakeGuard:
    """Remembers what it was asked; refuses what is dark."""

    model, subject, threshold = "resnet50", "a drawn chest phantom", 1.0

    def __init__(self):
        self.seen = []

    def check(self, features, decoded, ask):
        again = ask(resize_square(decoded.pixels, INPUT_SIZE_PX)[None])[0]
        self.seen.append((features, again))
        right = bool(decoded.pixels.mean() > 30)
        return Judgement(right, 0.5 if right else 2.0, 1.0, "so it is")

    def nearest(self, features, k=5):
        return [Neighbour(f"image{number}", "covid", "p", float(number)) for number in range(k)]


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    root = tmp_path_factory.mktemp("answering") / "artifacts"
    make_run(root, n=40, images=False, tiny_openvino=True, ensemble=True)
    return artifacts.open_run(root / "demo")


def picture(label="covid", seed=0, size_px=96) -> Decoded:
    pixels = make_phantom(label, seed, size_px).pixels
    return Decoded(pixels, size_px, size_px, "PNG", "L")


def test_each_model_answers_as_it_is_served_and_the_mean_is_theirs(run):
    answer = open_predictor(run).predict(picture())
    assert [own.model for own in answer.predictions] == [
        "cnn",
        "resnet50",
        "mobilenetv2",
        "ensemble",
    ]
    assert answer.class_names == NAMES and answer.seconds > 0 and answer.problems == {}
    for name in run.served:
        output = load_model(run, name).predict(resize_square(picture().pixels, INPUT_SIZE_PX)[None])
        own = answer.of(name)
        np.testing.assert_allclose(own.probabilities, output.probabilities[0], atol=1e-6)
        np.testing.assert_allclose(own.class_maps, output.class_maps[0], atol=1e-5)
        assert own.predicted == NAMES[int(own.probabilities.argmax())]
        assert own.latency_ms > 0 and own.precision == "f32" and own.input_size_px == INPUT_SIZE_PX
        assert own.members == ()
    mean = np.mean([answer.of(name).probabilities for name in run.served], axis=0)
    ensemble = answer.of("ensemble")
    np.testing.assert_allclose(ensemble.probabilities, mean, atol=1e-9)
    assert ensemble.members == tuple(run.served) and ensemble.class_maps is None
    assert ensemble.latency_ms == pytest.approx(sum(answer.of(m).latency_ms for m in run.served))


def test_calibrated_shares_are_those_of_the_run_by_hand(run):
    prior = {"covid": 0.1, "normal": 0.4, "pneumonia": 0.5}
    info = run.info | {
        "calibration": {"cnn": {"temperature": 2.0, "prior": prior, "weighted": True}},
        "conformal": {"cnn": {"alpha": 0.1, "threshold": 0.3}},
    }
    answer = open_predictor(replace(run, info=info)).predict(picture())
    own = answer.of("cnn")
    raised = (own.probabilities * np.array([0.1, 0.4, 0.5])) ** 0.5
    expected = raised / raised.sum()
    np.testing.assert_allclose(own.calibrated, expected)
    assert own.shares is own.calibrated
    called = int(own.probabilities.argmax())
    inside = {name for name, share in zip(NAMES, expected, strict=True) if share >= 0.3}
    assert set(own.conformal_set) == inside | {NAMES[int(expected.argmax())]}
    assert own.confidence == pytest.approx(expected[called])
    other = answer.of("resnet50")
    assert other.calibrated is None and other.conformal_set == ()
    assert other.shares is other.probabilities


def test_many_pictures_get_the_answers_they_would_get_alone(run):
    predictor = open_predictor(run)
    pictures = [picture(NAMES[n % 3], n) for n in range(BATCH + 3)]
    many = predictor.predict_many(pictures)
    assert len(many) == len(pictures)
    for n in (0, BATCH - 1, BATCH, BATCH + 2):
        alone = predictor.predict(pictures[n])
        for own, other in zip(alone.predictions, many[n].predictions, strict=True):
            assert own.model == other.model and own.predicted == other.predicted
            np.testing.assert_allclose(own.probabilities, other.probabilities, atol=1e-6)
            assert other.class_maps is None
    assert len({tuple(row.of("cnn").probabilities) for row in many}) > BATCH


def test_a_choice_of_models_asks_an_ensembles_members_and_no_others(run):
    predictor = open_predictor(run)
    assert [a.model for a in predictor.predict(picture(), chosen=["cnn"]).predictions] == ["cnn"]
    chosen = predictor.predict(picture(), chosen=["ensemble"])
    assert [a.model for a in chosen.predictions] == [*run.served, "ensemble"]
    # All members answer, but the mean was not asked for.
    assert [
        a.model for a in predictor.predict(picture(), chosen=run.served).predictions
    ] == run.served


def test_the_guard_sees_its_models_features_whatever_was_chosen(run):
    guard = FakeGuard()
    predictor = replace(open_predictor(run), guard=guard)
    answer = predictor.predict(picture(), chosen=["cnn"])
    assert [own.model for own in answer.predictions] == ["cnn"]
    assert not answer.refused and answer.judgement.sentence == "so it is"
    assert [near.image_id for near in answer.neighbours] == [f"image{n}" for n in range(5)]
    own = load_model(run, "resnet50").predict(resize_square(picture().pixels, INPUT_SIZE_PX)[None])
    features, again = guard.seen[0]
    np.testing.assert_allclose(features, own.features[0], atol=1e-5)
    np.testing.assert_allclose(again, own.features[0], atol=1e-5)
    dark = replace(picture(), pixels=np.zeros((96, 96), np.uint8))
    assert [row.refused for row in predictor.predict_many([picture(), dark])] == [False, True]
    # In a batch each picture is judged by features of its own.
    for features, again in guard.seen:
        np.testing.assert_allclose(features, again, atol=1e-5)
    assert np.abs(guard.seen[-1][0] - guard.seen[-2][0]).max() > 1e-3
    assert not open_predictor(run).predict(dark).refused  # without a guard nothing is refused


def test_a_model_that_cannot_be_loaded_costs_itself_and_the_mean(run, tmp_path):
    make_run(tmp_path / "artifacts", n=40, images=False, tiny_openvino=True, ensemble=True)
    broken = artifacts.open_run(tmp_path / "artifacts" / "demo")
    (broken.path / "cnn" / "model.bin").write_bytes(b"changed")
    predictor = open_predictor(broken)
    answer = predictor.predict(picture())
    assert [own.model for own in answer.predictions] == ["resnet50", "mobilenetv2"]
    assert list(answer.problems) == ["CNN"] and "hash" in answer.problems["CNN"]
    warm_up(predictor)
    for name in ("resnet50", "mobilenetv2"):
        (broken.path / name / "model.xml").unlink()
    with pytest.raises(artifacts.ArtifactError, match="hash"):
        open_predictor(broken)


def test_sets_in_words():
    def words(*inside):
        return conformal_text(inside, NAMES)

    assert words() == ""
    assert words("normal") == "normal only"
    told = "covid or pneumonia; the model cannot tell them apart here"
    assert words("pneumonia", "covid") == told
    assert words(*NAMES) == "covid, normal or pneumonia; the model rules nothing out here"
    assert conformal_text(("a", "b"), ("a", "b")) == "a or b; the model cannot tell them apart here"


def test_the_promise_names_the_share_of_the_run(run):
    info = json.loads(json.dumps(run.info)) | {"conformal": {"cnn": {"alpha": 0.05}}}
    changed = replace(run, info=info)
    assert "for 95\u202f% of patients" in conformal_promise(changed, "cnn")
    assert conformal_promise(changed, "resnet50") == ""
