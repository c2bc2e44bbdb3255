"""The generated tables of docs/boards.md: what each board is, and what its firmware takes of it.

Sizes come from real builds, and follow from the toolchain: its versions stand in each row. A row whose toolchain is
not on this machine stays as it is.
"""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from bitloop.boards import BOARDS, Board
from bitloop.firmware import find
from bitloop.firmware.build import firmware_elf, platform_module
from bitloop.firmware.memory import static_memory

NOT_MEASURED = ("–", "–", "–", "–", "PlatformIO's espressif32, not measured")

# Each library says its version in a header of its own; what is not there says nothing.
_LIBRARIES = """
#if __has_include(<_newlib_version.h>)
#include <_newlib_version.h>
LIBRARY newlib _NEWLIB_VERSION
#endif
#if __has_include(<picolibc.h>)
#include <picolibc.h>
LIBRARY picolibc _PICOLIBC_VERSION
#endif
#if __has_include(<avr/version.h>)
#include <avr/version.h>
LIBRARY avr-libc __AVR_LIBC_VERSION_STRING__
#endif
"""


def boards() -> list[Board]:
    """Return the boards that have firmware, in the catalogue's order."""
    there = find.environments()
    return [board for board in BOARDS if board.environment in there]


def table(head: tuple[str, ...], rows: Iterable[tuple[object, ...]]) -> str:
    """Set a Markdown table."""
    out = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    out.extend("| " + " | ".join(str(cell) for cell in row) + " |" for row in rows)
    return "\n".join(out)


def boards_table() -> str:
    """Return what each board is; from the catalogue, the manifests and the ports' headers."""
    head = ("board", "what", "instruction set", "RAM", "flash", "environment", "port", "baud", "flashed by, or run as")
    return table(head, map(_board_row, boards()))


def memory_table(previous: str, *, build: bool) -> str:
    """Return what each firmware takes, in bytes.

    Args:
        previous: The table as the page has it: where rows come from that are not measured.
        build: Measure what can be built here; else all rows stay.
    """
    head = ("board", "flash", "static RAM", "stack", "arena", "toolchain")
    rows = []
    for board in boards():
        there = row_of(previous, board) or ("?",) * 5
        if not find.is_local(board.environment):
            there = NOT_MEASURED
        elif build:
            reason = why_not_measured(board)
            if reason:
                print(f"{board.name}: sizes stay as they are; {reason}", file=sys.stderr)
            else:
                there = measured(board)
        rows.append((f"`{board.name}`", *there))
    return table(head, rows)


def row_of(page: str, board: Board) -> tuple[str, ...] | None:
    """Return the five cells of a board's row of the memory table; None where it has none."""
    found = re.search(rf"^\| `{re.escape(board.name)}` \| ((?:[^|\n]+ \| ){{4}}[^|\n]+) \|$", page, re.MULTILINE)
    return tuple(found[1].split(" | ")) if found else None


def why_not_measured(board: Board) -> str:
    """Say what keeps a board's firmware from being built here, or ""."""
    missing = find.missing_to_build(board.environment)
    return f"missing: {'; '.join(map(str, missing))}" if missing else ""


def measured(board: Board) -> tuple[str, ...]:
    """Build a board's firmware, and return the five cells of its row."""
    memory = static_memory(firmware_elf(board.environment))
    sizes = (memory.flash_bytes, memory.static_bytes, memory.stack_bytes, memory.arena_bytes)
    return (*(f"{size:,}" for size in sizes), toolchain(board.environment))


@functools.cache
def toolchain(environment: str) -> str:
    """Say which compiler, linker and libraries build an environment here, with their versions."""
    build = _manifest(environment)["build"]
    prefix = build["toolchain"]
    gcc = _first_line(f"{prefix}gcc", "--version")
    binutils = _first_line(f"{prefix}ld", "--version").rsplit(maxsplit=1)[-1]
    command = [f"{prefix}gcc", *build["cpu_flags"], "-E", "-P", "-x", "c", "-"]
    headers = subprocess.run(command, input=_LIBRARIES, capture_output=True, text=True, check=True).stdout
    parts = [gcc, f"binutils {binutils}"]
    parts += [f"{name} {version}" for name, version in re.findall(r'^LIBRARY (\S+) "(.*)"$', headers, re.MULTILINE)]
    if "arduino" in build:
        core = Path(build["arduino"]["core"]).parents[1] / "platform.txt"
        version = re.search(r"^version=(.+)$", core.read_text(encoding="utf-8"), re.MULTILINE)
        parts.append(f"Arduino core {version[1] if version else '?'}")
    return ", ".join(parts)


def _first_line(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[0].strip()


def _manifest(environment: str) -> dict[str, Any]:
    manifest: dict[str, Any] = platform_module("identity").board_manifest(environment)
    return manifest


def _board_row(board: Board) -> tuple[object, ...]:
    return (
        f"`{board.name}`",
        board.title,
        board.isa,
        _size(board.ram_bytes),
        _size(board.flash_bytes),
        f"`{board.environment}`",
        f"`{board.port}`",
        _baud(board),
        _reached(board),
    )


def _size(size_bytes: int) -> str:
    if not size_bytes:
        return "–"
    return f"{size_bytes >> 20} MB" if size_bytes % (1 << 20) == 0 else f"{size_bytes >> 10:,} KB"


def _baud(board: Board) -> str:
    """BL_BAUD, as the manifest or else the port defines it; an emulator's line has no rate."""
    if board.emulator is not None and not _protocols(board):
        return "–"
    defines = _manifest(board.environment)["build"]["defines"] if find.is_local(board.environment) else []
    folder = find.project().device / "ports" / board.port
    texts = [f"#define {each.replace('=', ' ')}" for each in defines]
    texts += [path.read_text(encoding="utf-8") for path in sorted(folder.glob("*.h"))]
    found = re.search(r"#define BL_BAUD (\d+)", "\n".join(texts))
    return f"{int(found[1]):,}" if found else "–"


def _protocols(board: Board) -> list[str]:
    if not find.is_local(board.environment):
        return []
    protocols: list[str] = platform_module("upload").protocols(_manifest(board.environment))
    return protocols


def _reached(board: Board) -> str:
    ways = platform_module("upload").PROTOCOLS
    by = " or ".join(ways[each].title for each in _protocols(board))
    if not find.is_local(board.environment):
        by = "esptool, which PlatformIO brings"
    return "; ".join(each for each in (by, f"`{board.url}`" if board.url else "") if each)
