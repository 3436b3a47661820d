"""The zoo in Markdown: for each protocol the ranking, its floors and what the notebooks claimed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from core.files import jsonable
from core.formatting import NO_VALUE, interval_text, number, percent, with_interval
from core.models.names import init_title
from core.reporting.leaderboard import describe as leaderboard_describe
from core.reporting.leaderboard import ranking as zoo
from core.reporting.leaderboard.claims import UNKNOWN, ClaimResult, judge_claims
from core.reporting.leaderboard.ranking import Protocol
from core.reporting.templating import markdown_table
from core.runs.run import Run

METRIC = "macro_f1"
HEAD = (
    "rank",
    "model",
    "init",
    "macro-F1, %",
    "accuracy, %",
    "macro-F1 against the first",
    "floors not beaten",
    "parameters, millions",
    "training, min",
    "ms",
)


def summarise_zoo(runs: Sequence[Run]) -> str:
    """Markdown; "" where no run holds any of the notebooks' networks.

    Raises ArtifactError, MetricsError or ZooError.
    """
    parts = [_protocol_text(protocol) for protocol in zoo.find_protocols(runs) if protocol.has_zoo]
    return "\n\n".join([*parts, UNKNOWN, leaderboard_describe.AGAINST_THE_FIRST]) if parts else ""


def zoo_to_json(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """The same as plain values: a document a protocol."""
    documents = []
    for protocol in zoo.find_protocols(runs):
        if not protocol.has_zoo:
            continue
        predictions = zoo.load_test_predictions(protocol)
        ranking = zoo.rank(protocol, METRIC, predictions)
        claims = judge_claims(protocol, predictions)
        documents.append(
            {
                "dataset": protocol.first.info["dataset"]["name"],
                "classes": list(protocol.class_names),
                "n": protocol.n,
                "n_patients": protocol.n_patients,
                "runs": [run.name for run in protocol.runs],
                "leaks": protocol.leaks,
                "headline": leaderboard_describe.headline(protocol, ranking, METRIC),
                "metric": METRIC,
                "models": jsonable(ranking.to_dict("records")),
                "claims": [_claim_to_json(claim) for claim in claims],
            }
        )
    return documents


def _protocol_text(protocol: Protocol) -> str:
    predictions = zoo.load_test_predictions(protocol)
    ranking = zoo.rank(protocol, METRIC, predictions)
    rows = [_row(row) for row in ranking.to_dict("records")]
    claims = [_claim_line(claim) for claim in judge_claims(protocol, predictions)]
    return "\n\n".join(
        [
            f"**{leaderboard_describe.headline(protocol, ranking, METRIC)}**",
            f"{leaderboard_describe.protocol_text(protocol)}.",
            markdown_table(rows, HEAD),
            leaderboard_describe.baselines_text(protocol, ranking),
            "\n".join(claims),
        ]
    )


def _row(row: dict[str, Any]) -> list[str]:
    init = "mean" if row["kind"] == "ensemble" else init_title(row["init"])
    if row["behind"] == 0 and row["rank"] == 1:
        against = NO_VALUE
    else:
        against = (
            f"{100 * row['behind']:.1f} lower "
            f"({interval_text((row['behind_low'], row['behind_high']))}), "
            f"{'cannot be told' if row['tied_with_best'] else 'behind'}"
        )
    return [
        str(row["rank"]),
        row["label"],
        init,
        _share(row, METRIC),
        _share(row, "accuracy"),
        against,
        str(len(row["floors_lost"])),
        number(row["params"] / 1e6, 2, ""),
        number(row["train_s"] / 60, 1, ""),
        number(row["latency_ms"], 1, ""),
    ]


def _claim_line(claim: ClaimResult) -> str:
    note = f" {claim.note}." if claim.note else ""
    return f"- {claim.claim.text}: **{claim.verdict}**. {claim.subject}: {claim.measured}.{note}"


def _claim_to_json(claim: ClaimResult) -> dict[str, Any]:
    keys = ("subject", "measured", "verdict", "note", "value", "low", "high")
    return {"claim": claim.claim.text, **{key: jsonable(getattr(claim, key)) for key in keys}}


def _share(row: dict[str, Any], metric: str) -> str:
    low, high = row[f"{metric}_low"], row[f"{metric}_high"]
    if pd.isna(low):
        return percent(row[metric], unit="")
    return with_interval(row[metric], (low, high), unit="")


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
