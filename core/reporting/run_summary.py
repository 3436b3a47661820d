"""A run in words and tables: what the README shows and `train` prints at its end.

Markdown: the verdict, the models with intervals and baselines, cross-validation beside the
published rows, results on external images, and what the scorecard found. Values are gathered here;
the words stand in templates/run_summary.md.j2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.evaluation.cross_validation import folds_not_done, load_pooled
from core.evaluation.published_protocol import is_published_set, judge_target, published_table
from core.formatting import NO_VALUE, number, with_interval
from core.models.names import init_title
from core.reporting import verdict
from core.reporting.scorecard import scorecard
from core.reporting.scorecard.external_checks import fall_text, macro_f1_fall
from core.reporting.source_table import source_table
from core.reporting.templating import render_markdown
from core.runs import additions, artifacts
from core.runs.run import Run


def summarise_run(run: Run) -> str:
    """Markdown of a whole run; parts that were not done are left out or said to be missing.

    Raises ArtifactError where a file that is read is absent or damaged.
    """
    metrics = {model: artifacts.load_metrics(run, model) for model in run.models}
    titles = {model: run.title(model) for model in run.models}
    inits = run.info.get("init", {})
    baselines = run.info.get("floors") or {}
    evidence = scorecard.load_evidence(run)
    checks = scorecard.judge_evidence(evidence)
    return render_markdown(
        "run_summary.md.j2",
        leak=verdict.leak_badge(run.info.get("leakage")),
        said=verdict.leader_sentence(
            metrics, run.info.get("comparisons", []), titles, synthetic=run.synthetic
        ),
        models=[
            *(_model_row(run, model, metrics[model]) for model in run.models),
            *(_baseline_row(baseline) for baseline in baselines.values()),
        ],
        baselines=[
            (titles[model], verdict.baselines_sentence(metrics[model], baselines))
            for model in run.models
            if baselines
        ],
        note=verdict.initialisation_note(
            {m: inits.get(m) for m in run.models if not run.members(m)}, titles
        ),
        folds=_folds(run),
        by_source=[
            (titles[model], source_table(metrics[model].get("sources"), run.class_names))
            for model in run.headline_models
            if metrics[model].get("sources")
        ],
        left_out=[
            found
            for m in run.models
            if (found := artifacts.load_source_metrics(run, m)) is not None
        ],
        externals=[_external(run, name) for name in additions.list_external(run)],
        trust=_trust(checks),
        guard=next(check.sentence for check in checks if check.key == "guard")
        if evidence.guard
        else "",
        maps=_maps(run),
    )


def score_line(title: str, metrics: Mapping[str, Any]) -> str:
    """One line for a terminal: accuracy and macro-F1 with intervals, and on how many images."""
    shown = [
        f"{name} {_share(metrics[key], metrics['intervals'].get(key))}"
        for key, name in (("accuracy", "accuracy %"), ("macro_f1", "macro-F1 %"))
    ]
    return f"{title}: {', '.join(shown)}, n = {metrics['n']}."


def external_cells(document: Mapping[str, Any], model: str) -> list[str]:
    """Accuracy and macro-F1 of a model on an external set, and how they differ from the test."""
    figures = document["models"][model]
    intervals, fall = figures.get("intervals") or {}, macro_f1_fall(document, model)
    shares = [_share(figures.get(key), intervals.get(key)) for key in ("accuracy", "macro_f1")]
    return [*shares, fall_text(fall) if fall else NO_VALUE]


def external_sensitivities(document: Mapping[str, Any], model: str) -> dict[str, str]:
    """Class -> the share of its images that the model finds in an external set that has any."""
    figures = document["models"][model]
    intervals = figures.get("intervals") or {}
    return {
        name: _share(row["recall"], intervals.get(f"recall.{name}"))
        for name, row in (figures.get("per_class") or {}).items()
        if row.get("recall") is not None and row.get("support", 1)
    }


def _trust(checks: list[scorecard.Check]) -> dict[str, Any]:
    """What the scorecard counts, which checks were not done, and those that failed."""
    return {
        "counts": verdict.trust_counts(check.status for check in checks),
        "missing": [check.title for check in checks if check.status == scorecard.NOT_DONE],
        "failed": [check for check in checks if check.status == scorecard.FAILED],
    }


def _maps(run: Run) -> dict[str, Any] | None:
    """How often the models' heat maps are hottest on the lesion, None where not measured."""
    document = additions.load_maps(run)
    if not document or document["status"] != "done":
        return None
    all_hits = {m: row["pointing"]["true"]["all"] for m, row in document["models"].items()}
    any_hits = next(iter(all_hits.values()))
    against: Mapping[str, Any] = any_hits["against"]
    return {
        "n": any_hits["n"],
        "hits": [
            f"{run.title(m)} {_share(row['hit']['value'], row['hit'])}"
            for m, row in all_hits.items()
        ],
        "baselines": [
            f"{text} {100 * against[place]['hit']['value']:.1f}"
            for place, text in document["baselines"].items()
        ],
        "learned_from": document["learned_from"],
    }


def _folds(run: Run) -> dict[str, Any] | None:
    """Cross-validation beside the published rows, the target, and what was not done."""
    pooled = load_pooled(run)
    if not pooled:
        return None
    return {
        "published": published_table(run),
        "pooled": [
            {
                **metrics["spread"]["accuracy"],
                "title": run.title(model),
                "accuracy": _share(metrics["accuracy"], metrics["intervals"].get("accuracy")),
                "n": len(metrics["folds"]),
            }
            for model, metrics in pooled.items()
        ],
        "not_done": [(run.title(m), reason) for m, reason in folds_not_done(run).items()],
        "target": judge_target(run) if is_published_set(run) else None,
    }


def _external(run: Run, name: str) -> dict[str, Any]:
    """The table of an external set: what is left there of each model."""
    document = additions.load_external(run, name)
    found = {
        model: external_sensitivities(document, model)
        for model in run.models
        if model in document["models"]
    }
    classes = [c for c in run.class_names if any(c in row for row in found.values())]
    sensitivities = [f"{name} sensitivity, %" for name in classes]
    return {
        "title": document.get("title", name),
        "n": document.get("n", 0),
        "missing": document.get("classes_missing"),
        "head": ["", "accuracy, %", "macro-F1, %", "macro-F1 there against here", *sensitivities],
        "rows": [
            [
                run.title(model),
                *external_cells(document, model),
                *(row.get(name, NO_VALUE) for name in classes),
            ]
            for model, row in found.items()
        ],
    }


def _model_row(run: Run, model: str, metrics: Mapping[str, Any]) -> list[str]:
    init = str(run.info.get("init", {}).get(model, NO_VALUE))
    size = run.info.get("model_input_size_px", {}).get(model, run.info.get("input_size_px"))
    start, seen = init_title(init), f"{size} px"
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
        number(cost.get("latency_ms"), 1, thousands=""),
        number(cost.get("size_mb"), 1, thousands=""),
    ]


def _baseline_row(baseline: Mapping[str, Any]) -> list[str]:
    return [
        f"*floor: {baseline['title']}*",
        NO_VALUE,
        "pixels" if baseline["kind"] == "pixel" else "files",
        *(_share(baseline[key], baseline["intervals"][key]) for key in ("accuracy", "macro_f1")),
        *(NO_VALUE,) * 3,
    ]


def _share(value: float | None, interval: Mapping[str, Any] | None) -> str:
    if value is None:
        return NO_VALUE
    return with_interval(value, interval, unit="")
