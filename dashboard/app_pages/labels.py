"""Labels: whether radiologists agree with the labels, and which labels the models doubt."""

import streamlit as st

from core.reporting.scorecard.base import audit_command, folds_command
from core.runs import artifacts
from core.runs.artifacts import ArtifactError
from dashboard.components import labels as label_parts
from dashboard.components.choice import choose
from dashboard.components.markdown import escape_sentence
from dashboard.components.page import empty_state, page_frame
from dashboard.data import trust as trust_data

READERS, DOUBTS = "readers", "doubtful_labels"
VIEW_KEY = "labels_view"

selection = page_frame("Labels", ":material/fact_check:")
run = selection.run
try:
    evidence = trust_data.load_evidence(run)
except ArtifactError as error:
    empty_state(escape_sentence(str(error)))
if evidence.audit is None:
    empty_state(
        "No audit of this run was made, so second readers and doubtful labels are not known.",
        audit_command(run),
    )

readers, doubts = evidence.section(READERS), evidence.section(DOUBTS)
n = f" ({doubts['n_doubtful']})" if doubts else ""
names = {READERS: "Second readers", DOUBTS: f"Doubtful labels{n}"}
view = choose("View", names, VIEW_KEY, names, label_visibility="collapsed")
if view == READERS:
    if readers is None:
        empty_state(
            "This audit has no second readers: the data set brings no readings of these images, or "
            "the audit is older than this page.",
            audit_command(run),
        )
    label_parts.show_readers(selection, readers)
    st.stop()

if doubts is None:
    if not any(artifacts.has_predictions(run, model, "folds") for model in run.models):
        empty_state(
            "Doubtful labels need out-of-fold predictions, and no model of this run has folds.",
            folds_command(evidence),
        )
    empty_state("This audit is older than the search for doubtful labels.", audit_command(run))
try:
    files = label_parts.load_queue_files(selection)
except ArtifactError as error:
    empty_state(escape_sentence(str(error)))
label_parts.show_doubts(selection, doubts, (readers or {}).get("readers", {}), files)
