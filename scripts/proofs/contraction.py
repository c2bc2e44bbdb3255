"""A firmware that is wrong on purpose: without the sources' guard, and with contraction asked for."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

from bitloop.firmware.scons import lay_scons
from proofs.page import ROOT

ENVIRONMENT = "qemu_stm32f405"
BUILD_S = 120

_CHANGES = (
    ("device/core/bl_base.h", '#pragma GCC optimize("fp-contract=off")', ""),
    ("device/platforms/bitloop/identity.py", "-ffp-contract=off", "-ffp-contract=fast"),
)


def build_contracted(folder: Path) -> Path:
    """Build the firmware of the STM32F405 (Cortex-M4F) from changed copies of the sources.

    Args:
        folder: where they and the build go.

    Returns:
        Its ELF file.

    Raises:
        RuntimeError: the sources are no longer what is changed here, or the build failed.
    """
    shutil.copytree(ROOT / "device", folder / "device")
    shutil.copy(ROOT / "platformio.ini", folder)
    (folder / "host/bitloop").mkdir(parents=True)
    shutil.copy(ROOT / "host/bitloop/__init__.py", folder / "host/bitloop")
    for name, old, new in _CHANGES:
        text = (folder / name).read_text(encoding="utf-8")
        if text.count(old) != 1:
            raise RuntimeError(f"{name} has {text.count(old)} times {old!r}, once was expected")
        (folder / name).write_text(text.replace(old, new), encoding="utf-8")
    lay_scons(folder / ".pio/core")
    command = [sys.executable, "-m", "platformio", "run", "-e", ENVIRONMENT]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=BUILD_S)
    if done.returncode != 0:
        raise RuntimeError(f"pio run failed: {done.stdout}{done.stderr}")
    return folder / ".pio/build" / ENVIRONMENT / "firmware.elf"
