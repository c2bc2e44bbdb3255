"""The parts of a run: one from its beginning, one more for each time it was resumed; ``parts.json``.

While a part is under way its figures are brought to the disk about once a second, with the journal, by a thread of
their own: so little is lost when the power fails, and nobody waits for the disk.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from bitloop.bench.files import write_file
from bitloop.bench.journal import Journal
from bitloop.bench.record import Interruption
from bitloop.bench.strict import build, plain
from bitloop.errors import BitloopError, DataError

__all__ = ["Keeper", "Part", "Traffic", "read_parts", "seconds_between", "timestamp", "write_parts"]

_LOGGER = logging.getLogger(__name__)

KEEP_S = 1.0
_VERSION = 1


def timestamp() -> str:
    """Return the time, ISO 8601 in UTC, to the microsecond."""
    return datetime.now(timezone.utc).isoformat(timespec="microseconds")


def seconds_between(earlier: str, later: str) -> float:
    """Return the seconds from one :func:`timestamp` to another, 0 where the clock was set back meanwhile.

    Raises:
        DataError: one of them is none.
    """
    try:
        return max((datetime.fromisoformat(later) - datetime.fromisoformat(earlier)).total_seconds(), 0.0)
    except (ValueError, TypeError) as error:
        raise DataError(f"{earlier!r} or {later!r} is no time: {error}") from error


@dataclass(frozen=True)
class Traffic:
    """What crossed the line, in encoded bytes, and how long that took.

    ``images`` came in ``stream_seconds`` of streaming, of which the host waited ``waited_s`` for the device.
    """

    bytes_up: int = 0
    bytes_down: int = 0
    retransmissions: int = 0
    crc_errors: int = 0
    images: int = 0
    stream_bytes_up: int = 0
    stream_bytes_down: int = 0
    streamed_bytes: int = 0
    traced_bytes: int = 0
    stream_seconds: float = 0.0
    waited_s: float = 0.0
    upload_seconds: float = 0.0
    upload_line_bytes: int = 0
    copied_bytes: int = 0

    def __add__(self, other: Traffic) -> Traffic:
        return Traffic(*(a + b for a, b in zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)))


@dataclass(frozen=True)
class Part:
    """One process's share of a run.

    Attributes:
        started: when it began, as :func:`timestamp` gives it.
        updated: when these figures were true.
        device_url: the device's.
        boot_count: the device's, when these figures were true.
        first: images that were measured before it.
        seconds: how long it has worked.
        traffic: of the line.
        interruptions: those behind which it went on itself.
        ended: why it ended, in words; None while it is at work, or if its process was killed.
    """

    started: str
    updated: str
    device_url: str
    boot_count: int
    first: int
    seconds: float
    traffic: Traffic
    interruptions: tuple[Interruption, ...]
    ended: str | None


@dataclass(frozen=True)
class _Parts:
    version: int
    parts: tuple[Part, ...]


def read_parts(path: Path) -> tuple[Part, ...]:
    """Read ``parts.json``; it is missing where a run was killed right at its beginning.

    Raises:
        DataError: it is damaged.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return ()
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read as JSON: {error}") from error
    read = build(_Parts, document, "parts")
    if not isinstance(read, _Parts) or read.version != _VERSION:
        raise DataError(f"{path} is not of version {_VERSION}")
    return read.parts


def write_parts(path: Path, parts: tuple[Part, ...]) -> None:
    """Write ``parts.json`` atomically.

    Raises:
        UsageError: it cannot be written.
    """
    text = json.dumps(plain(dataclasses.asdict(_Parts(_VERSION, parts))), indent=1, allow_nan=False) + "\n"
    write_file(path, text.encode())


class Keeper:
    """Brings a journal, and the figures of the part under way, to the disk about once a second.

    Args:
        journal: what is synced.
        path: of ``parts.json``.
        past: the parts before.
    """

    def __init__(self, journal: Journal, path: Path, past: Sequence[Part]) -> None:
        self._journal = journal
        self._path = path
        self._past = tuple(past)
        self._part: Part | None = None
        self._failure: BitloopError | None = None
        self._closing = threading.Event()
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._work, name="keeper", daemon=True)
        self._thread.start()

    def offer(self, part: Part) -> None:
        """Give the newest figures; they are written with the next turn.

        Raises:
            UsageError: an earlier turn could not write.
        """
        with self._lock:
            self._part = part
        if self._failure is not None:
            raise self._failure

    def close(self, part: Part | None) -> None:
        """Write the last figures, bring everything to the disk, and end.

        What cannot be written now is told in the log: the journal has told already, or the record will.
        """
        self._closing.set()
        self._thread.join()
        self._part = part or self._part
        try:
            self._turn()
        except BitloopError as error:
            _LOGGER.warning("at the end of the run: %s", error)

    def _work(self) -> None:
        while not self._closing.wait(KEEP_S):
            try:
                self._turn()
            except BitloopError as error:  # noqa: PERF203 - a turn a second
                self._failure = error
                return

    def _turn(self) -> None:
        with self._lock:
            part, self._part = self._part, None
        # The journal first: the figures on the disk never tell of images that are not there.
        self._journal.sync()
        if part is not None:
            write_parts(self._path, (*self._past, part))
