"""Ranges, credit, and lengths of what is sent (docs/protocol.md), on a board whose every step a test takes."""

from __future__ import annotations

import random
import struct
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from board import Start, compile_board
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
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitloop import spec
from bitloop.spec import HelloTag, MessageType, RunMode, Status


@pytest.fixture(scope="module")
def image(images: SimpleNamespace) -> bytes:
    return small_image(images)


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


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32), st.sampled_from(RunMode))
def test_a_run_whose_requests_are_lost_repeated_and_late(
    start_board: Start, image: bytes, seed: int, mode: RunMode
) -> None:
    """Any request may come at any time, plain or coded; late ones belong to images long gone. The results are right."""
    rng = random.Random(seed)
    board = start_board(body=80)
    board.upload(image, piece=76)
    board.code_table(spec.CodeTable.PIXELS, TABLE)
    count = 13
    stream = pixels_of(count)
    limit = begin(board, count, mode)[2]
    sent: list[bytes] = []
    results: dict[int, bytes] = {}
    position = acknowledged = turns = 0
    size = 12 + 4 * CLASSES
    while acknowledged < count:
        turns += 1
        assert turns < 20000
        offset = rng.choice((position, position, rng.randrange(len(stream))))
        piece = stream[offset : min(offset + rng.randint(0, 60), len(stream))]
        if rng.random() < 0.5 or not piece:
            frame = board.frame(MessageType.RUN_DATA, struct.pack("<I", offset) + piece)
        else:
            coding = rng.choice((RUNS, CODES))
            packed = tokens(piece) if coding == RUNS else pack(piece)
            if len(packed) > 73:
                continue
            frame = board.frame(MessageType.RUN_CODED, coded(offset, len(piece), coding, packed))
        sent.append(frame)
        if rng.random() < 0.3:
            sent.append(board.frame(MessageType.RUN_ACK, struct.pack("<IB", acknowledged, rng.randrange(2))))
        for data in rng.sample(sent[-6:], min(len(sent), 2)) + sent[-1:] * (rng.random() < 0.8):
            for answer in board.put(data):
                if answer.type == MessageType.RUN_CREDIT:
                    assert answer.words[0] >= position  # it never moves back, nor does the limit
                    assert answer.words[1] >= limit
                    position, limit = answer.words[:2]
                else:
                    assert answer.type == MessageType.RESULT, answer
                    first, number = struct.unpack_from("<IB", answer.body)
                    for i in range(number):
                        record = answer.body[6 + i * size :][:size]
                        assert results.setdefault(first + i, record) == record
        while acknowledged in results:
            acknowledged += 1
    assert [results[i][12:] for i in range(count)] == expected_logits(image, stream)


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
    assert len(board.ask(MessageType.STATS_REQUEST).body) == 60  # ten fields of six bytes; the others are left out
    stream = pixels_of(SLOTS)
    begin(board, SLOTS, RunMode.TIMING)
    run_data(board, stream, 0, SLOTS * PIXELS)
    assert logits_of(board) == expected_logits(image, stream)
    assert all(len(event.body) <= 64 for event in board.events)
    wide = images.build([images.dense((4, 3, 1), images.fp32(np.ones((12, 20)).tolist()))], slots=1)
    board.upload(wide, piece=296)
    answer = board.ask(MessageType.RUN_BEGIN, struct.pack("<BBHI", 0, 1, spec.NO_LAYER, 1))
    assert answer.error == (Status.BAD_ARGUMENT, 1, 12 + 4 * 20)  # a record that no frame holds
    assert board.ask(MessageType.RUN_BEGIN, struct.pack("<BBHI", 0, 0, 0, 1)).type == MessageType.RUN_READY
    run_data(board, stream, 0, PIXELS)
    answer = board.ask(MessageType.READ_ACTIVATION, struct.pack("<IH", 0, 300))
    assert (len(answer.body), answer.words[:2]) == (64, (0, 80))


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
