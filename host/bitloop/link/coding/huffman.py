"""Canonical Huffman codes of at most 15 bits over bytes, and streams of bytes written in one.

Lengths are the best ones under the limit (:mod:`bitloop.numeric.huffman`); codes are numbered as in RFC 1951, 3.2.2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bitloop import spec
from bitloop.link.coding.coder import MAX_COUNT, U8, Piece, worthwhile
from bitloop.numeric.huffman import code_lengths
from bitloop.spec import Coding

I64 = npt.NDArray[np.int64]
U32 = npt.NDArray[np.uint32]

_CHECKPOINT = 64  # symbols from one known position to the next
_CHUNK = 1 << 18  # symbols worked on at once: bounds the memory of 64-bit intermediates; a multiple of _CHECKPOINT
_WORD_BITS = 32


def histogram(data: U8) -> I64:
    """Count how often each byte occurs: int64 [256]."""
    counts = np.zeros(spec.CODE_SYMBOLS, np.int64)
    for begin in range(0, len(data), _CHUNK):
        counts += np.bincount(data[begin : begin + _CHUNK], minlength=spec.CODE_SYMBOLS)
    return counts


class Code:
    """A canonical code over bytes.

    Args:
        weights: One for each of the 256 bytes, 0 for those that never occur; at least one does.

    Attributes:
        lengths: uint8 [256], in bits; 0 where a byte has no code.
        values: uint16 [256], the codes with their first (most significant) bit as the least significant one, as they
            are written into bytes.
    """

    def __init__(self, weights: Sequence[int]) -> None:
        lengths = code_lengths(weights)
        self.lengths: U8 = np.array(lengths, np.uint8)
        self.values = np.zeros(spec.CODE_SYMBOLS, np.uint16)
        code = 0
        for bits in range(1, spec.MAX_CODE_BITS + 1):
            code <<= 1
            for symbol, length in enumerate(lengths):
                if length == bits:
                    self.values[symbol] = int(f"{code:0{bits}b}"[::-1], 2)
                    code += 1

    @property
    def table(self) -> bytes:
        """The code lengths as CODE_TABLE has them: a nibble a symbol, the even one low."""
        return (self.lengths[::2] | self.lengths[1::2] << 4).tobytes()

    def bits(self, counts: I64) -> int:
        """Give the bits of a stream in which byte ``b`` occurs ``counts[b]`` times."""
        return int(counts @ self.lengths.astype(np.int64))


class CodedSymbols:
    """Bytes, written in a code once; parts of what was written are cut out where they are asked for.

    Args:
        data: All of them; kept, not copied.
        code: Has a code for each of them.
    """

    def __init__(self, data: U8, code: Code) -> None:
        self._data = data
        self._lengths = code.lengths.astype(np.int64)
        self._codes = list(zip(code.values.tolist(), code.lengths.tolist(), strict=True))
        self._checkpoints, self._written = _write(data, code)

    def __len__(self) -> int:
        return len(self._data)

    def position(self, index: int) -> int:
        """See :meth:`Symbols.position`."""
        number = index // _CHECKPOINT
        begin = number * _CHECKPOINT
        position = int(self._checkpoints[number])
        return position + int(self._lengths[self._data[begin:index]].sum()) if begin < index else position

    def reach(self, bit: int) -> int:
        """See :meth:`Symbols.reach`."""
        number = int(self._checkpoints.searchsorted(bit, "right")) - 1
        begin = number * _CHECKPOINT
        ends = self._lengths[self._data[begin : begin + _CHECKPOINT]].cumsum()
        return begin + int(ends.searchsorted(bit - int(self._checkpoints[number]), "right"))

    def bits(self, begin: int, end: int) -> int:
        """See :meth:`Symbols.bits`."""
        return self.cut(self.position(begin), self.position(end))

    def cut(self, first: int, last: int) -> int:
        """Give the bits ``first`` to ``last`` of what was written, the first bit the least significant."""
        value = int.from_bytes(self._written[first >> 3 : (last + 7) >> 3].tobytes(), "little")
        return value >> (first & 7) & ((1 << (last - first)) - 1)

    def code(self, symbol: int) -> tuple[int, int]:
        """See :meth:`Symbols.code`."""
        return self._codes[symbol]


class CodesCoder:
    """Codes a stream byte by byte (:attr:`bitloop.spec.Coding.CODES`).

    Args:
        data: The stream; not empty.
        counts: How often each byte occurs in it.
    """

    coding = Coding.CODES

    def __init__(self, data: U8, counts: I64) -> None:
        code = Code(counts.tolist())
        self._symbols = CodedSymbols(data, code)
        self.table: bytes | None = code.table
        self.size_bytes = codes_size(code, counts)

    def piece(self, offset: int, most_count: int, room_bytes: int) -> Piece | None:
        """See :meth:`bitloop.link.coding.Coder.piece`."""
        symbols = self._symbols
        first = symbols.position(offset)
        end = min(symbols.reach(first + 8 * max(room_bytes, 0)), offset + min(most_count, MAX_COUNT))
        last = symbols.position(end)
        return worthwhile(end - offset, self.coding, symbols.cut(first, last), last - first)


def codes_size(code: Code, counts: I64) -> int:
    """Give the bytes of a stream written in a code, its table included."""
    return -(-code.bits(counts) // 8) + spec.CODE_LENGTHS_BYTES


def _write(data: U8, code: Code) -> tuple[I64, U8]:
    """Write all of ``data``: give the position of each 64th symbol (and of the end, where it is one), and the bytes."""
    lengths = code.lengths.astype(np.int64)
    values = code.values.astype(np.int64)
    total = code.bits(histogram(data))
    words: U32 = np.zeros(total // _WORD_BITS + 2, np.uint32)
    checkpoints: I64 = np.zeros(len(data) // _CHECKPOINT + 1, np.int64)
    checkpoints[-1] = total  # is written over unless the end is a 64th symbol
    position = 0
    for begin in range(0, len(data), _CHUNK):
        symbols = data[begin : begin + _CHUNK]
        sizes = lengths[symbols]
        positions = sizes.cumsum()
        end = position + int(positions[-1])
        positions += position
        positions -= sizes
        known = positions[::_CHECKPOINT]
        checkpoints[begin // _CHECKPOINT : begin // _CHECKPOINT + len(known)] = known
        first_word = position // _WORD_BITS
        shifted = values[symbols] << (positions % _WORD_BITS)
        # The codes that begin in a word share no bit and end before bit 47: their sum is exact in binary64.
        sums = np.bincount(positions // _WORD_BITS - first_word, weights=shifted).astype(np.int64)
        words[first_word : first_word + len(sums)] |= (sums & 0xFFFFFFFF).astype(np.uint32)
        words[first_word + 1 : first_word + 1 + len(sums)] |= (sums >> _WORD_BITS).astype(np.uint32)
        position = end
    return checkpoints, words.astype("<u4", copy=False).view(np.uint8)
