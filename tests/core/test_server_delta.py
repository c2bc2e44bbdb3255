"""Delta upload (docs/protocol.md, "Delta"): hashes of what is held, copies within the arena, what is left to send."""

from __future__ import annotations

import hashlib
import struct
from types import SimpleNamespace

import numpy as np
import pytest
from board import Answer, Board, Start
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bitloop import spec
from bitloop.native import Evaluator
from bitloop.spec import Capability, HelloTag, MessageType, RunMode, Status

ARENA = 4000
PAINT = 0xA5


def model(images: SimpleNamespace, seed: int, hidden: int = 7, *, width: int = 8) -> bytes:
    """4x3 pixels, `hidden` units with scales, zero points and biases, 5 classes."""
    rng = np.random.default_rng(seed)
    values = rng.integers(-(1 << width - 1), 1 << width - 1, (12, hidden)).tolist()
    scales = [0.5] * hidden
    points = rng.integers(-3, 3, hidden).tolist()
    weights = images.integer(values, width, scale_kind=spec.ScaleKind.FP32, scales=scales, zero_points=points)
    biases = images.fp32([np.random.default_rng(9).normal(size=hidden).tolist()])
    last = images.fp32(np.random.default_rng(5).normal(size=(hidden, 5)).tolist())
    return bytes(images.build([images.dense((4, 3, 1), weights, biases), images.dense((1, 1, hidden), last)], slots=2))


@pytest.fixture(scope="module")
def base(images: SimpleNamespace) -> bytes:
    return model(images, 1)


@pytest.fixture(scope="module")
def other(images: SimpleNamespace) -> bytes:
    """Other weights in the first layer, half as wide: everything behind them has moved."""
    return model(images, 2, width=4)


def copy(board: Board, number: int, origin: int, to: int, count: int) -> Answer:
    return board.ask(MessageType.UPLOAD_COPY, struct.pack("<HIII", number, origin, to, count))


def copied(answer: Answer) -> tuple[int, ...]:
    """Number, next and ranges of UPLOAD_COPIED."""
    assert answer.type == MessageType.UPLOAD_COPIED, answer
    words = struct.unpack(f"<H{(len(answer.body) - 2) // 4}I", answer.body)
    return words[0], words[1], *words[3:]


def send_rest(board: Board, image: bytes) -> Answer:
    """Send what is neither before next nor in a range, in pieces; end."""
    position = 0
    while position < len(image):
        end = min(position + 100, len(image))
        position = board.data(image, position, end)[0]
    return board.ask(MessageType.UPLOAD_END)


def run(board: Board, image: bytes) -> None:
    """Run two images; their logits are those of the evaluator."""
    pixels = np.random.default_rng(3).integers(0, 256, (2, 4, 3, 1), dtype=np.uint8)
    board.ask(MessageType.RUN_BEGIN, struct.pack("<BBHI", RunMode.TIMING, 1, spec.NO_LAYER, 2))
    board.events.clear()
    board.ask(MessageType.RUN_DATA, bytes(4) + pixels.tobytes())
    body = board.events[-1].body
    assert [body[6 + 32 * i + 12 :][:20] for i in range(2)] == [row.tobytes() for row in Evaluator(image).run(pixels)]


def peak(board: Board) -> int:
    body = board.ask(MessageType.STATS_REQUEST).body
    fields = {body[i]: struct.unpack_from("<I", body, i + 2)[0] for i in range(0, len(body), 6)}
    return int(fields[spec.StatsTag.ARENA_PEAK_BYTES])


# --- what is held -------------------------------------------------------------------------------------------------


def tensors_of(image: bytes) -> list[tuple[int, int]]:
    """Offset and bytes of each piece, from the tensor records of docs/model.md."""
    layers, tensors = struct.unpack_from("<HH", image, 12)
    found = []
    for number in range(tensors):
        at = 64 + 56 * layers + 52 * number
        data, count, scales, points, groups, chunk = struct.unpack_from("<6I", image, at + 24)
        found += [
            (data, count) if chunk == 0 else (0, 0),
            (scales, 4 * groups) if scales != 0xFFFFFFFF else (0, 0),
            (points, 4 * groups) if points != 0xFFFFFFFF else (0, 0),
        ]
    return found


@pytest.mark.parametrize("send_body", [64, 67, 84, 512])
def test_tensors(start_board: Start, base: bytes, send_body: int) -> None:
    board = start_board(send_body=send_body)
    capabilities = struct.unpack("<I", board.fields[HelloTag.CAPABILITIES])[0]
    assert capabilities & Capability.DELTA_UPLOAD
    assert board.ask(MessageType.TENSORS_REQUEST, bytes(2)).error[0] == Status.NO_MODEL
    board.upload(base)
    pieces = tensors_of(base)
    assert sorted(count > 0 for _, count in pieces) == [False] * 4 + [True] * 5
    for first in range(len(pieces) + 1):
        answer = board.ask(MessageType.TENSORS_REQUEST, struct.pack("<H", first))
        assert answer.type == MessageType.TENSORS
        assert struct.unpack_from("<HH", answer.body) == (first, len(pieces))
        records = [answer.body[i : i + 16] for i in range(4, len(answer.body), 16)]
        assert len(records) == min((send_body - 4) // 16, len(pieces) - first)
        for (offset, count), record in zip(pieces[first:], records, strict=False):
            digest = hashlib.sha256(base[offset : offset + count]).digest()
            assert record == struct.pack("<II", offset, count) + digest[:8]
    for wrong in (len(pieces) + 1, 0xFFFF):
        answer = board.ask(MessageType.TENSORS_REQUEST, struct.pack("<H", wrong))
        assert answer.error == (Status.BAD_ARGUMENT, 0, 0)
    for length in (0, 1, 3):
        assert board.ask(MessageType.TENSORS_REQUEST, bytes(length)).error == (Status.BAD_BODY, length, 2)


def test_streamed_tensors_are_empty(start_board: Start, images: SimpleNamespace) -> None:
    weights = images.integer([[1, 2, 3]] * 12, 8, chunk=1)
    image = images.build([images.dense((4, 3, 1), weights, images.fp32([[1.0, 2.0, 3.0]]))])
    board = start_board()
    board.upload(image)
    body = board.ask(MessageType.TENSORS_REQUEST, bytes(2)).body
    assert struct.unpack_from("<HHII", body) == (0, 6, 0, 0)
    assert body[12:20] == hashlib.sha256(b"").digest()[:8]
    assert struct.unpack_from("<II", body, 4 + 3 * 16) == tensors_of(image)[3]


# --- a delta ------------------------------------------------------------------------------------------------------


def moved(base: bytes, other: bytes) -> list[tuple[int, int, int]]:
    """From, to and bytes of the pieces that are in both images; the new image's are in front of the old one's."""
    found = []
    for (origin, count), (to, same) in zip(tensors_of(base), tensors_of(other), strict=True):
        if count and count == same and base[origin : origin + count] == other[to : to + count]:
            found.append((origin, to, count))
    return found


def test_one_layers_format_is_switched(start_board: Start, base: bytes, other: bytes) -> None:
    board = start_board(arena=ARENA)
    board.upload(base)
    run(board, base)
    assert board.offer(other, base=base).words == (0, len(other))
    copies = moved(base, other)
    assert sum(count for _, _, count in copies) > 180
    assert all(to < origin for origin, to, _ in copies)  # so in ascending order none overwrites a later one's
    for number, (origin, to, count) in enumerate(copies):
        answer = copied(copy(board, number, origin, to, count))
        assert answer[0] == number + 1
        assert board.arena[to : to + count] == other[to : to + count]
    held = {byte for i in range(2, len(answer), 2) for byte in range(answer[i], answer[i + 1])}
    assert held == {byte for _, to, count in copies for byte in range(to, to + count)}
    assert send_rest(board, other).type == MessageType.UPLOAD_DONE
    run(board, other)
    assert hashlib.sha256(other).digest() == board.hello().fields[HelloTag.IMAGE_HASH]


@pytest.mark.parametrize(("first", "then"), [("base", "other"), ("other", "base")])
def test_the_arenas_peak_is_as_after_a_whole_upload(
    start_board: Start, base: bytes, other: bytes, first: str, then: str
) -> None:
    """Smaller and larger than the base: what is left of the old image and of its run is painted over."""
    known = {"base": base, "other": other}
    old, new = known[first], known[then]
    whole, delta = start_board(arena=ARENA), start_board(arena=ARENA)
    whole.upload(new)
    delta.upload(old)
    run(delta, old)
    delta.offer(new, base=old)
    assert delta.arena[: len(old)] == old
    assert set(delta.arena[len(old) :]) == {PAINT}
    assert copied(copy(delta, 0, 0, 0, 8))[1] == 8
    assert send_rest(delta, new).type == MessageType.UPLOAD_DONE
    assert delta.arena == whole.arena
    assert peak(delta) == peak(whole) <= len(new)
    run(delta, new)
    run(whole, new)
    assert peak(delta) == peak(whole) == struct.unpack_from("<I", new, 28)[0]


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(*[st.integers(0, 400)] * 3), min_size=1, max_size=12))
def test_copies_anywhere(start_board: Start, base: bytes, other: bytes, steps: list[tuple[int, int, int]]) -> None:
    """Forward, backward, overlapping: as a bytearray's slices; held is what was copied to."""
    board = start_board(arena=ARENA)
    board.upload(base)
    board.offer(other, base=base)
    memory, held, number = bytearray(board.arena), set[int](), 0
    for origin, to, count in steps:
        assume(origin + count <= len(base) and to + count <= len(other))
        answer = copy(board, number, origin, to, count)
        if answer.type == MessageType.ERROR:
            assert answer.error == (Status.TOO_MANY, 8, 7)
        else:
            memory[to : to + count] = memory[origin : origin + count]
            held |= set(range(to, to + count))
            number += 1
            edges = (0, *copied(answer)[1:])
            assert held == {byte for i in range(0, len(edges), 2) for byte in range(edges[i], edges[i + 1])}
        assert board.arena == bytes(memory)
    assert send_rest(board, other).type in (MessageType.UPLOAD_DONE, MessageType.ERROR)
    if board.ask(MessageType.UPLOAD_END).type == MessageType.ERROR:  # what was copied was not the image's
        assert board.ask(MessageType.UPLOAD_END).error == (Status.BAD_HASH, 0, 0)
        board.upload(other)
    run(board, other)


def test_repeated_and_wrong_copies_change_nothing(start_board: Start, base: bytes, other: bytes) -> None:
    board = start_board(arena=ARENA, body=64)
    board.upload(base)
    assert copy(board, 0, 0, 0, 1).error == (Status.BAD_STATE, 3, 0)
    board.offer(other, base=base)
    for length in (13, 15):
        assert board.ask(MessageType.UPLOAD_COPY, bytes(length)).error == (Status.BAD_BODY, length, 14)
    n, m = len(base), len(other)
    before = board.arena
    assert copied(copy(board, 1, 0, 0, 4)) == (0, 0)  # too high: the answer says which is next
    assert copy(board, 0, n - 3, 0, 4).error == (Status.BAD_OFFSET, n - 3, n)
    assert copy(board, 0, 0xFFFFFFFF, 0, 4).error == (Status.BAD_OFFSET, 0xFFFFFFFF, n)
    assert copy(board, 0, 0, m - 3, 4).error == (Status.BAD_OFFSET, m - 3, m)
    assert copy(board, 0, 0, 4, 0xFFFFFFFF).error == (Status.BAD_OFFSET, 0, n)
    assert copy(board, 0, 4, 0, 0xFFFFFFFC).error == (Status.BAD_OFFSET, 4, n)
    assert board.arena == before
    assert copied(copy(board, 0, 300, 200, 10)) == (1, 0, 200, 210)
    after = board.arena
    assert copied(copy(board, 0, 300, 200, 10)) == (1, 0, 200, 210)
    assert copied(copy(board, 0, 0, 100, 10)) == (1, 0, 200, 210)  # done already, whatever it says
    assert board.arena == after
    for number in range(1, 6):
        copied(copy(board, number, 0, 200 + 20 * number, 10))
    told = board.ask(MessageType.UPLOAD_COPY, struct.pack("<HIII", 0, 0, 0, 0))
    assert len(told.body) == 10 + 6 * 8  # as many ranges as 64 bytes have room for
    before = board.arena
    assert copy(board, 6, 0, 100, 5).error == (Status.TOO_MANY, 7, 6)
    assert board.arena == before
    assert copied(copy(board, 6, 0, 210, 10))[:4] == (7, 0, 200, 230)  # closes a gap: no range more
    board.data(other, 0, 1)
    assert copy(board, 7, 0, 0, 4).error == (Status.BAD_STATE, 1, 0)
    assert copied(copy(board, 3, 0, 0, 4))[0] == 7  # a late one, done already
    assert copy(start_board(), 0, 0, 0, 1).error == (Status.BAD_STATE, 0, 0)


def test_a_base_that_is_not_held(start_board: Start, base: bytes, other: bytes) -> None:
    board = start_board(arena=ARENA)
    assert board.offer(other, base=base).error == (Status.NO_MODEL, 0, 0)
    board.upload(base)
    assert board.offer(other, base=other).error == (Status.NO_MODEL, 0, 0)
    run(board, base)  # nothing was forgotten
    body = struct.pack("<II", len(other), ARENA + 1) + bytes(48)
    assert board.ask(MessageType.UPLOAD_DELTA, body).error == (Status.NO_MEMORY, ARENA + 1, ARENA)
    body = struct.pack("<II", 67, 100) + bytes(48)
    assert board.ask(MessageType.UPLOAD_DELTA, body).error == (Status.BAD_ARGUMENT, 0, 0)
    body = struct.pack("<II", 100, 99) + bytes(48)
    assert board.ask(MessageType.UPLOAD_DELTA, body).error == (Status.BAD_ARGUMENT, 4, 0)
    for length in (40, 55, 57):
        assert board.ask(MessageType.UPLOAD_DELTA, bytes(length)).error == (Status.BAD_BODY, length, 56)
    run(board, base)


def test_a_delta_may_be_asked_for_again(start_board: Start, images: SimpleNamespace, base: bytes, other: bytes) -> None:
    board = start_board(arena=ARENA)
    board.upload(base)
    for _ in range(3):
        assert board.offer(other, base=base).words == (0, len(other))
    board.session += 1
    board.hello()  # also after a new beginning
    assert HelloTag.IMAGE_HASH not in board.fields
    assert board.offer(other, base=base).words == (0, len(other))
    assert board.offer(other, base=other).error[0] == Status.NO_MODEL  # of another base
    assert board.offer(model(images, 3), base=base).error[0] == Status.NO_MODEL  # another image
    assert board.offer(other, base=base).words == (0, len(other))
    assert copied(copy(board, 0, 100, 100, 0)) == (1, 0)
    assert board.offer(other, base=base).error[0] == Status.NO_MODEL  # a copy was done
    assert board.offer(other).words == (0, len(other))  # UPLOAD_BEGIN is for the host
    assert send_rest(board, other).type == MessageType.UPLOAD_DONE
    assert board.offer(base, base=other).words == (0, len(base))
    board.data(base, 7, 8)
    assert board.offer(base, base=other).error[0] == Status.NO_MODEL  # data came
    assert board.offer(base).words == (0, len(base), 7, 8)
    assert send_rest(board, base).type == MessageType.UPLOAD_DONE
    run(board, base)


def test_wrong_bytes_are_a_bad_hash_and_begin_anew(start_board: Start, base: bytes, other: bytes) -> None:
    board = start_board(arena=ARENA, body=1000)
    board.upload(base)
    board.offer(other, base=base)
    copy(board, 0, 0, 0, len(other) - 1)  # which is not what is there
    assert board.data(other, 0, len(other))[0] == len(other)
    assert board.ask(MessageType.UPLOAD_END).error == (Status.BAD_HASH, 0, 0)
    assert board.offer(other, base=base).error[0] == Status.NO_MODEL
    assert board.offer(other).words == (0, len(other))
    assert set(board.arena) == {PAINT}
    assert send_rest(board, other).type == MessageType.UPLOAD_DONE
    run(board, other)
