"""Curves: how well classes are separated, whether probabilities are true, and what to call."""

from __future__ import annotations

import streamlit as st

from core.metrics.classification import MetricsError
from core.metrics.curves import MACRO
from core.runs.artifacts import ArtifactError
from dashboard.charts import curves as curve_charts
from dashboard.components.calibration import show_calibration, show_sets
from dashboard.components.choice import choose
from dashboard.components.markdown import escape, escape_sentence, model_cell, with_interval
from dashboard.components.operating_point import show_operating
from dashboard.components.page import (
    empty_state,
    explain,
    offer_tables,
    page_frame,
    show_chart,
    show_table,
)
from dashboard.components.sidebar import Selection
from dashboard.data import curves as curve_data
from dashboard.tables import curves as curve_tables


def show_separation(selection: Selection, curves: dict, comparisons: dict | None) -> None:
    """ROC and precision-recall curves of one class, their areas, and which model is ahead."""
    run, split_name = selection.run, selection.split_name
    options = [MACRO, *run.class_names]
    name = choose(
        "One class against the rest", options, "curves_class", {MACRO: "mean of all"}, wrap=True
    )
    shown = {model: kinds for model, kinds in curves.items() if name in kinds["roc"]}
    if not shown:
        all_or_none = f"of {escape(name)}: either none or all of the {split_name} images are it"
        st.info(f"There is no curve {all_or_none}.", icon=":material/info:")
        return
    first = next(iter(shown.values()))["roc"][name]
    n_text = f"{first.n_positive} {name} among n = {first.n} {split_name} images"
    if name == MACRO:
        n_text = f"n = {first.n} {split_name} images, mean of each class against the rest"
    else:
        sentence = curve_tables.area_sentence(
            {model: kinds["roc"][name] for model, kinds in shown.items()},
            comparisons[name] if comparisons else None,
            selection.safe_titles,
            of=f"{escape(name)} from the rest",
        )
        st.markdown(sentence)
    for column, kind in zip(st.columns(2, gap="medium"), ("roc", "pr"), strict=True):
        with column:
            chart = curve_charts.plot_curves(
                {model: kinds[kind][name] for model, kinds in shown.items()},
                kind,
                selection.frame,
                n_text=n_text,
            )
            show_chart(chart, key=f"curves_{kind}")
    rows = []
    for model, kinds in shown.items():
        row = {"Model": model_cell(selection.run, model)}
        for kind, area in (("roc", "AUC"), ("pr", "Average precision")):
            curve = kinds[kind][name]
            interval = {"low": curve.area_low, "high": curve.area_high}
            row[area] = with_interval(curve.area, interval)
        rows.append(row)
    show_table(rows)
    offer_tables(
        selection,
        {
            f"Areas on {split_name} images": curve_tables.area_rows(curves),
            f"Curves on {split_name} images": curve_tables.curve_points(curves),
        },
    )
    explain(
        "Each class against the rest, by the probabilities that the models serve. **AUC** is the "
        "share of pairs, one image of the class and one of another, in which the class's image "
        "gets the higher probability; 50 % is chance. **Average precision** is the mean precision "
        "over the class's images; calling everybody gives the share of the class, so compare it "
        "only on the same images. Bands and intervals are 95 %, from 2,000 draws of whole "
        "patients; a band holds point by point, not for the whole line, and where the line is at "
        "0 or 100 % it takes in Wilson's interval on the patients behind that point; a ROC band "
        "never falls. Which model is ahead is judged on the difference of the areas over the same "
        "draws, with Holm's correction over all pairs of the run's models; it is called more than "
        "chance where the corrected p is below 0.05 and the interval of the difference leaves out "
        "0."
    )


SECTIONS = {
    "separation": "ROC and precision-recall",
    "calibration": "Calibration",
    "sets": "Conformal sets",
    "operating": "Operating point",
}

selection = page_frame("Curves and thresholds", ":material/stacked_line_chart:")
try:
    curves = {
        model: curve_data.load_curves(selection.run, model, selection.split)
        for model in selection.models
    }
    comparisons = curve_data.load_area_comparisons(selection.run, selection.split)
    roc = {m: kinds["roc"][MACRO] for m, kinds in curves.items() if MACRO in kinds["roc"]}
    sentence = curve_tables.area_sentence(
        roc, comparisons[MACRO] if comparisons else None, selection.safe_titles, of="the classes"
    )
    if selection.run.synthetic:
        sentence = f"SYNTHETIC: drawn phantoms say nothing about patients. {sentence}"
    st.markdown(f"#### {sentence}")
    section = choose("Show", list(SECTIONS), "curves_section", SECTIONS, wrap=True)
    if section == "separation":
        show_separation(selection, curves, comparisons)
    elif section == "calibration":
        show_calibration(selection)
    elif section == "sets":
        show_sets(selection)
    else:
        show_operating(selection)
except (ArtifactError, MetricsError) as error:
    empty_state(escape_sentence(str(error)))
