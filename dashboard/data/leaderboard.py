"""Cached reading for the page All models: protocols, rankings and claims over all runs."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
import streamlit as st

from core.evaluation.external import cross_dataset
from core.metrics.classification import MetricsError
from core.reporting.leaderboard import claims as zoo_claims
from core.reporting.leaderboard import ranking
from core.reporting.leaderboard.claims import ClaimResult
from core.reporting.leaderboard.ranking import Protocol
from core.runs import artifacts
from core.runs.artifacts import ArtifactError
from core.runs.run import Run
from dashboard.data import runs as run_data
from dashboard.data.tokens import BY_ADDITIONS, BY_RUN, run_token


@dataclass(frozen=True)
class FoundProtocols:
    """problems: run -> why it is in no protocol."""

    protocols: list[Protocol]
    problems: dict[str, str]


@dataclass(frozen=True)
class Zoo:
    """rankings: metric -> core.reporting.leaderboard.ranking.rank; histories: (run, model) ->
    history.csv.
    """

    rankings: dict[str, pd.DataFrame]
    claims: list[ClaimResult]
    histories: dict[ranking.Entry, pd.DataFrame]


def load_protocols() -> FoundProtocols:
    """The protocols of all runs that can be read."""
    runs, problems = open_runs()
    readable = []
    for run in runs:
        problem = _problem(run)
        if problem:
            problems[run.name] = problem
        else:
            readable.append(run)
    return FoundProtocols(_find_protocols(tuple(readable)), problems)


def open_runs() -> tuple[list[Run], dict[str, str]]:
    """Every run that can be opened, and why the others cannot."""
    runs, problems = [], {}
    for entry in run_data.list_runs():
        try:
            runs.append(artifacts.open_run(entry.path))
        except ArtifactError as error:
            problems[entry.name] = str(error)
    return runs, problems


@st.cache_data(hash_funcs=BY_RUN, show_spinner="Reading the runs …", max_entries=100)
def _problem(run: Run) -> str:
    """Why a run cannot be ranked, "" where it can: one bad run must not take the page down."""
    try:
        for protocol in ranking.find_protocols([run]):
            ranking.rank(protocol)
    except (ArtifactError, MetricsError, ranking.ZooError) as error:
        return str(error)
    return ""


# Shared, not copied for each reader: nobody changes them.
@st.cache_resource(hash_funcs=BY_RUN, show_spinner="Reading the runs …", max_entries=10)
def _find_protocols(runs: tuple[Run, ...]) -> list[Protocol]:
    return ranking.find_protocols(runs)


@st.cache_resource(
    hash_funcs={Protocol: lambda protocol: " ".join(map(run_token, protocol.runs))},
    show_spinner="Ranking the models …",
    max_entries=20,
)
def load_zoo(protocol: Protocol) -> Zoo:
    """Everything that the page shows of one protocol. Raises ArtifactError, MetricsError."""
    answers = ranking.load_test_predictions(protocol)
    return Zoo(
        {metric: ranking.rank(protocol, metric, answers) for metric in ranking.METRICS},
        zoo_claims.judge_claims(protocol, answers),
        {
            (name, model): artifacts.load_history(protocol.run(name), model)
            for name, model in protocol.entries
        },
    )


@st.cache_resource(hash_funcs=BY_ADDITIONS, show_spinner="Crossing the data sets …", max_entries=10)
def load_matrices(runs: tuple[Run, ...]) -> dict[str, cross_dataset.Matrix]:
    """Every model of the runs, each tested on the other data sets. Raises CrossError."""
    return cross_dataset.build_matrices(runs)
