"""What `core` logs on the command line: plain lines on stderr, once, and nothing on stdout."""

from __future__ import annotations

import logging

import pytest

from core import console


@pytest.fixture
def shown(monkeypatch):
    """The log as the command line shows it; afterwards as it was."""
    logger = logging.getLogger("core")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logger.level)
    console.show_log()
    console.show_log()  # a second command in one process does not double the lines
    yield
    logger.setLevel(logging.NOTSET)


def test_a_logged_line_is_what_say_prints(shown, capsys):
    log = logging.getLogger("core.training.pipeline")
    log.info("Run mine is complete: 100 % done.")
    log.warning("LEAKS: 3 patients.")
    log.debug("not for people")
    assert capsys.readouterr() == ("", "Run mine is complete: 100 % done.\nLEAKS: 3 patients.\n")


def test_other_libraries_stay_silent(shown, capsys):
    logging.getLogger("pooch").info("Downloading")
    assert capsys.readouterr().err == ""


def test_a_warning_is_seen_without_the_command_line():
    """As a library's user gets it, who has set up no log."""
    import subprocess
    import sys

    script = "import logging; logging.getLogger('core.training.prepare').warning('LEAKS: x')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr == "LEAKS: x\n"
