"""The cross compilers that build for the emulated boards, and the Debian packages that bring them: data only.

Only the standard library and the catalogue: scripts/setup-firmware reads it before anything is installed.
"""

from __future__ import annotations

from dataclasses import dataclass

from bitloop.boards.catalogue import BOARDS


@dataclass(frozen=True)
class Toolchain:
    """A cross compiler with its C library.

    Attributes:
        family: Short name, what scripts/setup-firmware is told.
        prefix: What the names of its tools begin with.
        packages: Debian packages: compiler, C library, further sources.
        files: What the compiler must find (``-print-file-name``), each with its Debian package.
        folders: Folders that must be there, each with its Debian package.
        environments: Environments of platformio.ini that it builds.
    """

    family: str
    prefix: str
    packages: tuple[str, ...]
    files: tuple[tuple[str, str], ...]
    folders: tuple[tuple[str, str], ...]
    environments: tuple[str, ...]

    @property
    def emulators(self) -> dict[str, str]:
        """The emulators of its boards: program to Debian package."""
        return {
            board.emulator.program: board.emulator.package
            for board in BOARDS
            if board.emulator is not None and board.environment in self.environments
        }


TOOLCHAINS: tuple[Toolchain, ...] = (
    Toolchain(
        "arm",
        "arm-none-eabi-",
        ("gcc-arm-none-eabi", "libnewlib-arm-none-eabi"),
        (("libc.a", "libnewlib-arm-none-eabi"),),
        (),
        (
            "qemu_stm32f405",
            "qemu_stm32f100",
            "nucleo_f446re",
            "nucleo_f401re",
            "nucleo_f411re",
            "disco_f407vg",
            "bluepill_f103c8",
        ),
    ),
    Toolchain(
        "riscv",
        "riscv64-unknown-elf-",
        ("gcc-riscv64-unknown-elf", "picolibc-riscv64-unknown-elf"),
        (("picolibc.specs", "picolibc-riscv64-unknown-elf"),),
        (),
        ("qemu_rv32imc",),
    ),
    Toolchain("xtensa", "xtensa-lx106-elf-", ("gcc-xtensa-lx106",), (), (), ("qemu_lx106",)),
    Toolchain(
        "avr",
        "avr-",
        ("gcc-avr", "avr-libc", "arduino-core-avr"),
        (("libm.a", "avr-libc"),),
        (("/usr/share/arduino/hardware/arduino/avr/cores/arduino", "arduino-core-avr"),),
        ("qemu_mega2560",),
    ),
)


def toolchain_of(environment: str) -> Toolchain | None:
    """Give the toolchain that builds an environment; None where PlatformIO brings one (real boards)."""
    for toolchain in TOOLCHAINS:
        if environment in toolchain.environments:
            return toolchain
    return None
