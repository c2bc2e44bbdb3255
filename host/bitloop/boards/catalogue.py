"""The catalogue of boards: what each is, how much memory it has, what builds for it and what emulates it.

Memory is the chip's, from its data sheet, or what the firmware takes of an emulated machine that has more than any
chip; how much of it a model gets, only the firmware's HELLO says.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from bitloop.errors import UsageError

KIB = 1024
MIB = 1024 * KIB


@dataclass(frozen=True)
class Emulator:
    """An emulated machine that stands for a board.

    Attributes:
        program: Command that must be on the path.
        machine: Its name for the machine.
        cpu: Its name for the processor, or "" for the machine's own.
        package: Debian package that brings the program.
        icount_shift: An instruction takes 2^icount_shift ns of virtual time: the power of two next to what a real one's
            takes, so that timers and instructions keep the usual proportion.
        elf_machine: What its ELF files are for (e_machine): QEMU would take others as plain bytes.
        elf_option: Option that takes the firmware's ELF file.
        options: Further options.
    """

    program: str
    machine: str
    cpu: str
    package: str
    icount_shift: int
    elf_machine: int
    elf_option: str = "-kernel"
    options: tuple[str, ...] = ()


@dataclass(frozen=True)
class Board:
    """One board.

    Attributes:
        name: Short, unique; also the firmware's ``BOARD``.
        title: For a person.
        isa: Instruction set, in its maker's words.
        ram_bytes: Data memory of the chip that a firmware can use, or 0 where the host's own is used.
        flash_bytes: Program memory, or 0 where that has no meaning.
        environment: Environment of platformio.ini that builds for it, or "" where none is needed.
        port: Folder of device/ports.
        url: Device that needs no board, or "".
        emulator: What emulates it, or None.
    """

    name: str
    title: str
    isa: str
    ram_bytes: int
    flash_bytes: int
    environment: str
    port: str
    url: str = ""
    emulator: Emulator | None = None

    @property
    def simulated(self) -> bool:
        """True when this is no chip."""
        return bool(self.url)


_ARM = ("qemu-system-arm", "qemu-system-arm")
_MISC = "qemu-system-misc"
_EM_ARM, _EM_AVR, _EM_XTENSA, _EM_RISCV = 40, 83, 94, 243

BOARDS: tuple[Board, ...] = (
    Board("native", "The core as a process on this machine", "host", 0, 0, "", "native", "sim://native"),
    Board(
        "stm32f405",
        "STM32F405, emulated (Netduino Plus 2)",
        "ARMv7E-M, Cortex-M4F",
        128 * KIB,
        1024 * KIB,
        "qemu_stm32f405",
        "stm32f4",
        "qemu://stm32f405",
        Emulator(_ARM[0], "netduinoplus2", "", _ARM[1], 3, _EM_ARM),
    ),
    Board(
        "stm32f100",
        "STM32F100, emulated (STM32VLDISCOVERY)",
        "ARMv7-M, Cortex-M3",
        8 * KIB,
        128 * KIB,
        "qemu_stm32f100",
        "stm32f1",
        "qemu://stm32f100",
        Emulator(_ARM[0], "stm32vldiscovery", "", _ARM[1], 5, _EM_ARM),
    ),
    Board(
        "rv32imc",
        "RV32IMC, emulated: the instruction set of an ESP32-C3",
        "RV32IMC",
        1048 * KIB,
        1024 * KIB,
        "qemu_rv32imc",
        "riscv_virt",
        "qemu://rv32imc",
        Emulator("qemu-system-riscv32", "virt", "", _MISC, 3, _EM_RISCV, options=("-bios", "none")),
    ),
    Board(
        "lx106",
        "Xtensa LX106, emulated: the family of the ESP32",
        "Xtensa LX106, call0",
        1048 * KIB,
        1024 * KIB,
        "qemu_lx106",
        "lx106_sim",
        "qemu://lx106",
        Emulator("qemu-system-xtensa", "lx60", "lx106", _MISC, 5, _EM_XTENSA),
    ),
    Board(
        "mega2560",
        "Arduino Mega 2560, emulated",
        "AVR, ATmega2560",
        8 * KIB,
        256 * KIB,
        "qemu_mega2560",
        "arduino",
        "qemu://mega2560",
        Emulator("qemu-system-avr", "mega2560", "", _MISC, 6, _EM_AVR, "-bios"),
    ),
    Board(
        "nucleo_f446re",
        "Nucleo-F446RE",
        "ARMv7E-M, Cortex-M4F",
        128 * KIB,
        512 * KIB,
        "nucleo_f446re",
        "stm32f4",
    ),
    Board(
        "nucleo_f401re",
        "Nucleo-F401RE",
        "ARMv7E-M, Cortex-M4F",
        96 * KIB,
        512 * KIB,
        "nucleo_f401re",
        "stm32f4",
    ),
    Board(
        "nucleo_f411re",
        "Nucleo-F411RE",
        "ARMv7E-M, Cortex-M4F",
        128 * KIB,
        512 * KIB,
        "nucleo_f411re",
        "stm32f4",
    ),
    Board(
        "disco_f407vg",
        "STM32F407 Discovery",
        "ARMv7E-M, Cortex-M4F",
        128 * KIB,
        1024 * KIB,
        "disco_f407vg",
        "stm32f4",
    ),
    Board(
        "bluepill_f103c8",
        "Blue Pill, STM32F103C8",
        "ARMv7-M, Cortex-M3",
        20 * KIB,
        64 * KIB,
        "bluepill_f103c8",
        "stm32f1",
    ),
    Board(
        "esp32dev",
        "ESP32 development board",
        "Xtensa LX6",
        520 * KIB,
        4096 * KIB,
        "esp32dev",
        "arduino",
    ),
    Board(
        "esp32-s3-devkitc-1",
        "ESP32-S3-DevKitC-1",
        "Xtensa LX7",
        512 * KIB,
        8192 * KIB,
        "esp32-s3-devkitc-1",
        "arduino",
    ),
    Board(
        "esp32-c3-devkitm-1",
        "ESP32-C3-DevKitM-1",
        "RV32IMC",
        400 * KIB,
        4096 * KIB,
        "esp32-c3-devkitm-1",
        "arduino",
    ),
)
"""All boards, those that need no hardware first."""


def find_board(name: str) -> Board:
    """Give the board of a name.

    Raises:
        UsageError: There is none; the message names the nearest ones.
    """
    for board in BOARDS:
        if board.name == name:
            return board
    names = [board.name for board in BOARDS]
    near = difflib.get_close_matches(name, names, n=3) or names
    raise UsageError(f"there is no board '{name}'; there are {', '.join(near)}")
