"""Bit streams and trits against bytes written by hand and a bit-by-bit reading of docs/model.md."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitloop.errors import FormatError
from bitloop.numeric.packing import pack, pack_bits, pack_trits, packed_bytes, unpack, unpack_bits, unpack_trits
from bitloop.spec import Packing


@pytest.mark.parametrize(
    ("width", "codes", "data"),
    [
        (1, [1, 0, 1, 1, 0, 0, 0, 0, 1], b"\x0d\x01"),
        (2, [0, 1, 2, 3, 3], b"\xe4\x03"),
        (3, [1, 2, 3], b"\xd1\x00"),  # 001, 010, 011 from the right: 0 1101 0001
        (4, [0xA, 0xB, 0xC], b"\xba\x0c"),
        (5, [0b10001, 0b01110], b"\xd1\x01"),
        (7, [0x7F, 0, 0x7F], b"\x7f\xc0\x1f"),
        (8, [1, 255], b"\x01\xff"),
        (12, [0xABC, 0xDEF], b"\xbc\xfa\xde"),
        (16, [0x1234], b"\x34\x12"),
        (24, [0xABCDEF], b"\xef\xcd\xab"),
        (31, [0x7FFFFFFF, 1], b"\xff\xff\xff\xff\x00\x00\x00\x00"),
        (32, [0xDEADBEEF], b"\xef\xbe\xad\xde"),
    ],
)
def test_bits_by_hand(width: int, codes: list[int], data: bytes) -> None:
    assert pack_bits(codes, width) == data
    assert unpack_bits(data, width, len(codes)).tolist() == codes
    assert packed_bytes(len(codes), width) == len(data)


@given(st.integers(1, 32).flatmap(lambda w: st.tuples(st.just(w), st.lists(st.integers(0, 2**w - 1), max_size=70))))
def test_bits_are_where_the_document_says(case: tuple[int, list[int]]) -> None:
    width, codes = case
    data = pack_bits(codes, width)
    assert len(data) == -(-len(codes) * width // 8)
    stream = int.from_bytes(data, "little")
    assert [(stream >> (i * width)) & (2**width - 1) for i in range(len(codes))] == codes
    assert stream >> (len(codes) * width) == 0
    assert unpack_bits(memoryview(data), width, len(codes)).tolist() == codes


@pytest.mark.parametrize("width", range(1, 33))
def test_long_streams_cross_blocks(width: int) -> None:
    rng = np.random.default_rng(width)
    codes = rng.integers(0, 2**width, 70_003, dtype=np.uint32)
    data = pack_bits(codes, width)
    assert np.array_equal(unpack_bits(data, width, codes.size), codes)
    stream = int.from_bytes(data, "little")
    for i in (0, 32_767, 32_768, 65_535, 65_536, 70_002):
        assert (stream >> (i * width)) & (2**width - 1) == int(codes[i])


@given(st.integers(1, 32), st.integers(1, 40), st.data())
def test_padding_bits_must_be_zero(width: int, count: int, data: st.DataObject) -> None:
    size, used = packed_bytes(count, width), count * width
    raw = bytearray(data.draw(st.binary(min_size=size, max_size=size)))
    clean = int.from_bytes(raw, "little") & (2**used - 1)
    unpack_bits(clean.to_bytes(size, "little"), width, count)
    if used % 8:
        bit = data.draw(st.integers(used, size * 8 - 1))
        with pytest.raises(FormatError, match="padding"):
            unpack_bits((clean | 1 << bit).to_bytes(size, "little"), width, count)


@pytest.mark.parametrize(
    ("codes", "data"),
    [
        # Digits are element + 1: code 3 (-1) is 0, code 0 is 1, code 1 is 2; d0 + 3 d1 + 9 d2 + 27 d3 + 81 d4.
        ([3, 3, 3, 3, 3], [0]),
        ([0, 0, 0, 0, 0], [121]),
        ([1, 1, 1, 1, 1], [242]),
        ([1, 3, 0, 1, 3], [2 + 0 + 9 + 54 + 0]),
        ([1], [2]),
        ([3, 0, 1, 0, 3, 0, 1], [0 + 3 + 18 + 27 + 0, 1 + 6]),
        ([], []),
    ],
)
def test_trits_by_hand(codes: list[int], data: list[int]) -> None:
    assert pack_trits(codes) == bytes(data)
    assert unpack_trits(bytes(data), len(codes)).tolist() == codes
    assert packed_bytes(len(codes), 2, Packing.TRITS) == len(data)


@given(st.lists(st.sampled_from([0, 1, 3]), max_size=60))
def test_trits_round_trip(codes: list[int]) -> None:
    data = pack(codes, 2, Packing.TRITS)
    assert len(data) == -(-len(codes) // 5)
    assert unpack(data, 2, len(codes), Packing.TRITS).tolist() == codes


def test_what_is_refused() -> None:
    for width in (0, 33, -1):
        with pytest.raises(FormatError, match="1 to 32 bits"):
            pack_bits([0], width)
        with pytest.raises(FormatError, match="1 to 32 bits"):
            unpack_bits(b"", width, 0)
    with pytest.raises(FormatError, match="code of 3 bits"):
        pack_bits([8], 3)
    for data in (b"", b"\x00\x00"):
        with pytest.raises(FormatError, match="take 1 bytes"):
            unpack_bits(data, 8, 1)
        with pytest.raises(FormatError, match="take 1 bytes"):
            unpack_trits(data, 5)
    with pytest.raises(FormatError, match="at most 242, found 243"):
        unpack_trits(b"\xf3", 5)
    for digits in (3, 6, 9, 27, 81):  # any digit behind the first
        with pytest.raises(FormatError, match="padding digits"):
            unpack_trits(bytes([digits]), 1)
    for codes in ([2], [4], [0xFFFFFFFF]):
        with pytest.raises(FormatError, match="ternary codes"):
            pack_trits(codes)
