"""What flashing tools print when they fail, and what a person then does.

The words are those of OpenOCD 0.12, stm32flash 0.7, avrdude 6.3 to 7.1 and esptool 4 to 5.6.
"""

from __future__ import annotations

import re

from bitloop.errors import BitloopError, PortError, ToolchainError
from bitloop.firmware.build import last_words

_BUTTONS = (
    "hold BOOT, press and let go of RESET (EN), let go of BOOT, and flash again. Where there are no buttons: GPIO0 "
    "(ESP32, ESP32-S3) or GPIO9 (ESP32-C3) to ground while it is reset"
)

# The first that is found counts: causes come before their consequences.
_CAUSES: tuple[tuple[str, str], ...] = (
    (
        r"LIBUSB_ERROR_ACCESS",
        "this user may not open the ST-LINK: OpenOCD's udev rules are missing (Debian's package brings them: plug the "
        "board out and in again) or this user is not in the group plugdev",
    ),
    (
        r"Permission denied|Errno 13\b",
        "this user may not open the port: sudo usermod -aG dialout $USER, then log in again",
    ),
    (
        r"LIBUSB_ERROR_BUSY|Device or resource busy|Resource temporarily unavailable",
        "another program holds the board: end monitors, debuggers and runs",
    ),
    (
        r"Wrong boot mode detected",
        f"the chip runs its program instead of waiting for a new one: {_BUTTONS}",
    ),
    (
        r"The serial TX path seems to be down",
        "the chip waits for a program, but hears nothing: the line to its RX is broken, or something else drives it",
    ),
    (
        r"No such file or directory: '/dev/|cannot open port|can't open device|Failed to open port|could not open port",
        "the port is not there, or another program holds it; bitloop devices lists the ports",
    ),
    (
        r"[Ff]ailed to connect to (?:ESP|Espressif)",
        f"the chip did not answer. Is it the right port, and a cable that carries data? Then {_BUTTONS}",
    ),
    (
        r"Failed to init device",
        "the chip's serial bootloader did not answer: set BOOT0 to 1, press RESET, and flash again (then BOOT0 back to "
        "0, RESET). TX of the adapter goes to PA10, RX to PA9, ground to ground",
    ),
    (
        r"timeout communicating with programmer|not in sync|getsync",
        "Arduino's bootloader did not answer: is it the right port and board? Press RESET as flashing begins",
    ),
    (
        r"UNEXPECTED idcode",
        "the chip is another than this board's: is it the right board, and no clone with a core of its own?",
    ),
    (
        r"init mode failed|unable to connect to the target|target voltage may be too low",
        "the ST-LINK is there, but its chip does not answer: see to the board's power (a Nucleo's JP5 on U5V), to its "
        "wires (SWDIO, SWCLK, GND, 3V3) and its jumpers (a Nucleo's CN2). If the program that runs there has turned "
        "SWD off: set BOOT0 to 1, press RESET, flash, set it back",
    ),
    (
        r"Error: open failed|ST-LINK open failed",
        "no ST-LINK was found: plug the board in at its ST-LINK's USB socket, with a cable that carries data",
    ),
    (
        r"device protected|failed erasing sectors|write-protected",
        "the chip's flash is protected; taking that off erases it (OpenOCD: stm32f1x unlock 0, stm32f4x unlock 0)",
    ),
    (
        r"Verify Failed|[Ff]ailed to verify|verification (?:error|mismatch)|hash mismatch|contents differ",
        "what was written reads back otherwise: flash again, with a shorter cable; the flash may be worn",
    ),
)


def diagnose(output: str, board: str, code: int) -> BitloopError:
    """Turn what a flashing tool printed into an error that says what to do.

    Args:
        output: All that it printed.
        board: Which board was meant.
        code: Its exit code.
    """
    for pattern, advice in _CAUSES:
        found = re.search(pattern, output)
        if found is not None:
            line = next(line for line in output.splitlines() if found[0] in line)
            return PortError(f"{board} was not flashed: {advice}. The tool said: {line.strip()}")
    return ToolchainError(
        f"{board} was not flashed (exit code {code}), for a reason not known here. The tool's last words:\n"
        f"{last_words(output)}"
    )
