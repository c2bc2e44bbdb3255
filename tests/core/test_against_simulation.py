"""The core against the numpy reference, which was written apart from it: equal bits for random networks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bitloop.hello import DeviceInfo
from bitloop.native import Evaluator, validate_image
from bitloop.network.architecture import (
    Architecture,
    AveragePool2D,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    MaxPool2D,
    ReLU,
)
from bitloop.network.network import Network
from bitloop.network.zoo import zoo_architecture
from bitloop.plan.planner import plan
from bitloop.quantize.apply import quantize
from bitloop.quantize.recipe import parse_recipe
from bitloop.simulate.reference import activations, simulate
from bitloop.spec import Packing, Status

WEIGHTS = (
    *("fp32", "fp16", "bf16", "e4m3:pow2", "e5m2", "e8m2:toward_zero", "e3m1:pow2", "int8:channel", "int4:channel"),
    *("ternary", "binary", "e4m3fn:channel", "ue4m4nosub", "e2m1finite:channel:pow2", "int3", "int12:channel", "int16"),
    *("q1.14", "q3.4", "uint8:affine", "int5:affine", "int16:affine", "e6m17", "e8m14", "uint2:affine:pow2"),
)
BIASES = ("fp32", "fp16", "e5m2", "int8", "q3.12", "int16:affine", "e4m3:pow2", "binary")


@st.composite
def architectures(draw: st.DrawFn) -> Architecture:
    """Small nets with every kind of layer, odd sizes, strides and paddings."""
    shape = (draw(st.integers(1, 9)), draw(st.integers(1, 9)), draw(st.integers(1, 3)))
    layers: list[Layer] = []
    size = list(shape[:2])
    for number in range(draw(st.integers(0, 4))):
        kind = draw(st.sampled_from(("conv", "max", "average", "relu")))
        window = (draw(st.integers(1, min(4, size[0]))), draw(st.integers(1, min(4, size[1]))))
        strides = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
        padding = draw(st.sampled_from(("same", "valid")))
        name = f"layer{number}"
        if kind == "relu":
            layers.append(ReLU(name))
            continue
        if kind == "conv":
            layers.append(Conv2D(name, draw(st.integers(1, 9)), window, strides, padding, draw(st.booleans())))
        elif kind == "max":
            layers.append(MaxPool2D(name, window, strides, padding))
        else:
            layers.append(AveragePool2D(name, window, strides, padding))
        for axis in (0, 1):
            size[axis] = (
                -(-size[axis] // strides[axis])
                if padding == "same"
                else (size[axis] - window[axis]) // strides[axis] + 1
            )
    if draw(st.booleans()) or not layers:
        layers.append(Flatten("flatten"))
        for number in range(draw(st.integers(1, 2))):
            layers.append(Dense(f"dense{number}", draw(st.integers(1, 11)), draw(st.booleans())))
            if draw(st.booleans()):
                layers.append(ReLU(f"last{number}"))
    return Architecture("random", shape, tuple(layers))


def network_of(architecture: Architecture, seed: int, spread: float) -> Network:
    rng = np.random.default_rng(seed)
    parameters = {
        name: (rng.normal(size=shape) * spread).astype(np.float32)
        for name, shape in architecture.parameter_shapes().items()
    }
    return Network(architecture, parameters, "none", {})


def check(network: Network, weights: str, biases: str, table_bits: int, packings: tuple[int, int]) -> None:
    model = quantize(network, parse_recipe(weights, biases, []))
    device = replace(DeviceInfo.native_default(arena_bytes=1 << 24), table_bits=table_bits, packings=packings)
    planned = plan(model, device)
    assert validate_image(planned.image, 1 << 24) == (Status.OK, (0, 0))
    assert validate_image(planned.image, planned.memory.total_bytes)[0] is Status.OK
    assert validate_image(planned.image, planned.memory.total_bytes - 1)[0] is Status.NO_MEMORY
    evaluator = Evaluator(planned.image)
    height, width, channels = network.architecture.input_shape
    pixels = np.random.default_rng(1).integers(0, 256, (5, height, width, channels), dtype=np.uint8)
    pixels[np.random.default_rng(2).random(pixels.shape) < 0.4] = 0
    expected = simulate(model, pixels)
    np.testing.assert_array_equal(evaluator.run(pixels, threads=1).view(np.uint32), expected.view(np.uint32))
    each = activations(model, pixels[:1])
    for index, operation in enumerate(planned.operations):
        found = evaluator.activations(pixels[0], index)
        reference = each[operation.layers[-1]][0].ravel()
        np.testing.assert_array_equal(found.view(np.uint32), reference.view(np.uint32))


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    architectures(),
    st.sampled_from(WEIGHTS),
    st.sampled_from(BIASES),
    st.sampled_from((0.1, 1.0, 1e4)),
    st.sampled_from((0, 4, 8)),
)
def test_random_networks(architecture: Architecture, weights: str, biases: str, spread: float, table_bits: int) -> None:
    network = network_of(architecture, len(weights) + len(architecture.layers), spread)
    check(network, weights, biases, table_bits, (int(Packing.BITS), int(Packing.TRITS)))


@pytest.mark.parametrize("table_bits", [0, 8])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_every_format(weights: str, table_bits: int) -> None:
    network = network_of(zoo_architecture("mlp8k"), 7, 0.2)
    check(network, weights, "fp32", table_bits, (int(Packing.TRITS), int(Packing.BITS)))


@pytest.mark.parametrize("weights", ["fp32", "e4m3:pow2", "int8:channel", "ternary"])
def test_the_convolutional_network(weights: str) -> None:
    check(network_of(zoo_architecture("cnn"), 7, 0.2), weights, "fp32", 8, (int(Packing.BITS), int(Packing.TRITS)))


def test_overflow_and_nan() -> None:
    """Sums that overflow, and infinities that meet: the same bits, a NaN always 0x7FC00000."""
    architecture = Architecture(
        "wild",
        (4, 4, 1),
        (Conv2D("c", 3, (2, 2), (1, 1), "same"), MaxPool2D("m", (2, 2), (1, 1), "same"), Flatten("f"), Dense("d", 9)),
    )
    tame = network_of(architecture, 3, 1.0)
    parameters = {**tame.parameters, "d.weights": tame.parameters["d.weights"] * np.float32(8e37)}
    network = Network(architecture, parameters, "none", {})
    model = quantize(network, parse_recipe("fp32", "fp32", []))
    pixels = np.random.default_rng(1).integers(0, 256, (50, 4, 4, 1), dtype=np.uint8)
    expected = simulate(model, pixels).view(np.uint32)
    found = Evaluator(plan(model, DeviceInfo.native_default()).image).run(pixels).view(np.uint32)
    np.testing.assert_array_equal(found, expected)
    assert (expected == 0x7FC00000).any()
    assert (expected == 0x7F800000).any()
