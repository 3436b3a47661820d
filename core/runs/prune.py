"""Make a run lighter: delete models' weights and keep every figure.

What pages and tables show derives from predictions, so a run without weights shows as before and
only answers nothing new. Which weights are there is in run.json's `weights`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from core.files import sha256_file
from core.runs import artifacts
from core.runs.artifacts import KERAS_FILE, MODEL_FILES
from core.runs.missing_weights import join_titles, retrain_command
from core.runs.readers import ArtifactError
from core.runs.run import KEPT, NOT_KEPT, Run
from core.runs.writing import rewrite_info

WEIGHT_FILES = (*MODEL_FILES, KERAS_FILE)


class SlimError(ArtifactError):
    """Weights that are not deleted; the message is one sentence a person can act on."""


def slim_run(
    run: Run, keep: Sequence[str] = (), rewrite: Callable[[Run], Run] = rewrite_info
) -> tuple[Run, int]:
    """Delete the weights of all models but `keep`; returns the run as it is now and bytes freed.

    keep: models of the run; an ensemble stands for its members; rewrite: writes the run's info and
    what is made of it (core.reporting.model_card.refresh_cards). run.json is rewritten last: where
    that was interrupted, the same call again completes it. Called twice it changes nothing more.

    Raises:
        SlimError: `keep` names what the run does not have, or has no weights of; or the run is not
            as it was written, so that its weights are needed to mend it.
    """
    kept = _kept_models(run, keep)
    _check_figures(run)
    files, freed = dict(run.info["files"]), 0
    for model in run.singles:
        if model in kept:
            continue
        for name in WEIGHT_FILES:
            file = run.path / model / name
            if file.is_file():
                freed += file.stat().st_size
                file.unlink()
            files.pop(f"{model}/{name}", None)
    weights = {model: KEPT if model in kept else NOT_KEPT for model in run.singles}
    if weights == run.info.get("weights") and files == run.info["files"]:
        return run, freed
    # Cards say which weights are there, so whoever has cards rewrites them here too.
    return rewrite(Run(run.path, run.info | {"weights": weights, "files": files})), freed


def _kept_models(run: Run, keep: Sequence[str]) -> set[str]:
    """The single models that `keep` means."""
    unknown = [name for name in keep if name not in run.models]
    if unknown:
        raise SlimError(
            f"Run {run.name} has no model {', '.join(unknown)}. It has: {', '.join(run.models)}."
        )
    kept = {member for name in keep for member in run.members(name) or [name]}
    gone = [model for model in run.singles if model in kept and model not in run.served]
    if gone:
        raise SlimError(
            f"The weights of {join_titles(run, gone)} are gone from run {run.name} already, so "
            f"they cannot be kept; `{retrain_command(run.info)}` trains the run again."
        )
    return kept


def _check_figures(run: Run) -> None:
    """Weights can make damaged predictions anew, so they stay until the figures are whole."""
    for name, digest in run.info["files"].items():
        # Cards are written anew below, and weights may be gone from a call that was interrupted.
        if name.endswith((*WEIGHT_FILES, artifacts.CARD_FILE)):
            continue
        file = run.path / name
        if not file.is_file() or sha256_file(file) != digest:
            raise SlimError(
                f"{run.name}/{name} is not as it was written, so the run's weights stay: restore "
                "the file first."
            )
