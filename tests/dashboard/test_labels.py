"""The page Labels: tables worked by hand, the chart, both views, and a queue that is judged."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from core.datasets.phantom.generate import label_synthetic
from core.runs import artifacts
from dashboard.charts.labels import plot_agreement
from dashboard.charts.style import ChartFrame
from dashboard.components import gallery
from dashboard.components.markdown import escape
from dashboard.data import label_verdicts
from dashboard.data import runs as run_data
from dashboard.tables import labels as label_tables
from tests.support.audit import READER, add_audit
from tests.support.rendered_images import difference, record_media, shown_pictures
from tests.support.runs import make_run

APP = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"
MODELS = ("cnn", "mobilenetv2")
VIEW, DOUBTS = "labels_view", "doubtful_labels"

# ----------------------------------------------------------------------------- by hand


def agreement(value: float | None, low: float | None, high: float | None, n: int) -> dict:
    return {"value": value, "low": low, "high": high, "n": n}


READ = {
    "n": 50,
    "counts": {
        "normal": {"Normal": 8},
        "pneumonia": {"Lung Opacity": 20, "No Lung Opacity / Not Normal": 12, "Normal": 10},
    },
    "label": {"opacity": agreement(0.5, 0.4, 0.6, 50), "abnormal": agreement(0.7, 0.6, 0.8, 50)},
    "models": {
        "m": {"of": "out of fold", "questions": {"opacity": agreement(0.45, 0.3, 0.6, 50)}},
        "t": {"of": "test", "questions": {"opacity": agreement(0.25, None, None, 20)}},
    },
}


def doubt(image_id: str, label: str, suggested: str, **readings: str) -> dict:
    return {"image_id": image_id, "label": label, "suggested": suggested, "quality": 0.1,
            "readings": readings}  # fmt: skip


SECTION = {
    "models": ["m", "n"],
    "n": 1124,
    "n_doubtful": 4,
    "images": [
        doubt("a", "pneumonia", "normal", A="Lung Opacity", B="no airspace opacity"),
        doubt("b", "pneumonia", "normal", A="normal"),
        doubt("c", "normal", "pneumonia", A="Lung Opacity"),
        doubt("d", "pneumonia", "covid", A="Blurred"),
    ],
}


def verdicts(*rows: tuple[str, str, str]) -> pd.DataFrame:
    return pd.DataFrame(
        [(*row, "2026-03-01T10:00:00+00:00") for row in rows],
        columns=["image_id", "label", "verdict", "at"],
    )


def test_points_have_the_label_first_and_mark_what_is_of_the_test_split() -> None:
    points = label_tables.agreement_points(READ, ["m", "t"])
    said = list(points[["question", "model", "value", "n", "test_only"]].itertuples(index=False))
    assert [tuple(row) for row in said] == [
        ("opacity", "", 0.5, 50, False),
        ("opacity", "m", 0.45, 50, False),
        ("opacity", "t", 0.25, 20, True),
        ("abnormal", "", 0.7, 50, False),
    ]
    assert list(label_tables.agreement_points(READ, [])["model"]) == ["", ""]
    twin = label_tables.agreement_table(points, {"m": "M", "t": "T"})
    assert list(twin["compared"]) == ["Published label", "M", "T", "Published label"]
    assert list(twin["agreement, percent"]) == [50.0, 45.0, 25.0, 70.0]
    assert list(twin["low"])[:2] == [40.0, 30.0] and np.isnan(twin["low"][2])
    assert list(twin["images"]) == ["read", "read", "read, in the test split", "read"]


def test_readings_are_counted_by_label() -> None:
    table = label_tables.readings_table(READ).set_index("label")
    assert dict(table["all"]) == {"normal": 8, "pneumonia": 42}
    assert table.loc["normal", "Lung Opacity"] == 0
    assert table.loc["pneumonia", "Lung Opacity"] == 20


def test_the_ceiling_is_called_an_estimate_for_the_images_that_were_read() -> None:
    said = label_tables.ceiling_sentence("A", READ).replace("\u202f", " ")
    assert said == (
        "A model that repeats every label would agree with A in 70.0 % (60.0 to 80.0) on anything "
        "not normal and 50.0 % (40.0 to 60.0) on an opacity: an estimate of an accuracy ceiling, "
        "for the images that were read."
    )
    assert label_tables.ceiling_sentence("A", READ | {"label": {}}) == ""


def test_how_many_labels_are_doubted_and_by_whom() -> None:
    assert label_tables.doubt_sentence(SECTION, {}) == (
        "4 of 1,124 labels are doubted by the cross-validated models together."
    )
    one = SECTION | {"models": ["m"], "n_doubtful": 1}
    assert label_tables.doubt_sentence(one, {"m": "Net"}) == (
        "1 of 1,124 labels is doubted by Net, the only cross-validated model."
    )


def test_second_readers_are_counted_over_doubted_pneumonia_labels_alone() -> None:
    """A read a (opacity), b (none) and, unanswered, d; c is no pneumonia label. B read a."""
    assert label_tables.opinion_sentence(SECTION, {"A": READ}) == (
        "A doubt is no proof. Of 3 doubted pneumonia labels, A saw an opacity in 1 of the 2 that "
        "they read (all pneumonia labels: 20 of 42); B saw an opacity in 0 of the 1 that they read."
    )
    unread = SECTION | {"images": [doubt("a", "pneumonia", "normal")]}
    assert "no second reader read" in label_tables.opinion_sentence(unread, {})


def test_a_verdict_counts_for_the_label_that_is_doubted() -> None:
    queue = label_tables.queue_table(
        SECTION, verdicts(("b", "pneumonia", "wrong"), ("c", "covid", "keep"), ("z", "x", "keep"))
    )
    assert list(queue["image_id"]) == list("abcd")
    assert list(queue["verdict"]) == ["", "wrong", "", ""]
    assert label_tables.progress_sentence(queue) == "1 of 4 judged: 1 wrong"
    assert label_tables.progress_sentence(queue.assign(verdict="")) == "0 of 4 judged"


@pytest.mark.parametrize(
    ("label", "suggested", "verdict", "expected"),
    [
        (None, None, "any", "abcd"),
        ("pneumonia", None, "any", "abd"),
        (None, "normal", "any", "ab"),
        ("pneumonia", "normal", "not given", "a"),
        (None, None, "given", "b"),
        ("covid", None, "any", ""),
    ],
)
def test_filters(label: str | None, suggested: str | None, verdict: str, expected: str) -> None:
    queue = label_tables.queue_table(SECTION, verdicts(("b", "pneumonia", "unsure")))
    shown = label_tables.filter_queue(queue, label, suggested, verdict)
    assert "".join(shown["image_id"]) == expected


def test_the_queue_begins_at_the_first_that_is_not_judged() -> None:
    queue = label_tables.queue_table(SECTION, verdicts(("a", "pneumonia", "keep")))
    assert label_tables.find_place(queue, "d") == 3
    assert label_tables.find_place(queue, None) == label_tables.find_place(queue, "gone") == 1
    assert label_tables.find_place(queue.assign(verdict="keep"), None) == 0


def test_what_each_model_says_of_an_image() -> None:
    table = pd.DataFrame(
        {"image_id": ["a"], "predicted": ["normal"], "p_normal": [0.9], "p_pneumonia": [0.08],
         "p_covid": [0.02]}
    )  # fmt: skip
    tables = {"m": table, "t": table, "out": table.assign(image_id="other")}
    names = {"m": "M", "t": "T", "out": "O"}
    said = label_tables.answer_table(SECTION["images"][0], tables, names, {"t"})
    assert said.replace("\u202f", " ", regex=True).to_dict("records") == [
        {"Model": "M", "Says": "normal", "pneumonia": "8.0 %", "normal": "90.0 %"},
        {"Model": "T (test split)", "Says": "normal", "pneumonia": "8.0 %", "normal": "90.0 %"},
    ]


def test_other_images_of_the_patient() -> None:
    manifest = pd.DataFrame({"image_id": list("dcba"), "patient_id": ["p", "p", "q", "p"]})
    assert list(label_tables.other_images(manifest, "c")["image_id"]) == ["a", "d"]
    assert label_tables.other_images(manifest, "b").empty


def test_scores_have_n_and_intervals_with_and_without() -> None:
    score = {"accuracy": 0.8, "low": 0.7, "high": 0.9, "macro_f1": 0.6}
    ends = {"macro_f1_low": 0.5, "macro_f1_high": 0.7}
    section = SECTION | {"scores": {model: {"all": score | ends} for model in "mn"}}
    for scores in section["scores"].values():
        scores["without_doubtful"] = score | {"accuracy": 0.85} | ends
    table = label_tables.scores_table(section, {"m": "M"}).replace("\u202f", " ", regex=True)
    assert table.to_dict("records") == [
        {
            "Model": "M",
            "Accuracy, all 1,124": "80.0 % (70.0 to 90.0)",
            "Accuracy, 1,120 not doubted": "85.0 % (70.0 to 90.0)",
            "Macro-F1, all 1,124": "60.0 % (50.0 to 70.0)",
            "Macro-F1, 1,120 not doubted": "60.0 % (50.0 to 70.0)",
        }
    ]


def test_the_chart_shades_the_labels_interval_and_names_n_in_every_lane() -> None:
    frame = ChartFrame(["m", "t"], {"m": "Net <b>", "t": "Tiny"})
    points = label_tables.agreement_points(READ, ["m", "t"])
    chart = plot_agreement(points, frame, "opacity", reader="A", theme="light")
    lanes = [note.text for note in chart.figure.layout.annotations]
    assert lanes == [
        "Published label, n = 50", "Net &lt;b&gt;, n = 50", "Tiny, n = 20 test images",
    ]  # fmt: skip
    assert [trace.x[0] for trace in chart.figure.data] == [50, 45, 25]
    assert [trace.marker.symbol.endswith("-open") for trace in chart.figure.data] == [
        False, False, True,
    ]  # fmt: skip
    band = next(shape for shape in chart.figure.layout.shapes if shape.type == "rect")
    assert (band.x0, band.x1) == (40, 60)
    assert chart.figure.layout.xaxis.range[0] < 25
    assert "Tiny 25.0\u202f% (no interval), n = 20 test images" in chart.alt
    unknown = points.assign(low=np.nan, high=np.nan)
    chart = plot_agreement(unknown, frame, "opacity", reader="A", theme="dark")
    assert not any(shape.type == "rect" for shape in chart.figure.layout.shapes)


# ----------------------------------------------------------------------------- page


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """artifacts/demo with folds and an audit, and its phantoms, to copy and never to write to."""
    root = tmp_path_factory.mktemp("whole")
    add_audit(make_run(root / "artifacts", n=60, models=MODELS, folds=3))
    return root


@pytest.fixture
def run_dir(whole: Path, empty_app: Path) -> Path:
    shutil.copytree(whole / "data", empty_app.parent / "data")
    return Path(shutil.copytree(whole / "artifacts" / "demo", empty_app / "demo"))


def open_labels(view: str = "") -> AppTest:
    app = AppTest.from_file(APP, default_timeout=120).run()
    app.switch_page("app_pages/labels.py").run()
    if view:
        app.session_state[VIEW] = view
        app.run()
    assert not app.exception
    return app


def words(app: AppTest) -> str:
    kinds = (app.main.markdown, app.main.caption, app.main.info, app.main.code, app.main.error)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def change_audit(run_dir: Path, **sections: object) -> None:
    file = run_dir / "audit" / "audit.json"
    document = json.loads(file.read_text(encoding="utf-8")) | sections
    kept = {key: value for key, value in document.items() if value != "gone"}
    file.write_text(json.dumps(kept), encoding="utf-8")


def doubted(run_dir: Path) -> list[dict]:
    audit = json.loads((run_dir / "audit" / "audit.json").read_text(encoding="utf-8"))
    return audit[DOUBTS]["images"]


def csv_rows(run_dir: Path) -> list[list[str]]:
    file = run_dir.parents[1] / "annotations" / "demo" / "labels.csv"
    with open(file, encoding="utf-8", newline="") as stream:
        return list(csv.reader(stream))[1:]


def press(app: AppTest, verdict: str, image_id: str) -> None:
    app.button(key=f"labels_{verdict}_{image_id}").click().run()
    assert not app.exception


def shown_image(app: AppTest) -> str:
    buttons = [b.key for b in app.button if str(b.key).startswith("labels_keep_")]
    return buttons[0].removeprefix("labels_keep_")


def alts(app: AppTest) -> list[str]:
    return [chart.proto.alt for chart in app.main.get("plotly_chart")]


def test_first_comes_the_verdict_on_second_readers(run_dir: Path) -> None:
    app = open_labels()
    said = [m.value for m in app.main.markdown if not m.value.startswith(":")]
    assert said[0].startswith(f"#### {READER}\\: radiologists saw an opacity in 40.0 % of the 40")
    text = words(app)
    assert "the label agrees with them in at most 75.0 %" in text
    assert "an estimate of an accuracy ceiling, for the images that were read" in text
    assert f"{READER} chose which images to read" in text and "Blurred" in text
    opacity, abnormal = alts(app)
    assert opacity.startswith(f"{READER}: saw an opacity") and "CNN 45.0" in opacity
    assert abnormal.startswith(f"{READER}: saw anything not normal")
    assert "Hollow" not in text and "test images" not in opacity


def test_charts_follow_the_reader_and_the_models_that_are_chosen(run_dir: Path) -> None:
    app = open_labels()
    app.session_state["labels_reader"] = "Panel B"
    app.pills(key="models_demo").set_value(["mobilenetv2"]).run()
    assert not app.exception
    (chart,) = alts(app)
    assert chart.startswith("Panel B: saw an opacity") and "n = 30" in chart
    assert "MobileNetV2" in chart and "CNN" not in chart
    assert "airspace opacity" in app.main.table[0].value.columns


def test_models_that_were_asked_on_test_images_alone_are_marked(empty_app: Path) -> None:
    add_audit(make_run(empty_app, n=30, images=False, models=MODELS))
    app = open_labels()
    assert "CNN 45.0\u202f%" in alts(app)[0] and "n = 30 test images" in alts(app)[0]
    assert "Hollow: test images only" in words(app)


def test_without_an_audit_a_sentence_and_the_command(run_dir: Path) -> None:
    shutil.rmtree(run_dir / "audit")
    app = open_labels()
    assert app.main.info[0].value.startswith("No audit of this run was made")
    assert app.main.code[0].value == "python -m core audit --run demo"


@pytest.mark.parametrize("how", ["gone", None])
def test_an_older_audit_has_neither_section(run_dir: Path, how: str | None) -> None:
    change_audit(run_dir, readers=how, doubtful_labels=how)
    app = open_labels()
    assert app.main.info[0].value.startswith("This audit has no second readers")
    assert app.main.code[0].value == "python -m core audit --run demo"
    app = open_labels(DOUBTS)
    assert app.main.info[0].value == "This audit is older than the search for doubtful labels."
    assert app.main.code[0].value == "python -m core audit --run demo"


def test_without_folds_the_command_that_trains_them(empty_app: Path) -> None:
    add_audit(make_run(empty_app, n=30, images=False, models=MODELS))
    app = open_labels(DOUBTS)
    assert "no model of this run has folds" in app.main.info[0].value
    assert "--folds 5" in app.main.code[0].value


def test_a_damaged_section_is_named(run_dir: Path) -> None:
    change_audit(run_dir, readers={"readers": 3})
    assert "is damaged" in open_labels().main.info[0].value


def test_doubts_without_second_readers(run_dir: Path) -> None:
    change_audit(run_dir, readers=None)
    assert f"{READER} saw an opacity" in words(open_labels(DOUBTS))


def test_the_most_doubtful_image_comes_first_with_what_is_said_of_it(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    media = record_media(monkeypatch)
    images = doubted(run_dir)
    app = open_labels(DOUBTS)
    first = images[0]
    assert shown_image(app) == first["image_id"]
    text = words(app)
    n = len(artifacts.load_manifest(artifacts.open_run(run_dir)))
    assert f"#### {len(images)} of {n} labels are doubted by the cross-validated models" in text
    assert f"Labelled **{first['label']}**, the models suggest **{first['suggested']}**" in text
    assert f"**0 of {len(images)} judged**" in text and f"1 of {len(images)}" in text
    answers = app.main.table[0].value
    assert list(answers["Model"].str.contains("CNN|MobileNetV2")) == [True, True]
    large, *small = shown_pictures(app, media)
    file = run_dir.parents[1] / "data" / "phantom" / f"{first['image_id']}.png"
    expected = label_synthetic(gallery.letterboxed(run_data.read_thumbnail(file, 800), 800))
    assert large.shape[:2] == (800, 800) and difference(large, expected) < 3
    assert len(small) == 1  # two phantoms a patient
    assert app.image[1].proto.imgs[0].caption.startswith(first["label"])
    assert app.image[1].proto.imgs[0].alt.split()[3] == first["image_id"].replace("_0", "_1") + ","
    assert "**Other images of this patient: 1**" in text


def test_the_second_reading_stands_beside_the_doubt(run_dir: Path) -> None:
    app = open_labels(DOUBTS)
    read = next(image for image in doubted(run_dir) if image["readings"])
    app.session_state["labels_at"] = read["image_id"]
    app.run()
    assert f"{READER}: **{read['readings'][READER]}**" in words(app)


def test_a_verdict_is_written_and_the_next_image_comes(run_dir: Path) -> None:
    images = doubted(run_dir)
    ids = [image["image_id"] for image in images]
    app = open_labels(DOUBTS)
    press(app, "wrong", ids[0])
    (row,) = csv_rows(run_dir)
    assert row[:4] == [ids[0], images[0]["label"], images[0]["suggested"], "wrong"]
    assert row[4].endswith("+00:00")
    assert shown_image(app) == ids[1]
    assert f"**1 of {len(ids)} judged: 1 wrong**" in words(app)
    assert not any("labels.csv" in str(path) for path in run_dir.rglob("*"))
    press(app, "keep", ids[1])
    app.button(key="labels_previous").click().run()
    assert shown_image(app) == ids[1] and "Verdict: **keep**" in words(app)
    press(app, "unsure", ids[1])
    assert [row[3] for row in csv_rows(run_dir)] == ["wrong", "unsure"]


def test_undo_takes_back_one_verdict_after_the_other(run_dir: Path) -> None:
    ids = [image["image_id"] for image in doubted(run_dir)]
    app = open_labels(DOUBTS)
    assert app.button(key="labels_undo").disabled
    press(app, "keep", ids[0])
    press(app, "wrong", ids[1])
    app.button(key="labels_undo").click().run()
    assert [row[0] for row in csv_rows(run_dir)] == [ids[0]] and shown_image(app) == ids[1]
    app.button(key="labels_undo").click().run()
    assert csv_rows(run_dir) == [] and shown_image(app) == ids[0]
    assert app.button(key="labels_undo").disabled


def test_two_windows_keep_each_others_verdicts(run_dir: Path) -> None:
    ids = [image["image_id"] for image in doubted(run_dir)]
    mine, theirs = open_labels(DOUBTS), open_labels(DOUBTS)
    press(mine, "keep", ids[0])
    press(theirs, "wrong", ids[0])
    press(theirs, "unsure", ids[1])
    mine.button(key="labels_undo").click().run()
    assert "was changed in another window" in mine.main.error[0].value
    assert [(row[0], row[3]) for row in csv_rows(run_dir)] == [
        (ids[0], "wrong"), (ids[1], "unsure"),
    ]  # fmt: skip
    assert f"2 of {len(ids)} judged" in words(mine)


def test_filters_shorten_the_queue_and_may_leave_nothing(run_dir: Path) -> None:
    images = doubted(run_dir)
    pneumonia = [image["image_id"] for image in images if image["label"] == "pneumonia"]
    app = open_labels(DOUBTS)
    app.selectbox(key="labels_label").select("pneumonia").run()
    app.selectbox(key="labels_verdict").select("not given").run()
    assert shown_image(app) == pneumonia[0] and f"1 of {len(pneumonia)}" in words(app)
    press(app, "keep", pneumonia[0])
    assert shown_image(app) == pneumonia[1] and f"1 of {len(pneumonia) - 1}" in words(app)
    app.selectbox(key="labels_suggested").select("pneumonia").run()
    assert "No doubted label fits these filters." in app.main.info[0].value


def test_a_damaged_file_is_said_and_nothing_can_be_given(run_dir: Path) -> None:
    file = run_dir.parents[1] / "annotations" / "demo" / "labels.csv"
    file.parent.mkdir(parents=True)
    file.write_text("something else\n")
    app = open_labels(DOUBTS)
    assert "is damaged" in app.main.error[0].value
    assert app.button(key=f"labels_keep_{shown_image(app)}").disabled
    assert app.button(key="labels_undo").disabled
    assert file.read_text() == "something else\n"


def test_a_file_that_was_damaged_since_the_page_was_drawn_is_left_alone(run_dir: Path) -> None:
    file = run_dir.parents[1] / "annotations" / "demo" / "labels.csv"
    app = open_labels(DOUBTS)
    file.parent.mkdir(parents=True)
    file.write_text("something else\n")
    press(app, "keep", shown_image(app))
    assert "is damaged" in app.main.error[0].value
    assert file.read_text() == "something else\n"


def test_a_verdict_that_cannot_be_saved_is_said(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_text(path: Path, text: str) -> None:
        raise OSError(28, "No space left on device")

    app = open_labels(DOUBTS)
    first = shown_image(app)
    monkeypatch.setattr(label_verdicts, "write_text", write_text)
    press(app, "keep", first)
    said = app.main.error[0].value
    assert "The verdict was not saved" in said and "No space left on device" in said
    assert shown_image(app) == first and app.button(key="labels_undo").disabled


def test_without_the_images_a_sentence_stands_in_their_place(run_dir: Path) -> None:
    shutil.rmtree(run_dir.parents[1] / "data")
    app = open_labels(DOUBTS)
    assert not app.image
    assert "Not on this machine" in words(app)
    press(app, "keep", shown_image(app))
    assert len(csv_rows(run_dir)) == 1


def test_scores_without_doubtful_labels_are_called_no_better(run_dir: Path) -> None:
    app = open_labels(DOUBTS)
    assert escape(label_tables.NO_BETTER) in words(app)
    scores = app.main.table[-1].value
    assert any("not doubted" in column for column in scores.columns) and len(scores) == 2
