"""What the checks of a run's scorecard share: the evidence, and one status over all models.

One principle holds for all of them: a check passes only where the figures show it. A figure whose
interval reaches over the bound has not shown it and fails; where there are no figures, or too few
images to say anything, the check is not done, never passed.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pandas as pd

from core.datasets.leakage import measure_split
from core.formatting import join
from core.metrics.classification import COVID
from core.runs import additions, artifacts
from core.runs.run import Run
from core.runs.schema.audit import Audit
from core.runs.schema.checking import find_problem
from core.runs.schema.external import External
from core.runs.schema.guard import Guard

PASSED, FAILED, NOT_DONE = "passed", "failed", "not done"
STATUSES = (FAILED, NOT_DONE, PASSED)
# How far a figure may be off before it counts as lost: ten points, everywhere on the card.
TOLERANCE = 0.10
POINTS = f"{100 * TOLERANCE:.0f} points"
NORMAL = "normal"


@dataclass(frozen=True)
class Check:
    """One line of the scorecard, in plain text.

    status: PASSED, FAILED or NOT_DONE; sentence: the figure it rests on; rule: when it passes;
    fault: what a failure means, in a few words; page: the page with the detail; models: model ->
    its own status where the check asks each model (controls too, which do not count); figures:
    model -> its figure in words; command: what would do the check, "" where nothing is missing.
    """

    key: str
    title: str
    status: str
    sentence: str
    rule: str
    page: str
    fault: str
    models: Mapping[str, str] = field(default_factory=dict)
    figures: Mapping[str, str] = field(default_factory=dict)
    command: str = ""


@dataclass(frozen=True)
class Evidence:
    """All that checks look at: the run and what its files say, each read once."""

    run: Run
    audit: dict[str, Any] | None
    external: dict[str, dict[str, Any]]
    guard: Guard | None = None

    @cached_property
    def manifest(self) -> pd.DataFrame:
        return artifacts.load_manifest(self.run)

    @cached_property
    def split(self) -> dict[str, Any]:
        """What core.datasets.leakage.measure_split tells from the manifest alone."""
        return measure_split(self.manifest)

    @cached_property
    def metrics(self) -> dict[str, Mapping[str, Any]]:
        return {model: artifacts.load_metrics(self.run, model) for model in self.run.models}

    @property
    def headline(self) -> list[str]:
        return self.run.headline_models

    @property
    def target(self) -> str:
        """The class that alarms are about: covid, or else the first that is not normal."""
        names = self.run.class_names
        return COVID if COVID in names else next((n for n in names if n != NORMAL), names[0])

    @property
    def n_test(self) -> int:
        """How many test images the audit looked at."""
        return int(self.audit["n_test"]) if self.audit else 0

    def section(self, name: str) -> dict[str, Any] | None:
        """A section of the audit; None where there is no audit or it leaves the section out."""
        return (self.audit or {}).get(name)


def load_evidence(run: Run) -> Evidence:
    """Read what was added to the run and check its shape. Raises ArtifactError."""
    audit = additions.load_audit(run)
    if audit is not None:
        _check_shape(run, f"{additions.AUDIT_FOLDER}/{additions.AUDIT_FILE}", audit)
    external = {}
    for name in additions.list_external(run):
        external[name] = additions.load_external(run, name)
        file = f"{additions.EXTERNAL_FOLDER}/{name}/{additions.EXTERNAL_FILE}"
        _check_shape(run, file, external[name])
    return Evidence(run, audit, external, additions.load_guard_document(run))


def _check_shape(run: Run, file: str, document: dict[str, Any]) -> None:
    is_audit = file.startswith(additions.AUDIT_FOLDER)
    problem = find_problem(document, Audit if is_audit else External)
    if problem:
        again = audit_command(run) if is_audit else external_command(run)
        raise artifacts.ArtifactError(
            f"{run.path.name}/{file} is damaged: {problem}. Restore the file or make it anew with "
            f"`{again}`."
        )


# ------------------------------------------------------------------------------ commands


def audit_command(run: Run, *, probe: bool = False, masks: bool = False) -> str:
    """The command that audits the run, with what it needs besides."""
    more = (" --probe FOLDER" if probe else "") + (" --masks FOLDER" if masks else "")
    return f"python -m core audit --run {run.name}{more}"


def external_command(run: Run) -> str:
    """The command that scores images from elsewhere."""
    return f"python -m core evaluate --run {run.name} --data FOLDER"


def folds_command(evidence: Evidence) -> str:
    """Training anew with folds; the run itself stays."""
    dataset = str(evidence.run.info["dataset"]["name"])
    models = [m for m in evidence.headline if not evidence.run.members(m)]
    return (
        f"python -m core train --dataset {shlex.quote(dataset)} --models {','.join(models)} "
        f"--folds 5 --run {evidence.run.name}-folds"
    )


# ------------------------------------------------------------------------------ judging


def overall(statuses: Iterable[str]) -> str:
    """Failed where any failed; passed only where all passed."""
    statuses = list(statuses)
    if FAILED in statuses:
        return FAILED
    return NOT_DONE if NOT_DONE in statuses or not statuses else PASSED


def judge_models(
    evidence: Evidence, found: Mapping[str, tuple[str, str]], lead: str
) -> dict[str, Any]:
    """status, sentence, models and figures of a check that asks every model.

    found: model -> (its status, its figure in words). Controls are shown but do not count. Where
    some fail the sentence has their figures; all figures are in `figures`.
    """
    models = evidence.run.models
    found = {m: found.get(m, (NOT_DONE, "not asked")) for m in models}
    by_status = {
        status: {m: found[m][1] for m in evidence.headline if found[m][0] == status}
        for status in STATUSES
    }
    groups = {status: words for status, words in by_status.items() if words}
    sentence = f"{lead}: {_listed(evidence.run, next(iter(groups.values())))}."
    if len(groups) > 1:
        parts = [
            f"{status.capitalize()}: "
            + (_names(evidence.run, words) if status == PASSED else _listed(evidence.run, words))
            for status, words in groups.items()
        ]
        sentence = f"{lead}. {'. '.join(parts)}."
    return {
        "status": overall(found[m][0] for m in evidence.headline),
        "sentence": sentence,
        "models": {m: status for m, (status, _) in found.items()},
        "figures": {m: words for m, (_, words) in found.items()},
    }


def _listed(run: Run, words: Mapping[str, str]) -> str:
    """Each figure behind its model; models of which the same is said stand together."""
    same: dict[str, list[str]] = {}
    for model, text in words.items():
        same.setdefault(text, []).append(model)
    if len(same) == 1 and len(words) > 1:
        return f"{next(iter(same))} ({_names(run, words)})"
    each = {text: " each" if len(models) > 1 else "" for text, models in same.items()}
    return "; ".join(f"{_names(run, same[text])}{each[text]} {text}" for text in same)


def _names(run: Run, models: Iterable[str]) -> str:
    return join(run.title(model) for model in models)


def shown(passes: bool) -> str:
    """The status of a figure that is there."""
    return PASSED if passes else FAILED


def value_or(value: float | None, instead: float) -> float:
    """The value, or what counts in its place where there is none: the worst, never the best."""
    return instead if value is None else value
