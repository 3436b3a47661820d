"""What `python -m core predict` gives for each file: an entry of its JSON, a row, lines of text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from core.runs.run import Run
from core.serving.predict import ModelPrediction, conformal_text
from core.serving.predict_files import FilePrediction

REFUSED = "NOT ANSWERED"


def describe_file(found: FilePrediction, *, even_if_refused: bool = False) -> dict[str, Any]:
    """One file's entry in `predict --json`.

    {path, sha256, looks_like_cxr (null: no guard), synthetic, guard {sentence, distance,
    threshold, reasons} or null, models, error}. models is {} for a file that failed and, unless
    `even_if_refused`, for one that does not look like what the run learned from.
    """
    row: dict[str, Any] = {
        "path": found.name,
        "sha256": found.sha256,
        "looks_like_cxr": None,
        "synthetic": None,
        "guard": None,
        "models": {},
        "error": found.error,
    }
    if found.prediction is None or found.decoded is None:
        return row
    judged = found.prediction.judgement
    row["synthetic"] = found.decoded.synthetic
    if judged is not None:
        row["looks_like_cxr"] = judged.looks_right
        row["guard"] = {
            "sentence": judged.sentence,
            "distance": judged.distance,
            "threshold": judged.threshold,
            "reasons": list(judged.reasons),
        }
    if even_if_refused or not found.prediction.refused:
        names = found.prediction.class_names
        row["models"] = {
            own.model: describe_model(own, names) for own in found.prediction.predictions
        }
    return row


def describe_model(own: ModelPrediction, class_names: Iterable[str]) -> dict[str, Any]:
    """One model's answer as the contract has it; calibrated {} and conformal_set [] if unknown."""
    names = list(class_names)
    calibrated: Iterable[float] = () if own.calibrated is None else own.calibrated
    return {
        "predicted": own.predicted,
        "probabilities": dict(zip(names, map(float, own.probabilities), strict=True)),
        "calibrated": dict(zip(names, map(float, calibrated), strict=False)),
        "conformal_set": list(own.conformal_set),
    }


def text_lines(run: Run, row: dict[str, Any]) -> list[str]:
    """path, model, class, its share and what cannot be ruled out, by tabs; a line a model.

    The class is the one with the largest served probability; where calibration puts another first
    the line says so.
    """
    if not row["models"]:
        return [f"{row['path']}\t{REFUSED}"]
    mark = ["REFUSED BY THE GUARD"] if row["looks_like_cxr"] is False else []
    mark += ["SYNTHETIC"] if row["synthetic"] else []
    lines = []
    for name, said in row["models"].items():
        shares = said["calibrated"] or said["probabilities"]
        words = conformal_text(said["conformal_set"], run.class_names)
        first = max(shares, key=shares.get)
        moved = [] if first == said["predicted"] else [f"calibrated shares put {first} first"]
        cells = [row["path"], run.title(name), said["predicted"]]
        cells += [f"{shares[said['predicted']]:.3f}", words, *moved, *mark]
        lines.append("\t".join(cells))
    return lines


def table_row(row: dict[str, Any]) -> dict[str, Any]:
    """An entry of describe_file as one row of `--csv`."""
    guard = row["guard"] or {}
    flat = {"path": row["path"], "sha256": row["sha256"], "error": row["error"] or ""}
    flat |= {
        "looks_like_cxr": row["looks_like_cxr"],
        "guard_distance": guard.get("distance"),
        "guard_sentence": guard.get("sentence", ""),
        "synthetic": row["synthetic"],
    }
    if "report" in row:
        flat["report"] = row["report"]
    for name, said in row["models"].items():
        flat[f"{name}_predicted"] = said["predicted"]
        for label, value in said["probabilities"].items():
            flat[f"{name}_p_{label}"] = value
        for label, value in said["calibrated"].items():
            flat[f"{name}_calibrated_{label}"] = value
        if said["conformal_set"]:
            flat[f"{name}_conformal_set"] = "|".join(said["conformal_set"])
    return flat


def calibration_words(run: Run) -> str:
    """What the shares that are shown are worth."""
    calibrated = [name for name in run.models if (run.info.get("calibration") or {}).get(name)]
    if not calibrated:
        return "Probabilities are not calibrated."
    return "Shares shown are calibrated; --json and --csv have those served beside them."
