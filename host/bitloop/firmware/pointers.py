"""Which functions a call through a pointer may reach, from the debugging information of a firmware.

A call through a pointer names it in its source line: ``port->write(…)``. Debugging information holds the source lines
that a function was compiled from (those of functions inlined into it too), and the type of every pointer to a function.
C lets such a call reach functions of that type only, so every function of the type counts as reached whose address is
taken anywhere (:mod:`bitloop.firmware.taken`). A call of a virtual function of C++ is one too: it may reach every
virtual function of that name and number of parameters.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from elftools.common.exceptions import DWARFError, ELFError
from elftools.construct import ConstructError
from elftools.dwarf.compileunit import CompileUnit
from elftools.dwarf.die import DIE
from elftools.dwarf.lineprogram import LineProgram
from elftools.elf.elffile import ELFFile

from bitloop.errors import ToolchainError

__all__ = ["Called", "Declared", "Pointers", "read_pointers"]

_POINTED = ("DW_TAG_member", "DW_TAG_formal_parameter", "DW_TAG_variable")
_TRANSPARENT = ("DW_TAG_typedef", "DW_TAG_const_type", "DW_TAG_volatile_type", "DW_TAG_restrict_type")
_CALL = re.compile(r"(->\s*|\.\s*)?\b([A-Za-z_]\w*)\s*(?:\[[^\]]*\]\s*)?\)?\s*\(")
_DROPPED = 0
"""Where debugging information has what the linker dropped; only a table of vectors lies there, on AVR."""
_SWITCH = re.compile(r"\bswitch\b")


@dataclass(frozen=True)
class Called:
    """A call as it is written.

    Attributes:
        name: of what is called.
        is_member: ``port->write`` or ``port.write``, rather than ``sink``.
        arguments: how many, or None where the line ends before they do.
    """

    name: str
    is_member: bool
    arguments: int | None


@dataclass(frozen=True)
class Declared:
    """Where the source defines a function."""

    file: str
    line: int


@dataclass
class Pointers:
    """What debugging information says.

    Attributes:
        functions: addresses of the functions, by type.
        members: types of the pointers to functions, by the name of the member of a structure: ``port->write(…)``.
        variables: the same by the name of a variable, a parameter, or a member that functions of its own class may call
            without naming the object: ``sink(…)``.
        virtual: addresses of virtual functions and how many parameters they have, by name: called in either way.
        declared: where a function is defined, by its address.
        lines: source file and line of code, by its first address, in ascending order.
        texts: lines of the source files that were looked into; none of one that is not there, as a library's.
    """

    functions: dict[str, set[int]] = field(default_factory=dict)
    members: dict[str, set[str]] = field(default_factory=dict)
    variables: dict[str, set[str]] = field(default_factory=dict)
    virtual: dict[str, set[tuple[int, int]]] = field(default_factory=dict)
    declared: dict[int, Declared] = field(default_factory=dict)
    lines: list[tuple[int, Path | None, int]] = field(default_factory=list)
    texts: dict[Path, Sequence[str]] = field(default_factory=dict)

    def called_from(self, first: int, last: int) -> set[Called]:
        """Give the pointers that the code from ``first`` to before ``last`` calls through."""
        found = set()
        for text in self._source(first, last):
            for call in _CALL.finditer(text):
                called = Called(call[2], is_member=bool(call[1]), arguments=_count_arguments(text[call.end() :]))
                if called.name in self.virtual or called.name in self._types(called):
                    found.add(called)
        return found

    def reached_through(self, called: Iterable[Called]) -> set[int]:
        """Give the functions that these pointers may lead to: none where there is none of their types."""
        found: set[int] = set()
        for each in called:
            for address, parameters in self.virtual.get(each.name, ()):
                if each.arguments in (None, parameters):
                    found.add(address)
            for signature in self._types(each).get(each.name, ()):
                found |= self.functions.get(signature, set())
        return found

    def _types(self, called: Called) -> dict[str, set[str]]:
        return self.members if called.is_member else self.variables

    def has_switch(self, first: int, last: int) -> bool:
        """Tell whether the code was compiled from a switch, whose jump through a table leads to its own cases.

        The source of libgcc is not there. What computes in it knows no pointers to functions, but has switches.
        """
        of_libgcc = any(file is not None and "libgcc" in file.parts for file, _ in self._places(first, last))
        return of_libgcc or any(_SWITCH.search(text) for text in self._source(first, last))

    def place(self, address: int) -> str:
        """Give file and line of an instruction, for a message."""
        at = bisect.bisect_right(self.lines, address, key=lambda line: line[0]) - 1
        if at < 0 or self.lines[at][1] is None:
            return f"address {address:#x}"
        _, file, line = self.lines[at]
        return f"{file}:{line}"

    def _source(self, first: int, last: int) -> Iterator[str]:
        """The source lines of code."""
        for file, line in self._places(first, last):
            text = self._text(file) if file is not None else ()
            if 0 < line <= len(text):
                yield text[line - 1]

    def _places(self, first: int, last: int) -> set[tuple[Path | None, int]]:
        begin = max(bisect.bisect_right(self.lines, first, key=lambda line: line[0]) - 1, 0)
        end = bisect.bisect_left(self.lines, last, key=lambda line: line[0])
        return {(file, line) for _, file, line in self.lines[begin:end]}

    def _text(self, path: Path) -> Sequence[str]:
        if path not in self.texts:
            try:
                self.texts[path] = path.read_text(encoding="utf-8", errors="replace").splitlines()
            except OSError:
                self.texts[path] = ()
        return self.texts[path]


def _count_arguments(text: str) -> int | None:
    """Count the arguments of a call, from behind its parenthesis."""
    depth, commas = 0, 0
    for number, letter in enumerate(text):
        if letter == ")" and depth == 0:
            return commas + 1 if text[:number].strip() else 0
        depth += {"(": 1, "[": 1, ")": -1, "]": -1}.get(letter, 0)
        commas += letter == "," and depth == 0
    return None


def read_pointers(path: Path) -> Pointers:
    """Read a firmware's debugging information.

    Raises:
        ToolchainError: it cannot be read, or there is none.
    """
    pointers = Pointers()
    try:
        with path.open("rb") as file:
            image = ELFFile(file)
            if not image.has_dwarf_info():
                raise ToolchainError(f"{path} holds no debugging information; compile it with -g")
            dwarf = image.get_dwarf_info(relocate_dwarf_sections=False)
            for unit in dwarf.iter_CUs():
                _read_unit(pointers, unit)
                program = dwarf.line_program_for_CU(unit)
                if program is not None:
                    _read_lines(pointers, program, _directory(unit))
    except OSError as error:
        raise ToolchainError(f"{path} cannot be read: {error}; build the firmware first") from error
    except (ELFError, DWARFError, ConstructError, KeyError, ValueError) as error:
        raise ToolchainError(f"the debugging information of {path} cannot be read: {error}; build it again") from error
    pointers.lines.sort(key=lambda line: line[0])
    return pointers


def _read_unit(pointers: Pointers, unit: CompileUnit) -> None:
    for die in unit.iter_DIEs():
        if die.tag == "DW_TAG_subprogram" and "DW_AT_ranges" in die.attributes:
            raise ValueError("a function lies in several pieces; compile with -fno-reorder-blocks-and-partition")
        if die.tag == "DW_TAG_subprogram" and "DW_AT_low_pc" in die.attributes:
            address = int(die.attributes["DW_AT_low_pc"].value)
            if address == _DROPPED:
                continue
            origin = _origin(die)
            if _is_typed(origin):
                pointers.functions.setdefault(_function_type(origin), set()).add(address)
            if "DW_AT_virtuality" in origin.attributes and "DW_AT_name" in origin.attributes:
                parameters = sum(child.tag == "DW_TAG_formal_parameter" for child in origin.iter_children()) - 1
                name = origin.attributes["DW_AT_name"].value.decode()
                pointers.virtual.setdefault(name, set()).add((address, parameters))  # but for the object itself
            line = _attribute(die, "DW_AT_decl_line")
            name = _file_name(unit, _attribute(die, "DW_AT_decl_file"))
            if line is not None and name is not None:
                pointers.declared[address] = Declared(name, line)
        elif die.tag in _POINTED and "DW_AT_name" in die.attributes:
            function = _pointed_function(die)
            if function is not None:
                name, signature = die.attributes["DW_AT_name"].value.decode(), _function_type(function)
                if die.tag == "DW_TAG_member":
                    pointers.members.setdefault(name, set()).add(signature)
                if die.tag != "DW_TAG_member" or _has_functions(die.get_parent()):
                    pointers.variables.setdefault(name, set()).add(signature)


def _is_typed(die: DIE) -> bool:
    """Whether it is a function of C: those of the assembler have a name and no types."""
    return die.tag == "DW_TAG_subprogram" and ("DW_AT_prototyped" in die.attributes or bool(die.has_children))


def _has_functions(die: DIE | None) -> bool:
    return die is not None and any(child.tag == "DW_TAG_subprogram" for child in die.iter_children())


def _origin(die: DIE) -> DIE:
    """The DIE that holds the types of a function which was inlined, cloned, or declared in a class."""
    for link in ("DW_AT_abstract_origin", "DW_AT_specification"):
        if link in die.attributes:
            return _origin(die.get_DIE_from_attribute(link))
    return die


def _attribute(die: DIE, name: str) -> int | None:
    """A number, of the DIE or of the one it comes from."""
    if name in die.attributes:
        return int(die.attributes[name].value)
    for link in ("DW_AT_abstract_origin", "DW_AT_specification"):
        if link in die.attributes:
            return _attribute(die.get_DIE_from_attribute(link), name)
    return None


def _type_of(die: DIE) -> DIE | None:
    return die.get_DIE_from_attribute("DW_AT_type") if "DW_AT_type" in die.attributes else None


def _pointed_function(die: DIE) -> DIE | None:
    """The function type that a variable, parameter or member points to, or an array of pointers does."""
    seen = _type_of(die)
    pointed = False
    while seen is not None:
        if seen.tag == "DW_TAG_subroutine_type":
            return seen if pointed else None
        if seen.tag == "DW_TAG_pointer_type" and not pointed:
            pointed = True
        elif seen.tag not in (*_TRANSPARENT, "DW_TAG_array_type"):
            return None
        seen = _type_of(seen)
    return None


def _function_type(die: DIE) -> str:
    parameters = [
        "..." if child.tag == "DW_TAG_unspecified_parameters" else _type_words(_type_of(child))
        for child in die.iter_children()
        if child.tag in ("DW_TAG_formal_parameter", "DW_TAG_unspecified_parameters")
    ]
    return f"{_type_words(_type_of(die))}({', '.join(parameters)})"


def _type_words(die: DIE | None) -> str:
    """A type in words that are the same for the same type in every compilation unit.

    Qualifiers and the names of typedefs are left out: two types then count as the same at most too often.
    """
    if die is None:
        return "void"
    if die.tag in _TRANSPARENT:
        return _type_words(_type_of(die))
    if die.tag == "DW_TAG_pointer_type":
        return f"{_type_words(_type_of(die))}*"
    if die.tag == "DW_TAG_subroutine_type":
        return _function_type(die)
    if die.tag in ("DW_TAG_base_type", "DW_TAG_enumeration_type"):
        size = int(die.attributes["DW_AT_byte_size"].value) if "DW_AT_byte_size" in die.attributes else 0
        is_float = die.tag == "DW_TAG_base_type" and die.attributes["DW_AT_encoding"].value == 4
        return f"{'float' if is_float else 'int'}{8 * size}"
    name = die.attributes["DW_AT_name"].value.decode() if "DW_AT_name" in die.attributes else ""
    return f"{die.tag} {name}"


def _directory(unit: CompileUnit) -> Path:
    top = unit.get_top_DIE()
    found = top.attributes.get("DW_AT_comp_dir")
    return Path(found.value.decode()) if found is not None else Path()


def _file_name(unit: CompileUnit, number: int | None) -> str | None:
    program = unit.dwarfinfo.line_program_for_CU(unit)
    if number is None or program is None:
        return None
    path = _file_path(program, number, Path())
    return None if path is None else path.name


def _file_path(program: LineProgram, number: int, directory: Path) -> Path | None:
    """The path of a file by its number, which counts from 0 since DWARF 5, from 1 before."""
    header = program.header
    files, folders = header["file_entry"], header["include_directory"]
    since_5 = header["version"] >= 5
    index = number if since_5 else number - 1
    if not 0 <= index < len(files):
        return None
    entry = files[index]
    name = Path(entry.name.decode())
    if since_5:
        folder = Path(folders[entry.dir_index].decode())
    else:
        folder = Path(folders[entry.dir_index - 1].decode()) if entry.dir_index else Path()
    return directory / folder / name


def _read_lines(pointers: Pointers, program: LineProgram, directory: Path) -> None:
    paths: dict[int, Path | None] = {}
    is_first, is_dropped = True, False
    for entry in program.get_entries():
        state = entry.state
        if state is None:
            continue
        is_dropped = state.address == _DROPPED if is_first else is_dropped
        is_first = bool(state.end_sequence)
        if is_dropped:
            continue
        if state.file not in paths:
            paths[state.file] = _file_path(program, state.file, directory)
        pointers.lines.append((state.address, None if state.end_sequence else paths[state.file], state.line))
