"""A firmware's ELF file: symbols, sections and bytes, read without any tool of the compiler's."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.construct import ConstructError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from bitloop.errors import ToolchainError

__all__ = ["Elf", "Section", "Symbol", "read_elf", "symbols"]


@dataclass(frozen=True)
class Symbol:
    """A name of the linker's.

    Attributes:
        name: As in the source.
        address: Where it is; in a Thumb function's the lowest bit is set, on AVR data begins at 0x800000.
        size: In bytes, 0 where the assembler does not say.
        kind: ``func``, ``object``, ``notype``, ``section``, ``file``, …
        section: Name of the section it lies in, or "" for an absolute one.
        is_global: Whether it is the only one of its name; a static function is not.
    """

    name: str
    address: int
    size: int
    kind: str
    section: str
    is_global: bool


@dataclass(frozen=True)
class Section:
    """A piece of memory that the linker laid out.

    Attributes:
        name: Such as ``.text``.
        address: Where it lies when the firmware runs.
        size: In bytes.
        in_memory: Whether it takes memory of the chip: debugging information does not.
        is_writable: Whether the firmware changes it.
        is_code: Whether it holds instructions.
        data: What is loaded, or b"" where nothing is.
    """

    name: str
    address: int
    size: int
    in_memory: bool
    is_writable: bool
    is_code: bool
    data: bytes


@dataclass(frozen=True)
class Elf:
    """What a file holds.

    Attributes:
        path: Of the file.
        machine: pyelftools' name of the processor: ``EM_ARM``, ``EM_RISCV``, ``EM_XTENSA``, ``EM_AVR``, …
        entry: Address of the first instruction.
        symbols: All of them, static ones too: names come more than once.
        sections: All of them.
    """

    path: Path
    machine: str
    entry: int
    symbols: tuple[Symbol, ...]
    sections: tuple[Section, ...]

    @functools.cached_property
    def by_name(self) -> Mapping[str, Symbol]:
        """Symbols by name; of several, the global one, else the first."""
        found: dict[str, Symbol] = {}
        for symbol in self.symbols:
            if symbol.is_global or symbol.name not in found:
                found[symbol.name] = symbol
        return found

    def symbol(self, name: str) -> Symbol:
        """Give a symbol.

        Raises:
            ToolchainError: there is none of this name.
        """
        try:
            return self.by_name[name]
        except KeyError:
            message = f"{self.path} lacks the symbol {name}, which every port defines (docs/device.md); build it again"
            raise ToolchainError(message) from None

    def read(self, address: int, size: int) -> bytes | None:
        """Give bytes that are loaded to an address, or None where nothing is."""
        for section in self.sections:
            offset = address - section.address
            if section.in_memory and offset >= 0 and offset + size <= len(section.data):
                return section.data[offset : offset + size]
        return None


def read_elf(path: Path) -> Elf:
    """Read a file.

    Raises:
        ToolchainError: it is not there, or no ELF file.
    """
    try:
        with path.open("rb") as file:
            image = ELFFile(file)
            names = [section.name for section in image.iter_sections()]
            table = image.get_section_by_name(".symtab")
            return Elf(
                path=path,
                machine=str(image["e_machine"]),
                entry=int(image["e_entry"]),
                symbols=_symbols_in(table, names) if isinstance(table, SymbolTableSection) else (),
                sections=_sections_in(image),
            )
    except OSError as error:
        raise ToolchainError(f"{path} cannot be read: {error}; build the firmware first") from error
    except (ELFError, ConstructError, ValueError) as error:
        raise ToolchainError(f"{path} is no ELF file that can be read: {error}; build it again") from error


def symbols(path: Path) -> dict[str, Symbol]:
    """Give a file's symbols by name; of several of one name, the global one.

    Raises:
        ToolchainError: it cannot be read.
    """
    return dict(read_elf(path).by_name)


def _symbols_in(table: SymbolTableSection, names: list[str]) -> tuple[Symbol, ...]:
    found = []
    for symbol in table.iter_symbols():
        index = symbol["st_shndx"]
        if not symbol.name or index == "SHN_UNDEF":
            continue
        found.append(
            Symbol(
                name=symbol.name,
                address=int(symbol["st_value"]),
                size=int(symbol["st_size"]),
                kind=str(symbol["st_info"]["type"]).removeprefix("STT_").lower(),
                section=names[index] if isinstance(index, int) and index < len(names) else "",
                is_global=symbol["st_info"]["bind"] != "STB_LOCAL",
            )
        )
    return tuple(found)


def _sections_in(image: ELFFile) -> tuple[Section, ...]:
    found = []
    for section in image.iter_sections():
        flags = int(section["sh_flags"])
        in_memory = bool(flags & SH_FLAGS.SHF_ALLOC)
        loaded = in_memory and section["sh_type"] != "SHT_NOBITS"
        found.append(
            Section(
                name=section.name,
                address=int(section["sh_addr"]),
                size=int(section["sh_size"]),
                in_memory=in_memory,
                is_writable=bool(flags & SH_FLAGS.SHF_WRITE),
                is_code=bool(flags & SH_FLAGS.SHF_EXECINSTR),
                data=section.data() if loaded else b"",
            )
        )
    return tuple(found)
