"""The messages of an upload: an image as a whole, as what differs from another one, and coded."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import NamedTuple

from bitloop import spec
from bitloop.errors import ProtocolError
from bitloop.link.wire.message import Message, RangedMessage, Ranges
from bitloop.spec import MessageType


@dataclass(frozen=True)
class UploadBegin(Message):
    """Announces an image."""

    TYPE = MessageType.UPLOAD_BEGIN
    LAYOUT = struct.Struct("<II32s")
    image_bytes: int
    arena_bytes: int
    sha256: bytes


@dataclass(frozen=True)
class UploadReady(RangedMessage):
    """Where the upload goes on, how far data may be sent, and what the device holds beyond a gap."""

    TYPE = MessageType.UPLOAD_READY
    LAYOUT = struct.Struct("<II")
    offset: int
    limit: int
    ranges: Ranges = ()


@dataclass(frozen=True)
class UploadData(Message):
    """Bytes of the image at an offset."""

    TYPE = MessageType.UPLOAD_DATA
    LAYOUT = struct.Struct("<I")
    TAIL = True
    offset: int
    data: bytes


@dataclass(frozen=True)
class UploadAck(RangedMessage):
    """The next offset that the device expects, how far data may be sent, and what it holds beyond a gap."""

    TYPE = MessageType.UPLOAD_ACK
    LAYOUT = struct.Struct("<II")
    next: int
    limit: int
    ranges: Ranges = ()


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
class TensorsRequest(Message):
    """Asks what pieces of an image the device holds, from piece ``first`` on."""

    TYPE = MessageType.TENSORS_REQUEST
    LAYOUT = struct.Struct("<H")
    first: int


class HeldPiece(NamedTuple):
    """A piece of the image that the device holds; one that is not in the image has 0 bytes."""

    offset: int
    size: int
    digest: bytes


_PIECE = struct.Struct(f"<II{spec.TENSOR_HASH_BYTES}s")


@dataclass(frozen=True)
class Tensors(Message):
    """Some of the ``total`` pieces that the tensor records of an image name."""

    TYPE = MessageType.TENSORS
    LAYOUT = struct.Struct("<HH")
    TAIL = True
    first: int
    total: int
    records: bytes

    def pieces(self) -> list[HeldPiece]:
        """Read the records.

        Raises:
            ProtocolError: They are none, no whole ones, or more than ``total``.
        """
        count, rest = divmod(len(self.records), _PIECE.size)
        if rest or self.first + count > self.total or (not count and self.first < self.total):
            raise ProtocolError(
                f"TENSORS has {len(self.records)} bytes of records from {self.first} on, of {self.total}; "
                "its firmware is faulty"
            )
        return [HeldPiece(*record) for record in _PIECE.iter_unpack(self.records)]


@dataclass(frozen=True)
class UploadDelta(Message):
    """Announces an image that is made of the one that the device holds, the base."""

    TYPE = MessageType.UPLOAD_DELTA
    LAYOUT = struct.Struct(f"<II32s{spec.BASE_HASH_BYTES}s")
    image_bytes: int
    arena_bytes: int
    sha256: bytes
    base: bytes


@dataclass(frozen=True)
class UploadCopy(Message):
    """Moves bytes of the base to where the new image has them."""

    TYPE = MessageType.UPLOAD_COPY
    LAYOUT = struct.Struct("<HIII")
    number: int
    source: int
    target: int
    size: int


@dataclass(frozen=True)
class UploadCopied(RangedMessage):
    """The number of the next copy, and what the device holds now."""

    TYPE = MessageType.UPLOAD_COPIED
    LAYOUT = struct.Struct("<HII")
    number: int
    next: int
    limit: int
    ranges: Ranges = ()


@dataclass(frozen=True)
class CodeTable(Message):
    """A piece of the code lengths of a table."""

    TYPE = MessageType.CODE_TABLE
    LAYOUT = struct.Struct("<BxH")
    TAIL = True
    table: int
    offset: int
    data: bytes


@dataclass(frozen=True)
class CodeReady(Message):
    """How much of a table is there."""

    TYPE = MessageType.CODE_READY
    LAYOUT = struct.Struct("<BxH")
    table: int
    next: int


@dataclass(frozen=True)
class UploadCoded(Message):
    """Coded bytes of the image: ``count`` of them at an offset."""

    TYPE = MessageType.UPLOAD_CODED
    LAYOUT = struct.Struct("<IHB")
    TAIL = True
    offset: int
    count: int
    coding: int
    data: bytes
