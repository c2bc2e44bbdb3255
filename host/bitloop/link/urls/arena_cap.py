"""Caps a firmware's arena by changing one word in a copy of its ELF file, otherwise the one that is flashed."""

from __future__ import annotations

import io
import struct

SYMBOL = "bl_port_arena_cap"
_WORD = struct.Struct("<I")


def with_arena_cap(elf: bytes, arena_bytes: int) -> bytes:
    """Give the ELF file with the word ``bl_port_arena_cap`` changed; a cap above what the firmware has changes nothing.

    Raises:
        ValueError: It is no ELF file, or has no such word in its program memory.
    """
    from elftools.common.exceptions import ELFError  # noqa: PLC0415 - not needed by a port without the option
    from elftools.elf.elffile import ELFFile  # noqa: PLC0415
    from elftools.elf.sections import SymbolTableSection  # noqa: PLC0415

    try:
        file = ELFFile(io.BytesIO(elf))
        table = file.get_section_by_name(".symtab")
        symbols = table.get_symbol_by_name(SYMBOL) if isinstance(table, SymbolTableSection) else None
        if not symbols:
            raise ValueError(f"it has no word {SYMBOL}, so that its arena cannot be capped")
        address, index = symbols[0]["st_value"], symbols[0]["st_shndx"]
        section = file.get_section(index) if isinstance(index, int) else None
        if section is None or section["sh_type"] != "SHT_PROGBITS":
            raise ValueError(f"its word {SYMBOL} is not part of the program")
        offset = section["sh_offset"] + address - section["sh_addr"]
    except ELFError as error:
        raise ValueError(f"it is no ELF file that can be read: {error}") from error
    if not 0 <= offset - section["sh_offset"] <= section["sh_size"] - _WORD.size:
        raise ValueError(f"its word {SYMBOL} lies outside of its section")
    changed = bytearray(elf)
    _WORD.pack_into(changed, offset, min(arena_bytes, 0xFFFFFFFF))
    return bytes(changed)
