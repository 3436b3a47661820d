"""Cached reading of what was added to a run, and its scorecard: st.cache_* around core.

An audit, a guard or an external result comes later than the run and may be made anew, so
everything here is cached by those files too.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import streamlit as st

from core.datasets.phantom.generate import label_synthetic, make_phantom
from core.reporting.scorecard import scorecard
from core.reporting.scorecard.scorecard import Check, Evidence
from core.runs.run import Run
from dashboard.charts.style import Chart
from dashboard.data.tokens import BY_ADDITIONS

PHANTOM_PX = 256


@st.cache_data(hash_funcs=BY_ADDITIONS, show_spinner=False, max_entries=20)
def load_evidence(run: Run) -> Evidence:
    """Audit and external sets of the run. Raises ArtifactError where they are damaged."""
    return scorecard.load_evidence(run)


@st.cache_data(hash_funcs=BY_ADDITIONS, show_spinner="Checking the run …", max_entries=20)
def load_scorecard(run: Run) -> list[Check]:
    """Every check, the most serious first. Raises ArtifactError."""
    return scorecard.build_scorecard(run)


@st.cache_resource(hash_funcs=BY_ADDITIONS, show_spinner=False, max_entries=300)
def keep_chart(run: Run, models: tuple[str, ...], name: str, _build: Callable[[], Chart]) -> Chart:
    """The chart of that name, built once for these models of the run; to be shown, not changed.

    The page has more than a dozen. `_build` may use nothing but the run's files, `models` and what
    `name` tells.
    """
    return _build()


def draw_region(region: dict[str, Any], fill: str) -> list[tuple[str, np.ndarray]]:
    """(caption, pixels) of a drawn phantom: whole, lungs hidden, only the lungs, as the audit's
    blackout test alters images. Marked SYNTHETIC."""
    return _draw_region(json.dumps(region, sort_keys=True), fill)


@st.cache_data(show_spinner=False, max_entries=20)
def _draw_region(region_json: str, fill: str) -> list[tuple[str, np.ndarray]]:
    from core.evaluation.audit.blackout import (  # brings scikit-learn along; only pictures need it
        FILLS,
        fill_hidden,
    )

    region = json.loads(region_json)
    phantom = make_phantom("normal", 3, PHANTOM_PX, 5)
    lungs = phantom.lungs if region.get("kind") == "masks" else _boxes(region.get("boxes") or [])
    fill = fill if fill in FILLS else next(iter(FILLS))
    pictures = [("Whole image", phantom.pixels)]
    for caption, hidden in (("Lungs hidden", lungs), ("Only the lungs", ~lungs)):
        grey = float(phantom.pixels.mean())
        pictures.append((caption, fill_hidden(phantom.pixels[None], hidden, fill, grey, 0)[0]))
    return [(caption, label_synthetic(pixels)) for caption, pixels in pictures]


def _boxes(boxes: list[list[float]]) -> np.ndarray:
    """True inside boxes of [top, left, bottom, right] in shares of the side."""
    mask = np.zeros((PHANTOM_PX, PHANTOM_PX), dtype=bool)
    for box in boxes:
        if len(box) == 4:
            top, left, bottom, right = (round(min(max(s, 0), 1) * PHANTOM_PX) for s in box)
            mask[top:bottom, left:right] = True
    return mask
