"""The bodies of all messages of docs/protocol.md: one record each, with ``encode`` and a bounds-checked ``decode``."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass

from bitloop import spec
from bitloop.errors import ProtocolError
from bitloop.link.wire.message import M, Message, Ranges
from bitloop.link.wire.run_messages import (
    ActivationData,
    ReadActivation,
    Result,
    RunAck,
    RunBegin,
    RunCoded,
    RunCredit,
    RunData,
    RunDone,
    RunEnd,
    RunReady,
    StreamCoded,
    StreamData,
    WeightsCredit,
)
from bitloop.link.wire.upload_messages import (
    CodeReady,
    CodeTable,
    HeldPiece,
    Tensors,
    TensorsRequest,
    UploadAck,
    UploadBegin,
    UploadCoded,
    UploadCopied,
    UploadCopy,
    UploadData,
    UploadDelta,
    UploadDone,
    UploadEnd,
    UploadReady,
)
from bitloop.spec import MessageType, Status

__all__ = [
    "MESSAGES",
    "ActivationData",
    "BaudCommit",
    "BaudDone",
    "BaudReady",
    "BaudRequest",
    "CodeReady",
    "CodeTable",
    "Echo",
    "EchoRequest",
    "Error",
    "HeldPiece",
    "Hello",
    "HelloRequest",
    "Log",
    "M",
    "Message",
    "Ranges",
    "ReadActivation",
    "Result",
    "RunAck",
    "RunBegin",
    "RunCoded",
    "RunCredit",
    "RunData",
    "RunDone",
    "RunEnd",
    "RunReady",
    "Stats",
    "StatsRequest",
    "StreamCoded",
    "StreamData",
    "Tensors",
    "TensorsRequest",
    "UploadAck",
    "UploadBegin",
    "UploadCoded",
    "UploadCopied",
    "UploadCopy",
    "UploadData",
    "UploadDelta",
    "UploadDone",
    "UploadEnd",
    "UploadReady",
    "WeightsCredit",
    "join_fields",
    "message_name",
    "parse_fields",
    "status_name",
]  # fmt: skip


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
class BaudRequest(Message):
    """Asks for another rate of the line, in bits a second."""

    TYPE = MessageType.BAUD_REQUEST
    LAYOUT = struct.Struct("<I")
    baud: int


@dataclass(frozen=True)
class BaudReady(Message):
    """The rate that the device will have."""

    TYPE = MessageType.BAUD_READY
    LAYOUT = struct.Struct("<I")
    baud: int


@dataclass(frozen=True)
class BaudCommit(Message):
    """Says that the rate asked for works both ways."""

    TYPE = MessageType.BAUD_COMMIT
    LAYOUT = struct.Struct("<I")
    baud: int


@dataclass(frozen=True)
class BaudDone(Message):
    """The rate stays."""

    TYPE = MessageType.BAUD_DONE
    LAYOUT = struct.Struct("<I")
    baud: int


MESSAGES: dict[int, type[Message]] = {
    cls.TYPE: cls
    for cls in (
        HelloRequest, Hello, EchoRequest, Echo, StatsRequest, Stats, Log, Error,
        BaudRequest, BaudReady, BaudCommit, BaudDone,
        UploadBegin, UploadReady, UploadData, UploadAck, UploadEnd, UploadDone,
        TensorsRequest, Tensors, UploadDelta, UploadCopy, UploadCopied, CodeTable, CodeReady, UploadCoded,
        RunBegin, RunReady, RunData, RunCredit, Result, RunAck, RunEnd, RunDone, ReadActivation, ActivationData,
        RunCoded, StreamData, StreamCoded,
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
