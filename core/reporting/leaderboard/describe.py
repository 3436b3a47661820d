"""The ranking of core.reporting.leaderboard.ranking in plain words, so that no two places can judge
differently.
"""

from __future__ import annotations

import pandas as pd

from core.formatting import interval_text, join, percent
from core.metrics.bootstrap import DRAWS
from core.metrics.significance import ALPHA
from core.reporting import verdict
from core.reporting.leaderboard.ranking import Protocol, protocol_baselines

# Inside a sentence; the names of core.reporting.leaderboard.ranking.METRICS begin with a capital.
METRIC_WORDS = {
    "macro_f1": "macro-F1",
    "balanced_accuracy": "balanced accuracy",
    "accuracy": "accuracy",
}
AGAINST_THE_FIRST = (
    "**Cannot be told**, in a ranking: each model is held against the first. The difference under "
    f"the same {DRAWS:,} draws of whole patients gives an interval and a two-sided p; Holm's "
    "correction is over all models held against the first, so that an interval without 0 may still "
    f"not be enough. Below {ALPHA:g} the model is behind; otherwise the test cannot tell the two "
    "apart, which does not show that they are equal. Nor are the others tested among each other. "
    "The first was found on these same images, which flatters it."
)


def headline(protocol: Protocol, ranking: pd.DataFrame, metric: str) -> str:
    """How many models, on what, and how many cannot be told from the one in front."""
    n, best = len(ranking), ranking.iloc[0]
    figure = f"{METRIC_WORDS[metric]} {percent(best[metric])}{_range(best, metric)}"
    images = f"the same {protocol.n['test']:,} test images"
    tied = int(ranking["tied_with_best"].sum())
    if n == 1:
        text = f"One model on {protocol.n['test']:,} test images: {best['label']}, {figure}."
    elif tied == 1:
        text = (
            f"{n} models on {images}: {best['label']} leads every other one by more than chance "
            f"explains, {figure}."
        )
    else:
        if tied == n:
            which = "none can be told from the one in front"
        elif ranking["tied_with_best"].iloc[:tied].all():
            which = f"the first {tied} cannot be told apart"
        else:
            others = "1 other" if tied == 2 else f"{tied - 1} others"
            which = f"{others} cannot be told from the one in front"
        text = f"{n} models on {images}: {which}. In front is {best['label']}, {figure}."
    if protocol.leaks:
        text = f"{protocol.leaks}, so these figures are too high for new patients. {text}"
    if protocol.first.synthetic:
        text = f"SYNTHETIC: measured on drawn phantoms. {text}"
    return text


def baselines_text(protocol: Protocol, ranking: pd.DataFrame) -> str:
    """Which models do not beat every shortcut baseline; "" where the runs have none."""
    highest = verdict.highest_baselines(protocol_baselines(protocol))
    if not highest:
        return ""
    lost = [row.label for row in ranking.itertuples() if row.floors_lost]
    n, above = len(ranking), len(ranking) - len(lost)
    if not lost:
        text = "Every model is above all shortcuts that need no network"
    elif not above:
        text = (
            "No model is above all shortcuts that need no network, on accuracy and macro-F1 alike"
        )
    else:
        verb = "is" if above == 1 else "are"
        text = f"Only {above} of {n} models {verb} above all shortcuts that need no network"
    text += f"; on the same images these reach {highest}."
    # Titles hold commas of their own.
    return text + (f" Not above: {'; '.join(lost)}." if lost and above else "")


def protocol_text(protocol: Protocol) -> str:
    """Data set, task, images of each part, split and seed, in a line."""
    n = protocol.n
    return (
        f"{protocol.dataset}; {len(protocol.class_names)} classes "
        f"({', '.join(protocol.class_names)}); {n['train']:,} training, {n['val']:,} validation "
        f"and {n['test']:,} test images ({protocol.n_patients:,} test patients); split policy "
        f"{protocol.split_policy}, seed {protocol.seed}; "
        f"run{'s' if len(protocol.runs) > 1 else ''} {join(run.name for run in protocol.runs)}"
    )


def _range(row: pd.Series, metric: str) -> str:
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    return "" if pd.isna(low) or pd.isna(high) else f" ({interval_text((low, high))})"
