"""Builds one firmware with the compilers that are on the path; PlatformIO runs this through SCons.

A board's manifest, boards/<environment>.json, says under "build":
    port            folder of device/ports
    toolchain       prefix of the tools, e.g. "arm-none-eabi-"
    cpu_flags       for compiling and linking
    defines         macros, "NAME" or "NAME=VALUE"
    ldscript        linker script, from the port's folder
    arduino         folders "core" and "variant" of an Arduino core that brings start-up code and a linker script, to
                    which ldscript then adds (optional; arduino.py)
    libraries       for the linker, e.g. ["c", "gcc"]
    extra_flags     for compiling, after all others; PlatformIO adds them itself
    link_flags      for linking (optional)
    stack           interrupts, for the bound of the stack; the host reads it (docs/device.md)
and under "upload" the chip's maximum_ram_size and maximum_size.
"""

import json
import sys
from pathlib import Path

from SCons.Script import Default, DefaultEnvironment

env = DefaultEnvironment()
sys.dont_write_bytecode = True  # nothing but sources lies in device/: the wheel carries all of it
sys.path.insert(0, env.PioPlatform().get_dir())

import arduino  # noqa: E402 - these lie beside platform.json, which PlatformIO does not put on the path
import identity  # noqa: E402
import upload  # noqa: E402

board = env.BoardConfig()
build = board.get("build")
device = Path(env.subst("$PROJECT_SRC_DIR"))
port_dir = device / "ports" / build["port"]
tools = build["toolchain"]
cpu_flags = build.get("cpu_flags", [])

env.Replace(
    CC=f"{tools}gcc",
    AS=f"{tools}as",
    AR=f"{tools}gcc-ar",
    RANLIB=f"{tools}gcc-ranlib",
    OBJCOPY=f"{tools}objcopy",
    SIZETOOL=f"{tools}size",
    ARFLAGS=["rc"],
    PROGNAME="firmware",
    PROGSUFFIX=".elf",
    SIZECHECKCMD="$SIZETOOL -A -d $SOURCES",
    SIZEPROGREGEXP=r"^(?:\.vectors|\.isr_vector|\.init|\.text|\.rodata|\.data)\s+(\d+).*",
    SIZEDATAREGEXP=r"^(?:\.data|\.bss|\.noinit)\s+(\d+).*",
    SRC_FILTER=["+<core/>", "+<ports/shared/>", f"+<ports/{build['port']}/>"],
)
env.Append(
    ASPPFLAGS=["-x", "assembler-with-cpp", *cpu_flags],
    CCFLAGS=[*cpu_flags, "-O2", *identity.COMPILE_FLAGS],
    CFLAGS=["-std=c11"],
    CPPDEFINES=[*(tuple(define.split("=", 1)) if "=" in define else define for define in build.get("defines", []))],
    CPPPATH=[str(folder) for folder in identity.include_dirs(device, build["port"])],
    LINKFLAGS=[
        *cpu_flags,
        *identity.LINK_FLAGS,
        "-Wl,-Map=${BUILD_DIR}/${PROGNAME}.map",
        *build.get("link_flags", []),
    ],
    LIBS=build.get("libraries", []),
    SRC_BUILD_FLAGS=list(identity.WARNINGS),
)
firmware_hash, firmware_version = identity.identity_defines(device, build["port"])
env.Append(CPPDEFINES=[firmware_hash, (firmware_version[0], env.StringifyMacro(firmware_version[1]))])

script = (port_dir / build["ldscript"]).resolve()
if "arduino" in build:
    arduino.add_core(env, build["arduino"])
    env.Replace(LDSCRIPT_PATH="")
    env.Append(LINKFLAGS=[str(script)])
else:
    env.Replace(LDSCRIPT_PATH=str(script))
    env.Append(LINKFLAGS=["-nostartfiles"])

program = env.BuildProgram()
env.Depends(program, env.File(str(script)))
if "arduino" in build:
    env.AddPostAction(program, env.VerboseAction(arduino.mend_stack_pointer, "Ordering stack pointer writes in $TARGET"))

wanted = json.dumps(identity.stamp(device, Path(env.subst("$PROJECT_DIR")), env.subst("$PIOENV")), indent=2) + "\n"


def write_stamp(target, source, env):  # noqa: ANN001, ANN201, ARG001 - SCons calls it by these names
    """Say beside the firmware what it was built from."""
    Path(str(target[0])).write_text(wanted, encoding="utf-8")


manifest = identity.board_manifest(env.subst("$BOARD"))
images = {
    suffix: env.Command(
        f"${{BUILD_DIR}}/${{PROGNAME}}{suffix}",
        program,
        env.VerboseAction([["$OBJCOPY", *upload.OBJCOPY_FLAGS[suffix], "$SOURCE", "$TARGET"]], "Making $TARGET"),
    )
    for suffix in upload.images(manifest)
}
stamp = env.Command(
    "$BUILD_DIR/firmware.json",
    [program, *images.values(), env.Value(wanted)],
    env.VerboseAction(write_stamp, "Noting $TARGET"),
)
Default(
    [
        env.Alias("buildprog", [program, stamp]),
        env.Alias("size", program, env.VerboseAction("$SIZETOOL -B -d $SOURCE", "Sizes")),
    ]
)

protocol = env.subst("$UPLOAD_PROTOCOL")  # the manifest's usual one, unless platformio.ini names another
if protocol in upload.protocols(manifest):
    way = upload.PROTOCOLS[protocol]
    write = env.VerboseAction([upload.command(manifest, protocol, "$SOURCE", "$UPLOAD_PORT")], "Uploading $SOURCE")
    look = [env.VerboseAction(env.AutodetectUploadPort, "Looking for the port")] if way.over_serial else []
    env.AddPlatformTarget("upload", [images.get(way.suffix, program), stamp], [*look, write], "Upload")
