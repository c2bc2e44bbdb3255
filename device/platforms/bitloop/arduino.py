"""What an Arduino core adds to a build: its headers, and its sources as a library. Used by builder/main.py."""

from __future__ import annotations

import os
from typing import Any

CORE_C_FLAGS = ("-std=gnu11",)
CXX_FLAGS = ("-std=gnu++11", "-fno-exceptions", "-fno-threadsafe-statics")
"""As in the core's own platform.txt."""


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
