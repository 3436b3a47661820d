"""How reliable a prediction is by the test split, and how far models agree, in plain words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from core.formatting import join
from core.models.names import is_control

NUMBER_WORDS = ("No", "One", "Two", "Three", "Four", "Five", "Six", "Seven", "Eight", "Nine")


class Titled(Protocol):
    """What a sentence needs of a prediction: the model's name for people and the class."""

    @property
    def title(self) -> str: ...
    @property
    def predicted(self) -> str: ...


class Voter(Titled, Protocol):
    """A prediction that may count: its model, and the models whose mean it is."""

    @property
    def model(self) -> str: ...
    @property
    def members(self) -> Sequence[str]: ...


Vote = TypeVar("Vote", bound=Voter)


def votes(predictions: Sequence[Vote]) -> list[Vote]:
    """The predictions that agreement and a mean are made of: single models that are no controls.

    Where all single models are controls, these count.
    """
    singles = [own for own in predictions if not own.members]
    return [own for own in singles if not is_control(own.model)] or singles


def agreement_sentence(predictions: Sequence[Titled]) -> str:
    """In plain words how far the models agree, such as "All three say normal."."""
    if not predictions:
        return "No model could answer."
    if len(predictions) == 1:
        return f"{predictions[0].title} says {predictions[0].predicted}."
    by_class: dict[str, list[str]] = {}
    for prediction in predictions:
        by_class.setdefault(prediction.predicted, []).append(prediction.title)
    # Stable: with equal votes the class that was said first comes first.
    groups = sorted(by_class.items(), key=lambda group: -len(group[1]))
    n, (top, voters) = len(predictions), groups[0]
    if len(groups) == 1:
        return f"{'Both' if n == 2 else f'All {_word(n)}'} say {top}."
    if len(groups[1][1]) == len(voters):
        return f"The models disagree: {_each(groups)}."
    return f"{_word(len(voters)).capitalize()} of {_word(n)} say {top}; {_each(groups[1:])}."


def answer_reliability(
    metrics: Mapping[str, Any], predicted: str, class_names: Sequence[str]
) -> dict[str, Any]:
    """How far the test split bears out a prediction `predicted`, from the model's metrics.json.

    Keys: sensitivity (of the images that are `predicted`, the share found), n_true; precision (of
    the predictions `predicted`, the share right), n_predicted; each with *_interval (low, high) or
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


def _each(groups: Sequence[tuple[str, list[str]]]) -> str:
    """ "A and B say x, C says y"."""
    return ", ".join(
        f"{join(titles)} {'say' if len(titles) > 1 else 'says'} {predicted}"
        for predicted, titles in groups
    )


def _word(n: int) -> str:
    return NUMBER_WORDS[n].lower() if n < len(NUMBER_WORDS) else str(n)
