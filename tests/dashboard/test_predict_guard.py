"""The page Predict: what belongs here, what was alike in training, and the report to hand over."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from core.datasets.phantom.generate import NOTICE, make_phantom
from core.evaluation.heatmaps.evaluate import TABLE_COLUMNS
from core.imageio.decode import decode_image, read_image
from core.runs import artifacts
from core.runs.additions import write_maps
from core.runs.run import Run
from core.serving.predict import open_predictor
from dashboard.components import evidence
from dashboard.components.markdown import shorten
from dashboard.components.sidebar import Selection
from dashboard.data import runs as run_data
from dashboard.predict import uploads
from tests.dashboard.test_predict import (
    PIXELS,
    all_text,
    cards,
    open_page,
    plain,
    png,
    sentences,
    upload,
)
from tests.support.guard import add_guard
from tests.support.runs import make_run

REFUSED = "The guard refused this picture."


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `artifacts/demo`, said to be of X-rays, with a guard, and its images."""
    root = tmp_path_factory.mktemp("guarded")
    run = make_run(root / "artifacts", n=60, tiny_openvino=True, ensemble=True, modality="xray")
    add_guard(run, kept=0.98, refused=0.9)
    return root


@pytest.fixture
def use(guarded: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("CXR_ARTIFACTS", str(guarded / "artifacts"))
    monkeypatch.setenv("CXR_DATA", str(guarded / "data"))
    return artifacts.open_run(guarded / "artifacts" / "demo")


def train_image(run: Run, label: str = "covid") -> tuple[str, bytes]:
    """Id and bytes of a training image, without the word that says it is drawn."""
    manifest = artifacts.load_manifest(run)
    row = manifest[(manifest["split"] == "train") & (manifest["label"] == label)].iloc[0]
    path = run.path.parent.parent / "data" / "phantom" / row["path"]
    return row["image_id"], png(read_image(path).pixels)


def colourful() -> bytes:
    colour = np.stack([PIXELS, 255 - PIXELS, PIXELS.T], axis=-1)
    return png(colour)


def show_refused(app: AppTest) -> AppTest:
    return app.toggle(key="predict_show_refused").set_value(True).run()


# ----------------------------------------------------------------------------- the guard


def test_a_picture_that_belongs_here_is_let_through_in_words(use: Run) -> None:
    app = upload(open_page(), "a.png", train_image(use)[1])
    assert not app.exception and not app.error and not app.toggle
    assert app.info[0].value.startswith("It looks like a frontal chest X-ray")
    assert len(cards(app)) == 4
    assert REFUSED not in all_text(app)


def test_a_refused_picture_says_why_and_shows_no_answer(use: Run) -> None:
    app = upload(open_page(), "cat.png", colourful())
    assert not app.exception and len(app.error) == 1
    said = plain(app.error[0].value)
    assert said.startswith("### This does not look like a frontal chest X-ray")
    assert "olour picture" in said
    assert not cards(app) and not sentences(app) and not app.image
    assert not app.get("plotly_chart") and not app.get("download_button")
    assert not any("Nearest" in s.value for s in app.subheader)


def test_shown_all_the_same_every_part_is_marked(use: Run) -> None:
    app = show_refused(upload(open_page(), "cat.png", colourful()))
    assert not app.exception and len(app.error) == 1 and sentences(app)
    assert len(cards(app)) == 4
    assert all("refused picture" in card for card in cards(app))
    alts = [app.get("plotly_chart")[0].proto.alt, app.image[0].proto.imgs[0].alt]
    assert "this picture, which the guard refused" in alts[0] and REFUSED in alts[1]
    marked = [m.value for m in app.main.markdown if REFUSED in m.value]
    assert len(marked) == 3, "agreement, nearest cases, report"
    assert any(c.value.startswith(REFUSED) for c in app.caption), "the map"


def test_the_switch_is_off_for_the_next_picture_and_stays_for_this_one(use: Run) -> None:
    app = show_refused(upload(open_page(), "cat.png", colourful()))
    app.switch_page("app_pages/errors.py").run()
    app.switch_page("app_pages/predict.py").run()
    assert app.toggle(key="predict_show_refused").value and cards(app)
    other = np.stack([PIXELS.T, 255 - PIXELS, PIXELS], axis=-1)
    upload(app, "dog.png", png(other))
    assert not app.toggle(key="predict_show_refused").value and not cards(app)


def test_grey_and_colour_of_the_same_greys_are_judged_apart(use: Run) -> None:
    pixels = decode_image(train_image(use)[1]).pixels
    # Colours whose luma is the grey picture's, as far as rounding goes.
    colour = np.stack([0 * pixels, pixels, pixels], axis=-1)
    grey = png(np.asarray(Image.fromarray(colour).convert("L")))
    app = upload(open_page(), "grey.png", grey)
    first = [e.value for e in app.error]
    upload(app, "colour.png", png(colour))
    second = [e.value for e in app.error]
    assert uploads.make_upload("", decode_image(grey)).sha256 == (
        uploads.make_upload("", decode_image(png(colour))).sha256
    )
    assert "olour picture" in second[0] and not any("olour picture" in e for e in first)


def test_a_drawn_phantom_passes_visibly_as_synthetic(use: Run) -> None:
    app = upload(open_page(), "a.png", png(PIXELS, Synthetic=NOTICE))
    assert not app.exception and not app.error and len(cards(app)) == 4
    assert plain(app.info[0].value).startswith("SYNTHETIC: a drawn phantom, let through as such")
    assert any("SYNTHETIC: drawn phantoms" in m.value for m in app.main.markdown), "the badge"
    assert "SYNTHETIC" in app.image[0].proto.imgs[0].alt


def test_a_run_without_guard_says_so_and_names_the_command(demo_app: Path) -> None:
    app = upload(open_page(), "a.png", colourful())
    assert not app.exception and len(cards(app)) == 4
    said = next(w.value for w in app.warning if "Nobody checked" in w.value)
    assert "`python -m core guard --run demo`" in said
    assert any("`python -m core guard --run demo`" in i.value for i in app.info), "nearest cases"


def test_a_damaged_guard_is_named_and_the_models_answer(empty_app: Path) -> None:
    path = make_run(empty_app, n=30, images=False, tiny_openvino=True)
    add_guard(path)
    file = path / "guard" / "guard.npz"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    app = upload(open_page(), "a.png", png(PIXELS))
    assert not app.exception and len(cards(app)) == 4
    said = plain("".join(w.value for w in app.warning))
    assert "demo/guard/guard.npz is damaged" in said and "answer for any picture" in said


def test_what_the_guard_is_worth_is_told_from_its_file(use: Run) -> None:
    app = upload(open_page(), "a.png", train_image(use)[1])
    document = run_data.load_guard_document(use)
    kept = document["acceptance"]["test"]["all"]
    text = plain(all_text(app))
    assert f"Let through: 98.0 % :gray[{100 * kept['low']:.1f} to {100 * kept['high']:.1f}]" in text
    assert f"of {kept['n']} test images** ({kept['n_patients']} patients)" in text
    tables = [plain(table.value.to_csv()) for table in app.table]
    assert len(tables) == 2
    for label, found in document["acceptance"]["test"]["classes"].items():
        assert f'"test, {label}",{found["n"]},98.0 %' in tables[0]
    for found in document["refusal"].values():
        assert f",{found['title']},{found['n']},90.0 %" in tables[1]


def test_a_guard_that_nobody_measured_says_so(empty_app: Path) -> None:
    add_guard(make_run(empty_app, n=30, images=False, tiny_openvino=True), measured=False)
    text = all_text(upload(open_page(), "a.png", png(PIXELS, Synthetic=NOTICE)))
    assert text.count("**Not measured** how many") == 2


# ----------------------------------------------------------------------------- nearest cases


def nearest(app: AppTest) -> list[str]:
    return [plain(m.value) for m in app.main.markdown if re.search(r"distance \d", m.value)]


def test_the_five_nearest_training_cases_with_label_and_distance(use: Run) -> None:
    image_id, data = train_image(use)
    app = upload(open_page(), "a.png", data)
    found = nearest(app)
    expected = open_predictor(use).predict(decode_image(data)).neighbours
    assert len(found) == len(expected) == 5
    assert [one.distance for one in expected] == sorted(one.distance for one in expected)
    for text, one in zip(found, expected, strict=True):
        assert f"**{one.label}**" in text and f"distance {one.distance:.2f}" in text
        assert shorten(one.image_id, 28) in text
    assert expected[0].image_id == image_id and "distance 0.00" in found[0]
    copied = [plain(w.value) for w in app.warning if "prove nothing" in w.value]
    assert len(copied) == 1 and f"the training image {image_id}" in copied[0]
    alts = [i.proto.imgs[0].alt for i in app.image][1:]
    assert len(alts) == 5 and f"{image_id}, labelled covid" in alts[0]
    labels = [one.label for one in expected]
    said = next(m.value for m in app.main.markdown if "most alike" in m.value)
    assert evidence.alike_text(labels) in said and "Alike does not mean the same disease" in said


def test_another_picture_is_not_called_a_training_image(use: Run) -> None:
    app = upload(open_page(), "a.png", png(make_phantom("covid", 99, 96, patient=99).pixels))
    show_refused(app) if app.error else app
    assert len(nearest(app)) == 5 and not any("prove nothing" in w.value for w in app.warning)


def test_labels_of_the_nearest_are_counted_in_their_order() -> None:
    words = evidence.alike_text
    assert words(["covid"] * 3) == "The 3 most alike are labelled **covid**."
    assert words(["b", "a", "b"]) == "The 3 most alike are labelled **2 b, 1 a**."


def test_without_the_files_label_and_id_are_left(empty_app: Path) -> None:
    path = make_run(empty_app, n=30, images=False, tiny_openvino=True, modality="xray")
    add_guard(path)
    app = upload(open_page(), "a.png", png(PIXELS, Synthetic=NOTICE))
    assert not app.exception and len(app.image) == 1
    assert len([m for m in app.main.markdown if "distance " in m.value and "**" in m.value]) == 5
    assert any("Not on this machine" in c.value for c in app.caption)


# ----------------------------------------------------------------------------- maps


def test_what_the_map_is_worth_is_told_or_how_to_measure_it(empty_app: Path) -> None:
    path = make_run(empty_app, models=["cnn", "resnet50"], n=30, images=False, tiny_openvino=True)
    app = upload(open_page(), "a.png", png(PIXELS))
    assert any("`python -m core maps --run demo`" in c.value for c in app.caption)
    run = artifacts.open_run(path)
    document = {"status": "not done", "reason": "No phantoms.", "created": "", "models": {}}
    write_maps(run, document, pd.DataFrame(columns=TABLE_COLUMNS))
    app.run()
    assert any("not measured: No phantoms." in c.value for c in app.caption)


def test_what_the_chosen_models_maps_are_worth_is_told_beside_chance(
    demo_app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {m: measured_maps(m, m != "resnet50") for m in ("cnn", "resnet50", "mobilenetv2")}
    document = {"models": found, "learned_from": "Nothing about patients.", "reason": None}
    monkeypatch.setattr(run_data, "load_maps", lambda run: document)
    app = upload(open_page(), "a.png", png(PIXELS))
    said = next(plain(c.value) for c in app.caption if "hottest place" in c.value)
    assert "On 200 drawn phantoms" in said and "**62.0 % :gray[55.0 to 68.0]**" in said
    assert "a random place does in 10.0 %, a random place in the lungs in 22.0 %" in said
    assert "the centre in 4.0 %" in said and "the maps change, as they should." in said
    app.segmented_control(key="predict_heat_model").set_value("resnet50").run()
    said = next(plain(c.value) for c in app.caption if "hottest place" in c.value)
    assert "stay much the same, as they should not" in said
    more = [plain(m.value) for m in app.main.markdown if "points somewhere" in m.value]
    assert more == ["resnet50 points somewhere. Nothing about patients."]


def measured_maps(model: str, sane: bool) -> dict:
    """One model's entry of maps.json, as far as the page reads it."""
    against = {"random": 0.1, "lungs": 0.22, "centre": 0.04}
    figures = {
        "n": 200,
        "hit": {"value": 0.62, "low": 0.55, "high": 0.68},
        "against": {name: {"hit": {"value": value}} for name, value in against.items()},
    }
    return {
        "sentence": f"{model} points somewhere.",
        "pointing": {"true": {"all": figures}},
        "sanity": {"passed": sane},
    }


# ----------------------------------------------------------------------------- report


def report(run: Run, data: bytes, **more) -> str:
    predictor = open_predictor(run)
    picture = uploads.read_upload("Doe_Jane.png", data)
    answer = predictor.predict(picture.decoded)
    return evidence.make_report(predictor, picture, answer, **more).decode()


def test_the_report_has_the_answers_and_nothing_of_the_patient_unless_typed(
    use: Run,
) -> None:
    _, data = train_image(use)
    html = report(use, data)
    answer = open_predictor(use).predict(decode_image(data))
    for own in answer.predictions:
        assert own.title in html and f"{100 * own.confidence:.1f}" in html
    assert "It looks like a frontal chest X-ray" in html
    assert "Doe" not in html and "Jane" not in html
    assert "Ward 7 <3" not in html
    typed = report(use, data, typed="Ward 7 <3", note="seen twice")
    assert "Ward 7 &lt;3" in typed and "seen twice" in typed


def test_the_report_on_a_refused_picture_says_so(use: Run) -> None:
    html = report(use, colourful())
    assert "This does not look like a frontal chest X-ray" in html
    assert "CNN" in html


def test_the_report_is_made_when_it_is_asked_for(use: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(evidence, "make_report", lambda *args: made.append(args) or b"")
    app = upload(open_page(), "a.png", train_image(use)[1])
    assert not app.exception and made == []
    button = app.get("download_button")[0]
    assert button.proto.label == "Report to hand over (HTML)"
    app.text_input(key="predict_report_typed").set_value("Ward 7").run()
    assert not app.exception and made == []


def test_the_reports_name_tells_nothing_of_the_picture(use: Run) -> None:
    selection = Selection(use, tuple(use.models), "test")
    name = evidence._report_name(selection)
    assert re.fullmatch(r"report-demo-\d{8}T\d{6}Z\.html", name)
