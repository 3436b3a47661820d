"""How long the parts take: measured when asked, in one process after the other, never asserted.

Each measurement says what was done, the seconds it took and the limit that the project set itself
for a machine with 2 cores. What cannot be measured here is named with the reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass

import numpy as np

from core import artifacts
from core.calibration import apply_calibration, calibrated_metrics, fit_calibration
from core.comparisons import compare_models
from core.config import artifacts_root, data_root
from core.conformal import evaluate_sets, fit_conformal, prediction_sets
from core.curves import curve_bands
from core.statistics import bootstrap_intervals

CLASS_NAMES = ("covid", "normal", "pneumonia")
IMAGES_PER_PATIENT = 3
PAGE_LIMIT_S = 0.3


class BenchError(ValueError):
    """A measurement that is not known; the message is one sentence."""


@dataclass(frozen=True)
class Measured:
    """One measurement; seconds None where it could not be taken, and `note` says why."""

    bench: str
    what: str
    seconds: float | None
    limit_s: float | None
    note: str = ""

    @property
    def within(self) -> bool | None:
        """Whether the limit was kept; None where there is none, or nothing was measured."""
        if self.seconds is None or self.limit_s is None:
            return None
        return self.seconds <= self.limit_s


def run_benches(names: list[str], run: str | None, say: Callable[[str], None]) -> list[Measured]:
    """The measurements of the benches `names` (all where empty), in the order of BENCHES.

    Raises:
        BenchError: a bench that there is not.
    """
    unknown = [name for name in names if name not in BENCHES]
    if unknown:
        raise BenchError(f"There is no bench {unknown[0]!r}. There are: {', '.join(BENCHES)}.")
    results = []
    for name in names or BENCHES:
        say(f"{name} ...")
        for measured in BENCHES[name](run):
            results.append(measured)
            say(f"  {describe(measured)}")
    return results


def describe(measured: Measured) -> str:
    """One line for people."""
    if measured.seconds is None:
        return f"{measured.what}: not measured ({measured.note})."
    text = f"{measured.what}: {measured.seconds:.2f} s"
    if measured.limit_s is not None:
        share = measured.seconds / measured.limit_s
        text += f", {share:.2f} of the limit of {measured.limit_s:g} s"
        text += "" if measured.within else ", NOT within it"
    return text + (f" ({measured.note})." if measured.note else ".")


def to_json(results: list[Measured]) -> list[dict]:
    """Plain values, with `within` beside them."""
    return [asdict(measured) | {"within": measured.within} for measured in results]


def bench_statistics(run: str | None) -> Iterator[Measured]:
    """Intervals of 3 models on 1,000 images, and everything for 100,000 predictions."""
    del run
    y_true, probs, groups = make_predictions(1000, 3)
    started = time.perf_counter()
    for y_prob in probs.values():
        bootstrap_intervals(y_true, y_prob, groups, CLASS_NAMES)
    yield Measured(
        "statistics", "intervals of every metric, 3 models, 1,000 images, 2,000 draws",
        time.perf_counter() - started, 2.0,
    )  # fmt: skip
    y_true, probs, groups = make_predictions(100_000, 1)
    started = time.perf_counter()
    all_statistics(y_true, probs["model0"], groups)
    yield Measured(
        "statistics",
        "intervals, curves with bands, calibration and conformal sets, 100,000 predictions",
        time.perf_counter() - started, 10.0,
    )  # fmt: skip
    y_true, probs, groups = make_predictions(1000, 3)
    started = time.perf_counter()
    compare_models(y_true, probs, groups, CLASS_NAMES)
    yield Measured(
        "statistics", "paired tests of 3 models, 1,000 images",
        time.perf_counter() - started, None,
    )  # fmt: skip


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


def bench_audit(run: str | None) -> Iterator[Measured]:
    """A whole audit of a run whose images are here, nothing of it written."""
    from core.audit import audit_run  # the engine takes a second to import

    entry = _find_run(run)
    what = "audit of a run"
    if entry is None:
        yield Measured("audit", what, None, 480.0, "there is no run; `make train-all` makes one")
        return
    opened = artifacts.open_run(entry.path)
    root = data_root() / opened.info["dataset"]["name"]
    started = time.perf_counter()
    document = audit_run(opened, root, say=lambda text: None)
    seconds = time.perf_counter() - started
    what = (
        f"audit of {opened.name}: {len(document['models'])} models, {document['n_test']} test "
        f"images, {document['precision']} without mirrored copies"
    )
    if not document["n_test"]:
        yield Measured("audit", what, None, 480.0, "the images of the run are not here")
    else:
        yield Measured("audit", what, seconds, 480.0)


def bench_pages(run: str | None) -> Iterator[Measured]:
    """The second drawing of each page of the dashboard, when everything is cached."""
    entry = _find_run(run)
    if entry is None:
        yield Measured("pages", "pages", None, PAGE_LIMIT_S, "there is no run")
        return
    # In a process of its own: this package does not import the dashboard.
    environment = dict(os.environ, CXR_RUN=entry.name)
    done = subprocess.run(
        [sys.executable, "-m", "dashboard.timing"], env=environment, capture_output=True, text=True
    )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
        yield Measured("pages", "pages", None, PAGE_LIMIT_S, reason)
        return
    for page, seconds in json.loads(done.stdout).items():
        yield Measured("pages", f"page {page} of {entry.name}, warm", seconds, PAGE_LIMIT_S)


def _find_run(name: str | None) -> artifacts.RunEntry | None:
    """The run of that name, or the first that pages would show."""
    entries = [entry for entry in artifacts.list_runs(artifacts_root()) if entry.problem is None]
    if name is None:
        return entries[0] if entries else None
    for entry in entries:
        if entry.name == name:
            return entry
    known = ", ".join(entry.name for entry in entries) or "none"
    raise BenchError(f"There is no run {name!r} that can be read. There are: {known}.")


BENCHES: dict[str, Callable[[str | None], Iterator[Measured]]] = {
    "statistics": bench_statistics,
    "pages": bench_pages,
    "audit": bench_audit,
}
