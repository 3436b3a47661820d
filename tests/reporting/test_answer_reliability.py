"""What an answer is worth by the test part, and agreement in plain words."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from core.reporting.answer_reliability import agreement_sentence, answer_reliability

NAMES = ("covid", "normal", "pneumonia")


@pytest.mark.parametrize(
    ("predicted", "sentence"),
    [
        (["normal"], "M1 says normal."),
        (["normal", "normal"], "Both say normal."),
        (["normal", "covid"], "The models disagree: M1 says normal, M2 says covid."),
        (["normal"] * 3, "All three say normal."),
        (["covid", "normal", "covid"], "Two of three say covid; M2 says normal."),
        (
            ["covid", "normal", "pneumonia"],
            "The models disagree: M1 says covid, M2 says normal, M3 says pneumonia.",
        ),
        (["covid"] * 4, "All four say covid."),
        (["normal", "covid", "normal", "normal"], "Three of four say normal; M2 says covid."),
        (
            ["covid", "covid", "normal", "pneumonia"],
            "Two of four say covid; M3 says normal, M4 says pneumonia.",
        ),
        (
            ["covid", "covid", "normal", "normal"],
            "The models disagree: M1 and M2 say covid, M3 and M4 say normal.",
        ),
        ([], "No model could answer."),
    ],
)
def test_agreement_in_plain_words(predicted: list[str], sentence: str) -> None:
    said = [
        SimpleNamespace(title=f"M{k}", predicted=name) for k, name in enumerate(predicted, start=1)
    ]
    assert agreement_sentence(said) == sentence


def test_worth_takes_sensitivity_and_precision_of_the_class_that_is_said() -> None:
    metrics = {
        "confusion_matrix": [[8, 2, 0], [4, 30, 6], [0, 5, 0]],
        "per_class": {
            "covid": {"recall": 0.8, "precision": 8 / 12},
            "normal": {"recall": 0.75, "precision": 30 / 37},
            "pneumonia": {"recall": 0.0, "precision": 0.0},
        },
        "intervals": {"recall.covid": {"low": 0.5, "high": 0.95}},
    }
    covid = answer_reliability(metrics, "covid", NAMES)
    assert (covid["sensitivity"], covid["n_true"]) == (0.8, 10)
    assert (covid["precision"], covid["n_predicted"]) == (pytest.approx(2 / 3), 12)
    assert covid["sensitivity_interval"] == (0.5, 0.95) and covid["precision_interval"] is None
    metrics["confusion_matrix"] = [[8, 2, 0], [4, 30, 0], [0, 5, 0]]
    assert answer_reliability(metrics, "pneumonia", NAMES)["precision"] is None, (
        "never said, so nothing to tell"
    )
