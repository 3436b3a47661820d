"""Confusion matrices: worked by hand, the cell that was asked for, the images in it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from core.runs import artifacts
from dashboard.charts.confusion import (
    SCALES,
    MatrixScale,
    describe_confusion,
    ink_on,
    plot_confusion,
)
from dashboard.tables.predictions import (
    cell_images,
    clicked_cell,
    count_cells,
    join_predictions,
    shares,
    worst_mistakes,
)
from tests.support.runs import CLASS_NAMES, make_run

APP = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"
COUNTS = np.array([[3, 1, 0], [0, 4, 4], [0, 0, 0]])
MODELS = ("cnn", "resnet50", "mobilenetv2")


def open_page(page: str = "confusion") -> AppTest:
    app = AppTest.from_file(APP, default_timeout=60).run()
    return app.switch_page(f"app_pages/{page}.py").run()


def choose(app: AppTest, model: str, true: str, predicted: str) -> AppTest:
    for key, value in (("cell_model", model), ("cell_true", true), ("cell_predicted", predicted)):
        app.selectbox(key=key).set_value(value)
    return app.run()


def chip(app: AppTest) -> str | None:
    found = [button for button in app.button if button.key == "confusion_chip"]
    return found[0].label if found else None


def shown_images(app: AppTest) -> list[str]:
    return [button.help for button in app.button if button.label == "Look closer"]


def charts(app: AppTest) -> list[dict]:
    return [json.loads(chart.proto.spec) for chart in app.get("plotly_chart")]


# ----------------------------------------------------------------------------- numbers


def test_shares_by_hand() -> None:
    by_true = shares(COUNTS, "true")
    np.testing.assert_allclose(by_true[:2], [[0.75, 0.25, 0], [0, 0.5, 0.5]])
    assert np.isnan(by_true[2]).all(), "a class without images has no share"
    by_predicted = shares(COUNTS, "predicted")
    np.testing.assert_allclose(by_predicted, [[1, 0.2, 0], [0, 0.8, 1], [0, 0, 0]])
    np.testing.assert_array_equal(shares(COUNTS, "counts"), COUNTS)


def answers_by_hand() -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "image_id": ["a", "b", "c", "d"],
            "label": ["x", "x", "y", "x"],
            "predicted": ["y", "x", "y", "y"],
            "p_x": [0.4, 0.9, 0.2, 0.1],
            "p_y": [0.6, 0.1, 0.8, 0.9],
        }
    )
    return join_predictions({"m": table}, ["x", "y"])


def test_cells_have_rows_true_and_columns_predicted() -> None:
    np.testing.assert_array_equal(count_cells(answers_by_hand(), "m", ["x", "y"]), [[1, 2], [0, 1]])


def test_images_of_a_cell_come_with_the_surest_first() -> None:
    rows = cell_images(answers_by_hand(), "m", "x", "y")
    assert list(rows["image_id"]) == ["d", "a"]
    np.testing.assert_allclose(rows["confidence"], [0.9, 0.6])


A, B = ("m", "x", "y"), ("m", "y", "x")
POINT = [{"customdata": [*A, 4]}]


@pytest.mark.parametrize(
    ("points", "last", "current", "cell"),
    [
        (POINT, None, None, A),
        (POINT, B, B, A),
        ([], A, A, None),  # the second click on the chosen cell
        ([], A, B, A),  # the same, after another chart or the boxes chose something else
        ([], A, None, A),  # the same, after the chip cleared the choice
        (POINT, A, A, None),  # and the third
        ([], None, None, None),
    ],
)
def test_every_click_does_what_is_seen(points, last, current, cell) -> None:
    assert clicked_cell(points, last, current) == cell


# ----------------------------------------------------------------------------- figure


@pytest.mark.parametrize(
    ("normalise", "words", "text"),
    [
        ("counts", "number of images", "<b>1</b><br>25.0 %"),
        ("true", "each row sums to 100 %", "<b>25.0 %</b><br>1"),
        ("predicted", "each column sums to 100 %", "<b>20.0 %</b><br>1"),
    ],
)
def test_figure_says_how_it_is_normalised(normalise: str, words: str, text: str) -> None:
    figure = plot_confusion(
        COUNTS, list("abc"), title="CNN", model="cnn", scale=MatrixScale(normalise)
    )
    assert words in figure.layout.title.text and "n = 12" in figure.layout.title.text
    assert figure.data[1].text[1] == text


def test_markers_that_take_the_click_lie_over_every_cell_with_hover_on() -> None:
    figure = plot_confusion(
        COUNTS, list("abc"), title="CNN", model="cnn", scale=MatrixScale("counts")
    )
    cells, markers = figure.data
    assert cells.type == "heatmap" and markers.type == "scatter"
    assert markers.hoverinfo != "skip" and "skip" not in (markers.hovertemplate or "")
    assert [list(row) for row in markers.customdata] == [
        ["cnn", true, predicted, int(COUNTS[i, j])]
        for i, true in enumerate("abc")
        for j, predicted in enumerate("abc")
    ]
    for k, (x, y) in enumerate(zip(markers.x, markers.y, strict=True)):
        assert [y, x] == list(markers.customdata[k][1:3]), "rows are true, columns predicted"
        assert cells.z[list(cells.y).index(y)][list(cells.x).index(x)] == markers.customdata[k][3]


def test_matrices_that_are_shown_together_share_one_scale() -> None:
    scale = MatrixScale.over([COUNTS, COUNTS * 5], "counts", "dark")
    assert scale == MatrixScale("counts", 20, "dark")
    assert MatrixScale.over([COUNTS], "true", "light").top == 1
    figure = plot_confusion(COUNTS, list("abc"), title="", model="m", scale=scale)
    assert (figure.data[0].zmin, figure.data[0].zmax) == (0, 20)


@pytest.mark.parametrize("theme", list(SCALES))
def test_numbers_read_on_every_colour_of_the_scale(theme: str) -> None:
    def luminance(colour: str) -> float:
        parts = [int(colour[k : k + 2], 16) / 255 for k in (1, 3, 5)]
        parts = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), parts, strict=True))

    for level, colour in SCALES[theme]:
        pair = sorted((luminance(colour), luminance(ink_on(level, theme))))
        assert (pair[1] + 0.05) / (pair[0] + 0.05) >= 4.5


def test_alt_text_names_the_most_frequent_mistake() -> None:
    words = describe_confusion(COUNTS, list("abc"), "CNN", "true")
    assert "7 of 12 images on the diagonal" in words and "b predicted as c, 4 images" in words


# ----------------------------------------------------------------------------- page


def test_the_most_frequent_mistake_is_said_once_where_all_make_it() -> None:
    a, b = np.array([[5, 3], [1, 9]]), np.array([[7, 2], [2, 8]])
    titles = {"a": "A", "b": "B", "c": "C"}
    assert worst_mistakes({"a": a, "b": b}, ["x", "y"], titles) == (
        "Most frequent mistake of all models: x as y (A 3 of 8, B 2 of 9)."
    )
    assert worst_mistakes({"a": a, "b": a.T, "c": np.diag([4, 4])}, ["x", "y"], titles) == (
        "Most frequent mistake: A x as y (3 of 8); B y as x (3 of 12); C none."
    )
    assert (
        worst_mistakes({"a": a}, ["x", "y"], titles) == "Most frequent mistake: A x as y (3 of 8)."
    )


def test_page_shows_one_matrix_a_model_on_one_scale_with_alt_text(demo_app: Path) -> None:
    app = open_page()
    assert not app.exception
    drawn = charts(app)
    assert [chart["data"][1]["customdata"][0][0] for chart in drawn] == list(MODELS)
    assert {chart["data"][0]["zmax"] for chart in drawn} == {1.0}
    assert "random init" in drawn[1]["layout"]["title"]["text"]
    assert all("Confusion matrix of" in chart.proto.alt for chart in app.get("plotly_chart"))


def test_counts_are_those_of_metrics_json(demo_app: Path) -> None:
    app = open_page()
    app.segmented_control(key="confusion_normalise").set_value("counts").run()
    run = artifacts.open_run(demo_app / "demo")
    for chart, model in zip(charts(app), MODELS, strict=True):
        counts = [row[3] for row in chart["data"][1]["customdata"]]
        matrix = artifacts.load_metrics(run, model)["confusion_matrix"]
        assert counts == [n for row in matrix for n in row]
        assert "number of images" in chart["layout"]["title"]["text"]
    assert len({chart["data"][0]["zmax"] for chart in charts(app)}) == 1


def test_boxes_show_exactly_the_images_of_the_cell_and_the_chip_clears(demo_app: Path) -> None:
    app = open_page()
    assert chip(app) is None and not shown_images(app)
    choose(app, "cnn", "pneumonia", "pneumonia")
    table = artifacts.load_predictions(artifacts.open_run(demo_app / "demo"), "cnn")
    here = (table["label"] == "pneumonia") & (table["predicted"] == "pneumonia")
    expected = table[here].sort_values("p_pneumonia", ascending=False)
    n = len(expected)
    assert n > 1, "the factory's run has images here"
    assert chip(app) == f"pneumonia predicted as pneumonia, CNN, {n} images"
    assert shown_images(app) == list(expected["image_id"])
    assert len(app.image) == n
    first = next(m.value for m in app.markdown if m.value.startswith("True: **pneumonia**"))
    assert f"CNN: pneumonia {100 * expected['p_pneumonia'].iloc[0]:.1f}" in first
    assert "ResNet50:" in first and "MobileNetV2:" in first

    app.button(key="confusion_chip").click().run()
    assert chip(app) is None and not shown_images(app)
    assert app.selectbox(key="cell_model").value is None


def test_the_chosen_cell_is_outlined_in_its_own_matrix_only(demo_app: Path) -> None:
    app = choose(open_page(), "resnet50", "normal", "covid")
    outlined = [len(chart["layout"].get("shapes", [])) for chart in charts(app)]
    assert outlined == [1, 0, 0], "its matrix comes first"
    shape = charts(app)[0]["layout"]["shapes"][0]
    assert (round(shape["x0"] + 0.48), round(shape["y0"] + 0.48)) == (0, 1)


def test_choice_survives_another_page(demo_app: Path) -> None:
    app = choose(open_page(), "cnn", "covid", "covid")
    app.segmented_control(key="confusion_normalise").set_value("predicted").run()
    before = chip(app)
    app.switch_page("app_pages/errors.py").run()
    app.switch_page("app_pages/confusion.py").run()
    assert chip(app) == before is not None
    assert app.segmented_control(key="confusion_normalise").value == "predicted"


def test_a_model_that_is_taken_out_takes_its_cell_along(demo_app: Path) -> None:
    app = choose(open_page(), "cnn", "covid", "covid")
    app.pills(key="models_demo").set_value(["resnet50"]).run()
    assert not app.exception and chip(app) is None and len(charts(app)) == 1


def test_page_without_pictures_says_how_to_get_them(tmp_path, monkeypatch) -> None:
    make_run(tmp_path / "artifacts", models=["cnn"], n=30, images=False, modality="xray")
    monkeypatch.setenv("CXR_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("CXR_DATA", str(tmp_path / "data"))
    app = choose(open_page(), "cnn", "covid", "covid")
    assert not app.exception and not app.image and shown_images(app)
    assert any("python -m core data phantom" in c.value for c in app.caption)


@pytest.mark.parametrize("damage", ["absent", "run.json", "predictions"])
def test_page_without_a_run_that_can_be_read(tmp_path, monkeypatch, damage: str) -> None:
    monkeypatch.setenv("CXR_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("CXR_DATA", str(tmp_path / "data"))
    if damage != "absent":
        run_dir = make_run(tmp_path / "artifacts", models=["cnn"], n=30, images=False)
        name = "run.json" if damage == "run.json" else "cnn/predictions.csv"
        (run_dir / name).write_text("image_id,label\nx,y\n")
    app = open_page()
    assert not app.exception and not charts(app)
    assert len(app.info) == 1
    expected = {"absent": "No runs", "run.json": "not valid JSON", "predictions": "is damaged"}
    assert expected[damage] in app.info[0].value


def test_class_names_of_the_factory_are_in_the_boxes(demo_app: Path) -> None:
    assert list(open_page().selectbox(key="cell_true").options) == list(CLASS_NAMES)
