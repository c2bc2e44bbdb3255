"""What goes by on a line, item by item, without a session: the source of the serial monitor."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, fields
from enum import Enum

from bitloop.errors import ProtocolError
from bitloop.hello import printable
from bitloop.link import messages
from bitloop.link.channel import Clock, excerpt
from bitloop.link.frame import CorruptFrame, Decoder, Frame, Item, RawBytes, is_text
from bitloop.link.refusals import describe_error
from bitloop.link.transport import Transport
from bitloop.spec import MessageType

_IDLE_S = 0.2
_SHOWN_BYTES = 16


class MonitorKind(Enum):
    """What an item is."""

    LOG = "log"
    RAW = "raw"
    FRAME = "frame"
    DAMAGED = "damaged"


@dataclass(frozen=True)
class MonitorItem:
    """One thing that went by.

    Attributes:
        seconds: Since watching began.
        kind: What it is.
        text: For a person; raw text keeps its line breaks, other control characters are replaced.
        level: :class:`bitloop.spec.LogLevel` of a log frame.
        message_type: Type of a log or other frame.
    """

    seconds: float
    kind: MonitorKind
    text: str
    level: int | None = None
    message_type: int | None = None


def watch(
    transport: Transport, *, duration_s: float | None = None, clock: Clock = time.monotonic
) -> Iterator[MonitorItem]:
    """Give what goes by until the stream breaks or the time is over.

    Text without an end is given out as soon as the line is idle.

    Args:
        transport: An open stream; it is only read from.
        duration_s: How long to watch; None for ever.
        clock: Seconds that never go back.

    Raises:
        TransportError: The stream broke.
    """
    decoder = Decoder()
    started = clock()
    while duration_s is None or clock() - started < duration_s:
        left_s = _IDLE_S if duration_s is None else min(_IDLE_S, started + duration_s - clock())
        data = transport.read(max(left_s, 0.0))
        if data:
            items = decoder.feed(data)
        elif is_text(decoder.pending):
            items = decoder.flush()
        else:
            continue
        seconds = clock() - started
        for item in items:
            yield describe(item, seconds)
    for item in decoder.flush():
        yield describe(item, clock() - started)


def describe(item: Item, seconds: float = 0.0) -> MonitorItem:
    """Put a decoded item into words."""
    if isinstance(item, RawBytes):
        lines = item.data.replace(b"\r\n", b"\n").split(b"\n")
        return MonitorItem(seconds, MonitorKind.RAW, "\n".join(printable(line) for line in lines))
    if isinstance(item, CorruptFrame):
        return MonitorItem(seconds, MonitorKind.DAMAGED, f"{item.reason}: {excerpt(item.data)}")
    try:
        return _describe_frame(item, seconds)
    except ProtocolError as error:
        return MonitorItem(seconds, MonitorKind.DAMAGED, str(error), message_type=item.type)


def _describe_frame(frame: Frame, seconds: float) -> MonitorItem:
    cls = messages.MESSAGES.get(frame.type)
    if cls is None:
        text = f"{messages.message_name(frame.type)}: {_show(frame.body)}"
        return MonitorItem(seconds, MonitorKind.FRAME, text, message_type=frame.type)
    message = cls.decode(frame.body)
    if isinstance(message, messages.Log):
        return MonitorItem(seconds, MonitorKind.LOG, printable(message.text), message.level, frame.type)
    if isinstance(message, messages.Error):
        return MonitorItem(seconds, MonitorKind.FRAME, describe_error(message), message_type=frame.type)
    values = [f"{field.name}={_show(getattr(message, field.name))}" for field in fields(message)]  # type: ignore[arg-type]
    text = f"{MessageType(frame.type).name} #{frame.sequence} {' '.join(values)}".rstrip()
    return MonitorItem(seconds, MonitorKind.FRAME, text, message_type=frame.type)


def _show(value: object) -> str:
    if not isinstance(value, bytes):
        return str(value)
    dots = "…" if len(value) > _SHOWN_BYTES else ""
    return f"[{len(value)}] {value[:_SHOWN_BYTES].hex(' ')}{dots}".rstrip()
