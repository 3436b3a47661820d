"""CONTRIBUTING's own examples are what runs here (that of a model: tests/models)."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from core.datasets import registry
from core.datasets.folder import load_table
from core.datasets.registry import DatasetError, resolve_dataset
from core.reporting.scorecard import run_checks, scorecard
from core.runs.artifacts import open_run
from tests.support.files import write_files
from tests.support.runs import make_run

ROOT = Path(__file__).resolve().parents[2]


def examples(title: str) -> list[str]:
    """The blocks of Python in a section."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    (section,) = re.findall(rf"## {title}\n(.*?)\n## ", text, re.S)
    return re.findall(r"```python\n(.*?)```", section, re.S)


def entries(code: str, table: str) -> str:
    """What an example adds to a table, as text of Python."""
    (inside,) = re.findall(rf"^{table} = \{{\n    \.\.\.\n(.*?)^\}}", code, re.S | re.M)
    return inside


def added(code: str, table: str, names: dict[str, Any]) -> dict[str, Any]:
    return eval(f"{{{entries(code, table)}}}", dict(names))


def test_how_to_add_a_data_set(tmp_path, monkeypatch):
    (code,) = examples("Add a data set")
    for name, dataset in added(code, "KNOWN", vars(registry)).items():
        monkeypatch.setitem(registry.KNOWN, name, dataset)
    with pytest.raises(DatasetError, match=r"my-hospital .* copy it from the hospital's share"):
        resolve_dataset("my-hospital", tmp_path)
    write_files(tmp_path / "my-hospital", "COVID/a.png", "Normal/b.png", "Bacterial/c.png")
    dataset, root = resolve_dataset("my-hospital", tmp_path)
    labels = load_table(dataset, root)["label"]
    assert sorted(labels) == ["covid", "normal", "pneumonia"]
    assert dataset.caveats == ("All images are from one scanner.",)


def test_how_to_add_a_page(demo_app, tmp_path):
    page, line = examples("Add a page")
    shutil.copytree(ROOT / "dashboard" / "app_pages", tmp_path / "app_pages")
    shutil.copy(ROOT / "dashboard" / "icon.svg", tmp_path)
    (tmp_path / "app_pages" / "patients.py").write_text(page, encoding="utf-8")
    app = (ROOT / "dashboard" / "app.py").read_text(encoding="utf-8")
    changed = app.replace("PAGES = {\n", "PAGES = {\n" + entries(line, "PAGES"))
    assert changed != app
    (tmp_path / "app.py").write_text(changed, encoding="utf-8")

    opened = AppTest.from_file(tmp_path / "app.py", default_timeout=120)
    opened = opened.switch_page("app_pages/patients.py").run()
    assert not opened.exception
    assert opened.title[0].value.endswith("Patients")
    manifest = open_run(demo_app / "demo").path / "manifest.csv"
    n_images = len(manifest.read_text(encoding="utf-8").splitlines()) - 1
    assert any(text.value.startswith(f"{n_images} images of ") for text in opened.markdown)
    table = opened.dataframe[0].value
    assert list(table.columns) == ["images", "patients"] and table["images"].sum() == n_images


def test_how_to_add_a_check(tmp_path, monkeypatch):
    (code,) = examples("Add a check")
    names = dict(vars(run_checks))
    exec(code[: code.index("CHECKS = {")], names)
    for key, check in added(code, "CHECKS", names).items():
        monkeypatch.setitem(scorecard.CHECKS, key, check)
    run = open_run(make_run(tmp_path, n=60, images=False))
    *others, last = scorecard.build_scorecard(run)
    assert len(others) == len(scorecard.CHECKS) - 1
    assert (last.key, last.title, last.status) == ("size", "Size of the test split", "failed")
    assert last.sentence == "The test split has 12 images."
