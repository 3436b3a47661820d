"""Try a recipe on inner folds: images outside the test split, each judged by a model without it.

    python -m core.training.trials --model mobilenetv2 --name noise --set noise=12 --against plain

A trial trains one model a fold, asks it about the fold as it is and under the mildest changes of
the audit, and keeps the answers in a folder of its own below --out (default: trials/), so that any
two trials are compared over the same patients. core.models.recipes' TRIALS holds what came of the
trials that decided a recipe.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import io
import json
import shutil
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from core.config import Config
from core.console import print_json, show_log
from core.datasets.folder import load_table
from core.datasets.registry import order_classes
from core.datasets.splits import fold_splits
from core.evaluation.audit.perturbation import KINDS, alter_images, mildest_strengths
from core.evaluation.sample import Sample
from core.files import write_bytes, write_json
from core.inference.served_model import compile_model
from core.metrics.classification import compute_metrics
from core.models.pretrained import plan_init
from core.models.recipes import Recipe, find_recipe, recipe_from_json
from core.runs.artifacts import MODEL_FILES
from core.training.prepare import decode, find_images, split_images
from core.training.trainer import Materials, ModelSpec, train_once

AS_IT_IS, UNALTERED = "as it is", "unaltered"
FAST = "bf16"
# What an augmented view depends on; stages of other recipes can share the frozen outputs.
_VIEW_FIELDS = ("image_size_px", "rotation_deg", "zoom", "shift", "contrast", "flip", "degradation")


def main() -> int:
    """Train and judge one recipe on inner folds; the figures are one JSON document."""
    parser = argparse.ArgumentParser(prog="python -m core.training.trials", description=__doc__)
    parser.add_argument("--data", default="darkcovidnet", help="data set (default: darkcovidnet)")
    parser.add_argument("--model", required=True, help="whose recipe is changed")
    parser.add_argument("--name", required=True, help="what the trial is called")
    parser.add_argument("--init", default="auto", help="as for train (default: auto)")
    parser.add_argument("--folds", default="1,2", help="inner folds, of five (default: 1,2)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--set", action="append", default=[], metavar="FIELD=VALUE", help="a field of the recipe"
    )
    parser.add_argument(
        "--stage", action="append", default=[], metavar="FIELD=VALUE", help="a field of every stage"
    )
    parser.add_argument("--against", help="an earlier trial to compare with")
    parser.add_argument("--out", type=Path, default=Path("trials"))
    args = parser.parse_args()
    show_log()
    plan = plan_init(args.model, args.init, download=False)
    recipe = change_recipe(find_recipe(args.model, plan.kind), args.set, args.stage)
    spec = ModelSpec(args.model, plan, recipe)
    folder = args.out / f"{args.model}-{args.name}"
    config = Config(args.data, (args.model,), args.name, folds=5, seed=args.seed)
    started = time.perf_counter()
    for fold in (int(text) for text in args.folds.split(",")):
        if not (folder / f"fold{fold}.npz").exists():
            try_fold(spec, config, fold, folder)
    answers = load_answers(folder)
    found = judge(answers) | {"minutes": (time.perf_counter() - started) / 60}
    if args.against:
        found["against"] = compare(answers, load_answers(args.out / f"{args.model}-{args.against}"))
    command = " ".join(["python -m core.training.trials", *sys.argv[1:]])
    found |= {"command": command, "init": plan.kind, "recipe": asdict(recipe)}
    write_json(folder / "trial.json", found)
    print_json({key: value for key, value in found.items() if key != "recipe"})
    return 0


def change_recipe(recipe: Recipe, fields: list[str], stage_fields: list[str]) -> Recipe:
    """The recipe with FIELD=VALUE (Python literals) put in, and the same in each of its stages."""
    stages = tuple(replace(stage, **_literals(stage_fields)) for stage in recipe.stages)
    values = asdict(replace(recipe, stages=stages)) | _literals(fields)
    return recipe_from_json(values)


def _literals(texts: list[str]) -> dict[str, Any]:
    pairs = (text.partition("=") for text in texts)
    return {name: ast.literal_eval(value) for name, _, value in pairs}


def try_fold(spec: ModelSpec, config: Config, fold: int, folder: Path) -> None:
    """Train on the rest of the inner folds and store what is said about this one."""
    dataset, root = find_images(config)
    cache = decode(load_table(dataset, root), root, {spec.name: spec.recipe})
    manifest, _ = split_images(cache, config)
    view = {name: value for name, value in asdict(spec.recipe).items() if name in _VIEW_FIELDS}
    digest = hashlib.sha256(json.dumps([spec.name, spec.init.kind, view]).encode()).hexdigest()[:8]
    names = order_classes(manifest["label"])
    tta = "flip" if spec.recipe.flip_at_test else "none"
    work = folder.parent / f"frozen-{digest}"
    materials = Materials(cache, manifest, names, config.split, tta, config.seed, work)
    split = fold_splits(manifest, fold, True, config.split, config.seed)
    made = train_once(spec, materials, split, folder / f"fold{fold}", f"inner fold {fold}")
    rows = np.flatnonzero(split == "test")
    pixels = np.asarray(cache.pixels(spec.recipe.image_size_px)[rows])
    arrays = {
        "y_true": materials.y[rows],
        "groups": manifest["patient_id"].to_numpy(dtype=str)[rows],
        "class_names": np.array(names),
        AS_IT_IS: made.served.predict(pixels).probabilities,
    }
    # Twelve times all images: in half precision, the unaltered ones too.
    fast = compile_model(
        folder / f"fold{fold}" / MODEL_FILES[0],
        name=spec.name,
        class_names=tuple(names),
        input_size_px=spec.recipe.image_size_px,
        precision=FAST,
        tta=tta,
    )
    arrays[UNALTERED] = fast.predict(pixels).probabilities
    for kind in KINDS:
        for strength in mildest_strengths(kind):
            altered = alter_images(pixels, kind, strength, config.seed)
            arrays[f"{kind} {strength:g}"] = fast.predict(altered).probabilities
    packed = io.BytesIO()
    np.savez_compressed(packed, allow_pickle=False, **arrays)
    made.history.to_csv(folder / f"fold{fold}.csv", index=False)
    write_bytes(folder / f"fold{fold}.npz", packed.getvalue())
    shutil.rmtree(folder / f"fold{fold}")


def load_answers(folder: Path) -> dict[str, np.ndarray]:
    """The answers about all folds of a trial, one after the other; `fold` says which."""
    files = sorted(folder.glob("fold*.npz"))
    parts = []
    for file in files:
        with np.load(file, allow_pickle=False) as stored:
            fold = np.full(len(stored["y_true"]), int(file.stem.removeprefix("fold")))
            parts.append(dict(stored) | {"fold": fold})
    same = {"class_names": parts[0].pop("class_names")}
    return same | {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}


def judge(answers: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Figures of a trial: accuracy, macro-F1, log loss, and points lost under each mild change."""
    sample, names = _sample(answers), answers["class_names"].tolist()
    y_prob = answers[AS_IT_IS].astype(float)
    y_prob = y_prob / y_prob.sum(axis=1, keepdims=True)
    whole = sample.right(_shares(answers[UNALTERED])).mean()
    lost = {
        key: 100 * float(whole - sample.right(_shares(values)).mean())
        for key, values in answers.items()
        if key.partition(" ")[0] in KINDS
    }
    metrics = compute_metrics(sample.y_true, y_prob, names)
    return {
        "n": len(sample.y_true),
        **sample.estimate(y_prob),
        "log_loss": float(_losses(sample.y_true, y_prob).mean()),
        "covid_recall": metrics["per_class"].get("covid", {}).get("recall"),
        "lost": lost,
        "worst": max(lost.items(), key=lambda item: item[1]),
    }


def compare(new: Mapping[str, np.ndarray], old: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """What the new trial gains in accuracy and log loss, with intervals over shared patients."""
    both = np.isin(new["fold"], old["fold"]), np.isin(old["fold"], new["fold"])
    new, old = ({k: v if k == "class_names" else v[rows] for k, v in trial.items()}
                for trial, rows in zip((new, old), both, strict=True))  # fmt: skip
    sample = _sample(new)
    answers = _shares(new[AS_IT_IS]), _shares(old[AS_IT_IS])
    found = {}
    for name, marks in (
        ("accuracy", [sample.right(y_prob).astype(float) for y_prob in answers]),
        ("log_loss", [_losses(sample.y_true, y_prob) for y_prob in answers]),
    ):
        drawn = sample.drawn_shares(*marks)
        low, high = np.quantile(drawn[0] - drawn[1], [0.025, 0.975])
        found[name] = [float(marks[0].mean() - marks[1].mean()), float(low), float(high)]
    return found


def _sample(answers: Mapping[str, np.ndarray]) -> Sample:
    return Sample(answers["y_true"], answers["groups"], answers["class_names"].tolist())


def _shares(values: np.ndarray) -> np.ndarray:
    values = values.astype(float)
    return values / values.sum(axis=1, keepdims=True)


def _losses(y_true: np.ndarray, y_prob: np.ndarray) -> np.ndarray:
    return -np.log(np.clip(y_prob[np.arange(len(y_true)), y_true], 1e-7, 1))


if __name__ == "__main__":
    sys.exit(main())
