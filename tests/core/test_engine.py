"""The engine against hand-computed cases, and every kernel against the plain binary32 one."""

from __future__ import annotations

import itertools
import math
import struct
from types import SimpleNamespace

import numpy as np
import pytest

from bitloop import spec
from bitloop.errors import ModelError
from bitloop.native import Evaluator
from bitloop.native.core import CFormat, decode, probe_results
from bitloop.spec import FormatKind, LayerKind, Packing, TensorFlag


def run(images: SimpleNamespace, layers: list[object], pixels: list[int]) -> list[float]:
    evaluator = Evaluator(images.build(layers))
    return evaluator.run(np.array(pixels, np.uint8).reshape(1, *evaluator.input_shape))[0].tolist()


def bits(value: float) -> int:
    return struct.unpack("<I", struct.pack("<f", value))[0]


def test_probe_is_right_on_this_machine() -> None:
    assert probe_results() == [expected for _, expected in spec.PROBE_CASES]


def test_dense_by_hand(images: SimpleNamespace) -> None:
    # Pixels 255, 0, 51 are 1, 0 and fl(0.2); fl(0.2) * 5 rounds to 1, as 0.2's binary32 is 0.2 (1 + 2^-26.4).
    weights = images.fp32([[1.0, -2.0], [1e30, -1e30], [5.0, 10.0]])
    biases = images.fp32([[0.5, -0.25]])
    assert run(images, [images.dense((1, 3, 1), weights)], [255, 0, 51]) == [2.0, 0.0]
    assert run(images, [images.dense((1, 3, 1), weights, biases)], [255, 0, 51]) == [2.5, -0.25]
    assert run(images, [images.dense((1, 3, 1), weights, biases, relu=True)], [255, 0, 51]) == [2.5, 0.0]


def test_terms_are_added_in_ascending_order_each_rounded(images: SimpleNamespace) -> None:
    big = 2.0**24
    columns = [
        ([big, 1.0, 1.0, -big], 0.0),  # 2^24 + 1 ties to even, twice: the ones are lost
        ([1.0, 1.0, big, -big], 2.0),
        ([big, -big, 1.0, 1.0], 2.0),
        ([1.0, big, 1.0, -big], 0.0),  # 1 + 2^24 is a tie: lost; then the other one too
        ([3.0, big, 1.0, -big], 4.0),  # 3 + 2^24 ties up to 2^24 + 4; + 1 ties down
    ]
    weights = images.fp32([[column[i] for column, _ in columns] for i in range(4)])
    assert run(images, [images.dense((2, 2, 1), weights)], [255] * 4) == [result for _, result in columns]


def test_products_are_not_fused(images: SimpleNamespace) -> None:
    # First layer leaves a = 1 + 2^-12 and 1; then a*a - (1 + 2^-11) is 0 with each step rounded, 2^-24 when fused.
    a = 1.0 + 2.0**-12
    first = images.dense((1, 1, 1), images.fp32([[1.0, a]]))
    second = images.dense((1, 1, 2), images.fp32([[-(1.0 + 2.0**-11)], [a]]))
    assert run(images, [first, second], [255]) == [0.0]


def test_scale_then_bias_then_relu(images: SimpleNamespace) -> None:
    # acc = 3; scaled by 1/3 rounded: fl(3 * fl(1/3)) = 1; bias code 10 * fl(0.1) rounds to 1 before it is added.
    third, tenth = float(np.float32(1) / np.float32(3)), float(np.float32(0.1))
    weights = images.integer([[3, -3]], 4, scale_kind=2, scales=[third])
    biases = images.integer([[10, 1]], 8, scale_kind=2, scales=[tenth])
    layer = images.dense((1, 1, 1), weights, biases)
    assert run(images, [layer], [255]) == [2.0, float(np.float32(-1) + np.float32(tenth))]
    layer.relu = True
    assert run(images, [layer], [255]) == [2.0, 0.0]


def test_scales_and_zero_points_a_channel(images: SimpleNamespace) -> None:
    weights = images.integer(
        [[0, 255, 8], [1, 2, 3]], 8, signed=False, scale_kind=1, scales=[1.0, 0.5, 4.0], zero_points=[0, 255, 7]
    )
    biases = images.integer([[1, 2, 3]], 4, fraction=1, scale_kind=1, scales=[2.0, 4.0, 8.0])
    for table in (False, True):
        layer = images.dense((1, 2, 1), weights, biases, table=table)
        assert run(images, [layer], [255, 255]) == [1.0 + 1.0, -253.0 * 0.5 + 4.0, -3.0 * 4.0 + 12.0]


def test_every_pixel_is_its_quotient(images: SimpleNamespace) -> None:
    evaluator = Evaluator(images.build([images.dense((1, 1, 1), images.fp32([[1.0]]))]))
    pixels = np.arange(256, dtype=np.uint8).reshape(256, 1, 1, 1)
    expected = [bits(p / 255) for p in range(256)]  # binary64 quotients are never a tie of binary32 here
    assert evaluator.run(pixels, threads=3).view(np.uint32).ravel().tolist() == expected


def test_convolution_valid_and_same_with_strides(images: SimpleNamespace) -> None:
    # Input 4x5, values 1..20 through a 1x1 convolution with weight 255; kernel 2x3 with weights 1, 10, ... by hand.
    grid = np.arange(1, 21).reshape(4, 5)
    scale_up = images.Layer(LayerKind.CONV2D, (4, 5, 1), (4, 5, 1), (1, 1), (1, 1), weights=images.fp32([[255.0]]))
    kernel = np.array([[1, 10, 100], [1000, 10000, 100000]])
    weights = images.fp32([[float(k)] for k in kernel.ravel()])
    for (sy, sx), (top, left), (oh, ow) in [
        ((1, 1), (0, 0), (3, 3)),
        ((2, 2), (0, 0), (2, 2)),
        ((1, 1), (0, 1), (4, 5)),
        ((3, 2), (1, 1), (2, 3)),
        ((2, 1), (1, 2), (3, 7)),
    ]:
        layer = images.Layer(LayerKind.CONV2D, (4, 5, 1), (oh, ow, 1), (2, 3), (sy, sx), (top, left), weights=weights)
        padded = np.zeros((12, 14))
        padded[top : top + 4, left : left + 5] = grid
        expected = [
            float((padded[y * sy : y * sy + 2, x * sx : x * sx + 3] * kernel).sum())
            for y, x in itertools.product(range(oh), range(ow))
        ]
        assert run(images, [scale_up, layer], list(range(1, 21))) == expected


def test_convolution_channels_and_order(images: SimpleNamespace) -> None:
    # Two input and two output channels, kernel 1x2: rows in the order kx, channel.
    spread = images.Layer(LayerKind.CONV2D, (1, 2, 1), (1, 2, 2), (1, 1), (1, 1), weights=images.fp32([[1.0, 2.0]]))
    big = 2.0**24
    weights = images.fp32([[big, 1.0], [0.5, 10.0], [-big, 100.0], [1.0, 1000.0]])
    layer = images.Layer(LayerKind.CONV2D, (1, 2, 2), (1, 1, 2), (1, 2), (1, 1), weights=weights)
    # Inputs 1, 2, 1, 2: 2^24 + 1 (tie, lost) - 2^24 + 2 = 2; and 1 + 20 + 100 + 2000.
    assert run(images, [spread, layer], [255, 255]) == [2.0, 2121.0]


def test_pools(images: SimpleNamespace) -> None:
    pixels = [0, 51, 102, 153, 204, 255, 51, 0, 102]
    values = [float(np.float32(p / 255)) for p in pixels]
    same = {"kernel": (2, 2), "stride": (2, 2), "padding": (1, 1)}
    top = images.Layer(LayerKind.MAX_POOL, (3, 3, 1), (2, 2, 1), **same)
    assert run(images, [top], pixels) == [values[0], values[2], values[4 - 1], values[5]]
    valid = images.Layer(LayerKind.MAX_POOL, (3, 3, 1), (2, 2, 1), (2, 2), (1, 1))
    assert run(images, [valid], pixels) == [values[4], values[5], values[4], values[5]]
    mean = images.Layer(LayerKind.AVERAGE_POOL, (3, 3, 1), (2, 2, 1), **same)

    def average(*indices: int) -> float:
        total = np.float32(0)
        for i in indices:
            total = np.float32(total + np.float32(values[i]))
        return float(total / np.float32(len(indices)))

    assert run(images, [mean], pixels) == [average(0), average(1, 2), average(3, 6), average(4, 5, 7, 8)]


def test_pools_keep_channels_apart(images: SimpleNamespace) -> None:
    layer = images.Layer(LayerKind.MAX_POOL, (2, 1, 2), (1, 1, 2), (2, 1), (1, 1))
    assert run(images, [layer], [255, 0, 0, 51]) == [1.0, float(np.float32(0.2))]


def overflowing(images: SimpleNamespace) -> object:
    """Inputs (1, 1) become (inf, -inf, NaN, -0 + 1)."""
    huge = 3e38
    return images.dense((1, 2, 1), images.fp32([[huge, -huge, huge, 0.5], [huge, -huge, huge, 0.5]]))


def test_infinities_and_nan(images: SimpleNamespace) -> None:
    image = images.build([overflowing(images)])
    assert Evaluator(image).run(np.full((1, 1, 2, 1), 255, np.uint8)).tolist() == [[math.inf, -math.inf, math.inf, 1.0]]
    # inf - inf is NaN, emitted as 0x7FC00000 whatever the machine makes; ReLU turns it into +0.
    difference = images.dense((1, 1, 4), images.fp32([[1.0]] * 4))
    out = Evaluator(images.build([overflowing(images), difference])).run(np.full((1, 1, 2, 1), 255, np.uint8))
    assert out.view(np.uint32).tolist() == [[0x7FC00000]]
    difference.relu = True
    assert run(images, [overflowing(images), difference], [255, 255]) == [0.0]


def test_max_pool_and_nan(images: SimpleNamespace) -> None:
    def layer(weights: list[list[float]], **fields: object) -> object:
        tensor = images.fp32(weights)
        return images.Layer(LayerKind.CONV2D, (1, 3, 1), (1, 3, 1), (1, len(weights)), (1, 1), weights=tensor, **fields)

    pool = images.Layer(LayerKind.MAX_POOL, (1, 3, 1), (1, 2, 1), (1, 2), (1, 1))
    infinite = [layer([[3e38]]), layer([[2.0]])]
    # Pixels 255, 255, 0 become inf, inf, 0; minus the next one: NaN, inf, 0 (the last window hangs over the end).
    out = run(images, [*infinite, layer([[1.0], [-1.0]]), pool], [255, 255, 0])
    assert math.isnan(out[0])  # a NaN that comes first stays
    assert out[1] == math.inf
    # Pixels 0, 255, 255 become 0, inf, inf; minus the one before: 0, inf, NaN.
    out = run(images, [*infinite, layer([[-1.0], [1.0]], padding=(0, 1)), pool], [0, 255, 255])
    assert out == [math.inf, math.inf]  # a NaN that comes later is passed over


def test_relu_of_pixels_and_in_place(images: SimpleNamespace) -> None:
    plain = images.Layer(LayerKind.RELU, (1, 2, 1), (1, 2, 1))
    assert run(images, [plain], [0, 255]) == [0.0, 1.0]
    dense = images.dense((1, 2, 1), images.fp32([[-1.0, 1.0], [0.0, 0.0]]))
    again = images.Layer(LayerKind.RELU, (1, 1, 2), (1, 1, 2), in_place=True)
    out = Evaluator(images.build([dense, again])).run(np.full((1, 1, 2, 1), 255, np.uint8))
    assert out.view(np.uint32).tolist() == [[0, bits(1.0)]]


FORMATS: dict[str, CFormat] = {
    "fp32": CFormat(FormatKind.FLOAT, 32, 8, 23, 3, 0, 0, 127),
    "fp16": CFormat(FormatKind.FLOAT, 16, 5, 10, 3, 0, 0, 15),
    "bf16": CFormat(FormatKind.FLOAT, 16, 8, 7, 3, 0, 0, 127),
    "e8m7 bias 130": CFormat(FormatKind.FLOAT, 16, 8, 7, 3, 2, 0, 130),
    "e5m10 without subnormals": CFormat(FormatKind.FLOAT, 16, 5, 10, 1, 0, 0, 15),
    "ue6m10 fn": CFormat(FormatKind.FLOAT, 16, 6, 10, 2, 1, 0, 31),
    "e4m3": CFormat(FormatKind.FLOAT, 8, 4, 3, 3, 0, 0, 7),
    "e5m2": CFormat(FormatKind.FLOAT, 8, 5, 2, 3, 0, 0, 15),
    "e2m1 finite": CFormat(FormatKind.FLOAT, 4, 2, 1, 3, 2, 0, 1),
    "e8m2": CFormat(FormatKind.FLOAT, 11, 8, 2, 3, 0, 0, 127),
    "e3m1": CFormat(FormatKind.FLOAT, 5, 3, 1, 3, 0, 0, 3),
    "e8m14": CFormat(FormatKind.FLOAT, 23, 8, 14, 3, 0, 0, 127),
    **{f"int{w}": CFormat(FormatKind.INTEGER, w, 0, 0, 1, 0, 0, 0) for w in range(2, 17)},
    **{f"uint{w}": CFormat(FormatKind.INTEGER, w, 0, 0, 0, 0, 0, 0) for w in (2, 4, 8, 16)},
    "q3.4": CFormat(FormatKind.INTEGER, 8, 0, 0, 1, 0, 0, 4),
    "q1.14": CFormat(FormatKind.INTEGER, 16, 0, 0, 1, 0, 0, 14),
    "affine int8": CFormat(FormatKind.INTEGER, 8, 0, 0, TensorFlag.SIGNED | TensorFlag.AFFINE, 0, 0, 0),
    "affine uint4": CFormat(FormatKind.INTEGER, 4, 0, 0, TensorFlag.AFFINE, 0, 0, 0),
    "affine int16": CFormat(FormatKind.INTEGER, 16, 0, 0, TensorFlag.SIGNED | TensorFlag.AFFINE, 0, 0, 0),
    "ternary bits": CFormat(FormatKind.TERNARY, 2, 0, 0, 1, 0, Packing.BITS, 0),
    "ternary trits": CFormat(FormatKind.TERNARY, 2, 0, 0, 1, 0, Packing.TRITS, 0),
    "binary": CFormat(FormatKind.BINARY, 1, 0, 0, 1, 0, 0, 0),
}


def random_tensor(images: SimpleNamespace, c: CFormat, rows: int, columns: int, rng: np.random.Generator) -> object:
    """Codes that are finite and not so large that sums overflow, and their elements as binary32 weights."""
    codes = rng.integers(0, 1 << c.width, (rows, columns), dtype=np.uint64).astype(np.uint32)
    if c.kind == FormatKind.FLOAT:
        top = c.mantissa_bits + c.exponent_bits - 1
        codes &= np.uint32(0xFFFFFFFF ^ (1 << top))  # no exponent of the upper half: finite
    elif c.kind == FormatKind.TERNARY:
        codes = np.where(codes == 2, 0, codes).astype(np.uint32)
    affine = bool(c.flags & TensorFlag.AFFINE)
    zero_point = 5 if affine else 0
    fields = (c.kind, c.width, c.exponent_bits, c.mantissa_bits, c.flags, c.top, c.packing, c.bias)
    packed = images.Tensor(codes.tolist(), *fields, zero_points=[zero_point] if affine else [])
    plain = images.fp32(decode(codes, c, zero_point).tolist())
    return packed, plain


@pytest.mark.parametrize("name", FORMATS)
def test_every_kernel_equals_binary32(images: SimpleNamespace, name: str) -> None:
    """Weights of any format give the bits that binary32 weights with the same elements give."""
    c = FORMATS[name]
    rng = np.random.default_rng(sum(name.encode()))
    for columns in (*range(1, 20), 31, 32, 33, 64):
        packed, plain = random_tensor(images, c, 35, columns, rng)
        pixels = rng.integers(0, 256, (2, 7, 5, 1), dtype=np.uint8)
        pixels[rng.random(pixels.shape) < 0.3] = 0
        expected = Evaluator(images.build([images.dense((7, 5, 1), plain)])).run(pixels, threads=1)
        assert np.isfinite(expected).all()
        for table in (False, True)[: 2 if c.width <= 16 else 1]:
            found = Evaluator(images.build([images.dense((7, 5, 1), packed, table=table)])).run(pixels, threads=1)
            np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


@pytest.mark.parametrize("name", FORMATS)
def test_biases_of_every_format(images: SimpleNamespace, name: str) -> None:
    c = FORMATS[name]
    packed, plain = random_tensor(images, c, 1, 37, np.random.default_rng(len(name)))
    weights = images.fp32([[0.5] * 37])
    pixel = np.full((1, 1, 1, 1), 255, np.uint8)
    expected = Evaluator(images.build([images.dense((1, 1, 1), weights, plain)])).run(pixel)
    found = Evaluator(images.build([images.dense((1, 1, 1), weights, packed)])).run(pixel)
    np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))


def test_threads_share_nothing(images: SimpleNamespace) -> None:
    rng = np.random.default_rng(3)
    weights = images.integer(rng.integers(-8, 8, (49, 10)).tolist(), 4)
    evaluator = Evaluator(images.build([images.dense((7, 7, 1), weights, table=True)]))
    pixels = rng.integers(0, 256, (257, 7, 7, 1), dtype=np.uint8)
    alone = evaluator.run(pixels, threads=1)
    for threads in (2, 3, 8, 1000):
        np.testing.assert_array_equal(evaluator.run(pixels, threads=threads), alone)
    np.testing.assert_array_equal(evaluator.run(pixels[..., 0]), alone)
    assert evaluator.run(pixels[:0]).shape == (0, 10)


def test_activations_of_each_layer(images: SimpleNamespace) -> None:
    first = images.dense((1, 2, 1), images.fp32([[1.0, -1.0, 3.0], [0.0, 1.0, 1.0]]))
    relu = images.Layer(LayerKind.RELU, (1, 1, 3), (1, 1, 3))
    last = images.dense((1, 1, 3), images.fp32([[1.0], [2.0], [3.0]]))
    evaluator = Evaluator(images.build([first, relu, last]))
    pixels = np.array([255, 0], np.uint8)
    assert evaluator.activations(pixels, 0).tolist() == [1.0, -1.0, 3.0]
    assert evaluator.activations(pixels, 1).tolist() == [1.0, 0.0, 3.0]
    assert evaluator.activations(pixels.reshape(1, 1, 2, 1), 2).tolist() == [10.0]
    for layer in (-1, 3):
        with pytest.raises(ModelError, match="layers 0 to 2"):
            evaluator.activations(pixels, layer)


def test_wrong_input_is_refused(images: SimpleNamespace) -> None:
    image = images.build([images.dense((1, 2, 1), images.fp32([[1.0], [1.0]]))])
    evaluator = Evaluator(image)
    with pytest.raises(ModelError, match="shape"):
        evaluator.run(np.zeros((1, 2, 2, 1), np.uint8))
    with pytest.raises(ModelError, match="uint8"):
        evaluator.run(np.zeros((1, 1, 2, 1), np.float32))  # type: ignore[arg-type]
    with pytest.raises(ModelError, match="CRC"):
        Evaluator(image[:-1] + bytes([image[-1] ^ 1]))
