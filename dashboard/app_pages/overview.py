"""Overview: which model leads, whether that is more than chance, and what it costs."""

from collections.abc import Mapping
from typing import Any

import pandas as pd
import streamlit as st

from core.formatting import NO_VALUE, join, number
from core.metrics.classification import MetricsError
from core.reporting import verdict
from core.reporting.model_card import tried_where
from core.runs.artifacts import ArtifactError, load_card
from dashboard.charts import metrics as metric_charts
from dashboard.components import overview as overview_parts
from dashboard.components.markdown import (
    escape,
    escape_sentence,
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


def show_costs(selection: Selection, metrics: Metrics) -> None:
    """How each model's weights began, and what it costs."""
    rows = []
    for model in selection.models:
        cost = metrics[model].get("cost") or {}
        seconds = cost.get("train_s")
        rows.append(
            {"Model": f"{model_mark(selection.run, model)}\u00a0{escape(selection.title(model))}"}
            | {"Weights at start": escape(selection.init(model) or NO_VALUE)}
            | {"ms per image": number(cost.get("latency_ms"), 1)}
            | {"MB": number(cost.get("size_mb"), 1)}
            | {"Training": NO_VALUE if seconds is None else f"{seconds / 60:.0f} min"}
        )
    show_table(rows)


def show_report(selection: Selection, metrics: Metrics) -> None:
    """Precision, recall and F1 of each class, model by model."""
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


def show_quality_cost(
    selection: Selection, rows: pd.DataFrame, metrics: Metrics, n_text: str
) -> None:
    """Macro-F1 against time per image, and how weights that began unlike blur the comparison."""
    quality = rows[rows["metric"] == "macro_f1"].copy()
    for key in ("latency_ms", "size_mb"):
        costs = {m: (metrics[m].get("cost") or {}).get(key) for m in metrics}
        quality[key] = quality["model"].map(costs).astype(float)
    show_chart(metric_charts.plot_quality_cost(quality, selection.frame, n_text=n_text))
    st.caption(escape(said.cost))
    run = selection.run
    inits = {m: run.info.get("init", {}).get(m) for m in selection.models if not run.members(m)}
    note = verdict.initialisation_note(inits, selection.titles)
    if note:
        st.info(escape(note), icon=":material/compare_arrows:")


def show_all_metrics(
    selection: Selection,
    metrics: Metrics,
    rows: pd.DataFrame,
    labels: dict[str, str],
) -> None:
    """Every figure with its interval as tables, and as CSV."""
    n = metrics[selection.models[0]]["n"]
    st.caption(f"Percent of {n} {selection.split_name} images, each with its 95 % CI.")
    config = {"metric": st.column_config.TextColumn("Metric", pinned=True, width="medium")}
    for model in selection.models:
        config[model] = st.column_config.NumberColumn(labels[model], format="%.1f", width=130)
        config[f"interval:{model}"] = st.column_config.TextColumn(
            f"95 % CI, {selection.title(model)}", alignment="right", width=150
        )
    st.dataframe(
        metric_tables.side_by_side(rows, selection.models),
        hide_index=True,
        column_config=config,
        alt="Every metric of every chosen model with its 95 % CI",
    )
    st.caption("Errors of the probabilities (lower is better) and cost.")
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
    baselines: Mapping[str, Mapping[str, Any]], metrics: Metrics, labels: dict[str, str]
) -> None:
    """The models that a shortcut without any network equals or beats."""
    if not baselines:
        return
    lost = [m for m, figures in metrics.items() if verdict.unbeaten_baselines(figures, baselines)]
    if lost:
        names = join(f"**{escape(labels[model])}**" for model in lost)
        st.markdown(f"{names} {'does' if len(lost) == 1 else 'do'} no better than a shortcut.")


def show_conditions(selection: Selection, basis: str) -> None:
    """How the figures were computed, on which model, images and machine."""
    info = selection.run.info
    sizes = info.get("model_input_size_px", {})
    size_px = ", ".join(
        f"{escape(selection.title(m))} {sizes.get(m, info.get('input_size_px', '?'))} px"
        for m in selection.models
        if not selection.run.members(m)
    )
    facts = {
        "Figures": escape(basis),
        "Measured on": f"the served model, precision {escape(info.get('precision', 'not stated'))}",
        "Images": f"made square by {escape(info.get('resize', 'not stated'))} ({size_px})",
        "Averaged over copies": escape(str(info.get("tta") or "none")),
        "Recipes tried on validation": _recipes_tried(selection),
        "Times": f"on {escape(metric_tables.plain(info.get('hardware') or 'not stated'))}",
    }
    st.markdown("\n".join(f"- **{name}**: {text}" for name, text in facts.items()))
    missing = overview_parts.not_done_yet(selection)
    if missing:
        st.markdown("**Not done**\n" + "\n".join(f"- {text}" for text in missing))


def _recipes_tried(selection: Selection) -> str:
    info = selection.run.info
    tried = info.get("recipes_tried")
    if not isinstance(tried, dict):
        return escape(str(tried or "not stated"))
    known = {m: tried[m] for m in selection.models if m in tried}
    words = ", ".join(f"{selection.title(m)} {n}" for m, n in known.items()) or "not stated"
    return escape(words + tried_where(info, max(known.values(), default=0)))


def show_model_cards(selection: Selection) -> None:
    """The run's model cards."""
    for model in selection.models:
        with st.expander(selection.title(model), icon=":material/badge:"):
            card = load_card(selection.run, model)
            st.markdown(card or "This run holds no card of this model.", anchors=False)


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
n_text = f"{metrics[models[0]]['n']} {selection.split_name} images"
# Baselines are known for the test split only.
known_baselines = run.info.get("floors", {}) if part == "test" else {}

said = verdict.leader_sentence(
    metrics,
    comparisons,
    titles,
    synthetic=run.synthetic,
    leakage=run.info.get("leakage"),
    part=selection.split_name,
)
st.markdown(f"#### {escape(said.sentence)}")
overview_parts.show_reliance(selection)
ranked = rows[rows["metric"].isin(["macro_f1", "accuracy"])]
baselines = metric_tables.baseline_rows(known_baselines)
show_chart(
    metric_charts.plot_ranked_models(ranked, selection.frame, n_text=n_text, baselines=baselines)
)
show_baselines(known_baselines, metrics, titles)
show_costs(selection, metrics)

tabs = {"By class": lambda: show_report(selection, metrics)}
if all("binary" in figures for figures in metrics.values()):
    tabs = {"COVID-19 or not": lambda: show_binary(selection, metrics)} | tabs
if comparisons:
    tabs["Differences"] = lambda: overview_parts.show_pairs(selection, comparisons)
if part == "test":
    tabs["External images"] = lambda: overview_parts.show_external(selection, metrics)
    tabs["Calibration"] = lambda: overview_parts.show_calibrated(selection, metrics)
tabs["Cost"] = lambda: show_quality_cost(selection, rows, metrics, n_text)
tabs["All figures"] = lambda: show_all_metrics(selection, metrics, rows, labels)
tabs["Model cards"] = lambda: show_model_cards(selection)
tabs["How this is computed"] = lambda: show_conditions(selection, said.basis)
for tab, show in zip(st.tabs(list(tabs)), tabs.values(), strict=True):
    with tab:
        show()
