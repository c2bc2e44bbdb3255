"""How long a user waits: whole runs of the command line, 10,000 images, start to report."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from proofs.page import Section, cells

BOUNDS_S = {"mlp": 30.0, "cnn": 180.0}


def measure(network: str, weights: str, directory: Path) -> tuple[float, dict[str, object]]:
    """Return wall-clock seconds of one `bitloop run` over the test split, and its record."""
    out = directory / f"{network}-run"
    command = [sys.executable, "-m", "bitloop", "run", network, "--weights", weights, "--device", "sim://native"]
    command += ["--data", "mnist", "--split", "test", "--out", str(out)]
    start = time.monotonic()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return time.monotonic() - start, json.loads((out / "run.json").read_text(encoding="utf-8"))


def prove() -> Section:
    """Time the commands of the two bounds."""
    rows, holds = [], True
    with tempfile.TemporaryDirectory() as name:
        for network, bound in BOUNDS_S.items():
            seconds, record = measure(network, "int8:channel", Path(name))
            holds = holds and seconds <= bound and record["verdict"] == "exact"
            rows.append((network, 10_000, f"{seconds:.1f} s", f"{bound:.0f} s"))
    return Section(
        "A run, end to end",
        "`bitloop run NETWORK --weights int8:channel --device sim://native`, start to report, on a shared machine.",
        ("network", "images", "took", "bound"),
        cells(rows),
        holds,
    )
