"""What the messages of docs/protocol.md have in common: ``encode`` and a bounds-checked ``decode``, also of ranges."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar, TypeAlias, TypeVar

from bitloop import spec
from bitloop.errors import ProtocolError
from bitloop.spec import MessageType

M = TypeVar("M", bound="Message")
R = TypeVar("R", bound="RangedMessage")
Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Begin and end of each stretch of bytes that a device holds beyond a gap."""

_RANGE = struct.Struct("<II")


class Message:
    """Base of all messages: fixed fields, then, where ``TAIL`` is set, bytes as the last field."""

    TYPE: ClassVar[MessageType]
    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<")
    TAIL: ClassVar[bool] = False

    def encode(self) -> bytes:
        """Give the body of a frame."""
        values: list[Any] = [getattr(self, field.name) for field in fields(self)]  # type: ignore[arg-type]
        tail = values.pop() if self.TAIL else b""
        return self.LAYOUT.pack(*values) + bytes(tail)

    @classmethod
    def decode(cls: type[M], body: bytes) -> M:
        """Read the body of a frame.

        Raises:
            ProtocolError: The length does not fit.
        """
        size = cls.LAYOUT.size
        if len(body) < size or (len(body) > size and not cls.TAIL):
            raise ProtocolError(
                f"{cls.TYPE.name} has a body of {len(body)} bytes, expected {size}{' or more' if cls.TAIL else ''}; "
                "host and firmware differ: update both"
            )
        values: list[Any] = list(cls.LAYOUT.unpack_from(body))
        if cls.TAIL:
            values.append(body[size:])
        return cls(*values)


class RangedMessage(Message):
    """Base of the answers that tell what the device holds: fixed fields, then ranges beyond ``next``.

    The last two fixed fields are the offset up to which it has everything, and how far data may be sent.
    """

    def encode(self) -> bytes:
        """Give the body of a frame."""
        *values, ranges = [getattr(self, field.name) for field in fields(self)]  # type: ignore[arg-type]
        return self.LAYOUT.pack(*values) + encode_ranges(ranges)

    @classmethod
    def decode(cls: type[R], body: bytes) -> R:
        """Read the body of a frame.

        Raises:
            ProtocolError: The length does not fit, or the ranges cannot be.
        """
        size = cls.LAYOUT.size
        if len(body) < size or (len(body) - size) % _RANGE.size:
            raise ProtocolError(
                f"{cls.TYPE.name} has a body of {len(body)} bytes, expected {size}, and {_RANGE.size} for each range; "
                "host and firmware differ: update both"
            )
        values: list[Any] = list(cls.LAYOUT.unpack_from(body))
        values.append(decode_ranges(body[size:], values[-2], cls.TYPE.name))
        return cls(*values)


def encode_ranges(ranges: Sequence[tuple[int, int]]) -> bytes:
    """Give the bytes of ranges."""
    return b"".join(_RANGE.pack(begin, end) for begin, end in ranges)


def decode_ranges(data: bytes, next_offset: int, where: str) -> Ranges:
    """Read ranges that stand at the end of a body.

    Args:
        data: A multiple of 8 bytes.
        next_offset: Up to where the device has everything.
        where: Name of the message, for the error.

    Raises:
        ProtocolError: There are too many, or they are not ascending, empty, or touch one another or ``next_offset``.
    """
    ranges = tuple((begin, end) for begin, end in _RANGE.iter_unpack(data))
    bounds = [next_offset, *(bound for found in ranges for bound in found)]
    if len(ranges) > spec.MAX_RANGES or any(low >= high for low, high in itertools.pairwise(bounds)):
        raise ProtocolError(
            f"{where} tells of bytes up to {next_offset} and of the ranges {list(ranges)}, which cannot be; "
            "its firmware is faulty"
        )
    return ranges
