"""All models, as people get it: across runs, by protocol, with claims and data sets crossed."""

from __future__ import annotations

import io
import shutil
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from core.evaluation.external.cross_dataset import Cell
from core.models.names import NOTEBOOK
from core.reporting.leaderboard import describe as leaderboard_describe
from core.reporting.leaderboard import ranking as zoo
from core.reporting.leaderboard.claims import judge_claims
from core.runs import artifacts
from dashboard.components import leaderboard as leaderboard_parts
from tests.support.audit import add_external
from tests.support.leaderboard import change_info, make_notebook_run, make_zoo
from tests.support.runs import make_run

APP = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("made")
    make_zoo(root)
    return root


@pytest.fixture
def zoo_app(made: Path, empty_app: Path) -> Path:
    """The environment of a dashboard on a copy of both runs."""
    return Path(shutil.copytree(made, empty_app))


@pytest.fixture(scope="module")
def page(made: Path) -> Iterator[AppTest]:
    """The page on both runs, drawn once: to be looked at and not to be clicked on."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CXR_ARTIFACTS", str(made))
        patch.setenv("CXR_DATA", str(made / "data"))
        patch.delenv("CXR_RUN", raising=False)
        yield open_page()


def headline(app: AppTest) -> str:
    return plain(next(m.value for m in app.main.markdown if m.value.startswith("####")))


def open_page() -> AppTest:
    return AppTest.from_file(APP, default_timeout=120).switch_page("app_pages/zoo.py").run()


def text(app: AppTest) -> str:
    main = app.main
    kinds = (main.markdown, main.caption, main.info, main.code, main.error, main.warning)
    return plain("\n".join(str(element.value) for kind in kinds for element in kind))


def plain(words: str) -> str:
    return words.replace("\u202f", " ").replace("\u00a0", " ").replace("\\", "")


def alts(app: AppTest) -> list[str]:
    return [plain(plot.proto.alt) for plot in app.main.get("plotly_chart")]


def protocol_of(root: Path) -> zoo.Protocol:
    runs = [artifacts.open_run(entry.path) for entry in artifacts.list_runs(root)]
    return zoo.find_protocols(runs)[0]


def test_the_first_line_is_the_answer_and_the_page_says_what_it_covers(page, made):
    app, protocol = page, protocol_of(made)
    assert not app.exception
    table = zoo.rank(protocol)
    first = headline(app)
    assert first == plain(f"#### {leaderboard_describe.headline(protocol, table, 'macro_f1')}")
    assert "16 models on the same 24 test images" in first
    said = text(app)
    assert "whatever run and models are chosen in the sidebar" in said
    assert "runs release and zoo-phantom" in said
    assert plain(leaderboard_describe.baselines_text(protocol, table)) in said


def test_table_has_every_model_and_its_cost(page, made):
    table, ranked = page.main.dataframe[0].value, zoo.rank(protocol_of(made))
    assert [cell.split(" ", 1)[1] for cell in table["Model"]] == ranked["label"].to_list()
    assert table["Macro-F1"].to_list() == pytest.approx((100 * ranked["macro_f1"]).to_list())
    assert table["Against the first"][0] == "in front"
    for words, row in zip(table["Against the first"], ranked.itertuples(), strict=True):
        if row.rank > 1:
            assert words.endswith("cannot be told" if row.tied_with_best else "behind")
    assert table["Not above floors"].to_list() == [len(lost) for lost in ranked["floors_lost"]]
    assert set(table["Run"]) == {"release", "zoo-phantom"}
    assert set(table["Weights"]) == {"kept", "not kept"}
    assert table["Training, minutes"][1] == pytest.approx(ranked["train_s"][1] / 60)


def test_csv_holds_the_ranking_and_its_protocol(made):
    protocol = protocol_of(made)
    ranked = zoo.rank(protocol)
    file = leaderboard_parts.csv_table(protocol, ranked).to_csv(index=False)
    table = pd.read_csv(io.StringIO(file))
    assert table["title"].to_list() == ranked["label"].to_list()
    assert table["macro_f1_low"].to_list() == pytest.approx(ranked["macro_f1_low"].to_list())
    assert set(table["classes"]) == {"covid normal pneumonia"} and set(table["n_test"]) == {24}
    assert {"tied_with_best", "p_holm", "floors_lost", "run", "model"} <= set(table)


def test_choices_turn_headline_table_and_charts(zoo_app):
    app = open_page()
    for metric in reversed(zoo.METRICS):
        app.segmented_control(key="zoo_metric").set_value(metric).run()
        assert not app.exception
        ranked = zoo.rank(protocol_of(zoo_app), metric)
        assert leaderboard_describe.METRIC_WORDS[metric] in headline(app)
        assert app.main.dataframe[0].value["Model"][0].endswith(ranked["label"][0])
        ranking, cost, matrix = (a for a in alts(app) if a.startswith(zoo.METRICS[metric]))
        assert f"1. {ranked['label'][0]}" in ranking and "against time an image" in cost
        assert "rows trained on" in matrix
        assert ("Floors are measured on accuracy and macro-F1" in text(app)) == (
            metric == "balanced_accuracy"
        )
    app.segmented_control(key="zoo_curve").set_value("val_accuracy")
    app.segmented_control(key="zoo_cost").set_value("train_s").run()
    assert any("against training time" in alt for alt in alts(app)) and not app.exception
    assert sum(alt.startswith("Validation accuracy of ") for alt in alts(app)) == 15


def test_curves_are_there_for_every_model_trained_in_epochs(page):
    curves = [alt for alt in alts(page) if alt.startswith("Validation loss of ")]
    assert len(curves) == 15 and all("in 10 epochs, kept epoch" in alt for alt in curves)
    assert "Without curves: Mean of the models." in text(page)


def test_claims_stand_with_measure_verdict_and_rule(page, made):
    said = text(page)
    for result in judge_claims(protocol_of(made)):
        assert plain(f"**{result.subject}**: {result.measured}.") in said
        assert f"{result.verdict}] **{result.subject}**" in said
        assert f"Rule. {result.claim.rule}" in said
    assert "of the other models is not known to this project" in said


def test_crossing_says_what_is_measured_and_why_a_cell_is_empty(zoo_app):
    run = zoo_app / "release"
    make_notebook_run(zoo_app, name="second", models=("fnn", "baseline"), n=60, seed=2)
    change_info(zoo_app / "second", dataset={"name": "other", "title": "Another set"})
    add_external(run, "elsewhere")
    app = open_page()
    assert not app.exception
    box = app.selectbox(key="zoo_crossed")
    assert "elsewhere)" in box.options[0]
    assert box.value in artifacts.open_run(run).models, "only these were tested elsewhere"
    matrix = next(alt for alt in alts(app) if "rows trained on" in alt)
    assert "tested on elsewhere:" in matrix
    box.set_value("fnn").run()
    matrix = next(alt for alt in alts(app) if "rows trained on" in alt)
    assert "trained on phantom, tested on other: –" in matrix
    said = text(app) + plain("\n".join(str(t.value) for t in app.main.table))
    assert "so what is left elsewhere is not known" in said and "Not done" in said


def test_protocols_are_chosen_and_the_sidebars_run_comes_first(zoo_app):
    make_notebook_run(zoo_app, name="second", models=("fnn", "baseline"), n=60, seed=2)
    app = open_page()
    box = app.selectbox(key="zoo_protocol")
    assert len(box.options) == 2 and "16 models in release, zoo-phantom" in box.options[0]
    box.select_index(1).run()
    assert "2 models on the same" in headline(app)
    other = AppTest.from_file(APP, default_timeout=120)
    other.session_state["run"] = "second"
    other.switch_page("app_pages/zoo.py").run()
    assert "2 models on the same" in headline(other)


def test_a_leaking_zoo_stands_apart_and_says_so(zoo_app):
    leakage = {"patients": 4, "images": 9, "share": 0.4, "exact": 0, "near": 0}
    change_info(zoo_app / "zoo-phantom", leakage=leakage)
    app = open_page()
    assert not app.exception
    box = app.selectbox(key="zoo_protocol")
    assert [("LEAKS" in option) for option in box.options] == [False, True]
    box.select_index(1).run()
    assert "LEAKS" in headline(app) and "too high" in headline(app)
    assert any("stand apart" in warning.value for warning in app.main.warning)


def test_a_damaged_run_is_named_and_the_others_are_ranked(zoo_app):
    (zoo_app / "release" / "cnn" / "metrics.json").write_text("{", encoding="utf-8")
    app = open_page()
    assert not app.exception
    assert "12 models on the same" in headline(app)
    assert any("release** is left out" in plain(error.value) for error in app.main.error)


def test_without_a_zoo_there_is_one_sentence_and_the_command(empty_app):
    make_run(empty_app, n=30, images=False)
    app = open_page()
    assert not app.exception and not alts(app)
    assert "No run here holds the networks" in app.main.info[0].value
    assert app.main.code[0].value == "make train-zoo"


def test_every_name_of_the_zoo_can_be_ranked_alone(empty_app):
    """Also a run of one model: nothing to hold it against."""
    make_notebook_run(empty_app, models=NOTEBOOK[:1], n=30)
    app = open_page()
    assert not app.exception
    assert "One model on 6 test images: FNN, plain" in headline(app)
    assert "Not trained under this protocol" in text(app)


def test_what_is_wrong_with_the_images_stands_above_the_ranking(zoo_app):
    said = text(open_page())
    assert "SYNTHETIC: drawn phantoms, not images of people." in said
    assert "Images of one patient (patient_id) stay together." in said


def test_no_line_of_a_cell_is_wider_than_a_phone_gives_it():
    cell = Cell("a", "b", n=17_099, macro_f1=1.0, intervals={"macro_f1": (0.868, 1.0)})
    lines = leaderboard_parts._cell_text(cell, "macro_f1").split("<br>")
    assert lines == ["<b>100.0</b>", "86.8", "to\u00a0100.0", "n = 17,099"]
