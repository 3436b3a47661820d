"""Images in, all that is said about them out: the same for `predict` and for the Predict page.

A prediction has what every model says (as served and calibrated, with the classes it cannot rule
out), whether the image looks like what the run learned from, and the training images most like it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import numpy as np

from core.imageio.decode import Decoded, resize_square
from core.inference.ensemble import as_shares
from core.inference.served_model import InferenceError, Output, ServedModel, load_model
from core.metrics.calibration import apply_calibration
from core.metrics.classification import predicted_index
from core.metrics.conformal import ALPHA, prediction_sets
from core.runs.artifacts import ArtifactError
from core.runs.missing_weights import left_out, left_out_sentence, need_weights
from core.runs.run import Run
from core.serving.guard.detector import Guard, Judgement, Neighbour, load_guard

# Images predicted at once in a long table. More are no quicker each, take memory (a network at
# 448 px 1.2 GB at 16) and keep others waiting.
BATCH = 8
NO_WEIGHTS = "Models"  # what `problems` calls those whose weights were not kept


@dataclass(frozen=True)
class ModelPrediction:
    """What one model says about one image; an ensemble says the mean of its members.

    probabilities (C,) as served; calibrated (C,), None where the run has no calibration for the
    model; conformal_set: the classes that cannot be ruled out, () where that is not known.
    class_maps (h, w, C): logits by place, None where the model has none or none was wanted;
    members: the models whose mean this is. latency_ms: this one image, resizing left out; the
    sum of the members' for an ensemble, and 0 in a table of many images.
    """

    model: str
    title: str
    predicted: str
    probabilities: np.ndarray
    calibrated: np.ndarray | None = None
    conformal_set: tuple[str, ...] = ()
    class_maps: np.ndarray | None = None
    members: tuple[str, ...] = ()
    latency_ms: float = 0.0
    precision: str = ""
    input_size_px: int = 0

    @property
    def shares(self) -> np.ndarray:
        """The probabilities that people are shown (C,): calibrated ones where there are any."""
        return self.probabilities if self.calibrated is None else self.calibrated

    @property
    def confidence(self) -> float:
        """The share of the class that the model calls."""
        return float(self.shares[int(self.probabilities.argmax())])


@dataclass(frozen=True)
class ImagePrediction:
    """Every model's prediction of one image: single models first, then ensembles, in run order.

    problems: a model's title -> one sentence, for those that cannot predict. judgement: None where
    the run has no guard or its model cannot predict; then nothing is known of the image's kind.
    seconds: from pixels to this prediction.
    """

    class_names: tuple[str, ...]
    predictions: tuple[ModelPrediction, ...]
    problems: Mapping[str, str] = field(default_factory=dict)
    judgement: Judgement | None = None
    neighbours: tuple[Neighbour, ...] = ()
    seconds: float = 0.0

    def of(self, model: str) -> ModelPrediction | None:
        """One model's prediction, None where it has none."""
        return next((own for own in self.predictions if own.model == model), None)

    @property
    def refused(self) -> bool:
        """Whether the guard says that this is not the kind of image that the run learned from."""
        return self.judgement is not None and not self.judgement.looks_right


@dataclass(frozen=True)
class Predictor:
    """A run's models and guard, ready to predict. Safe to share by threads.

    models: name -> served model, those that could be loaded; problems: title -> sentence of the
    others, and of a guard that is damaged.
    """

    run: Run
    models: Mapping[str, ServedModel]
    guard: Guard | None = None
    problems: Mapping[str, str] = field(default_factory=dict)

    def predict(
        self, decoded: Decoded, *, chosen: Sequence[str] | None = None, neighbours: int = 5
    ) -> ImagePrediction:
        """All that is said about one image, maps included.

        chosen: the models whose predictions are wanted (all where None); an ensemble needs its
        members, which predict too. The guard's model predicts in any case.
        """
        started = time.perf_counter()
        outputs: dict[str, Output] = {}
        latencies: dict[str, float] = {}
        squares: dict[int, np.ndarray] = {}
        for name, model in self._needed_models(chosen).items():
            size = model.input_size_px
            if size not in squares:
                squares[size] = resize_square(decoded.pixels, size)[None]
            before = time.perf_counter()
            outputs[name] = model.predict(squares[size])
            latencies[name] = 1000 * (time.perf_counter() - before)
        nearest: tuple[Neighbour, ...] = ()
        if neighbours and self.guard is not None and self.guard.model in outputs:
            features = outputs[self.guard.model].features[0]
            nearest = tuple(self.guard.nearest(features, neighbours))
        return ImagePrediction(
            class_names=tuple(self.run.class_names),
            predictions=self._read_outputs(outputs, 0, chosen, latencies, maps=True),
            problems=dict(self.problems),
            judgement=self._check_ood(outputs, 0, decoded),
            neighbours=nearest,
            seconds=time.perf_counter() - started,
        )

    def predict_many(
        self, images: Sequence[Decoded], *, chosen: Sequence[str] | None = None
    ) -> list[ImagePrediction]:
        """The predictions about many images, without maps and neighbours, made in batches."""
        predictions = []
        for start in range(0, len(images), BATCH):
            predictions += self._predict_batch(images[start : start + BATCH], chosen)
        return predictions

    def _predict_batch(
        self, images: Sequence[Decoded], chosen: Sequence[str] | None
    ) -> list[ImagePrediction]:
        started = time.perf_counter()
        models = self._needed_models(chosen)
        sizes = {model.input_size_px for model in models.values()}
        squares = {s: np.stack([resize_square(one.pixels, s) for one in images]) for s in sizes}
        outputs = {n: model.predict(squares[model.input_size_px]) for n, model in models.items()}
        rows = [
            (self._read_outputs(outputs, row, chosen), self._check_ood(outputs, row, decoded))
            for row, decoded in enumerate(images)
        ]
        each = (time.perf_counter() - started) / len(images)
        names = tuple(self.run.class_names)
        return [
            ImagePrediction(names, predictions, dict(self.problems), judgement, (), each)
            for predictions, judgement in rows
        ]

    def _chosen_models(self, chosen: Sequence[str] | None) -> set[str]:
        """The single models that a choice needs: of an ensemble its members."""
        names = self.run.models if chosen is None else chosen
        members = [member for name in names for member in self.run.members(name)]
        return (set(names) | set(members)) & set(self.models)

    def _needed_models(self, chosen: Sequence[str] | None) -> dict[str, ServedModel]:
        """The models of a choice and the guard's."""
        names = self._chosen_models(chosen) | ({self.guard.model} if self.guard else set())
        return {name: model for name, model in self.models.items() if name in names}

    def _read_outputs(
        self,
        outputs: Mapping[str, Output],
        row: int,
        chosen: Sequence[str] | None,
        latencies: Mapping[str, float] = MappingProxyType({}),
        *,
        maps: bool = False,
    ) -> tuple[ModelPrediction, ...]:
        """What the models' outputs say of image `row`: single models, then ensembles."""
        wanted = self._chosen_models(chosen)
        shares = {
            m: as_shares(outputs[m].probabilities[row]) for m in self.run.served if m in wanted
        }
        predictions = []
        for name, own in shares.items():
            class_maps = outputs[name].class_maps if maps else None
            predictions.append(
                self._describe(
                    name,
                    own,
                    latency_ms=latencies.get(name, 0.0),
                    class_maps=None if class_maps is None else class_maps[row],
                )
            )
        for name in self.run.models:
            members = self.run.members(name)
            is_chosen = chosen is None or name in chosen
            if members and is_chosen and set(members) <= wanted:
                mean = as_shares(np.mean([shares[member] for member in members], axis=0))
                total_ms = sum(latencies.get(member, 0.0) for member in members)
                predictions.append(
                    self._describe(name, mean, latency_ms=total_ms, members=tuple(members))
                )
        return tuple(predictions)

    def _describe(
        self,
        name: str,
        probabilities: np.ndarray,
        *,
        latency_ms: float,
        members: tuple[str, ...] = (),
        class_maps: np.ndarray | None = None,
    ) -> ModelPrediction:
        described = describe_prediction(self.run, name, probabilities)
        calibrated = described["calibrated"]
        served = self.models.get(name)
        return ModelPrediction(
            model=name,
            title=self.run.title(name),
            predicted=described["predicted"],
            probabilities=probabilities,
            calibrated=np.array([calibrated[c] for c in self.run.class_names])
            if calibrated
            else None,
            conformal_set=tuple(described["conformal_set"]),
            class_maps=class_maps,
            members=members,
            latency_ms=latency_ms,
            precision=served.precision if served else str(self.run.info.get("precision", "f32")),
            input_size_px=served.input_size_px if served else 0,
        )

    def _check_ood(
        self, outputs: Mapping[str, Output], row: int, decoded: Decoded
    ) -> Judgement | None:
        """Whether the guard takes image `row` for what the run learned from; None without one."""
        if self.guard is None or self.guard.model not in outputs:
            return None
        model = self.models[self.guard.model]
        features = outputs[self.guard.model].features[row]
        return self.guard.check(features, decoded, lambda pixels: model.predict(pixels).features)


def open_predictor(run: Run, load: Callable[[Run, str], ServedModel] = load_model) -> Predictor:
    """All models of a run that can be loaded, and its guard. What cannot be is in `problems`.

    Models whose weights were not kept share one sentence there, under NO_WEIGHTS. load(run, model)
    may be a cached core.inference.served_model.load_model.

    Raises:
        ArtifactError: no weights were kept, or no model at all can be loaded; the sentence is then
            the first model's.
    """
    need_weights(run)
    models, problems = {}, {}
    if left_out(run):
        problems[NO_WEIGHTS] = left_out_sentence(run)
    for name in run.served:
        try:
            models[name] = load(run, name)
        except (ArtifactError, InferenceError) as error:
            problems[run.title(name)] = str(error)
    if not models:
        raise ArtifactError(problems[run.title(run.served[0])])
    guard = None
    try:
        guard = load_guard(run)
    except ArtifactError as error:
        problems["Guard"] = str(error)
    if guard is not None and guard.model not in models:
        why = "cannot be loaded" if guard.model in run.served else "was not kept"
        problems["Guard"] = (
            f"Whether this looks like {guard.subject} cannot be told: {run.title(guard.model)}, "
            f"whose features tell it, {why}."
        )
        guard = None
    return Predictor(run, models, guard, problems)


def warm_up(predictor: Predictor) -> None:
    """Let every model predict once, so that nobody waits for what engines set up late."""
    for model in predictor.models.values():
        model.predict(np.zeros((1, model.input_size_px, model.input_size_px), np.uint8))


def conformal_text(conformal_set: Sequence[str], class_names: Sequence[str]) -> str:
    """The classes that cannot be ruled out, such as "covid or pneumonia; the model cannot tell them
    apart here"; "" where that is not known.
    """
    inside = [name for name in class_names if name in conformal_set]
    if not inside:
        return ""
    if len(inside) == 1:
        return f"{inside[0]} only"
    listed = f"{', '.join(inside[:-1])} or {inside[-1]}"
    if len(inside) == len(class_names) > 2:
        return f"{listed}; the model rules nothing out here"
    return f"{listed}; the model cannot tell them apart here"


def conformal_promise(run: Run, model: str) -> str:
    """What the sets of one model promise, in one sentence; "" where it has none."""
    fitted = (run.info.get("conformal") or {}).get(model)
    if not fitted:
        return ""
    share = 100 * (1 - float(fitted.get("alpha", ALPHA)))
    return (
        f"Sets are made to hold the true class for {share:.0f}\u202f% of patients like those of "
        "the data set; for others nothing is promised."
    )


def describe_prediction(run: Run, model: str, probabilities: np.ndarray) -> dict[str, Any]:
    """One model's answer about one image: {predicted, probabilities, calibrated, conformal_set}.

    probabilities (C,), as served. calibrated {class: share} is {} and conformal_set (the classes
    that cannot be ruled out) [] where the run holds no calibration for the model.
    """
    names = run.class_names
    answer: dict[str, Any] = {
        "predicted": names[int(predicted_index(probabilities))],
        "probabilities": dict(zip(names, map(float, probabilities), strict=True)),
        "calibrated": {},
        "conformal_set": [],
    }
    calibration = (run.info.get("calibration") or {}).get(model)
    if calibration:
        shares = apply_calibration(np.asarray(probabilities)[None], calibration, names)
        answer["calibrated"] = dict(zip(names, map(float, shares[0]), strict=True))
        conformal = (run.info.get("conformal") or {}).get(model)
        if conformal:
            inside = prediction_sets(shares, conformal["threshold"])[0]
            answer["conformal_set"] = [
                name for name, is_in in zip(names, inside, strict=True) if is_in
            ]
    return answer
