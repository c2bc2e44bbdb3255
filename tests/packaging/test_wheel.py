"""The wheel, installed into an empty environment outside the clone, runs the demo."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def _call(*command: str | Path, cwd: Path, environment: dict[str, str] | None = None) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, f"{command} exited {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_wheel_demo_outside_the_clone(tmp_path: Path, mnist_dir: Path) -> None:
    _call(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("bitloop-*.whl")
    environment = tmp_path / "environment"
    _call(sys.executable, "-m", "venv", environment, cwd=tmp_path)
    _call(environment / "bin/python", "-m", "pip", "install", "--quiet", wheel, cwd=tmp_path)
    # A cache of its own: the core must be compiled from what the wheel carries, not found.
    variables = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "BITLOOP"))},
        "BITLOOP_CACHE": str(tmp_path / "cache"),
        "BITLOOP_DATA": str(mnist_dir),
        "HOME": str(tmp_path),
    }
    where = _call(
        environment / "bin/python", "-c", "import bitloop; print(bitloop.__file__)", cwd=tmp_path, environment=variables
    )
    assert str(environment) in where
    _call(
        environment / "bin/bitloop",
        "demo",
        "--limit",
        "500",
        "--out",
        tmp_path / "run",
        cwd=tmp_path,
        environment=variables,
    )
    records = [json.loads(p.read_text()) for p in (tmp_path / "run").rglob("run.json")]
    assert records
    for record in records:
        assert record["verdict"] == "exact"
        assert record["exact"]["matching"] == record["exact"]["total"] > 0
