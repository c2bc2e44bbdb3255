"""The core compiles without a warning wherever it is to run, and stands on no board, heap or stdio."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from bitloop.native import device_dir

CORE = sorted((device_dir() / "core").glob("*.c"))
NATIVE = sorted((device_dir() / "ports" / "native").glob("*.c"))
STRICT = ("-Wall", "-Wextra", "-Werror", "-pedantic", "-Wconversion", "-Wshadow", "-Wundef", "-Wdouble-promotion")


def compile_all(command: list[str], sources: list[Path], scratch: Path) -> None:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    for source in sources:
        done = subprocess.run(
            [*command, "-c", str(source), "-o", str(scratch / f"{source.stem}.o")],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_c11_without_warnings(compiler: str, tmp_path: Path) -> None:
    compile_all([compiler, "-std=c11", "-O2", "-ffp-contract=off", *STRICT], CORE, tmp_path)
    compile_all([compiler, "-std=c11", "-O2", "-ffp-contract=off", *STRICT[:4]], NATIVE, tmp_path)


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
@pytest.mark.parametrize("standard", ["c++17", "gnu++17"])
def test_as_cplusplus_for_arduino(compiler: str, standard: str, tmp_path: Path) -> None:
    compile_all([compiler, "-x", "c++", f"-std={standard}", "-O2", *STRICT[:4]], CORE, tmp_path)


@pytest.mark.parametrize(
    "command",
    [
        ["arm-none-eabi-gcc", "-mcpu=cortex-m3", "-mthumb"],
        ["arm-none-eabi-gcc", "-mcpu=cortex-m4", "-mthumb", "-mfloat-abi=hard", "-mfpu=fpv4-sp-d16"],
        ["riscv64-unknown-elf-gcc", "-march=rv32imc", "-mabi=ilp32", "-misa-spec=2.2", "--specs=picolibc.specs"],
        ["avr-gcc", "-mmcu=atmega2560"],
        ["xtensa-lx106-elf-gcc", "-mlongcalls", "-ffreestanding"],
    ],
    ids=lambda command: command[0] + command[1],
)
def test_for_small_boards(command: list[str], tmp_path: Path) -> None:
    if "-ffreestanding" in command:  # a compiler without a C library: the port brings the four memory functions
        (tmp_path / "string.h").write_text(
            "#include <stddef.h>\n"
            "void *memcpy(void *, const void *, size_t);\n"
            "void *memmove(void *, const void *, size_t);\n"
            "void *memset(void *, int, size_t);\n"
            "int memcmp(const void *, const void *, size_t);\n"
        )
        command = [*command, f"-I{tmp_path}"]
    compile_all([*command, "-std=gnu11", "-Os", "-ffp-contract=off", "-Wall", "-Wextra", "-Werror"], CORE, tmp_path)


@pytest.mark.parametrize("compiler", ["gcc", "clang"])
def test_the_core_asks_for_nothing_but_memory_functions(compiler: str, tmp_path: Path) -> None:
    compile_all([compiler, "-std=c11", "-O2", "-ffreestanding", "-fno-stack-protector"], CORE, tmp_path)
    done = subprocess.run(
        ["nm", *map(str, tmp_path.glob("*.o"))], capture_output=True, text=True, timeout=10, check=True
    )
    symbols = re.findall(r" ([A-Za-z]) (\w+)$", done.stdout, re.MULTILINE)
    defined = {name for kind, name in symbols if kind in "TDBRtdbr"}
    needed = {name for kind, name in symbols if kind == "U"} - defined
    assert needed <= {"memcpy", "memmove", "memset", "memcmp", "_GLOBAL_OFFSET_TABLE_"}
    # Neither variables of its own (all state belongs to the port) nor tables that would be copied to RAM.
    assert not [name for kind, name in symbols if kind in "DdBbCc"]
    assert all(name.startswith("bl_") for kind, name in symbols if kind == "T")


@pytest.mark.parametrize(
    ("compiler", "flags"),
    [("gcc", ["-ffp-contract=fast"]), ("g++", ["-ffp-contract=fast"]), ("g++", []), ("clang", [])],
)
def test_contraction_is_off_without_the_flag(compiler: str, flags: list[str], tmp_path: Path) -> None:
    """With FMA there to be used, the guard in the source holds: against GCC's default too, which is to contract.

    Clang's default is to obey the source; asked for -ffp-contract=fast it does not, which the probe would tell.
    """
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is not installed")
    standard = "gnu++17" if compiler == "g++" else "gnu11"
    for stem in ("bl_engine", "bl_kernels", "bl_probe"):
        assembly = tmp_path / f"{stem}.s"
        language = ["-x", "c++"] if compiler == "g++" else []
        done = subprocess.run(
            [
                *(compiler, *language, f"-std={standard}", "-O3", "-mfma", *flags),
                *("-S", str(device_dir() / "core" / f"{stem}.c"), "-o", str(assembly)),
            ],
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        if "unrecognized" in done.stderr or "unknown argument" in done.stderr or "unsupported option" in done.stderr:
            pytest.skip("this processor has no -mfma")
        assert done.returncode == 0, done.stderr
        text = assembly.read_text()
        assert "mulss" in text
        assert not re.search(r"\bvfn?m(add|sub)", text), stem


def test_wrong_float_settings_do_not_compile(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    source = str(device_dir() / "core" / "bl_probe.c")
    done = subprocess.run(
        ["gcc", "-ffast-math", "-c", source, "-o", str(tmp_path / "o")],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode != 0
    assert "without -ffast-math" in done.stderr


def test_the_port_in_the_guide_compiles_and_links(tmp_path: Path) -> None:
    if shutil.which("gcc") is None:
        pytest.skip("gcc is not installed")
    guide = device_dir().parent / "docs" / "device.md"
    if not guide.is_file():
        pytest.skip("docs/ is not part of an installed package")
    lines = guide.read_text(encoding="utf-8").split("## Writing a port")[1].splitlines()
    begin = next(i for i, line in enumerate(lines) if line.startswith("    static float arena"))
    end = next(i for i, line in enumerate(lines) if line == "    }")
    stubs = """
        #include "bl_server.h"
        enum { ARENA_BYTES = 4096, BODY_BYTES = 64, RING_BYTES = 256 };
        static void board_init(void) {}
        static void wait_for_interrupt(void) {}
        static size_t uart_read(void *c, uint8_t *d, size_t n) { (void)c; (void)d; (void)n; return 0; }
        static void uart_write(void *c, const uint8_t *d, size_t n) { (void)c; (void)d; (void)n; }
        static void uart_flush(void *c) { (void)c; }
        static uint64_t cycle_count(void *c) { (void)c; return 0; }
    """
    source = tmp_path / "port.c"
    source.write_text(stubs + "\n".join(line[4:] for line in lines[begin : end + 1]) + "\n")
    done = subprocess.run(
        [
            *("gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", f"-I{device_dir() / 'core'}", str(source)),
            *(*map(str, CORE), "-o", str(tmp_path / "port")),
        ],
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
