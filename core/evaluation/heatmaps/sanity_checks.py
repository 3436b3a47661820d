"""Does a heat map come from what the model learned? Its weights are shuffled, and it must change.

Model parameter randomisation (Adebayo et al. 2018, "Sanity checks for saliency maps", section 3): a
map that stays as it is when the weights are random shows the image or the architecture, such as
an edge detector does, and explains nothing. The values are permuted within each constant of the
model that is served, so that their sizes stay as they were and only what was learned is gone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from scipy.stats import spearmanr

from core.errors import UserError
from core.inference.class_activation import heat_map, stretch_heat

KINDS = {"last_layer": "the last layer", "all_layers": "all layers"}
DECIDING = "all_layers"
LIMIT = 0.5
SIDE_PX = 112  # maps are stretched to it for SSIM, whose window is wider than a small map
RULE = (
    "A model fails when the mean absolute rank correlation between its maps before and after "
    f"shuffling all layers is above {LIMIT:g}: its maps are then more of the picture than of what "
    "it learned."
)

_LAYERS = ("Convolution", "GroupConvolution", "MatMul")
_AFTER_LAYERS = ("Add", "Multiply")  # biases, and scales that were not folded into kernels


class SanityError(UserError):
    """A check that cannot be made; the message is one plain sentence."""


def shuffle_weights(kind: str, seed: int) -> Callable[[object], None]:
    """A function for core.inference.served_model.load_model(alter=...) that permutes weights in
    place.

    kind: one of KINDS; "last_layer" is the kernel (and bias) that the probabilities come from, and
    its copy that draws the class activation map. Raises SanityError for an unknown kind.
    """
    if kind not in KINDS:
        raise SanityError(f"Weights are shuffled in {' or '.join(KINDS)}. Received: {kind!r}.")

    def alter(graph) -> None:
        constants = _last_layer(graph) if kind == "last_layer" else _all_layers(graph)
        if not constants:
            raise SanityError("The model has no weights that could be shuffled.")
        for constant in constants:
            _replace(constant, _permute(constant.data, seed))

    return alter


def compare_maps(before: Sequence[np.ndarray], shuffles: Sequence[Sequence[np.ndarray]]) -> dict:
    """How alike maps are to those of the same images and class before the weights were shuffled.

    before: what speaks for and against a class, (h, w) each
    (core.inference.class_activation.class_evidence); shuffles: for each shuffle the same again.
    Returns {n, rank, rank_abs, ssim, blank, by_shuffle}: mean Spearman rank correlation and the
    mean of its absolute value (by_shuffle: in each shuffle), mean structural similarity (Wang et
    al. 2004) of the heat maps as they are shown, stretched to SIDE_PX, and the share of shuffled
    maps that show no heat. A map that is the same everywhere has no ranks: afterwards it counts as
    correlation 0, before it is left out.

    Raises:
        SanityError: no image has a map before.
    """
    kept = [i for i, values in enumerate(before) if np.ptp(values) > 0]
    if not kept or not shuffles:
        raise SanityError("None of the maps shows anything, so there is nothing to compare.")
    ranks = np.array([[rank_correlation(before[i], after[i]) for i in kept] for after in shuffles])
    heats = {i: heat_map(before[i]) for i in kept}
    alike = [_similarity(heats[i], heat_map(after[i])) for after in shuffles for i in kept]
    return {
        "n": len(kept),
        "rank": float(ranks.mean()),
        "rank_abs": float(np.abs(ranks).mean()),
        "by_shuffle": np.abs(ranks).mean(axis=1).tolist(),
        "ssim": float(np.mean(alike)),
        "blank": float(np.mean([after[i].max() <= 0 for after in shuffles for i in kept])),
    }


def judge(kinds: dict[str, dict]) -> bool:
    """Whether the maps change enough by RULE; kinds: kind -> {rank_abs, ...}."""
    return kinds[DECIDING]["rank_abs"] <= LIMIT


def rank_correlation(before: np.ndarray, after: np.ndarray) -> float:
    """Spearman's, cell by cell; 0 where `after` is the same everywhere."""
    if not np.ptp(after) > 0:
        return 0.0
    if before.shape != after.shape:
        raise SanityError(f"Maps of one shape were expected: {before.shape} and {after.shape}.")
    return float(spearmanr(before.ravel(), after.ravel()).statistic)


def _similarity(before: np.ndarray, after: np.ndarray) -> float:
    # Needed by this check alone, so the dashboard does without it.
    from skimage.metrics import structural_similarity

    # The settings of Wang et al. 2004.
    maps = (stretch_heat(heat, SIDE_PX, SIDE_PX) for heat in (before, after))
    settings = {"data_range": 1.0, "gaussian_weights": True, "sigma": 1.5}
    return float(structural_similarity(*maps, use_sample_covariance=False, **settings))


# ------------------------------------------------------------------------ weights of a graph


def _all_layers(graph) -> list:
    """Constants of every layer: kernels, and what is added or multiplied after the first of them.

    What comes before the first layer prepares the image (scales, means) and was not learned.
    """
    found: dict[str, Any] = {}
    begun = False
    for node in graph.get_ordered_ops():
        kind = node.get_type_name()
        if kind in _LAYERS or (begun and kind in _AFTER_LAYERS):
            constants = _own_constants(node)
            begun = begun or (kind in _LAYERS and bool(constants))
            found |= {constant.get_name(): constant for constant in constants}
    return list(found.values())


def _last_layer(graph) -> list:
    """Constants of the layers right before the probabilities and the class activation maps."""
    found: dict[str, Any] = {}
    for result in graph.get_results():
        names = result.input_value(0).get_names()
        if not names & {"probabilities", "class_maps"}:
            continue
        node = result
        while not (node.get_type_name() in _LAYERS and _own_constants(node)):
            if node.get_type_name() in _AFTER_LAYERS:
                found |= {constant.get_name(): constant for constant in _own_constants(node)}
            before = [value.get_node() for value in node.input_values()]
            before = [one for one in before if _as_constant(one) is None]
            if not before:
                break
            node = before[0]
        else:
            found |= {constant.get_name(): constant for constant in _own_constants(node)}
    return list(found.values())


def _own_constants(node) -> list:
    """Its inputs that are stored numbers, more than one each: a single one has no order."""
    inputs = (_as_constant(value.get_node()) for value in node.input_values())
    return [constant for constant in inputs if constant is not None and constant.data.size > 1]


def _as_constant(node):
    """The stored floating-point constant behind an input, also one kept at half precision."""
    if node.get_type_name() == "Convert":
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant" or node.data.dtype.kind != "f":
        return None
    return node


def _permute(values: np.ndarray, seed: int) -> np.ndarray:
    # The kernel of the last layer is stored twice (probabilities, maps): equal constants are
    # permuted alike, so that the map still is that of the probabilities.
    key = hashlib.sha256(np.asarray(values, np.float32).tobytes()).digest()[:8]
    rng = np.random.default_rng([seed, int.from_bytes(key, "big")])
    return rng.permutation(values.ravel()).reshape(values.shape)


def _replace(constant, values: np.ndarray) -> None:
    from openvino import opset13

    fresh = opset13.constant(np.ascontiguousarray(values))
    for target in constant.output(0).get_target_inputs():
        target.replace_source_output(fresh.output(0))
