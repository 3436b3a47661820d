"""The table of many pictures: what the page shows while a batch runs, and when it is done."""

from __future__ import annotations

import io
import threading
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from core.datasets.phantom.generate import make_phantom
from core.imageio import decode as images
from dashboard.components import batch as sections_batch
from dashboard.predict import batch as batches
from dashboard.predict.batch import BatchProgress


def page() -> None:
    """The part alone, on the demo run; what it returns goes into the session."""
    import streamlit as st

    from dashboard.components import batch as sections_batch
    from dashboard.components.page import page_frame
    from dashboard.data import runs as run_data

    selection = page_frame("Predict", ":material/upload_file:")
    predictor = run_data.load_predictor(selection.run)
    guard = st.session_state.get("test_guard")
    if guard is not None:
        predictor = guard(predictor)
    files = st.session_state.pop("test_files", None) if "test_files" in st.session_state else None
    if files:
        sections_batch.put_batch(files, selection, predictor)
    st.session_state["test_chosen"] = sections_batch.show_batch(selection, predictor)
    st.session_state["test_has"] = sections_batch.has_batch()


def png(seed: int, size_px: int = 80) -> bytes:
    file = io.BytesIO()
    Image.fromarray(make_phantom("covid", seed, size_px).pixels).save(file, "PNG")
    return file.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


FILES = [
    ("a.png", png(1)),
    ("set.zip", zipped({"b.png": png(2, 90), "note.txt": b"no picture"})),
    ("=c.png", png(3)),
]


@pytest.fixture(autouse=True)
def decode_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without processes of their own, which tests/dashboard/test_batch.py starts."""
    monkeypatch.setattr(batches.Batch.__init__, "__kwdefaults__", {
        "decode": images.decode_image, "patience_s": batches.PATIENCE_S,
    })  # fmt: skip


def open_part(files=FILES, **state) -> AppTest:
    app = AppTest.from_function(page, default_timeout=60)
    for key, value in {"test_files": files, **state}.items():
        app.session_state[key] = value
    app.run()
    assert not app.exception
    return app


def finished(app: AppTest) -> AppTest:
    assert app.session_state["batch"].wait(60)
    app.run()
    assert not app.exception
    return app


def guarded(predictor):
    """The answerer with a guard that refuses the picture of 90 px."""
    from dataclasses import replace

    from core.serving.guard.detector import Judgement

    class Guard:
        model, subject, threshold = "cnn", "a frontal chest X-ray", 1.0

        def check(self, features, decoded, predict_features):
            if decoded.width == 90:
                return Judgement(False, 2.0, 1.0, "No: a cat.", ("it is a cat",))
            return Judgement(True, 0.5, 1.0, "It does.")

    return replace(predictor, guard=Guard())


def test_nothing_dropped_shows_nothing(demo_app: Path) -> None:
    app = open_part(files=None)
    assert not app.session_state["test_has"] and not app.dataframe and not app.subheader


def test_table_summary_and_csv(demo_app: Path) -> None:
    app = finished(open_part(test_guard=guarded))
    assert app.subheader[0].value.startswith(
        "2 of 4 look like a frontal chest X-ray; 1 does not; 1 file could not be read"
    )
    table = app.dataframe[0].value
    assert list(table["File"]) == ["a.png", "b.png", "note.txt", "'=c.png"]
    assert list(table["From"]) == ["", "set.zip", "set.zip", ""]
    assert table["Kind of picture"][1] == "refused: it is a cat"
    assert table["CNN"][1] == "" and np.isnan(table["CNN, %"][1])
    assert table["CNN"][0] in ("covid", "normal", "pneumonia") and table["CNN, %"][0] > 33
    assert "no picture" in table["Kind of picture"][2] and "Mean of the 3" in table
    assert all(str(picture).startswith("data:image/jpeg") for picture in table["Picture"][[0, 1]])
    assert len(app.get("download_button")) == 1


def test_refused_answers_are_shown_marked_when_asked_for(demo_app: Path) -> None:
    app = finished(open_part(test_guard=guarded))
    app.toggle(key="batch_show_refused").set_value(True).run()
    table = app.dataframe[0].value
    assert table["CNN"][1].endswith(" (refused)") and table["CNN, %"][1] > 33
    assert not table["CNN"][0].endswith("(refused)")


def test_filter(demo_app: Path) -> None:
    app = finished(open_part(test_guard=guarded))
    app.segmented_control(key="batch_part").set_value("failed").run()
    table = app.dataframe[0].value
    assert list(table["File"]) == ["note.txt"]
    assert list(table.columns) == ["Picture", "File", "Kind of picture"], "room for sentences"
    app.segmented_control(key="batch_part").set_value("refused").run()
    assert list(app.dataframe[0].value["File"]) == ["b.png"]
    app.segmented_control(key="batch_part").set_value("right").run()
    assert list(app.dataframe[0].value["File"]) == ["a.png", "'=c.png"] and not app.exception


def test_a_chosen_picture_comes_back_with_its_pixels(demo_app: Path) -> None:
    app = finished(open_part())
    assert app.session_state["test_chosen"] is None
    box = app.selectbox(key="batch_chosen")
    assert [option[:1] for option in box.options] == ["1", "2", "4"], "what failed is not there"
    box.set_value(2).run()
    chosen = app.session_state["test_chosen"]
    assert chosen.name == "b.png"
    np.testing.assert_array_equal(chosen.decoded.pixels, make_phantom("covid", 2, 90).pixels)
    app.segmented_control(key="batch_part").set_value("failed").run()
    assert app.session_state["test_chosen"] is None and not app.exception


def test_a_click_chooses_by_the_row_that_is_shown(monkeypatch) -> None:
    state = {"table": {"selection": {"rows": [1]}}}
    monkeypatch.setattr(sections_batch.st, "session_state", state)
    sections_batch._take_click("table", [4, 7, 9])
    assert state["batch_chosen"] == 7
    state["table"] = {"selection": {"rows": []}}
    sections_batch._take_click("table", [4, 7, 9])
    assert state["batch_chosen"] is None


def test_pixels_that_were_not_kept_are_asked_for_again(demo_app: Path, monkeypatch) -> None:
    monkeypatch.setattr(batches, "MAX_KEPT_BYTES", 0)
    app = finished(open_part())
    app.selectbox(key="batch_chosen").set_value(1).run()
    assert app.session_state["test_chosen"] is None
    assert any("drop it alone" in info.value for info in app.info)


def test_models_of_the_sidebar_choose_the_columns(demo_app: Path) -> None:
    app = finished(open_part())
    app.sidebar.get("pills")
    app.session_state["models_demo"] = ["cnn"]
    app.run()
    assert not app.exception
    table = app.dataframe[0].value
    assert "CNN" in table and "ResNet50" not in table and "Mean of the 3" not in table


def test_clear_and_a_new_drop(demo_app: Path) -> None:
    app = finished(open_part())
    first = app.session_state["batch"]
    app.session_state["test_files"] = [("only.png", png(7))]
    app = finished(app.run())
    assert (
        list(app.dataframe[0].value["File"]) == ["only.png"]
        and "From" not in app.dataframe[0].value
    )
    assert not first.rows and first.picture(1) is None
    next(b for b in app.button if b.label == "Clear the table").click().run()
    assert not app.session_state["test_has"] and not app.dataframe and not app.exception


def test_progress_and_cancel(demo_app: Path, monkeypatch) -> None:
    go_on = threading.Event()

    def decode(data: bytes):
        assert go_on.wait(60)
        return images.decode_image(data)

    monkeypatch.setitem(batches.Batch.__init__.__kwdefaults__, "decode", decode)
    app = open_part([(f"{k}.png", png(1)) for k in range(6)])
    bar = app.get("progress")[0].proto
    assert bar.value == 0 and bar.text == "Reading the files: 0 of 6 files done"
    assert not app.dataframe and not app.get("download_button")
    app.button(key="batch_cancel").click()
    held = app.session_state["batch"]
    app.run()
    go_on.set()
    assert held.wait(60)
    app.run()
    assert not app.exception and "Cancelled" in app.warning[0].value
    assert app.subheader[0].value == "0 of 0 files were read; 6 are not done."


def test_a_page_that_was_left_says_so(demo_app: Path, monkeypatch) -> None:
    monkeypatch.setitem(batches.Batch.__init__.__kwdefaults__, "patience_s", -1.0)
    app = open_part()
    assert app.session_state["batch"].wait(60)
    app.run()
    assert not app.exception and "nobody looked" in app.warning[0].value


def test_another_run_does_not_show_these_answers(demo_app: Path) -> None:
    app = finished(open_part())
    app.session_state["batch_run"] = "another"
    app.run()
    assert not app.dataframe and "made by run demo" in app.info[0].value and not app.exception


def test_progress_in_words() -> None:
    words = sections_batch.progress_text
    assert words(BatchProgress("running", 500, 100, 5.0, "Asking")) == (
        "Asking: 100 of 500 files done, 20.0 a second, about 20 s left"
    )
    assert "about 3 min left" in words(BatchProgress("running", 200, 20, 20.0, "Asking"))
    assert words(BatchProgress("running", 3, 0, 1.0, "Reading")) == "Reading: 0 of 3 files done"


def test_sessions_do_not_wait_for_each_other(demo_app: Path, monkeypatch) -> None:
    """A page is drawn while another session's batch is busy decoding and asking."""
    begun = threading.Event()

    def decode(data: bytes):
        begun.set()
        time.sleep(0.05)
        return images.decode_image(data)

    monkeypatch.setitem(batches.Batch.__init__.__kwdefaults__, "decode", decode)
    busy = open_part([(f"{k}.png", png(1)) for k in range(200)])
    assert begun.wait(20)
    other = finished(open_part([("x.png", png(2))]))
    assert list(other.dataframe[0].value["File"]) == ["x.png"]
    held = busy.session_state["batch"]
    assert held.progress().state == "running"
    held.close()
    assert held.wait(60)
