"""The command line: `python -m core COMMAND`; each command lives in a module of its own."""

from __future__ import annotations

import argparse
import sys

from core.cli.audit import add_audit_parser
from core.cli.bench import add_bench_parser
from core.cli.cross import add_cross_parser
from core.cli.data import add_data_parser
from core.cli.guard import add_guard_parser
from core.cli.maps import add_maps_parser
from core.cli.predict import add_predict_parser
from core.cli.slim import add_slim_parser
from core.cli.train import add_train_parser
from core.cli.use import add_use_parsers
from core.cli.zoo import add_zoo_parser
from core.console import fail
from core.errors import UserError

EXAMPLES = """examples:
  python -m core data darkcovidnet                          fetch and check a data set
  python -m core train --dataset darkcovidnet --run mine    train and evaluate three models
  python -m core predict --run mine image.png               ask them about an image
  python -m core COMMAND --help                             options and examples of a command
"""


class UsageError(UserError):
    """Words that the command line does not take; the message is one sentence."""


# FloatingPointError: a training whose loss is no longer a number. OSError: a disk that is full, a
# folder that cannot be written.
USER_ERRORS = (UserError, FloatingPointError, OSError)


class Parser(argparse.ArgumentParser):
    """Refuses in one sentence, which main can also give as JSON; argparse prints and exits."""

    def error(self, message: str) -> None:
        raise UsageError(f"{self.prog}: {message} (`{self.prog} --help` lists what it takes).")


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="python -m core",
        description="Train and honestly compare chest X-ray classifiers. Research use only.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    add_data_parser(subparsers)
    add_train_parser(subparsers)
    add_predict_parser(subparsers)
    add_use_parsers(subparsers)
    add_cross_parser(subparsers)
    add_zoo_parser(subparsers)
    add_audit_parser(subparsers)
    add_maps_parser(subparsers)
    add_guard_parser(subparsers)
    add_slim_parser(subparsers)
    add_bench_parser(subparsers)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; wrong use is one sentence (with --json a document too) and status 2."""
    words = sys.argv[1:] if argv is None else argv
    as_json = "--json" in words
    try:
        args = build_parser().parse_args(words)
        as_json = getattr(args, "json", False)
        return args.func(args)
    except USER_ERRORS as error:
        return fail(_sentence(error), as_json)
    except KeyboardInterrupt:
        return fail("Stopped.", as_json, 130)


def _sentence(error: Exception) -> str:
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename} cannot be used: {error.strerror}."
    return str(error)


if __name__ == "__main__":
    sys.exit(main())
