"""A run in words and tables: what the README shows and `train` prints at its end.

Markdown: the verdict, the models with intervals and floors, cross-validation beside the published
rows, results on images from elsewhere, and what the scorecard found.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from core.evaluation.cross_validation import folds_not_done, load_pooled
from core.evaluation.published_protocol import is_published_set, judge_target, published_table
from core.reporting import verdict
from core.reporting.scorecard import scorecard
from core.reporting.scorecard.external_checks import fall_words, macro_f1_fall
from core.reporting.scorecard.guard_checks import check_guard
from core.runs import additions, artifacts
from core.runs.additions import load_maps
from core.runs.run import Run

INIT_WORDS = {"imagenet": "ImageNet", "random": "random", "scratch": "from scratch"}
HEAD = ("", "init", "input", "accuracy, %", "macro-F1, %", "covid sensitivity, %", "ms", "MB")
NO_VALUE = "–"


def summarise_run(run: Run) -> str:
    """Markdown of a whole run; parts that were not done are left out or said to be missing.

    Raises ArtifactError where a file that is read is absent or damaged.
    """
    metrics = {model: artifacts.load_metrics(run, model) for model in run.models}
    titles = {model: run.title(model) for model in run.models}
    said = verdict.leader_sentence(
        metrics, run.info.get("comparisons", []), titles, synthetic=run.synthetic
    )
    inits = run.info.get("init", {})
    note = verdict.initialisation_note(
        {m: inits.get(m) for m in run.models if not run.members(m)}, titles
    )
    leak = verdict.leak_badge(run.info.get("leakage"))
    parts = [
        f"**{leak}.** Its figures are too high for new patients." if leak else "",
        said.sentence,
        said.cost,
        _model_table(run, metrics),
        "\n".join(_baseline_lines(run, metrics)),
        note or "",
        said.basis,
        *_fold_parts(run),
        *_external_parts(run),
        trust_text(run),
        *_live_parts(run),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def trust_text(run: Run) -> str:
    """What the scorecard counts, and one line for every check that failed."""
    checks = scorecard.build_scorecard(run)
    counts = verdict.trust_counts(check.status for check in checks)
    failed = [check for check in checks if check.status == scorecard.FAILED]
    missing = [check.title for check in checks if check.status == scorecard.NOT_DONE]
    text = f"Trust: the run {counts}" + (f" ({'; '.join(missing)})." if missing else ".")
    lines = [f"- **Fails {check.title}** ({check.fault}): {check.sentence}" for check in failed]
    return "\n\n".join([text, "\n".join(lines)] if lines else [text])


def _live_parts(run: Run) -> list[str]:
    """What live answers rest on: the guard's figures and those of the heat maps, where measured."""
    parts = []
    evidence = scorecard.load_evidence(run)
    if evidence.guard:
        parts.append(f"Pictures of other things: {check_guard(evidence).sentence}")
    maps = load_maps(run)
    if maps and maps["status"] == "done":
        found = maps["models"]
        all_hits = {model: found[model]["pointing"]["true"]["all"] for model in found}
        any_hits = next(iter(all_hits.values()))
        places = [
            f"{words} {100 * any_hits['against'][place]['hit']['value']:.1f}"
            for place, words in maps["baselines"].items()
        ]
        hits = [
            f"{run.title(m)} {_share(row['hit']['value'], row['hit'])}"
            for m, row in all_hits.items()
        ]
        parts.append(
            f"Heat maps, on {any_hits['n']} drawn phantoms with a lesion: hottest on the lesion in "
            f"% of them {', '.join(hits)}; for comparison {', '.join(places)}. "
            f"{maps['learned_from']}"
        )
    return parts


def score_line(title: str, metrics: Mapping[str, Any]) -> str:
    """One line for a terminal: accuracy and macro-F1 with intervals, and on how many images."""
    shown = [
        f"{name} {_share(metrics[key], metrics['intervals'].get(key))}"
        for key, name in (("accuracy", "accuracy %"), ("macro_f1", "macro-F1 %"))
    ]
    return f"{title}: {', '.join(shown)}, n = {metrics['n']}."


def _model_table(run: Run, metrics: Mapping[str, Mapping[str, Any]]) -> str:
    rows = [_model_row(run, model, metrics[model]) for model in run.models]
    rows += [_baseline_row(floor) for floor in run.info.get("floors", {}).values()]
    return _table(HEAD, rows)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (head, ["---"] * len(head), *rows)
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def _baseline_lines(run: Run, metrics: Mapping[str, Mapping[str, Any]]) -> list[str]:
    floors = run.info.get("floors")
    if not floors:
        return []
    return [
        f"- {run.title(model)}: {verdict.baselines_sentence(metrics[model], floors)}"
        for model in run.models
    ]


def _fold_parts(run: Run) -> list[str]:
    """Cross-validation beside the published rows, the target, and what was not done."""
    pooled = load_pooled(run)
    if not pooled:
        return []
    lines = []
    for model, metrics in pooled.items():
        spread, n_folds = metrics["spread"]["accuracy"], len(metrics["folds"])
        sd = "" if spread["sd"] is None else f", standard deviation {100 * spread['sd']:.1f}"
        accuracy = _share(metrics["accuracy"], metrics["intervals"].get("accuracy"))
        lines.append(
            f"- {run.title(model)}: accuracy {accuracy} pooled, mean of the {n_folds} folds "
            f"{100 * spread['mean']:.1f}{sd}."
        )
    lines += [f"- {run.title(m)}: folds not done, {why}." for m, why in folds_not_done(run).items()]
    target = judge_target(run) if is_published_set(run) else None
    said = []
    if target is not None:
        said = [f"**{target.sentence}**", "\n".join(f"- {one.sentence}" for one in target.tasks)]
        said.append(target.basis)
    return [published_table(run), "\n".join(lines), *said]


def _external_parts(run: Run) -> list[str]:
    """A table for every set from elsewhere: what is left there of each model."""
    parts = []
    for name in additions.list_external(run):
        document = additions.load_external(run, name)
        models = [model for model in run.models if model in document["models"]]
        found = {model: external_sensitivities(document, model) for model in models}
        classes = [c for c in run.class_names if any(c in row for row in found.values())]
        head = ("", "accuracy, %", "macro-F1, %", "macro-F1 there against here")
        head += tuple(f"{name} sensitivity, %" for name in classes)
        rows = [
            (
                run.title(model),
                *external_cells(document, model),
                *(found[model].get(name, NO_VALUE) for name in classes),
            )
            for model in models
        ]
        title = document.get("title", name)
        intro = f"Images from elsewhere: {title} (n = {document.get('n', 0):,})."
        missing = document.get("classes_missing") or []
        if missing:
            intro += f" It has no {' and no '.join(missing)}."
        parts += [intro, _table(head, rows)]
    return parts


def external_cells(document: Mapping[str, Any], model: str) -> list[str]:
    """Accuracy and macro-F1 of a model on a set from elsewhere, and how they differ from here."""
    figures = document["models"][model]
    intervals, fall = figures.get("intervals") or {}, macro_f1_fall(document, model)
    shares = [_share(figures.get(key), intervals.get(key)) for key in ("accuracy", "macro_f1")]
    return [*shares, fall_words(fall) if fall else NO_VALUE]


def external_sensitivities(document: Mapping[str, Any], model: str) -> dict[str, str]:
    """Class -> the share of its images that the model finds elsewhere, classes there only."""
    figures = document["models"][model]
    intervals = figures.get("intervals") or {}
    return {
        name: _share(row["recall"], intervals.get(f"recall.{name}"))
        for name, row in (figures.get("per_class") or {}).items()
        if row.get("recall") is not None and row.get("support", 1)
    }


def _model_row(run: Run, model: str, metrics: Mapping[str, Any]) -> list[str]:
    init = str(run.info.get("init", {}).get(model, NO_VALUE))
    size = run.info.get("model_input_size_px", {}).get(model, run.info.get("input_size_px"))
    start, seen = INIT_WORDS.get(init, init), f"{size} px"
    if run.members(model):
        start, seen = f"mean of {len(run.members(model))}", NO_VALUE
    covid = metrics["per_class"].get("covid", {}).get("recall")
    cost = metrics.get("cost") or {}
    intervals = metrics["intervals"]
    return [
        run.title(model),
        start,
        seen,
        _share(metrics["accuracy"], intervals.get("accuracy")),
        _share(metrics["macro_f1"], intervals.get("macro_f1")),
        _share(covid, intervals.get("recall.covid")),
        _plain(cost.get("latency_ms")),
        _plain(cost.get("size_mb")),
    ]


def _baseline_row(floor: Mapping[str, Any]) -> list[str]:
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
