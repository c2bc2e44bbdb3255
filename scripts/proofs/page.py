"""Pages of measured figures: a section a proof, each with the commit and command that made its figures."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("docs/verified.md", "docs/link.md", "docs/quantization.md")


@dataclass(frozen=True)
class Section:
    """What a proof shows: a sentence, a table, and whether it holds."""

    title: str
    claim: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    holds: bool

    def markdown(self) -> str:
        """Return the claim and the table."""
        table = ["| " + " | ".join(self.head) + " |", "|" + "---|" * len(self.head)]
        table += ["| " + " | ".join(row) + " |" for row in self.rows]
        return f"{self.claim}\n\n" + "\n".join(table) + "\n"


def git(*arguments: str) -> str:
    """Return what git says in the checkout."""
    return subprocess.run(
        ("git", "-C", str(ROOT), *arguments), capture_output=True, text=True, check=True
    ).stdout.strip()


def dirty() -> bool:
    """Tell whether the checkout differs from its commit in anything but these pages."""
    changed = git("status", "--porcelain").splitlines()
    return any(not line.endswith(PAGES) for line in changed)


def write(path: Path, command: str, name: str, section: Section, seconds: float) -> None:
    """Put a section into a page, in place of the one of the same name, or at the end."""
    commit = git("rev-parse", "--short=12", "HEAD") + (" with uncommitted changes" if dirty() else "")
    state = "" if section.holds else " **This does not hold.**"
    text = (
        f"<!-- begin: {name} -->\n## {section.title}\n\n"
        f"`{command} {name}`, commit {commit}, {time.strftime('%Y-%m-%d')}, {platform.machine()}, "
        f"{os.cpu_count()} cores, {seconds:.0f} s.{state}\n\n{section.markdown()}<!-- end: {name} -->\n"
    )
    page = path.read_text(encoding="utf-8")
    block = re.compile(rf"<!-- begin: {re.escape(name)} -->.*?<!-- end: {re.escape(name)} -->\n", re.DOTALL)
    page = block.sub(lambda _: text, page) if block.search(page) else f"{page}\n{text}"
    path.write_text(page, encoding="utf-8")


def cells(rows: Iterable[Sequence[object]]) -> tuple[tuple[str, ...], ...]:
    """Return rows of text, whole numbers with thousands separators."""
    return tuple(tuple(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row) for row in rows)


def main(proofs: Mapping[str, Callable[[], Section]], names: Sequence[str], *, path: Path, command: str) -> int:
    """Run proofs by name, or all, and write their sections; return the exit code."""
    unknown = [name for name in names if name not in proofs]
    if unknown:
        print(f"no proof {', '.join(unknown)}; there are {', '.join(proofs)}", file=sys.stderr)
        return 2
    failed = []
    for name in names or proofs:
        print(f"== {name}", file=sys.stderr, flush=True)
        start = time.monotonic()
        section = proofs[name]()
        write(path, command, name, section, time.monotonic() - start)
        print(section.markdown(), flush=True)
        if not section.holds:
            failed.append(name)
    if failed:
        print(f"does not hold: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0
