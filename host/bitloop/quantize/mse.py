"""The scale with the least squared error of a tensor (docs/quantization.md, "Scales by squared error").

A scale here may let large values clip where that serves the many small ones. Errors are correctly rounded sums, or
sums in a fixed order, so that the result is the same on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from bitloop.numeric.codec import decode, encode, is_finite_code
from bitloop.numeric.formats import Format
from bitloop.numeric.rounding import Rounding
from bitloop.spec import ScaleKind

F64 = npt.NDArray[np.float64]

MIN_SCALE = 2.0**-126
MAX_ELEMENT = 2.0**32
"""Scaled elements are kept at or below this magnitude, so that a sum of products stays far from infinity.

A format that reaches beyond gets no scale below the covering one.
"""
EXACT_BREAKPOINTS = 1 << 21
"""Most breakpoints of a group that are all looked at; beyond, scales are tried on a grid."""
STEPS_PER_OCTAVE = 16
REFINEMENTS = 50
_STARTS = 3
_ZERO_POINTS = 16


def squared_error(
    values: F64, scale: float, fmt: Format, rounding: Rounding = Rounding.NEAREST, *, zero_point: int = 0
) -> float:
    """Return the sum of squared differences of values and what they become, correctly rounded.

    Args:
        values: finite, one dimension.
        scale: a normal binary32 number.
        fmt: their format.
        rounding: between two elements; stochastic is taken as nearest.
        zero_point: of an affine tensor.
    """
    rounding = Rounding.NEAREST if rounding is Rounding.STOCHASTIC else rounding
    codes = encode(values / scale, fmt, rounding, zero_point=zero_point)
    with np.errstate(over="ignore", under="ignore"):
        stands_for = decode(codes, fmt, zero_point) * np.float32(scale)
    differences = stands_for.astype(np.float64) - values
    return math.fsum((differences * differences).tolist())


def least_squares_scale(values: F64, fmt: Format, kind: ScaleKind, covering: float, rounding: Rounding) -> float:
    """Return the scale of one group with the least squared error, the covering one where none is better.

    Args:
        values: finite, one dimension: those that share the scale.
        fmt: symmetric; not ternary or binary, whose scales have least squares already.
        kind: ``POW2``: every exponent that can be best is tried. ``FP32``: the optimum over all scales, by breakpoints,
            where they are few enough; else a grid of 16 scales an octave, refined by alternating least squares.
        covering: the smallest with which nothing clips.
        rounding: in which the result must be no worse than ``covering``. The search itself rounds to nearest.
    """
    sizes = _reachable(values, fmt)
    if not sizes.any():
        return covering
    if kind is ScaleKind.POW2:
        starts = _descending(values, fmt, covering, steps=1)
        found = [min(starts, key=lambda start: start[0])[1]]
    else:
        found = _free_scales(values, fmt, covering)
    best, best_error = covering, squared_error(values, covering, fmt, rounding)
    for scale in found:
        error = squared_error(values, scale, fmt, rounding)
        if error < best_error:
            best, best_error = scale, error
    return best


def least_squares_affine(
    values: F64, fmt: Format, kind: ScaleKind, covering: tuple[float, int], rounding: Rounding
) -> tuple[float, int]:
    """Return scale and zero point of one group with the least squared error on a grid.

    The grid: scales down from the covering one (powers of two, or 16 an octave) until clipping alone costs more than
    the best so far, and for each up to 16 zero points, from the one that clips nothing below to the one that clips
    nothing above.

    Args:
        values: finite, one dimension.
        fmt: an integer or fixed point format.
        kind: ``NONE`` tries zero points alone.
        covering: what is taken by default, and stays where nothing is better.
        rounding: stochastic is taken as nearest.
    """
    low, high = fmt.integer_limits
    step = 2.0**-fmt.fraction_bits
    least, greatest = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    best = covering
    best_error = squared_error(values, covering[0], fmt, rounding, zero_point=covering[1])
    for number in range(1 if kind is ScaleKind.NONE else 64 * STEPS_PER_OCTAVE):
        scale = _lower(covering[0], number, 1 if kind is ScaleKind.POW2 else STEPS_PER_OCTAVE)
        span = (high - low) * step * scale
        if scale < MIN_SCALE or _window_error(values, span) > best_error:
            break
        ends = (low - least / (scale * step), high - greatest / (scale * step))  # nothing clips below, or above
        for zero in sorted({min(max(round(z), low), high) for z in np.linspace(*ends, _ZERO_POINTS)}):
            error = squared_error(values, scale, fmt, rounding, zero_point=zero)
            if error < best_error:
                best, best_error = (scale, zero), error
    return best


def _reachable(values: F64, fmt: Format) -> F64:
    """Return magnitudes, 0 for negative values in formats that have no negative elements."""
    return np.abs(values) if fmt.signed else np.maximum(values, 0.0)


def _lower(covering: float, number: int, steps: int) -> float:
    """Return the covering scale divided by ``2 ** (number / steps)``, as a binary32 number."""
    octaves, part = divmod(number, steps)
    return float(np.float32(math.ldexp(covering * 0.5 ** (part / steps), -octaves)))


def _descending(values: F64, fmt: Format, covering: float, steps: int) -> Iterator[tuple[float, float]]:
    """Yield error and scale, downward, until clipping alone costs more than the best error.

    Elements at twice a scale are among those at the scale itself, as far as they reach: above the covering power of two
    none is better, free scales of floats repeat themselves an octave up, and integers only grow coarser.
    """
    first = 0
    if steps > 1 and fmt.max_finite <= MAX_ELEMENT:
        first = 1 - steps if fmt.is_float else -2
    best = math.inf
    for number in range(first, 300 * steps):
        scale = _lower(covering, number, steps)
        if scale < MIN_SCALE or (number > 0 and fmt.max_finite > MAX_ELEMENT):
            return
        if _clipping_error(values, fmt, scale) * (1 - 1e-9) > best:
            return
        error = squared_error(values, scale, fmt)
        best = min(best, error)
        yield error, scale


def _clipping_error(values: F64, fmt: Format, scale: float) -> float:
    """Return the squared error of what lies beyond the largest elements: it only grows as the scale shrinks."""
    over = np.maximum(values - fmt.max_finite * scale, 0.0) + np.maximum(fmt.min_finite * scale - values, 0.0)
    return float((over * over).sum())


def _window_error(values: F64, span: float) -> float:
    """Return a bound below the squared error when all values become numbers within a window of some width."""
    beyond = max(float(values.max()) - float(values.min()) - span, 0.0)
    return beyond * beyond / 2 * (1 - 1e-9)


def _free_scales(values: F64, fmt: Format, covering: float) -> list[float]:
    """Return scales worth comparing with the covering one."""
    count = int(np.count_nonzero(values))
    if fmt.width_bits <= 12 and fmt.max_finite <= MAX_ELEMENT and count << fmt.width_bits - 1 <= EXACT_BREAKPOINTS:
        return [_refined(values, fmt, _exact(values, fmt))]
    starts = sorted(_descending(values, fmt, covering, STEPS_PER_OCTAVE))[:_STARTS]
    least = covering if fmt.max_finite > MAX_ELEMENT else MIN_SCALE
    return [scale for _, start in starts if (scale := _refined(values, fmt, start)) >= least]


def _exact(values: F64, fmt: Format) -> float:
    """Return the scale with the least squared error over all scales.

    With fixed elements e of all values w the best scale is A / B, A = Σ w·e and B = Σ e², and the error Σ w² - A² / B.
    The best scale rounds each w to its nearest element, and is A / B of those elements: so it is the A / B with the
    greatest A² / B among all sets of elements that some scale makes nearest. As the scale falls from infinity, the
    element of w steps from e to the next one e' as |w| / scale passes the midpoint of |e| and |e'|: sorted, these
    breakpoints are one pass over all the sets. (Ternary's problem in Li and Liu, 2016, has one breakpoint a value; this
    is the same for any number of elements.)
    """
    table = decode(np.arange(1 << fmt.width_bits, dtype=np.uint32), fmt).astype(np.float64)
    finite = table[is_finite_code(np.arange(1 << fmt.width_bits, dtype=np.uint32), fmt)]
    points, gains, squares = [], [], []
    for sign in (1.0, -1.0):
        elements = np.unique(np.maximum(sign * finite, 0.0))  # 0 first
        sizes = np.maximum(sign * values, 0.0)
        sizes = sizes[sizes > 0]
        middles = (elements[1:] + elements[:-1]) / 2
        points.append((sizes[:, None] / middles).reshape(-1))
        gains.append((sizes[:, None] * np.diff(elements)).reshape(-1))
        squares.append(np.broadcast_to(np.diff(elements**2), (sizes.size, middles.size)).reshape(-1))
    order = np.argsort(-np.concatenate(points), kind="stable")
    a = np.cumsum(np.concatenate(gains)[order])
    b = np.cumsum(np.concatenate(squares)[order])
    best = int(np.argmax(a * (a / b)))
    return float(a[best] / b[best])


def _refined(values: F64, fmt: Format, start: float) -> float:
    """Return a scale no worse than ``start``: nearest elements and best scale in turn, until neither changes."""
    scale = _binary32(start)
    for _ in range(REFINEMENTS):
        elements = decode(encode(values / scale, fmt), fmt).astype(np.float64)
        a = math.fsum((values * elements).tolist())
        b = math.fsum((elements * elements).tolist())
        if not a > 0 or not b > 0:
            return scale
        following = _binary32(a / b)
        if following == scale:
            return scale
        scale = following
    return scale


def _binary32(scale: float) -> float:
    """Return the nearest normal binary32 number."""
    return float(np.float32(min(max(scale, MIN_SCALE), float(np.finfo(np.float32).max))))
