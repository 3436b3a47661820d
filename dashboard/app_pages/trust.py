"""Reliability checks: which of the usual pitfalls the run falls into, one open at a time."""

from collections.abc import Callable
from functools import partial
from typing import Any

import streamlit as st

from core.datasets.leakage import LeakageError
from core.evaluation.audit.blackout import NO_BOX
from core.metrics.classification import MetricsError
from core.reporting.scorecard.base import audit_command
from core.reporting.scorecard.scorecard import (
    FAILED,
    NOT_DONE,
    PASSED,
    Check,
    scorecard_sentence,
    sort_checks,
)
from core.runs.artifacts import ArtifactError
from dashboard.components import trust as trust_parts
from dashboard.components.markdown import escape, escape_sentence, model_mark
from dashboard.components.page import empty_state, explain, page_frame, show_table
from dashboard.components.sidebar import Selection
from dashboard.data import runs as run_data
from dashboard.data import trust as trust_data

BADGES: dict[str, tuple[str, str, Any]] = {
    PASSED: ("passed", ":material/check_circle:", "blue"),
    FAILED: ("failed", ":material/cancel:", "red"),
    NOT_DONE: ("not done", ":material/pending:", "gray"),
}
PAGE_NAMES = {
    "overview": "Overview",
    "confusion": "Confusion matrices",
    "errors": "Errors",
    "predict": "Predict",
    "training": "Training",
    "data": "Data",
    "curves": "Curves and thresholds",
    "protocol": "Cross-validation",
}
SIGNS = {PASSED: ":blue[**✓**]", FAILED: ":red[**✗**]", NOT_DONE: ":gray[–]"}
# What holds where a check passes.
CLAIMS = {
    "leakage": "No test image, or copy of one, was trained on",
    "patient_split": "No test patient was trained on",
    "blackout": "Without the lungs, models lose most of their skill",
    "probe": "Other diseases from the COVID-19 source are not called COVID-19",
    "floors": "Models clearly beat shortcuts such as brightness",
    "external": "Results hold on images from other hospitals",
    "cross_validation": "Other splits of the data give the same result",
    "intervals": "Figures have intervals over patients",
    "calibration": "Probabilities mean what they say",
    "operating": "The COVID-19 threshold finds what it was set to find",
    "perturbation": "Slight changes of an image change few answers",
    "subgroups": "No group of patients fares much worse",
    "guard": "What is no chest X-ray is refused",
}
OPEN_KEY = "trust_check"


def show_matrix(selection: Selection, checks: list[Check]) -> None:
    """Checks × models: what holds, what does not, and for whom."""
    rows = []
    for check in checks:
        label, _, colour = BADGES[check.status]
        claim = CLAIMS.get(check.key, escape(check.title))
        row = {"What should hold": f"{SIGNS[check.status]} :{colour}[{label}] · {claim}"}
        for model in selection.models:
            title = f"{model_mark(selection.run, model)}\u00a0{escape(selection.title(model))}"
            row[title] = SIGNS.get(check.models.get(model, ""), "")
        rows.append(row)
    show_table(rows)


def open_check(selection: Selection, checks: list[Check]) -> None:
    """The check that is chosen: status, what was found, each model, the rule, the figures."""
    titles = {check.key: check.title for check in checks}
    if st.session_state.get(OPEN_KEY) not in titles:
        st.session_state[OPEN_KEY] = None
    key = st.selectbox(
        "Open a check",
        list(titles),
        index=None,
        key=OPEN_KEY,
        format_func=titles.__getitem__,
        placeholder="Choose one to see its figures",
        persist_state="session",
    )
    for check in checks:
        if check.key == key:
            show_check(selection, check)


def show_check(selection: Selection, check: Check) -> None:
    """One check, whole."""
    label, icon, colour = BADGES[check.status]
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.subheader(check.title, anchor=False, width="content")
        st.badge(label, icon=icon, color=colour)
        if check.page != "trust":
            st.page_link(
                f"app_pages/{check.page}.py",
                label=PAGE_NAMES[check.page],
                icon=":material/arrow_forward:",
            )
    st.markdown(escape_sentence(check.sentence))
    with st.expander("The rule, and each model", icon=":material/rule:"):
        st.markdown(escape(check.rule))
        show_models(selection, check)
    if check.command:
        st.markdown("What would do it:")
        st.code(check.command, language="bash", wrap_lines=True)
    if check.key in SECTIONS:
        SECTIONS[check.key]()


def show_models(selection: Selection, check: Check) -> None:
    """Each model's own status and figure, the control's too."""
    for model, status in check.models.items():
        label, icon, _ = BADGES[status]
        mark = model_mark(selection.run, model)
        title, figure = escape(selection.title(model)), escape(check.figures.get(model, ""))
        st.markdown(f"{icon} {mark} **{title}** {label}: {figure}")


def show_audited(name: str, draw: Callable[[dict], None]) -> None:
    """A section of the audit, or why there is none."""
    section = evidence.section(name)
    if audit is None:
        return  # said once above all checks
    if section is None:
        no_box = name == "blackout" and run.modality == "ct"
        command = audit_command(run, probe=name == "probe", masks=no_box)
        why = f"The audit left this out. {NO_BOX}" if no_box else "The audit left this out."
        trust_parts.not_done(why, command)
    else:
        draw(section)


selection = page_frame("Reliability checks", ":material/verified_user:")
run = selection.run
try:
    checks = trust_data.load_scorecard(run)
    evidence = trust_data.load_evidence(run)
    metrics = {model: run_data.load_metrics(run, model) for model in run.models}
except (ArtifactError, LeakageError, MetricsError) as error:
    empty_state(escape_sentence(str(error)))

audit = evidence.audit
# The checks whose figures are on this page.
SECTIONS = {
    "leakage": partial(show_audited, "leakage", partial(trust_parts.show_leakage, selection)),
    "floors": partial(trust_parts.show_baselines, selection, metrics),
    "blackout": partial(show_audited, "blackout", partial(trust_parts.show_blackout, selection)),
    "probe": partial(
        show_audited, "probe", partial(trust_parts.show_probe, selection, evidence, metrics)
    ),
    "perturbation": partial(
        show_audited,
        "perturbation",
        partial(trust_parts.show_perturbation, selection, audit or {}),
    ),
    "subgroups": partial(show_audited, "subgroups", partial(trust_parts.show_subgroups, selection)),
    "external": partial(trust_parts.show_external, selection, evidence, metrics),
}
verdict, _, faults = scorecard_sentence(run, checks).partition(" Most serious: ")
st.markdown(f"#### {escape(verdict)}")
if faults:
    st.markdown(f"Most serious: {escape(faults)}")
if audit is None:
    trust_parts.not_done(
        "No audit of this run was made, so near copies, shortcuts, stability and subgroups are "
        "not known.",
        audit_command(run),
    )
for sentence in (audit or {}).get("missing") or []:
    st.markdown(f":material/warning: {escape_sentence(sentence)}")
ordered = sort_checks(checks)
show_matrix(selection, ordered)
open_check(selection, ordered)
made = f" Audit of {escape(str(audit.get('created', ''))[:10])}." if audit else ""
explain(
    "Each check is computed from the run's files by one fixed rule, on the test images. It passes "
    "only where the figure with its 95\u202f% CI shows it; what was not measured is not done. It "
    f"fails when any model but a control fails, whichever are shown here.{made}"
)
