"""Random against grouped folds: the same images and folds, with and without patients kept together.

What a random split adds is a figure of its own: the gap between two runs that differ in nothing
else.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from core.evaluation.cross_validation import (
    DRAWS,
    FOLD_METRICS,
    fold_count,
    fold_predictions,
    is_grouped,
    run_seed,
)
from core.formatting import interval_text
from core.metrics.bootstrap import draw_sums, patient_index
from core.metrics.classification import (
    arrays_from_predictions,
    predicted_index,
    rates_from_confusion,
)
from core.metrics.intervals import as_matrices, patient_confusion
from core.runs.artifacts import has_predictions
from core.runs.run import Run

# What a recipe says of itself and not of the training.
NOT_RECIPE = ("tried", "step_ms")
METHOD = (
    "Both runs answer for the same images, so the gap is drawn in pairs: whole patients are drawn "
    f"{DRAWS:,} times, and in each draw both runs are scored on the same patients (independent "
    "draws would count the difficulty of the patients twice and make the interval too wide). It "
    "covers which patients were at hand; another shuffle or seed would move the gap further."
)


@dataclass(frozen=True)
class OptimismFigure:
    """One metric: grouped, random, and their difference (random less grouped) with its interval."""

    grouped: float
    random: float
    difference: float
    low: float
    high: float

    @property
    def shown(self) -> bool:
        """Whether the interval leaves out 0."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Optimism:
    """One model in both runs. figures: FOLD_METRICS -> OptimismFigure on the images that both have;
    differs: what is not the same in the two, in words."""

    model: str
    n: int
    n_patients: int
    figures: dict[str, OptimismFigure]
    differs: tuple[str, ...]


def find_counterpart(run: Run, runs: Iterable[Run]) -> Run | None:
    """The run of the same images, classes and K whose folds were dealt the other way.

    Of several the one with the most models trained by the same recipe, then the newest.
    """
    counterparts = [
        other
        for other in runs
        if other.info["dataset"].get("fingerprint") == run.info["dataset"].get("fingerprint")
        and fold_count(other) == fold_count(run) > 0
        and is_grouped(other) != is_grouped(run)
        and set(other.class_names) == set(run.class_names)
        and shared_models(run, other)
    ]
    return max(counterparts, key=lambda other: _likeness(run, other), default=None)


def shared_models(a: Run, b: Run) -> list[str]:
    """Models with out-of-fold predictions in both runs, in the order of the first."""
    return [
        model
        for model in a.models
        if model in b.models and all(has_predictions(run, model, "folds") for run in (a, b))
    ]


def _likeness(run: Run, other: Run) -> tuple[int, str]:
    same = [m for m in shared_models(run, other) if not recipe_differences(run, other, m)]
    return len(same), str(other.info["created"])


def compare_splits(run: Run, counterpart: Run) -> list[Optimism]:
    """The gap of every model that was done in both runs, one of which is random.

    Raises ArtifactError where a file of the folds is damaged.
    """
    grouped, random = (run, counterpart) if is_grouped(run) else (counterpart, run)
    return [_compare_model(grouped, random, model) for model in shared_models(grouped, random)]


def _compare_model(grouped: Run, random: Run, model: str) -> Optimism:
    table, groups = fold_predictions(grouped, model)
    patients = dict(zip(table["image_id"], groups, strict=True))
    other = fold_predictions(random, model)[0].set_index("image_id")
    table = table[table["image_id"].isin(other.index)].sort_values("image_id")
    other = other.loc[table["image_id"]].reset_index()
    class_names = grouped.class_names
    y_true, y_prob = arrays_from_predictions(table, class_names)
    _, y_other = arrays_from_predictions(other, class_names)
    patient, n_patients = patient_index(
        table["image_id"].map(patients).to_numpy(dtype=object), len(table)
    )
    cells = np.concatenate(
        [
            patient_confusion(y_true, predicted_index(prob), patient, n_patients, len(class_names))
            for prob in (y_prob, y_other)
        ]
    )
    drawn = _both_rates(draw_sums(cells, DRAWS, run_seed(grouped)), len(class_names))
    values = _both_rates(cells.sum(axis=1, keepdims=True), len(class_names))
    figures = {}
    for metric in FOLD_METRICS:
        low, high = np.quantile(drawn[1][metric] - drawn[0][metric], [0.025, 0.975])
        own, theirs = (float(rates[metric][0]) for rates in values)
        figures[metric] = OptimismFigure(own, theirs, theirs - own, float(low), float(high))
    return Optimism(
        model, len(table), n_patients, figures, tuple(recipe_differences(grouped, random, model))
    )


def _both_rates(cells: np.ndarray, n_classes: int) -> tuple[dict, dict]:
    """Rates of the grouped and of the random run from their stacked confusion sums."""
    first, second = (as_matrices(half, n_classes) for half in np.split(cells, 2))
    return rates_from_confusion(first), rates_from_confusion(second)


def recipe_differences(a: Run, b: Run, model: str) -> list[str]:
    """What of the training and serving of one model is not the same in two runs, in words."""
    members = a.members(model)
    if members or b.members(model):
        if members != b.members(model):
            return ["other members"]
        return sorted({text for name in members for text in recipe_differences(a, b, name)})
    infos: list[Mapping[str, Any]] = [a.info, b.info]
    found = []
    for key, word in (("precision", "precision"), ("tta", "test-time copies"), ("seed", "seed")):
        if infos[0].get(key) != infos[1].get(key):
            found.append(word)
    for key, word in (("init", "first weights"), ("model_input_size_px", "input size")):
        own, theirs = ((info.get(key) or {}).get(model) for info in infos)
        if own != theirs:
            found.append(word)
    recipes = [_recipe(run, model) for run in (a, b)]
    changed = [
        key for key in {**recipes[0], **recipes[1]} if recipes[0].get(key) != recipes[1].get(key)
    ]
    return found + [f"recipe ({', '.join(sorted(changed))})"] * bool(changed)


def _recipe(run: Run, model: str) -> dict[str, Any]:
    recipes: Mapping[str, Any] = run.info.get("recipes") or {}
    recipe = recipes.get(model) or {}
    return {key: value for key, value in recipe.items() if key not in NOT_RECIPE}


def optimism_sentence(gap: Optimism, title: str) -> str:
    """Such as "CNN: random folds give 3.1 points more accuracy (1.2 to 5.0)"."""
    figure = gap.figures["accuracy"]
    points = (
        f"{abs(100 * figure.difference):.1f} points {'more' if figure.difference >= 0 else 'less'}"
    )
    text = (
        f"{title}: random folds give {points} accuracy ({interval_text((figure.low, figure.high))})"
    )
    text += "" if figure.shown else ", no gap shown"
    return text + (f"; not the same in both: {', '.join(gap.differs)}" if gap.differs else "")
