"""What is known of an emulated device that the device itself cannot know."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Emulation:
    """What stands behind a ``qemu://`` port.

    Attributes:
        emulator: The program, such as ``qemu-system-arm``.
        version: Of the program.
        machine: What it emulates, in its own words.
        icount_shift: One instruction takes 2^icount_shift ns of virtual time.
        process_id: Of the emulator.
    """

    emulator: str
    version: str
    machine: str
    icount_shift: int
    process_id: int

    def __str__(self) -> str:
        return f"{self.emulator} {self.version}, {self.machine}, icount shift {self.icount_shift}"

    def instructions_per_tick(self, ticks_per_second: int) -> float | None:
        """Give how many instructions a tick stands for.

        Args:
            ticks_per_second: Rate of the firmware's timer, in virtual time; 0 when it is not known.

        Returns:
            10^9 / (ticks_per_second * 2^icount_shift), or None without a rate.
        """
        return 1e9 / (ticks_per_second << self.icount_shift) if ticks_per_second > 0 else None
