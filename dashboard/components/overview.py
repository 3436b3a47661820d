"""Parts of Overview that say how far its figures can be trusted.

Whether to rely on the run, every pair of models, external images, calibration, what is missing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import streamlit as st

from core.evaluation import cross_validation
from core.formatting import number
from core.metrics.classification import MetricsError
from core.reporting import run_summary, verdict
from core.runs.additions import list_external, load_audit
from core.runs.artifacts import ArtifactError
from dashboard.components.markdown import (
    escape,
    escape_sentence,
    model_cell,
    with_interval,
)
from dashboard.components.page import show_table
from dashboard.components.sidebar import Selection
from dashboard.data import protocol as protocol_data
from dashboard.data import runs as run_data
from dashboard.data import trust as trust_data
from dashboard.tables import metrics as metric_tables
from dashboard.tables.metrics import Metrics

CALIBRATED = {"log_loss": "Log loss", "brier": "Brier score", "ece": "ECE"}
CALIBRATION_PARTS = {"inner": "out-of-fold", "val": "validation"}


STATUS_BOXES = {
    "failed": (st.error, ":material/error:"),
    "not done": (st.warning, ":material/warning:"),
    "passed": (st.success, ":material/check_circle:"),
}


def show_reliance(selection: Selection) -> None:
    """Whether to rely on the run, and where the reasons stand."""
    run = selection.run
    try:
        statuses = {check.key: check.status for check in trust_data.load_scorecard(run)}
        external = protocol_data.load_externals(run)
    except (ArtifactError, MetricsError) as error:
        st.error(escape_sentence(str(error)), icon=":material/error:")
        return
    said = verdict.reliance_sentence(statuses, external, run.headline_models)
    box, icon = STATUS_BOXES[said.status]
    left, right = st.columns([6, 1.3], vertical_alignment="center")
    with left:
        box(escape(said.sentence), icon=icon)
    right.page_link(
        Path("app_pages", "trust.py"), label="See why", icon=":material/arrow_forward:",
        icon_position="right",
    )  # fmt: skip


def show_pairs(selection: Selection, comparisons: Sequence[Mapping[str, Any]]) -> None:
    """Every pair of the run's models and its verdict, on demand."""
    if not comparisons:
        return
    several = images_of_a_patient(selection)
    with st.expander("Every pair of models, and whether it differs", icon=":material/compare:"):
        show_table([pair_row(selection, row) for row in comparisons])
        st.caption(
            "Difference in macro-F1, in points, with its 95% interval from the same draws of "
            "whole patients. p: permutation test that swaps whole patients, and Holm's correction "
            f"over {len(comparisons)} pairs, all of the run's whatever is chosen. McNemar counts "
            f"every image for itself and ignores that a patient has {several}, "
            "so it decides nothing. A difference is shown where the corrected p is below 0.05 and "
            "the interval leaves out 0; where none is shown, that is the verdict."
        )


def images_of_a_patient(selection: Selection) -> str:
    """Such as "up to 12 images here"."""
    try:
        table = run_data.load_prediction_table(selection.run, selection.models[0], selection.split)
    except ArtifactError:  # the page needs the manifest for nothing else
        return "several images"
    return f"up to {table['patient_id'].value_counts().max()} images here"


def pair_row(selection: Selection, row: Mapping[str, Any]) -> dict[str, str]:
    """Two models' difference in macro-F1, its p values and the verdict."""
    names = {side: escape(selection.title(row[side])) for side in ("a", "b")}
    low, high = row.get("low"), row.get("high")
    difference = "–" if row.get("difference") is None else f"{100 * row['difference']:+.1f}"
    better = {"a better": names["a"], "b better": names["b"]}.get(row["verdict"])
    return {
        "Pair": f"{names['a']} less {names['b']}",
        "Difference": f"{difference} :gray[{metric_tables.range_text(low, high)}]",
        "p, permutation": p_text(row.get("p_permutation")),
        "p, Holm": p_text(row["p_holm"]),
        "p, McNemar": f":gray[{p_text(row.get('mcnemar_p'))}]",
        "Verdict": f"**{better} better**" if better else "no difference shown",
    }


def p_text(value: float | None) -> str:
    """A p value to three decimals; a dash where there is none."""
    if value is None:
        return "–"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def show_calibrated(selection: Selection, metrics: Metrics) -> None:
    """What the temperature does on test, where one was fitted."""
    rows = []
    for model in selection.models:
        done = metrics[model].get("calibrated") or {}
        if not done.get("before") or not done.get("after"):
            continue
        part = CALIBRATION_PARTS.get(str(done.get("part")), str(done.get("part")))
        row = {"Model": model_cell(selection.run, model)}
        row["Temperature"] = f"{number(done.get('temperature'))} :gray[{done.get('n')} {part}]"
        for key, name in CALIBRATED.items():
            for when in ("before", "after"):
                interval = (done[when].get("intervals") or {}).get(key)
                value = with_interval(done[when].get(key), interval, as_percent=False)
                row[f"{name}, {when}"] = value
        rows.append(row)
    if rows:
        st.subheader("Probabilities, as served and calibrated", anchor=False)
        show_table(rows)
        st.caption(
            "On the test images; lower is better. Beside each temperature the images that it was "
            "fitted on: none of them is a test image. More on the page Curves and thresholds."
        )


def show_external(selection: Selection, metrics: Metrics) -> None:
    """Figures on external images beside the run's own."""
    st.subheader("Images from elsewhere", anchor=False)
    try:
        documents = protocol_data.load_externals(selection.run)
    except ArtifactError as error:
        st.error(escape_sentence(str(error)), icon=":material/error:")
        return
    if not documents:
        st.markdown(
            "**External: not done.** What is left of these figures on images of other hospitals "
            f"is not known; `python -m core evaluate --run {selection.run.name} --data FOLDER` "
            "measures it."
        )
    for document in documents:
        missing = document.get("classes_missing") or []
        text = f"**{escape(document.get('title', document['name']))}**, n = {document['n']:,}"
        text += f", without {escape(', '.join(missing))}" if missing else ""
        st.markdown(text)
        rows = []
        for model in selection.models:
            if model not in document["models"]:
                continue
            own = metrics[model]
            here = with_interval(own["macro_f1"], own["intervals"].get("macro_f1"))
            accuracy, macro_f1, fall = run_summary.external_cells(document, model)
            found = run_summary.external_sensitivities(document, model)
            rows.append(
                {"Model": model_cell(selection.run, model), "Macro-F1 here": here}
                | {"Macro-F1 there": lighter(macro_f1), "Change": lighter(fall)}
                | {"Accuracy there": lighter(accuracy)}
                | {f"{name} found there": lighter(text) for name, text in found.items()}
            )
        if rows:
            show_table(rows)


def lighter(cell: str) -> str:
    """ "84.8 (82.1 to 87.3)" with the interval in lighter type."""
    figure, _, rest = cell.partition(" (")
    return f"{figure} :gray[{rest[:-1]}]" if rest else figure


def not_done_yet(selection: Selection) -> list[str]:
    """What this run lacks, each with the reason, as Markdown."""
    run, missing = selection.run, []
    try:
        audited = load_audit(run) is not None
    except ArtifactError:
        audited = True  # damaged, which the line about trust says
    if not audited:
        missing.append("Leakage and shortcut audit (no audit has been made of this run)")
    if not list_external(run):
        missing.append("External validation (no images from elsewhere have been evaluated)")
    reasons = {
        m: r for m, r in cross_validation.folds_not_done(run).items() if m in selection.models
    }
    if not cross_validation.fold_count(run):
        missing.append("Cross-validation (trained on one split, without `--folds`)")
    else:
        each = [f"{escape(selection.title(m))}: {escape(r)}" for m, r in reasons.items()]
        missing += [f"Cross-validation of some models ({'; '.join(each)})"] if each else []
    raw = [m for m in selection.models if not run_data.load_metrics(run, m).get("calibrated")]
    if raw:
        names = ", ".join(escape(selection.title(m)) for m in raw)
        missing.append(f"Calibration (no temperature is fitted for {names})")
    return missing
