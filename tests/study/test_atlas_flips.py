"""Bits flipped by hand: what codes become, what they are worth then, which are left alone, which are struck."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

import gfloat
import ml_dtypes
import numpy as np
import pytest
from gfloat.formats import format_info_ocp_e4m3
from hypothesis import given, settings
from hypothesis import strategies as st

from bitloop.errors import UsageError
from bitloop.network.architecture import Architecture
from bitloop.network.zoo import zoo_architecture
from bitloop.numeric.codec import is_finite_code
from bitloop.numeric.formats import parse_format
from bitloop.numeric.rounding import Rounding
from bitloop.quantize import blm
from bitloop.quantize.model import Model, QuantizedTensor
from bitloop.spec import FormatKind, Granularity, Packing, ScaleKind
from bitloop.study.bit_positions import BitKind, flip, positions_of, struck

S, E, M, G = BitKind.SIGN, BitKind.EXPONENT, BitKind.MANTISSA, BitKind.MAGNITUDE
ARCHITECTURE: Architecture = zoo_architecture("mlp8k")
TENSOR = "dense2.biases"  # ten values


def model_with(
    fmt: str, codes: list[int], *, scale: float | None = None, zero_point: int | None = None, packing: str = "BITS"
) -> Model:
    """A MODEL whose last biases begin with these codes; the codes behind them are repeated."""
    shapes = ARCHITECTURE.parameter_shapes()
    count = math.prod(shapes[TENSOR])
    fp32 = parse_format("fp32")
    tensors = {
        name: QuantizedTensor(
            name, fp32, ScaleKind.NONE, Granularity.TENSOR, Rounding.NEAREST, Packing.BITS, np.zeros(shape, np.uint32)
        )
        for name, shape in shapes.items()
    }
    tensors[TENSOR] = QuantizedTensor(
        TENSOR,
        parse_format(fmt),
        ScaleKind.NONE if scale is None else ScaleKind.FP32,
        Granularity.TENSOR,
        Rounding.NEAREST,
        Packing[packing],
        np.resize(np.array(codes, np.uint32), count),
        None if scale is None else np.array([scale], np.float32),
        None if zero_point is None else np.array([zero_point], np.int32),
    )
    recipe = {"weights": "fp32", "biases": fmt, "overrides": {}}
    return Model("mine", "mnist", ARCHITECTURE, recipe, tensors)


def values_after(model: Model, bit: int, count: int) -> list[float]:
    return [float(value) for value in flip(model, TENSOR, bit).model.tensors[TENSOR].values()[:count]]


# e3m1, bias 3: s eee m. 0x06 = 0 011 0 = 1.0; 0x07 = 1.5; 0x01 = 2^-2·0.5 = 0.125 (subnormal); 0x0B = 0 101 1 = 6;
# 0x0D = 0 110 1 = 12 (the greatest); eee = 111 is infinity or NaN.
E3M1 = [0x06, 0x07, 0x01, 0x0B, 0x0D]
BY_HAND = [
    # format, codes, values, bit, kind and index, values after it was flipped, codes left
    ("e3m1", E3M1, [1.0, 1.5, 0.125, 6.0, 12.0], 4, (S, 0), [-1.0, -1.5, -0.125, -6.0, -12.0], 0),
    # bit 3 = exponent 2: 011→111 no number, 000→100 = 2^1·1.5, 101→001 = 2^-2·1.5, 110→010 = 2^-1·1.5
    ("e3m1", E3M1, [1.0, 1.5, 0.125, 6.0, 12.0], 3, (E, 2), [1.0, 1.5, 3.0, 0.375, 0.75], 2 * 2),
    # bit 1 = exponent 0: 011→010, 000→001 = 2^-2·1.5, 101→100, 110→111 no number
    ("e3m1", E3M1, [1.0, 1.5, 0.125, 6.0, 12.0], 1, (E, 0), [0.5, 0.75, 0.375, 3.0, 12.0], 1 * 2),
    ("e3m1", E3M1, [1.0, 1.5, 0.125, 6.0, 12.0], 0, (M, 0), [1.5, 1.0, 0.0, 4.0, 8.0], 0),
    # e4m3 (IEEE), bias 7: 0x38 = 1.0, 0x3F = 1.875, 0x77 = 240; 0x3C = 1.5.
    (
        "e4m3",
        [0x38, 0x3F, 0x77, 0x3C, 0x00],
        [1.0, 1.875, 240.0, 1.5, 0.0],
        2,
        (M, 2),
        [1.5, 1.375, 176.0, 1.0, 0.0078125],
        0,
    ),
    # bit 6 = exponent 3 (×2^±8): 0111→1111 no number, 1110→0110, 0000→1000
    (
        "e4m3",
        [0x38, 0x3F, 0x77, 0x3C, 0x00],
        [1.0, 1.875, 240.0, 1.5, 0.0],
        6,
        (E, 3),
        [1.0, 1.875, 0.9375, 1.5, 2.0],
        3 * 2,
    ),
    # int4, two's complement: 0111 = 7, 1111 = −1, 1000 = −8, 0000, 0101 = 5.
    ("int4", [7, 15, 8, 0, 5], [7.0, -1.0, -8.0, 0.0, 5.0], 3, (S, 0), [-1.0, 7.0, 0.0, -8.0, -3.0], 0),
    ("int4", [7, 15, 8, 0, 5], [7.0, -1.0, -8.0, 0.0, 5.0], 2, (G, 2), [3.0, -5.0, -4.0, 4.0, 1.0], 0),
    ("int4", [7, 15, 8, 0, 5], [7.0, -1.0, -8.0, 0.0, 5.0], 0, (G, 0), [6.0, -2.0, -7.0, 1.0, 4.0], 0),
    # Unsigned: no sign.
    ("uint4", [15, 0, 5, 8, 1], [15.0, 0.0, 5.0, 8.0, 1.0], 3, (G, 3), [7.0, 8.0, 13.0, 0.0, 9.0], 0),
    # Fixed point with two fraction bits: 0110 = 1.5; sign is −2.
    ("q1.2", [6, 1, 12, 0, 15], [1.5, 0.25, -1.0, 0.0, -0.25], 1, (G, 1), [1.0, 0.75, -0.5, 0.5, -0.75], 0),
    # Ternary: 00 = 0, 01 = +1, 11 = −1, 10 is no code.
    ("ternary", [0, 1, 3, 1, 3], [0.0, 1.0, -1.0, 1.0, -1.0], 1, (S, 0), [0.0, -1.0, 1.0, -1.0, 1.0], 1 * 2),
    ("ternary", [0, 1, 3, 1, 3], [0.0, 1.0, -1.0, 1.0, -1.0], 0, (G, 0), [1.0, 0.0, -1.0, 0.0, -1.0], 2 * 2),
    ("binary", [0, 1, 1, 0, 1], [-1.0, 1.0, 1.0, -1.0, 1.0], 0, (S, 0), [1.0, -1.0, -1.0, 1.0, -1.0], 0),
]


@pytest.mark.parametrize("case", BY_HAND, ids=lambda case: f"{case[0]} bit {case[3]}")
def test_values_by_hand(case: tuple[str, list[int], list[float], int, tuple[BitKind, int], list[float], int]) -> None:
    fmt, codes, values, bit, place, after, left = case
    model = model_with(fmt, codes)
    assert [float(value) for value in model.tensors[TENSOR].values()[:5]] == values
    assert values_after(model, bit, 5) == after
    found = flip(model, TENSOR, bit)
    assert (found.changed, found.left) == (10 - left, left)
    position = {position.bit: position for position in positions_of(parse_format(fmt))}[bit]
    assert (position.kind, position.index) == place


def binary32(value: float) -> int:
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


@pytest.mark.parametrize("bit", range(32))
def test_binary32_is_what_struct_says(bit: int) -> None:
    numbers = [1.0, -0.1, 3e38, 0.0, 1e-40]
    expected = [struct.unpack("<f", struct.pack("<I", binary32(x) ^ 1 << bit))[0] for x in numbers]
    left = sum(not math.isfinite(value) for value in expected)
    kept = [
        y if math.isfinite(y) else struct.unpack("<f", struct.pack("<f", x))[0]
        for x, y in zip(numbers, expected, strict=True)
    ]
    model = model_with("fp32", [binary32(x) for x in numbers])
    assert values_after(model, bit, 5) == kept
    assert flip(model, TENSOR, bit).left == 2 * left
    assert (bit == 30) == (left > 0 and bit > 27)  # 1.0's exponent is 0111 1111: its first bit makes it infinite


@pytest.mark.parametrize("bit", range(8))
def test_all_codes_of_e4m3fn_by_other_decoders(bit: int) -> None:
    """The OCP format has one NaN a sign; gfloat and ml_dtypes decode what a flip makes of every other code."""
    codes = [code for code in range(256) if code & 0x7F != 0x7F]
    for start in range(0, len(codes), 10):
        part = (codes[start : start + 10] * 10)[:10]
        flipped = [code ^ 1 << bit for code in part]
        after = [code if other & 0x7F == 0x7F else other for code, other in zip(part, flipped, strict=True)]
        found = flip(model_with("e4m3fn", part), TENSOR, bit)
        values = found.model.tensors[TENSOR].values().tolist()
        assert values == [gfloat.decode_float(format_info_ocp_e4m3, code).fval for code in after]
        assert values == np.array(after, np.uint8).view(ml_dtypes.float8_e4m3fn).astype(np.float32).tolist()
        assert found.left == sum(code & 0x7F == 0x7F for code in flipped)
        assert found.changed + found.left == 10


@pytest.mark.parametrize(
    ("fmt", "names"),
    [
        ("e3m1", "S E2 E1 E0 M0"),
        ("ue2m2", "E1 E0 M1 M0"),
        ("e2m0finite", "S E1 E0"),
        ("int4", "S 2 1 0"),
        ("uint3", "2 1 0"),
        ("q1.2", "S 2 1 0"),
        ("ternary", "S 0"),
        ("binary", "S"),
    ],
)
def test_names(fmt: str, names: str) -> None:
    positions = positions_of(parse_format(fmt))
    assert [position.short for position in positions] == names.split()
    assert [position.bit for position in positions] == list(range(len(positions)))[::-1]


def test_meanings() -> None:
    meanings = {
        fmt: [p.meaning for p in positions_of(parse_format(fmt))] for fmt in ("e3m2", "int3", "q0.2", "ternary")
    }
    assert meanings == {
        "e3m2": ["−x", "×2^±4", "×2^±2", "×2^±1", "±2^-1 of 2^e", "±2^-2 of 2^e"],
        "int3": ["±2^2", "±2^1", "±2^0"],
        "q0.2": ["±2^0", "±2^-1", "±2^-2"],
        "ternary": ["±2^1", "±2^0"],
    }
    assert [p.name for p in positions_of(parse_format("e2m1"))] == ["sign", "exponent 1", "exponent 0", "mantissa 0"]


FORMATS = (
    *("fp32", "fp16", "bf16", "e4m3", "e4m3fn", "e3m1", "e2m1finite", "ue5m3", "e3m2nosub", "int8", "int2", "uint5"),
    *("q3.4", "ternary", "binary"),
)


@settings(max_examples=60)
@given(st.sampled_from(FORMATS), st.integers(0, 2**32 - 1), st.floats(0.01, 1.0), st.data())
def test_twice_is_not_at_all(fmt: str, seed: int, share: float, data: st.DataObject) -> None:
    parsed = parse_format(fmt)
    bit = data.draw(st.integers(0, parsed.width_bits - 1))
    drawn = np.random.default_rng(seed).integers(0, 1 << parsed.width_bits, 40, dtype=np.uint32)
    finite = drawn[is_finite_code(drawn, parsed)]
    if not finite.size:
        return
    model = model_with(fmt, [int(code) for code in finite])
    once = flip(model, TENSOR, bit, share=share, seed=seed)
    twice = flip(once.model, TENSOR, bit, share=share, seed=seed)
    assert twice.model.sha256 == model.sha256
    assert (twice.changed, twice.left) == (once.changed, once.left)
    changed = once.model.tensors[TENSOR].codes != model.tensors[TENSOR].codes
    assert int(changed.sum()) == once.changed
    assert once.changed + once.left == max(1, round(share * 10))
    assert set((once.model.tensors[TENSOR].codes ^ model.tensors[TENSOR].codes).tolist()) <= {0, 1 << bit}
    assert (once.model.sha256 != model.sha256) == (once.changed > 0)
    # What a flip makes is a MODEL like any other: its file can be read, with all that this checks.
    assert blm.from_bytes(once.model.to_bytes()).sha256 == once.model.sha256


def test_nothing_else_changes(models: Callable[..., Model]) -> None:
    model = models("mlp8k", "int4:channel", "fp16")
    found = flip(model, "dense1.weights", 2, share=0.5).model
    for name, tensor in model.tensors.items():
        other = found.tensors[name]
        assert (other.format, other.scale, other.packing, other.granularity) == (
            tensor.format, tensor.scale, tensor.packing, tensor.granularity
        )  # fmt: skip
        assert np.array_equal(other.codes, tensor.codes) == (name != "dense1.weights")
        if tensor.scales is not None:
            np.testing.assert_array_equal(other.scales, tensor.scales)
    assert (found.name, found.recipe, found.sizes) == (model.name, model.recipe, model.sizes)


def test_trits_stay_trits() -> None:
    model = model_with("ternary", [0, 1, 3], scale=0.5, packing="TRITS")
    found = flip(model, TENSOR, 1)
    assert found.model.tensors[TENSOR].packing is Packing.TRITS
    assert found.model.tensors[TENSOR].format.kind is FormatKind.TERNARY
    assert values_after(model, 1, 3) == [0.0, -0.5, 0.5]


def test_zero_points_and_scales_stay() -> None:
    # uint4 with zero point 6 and scale 0.5: code 7 is 0.5; its third bit (weight 4) gone, it is (3 − 6) · 0.5.
    model = model_with("uint4", [7], scale=0.5, zero_point=6)
    assert values_after(model, 2, 1) == [-1.5]


@pytest.mark.parametrize(
    ("fmt", "codes", "scale", "bit", "expected"),
    [
        # Values 3 and 4 in turn, RMS sqrt(12.5); both lose 1 or gain 1.
        ("int4", [3, 4], 1.0, 0, 1 / math.sqrt(12.5)),
        # The scale is in both and falls out.
        ("int4", [3, 4], 0.01, 0, 1 / math.sqrt(12.5)),
        # 3→−5 and 4→−4: 8 each.
        ("int4", [3, 4], 1.0, 3, 8 / math.sqrt(12.5)),
        # Ternary 0, 1: only 1 has a sign. Mean over the codes that change: 2; RMS sqrt(1/2).
        ("ternary", [0, 1], 1.0, 1, 2 / math.sqrt(0.5)),
        # Of e3m1 1.0 and 12: 1→0.5, 12 stays (no number); RMS sqrt(145/2).
        ("e3m1", [0x06, 0x0D], 1.0, 1, 0.5 / math.sqrt(72.5)),
        # Nothing to measure in.
        ("int4", [0], 1.0, 0, None),
        # Near the end of binary32, where its own squares would be infinite: 2^127 → −2^127.
        ("fp32", [binary32(2.0**127)], 2.0**10, 31, 2.0),
    ],
)
def test_mean_change_by_hand(fmt: str, codes: list[int], scale: float, bit: int, expected: float | None) -> None:
    found = flip(model_with(fmt, codes, scale=scale), TENSOR, bit).mean_change
    assert found == (None if expected is None else pytest.approx(expected, rel=1e-6))


@pytest.mark.parametrize(
    ("count", "share", "expected"),
    [(1000, 0.25, 250), (10, 1.0, 10), (10, 0.01, 1), (1, 1e-9, 1), (3, 0.5, 2), (7, 0.5, 4), (200, 0.005, 1)],
)
def test_a_share_is_that_many(count: int, share: float, expected: int) -> None:
    for seed in (0, 1, 2**32 - 1):
        assert int(struck(count, share, seed).sum()) == expected


def test_struck_codes_are_drawn_by_their_place() -> None:
    """The generator of docs/arithmetic.md, written again; the least numbers are struck."""

    def drawn(n: int, seed: int) -> int:
        h = (n * 0x9E3779B1 + seed * 0x85EBCA77 + 0xC2B2AE3D) % 2**32
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35)):
            h = (h ^ h >> shift) * factor % 2**32
        return h ^ h >> 16

    for seed in (0, 7):
        least = sorted(range(50), key=lambda n: drawn(n, seed))[:12]
        assert np.flatnonzero(struck(50, 12 / 50, seed)).tolist() == sorted(least)
    assert (struck(50, 0.2, 0) != struck(50, 0.2, 1)).any()
    assert (struck(500, 0.4, 3) >= struck(500, 0.2, 3)).all()


def test_what_makes_no_sense(models: Callable[..., Model]) -> None:
    model = models("mlp8k", "int4")
    for share in (0.0, -0.1, 1.01, math.nan):
        with pytest.raises(UsageError, match="share"):
            flip(model, TENSOR, 0, share=share)
    for seed in (-1, 2**32):
        with pytest.raises(UsageError, match="32 bits"):
            flip(model, TENSOR, 0, share=0.5, seed=seed)
    with pytest.raises(UsageError, match="bits 0 to 3, not 4"):
        flip(model, "dense1.weights", 4)
    with pytest.raises(UsageError, match=r"no tensor 'dense9\.weights'; it has dense1\.weights"):
        flip(model, "dense9.weights", 0)
