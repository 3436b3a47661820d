"""The plain words: leader, chance, cost and initialisation."""

import pytest

from core.reporting.verdict import (
    baselines_sentence,
    initialisation_note,
    leader_sentence,
    leak_badge,
    trust_counts,
    unbeaten_baselines,
)

TITLES = {"cnn": "CNN", "resnet50": "ResNet50", "mobilenetv2": "MobileNetV2"}


def figures(macro_f1, latency_ms=None, **cost):
    interval = {"low": macro_f1 - 0.05, "high": macro_f1 + 0.05, "level": 0.95}
    return {
        "macro_f1": macro_f1,
        "n": 225,
        "intervals": {"macro_f1": interval},
        "cost": {"latency_ms": latency_ms, **cost},
    }


def pair(a, b, verdict, p_holm):
    return {"a": a, "b": b, "verdict": verdict, "p_holm": p_holm, "draws": 2000}


THREE = {
    "cnn": figures(0.80, latency_ms=1.0, size_mb=2.0, train_s=1200),
    "resnet50": figures(0.86, latency_ms=27, size_mb=47, train_s=7300),
    "mobilenetv2": figures(0.871, latency_ms=3.42, size_mb=4.4, train_s=72),
}


def test_lead_over_all_says_so_with_its_cost():
    comparisons = [
        pair("cnn", "mobilenetv2", "b better", 0.0004),
        pair("mobilenetv2", "resnet50", "a better", 0.012),
    ]
    verdict = leader_sentence(THREE, comparisons, TITLES)
    assert verdict.sentence == (
        "MobileNetV2 leads on macro-F1 with 87.1\u202f% (95% interval 82.1 to 92.1, n = 225): more "
        "than chance explains over ResNet50 (by 1.1 points, corrected p = 0.012) and CNN (by 7.1 "
        "points, corrected p < 0.001)."
    )
    assert verdict.cost == (
        "It costs 3.4 ms an image, 4.4 MB and 72 s of training; the quickest, CNN, takes 1.0 ms "
        "an image and scores 7.1 points lower."
    )
    assert verdict.basis.startswith("Macro-F1 on the test images (n = 225)")
    assert "swaps whole patients, 2,000 draws" in verdict.basis
    assert "over 2 pairs" in verdict.basis


def test_lead_over_only_some():
    comparisons = [
        pair("cnn", "mobilenetv2", "b better", 0.003),
        pair("resnet50", "mobilenetv2", "no difference shown", 0.42),
    ]
    sentence = leader_sentence(THREE, comparisons, TITLES).sentence
    assert (
        "more than chance explains over CNN (by 7.1 points, corrected p = 0.003), but " in sentence
    )
    assert "over ResNet50 (by 1.1 points, corrected p = 0.42) no difference is shown" in sentence


def test_lead_over_none_may_be_chance():
    comparisons = [
        pair("cnn", "mobilenetv2", "no difference shown", 0.07),
        pair("resnet50", "mobilenetv2", "no difference shown", 0.42),
    ]
    sentence = leader_sentence(THREE, comparisons, TITLES).sentence
    assert "may be chance" in sentence
    assert "leads" not in sentence
    assert "more than chance explains" not in sentence


def test_a_verdict_for_the_other_model_is_no_lead():
    two = {name: THREE[name] for name in ("cnn", "mobilenetv2")}
    sentence = leader_sentence(two, [pair("cnn", "mobilenetv2", "a better", 0.01)], TITLES).sentence
    assert "more than chance explains" not in sentence


def test_untested_pairs_are_named():
    sentence = leader_sentence(THREE, [], TITLES).sentence
    assert "whether its lead over ResNet50 and CNN is more than chance was not tested" in sentence


def test_ties_have_no_leader():
    tied = {"cnn": figures(0.85, latency_ms=1), "resnet50": figures(0.85, latency_ms=27)}
    verdict = leader_sentence(tied, [], TITLES)
    assert verdict.sentence.startswith(
        "CNN and ResNet50 share the highest macro-F1, 85.0\u202f% (95%"
    )
    assert verdict.cost == "CNN costs 1.0 ms an image; ResNet50 costs 27 ms an image."


def test_one_model_none_and_missing_parts():
    one = leader_sentence({"cnn": {"macro_f1": 0.8}}, [], {})
    assert one.sentence == "cnn is the only model here: macro-F1 80.0\u202f%."
    assert one.cost == "What it costs was not measured."
    assert "on the validation images" in leader_sentence(THREE, [], TITLES, part="validation").basis
    assert "Holm" not in one.basis
    assert "No model has been measured" in leader_sentence({}, [], {}).sentence
    undefined = {"macro_f1": 0.8, "intervals": {"macro_f1": {"low": None}}, "cost": None}
    assert "80.0\u202f%." in leader_sentence({"cnn": undefined}, [], TITLES).sentence


def test_the_quickest_leader_and_an_unmeasured_rival():
    two = {"cnn": figures(0.9, latency_ms=1.0), "resnet50": figures(0.8, latency_ms=27)}
    assert "no other model here is quicker" in leader_sentence(two, [], TITLES).cost
    two["resnet50"]["cost"] = {}
    assert "quicker" not in leader_sentence(two, [], TITLES).cost


def test_synthetic_comes_first():
    sentence = leader_sentence(THREE, [], TITLES, synthetic=True).sentence
    assert sentence.startswith("SYNTHETIC: measured on drawn phantoms")


def test_mixed_initialisations_are_said_with_the_control():
    init = {
        "cnn": "scratch",
        "resnet50": "random",
        "mobilenetv2": "imagenet",
        "mobilenetv2_random": "random",
    }
    titles = TITLES | {"mobilenetv2_random": "MobileNetV2 (random weights)"}
    assert initialisation_note(init, titles) == (
        "Training started ResNet50 from random weights and MobileNetV2 from ImageNet weights, so "
        "the pair ResNet50/MobileNetV2 compares initialisations as much as architectures; "
        "MobileNetV2 (random weights) is the control, and set beside it ResNet50 shows the "
        "architecture."
    )
    del init["mobilenetv2_random"]
    assert "control" not in initialisation_note(init, titles)


def test_equal_initialisations_need_no_note():
    assert initialisation_note({"cnn": "scratch", "mobilenetv2": "imagenet"}, TITLES) is None
    same = {"resnet50": "imagenet", "mobilenetv2": "imagenet", "mobilenetv2_random": "random"}
    assert initialisation_note(same, TITLES) is None
    assert initialisation_note({}, TITLES) is None
    from_file = initialisation_note({"resnet50": "file:r.h5", "mobilenetv2": "imagenet"}, TITLES)
    assert "the weights of r.h5" in from_file


FLOORS = {
    "histogram": {"title": "Histogram", "kind": "pixel", "accuracy": 0.76, "macro_f1": 0.70},
    "files": {"title": "Files", "kind": "metadata", "accuracy": 0.55, "macro_f1": 0.72},
}


def test_a_floor_is_beaten_on_accuracy_and_on_macro_f1_or_not_at_all():
    above = {"accuracy": 0.77, "macro_f1": 0.73}
    assert unbeaten_baselines(above, FLOORS) == []
    assert baselines_sentence(above, FLOORS) == (
        "Above every shortcut floor; the highest are accuracy 76.0\u202f% by Histogram and "
        "macro-F1 72.0\u202f% by Files."
    )
    assert unbeaten_baselines({"accuracy": 0.76, "macro_f1": 0.73}, FLOORS) == [
        "Histogram (accuracy 76.0\u202f%)"
    ]
    assert unbeaten_baselines({"accuracy": 0.99, "macro_f1": 0.71}, FLOORS) == [
        "Files (macro-F1 72.0\u202f%)"
    ]
    assert baselines_sentence(above, {}) == ""


@pytest.mark.parametrize(
    ("leakage", "words"),
    [
        (None, ""),
        ({"images": 0, "share": 0.0}, ""),
        ({"images": 99, "share": 0.44}, "44\u202f% of test images share a patient with training"),
        (
            {"images": 99, "share": 0.44, "by_patient": 98, "exact": 1},
            "44\u202f% of test images share a patient with training",
        ),
        (
            {"images": 1, "share": 0.0044, "by_patient": 0, "exact": 1},
            "0.4\u202f% of test images have a copy in training",
        ),
    ],
)
def test_what_leaks_in_a_few_words(leakage, words):
    assert leak_badge(leakage) == (f"LEAKS: {words}" if words else "")


def test_checks_are_counted_by_status():
    statuses = ["passed", "failed", "not done", "failed"]
    assert trust_counts(statuses) == "passes 1 of 4 checks, fails 2, 1 not done"
    assert trust_counts(["passed"] * 3) == "passes 3 of 3 checks"
