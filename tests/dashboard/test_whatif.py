"""What if: changes by slider, number and drag, and what the page says of the answers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from streamlit.testing.v1 import AppTest

from core.datasets.phantom.generate import make_phantom
from core.serving.what_if import Box
from dashboard.charts.style import model_style
from dashboard.charts.what_if import (
    Movement,
    dragged_box,
    headline,
    movement_text,
    plot_image,
    plot_movement,
)
from dashboard.predict import uploads

NAMES = ("covid", "normal", "pneumonia")


def page() -> None:
    """The part alone: a picture from the session, on the demo run."""
    import streamlit as st

    from dashboard.components import what_if
    from dashboard.components.page import page_frame
    from dashboard.data import runs as run_data

    selection = page_frame("Predict", ":material/upload_file:")
    predictor = run_data.load_predictor(selection.run)
    guard = st.session_state.get("test_guard")
    if guard is not None:
        predictor = guard(predictor)
    upload = st.session_state["test_upload"]
    answer = predictor.predict(upload.decoded, chosen=selection.models)
    what_if.show_what_if(selection, predictor, upload, answer)


def open_part(upload: uploads.Upload | None = None, **state) -> AppTest:
    app = AppTest.from_function(page, default_timeout=60)
    app.session_state["test_upload"] = upload or an_upload()
    for key, value in state.items():
        app.session_state[key] = value
    app.run()
    assert not app.exception
    return app


def an_upload(seed: int = 1, *, synthetic: bool = False) -> uploads.Upload:
    from core.imageio.decode import Decoded

    pixels = make_phantom("covid", seed, 120).pixels
    return uploads.make_upload("x.png", Decoded(pixels, 120, 120, "PNG", "L", synthetic=synthetic))


def words(app: AppTest) -> str:
    """The lines about the answers."""
    return next(m.value for m in app.main.markdown if "CNN\\: " in m.value)


def chart_alts(app: AppTest) -> list[str]:
    return [chart.proto.alt for chart in app.get("plotly_chart")]


# ------------------------------------------------------------------------------ the page


def test_begins_unchanged_and_says_so(demo_app: Path) -> None:
    app = open_part()
    assert words(app).startswith("Nothing is changed yet") and " to " not in words(app)
    assert chart_alts(app)[0] == "Picture x.png, unchanged."
    assert "not to be trusted" in app.caption[1].value


def test_a_slider_asks_the_models_about_the_changed_picture(demo_app: Path) -> None:
    from dataclasses import replace

    from core.runs.artifacts import open_run
    from core.serving.predict import open_predictor
    from core.serving.what_if import Changes, apply_changes

    app = open_part()
    app.slider(key="whatif_brightness").set_value(80).run()
    app.slider(key="whatif_contrast").set_value(60).run()
    app.slider(key="whatif_across").set_value((20, 100)).run()
    app.toggle(key="whatif_flip").set_value(True).run()
    assert not app.exception and "Nothing is changed" not in words(app)
    upload = an_upload()
    changes = Changes(80, 0.6, flip=True, across=(0.2, 1.0))
    pixels = apply_changes(upload.decoded.pixels, changes)
    predictor = open_predictor(open_run(demo_app / "demo"))
    decoded = replace(upload.decoded, pixels=pixels, width=96, height=120)
    before, after = predictor.predict(upload.decoded), predictor.predict(decoded)
    alt = chart_alts(app)[1]
    for own in before.predictions:
        then = after.of(own.model)
        for name, b, a in zip(NAMES, own.shares, then.shares, strict=True):
            assert f"{name} {100 * b:.0f}\u202f% to {100 * a:.0f}\u202f%" in alt
    assert "flipped left to right, cropped to 80 % of its width" in chart_alts(app)[0]


def test_numbers_hide_a_region_and_resets_bring_it_back(demo_app: Path) -> None:
    app = open_part()
    app.slider(key="whatif_rotation").set_value(10).run()
    app.number_input(key="whatif_width").set_value(50).run()
    assert app.button(key="whatif_reset_box").disabled, "no height, no box"
    app.number_input(key="whatif_height").set_value(40).run()
    assert "20.0 % of its area hidden under mean grey" in chart_alts(app)[0]
    app.segmented_control(key="whatif_fill").set_value("black").run()
    assert "hidden under black" in chart_alts(app)[0]
    app.number_input(key="whatif_left").set_value(80).run()
    assert "8.0 % of its area" in chart_alts(app)[0], "what juts out of the picture is cut off"
    app.button(key="whatif_reset_box").click().run()
    assert "hidden" not in chart_alts(app)[0] and "turned 10°" in chart_alts(app)[0]
    assert [app.number_input(key=f"whatif_{k}").value for k in ("left", "width")] == [0, 0]
    app.button(key="whatif_reset").click().run()
    assert words(app).startswith("Nothing is changed yet") and not app.exception
    assert app.slider(key="whatif_rotation").value == 0


def test_a_dragged_box_goes_into_the_numbers(demo_app: Path, monkeypatch) -> None:
    from dashboard.components import what_if

    app = open_part()
    dragged = {"selection": {"box": [{"x": [60.4, 20.2], "y": [10, 50]}]}}
    monkeypatch.setattr(what_if.st, "session_state", state := {"k": dragged})
    what_if._take_drag("k")
    monkeypatch.undo()
    assert [state[key] for key in what_if.BOX] == [20, 10, 40, 40]
    assert state["whatif_round"] == 1  # another chart, without the outline
    assert not app.exception


def test_another_picture_begins_unchanged_and_the_same_one_does_not(demo_app: Path) -> None:
    app = open_part()
    app.slider(key="whatif_contrast").set_value(200).run()
    app.run()
    assert app.slider(key="whatif_contrast").value == 200
    app.session_state["test_upload"] = an_upload(2)
    app.run()
    assert app.slider(key="whatif_contrast").value == 100 and not app.exception


@pytest.mark.parametrize("ends", [(100, 100), (0, 0), (50, 55)])
def test_crops_that_leave_too_little_keep_a_tenth(demo_app: Path, ends) -> None:
    app = open_part()
    app.slider(key="whatif_down").set_value(ends).run()
    assert not app.exception and "10 % of its height" in chart_alts(app)[0]


def test_the_picture_of_a_phantom_says_synthetic(demo_app: Path) -> None:
    assert "SYNTHETIC" in chart_alts(open_part(an_upload(synthetic=True)))[0]


def test_the_guard_is_asked_about_the_changed_picture(demo_app: Path) -> None:
    app = open_part(test_guard=guarded)
    assert not app.warning
    app.slider(key="whatif_brightness").set_value(100).run()
    assert "would be refused" in app.warning[0].value and "too bright" in app.warning[0].value
    app.slider(key="whatif_brightness").set_value(-5).run()
    assert not app.warning and any("would pass" in c.value for c in app.caption)


def guarded(predictor):
    """The answerer with a guard that refuses bright pictures."""
    from dataclasses import replace

    from core.serving.guard.detector import Judgement

    class Guard:
        model, subject, threshold = "cnn", "a frontal chest X-ray", 1.0

        def check(self, features, decoded, predict_features):
            right = decoded.pixels.mean() < 160
            return Judgement(right, 0.5, 1.0, "It does." if right else "No: it is too bright.")

        def nearest(self, features, k=5):
            return []

    return replace(predictor, guard=Guard())


# ------------------------------------------------------------------------------ words, charts


def moved(before, after, said="covid", says="covid", model="cnn") -> Movement:
    return Movement(
        model, model.upper(), model_style(model), np.array(before), np.array(after), said, says
    )


def test_movement_in_words() -> None:
    flipped = moved([0.81, 0.1, 0.09], [0.34, 0.6, 0.06], says="normal")
    assert (
        movement_text(flipped, NAMES) == "CNN: covid 81\u202f% to 34\u202f%, now normal (60\u202f%)"
    )
    held = moved([0.81, 0.1, 0.09], [0.7, 0.2, 0.1], model="resnet50")
    assert movement_text(held, NAMES) == "RESNET50: covid 81\u202f% to 70\u202f%"
    still = moved([0.81, 0.1, 0.09], [0.812, 0.1, 0.088], model="mobilenetv2")
    assert movement_text(still, NAMES) == "MOBILENETV2: covid 81\u202f%, unmoved"
    same = moved([0.81, 0.1, 0.09], [0.81, 0.1, 0.09])
    assert movement_text(same, NAMES) == "CNN: covid 81\u202f%"
    assert headline([flipped, held, still], NAMES) == "1 of 3 answers change: CNN."
    assert headline([flipped], NAMES) == "The answer changes: CNN."
    assert headline([held, still], NAMES) == (
        "All 2 answers stay; RESNET50 moves most, covid -11.0 points."
    )
    assert headline([still], NAMES) == "The answer stays, and no probability moves by a point."
    assert headline([], NAMES) == "No model could answer."


def test_movement_chart_has_hollow_before_and_filled_after_in_the_models_look() -> None:
    rows = [
        moved([0.8, 0.1, 0.1], [0.3, 0.6, 0.1], says="normal"),
        moved([0.5, 0.2, 0.3], [0.4, 0.3, 0.3], model="resnet50"),
    ]
    figure = plot_movement(rows, NAMES).figure
    marks = [trace for trace in figure.data if trace.mode == "markers"]
    assert [mark.marker.symbol for mark in marks] == [
        "circle-open",
        "circle",
        "square-open",
        "square",
    ]
    assert [tuple(mark.x) for mark in marks[:2]] == [(80, 10, 10), (30, 60, 10)]
    for trace, model in zip(marks, ("cnn", "cnn", "resnet50", "resnet50"), strict=True):
        assert trace.marker.color == model_style(model).colour
    assert [t.name for t in figure.data if t.showlegend] == ["CNN", "RESNET50"]
    line = next(t for t in figure.data if t.mode == "lines")
    np.testing.assert_allclose(line.x[:3], [80, 30, np.nan])
    assert line.y[0] == line.y[1] == marks[0].y[0]


def test_picture_chart_is_in_percent_and_can_be_dragged_on() -> None:
    chart = plot_image(np.zeros((50, 100), np.uint8), "Words.", Box(0.1, 0.2, 0.3, 0.4))
    layout = chart.figure.layout
    assert layout.dragmode == "select" and chart.alt == "Words."
    assert layout.yaxis.scaleratio == 0.5 and tuple(layout.yaxis.range) == (100, 0)
    outline = layout.shapes[0]
    assert [round(v) for v in (outline.x0, outline.x1, outline.y0, outline.y1)] == [10, 40, 20, 60]
    assert layout.images[0].source.startswith("data:image/jpeg;base64,")
    dots = chart.figure.data[0]
    assert len(dots.x) == 576 and dots.hoverinfo != "skip", "without marks a drag reports nothing"


@pytest.mark.parametrize(
    ("selected", "box"),
    [
        ({"selection": {"box": [{"x": [-5, 30], "y": [90, 120]}]}}, Box(0, 0.9, 0.3, 0.1)),
        ({"selection": {"box": [{"x": [10, 10.2], "y": [10, 60]}]}}, None),
        ({"selection": {"box": []}}, None),
        ({}, None),
        (None, None),
    ],
)
def test_dragged_box_is_cut_to_the_picture(selected, box) -> None:
    found = dragged_box(selected)
    assert (found is None) == (box is None)
    if box is not None:
        sides = ("left", "top", "width", "height")
        np.testing.assert_allclose(
            [getattr(found, s) for s in sides], [getattr(box, s) for s in sides]
        )
