"""Runs whose weights were not kept, in words: which models cannot be asked, how to get them back.

All figures of such a run are there, since they derive from its predictions; its models answer
nothing new. `python -m core slim` makes one (core.runs.prune).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from core.formatting import join
from core.runs.readers import ArtifactError

if TYPE_CHECKING:
    from core.runs.run import Run


def retrain_command(info: Mapping[str, Any]) -> str:
    """The run's own command under another name, so that no figure of the run is lost."""
    again = f"{info['name']}-again"
    command = str(info.get("command") or "")
    renamed, n = re.subn(r"(?<=--run[ =])\S+", lambda _: again, command)
    if n == 1:
        return renamed
    members = info.get("members") or {}
    models = ",".join(model for model in info["models"] if model not in members)
    parts = info["dataset"].get("parts") or [info["dataset"]]
    name = ",".join(part["name"] for part in parts)
    return f"python -m core train --dataset {name} --models {models} --run {again}"


def left_out(run: Run) -> list[str]:
    """The models of the run that cannot be asked, since weights they need were not kept."""
    usable = run.usable_models
    return [model for model in run.models if model not in usable]


def left_out_sentence(run: Run, *, command: bool = True) -> str:
    """Which models cannot be asked and what trains them again; "" where all can be."""
    models = left_out(run)
    if not models:
        return ""
    titles = join_titles(run, models)
    them = "it" if len(models) == 1 else "them"
    said = (
        f"The weights of run {run.name} were not kept, so none of its models can be asked"
        if not run.served
        else f"{titles} cannot be asked: the weights were not kept in run {run.name}"
    )
    return f"{said}; `{retrain_command(run.info)}` trains {them} again." if command else f"{said}."


def need_weights(run: Run) -> None:
    """Raise ArtifactError where no model of the run can be asked."""
    if not run.served:
        raise ArtifactError(left_out_sentence(run))


def check_no_loss(run: Run, what: str, models: Iterable[str]) -> None:
    """Refuse to make figures anew that hold models which cannot be asked any more.

    what: the figures within a sentence, such as "an audit"; models: those that they are about.
    Raises ArtifactError.
    """
    lost = [model for model in left_out(run) if model in set(models)]
    if lost:
        raise ArtifactError(
            f"Run {run.name} has {what} with {join_titles(run, lost)}, whose weights were not "
            "kept: made anew, those figures would be lost, so they stay as they are."
        )


def join_titles(run: Run, models: Iterable[str]) -> str:
    """Titles of models as a list in words."""
    return join(run.title(model) for model in models)
