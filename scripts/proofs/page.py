"""docs/verified.md: a section a proof, each with the commit and command that made its figures."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs/verified.md"

INTRODUCTION = """\
# Verified figures

Written by `scripts/verify`; each section names the commit it ran on. Short versions of the same code are tests.
All devices here are simulated: no time on this page is one of a chip.
"""


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
    """Tell whether the checkout differs from its commit in anything but the page itself."""
    changed = git("status", "--porcelain").splitlines()
    return any(not line.endswith("docs/verified.md") for line in changed)


def write(name: str, section: Section, seconds: float) -> None:
    """Put a section into the page, in place of the one of the same name."""
    commit = git("rev-parse", "--short=12", "HEAD") + (" with uncommitted changes" if dirty() else "")
    state = "" if section.holds else " **This does not hold.**"
    text = (
        f"<!-- begin: {name} -->\n## {section.title}\n\n"
        f"`scripts/verify {name}`, commit {commit}, {time.strftime('%Y-%m-%d')}, {platform.machine()}, "
        f"{os.cpu_count()} cores, {seconds:.0f} s.{state}\n\n{section.markdown()}<!-- end: {name} -->\n"
    )
    page = PAGE.read_text(encoding="utf-8") if PAGE.exists() else INTRODUCTION
    block = re.compile(rf"<!-- begin: {re.escape(name)} -->.*?<!-- end: {re.escape(name)} -->\n", re.DOTALL)
    page = block.sub(lambda _: text, page) if block.search(page) else f"{page}\n{text}"
    PAGE.write_text(page, encoding="utf-8")


def cells(rows: Iterable[Sequence[object]]) -> tuple[tuple[str, ...], ...]:
    """Return rows of text, whole numbers with thousands separators."""
    return tuple(tuple(f"{cell:,}" if isinstance(cell, int) else str(cell) for cell in row) for row in rows)
