"""What flashing tools say when they fail, word for word, and what a person is then told.

Marked "here": taken on a machine without a board (Debian 12: OpenOCD 0.12.0, stm32flash 0.7, avrdude 7.1; esptool 5.6.0
of PyPI on a pseudo-terminal). The others are quoted from where a person reported them.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from bitloop.errors import PortError, ToolchainError
from bitloop.firmware.build import platform_module
from bitloop.firmware.diagnosis import diagnose

_OPENOCD = """Open On-Chip Debugger 0.12.0
Licensed under GNU GPL v2
For bug reports, read
\thttp://openocd.org/doc/doxygen/bugs.html
Info : auto-selecting first available session transport "hla_swd". To override use 'transport select <transport>'.
Info : The selected transport took over low-level target control. The results might differ compared to plain JTAG/SWD
Info : clock speed 2000 kHz
"""

CASES = {
    # here
    "openocd: no ST-LINK": (
        _OPENOCD + "Error: open failed\nin procedure 'program'\n** OpenOCD init failed **\nshutdown command invoked\n",
        "no ST-LINK was found",
        "Error: open failed",
    ),
    # sifive/freedom-tools #28 has the first line; the rest as above
    "openocd: not allowed": (
        _OPENOCD + "Error: libusb_open() failed with LIBUSB_ERROR_ACCESS\nError: open failed\n",
        "may not open the ST-LINK",
        "Error: libusb_open() failed with LIBUSB_ERROR_ACCESS",
    ),
    # Andrik45719/ZY-M100 #30
    "openocd: no chip": (
        _OPENOCD
        + "Info : STLINK V2J34S7 (API v2) VID:PID 0483:3748\nInfo : Target voltage: 3.218714\n"
        + "Error: init mode failed (unable to connect to the target)\n",
        "see to the board's power",
        "Error: init mode failed (unable to connect to the target)",
    ),
    # TeXitoi/blue-pill-quickstart #9
    "openocd: a clone": (
        "Info : using stlink api v2\nInfo : Target voltage: 3.140492\nWarn : UNEXPECTED idcode: 0x2ba01477\n"
        "Error: expected 1 of 1: 0x1ba01477\nin procedure 'init' \nin procedure 'ocd_bouncer'\n",
        "no clone",
        "Warn : UNEXPECTED idcode: 0x2ba01477",
    ),
    # here, and rogerclarkmelbourne/Arduino_STM32 #229
    "stm32flash: no port": (
        'Error probing interface "serial_posix"\nCannot handle device "/dev/ttyNONE"\n'
        "Failed to open port: /dev/ttyNONE\nstm32flash 0.7\n",
        "the port is not there",
        "Failed to open port: /dev/ttyNONE",
    ),
    # rogerclarkmelbourne/Arduino_STM32 #245
    "stm32flash: BOOT0": (
        "Using Parser : Raw BINARY\nInterface serial_posix: 115200 8E1\nFailed to init device.\n",
        "set BOOT0 to 1",
        "Failed to init device.",
    ),
    # here
    "avrdude: no answer": (
        "avrdude error: timeout\navrdude error: timeout\navrdude error: timeout communicating with programmer\n"
        "avrdude error: unable to open programmer wiring on port /dev/pts/0\n\navrdude done.  Thank you.\n",
        "Arduino's bootloader did not answer",
        "avrdude error: timeout communicating with programmer",
    ),
    # arduino/Arduino #1717, avrdude 6
    "avrdude: no answer, of old": (
        "avrdude: stk500v2_ReceiveMessage(): timeout\n"
        "avrdude: stk500v2_getsync(): timeout communicating with programmer\n",
        "Arduino's bootloader did not answer",
        "avrdude: stk500v2_getsync(): timeout communicating with programmer",
    ),
    # here
    "avrdude: no port": (
        "avrdude OS error: cannot open port /dev/ttyNONE: No such file or directory\n",
        "the port is not there",
        "avrdude OS error: cannot open port /dev/ttyNONE: No such file or directory",
    ),
    # here
    "esptool: silence": (
        "esptool v5.6.0\nSerial port /dev/pts/0:\nConnecting.........\n\nERROR: A fatal error occurred: Failed to "
        "connect to ESP32: No serial data received.\nFor troubleshooting steps visit: "
        "https://docs.espressif.com/projects/esptool/en/latest/troubleshooting.html\n",
        "hold BOOT",
        "ERROR: A fatal error occurred: Failed to connect to ESP32: No serial data received.",
    ),
    # here
    "esptool: noise": (
        "ERROR: A fatal error occurred: Failed to connect to ESP32: Invalid head of packet (0x62): Possible serial "
        "noise or corruption.\n",
        "hold BOOT",
        "ERROR: A fatal error occurred: Failed to connect to ESP32: Invalid head of packet",
    ),
    # here
    "esptool: no port": (
        "ERROR: A fatal error occurred: Could not open /dev/ttyNONE, the port is busy or doesn't exist.\n([Errno 2] "
        "could not open port /dev/ttyNONE: [Errno 2] No such file or directory: '/dev/ttyNONE')\n",
        "the port is not there",
        "could not open port /dev/ttyNONE",
    ),
    # stanleyhuangyc/Freematics #172, out of `pio run -t upload`
    "esptool: wrong mode": (
        "Serial port /dev/cu.usbserial-01E71945\nConnecting......................................\n\nA fatal error "
        "occurred: Failed to connect to ESP32: Wrong boot mode detected (0x13)! The chip needs to be in download "
        "mode.\n"
        "*** [upload] Error 2\n",
        "the chip runs its program instead of waiting for a new one: hold BOOT",
        "Wrong boot mode detected (0x13)!",
    ),
    # esptool's loader.py
    "esptool: deaf": (
        "A fatal error occurred: Failed to connect to ESP32: Download mode successfully detected, but getting no sync "
        "reply: The serial TX path seems to be down.\n",
        "hears nothing",
        "The serial TX path seems to be down.",
    ),
    # Python's words, which esptool passes on
    "esptool: not allowed": (
        "A fatal error occurred: Could not open /dev/ttyUSB0, the port is busy or doesn't exist.\n([Errno 13] could "
        "not open port /dev/ttyUSB0: [Errno 13] Permission denied: '/dev/ttyUSB0')\n",
        "dialout",
        "Permission denied: '/dev/ttyUSB0'",
    ),
}


@pytest.mark.parametrize(("output", "advice", "line"), CASES.values(), ids=CASES)
def test_what_a_tool_says_becomes_what_to_do(output: str, advice: str, line: str) -> None:
    error = diagnose(output, "a board", 1)
    assert isinstance(error, PortError)
    message = str(error)
    assert message.startswith("a board was not flashed: ")
    assert advice in message
    assert line in message.partition("The tool said: ")[2]


def test_what_is_not_known_is_shown_as_it_is() -> None:
    error = diagnose("Info : fine\nError: flash bank is on fire\n", "a board", 3)
    assert isinstance(error, ToolchainError)
    assert "exit code 3" in str(error)
    assert str(error).endswith("Error: flash bank is on fire")


@pytest.mark.parametrize("target", ["stm32f1x", "stm32f4x"])
def test_openocd_takes_the_command_line(target: str, tmp_path: Path) -> None:
    """The real one, asked for an ST-LINK that nobody has: it reads all scripts, and then finds none."""
    if shutil.which("openocd") is None:
        pytest.skip("openocd is not here (apt install openocd)")
    (tmp_path / "firmware.elf").touch()
    manifest = {"debug": {"openocd_target": target}, "upload": {}}
    command = platform_module("upload").command(manifest, "stlink", str(tmp_path / "firmware.elf"), "", "of-no-board")
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 1
    assert "no ST-LINK was found" in str(diagnose(done.stdout + done.stderr, "a board", 1))
