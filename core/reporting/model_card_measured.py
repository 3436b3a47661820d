"""The parts of a model card that are measured after training: heat maps, refusing other pictures.

Where something was not measured the card says so and names the command.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from core.evaluation.heatmaps.describe import ALL, share
from core.evaluation.heatmaps.pointing_game import BASELINES
from core.evaluation.heatmaps.sanity_checks import KINDS, LIMIT, RULE
from core.runs.artifacts import KEPT
from core.runs.missing_weights import retrain_command

_MAP_TITLES = {
    "true": "own class",
    "called": "class that is called",
    "right": "own class, where called",
}


def describe_maps(model: str, run_name: str, document: dict[str, Any] | None) -> str:
    """What maps/maps.json says of one model, as Markdown."""
    if document is None:
        return f"Not measured. `python -m core maps --run {run_name}` measures them."
    if document["status"] != "done":
        return f"Not measured: {document['reason']}"
    found = document["models"].get(model)
    if found is None:
        return (
            "Not measured for this model. "
            f"`python -m core maps --run {run_name}` measures the maps of all."
        )
    drawn = document["phantoms"]
    tolerance = f"{100 * document['tolerance_share']:.0f} % of the side"
    return f"""{found["sentence"]}

{document["learned_from"]}

Measured on drawn phantoms, {drawn["per_class"]} of each class ({", ".join(drawn["classes"])}), of
which {" and ".join(drawn["with_lesion"])} have a lesion whose place is known. Hit: the map is
hottest on the lesion or within {tolerance} of it (pointing game). Mass: the share of the heat on
the lesion. Intervals are 95 % over phantoms; verdicts are not corrected for their number.

{_map_table("hit", found["pointing"], drawn["with_lesion"])}

{_map_table("mass", found["pointing"], drawn["with_lesion"])}

Beside each place stands whether the map is better (+) or worse (−) than it; =: no difference shown.

{_describe_sanity(found["sanity"])}"""


def _map_table(score: str, pointing: dict, labels: list[str]) -> str:
    """One score of every map and lesion, with the places that it is compared with."""
    header = ["map of", "lesion", "n", score, *BASELINES.values()]
    lines = [header, ["---"] * len(header)]
    for kind, title in _MAP_TITLES.items():
        for label in (ALL, *labels):
            figures = pointing[kind][label]
            against = [_baseline(figures["against"][key][score]) for key in BASELINES]
            lines.append([title, label, str(figures["n"]), share(figures[score]), *against])
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _baseline(row: dict) -> str:
    if row["value"] is None:
        return "none"
    sign = ""
    if row["low"] is not None:
        sign = "+" if row["low"] > 0 else "−" if row["high"] < 0 else "="
    return f"{100 * row['value']:.1f} % {sign}".strip()


def _describe_sanity(sanity: dict | None) -> str:
    if sanity is None:
        return "Sanity check: made on each member."
    rows = "\n".join(
        f"| {title} | {sanity[kind]['rank_abs']:.2f} | {sanity[kind]['rank']:.2f} | "
        f"{sanity[kind]['ssim']:.2f} |"
        for kind, title in KINDS.items()
    )
    verdict = "Passed" if sanity["all_layers"]["rank_abs"] <= LIMIT else "**FAILED**"
    between = ""
    if sanity["between"] is not None:
        between = (
            f"\n\nBetween this model's own maps of different phantoms the mean absolute rank "
            f"correlation is {sanity['between']:.2f}: the nearer to 1, the less a map depends on "
            "the picture."
        )
    return f"""Sanity check (weights shuffled {sanity["shuffles"]} times, {sanity["n"]} phantoms):
{verdict}. {RULE}

| shuffled | rank correlation, absolute | with sign | SSIM |
| --- | --- | --- | --- |
{rows}{between}"""


def describe_weights(model: str, info: Mapping[str, Any]) -> str:
    """A line of the card where the model's weights were not kept, "" where they are there."""
    if (info.get("weights") or {}).get(model, KEPT) == KEPT:
        return ""
    return f"""- Weights: not kept in this run, so it answers nothing new;
  `{retrain_command(info)}` trains it again.
"""


def describe_guard(
    run_name: str, document: dict[str, Any] | None, modality: str = "xray", kept: bool = True
) -> str:
    """What guard/guard.json says, as Markdown; kept: whether the model can still be asked."""
    if document is None and not kept:
        return "None was fitted, and without its weights the model answers nothing new."
    if document is None:
        other = {"ct": "chest CT slice", "phantom": "drawn phantom"}.get(modality, "chest X-ray")
        return (
            f"The model answers for any picture, also for one that is no {other}. "
            f"`python -m core guard --run {run_name}` fits a guard that refuses others."
        )
    lines = [
        f"Before an answer is shown, a guard asks whether the picture looks like "
        f"{document['subject']}. It looks at the features of {document['model']} and was set to "
        f"let {100 * document['level']:.0f} % of real ones through. What it refuses can be shown "
        "all the same, marked."
    ]
    accepted = document["acceptance"]
    if accepted is None:
        lines.append("How many real ones it lets through was not measured.")
    else:
        rows = [("test images", accepted["test"]["all"])]
        rows += [(f"test images, {name}", row) for name, row in accepted["test"]["classes"].items()]
        rows += [(entry["title"], entry["all"]) for entry in accepted["elsewhere"].values()]
        lines.append(_table("let through", rows))
    if document["refusal"]:
        rows = [(row["title"], row) for row in document["refusal"].values()]
        lines.append(_table("refused", rows))
    lines += [f"Not measured: {missing}." for missing in document["missing"]]
    return "\n\n".join(lines)


def _table(title: str, rows: list[tuple[str, dict]]) -> str:
    body = "\n".join(
        f"| {name} | {row['n']} | {share({'value': row['share'], **_bounds(row)})} |"
        for name, row in rows
    )
    return f"| pictures | n | {title} |\n| --- | --- | --- |\n{body}"


def _bounds(row: dict) -> dict:
    return {"low": row["low"], "high": row["high"]}
