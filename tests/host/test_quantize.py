"""Scales against exhaustive search and hand calculation, and whole networks."""

import logging
import math
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitloop.errors import FormatError, NetworkError
from bitloop.network.architecture import Architecture, Conv2D, Dense, Flatten, ReLU
from bitloop.network.network import Network
from bitloop.numeric.codec import decode
from bitloop.quantize.apply import quantize, quantize_tensor
from bitloop.quantize.model import QuantizedTensor
from bitloop.quantize.recipe import parse_recipe
from bitloop.quantize.scales import MAX_ELEMENT, choose_scales
from bitloop.quantize.spec import parse_tensor_spec

F64 = npt.NDArray[np.float64]
SINGLE = st.floats(-(2.0**60), 2.0**60, width=32)
COLUMN = st.lists(SINGLE, min_size=1, max_size=12).map(lambda v: np.array(v, dtype=np.float64)[:, None])


def _tensor(values: object, spec: str, name: str = "a.weights") -> QuantizedTensor:
    return quantize_tensor(name, np.array(values, dtype=np.float32), parse_tensor_spec(spec))


@given(COLUMN, st.sampled_from(["int8", "int2", "e4m3", "e4m3fn", "e5m2", "q3.4", "uint4", "e8m2", "e2m1finite"]))
def test_scales_are_the_smallest_that_clip_nothing(column: F64, name: str) -> None:
    fmt = parse_tensor_spec(name).format
    largest = min(fmt.max_finite, 2.0**32)
    size = float(np.abs(column).max() if fmt.signed else max(column.max(), 0.0))
    for kind in ("fp32", "pow2"):
        scales, zeros = choose_scales(column, parse_tensor_spec(f"{name}:{kind}"))
        assert zeros is None
        assert (scales.dtype, scales.shape) == (np.float32, (1,))
        scale = float(scales[0])
        if size == 0:
            assert scale == 1.0
            continue
        assert size / scale <= largest
        if kind == "pow2":
            assert math.frexp(scale)[0] == 0.5
            assert size / (scale / 2) > largest or scale == 2.0**-126
        else:
            assert size / float(np.nextafter(scales[0], np.float32(0))) > largest or scale == 2.0**-126


def test_scales_by_hand() -> None:
    values = [[0.5, -12.7], [-1.0, 3.0]]
    assert _tensor(values, "int8").scales == np.float32(0.1)  # 12.7 / 127
    assert _tensor(values, "int8:pow2").scales == np.float32(0.125)  # 12.7 / 0.125 = 101.6; with 0.0625: 203.2
    assert _tensor(values, "int8:channel").scales.tolist() == pytest.approx([1 / 127, 0.1], rel=1e-6)
    assert _tensor(values, "e4m3fn:pow2").scales == np.float32(2.0**-5)  # 12.7 · 32 = 406.4 <= 448
    assert _tensor(values, "e4m3:pow2").scales == np.float32(2.0**-4)  # 12.7 · 16 = 203.2 <= 240
    assert _tensor([2.0, 1.0], "int2:pow2").scales == np.float32(2.0)
    assert _tensor(values, "e4m3").scales is None
    # int8's -128 is never needed: the scale is symmetric.
    tensor = _tensor([-1.0, 0.25], "int8")
    assert tensor.elements().tolist() == [-127, 32]


def test_a_scale_that_binary32_rounds_down_is_taken_one_up() -> None:
    # 1 / 127 lies above its nearest binary32 number, which would leave 1 / scale above 127.
    down = np.float32(1 / 127)
    assert 1.0 / float(down) > 127
    assert choose_scales(np.array([[1.0]]), parse_tensor_spec("int8"))[0][0] == np.nextafter(down, np.float32(1))


def test_scaled_elements_leave_room_for_sums() -> None:
    for name in ("fp32", "bf16", "e8m2"):
        for kind in ("fp32", "pow2"):
            tensor = _tensor([3.0, -1e-3], f"{name}:{kind}")
            assert np.abs(tensor.elements()).max() <= MAX_ELEMENT
            assert np.abs(tensor.elements()).max() > MAX_ELEMENT / 2
    # Without a scale nothing is moved.
    assert _tensor([3.0], "fp32").elements().tolist() == [3.0]


def test_scales_are_normal_binary32_numbers() -> None:
    tiny = [1e-45, -1e-44]
    for kind in ("fp32", "pow2"):
        assert _tensor(tiny, f"int8:{kind}").scales == np.float32(2.0**-126)
        assert _tensor(tiny, f"ternary:{kind}").scales == np.float32(2.0**-126)
        assert _tensor(tiny, f"binary:{kind}").scales == np.float32(2.0**-126)
    for spec in ("e4m3b147:fp32", "e4m3b147:pow2"):
        with pytest.raises(FormatError, match=r"a\.weights.*beyond binary32's range"):
            _tensor([3e38], spec)
    for spec in ("e1m0:fp32", "e1m3nosub:pow2"):
        with pytest.raises(FormatError, match="no element but zero"):
            _tensor([1.0], spec)
    assert _tensor([1.0, 0.0], "e1m0").values().tolist() == [0.0, 0.0]


def test_an_all_zero_group_has_the_scale_one() -> None:
    for spec in ("int8", "e4m3:pow2", "ternary", "ternary:pow2", "binary", "binary:pow2", "int8:affine"):
        tensor = _tensor([0.0, -0.0], spec)
        assert tensor.scales == np.float32(1), spec
        if not spec.startswith("binary"):
            assert np.abs(tensor.values()).tolist() == [0, 0]
    channels = _tensor([[0.0, 2.0], [0.0, -4.0]], "int8:pow2:channel")
    assert channels.scales.tolist() == [1.0, 2.0**-4]  # 4 · 16 = 64 <= 127 < 128


def _ternary_error(sizes: F64, scale: float) -> float:
    return float(np.minimum(sizes**2, (sizes - scale) ** 2).sum())


@settings(max_examples=200)
@given(st.lists(st.just(0.0) | st.floats(2.0**-60, 8), min_size=1, max_size=9).map(np.array))
def test_ternary_and_binary_scales_are_the_least_squares(sizes: F64) -> None:
    column = sizes[:, None] * np.where(np.arange(sizes.size) % 2, -1, 1)[:, None]
    if not sizes.any():
        return
    # Ternary: the best of all subsets that can become ±scale, each with its mean.
    subsets = ((m >> np.arange(sizes.size)) & 1 for m in range(1, 2**sizes.size))
    errors = []
    for subset in subsets:
        mean = sizes[subset == 1].mean()
        errors.append(float((sizes[subset == 0] ** 2).sum() + ((sizes[subset == 1] - mean) ** 2).sum()))
    total = float((sizes**2).sum())
    scale = float(choose_scales(column, parse_tensor_spec("ternary"))[0][0])
    assert _ternary_error(sizes, scale) <= min(errors) + 1e-6 * total
    # Rounding to nearest puts those at ±scale that the least error asks for.
    quantized = _tensor(column, "ternary").values()
    assert float(((quantized - column) ** 2).sum()) <= min(errors) + 1e-6 * total
    power = float(choose_scales(column, parse_tensor_spec("ternary:pow2"))[0][0])
    best_power = min(_ternary_error(sizes, 2.0**k) for k in range(-70, 10))
    assert _ternary_error(sizes, power) <= best_power + 1e-12 * total
    mean = float(choose_scales(column, parse_tensor_spec("binary"))[0][0])
    assert mean == np.float32(math.fsum(sizes) / sizes.size)
    power = float(choose_scales(column, parse_tensor_spec("binary:pow2"))[0][0])
    errors = [float(((sizes - 2.0**k) ** 2).sum()) for k in range(-70, 10)]
    assert float(((sizes - power) ** 2).sum()) <= min(errors) + 1e-12 * total


def test_ternary_and_binary_by_hand() -> None:
    # Magnitudes 4, 3, 1: Σ²/k is 16, 24.5, 21.3: the best two are ±3.5 and the 1 is 0.
    tensor = _tensor([4.0, -3.0, 1.0], "ternary")
    assert tensor.scales == np.float32(3.5)
    assert tensor.elements().tolist() == [1, -1, 0]
    assert tensor.values().tolist() == [3.5, -3.5, 0]
    assert tensor.codes_bytes == 1
    # With a power of two: 4 gives 0 + 1 + 1, 2 gives 4 + 1 + 1 (the 1 is a tie and becomes 0).
    assert _tensor([4.0, -3.0, 1.0], "ternary:pow2").scales == np.float32(4)
    assert _tensor([4.0, -3.0, 1.0], "binary").scales == np.float32(8 / 3)
    assert _tensor([4.0, -3.0, 1.0], "binary:pow2").scales == np.float32(2)  # 8/3 is nearer to 2 than to 4
    assert _tensor([4.0, -3.0, 0.0], "binary").elements().tolist() == [1, -1, 1]


@given(COLUMN, st.sampled_from(["int8", "uint8", "int2", "uint4", "q3.4", "int16"]), st.sampled_from(["", ":pow2"]))
def test_affine_ranges(column: F64, name: str, kind: str) -> None:
    spec = parse_tensor_spec(f"{name}{kind}:affine")
    low, high = spec.format.integer_limits
    scales, zeros = choose_scales(column, spec)
    assert zeros is not None
    assert low <= int(zeros[0]) <= high
    tensor = quantize_tensor("a.weights", column.astype(np.float32), spec)
    # Zero is exactly zero, and nothing moves by more than half a step beyond rounding's own half.
    step = float(scales[0]) * 2.0**-spec.format.fraction_bits
    zero = int(zeros[0]) & (2**spec.format.width_bits - 1)
    assert decode([zero], spec.format, zeros).tolist() == [0.0]
    error = np.abs(tensor.elements().astype(np.float64) * float(scales[0]) - column)
    assert float(error.max()) <= step * (1 + 1e-9)


def test_affine_by_hand() -> None:
    # -1 to 2 over 15 steps: 0.2 a step; zero at -8 + 5 = -3 (signed), 5 (unsigned).
    for name, zero, codes in (("int4", -3, [0b1000, 0b1101, 0b0111]), ("uint4", 5, [0, 5, 15])):
        tensor = _tensor([-1.0, 0.0, 2.0], f"{name}:affine")
        assert tensor.scales == pytest.approx(0.2)
        assert tensor.zero_points.tolist() == [zero]
        assert tensor.codes.tolist() == codes
        assert tensor.elements().tolist() == [-5, 0, 10]
        assert tensor.scales_bytes == 8
    # All positive: the range begins at zero all the same.
    tensor = _tensor([6.0, 15.0], "uint4:affine")
    assert (tensor.scales.tolist(), tensor.zero_points.tolist()) == ([1.0], [0])
    channels = _tensor([[-1.0, 0.0], [2.0, 15.0]], "uint4:affine:channel")
    assert channels.zero_points.tolist() == [5, 0]
    assert channels.elements().tolist() == [[-5, 0], [10, 15]]
    fixed = _tensor([-2.0, 40.0], "uq4.4:none:affine")
    assert fixed.scales is None
    assert fixed.zero_points.tolist() == [32]
    assert fixed.elements().tolist() == [-2.0, 13.9375]


# --- networks -----------------------------------------------------------------------------------------------------

ARCHITECTURE = Architecture(
    "tiny",
    (4, 4, 1),
    (
        Conv2D("conv1", 3, (2, 2)),
        ReLU("relu1"),
        Flatten("flatten"),
        Dense("dense1", 5),
        Dense("dense2", 2, use_bias=False),
    ),
)


def _network() -> Network:
    rng = np.random.default_rng(3)
    shapes = ARCHITECTURE.parameter_shapes()
    return Network(ARCHITECTURE, {n: rng.standard_normal(s).astype(np.float32) for n, s in shapes.items()}, "digits")


def test_a_whole_network() -> None:
    network = _network()
    model = quantize(network, parse_recipe("int4:channel", "int8", ["dense2.weights=ternary", "dense1.weights=fp16"]))
    assert (model.name, model.dataset, model.architecture) == ("tiny", "digits", ARCHITECTURE)
    assert list(model.tensors) == ["conv1.weights", "conv1.biases", "dense1.weights", "dense1.biases", "dense2.weights"]
    assert [(t.format.name, t.groups) for t in model.tensors.values()] == [
        ("int4", 3), ("int8", 1), ("fp16", 0), ("int8", 1), ("ternary", 1),
    ]  # fmt: skip
    # conv 2·2·1·3 int4, dense 27·5 fp16, dense 5·2 trits; biases 3 + 5 bytes; scales 3 + 1 + 0 + 1 + 1.
    assert (model.sizes.weights, model.sizes.biases, model.sizes.scales) == (6 + 270 + 2, 8, 24)
    assert model.sizes.total == 310
    fp16 = network.parameters["dense1.weights"].astype(np.float16).astype(np.float32)
    assert np.array_equal(model.tensors["dense1.weights"].values(), fp16)
    conv = model.tensors["conv1.weights"]
    assert conv.scales.shape == (3,)
    for channel, scale in enumerate(conv.scales):
        assert np.abs(network.parameters["conv1.weights"][..., channel]).max() / scale == pytest.approx(7, rel=1e-6)
    assert np.abs(conv.values() - network.parameters["conv1.weights"]).max() <= conv.scales.max() / 2 * (1 + 1e-6)


def test_fp32_keeps_every_bit() -> None:
    network = _network()
    model = quantize(network, parse_recipe("fp32"))
    for name, values in network.parameters.items():
        assert np.array_equal(model.tensors[name].values().view(np.uint32), values.view(np.uint32))


def test_each_channel_is_quantized_as_if_alone() -> None:
    values = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32) * [1, 10, 0.1, 1e-5]
    for spec in ("int4", "e3m1:pow2", "ternary", "binary:pow2", "uint4:affine"):
        whole = _tensor(values, f"{spec}:channel")
        for channel in range(4):
            alone = _tensor(values[:, channel], spec)
            assert np.array_equal(alone.values(), whole.values()[:, channel])


def test_stochastic_rounding_follows_the_seed() -> None:
    values = np.random.default_rng(0).standard_normal((30, 4))
    one, again, other = (_tensor(values, f"int4:stochastic:seed={seed}").codes for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert not np.array_equal(one, other)


def test_the_same_bytes_every_time() -> None:
    recipe = parse_recipe("ternary:channel", "e4m3")
    assert quantize(_network(), recipe).sha256 == quantize(_network(), recipe).sha256
    assert quantize(_network(), recipe).sha256 != quantize(_network(), parse_recipe("ternary", "e4m3")).sha256


def test_what_is_refused() -> None:
    for bad in (np.nan, np.inf):
        values = np.zeros((3, 2), dtype=np.float32)
        values[2, 1] = bad
        with pytest.raises(NetworkError, match=rf"'a\.weights' holds {bad} at index \(2, 1\)"):
            quantize_tensor("a.weights", values, parse_tensor_spec("int8"))
    with pytest.raises(FormatError, match=r"no tensor 'dense9\.weights'.*conv1\.weights, conv1\.biases, dense1"):
        quantize(_network(), parse_recipe("int8", None, ["dense9.weights=int4"]))
    with pytest.raises(FormatError, match=r"1 of 2 values overflow to infinity in fp16.*65504"):
        _tensor([1.0, 1e6], "fp16:inf")
    assert _tensor([1.0, 6e4], "fp16:inf").values().tolist() == [1.0, 60000.0]


def test_clipping_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        _tensor([1.0, 300.0, -300.0], "e4m3")
        assert "2 of 3 values lie outside of e4m3" in caplog.text
        caplog.clear()
        _tensor([1.0, -2.0], "uint4")
        assert "1 of 2 values lie outside of uint4" in caplog.text
        caplog.clear()
        for spec in ("e4m3:pow2", "int8", "ternary", "binary", "int8:affine", "fp32"):
            _tensor([1.0, 300.0, -300.0], spec)
        assert not caplog.text


def test_more_bits_never_err_more() -> None:
    values = np.random.default_rng(5).standard_normal((40, 10)).astype(np.float32)
    errors = [float(np.square(_tensor(values, f"int{n}").values() - values).sum()) for n in range(2, 17)]
    assert all(more > less for more, less in pairwise(errors))
