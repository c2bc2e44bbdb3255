"""Bounds of logits by BLAS: no order of summation, no fusing, no adversary escapes, and they are not far off."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bitloop.data.dataset import Images
from bitloop.errors import UsageError
from bitloop.network.architecture import Architecture, AveragePool2D, Conv2D, Dense, Flatten, Layer, MaxPool2D, ReLU
from bitloop.network.network import Network
from bitloop.quantize.apply import quantize
from bitloop.quantize.model import Model
from bitloop.quantize.recipe import parse_recipe
from bitloop.simulate.bounded import Bounded, bounded_logits, bounded_logits_from, bounded_prefix_of
from bitloop.simulate.elementwise import elementwise_logits
from bitloop.simulate.reference import labels, simulate

F64 = npt.NDArray[np.float64]
Compute = Callable[[Model, npt.NDArray[np.uint8]], Bounded]
U = 2.0**-24
either = pytest.mark.parametrize("compute", [bounded_logits, elementwise_logits])
SPECS = ("fp32", "e4m3:pow2", "e8m2", "int4:channel", "int8:affine", "ternary:channel", "e2m1:fp32")


def model_of(layers: list[Layer], shape: tuple[int, int, int], seed: int, spec: str = "fp32") -> Model:
    architecture = Architecture("drawn", shape, tuple(layers))
    generator = np.random.default_rng(seed)
    parameters = {
        name: generator.normal(0.0, 0.5, size).astype(np.float32)
        for name, size in architecture.parameter_shapes().items()
    }
    return quantize(Network(architecture, parameters, "mnist"), parse_recipe(spec, "fp32"))


def constant_model(layers: list[Layer], shape: tuple[int, int, int], weight: float) -> Model:
    architecture = Architecture("constant", shape, tuple(layers))
    parameters = {
        name: np.full(size, weight if name.endswith("weights") else 0.0, np.float32)
        for name, size in architecture.parameter_shapes().items()
    }
    return quantize(Network(architecture, parameters, "mnist"), parse_recipe("fp32"))


@st.composite
def drawn_models(draw: st.DrawFn) -> tuple[Model, npt.NDArray[np.uint8]]:
    side, channels = draw(st.integers(5, 9)), draw(st.integers(1, 3))
    layers: list[Layer] = []
    for number in range(draw(st.integers(0, 2))):
        kernel, stride = draw(st.integers(1, 3)), draw(st.integers(1, 2))
        layers.append(
            Conv2D(
                f"conv{number}",
                draw(st.integers(1, 5)),
                (kernel, draw(st.integers(1, 3))),
                (stride, 1),
                padding="same",
                use_bias=draw(st.booleans()),
            )
        )
        if draw(st.booleans()):
            layers.append(ReLU(f"relu{number}"))
        pool = draw(st.sampled_from([MaxPool2D, AveragePool2D, None]))
        if pool is not None:
            layers.append(pool(f"pool{number}", (2, 2), (draw(st.integers(1, 2)), 2), "same"))
    layers.append(Flatten("flatten"))
    if draw(st.booleans()):
        layers += [Dense("dense1", draw(st.integers(1, 12))), ReLU("relu")]
    layers.append(Dense("dense2", draw(st.integers(1, 10))))
    model = model_of(layers, (side, side, channels), draw(st.integers(0, 99)), draw(st.sampled_from(SPECS)))
    generator = np.random.default_rng(draw(st.integers(0, 99)))
    pixels = generator.integers(0, 256, (draw(st.integers(1, 5)), side, side, channels)).astype(np.uint8)
    return model, np.where(generator.random(pixels.shape) < 0.5, 0, pixels).astype(np.uint8)


@settings(max_examples=60, deadline=None)
@given(drawn_models())
def test_a_devices_logits_lie_within_the_bounds(case: tuple[Model, npt.NDArray[np.uint8]]) -> None:
    model, pixels = case
    exact = simulate(model, pixels)
    for found in (elementwise_logits(model, pixels), bounded_logits(model, pixels)):
        assert found.logits.shape == found.bounds.shape == exact.shape
        assert (np.abs(found.logits.astype(np.float64) - exact) <= found.bounds).all()
        assert (found.logits.argmax(axis=1) == labels(exact))[found.decided].all()
    for layer in model.architecture.layers:
        again = bounded_logits_from(model, bounded_prefix_of(model, pixels, layer.name))
        np.testing.assert_array_equal(again.logits, found.logits)
        np.testing.assert_array_equal(again.bounds, found.bounds)


FLAT, RELU = Flatten("flatten"), ReLU("relu")


def dense(name: str, units: int) -> Dense:
    return Dense(name, units, use_bias=False)


def conv(name: str, filters: int, side: int) -> Conv2D:
    return Conv2D(name, filters, (side, side), use_bias=False)


def gamma(terms: int) -> float:
    return terms * U / (1 - terms * U)


@either
@pytest.mark.parametrize(
    ("layers", "terms", "averaged", "most"),
    [
        ([FLAT, dense("dense1", 30), RELU, dense("dense2", 4)], (400, 30), 0, 1.1),
        ([FLAT, dense("dense1", 30), RELU, dense("dense2", 50), dense("dense3", 4)], (400, 30, 50), 0, 1.1),
        ([conv("conv1", 6, 3), RELU, FLAT, dense("dense1", 4)], (9, 1944), 0, 1.1),
        ([conv("conv1", 1, 19), conv("conv2", 1, 2), FLAT, dense("dense1", 2)], (361, 4, 1), 0, 1.1),
        ([conv("conv1", 6, 3), MaxPool2D("pool1"), RELU, FLAT, dense("dense1", 4)], (9, 486), 0, 1.1),
        ([conv("conv1", 6, 17), MaxPool2D("pool1"), FLAT, dense("dense1", 4)], (289, 24), 0, 2.0),
        ([conv("conv1", 1, 1), AveragePool2D("pool1", (20, 20), (20, 20)), FLAT, dense("dense1", 2)], (1, 1), 401, 2.1),
    ],
)
def test_the_worst_adversary_stays_just_within(
    layers: list[Layer], terms: tuple[int, ...], averaged: int, most: float, compute: Compute
) -> None:
    """Where all weights and pixels are one positive number, Cauchy and Schwarz lose nothing.

    An adversary makes each sum of the device greater by gamma_n and each of BLAS less, as far as the theorem lets it.
    Its logits are then apart by the product of (1 + gamma_n) less that of (1 - gamma_n), of the exact logit: by hand,
    without any of the code under test. A maximum costs up to the root of its window, and an average twice its own.
    """
    model = constant_model(layers, (20, 20, 1), 0.125)
    found = compute(model, np.full((2, 20, 20, 1), 255, np.uint8))
    exact = np.prod([n * 0.125 for n in terms])
    np.testing.assert_allclose(found.logits, exact, rtol=1e-4)
    up = np.prod([1 + gamma(n) for n in (*terms, averaged)])
    down = np.prod([1 - gamma(n) for n in (*terms, averaged)])
    apart = exact * (up - down)
    assert (found.bounds >= apart).all()
    assert (found.bounds <= most * apart).all()


def orders(x: npt.NDArray[np.float32], w: npt.NDArray[np.float32], generator: np.random.Generator) -> list[float]:
    """Return sums of products in binary32: in drawn orders, halves and quarters apart, fused (products unrounded)."""
    found = []
    for _ in range(20):
        order = generator.permutation(len(x))
        rounded = np.cumsum(x[order] * w[order], dtype=np.float32)[-1]
        parts = [np.cumsum(part, dtype=np.float32)[-1] for part in np.array_split(x[order] * w[order], 4)]
        fused = np.float32(0)
        for i in order:
            fused = np.float32(np.float64(fused) + np.float64(x[i]) * np.float64(w[i]))
        found += [float(rounded), float(np.cumsum(np.array(parts), dtype=np.float32)[-1]), float(fused)]
    return found


@either
def test_no_order_of_summation_escapes(compute: Compute) -> None:
    model = model_of([Flatten("flatten"), Dense("dense1", 3, use_bias=False)], (8, 8, 1), seed=4)
    generator = np.random.default_rng(5)
    pixels = generator.integers(0, 256, (4, 8, 8, 1)).astype(np.uint8)
    exact, bounds = simulate(model, pixels).astype(np.float64), compute(model, pixels).bounds
    weights = model.tensors["dense1.weights"].elements()
    spread = 0.0
    inputs: npt.NDArray[np.float32] = pixels.reshape(4, -1).astype(np.float32) / np.float32(255)
    for image, values in enumerate(inputs):
        for output in range(3):
            for total in orders(values, weights[:, output], generator):
                spread = max(spread, abs(total - exact[image, output]))
                assert abs(total - exact[image, output]) <= bounds[image, output]
    assert spread > 0  # the orders do differ, so that something was shown


@either
@pytest.mark.parametrize(
    ("weights", "bias", "size", "roundings"), [("fp32", 2.0**20, 2.0**20, 2), ("int8:fp32", None, 3.0, 4)]
)
def test_scale_and_bias_round_as_well(
    weights: str, bias: float | None, size: float, roundings: int, compute: Compute
) -> None:
    """One pixel and one weight: each rounding is by half a unit in the last place at most, here and there.

    Without a scale the product is small beside the bias, and one rounding counts; with one two do: product, scale.
    """
    architecture = Architecture("one", (1, 1, 1), (Flatten("flatten"), Dense("dense1", 1, use_bias=bias is not None)))
    parameters = {"dense1.weights": np.array([[3.0]], np.float32)}
    if bias is not None:
        parameters["dense1.biases"] = np.array([bias], np.float32)
    model = quantize(Network(architecture, parameters, "mnist"), parse_recipe(weights, "fp32"))
    bound = float(compute(model, np.full((1, 1, 1, 1), 255, np.uint8)).bounds[0, 0])
    assert roundings * U * size <= bound <= 4 * roundings * U * size


@either
@pytest.mark.parametrize("weight", [2.0**127, 1e38])
def test_what_may_overflow_decides_nothing(weight: float, compute: Compute) -> None:
    model = constant_model([Flatten("flatten"), Dense("dense1", 2, use_bias=False)], (2, 2, 1), weight)
    found = compute(model, np.full((1, 2, 2, 1), 255, np.uint8))
    assert np.isinf(found.bounds).all()
    assert found.decided.tolist() == [False]


def test_decided_is_a_lead_by_more_than_both_bounds() -> None:
    logits = np.array([[1.0, 2.0, 0.0]] * 5 + [[np.nan, 2.0, 0.0], [2.0, 2.0, 0.0]], np.float32)
    bounds = np.array(
        [[0.4, 0.5, 0.0], [0.5, 0.5, 0.0], [0.0, 0.5, 1.5], [0.0, 0.0, np.inf], [0.0] * 3, [0.0] * 3, [0.0] * 3]
    )
    assert Bounded(logits, bounds).decided.tolist() == [True, False, False, False, True, False, False]


@either
def test_weights_of_zero_add_no_error(compute: Compute) -> None:
    """Of 400 weights 4 are left: what a sum is off by is that of four terms."""
    architecture = Architecture("sparse", (20, 20, 1), (Flatten("flatten"), dense("dense1", 2)))
    weights = np.zeros((400, 2), np.float32)
    weights[[3, 77, 210, 399]] = 1.0
    model = quantize(Network(architecture, {"dense1.weights": weights}, "mnist"), parse_recipe("fp32"))
    found = compute(model, np.full((1, 20, 20, 1), 255, np.uint8))
    least = 4 * 2 * gamma(4)
    assert (found.bounds >= least).all()
    # By norms the 400 pixels count, of which 396 meet a zero: ten times too much.
    assert (found.bounds <= (2 if compute is elementwise_logits else 30) * least).all()


@either
@pytest.mark.parametrize("spec", ["fp32", "e3m1:pow2", "int4:channel", "ternary"])
def test_the_zoo_is_decided_nearly_always(
    spec: str, networks: Callable[[str], Network], drawn_images: Images, compute: Compute
) -> None:
    for name in ("mlp8k", "cnn"):
        model = quantize(networks(name), parse_recipe(spec, "fp32"))
        found = compute(model, drawn_images.pixels)
        exact = simulate(model, drawn_images.pixels)
        assert (np.abs(found.logits.astype(np.float64) - exact) <= found.bounds).all()
        assert (labels(found.logits) == labels(exact))[found.decided].all()
        assert found.decided.mean() > 0.8


def test_an_unknown_layer_is_named(networks: Callable[[str], Network], drawn_images: Images) -> None:
    model = quantize(networks("mlp8k"), parse_recipe("fp32"))
    with pytest.raises(UsageError, match="no layer 'nosuch'"):
        bounded_prefix_of(model, drawn_images.pixels[:2], "nosuch")
