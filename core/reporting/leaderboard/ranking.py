"""All models that were trained under one protocol, whatever run they lie in, in one ranking.

Figures and their intervals are those of metrics.json. Whether a model can be told from the one
that ranks first is a paired bootstrap over the patients of the common test images (Davison &
Hinkley 1997, sections 2.4 and 3.8), Holm-corrected over all models held against the first.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from core.errors import UserError
from core.metrics.bootstrap import DRAWS, draw_sums, patient_index
from core.metrics.classification import arrays_from_predictions, rates_from_confusion
from core.metrics.intervals import as_matrices, patient_confusion
from core.metrics.significance import ALPHA, holm
from core.models.names import NOTEBOOK
from core.reporting import verdict
from core.runs import artifacts
from core.runs.run import KEPT, NOT_KEPT, Run

# What a ranking can go by -> its name for people.
METRICS = {
    "macro_f1": "Macro-F1",
    "balanced_accuracy": "Balanced accuracy",
    "accuracy": "Accuracy",
}
SHOWN = (*METRICS, "auc")
SPLITS = ("train", "val", "test")
SAME_ROW = ["image_id", "sha256", "label", "split"]
COSTS = ("params", "size_mb", "train_s", "latency_ms")

Entry = tuple[str, str]  # run, model


class ZooError(UserError):
    """A ranking that cannot be made; the message is one sentence."""


@dataclass(frozen=True)
class Protocol:
    """Runs that split the very same images in the very same way into the same classes.

    n: images of each of SPLITS; n_patients: of the test split; leaks: a badge's words where test
    images are not independent of training, or were dealt at random, else "".
    """

    key: str
    runs: tuple[Run, ...]
    n: dict[str, int]
    n_patients: int
    leaks: str

    @property
    def first(self) -> Run:
        return self.runs[0]

    @property
    def class_names(self) -> list[str]:
        return self.first.class_names

    @property
    def dataset(self) -> str:
        """The data set's title for people."""
        dataset = self.first.info["dataset"]
        return str(dataset.get("title") or dataset["name"])

    @property
    def split_policy(self) -> str:
        return str(self.first.info.get("split_policy", "not stated"))

    @property
    def seed(self) -> int:
        """Of the split; the runs may have other seeds for their weights."""
        return int(self.first.info["seed"])

    @property
    def entries(self) -> list[Entry]:
        """Every (run, model), in the order of the runs."""
        return [(run.name, model) for run in self.runs for model in run.models]

    @property
    def has_zoo(self) -> bool:
        """Whether it holds any of the notebooks' networks."""
        return any(model in NOTEBOOK for _, model in self.entries)

    def run(self, name: str) -> Run:
        return next(run for run in self.runs if run.name == name)

    def label(self, entry: Entry) -> str:
        """The model's title, with its run where another run has a model of that name or title."""
        name, model = entry
        title = self.run(name).title(model)
        others = [(r, m) for r, m in self.entries if (r, m) != entry]
        same = any(m == model or self.run(r).title(m) == title for r, m in others)
        return f"{title} ({name})" if same else title


# ------------------------------------------------------------------------------ protocols


def find_protocols(runs: Iterable[Run]) -> list[Protocol]:
    """The runs put together by protocol: clean ones first, then those with most of the zoo.

    One protocol: the same (image_id, sha256, label, split) in train, val and test and the same
    classes. A run that leaks or was dealt at random is never put together with a clean one.
    Raises ArtifactError.
    """
    found: dict[str, list[Run]] = {}
    manifests: dict[str, pd.DataFrame] = {}
    for run in runs:
        manifest = artifacts.load_manifest(run)
        key = protocol_key(run, manifest)
        found.setdefault(key, []).append(run)
        manifests.setdefault(key, manifest)
    protocols = []
    for key, members in found.items():
        manifest = manifests[key]
        test = manifest[manifest["split"] == "test"]
        protocols.append(
            Protocol(
                key,
                tuple(members),
                {split: int((manifest["split"] == split).sum()) for split in SPLITS},
                test["patient_id"].nunique(),
                _leaks(members[0]),
            )
        )
    # Of as many models the one whose run came first: a list of runs has the release in front.
    return sorted(protocols, key=lambda p: (bool(p.leaks), not p.has_zoo, -len(p.entries)))


def protocol_key(run: Run, manifest: pd.DataFrame) -> str:
    """Equal for two runs exactly where their models may be ranked together."""
    rows = manifest.loc[manifest["split"].isin(SPLITS), SAME_ROW].astype(str)
    lines = sorted("\t".join(row) for row in rows.itertuples(index=False))
    head = ["\t".join(sorted(run.class_names)), "leaks" if _leaks(run) else "clean"]
    return hashlib.sha256("\n".join(head + lines).encode()).hexdigest()


def _leaks(run: Run) -> str:
    words = verdict.leak_badge(run.info.get("leakage"))
    if not words and run.info.get("split_policy") == "random":
        return "RANDOM SPLIT: images of one patient may stand on both sides"
    return words


# ------------------------------------------------------------------------------ the paired draws


@dataclass(frozen=True)
class TestPredictions:
    """What every model said of the same test images.

    drawn: metric -> (models, draws) under the same draws of whole patients; place: entry -> row.
    truth (n,) are class numbers in the protocol's order.
    """

    truth: np.ndarray
    drawn: dict[str, np.ndarray]
    estimates: dict[str, np.ndarray]
    place: dict[Entry, int]


def load_test_predictions(
    protocol: Protocol, *, draws: int = DRAWS, seed: int = 0
) -> TestPredictions:
    """Read every model's test predictions and draw the patients once for all of them.

    Raises ArtifactError or MetricsError; ZooError where a model answered for other images.
    """
    classes = pd.Index(protocol.class_names)
    manifest = artifacts.load_manifest(protocol.first)
    test = manifest[manifest["split"] == "test"].sort_values("image_id")
    truth = classes.get_indexer(test["label"])
    patient, n_patients = patient_index(test["patient_id"].to_numpy(), len(test))
    cells = []
    for name, model in protocol.entries:
        run = protocol.run(name)
        table = artifacts.load_predictions(run, model).sort_values("image_id")
        arrays_from_predictions(table, run.class_names)  # refuses what cannot be scored
        if list(table["image_id"]) != list(test["image_id"]) or list(table["label"]) != list(
            test["label"]
        ):
            raise ZooError(
                f"{run.title(model)} of run {name} was tested on other images than the run's "
                "manifest names, so it cannot be ranked; train the run anew."
            )
        called = classes.get_indexer(table["predicted"])
        cells.append(patient_confusion(truth, called, patient, n_patients, len(classes)))
    stacked = np.concatenate(cells)
    shape = (len(cells), len(classes) ** 2)
    sums = draw_sums(stacked, draws, seed).reshape(*shape, draws)
    whole = stacked.sum(axis=1).reshape(*shape, 1)
    rates = [rates_from_confusion(as_matrices(own, len(classes))) for own in sums]
    points = [rates_from_confusion(as_matrices(own, len(classes))) for own in whole]
    return TestPredictions(
        truth,
        {key: np.stack([own[key] for own in rates]) for key in METRICS},
        {key: np.array([own[key][0] for own in points]) for key in METRICS},
        {entry: row for row, entry in enumerate(protocol.entries)},
    )


def paired_difference(
    predictions: TestPredictions, a: Entry, b: Entry, metric: str, level: float = 0.95
) -> tuple[float, float, float, float]:
    """(a less b, low, high, two-sided p) of a metric over the same drawn patients.

    p: twice the smaller share of draws on either side of zero, the observed set counted as one
    draw on each side, so it is never 0.
    """
    i, j = predictions.place[a], predictions.place[b]
    drawn = predictions.drawn[metric][i] - predictions.drawn[metric][j]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    side = min((drawn <= 0).sum(), (drawn >= 0).sum())
    p = min(1.0, 2 * (1 + int(side)) / (1 + len(drawn)))
    estimates = predictions.estimates[metric]
    return float(estimates[i] - estimates[j]), float(low), float(high), p


# ------------------------------------------------------------------------------ the ranking


def rank(
    protocol: Protocol, metric: str = "macro_f1", predictions: TestPredictions | None = None
) -> pd.DataFrame:
    """One row a model, the highest first; all figures are fractions.

    Columns: rank (equal figures share one), run, model, label, init, kind; each of SHOWN with
    <metric>_low and <metric>_high; params, size_mb, train_s, latency_ms, epochs; weights
    (KEPT or NOT_KEPT; of a mean of models, its members'); behind, behind_low,
    behind_high (the first model less this one), p_holm (over all models held against the first);
    tied_with_best: p_holm is 0.05 or more, so that the test cannot tell the model from the first
    one; floors_lost: words, a list.
    Raises ArtifactError, MetricsError or ZooError.
    """
    if metric not in METRICS:
        raise ZooError(f"Unknown metric {metric!r}. Known metrics: {', '.join(METRICS)}.")
    predictions = predictions or load_test_predictions(protocol)
    baselines = protocol_baselines(protocol)
    rows = [_row(protocol, entry, baselines) for entry in protocol.entries]
    table = pd.DataFrame(rows).sort_values(
        [metric, "label"], ascending=[False, True], ignore_index=True
    )
    table.insert(0, "rank", table[metric].rank(ascending=False, method="min").astype(int))
    entries = list(zip(table["run"], table["model"], strict=True))
    differences = [paired_difference(predictions, entries[0], other, metric) for other in entries]
    for place, column in enumerate(("behind", "behind_low", "behind_high")):
        table[column] = [found[place] for found in differences]
    # The first against itself is no test and must not make the others' correction harsher.
    table["p_holm"] = [1.0, *holm([p for *_, p in differences[1:]])]
    table["tied_with_best"] = table["p_holm"] >= ALPHA
    return table


def protocol_baselines(protocol: Protocol) -> dict[str, Mapping[str, Any]]:
    """The shortcut baselines of the protocol: same images, so the first run that has one counts."""
    found: dict[str, Mapping[str, Any]] = {}
    for run in protocol.runs:
        for key, baseline in run.info.get("floors", {}).items():
            found.setdefault(key, baseline)
    return found


def _row(
    protocol: Protocol, entry: Entry, baselines: Mapping[str, Mapping[str, Any]]
) -> dict[str, Any]:
    name, model = entry
    run = protocol.run(name)
    metrics: Mapping[str, Any] = artifacts.load_metrics(run, model)
    history = artifacts.load_history(run, model)
    cost = metrics.get("cost") or {}
    row: dict[str, Any] = {
        "run": name,
        "model": model,
        "label": protocol.label(entry),
        "init": str(run.info.get("init", {}).get(model, "")),
        "kind": "ensemble" if run.members(model) else "single",
    }
    for key in SHOWN:
        bounds = metrics["intervals"].get(key) or {}
        row |= {
            key: metrics[key],
            f"{key}_low": bounds.get("low"),
            f"{key}_high": bounds.get("high"),
        }
    row |= {key: cost.get(key) for key in COSTS}
    if row["train_s"] is None and len(history):
        row["train_s"] = float(history["seconds"].sum())
    row["epochs"] = len(history) or None
    row["weights"] = KEPT if model in run.usable_models else NOT_KEPT
    row["floors_lost"] = verdict.unbeaten_baselines(metrics, baselines)
    numbers = [*(f"{key}{end}" for key in SHOWN for end in ("", "_low", "_high")), *COSTS, "epochs"]
    return row | {key: np.nan if row[key] is None else float(row[key]) for key in numbers}


def kept_epochs(run: Run, model: str, history: pd.DataFrame) -> list[int]:
    """The epoch whose weights each phase handed on, the last of them being the model's own.

    As core.models.recipes has it: the lowest validation loss of the phase, or its last epoch where
    the recipe says so; a phase without validation figures has none.
    """
    recipes = run.info.get("recipes")
    recipe = recipes.get(model) if isinstance(recipes, dict) else None
    stages = recipe.get("stages") if isinstance(recipe, dict) else None
    keep = {s.get("name"): s.get("keep") for s in stages or [] if isinstance(s, dict)}
    kept = []
    for _, phase in history.groupby((history["phase"] != history["phase"].shift()).cumsum()):
        losses = phase["val_loss"].dropna()
        if keep.get(phase["phase"].iloc[0]) == "last":
            kept.append(int(phase["epoch"].iloc[-1]))
        elif len(losses):
            kept.append(int(phase.loc[losses.idxmin(), "epoch"]))
    return kept
