"""``bitloop devices``: where a device could be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bitloop.cli import console, options

if TYPE_CHECKING:
    from serial.tools.list_ports_common import ListPortInfo


@console.handled
def devices(as_json: options.Json = False) -> None:
    """List serial ports and what hangs on them, the simulated device, and emulated boards with what each lacks here."""
    from serial.tools import list_ports  # noqa: PLC0415 - slow on some systems

    ports = [_serial_port(port) for port in sorted(list_ports.comports(), key=lambda port: port.device)]
    simulated = [_native(), *_emulated_boards()]
    if as_json:
        console.print_json([*ports, *simulated])
        return
    if ports:
        columns = ("serial port", "USB", "name", "board")
        rows = [(each["url"], _numbers(each), _name(each), _guess(each)) for each in ports]
        console.print_table("", columns, rows)
    else:
        console.say("No serial port is there. Any other pyserial URL is a device too: socket://host:port, rfc2217://…")
    what = [(each["url"], each["description"], _state(each)) for each in simulated]
    console.print_table("", ("simulated", "what", "state"), what)


def _serial_port(port: ListPortInfo) -> dict[str, Any]:
    from bitloop.boards.usb import usb_identity  # noqa: PLC0415 - beside the rest

    identity = usb_identity(port.vid, port.pid)
    return {
        "url": port.device,
        "description": port.description or "",
        "hardware": port.hwid or "",
        "simulated": False,
        "usb_vendor": port.vid,
        "usb_product": port.pid,
        "manufacturer": port.manufacturer,
        "product": port.product,
        "serial_number": port.serial_number,
        "usb_name": identity.title if identity else None,
        "boards": list(identity.boards) if identity else [],
        "any_board": identity is None or identity.adapter,
    }


def _numbers(port: dict[str, Any]) -> str:
    return "" if port["usb_vendor"] is None else f"{port['usb_vendor']:04x}:{port['usb_product']:04x}"


def _name(port: dict[str, Any]) -> str:
    """What our table calls the numbers, and how the port calls itself."""
    own = port["product"] or port["description"].replace("n/a", "")
    return " · ".join(each for each in (port["usb_name"], own) if each)


def _guess(port: dict[str, Any]) -> str:
    named = " or ".join(port["boards"])
    if not port["any_board"]:
        return named
    return f"{named}, or any board" if named else "any board"


def _native() -> dict[str, Any]:
    from bitloop.errors import ToolchainError  # noqa: PLC0415 - beside the rest
    from bitloop.native.build import find_compiler  # noqa: PLC0415 - beside the rest

    missing = []
    try:
        find_compiler()
    except ToolchainError:
        missing = ["a C compiler (apt install gcc)"]
    return {
        "url": "sim://native",
        "description": "the device core as a process of this machine",
        "hardware": "",
        "simulated": True,
        "firmware": None,
        "missing": missing,
    }


def _emulated_boards() -> list[dict[str, Any]]:
    """Those that have firmware; what is missing to build it counts only where it is not built."""
    from bitloop.boards import BOARDS  # noqa: PLC0415 - beside the rest
    from bitloop.firmware import build, find  # noqa: PLC0415 - PlatformIO

    there = find.environments()
    found = []
    for board in BOARDS:
        if board.emulator is None or board.environment not in there:
            continue
        state = build.state(board.environment)
        missing = find.missing_to_emulate(board)
        if state != "built":
            missing += find.missing_to_build(board.environment)
        found.append(
            {
                "url": board.url,
                "description": board.title,
                "hardware": f"{board.emulator.program} -M {board.emulator.machine}",
                "simulated": True,
                "firmware": state,
                "missing": [str(each) for each in missing],
            }
        )
    return found


def _state(device: dict[str, Any]) -> str:
    if device["missing"]:
        return f"missing: {'; '.join(device['missing'])}"
    return "ready" if device["firmware"] in (None, "built") else f"ready; firmware {device['firmware']}"
