"""Pictures in, all that is said about them out: the same for `predict` and for the Predict page.

An answer has what every model says (as served and calibrated, with the classes it cannot rule out),
whether the picture looks like what the run learned from, and the training images most like it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from core.imageio.decode import Decoded, resize_square
from core.inference.answers import describe_prediction
from core.inference.ensemble import as_shares
from core.inference.served_model import InferenceError, Output, ServedModel, load_model
from core.metrics.conformal import ALPHA
from core.runs.artifacts import ArtifactError
from core.runs.missing_weights import left_out, left_out_sentence, need_weights
from core.runs.run import Run
from core.serving.guard.detector import Guard, Judgement, Neighbour, load_guard

# Pictures asked about at once in a long table. More are no quicker each, take memory (a network at
# 448 px 1.2 GB at 16) and keep others waiting.
BATCH = 8
NOT_ASKED = "Models"  # what `problems` calls those whose weights were not kept


@dataclass(frozen=True)
class ModelPrediction:
    """What one model says about one picture; an ensemble says the mean of its members.

    probabilities (C,) as served; calibrated (C,), None where the run has no calibration for the
    model; conformal_set: the classes that cannot be ruled out, () where that is not known.
    class_maps (h, w, C): logits by place, None where the model has none or none was wanted;
    members: the models whose mean this is. latency_ms: this one picture, resizing left out; the
    sum of the members' for an ensemble, and 0 in a table of many pictures.
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
    """Every model's answer about one picture: single models first, then means, in run order.

    problems: a model's title -> one sentence, for those that cannot answer. judgement: None where
    the run has no guard or its model cannot be asked; then nothing is known of the picture's kind.
    seconds: from pixels to this answer.
    """

    class_names: tuple[str, ...]
    answers: tuple[ModelPrediction, ...]
    problems: Mapping[str, str] = field(default_factory=dict)
    judgement: Judgement | None = None
    neighbours: tuple[Neighbour, ...] = ()
    seconds: float = 0.0

    def of(self, model: str) -> ModelPrediction | None:
        """One model's answer, None where it has none."""
        return next((own for own in self.answers if own.model == model), None)

    @property
    def refused(self) -> bool:
        """Whether the guard says that this is not the kind of picture that the run learned from."""
        return self.judgement is not None and not self.judgement.looks_right


@dataclass(frozen=True)
class Predictor:
    """A run's models and guard, ready to be asked. Safe to share by threads.

    models: name -> served model, those that could be loaded; problems: title -> sentence of the
    others, and of a guard that is damaged.
    """

    run: Run
    models: Mapping[str, ServedModel]
    guard: Guard | None = None
    problems: Mapping[str, str] = field(default_factory=dict)

    def answer(
        self, decoded: Decoded, *, chosen: Sequence[str] | None = None, neighbours: int = 5
    ) -> ImagePrediction:
        """All that is said about one picture, maps included.

        chosen: the models whose answers are wanted (all where None); an ensemble asks its members,
        which answer too. The guard's model is asked in any case.
        """
        started = time.perf_counter()
        wanted = self._asked(chosen)
        guarded = {self.guard.model} & set(self.models) if self.guard else set()
        outputs: dict[str, Output] = {}
        latencies: dict[str, float] = {}
        squares: dict[int, np.ndarray] = {}
        for name, model in self.models.items():
            if name not in wanted and name not in guarded:
                continue
            size = model.input_size_px
            if size not in squares:
                squares[size] = resize_square(decoded.pixels, size)[None]
            before = time.perf_counter()
            outputs[name] = model.predict(squares[size])
            latencies[name] = 1000 * (time.perf_counter() - before)
        answers = self._describe(outputs, 0, wanted, chosen, latencies, maps=True)
        judgement, near = None, ()
        if guarded:
            features = outputs[self.guard.model].features[0]
            judgement = self._judge(features, decoded)
            near = tuple(self.guard.nearest(features, neighbours)) if neighbours else ()
        return ImagePrediction(
            tuple(self.run.class_names), answers, dict(self.problems), judgement, near,
            time.perf_counter() - started,
        )  # fmt: skip

    def predict_many(
        self, pictures: Sequence[Decoded], *, chosen: Sequence[str] | None = None
    ) -> list[ImagePrediction]:
        """The answers about many pictures, without maps and neighbours, asked in batches."""
        answered = []
        for start in range(0, len(pictures), BATCH):
            answered += self._predict_batch(pictures[start : start + BATCH], chosen)
        return answered

    def _predict_batch(
        self, pictures: Sequence[Decoded], chosen: Sequence[str] | None
    ) -> list[ImagePrediction]:
        started = time.perf_counter()
        wanted = self._asked(chosen)
        guarded = {self.guard.model} & set(self.models) if self.guard else set()
        asked = {n: m for n, m in self.models.items() if n in wanted or n in guarded}
        sizes = {model.input_size_px for model in asked.values()}
        squares = {s: np.stack([resize_square(one.pixels, s) for one in pictures]) for s in sizes}
        outputs = {n: model.predict(squares[model.input_size_px]) for n, model in asked.items()}
        rows = []
        for row, decoded in enumerate(pictures):
            judgement = None
            if guarded:
                judgement = self._judge(outputs[self.guard.model].features[row], decoded)
            answers = self._describe(outputs, row, wanted, chosen, {}, maps=False)
            rows.append((answers, judgement))
        each = (time.perf_counter() - started) / len(pictures)
        names = tuple(self.run.class_names)
        return [
            ImagePrediction(names, answers, dict(self.problems), judgement, (), each)
            for answers, judgement in rows
        ]

    def _asked(self, chosen: Sequence[str] | None) -> set[str]:
        """The single models that a choice asks: an ensemble asks its members."""
        names = self.run.models if chosen is None else chosen
        members = [member for name in names for member in self.run.members(name)]
        return (set(names) | set(members)) & set(self.models)

    def _describe(
        self,
        outputs: Mapping[str, Output],
        row: int,
        wanted: set[str],
        chosen: Sequence[str] | None,
        latencies: Mapping[str, float],
        *,
        maps: bool,
    ) -> tuple[ModelPrediction, ...]:
        run = self.run
        answers = []
        for name in run.served:
            if name not in wanted:
                continue
            shares = as_shares(outputs[name].probabilities[row])
            class_maps = outputs[name].class_maps if maps else None
            answers.append(
                self._one(
                    name, shares, latencies.get(name, 0.0), (),
                    None if class_maps is None else class_maps[row],
                )
            )  # fmt: skip
        for name in run.models:
            members = run.members(name)
            if not members or not set(members) <= wanted or not self._shown(name, chosen):
                continue
            mean = as_shares(
                np.mean([as_shares(outputs[m].probabilities[row]) for m in members], axis=0)
            )
            together = sum(latencies.get(member, 0.0) for member in members)
            answers.append(self._one(name, mean, together, tuple(members), None))
        return tuple(answers)

    def _shown(self, ensemble: str, chosen: Sequence[str] | None) -> bool:
        return chosen is None or ensemble in chosen

    def _one(
        self,
        name: str,
        probabilities: np.ndarray,
        latency_ms: float,
        members: tuple[str, ...],
        class_maps: np.ndarray | None,
    ) -> ModelPrediction:
        said = describe_prediction(self.run, name, probabilities)
        calibrated = [said["calibrated"][c] for c in self.run.class_names if said["calibrated"]]
        served = self.models.get(name)
        return ModelPrediction(
            model=name,
            title=self.run.title(name),
            predicted=said["predicted"],
            probabilities=probabilities,
            calibrated=np.array(calibrated) if calibrated else None,
            conformal_set=tuple(said["conformal_set"]),
            class_maps=class_maps,
            members=members,
            latency_ms=latency_ms,
            precision=served.precision if served else str(self.run.info.get("precision", "f32")),
            input_size_px=served.input_size_px if served else 0,
        )

    def _judge(self, features: np.ndarray, decoded: Decoded) -> Judgement:
        model = self.models[self.guard.model]
        return self.guard.judge(features, decoded, lambda pixels: model.predict(pixels).features)


def open_predictor(run: Run, load: Callable[[Run, str], ServedModel] = load_model) -> Predictor:
    """All models of a run that can be loaded, and its guard. What cannot be is in `problems`.

    Models whose weights were not kept share one sentence there, under NOT_ASKED. load(run, model)
    may be a cached core.inference.served_model.load_model.

    Raises:
        ArtifactError: no weights were kept, or no model at all can be loaded; the sentence is then
            the first model's.
    """
    need_weights(run)
    models, problems = {}, {}
    if left_out(run):
        problems[NOT_ASKED] = left_out_sentence(run)
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
    """Ask every model once, so that the first person does not wait for what engines set up late."""
    for model in predictor.models.values():
        model.predict(np.zeros((1, model.input_size_px, model.input_size_px), np.uint8))


def conformal_words(conformal_set: Sequence[str], class_names: Sequence[str]) -> str:
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
