"""What quantization did to a tensor: figures by hand, against numpy and theory; bins against the encoder."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitloop.errors import ModelError, NetworkError
from bitloop.network.network import Network
from bitloop.numeric.codec import decode, encode, is_finite_code
from bitloop.numeric.formats import parse_format
from bitloop.numeric.rounding import Rounding
from bitloop.quantize.apply import quantize_tensor
from bitloop.quantize.histogram import MAX_EVEN_BINS, Bins, code_histogram, elements_of, rounding_edges, value_histogram
from bitloop.quantize.inspection import inspect_model
from bitloop.quantize.model import Model, QuantizedTensor
from bitloop.quantize.quality import (
    Reach,
    code_count,
    decibel,
    format_reach,
    max_error,
    model_sqnr_db,
    rms,
    saturated,
    sqnr_db,
    tensor_codes,
    tensor_error,
    value_reach,
    zeroed,
)
from bitloop.quantize.spec import parse_tensor_spec

NARROW = (
    *("e1m0", "e1m1", "e2m1finite", "e3m0", "e3m1", "e3m2nosub", "e4m3", "e4m3fn", "e5m2", "ue5m3", "e1m2nosub"),
    *("int2", "int4", "uint3", "int8", "q0.3", "uq2.2", "ternary", "binary"),
)
DIRECTED = (Rounding.NEAREST, Rounding.NEAREST_AWAY, Rounding.TOWARD_ZERO, Rounding.AWAY)
SPECS = (
    *("e3m1", "e3m1:pow2", "e4m3:channel", "e2m1finite:channel:pow2:toward_zero", "e4m0:away", "e3m2nosub", "ue5m3"),
    *("int4", "int4:channel", "int2:mse", "uint3:none", "int8:channel:mse", "uint4:affine", "uint8:affine:channel"),
    *("q0.3", "q2.2:nearest_away", "ternary", "ternary:channel", "binary", "e3m1:stochastic:seed=3", "int3:prune=0.2"),
    *("fp32", "bf16", "int16", "uint12:affine:channel"),
)


def tensor_of(values: object, spec: str) -> QuantizedTensor:
    return quantize_tensor("a.weights", np.array(values, np.float32), parse_tensor_spec(spec))


def test_ratio_by_hand() -> None:
    # Σw² = 9 + 16 = 25; errors 0.5 and 0, Σ(w − ŵ)² = 0.25: 100 times, 20 dB.
    assert sqnr_db(np.array([3, 4], np.float32), np.array([2.5, 4], np.float32)) == pytest.approx(20.0, abs=1e-12)
    # What becomes all zero has its own power as noise.
    assert sqnr_db(np.array([3, 4], np.float32), np.zeros(2, np.float32)) == 0.0
    assert sqnr_db(np.array([3, 4], np.float32), np.array([3, 4], np.float32)) == math.inf
    assert sqnr_db(np.zeros(2, np.float32), np.ones(2, np.float32)) == -math.inf
    assert sqnr_db(np.zeros(2, np.float32), np.zeros(2, np.float32)) == math.inf
    assert decibel(1.0, 10.0) == pytest.approx(-10.0)


def test_ratio_is_computed_in_binary64() -> None:
    # 1e20² is beyond binary32; (2^-80)² below it.
    assert sqnr_db(np.array([1e20], np.float32), np.array([0.9e20], np.float32)) == pytest.approx(20.0, abs=1e-4)
    tiny = np.array([2.0**-80], np.float32)
    assert sqnr_db(tiny, tiny / np.float32(2)) == pytest.approx(20 * math.log10(2), abs=1e-12)


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(-9, 9, width=32), st.floats(-9, 9, width=32)), min_size=1, max_size=40))
def test_ratio_against_exact_fractions(pairs: list[tuple[float, float]]) -> None:
    signal = sum(Fraction(w) ** 2 for w, _ in pairs)
    noise = sum((Fraction(w) - Fraction(q)) ** 2 for w, q in pairs)
    values, quantized = (np.array(column, np.float32) for column in zip(*pairs, strict=True))
    found = sqnr_db(values, quantized)
    if noise == 0:
        assert found == math.inf
    elif signal == 0:
        assert found == -math.inf
    elif float(noise) > 1e-290 and float(signal) > 1e-290:
        assert found == pytest.approx(10 * math.log10(float(signal / noise)), abs=1e-9)


@pytest.mark.parametrize("bits", range(4, 13))
def test_six_decibel_a_bit(bits: int) -> None:
    """A uniform variable over the full scale of b bits has 20·b·log10(2) = 6.02·b dB (Gersho and Gray, chapter 5).

    2^b steps of width Δ: signal (2^b·Δ)²/12, noise Δ²/12. Codes −2^(b−1) … 2^(b−1) − 1 round all of
    [−2^(b−1) − 1/2, 2^(b−1) − 1/2] by at most half a step.
    """
    half = 2 ** (bits - 1)
    values = np.random.default_rng(bits).uniform(-half - 0.5, half - 0.5, 200_000).astype(np.float32)
    tensor = tensor_of(values, f"int{bits}:none")
    ratio = tensor_error(tensor, values).sqnr_db
    mean = 10 * math.log10(1 + 3 / 4**bits)  # the range is off zero by half a step: Σw² is more by (Δ/2)²
    assert ratio == pytest.approx(20 * bits * math.log10(2) + mean, abs=0.05)


def test_ratio_against_numpy(networks: Callable[[str], Network], models: Callable[..., Model]) -> None:
    network = networks("mlp8k")
    found = inspect_model(models("mlp8k", "e3m1:pow2", "int8"), network)
    signal = noise = 0.0
    for error in found.errors:
        w = network.parameters[error.name].astype(np.float64)
        q = found.model.tensors[error.name].values().astype(np.float64)
        assert error.sqnr_db == pytest.approx(10 * np.log10(np.sum(w**2) / np.sum((w - q) ** 2)), abs=1e-9)
        assert error.max_error == np.abs(w - q).max()
        assert error.rms == pytest.approx(np.sqrt(np.mean(w**2)))
        signal, noise = signal + np.sum(w**2), noise + np.sum((w - q) ** 2)
    assert found.sqnr_db == pytest.approx(10 * np.log10(signal / noise), abs=1e-9)
    assert model_sqnr_db(found.errors) == found.sqnr_db


def test_saturated_and_zeroed_by_hand() -> None:
    # int3 without scale: −4 … 3. 3.2, 9 and −4.5 lie beyond; 0.3, −0.5 (a tie, to even) become 0; 0 was 0.
    values = np.array([3.2, 9, -4.5, -4, 3, 0.3, -0.5, 0, 0.6, -1.4], np.float32)
    error = tensor_error(tensor_of(values, "int3:none"), values)
    assert (error.elements, error.saturated, error.zeroed) == (10, 3, 2)
    assert error.max_error == 6.0
    # Unsigned: what is negative is saturated to 0, and becomes zero.
    values = np.array([-1, -0.0, 1, 16], np.float32)
    error = tensor_error(tensor_of(values, "uint4:none"), values)
    assert (error.saturated, error.zeroed, error.max_error) == (2, 1, 1.0)
    # Ternary {0, ±s}: s of (4, 2, 2) is their mean 8/3, which 4 lies beyond; 1 is under s/2.
    values = np.array([4, -2, 2, 1, 0], np.float32)
    error = tensor_error(tensor_of(values, "ternary"), values)
    assert (error.saturated, error.zeroed) == (1, 1)
    # Pruned values become zero too; a scale a channel saturates nothing.
    values = np.array([[0.1, 50], [-1, 100]], np.float32)
    error = tensor_error(tensor_of(values, "int4:channel:prune=0.5"), values)
    assert (error.saturated, error.zeroed) == (0, 1)


def test_saturated_with_zero_points() -> None:
    # uint4, zero point 5, no scale: −5 … 10.
    tensor = QuantizedTensor(
        name="a.weights",
        format=parse_format("uint4"),
        scale=parse_tensor_spec("uint4:none").scale,
        granularity=parse_tensor_spec("uint4").granularity,
        rounding=Rounding.NEAREST,
        packing=parse_tensor_spec("uint4").packing,
        codes=np.zeros(5, np.uint32),
        zero_points=np.array([5], np.int32),
    )
    values = np.array([-5.25, -5, 0, 10, 10.5], np.float32)
    assert saturated(tensor, values).tolist() == [True, False, False, False, True]
    assert format_reach(tensor) == Reach(1.0, 10.0)
    assert elements_of(tensor).tolist() == list(range(-5, 11))


@pytest.mark.parametrize("spec", ["e3m1:pow2", "e4m3:channel", "int4", "int8:channel:pow2", "e2m1finite:channel"])
def test_the_default_scale_saturates_nothing(spec: str) -> None:
    values = np.random.default_rng(1).normal(size=(40, 6)).astype(np.float32)
    assert tensor_error(tensor_of(values, spec), values).saturated == 0


def test_reach_by_hand() -> None:
    # e3m1: least 2^-3, greatest 12. Values up to 3: pow2 scale 2^-2.
    tensor = tensor_of([3, 0, -0.5], "e3m1:pow2")
    assert format_reach(tensor) == Reach(2.0**-5, 3.0)
    assert tensor_codes(tensor).reach == Reach(0.5, 3.0)
    # int4 reaches −8 steps. Channels with scales 1 and 1/7: the least and the greatest of both.
    scale = float(np.float32(1 / 7))
    assert format_reach(tensor_of([[7, 1], [0, 0]], "int4:channel")) == Reach(scale, 8.0)
    assert value_reach(np.array([0, -0.25, 2], np.float32)) == Reach(0.25, 2.0)
    assert value_reach(np.zeros(3, np.float32)) == Reach(0.0, 0.0)
    assert rms(np.array([3, -4], np.float32)) == math.sqrt(12.5)
    assert max_error(np.array([3], np.float32), np.array([5], np.float32)) == 2.0
    assert zeroed(np.array([1, -0.0, 0], np.float32), np.array([-0.0, 0, 0], np.float32)) == 1


def test_codes_by_hand() -> None:
    found = tensor_codes(tensor_of([0.0, -0.0, 1.0, 1.0], "e4m3"))
    assert (found.elements, found.used_codes, found.entropy_bits, found.rms) == (4, 3, 1.5, math.sqrt(0.5))
    assert found.codes == 240  # 2 · 15 · 8: all but the highest exponent field


@pytest.mark.parametrize("name", [*NARROW, "int12", "e5m6", "e2m0nosub", "e1m3nosub"])
def test_count_of_codes_against_all_codes(name: str) -> None:
    fmt = parse_format(name)
    codes = np.arange(1 << fmt.width_bits, dtype=np.uint32)
    assert code_count(fmt) == np.count_nonzero(is_finite_code(codes, fmt))


def test_count_of_wide_codes() -> None:
    assert code_count(parse_format("fp32")) == 2**32 - 2**24  # two signs of 2^23 codes in the highest field
    assert code_count(parse_format("fp16")) == 2**16 - 2**11


@pytest.mark.parametrize("name", NARROW)
def test_edges_of_nearest_are_the_middles(name: str) -> None:
    fmt = parse_format(name)
    codes = [code for code in range(1 << fmt.width_bits) if is_finite_code(np.uint32(code), fmt)]
    elements = sorted({Fraction(float(decode(np.uint32(code), fmt))) for code in codes})
    edges = rounding_edges(np.array([float(e) for e in elements]), fmt, Rounding.NEAREST)
    middles = [(a + b) / 2 for a, b in itertools.pairwise(elements)]
    assert [Fraction(edge) for edge in edges.tolist()] == [elements[0], *middles, elements[-1]]


def test_edges_of_directed_rounding_by_hand() -> None:
    elements = np.array([-3.0, -1.0, 0.0, 1.0, 3.0])
    fmt = parse_format("int3")
    assert rounding_edges(elements, fmt, Rounding.TOWARD_ZERO).tolist() == [-3, -3, -1, 1, 3, 3]
    assert rounding_edges(elements, fmt, Rounding.AWAY).tolist() == [-3, -1, 0, 0, 1, 3]
    assert rounding_edges(np.array([-1.0, 1.0]), parse_format("binary"), Rounding.AWAY).tolist() == [-1, 0, 1]


@pytest.mark.parametrize("rounding", DIRECTED)
@pytest.mark.parametrize("name", NARROW)
def test_edges_are_where_the_encoder_goes_over(name: str, rounding: Rounding) -> None:
    """Just inside of its interval a value is rounded to the interval's element; just beyond, to another."""
    fmt = parse_format(name)
    codes = np.arange(1 << fmt.width_bits, dtype=np.uint32)
    elements = np.unique(decode(codes[is_finite_code(codes, fmt)], fmt).astype(np.float64)) + 0.0
    edges = rounding_edges(elements, fmt, rounding)
    assert (np.diff(edges) >= 0).all()

    def rounded(values: np.ndarray) -> np.ndarray:
        return decode(encode(values, fmt, rounding), fmt).astype(np.float64)

    open_ = edges[:-1] < edges[1:]
    after, before = np.nextafter(edges[:-1], np.inf)[open_], np.nextafter(edges[1:], -np.inf)[open_]
    np.testing.assert_array_equal(rounded(after), elements[open_])
    np.testing.assert_array_equal(rounded(before), elements[open_])
    np.testing.assert_array_equal(rounded(elements), elements)
    assert ((edges[:-1] <= elements) & (elements <= edges[1:])).all()


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(SPECS),
    st.lists(st.one_of(st.floats(-4, 4, width=32), st.sampled_from([0.0, 0.5, -1.5, 7.0])), min_size=3, max_size=60),
)
def test_bins_hold_every_value_once(spec: str, numbers: list[float]) -> None:
    values = np.array(numbers[: len(numbers) // 3 * 3], np.float32).reshape(-1, 3)
    tensor = tensor_of(values, spec)
    histogram = value_histogram(tensor, values)
    beyond = histogram.below + histogram.above
    assert int(histogram.bins.counts.sum()) + beyond == values.size
    assert beyond == tensor_error(tensor, values).saturated
    assert histogram.shape is not None
    assert int(histogram.shape.counts.sum()) == values.size
    assert (np.diff(histogram.bins.edges) >= 0).all()
    if histogram.elements is not None:
        assert len(histogram.elements) == len(histogram.bins.counts) == len(histogram.bins.edges) - 1
    width = (histogram.bins.edges[-1] - histogram.bins.edges[0]) / 7
    if width > 0:
        merged = histogram.bins.merged(width)
        assert int(merged.counts.sum()) == int(histogram.bins.counts.sum())
        assert (np.diff(merged.edges) >= width * (1 - 1e-9)).all()
    own = code_histogram(tensor)
    assert (own.below, own.above, own.shape) == (0, 0, None)
    assert int(own.bins.counts.sum()) == values.size


@pytest.mark.parametrize("spec", [spec for spec in SPECS if "stochastic" not in spec and "prune" not in spec])
def test_bins_are_what_the_codes_are(spec: str) -> None:
    """Rounded each for itself, values lie in the bins of their own codes, saturated ones apart."""
    values = np.random.default_rng(5).normal(size=(200, 3)).astype(np.float32)
    tensor = tensor_of(values, spec)
    histogram = value_histogram(tensor, values)
    if histogram.elements is None:
        assert len(histogram.bins.counts) <= MAX_EVEN_BINS
        return
    inside = ~saturated(tensor, values)
    elements, counts = np.unique(tensor.elements()[inside] + np.float32(0), return_counts=True)
    scale = 1.0 if histogram.by_channel or tensor.scales is None else float(tensor.scales[0])
    held = dict(zip((elements.astype(np.float64) * scale).tolist(), counts.tolist(), strict=True))
    shown = dict(zip(histogram.elements.tolist(), histogram.bins.counts.tolist(), strict=True))
    assert {element: count for element, count in shown.items() if count} == held


def test_ties_lie_where_the_encoder_lets_them_fall() -> None:
    # int3 without scale: 0.5 and 2.5 go down to 0 and 2, 1.5 up to 2: even ones.
    values = np.array([0.5, 1.5, 2.5, -0.5, 3.5], np.float32)
    histogram = value_histogram(tensor_of(values, "int3:none"), values)
    assert histogram.elements is not None
    assert dict(zip(histogram.elements.tolist(), histogram.bins.counts.tolist(), strict=True)) == {
        **dict.fromkeys([-4.0, -3.0, -2.0, -1.0, 1.0, 3.0], 0),
        0.0: 2,
        2.0: 2,
    }
    assert (histogram.below, histogram.above) == (0, 1)
    assert (histogram.span, histogram.limits) == ((-0.5, 3.5), (-4.0, 3.0))


def test_units_are_values_with_one_scale_and_scales_with_many() -> None:
    values = np.array([[7, 14], [-3.5, 3]], np.float32)
    one = value_histogram(tensor_of(values, "int4"), values)
    assert (one.by_channel, one.span, one.limits) == (False, (-3.5, 14.0), (-16.0, 14.0))
    many = value_histogram(tensor_of(values, "int4:channel"), values)
    assert (many.by_channel, many.span, many.limits) == (True, (-3.5, 7.0), (-8.0, 7.0))


def test_narrow_bins_are_merged_by_hand() -> None:
    bins = Bins(np.array([0.0, 1.0, 1.0, 1.25, 3.0, 3.5]), np.array([1, 2, 4, 8, 16]))
    merged = bins.merged(1.0)
    # 1.25 and 3.5 are too near: [0, 1], [1, 3.5].
    assert (merged.edges.tolist(), merged.counts.tolist()) == ([0.0, 1.0, 3.5], [1, 30])
    whole = bins.merged(100.0)
    assert (whole.edges.tolist(), whole.counts.tolist()) == ([0.0, 3.5], [31])


def test_values_nearly_alike_have_bins() -> None:
    for values in ([0.0], [3.0], [1.0, float(np.nextafter(np.float32(1), np.float32(2)))], [-1e-45, 1e-45]):
        array = np.array(values, np.float32)
        histogram = value_histogram(tensor_of(array, "fp32"), array)
        assert int(histogram.bins.counts.sum()) == len(values)
        assert (np.diff(histogram.bins.edges) > 0).all()


def test_quotients_that_differ_in_binary64s_last_bits_have_bins() -> None:
    # 1 / (1 − 2^-23) is more than 1 + 2^-23 by 2^-46, 64 units in the last place: 128 bins find no edges between.
    values = np.tile(np.array([1 + 2**-23, 1], np.float32), (1 << 14, 1))
    tensor = tensor_of(values, "int16:channel")
    scales = np.array([1, 1 - 2**-23], np.float32)
    odd = replace(tensor, codes=np.ones(values.shape, np.uint32), scales=scales)
    histogram = value_histogram(odd, values)
    assert int(histogram.bins.counts.sum()) == values.size
    assert (np.diff(histogram.bins.edges) > 0).all()


def test_another_network_is_refused(models: Callable[..., Model], networks: Callable[[str], Network]) -> None:
    with pytest.raises(
        NetworkError, match=r"not quantized from cnn: .* differ, first 'dense1.weights': \(196, 20\) in the MODEL"
    ):
        inspect_model(models("mlp8k", "int4"), networks("cnn"))


@pytest.mark.filterwarnings("error")
def test_values_beyond_binary32_are_refused() -> None:
    tensor = replace(tensor_of([[1.0, 2.0], [0.0, 4.0]], "e4m3:pow2"), scales=np.array([2.0**127], np.float32))
    for measure in (lambda: tensor_codes(tensor), lambda: tensor_error(tensor, np.ones((2, 2), np.float32))):
        with pytest.raises(ModelError, match=r"a\.weights.*beyond binary32"):
            measure()


def test_a_model_alone_has_no_errors(models: Callable[..., Model]) -> None:
    found = inspect_model(models("mlp8k", "int4:channel"))
    assert (found.sqnr_db, found.errors, found.network) == (None, (), None)
    document = found.document()
    assert document["sqnr_db"] is None
    for held, tensor in zip(document["tensors"], found.model.tensors.values(), strict=True):  # type: ignore[call-overload]
        assert held["error"] is None
        assert sum(held["histogram"]["bins"]["counts"]) == tensor.codes.size
