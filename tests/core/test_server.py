"""The protocol's state machine, through the simulated device: docs/protocol.md line by line."""

from __future__ import annotations

import ctypes
import hashlib
import random
import struct
import zlib
from collections.abc import Callable
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from bitloop import spec
from bitloop.native import Evaluator, firmware_hash
from bitloop.native.core import library
from bitloop.spec import HelloTag, LayerKind, MessageType, RunMode, RunOutput, StatsTag, Status

Start = Callable[..., Any]
PIXELS = 12
CLASSES = 5
RECORD = 12 + 4 * CLASSES


@pytest.fixture(scope="session")
def image(images: SimpleNamespace) -> bytes:
    """Three layers, 4x3 pixels, 5 classes, 4 slots."""
    rng = np.random.default_rng(4)
    first = images.dense((4, 3, 1), images.integer(rng.integers(-8, 8, (12, 7)).tolist(), 4), table=True)
    relu = images.Layer(LayerKind.RELU, (1, 1, 7), (1, 1, 7), in_place=True)
    last = images.dense((1, 1, 7), images.fp32(rng.normal(size=(7, CLASSES)).tolist()))
    return images.build([first, relu, last], slots=4)


def pixels_of(count: int) -> np.ndarray:
    return np.random.default_rng(count).integers(0, 256, (count, 4, 3, 1), dtype=np.uint8)


def words(body: bytes) -> tuple[int, ...]:
    return struct.unpack(f"<{len(body) // 4}I", body)


def begin(device: Any, count: int, *, mode: int = 1, outputs: int = 1, stop: int = spec.NO_LAYER) -> Any:
    return device.ask(MessageType.RUN_BEGIN, struct.pack("<BBHI", mode, outputs, stop, count))


def stats(device: Any) -> dict[int, int]:
    body = device.ask(MessageType.STATS_REQUEST).body
    return {body[i]: struct.unpack_from("<I", body, i + 2)[0] for i in range(0, len(body), 6)}


def run(device: Any, pixels: np.ndarray, *, mode: int, outputs: int = 1) -> list[tuple[int, int, bytes]]:
    """A whole run; gives (label, ticks, rest) of each image."""
    slots, record, limit = struct.unpack("<HHI", begin(device, len(pixels), mode=mode, outputs=outputs).body)
    stream = pixels.tobytes()
    position, results = 0, []
    while len(results) < len(pixels):
        while position < limit:
            piece = stream[position : min(position + 17, limit)]
            credit = words(device.ask(MessageType.RUN_DATA, struct.pack("<I", position) + piece).body)
            position += len(piece)
            assert credit[0] == position
            assert credit[1] >= limit
            assert mode == RunMode.THROUGHPUT or credit[1] == limit
        for event in device.events(MessageType.RESULT):
            first, count = struct.unpack_from("<IB", event.body)
            assert (event.sequence, event.session, first) == (0, device.session, len(results))
            assert len(event.body) == 6 + count * record
            for i in range(count):
                data = event.body[6 + i * record :][:record]
                results.append((*struct.unpack_from("<HxxQ", data), data[12:]))
            break
        _, limit, computed = words(device.ask(MessageType.RUN_ACK, struct.pack("<IB", len(results), 0)).body)
        # Pixels of a computed image are free; its result waits for the acknowledgement.
        assert limit == min(len(pixels), slots + (computed if mode == RunMode.THROUGHPUT else len(results))) * PIXELS
    assert device.ask(MessageType.RUN_END).body == struct.pack("<I", len(pixels))
    return results


# --- session ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("body", [64, 65, 100, 128, 4096, 65535])
def test_hello_in_as_many_frames_as_it_takes(start_device: Start, body: int) -> None:
    device = start_device("--body", str(body), "--arena", "100000", "--window", "5000", "--boot-count", "7")
    fields = device.hello()
    assert device.longest_hello <= body
    assert fields[HelloTag.PROTOCOL] == struct.pack("<HH", 1, 2)
    assert fields[HelloTag.FIRMWARE_HASH].hex() == firmware_hash()
    assert fields[HelloTag.BOARD] == b"native"
    assert fields[HelloTag.TIMER] == struct.pack("<BI", spec.TimerUnit.HOST_NANOSECONDS, 10**9)
    results = [expected for _, expected in spec.PROBE_CASES]
    assert words(fields[HelloTag.PROBE_RESULTS]) == tuple(results)
    assert words(fields[HelloTag.PROBE_CRC]) == (zlib.crc32(struct.pack("<11I", *results)),)
    assert words(fields[HelloTag.ARENA_BYTES]) == (100000,)
    assert fields[HelloTag.BODY_BYTES] == struct.pack("<H", body)
    assert words(fields[HelloTag.WINDOW_BYTES]) == (5000,)
    assert words(fields[HelloTag.BOOT_COUNT]) == (7,)
    assert words(fields[HelloTag.LAYER_KINDS]) == (sum(1 << k for k in LayerKind),)
    assert words(fields[HelloTag.FORMAT_KINDS]) == (sum(1 << k for k in spec.FormatKind),)
    assert fields[HelloTag.LAYOUTS] == bytes([spec.Layout.IN_MAJOR])
    assert sorted(fields[HelloTag.PACKINGS]) == [0, 1]
    assert fields[HelloTag.SIMULATED] == b"\1"
    assert HelloTag.IMAGE_HASH not in fields
    assert fields[HelloTag.SEND_BODY_BYTES] == struct.pack("<H", body)
    assert fields[HelloTag.CODINGS] == bytes([spec.Coding.RUNS | spec.Coding.CODES])
    assert fields[HelloTag.RANGES] == b"\7"
    assert words(fields[HelloTag.CAPABILITIES])[0] & spec.Capability.DELTA_UPLOAD
    assert set(fields) >= set(HelloTag) - {HelloTag.IMAGE_HASH, HelloTag.BAUD}
    assert all(tag in stats(device) for tag in (StatsTag.FRAMES_RECEIVED, StatsTag.ARENA_PEAK_BYTES))


def test_long_board_names_are_cut(start_device: Start) -> None:
    assert start_device("--body", "64", "--board", "b" * 300).hello()[HelloTag.BOARD] == b"b" * 60


def test_another_major_version_is_refused(start_device: Start) -> None:
    device = start_device()
    answer = device.ask(MessageType.HELLO_REQUEST, struct.pack("<HH", 2, 0))
    assert answer.status == (Status.BAD_PROTOCOL, MessageType.HELLO_REQUEST, 1, 2)
    assert device.ask(MessageType.HELLO_REQUEST, b"\1").status == (Status.BAD_BODY, MessageType.HELLO_REQUEST, 1, 4)
    assert device.hello()


def test_frames_of_other_sessions_are_dropped(start_device: Start) -> None:
    device = start_device()
    device.send(MessageType.ECHO_REQUEST, b"before any hello")
    device.hello()
    device.send(MessageType.ECHO_REQUEST, b"of another", session=0x4321)
    device.send(MessageType.HELLO_REQUEST, struct.pack("<HH", 1, 0), session=0)
    assert device.ask(MessageType.ECHO_REQUEST, b"mine").body == b"mine"
    assert stats(device)[StatsTag.STALE_FRAMES] == 3
    device.session = 0x4321
    device.hello()
    assert device.ask(MessageType.ECHO_REQUEST, b"now mine").body == b"now mine"


def test_echo_of_every_length(start_device: Start) -> None:
    device = start_device("--body", "300")
    device.hello()
    for length in range(301):
        body = random.Random(length).randbytes(length)
        assert device.ask(MessageType.ECHO_REQUEST, body).body == body
    for body in (bytes(300), b"\xff" * 300):
        assert device.ask(MessageType.ECHO_REQUEST, body).body == body


def test_a_body_that_is_too_long_is_dropped_and_counted(start_device: Start) -> None:
    device = start_device("--body", "64")
    device.hello()
    device.send(MessageType.ECHO_REQUEST, bytes(65))
    device.send(MessageType.ECHO_REQUEST, b"\1" * 5000)
    assert device.ask(MessageType.ECHO_REQUEST, b"fits").body == b"fits"
    assert stats(device)[StatsTag.FRAMING_ERRORS] == 2


def test_unknown_types_and_answers(start_device: Start) -> None:
    device = start_device()
    device.hello()
    for kind in (0x00, 0x03, 0x40, 0x55, 0x7F):
        assert device.ask(kind, b"?").status == (Status.BAD_TYPE, kind, kind, 0)
    device.send(MessageType.ECHO, b"an answer, come back")
    assert device.ask(MessageType.ECHO_REQUEST).body == b""
    assert stats(device)[StatsTag.FRAMING_ERRORS] == 1


def test_garbage_between_frames(start_device: Start) -> None:
    device = start_device()
    device.hello()
    rng = random.Random(1)
    for length in (1, 10, 1000, 20000):
        device.socket.sendall(rng.randbytes(length) + b"\0")
        assert device.ask(MessageType.ECHO_REQUEST, b"still here").body == b"still here"
    damaged = bytearray(device.frame(MessageType.ECHO_REQUEST, b"twelve bytes"))
    damaged[6] ^= 1
    before = stats(device)
    device.socket.sendall(bytes(damaged))
    after = stats(device)
    assert after[StatsTag.CRC_ERRORS] == before[StatsTag.CRC_ERRORS] + 1
    assert after[StatsTag.FRAMES_RECEIVED] == before[StatsTag.FRAMES_RECEIVED] + 1


LENGTHS = [
    (MessageType.UPLOAD_BEGIN, 40),
    (MessageType.UPLOAD_END, 0),
    (MessageType.RUN_BEGIN, 8),
    (MessageType.RUN_ACK, 5),
    (MessageType.RUN_END, 0),
    (MessageType.READ_ACTIVATION, 6),
    (MessageType.STATS_REQUEST, 0),
]


@pytest.mark.parametrize(("kind", "length"), LENGTHS)
def test_wrong_lengths(start_device: Start, image: bytes, kind: MessageType, length: int) -> None:
    device = start_device()
    device.hello()
    device.upload(image)
    begin(device, 1)
    for wrong in {length + 1, max(length - 1, 0), 0, 64} - {length}:
        assert device.ask(kind, bytes(wrong)).status == (Status.BAD_BODY, kind, wrong, length)
    for streamed in (MessageType.UPLOAD_DATA, MessageType.RUN_DATA):
        for wrong in range(4):
            assert device.ask(streamed, bytes(wrong)).status == (Status.BAD_BODY, streamed, wrong, 4)


# --- upload -------------------------------------------------------------------------------------------------------


def offer(device: Any, image: bytes, *, digest: bytes | None = None, arena: int | None = None) -> Any:
    arena = struct.unpack_from("<I", image, 28)[0] if arena is None else arena
    digest = hashlib.sha256(image).digest() if digest is None else digest
    return device.ask(MessageType.UPLOAD_BEGIN, struct.pack("<II", len(image), arena) + digest)


def data(device: Any, image: bytes, offset: int, end: int) -> tuple[int, ...]:
    return words(device.ask(MessageType.UPLOAD_DATA, struct.pack("<I", offset) + image[offset:end]).body)


@pytest.mark.parametrize("piece", [1, 7, 60, 1000])
def test_upload(start_device: Start, image: bytes, piece: int) -> None:
    device = start_device()
    device.hello()
    done = device.upload(image, piece=piece)
    assert done.type == MessageType.UPLOAD_DONE
    assert done.body == hashlib.sha256(image).digest() + image[28:32]
    assert device.ask(MessageType.UPLOAD_END).body == done.body
    assert device.hello()[HelloTag.IMAGE_HASH] == hashlib.sha256(image).digest()
    assert words(offer(device, image).body) == (len(image), len(image))  # held already
    assert device.ask(MessageType.UPLOAD_END).body == done.body


def test_upload_pieces_in_any_order(start_device: Start, image: bytes) -> None:
    device = start_device()
    device.hello()
    n = len(image)
    assert words(offer(device, image).body) == (0, n)
    assert data(device, image, 10, 20) == (0, n, 10, 20)  # behind a gap
    assert data(device, image, 0, 100) == (100, n)
    assert data(device, image, 0, 100) == (100, n)  # again
    assert data(device, image, 50, 150) == (150, n)  # its second half is new
    assert data(device, image, 150, 150) == (150, n)
    answer = device.ask(MessageType.UPLOAD_DATA, struct.pack("<I", n - 1) + b"xy")
    assert answer.status == (Status.BAD_OFFSET, MessageType.UPLOAD_DATA, n - 1, n)
    answer = device.ask(MessageType.UPLOAD_DATA, struct.pack("<I", 0xFFFFFFFF) + b"xy")
    assert answer.status == (Status.BAD_OFFSET, MessageType.UPLOAD_DATA, 0xFFFFFFFF, n)
    assert device.ask(MessageType.UPLOAD_END).status == (Status.BAD_LENGTH, MessageType.UPLOAD_END, 150, n)
    assert data(device, image, 150, n) == (n, n)
    assert device.ask(MessageType.UPLOAD_END).type == MessageType.UPLOAD_DONE
    assert data(device, image, 150, n) == (n, n)  # a late copy


def test_upload_goes_on_after_a_new_session(start_device: Start, image: bytes) -> None:
    device = start_device()
    device.hello()
    offer(device, image)
    data(device, image, 0, 123)
    device.session = 99
    device.hello()
    answer = device.ask(MessageType.UPLOAD_DATA, struct.pack("<I", 123) + image[123:])
    assert answer.status[0] == Status.BAD_STATE
    assert words(offer(device, image).body) == (123, len(image))
    data(device, image, 123, len(image))
    assert device.ask(MessageType.UPLOAD_END).type == MessageType.UPLOAD_DONE
    other = bytes(len(image))
    assert words(offer(device, other, arena=len(image)).body) == (0, len(image))  # the old one is forgotten
    assert HelloTag.IMAGE_HASH not in device.hello()
    assert begin(device, 1).status[0] == Status.NO_MODEL
    assert words(offer(device, image).body) == (0, len(image))


def test_uploads_that_are_refused(start_device: Start, images: SimpleNamespace, image: bytes) -> None:
    device = start_device("--arena", "8192")
    device.hello()
    big = (1 << 20).to_bytes(4, "little")
    assert offer(device, image, arena=8193).status == (Status.NO_MEMORY, MessageType.UPLOAD_BEGIN, 8193, 8192)
    answer = device.ask(MessageType.UPLOAD_BEGIN, big + bytes(36))
    assert answer.status == (Status.NO_MEMORY, MessageType.UPLOAD_BEGIN, 1 << 20, 8192)
    assert offer(device, bytes(67), arena=100).status[:3] == (Status.BAD_ARGUMENT, MessageType.UPLOAD_BEGIN, 0)
    assert offer(device, image, arena=len(image) - 1).status[:3] == (Status.BAD_ARGUMENT, MessageType.UPLOAD_BEGIN, 4)
    assert device.ask(MessageType.UPLOAD_END).status[0] == Status.BAD_STATE
    assert device.upload(bytes(200), arena=200).status[0] == Status.BAD_MAGIC
    assert device.ask(MessageType.UPLOAD_END).status[0] == Status.BAD_MAGIC  # the same again
    assert device.ask(MessageType.UPLOAD_DATA, bytes(8)).status[0] == Status.BAD_STATE
    assert begin(device, 1).status[0] == Status.NO_MODEL
    hostile = images.seal(image[:64] + b"\7" + image[65:])
    assert device.upload(hostile).status == (Status.BAD_LAYER_KIND, MessageType.UPLOAD_END, 0, 7)
    offer(device, image, digest=bytes(32))
    data(device, image, 0, len(image))
    assert device.ask(MessageType.UPLOAD_END).status == (Status.BAD_HASH, MessageType.UPLOAD_END, 0, 0)
    device.hello()
    assert words(offer(device, image, digest=bytes(32)).body) == (0, len(image))  # nothing refused is kept
    assert device.upload(image).type == MessageType.UPLOAD_DONE


# --- runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", RunMode)
@pytest.mark.parametrize("outputs", [0, 1, 2, 3])
@pytest.mark.parametrize("count", [1, 4, 5, 23])
def test_runs_give_the_evaluators_logits(
    start_device: Start, image: bytes, mode: RunMode, outputs: int, count: int
) -> None:
    device = start_device()
    device.hello()
    device.upload(image)
    pixels = pixels_of(count)
    expected = Evaluator(image).run(pixels)
    for _ in range(2):
        for logits, (label, ticks, rest) in zip(expected, run(device, pixels, mode=mode, outputs=outputs), strict=True):
            assert label == int(np.argmax(logits))
            assert ticks > 0
            logit_bytes = 4 * CLASSES if outputs & RunOutput.LOGITS else 0
            assert rest[:logit_bytes] == logits.tobytes()[:logit_bytes]
            layers = words(rest[logit_bytes:])
            assert len(layers) == (3 if outputs & RunOutput.LAYER_TICKS else 0)
            assert sum(layers) <= ticks
            assert all(layers)
    assert stats(device)[StatsTag.IMAGES_RUN] == 2 * count


def test_timing_mode_is_quiet_until_the_batch_is_done(start_device: Start, image: bytes) -> None:
    device = start_device()
    device.hello()
    device.upload(image)
    pixels = pixels_of(6)
    stream = pixels.tobytes()
    assert struct.unpack("<HHI", begin(device, 6, mode=RunMode.TIMING).body) == (4, RECORD, 4 * PIXELS)
    for i in range(3):
        part = stream[i * PIXELS : (i + 1) * PIXELS]
        credit = device.ask(MessageType.RUN_DATA, struct.pack("<I", i * PIXELS) + part)
        assert words(credit.body) == ((i + 1) * PIXELS, 4 * PIXELS, 0)
    assert device.ask(MessageType.ECHO_REQUEST).body == b""
    assert device.pending == []  # three images are there, but nothing is computed before the fourth
    device.ask(MessageType.RUN_DATA, struct.pack("<I", 3 * PIXELS) + stream[3 * PIXELS : 4 * PIXELS])
    results = next(device.events(MessageType.RESULT))
    assert struct.unpack_from("<IB", results.body) == (0, 4)
    # Beyond the credit there is no slot: ignored.
    assert words(device.ask(MessageType.RUN_DATA, struct.pack("<I", 4 * PIXELS) + stream[4 * PIXELS :]).body) == (
        4 * PIXELS,
        4 * PIXELS,
        4,
    )
    for acknowledged in (1, 3):
        credit = device.ask(MessageType.RUN_ACK, struct.pack("<IB", acknowledged, 0))
        assert words(credit.body) == (4 * PIXELS, 4 * PIXELS, 4)
    credit = device.ask(MessageType.RUN_ACK, struct.pack("<IB", 4, 0))
    assert words(credit.body) == (4 * PIXELS, 6 * PIXELS, 4)
    device.ask(MessageType.RUN_DATA, struct.pack("<I", 4 * PIXELS) + stream[4 * PIXELS :])
    results = next(device.events(MessageType.RESULT))
    assert struct.unpack_from("<IB", results.body) == (4, 2)


def test_results_can_be_asked_for_again(start_device: Start, image: bytes) -> None:
    device = start_device()
    device.hello()
    device.upload(image)
    pixels = pixels_of(4)
    begin(device, 4, mode=RunMode.TIMING)
    answer = device.ask(MessageType.RUN_ACK, struct.pack("<IB", 1, 0))  # none is computed yet
    assert answer.status[:3] == (Status.BAD_ARGUMENT, MessageType.RUN_ACK, 0)
    device.ask(MessageType.RUN_DATA, struct.pack("<I", 0) + pixels.tobytes())
    results = next(device.events(MessageType.RESULT))
    for index in (0, 2, 1, 3):
        expect = max(index, 2) if index != 0 else 0
        device.ask(MessageType.RUN_ACK, struct.pack("<IB", index, 1))
        again = next(device.events(MessageType.RESULT))
        assert struct.unpack_from("<IB", again.body) == (expect, 4 - expect)
        assert again.body[6:] == results.body[6 + expect * RECORD :]
    answer = device.ask(MessageType.RUN_ACK, struct.pack("<IB", 5, 0))
    assert answer.status[:3] == (Status.BAD_ARGUMENT, MessageType.RUN_ACK, 0)
    answer = device.ask(MessageType.RUN_ACK, struct.pack("<IB", 4, 2))
    assert answer.status[:3] == (Status.BAD_ARGUMENT, MessageType.RUN_ACK, 4)


def test_pixel_pieces_in_any_order(start_device: Start, image: bytes) -> None:
    device = start_device()
    device.hello()
    device.upload(image)
    stream = pixels_of(4).tobytes()
    begin(device, 4, mode=RunMode.TIMING)

    def push(offset: int, end: int) -> tuple[int, ...]:
        credit = words(device.ask(MessageType.RUN_DATA, struct.pack("<I", offset) + stream[offset:end]).body)
        assert credit[1] == 4 * PIXELS
        return credit[0], *credit[3:]

    assert push(5, 9) == (0, 5, 9)
    assert push(0, 4) == (4, 5, 9)
    assert push(0, 4) == (4, 5, 9)
    assert push(3, 20) == (20,)
    assert push(30, 40) == (20, 30, 40)
    answer = device.ask(MessageType.RUN_DATA, struct.pack("<I", 47) + b"xy")
    assert answer.status == (Status.BAD_OFFSET, MessageType.RUN_DATA, 47, 48)
    assert push(20, 48) == (48,)
    body = next(device.events(MessageType.RESULT)).body
    expected = Evaluator(image).run(pixels_of(4))
    assert [body[6 + i * RECORD + 12 :][: 4 * CLASSES] for i in range(4)] == [row.tobytes() for row in expected]


def test_arguments_of_a_run(start_device: Start, image: bytes) -> None:
    device = start_device("--body", "64")
    device.hello()
    assert begin(device, 1).status == (Status.NO_MODEL, MessageType.RUN_BEGIN, 0, 0)
    assert device.ask(MessageType.RUN_DATA, bytes(8)).status[0] == Status.BAD_STATE
    assert device.ask(MessageType.RUN_ACK, bytes(5)).status[0] == Status.BAD_STATE
    assert device.ask(MessageType.READ_ACTIVATION, bytes(6)).status[0] == Status.BAD_STATE
    assert device.ask(MessageType.RUN_END).status[0] == Status.NO_MODEL
    device.upload(image, piece=60)
    for fields, offset in [
        ({"mode": 2}, 0),
        ({"outputs": 4}, 1),
        ({"stop": 3}, 2),
        ({"count": 0xFFFFFFFF // PIXELS + 1}, 4),
    ]:
        answer = begin(device, **{"count": 1, **fields})
        assert answer.status[:3] == (Status.BAD_ARGUMENT, MessageType.RUN_BEGIN, offset)
    assert begin(device, 0xFFFFFFFF // PIXELS).type == MessageType.RUN_READY
    assert begin(device, 0).body == struct.pack("<HHI", 4, RECORD, 0)
    assert device.ask(MessageType.RUN_END).body == bytes(4)
    assert device.ask(MessageType.RUN_END).body == bytes(4)


def test_a_record_must_fit_a_frame(start_device: Start, images: SimpleNamespace) -> None:
    device = start_device("--body", "64")
    device.hello()
    wide = images.build([images.dense((1, 1, 1), images.fp32([[1.0] * 12]))])
    device.upload(wide, piece=60)
    assert begin(device, 1, outputs=1).status == (Status.BAD_ARGUMENT, MessageType.RUN_BEGIN, 1, 60)
    assert begin(device, 1, outputs=2).type == MessageType.RUN_READY


@pytest.mark.parametrize("body", [64, 65, 4096])
def test_activations(start_device: Start, image: bytes, body: int) -> None:
    device = start_device("--body", str(body))
    device.hello()
    device.upload(image, piece=60)
    pixels = pixels_of(2)
    for layer in range(3):
        ready = begin(device, 2, outputs=3, stop=layer)
        record = 12 + 4 * (layer + 1)
        assert struct.unpack("<HHI", ready.body) == (1, record, PIXELS)
        assert device.ask(MessageType.READ_ACTIVATION, bytes(6)).status[0] == Status.BAD_STATE
        for i in range(2):
            piece = struct.pack("<I", i * PIXELS) + pixels[i].tobytes()
            device.ask(MessageType.RUN_DATA, piece)
            result = next(device.events(MessageType.RESULT)).body
            assert struct.unpack_from("<IB", result) == (i, 1)
            assert struct.unpack_from("<H", result, 6) == (0,)
            assert len(result) == 6 + record
            expected = Evaluator(image).activations(pixels[i], layer).tobytes()
            for ask in (1, 5, 16, 0xFFFF):
                got = b""
                while len(got) < len(expected):
                    answer = device.ask(MessageType.READ_ACTIVATION, struct.pack("<IH", len(got), ask)).body
                    assert words(answer[:8]) == (len(got), len(expected))
                    assert 1 <= len(answer) - 8 <= min(ask, body - 8)
                    got += answer[8:]
                assert got == expected
            answer = device.ask(MessageType.READ_ACTIVATION, struct.pack("<IH", len(expected) + 1, 1))
            assert answer.status[:3] == (Status.BAD_ARGUMENT, MessageType.READ_ACTIVATION, 0)
            device.ask(MessageType.RUN_ACK, struct.pack("<IB", i + 1, 0))
        assert device.ask(MessageType.READ_ACTIVATION, bytes(6)).status[0] == Status.BAD_STATE


def test_long_activations_come_in_pieces(start_device: Start, images: SimpleNamespace) -> None:
    rng = np.random.default_rng(11)
    wide = images.build([images.dense((4, 3, 1), images.fp32(rng.normal(size=(12, 75)).tolist()))])
    device = start_device("--body", "64")
    device.hello()
    device.upload(wide, piece=60)
    begin(device, 1, outputs=0, stop=0)
    device.ask(MessageType.RUN_DATA, bytes(4) + pixels_of(1).tobytes())
    next(device.events(MessageType.RESULT))  # the activation is valid from its result on
    got = b""
    while len(got) < 300:
        answer = device.ask(MessageType.READ_ACTIVATION, struct.pack("<IH", len(got), 0xFFFF)).body
        assert len(answer) == min(64, 8 + 300 - len(got))
        got += answer[8:]
    assert got == Evaluator(wide).activations(pixels_of(1), 0).tobytes()


def test_the_lowest_index_wins_a_tie(start_device: Start, images: SimpleNamespace) -> None:
    for row, label in [([1.0, 2.0, 2.0, 1.0], 1), ([-1.0, -1.0, -2.0, -1.0], 0), ([0.0, -0.0, 0.0, 3.0], 3)]:
        device = start_device()
        device.hello()
        device.upload(images.build([images.dense((1, 1, 1), images.fp32([row]))]))
        begin(device, 1, mode=RunMode.TIMING)
        device.ask(MessageType.RUN_DATA, bytes(4) + b"\xff")
        assert struct.unpack_from("<H", next(device.events(MessageType.RESULT)).body, 6) == (label,)


def test_hello_drops_a_run_and_keeps_the_image(start_device: Start, image: bytes) -> None:
    device = start_device()
    device.hello()
    device.upload(image)
    begin(device, 3)
    device.session += 1
    assert device.hello()[HelloTag.IMAGE_HASH] == hashlib.sha256(image).digest()
    assert device.ask(MessageType.RUN_DATA, bytes(8)).status == (Status.BAD_STATE, MessageType.RUN_DATA, 3, 0)
    assert len(run(device, pixels_of(3), mode=1)) == 3


def test_arena_peak_reaches_what_was_planned(start_device: Start, image: bytes) -> None:
    device = start_device()
    device.hello()
    assert stats(device)[StatsTag.ARENA_PEAK_BYTES] == 0
    arena = struct.unpack_from("<I", image, 28)[0]
    device.upload(image)
    assert len(image) - 4 < stats(device)[StatsTag.ARENA_PEAK_BYTES] <= len(image)
    run(device, pixels_of(4), mode=0)
    assert stats(device)[StatsTag.ARENA_PEAK_BYTES] == arena
    run(device, pixels_of(9), mode=1, outputs=0)
    assert stats(device)[StatsTag.ARENA_PEAK_BYTES] == arena


def test_a_host_that_does_not_read_stops_nothing(start_device: Start) -> None:
    """Requests of a whole window are sent before any answer is read; none is lost."""
    device = start_device("--window", "200000")
    device.hello()
    frames = [device.frame(MessageType.ECHO_REQUEST, bytes([i % 256]) * 4000) for i in range(40)]
    device.socket.sendall(b"".join(frames))
    echoes = list(islice(device.events(MessageType.ECHO), 40))
    assert [frame.body for frame in echoes] == [bytes([i % 256]) * 4000 for i in range(40)]


@pytest.mark.parametrize("bits", [8, 16, 24, 32])
def test_narrow_counters_are_extended(bits: int) -> None:
    core = library()
    core.bl_server_extend_ticks.restype = ctypes.c_uint64
    last, true = ctypes.c_uint64(0), 0
    rng = random.Random(bits)
    for step in [0, 1, (1 << bits) - 1, *(rng.randrange(1 << bits) for _ in range(200))]:
        true += step  # less than one turn of the counter between two looks at it
        now = ctypes.c_uint32(true & ((1 << bits) - 1))
        assert core.bl_server_extend_ticks(ctypes.byref(last), now, ctypes.c_uint(bits)) == true
    assert true > 1 << 32 or bits < 32


def test_the_process_ends_with_its_peer(start_device: Start) -> None:
    device = start_device()
    device.hello()
    assert device.close() == 0


def test_random_requests_do_no_harm(start_device: Start, image: bytes) -> None:
    """Any type with any body: always exactly one answer or, for answers sent to it, none; and it works afterwards."""
    device = start_device("--arena", "20000", "--body", "256")
    device.hello()
    rng = random.Random(6)
    kinds = [kind for kind in MessageType if kind < 0x80 and kind != MessageType.HELLO_REQUEST]
    for i in range(3000):
        if i % 50 == 0:
            device.upload(image, piece=200)
            begin(device, 10, mode=rng.randrange(2))
        kind = rng.choice(kinds)
        length = rng.choice((0, 4, 5, 6, 8, 20, 40, rng.randrange(257)))
        body = bytes(rng.choice((0, 0, 0, 1, 2, 12, 0xFF, rng.randrange(256))) for _ in range(length))
        answer = device.ask(kind, body)
        data_answers = (MessageType.UPLOAD_READY, MessageType.UPLOAD_ACK, MessageType.RUN_CREDIT)
        assert answer.type in (kind | 0x80, MessageType.ERROR, *data_answers)
        device.pending.clear()
    device.hello()
    device.upload(image, piece=200)
    device.pending.clear()
    results = run(device, pixels_of(5), mode=0)
    assert [rest for _, _, rest in results] == [row.tobytes() for row in Evaluator(image).run(pixels_of(5))]
