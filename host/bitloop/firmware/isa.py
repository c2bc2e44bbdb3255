"""What instructions do to the flow of a program and to its stack pointer, for each instruction set of the boards.

Instructions are read as text, as objdump of the compiler's own toolchain prints them. Only what calls, jumps, returns
or moves the stack pointer is told apart; what writes it in another way than those known here is said to be unknown.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

__all__ = ["ISAS", "Flow", "Instruction", "Isa", "Kind", "pushed_bytes"]


class Kind(Enum):
    """What an instruction does to the flow."""

    NEXT = "goes on"
    CALL = "calls"
    JUMP = "jumps"
    RETURN = "returns"


@dataclass(frozen=True)
class Instruction:
    """A line of a disassembly."""

    address: int
    mnemonic: str
    operands: str


@dataclass(frozen=True)
class Flow:
    """Where an instruction leads.

    Attributes:
        kind: calls, jumps, …
        target: address, or None where it is in a register.
        may_go_on: whether what follows may be next without a return.
    """

    kind: Kind
    target: int | None = None
    may_go_on: bool = True


@dataclass(frozen=True)
class Isa:
    """An instruction set.

    Attributes:
        flow: what an instruction does.
        pushed: bytes by which an instruction lowers the stack pointer, or None where that cannot be told.
        literal_calls: whether a call through a register may be one of a function whose address the caller has loaded.
        table_jump: function that a switch jumps through, or "".
        return_address_bytes: what a call pushes.
        skipping: instructions that skip the one after them.
    """

    flow: Callable[[Instruction], Flow]
    pushed: Callable[[Instruction, Mapping[str, int]], int | None]
    literal_calls: bool = False
    table_jump: str = ""
    return_address_bytes: int = 0
    skipping: tuple[str, ...] = ()

    def skips(self, instruction: Instruction) -> bool:
        """Tell whether the instruction after this one may be left out."""
        return instruction.mnemonic in self.skipping


_TARGET = re.compile(r"(?:0x)?([0-9a-f]+) <[^>]*>")
_NEXT = Flow(Kind.NEXT)


def _target(instruction: Instruction) -> int | None:
    found = _TARGET.findall(instruction.operands)
    return int(found[-1], 16) if found else None


def _first(instruction: Instruction) -> str:
    return instruction.operands.split(",")[0].strip()


# --- ARM, Thumb-2 -----------------------------------------------------------------------------------------------------

_CONDITION = "(eq|ne|cs|cc|hs|lo|mi|pl|vs|vc|hi|ls|ge|lt|gt|le|al)?"
_ARM_CALL = re.compile(rf"blx?{_CONDITION}$")
_ARM_JUMP = re.compile(rf"b{_CONDITION}$|cbn?z$")
_ARM_BX = re.compile(rf"bx{_CONDITION}$")
_ARM_STORE = re.compile(r"(str|stm|cmp|cmn|tst|vst|push|vpush)")
_ARM_REGISTERS = re.compile(r"([rds])(\d+)(?:-[rds](\d+))?|lr|pc|ip|fp|sl|sb|sp")


def _arm_flow(instruction: Instruction) -> Flow:
    name, operands = instruction.mnemonic.split(".")[0], instruction.operands
    target = _target(instruction)
    if call := _ARM_CALL.match(name):
        return Flow(Kind.CALL, target)
    if _ARM_JUMP.match(name):
        return Flow(Kind.JUMP, target, may_go_on=name != "b")
    if call := _ARM_BX.match(name):
        conditional = call[1] is not None
        return Flow(Kind.RETURN if operands.strip() == "lr" else Kind.JUMP, None, may_go_on=conditional)
    if name in ("tbb", "tbh"):
        return Flow(Kind.RETURN, may_go_on=False)  # to a place within the function: its table holds distances
    conditional = name not in ("pop", "ldr", "ldm", "ldmia", "mov", "add")
    if name.startswith(("pop", "ldm")) and re.search(r"\bpc\b", operands):
        return Flow(Kind.RETURN, may_go_on=conditional)
    if name.startswith(("ldr", "mov", "add")) and _first(instruction) == "pc":
        returns = re.match(r"pc, (\[sp\], #\d+|lr)", operands)
        return Flow(Kind.RETURN if returns else Kind.JUMP, None, may_go_on=conditional)
    return _NEXT


def _arm_pushed(instruction: Instruction, values: Mapping[str, int]) -> int | None:  # noqa: ARG001 - as of every ISA
    name, operands = instruction.mnemonic.split(".")[0], instruction.operands
    if name in ("push", "vpush") or (name in ("stmdb", "vstmdb") and operands.startswith("sp!")):
        return _arm_list_bytes(operands[operands.index("{") :])
    if lowered := re.search(r"\[sp, #-(\d+)\]!", operands):
        return int(lowered[1])
    if lowered := re.match(r"sp, (?:sp, )?#(\d+)", operands):
        return int(lowered[1]) if name in ("sub", "subw") else 0 if name in ("add", "addw") else None
    special = name == "msr" and re.match(r"[mp]sp\b", operands, re.IGNORECASE)
    if special or (_first(instruction) == "sp" and not _ARM_STORE.match(name)):
        return None
    return 0


def _arm_list_bytes(registers: str) -> int:
    total = 0
    for kind, first, last in (match.groups() for match in _ARM_REGISTERS.finditer(registers)):
        total += (8 if kind == "d" else 4) * (int(last) - int(first) + 1 if last else 1)
    return total


# --- RISC-V -----------------------------------------------------------------------------------------------------------


def _riscv_flow(instruction: Instruction) -> Flow:
    name = instruction.mnemonic.removeprefix("c.")
    target = _target(instruction)
    if name in ("jal", "jalr"):
        if _first(instruction) in ("zero", "x0"):
            return Flow(Kind.JUMP, target, may_go_on=False)
        return Flow(Kind.CALL, target)
    if name in ("j", "jr"):
        returns = name == "jr" and instruction.operands.strip() == "ra"
        return Flow(Kind.RETURN if returns else Kind.JUMP, target, may_go_on=False)
    if name in ("ret", "mret", "sret", "uret"):
        return Flow(Kind.RETURN, may_go_on=False)
    if name.startswith("b") and target is not None:
        return Flow(Kind.JUMP, target)
    return _NEXT


def _riscv_pushed(instruction: Instruction, values: Mapping[str, int]) -> int | None:  # noqa: ARG001
    name = instruction.mnemonic.removeprefix("c.")
    if changed := re.match(r"sp,\s*(?:sp,\s*)?(-?\d+)$", instruction.operands):
        return max(-int(changed[1]), 0) if name in ("add", "addi", "addi16sp") else None
    only_reads = re.match(r"s[bhwd]$|b", name)
    return None if _first(instruction) == "sp" and not only_reads else 0


# --- Xtensa, call0 ABI ------------------------------------------------------------------------------------------------


def _xtensa_flow(instruction: Instruction) -> Flow:
    name = instruction.mnemonic.removesuffix(".n")
    target = _target(instruction)
    if re.match(r"callx?\d+$", name):
        return Flow(Kind.CALL, None if name.startswith("callx") else target)
    if name in ("j", "jx", "j.l"):
        return Flow(Kind.JUMP, None if name == "jx" else target, may_go_on=False)
    if name in ("ret", "rfe", "rfi", "rfde", "rfwo", "rfwu"):
        return Flow(Kind.RETURN, may_go_on=False)
    if name.startswith("b") and target is not None:
        return Flow(Kind.JUMP, target)
    return _NEXT


def _xtensa_pushed(instruction: Instruction, values: Mapping[str, int]) -> int | None:
    name = instruction.mnemonic.removesuffix(".n")
    register = r"(?:a1|sp)"
    if changed := re.match(rf"{register}, {register}, (-?\d+)$", instruction.operands):
        return max(-int(changed[1]), 0) if name in ("addi", "addmi") else None
    if (changed := re.match(rf"{register}, {register}, (a\d+)$", instruction.operands)) and name in ("add", "sub"):
        value = values.get(changed[1])
        return None if value is None else max(value if name == "sub" else -value, 0)
    if name == "entry":
        return None  # windowed ABI
    stores = re.match(r"s(8|16|32)i|b|wsr|xsr", name)
    return None if _first(instruction) in ("a1", "sp") and not stores else 0


# --- AVR --------------------------------------------------------------------------------------------------------------


_AVR_RETURN_BYTES = 3
"""On chips of up to 128 KB it is 2: there it counts one too much."""


def _avr_flow(instruction: Instruction) -> Flow:
    name = instruction.mnemonic
    target = _target(instruction)
    if name in ("call", "rcall"):
        if target == instruction.address + 2:
            return _NEXT  # rcall .+0: makes room on the stack
        return Flow(Kind.CALL, target)
    if name in ("icall", "eicall"):
        return Flow(Kind.CALL)
    if name in ("jmp", "rjmp"):
        return Flow(Kind.JUMP, target, may_go_on=False)
    if name in ("ijmp", "eijmp"):
        return Flow(Kind.JUMP, may_go_on=False)
    if name in ("ret", "reti"):
        return Flow(Kind.RETURN, may_go_on=False)
    if name.startswith("br") and target is not None:
        return Flow(Kind.JUMP, target)
    return _NEXT


def _avr_pushed(instruction: Instruction, values: Mapping[str, int]) -> int | None:  # noqa: ARG001
    name = instruction.mnemonic
    if name == "push":
        return 1
    if name == "rcall" and _target(instruction) == instruction.address + 2:
        return _AVR_RETURN_BYTES
    return None if name == "out" and _first(instruction) in ("0x3d", "0x3e") else 0


ISAS: Mapping[str, Isa] = {
    "EM_ARM": Isa(_arm_flow, _arm_pushed),
    "EM_RISCV": Isa(_riscv_flow, _riscv_pushed),
    "EM_XTENSA": Isa(_xtensa_flow, _xtensa_pushed, literal_calls=True),
    "EM_AVR": Isa(
        _avr_flow,
        _avr_pushed,
        table_jump="__tablejump2__",
        return_address_bytes=_AVR_RETURN_BYTES,
        skipping=("cpse", "sbic", "sbis", "sbrc", "sbrs"),
    ),
}
"""By pyelftools' name of the processor."""

_CONSTANT = re.compile(r"(a\d+), (-?\d+)$")


def pushed_bytes(isa: Isa, code: Sequence[Instruction]) -> int | None:
    """Give the most that a function lowers the stack pointer by itself: the sum of all that lowers it.

    Returns:
        Bytes, or None where an instruction changes the stack pointer in a way that is not understood.
    """
    total = 0
    values: dict[str, int] = {}
    for instruction in code:
        if found := _CONSTANT.match(instruction.operands):
            values.pop(found[1], None)
            if instruction.mnemonic.startswith("movi"):
                values[found[1]] = int(found[2])
        pushed = isa.pushed(instruction, values)
        if pushed is None:
            return None
        total += pushed
    return total
