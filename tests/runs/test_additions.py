"""audit/ and external/: whole or absent, with hashes of their own."""

import pandas as pd
import pytest

from core.runs import additions, artifacts
from tests.support.runs import make_run

SECTIONS = {"leakage": None, "blackout": None, "probe": None, "perturbation": None}
IMAGES = pd.DataFrame(
    [("a/1", "a/1.png", "covid", "COVID", "p1", "00")], columns=additions.EXTERNAL_COLUMNS
)


@pytest.fixture
def run(tmp_path):
    return artifacts.open_run(make_run(tmp_path / "runs", n=30, images=False))


def predictions(run, label="covid"):
    shares = {f"p_{name}": [p] for name, p in zip(run.class_names, (0.7, 0.2, 0.1), strict=True)}
    head = {"image_id": ["a/1"], "split": [""], "fold": [""], "label": [label]}
    return pd.DataFrame(head | {"predicted": ["covid"]} | shares)


def test_a_run_without_additions_has_none(run):
    assert additions.load_audit(run) is None
    assert additions.list_external(run) == []
    assert additions.verify_additions(run) == []


def test_an_audit_is_read_as_written_and_a_change_of_its_tables_is_found(run):
    table = pd.DataFrame({"image_id": ["a"], "kept": ["0.5"]})
    additions.write_audit(run, SECTIONS | {"minutes": 1.5}, {"blackout.csv": table})
    audit = additions.load_audit(run)
    assert audit["minutes"] == 1.5 and audit["run"] == run.name
    assert audit["subgroups"] is None, "what was not done is null"
    read = additions.load_audit_table(run, "blackout.csv", ["image_id", "kept"])
    assert read.to_dict("list") == {"image_id": ["a"], "kept": ["0.5"]}
    assert additions.verify_additions(run) == []
    assert artifacts.verify_run(run.path) == [], "the run's own hashes do not count it"
    (run.path / "audit" / "blackout.csv").write_text("image_id,kept\na,0.1\n")
    assert additions.verify_additions(run) == [
        "audit/blackout.csv has changed since it was written."
    ]
    (run.path / "audit" / "blackout.csv").unlink()
    assert additions.verify_additions(run) == ["audit/blackout.csv is missing."]


def test_a_new_audit_replaces_the_old_one_as_a_whole(run, monkeypatch):
    additions.write_audit(run, SECTIONS | {"minutes": 1}, {"old.csv": pd.DataFrame({"x": [1]})})

    def torn(*words):
        raise OSError("disk full")

    with monkeypatch.context() as broken:
        broken.setattr(additions, "write_json", torn)
        with pytest.raises(OSError, match="disk full"):
            additions.write_audit(run, SECTIONS | {"minutes": 2}, {})
    assert additions.load_audit(run)["minutes"] == 1
    additions.write_audit(run, SECTIONS | {"minutes": 3}, {})
    assert additions.load_audit(run)["minutes"] == 3
    assert not (run.path / "audit" / "old.csv").exists()
    assert [file.name for file in run.path.glob(".*")] == []


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not valid JSON"),
        ("[]", "not an object with `files`"),
        ('{"format_version": 2, "files": {}}', "format version 2, this program reads 1"),
        ('{"format_version": 1, "files": {}, "probe": []}', "`probe`"),
    ],
)
def test_a_damaged_audit_is_one_sentence(run, text, says):
    (run.path / "audit").mkdir()
    (run.path / "audit" / "audit.json").write_text(text)
    with pytest.raises(artifacts.ArtifactError, match=says):
        additions.load_audit(run)


def test_an_external_set_is_read_as_written(run):
    document = {"models": {}, "excluded": [], "title": "Elsewhere"}
    tables = {"cnn": predictions(run, label="")}
    additions.write_external(run, "elsewhere", document, IMAGES, tables)
    assert additions.list_external(run) == ["elsewhere"]
    assert additions.load_external(run, "elsewhere")["title"] == "Elsewhere"
    assert list(additions.load_external_manifest(run, "elsewhere")["sha256"]) == ["00"]
    read = additions.load_external_predictions(run, "elsewhere", "cnn")
    assert read["p_covid"].iloc[0] == 0.7 and read["label"].iloc[0] == ""
    (run.path / "external" / "elsewhere" / "cnn" / "predictions.csv").write_text("x\n")
    assert "external/elsewhere/cnn/predictions.csv has changed" in str(
        additions.verify_additions(run)
    )
    with pytest.raises(artifacts.ArtifactError, match=r"Received: '\.\./out'"):
        additions.write_external(run, "../out", document, IMAGES, {})


def test_an_ensemble_has_members_and_no_file_to_serve(tmp_path):
    path = make_run(tmp_path / "runs", n=30, images=False, folds=3, ensemble=True)
    run = artifacts.open_run(path)
    assert run.models == [*run.served, "ensemble"] and run.members("ensemble") == run.served
    assert run.members("cnn") == []
    for part in ("test", "val", "folds", "inner"):
        mean = artifacts.load_predictions(run, "ensemble", part).set_index("image_id")
        parts = [
            artifacts.load_predictions(run, m, part)
            .set_index("image_id")
            .loc[mean.index, "p_covid"]
            for m in run.served
        ]
        assert mean["p_covid"].to_numpy() == pytest.approx(sum(p.to_numpy() for p in parts) / 3)
    costs = [artifacts.load_metrics(run, m)["cost"]["latency_ms"] for m in run.served]
    assert artifacts.load_metrics(run, "ensemble")["cost"]["latency_ms"] == pytest.approx(
        sum(costs)
    )
