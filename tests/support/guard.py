"""Guards for runs of tests/support/runs.py: fitted for real where images and models are there.

What the guard is said to have kept and refused is made up.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from core.inference.served_model import load_model
from core.metrics.intervals import wilson_interval
from core.runs import artifacts
from core.runs.additions import write_guard
from core.runs.run import Run
from core.serving.guard.detector import CELLS
from core.serving.guard.features import GuardInput, see_images
from core.serving.guard.fit import Fitted, describe_fit, fit_candidate, pack_arrays
from tests.support.runs import INPUT_SIZE_PX

MODEL = "mobilenetv2"
DIRECTIONS = 6
KINDS = {
    "photos_grey": "Photos in grey",
    "documents": "Pages of text and tables (most drawn)",
    "noise": "Noise of seven kinds",
    "blank": "Blank pictures and slopes of grey",
    "ct": "CT slices",
    "hands": "Hands (SYNTHETIC: drawn X-rays)",
}


class FakeModel:
    """Stands in for a served model: its features are means of the picture's squares, (n, 8)."""

    name, input_size_px = MODEL, INPUT_SIZE_PX

    def predict(self, pixels: np.ndarray) -> Any:
        n = len(pixels)
        features = np.asarray(pixels, np.float64).reshape(n, 2, -1, 4, 16).mean(axis=(2, 4))
        return type("Output", (), {"features": features.reshape(n, 8)})


def add_guard(
    run_dir: Path | str,
    *,
    kept: float = 1.0,
    refused: float = 1.0,
    measured: bool = True,
) -> dict[str, Any]:
    """Write guard/ of the run and return guard.json as written.

    Fitted on the run's own phantoms by the features of its MobileNetV2 where both are there
    (make_run with images and tiny_openvino), else on random features. kept, refused: shares that
    guard.json tells of the test images and of every kind; measured=False: it tells of none.
    """
    run = artifacts.open_run(Path(run_dir))
    manifest = artifacts.load_manifest(run)
    rows = manifest[manifest["split"] != "test"].reset_index(drop=True)
    root = run.path.parent.parent / "data" / run.info["dataset"]["name"]
    name = MODEL if MODEL in run.served else run.served[0]
    if root.is_dir() and (run.path / name / "model.xml").is_file():
        model = load_model(run, name)
        rows, seen = see_images(model, rows, root, "Images")
    else:
        model = FakeModel()
        model.name = name
        rng = np.random.default_rng(0)
        seen = GuardInput(
            rng.normal(size=(len(rows), 8)), rng.uniform(0, 255, (len(rows), CELLS, CELLS))
        )
    fitted = fit_candidate(run, model, DIRECTIONS, rows, seen, {})
    document = describe(run, fitted, rows)
    test = manifest[manifest["split"] == "test"]
    if measured:
        document |= {
            "acceptance": {
                "test": {
                    "all": rate(kept, len(test), test["patient_id"].nunique()),
                    "classes": {
                        label: rate(kept, len(part), part["patient_id"].nunique())
                        for label, part in test.groupby("label")
                    },
                    "columns": {},
                    "refused": [],
                },
                "elsewhere": {},
            },
            "refusal": {
                kind: {"title": title, "looked_at": "", "pictures": 40, "refused": 0,
                       **rate(refused, 40, 40), "passed": []}
                for kind, title in KINDS.items()
            },
            "nearest": {"k": 5, "n": len(test), "same_label": 0.8},
        }  # fmt: skip
    write_guard(run, document, pack_arrays(fitted.guard))
    return json.loads((run.path / "guard" / "guard.json").read_text(encoding="utf-8"))


def describe(run: Run, fitted: Fitted, rows) -> dict[str, Any]:
    """guard.json of a guard that was tried on nothing yet."""
    missing = {"acceptance": None, "refusal": {}, "nearest": None, "missing": []}
    return describe_fit(run, fitted, rows, []) | missing


def rate(share: float, n: int, patients: int) -> dict[str, Any]:
    low, high = wilson_interval(share * patients, patients)
    return {"n": n, "n_patients": patients, "share": share, "low": low, "high": high}
