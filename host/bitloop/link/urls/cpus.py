"""Which CPU an emulator gets: it runs several times faster on one CPU than when it wanders between two."""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path
from types import TracebackType

_SAMPLE_S = 0.05


class CpuShare:
    """A CPU that no other emulator of this user gets as long as this one has it.

    The claim is a lock on a file, which the system drops when this process ends, whatever it ends of. Where all CPUs
    are taken the one with the least load is shared; where a process cannot be bound to a CPU there is none.

    Attributes:
        cpu: Its number, or None.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.cpu: int | None = None
        self._lock: int | None = None
        allowed = _allowed()
        if not allowed:
            return
        by_load = _by_load(allowed)
        folder = folder or _folder()
        for cpu in by_load:
            self._lock = _lock(folder / f"cpu-{cpu}.lock")
            if self._lock is not None:
                self.cpu = cpu
                return
        self.cpu = by_load[0]

    def __enter__(self) -> CpuShare:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()

    def release(self) -> None:
        """Give the CPU back; twice is no error."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _allowed() -> list[int]:
    try:
        return sorted(os.sched_getaffinity(0))
    except (AttributeError, OSError):
        return []


def _folder() -> Path:
    return Path(tempfile.gettempdir()) / f"bitloop-{os.getuid()}"


def _lock(path: Path) -> int | None:
    """Lock a file; give its descriptor, or None when another has it or it cannot be made."""
    import fcntl  # noqa: PLC0415 - not on every system

    try:
        path.parent.mkdir(mode=0o700, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _by_load(cpus: list[int]) -> list[int]:
    """Order CPUs by how busy they are just now, the idlest first."""
    if len(cpus) == 1:
        return cpus
    before = _busy_ticks()
    if not before:
        return cpus
    time.sleep(_SAMPLE_S)
    after = _busy_ticks()
    return sorted(cpus, key=lambda cpu: after.get(cpu, 0) - before.get(cpu, 0))


def _busy_ticks() -> dict[int, int]:
    """Give the ticks that each CPU has been busy since boot, or nothing where that is not told."""
    ticks: dict[int, int] = {}
    with contextlib.suppress(OSError, ValueError):
        for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
            name, *counts = line.split()
            if name.startswith("cpu") and name != "cpu":
                user, nice, system, _, _, *others = (int(count) for count in counts)
                ticks[int(name[3:])] = user + nice + system + sum(others[:3])
    return ticks
