"""Values to codes and back: one rounding, in numpy (docs/arithmetic.md, "Elements" and "Rounding").

Encoding works on the bits of binary64, in integers: the significand is shifted right to the step of the target format
at that magnitude, and what falls out decides the rounding. Nothing is rounded before, so nothing is rounded twice.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from bitloop.errors import FormatError
from bitloop.numeric.formats import Format
from bitloop.numeric.rounding import Rounding, stochastic_bits
from bitloop.spec import FormatKind, TopCodes

Overflow = Literal["saturate", "inf"]
Codes = npt.NDArray[np.uint32]
_Int = npt.NDArray[np.int64]
_Float = npt.NDArray[np.float64]

_BLOCK = 15 << 10  # elements at a time: a temporary stays below the 128 KiB at which malloc turns to the kernel
_TABLE_BITS = 16  # widest code that is decoded by table
_FRACTION = 52
_FRACTION_MASK = (1 << _FRACTION) - 1
_MAGNITUDE_MASK = (1 << 63) - 1
_INFINITY = 0x7FF << _FRACTION
_BIAS = 1023
_MAX_SHIFT = 62  # beyond every significand, and its rounding increment still fits in 63 bits


def encode(
    values: npt.ArrayLike,
    fmt: Format,
    rounding: Rounding = Rounding.NEAREST,
    *,
    overflow: Overflow = "saturate",
    zero_point: npt.ArrayLike = 0,
    seed: int = 0,
    index_offset: int = 0,
) -> Codes:
    """Round values to a format, once, and return their codes.

    Args:
        values: any shape; float32 and float64 are taken exactly, other types as float64. Already divided by the scale.
        fmt: the target.
        rounding: what happens between two elements. Binary takes the sign whatever the rounding, +0 and -0 as +1.
        overflow: beyond the largest finite element (infinities included): ``saturate`` to it, or to infinity
            (``inf``) by IEEE 754's rule. Negative values saturate to 0 in unsigned formats, with either.
        zero_point: integers added after rounding and before saturation; broadcast along the last axis. Integer
            formats only.
        seed: 32 bits, for stochastic rounding.
        index_offset: number of the first element, for stochastic rounding.

    Returns:
        uint32 of the same shape; two's complement in ``fmt.width_bits`` bits. Zeros keep their sign in signed floats.

    Raises:
        FormatError: a value is NaN (its index is named), ``inf`` was asked of a format without infinities, or a zero
            point of a format that has none.
    """
    array = np.asarray(values)
    if array.dtype not in (np.float32, np.float64):
        array = array.astype(np.float64)
    if overflow == "inf" and not fmt.has_infinities:
        raise FormatError(f"{fmt.name} has no infinities to overflow to; leave out 'inf' to saturate")
    infinity = fmt.infinity_code if overflow == "inf" else None
    zeros = _zero_points(zero_point, fmt, array.shape)
    rounding = Rounding(rounding)
    flat = np.ascontiguousarray(array).reshape(-1)
    codes = np.empty(flat.size, dtype=np.uint32)
    for start in range(0, flat.size, _BLOCK):
        block = slice(start, start + _BLOCK)
        v = flat[block].astype(np.float64, copy=False)
        if np.isnan(v).any():
            _raise_nan(flat, array.shape)
        random = None
        if rounding is Rounding.STOCHASTIC:
            index = (np.arange(start, start + v.size, dtype=np.uint64) + np.uint64(index_offset)) & np.uint64(
                0xFFFFFFFF
            )
            random = stochastic_bits(index, seed).astype(np.int64)
        if fmt.is_float and rounding is Rounding.NEAREST and infinity is None and fmt.subnormals and fmt.mantissa_bits:
            codes[block] = _encode_nearest(v, fmt)
        elif fmt.is_float:
            codes[block] = _encode_float(v, fmt, rounding, random, infinity)
        elif fmt.kind is FormatKind.BINARY:
            codes[block] = v >= 0
        else:
            codes[block] = _encode_integer(v, fmt, rounding, random, None if zeros is None else zeros[block])
    return codes.reshape(array.shape)


def decode(codes: npt.ArrayLike, fmt: Format, zero_point: npt.ArrayLike = 0) -> npt.NDArray[np.float32]:
    """Return the elements that codes stand for, exactly.

    Args:
        codes: unsigned integers below ``2**fmt.width_bits``, any shape.
        fmt: their format.
        zero_point: as in :func:`encode`.

    Returns:
        float32 of the same shape. Infinite codes give infinities; NaNs (and ternary's unused code ``10``) give NaN.

    Raises:
        FormatError: a code has more bits than the format, or a zero point was given to a format that has none.
    """
    array = _checked_codes(codes, fmt)
    zeros = _zero_points(zero_point, fmt, array.shape)
    if zeros is not None:
        integers = _signed(array.astype(np.int64), fmt) - zeros.reshape(array.shape)
        return np.asarray(np.ldexp(integers.astype(np.float64), -fmt.fraction_bits), dtype=np.float32)
    if fmt.width_bits <= _TABLE_BITS:
        return decode_table(fmt)[array]
    return _decode(array, fmt)


def is_finite_code(codes: npt.ArrayLike, fmt: Format) -> npt.NDArray[np.bool_]:
    """Return which codes are finite numbers: no infinity, no NaN, not ternary's unused code.

    Raises:
        FormatError: a code has more bits than the format.
    """
    array = _checked_codes(codes, fmt)
    if fmt.kind is FormatKind.TERNARY:
        return np.asarray(array != 2)
    if not fmt.is_float:
        return np.ones(array.shape, dtype=np.bool_)
    magnitude = array & np.uint32((1 << fmt.exponent_bits + fmt.mantissa_bits) - 1)
    if fmt.subnormals or fmt.max_code:
        return np.asarray(magnitude <= fmt.max_code)
    return np.asarray(magnitude >> np.uint32(fmt.mantissa_bits) == 0)


@lru_cache(maxsize=64)
def decode_table(fmt: Format) -> npt.NDArray[np.float32]:
    """Return the read-only elements of all ``2**width_bits`` codes, for widths up to 16.

    Raises:
        FormatError: the format is wider.
    """
    if fmt.width_bits > _TABLE_BITS:
        raise FormatError(f"{fmt.name} has {fmt.width_bits} bits: a decode table has codes of {_TABLE_BITS} or fewer")
    table = _decode(np.arange(1 << fmt.width_bits, dtype=np.uint32), fmt)
    table.flags.writeable = False
    return table


def _encode_nearest(v: _Float, fmt: Format) -> _Int:
    """Return what :func:`_encode_float` does, in fewer steps, for ``nearest``, saturation, subnormals and a mantissa.

    Adding 2^52 steps to a magnitude lets binary64's own rounding (to nearest, ties to even) leave the number of steps
    in the sum's fraction bits. The step is a power of two that the magnitude's exponent gives, so the sum's exponent
    field says how many binades to count up. This is still the only rounding.
    """
    mantissa = fmt.mantissa_bits
    magnitude = np.abs(v)
    np.clip(magnitude, 0.0, fmt.max_finite, out=magnitude)  # several times faster than np.minimum by a scalar
    offset = (magnitude.view(np.int64) & _INFINITY).view(np.float64)  # the power of two at or below it
    np.clip(offset, 2.0**fmt.min_exponent, np.inf, out=offset)
    offset *= 2.0 ** (_FRACTION - mantissa)
    magnitude += offset
    total = magnitude.view(np.int64)
    codes: _Int = total >> (_FRACTION - mantissa)
    codes -= (fmt.min_exponent + _BIAS + _FRACTION - mantissa) << mantissa
    total &= _FRACTION_MASK
    codes += total
    bits = v.view(np.int64)
    if fmt.signed:
        bits = bits >> 63
        bits &= fmt.sign_bit
        codes |= bits
    else:
        np.putmask(codes, bits < 0, 0)
    return codes


def _encode_float(v: _Float, fmt: Format, rounding: Rounding, random: _Int | None, infinity: int | None) -> _Int:
    """Return the codes of a block without NaNs; ``infinity`` is the code for overflow, or None to saturate."""
    mantissa = fmt.mantissa_bits
    bits = v.view(np.int64)
    magnitude = bits & _MAGNITUDE_MASK
    exponent = magnitude >> _FRACTION
    significand = (magnitude & _FRACTION_MASK) | (np.minimum(exponent, 1) << _FRACTION)
    above = exponent - (fmt.min_exponent + _BIAS)
    binade = np.maximum(above, 0)
    shift = (_FRACTION - mantissa) + (binade - above)
    fraction = _stochastic_threshold(significand, shift) if random is not None else None
    np.minimum(shift, _MAX_SHIFT, out=shift)
    codes: _Int = (significand >> shift) + (binade << mantissa)
    rest = significand & ((1 << shift) - 1)
    if rounding is Rounding.NEAREST:
        codes += (rest + ((1 << (shift - 1)) - 1) + (codes & 1)) >> shift
    elif rounding is Rounding.NEAREST_AWAY:
        codes += (rest + (1 << (shift - 1))) >> shift
    elif rounding is Rounding.AWAY:
        codes += rest > 0
    elif random is not None and fraction is not None:
        codes += random < fraction
    if not fmt.subnormals:
        _flush(codes, np.abs(v), fmt, rounding, random)
    if infinity is not None:
        overflow = _overflows(codes, np.abs(v), fmt, rounding)
        codes = np.where(overflow, infinity, np.minimum(codes, fmt.max_code))
    else:
        np.minimum(codes, fmt.max_code, out=codes)
    if fmt.signed:
        codes |= (bits >> 63) & fmt.sign_bit
    else:
        np.putmask(codes, bits < 0, 0)
    return codes


def _stochastic_threshold(significand: _Int, shift: _Int) -> _Int:
    """Return floor(f * 2^32), f being what a right shift drops, as a fraction of the step."""
    rest = significand & ((1 << np.minimum(shift, _MAX_SHIFT)) - 1)
    # Left by less than 32 where the shift is below 32 (the rest then has fewer than 32 bits), right otherwise.
    threshold: _Int = (rest << np.maximum(32 - shift, 0)) >> np.clip(shift - 32, 0, _MAX_SHIFT)
    return threshold


def _flush(codes: _Int, size: _Float, fmt: Format, rounding: Rounding, random: _Int | None) -> None:
    """Round magnitudes below the smallest normal element to it or to zero, in place: a step without subnormals."""
    smallest = 2.0**fmt.min_exponent
    below = size < smallest
    part = size[below] * 2.0**-fmt.min_exponent
    if rounding is Rounding.NEAREST:
        up = part > 0.5  # the tie goes to zero: both codes end in 0, or (without mantissa) only zero's does
    elif rounding is Rounding.NEAREST_AWAY:
        up = part >= 0.5
    elif rounding is Rounding.AWAY:
        up = size[below] > 0
    elif random is not None:
        up = random[below] < np.floor(part * 2.0**32)
    else:
        up = np.zeros(part.shape, dtype=np.bool_)
    codes[below] = np.where(up, 1 << fmt.mantissa_bits, 0)


def _overflows(codes: _Int, size: _Float, fmt: Format, rounding: Rounding) -> npt.NDArray[np.bool_]:
    """Return which magnitudes become infinity under IEEE 754's rule; ``codes`` are rounded as if exponents went on."""
    if rounding is Rounding.TOWARD_ZERO:
        return np.isinf(size)
    over = codes > fmt.max_code
    if rounding is Rounding.NEAREST and fmt.mantissa_bits == 0:
        # The tie half an ulp beyond the largest element: its code is even, so rounding alone would have stayed.
        over |= size >= (fmt.max_finite + 2.0 ** (fmt.max_code + 1 - fmt.bias)) / 2
    return over


def _encode_integer(v: _Float, fmt: Format, rounding: Rounding, random: _Int | None, zeros: _Int | None) -> _Int:
    """Return the codes of a block without NaNs: integers, fixed point, ternary."""
    low, high = fmt.integer_limits
    bound = float(1 << 40)  # beyond every integer and zero point; everything there saturates
    with np.errstate(over="ignore"):
        q = np.clip(v * 2.0**fmt.fraction_bits, -bound, bound)
    if rounding is Rounding.NEAREST:
        q = np.rint(q)
    elif rounding is not Rounding.TOWARD_ZERO:
        whole = np.trunc(q)
        part = np.abs(q - whole)
        if rounding is Rounding.NEAREST_AWAY:
            up = part >= 0.5
        elif rounding is Rounding.AWAY:
            up = part > 0
        else:
            up = random < np.floor(part * 2.0**32)
        q = whole + np.copysign(up, q)
    integers = q.astype(np.int64)
    if zeros is not None:
        integers += zeros
    np.clip(integers, low, high, out=integers)
    integers &= (1 << fmt.width_bits) - 1
    return integers


def _decode(codes: Codes, fmt: Format) -> npt.NDArray[np.float32]:
    if fmt.kind is FormatKind.BINARY:
        return np.where(codes == 0, np.float32(-1), np.float32(1))
    if not fmt.is_float:
        elements = np.ldexp(_signed(codes.astype(np.int64), fmt).astype(np.float64), -fmt.fraction_bits)
        return np.where(is_finite_code(codes, fmt), elements, np.nan).astype(np.float32)
    if fmt.subnormals and (fmt.exponent_bits, fmt.bias, fmt.top_codes) == (8, 127, TopCodes.IEEE):
        elements = (codes << np.uint32(23 - fmt.mantissa_bits)).view(np.float32)  # binary32 cut short
        elements[np.isnan(elements)] = np.nan  # no signalling ones
        return elements
    magnitude = (codes & np.uint32((1 << fmt.exponent_bits + fmt.mantissa_bits) - 1)).astype(np.int64)
    field = magnitude >> fmt.mantissa_bits
    mantissa = magnitude & ((1 << fmt.mantissa_bits) - 1)
    if fmt.subnormals:
        integer = mantissa + (np.minimum(field, 1) << fmt.mantissa_bits)
    else:
        integer = np.where(field > 0, mantissa + (1 << fmt.mantissa_bits), 0)
    size = np.ldexp(integer.astype(np.float64), np.maximum(field, 1) - fmt.bias - fmt.mantissa_bits)
    finite = is_finite_code(codes, fmt)
    infinite = magnitude == (-1 if fmt.infinity_code is None else fmt.infinity_code)
    size = np.where(finite, size, np.where(infinite, np.inf, np.nan))
    if fmt.signed:
        size = np.where(codes & np.uint32(fmt.sign_bit), -size, size)
    return size.astype(np.float32)


def _signed(codes: _Int, fmt: Format) -> _Int:
    """Return two's complement codes as integers."""
    if not fmt.signed:
        return codes
    half = 1 << fmt.width_bits - 1
    return (codes ^ half) - half


def _checked_codes(codes: npt.ArrayLike, fmt: Format) -> Codes:
    array = np.asarray(codes)
    if array.dtype.kind not in "ui":
        raise FormatError(f"codes are unsigned integers, not {array.dtype}")
    if array.size and (int(array.max()) >> fmt.width_bits or int(array.min()) < 0):
        raise FormatError(f"a code of {fmt.name} has {fmt.width_bits} bits; found {int(array.max()):#x}")
    return array.astype(np.uint32, copy=False)


def _zero_points(zero_point: npt.ArrayLike, fmt: Format, shape: tuple[int, ...]) -> _Int | None:
    """Return one zero point per element (flat), or None where all are 0."""
    zeros = np.asarray(zero_point, dtype=np.int64)
    if not zeros.any():
        return None
    if not fmt.is_integer:
        raise FormatError(f"{fmt.name} has no zero point; only integers and fixed point have one")
    return np.broadcast_to(zeros, shape).reshape(-1)


def _raise_nan(flat: npt.NDArray[np.float64], shape: tuple[int, ...]) -> None:
    index = tuple(int(i) for i in np.unravel_index(int(np.isnan(flat).argmax()), shape))
    raise FormatError(f"the value at index {index} is NaN, which no quantization stands for")
