"""What the host knows of a firmware's memory from its build, without asking the device."""

from __future__ import annotations

import functools
from pathlib import Path

from bitloop.bench.record import BuildMemory, Ram, StackStep
from bitloop.boards import BOARDS, find_board
from bitloop.errors import BitloopError
from bitloop.firmware.build import firmware_elf
from bitloop.firmware.memory import capped, static_memory
from bitloop.firmware.stack import stack_bound
from bitloop.hello import DeviceInfo
from bitloop.link.line.options import port_url
from bitloop.link.urls.protocol_qemu import options_of
from bitloop.native.build import firmware_hash

__all__ = ["build_memory", "false_memory"]


def build_memory(device_url: str, info: DeviceInfo) -> tuple[BuildMemory | None, str | None]:
    """Read the memory of the firmware that a device runs off its build.

    The build is known of an emulated board, which was started from it, and of a board whose HELLO tells the hash of the
    sources that lie here and whose firmware is built from them.

    Returns:
        What the build says, or None and why nothing is known.
    """
    url = device_url.lower()
    if url.startswith("sim:"):
        return None, "the device is a process of the host, without a build of its own"
    cap: int | None = None
    try:
        if url.startswith("qemu://"):
            options = options_of(port_url(device_url))
            environment = find_board(options.board).environment
            elf = options.elf or firmware_elf(environment, build=False)
            cap = options.arena_bytes
        else:
            board = next((board for board in BOARDS if board.environment and board.name == info.board), None)
            if board is None or firmware_hash(board.port) != info.firmware_hash:
                return None, "the build of the firmware that the device runs is not here"
            environment = board.environment
            elf = firmware_elf(environment, build=False)
        status = elf.stat()
        return _read(environment, elf, cap, status.st_mtime_ns), None
    except (BitloopError, OSError) as error:
        return None, str(error)


@functools.lru_cache(maxsize=16)
def _read(environment: str, elf: Path, cap: int | None, changed_ns: int) -> BuildMemory:  # noqa: ARG001 - of the key
    memory = static_memory(elf)
    arena = memory.arena_bytes if cap is None else min(memory.arena_bytes, capped(cap))
    try:
        bound, note = stack_bound(environment, elf=elf), None
    except BitloopError as error:
        bound, note = None, str(error)
    return BuildMemory(
        static=memory.static_bytes,
        arena=arena,
        stack=memory.stack_bytes,
        flash=memory.flash_bytes,
        stack_bound=None if bound is None else bound.bytes,
        stack_interrupts=None if bound is None else bound.interrupt_bytes,
        stack_path=() if bound is None else tuple(StackStep(name, size) for name, size in bound.path),
        stack_note=note,
    )


def false_memory(ram: Ram, info: DeviceInfo) -> list[str]:
    """List, as sentences, where what the device says of its memory is not what its build says."""
    build = ram.build
    if build is None:
        return []
    claims = []
    if ram.static is not None and ram.static != build.static:
        claims.append(f"the device says its own state takes {ram.static:,} bytes, its build {build.static:,}")
    if info.arena_bytes != build.arena:
        claims.append(f"the device says its arena has {info.arena_bytes:,} bytes, its build {build.arena:,}")
    if ram.stack_peak is not None and build.stack_bound is not None and ram.stack_peak > build.stack_bound:
        claims.append(f"the stack's peak of {ram.stack_peak:,} bytes lies above its bound of {build.stack_bound:,}")
    return claims
