"""How long statistics and the audit take."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np

from core.bench.measurement import Measured, Measurements, find_entry
from core.config import data_root
from core.datasets.registry import dataset_folder
from core.metrics.calibration import apply_calibration, calibrated_metrics, fit_calibration
from core.metrics.conformal import evaluate_sets, fit_conformal, prediction_sets
from core.metrics.curves import curve_bands
from core.metrics.intervals import bootstrap_intervals
from core.metrics.operating_point import rates_at
from core.metrics.significance import compare_models
from core.runs import artifacts

CLASS_NAMES = ("covid", "normal", "pneumonia")
IMAGES_PER_PATIENT = 3
PAGE_LIMIT_S = 0.3


def bench_statistics(run: str | None) -> Measurements:
    """Intervals and curves of 3 models on 1,000 images, and everything for 100,000 predictions."""
    del run
    y_true, probs, groups = make_predictions(1000, 3)
    given = groups, CLASS_NAMES
    yield _timed(
        "intervals of every metric, 3 models, 1,000 images, 2,000 draws",
        lambda: [bootstrap_intervals(y_true, y_prob, *given) for y_prob in probs.values()],
        limit_s=2.0,
    )
    yield _timed(
        "ROC and precision-recall curves with bands, 3 models, 1,000 images",
        lambda: [curve_bands(y_true, y_prob, *given) for y_prob in probs.values()],
        limit_s=2.0,
    )
    yield _timed(
        "rates at an operating point that was moved, 1,000 images",
        lambda: rates_at(y_true == 0, probs["model0"][:, 0], groups, 0.4, 0.02),
        limit_s=PAGE_LIMIT_S,
    )
    many_true, many_probs, many_groups = make_predictions(100_000, 1)
    yield _timed(
        "intervals, curves with bands, calibration and conformal sets, 100,000 predictions",
        lambda: all_statistics(many_true, many_probs["model0"], many_groups),
        limit_s=10.0,
    )
    yield _timed(
        "paired tests of 3 models, 1,000 images",
        lambda: compare_models(y_true, probs, *given),
        limit_s=None,
    )


def _timed(what: str, work: Callable[[], object], limit_s: float | None) -> Measured:
    """The seconds that work() takes."""
    started = time.perf_counter()
    work()
    return Measured("statistics", what, time.perf_counter() - started, limit_s)


def all_statistics(y_true: np.ndarray, y_prob: np.ndarray, groups: np.ndarray) -> None:
    """What the pages compute from one model's predictions, once."""
    prior = dict.fromkeys(CLASS_NAMES, 1 / len(CLASS_NAMES))
    bootstrap_intervals(y_true, y_prob, groups, CLASS_NAMES)
    curve_bands(y_true, y_prob, groups, CLASS_NAMES)
    fitted = fit_calibration(y_true, y_prob, groups, prior, CLASS_NAMES)
    after = apply_calibration(y_prob, fitted, CLASS_NAMES)
    calibrated_metrics(y_true, y_prob, after, groups, CLASS_NAMES)
    sets = prediction_sets(after, fit_conformal(y_true, after, groups)["threshold"])
    evaluate_sets(y_true, sets, groups, CLASS_NAMES)


def make_predictions(n: int, models: int, seed: int = 0) -> tuple[np.ndarray, dict, np.ndarray]:
    """y_true (n,), {model: y_prob (n, 3)} and patients (n,): made up, right more often than not."""
    rng = np.random.default_rng(seed)
    y_true = rng.integers(0, 3, n)
    groups = np.array([f"p{k}" for k in rng.integers(0, max(1, n // IMAGES_PER_PATIENT), n)])
    probs = {}
    for model in range(models):
        logits = rng.normal(size=(n, 3)) + 2.0 * np.eye(3)[y_true]
        shares = np.exp(logits)
        probs[f"model{model}"] = shares / shares.sum(axis=1, keepdims=True)
    return y_true, probs, groups


def bench_audit(run: str | None) -> Measurements:
    """A whole audit of a run whose images are here, nothing of it written."""
    from core.evaluation.audit.run import audit_run  # the engine takes a second to import

    entry = find_entry(run)
    what = "audit of a run"
    if entry is None:
        yield Measured("audit", what, None, 480.0, "there is no run; `make train-all` makes one")
        return
    opened = artifacts.open_run(entry.path)
    root = dataset_folder(opened.info["dataset"]["name"], data_root())
    started = time.perf_counter()
    document = audit_run(opened, root)
    seconds = time.perf_counter() - started
    what = (
        f"audit of {opened.name}: {len(document['models'])} models, {document['n_test']} test "
        f"images, {document['precision']} without mirrored copies"
    )
    if not document["n_test"]:
        yield Measured("audit", what, None, 480.0, "the images of the run are not here")
    else:
        yield Measured("audit", what, seconds, 480.0)
