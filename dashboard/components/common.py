"""What sections of a page share: a choice that is kept, tables to take along, the method on demand.

Unlike dashboard.components.page, which every page uses, this is for pages that answer several
questions.
"""

from __future__ import annotations

import pandas as pd
import streamlit as st

from dashboard.components import page as ui
from dashboard.tables import metrics as metric_tables

ON_TEST = "Measured on test images, whatever part is chosen in the sidebar."


def mark(selection: ui.Selection, model: str) -> str:
    return f"{ui.model_mark(selection.run, model)}\u00a0{ui.escape(selection.label(model))}"


def titles_of(selection: ui.Selection) -> dict[str, str]:
    """Names for charts, as the run has them."""
    return {model: selection.title(model) for model in selection.run.models}


def safe_titles(selection: ui.Selection) -> dict[str, str]:
    """Names for sentences in Markdown: escaping the whole sentence would tear its figures."""
    return {model: ui.escape(title) for model, title in titles_of(selection).items()}


def offer_tables(selection: ui.Selection, offered: dict[str, pd.DataFrame]) -> None:
    """What the charts above draw, to read and to take along; offered: name -> table."""
    with st.expander("The same as tables", icon=":material/table:"):
        for name, table in offered.items():
            st.dataframe(table, hide_index=True, alt=name)
            st.download_button(
                f"{name} as CSV",
                metric_tables.csv_download(table),
                file_name=f"{selection.run.name}-{name.lower().replace(' ', '-')}.csv",
                mime="text/csv",
                icon=":material/download:",
                on_click="ignore",
                key=f"curves_csv_{name}",
            )


def name_each(selection: ui.Selection, said: dict[str, str]) -> None:
    """One quiet line a model; said: model -> words as they are in the run's files."""
    lines = [f"{mark(selection, model)}: {ui.escape(text)}" for model, text in said.items()]
    st.caption("  \n".join(lines))


def explain(text: str) -> None:
    with st.expander("How this is computed", icon=":material/function:"):
        st.markdown(text)


def choose(label: str, options: list[str], key: str, names: dict[str, str]) -> str:
    """One of a few, kept while the page is left; another run's choice gives way to the first."""
    if st.session_state.get(key) not in options:
        st.session_state[key] = options[0]
    return st.segmented_control(
        label,
        options,
        key=key,
        required=True,
        format_func=lambda option: ui.escape(names.get(option, option)),
        wrap=True,
        persist_state="session",
    )
