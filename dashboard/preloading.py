"""Models and decoding made ready before anybody asks: the first answer does not wait for them."""

from __future__ import annotations

import logging
import os

from core import artifacts
from core.artifacts import ArtifactError
from dashboard import loaders


def preload() -> None:
    """Load the models of the run that pages open on, as the page Predict does.

    Run in a thread beside the server. What cannot be loaded is said by the page, not here.
    """
    from core.sandbox import start_sandbox

    # Out of a page Streamlit warns that no browser will see the spinner.
    name = "streamlit.runtime.scriptrunner_utils.script_run_context"
    logging.getLogger(name).disabled = True
    entries = [entry for entry in loaders.list_runs() if entry.problem is None]
    wanted = os.environ.get("CXR_RUN", "")
    entry = next((e for e in entries if e.name == wanted), entries[0] if entries else None)
    if entry is None:
        return
    start_sandbox()
    try:
        loaders.load_answerer(artifacts.open_run(entry.path))
    except ArtifactError:  # damaged since it was listed
        return
