"""Last words of a firmware that panicked, in words of a person. Pure functions over text.

Where a table is from stands beside it. Known are bitloop's own ports, ESP-IDF (and so Arduino on an ESP32), Arduino on
an ESP8266, Zephyr, Mbed OS and NuttX.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["Panic", "find_panic", "plain_text"]

_MOST_DETAILS = 8
_MOST_LINE = 200
_NEAR_LINES = 3
_ESCAPES = re.compile(r"\x1b\[[0-9;]*[A-Za-z]")
_DETAIL = re.compile(
    r"Backtrace:|(?:PC|MEPC|EPC1|A0|EXCVADDR|EXCCAUSE|MCAUSE|MTVAL|RA|SP)\s*:|epc1=|excvaddr|Setting breakpoint"
    r"|Memory dump|Core\s+\d+ register dump|Detected in task|(?:E|W) ?\([0-9:.]+\) \w+:|- \w+ \(CPU|CPU \d+: "
    r"|ctx: |sp: |[rRaA]\d+/|Faulting instruction|lr:|r15/pc|mepc:|mcause"
)


@dataclass(frozen=True)
class Panic:
    """What a firmware said as it died.

    Attributes:
        words: The line that says it, as it came.
        meaning: The same for a person, "" if the line says all.
        details: Registers and backtrace, the first lines.
    """

    words: str
    meaning: str
    details: tuple[str, ...] = ()

    def __str__(self) -> str:
        text = f"{self.words} ({self.meaning})" if self.meaning else self.words
        return " | ".join((text, *self.details))


def plain_text(data: bytes) -> str:
    """Give text without colours, zero bytes and other control characters; lines end with a newline."""
    text = _ESCAPES.sub("", data.decode("utf-8", "replace")).replace("\0", "\n").replace("\r", "\n")
    return "".join(c if c == "\n" or c.isprintable() else "\ufffd" for c in text)


def find_panic(text: str) -> Panic | None:
    """Find the last panic in a text of :func:`plain_text`; None if there is none.

    Where several lines say it (a stack was smashed, so abort() was called), the first of them says why.
    """
    lines = [line.strip() for line in text.split("\n") if line.strip()]
    found: tuple[int, str, str] | None = None
    for number in range(len(lines) - 1, -1, -1):
        if found is not None and found[0] - number > _NEAR_LINES:
            break
        for pattern, explain in _PANICS:
            match = pattern.search(lines[number])
            if match:
                found = number, _shown(lines[number][match.start() :]), explain(match)
                break
    return None if found is None else Panic(found[1], found[2], _details(lines[found[0] + 1 :]))


def _details(lines: list[str]) -> tuple[str, ...]:
    """Take registers and backtrace from what follows."""
    kept = [_shown(line) for line in lines[:40] if _DETAIL.match(line) or any(p.search(line) for p, _ in _PANICS)]
    return tuple(kept[:_MOST_DETAILS])


def _shown(line: str) -> str:
    return line if len(line) <= _MOST_LINE else line[:_MOST_LINE] + "…"


# --- bitloop's own ports (device/ports): a line "bitloop: … name=hex …" ---

_CFSR = {
    0: "IACCVIOL: an instruction was fetched where none may be",
    1: "DACCVIOL: data were accessed where they may not be",
    3: "MUNSTKERR: memory protection struck as an exception returned",
    4: "MSTKERR: memory protection struck as an exception was entered, most likely a stack overflow",
    5: "MLSPERR: memory protection struck as floating-point registers were saved",
    8: "IBUSERR: bus error as an instruction was fetched",
    9: "PRECISERR: bus error of a load or store",
    10: "IMPRECISERR: bus error of an earlier store",
    11: "UNSTKERR: bus error as an exception returned",
    12: "STKERR: bus error as an exception was entered, most likely a stack overflow",
    13: "LSPERR: bus error as floating-point registers were saved",
    16: "UNDEFINSTR: an instruction that does not exist",
    17: "INVSTATE: a jump to an address that is no Thumb code",
    18: "INVPC: an exception returned to nowhere",
    19: "NOCP: the floating-point unit is off, or not there",
    24: "UNALIGNED: an unaligned access",
    25: "DIVBYZERO: a division by zero",
}
"""Bits of the Configurable Fault Status Register: Arm DDI 0403E, B3.2.15."""

_BFARVALID = 15
_HFSR = {1: "VECTTBL: the vector table could not be read", 31: "DEBUGEVT: a breakpoint without a debugger"}
"""Bits of the HardFault Status Register, DDI 0403E, B3.2.16; bit 30, FORCED, sends the reader to CFSR."""

_EXCEPTIONS = {
    2: "NMI",
    3: "HardFault",
    4: "MemManage",
    5: "BusFault",
    6: "UsageFault",
    11: "SVCall",
    12: "DebugMonitor",
}
"""Arm DDI 0403E, table B1-4; 16 is the first external interrupt."""

_MCAUSE = {
    0: "instruction address misaligned",
    1: "instruction access fault",
    2: "illegal instruction",
    3: "breakpoint",
    4: "load address misaligned",
    5: "load access fault",
    6: "store address misaligned",
    7: "store access fault",
    8: "environment call from U-mode",
    9: "environment call from S-mode",
    11: "environment call from M-mode",
    12: "instruction page fault",
    13: "load page fault",
    15: "store page fault",
}
"""The RISC-V Instruction Set Manual, volume II, version 20211203, table 3.6; with bit 31 set it is an interrupt."""

_EXCCAUSE = {
    0: "IllegalInstruction",
    1: "Syscall",
    2: "InstructionFetchError",
    3: "LoadStoreError: a load or store of a width or at a place that the memory does not take",
    4: "Level1Interrupt",
    5: "Alloca",
    6: "IntegerDivideByZero",
    8: "Privileged",
    9: "LoadStoreAlignment: an unaligned load or store",
    12: "InstrPIFDataError",
    13: "LoadStorePIFDataError",
    14: "InstrPIFAddrError",
    15: "LoadStorePIFAddrError",
    16: "InstTLBMiss",
    17: "InstTLBMultiHit",
    18: "InstFetchPrivilege",
    20: "InstFetchProhibited: a jump to where no code is",
    24: "LoadStoreTLBMiss",
    25: "LoadStoreTLBMultiHit",
    26: "LoadStorePrivilege",
    28: "LoadProhibited: a load from where nothing may be read",
    29: "StoreProhibited: a store to where nothing may be written",
}
"""Xtensa Instruction Set Architecture Reference Manual (2010), table 4-64."""


def _words_of(line: str) -> dict[str, int]:
    return {name: int(value, 16) for name, value in re.findall(r"(\w+)=([0-9a-fA-F]{1,8})\b", line)}


def _cortex_m(match: re.Match[str]) -> str:
    words = _words_of(match[0])
    cfsr, hfsr = words.get("cfsr", 0), words.get("hfsr", 0)
    found = [text for bit, text in _CFSR.items() if cfsr >> bit & 1]
    found += [text for bit, text in _HFSR.items() if hfsr >> bit & 1]
    if cfsr >> _BFARVALID & 1:
        found.append(f"at address 0x{words.get('bfar', 0):08x}")
    number = re.search(r"exception ([0-9a-f]{8})", match[0])
    if number:
        value = int(number[1], 16)
        name = f"interrupt {value - 16}" if value >= 16 else f"exception {value}"
        found.insert(0, f"{_EXCEPTIONS.get(value, name)} taken, which the firmware has no handler for")
    if words.get("pc") == 0 and words.get("lr") == 0:
        found.append("the stack had overflowed: where it happened is not known")
    elif "pc" in words:
        found.append(f"the instruction is at 0x{words['pc']:08x}, called from 0x{words.get('lr', 0) & ~1:08x}")
    return "; ".join(found)


def _riscv(match: re.Match[str]) -> str:
    words = _words_of(match[0])
    cause = words.get("mcause", 0)
    if cause >> 31:
        what = f"interrupt {cause & 0x7FFFFFFF}, which the firmware has no handler for"
    else:
        what = _MCAUSE.get(cause, f"cause {cause}")
    return (
        f"{what}; the instruction is at 0x{words.get('mepc', 0):08x}, address or instruction "
        f"0x{words.get('mtval', 0):08x}"
    )


def _xtensa_name(cause: int) -> str:
    if 32 <= cause < 40:
        return f"Coprocessor{cause - 32}Disabled"
    return _EXCCAUSE.get(cause, f"cause {cause}")


def _lx106(match: re.Match[str]) -> str:
    words = _words_of(match[0])
    return (
        f"{_xtensa_name(words.get('exccause', 0))}; the instruction is at 0x{words.get('epc1', 0):08x}, "
        f"address 0x{words.get('excvaddr', 0):08x}"
    )


# --- others ---

_ESP_IDF = {
    "IllegalInstruction": "an instruction that does not exist: often a function without return, or damaged code",
    "Illegal instruction": "an instruction that does not exist: often a function without return, or damaged code",
    "InstrFetchProhibited": "a jump to where no code is",
    "Instruction access fault": "a jump to where no code is",
    "LoadProhibited": "a load from where nothing may be read: EXCVADDR near 0 is a null pointer",
    "StoreProhibited": "a store to where nothing may be written: EXCVADDR near 0 is a null pointer",
    "Load access fault": "a load from where nothing may be read: MTVAL near 0 is a null pointer",
    "Store access fault": "a store to where nothing may be written: MTVAL near 0 is a null pointer",
    "IntegerDivideByZero": "a division by zero",
    "LoadStoreAlignment": "an unaligned load or store",
    "Load address misaligned": "an unaligned load",
    "Store address misaligned": "an unaligned store",
    "LoadStoreError": "a load or store of a width that this memory does not take",
    "Unhandled debug exception": "the end of a stack was written, or a breakpoint met",
    "Double exception": "an exception in an exception handler, often after a stack overflow",
    "Interrupt wdt timeout on CPU": "interrupts were off, or one was handled, for too long",
    "Cache disabled but cached memory region accessed": "flash was written while code ran from it",
    "Cache error": "flash was written while code ran from it",
    "Stack protection fault": "a stack overflow",
    "Memory protection fault": "an access that memory protection forbids",
}
"""Reasons of "Guru Meditation Error": ESP-IDF Programming Guide, "Fatal Errors"."""

_ZEPHYR = {0: "CPU exception", 1: "unhandled interrupt", 2: "stack overflow", 3: "kernel oops", 4: "kernel panic"}
"""enum k_fatal_error_reason of Zephyr's include/zephyr/fatal_types.h."""


def _guru(match: re.Match[str]) -> str:
    return next((meaning for reason, meaning in _ESP_IDF.items() if match[1].startswith(reason)), "")


def _says(meaning: str) -> Callable[[re.Match[str]], str]:
    return lambda _: meaning


_PANICS: tuple[tuple[re.Pattern[str], Callable[[re.Match[str]], str]], ...] = (
    (re.compile(r"bitloop: (?:HardFault|exception [0-9a-f]{8}) pc=.*"), _cortex_m),
    (re.compile(r"bitloop: trap mcause=.*"), _riscv),
    (re.compile(r"bitloop: exception exccause=.*"), _lx106),
    (re.compile(r"Guru Meditation Error: Core\s+\d+ panic'ed \(([^)]*)\)"), _guru),
    (re.compile(r"abort\(\) was called at PC 0x[0-9a-f]+"), _says("the firmware gave itself up: see the lines before")),
    (re.compile(r"assert failed: "), _says("a condition that the firmware relies on did not hold")),
    (re.compile(r"\*\*\*ERROR\*\*\* A stack overflow in task"), _says("a task needs a larger stack")),
    (re.compile(r"Stack smashing protect failure!"), _says("a buffer on the stack was overrun")),
    (re.compile(r"CORRUPT HEAP: "), _says("memory of the heap was overrun")),
    (
        re.compile(r"Brownout detector was triggered"),
        _says("the supply voltage sank: use a shorter cable, another port or a stronger supply"),
    ),
    (re.compile(r"Task watchdog got triggered"), _says("a task kept the processor for too long")),
    (re.compile(r"Fatal exception \(?(\d+)"), lambda match: _xtensa_name(int(match[1]))),
    (re.compile(r"^Exception \((\d+)\):"), lambda match: _xtensa_name(int(match[1]))),
    (re.compile(r"^(?:Soft )?WDT reset|^wdt reset", re.IGNORECASE), _says("the watchdog was not served in time")),
    (re.compile(r"User exception \(panic/abort/assert\)"), _says("the firmware gave itself up: see the lines before")),
    (re.compile(r">>> ZEPHYR FATAL ERROR (\d+)"), lambda match: _ZEPHYR.get(int(match[1]), "")),
    (re.compile(r"\+\+ MbedOS (?:Fault Handler|Error Info) \+\+"), _says("see the registers")),
    (
        re.compile(r"(?:_assert|up_assert|dump_assert_info): .*"),
        _says("NuttX stopped on a condition that did not hold"),
    ),
)
"""What a panic begins with. ESP-IDF Programming Guide, "Fatal Errors" and "Watchdogs"; Arduino core for ESP8266,
"My ESP crashes"; Zephyr, "Fatal Errors"; Mbed OS, "Error handling"; NuttX, sched/misc/assert.c."""
