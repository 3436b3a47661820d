"""Train and honestly evaluate chest X-ray classifiers.

What programs use is here, and is imported when it is first asked for (PEP 562), so that
`import core` costs nothing:

    run = core.open_run(Path("artifacts/release"))          # core.list_runs(folder): all of them
    model = core.load_model(run, "mobilenetv2")             # pixels in, probabilities out
    predictor = core.open_predictor(run)                    # all models, guard and calibration
    core.audit_run(run, Path("data/darkcovidnet"))          # what a sceptical reader would ask
    core.train_and_evaluate(core.Config(...), Path("artifacts/mine"))
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from core.config import Config
    from core.evaluation.audit.run import audit_run
    from core.inference.served_model import load_model
    from core.runs.artifacts import list_runs, open_run
    from core.serving.predict import open_predictor
    from core.training.pipeline import train_and_evaluate

__all__ = [
    "Config",
    "audit_run",
    "list_runs",
    "load_model",
    "open_predictor",
    "open_run",
    "train_and_evaluate",
]

_HOMES = {
    "Config": "core.config",
    "audit_run": "core.evaluation.audit.run",
    "list_runs": "core.runs.artifacts",
    "load_model": "core.inference.served_model",
    "open_predictor": "core.serving.predict",
    "open_run": "core.runs.artifacts",
    "train_and_evaluate": "core.training.pipeline",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'core' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
