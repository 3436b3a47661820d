"""The front doors: the Makefile (with a stand-in for Python), the pins, and who imports whom."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).resolve().parents[2]
TARGETS = [
    "help", "setup", "data", "train-all", "train-zoo", "audit", "bench", "report", "torture",
    "dashboard", "demo", "test", "lint",
]  # fmt: skip
REQUIREMENTS = ("requirements-dashboard.txt", "requirements.txt", "requirements-dev.txt")
TRAINING_ONLY = {"keras", "tensorflow", "jax", "kagglehub"}

# Stands in for .venv/bin/python: writes down how it was called, and "trains" by making run.json.
STAND_IN = """#!/bin/bash
echo "$@" >> calls.txt
if [[ "$*" == "-m core train"* ]]; then
  run=$(sed 's/.*--run \\([^ ]*\\).*/\\1/' <<< "$*")
  mkdir -p "artifacts/$run" && touch "artifacts/$run/run.json"
fi
if [[ "$3" == guard || "$3" == maps ]]; then mkdir -p "artifacts/$5/$3"; fi
if [[ "$1 $2" == "-m dashboard" ]]; then echo "CXR_RUN=${CXR_RUN:-}" >> calls.txt; fi
if [[ "$1 $2" == "-m venv" ]]; then mkdir -p .venv/bin && cp "$0" .venv/bin/python; fi
"""


class Checkout:
    """A copy of the Makefile and the pins, where `make` calls the stand-in."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("Makefile", "constraints.txt", *REQUIREMENTS):
            shutil.copy(ROOT / name, folder)
        (folder / "fake").mkdir()
        self.python = folder / "fake" / "python3"
        self.python.write_text(STAND_IN)
        self.python.chmod(0o755)

    def make(self, *args: str) -> list[str]:
        """Run make; the calls of Python since the last time."""
        log = self.folder / "calls.txt"
        log.unlink(missing_ok=True)
        quiet = ("CXR_", "MAKE", "MFLAGS", "PORT", "ADDRESS", "RUN", "DATASET", "MODELS", "ARGS")
        environ = {k: v for k, v in os.environ.items() if not k.startswith(quiet)}
        self.done = subprocess.run(
            ["make", f"PYTHON={self.python}", *args],
            cwd=self.folder,
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return log.read_text().splitlines() if log.exists() else []


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    if shutil.which("make") is None:
        pytest.skip("There is no make on this machine: apt-get install make.")
    return Checkout(tmp_path)


def measured(run: str) -> list[str]:
    """What follows every training."""
    return [f"-m core {step} --run {run}" for step in ("guard", "maps")]


def installs(calls: list[str]) -> list[str]:
    return [call.split()[-1] for call in calls if call.startswith("-m pip install")]


def test_help_lists_every_target_and_needs_nothing(checkout: Checkout):
    assert checkout.make("help") == []
    for target in TARGETS:
        assert re.search(rf"^make {target} +\w", checkout.done.stdout, re.MULTILINE)
    phony = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(phony[1].split()) == set(re.findall(r"^make (\S+)", checkout.done.stdout, re.M))


def test_plain_make_is_help(checkout: Checkout):
    checkout.make("help")
    listed = checkout.done.stdout
    checkout.make()
    assert checkout.done.stdout == listed


def test_dashboard_installs_only_its_own_and_only_once(checkout: Checkout):
    calls = checkout.make("dashboard", "PORT=8600")
    assert installs(calls) == ["requirements-dashboard.txt"]
    assert calls[-2:] == ["-m dashboard --port 8600", "CXR_RUN="]
    again = checkout.make("dashboard")
    assert again == ["-m dashboard", "CXR_RUN="]


def test_a_changed_pin_is_installed(checkout: Checkout):
    checkout.make("dashboard")
    with open(checkout.folder / "requirements-dashboard.txt", "a") as file:
        file.write("left-pad==1.0\n")
    assert installs(checkout.make("dashboard")) == ["requirements-dashboard.txt"]


def test_what_the_tests_installed_serves_the_others(checkout: Checkout):
    assert installs(checkout.make("test")) == ["requirements-dev.txt"]
    for target in ("setup", "dashboard", "demo", "test", "lint"):
        assert installs(checkout.make(target)) == []


def test_a_failed_install_is_tried_again(checkout: Checkout):
    checkout.python.write_text(STAND_IN + '[[ "$3" != install || -e pip-works ]] || exit 1\n')
    checkout.make("dashboard")
    assert checkout.done.returncode != 0
    (checkout.folder / "pip-works").touch()
    calls = checkout.make("dashboard")
    assert installs(calls) == ["requirements-dashboard.txt"]
    assert checkout.done.returncode == 0


@pytest.mark.parametrize("minor", [10, 11, 13, 14])
def test_pythons_without_wheels_are_refused_in_one_sentence(checkout: Checkout, minor: int):
    asked = f'exec {sys.executable} -c "import sys; sys.version_info = (3, {minor}, 1); ${{2#*; }}"'
    checkout.python.write_text(f'{STAND_IN}if [[ "$1" == -c ]]; then {asked}; fi\n')
    calls = checkout.make("dashboard")
    if minor in (11, 13):
        assert checkout.done.returncode == 0 and "-m venv .venv" in calls
        return
    assert checkout.done.returncode != 0 and "-m venv .venv" not in calls
    first, *_ = checkout.done.stderr.splitlines()
    assert first.startswith("Python 3.11, 3.12 or 3.13 is needed") and "TensorFlow" in first


def test_the_pythons_are_the_same_everywhere():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["requires-python"] == ">=3.11,<3.14"
    assert "(3, 11) <= sys.version_info[:2] <= (3, 13)" in (ROOT / "Makefile").read_text()
    assert "Python 3.11, 3.12 or 3.13" in (ROOT / "README.md").read_text(encoding="utf-8")


def test_a_report_is_of_the_release_unless_told_and_needs_a_picture(checkout: Checkout):
    call = "-m core predict --run {} --report {} my picture.png"
    calls = checkout.make("report", "PICTURE=my picture.png")
    assert calls[-1] == call.format("release", "reports")
    calls = checkout.make("report", "PICTURE=my picture.png", "RUN=mine", "OUT=out")
    assert calls[-1] == call.format("mine", "out")
    assert checkout.make("report") == [] and checkout.done.returncode != 0
    assert "Which picture? make report PICTURE=image.png" in checkout.done.stderr


def test_audit_asks_the_release_unless_told(checkout: Checkout):
    assert checkout.make("audit")[-1] == "-m core audit --run release"
    assert checkout.make("audit", "RUN=mine")[-1] == "-m core audit --run mine"


def test_demo_trains_once_and_opens_on_its_run(checkout: Checkout):
    train = "-m core train --dataset phantom --models cnn,resnet50,mobilenetv2 --run demo --quick"
    opened = ["-m dashboard", "CXR_RUN=demo"]
    calls = checkout.make("demo")
    assert calls[-5:] == [train, *measured("demo"), *opened]
    assert checkout.make("demo") == opened


def test_train_all_goes_on_where_it_broke_off_and_never_replaces(checkout: Checkout):
    (checkout.folder / "artifacts" / "r1" / ".work").mkdir(parents=True)
    base = "-m core train --dataset darkcovidnet --models cnn,resnet50,mobilenetv2 --run"
    assert checkout.make("train-all", "RUN=r1")[-3:] == [f"{base} r1 --resume", *measured("r1")]
    assert checkout.make("train-all", "RUN=r1") == []
    assert "artifacts/r1 is there already" in checkout.done.stdout
    (checkout.folder / "artifacts" / "r1" / "maps").rmdir()
    assert checkout.make("train-all", "RUN=r1") == ["-m core maps --run r1"]
    assert re.fullmatch(rf"{base} release-\d{{4}}-\d\d-\d\d", checkout.make("train-all")[-3])


def test_train_all_fetches_what_is_not_there(checkout: Checkout):
    calls = checkout.make("train-all", "RUN=r1")
    assert [call.split()[2] for call in calls[-4:]] == ["data", "train", "guard", "maps"]
    assert calls[-4] == "-m core data darkcovidnet"
    (checkout.folder / "data" / "mine").mkdir(parents=True)
    for place in ("mine", "data/mine"):
        calls = checkout.make("train-all", f"DATASET={place}", f"RUN={place.replace('/', '-')}")
        assert len(calls) == 3 and f"--dataset {place} " in calls[0]
    python = checkout.folder / ".venv" / "bin" / "python"
    python.write_text(STAND_IN + '[[ "$2 $3" != "core data" ]] || exit 2\n')
    calls = checkout.make("train-all", "RUN=r2")
    assert checkout.done.returncode != 0 and calls == ["-m core data darkcovidnet"]


def test_the_precision_of_training_is_handed_on(checkout: Checkout):
    (checkout.folder / "data" / "mine").mkdir(parents=True)
    for target in ("train-all", "train-zoo"):
        calls = checkout.make(target, "DATASET=mine", f"RUN={target}", "MIXED=measure")
        assert [call.endswith(" --mixed measure") for call in calls].count(True) == 1


def test_a_release_that_was_begun_goes_on_past_midnight(checkout: Checkout):
    (checkout.folder / "artifacts" / "release-2020-02-29" / ".work").mkdir(parents=True)
    call = checkout.make("train-all")[-3]
    assert call.endswith("--run release-2020-02-29 --resume")


def test_a_failed_training_fails_make_and_opens_nothing(checkout: Checkout):
    checkout.python.write_text(STAND_IN + '[[ "$2 $3" != "core train" ]] || exit 2\n')
    checkout.python.write_text(
        checkout.python.read_text().replace('touch "artifacts/$run/run.json"', "true")
    )
    calls = checkout.make("demo")
    assert checkout.done.returncode != 0
    assert not any(call.startswith("-m dashboard") for call in calls)


# ------------------------------------------------------------------------------ pins, settings


def pins(name: str) -> dict[str, str]:
    lines = [line.strip() for line in (ROOT / name).read_text().splitlines()]
    return dict(line.split("==") for line in lines if line and not line.startswith(("#", "-")))


@pytest.mark.parametrize("name", REQUIREMENTS)
def test_requirements_are_exact_and_agree_with_the_constraints(name: str):
    locked = {
        key.lower().replace("_", "-"): value for key, value in pins("constraints.txt").items()
    }
    for package, version in pins(name).items():
        assert locked[package.lower().replace("_", "-")] == version


def test_each_requirements_file_includes_the_smaller_one():
    for smaller, larger in pairwise(REQUIREMENTS):
        assert f"-r {smaller}" in (ROOT / larger).read_text().splitlines()
    assert not TRAINING_ONLY & set(pins("requirements-dashboard.txt"))


def test_streamlit_asks_and_tells_nobody():
    settings = tomllib.loads((ROOT / ".streamlit" / "config.toml").read_text(encoding="utf-8"))
    assert settings["browser"]["gatherUsageStats"] is False
    assert settings["server"]["showEmailPrompt"] is False
    assert settings["server"]["address"] == "127.0.0.1"
    assert settings["server"]["maxUploadSize"] <= 200
    assert settings["client"]["showErrorLinks"] is False


def test_ci_runs_the_command_that_the_readme_gives():
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    assert "\nmake test\n" in script.read_text()
    assert "make test" in (ROOT / "README.md").read_text(encoding="utf-8").split("\n## ")[0]
    subprocess.run(["bash", "-n", str(script)], check=True)


# -------------------------------------------------------------------------- what imports what


def test_the_layers_of_pyproject_hold():
    command = [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--no-logo"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr


def test_predicting_loads_no_keras(demo_root: Path):
    """Everything of core that the dashboard reaches, imported and used."""
    graph = grimp.build_graph("core", "dashboard", cache_dir=None)
    reached = graph.find_upstream_modules("dashboard", as_package=True)
    assert {"core.runs.artifacts", "core.inference.served_model", "core.imageio.decode"} <= reached
    names = sorted(name for name in reached if name.startswith("core"))
    code = f"""
import importlib, pathlib, sys
import numpy as np
for name in {names!r}:
    importlib.import_module(name)
from core.inference import served_model
from core.runs import artifacts
run = artifacts.open_run(pathlib.Path({str(demo_root / "artifacts" / "demo")!r}))
for name in run.models:
    model = served_model.load_model(run, name)
    size = model.input_size_px
    answer = model.predict(np.zeros((2, size, size), np.uint8))
    assert answer.probabilities.shape == (2, 3), answer.probabilities.shape
print(sorted({TRAINING_ONLY!r} & set(sys.modules)))
"""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


def test_train_zoo_trains_all_on_the_data_set_into_a_run_of_its_name(checkout: Checkout):
    calls = checkout.make("train-zoo", "DATASET=phantom")
    assert calls[-1] == "-m core train --dataset phantom --models zoo --run zoo-phantom"
    assert checkout.make("train-zoo", "DATASET=phantom") == [], "it is there"
    calls = checkout.make("train-zoo", "DATASET=phantom", "RUN=z", "MODELS=fnn")
    assert calls == ["-m core train --dataset phantom --models fnn --run z"]


def test_several_data_sets_are_fetched_one_by_one_and_trained_on_together(checkout: Checkout):
    (checkout.folder / "data" / "cohen-2020").mkdir(parents=True)
    calls = checkout.make("train-all", "DATASET=darkcovidnet,cohen-2020", "RUN=several")
    of_core = [call for call in calls if call.startswith("-m core")]
    assert of_core[0] == "-m core data darkcovidnet"
    assert of_core[1].startswith("-m core train --dataset darkcovidnet,cohen-2020 ")
    assert of_core[2:] == measured("several")
    zoo = checkout.make("train-zoo", "DATASET=darkcovidnet,cohen-2020")
    assert any("--run zoo-darkcovidnet-cohen-2020" in call for call in zoo)
