"""The page Reliability checks: verdict, scorecard, and what each section shows of an audit."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from streamlit.testing.v1 import AppTest

from core.reporting.scorecard import scorecard
from core.reporting.scorecard.scorecard import FAILED, NOT_DONE, PASSED
from core.runs import artifacts
from dashboard.charts import trust as trust_charts
from dashboard.charts.style import MODEL_STYLES, ChartFrame
from dashboard.components.markdown import escape
from dashboard.data import trust as trust_data
from dashboard.tables import trust as trust_tables
from tests.support.audit import add_audit, add_external, change_json
from tests.support.rendered_images import record_media, shown_pictures
from tests.support.runs import make_run

APP = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"
MODELS = ("cnn", "mobilenetv2")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """artifacts/demo and its phantoms, to copy and never to write to."""
    root = tmp_path_factory.mktemp("whole")
    make_run(root / "artifacts", n=30, models=MODELS)
    return root


@pytest.fixture
def run_dir(whole: Path, empty_app: Path) -> Path:
    shutil.copytree(whole / "data", empty_app.parent / "data")
    return Path(shutil.copytree(whole / "artifacts" / "demo", empty_app / "demo"))


def open_trust(check: str | None = None) -> AppTest:
    """The page, with a check open."""
    app = AppTest.from_file(APP, default_timeout=120).run()
    app.switch_page("app_pages/trust.py").run()
    if check:
        open_check(app, check)
    assert not app.exception
    return app


def open_check(app: AppTest, check: str) -> AppTest:
    app.selectbox(key="trust_check").set_value(check).run()
    assert not app.exception
    return app


def words(app: AppTest) -> str:
    kinds = (app.main.markdown, app.main.caption, app.main.info, app.main.code)
    return "\n".join(str(element.value) for kind in kinds for element in kind)


def verdict(app: AppTest) -> str:
    return next(m.value for m in app.main.markdown if m.value.startswith("#### "))


def alts(app: AppTest) -> dict[str, str]:
    """Key of each chart -> its alternative text."""
    return {
        chart.proto.id.split("-")[-1]: chart.proto.alt for chart in app.main.get("plotly_chart")
    }


def change_audit(run_dir: Path, change) -> None:
    file = run_dir / "audit" / "audit.json"
    document = json.loads(file.read_text(encoding="utf-8"))
    change(document)
    file.write_text(json.dumps(document), encoding="utf-8")


# ------------------------------------------------------------------------------ the card


def test_first_comes_the_verdict_of_the_scorecard(run_dir: Path) -> None:
    add_audit(run_dir, leaks=True)
    run = artifacts.open_run(run_dir)
    said = scorecard.scorecard_sentence(run, scorecard.build_scorecard(run))
    app = open_trust()
    counted, _, faults = said.partition(" Most serious: ")
    assert verdict(app) == f"#### {escape(counted)}"
    assert f"Most serious: {escape(faults)}" in words(app)
    first = next(m.value for m in app.main.markdown if not m.value.startswith(":"))
    assert first == verdict(app)


def test_the_matrix_has_a_line_a_check_and_a_sign_a_model(run_dir: Path) -> None:
    add_audit(run_dir, flagged=["cnn"])
    checks = scorecard.sort_checks(scorecard.build_scorecard(artifacts.open_run(run_dir)))
    app = open_trust()
    matrix = app.main.table[0].value
    signs = {PASSED: "✓", FAILED: "✗", NOT_DONE: "–"}
    assert len(matrix) == len(checks) == 13
    for (_, row), check in zip(matrix.iterrows(), checks, strict=True):
        said = row["What should hold"]
        assert signs[check.status] in said and f"[{check.status}]" in said
        for model, cell in zip(MODELS, row.iloc[1:], strict=True):
            assert signs.get(check.models.get(model), "") in cell
            assert bool(cell) == (model in check.models)
    blackout = matrix[matrix["What should hold"].str.contains("Without the lungs")].iloc[0]
    assert "✗" in blackout.iloc[1] and "✓" in blackout.iloc[2]
    signs_shown = "".join(re.findall("[✗–✓]", " ".join(matrix["What should hold"])))
    assert re.fullmatch("✗+–+✓+", signs_shown), "the failed ones first"


def test_nothing_is_open_at_first_and_the_page_is_short(run_dir: Path) -> None:
    add_audit(run_dir, leaks=True)
    app = open_trust()
    assert app.selectbox(key="trust_check").value is None and not alts(app)
    table = " ".join(app.main.table[0].value.to_numpy().ravel())
    shut = [m.value for e in app.main.expander for m in e.markdown]
    text = [m.value for m in app.main.markdown if m.value not in shut]
    assert 100 < len(" ".join([table, *text]).split()) <= 350


def test_every_check_opens_with_a_badge_in_words_its_sentence_rule_and_place(
    run_dir: Path,
) -> None:
    add_audit(run_dir)
    checks = scorecard.build_scorecard(artifacts.open_run(run_dir))
    app = open_trust()
    for check in checks:
        open_check(app, check.key)
        text = words(app)
        assert escape(check.sentence) in text and escape(check.rule) in text
        assert check.title in [h.value for h in app.main.subheader]
        (badge,) = (m.value for m in app.main.markdown if f": {check.status}]" in m.value)
        assert "-badge[" in badge
        links = [link.proto.page for link in app.main.get("page_link")]
        elsewhere = check.page if check.page != "overview" else ""
        assert links == ([] if check.page == "trust" else [elsewhere])


def test_each_models_own_status_stands_beside_the_rule(run_dir: Path) -> None:
    add_audit(run_dir, flagged=["cnn"])
    text = words(open_trust("blackout"))
    assert ":material/cancel: :orange[●] **CNN** failed: 75.0" in text
    assert ":material/check_circle: :green[◆] **MobileNetV2** passed: 20.0" in text


def test_leaving_a_model_out_of_the_page_changes_charts_and_no_verdict(run_dir: Path) -> None:
    add_audit(run_dir, flagged=["cnn"])
    app = open_trust("blackout")
    before = verdict(app)
    assert "CNN" in alts(app)["blackout"]
    app.pills(key="models_demo").set_value(["mobilenetv2"]).run()
    assert not app.exception and verdict(app) == before
    assert "Most serious: predictions may not need the lungs (CNN)" in words(app)
    assert "CNN" not in alts(app)["blackout"] and "MobileNetV2" in alts(app)["blackout"]


def test_an_audit_that_is_made_later_is_shown(run_dir: Path) -> None:
    app = open_trust("blackout")
    before = verdict(app)
    assert "blackout" not in alts(app)
    add_audit(run_dir)
    app.run()
    assert verdict(app) != before and "blackout" in alts(app)


# ------------------------------------------------------------------------------ empty states


def test_without_an_audit_a_sentence_and_the_command(run_dir: Path) -> None:
    app = open_trust()
    assert "No audit of this run was made" in words(app)
    assert "python -m core audit --run demo" in [code.value for code in app.main.code]
    open_check(app, "external")
    commands = [code.value for code in app.main.code]
    assert "python -m core evaluate --run demo --data FOLDER" in commands
    for section in ("leakage", "blackout", "probe", "perturbation", "subgroups"):
        assert not alts(open_check(app, section))
    found = alts(open_check(app, "floors"))
    assert set(found) == {"floors_accuracy", "floors_macro_f1"}  # of the run itself


@pytest.mark.parametrize("section", ["leakage", "blackout", "probe", "perturbation", "subgroups"])
def test_a_section_that_was_left_out_says_so(run_dir: Path, section: str) -> None:
    add_audit(run_dir, left_out=[section])
    app = open_trust(section)
    assert "The audit left this out." in [info.value for info in app.main.info]
    command = "python -m core audit --run demo" + (" --probe FOLDER" * (section == "probe"))
    assert command in [code.value for code in app.main.code]


def test_a_damaged_audit_is_named(run_dir: Path) -> None:
    add_audit(run_dir)
    change_audit(run_dir, lambda audit: audit["blackout"].update(n="many"))
    app = open_trust()
    assert "demo/audit/audit.json is damaged: `blackout.n`" in app.main.info[0].value.replace(
        "\\", ""
    )
    assert len(app.main) < 5


def test_a_run_without_floors_says_so(run_dir: Path) -> None:
    change_json(run_dir / "run.json", floors={})
    app = open_trust("floors")
    assert "No shortcut was measured when this run was made." in words(app)


# ------------------------------------------------------------------------------ sections


def test_copies_stand_side_by_side_as_marked_pictures(
    run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    audit = add_audit(run_dir, leaks=True)
    media = record_media(monkeypatch)
    app = open_trust("leakage")
    pairs = trust_tables.crossing_pairs(audit["leakage"])
    shown = pairs[:6]
    seen = [p.proto.imgs[0].alt for p in app.image]
    wanted = [pair[f"image_id_{side}"] for pair in shown for side in "ab"]
    assert [alt.split(" SYNTHETIC ")[1].split(",")[0] for alt in seen[:12]] == wanted
    assert len(pairs) == 10 and "10 pairs**, the first 6 here" in words(app)
    picture = shown_pictures(app, media)[0]
    assert picture.shape[0] == 256 and picture[4:24, 4:90].max() > 240  # the word in its corner
    patients = app.main.dataframe[0].value
    assert list(patients["patient"]) == ["shared-1"]
    every = app.main.dataframe[1].value
    assert len(every) == 11 and every["in different parts"].sum() == 10


def test_without_the_pictures_copies_are_told_by_id(run_dir: Path) -> None:
    add_audit(run_dir, leaks=True)
    shutil.rmtree(run_dir.parent.parent / "data")
    app = open_trust("leakage")
    captions = [c.value for c in app.main.caption]
    assert any("test: covid/phantom-c0000" in c.replace("\\", "") for c in captions)


def test_those_with_test_come_first_then_the_most_alike() -> None:
    def pair(a: str, b: str, r: float) -> dict:
        ids = {"image_id_a": a, "image_id_b": b, "correlation": r}
        return ids | {"split_a": a, "split_b": b}

    section = {
        "exact": [pair("train", "val", 1.0)],
        "near": [pair("val", "test", 0.98), pair("train", "test", 0.99), pair("test", "test", 1)],
    }
    found = [(p["split_a"], p["split_b"]) for p in trust_tables.crossing_pairs(section)]
    assert found == [("train", "test"), ("val", "test"), ("train", "val")]


def test_the_region_is_drawn_on_a_phantom_as_the_audit_hides_it() -> None:
    region = {"kind": "box", "boxes": [[0.25, 0.25, 0.75, 0.75]]}
    whole, hidden, only = (p.astype(int) for _, p in trust_data.draw_region(region, "mean"))
    inside = np.zeros(whole.shape, dtype=bool)
    inside[64:192, 64:192] = True
    assert len(np.unique(hidden[inside])) == 1 and (only[inside] == whole[inside]).all()
    corner = np.zeros(whole.shape, dtype=bool)
    corner[:40, :] = True  # the word SYNTHETIC
    rest = ~inside & ~corner
    assert (hidden[rest] == whole[rest]).all() and len(np.unique(only[rest])) == 1
    for fill in ("surroundings", "unheard of"):
        assert len(trust_data.draw_region(region, fill)) == 3


def test_masks_hide_the_phantoms_lungs() -> None:
    (_, whole), (_, hidden), _ = trust_data.draw_region({"kind": "masks"}, "mean")
    changed = (whole != hidden).mean()
    assert 0.1 < changed < 0.6


def test_a_model_without_any_gain_is_neither_flagged_nor_cleared(run_dir: Path) -> None:
    add_audit(run_dir, flagged=["cnn"])

    def lose(audit: dict) -> None:
        for masked in audit["blackout"]["models"]["mobilenetv2"]["without_lungs"].values():
            masked["kept"] = dict.fromkeys(("share", "low", "high"))

    change_audit(run_dir, lose)
    lines = next(
        m.value for m in open_trust("blackout").main.markdown if "Without the lungs CNN" in m.value
    )
    icons = [line.split()[0] for line in lines.split("  \n")]
    assert icons == [":material/flag:", ":material/pending:"]


def test_the_probes_images_are_listed_the_surest_alarm_first(run_dir: Path) -> None:
    audit = add_audit(run_dir, fooled=["cnn"])
    app = open_trust("probe")
    table = next(d.value for d in app.main.dataframe if "shows" in d.value)
    assert len(table) == len(audit["probe"]["images"])
    means = table[["p covid, CNN", "p covid, MobileNetV2"]].mean(axis=1)
    assert means.is_monotonic_decreasing
    assert "CNN calls 14 of 19 covid." in words(app)


def test_perturbation_has_one_small_chart_a_kind(run_dir: Path) -> None:
    audit = add_audit(run_dir)
    app = open_trust("perturbation")
    kinds = audit["perturbation"]["kinds"]
    found = alts(app)
    assert {f"perturbation_{kind}" for kind in kinds} <= set(found)
    base = audit["perturbation"]["models"]["cnn"]["baseline"]["accuracy"]
    assert f"{100 * base:.1f} %" in found["perturbation_jpeg"]
    assert "unaltered at 100" in found["perturbation_jpeg"]
    assert "CNN loses most between" in words(app)


def test_subgroups_show_sensitivity_alone_where_the_class_is_given_away(run_dir: Path) -> None:
    add_audit(run_dir)
    app = open_trust("subgroups")
    assert "subgroups_view_accuracy" in alts(app)
    app.main.get("button_group")  # the two choices
    app.session_state["trust_column"] = "source"
    app.run()
    assert not app.exception
    assert "subgroups_source_covid" in alts(app)
    assert "Every covid image comes from one source." in words(app)
    shown = app.session_state["trust_what"]
    assert shown == "covid"


def test_small_groups_are_pale() -> None:
    figure = {"value": 0.5, "low": 0.2, "high": 0.8}
    group = {"n": 9, "models": {"cnn": {"accuracy": figure, "sensitivity": {}}}}
    column = {
        "groups": [
            {"value": "few", "n_patients": 2, **group},
            {"value": "b", "n_patients": 3, **group},
        ]
    }
    points = trust_tables.subgroup_points(column, ["cnn"], "accuracy", 3)
    assert list(points["faded"]) == [True, False]
    assert points["row"][0] == "few · n = 9, 2 patients, too few to judge"


def test_sets_from_elsewhere_stand_beside_home(run_dir: Path) -> None:
    doc = add_external(run_dir)
    add_external(run_dir, "covid-only", classes=["covid"])
    add_external(run_dir, "blind", labelled=False)
    app = open_trust("external")
    text, found = words(app), alts(app)
    row = doc["drop"]["cnn"]["macro_f1"]
    alt = found["external_elsewhere"]
    assert f"CNN own test images {100 * row['internal']:.1f} %" in alt
    assert f"CNN external images {100 * row['external']:.1f} %" in alt
    assert (
        "Accuracy:" not in found["external_covid_only"] if "external_covid_only" in found else True
    )
    assert "Missing among them\\: normal and pneumonia" in text
    assert "The truth of these images is not known" in text and "external_blind" not in found
    tables = [t.value for t in app.main.table]
    assert any("called covid" in t.columns and t["called covid"].sum() > 0 for t in tables)
    left_out = [e.label for e in app.main.expander if "left out" in e.label]
    assert left_out == ["3 images were left out\\: 1 duplicate, 1 class, 1 for other reasons"] * 3
    assert "With the images left in that overlap with what the run learned from" in text
    findings = next(d.value for d in app.main.dataframe if "recorded finding" in d.value)
    assert findings.to_dict("records")[0] == {
        "recorded finding": "edema",
        "images": 2,
        "called covid, CNN": 2,
        "called covid, MobileNetV2": 2,
    }


# ------------------------------------------------------------------------------ untrusted text


NASTY = "**x** :red[a] <b>b</b> $y$ [l](http://a)"


def test_text_from_files_is_text(run_dir: Path) -> None:
    add_audit(run_dir, leaks=True)

    def spoil(audit: dict) -> None:
        audit["probe"]["question"] = audit["probe"]["title"] = NASTY
        audit["leakage"]["method"] = audit["leakage"]["sentence"] = NASTY
        audit["blackout"]["rule"] = NASTY
        audit["missing"] = [NASTY]
        for row in audit["blackout"]["models"].values():
            row["sentence"] = NASTY
        for kind in audit["perturbation"]["kinds"].values():
            kind["title"] = kind["unit"] = NASTY
        for column in audit["subgroups"]["columns"]:
            column["title"] = column["why"] = NASTY

    change_audit(run_dir, spoil)
    doc = add_external(run_dir)
    doc |= {"title": NASTY, "caveats": [NASTY], "classes_extra": {NASTY: 1}}
    file = run_dir / "external" / "elsewhere" / "external.json"
    file.write_text(json.dumps(doc), encoding="utf-8")
    change_json(run_dir / "run.json", display={"cnn": NASTY})
    app = open_trust()
    for check in ("leakage", "probe", "blackout", "perturbation", "subgroups", "external"):
        open_check(app, check)
        for element in [*app.main.markdown, *app.main.caption, *app.main.info]:
            assert "**x**" not in element.value.replace(escape(NASTY), "")
            assert "<b>b</b>" not in element.value and ":red[a]" not in element.value
    figure = trust_charts.plot_dot_rows(
        trust_tables.points([(NASTY, "cnn", 0.5, 0.4, 0.6, False, False, NASTY)]),
        ChartFrame(["cnn"], {"cnn": NASTY}),
        title=NASTY,
        axis="percent",
    ).figure
    assert "<b>b</b>" not in figure.layout.annotations[0].text
    assert "<b>b</b>" not in str(figure.data[0].customdata)


# ------------------------------------------------------------------------------ charts


def look() -> ChartFrame:
    return ChartFrame(list(MODELS), {"cnn": "CNN", "mobilenetv2": "MobileNetV2"})


def traces(figure, name: str) -> list:
    return [trace for trace in figure.data if trace.name == name]


def test_dots_have_the_models_colours_shapes_and_whiskers() -> None:
    points = trust_tables.points(
        [
            ("A", "cnn", 0.5, 0.4, 0.7, False, False, ""),
            ("A", "mobilenetv2", 0.6, None, None, True, False, ""),
            ("B", "cnn", None, None, None, False, False, ""),
        ]
    )
    floors = trust_tables.references([("B", "F", "floor", 0.3, 0.25, 0.35)])
    chart = trust_charts.plot_dot_rows(
        points, look(), title="T", axis="percent", references=floors, line=("half", 0.5),
        kinds=("at home", "elsewhere"),
    )  # fmt: skip
    (cnn,), (mobile,) = traces(chart.figure, "CNN"), traces(chart.figure, "MobileNetV2")
    assert cnn.marker.color == MODEL_STYLES["cnn"].colour and cnn.marker.symbol == "circle"
    assert mobile.marker.symbol == "diamond-open"
    assert list(cnn.x) == [50] and cnn.error_x.array[0] == pytest.approx(20)
    assert cnn.error_x.arrayminus[0] == pytest.approx(10) and mobile.error_x.array[0] == 0
    (floor,) = traces(chart.figure, "floor")
    assert list(floor.x) == [30] and floor.y[0] > 0.5 > cnn.y[0]  # in the second row
    assert chart.alt == (
        "T. A: CNN at home 50.0 % (40.0 to 70.0), MobileNetV2 elsewhere 60.0 % (no interval). "
        "B: F 30.0 % (25.0 to 35.0)."
    )


def test_marks_of_a_row_stand_apart_and_below_its_name() -> None:
    rows = [(row, model, 0.5, 0.4, 0.6, hollow, False, "") for row in ("A", "B" * 60)
            for model in MODELS for hollow in (False, True)]  # fmt: skip
    figure = trust_charts.plot_dot_rows(
        trust_tables.points(rows), look(), title="T", axis="percent"
    ).figure
    heights = sorted(y for trace in figure.data if trace.y[0] is not None for y in trace.y)
    assert len(set(heights)) == 8
    assert min(np.diff(heights)) > 0.05
    assert heights[0] > -0.5 and heights[3] < 0.5 < heights[4] and heights[7] < 1.5


def test_faded_marks_and_their_whiskers_are_pale() -> None:
    points = trust_tables.points(
        [
            ("A", "cnn", 0.5, 0.4, 0.7, False, True, ""),
            ("B", "cnn", 0.5, 0.4, 0.7, False, False, ""),
        ]
    )
    figure = trust_charts.plot_dot_rows(points, look(), title="T", axis="percent").figure
    strong, pale = traces(figure, "CNN")
    assert strong.marker.color == "#E69F00"
    assert pale.marker.color == pale.error_x.color == "rgba(230,159,0,0.35)"


def test_an_empty_chart_is_no_crash() -> None:
    chart = trust_charts.plot_dot_rows(trust_tables.points([]), look(), title="T", axis="percent")
    assert chart.alt == "T. No figure."


def test_perturbation_lines_pass_through_the_unaltered_image() -> None:
    section = {
        "kinds": {"jpeg": {"title": "JPEG", "unit": "quality", "neutral": 100}},
        "models": {
            "cnn": {
                "baseline": {"accuracy": 0.9, "low": 0.8, "high": 1.0},
                "curves": {
                    "jpeg": [
                        {"strength": 10, "accuracy": 0.4, "low": 0.3, "high": 0.5},
                        {"strength": 50, "accuracy": 0.7, "low": None, "high": None},
                    ]
                },
            }
        },
    }
    curves = trust_tables.perturbation_curves(section, MODELS)
    assert len(curves) == 3 and not (curves["model"] == "mobilenetv2").any()
    chart = trust_charts.plot_perturbation(
        curves, look(), title="JPEG", unit="quality", neutral=100, lowest=0.3
    )
    band, line = chart.figure.data
    assert list(line.x) == [0, 1, 2] and list(line.y) == [40, 70, 90]
    assert list(band.x) == [0, 2, 2, 0] and list(band.y) == [50, 100, 80, 30]
    assert list(chart.figure.layout.xaxis.ticktext) == ["10", "50", "100"]
    assert chart.figure.layout.shapes[0].x0 == 2
    assert "70.0 % (no interval) at 50" in chart.alt


def test_floors_are_sorted_and_models_stand_above_them() -> None:
    metrics = {"cnn": {"accuracy": 0.8, "intervals": {"accuracy": {"low": 0.7, "high": 0.9}}}}
    floors = {
        "a": {"title": "A", "kind": "pixel", "accuracy": 0.3},
        "b": {"title": "B", "kind": "metadata", "accuracy": 0.5},
        "c": {"title": "C", "kind": "pixel", "accuracy": None},
    }
    points, references = trust_tables.baseline_points(metrics, floors, "accuracy")
    assert list(points["row"]) == ["Models"] and list(references["row"]) == ["B", "A"]
    assert list(references["kind"]) == ["floor: file properties only", "floor: pixel shortcuts"]
    assert trust_tables.highest(floors, "accuracy") == ("highest floor", 0.5)
    assert trust_tables.highest({}, "accuracy") is None


def test_charts_are_built_once(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add_audit(run_dir)
    built = []
    plot = trust_charts.plot_dot_rows

    def counting(*args, **kwargs):
        built.append(kwargs["title"])
        return plot(*args, **kwargs)

    monkeypatch.setattr(trust_charts, "plot_dot_rows", counting)
    checks = ("floors", "blackout", "probe", "subgroups")
    app = open_trust()
    for check in checks:
        open_check(app, check)
    n = len(built)
    for check in checks:
        open_check(app, check)
    assert n >= 5 and len(built) == n


def test_excluded_in_words() -> None:
    assert trust_tables.excluded_text([]) == ""
    one = [{"image_id": "a", "reason": "r"}]
    assert trust_tables.excluded_text(one) == "1 image was left out"


def test_tables_are_those_of_the_audit(run_dir: Path) -> None:
    audit = add_audit(run_dir)
    table = trust_tables.retained_table(audit["blackout"], {"cnn": "CNN"})
    kept = audit["blackout"]["models"]["cnn"]["without_lungs"]["mean"]["kept"]
    low, high = 100 * kept["low"], 100 * kept["high"]
    assert isinstance(table, pd.DataFrame)
    assert table["Lungs hidden, fill 1"][0] == (
        f"{100 * kept['share']:.1f}\u202f% :gray[{low:.1f}\u00a0to\u00a0{high:.1f}]"
    )
