"""Made-up audits and external sets for runs of tests/support/runs.py, in the files of real ones.

The figures agree with the run where they must (accuracy on the test part, images in the manifest);
everything else is plausible and tells of no model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from core.metrics.intervals import wilson_interval
from core.runs import additions, artifacts
from core.runs.run import Run

# Title, unit, strengths, the one that changes nothing.
KINDS = {
    "brightness": ("Brightness", "grey levels of 255 added", [-60, -40, -20, 20, 40, 60], 0),
    "contrast": ("Contrast", "times, about the picture's own mean", [0.4, 0.6, 0.8, 1.25, 1.7], 1),
    "noise": ("Noise", "grey levels of standard deviation", [5, 10, 20, 40], 0),
    "blur": ("Blur", "standard deviation as a share of the side", [0.0025, 0.005, 0.01, 0.02], 0),
    "jpeg": ("JPEG", "quality (100: as it is)", [10, 25, 50, 75], 100),
    "rotation": ("Rotation", "degrees counterclockwise", [-20, -10, -5, 5, 10, 20], 0),
    "shift": ("Shift", "share of the side, right and down", [-0.1, -0.05, 0.05, 0.1], 0),
}
FILLS = {"mean": "the mean grey of the training images", "surroundings": "greys that go on"}
BOXES = [[0.05, 0.05, 0.9, 0.95]]
DAMAGE = {"cnn": 0.7, "resnet50": 0.9, "mobilenetv2": 0.5}
MIN_N = 3  # patients
READER, OTHER_READER = "Panel A", "Panel B"
DOUBTED_EVERY = 7  # images of the manifest
TINY = {"rule": "A rule made up for tests."}


def add_audit(
    run_dir: Path | str,
    *,
    flagged: Sequence[str] = ("cnn",),
    fooled: Sequence[str] = ("cnn",),
    probe: bool = True,
    leaks: bool = False,
    left_out: Sequence[str] = (),
    seed: int = 0,
) -> dict[str, Any]:
    """Write audit/ of the run and return audit.json as written.

    flagged: models that keep over half of their gain without lungs; fooled: models that call most
    images of the probe covid; leaks: copies and a patient in two parts are found; left_out:
    sections that were not done (null).
    """
    run = artifacts.open_run(Path(run_dir))
    manifest = artifacts.load_manifest(run)
    rng = np.random.default_rng(seed)
    figures = {model: artifacts.load_metrics(run, model) for model in run.models}
    document = {
        "created": "2026-02-01T10:00:00Z",
        "minutes": 2.5,
        "precision": "f32",
        "tta": "none",
        "n_test": int((manifest["split"] == "test").sum()),
        "models": run.models,
        "missing": [] if probe else ["No source probe was given."],
        "excluded": [],
        "leakage": _leakage(manifest, leaks),
        "blackout": _blackout(run, figures, manifest, flagged),
        "probe": _probe(run, fooled, rng) if probe else None,
        "perturbation": _perturbation(run, figures),
        "subgroups": _subgroups(run, manifest),
        "readers": _readers(run),
        "doubtful_labels": _doubtful_labels(run, manifest) if _folded(run) else None,
    }
    document |= dict.fromkeys(left_out)
    additions.write_audit(run, document, {})
    return additions.load_audit(run)


def add_external(
    run_dir: Path | str,
    name: str = "elsewhere",
    *,
    classes: Sequence[str] | None = None,
    labelled: bool = True,
    drop: float = 0.12,
    n: int = 180,
) -> dict[str, Any]:
    """Write external/<name>/ of the run and return external.json as written.

    classes: those the set holds (None: all of the run); labelled: whether the truth is known; drop:
    accuracy lost, as a fraction; n: images, a patient each.
    """
    run = artifacts.open_run(Path(run_dir))
    present = list(run.class_names if classes is None else classes)
    labels = [present[k % len(present)] if labelled else "" for k in range(n)]
    manifest = pd.DataFrame(
        {
            "image_id": [f"far/{k:04d}" for k in range(n)],
            "path": [f"far/{k:04d}.png" for k in range(n)],
            "label": labels,
            "original_label": [label.upper() for label in labels],
            "patient_id": [f"far-{k:04d}" for k in range(n)],
            "sha256": [f"{k:064x}" for k in range(n)],
        }
    )
    models, drops, predictions = {}, {}, {}
    for model in run.models:
        own = artifacts.load_metrics(run, model)
        predictions[model] = _far_predictions(run, manifest, own["accuracy"] - drop, present)
        models[model] = _far_metrics(run, predictions[model], labelled, present)
        drops[model] = _drop(own, models[model], present) if labelled else {}
    overlap = str(artifacts.load_manifest(run)["image_id"].iloc[0])
    document = {
        "title": f"Images from {name}",
        "created": "2026-02-02T10:00:00Z",
        "modality": run.modality,
        "grouping": "Each image is a patient of its own.",
        "labelled": labelled,
        "n": n,
        "n_patients": n,
        "classes_present": present if labelled else [],
        "classes_missing": [c for c in run.class_names if labelled and c not in present],
        "classes_extra": {"effusion": 3},
        "excluded": [
            {"image_id": "far/copy", "reason": "the same picture as one of the run",
             "kind": "duplicate", "other": overlap, "correlation": 0.998},
            {"image_id": "far/effusion_1", "reason": "class effusion is not one of the run's",
             "kind": "class", "other": None, "correlation": None},
        ],
        "skipped": [{"path": "far/broken.png", "reason": "The file is truncated."}],
        "overlap": {"images": n + 1, "learned": {"duplicate": 1, "same_patient": 0}, "test": []},
        "caveats": ["Made up for tests.", "3 images of class effusion were left out."],
        "findings": {"edema": {"n": 2, "labels": {}, "called": {
            model: {c: 2 * (c == run.class_names[0]) for c in run.class_names}
            for model in run.models
        }}} if labelled else {},
        "with_overlap": {
            model: {"n": n + 1, **estimate(0.9, n)} for model in run.models
        } if len(present) > 1 and labelled else {},
        "models": models,
        "drop": drops,
        "precision": "f32",
        "tta": run.info.get("tta", "none"),
    }  # fmt: skip
    additions.write_external(run, name, document, manifest, predictions)
    return additions.load_external(run, name)


def change_json(file: Path, **values: Any) -> None:
    """Put keys into a JSON file of a run."""
    whole = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps(whole | values), encoding="utf-8")


def bounds(share: float, n: float, level: float = 0.95) -> dict[str, float]:
    """{low, high} of a share of n patients (Wilson)."""
    low, high = wilson_interval(share * n, n, level)
    return {"low": low, "high": high}


def estimate(accuracy: float, n: int) -> dict[str, float]:
    accuracy = min(max(accuracy, 0.0), 1.0)
    return {"accuracy": accuracy, **bounds(accuracy, n), "macro_f1": max(accuracy - 0.02, 0.0)}


# ------------------------------------------------------------------------------ sections


def _leakage(manifest: pd.DataFrame, leaks: bool) -> dict[str, Any]:
    ids = {split: part["image_id"].tolist() for split, part in manifest.groupby("split")}
    n_test, n_train = len(ids["test"]), len(ids["train"])

    def pair(a: str, split_a: str, b: str, split_b: str, correlation: float) -> dict[str, Any]:
        return {
            "image_id_a": a, "split_a": split_a, "image_id_b": b, "split_b": split_b,
            "correlation": correlation, "same_group": split_a == split_b,
            "crosses": split_a != split_b,
        }  # fmt: skip

    near = [pair(ids["train"][0], "train", ids["train"][1], "train", 0.991)]
    exact, shared = [], {}
    if leaks:
        exact = [pair(ids["train"][2], "train", ids["test"][0], "test", 1.0)]
        near += [
            pair(
                ids["train"][(4 + k) % n_train],
                "train",
                ids["test"][(2 + k) % n_test],
                "test",
                0.99 - k / 1000,
            )
            for k in range(8)
        ]
        near.append(pair(ids["val"][0], "val", ids["train"][-1], "train", 0.981))
        one = {"patient_id": "shared-1"}
        one["image_ids"] = {"train": ids["train"][:1], "test": ids["test"][:2]}
        share = 2 / len(ids["test"])
        shared = {"train/test": {"patients": 1, "images": 2, "share": share, "examples": [one]}}
    empty = {"patients": 0, "images": 0, "share": 0.0, "examples": []}
    parts = ("train/test", "train/val", "val/test")
    return {
        "status": "leaks" if leaks else "clean",
        "checked": {split: len(ids[split]) for split in ("train", "val", "test")},
        "method": "Every image against every other by hash, confirmed by correlation.",
        "thresholds": {"correlation": 0.98},
        "exact": exact,
        "near": near,
        "shared_patients": {part: shared.get(part, empty) for part in parts},
    }


def _blackout(
    run: Run, figures: dict, manifest: pd.DataFrame, flagged: Sequence[str]
) -> dict[str, Any]:
    test = manifest[manifest["split"] == "test"]
    n = len(test)
    majority = float(test["label"].value_counts(normalize=True).max())

    def masked(full: float, share: float) -> dict[str, Any]:
        est = estimate(majority + share * (full - majority), n)
        return {**est, "kept": {"share": share, "low": share - 0.15, "high": share + 0.15}}

    models = {}
    for model, metrics in figures.items():
        full, hot = metrics["accuracy"], model in flagged
        models[model] = {
            "full": estimate(full, n),
            "without_lungs": {
                fill: masked(full, (0.75 if hot else 0.2) - k / 20) for k, fill in enumerate(FILLS)
            },
            "lungs_only": {fill: masked(full, 0.8 - k / 20) for k, fill in enumerate(FILLS)},
            "flagged": hot,
            "sentence": f"Without the lungs {run.title(model)} keeps "
            f"{'most' if hot else 'less than half'} of its gain.",
        }  # fmt: skip
    floor = {
        "histogram": {"title": "Grey-level histogram only", **estimate(majority + 0.1, n)},
        "thumbnail": {"title": "32×32 thumbnail", **estimate(majority + 0.15, n)},
    }
    return {
        "region": {"rule": "One box that holds both lungs.", "kind": "box", "boxes": BOXES},
        "majority_rate": majority,
        "n": n,
        "fills": FILLS,
        "models": models,
        "floors": {fill: {"without_lungs": floor, "lungs_only": floor} for fill in FILLS},
        **TINY,
    }


def _probe(run: Run, fooled: Sequence[str], rng: np.random.Generator) -> dict[str, Any]:
    n, n_patients, covid = 19, 16, run.class_names[0]
    images = [
        {"image_id": f"other/{k:02d}", "finding": ("fungal", "lipoid")[k % 2], "predicted": {},
         "p_covid": {}}
        for k in range(n)
    ]  # fmt: skip
    models = {}
    for model in run.models:
        called = 14 if model in fooled else 1
        for k, image in enumerate(images):
            image["predicted"][model] = covid if k < called else run.class_names[1]
            image["p_covid"][model] = float(rng.uniform(0.5, 1) if k < called else 0.1)
        models[model] = {
            "called": {covid: called, run.class_names[1]: n - called},
            "covid": {"n": called, "share": called / n, **bounds(called / n, n_patients)},
            "own": {"images": 8, "n": 1, "share": 0.125, **bounds(0.125, 8)},
            "sentence": f"{run.title(model)} calls {called} of {n} covid.",
        }
    return {
        "name": "others",
        "title": "Other diseases from the covid images' collection",
        "n": n,
        "n_patients": n_patients,
        "question": "These images show another disease: how many are called covid?",
        "models": models,
        "images": images,
        "excluded": [{"image_id": "other/99", "reason": "it is an image of the run"}],
    }


def _perturbation(run: Run, figures: dict) -> dict[str, Any]:
    models = {}
    for model, metrics in figures.items():
        n, base = metrics["n"], metrics["accuracy"]
        worst = DAMAGE.get(model, 0.6) * (base - 1 / 3)
        curves = {}
        for place, (kind, (_, _, strengths, neutral)) in enumerate(KINDS.items()):
            reach = max(abs(s - neutral) for s in strengths)
            curves[kind] = [
                {"strength": s}
                | estimate(base - worst * (abs(s - neutral) / reach) ** 2 * (place / 6), n)
                for s in strengths
            ]
        drop = curves["shift"][1]["accuracy"] - curves["shift"][0]["accuracy"]
        models[model] = {
            "baseline": estimate(base, n),
            "curves": curves,
            "steepest": {
                "kind": "shift", "from": -0.05, "to": -0.1, "drop": drop, "low": drop - 0.05,
                "high": drop + 0.05,
                "sentence": f"{run.title(model)} loses most between -0.05 and -0.1 (shift: share "
                f"of the side): {100 * drop:.1f} points.",
            },
        }  # fmt: skip
    names = ("title", "unit", "strengths", "neutral")
    kinds = {kind: dict(zip(names, values, strict=True)) for kind, values in KINDS.items()}
    return {"kinds": kinds, "models": models}


def _subgroups(run: Run, manifest: pd.DataFrame) -> dict[str, Any]:
    test = manifest[manifest["split"] == "test"].reset_index(drop=True)
    number = np.arange(len(test))
    cuts = {
        "view": ("View", np.where(number % 3 == 0, "AP", np.where(number == 1, "L", "PA"))),
        "source": ("Source", np.where(test["label"] == run.class_names[0], "hospital", "archive")),
    }
    predictions = {
        m: artifacts.load_predictions(run, m).set_index("image_id").loc[test["image_id"]]
        for m in run.models
    }
    columns = []
    for column, (title, values) in cuts.items():
        gives_away = column == "source"
        groups = [
            _group(value, test, values == value, predictions, gives_away)
            for value in dict.fromkeys(values)
        ]
        why = "Every covid image comes from one source." if gives_away else ""
        columns.append(
            {"column": column, "title": title, "gives_class_away": gives_away, "why": why,
             "groups": groups}
        )  # fmt: skip
    left_out = [{"column": "format", "reason": "all test images are in one group (PNG)"}]
    return {"min_n": MIN_N, "rule": TINY["rule"], "columns": columns, "left_out": left_out}


def _group(
    value: str, test: pd.DataFrame, rows: np.ndarray, predictions: dict, gives_away: bool
) -> dict[str, Any]:
    part, models = test[rows], {}
    n_patients = part["patient_id"].nunique()
    for model, table in predictions.items():
        right = (table["label"] == table["predicted"]).to_numpy()[rows]
        sensitivity = {}
        for label in part["label"].unique():
            own = (part["label"] == label).to_numpy()
            patients = part.loc[own, "patient_id"].nunique()
            sensitivity[label] = _share(right[own], patients)
            sensitivity[label] |= {"n": int(own.sum()), "n_patients": patients}
        accuracy = None if gives_away else _share(right, n_patients)
        models[model] = {"accuracy": accuracy, "sensitivity": sensitivity}
    return {
        "value": str(value),
        "n": len(part),
        "n_patients": n_patients,
        "small": n_patients < MIN_N,
        "classes": part["label"].value_counts().to_dict(),
        "models": models,
    }


def _share(right: np.ndarray, n_patients: int) -> dict[str, float]:
    share = float(right.mean())
    return {"value": share, **bounds(share, n_patients)}


# ------------------------------------------------------------------------------ external


def _far_predictions(
    run: Run, manifest: pd.DataFrame, accuracy: float, present: Sequence[str]
) -> pd.DataFrame:
    """Right in the share `accuracy` of each class, evenly spread."""
    names = run.class_names
    rows = []
    for k, label in enumerate(manifest["label"]):
        truth = names.index(label) if label else k % len(names)
        turn = (k // max(len(present), 1)) % 20
        called = truth if turn < round(20 * accuracy) else (truth + 1) % len(names)
        probs = np.full(len(names), 0.2)
        probs[called] = 1 - 0.2 * (len(names) - 1)
        rows.append([manifest["image_id"][k], "test", "", label, names[called], *probs])
    return pd.DataFrame(rows, columns=artifacts.prediction_columns(names))


def _far_metrics(
    run: Run, table: pd.DataFrame, labelled: bool, present: Sequence[str]
) -> dict[str, Any]:
    from core.metrics.classification import compute_metrics
    from core.metrics.intervals import bootstrap_intervals

    called = {c: int((table["predicted"] == c).sum()) for c in run.class_names}
    if not labelled:
        return {"n": len(table), "called": called}
    if len(present) == 1:
        share = float((table["predicted"] == present[0]).mean())
        return {
            "n": len(table),
            "per_class": {present[0]: {"recall": share, "support": len(table)}},
            "intervals": {f"recall.{present[0]}": bounds(share, len(table))},
            "called": called,
        }
    y_true = table["label"].map(run.class_names.index).to_numpy()
    y_prob = table[[f"p_{c}" for c in run.class_names]].to_numpy(dtype=float)
    metrics = compute_metrics(y_true, y_prob, run.class_names)
    intervals = bootstrap_intervals(y_true, y_prob, table["image_id"], run.class_names, draws=100)
    return {**metrics, "n_patients": len(table), "intervals": intervals}


def _drop(own: dict, far: dict, present: Sequence[str]) -> dict[str, Any]:
    """External less internal, as the real one has it; of one class its sensitivity alone."""
    keys = {f"recall.{name}": name for name in present}
    if len(present) > 1:
        keys = {"accuracy": "", "balanced_accuracy": "", "macro_f1": "", **keys}
    rows = {}
    for key, name in keys.items():
        home = own["per_class"][name]["recall"] if name else own[key]
        there = far["per_class"][name]["recall"] if name else far[key]
        difference = there - home
        rows[key] = {
            "internal": home, "external": there, "difference": difference,
            "low": difference - 0.08, "high": difference + 0.08,
        }  # fmt: skip
        for side, figures in (("internal", own), ("external", far)):
            for end in ("low", "high"):
                rows[key][f"{side}_{end}"] = figures["intervals"][key][end]
    return rows


def _folded(run: Run) -> list[str]:
    return [model for model in run.models if artifacts.has_predictions(run, model, "folds")]


def _agreement(share: float, n: int) -> dict[str, float]:
    return {"value": share, **bounds(share, n), "n": n}


def _readers(run: Run) -> dict[str, Any]:
    """Panel A read 60 images and answers both questions, Panel B 30 and one of them."""
    folded = _folded(run)
    readers = {}
    for name, n, shares, counts in (
        (
            READER,
            60,
            {"opacity": 0.5, "abnormal": 0.75},
            {
                "normal": {"Lung Opacity": 1, "No Lung Opacity / Not Normal": 9, "Normal": 10},
                "pneumonia": {"Lung Opacity": 16, "No Lung Opacity / Not Normal": 14, "Normal": 10},
            },
        ),
        (
            OTHER_READER,
            30,
            {"opacity": 0.6},
            {
                "normal": {"airspace opacity": 2, "no airspace opacity": 8},
                "pneumonia": {"airspace opacity": 10, "no airspace opacity": 10},
            },
        ),
    ):
        models = {}
        for place, model in enumerate(run.models):
            asked = n if model in folded else n // 2
            models[model] = {
                "n": asked,
                "of": "out of fold" if model in folded else "test",
                "label_agreement": _agreement(0.8, asked),
                "questions": {
                    question: _agreement(share - 0.05 * (place + 1), asked)
                    for question, share in shares.items()
                },
                "gap": {
                    question: _agreement(0.8 - share, asked) for question, share in shares.items()
                },
            }
        label = {question: _agreement(share, n) for question, share in shares.items()}
        readers[name] = {"n": n, "counts": counts, "label": label, "models": models}
    sentence = (
        f"{READER}: radiologists saw an opacity in 40.0 % of the 40 images labelled pneumonia that "
        "they read. On the images that were read, the label agrees with them in at most 75.0 %."
    )
    return {"readers": readers, "unknown": ["Blurred"], "sentence": sentence}


def _doubtful_labels(run: Run, manifest: pd.DataFrame) -> dict[str, Any]:
    """Every seventh image is doubted; Panel A read those that are labelled pneumonia."""
    doubted = manifest.iloc[::DOUBTED_EVERY]
    names, models = run.class_names, _folded(run)
    images: list[dict[str, Any]] = []
    for place, row in enumerate(doubted.itertuples()):
        reading = ("Lung Opacity", "Normal")[place % 2]
        images.append(
            {
                "image_id": row.image_id,
                "label": row.label,
                "suggested": names[(names.index(row.label) + 1) % len(names)],
                "quality": 0.01 * (place + 1),
                "p": dict.fromkeys(models, 0.01 * (place + 1)),
                "readings": {READER: reading} if row.label == "pneumonia" else {},
            }
        )
    n, kept = len(manifest), len(manifest) - len(images)
    ends = {"macro_f1_low": 0.7, "macro_f1_high": 0.9}
    return {
        "method": "Confident learning, made up for tests.",
        "models": models,
        "n": n,
        "n_doubtful": len(images),
        "suggested": {},
        "images": images,
        "scores": {
            model: {
                "all": estimate(0.8, n) | ends,
                "without_doubtful": estimate(0.9, kept) | ends,
            }
            for model in models
        },
    }
