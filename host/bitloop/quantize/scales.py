"""Scales and zero points from values (docs/formats.md, "Default scales"; docs/quantization.md for other rules).

Everything is computed in binary64, group by group, and rounded to binary32 at the end. Sums are correctly rounded
(``math.fsum``) or run in a fixed order, so that a model is the same to the byte on every machine.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from bitloop.errors import FormatError
from bitloop.numeric.formats import Format
from bitloop.quantize.mse import MAX_ELEMENT, least_squares_affine, least_squares_scale
from bitloop.quantize.spec import ScaleRule, TensorSpec
from bitloop.spec import FormatKind, ScaleKind

__all__ = ["MAX_ELEMENT", "choose_scales"]

F64 = npt.NDArray[np.float64]

MIN_SCALE_EXPONENT = -126
MAX_SCALE_EXPONENT = 127
_MIN_SCALE = 2.0**MIN_SCALE_EXPONENT
_MAX_SCALE = float(np.finfo(np.float32).max)


def choose_scales(groups: F64, spec: TensorSpec) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32] | None]:
    """Return scales, and zero points where the spec is affine.

    Args:
        groups: ``[elements, groups]``, finite: the values that share a scale stand in a column.
        spec: what is asked for. With scale ``none`` the scales are 1. ``output`` takes more than values; here it is
            taken as ``mse``.

    Returns:
        ``scales[groups]``, positive and normal; ``zero_points[groups]`` inside the integers' range, or None.

    Raises:
        FormatError: no normal binary32 scale keeps the values from clipping, or the format has no element but zero.
    """
    if spec.affine:
        return _affine(groups, spec) if spec.rule is ScaleRule.COVER else _fitted_affine(groups, spec)
    if spec.scale is ScaleKind.NONE:
        return np.ones(groups.shape[1], dtype=np.float32), None
    if spec.format.kind is FormatKind.TERNARY:
        choose = _ternary_pow2 if spec.scale is ScaleKind.POW2 else _ternary
        return _finish([choose(column) for column in np.abs(groups).T], spec.scale), None
    if spec.format.kind is FormatKind.BINARY:
        choose = _binary_pow2 if spec.scale is ScaleKind.POW2 else _mean
        return _finish([choose(column) for column in np.abs(groups).T], spec.scale), None
    size = np.abs(groups) if spec.format.signed else np.maximum(groups, 0.0)
    scales = _covering(size.max(axis=0, initial=0.0), _largest_element(spec.format), spec)
    return scales if spec.rule is ScaleRule.COVER else _fitted(groups, scales, spec), None


def _largest_element(fmt: Format) -> float:
    largest = min(fmt.max_finite, MAX_ELEMENT)
    if largest == 0.0:
        raise FormatError(f"{fmt.name} has no element but zero, so no scale helps; take another format")
    return largest


def _covering(size: F64, largest: float, spec: TensorSpec) -> npt.NDArray[np.float32]:
    """Return the smallest scales with ``size / scale <= largest``; 1 where the size is zero."""
    if spec.scale is ScaleKind.POW2:
        part, exponent = np.frexp(size)
        largest_part, largest_exponent = np.frexp(largest)
        wanted = exponent - largest_exponent + (part > largest_part)
        scales = np.ldexp(1.0, np.maximum(wanted, MIN_SCALE_EXPONENT))
    else:
        scales = np.maximum(size / largest, _MIN_SCALE)
    scales = np.where(size > 0, scales, 1.0)
    if scales.max(initial=0.0) > (2.0**MAX_SCALE_EXPONENT if spec.scale is ScaleKind.POW2 else _MAX_SCALE):
        raise FormatError(
            f"{spec.format.name} reaches {largest:g}; values up to {size.max():g} would need a scale beyond binary32's "
            "range; take a format with a wider range"
        )
    rounded = scales.astype(np.float32)
    # A scale rounded down would let the largest value clip: the next binary32 above does not.
    short = size / rounded.astype(np.float64) > largest
    return np.where(short, np.nextafter(rounded, np.float32(np.inf)), rounded)


def _fitted(groups: F64, covering: npt.NDArray[np.float32], spec: TensorSpec) -> npt.NDArray[np.float32]:
    """Return the scales with the least squared error."""
    scales = [
        least_squares_scale(column, spec.format, spec.scale, float(scale), spec.rounding)
        for column, scale in zip(np.ascontiguousarray(groups.T), covering, strict=True)
    ]
    return np.array(scales, dtype=np.float32)


def _fitted_affine(groups: F64, spec: TensorSpec) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Return scales and zero points with the least squared error on a grid."""
    pairs = [
        least_squares_affine(column, spec.format, spec.scale, (float(scale), int(zero)), spec.rounding)
        for column, scale, zero in zip(np.ascontiguousarray(groups.T), *_affine(groups, spec), strict=True)
    ]
    return np.array([s for s, _ in pairs], dtype=np.float32), np.array([z for _, z in pairs], dtype=np.int32)


def _affine(groups: F64, spec: TensorSpec) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int32]]:
    """Spread the integers over [least, greatest], zero included, and let zero fall on an integer."""
    low, high = spec.format.integer_limits
    step = 2.0**-spec.format.fraction_bits
    least = groups.min(axis=0, initial=0.0)
    span = groups.max(axis=0, initial=0.0) - least
    if spec.scale is ScaleKind.NONE:
        scales = np.ones(groups.shape[1], dtype=np.float32)
    else:
        scales = _covering(span, (high - low) * step, spec)
    zeros = np.clip(np.rint(low - least / (scales.astype(np.float64) * step)), low, high)
    return scales, zeros.astype(np.int32)


def _finish(scales: list[float], kind: ScaleKind) -> npt.NDArray[np.float32]:
    """Round least-squares scales to normal binary32; 1 for groups without a value above zero."""
    array = np.array([scale if scale > 0 else 1.0 for scale in scales], dtype=np.float64)
    highest = 2.0**MAX_SCALE_EXPONENT if kind is ScaleKind.POW2 else _MAX_SCALE
    return np.clip(array, _MIN_SCALE, highest).astype(np.float32)


def _mean(sizes: F64) -> float:
    """Return the scale of binary with the least squared error: the mean magnitude (Rastegari et al., XNOR-Net)."""
    return math.fsum(sizes.tolist()) / sizes.size


def _binary_pow2(sizes: F64) -> float:
    """Return the power of two with the least squared error, n·s² - 2·s·Σ|w|: a parabola about the mean."""
    mean = _mean(sizes)
    if mean == 0.0:
        return 0.0
    below = 2.0 ** (math.frexp(mean)[1] - 1)
    return below if mean - below <= 2.0 * below - mean else 2.0 * below


def _ternary(sizes: F64) -> float:
    """Return the scale of ternary with the least squared error.

    If the k largest magnitudes become ±s, the best s is their mean and the error is Σw² - (Σ_k |w|)² / k: the best k is
    found among all by sorting (the problem of Li and Liu, Ternary Weight Networks, 2016, solved exactly). At the best
    k exactly the magnitudes above s/2 are among the k, which is what rounding to nearest does.
    """
    ordered = np.sort(sizes)[::-1]
    if not ordered.size or ordered[0] == 0.0:
        return 0.0
    sums = np.cumsum(ordered / ordered[0])
    counts = np.arange(1, ordered.size + 1)
    best = int(np.argmax(sums * sums / counts))
    return float(sums[best] / counts[best] * ordered[0])


def _ternary_pow2(sizes: F64) -> float:
    """Return the power of two with the least squared error Σw² - Σ_{|w| > s/2} (2·s·|w| - s²), the greatest of equals.

    Only powers from a quarter of the mean to the largest magnitude's double can be best: below, even every element at
    ±s takes less off the error than the power just under the mean does; above, every element is 0.
    """
    ordered = np.sort(sizes)[::-1]
    if not ordered.size or ordered[0] == 0.0:
        return 0.0
    _, top = math.frexp(float(ordered[0]))
    relative = np.ldexp(ordered, -top)  # at most 1, so that no square overflows
    sums = np.concatenate(([0.0], np.cumsum(relative)))
    lowest = math.frexp(float(sums[-1]) / ordered.size)[1] - 3
    best, best_gain = 0.0, 0.0
    for exponent in range(1, lowest - 1, -1):
        scale = 2.0**exponent
        count = int(np.searchsorted(-relative, -scale / 2, side="left"))
        gain = 2.0 * scale * float(sums[count]) - count * scale * scale
        if gain > best_gain:
            best, best_gain = math.ldexp(1.0, exponent + top), gain
    return best
