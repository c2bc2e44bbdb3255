"""The port riscv_virt: its counter counts instructions, its memory is protected, a fault is told and counted."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile

from bitloop.boards import find_board
from bitloop.data.dataset import Images
from bitloop.errors import DeviceResetError, LinkError
from bitloop.firmware.build import firmware_elf
from bitloop.link.session import Session
from bitloop.link.transport import SerialTransport
from bitloop.link.urls.protocol_qemu import arguments_of
from bitloop.plan.planner import plan
from bitloop.quantize.model import Model
from bitloop.spec import ResetCause

from .conftest import TIMING

Models = Callable[..., Model]
UrlOf = Callable[[str], str]

CODE, RAM = 0x80000000, 0x80100000
INSTRUCTION_FAULT, ILLEGAL_INSTRUCTION, LOAD_FAULT, STORE_FAULT = 1, 2, 5, 7
FAULTS = {1: "instruction access fault", 2: "illegal instruction", 5: "load access fault", 7: "store access fault"}
"""Values of mcause: privileged ISA 1.11, table 3.6."""

TURNS = 1000
COUNT = f"""
    .globl _start
_start:
    li t0, {TURNS}
    csrr s2, minstret
1:  addi t0, t0, -1
    nop
    nop
    nop
    bnez t0, 1b
    csrr s3, minstret
    sub s3, s3, s2
    li s0, 0x10000000 /* the UART: eight hexadecimal digits */
    li t2, 8
2:  srli t1, s3, 28
    slli s3, s3, 4
    addi t1, t1, '0'
    li t3, '9'
    ble t1, t3, 3f
    addi t1, t1, 'a' - '9' - 1
3:  sb t1, 0(s0)
    addi t2, t2, -1
    bnez t2, 2b
    li t0, 0x100000 /* the machine ends */
    li t1, 0x5555
    sw t1, 0(t0)
4:  j 4b
"""
INSTRUCTIONS = 5 * TURNS + 1
"""Of the loop, and the reading that it begins after."""


@pytest.mark.parametrize("shift", [0, 3, 6])
def test_the_counter_counts_virtual_nanoseconds(shift: int, url_of: UrlOf, tmp_path: Path) -> None:
    """With 10^9 ticks a second, instructions = ticks * 10^9 / (ticks_per_second * 2^shift) is then true to the last."""
    url_of("rv32imc")
    emulator = find_board("rv32imc").emulator
    assert emulator is not None
    (tmp_path / "count.S").write_text(COUNT)
    elf = tmp_path / "count.elf"
    compiler = ["riscv64-unknown-elf-gcc", "-march=rv32imc", "-mabi=ilp32", "-misa-spec=2.2", "-nostdlib"]
    subprocess.run([*compiler, f"-Wl,-Ttext={CODE:#x}", "-o", elf, tmp_path / "count.S"], check=True, timeout=60)
    arguments = arguments_of(emulator, elf, shift, 0, 0)
    ours = arguments[: arguments.index("-chardev")]
    command = [emulator.program, *ours, "-serial", "stdio"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=True, timeout=60)
    assert int(done.stdout, 16) == INSTRUCTIONS << shift


def symbols(elf: Path) -> dict[str, int]:
    with elf.open("rb") as file:
        table = ELFFile(file).get_section_by_name(".symtab")
        return {symbol.name: symbol["st_value"] for symbol in table.iter_symbols()}


@pytest.fixture
def with_code(url_of: UrlOf, tmp_path: Path) -> Callable[..., str]:
    """Give the URL of the firmware with other instructions where it reads its counter, which each run does."""

    def url(*instructions: int) -> str:
        base = url_of("rv32imc")
        elf = tmp_path / "firmware.elf"
        shutil.copy(firmware_elf("qemu_rv32imc"), elf)
        with elf.open("r+b") as file:
            text = ELFFile(file).get_section_by_name(".text")
            file.seek(text["sh_offset"] + symbols(elf)["board_ticks"] - text["sh_addr"])
            file.write(b"".join(instruction.to_bytes(4, "little") for instruction in instructions))
        return f"{base}?elf={elf}"

    return url


def fault(url: str, model: Model, images: Images) -> dict[str, int]:
    """Run an image, which ends in a fault; give the registers that the device tells."""
    said = bytearray()
    transport = SerialTransport(url)
    with Session(transport, timing=TIMING, on_raw=said.extend) as session:
        made = plan(model, session.connect(), slots=4)
        session.upload(made.image, made.memory.total_bytes)
        with pytest.raises(
            LinkError, match=r"the device restarted during the run \(boot 1 → 2, cause: fault\)"
        ) as caught:
            list(session.run(images.pixels[:1]))
        info = session.connect()
        assert (info.boot_count, info.reset_cause) == (2, ResetCause.FAULT)
        transport.port.control("system_reset")
        info = session.connect()
        assert (info.boot_count, info.reset_cause) == (3, ResetCause.UNKNOWN)
    found = re.search(rb"bitloop: trap mcause=(\w{8}) mepc=(\w{8}) mtval=(\w{8}) sp=(\w{8})\r\n", said)
    assert found, bytes(said)
    told = dict(zip(("mcause", "mepc", "mtval", "sp"), (int(word, 16) for word in found.groups()), strict=True))
    assert isinstance(caught.value, DeviceResetError)
    assert f"{found[0].decode().strip()} ({FAULTS[told['mcause']]}; " in caught.value.panic
    return told


def test_an_illegal_instruction_is_told(with_code: Callable[..., str], models: Models, drawn_images: Images) -> None:
    told = fault(with_code(0x00000000), models("mlp8k", "int4"), drawn_images)
    at = symbols(firmware_elf("qemu_rv32imc"))
    assert (told["mcause"], told["mepc"]) == (ILLEGAL_INSTRUCTION, at["board_ticks"])
    assert at["__bl_stack_low"] < told["sp"] < at["__bl_stack_top"]


def test_a_stack_that_overflows_stops_at_its_end(
    with_code: Callable[..., str], models: Models, drawn_images: Images
) -> None:
    """The first word below it is not written; what is told comes from a stack that is empty again."""
    endless = with_code(
        0xFF010113,  # addi sp, sp, -16
        0x00112023,  # sw ra, 0(sp)
        0xFF9FF06F,  # j -8
    )
    told = fault(endless, models("mlp8k", "int4"), drawn_images)
    at = symbols(firmware_elf("qemu_rv32imc"))
    assert (told["mcause"], told["mepc"]) == (STORE_FAULT, at["board_ticks"] + 4)
    assert told["mtval"] == told["sp"] == at["__bl_stack_low"] - 16


@pytest.mark.parametrize(
    ("instructions", "cause_and_address"),
    [
        pytest.param((0x800002B7, 0x0002A023), (STORE_FAULT, CODE), id="write-code"),  # lui t0, 0x80000; sw zero, 0(t0)
        pytest.param((0x801002B7, 0x00028067), (INSTRUCTION_FAULT, RAM), id="run-data"),  # lui t0, 0x80100; jr t0
        pytest.param((0x00002283,), (LOAD_FAULT, 0), id="read-null"),  # lw t0, 0(zero)
        pytest.param((0x00000067,), (INSTRUCTION_FAULT, 0), id="call-null"),  # jr zero
    ],
)
def test_memory_is_protected(
    instructions: tuple[int, ...],
    cause_and_address: tuple[int, int],
    with_code: Callable[..., str],
    models: Models,
    drawn_images: Images,
) -> None:
    told = fault(with_code(*instructions), models("mlp8k", "int4"), drawn_images)
    assert (told["mcause"], told["mtval"]) == cause_and_address


def test_a_reset_counts_boots(url_of: UrlOf) -> None:
    transport = SerialTransport(url_of("rv32imc"))
    with Session(transport, timing=TIMING) as session:
        for boot in (1, 2, 3):
            info = session.connect()
            assert (info.boot_count, info.reset_cause) == (boot, ResetCause.UNKNOWN)
            transport.port.control("system_reset")
