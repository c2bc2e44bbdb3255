"""The serial monitor: frames and raw text of a device, as they come, with the time at which they came."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from bitloop.errors import ProtocolError
from bitloop.hello import DeviceInfo, printable
from bitloop.link.causes import explain_line
from bitloop.link.open import open_transport
from bitloop.link.recording.recorder import draw_session_number
from bitloop.link.transport import DEFAULT_BAUD, Transport
from bitloop.link.wire import messages
from bitloop.link.wire.frame import CorruptFrame, Decoder, Frame, Item, RawBytes, encode_frame, is_text
from bitloop.spec import LogLevel, MessageType

__all__ = ["Event", "Monitor"]

_WAIT_S = 0.1
_IDLE_S = 0.3


@dataclass(frozen=True)
class Event:
    """Something a device sent.

    Attributes:
        monotonic: when it came, in seconds of :attr:`Monitor.clock`.
        kind: ``log``, ``frame``, ``raw`` (text outside of frames), ``meaning`` (of the text just before, if that is of
            a panic or a boot ROM) or ``damaged``.
        level: of a log frame, in lower case; else "".
        text: what it says; control characters are replaced.
        important: whether a person wants to see it even without asking for all frames.
    """

    monotonic: float
    kind: str
    level: str
    text: str
    important: bool = True


class Monitor:
    """Listens to a device. Nothing is sent but on :meth:`say_hello`.

    Args:
        port: a port, a pyserial URL or an open transport.
        baud: bits a second of a serial port.
        record: where to record what comes, for ``replay://FILE``; not of an open transport.
        overwrite: whether the recording may replace a file.

    Raises:
        PortError: the port cannot be opened.
        UsageError: the recording is there already, or cannot be written.

    Attributes:
        clock: seconds that never go back.
    """

    def __init__(
        self, port: str | Transport, *, baud: int = DEFAULT_BAUD, record: Path | None = None, overwrite: bool = False
    ) -> None:
        if isinstance(port, str):
            port = open_transport(port, baud=baud, record=record, force=overwrite)
        self._transport = port
        self.clock: Callable[[], float] = getattr(port, "clock", None) or time.monotonic
        self._decoder = Decoder()
        self._hello: dict[int, bytes] = {}

    def __enter__(self) -> Monitor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the port."""
        self._transport.close()

    def say_hello(self) -> None:
        """Ask the device who it is; its answer is one of the events. A run that it may be at ends."""
        body = messages.HelloRequest().encode()
        draw: Callable[[], int] = getattr(self._transport, "session_number", None) or draw_session_number
        session = draw()
        self._transport.write(b"\0" + encode_frame(MessageType.HELLO_REQUEST, 1, session, body))

    def events(self, *, seconds: float | None = None) -> Iterator[Event]:
        """Give what the device sends, as it comes.

        Args:
            seconds: how long; None is without end.

        Raises:
            TransportError: the stream broke.
        """
        deadline = None if seconds is None else self.clock() + seconds
        heard = self.clock()
        while True:
            now = self.clock()
            if deadline is not None and now >= deadline:
                break
            data = self._transport.read(_WAIT_S if deadline is None else min(_WAIT_S, deadline - now))
            now = self.clock()
            if data:
                heard = now
                yield from self._tell(self._decoder.feed(data), now)
            elif now - heard >= _IDLE_S and is_text(self._decoder.pending):
                yield from self._tell(self._decoder.flush(), now)
        yield from self._tell(self._decoder.flush(), self.clock())

    def _tell(self, items: list[Item], now: float) -> Iterator[Event]:
        for item in items:
            if isinstance(item, Frame):
                yield self._tell_frame(item, now)
            elif isinstance(item, RawBytes):
                for line in item.data.splitlines():
                    if line.strip():
                        yield Event(now, "raw", "", printable(line))
                        meaning = explain_line(line)
                        if meaning:
                            yield Event(now, "meaning", "", meaning)
            elif isinstance(item, CorruptFrame):
                yield Event(now, "damaged", "", f"{len(item.data)} bytes: {item.reason}")

    def _tell_frame(self, frame: Frame, now: float) -> Event:
        name = messages.message_name(frame.type)
        try:
            if frame.type == MessageType.LOG:
                log = messages.Log.decode(frame.body)
                return Event(now, "log", _level(log.level), printable(log.text))
            if frame.type == MessageType.ERROR:
                error = messages.Error.decode(frame.body)
                return Event(now, "frame", "", f"{name} {messages.status_name(error.status)}")
            if frame.type == MessageType.HELLO:
                info = self._collect(messages.Hello.decode(frame.body))
                if info is not None:
                    words = f"{info.board} ({info.isa}), firmware {info.firmware_version}, protocol {info.protocol}"
                    return Event(now, "frame", "", f"{name} {words}")
        except ProtocolError as error:
            return Event(now, "damaged", "", f"{name}: {error}")
        return Event(now, "frame", "", f"{name} #{frame.sequence}, {len(frame.body)} bytes", important=False)

    def _collect(self, hello: messages.Hello) -> DeviceInfo | None:
        """Return the device's facts when the last part of a HELLO has come."""
        if hello.part == 0:
            self._hello.clear()
        self._hello[hello.part] = hello.fields
        if sorted(self._hello) != list(range(hello.parts)):
            return None
        fields = [field for part in sorted(self._hello) for field in messages.parse_fields(self._hello[part], "HELLO")]
        return DeviceInfo.from_fields(fields)


def _level(level: int) -> str:
    try:
        return LogLevel(level).name.lower()
    except ValueError:
        return f"level {level}"
