"""A model's figures by where the images come from, as a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from core.formatting import NO_VALUE, with_interval
from core.reporting.templating import markdown_table


def source_table(sources: Mapping[str, Any] | None, class_names: Sequence[str]) -> str:
    """metrics.json's `sources` as Markdown; "" where there are none."""
    if not sources:
        return ""
    head = ["source", "images (patients)", "accuracy, %"]
    head += [f"{name} sensitivity, %" for name in class_names]
    rows = []
    for source, found in sources.items():
        shares = [found["accuracy"], *(found["sensitivity"].get(name) for name in class_names)]
        cells = [with_interval(s["value"], s, unit="") if s else NO_VALUE for s in shares]
        rows.append([source, f"{found['n']} ({found['n_patients']})", *cells])
    return markdown_table(rows, head)
