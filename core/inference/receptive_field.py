"""Where in the image the cells of a model's map look, by the layers' strides and padding.

A cell of a feature map is drawn as if the map were the image made small. That is only so where
every layer halves evenly: with padding on one side, or a size that 2 does not divide, the centres
of the cells' receptive fields lie elsewhere, by up to half a cell and more (Araujo et al. 2019,
"Computing receptive fields of convolutional neural networks", Distill, section "Alignment").
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

# Maps that are off by less than this share of a cell everywhere are left as they are.
ALIGNED_CELLS = 0.1

_WINDOWS = ("Convolution", "GroupConvolution", "MaxPool", "AvgPool")
# Place by place, or along the channels: no cell of these looks elsewhere than the one before it.
_IN_PLACE = (
    "Add", "BatchNormInference", "Clamp", "Concat", "Convert", "Divide", "Elu", "Gelu", "HSwish",
    "MatMul", "Multiply", "PRelu", "Relu", "Sigmoid", "Subtract", "Swish", "Tanh",
)  # fmt: skip


@dataclass(frozen=True)
class Places:
    """Centres of a map's cells in px of the model's square, along (rows, columns).

    Cell i looks at first_px + i * step_px; 0 is the edge of the image, so that its first pixel
    lies at 0.5.
    """

    first_px: tuple[float, float]
    step_px: tuple[float, float]


def find_places(graph, output: str = "class_maps") -> Places | None:
    """Places of an OpenVINO model's output (n, h, w, C) for an input (n, size, size, 1).

    None where the model has no such output, or a layer whose effect on places is not known.
    """
    known: dict[str, Places] = {}
    for node in graph.get_ordered_ops():
        kind = node.get_type_name()
        if kind == "Parameter":
            known[node.get_name()] = Places((0.5, 0.5), (1.0, 1.0))
        elif kind == "Result" and output in node.input_value(0).get_names():
            return known.get(node.input_value(0).get_node().get_name())
        else:
            before = [known.get(value.get_node().get_name()) for value in node.input_values()]
            # Weights have no place; branches that meet must look at the same one.
            met = {places for places in before if places is not None}
            if len(met) == 1:
                places = _step(node, kind, met.pop())
                if places is not None:
                    known[node.get_name()] = places
    return None


def _step(node, kind: str, places: Places) -> Places | None:
    """Places after one layer, None where it is of an unknown kind."""
    if kind in _IN_PLACE or (kind == "Transpose" and _keeps_rows_first(node)):
        return places
    if kind == "Pad":
        offset = -node.input_value(1).get_node().data[2:4].astype(float)
        return _moved(places, offset, (1, 1))
    if kind not in _WINDOWS:
        return None
    facts = node.get_attributes()
    kernel = facts.get("kernel") or [
        side.get_length() for side in list(node.input_value(1).get_partial_shape())[-2:]
    ]
    spread = facts.get("dilations") or (1, 1)
    offset = [
        (side - 1) * wide / 2 - pad
        for side, wide, pad in zip(kernel, spread, facts["pads_begin"], strict=True)
    ]
    return _moved(places, offset, facts["strides"])


def _keeps_rows_first(node) -> bool:
    """Whether a transposition only moves the channels, to the front or to the back."""
    return list(node.input_value(1).get_node().data) in ([0, 3, 1, 2], [0, 2, 3, 1])


def _moved(places: Places, offset, strides) -> Places:
    rows, columns = (
        (first + float(off) * step, step * float(stride))
        for first, off, step, stride in zip(
            places.first_px, offset, places.step_px, strides, strict=True
        )
    )
    return Places((rows[0], columns[0]), (rows[1], columns[1]))


def align_maps(maps: np.ndarray, places: Places | None, size_px: int) -> np.ndarray:
    """Maps (n, h, w, C) lined up with the image: each cell shows its own share of the square.

    Maps that are so already come back as they are; others are drawn on a grid of twice the cells,
    linear in between and, at the edges, as the nearest cell.
    """
    if places is None:
        return maps
    weights = [
        _weights(length, first, step, size_px)
        for length, first, step in zip(
            maps.shape[1:3], places.first_px, places.step_px, strict=True
        )
    ]
    if all(matrix is None for matrix in weights):
        return maps
    rows, columns = (
        np.eye(length, dtype=np.float32) if matrix is None else matrix
        for length, matrix in zip(maps.shape[1:3], weights, strict=True)
    )
    return np.einsum("rh,nhwc,kw->nrkc", rows, maps, columns, optimize=True)


def _weights(length: int, first: float, step: float, size_px: int) -> np.ndarray | None:
    """(2 * length, length) from cells as they lie to cells as they are drawn; None: no need."""
    cell = size_px / length
    lies = first + step * np.arange(length)
    if np.abs(lies - cell * (np.arange(length) + 0.5)).max() < ALIGNED_CELLS * cell:
        return None
    drawn = (np.arange(2 * length) + 0.5) * cell / 2
    columns = [np.interp(drawn, lies, unit) for unit in np.eye(length)]
    return np.stack(columns, axis=1).astype(np.float32)
