"""A firmware's functions as the disassembler of its toolchain shows them: what each calls, and what stack it takes.

Frames are the compiler's own (``-fstack-usage``). Code that came without, from libraries and from assembly, is followed
instruction by instruction from where it is entered; there all that lowers the stack pointer adds up.
"""

from __future__ import annotations

import bisect
import re
import subprocess
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bitloop.errors import ToolchainError
from bitloop.firmware.elf import Elf, Symbol
from bitloop.firmware.frames import Frame
from bitloop.firmware.isa import ISAS, Flow, Instruction, Kind, pushed_bytes
from bitloop.firmware.pointers import Pointers

__all__ = ["CallGraph", "Function"]

_LINE = re.compile(r"^\s*([0-9a-f]+):\t(\S+)(?:\s+(.*))?$")
_LITERAL = re.compile(r", ([0-9a-f]+) ?")
_DISASSEMBLE_S = 60.0
_CONSTRUCTOR = "_GLOBAL__sub_"
"""What GCC's names of functions that construct the objects of C++ begin with."""
_NOWHERE = 0
"""A call of a weak function that is not there, behind a question for it; or a jump to the reset of an AVR."""
_CONSTRUCTS = ("__do_global_ctors", "__do_global_dtors")
"""Start-up code of AVR that calls these from a table."""


@dataclass
class Function:
    """A function of the firmware.

    Attributes:
        name: of the linker's.
        address: of its first instruction.
        end: of the first byte behind it.
        frame: bytes of stack it takes, the return address too where a call pushes one.
        is_compiled: whether the compiler told its frame. Such a function gives it back before it jumps to another one;
            of others that is not known.
        sets_stack: whether it changes the stack pointer by what is not known, as start-up code does that sets it.
        unknown: why its frame, or what it calls, cannot be told; "" where both can.
        calls: addresses of what it calls.
        jumps: addresses outside of it that it jumps to.
    """

    name: str
    address: int
    end: int
    frame: int = 0
    is_compiled: bool = False
    sets_stack: bool = False
    unknown: str = ""
    calls: set[int] = field(default_factory=set)
    jumps: set[int] = field(default_factory=set)


class CallGraph:
    """What calls what.

    Attributes:
        compiled: the functions whose frame the compiler told, by address.
        virtual: addresses of the virtual functions of C++, which the table of their class keeps in the firmware.
    """

    def __init__(
        self, image: Elf, pointers: Pointers, frames: Iterable[Frame], *, taken: Collection[str], objdump: str
    ) -> None:
        """Read a firmware.

        Args:
            image: the ELF file.
            pointers: its debugging information.
            frames: what the compiler says of its functions.
            taken: names of the functions whose address is taken.
            objdump: command that disassembles it.

        Raises:
            ToolchainError: the disassembler failed, or the processor is not known.
        """
        if image.machine not in ISAS:
            raise ToolchainError(f"{image.path} is for {image.machine}, whose instructions are not known here")
        if image.machine == "EM_XTENSA" and not any(section.name == ".xt.prop" for section in image.sections):
            message = "lacks the section .xt.prop, without which its code cannot be told from padding; keep it in the"
            raise ToolchainError(f"{image.path} {message} linker script")
        self._image = image
        self._isa = ISAS[image.machine]
        self._pointers = pointers
        self._code = _disassemble(image, objdump)
        self._starts = [instruction.address for instruction in self._code]
        self._symbols = _symbols_of_code(image)
        self._symbol_starts = sorted(self._symbols)
        self._taken = {_code_address(image, symbol) for symbol in image.symbols if symbol.name in taken}
        self._entered: dict[int, Function] = {}
        self.compiled: dict[int, Function] = {}
        self.virtual = {address for known in pointers.virtual.values() for address, _ in known}
        find = _FrameFinder(image, pointers, frames)
        for address, symbol in self._symbols.items():
            frame = find.frame_of(address, symbol)
            if frame is not None and symbol.size:
                self.compiled[address] = self._read_compiled(symbol, address, frame)
        self._compiled_starts = sorted(self.compiled)
        for function in self.compiled.values():
            function.jumps = {address for address in function.jumps if self.at(address) is not function}

    def at(self, address: int, *, is_entry: bool = False) -> Function:
        """Give the compiled function that an address lies in, or what is done from there on.

        Args:
            address: where a call or a jump leads.
            is_entry: the firmware begins there. Its start-up code calls what never returns.
        """
        function = self._compiled_at(address)
        if function is not None:
            return function
        if address not in self._entered:
            self._entered[address] = self._follow(address, is_entry=is_entry)
        return self._entered[address]

    def named(self, name: str) -> Function:
        """Give a function by its name.

        Raises:
            ToolchainError: there is none.
        """
        return self.at(_code_address(self._image, self._image.symbol(name)))

    def entry(self) -> Function:
        """Give what is done from reset on, with an empty stack: setting the stack pointer takes nothing of it."""
        address = self._image.entry & ~1 if self._image.machine == "EM_ARM" else self._image.entry
        if self._image.machine == "EM_AVR":  # the entry is the table of vectors, which jumps to every handler
            address = _code_address(self._image, self._image.symbol("__init"))
        function = self.at(address, is_entry=True)
        if function.sets_stack:
            function.unknown = ""
        return function

    def pushed(self, function: Function) -> int | None:
        """Give what the instructions of a compiled function push, a second witness to its frame; None: not clear."""
        return pushed_bytes(self._isa, self._lines(function))

    # --- compiled functions ---

    def _lines(self, function: Function) -> Sequence[Instruction]:
        begin, end = (bisect.bisect_left(self._starts, at) for at in (function.address, function.end))
        return self._code[begin:end]

    def _read_compiled(self, symbol: Symbol, address: int, frame: Frame) -> Function:
        function = Function(symbol.name, address, address + symbol.size, frame.size, is_compiled=True)
        if not frame.is_bounded:
            function.unknown = f"its frame depends on what it is given ({frame.file}:{frame.line}, -fstack-usage)"
        lines = self._lines(function)
        registers: list[tuple[Instruction, Flow]] = []
        for instruction in lines:
            flow = self._isa.flow(instruction)
            if flow.kind in (Kind.CALL, Kind.JUMP) and flow.target != _NOWHERE:
                if flow.target is None:
                    registers.append((instruction, flow))
                else:
                    self._add(function, flow.kind, flow.target)
        if registers:
            self._through_registers(function, registers, lines)
        return function

    def _add(self, function: Function, kind: Kind, target: int) -> None:
        table_jump = self._image.by_name.get(self._isa.table_jump)
        if kind is Kind.CALL or (table_jump is not None and target == table_jump.address):
            function.calls.add(target)
        elif not function.address <= target < function.end:
            function.jumps.add(target)

    def _through_registers(
        self, function: Function, registers: Sequence[tuple[Instruction, Flow]], lines: Sequence[Instruction]
    ) -> None:
        """Add what calls and jumps through registers may reach; a switch jumps within its function."""
        called = self._pointers.called_from(function.address, function.end)
        loaded = self._loaded(lines) if self._isa.literal_calls else set()
        reached = (self._pointers.reached_through(called) & self._taken) | loaded
        switch = self._pointers.has_switch(function.address, function.end)
        for instruction, flow in registers:
            if not called and not loaded and not (flow.kind is Kind.JUMP and switch):
                function.unknown = self._through_register(instruction, flow)
            (function.calls if flow.kind is Kind.CALL else function.jumps).update(reached)

    def _through_register(self, instruction: Instruction, flow: Flow) -> str:
        place = f"{instruction.address:#x} ({self._pointers.place(instruction.address)})"
        return f"it {flow.kind.value} through a register at {place}, and it cannot be told where to"

    def _loaded(self, lines: Sequence[Instruction]) -> set[int]:
        """Functions whose address is loaded from a literal."""
        found = set()
        for instruction in lines:
            if instruction.mnemonic == "l32r" and (literal := _LITERAL.search(instruction.operands)):
                word = self._image.read(int(literal[1], 16), 4) or b""
                found.add(int.from_bytes(word, "little"))
        return found & self._symbols.keys()

    # --- other code ---

    def _follow(self, address: int, *, is_entry: bool) -> Function:
        """Follow code that came without frames, into all that it jumps to without leaving such code."""
        function = Function(self._name_of(address), address, address, return_bytes := self._isa.return_address_bytes)
        waiting = [address]
        seen: set[int] = set()
        while waiting:
            at = waiting.pop()
            number = bisect.bisect_left(self._starts, at)
            if at in seen:
                continue
            if number == len(self._starts) or self._starts[number] != at:
                function.unknown = f"it goes on at {at:#x}, where no instruction lies"
                continue
            seen.add(at)
            instruction = self._code[number]
            flow = self._isa.flow(instruction)
            following = self._starts[number + 1 : number + (3 if self._isa.skips(instruction) else 2)]
            if flow.kind is Kind.CALL:
                self._call_of_other(function, instruction, flow)
                if not (is_entry and following and following[0] in self._symbols):
                    waiting += following
                continue
            if flow.kind is Kind.JUMP:
                waiting += self._jump_of_other(function, instruction, flow)
            if flow.may_go_on:
                waiting += following
        pushed = pushed_bytes(self._isa, [self._code[bisect.bisect_left(self._starts, at)] for at in sorted(seen)])
        if pushed is None:
            function.sets_stack = True
            function.unknown = function.unknown or (
                "it came without -fstack-usage, and changes its stack pointer in a way that is not understood"
            )
        else:
            function.frame = pushed + return_bytes
        return function

    def _call_of_other(self, function: Function, instruction: Instruction, flow: Flow) -> None:
        holder = self._symbol_around(instruction.address)
        if holder is not None and holder.name in _CONSTRUCTS:
            function.calls |= {at for at, each in self._symbols.items() if each.name.startswith(_CONSTRUCTOR)}
        if flow.target is None:
            function.unknown = self._through_register(instruction, flow)
        elif flow.target != _NOWHERE:
            function.calls.add(flow.target)

    def _jump_of_other(self, function: Function, instruction: Instruction, flow: Flow) -> Iterable[int]:
        """Give where to go on; a jump to a compiled function is added to the function's."""
        if flow.target == _NOWHERE:
            return ()
        if flow.target is not None:
            if self._compiled_at(flow.target) is not None:
                function.jumps.add(flow.target)
                return ()
            return (flow.target,)
        holder = self._symbol_around(instruction.address)
        if holder is not None and holder.name == self._isa.table_jump:
            return ()  # back to who has jumped here: its cases are part of it
        begin = 0 if holder is None else _code_address(self._image, holder)
        if holder is None or not holder.size or not self._pointers.has_switch(begin, begin + holder.size):
            function.unknown = self._through_register(instruction, flow)
            return ()
        first, last = (bisect.bisect_left(self._starts, at) for at in (begin, begin + holder.size))
        return self._starts[first:last]

    def _compiled_at(self, address: int) -> Function | None:
        before = bisect.bisect_right(self._compiled_starts, address) - 1
        function = self.compiled[self._compiled_starts[before]] if before >= 0 else None
        return function if function is not None and address < function.end else None

    def _symbol_around(self, address: int) -> Symbol | None:
        before = bisect.bisect_right(self._symbol_starts, address) - 1
        return self._symbols[self._symbol_starts[before]] if before >= 0 else None

    def _name_of(self, address: int) -> str:
        symbol = self._symbol_around(address)
        if symbol is None:
            return f"{address:#x}"
        behind = address - _code_address(self._image, symbol)
        return f"{symbol.name}+{behind:#x}" if behind else symbol.name


# --- code and its symbols ---------------------------------------------------------------------------------------------


def _code_address(image: Elf, symbol: Symbol) -> int:
    """Where a function lies: in Thumb code the lowest bit of a symbol says that it is."""
    return symbol.address & ~1 if image.machine == "EM_ARM" else symbol.address


def _symbols_of_code(image: Elf) -> dict[int, Symbol]:
    """The names of code by address; of several the function's, which has a size."""
    code = {section.name for section in image.sections if section.is_code}
    found: dict[int, Symbol] = {}
    for symbol in image.symbols:
        if symbol.section not in code or symbol.kind not in ("func", "notype") or symbol.name[0] in "$.":
            continue
        address = _code_address(image, symbol)
        known = found.get(address)
        if known is None or (symbol.kind == "func", symbol.size) > (known.kind == "func", known.size):
            found[address] = symbol
    return found


def _disassemble(image: Elf, objdump: str) -> list[Instruction]:
    try:
        done = subprocess.run(
            [objdump, "--disassemble", "--no-show-raw-insn", str(image.path)],
            capture_output=True,
            text=True,
            timeout=_DISASSEMBLE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolchainError(f"{objdump} cannot be run: {error}; scripts/setup-firmware installs it") from error
    if done.returncode:
        raise ToolchainError(f"{objdump} cannot read {image.path}: {done.stderr.strip()}")
    found = (_LINE.match(line) for line in done.stdout.splitlines())
    code = [
        Instruction(int(line[1], 16), line[2], (line[3] or "").strip())
        for line in found
        if line is not None and not line[2].startswith(".")
    ]
    return sorted(code, key=lambda instruction: instruction.address)


# --- frames -----------------------------------------------------------------------------------------------------------


class _FrameFinder:
    """Finds the compiler's word on a function: by file and name, else, as C++ writes names out, by where it is."""

    def __init__(self, image: Elf, pointers: Pointers, frames: Iterable[Frame]) -> None:
        self._declared = pointers.declared
        self._files = _files_of(image)
        self._by_name: dict[tuple[str, str], list[Frame]] = {}
        self._by_place: dict[tuple[str, int], list[Frame]] = {}
        for frame in frames:
            self._by_name.setdefault((frame.file, frame.name), []).append(frame)
            self._by_place.setdefault((frame.file, frame.line), []).append(frame)

    def frame_of(self, address: int, symbol: Symbol) -> Frame | None:
        """Give it, or None where there is none: the function is not of our making, or in assembly."""
        declared = self._declared.get(address)
        found = self._by_name.get((self._files.get(address, ""), symbol.name), [])
        if not found and declared is not None:
            found = self._by_name.get((declared.file, symbol.name)) or self._by_place.get(
                (declared.file, declared.line), []
            )
        return max(found, key=lambda frame: (not frame.is_bounded, frame.size), default=None)


def _files_of(image: Elf) -> Mapping[int, str]:
    """The source file of each static function: the file symbol before it."""
    files: dict[int, str] = {}
    file = ""
    for symbol in image.symbols:
        if symbol.kind == "file":
            file = symbol.name
        elif symbol.kind == "func" and not symbol.is_global:
            files[_code_address(image, symbol)] = file
    return files
