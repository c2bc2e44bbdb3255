"""Tokens: zeros as runs, everything else as literals. A stream is cut into tokens once, all of it."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitloop import spec
from bitloop.link.coding.coder import MAX_COUNT, U8, Piece, PlainSymbols, Symbols, worthwhile
from bitloop.link.coding.huffman import I64, Code, CodedSymbols, codes_size, histogram
from bitloop.spec import Coding

_MIN_ZEROS = 2
"""So many zeros are worth a token. One costs no less as a token, since the literals around it then need two heads;
2 gave the least size of all thresholds on MNIST, with codes and without (171 and 202 bytes an image)."""

_ZEROS = 0x80
"""First byte of a token that stands for one zero."""

_OCCURS = 1 << 12
"""Weight of one occurrence; 256 symbols of 15 bits, each of weight 1, do not come to as much."""

_CHUNK = 1 << 18  # bytes worked on at once: bounds the memory of 64-bit intermediates; tokens end there

Bools = npt.NDArray[np.bool_]
Indices = npt.NDArray[np.uint32] | npt.NDArray[np.int64]


class Tokens:
    """A stream as tokens.

    Args:
        data: The stream; not empty.

    Attributes:
        starts: Where in the stream each token begins; the last one is the stream's length.
        heads: Where in ``written`` each token begins; the last one is its length.
        written: uint8, all tokens, one behind another.
        is_zeros: bool, which of the tokens stand for zeros.
    """

    def __init__(self, data: U8) -> None:
        parts = [_tokens(data[begin : begin + _CHUNK]) for begin in range(0, len(data), _CHUNK)]
        counts = np.concatenate([part[0] for part in parts])
        self.is_zeros = np.concatenate([part[1] for part in parts])
        self.written = np.concatenate([part[2] for part in parts])
        self.starts = _ends(counts, len(data))
        self.heads = _ends(np.where(self.is_zeros, np.uint8(1), counts + np.uint8(1)), len(self.written))

    def possible_heads(self) -> list[int]:
        """Give the first bytes of all tokens, and of all shorter ones that cutting them can leave."""
        heads = self.written[self.heads[:-1]]
        zeros, literals = heads[self.is_zeros], heads[~self.is_zeros]
        possible = list(range(int(literals.max()) + 1)) if len(literals) else []
        return possible + list(range(_ZEROS, int(zeros.max()) + 1 if len(zeros) else _ZEROS))


def token_code(tokens: Tokens, counts: I64) -> Code:
    """Give the best code for the tokens of a stream.

    Args:
        tokens: The tokens.
        counts: How often each byte occurs in them.

    Returns:
        A code that is the best for what occurs, among those that also have codes for heads that only cutting makes.
    """
    weights = [count * _OCCURS for count in counts.tolist()]
    for head in tokens.possible_heads():
        weights[head] = weights[head] or 1
    return Code(weights)


class RunsCoder:
    """Codes a stream as tokens, their bytes plain or in a code.

    Args:
        tokens: The stream.
        code: A code for the tokens' bytes (:func:`token_code`), or None.
    """

    def __init__(self, tokens: Tokens, code: Code | None) -> None:
        written = tokens.written
        self._starts = tokens.starts
        self._heads = tokens.heads
        self._is_zeros = tokens.is_zeros
        if code is None:
            self.coding = Coding.RUNS
            self.table: bytes | None = None
            self.size_bytes = len(written)
            self._symbols: Symbols = PlainSymbols(written)
        else:
            self.coding = Coding.RUNS | Coding.CODES
            self.table = code.table
            self.size_bytes = codes_size(code, histogram(written))
            self._symbols = CodedSymbols(written, code)

    def piece(self, offset: int, most_count: int, room_bytes: int) -> Piece | None:
        """See :meth:`bitloop.link.coding.Coder.piece`."""
        room = 8 * max(room_bytes, 0)
        limit = min(offset + min(most_count, MAX_COUNT), int(self._starts[-1]))
        token = _last(self._starts, offset)
        value, used = 0, 0
        position = offset
        if offset > self._starts[token]:  # what is left of a token is a token
            count, value, used = self._cut(token, offset, limit, room)
            position += count
            token += 1
            if position < self._starts[token]:
                return worthwhile(count, self.coding, value, used)
        head = int(self._heads[token])
        first = self._symbols.position(head)
        last = min(_last(self._heads, self._symbols.reach(first + room - used)), _last(self._starts, limit))
        if last > token:
            end = int(self._heads[last])
            value |= self._symbols.bits(head, end) << used
            used += self._symbols.position(end) - first
            position = int(self._starts[last])
        if position < limit:
            count, more, bits = self._cut(last, position, limit, room - used)
            value |= more << used
            used += bits
            position += count
        return worthwhile(position - offset, self.coding, value, used)

    def _cut(self, token: int, begin: int, limit: int, room: int) -> tuple[int, int, int]:
        """Make a token of a part of one: give the count of its bytes, its value and its bits; zeros if it has no room.

        Args:
            token: Which one.
            begin: Where the part begins in the stream.
            limit: Where it ends at the latest.
            room: Most bits.
        """
        symbols = self._symbols
        count = min(limit, int(self._starts[token + 1])) - begin
        if self._is_zeros[token]:
            value, bits = symbols.code(_ZEROS - 1 + count)
            return (count, value, bits) if bits <= room else (0, 0, 0)
        first = int(self._heads[token]) + 1 + begin - int(self._starts[token])
        first_bit = symbols.position(first)
        while count > 0:
            value, bits = symbols.code(count - 1)
            fitting = symbols.reach(first_bit + room - bits) - first if bits <= room else 0
            if fitting >= count:
                end = first + count
                return count, value | symbols.bits(first, end) << bits, bits + symbols.position(end) - first_bit
            count = min(count - 1, max(fitting, 0)) if bits <= room else count - 1
        return 0, 0, 0


def _tokens(data: U8) -> tuple[U8, Bools, U8]:
    """Cut a part of a stream into tokens: give how many bytes each stands for, which are zeros, and all as written."""
    edges, first_is_zeros = _segments(data)
    sizes = np.diff(edges)
    pieces = -(-sizes // spec.MAX_RUN)
    is_zeros = np.repeat(np.arange(len(sizes)) % 2 == (0 if first_is_zeros else 1), pieces)
    counts = np.full(len(is_zeros), spec.MAX_RUN, np.uint8)
    counts[pieces.cumsum() - 1] = sizes - (pieces - 1) * spec.MAX_RUN
    bytes_each = np.where(is_zeros, 1, counts.astype(np.int64) + 1)
    ends = bytes_each.cumsum()
    written = np.empty(int(ends[-1]), np.uint8)
    is_head = np.zeros(len(written), np.bool_)
    is_head[ends - bytes_each] = True
    written[is_head] = np.where(is_zeros, counts + np.uint8(_ZEROS - 1), counts - np.uint8(1))
    written[~is_head] = data[np.repeat(~is_zeros, counts)]
    return counts, is_zeros, written


def _segments(data: U8) -> tuple[I64, bool]:
    """Part a stream into zeros and literals in turn: give the edges, 0 and the length among them, and what is first.

    Fewer zeros than are worth a token belong to the literals around them.
    """
    is_zero = data == 0
    edges = np.flatnonzero(is_zero[1:] != is_zero[:-1]) + 1
    edges = np.concatenate([[0], edges, [len(data)]])
    first = 0 if is_zero[0] else 1
    begins, ends = edges[first:-1:2], edges[first + 1 :: 2]
    worth = ends - begins >= _MIN_ZEROS
    inner = np.stack([begins[worth], ends[worth]], axis=1).ravel()
    first_is_zeros = bool(len(inner)) and int(inner[0]) == 0
    parts = [inner] if first_is_zeros else [np.zeros(1, np.int64), inner]
    if not len(inner) or int(inner[-1]) != len(data):
        parts.append(np.array([len(data)], np.int64))
    return np.concatenate(parts), first_is_zeros


def _ends(sizes: U8, total: int) -> Indices:
    """Give the sums of all sizes before each, and of all; in 32 bits where they suffice, for there are many."""
    sums: Indices = np.zeros(len(sizes) + 1, np.uint32) if total < 1 << 32 else np.zeros(len(sizes) + 1, np.int64)
    np.cumsum(sizes, out=sums[1:], dtype=sums.dtype)
    return sums


def _last(ascending: Indices, value: int) -> int:
    """Give the last index at which there is nothing greater than ``value``; the first is 0."""
    # A number of another type would make searchsorted convert, and so copy, all of the array.
    return int(ascending.searchsorted(ascending.dtype.type(value), "right")) - 1
