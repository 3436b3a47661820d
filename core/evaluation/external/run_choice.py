"""Which run stands for a data set in a matrix of trained on against tested on.

One run a data set and choice of classes. Never one that leaks or was split at random: its own
figures are too high, so the external loss would look larger than it is. Of several, the one that
was scored on most other sets, then the newest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from core.formatting import percent
from core.runs.run import Run


def data_name(run: Run) -> str:
    """The data set that the run was trained on."""
    return str(run.info["dataset"]["name"])


def row_name(run: Run) -> str:
    """The data set, and the classes behind it where the run took only some of them."""
    task = run.info.get("task")
    chosen = (run.info.get("config") or {}).get("classes")
    if isinstance(task, dict):  # told by what was left out: --classes may name all there are
        chosen = task.get("left_out")
    return _with_classes(run) if chosen else data_name(run)


def choose_runs(
    runs: Sequence[Run], model: str, n_external: Mapping[str, int]
) -> tuple[dict[str, Run], list[str]]:
    """Row name -> the run that stands for it, and a sentence for each that was passed over.

    n_external: run -> external sets that it was scored on with this model.
    """
    notes: list[str] = []
    real = any(model in run.models and not run.synthetic for run in runs)
    rows: dict[str, list[Run]] = {}
    for run in runs:
        if model not in run.models:
            continue
        why = _why_never(run) or (
            "it learned from drawn phantoms" if real and run.synthetic else ""
        )
        if why:
            notes.append(f"Run {run.name} is left out: {why}.")
            continue
        rows.setdefault(row_name(run), []).append(run)
    chosen: dict[str, Run] = {}
    for name, several in _apart(rows).items():
        best = max(several, key=lambda run: (n_external[run.name], str(run.info["created"])))
        chosen[name] = best
        notes += [_gives_way(run, best, name, n_external) for run in several if run is not best]
    notes += _other_members(chosen, model)
    return chosen, notes


def _why_never(run: Run) -> str:
    leakage = run.info.get("leakage")
    if leakage and leakage["images"]:
        return (
            f"{percent(leakage['share'], 0)} of its test images share a patient or a picture "
            "with training, so its own figures are too high"
        )
    if run.info.get("split_policy") == "random":
        return "it was split at random, so its own figures may be too high"
    return ""


def _apart(rows: Mapping[str, list[Run]]) -> dict[str, list[Run]]:
    """The rows, those of one name that tell other classes apart under names of their own."""
    apart: dict[str, list[Run]] = {}
    for name, runs in rows.items():
        mixed = len({frozenset(run.class_names) for run in runs}) > 1
        for run in runs:
            apart.setdefault(_with_classes(run) if mixed else name, []).append(run)
    return apart


def _gives_way(run: Run, best: Run, name: str, n_external: Mapping[str, int]) -> str:
    ours, theirs = n_external[run.name], n_external[best.name]
    why = (
        f"was scored on more sets from elsewhere ({theirs} to {ours})"
        if theirs > ours
        else "is newer"
    )
    return f"Run {run.name} gives way to {best.name} for {name}, which {why}."


def _other_members(chosen: Mapping[str, Run], model: str) -> list[str]:
    """Means of other models are not the same model, whatever they are called."""
    members = {run.name: tuple(sorted(run.members(model))) for run in chosen.values()}
    if len(set(members.values())) < 2:
        return []
    listed = "; ".join(f"{name}: {', '.join(m) or 'one model'}" for name, m in members.items())
    return [f"{model} is not made of the same models in these runs ({listed})."]


def _with_classes(run: Run) -> str:
    return f"{data_name(run)} ({', '.join(run.class_names)})"
