"""``qemu://BOARD``: a board's own firmware, in an emulator of this machine, behind a byte stream.

BOARD is one of the emulated ones in :mod:`bitloop.boards.catalogue`. Options, as a query: ``elf`` (the firmware's ELF
file; default: the one that is built for the board), ``icount`` (one instruction is 2^icount ns of virtual time) and
``arena`` (the most that a model may take: ``8192``, ``8k``, ``1M``). Example::

    port = serial.serial_for_url("qemu://stm32f405?arena=8k")
    port.control("system_reset")

Only the standard library and pyserial are imported here; firmware is looked for, or built, when a port is opened.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from serial.serialutil import PortNotOpenError, SerialException

from bitloop.link.urls import keeper
from bitloop.link.urls.arena_cap import with_arena_cap
from bitloop.link.urls.cpus import CpuShare
from bitloop.link.urls.emulation import Emulation
from bitloop.link.urls.emulator_monitor import EmulatorMonitor, MonitorError
from bitloop.link.urls.quantities import parse_size
from bitloop.link.urls.stream_port import StreamPort, options_in

if TYPE_CHECKING:
    from bitloop.boards.catalogue import Board, Emulator

OPTIONS = ("elf", "icount", "arena")
"""The names of what a URL may ask for."""

_MOST_ICOUNT = 10  # QEMU takes no greater shift
_START_S = 20.0
_ANSWER_S = 5.0


@dataclass(frozen=True)
class Options:
    """What a URL asks for; None is the default."""

    board: str
    elf: Path | None = None
    icount_shift: int | None = None
    arena_bytes: int | None = None


def options_of(url: str) -> Options:
    """Read a URL.

    Raises:
        SerialException: It is none of a board in an emulator, or has an option that is not known or makes no sense.
    """
    parts = urlsplit(url)
    if parts.scheme.lower() != "qemu" or not parts.netloc or parts.path.strip("/") or parts.fragment:
        raise SerialException(
            f"{url}: this names no emulated board; write it as qemu://BOARD, such as qemu://stm32f405"
        )
    elf: Path | None = None
    icount_shift = arena_bytes = None
    try:
        for key, value in options_in(parts.query, OPTIONS):
            if key == "elf":
                elf = Path(value)
            elif key == "arena":
                arena_bytes = parse_size(value)
            else:
                if not (value.isascii() and value.isdigit() and int(value) <= _MOST_ICOUNT):
                    raise ValueError(f"icount '{value}' is no whole number of 0 to {_MOST_ICOUNT}")
                icount_shift = int(value)
    except ValueError as error:
        raise SerialException(f"{url}: {error}") from error
    return Options(parts.netloc.lower(), elf, icount_shift, arena_bytes)


class Serial(StreamPort):
    """A port whose other end is an emulated board; closing it ends the emulator.

    Attributes:
        emulation: What it is emulated by; None while the port is closed.
    """

    WHAT = "the emulator"

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.emulation: Emulation | None = None
        self._monitor: EmulatorMonitor | None = None
        self._share: CpuShare | None = None
        super().__init__(*args, **kwargs)

    def control(self, command: str) -> str:
        """Run a command of QEMU's monitor: ``system_reset``, ``stop`` (freeze), ``cont``, ``quit``, ``info …``.

        Returns:
            What ``info`` tells, else "".

        Raises:
            MonitorError: It was refused, not answered in 5 s, or the emulator has ended.
        """
        if self._monitor is None:
            raise PortNotOpenError()
        return self._monitor.execute(command)

    def _start(self, url: str) -> socket.socket:
        options = options_of(url)
        board, emulator = _emulated(url, options.board)
        program = program_of(board.name, emulator)
        icount_shift = emulator.icount_shift if options.icount_shift is None else options.icount_shift
        self._share = CpuShare()
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the port
        with _firmware(url, board, emulator, options) as elf, contextlib.ExitStack() as on_failure:
            line, its_line = socket.socketpair()
            control, its_control = socket.socketpair()
            on_failure.callback(line.close)
            on_failure.callback(control.close)
            with its_line, its_control:
                command = [program, *arguments_of(emulator, elf, icount_shift, its_line.fileno(), its_control.fileno())]
                process_id = self._spawn(command, (its_line.fileno(), its_control.fileno()))
            try:
                self._monitor = EmulatorMonitor(control, timeout_s=_START_S)
            except MonitorError as error:
                ended = self._ended()  # waits for the end, which may lag behind the streams
                has_ended = self._process is not None and self._process.poll() is not None
                raise SerialException(f"{url}: {ended if has_ended else error}") from error
            on_failure.pop_all()  # a capped copy of the firmware is not needed any more: the emulator has read it
        self._monitor.timeout_s = _ANSWER_S
        self.emulation = Emulation(emulator.program, self._monitor.version, emulator.machine, icount_shift, process_id)
        return line

    def _spawn(self, command: list[str], descriptors: tuple[int, ...]) -> int:
        """Start the emulator under its keeper, and give its process id."""
        cpu = "-" if self._share is None or self._share.cpu is None else str(self._share.cpu)
        numbers = ",".join(map(str, descriptors))
        # A session of its own: Ctrl-C in the terminal is for the host, which saves first and then closes the port.
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", str(Path(keeper.__file__)), cpu, numbers, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            pass_fds=descriptors,
            start_new_session=True,
        )
        output = self._process.stdout
        if output is None:
            raise OSError("its output cannot be read")
        readable, _, _ = select.select([output], [], [], _START_S)
        number = output.readline().strip() if readable else b""
        if not number.isdigit():
            raise OSError(str(self._ended()))
        return int(number)

    def _release(self) -> None:
        if self._monitor is not None:
            self._monitor.close()
            self._monitor = None
        super()._release()
        if self._share is not None:
            self._share.release()
            self._share = None
        self.emulation = None


def arguments_of(emulator: Emulator, elf: Path, icount_shift: int, line_fd: int, control_fd: int) -> list[str]:
    """Give the emulator's arguments."""
    return [
        *("-M", emulator.machine),
        *(("-cpu", emulator.cpu) if emulator.cpu else ()),
        *emulator.options,
        *(emulator.elf_option, str(elf)),
        *("-icount", f"shift={icount_shift},align=off,sleep=on"),
        *("-nodefaults", "-no-user-config", "-display", "none"),
        *("-chardev", f"socket,id=line,fd={line_fd}", "-serial", "chardev:line"),
        *("-chardev", f"socket,id=control,fd={control_fd}", "-mon", "chardev=control,mode=readline"),
    ]


def _emulated(url: str, name: str) -> tuple[Board, Emulator]:
    from bitloop.boards.catalogue import BOARDS  # noqa: PLC0415 - not of the standard library

    if os.name != "posix":
        raise SerialException(f"{url}: emulated boards need a system that hands sockets to programs, such as Linux")
    for board in BOARDS:
        if board.name == name and board.emulator is not None:
            return board, board.emulator
    names = ", ".join(f"qemu://{board.name}" for board in BOARDS if board.emulator is not None)
    raise SerialException(f"{url}: there is no such emulated board; there are {names}")


def program_of(board: str, emulator: Emulator) -> str:
    """Give the path of a board's emulator.

    Raises:
        ToolchainError: It is not installed.
    """
    from bitloop.errors import ToolchainError  # noqa: PLC0415 - not of the standard library

    path = shutil.which(emulator.program)
    if path is None:
        raise ToolchainError(
            f"qemu://{board} needs {emulator.program}, which is not here; scripts/setup-firmware installs it, "
            f"or: sudo apt install {emulator.package}"
        )
    return path


@contextlib.contextmanager
def _firmware(url: str, board: Board, emulator: Emulator, options: Options) -> Iterator[Path]:
    """Give the ELF file to start, for as long as the emulator needs to read it."""
    if options.elf is not None:
        elf = options.elf
        _check_elf(url, elf, emulator)
    else:
        from bitloop.firmware.build import firmware_elf  # noqa: PLC0415 - builds

        elf = firmware_elf(board.environment)
    if options.arena_bytes is None:
        yield elf
        return
    try:
        capped = with_arena_cap(elf.read_bytes(), options.arena_bytes)
    except ValueError as error:
        raise SerialException(f"{url}: the firmware {elf} cannot be used: {error}") from error
    with tempfile.TemporaryDirectory(prefix="bitloop-") as folder:
        copy = Path(folder) / elf.name
        copy.write_bytes(capped)
        yield copy


def _check_elf(url: str, elf: Path, emulator: Emulator) -> None:
    """See that a file is firmware for this processor: an emulator would start others as well, and lock up."""
    try:
        with elf.open("rb") as file:
            header = file.read(20)
    except OSError as error:
        raise SerialException(f"{url}: the firmware cannot be read: {error}") from error
    if len(header) < 20 or not header.startswith(b"\x7fELF"):
        raise SerialException(f"{url}: {elf} is no ELF file; name the firmware.elf of a build")
    machine = int.from_bytes(header[18:20], "little")
    if machine != emulator.elf_machine:
        raise SerialException(
            f"{url}: {elf} is for another processor (ELF machine {machine}, this one is {emulator.elf_machine})"
        )
