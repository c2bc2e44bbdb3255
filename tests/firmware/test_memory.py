"""What an ELF file says of a chip's memory, against sizes that are counted by hand."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bitloop.boards import BOARDS
from bitloop.errors import ToolchainError
from bitloop.firmware import elf, find, memory
from bitloop.firmware.build import firmware_elf
from bitloop.link.urls.arena_cap import with_arena_cap

COMPILER = "arm-none-eabi-gcc"
BUILT_HERE = [board.environment for board in BOARDS if board.environment and find.is_local(board.environment)]

# 64 bytes of code and constants, .data of 12, .bss of 20, .noinit of 8, a stack of 256, 1,000 bytes of arena.
SOURCE = """
__attribute__((section(".text"), used)) const unsigned char code[48] = {1};
__attribute__((section(".text"), used)) const unsigned bl_port_arena_cap = %s;
__attribute__((section(".text"), used)) static const unsigned last[3] = {1};
__attribute__((used)) unsigned data[3] = {1, 2, 3};
__attribute__((used)) unsigned bss[5];
__attribute__((section(".noinit,\\"aw\\",%%nobits@"), used)) unsigned noinit[2];
"""
SCRIPT = """
SECTIONS
{
    .text 0x1000 : { *(.text) }
    .stack 0x20000000 (NOLOAD) : { __bl_stack_low = .; . += 256; __bl_stack_top = .; }
    .data : AT(0x1040) { __bl_static_start = .; *(.data) }
    .bss (NOLOAD) : { *(.bss) }
    .noinit (NOLOAD) : { *(.noinit) __bl_static_end = .; }
    %s
    /DISCARD/ : { *(.comment) *(.ARM.attributes) }
}
"""
ARENA = ".arena (NOLOAD) : { __bl_arena_start = .; . += 1000; __bl_arena_end = .; }"


def linked(folder: Path, *, cap: str = "0xFFFFFFFFu", arena: str = ARENA) -> Path:
    if shutil.which(COMPILER) is None:
        pytest.skip(f"{COMPILER} is not here; {find.SETUP} installs it")
    (folder / "all.c").write_text(SOURCE % cap, encoding="utf-8")
    (folder / "all.ld").write_text(SCRIPT % arena, encoding="utf-8")
    out = folder / "firmware.elf"
    command = [COMPILER, "-mcpu=cortex-m3", "-mthumb", "-nostdlib", "-T", "all.ld", "-Wl,-e,0", "all.c", "-o", str(out)]
    subprocess.run(command, cwd=folder, check=True)
    return out


def test_memory_by_hand(tmp_path: Path) -> None:
    found = memory.static_memory(linked(tmp_path))
    assert found == memory.StaticMemory(
        static_bytes=12 + 20 + 8, arena_bytes=1000, stack_bytes=256, flash_bytes=64 + 12
    )


@pytest.mark.parametrize(("cap", "arena_bytes"), [("403", 400), ("999", 996), ("1000", 1000), ("4096", 1000), ("0", 0)])
def test_the_cap_limits_the_arena_to_whole_words(tmp_path: Path, cap: str, arena_bytes: int) -> None:
    assert memory.static_memory(linked(tmp_path, cap=cap)).arena_bytes == arena_bytes


def test_the_cap_that_an_emulator_is_given_is_read(tmp_path: Path) -> None:
    path = linked(tmp_path)
    path.write_bytes(with_arena_cap(path.read_bytes(), 512))
    assert memory.static_memory(path).arena_bytes == 512


def test_an_arena_among_the_statics_does_not_count_as_static(tmp_path: Path) -> None:
    """As on a board whose linker script is not ours: the arena is an array in .bss, here 16 of its 20 bytes."""
    inside = "__bl_arena_start = ADDR(.bss); __bl_arena_end = ADDR(.bss) + 16;"
    found = memory.static_memory(linked(tmp_path, arena=inside))
    assert (found.static_bytes, found.arena_bytes) == (12 + 4 + 8, 16)


def test_an_arena_that_overlaps_the_statics_is_refused(tmp_path: Path) -> None:
    overlapping = "__bl_arena_start = ADDR(.noinit) + 4; __bl_arena_end = ADDR(.noinit) + 100;"
    with pytest.raises(ToolchainError, match="partly among the statics"):
        memory.static_memory(linked(tmp_path, arena=overlapping))


def test_what_is_no_firmware_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="cannot be read"):
        memory.static_memory(tmp_path / "missing.elf")
    (tmp_path / "text.elf").write_bytes(b"no ELF file")
    with pytest.raises(ToolchainError, match="no ELF file"):
        memory.static_memory(tmp_path / "text.elf")
    with pytest.raises(ToolchainError, match="lacks the symbol __bl_arena_start"):
        memory.static_memory(linked(tmp_path, arena=""))
    backwards = "__bl_arena_end = .; . += 8; __bl_arena_start = .;"
    with pytest.raises(ToolchainError, match="lies below"):
        memory.static_memory(linked(tmp_path, arena=backwards))


def test_symbols_say_where_they_lie(tmp_path: Path) -> None:
    found = elf.symbols(linked(tmp_path))
    assert (found["data"].address, found["data"].size, found["data"].section) == (0x20000100, 12, ".data")
    assert (found["bss"].kind, found["bss"].is_global, found["last"].is_global) == ("object", True, False)


@pytest.mark.parametrize("environment", BUILT_HERE)
def test_real_firmware_fits_its_chip(environment: str) -> None:
    missing = find.missing_to_build(environment)
    if missing:
        pytest.skip(f"{environment} needs {'; '.join(map(str, missing))}; {find.SETUP} installs it")
    board = next(board for board in BOARDS if board.environment == environment)
    try:
        found = memory.static_memory(firmware_elf(environment))
    except ToolchainError as error:
        if "no firmware yet" not in str(error):
            raise
        pytest.skip(str(error))
    assert found.static_bytes + found.arena_bytes + found.stack_bytes <= board.ram_bytes
    assert 0 < found.flash_bytes <= (board.flash_bytes or board.ram_bytes)
