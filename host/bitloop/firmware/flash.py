"""Writes a board's firmware into its chip: with the tool that its manifest's protocol wants, or by PlatformIO's upload.

The local platform's boards are written by the command line that ``pio run -t upload`` uses as well
(device/platforms/bitloop/upload.py); those of PlatformIO's public platforms, which bring their own tools (esptool for
an ESP32), by ``pio run -t upload`` itself.
"""

from __future__ import annotations

import contextlib
import logging
import shlex
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from serial.tools import list_ports

from bitloop.boards.catalogue import Board
from bitloop.boards.usb import ST_VENDOR, STLINK_PRODUCTS, UsbIdentity, usb_identity
from bitloop.errors import Interrupted, PortError, ToolchainError, UsageError
from bitloop.firmware import find
from bitloop.firmware.build import build_firmware, platform_module, run_platformio
from bitloop.firmware.diagnosis import diagnose
from bitloop.firmware.tool import Line, run_tool
from bitloop.native.paths import cache_dir

log = logging.getLogger(__name__)

_USB_DEVICES = Path("/sys/bus/usb/devices")

PLATFORMIO = "platformio"
"""Protocol of the boards that PlatformIO's own upload writes."""


@dataclass(frozen=True)
class Way:
    """How a board is going to be flashed.

    Attributes:
        board: It.
        protocol: One of device/platforms/bitloop/upload.py, or :data:`PLATFORMIO`.
        title: The protocol in words.
        over_serial: Whether the firmware goes over ``port``; nobody else may then hold it open.
        port: Serial port of the board; None where it is not known, and not needed to flash it.
        adapter: Serial number of the ST-LINK, or "" for the only one.
    """

    board: Board
    protocol: str
    title: str
    over_serial: bool
    port: str | None
    adapter: str = ""


@dataclass(frozen=True)
class _Port:
    device: str
    serial_number: str
    identity: UsbIdentity | None


def choose_way(board: Board, *, port: str | None = None, protocol: str | None = None) -> Way:
    """Decide how to flash a board, and see that what that needs is here; nothing is built or written yet.

    Args:
        board: One with a chip.
        port: Its serial port; None looks for the only one there is.
        protocol: One of the board's; None takes the usual one.

    Raises:
        UsageError: The board is emulated, has no such protocol, or it is not clear which port is meant.
        ToolchainError: The protocol's tool is missing.
        PortError: There is no port that may be the board's.
    """
    environment = board.environment
    if environment not in find.environments():
        raise ToolchainError(f"{board.name} has no firmware yet; there is one for {', '.join(find.environments())}")
    if not find.is_local(environment):
        _refuse_unknown(board, protocol, [PLATFORMIO])
        return Way(board, PLATFORMIO, "PlatformIO's upload", True, port or _serial_port(board))
    upload = platform_module("upload")
    there: list[str] = upload.protocols(_manifest(environment))
    if not there:
        raise UsageError(
            f"{board.name} is emulated, there is nothing to flash: --device {board.url} starts its firmware"
        )
    _refuse_unknown(board, protocol, there)
    chosen = protocol or there[0]
    how = upload.PROTOCOLS[chosen]
    if shutil.which(how.tool) is None:
        raise ToolchainError(
            f"{how.tool}, which flashes {board.name} through {how.title}, was not found; apt install {how.package}"
        )
    if how.over_serial:
        return Way(board, chosen, how.title, True, port or _serial_port(board))
    return _stlink(board, chosen, how.title, port)


def flash(way: Way, *, each_line: Line | None = None) -> Path:
    """Build the board's firmware where it is not up to date, write it into the chip, have it verified and started.

    Args:
        way: Of :func:`choose_way`.
        each_line: Called with each line that is printed by the build or the tool.

    Returns:
        The file that was written.

    Raises:
        ToolchainError: The build or the tool failed.
        PortError: The board was not reached, or is in the wrong mode.
        Interrupted: Ctrl-C; what the chip holds is not known.
    """
    elf = build_firmware(way.board.environment, each_line=each_line)
    with _alone():
        try:
            image, code, output = _write(way, elf, each_line)
        except KeyboardInterrupt as error:
            raise Interrupted(
                f"interrupted while {way.board.name} was being flashed: its chip may hold half a firmware, and is "
                "silent then. Flash it again; nothing else is needed"
            ) from error
    if code != 0:
        raise diagnose(output, way.board.name, code)
    return image


def _write(way: Way, elf: Path, each_line: Line | None) -> tuple[Path, int, str]:
    if way.protocol == PLATFORMIO:
        port = () if way.port is None else ("--upload-port", way.port)
        arguments = ("run", "--environment", way.board.environment, "--target", "upload", *port)
        return elf, *run_platformio(arguments, each_line=each_line)
    upload = platform_module("upload")
    image = elf.with_suffix(upload.PROTOCOLS[way.protocol].suffix)
    manifest = _manifest(way.board.environment)
    command: Sequence[str] = upload.command(manifest, way.protocol, str(image), way.port or "", way.adapter)
    log.info("%s", shlex.join(command))
    try:
        return image, *run_tool(command, each_line=each_line)
    except OSError as error:
        raise ToolchainError(f"{command[0]} could not be started: {error}") from error


def _manifest(environment: str) -> dict[str, Any]:
    manifest: dict[str, Any] = platform_module("identity").board_manifest(environment)
    return manifest


def _refuse_unknown(board: Board, protocol: str | None, there: Sequence[str]) -> None:
    if protocol is not None and protocol not in there:
        raise UsageError(f"{board.name} is not flashed by '{protocol}'; there is {' or '.join(there)}")


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Be the only one of this user who flashes: two writers to one chip, or to the wrong one, leave it broken."""
    path = cache_dir() / "flash.lock"
    lock = FileLock(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(blocking=False)
    except Timeout as error:
        raise PortError("another bitloop is flashing a board; wait for it to end") from error
    except OSError as error:
        raise ToolchainError(f"{path} cannot be written: {error}; name another place in $BITLOOP_CACHE") from error
    try:
        yield
    finally:
        lock.release()


def _ports() -> list[_Port]:
    return sorted(
        (
            _Port(str(port.device), str(port.serial_number or ""), usb_identity(port.vid, port.pid))
            for port in list_ports.comports()
        ),
        key=lambda port: port.device,
    )


def _serial_port(board: Board) -> str:
    """Give the only port that may be the board's, by its USB numbers; those surely of others do not count."""
    ports = _ports()
    own = [port for port in ports if port.identity is not None and board.name in port.identity.boards]
    candidates = own or [port for port in ports if port.identity is not None and port.identity.adapter]
    if len(candidates) == 1:
        return candidates[0].device
    if candidates:
        names = ", ".join(port.device for port in candidates)
        raise UsageError(f"{names} may each be {board.name}; name its port with --port")
    there = ", ".join(port.device for port in ports)
    seen = f"no port looks like it ({there} are there)" if there else "this machine has no serial port now"
    raise PortError(f"{board.name} was not found: {seen}; plug it in with a cable that carries data, or name --port")


def _stlink(board: Board, protocol: str, title: str, port: str | None) -> Way:
    """Choose the ST-LINK: the one whose serial port is meant, for both have one serial number; else the only one."""
    probes = [each for each in _ports() if each.identity is not None and each.identity.is_stlink]
    named = next((each for each in probes if each.device == port), None)
    if named is not None:
        return Way(board, protocol, title, False, port, named.serial_number)
    if max(len(probes), _stlinks_on_usb()) > 1:
        names = ", ".join(each.device for each in probes) or "without serial ports"
        raise UsageError(
            f"several ST-LINKs are there ({names}); unplug the others, or name the port of {board.name}'s with --port"
        )
    own = [each for each in probes if each.identity is not None and board.name in each.identity.boards]
    return Way(board, protocol, title, False, own[0].device if own and port is None else port)


def _stlinks_on_usb() -> int:
    """Count ST-LINKs, also those without a serial port; 0 where the system does not tell."""
    count = 0
    for file in _USB_DEVICES.glob("*/idVendor"):
        with contextlib.suppress(OSError, ValueError):
            product = int((file.parent / "idProduct").read_text(encoding="ascii"), 16)
            count += int(file.read_text(encoding="ascii"), 16) == ST_VENDOR and product in STLINK_PRODUCTS
    return count
