"""Two implementations, one answer: the numpy reference and the compiled core give the same bits."""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from bitloop.data.dataset import load
from bitloop.data.splits import Split
from bitloop.errors import DataError
from bitloop.hello import DeviceInfo
from bitloop.native.evaluator import Evaluator
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
from bitloop.network.network import Network, load_network
from bitloop.plan import memory, plan
from bitloop.quantize.apply import quantize
from bitloop.quantize.model import Model
from bitloop.quantize.recipe import parse_recipe
from bitloop.simulate import activations, simulate

DEVICE = DeviceInfo.native_default()
IMAGES = 200

# What issue and design name, and what lies beside it: every kind of format, scale, granularity and packing.
RECIPES = [
    *("fp32", "fp16", "bf16", "e4m3:pow2", "e5m2", "e8m2:toward_zero", "e3m1:pow2", "int8:channel", "int4:channel"),
    *("ternary", "ternary:channel:trits", "binary", "binary:channel", "int2", "int16", "int5:affine", "q2.13"),
    *("uint8:affine", "int8:affine:channel", "uint4:affine:channel:pow2", "q3.4", "q0.7:channel", "e4m3fn:channel"),
    *("e2m1finite:fp32", "e8m23", "e1m6", "e6m9:stochastic:seed=3", "e5m2:away", "e3m4nosub", "e2m3finiteb3:pow2"),
]

WIDE = Architecture(
    "wide",
    (28, 28, 1),
    (
        *(AveragePool2D("pool1", (3, 3), (2, 2), "same"), Conv2D("conv1", 5, (3, 4), (2, 1), "same"), ReLU("relu1")),
        *(MaxPool2D("pool2", (2, 2), (1, 2), "same"), Conv2D("conv2", 7, (2, 2), (1, 1), "valid", use_bias=False)),
        *(MaxPool2D("pool3", (2, 2), (2, 2)), ReLU("relu2"), Flatten("flatten"), Dense("dense1", 13), ReLU("relu3")),
        *(Dense("dense2", 10), Softmax("softmax")),
    ),
)


def _oracle() -> ModuleType:
    path = Path(__file__).parents[1] / "oracles/network_oracle.py"
    spec = importlib.util.spec_from_file_location("network_oracle", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


oracle = _oracle()


@pytest.fixture(scope="module", autouse=True)
def tables_for_small_layers():
    """Let the planner give a table to every layer that can have one, whether it pays or not."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(memory, "MACS_A_TABLE_ENTRY", 0)
        yield


@pytest.fixture(scope="module")
def digits():
    """The first images of the search split of MNIST."""
    try:
        images = load("mnist", download=False).split(Split.SEARCH)
    except DataError as error:
        pytest.skip(f"MNIST is not on this machine: {error}")
    return images.first(IMAGES).pixels


@pytest.fixture(scope="module")
def strokes():
    """Images without a data set: sparse, with every value of a pixel."""
    index = np.arange(IMAGES * 784, dtype=np.int64)
    values = (index * index * 7 + index * 13) % 1009
    return np.where(values < 256, values, 0).astype(np.uint8).reshape(IMAGES, 28, 28, 1)


def assert_same_bits(model: Model, device: DeviceInfo, pixels: np.ndarray) -> None:
    """Logits of all images, and the output of each operation for the first."""
    planned = plan(model, device)
    evaluator = Evaluator(planned.image)
    expected = simulate(model, pixels).view(np.uint32)
    found = evaluator.run(pixels).view(np.uint32)
    assert found.shape == expected.shape
    differing = np.flatnonzero((found != expected).any(axis=1))
    assert not differing.size, f"{differing.size} of {len(pixels)} images differ, the first is {differing[0]}"
    layers = activations(model, pixels[:1])
    for number, operation in enumerate(planned.operations):
        reference = layers[operation.layers[-1]].ravel().view(np.uint32)
        device_bits = evaluator.activations(pixels[0], number).view(np.uint32)
        assert (device_bits == reference).all(), f"operation {operation.name} differs"


def network_of(architecture: Architecture, spread: float) -> Network:
    generator = np.random.default_rng(3)
    values = {
        name: (generator.normal(size=shape) * spread).astype(np.float32)
        for name, shape in architecture.parameter_shapes().items()
    }
    return Network(architecture, values, dataset="", metadata={})


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("table_bits", [0, 16])
def test_every_format_in_every_kind_of_layer(recipe, table_bits, strokes):
    model = quantize(network_of(WIDE, 0.3), parse_recipe(recipe))
    packings = (1, 0) if table_bits else (0, 1)
    assert_same_bits(model, replace(DEVICE, table_bits=table_bits, packings=packings), strokes[:60])


@pytest.mark.parametrize("recipe", ["fp32", "bf16", "e8m2"])
def test_overflow_and_underflow(recipe, strokes):
    """Weights around 2^60 overflow in the third layer and leave NaN; around 2^-60 all is subnormal, then zero."""
    for spread in (2.0**60, 2.0**-60, 2.0**-70):
        assert_same_bits(quantize(network_of(WIDE, spread), parse_recipe(recipe)), DEVICE, strokes[:20])


@pytest.mark.parametrize("recipe", RECIPES[:10])
@pytest.mark.parametrize("name", ["mlp", "mlp8k", "cnn"])
def test_trained_networks_on_digits(name, recipe, digits):
    assert_same_bits(quantize(load_network(name), parse_recipe(recipe)), DEVICE, digits)


@settings(max_examples=300, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(
    oracle.cases(),
    st.sampled_from([0, 3, 8, 16]),
    st.sampled_from([(0,), (1, 0)]),
)
def test_random_networks_in_random_formats(case, table_bits, packings):
    model, pixels = case
    assume(any(not isinstance(layer, Flatten | Softmax) for layer in model.architecture.layers))
    assert_same_bits(model, replace(DEVICE, table_bits=table_bits, packings=packings), pixels)
