"""What tests of runs on the tests' own board share: a small image, pixels, codes for them, and requests."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import numpy as np
from board import Board

from bitloop import spec
from bitloop.native import Evaluator
from bitloop.spec import Coding, MessageType, RunMode

PIXELS = 12
SLOTS = 4
CLASSES = 5
RUNS, CODES = int(Coding.RUNS), int(Coding.CODES)

# Bytes 0 to 3 and 255 have codes: 0, 10, 110, 1110, 1111.
LENGTHS = {0: 1, 1: 2, 2: 3, 3: 4, 255: 4}
BITS = {0: "0", 1: "10", 2: "110", 3: "1110", 255: "1111"}
TABLE = bytes(LENGTHS.get(2 * i, 0) | LENGTHS.get(2 * i + 1, 0) << 4 for i in range(128))


def pack(data: bytes) -> bytes:
    bits = "".join(BITS[byte] for byte in data)
    return bytes(int(bits[i : i + 8][::-1], 2) for i in range(0, len(bits), 8))


def tokens(data: bytes) -> bytes:
    """Runs of zeros as they come, literals one by one."""
    out = bytearray()
    for byte in data:
        if byte == 0 and out and 128 <= out[-1] < 255 and (len(out) < 2 or out[-2] != 0):
            out[-1] += 1
        elif byte == 0:
            out.append(128)
        else:
            out += bytes([0, byte])
    return bytes(out)


def pixels_of(count: int) -> bytes:
    values = np.random.default_rng(count).choice([0, 0, 0, 0, 1, 2, 3, 255], count * PIXELS)
    return bytes(values.astype(np.uint8).tobytes())


def begin(board: Board, count: int, mode: RunMode = RunMode.THROUGHPUT) -> tuple[int, int, int]:
    answer = board.ask(MessageType.RUN_BEGIN, struct.pack("<BBHI", mode, 1, spec.NO_LAYER, count))
    slots, record, limit = struct.unpack("<HHI", answer.body)
    return slots, record, limit


def run_data(board: Board, stream: bytes, first: int, end: int) -> tuple[int, ...]:
    answer = board.ask(MessageType.RUN_DATA, struct.pack("<I", first) + stream[first:end])
    assert answer.type == MessageType.RUN_CREDIT, answer
    return answer.words


def coded(offset: int, count: int, coding: int, data: bytes) -> bytes:
    return struct.pack("<IHB", offset, count, coding) + data


def logits_of(board: Board) -> list[bytes]:
    """Of all results so far, in order; each must be there."""
    found: list[bytes] = []
    for event in board.events:
        if event.type == MessageType.RESULT:
            first, count = struct.unpack_from("<IB", event.body)
            assert first == len(found)
            size = 12 + 4 * CLASSES
            found += [event.body[6 + i * size + 12 :][: 4 * CLASSES] for i in range(count)]
    return found


def expected_logits(image: bytes, stream: bytes) -> list[bytes]:
    pixels = np.frombuffer(stream, np.uint8).reshape(-1, 4, 3, 1)
    return [row.tobytes() for row in Evaluator(image).run(pixels)]


def small_image(images: SimpleNamespace) -> bytes:
    """4x3 pixels, 5 classes, 4 slots."""
    rng = np.random.default_rng(4)
    first = images.dense((4, 3, 1), images.integer(rng.integers(-8, 8, (12, 7)).tolist(), 4))
    last = images.dense((1, 1, 7), images.fp32(rng.normal(size=(7, CLASSES)).tolist()))
    return bytes(images.build([first, last], slots=SLOTS))
