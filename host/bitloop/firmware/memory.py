"""How a firmware lies in the chip's memory, as its linker laid it out; nothing here is said by the device."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bitloop.errors import ToolchainError
from bitloop.firmware.elf import Elf, read_elf

__all__ = ["ARENA_CAP", "StaticMemory", "capped", "static_memory"]

ARENA_CAP = "bl_port_arena_cap"
"""A word of the firmware that limits the arena; ``qemu://…?arena=`` changes it in a copy of the ELF file."""

_ARENA_GRAIN_BYTES = 4
_AVR_EEPROM = 0x810000
"""What an AVR's ELF file holds from here on (EEPROM, fuses, lock bits, signature) is neither flash nor RAM."""


@dataclass(frozen=True)
class StaticMemory:
    """What the linker decided, in bytes.

    Attributes:
        static_bytes: The firmware's own state, .data, .bss and .noinit, buffers included: all that is neither arena nor
            stack.
        arena_bytes: What is left for a model, or what the firmware's cap leaves of it.
        stack_bytes: Reserved for the stack.
        flash_bytes: What is loaded: code, constants, and the initial values of .data.
    """

    static_bytes: int
    arena_bytes: int
    stack_bytes: int
    flash_bytes: int


def static_memory(elf: Path) -> StaticMemory:
    """Read a firmware's memory from the symbols that every port defines, and from what is loaded.

    The symbols are ``__bl_static_start``, ``__bl_static_end``, ``__bl_arena_start``, ``__bl_arena_end``,
    ``__bl_stack_low`` and ``__bl_stack_top``. Where the arena is an array among the statics, it does not count as
    static.

    Args:
        elf: a firmware.elf.

    Raises:
        ToolchainError: it cannot be read, lacks a symbol, or its symbols make no sense.
    """
    image = read_elf(elf)
    static_start, static_end = _range(image, "__bl_static_start", "__bl_static_end")
    arena_start, arena_end = _range(image, "__bl_arena_start", "__bl_arena_end")
    stack_low, stack_top = _range(image, "__bl_stack_low", "__bl_stack_top")
    arena = arena_end - arena_start
    inside = min(arena_end, static_end) - max(arena_start, static_start)
    if 0 < inside < arena:
        raise ToolchainError(f"{image.path}: the arena lies partly among the statics; its linker script is wrong")
    return StaticMemory(
        static_bytes=static_end - static_start - max(inside, 0),
        arena_bytes=min(arena, _cap(image)),
        stack_bytes=stack_top - stack_low,
        flash_bytes=sum(len(section.data) for section in image.sections if not _is_outside(image, section.address)),
    )


def _range(image: Elf, start: str, end: str) -> tuple[int, int]:
    first, last = image.symbol(start).address, image.symbol(end).address
    if last < first:
        raise ToolchainError(
            f"{image.path}: {end} ({last:#x}) lies below {start} ({first:#x}); its linker script is wrong"
        )
    return first, last


def _cap(image: Elf) -> int:
    symbol = image.symbol(ARENA_CAP)
    word = image.read(symbol.address, 4)
    if word is None:
        raise ToolchainError(f"{image.path}: its word {ARENA_CAP} is not part of the program; build it again")
    return capped(int.from_bytes(word, "little"))


def capped(cap_bytes: int) -> int:
    """Give what a firmware makes of a cap: the arena consists of whole words."""
    return cap_bytes - cap_bytes % _ARENA_GRAIN_BYTES


def _is_outside(image: Elf, address: int) -> bool:
    return image.machine == "EM_AVR" and address >= _AVR_EEPROM
