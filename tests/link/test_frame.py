"""COBS and frames, against the table that the device's tests read too, and against properties."""

import json
import random
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitloop.link.wire.frame import (
    CobsError,
    CorruptFrame,
    Decoder,
    Frame,
    RawBytes,
    body_that_fits,
    cobs_decode,
    cobs_encode,
    encode_frame,
    encoded_size,
    is_text,
)

VECTORS = json.loads((Path(__file__).parents[1] / "vectors" / "frames.json").read_text())


def cases(key):
    return [pytest.param(case, id=case["name"]) for case in VECTORS[key]]


@pytest.mark.parametrize("case", cases("cobs"))
def test_cobs_vectors_both_ways(case):
    decoded, encoded = bytes.fromhex(case["decoded"]), bytes.fromhex(case["encoded"])
    assert cobs_encode(decoded) == encoded
    assert cobs_decode(encoded) == decoded


@pytest.mark.parametrize("case", cases("cobs_decode_only"))
def test_cobs_takes_other_right_encodings(case):
    assert cobs_decode(bytes.fromhex(case["encoded"])) == bytes.fromhex(case["decoded"])


@pytest.mark.parametrize("case", cases("cobs_bad"))
def test_cobs_refuses(case):
    with pytest.raises(CobsError):
        cobs_decode(bytes.fromhex(case["encoded"]))


@pytest.mark.parametrize("bad", [b"", b"\x02\x00", b"\0"])
def test_cobs_refuses_empty_and_zero(bad):
    with pytest.raises(CobsError):
        cobs_decode(bad)


@pytest.mark.parametrize("case", cases("frames"))
def test_frame_vectors_both_ways(case):
    frame = Frame(case["type"], case["sequence"], case["session"], bytes.fromhex(case["body"]))
    wire = bytes.fromhex(case["wire"])
    assert encode_frame(*frame) == wire
    assert Decoder().feed(wire) == [frame]


@pytest.mark.parametrize("case", cases("bad_frames"))
def test_damaged_frames_are_no_frames(case):
    items = Decoder().feed(bytes.fromhex(case["wire"]))
    assert [type(item) for item in items] == [CorruptFrame]


# Zero-heavy (pictures), zero-free, and anything: the encoder has a way for each.
contents = st.one_of(
    st.binary(max_size=1200),
    st.lists(
        st.sampled_from([b"\0" * 7, b"\0", b"\1", b"\2" * 253, b"\3" * 254, b"\4" * 255, b"\5" * 508]), max_size=20
    ).map(b"".join),
)


def naive_encode(data):
    """The definition: blocks of up to 254 bytes, each led by its length plus one; a shorter one swallows a zero."""
    out, rest = b"", data + b"\0"
    while rest:
        block = rest.split(b"\0", 1)[0][:254]
        rest = rest[len(block) :]
        out += bytes([len(block) + 1]) + block
        if len(block) < 254:
            rest = rest[1:]
        elif rest == b"\0":
            break
    return out


@given(contents)
@settings(max_examples=400)
def test_cobs_round_trip_equals_the_definition(data):
    encoded = cobs_encode(data)
    assert encoded == naive_encode(data)
    assert 0 not in encoded
    assert len(encoded) <= len(data) + len(data) // 254 + 1
    assert cobs_decode(encoded) == data


frames = st.builds(Frame, st.integers(0, 255), st.integers(0, 255), st.integers(0, 0xFFFF), st.binary(max_size=600))


@given(st.lists(frames, max_size=5), st.randoms(use_true_random=False), st.binary(max_size=20))
@settings(max_examples=150)
def test_decoder_whole_byte_by_byte_and_in_any_pieces(sent, rnd, prefix):
    garbage = prefix.replace(b"\0", b"\xfe") + b"\0" if prefix else b""
    wire = garbage + b"\0".join(encode_frame(*frame) for frame in sent)
    whole = Decoder().feed(wire)
    single = Decoder()
    by_byte = [item for i in range(len(wire)) for item in single.feed(wire[i : i + 1])]
    cut = Decoder()
    pieces, position = [], 0
    while position < len(wire):
        size = rnd.randrange(1, 50)
        pieces += cut.feed(wire[position : position + size])
        position += size
    assert whole == by_byte == pieces
    assert [item for item in whole if isinstance(item, Frame)] == sent
    assert len(whole) == len(sent) + bool(garbage)


@given(st.lists(frames, min_size=1, max_size=4), st.data())
@settings(max_examples=300)
def test_flipped_bits_never_make_another_frame(sent, data):
    wire = bytearray(b"".join(encode_frame(*frame) for frame in sent))
    for _ in range(data.draw(st.integers(1, 3))):
        bit = data.draw(st.integers(0, 8 * len(wire) - 1))
        wire[bit // 8] ^= 1 << bit % 8
    received = [item for item in Decoder().feed(bytes(wire)) if isinstance(item, Frame)]
    remaining = list(sent)
    for frame in received:  # a subsequence of what was sent
        while remaining and remaining[0] != frame:
            remaining.pop(0)
        assert remaining, frame
        remaining.pop(0)


@given(frames, st.data())
def test_cut_and_lost_bytes_never_make_another_frame(frame, data):
    wire = encode_frame(*frame)
    start = data.draw(st.integers(0, len(wire) - 2))
    end = data.draw(st.integers(start + 1, len(wire)))
    received = [item for item in Decoder().feed(wire[:start] + wire[end:] + b"\0") if isinstance(item, Frame)]
    assert received == []


@given(st.binary(max_size=3000))
def test_any_bytes_are_taken_and_none_get_lost(data):
    decoder = Decoder(64)
    items = decoder.feed(data) + decoder.flush()
    assert all(isinstance(item, CorruptFrame | RawBytes) for item in items)
    assert b"".join(item.data for item in items) == data.replace(b"\0", b"")


def test_overlong_input_is_bounded_and_the_next_frame_survives():
    decoder = Decoder(64)
    items = []
    for _ in range(100):
        items += decoder.feed(b"\xaa" * 1000)
        assert len(decoder.pending) <= encoded_size(64)
    items += decoder.feed(b"\xaa\0" + encode_frame(1, 2, 3, b"x" * 64))
    assert items[-1] == Frame(1, 2, 3, b"x" * 64)
    assert all(isinstance(item, CorruptFrame) for item in items[:-1])


def test_the_rest_of_an_overlong_frame_is_no_frame():
    decoder = Decoder(64)
    assert len(decoder.feed(b"\xaa" * encoded_size(64))) == 1
    (item,) = decoder.feed(encode_frame(1, 2, 3, b"x" * 20))
    assert isinstance(item, CorruptFrame)
    assert item.reason == "rest of an overlong frame"


def test_body_limit_is_exact():
    assert Decoder(64).feed(encode_frame(1, 2, 3, b"\1" * 64)) == [Frame(1, 2, 3, b"\1" * 64)]
    (item,) = Decoder(64).feed(encode_frame(1, 2, 3, b"\1" * 65))
    assert isinstance(item, CorruptFrame)


def test_text_between_frames_is_raw():
    banner = b"\x1b[0;32mI (29) boot: ESP-IDF v5.1 2nd stage bootloader\x1b[0m\r\n"
    wire = encode_frame(0x82, 1, 7, b"a") + banner + b"\0" + encode_frame(0x82, 2, 7, b"b")
    assert Decoder().feed(wire) == [Frame(0x82, 1, 7, b"a"), RawBytes(banner), Frame(0x82, 2, 7, b"b")]


def test_text_inside_a_frame_is_not_raw():
    text = b"all of this is printable, and long enough to be taken for the banner of a board" * 3
    assert Decoder().feed(encode_frame(0x41, 0x42, 0x4344, text)) == [Frame(0x41, 0x42, 0x4344, text)]


def test_pending_text_comes_out_on_flush():
    decoder = Decoder()
    assert decoder.feed(b"Guru Meditation Error") == []
    assert decoder.pending == b"Guru Meditation Error"
    assert decoder.flush() == [RawBytes(b"Guru Meditation Error")]
    assert decoder.flush() == []


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"", False),
        (b"hello\r\n", True),
        (bytes(range(32)), False),
        (b"x" * 9 + b"\x80", True),
        (b"x" * 8 + b"\x80\x81", False),
        (b"x" * 17 + b"\x80\x81", False),
        (b"x" * 18 + b"\x80\x81", True),
    ],
)
def test_what_counts_as_text(data, text):
    assert is_text(data) is text


@pytest.mark.parametrize("window", range(11, 1400, 7))
def test_body_that_fits_is_the_longest(window):
    body = body_that_fits(window)
    assert encoded_size(body) + 1 <= window
    assert encoded_size(body + 1) + 1 > window


@given(st.binary(max_size=2000))
def test_encoded_size_is_a_bound(body):
    assert len(encode_frame(255, 255, 0xFFFF, body)) <= encoded_size(len(body))


def test_encoding_is_quick():
    rnd = random.Random(1)
    picture = b"".join(bytes(rnd.randrange(400, 700)) + rnd.randbytes(130) for _ in range(6))[:4096]
    for data in (rnd.randbytes(4096), bytes(4096), picture):
        best = min(timed(data) for _ in range(7))
        # 20 MB/s on a free machine; half of it, since tests share theirs.
        assert len(data) / best > 10e6


def timed(data):
    started = time.perf_counter()
    for _ in range(10):
        cobs_encode(data)
    return (time.perf_counter() - started) / 10
