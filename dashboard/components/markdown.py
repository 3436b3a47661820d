"""Text for Markdown: made safe to show, with a model's mark, with an interval in lighter type."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from core.formatting import number, percent
from core.models.names import init_title
from core.runs.run import Run
from dashboard.charts.style import model_style
from dashboard.tables import metrics as metric_tables

INIT_NAMES = {"imagenet": "ImageNet init", "random": "random init"}


def escape(text: str) -> str:
    """Text from a file made safe to show inside a line of Markdown."""
    line = _escape_characters(" ".join(str(text).split()))
    # "1." and "-" make a list, but only at the start of a line.
    return re.sub(r"^(?:(\d+)([.)])|([-+=]))(?=\s|$|-|=)", r"\1\\\2\3", line)


def escape_sentence(text: str) -> str:
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


# ------------------------------------------------------------------------------ models


def init_name(run: Run, model: str) -> str:
    """How the model's weights began, for people; "" where the run does not say."""
    members = run.members(model)
    if members:
        return f"{len(members)} members"
    init = str(run.info.get("init", {}).get(model, ""))
    if init.startswith("file:"):
        return f"init from {init.removeprefix('file:')}"
    return INIT_NAMES.get(init) or init_title(init)


def model_label(run: Run, model: str) -> str:
    """Name and init, such as "ResNet50 · random init"."""
    return " · ".join(part for part in (run.title(model), init_name(run, model)) if part)


def model_mark(run: Run, model: str) -> str:
    """Markdown: the model's shape in its colour, as charts draw it."""
    style = model_style(model, run.models)
    return f":{style.theme_colour}[{style.glyph}]"


def model_cell(run: Run, model: str) -> str:
    """Markdown for a table's cell: the model's mark, name and init."""
    return f"{model_mark(run, model)}\u00a0{escape(model_label(run, model))}"


# ------------------------------------------------------------------------------ numbers


def interval_text(interval: Mapping[str, Any] | None, *, as_percent: bool = True) -> str:
    """{low, high} -> "82.1 to 87.3"; "no interval" where it is undefined."""
    interval = interval or {}
    return metric_tables.range_text(
        interval.get("low"), interval.get("high"), as_percent=as_percent
    )


def with_interval(
    value: float | None, interval: Mapping[str, Any] | None, *, as_percent: bool = True
) -> str:
    """Markdown: "84.8 %" and, lighter, "82.1 to 87.3"."""
    shown = percent(value) if as_percent else number(value, 3)
    return f"{shown} :gray[{interval_text(interval, as_percent=as_percent)}]"
