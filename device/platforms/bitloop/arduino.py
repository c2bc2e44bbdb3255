"""What an Arduino core for AVR adds to a build: its headers, its sources as a library, a step after linking. Used by builder/main.py."""

from __future__ import annotations

import os
import struct
import subprocess
import tempfile
from pathlib import Path
from typing import Any

CORE_C_FLAGS = ("-std=gnu11",)
CXX_FLAGS = ("-std=gnu++11", "-fno-exceptions", "-fno-threadsafe-statics")
"""As in the core's own platform.txt."""

# out SPH, rN / out SREG, r0 / out SPL, rN: as opcodes, and their bits that say which register
_OUT_SPH, _OUT_SREG_R0, _OUT_SPL, _ANY_REGISTER = 0xBE0E, 0xBE0F, 0xBE0D, 0x01F0


def add_core(env: Any, arduino: dict[str, str]) -> None:
    """Compile sketches in C++ from now on, and link the core.

    Args:
        env: SCons's environment of the build, complete but for this.
        arduino: folders "core" and "variant" of an installed Arduino core.
    """
    env.Replace(CXX=env["CC"].removesuffix("gcc") + "g++", LINK="$CXX")
    env.Append(CXXFLAGS=list(CXX_FLAGS), CPPPATH=[arduino["core"], arduino["variant"]])
    core = env.Clone()
    core.Replace(CFLAGS=list(CORE_C_FLAGS))
    core.Append(CCFLAGS=["-w"])  # not ours: as its platform.txt has it
    kept = [each for each in core["CPPDEFINES"] if not str(each).startswith("('BL_FIRMWARE")]  # else all is built anew
    core.Replace(CPPDEFINES=[*kept, ("DECIMAL_DIG", "__DECIMAL_DIG__")])  # which GCC before 7 hides from C++11
    sources = ["+<*>", "-<wiring_pulse.*>"]  # a .c and a .S of one name, whose objects would be one file; not needed
    library = core.BuildLibrary(os.path.join("$BUILD_DIR", "arduino_core"), arduino["core"], sources)
    env.Prepend(LIBS=[library])


def stack_pointer_first(code: bytes) -> bytes:
    """Exchange two instructions wherever GCC sets the stack pointer, so that interrupts come on after its second half.

    GCC lets them on between the halves: no AVR takes one before the instruction that follows (DS40002211, 7.8). QEMU
    does, and what the interrupt pushes then lands in the middle of what is in use. Either order is right on a chip.

    Args:
        code: of an ELF file's section ``.text``.

    Returns:
        As many bytes.
    """
    words = list(struct.unpack(f"<{len(code) // 2}H", code))
    for i in range(len(words) - 2):
        first, second, third = words[i : i + 3]
        if (first & ~_ANY_REGISTER, second, third & ~_ANY_REGISTER) == (_OUT_SPH, _OUT_SREG_R0, _OUT_SPL):
            words[i + 1], words[i + 2] = third, second
    return struct.pack(f"<{len(words)}H", *words)


def mend_stack_pointer(target: Any, source: Any, env: Any) -> None:  # noqa: ARG001 - SCons calls it by these names
    """Do so in a linked firmware."""
    elf, objcopy = str(target[0]), env.subst("$OBJCOPY")
    with tempfile.TemporaryDirectory() as folder:
        section = Path(folder) / "text"
        subprocess.run([objcopy, "-O", "binary", "-j", ".text", elf, section], check=True)
        section.write_bytes(stack_pointer_first(section.read_bytes()))
        subprocess.run([objcopy, "--update-section", f".text={section}", elf], check=True)
