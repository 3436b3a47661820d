"""Many pictures in the background: order, what fails, stopping, memory, and others in between."""

from __future__ import annotations

import base64
import gc
import io
import sys
import threading
import time
import weakref
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from core.datasets.phantom.generate import NOTICE, make_phantom
from core.imageio.decode import Decoded, ImageError, decode_image
from core.runs.artifacts import open_run
from core.serving.guard.detector import Judgement
from core.serving.predict import BATCH, ImagePrediction, ModelPrediction, open_predictor
from dashboard.predict import batch as batches
from dashboard.predict import batch_table
from dashboard.predict.batch import READ_AT_ONCE, Batch, BatchProgress, BatchRow, Turns
from dashboard.tables import metrics as metric_tables

NAMES = ("covid", "normal", "pneumonia")
MODELS = ("cnn", "resnet50", "mobilenetv2")


def png(pixels: np.ndarray, *, synthetic: bool = False) -> bytes:
    info, file = PngImagePlugin.PngInfo(), io.BytesIO()
    if synthetic:
        info.add_text("Synthetic", NOTICE)
    Image.fromarray(pixels).save(file, "PNG", pnginfo=info)
    return file.getvalue()


def level(value: int, size_px: int = 40) -> bytes:
    return png(np.full((size_px, size_px), value, np.uint8))


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


def said(model: str, predicted: str, members: tuple[str, ...] = (), **more) -> ModelPrediction:
    shares = np.where(np.array(NAMES) == predicted, 0.6, 0.2)
    return ModelPrediction(model, model.upper(), predicted, shares, members=members, **more)


def answered(*predicted: str, looks_right: bool | None = None) -> ImagePrediction:
    judgement = None
    if looks_right is not None:
        sentence = "It does." if looks_right else "It does not: a cat."
        reasons = () if looks_right else ("a cat",)
        judgement = Judgement(looks_right, 0.5, 1.0, sentence, reasons)
    answers = tuple(said(m, p) for m, p in zip(MODELS, predicted, strict=False))
    return ImagePrediction(NAMES, answers, judgement=judgement)


class Echo:
    """Answers with the picture's own level as its `seconds`, so that rows tell their picture."""

    def __init__(self, hold: threading.Event | None = None) -> None:
        self.sizes: list[int] = []
        self.hold, self.begun = hold, threading.Event()

    def predict_many(self, pictures, *, chosen=None) -> list[ImagePrediction]:
        self.sizes.append(len(pictures))
        self.begun.set()
        if self.hold is not None:
            assert self.hold.wait(30)
        return [ImagePrediction(NAMES, (), seconds=float(one.pixels.flat[0])) for one in pictures]


def run_batch(predictor, files, **more) -> Batch:
    batch = Batch(predictor, files, decode=decode_image, **more)
    batch.start()
    assert batch.wait(60)
    return batch


def until(condition, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come to that"
        time.sleep(0.01)


# ------------------------------------------------------------------------------ rows


def test_rows_keep_the_order_and_their_own_picture_over_several_chunks() -> None:
    echo = Echo()
    files = [(f"{k}.png", level(k)) for k in range(40)]
    batch = run_batch(echo, files)
    assert [(r.number, r.name, r.answer.seconds) for r in batch.rows] == [
        (k + 1, f"{k}.png", float(k)) for k in range(40)
    ]
    assert echo.sizes == [BATCH] * 5
    progress = batch.progress()
    assert (progress.state, progress.n, progress.done) == ("done", 40, 40)
    assert progress.seconds > 0 and progress.left_s == 0


def test_zips_and_files_and_what_fails_in_them() -> None:
    archive = zipped(
        {"a/one.png": level(7), "../up.png": level(8), "note.txt": b"words", "two.png": level(9)}
    )
    files = [("x.png", level(1)), ("set.zip", archive), ("cut.zip", archive[:200]), ("e.png", b"")]
    batch = run_batch(Echo(), files)
    rows = {(row.archive, row.name): row for row in batch.rows}
    assert list(rows) == [
        ("", "x.png"), ("set.zip", "a/one.png"), ("set.zip", "up.png"), ("set.zip", "note.txt"),
        ("set.zip", "two.png"), ("", "cut.zip"), ("", "e.png"),
    ]  # fmt: skip
    assert [row.answer.seconds for row in batch.rows if row.answer] == [1, 7, 9]
    assert "leads out of the archive" in rows["set.zip", "up.png"].problem
    assert "no picture" in rows["set.zip", "note.txt"].problem
    assert "damaged or cut off" in rows["", "cut.zip"].problem
    assert "empty" in rows["", "e.png"].problem
    assert all(bool(row.problem) != (row.answer is not None) for row in batch.rows)
    assert batch.progress().n == batch.progress().done == 7


def test_more_files_than_the_most_are_said_and_not_looked_at(monkeypatch) -> None:
    monkeypatch.setattr(batches, "MAX_FILES", 5)
    batch = run_batch(Echo(), [(f"{k}.png", level(k)) for k in range(4)] + [
        ("z.zip", zipped({f"z{k}.png": level(k) for k in range(4)}))
    ])  # fmt: skip
    assert [row.name for row in batch.rows] == ["0.png", "1.png", "2.png", "3.png", "z0.png"]
    assert (
        len(batch.notes) == 1 and "first 5 files" in batch.notes[0] and "z1.png" in batch.notes[0]
    )


def test_thumbnails_are_small_and_drawn_pictures_say_so() -> None:
    pixels = make_phantom("covid", 1, 400).pixels
    batch = run_batch(Echo(), [("a.png", png(pixels)), ("b.png", png(pixels, synthetic=True))])
    shown = []
    for row in batch.rows:
        head, _, body = row.thumbnail.partition(",")
        assert head == "data:image/jpeg;base64" and len(body) < 8000
        shown.append(np.asarray(Image.open(io.BytesIO(base64.b64decode(body)))).astype(int))
    assert shown[0].shape == shown[1].shape == (96, 96)
    assert [row.synthetic for row in batch.rows] == [False, True]
    plain = np.asarray(Image.fromarray(pixels).resize((96, 96), Image.Resampling.BILINEAR))
    changed = [np.abs(one - plain) for one in shown]
    assert changed[0].mean() < 3
    assert changed[1][:20].mean() > 10 and changed[1][40:].mean() < 3  # the word, at the top
    assert [(row.width, row.height, row.format) for row in batch.rows] == [(400, 400, "PNG")] * 2


def test_large_pictures_are_asked_alone_and_stand_in_order(monkeypatch) -> None:
    monkeypatch.setattr(batches, "LARGE_PIXELS", 2000)
    echo = Echo()
    sizes = [40, 60, 40, 60]
    batch = run_batch(echo, [(f"{k}", level(k, size)) for k, size in enumerate(sizes)])
    assert [row.answer.seconds for row in batch.rows] == [0, 1, 2, 3]
    assert sorted(echo.sizes) == [1, 1, 2]
    assert batch.picture(2).pixels.shape == (60, 60)


# ------------------------------------------------------------------------------ what is kept


def test_pixels_are_kept_up_to_a_total_of_all_batches(monkeypatch) -> None:
    monkeypatch.setattr(batches, "_batches", weakref.WeakSet())
    monkeypatch.setattr(batches, "MAX_KEPT_BYTES", 4 * 1600)
    first = run_batch(Echo(), [(str(k), level(k)) for k in range(3)])
    second = run_batch(Echo(), [(str(k), level(k)) for k in range(3)])
    assert [first.picture(k) is not None for k in (1, 2, 3)] == [True] * 3
    assert [second.picture(k) is not None for k in (1, 2, 3)] == [True, False, False]
    assert first.picture(3).pixels.flat[0] == 2
    first.close()
    assert first.picture(1) is None and not first.rows
    third = run_batch(Echo(), [(str(k), level(k)) for k in range(4)])
    assert [third.picture(k) is not None for k in (1, 2, 3, 4)] == [True, True, True, False]
    third_pictures = weakref.ref(third.picture(1))
    del third
    gc.collect()
    assert third_pictures() is None
    assert run_batch(Echo(), [("a", level(1))]).picture(1) is not None


def test_decoded_pictures_in_memory_are_few(monkeypatch) -> None:
    """Of 80 pictures two chunks, when none is kept to be looked at."""
    monkeypatch.setattr(batches, "MAX_KEPT_BYTES", 0)
    made: list[weakref.ref] = []
    alive: list[int] = []

    def decode(data: bytes) -> Decoded:
        decoded = Decoded(np.zeros((40, 40), np.uint8), 40, 40, "PNG", "L")
        made.append(weakref.ref(decoded))
        alive.append(sum(one() is not None for one in made))
        return decoded

    batch = Batch(Echo(), [(str(k), b"x") for k in range(80)], decode=decode)
    batch.start()
    assert batch.wait(60) and len(batch.rows) == 80
    assert READ_AT_ONCE <= max(alive) <= 2 * READ_AT_ONCE + 2
    gc.collect()
    assert not any(one() for one in made)


def test_bytes_are_let_go_of() -> None:
    data = level(1)
    before = sys.getrefcount(data)
    batch = Batch(Echo(), [("a", data), ("b", data)], decode=decode_image)
    assert sys.getrefcount(data) > before
    batch.start()
    assert batch.wait(20) and len(batch.rows) == 2
    gc.collect()
    assert sys.getrefcount(data) == before


# ------------------------------------------------------------------------------ stopping


def test_cancel_keeps_the_rows_so_far() -> None:
    hold = threading.Event()
    echo = Echo(hold)
    batch = Batch(echo, [(str(k), level(k % 250)) for k in range(100)], decode=decode_image)
    batch.start()
    assert echo.begun.wait(20)
    progress = batch.progress()
    assert (progress.state, progress.n, progress.done) == ("running", 100, 0)
    assert "files 1 to 8" in progress.doing and progress.left_s is None
    batch.cancel()
    hold.set()
    assert batch.wait(20)
    progress = batch.progress()
    assert (progress.state, progress.n, progress.done) == ("cancelled", 100, BATCH)
    assert len(batch.rows) == BATCH and echo.sizes == [BATCH]
    assert not any(t.name.startswith("batch-decode") for t in threading.enumerate())


def test_it_stops_by_itself_when_nobody_looks_and_goes_on_while_somebody_does(monkeypatch) -> None:
    now = [0.0]
    monkeypatch.setattr(batches, "time", SimpleNamespace(monotonic=lambda: now[0]))

    class Slow(Echo):
        """Takes a second; looks tells how far the batch is, as a page that polls does."""

        looks = staticmethod(lambda: None)

        def predict_many(self, pictures, *, chosen=None):
            now[0] += 1.0
            self.looks()
            return super().predict_many(pictures, chosen=chosen)

    files = [(str(k), level(k)) for k in range(8 * BATCH)]
    left = run_batch(Slow(), files, patience_s=2.5)
    # Asked after 0, 1 and 2 seconds; after 3 nobody has looked for longer than 2.5.
    assert left._state == "left" and len(left.rows) == 3 * BATCH
    slow = Slow()
    watched = Batch(slow, files, decode=decode_image, patience_s=2.5)
    slow.looks = watched.progress
    watched.start()
    assert watched.wait(60)
    assert watched.progress().state == "done" and len(watched.rows) == len(files)


def test_a_thread_that_fails_says_so(caplog) -> None:
    class Broken(Echo):
        def predict_many(self, pictures, *, chosen=None):
            if self.sizes:
                raise RuntimeError("the engine fell over")
            return super().predict_many(pictures, chosen=chosen)

    batch = run_batch(Broken(), [(str(k), level(k)) for k in range(20)])
    assert batch.progress().state == "failed" and len(batch.rows) == BATCH
    assert "the engine fell over" in caplog.text


def test_batches_take_turns_in_order() -> None:
    """One asks at a time, and one that has just asked stands behind the one that waits."""
    turns, order, inside = Turns(), [], []

    def ask(name: str) -> None:
        for _ in range(5):
            with turns:
                inside.append(name)
                time.sleep(0.01)
                assert inside == [name]
                inside.clear()
                order.append(name)

    threads = [threading.Thread(target=ask, args=(name,)) for name in "ab"]
    [thread.start() for thread in threads]
    [thread.join(10) for thread in threads]
    assert len(order) == 10 and "aaa" not in "".join(order) and "bbb" not in "".join(order)


def test_two_batches_never_ask_at_once(monkeypatch) -> None:
    monkeypatch.setattr(batches, "LARGE_PIXELS", 2000)
    inside, most = [], []

    class Watching(Echo):
        def predict_many(self, pictures, *, chosen=None):
            inside.append(1)
            time.sleep(0.01)
            most.append(len(inside))
            inside.pop()
            return super().predict_many(pictures, chosen=chosen)

    files = [(str(k), level(k, 60 if k % 2 else 40)) for k in range(12)]
    pair = [Batch(Watching(), files, decode=decode_image) for _ in range(2)]
    [batch.start() for batch in pair]
    assert all(batch.wait(30) for batch in pair) and max(most) == 1
    assert [len(batch.rows) for batch in pair] == [12, 12]


# ------------------------------------------------------------------------------ real models


@pytest.fixture(scope="module")
def predictor(demo_root: Path):
    return open_predictor(open_run(demo_root / "artifacts" / "demo"))


def test_a_row_says_what_the_single_picture_says(predictor) -> None:
    files = [(f"{k}.png", png(make_phantom("covid", k, 90 + k).pixels)) for k in range(3)]
    batch = batches.start_batch(predictor, files)  # through the decoding processes
    assert batch.wait(120) and batch.progress().state == "done"
    for row, (_, data) in zip(batch.rows, files, strict=True):
        alone = predictor.predict(decode_image(data))
        assert [own.model for own in row.answer.predictions] == [
            own.model for own in alone.predictions
        ]
        for own, other in zip(row.answer.predictions, alone.predictions, strict=True):
            np.testing.assert_allclose(own.probabilities, other.probabilities, atol=1e-5)
            assert own.predicted == other.predicted


def test_others_are_answered_while_a_batch_runs(predictor) -> None:
    data = png(make_phantom("covid", 1, 200).pixels)
    batch = Batch(predictor, [(str(k), data) for k in range(600)], decode=decode_image)
    batch.start()
    until(lambda: batch.rows)
    overtaken: list[int] = []  # files of the batch that came before each viewer's answer

    def ask() -> None:
        for _ in range(5):
            before = len(batch.rows)
            predictor.predict(decode_image(data))
            overtaken.append(len(batch.rows) - before)

    viewers = [threading.Thread(target=ask) for _ in range(4)]
    [viewer.start() for viewer in viewers]
    [viewer.join(60) for viewer in viewers]
    ran_on = batch.progress().state == "running"
    batch.close()
    assert batch.wait(30)
    assert len(overtaken) == 20 and max(overtaken) <= 10 * BATCH
    assert ran_on, "the batch was over before the others were answered"


# ------------------------------------------------------------------------------ words and tables


def fake_run(**members) -> SimpleNamespace:
    models = (*MODELS, "mobilenetv2_random", *members)
    return SimpleNamespace(
        models=models,
        class_names=NAMES,
        members=lambda name: list(members.get(name, ())),
        title=lambda name: name.upper(),
    )


ROWS = (
    BatchRow(1, "a.png", answer=answered("covid", "covid", "normal", looks_right=True)),
    BatchRow(2, "=b.png", "s.zip", answer=answered("covid", "covid", "covid", looks_right=False)),
    BatchRow(3, "c.txt", problem="It is empty."),
    BatchRow(4, "d.png", answer=answered("normal", "normal", "normal", looks_right=True)),
)


def test_agreement() -> None:
    assert batch_table.agreement(answered("covid", "covid", "normal"), MODELS) == "2 of 3 say covid"
    assert batch_table.agreement(answered("covid", "normal"), MODELS) == "no majority"
    assert batch_table.agreement(answered("covid", "covid"), MODELS) == "all say covid"
    assert batch_table.agreement(answered("covid", "normal"), ("cnn",)) == ""
    control = ImagePrediction(NAMES, (said("cnn", "covid"), said("resnet50", "covid"),
                                    said("mobilenetv2_random", "normal")))  # fmt: skip
    models = ("cnn", "resnet50", "mobilenetv2_random")
    assert batch_table.agreement(control, models) == "all say covid"


def test_parts_and_summary() -> None:
    counts = batch_table.count_parts(ROWS, MODELS)
    assert counts == {"all": 4, "right": 2, "refused": 1, "split": 1, "failed": 1}
    whole = BatchProgress("done", 4, 4, 1.0)
    assert batch_table.summary_words(ROWS, whole, "a frontal chest X-ray", MODELS) == (
        "2 of 4 look like a frontal chest X-ray; 1 does not; 1 file could not be read; the models "
        "disagree on 1."
    )
    part = BatchProgress("cancelled", 9, 4, 1.0)
    assert batch_table.summary_words(ROWS[3:], part, "", MODELS) == (
        "1 of 1 files were read; 5 are not done."
    )


def test_shown_table_blanks_refused_answers_unless_they_are_asked_for() -> None:
    run = fake_run()
    table = batch_table.shown_table(ROWS, run, MODELS, show_refused=False)
    assert list(table["CNN"]) == ["covid", "", "", "normal"]
    np.testing.assert_allclose(table["CNN, %"], [60, np.nan, np.nan, 60])
    assert list(table["Mean of the 3"]) == ["covid", "", "", "normal"]
    assert table["Mean of the 3, %"][0] == pytest.approx(100 * (0.6 + 0.6 + 0.2) / 3)
    assert list(table["Kind of picture"]) == [
        "looks right", "refused: a cat", "It is empty.", "looks right",
    ]  # fmt: skip
    assert table["File"][1] == "'=b.png" and table["From"][1] == "s.zip"
    shown = batch_table.shown_table(ROWS, run, MODELS, show_refused=True)
    assert list(shown["CNN"]) == ["covid", "covid (refused)", "", "normal"]
    assert shown["Agreement"][1] == "all say covid (refused)" and shown["CNN, %"][1] == 60


def test_a_chosen_ensemble_is_the_mean_and_a_control_is_no_part_of_it() -> None:
    run = fake_run(ensemble=MODELS)
    answer = answered("covid", "normal", "normal")
    answer = ImagePrediction(
        NAMES,
        (*answer.predictions, said("mobilenetv2_random", "covid"),
         said("ensemble", "normal", MODELS, conformal_set=("covid", "normal"))),
    )  # fmt: skip
    row = BatchRow(1, "a", answer=answer)
    everything = batch_table.shown_table([row], run, run.models, show_refused=False)
    assert list(everything.columns[5::3]) == [
        "ENSEMBLE", "CNN", "RESNET50", "MOBILENETV2", "MOBILENETV2_RANDOM",
    ]  # fmt: skip
    assert everything["ENSEMBLE, not ruled out"][0] == "covid, normal"
    # Not chosen, but just the mean of what is: its calibrated figures count.
    singles = batch_table.shown_table([row], run, MODELS, show_refused=False)
    assert singles["ENSEMBLE, not ruled out"][0] == "covid, normal"
    two = batch_table.shown_table([row], run, MODELS[:2], show_refused=False)
    assert two["Mean of the 2, %"][0] == pytest.approx(40) and two["CNN"][0] == "covid"
    assert "Mean of the 1" not in batch_table.shown_table([row], run, ("cnn",), show_refused=False)


def test_csv_has_every_number_and_no_formula() -> None:
    run = fake_run()
    calibrated = said("cnn", "covid", calibrated=np.array([0.5, 0.3, 0.2]),
                      conformal_set=("covid", "normal"))  # fmt: skip
    judgement = Judgement(False, 2.5, 1.25, "No: a cat.", ("a cat",))
    row = BatchRow(
        1, "=x.png", answer=ImagePrediction(NAMES, (calibrated,), judgement=judgement), width=9
    )
    table = batch_table.file_table([row, ROWS[2]], run, show_refused=True)
    first = table.iloc[0]
    assert first["cnn_p_covid"] == 0.6 and first["cnn_calibrated_normal"] == 0.3
    assert first["cnn_conformal_set"] == "covid|normal" and first["cnn_predicted"] == "covid"
    assert (first["refused"], first["guard_distance"], first["guard_threshold"]) == (
        "yes",
        2.5,
        1.25,
    )
    assert table.iloc[1]["error"] == "It is empty." and table.iloc[1]["refused"] == "unknown"
    blank = batch_table.file_table([row], run, show_refused=False).iloc[0]
    assert blank["refused"] == "yes" and blank["guard_distance"] == 2.5
    assert blank["cnn_predicted"] == "" and blank["cnn_p_covid"] is None
    assert table["width_px"].iloc[0] == 9 and table["width_px"].dtype == "Int64"
    text = metric_tables.csv_download(table).decode()
    assert text.splitlines()[1].startswith("'=x.png,")


def test_a_decoder_that_raises_the_module_s_error_gives_its_sentence() -> None:
    def refuse(data: bytes) -> Decoded:
        raise ImageError("The picture took longer than 20 s.")

    batch = Batch(Echo(), [("a", b"x")], decode=refuse)
    batch.start()
    assert batch.wait(20) and batch.rows[0].problem == "The picture took longer than 20 s."
