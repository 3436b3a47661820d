"""The page Training: what training took, and which epoch each recipe keeps."""

from __future__ import annotations

from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from core.files import write_json
from core.runs import artifacts
from tests.support.runs import make_run

APP = Path(__file__).resolve().parents[2] / "dashboard" / "app.py"
RELEASE = APP.parents[1] / "artifacts" / "release"


def open_training() -> AppTest:
    app = AppTest.from_file(APP, default_timeout=120).run()
    return app.switch_page("app_pages/training.py").run()


def words(app: AppTest) -> str:
    return "\n".join(m.value for m in app.main.markdown)


def test_an_average_takes_no_time_beside_its_members(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXR_ARTIFACTS", str(RELEASE.parent))
    app = open_training()
    assert not app.exception
    seconds = 1261.3048221 + 1503.8259596 + 569.87470468 + 528.57477645
    assert round(seconds) == 64 * 60 + 24
    assert "4 models trained in 64 min 24 s" in words(app)
    # Alone it stands for the three that it averages: their time, not that of the control.
    app.sidebar.get("pills")[0].set_value(["ensemble"]).run()
    assert "3 models trained in 55 min 35 s" in words(app)


BEST = "he epoch that is kept is chosen on validation"
LAST = "he last epoch is kept, and validation is only watched"
UNKNOWN = "t is not recorded which epoch is kept"


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        ({"cnn": ["best"], "resnet50": ["best", "best"]}, f"T{BEST};"),
        ({"cnn": ["last"], "resnet50": ["last"]}, f"T{LAST};"),
        ({"cnn": ["last"], "resnet50": ["best"]}, f"For ResNet50 t{BEST}; for CNN t{LAST};"),
        (
            {"cnn": ["best", "last"], "resnet50": ["best"]},
            f"For ResNet50 t{BEST}; for CNN t{BEST} in one stage and is the last in another;",
        ),
        ({"cnn": ["best"]}, f"For CNN t{BEST}; for ResNet50 i{UNKNOWN};"),
        ({}, f"I{UNKNOWN};"),
    ],
)
def test_it_is_said_which_epoch_each_recipe_keeps(
    empty_app: Path, kept: dict[str, list[str]], expected: str
) -> None:
    run = make_run(empty_app, n=30, images=False, models=("cnn", "resnet50"))
    recipes = {
        model: {"stages": [{"name": f"stage {k}", "keep": keep} for k, keep in enumerate(keeps)]}
        for model, keeps in kept.items()
    }
    info = artifacts.open_run(run).info
    write_json(run / "run.json", info | {"recipes": recipes})
    app = open_training()
    assert not app.exception
    assert expected in words(app)
