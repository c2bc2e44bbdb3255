"""The LX106's own ways: its exceptions, its reset, its counter; shown by firmware that has been made to go wrong."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from bitloop.firmware.scons import lay_scons
from bitloop.link.session import Session
from bitloop.spec import ResetCause

from .conftest import TIMING

ROOT = Path(__file__).resolve().parents[2]
RAM = 0x60000000

# What is done instead of serving, once, is chosen by the arena's cap: one firmware shows it all.
MISCHIEF = r"""
static volatile uint32_t nothing;
static volatile uint32_t kept = 7;

__attribute__((noinline)) static void store(volatile uint32_t address)
{
    *(volatile uint32_t *)address = 1;
}

__attribute__((noinline)) static void load(volatile uint32_t address)
{
    nothing = *(volatile uint16_t *)address;
}

__attribute__((noinline)) static uint32_t recurse(uint32_t depth)
{
    volatile uint32_t frame[16];

    frame[depth % 16u] = depth;
    return depth == 0 ? 0 : recurse(depth - 1u) + frame[depth % 16u];
}

__attribute__((noinline)) static void loop(uint32_t turns)
{
    uint8_t text[40], *at;
    uint64_t begin = board_ticks(NULL), end;

    __asm__ volatile("1: nop\n\tnop\n\tnop\n\taddi %0, %0, -1\n\tbnez %0, 1b" : "+a"(turns));
    end = board_ticks(NULL);
    at = bl_text_put_word(text, "took=", (uint32_t)((end - begin) >> 32));
    at = bl_text_put_word(at, "", (uint32_t)(end - begin));
    *at++ = 0;
    uart16550_write(NULL, text, (size_t)(at - text));
}

static void misbehave(void)
{
    uint32_t choice = *(const volatile uint32_t *)&bl_port_arena_cap;

    if (kept != 7) {
        store(8); /* .data has not been filled: the board never comes to serve */
    }
    kept = 8;
    if (boot.boots > 1) {
        return;
    }
    switch (choice) {
    case 1001: store((uint32_t)__bl_arena_start + 2u); break;
    case 1002: load((uint32_t)__bl_arena_start + 1u); break;
    case 1003: store(8); break;
    case 1004: nothing = recurse(100000); break;
    case 1005: nothing = 7u / nothing; break;
    case 1006: ((void (*)(void))(nothing + 8u))(); break;
    case 1007: loop(1); loop(1001); loop(50000001); break;
    default: break;
    }
}

"""
CHANGES = (
    ("static void fill_port(void)\n", MISCHIEF + "static void fill_port(void)\n"),
    ("    uart16550_interrupts_on();\n", "    uart16550_interrupts_on();\n    misbehave();\n"),
    ('#include "bl_stack.h"\n', '#include "bl_stack.h"\n#include "bl_text.h"\n'),
)


@pytest.fixture(scope="module")
def mischievous(tmp_path_factory: pytest.TempPathFactory, url_of: Callable[[str], str]) -> Path:
    """The firmware of the LX106, changed."""
    url_of("lx106")
    folder = tmp_path_factory.mktemp("mischievous")
    shutil.copytree(ROOT / "device", folder / "device")
    shutil.copy(ROOT / "platformio.ini", folder)
    (folder / "host/bitloop").mkdir(parents=True)
    shutil.copy(ROOT / "host/bitloop/__init__.py", folder / "host/bitloop")
    source = folder / "device/ports/shared/uart16550_main.c"
    text = source.read_text()
    for old, new in CHANGES:
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    source.write_text(text)
    lay_scons(folder / ".pio/core")
    command = [sys.executable, "-m", "platformio", "run", "-e", "qemu_lx106"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder / ".pio/build/qemu_lx106/firmware.elf"


def address_of(elf: Path, name: str) -> int:
    with elf.open("rb") as file:
        (symbol,) = ELFFile(file).get_section_by_name(".symtab").get_symbol_by_name(name)
    return int(symbol["st_value"])


def name_at(elf: Path, address: int) -> str:
    """Give the function that an instruction is in."""
    with elf.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        functions = [each for each in table.iter_symbols() if each["st_info"]["type"] == "STT_FUNC"]
    return str(next(each.name for each in functions if 0 <= address - each["st_value"] < each["st_size"]))


def last_words(elf: Path, choice: int) -> tuple[dict[str, int], int, ResetCause]:
    """Give what an exception's line says, how often the board has booted then, and why."""
    raw = bytearray()
    with Session(f"qemu://lx106?elf={elf}&arena={choice}", timing=TIMING, on_raw=raw.extend) as session:
        info = session.connect()
    (line,) = re.findall(rb"bitloop: exception ([^\r\n]*)\r\n", bytes(raw))
    return (
        {name.decode(): int(value, 16) for name, value in re.findall(rb"(\w+)=([0-9a-f]{8})", line)},
        info.boot_count,
        info.reset_cause,
    )


# Causes: Xtensa ISA Reference Manual, table 4-64.
@pytest.mark.parametrize(
    ("choice", "cause", "where"),
    [
        pytest.param(1001, 9, "store", id="store at an odd word"),
        pytest.param(1002, 9, "load", id="load at an odd half word"),
        pytest.param(1003, 15, "store", id="store where nothing is"),
        pytest.param(1004, 15, "recurse", id="stack overflow"),
        pytest.param(1005, 0, None, id="division by zero"),
        pytest.param(1006, 14, None, id="jump to where nothing is"),
    ],
)
def test_an_exception_is_told_counted_and_ends_in_a_reset(
    mischievous: Path, choice: int, cause: int, where: str | None
) -> None:
    words, boots, reset_cause = last_words(mischievous, choice)
    assert set(words) == {"exccause", "epc1", "excvaddr", "sp"}
    assert (words["exccause"], boots, reset_cause) == (cause, 2, ResetCause.FAULT)
    arena = address_of(mischievous, "__bl_arena_start")
    addresses = {1001: arena + 2, 1002: arena + 1, 1003: 8, 1006: 8}
    if choice in addresses:
        assert words["excvaddr"] == addresses[choice]
    if where is not None:
        assert name_at(mischievous, words["epc1"]) == where
    if where == "recurse":
        assert words["excvaddr"] < RAM  # the stack lies at the bottom of the RAM
        assert words["sp"] < RAM
    else:
        assert address_of(mischievous, "__bl_stack_low") < words["sp"] < address_of(mischievous, "__bl_stack_top")


@pytest.mark.parametrize("shift", [3, 5, 10])
def test_a_loop_of_known_length_takes_so_many_instructions(mischievous: Path, shift: int) -> None:
    """Five instructions a turn. The long one takes the counter over several of its turns at shift 10 (2^32 ticks)."""
    raw = bytearray()
    url = f"qemu://lx106?elf={mischievous}&arena=1007&icount={shift}"
    with Session(url, timing=TIMING, on_raw=raw.extend) as session:
        info = session.connect()
    assert info.instructions_per_tick is not None
    took = [int(each, 16) * info.instructions_per_tick for each in re.findall(rb"took=([0-9a-f]{16})", bytes(raw))]
    assert info.instructions_per_tick == pytest.approx(1e9 / (40e6 * 2**shift))
    assert len(took) == 3
    tick = max(1.0, info.instructions_per_tick)  # readings are cut to whole ticks, of up to 3 instructions
    assert took[1] - took[0] == pytest.approx(5 * 1000, abs=2 * tick)
    # Bytes from the host come meanwhile, and at shift 10 the timer: some hundred instructions each.
    assert took[2] - took[0] == pytest.approx(5 * 50_000_000, abs=10_000)
    turns = took[2] / info.instructions_per_tick / 2**32
    assert turns > 2 if shift == 10 else turns < 1
