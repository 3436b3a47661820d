"""The command line: `python -m core COMMAND`; each command is a module of core.cli.

Such a module has EXAMPLES, add_arguments(parser) and run_command(args) -> exit status. Only the
module of the command that was asked for is imported, and it imports what is slow when it runs, so
that `--help` is there at once.
"""

from __future__ import annotations

import argparse
import sys
from importlib import import_module
from typing import NoReturn

from core.console import fail, show_log
from core.errors import UserError

# Command -> what it does; the module has the command's name.
COMMANDS = {
    "data": "list known data sets, or fetch and check one",
    "train": "train, export and evaluate models into a run",
    "predict": "ask every model of a run about image files",
    "evaluate": "score a run's models on its test split again, or on images from elsewhere",
    "summary": "a run's models, floors and verdict as Markdown",
    "verify": "hold the files of runs against their hashes",
    "cross": "train on one, test on another: a matrix of data sets for each model",
    "zoo": "rank the models of every run that shares a protocol, and judge the notebooks' claims",
    "audit": "leakage, blackout, source probe, perturbation and subgroups of a run",
    "maps": "check a run's heat maps on drawn phantoms with known lesions",
    "guard": "fit and measure what refuses pictures that are no chest X-ray",
    "slim": "delete the weights of a run's models and keep its figures",
    "bench": "measure statistics, pages, live answers, training, memory and the audit here",
}
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

    def error(self, message: str) -> NoReturn:
        """Raise UsageError."""
        raise UsageError(f"{self.prog}: {message} (`{self.prog} --help` lists what it takes).")


def build_parser(command: str | None = None) -> argparse.ArgumentParser:
    """The parser of the command line; of all commands, only `command` has its options."""
    style = argparse.RawDescriptionHelpFormatter
    parser = Parser(
        prog="python -m core",
        description="Train and honestly compare chest X-ray classifiers. Research use only.",
        epilog=EXAMPLES,
        formatter_class=style,
    )
    subparsers = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, does in COMMANDS.items():
        subparser = subparsers.add_parser(name, help=does, formatter_class=style)
        if name == command:
            module = import_module(f"core.cli.{name}")
            module.add_arguments(subparser)
            subparser.epilog = module.EXAMPLES
            subparser.set_defaults(func=module.run_command)
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run one command; wrong use is one sentence (with --json a document too) and status 2."""
    words = sys.argv[1:] if argv is None else argv
    as_json = "--json" in words
    show_log()
    # No option before the command takes a value, so the first word without a dash names it.
    command = next((word for word in words if not word.startswith("-")), None)
    try:
        args = build_parser(command).parse_args(words)
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
