"""The page Errors: which images are wrong, worked by hand, and what people get to see of them."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import streamlit as st
from PIL import Image
from streamlit.testing.v1 import AppTest

from core.runs import artifacts
from dashboard.components import gallery
from dashboard.tables.predictions import export_table, join_predictions, wrong_images
from tests.support.rendered_images import difference, record_media, shown_pictures
from tests.support.runs import make_run

APP = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"
RELEASE = APP.parents[1] / "artifacts" / "release"
MODELS = ("cnn", "resnet50", "mobilenetv2")


def open_page(page: str = "errors") -> AppTest:
    app = AppTest.from_file(APP, default_timeout=60).run()
    return app.switch_page(f"app_pages/{page}.py").run()


def shown_images(app: AppTest) -> list[str]:
    return [button.help for button in app.button if button.label == "Look closer"]


def wrong_by_model(run_dir: Path) -> dict[str, pd.DataFrame]:
    run = artifacts.open_run(run_dir)
    tables = {}
    for model in run.models:
        table = artifacts.load_predictions(run, model)
        table["confidence"] = table[[f"p_{c}" for c in run.class_names]].max(axis=1)
        tables[model] = table[table["label"] != table["predicted"]]
    return tables


@pytest.fixture
def many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run with more mistakes than a page holds, and no pictures on the machine."""
    make_run(tmp_path / "artifacts", models=["cnn", "resnet50"], n=420, images=False)
    monkeypatch.setenv("CXR_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("CXR_DATA", str(tmp_path / "data"))
    return tmp_path


# ----------------------------------------------------------------------------- by hand


def predictions(p_x: list[float]) -> pd.DataFrame:
    """Images a to d, true x x y y; the class is x where p_x is at least one half."""
    return pd.DataFrame(
        {
            "image_id": list("abcd"),
            "label": list("xxyy"),
            "predicted": ["x" if p >= 0.5 else "y" for p in p_x],
            "p_x": p_x,
            "p_y": [1 - p for p in p_x],
        }
    )


@pytest.fixture
def answers() -> pd.DataFrame:
    # m is wrong on a (0.6) and c (0.9); n is wrong on a (0.8) and d (0.7); b is right for both.
    tables = {"m": predictions([0.4, 0.9, 0.9, 0.1]), "n": predictions([0.2, 0.8, 0.3, 0.7])}
    return join_predictions(tables, ["x", "y"])


def test_wrong_images_come_once_with_the_surest_mistake_first(answers: pd.DataFrame) -> None:
    table = wrong_images(answers, ["m", "n"])
    assert list(table["image_id"]) == ["c", "a", "d"]
    np.testing.assert_allclose(table["confidence"], [0.9, 0.8, 0.7])
    assert list(table["wrong"]) == ["m", "m, n", "n"]
    assert list(table["n_wrong"]) == [1, 2, 1]


@pytest.mark.parametrize(
    ("models", "choice", "expected"),
    [
        (["m"], {}, ["c", "a"]),
        (["n"], {}, ["a", "d"]),
        (["m", "n"], {"missed_by": "one"}, ["c", "d"]),
        (["m", "n"], {"missed_by": "all"}, ["a"]),
        (["m"], {"missed_by": "all"}, ["a"]),
        (["m"], {"missed_by": "one"}, ["c"]),
        (["n"], {"missed_by": "one"}, ["d"]),
        (["m", "n"], {"true": "x"}, ["a"]),
        (["m", "n"], {"predicted": "x"}, ["c", "d"]),
        (["m", "n"], {"confidence": (0.85, 1.0)}, ["c"]),
        (["m", "n"], {"confidence": (0.0, 0.7)}, ["d", "a"]),
        (["m", "n"], {"true": "x", "missed_by": "one"}, []),
    ],
)
def test_filters(answers: pd.DataFrame, models: list[str], choice: dict, expected: list) -> None:
    assert list(wrong_images(answers, models, **choice)["image_id"]) == expected


@pytest.mark.parametrize(("models", "n_images"), [(["resnet50"], 31), (None, 45)])
def test_exactly_one_model_counts_over_all_shown_models(
    models: list[str] | None, n_images: int
) -> None:
    """On the release: ResNet50 misses 59 images, 28 of them with MobileNetV2."""
    run = artifacts.open_run(RELEASE)
    shown = ["resnet50", "mobilenetv2"]
    tables = {model: artifacts.load_predictions(run, model) for model in shown}
    answers = join_predictions(tables, run.class_names)
    assert len(wrong_images(answers, models or shown, missed_by="one")) == n_images
    assert len(wrong_images(answers, ["resnet50"])) == 59


def test_export_has_every_models_answer(answers: pd.DataFrame) -> None:
    manifest = pd.DataFrame(
        {"image_id": list("abcd"), "path": [f"{c}.png" for c in "abcd"], "patient_id": list("1234")}
    )
    table = export_table(wrong_images(answers, ["m", "n"]), answers, manifest, ["x", "y"])
    row = table.set_index("image_id").loc["a"]
    assert (row["path"], row["patient_id"], row["label"]) == ("a.png", "1", "x")
    assert (row["m_predicted"], row["n_predicted"]) == ("y", "y")
    assert row["m_p_x"] == pytest.approx(0.4) and row["n_p_y"] == pytest.approx(0.8)


def test_thumbnails_keep_their_shape() -> None:
    square = gallery.letterboxed(np.full((100, 50), 200, np.uint8), 64)
    assert square.shape == (64, 64)
    assert square[32, 32] == 200 and square[32, 4] == 0 and square[2, 32] == 200


# ----------------------------------------------------------------------------- page


def test_first_line_counts_what_is_wrong_with_the_interval_from_metrics(demo_app: Path) -> None:
    app = open_page()
    assert not app.exception
    run = artifacts.open_run(demo_app / "demo")
    lines = next(m.value for m in app.main.markdown if "wrong" in m.value).split("  \n")
    for line, model in zip(lines, MODELS, strict=True):
        metrics = artifacts.load_metrics(run, model)
        n, accuracy = metrics["n"], metrics["accuracy"]
        wrong = round(n * (1 - accuracy))
        interval = metrics["intervals"]["accuracy"]
        assert f"**: {wrong} of {n} wrong" in line
        low, high = 100 * (1 - interval["high"]), 100 * (1 - interval["low"])
        assert f"{low:.1f}" in line and f"{high:.1f}" in line
        assert run.title(model) in line
    assert "random init" in lines[1]


def test_gallery_shows_what_predictions_csv_has_wrong(demo_app: Path) -> None:
    app = open_page()
    tables = wrong_by_model(demo_app / "demo")
    everything = pd.concat(tables.values()).groupby("image_id")["confidence"].max()
    ordered = everything.sort_values(ascending=False)
    assert 0 < len(ordered) <= gallery.PAGE_SIZE
    assert shown_images(app) == list(ordered.index)
    assert len(app.image) == len(ordered)

    app.multiselect(key="errors_models").set_value(["cnn"]).run()
    own = tables["cnn"].sort_values("confidence", ascending=False)
    assert shown_images(app) == list(own["image_id"])

    app.selectbox(key="errors_true").set_value("covid").run()
    assert shown_images(app) == list(own[own["label"] == "covid"]["image_id"])


def test_every_card_shows_its_own_picture(demo_app: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    media = record_media(monkeypatch)
    app = open_page()
    folder, ids = demo_app.parent / "data" / "phantom", shown_images(app)
    size = (gallery.THUMBNAIL_PX, gallery.THUMBNAIL_PX)
    files = [np.asarray(Image.open(folder / f"{i}.png").resize(size)) for i in ids]
    pictures = shown_pictures(app, media)
    assert len(pictures) == len(ids) > 3
    for place, (picture, image_id) in enumerate(zip(pictures, ids, strict=True)):
        # The word SYNTHETIC stands above the middle.
        gaps = [difference(picture[128:], file[128:]) for file in files]
        assert int(np.argmin(gaps)) == place and gaps[place] < 3, image_id
        assert difference(picture[:40, :120], files[place][:40, :120]) > 10, "SYNTHETIC"


def test_missed_by_all(demo_app: Path) -> None:
    app = open_page()
    app.selectbox(key="errors_missed").set_value("all").run()
    tables = wrong_by_model(demo_app / "demo")
    common = set.intersection(*(set(table["image_id"]) for table in tables.values()))
    assert common and set(shown_images(app)) == common


def test_filters_that_fit_nothing_can_be_cleared(demo_app: Path) -> None:
    app = open_page()
    before = shown_images(app)
    app.slider(key="errors_confidence").set_value((0, 1)).run()
    assert not shown_images(app) and "fits these filters" in app.info[0].value
    next(b for b in app.button if b.label == "Clear the filters").click().run()
    assert not app.exception and shown_images(app) == before


def test_filters_survive_another_page(demo_app: Path) -> None:
    app = open_page()
    app.selectbox(key="errors_true").set_value("normal").run()
    app.slider(key="errors_confidence").set_value((30, 100)).run()
    before = shown_images(app)
    app.switch_page("app_pages/overview.py").run()
    app.switch_page("app_pages/errors.py").run()
    assert app.selectbox(key="errors_true").value == "normal"
    assert tuple(app.slider(key="errors_confidence").value) == (30, 100)
    assert shown_images(app) == before


def test_24_a_page_and_every_image_on_one_of_them(many: Path) -> None:
    app = open_page()
    tables = wrong_by_model(many / "artifacts" / "demo")
    expected = set(pd.concat(tables.values())["image_id"])
    n_pages = -(-len(expected) // gallery.PAGE_SIZE)
    assert n_pages > 1 and len(shown_images(app)) == 24
    seen = shown_images(app)
    for page in range(2, n_pages + 1):
        app.pagination[0].set_value(page).run()
        assert f"of {len(expected)}" in " ".join(c.value for c in app.caption)
        seen += shown_images(app)
    assert len(seen) == len(set(seen)) and set(seen) == expected


def test_csv_holds_all_pages_of_the_choice(many: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = []
    monkeypatch.setattr(st, "download_button", lambda _label, data, **_: files.append(data))
    app = open_page()
    tables = wrong_by_model(many / "artifacts" / "demo")
    table = pd.read_csv(io.BytesIO(files[-1]))
    assert set(table["image_id"]) == set(pd.concat(tables.values())["image_id"])
    assert list(table["image_id"][:24]) == shown_images(app)
    app.multiselect(key="errors_models").set_value(["cnn"]).run()
    table = pd.read_csv(io.BytesIO(files[-1]))
    assert set(table["image_id"]) == set(tables["cnn"]["image_id"])
    expected = tables["cnn"].set_index("image_id").loc[table["image_id"]]
    np.testing.assert_allclose(table["cnn_p_covid"], expected["p_covid"])
    assert table["patient_id"].notna().all() and "resnet50_predicted" in table


def test_rows_stay_without_pictures_and_say_how_to_fetch_them(many: Path) -> None:
    app = open_page()
    assert not app.exception and not app.image and len(shown_images(app)) == 24
    assert sum("Not on this machine" in c.value for c in app.caption) == 24


def test_a_folder_with_the_pictures_is_checked_and_remembered(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_run(tmp_path / "artifacts", models=["cnn"], n=60)
    shutil.move(tmp_path / "data" / "phantom", tmp_path / "elsewhere")
    monkeypatch.setenv("CXR_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("CXR_DATA", str(tmp_path / "data"))
    app = open_page()
    assert not app.image
    app.text_input(key="gallery_folder").set_value(str(tmp_path / "nowhere")).run()
    assert len(app.warning) == 1 and "nowhere" in app.warning[0].value.replace("\\", "")
    assert not app.image and not app.exception
    app.text_input(key="gallery_folder").set_value(str(tmp_path / "elsewhere")).run()
    assert not app.warning and len(app.image) == len(shown_images(app)) > 0
    app.switch_page("app_pages/overview.py").run()
    app.switch_page("app_pages/errors.py").run()
    assert app.image, "the folder is remembered"
    next(b for b in app.button if b.label == "Forget this folder").click().run()
    assert not app.image and not app.exception


def test_a_damaged_picture_is_named_in_its_card(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_dir = make_run(tmp_path / "artifacts", models=["cnn"], n=60)
    wrong = wrong_by_model(run_dir)["cnn"]["image_id"].iloc[0]
    file = tmp_path / "data" / "phantom" / f"{wrong}.png"
    file.write_bytes(file.read_bytes()[:200])
    monkeypatch.setenv("CXR_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("CXR_DATA", str(tmp_path / "data"))
    app = open_page()
    assert not app.exception
    assert len(app.image) == len(shown_images(app)) - 1
    assert any("damaged or cut off" in c.value for c in app.caption)


def test_large_view_steps_through_the_images(demo_app: Path) -> None:
    app = open_page()
    ids = shown_images(app)
    next(b for b in app.button if b.help == ids[1]).click().run()
    assert not app.exception
    words = " ".join(m.value for m in app.markdown)
    assert f"2 of {len(ids)}" in words
    assert any(c.value.startswith("Where CNN finds more for") for c in app.caption)


def test_a_run_where_nothing_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run_dir = make_run(tmp_path / "artifacts", models=["cnn"], n=30, images=False)
    file = run_dir / "cnn" / "predictions.csv"
    table = pd.read_csv(file)
    table["label"] = table["predicted"]
    file.write_text(table.to_csv(index=False))
    monkeypatch.setenv("CXR_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("CXR_DATA", str(tmp_path / "data"))
    app = open_page()
    assert not app.exception and "every image right" in app.info[0].value


@pytest.mark.parametrize("damage", ["absent", "run.json", "predictions", "metrics"])
def test_page_without_a_run_that_can_be_read(tmp_path, monkeypatch, damage: str) -> None:
    monkeypatch.setenv("CXR_ARTIFACTS", str(tmp_path / "artifacts"))
    monkeypatch.setenv("CXR_DATA", str(tmp_path / "data"))
    names = {"run.json": "run.json", "predictions": "cnn/predictions.csv"}
    if damage != "absent":
        run_dir = make_run(tmp_path / "artifacts", models=["cnn"], n=30, images=False)
        (run_dir / names.get(damage, "cnn/metrics.json")).write_text("image_id\nx\n")
    app = open_page()
    assert not app.exception and not shown_images(app)
    assert len(app.info) == 1 and len(app.info[0].value) > 20


def test_csv_text_can_be_read_back(answers: pd.DataFrame) -> None:
    manifest = pd.DataFrame({"image_id": list("abcd"), "path": "p", "patient_id": "q"})
    table = export_table(wrong_images(answers, ["m"]), answers, manifest, ["x", "y"])
    again = pd.read_csv(io.StringIO(table.to_csv(index=False)))
    assert list(again["image_id"]) == ["c", "a"] and "m_p_x" in again
