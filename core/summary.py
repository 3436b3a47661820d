"""A run in one Markdown table: what the README shows and `train` prints at its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core import artifacts, verdict

INIT_WORDS = {"imagenet": "ImageNet", "random": "random", "scratch": "from scratch"}
HEAD = ("", "init", "input", "accuracy, %", "macro-F1, %", "covid sensitivity, %", "ms", "MB")
NO_VALUE = "–"


def summarise_run(run: artifacts.Run) -> str:
    """Markdown: verdict, models with intervals and inits, floors beneath, and what that rests on.

    Raises ArtifactError where a model's metrics.json is absent or damaged.
    """
    metrics = {model: artifacts.load_metrics(run, model) for model in run.models}
    titles = {model: run.title(model) for model in run.models}
    said = verdict.leader_sentence(
        metrics, run.info.get("comparisons", []), titles, synthetic=run.synthetic
    )
    inits = run.info.get("init", {})
    rows = [_model_row(run, model, metrics[model]) for model in run.models]
    rows += [_floor_row(floor) for floor in run.info.get("floors", {}).values()]
    table = "\n".join(
        "| " + " | ".join(cells) + " |" for cells in (HEAD, ["---"] * len(HEAD), *rows)
    )
    note = verdict.initialisation_note({m: inits.get(m) for m in run.models}, titles)
    floors = [
        f"- {titles[model]}: {verdict.floors_sentence(metrics[model], run.info['floors'])}"
        for model in run.models
        if run.info.get("floors")
    ]
    parts = [said.sentence, said.cost, table, "\n".join(floors), note or "", said.basis]
    return "\n\n".join(part for part in parts if part) + "\n"


def score_line(title: str, metrics: Mapping[str, Any]) -> str:
    """One line for a terminal: accuracy and macro-F1 with intervals, and on how many images."""
    shown = [
        f"{name} {_share(metrics[key], metrics['intervals'].get(key))}"
        for key, name in (("accuracy", "accuracy %"), ("macro_f1", "macro-F1 %"))
    ]
    return f"{title}: {', '.join(shown)}, n = {metrics['n']}."


def _model_row(run: artifacts.Run, model: str, metrics: Mapping[str, Any]) -> list[str]:
    init = str(run.info.get("init", {}).get(model, NO_VALUE))
    size = run.info.get("model_input_size_px", {}).get(model, run.info.get("input_size_px"))
    covid = metrics["per_class"].get("covid", {}).get("recall")
    cost = metrics.get("cost") or {}
    intervals = metrics["intervals"]
    return [
        run.title(model),
        INIT_WORDS.get(init, init),
        f"{size} px",
        _share(metrics["accuracy"], intervals.get("accuracy")),
        _share(metrics["macro_f1"], intervals.get("macro_f1")),
        _share(covid, intervals.get("recall.covid")),
        _plain(cost.get("latency_ms")),
        _plain(cost.get("size_mb")),
    ]


def _floor_row(floor: Mapping[str, Any]) -> list[str]:
    kind = "pixels" if floor["kind"] == "pixel" else "files"
    return [
        f"*floor: {floor['title']}*",
        NO_VALUE,
        kind,
        _share(floor["accuracy"], floor["intervals"]["accuracy"]),
        _share(floor["macro_f1"], floor["intervals"]["macro_f1"]),
        NO_VALUE,
        NO_VALUE,
        NO_VALUE,
    ]


def _share(value: float | None, interval: Mapping[str, Any] | None) -> str:
    if value is None:
        return NO_VALUE
    if not interval or interval.get("low") is None:
        return f"{100 * value:.1f} (no interval)"
    return f"{100 * value:.1f} ({100 * interval['low']:.1f} to {100 * interval['high']:.1f})"


def _plain(value: float | None) -> str:
    return NO_VALUE if value is None else f"{value:.1f}"
