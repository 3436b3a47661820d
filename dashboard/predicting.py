"""One picture on every model: bytes -> pixels -> answers. No Streamlit, so tests can call it."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from PIL import Image

from core.artifacts import Run
from core.images import decode_image, resize_square
from core.metrics import predicted_index
from core.verdict import CONTROL_SUFFIX

TIMED_RUNS = 3
# Larger pictures are shown smaller: a page needs no more, and the models see far less.
SHOWN_SIDE_PX = 768
NUMBER_WORDS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")


class Served(Protocol):
    """What is asked of a loaded model; core.inference.ServedModel has it."""

    input_size_px: int
    precision: str
    class_names: Sequence[str]

    def predict(self, pixels: np.ndarray) -> Any: ...


@dataclass(frozen=True)
class ModelAnswer:
    """One model's answer: probabilities (C,), class_maps (h, w, C), latency of one image."""

    model: str
    title: str
    probabilities: np.ndarray
    predicted: str
    class_maps: np.ndarray
    latency_ms: float
    precision: str
    input_size_px: int

    @property
    def confidence(self) -> float:
        return float(self.probabilities.max())


@dataclass(frozen=True)
class MeanAnswer:
    """The mean of several answers, each with the same weight.

    model: the run's ensemble that this is, whose figures then tell what it is worth; None for a
    mean that nobody measured. members: the titles it is made of; probabilities (C,).
    """

    model: str | None
    title: str
    members: tuple[str, ...]
    probabilities: np.ndarray
    predicted: str
    latency_ms: float

    @property
    def confidence(self) -> float:
        return float(self.probabilities.max())


@dataclass(frozen=True)
class PictureAnswer:
    """Every model's answer about one picture.

    pixels uint8 (height, width), at most SHOWN_SIDE_PX a side; width, height: the file's own.
    problems: model's title -> one sentence, for the models that could not answer.
    """

    name: str
    pixels: np.ndarray
    width: int
    height: int
    format: str
    class_names: tuple[str, ...]
    answers: tuple[ModelAnswer, ...]
    problems: Mapping[str, str] = field(default_factory=dict)


def answer_picture(
    data: bytes,
    name: str,
    served: Mapping[str, Served],
    class_names: Sequence[str],
    titles: Mapping[str, str] | None = None,
    problems: Mapping[str, str] | None = None,
) -> PictureAnswer:
    """Decode one picture and ask every model in `served`.

    Raises ImageError (core.images) where the bytes are no picture that can be used.
    """
    decoded = decode_image(data)
    titles = titles or {}
    failed = dict(problems or {})
    answers = []
    for model, server in served.items():
        title = titles.get(model, model)
        if list(server.class_names) != list(class_names):
            failed[title] = (
                f"{title} answers for the classes {', '.join(server.class_names)}, the run has "
                f"{', '.join(class_names)}; train the run anew."
            )
            continue
        answers.append(_ask(model, title, server, decoded.pixels, class_names))
    return PictureAnswer(
        name,
        shown_pixels(decoded.pixels),
        decoded.width,
        decoded.height,
        decoded.format,
        tuple(class_names),
        tuple(answers),
        failed,
    )


def _ask(
    model: str, title: str, server: Served, grey: np.ndarray, class_names: Sequence[str]
) -> ModelAnswer:
    """The latency is the median of TIMED_RUNS after one that warms up; decoding is not in it."""
    batch = resize_square(grey, server.input_size_px)[None]
    output = server.predict(batch)
    times_ms = []
    for _ in range(TIMED_RUNS):
        start = time.perf_counter()
        output = server.predict(batch)
        times_ms.append((time.perf_counter() - start) * 1000)
    probabilities = np.asarray(output.probabilities[0], np.float64)
    return ModelAnswer(
        model,
        title,
        probabilities,
        class_names[int(predicted_index(probabilities[None])[0])],
        np.asarray(output.class_maps[0]),
        statistics.median(times_ms),
        str(server.precision),
        int(server.input_size_px),
    )


def shown_pixels(grey: np.ndarray, side_px: int = SHOWN_SIDE_PX) -> np.ndarray:
    """Grey uint8 (height, width) shrunk, shape kept, so that the longer side is at most side_px."""
    height, width = grey.shape
    if max(height, width) <= side_px:
        return grey
    scale = side_px / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.array(Image.fromarray(grey).resize(size, Image.Resampling.LANCZOS))


def mean_probabilities(answers: Sequence[ModelAnswer]) -> np.ndarray:
    """Mean of the models' probabilities (C,), each model with the same weight."""
    return np.mean([answer.probabilities for answer in answers], axis=0)


def mean_answer(
    run: Run, chosen: Sequence[str], answers: Sequence[ModelAnswer]
) -> MeanAnswer | None:
    """The mean that a page shows: an ensemble of the run where all its members answered, else the
    mean of all single models that are no controls; None of fewer than two.

    An ensemble that was chosen comes before one that was not, which counts only where the single
    models are just its members (the mean is then the same).
    """
    by_model = {own.model: own for own in answers}
    singles = [m for m in by_model if not m.endswith(CONTROL_SUFFIX)]
    ensembles = {m: run.members(m) for m in run.models if run.members(m)}
    model, members = None, singles
    for name, own in sorted(ensembles.items(), key=lambda pair: pair[0] not in chosen):
        if set(own) == set(singles) or (name in chosen and set(own) <= set(by_model)):
            model, members = name, own
            break
    if len(members) < 2:
        return None
    parts = [by_model[name] for name in members]
    mean = mean_probabilities(parts)
    return MeanAnswer(
        model,
        run.title(model) if model else f"Mean of the {len(parts)}",
        tuple(part.title for part in parts),
        mean,
        run.class_names[int(predicted_index(mean[None])[0])],
        sum(part.latency_ms for part in parts),
    )


def asked_models(run: Run, chosen: Sequence[str]) -> list[str]:
    """The models with a file that a choice asks: an ensemble asks its members."""
    wanted = set(chosen).union(*(run.members(model) for model in chosen))
    return [model for model in run.served if model in wanted]


def agreement_sentence(answers: Sequence[ModelAnswer]) -> str:
    """In plain words how far the models agree, such as "All three say normal."."""
    if not answers:
        return "No model could answer."
    if len(answers) == 1:
        return f"{answers[0].title} says {answers[0].predicted}."
    said: dict[str, list[str]] = {}
    for answer in answers:
        said.setdefault(answer.predicted, []).append(answer.title)
    # Stable: with equal votes the class that was said first comes first.
    groups = sorted(said.items(), key=lambda group: -len(group[1]))
    n, (top, voters) = len(answers), groups[0]
    if len(groups) == 1:
        return f"{'Both' if n == 2 else f'All {_word(n)}'} say {top}."
    if len(groups[1][1]) == len(voters):
        return f"The models disagree: {_each(groups)}."
    return f"{_word(len(voters)).capitalize()} of {_word(n)} say {top}; {_each(groups[1:])}."


def _each(groups: Sequence[tuple[str, list[str]]]) -> str:
    """ "A and B say x, C says y"."""
    return ", ".join(
        f"{_listed(titles)} {'say' if len(titles) > 1 else 'says'} {predicted}"
        for predicted, titles in groups
    )


def worth(metrics: Mapping[str, Any], predicted: str, class_names: Sequence[str]) -> dict[str, Any]:
    """How far the test part bears out an answer `predicted`, from the model's metrics.json.

    Keys: sensitivity (of the images that are `predicted`, the share found), n_true; precision (of
    the answers `predicted`, the share right), n_predicted; each with *_interval (low, high) or
    None. sensitivity or precision is None where no test image is there to tell.
    """
    k = list(class_names).index(predicted)
    matrix = np.asarray(metrics["confusion_matrix"])
    own = metrics["per_class"][predicted]
    n_true, n_predicted = int(matrix[k].sum()), int(matrix[:, k].sum())
    return {
        "sensitivity": own["recall"] if n_true else None,
        "sensitivity_interval": _interval(metrics, f"recall.{predicted}"),
        "n_true": n_true,
        "precision": own["precision"] if n_predicted else None,
        "precision_interval": _interval(metrics, f"precision.{predicted}"),
        "n_predicted": n_predicted,
    }


def _interval(metrics: Mapping[str, Any], key: str) -> tuple[float, float] | None:
    found = (metrics.get("intervals") or {}).get(key)
    if not found or found.get("low") is None or found.get("high") is None:
        return None
    return float(found["low"]), float(found["high"])


def _word(n: int) -> str:
    return NUMBER_WORDS[n].lower() if n < len(NUMBER_WORDS) else str(n)


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
