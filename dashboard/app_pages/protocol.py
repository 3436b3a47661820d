"""Protocol: what cross-validation says, beside the published figures and random folds."""

import shlex
from typing import Any

import pandas as pd
import streamlit as st

from core.evaluation import cross_validation, published_protocol, split_comparison
from core.evaluation.published_results import FIGURES, TASKS
from core.formatting import percent
from core.metrics.classification import MetricsError
from core.runs.artifacts import ArtifactError
from core.runs.run import Run
from dashboard.charts import protocol as protocol_charts
from dashboard.components.markdown import (
    escape,
    escape_sentence,
    interval_text,
    model_cell,
    with_interval,
)
from dashboard.components.page import empty_state, offer_csv, page_frame, show_chart, show_table
from dashboard.components.sidebar import Selection
from dashboard.data import protocol as protocol_data
from dashboard.tables import metrics as metric_tables

FOLDS = 5
ALWAYS_POOLED = "Out-of-fold answers, whatever part is chosen in the sidebar."


def train_command(run: Run, name: str, *, split: str = "group", k: int = FOLDS) -> str:
    """The command that makes a run of the same data set with folds."""
    dataset = shlex.quote(str(run.info["dataset"].get("name", "DATASET")))
    models = ",".join((run.info.get("config") or {}).get("models") or run.singles)
    command = f"python -m core train --dataset {dataset} --models {models} --folds {k}"
    command += " --split random --allow-leakage" if split == "random" else ""
    return f"{command} --run {name}"


def say_headline(
    selection: Selection, rows: pd.DataFrame, target: published_protocol.PublishedTarget
) -> None:
    """The best pooled accuracy, and how it stands to the published one."""
    run, own = (
        selection.run,
        rows[(rows["metric"] == "accuracy") & (rows["fold"] == cross_validation.POOLED)],
    )
    best = own.loc[own["value"].idxmax()]
    dealt = "patient-grouped" if cross_validation.is_grouped(run) else "random"
    flatter = (
        ""
        if cross_validation.is_grouped(run)
        else ", which have images of one patient on both sides,"
    )
    synthetic = "SYNTHETIC: measured on drawn phantoms. " if run.synthetic else ""
    interval = interval_text({"low": best["low"], "high": best["high"]})
    st.markdown(
        f"#### {synthetic}Pooled over {cross_validation.fold_count(run)} {dealt} folds{flatter} "
        f"{escape(selection.title(best['model']))} is right on {percent(best['value'])} "
        f"({interval}) of {int(best['n']):,} images."
    )
    st.markdown(f"**{escape(target.sentence)}** :gray[{ALWAYS_POOLED}]")


def show_folds(selection: Selection, rows: pd.DataFrame, models: list[str]) -> None:
    """Every fold and the pooled figures, as charts and as a table."""
    run = selection.run
    n = int(rows["n"].max())
    st.subheader("Folds", anchor=False)
    three = set(run.class_names) == set(TASKS["three"].class_names)
    for column, metric in zip(
        st.columns(2, gap="medium"), cross_validation.FOLD_METRICS, strict=True
    ):
        target = metric == "accuracy" and three and published_protocol.is_published_set(run)
        with column:
            show_chart(
                protocol_charts.plot_folds(
                    rows[rows["model"].isin(models)],
                    metric,
                    selection.frame,
                    target=target,
                    n_text=f"n = {n:,} out-of-fold images",
                ),
                key=f"folds_{metric}",
            )
    show_table(fold_summary(selection, rows, models))
    show_not_done(selection)


def fold_summary(selection: Selection, rows: pd.DataFrame, models: list[str]) -> pd.DataFrame:
    """A row a model: pooled with interval, mean and standard deviation over folds, the range."""
    table = []
    for model in models:
        row = {"Model": model_cell(selection.run, model)}
        for metric, name in cross_validation.FOLD_METRICS.items():
            own = rows[(rows["model"] == model) & (rows["metric"] == metric)]
            whole = own[own["fold"] == cross_validation.POOLED].iloc[0]
            folds = 100 * own.loc[own["fold"] != cross_validation.POOLED, "value"]
            row[f"{name}, pooled"] = with_interval(whole["value"], dict(whole))
            spread = f", sd {folds.std(ddof=1):.1f}" if len(folds) > 1 else ""
            row[f"{name}, folds"] = (
                f"mean {folds.mean():.1f}{spread} :gray[{folds.min():.1f}\u00a0to\u00a0"
                f"{folds.max():.1f}]"
            )
        table.append(row)
    return pd.DataFrame(table)


def show_not_done(selection: Selection) -> None:
    """The models without folds, and why."""
    for model, reason in cross_validation.folds_not_done(selection.run).items():
        st.markdown(
            f":material/pending: **{escape(selection.title(model))}: folds not done**, "
            f"{escape_sentence(reason)}."
        )


def show_split_comparison(selection: Selection) -> None:
    """The same images dealt at random and by patient: how much random flatters."""
    st.subheader("Random against grouped folds", anchor=False)
    run = selection.run
    counterpart = protocol_data.load_counterpart(run)
    if counterpart is None:
        other = "grouped" if not cross_validation.is_grouped(run) else "random"
        st.info(
            f"Not done: no run here has the same images in {cross_validation.fold_count(run)} "
            f"{other} folds. "
            "What random folds add to the figures is then not known.",
            icon=":material/info:",
        )
        split = "group" if other == "grouped" else "random"
        name = f"{run.name}-{other}"
        st.code(
            train_command(run, name, split=split, k=cross_validation.fold_count(run)),
            language="bash",
        )
        return
    compared = [
        one
        for one in protocol_data.load_optimism(run, counterpart)
        if one.model in selection.models
    ]
    if not compared:
        st.info(
            f"Run {escape(counterpart.name)} has the same images in other folds, but none of "
            "the "
            "chosen models.",
            icon=":material/info:",
        )
        return
    names = (
        [run.name, counterpart.name]
        if cross_validation.is_grouped(run)
        else [counterpart.name, run.name]
    )
    st.markdown(
        f"The same {compared[0].n:,} images of {compared[0].n_patients:,} patients, grouped in run "
        f"**{escape(names[0])}** and dealt at random in run **{escape(names[1])}**."
    )
    left, right = st.columns([3, 2], gap="medium")
    with left:
        show_chart(protocol_charts.plot_optimism(compared, selection.frame), key="gaps")
    with right:
        lines = [
            split_comparison.optimism_sentence(one, selection.title(one.model)) for one in compared
        ]
        st.markdown("\n".join(f"- {escape(line)}." for line in lines))
        st.caption(split_comparison.METHOD)


def show_published(selection: Selection, rows: list[published_protocol.ProtocolRow]) -> None:
    """The run's rows beside the published ones."""
    run = selection.run
    shown = [row for row in rows if row.model is None or row.model in selection.models]
    if not any(row.model for row in shown):
        return
    st.subheader("The papers' table", anchor=False)
    tasks = [key for key in TASKS if any(row.task.key == key and row.model for row in shown)]
    for column, key in zip(st.columns(len(tasks), gap="medium"), tasks, strict=True):
        with column:
            show_chart(
                protocol_charts.plot_published(shown, key, selection.frame),
                key=f"published_{key}",
            )
    table = [
        {"": source_cell(selection, row), "Task": row.task.title}
        | dict(zip((f.capitalize() for f in FIGURES), cells(row), strict=True))
        | {"n": f"{row.n:,}", "Patients grouped": "yes" if row.grouped else "no"}
        | {"Protocol": escape(row.protocol)}
        for row in shown
    ]
    with st.expander("The table, in percent, with each protocol", icon=":material/table:"):
        show_table(table)
        offer_csv("Table as CSV", csv_rows(shown), f"{run.name}-published.csv")
    st.caption(published_protocol.table_note(run))


def source_cell(selection: Selection, row: published_protocol.ProtocolRow) -> str:
    """Markdown: whose row it is."""
    if row.model:
        return f"**{model_cell(selection.run, row.model)}**"
    return f"{escape(row.label)} :gray[{escape(row.reference)}]"


def cells(row: published_protocol.ProtocolRow) -> list[str]:
    """Figures as on every page: the interval lighter."""
    return [
        f"{number} :gray[{rest[:-1]}]" if rest else number
        for number, _, rest in (
            cell.partition(" (") for cell in published_protocol.figure_cells(row)
        )
    ]


def csv_rows(rows: list[published_protocol.ProtocolRow]) -> pd.DataFrame:
    """The table for a file, in fractions."""
    return pd.DataFrame(
        [
            {
                "row": row.label,
                "published": row.model is None,
                "task": row.task.title,
                "figure": key,
            }
            | {"value": own.value, "low": own.low, "high": own.high, "n": row.n}
            | {"patients_grouped": row.grouped, "protocol": row.protocol}
            | {"reference": row.reference}
            for row in rows
            for key, own in row.figures.items()
        ]
    )


def show_target(target: published_protocol.PublishedTarget) -> None:
    """Whether the run is above the published accuracy, task by task."""
    st.subheader("Target", anchor=False)
    icons = {"reached": ":material/check_circle:", "not reached": ":material/cancel:"}
    icon = icons.get(target.status, ":material/pending:")
    st.markdown(f"{icon} {escape(target.sentence)}")
    if target.tasks:
        st.markdown("\n".join(f"- {escape(one.sentence)}" for one in target.tasks))
        st.caption(escape(target.basis))


def show_trials(selection: Selection) -> None:
    """Recipes that were tried, and what trying many costs."""
    run, trials = selection.run, cross_validation.trial_table(selection.run)
    if trials.empty:
        return
    st.subheader("Recipes tried", anchor=False)
    kept, ahead = int(trials["kept"].sum()), cross_validation.trials_on_judged_images(run)
    counted = {m: n for m, n in tried_by_model(run).items() if m in run.models}
    words = ", ".join(f"{escape(selection.title(m))} {n}" for m, n in counted.items())
    st.markdown(
        f"**{len(trials)} comparisons of recipes, {kept} kept.**"
        + (f" Recipes tried in all: {words}." if words else "")
        + " A gain is against the recipe that was kept before on the same images, or else the "
        "first of them."
    )
    if ahead:
        which = "; ".join(f"{escape(t['change'])} ({escape(t['images'])})" for t in ahead)
        st.warning(
            f"{len(ahead)} of them read on images that figures here are judged on, which flatters "
            f"those figures: {which}.",
            icon=":material/visibility:",
        )
    else:
        st.markdown("None of them was read on test images or on the folds above.")
    shown = trials[trials["model"].isin(selection.models)]
    table = pd.DataFrame(
        {
            "Model": [selection.title(model) for model in shown["model"]],
            "Change": shown["change"].to_list(),
            "Kept": shown["kept"].to_list(),
            "Accuracy": (100 * shown["accuracy"]).to_list(),
            "95 %": [
                metric_tables.range_text(*pair)
                for pair in zip(shown["low"], shown["high"], strict=True)
            ],
            "Gain, points": (100 * shown["gain"]).to_list(),
            "Log loss": shown["log_loss"].to_list(),
            "Log loss gained": shown["log_loss_gain"].to_list(),
            "Images": [f"{r.images} (n = {r.n})" for r in shown.itertuples()],
        }
    )
    formats = {"Accuracy": "%.1f", "Gain, points": "%+.1f"}
    formats |= {"Log loss": "%.3f", "Log loss gained": "%+.3f"}
    config = {name: st.column_config.NumberColumn(format=text) for name, text in formats.items()}
    config["Change"] = st.column_config.TextColumn(width="large")
    st.dataframe(table, hide_index=True, column_config=config, placeholder="–", alt="Recipes tried")
    st.caption(
        "Intervals: Wilson, every image for itself, since no trial's answers are kept; over "
        "patients they are wider. One image is worth "
        f"{100 / max(1, int(trials['n'].max())):.1f} points or more."
    )
    if not set(trials["model"]) <= set(run.models):
        st.caption("Models that this run does not hold are counted and not shown.")


def tried_by_model(run: Run) -> dict[str, int]:
    """Recipes tried, the kept one included; {} where the run gives no number a model."""
    tried: object = run.info.get("recipes_tried")
    return tried if isinstance(tried, dict) else {}


def explain(run: Run) -> None:
    """How folds, pooled figures and comparisons are computed."""
    with st.expander("How this is computed", icon=":material/function:"):
        folds: Any = run.info.get("folds") or {}
        rule = str(folds.get("rule") or "not recorded")
        st.markdown(
            f"**Folds.** Every image is answered for once, by a model that was trained without its "
            f"fold. {escape(rule)}\n\n"
            "**Pooled** figures take all out-of-fold answers together; their intervals draw whole "
            "patients, 2,000 times. The mean over folds weighs each fold alike, and its standard "
            "deviation says how much the figure moves from one fold to the next; it is not an "
            "interval of the pooled figure, since folds share their training images.\n\n"
            f"**Random against grouped.** {split_comparison.METHOD}\n\n"
            "**Published rows.** The papers' figures as printed. Intervals of their accuracies: "
            "Wilson on the number of images; where a protocol is not known to us the number is the "
            "largest it can be, and the true interval is wider. No test between their row and ours "
            "is possible: only two intervals can be laid side by side.\n\n"
            "**Two classes.** Images of covid and no findings, and which of the two probabilities "
            "is larger."
        )


selection = page_frame("Cross-validation", ":material/rule:")
run = selection.run
try:
    rows = protocol_data.load_fold_table(run)
    table_rows = protocol_data.load_table_rows(run)
    target = protocol_data.load_target(run)
except (ArtifactError, MetricsError) as error:
    empty_state(escape_sentence(str(error)))
if rows.empty:
    st.info(
        "This run was trained on one split, without folds: how much its figures depend on that "
        "split, and how they compare with published cross-validation, is not known.",
        icon=":material/info:",
    )
    st.code(train_command(run, f"{run.name}-folds"), language="bash")
    show_trials(selection)
    st.stop()
chosen = [model for model in selection.models if (rows["model"] == model).any()]
if not chosen:
    st.info("None of the chosen models has folds.", icon=":material/info:")
    show_not_done(selection)
    st.stop()
rows = rows[rows["model"].isin(chosen)]
say_headline(selection, rows, target)
show_folds(selection, rows, chosen)
try:
    show_split_comparison(selection)
except (ArtifactError, MetricsError) as error:
    st.error(escape_sentence(str(error)), icon=":material/error:")
show_published(selection, table_rows)
show_target(target)
show_trials(selection)
explain(run)
