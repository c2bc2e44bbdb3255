"""Keras on demand: what its backend's C++ code says on the way is shown only where it fails."""

from __future__ import annotations

import subprocess
import sys

import pytest

SAYS = """
import os, sys
from bitloop.network.keras_runtime import _without_greetings
print("before", file=sys.stderr)
with _without_greetings():
    os.write(2, b"greeting\\n")
    print("python's own", file=sys.stderr)
    {then}
print("after", file=sys.stderr)
"""


def said(program: str) -> tuple[int, list[str]]:
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    return done.returncode, done.stderr.splitlines()


def test_greetings_are_kept_back_and_nothing_else() -> None:
    assert said(SAYS.format(then="pass")) == (0, ["before", "python's own", "after"])


def test_they_are_shown_where_it_fails() -> None:
    code, lines = said(SAYS.format(then="raise ImportError('no backend')"))
    assert code == 1
    assert sorted(lines[:3]) == ["before", "greeting", "python's own"]
    assert lines[-1] == "ImportError: no backend"
    assert "after" not in lines


def test_tensorflow_says_nothing() -> None:
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed")
    program = "from bitloop.network.keras_runtime import import_keras_package\nimport_keras_package().ops.zeros(3)"
    assert said(program) == (0, [])
