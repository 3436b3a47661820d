"""Going on with an interrupted run, and what stands in its way."""

from dataclasses import replace

import pandas as pd
import pytest

from core.config import Config, ConfigError
from core.files import write_json
from core.models.pretrained import InitPlan
from core.models.recipes import RECIPES
from core.runs import artifacts
from core.training import resume

CONFIG = Config("tiny", ("cnn",), "mine")
RECIPE = RECIPES["cnn", "random"]


def open_work(folder, config=CONFIG, *, resume_run=False, replace_run=False):
    resume.check_run_folder(folder, config, resume=resume_run, replace=replace_run)
    return resume.open_work_folder(folder, config, replace=replace_run)


def test_a_begun_run_wants_to_be_told_and_takes_the_same_settings_only(tmp_path):
    run_dir = tmp_path / "mine"
    work = open_work(run_dir)
    with pytest.raises(ConfigError, match="--resume goes on"):
        open_work(run_dir)
    assert open_work(run_dir, resume_run=True) == work
    with pytest.raises(ConfigError, match="other settings"):
        open_work(run_dir, replace(CONFIG, seed=1), resume_run=True)
    (work / "cnn").mkdir()
    assert not (open_work(run_dir, replace_run=True) / "cnn").exists()


def test_a_complete_run_is_set_aside_until_the_new_one_is_complete(tmp_path):
    run_dir = tmp_path / "mine"
    write_json(run_dir / "run.json", {"former": True})
    for options, says in (({}, "exists already"), ({"resume_run": True}, "complete")):
        with pytest.raises(ConfigError, match=says):
            open_work(run_dir, **options)
    open_work(run_dir, replace_run=True)
    aside = resume.replaced_folder(run_dir)
    assert not (run_dir / "run.json").exists() and (aside / "run.json").exists()
    assert artifacts.list_runs(tmp_path)[0].name == "mine", "what is set aside is not listed"
    assert len(artifacts.list_runs(tmp_path)) == 1


def test_other_images_or_another_split_are_refused(tmp_path):
    manifest = pd.DataFrame({"image_id": ["a", "b"], "split": ["train", "test"], "fold": pd.NA})
    resume.check_images(tmp_path, manifest, "mine")
    resume.check_images(tmp_path, manifest.copy(), "mine")
    with pytest.raises(ConfigError, match="have changed"):
        resume.check_images(tmp_path, manifest.assign(split=["test", "train"]), "mine")


def test_another_init_file_or_recipe_is_refused_by_name(tmp_path):
    file = tmp_path / "w.h5"
    file.write_bytes(b"one")
    plan = InitPlan("file:w.h5", file)
    assert resume.begun_init(tmp_path, "cnn") is None
    resume.check_plan(tmp_path, "cnn", plan, RECIPE, "mine")
    resume.check_plan(tmp_path, "cnn", plan, RECIPE, "mine")
    assert resume.begun_init(tmp_path, "cnn") == "file:w.h5"
    with pytest.raises(ConfigError, match="recipe of cnn"):
        resume.check_plan(tmp_path, "cnn", plan, replace(RECIPE, dropout=0.1), "mine")
    with pytest.raises(ConfigError, match="init of cnn"):
        resume.check_plan(tmp_path, "cnn", InitPlan("random"), RECIPE, "mine")
    file.write_bytes(b"two")
    with pytest.raises(ConfigError, match="file of first weights"):
        resume.check_plan(tmp_path, "cnn", plan, RECIPE, "mine")


def test_a_begun_model_keeps_its_init_whatever_auto_would_find(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    assert resume.plan_again("resnet50", "random", "auto") == InitPlan("random")
    monkeypatch.setattr("core.models.pretrained._reachable", lambda url: False)
    with pytest.raises(ConfigError, match="not to be had"):
        resume.plan_again("resnet50", "imagenet", "auto")
