"""The table of a run, and the README that shows the release run's."""

import re
from pathlib import Path

import pytest

from core import artifacts
from core.summary import summarise_run
from tests.factory import make_run

ROOT = Path(__file__).parents[1]
RELEASE = ROOT / "artifacts" / "release"


def test_rows_hold_the_figures_of_metrics_json(tmp_path):
    run = artifacts.open_run(make_run(tmp_path, n=60, images=False))
    text = summarise_run(run)
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert len({len(row) for row in rows}) == 1
    for model in run.models:
        metrics = artifacts.load_metrics(run, model)
        row = next(row for row in rows if row[0] == f"| {run.title(model)}")
        low, high = (metrics["intervals"]["macro_f1"][end] for end in ("low", "high"))
        expected = f"{100 * metrics['macro_f1']:.1f} ({100 * low:.1f} to {100 * high:.1f})"
        assert row[4] == expected
        assert row[5].startswith(f"{100 * metrics['per_class']['covid']['recall']:.1f} (")
    floors = run.info["floors"]
    assert sum(row[0].startswith("| *floor: ") for row in rows) == len(floors) > 0


def test_a_run_without_floors_or_covid_has_a_table(tmp_path):
    path = make_run(tmp_path, n=60, images=False, models=("cnn",))
    run = artifacts.open_run(path)
    run.info.pop("floors")
    assert "| CNN | from scratch |" in summarise_run(run)


@pytest.mark.skipif(not RELEASE.is_dir(), reason="artifacts/release is not there")
def test_the_readme_shows_the_release_run_as_it_is():
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- release -->\n(.*?)<!-- /release -->", readme, re.DOTALL)
    assert shown is not None, "README.md needs <!-- release --> … <!-- /release -->"
    assert shown[1].strip() == summarise_run(artifacts.open_run(RELEASE)).strip(), (
        "Put what `python -m core summary --run release` prints between the two marks."
    )
