"""qemu:// without an emulator: options, what an emulator is told, and what is said when something is missing or ends.

Programs stand in for the emulator here; tests/qemu has the real ones.
"""

import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from serial import SerialException, serial_for_url

from bitloop.boards import BOARDS, find_board
from bitloop.errors import PortError, ToolchainError
from bitloop.link.transport import SerialTransport
from bitloop.link.urls import cpus, keeper, protocol_qemu
from bitloop.link.urls.arena_cap import with_arena_cap
from bitloop.link.urls.cpus import CpuShare
from bitloop.link.urls.protocol_qemu import Options, arguments_of, options_of

ARM, RISCV = 40, 243


def elf_file(machine=ARM, *, symbol=b"bl_port_arena_cap", address=0x0800_0010, kind=1, index=1):
    """An ELF32 file, little-endian, laid out by hand from the System V ABI: .text at 0x08000000, .symtab, .strtab."""
    names = b"\0.text\0.symtab\0.strtab\0"
    strings = b"\0" + symbol + b"\0" + names
    text = b"\xff" * 32
    symbols = bytes(16) + struct.pack("<IIIBBH", 1, address, 4, 0x11, 0, index)
    at_text, at_symbols = 52, 52 + len(text)
    at_strings = at_symbols + len(symbols)
    base = len(symbol) + 2

    def section(name, kind, *, address=0, offset, size, link=0, info=0, entry=0):
        return struct.pack("<10I", base + names.index(name), kind, 0, address, offset, size, link, info, 4, entry)

    headers = (
        bytes(40)
        + section(b".text", kind, address=0x0800_0000, offset=at_text, size=len(text))
        + section(b".symtab", 2, offset=at_symbols, size=len(symbols), link=3, info=1, entry=16)
        + section(b".strtab", 3, offset=at_strings, size=len(strings))
    )
    head = b"\x7fELF\1\1\1" + bytes(9)
    head += struct.pack(
        "<HHIIIIIHHHHHH", 2, machine, 1, 0x0800_0000, 0, at_strings + len(strings), 0, 52, 32, 0, 40, 4, 3
    )
    return head + text + symbols + strings + headers


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("qemu://stm32f405", Options("stm32f405")),
        ("QEMU://STM32F100/", Options("stm32f100")),
        ("qemu://lx106?arena=8k", Options("lx106", arena_bytes=8192)),
        ("qemu://mega2560?icount=0&elf=/a/b.elf", Options("mega2560", Path("/a/b.elf"), 0)),
        ("qemu://rv32imc?elf=b%20c.elf&icount=10", Options("rv32imc", Path("b c.elf"), 10)),
    ],
)
def test_options(url, options):
    assert options_of(url) == options


@pytest.mark.parametrize(
    ("url", "what"),
    [
        ("qemu://", "names no emulated board; write it as qemu://BOARD"),
        ("qemu://stm32f405/x", "names no emulated board"),
        ("qemu://stm32f405?ram=8k", "unknown option 'ram'; there are elf, icount, arena"),
        ("qemu://stm32f405?arena=8k&arena=9k", "option 'arena' is given twice"),
        ("qemu://stm32f405?arena=0", "'0' is no size; write it as 8192, 8k or 1M"),
        ("qemu://stm32f405?icount=11", "icount '11' is no whole number of 0 to 10"),
        ("qemu://stm32f405?icount=auto", "icount 'auto' is no whole number"),
        ("qemu://stm32f405?arena", "arena"),
    ],
)
def test_wrong_urls(url, what):
    with pytest.raises(SerialException, match=what):
        options_of(url)
    with pytest.raises(PortError, match=what):
        SerialTransport(url)


def test_unknown_boards_are_refused_with_those_that_there_are():
    known = ", ".join(f"qemu://{board.name}" for board in BOARDS if board.emulator)
    for name in ("stm32f999", "esp32dev", "native"):
        with pytest.raises(PortError, match=f"qemu://{name}: there is no such emulated board; there are {known}"):
            SerialTransport(f"qemu://{name}")


def test_a_url_is_a_port_before_it_is_opened():
    port = serial_for_url("qemu://stm32f405", do_not_open=True)
    assert (port.emulation, port.is_open) == (None, False)
    with pytest.raises(SerialException, match="not open"):
        port.control("stop")


def test_arguments_of_the_emulators():
    emulator = find_board("lx106").emulator
    arguments = arguments_of(emulator, Path("a.elf"), 5, 7, 9)
    assert arguments[:6] == ["-M", "lx60", "-cpu", "lx106", "-kernel", "a.elf"]
    assert "shift=5,align=off,sleep=on" in arguments
    assert "socket,id=line,fd=7" in arguments
    assert "socket,id=control,fd=9" in arguments
    assert arguments_of(find_board("mega2560").emulator, Path("a.elf"), 6, 7, 9)[2:4] == ["-bios", "a.elf"]
    assert arguments_of(find_board("rv32imc").emulator, Path("a.elf"), 0, 7, 9)[2:6] == [
        "-bios", "none", "-kernel", "a.elf",
    ]  # fmt: skip


# --- the arena's cap ---


def test_the_cap_is_one_word_of_the_file():
    plain = elf_file()
    capped = with_arena_cap(plain, 0x11223344)
    assert capped[52 + 16 : 52 + 20] == b"\x44\x33\x22\x11"
    assert capped[: 52 + 16] + plain[52 + 16 : 52 + 20] + capped[52 + 20 :] == plain
    assert with_arena_cap(plain, 1 << 40) == plain  # all ones already


@pytest.mark.parametrize(
    ("elf", "what"),
    [
        (b"", "no ELF file"),
        (b"\x7fELF" + bytes(60), "no ELF file|no word"),
        (elf_file(symbol=b"bl_port_arena_gap"), "it has no word bl_port_arena_cap"),
        (elf_file(kind=8), "its word bl_port_arena_cap is not part of the program"),  # .bss
        (elf_file(index=0xFFF1), "is not part of the program"),  # an absolute symbol
        (elf_file(address=0x0800_001D), "lies outside of its section"),
        (elf_file(address=0x0700_0000), "lies outside of its section"),
    ],
)
def test_no_word_to_cap(elf, what):
    with pytest.raises(ValueError, match=what):
        with_arena_cap(elf, 8192)


# --- programs in the emulator's place ---


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Put a shell script into the place of qemu-system-arm; give the URL that starts it."""

    def make(script):
        program = tmp_path / "bin" / "qemu-system-arm"
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
        (tmp_path / "firmware.elf").write_bytes(elf_file())
        return f"qemu://stm32f405?elf={tmp_path / 'firmware.elf'}"

    return make


@pytest.mark.parametrize(
    ("script", "what"),
    [
        (
            "echo 'unsupported machine type' >&2; exit 3",
            "the emulator ended with exit code 3: unsupported machine type",
        ),
        ("echo 'fatal: Lockup' >&2; echo >&2; echo 'R00=0' >&2; kill -ABRT $$", "by signal 6: fatal: Lockup$"),
        ("kill -KILL $$", "the emulator was ended by signal 9"),
        ("exit 0", "the emulator ended with exit code 0"),
    ],
)
def test_an_emulator_that_does_not_start_is_quoted(stand_in, script, what):
    url = stand_in(script)
    before = set(os.listdir("/proc/self/fd"))  # noqa: PTH208
    with pytest.raises(PortError, match=what):
        SerialTransport(url)
    assert set(os.listdir("/proc/self/fd")) == before  # noqa: PTH208


def test_an_emulator_that_says_nothing_is_given_up(stand_in, monkeypatch, tmp_path):
    monkeypatch.setattr(protocol_qemu, "_START_S", 0.5)
    monkeypatch.setattr("bitloop.link.urls.stream_port._END_S", 0.2)
    url = stand_in(f"echo $$ > {tmp_path}/pid; exec sleep 60")
    began = time.monotonic()
    with pytest.raises(PortError, match=r"the emulator did not send its greeting in 0\.5 s"):
        SerialTransport(url)
    assert time.monotonic() - began < 5
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_missing_emulator_is_named_with_its_package(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    words = "needs qemu-system-xtensa, which is not here; scripts/setup-firmware installs it, or: .*qemu-system-misc"
    with pytest.raises(ToolchainError, match=words):
        SerialTransport("qemu://lx106")


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (None, "the firmware cannot be read"),
        (b"\x7fELF", "is no ELF file; name the firmware.elf of a build"),
        (b"\0" * 64, "is no ELF file"),
        (elf_file(RISCV), r"is for another processor \(ELF machine 243, this one is 40\)"),
    ],
)
def test_files_that_are_no_firmware_of_the_board(stand_in, tmp_path, content, what):
    url = stand_in("exit 0")
    elf = tmp_path / "firmware.elf"
    elf.unlink()
    if content is not None:
        elf.write_bytes(content)
    with pytest.raises(PortError, match=what):
        SerialTransport(url)


# --- the keeper ---


def keep(*command, cpu="-"):
    return subprocess.Popen(
        [sys.executable, "-I", "-S", keeper.__file__, cpu, "", *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def process_of(kept):
    return int(kept.stdout.readline())


@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 77", 77), ("kill -KILL $$", -9), ("kill -TERM $$", -15)]
)
def test_the_keeper_ends_as_the_program_does(script, code):
    with keep("sh", "-c", script) as kept:
        assert kept.wait(5) == code


def test_the_keeper_ends_the_program_with_its_input():
    with keep("sleep", "60") as kept:
        program = process_of(kept)
        os.kill(program, 0)
        kept.stdin.close()
        assert kept.wait(5) == -9
        with pytest.raises(ProcessLookupError):
            os.kill(program, 0)


def test_the_keeper_says_when_there_is_no_such_program():
    with keep("/nowhere/qemu") as kept:
        assert kept.wait(5) == 127
        assert b"/nowhere/qemu: " in kept.stderr.read()


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="this system binds no process to a CPU")
def test_the_keeper_binds_the_program_to_its_cpu_and_not_itself():
    allowed = os.sched_getaffinity(0)
    cpu = max(allowed)
    with keep("sleep", "60", cpu=str(cpu)) as kept:
        program = process_of(kept)
        deadline = time.monotonic() + 5
        while os.sched_getaffinity(program) != {cpu} and time.monotonic() < deadline:
            time.sleep(0.01)
        assert os.sched_getaffinity(program) == {cpu}
        assert os.sched_getaffinity(kept.pid) == allowed
        kept.stdin.close()


# --- a CPU for each ---


def test_the_idlest_cpu_that_is_free_is_taken(monkeypatch, tmp_path):
    monkeypatch.setattr(cpus, "_allowed", lambda: [0, 1, 2])
    monkeypatch.setattr(cpus, "_by_load", lambda allowed: [2, 0, 1])
    with CpuShare(tmp_path) as first, CpuShare(tmp_path) as second, CpuShare(tmp_path) as third:
        assert [share.cpu for share in (first, second, third)] == [2, 0, 1]
        with CpuShare(tmp_path) as fourth:
            assert fourth.cpu == 2  # all are taken: the idlest is shared
        second.release()
        second.release()
        with CpuShare(tmp_path) as again:
            assert again.cpu == 0


def test_a_claim_ends_with_its_process(monkeypatch, tmp_path):
    code = "import sys, os, signal; from bitloop.link.urls import cpus; from pathlib import Path\n"
    code += "cpus._by_load = lambda allowed: allowed\nshare = cpus.CpuShare(Path(sys.argv[1]))\n"
    code += "print(share.cpu, flush=True); sys.stdin.read()"
    monkeypatch.setattr(cpus, "_by_load", lambda allowed: allowed)
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        taken = int(other.stdout.readline())
        if len(cpus._allowed()) > 1:
            with CpuShare(tmp_path) as mine:
                assert mine.cpu != taken
        other.kill()
        other.wait(5)
        with CpuShare(tmp_path) as mine:
            assert mine.cpu == taken


def test_busy_cpus_come_last(monkeypatch):
    samples = iter([{0: 100, 1: 500, 2: 7}, {0: 105, 1: 501, 2: 10}])
    monkeypatch.setattr(cpus, "_busy_ticks", lambda: next(samples))
    assert cpus._by_load([0, 1, 2]) == [1, 2, 0]
    monkeypatch.setattr(cpus, "_busy_ticks", dict)
    assert cpus._by_load([3, 5]) == [3, 5]


def test_busy_ticks_are_all_but_idle_and_waiting(monkeypatch, tmp_path):
    # user nice system idle iowait irq softirq steal guest guest_nice; guests are counted among user and nice already.
    text = "cpu  9 9 9 9 9 9 9 9 9 9\ncpu0 1 20 300 5000 60000 4 50 600 7 8\ncpu11 1 1 1 9 9 1 1 1 1 1\nintr 5 6\n"
    monkeypatch.setattr(cpus.Path, "read_text", lambda path, encoding: text)
    assert cpus._busy_ticks() == {0: 975, 11: 6}


def test_where_no_process_is_bound_to_a_cpu_there_is_none(monkeypatch, tmp_path):
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert CpuShare(tmp_path).cpu is None


def test_a_folder_that_cannot_be_made_only_means_that_cpus_may_be_shared(tmp_path):
    (tmp_path / "file").write_text("")
    with CpuShare(tmp_path / "file" / "folder") as share:
        assert share.cpu in (cpus._allowed() or [None])
