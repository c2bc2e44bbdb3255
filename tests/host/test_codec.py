"""What the oracles of test_formats_proofs.py do not cover: refusals, signs, saturation, affine, stochastic rounding."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitloop.errors import FormatError
from bitloop.numeric import codec
from bitloop.numeric.codec import decode, decode_table, encode, is_finite_code
from bitloop.numeric.formats import parse_format
from bitloop.numeric.rounding import Rounding, stochastic_bits

E4M3, E4M3FN, INT8, UINT4 = (parse_format(name) for name in ("e4m3", "e4m3fn", "int8", "uint4"))
MASK = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("name", "value", "code"),
    [
        # OCP 8-bit Floating Point 1.0, tables 1 and 2; IEEE 754 binary16 and binary32; by hand.
        ("e4m3fn", 448.0, 0x7E),
        ("e4m3fn", 0.015625, 0x08),
        ("e4m3fn", -0.001953125, 0x81),
        ("e5m2", 57344.0, 0x7B),
        ("e5m2", 1.0, 0x3C),
        ("fp16", -2.0, 0xC000),
        ("fp16", 1 / 3, 0x3555),
        ("bf16", 3.0, 0x4040),
        ("fp32", 0.1, 0x3DCCCCCD),
        ("fp32", 2.0**-149, 1),
        ("e2m1finite", -1.5, 0b1011),
        ("ue5m3", 1.0, 0b01111_000),
        ("int4", -3.0, 0b1101),
        ("q3.4", -0.0625, 0xFF),
        ("ternary", -1.0, 0b11),
        ("binary", -0.0, 1),
        ("binary", -1e-40, 0),
    ],
)
def test_codes_by_hand(name: str, value: float, code: int) -> None:
    assert encode([value], parse_format(name)).tolist() == [code]


def test_one_rounding_only() -> None:
    # Just above the tie between 1 and 1.125 of e4m3: binary32 would first round it onto the tie, and then down.
    value = 1.0625 + 2.0**-40
    assert np.float32(value) == 1.0625
    assert decode(encode([value], E4M3), E4M3).tolist() == [1.125]


def test_shapes_and_input_types() -> None:
    values = np.arange(-12, 12, dtype=np.int16).reshape(2, 3, 4)
    codes = encode(values, INT8)
    assert (codes.shape, codes.dtype) == ((2, 3, 4), np.uint32)
    assert np.array_equal(decode(codes, INT8), values)
    assert encode(1.0, E4M3).shape == ()
    assert encode([], E4M3).shape == (0,)
    assert np.array_equal(encode(values.T.astype(np.float32), E4M3), encode(values.astype(float), E4M3).T)
    original = np.array([-1.0, 2.0, 1e9])
    for fmt in (E4M3, INT8, parse_format("ue4m3")):
        encode(original, fmt)
        assert original.tolist() == [-1.0, 2.0, 1e9]


def test_nan_is_refused_with_its_index() -> None:
    values = np.zeros((3, 50_000))
    values[2, 40_001] = np.nan
    for fmt in (E4M3, INT8, parse_format("binary"), parse_format("ternary")):
        with pytest.raises(FormatError, match=r"index \(2, 40001\) is NaN"):
            encode(values, fmt)
    for at in (0, 99):  # at either end, and alone
        with pytest.raises(FormatError, match=rf"index \({at},\)"):
            encode(np.where(np.arange(100) == at, np.nan, 1.0), INT8)
    with pytest.raises(FormatError, match=r"index \(\)"):
        encode(np.nan, INT8)


def test_infinities_saturate_or_stay() -> None:
    values = [np.inf, -np.inf, 1e300, -1e300]
    assert decode(encode(values, E4M3), E4M3).tolist() == [240, -240, 240, -240]
    assert decode(encode(values, E4M3, overflow="inf"), E4M3).tolist() == [np.inf, -np.inf, np.inf, -np.inf]
    kept = encode(values, E4M3, Rounding.TOWARD_ZERO, overflow="inf")
    assert decode(kept, E4M3).tolist() == [np.inf, -np.inf, 240, -240]
    assert decode(encode(values, INT8), INT8).tolist() == [127, -128, 127, -128]
    for fmt in (E4M3FN, INT8, parse_format("e2m1finite"), parse_format("ternary")):
        with pytest.raises(FormatError, match=f"{fmt.name} has no infinities"):
            encode(values, fmt, overflow="inf")


def test_overflow_begins_half_an_ulp_beyond_the_largest() -> None:
    # e4m3: 240, then 256 if exponents went on; e2m0: 2, then 4.
    for name, half in (("e4m3", 248.0), ("e2m0", 3.0)):
        fmt = parse_format(name)
        below = np.nextafter(half, 0)
        for rounding in (Rounding.NEAREST, Rounding.NEAREST_AWAY):
            codes = encode([below, half, -half], fmt, rounding, overflow="inf")
            assert decode(codes, fmt).tolist() == [fmt.max_finite, np.inf, -np.inf]
    tiny = np.nextafter(240.0, 300)
    assert decode(encode([240.0, tiny], E4M3, Rounding.AWAY, overflow="inf"), E4M3).tolist() == [240, np.inf]
    e1m0 = parse_format("e1m0")  # its elements are +0 and -0, and 2 would come next
    assert encode([0.0, 0.9, 1.0], e1m0, overflow="inf").tolist() == [0, 0, 1]


def test_unsigned_formats_saturate_negatives_to_zero() -> None:
    for name in ("ue4m3", "ue4m3nosub", "ue3m0", "uint4", "uq2.2"):
        fmt = parse_format(name)
        for rounding in Rounding:
            assert encode([-0.0, -1e-300, -1.0, -np.inf], fmt, rounding).tolist() == [0, 0, 0, 0]
    assert encode([-np.inf], parse_format("ue4m3"), overflow="inf").tolist() == [0]


def test_zeros_keep_their_sign_in_signed_floats() -> None:
    assert encode([0.0, -0.0, -1e-30], E4M3).tolist() == [0, 0x80, 0x80]
    assert np.signbit(decode([0, 0x80], E4M3)).tolist() == [False, True]
    assert encode([0.0, -0.0], INT8).tolist() == [0, 0]


def test_without_subnormals_the_step_is_from_zero_to_the_least_normal() -> None:
    fmt = parse_format("e4m3nosub")  # least normal 2^-6
    least = 2.0**-6
    values = [least / 2, np.nextafter(least / 2, 1), least * 0.999, -least * 0.75, 5e-324, least]
    expected = {
        Rounding.NEAREST: [0, 8, 8, 0x88, 0, 8],
        Rounding.NEAREST_AWAY: [8, 8, 8, 0x88, 0, 8],
        Rounding.TOWARD_ZERO: [0, 0, 0, 0x80, 0, 8],
        Rounding.AWAY: [8, 8, 8, 0x88, 8, 8],
    }
    for rounding, codes in expected.items():
        assert encode(values, fmt, rounding).tolist() == codes
    assert decode(np.arange(8, dtype=np.uint32), fmt).tolist() == [0.0] * 8
    assert is_finite_code(np.arange(256, dtype=np.uint32), fmt).sum() == 256 - 16


def test_integer_ties_go_to_the_even_integer() -> None:
    values = [0.5, 1.5, 2.5, -0.5, -1.5, 126.5, 127.5]
    assert decode(encode(values, INT8), INT8).tolist() == [0, 2, 2, 0, -2, 126, 127]
    away = decode(encode(values, INT8, Rounding.NEAREST_AWAY), INT8)
    assert away.tolist() == [1, 2, 3, -1, -2, 127, 127]
    below_half = np.nextafter(0.5, 0)  # adding 0.5 to it gives 1 in binary64
    assert encode([below_half], INT8, Rounding.NEAREST_AWAY).tolist() == [0]
    ternary = parse_format("ternary")
    assert encode([0.5, 0.51, -0.5, -3.0], ternary).tolist() == [0, 1, 0, 3]


def test_zero_points_are_added_after_rounding_and_before_saturation() -> None:
    assert encode([0.5, 1.5, -3.0, 14.6, 200.0], UINT4, zero_point=3).tolist() == [3, 5, 0, 15, 15]
    assert decode([0, 3, 15], UINT4, zero_point=3).tolist() == [-3, 0, 12]
    # One zero point a channel, along the last axis; fixed point's are integers before the fraction.
    codes = encode([[1.0, 1.0], [-1.0, 100.0]], INT8, zero_point=[0, 100])
    assert codes.tolist() == [[1, 101], [255, 127]]
    assert decode(codes, INT8, zero_point=[0, 100]).tolist() == [[1, 1], [-1, 27]]
    fixed = parse_format("q3.4")
    assert encode([0.5], fixed, zero_point=-2).tolist() == [6]
    assert decode([6], fixed, zero_point=-2).tolist() == [0.5]
    for call in (lambda: encode([1.0], E4M3, zero_point=1), lambda: decode([1], E4M3, zero_point=1)):
        with pytest.raises(FormatError, match="e4m3 has no zero point"):
            call()


def test_codes_out_of_range_are_refused() -> None:
    for codes in ([256], np.array([-1]), [1 << 32]):
        with pytest.raises(FormatError, match="8 bits"):
            decode(codes, E4M3)
    with pytest.raises(FormatError, match="unsigned integers"):
        decode([1.0], E4M3)
    with pytest.raises(FormatError, match="32 bits"):
        decode_table(parse_format("fp32"))


def test_codes_that_are_no_number() -> None:
    assert not is_finite_code([0x78, 0x79, 0x7F, 0xF8], E4M3).any()
    assert is_finite_code([0x78, 0x7E, 0x7F, 0xFF], E4M3FN).tolist() == [True, True, False, False]
    assert is_finite_code([0, 1, 2, 3], parse_format("ternary")).tolist() == [True, True, False, True]
    assert np.isnan(decode([2], parse_format("ternary"))).all()
    assert is_finite_code(np.arange(256), INT8).all()


# --- stochastic rounding ------------------------------------------------------------------------------------------


def test_random_bits_are_murmurhash3s() -> None:
    # Published: MurmurHash3_x86_32 of no bytes is the finalizer of the seed: 1 -> 514E28B7, FFFFFFFF -> 81F16F39.
    inverse = pow(0x9E3779B1, -1, 1 << 32)
    for start, expected in ((0, 0), (1, 0x514E28B7), (MASK, 0x81F16F39)):
        n = (start - 0xC2B2AE3D) * inverse & MASK
        assert int(stochastic_bits(n, 0)) == expected
        shifted = (start - 0xC2B2AE3D - 12345 * 0x85EBCA77) * inverse & MASK
        assert int(stochastic_bits(shifted, 12345)) == expected


@pytest.mark.parametrize(
    ("n", "seed", "h"),
    [
        (0, 0, 0x9B518C6D),
        (1, 0, 0x378339B1),
        (2, 0, 0x3D09C0BF),
        (0, 1, 0x8F2D0819),
        (1, 1, 0x5DCC6F18),
        (12345, 42, 0x2ADD4A41),
        (MASK, MASK, 0xF9C53C6D),
    ],
)
def test_vectors_of_the_document(n: int, seed: int, h: int) -> None:
    assert int(stochastic_bits(n, seed)) == _bits(n, seed) == h


def _bits(n: int, seed: int) -> int:
    """Compute the document's four lines in Python's integers."""
    h = (n * 0x9E3779B1 + seed * 0x85EBCA77 + 0xC2B2AE3D) & MASK
    h = ((h ^ (h >> 16)) * 0x85EBCA6B) & MASK
    h = ((h ^ (h >> 13)) * 0xC2B2AE35) & MASK
    return h ^ (h >> 16)


def _index_of(h: int, seed: int) -> int:
    """Undo :func:`_bits`: each line can be undone, so every 32-bit number comes exactly once in 2^32 elements."""
    h ^= h >> 16
    h = h * pow(0xC2B2AE35, -1, 1 << 32) & MASK
    h ^= (h >> 13) ^ (h >> 26)
    h = h * pow(0x85EBCA6B, -1, 1 << 32) & MASK
    h ^= h >> 16
    return (h - seed * 0x85EBCA77 - 0xC2B2AE3D) * pow(0x9E3779B1, -1, 1 << 32) & MASK


@given(st.integers(0, MASK), st.integers(0, MASK))
def test_every_number_is_drawn_exactly_once(n: int, seed: int) -> None:
    assert _index_of(int(stochastic_bits(n, seed)), seed) == n


@settings(max_examples=300)
@given(
    name=st.sampled_from(["e4m3", "e5m2", "e3m0", "fp16", "fp32", "e4m3nosub", "ue4m3", "int8", "q3.4", "ternary"]),
    value=st.floats(1e-9, 250.0) | st.floats(0, 1, exclude_min=True) | st.floats(2.0**-40, 2.0**-6),
    seed=st.integers(0, MASK),
)
def test_stochastic_rounding_is_unbiased(name: str, value: float, seed: int) -> None:
    """Up for exactly floor(f * 2^32) of the 2^32 numbers: asked at the last number that moves and the first that stays.

    As every number is drawn exactly once in 2^32 elements, the mean result is the value but for f's bits below 2^-32.
    """
    fmt = parse_format(name)
    value = min(value, fmt.max_finite)
    down = float(decode(encode([value], fmt, Rounding.TOWARD_ZERO), fmt)[0])
    up = float(decode(encode([value], fmt, Rounding.AWAY), fmt)[0])
    gap = Fraction(up) - Fraction(down)
    threshold = 0 if gap == 0 else (Fraction(value) - Fraction(down)) / gap * 2**32 // 1
    for h, expected in ((threshold - 1, up), (threshold, down)):
        if 0 <= h <= MASK:
            n = _index_of(int(h), seed)
            codes = encode([value], fmt, Rounding.STOCHASTIC, seed=seed, index_offset=n)
            assert float(decode(codes, fmt)[0]) == expected


def test_elements_are_numbered_in_row_major_order_across_blocks() -> None:
    values = np.full((3, 30_000), 1.0625)  # halfway between 1 and 1.125
    whole = encode(values, E4M3, Rounding.STOCHASTIC, seed=9)
    flat = encode(values.reshape(-1), E4M3, Rounding.STOCHASTIC, seed=9)
    assert np.array_equal(whole.reshape(-1), flat)
    tail = encode(values.reshape(-1)[50_000:], E4M3, Rounding.STOCHASTIC, seed=9, index_offset=50_000)
    assert np.array_equal(flat[50_000:], tail)
    expected = [0x39 if _bits(n, 9) < 2**31 else 0x38 for n in range(0, 90_000, 7)]
    assert flat[::7].tolist() == expected
    wrapped = encode(values[0, :4], E4M3, Rounding.STOCHASTIC, seed=9, index_offset=MASK - 1)
    assert wrapped.tolist() == [0x39 if _bits(n, 9) < 2**31 else 0x38 for n in (MASK - 1, MASK, 0, 1)]


def test_stochastic_overflow() -> None:
    values = np.full(1000, 244.0)  # a quarter of the way from 240 to 256
    assert set(encode(values, E4M3, Rounding.STOCHASTIC).tolist()) == {0x77}
    codes = encode(values, E4M3, Rounding.STOCHASTIC, overflow="inf")
    assert codes.tolist() == [0x78 if _bits(n, 0) < 2**30 else 0x77 for n in range(1000)]


def test_both_ways_of_rounding_to_nearest_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(1)
    values = np.concatenate([rng.standard_normal(5000) * 2.0**k for k in range(-160, 140, 12)])
    for name in ("e4m3", "fp16", "fp32", "ue5m3", "e2m3finite", "e8m1", "e3m4b20"):
        fmt = parse_format(name)
        quick = encode(values, fmt)
        general = codec._encode_float(values, fmt, Rounding.NEAREST, None, None)
        assert np.array_equal(quick, general)
