"""Section of Curves and thresholds: the operating point, and what it gives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from core.formatting import count, percent
from core.metrics.classification import COVID
from core.metrics.operating_point import FEWEST_PATIENTS, SENSITIVITY
from core.runs.run import Run
from dashboard.charts import curves as curve_charts
from dashboard.components.choice import choose
from dashboard.components.markdown import escape, interval_text, model_cell, with_interval
from dashboard.components.page import ON_TEST, explain, offer_tables, show_chart, show_table
from dashboard.components.sidebar import Selection
from dashboard.data import curves as curve_data
from dashboard.tables import curves as curve_tables


def show_operating(selection: Selection) -> None:
    """Threshold and prevalence to choose, and the rates that follow."""
    run, titles = selection.run, selection.titles
    names = sorted(run.class_names, key=lambda name: name != COVID)
    with st.container(horizontal=True, gap="medium"):
        name = choose("Class to call", names, "operating_class", {}, wrap=True)
        model = choose("Model", list(selection.models), "operating_model", titles, wrap=True)
    n_class, n = curve_data.count_test(run, model, name)
    if n_class in (0, n):
        side = "No" if n_class == 0 else "Every"
        st.info(
            f"{side} test image is {escape(name)}, so sensitivity and specificity cannot both "
            "be measured.",
            icon=":material/info:",
        )
        return
    chosen = curve_data.load_default_threshold(run, model, name)
    threshold, prevalence = choose_point(selection, model, name, chosen, n_class / n)
    rates = curve_data.load_rates(run, model, name, threshold, prevalence)
    people = "drawn phantoms" if run.synthetic else "people"
    said = curve_tables.crowd_sentence(rates, prevalence, escape(name), people)
    st.markdown(f"#### {said}")
    with st.grid(4, min_column_width=150, border=True):
        for key, title in RATES.items():
            with st.container():
                st.metric(
                    title,
                    percent(rates[key]["value"]),
                    interval_text(rates[key]),
                    delta_color="off",
                    delta_arrow="off",
                )
    st.caption(
        f"Sensitivity: of those with {escape(name)}, found. Specificity: of the others, left "
        "alone. PPV: of the alarms, right. NPV: of the all-clears, right. "
        f"{ON_TEST} n = {n}, {n_class} of them {escape(name)}; 95% intervals beneath."
    )
    part, default = chosen["part"], chosen["threshold"]
    test = curve_data.load_operating_table(run, model, "test", name, default)
    own = curve_data.load_operating_table(run, model, part, name, default) if part else None
    style = selection.frame.style(model)
    by_prevalence = curve_tables.prevalence_table(
        rates["sensitivity"]["value"], rates["specificity"]["value"]
    )
    left, right = st.columns(2, gap="medium")
    with left:
        chart = curve_charts.plot_threshold(
            test,
            own,
            threshold=threshold,
            chosen_text=curve_data.SPLIT_PHRASES.get(part, ""),
            n_text=f"{titles[model]}, n = {n} test images",
            name=name,
            style=style,
        )
        show_chart(chart, key="curves_threshold")
    with right:
        chart = curve_charts.plot_prevalence(
            by_prevalence, rates, prevalence=prevalence, name=name, style=style
        )
        show_chart(chart, key="curves_prevalence")
    show_defaults(selection, name, prevalence)
    offer_tables(selection, {"Thresholds on test": test, "By prevalence": by_prevalence})
    explain(
        "The class is called where its served probability reaches the threshold, whatever the "
        "other classes get. The default is chosen where the model was not trained, and never on "
        "test: the largest threshold that finds at least 95 % of the class there. Sensitivity and "
        "specificity are measured on test and do not depend on how common the class is, as long "
        "as the images are like these. PPV (how many alarms are right) and NPV (how many "
        "all-clears are right) do: they follow by Bayes from the prevalence that you set. "
        "Intervals are 95 %, by drawing whole patients; Wilson's on patients where a rate is 0 "
        "or 100 %."
    )


RATES = {
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "ppv": "PPV",
    "npv": "NPV",
}


def choose_point(
    selection: Selection, model: str, name: str, chosen: Mapping[str, Any], share: float
) -> tuple[float, float]:
    """The two sliders: threshold and prevalence, with sensible defaults."""
    run = selection.run
    default = chosen["threshold"]
    left, right = st.columns(2, gap="medium")
    threshold = slide(
        left,
        f"Threshold on the probability of {escape(name)}",
        curve_tables.threshold_options(default),
        default,
        f"operating_threshold_{run.name}_{model}_{name}",
        "default",
    )
    prevalence = slide(
        right,
        f"Prevalence of {escape(name)} where it is used",
        curve_tables.prevalence_options(share),
        share,
        f"operating_prevalence_{run.name}_{name}",
        "as on test",
    )
    shown = curve_tables.share_text(default)
    if not chosen["n_positive"]:
        left.caption(
            f"Nothing to choose a threshold on: no {escape(name)} image among out-of-fold or "
            f"validation predictions. {shown} is only where the slider begins."
        )
    else:
        part = curve_data.SPLIT_PHRASES[chosen["part"]]
        left.caption(
            f"Default {shown}: the largest that finds at least {100 * SENSITIVITY:.0f} % of "
            f"{_positives(run, name, chosen)}, among {chosen['n']} images ({part})."
        )
        if chosen["n_patients"] < FEWEST_PATIENTS:
            left.warning(
                f"This threshold was chosen on only {_positives(run, name, chosen)}, fewer than "
                f"{count(FEWEST_PATIENTS, _patient(run))}: one more or less can move it far.",
                icon=":material/warning:",
            )
    right.caption("Set what you expect where the model would be used; test is seldom like it.")
    return threshold, prevalence


def _positives(run: Run, name: str, chosen: Mapping[str, Any]) -> str:
    """Markdown: "13 covid images of 9 patients"."""
    images = count(chosen["n_positive"], f"{escape(name)} image")
    return f"{images} of {count(chosen['n_patients'], _patient(run))}"


def _patient(run: Run) -> str:
    return "phantom" if run.synthetic else "patient"


def slide(place, label: str, options: list[float], default: float, key: str, said: str) -> float:
    """A slider that is kept while the page is left; the default is named on it."""
    if st.session_state.get(key) not in options:
        st.session_state[key] = default
    return place.select_slider(
        label,
        options,
        key=key,
        format_func=lambda value: (
            curve_tables.share_text(value) + (f" ({said})" if value == default else "")
        ),
        persist_state="session",
    )


def show_defaults(selection: Selection, name: str, prevalence: float) -> None:
    """All models shown, each at its own default, at the prevalence that is set."""
    rows = []
    for model in selection.models:
        chosen = curve_data.load_default_threshold(selection.run, model, name)
        if not chosen["n_positive"]:
            continue
        threshold = chosen["threshold"]
        rates = curve_data.load_rates(selection.run, model, name, threshold, prevalence)
        row = {
            "Model": model_cell(selection.run, model),
            "Threshold": curve_tables.share_text(threshold),
        }
        for key, title in RATES.items():
            row[title] = with_interval(rates[key]["value"], rates[key])
        rows.append(row)
    if rows:
        shown = curve_tables.share_text(prevalence)
        st.markdown(f"**Each model at its own default, prevalence {shown}**")
        show_table(rows)
