"""The most stack that a firmware can take, from its build: frames of its functions along the deepest calls.

What it holds for, and what it does not cover, docs/device.md says.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bitloop.boards.toolchains import toolchain_of
from bitloop.errors import ToolchainError
from bitloop.firmware import find
from bitloop.firmware.build import firmware_elf
from bitloop.firmware.calls import CallGraph, Function
from bitloop.firmware.elf import read_elf
from bitloop.firmware.frames import read_frames
from bitloop.firmware.pointers import read_pointers
from bitloop.firmware.taken import taken_names

__all__ = ["Interrupts", "StackBound", "bound_of", "call_graph", "stack_bound"]


@dataclass(frozen=True)
class Interrupts:
    """What may run on top of the deepest call, as a board's manifest says (``build.stack``).

    Attributes:
        handlers: functions that the hardware calls.
        frame_bytes: what it pushes before one of them, alignment included, beyond what the compiler counts as theirs.
        is_nested: whether handlers interrupt one another, each once; else only one runs at a time.
        not_counted: functions that the hardware calls and that begin a stack of their own, such as that of a fault,
            which ends in a reset.
    """

    handlers: tuple[str, ...] = ()
    frame_bytes: int = 0
    is_nested: bool = False
    not_counted: tuple[str, ...] = ()

    @classmethod
    def from_manifest(cls, stated: Mapping[str, object]) -> Interrupts:
        """Read ``build.stack``.

        Raises:
            ToolchainError: it has a key that is not known, or a value of another type.
        """
        found = cls()
        for key, value in stated.items():
            if key in ("handlers", "not_counted") and isinstance(value, list):
                names = tuple(map(str, value))
                found = replace(found, handlers=names) if key == "handlers" else replace(found, not_counted=names)
            elif key == "frame_bytes" and type(value) is int:
                found = replace(found, frame_bytes=value)
            elif key == "is_nested" and isinstance(value, bool):
                found = replace(found, is_nested=value)
            else:
                raise ToolchainError(f"a board's manifest says build.stack.{key} = {value!r}, which is not understood")
        return found


@dataclass(frozen=True)
class StackBound:
    """The most stack a firmware can take.

    Attributes:
        bytes: main program and interrupts.
        path: functions of the deepest call, each with its bytes; one that is left for another does not count any more.
        interrupt_bytes: of these, those of interrupts, with what the hardware pushes.
        interrupt_path: functions of the deepest interrupt.
    """

    bytes: int
    path: tuple[tuple[str, int], ...]
    interrupt_bytes: int
    interrupt_path: tuple[tuple[str, int], ...]


def stack_bound(environment: str, *, build: bool = False, elf: Path | None = None) -> StackBound:
    """Compute the bound of the firmware that is built for an environment of the local platform.

    Args:
        environment: e.g. ``qemu_stm32f405``.
        build: build the firmware where it is not up to date.
        elf: another build for the same environment, its objects and .su files below its folder.

    Raises:
        ToolchainError: it is not built, its toolchain is missing, or there is no bound: the message names the
            recursion, the frame or the call through a pointer that stands against one.
    """
    toolchain = toolchain_of(environment)
    if toolchain is None:
        raise ToolchainError(f"{environment} is built by PlatformIO's own toolchain; its stack has no bound here")
    if elf is None:
        elf = firmware_elf(environment, build=build)
    manifest = find.project().device / "platforms" / "bitloop" / "boards" / f"{environment}.json"
    stated = json.loads(manifest.read_text(encoding="utf-8"))["build"].get("stack", {})
    return bound_of(elf, Interrupts.from_manifest(stated), objdump=toolchain.prefix + "objdump")


def call_graph(elf: Path, *, objdump: str) -> CallGraph:
    """Read what calls what in a firmware, from the ELF file and from what lies below its folder.

    Raises:
        ToolchainError: something of it is missing, or cannot be read.
    """
    folder = elf.parent
    return CallGraph(read_elf(elf), read_pointers(elf), read_frames(folder), taken=taken_names(folder), objdump=objdump)


def bound_of(elf: Path, interrupts: Interrupts, *, objdump: str) -> StackBound:
    """Compute the bound of a firmware whose objects and .su files lie below its folder.

    Raises:
        ToolchainError: as of :func:`stack_bound`.
    """
    calls = call_graph(elf, objdump=objdump)
    depths = _Depths(calls, elf)
    entry = calls.entry()
    deepest, path = depths.deepest(entry)
    handlers = [calls.named(name) for name in interrupts.handlers]
    found = sorted((depths.deepest(handler) for handler in handlers), key=lambda each: each[0], reverse=True)
    counted = found if interrupts.is_nested else found[:1]
    interrupt_bytes = sum(depth + interrupts.frame_bytes for depth, _ in counted)
    depths.refuse_unreached([entry, *handlers, *(calls.named(name) for name in interrupts.not_counted)])
    return StackBound(
        bytes=deepest + interrupt_bytes,
        path=path,
        interrupt_bytes=interrupt_bytes,
        interrupt_path=tuple(step for _, steps in counted for step in steps),
    )


class _Depths:
    """How deep calls go."""

    def __init__(self, calls: CallGraph, elf: Path) -> None:
        self.calls = calls
        self.elf = elf
        self.depths: dict[int, tuple[int, Function | None, int]] = {}
        """Of a function: how deep it goes, the function that it goes there by, and its own bytes on that way."""

    def deepest(self, function: Function) -> tuple[int, tuple[tuple[str, int], ...]]:
        """Give the depth of a function's deepest calls, and these."""
        depth = self._depth(function, [])
        path = []
        at: Function | None = function
        while at is not None:
            _, following, own = self.depths[at.address]
            path.append((at.name, own))
            at = following
        return depth, tuple(path)

    def _depth(self, function: Function, above: list[Function]) -> int:
        known = self.depths.get(function.address)
        if known is not None:
            return known[0]
        if function in above:
            names = [each.name for each in above[above.index(function) :]]
            raise ToolchainError(
                f"{self.elf}: {' calls '.join([*names, function.name])}: a recursion has no bound of its stack"
            )
        if function.unknown:
            callers = " < ".join(each.name for each in reversed(above)) or "the hardware"
            message = f"the stack of {function.name} (called by {callers}) is not known: {function.unknown}"
            raise ToolchainError(f"{self.elf}: {message}")
        above.append(function)
        best: tuple[int, Function | None, int] = (function.frame, None, function.frame)
        for edges, kept in ((function.calls, function.frame), (function.jumps, self._kept_in_jump(function))):
            for address in edges:
                following = self.calls.at(address)
                depth = kept + self._depth(following, above)
                if depth > best[0]:
                    best = (depth, following, kept)
        above.pop()
        self.depths[function.address] = best
        return best[0]

    def _kept_in_jump(self, function: Function) -> int:
        """What stays on the stack when a function jumps to another: of a compiled one nothing (a tail call)."""
        return 0 if function.is_compiled else function.frame

    def refuse_unreached(self, roots: Sequence[Function]) -> None:
        """See that every compiled function is reached: the linker keeps none that nothing uses, so a call was missed.

        Raises:
            ToolchainError: one is not.
        """
        reached: set[int] = set()
        waiting = [*roots]
        while waiting:
            function = waiting.pop()
            if function.address not in reached:
                reached.add(function.address)
                waiting += [self.calls.at(address) for address in (*function.calls, *function.jumps)]
        reached |= self.calls.virtual
        missed = [each.name for each in self.calls.compiled.values() if each.address not in reached]
        if missed:
            raise ToolchainError(
                f"{self.elf}: nothing calls {', '.join(missed)}, yet the linker kept it: a call was overlooked, "
                "or an interrupt that the board's manifest does not name (build.stack)"
            )
