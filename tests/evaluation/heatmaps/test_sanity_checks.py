"""core.evaluation.heatmaps.sanity_checks: what shuffling the weights does to a real graph, and who
fails the check.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import sobel
from scipy.stats import rankdata

from core.datasets.phantom.generate import make_phantom
from core.engine import import_openvino
from core.evaluation.heatmaps.sanity_checks import (
    KINDS,
    LIMIT,
    SanityError,
    compare_maps,
    judge,
    shuffle_weights,
)
from core.inference.class_activation import class_evidence
from core.inference.served_model import compile_model
from tests.support.heatmaps import CLASS_NAMES, write_striped_model
from tests.support.heatmaps import SIZE_PX as INPUT_SIZE_PX

SHUFFLES = 3


@pytest.fixture(scope="module")
def xml(tmp_path_factory):
    return write_striped_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def pixels():
    labels = ("covid", "pneumonia") * 4
    return np.stack(
        [make_phantom(label, 0, INPUT_SIZE_PX, 40 + n).pixels for n, label in enumerate(labels)]
    )


def answers(xml, pixels, alter=None):
    model = compile_model(
        xml, name="tiny", class_names=CLASS_NAMES, input_size_px=INPUT_SIZE_PX, alter=alter
    )
    return model.predict(pixels)


def check(maps_of, xml, pixels) -> dict:
    """The check as core.evaluation.heatmaps.evaluate makes it; maps_of(output, pixels) -> evidence
    by place (n, h, w).
    """
    before = maps_of(answers(xml, pixels), pixels)
    return {
        kind: compare_maps(
            list(before),
            [
                list(maps_of(answers(xml, pixels, shuffle_weights(kind, seed)), pixels))
                for seed in range(SHUFFLES)
            ],
        )
        for kind in KINDS
    }


def class_activation(output, pixels):
    return np.stack([class_evidence(maps, 0) for maps in output.class_maps])


def edges(output, pixels):
    """A fake map, as Adebayo et al. warn of: it looks sensible and never asks the model."""
    grey = pixels.astype(np.float32)
    return np.hypot(sobel(grey, axis=1), sobel(grey, axis=2))[:, ::4, ::4]


def test_a_class_activation_map_passes(xml, pixels):
    kinds = check(class_activation, xml, pixels)
    assert judge(kinds) and kinds["all_layers"]["rank_abs"] < LIMIT
    assert all(kinds[kind]["ssim"] < 0.9 for kind in KINDS)
    assert len(kinds["all_layers"]["by_shuffle"]) == SHUFFLES


def test_an_edge_detector_fails(xml, pixels):
    kinds = check(edges, xml, pixels)
    assert not judge(kinds)
    assert kinds["all_layers"]["rank_abs"] == pytest.approx(1)
    assert kinds["all_layers"]["ssim"] == pytest.approx(1)


def test_only_what_was_asked_for_is_shuffled(xml, pixels):
    plain = answers(xml, pixels)
    last = answers(xml, pixels, shuffle_weights("last_layer", 0))
    every = answers(xml, pixels, shuffle_weights("all_layers", 0))
    np.testing.assert_array_equal(last.features, plain.features)
    assert np.abs(last.probabilities - plain.probabilities).max() > 0.01
    assert np.abs(every.features - plain.features).max() > 0.01
    again = answers(xml, pixels, shuffle_weights("all_layers", 0))
    np.testing.assert_array_equal(again.class_maps, every.class_maps)
    other = answers(xml, pixels, shuffle_weights("all_layers", 1))
    assert np.abs(other.class_maps - every.class_maps).max() > 0.01


def constants(graph) -> list[np.ndarray]:
    found = [node.data for node in graph.get_ordered_ops() if node.get_type_name() == "Constant"]
    return [data for data in found if data.dtype.kind == "f" and data.size > 1]


def test_values_are_permuted_and_none_is_changed(xml):
    read = import_openvino().Core().read_model
    graph = read(xml)
    shuffle_weights("all_layers", 0)(graph)

    def sorted_values(one) -> list[list[float]]:
        return sorted(sorted(data.ravel().tolist()) for data in constants(one))

    plain = read(xml)
    assert sorted_values(graph) == sorted_values(plain)
    same = [np.array_equal(a, b) for a in constants(graph) for b in constants(plain)]
    assert not any(same), "each constant is in another order"


def test_the_map_is_still_that_of_the_probabilities(xml, pixels):
    """The head is shuffled alike where it makes the probabilities and where it makes the maps."""
    for kind in KINDS:
        model = compile_model(
            xml, name="tiny", class_names=CLASS_NAMES, input_size_px=INPUT_SIZE_PX,
            alter=shuffle_weights(kind, 2),
        )  # fmt: skip
        raw = model.compiled.create_infer_request().infer(pixels[..., None].astype(np.float32))
        named = {next(iter(port.get_names())): value for port, value in raw.items()}
        logits = named["class_maps"].mean(axis=(1, 2), dtype=np.float64)
        shares = np.exp(logits - logits.max(axis=1, keepdims=True))
        shares /= shares.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(named["probabilities"], shares, atol=1e-4)


def test_figures_are_those_of_two_small_maps():
    before = np.array([[1.0, 2.0], [3.0, -4.0]])
    after = np.array([[2.0, 1.0], [3.0, -4.0]])
    found = compare_maps([before], [[after], [-before]])
    ranks = [np.corrcoef(rankdata(before), rankdata(x))[0, 1] for x in (after, -before)]
    assert found["rank"] == pytest.approx(np.mean(ranks))
    assert found["rank_abs"] == pytest.approx(np.mean(np.abs(ranks)))
    assert found["by_shuffle"] == pytest.approx(np.abs(ranks))
    assert (found["n"], found["blank"]) == (1, 0)


def test_a_map_that_went_blank_is_another_map():
    before = np.array([[1.0, 2.0], [3.0, -4.0]])
    found = compare_maps([before], [[np.full((2, 2), -1.0)]])
    assert (found["rank_abs"], found["blank"]) == (0, 1)


def test_what_cannot_be_checked_is_one_sentence():
    with pytest.raises(SanityError, match="nothing to compare"):
        compare_maps([np.zeros((2, 2))], [[np.ones((2, 2))]])
    with pytest.raises(SanityError, match="Received: 'first'"):
        shuffle_weights("first", 0)
