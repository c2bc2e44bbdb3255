"""Coded data (bl_coding), against a decoder and encoders written from docs/protocol.md and RFC 1951, 3.2.2."""

from __future__ import annotations

import ctypes
import heapq
import random
import zlib
from collections import Counter

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from bitloop import spec
from bitloop.native.core import library

RUNS, CODES = int(spec.Coding.RUNS), int(spec.Coding.CODES)
TABLE_BYTES = 2 * spec.MAX_CODE_BITS + spec.CODE_SYMBOLS
LENGTHS_BYTES = spec.CODE_LENGTHS_BYTES
CANARY = 0xC5

# --- the model ----------------------------------------------------------------------------------------------------


class UndecodableError(Exception):
    """With the number of bytes that were decoded before."""


def codes_of(lengths: list[int]) -> dict[int, str]:
    """RFC 1951, 3.2.2, step by step; codes as text of bits."""
    counts = Counter(length for length in lengths if length)
    code, first = 0, {}
    for bits in range(1, spec.MAX_CODE_BITS + 1):
        code = (code + counts[bits - 1]) << 1 if bits > 1 else 0
        first[bits] = code
    codes = {}
    for symbol, length in enumerate(lengths):
        if length:
            codes[symbol] = f"{first[length]:0{length}b}"
            first[length] += 1
    return codes


def is_a_code(lengths: list[int]) -> bool:
    used = [length for length in lengths if length]
    return used == [1] or sum(2.0**-length for length in used) == 1.0


def pack_lengths(lengths: list[int]) -> bytes:
    return bytes(lengths[i] | lengths[i + 1] << 4 for i in range(0, 256, 2))


def pack_codes(data: bytes, lengths: list[int]) -> bytes:
    codes = codes_of(lengths)
    bits = "".join(codes[byte] for byte in data)
    return bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))


def runs_of(data: bytes, rng: random.Random) -> bytes:
    """Tokens for data: any valid ones, not the shortest alone."""
    out, at = bytearray(), 0
    while at < len(data):
        zeros = len(data[at : at + 128]) - len(data[at : at + 128].lstrip(b"\0"))
        if zeros and rng.random() < 0.9:
            count = rng.choice((zeros, rng.randint(1, zeros)))
            out.append(127 + count)
        else:
            count = rng.randint(1, min(128, len(data) - at))
            out += bytes([count - 1]) + data[at : at + count]
        at += count
    return bytes(out)


def decode(coding: int, data: bytes, count: int, lengths: list[int] | None) -> bytes:
    """As the page says it, with lists and text: slow and plain."""
    out = bytearray()
    symbols = {code: symbol for symbol, code in codes_of(lengths or []).items()}
    bits = "".join(f"{byte:08b}"[::-1] for byte in data)
    at = 0

    def byte() -> int:
        nonlocal at
        if coding & CODES:
            for length in range(1, spec.MAX_CODE_BITS + 1):
                if at + length > len(bits):
                    break
                if bits[at : at + length] in symbols:
                    at += length
                    return symbols[bits[at - length : at]]
        elif at < len(data):
            at += 1
            return data[at - 1]
        raise UndecodableError(len(out))

    while len(out) < count:
        if not coding & RUNS:
            out.append(byte())
            continue
        token = byte()
        length = token + 1 if token < 128 else token - 127
        if len(out) + length > count:
            raise UndecodableError(len(out))
        for _ in range(length):
            out.append(byte() if token < 128 else 0)
    left = (len(bits) - at) // 8 if coding & CODES else len(data) - at
    if left:
        raise UndecodableError(count)
    return bytes(out)


def huffman(data: bytes) -> list[int]:
    """Lengths of a Huffman code for the bytes of `data`; more than 15 bits are not needed by what is tested here."""
    heap = [(count, symbol, (symbol,)) for symbol, count in Counter(data).items()]
    lengths = [0] * 256
    if len(heap) == 1:
        lengths[data[0]] = 1
        return lengths
    heapq.heapify(heap)
    while len(heap) > 1:
        (a, _, left), (b, order, right) = heapq.heappop(heap), heapq.heappop(heap)
        for symbol in left + right:
            lengths[symbol] += 1
        heapq.heappush(heap, (a + b, order, left + right))
    return lengths


@st.composite
def complete_codes(draw: st.DrawFn) -> list[int]:
    """Lengths of any complete code: a leaf is split again and again."""
    leaves = [1, 1]
    for _ in range(draw(st.integers(0, 60))):
        at = draw(st.integers(0, len(leaves) - 1))
        if leaves[at] < spec.MAX_CODE_BITS:
            leaves[at] += 1
            leaves.append(leaves[at])
    symbols = draw(st.permutations(range(256)))
    lengths = [0] * 256
    for symbol, length in zip(symbols, leaves, strict=False):
        lengths[symbol] = length
    return lengths


# --- the core -----------------------------------------------------------------------------------------------------


class CCoding(ctypes.Structure):
    _fields_ = (
        ("next", ctypes.c_void_p),
        ("end", ctypes.c_void_p),
        ("table", ctypes.c_void_p),
        ("left", ctypes.c_uint16),
        ("bits", ctypes.c_uint8),
        ("bit_count", ctypes.c_uint8),
        ("token_left", ctypes.c_uint8),
        ("zeros", ctypes.c_bool),
        ("runs", ctypes.c_bool),
    )


def make_table(lengths: list[int]) -> ctypes.Array[ctypes.c_uint8] | None:
    table = (ctypes.c_uint8 * (TABLE_BYTES + 16))(*[CANARY] * (TABLE_BYTES + 16))
    table[TABLE_BYTES - LENGTHS_BYTES : TABLE_BYTES] = list(pack_lengths(lengths))
    library().bl_coding_make_table.restype = ctypes.c_bool
    made = library().bl_coding_make_table(ctypes.byref(table))
    assert bytes(table[TABLE_BYTES:]) == bytes([CANARY] * 16)
    return table if made else None


def core_decode(coding: int, data: bytes, count: int, lengths: list[int] | None, pieces: list[int]) -> bytes:
    """Decode in pieces to exact buffers between canaries; every second one that is negative is passed over."""
    table = make_table(lengths) if lengths else None
    given_bytes = ctypes.create_string_buffer(data, len(data)) if data else ctypes.create_string_buffer(1)
    state = CCoding()
    u16 = ctypes.c_uint16
    library().bl_coding_begin(
        ctypes.byref(state), ctypes.c_uint8(coding), table, given_bytes, u16(len(data)), u16(count)
    )
    library().bl_coding_read.restype = library().bl_coding_is_done.restype = ctypes.c_bool
    out = bytearray()
    turn = 0
    while len(out) < count:
        size = pieces[turn % len(pieces)]
        turn += 1
        length = min(abs(size), count - len(out))
        memory = (ctypes.c_uint8 * (length + 32))(*[CANARY] * (length + 32))
        to = ctypes.byref(memory, 16) if size > 0 else None
        good = library().bl_coding_read(ctypes.byref(state), to, u16(length))
        assert bytes(memory[:16]) == bytes(memory[16 + length :]) == bytes([CANARY] * 16)
        if not good:
            assert state.left <= count - len(out)
            raise UndecodableError(count - state.left)
        out += bytes(memory[16 : 16 + length]) if size > 0 else b"?" * length
    if not library().bl_coding_is_done(ctypes.byref(state)):
        raise UndecodableError(count)
    return bytes(out)


def same(coding: int, data: bytes, count: int, lengths: list[int] | None, pieces: list[int]) -> None:
    """Hold the core against the model, results and refusals."""
    try:
        expected: bytes | int = decode(coding, data, count, lengths)
    except UndecodableError as error:
        expected = error.args[0]
    try:
        found: bytes | int = core_decode(coding, data, count, lengths, pieces)
    except UndecodableError as error:
        found = error.args[0]
    if isinstance(expected, bytes) and isinstance(found, bytes):
        assert len(found) == len(expected)
        at, turn = 0, 0
        while at < count:
            size = pieces[turn % len(pieces)]
            end = min(at + abs(size), count)
            assert found[at:end] == (expected[at:end] if size > 0 else b"?" * (end - at))
            at, turn = end, turn + 1
    else:
        assert found == expected


# --- tables -------------------------------------------------------------------------------------------------------


def lengths_of(given_lengths: dict[int, int]) -> list[int]:
    return [given_lengths.get(symbol, 0) for symbol in range(256)]


def test_the_example_of_the_rfc() -> None:
    """RFC 1951, 3.2.2: lengths (3, 3, 3, 3, 3, 2, 4, 4) of ABCDEFGH."""
    lengths = lengths_of(dict(zip(b"ABCDEFGH", (3, 3, 3, 3, 3, 2, 4, 4), strict=True)))
    published = dict(zip(b"ABCDEFGH", ["010", "011", "100", "101", "110", "00", "1110", "1111"], strict=True))
    assert codes_of(lengths) == published
    # F A H: 00 010 1111, from the least significant bit on: 0,0,0,1,0,1,1,1 and 1.
    assert pack_codes(b"FAH", lengths) == bytes([0b11101000, 0b1])
    assert core_decode(CODES, bytes([0b11101000, 0b1]), 3, lengths, [9]) == b"FAH"


def test_the_fixed_code_of_deflate_is_not_complete() -> None:
    """RFC 1951, 3.2.6, cut to bytes: 8 bits, from 144 on 9; symbols from 256 on would make it complete."""
    lengths = [8] * 144 + [9] * 112
    assert not is_a_code(lengths)
    assert make_table(lengths) is None


def test_zlibs_codes() -> None:
    """zlib's own dynamic code, read off a deflate stream of literals alone: the same bits stand for the same bytes.

    Z_HUFFMAN_ONLY makes blocks without matches. Its literals are codes as ours, but for the end-of-block symbol, 256,
    which comes last among the codes of its length: so ours of the same lengths, with 256 in the place of an unused byte
    that sorts last, are equal bit for bit.
    """
    rng = random.Random(5)
    data = bytes(min(254, int(rng.expovariate(0.05))) for _ in range(4000))
    assert 255 not in data
    maker = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    stream = maker.compress(data) + maker.flush()
    bits = "".join(f"{byte:08b}"[::-1] for byte in stream)
    lengths, at = dynamic_lengths(bits)
    assert is_a_code(lengths)
    assert make_table(lengths) is not None
    literals = bits[at:]
    packed = bytes(int(literals[i : i + 8][::-1], 2) for i in range(0, len(literals), 8))
    # The last symbol is the end of the block; what is behind it is padding.
    assert core_decode(CODES, packed, len(data) + 1, lengths, [700]) == data + b"\xff"


def dynamic_lengths(bits: str) -> tuple[list[int], int]:
    """Read the header of a dynamic deflate block (RFC 1951, 3.2.7); give the literal lengths with 256 as byte 255."""
    at = 3
    assert bits[:3] == "101"  # the last block, dynamic codes (the least significant bit first)

    def number(count: int) -> int:
        nonlocal at
        at += count
        return int(bits[at - count : at][::-1], 2)

    literals, distances, many = number(5) + 257, number(5) + 1, number(4) + 4
    order = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
    small = [0] * 19
    for symbol in order[:many]:
        small[symbol] = number(3)
    symbols = {code: symbol for symbol, code in codes_of(small).items()}
    lengths: list[int] = []
    while len(lengths) < literals + distances:
        code = ""
        while code not in symbols:
            code += bits[at]
            at += 1
        symbol = symbols[code]
        if symbol < 16:
            lengths.append(symbol)
        elif symbol == 16:
            lengths += [lengths[-1]] * (number(2) + 3)
        else:
            lengths += [0] * (number(3) + 3 if symbol == 17 else number(7) + 11)
    assert literals == 257
    return [*lengths[:255], lengths[256]], at


@pytest.mark.parametrize(
    ("lengths", "good"),
    [
        (lengths_of({}), False),
        (lengths_of({7: 1}), True),
        (lengths_of({7: 2}), False),
        (lengths_of({0: 1, 255: 1}), True),
        (lengths_of({0: 1, 1: 1, 2: 1}), False),
        (lengths_of({0: 1, 1: 2}), False),
        ([8] * 256, True),
        ([8] * 255 + [7], False),
        (lengths_of({**{i: i + 1 for i in range(15)}, 15: 15}), True),
        (lengths_of({i: i + 1 for i in range(15)}), False),
        ([15] * 256, False),
        ([1] * 256, False),
    ],
)
def test_only_prefix_codes_that_are_complete_make_a_table(lengths: list[int], good: bool) -> None:
    assert is_a_code(lengths) == good
    assert (make_table(lengths) is not None) == good


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 15), min_size=256, max_size=256) | complete_codes(), st.integers(0, 255))
def test_tables_of_any_lengths(lengths: list[int], at: int) -> None:
    assert (make_table(lengths) is not None) == is_a_code(lengths)
    changed = [length ^ (symbol == at) for symbol, length in enumerate(lengths)]
    assert (make_table(changed) is not None) == is_a_code(changed)


@settings(max_examples=100, deadline=None)
@given(complete_codes(), st.integers(0, 128), st.integers(0, 128), st.integers(0, 255))
def test_a_table_knows_its_lengths(lengths: list[int], offset: int, end: int, at: int) -> None:
    assume(offset <= end)
    table = make_table(lengths)
    library().bl_coding_table_has.restype = ctypes.c_bool

    def has(piece: bytes) -> bool:
        u16 = ctypes.c_uint16
        return bool(library().bl_coding_table_has(ctypes.byref(table), u16(offset), piece, u16(len(piece))))

    assert has(pack_lengths(lengths)[offset:end])
    changed = pack_lengths([length ^ (symbol == at) for symbol, length in enumerate(lengths)])
    assert has(changed[offset:end]) == (not offset <= at // 2 < end)


# --- decoding -----------------------------------------------------------------------------------------------------

PIECES = st.lists(st.integers(-40, 300).filter(bool), min_size=1, max_size=5)


@pytest.mark.parametrize(
    ("data", "count", "expected"),
    [
        ("02616263", 3, b"abc"),
        ("80", 1, bytes(1)),
        ("ff", 128, bytes(128)),
        ("83006180", 6, bytes(4) + b"a\0"),
        ("7f" + "61" * 128, 128, b"a" * 128),
        ("", 1, 0),
        ("02", 3, 0),
        ("026162", 3, 0),
        ("8000", 1, 1),  # a byte too many
        ("81", 1, 0),  # beyond the count
        ("006102", 2, 1),
        ("0061026162", 3, 1),
    ],
)
def test_runs_by_hand(data: str, count: int, expected: bytes | int) -> None:
    try:
        found: bytes | int = core_decode(RUNS, bytes.fromhex(data), count, None, [1000])
    except UndecodableError as error:
        found = error.args[0]
        assert found <= count
        # Whole literals are copied at once: a cut one counts for nothing.
    assert found == expected


def test_a_single_symbol() -> None:
    lengths = lengths_of({65: 1})
    assert core_decode(CODES, b"\0\0", 9, lengths, [100]) == b"A" * 9
    for wrong, count in ((b"\0\0", 8), (b"\0", 9), (b"\x10", 8), (b"\1", 1)):
        with pytest.raises(UndecodableError):
            core_decode(CODES, wrong, count, lengths, [100])


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=1, max_size=600), st.integers(0, 2**32), PIECES)
def test_runs_travel(data: bytes, seed: int, pieces: list[int]) -> None:
    rng = random.Random(seed)
    sparse = bytes(byte if rng.random() < 0.4 else 0 for byte in data)
    coded = runs_of(sparse, rng)
    assert decode(RUNS, coded, len(sparse), None) == sparse
    same(RUNS, coded, len(sparse), None, pieces)


@settings(max_examples=150, deadline=None)
@given(complete_codes(), st.integers(1, 600), st.integers(0, 2**32), PIECES, st.booleans())
def test_codes_travel(lengths: list[int], count: int, seed: int, pieces: list[int], with_runs: bool) -> None:
    rng = random.Random(seed)
    symbols = [symbol for symbol in range(256) if lengths[symbol]]
    data = bytes(rng.choice(symbols) for _ in range(count))
    if with_runs:  # whatever the tokens' bytes are, all of them need a code
        plain = bytes(byte if rng.random() < 0.5 else 0 for byte in data)
        data = runs_of(plain, rng)
        lengths = huffman(data)
        assume(max(lengths) <= spec.MAX_CODE_BITS)
        assert decode(RUNS | CODES, pack_codes(data, lengths), count, lengths) == plain
    else:
        assert decode(CODES, pack_codes(data, lengths), count, lengths) == data
    same(CODES | RUNS * with_runs, pack_codes(data, lengths), count, lengths, pieces)


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from((RUNS, CODES, RUNS | CODES)),
    st.binary(max_size=80),
    st.integers(1, 300),
    complete_codes(),
    PIECES,
)
def test_any_bytes_are_taken_or_refused_as_the_model_does(
    coding: int, data: bytes, count: int, lengths: list[int], pieces: list[int]
) -> None:
    # Without codes a cut literal counts for nothing in the core, byte by byte in the model: one piece tells the same.
    if coding == RUNS:
        try:
            decode(coding, data, count, None)
        except UndecodableError:
            with pytest.raises(UndecodableError):
                core_decode(coding, data, count, None, pieces)
            return
    same(coding, data, count, lengths if coding & CODES else None, pieces)


@pytest.mark.parametrize("coding", [RUNS, CODES, RUNS | CODES])
def test_cut_anywhere_and_with_any_bit_wrong(coding: int) -> None:
    """Canaries stand around every piece; a refusal or other bytes, never a byte beyond."""
    rng = random.Random(coding)
    plain = bytes(rng.choice((0, 0, 0, 1, 2, 3, 77, 255)) for _ in range(90))
    tokens = runs_of(plain, rng) if coding & RUNS else plain
    lengths = huffman(tokens + bytes(range(256)))
    coded = pack_codes(tokens, lengths) if coding & CODES else tokens
    assert core_decode(coding, coded, len(plain), lengths, [13]) == plain
    refused = 0
    for cut in range(len(coded)):
        with pytest.raises(UndecodableError):
            core_decode(coding, coded[:cut], len(plain), lengths, [13])
    for bit in range(8 * len(coded)):
        wrong = bytearray(coded)
        wrong[bit // 8] ^= 1 << bit % 8
        try:
            assert core_decode(coding, bytes(wrong), len(plain), lengths, [13]) == decode(
                coding, bytes(wrong), len(plain), lengths
            )
        except UndecodableError:
            refused += 1
            with pytest.raises(UndecodableError):
                decode(coding, bytes(wrong), len(plain), lengths)
    assert refused
