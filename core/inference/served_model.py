"""Serve exported models: pixels in, probabilities, class activation maps and features out.

The same code evaluates a run and predicts on the Predict page. Nothing here imports Keras.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from core.engine import PRECISIONS, import_openvino
from core.errors import UserError
from core.inference.receptive_field import Places, align_maps, find_places
from core.runs.artifacts import ArtifactError, model_files
from core.runs.missing_weights import retrain_command
from core.runs.run import Run

if TYPE_CHECKING:
    from openvino import CompiledModel


class InferenceError(UserError):
    """A model that cannot be loaded or fed; the message is one sentence."""


@dataclass(frozen=True)
class Output:
    """What a model says about n images, row by row.

    probabilities (n, classes) float32, each row sums to 1; class_maps (n, h, w, classes) float32
    logits by place, lined up with the image (core.inference.receptive_field), None where the
    model has no class activation map (core.inference.class_activation.model_maps then uses
    core.inference.occlusion); features (n, d) float32, the pooled last layer.
    """

    probabilities: np.ndarray
    class_maps: np.ndarray | None
    features: np.ndarray


@dataclass(frozen=True)
class ServedModel:
    """An exported model, compiled for this CPU at a stated precision. Safe to share by threads.

    places: where the cells of its class activation map look, None where that is not known.
    """

    name: str
    class_names: tuple[str, ...]
    input_size_px: int
    precision: str
    tta: str
    compiled: CompiledModel
    places: Places | None = None

    def predict(self, pixels: np.ndarray, batch_size: int = 32) -> Output:
        """Predict for uint8 or float pixels (n, size, size) in 0..255.

        With tta "flip" the mirrored images are predicted too: probabilities and features are means,
        maps are turned back before the mean.

        Raises:
            InferenceError: pixels of another shape.
        """
        expected = (self.input_size_px, self.input_size_px)
        if pixels.ndim != 3 or pixels.shape[1:] != expected:
            raise InferenceError(
                f"{self.name} takes pixels of shape (n, {expected[0]}, {expected[1]}). "
                f"Received: {pixels.shape}."
            )
        parts = [
            self._predict_batch(pixels[start : start + batch_size])
            for start in range(0, len(pixels), batch_size)
        ]
        if not parts:
            raise InferenceError(f"{self.name} was given no images.")
        probabilities, maps, features = zip(*parts, strict=True)
        return Output(
            np.concatenate(probabilities),
            None if maps[0] is None else np.concatenate(maps),
            np.concatenate(features),
        )

    def _predict_batch(self, pixels: np.ndarray) -> _Arrays:
        images = np.asarray(pixels, dtype=np.float32)[..., None]
        if self.tta != "flip":
            return self._forward(images)
        both = self._forward(np.concatenate([images, images[:, :, ::-1]]))
        n = len(images)
        probabilities, maps, features = both
        if maps is not None:
            maps = (maps[:n] + maps[n:, :, ::-1]) / 2
        return (probabilities[:n] + probabilities[n:]) / 2, maps, (features[:n] + features[n:]) / 2

    def _forward(self, images: np.ndarray) -> _Arrays:
        # A request of its own for every call: compiled models are shared by the server's threads.
        result = self.compiled.create_infer_request().infer(images)
        named = {next(iter(port.get_names())): np.array(value) for port, value in result.items()}
        maps = named.get("class_maps")
        if maps is not None:
            # Before mirrored maps are turned back: a shift to the right is one in their frame.
            maps = align_maps(maps, self.places, self.input_size_px)
        return named["probabilities"], maps, named["features"]


# Probabilities, class maps, features.
_Arrays = tuple[np.ndarray, np.ndarray | None, np.ndarray]


def load_model(run: Run, name: str, alter: Callable[[Any], None] | None = None) -> ServedModel:
    """Load one model of a run after checking its hashes, at the precision that run.json states.

    alter(graph) may change the OpenVINO model that was read before it is compiled
    (core.evaluation.heatmaps.sanity_checks); the files stay as they are.

    Raises:
        core.runs.artifacts.ArtifactError: the files are missing, changed or were not kept.
        InferenceError: a model that the run does not have, or a file that OpenVINO cannot read.
    """
    if name not in run.singles:
        raise InferenceError(f"Run {run.name} has no model {name!r}. It has: {run.singles}.")
    if name not in run.served:
        raise ArtifactError(
            f"The weights of {run.title(name)} were not kept in run {run.name}; "
            f"`{retrain_command(run.info)}` trains it again."
        )
    xml, _ = model_files(run, name)
    sizes = run.info.get("model_input_size_px", {})
    return compile_model(
        xml,
        name=name,
        class_names=tuple(run.class_names),
        input_size_px=int(sizes.get(name, run.info["input_size_px"])),
        precision=run.info.get("precision", "f32"),
        tta=str(run.info.get("tta", "none")),
        alter=alter,
    )


def compile_model(
    xml: Path,
    *,
    name: str,
    class_names: tuple[str, ...],
    input_size_px: int,
    precision: str = "f32",
    tta: str = "none",
    alter: Callable[[Any], None] | None = None,
) -> ServedModel:
    """Compile an exported file. The precision is always set: left alone, a CPU picks its own."""
    if precision not in PRECISIONS:
        raise InferenceError(f"Unknown precision {precision!r}. Known: {', '.join(PRECISIONS)}.")
    core = import_openvino().Core()
    settings = {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}
    try:
        graph = core.read_model(xml)
        if alter is not None:
            alter(graph)
        places = find_places(graph)
        compiled = core.compile_model(graph, "CPU", settings)
    except RuntimeError as error:
        raise InferenceError(
            f"{name} cannot be loaded: {xml.name} is not a model that OpenVINO can read."
        ) from error
    side = compiled.input(0).get_partial_shape()[1]
    if side.is_static and side.get_length() != input_size_px:
        raise InferenceError(
            f"{name} takes images of {side.get_length()} px, but its run says {input_size_px} px; "
            "restore run.json or train the run anew."
        )
    return ServedModel(name, class_names, input_size_px, precision, tta, compiled, places)


def measure_latencies_ms(
    models: dict[str, ServedModel], pixels: dict[str, np.ndarray], rounds: int = 20
) -> dict[str, float]:
    """Median milliseconds of each model for one image (1, size, size), flips included, once warm.

    The models take turns, so that whatever else the machine does meets all of them alike.
    """
    times: dict[str, list[float]] = {name: [] for name in models}
    for number in range(rounds + 3):
        for name, model in models.items():
            start = time.perf_counter()
            model.predict(pixels[name])
            if number >= 3:
                times[name].append((time.perf_counter() - start) * 1000)
    return {name: float(np.median(values)) for name, values in times.items()}
