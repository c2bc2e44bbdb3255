"""The line's rate (docs/protocol.md, "Rate"), with a clock that the test moves."""

from __future__ import annotations

import struct
from types import SimpleNamespace

import numpy as np
import pytest
from board import Board, Start

from bitloop import spec
from bitloop.spec import HelloTag, MessageType, RunMode, Status

BOOT, FAST, MOST = 125000, 500000, 1000000
TRIAL, NOISE, SILENCE = spec.BAUD_TRIAL_MS, spec.BAUD_NOISE_MS, spec.BAUD_SILENCE_MS
JUNK = b"\x55\xaa\x55"


def test_the_times_are_those_of_the_page() -> None:
    assert (TRIAL, NOISE, SILENCE) == (1000, 2000, 10000)


@pytest.fixture
def board(start_board: Start) -> Board:
    return start_board(boot_baud=BOOT, max_baud=MOST)


def request(board: Board, baud: int) -> int:
    """Ask for a rate, and follow; gives the rate the device says it has."""
    answer = board.ask(MessageType.BAUD_REQUEST, struct.pack("<I", baud))
    assert answer.type == MessageType.BAUD_READY, answer
    board.baud = board.device_baud
    return answer.words[0]


def commit(board: Board, baud: int) -> None:
    answer = board.ask(MessageType.BAUD_COMMIT, struct.pack("<I", baud))
    assert (answer.type, answer.words) == (MessageType.BAUD_DONE, (baud,))


def climb(board: Board, baud: int = FAST) -> None:
    request(board, baud)
    assert board.ask(MessageType.ECHO_REQUEST, b"echo").body == b"echo"
    commit(board, baud)


def test_a_climb(board: Board) -> None:
    assert board.fields[HelloTag.BAUD] == struct.pack("<II", BOOT, MOST)
    assert request(board, FAST) == FAST
    assert board.device_baud == FAST
    assert board.ask(MessageType.ECHO_REQUEST, bytes(range(256))).body == bytes(range(256))
    commit(board, FAST)
    commit(board, FAST)  # again
    board.hello()
    assert board.fields[HelloTag.BAUD] == struct.pack("<II", FAST, MOST)
    climb(board, MOST)
    climb(board, BOOT)
    board.wait(60000)
    assert board.device_baud == BOOT


@pytest.mark.parametrize("body", [64, 65, 90, 300])
def test_hello_with_all_fields_in_short_frames(start_board: Start, images: SimpleNamespace, body: int) -> None:
    board = start_board(body=512, send_body=body, boot_baud=BOOT, max_baud=MOST)
    board.upload(images.build([images.dense((1, 1, 1), images.fp32([[1.0]]))]))
    board.hello()
    assert set(board.fields) == set(HelloTag) - {HelloTag.FIRMWARE_HASH}  # the board has no hash
    assert board.fields[HelloTag.SEND_BODY_BYTES] == struct.pack("<H", body)


def test_the_rate_that_is_made_is_told(board: Board) -> None:
    # 1 MHz by a whole number: 115200 / 9 is 111111 (3.5 % off), 256000 / 4 is 250000 (2.3 %), 255000 is 1.96 % off.
    for baud in (0, 115200, 256000, MOST + 1, 0xFFFFFFFF):
        answer = board.ask(MessageType.BAUD_REQUEST, struct.pack("<I", baud))
        assert answer.error == (Status.BAD_ARGUMENT, 0, 0)
        assert board.device_baud == BOOT
    assert request(board, 255000) == 250000
    commit(board, 255000)  # the rate asked for
    board.hello()
    assert board.fields[HelloTag.BAUD] == struct.pack("<II", 250000, MOST)


def test_refusals(board: Board, start_board: Start) -> None:
    for length in (0, 3, 5):
        for kind in (MessageType.BAUD_REQUEST, MessageType.BAUD_COMMIT):
            assert board.ask(kind, bytes(length)).error == (Status.BAD_BODY, length, 4)
    assert board.ask(MessageType.BAUD_COMMIT, struct.pack("<I", FAST)).error[0] == Status.BAD_STATE
    fixed = start_board()
    assert HelloTag.BAUD not in fixed.fields
    for kind in (MessageType.BAUD_REQUEST, MessageType.BAUD_COMMIT):
        assert fixed.ask(kind, struct.pack("<I", FAST)).error == (Status.BAD_TYPE, kind, 0)


@pytest.mark.parametrize("start", [0, 0xFFFFFFFF - 500])
@pytest.mark.parametrize("every", [1, 90, 100, 250])
def test_a_trial_that_nobody_commits(board: Board, start: int, every: int) -> None:
    """Before the commit it takes a second since the last good frame; also where the clock turns over."""
    board.clock_ms = start
    request(board, FAST)
    board.wait(TRIAL - every, every=every)
    assert board.device_baud == FAST
    board.ask(MessageType.ECHO_REQUEST)  # a good frame: a second more
    board.wait(TRIAL - every, every=every)
    assert board.device_baud == FAST
    board.wait(every, every=every)
    assert board.device_baud == BOOT
    assert board.baud == FAST
    board.baud = BOOT
    assert board.ask(MessageType.ECHO_REQUEST, b"back").body == b"back"
    assert board.ask(MessageType.BAUD_COMMIT, struct.pack("<I", FAST)).error[0] == Status.BAD_STATE
    climb(board)


def test_noise_is_no_frame(board: Board) -> None:
    request(board, FAST)
    board.wait(TRIAL - 100, noise=JUNK + b"\0")
    assert board.device_baud == FAST
    board.wait(100, noise=JUNK + b"\0")
    assert board.device_baud == BOOT


def test_a_committed_rate_outlives_silence_for_ten_seconds(board: Board) -> None:
    climb(board)
    board.wait(SILENCE - 100)
    assert board.device_baud == FAST
    board.ask(MessageType.ECHO_REQUEST)
    board.wait(SILENCE - 100)
    assert board.device_baud == FAST
    board.wait(100)
    assert board.device_baud == BOOT


def test_noise_for_two_seconds(board: Board) -> None:
    """Counted from the first byte of it, not from the last frame: a frame after a long silence is no noise."""
    climb(board)
    board.wait(SILENCE - 5000)
    frame = board.frame(MessageType.ECHO_REQUEST, b"late")
    assert board.put(frame[:5]) == []
    board.wait(NOISE - 100)
    assert board.device_baud == FAST
    assert [answer.body for answer in board.put(frame[5:])] == [b"late"]
    board.put(JUNK)
    board.wait(NOISE - 100, noise=JUNK)
    assert board.device_baud == FAST
    board.wait(100)
    assert board.device_baud == BOOT


def test_a_host_at_the_boot_rate_is_heard_after_two_seconds(board: Board) -> None:
    """A new host, which knows nothing of the other rate, says hello every 300 ms."""
    climb(board)
    board.baud = BOOT
    board.session += 1
    for _ in range(7):
        assert board.put(board.frame(MessageType.HELLO_REQUEST, struct.pack("<HH", 1, 2))) == []
        board.wait(300)
    assert board.device_baud == BOOT
    assert board.hello().fields[HelloTag.BAUD] == struct.pack("<II", BOOT, MOST)


def test_what_came_before_a_change_is_no_frame(board: Board) -> None:
    """A frame's beginning that came at the old rate does not spoil the first frame at the new one."""
    climb(board)
    board.put(JUNK)
    board.wait(NOISE)
    board.baud = BOOT
    frame = board.frame(MessageType.ECHO_REQUEST, b"clean")[1:]  # without a zero byte before it
    assert [answer.body for answer in board.put(frame)] == [b"clean"]


@pytest.mark.parametrize("mode", RunMode)
def test_computing_does_not_count(board: Board, images: SimpleNamespace, mode: RunMode) -> None:
    """Each image takes a minute; the host has said nothing meanwhile, and is heard."""
    weights = images.fp32(np.random.default_rng(4).normal(size=(12, 5)).tolist())
    image = images.build([images.dense((4, 3, 1), weights)], slots=3)
    board.upload(image)
    climb(board)
    assert board.ask(MessageType.RUN_BEGIN, struct.pack("<BBHI", mode, 0, spec.NO_LAYER, 3)).words
    board.compute_ms = 30000
    assert board.ask(MessageType.RUN_DATA, bytes(4) + bytes(36)).type == MessageType.RUN_CREDIT
    board.clock_ms += 6 * 30000  # what the computing has taken
    board.compute_ms = 0
    assert sum(event.body[4] for event in board.events if event.type == MessageType.RESULT) == 3
    assert board.device_baud == FAST
    board.wait(SILENCE - 100)
    assert board.device_baud == FAST
    board.wait(100)
    assert board.device_baud == BOOT
