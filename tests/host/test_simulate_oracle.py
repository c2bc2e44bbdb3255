"""The reference simulation against exact rational arithmetic (tests/oracles/network_oracle.py)."""

from __future__ import annotations

import importlib.util
import struct
from fractions import Fraction
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitloop.network.architecture import Architecture, AveragePool2D, Conv2D, MaxPool2D, Softmax
from bitloop.numeric.formats import parse_format
from bitloop.numeric.rounding import Rounding
from bitloop.quantize.model import Model, QuantizedTensor
from bitloop.simulate import activations, simulate
from bitloop.spec import PROBE_CASES, Granularity, Packing, ScaleKind


def _oracle() -> ModuleType:
    path = Path(__file__).parents[1] / "oracles/network_oracle.py"
    spec = importlib.util.spec_from_file_location("network_oracle", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


exact = _oracle()
FP32 = parse_format("fp32")

# --- the oracle's own arithmetic ------------------------------------------------------------------------------------


def test_the_oracle_gives_the_results_of_the_probe():
    """The cases of docs/arithmetic.md, whose results are stated there."""
    a, c, one, two24 = 0x3F800800, 0xBF801000, 0x3F800000, 0x33800000
    found = [
        exact.add(exact.multiply(a, a), c),
        exact.multiply(0x00800000, 0x3F000000),
        exact.add(1, 1),
        exact.add(one, two24),
        exact.add(0x3F800001, two24),
        exact.multiply(0xBF800000, 0),
        exact.add(0, exact.SIGN),
        exact.divide_by_count(one, 3),
        exact.rounded(Fraction(16777217)),
        exact.add(0x7F7FFFFF, 0x7F7FFFFF),
        exact.rounded(Fraction(77, 255)),
    ]
    assert [hex(bits) for bits in found] == [hex(bits) for _, bits in PROBE_CASES]


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_the_oracle_rounds_as_the_c_library_does(value):
    """struct packs a binary64 number by a C cast, which rounds once to nearest even."""
    try:
        (expected,) = struct.unpack("<I", struct.pack("<f", value))
    except OverflowError:
        expected = exact.INFINITY | (exact.SIGN if value < 0 else 0)
    assert exact.rounded(Fraction(value), exact.SIGN if str(value).startswith("-") else 0) == expected


@settings(max_examples=400, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(exact.cases(), st.integers(1, 3))
def test_random_networks_give_the_oracles_bits_in_every_layer(case, batch):
    model, pixels = case
    found = activations(model, pixels, batch=batch)
    logits = simulate(model, pixels, batch=batch)
    computed = [layer.name for layer in model.architecture.layers if not isinstance(layer, Softmax)]
    assert list(found) == computed
    for index, image in enumerate(pixels):
        expected = exact.oracle(model, image)
        for name in computed:
            bits = exact.bits_of(found[name][index]).ravel()
            assert [hex(b) for b in bits] == [hex(b) for b in expected[name]], f"layer {name} of image {index}"
        assert (exact.bits_of(logits[index]) == expected[computed[-1]]).all()


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize("kernel", [(1, 1), (3, 2), (2, 5)])
@pytest.mark.parametrize("strides", [(1, 1), (2, 3), (4, 1)])
@pytest.mark.parametrize("kind", [Conv2D, MaxPool2D, AveragePool2D])
def test_windows_of_every_shape(kind, kernel, strides, padding):
    """Sums of fractions that do not fit binary32, so that order and omitted padding show."""
    layer = kind("map", 2, kernel, strides, padding) if kind is Conv2D else kind("map", kernel, strides, padding)
    architecture = Architecture("window", (5, 6, 2), (layer,))
    parts = {}
    for name, shape in architecture.parameter_shapes().items():
        values = np.float32(1) / np.arange(-7, 2 * int(np.prod(shape)) - 7, 2, dtype=np.float32)
        parts[name] = QuantizedTensor(
            *(name, FP32, ScaleKind.NONE, Granularity.TENSOR, Rounding.NEAREST, Packing.BITS),
            values.view(np.uint32).reshape(shape),
        )
    model = Model("window", "", architecture, {"weights": "", "biases": "", "overrides": {}}, parts)
    image = (np.arange(60).reshape(5, 6, 2) * 37 % 256).astype(np.uint8)
    expected = exact.oracle(model, image)["map"]
    found = activations(model, image[np.newaxis])["map"]
    assert found.shape[1:] == architecture.output_shapes()[0]
    assert (exact.bits_of(found).ravel() == expected).all()
