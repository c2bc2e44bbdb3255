"""libFuzzer over all targets for 46 s, with address and undefined-behaviour sanitizers; scripts/fuzz runs longer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from bitloop.native import device_dir

FUZZ = device_dir() / "fuzz"
CLANG = os.environ.get("BITLOOP_CLANG", "clang")
SECONDS = {"coding": 8, "frame": 8, "image": 12, "server": 18}
LEAST_RUNS = 500
"""Far fewer than any machine manages: what is in the seeds comes on top."""


def run(target: str, program: Path, folder: Path, *, seconds: int) -> subprocess.CompletedProcess[str]:
    """Fuzz with the target's seeds; an input that breaks a promise is left in the folder."""
    for name in ("seeds", "corpus"):
        (folder / name).mkdir()
    subprocess.run([sys.executable, FUZZ / "seeds.py", target, folder / "seeds"], check=True, timeout=100)
    arguments = (f"-max_total_time={seconds}", "-max_len=1200", "-timeout=20", "-print_final_stats=1")
    return subprocess.run(
        [program, *arguments, f"-artifact_prefix={folder}/", folder / "corpus", folder / "seeds"],
        capture_output=True,
        text=True,
        timeout=seconds + 100,
        check=False,
    )


def built(target: str, folder: Path) -> Path:
    if shutil.which(CLANG) is None:
        pytest.skip("clang is not here (Debian: apt install clang libclang-rt-14-dev)")
    program = folder / f"fuzz_{target}"
    done = subprocess.run(["bash", FUZZ / "build.sh", target, program], capture_output=True, text=True, check=False)
    if done.returncode != 0 and "clang_rt.fuzzer" in done.stderr:
        pytest.skip("libFuzzer's runtime is not here (Debian: apt install libclang-rt-14-dev)")
    assert done.returncode == 0, done.stderr
    return program


def test_no_target_is_forgotten() -> None:
    assert {path.stem.removeprefix("fuzz_") for path in FUZZ.glob("fuzz_*.c")} == SECONDS.keys()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("target", SECONDS)
def test_nothing_is_found_in_a_while(target: str, tmp_path: Path) -> None:
    done = run(target, built(target, tmp_path), tmp_path, seconds=SECONDS[target])
    assert done.returncode == 0, done.stderr[-4000:]
    runs = re.search(r"stat::number_of_executed_units: (\d+)", done.stderr)
    assert runs is not None
    assert int(runs[1]) >= LEAST_RUNS
