"""Trust: which of the usual pitfalls the run falls into, each computed from its files."""

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
from dashboard.components.page import empty_state, page_frame
from dashboard.components.sidebar import Selection
from dashboard.data import runs as run_data
from dashboard.data import trust as trust_data

BADGES: dict[str, tuple[str, str, Any]] = {
    PASSED: ("passed", ":material/check_circle:", "blue"),
    FAILED: ("failed", ":material/cancel:", "orange"),
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
# Sections of this page: anchor -> title.
SECTIONS = {
    "leakage": "Leakage",
    "floors": "Shortcut floors",
    "blackout": "Blackout test",
    "probe": "Source probe",
    "perturbation": "Stability when images change",
    "subgroups": "Subgroups",
    "external": "Images from elsewhere",
}
AUDITED = set(SECTIONS) - {"floors", "external"}  # one sentence for all where there is no audit


def show_check(selection: Selection, check: Check) -> None:
    """One row: status, what was found, where to look, and the rule on demand."""
    status, words, where = st.columns([1.2, 9, 2.2], vertical_alignment="top", gap="small")
    label, icon, colour = BADGES[check.status]
    status.badge(label, icon=icon, color=colour)
    words.markdown(f"**{escape(check.title)}**  \n{escape_sentence(check.sentence)}")
    with where.container(horizontal=True, vertical_alignment="center", gap="small"):
        show_link(check)
        with st.popover("Rule", icon=":material/rule:", type="tertiary", key=f"rule_{check.key}"):
            st.markdown(f"**{escape(check.title)}: the rule**")
            st.markdown(escape(check.rule))
            show_models(selection, check)
            if check.command:
                st.markdown("What would do it:")
                st.code(check.command, language="bash", wrap_lines=True)


def show_link(check: Check) -> None:
    """Where the check's figures are shown."""
    if check.page == "trust":
        anchor = "audit" if audit is None and check.key in AUDITED else check.key
        st.markdown(f":material/arrow_downward: [Below](#{anchor})", width="content")
        return
    st.page_link(
        f"app_pages/{check.page}.py",
        label=PAGE_NAMES[check.page],
        icon=":material/arrow_forward:",
    )


def show_models(selection: Selection, check: Check) -> None:
    """Each model's own status and figure, the control's too."""
    for model, status in check.models.items():
        label, icon, _ = BADGES[status]
        mark = model_mark(selection.run, model)
        title, figure = escape(selection.title(model)), escape(check.figures.get(model, ""))
        st.markdown(f"{icon} {mark} **{title}** {label}: {figure}")


def show_section(name: str, draw: Callable[..., None], *arguments: object) -> None:
    """A section of this page under its title."""
    st.subheader(SECTIONS[name], anchor=name)
    draw(*arguments)


def show_audited(name: str, draw: Callable[[dict], None]) -> None:
    """A section of the audit; without an audit nothing, for that is said once above them all."""
    if audit is None:
        return
    section = evidence.section(name)
    if section is None:
        no_box = name == "blackout" and run.modality == "ct"
        command = audit_command(run, probe=name == "probe", masks=no_box)
        why = f"The audit left this out. {NO_BOX}" if no_box else "The audit left this out."
        show_section(name, trust_parts.not_done, why, command)
    else:
        show_section(name, draw, section)


selection = page_frame("Reliability checks", ":material/verified_user:")
run = selection.run
try:
    checks = trust_data.load_scorecard(run)
    evidence = trust_data.load_evidence(run)
    metrics = {model: run_data.load_metrics(run, model) for model in run.models}
except (ArtifactError, LeakageError, MetricsError) as error:
    empty_state(escape_sentence(str(error)))

audit = evidence.audit
st.markdown(f"#### {escape(scorecard_sentence(run, checks))}")
made = f" Audit of {escape(str(audit.get('created', ''))[:10])}." if audit else ""
st.markdown(
    "Each check is computed from the run's files by one fixed rule, and passes only where the "
    "figure with its 95\u202f% interval shows it; what was not measured counts as not done. It "
    "fails when any model but a control fails, whichever are shown here, and is about the test "
    f"part.{made}"
)
with st.container(border=True):
    for check in sort_checks(checks):
        show_check(selection, check)

if audit is None:
    st.subheader("Audit", anchor="audit")
    trust_parts.not_done(
        "No audit of this run was made, so near copies, shortcuts, stability and subgroups are "
        "not known.",
        audit_command(run),
    )
for sentence in (audit or {}).get("missing") or []:
    st.markdown(f":material/warning: {escape_sentence(sentence)}")


show_audited("leakage", partial(trust_parts.show_leakage, selection))
show_section("floors", partial(trust_parts.show_baselines, selection, metrics))
show_audited("blackout", partial(trust_parts.show_blackout, selection))
show_audited("probe", partial(trust_parts.show_probe, selection, evidence, metrics))
show_audited("perturbation", partial(trust_parts.show_perturbation, selection, audit or {}))
show_audited("subgroups", partial(trust_parts.show_subgroups, selection))
show_section("external", partial(trust_parts.show_external, selection, evidence, metrics))
