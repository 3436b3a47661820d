"""`python -m core zoo`: the ranking in Markdown and JSON, and docs/zoo.md."""

import json
import re
from pathlib import Path

import pytest

from core.__main__ import main
from core.reporting.leaderboard import describe as leaderboard_describe
from core.reporting.leaderboard import ranking as zoo
from core.reporting.leaderboard.claims import UNKNOWN
from core.reporting.leaderboard.markdown import summarise_zoo, zoo_to_json
from core.runs import artifacts
from tests.support.leaderboard import make_zoo, set_called
from tests.support.runs import make_run

ROOT = Path(__file__).resolve().parents[3]
COMMITTED = ROOT / "artifacts"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    root = tmp_path_factory.mktemp("zoo")
    paths = make_zoo(root)
    set_called(paths[1], "fnn", lambda table: table["label"] != "normal")  # right about normal only
    return [artifacts.open_run(path) for path in paths]


def test_every_model_has_a_row_with_the_figures_of_the_ranking(runs):
    text = summarise_zoo(runs)
    (protocol,) = zoo.find_protocols(runs)
    ranking = zoo.rank(protocol)
    rows = [line for line in text.splitlines() if re.match(r"\| \d", line)]
    assert len(rows) == len(ranking) == len(protocol.entries)
    for row, line in zip(ranking.itertuples(), rows, strict=True):
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[:2] == [str(row.rank), row.label]
        assert cells[3].startswith(f"{100 * row.macro_f1:.1f} ({100 * row.macro_f1_low:.1f} to ")
        told = "cannot be told" if row.tied_with_best else "behind"
        assert cells[5] == "–" or cells[5].endswith(told)
    assert text.endswith(f"{UNKNOWN}\n\n{leaderboard_describe.AGAINST_THE_FIRST}")
    assert text.count("A dense network on flattened pixels") == 3


def test_the_document_has_the_same_figures_and_no_nan(runs):
    (document,) = zoo_to_json(runs)
    text = json.dumps(document, allow_nan=False)
    assert document["n"]["test"] == len(artifacts.load_predictions(runs[0], "cnn"))
    fnn = next(row for row in document["models"] if row["model"] == "fnn")
    assert fnn["accuracy"] == pytest.approx(1 / 3) and fnn["weights"] == "not kept"
    claims = {claim["subject"]: claim for claim in document["claims"]}
    plain = claims["FNN, plain"]
    assert plain["value"] == pytest.approx(1 / 3) and plain["low"] < 0.5 < plain["high"]
    assert plain["verdict"] == "cannot be told" and "macro_f1" in text, "its interval is wide"


def test_without_a_zoo_the_command_says_what_to_run(tmp_path, monkeypatch, capsys):
    make_run(tmp_path, n=30, images=False)
    monkeypatch.setenv("CXR_ARTIFACTS", str(tmp_path))
    assert main(["zoo"]) == 2
    said = capsys.readouterr()
    assert "make train-zoo" in said.err and said.err.count("\n") == 1 and not said.out
    assert main(["zoo", "--json"]) == 2


@pytest.mark.skipif(not (COMMITTED / "zoo-darkcovidnet").is_dir(), reason="no zoo is there")
def test_the_page_in_docs_shows_the_committed_runs_as_they_are():
    page = (ROOT / "docs" / "zoo.md").read_text(encoding="utf-8")
    shown = re.search(r"<!-- zoo -->\n(.*?)<!-- /zoo -->", page, re.DOTALL)
    assert shown is not None, "docs/zoo.md needs <!-- zoo --> … <!-- /zoo -->"
    runs = [artifacts.open_run(entry.path) for entry in artifacts.list_runs(COMMITTED)]
    assert shown[1].strip() == summarise_zoo(runs).strip(), (
        "Put what `python -m core zoo` prints between the two marks."
    )
