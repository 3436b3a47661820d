"""Text that is laid out by jinja2 templates, where Python gathers the values and says no words."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from core.evaluation.heatmaps.describe import share
from core.formatting import interval_text, percent

MARKDOWN = Path(__file__).parent / "templates"


def render_markdown(template: str, **values: Any) -> str:
    """A template of core/reporting/templates filled in; a value that is missing raises."""
    return open_templates(MARKDOWN).get_template(template).render(values)


@cache
def open_templates(folder: Path, *, autoescape: bool = False) -> Environment:
    """The templates of a folder; autoescape: for HTML."""
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=autoescape,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=not autoescape,  # parts of Markdown stand line by line
    )
    environment.filters |= {
        "interval_text": interval_text,
        "percent": percent,
        "share": share,
        "table": markdown_table,
        "yaml": to_yaml,
    }
    return environment


def markdown_table(rows: Iterable[Sequence[str]], head: Sequence[str]) -> str:
    """Rows of text under a head, as a Markdown table."""
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def to_yaml(value: Any) -> str:
    """A value on one line of YAML, of which JSON is a part."""
    return json.dumps(value, ensure_ascii=False)
