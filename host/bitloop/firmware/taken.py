"""Which functions a firmware takes the address of: only these can be called through a pointer.

The compiler's objects tell: an address is taken where a relocation of the code or the data refers to a function, and is
none of those that only calls and branches have.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import SymbolTableSection

from bitloop.errors import ToolchainError

__all__ = ["taken_names"]

# Numbers of the relocations of calls and branches, and of those that say nothing of an address.
_CALLS: Mapping[str, frozenset[int]] = {
    # ELF for the Arm Architecture, 5.6.1: NONE, THM_CALL, CALL, JUMP24, THM_JUMP24, THM_JUMP19, THM_JUMP6, 11 and 8
    "EM_ARM": frozenset((0, 10, 28, 29, 30, 51, 52, 102, 103)),
    # RISC-V ABIs, 8.4: BRANCH, JAL, CALL, CALL_PLT, ALIGN, RVC_BRANCH, RVC_JUMP, RELAX
    "EM_RISCV": frozenset((16, 17, 18, 19, 43, 44, 45, 51)),
    # binutils, include/elf/xtensa.h: ASM_EXPAND, SLOT0_OP; an address is a word among the literals
    "EM_XTENSA": frozenset((11, 20)),
    # binutils, include/elf/avr.h: 7_PCREL, 13_PCREL, CALL
    "EM_AVR": frozenset((2, 3, 18)),
}
_UNWINDING = (".eh_frame", ".ARM.exidx", ".ARM.extab")


def taken_names(folder: Path) -> frozenset[str]:
    """Give the names of the functions whose address the objects of a build take.

    Args:
        folder: holds them, in itself and below.

    Raises:
        ToolchainError: there are none, or one cannot be read.
    """
    names: set[str] = set()
    paths = sorted(folder.rglob("*.o"))
    if not paths:
        raise ToolchainError(f"there are no objects below {folder}; build the firmware again")
    for path in paths:
        names |= _taken_in_file(path)
    return frozenset(names)


def _taken_in_file(path: Path) -> set[str]:
    try:
        with path.open("rb") as file:
            return set(_taken_in(ELFFile(file)))
    except (OSError, ELFError, ConstructError) as error:
        raise ToolchainError(f"{path} cannot be read: {error}; build the firmware again") from error


def _taken_in(image: ELFFile) -> Iterator[str]:
    calls = _CALLS.get(str(image["e_machine"]), frozenset())
    for section in image.iter_sections():
        if not isinstance(section, RelocationSection):
            continue
        place = image.get_section(section["sh_info"])
        if not place["sh_flags"] & SH_FLAGS.SHF_ALLOC or place.name.startswith(_UNWINDING):
            continue
        table = image.get_section(section["sh_link"])
        if not isinstance(table, SymbolTableSection):
            continue
        for relocation in section.iter_relocations():
            if relocation["r_info_type"] in calls:
                continue
            symbol = table.get_symbol(relocation["r_info_sym"])
            if symbol["st_info"]["type"] != "STT_SECTION":
                yield symbol.name  # of data, too; nobody asks for those
            elif not relocation.is_RELA() or relocation["r_addend"] == 0:
                yield from _functions_at_start(table, symbol["st_shndx"])


def _functions_at_start(table: SymbolTableSection, index: int) -> Iterator[str]:
    """The functions that begin a section, as each does in one of its own (``-ffunction-sections``)."""
    for symbol in table.iter_symbols():
        if symbol["st_shndx"] == index and symbol["st_info"]["type"] == "STT_FUNC" and symbol["st_value"] <= 1:
            yield symbol.name
