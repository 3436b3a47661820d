"""The page Predict: one picture on every model, from bytes to words."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from streamlit.testing.v1 import AppTest

from core import artifacts, inference
from core.explain import class_heat, overlay
from core.images import ImageError, decode_image, resize_square
from core.phantom import NOTICE, label_synthetic, make_phantom
from dashboard.predicting import (
    ModelAnswer,
    agreement_sentence,
    answer_picture,
    asked_models,
    mean_answer,
    mean_probabilities,
    shown_pixels,
    worth,
)
from tests.factory import make_run
from tests.shown import difference, record_media, shown_pictures

APP = Path(__file__).parents[1] / "dashboard" / "app.py"
NAMES = ("covid", "normal", "pneumonia")


@dataclass
class Stub:
    """A served model that always answers the same, and keeps what it was asked."""

    probabilities: tuple[float, ...]
    class_names: tuple[str, ...] = NAMES
    input_size_px: int = 48
    precision: str = "f32"
    asked: list | None = None

    def predict(self, pixels: np.ndarray) -> SimpleNamespace:
        self.asked = [*(self.asked or []), pixels]
        maps = np.zeros((1, 3, 3, len(self.class_names)), np.float32)
        return SimpleNamespace(
            probabilities=np.array([self.probabilities], np.float32), class_maps=maps
        )


def png(pixels: np.ndarray, **text: str) -> bytes:
    """The bytes of a PNG with these text chunks."""
    info, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    for key, value in text.items():
        info.add_text(key, value)
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


PIXELS = make_phantom("covid", 1, 160).pixels
PHANTOM = png(PIXELS)


def worth_cards(app: AppTest) -> list[str]:
    return [m.value for m in app.main.markdown if "** says **" in m.value]


def said(*predicted: str) -> list[ModelAnswer]:
    return [
        ModelAnswer(
            f"m{k}", f"M{k}", np.eye(3)[NAMES.index(p)], p, np.zeros((1, 1, 3)), 1, "f32", 8
        )
        for k, p in enumerate(predicted, start=1)
    ]


# ----------------------------------------------------------------------------- from bytes


def test_every_model_is_asked_with_the_pixels_of_its_own_size() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (90, 200), dtype=np.uint8)
    served = {"a": Stub((0.2, 0.5, 0.3)), "b": Stub((0.7, 0.2, 0.1), input_size_px=64)}
    answer = answer_picture(png(pixels), "x.png", served, NAMES, {"a": "A"})
    assert [own.predicted for own in answer.answers] == ["normal", "covid"]
    assert [own.title for own in answer.answers] == ["A", "b"]
    assert (answer.width, answer.height, answer.format) == (200, 90, "PNG")
    for stub in served.values():
        expected = resize_square(pixels, stub.input_size_px)[None]
        np.testing.assert_array_equal(stub.asked[0], expected)
    np.testing.assert_allclose(mean_probabilities(answer.answers), [0.45, 0.35, 0.2], atol=1e-6)


def test_the_first_largest_probability_is_the_answer() -> None:
    answer = answer_picture(PHANTOM, "x", {"a": Stub((0.2, 0.4, 0.4))}, NAMES)
    assert answer.answers[0].predicted == "normal"


def test_a_model_with_other_classes_is_named_and_not_shown() -> None:
    served = {"a": Stub((0.5, 0.5), class_names=("x", "y")), "b": Stub((1, 0, 0))}
    answer = answer_picture(PHANTOM, "x", served, NAMES)
    assert [own.model for own in answer.answers] == ["b"]
    assert "x, y" in answer.problems["a"]


def test_what_is_no_picture_is_refused_in_one_sentence() -> None:
    with pytest.raises(ImageError, match="no picture"):
        answer_picture(b"hello, this is text", "x.png", {"a": Stub((1, 0, 0))}, NAMES)


def test_large_pictures_are_shown_smaller_in_the_same_shape() -> None:
    assert shown_pixels(np.zeros((1000, 500), np.uint8), 200).shape == (200, 100)
    assert shown_pixels(np.zeros((10, 20), np.uint8), 200).shape == (10, 20)


# ----------------------------------------------------------------------------- words


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
    assert agreement_sentence(said(*predicted)) == sentence


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
    covid = worth(metrics, "covid", NAMES)
    assert (covid["sensitivity"], covid["n_true"]) == (0.8, 10)
    assert (covid["precision"], covid["n_predicted"]) == (pytest.approx(2 / 3), 12)
    assert covid["sensitivity_interval"] == (0.5, 0.95) and covid["precision_interval"] is None
    metrics["confusion_matrix"] = [[8, 2, 0], [4, 30, 0], [0, 5, 0]]
    assert worth(metrics, "pneumonia", NAMES)["precision"] is None, "never said, so nothing to tell"


# ----------------------------------------------------------------------------- page


def open_page(page: str = "predict") -> AppTest:
    app = AppTest.from_file(APP, default_timeout=60).run()
    return app.switch_page(f"app_pages/{page}.py").run()


def upload(app: AppTest, name: str, data: bytes) -> AppTest:
    app.file_uploader(key="predict_upload").set_value((name, data, "application/octet-stream"))
    return app.run()


def sentences(app: AppTest) -> list[str]:
    return [s.value for s in app.main.subheader]


def test_page_says_first_that_it_answers_for_any_picture(demo_app: Path) -> None:
    app = open_page()
    assert not app.exception
    words = [m.value for m in app.main.markdown if not m.value.startswith(":")]
    assert "These models answer for any picture, also one that is no chest X-ray" in words[0]
    assert "Research use" in words[0]


def test_upload_gives_three_answers_an_agreement_line_a_map_and_times(demo_app: Path) -> None:
    app = upload(open_page(), "somebody.dat", PHANTOM)
    assert not app.exception and not app.error
    assert len(sentences(app)) == 1 and sentences(app)[0].endswith(".")
    cards = worth_cards(app)
    for card, title in zip(cards, ("CNN", "ResNet50", "MobileNetV2", "Mean of the 3"), strict=True):
        assert f"**{title}" in card and " ms" in card
    for card in cards[:3]:
        assert "f32, 64 px" in card and card.count("n = ") == 2
    assert "Not measured" in cards[3]
    assert len(app.image) == 1 and len(app.get("plotly_chart")) == 1
    alt = app.get("plotly_chart")[0].proto.alt
    assert alt.count("covid") == 4 and "Mean of the 3" in alt


def test_the_cards_say_what_the_models_say(demo_app: Path) -> None:
    app = upload(open_page(), "a.png", PHANTOM)
    run = artifacts.open_run(demo_app / "demo")
    pixels = resize_square(np.asarray(Image.open(io.BytesIO(PHANTOM))), 64)[None]
    for card, model in zip(worth_cards(app), run.models, strict=False):
        probabilities = inference.load_model(run, model).predict(pixels).probabilities[0]
        name = run.class_names[int(probabilities.argmax())]
        assert f"says **{name}** {100 * probabilities.max():.1f}" in card


def test_results_stay_when_going_to_another_page_and_back(demo_app: Path) -> None:
    app = upload(open_page(), "a.png", PHANTOM)
    before = (sentences(app), worth_cards(app))
    app.switch_page("app_pages/errors.py").run()
    app.switch_page("app_pages/predict.py").run()
    assert (sentences(app), worth_cards(app)) == before
    next(b for b in app.button if b.label == "Clear").click().run()
    assert not sentences(app) and not app.exception


@pytest.mark.parametrize(
    ("name", "data", "word"),
    [
        ("text.png", b"this is no picture at all", "no picture"),
        ("cut.png", PHANTOM[:500], "damaged or cut off"),
        ("empty.png", b"", "empty"),
        ("scan.dcm", bytes(128) + b"DICM" + bytes(300), "DICOM"),
        ("tiny.png", png(np.zeros((4, 4), np.uint8)), "too small"),
    ],
)
def test_wrong_files_get_one_sentence(demo_app: Path, name: str, data: bytes, word: str) -> None:
    app = upload(open_page(), name, data)
    assert not app.exception and not sentences(app)
    assert len(app.error) == 1
    shown = app.error[0].value.replace("\\", "")
    assert shown.startswith(f"{name}: ") and word in shown and "Traceback" not in shown


@pytest.mark.parametrize("label", NAMES)
def test_a_phantom_is_drawn_and_marked_synthetic(demo_app: Path, label: str) -> None:
    app = open_page()
    app.segmented_control(key="predict_source").set_value("phantom").run()
    app.button(key=f"phantom_{label}").click().run()
    assert not app.exception and sentences(app)
    assert "SYNTHETIC" in app.image[0].proto.imgs[0].alt
    assert any(f"drawn as **{label}**" in m.value for m in app.markdown)


def test_phantoms_say_in_their_files_that_they_are_drawn(demo_root: Path) -> None:
    file = next((demo_root / "data" / "phantom" / "covid").glob("*.png"))
    assert decode_image(file.read_bytes()).synthetic
    assert not decode_image(PHANTOM).synthetic
    assert not decode_image(png(PIXELS, Comment=NOTICE)).synthetic


def test_an_uploaded_phantom_is_marked_synthetic_on_a_run_of_xrays(
    empty_app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(empty_app, models=["cnn"], n=30, images=False, modality="xray")
    media = record_media(monkeypatch)
    for file, drawn in ((PHANTOM, False), (png(PIXELS, Synthetic=NOTICE), True)):
        app = upload(open_page(), "a.png", file)
        assert not app.exception and len(app.image) == 1
        assert any("SYNTHETIC" in m.value for m in app.main.markdown) == drawn
        assert ("SYNTHETIC" in app.image[0].proto.imgs[0].alt) == drawn
        expected = label_synthetic(PIXELS) if drawn else PIXELS
        assert difference(shown_pictures(app, media)[0], expected) < 2


def test_an_uploaded_picture_is_not_called_synthetic(demo_app: Path) -> None:
    app = upload(open_page(), "a.png", PHANTOM)
    assert "SYNTHETIC" not in app.image[0].proto.imgs[0].alt
    assert "learned from drawn phantoms" in app.warning[0].value


def test_a_test_image_comes_with_its_label(demo_app: Path) -> None:
    app = open_page()
    app.segmented_control(key="predict_source").set_value("test").run()
    box = app.selectbox(key="predict_test_image")
    assert all("(true: " in option for option in box.options)
    box.select_index(0).run()
    assert not app.exception and sentences(app)
    assert any("**covid** in its source" in m.value for m in app.markdown)


def test_a_test_image_can_be_taken_again_after_another_picture(demo_app: Path) -> None:
    app = open_page()
    app.segmented_control(key="predict_source").set_value("test").run()
    app.selectbox(key="predict_test_image").select_index(0).run()
    app.segmented_control(key="predict_source").set_value("phantom").run()
    app.button(key="phantom_normal").click().run()
    app.segmented_control(key="predict_source").set_value("test").run()
    assert app.selectbox(key="predict_test_image").value is None
    app.selectbox(key="predict_test_image").select_index(0).run()
    assert any("**covid** in its source" in m.value for m in app.markdown)


def test_the_map_is_of_the_chosen_model_and_class(demo_app: Path) -> None:
    app = upload(open_page(), "a.png", PHANTOM)
    first = app.image[0].proto.imgs[0].url
    app.segmented_control(key="predict_heat_model").set_value("resnet50").run()
    app.segmented_control(key="predict_heat_class").set_value("pneumonia").run()
    caption = next(c.value for c in app.caption if "ResNet50 finds" in c.value)
    assert "pneumonia" in caption and app.image[0].proto.imgs[0].url != first
    second = app.image[0].proto.imgs[0].url
    app.slider(key="predict_opacity").set_value(100).run()
    assert app.image[0].proto.imgs[0].url != second


def test_the_map_lies_over_the_picture_as_the_model_saw_it(
    demo_app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = record_media(monkeypatch)
    app = upload(open_page(), "a.png", PHANTOM)
    app.slider(key="predict_opacity").set_value(80).run()
    run = artifacts.open_run(demo_app / "demo")
    served = {"cnn": inference.load_model(run, "cnn")}
    own = answer_picture(PHANTOM, "a.png", served, run.class_names).answers[0]
    heat = class_heat(own.class_maps, run.class_names.index(own.predicted))
    shown = shown_pictures(app, media)[0]
    assert difference(shown, overlay(PIXELS, heat, 0.8)) < 2
    for turned in (heat[::-1], heat[:, ::-1], heat.T, 0 * heat):
        assert difference(shown, overlay(PIXELS, turned, 0.8)) > 4


@pytest.mark.parametrize(("damage", "words"), [("absent", "does not hold"), ("changed", "differs")])
def test_weights_that_are_absent_or_changed_get_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str, words: str
) -> None:
    run_dir = make_run(
        tmp_path / "artifacts", models=["cnn", "mobilenetv2"], n=30, images=False,
        tiny_openvino=True,
    )  # fmt: skip
    weights = run_dir / "cnn" / "model.bin"
    if damage == "absent":
        weights.unlink()
    else:
        weights.write_bytes(bytes(weights.stat().st_size))
    monkeypatch.setenv("CXR_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("CXR_DATA", str(tmp_path / "data"))
    app = upload(open_page(), "a.png", PHANTOM)
    assert not app.exception
    assert sum(words in w.value for w in app.warning) == 1
    assert sentences(app)[0].startswith("MobileNetV2 says")
    assert len(worth_cards(app)) == 1, "one model has no mean"


def test_damaged_files_are_named_where_they_are_needed(empty_app: Path) -> None:
    run_dir = make_run(empty_app, models=["cnn"], n=30, images=False, tiny_openvino=True)
    (run_dir / "cnn" / "metrics.json").write_text('{"n": null}')
    (run_dir / "manifest.csv").write_text("image_id\nx\n")
    app = upload(open_page(), "a.png", PHANTOM)
    assert not app.exception and sentences(app)[0].startswith("CNN says")
    assert "demo/cnn/metrics.json is damaged" in worth_cards(app)[0]
    app.segmented_control(key="predict_source").set_value("test").run()
    assert not app.exception and "demo/manifest.csv is damaged: it lacks" in app.info[0].value
    app.segmented_control(key="predict_source").set_value("upload").run()
    assert not app.exception and sentences(app)[0].startswith("CNN says")


def test_a_control_answers_but_has_no_part_in_the_mean(empty_app: Path) -> None:
    models = ["resnet50", "mobilenetv2", "mobilenetv2_random"]
    make_run(empty_app, models=models, n=30, images=False, tiny_openvino=True)
    cards = worth_cards(upload(open_page(), "a.png", PHANTOM))
    assert len(cards) == 4 and "**Mean of the 2**" in cards[-1]


def a_run(members: dict[str, list[str]], *singles: str) -> artifacts.Run:
    kind = dict.fromkeys(singles, "single") | dict.fromkeys(members, "ensemble")
    info = {"models": [*singles, *members], "kind": kind, "members": members}
    return artifacts.Run(Path("r"), info | {"class_names": NAMES, "display": {"all": "All"}})


@pytest.mark.parametrize(
    ("members", "chosen", "answered", "model", "of"),
    [
        ({}, ["m1", "m2"], 2, None, ("M1", "M2")),
        ({}, ["m1"], 1, None, None),
        # What was not chosen counts where it is the same mean.
        ({"all": ["m1", "m2"]}, ["m1", "m2"], 2, "all", ("M1", "M2")),
        ({"all": ["m1", "m2"]}, ["m1", "m2", "m3"], 3, None, ("M1", "M2", "M3")),
        ({"all": ["m1", "m2"]}, ["all", "m3"], 3, "all", ("M1", "M2")),
        # A member that cannot answer takes the ensemble away.
        ({"all": ["m1", "m2", "m3"]}, ["all"], 2, None, ("M1", "M2")),
        ({"few": ["m1", "m2"], "all": ["m1", "m2", "m3"]}, ["few"], 3, "few", ("M1", "M2")),
    ],
)
def test_one_rule_says_which_mean_is_shown(members, chosen, answered, model, of):
    run = a_run(members, "m1", "m2", "m3")
    mean = mean_answer(run, chosen, said("covid", "normal", "normal")[:answered])
    if of is None:
        assert mean is None
        return
    assert (mean.model, mean.members) == (model, of)
    parts = [own.probabilities for own in said("covid", "normal", "normal") if own.title in of]
    np.testing.assert_allclose(mean.probabilities, np.mean(parts, axis=0))
    assert mean.title == (run.title(model) if model else f"Mean of the {len(of)}")
    assert mean.latency_ms == len(of)


def test_an_ensemble_asks_its_members_and_has_no_file() -> None:
    run = a_run({"all": ["m1", "m2"]}, "m1", "m2", "m3")
    assert asked_models(run, ["all"]) == ["m1", "m2"]
    assert asked_models(run, ["all", "m3"]) == ["m1", "m2", "m3"]
    assert asked_models(run, ["m3"]) == ["m3"]


def test_an_ensemble_is_its_members_mean_with_figures_of_its_own(
    empty_app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_run(
        empty_app, n=60, images=False, tiny_openvino=True, ensemble=True, modality="xray"
    )
    run = artifacts.open_run(path)
    loaded = []
    load = inference.load_model
    monkeypatch.setattr(
        inference, "load_model", lambda run, name, **more: loaded.append(name) or load(run, name)
    )
    app = upload(open_page(), "a.png", PHANTOM)
    assert not app.exception and not app.warning
    cards = worth_cards(app)
    assert len(cards) == 4 and "ensemble" not in loaded
    served = {m: load(run, m) for m in run.served}
    answers = answer_picture(PHANTOM, "a", served, run.class_names).answers
    mean = mean_probabilities(answers)
    name = run.class_names[int(mean.argmax())]
    assert f":gray[★] **Mean of the models** says **{name}** {100 * mean.max():.1f}" in cards[3]
    assert "Mean of CNN, ResNet50, MobileNetV2" in cards[3] and "Not measured" not in cards[3]
    tested = worth(artifacts.load_metrics(run, "ensemble"), name, run.class_names)
    assert f"(n = {tested['n_true']})" in cards[3]
    app.sidebar.get("pills")[0].set_value(["ensemble"]).run()
    assert not app.exception and len(worth_cards(app)) == 4


def test_no_weights_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_run(tmp_path / "artifacts", models=["cnn"], n=30, images=False)
    monkeypatch.setenv("CXR_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("CXR_DATA", str(tmp_path / "data"))
    app = upload(open_page(), "a.png", PHANTOM)
    assert not app.exception and sentences(app) == ["No model could answer."]
    assert len(app.image) == 1 and not worth_cards(app)


@pytest.mark.parametrize("damage", ["absent", "run.json"])
def test_page_without_a_run_that_can_be_read(tmp_path, monkeypatch, damage: str) -> None:
    monkeypatch.setenv("CXR_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("CXR_DATA", str(tmp_path / "data"))
    if damage == "run.json":
        run_dir = make_run(tmp_path / "artifacts", models=["cnn"], n=30, images=False)
        (run_dir / "run.json").write_text("{")
    app = open_page()
    assert not app.exception and len(app.info) == 1 and not app.file_uploader
