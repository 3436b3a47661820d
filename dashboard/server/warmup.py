"""Models and decoding made ready before anybody asks: the first answer does not wait for them."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import pkgutil

import dashboard
from core.runs import artifacts
from core.runs.artifacts import ArtifactError
from dashboard.data import runs as run_data

# Started by themselves, and no part of a page.
PROGRAMS = ("dashboard.__main__", "dashboard.app", "dashboard.app_pages", "dashboard.bench")


def preload() -> None:
    """Load the models of the run that pages open on, as the page Predict does, and all that pages
    import.

    Run in a thread beside the server. What cannot be loaded is said by the page, not here.
    """
    from core.imageio.sandbox import start_sandbox

    # Out of a page Streamlit warns that no browser will see the spinner.
    name = "streamlit.runtime.scriptrunner_utils.script_run_context"
    logging.getLogger(name).disabled = True
    entries = [entry for entry in run_data.list_runs() if entry.problem is None]
    wanted = os.environ.get("CXR_RUN", "")
    entry = next((e for e in entries if e.name == wanted), entries[0] if entries else None)
    if entry is not None:
        start_sandbox()
        try:
            run = artifacts.open_run(entry.path)
            if run.served:  # else the page Predict says that nothing can be asked
                run_data.load_predictor(run)
        except ArtifactError:  # damaged since it was listed
            return
    for module in pkgutil.walk_packages(dashboard.__path__, "dashboard."):
        if not module.name.startswith(PROGRAMS):
            importlib.import_module(module.name)
    # Streamlit collects garbage after each drawing, which took longer than the drawing: what is
    # here to stay need not be walked again. Later objects are collected as ever.
    gc.collect()
    gc.freeze()
