"""What starting the command line loads: little, and nothing that Windows lacks."""

from __future__ import annotations

import ast
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

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
import pytest

import core
for module in pkgutil.walk_packages(core.__path__, "core."):
    if not module.name.endswith(("__main__", ".sandbox_worker")):
        importlib.import_module(module.name)
"""
    run_python(code)


def test_import_core_is_light_and_every_public_name_is_there():
    """Compared with the modules that hold the names, and loaded only when they are asked for."""
    code = f"""
import sys
import pytest

import core
assert not {HEAVY!r} & set(sys.modules), set(sys.modules)
assert set(core.__all__) <= set(dir(core))
for name in core.__all__:
    value = getattr(core, name)
    assert value is getattr(sys.modules[value.__module__], name) and value.__doc__, name
print(sorted(core.__all__))
"""
    names = ["audit_run", "list_runs", "load_model", "open_predictor", "open_run"]
    assert ast.literal_eval(run_python(code)) == ["Config", *names, "train_and_evaluate"]


def test_core_has_no_other_names():
    with pytest.raises(AttributeError, match="no attribute 'open_runs'"):
        core.open_runs  # noqa: B018 - asking for it is what is tested
