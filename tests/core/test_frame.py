"""COBS, CRC-32 and SHA-256 of the core, against published vectors and the standard library."""

from __future__ import annotations

import ctypes
import hashlib
import random
import struct
import zlib
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitloop.native.core import library

NONE, READY, DAMAGED, BAD_CRC = range(4)
SINK = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(ctypes.c_uint8), ctypes.c_size_t)
CANARY = 0xC5


class CDecoder(ctypes.Structure):
    _fields_ = (
        ("buffer", ctypes.c_void_p),
        ("capacity", ctypes.c_size_t),
        ("length", ctypes.c_size_t),
        ("left", ctypes.c_uint8),
        ("code", ctypes.c_uint8),
        ("damaged", ctypes.c_bool),
        ("done", ctypes.c_bool),
    )


class Decoder:
    """The core's decoder over a buffer with a canary behind it."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.memory = (ctypes.c_uint8 * (capacity + 16))(*[CANARY] * (capacity + 16))
        self.state = CDecoder()
        self.decode = library().bl_frame_decode
        self.decode.argtypes = (ctypes.POINTER(CDecoder), ctypes.c_uint8)
        library().bl_frame_decoder_init(ctypes.byref(self.state), ctypes.byref(self.memory), ctypes.c_size_t(capacity))

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        events = []
        for byte in data:
            event = self.decode(ctypes.byref(self.state), byte)
            if event != NONE:
                events.append((event, bytes(self.memory[: self.state.length]) if event == READY else b""))
        assert bytes(self.memory[self.capacity :]) == bytes([CANARY] * 16)
        return events


def encode(data: bytes) -> bytes:
    """The core's encoder; appends the CRC."""
    out = bytearray()
    frame = (ctypes.c_uint8 * (len(data) + 4 + 16))(*data, *[CANARY] * 20)

    @SINK
    def sink(_context: int, piece: ctypes.Array[ctypes.c_uint8], length: int) -> None:
        assert 1 <= length <= 254
        out.extend(piece[:length])

    library().bl_frame_encode(ctypes.byref(frame), ctypes.c_size_t(len(data)), sink, None)
    assert bytes(frame[len(data) + 4 :]) == bytes([CANARY] * 16)
    return bytes(out)


def with_crc(data: bytes) -> bytes:
    return data + struct.pack("<I", zlib.crc32(data))


# As published in the Wikipedia article "Consistent Overhead Byte Stuffing", examples 1 to 11.
PUBLISHED = [
    ("00", "0101"),
    ("0000", "010101"),
    ("001100", "01021101"),
    ("11220033", "0311220233"),
    ("11223344", "0511223344"),
    ("11000000", "0211010101"),
    (bytes(range(1, 255)).hex(), "ff" + bytes(range(1, 255)).hex()),
    (bytes(range(255)).hex(), "01ff" + bytes(range(1, 255)).hex()),
    (bytes(range(1, 256)).hex(), "ff" + bytes(range(1, 255)).hex() + "02ff"),
    ((bytes(range(2, 256)) + b"\0").hex(), "ff" + bytes(range(2, 256)).hex() + "0101"),
    ((bytes(range(3, 256)) + b"\0\1").hex(), "fe" + bytes(range(3, 256)).hex() + "0201"),
]


@pytest.mark.parametrize(("plain", "encoded"), PUBLISHED)
def test_oracle_gives_the_published_vectors(cobs: SimpleNamespace, plain: str, encoded: str) -> None:
    # Where 254 bytes end exactly at the end some encoders close with an empty block; decoders take both.
    assert cobs.encode(bytes.fromhex(plain)) in (bytes.fromhex(encoded), bytes.fromhex(encoded) + b"\1")
    assert cobs.decode(bytes.fromhex(encoded)) == bytes.fromhex(plain)


def patterns(length: int) -> list[bytes]:
    rng = random.Random(length)
    return [
        bytes(length),
        bytes([1]) * length,
        bytes(i % 256 for i in range(length)),
        bytes(rng.choice((0, 1, 255)) for _ in range(length)),
        rng.randbytes(length),
    ]


@pytest.mark.parametrize("length", [*range(4, 20), *range(240, 270), *range(500, 520), 1024])
def test_frames_travel_both_ways(cobs: SimpleNamespace, length: int) -> None:
    for data in patterns(length):
        sent = encode(data)
        assert sent[0] == sent[-1] == 0
        assert 0 not in sent[1:-1]
        assert len(sent) <= length + 4 + (length + 4) // 254 + 3
        assert cobs.decode(sent[1:-1]) == with_crc(data)
        for wire in (sent, cobs.encode(with_crc(data)) + b"\0"):
            assert Decoder(length + 4).feed(wire) == [(READY, with_crc(data))]


@pytest.mark.parametrize("capacity", range(24))
def test_no_buffer_is_too_small_to_be_safe(capacity: int) -> None:
    data = bytes(range(12))
    expected = [(READY, with_crc(data))] if capacity >= 16 else [(DAMAGED, b"")]
    assert Decoder(capacity).feed(encode(data)) == expected


def test_a_stream_goes_on_after_every_kind_of_damage() -> None:
    good = encode(b"a good frame")
    flipped = bytearray(good)
    flipped[5] ^= 0x10
    decoder = Decoder(64)
    events = decoder.feed(b"boot banner\r\n" + good + bytes(flipped) + good + good[:7] + good + b"\0\0" + good)
    kinds = [kind for kind, _ in events]
    assert kinds == [DAMAGED, READY, BAD_CRC, READY, DAMAGED, READY, READY]
    assert {data for kind, data in events if kind == READY} == {with_crc(b"a good frame")}


def test_a_frame_shorter_than_its_overhead_is_damaged(cobs: SimpleNamespace) -> None:
    for length in range(4):
        assert Decoder(64).feed(cobs.encode(with_crc(bytes(length))) + b"\0") == [(DAMAGED, b"")]


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=400), st.integers(0, 64))
def test_any_bytes_are_taken(data: bytes, capacity: int) -> None:
    decoder = Decoder(capacity)
    for kind, frame in decoder.feed(data + b"\0"):
        if kind == READY:
            assert with_crc(frame[:-4]) == frame
    marker = encode(b"mark")
    assert decoder.feed(marker) == ([(READY, with_crc(b"mark"))] if capacity >= 8 else [(DAMAGED, b"")])


@settings(max_examples=100, deadline=None)
@given(st.binary(min_size=4, max_size=300), st.data())
def test_no_single_wrong_byte_passes(data: bytes, draw: st.DataObject) -> None:
    wire = bytearray(encode(data))
    at = draw.draw(st.integers(1, len(wire) - 2))
    wire[at] ^= draw.draw(st.integers(1, 255))
    frames = [frame for kind, frame in Decoder(400).feed(bytes(wire)) if kind == READY]
    assert frames in ([], [with_crc(data)]) if wire == encode(data) else frames == []


def crc32(data: bytes, start: int = 0) -> int:
    function = library().bl_frame_crc32
    function.restype = ctypes.c_uint32
    return int(function(ctypes.c_uint32(start), data, ctypes.c_size_t(len(data))))


def test_crc32() -> None:
    assert crc32(b"123456789") == 0xCBF43926  # the check value of CRC-32/ISO-HDLC
    for length in range(300):
        data = random.Random(length).randbytes(length)
        assert crc32(data) == zlib.crc32(data)
        assert crc32(data[length // 3 :], crc32(data[: length // 3])) == zlib.crc32(data)


def sha256(*pieces: bytes) -> str:
    state = ctypes.create_string_buffer(8 * 4 + 4 + 64)
    digest = ctypes.create_string_buffer(32)
    core = library()
    core.bl_sha256_init(state)
    for piece in pieces:
        core.bl_sha256_update(state, piece, ctypes.c_size_t(len(piece)))
    core.bl_sha256_final(state, digest)
    return digest.raw.hex()


def test_sha256() -> None:
    # FIPS 180-4 examples (NIST, "Examples with Intermediate Values": SHA256.pdf).
    assert sha256(b"abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert (
        sha256(b"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")
        == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"
    )
    for length in range(200):
        data = random.Random(length).randbytes(length)
        for cut in (0, 1, length // 2, 63, 64, 65):
            assert sha256(data[:cut], data[cut:]) == hashlib.sha256(data).hexdigest()
    data = random.Random(0).randbytes(1 << 20)
    assert sha256(*(data[i : i + 999] for i in range(0, len(data), 999))) == hashlib.sha256(data).hexdigest()
