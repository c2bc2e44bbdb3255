"""A firmware's functions as the disassembler of its toolchain shows them: what each calls, and what stack it takes.

Frames are the compiler's own (``-fstack-usage``: the .su files beside the objects). Those of functions that came
without, from libraries and from assembly, are read off their instructions.
"""

from __future__ import annotations

import bisect
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bitloop.errors import ToolchainError
from bitloop.firmware.elf import Elf, Symbol
from bitloop.firmware.isa import ISAS, Instruction, Isa, Kind, pushed_bytes
from bitloop.firmware.pointers import Pointers

__all__ = ["Frame", "Function", "functions_of", "read_frames"]

_LINE = re.compile(r"^\s*([0-9a-f]+):\t(\S+)(?:\s+(.*))?$")
_FRAME = re.compile(r"^(?P<file>.*):(?P<line>\d+):\d+:(?P<name>.+)\t(?P<bytes>\d+)\t(?P<kind>[a-z,]+)$")
_DISASSEMBLE_S = 60.0
_CONSTRUCTOR = "_GLOBAL__sub_"
"""What GCC's names of functions that construct the objects of C++ begin with."""
_CONSTRUCTS = ("__do_global_ctors", "__do_global_dtors")
"""Start-up code of AVR that calls these from a table."""


@dataclass(frozen=True)
class Frame:
    """A line of a .su file; ``is_bounded`` is False where the function allocates what only running it tells."""

    file: str
    line: int
    name: str
    size: int
    is_bounded: bool


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
        unknown: why its frame, or what it calls, cannot be told; "" where both can. What is no function but data among
            code is so too, and nothing calls it.
        calls: addresses of the functions that it calls, each with the address of one instruction that does.
        jumps: the same of those that it jumps to.
    """

    name: str
    address: int
    end: int
    frame: int = 0
    is_compiled: bool = False
    sets_stack: bool = False
    unknown: str = ""
    calls: dict[int, int] = field(default_factory=dict)
    jumps: dict[int, int] = field(default_factory=dict)


def read_frames(folder: Path) -> tuple[Frame, ...]:
    """Read all .su files of a build.

    Raises:
        ToolchainError: there is none, or one is not understood.
    """
    frames = []
    for path in sorted(folder.rglob("*.su")):
        for line in path.read_text(encoding="utf-8").splitlines():
            found = _FRAME.match(line)
            if found is None:
                raise ToolchainError(f"{path} has a line that is not understood: {line!r}; build the firmware again")
            kind = found["kind"].split(",")
            frames.append(
                Frame(
                    file=re.split(r"[/\\]", found["file"])[-1],
                    line=int(found["line"]),
                    name=found["name"],
                    size=int(found["bytes"]),
                    is_bounded="dynamic" not in kind or "bounded" in kind,
                )
            )
    if not frames:
        raise ToolchainError(f"there are no .su files below {folder}; compile with -fstack-usage")
    return tuple(frames)


def functions_of(image: Elf, pointers: Pointers, frames: Iterable[Frame], *, objdump: str) -> dict[int, Function]:
    """Give the functions of a firmware by address, with all that they call.

    Raises:
        ToolchainError: the disassembler failed, or the processor is not known.
    """
    isa = ISAS.get(image.machine)
    if isa is None:
        raise ToolchainError(f"{image.path} is for {image.machine}, whose instructions are not known here")
    code = _disassemble(image.path, objdump)
    functions = _pieces(image)
    by_name, by_place = _index(frames)
    files = _files_of(image)
    owner = _Owner(functions)
    table_jump = image.by_name.get(isa.table_jump)
    constructors = [address for address, each in functions.items() if each.name.startswith(_CONSTRUCTOR)]
    for function in functions.values():
        lines = _between(code, function.address, function.end)
        _set_frame(isa, function, lines, _frame_of(function, files, pointers, by_name, by_place))
        _Follow(image, isa, pointers, owner, table_jump).follow(function, lines)
        if function.name in _CONSTRUCTS:
            function.calls.update(dict.fromkeys(constructors, function.address))
    return functions


# --- functions and their code -----------------------------------------------------------------------------------------


def _pieces(image: Elf) -> dict[int, Function]:
    """Every symbol in code begins a function, or a part of one in assembly; it ends where it says, or at the next."""
    code = {section.name: section for section in image.sections if section.is_code}
    thumb = image.machine == "EM_ARM"
    starts: dict[int, Symbol] = {}
    for symbol in image.symbols:
        if symbol.section not in code or symbol.kind not in ("func", "notype", "loos") or symbol.name[0] in "$.":
            continue
        address = symbol.address - symbol.address % 2 if thumb else symbol.address
        known = starts.get(address)
        if known is None or (symbol.kind == "func") > (known.kind == "func"):
            starts[address] = symbol
    ordered = sorted(starts)
    found: dict[int, Function] = {}
    for address, following in zip(ordered, [*ordered[1:], None], strict=True):
        symbol = starts[address]
        section = code[symbol.section]
        end = section.address + section.size
        if symbol.size:
            end = min(end, address + symbol.size)
        if following is not None:
            end = min(end, following)
        if end > address:
            found[address] = Function(symbol.name, address, end)
    return found


def _disassemble(path: Path, objdump: str) -> list[Instruction]:
    try:
        done = subprocess.run(
            [objdump, "--disassemble", "--no-show-raw-insn", str(path)],
            capture_output=True,
            text=True,
            timeout=_DISASSEMBLE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ToolchainError(f"{objdump} cannot be run: {error}; scripts/setup-firmware installs it") from error
    if done.returncode:
        raise ToolchainError(f"{objdump} cannot read {path}: {done.stderr.strip()}")
    found = (_LINE.match(line) for line in done.stdout.splitlines())
    code = [
        Instruction(int(line[1], 16), line[2], (line[3] or "").strip())
        for line in found
        if line is not None and not line[2].startswith(".")
    ]
    return sorted(code, key=lambda instruction: instruction.address)


def _between(code: Sequence[Instruction], first: int, last: int) -> Sequence[Instruction]:
    key = lambda instruction: instruction.address  # noqa: E731 - twice the same
    return code[bisect.bisect_left(code, first, key=key) : bisect.bisect_left(code, last, key=key)]


class _Owner:
    """Finds the function that an address lies in."""

    def __init__(self, functions: Mapping[int, Function]) -> None:
        self.functions = functions
        self.starts = sorted(functions)

    def of(self, address: int) -> Function | None:
        at = bisect.bisect_right(self.starts, address) - 1
        if at < 0:
            return None
        function = self.functions[self.starts[at]]
        return function if address < function.end else None


# --- frames -----------------------------------------------------------------------------------------------------------


def _index(frames: Iterable[Frame]) -> tuple[dict[tuple[str, str], list[Frame]], dict[tuple[str, int], list[Frame]]]:
    by_name: dict[tuple[str, str], list[Frame]] = {}
    by_place: dict[tuple[str, int], list[Frame]] = {}
    for frame in frames:
        by_name.setdefault((frame.file, frame.name), []).append(frame)
        by_place.setdefault((frame.file, frame.line), []).append(frame)
    return by_name, by_place


def _files_of(image: Elf) -> dict[int, str]:
    """The source file of each static function: the file symbol before it."""
    files: dict[int, str] = {}
    file = ""
    for symbol in image.symbols:
        if symbol.kind == "file":
            file = symbol.name
        elif symbol.kind == "func" and not symbol.is_global:
            files[symbol.address & ~1] = file
    return files


def _frame_of(
    function: Function,
    files: Mapping[int, str],
    pointers: Pointers,
    by_name: Mapping[tuple[str, str], list[Frame]],
    by_place: Mapping[tuple[str, int], list[Frame]],
) -> Frame | None:
    """The compiler's word on a function: by file and name, else, as C++ writes names out, by where it is defined."""
    declared = pointers.declared.get(function.address)
    file = files.get(function.address) or (declared.file if declared else "")
    found = by_name.get((file, function.name), [])
    if not found and declared is not None:
        found = by_name.get((declared.file, function.name)) or by_place.get((declared.file, declared.line), [])
    return max(found, key=lambda frame: (not frame.is_bounded, frame.size), default=None)


def _set_frame(isa: Isa, function: Function, lines: Sequence[Instruction], frame: Frame | None) -> None:
    if frame is not None:
        function.is_compiled = True
        function.frame = frame.size
        if not frame.is_bounded:
            function.unknown = f"its frame depends on what it is given ({frame.file}:{frame.line}, -fstack-usage)"
        return
    pushed = pushed_bytes(isa, lines)
    if pushed is None:
        function.sets_stack = True
        function.unknown = (
            "it came without -fstack-usage, and changes its stack pointer in a way that is not understood"
        )
    else:
        function.frame = pushed + isa.return_address_bytes


# --- calls ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Follow:
    """Finds what a function calls."""

    image: Elf
    isa: Isa
    pointers: Pointers
    owner: _Owner
    table_jump: Symbol | None

    def follow(self, function: Function, lines: Sequence[Instruction]) -> None:
        through: list[tuple[Instruction, Kind]] = []
        for number, instruction in enumerate(lines):
            flow = self.isa.flow(instruction)
            if flow.kind in (Kind.CALL, Kind.JUMP):
                if flow.target is None:
                    through.append((instruction, flow.kind))
                else:
                    self._add(function, flow.kind, flow.target, instruction)
            skipped = number > 0 and self.isa.skips(lines[number - 1])
            if instruction is lines[-1] and (flow.may_go_on or skipped) and not function.is_compiled:
                following = self.owner.functions.get(function.end)
                if following is not None:
                    function.jumps.setdefault(following.address, instruction.address)
        if through:
            self._through_pointers(function, through, lines)

    def _add(self, function: Function, kind: Kind, target: int, instruction: Instruction) -> None:
        callee = self.owner.of(target)
        if callee is None:
            function.unknown = f"it {kind.value} {target:#x} at {instruction.address:#x}, where no function lies"
        elif kind is Kind.CALL or (self.table_jump is not None and callee.address == self.table_jump.address):
            function.calls.setdefault(callee.address, instruction.address)
        elif callee is not function:
            function.jumps.setdefault(callee.address, instruction.address)

    def _through_pointers(
        self, function: Function, through: Sequence[tuple[Instruction, Kind]], lines: Sequence[Instruction]
    ) -> None:
        """Add what calls and jumps through registers may reach; a switch jumps within its function."""
        if function.name == self.isa.table_jump:
            return
        called = self.pointers.called_from(function.address, function.end)
        loaded = self._loaded(lines) if self.isa.literal_calls else set()
        reached = self.pointers.reached_through(called) | loaded
        switch = self.pointers.has_switch(function.address, function.end)
        for instruction, kind in through:
            if not called and not loaded and not (kind is Kind.JUMP and switch):
                place = f"{instruction.address:#x} ({self.pointers.place(instruction.address)})"
                function.unknown = f"it {kind.value} through a register at {place}, and it cannot be told where to"
            edges = function.calls if kind is Kind.CALL else function.jumps
            for address in reached:
                if address in self.owner.functions:
                    edges.setdefault(address, instruction.address)

    def _loaded(self, lines: Sequence[Instruction]) -> set[int]:
        """Functions whose address is loaded from a literal."""
        found = set()
        for instruction in lines:
            if instruction.mnemonic == "l32r" and (literal := re.search(r", ([0-9a-f]+) ?", instruction.operands)):
                word = self.image.read(int(literal[1], 16), 4) or b""
                found.add(int.from_bytes(word, "little"))
        return found & self.owner.functions.keys()
