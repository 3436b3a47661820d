"""What a person reads has one base."""

import ast
from pathlib import Path

import core
import dashboard

# Its message is the end of a sentence, and it never leaves the guard.
NOT_A_SENTENCE = {"TrialError"}


def test_every_error_that_a_person_reads_is_a_user_error():
    bare = set()
    for package in (core, dashboard):
        for path in Path(package.__file__).parent.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.ClassDef):
                    bases = {base.id for base in node.bases if isinstance(base, ast.Name)}
                    if bases & {"ValueError", "RuntimeError", "TypeError", "KeyError"}:
                        bare.add(node.name)
    assert bare == {"UserError"} | NOT_A_SENTENCE
