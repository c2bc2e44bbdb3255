"""A transport that records a session."""

from __future__ import annotations

import platform
import secrets
import shlex
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

import bitloop
from bitloop import spec
from bitloop.errors import Cause
from bitloop.link.recording.events import Event, Kind
from bitloop.link.recording.file import Writer
from bitloop.link.recording.header import Header, without_user
from bitloop.link.transport import Transport
from bitloop.link.urls.emulation import Emulation

__all__ = ["RecordingTransport", "draw_session_number"]

_FACT_CHARACTERS = 4096


class RecordingTransport:
    """A transport that writes down what another one gives and takes.

    Args:
        transport: The other one. If it has a clock and session numbers of its own, they are used.
        path: The file.
        force: Whether it may replace an older one.
        clock: Seconds that never go back.
        facts: What the session is about.

    Raises:
        UsageError: There is such a file already, or it cannot be made.
    """

    def __init__(
        self,
        transport: Transport,
        path: Path,
        *,
        force: bool = False,
        clock: Callable[[], float] = time.monotonic,
        facts: Mapping[str, str] | None = None,
    ) -> None:
        self._transport = transport
        self._clock: Callable[[], float] = getattr(transport, "clock", None) or clock
        self._number: Callable[[], int] = getattr(transport, "session_number", None) or draw_session_number
        self._began: float | None = None
        self._now_us = 0
        self._writer = Writer(path, _header(transport, facts or {}), force=force)

    @property
    def description(self) -> str:
        """The other transport's."""
        return self._transport.description

    @property
    def origin(self) -> str:
        """Where it all comes from: the other transport's URL, or that of the device it replays."""
        return getattr(self._transport, "origin", None) or self.description

    @property
    def emulation(self) -> Emulation | None:
        """The other transport's."""
        return _emulation(self._transport)

    @property
    def baud(self) -> int:
        """The other transport's."""
        return self._transport.baud

    @property
    def has_fixed_baud(self) -> bool:
        """The other transport's."""
        return getattr(self._transport, "has_fixed_baud", False)

    def clock(self) -> float:
        """Give the seconds since the first call, in whole microseconds, so that a replay has the same ones."""
        now = self._clock()
        if self._began is None:
            self._began = now
        now_us = max(self._now_us, round((now - self._began) * 1e6))
        self._writer.put(Event(Kind.CLOCK, now_us - self._now_us))
        self._now_us = now_us
        return now_us / 1e6

    def session_number(self) -> int:
        """Draw a number from 1 to 65535."""
        number = self._number()
        self._writer.put(Event(Kind.SESSION_NUMBER, number))
        return number

    def read(self, timeout_s: float) -> bytes:
        """Give what has arrived; see :meth:`Transport.read`."""
        with self._failures(Kind.READ):
            data = self._transport.read(timeout_s)
        self._writer.put(Event(Kind.READ, data=data))
        return data

    def write(self, data: bytes) -> None:
        """Hand over all of ``data``; see :meth:`Transport.write`."""
        self._writer.put(Event(Kind.WRITE, data=bytes(data)))
        with self._failures(Kind.WRITE):
            self._transport.write(data)

    def set_baud(self, baud: int) -> None:
        """Change the rate; see :meth:`Transport.set_baud`."""
        self._writer.put(Event(Kind.BAUD, baud))
        with self._failures(Kind.BAUD):
            self._transport.set_baud(baud)

    def reopen(self) -> None:
        """Open the stream again; see :meth:`Transport.reopen`."""
        self._writer.put(Event(Kind.REOPEN))
        with self._failures(Kind.REOPEN):
            self._transport.reopen()

    def close(self) -> None:
        """Close the stream and the recording."""
        try:
            self._transport.close()
        finally:
            self._writer.close()

    @contextmanager
    def _failures(self, kind: Kind) -> Iterator[None]:
        try:
            yield
        except (Exception, KeyboardInterrupt) as error:
            cause = getattr(error, "cause", None)
            name = cause.name if isinstance(cause, Cause) else ""
            words = "\0".join((type(error).__name__, str(error).replace("\0", ""), name))
            self._writer.put(Event(Kind.FAILED, kind, words.encode("utf-8", "replace")))
            self._writer.flush()
            raise


def draw_session_number() -> int:
    """Give a random number from 1 to 65535."""
    return secrets.randbelow(0xFFFF) + 1


def _header(transport: Transport, facts: Mapping[str, str]) -> Header:
    emulation = _emulation(transport)
    described = None if emulation is None else {**asdict(emulation), "process_id": 0}
    return Header(
        bitloop=bitloop.__version__,
        protocol=f"{spec.PROTOCOL_MAJOR}.{spec.PROTOCOL_MINOR}",
        url=without_user(getattr(transport, "origin", None) or transport.description),
        command=without_user(_command_line()),
        started=datetime.now(timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ"),
        python=platform.python_version(),
        platform=f"{platform.system()} {platform.release()} {platform.machine()}",
        baud=transport.baud,
        has_fixed_baud=getattr(transport, "has_fixed_baud", False),
        emulation=described,
        facts={name: without_user(value)[:_FACT_CHARACTERS] for name, value in facts.items()},
    )


def _command_line() -> str:
    program, *arguments = sys.argv or [""]
    name = Path(program).name
    return shlex.join(["bitloop" if name == "__main__.py" else name, *arguments]) if name else ""


def _emulation(transport: Transport) -> Emulation | None:
    emulation = getattr(transport, "emulation", None)
    return emulation if isinstance(emulation, Emulation) else None
