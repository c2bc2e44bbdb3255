"""What a recording holds: all that the host's own code did not determine, in order."""

from __future__ import annotations

from enum import IntEnum
from typing import NamedTuple

__all__ = ["Event", "Kind", "decode_event", "encode_event"]

_SHORT = 0x80  # a byte below is a step of the clock
_VARINT_BYTES = 9


class Kind(IntEnum):
    """What happened. All but reading, clock and session number are asked by the host: they are there to be checked."""

    CLOCK = 0x80
    READ = 0x81
    WRITE = 0x82
    SESSION_NUMBER = 0x83
    BAUD = 0x84
    REOPEN = 0x85
    FAILED = 0x86
    END = 0x87


_WITH_NUMBER = frozenset((Kind.CLOCK, Kind.SESSION_NUMBER, Kind.BAUD, Kind.FAILED))
_WITH_DATA = frozenset((Kind.READ, Kind.WRITE, Kind.FAILED))


class Event(NamedTuple):
    """One thing that happened.

    Attributes:
        kind: What.
        number: Of CLOCK the microseconds since the clock was last read, of SESSION_NUMBER and BAUD the value, of FAILED
            the kind of what failed: reading, or the event before.
        data: Of READ and WRITE the bytes; of FAILED the error's type, text and cause in UTF-8, with zeros between.
    """

    kind: Kind
    number: int = 0
    data: bytes = b""


def encode_event(event: Event) -> bytes:
    """Give an event as it stands in a block; numbers are at most 2^63 - 1."""
    if event.kind is Kind.CLOCK and event.number < _SHORT:
        return bytes((event.number,))
    encoded = bytearray((event.kind,))
    if event.kind in _WITH_NUMBER:
        _put_varint(encoded, event.number)
    if event.kind in _WITH_DATA:
        _put_varint(encoded, len(event.data))
        encoded += event.data
    return bytes(encoded)


def decode_event(data: bytes, position: int) -> tuple[Event, int]:
    """Read the event at a position; give it, and the position behind it.

    Raises:
        ValueError: There is none; the text says why.
    """
    first = data[position]
    position += 1
    if first < _SHORT:
        return Event(Kind.CLOCK, first), position
    try:
        kind = Kind(first)
    except ValueError:
        raise ValueError(f"unknown kind 0x{first:02x}") from None
    number, content = 0, b""
    if kind in _WITH_NUMBER:
        number, position = _take_varint(data, position)
    if kind in _WITH_DATA:
        size, position = _take_varint(data, position)
        content = data[position : position + size]
        position += size
        if position > len(data):
            raise ValueError(f"{size} bytes are announced, {len(content)} are there")
    return Event(kind, number, content), position


def _put_varint(encoded: bytearray, number: int) -> None:
    """LEB128, as in DWARF 5, section 7.6."""
    while number >= 0x80:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)


def _take_varint(data: bytes, position: int) -> tuple[int, int]:
    number = 0
    for place in range(_VARINT_BYTES):
        byte = data[position + place]
        number |= (byte & 0x7F) << 7 * place
        if byte < 0x80:
            return number, position + place + 1
    raise ValueError(f"a number of more than {_VARINT_BYTES} bytes")
