"""The step after linking for AVR: both halves of the stack pointer are written before interrupts come on."""

from __future__ import annotations

import importlib.util
import re
import struct
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

from bitloop.firmware import find
from bitloop.firmware.build import firmware_elf

PLATFORM = Path(__file__).resolve().parents[2] / "device/platforms/bitloop"

# Encodings by the AVR instruction set manual (DS40002198): OUT A, Rr is 1011 1AAr rrrr AAAA.
IN_R0_SREG, CLI, OUT_SREG_R0, OUT_SREG_R24 = 0xB60F, 0x94F8, 0xBE0F, 0xBF8F
OUT_SPH_R29, OUT_SPL_R28, OUT_SPH_R31, OUT_SPL_R30 = 0xBFDE, 0xBFCD, 0xBFFE, 0xBFED


@pytest.fixture(scope="module")
def arduino() -> ModuleType:
    spec = importlib.util.spec_from_file_location("arduino_of_the_platform", PLATFORM / "arduino.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            (IN_R0_SREG, CLI, OUT_SPH_R29, OUT_SREG_R0, OUT_SPL_R28, 0),
            (IN_R0_SREG, CLI, OUT_SPH_R29, OUT_SPL_R28, OUT_SREG_R0, 0),
        ),
        ((OUT_SPH_R31, OUT_SREG_R0, OUT_SPL_R30), (OUT_SPH_R31, OUT_SPL_R30, OUT_SREG_R0)),
        ((OUT_SPH_R29, OUT_SREG_R24, OUT_SPL_R28), (OUT_SPH_R29, OUT_SREG_R24, OUT_SPL_R28)),
        ((OUT_SPH_R29, OUT_SPL_R28, OUT_SREG_R0), (OUT_SPH_R29, OUT_SPL_R28, OUT_SREG_R0)),
        ((OUT_SREG_R0, OUT_SPL_R28), (OUT_SREG_R0, OUT_SPL_R28)),
    ],
)
def test_only_the_writes_of_a_stack_pointer_are_exchanged(
    arduino: ModuleType, before: tuple[int, ...], after: tuple[int, ...]
) -> None:
    def code(words: tuple[int, ...]) -> bytes:
        return struct.pack(f"<{len(words)}H", *words)

    assert arduino.stack_pointer_first(code(before)) == code(after)


def test_a_firmware_never_has_half_a_stack_pointer_with_interrupts_on() -> None:
    missing = find.missing_to_build("qemu_mega2560")
    if missing:
        pytest.skip(f"needs {'; '.join(map(str, missing))}; {find.SETUP} installs it")
    elf = firmware_elf("qemu_mega2560")
    code = subprocess.run(["avr-objdump", "-d", elf], capture_output=True, text=True, check=True).stdout
    outs = re.findall(r"^ +\w+:\t[0-9a-f ]+\t(.*?)(?:\t;.*)?$", code, re.MULTILINE)
    high = [i for i, each in enumerate(outs) if each.startswith("out\t0x3e,")]
    assert len(high) > 20  # GCC makes frames
    assert all(outs[i + 1].startswith("out\t0x3d,") or outs[i - 1].startswith("out\t0x3d,") for i in high)
