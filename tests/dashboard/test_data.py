"""The page Data: the pictures it shows and what is said of them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from streamlit.testing.v1 import AppTest

from core.datasets.phantom.generate import label_synthetic
from tests.support.rendered_images import difference, record_media, shown_pictures
from tests.support.runs import make_run

APP = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"


@pytest.mark.parametrize("modality", ["phantom", "xray"])
def test_drawn_pictures_are_marked_synthetic_and_others_are_not(
    empty_app: Path, monkeypatch: pytest.MonkeyPatch, modality: str
) -> None:
    make_run(empty_app, models=["cnn"], n=30, modality=modality)
    media = record_media(monkeypatch)
    app = AppTest.from_file(APP, default_timeout=60).run()
    app.switch_page("app_pages/data.py").run()
    pictures = shown_pictures(app, media)
    assert not app.exception and len(pictures) == 18
    for image, shown in zip(app.image, pictures, strict=True):
        alt = image.proto.imgs[0].alt
        name = alt.rsplit(", ", 1)[1]
        file = next((empty_app.parent / "data" / "phantom").glob(f"[cnp]*/{name}.png"))
        pixels = np.asarray(Image.open(file))
        assert difference(shown, label_synthetic(pixels) if modality == "phantom" else pixels) < 2
        kind = "Drawn phantom, SYNTHETIC, of class" if modality == "phantom" else "X-ray of class"
        assert alt.startswith(f"{kind} {file.parent.name}, ")


@pytest.mark.parametrize("folder", ["~nobody-of-this-name/x", "x" * 5000])
def test_a_folder_that_cannot_be_is_a_sentence(empty_app: Path, folder: str) -> None:
    make_run(empty_app, models=["cnn"], n=30, images=False)
    app = AppTest.from_file(APP, default_timeout=60).run()
    app.switch_page("app_pages/data.py").run()
    app.text_input(key="gallery_folder").set_value(folder).run()
    assert not app.exception
    assert "No pictures of this run are in" in app.warning[0].value


def test_a_name_that_cannot_be_a_folder_is_no_crash(empty_app: Path) -> None:
    path = make_run(empty_app, models=["cnn"], n=30, images=False)
    info = json.loads((path / "run.json").read_text(encoding="utf-8"))
    info["dataset"]["name"] = "x" * 5000
    (path / "run.json").write_text(json.dumps(info), encoding="utf-8")
    app = AppTest.from_file(APP, default_timeout=60).run()
    assert not app.switch_page("app_pages/data.py").run().exception
