"""People's ways through the dashboard, in a real browser."""

from __future__ import annotations

import os
import re
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import pytest
from PIL import Image

from core.datasets.phantom.generate import make_phantom
from core.reporting.answer_reliability import agreement_sentence
from core.runs import artifacts
from tests.browser.conftest import DESKTOP, PHONE
from tests.support.runs import CLASS_NAMES, TITLES, make_run

PAGES = {
    "": "Overview",
    "confusion": "Confusion matrices",
    "errors": "Errors",
    "predict": "Predict",
    "trust": "Reliability checks",
    "curves": "Curves and thresholds",
    "protocol": "Cross-validation",
    "labels": "Labels",
    "zoo": "All models",
    "training": "Training",
    "data": "Data",
}
SECTIONS = ("Results", "Try it", "Evidence", "Background")
IN_WINDOW = """() => {
    const seen = element => {
        const box = element.getBoundingClientRect();
        return box.top >= 0 && box.top + box.height / 2 <= window.innerHeight
    };
    const image = document.querySelector('[data-testid="stMain"] [data-testid="stImage"] img');
    return seen(image) && seen(document.querySelector('.js-plotly-plot'));
}"""
PLACE_OF_CELL = """([model, truth, predicted]) => {
    for (const plot of document.querySelectorAll('.js-plotly-plot')) {
        const {xaxis, yaxis} = plot._fullLayout;
        const box = plot.getBoundingClientRect();
        for (const trace of plot._fullData || []) {
            const cells = Array.from(trace.customdata || []);
            const i = cells.findIndex(
                c => c && c[0] === model && c[1] === truth && c[2] === predicted);
            if (i >= 0) return {
                x: box.left + xaxis._offset + xaxis.d2p(trace.x[i]),
                y: box.top + yaxis._offset + yaxis.d2p(trace.y[i])};
        }
    }
    return null;
}"""


@pytest.mark.parametrize("path", PAGES)
def test_page_opens_clean_and_no_wider_than_a_phone(visit, path: str):
    tab = visit(viewport=PHONE)
    tab.open(path, PAGES[path])
    tab.page.wait_for_timeout(1500)  # charts take their width from the page a moment later
    widest = tab.page.evaluate(
        """() => Math.max(document.documentElement.scrollWidth,
            document.querySelector('[data-testid="stMain"]').scrollWidth)"""
    )
    assert widest <= PHONE["width"]
    tab.assert_clean()
    tab.page.set_viewport_size(DESKTOP)
    tab.page.wait_for_timeout(500)
    assert tab.page.get_by_text("Research use, not for diagnosis").first.is_visible()
    assert tab.page.get_by_text(re.compile("SYNTHETIC")).first.is_visible()
    tab.assert_clean()


def test_pages_are_reached_from_the_sidebar(visit):
    tab = visit()
    tab.open("overview", "Overview")  # the first page has an address too
    shown = tab.page.get_by_test_id("stSidebarNav").inner_text()
    assert [name for name in SECTIONS if name in shown] == list(SECTIONS)
    for title in list(PAGES.values())[1:]:
        tab.go_to(title)
    tab.assert_clean()


def demo_predictions(demo_root: Path, model: str) -> pd.DataFrame:
    return artifacts.load_predictions(artifacts.open_run(demo_root / "artifacts" / "demo"), model)


def wrong_cell(table: pd.DataFrame) -> tuple[str, str, list[str]]:
    """true class, predicted class and image ids of the fullest cell off the diagonal."""
    wrong = table[table["label"] != table["predicted"]]
    cells = wrong.groupby(["label", "predicted"])["image_id"].apply(sorted)
    truth, predicted = cells.map(len).idxmax()
    return truth, predicted, list(cells[truth, predicted])


def shown_images(tab, image_ids) -> set[str]:
    """Those of image_ids that a picture on the page is named after (what a screen reader says)."""
    text = "\n".join(
        image.get_attribute("alt") or ""
        for image in tab.page.get_by_test_id("stMain").get_by_role("img").all()
    )
    return {i for i in image_ids if re.search(re.escape(i.split("/")[-1]) + r"(?!\d)", text)}


def click_cell(tab, cell: tuple[str, str, str]) -> None:
    tab.page.locator(".js-plotly-plot .nsewdrag").first.wait_for()
    tab.page.wait_for_timeout(2000)  # Plotly takes clicks only some time after it has drawn
    chart = tab.page.locator(".js-plotly-plot").filter(has_text=TITLES[cell[0]])
    if chart.count():
        chart.first.scroll_into_view_if_needed()
    place = tab.page.evaluate(PLACE_OF_CELL, list(cell))
    assert place, f"No chart has a point for the cell {cell}."
    tab.page.mouse.move(place["x"], place["y"])
    tab.page.mouse.click(place["x"], place["y"])


@pytest.mark.parametrize("model", ["cnn", "resnet50"])
def test_click_on_a_cell_shows_its_images(visit, demo_root: Path, model: str):
    table = demo_predictions(demo_root, model)
    truth, predicted, expected = wrong_cell(table)
    tab = visit()
    tab.open("confusion", PAGES["confusion"])
    assert shown_images(tab, table["image_id"]) == set()

    click_cell(tab, (model, truth, predicted))
    noun = "image" if len(expected) == 1 else "images"
    words = f"{truth} predicted as {predicted}, {TITLES[model]}, {len(expected)} {noun}"
    chip = tab.page.get_by_role("button", name=words)
    chip.wait_for()
    tab.settle()
    assert shown_images(tab, table["image_id"]) == set(expected)
    # In the window that the click was made in, beside the matrix.
    assert tab.page.evaluate(IN_WINDOW), "the first image and the matrix are seen together"

    chip.click()
    chip.wait_for(state="detached")
    tab.settle()
    assert shown_images(tab, table["image_id"]) == set()
    tab.assert_clean()


def choose(tab, label: str, option: str) -> None:
    """Choose an option of a select box with the keyboard only."""
    tab.page.get_by_role("combobox", name=re.compile(label)).focus()
    tab.page.keyboard.type(option)
    tab.page.get_by_role("option", name=option, exact=True).first.wait_for()
    tab.page.keyboard.press("Enter")
    tab.settle()


def test_cell_can_be_chosen_by_keyboard(visit, demo_root: Path):
    table = demo_predictions(demo_root, "mobilenetv2")
    truth, predicted, expected = wrong_cell(table)
    tab = visit()
    tab.open("confusion", PAGES["confusion"])
    choose(tab, "^Model$|Model\\b(?!s)", "MobileNetV2")
    choose(tab, "True class", truth)
    choose(tab, "Predicted class", predicted)
    assert shown_images(tab, table["image_id"]) == set(expected)
    tab.assert_clean()


def test_shares_are_of_the_true_class_first(visit, demo_root: Path):
    table = demo_predictions(demo_root, "cnn")
    tab = visit()
    tab.open("confusion", PAGES["confusion"])
    chart = tab.page.locator(".js-plotly-plot").filter(has_text=TITLES["cnn"]).first
    drawn = chart.evaluate("plot => Array.from(plot.querySelectorAll('text'), t => t.textContent)")
    for truth, rows in table.groupby("label"):
        share = 100 * (rows["predicted"] == truth).mean()
        assert any(text.startswith(f"{share:.1f}") for text in drawn), (truth, share, drawn)


def test_choice_survives_another_page(visit, demo_root: Path):
    truth, predicted, _ = wrong_cell(demo_predictions(demo_root, "cnn"))
    tab = visit()
    tab.open("confusion", PAGES["confusion"])
    click_cell(tab, ("cnn", truth, predicted))
    chip = tab.page.get_by_role("button", name=f"{truth} predicted as {predicted}, CNN")
    chip.wait_for()
    tab.go_to("Training")
    tab.go_to(PAGES["confusion"])
    assert chip.is_visible()
    tab.assert_clean()


def upload(tab, file: Path) -> None:
    tab.page.locator('input[type="file"]').first.set_input_files(str(file))
    tab.page.get_by_text(file.name).first.wait_for()
    tab.settle()


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_upload_gives_three_predictions(visit, tmp_path: Path, suffix: str):
    file = tmp_path / f"uploaded.{suffix}"
    Image.fromarray(make_phantom("covid", 5, 160).pixels).save(file)
    tab = visit()
    tab.open("predict", "Predict")
    upload(tab, file)
    main = tab.page.get_by_test_id("stMain")
    for title in TITLES.values():
        main.get_by_text(re.compile(title)).first.wait_for()
    main.get_by_text(re.compile(r"\bms\b")).first.wait_for()
    chart = main.locator(".js-plotly-plot").filter(has_text="Probabilities, this picture")
    chart.wait_for()
    bars = chart.evaluate(
        "plot => plot._fullData.map(trace => [trace.customdata, trace.x, trace.text])"
    )
    drawn = chart.evaluate("plot => Array.from(plot.querySelectorAll('text'), t => t.textContent)")
    assert len(bars) == len(TITLES) + 1, "three models and their mean"
    said = []
    for title, (names, percents, texts) in zip([*TITLES.values(), "Mean"], bars, strict=True):
        assert tuple(names) == CLASS_NAMES and sum(percents) == pytest.approx(100, abs=0.1)
        assert texts == [f"{percent:.1f} %" for percent in percents]
        assert set(texts) <= set(drawn) and any(text.startswith(title) for text in drawn)
        said.append(SimpleNamespace(title=title, predicted=names[percents.index(max(percents))]))
    main.get_by_role("heading", name=agreement_sentence(said[:3]), exact=True).wait_for()
    tab.assert_clean()


def page_text(tab) -> str:
    """All that stands on the page: its text, that of its charts, and what is said of images."""
    return tab.page.get_by_test_id("stMain").evaluate(
        """main => [main.innerText,
            ...Array.from(main.querySelectorAll('svg text'), t => t.textContent),
            ...Array.from(main.querySelectorAll('[aria-label], [alt]'),
                e => e.getAttribute('aria-label') || e.getAttribute('alt'))].join('\\n')"""
    )


def test_wrong_file_gets_a_sentence(visit, tmp_path: Path):
    file = tmp_path / "not-an-image.png"
    file.write_text("These are words, no pixels.\n" * 50)
    tab = visit()
    tab.open("predict", "Predict")
    upload(tab, file)
    alert = tab.page.get_by_test_id("stMain").get_by_role("alert").first
    alert.wait_for()
    said = alert.inner_text()
    assert len(said.split()) > 4
    assert "Traceback" not in page_text(tab)
    tab.assert_clean()


def test_pages_without_runs_say_what_to_do(visit, start_server, tmp_path: Path):
    (tmp_path / "artifacts").mkdir()
    server = start_server(tmp_path)
    tab = visit(url=server.url)
    for path, title in PAGES.items():
        tab.open(path, title)
        if path == "predict":
            continue  # samples may be looked at without a run
        assert "make" in page_text(tab)
    tab.assert_clean()


def test_damaged_run_is_named(visit, start_server, tmp_path: Path):
    make_run(tmp_path / "artifacts", name="whole", n=30, images=False)
    damaged = make_run(tmp_path / "artifacts", name="torn", n=30, images=False)
    (damaged / "run.json").write_text('{"format_version": 1, "na')
    server = start_server(tmp_path)
    tab = visit(url=server.url)
    for path, title in PAGES.items():
        tab.open(path, title)
        tab.assert_clean()
    tab.page.get_by_test_id("stSidebar").get_by_text(re.compile("unusable|cannot be shown")).click()
    tab.page.get_by_test_id("stSidebar").get_by_text(re.compile("torn")).first.wait_for()


@pytest.mark.skipif(not os.environ.get("SCREENSHOTS"), reason="SCREENSHOTS=FOLDER saves pictures")
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_screenshots(visit, demo_root: Path, tmp_path: Path, scheme: str):
    folder = Path(os.environ["SCREENSHOTS"])
    folder.mkdir(parents=True, exist_ok=True)
    for size, viewport in (("desktop", {"width": 1920, "height": 1080}), ("phone", PHONE)):
        tab = visit(viewport=viewport, scheme=scheme)
        for path, title in PAGES.items():
            tab.open(path, title)
            if path == "confusion" and size == "desktop":
                truth, predicted, _ = wrong_cell(demo_predictions(demo_root, "cnn"))
                click_cell(tab, ("cnn", truth, predicted))
            if path == "predict":
                file = tmp_path / "uploaded.png"
                Image.fromarray(make_phantom("covid", 5, 160).pixels).save(file)
                upload(tab, file)
            tab.page.wait_for_timeout(2000)
            save_whole_page(tab, viewport, folder / f"{title.lower()}-{scheme}-{size}.png")


def save_whole_page(tab, viewport: dict, file: Path) -> None:
    """A picture of the page to its end: Streamlit scrolls inside, so the window is made as tall."""
    height = tab.page.evaluate(
        """() => document.querySelector('[data-testid="stMain"]').scrollHeight"""
    )
    tab.page.set_viewport_size({**viewport, "height": max(viewport["height"], min(height, 6000))})
    tab.page.wait_for_timeout(1000)
    tab.page.screenshot(path=str(file))
    tab.page.set_viewport_size(viewport)
