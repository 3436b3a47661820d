"""What was measured of heat maps, in words: for the command, the cards and the pages."""

from __future__ import annotations

from core.evaluation.heatmaps.pointing_game import BASELINES
from core.evaluation.heatmaps.sanity_checks import DECIDING, LIMIT
from core.formatting import with_interval
from core.runs.run import Run

ALL = "all"  # the phantoms of all classes with a lesion together


def describe_learning(run: Run) -> str:
    """What the models know of phantoms, in words."""
    if run.synthetic:
        return (
            "The models learned from drawn phantoms; these are other patients, drawn by the same "
            "program."
        )
    return (
        "The models learned from real images and never from a drawn phantom, so these figures say "
        "how maps and lesions go together on phantoms, and nothing about patients."
    )


def describe_model(title: str, found: dict) -> str:
    """What was found of one model's maps, in a few plain sentences."""
    figures = found["pointing"]["true"][ALL]
    hit, mass = figures["hit"], figures["mass"]
    words = [
        f"{title} ({found['method']}): the map of the phantom's own class is hottest on the lesion "
        f"in {share(hit)} of {figures['n']} phantoms ({_against(figures, 'hit')}).",
        f"{share(mass)} of its heat lies on lesions ({_against(figures, 'mass')}).",
        f"It calls {100 * found['right']['value']:.0f} % of {found['n']} phantoms rightly.",
    ]
    if found["sanity"] is not None:
        rank = f"rank correlation {found['sanity'][DECIDING]['rank_abs']:.2f}"
        words.append(
            f"With all weights shuffled its maps change ({rank})."
            if found["sanity"]["passed"]
            else f"FAILS the sanity check: with all weights shuffled its maps stay much the same "
            f"({rank}, allowed {LIMIT:g})."
        )
        between = found["sanity"]["between"]
        if between is not None and between > LIMIT:
            words.append(
                f"Its maps of different phantoms have a rank correlation of {between:.2f}: much of "
                "a map is the same whatever the picture."
            )
    return " ".join(words)


def _against(figures: dict, score: str) -> str:
    """Every baseline in words, such as "no difference shown from a random place, 10.3 %"."""
    return "; ".join(
        f"{row[score]['verdict']} {BASELINES[baseline]}, {100 * row[score]['value']:.1f} %"
        for baseline, row in figures["against"].items()
    )


def share(estimate: dict) -> str:
    """A share with its interval in words, "none" where there were no phantoms."""
    value = estimate["value"]
    return "none" if value is None else with_interval(value, estimate, unit=" %")
