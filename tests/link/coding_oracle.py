"""What a device does with coded frames, written from "Coded data" of docs/protocol.md: a byte and a bit at a time.

It shares no code with bitloop.link.coding.
"""

from __future__ import annotations


class BadCodingError(Exception):
    pass


class BadTableError(Exception):
    pass


def read_table(table: bytes) -> dict[tuple[int, int], int]:
    """(length, code) -> symbol; refuses what is no complete prefix code, as the page says."""
    assert len(table) == 128
    lengths = {}
    for symbol in range(256):
        nibble = table[symbol // 2] >> 4 if symbol % 2 else table[symbol // 2] & 15
        if nibble:
            lengths[symbol] = nibble
    codes: dict[tuple[int, int], int] = {}
    code = previous = 0
    for length, symbol in sorted((length, symbol) for symbol, length in lengths.items()):
        code <<= length - previous
        previous = length
        if code >> length:
            raise BadTableError("over-subscribed")
        codes[length, code] = symbol
        code += 1
    if list(codes) == [(1, 0)]:
        return codes
    if not codes or code != 1 << previous:
        raise BadTableError("not complete")
    return codes


def decode(coding: int, data: bytes, count: int, table: bytes | None) -> bytes:
    """Exactly ``count`` bytes, or BadCodingError."""
    assert coding in (1, 2, 3)
    position = 0
    codes = read_table(table) if coding & 2 else {}

    def next_bit() -> int:
        nonlocal position
        if position >= 8 * len(data):
            raise BadCodingError("too few bytes")
        bit = data[position // 8] >> position % 8 & 1
        position += 1
        return bit

    def next_byte() -> int:
        length = code = 0
        while coding & 2:
            length, code = length + 1, code << 1 | next_bit()
            if (length, code) in codes:
                return codes[length, code]
            if length == 15:
                raise BadCodingError("bits that are no code")
        return sum(next_bit() << k for k in range(8))

    out = bytearray()
    while len(out) < count:
        byte = next_byte()
        if not coding & 1:
            out.append(byte)
        elif byte >= 128:
            out += bytes(byte - 127)
        else:
            for _ in range(byte + 1):
                out.append(next_byte())
        if len(out) > count:
            raise BadCodingError("a token reaches beyond the count")
    if (position + 7) // 8 != len(data):
        raise BadCodingError("bytes left over")
    while position % 8:
        if next_bit():
            raise BadCodingError("what is left of the last byte is not 0")
    return bytes(out)
