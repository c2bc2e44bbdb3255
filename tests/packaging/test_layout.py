"""The structure that docs and design promise: who may import whom, and where printing is allowed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "host/bitloop"

# Room -> the rooms it may import. Data flows one way: no stage reaches back.
LEAVES = {"errors", "files", "spec"}
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "files": set(),
    "spec": set(),
    "hello": LEAVES,
    "numeric": LEAVES,
    "data": LEAVES,
    "network": LEAVES | {"data"},
    "quantize": LEAVES | {"numeric", "network"},
    "plan": LEAVES | {"hello", "numeric", "network", "quantize"},
    "simulate": LEAVES | {"numeric", "network", "quantize"},
    "qat": LEAVES | {"data", "numeric", "network", "quantize", "simulate"},
    "native": LEAVES | {"hello", "numeric"},
    "firmware": LEAVES | {"boards", "native"},
    "link": LEAVES | {"hello", "numeric", "boards", "native", "firmware"},
    "boards": LEAVES | {"hello"},
    "bench": LEAVES
    | {"hello", "boards", "numeric", "data", "network", "quantize", "plan", "simulate", "link", "native", "firmware"},
    "study": LEAVES
    | {"hello", "numeric", "data", "network", "qat", "quantize", "plan", "simulate", "native", "link", "bench"},
    "report": LEAVES | {"bench", "numeric", "quantize", "study"},
    "monitor": LEAVES | {"hello", "link"},
}


def _modules() -> Iterator[tuple[str, Path]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        relative = path.relative_to(PACKAGE)
        if "_device" not in relative.parts:
            yield relative.parts[0].removesuffix(".py"), path


def _imported_rooms(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names = [f"{module}.{alias.name}" for alias in node.names] if module == "bitloop" else [module]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] == "bitloop" and len(parts) > 1:
                yield parts[1]


@pytest.mark.parametrize(("room", "path"), [pytest.param(r, p, id=str(p.relative_to(PACKAGE))) for r, p in _modules()])
def test_imports_flow_one_way(room: str, path: Path) -> None:
    if room not in ALLOWED:
        assert room in {"__init__", "__main__", "api", "cli", "demo"}, (
            f"a new room {room}: say in this test what it may import"
        )
        return
    reached = set(_imported_rooms(path)) - {room, "__version__"}
    assert reached <= ALLOWED[room], f"{room} must not import {sorted(reached - ALLOWED[room])}"


PROGRAMS = {"link/urls/keeper.py"}
"""Modules that are run as a process of their own, and end it."""


@pytest.mark.parametrize("path", [pytest.param(p, id=str(p.relative_to(PACKAGE))) for r, p in _modules() if r != "cli"])
def test_only_the_command_line_prints_or_exits(path: Path) -> None:
    if path.relative_to(PACKAGE).as_posix() in PROGRAMS:
        return
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in {"print", "exit", "quit", "sys.exit", "os._exit"}, (
                f"{path.name}:{node.lineno} calls {called}"
            )
