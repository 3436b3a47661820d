"""Runs made up for tests: the exact files of a trained run, without any training.

Images are drawn phantoms; predictions are random but plausible: the models agree more than chance
would have it (a hard image is hard for all), and each of them errs.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from core.config import Config
from core.datasets.phantom.generate import write_phantoms
from core.engine import import_openvino
from core.evaluation.scoring import score_run
from core.runs import artifacts, writing
from core.runs.run import NOT_KEPT

CLASS_NAMES = ("covid", "normal", "pneumonia")
DATASET, ENSEMBLE = "phantom", "ensemble"
IMAGE_SIZE_PX = 96
INPUT_SIZE_PX = 64
IMAGES_PER_PATIENT = 2
TITLES = {"cnn": "CNN", "resnet50": "ResNet50", "mobilenetv2": "MobileNetV2"}
INITS = {"cnn": "scratch", "resnet50": "random", "mobilenetv2": "imagenet"}
SKILLS = {"cnn": 1.2, "resnet50": 1.6, "mobilenetv2": 2.4}
PARAMS = {"cnn": 390_000, "resnet50": 23_600_000, "mobilenetv2": 2_260_000}


def make_run(
    folder: Path | str,
    *,
    name: str = "demo",
    models: Sequence[str] = ("cnn", "resnet50", "mobilenetv2"),
    n: int = 120,
    images: bool = True,
    seed: int = 0,
    folds: int = 0,
    tiny_openvino: bool = False,
    ensemble: bool = False,
    weights: bool = True,
    modality: str = "phantom",
    created: str = "2026-01-31T09:30:00Z",
) -> Path:
    """Write the run `folder/name` and return its path.

    folder is an artifacts root (CXR_ARTIFACTS). With `images` the phantoms that the run speaks of
    lie in `folder.parent/data/phantom` (so CXR_DATA is `folder.parent/data`); without them the run
    is the same, and pages have no picture to show. n is rounded up to whole patients of each
    class. With `tiny_openvino` each model has a model.xml that predicts (nothing of sense) from
    (n, 64, 64, 1) float32 in 0..255; otherwise no model file is there. With `folds` the run has
    out-of-fold predictions, with `ensemble` the mean of the models as one more. Without `weights`
    run.json says that none were kept (and no model file is written).
    """
    folder = Path(folder)
    run_dir = folder / name
    patients = max(5, -(-n // (len(CLASS_NAMES) * IMAGES_PER_PATIENT)))
    if images:
        data = write_phantoms(
            folder.parent / "data" / DATASET,
            patients_per_class=patients,
            images_per_patient=IMAGES_PER_PATIENT,
            seed=seed,
            size_px=IMAGE_SIZE_PX,
        )
        manifest = make_manifest(patients, folds=folds, root=data)
    else:
        manifest = make_manifest(patients, folds=folds)
    writing.write_manifest(run_dir, manifest)
    writing.write_skipped(
        run_dir,
        pd.DataFrame(
            [("covid/broken.png", "The image ends too early: the file is truncated.")],
            columns=artifacts.SKIPPED_COLUMNS,
        ),
    )
    names = list(models)
    info = _run_info(name, names, manifest, seed, folds, modality, created)
    if ensemble:
        info["models"] = [*names, ENSEMBLE]
        info["kind"][ENSEMBLE] = "ensemble"
        info["members"] = {ENSEMBLE: names}
        info["display"][ENSEMBLE] = "Mean of the models"
    if not weights:
        info["weights"] = dict.fromkeys(names, NOT_KEPT)
    rng = np.random.default_rng(seed)
    hardness = rng.normal(0, 1.1, (len(manifest), len(CLASS_NAMES)))
    for number, model in enumerate(models):
        logits = _draw_logits(manifest, hardness, model, np.random.default_rng([seed, number]))
        table = _predictions(manifest, logits)
        test = table[table["split"] == "test"]
        writing.write_predictions(run_dir, model, "test", test.assign(fold=""))
        val = table[table["split"] == "val"].assign(fold="")
        writing.write_predictions(run_dir, model, "val", val)
        if folds:
            writing.write_predictions(run_dir, model, "folds", table)
            inner = _draw_logits(
                manifest, hardness, model, np.random.default_rng([seed, number, 2])
            )
            inner = _predictions(manifest, inner)
            writing.write_predictions(run_dir, model, "inner", inner[inner["split"] != "test"])
        writing.write_history(run_dir, model, _history(np.random.default_rng([seed, number, 1])))
        writing.write_card(
            run_dir,
            model,
            f"# {TITLES.get(model, model)}\n\nMade up for tests; it was never trained.\n",
        )
        if tiny_openvino and weights:
            write_tiny_model(run_dir / model, seed=seed + number)
    costs = {model: _cost(model) for model in names}
    new = score_run(run_dir, info, costs, draws=200)
    writing.finish_run(run_dir, info | new)
    return run_dir


def make_manifest(patients: int, *, folds: int = 0, root: Path | None = None) -> pd.DataFrame:
    """A manifest of `patients` patients a class, two images each, split by patient 70/10/20."""
    rows = []
    for label in CLASS_NAMES:
        for number in range(patients):
            patient_id = f"phantom-{label[0]}{number:04d}"
            split = "test" if number % 5 == 0 else "val" if number % 10 == 1 else "train"
            for k in range(IMAGES_PER_PATIENT):
                image_id = f"{label}/{patient_id}_{k}"
                path = f"{image_id}.png"
                content = (root / path).read_bytes() if root else path.encode()
                rows.append(
                    {
                        "image_id": image_id,
                        "path": path,
                        "label": label,
                        "original_label": label,
                        "patient_id": patient_id,
                        "group_id": patient_id,
                        "split": split,
                        "fold": str(_fold(number, folds)),
                        "sha256": hashlib.sha256(content).hexdigest(),
                        "width": IMAGE_SIZE_PX,
                        "height": IMAGE_SIZE_PX,
                        "format": "PNG",
                    }
                )
    return pd.DataFrame(rows, columns=list(artifacts.MANIFEST_COLUMNS))


def write_tiny_model(folder: Path, *, seed: int = 0, n_classes: int = len(CLASS_NAMES)) -> Path:
    """Write model.xml and model.bin with the inputs and outputs of an exported classifier.

    images (n, 64, 64, 1) float32 in 0..255 -> probabilities (n, C), class_maps (n, 16, 16, C) and
    features (n, 8): one random convolution, global average pooling and one dense layer.
    """
    ov = import_openvino()
    ops = importlib.import_module("openvino.opset13")

    rng = np.random.default_rng(seed)
    kernel = rng.normal(0, 0.4, (8, 1, 5, 5)).astype(np.float32)
    dense = rng.normal(0, 3.0, (8, n_classes)).astype(np.float32)
    images = ops.parameter([-1, INPUT_SIZE_PX, INPUT_SIZE_PX, 1], np.float32, name="images")
    scaled = ops.subtract(ops.divide(images, np.float32(127.5)), np.float32(1))
    channels_first = ops.transpose(scaled, np.array([0, 3, 1, 2]))
    convolved = ops.convolution(channels_first, kernel, [4, 4], [2, 2], [1, 1], [1, 1])
    maps = ops.transpose(ops.relu(convolved), np.array([0, 2, 3, 1]))
    features = ops.reduce_mean(maps, np.array([1, 2]), keep_dims=False)
    class_maps = ops.matmul(maps, dense, False, False)
    probabilities = ops.softmax(ops.matmul(features, dense, False, False), axis=-1)
    outputs = []
    for node, label in (
        (probabilities, "probabilities"),
        (class_maps, "class_maps"),
        (features, "features"),
    ):
        node.output(0).tensor.set_names({label})
        outputs.append(ops.result(node, name=f"{label}_result"))
    model = ov.Model(outputs, [images], "tiny")
    model.inputs[0].tensor.set_names({"images"})
    folder.mkdir(parents=True, exist_ok=True)
    ov.save_model(model, folder / "model.xml", compress_to_fp16=True)
    return folder / "model.xml"


def _fold(number: int, folds: int) -> int | str:
    """Fold 0 is the test part, as in a real manifest; the others share the rest."""
    if not folds:
        return ""
    return 0 if number % 5 == 0 else 1 + number % (folds - 1)


def _label_index(labels: pd.Series) -> np.ndarray:
    return labels.map(list(CLASS_NAMES).index).to_numpy(dtype=np.int64)


def _draw_logits(
    manifest: pd.DataFrame, hardness: np.ndarray, model: str, rng: np.random.Generator
) -> np.ndarray:
    truth = np.eye(len(CLASS_NAMES))[_label_index(manifest["label"])]
    return SKILLS.get(model, 1.4) * truth + hardness + rng.normal(0, 0.7, hardness.shape)


def _predictions(manifest: pd.DataFrame, logits: np.ndarray) -> pd.DataFrame:
    exps = np.exp(logits - logits.max(axis=1, keepdims=True))
    probs = exps / exps.sum(axis=1, keepdims=True)
    table = manifest[["image_id", "split", "fold", "label"]].copy()
    table["predicted"] = [CLASS_NAMES[i] for i in probs.argmax(axis=1)]
    for index, label in enumerate(CLASS_NAMES):
        table[f"p_{label}"] = probs[:, index]
    return table


def _probabilities(table: pd.DataFrame) -> np.ndarray:
    return table[[f"p_{label}" for label in CLASS_NAMES]].to_numpy(dtype=np.float64)


def _cost(model: str) -> dict:
    params = PARAMS.get(model, 1_000_000)
    return {
        "params": params,
        "size_mb": round(params * 2 / 1e6, 2),
        "train_s": round(params / 4e4, 1),
        "latency_ms": round(2 + params / 1e6, 2),
    }


def _history(rng: np.random.Generator) -> pd.DataFrame:
    epoch = np.arange(1, 11)
    loss = 1.1 * np.exp(-epoch / 5) + rng.uniform(0, 0.03, 10)
    return pd.DataFrame(
        {
            "epoch": epoch,
            "phase": ["head"] * 4 + ["fine-tune"] * 6,
            "loss": loss,
            "val_loss": loss + 0.1 + rng.uniform(0, 0.05, 10),
            "accuracy": 1 - loss / 2.2,
            "val_accuracy": 0.95 - loss / 2.2,
            "lr": [1e-3] * 4 + [2e-4 * 0.7**k for k in range(6)],
            "seconds": rng.uniform(1.5, 2.5, 10),
        }
    )


def _folds_info(models: list[str], folds: int) -> dict | None:
    if not folds:
        return None
    return {
        "k": folds,
        "split_policy": "group",
        "rule": "A tenth of the other folds' images, cut by patient, validates each fold's model.",
        "models": {m: {"status": "done", "reason": "", "train_s": 60.0} for m in models},
    }


def _run_info(
    name: str,
    models: list[str],
    manifest: pd.DataFrame,
    seed: int,
    folds: int,
    modality: str,
    created: str,
) -> dict:
    config = Config(dataset=DATASET, models=tuple(models), run=name, seed=seed, folds=folds)
    contents = "\n".join(sorted(manifest["image_id"] + manifest["sha256"] + manifest["label"]))
    floor = {
        "title": "Grey-level histogram only", "kind": "pixel", "accuracy": 0.55, "macro_f1": 0.52,
        "n": int((manifest["split"] == "test").sum()),
        "intervals": {key: {"low": 0.4, "high": 0.6} for key in ("accuracy", "macro_f1")},
    }  # fmt: skip
    return {
        "name": name,
        "created": created,
        "modality": modality,
        "dataset": {
            "name": DATASET,
            "title": "Drawn phantoms",
            "fingerprint": hashlib.sha256(contents.encode()).hexdigest(),
            "n": len(manifest),
            "caveats": ["SYNTHETIC: drawn phantoms, not images of people."],
        },
        "class_names": list(CLASS_NAMES),
        "models": models,
        "display": {model: TITLES.get(model, model) for model in models},
        "kind": dict.fromkeys(models, "single"),
        "seed": seed,
        "split_policy": "group",
        "grouping": "Images of one patient (patient_id) stay together.",
        "recipes_tried": dict.fromkeys(models, 2),
        "input_size_px": INPUT_SIZE_PX,
        "model_input_size_px": dict.fromkeys(models, INPUT_SIZE_PX),
        "resize": "stretch",
        "precision": "f32",
        "tta": "none",
        "init": {model: INITS.get(model, "random") for model in models},
        "leakage": None,
        "folds": _folds_info(models, folds),
        "inner": {model: {"status": "done", "reason": ""} for model in models} if folds else {},
        "trials": [
            {
                "model": model,
                "change": f"recipe {number}",
                "images": "validation",
                "n": 40,
                "log_loss": 0.6 - 0.1 * number,
                "accuracy": 0.7 + 0.05 * number,
                "kept": number == 2,
            }
            for model in models
            for number in (1, 2)
        ],
        "phases": {model: ["head", "fine-tune"] for model in models},
        "floors": {"histogram": floor},
        "skipped_n": 1,
        "config": config.to_json(),
        "versions": {"python": "3.11", "keras": "3.15.1"},
        "hardware": {"cpu": "made up", "cores": 2},
        "command": f"python -m core train --dataset {DATASET} --run {name}",
    }
