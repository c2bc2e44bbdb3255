"""Statistics against published figures, scipy and statsmodels, and a likelihood maximised in another way."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar

from bitloop.bench.metrics import mcnemar_exact_p
from bitloop.study.statistics import compare, loss_bound, loss_p, mcnemar_p, spread

TWO_SIDED_95 = 0.975
"""The one-sided confidence at which a bound is the end of a two-sided 95 % interval."""


def interval(b: int, c: int, n: int) -> tuple[float, float]:
    """The two-sided 95 % interval of (b - c) / n: the lower end is the upper one of the pair turned round."""
    return -loss_bound(c, b, n, confidence=TWO_SIDED_95), loss_bound(b, c, n, confidence=TWO_SIDED_95)


# Tango's interval as others have published it: R's PropCIs::scoreci.mp of 60 against 20 and of 20 against 60 in
# 1,000 (to four digits), and Fagerland, Lydersen and Laake, Statistics in Medicine 33, 2014, 2850: airway
# hyper-responsiveness of 21 children, 1 against 7 (to three).
@pytest.mark.parametrize(
    ("counts", "published", "digits"),
    [
        ((60, 20, 1000), (0.0231, 0.0584), 4),
        ((20, 60, 1000), (-0.0584, -0.0231), 4),
        ((1, 7, 21), (-0.517, -0.026), 3),
    ],
)
def test_published_intervals(counts: tuple[int, int, int], published: tuple[float, float], digits: int) -> None:
    low, high = interval(*counts)
    assert (round(low, digits), round(high, digits)) == published


def test_without_discordant_pairs_the_bound_is_the_one_of_hand() -> None:
    # b = c = 0: q is 0, so d / (1 - d) = z² / n.
    z2 = stats.norm.ppf(0.95) ** 2
    assert loss_bound(0, 0, 5000) == pytest.approx(z2 / (5000 + z2), rel=1e-12)


def score_by_likelihood(d: float, b: int, c: int, n: int) -> float:
    """Tango's statistic, q found by maximising the multinomial likelihood under the loss d, not by its formula."""

    def minus_log_likelihood(q: float) -> float:
        terms = ((b, q + d), (c, q), (n - b - c, 1 - 2 * q - d))
        return -sum(count * math.log(p) for count, p in terms if count)

    least, most = max(0.0, -d) + 1e-15, (1 - d) / 2 - 1e-15
    q = optimize.minimize_scalar(minus_log_likelihood, bounds=(least, most), options={"xatol": 1e-13}).x
    return float((b - c - n * d) / math.sqrt(n * (2 * q + d - d * d)))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 60), st.integers(1, 60), st.integers(0, 5000), st.sampled_from((0.9, 0.95, 0.975)))
def test_at_the_bound_the_score_of_the_likelihood_is_the_quantile(b: int, c: int, more: int, confidence: float) -> None:
    n = b + c + more + 1
    bound = loss_bound(b, c, n, confidence=confidence)
    assert (b - c) / n < bound <= 1
    assert score_by_likelihood(bound, b, c, n) == pytest.approx(-stats.norm.ppf(confidence), rel=2e-4)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 3000), st.floats(1e-4, 0.2))
def test_bound_and_test_say_the_same(b: int, c: int, more: int, margin: float) -> None:
    n = b + c + more + 1
    bound = loss_bound(b, c, n)
    if abs(bound - margin) > 1e-9:
        assert (bound < margin) == (loss_p(b, c, n, margin=margin) < 0.05)


def test_more_lost_images_raise_the_bound() -> None:
    bounds = [loss_bound(b, 5, 1000) for b in range(30)]
    assert bounds == sorted(set(bounds))


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (0, 9), (7, 7), (3, 12), (40, 71), (600, 700)])
def test_mcnemar_is_that_of_statsmodels(b: int, c: int, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = mcnemar([[10, b], [c, 10]], exact=True).pvalue if b + c else 1.0
    assert mcnemar_p(b, c) == pytest.approx(expected, rel=1e-12)
    assert mcnemar_exact_p(b, c) == pytest.approx(expected, rel=1e-12)
    monkeypatch.setitem(sys.modules, "scipy.stats", None)  # as on a machine without scipy
    assert mcnemar_p(b, c) == mcnemar_exact_p(b, c)


def test_compare_counts_pairs() -> None:
    reference = np.array([1, 1, 1, 0, 0, 1, 1, 0, 1, 1], np.bool_)
    candidate = np.array([1, 0, 0, 1, 0, 1, 0, 0, 1, 1], np.bool_)
    found = compare(reference, candidate)
    assert (found.only_reference, found.only_candidate, found.total) == (3, 1, 10)
    assert found.loss == pytest.approx(0.2)
    assert found.p == 0.625  # 2 · (1 + 4) / 16
    assert found.bound == loss_bound(3, 1, 10)
    assert found.is_non_inferior(0.9)
    assert not found.is_non_inferior(0.2)


@pytest.mark.parametrize("values", [[0.98], [0.981, 0.979], [1.0, 2.0, 4.0, 8.5]])
def test_spread_is_that_of_scipy(values: list[float]) -> None:
    found = spread(values)
    assert (found.mean, found.count) == (pytest.approx(np.mean(values)), len(values))
    assert found.sd == (None if len(values) == 1 else pytest.approx(stats.tstd(values)))


def test_impossible_counts_are_refused() -> None:
    for b, c, n in ((-1, 0, 5), (0, -1, 5), (3, 3, 5), (0, 0, 0)):
        with pytest.raises(ValueError, match="cannot be"):
            loss_bound(b, c, n)
    with pytest.raises(ValueError, match="confidence"):
        loss_bound(1, 1, 5, confidence=0.5)
    with pytest.raises(ValueError, match="margin"):
        loss_p(1, 1, 5, margin=0.0)
    with pytest.raises(ValueError, match="not negative"):
        mcnemar_p(-1, 2)
    with pytest.raises(ValueError, match="finite"):
        spread([])
    with pytest.raises(ValueError, match="finite"):
        spread([1.0, math.nan])
    with pytest.raises(ValueError, match="one length"):
        compare(np.zeros(3, np.bool_), np.zeros(4, np.bool_))
