"""The pitfall scorecard: what reviewers of such models ask for, computed from a run's files.

The list follows DeGrave et al. 2021 and Maguolo & Nanni 2021 (shortcuts), Roberts et al. 2021
(duplicates, stitched sources, no external test, no intervals), CLAIM (Mongan et al. 2020) and
TRIPOD+AI (Collins et al. 2024). Nothing is taken on trust: each check reads figures, has one
stated rule, and says "not done" where the figures are not there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from core.formatting import count, join
from core.reporting.scorecard.audit_checks import (
    check_blackout,
    check_leakage,
    check_perturbation,
    check_probe,
    check_subgroups,
)
from core.reporting.scorecard.base import (
    FAILED,
    NOT_DONE,
    PASSED,
    STATUSES,
    Check,
    Evidence,
    load_evidence,
)
from core.reporting.scorecard.external_checks import check_external
from core.reporting.scorecard.guard_checks import check_guard
from core.reporting.scorecard.run_checks import (
    check_baselines,
    check_calibration,
    check_cross_validation,
    check_intervals,
    check_operating,
    check_patient_split,
)
from core.runs.run import Run

# The most serious first: what makes all other figures worthless, then what makes them narrow.
CHECKS = {
    "leakage": check_leakage,
    "patient_split": check_patient_split,
    "blackout": check_blackout,
    "probe": check_probe,
    "floors": check_baselines,
    "external": check_external,
    "cross_validation": check_cross_validation,
    "intervals": check_intervals,
    "calibration": check_calibration,
    "operating": check_operating,
    "perturbation": check_perturbation,
    "subgroups": check_subgroups,
    "guard": check_guard,
}
NAMED_FAULTS = 2

__all__ = [
    "CHECKS",
    "FAILED",
    "NOT_DONE",
    "PASSED",
    "Check",
    "Evidence",
    "build_scorecard",
    "fault_text",
    "judge_evidence",
    "load_evidence",
    "scorecard_sentence",
]


def build_scorecard(run: Run) -> list[Check]:
    """Every check of the run, the most serious first. Raises ArtifactError where files are
    damaged."""
    return judge_evidence(load_evidence(run))


def judge_evidence(evidence: Evidence) -> list[Check]:
    """build_scorecard on evidence that was read already."""
    return [check(evidence) for check in CHECKS.values()]


def scorecard_sentence(run: Run, checks: Sequence[Check]) -> str:
    """ "5 of 13 checks failed, 3 were not done. Most serious: ..."."""
    n = Counter(check.status for check in checks)
    were = "was" if n[NOT_DONE] == 1 else "were"
    if n[FAILED]:
        text = f"{n[FAILED]} of {count(len(checks), 'check')} failed"
        text += f", {n[NOT_DONE]} {were} not done." if n[NOT_DONE] else "."
        faults = [fault_text(run, check) for check in checks if check.status == FAILED]
        text += f" Most serious: {'; '.join(faults[:NAMED_FAULTS])}."
    elif n[NOT_DONE]:
        missing = join(check.title.lower() for check in checks if check.status == NOT_DONE)
        text = f"No check failed, but {n[NOT_DONE]} of {len(checks)} {were} not done: {missing}."
    else:
        text = f"All {count(len(checks), 'check')} passed."
    return f"Drawn phantoms, no patients. {text}" if run.synthetic else text


def sort_checks(checks: Sequence[Check]) -> list[Check]:
    """Failed first, then not done, then passed; the most serious first among each."""
    return sorted(checks, key=lambda check: STATUSES.index(check.status))


def fault_text(run: Run, check: Check) -> str:
    """The fault, with the models that have it where not all do (controls do not count)."""
    asked = run.headline_models
    failing = [model for model in asked if check.models.get(model) == FAILED]
    if not failing or len(failing) == len(asked):
        return check.fault
    return f"{check.fault} ({join(run.title(model) for model in failing)})"
