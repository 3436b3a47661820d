"""What the figures say, in plain words: who leads, whether that is more than chance, at what cost.

Pages and README print these sentences as they are, so that no two places can judge differently.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.formatting import PERCENT, count, interval_text, join, percent
from core.models.names import PARTIAL, init_title, is_control, without_control

# Two macro-F1 closer than this are the same number, apart from rounding.
TIE = 1e-9
# Below this factor two latencies measured on a shared machine are not worth a sentence.
MIN_LEAD_NAMED = 1.2
# More models than these are counted in a sentence, not named.
NAMED_TIED = 3
BASELINE_METRICS = {"accuracy": "accuracy", "macro_f1": "macro-F1"}


@dataclass(frozen=True)
class Verdict:
    """In words: `sentence` who leads, `cost` what that costs, `basis` how figures were computed."""

    sentence: str
    cost: str
    basis: str


@dataclass(frozen=True)
class Reliance:
    """How far a run can be relied on: a sentence, and FAILED, NOT_DONE or PASSED as its colour."""

    sentence: str
    status: str


def leader_sentence(
    metrics: Mapping[str, Mapping[str, Any]],
    comparisons: Iterable[Mapping[str, Any]],
    titles: Mapping[str, str],
    *,
    synthetic: bool = False,
    leakage: Mapping[str, Any] | None = None,
    part: str = "test",
) -> Verdict:
    """Which model leads on macro-F1, whether the lead is more than chance, and what it costs.

    metrics: model -> its metrics.json (`intervals` and `cost` may be missing, or hold None);
    comparisons: output of core.metrics.significance.compare_models, in any order; titles: model ->
    the name shown (the model's own where missing); synthetic: the images are drawn phantoms;
    leakage: run.json's, which makes every figure too high; part: what the images are called, such
    as "test".
    """
    scores = {model: row["macro_f1"] for model, row in metrics.items()}
    if not scores:
        return Verdict(
            "No model has been measured yet; `python -m core train` makes a run with figures.",
            "",
            "",
        )
    comparisons = list(comparisons)
    name = {model: titles.get(model, model) for model in scores}
    ranking = sorted(scores, key=lambda model: scores[model], reverse=True)
    leader = ranking[0]
    tied = [model for model in ranking if scores[leader] - scores[model] <= TIE]
    if len(scores) == 1:
        head = f"{name[leader]} is the only model here: macro-F1 {_score(metrics[leader])}."
    elif len(tied) > 1:
        head = f"{join(name[m] for m in tied)} have the same macro-F1, {_score(metrics[leader])}."
    else:
        head = _lead(ranking, scores, comparisons, name)
    if leakage and leakage.get("images"):
        head = f"Inflated: {_leak_words(leakage)}. {head}"
    if synthetic:
        head = f"Drawn phantoms, no patients: this says nothing about X-rays. {head}"
    cost = _cost(tied, ranking, metrics, name)
    return Verdict(head, cost, _basis(metrics[leader], comparisons, part))


def reliance_sentence(
    checks: Mapping[str, str], external: Iterable[Mapping[str, Any]], models: Iterable[str]
) -> Reliance:
    """Whether the figures hold for images of other sources, and how many checks failed.

    checks: key -> status, as core.reporting.scorecard has them; external: the documents of
    external.json; models: those whose accuracy is named.
    """
    models = set(models)
    shares, n, sets = [], 0, 0
    for document in external:
        found = [f.get("accuracy") for m, f in document["models"].items() if m in models]
        shares += [share for share in found if share is not None]
        n, sets = n + document["n"], sets + 1
    accuracy = ""
    if shares:
        low, high = (f"{100 * share:.0f}" for share in (min(shares), max(shares)))
        of = f" from {sets} sets" if sets > 1 else ""
        span = low if low == high else f"{low} to {high}"
        accuracy = f"{span}{PERCENT} accuracy on {count(n, 'external image')}{of}"
    accuracy = f": {accuracy}" if accuracy else ""  # a set of one class has none
    text = {
        "failed": f"Do not rely on it outside this data set{accuracy}.",
        "passed": f"It holds outside this data set{accuracy}.",
    }.get(checks.get("external", ""), "Not tested on images from other hospitals.")
    counted = Counter(checks.values())
    if counted["failed"]:
        return Reliance(f"{text} {counted['failed']} of {len(checks)} checks failed.", "failed")
    if counted["not done"]:
        left = counted["not done"]
        return Reliance(f"{text} No check failed; {left} of {len(checks)} not done.", "not done")
    return Reliance(f"{text} All {len(checks)} checks passed.", "passed")


def initialisation_note(init: Mapping[str, str | None], titles: Mapping[str, str]) -> str | None:
    """Warns where a comparison of models mixes initialisations; None where it does not.

    init: model -> "imagenet", "imagenet-partial:LAYER", "random", "scratch" (no pretrained weights
    exist for it, so it is left out), "file:NAME" or None (an ensemble, left out). A model named
    X_random is X's control.
    """
    controls = [m for m in init if is_control(m)]
    started = {
        model: start
        for model, start in init.items()
        if start not in (None, "scratch") and model not in controls
    }
    models = list(started)
    pairs = [
        (a, b) for i, a in enumerate(models) for b in models[i + 1 :] if started[a] != started[b]
    ]
    if not pairs:
        return None
    name = {model: titles.get(model, model) for model in init}
    involved = [model for model in models if any(model in pair for pair in pairs)]
    starts = join(f"{name[model]} from {_start_text(started[model])}" for model in involved)
    which = join(f"{name[a]}/{name[b]}" for a, b in pairs)
    plural = len(pairs) > 1
    note = (
        f"Training started {starts}, so the pair{'s' if plural else ''} {which} "
        f"compare{'' if plural else 's'} initialisations as much as architectures"
    )
    for control in controls:
        base = without_control(control)
        if base in involved and init[control] != started[base]:
            note += f"; {name[control]} is the control"
            alike = [name[m] for m in involved if started[m] == init[control]]
            note += f", and set beside it {join(alike)} shows the architecture" if alike else ""
    return note + "."


def unbeaten_baselines(
    metrics: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]
) -> list[str]:
    """Each shortcut baseline that the model does not exceed, in words with its figures.

    A baseline counts on accuracy and on macro-F1 alike: a model has to be above it on both.
    """
    lost = []
    for key, baseline in baselines.items():
        values = [
            f"{word} {percent(baseline[metric])}"
            for metric, word in BASELINE_METRICS.items()
            if baseline.get(metric) is not None and not metrics[metric] > baseline[metric]
        ]
        if values:
            lost.append(f"{baseline.get('title', key)} ({join(values)})")
    return lost


def highest_baselines(baselines: Mapping[str, Mapping[str, Any]]) -> str:
    """The baseline that is hardest to beat on accuracy and on macro-F1, "" where there is none."""
    parts = []
    for metric, word in BASELINE_METRICS.items():
        known = {k: f for k, f in baselines.items() if f.get(metric) is not None}
        if known:
            key = max(known, key=lambda k: known[k][metric])
            interval = (known[key].get("intervals") or {}).get(metric) or {}
            text = f"{word} {percent(known[key][metric])}"
            if interval.get("low") is not None:
                text += f" ({interval_text(interval)})"
            parts.append(f"{text} by {known[key].get('title', key)}")
    return join(parts)


def baselines_sentence(
    metrics: Mapping[str, Any], baselines: Mapping[str, Mapping[str, Any]]
) -> str:
    """One sentence: whether the model is above every shortcut baseline; "" where there are none."""
    if not baselines:
        return ""
    lost = unbeaten_baselines(metrics, baselines)
    if lost:
        return f"Does not beat these shortcut floors: {'; '.join(lost)}."
    return f"Above every shortcut floor; the highest are {highest_baselines(baselines)}."


def leak_badge(leakage: Mapping[str, Any] | None) -> str:
    """A few words for a run whose test split leaks (run.json's `leakage`), "" for any other."""
    if not leakage or not leakage.get("images"):
        return ""
    return f"LEAKS: {_leak_words(leakage)}"


def _leak_words(leakage: Mapping[str, Any]) -> str:
    share = leakage["share"]
    by_patient = leakage.get("by_patient", leakage["images"])
    what = "share a patient with" if by_patient else "have a copy in"
    return f"{percent(share, 0 if share >= 0.01 else 1)} of test images {what} training"


def trust_counts(statuses: Iterable[str]) -> str:
    """Such as "passes 5 of 13 checks, fails 5, 3 not done"; statuses as
    core.reporting.scorecard.base has them.
    """
    n = Counter(statuses)
    parts = [f"passes {n['passed']} of {n.total()} checks"]
    parts += [f"fails {n['failed']}"] if n["failed"] else []
    parts += [f"{n['not done']} not done"] if n["not done"] else []
    return ", ".join(parts)


def _lead(
    ranking: Sequence[str],
    scores: Mapping[str, float],
    comparisons: Sequence[Mapping[str, Any]],
    name: Mapping[str, str],
) -> str:
    """The sentence about the model in front, those tied with it, and those it clearly beats."""
    leader, *others = ranking
    beaten, tied, untested = [], [leader], []
    for other in others:
        row = _comparison(comparisons, leader, other)
        if row is None:
            untested.append(other)
        elif row["verdict"] == ("a better" if row["a"] == leader else "b better"):
            beaten.append(other)
        else:
            tied.append(other)
    behind = f" It clearly beats {_names(beaten, name, others)}." if beaten else ""
    if len(tied) > NAMED_TIED and len(tied) == len(ranking):
        text = (
            f"No model is clearly best: all {len(tied)} are statistically tied, "
            f"{name[leader]} in front ({_span(tied, scores)})."
        )
    elif len(tied) > NAMED_TIED:
        text = (
            f"{name[leader]} is in front, but {len(tied)} of {len(ranking)} models are "
            f"statistically tied ({_span(tied, scores)}).{behind}"
        )
    elif len(tied) > 1:
        text = f"{join(name[m] for m in tied)} are tied for best ({_span(tied, scores)})."
        text += behind.replace("It", "The first", 1)
    else:
        text = f"{name[leader]} has the highest macro-F1 ({percent(scores[leader], 0)}).{behind}"
    if untested:
        text += f" Whether it really beats {_names(untested, name, others)} was not tested."
    return text


def _names(models: Sequence[str], name: Mapping[str, str], others: Sequence[str]) -> str:
    if len(models) <= NAMED_TIED:
        return join(name[model] for model in models)
    return f"all {len(others)} others" if len(models) == len(others) else f"{len(models)} others"


def _span(models: Sequence[str], scores: Mapping[str, float]) -> str:
    """Such as "macro-F1 84 to 85 %"."""
    low, high = (f"{100 * end:.0f}" for end in (scores[models[-1]], scores[models[0]]))
    return f"macro-F1 {low if low == high else f'{low} to {high}'}{PERCENT}"


def _cost(
    tied: list[str],
    ranking: list[str],
    metrics: Mapping[str, Mapping[str, Any]],
    name: Mapping[str, str],
) -> str:
    """What the leader, or each that shares the lead, costs; and who is much quicker."""
    costs = {model: _cost_text(metrics[model].get("cost")) for model in tied}
    known = {model: words for model, words in costs.items() if words}
    if len(tied) > NAMED_TIED:
        return ""
    if not known:
        return "Time and size were not measured."
    if len(tied) == 1:
        text = f"It takes {costs[tied[0]]}"
    else:
        text = "; ".join(f"{name[model]} takes {words}" for model, words in known.items())
    quick = {
        model: latency
        for model in ranking
        if (latency := (metrics[model].get("cost") or {}).get("latency_ms"))
    }
    leader = tied[0]
    if len(tied) == 1 and leader in quick and len(quick) > 1:
        quickest = min(quick, key=lambda model: quick[model])
        if quick[leader] / quick[quickest] >= MIN_LEAD_NAMED:
            behind = metrics[leader]["macro_f1"] - metrics[quickest]["macro_f1"]
            text += (
                f"; the fastest, {name[quickest]}, takes {_milliseconds(quick[quickest])} "
                f"per image and scores {_difference(behind)} lower"
            )
        elif quickest == leader and len(quick) == len(ranking):
            text += "; no other model here is faster"
    return text + "."


def _basis(metrics: Mapping[str, Any], comparisons: Sequence[Mapping[str, Any]], part: str) -> str:
    images = count(metrics["n"], f"{part} image") if metrics.get("n") else f"the {part} images"
    text = f"Macro-F1 on {images}"
    interval = (metrics.get("intervals") or {}).get("macro_f1")
    if interval and interval.get("low") is not None:
        text += f", {interval['level']:.0%} CI by patient-level bootstrap".replace("%", PERCENT, 1)
    if comparisons:
        draws = comparisons[0].get("draws")
        counted = f" ({draws:,} draws)" if draws else ""
        pairs = count(len(comparisons), "pair")
        text += (
            f". One model beats another where a patient-level permutation test{counted} gives "
            f"p < 0.05, Holm-corrected over {pairs}, and the CI of the difference excludes 0"
        )
    return text + "."


def _comparison(
    comparisons: Sequence[Mapping[str, Any]], a: str, b: str
) -> Mapping[str, Any] | None:
    return next((row for row in comparisons if {row["a"], row["b"]} == {a, b}), None)


def _score(metrics: Mapping[str, Any]) -> str:
    """87.1 % (95% interval 82.0 to 91.0, n = 225), as far as it is known."""
    interval = (metrics.get("intervals") or {}).get("macro_f1") or {}
    notes = []
    if interval.get("low") is not None:
        notes.append(f"{100 * interval['level']:.0f}{PERCENT} CI {interval_text(interval)}")
    if metrics.get("n"):
        notes.append(count(metrics["n"], "image"))
    return percent(metrics["macro_f1"]) + (f" ({', '.join(notes)})" if notes else "")


def _difference(value: float) -> str:
    """A difference of two shares in percentage points."""
    points = round(100 * value, 1)
    if not points:
        return "less than 0.1 points"
    return f"{points:.1f} point{'' if points == 1 else 's'}"


def _cost_text(cost: Mapping[str, Any] | None) -> str:
    cost = cost or {}
    words = []
    if cost.get("latency_ms") is not None:
        words.append(f"{_milliseconds(cost['latency_ms'])} per image")
    if cost.get("size_mb") is not None:
        words.append(f"{cost['size_mb']:.1f} MB")
    if cost.get("train_s") is not None:
        words.append(f"{_duration(cost['train_s'])} of training")
    return join(words)


def _milliseconds(value: float) -> str:
    return f"{value:.1f} ms" if value < 10 else f"{value:.0f} ms"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _start_text(init: str) -> str:
    if init.startswith(PARTIAL):
        return init_title(init)
    texts = {"imagenet": "ImageNet weights", "random": "random weights"}
    return texts.get(init) or f"the weights of {init_title(init)}"
