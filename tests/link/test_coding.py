"""Coded data: what is written decodes to the same bytes by a decoder of its own, from anywhere, and is never longer."""

import dataclasses
import heapq
import itertools
import os
import tracemalloc

import coding_oracle as oracle
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bitloop.data.dataset import load
from bitloop.data.splits import Split
from bitloop.hello import DeviceInfo
from bitloop.link.coding import HEAD_BYTES, choose_pixels, choose_weights
from bitloop.link.coding.coder import MAX_COUNT
from bitloop.link.coding.huffman import Code, CodesCoder, histogram
from bitloop.link.coding.runs import RunsCoder, Tokens, token_code
from bitloop.numeric.huffman import code_lengths
from bitloop.spec import MAX_CODE_BITS, Coding

BOTH = Coding.RUNS | Coding.CODES
ALL = (Coding.RUNS, Coding.CODES, BOTH)


def device(codings=BOTH):
    return dataclasses.replace(DeviceInfo.native_default(), codings=codings)


def coder_of(data, coding):
    array = np.frombuffer(data, np.uint8)
    if coding == Coding.CODES:
        return CodesCoder(array, histogram(array))
    tokens = Tokens(array)
    return RunsCoder(tokens, token_code(tokens, histogram(tokens.written)) if coding & Coding.CODES else None)


def sparse(count, seed=0, zeros=0.8):
    """Bytes like pixels: runs of zeros, and values of which few are frequent."""
    random = np.random.default_rng(seed)
    background = np.repeat(random.random(count // 8 + 1) < zeros, 8)[:count]
    values = np.minimum(random.geometric(0.03, count), 255)
    return np.where(background, 0, values).astype(np.uint8).tobytes()


segments = st.one_of(
    st.integers(1, 300).map(bytes),
    st.binary(min_size=1, max_size=150),
    st.lists(st.sampled_from(b"\0\0\1\2"), min_size=1, max_size=150).map(bytes),
    st.builds(lambda byte, count: bytes([byte]) * count, st.integers(0, 255), st.integers(1, 300)),
)
streams = st.lists(segments, min_size=1, max_size=8).map(b"".join)


# --- pieces ---


@settings(max_examples=400, deadline=None)
@given(data=streams, coding=st.sampled_from(ALL), draw=st.data())
def test_a_piece_from_anywhere_decodes_exactly_and_keeps_within_its_limits(data, coding, draw):
    coder = coder_of(data, coding)
    assert coder.coding == coding
    assert (coder.table is not None) == bool(coding & Coding.CODES)
    for _ in range(6):
        offset = draw.draw(st.integers(0, len(data) - 1))
        most = draw.draw(st.one_of(st.integers(1, 400), st.just(1 << 20)))
        room = draw.draw(st.integers(0, 220))
        piece = coder.piece(offset, most, room)
        if piece is not None:
            assert 1 <= piece.count <= min(most, len(data) - offset)
            assert len(piece.data) <= room
            assert len(piece.data) + HEAD_BYTES < piece.count
            assert piece.coding == coding
            decoded = oracle.decode(piece.coding, piece.data, piece.count, coder.table)
            assert decoded == data[offset : offset + piece.count]


@settings(max_examples=200, deadline=None)
@given(data=streams, coding=st.sampled_from(ALL))
@example(data=bytes(1), coding=BOTH)
@example(data=b"\7", coding=BOTH)
@example(data=bytes(64), coding=Coding.CODES)
@example(data=bytes(range(1, 129)) + bytes(1), coding=BOTH)
def test_the_size_is_what_was_said_and_the_table_is_a_complete_code(data, coding):
    coder = coder_of(data, coding)
    if coder.table is not None:
        assert len(coder.table) == 128
        oracle.read_table(coder.table)
    piece = coder.piece(0, len(data), 1 << 20)
    coded_bytes = coder.size_bytes - len(coder.table or b"")
    if piece is None:
        assert coded_bytes + HEAD_BYTES >= len(data)
    else:
        assert piece.count == len(data)
        assert len(piece.data) == coded_bytes


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), coding=st.sampled_from(ALL), room=st.integers(57, 1500))
@example(seed=749, coding=Coding.RUNS | Coding.CODES, room=68)
def test_pieces_one_behind_another_fill_their_frames(seed, coding, room):
    data = sparse(20_000, seed)
    coder = coder_of(data, coding)
    offset = total = pieces = 0
    while offset < len(data):
        piece = coder.piece(offset, len(data), room)
        size = min(room + HEAD_BYTES, len(data) - offset) if piece is None else len(piece.data)
        decoded = data[offset : offset + size] if piece is None else oracle.decode(
            piece.coding, piece.data, piece.count, coder.table
        )  # fmt: skip
        assert decoded == data[offset : offset + len(decoded)]
        offset += len(decoded)
        total += size
        pieces += 1
        if piece is not None and offset < len(data):
            # What did not fit is a byte, or with runs a head and a byte: of 8 bits each, or of up to 15 in a code.
            assert len(piece.data) >= room - (3 if coding == Coding.RUNS | Coding.CODES else 2)
    # Where a token is cut, its second part needs a head, and half a byte is left on average.
    assert total <= coder.size_bytes + 3 * pieces


def test_no_piece_stands_for_more_than_a_frame_can_say():
    coder = coder_of(bytes(200_000), Coding.RUNS)
    piece = coder.piece(1, 200_000, 4000)
    assert piece.count == MAX_COUNT == 65535
    coder = coder_of(bytes(200_000), BOTH)
    piece = coder.piece(70_001, 200_000, 4000)
    assert oracle.decode(3, piece.data, piece.count, coder.table) == bytes(65535)


@pytest.mark.parametrize("coding", ALL)
def test_positions_behind_many_chunks(coding):
    data = sparse((1 << 19) + 64, 5) + bytes(300) + sparse(77, 6)
    coder = coder_of(data, coding)
    for offset in (0, (1 << 18) - 1, (1 << 18), (1 << 18) + 63, (1 << 19) + 64, len(data) - 378, len(data) - 100):
        piece = coder.piece(offset, 3000, 700)
        assert oracle.decode(piece.coding, piece.data, piece.count, coder.table) == data[offset : offset + piece.count]


def test_by_hand():
    """Written out from the page: five zeros, three literals, two zeros."""
    data = bytes(5) + b"\x05\x06\x07" + bytes(2)
    assert coder_of(data, Coding.RUNS).piece(0, 10, 6) == (10, 1, b"\x84\x02\x05\x06\x07\x81")
    assert coder_of(data, Coding.RUNS).piece(0, 10, 5) is None  # 8 bytes in 5 coded ones and 3 of head
    # Offset 3: two zeros are left of the first token; room for two of the literals.
    data += bytes(20)
    assert coder_of(data, Coding.RUNS).piece(3, 99, 7) == (27, 1, b"\x81\x02\x05\x06\x07\x95")
    # 'a' four times, 'b' twice, 'c' once, 'd' once: lengths 1, 2, 3, 3; codes 0, 10, 110, 111.
    coder = coder_of(b"aabacbad" + b"aaaa" * 4, Coding.CODES)
    assert (coder.table[48], coder.table[49], coder.table[50]) == (0x10, 0x32, 0x03)
    # 0 0 10 0 110 | 10 0 111 0 0 ... read from the least significant bit on
    assert coder.piece(0, 13, 50) == (13, 2, bytes([0b01100100, 0b00111001, 0b0]))


# --- codes ---


def cost(weights, lengths):
    return sum(weight * length for weight, length in zip(weights, lengths, strict=True))


def heap_cost(weights):
    """The sum of all merged weights: what a Huffman code without a limit comes to (D. Huffman, 1952)."""
    heap = [weight for weight in weights if weight]
    heapq.heapify(heap)
    total = 0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        total += merged
        heapq.heappush(heap, merged)
    return total


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.one_of(st.just(0), st.integers(0, 10**6)), min_size=256, max_size=256).filter(
        lambda w: sum(map(bool, w)) > 1
    )
)
def test_lengths_without_a_limit_in_force_are_huffman_s(weights):
    lengths = code_lengths(weights, 60)
    assert cost(weights, lengths) == heap_cost(weights)
    assert [length > 0 for length in lengths] == [weight > 0 for weight in weights]
    limited = code_lengths(weights)
    assert max(limited) <= MAX_CODE_BITS
    assert sum(2**-length for length in limited if length) == 1.0
    if max(lengths) <= MAX_CODE_BITS:
        assert cost(weights, limited) == cost(weights, lengths)


@settings(max_examples=80, deadline=None)
@given(weights=st.lists(st.integers(1, 2000).map(lambda w: w * w), min_size=2, max_size=6), limit=st.integers(3, 4))
def test_limited_lengths_are_the_best_of_all(weights, limit):
    best = min(
        cost(weights, lengths)
        for lengths in itertools.product(range(1, limit + 1), repeat=len(weights))
        if sum(2**-length for length in lengths) <= 1
    )
    lengths = code_lengths(weights, limit)
    assert max(lengths) <= limit
    assert sum(2**-length for length in lengths) == 1.0
    assert cost(weights, lengths) == best


def test_a_code_that_must_be_limited():
    fibonacci = [1, 1]
    while len(fibonacci) < 30:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    assert max(code_lengths(fibonacci, 60)) == 29
    code = Code([*fibonacci, *[0] * 226])
    assert code.lengths.max() == MAX_CODE_BITS
    oracle.read_table(code.table)
    with pytest.raises(ValueError, match="9 symbols have no codes of 3 bits"):
        code_lengths([1] * 9, 3)


@pytest.mark.parametrize("symbol", [0, 1, 254, 255])
def test_one_symbol_has_a_code_of_one_bit(symbol):
    weights = [0] * 256
    weights[symbol] = 3
    code = Code(weights)
    assert oracle.read_table(code.table) == {(1, 0): symbol}
    assert code_lengths([0] * 256) == [0] * 256


def test_heads_that_only_cutting_makes_cost_what_occurs_as_little_as_can_be():
    for size, most in ((50_000, 1.002), (1_000, 1.01)):
        tokens = Tokens(np.frombuffer(sparse(size, 3), np.uint8))
        counts = histogram(tokens.written)
        occurring = [int(count) for count in counts]
        code = token_code(tokens, counts)
        assert all(code.lengths[head] for head in tokens.possible_heads())
        assert code.bits(counts) <= most * cost(occurring, code_lengths(occurring))


# --- the choice ---


def test_what_is_smallest_is_chosen_among_what_the_device_decodes():
    random = np.random.default_rng(1)
    zeros = np.where(random.random(40_000) < 0.02, random.integers(0, 256, 40_000), 0).astype(np.uint8).tobytes()
    skewed = np.minimum(random.geometric(0.2, 40_000), 255).astype(np.uint8).tobytes()
    noise = random.integers(0, 256, 40_000, dtype=np.uint8).tobytes()
    for data, among, expected in (
        (zeros, BOTH, BOTH), (zeros, Coding.RUNS, Coding.RUNS), (zeros, Coding.CODES, Coding.CODES),
        (skewed, BOTH, Coding.CODES), (skewed, Coding.RUNS, None), (bytes(500), BOTH, Coding.RUNS),
        (noise, BOTH, None), (zeros, Coding(0), None), (b"", BOTH, None),
    ):  # fmt: skip
        coder = choose_weights(data, device(among))
        assert (coder and coder.coding) == expected
        if coder is not None:
            sizes = [coder_of(data, coding).size_bytes for coding in ALL if coding & among == coding]
            assert coder.size_bytes == min([*sizes, len(data)])


def test_pixels_of_any_shape():
    data = sparse(28 * 28 * 40)
    pixels = np.frombuffer(data, np.uint8).reshape(40, 28, 28, 1)
    first = choose_pixels(pixels, device()).piece(99, 500, 100)
    assert first == choose_pixels(data, device()).piece(99, 500, 100)
    assert first == choose_pixels(pixels.reshape(40, -1), device()).piece(99, 500, 100)
    assert first == choose_pixels(memoryview(data), device()).piece(99, 500, 100)
    every_other = pixels[::2]
    strided = choose_pixels(every_other, device()).piece(784, 784, 1 << 16)
    coder = choose_pixels(every_other.copy(), device())
    assert oracle.decode(strided.coding, strided.data, 784, coder.table) == every_other[1].tobytes()


@pytest.mark.parametrize("pattern", [bytes([0, 0, 1]), bytes([0, 0, 0, 0, 0, 0, 0, 9]), bytes(range(256)), bytes(1)])
@pytest.mark.parametrize("codings", [Coding.RUNS, BOTH])
def test_memory_is_a_few_times_the_data(pattern, codings):
    data = pattern * ((1 << 22) // len(pattern))
    tracemalloc.start()
    try:
        coder = choose_pixels(data, device(codings))
        kept, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert coder is None or coder.piece(5, 100, 100)
    assert kept <= 8 * len(data)
    assert peak <= 10 * len(data) + (16 << 20)  # what is worked on at once does not grow


def test_mnist_takes_less_than_a_third_of_the_line():
    """Room for an image at 921600 baud is 261 bytes; what comes back takes some 60 of them."""
    if not os.environ.get("BITLOOP_DATA"):
        pytest.skip("no MNIST on this machine: set BITLOOP_DATA")
    images = load("mnist", download=False).split(Split.SEARCH).pixels
    coder = choose_pixels(images, device())
    assert coder.coding == BOTH
    for body in (160, 4096):
        offset = sent = 0
        while offset < images.size:
            piece = coder.piece(offset, images.size, body - 7)
            decoded = oracle.decode(piece.coding, piece.data, piece.count, coder.table) if offset < 50 * 784 else None
            assert decoded in (None, images.reshape(-1)[offset : offset + piece.count].tobytes())
            offset += piece.count
            sent += len(piece.data) + HEAD_BYTES
        assert sent <= (185 if body > 160 else 190) * len(images)
