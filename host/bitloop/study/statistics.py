"""Statistics of paired classifiers and of seeds, as pure functions.

Non-inferiority is judged by Tango's score interval (T. Tango, Equivalence test and confidence interval for the
difference in proportions for the paired-sample design, Statistics in Medicine 17, 1998, 891-908). Two formats are
tried on the same images and differ on a few of them: the pairs must be used, and the numbers of discordant images are
small, often 0 on one side, where the Wald interval has no width at all. Tango's inverts the score test, whose variance
is taken at the difference that is tested and not at the one observed. So it keeps a width with no discordant pair,
never leaves [-1, 1], and says the same as the test: the bound is below the margin exactly if the test rejects it.
Newcombe's method 10 (Statistics in Medicine 17, 1998, 2635-2650) is near to it and closed, but is no test's inverse.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from bitloop.bench import metrics
from bitloop.errors import UsageError

__all__ = [
    "CONFIDENCE",
    "MARGIN",
    "Comparison",
    "Difference",
    "Spread",
    "compare",
    "difference_interval",
    "loss_bound",
    "loss_p",
    "mcnemar_p",
    "spread",
]

CONFIDENCE = 0.95
"""One-sided, of the bound of a loss."""
MARGIN = 0.003
"""The loss of accuracy that is put up with, unless said otherwise: 0.3 points."""


@dataclass(frozen=True)
class Comparison:
    """A candidate against a reference on the same images.

    Attributes:
        only_reference: images that only the reference gets right.
        only_candidate: images that only the candidate gets right.
        total: all images.
        loss: accuracy of the reference less that of the candidate, in [-1, 1]; negative where the candidate is better.
        bound: the upper one-sided 95 % bound of the loss (Tango, 1998).
        p: of the exact two-sided McNemar test, as a description.
    """

    only_reference: int
    only_candidate: int
    total: int
    loss: float
    bound: float
    p: float

    def is_non_inferior(self, margin: float = MARGIN) -> bool:
        """Tell whether the loss is at most ``margin``, with 95 % confidence."""
        return self.bound <= margin


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of a figure over seeds; ``sd`` is None of one seed alone."""

    mean: float
    sd: float | None
    count: int


@dataclass(frozen=True)
class Difference:
    """A difference of two means, with half of its two-sided 95 % interval: None where a side has one value alone."""

    difference: float
    half_width: float | None


def compare(reference: npt.NDArray[np.bool_], candidate: npt.NDArray[np.bool_]) -> Comparison:
    """Compare which images two classifiers get right.

    Args:
        reference: bool ``[N]``, N at least 1.
        candidate: bool ``[N]``, of the same images.

    Raises:
        ValueError: they are not of the same images, or of none.
    """
    if reference.shape != candidate.shape or reference.ndim != 1 or not reference.size:
        raise ValueError(f"two vectors of one length are compared, not {reference.shape} and {candidate.shape}")
    only_reference = int((reference & ~candidate).sum())
    only_candidate = int((candidate & ~reference).sum())
    total = int(reference.size)
    return Comparison(
        only_reference=only_reference,
        only_candidate=only_candidate,
        total=total,
        loss=(only_reference - only_candidate) / total,
        bound=loss_bound(only_reference, only_candidate, total),
        p=mcnemar_p(only_reference, only_candidate),
    )


def loss_bound(only_reference: int, only_candidate: int, total: int, *, confidence: float = CONFIDENCE) -> float:
    """Return the upper one-sided bound of the loss of accuracy: the end of Tango's score interval (1998).

    It is the greatest loss that the one-sided score test does not reject: that with
    ``(b - c - n·d) / sqrt(n·(2·q + d·(1 - d))) = -z``, where ``b`` and ``c`` count the images that only the reference
    and only the candidate get right, and ``q`` is the likeliest probability of the latter given the loss ``d``.

    Args:
        only_reference: ``b``.
        only_candidate: ``c``.
        total: ``n``, all images.
        confidence: one-sided, in (0.5, 1).

    Returns:
        The bound, in [loss, 1].

    Raises:
        ValueError: the counts are impossible, or the confidence is out of range.
    """
    _check(only_reference, only_candidate, total)
    if not 0.5 < confidence < 1.0:
        raise ValueError(f"the one-sided confidence lies between 0.5 and 1, not at {confidence}")
    z = NormalDist().inv_cdf(confidence)
    loss = (only_reference - only_candidate) / total
    return _bisect(lambda d: _score(d, only_reference, only_candidate, total) > -z, loss, 1.0)


def loss_p(only_reference: int, only_candidate: int, total: int, *, margin: float = MARGIN) -> float:
    """Return the one-sided p of Tango's score test of "the loss is ``margin`` or more", in [0, 1].

    It is below 1 - confidence exactly where :func:`loss_bound` is below the margin.

    Raises:
        ValueError: the counts are impossible, or the margin is not in (0, 1).
    """
    _check(only_reference, only_candidate, total)
    if not 0.0 < margin < 1.0:
        raise ValueError(f"a margin lies between 0 and 1, not at {margin}")
    return NormalDist().cdf(_score(margin, only_reference, only_candidate, total))


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Return the exact two-sided p of McNemar's test (1947), 1 without discordant pairs; by scipy where it is there.

    Raises:
        ValueError: for a negative count.
    """
    try:
        from scipy.stats import binomtest  # noqa: PLC0415 - optional, and slow to load
    except ImportError:
        return metrics.mcnemar_exact_p(only_first, only_second)
    if only_first < 0 or only_second < 0:
        raise ValueError(f"counts are not negative: {only_first}, {only_second}")
    total = only_first + only_second
    return float(binomtest(only_first, total, 0.5).pvalue) if total else 1.0


def spread(values: Sequence[float]) -> Spread:
    """Return mean and sample standard deviation (divisor n - 1) of finite values, one a seed.

    Raises:
        ValueError: there are none, or one is not finite.
    """
    if not values or not all(math.isfinite(value) for value in values):
        raise ValueError(f"mean and standard deviation are of finite values, one at least, not of {list(values)}")
    count = len(values)
    mean = math.fsum(values) / count
    if count == 1:
        return Spread(mean, None, 1)
    return Spread(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1)), count)


def difference_interval(values: Sequence[float], reference: Sequence[float]) -> Difference:
    """Return the difference of two means with Welch's interval (B. L. Welch, Biometrika 34, 1947, 28-35).

    Args:
        values: one a seed.
        reference: the same of what it is held against; as many or not.

    Returns:
        Mean of ``values`` less that of ``reference``. Where both sides have no spread at all the interval has no width.

    Raises:
        ValueError: as :func:`spread`.
        UsageError: scipy is not installed.
    """
    a, b = spread(values), spread(reference)
    difference = a.mean - b.mean
    if a.sd is None or b.sd is None:
        return Difference(difference, None)
    variances = a.sd**2 / a.count, b.sd**2 / b.count
    total = sum(variances)
    if total == 0.0:
        return Difference(difference, 0.0)
    freedom = total**2 / (variances[0] ** 2 / (a.count - 1) + variances[1] ** 2 / (b.count - 1))
    try:
        from scipy.stats import t  # noqa: PLC0415 - optional, and slow to load
    except ImportError as error:
        raise UsageError("the interval of a difference needs scipy: pip install 'bitloop[study]'") from error
    return Difference(difference, float(t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(total))


def _score(d: float, b: int, c: int, n: int) -> float:
    """Return Tango's statistic of the loss ``d``; it falls as ``d`` grows, from the observed loss to 1."""
    # q solves 2n·q² + B·q - c·d·(1 - d) = 0. Where B > 0 the root is written so that nothing cancels.
    linear = (2 * n - b + c) * d - (b + c)
    root = math.sqrt(linear * linear + 8.0 * n * c * d * (1.0 - d))
    q = 2.0 * c * d * (1.0 - d) / (root + linear) if linear > 0 else (root - linear) / (4.0 * n)
    difference = b - c - n * d
    variance = n * (2.0 * q + d * (1.0 - d))
    if variance <= 0.0:
        return 0.0 if difference == 0.0 else math.copysign(math.inf, difference)
    return difference / math.sqrt(variance)


def _bisect(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return where a condition that holds from ``low`` on ends, to the last bit; ``high`` if it does not end."""
    while True:
        middle = low + (high - low) / 2.0
        if not low < middle < high:
            return high
        if holds(middle):
            low = middle
        else:
            high = middle


def _check(only_reference: int, only_candidate: int, total: int) -> None:
    if min(only_reference, only_candidate) < 0 or total < 1 or only_reference + only_candidate > total:
        raise ValueError(
            f"of {total} images, {only_reference} and {only_candidate} cannot be those that only one of two gets right"
        )
