"""The core's decoder against the Python codec, exhaustively up to 16 bits, and against numpy and the definition."""

from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest

from bitloop import spec
from bitloop.errors import FormatError
from bitloop.native.core import CFormat, check_format, decode, is_finite_code, read_row
from bitloop.numeric import codec, packing
from bitloop.numeric.formats import COMMON_NAMES, Format, parse_format
from bitloop.spec import FormatKind, Packing, Status, TensorFlag, TopCodes


def c_format(fmt: Format, *, affine: bool = False, trits: bool = False) -> CFormat:
    """A descriptor as docs/model.md lays it out."""
    flags = TensorFlag.SIGNED if fmt.signed else TensorFlag(0)
    if fmt.subnormals:
        flags |= TensorFlag.SUBNORMALS
    if affine:
        flags |= TensorFlag.AFFINE
    bias = fmt.bias if fmt.kind is FormatKind.FLOAT else fmt.fraction_bits
    top = fmt.top_codes if fmt.kind is FormatKind.FLOAT else 0
    return CFormat(
        *(fmt.kind, fmt.width_bits, fmt.exponent_bits, fmt.mantissa_bits, flags, top),
        *(Packing.TRITS if trits else Packing.BITS, bias),
    )


def names_up_to_16_bits() -> list[str]:
    names = {name for name in COMMON_NAMES if parse_format(name).width_bits <= 16}
    names |= {f"e{e}m{m}" for e in range(1, 9) for m in range(16 - e)}
    names |= {
        f"{u}e{e}m{m}{s}" for u in ("", "u") for e in (1, 2, 4, 5) for m in (0, 1, 3) for s in ("fn", "finite", "nosub")
    }
    names |= {"e4m3b-20", "e4m3b60", "e5m2b100nosub", "e4m3fnb11", "e2m1finiteb90", "ue5m11", "e8m7b149", "e8m3b142"}
    names |= {f"{u}int{w}" for u in ("", "u") for w in range(2, 17)}
    names |= {"q0.1", "q7.8", "q1.14", "uq0.16", "uq8.8", "q15.0", "q3.12"}
    names -= {"ternary", "binary"}
    return sorted(name for name in names if is_exact(name))


def is_exact(name: str) -> bool:
    try:
        parse_format(name)
    except FormatError:
        return False
    return True


@pytest.mark.parametrize("name", names_up_to_16_bits())
def test_every_code_decodes_as_in_python(name: str) -> None:
    fmt = parse_format(name)
    c = c_format(fmt)
    assert check_format(c)[0] is Status.OK
    codes = np.arange(1 << fmt.width_bits, dtype=np.uint32)
    finite = codec.is_finite_code(codes, fmt)
    np.testing.assert_array_equal(is_finite_code(codes, c), finite)
    ours = decode(codes[finite], c).view(np.uint32)
    theirs = codec.decode(codes[finite], fmt).view(np.uint32)
    np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("name", ["ternary", "binary"])
def test_ternary_and_binary(name: str) -> None:
    c = c_format(parse_format(name))
    codes, elements = ([0, 1, 3], [0.0, 1.0, -1.0]) if name == "ternary" else ([0, 1], [-1.0, 1.0])
    assert check_format(c)[0] is Status.OK
    assert decode(codes, c).tolist() == elements
    assert is_finite_code(range(1 << c.width), c).tolist() == (
        [True, True, False, True] if c.width == 2 else [True, True]
    )


def test_widths_that_numpy_knows() -> None:
    rng = np.random.default_rng(1)
    bits = np.concatenate(
        [rng.integers(0, 1 << 32, 200_000, dtype=np.uint32), np.arange(0, 1 << 24, 4099, dtype=np.uint32)]
    )
    finite = (bits & 0x7F800000) != 0x7F800000
    c = c_format(parse_format("fp32"))
    np.testing.assert_array_equal(is_finite_code(bits, c), finite)
    np.testing.assert_array_equal(decode(bits[finite], c).view(np.uint32), bits[finite])
    half = np.arange(1 << 16, dtype=np.uint32)
    good = (half & 0x7C00) != 0x7C00
    elements = half.astype(np.uint16).view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(decode(half[good], c_format(parse_format("fp16"))), elements[good])


@pytest.mark.parametrize("name", ["e8m22", "e5m23", "e8m15", "e6m20b40", "ue8m23", "e3m22finite", "e7m17fn"])
def test_wide_formats_by_sampling(name: str) -> None:
    fmt = parse_format(name)
    codes = np.random.default_rng(2).integers(0, 1 << fmt.width_bits, 50_000, dtype=np.uint32)
    codes = np.concatenate([codes, np.arange(512, dtype=np.uint32), codes >> np.uint32(fmt.exponent_bits)])
    codes = codes[codec.is_finite_code(codes, fmt)]
    np.testing.assert_array_equal(
        decode(codes, c_format(fmt)).view(np.uint32), codec.decode(codes, fmt).view(np.uint32)
    )


@pytest.mark.parametrize(
    ("name", "zero_point"), [("uint8", 255), ("uint8", 3), ("int8", -128), ("int4", 7), ("uint16", 65535), ("q3.4", -7)]
)
def test_zero_points(name: str, zero_point: int) -> None:
    fmt = parse_format(name)
    codes = np.arange(1 << fmt.width_bits, dtype=np.uint32)
    numbers = codes.astype(np.int64) - (
        (codes >> (fmt.width_bits - 1)).astype(np.int64) << fmt.width_bits if fmt.signed else 0
    )
    expected = ((numbers - zero_point) / 2.0**fmt.fraction_bits).astype(np.float32)
    np.testing.assert_array_equal(decode(codes, c_format(fmt, affine=True), zero_point), expected)


def element(e: int, m: int, c: CFormat) -> Fraction:
    """The definition of docs/arithmetic.md, in rational numbers."""
    two = Fraction(2)
    if e > 0:
        return two ** (e - c.bias) * (1 + Fraction(m, 1 << c.mantissa_bits))
    return two ** (1 - c.bias) * Fraction(m, 1 << c.mantissa_bits) if c.flags & TensorFlag.SUBNORMALS else Fraction(0)


def is_binary32(value: Fraction) -> bool:
    if value == 0:
        return True
    multiple = value * Fraction(2) ** 149
    if multiple.denominator != 1:
        return False
    odd = int(multiple)
    odd //= odd & -odd
    return odd < 1 << 24 and value < Fraction(2) ** 128


@pytest.mark.parametrize(("exponent", "mantissa"), [(1, 0), (1, 3), (2, 1), (3, 0), (4, 3), (5, 2), (8, 2)])
def test_only_exact_float_formats_pass(exponent: int, mantissa: int) -> None:
    """Accepted means every finite element is a binary32; refused, that some element or the format's grid is not."""
    for top, flags in itertools.product(TopCodes, (1, 3)):
        for bias in (*range(-130, -105), *range(100, 160), *range(220, 262), 0, 7):
            c = CFormat(1, 1 + exponent + mantissa, exponent, mantissa, flags, top, 0, bias)
            codes = range(1 << (exponent + mantissa))
            finite = is_finite_code(codes, c)
            exact = all(
                is_binary32(element(code >> mantissa, code & ((1 << mantissa) - 1), c))
                for code in codes
                if finite[code]
            )
            status, field = check_format(c)
            if status is Status.OK:
                assert exact, (exponent, mantissa, top, flags, bias)
            elif exponent > 1 and flags == 3:
                assert not exact, (exponent, mantissa, top, flags, bias)
                assert field == 8


def test_python_and_core_accept_the_same_formats() -> None:
    for e, m, suffix in itertools.product((1, 2, 5, 8), (0, 2, 7), ("", "fn", "finite")):
        for bias in (-129, -128, -127, -126, -110, 1, 120, 127, 128, 148, 149, 150, 151):
            name = f"e{e}m{m}{suffix}b{bias}"
            c = CFormat(1, 1 + e + m, e, m, 3, {"": 0, "fn": 1, "finite": 2}[suffix], 0, bias)
            assert (check_format(c)[0] is Status.OK) == is_exact(name), name


@pytest.mark.parametrize(
    ("fields", "offset"),
    [
        ((0, 8, 0, 0, 0, 0, 0, 0), 0),
        ((5, 8, 0, 0, 0, 0, 0, 0), 0),
        ((1, 9, 4, 3, 3, 0, 0, 7), 1),  # width is not 1 + E + M
        ((1, 7, 4, 3, 3, 0, 0, 7), 1),
        ((1, 1, 0, 0, 1, 0, 0, 7), 2),
        ((1, 13, 9, 3, 3, 0, 0, 7), 2),
        ((1, 33, 8, 24, 3, 0, 0, 127), 3),
        ((1, 8, 4, 3, 7, 0, 0, 7), 4),  # floats are not affine
        ((1, 8, 4, 3, 8, 0, 0, 7), 4),
        ((1, 8, 4, 3, 3, 3, 0, 7), 5),
        ((1, 8, 4, 3, 3, 0, 1, 7), 6),  # trits are ternary only
        ((1, 8, 4, 3, 3, 0, 2, 7), 6),
        ((2, 1, 0, 0, 1, 0, 0, 0), 1),
        ((2, 17, 0, 0, 1, 0, 0, 0), 1),
        ((2, 0, 0, 0, 1, 0, 0, 0), 1),
        ((2, 8, 1, 0, 1, 0, 0, 0), 2),
        ((2, 8, 0, 1, 1, 0, 0, 0), 3),
        ((2, 8, 0, 0, 2, 0, 0, 0), 4),
        ((2, 8, 0, 0, 1, 1, 0, 0), 5),
        ((2, 8, 0, 0, 1, 0, 0, 150), 8),
        ((2, 8, 0, 0, 1, 0, 0, -121), 8),  # -128 * 2^121 = -2^128
        ((2, 8, 0, 0, 0, 0, 0, -121), 8),
        ((3, 1, 0, 0, 1, 0, 0, 0), 1),
        ((3, 2, 0, 0, 4, 0, 0, 0), 4),
        ((3, 2, 0, 0, 1, 0, 0, 1), 8),
        ((4, 2, 0, 0, 1, 0, 0, 0), 1),
        ((4, 1, 0, 0, 0, 0, 1, 0), 6),
    ],
)
def test_refused_formats(fields: tuple[int, ...], offset: int) -> None:
    assert check_format(CFormat(*fields)) == (Status.BAD_TENSOR_FORMAT, offset)


@pytest.mark.parametrize(
    "fields",
    [
        (2, 8, 0, 0, 1, 0, 0, 149),
        (2, 8, 0, 0, 1, 0, 0, -120),
        (2, 8, 0, 0, 0, 0, 0, -120),
        (3, 2, 0, 0, 0, 0, 1, 0),
        (4, 1, 0, 0, 1, 0, 0, 0),
    ],
)
def test_accepted_at_the_edge(fields: tuple[int, ...]) -> None:
    c = CFormat(*fields)
    assert check_format(c)[0] is Status.OK
    if c.kind == FormatKind.INTEGER:
        codes = np.arange(256)
        numbers = np.where((codes > 127) & (c.flags == 1), codes - 256, codes)
        expected = np.ldexp(numbers.astype(np.float64), -c.bias).astype(np.float32)
        np.testing.assert_array_equal(decode(codes, c), expected)


@pytest.mark.parametrize("width", range(1, 33))
def test_rows_of_any_width(width: int) -> None:
    rng = np.random.default_rng(width)
    for count in (*range(1, 20), 100):
        codes = rng.integers(0, 1 << width, count, dtype=np.uint64).astype(np.uint32)
        stream = sum(int(code) << (i * width) for i, code in enumerate(codes))
        row = stream.to_bytes(-(-count * width // 8), "little")
        assert packing.pack_bits(codes, width) == row
        c = CFormat(spec.FormatKind.INTEGER, width, 0, 0, 0, 0, Packing.BITS, 0)
        read, used = read_row(row, count, c)
        np.testing.assert_array_equal(read, codes)
        assert used == len(row)


def test_rows_of_trits() -> None:
    for count in range(1, 30):
        elements = np.random.default_rng(count).integers(-1, 2, count)
        digits = [int(e) + 1 for e in elements]
        row = bytes(sum(d * 3**k for k, d in enumerate(digits[i : i + 5])) for i in range(0, count, 5))
        codes, used = read_row(row, count, CFormat(FormatKind.TERNARY, 2, 0, 0, 1, 0, Packing.TRITS, 0))
        np.testing.assert_array_equal(codes, elements.astype(np.uint32) & 3)
        assert used == len(row)
