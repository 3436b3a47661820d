"""What starting the command line loads: little, and nothing that Windows lacks."""

from __future__ import annotations

import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import core
from core.__main__ import COMMANDS

ROOT = Path(core.__file__).parents[1]
HEAVY = {"cv2", "keras", "numpy", "openvino", "pandas", "PIL", "scipy", "sklearn", "tensorflow"}
POSIX_ONLY = ("fcntl", "grp", "pwd", "resource", "termios")


def run_python(code: str) -> str:
    """The output of the code in a fresh Python."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_command_has_a_module_and_every_module_a_command():
    found = {module.name for module in pkgutil.iter_modules([str(ROOT / "core" / "cli")])}
    assert found - {"arguments"} == set(COMMANDS)


def test_help_loads_nothing_heavy():
    """All of --help in one process: what one command loads stands in `loaded` from then on."""
    code = f"""
import contextlib, io, json, sys
from core.__main__ import COMMANDS, main
loaded = {{}}
for name in ["", *COMMANDS]:
    with contextlib.redirect_stdout(io.StringIO()) as text, contextlib.suppress(SystemExit):
        main([name, "--help"] if name else ["--help"])
    assert "usage: python -m core" in text.getvalue(), name
    loaded[name] = sorted({HEAVY!r} & set(sys.modules))
print(json.dumps(loaded))
"""
    loaded = json.loads(run_python(code))
    assert loaded == {name: [] for name in ["", *COMMANDS]}


def test_help_loads_only_the_command_that_is_asked():
    code = """
import contextlib, sys
from core.__main__ import main
with contextlib.suppress(SystemExit):
    main(["slim", "--help"])
print(sorted(name for name in sys.modules if name.startswith("core.cli.")))
"""
    assert run_python(code).splitlines()[-1] == "['core.cli.arguments', 'core.cli.slim']"


def test_no_module_needs_what_windows_lacks():
    """Every module of core is imported; what only runs within the sandbox's own process is not."""
    code = f"""
import importlib, pkgutil, sys
sys.modules |= dict.fromkeys({POSIX_ONLY!r})
import core
for module in pkgutil.walk_packages(core.__path__, "core."):
    if not module.name.endswith(("__main__", ".sandbox_worker")):
        importlib.import_module(module.name)
"""
    run_python(code)
