"""Parts of All models: table, learning curves, claims, and data sets held against each other."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import streamlit as st

from core.evaluation.external.cross_dataset import Cell, CrossError, Matrix
from core.formatting import percent
from core.metrics.classification import MetricsError
from core.models.names import model_title
from core.reporting.leaderboard import claims
from core.reporting.leaderboard import ranking as zoo
from core.reporting.leaderboard.describe import AGAINST_THE_FIRST, METRIC_WORDS
from core.reporting.leaderboard.ranking import METRICS, Protocol
from core.runs.artifacts import ArtifactError
from core.runs.run import Run
from dashboard.charts import leaderboard as leaderboard_charts
from dashboard.components.choice import choose
from dashboard.components.markdown import escape, escape_sentence, init_name, with_interval
from dashboard.components.page import offer_csv, show_chart, show_table, theme
from dashboard.data import leaderboard as leaderboard_data
from dashboard.tables import metrics as metric_tables

# Two abreast on a phone.
CURVE_WIDTH_PX = 160
VERDICT_BADGES = {
    claims.HELD_UP: (":material/check_circle:", "blue"),
    claims.NOT_HELD_UP: (":material/cancel:", "orange"),
    claims.CANNOT_TELL: (":material/help:", "gray"),
}


def show_caveats(protocol: Protocol) -> None:
    """What is known to be wrong with the images, of all runs; and how they were grouped."""
    infos = [run.info for run in protocol.runs]
    caveats = dict.fromkeys(
        str(text) for info in infos for text in info["dataset"].get("caveats") or []
    )
    if not caveats:
        return
    with st.container(border=True):
        st.markdown("**What to know about these images**")
        st.markdown("\n".join(f"- {escape(text)}" for text in caveats))
        grouping = str(protocol.first.info.get("grouping") or "").rstrip(".")
        if grouping:
            st.caption(f"Kept together in the split: {escape(grouping)}.")


def show_ranking(protocol: Protocol, ranking: pd.DataFrame, metric: str) -> None:
    """Every model with its figure, what it costs and how it began; and all figures as CSV."""
    rows = ranking.to_dict("records")
    several = len(protocol.runs) > 1
    table = pd.DataFrame(
        {
            "Rank": ranking["rank"],
            "Model": [
                f"{leaderboard_charts.zoo_style(r['model']).glyph} {r['label']}" for r in rows
            ],
            METRICS[metric]: 100 * ranking[metric],
            "95%": [
                metric_tables.range_text(r[f"{metric}_low"], r[f"{metric}_high"]) for r in rows
            ],
            "Against the first": [against_first(r) for r in rows],
            "Not above floors": [len(r["floors_lost"]) for r in rows],
            "Init": [init_name(protocol.run(r["run"]), r["model"]) for r in rows],
            "Parameters, millions": ranking["params"] / 1e6,
            "MB": ranking["size_mb"],
            "Training, minutes": ranking["train_s"] / 60,
            "ms an image": ranking["latency_ms"],
            "Epochs": ranking["epochs"],
            "Weights": ranking["weights"],
        }
    )
    if several:
        table["Run"] = ranking["run"]
    formats = {METRICS[metric]: "%.1f", "Parameters, millions": "%.2f", "MB": "%.1f"}
    formats |= {"Training, minutes": "%.1f", "ms an image": "%.1f", "Epochs": "%d"}
    config = {name: st.column_config.NumberColumn(format=text) for name, text in formats.items()}
    config["Rank"] = st.column_config.NumberColumn(width=60)
    # Not pinned: a phone would show little beside it.
    config["Model"] = st.column_config.TextColumn(width=230)
    config["95%"] = st.column_config.TextColumn(alignment="right")
    st.dataframe(
        table,
        hide_index=True,
        column_config=config,
        height="content",
        placeholder="–",
        alt=f"All models by {METRICS[metric]}, with cost",
    )
    offer_csv(
        "Ranking as CSV",
        csv_table(protocol, ranking),
        f"zoo-{protocol.first.info['dataset']['name']}-{metric}.csv",
    )


def against_first(row: Mapping[str, Any]) -> str:
    """Such as "4.2 lower (1.0 to 7.9)", with what the test says of it."""
    if row["behind"] == row["behind_low"] == row["behind_high"] == 0:
        return "in front" if row["rank"] == 1 else "the same"
    low, high = 100 * row["behind_low"], 100 * row["behind_high"]
    end = "cannot be told" if row["tied_with_best"] else "behind"
    return f"{100 * row['behind']:.1f} lower ({low:.1f} to {high:.1f}): {end}"


def csv_table(protocol: Protocol, ranking: pd.DataFrame) -> pd.DataFrame:
    """The ranking with its protocol, for a spreadsheet."""
    table = ranking.drop(columns="label")
    table.insert(3, "title", ranking["label"])
    table["floors_lost"] = ["; ".join(lost) for lost in ranking["floors_lost"]]
    table["dataset"] = str(protocol.first.info["dataset"]["name"])
    table["classes"] = " ".join(protocol.class_names)
    table["n_test"] = protocol.n["test"]
    table["leaks"] = protocol.leaks
    return table


def show_curves(protocol: Protocol, ranking: pd.DataFrame, histories: dict) -> None:
    """Small multiples, all with one scale, in the order of the ranking."""
    st.subheader("Learning curves", anchor=False)
    names = {key: name for key, (name, _) in leaderboard_charts.CURVES.items()}
    what = choose("Curve", names, "zoo_curve", names, label_visibility="collapsed")
    entries = [(row.run, row.model) for row in ranking.itertuples()]
    learnt = [entry for entry in entries if histories[entry][what].notna().any()]
    if not learnt:
        st.caption("No model here was trained in epochs.")
        return
    y_range = leaderboard_charts.curve_range([histories[entry] for entry in learnt], what)
    unit = "percent of" if what == "val_accuracy" else "mean over"
    st.caption(
        f"{leaderboard_charts.CURVES[what][0]} by epoch, {unit} the {protocol.n['val']:,} "
        "validation "
        "images, the same scale for all"
        + (", cut above where a few epochs would flatten the rest" if what == "val_loss" else "")
        + ". Ringed: the epoch whose weights each phase handed on. Lengths differ: each model has "
        "its own recipe."
    )
    places = {(row.run, row.model): row for row in ranking.itertuples()}
    with st.grid(min_column_width=CURVE_WIDTH_PX, gap="small"):
        for entry in learnt:
            run, history = protocol.run(entry[0]), histories[entry]
            kept = zoo.kept_epochs(run, entry[1], history)
            row, style = places[entry], leaderboard_charts.zoo_style(entry[1])
            with st.container(gap=None):
                epochs = f"{len(history)} epoch{'s' if len(history) > 1 else ''}"
                epochs += f", kept {kept[-1]}" if kept else ""
                mark = f":{style.theme_colour}[{style.glyph}]"
                st.markdown(f"**{row.rank}** {mark} {escape(row.label)}  \n:gray[{epochs}]")
                chart = leaderboard_charts.plot_curve(
                    history,
                    what,
                    label=row.label,
                    colour=style.colour,
                    kept=kept,
                    y_range=y_range,
                )
                show_chart(chart, key=f"zoo_curve_{entry[0]}_{entry[1]}_{what}")
    without = [places[entry].label for entry in entries if entry not in learnt]
    if without:
        st.caption(f"Without curves: {escape(', '.join(without))}.")


def show_claims(results: Sequence[claims.ClaimResult]) -> None:
    """Each claim, what was measured here, the verdict, and the rule in words."""
    st.subheader("What the notebooks claimed", anchor=False)
    for claim in claims.CLAIMS:
        own = [result for result in results if result.claim.key == claim.key]
        with st.container(border=True):
            st.markdown(f"**{escape(claim.text)}.**")
            for result in own:
                if result.value is None:
                    continue
                icon, colour = VERDICT_BADGES[result.verdict]
                note = f" :gray[{escape(result.note)}.]" if result.note else ""
                st.markdown(
                    f":{colour}-badge[{icon} {result.verdict}] **{escape(result.subject)}**: "
                    f"{escape(result.measured)}.{note}"
                )
            untrained = [subject_text(result) for result in own if result.value is None]
            if untrained:
                st.markdown(
                    f":gray[Not trained under this protocol: {escape('; '.join(untrained))}.]"
                )
            st.caption(f"Rule. {escape(claim.rule)}")
    st.markdown(claims.UNKNOWN)


def subject_text(result: claims.ClaimResult) -> str:
    """The titles of models that no run here has."""
    return " less ".join(model_title(name) for name in result.subject.split(" less "))


def show_crossing(runs: Sequence[Run], ranking: pd.DataFrame, metric: str) -> None:
    """Trained on one data set, tested on another, for one model."""
    st.subheader("Trained on one data set, tested on another", anchor=False)
    try:
        matrices = leaderboard_data.load_matrices(tuple(runs))
    except (ArtifactError, MetricsError, CrossError) as error:
        st.error(escape_sentence(str(error)), icon=":material/error:")
        return
    ranked = [model for model in ranking["model"].drop_duplicates() if model in matrices]
    models = ranked + [model for model in matrices if model not in ranked]
    away = {
        m: sum(cell.measured and not cell.in_domain for cell in matrices[m].cells.values())
        for m in models
    }
    if st.session_state.get("zoo_crossed") not in models:
        # The one that was tested elsewhere most says most.
        st.session_state["zoo_crossed"] = max(models, key=lambda m: away[m])
    model = st.selectbox(
        "Model",
        models,
        key="zoo_crossed",
        persist_state="session",
        format_func=lambda m: f"{matrices[m].title} ({away[m]} measured elsewhere)",
    )
    matrix = matrices[model]
    rows, columns = list(matrix.names), list(matrix.columns)
    cells = [[matrix.cells[row, column] for column in columns] for row in rows]
    st.markdown(f"**{escape(crossing_text(matrix, metric))}**")
    st.caption(
        f"{METRICS[metric]} on the column's images of the model that was trained on the row's, in "
        "percent, with 95% intervals over patients. Own test part: the run's. Elsewhere: all "
        "images of that data set but those that overlap with what the run learned from, and only "
        "classes that both know."
    )
    show_chart(
        leaderboard_charts.plot_matrix(
            rows,
            columns,
            np.array([[_value(cell, metric) for cell in line] for line in cells], dtype=float),
            [[_cell_text(cell, metric) for cell in line] for line in cells],
            title=f"{METRICS[metric]} of {matrix.title}: rows trained on, columns tested on",
            theme=theme(),
        ),
        key="zoo_matrix",
    )
    with st.expander("The same as a table, with what was left out", icon=":material/table:"):
        show_table([_cell_row(cell, metric) for line in cells for cell in line])
    for note in matrix.notes:
        st.caption(escape_sentence(note))


def crossing_text(matrix: Matrix, metric: str) -> str:
    """The widest fall away from home, or that nothing was measured elsewhere."""
    falls = []
    for (row, column), cell in matrix.cells.items():
        drop = cell.drop.get(metric) or {}
        home, there = drop.get("internal"), _value(cell, metric)
        if not cell.in_domain and home is not None and not math.isnan(there):
            falls.append((there - home, row, column, home, there))
    away = [cell for cell in matrix.cells.values() if not cell.in_domain]
    measured = sum(cell.measured for cell in away)
    if not falls:
        return (
            f"{matrix.title}: {measured} of {len(away)} pairs of different data sets were measured"
            + ("." if measured else ", so what is left elsewhere is not known.")
        )
    change, row, column, home, there = min(falls)
    word = "falls" if change < 0 else "goes"
    return (
        f"{matrix.title}: {METRIC_WORDS[metric]} {word} from {percent(home)} on its own test "
        f"images (same classes) to {percent(there)} where trained on {row} and tested on {column}"
        + (", the widest change of all pairs measured." if len(falls) > 1 else ".")
    )


def _value(cell: Cell, metric: str) -> float:
    value = getattr(cell, metric)
    return np.nan if value is None else value


def _cell_text(cell: Cell, metric: str) -> str:
    """What stands in the chart's cell: short, since a phone gives it 60 px."""
    value = _value(cell, metric)
    if not math.isnan(value):
        low_to_high = metric_tables.range_text(*cell.intervals.get(metric, (None, None)))
        between = low_to_high.replace("\u00a0to", "<br>to")
        return f"<b>{100 * value:.1f}</b><br>{between}<br>n = {cell.n:,}"
    if cell.measured and cell.sensitivity:
        found = [f"{name} found<br><b>{100 * s:.1f}</b>" for name, s in cell.sensitivity.items()]
        return f"{'<br>'.join(found)}<br>n = {cell.n:,}"
    return "–"


def _cell_row(cell: Cell, metric: str) -> dict[str, str]:
    value, remarks = _value(cell, metric), []
    if cell.reason:
        remarks.append(cell.reason)
    if cell.measured:
        remarks.append(f"Classes: {', '.join(cell.classes) or 'none known'}.")
        called = ", ".join(f"{name} {n:,}" for name, n in cell.called.items())
        remarks.append(f"Called: {called}.")
    if cell.left_out:
        kinds = ", ".join(f"{kind} {n:,}" for kind, n in cell.left_out.items())
        remarks.append(f"Left out: {cell.n_left_out:,} ({kinds}).")
    if cell.note:
        remarks.append(cell.note)
    low, high = cell.intervals.get(metric, (None, None))
    figure = with_interval(value, {"low": low, "high": high}) if not math.isnan(value) else "–"
    if math.isnan(value) and cell.measured:
        figure = ", ".join(f"{n} found {percent(s)}" for n, s in cell.sensitivity.items()) or "–"
    return {
        "Trained on": f"**{escape(cell.train)}**",
        "Tested on": escape(cell.test) + (" (own test part)" if cell.in_domain else ""),
        METRICS[metric]: figure,
        "Images": f"{cell.n:,} of {cell.n_patients:,} patients" if cell.measured else "–",
        "Remarks": f":gray[{escape(' '.join(remarks))}]",
    }


def explain() -> None:
    """How models are ranked and claims are judged."""
    with st.expander("How this is computed", icon=":material/function:"):
        st.markdown(
            "**One protocol.** Models are ranked together only where the image, its pixels' hash, "
            "its label and its part (training, validation, test) are the same for every image, and "
            "the classes are the same. Runs that leak or that were split at random stand apart.\n\n"
            "**Intervals** are those of each model's own figures: 95%, by drawing whole patients, "
            "2,000 times.\n\n"
            f"{AGAINST_THE_FIRST} The page Overview corrects over every pair of one run and "
            "swaps patients instead of drawing them, so that a close case can come out otherwise.\n"
            "\n**One training each.** An interval says how the figure moves with other test "
            "patients, not how it would move if the model were trained again.\n\n"
            "**Cost.** Parameters, size, seconds and milliseconds as they were measured at the end "
            "of each run's training, on its own machine."
        )
