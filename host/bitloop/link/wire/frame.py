"""Frames on the line: COBS, CRC-32, and a decoder that never loses its way.

COBS is the one of S. Cheshire and M. Baker, "Consistent Overhead Byte Stuffing", IEEE/ACM Transactions on Networking
7(2), 1999. What is no frame is no error here: it comes out of the decoder as data with a reason.
"""

from __future__ import annotations

import re
import struct
import zlib
from typing import NamedTuple, TypeAlias

from bitloop import spec

DELIMITER = b"\0"
_HEADER = struct.Struct("<BBH")
_CRC = struct.Struct("<I")
_LONGEST_BLOCK = 254
_CODES = tuple(bytes([length + 1]) for length in range(_LONGEST_BLOCK))
_FULL = b"\xff"
_ZEROS_TO_ONES = bytes([1, *range(1, 256)])
_NONZERO_RUN = re.compile(rb"[^\0]+")

_TEXT_BYTES = bytes([*b"\t\n\r\x1b", *range(0x20, 0x7F)])


class Frame(NamedTuple):
    """A frame whose CRC-32 is right."""

    type: int
    sequence: int
    session: int
    body: bytes


class CorruptFrame(NamedTuple):
    """Something between two delimiters that is no frame and no text either."""

    reason: str
    data: bytes


class RawBytes(NamedTuple):
    """Bytes outside of frames that read as text: the banner of a boot ROM, the last words of a panic."""

    data: bytes


Item: TypeAlias = Frame | CorruptFrame | RawBytes


class CobsError(ValueError):
    """Bytes that no COBS encoder could have written."""


def cobs_encode(data: bytes) -> bytes:
    """Give ``data`` without zero bytes, ``len(data) + len(data) // 254 + 1`` bytes at most; no delimiter is added."""
    if 8 * data.count(b"\0\0\0\0") > data.count(0):
        encoded = _encode_zero_runs(data)
        if encoded is not None:
            return encoded
    blocks = data.split(b"\0")
    try:
        return b"".join([_CODES[len(block)] + block for block in blocks])
    except IndexError:
        return _encode_long_blocks(blocks)


def _encode_zero_runs(data: bytes) -> bytes | None:
    """Encode data with many zeros in a row (pictures); None when a block is too long for this way."""
    padded = b"\0" + data
    encoded = bytearray(padded.translate(_ZEROS_TO_ONES))
    for match in _NONZERO_RUN.finditer(padded):
        start, end = match.span()
        if end - start >= _LONGEST_BLOCK:
            return None
        encoded[start - 1] = end - start + 1
    return bytes(encoded)


def _encode_long_blocks(blocks: list[bytes]) -> bytes:
    pieces: list[bytes] = []
    last = len(blocks) - 1
    for number, block in enumerate(blocks):
        position = 0
        while len(block) - position >= _LONGEST_BLOCK:
            pieces += (_FULL, block[position : position + _LONGEST_BLOCK])
            position += _LONGEST_BLOCK
        rest = block[position:]
        if rest or number < last or not block:
            pieces += (_CODES[len(rest)], rest)
    return b"".join(pieces)


def cobs_decode(encoded: bytes) -> bytes:
    """Give back what :func:`cobs_encode` was given.

    Args:
        encoded: One encoded block without its delimiter; it holds no zero byte.

    Raises:
        CobsError: It is empty, holds a zero, or a code points behind its end.
    """
    end = len(encoded)
    if not end or 0 in encoded:
        raise CobsError("empty" if not end else "holds a zero byte")
    pieces: list[bytes] = []
    position = 0
    while position < end:
        code = encoded[position]
        following = position + code
        if following > end:
            raise CobsError(f"code {code} at byte {position} points behind the end")
        pieces.append(encoded[position + 1 : following])
        if code <= _LONGEST_BLOCK and following < end:
            pieces.append(DELIMITER)
        position = following
    return b"".join(pieces)


def encode_frame(message_type: int, sequence: int, session: int, body: bytes) -> bytes:
    """Give the bytes of one frame as they travel, delimiter at the end included."""
    content = _HEADER.pack(message_type, sequence, session) + body
    return cobs_encode(content + _CRC.pack(zlib.crc32(content))) + DELIMITER


def encoded_size(body_bytes: int) -> int:
    """Give how many bytes a frame with such a body takes at most, delimiter included."""
    content = body_bytes + spec.FRAME_OVERHEAD_BYTES
    return content + content // _LONGEST_BLOCK + 2


def body_that_fits(window_bytes: int) -> int:
    """Give the longest body whose frame, with a delimiter before and one behind, takes at most ``window_bytes``."""
    body = window_bytes - spec.FRAME_OVERHEAD_BYTES - 3
    while body > 0 and encoded_size(body) + 1 > window_bytes:
        body -= 1
    return body


def is_text(data: bytes) -> bool:
    """Tell whether bytes read as text: at least nine tenths are printable ASCII, white space or escape."""
    return bool(data) and 10 * len(data.translate(None, _TEXT_BYTES)) <= len(data)


class Decoder:
    """Turns a byte stream into frames, however it is cut into pieces.

    Args:
        max_body_bytes: Longer bodies are refused; also bounds what the decoder keeps in memory.
    """

    def __init__(self, max_body_bytes: int = 0xFFFF) -> None:
        self._tail = bytearray()
        self._skipping = False
        self.limit(max_body_bytes)

    def limit(self, max_body_bytes: int) -> None:
        """Refuse bodies longer than this from now on."""
        self._max_encoded = encoded_size(max_body_bytes)
        self._max_content = max_body_bytes + spec.FRAME_OVERHEAD_BYTES

    @property
    def pending(self) -> bytes:
        """Bytes behind the last delimiter, not yet told apart."""
        return bytes(self._tail)

    def feed(self, data: bytes) -> list[Item]:
        """Take the next bytes of the stream; give every item that they complete, in order."""
        if not data:
            return []
        first, *rest = data.split(DELIMITER)
        self._tail += first
        items: list[Item] = []
        if rest:
            items += self._finish(bytes(self._tail))
            for chunk in rest[:-1]:
                items += self._finish(chunk)
            self._tail = bytearray(rest[-1])
        if len(self._tail) >= self._max_encoded:
            items += self.flush()
            self._skipping = True
        return items

    def flush(self) -> list[Item]:
        """Give up waiting for the end of what is pending, and hand it out; for a line that has gone silent."""
        chunk = bytes(self._tail)
        self._tail.clear()
        if not chunk:
            return []
        overlong = len(chunk) >= self._max_encoded
        return [_no_frame(chunk, "no end within the longest frame" if overlong else "cut off")]

    def _finish(self, chunk: bytes) -> list[Item]:
        if self._skipping:
            self._skipping = False
            return [_no_frame(chunk, "rest of an overlong frame")] if chunk else []
        return [self._decode(chunk)] if chunk else []

    def _decode(self, chunk: bytes) -> Item:
        try:
            content = cobs_decode(chunk)
        except CobsError as error:
            return _no_frame(chunk, f"no COBS: {error}")
        if len(content) < spec.FRAME_OVERHEAD_BYTES:
            return _no_frame(chunk, f"{len(content)} bytes, {spec.FRAME_OVERHEAD_BYTES} are the least")
        if len(content) > self._max_content:
            return _no_frame(chunk, f"{len(content)} bytes, {self._max_content} are the most")
        (sent_crc,) = _CRC.unpack_from(content, len(content) - spec.FRAME_CRC_BYTES)
        crc = zlib.crc32(memoryview(content)[: -spec.FRAME_CRC_BYTES])
        if crc != sent_crc:
            return _no_frame(chunk, f"CRC-32 is 0x{crc:08X}, the frame says 0x{sent_crc:08X}")
        message_type, sequence, session = _HEADER.unpack_from(content)
        return Frame(message_type, sequence, session, content[spec.FRAME_HEADER_BYTES : -spec.FRAME_CRC_BYTES])


def _no_frame(chunk: bytes, reason: str) -> Item:
    return RawBytes(chunk) if is_text(chunk) else CorruptFrame(reason, chunk)
