"""The comparer is shown differences that were put there on purpose, and must find each."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitloop.bench.compare import NAN_ULP, bits, compare_vectors, ulp_distance


def f32(*patterns: int) -> np.ndarray:
    return np.array(patterns, dtype=np.uint32).view(np.float32)


@pytest.mark.parametrize(
    ("a", "b", "distance"),
    [
        (0x3F800000, 0x3F800000, 0),
        (0x3F800000, 0x3F800001, 1),  # 1 and the next number
        (0x3F7FFFFF, 0x3F800000, 1),  # across a binade
        (0x00000000, 0x80000000, 1),  # +0 and -0 are different bits
        (0x00000001, 0x80000001, 3),  # least subnormals of both signs, two zeros between
        (0x007FFFFF, 0x00800000, 1),  # greatest subnormal, least normal
        (0x7F7FFFFF, 0x7F800000, 1),  # greatest number, infinity
        (0x7F800000, 0xFF800000, 2 * 0x7F800000 + 1),
        (0xBF800000, 0xBF800002, 2),
        (0x7FC00000, 0x7F800001, 0),  # two NaNs, whatever their payloads
        (0x7FC00000, 0x3F800000, NAN_ULP),
        (0xFF800000, 0xFFC00001, NAN_ULP),
    ],
)
def test_ulp_distance_by_hand(a: int, b: int, distance: int) -> None:
    assert ulp_distance(f32(a), f32(b)).tolist() == [distance]
    assert ulp_distance(f32(b), f32(a)).tolist() == [distance]


@given(st.floats(width=32, allow_nan=False, max_value=2.0**127), st.integers(1, 50))
def test_ulp_distance_counts_the_steps_of_nextafter(start: float, steps: int) -> None:
    value = np.float32(start)
    for _ in range(steps):
        value = np.nextafter(value, np.float32(np.inf))
    a, b = np.array([start], np.float32), np.array([value], np.float32)
    # nextafter passes over one of the two zeros, which the comparer counts apart.
    crosses_zero = bool((np.signbit(a) & ~np.signbit(b))[0])
    assert int(ulp_distance(a, b)[0]) in ({steps, steps + 1} if crosses_zero else {steps})


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_distance_is_zero_exactly_where_the_bits_are_equal(a: int, b: int) -> None:
    same = bool((bits(f32(a)) == bits(f32(b))).all())
    assert (int(ulp_distance(f32(a), f32(b))[0]) == 0) == same


def test_bits_refuse_what_is_not_binary32() -> None:
    with pytest.raises(TypeError):
        bits(np.zeros(3))  # type: ignore[arg-type]


def test_equal_stacks_match() -> None:
    stack = np.random.default_rng(1).normal(size=(50, 10)).astype(np.float32)
    stack[7, 3] = np.nan
    comparison = compare_vectors(stack, stack.copy())
    assert comparison.exact
    assert (comparison.matching, comparison.total, comparison.max_ulp, comparison.failing) == (50, 50, 0, ())


@given(st.sets(st.integers(0, 29), min_size=1, max_size=10), st.integers(0, 9), st.integers(1, 1000))
def test_every_injected_difference_is_found(rows: set[int], column: int, ulp: int) -> None:
    host = np.linspace(1.0, 1.5, 300, dtype=np.float32).reshape(30, 10)
    device = host.copy()
    pattern = device.view(np.uint32)
    for row in rows:
        pattern[row, column] += np.uint32(ulp)
    comparison = compare_vectors(device, host)
    assert not comparison.exact
    assert comparison.failing == tuple(sorted(rows))
    assert comparison.matching == 30 - len(rows)
    assert comparison.max_ulp == ulp
    assert [int(u) for u in np.flatnonzero(comparison.row_ulp)] == sorted(rows)


def test_a_zero_of_the_other_sign_is_a_difference() -> None:
    comparison = compare_vectors(np.array([[0.0, -0.0]], np.float32), np.array([[0.0, 0.0]], np.float32))
    assert (comparison.matching, comparison.max_ulp, comparison.failing) == (0, 1, (0,))


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError):
        compare_vectors(np.zeros((2, 3), np.float32), np.zeros((3, 2), np.float32))


def test_nothing_compared_is_not_called_different() -> None:
    comparison = compare_vectors(np.zeros((0, 10), np.float32), np.zeros((0, 10), np.float32))
    assert (comparison.matching, comparison.total, comparison.max_ulp) == (0, 0, 0)
