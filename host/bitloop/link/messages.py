"""The bodies of all messages of docs/protocol.md: one record each, with ``encode`` and a bounds-checked ``decode``."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

from bitloop import spec
from bitloop.errors import ProtocolError
from bitloop.spec import MessageType, Status

M = TypeVar("M", bound="Message")


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


@dataclass(frozen=True)
class HelloRequest(Message):
    """Begins a session; the versions are the host's."""

    TYPE = MessageType.HELLO_REQUEST
    LAYOUT = struct.Struct("<HH")
    major: int = spec.PROTOCOL_MAJOR
    minor: int = spec.PROTOCOL_MINOR


@dataclass(frozen=True)
class Hello(Message):
    """One of ``parts`` frames of tagged fields."""

    TYPE = MessageType.HELLO
    LAYOUT = struct.Struct("<BB")
    TAIL = True
    part: int
    parts: int
    fields: bytes


@dataclass(frozen=True)
class EchoRequest(Message):
    """Asks for the same bytes."""

    TYPE = MessageType.ECHO_REQUEST
    TAIL = True
    data: bytes


@dataclass(frozen=True)
class Echo(Message):
    """The same bytes."""

    TYPE = MessageType.ECHO
    TAIL = True
    data: bytes


@dataclass(frozen=True)
class StatsRequest(Message):
    """Asks for the device's counters."""

    TYPE = MessageType.STATS_REQUEST


@dataclass(frozen=True)
class Stats(Message):
    """The device's counters as tagged fields."""

    TYPE = MessageType.STATS
    TAIL = True
    fields: bytes


@dataclass(frozen=True)
class Log(Message):
    """A line of the device's log channel."""

    TYPE = MessageType.LOG
    LAYOUT = struct.Struct("<B")
    TAIL = True
    level: int
    text: bytes


@dataclass(frozen=True)
class Error(Message):
    """A refusal."""

    TYPE = MessageType.ERROR
    LAYOUT = struct.Struct("<hBxII")
    status: int
    request: int
    detail0: int
    detail1: int


@dataclass(frozen=True)
class UploadBegin(Message):
    """Announces an image."""

    TYPE = MessageType.UPLOAD_BEGIN
    LAYOUT = struct.Struct("<II32s")
    image_bytes: int
    arena_bytes: int
    sha256: bytes


@dataclass(frozen=True)
class UploadReady(Message):
    """Where the upload goes on, and how far data may be sent."""

    TYPE = MessageType.UPLOAD_READY
    LAYOUT = struct.Struct("<II")
    offset: int
    limit: int


@dataclass(frozen=True)
class UploadData(Message):
    """Bytes of the image at an offset."""

    TYPE = MessageType.UPLOAD_DATA
    LAYOUT = struct.Struct("<I")
    TAIL = True
    offset: int
    data: bytes


@dataclass(frozen=True)
class UploadAck(Message):
    """The next offset that the device expects, and how far data may be sent."""

    TYPE = MessageType.UPLOAD_ACK
    LAYOUT = struct.Struct("<II")
    next: int
    limit: int


@dataclass(frozen=True)
class UploadEnd(Message):
    """Asks for the verdict on the image."""

    TYPE = MessageType.UPLOAD_END


@dataclass(frozen=True)
class UploadDone(Message):
    """The image is valid; the hash is the one that the device computed."""

    TYPE = MessageType.UPLOAD_DONE
    LAYOUT = struct.Struct("<32sI")
    sha256: bytes
    arena_bytes: int


@dataclass(frozen=True)
class RunBegin(Message):
    """Announces images."""

    TYPE = MessageType.RUN_BEGIN
    LAYOUT = struct.Struct("<BBHI")
    mode: int
    outputs: int
    stop_layer: int
    images: int


@dataclass(frozen=True)
class RunReady(Message):
    """How many images the device buffers, how long a result is, and how far pixels may be sent."""

    TYPE = MessageType.RUN_READY
    LAYOUT = struct.Struct("<HHI")
    slots: int
    record_bytes: int
    limit: int


@dataclass(frozen=True)
class RunData(Message):
    """Pixels at an offset of the stream of all images."""

    TYPE = MessageType.RUN_DATA
    LAYOUT = struct.Struct("<I")
    TAIL = True
    offset: int
    data: bytes


@dataclass(frozen=True)
class StreamData(Message):
    """Weights of one pass at an offset of its stream."""

    TYPE = MessageType.STREAM_DATA
    LAYOUT = struct.Struct("<II")
    TAIL = True
    pass_number: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class WeightsCredit:
    """The pass that the device is in, the next offset in it that it expects, and how far weights may be sent."""

    LAYOUT: ClassVar[struct.Struct] = struct.Struct("<III")
    pass_number: int
    next: int
    limit: int


@dataclass(frozen=True)
class RunCredit(Message):
    """The next offset that the device expects, how far pixels may be sent, and how many results are done.

    If the image's weights are streamed, the same of these stands behind.
    """

    TYPE = MessageType.RUN_CREDIT
    LAYOUT = struct.Struct("<III")
    next: int
    limit: int
    results_done: int
    weights: WeightsCredit | None = None

    def encode(self) -> bytes:
        """Give the body of a frame."""
        body = self.LAYOUT.pack(self.next, self.limit, self.results_done)
        weights = self.weights
        return body if weights is None else body + weights.LAYOUT.pack(weights.pass_number, weights.next, weights.limit)

    @classmethod
    def decode(cls, body: bytes) -> RunCredit:
        """Read the body of a frame.

        Raises:
            ProtocolError: The length does not fit.
        """
        alone = cls.LAYOUT.size
        both = alone + WeightsCredit.LAYOUT.size
        if len(body) not in (alone, both):
            raise ProtocolError(
                f"{cls.TYPE.name} has a body of {len(body)} bytes, expected {alone}, or {both} with streamed weights; "
                "host and firmware differ: update both"
            )
        weights = WeightsCredit(*WeightsCredit.LAYOUT.unpack_from(body, alone)) if len(body) == both else None
        next_offset, limit, results_done = cls.LAYOUT.unpack_from(body)
        return cls(next_offset, limit, results_done, weights)


@dataclass(frozen=True)
class Result(Message):
    """Records of ``count`` images from ``index`` on."""

    TYPE = MessageType.RESULT
    LAYOUT = struct.Struct("<IBx")
    TAIL = True
    index: int
    count: int
    records: bytes


@dataclass(frozen=True)
class RunAck(Message):
    """Every result before ``index`` has arrived; with ``resend`` the later ones are asked for again."""

    TYPE = MessageType.RUN_ACK
    LAYOUT = struct.Struct("<IB")
    index: int
    resend: int


@dataclass(frozen=True)
class RunEnd(Message):
    """Ends a run."""

    TYPE = MessageType.RUN_END


@dataclass(frozen=True)
class RunDone(Message):
    """The run has ended."""

    TYPE = MessageType.RUN_DONE
    LAYOUT = struct.Struct("<I")
    images: int


@dataclass(frozen=True)
class ReadActivation(Message):
    """Asks for bytes of the stop layer's output."""

    TYPE = MessageType.READ_ACTIVATION
    LAYOUT = struct.Struct("<IH")
    offset: int
    size: int


@dataclass(frozen=True)
class ActivationData(Message):
    """Bytes of the stop layer's output."""

    TYPE = MessageType.ACTIVATION
    LAYOUT = struct.Struct("<II")
    TAIL = True
    offset: int
    total: int
    data: bytes


MESSAGES: dict[int, type[Message]] = {
    cls.TYPE: cls
    for cls in (
        HelloRequest, Hello, EchoRequest, Echo, StatsRequest, Stats, Log, Error,
        UploadBegin, UploadReady, UploadData, UploadAck, UploadEnd, UploadDone,
        RunBegin, RunReady, RunData, RunCredit, Result, RunAck, RunEnd, RunDone, ReadActivation, ActivationData,
        StreamData,
    )
}  # fmt: skip
"""Every message by its type."""


def message_name(message_type: int) -> str:
    """Name a type for a person."""
    try:
        return MessageType(message_type).name
    except ValueError:
        return f"type 0x{message_type:02X}"


def status_name(status: int) -> str:
    """Name a status for a person."""
    try:
        return Status(status).name
    except ValueError:
        return f"status {status}"


def parse_fields(data: bytes, where: str) -> list[tuple[int, bytes]]:
    """Split tagged fields.

    Args:
        data: Tag u8, length u8, value; as often as it goes.
        where: Name of the message, for the error.

    Raises:
        ProtocolError: A field does not end within ``data``.
    """
    found: list[tuple[int, bytes]] = []
    position = 0
    while position < len(data):
        if position + 2 > len(data) or position + 2 + data[position + 1] > len(data):
            raise ProtocolError(
                f"{where} ends within a field at byte {position} of {len(data)}; its firmware is faulty"
            )
        end = position + 2 + data[position + 1]
        found.append((data[position], data[position + 2 : end]))
        position = end
    return found


def join_fields(tagged: Iterable[tuple[int, bytes]]) -> bytes:
    """Write tagged fields one behind another; the inverse of :func:`parse_fields`."""
    return b"".join(bytes((tag, len(value))) + value for tag, value in tagged)
