"""Copies that make a new image of an old one: planned for random layouts, made by a memory that only moves bytes."""

import hashlib

import fake_device as fd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitloop.errors import DeviceError, LinkError, ProtocolError
from bitloop.link.delta import Copy, pieces_of, plan_copies
from bitloop.link.session import Session
from bitloop.link.wire.messages import HeldPiece
from bitloop.spec import Status

HEAD_BYTES = 64 + 3 * 56


def piece(seed, size):
    return hashlib.shake_256(bytes([seed])).digest(size)


def make(copies, old, size):
    """What a device has after some copies: its memory, and which bytes of the new image are there."""
    memory = bytearray(old.ljust(max(size, len(old)), b"\xee"))
    there = [False] * size
    for source, target, count in copies:
        assert source + count <= len(old)
        assert target + count <= size
        memory[target : target + count] = bytes(memory[source : source + count])
        there[target : target + count] = [True] * count
    return bytes(memory), there


pieces = st.builds(piece, st.integers(0, 9), st.integers(1, 40).map(lambda n: 4 * n))
tensors = st.lists(
    st.tuples(
        st.builds(piece, st.integers(0, 9), st.integers(1, 120)),
        st.one_of(st.none(), pieces),
        st.none(),
    ),
    max_size=8,
)


@given(tensors, tensors, st.integers(0, 7))
def test_copies_make_what_they_say_for_any_layouts(before, after, most_ranges):
    old, new = fd.make_tensors(before), fd.make_tensors(after, seed=1)
    copies = plan_copies(pieces_of(old), new, most_ranges=most_ranges, cost_bytes=16)
    memory, there = make(copies, old, len(new))
    assert all(memory[i] == new[i] for i in range(len(new)) if there[i])
    assert all(copy.size > 16 for copy in copies)
    stretches = 0
    for count in range(1, len(copies) + 1):
        _, there = make(copies[:count], old, len(new))
        stretches = sum(there[i] and not there[i - 1] for i in range(1, len(new)))
        assert stretches <= most_ranges


CYCLES = [  # pieces of 100 bytes but for two, in their order before and after, and those that are left out
    ("two change places", (0, 1, 2), (1, 0, 2), 1),
    ("three in a ring", (0, 3, 1), (1, 0, 3), 1),
    ("two rings", (0, 4, 5, 2), (4, 0, 2, 5), 2),
    ("none", (0, 1, 2), (0, 1, 2), 0),
]


@pytest.mark.parametrize(("what", "first", "second", "left_out"), CYCLES, ids=[case[0] for case in CYCLES])
def test_of_a_ring_of_copies_one_is_left_out(what, first, second, left_out):
    old = fd.make_tensors([(piece(seed, 100), None, None) for seed in first])
    new = fd.make_tensors([(piece(seed, 100), None, None) for seed in second])
    copies = plan_copies(pieces_of(old), new, most_ranges=7)
    memory, there = make(copies, old, len(new))
    assert all(memory[i] == new[i] for i in range(len(new)) if there[i])
    assert sum(there) == 100 * (len(first) - left_out)


def test_neighbours_move_as_one_with_the_padding_between_them():
    kept = [(piece(1, 101), piece(2, 40), None), (piece(3, 33), None, None)]
    old = fd.make_tensors([(piece(9, 200), None, None), *kept])
    new = fd.make_tensors([(piece(9, 100), None, None), *kept])
    begin = HEAD_BYTES + 3 * 52
    assert plan_copies(pieces_of(old), new, most_ranges=1) == [Copy(begin + 200, begin + 100, 104 + 40 + 36)]


def test_each_copy_comes_before_what_overwrites_its_source():
    """By hand: all moves up by 52 bytes for a new record, so the last goes first; of two that swap one is sent."""
    kept = [(piece(seed, size), None, None) for seed, size in ((1, 100), (2, 60), (3, 80), (4, 400))]
    after = [kept[1], kept[0], kept[2], (piece(5, 200), None, None), kept[3]]
    at, to = HEAD_BYTES + 4 * 52, HEAD_BYTES + 5 * 52
    copies = plan_copies(pieces_of(fd.make_tensors(kept)), fd.make_tensors(after), most_ranges=7)
    assert copies == [Copy(at + 240, to + 440, 400), Copy(at + 160, to + 160, 80), Copy(at, to + 60, 100)]


def test_what_does_not_pay_is_sent():
    old = fd.make_tensors([(piece(1, 26), None, None), (piece(2, 300), None, None), (piece(3, 32), None, None)])
    new = fd.make_tensors([(piece(3, 32), None, None), (piece(2, 300), None, None), (piece(1, 26), None, None)])
    assert {copy.size for copy in plan_copies(pieces_of(old), new, most_ranges=7, cost_bytes=32)} == {300}
    assert plan_copies(pieces_of(old), new, most_ranges=7, cost_bytes=300) == []


def test_pieces_of_an_image_by_hand():
    image = fd.make_tensors([(b"abcde", b"wxyz", None), (b"fg", None, b"12345678")])
    at = HEAD_BYTES + 2 * 52
    nothing = HeldPiece(0, 0, bytes(8))

    def held(offset, data):
        return HeldPiece(offset, len(data), hashlib.sha256(data).digest()[:8])

    assert pieces_of(image) == [
        held(at, b"abcde"), held(at + 8, b"wxyz"), nothing,
        held(at + 12, b"fg"), nothing, held(at + 16, b"12345678"),
    ]  # fmt: skip


@given(st.binary(max_size=400))
def test_any_bytes_have_pieces_or_none(image):
    for found in pieces_of(fd.make_tensors([(b"a", None, None)])[:64] + image):
        assert found.offset + found.size <= 64 + len(image)
    pieces_of(image)


# --- uploads ---


def opened(device, seed=0, faults=None):
    transport = fd.FakeTransport(device, faults, seed)
    session = Session(transport, clock=transport.clock)
    session.connect()
    return session


def modern(kind=fd.FakeDevice, **options):
    return kind(**{"ranges": 7, "delta": True, "body_bytes": 256, "window_bytes": 1024} | options)


KEPT = [(piece(seed, 600 + seed), piece(seed + 20, 40), None) for seed in range(3)]
OLD = fd.make_tensors([*KEPT[:1], (piece(7, 900), None, None), *KEPT[1:]])
NEW = fd.make_tensors([*KEPT[:1], (piece(8, 450), None, None), *KEPT[1:]], seed=1)
KEPT_BYTES = sum(-(-len(data) // 4) * 4 + len(scales) for data, scales, _ in KEPT)


@pytest.mark.parametrize("send_body_bytes", [64, 256])
def test_only_what_is_new_travels(send_body_bytes):
    session = opened(modern(send_body_bytes=send_body_bytes))
    first = session.upload(OLD, 8192)
    assert (first.copied_bytes, first.sent_bytes) == (0, len(OLD))
    assert first.line_bytes > len(OLD)
    report = session.upload(NEW, 8192)
    assert session._transport.device.image == NEW
    assert report.device_sha256 == hashlib.sha256(NEW).hexdigest()
    assert (report.copied_bytes, report.sent_bytes) == (KEPT_BYTES, len(NEW) - KEPT_BYTES)
    assert report.sent_bytes < report.line_bytes < report.sent_bytes + 300
    assert (report.coding, report.resumed_bytes) == ("plain", 0)
    again = session.upload(NEW, 8192)
    assert (again.copied_bytes, again.sent_bytes, again.resumed_bytes) == (0, 0, len(NEW))


def test_an_image_of_a_session_before():
    device = modern()
    opened(device).upload(OLD, 8192)
    session = opened(device)
    assert session.upload(NEW, 8192).copied_bytes == KEPT_BYTES
    assert session.info.image_hash == hashlib.sha256(NEW).hexdigest()


@pytest.mark.parametrize("options", [{"delta": False}, {"ranges": 0}])
def test_a_device_that_cannot(options):
    session = opened(modern(**options))
    session.upload(OLD, 8192)
    assert session.upload(NEW, 8192).copied_bytes == 0
    assert session._transport.device.image == NEW


def test_a_device_that_has_forgotten_its_image():
    session = opened(modern())
    session.upload(OLD, 8192)
    session._transport.device.loaded = False
    assert session.upload(NEW, 8192).copied_bytes == 0


def test_what_was_copied_wrongly_is_sent_anew():
    class Wrong(fd.FakeDevice):
        def on_upload_copy(self, sequence, body):
            self.arena[600] ^= 1
            super().on_upload_copy(sequence, body)

    session = opened(modern(Wrong))
    session.upload(OLD, 8192)
    report = session.upload(NEW, 8192)
    assert session._transport.device.image == NEW
    assert (report.copied_bytes, report.sent_bytes, report.resumed_bytes) == (0, len(NEW), 0)


def test_a_wrong_hash_without_copies_is_an_error():
    class Wrong(fd.FakeDevice):
        def on_upload_end(self, sequence, body):
            self.error(fd.UPLOAD_END, sequence, fd.BAD_HASH)

    session = opened(modern(Wrong))
    with pytest.raises(DeviceError) as caught:
        session.upload(OLD, 8192)
    assert caught.value.status == Status.BAD_HASH


def test_copies_that_find_no_range_are_sent():
    class Full(fd.FakeDevice):
        def on_upload_copy(self, sequence, body):
            if self.copies == 1:
                self.error(fd.UPLOAD_COPY, sequence, fd.TOO_MANY)
            else:
                super().on_upload_copy(sequence, body)

    session = opened(modern(Full))
    session.upload(OLD, 8192)
    report = session.upload(NEW, 8192)
    assert 0 < report.copied_bytes < KEPT_BYTES
    assert session._transport.device.image == NEW


@pytest.mark.parametrize("seed", range(12))
def test_lines_that_lose(seed):
    faults = fd.LineFaults(drop=0.05, flip=0.05, duplicate=0.05, truncate=0.02, noise=0.03)
    session = opened(modern(body_bytes=128, window_bytes=512, codings=seed % 4), seed, faults)
    for image in (OLD, NEW, OLD):
        session.upload(image, 8192)
        assert session._transport.device.image == image


def test_a_delta_that_broke_off_goes_on_where_it_was():
    device = modern()
    session = opened(device)
    session.upload(OLD, 8192)
    fresh = opened(device)
    held = []

    def cut(line):
        held.append(int(device.store.has.sum()))
        device.session = 0

    fresh._transport.script[device.frames + 6] = cut
    with pytest.raises(LinkError, match=r"no progress|no answer"):
        fresh.upload(NEW, 8192)
    assert held[0] > 0
    report = opened(device).upload(NEW, 8192)
    assert report.resumed_bytes >= held[0]
    assert device.image == NEW


CHANGES = {
    "other pieces": (fd.TENSORS, lambda body: b"\1\0" + body[2:], "asked for piece 0 of"),
    "too many pieces": (fd.TENSORS, lambda body: body[:2] + b"\xff\xff" + body[4:], "the device told of 0 of 65535"),
    "pieces beyond the arena": (
        fd.TENSORS, lambda body: body[:4] + b"\0\0\1\0" + body[8:], "bytes at 65536 of an image, its arena has 65536"
    ),
    "another copy": (fd.UPLOAD_COPIED, lambda body: b"\7\0" + body[2:], "copy 0 was made, the device asks for copy 7"),
}  # fmt: skip


@pytest.mark.parametrize("name", CHANGES)
def test_impossible_answers(name):
    kind, change, what = CHANGES[name]

    class Wrong(fd.FakeDevice):
        def send(self, found, sequence, body):
            super().send(found, sequence, change(body) if found == kind else body)

    session = opened(modern(Wrong, extra_hello=[(23, b"\x20\0\x40\0")]))
    session.upload(OLD, 8192)
    with pytest.raises(ProtocolError, match=what):
        session.upload(NEW, 8192)
