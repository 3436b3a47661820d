"""The table of a run, and the pages that show the release run's."""

import re
from pathlib import Path

import pytest

from core.evaluation.published_protocol import judge_target, published_table
from core.files import write_json
from core.reporting.run_summary import summarise_run
from core.reporting.scorecard.scorecard import FAILED, build_scorecard
from core.runs import additions, artifacts
from tests.support.audit import add_audit, add_external
from tests.support.cross_validation import make_folded_run
from tests.support.runs import make_run

ROOT = Path(__file__).resolve().parents[2]
RELEASE = ROOT / "artifacts" / "release"
README = ROOT / "README.md"


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


def test_a_run_with_folds_has_the_papers_table_and_the_verdict(tmp_path):
    run = make_folded_run(tmp_path, ensemble=True, not_done={})
    text = summarise_run(run)
    assert published_table(run) in text
    target = judge_target(run)
    assert f"**{target.sentence}**" in text and target.basis in text
    assert all(f"- {one.sentence}" in text for one in target.tasks)
    metrics = artifacts.load_fold_metrics(run, "cnn")
    spread, interval = metrics["spread"]["accuracy"], metrics["intervals"]["accuracy"]
    assert (
        f"- CNN: accuracy {100 * metrics['accuracy']:.1f} ({100 * interval['low']:.1f} to "
        f"{100 * interval['high']:.1f}) pooled, mean of the 5 folds {100 * spread['mean']:.1f}, "
        f"standard deviation {100 * spread['sd']:.1f}."
    ) in text
    assert "| Mean of the models | mean of 2 | – |" in text
    plain = artifacts.open_run(make_run(tmp_path, n=60, images=False))
    assert "Ozturk" not in summarise_run(plain) and "Target" not in summarise_run(plain)


def test_folds_that_were_not_done_are_named_with_the_reason(tmp_path):
    run = make_folded_run(tmp_path, not_done={"cnn": "every layer is trained"})
    assert "- CNN: folds not done, every layer is trained." in summarise_run(run)


def test_results_from_elsewhere_and_failed_checks_are_in_it(tmp_path):
    path = make_run(tmp_path, n=60, images=False)
    add_audit(path, leaks=True)
    document = add_external(path, drop=0.2)
    run = artifacts.open_run(path)
    text = summarise_run(run)
    assert "Images from elsewhere: Images from elsewhere (n = 180)." in text
    far = document["models"]["cnn"]
    interval = far["intervals"]["accuracy"]
    line = next(
        line for line in text.splitlines() if line.startswith("| CNN | ") and "points" in line
    )
    assert line.split(" | ")[1] == (
        f"{100 * far['accuracy']:.1f} ({100 * interval['low']:.1f} to {100 * interval['high']:.1f})"
    )
    checks = build_scorecard(run)
    failed = [check for check in checks if check.status == "failed"]
    assert f"of {len(checks)} checks, fails {len(failed)}" in text
    assert failed and all(f"- **Fails {check.title}**" in text for check in failed)
    assert text.count("- **Fails ") == len(failed)


def test_a_run_that_leaks_says_so_first(tmp_path):
    path = make_run(tmp_path, n=60, images=False)
    leakage = {"patients": 4, "images": 9, "share": 0.44, "exact": 0, "near": 0}
    write_json(path / "run.json", artifacts.open_run(path).info | {"leakage": leakage})
    text = summarise_run(artifacts.open_run(path))
    assert text.startswith("**LEAKS: 44\u202f% of test images share a patient with training.**")


needs_release = pytest.mark.skipif(not RELEASE.is_dir(), reason="artifacts/release is not there")


@needs_release
def test_the_results_page_shows_the_release_run_as_it_is():
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- release -->\n(.*?)<!-- /release -->", page, re.DOTALL)
    assert shown is not None, "docs/results.md needs <!-- release --> … <!-- /release -->"
    assert shown[1].strip() == summarise_run(artifacts.open_run(RELEASE)).strip(), (
        "Put what `python -m core summary --run release` prints between the two marks."
    )


def cell(figures: dict, key: str) -> str:
    low, high = (figures["intervals"][key][end] for end in ("low", "high"))
    return f"{100 * figures[key]:.1f} ({100 * low:.1f} to {100 * high:.1f})"


@needs_release
def test_the_readme_has_five_rows_of_the_release_run_and_its_weak_sides():
    run = artifacts.open_run(RELEASE)
    (name,) = additions.list_external(run)
    external = additions.load_external(run, name)["models"]
    titles = {model: run.title(model) for model in run.models} | {"ensemble": "3-model average"}
    expected = {}
    for model, title in titles.items():
        metrics = artifacts.load_metrics(run, model)
        cells = [cell(metrics, "accuracy"), cell(metrics, "macro_f1")]
        expected[title] = [*cells, cell(external[model], "accuracy")]
    (section,) = re.findall(r"## Results\n(.*?)\n## ", README.read_text(encoding="utf-8"), re.S)
    rows = [line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| ")]
    assert {row[0]: row[2:] for row in rows[2:]} == expected

    said = " ".join(section.split())
    shares = [100 * external[model]["accuracy"] for model in run.models]
    assert f"accuracy is {min(shares):.0f} to {max(shares):.0f} %" in said
    floor = run.info["floors"]["histogram"]["accuracy"]
    assert f"only brightness reaches {100 * floor:.1f} % accuracy" in said
    statuses = [check.status for check in build_scorecard(run)]
    assert f"fails {statuses.count(FAILED)} of {len(statuses)} reliability checks" in said


def test_every_link_of_the_documentation_leads_somewhere():
    for page in (README, ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")):
        for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text(encoding="utf-8")):
            assert "://" in target or (page.parent / target).exists(), f"{page.name}: {target}"
    index = (ROOT / "docs" / "index.md").read_text(encoding="utf-8")
    pages = {page.name for page in (ROOT / "docs").glob("*.md")} - {"index.md"}
    assert pages == set(re.findall(r"\]\((\w+\.md)\)", index))
