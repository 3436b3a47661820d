"""The sidebar: which run, which of its models, measured on which split."""

from __future__ import annotations

import os
from dataclasses import dataclass

import streamlit as st

from core import config
from core.runs import artifacts
from core.runs.artifacts import ArtifactError
from core.runs.run import Run, RunEntry
from dashboard.charts.style import ChartFrame
from dashboard.components.choice import choose
from dashboard.components.markdown import escape, escape_sentence, init_name, model_label
from dashboard.data import protocol as protocol_data
from dashboard.data import runs as run_data

RESEARCH_LINE = "Research use, not for diagnosis"
SPLIT_NAMES = {"test": "test", "val": "validation", "folds": "out-of-fold"}
RUN_KEY, PART_KEY = "run", "part"
_DRAWN = "_sidebar_of_this_script_run"
RELEASE = "release"
# A page's controls are those that it obeys.
WITHOUT_MODELS = frozenset({"zoo", "data"})
WITH_SPLIT = frozenset({"overview", "confusion", "errors", "curves"})


@dataclass(frozen=True)
class Selection:
    """What is chosen in the sidebar. models: in the run's order, at least one; split: "test",
    "val" or "folds"."""

    run: Run
    models: tuple[str, ...]
    split: str

    @property
    def split_name(self) -> str:
        """The split for people: "test", "validation" or "out-of-fold"."""
        return SPLIT_NAMES[self.split]

    def title(self, model: str) -> str:
        """Short name, such as "ResNet50"; use label() wherever there is room."""
        return self.run.title(model)

    def init(self, model: str) -> str:
        """How the weights began, such as "random init"; "" where the run does not say."""
        return init_name(self.run, model)

    def label(self, model: str) -> str:
        """Name and init, such as "ResNet50 · random init"."""
        return model_label(self.run, model)

    @property
    def frame(self) -> ChartFrame:
        """What charts need to know of the run's models."""
        return ChartFrame(self.run.models, self.titles)

    @property
    def titles(self) -> dict[str, str]:
        """Short names of all models of the run, for charts."""
        return {model: self.title(model) for model in self.run.models}

    @property
    def safe_titles(self) -> dict[str, str]:
        """The same for sentences in Markdown: escaping a whole sentence would tear its figures."""
        return {model: escape(title) for model, title in self.titles.items()}


@dataclass(frozen=True)
class Sidebar:
    """The selection, or why there is none and the command that helps."""

    selection: Selection | None
    problem: str = ""
    command: str = ""


def draw_sidebar(page: str) -> None:
    """Draw what `page` obeys; app.py calls this before the page, so that choices outlive pages."""
    with st.sidebar:
        st.session_state[_DRAWN] = _sidebar(page)


def take_sidebar() -> Sidebar:
    """What the sidebar holds, once a script run; drawn now where a page runs without app.py."""
    if _DRAWN not in st.session_state:
        draw_sidebar(next(iter(WITH_SPLIT)))
    return st.session_state.pop(_DRAWN)


def _sidebar(page: str) -> Sidebar:
    entries = run_data.list_runs()
    usable = {entry.name: entry for entry in entries if entry.problem is None}
    damaged = [entry for entry in entries if entry.problem is not None]
    drawn = _choose(usable, page) if usable else _nothing(damaged)
    if damaged:
        with st.expander(_cannot_be_shown(len(damaged)), icon=":material/warning:"):
            for entry in damaged:
                st.markdown(f"**{escape(entry.name)}**: {escape_sentence(entry.problem or '')}")
    return drawn


def _cannot_be_shown(n: int) -> str:
    return f"{n} run{'s' if n != 1 else ''} cannot be shown"


def _nothing(damaged: list[RunEntry]) -> Sidebar:
    where = config.artifacts_root().as_posix()
    if damaged:
        first = damaged[0]
        return Sidebar(None, f"No run in {where}/ can be shown. {first.problem}", "make train-all")
    return Sidebar(
        None,
        f"No runs in {where}/. Train the models, or make a demo run from drawn phantoms with "
        "`make demo`.",
        "make train-all",
    )


def _choose(usable: dict[str, RunEntry], page: str) -> Sidebar:
    if st.session_state.get(RUN_KEY) not in usable:
        wanted = (os.environ.get("CXR_RUN", ""), RELEASE)  # `make demo` opens on its own run
        st.session_state[RUN_KEY] = next((w for w in wanted if w in usable), next(iter(usable)))
    leaking = protocol_data.leaking_runs(list(usable.values()))
    name = st.selectbox(
        "Run",
        list(usable),
        key=RUN_KEY,
        format_func=lambda name: f"{name} (LEAKS)" if name in leaking else name,
        persist_state="session",
    )
    try:
        run = artifacts.open_run(usable[name].path)
    except ArtifactError as error:  # damaged between listing and opening
        return Sidebar(None, str(error))
    if run.synthetic:
        st.badge("SYNTHETIC", icon=":material/draw:", color="red")
    if name in leaking:
        st.badge("LEAKS", icon=":material/warning:", color="red", help=leaking[name])
    models = tuple(run.models) if page in WITHOUT_MODELS else _choose_models(run)
    part = "test"
    if page in WITH_SPLIT:
        parts = [
            p for p in SPLIT_NAMES if all(artifacts.has_predictions(run, m, p) for m in run.models)
        ]
        part = choose("Measured on", parts, PART_KEY, SPLIT_NAMES)
    if not models:
        return Sidebar(None, "No model is chosen: choose at least one in the sidebar.")
    return Sidebar(Selection(run, models, part))


def _choose_models(run: Run) -> tuple[str, ...]:
    key = f"models_{run.name}"
    if key not in st.session_state:
        st.session_state[key] = run.models
    st.session_state[key] = [m for m in st.session_state[key] if m in run.models]
    chosen = st.pills(
        "Models",
        run.models,
        selection_mode="multi",
        key=key,
        format_func=lambda model: model_label(run, model),
        wrap=True,
        persist_state="session",
    )
    return tuple(model for model in run.models if model in chosen)
