"""The page Predict with what people drop on it: X-rays, a DICOM, a bomb, a cat and a zip.

One server answers all of it. What the page must say is worked out here from the same files by
core.serving.predict.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import signal
import struct
import time
import zipfile
import zlib
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from core.imageio.decode import decode_image, read_image
from core.reporting.answer_reliability import agreement_sentence, votes
from core.runs import artifacts
from core.serving.predict import ImagePrediction, Predictor, conformal_text, open_predictor
from tests.support.runs import CLASS_NAMES
from tests.support.uploads import open_files

PATIENT = {
    "PatientName": "Geheimnis^Frieda",
    "PatientID": "PID-4711-0815",
    "PatientBirthDate": "19610203",
    "InstitutionName": "Hospital Nowhere",
    "ReferringPhysicianName": "Doktor^Verborgen",
    "StudyDescription": "Seen for Geheimnis",
    "AccessionNumber": "ACC99887766",
}
SPACES = re.compile(r"[\s\u202f]+")
ALL_THE_SAME = re.compile("all the same")
REFUSED = "The guard refused this picture."


# ------------------------------------------------------------------------------ what is dropped


@pytest.fixture(scope="module")
def predictor(guarded_root: Path) -> Predictor:
    return open_predictor(artifacts.open_run(guarded_root / "artifacts" / "demo"))


@pytest.fixture(scope="module")
def phantoms(guarded_root: Path, predictor: Predictor) -> list[np.ndarray]:
    """Pixels of test images that the guard lets pass; a file made of them says not that they are
    drawn."""
    table = artifacts.load_manifest(predictor.run)
    paths = table.loc[table["split"] == "test", "path"]
    pixels = [read_image(guarded_root / "data" / "phantom" / path).pixels for path in paths]
    kept = [one for one in pixels if not predictor.predict(decode_image(png(one))).refused]
    assert len(kept) > len(pixels) / 2, "the guard refuses what it was fitted on"
    return kept


def png(pixels: np.ndarray, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", **options)
    return buffer.getvalue()


def dicom(pixels: np.ndarray) -> bytes:
    """A 12-bit radiograph, stored inverted, whose header is full of what tells the patient."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    for keyword, value in PATIENT.items():
        setattr(data, keyword, value)
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, generate_uid()
    data.Modality, data.ViewPosition, data.BodyPartExamined = "DX", "PA", "CHEST"
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME1"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.PixelData = (4095 - 16 * pixels.astype(np.uint16)).astype("<u2").tobytes()
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, data, enforce_file_format=True)
    return buffer.getvalue()


def bomb(side_px: int, packed: bytes) -> bytes:
    """A PNG that says that it is side_px wide and high."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        crc = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + crc

    header = struct.pack(">IIBBBBB", side_px, side_px, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")
    )


def cat() -> bytes:
    data = pytest.importorskip("skimage.data", reason="scikit-image, which has a cat, is missing")
    return png(data.chelsea())


def drop(tab, *files: tuple[str, bytes], settle: bool = True) -> None:
    """Give the uploader files by name and content, and wait for the page."""
    chosen = [{"name": n, "mimeType": "application/octet-stream", "buffer": d} for n, d in files]
    tab.page.locator('input[type="file"]').first.set_input_files(chosen)
    if settle:
        tab.page.wait_for_timeout(500)
        tab.settle()


# ------------------------------------------------------------------------------ what is read


@pytest.fixture
def tab(visit, watched_server):
    """The page Predict, open; at the end nothing has gone wrong on it."""
    tab = visit(url=watched_server.url)
    tab.open("predict", "Predict")
    yield tab
    tab.assert_clean()


def said(tab) -> str:
    """All that the page says, also to those who cannot see it; blanks made one."""
    text = tab.page.get_by_test_id("stMain").evaluate(
        """main => [main.innerText,
            ...Array.from(main.querySelectorAll('svg text'), t => t.textContent),
            ...Array.from(main.querySelectorAll('[aria-label], [alt]'),
                e => e.getAttribute('aria-label') || e.getAttribute('alt'))].join('\\n')"""
    )
    return SPACES.sub(" ", text)


def wait_for_words(tab, words: str | re.Pattern, timeout_ms: int = 30_000) -> None:
    tab.page.get_by_text(words).first.wait_for(timeout=timeout_ms)


def percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def assert_answers(text: str, answer: ImagePrediction) -> None:
    """Every model's class, share and set, their mean's, and how far they agree."""
    assert len(answer.predictions) == 4
    assert agreement_sentence(votes(answer.predictions)) in text
    for own in answer.predictions:
        card = re.escape(f"{own.predicted} {percent(own.confidence)}")
        assert re.search(rf"{re.escape(own.title)}.{{0,80}}?{card}", text), (own.title, text)
        assert conformal_text(own.conformal_set, CLASS_NAMES) in text
        for share in own.shares:
            assert percent(float(share)) in text


def held(server, root: Path) -> dict[str, int]:
    """What the server's process holds of uploads: see tests/browser/watched.py."""
    file = root / "held.json"
    file.unlink(missing_ok=True)
    os.kill(server.process.pid, signal.SIGUSR1)
    deadline = time.monotonic() + 30
    while not file.exists():
        assert time.monotonic() < deadline, "the server does not answer"
        time.sleep(0.05)
    return json.loads(file.read_text())


def files_of(server, root: Path) -> set[str]:
    """What the server has open that is a file, but for the run's models."""
    models = str(root / "artifacts")
    return {name for name in open_files(server.process.pid) if not name.startswith(models)}


def assert_let_go(server, root: Path, before: dict[str, int]) -> None:
    """Within seconds the server holds no more of anything than before.

    Sessions of tabs that were closed may hold what they had for two minutes, so not: nothing.
    """
    deadline = time.monotonic() + 5
    while True:
        more = {kind: n for kind, n in held(server, root).items() if n > before[kind]}
        if not more or time.monotonic() > deadline:
            break
        time.sleep(0.5)
    assert more == {}


class Text(HTMLParser):
    """The texts of a page without its style, and its addresses."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.text, self.addresses, self._style = "", [], False
        self.feed(html)
        self.text = SPACES.sub(" ", self.text)

    def handle_starttag(self, tag: str, attrs) -> None:
        self._style = tag == "style"
        self.addresses += [v for k, v in attrs if k in ("src", "href")]

    def handle_data(self, data: str) -> None:
        if not self._style:
            self.text += data


def download(tab, name: str | re.Pattern) -> tuple[str, bytes]:
    """Name and content of what a button gives."""
    button = tab.page.get_by_test_id("stDownloadButton").get_by_role("button", name=name)
    with tab.page.expect_download() as waiting:
        button.click()
    return waiting.value.suggested_filename, Path(waiting.value.path()).read_bytes()


def press_until(tab, name: str | re.Pattern, key: str = "Tab", most: int = 60) -> None:
    """Press a key until what has the focus is called so."""
    focused = """() => { const e = document.activeElement;
        return ['MAIN', 'BODY'].includes(e.tagName) ? '' :
            [e.getAttribute('aria-label'), e.innerText].filter(Boolean).join(' ') }"""
    seen = []
    for _ in range(most):
        tab.page.keyboard.press(key)
        seen.append(tab.page.evaluate(focused))
        if re.search(name, seen[-1]):
            return
    raise AssertionError(f"{name} is not reached by {key}: {seen}")


# ------------------------------------------------------------------------------ the tests


def test_an_x_ray_gets_answers_and_a_report(tab, predictor, phantoms) -> None:
    data = png(phantoms[0])
    answer = predictor.predict(decode_image(data))
    drop(tab, ("Jane Doe 1961.png", data))
    wait_for_words(tab, agreement_sentence(votes(answer.predictions)))
    wait_for_words(tab, "Report to hand over")
    tab.settle()
    text = said(tab)
    assert_answers(text, answer)
    assert SPACES.sub(" ", answer.judgement.sentence) in text
    assert "Jane Doe 1961.png, 96×96 px PNG" in text
    for near in answer.neighbours:
        assert near.image_id.split("/")[-1] in text and f"distance {near.distance:.2f}" in text
    assert all(re.search(r"\d ms", card) for card in re.findall(r"Of its answers.{80}", text))

    tab.page.get_by_label("Reference or name").fill("Case <17>")
    tab.page.keyboard.press("Tab")
    tab.settle()
    name, content = download(tab, re.compile("Report to hand over"))
    assert re.fullmatch(r"report-demo-\d{8}T\d{6}Z\.html", name)
    report = Text(content.decode())
    for own in answer.predictions:
        assert f"{own.title} says {own.predicted}, {percent(own.confidence)}" in report.text
    assert SPACES.sub(" ", answer.judgement.sentence) in report.text
    assert "Case <17>" in report.text and "Jane" not in content.decode()
    assert all(address.startswith("data:image/") for address in report.addresses)
    sheet = tab.page.context.new_page()
    asked = []
    sheet.on("request", lambda request: asked.append(request.url))
    sheet.set_content(content.decode())
    assert sheet.get_by_role(
        "heading", name=agreement_sentence(votes(answer.predictions))
    ).is_visible()
    assert all(url.startswith("data:") for url in asked)
    assert sheet.evaluate("getComputedStyle(document.querySelector('.two')).display") == "grid"
    sheet.close()


def test_what_if_moves_and_clear_lets_go_of_everything(
    tab, watched_server, guarded_root, phantoms
) -> None:
    pixels = np.asarray(Image.fromarray(phantoms[1]).resize((1100, 1100)))
    data = png(pixels, compress_level=0)
    assert len(data) > 2**20, "the server puts what is larger into a temporary file"
    files = files_of(watched_server, guarded_root)
    before = held(watched_server, guarded_root)
    drop(tab, ("large.png", data))
    wait_for_words(tab, "Report to hand over")
    tab.settle()
    during = held(watched_server, guarded_root)
    assert during["Upload"] > before["Upload"] and during["Decoded"] > before["Decoded"]
    assert during["stored"] == during["UploadedFileRec"] == 0, "the file itself is gone by now"
    assert files_of(watched_server, guarded_root) <= files
    assert not list((guarded_root / "tmp").iterdir())

    tab.page.get_by_text("What if the picture were another").click()
    wait_for_words(tab, "Nothing is changed yet")
    tab.settle()
    slider = tab.page.get_by_role("slider", name="Brightness")
    slider.focus()
    for _ in range(8):
        tab.page.keyboard.press("ArrowRight")
    tab.page.get_by_text("Nothing is changed yet").wait_for(state="detached")
    tab.settle()
    wait_for_words(tab, re.compile(r"[Bb]right"))
    chart = tab.page.locator(".js-plotly-plot").filter(has_text=re.compile("to|after|now")).last
    chart.wait_for()

    tab.page.get_by_role("button", name=re.compile("Clear$")).click()
    wait_for_words(tab, "Drop a picture above")
    tab.settle()
    assert_let_go(watched_server, guarded_root, before)
    assert files_of(watched_server, guarded_root) <= files
    assert not list((guarded_root / "tmp").iterdir())


def test_a_dicom_is_read_and_its_patient_is_not(tab, watched_server, predictor, phantoms) -> None:
    data = dicom(phantoms[2])
    answer = predictor.predict(decode_image(data))
    drop(tab, ("scan.dcm", data))
    wait_for_words(tab, "Report to hand over")
    text = said(tab)
    tab.page.get_by_text(re.compile(r"The \d+ DICOM tags that were read")).click()
    wait_for_words(tab, re.compile("PhotometricInterpretation"))
    tab.settle()
    text += tab.page.locator("body").inner_text()
    tab.page.keyboard.press("Escape")
    assert_answers(text, answer)
    assert "scan.dcm, 96×96 px DICOM" in text
    assert "Modality DX" in text and "ViewPosition PA" in text
    assert "Identifiers in a DICOM header are not read." in text
    _, report = download(tab, re.compile("Report to hand over"))
    page = tab.page.content()
    for secret in [part for value in PATIENT.values() for part in re.split(r"[\^ ]", value)]:
        if secret in ("Seen", "for"):
            continue
        for where in (text, page, report.decode(), watched_server.output):
            assert secret not in where, secret
    for tag in PATIENT:
        assert tag not in text and tag not in report.decode()


def test_bombs_get_one_sentence_that_names_the_limit(tab, watched_server, guarded_root) -> None:
    before = held(watched_server, guarded_root)
    squeeze, rows = zlib.compressobj(1), bytes(20_001 * 100)  # black, and all of it is there
    packed = b"".join([squeeze.compress(rows) for _ in range(200)]) + squeeze.flush()
    alert = tab.page.get_by_test_id("stMain").get_by_role("alert")
    for side_px, name in ((20_000, "bomb.png"), (60_000, "worse.png"), (2**31 - 1, "worst.png")):
        drop(tab, (name, bomb(side_px, packed)))
        alert.filter(has_text=name).wait_for()
        sentence = alert.filter(has_text=name).inner_text()
        assert len(sentence.split(". ")) == 1 and 6 < len(sentence.split()) < 60, sentence
        assert re.search(r"50 million|50,000,000|20,000", sentence), sentence
        assert alert.count() == 1 and "Traceback" not in said(tab)
    assert_let_go(watched_server, guarded_root, before)


def test_a_cat_is_refused_and_shown_all_the_same_by_keyboard(tab, predictor) -> None:
    data = cat()
    answer = predictor.predict(decode_image(data))
    assert answer.refused and "it is a colour picture" in answer.judgement.reasons
    with tab.page.expect_file_chooser() as chooser:
        press_until(tab, r"upload\s+Upload")
        tab.page.keyboard.press("Enter")
    chooser.value.set_files({"name": "cat.png", "mimeType": "image/png", "buffer": data})
    wait_for_words(tab, re.compile("This does not look like a drawn chest phantom"))
    tab.settle()
    text = said(tab)
    assert "it is a colour picture" in text
    for hidden in ("Not ruled out", "Nearest training", "Of its answers", " say ", "Probabilities"):
        assert hidden not in text, hidden

    press_until(tab, ALL_THE_SAME)
    tab.page.keyboard.press("Space")
    wait_for_words(tab, "Report to hand over")
    tab.settle()
    text = said(tab)
    assert_answers(text, answer)
    assert text.count("refused picture") >= len(answer.predictions), "every card is marked"
    assert f"{REFUSED} These answers mean nothing." in text
    press_until(tab, "Report to hand over")
    with tab.page.expect_download() as waiting:
        tab.page.keyboard.press("Enter")
    report = Path(waiting.value.path()).read_text("utf-8")
    assert "This does not look like a drawn chest phantom" in Text(report).text
    assert report.count('class="mark"') > 2 * len(answer.predictions)

    press_until(tab, "Clear$", "Shift+Tab")
    tab.page.keyboard.press("Enter")
    wait_for_words(tab, "Drop a picture above")


def make_zip(*files: tuple[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files:
            archive.writestr(name, data)
    return buffer.getvalue()


def test_a_zip_makes_a_table(tab, watched_server, guarded_root, predictor, phantoms) -> None:
    before = held(watched_server, guarded_root)
    good = {f"ward/{k}.png": png(phantoms[k]) for k in range(3)}
    broken = png(phantoms[3])[:2000]
    data = make_zip(*good.items(), ("broken.png", broken), ("cat.png", cat()))
    drop(tab, ("five.zip", data))
    wait_for_words(tab, re.compile("3 of 5 look like a drawn chest phantom"))
    tab.settle()
    text = said(tab)
    assert "1 does not" in text and "1 file could not be read" in text

    name, content = download(tab, "CSV")
    assert re.fullmatch(r"demo-predictions-\d{4}-\d\d-\d\d\.csv", name)
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"))))
    assert len(rows) == 5
    table = "\n".join("|".join(row.values()) for row in rows)
    by_name = {next(v for v in row.values() if v.endswith(".png")): row for row in rows}
    assert set(by_name) == {*good, "broken.png", "cat.png"} and "five.zip" in table
    for name, picture in good.items():
        cells = list(by_name[name].values())
        for own in predictor.predict(decode_image(picture)).predictions:
            assert own.predicted in cells
            for share in own.probabilities:
                near = [c for c in cells if re.fullmatch(r"[\d.e-]+", c)]
                assert min(abs(float(c) - share) for c in near) < 1e-4
    assert any("end" in v or "cut" in v or "trunc" in v for v in by_name["broken.png"].values())
    assert any("colour" in v for v in by_name["cat.png"].values())
    assert not any(v in CLASS_NAMES for v in by_name["cat.png"].values()), "refused: no answer"

    box = tab.page.get_by_role("combobox", name=re.compile("^Look at one"))
    box.focus()
    tab.page.keyboard.type("ward/1")
    tab.page.get_by_role("option", name=re.compile(r"ward.1\.png")).wait_for()
    tab.page.keyboard.press("Enter")
    wait_for_words(tab, "Report to hand over")
    tab.settle()
    assert_answers(said(tab), predictor.predict(decode_image(good["ward/1.png"])))

    tab.page.get_by_role("button", name=re.compile("Back to the table$")).click()
    tab.settle()
    tab.page.get_by_role("button", name=re.compile("Clear the table$")).click()
    wait_for_words(tab, "Drop a picture above")
    tab.settle()
    assert_let_go(watched_server, guarded_root, before)


def test_others_are_answered_while_a_batch_runs(
    tab, visit, watched_server, predictor, phantoms
) -> None:
    large = png(np.kron(phantoms[0], np.ones((16, 16), np.uint8)))
    many = make_zip(*((f"{k}.png", large) for k in range(500)))
    data = png(phantoms[4])
    answer = predictor.predict(decode_image(data))
    other = visit(url=watched_server.url)
    other.open("predict", "Predict")
    drop(tab, ("many.zip", many), settle=False)  # it polls, so it never rests
    cancel = tab.page.get_by_role("button", name="Cancel")
    cancel.wait_for()
    started = time.monotonic()
    drop(other, ("mine.png", data))
    wait_for_words(other, agreement_sentence(votes(answer.predictions)), 15_000)
    took = time.monotonic() - started
    wait_for_words(other, "Report to hand over")
    other.settle()
    assert_answers(said(other), answer)
    assert cancel.is_visible(), f"the batch was done before the other was answered ({took:.1f} s)"
    assert "mine.png" not in said(tab) and "many" not in said(other)
    other.assert_clean()
    cancel.click()
    wait_for_words(tab, "Cancelled: the rows so far are below.")
    assert "are not done" in said(tab)
