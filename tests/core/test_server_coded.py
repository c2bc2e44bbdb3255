"""Coded data (docs/protocol.md): an upload, pixels and streamed weights, on a board whose every step a test takes."""

from __future__ import annotations

import random
import struct
import zlib
from types import SimpleNamespace

import numpy as np
import pytest
from board import Start
from board_runs import (
    CLASSES,
    CODES,
    PIXELS,
    RUNS,
    SLOTS,
    TABLE,
    begin,
    coded,
    expected_logits,
    logits_of,
    pack,
    pixels_of,
    run_data,
    small_image,
    tokens,
)

from bitloop import spec
from bitloop.spec import HelloTag, MessageType, RunMode, Status


@pytest.fixture(scope="module")
def image(images: SimpleNamespace) -> bytes:
    return small_image(images)


@pytest.fixture(scope="module")
def streamed(images: SimpleNamespace) -> SimpleNamespace:
    """The same with the first layer's weights streamed, two columns a chunk."""
    weights = images.integer(np.random.default_rng(4).integers(-8, 8, (12, 7)).tolist(), 8, chunk=2)
    last = images.dense((1, 1, 7), images.fp32(np.ones((7, CLASSES)).tolist()))
    return SimpleNamespace(
        image=images.build([images.dense((4, 3, 1), weights), last], slots=SLOTS), chunks=weights.chunks()
    )


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
    every = b"\x88" * 128  # all symbols: nothing is left of the lengths as they came
    for offset in range(0, 128, 60):
        assert ask(1, offset, every[offset : offset + 60]) == min(offset + 60, 128)
    for offset in range(0, 128, 60):
        assert ask(1, offset, every[offset : offset + 60]) == 128
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
