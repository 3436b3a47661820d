"""`python -m core train`: make one run."""

from __future__ import annotations

import argparse

from core.cli.arguments import split_names
from core.config import Config, artifacts_root
from core.console import fail, say
from core.models.names import expand_names

EXAMPLES = """examples:
  python -m core train --dataset darkcovidnet --models cnn,resnet50,mobilenetv2 --run release
  python -m core train --dataset phantom --models cnn --run demo --quick
  python -m core train --dataset FOLDER --models mobilenetv2 --run mine --classes covid,normal
  python -m core train --dataset darkcovidnet --run release --folds 5 --resume
  python -m core train --dataset darkcovidnet,cohen-2020 --run several --folds 5 --folds-by source
  python -m core train --dataset darkcovidnet --run leaky --split random --allow-leakage --folds 5
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `train`."""
    parser.add_argument(
        "--dataset",
        required=True,
        help="a known name or the path of a folder; several with commas between them (a,b) are "
        "trained on together",
    )
    parser.add_argument(
        "--models",
        default="cnn,resnet50,mobilenetv2",
        type=split_names,
        metavar="NAMES",
        help="names with commas between them; zoo: all of the field's notebooks and ours "
        "(default: %(default)s)",
    )
    parser.add_argument("--run", required=True, help="name of the run, a folder in artifacts/")
    parser.add_argument(
        "--classes", type=split_names, help="only these classes, such as covid,normal"
    )
    parser.add_argument(
        "--split",
        choices=("group", "random"),
        default="group",
        help="group keeps a patient on one side (default); random does not, to show what leaks "
        "(with --allow-leakage)",
    )
    parser.add_argument(
        "--folds",
        type=int,
        default=0,
        metavar="K",
        help="cross-validate too: the hold-out part is fold 0, and K-1 more models are trained; "
        "with --resume folds are added to a finished run",
    )
    parser.add_argument(
        "--folds-by",
        choices=("source",),
        help="with several data sets: also train once without each source (publisher, or set) and "
        "judge its images by that model; beside --folds, or alone, or with --resume",
    )
    parser.add_argument(
        "--fold-models",
        type=split_names,
        metavar="NAMES",
        help="cross-validate these models only; of the others the run says that it was not done",
    )
    parser.add_argument(
        "--allow-leakage",
        action="store_true",
        help="score a run whose test part shares patients or pictures with train, marked as such",
    )
    parser.add_argument(
        "--init",
        default="auto",
        help="auto, imagenet, random, or a file of weights: .h5, .keras or .npz (default: auto)",
    )
    parser.add_argument("--image-size", type=int, metavar="PX", help="default: each recipe's own")
    parser.add_argument("--epochs", type=int, help="at most so many epochs a stage")
    parser.add_argument("--seed", type=int, default=0, help="of split and training (default: 0)")
    parser.add_argument(
        "--group-copies",
        action="store_true",
        help="look for augmented copies (turned, mirrored, zoomed ...) and keep them together; "
        "done by itself for data sets known to hold some",
    )
    parser.add_argument(
        "--mixed",
        choices=("auto", "on", "off", "measure"),
        default="auto",
        help="half precision (bfloat16): on a GPU (auto), always, never (GPUs made before 2020), "
        "or where a few steps of each model show that it is faster here (measure)",
    )
    parser.add_argument("--quick", action="store_true", help="64 px, few epochs: a demonstration")
    parser.add_argument(
        "--keep-keras",
        action=argparse.BooleanOptionalAction,
        default=False,
        help="also keep model.keras, for further training",
    )
    again = parser.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on with an interrupted run")
    again.add_argument("--replace", action="store_true", help="train a run that exists anew")


def run_command(args: argparse.Namespace) -> int:
    """Train as asked; progress and summary on stderr."""
    config = Config(
        dataset=args.dataset,
        models=expand_names(args.models),
        run=args.run,
        classes=args.classes,
        split=args.split,
        folds=args.folds,
        fold_models=args.fold_models,
        folds_by=args.folds_by,
        allow_leakage=args.allow_leakage,
        init=args.init,
        image_size_px=args.image_size,
        epochs=args.epochs,
        seed=args.seed,
        quick=args.quick,
        keep_keras=args.keep_keras,
        mixed=args.mixed,
        group_copies=args.group_copies,
    )
    from core.backend import import_keras

    try:
        import_keras()
    except ImportError:
        return fail("Training needs TensorFlow, which is not installed; run `make setup` first.")
    from core.reporting.run_summary import score_line
    from core.runs.artifacts import load_metrics
    from core.training.pipeline import train_and_evaluate

    run_dir = artifacts_root() / config.run
    try:
        run = train_and_evaluate(config, run_dir, resume=args.resume, replace=args.replace)
    except KeyboardInterrupt:
        say(f"\nStopped. The same command with --resume goes on where {config.run} is now.")
        return 130
    for model in run.models:
        say(score_line(run.title(model), load_metrics(run, model)))
    say(f"See it with `make dashboard`. Files: {run.path.as_posix()}")
    return 0
