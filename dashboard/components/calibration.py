"""Sections of Curves and thresholds: calibrated probabilities, and sets that hold the truth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from core.metrics.classification import ECE_BINS
from dashboard.charts import calibration as calibration_charts
from dashboard.components.markdown import escape, model_cell, with_interval
from dashboard.components.page import (
    ON_TEST,
    explain,
    name_each,
    offer_tables,
    show_chart,
    show_table,
)
from dashboard.components.sidebar import Selection
from dashboard.data import curves as curve_data
from dashboard.tables import curves as curve_tables

ONLY_LIKE_THESE = (
    "The promise holds only for images like these: of the same hospitals and the same mix of "
    "classes, one image a patient. Coverage of a single class is reported and not promised."
)


# ------------------------------------------------------------------------------ calibration

ERRORS = {"log_loss": "Log loss", "brier": "Brier score", "ece": f"ECE, {ECE_BINS} bins"}


def show_calibration(selection: Selection) -> None:
    """Whether the probabilities hold, as served and calibrated."""
    run, titles = selection.run, selection.titles
    entries = {m: curve_data.calibration_entry(run, m) for m in selection.models}
    found = {model: curve_data.load_calibration(run, model) for model in selection.models}
    done = {m: figures for m, figures in found.items() if entries[m]}
    if done:
        changes = {m: figures["metrics"]["change"]["log_loss"] for m, figures in done.items()}
        st.markdown(curve_tables.calibration_sentence(changes, selection.safe_titles))
    missing = [titles[model] for model in found if model not in done]
    if missing:
        st.info(
            f"Not calibrated in this run: {escape(', '.join(missing))}. The probabilities are "
            "shown as they are served; training the run anew calibrates them.",
            icon=":material/info:",
        )
    st.caption(
        f"{ON_TEST} Right as often as the probability says: on the dotted line. Whiskers are 95% "
        "intervals, larger marks are more images, counted below."
    )
    with st.grid(columns=min(len(found), 4), min_column_width=310, gap="small"):
        for model, figures in found.items():
            with st.container():
                chart = calibration_charts.plot_reliability(
                    figures["before"],
                    figures["after"],
                    selection.frame.style(model),
                    label=titles[model],
                    n_text=f"n = {int(figures['before']['n'].sum())} test images",
                )
                show_chart(chart, key=f"curves_reliability_{model}")
    rows, diagrams = [], []
    for model, figures in found.items():
        for key, name in (("before", "as served"), ("after", "calibrated")):
            if figures[key] is None:
                continue
            measured = figures["metrics"][key]
            intervals = measured["intervals"]
            rows.append(
                {"Model": model_cell(selection.run, model), "Probabilities": name}
                | {
                    title: with_interval(measured[k], intervals.get(k), as_percent=False)
                    for k, title in ERRORS.items()
                }
            )
            diagrams.append(figures[key].assign(model=model, probabilities=name))
    show_table(rows)
    if done:
        name_each(selection, {m: fitted_text(entry) for m, entry in entries.items() if entry})
    offer_tables(selection, {"Reliability diagrams": pd.concat(diagrams, ignore_index=True)})
    explain(
        f"The probability of the class that is called, in {ECE_BINS} equal bins closed on the "
        "right. A point is a bin: the mean probability and how often the answer was right, with "
        "Wilson's interval on the patients in the bin; the bars below count its images. **ECE** "
        "is the mean distance of the points from the line, weighted by their images. **Brier "
        "score** is the mean over images of the squared distance from the truth, summed over "
        "classes; **log loss** is minus the mean log of the true class's probability. Training "
        "with class weights acts, at its best fit, as if all classes were equally common: how much "
        "of that is there is measured on the same images and taken out first, "
        "then one temperature a model is fitted by log loss (Guo et al. 2017) on images that the "
        "model was not trained on, never on test. Intervals by drawing whole patients."
    )


def fitted_text(entry: Mapping[str, Any]) -> str:
    """How a model's temperature was fitted, in words."""
    text = f"temperature {entry['temperature']:.2f}"
    if entry.get("low") is not None and entry.get("high") is not None:
        text += f" (95% interval {entry['low']:.2f} to {entry['high']:.2f})"
    text += f", fitted on {curve_data.fitted_on(entry)}"
    if not entry.get("weighted"):
        return text
    return (
        f"{text}; {entry.get('effect', 1.0):.0%} of the class weights' effect found and taken out"
    )


# ------------------------------------------------------------------------------ conformal sets


def show_sets(selection: Selection) -> None:
    """How often conformal sets hold the true class, and how large they are."""
    run, titles = selection.run, selection.titles
    entries = {m: curve_data.conformal_entry(run, m) for m in selection.models}
    done = {m: entry for m, entry in entries.items() if entry}
    missing = [titles[model] for model in entries if model not in done]
    if missing:
        st.info(
            f"No prediction sets in this run for {escape(', '.join(missing))}: they need "
            "calibrated probabilities. Training the run anew makes them.",
            icon=":material/info:",
        )
    if not done:
        return
    sets = {model: curve_data.load_sets(run, model) for model in done}
    promised = 1 - max(entry.get("alpha", 0.1) for entry in done.values())
    st.markdown(curve_tables.coverage_sentence(sets, promised, selection.safe_titles))
    st.markdown(f"**{ONLY_LIKE_THESE}**")
    st.caption(ON_TEST)
    n_text = f"n = {next(iter(sets.values()))['n']} test images"
    rows = curve_tables.coverage_rows(sets, run.class_names)
    sizes = {model: {int(s): n for s, n in own["sizes"].items()} for model, own in sets.items()}
    left, right = st.columns(2, gap="medium")
    with left:
        chart = calibration_charts.plot_coverage(
            rows, selection.frame, promised=promised, n_text=n_text
        )
        show_chart(chart, key="curves_coverage")
    with right:
        chart = calibration_charts.plot_set_sizes(sizes, labels=titles, n_text=n_text)
        show_chart(chart, key="curves_sizes")
    table = pd.DataFrame(
        {"Model": model_cell(selection.run, model)}
        | {
            "Coverage": with_interval(own["patient_coverage"]["value"], own["patient_coverage"]),
            "Classes in a set": with_interval(
                own["mean_size"]["value"], own["mean_size"], as_percent=False
            ),
        }
        | {calibration_charts.size_name(s).capitalize(): str(n) for s, n in sizes[model].items()}
        for model, own in sets.items()
    )
    show_table(table)
    fitted = {
        model: f"threshold {entry['threshold']:.3f} from {curve_data.fitted_on(entry)}"
        for model, entry in done.items()
    }
    name_each(selection, fitted)
    counted = pd.DataFrame(
        [(m, size, n) for m, own in sizes.items() for size, n in own.items()],
        columns=["model", "classes in the set", "images"],
    )
    offer_tables(selection, {"Coverage": rows, "Set sizes": counted})
    explain(
        "A set holds every class whose calibrated probability reaches one threshold a model, and "
        "always the class that is called (least ambiguous sets, Sadinle, Lei & Wasserman 2019). "
        "The threshold was fitted on images that the model was not trained on, one drawn a "
        f"patient, so that {100 * promised:.0f} % of new sets hold the true class, whatever the "
        "model: a poor model pays with larger sets. The promise is about one image of a new "
        "patient, all classes together."
    )
