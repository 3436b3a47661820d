"""How far the heat maps of a run's models can be trusted, measured on drawn phantoms.

Only on a phantom is the lesion's place known to the pixel. Each model draws its map of phantoms
that it has never seen; core.evaluation.heatmaps.pointing_game scores them against the lesion and
against places that nobody had to look for, core.evaluation.heatmaps.sanity_checks shuffles the
weights. Models that learned from real images were never shown a phantom: what comes out says how
map and lesion go together there, and nothing of patients.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd

from core.console import progress
from core.datasets.phantom.generate import DRAWING_VERSION, class_names
from core.errors import UserError
from core.evaluation.heatmaps.describe import ALL, describe_learning, describe_model
from core.evaluation.heatmaps.phantoms import (
    Asked,
    Drawn,
    draw_phantoms,
    predict_all,
    predict_with_model,
)
from core.evaluation.heatmaps.pointing_game import (
    BASELINES,
    SCORES,
    TOLERANCE_SHARE,
    score_map,
    summarise_scores,
)
from core.evaluation.heatmaps.sanity_checks import (
    KINDS,
    RULE,
    compare_maps,
    judge,
    rank_correlation,
    shuffle_weights,
)
from core.inference.class_activation import stretch_heat
from core.inference.served_model import load_model
from core.metrics.bootstrap import wilson_interval
from core.metrics.classification import predicted_index
from core.runs import writing
from core.runs.additions import SCORE_COLUMNS
from core.runs.missing_weights import left_out, left_out_sentence, need_weights
from core.runs.run import Run

logger = logging.getLogger(__name__)

PER_CLASS = 100
SIZE_PX = 448
SANITY_PHANTOMS = 20
SHUFFLES = 5
TABLE_COLUMNS = [
    *SCORE_COLUMNS,
    *(f"{baseline}_{score}" for baseline in BASELINES for score in SCORES),
]
MAPS = {
    "true": "the map of the phantom's own class",
    "called": "the map of the class that the model calls",
    "right": "the map of the phantom's own class, where the model calls it",
}


class MapsError(UserError):
    """Maps that cannot be measured; the message is one plain sentence."""


def measure_maps(
    run: Run,
    *,
    per_class: int = PER_CLASS,
    size_px: int = SIZE_PX,
) -> tuple[dict, pd.DataFrame]:
    """The document of maps/maps.json and the table beside it (docs/artifacts.md).

    A run whose models cannot be asked about chest phantoms has status "not done" and the reason.

    Raises:
        ArtifactError, InferenceError, MapsError: wrong use or damaged files, one sentence each.
    """
    started = time.perf_counter()
    head: dict[str, Any] = {
        "created": writing.utc_now(),
        "precision": run.info.get("precision", "f32"),
        "tta": run.info.get("tta", "none"),
    }
    reason = why_not(run)
    if reason:
        document = {**head, "status": "not done", "reason": reason, "models": {}}
        return document, pd.DataFrame(columns=TABLE_COLUMNS)
    if per_class < 1:
        raise MapsError(f"At least one phantom a class is needed. Received: {per_class}.")
    need_weights(run)
    if left_out(run):
        logger.warning(left_out_sentence(run))
    models = {name: load_model(run, name) for name in run.served}
    sizes = {model.input_size_px for model in models.values()}
    labels = [label for label in run.class_names if label in class_names]
    logger.info(f"Drawing {per_class} phantoms of each of {', '.join(labels)} ...")
    drawn = draw_phantoms(labels, per_class, size_px, sizes)
    asked = predict_all(run, models, drawn)
    table = _score_all(run, asked, drawn)
    seed = int(run.info["seed"])
    figures = {
        name: {
            "method": asked[name].method,
            "map_size": list(asked[name].heat(0, 0).shape),
            **_describe_calls(run, asked[name], drawn),
            "pointing": summarise_table(table[table["model"] == name], seed),
            "sanity": None,
        }
        for name in run.usable_models
    }
    with progress(len(models) * len(KINDS) * SHUFFLES, "Shuffling weights", "model") as bar:
        for name in models:
            figures[name]["sanity"] = check_sanity(run, name, asked[name], drawn, bar.update)
    for name, found in figures.items():
        found["sentence"] = describe_model(run.title(name), found)
    document = {
        **head,
        "minutes": (time.perf_counter() - started) / 60,
        "status": "done",
        "reason": None,
        "phantoms": {
            "classes": labels,
            "with_lesion": [label for label in labels if label != "normal"],
            "per_class": per_class,
            "size_px": size_px,
            "drawing_version": DRAWING_VERSION,
        },
        "learned_from": describe_learning(run),
        "tolerance_share": TOLERANCE_SHARE,
        "baselines": BASELINES,
        "maps": MAPS,
        "level": 0.95,
        "corrected": False,
        "sanity_rule": RULE,
        "models": figures,
    }
    return document, table


def why_not(run: Run) -> str | None:
    """Why a run's maps cannot be measured on chest phantoms, None where they can."""
    if run.modality == "ct":
        return "The models read CT slices, and the drawn phantoms are chest X-rays."
    if not any(label in class_names and label != "normal" for label in run.class_names):
        return "None of the run's classes has a drawn phantom with a lesion (covid, pneumonia)."
    return None


# ------------------------------------------------------------------------------ scoring


def _score_all(run: Run, asked: dict[str, Asked], drawn: Drawn) -> pd.DataFrame:
    rows = []
    lesions = [i for i, target in enumerate(drawn.targets) if target is not None]
    with progress(len(asked) * len(lesions), "Scoring the maps", "phantom") as bar:
        for name in run.usable_models:
            for i in lesions:
                rows += _score_phantom(run, name, asked[name], drawn, i)
                bar.update(1)
    return pd.DataFrame(rows, columns=TABLE_COLUMNS)


def _score_phantom(run: Run, name: str, asked: Asked, drawn: Drawn, i: int) -> list[dict]:
    """Rows of TABLE_COLUMNS: the map of the phantom's own class, and of the one that is called."""
    target, label = drawn.targets[i], drawn.labels[i]
    assert target is not None, "only phantoms with a lesion are scored"
    called = run.class_names[int(predicted_index(asked.probabilities[i]))]
    scored = {}
    for k in {run.class_names.index(label), run.class_names.index(called)}:
        surface = stretch_heat(asked.heat(i, k), *target.mask.shape)
        scored[run.class_names[k]] = score_map(surface, target)
    base = {f"{b}_{s}": target.baselines[b][s] for b in BASELINES for s in SCORES}
    head = {"model": name, "label": label, "patient": drawn.patients[i], "called": called}
    return [
        {**head, "map": kind, **scored[shown], **base}
        for kind, shown in (("true", label), ("called", called))
    ]


def summarise_table(table: pd.DataFrame, seed: int) -> dict:
    """map kind -> class or "all" -> figures of
    core.evaluation.heatmaps.pointing_game.summarise_scores, for one model.
    """
    own = table[table["map"] == "true"]
    parts = {
        "true": own,
        "called": table[table["map"] == "called"],
        "right": own[own["called"] == own["label"]],
    }
    labels = list(dict.fromkeys(table["label"]))
    return {
        kind: {
            label: _summarise_rows(rows if label == ALL else rows[rows["label"] == label], seed)
            for label in [ALL, *labels]
        }
        for kind, rows in parts.items()
    }


def _summarise_rows(rows: pd.DataFrame, seed: int) -> dict:
    scores = {score: rows[score].to_numpy(float) for score in SCORES}
    base = {b: {s: rows[f"{b}_{s}"].to_numpy(float) for s in SCORES} for b in BASELINES}
    return summarise_scores(scores, base, seed=seed)


def _describe_calls(run: Run, asked: Asked, drawn: Drawn) -> dict:
    """called {class of the phantom: {class: n}} and how many are called rightly."""
    called = [run.class_names[k] for k in predicted_index(asked.probabilities)]
    right = sum(a == b for a, b in zip(called, drawn.labels, strict=True))
    low, high = wilson_interval(right, len(called))
    pairs = pd.Series(list(zip(drawn.labels, called, strict=True))).value_counts().to_dict()
    return {
        "n": len(called),
        "right": {"n": right, "value": right / len(called), "low": low, "high": high},
        "called": {
            label: {name: pairs.get((label, name), 0) for name in run.class_names}
            for label in dict.fromkeys(drawn.labels)
        },
    }


# ------------------------------------------------------------------------------ sanity


def check_sanity(
    run: Run, name: str, asked: Asked, drawn: Drawn, tick: Callable[[int], object]
) -> dict:
    """How much the maps change with the weights shuffled: {n, shuffles, passed, kind: figures}.

    The map is that of the class that the model calls before, on the first phantoms of each class.
    `between`: mean absolute rank correlation of the model's own maps of different phantoms, which
    tells how much a map depends on the image at all.
    """
    labels = np.array(drawn.labels)
    each = -(-SANITY_PHANTOMS // len(set(drawn.labels)))
    rows = np.concatenate(
        [np.flatnonzero(labels == label)[:each] for label in dict.fromkeys(drawn.labels)]
    )
    classes = [int(k) for k in predicted_index(asked.probabilities[rows])]
    pairs = list(zip(rows.tolist(), classes, strict=True))
    before = [asked.evidence(i, k) for i, k in pairs]
    between = [
        abs(rank_correlation(before[a], asked.evidence(pairs[b][0], classes[a])))
        for a in range(len(rows))
        for b in range(a)
    ]
    kinds = {}
    for kind in KINDS:
        shuffled = []
        for seed in range(SHUFFLES):
            altered = load_model(run, name, alter=shuffle_weights(kind, seed))
            answers = predict_with_model(altered, drawn, rows, lambda _: None)
            shuffled.append([answers.evidence(i, k) for i, k in enumerate(classes)])
            tick(1)
        kinds[kind] = compare_maps(before, shuffled)
    return {
        "n": len(rows),
        "shuffles": SHUFFLES,
        "passed": judge(kinds),
        "between": float(np.mean(between)) if between else None,
        **kinds,
    }
