"""The page Cross-validation, as people get it: folds, random against grouped, the papers' table."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core.evaluation.cross_validation import fold_table
from core.evaluation.published_protocol import judge_target, table_rows
from core.evaluation.split_comparison import compare_splits
from core.files import write_json
from core.runs import artifacts
from dashboard.charts import protocol as protocol_charts
from dashboard.charts.style import ChartFrame
from tests.support.cross_validation import FOLDS, make_folded_run, set_pooled
from tests.support.runs import make_run

APP = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"
TRIALS = [
    {"model": "cnn", "change": "as it was", "images": "validation", "n": 60, "accuracy": 0.80,
     "log_loss": 0.5, "kept": True},
    {"model": "cnn", "change": "larger images", "images": "validation", "n": 60, "accuracy": 0.85,
     "log_loss": 0.45, "kept": True},
    {"model": "mobilenetv2", "change": "as it was", "images": "validation", "n": 60,
     "log_loss": 0.4, "kept": True},
]  # fmt: skip


def open_page() -> AppTest:
    return AppTest.from_file(APP, default_timeout=60).switch_page("app_pages/protocol.py").run()


def main_text(app: AppTest) -> str:
    main = app.main
    kinds = (main.markdown, main.caption, main.info, main.code, main.title, main.subheader)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def words(app: AppTest) -> list[str]:
    return [m.value for m in app.main.markdown if "-badge[" not in m.value]


def plain(text: str) -> str:
    return text.replace("\u202f", " ").replace("\u00a0", " ").replace("\\", "")


def charts(app: AppTest) -> list[str]:
    return [plot.proto.alt for plot in app.main.get("plotly_chart")]


# ----------------------------------------------------------------------------------- page


def test_the_first_line_says_what_the_folds_say_and_the_next_judges_the_target(empty_app):
    run = make_folded_run(empty_app, ensemble=True)
    app = open_page()
    assert not app.exception
    metrics = {m: artifacts.load_fold_metrics(run, m) for m in run.models}
    best = max(metrics, key=lambda model: metrics[model]["accuracy"])
    own, bounds = metrics[best], metrics[best]["intervals"]["accuracy"]
    first, second = (plain(text) for text in words(app)[:2])
    assert first == (
        f"#### Pooled over 5 patient-grouped folds {run.title(best)} is right on "
        f"{100 * own['accuracy']:.1f} % ({100 * bounds['low']:.1f} to {100 * bounds['high']:.1f}) "
        f"of {own['n']:,} images."
    )
    assert second.startswith(f"**{plain(judge_target(run).sentence)}**")


def test_folds_are_drawn_and_tabled_with_pooled_interval_and_spread(empty_app):
    run = make_folded_run(empty_app)
    app = open_page()
    table = app.main.table[0].value
    rows = fold_table(run)
    for place, model in enumerate(run.models):
        own = rows[(rows["model"] == model) & (rows["metric"] == "accuracy")]
        folds = 100 * own["value"].iloc[1:]
        assert plain(table["Accuracy, folds"].iloc[place]) == (
            f"mean {folds.mean():.1f}, sd {folds.std():.1f} "
            f":gray[{folds.min():.1f} to {folds.max():.1f}]"
        )
        pooled = own.iloc[0]
        assert plain(table["Accuracy, pooled"].iloc[place]) == (
            f"{100 * pooled['value']:.1f} % "
            f":gray[{100 * pooled['low']:.1f} to {100 * pooled['high']:.1f}]"
        )
    accuracy, macro_f1 = charts(app)[:2]
    assert accuracy.startswith("Accuracy in percent") and macro_f1.startswith("Macro-F1 in")
    assert f"n = {int(rows['n'].max())} out-of-fold images" in accuracy


def test_without_folds_there_is_a_sentence_and_the_command(demo_app):
    app = open_page()
    assert not app.exception
    assert "trained on one split, without folds" in app.main.info[0].value
    command = app.main.code[0].value
    assert command == (
        "python -m core train --dataset phantom --models cnn,resnet50,mobilenetv2 --folds 5 "
        "--run demo-folds"
    )
    assert not charts(app)


def test_models_without_folds_are_listed_with_the_reason(empty_app):
    make_folded_run(empty_app, not_done={"cnn": "every layer is trained, too dear"})
    app = open_page()
    assert not app.exception
    assert "**CNN: folds not done**, every layer is trained, too dear." in main_text(app)
    app.sidebar.get("pills")[0].set_value(["cnn"]).run()
    assert not app.exception
    assert "None of the chosen models has folds" in app.main.info[0].value
    assert "every layer is trained" in main_text(app)


def test_only_chosen_models_are_shown_but_the_target_is_the_runs(empty_app):
    run = make_folded_run(empty_app)
    before = words(open_page())[1]
    app = open_page()
    app.sidebar.get("pills")[0].set_value(["cnn"]).run()
    assert words(app)[1] == before
    assert all("MobileNetV2" not in alt for alt in charts(app))
    assert run.title("cnn") in words(app)[0]


def test_the_papers_table_stands_beside_ours_with_each_protocol(empty_app):
    run = make_folded_run(empty_app)
    app = open_page()
    shown = app.main.table[1].value
    rows = table_rows(run)
    assert len(shown) == len(rows)
    assert "Ozturk et al" in plain(shown[""].iloc[0])
    assert "10.1016/j.compbiomed.2020.103792" in plain(shown[""].iloc[0])
    assert shown["Patients grouped"].to_list() == [
        "no" if row.model is None else "yes" for row in rows
    ]
    for row, cell in zip(rows, shown["Accuracy"], strict=True):
        own, decimals = row.accuracy, 1 if row.model else 2
        assert cell == (
            f"{100 * own.value:.{decimals}f} :gray[{100 * own.low:.1f} to {100 * own.high:.1f}]"
        )
    assert {row.protocol for row in rows} <= {plain(text) for text in shown["Protocol"]}
    assert "no intervals" in main_text(app)


def test_the_target_is_judged_with_both_intervals(empty_app):
    run = make_folded_run(empty_app, models=("cnn",))
    set_pooled(run, "cnn", (0.8803, 0.861, 0.899), (0.985, 0.975, 0.994))
    text = plain(main_text(open_page()))
    assert "Target reached: CNN is above 87.02 % in 3 classes" in text
    assert "88.03 % (86.1 to 89.9, n = 90) against the published 87.02 % (84.9 to 88.9" in text
    assert "with 90 images above is not yet better" in text


def test_random_against_grouped_names_both_runs_and_the_gap(empty_app):
    run = make_folded_run(empty_app, "release-grouped")
    other = make_folded_run(empty_app, "shuffled", split="random", skill=0.5)
    app = open_page()
    assert not app.exception
    text = plain(main_text(app))
    assert "grouped in run **release-grouped** and dealt at random in run **shuffled**" in text
    for gap in compare_splits(run, other):
        figure = gap.figures["accuracy"]
        assert f"{100 * figure.difference:.1f} points more accuracy" in text
    assert any(alt.startswith("Random less grouped folds") for alt in charts(app))


def test_without_a_twin_the_command_makes_one(empty_app):
    make_folded_run(empty_app, k=4)
    app = open_page()
    assert "no run here has the same images in 4 random folds" in main_text(app)
    assert any(
        code.value.endswith("--folds 4 --split random --allow-leakage --run folded-random")
        for code in app.main.code
    )


def test_a_run_of_random_folds_says_so_first(empty_app):
    make_folded_run(empty_app, split="random")
    app = open_page()
    assert "5 random folds, which have images of one patient on both sides," in words(app)[0]
    assert "The target was not judged" in words(app)[1]


def test_recipes_tried_are_counted_with_their_gain(empty_app):
    make_folded_run(empty_app, trials=TRIALS)
    app = open_page()
    assert not app.exception
    text = main_text(app)
    assert "**3 comparisons of recipes, 3 kept.** Recipes tried in all: CNN 2, Mob" in text
    assert "None of them was read on test images" in text and not app.main.warning
    table = app.main.dataframe[0].value.set_index("Change")
    assert table.loc["larger images", "Gain, points"] == pytest.approx(5)
    assert table.loc["larger images", "Log loss gained"] == pytest.approx(0.05)
    assert table.loc["larger images", "Images"] == "validation (n = 60)"


def test_recipes_tried_are_shown_also_without_folds(empty_app):
    path = make_run(empty_app, n=30, images=False)
    info = artifacts.open_run(path).info | {"trials": TRIALS}
    write_json(path / "run.json", info)
    app = open_page()
    assert "**3 comparisons of recipes, 3 kept.**" in main_text(app)


def test_a_recipe_read_on_the_folds_that_are_judged_is_named(empty_app):
    ahead = TRIALS[0] | {"change": "epoch by validation", "images": "OUTER folds 0 to 3"}
    make_folded_run(empty_app, trials=[*TRIALS, ahead])
    app = open_page()
    warning = app.main.warning[0].value
    assert warning.startswith("1 of them read on images that figures here are judged on")
    assert "epoch by validation (OUTER folds 0 to 3)" in warning
    assert "None of them was read" not in main_text(app)
    assert (
        "1 recipe was read beforehand on images that are judged here, which flatters it too"
        in main_text(app)
    )


def test_a_damaged_fold_file_is_a_sentence(empty_app):
    run = make_folded_run(empty_app)
    (run.path / "cnn" / FOLDS).write_text("{}")
    app = open_page()
    assert not app.exception
    assert "folded/cnn/metrics_folds.json is damaged" in plain(app.main.info[0].value)


def test_a_damaged_twin_does_not_take_the_page_away(empty_app):
    make_folded_run(empty_app, "release-grouped")
    other = make_folded_run(empty_app, "shuffled", split="random")
    (other.path / "cnn" / "predictions_folds.csv").write_text("image_id\nx\n")
    app = open_page()
    assert not app.exception
    assert "shuffled/cnn/predictions" in plain(app.main.error[0].value)
    assert "Target" in main_text(app)


def test_an_ensemble_is_a_row_of_its_own(empty_app):
    make_folded_run(empty_app, ensemble=True)
    app = open_page()
    assert "★" in app.main.table[0].value["Model"].iloc[-1]
    assert any("Mean of the models" in cell for cell in app.main.table[1].value[""])


def test_every_chart_has_words(empty_app):
    make_folded_run(empty_app)
    make_folded_run(empty_app, "shuffled", split="random", skill=0.5)
    alts = charts(open_page())
    assert len(alts) == 5
    assert all(len(alt) > 80 for alt in alts)


# ----------------------------------------------------------------------------------- charts

LABELS = {"cnn": "CNN", "mobilenetv2": "MobileNetV2"}


def test_pooled_and_folds_are_drawn_where_they_are(tmp_path):
    run = make_folded_run(tmp_path)
    rows = fold_table(run)
    chart = protocol_charts.plot_folds(
        rows, "accuracy", ChartFrame(run.models, LABELS), n_text="n = 90", target=True
    )
    own = rows[(rows["model"] == "cnn") & (rows["metric"] == "accuracy")]
    folds, pooled = chart.figure.data[:2]
    assert list(folds.x) == pytest.approx(list(100 * own["value"].iloc[1:]))
    assert list(pooled.x) == pytest.approx([100 * own["value"].iloc[0]])
    low, high = pooled.x[0] - pooled.error_x.arrayminus[0], pooled.x[0] + pooled.error_x.array[0]
    assert (low, high) == pytest.approx((100 * own["low"].iloc[0], 100 * own["high"].iloc[0]))
    lines = [shape for shape in chart.figure.layout.shapes if shape.type == "line"]
    assert any(line.x0 == pytest.approx(87.02) and line.layer == "below" for line in lines)


def test_gaps_are_drawn_in_points_around_zero(tmp_path):
    runs = [
        make_folded_run(tmp_path, "a"),
        make_folded_run(tmp_path, "b", split="random", skill=0.5),
    ]
    gaps = compare_splits(*runs)
    chart = protocol_charts.plot_optimism(gaps, ChartFrame(runs[0].models, LABELS))
    figure = gaps[0].figures["accuracy"]
    first = chart.figure.data[0]
    assert first.x[0] == pytest.approx(100 * figure.difference)
    assert first.x[0] - first.error_x.arrayminus[0] == pytest.approx(100 * figure.low)
    assert any(shape.x0 == 0 for shape in chart.figure.layout.shapes)
