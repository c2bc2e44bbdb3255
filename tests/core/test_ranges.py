"""What is held beyond a gap (bl_ranges), against a set of bytes."""

from __future__ import annotations

import ctypes
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from bitloop import spec
from bitloop.native.core import library

MOST = spec.MAX_RANGES
CANARY = 0xC5


class CRanges(ctypes.Structure):
    _fields_ = (("list", ctypes.c_uint32 * 2 * MOST), ("count", ctypes.c_uint8), ("canary", ctypes.c_uint8 * 15))


class Ranges:
    """The core's ranges; each answer is checked for the order that the header promises."""

    def __init__(self) -> None:
        self.state = CRanges(canary=(ctypes.c_uint8 * 15)(*[CANARY] * 15))
        self.next = ctypes.c_uint32(0)
        library().bl_ranges_add.restype = ctypes.c_bool
        library().bl_ranges_hold.restype = ctypes.c_bool

    def add(self, begin: int, end: int, most: int = MOST) -> bool:
        u32 = ctypes.c_uint32
        kept = library().bl_ranges_add(
            ctypes.byref(self.state), ctypes.byref(self.next), u32(begin), u32(end), u32(most)
        )
        assert bytes(self.state.canary) == bytes([CANARY] * 15)
        edges = [self.next.value, *(edge for pair in self.pairs() for edge in pair)]
        assert all(a < b for a, b in pairwise(edges))
        return bool(kept)

    def pairs(self) -> list[tuple[int, int]]:
        return [(pair[0], pair[1]) for pair in self.state.list[: self.state.count]]

    def held(self) -> set[int]:
        return {*range(self.next.value), *(byte for begin, end in self.pairs() for byte in range(begin, end))}

    def hold(self, position: int, stop: int) -> tuple[bool, int]:
        until = ctypes.c_uint32(stop)
        u32 = ctypes.c_uint32
        answer = library().bl_ranges_hold(
            ctypes.byref(self.state), u32(self.next.value), u32(position), ctypes.byref(until)
        )
        return bool(answer), until.value


def runs(held: set[int]) -> list[tuple[int, int]]:
    """The maximal runs of a set of numbers."""
    begins = sorted(byte for byte in held if byte - 1 not in held)
    ends = sorted(byte + 1 for byte in held if byte + 1 not in held)
    return list(zip(begins, ends, strict=True))


def test_by_hand() -> None:
    ranges = Ranges()
    assert ranges.add(10, 20)
    assert (ranges.next.value, ranges.pairs()) == (0, [(10, 20)])
    assert ranges.add(30, 40)
    assert ranges.add(25, 30)  # touches: one range
    assert (ranges.next.value, ranges.pairs()) == (0, [(10, 20), (25, 40)])
    assert ranges.add(15, 26)  # bridges
    assert (ranges.next.value, ranges.pairs()) == (0, [(10, 40)])
    assert ranges.add(0, 9)
    assert (ranges.next.value, ranges.pairs()) == (9, [(10, 40)])
    assert ranges.add(5, 10)  # meets the range
    assert (ranges.next.value, ranges.pairs()) == (40, [])
    assert ranges.add(60, 60)  # nothing
    assert ranges.add(0xFFFFFFF0, 0xFFFFFFFF)
    assert (ranges.next.value, ranges.pairs()) == (40, [(0xFFFFFFF0, 0xFFFFFFFF)])


def test_the_eighth_range_is_refused_and_nothing_is_lost() -> None:
    ranges = Ranges()
    for i in range(MOST):
        assert ranges.add(10 * i + 5, 10 * i + 10)
    before = ranges.pairs()
    for begin in (1, 12, 100):
        assert not ranges.add(begin, begin + 2)
        assert ranges.pairs() == before
    assert ranges.add(12, 15)  # touches one: no new range
    assert ranges.pairs() == [(5, 10), (12, 20), *before[2:]]
    assert ranges.add(0, 70)
    assert (ranges.next.value, ranges.pairs()) == (70, [])


@settings(max_examples=400, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 70), st.integers(0, 25)), max_size=60),
    st.integers(0, MOST + 2),
    st.tuples(st.integers(0, 100), st.integers(1, 100)),
)
def test_equals_a_set_of_bytes(steps: list[tuple[int, int]], most: int, question: tuple[int, int]) -> None:
    ranges, held = Ranges(), set[int]()
    for begin, count in steps:
        together = held | set(range(begin, begin + count))
        beyond = [run for run in runs(together) if run[0] > 0]
        # Refused only where a range more is needed than there may be: merging is always taken.
        fits = len(beyond) <= max(min(most, MOST), len([run for run in runs(held) if run[0] > 0]))
        assert ranges.add(begin, begin + count, most) == fits
        held = together if fits else held
        assert ranges.held() == held
        assert ranges.pairs() == [run for run in runs(held) if run[0] > 0]
    position, length = question
    answer, stop = ranges.hold(position, position + length)
    assert answer == (position in held)
    same = [byte for byte in range(position, position + length) if (byte in held) != answer]
    assert stop == (same[0] if same else position + length)
