"""Choosing one of a few, kept while the page is left."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import streamlit as st

from dashboard.components.markdown import escape


def kept_choice(key: str, options: Collection[str], first: str | None = None) -> str:
    """What was chosen under `key`; `first`, or the first option, where that is no option here."""
    if st.session_state.get(key) not in options:
        st.session_state[key] = first or next(iter(options))
    return st.session_state[key]


def choose(
    label: str,
    options: Collection[str],
    key: str,
    names: Mapping[str, str],
    first: str | None = None,
    **widget: Any,
) -> str:
    """One of a few, as buttons beside each other; another run's choice gives way to `first`."""
    kept = kept_choice(key, options, first)
    chosen = st.segmented_control(
        label,
        list(options),
        key=key,
        required=True,
        format_func=lambda option: escape(names.get(option, option)),
        persist_state="session",
        **widget,
    )
    return chosen or kept
