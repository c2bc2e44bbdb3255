"""The C core under libFuzzer with address and undefined-behaviour sanitizers, the host's decoder under atheris."""

from __future__ import annotations

import re
import subprocess

from proofs.page import ROOT, Section, cells

RUNS = {"coding": 1_000_000, "frame": 10_000_000, "image": 1_000_000, "server": 10_000_000, "host": 1_000_000}
"""What any line may bring to a device is fuzzed ten times as long; Python is slower."""


def fuzz(target: str, runs: int) -> tuple[int, bool]:
    """Return executions done, and whether none found anything."""
    done = subprocess.run(
        [str(ROOT / "scripts/fuzz"), target, "--runs", str(runs)], capture_output=True, text=True, check=False
    )
    executions = re.findall(r"(?:Done|stat::number_of_executed_units:)\s+(\d+)", done.stdout + done.stderr)
    return (max(int(text) for text in executions) if executions else 0), done.returncode == 0


def prove() -> Section:
    """Run each target for as many executions as it shall have."""
    rows, holds = [], True
    for target, runs in RUNS.items():
        executions, clean = fuzz(target, runs)
        holds = holds and clean and executions >= runs
        rows.append((target, executions, "none" if clean else "FOUND SOMETHING"))
    return Section(
        "Fuzzing what reads",
        "The device's core under libFuzzer with address and undefined-behaviour sanitizers (`coding`, `frame`, "
        "`image`, `server`), the host's decoder of frames and messages under atheris (`host`). CRC and hash are "
        "mended, to get past them.",
        ("target", "executions", "findings"),
        cells(rows),
        holds,
    )
