"""How a firmware gets onto a chip: which tool speaks a protocol, which file it takes, and what it is told.

Used by builder/main.py (`pio run -t upload`) and by the host (`bitloop firmware flash`). Only the standard library.
The manifest of a board that can be flashed says under "upload":
    protocol        the usual way, of PROTOCOLS
    protocols       all ways (optional)
    speed           baud rate of the bootloader (optional)
and for an ST-LINK under "debug" openocd_target, a file of OpenOCD's target folder.
"""

from __future__ import annotations

from typing import Any, NamedTuple


class Protocol(NamedTuple):
    """A way onto a chip."""

    title: str
    tool: str
    package: str
    """Debian package of the tool."""
    suffix: str
    """Of the file that the tool takes."""
    over_serial: bool
    """Whether it goes over the serial port of the board, which nobody else may then hold open."""


PROTOCOLS = {
    "stlink": Protocol("an ST-LINK", "openocd", "openocd", ".elf", over_serial=False),
    "serial": Protocol("the chip's own serial bootloader", "stm32flash", "stm32flash", ".bin", over_serial=True),
    "wiring": Protocol("Arduino's bootloader", "avrdude", "avrdude", ".hex", over_serial=True),
}

OBJCOPY_FLAGS = {".bin": ("-O", "binary"), ".hex": ("-O", "ihex", "-j", ".text", "-j", ".data")}
"""How objcopy makes a file of each suffix of firmware.elf; an AVR's ELF file may also hold EEPROM and fuses."""

_FLASH_START = "0x08000000"
_SERIAL_BAUD = 115200


def protocols(manifest: dict[str, Any]) -> list[str]:
    """Return the protocols of a board, the usual one first; none where it is no chip."""
    upload = manifest["upload"]
    usual = [upload["protocol"]] if "protocol" in upload else []
    return [*usual, *(each for each in upload.get("protocols", []) if each not in usual)]


def images(manifest: dict[str, Any]) -> list[str]:
    """Return the suffixes of the files that are made of firmware.elf for the board's protocols."""
    return sorted({PROTOCOLS[each].suffix for each in protocols(manifest)} & set(OBJCOPY_FLAGS))


def command(manifest: dict[str, Any], protocol: str, image: str, port: str, adapter: str = "") -> list[str]:
    """Return what writes a file to a chip, reads it back, and starts it.

    Args:
        manifest: of the board.
        protocol: one of :data:`PROTOCOLS`.
        image: path of the file.
        port: the serial port, where the protocol goes over it.
        adapter: serial number of the ST-LINK; "" takes the one there is.
    """
    tool = PROTOCOLS[protocol].tool
    if protocol == "stlink":
        which = ["-c", f"adapter serial {adapter}"] if adapter else []
        target = f"target/{manifest['debug']['openocd_target']}.cfg"
        program = f"program {{{image}}} verify reset exit"
        return [tool, "-f", "interface/stlink.cfg", *which, "-f", target, "-c", program]
    speed = str(manifest["upload"].get("speed", _SERIAL_BAUD))
    if protocol == "serial":
        return [tool, "-b", speed, "-v", "-w", image, "-g", _FLASH_START, port]
    part = manifest["build"]["mcu"]
    return [tool, "-p", part, "-c", protocol, "-P", port, "-b", speed, "-D", "-U", f"flash:w:{image}:i"]
