"""Cached reading for Protocol and Overview: folds, split comparison, external results, leaks.

As in dashboard.data.runs, nothing but st.cache_* around core.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import streamlit as st

from core.evaluation import cross_validation, published_protocol, split_comparison
from core.reporting import verdict
from core.runs import additions, artifacts
from core.runs.artifacts import ArtifactError
from core.runs.run import Run, RunEntry
from dashboard.data import runs as run_data
from dashboard.data.tokens import BY_ADDITIONS, BY_RUN


@st.cache_data(hash_funcs=BY_RUN, show_spinner="Computing the folds' intervals …", max_entries=10)
def load_fold_table(run: Run) -> pd.DataFrame:
    """core.evaluation.cross_validation.fold_table. Raises ArtifactError, MetricsError."""
    return cross_validation.fold_table(run)


@st.cache_data(hash_funcs=BY_RUN, show_spinner="Reading the folds …", max_entries=10)
def load_table_rows(run: Run) -> list[published_protocol.ProtocolRow]:
    """core.evaluation.published_protocol.table_rows. Raises ArtifactError, MetricsError."""
    return published_protocol.table_rows(run)


@st.cache_data(hash_funcs=BY_RUN, show_spinner=False, max_entries=10)
def load_target(run: Run) -> published_protocol.PublishedTarget:
    """core.evaluation.published_protocol.judge_target. Raises ArtifactError, MetricsError."""
    return published_protocol.judge_target(run)


def load_counterpart(run: Run) -> Run | None:
    """The run to hold this one against, random against grouped; None where there is none."""
    others = [entry.path for entry in run_data.list_runs() if entry.problem is None]
    runs = [other for path in others if (other := _open(path)) and other.path != run.path]
    return split_comparison.find_counterpart(run, runs)


def _open(path: Path) -> Run | None:
    try:
        return artifacts.open_run(path)
    except ArtifactError:  # damaged since it was listed; the sidebar will say so
        return None


@st.cache_data(hash_funcs=BY_RUN, show_spinner="Comparing the folds …", max_entries=10)
def load_optimism(run: Run, counterpart: Run) -> list[split_comparison.Optimism]:
    """core.evaluation.split_comparison.compare_splits. Raises ArtifactError, MetricsError."""
    return split_comparison.compare_splits(run, counterpart)


@st.cache_data(hash_funcs=BY_ADDITIONS, show_spinner=False, max_entries=10)
def load_externals(run: Run) -> list[dict[str, Any]]:
    """external.json of every external set. Raises ArtifactError where one is damaged."""
    return [additions.load_external(run, name) for name in additions.list_external(run)]


def leaking_runs(entries: Sequence[RunEntry]) -> dict[str, str]:
    """Run name -> its LEAKS badge, for the runs whose test part is not independent."""
    found = {entry.name: _leak_badge(entry) for entry in entries}
    return {name: badge for name, badge in found.items() if badge}


@st.cache_data(hash_funcs=BY_RUN, show_spinner=False, max_entries=200)
def _leak_badge(entry: RunEntry) -> str:
    run = _open(entry.path)
    return verdict.leak_badge(run.info.get("leakage")) if run else ""
