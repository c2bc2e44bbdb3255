"""Ranges, coded data and credit: docs/protocol.md line by line, on a board whose every step the test takes."""

from __future__ import annotations

import random
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from board import Board, Start, compile_board
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitloop import spec
from bitloop.native import Evaluator
from bitloop.spec import Coding, HelloTag, MessageType, RunMode, Status

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


@pytest.fixture(scope="module")
def image(images: SimpleNamespace) -> bytes:
    """4x3 pixels, 5 classes, 4 slots."""
    rng = np.random.default_rng(4)
    first = images.dense((4, 3, 1), images.integer(rng.integers(-8, 8, (12, 7)).tolist(), 4))
    last = images.dense((1, 1, 7), images.fp32(rng.normal(size=(7, CLASSES)).tolist()))
    return images.build([first, last], slots=SLOTS)


@pytest.fixture(scope="module")
def streamed(images: SimpleNamespace) -> SimpleNamespace:
    """The same with the first layer's weights streamed, two columns a chunk."""
    weights = images.integer(np.random.default_rng(4).integers(-8, 8, (12, 7)).tolist(), 8, chunk=2)
    last = images.dense((1, 1, 7), images.fp32(np.ones((7, CLASSES)).tolist()))
    return SimpleNamespace(
        image=images.build([images.dense((4, 3, 1), weights), last], slots=SLOTS), chunks=weights.chunks()
    )


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


# --- ranges -------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.integers(0, 99), st.integers(0, 60)), max_size=60), st.booleans())
def test_an_upload_in_any_order(start_board: Start, image: bytes, steps: list[tuple[int, int]], pixels: bool) -> None:
    """Whatever comes: what was told as held stays so and is there, and the rest can be sent."""
    board = start_board(body=64)
    assert board.fields[HelloTag.RANGES] == bytes([spec.MAX_RANGES])
    board.upload(image, piece=60) if pixels else board.offer(image)
    stream = pixels_of(SLOTS) if pixels else image
    total = len(stream)
    if pixels:
        begin(board, SLOTS, RunMode.TIMING)

    def send(first: int, end: int) -> tuple[int, ...]:
        if not pixels:
            return board.data(stream, first, end)
        words = run_data(board, stream, first, end)
        return words[0], *words[3:]

    held = set[int]()
    most = (64 - (12 if pixels else 8)) // 8
    for percent, count in steps:
        first = percent * total // 100
        answer = send(first, min(first + count, total))
        if answer[0] == total:
            break
        edges = (0, *answer)
        told = {byte for i in range(0, len(edges), 2) for byte in range(edges[i], edges[i + 1])}
        assert held <= told <= held | set(range(first, first + count))
        assert len(answer) <= 1 + 2 * most
        assert len(answer) == 1 + 2 * most or told == held | set(range(first, min(first + count, total)))
        held = told
        if not pixels:
            assert all(board.arena[byte] == image[byte] for byte in told)
    position = 0
    while position < total:
        position = send(position, min(position + 60, total))[0]
    if pixels:
        assert logits_of(board) == expected_logits(image, stream)
    else:
        assert board.ask(MessageType.UPLOAD_END).type == MessageType.UPLOAD_DONE


def test_ranges_outlive_a_session_and_are_told(start_board: Start, image: bytes) -> None:
    board = start_board()
    board.offer(image)
    assert board.data(image, 100, 150) == (0, 100, 150)
    board.session += 1
    board.hello()
    assert board.offer(image).words == (0, len(image), 100, 150)
    assert board.data(image, 0, 100) == (150,)
    other = image[:-1] + b"?"
    assert board.offer(other).words == (0, len(image))


def test_eight_gaps_are_one_too_many(start_board: Start, image: bytes) -> None:
    board = start_board(body=64)
    board.offer(image)
    for i in range(7):
        told = board.data(image, 10 * i + 5, 10 * i + 10)
        assert len(told) == 1 + 2 * (i + 1)
    assert board.data(image, 100, 110) == told
    assert board.data(image, 70, 71) == (*told[:-1], 71)  # touches the last one: no new range
    assert board.data(image, 0, 5) == (10, *told[3:-1], 71)
    assert board.data(image, 100, 110) == (10, *told[3:-1], 71, 100, 110)  # now there is room


def test_pixels_that_were_held_do_not_change(start_board: Start, image: bytes) -> None:
    """A late copy of a frame, damaged or of another image: positions before `next` are other images' by now."""
    board = start_board()
    board.upload(image)
    stream = pixels_of(SLOTS)
    begin(board, SLOTS, RunMode.TIMING)
    run_data(board, stream, 0, 20)
    run_data(board, stream, 30, 40)
    wrong = bytes(byte ^ 0xFF for byte in stream)
    assert run_data(board, wrong, 0, 20)[0] == 20
    assert run_data(board, wrong, 30, 40)[0] == 20
    assert run_data(board, wrong, 10, 20)[0] == 20
    run_data(board, stream, 20, 48)
    assert logits_of(board) == expected_logits(image, stream)


def test_bytes_beyond_the_credit_touch_nothing(start_board: Start, image: bytes) -> None:
    board = start_board()
    board.upload(image)
    stream = pixels_of(3 * SLOTS)
    begin(board, 3 * SLOTS, RunMode.TIMING)
    before = board.arena
    limit = SLOTS * PIXELS
    assert run_data(board, stream, limit, len(stream)) == (0, limit, 0)
    assert board.arena == before
    assert run_data(board, stream, limit - 5, len(stream)) == (0, limit, 0, limit - 5, limit)  # its beginning is taken
    assert run_data(board, stream, 0, limit)[:2] == (limit, limit)
    assert logits_of(board) == expected_logits(image, stream)[:SLOTS]


# --- coded data ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("coding", [RUNS, CODES, RUNS | CODES])
@pytest.mark.parametrize("size", [1, 7, 12, 31])
def test_coded_pixels_in_any_order(start_board: Start, image: bytes, coding: int, size: int) -> None:
    """Pieces cross the slots, come backwards, and twice."""
    board = start_board(body=64)
    board.upload(image)
    table = TABLE
    if coding == RUNS | CODES:  # tokens have other bytes: each of them gets 8 bits, its own in reverse
        table = b"\x88" * 128
    assert board.code_table(spec.CodeTable.PIXELS, table).body == struct.pack("<BBH", 1, 0, 128)
    stream = pixels_of(SLOTS)
    begin(board, SLOTS, RunMode.TIMING)
    offsets = list(range(0, len(stream), size))
    random.Random(size).shuffle(offsets)
    while offsets:
        offset = offsets.pop(0)
        piece = stream[offset : offset + size]
        data = piece if coding == CODES else tokens(piece)
        if coding == CODES:
            data = pack(piece)
        elif coding & CODES:
            data = bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)
        for _ in range(2):
            answer = board.ask(MessageType.RUN_CODED, coded(offset, len(piece), coding, data))
            assert answer.type == MessageType.RUN_CREDIT, answer
        words = answer.words
        edges = (0, words[0], *words[3:])
        if not any(edges[i] <= offset and offset + len(piece) <= edges[i + 1] for i in range(0, len(edges), 2)):
            offsets.append(offset)  # no range was left for it
    assert logits_of(board) == expected_logits(image, stream)


def test_an_element_may_begin_before_and_end_behind(start_board: Start, image: bytes) -> None:
    board = start_board()
    board.upload(image)
    stream = bytes(2 * SLOTS * PIXELS)
    begin(board, 2 * SLOTS, RunMode.TIMING)
    arena = board.arena
    run_data(board, stream, 0, 20)
    answer = board.ask(MessageType.RUN_CODED, coded(10, 86, RUNS, bytes([127 + 86])))  # to the stream's end
    assert answer.words[:2] == (48, 48)
    assert len(board.arena) == len(arena)
    assert logits_of(board) == expected_logits(image, stream)[:SLOTS]


@pytest.mark.parametrize("coding", [RUNS, CODES, RUNS | CODES])
def test_a_coded_upload(start_board: Start, image: bytes, coding: int) -> None:
    board = start_board()
    board.offer(image)
    board.code_table(spec.CodeTable.WEIGHTS, b"\x88" * 128)
    for offset in range(0, len(image), 100):
        piece = image[offset : offset + 100]
        data = tokens(piece) if coding & RUNS else piece
        if coding & CODES:
            data = bytes(int(f"{byte:08b}"[::-1], 2) for byte in data)
        answer = board.ask(MessageType.UPLOAD_CODED, coded(offset, len(piece), coding, data))
        assert answer.words == (offset + len(piece), len(image))
    assert board.ask(MessageType.UPLOAD_END).type == MessageType.UPLOAD_DONE
    last = board.ask(MessageType.UPLOAD_CODED, coded(0, 100, RUNS, bytes([127 + 100])))  # late, and of other bytes
    assert last.words == (len(image), len(image))
    assert board.arena[: len(image)] == image


def test_a_frame_that_cannot_be_decoded_spoils_nothing(start_board: Start, image: bytes) -> None:
    board = start_board()
    board.offer(image)
    board.data(image, 0, 50)
    board.data(image, 80, 90)
    wrong = bytes([119]) + bytes(range(1, 121))  # 120 literals: too few bytes for the count
    answer = board.ask(MessageType.UPLOAD_CODED, coded(0, 121, RUNS, wrong))
    assert answer.error == (Status.BAD_CODING, RUNS, 120)
    assert board.data(image, 0, 0) == (50, 80, 90)
    assert board.arena[:50] == image[:50]
    assert board.arena[80:90] == image[80:90]
    board.data(image, 50, len(image) - 100)
    board.data(image, len(image) - 100, len(image))
    assert board.ask(MessageType.UPLOAD_END).type == MessageType.UPLOAD_DONE


CODED = (MessageType.UPLOAD_CODED, MessageType.RUN_CODED, MessageType.STREAM_CODED)


@pytest.mark.parametrize("kind", CODED)
def test_refused_coded_frames(start_board: Start, streamed: SimpleNamespace, kind: MessageType) -> None:
    board = start_board()
    head, at = (bytes(4), 8) if kind == MessageType.STREAM_CODED else (b"", 4)

    def error(*fields: int, data: bytes = b"") -> tuple[Status, int, int]:
        return board.ask(kind, head + coded(*fields, data)).error

    board.offer(streamed.image)
    if kind != MessageType.UPLOAD_CODED:
        board.upload(streamed.image)
        assert error(0, 1, RUNS, data=b"\x80") == (Status.BAD_STATE, 3, 0)
        begin(board, 1, RunMode.TIMING)
    total = {
        MessageType.UPLOAD_CODED: len(streamed.image),
        MessageType.RUN_CODED: PIXELS,
        MessageType.STREAM_CODED: sum(map(len, streamed.chunks)),
    }[kind]
    for length in range(at + 3):
        assert board.ask(kind, bytes(length)).error == (Status.BAD_BODY, length, at + 3)
    table = 1 if kind == MessageType.RUN_CODED else 0
    assert error(0, 0, RUNS) == (Status.BAD_ARGUMENT, at, 0)
    assert error(0, 1, 0, data=b"a") == (Status.BAD_CODING, 0, 0)
    assert error(0, 1, 4, data=b"a") == (Status.BAD_CODING, 4, 0)
    assert error(total, 1, RUNS, data=b"\x80") == (Status.BAD_OFFSET, total, total)
    assert error(total - 1, 2, RUNS, data=b"\x81") == (Status.BAD_OFFSET, total - 1, total)
    assert error(0xFFFFFFFF, 2, RUNS, data=b"\x81") == (Status.BAD_OFFSET, 0xFFFFFFFF, total)
    assert error(0, 1, CODES, data=b"\0") == (Status.BAD_CODE_TABLE, table, 0)
    board.code_table(1 - table, TABLE)  # the other one
    assert error(0, 1, RUNS | CODES, data=b"\0") == (Status.BAD_CODE_TABLE, table, 0)
    board.code_table(table, TABLE)
    assert error(0, 1, CODES, data=b"\0\0") == (Status.BAD_CODING, CODES, 1)
    assert error(0, 9, CODES, data=b"\0") == (Status.BAD_CODING, CODES, 8)
    assert error(0, 2, RUNS | CODES, data=pack(b"\xff")) == (Status.BAD_CODING, RUNS | CODES, 0)
    board.session += 1
    board.hello()
    board.offer(streamed.image)
    if kind != MessageType.UPLOAD_CODED:
        begin(board, 1, RunMode.TIMING)
    assert error(0, 1, CODES, data=b"\0") == (Status.BAD_CODE_TABLE, table, 0)  # forgotten


def test_tables_of_codes(start_board: Start) -> None:
    board = start_board(body=64)

    def ask(table: int, offset: int, piece: bytes, zero: int = 0) -> object:
        answer = board.ask(MessageType.CODE_TABLE, struct.pack("<BBH", table, zero, offset) + piece)
        if answer.type == MessageType.ERROR:
            return answer.error
        assert answer.type == MessageType.CODE_READY
        assert answer.body[:2] == bytes([table, 0])
        return struct.unpack_from("<H", answer.body, 2)[0]

    for length in range(4):
        assert board.ask(MessageType.CODE_TABLE, bytes(length)).error == (Status.BAD_BODY, length, 4)
    assert ask(2, 0, b"") == (Status.BAD_ARGUMENT, 0, 0)
    assert ask(0, 0, b"", zero=1) == (Status.BAD_ARGUMENT, 1, 0)
    assert ask(0, 129, b"") == (Status.BAD_OFFSET, 129, 128)
    assert ask(0, 120, bytes(9)) == (Status.BAD_OFFSET, 120, 128)
    assert ask(0, 60, TABLE[60:120]) == 0  # not the next one
    assert ask(0, 0, TABLE[:60]) == 60
    assert ask(0, 0, TABLE[:60]) == 60  # again
    assert ask(1, 0, TABLE[:10]) == 10  # the tables do not disturb each other
    assert ask(0, 60, TABLE[60:120]) == 120
    assert ask(0, 0, TABLE[:60]) == 120  # a late copy
    assert ask(0, 120, TABLE[120:]) == 128
    assert ask(0, 0, TABLE[:60]) == 128  # and another: the table stays
    assert ask(0, 60, TABLE[60:120]) == 128
    assert ask(0, 60, bytes(60)) == 128  # not what was sent, not the beginning: nothing
    assert ask(0, 0, b"\x11" + bytes(59)) == 60  # a new table begins
    assert ask(0, 60, bytes(60)) == 120
    assert ask(0, 120, bytes(8)) == 128
    for wrong in (bytes(128), b"\x11\x01" + bytes(126), b"\x02" + bytes(127), b"\xff" * 128):
        assert ask(1, 0, wrong[:60]) == 60
        assert ask(1, 60, wrong[60:120]) == 120
        assert ask(1, 120, wrong[120:]) == (Status.BAD_CODE_TABLE, 1, 0)
        assert ask(1, 120, wrong[120:]) == 0


def test_a_board_without_tables(start_board: Start, image: bytes) -> None:
    board = start_board(codes=False)
    assert board.fields[HelloTag.CODINGS] == bytes([RUNS])
    answer = board.ask(MessageType.CODE_TABLE, bytes(4))
    assert answer.error == (Status.BAD_TYPE, MessageType.CODE_TABLE, 0)
    board.offer(image)
    answer = board.ask(MessageType.UPLOAD_CODED, coded(0, 1, CODES, b"\0"))
    assert answer.error == (Status.BAD_CODE_TABLE, 0, 0)
    assert board.ask(MessageType.UPLOAD_CODED, coded(0, 1, RUNS, b"\0" + image[:1])).words[0] == 1


# --- streamed weights ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["plain", "runs", "codes"])
def test_weights_in_any_order(start_board: Start, streamed: SimpleNamespace, way: str) -> None:
    """Each chunk comes from its end, in pieces of five; pieces of the next chunk and of other passes are ignored."""
    board = start_board(body=64)
    board.upload(streamed.image)
    board.code_table(spec.CodeTable.WEIGHTS, b"\x88" * 128)
    weights = b"".join(streamed.chunks)
    stream = pixels_of(SLOTS)
    begin(board, SLOTS, RunMode.TIMING)
    assert run_data(board, stream, 0, SLOTS * PIXELS)[:2] == (SLOTS * PIXELS, SLOTS * PIXELS)
    first = 0

    def send(number: int, offset: int, piece: bytes) -> tuple[int, ...]:
        head = struct.pack("<I", number)
        if way == "plain":
            answer = board.ask(MessageType.STREAM_DATA, head + struct.pack("<I", offset) + piece)
        else:
            data = tokens(piece) if way == "runs" else bytes(int(f"{byte:08b}"[::-1], 2) for byte in piece)
            coding = RUNS if way == "runs" else CODES
            answer = board.ask(MessageType.STREAM_CODED, head + coded(offset, len(piece), coding, data))
        assert answer.type == MessageType.RUN_CREDIT, answer
        return answer.words[3:]

    for chunk in streamed.chunks:
        credit = [event for event in board.events if event.type == MessageType.RUN_CREDIT][-1].words
        assert credit[3:] == (0, first, first + len(chunk))
        assert send(1, first, weights[first : first + 5])[1] == first
        offsets = list(range(first, first + len(chunk), 5))[::-1]
        end = first + len(chunk)
        for offset in offsets[:-1]:
            told = send(0, offset, weights[offset : min(offset + 5, len(weights))])
            assert told == (0, first, end, offset, end)
        told = send(0, first, weights[first : first + 5])
        assert told[:2] == (0, end)
        first = end
    logits = logits_of(board)
    pixels = np.frombuffer(stream, np.uint8).reshape(SLOTS, PIXELS)
    columns = np.concatenate([np.frombuffer(chunk, np.int8).reshape(PIXELS, -1) for chunk in streamed.chunks], axis=1)
    for row, record in zip(pixels, logits, strict=True):
        want = np.float64(row) / 255 @ columns.astype(np.float64)
        np.testing.assert_allclose(np.frombuffer(record, "<f4"), np.full(CLASSES, want.sum()), rtol=1e-5, atol=1e-5)


def test_a_chunk_is_checked_when_its_last_gap_closes(start_board: Start, streamed: SimpleNamespace) -> None:
    board = start_board()
    board.upload(streamed.image)
    begin(board, 1, RunMode.TIMING)
    run_data(board, pixels_of(1), 0, PIXELS)
    weights = b"".join(streamed.chunks)
    end = len(streamed.chunks[0])
    for first in range(0, len(weights), end):
        last = min(first + end, len(weights))
        piece = bytearray(weights[first + 5 : last])
        if last == len(weights):
            piece[-1] ^= 1
        board.ask(MessageType.STREAM_DATA, struct.pack("<II", 0, first + 5) + piece)
        answer = board.ask(MessageType.STREAM_DATA, struct.pack("<II", 0, first) + weights[first : first + 5])
    assert answer.error == (Status.BAD_CRC, 0, 0)
    assert zlib.crc32(weights) != 0
    answer = board.ask(MessageType.RUN_DATA, bytes(5))
    assert answer.error == (Status.BAD_STATE, 3, 0)


# --- credit -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("slots", [1, 2, 3, 4, 5])
def test_throughput_frees_pixels_when_they_are_computed(
    start_board: Start, images: SimpleNamespace, slots: int
) -> None:
    """Limit and results after each image; a slot's result waits for its acknowledgement, its pixels do not."""
    weights = images.fp32(np.random.default_rng(4).normal(size=(12, CLASSES)).tolist())
    image = images.build([images.dense((4, 3, 1), weights)], slots=slots)
    board = start_board()
    board.upload(image)
    count = 4 * slots + 1
    stream = pixels_of(count)
    assert begin(board, count) == (slots, 12 + 4 * CLASSES, slots * PIXELS)
    half = -(-slots // 2)
    told = limit = slots
    for sent in range(1, slots + 1):  # images are sent one by one; none is acknowledged
        board.events.clear()
        words = run_data(board, stream, (sent - 1) * PIXELS, sent * PIXELS)
        assert words[1] == limit * PIXELS  # answered before it is computed
        told, limit = limit, sent + slots
        granted = [event.words for event in board.events if event.type == MessageType.RUN_CREDIT]
        if limit - told >= half:
            assert granted == [(sent * PIXELS, limit * PIXELS, sent)]
        else:
            assert granted == []
    # All slots hold results: the next images arrive, but are not computed.
    board.events.clear()
    words = run_data(board, stream, slots * PIXELS, 2 * slots * PIXELS)
    assert words == (2 * slots * PIXELS, 2 * slots * PIXELS, slots)
    assert run_data(board, stream, 0, 0) == words
    assert not [event for event in board.events if event.type == MessageType.RESULT]
    # Each acknowledgement lets as many be computed as it frees.
    answer = board.ask(MessageType.RUN_ACK, struct.pack("<IB", 1, 0))
    assert answer.words == words
    assert run_data(board, stream, 0, 0)[:3] == (2 * slots * PIXELS, (2 * slots + 1) * PIXELS, slots + 1)


def test_throughput_ends_with_all_images(start_board: Start, image: bytes) -> None:
    board = start_board(body=64)
    board.upload(image)
    count = 23
    stream = pixels_of(count)
    limit = begin(board, count)[2]
    position = acknowledged = 0
    while acknowledged < count:
        if position < limit:
            position = run_data(board, stream, position, min(limit, position + 50))[0]
        limit = max([limit, *(event.words[1] for event in board.events if event.type == MessageType.RUN_CREDIT)])
        done = len(logits_of(board))
        if done > acknowledged:
            acknowledged = done
            limit = board.ask(MessageType.RUN_ACK, struct.pack("<IB", done, 0)).words[1]
        assert limit <= count * PIXELS
    assert logits_of(board) == expected_logits(image, stream)
    assert board.ask(MessageType.RUN_END).body == struct.pack("<I", count)


def test_credit_is_told_when_it_grew_by_half_of_the_slots(start_board: Start, image: bytes) -> None:
    """Four slots, filled at once: one event for each two images, between them the results."""
    board = start_board()
    board.upload(image)
    stream = pixels_of(40)
    begin(board, 40)
    board.events.clear()
    run_data(board, stream, 0, 4 * PIXELS)
    found = [event.words for event in board.events if event.type == MessageType.RUN_CREDIT]
    assert found == [(48, 6 * PIXELS, 2), (48, 8 * PIXELS, 4)]


def test_timing_mode_grants_nothing_while_it_computes(start_board: Start, image: bytes) -> None:
    board = start_board()
    board.upload(image)
    stream = pixels_of(8)
    begin(board, 8, RunMode.TIMING)
    run_data(board, stream, 0, 4 * PIXELS)
    assert [event.type for event in board.events] == [MessageType.RESULT]
    assert run_data(board, stream, 0, 0) == (48, 48, 4)
    assert board.ask(MessageType.RUN_ACK, struct.pack("<IB", 4, 0)).words == (48, 96, 4)


# --- lengths of what is sent --------------------------------------------------------------------------------------


def test_nothing_longer_than_the_send_body_is_sent(start_board: Start, images: SimpleNamespace) -> None:
    """A board that receives 300 bytes and sends 64: the send buffer has canaries of its own."""
    weights = images.fp32(np.random.default_rng(4).normal(size=(12, CLASSES)).tolist())
    image = images.build([images.dense((4, 3, 1), weights)], slots=SLOTS)
    board = start_board(body=300, send_body=64)
    assert board.fields[HelloTag.SEND_BODY_BYTES] == struct.pack("<H", 64)
    assert board.fields[HelloTag.BODY_BYTES] == struct.pack("<H", 300)
    assert board.ask(MessageType.ECHO_REQUEST, bytes(64)).body == bytes(64)
    for length in (65, 300):
        assert board.ask(MessageType.ECHO_REQUEST, bytes(length)).error == (Status.BAD_BODY, length, 64)
    board.upload(image, piece=296)
    assert len(board.ask(MessageType.STATS_REQUEST).body) <= 64
    stream = pixels_of(SLOTS)
    begin(board, SLOTS, RunMode.TIMING)
    run_data(board, stream, 0, SLOTS * PIXELS)
    assert logits_of(board) == expected_logits(image, stream)
    assert all(len(event.body) <= 64 for event in board.events)
    answer = board.ask(MessageType.RUN_BEGIN, struct.pack("<BBHI", 0, 0, 0, 1))
    assert answer.type == MessageType.RUN_READY
    run_data(board, stream, 0, PIXELS)
    answer = board.ask(MessageType.READ_ACTIVATION, struct.pack("<IH", 0, 300))
    assert len(answer.body) == 8 + 4 * CLASSES
    wide = images.build([images.dense((4, 3, 1), images.fp32(np.ones((12, 12)).tolist()))], slots=1)
    board.upload(wide, piece=296)
    answer = board.ask(MessageType.RUN_BEGIN, struct.pack("<BBHI", 0, 1, spec.NO_LAYER, 1))
    assert answer.error == (Status.BAD_ARGUMENT, 1, 60)


def test_fewer_ranges_by_flag(start_board: Start, image: bytes, tmp_path: Path) -> None:
    board = start_board(compile_board(tmp_path, "-DBL_RANGES=4"))
    assert board.fields[HelloTag.RANGES] == b"\4"
    board.offer(image)
    for i in range(6):
        told = board.data(image, 10 * i + 5, 10 * i + 10)
        assert len(told) == 1 + 2 * min(i + 1, 4)
    board.data(image, 0, len(image) // 2)
    board.data(image, len(image) // 2, len(image))
    assert board.ask(MessageType.UPLOAD_END).type == MessageType.UPLOAD_DONE
