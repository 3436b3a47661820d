"""Files of a run are written by core.runs alone, so that what a reader meets is always whole."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WRITERS = {"write_json", "write_csv", "write_text", "write_bytes", "to_csv"}
# Who else writes, and what: none of it is a file of a run that is whole.
ELSEWHERE = {
    "core/files.py": "the writers themselves",
    "core/datasets": "data sets and what is known of their files",
    "core/imageio": "the cache of pixels",
    "core/training": "a training that goes on, in .work",
    "core/bench": "what is measured, in temporary folders",
    "core/cli/predict.py": "tables and reports that were asked for",
}


def written_in(file: Path) -> list[int]:
    """Lines in which the module writes a file of text, JSON or CSV."""
    lines = []
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "attr", getattr(node.func, "id", ""))
            words = [a.value for a in node.args if isinstance(a, ast.Constant)]
            modes = [w for w in words if isinstance(w, str) and set(w) <= set("rwxabt+")]
            opens = name == "open" and any(set(mode) & set("wxa+") for mode in modes)
            if opens or name in WRITERS:
                lines.append(node.lineno)
    return lines


def test_nothing_but_core_runs_writes_files_of_a_run():
    allowed = ("core/runs/", *ELSEWHERE)
    found = {}
    for file in sorted((ROOT / "core").rglob("*.py")):
        name = file.relative_to(ROOT).as_posix()
        if not name.startswith(allowed) and (lines := written_in(file)):
            found[name] = lines
    assert found == {}


def test_a_writer_is_found_however_it_writes(tmp_path: Path):
    file = tmp_path / "module.py"
    file.write_text("write_json(p, d)\np.write_text('')\nopen(p, 'w')\nopen(p)\nopen(p, 'rb')\n")
    assert written_in(file) == [1, 2, 3]


def test_whoever_may_write_elsewhere_still_does():
    for place in ELSEWHERE:
        path = ROOT / place
        files = path.rglob("*.py") if path.is_dir() else [path]
        assert any(written_in(file) for file in files), place
