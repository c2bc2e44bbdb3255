"""Metrics as pure functions: nothing here opens a file, a port or a clock."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = [
    "Proportion",
    "Summary",
    "confusion_matrix",
    "in_units",
    "mcnemar_exact_p",
    "percentile",
    "summarize",
    "wilson",
]


@dataclass(frozen=True)
class Proportion:
    """A proportion with its confidence interval: ``low <= value <= high``, all in [0, 1]."""

    value: float
    low: float
    high: float
    correct: int
    total: int


@dataclass(frozen=True)
class Summary:
    """Order statistics of a sample, in its unit. Percentiles are nearest-rank, so each is a measured value."""

    min: float
    median: float
    mean: float
    p95: float
    p99: float
    max: float


def wilson(correct: int, total: int, *, confidence: float = 0.95) -> Proportion:
    """Return a proportion with its Wilson score interval (E. B. Wilson, 1927), without continuity correction.

    Args:
        correct: successes, 0 to ``total``.
        total: trials, 1 or more.
        confidence: two-sided confidence level, inside (0, 1).

    Returns:
        The proportion and its interval; the interval is cut to [0, 1] and always holds the proportion.

    Raises:
        ValueError: for counts that are impossible.
    """
    if total < 1 or not 0 <= correct <= total:
        raise ValueError(f"a proportion needs 0 <= correct <= total and total >= 1, not {correct} of {total}")
    if not 0.0 < confidence < 1.0:
        raise ValueError(f"the confidence level lies between 0 and 1, not at {confidence}")
    z = NormalDist().inv_cdf(0.5 + confidence / 2.0)
    p = correct / total
    denominator = 1.0 + z * z / total
    centre = (p + z * z / (2.0 * total)) / denominator
    half = z / denominator * math.sqrt(p * (1.0 - p) / total + z * z / (4.0 * total * total))
    # At the ends the formula gives exactly 0 or 1 but for its own rounding.
    low = 0.0 if correct == 0 else max(0.0, centre - half)
    high = 1.0 if correct == total else min(1.0, centre + half)
    return Proportion(value=p, low=low, high=high, correct=correct, total=total)


def percentile(values: Sequence[float] | npt.NDArray[np.generic], percent: float) -> float:
    """Return the nearest-rank percentile: the smallest value that at least ``percent`` % of the sample do not exceed.

    Args:
        values: a non-empty sample, in any order, without NaN.
        percent: above 0, up to 100.

    Raises:
        ValueError: for an empty sample, or a percentage out of range.
    """
    data = np.sort(np.asarray(values, dtype=np.float64), axis=None)
    if data.size == 0:
        raise ValueError("an empty sample has no percentiles")
    if not 0.0 < percent <= 100.0:
        raise ValueError(f"a percentile lies above 0 and at most at 100, not at {percent}")
    # percent * n / 100, in this order: 95 * 20 / 100 is exactly 19, 0.95 * 20 need not be.
    rank = math.ceil(percent * data.size / 100.0)
    return float(data[rank - 1])


def summarize(values: Sequence[float] | npt.NDArray[np.generic]) -> Summary:
    """Return the order statistics of a non-empty sample; median, p95 and p99 are nearest-rank percentiles.

    Raises:
        ValueError: for an empty sample.
    """
    data = np.asarray(values, dtype=np.float64)
    if data.size == 0:
        raise ValueError("an empty sample cannot be summarized")
    return Summary(
        min=float(data.min()),
        median=percentile(data, 50.0),
        mean=math.fsum(data.ravel().tolist()) / data.size,
        p95=percentile(data, 95.0),
        p99=percentile(data, 99.0),
        max=float(data.max()),
    )


def in_units(ticks: npt.NDArray[np.unsignedinteger[Any]], units_per_tick: float) -> npt.NDArray[np.uint64]:
    """Turn ticks into the unit that is shown, rounded to whole ones; a factor of 1 changes nothing.

    A tick is the finest that was measured: at 0.768 ticks an instruction a figure may be one instruction off.
    """
    if units_per_tick == 1.0:
        return ticks.astype(np.uint64)
    return np.rint(ticks * np.float64(units_per_tick)).astype(np.uint64)


def confusion_matrix(
    true: npt.NDArray[np.integer], predicted: npt.NDArray[np.integer], classes: int
) -> npt.NDArray[np.int64]:
    """Count the pairs of true and predicted labels.

    Args:
        true: labels, ``[N]``, each in [0, classes).
        predicted: labels, ``[N]``, each in [0, classes).
        classes: number of classes, 1 or more.

    Returns:
        int64 ``[classes, classes]``: row the true label, column the predicted one.

    Raises:
        ValueError: if the lengths differ or a label is out of range.
    """
    t = np.asarray(true, dtype=np.int64)
    p = np.asarray(predicted, dtype=np.int64)
    if t.shape != p.shape or t.ndim != 1:
        raise ValueError(f"labels are two vectors of one length, not {t.shape} and {p.shape}")
    for name, labels in (("true", t), ("predicted", p)):
        if labels.size and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
            raise ValueError(f"a {name} label lies outside of 0..{classes - 1}")
    return np.bincount(t * classes + p, minlength=classes * classes).reshape(classes, classes)


def mcnemar_exact_p(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p of McNemar's test (Q. McNemar, 1947): a binomial test of the discordant pairs.

    Args:
        only_first: images that only the first classifier gets right.
        only_second: images that only the second one gets right.

    Returns:
        ``min(1, 2 * P[X <= min(b, c)])`` with ``X ~ Binomial(b + c, 1/2)``; 1 without discordant pairs.

    Raises:
        ValueError: for a negative count.
    """
    if only_first < 0 or only_second < 0:
        raise ValueError(f"counts are not negative: {only_first}, {only_second}")
    n = only_first + only_second
    tail = sum(math.comb(n, k) for k in range(min(only_first, only_second) + 1))
    return min(1.0, float(2 * tail / 2**n))
