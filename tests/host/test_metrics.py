"""Metrics against published examples and counts done by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitloop.bench.metrics import confusion_matrix, mcnemar_exact_p, percentile, summarize, wilson


def test_wilson_gives_the_published_intervals() -> None:
    # R. G. Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998),
    # table I, method 3 (score, without continuity correction).
    for correct, total, low, high in ((81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (1, 29, 0.0061, 0.1718)):
        interval = wilson(correct, total)
        assert interval.low == pytest.approx(low, abs=5e-5)
        assert interval.high == pytest.approx(high, abs=5e-5)
        assert interval.value == correct / total
    assert wilson(0, 20).low == 0.0
    assert wilson(0, 20).high == pytest.approx(0.1611, abs=5e-5)


def test_wilson_interval_of_none_and_all_is_closed_at_the_end() -> None:
    assert wilson(20, 20).high == 1.0
    assert wilson(20, 20).low == pytest.approx(1 - wilson(0, 20).high)


@given(st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_holds_its_proportion_and_lies_in_the_unit_interval(counts: tuple[int, int]) -> None:
    interval = wilson(*counts)
    assert 0.0 <= interval.low <= interval.value <= interval.high <= 1.0


@pytest.mark.parametrize("counts", [(0, 0), (-1, 5), (6, 5)])
def test_wilson_refuses_impossible_counts(counts: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match="proportion"):
        wilson(*counts)


def test_percentile_is_nearest_rank() -> None:
    # The textbook sample of the nearest-rank method: 15, 20, 35, 40, 50.
    sample = [40, 15, 50, 35, 20]
    assert [percentile(sample, p) for p in (5, 30, 40, 50, 100)] == [15, 20, 20, 35, 50]
    # 95 % of 20 values is rank 19 exactly; 99 % of 100 is rank 99.
    assert percentile(list(range(1, 21)), 95) == 19
    assert percentile(list(range(1, 101)), 99) == 99


@pytest.mark.parametrize(("sample", "percent"), [([], 50), ([1.0], 0), ([1.0], 101)])
def test_percentile_refuses(sample: list[float], percent: float) -> None:
    with pytest.raises(ValueError):
        percentile(sample, percent)


def test_summary_by_hand() -> None:
    summary = summarize(np.array([4, 1, 3, 2, 10], dtype=np.uint64))
    assert (summary.min, summary.median, summary.mean, summary.p95, summary.p99, summary.max) == (1, 3, 4, 10, 10, 10)
    with pytest.raises(ValueError):
        summarize([])


@given(st.lists(st.integers(0, 2**40), min_size=1, max_size=200))
def test_summary_is_ordered(sample: list[int]) -> None:
    s = summarize(sample)
    assert s.min <= s.median <= s.p95 <= s.p99 <= s.max
    assert {s.min, s.median, s.p95, s.p99, s.max} <= {float(value) for value in sample}


def test_confusion_matrix_by_hand() -> None:
    matrix = confusion_matrix(np.array([0, 0, 1, 2, 2, 2]), np.array([0, 1, 1, 2, 0, 2]), 3)
    assert matrix.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 2]]
    assert confusion_matrix(np.array([], dtype=int), np.array([], dtype=int), 2).tolist() == [[0, 0], [0, 0]]


@pytest.mark.parametrize("predicted", [[0, 3], [0, -1], [0]])
def test_confusion_matrix_refuses_labels_that_cannot_be(predicted: list[int]) -> None:
    with pytest.raises(ValueError):
        confusion_matrix(np.array([0, 1]), np.array(predicted), 3)


def test_mcnemar_by_hand_and_against_scipy() -> None:
    assert mcnemar_exact_p(0, 0) == 1.0
    assert mcnemar_exact_p(0, 5) == 2 / 32  # both tails of five heads
    assert mcnemar_exact_p(3, 3) == 1.0
    # b = 9, c = 1: 2 * (1 + 10) / 1024.
    assert mcnemar_exact_p(9, 1) == 22 / 1024
    assert 0.0 < mcnemar_exact_p(4000, 3000) < 1e-30
    stats = pytest.importorskip("scipy.stats", reason="scipy, the oracle, is not installed")
    for b, c in ((1, 12), (40, 60), (500, 520)):
        assert math.isclose(mcnemar_exact_p(b, c), stats.binomtest(b, b + c).pvalue, rel_tol=1e-9)
    with pytest.raises(ValueError):
        mcnemar_exact_p(-1, 2)
