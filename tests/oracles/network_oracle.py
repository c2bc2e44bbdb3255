"""A second, tiny simulation in exact rational arithmetic, and networks at random to run on it.

The oracle knows binary32 from IEEE 754's text only: a value is a bit pattern, an operation gives the exact rational
result (or the standard's rule for infinities, NaN and signed zeros), and that is rounded once. It goes through a layer
output by output and term by term, as docs/arithmetic.md is written.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
from hypothesis import strategies as st

from bitloop.errors import NetworkError
from bitloop.network.architecture import (
    Architecture,
    AveragePool2D,
    Conv2D,
    Dense,
    Flatten,
    MaxPool2D,
    ReLU,
    Softmax,
)
from bitloop.numeric.formats import Format, fixed_point_format, float_format, integer_format, parse_format
from bitloop.numeric.rounding import Rounding
from bitloop.quantize.model import Model, QuantizedTensor
from bitloop.spec import FormatKind, Granularity, Packing, ScaleKind, TopCodes

# --- binary32 by hand ---------------------------------------------------------------------------------------------

NAN, INFINITY, SIGN = 0x7FC00000, 0x7F800000, 0x80000000


def is_nan(bits: int) -> bool:
    return bits & 0x7FFFFFFF > INFINITY


def is_infinite(bits: int) -> bool:
    return bits & 0x7FFFFFFF == INFINITY


def is_zero(bits: int) -> bool:
    return bits & 0x7FFFFFFF == 0


def exact(bits: int) -> Fraction:
    """The value of a finite binary32 number: (-1)^s * m * 2^(e - 150), subnormals with e = 1."""
    field, mantissa = bits >> 23 & 0xFF, bits & 0x7FFFFF
    assert field != 0xFF
    magnitude = (mantissa + (0x800000 if field else 0)) * Fraction(2) ** (max(field, 1) - 150)
    return -magnitude if bits & SIGN else magnitude


def rounded(value: Fraction, sign_of_zero: int = 0) -> int:
    """Round to nearest, ties to even; `sign_of_zero` (0 or SIGN) where the exact value is zero."""
    if value == 0:
        return sign_of_zero
    sign, magnitude = (SIGN, -value) if value < 0 else (0, value)
    exponent = 0  # of the leading bit
    while magnitude >= Fraction(2) ** (exponent + 1):
        exponent += 1
    while magnitude < Fraction(2) ** exponent:
        exponent -= 1
    unit = Fraction(2) ** (max(exponent, -126) - 23)
    count, rest = divmod(magnitude, unit)
    if rest * 2 > unit or (rest * 2 == unit and count % 2 == 1):
        count += 1
    # `count` units of the smallest binade, or of the one of `exponent`: the carry runs into the exponent by itself.
    bits = int(count) if exponent < -126 else (exponent + 126 << 23) + int(count)
    return sign | min(bits, INFINITY)


def multiply(a: int, b: int) -> int:
    sign = (a ^ b) & SIGN
    if is_nan(a) or is_nan(b) or (is_infinite(a) and is_zero(b)) or (is_zero(a) and is_infinite(b)):
        return NAN
    if is_infinite(a) or is_infinite(b):
        return sign | INFINITY
    return rounded(exact(a) * exact(b), sign)


def add(a: int, b: int) -> int:
    if is_nan(a) or is_nan(b) or (is_infinite(a) and is_infinite(b) and a != b):
        return NAN
    if is_infinite(a) or is_infinite(b):
        return a if is_infinite(a) else b
    return rounded(exact(a) + exact(b), a & b & SIGN)  # a zero sum is -0 only if both are -0


def divide_by_count(a: int, count: int) -> int:
    if is_nan(a) or is_infinite(a):
        return NAN if is_nan(a) else a
    return rounded(exact(a) / count, a & SIGN)


def greater(a: int, b: int) -> bool:
    if is_nan(a) or is_nan(b):
        return False

    def key(bits: int) -> Fraction:
        if is_infinite(bits):
            return Fraction(2) ** 200 * (-1 if bits & SIGN else 1)
        return exact(bits)

    return key(a) > key(b)


# --- layers, as docs/arithmetic.md is written -----------------------------------------------------------------------

Map = dict[tuple[int, int, int], int]


def weighted_sum(terms: list[tuple[int, int]], scale: int | None, bias: int | None) -> int:
    acc = 0
    for x, w in terms:
        if not is_zero(x):
            acc = add(acc, multiply(x, w))
    if scale is not None:
        acc = multiply(acc, scale)
    if bias is not None:
        acc = add(acc, bias)
    return acc


def sizes(size: int, kernel: int, stride: int, padding: str) -> tuple[int, int]:
    """Outputs and padding before, by TensorFlow's rule."""
    if padding == "valid":
        return (size - kernel) // stride + 1, 0
    outputs = (size + stride - 1) // stride
    return outputs, max((outputs - 1) * stride + kernel - size, 0) // 2


def windows(shape, kernel, strides, padding):
    """Each output position with its window's positions (row-major): the input, or None, and the kernel's."""
    height, top = sizes(shape[0], kernel[0], strides[0], padding)
    width, left = sizes(shape[1], kernel[1], strides[1], padding)
    for oy in range(height):
        for ox in range(width):
            window = []
            for ky in range(kernel[0]):
                for kx in range(kernel[1]):
                    y, x = oy * strides[0] - top + ky, ox * strides[1] - left + kx
                    if 0 <= y < shape[0] and 0 <= x < shape[1]:
                        window.append(((y, x), (ky, kx)))
            yield (oy, ox), window


def bits_of(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32).view(np.uint32)


def parameters(model: Model, layer) -> tuple[np.ndarray, list[int | None], list[int | None]]:
    weights = model.tensors[f"{layer.name}.weights"]
    outputs = weights.shape[-1]
    scales = [None] * outputs if weights.scales is None else [int(b) for b in bits_of(weights.scales)]
    scales *= outputs // len(scales)
    biases: list[int | None] = [None] * outputs
    if layer.use_bias:
        tensor = model.tensors[f"{layer.name}.biases"]
        biases = [int(b) for b in bits_of(tensor.elements())]
        if tensor.scales is not None:
            biases = [multiply(b, int(bits_of(tensor.scales)[0])) for b in biases]
    return bits_of(weights.elements()), scales, biases


def oracle(model: Model, image: np.ndarray) -> dict[str, np.ndarray]:
    """Bits of each layer's output, by name, row-major H, W, C."""
    shape: tuple[int, ...] = image.shape
    values = {tuple(int(i) for i in at): rounded(Fraction(int(p), 255)) for at, p in np.ndenumerate(image)}
    results = {}
    for layer in model.architecture.layers:
        match layer:
            case Dense():
                weights, scales, biases = parameters(model, layer)
                xs = [values[at] for at in np.ndindex(*shape)]
                values = {
                    (o,): weighted_sum([(x, int(weights[i, o])) for i, x in enumerate(xs)], scales[o], biases[o])
                    for o in range(layer.units)
                }
                shape = (layer.units,)
            case Conv2D():
                weights, scales, biases = parameters(model, layer)
                out: Map = {}
                for at, window in windows(shape, layer.kernel_size, layer.strides, layer.padding):
                    for o in range(layer.filters):
                        terms = [
                            (values[(*xy, c)], int(weights[(*kk, c, o)])) for xy, kk in window for c in range(shape[2])
                        ]
                        out[(*at, o)] = weighted_sum(terms, scales[o], biases[o])
                values = out
                shape = tuple(1 + max(at[axis] for at in values) for axis in range(3))
            case MaxPool2D() | AveragePool2D():
                out = {}
                for at, window in windows(shape, layer.pool_size, layer.strides, layer.padding):
                    for c in range(shape[2]):
                        members = [values[(*xy, c)] for xy, _ in window]
                        if isinstance(layer, MaxPool2D):
                            best = members[0]
                            for member in members[1:]:
                                best = member if greater(member, best) else best
                            out[(*at, c)] = best
                        else:
                            acc = 0
                            for member in members:
                                acc = add(acc, member)
                            out[(*at, c)] = divide_by_count(acc, len(members))
                values = out
                shape = tuple(1 + max(at[axis] for at in values) for axis in range(3))
            case ReLU():
                values = {at: x if greater(x, 0) else 0 for at, x in values.items()}
            case Flatten():
                values = {(i,): values[at] for i, at in enumerate(np.ndindex(*shape))}
                shape = (len(values),)
            case Softmax():
                break
        results[layer.name] = np.array(
            [NAN if is_nan(values[at]) else values[at] for at in np.ndindex(*shape)], np.uint32
        )
    return results


# --- networks at random ----------------------------------------------------------------------------------------------

EDGES = [0, SIGN, 1, SIGN | 1, 0x007FFFFF, 0x00800000, 0x3F800000, 0xBF800000, 0x7F7FFFFF, 0xFF7FFFFF, 0x3EAAAAAB]
FINITE_BITS = st.one_of(
    st.sampled_from(EDGES),
    # Sizes near one, where sums round; sizes near the ends, where they overflow and underflow.
    st.builds(
        lambda s, e, m: s << 31 | e << 23 | m, st.integers(0, 1), st.integers(120, 134), st.integers(0, 0x7FFFFF)
    ),
    st.builds(lambda s, e, m: s << 31 | e << 23 | m, st.integers(0, 1), st.integers(0, 254), st.integers(0, 0x7FFFFF)),
)
SCALE_BITS = st.builds(lambda e, m: e << 23 | m, st.integers(1, 254), st.integers(0, 0x7FFFFF))


@st.composite
def formats(draw) -> Format:
    """Any format that a tensor can have."""
    kind = draw(st.sampled_from(["fp32", "float", "float", "integer", "fixed", "ternary", "binary"]))
    if kind == "float":
        exponent, mantissa = draw(st.integers(1, 8)), draw(st.integers(0, 23))
        # All elements are binary32 numbers: 2^E - 1 - bias <= 127 at the top, 1 - bias - M >= -149 at the bottom.
        least, most = (1 << exponent) - 128, 150 - mantissa
        usual = (1 << exponent - 1) - 1
        bias = draw(st.integers(least, most)) if least <= most else usual
        bias = usual if least <= usual <= most and draw(st.booleans()) else bias
        top = draw(st.sampled_from(TopCodes)) if least <= most else TopCodes.IEEE
        return float_format(
            *(exponent, mantissa), signed=draw(st.booleans()), bias=bias, subnormals=draw(st.booleans()), top_codes=top
        )
    if kind == "integer":
        return integer_format(draw(st.integers(2, 16)), signed=draw(st.booleans()))
    if kind == "fixed":
        width, signed = draw(st.integers(2, 16)), draw(st.booleans())
        fraction = draw(st.integers(0, width - signed))
        return fixed_point_format(width - signed - fraction, fraction, signed=signed)
    return parse_format(kind)


@st.composite
def tensors(draw, name: str, shape: tuple[int, ...]) -> QuantizedTensor:
    count = int(np.prod(shape))
    fmt = draw(formats())
    allowed = FINITE_BITS
    if fmt.kind is FormatKind.TERNARY:
        allowed = st.sampled_from([0, 1, 3])
    elif fmt.name != "fp32" and fmt.is_float:
        allowed = st.builds(lambda m, s: m | s, st.integers(0, fmt.max_code), st.sampled_from([0, fmt.sign_bit]))
    elif fmt.name != "fp32":
        allowed = st.integers(0, (1 << fmt.width_bits) - 1)
    codes = draw(st.lists(allowed, min_size=count, max_size=count))
    affine = fmt.is_integer and draw(st.booleans())
    scale = draw(st.sampled_from(ScaleKind))
    by_channel = (affine or scale is not ScaleKind.NONE) and name.endswith(".weights") and draw(st.booleans())
    groups = shape[-1] if by_channel else 1
    scales = zero_points = None
    if scale is not ScaleKind.NONE:
        bits = np.array(draw(st.lists(SCALE_BITS, min_size=groups, max_size=groups)), np.uint32)
        scales = (bits & np.uint32(0xFF800000) if scale is ScaleKind.POW2 else bits).view(np.float32)
    if affine:
        points = st.lists(st.integers(*fmt.integer_limits), min_size=groups, max_size=groups)
        zero_points = np.array(draw(points), np.int32)
    granularity = Granularity.CHANNEL if by_channel else Granularity.TENSOR
    array = np.array(codes, np.uint32).reshape(shape)
    return QuantizedTensor(name, fmt, scale, granularity, Rounding.NEAREST, Packing.BITS, array, scales, zero_points)


@st.composite
def architectures(draw) -> Architecture:
    shape = (draw(st.integers(1, 5)), draw(st.integers(1, 5)), draw(st.integers(1, 2)))
    layers: list = []
    pairs = st.tuples(st.integers(1, 3), st.integers(1, 3))
    paddings = st.sampled_from(["valid", "same"])
    for index in range(draw(st.integers(1, 4))):
        kind = draw(st.sampled_from(["dense", "conv", "max", "average", "relu", "flatten"]))
        name = f"{kind}{index}"
        if kind == "conv":
            filters, bias = draw(st.integers(1, 3)), draw(st.booleans())
            layer = Conv2D(name, filters, draw(pairs), draw(pairs), draw(paddings), bias)
        elif kind in {"max", "average"}:
            pool = MaxPool2D if kind == "max" else AveragePool2D
            layer = pool(name, draw(pairs), draw(pairs), draw(paddings))
        elif kind == "dense":
            layer = Dense(name, draw(st.integers(1, 3)), draw(st.booleans()))
        else:
            layer = ReLU(name) if kind == "relu" else Flatten(name)
        try:
            Architecture("tried", shape, (*layers, layer))
        except NetworkError:  # a window larger than the map, or a map's layer on a vector
            continue
        layers.append(layer)
    if not layers:
        layers = [Flatten("flatten")]
    architecture = Architecture("random", shape, tuple(layers))
    if len(architecture.output_shapes()[-1]) == 1 and draw(st.booleans()):
        architecture = Architecture("random", shape, (*layers, Softmax("softmax")))
    return architecture


@st.composite
def cases(draw) -> tuple[Model, np.ndarray]:
    architecture = draw(architectures())
    parts = {name: draw(tensors(name, shape)) for name, shape in architecture.parameter_shapes().items()}
    model = Model("random", "", architecture, {"weights": "", "biases": "", "overrides": {}}, parts)
    images = draw(st.integers(1, 3))
    count = images * int(np.prod(architecture.input_shape))
    pixel = st.one_of(st.sampled_from([0, 1, 255]), st.integers(0, 255))
    pixels = np.array(draw(st.lists(pixel, min_size=count, max_size=count)), np.uint8)
    return model, pixels.reshape(images, *architecture.input_shape)
