"""The plain words: leader, chance, cost and initialisation."""

import pytest

from core.reporting.verdict import (
    baselines_sentence,
    initialisation_note,
    leader_sentence,
    leak_badge,
    reliance_sentence,
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
        "MobileNetV2 has the highest macro-F1 (87\u202f%). It clearly beats ResNet50 and CNN."
    )
    assert verdict.cost == (
        "It takes 3.4 ms per image, 4.4 MB and 72 s of training; the fastest, CNN, takes 1.0 ms "
        "per image and scores 7.1 points lower."
    )
    assert verdict.basis.startswith("Macro-F1 on 225 test images, 95\u202f% CI")
    assert "patient-level permutation test (2,000 draws) gives p < 0.05" in verdict.basis
    assert "over 2 pairs" in verdict.basis


def test_a_tie_in_front_is_said_and_who_is_clearly_beaten():
    comparisons = [
        pair("cnn", "mobilenetv2", "b better", 0.003),
        pair("resnet50", "mobilenetv2", "no difference shown", 0.42),
    ]
    assert leader_sentence(THREE, comparisons, TITLES).sentence == (
        "MobileNetV2 and ResNet50 are tied for best (macro-F1 86 to 87\u202f%). The first "
        "clearly beats CNN."
    )


def test_lead_over_none_is_a_tie_of_all():
    comparisons = [
        pair("cnn", "mobilenetv2", "no difference shown", 0.07),
        pair("resnet50", "mobilenetv2", "no difference shown", 0.42),
    ]
    assert leader_sentence(THREE, comparisons, TITLES).sentence == (
        "MobileNetV2, ResNet50 and CNN are tied for best (macro-F1 80 to 87\u202f%)."
    )


@pytest.mark.parametrize("beaten", [0, 2, 4, 5])
def test_many_models_are_counted_and_not_named(beaten):
    many = {f"m{k}": figures(0.9 - k / 100, latency_ms=1) for k in range(9)}
    rows = [
        pair("m0", f"m{k}", "a better" if k > 8 - beaten else "no difference shown", 0.1)
        for k in range(1, 9)
    ]
    sentence = leader_sentence(many, rows, {}).sentence
    low = f"macro-F1 {82 + beaten} to 90\u202f%"
    if not beaten:
        assert sentence == (
            f"No model is clearly best: all 9 are statistically tied, m0 in front ({low})."
        )
    else:
        whom = "m7 and m8" if beaten == 2 else f"{beaten} others"
        assert sentence == (
            f"m0 is in front, but {9 - beaten} of 9 models are statistically tied ({low}). It "
            f"clearly beats {whom}."
        )


def test_a_verdict_for_the_other_model_is_no_lead():
    two = {name: THREE[name] for name in ("cnn", "mobilenetv2")}
    sentence = leader_sentence(two, [pair("cnn", "mobilenetv2", "a better", 0.01)], TITLES).sentence
    assert "beats" not in sentence and "tied" in sentence


def test_untested_pairs_are_named():
    assert leader_sentence(THREE, [], TITLES).sentence == (
        "MobileNetV2 has the highest macro-F1 (87\u202f%). Whether it really beats ResNet50 and "
        "CNN was not tested."
    )


def test_ties_have_no_leader():
    tied = {"cnn": figures(0.85, latency_ms=1), "resnet50": figures(0.85, latency_ms=27)}
    verdict = leader_sentence(tied, [], TITLES)
    assert verdict.sentence == (
        "CNN and ResNet50 have the same macro-F1, 85.0\u202f% (95\u202f% CI 80.0 to 90.0, "
        "225 images)."
    )
    assert verdict.cost == "CNN takes 1.0 ms per image; ResNet50 takes 27 ms per image."


def test_one_model_none_and_missing_parts():
    one = leader_sentence({"cnn": {"macro_f1": 0.8}}, [], {})
    assert one.sentence == "cnn is the only model here: macro-F1 80.0\u202f%."
    assert one.cost == "Time and size were not measured."
    assert "225 validation images" in leader_sentence(THREE, [], TITLES, part="validation").basis
    assert one.basis == "Macro-F1 on the test images."
    assert "No model has been measured" in leader_sentence({}, [], {}).sentence
    undefined = {"macro_f1": 0.8, "intervals": {"macro_f1": {"low": None}}, "cost": None}
    assert "80.0\u202f%." in leader_sentence({"cnn": undefined}, [], TITLES).sentence


def test_the_fastest_leader_and_an_unmeasured_rival():
    two = {"cnn": figures(0.9, latency_ms=1.0), "resnet50": figures(0.8, latency_ms=27)}
    assert "no other model here is faster" in leader_sentence(two, [], TITLES).cost
    two["resnet50"]["cost"] = {}
    assert "faster" not in leader_sentence(two, [], TITLES).cost


def test_a_leak_is_in_the_sentence_itself():
    leakage = {"images": 99, "share": 0.44}
    sentence = leader_sentence(THREE, [], TITLES, leakage=leakage).sentence
    assert sentence.startswith(
        "Inflated: 44\u202f% of test images share a patient with training. MobileNetV2 has"
    )
    clean = leader_sentence(THREE, [], TITLES, leakage={"images": 0, "share": 0.0}).sentence
    assert clean.startswith("MobileNetV2 has")


def external(n, **accuracy):
    return {"n": n, "models": {model: {"accuracy": value} for model, value in accuracy.items()}}


def test_what_fails_outside_is_said_first():
    checks = {"external": "failed", "leakage": "passed", "probe": "failed"}
    far = [external(129, cnn=0.163, resnet50=0.22, control=0.9)]
    said = reliance_sentence(checks, far, ["cnn", "resnet50"])
    assert said.status == "failed"
    assert said.sentence == (
        "Do not rely on it outside this data set: 16 to 22\u202f% accuracy on 129 external images. "
        "2 of 3 checks failed."
    )
    two = reliance_sentence(checks, [*far, external(1000, cnn=None, resnet50=0.2)], ["resnet50"])
    assert "20 to 22\u202f% accuracy on 1,129 external images from 2 sets" in two.sentence


@pytest.mark.parametrize(
    ("checks", "far", "sentence", "status"),
    [
        ({"external": "passed"}, [external(50, cnn=0.8)],
         "It holds outside this data set: 80\u202f% accuracy on 50 external images. "
         "All 1 checks passed.", "passed"),
        ({"external": "not done", "probe": "passed"}, [],
         "Not tested on images from other hospitals. No check failed; 1 of 2 not done.",
         "not done"),
        ({"external": "failed"}, [{"n": 9, "models": {"cnn": {"per_class": {}}}}],
         "Do not rely on it outside this data set. 1 of 1 checks failed.", "failed"),
    ],
)  # fmt: skip
def test_what_holds_and_what_was_not_tested(checks, far, sentence, status):
    said = reliance_sentence(checks, far, ["cnn"])
    assert (said.sentence, said.status) == (sentence, status)


def test_synthetic_comes_first():
    sentence = leader_sentence(THREE, [], TITLES, synthetic=True).sentence
    assert sentence.startswith("Drawn phantoms, no patients")


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
