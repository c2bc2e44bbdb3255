"""What a sender needs of coded data, whatever the coding: pieces of a stream, each decodable by itself."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from bitloop.spec import Coding

U8 = npt.NDArray[np.uint8]

MAX_COUNT = 0xFFFF
"""Most bytes that one coded frame stands for."""

HEAD_BYTES = 3
"""What a coded frame has more than a plain one: the count, u16, and the coding, u8."""

_BYTE_BITS = 8


class Piece(NamedTuple):
    """Coded bytes of one frame.

    Attributes:
        count: How many bytes they decode to, 1 to 65535.
        coding: The coding, as it stands in the frame.
        data: The coded bytes.
    """

    count: int  # type: ignore[assignment]  # hides tuple.count, which nobody needs
    coding: int
    data: bytes


class Coder(Protocol):
    """Codes one stream of bytes, from anywhere in it.

    Attributes:
        coding: What it uses.
        table: The 128 bytes of code lengths for CODE_TABLE, None where no codes are used.
        size_bytes: What all of the stream comes to, table included, but not what cutting it into frames adds.
    """

    coding: Coding
    table: bytes | None
    size_bytes: int

    def piece(self, offset: int, most_count: int, room_bytes: int) -> Piece | None:
        """Code as many bytes as fit.

        Args:
            offset: Where the piece begins in the stream, below its length.
            most_count: Most bytes that it may stand for, at least 1; the stream's end and 65535 are limits too.
            room_bytes: Most coded bytes.

        Returns:
            The piece, or None if plain bytes are no longer (they need :data:`HEAD_BYTES` less of head).
        """


class Symbols(Protocol):
    """Bytes, each written in a number of bits of its own."""

    def position(self, index: int) -> int:
        """Give the bit at which symbol ``index`` begins; that of the length is the end."""

    def reach(self, bit: int) -> int:
        """Give the greatest index, up to the length, whose position is not behind ``bit``."""

    def bits(self, begin: int, end: int) -> int:
        """Give symbols ``begin`` to ``end`` as they are written, the first bit the least significant."""

    def code(self, symbol: int) -> tuple[int, int]:
        """Give the code of a byte, its first bit the least significant, and its length in bits."""


class PlainSymbols:
    """Bytes that are written as they are.

    Args:
        data: All of them.
    """

    def __init__(self, data: U8) -> None:
        self._data = data

    def position(self, index: int) -> int:
        """See :meth:`Symbols.position`."""
        return index * _BYTE_BITS

    def reach(self, bit: int) -> int:
        """See :meth:`Symbols.reach`."""
        return min(bit // _BYTE_BITS, len(self._data))

    def bits(self, begin: int, end: int) -> int:
        """See :meth:`Symbols.bits`."""
        return int.from_bytes(self._data[begin:end].tobytes(), "little")

    def code(self, symbol: int) -> tuple[int, int]:
        """See :meth:`Symbols.code`."""
        return symbol, _BYTE_BITS


def worthwhile(count: int, coding: Coding, value: int, bits: int) -> Piece | None:
    """Make a piece of ``bits`` bits, or None if it stands for nothing or is no shorter than plain bytes."""
    size = -(-bits // _BYTE_BITS)
    if size + HEAD_BYTES >= count:
        return None
    return Piece(count, int(coding), value.to_bytes(size, "little"))
