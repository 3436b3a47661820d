"""The command line: `python -m core COMMAND`; each command lives in a module of its own."""

from __future__ import annotations

import argparse
import sys

from core.artifacts import ArtifactError
from core.commands_data import add_data_parser
from core.commands_train import add_train_parser
from core.commands_use import add_use_parsers
from core.config import ConfigError
from core.datasets import DatasetError
from core.floors import FloorsError
from core.images import ImageError
from core.inference import InferenceError
from core.manifest import ManifestError
from core.metrics import MetricsError
from core.phantom import PhantomError

USER_ERRORS = (
    ArtifactError, ConfigError, DatasetError, FloorsError, ImageError, InferenceError,
    ManifestError, MetricsError, PhantomError,
)  # fmt: skip


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m core",
        description="Train and honestly compare chest X-ray classifiers. Research use only.",
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_data_parser(subparsers)
    add_train_parser(subparsers)
    add_use_parsers(subparsers)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; wrong use is one sentence on stderr and exit status 2."""
    args = build_parser().parse_args(argv)
    try:
        return args.func(args)
    except USER_ERRORS as error:
        print(error, file=sys.stderr)
        return 2


if __name__ == "__main__":
    sys.exit(main())
