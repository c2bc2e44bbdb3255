"""Calibrated quantization: against the exact simulation, brute force, numpy written another way, hand calculation."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import entropy
from typer.testing import CliRunner

from bitloop.cli.app import app
from bitloop.data.dataset import Images
from bitloop.errors import UsageError
from bitloop.network.architecture import Architecture, AveragePool2D, Conv2D, Dense, Flatten, MaxPool2D, ReLU
from bitloop.network.network import Network
from bitloop.quantize import activations, ptq
from bitloop.quantize.apply import quantize, quantize_tensor
from bitloop.quantize.loss_scale import divergence, log_probabilities
from bitloop.quantize.model import Model
from bitloop.quantize.options import PtqOptions
from bitloop.quantize.output_error import OutputError, product
from bitloop.quantize.recipe import parse_recipe
from bitloop.quantize.rounding_search import search
from bitloop.quantize.spec import RoundingSearch, ScaleRule, parse_tensor_spec
from bitloop.simulate.reference import activations as simulated
from bitloop.simulate.reference import simulate

NetworkOf = Callable[[str], Network]
SEARCHES = [RoundingSearch.ADAROUND, RoundingSearch.QUANTEASE]


def mixed_network() -> Network:
    """Every kind of layer and of padding, strides, a convolution without biases."""
    layers = (
        Conv2D("conv1", 4, (3, 3), strides=(2, 2), padding="same"),
        ReLU("relu1"),
        MaxPool2D("pool1", padding="same"),
        Conv2D("conv2", 5, (2, 3), use_bias=False),
        AveragePool2D("pool2", (3, 3), (2, 2), padding="same"),
        Flatten("flatten"),
        Dense("dense1", 10),
    )
    architecture = Architecture("mixed", (28, 28, 1), layers)
    generator = np.random.default_rng(5)
    parameters = {
        name: (0.3 * generator.normal(size=shape)).astype(np.float32)
        for name, shape in architecture.parameter_shapes().items()
    }
    return Network(architecture, parameters)


@pytest.mark.parametrize("name", ["mixed", "mlp", "cnn"])
def test_activations_are_those_of_the_exact_simulation(name: str, networks: NetworkOf, drawn_images: Images) -> None:
    network = mixed_network() if name == "mixed" else networks(name)
    x = activations.from_pixels(drawn_images.pixels)
    for layer in network.architecture.layers:
        if isinstance(layer, Dense | Conv2D):
            biases = network.parameters[f"{layer.name}.biases"].astype(np.float64) if layer.use_bias else None
            x = activations.linear(layer, x, network.parameters[f"{layer.name}.weights"].astype(np.float64), biases)
        else:
            x = activations.other(layer, x)
    exact = simulate(quantize(network, parse_recipe("fp32")), drawn_images.pixels)
    assert np.abs(x - exact).max() <= 2e-4 * np.abs(exact).max()


def test_products_are_exact_whatever_the_order(networks: NetworkOf, drawn_images: Images) -> None:
    layer = networks("mlp").architecture.layers[1]
    assert isinstance(layer, Dense)
    pixels = drawn_images.pixels.copy()
    pixels[0, 14, 14] = 255
    x = activations.from_pixels(pixels).reshape(120, -1)
    # What is summed is whole numbers that binary64 holds: integers of any length give the same.
    step = activations.step_of(x, activations.grid_bits(len(x)))
    (block,) = activations.inputs(layer, x, step)
    whole = [[int(v) for v in row] for row in block[:, 300:310].T]
    exact = [[sum(a * b for a, b in zip(one, two, strict=True)) for two in whole] for one in whole]
    assert (block.T @ block)[300:310, 300:310].tolist() == exact
    assert block.max() == 2**16 - 1
    # A grid of 16 bits holds pixels as they are: 65535 = 255 · 257.
    assert (block.astype(int) % 257 == 0).all()
    for rows in (1, 1000, 1 << 21, 1 << 22, 1 << 30):
        assert rows * 4 ** activations.grid_bits(rows) <= 1 << 53


def layer_case(seed: int, *, rows: int = 40, inputs: int = 6, outputs: int = 3, same: bool = False):
    """A dense layer's inputs in binary32 and quantized, its weights, and their output error."""
    generator = np.random.default_rng(seed)
    x = generator.normal(size=(rows, inputs)).astype(np.float32)
    x[:, 1] = x[:, 0] + np.float32(0.3) * x[:, 1]  # correlated, so that rounding one weight bears on another
    xq = x if same else (x + 0.1 * generator.normal(size=x.shape)).astype(np.float32)
    weights = generator.normal(size=(inputs, outputs)).astype(np.float32)
    return x, xq, weights


@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("same", [False, True])
def test_the_output_error_is_what_the_outputs_say(centred: bool, same: bool) -> None:
    x, xq, weights = layer_case(1, same=same)
    q = np.round(weights).astype(np.float64)
    error = OutputError.of(Dense("d", 3), weights.astype(np.float64), (x, xq), centred=centred)
    reference, quantized = x.astype(np.float64) @ weights, xq.astype(np.float64) @ q
    difference = quantized - reference
    assert error.mean_shift(q) == pytest.approx(-difference.mean(axis=0), rel=1e-3, abs=1e-4)
    if centred:
        difference = difference - difference.mean(axis=0)
        reference = reference - reference.mean(axis=0)
    assert error.errors(q) == pytest.approx((difference**2).sum(axis=0), rel=1e-3)
    assert error.relative(q) == pytest.approx((difference**2).sum() / (reference**2).sum(), rel=1e-3)


def test_a_convolution_is_a_dense_layer_of_its_windows() -> None:
    generator = np.random.default_rng(2)
    x = generator.normal(size=(3, 5, 6, 2)).astype(np.float32)
    weights = generator.normal(size=(3, 2, 2, 4))
    layer = Conv2D("c", 4, (3, 2), strides=(2, 1), padding="same")
    windows = []
    padded = np.pad(x, ((0, 0), (1, 1), (0, 1), (0, 0)))  # TensorFlow: the smaller half before
    for image, top, left in itertools.product(range(3), range(0, 5, 2), range(6)):
        windows.append(padded[image, top : top + 3, left : left + 2].ravel())
    error = OutputError.of(layer, weights, (x, x), centred=False)
    expected = np.array(windows, np.float64)
    assert error.h == pytest.approx(expected.T @ expected, abs=1e-3)
    assert error.rows == len(windows)


def test_product_is_a_matrix_product() -> None:
    generator = np.random.default_rng(3)
    a, b = generator.normal(size=(7, 5)), generator.normal(size=(5, 4))
    assert product(a, b) == pytest.approx(a @ b)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["int3", "int2:channel", "e2m1finite:fp32", "e3m0:pow2", "ternary", "uint4:affine", "binary"]),
    st.sampled_from(SEARCHES),
    st.booleans(),
)
def test_a_search_never_ends_above_nearest(seed: int, text: str, how: RoundingSearch, centred: bool) -> None:
    x, xq, weights = layer_case(seed)
    exact = weights.astype(np.float64)
    error = OutputError.of(Dense("d", 3), exact, (x, xq), centred=centred)
    nearest = quantize_tensor("d.weights", weights, parse_tensor_spec(text))
    frozen = np.zeros(weights.shape, np.bool_)
    found = replace(nearest, codes=search(nearest, exact, frozen, error, how))

    def output_error(tensor) -> float:
        """From the outputs themselves, in another way than the quadratic form."""
        difference = xq.astype(np.float64) @ tensor.values().astype(np.float64) - x.astype(np.float64) @ exact
        if centred:
            difference -= difference.mean(axis=0)
        return float((difference**2).sum())

    assert output_error(found) <= output_error(nearest) * (1 + 1e-3) + 1e-9
    assert (
        error.relative(found.values().astype(np.float64)) <= error.relative(nearest.values().astype(np.float64)) + 1e-12
    )
    if how is RoundingSearch.ADAROUND and not text.startswith(("binary", "uint4")):
        # The element is one of the two around the weight: no element lies between them.
        scales = 1.0 if nearest.scales is None else nearest.scales.astype(np.float64)
        grid = elements_of(text)
        scaled = exact / scales
        for value, element in zip(scaled.ravel(), found.elements().ravel().tolist(), strict=True):
            low = max(grid[grid <= value], default=grid[0])
            high = min(grid[grid >= value], default=grid[-1])
            assert element in {low, high}


def elements_of(text: str) -> np.ndarray:
    """The finite elements, from the standard's definitions."""
    name = text.split(":", maxsplit=1)[0]
    positive = {
        "int3": [0, 1, 2, 3],
        "int2": [0, 1],
        "e2m1finite": [0, 0.5, 1, 1.5, 2, 3, 4, 6],
        "e3m0": [0, 0.25, 0.5, 1, 2, 4, 8],
        "ternary": [0, 1],
    }[name]
    lowest = {"int3": [-4.0], "int2": [-2.0]}.get(name, [])
    return np.unique(np.array([*lowest, *(-p for p in positive), *positive], np.float64))


def test_adaround_reaches_the_best_of_all_roundings_of_a_small_layer() -> None:
    """Coordinate descent is not promised the optimum; over 40 layers it must come close to brute force on average."""
    found_sum = best_sum = nearest_sum = 0.0
    for seed in range(40):
        x, xq, weights = layer_case(seed, outputs=1)
        exact = weights.astype(np.float64)
        error = OutputError.of(Dense("d", 1), exact, (x, xq), centred=False)
        nearest = quantize_tensor("d.weights", weights, parse_tensor_spec("int3"))
        codes = search(nearest, exact, np.zeros(weights.shape, np.bool_), error, RoundingSearch.ADAROUND)
        scale = float(nearest.scales[0])
        below = np.clip(np.floor(exact[:, 0] / scale), -4, 3)
        choices = itertools.product(*[(b, min(b + 1, 3)) for b in below])
        errors = [float(error.errors(np.float32(scale) * np.array(c, np.float64)[:, None])[0]) for c in choices]
        best_sum += min(errors)
        found_sum += float(error.errors(replace(nearest, codes=codes).values().astype(np.float64))[0])
        nearest_sum += float(error.errors(nearest.values().astype(np.float64))[0])
    assert best_sum <= found_sum * (1 + 1e-9)
    assert found_sum - best_sum < 0.25 * (nearest_sum - best_sum)


def test_pruned_weights_stay_pruned_in_a_search(networks: NetworkOf, drawn_images: Images) -> None:
    network = networks("mlp8k")
    for how in ("adaround", "quantease"):
        recipe = parse_recipe(f"int4:prune=0.05:{how}", "fp32")
        model = ptq.quantize(network, recipe, calibration=drawn_images.pixels).model
        for name in ("dense1.weights", "dense2.weights"):
            under = np.abs(network.parameters[name].astype(np.float64)) < 0.05
            assert under.any()
            assert (model.tensors[name].values()[under] == 0).all()


def test_bias_correction_takes_the_mean_shift_off(networks: NetworkOf, drawn_images: Images) -> None:
    """Each layer's mean in the exact binary32 simulation is that of the network in binary32."""
    network = networks("cnn")
    reference = quantize(network, parse_recipe("fp32"))
    shifted = quantize(network, parse_recipe("int3", "fp32"))
    corrected = ptq.quantize(network, parse_recipe("int3", "fp32:corrected"), calibration=drawn_images.pixels)
    for layer in ("conv1", "conv2", "dense1"):
        means = []
        for model in (reference, shifted, corrected.model):
            values = simulated(model, drawn_images.pixels)[layer]
            means.append(values.reshape(-1, values.shape[-1]).astype(np.float64).mean(axis=0))
        before, after = np.abs(means[1] - means[0]).max(), np.abs(means[2] - means[0]).max()
        assert after < 2e-4 * np.abs(means[0]).max()
        assert after < before / 50
    for gain in corrected.gains:
        assert (gain.step, gain.measure) == ("bias", "mean shift")
        assert gain.after < 1e-6 < gain.before


def test_bias_correction_by_hand() -> None:
    """One input of mean 0.5: a weight of 0.8 that becomes 1 shifts the mean by 0.1, and the bias takes it off."""
    architecture = Architecture("one", (1, 1, 1), (Flatten("f"), Dense("d", 1)))
    network = Network(architecture, {"d.weights": np.array([[0.8]], np.float32), "d.biases": np.array([2], np.float32)})
    pixels = np.array([0, 255], np.uint8).reshape(2, 1, 1, 1)
    model = ptq.quantize(network, parse_recipe("int4:none", "fp32:corrected"), calibration=pixels).model
    assert model.tensors["d.weights"].values() == 1
    assert model.tensors["d.biases"].values() == np.float32(1.9)


@pytest.mark.parametrize(
    "text", ["int4", "int2:channel", "e2m1finite:pow2", "ternary", "ternary:channel", "uint4:affine"]
)
def test_scales_by_output_error_are_no_worse_than_others(text: str, networks: NetworkOf, drawn_images: Images) -> None:
    network = networks("mlp8k")
    errors = {}
    for rule in ("cover", "mse", "output"):
        model = ptq.quantize(
            network, parse_recipe("fp32", "fp32", [f"dense1.weights={text}:{rule}"]), calibration=drawn_images.pixels
        ).model
        outputs = [
            simulated(m, drawn_images.pixels)["dense1"] for m in (model, quantize(network, parse_recipe("fp32")))
        ]
        errors[rule] = float(((outputs[0].astype(np.float64) - outputs[1]) ** 2).sum())
    assert errors["output"] <= min(errors["cover"], errors["mse"]) * (1 + 1e-3)
    if text.startswith("int"):
        assert errors["output"] < 0.9 * errors["cover"]


def divergence_of(model: Model, network: Network, images: Images) -> float:
    """Return the mean Kullback-Leibler divergence from binary32, by the exact simulation and scipy."""
    true, given_ = (
        softmax(simulate(m, images.pixels).astype(np.float64), axis=1)
        for m in (quantize(network, parse_recipe("fp32")), model)
    )
    return float(entropy(true, given_, axis=1).mean())


@pytest.mark.parametrize(
    "text", ["int4", "int2:channel", "e2m1finite:pow2", "ternary", "ternary:channel", "uint4:affine"]
)
def test_scales_by_the_loss_diverge_no_more_than_others(text: str, networks: NetworkOf, drawn_images: Images) -> None:
    network = networks("cnn")
    found = {}
    for rule in ("cover", "mse", "output", "loss"):
        recipe = parse_recipe("fp32", "fp32", [f"conv2.weights={text}:{rule}"])
        model = ptq.quantize(network, recipe, calibration=drawn_images.pixels).model
        found[rule] = divergence_of(model, network, drawn_images)
    assert found["loss"] <= min(found.values()) + 1e-5
    if text.startswith("int"):
        assert found["loss"] < 0.95 * min(found["cover"], found["mse"], found["output"])


@pytest.mark.parametrize("biases", ["fp32", "fp32:corrected"])
def test_the_divergence_that_is_told_is_that_of_the_model(
    biases: str, networks: NetworkOf, drawn_images: Images
) -> None:
    """Of the last layer: all before it are quantized by then."""
    network = networks("cnn")
    result = ptq.quantize(network, parse_recipe("int3:loss", biases), calibration=drawn_images.pixels)
    gains = [gain for gain in result.gains if gain.measure == "divergence"]
    assert [gain.tensor for gain in gains] == ["conv1.weights", "conv2.weights", "dense1.weights"]
    assert all(gain.after <= gain.before for gain in gains)
    assert gains[-1].after == pytest.approx(divergence_of(result.model, network, drawn_images), rel=1e-4)
    assert gains[-1].after < divergence_of(quantize(network, parse_recipe("int3", "fp32")), network, drawn_images) / 2


def test_divergence_by_hand() -> None:
    """Of probabilities 1/2, 1/2 against 1/4, 3/4: (ln 2 + ln 2/3) / 2 = ln(4/3) / 2."""
    even, other = (log_probabilities(np.log(np.array([p], np.float32))) for p in ((0.5, 0.5), (0.25, 0.75)))
    assert divergence(even, other) == pytest.approx(math.log(4 / 3) / 2, abs=1e-7)
    assert divergence(even, even) == 0


def test_what_takes_no_images_is_as_without(networks: NetworkOf, drawn_images: Images) -> None:
    network = networks("cnn")
    for weights in ("int4:channel", "e3m1:pow2", "int3:mse:prune=0.01"):
        recipe = parse_recipe(weights, "e4m3")
        assert ptq.quantize(network, recipe).model.to_bytes() == quantize(network, recipe).to_bytes()
    # Only what is named is touched: of the other tensors nothing changes.
    recipe = parse_recipe("int4", "fp32", ["conv2.weights=int4:adaround"])
    plain, one = (
        quantize(network, parse_recipe("int4", "fp32")),
        ptq.quantize(network, recipe, calibration=drawn_images.pixels),
    )
    for name, tensor in one.model.tensors.items():
        assert (tensor.codes.tobytes() == plain.tensors[name].codes.tobytes()) == (name != "conv2.weights")


def test_the_same_images_give_the_same_bytes(networks: NetworkOf, drawn_images: Images) -> None:
    recipe = parse_recipe("int3:output:adaround", "e4m3:corrected")
    models = [ptq.quantize(networks("mlp8k"), recipe, calibration=drawn_images.pixels).model for _ in range(2)]
    assert models[0].to_bytes() == models[1].to_bytes()


def test_options_are_tokens() -> None:
    options = PtqOptions(ScaleRule.MSE, bias_correction=True, rounding=RoundingSearch.ADAROUND, prune=0.05)
    recipe = options.applied_to(
        parse_recipe("e2m1", "int8", ["a.weights=fp32", "b.biases=fp32", "c.weights=int4:pow2"])
    )
    assert recipe.to_dict() == {
        "weights": "e2m1:mse:prune=0.05:adaround",
        "biases": "int8:mse:corrected",
        "overrides": {
            "a.weights": "fp32:prune=0.05",
            "b.biases": "fp32:corrected",
            "c.weights": "int4:pow2:mse:prune=0.05:adaround",
        },
    }
    assert [name for name, _ in options.stages()] == ["default", "prune", "mse", "bias correction", "adaround"]
    assert options.stages()[-1][1] == options
    assert [name for name, _ in PtqOptions().stages()] == ["default"]


def test_images_that_are_missing_or_do_not_fit(networks: NetworkOf, drawn_images: Images) -> None:
    recipe = parse_recipe("int4:adaround", "fp32")
    for pixels, message in (
        (None, "int4:adaround takes calibration images"),
        (drawn_images.pixels[:0], "takes calibration images"),
        (drawn_images.pixels[:, :14], r"uint8 \[120, 14, 28, 1\], but the network takes uint8 \[N, 28, 28, 1\]"),
        (drawn_images.pixels.astype(np.float32), "are float32"),
    ):
        with pytest.raises(UsageError, match=message):
            ptq.quantize(networks("mlp8k"), recipe, calibration=pixels)


def test_the_command_reports_each_step(tmp_path: Path) -> None:
    arguments = ["quantize", "mlp8k-digits", "-w", "int3", "--scales", "mse", "--bias-correction", "--prune", "0.02"]
    arguments += ["--rounding-search", "adaround", "--calibration", "200", "--out", str(tmp_path / "a.blm")]
    result = CliRunner().invoke(app, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert [step["step"] for step in document["steps"]] == ["default", "prune", "mse", "bias correction", "adaround"]
    assert document["steps"][-1]["accuracy"]["correct"] > document["steps"][0]["accuracy"]["correct"]
    assert document["calibration"]["split"] == "train"
    assert document["calibration"]["images"] == 200
    assert document["entropy"]["coded_bytes"] == document["steps"][-1]["coded_bytes"]
    assert {gain["step"] for gain in document["gains"]} == {"prune", "scale", "bias", "rounding"}
    assert all(gain["after"] <= gain["before"] for gain in document["gains"] if gain["step"] != "prune")
    inspected = CliRunner().invoke(app, ["inspect", str(tmp_path / "a.blm"), "--json"])
    assert json.loads(inspected.stdout)["entropy"] == document["entropy"]
    assert math.isclose(document["entropy"]["scales_bytes"], 8)
    text = CliRunner().invoke(app, [*arguments, "--force"]).stdout
    for line in ("What each step did, on 200 images of digits train", "+ adaround", "share of zeros", "Huffman"):
        assert line in text


def test_the_command_refuses_unknown_rules(tmp_path: Path) -> None:
    for option, value in (("--scales", "best"), ("--rounding-search", "up")):
        result = CliRunner().invoke(app, ["quantize", "mlp8k", option, value, "--out", str(tmp_path / "a.blm")])
        assert result.exit_code == 2
        assert f"{option} is '{value}'; expected one of" in result.output
