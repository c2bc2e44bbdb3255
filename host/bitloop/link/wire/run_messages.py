"""The messages of a run: pixels and streamed weights up, plain or coded, results and credit down."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import ClassVar

from bitloop.errors import ProtocolError
from bitloop.link.wire.message import Message, Ranges, decode_ranges, encode_ranges
from bitloop.spec import MessageType


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

    If the image's weights are streamed, the same of these stands behind. The ranges are of the pixels while ``next`` is
    below ``limit``, else of the weights. Lengths tell the two apart: 12 and 24 leave different remainders of 8.
    """

    TYPE = MessageType.RUN_CREDIT
    LAYOUT = struct.Struct("<III")
    next: int
    limit: int
    results_done: int
    weights: WeightsCredit | None = None
    ranges: Ranges = ()

    @property
    def of_pixels(self) -> bool:
        """Whether the ranges are of the pixels."""
        return self.weights is None or self.next < self.limit

    def encode(self) -> bytes:
        """Give the body of a frame."""
        body = self.LAYOUT.pack(self.next, self.limit, self.results_done)
        if self.weights is not None:
            body += self.weights.LAYOUT.pack(self.weights.pass_number, self.weights.next, self.weights.limit)
        return body + encode_ranges(self.ranges)

    @classmethod
    def decode(cls, body: bytes) -> RunCredit:
        """Read the body of a frame.

        Raises:
            ProtocolError: The length does not fit, or the ranges cannot be.
        """
        alone = cls.LAYOUT.size
        both = alone + WeightsCredit.LAYOUT.size
        streamed = len(body) % 8 == both % 8
        size = both if streamed else alone
        if len(body) < size or (len(body) - size) % 8:
            raise ProtocolError(
                f"{cls.TYPE.name} has a body of {len(body)} bytes, expected {alone}, or {both} with streamed weights, "
                "and 8 for each range; host and firmware differ: update both"
            )
        weights = WeightsCredit(*WeightsCredit.LAYOUT.unpack_from(body, alone)) if streamed else None
        next_offset, limit, results_done = cls.LAYOUT.unpack_from(body)
        beyond = next_offset if weights is None or next_offset < limit else weights.next
        return cls(next_offset, limit, results_done, weights, decode_ranges(body[size:], beyond, cls.TYPE.name))


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


@dataclass(frozen=True)
class RunCoded(Message):
    """Coded pixels: ``count`` of them at an offset of the stream of all images."""

    TYPE = MessageType.RUN_CODED
    LAYOUT = struct.Struct("<IHB")
    TAIL = True
    offset: int
    count: int
    coding: int
    data: bytes


@dataclass(frozen=True)
class StreamCoded(Message):
    """Coded weights of one pass: ``count`` bytes at an offset of its stream."""

    TYPE = MessageType.STREAM_CODED
    LAYOUT = struct.Struct("<IIHB")
    TAIL = True
    pass_number: int
    offset: int
    count: int
    coding: int
    data: bytes
