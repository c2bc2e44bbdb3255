"""scripts/setup-firmware --check names what is missing; what it cannot find out is no success."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TOLD = {
    "arm": {"gcc-arm-none-eabi", "libnewlib-arm-none-eabi", "qemu-system-arm"},
    "riscv": {"gcc-riscv64-unknown-elf", "picolibc-riscv64-unknown-elf", "qemu-system-misc"},
    "xtensa": {"gcc-xtensa-lx106", "qemu-system-misc"},
    "avr": {"gcc-avr", "avr-libc", "arduino-core-avr", "qemu-system-misc"},
}
"""Debian's packages of a family: its compiler, its C library and what emulates its boards."""


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The scripts beside a platformio.ini."""
    pytest.importorskip(
        "SCons", reason="scripts/setup-firmware --check asks for SCons first: pip install 'bitloop[firmware]'"
    )
    (tmp_path / "scripts").mkdir()
    for name in ("setup-firmware", "setup.sh"):
        shutil.copy(ROOT / "scripts" / name, tmp_path / "scripts")
    shutil.copy(ROOT / "platformio.ini", tmp_path)
    return tmp_path


def check(checkout: Path, *families: str, installed: str = "") -> subprocess.CompletedProcess[str]:
    """Ask, where dpkg knows only the package ``installed``, or all of them ("*")."""
    tools = checkout / "tools"
    tools.mkdir(exist_ok=True)
    dpkg = tools / "dpkg-query"
    dpkg.write_text(
        f"#!/bin/sh\nfor package; do :; done\ncase $package in {installed or 'none'}) echo ok installed ;; esac\n"
    )
    dpkg.chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tools}{os.pathsep}{os.environ['PATH']}",
        "BITLOOP_VENV": sys.prefix,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = ["bash", str(checkout / "scripts/setup-firmware"), "--check", *families]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=60)


def missing(done: subprocess.CompletedProcess[str]) -> set[str]:
    """What it says is missing."""
    head, _, names = done.stderr.partition("Debian packages are missing: ")
    assert (done.returncode, head) == (1, "error: ")
    return set(names.split())


@pytest.mark.parametrize("family", TOLD)
def test_a_family_is_told_by_name(checkout: Path, family: str) -> None:
    assert missing(check(checkout, family)) == TOLD[family]


def test_families_add_up_and_what_is_there_is_left_out(checkout: Path) -> None:
    assert missing(check(checkout, "arm", "avr", installed="qemu-system-arm")) == (TOLD["arm"] | TOLD["avr"]) - {
        "qemu-system-arm"
    }


def test_without_a_name_the_environments_decide(checkout: Path) -> None:
    (checkout / "platformio.ini").write_text("[env:qemu_rv32imc]\n[env:qemu_mega2560]\n")
    assert missing(check(checkout)) == TOLD["riscv"] | TOLD["avr"]


def test_all_there_is_said_so(checkout: Path) -> None:
    done = check(checkout, *TOLD, installed="*")
    assert (done.returncode, "can be built and emulated" in done.stderr) == (0, True)


def test_an_unknown_family_is_refused(checkout: Path) -> None:
    done = check(checkout, "mips", installed="*")
    assert done.returncode == 1
    assert "no family of boards 'mips'; there are arm, riscv, xtensa, avr" in done.stderr


def test_what_cannot_be_read_is_no_success(checkout: Path) -> None:
    (checkout / "platformio.ini").unlink()
    done = check(checkout, installed="*")
    assert done.returncode == 1
    assert "platformio.ini" in done.stderr
