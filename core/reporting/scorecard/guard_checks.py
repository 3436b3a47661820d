"""The check of a run's guard: does it keep what it must and refuse what it must?"""

from __future__ import annotations

from collections.abc import Mapping

from core.formatting import count, join, percent, with_interval
from core.reporting.scorecard.base import NOT_DONE, Check, Evidence, shown
from core.runs.additions import guard_command
from core.runs.schema.guard import Acceptance, Guard, Refusal

ACCEPTED = 0.95  # of the test images, shown by the lower end
ACCEPTED_OF_CLASS = 0.90  # no class may be shown to lie below
REFUSED = 0.90  # of a kind of other images, shown by the lower end
FEWEST_KINDS = 5
TITLES = {
    "ct": "Refuses what is no chest CT slice",
    "phantom": "Refuses what is no chest phantom",
}


def check_guard(evidence: Evidence) -> Check:
    """Whether the guard accepts what it must and refuses what it must."""
    guard = evidence.guard
    status, fault, command = NOT_DONE, "", guard_command(evidence.run)
    if guard is None:
        sentence = _without(evidence)
    elif guard["acceptance"] and len(guard["refusal"]) >= FEWEST_KINDS:
        status, sentence, fault = _check_measured(guard["acceptance"], guard["refusal"])
        command = ""
    else:
        sentence = _too_little(guard)
    return Check(
        "guard",
        TITLES.get(evidence.run.modality, "Refuses what is no chest X-ray"),
        status,
        sentence,
        f"Passes when the guard is shown to keep at least {percent(ACCEPTED)} of the test images "
        "(the lower end of the 95\u202f% interval over patients) and no class is shown to be kept "
        f"below {percent(ACCEPTED_OF_CLASS)} (the upper end), and when at least {FEWEST_KINDS} "
        f"kinds of other pictures are shown to be refused at {percent(REFUSED)} or more (the lower "
        "end) and none is shown to be refused less often; not done without such figures.",
        "predict",
        fault,
        command=command,
    )


def _check_measured(acceptance: Acceptance, refusal: Mapping[str, Refusal]) -> tuple[str, str, str]:
    """(status, sentence, fault) of a guard that was measured."""
    test = acceptance["test"]
    whole, classes = test["all"], test["classes"]
    rare = {name: row for name, row in classes.items() if row["high"] < ACCEPTED_OF_CLASS}
    kinds = list(refusal.values())
    shown_kinds = [row for row in kinds if row["low"] >= REFUSED]
    weak = [row for row in kinds if row["high"] < REFUSED]
    faults = []
    if whole["low"] < ACCEPTED or rare:
        faults.append("real images may be refused")
    if len(shown_kinds) < FEWEST_KINDS or weak:
        faults.append("pictures of other things may pass")
    by_class = join(f"{name} {percent(row['share'])}" for name, row in classes.items())
    sentence = (
        f"It keeps {with_interval(whole['share'], whole)} of {count(whole['n'], 'test image')} "
        f"({by_class}), and is shown to refuse {percent(REFUSED)} or more of "
        f"{len(shown_kinds)} of {len(kinds)} kinds of other pictures"
    )
    unclear = len(kinds) - len(shown_kinds) - len(weak)
    if unclear:
        sentence += f" (of {unclear} too few pictures were tried to tell)"
    least = min(kinds, key=lambda row: row["share"])
    sentence += f"; least often: {_inside(least['title'])}, {percent(least['share'])}"
    sentence += f" of {count(least['n'], 'picture')}"
    if weak:
        titles = join(_inside(row["title"]) for row in weak)
        sentence += f". Shown to be refused less often: {titles}"
    if rare:
        sentence += f". Kept too rarely: {join(rare)}"
    # Not judged: it may be right to refuse them, but nobody should have to look for it.
    for far in acceptance.get("elsewhere", {}).values():
        by_class = join(f"{name} {percent(row['share'])}" for name, row in far["classes"].items())
        sentence += (
            f". From elsewhere ({far['title']}) it keeps "
            f"{with_interval(far['all']['share'], far['all'])} of {count(far['all']['n'], 'image')}"
            f" ({by_class})"
        )
    return shown(not faults), sentence + ".", " and ".join(faults)


def _without(evidence: Evidence) -> str:
    cat = "also to a cat's" if evidence.run.modality == "xray" else "whatever it shows"
    return f"The run has no such guard: its models give a class to any picture, {cat}."


def _too_little(guard: Guard) -> str:
    found = count(len(guard["refusal"]), "kind")
    on_test = "on the test images" if guard["acceptance"] else "on no test image"
    return (
        f"The run has a guard, but it was measured {on_test} and on {found} of other pictures; "
        f"{FEWEST_KINDS} kinds and the test images are needed."
    )


def _inside(title: str) -> str:
    """A title within a sentence: "CT slices" stay as they are."""
    return title if title[:2].isupper() else title[:1].lower() + title[1:]
