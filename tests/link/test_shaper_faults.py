"""What a line does to bytes and frames: how often, what exactly, and the same each time."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitloop.link.line.chance import Hits, draw
from bitloop.link.line.faults import CABLE_FLIP, ByteFaults, FrameFaults
from bitloop.link.line.options import Direction, LineOptions
from bitloop.link.line.uart import garble, heard

FAULTS = LineOptions(drop=0.02, flip=0.01, dup=0.02, burst=0.004, seed=5)
FRAMES = LineOptions(frame_dup=0.2, frame_cut=0.2, frame_swap=0.3, seed=5)


def in_pieces(data, cuts):
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges)]


def test_random_numbers_are_splitmix64():
    """The vectors that go with the algorithm (rosettacode.org/wiki/Pseudo-random_numbers/Splitmix64)."""
    assert [draw(1234567, n) for n in range(5)] == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
        4593380528125082431,
        16408922859458223821,
    ]


def test_hits_are_as_frequent_as_asked_and_apart_from_one_another():
    n, p = 400_000, 0.01
    hits = list(Hits(1, p).below(n))
    assert hits == sorted(set(hits))
    assert abs(len(hits) - n * p) < 5 * math.sqrt(n * p * (1 - p))
    followed = sum(b == a + 1 for a, b in itertools.pairwise(hits))
    assert abs(followed - n * p * p) < 5 * math.sqrt(n * p * p)
    assert list(Hits(1, 1.0).below(5)) == [0, 1, 2, 3, 4]
    assert list(Hits(1, 0.0).below(10**9)) == []


@given(st.lists(st.integers(0, 5000), max_size=20))
@settings(max_examples=50)
def test_hits_do_not_depend_on_when_they_are_asked_for(ends):
    hits = Hits(9, 0.02)
    asked = [position for end in sorted(ends) for position in hits.below(end)]
    assert asked == list(Hits(9, 0.02).below(max(ends, default=0)))


@given(st.binary(max_size=3000), st.lists(st.integers(0, 3000), max_size=30))
@settings(max_examples=150)
def test_byte_faults_do_not_depend_on_the_pieces(data, cuts):
    whole = ByteFaults(FAULTS, Direction.UP).apply(data, 115200)
    faults = ByteFaults(FAULTS, Direction.UP)
    assert b"".join(faults.apply(piece, 115200) for piece in in_pieces(data, cuts)) == whole


@given(st.lists(st.binary(max_size=12), max_size=40), st.lists(st.integers(0, 600), max_size=30))
@settings(max_examples=150)
def test_frame_faults_do_not_depend_on_the_pieces(frames, cuts):
    data = b"\0".join(frames)
    whole = FrameFaults(FRAMES, Direction.DOWN).feed(data)
    faults = FrameFaults(FRAMES, Direction.DOWN)
    assert b"".join(faults.feed(piece) for piece in in_pieces(data, cuts)) == whole


@pytest.mark.parametrize("name", ["drop", "flip", "dup", "burst"])
def test_seed_direction_and_kind_have_chance_of_their_own(name):
    data = bytes(4000)

    def struck(seed, direction):
        return ByteFaults(LineOptions(**{name: 0.01}, seed=seed), direction).apply(data, 1)

    results = {struck(seed, direction) for seed in (1, 2) for direction in Direction}
    assert len(results) >= (4 if name == "flip" else 2)
    assert struck(1, Direction.UP) == struck(1, Direction.UP)


def test_drop_loses_as_many_bytes_as_asked():
    n, p = 200_000, 1e-2
    data = bytes(i % 251 for i in range(n))
    left = ByteFaults(LineOptions(drop=p), Direction.UP).apply(data, 1)
    assert abs(n - len(left) - n * p) < 5 * math.sqrt(n * p)
    rest = iter(data)
    assert all(byte in rest for byte in left)  # what is left is in order


def test_dup_repeats_as_many_bytes_as_asked():
    n, p = 200_000, 1e-2
    data = bytes(i % 251 for i in range(n))  # no byte is followed by the same
    out = ByteFaults(LineOptions(dup=p), Direction.UP).apply(data, 1)
    assert abs(len(out) - n - n * p) < 5 * math.sqrt(n * p)
    assert bytes(byte for byte, _ in itertools.groupby(out)) == data


def test_flip_is_a_probability_for_each_bit():
    n, p = 100_000, 1e-3
    out = ByteFaults(LineOptions(flip=p), Direction.UP).apply(bytes(n), 1)
    flipped = [sum((byte >> bit) & 1 for byte in out) for bit in range(8)]
    assert len(out) == n
    for count in flipped:
        assert abs(count - n * p) < 5 * math.sqrt(n * p)


def test_a_burst_covers_8_to_64_bytes_and_loses_or_overwrites_them():
    lost, garbage = [], []
    for seed in range(400):
        faults = ByteFaults(LineOptions(burst=1e-3, seed=seed), Direction.DOWN)
        begun = list(faults._burst.below(1000))
        faults = ByteFaults(LineOptions(burst=1e-3, seed=seed), Direction.DOWN)
        if len(begun) != 1 or begun[0] > 900:
            continue
        out = faults.apply(bytes(1000), 1)
        if len(out) < 1000:
            lost.append(1000 - len(out))
            assert not any(out)
        else:
            struck = [i for i, byte in enumerate(out) if byte]
            assert begun[0] <= struck[0]
            assert struck[-1] < begun[0] + 64
            garbage.append(len(struck))
    assert min(lost) >= 8
    assert max(lost) <= 64
    assert len({*lost}) > 20
    assert len(lost) > 30
    assert len(garbage) > 30
    assert max(garbage) > 40


def test_a_cable_damages_bytes_above_its_rate_only():
    n = 20_000
    faults = ByteFaults(LineOptions(cable_baud=460800), Direction.UP)
    assert faults.apply(bytes(n), 460800) == bytes(n)
    flipped = sum(bin(byte).count("1") for byte in faults.apply(bytes(n), 460801))
    assert abs(flipped - 8 * n * CABLE_FLIP) < 5 * math.sqrt(8 * n * CABLE_FLIP)
    assert faults.apply(bytes(n), 9600) == bytes(n)


def test_only_one_direction():
    for options in (LineOptions(drop=1, only=Direction.UP), LineOptions(frame_dup=1, only=Direction.UP)):
        struck = [FrameFaults(options, d).feed(ByteFaults(options, d).apply(b"a\0", 1)) for d in Direction]
        assert struck[Direction.DOWN] == b"a\0"
        assert struck[Direction.UP] != b"a\0"


def test_frames_come_twice():
    faults = FrameFaults(LineOptions(frame_dup=1), Direction.UP)
    assert faults.feed(b"\0ab\0\0c\0") == b"\0ab\0ab\0\0c\0c\0"


def test_frames_are_exchanged_in_pairs():
    faults = FrameFaults(LineOptions(frame_swap=1), Direction.UP)
    assert faults.feed(b"a\0bb\0ccc\0d\0e\0") == b"bb\0a\0d\0ccc\0"
    assert faults.feed(b"f\0") == b"f\0e\0"


def test_a_frame_that_is_not_struck_passes_byte_by_byte():
    number = next(iter(Hits(FrameFaults(FRAMES, Direction.UP)._hits[10]._key, 0.3).below(100)))
    faults = FrameFaults(LineOptions(frame_swap=0.3, seed=5), Direction.UP)
    for _ in range(number):
        assert faults.feed(b"x") == b"x"
        assert faults.feed(b"\0") == b"\0"
    assert faults.feed(b"struck") == b""
    assert faults.feed(b"\0") == b""
    assert faults.feed(b"next") == b"next"
    assert faults.feed(b"\0") == b"\0struck\0"


def test_a_cut_frame_loses_one_byte_to_all():
    lengths = set()
    for seed in range(300):
        out = FrameFaults(LineOptions(frame_cut=1, seed=seed), Direction.UP).feed(b"abcd\0")
        assert b"abcd\0".startswith(out)
        lengths.add(len(out))
    assert lengths == {0, 1, 2, 3, 4}


def test_what_is_no_frame_is_not_held_for_ever():
    faults = FrameFaults(LineOptions(frame_dup=1), Direction.UP)
    assert faults.feed(b"x" * 65536) == b""
    assert faults.feed(b"y") == b"x" * 65536 + b"y"
    assert faults.feed(b"z\0") == b"z\0"


def test_a_broken_line_forgets_what_was_held():
    faults = FrameFaults(LineOptions(frame_swap=1), Direction.UP)
    assert faults.feed(b"a\0b") == b""
    faults.clear()
    assert faults.feed(b"c\0d\0") == b"d\0c\0"


def test_the_same_rate_and_one_near_it_are_heard_well():
    data = bytes(range(256))
    assert garble(data, 115200, 115200) == data
    assert garble(data, 115200, 112000) == data  # 2.9 %
    assert garble(data, 112000, 115200) == data
    assert garble(data, 115200, 100000) != data  # 15 %


@pytest.mark.parametrize(
    ("sent", "at", "byte", "what"),
    [
        # The receiver's bits are two of the sender's: of 0 00000000 1 it samples 1, 3, 5, 7 low, then the idle line.
        (115200, 57600, 0x00, b"\xf8"),
        # 0 10101010 1: each fall is over when its middle comes.
        (115200, 57600, 0x55, b""),
        # Half of the sender's: 0 11110000 1 falls twice. 0, then 7 times 1 and stop; then 7 times 0, then 1.
        (57600, 115200, 0x0F, b"\xfe\x80"),
        # A long low: one byte, no stop bit, and nothing falls again.
        (57600, 115200, 0x00, b"\x00"),
        (57600, 115200, 0xF0, b"\x00"),
        # 0.45 bits: 0 11100000 1 falls again in the middle of the receiver's stop bit, which is no start.
        (45000, 100000, 0x07, b"\xfe"),
    ],
)
def test_another_rate_by_hand(sent, at, byte, what):
    assert heard(sent, at)[byte] == what


@pytest.mark.parametrize(("sent", "at"), [(115200, 921600), (921600, 115200), (460800, 921600), (921600, 460800)])
def test_at_another_rate_hardly_a_byte_is_heard_well(sent, at):
    table = heard(sent, at)
    assert sum(table[byte] == bytes([byte]) for byte in range(256)) <= 4
