"""The bound of the stack: small programs whose calls and frames are counted by hand, and the real firmware."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from bitloop.boards import BOARDS
from bitloop.errors import ToolchainError
from bitloop.firmware import find
from bitloop.firmware.build import firmware_elf
from bitloop.firmware.isa import ISAS, Instruction, pushed_bytes
from bitloop.firmware.memory import static_memory
from bitloop.firmware.stack import Interrupts, StackBound, bound_of, call_graph, stack_bound

BOARDS_BUILT_HERE = [board.environment for board in BOARDS if board.environment and find.is_local(board.environment)]


@dataclass(frozen=True)
class Target:
    """A compiler, and what its code needs on every call and at least."""

    prefix: str
    flags: tuple[str, ...]
    family: str


TARGETS = {
    "arm": Target("arm-none-eabi-", ("-mcpu=cortex-m3", "-mthumb"), "arm"),
    "riscv": Target("riscv64-unknown-elf-", ("-march=rv32imc", "-mabi=ilp32"), "riscv"),
    "xtensa": Target("xtensa-lx106-elf-", (), "xtensa"),
    "avr": Target("avr-", ("-mmcu=atmega2560",), "avr"),
}

# Each function writes to an array of its own, so that its frame is at least that long. What has AFTER behind a call has
# something left to do, and cannot jump instead.
COMMON = """
#define ALONE __attribute__((noipa))
volatile unsigned char done;
#define AFTER() (done = 1)
#define USE(bytes) do { volatile unsigned char own[bytes]; own[0] = 1; own[bytes - 1] = own[0]; } while (0)
#if defined(__AVR__)
#undef ALONE
#define ALONE __attribute__((noinline, noclone))
#define START __init
#else
#define START start
#endif
"""


def built(folder: Path, source: str, name: str = "arm", *, flags: tuple[str, ...] = ()) -> Path:
    """Compile and link one file; the program begins in START, and nothing is kept that is not used."""
    target = TARGETS[name]
    if shutil.which(target.prefix + "gcc") is None:
        pytest.skip(f"{target.prefix}gcc is not here; {find.SETUP} {target.family} installs it")
    folder.mkdir(exist_ok=True)
    (folder / "all.c").write_text(COMMON + source, encoding="utf-8")
    gcc = [target.prefix + "gcc", *target.flags]
    compile_flags = ["-O2", "-gdwarf-4", "-fstack-usage", "-ffunction-sections", "-ffreestanding", *flags]
    entry = "__init" if name == "avr" else "start"
    link = [
        "-nostdlib",
        "-nostartfiles",
        f"-Wl,-e,{entry},-Ttext=0x10000,--gc-sections,--undefined=keep,--undefined=tick",
        "-lgcc",
    ]
    subprocess.run([*gcc, *compile_flags, "-c", "all.c", "-o", "all.o"], cwd=folder, check=True)
    subprocess.run([*gcc, "all.o", *link, "-o", "firmware.elf"], cwd=folder, check=True)
    return folder / "firmware.elf"


def bound(elf: Path, name: str = "arm", interrupts: Interrupts | None = None) -> StackBound:
    return bound_of(elf, interrupts or Interrupts(), objdump=TARGETS[name].prefix + "objdump")


def frames(elf: Path) -> dict[str, int]:
    """What the compiler says, read in another way than the code does."""
    text = (elf.parent / "all.su").read_text(encoding="utf-8")
    return {name: int(size) for name, size in re.findall(r":([\w.]+)\t(\d+)\t", text)}


TREE = """
ALONE void leaf(void) { USE(40); }
ALONE void small(void) { USE(8); }
ALONE void middle(void) { USE(100); leaf(); AFTER(); }
ALONE void left(void) { USE(16); middle(); small(); AFTER(); }
ALONE void right(void) { USE(60); small(); AFTER(); }
void START(void) { left(); right(); for (;;) { } }
"""


@pytest.mark.parametrize("name", TARGETS)
def test_the_deepest_of_two_branches(tmp_path: Path, name: str) -> None:
    """START calls left (16 and more) and right (60); left's middle (100) and its leaf (40) go deepest."""
    elf = built(tmp_path, TREE, name)
    of = frames(elf)
    found = bound(elf, name)
    start = "__init" if name == "avr" else "start"
    assert [function for function, _ in found.path] == [start, "left", "middle", "leaf"]
    assert found.bytes == of[start] + of["left"] + of["middle"] + of["leaf"] >= 16 + 100 + 40
    assert (found.interrupt_bytes, found.interrupt_path) == (0, ())


def test_frames_on_arm_by_hand(tmp_path: Path) -> None:
    """leaf: 40. middle: 100, and 8 for lr and a register of its caller, together aligned to 8 (AAPCS 6.2.1.2)."""
    of = frames(built(tmp_path, TREE))
    assert (of["leaf"], of["middle"]) == (40, 112)


def test_a_return_address_that_a_call_pushes_counts(tmp_path: Path) -> None:
    """ATmega2560: each call pushes 3 bytes. leaf: its frame pointer (2), 40 of its own, and the 3."""
    assert frames(built(tmp_path, TREE, "avr"))["leaf"] == 40 + 2 + 3


@pytest.mark.parametrize("name", ["arm", "riscv"])
def test_a_tail_call_takes_the_place_of_its_caller(tmp_path: Path, name: str) -> None:
    """first ends by going on to second: they are never on the stack together."""
    source = """
    ALONE void second(void) { USE(50); }
    ALONE void first(void) { USE(40); second(); }
    void START(void) { first(); for (;;) { } }
    """
    elf = built(tmp_path, source, name)
    of = frames(elf)
    found = bound(elf, name)
    assert found.bytes == of["start"] + max(of["first"], of["second"])
    assert found.path[1:] == (("first", 0), ("second", of["second"]))


POINTERS = """
typedef struct { void (*shallow)(int); long (*deep)(long *); } table;
ALONE void one(int a) { USE(20); (void)a; }
ALONE void two(int a) { USE(30); (void)a; }
ALONE void three(int a) { USE(140); (void)a; }
ALONE long other(long *a) { USE(90); return *a; }
volatile table calls = {one, other};
ALONE void through(void) { USE(10); calls.shallow(1); AFTER(); }
ALONE void other_type(long *a) { calls.deep(a); AFTER(); }
void START(void) { long a = 1; calls.shallow = two; through(); %s for (;;) { } }
"""


@pytest.mark.parametrize("name", TARGETS)
def test_a_call_through_a_pointer_reaches_what_it_may(tmp_path: Path, name: str) -> None:
    """`shallow` may lead to one (20) or two (30): other is of another type, and three's address is not taken."""
    elf = built(tmp_path, POINTERS % "one(1); three(1); other(&a);", name)
    graph = call_graph(elf, objdump=TARGETS[name].prefix + "objdump")
    reached = {graph.at(address).name for address in graph.named("through").calls}
    assert reached == {"one", "two"}
    assert bound(elf, name).path[-1] == ("three", frames(elf)["three"])


def test_a_jump_through_a_pointer_is_followed(tmp_path: Path) -> None:
    source = """
    ALONE void one(int a) { USE(44); (void)a; }
    void (*volatile pointer)(int) = one;
    ALONE void go_on(void) { pointer(1); }
    void START(void) { go_on(); for (;;) { } }
    """
    elf = built(tmp_path, source)
    assert "bx\t" in subprocess.check_output(["arm-none-eabi-objdump", "-d", str(elf)], text=True)
    assert bound(elf).path[-1] == ("one", 48)


def test_a_switch_is_no_call(tmp_path: Path) -> None:
    """RISC-V jumps through a register in a switch; its cases are the function's own."""
    cases = " ".join(f"case {n}: value ^= value << {n + 1}; value += {n * 77 + 1}; break;" for n in range(9))
    source = f"""
    volatile unsigned which;
    ALONE unsigned choose(unsigned value) {{ USE(24); switch (which) {{ {cases} }} return value; }}
    void START(void) {{ which = choose(which); for (;;) {{ }} }}
    """
    elf = built(tmp_path, source, "riscv")
    assert re.search(r"\tjr\ta", subprocess.check_output(["riscv64-unknown-elf-objdump", "-d", str(elf)], text=True))
    of = frames(elf)
    assert bound(elf, "riscv").bytes == of["start"] + of["choose"]


def test_a_recursion_is_refused_and_named(tmp_path: Path) -> None:
    source = """
    ALONE int even(int n);
    ALONE int odd(int n) { USE(8); return n ? even(n - 1) + 1 : 0; }
    ALONE int even(int n) { USE(8); return n ? odd(n - 1) + 1 : 1; }
    void START(void) { volatile int n = 3; n = even(n); for (;;) { } }
    """
    with pytest.raises(ToolchainError, match=r"(even calls odd calls even|odd calls even calls odd): a recursion"):
        bound(built(tmp_path, source))


def test_a_frame_that_depends_on_what_is_given_is_refused(tmp_path: Path) -> None:
    source = """
    ALONE int grow(int n) { volatile unsigned char own[n]; own[n - 1] = 1; return own[n - 1]; }
    void START(void) { volatile int n = 3; n = grow(n); for (;;) { } }
    """
    with pytest.raises(ToolchainError, match=r"the stack of grow \(called by start\) is not known: .*all.c:\d+"):
        bound(built(tmp_path, source))


def test_a_call_that_nothing_tells_of_is_refused(tmp_path: Path) -> None:
    """The address is computed, and the call is written in assembly: no source line names a pointer."""
    source = """
    ALONE void hidden(void) { __asm__ volatile("blx %0" :: "r"(0x10001) : "lr", "r0", "r1", "r2", "r3", "memory"); }
    void START(void) { hidden(); for (;;) { } }
    """
    with pytest.raises(
        ToolchainError, match=r"hidden .* calls through a register at .*all.c:.*cannot be told where to"
    ):
        bound(built(tmp_path, source))


def test_a_function_that_nothing_seems_to_call_is_refused(tmp_path: Path) -> None:
    """The linker keeps what is used: an interrupt that the manifest forgets shows as a function without a caller."""
    source = """
    __attribute__((used)) ALONE void keep(void) { USE(300); }
    void START(void) { USE(8); for (;;) { } }
    """
    elf = built(tmp_path, source)
    with pytest.raises(ToolchainError, match="nothing calls keep, yet the linker kept it"):
        bound(elf)
    of = frames(elf)
    found = bound(elf, interrupts=Interrupts(("keep",), frame_bytes=36))
    assert found.bytes == of["start"] + of["keep"] + 36
    assert (found.interrupt_bytes, found.interrupt_path) == (of["keep"] + 36, (("keep", of["keep"]),))
    assert bound(elf, interrupts=Interrupts(not_counted=("keep",))).bytes == of["start"]


def test_interrupts_add_up_only_where_they_nest(tmp_path: Path) -> None:
    source = """
    __attribute__((used)) ALONE void tick(void) { USE(24); }
    __attribute__((used)) ALONE void keep(void) { USE(100); tick(); AFTER(); }
    void START(void) { for (;;) { } }
    """
    elf = built(tmp_path, source)
    of = frames(elf)
    deep = of["keep"] + of["tick"]
    names = ("tick", "keep")
    assert bound(elf, interrupts=Interrupts(names, 36)).interrupt_bytes == deep + 36
    assert bound(elf, interrupts=Interrupts(names, 36, is_nested=True)).interrupt_bytes == deep + of["tick"] + 2 * 36


def test_library_functions_are_read_off_their_instructions(tmp_path: Path) -> None:
    """Comparing binary32 numbers on a Cortex-M3 is libgcc's, in assembly (libgcc/config/arm/ieee754-sf.S).

    __aeabi_fcmpeq: ``str lr, [sp, #-8]!``; __aeabi_cfcmple: ``push {r0, r1, r2, r3, lr}``; __cmpsf2 behind it:
    ``str ip, [sp, #-4]!``.
    """
    source = """
    ALONE int equal(float a, float b) { int c = a == b; AFTER(); return c; }
    void START(void) { volatile float a = 1.5f; a = equal(a, a) ? 1.0f : 2.0f; for (;;) { } }
    """
    elf = built(tmp_path, source)
    found = bound(elf)
    assert [size for _, size in found.path[2:]] == [8, 20, 4]
    assert found.bytes == frames(elf)["start"] + frames(elf)["equal"] + 32


def test_what_pushes_by_hand() -> None:
    """Instructions as objdump prints them, against what the manuals say of each."""

    def pushed(machine: str, *lines: str) -> int | None:
        code = [Instruction(2 * n, *line.split("\t")) for n, line in enumerate(lines)]
        return pushed_bytes(ISAS[machine], code)

    arm = "EM_ARM"
    assert pushed(arm, "push\t{r4, r5, lr}", "vpush\t{d8-d9}", "sub\tsp, #24", "add\tsp, #24") == 12 + 16 + 24
    assert pushed(arm, "stmdb\tsp!, {r4, r5, r6, r7, r8, lr}", "sub.w\tsp, sp, #1024") == 24 + 1024
    assert pushed(arm, "str.w\tlr, [sp, #-8]!", "strd\tr4, r5, [sp, #-16]!", "ldr.w\tpc, [sp], #8") == 24
    assert pushed(arm, "vpush\t{s16-s17}", "str\tr0, [sp, #4]", "cmp\tsp, r3", "mov\tr7, sp") == 8
    for unknown in ("mov\tsp, r7", "sub\tsp, r3", "msr\tMSP, r3", "ldr\tsp, [r0]"):
        assert pushed(arm, unknown) is None
    riscv = "EM_RISCV"
    assert pushed(riscv, "add\tsp,sp,-48", "sw\tra,44(sp)", "add\tsp,sp,48", "mv\ta0,sp", "addi\tsp,sp,-16") == 64
    for unknown in ("mv\tsp,s0", "csrrw\tsp,mscratch,sp", "sub\tsp,sp,a0", "auipc\tsp,0x1"):
        assert pushed(riscv, unknown) is None
    xtensa = "EM_XTENSA"
    assert pushed(xtensa, "addi\ta1, a1, -48", "movi\ta9, 256", "sub\ta1, a1, a9", "add.n\ta1, a1, a9") == 48 + 256
    for unknown in ("mov.n\ta1, a15", "sub\ta1, a1, a3", "entry\ta1, 32", "l32i\ta1, a2, 0"):
        assert pushed(xtensa, unknown) is None
    avr = "EM_AVR"
    assert pushed(avr, "push\tr28", "push\tr29", "rcall\t.+0      \t; 0x6 <f+0x6>".replace("\t;", " ;")) == 5
    assert pushed(avr, "out\t0x3d, r28") is None


@pytest.mark.parametrize(
    ("key", "value"), [("frame_bytes", "36"), ("frame_bytes", True), ("handlers", "one"), ("nested", True)]
)
def test_a_manifest_that_is_not_understood_is_refused(key: str, value: object) -> None:
    with pytest.raises(ToolchainError, match=f"build.stack.{key} = "):
        Interrupts.from_manifest({key: value})


@pytest.mark.parametrize("environment", BOARDS_BUILT_HERE)
def test_the_bound_of_real_firmware_fits_its_reserved_stack(environment: str) -> None:
    missing = find.missing_to_build(environment)
    if missing:
        pytest.skip(f"{environment} needs {'; '.join(map(str, missing))}; {find.SETUP} installs it")
    if not (find.project().device / f"platforms/bitloop/boards/{environment}.json").is_file():
        pytest.skip(f"{environment} has no firmware yet")
    memory = static_memory(firmware_elf(environment))
    assert 0 < stack_bound(environment).bytes <= memory.stack_bytes


def test_what_the_compiler_says_of_a_frame_is_what_its_instructions_do() -> None:
    """Two witnesses: every function that pushes by constants alone pushes as much as -fstack-usage says.

    A function may push anew on a path that has popped before: then its pushes add up to more.
    """
    if find.missing_to_build("qemu_stm32f100"):
        pytest.skip(f"the ARM compiler is not here; {find.SETUP} installs it")
    elf = firmware_elf("qemu_stm32f100")
    graph = call_graph(elf, objdump="arm-none-eabi-objdump")
    pushed = {function.name: (function.frame, graph.pushed(function)) for function in graph.compiled.values()}
    assert len(pushed) > 80
    del pushed["cortex_m_fault"]  # sets its stack pointer
    assert [name for name, (frame, by_hand) in pushed.items() if by_hand is None or by_hand < frame] == []
    assert sum(frame == by_hand for frame, by_hand in pushed.values()) > 0.9 * len(pushed)
