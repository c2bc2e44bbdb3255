"""Proofs that the codec is right, against gfloat, apytypes, ml_dtypes, numpy and the definition in exact fractions.

Used in a short version by tests/host and in full by scripts/verify: :func:`prove_decoding`, :func:`prove_encoding`.
Each returns how many comparisons it made and raises AssertionError at the first difference.

Where an oracle means something else than docs/arithmetic.md, it is not asked:

- gfloat without subnormals reads an exponent field of zero as a normal number; its named E8M0 (without zero) is wrong
  on underflow; it knows no negative values in unsigned formats; it scales values by the format's step, and what that
  takes below binary64's least number becomes 0 in every rounding: nothing under 2^-800 is compared.
- With no mantissa bits and overflow to infinity, gfloat keeps the tie half an ulp beyond the largest element (its code
  is even), where IEEE 754 says infinity. apytypes rounds every tie down there, whatever the code. No ties are compared.
- apytypes' floats are IEEE ones: no ``fn``, ``finite``, unsigned, and none without subnormals.
- ml_dtypes rounds binary64 twice, through binary32: it is only given binary32 values. Its E4M3FN overflows to NaN
  where bitloop saturates: only values that do not overflow are compared. It knows only nearest, ties to even.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction

import apytypes
import gfloat
import ml_dtypes
import numpy as np
import numpy.typing as npt

from bitloop.numeric.codec import decode, encode, is_finite_code
from bitloop.numeric.formats import Format, float_format, parse_format
from bitloop.numeric.rounding import Rounding
from bitloop.spec import FormatKind, TopCodes

Report = Callable[[str], None]
F64 = npt.NDArray[np.float64]
U32 = npt.NDArray[np.uint32]

TABLE_BITS = 16  # all codes of formats up to this width are tried
FRACTION_BITS = 11  # all codes of formats up to this width are also computed in exact fractions
DETERMINISTIC = (Rounding.NEAREST, Rounding.NEAREST_AWAY, Rounding.TOWARD_ZERO, Rounding.AWAY)
DTYPES: dict[str, type] = {
    "fp32": np.float32,
    "fp16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    "e5m2": ml_dtypes.float8_e5m2,
    "e4m3": ml_dtypes.float8_e4m3,
    "e3m4": ml_dtypes.float8_e3m4,
    "e4m3fn": ml_dtypes.float8_e4m3fn,
    "e3m2finite": ml_dtypes.float6_e3m2fn,
    "e2m3finite": ml_dtypes.float6_e2m3fn,
    "e2m1finite": ml_dtypes.float4_e2m1fn,
}
_APY_FLOAT = {
    Rounding.NEAREST: apytypes.QuantizationMode.TIES_EVEN,
    Rounding.NEAREST_AWAY: apytypes.QuantizationMode.TIES_AWAY,
    Rounding.TOWARD_ZERO: apytypes.QuantizationMode.TO_ZERO,
    Rounding.AWAY: apytypes.QuantizationMode.TO_AWAY,
}
_GFLOAT = {
    Rounding.NEAREST: gfloat.RoundMode.TiesToEven,
    Rounding.NEAREST_AWAY: gfloat.RoundMode.TiesToAway,
    Rounding.TOWARD_ZERO: gfloat.RoundMode.TowardZero,
    Rounding.AWAY: gfloat.RoundMode.TowardPositive,  # of magnitudes
}


def ieee_formats() -> list[Format]:
    """Return all 192 formats that ``e<E>m<M>`` names."""
    return [float_format(e, m) for e in range(1, 9) for m in range(24)]


def other_float_formats() -> list[Format]:
    """Return unsigned, biased, ``fn`` and ``finite`` formats, with and without subnormals, up to 16 bits."""
    names = [
        *("e4m3fn", "e5m2fn", "e4m0fn", "e1m3fn", "e1m0fn", "e7m8fn", "e3m2finite", "e2m3finite", "e2m1finite"),
        *("e1m0finite", "e1m6finite", "e4m0finite", "e6m5finite", "e8m2finiteb128", "e8m7fnb128", "e8m0b128"),
        *("ue5m3", "ue4m4fn", "ue8m0", "ue3m3finite", "ue1m4", "ue2m0finite", "ue8m8", "ue1m0finite"),
        *("e4m3b11", "e4m3fnb0", "e3m2b-20", "e5m10b30", "e2m3finiteb-100", "ue4m4b142", "e3m0b9"),
        *("e4m3nosub", "e4m3fnnosub", "e5m2nosub", "e3m0nosub", "e2m3finitenosub", "ue4m3nosub", "ue2m2finiteb-9nosub"),
        *("e1m3nosub", "e1m3finitenosub", "e8m7nosub", "e4m6b3nosub", "ue1m0nosub"),
    ]
    return [parse_format(name) for name in names]


def integer_formats() -> list[Format]:
    """Return all integers, all fixed point formats, ternary and binary."""
    names = [f"{sign}int{width}" for sign in ("", "u") for width in range(2, 17)]
    names += [f"q{m}.{n}" for m in range(16) for n in range(16 - m) if m + n >= 1]
    names += [f"uq{m}.{n}" for m in range(17) for n in range(17 - m) if m + n >= 2]
    return [parse_format(name) for name in [*names, "ternary", "binary"]]


def fraction_of(fmt: Format, code: int) -> Fraction | str:
    """Return the element of a code by the table of docs/arithmetic.md, or "inf", "-inf", "nan"."""
    if fmt.kind is FormatKind.BINARY:
        return Fraction(1 if code else -1)
    if fmt.kind is FormatKind.TERNARY:
        return {0: Fraction(0), 1: Fraction(1), 3: Fraction(-1)}.get(code, "nan")
    if fmt.kind is FormatKind.INTEGER:
        negative = fmt.signed and code >> (fmt.width_bits - 1)
        return Fraction(code - (2**fmt.width_bits if negative else 0)) / 2**fmt.fraction_bits
    e = (code >> fmt.mantissa_bits) % 2**fmt.exponent_bits
    m = Fraction(code % 2**fmt.mantissa_bits)
    sign = -1 if fmt.signed and code >> (fmt.width_bits - 1) else 1
    if e == 2**fmt.exponent_bits - 1:
        if fmt.top_codes is TopCodes.IEEE:
            return "nan" if m else ("inf" if sign > 0 else "-inf")
        if fmt.top_codes is TopCodes.FN and m == 2**fmt.mantissa_bits - 1:
            return "nan"
    if e > 0:
        return sign * Fraction(2) ** (e - fmt.bias) * (1 + m / 2**fmt.mantissa_bits)
    return sign * Fraction(2) ** (1 - fmt.bias) * m / 2**fmt.mantissa_bits if fmt.subnormals else Fraction(0)


def gfloat_info(fmt: Format) -> gfloat.FormatInfo | None:
    """Return gfloat's descriptor of a format, or None where gfloat means something else by it."""
    if not fmt.is_float or not fmt.subnormals:
        return None
    high_nans = {TopCodes.IEEE: 2**fmt.mantissa_bits - 1, TopCodes.FN: 1, TopCodes.FINITE: 0}[fmt.top_codes]
    return gfloat.FormatInfo(
        fmt.name,
        fmt.width_bits,
        fmt.mantissa_bits + 1,
        bias=fmt.bias,
        is_signed=fmt.signed,
        domain=gfloat.Domain.Extended if fmt.top_codes is TopCodes.IEEE else gfloat.Domain.Finite,
        has_nz=fmt.signed,
        num_high_nans=high_nans,
        has_subnormals=True,
        is_twos_complement=False,
    )


def is_apytypes_float(fmt: Format) -> bool:
    """Return whether apytypes has the format."""
    return fmt.is_float and fmt.signed and fmt.subnormals and fmt.top_codes is TopCodes.IEEE and fmt.bias >= 0


# --- decoding -----------------------------------------------------------------------------------------------------


def prove_decoding(formats: Sequence[Format], report: Report, *, samples: int = 100_000) -> int:
    """Compare every code (wider than 16 bits: ``samples`` random ones) with every oracle that knows the format.

    Args:
        formats: to prove.
        report: is told each format and what it was compared with.
        samples: random codes of formats wider than 16 bits.

    Returns:
        The number of codes compared, times oracles.

    Raises:
        AssertionError: an element, an infinity, a NaN, or the sign of a zero differs.
    """
    total = 0
    for fmt in formats:
        codes = all_codes(fmt, samples)
        found = decode(codes, fmt)
        finite = is_finite_code(codes, fmt)
        assert np.array_equal(finite, np.isfinite(found)), f"{fmt}: is_finite_code and decode differ"
        names = []
        for name, expected in _decoders(fmt, codes):
            same = (found == expected) & (np.signbit(found) == np.signbit(expected)) | (
                np.isnan(found) & np.isnan(expected)
            )
            if not same.all():
                at = int(np.flatnonzero(~same)[0])
                raise AssertionError(f"{fmt}: code {codes[at]:#x} is {found[at]!r}, {name} says {expected[at]!r}")
            names.append(name)
            total += codes.size
        assert names, f"{fmt}: no oracle knows it"
        report(f"decode {fmt}: {codes.size} codes = {', '.join(names)}")
    return total


def all_codes(fmt: Format, samples: int) -> U32:
    """Return every code up to 16 bits, otherwise the ends and random ones."""
    if fmt.width_bits <= TABLE_BITS:
        return np.arange(2**fmt.width_bits, dtype=np.uint32)
    rng = np.random.default_rng(fmt.width_bits)
    top = 2**fmt.width_bits
    half = top // 2
    step = 2**fmt.mantissa_bits
    edges = [k + d for k in (0, half, top) for d in (-step - 1, -step, -2, -1, 0, 1, 2, step - 1, step, step + 1)]
    inside = [edge for edge in edges if 0 <= edge < top]
    return np.concatenate([np.array(inside, np.uint32), rng.integers(0, top, samples, dtype=np.uint32)])


def _decoders(fmt: Format, codes: U32) -> Iterator[tuple[str, F64]]:
    info = gfloat_info(fmt)
    if info is not None:
        yield "gfloat", gfloat.decode_ndarray(info, codes.astype(np.int64))
    if is_apytypes_float(fmt):
        array = apytypes.APyFloatArray.from_bits(codes, fmt.exponent_bits, fmt.mantissa_bits, fmt.bias)
        yield "apytypes", array.to_numpy()
    if fmt.name in DTYPES:
        with np.errstate(invalid="ignore"):  # signalling NaNs
            yield "ml_dtypes/numpy", _dtype_view(fmt, codes).astype(np.float64)
    if fmt.is_integer and fmt.signed:
        # As a list: apytypes does not extend the sign of numpy's unsigned integers.
        array = apytypes.APyFixedArray(codes.tolist(), fmt.width_bits - fmt.fraction_bits, fmt.fraction_bits)
        yield "apytypes", array.to_numpy()
    if fmt.width_bits <= FRACTION_BITS or not (fmt.is_float or (fmt.is_integer and fmt.signed)):
        yield "fractions", np.array([_signed_float(fmt, int(code)) for code in codes])
    elif fmt.is_float and not fmt.subnormals:
        few = codes[:: max(1, codes.size // 4096)]
        yield from _some_fractions(fmt, codes, few)


def _some_fractions(fmt: Format, codes: U32, few: U32) -> Iterator[tuple[str, F64]]:
    """Compute some codes in fractions, and let the others stand as decoded."""
    expected = decode(codes, fmt).astype(np.float64)
    expected[few] = [_signed_float(fmt, int(code)) for code in few]
    yield f"fractions ({few.size} codes)", expected


def _signed_float(fmt: Format, code: int) -> float:
    value = fraction_of(fmt, code)
    if value == 0 and fmt.is_float and fmt.signed and code >> (fmt.width_bits - 1):
        return -0.0
    return float(value)


def _dtype_view(fmt: Format, codes: U32) -> npt.NDArray[np.generic]:
    dtype = np.dtype(DTYPES[fmt.name])
    return codes.astype(f"<u{dtype.itemsize}").view(dtype)


# --- encoding -----------------------------------------------------------------------------------------------------


def prove_encoding(formats: Sequence[Format], values: int, report: Report) -> int:
    """Encode every special value and random ones, with every deterministic rounding, and compare with the oracles.

    Args:
        formats: to prove.
        values: random values a format, beside the special ones (:func:`special_values`).
        report: is told each format and what it was compared with.

    Returns:
        The number of values compared, times roundings and oracles.

    Raises:
        AssertionError: a code differs.
    """
    total = 0
    for fmt in formats:
        inputs = np.concatenate([special_values(fmt), random_values(fmt, values)])
        names: set[str] = set()
        done = 0
        for rounding in DETERMINISTIC:
            for overflow in ("saturate", "inf") if fmt.has_infinities else ("saturate",):
                found = encode(inputs, fmt, rounding, overflow=overflow)
                for name, expected, use in _encoders(fmt, inputs, rounding, overflow):
                    differ = (found != expected) & use
                    if differ.any():
                        at = int(np.flatnonzero(differ)[0])
                        raise AssertionError(
                            f"{fmt}, {rounding.value}, {overflow}: {inputs[at].hex()} becomes {found[at]:#x}, "
                            f"{name} says {expected[at]:#x}"
                        )
                    names.add(name)
                    done += int(np.count_nonzero(use))
        assert names, f"{fmt}: no oracle knows it"
        report(f"encode {fmt}: {inputs.size} values, {done} comparisons = {', '.join(sorted(names))}")
        total += done
    return total


def special_values(fmt: Format) -> F64:
    """Return every element (wide formats: many), the midpoints between neighbours, and what lies an ulp beside them.

    Also both zeros, both infinities, the edges of binary32 and binary64, and values around and beyond the largest
    element; each with both signs.
    """
    codes = all_codes(fmt, 20_000)
    elements = np.unique(np.abs(decode(codes[is_finite_code(codes, fmt)], fmt).astype(np.float64)))
    if fmt.width_bits > TABLE_BITS:
        neighbours = encode(elements, fmt).astype(np.int64)
        following = np.minimum(neighbours + 1, fmt.max_code).astype(np.uint32)
        elements = np.unique(np.concatenate([elements, decode(following, fmt)]))
    largest = float(elements[-1])
    step = largest - float(elements[-2]) if elements.size > 1 else 1.0
    beyond = np.array([largest + k * step / 2 for k in range(1, 8)] + [largest * k for k in (1.5, 2, 3, 4, 1e9)])
    points = np.concatenate([elements, beyond])
    points = np.concatenate([points, (points[1:] + points[:-1]) / 2])
    up, down = np.nextafter(points, np.inf), np.nextafter(points, -np.inf)
    with np.errstate(over="ignore"):
        single = points.astype(np.float32)
        near = [np.nextafter(single, np.float32(np.inf)), single, np.nextafter(single, np.float32(-np.inf))]
    limits = [np.finfo(np.float32), np.finfo(np.float64)]
    edges = [float(x) for i in limits for x in (i.max, i.tiny, i.smallest_subnormal, i.eps, 1 + i.eps)]
    magnitudes = np.abs(
        np.concatenate([points, up, down, *(n.astype(np.float64) for n in near), edges, [0.0, 0.5, 1.0, 1.5, np.inf]])
    )
    magnitudes = np.unique(magnitudes)
    return np.concatenate([magnitudes, -magnitudes])


def random_values(fmt: Format, count: int) -> F64:
    """Return random binary32 bits, random binary64 bits, and values spread over the format's own range; no NaNs."""
    rng = np.random.default_rng([fmt.width_bits, fmt.exponent_bits, fmt.mantissa_bits])
    part = count // 4
    with np.errstate(invalid="ignore", over="ignore"):
        single = rng.integers(0, 2**32, part, dtype=np.uint32).view(np.float32).astype(np.float64)
        double = rng.integers(0, 2**64, part, dtype=np.uint64).view(np.float64)
        low, high = np.log2(fmt.min_positive or 1.0) - 3, np.log2(fmt.max_finite or 1.0) + 2
        spread = np.exp2(rng.uniform(low, high, part)) * rng.choice([-1.0, 1.0], part)
        normal = rng.standard_normal(count - 3 * part) * min(fmt.max_finite or 1.0, 2.0**100) / 2
        values = np.concatenate([single, double, spread, spread.astype(np.float32), normal])
    return values[~np.isnan(values)]


def _encoders(
    fmt: Format, values: F64, rounding: Rounding, overflow: str
) -> Iterator[tuple[str, U32, npt.NDArray[np.bool_]]]:
    """Yield oracle, codes, and for which values the oracle means the same."""
    everywhere = np.ones(values.shape, dtype=np.bool_)
    info = gfloat_info(fmt)
    if info is not None:
        use = (np.abs(values) >= 2.0**-800) | (values == 0)
        if not fmt.signed:
            use &= ~np.signbit(values)
        if fmt.mantissa_bits == 0 and overflow == "inf" and rounding is Rounding.NEAREST:
            use = use & ~_is_tie_without_mantissa(fmt, values)
        yield "gfloat", _gfloat_encode(info, values, rounding, saturate=overflow == "saturate"), use
    if is_apytypes_float(fmt):
        use = everywhere if overflow == "inf" else np.abs(values) <= fmt.max_finite
        if fmt.mantissa_bits == 0 and rounding is Rounding.NEAREST:
            use = use & ~_is_tie_without_mantissa(fmt, values)
        exact = apytypes.APyFloatArray.from_array(values, 11, 52)
        cast = exact.cast(fmt.exponent_bits, fmt.mantissa_bits, fmt.bias, _APY_FLOAT[rounding])
        yield "apytypes", np.array(cast.to_bits(numpy=True), dtype=np.uint32), use
    if fmt.name in DTYPES and rounding is Rounding.NEAREST:
        with np.errstate(over="ignore"):
            single = values.astype(np.float32)
            codes = single.astype(DTYPES[fmt.name])
        exact_there = single.astype(np.float64) == values
        inside = np.abs(values) <= fmt.max_finite
        use = exact_there if fmt.has_infinities and overflow == "inf" else exact_there & inside
        width = np.dtype(DTYPES[fmt.name]).itemsize
        yield "ml_dtypes/numpy", codes.view(f"<u{width}").astype(np.uint32), use
    if fmt.is_integer:
        yield "apytypes", *_fixed_encode(fmt, values, rounding)
    if fmt.width_bits <= TABLE_BITS and overflow == "saturate":
        yield "definition", table_encode(fmt, values, rounding), everywhere


def _is_tie_without_mantissa(fmt: Format, values: F64) -> npt.NDArray[np.bool_]:
    """Return which values lie halfway between two powers of two, or between zero and the least element."""
    part, exponent = np.frexp(np.abs(values))
    return (part == 0.75) | ((part == 0.5) & (exponent == 1 - fmt.bias))


def _gfloat_encode(info: gfloat.FormatInfo, values: F64, rounding: Rounding, *, saturate: bool) -> U32:
    mode = _GFLOAT[rounding]
    signed = np.signbit(values) & info.is_signed
    with np.errstate(over="ignore"):
        magnitudes = gfloat.round_ndarray(info, np.abs(values), mode, sat=saturate)
    return gfloat.encode_ndarray(info, np.where(signed, -magnitudes, magnitudes)).astype(np.uint32)


def _fixed_encode(fmt: Format, values: F64, rounding: Rounding) -> tuple[U32, npt.NDArray[np.bool_]]:
    """Encode with apytypes' fixed point, which takes what 40 integer and 60 fraction bits hold exactly."""
    fraction = fmt.fraction_bits
    bounded = np.clip(values, -(2.0**30), 2.0**30)
    steps = np.ldexp(bounded, 60)
    use = np.trunc(steps) == steps
    exact = apytypes.APyFixedArray.from_array(np.where(use, bounded, 0.0), 40, 60)
    integer = fmt.width_bits - fraction + (not fmt.signed)
    cast = exact.cast(integer, fraction, _APY_FLOAT[rounding], apytypes.OverflowMode.SAT)
    codes = np.array(cast.to_bits(numpy=True)).astype(np.int64)
    if not fmt.signed:  # as signed with a bit more: negative ones are to become 0
        codes = np.where(codes >> fmt.width_bits, 0, codes)
    return codes.astype(np.uint32), use


def table_encode(fmt: Format, values: F64, rounding: Rounding) -> U32:
    """Encode by looking for the two neighbours among all elements, as docs/arithmetic.md words it; saturates."""
    if fmt.kind is FormatKind.BINARY:
        return (values >= 0).astype(np.uint32)
    codes = np.arange(2**fmt.width_bits, dtype=np.uint32)
    table = np.array([_signed_float(fmt, int(code)) for code in codes])
    result = np.empty(values.shape, dtype=np.uint32)
    for negative in (False, True):
        side = np.signbit(values) == negative
        usable = np.isfinite(table) & ((np.signbit(table) if negative else ~np.signbit(table)) | (table == 0))
        if not fmt.subnormals and fmt.is_float:
            usable &= (table != 0) | (codes % 2 ** (fmt.width_bits - fmt.signed) == 0)
        if fmt.is_float and fmt.signed:
            usable &= np.signbit(table) == negative
        elements, elements_codes = np.abs(table[usable]), codes[usable]
        order = np.argsort(elements)
        result[side] = _between(np.abs(values[side]), elements[order], elements_codes[order], rounding)
    return result


def _between(size: F64, elements: F64, codes: U32, rounding: Rounding) -> U32:
    below = np.searchsorted(elements, size, side="right") - 1
    above = np.minimum(below + 1, elements.size - 1)
    middle = (elements[below] + elements[above]) / 2  # exact: neighbours have 24 significant bits at most
    inside = (size > elements[below]) & (above > below)
    if rounding is Rounding.NEAREST:
        tie_up = (codes[below] % 2 == 1) & (codes[above] % 2 == 0)
        up = (size > middle) | ((size == middle) & tie_up)
    elif rounding is Rounding.NEAREST_AWAY:
        up = size >= middle
    else:
        up = np.full(size.shape, rounding is Rounding.AWAY)
    return np.where(up & inside, codes[above], codes[below]).astype(np.uint32)
