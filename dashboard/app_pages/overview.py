"""Overview: which model leads, whether that is more than chance, and what it costs."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from core.formatting import number, percent
from core.metrics.classification import MetricsError
from core.reporting import verdict
from core.reporting.model_card import tried_where
from core.runs.artifacts import ArtifactError, load_card
from dashboard.charts import metrics as metric_charts
from dashboard.charts.style import ChartFrame
from dashboard.components import overview as overview_parts
from dashboard.components.markdown import (
    escape,
    escape_sentence,
    interval_text,
    model_cell,
    model_mark,
    with_interval,
)
from dashboard.components.page import empty_state, offer_csv, page_frame, show_chart, show_table
from dashboard.components.sidebar import Selection
from dashboard.data import runs as run_data
from dashboard.tables import metrics as metric_tables
from dashboard.tables.metrics import Metrics

COVID = "covid"


def show_cards(selection: Selection, metrics: Metrics) -> None:
    """A card a model."""
    with st.grid(min(len(selection.models), 5), min_column_width=230, border=True):
        for model in selection.models:
            with st.container():
                show_card(selection, model, metrics[model])


def show_card(selection: Selection, model: str, figures: Mapping[str, Any]) -> None:
    """A model's macro-F1 and accuracy with intervals, and its cost."""
    intervals = figures.get("intervals", {})
    title = escape(selection.title(model))
    st.markdown(f"**{model_mark(selection.run, model)} {title}**")
    init = selection.init(model)
    if init:
        st.badge(escape(init), color="yellow" if init == "random init" else "gray")
    st.metric(
        "Macro-F1, 95% interval",
        percent(figures["macro_f1"]),
        interval_text(intervals.get("macro_f1")),
        delta_color="off",
        delta_arrow="off",
    )
    accuracy = with_interval(figures["accuracy"], intervals.get("accuracy"))
    cost = figures.get("cost") or {}
    st.markdown(
        f"Accuracy {accuracy}  \n"
        f"**{number(cost.get('latency_ms'), 1)}** ms an image  \n"
        f"**{number(cost.get('size_mb'), 1)}** MB"
    )


def show_report(selection: Selection, metrics: Metrics) -> None:
    """Precision, recall and F1 of each class, model by model."""
    st.subheader("Classification report", anchor=False)
    first = metrics[selection.models[0]]
    for name in selection.run.class_names:
        support = first["per_class"][name]["support"]
        st.markdown(f"**{escape(name)}** · {support} of {first['n']} images")
        report = pd.DataFrame(
            [
                {"Model": model_cell(selection.run, model)}
                | {
                    text: with_interval(
                        metrics[model]["per_class"][name][key],
                        metrics[model].get("intervals", {}).get(f"{key}.{name}"),
                    )
                    for key, text in metric_tables.CLASS_SHARES.items()
                }
                for model in selection.models
            ]
        )
        show_table(report)


def show_binary(selection: Selection, metrics: Metrics) -> None:
    """COVID-19 against the rest, for runs of more classes."""
    st.subheader("COVID-19 or not", anchor=False)
    place = selection.run.class_names.index(COVID)
    found, alarms, rows = [], [], []
    for model, figures in metrics.items():
        matrix = figures["confusion_matrix"]
        hits, called = matrix[place][place], sum(row[place] for row in matrix)
        found.append(f"{escape(selection.title(model))} **{hits}**")
        alarms.append(f"{escape(selection.title(model))} **{called - hits}**")
        intervals = figures.get("intervals", {})
        rows.append(
            {"Model": model_cell(selection.run, model)}
            | {
                text: with_interval(
                    figures["binary"][metric_tables.BINARY_TASK][key],
                    intervals.get(f"binary.{metric_tables.BINARY_TASK}.{key}"),
                )
                for key, text in metric_tables.BINARY_SHARES.items()
            }
        )
    first = metrics[selection.models[0]]
    ill = first["per_class"][COVID]["support"]
    st.markdown(
        f"Of {ill} COVID-19 images, found: {', '.join(found)}. "
        f"Of {first['n'] - ill} others, called COVID-19: {', '.join(alarms)}."
    )
    show_table(rows)


def show_all_metrics(
    selection: Selection,
    metrics: Metrics,
    rows: pd.DataFrame,
    labels: dict[str, str],
) -> None:
    """Every figure with its interval as tables, and as CSV."""
    st.subheader("All figures", anchor=False)
    n = metrics[selection.models[0]]["n"]
    st.caption(
        f"Percent of n = {n} {selection.split_name} images, each followed by its 95% interval. "
        "A click on a column's head sorts."
    )
    config = {"metric": st.column_config.TextColumn("Metric", pinned=True, width="medium")}
    for model in selection.models:
        config[model] = st.column_config.NumberColumn(labels[model], format="%.1f", width=130)
        config[f"interval:{model}"] = st.column_config.TextColumn(
            f"95%, {selection.title(model)}", alignment="right", width=150
        )
    st.dataframe(
        metric_tables.side_by_side(rows, selection.models),
        hide_index=True,
        column_config=config,
        alt="Every metric of every chosen model with its 95% interval",
    )
    st.caption("Errors of the probabilities (lower is better) and cost")
    costs = metric_tables.error_and_cost_table(metrics, rows, labels)
    decimals = dict.fromkeys(metric_tables.ERRORS.values(), "%.3f")
    decimals |= {"Parameters, millions": "%.2f", "MB": "%.1f", "ms an image": "%.1f"}
    decimals |= {"Training, minutes": "%.1f"}
    config = {name: st.column_config.NumberColumn(format=f) for name, f in decimals.items()}
    for name in metric_tables.ERRORS.values():
        config[f"{name}, 95%"] = st.column_config.TextColumn(alignment="right")
    st.dataframe(costs, hide_index=True, column_config=config, alt="Calibration and cost by model")
    offer_csv(
        "All figures as CSV",
        metric_tables.csv_table(rows, metrics, selection.split),
        f"{selection.run.name}-{selection.split}-metrics.csv",
    )


def show_baselines(
    baselines: Mapping[str, Mapping[str, Any]],
    metrics: Metrics,
    labels: dict[str, str],
) -> None:
    """The floors that are hardest to beat, and the models that do not beat every floor."""
    highest = verdict.highest_baselines(baselines)
    if not highest:
        return
    text = f"**Floors.** Shortcuts without any network reach, on the same test images, {highest}. "
    lost = {m: verdict.unbeaten_baselines(figures, baselines) for m, figures in metrics.items()}
    below = [
        f"**{escape(labels[model])}** ({escape('; '.join(names))})"
        for model, names in lost.items()
        if names
    ]
    text += f"Not above: {', '.join(below)}." if below else "Every model shown is above all floors."
    st.markdown(text)


def show_conditions(selection: Selection) -> None:
    """On which model, images and machine all this was measured."""
    info = selection.run.info
    sizes = info.get("model_input_size_px", {})
    size_px = ", ".join(
        f"{escape(selection.title(m))} {sizes.get(m, info.get('input_size_px', '?'))} px"
        for m in selection.models
        if not selection.run.members(m)
    )
    st.markdown(
        f"**Measured on the model that is served**: precision "
        f"{escape(info.get('precision', 'not stated'))}, set explicitly; images made square by "
        f"{escape(info.get('resize', 'not stated'))} ({size_px}); test-time copies: "
        f"{escape(str(info.get('tta') or 'none'))}. "
        f"Recipes tried on validation: {_recipes_tried(selection)}."
        f" Times were taken on: "
        f"{escape(metric_tables.plain(info.get('hardware') or 'not stated'))}."
    )
    missing = overview_parts.not_done_yet(selection)
    if missing:
        st.markdown(f":material/pending: **Not done yet**: {'; '.join(missing)}.")


def _recipes_tried(selection: Selection) -> str:
    info = selection.run.info
    tried = info.get("recipes_tried")
    if not isinstance(tried, dict):
        return escape(str(tried or "not stated"))
    known = {m: tried[m] for m in selection.models if m in tried}
    words = ", ".join(f"{selection.title(m)} {n}" for m, n in known.items()) or "not stated"
    return escape(words + tried_where(info, max(known.values(), default=0)))


def show_model_cards(selection: Selection) -> None:
    """The run's model cards, on demand."""
    with st.expander("Model cards: intended use, data, licence, limits", icon=":material/badge:"):
        tabs = st.tabs([selection.title(model) for model in selection.models])
        for tab, model in zip(tabs, selection.models, strict=True):
            card = load_card(selection.run, model)
            tab.markdown(card or "This run holds no card of this model.", anchors=False)


selection = page_frame("Overview", ":material/leaderboard:")
run, models, part = selection.run, selection.models, selection.split
try:
    metrics = {model: run_data.load_metrics(run, model, part) for model in models}
    comparisons = run_data.load_comparisons(run, part)
except (ArtifactError, MetricsError) as error:
    empty_state(escape_sentence(str(error)))
labels = {model: selection.label(model) for model in run.models}
titles = {model: selection.title(model) for model in run.models}
rows = metric_tables.metric_rows(metrics, run.class_names, labels)
n_text = f"n = {metrics[models[0]]['n']} {selection.split_name} images"

said = verdict.leader_sentence(
    metrics, comparisons, titles, synthetic=run.synthetic, part=selection.split_name
)
st.markdown(f"#### {escape(said.sentence)}")
st.markdown(f"{escape(said.cost)} :gray[{escape(said.basis)}]")
inits = {m: run.info.get("init", {}).get(m) for m in models if not run.members(m)}
note = verdict.initialisation_note(inits, titles)
overview_parts.show_links(selection)
if note:
    st.info(escape(note), icon=":material/compare_arrows:")

show_cards(selection, metrics)

# Floors are known for the test part only.
known_baselines = run.info.get("floors", {}) if part == "test" else {}
baselines = metric_tables.baseline_rows(known_baselines)
left, right = st.columns([3, 2], gap="medium")
with left:
    shown = rows[rows["metric"].isin(metric_tables.SHARES)]
    frame = ChartFrame(run.models, labels)
    show_chart(metric_charts.plot_metric_dots(shown, frame, n_text=n_text, baselines=baselines))
with right:
    quality = rows[rows["metric"] == "macro_f1"].copy()
    for key in ("latency_ms", "size_mb"):
        costs = {m: (metrics[m].get("cost") or {}).get(key) for m in models}
        quality[key] = quality["model"].map(costs).astype(float)
    show_chart(metric_charts.plot_quality_cost(quality, selection.frame, n_text=n_text))
show_baselines(known_baselines, metrics, labels)
overview_parts.show_pairs(selection, comparisons)
show_conditions(selection)
if all("binary" in figures for figures in metrics.values()):
    show_binary(selection, metrics)
show_report(selection, metrics)
if part == "test":
    overview_parts.show_external(selection, metrics)
    overview_parts.show_calibrated(selection, metrics)
show_all_metrics(selection, metrics, rows, labels)
show_model_cards(selection)
