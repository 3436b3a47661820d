"""What all pages share: the head, empty states, charts, tables to take along, choices, methods.

A page begins with

    selection = page_frame("Errors", ":material/image_search:")

which draws title, run, SYNTHETIC and LEAKS badges and the research line, and stops with a sentence
where there is nothing to show.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NoReturn

import pandas as pd
import streamlit as st

from core.datasets.leakage import leak_sentence
from core.reporting import verdict
from core.runs.run import Run
from dashboard.charts.style import Chart
from dashboard.components.markdown import escape, escape_sentence, model_cell
from dashboard.components.sidebar import RESEARCH_LINE, Selection, take_sidebar
from dashboard.tables.metrics import csv_download

ON_TEST = "Measured on the test images, whichever split is chosen."


def page_frame(title: str, icon: str) -> Selection:
    """Draw the page's head and return the selection; stops where there is nothing to show."""
    drawn = take_sidebar()
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.title(f"{icon} {title}", anchor=False, width="content")
        if drawn.selection is not None and drawn.selection.run.synthetic:
            synthetic_badge()
        if drawn.selection is not None:
            leak_badge(drawn.selection.run)
        st.badge(RESEARCH_LINE, icon=":material/science:", color="gray")
        if drawn.selection is not None:
            st.caption(_run_line(drawn.selection.run), width="content")
    if drawn.selection is None:
        empty_state(escape_sentence(drawn.problem), drawn.command)
    return drawn.selection


def _run_line(run: Run) -> str:
    """Which run this is: on a phone the sidebar that says so is folded away."""
    dataset = run.info["dataset"]
    title = dataset.get("title") or dataset.get("name") or "an unnamed data set"
    day = str(run.info["created"])[:10]
    return f"**{escape(run.name)}** · {escape(title)} · {escape(day)}"


def synthetic_badge() -> None:
    """Say that the images are drawn: on every page and beside every phantom."""
    st.badge("SYNTHETIC: drawn phantoms, no patients", icon=":material/draw:", color="red")


def leak_badge(run: Run) -> None:
    """Say on every page where test images are not independent of training; else nothing."""
    leakage = run.info.get("leakage")
    words = verdict.leak_badge(leakage)
    if words and leakage:
        sentence = leak_sentence({"exact": 0, "near": 0, **leakage})
        st.badge(
            words,
            icon=":material/warning:",
            color="red",
            help=f"{sentence} The run's figures are too high for new patients.",
        )


def empty_state(sentence: str, command: str = "") -> NoReturn:
    """One sentence and the command that fills the page, then stop."""
    st.info(sentence, icon=":material/info:")
    if command:
        st.code(command, language="bash")
    st.stop()


def theme() -> str:
    """ "light" or "dark", as the page is shown."""
    return "dark" if st.context.theme.type == "dark" else "light"


# ------------------------------------------------------------------------------ sections


def show_chart(chart: Chart, key: str | None = None) -> None:
    """A chart that is only looked at, with its title, alternative text and no tool bar."""
    if chart.title:
        st.markdown(f"**{escape(chart.title)}**")
    st.plotly_chart(chart.figure, alt=chart.alt, key=key, config={"displayModeBar": False})


def show_table(rows: pd.DataFrame | Sequence[Mapping[str, str]]) -> None:
    """A small table whose cells are Markdown."""
    st.table(pd.DataFrame(rows), hide_index=True, border="horizontal")


def offer_csv(label: str, table: pd.DataFrame, file_name: str, **widget: Any) -> None:
    """A button that downloads the table as CSV."""
    st.download_button(
        label,
        csv_download(table),
        file_name=file_name,
        mime="text/csv",
        icon=":material/download:",
        on_click="ignore",
        **widget,
    )


def offer_tables(selection: Selection, offered: dict[str, pd.DataFrame]) -> None:
    """What the charts above draw, to read and to take along; offered: name -> table."""
    with st.expander("The same as tables", icon=":material/table:"):
        for name, table in offered.items():
            st.dataframe(table, hide_index=True, alt=name)
            file_name = f"{selection.run.name}-{name.lower().replace(' ', '-')}.csv"
            offer_csv(f"{name} as CSV", table, file_name, key=f"curves_csv_{name}")


def name_each(selection: Selection, said: dict[str, str]) -> None:
    """One quiet line a model; said: model -> words as they are in the run's files."""
    lines = [f"{model_cell(selection.run, model)}: {escape(text)}" for model, text in said.items()]
    st.caption("  \n".join(lines))


def explain(text: str) -> None:
    """How the figures were computed, for those who ask."""
    with st.expander("How this is computed", icon=":material/function:"):
        st.markdown(text)
