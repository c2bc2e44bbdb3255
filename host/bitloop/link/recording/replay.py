"""A transport that gives a recorded session back.

A session's decisions depend on its own code, on its arguments, and on what its transport gives it: bytes, errors, the
time, and session numbers. With the same code and arguments a replay therefore writes the very bytes that were written
when it was recorded, and this is checked at every write.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import bitloop
from bitloop import errors
from bitloop.errors import BitloopError, Cause, DataError, LinkError, UsageError
from bitloop.link.recording.events import Event, Kind
from bitloop.link.recording.file import Reader
from bitloop.link.recording.header import Header
from bitloop.link.urls.emulation import Emulation
from bitloop.link.wire import messages
from bitloop.link.wire.frame import Decoder, Frame

__all__ = ["ReplayTransport", "file_of", "is_replay"]

_SCHEME = "replay://"
_SHOWN_BYTES = 8
_DONE = {
    Kind.CLOCK: "looks at the clock",
    Kind.READ: "reads",
    Kind.WRITE: "writes",
    Kind.SESSION_NUMBER: "draws a session number",
    Kind.BAUD: "changes the rate",
    Kind.REOPEN: "opens the port again",
    Kind.FAILED: "fails",
    Kind.END: "ends",
}


def is_replay(url: str) -> bool:
    """Tell whether a device's name is that of a recording."""
    return url.lower().startswith(_SCHEME)


def file_of(url: str) -> Path:
    """Give the file that a ``replay://`` URL names.

    Raises:
        UsageError: It names none.
    """
    name = url[len(_SCHEME) :]
    if not name:
        raise UsageError("replay:// names no file; write replay://FILE, such as replay://session.rec")
    return Path(name)


class ReplayTransport:
    """A transport that gives back what was recorded, as fast as it is asked for.

    Args:
        url: ``replay://FILE``.
        facts: What this session is about: what differs from the recording is named where the replay departs.

    Raises:
        DataError: There is no such recording, or it is damaged.
        UsageError: No file is named.
    """

    def __init__(self, url: str, *, facts: Mapping[str, str] | None = None) -> None:
        self._url = url
        self._facts = facts or {}
        self._reader = Reader(file_of(url))
        self._header = self._reader.header
        self._baud = self._header.baud
        self._now_us = 0
        self._failure: DataError | None = None

    @property
    def description(self) -> str:
        """The URL as it was given."""
        return self._url

    @property
    def origin(self) -> str:
        """The URL of the recorded device: what depends on the kind of a device must depend on this one's."""
        return self._header.url

    @property
    def header(self) -> Header:
        """Who recorded what."""
        return self._header

    @property
    def finished(self) -> bool:
        """True when everything was replayed, and the recording was not cut off."""
        return self._failure is None and self._reader.peek() == Event(Kind.END)

    @property
    def emulation(self) -> Emulation | None:
        """What emulated the recorded device."""
        known = self._header.emulation
        if known is None:
            return None
        try:
            return Emulation(
                emulator=str(known["emulator"]),
                version=str(known["version"]),
                machine=str(known["machine"]),
                icount_shift=_small(known["icount_shift"]),
                process_id=0,
            )
        except (KeyError, ValueError) as error:
            raise DataError(f"the header of {self._url} is damaged: its emulation has no {error}") from error

    @property
    def baud(self) -> int:
        """The rate that the recorded port had."""
        return self._baud

    @property
    def has_fixed_baud(self) -> bool:
        """Whether the recorded line kept its rate whatever the port was set to."""
        return self._header.has_fixed_baud

    def clock(self) -> float:
        """Give the recorded time."""
        self._now_us += self._take(Kind.CLOCK).number
        return self._now_us / 1e6

    def sleep(self, seconds: float) -> None:
        """Do not sleep: the recorded clock has gone on by itself."""

    def session_number(self) -> int:
        """Give the recorded number."""
        return self._take(Kind.SESSION_NUMBER).number

    def read(self, timeout_s: float) -> bytes:  # noqa: ARG002 - it passed when this was recorded
        """Give what was read, or fail as reading did."""
        self._fail_as_recorded(Kind.READ)
        return self._take(Kind.READ).data

    def write(self, data: bytes) -> None:
        """See that the same was written, and fail if writing did.

        Raises:
            DataError: Other bytes were.
        """
        recorded = self._take(Kind.WRITE).data
        if recorded != data:
            self._depart(_difference(recorded, bytes(data)), event=self._reader.number - 1)
        self._fail_as_recorded(Kind.WRITE)

    def set_baud(self, baud: int) -> None:
        """See that the rate was changed so, and fail if that did."""
        recorded = self._take(Kind.BAUD).number
        if recorded != baud:
            self._depart(f"the recorded session changes the rate to {recorded} baud, this one to {baud}")
        self._fail_as_recorded(Kind.BAUD)
        self._baud = baud

    def reopen(self) -> None:
        """See that the port was opened again then, and fail if that did."""
        self._take(Kind.REOPEN)
        self._fail_as_recorded(Kind.REOPEN)
        self._baud = self._header.baud

    def close(self) -> None:
        """Close the file."""
        self._reader.close()

    def _take(self, kind: Kind) -> Event:
        """Give the next event, which must be of a kind."""
        event = self._next()
        if event is None:
            self._cut_off(kind)
        if event.kind is not kind:
            ended = event.kind is Kind.END
            done = "ends" if ended else _failing(event) if event.kind is Kind.FAILED else _DONE[event.kind]
            self._depart(f"the recorded session {done} there, this one {_DONE[kind]}", event=self._reader.number)
        self._reader.next()
        return event

    def _next(self) -> Event | None:
        if self._failure is not None:
            raise self._failure
        try:
            return self._reader.peek()
        except DataError as error:
            self._failure = error
            self._reader.close()
            raise
        except ValueError as error:  # the file was closed
            raise LinkError(f"{self._url} is closed") from error

    def _fail_as_recorded(self, kind: Kind) -> None:
        event = self._next()
        if event is not None and event.kind is Kind.FAILED and event.number == kind:
            self._reader.next()
            raise _recorded_error(event)

    def _cut_off(self, kind: Kind) -> NoReturn:
        self._failure = DataError(
            f"{self._url} was cut off: it ends behind event {self._reader.number}, at byte {self._reader.offset} of "
            f"the file, {self._now_us / 1e6:.3f} s after its beginning, where this session {_DONE[kind]}; the program "
            "that recorded it was killed, or the file is not whole. Up to there the replay did what was recorded"
        )
        self._reader.close()
        raise self._failure

    def _depart(self, what: str, *, event: int | None = None) -> NoReturn:
        number = self._reader.number - 1 if event is None else event
        header = self._header
        differing = [
            f"{name} {theirs!r} then, {self._facts[name]!r} now"
            for name, theirs in header.facts.items()
            if name in self._facts and self._facts[name] != theirs
        ]
        if header.bitloop != bitloop.__version__:
            differing.insert(0, f"bitloop {header.bitloop} then, {bitloop.__version__} now")
        made = ", ".join(f"{name} {value}" for name, value in header.facts.items())
        self._failure = DataError(
            f"{self._url}: the replay departs from the recording at event {number}, {self._now_us / 1e6:.3f} s after "
            f"its beginning: {what}. "
            + (f"What differs: {'; '.join(differing)}. " if differing else "")
            + f"It was recorded on {header.started} by bitloop {header.bitloop} (protocol {header.protocol}) from "
            f"{header.url}"
            + (f" with: {header.command}" if header.command else "")
            + (f" ({made})" if made else "")
            + "; the same bitloop, model and options replay it"
        )
        self._reader.close()
        raise self._failure


def _small(value: str | int) -> int:
    """Give a count of bits to shift by."""
    if not isinstance(value, int) or not 0 <= value < 64:
        raise ValueError("shift from 0 to 63")
    return value


def _failing(event: Event) -> str:
    what = _DONE[Kind(event.number)] if event.number in Kind.__members__.values() else "does something"
    return f"{what} and fails"


def _recorded_error(event: Event) -> BaseException:
    """Make the error that was recorded; one of no class of bitloop's becomes a RuntimeError."""
    name, text, cause, *_ = (event.data.decode("utf-8", "replace") + "\0\0").split("\0")
    if name == "KeyboardInterrupt":
        return KeyboardInterrupt()
    found = getattr(errors, name, None)
    if not isinstance(found, type) or not issubclass(found, BitloopError):
        return RuntimeError(f"{name}: {text}")
    try:
        return (
            found(text, cause=Cause[cause])
            if issubclass(found, LinkError) and cause in Cause.__members__
            else found(text)
        )
    except TypeError:  # an error that takes more than a text is none of a transport's
        return LinkError(text)


def _difference(recorded: bytes, written: bytes) -> str:
    """Say where two writes part."""
    same = next(
        (at for at, (old, new) in enumerate(zip(recorded, written, strict=False)) if old != new),
        min(len(recorded), len(written)),
    )

    def around(data: bytes) -> str:
        shown = data[same : same + _SHOWN_BYTES]
        return (shown.hex(" ") + (" …" if len(data) > same + _SHOWN_BYTES else "")) if shown else "nothing more"

    return (
        f"byte {same} of what is written; recorded {around(recorded)} "
        f"({len(recorded)} bytes, {_frame_at(recorded, same)}), "
        f"now {around(written)} ({len(written)} bytes, {_frame_at(written, same)})"
    )


def _frame_at(data: bytes, at: int) -> str:
    """Name the frame that a byte is part of."""
    begin = data.rfind(b"\0", 0, at) + 1
    end = data.find(b"\0", at)
    items = Decoder().feed(data[begin : (end if end >= 0 else len(data)) + 1])
    return f"in {messages.message_name(items[0].type)}" if items and isinstance(items[0], Frame) else "between frames"
