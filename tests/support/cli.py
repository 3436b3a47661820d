"""The command line called within this process: the same entry, without starting Python anew."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Mapping
from subprocess import CompletedProcess
from unittest import mock

from core.__main__ import main


def run_here(words: list[str], variables: Mapping[str, str]) -> CompletedProcess[str]:
    """`python -m core WORDS` in this process: its status and what it wrote to both streams.

    For what needs no process of its own: a training that is killed does, one that only has to end
    does not, and TensorFlow is imported once for all of them.
    """
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, variables),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        status = main(words)
    return CompletedProcess(words, status, out.getvalue(), err.getvalue())
