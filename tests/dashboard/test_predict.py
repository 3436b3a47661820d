"""The page Predict: what goes in, and what each model says of one picture."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, PngImagePlugin
from streamlit.runtime.memory_uploaded_file_manager import MemoryUploadedFileManager
from streamlit.testing.v1 import AppTest

from core.datasets.phantom.generate import NOTICE, label_synthetic, make_phantom
from core.imageio.decode import decode_image
from core.imageio.sandbox import decode_safely
from core.inference import served_model
from core.inference.class_activation import class_heat, mean_heat, overlay
from core.reporting.answer_reliability import answer_reliability
from core.runs import artifacts
from core.serving.predict import conformal_text, open_predictor
from dashboard.components import batch
from tests.support.rendered_images import difference, record_media, shown_pictures
from tests.support.runs import make_run

APP = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"
NAMES = ("covid", "normal", "pneumonia")


def png(pixels: np.ndarray, **text: str) -> bytes:
    """The bytes of a PNG with these text chunks."""
    info, buffer = PngImagePlugin.PngInfo(), io.BytesIO()
    for key, value in text.items():
        info.add_text(key, value)
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


PIXELS = make_phantom("covid", 1, 160).pixels
PHANTOM = png(PIXELS)


def open_page(page: str = "predict") -> AppTest:
    app = AppTest.from_file(APP, default_timeout=60).run()
    return app.switch_page(f"app_pages/{page}.py").run()


def upload(app: AppTest, name: str, data: bytes) -> AppTest:
    return drop(app, (name, data))


def drop(app: AppTest, *files: tuple[str, bytes]) -> AppTest:
    """Drop files on the page, all at once."""
    app.file_uploader[0].set_value([(*file, "application/octet-stream") for file in files])
    return app.run()


def sentences(app: AppTest) -> list[str]:
    """The lines that say how far the models agree."""
    return [s.value for s in app.main.subheader if "say" in s.value or "answer" in s.value]


def cards(app: AppTest) -> list[str]:
    """Each model's card: its head, the class with its share, and what stands below."""
    texts = [m.value for m in app.main.markdown]
    at = [k for k, text in enumerate(texts) if text.startswith("### ")]
    return ["\n".join(texts[k - 1 : k + 2]) for k in at]


def plain(text: str) -> str:
    return text.replace("\\", "").replace("\u00a0", " ").replace("\u202f", " ")


# ----------------------------------------------------------------------------- what is said


def test_an_empty_page_says_what_to_do_and_what_is_kept(demo_app: Path) -> None:
    app = open_page()
    assert not app.exception and not sentences(app)
    assert "Research use" in app.info[0].value
    kept = next(c.value for c in app.main.caption if "until you press Clear" in c.value)
    assert "Identifiers in a DICOM header are not read" in kept


def test_upload_gives_three_answers_an_agreement_line_a_map_and_times(demo_app: Path) -> None:
    app = upload(open_page(), "somebody.dat", PHANTOM)
    assert not app.exception and not app.error
    assert len(sentences(app)) == 1 and sentences(app)[0].endswith(".")
    found = cards(app)
    for card, title in zip(found, ("CNN", "ResNet50", "MobileNetV2", "Mean of the 3"), strict=True):
        assert f"**{title}" in card and " ms" in card
    for card in found[:3]:
        assert "f32, 64 px" in card and plain(card).count("n = ") == 2
        assert "calibrated probability" in card
    assert "Not measured" in found[3] and ":orange[not calibrated]" in found[3]
    assert len(app.image) == 1 and len(app.get("plotly_chart")) == 1
    alt = app.get("plotly_chart")[0].proto.alt
    assert alt.startswith("Calibrated probabilities, this picture.")
    assert alt.count("covid") == 4 and "Mean of the 3, not calibrated" in alt


def test_the_cards_and_bars_say_what_core_answering_says(empty_app: Path) -> None:
    path = make_run(empty_app, n=40, images=False, tiny_openvino=True, ensemble=True, folds=5)
    run = artifacts.open_run(path)
    app = upload(open_page(), "a.png", PHANTOM)
    answer = open_predictor(run).predict(decode_image(PHANTOM))
    alt = plain(app.get("plotly_chart")[0].proto.alt)
    assert len(answer.predictions) == 4
    for card, own in zip(cards(app), answer.predictions, strict=True):
        assert own.calibrated is not None
        assert f"### {own.predicted} {100 * own.confidence:.1f} %" in plain(card)
        assert f"Not ruled out: **{conformal_text(own.conformal_set, NAMES)}**" in card
        each = ", ".join(f"{n} {100 * s:.1f} %" for n, s in zip(NAMES, own.shares, strict=True))
        assert each in alt
    # Served probabilities would be other numbers.
    assert any(abs(own.confidence - own.probabilities.max()) > 0.01 for own in answer.predictions)


def test_a_class_that_calibration_moves_is_said(empty_app: Path) -> None:
    path = make_run(empty_app, models=["cnn"], n=30, images=False, tiny_openvino=True)
    own = open_predictor(artifacts.open_run(path)).predict(decode_image(PHANTOM)).predictions[0]
    k = int(own.probabilities.argmax())
    other = NAMES[(k + 1) % 3]
    # Training is said to have seen the other class hardly ever, and made up for that by weights.
    prior = dict.fromkeys(NAMES, 0.001) | {other: 0.998}
    entry = {"temperature": 1.0, "prior": prior, "weighted": True, "effect": 1.0}
    document = json.loads((path / "run.json").read_text())
    document["calibration"]["cnn"] |= entry
    (path / "run.json").write_text(json.dumps(document))
    card = cards(upload(open_page(), "a.png", PHANTOM))[0]
    answer = open_predictor(artifacts.open_run(path)).predict(decode_image(PHANTOM)).predictions[0]
    assert NAMES[int(answer.calibrated.argmax())] == other and answer.predicted == NAMES[k]
    assert f"### {NAMES[k]} {100 * answer.calibrated[k]:.1f} %" in plain(card)
    assert f"**{other}** has the larger share ({100 * answer.calibrated.max():.1f} %)" in plain(
        card
    )
    assert f"call stays {NAMES[k]}" in card


def test_a_run_without_calibration_says_so(empty_app: Path) -> None:
    path = make_run(empty_app, models=["cnn"], n=30, images=False, tiny_openvino=True)
    document = json.loads((path / "run.json").read_text())
    document |= {"calibration": {}, "conformal": {}}
    (path / "run.json").write_text(json.dumps(document))
    app = upload(open_page(), "a.png", PHANTOM)
    card = cards(app)[0]
    own = open_predictor(artifacts.open_run(path)).predict(decode_image(PHANTOM)).predictions[0]
    assert ":orange[not calibrated]" in card and "Not ruled out" not in card
    assert f"{100 * own.probabilities.max():.1f} %" in plain(card)
    assert app.get("plotly_chart")[0].proto.alt.startswith("Probabilities, this picture.")


def test_an_ensemble_is_its_members_mean_with_figures_of_its_own(
    empty_app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make_run(
        empty_app, n=60, images=False, tiny_openvino=True, ensemble=True, modality="xray"
    )
    run = artifacts.open_run(path)
    loaded = []
    load = served_model.load_model
    monkeypatch.setattr(
        served_model, "load_model", lambda run, name, **more: loaded.append(name) or load(run, name)
    )
    app = upload(open_page(), "a.png", PHANTOM)
    assert not app.exception
    found = cards(app)
    assert len(found) == 4 and "ensemble" not in loaded
    own = open_predictor(run).predict(decode_image(PHANTOM)).of("ensemble")
    assert ":gray[★] **Mean of the models**" in found[3]
    assert "mean of CNN, ResNet50, MobileNetV2" in found[3] and "Not measured" not in found[3]
    tested = answer_reliability(
        artifacts.load_metrics(run, "ensemble"), own.predicted, run.class_names
    )
    assert f"(n = {tested['n_true']})" in plain(found[3])
    assert "Mean" not in sentences(app)[0], "it is made of the others and has no vote"
    app.sidebar.get("pills")[0].set_value(["ensemble"]).run()
    assert not app.exception and len(cards(app)) == 4
    app.sidebar.get("pills")[0].set_value(["cnn", "resnet50"]).run()
    assert [title in cards(app)[2] for title in ("Mean of the 2", "Not measured")] == [True, True]


def test_a_control_answers_but_has_no_part_in_the_mean_and_no_vote(empty_app: Path) -> None:
    models = ["resnet50", "mobilenetv2", "mobilenetv2_random"]
    make_run(empty_app, models=models, n=30, images=False, tiny_openvino=True)
    app = upload(open_page(), "a.png", PHANTOM)
    found = cards(app)
    assert len(found) == 4 and "**Mean of the 2**" in found[-1]
    assert [("control, has no vote" in card) for card in found] == [False, False, True, False]
    assert "hree" not in sentences(app)[0]


# ----------------------------------------------------------------------------- what goes in


def test_results_stay_when_going_to_another_page_and_back(demo_app: Path) -> None:
    app = upload(open_page(), "a.png", PHANTOM)
    before = (sentences(app), cards(app))
    app.switch_page("app_pages/errors.py").run()
    app.switch_page("app_pages/predict.py").run()
    assert (sentences(app), cards(app)) == before
    next(b for b in app.button if b.label == "Clear").click().run()
    assert not sentences(app) and not app.exception


WRONG = [
    ("text.png", b"this is no picture at all", "no picture"),
    ("cut.png", PHANTOM[:500], "damaged or cut off"),
    ("empty.png", b"", "empty"),
    ("scan.dcm", bytes(128) + b"DICM" + bytes(300), "DICOM"),
    ("tiny.png", png(np.zeros((4, 4), np.uint8)), "too small"),
]


def test_wrong_files_get_one_sentence_and_the_earlier_picture_stays(demo_app: Path) -> None:
    app = open_page()
    for earlier in (False, True):
        if earlier:
            upload(app, "a.png", PHANTOM)
        before = (sentences(app), cards(app))
        for name, data, word in WRONG:
            upload(app, name, data)
            assert not app.exception and (sentences(app), cards(app)) == before
            assert len(app.error) == 1
            shown = app.error[0].value.replace("\\", "")
            assert shown.startswith(f"{name}: ") and word in shown and "Traceback" not in shown
    app.run()
    assert not app.error, "said once"


def test_uploads_are_decoded_in_a_process_of_their_own(
    demo_app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    monkeypatch.setattr(
        "core.imageio.sandbox.decode_safely", lambda data: seen.append(data) or decode_safely(data)
    )
    app = upload(open_page(), "a.png", PHANTOM)
    assert seen == [PHANTOM] and sentences(app)
    app.slider(key="predict_opacity").set_value(80).run()
    assert len(seen) == 1


def test_nothing_keeps_a_files_bytes(demo_app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    managers = set()
    add_file = MemoryUploadedFileManager.add_file

    def recording(self, session_id, file):
        managers.add(self)
        add_file(self, session_id, file)

    monkeypatch.setattr(MemoryUploadedFileManager, "add_file", recording)
    app = open_page()
    for name, data in (("a.png", PHANTOM), WRONG[1][:2]):
        first = app.file_uploader[0].key
        upload(app, name, data)
        assert app.file_uploader[0].key != first and not app.file_uploader[0].value
        assert managers and not any(files for m in managers for files in m.file_storage.values())
    kept = kept_state(app)
    assert app.session_state["predict_picture"].name == "a.png"
    assert not any(PHANTOM in held for held in bytes_in(kept))
    assert any(held.size == PIXELS.size for held in arrays_in(kept)), "the pixels are kept"
    next(b for b in app.button if b.label == "Clear").click().run()
    assert not any(held.size >= PIXELS.size for held in arrays_in(kept_state(app)))
    assert "live_answers" not in app.session_state


def kept_state(app: AppTest) -> dict:
    """All that the session holds, what pages do not see of it included."""
    state = app.session_state._state._state
    return {field: getattr(state, field) for field in state.__dataclass_fields__}


def walk(value, depth: int = 6):
    """A value and all that it holds."""
    yield value
    if depth and isinstance(value, dict):
        value = list(value.values())
    elif depth and hasattr(value, "__dict__"):
        value = list(vars(value).values())
    if depth and isinstance(value, list | tuple | set):
        for one in value:
            yield from walk(one, depth - 1)


def bytes_in(value) -> list[bytes]:
    return [held for held in walk(value) if isinstance(held, bytes)]


def arrays_in(value) -> list[np.ndarray]:
    return [held for held in walk(value) if isinstance(held, np.ndarray)]


def make_dicom(pixels: np.ndarray) -> bytes:
    """A DICOM with a patient's name in its header."""
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    file = FileDataset(None, {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, generate_uid()
    file.PatientName, file.PatientID, file.PatientBirthDate = "Doe^Jane", "MRN-77", "19600101"
    file.Modality, file.ViewPosition, file.BodyPartExamined = "DX", "PA", "CHEST"
    file.PhotometricInterpretation, file.SamplesPerPixel = "MONOCHROME2", 1
    file.Rows, file.Columns = pixels.shape
    file.BitsAllocated = file.BitsStored = 8
    file.HighBit, file.PixelRepresentation = 7, 0
    file.PixelData = pixels.tobytes()
    buffer = io.BytesIO()
    file.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def all_text(app: AppTest) -> str:
    kinds = ("markdown", "caption", "subheader", "info", "warning", "error", "expander", "code")
    texts = [str(getattr(e, "value", "") or getattr(e, "label", "")) for k in kinds
             for e in app.get(k)]  # fmt: skip
    return "\n".join([*texts, *(i.proto.imgs[0].alt for i in app.image)])


def test_a_dicom_says_which_tags_were_read_and_nothing_of_the_patient(demo_app: Path) -> None:
    app = upload(open_page(), "scan", make_dicom(PIXELS))
    assert not app.exception and not app.error and sentences(app)
    text = plain(all_text(app))
    assert "160×160 px DICOM" in text
    assert "Modality DX" in text and "ViewPosition PA" in text
    read = decode_image(make_dicom(PIXELS)).tags_read
    assert "160×160 px DICOM · DX · PA · CHEST" in text
    assert ", ".join(read) in text and "PhotometricInterpretation" in read
    for secret in ("Doe", "Jane", "MRN", "1960"):
        assert secret not in text
    assert "PatientName" not in read


def make_zip(*files: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files:
            archive.writestr(name, data)
    return buffer.getvalue()


@pytest.mark.parametrize("zipped", [False, True])
def test_several_files_or_a_zip_make_a_table(demo_app: Path, zipped: bool) -> None:
    files = [("one.png", PHANTOM), ("two.png", png(PIXELS[::-1]))]
    app = upload(open_page(), "before.png", PHANTOM)
    drop(app, *([("all.zip", make_zip(*files))] if zipped else files))
    assert not app.exception
    held = app.session_state["batch"]
    assert held.wait(60) and [row.problem for row in held.rows] == ["", ""]
    app.run()
    assert not app.exception and not cards(app), "the picture before made room"
    app.selectbox(key=batch.CHOSEN).select_index(1).run()
    assert not app.exception and len(cards(app)) == 4
    assert app.session_state["predict_picture"].name.endswith("two.png")
    # Another picture comes to stand before the table, whose chosen row stays where it is.
    upload(app, "after.png", PHANTOM)
    assert app.session_state["predict_picture"].name == "after.png" and len(cards(app)) == 4
    assert "The pictures dropped before" in [s.value for s in app.main.subheader]
    app.run()
    assert app.session_state["predict_picture"].name == "after.png"
    app.selectbox(key=batch.CHOSEN).select_index(0).run()
    assert app.session_state["predict_picture"].name.endswith("one.png")
    assert not app.exception and len(cards(app)) == 4
    press(app, "Back to the table")
    assert not app.exception and "batch" in app.session_state and not cards(app)
    assert "predict_picture" not in app.session_state
    press(app, "Clear the table")
    assert not app.exception and "batch" not in app.session_state and not cards(app)


def press(app: AppTest, label: str) -> None:
    next(button for button in app.button if button.label == label).click().run()


def test_a_single_picture_in_a_zip_is_a_table_too(demo_app: Path) -> None:
    app = upload(open_page(), "one.zip", make_zip(("inside.png", PHANTOM)))
    held = app.session_state["batch"]
    assert held.wait(60) and not app.exception and len(held.rows) == 1


def test_a_row_that_is_let_go_takes_its_picture_along(demo_app: Path) -> None:
    app = drop(open_page(), ("one.png", PHANTOM), ("two.png", png(PIXELS[::-1])))
    assert app.session_state["batch"].wait(60)
    app.segmented_control(key="predict_source").set_value("test").run()
    app.selectbox(key="predict_test_image").select_index(0).run()
    app.selectbox(key=batch.CHOSEN).select_index(1).run()
    assert not app.exception and app.session_state["predict_picture"].name == "two.png"
    app.selectbox(key=batch.CHOSEN).set_value(None).run()
    assert not app.exception and not cards(app) and "batch" in app.session_state
    app.selectbox(key="predict_test_image").select_index(0).run()
    assert not app.exception and len(cards(app)) == 4, "the same test image once more"


# ----------------------------------------------------------------------------- phantoms, samples


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
    assert any("learned from drawn phantoms" in w.value for w in app.warning)


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


# ----------------------------------------------------------------------------- heat map


def test_the_map_is_of_the_chosen_model_and_class(demo_app: Path) -> None:
    app = upload(open_page(), "a.png", PHANTOM)
    first = app.image[0].proto.imgs[0].url
    app.segmented_control(key="predict_heat_model").set_value("resnet50").run()
    app.segmented_control(key="predict_heat_class").set_value("pneumonia").run()
    caption = next(c.value for c in app.caption if "ResNet50 finds" in c.value)
    assert "pneumonia" in caption and app.image[0].proto.imgs[0].url != first
    assert "nothing anywhere" in caption or "class activation map" in caption
    second = app.image[0].proto.imgs[0].url
    app.slider(key="predict_opacity").set_value(100).run()
    assert app.image[0].proto.imgs[0].url != second


def shown_heat(app: AppTest, media: dict, heat: np.ndarray) -> float:
    return difference(shown_pictures(app, media)[0], overlay(PIXELS, heat, 0.8))


def test_the_map_lies_over_the_picture_as_the_model_saw_it(
    demo_app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = record_media(monkeypatch)
    app = upload(open_page(), "a.png", PHANTOM)
    app.slider(key="predict_opacity").set_value(80).run()
    answer = open_predictor(artifacts.open_run(demo_app / "demo")).predict(decode_image(PHANTOM))
    own = answer.predictions[0]
    heat = class_heat(own.class_maps, NAMES.index(own.predicted))
    assert shown_heat(app, media, heat) < 2
    for turned in (heat[::-1], heat[:, ::-1], heat.T, 0 * heat):
        assert shown_heat(app, media, turned) > 4


def test_the_means_map_is_the_mean_of_its_members_maps(
    demo_app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = record_media(monkeypatch)
    app = upload(open_page(), "a.png", PHANTOM)
    app.slider(key="predict_opacity").set_value(80).run()
    app.segmented_control(key="predict_heat_model").set_value("").run()
    app.segmented_control(key="predict_heat_class").set_value("covid").run()
    answer = open_predictor(artifacts.open_run(demo_app / "demo")).predict(decode_image(PHANTOM))
    heats = [class_heat(own.class_maps, 0) for own in answer.predictions]
    assert shown_heat(app, media, mean_heat(heats)) < 2
    assert min(shown_heat(app, media, heat) for heat in heats) > 2.5
    assert any("mean of its members' maps" in c.value for c in app.caption)


def test_a_model_without_such_a_map_is_asked_by_occlusion_once(
    demo_app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predict, asked = served_model.ServedModel.predict, []

    def without_maps(self, pixels, *args):
        asked.append(len(pixels))
        output = predict(self, pixels, *args)
        return served_model.Output(output.probabilities, None, output.features)

    monkeypatch.setattr(served_model.ServedModel, "predict", without_maps)
    app = upload(open_page(), "a.png", PHANTOM)
    assert not app.exception
    assert any("occlusion, what a grey patch took away" in c.value for c in app.caption)
    n_asked = len(asked)
    app.slider(key="predict_opacity").set_value(80).run()
    assert len(asked) == n_asked


def test_a_slider_draws_the_map_again_and_asks_no_model(
    demo_app: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = upload(open_page(), "a.png", PHANTOM)
    monkeypatch.setattr(served_model.ServedModel, "predict", None)
    app.slider(key="predict_opacity").set_value(80).run()
    assert not app.exception and cards(app)


# ----------------------------------------------------------------------------- what is damaged


@pytest.mark.parametrize(("damage", "words"), [("absent", "does not hold"), ("changed", "differs")])
def test_weights_that_are_absent_or_changed_get_one_sentence(
    empty_app: Path, damage: str, words: str
) -> None:
    run_dir = make_run(
        empty_app, models=["cnn", "mobilenetv2"], n=30, images=False, tiny_openvino=True
    )
    weights = run_dir / "cnn" / "model.bin"
    if damage == "absent":
        weights.unlink()
    else:
        weights.write_bytes(bytes(weights.stat().st_size))
    app = upload(open_page(), "a.png", PHANTOM)
    assert not app.exception
    assert sum(words in w.value for w in app.warning) == 1
    assert sentences(app)[0].startswith("MobileNetV2 says")
    assert len(cards(app)) == 1, "one model has no mean"
    app.sidebar.get("pills")[0].set_value(["mobilenetv2"]).run()
    assert not any(words in w.value for w in app.warning), "nobody asks for that model"


def test_damaged_files_are_named_where_they_are_needed(empty_app: Path) -> None:
    run_dir = make_run(empty_app, models=["cnn"], n=30, images=False, tiny_openvino=True)
    (run_dir / "cnn" / "metrics.json").write_text('{"n": null}')
    (run_dir / "manifest.csv").write_text("image_id\nx\n")
    app = upload(open_page(), "a.png", PHANTOM)
    assert not app.exception and sentences(app)[0].startswith("CNN says")
    assert "demo/cnn/metrics.json is damaged" in cards(app)[0]
    app.segmented_control(key="predict_source").set_value("test").run()
    assert not app.exception
    assert any("demo/manifest.csv is damaged: it lacks" in plain(i.value) for i in app.info)
    app.segmented_control(key="predict_source").set_value("upload").run()
    assert not app.exception and sentences(app)[0].startswith("CNN says")


def test_no_weights_at_all(empty_app: Path) -> None:
    make_run(empty_app, models=["cnn"], n=30, images=False)
    app = upload(open_page(), "a.png", PHANTOM)
    assert not app.exception and sentences(app) == ["No model could answer."]
    assert len(app.image) == 1 and not cards(app)
    assert any("cnn" in w.value for w in app.warning)


@pytest.mark.parametrize("damage", ["absent", "run.json"])
def test_page_without_a_run_that_can_be_read(empty_app: Path, damage: str) -> None:
    if damage == "run.json":
        run_dir = make_run(empty_app, models=["cnn"], n=30, images=False)
        (run_dir / "run.json").write_text("{")
    app = open_page()
    assert not app.exception and len(app.info) == 1 and not app.file_uploader
