"""Intervals against Python's sets, and against cases by hand."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitloop.link.delivery.intervals import Intervals

changes = st.lists(st.tuples(st.booleans(), st.integers(0, 30), st.integers(0, 30)), max_size=20)
bounds = st.tuples(st.integers(0, 30), st.integers(0, 30))


def made(steps):
    found, numbers = Intervals(), set()
    for adds, begin, end in steps:
        (found.add if adds else found.remove)(begin, end)
        numbers = numbers | set(range(begin, end)) if adds else numbers - set(range(begin, end))
    return found, numbers


@given(changes, bounds)
def test_they_are_sets(steps, probe):
    found, numbers = made(steps)
    begin, end = probe
    span = set(range(begin, end))
    assert {n for low, high in found for n in range(low, high)} == numbers
    assert found.total == len(numbers)
    assert found.end == max(numbers, default=-1) + 1
    assert found.prefix == next(n for n in range(32) if n not in numbers)
    assert found.covers(begin, end) == (span <= numbers)
    assert found.meets(begin, end) == bool(span & numbers)
    flat = [bound for interval in found for bound in interval]
    assert flat == sorted(set(flat))
    assert len(found) == len(flat) // 2
    if begin < end:
        assert found.touches(begin, end) == bool(({begin - 1, end} | span) & numbers)


@given(changes, st.integers(0, 31), st.integers(0, 31))
def test_gaps(steps, begin, most):
    found, numbers = made(steps)
    first, last = found.gap_from(begin, most)
    free = [n for n in range(begin, most) if n not in numbers]
    if free:
        assert first == free[0]
        assert set(range(first, last)) <= set(free)
        assert last == most or last in numbers
    else:
        assert first == last


@pytest.mark.parametrize(
    ("added", "removed", "left"),
    [
        ([(0, 4), (4, 8)], (0, 0), [(0, 8)]),
        ([(0, 4), (5, 8)], (3, 6), [(0, 3), (6, 8)]),
        ([(0, 9)], (3, 6), [(0, 3), (6, 9)]),
        ([(2, 3), (4, 5), (6, 7)], (2, 7), []),
        ([(6, 7), (1, 2), (2, 6)], (8, 9), [(1, 7)]),
    ],
)
def test_by_hand(added, removed, left):
    found = Intervals(added)
    copied = found.copy()
    found.remove(*removed)
    assert list(found) == left
    assert list(copied) == list(Intervals(added))
