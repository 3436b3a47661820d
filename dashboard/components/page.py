"""What all pages share: the sidebar, the page's head, empty states, labels and number formats.

A page begins with

    selection = ui.page_frame("Errors", ":material/image_search:")

which draws title, run, SYNTHETIC and LEAKS badges and the research line, and stops with a sentence
where there is nothing to show.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass

import streamlit as st

from core import config
from core.datasets.leakage import leak_sentence
from core.reporting import verdict
from core.runs import artifacts
from core.runs.artifacts import ArtifactError, Run
from dashboard.charts import base as base_charts
from dashboard.data import protocol as protocol_data
from dashboard.data import runs as run_data
from dashboard.tables import metrics as metric_tables

RESEARCH_LINE = "Research use, not for diagnosis"
SPLIT_NAMES = {"test": "test", "val": "validation", "folds": "out-of-fold"}
INIT_NAMES = {"imagenet": "ImageNet init", "random": "random init", "scratch": "from scratch"}
RUN_KEY, PART_KEY = "run", "part"
_DRAWN = "_sidebar_of_this_script_run"
NARROW_SPACE = "\u202f"


@dataclass(frozen=True)
class Selection:
    """What is chosen in the sidebar. models: in the run's order, at least one; part: "test",
    "val" or "folds"."""

    run: Run
    models: tuple[str, ...]
    part: str

    @property
    def split_name(self) -> str:
        """The part for people: "test", "validation" or "out-of-fold"."""
        return SPLIT_NAMES[self.part]

    def title(self, model: str) -> str:
        """Short name, such as "ResNet50"; use label() wherever there is room."""
        return self.run.title(model)

    def init(self, model: str) -> str:
        """How the weights began, such as "random init"; "" where the run does not say."""
        return init_name(self.run, model)

    def label(self, model: str) -> str:
        """Name and init, such as "ResNet50 · random init"."""
        return model_label(self.run, model)


@dataclass(frozen=True)
class _Sidebar:
    selection: Selection | None
    problem: str = ""
    command: str = ""


def init_name(run: Run, model: str) -> str:
    """How the model's weights began, for people; "" where the run does not say."""
    members = run.members(model)
    if members:
        return f"{len(members)} members"
    init = str(run.info.get("init", {}).get(model, ""))
    if init.startswith("file:"):
        return f"init from {init.removeprefix('file:')}"
    return INIT_NAMES.get(init, init)


def model_label(run: Run, model: str) -> str:
    """Name and init, such as "ResNet50 · random init"."""
    return " · ".join(part for part in (run.title(model), init_name(run, model)) if part)


def model_mark(run: Run, model: str) -> str:
    """Markdown: the model's shape in its colour, as charts draw it."""
    style = base_charts.model_style(model, run.models)
    return f":{style.theme_colour}[{style.glyph}]"


def model_cell(run: Run, model: str) -> str:
    """Markdown for a table's cell: the model's mark, name and init."""
    return f"{model_mark(run, model)}\u00a0{escape(model_label(run, model))}"


# ------------------------------------------------------------------------------ sidebar, head


def draw_sidebar() -> None:
    """Draw the sidebar; app.py calls this before the page, so that choices outlive pages."""
    with st.sidebar:
        st.session_state[_DRAWN] = _sidebar()


def page_frame(title: str, icon: str) -> Selection:
    """Draw the page's head and return the selection; stops where there is nothing to show."""
    drawn = st.session_state.pop(_DRAWN, None)
    if drawn is None:  # a page run on its own, without app.py
        draw_sidebar()
        drawn = st.session_state.pop(_DRAWN)
    with st.container(horizontal=True, vertical_alignment="center", gap="medium"):
        st.title(f"{icon} {title}", anchor=False, width="content")
        if drawn.selection is not None and drawn.selection.run.synthetic:
            synthetic_badge()
        if drawn.selection is not None:
            leak_badge(drawn.selection.run)
        st.badge(RESEARCH_LINE, icon=":material/science:", color="gray")
    if drawn.selection is not None:
        st.caption(_run_line(drawn.selection.run))
    if drawn.selection is None:
        empty_state(sentence(drawn.problem), drawn.command)
    return drawn.selection


def _run_line(run: Run) -> str:
    """Which run this is: on a phone the sidebar that says so is folded away."""
    dataset = run.info["dataset"]
    title = dataset.get("title") or dataset.get("name") or "an unnamed data set"
    day = str(run.info["created"])[:10]
    return f"Run **{escape(run.name)}** · {escape(title)} · made {escape(day)}"


def synthetic_badge() -> None:
    """Say that the images are drawn: on every page and beside every phantom."""
    st.badge("SYNTHETIC: drawn phantoms, no patients", icon=":material/draw:", color="red")


def leak_badge(run: Run) -> None:
    """Say on every page where test images are not independent of training; else nothing."""
    words = verdict.leak_badge(run.info.get("leakage"))
    if words:
        sentence = leak_sentence({"exact": 0, "near": 0} | run.info["leakage"])
        st.badge(
            words, icon=":material/warning:", color="red",
            help=f"{sentence} The run's figures are too high for new patients.",
        )  # fmt: skip


def empty_state(sentence: str, command: str = "") -> None:
    """One sentence and the command that fills the page, then stop."""
    st.info(sentence, icon=":material/info:")
    if command:
        st.code(command, language="bash")
    st.stop()


def _sidebar() -> _Sidebar:
    entries = run_data.list_runs()
    usable = {entry.name: entry for entry in entries if entry.problem is None}
    damaged = [entry for entry in entries if entry.problem is not None]
    drawn = _choose(usable) if usable else _nothing(damaged)
    if damaged:
        with st.expander(_cannot_be_shown(len(damaged)), icon=":material/warning:"):
            for entry in damaged:
                st.markdown(f"**{escape(entry.name)}**: {sentence(entry.problem)}")
    st.caption(f":material/science: {RESEARCH_LINE}")
    return drawn


def _cannot_be_shown(n: int) -> str:
    return f"{n} run{'s' if n != 1 else ''} cannot be shown"


def _nothing(damaged: list[artifacts.RunEntry]) -> _Sidebar:
    where = config.artifacts_root().as_posix()
    if damaged:
        first = damaged[0]
        return _Sidebar(None, f"No run in {where}/ can be shown. {first.problem}", "make train-all")
    return _Sidebar(
        None,
        f"No runs in {where}/. Train the models, or make a demo run from drawn phantoms with "
        "`make demo`.",
        "make train-all",
    )


def _choose(usable: dict[str, artifacts.RunEntry]) -> _Sidebar:
    if st.session_state.get(RUN_KEY) not in usable:
        wanted = os.environ.get("CXR_RUN", "")  # `make demo` opens on its own run
        st.session_state[RUN_KEY] = wanted if wanted in usable else next(iter(usable))
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
        return _Sidebar(None, str(error))
    if run.synthetic:
        st.badge("SYNTHETIC", icon=":material/draw:", color="red")
    if name in leaking:
        st.badge("LEAKS", icon=":material/warning:", color="red", help=leaking[name])
    models = _choose_models(run)
    parts = [
        p for p in SPLIT_NAMES if all(artifacts.has_predictions(run, m, p) for m in run.models)
    ]
    if st.session_state.get(PART_KEY) not in parts:
        st.session_state[PART_KEY] = parts[0]
    part = st.segmented_control(
        "Measured on",
        parts,
        key=PART_KEY,
        required=True,
        format_func=SPLIT_NAMES.get,
        persist_state="session",
    )
    if not models:
        return _Sidebar(None, "No model is chosen: choose at least one in the sidebar.")
    return _Sidebar(Selection(run, models, part or parts[0]))


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


def show_chart(chart: base_charts.Chart, key: str | None = None) -> None:
    """A chart that is only looked at, with its title, alternative text and no tool bar."""
    if chart.title:
        st.markdown(f"**{escape(chart.title)}**")
    st.plotly_chart(chart.figure, alt=chart.alt, key=key, config={"displayModeBar": False})


# ------------------------------------------------------------------------------ text, numbers


def percent(value: float | None, decimals: int = 1) -> str:
    """0.848 -> "84.8 %"; a dash where there is no value."""
    if value is None or value != value:
        return "–"
    return f"{100 * value:.{decimals}f}{NARROW_SPACE}%"


def number(value: float | None, decimals: int = 2) -> str:
    """A plain number with that many decimals; a dash where there is no value."""
    if value is None or value != value:
        return "–"
    return f"{value:,.{decimals}f}".replace(",", NARROW_SPACE)


def interval_text(interval: dict | None, *, as_percent: bool = True) -> str:
    """{low, high} -> "82.1 to 87.3"; "no interval" where it is undefined."""
    interval = interval or {}
    return metric_tables.range_text(
        interval.get("low"), interval.get("high"), as_percent=as_percent
    )


def with_interval(value: float | None, interval: dict | None, *, as_percent: bool = True) -> str:
    """Markdown: "84.8 %" and, lighter, "82.1 to 87.3"."""
    shown = percent(value) if as_percent else number(value, 3)
    return f"{shown} :gray[{interval_text(interval, as_percent=as_percent)}]"


def escape(text: str) -> str:
    """Text from a file made safe to show inside a line of Markdown."""
    line = _escape_characters(" ".join(str(text).split()))
    # "1." and "-" make a list, but only at the start of a line.
    return re.sub(r"^(?:(\d+)([.)])|([-+=]))(?=\s|$|-|=)", r"\1\\\2\3", line)


def sentence(text: str) -> str:
    """The same for a sentence of the program, in which `backticks` enclose a command to copy."""
    parts = " ".join(str(text).split()).split("`")
    if len(parts) == 1 or len(parts) % 2 == 0 or not all(parts[1::2]):
        return escape(text)
    # Within a pair Markdown reads nothing, outside nothing is left to read.
    return "`".join(
        part if place % 2 else _escape_characters(part) for place, part in enumerate(parts)
    )


def _escape_characters(line: str) -> str:
    return "".join("\\" + c if c in r"\`*_[]{}<>|~$:#" else c for c in line)


def shorten(text: str, width: int) -> str:
    """Text of at most `width` characters, its middle left out: ids differ at both ends."""
    if len(text) <= width:
        return text
    head = (width - 1) // 2
    return f"{text[:head]}…{text[len(text) - (width - 1 - head) :]}"
