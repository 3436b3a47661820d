"""The report to hand over: it holds the answers, asks nothing of anywhere and tells no patient."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.datasets.phantom.generate import NOTICE, label_synthetic, make_phantom
from core.imageio.decode import Decoded
from core.inference.class_activation import class_heat, overlay
from core.reporting.scorecard import scorecard
from core.runs import artifacts
from core.runs.run import Run
from core.serving import html_report
from core.serving.guard.detector import Guard, Judgement, Neighbour
from core.serving.html_report import (
    MAX_NOTE,
    MAX_TYPED,
    RESEARCH_ONLY,
    ReportError,
    ReportImage,
    ReportOptions,
    report_file_name,
)
from core.serving.html_report_images import MAP_OPACITY
from core.serving.predict import ImagePrediction, ModelPrediction
from tests.support.runs import CLASS_NAMES, make_run

WHEN = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script>\"'><img src=http://example.org/x onerror=alert(2)>&{{789*789}}"
MARK = "refused picture"
REFUSAL = Judgement(
    False, 3.2, 1.0, "This does not look like a frontal chest X-ray: it is a colour picture."
)
TAKEN = Judgement(True, 0.8, 1.0, "It looks like a frontal chest X-ray.")
CHROMIUM_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


class Page(HTMLParser):
    """What stands in a page: tags with their attributes, and texts by the class or tag around."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.articles: list[str] = []
        self.text = ""
        self._open: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("img", "meta", "rect", "br"):
            self._open.append(tag)
        if tag == "article":
            self.articles.append("")

    def handle_startendtag(self, tag: str, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag, "every tag is closed in its place"

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if "article" in self._open:
            self.articles[-1] += data

    def images(self) -> list[tuple[str, np.ndarray, dict]]:
        """alt, pixels and what else the file says, of every picture but the scale."""
        found = []
        for tag, attrs in self.tags:
            if tag == "img" and attrs.get("class") != "scale":
                data = base64.b64decode(attrs["src"].partition("base64,")[2])
                with Image.open(io.BytesIO(data)) as image:
                    found.append((attrs["alt"], np.asarray(image), dict(image.info)))
        return found


def build_report(run, image, prediction, *, guard=None, occlusion=None, checks=None, **options):
    return html_report.build_report(
        run,
        image,
        prediction,
        ReportOptions(**options),
        guard=guard,
        occlusion=occlusion,
        checks=checks,
    )


def words(text: str) -> str:
    return re.sub(r"[ \n]+", " ", text).strip()


def percents(text: str) -> list[str]:
    return re.findall(r"\d+\.\d\u202f%", text)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("report")
    return artifacts.open_run(
        make_run(folder / "artifacts", n=60, images=False, ensemble=True, modality="xray")
    )


def one(model: str, title: str, shares, *, calibrated=None, maps=None, **more) -> ModelPrediction:
    shares = np.array(shares, float)
    own = {"precision": "f32", "input_size_px": 64, "latency_ms": 1.5} | more
    predicted = CLASS_NAMES[int(shares.argmax())]
    calibrated = None if calibrated is None else np.array(calibrated, float)
    return ModelPrediction(model, title, predicted, shares, calibrated, class_maps=maps, **own)


def class_maps(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(4, 4, 3)).astype(np.float32)


def make_answer(**changes) -> ImagePrediction:
    """Three models, one of them without calibration and one without maps, and their mean."""
    answers = (
        one("cnn", "CNN", [0.7, 0.2, 0.1], calibrated=[0.613, 0.275, 0.112], maps=class_maps(1),
            conformal_set=("covid", "normal")),
        one("resnet50", "ResNet50", [0.05, 0.15, 0.8], maps=class_maps(2)),
        one("mobilenetv2", "MobileNetV2", [0.91, 0.06, 0.03], calibrated=[0.887, 0.08, 0.033],
            conformal_set=("covid",)),
        one("ensemble", "Mean of the models", [0.553, 0.137, 0.31],
            calibrated=[0.5, 0.2, 0.3], conformal_set=CLASS_NAMES,
            members=("cnn", "resnet50", "mobilenetv2")),
    )  # fmt: skip
    near = tuple(Neighbour(f"covid/p{k}_0", "covid", f"p{k}", k / 8) for k in range(1, 6))
    answer = ImagePrediction(CLASS_NAMES, answers, {}, TAKEN, near, 0.1)
    return replace(answer, **changes)


def make_picture(**changes) -> ReportImage:
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90), dtype=np.uint8)
    decoded = replace(Decoded(pixels, 90, 60, "PNG", "L"), **changes)
    return ReportImage("Doe_Jane_1961.png", decoded, "ab" * 32)


def test_every_answer_stands_in_it_exactly(run) -> None:
    page = Page(build_report(run, make_picture(), make_answer(), created=WHEN))
    assert len(page.articles) == 4
    cnn, resnet, mobilenet, mean = map(words, page.articles)
    assert cnn.startswith("CNN says covid, 61.3\u202f%")
    assert percents(cnn)[1:4] == ["61.3\u202f%", "27.5\u202f%", "11.2\u202f%"]
    assert "Calibrated probabilities." in cnn
    assert "Not ruled out: covid or normal; the model cannot tell them apart here." in cnn
    assert resnet.startswith("ResNet50 says pneumonia, 80.0\u202f%")
    assert percents(resnet)[1:4] == ["5.0\u202f%", "15.0\u202f%", "80.0\u202f%"]
    assert "not calibrated" in resnet and "Not ruled out" not in resnet
    assert mobilenet.startswith("MobileNetV2 says covid, 88.7\u202f%")
    assert "Not ruled out: covid only." in mobilenet
    assert mean.startswith("Mean of the models says covid, 50.0\u202f%")
    assert "the model rules nothing out here" in mean
    assert "The mean of CNN, ResNet50, MobileNetV2." in mean
    text = words(page.text)
    assert "Two of three say covid; ResNet50 says pneumonia." in text
    assert TAKEN.sentence in text
    assert text.count(RESEARCH_ONLY) == 2
    assert text.startswith("Report of run demo") and text.endswith(RESEARCH_ONLY)
    for k in range(1, 6):
        assert f"covidcovid/p{k}_0{k / 8:.3f}" in text
    assert "p1 " not in text.replace("p1_0", ""), "a neighbour's patient is left out"


def test_bars_are_as_long_as_the_shares(run) -> None:
    page = Page(build_report(run, make_picture(), make_answer()))
    bars = [a["width"] for tag, a in page.tags if tag == "rect" and a["class"] == "fill"]
    assert bars[:3] == ["61.30", "27.50", "11.20"]


def test_calibration_that_puts_another_class_first_is_said(run) -> None:
    own = one("cnn", "CNN", [0.5, 0.4, 0.1], calibrated=[0.4, 0.5, 0.1])
    page = Page(build_report(run, make_picture(), make_answer(predictions=(own,))))
    assert words(page.articles[0]).startswith("CNN says covid, 40.0\u202f%")
    assert "After calibration normal has the largest." in words(page.articles[0])


def test_controls_do_not_count_in_the_agreement(run) -> None:
    answers = (
        one("cnn", "CNN", [0.8, 0.1, 0.1]),
        one("mobilenetv2", "MobileNetV2", [0.8, 0.1, 0.1]),
        one("mobilenetv2_random", "Control", [0.1, 0.1, 0.8]),
    )
    text = words(Page(build_report(run, make_picture(), make_answer(predictions=answers))).text)
    assert "Both say covid." in text and "not counted in the agreement" in text


def test_worth_is_what_the_test_part_says(run) -> None:
    """Counted anew from the predictions, apart from metrics.json."""
    page = Page(build_report(run, make_picture(), make_answer()))
    for model, article in zip(run.models, page.articles, strict=True):
        said = make_answer().of(model).predicted
        table = artifacts.load_predictions(run, model)
        true, called = table["label"] == said, table["predicted"] == said
        found = f"{100 * (true & called).sum() / true.sum():.1f}\u202f%"
        right = f"{100 * (true & called).sum() / called.sum():.1f}\u202f%"
        bounds = artifacts.load_metrics(run, model)["intervals"][f"recall.{said}"]
        interval = f"{100 * bounds['low']:.1f} to {100 * bounds['high']:.1f}"
        text = words(article)
        assert f"images of the test it finds {found} ({interval}; n = {true.sum()})." in text
        assert re.search(
            rf"Of its answers {said}, right are {right} \(.*; n = {called.sum()}\)", text
        )


def test_a_mean_that_nobody_measured_says_so(run) -> None:
    mean = one("", "Mean of the 2", [0.5, 0.3, 0.2], members=("cnn", "resnet50"))
    page = Page(build_report(run, make_picture(), make_answer(predictions=(mean,))))
    assert "Not measured: the run has no figures for it." in page.articles[0]


def test_pitfalls_that_failed_stand_in_one_line_each(run) -> None:
    checks = scorecard.build_scorecard(run)
    failed = [check for check in checks if check.status == scorecard.FAILED]
    assert failed, "the made-up run must fail something, or this tests nothing"
    text = words(Page(build_report(run, make_picture(), make_answer())).text)
    assert f"The run fails {len(failed)} of {len(checks)} checks" in text
    for check in failed:
        assert f"{check.title}: {scorecard.fault_text(run, check)}." in text
    for check in checks:
        if check.status != scorecard.FAILED and check.fault:
            assert f"{check.title}: {check.fault}" not in text


def test_identity_is_the_runs(run) -> None:
    guard = Guard.__new__(Guard)
    object.__setattr__(guard, "model", "resnet50")
    picture = make_picture(facts={"Modality": "DX"}, tags_read=("Rows", "WindowCenter"))
    html = build_report(run, picture, make_answer(), created=WHEN, guard=guard)
    text = words(Page(html).text)
    for known in (
        run.name, run.info["created"], run.info["dataset"]["title"], "covid, normal, pneumonia",
        run.info["dataset"]["fingerprint"], "keras 3.15.1", "ab" * 32, "90×60 px", "PNG, L",
        "Modality DX", "Rows, WindowCenter", "2026-03-04 05:06:07 UTC", "f32", "1.5 ms",
        "By the features of ResNet50", *run.info["dataset"]["caveats"],
    ):  # fmt: skip
        assert known in text, known


def test_hashes_of_the_model_files_are_those_of_run_json(tmp_path: Path) -> None:
    run = artifacts.open_run(make_run(tmp_path, n=30, images=False, tiny_openvino=True))
    text = Page(build_report(run, make_picture(), make_answer())).text
    for model in run.served:
        for name in artifacts.MODEL_FILES:
            assert hashlib.sha256((run.path / model / name).read_bytes()).hexdigest() in text


def test_hostile_words_stay_words(run) -> None:
    info = json.loads(json.dumps(run.info))
    info["name"] = info["dataset"]["title"] = HOSTILE
    info["dataset"]["caveats"] = [HOSTILE]
    info["display"] = dict.fromkeys(run.models, HOSTILE)
    info["class_names"] = [HOSTILE, "normal", "pneumonia"]
    own = replace(one("nobody", HOSTILE, [0.8, 0.1, 0.1]), predicted=HOSTILE)
    answer = make_answer(
        class_names=(HOSTILE, "normal", "pneumonia"),
        predictions=(replace(own, class_maps=class_maps(1), conformal_set=(HOSTILE, "normal")),),
        problems={HOSTILE: HOSTILE},
        judgement=replace(TAKEN, sentence=HOSTILE),
        neighbours=(Neighbour(HOSTILE, HOSTILE, HOSTILE, 0.1),),
    )
    picture = make_picture(facts={HOSTILE: HOSTILE}, tags_read=(HOSTILE,))
    picture = replace(picture, name=HOSTILE, sha256=HOSTILE, label=HOSTILE)
    html = build_report(
        Run(run.path, info), picture, answer, typed=HOSTILE[:MAX_TYPED],
        note=HOSTILE, show_name=True, checks=[],
    )  # fmt: skip
    page = Page(html)
    assert page.text.count(HOSTILE) > 12 and "622521" not in re.sub(r"[0-9a-f]{64}", "", page.text)
    assert_asks_for_nothing(html)


def assert_asks_for_nothing(html: str) -> None:
    """No script, no address but data, and a policy under which nothing else would load."""
    page = Page(html)
    for tag, attrs in page.tags:
        assert tag not in ("script", "link", "iframe", "object", "embed", "form", "a", "base")
        for key, value in attrs.items():
            assert not key.startswith("on") and key != "style"
            if key in ("src", "href", "srcset", "data", "action", "background", "poster"):
                assert value.startswith("data:image/"), value[:60]
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL).group(1)
    assert "url(" not in style and "@import" not in style
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    policies = [a["content"] for tag, a in page.tags if a.get("http-equiv")]
    assert policies == [
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; "
        "form-action 'none'"
    ]


def test_nothing_is_asked_of_anywhere(run) -> None:
    assert_asks_for_nothing(build_report(run, make_picture(), make_answer(), typed="x", note="y"))


def test_the_file_name_is_left_out_unless_asked_for(run) -> None:
    picture, answer = make_picture(), make_answer()
    assert "Doe" not in build_report(run, picture, answer)
    assert "Doe_Jane_1961.png" in build_report(run, picture, answer, show_name=True)
    assert report_file_name(run, WHEN) == "report-demo-20260304T050607Z.html"


def test_typed_words_stand_in_it_only_where_typed(run) -> None:
    picture, answer = make_picture(), make_answer()
    bare = build_report(run, picture, answer, created=WHEN)
    assert "Reference" not in bare and "Note" not in bare
    assert bare == build_report(run, picture, answer, created=WHEN, typed=" \n", note="\x00")
    typed = build_report(run, picture, answer, typed="Case 17", note="one\r\ntwo\x1b[31m\x00")
    assert "<dd><bdi>Case 17</bdi></dd>" in typed and "<bdi>one\ntwo[31m</bdi>" in typed
    assert "Case 17" not in typed.partition("</head>")[0], "a browser prints the title on top"


@pytest.mark.parametrize(("what", "longest"), [("typed", MAX_TYPED), ("note", MAX_NOTE)])
def test_words_that_are_too_long_are_refused(run, what: str, longest: int) -> None:
    picture, answer = make_picture(), make_answer()
    build_report(run, picture, answer, **{what: "x" * longest})
    with pytest.raises(ReportError, match=f"at most {longest:,} characters"):
        build_report(run, picture, answer, **{what: "x" * (longest + 1)})


def test_the_time_is_utc(run) -> None:
    there = WHEN.astimezone(timezone(timedelta(hours=-7)))
    assert "2026-03-04 05:06:07 UTC" in build_report(
        run, make_picture(), make_answer(), created=there
    )


def test_a_refused_picture_gets_a_notice_and_no_answers(run) -> None:
    page = Page(build_report(run, make_picture(), make_answer(judgement=REFUSAL)))
    text = words(page.text)
    assert REFUSAL.sentence in text and "is left out" in text
    assert page.articles == []
    assert len(page.images()) == 1, "the picture alone, no heat map"
    for hidden in ("61.3", "say covid", "says", "covid/p1_0", "Calibrated", "Not ruled out"):
        assert hidden not in text, hidden


def test_a_refused_picture_with_answers_is_marked_on_every_part(run) -> None:
    html = build_report(run, make_picture(), make_answer(judgement=REFUSAL), even_if_refused=True)
    page = Page(html)
    assert REFUSAL.sentence in words(page.text)
    assert len(page.articles) == 4 and all(MARK in words(text) for text in page.articles)
    answers = html.partition('<section class="answer">')[2].partition("known to be wrong")[0]
    parts = re.findall(r"<h2>.*?</h2>|<figcaption>.*?</figcaption>", answers, re.DOTALL)
    assert len(parts) == 3 + 3, "agreement, maps and neighbours; the picture and two maps"
    assert [part for part in parts if MARK not in part] == []
    assert MARK not in build_report(run, make_picture(), make_answer(), even_if_refused=True)


def test_a_run_without_a_guard_says_that_nothing_is_known(run) -> None:
    text = words(Page(build_report(run, make_picture(), make_answer(judgement=None))).text)
    assert "no guard of the run looked at it" in text
    damaged = make_answer(judgement=None, problems={"Guard": "guard.json is damaged."})
    text = words(Page(build_report(run, make_picture(), damaged)).text)
    assert text.count("guard.json is damaged.") == 1


def test_synthetic_stands_in_every_picture(run) -> None:
    pixels = make_phantom("covid", 1, 96).pixels
    picture = make_picture(pixels=pixels, synthetic=True)
    shown = Page(build_report(run, picture, make_answer())).images()
    assert len(shown) == 3 and all("SYNTHETIC" in alt for alt, _, _ in shown)
    assert np.array_equal(shown[0][1], label_synthetic(pixels))
    heat = class_heat(class_maps(1), 0)
    expected = label_synthetic(overlay(pixels, heat, MAP_OPACITY)).astype(int)
    assert np.abs(shown[1][1].astype(int) - expected).mean() < 4
    real = Page(build_report(run, make_picture(pixels=pixels), make_answer()))
    assert np.array_equal(real.images()[0][1], pixels)
    assert not any("SYNTHETIC" in alt for alt, _, _ in real.images())
    assert "(SYNTHETIC)" not in real.text and NOTICE not in real.text


def test_a_run_of_phantoms_says_that_it_knows_nothing_of_real_pictures(run) -> None:
    phantoms = Run(run.path, run.info | {"modality": "phantom"})
    text = Page(build_report(phantoms, make_picture(), make_answer())).text
    assert "what it says about a real picture means nothing" in text
    drawn = Page(build_report(phantoms, make_picture(synthetic=True), make_answer())).text
    assert "means nothing" not in drawn


def test_maps_are_for_the_class_that_is_said_and_named_by_their_method(run) -> None:
    occluded = {"mobilenetv2": class_maps(3)}
    picture = make_picture()
    html = build_report(run, picture, make_answer(), occlusion=occluded)
    _, *maps = Page(html).images()
    names = ("CNN for covid", "ResNet50 for pneumonia", "MobileNetV2 for covid", "Mean of the")
    assert len(maps) == 4 and all(n in alt for n, (alt, _, _) in zip(names, maps, strict=True))
    for (_, drawn, _), values, k in zip(
        maps, (class_maps(1), class_maps(2), class_maps(3)), (0, 2, 0), strict=False
    ):
        own, other = (
            overlay(picture.decoded.pixels, class_heat(values, c), MAP_OPACITY).astype(int)
            for c in (k, 1)
        )
        assert np.abs(drawn - own).mean() < 6 < np.abs(drawn - other).mean()
    text = words(Page(html).text)
    assert text.count("class activation map") == 2 and text.count("occlusion map") == 1
    assert "mean of its members' maps" in text and "Without a map" not in text
    text = words(Page(build_report(run, picture, make_answer())).text)
    assert "Without a map: MobileNetV2, Mean of the models." in text, "nor has a mean of all"


def test_pictures_carry_pixels_alone(run) -> None:
    for _, pixels, info in Page(build_report(run, make_picture(), make_answer())).images():
        assert set(info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density"}, info
        assert pixels.shape[:2] == (60, 90)
    large = make_picture(pixels=np.zeros((3000, 1500), np.uint8))
    shown = Page(build_report(run, large, make_answer())).images()
    assert shown[0][1].shape == (768, 384) and shown[1][1].shape == (448, 224, 3)


def test_damaged_figures_get_a_sentence(tmp_path: Path) -> None:
    run = artifacts.open_run(make_run(tmp_path, n=30, images=False, ensemble=True))
    (run.path / "cnn" / "metrics.json").write_text("{")
    page = Page(build_report(run, make_picture(), make_answer()))
    assert "cnn/metrics.json" in page.articles[0] and "it finds" in page.articles[1]
    assert "checks for known pitfalls" not in page.text


def test_printed_it_takes_one_to_three_pages(run, tmp_path: Path) -> None:
    named = os.environ.get("CHROMIUM")
    chromium = next(filter(None, map(shutil.which, [named] if named else CHROMIUM_NAMES)), None)
    if chromium is None:
        pytest.skip("No Chromium was found to print the report with.")
    page, pdf = tmp_path / "report.html", tmp_path / "report.pdf"
    tags = tuple(f"SomeRatherLongKeyword{k}" for k in range(20))
    html = build_report(
        run, make_picture(tags_read=tags), make_answer(judgement=REFUSAL), typed="Case 17",
        note="A line.\n" * 8, even_if_refused=True, occlusion={"mobilenetv2": class_maps(3)},
    )  # fmt: skip
    page.write_text(html, "utf-8")
    profile = f"--user-data-dir={tmp_path / 'profile'}"
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer", profile]
    command = [chromium, *options, f"--print-to-pdf={pdf}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=120)
    data = pdf.read_bytes()
    assert 1 <= len(re.findall(rb"/Type\s*/Page\b", data)) <= 3
    sizes = set(re.findall(rb"/MediaBox\s*\[([^\]]*)\]", data))
    assert {tuple(round(float(x)) for x in size.split()) for size in sizes} == {(0, 0, 595, 842)}
