"""The wheel, installed into an empty environment outside the clone, runs the demo and builds firmware."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bitloop.firmware import find

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


def _installed(tmp_path: Path, extra: str = "") -> tuple[Path, dict[str, str]]:
    """Make an environment with the wheel; give its folder, and variables that lead nowhere else."""
    _call(sys.executable, "-m", "build", "--wheel", "--outdir", tmp_path, ROOT, cwd=tmp_path)
    (wheel,) = tmp_path.glob("bitloop-*.whl")
    environment = tmp_path / "environment"
    _call(sys.executable, "-m", "venv", environment, cwd=tmp_path)
    _call(environment / "bin/python", "-m", "pip", "install", "--quiet", f"{wheel}{extra}", cwd=tmp_path)
    # A cache of its own: all must be compiled from what the wheel carries, not found.
    variables = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "BITLOOP"))},
        "BITLOOP_CACHE": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
    }
    return environment, variables


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_wheel_demo_outside_the_clone(tmp_path: Path, mnist_dir: Path) -> None:
    environment, variables = _installed(tmp_path)
    variables["BITLOOP_DATA"] = str(mnist_dir)
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


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_wheel_builds_firmware_outside_the_clone(tmp_path: Path) -> None:
    board = "stm32f100"
    missing = find.missing_to_build(f"qemu_{board}")
    if missing:
        pytest.skip(f"{board} needs {'; '.join(map(str, missing))}; {find.SETUP} installs it")
    environment, variables = _installed(tmp_path, "[firmware]")
    build = (environment / "bin/bitloop", "firmware", "build", board, "--json")
    (built,) = json.loads(_call(*build, cwd=tmp_path, environment=variables))
    assert Path(built["elf"]).is_relative_to(tmp_path / "cache")
    (here,) = json.loads(_call(sys.executable, "-m", "bitloop", *build[1:], cwd=ROOT))
    sizes = ("flash_bytes", "static_bytes", "stack_bytes", "arena_bytes")
    assert [built[each] for each in sizes] == [here[each] for each in sizes]
