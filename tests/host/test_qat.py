"""Fake quantization against quantize_tensor, Keras's own gradients and a plain model; then whole trainings."""

from __future__ import annotations

import importlib.util
import json
import os
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from typer.testing import CliRunner

from bitloop.cli.app import app
from bitloop.cli.commands.train import recipe_of
from bitloop.data import Split
from bitloop.data.digits import load_digits
from bitloop.errors import FormatError, NetworkError, UsageError
from bitloop.network import Architecture, Conv2D, Dense, MaxPool2D, Network, ReLU, zoo_architecture, zoo_entry
from bitloop.network.export import build_keras, to_keras
from bitloop.network.keras_runtime import import_keras_package
from bitloop.network.settings import TrainingSettings
from bitloop.network.train import TrainingProgress
from bitloop.numeric.codec import decode, is_finite_code
from bitloop.qat import fake_quantize, find_start, train_quantized
from bitloop.qat.layers import FakeQuantizer, straight_through
from bitloop.quantize.apply import quantize, quantize_tensor
from bitloop.quantize.recipe import parse_recipe
from bitloop.quantize.spec import TensorSpec, parse_tensor_spec
from bitloop.simulate.reference import labels, simulate
from bitloop.spec import ScaleKind

F32 = npt.NDArray[np.float32]

needs_keras = pytest.mark.skipif(
    os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow"
    or any(importlib.util.find_spec(name) is None for name in ("keras", "tensorflow")),
    reason="Keras 3 on TensorFlow is not installed (extra 'tensorflow')",
)
needs_digits = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed (extra 'digits')"
)


@st.composite
def specs(draw: st.DrawFn) -> TensorSpec:
    """Return any spec that can be trained with and cannot overflow to infinity."""
    sign = draw(st.sampled_from(["", "u"]))
    kind = draw(st.sampled_from(["float", "int", "fixed", "ternary", "binary", "fp32", "fp16", "bf16"]))
    tokens = [draw(st.sampled_from(["none", "pow2", "fp32"]))]
    if kind == "float":
        top = draw(st.sampled_from(["", "fn", "finite"]))
        name = f"{sign}e{draw(st.integers(2, 5))}m{draw(st.integers(0, 6))}{top}{draw(st.sampled_from(['', 'nosub']))}"
    elif kind == "int":
        name = f"{sign}int{draw(st.integers(2, 16))}"
    elif kind == "fixed":
        name = f"{sign}q{draw(st.integers(1, 4))}.{draw(st.integers(1, 8))}"
    else:
        name = kind
    if kind in ("int", "fixed") and draw(st.booleans()):
        tokens.append("affine")
    if tokens != ["none"] and draw(st.booleans()):
        tokens.append("channel")
    tokens.append(draw(st.sampled_from(["nearest", "toward_zero", "nearest_away", "away"])))
    return parse_tensor_spec(":".join([name, *tokens]))


WEIGHTS = hnp.arrays(
    np.float32,
    st.tuples(st.integers(1, 6), st.integers(1, 4)),
    elements=st.one_of(
        st.floats(-4, 4, width=32),
        st.sampled_from([0.0, -0.0, 0.5, -0.5, 1.5, 0.125, -0.1875, 1e-30, -3e-39, 1e30]),
    ),
)


@given(WEIGHTS, specs())
def test_fake_quantized_values_are_those_of_quantization(values: F32, spec: TensorSpec) -> None:
    try:
        tensor = quantize_tensor("a.weights", values, spec)
    except FormatError:  # no scale serves
        with pytest.raises(FormatError):
            fake_quantize(values, spec)
        return
    fake = fake_quantize(values, spec)
    assert fake.values.dtype == fake.inside.dtype == np.float32
    assert fake.values.view(np.uint32).tolist() == tensor.values().view(np.uint32).tolist()


@given(WEIGHTS, specs().filter(lambda spec: spec.format.width_bits <= 10))
def test_the_gradient_passes_where_the_format_reaches(values: F32, spec: TensorSpec) -> None:
    try:
        tensor = quantize_tensor("a.weights", values, spec)
    except FormatError:
        return
    fake = fake_quantize(values, spec)
    codes = np.arange(1 << spec.format.width_bits, dtype=np.uint32)
    codes = codes[is_finite_code(codes, spec.format)]
    for (row, channel), value in np.ndenumerate(values):
        group = channel if tensor.groups > 1 else 0
        zero = 0 if tensor.zero_points is None else int(tensor.zero_points[group])
        scale = Fraction(1) if tensor.scales is None else Fraction(float(tensor.scales[group]))
        elements = decode(codes, spec.format, zero)
        scaled = float(Fraction(float(value)) / scale)
        assert fake.inside[row, channel] == (float(elements.min()) <= scaled <= float(elements.max()))


def test_fake_quantization_by_hand() -> None:
    fake = fake_quantize(np.array([-1.2, -0.9, 0.3, 0.8, 0.99], np.float32), parse_tensor_spec("q0.2"))
    # Steps of 1/4 from -1 to 3/4; 0.3 is nearest to 1/4.
    assert fake.values.tolist() == [-1.0, -1.0, 0.25, 0.75, 0.75]
    assert fake.inside.tolist() == [0, 1, 1, 0, 0]
    fake = fake_quantize(np.array([3.0, -2.0, 0.5, 0.0], np.float32), parse_tensor_spec("ternary"))
    # k = 2 of [3, 2, 0.5]: 5² / 2 = 12.5 beats 9 and 5.5² / 3; the scale is 2.5.
    assert fake.values.tolist() == [2.5, -2.5, 0.0, 0.0]
    assert fake.inside.tolist() == [0, 1, 1, 1]


@pytest.mark.parametrize(
    ("weights", "biases", "overrides"),
    [("int4:stochastic", "fp32", []), ("int4", "int8:stochastic", []), ("int4", "fp32", ["a.weights=int4:stochastic"])],
)
def test_stochastic_rounding_is_refused(weights: str, biases: str, overrides: list[str]) -> None:
    with pytest.raises(FormatError, match=r"cannot be trained with int.:stochastic.*leave out 'stochastic'"):
        FakeQuantizer(parse_recipe(weights, biases, overrides))


@pytest.mark.parametrize("spec", ["int4:channel:output", "int4:adaround", "e3m1:pow2:quantease"])
def test_what_takes_calibration_images_is_refused(spec: str) -> None:
    with pytest.raises(FormatError, match=r"cannot be trained with .*, which takes calibration images"):
        FakeQuantizer(parse_recipe(spec, "fp32"))


@pytest.mark.parametrize("spec", ["int4:fp32:mse", "e3m1:pow2:mse", "int4:channel:prune=0.3", "uint5:affine:mse"])
def test_scales_by_error_and_pruning_are_trained_with_as_they_are(spec: str) -> None:
    values = np.random.default_rng(3).standard_normal((40, 6)).astype(np.float32)
    parsed = parse_tensor_spec(spec)
    expected = quantize_tensor("w", values, parsed).values()
    assert fake_quantize(values, parsed).values.tobytes() == expected.tobytes()


def test_overflow_to_infinity_is_refused() -> None:
    with pytest.raises(FormatError, match="overflow to infinity in e2m1"):
        fake_quantize(np.array([100.0], np.float32), parse_tensor_spec("e2m1:inf"))


@needs_keras
def test_the_straight_through_estimator() -> None:
    keras = import_keras_package()
    import tensorflow

    latent = keras.Variable(np.array([0.3, -0.1, 7.0, 1e30], np.float32))
    values = np.array([0.1, -0.0, 5.0, 3.5], np.float32)
    inside = np.array([1, 1, 0, 1], np.float32)
    with tensorflow.GradientTape() as tape:
        out = straight_through(keras, latent.value, keras.ops.array(values), keras.ops.array(inside))
        total = keras.ops.sum(out * np.array([2, 3, 4, 5], np.float32))
    assert keras.ops.convert_to_numpy(out).view(np.uint32).tolist() == values.view(np.uint32).tolist()
    assert keras.ops.convert_to_numpy(tape.gradient(total, latent.value)).tolist() == [2, 3, 0, 5]


SMALL = Architecture(
    "small",
    (8, 8, 1),
    (
        Conv2D("conv1", 4, (3, 3), use_bias=False),
        ReLU("relu1"),
        MaxPool2D("pool1"),
        Conv2D("conv2", 3, (2, 2)),
        ReLU("relu2"),
        Dense("dense1", 10),
    ),
)


@needs_keras
@pytest.mark.parametrize("spec", ["q0.2", "int3:channel", "e2m1:pow2", "ternary:channel", "uint4", "int4:affine"])
def test_a_step_is_that_of_the_quantized_network(spec: str) -> None:
    """A plain Keras model that holds the quantized parameters gives the outputs and the gradients."""
    keras = import_keras_package()
    generator = np.random.default_rng(5)
    parameters = {
        name: generator.normal(0, 0.6, shape).astype(np.float32) for name, shape in SMALL.parameter_shapes().items()
    }
    network, recipe = Network(SMALL, parameters), parse_recipe(spec, "q1.3")
    plain = to_keras(Network(SMALL, {n: t.values() for n, t in quantize(network, recipe).tensors.items()}))
    quantizer = FakeQuantizer(recipe)
    wrapped = quantizer.wrap(keras, to_keras(network))
    pixels = generator.random((16, 8, 8, 1), dtype=np.float32)
    assert np.array_equal(plain.predict_on_batch(pixels), wrapped.predict_on_batch(pixels))

    targets = np.eye(10, dtype=np.float32)[generator.integers(0, 10, 16)]
    for model in (plain, wrapped):
        model.compile(optimizer=keras.optimizers.SGD(1.0), loss=keras.losses.CategoricalCrossentropy(from_logits=True))
        model.train_on_batch(pixels, targets)
    blocked = 0
    for layer in ("conv1", "conv2", "dense1"):
        pairs = zip(
            plain.get_layer(layer).trainable_variables, wrapped.get_layer(layer).trainable_variables, strict=True
        )
        for key, (there, here) in zip(("weights", "biases"), pairs, strict=False):
            name = f"{layer}.{key}"
            before = parameters[name]
            fake = fake_quantize(before, recipe.spec_for(name))
            step = (keras.ops.convert_to_numpy(there) - fake.values) * fake.inside
            moved = keras.ops.convert_to_numpy(here) - before
            np.testing.assert_allclose(moved, step, rtol=1e-3, atol=1e-6)
            assert (moved[fake.inside == 0] == 0).all()
            blocked += int((fake.inside == 0).sum())
    assert (blocked > 0) == (spec in ("q0.2", "uint4", "int4:affine", "ternary:channel"))

    quantizer.refresh()
    latent = [np.asarray(v) for layer in wrapped.layers for v in layer.trainable_variables]
    moved_network = Network(SMALL, dict(zip(SMALL.parameter_shapes(), latent, strict=True)))
    again = to_keras(Network(SMALL, {n: t.values() for n, t in quantize(moved_network, recipe).tensors.items()}))
    assert np.array_equal(again.predict_on_batch(pixels), wrapped.predict_on_batch(pixels))


@needs_keras
def test_an_override_of_no_tensor_and_divergence_are_named() -> None:
    keras = import_keras_package()
    with pytest.raises(FormatError, match=r"no tensor 'conv1\.biases'"):
        FakeQuantizer(parse_recipe("int4", None, ["conv1.biases=int8"])).wrap(keras, build_keras(SMALL))
    quantizer = FakeQuantizer(parse_recipe("int4"))
    wrapped = quantizer.wrap(keras, build_keras(SMALL))
    wrapped.get_layer("dense1").bias.assign(np.full(10, np.nan, np.float32))
    with pytest.raises(NetworkError, match=r"diverged: dense1\.biases is not finite"):
        quantizer.refresh()


@needs_keras
@needs_digits
@pytest.mark.parametrize("weights", ["ternary", "e3m0:pow2"])
def test_the_accuracy_is_that_of_the_quantized_network(weights: str, tmp_path: Path) -> None:
    """Metadata, quantization and exact simulation agree on 400 images, through a file."""
    digits = load_digits()
    recipe = parse_recipe(weights)
    name, start = find_start("mlp8k-digits", None)
    assert start is not None
    seen: list[TrainingProgress] = []
    network = train_quantized(
        zoo_architecture("mlp8k-digits"),
        digits,
        recipe,
        start=start,
        start_name=name,
        settings=TrainingSettings(seed=2, epochs=4, batch_size=32, learning_rate=0.003, augment=1),
        progress=seen.append,
    )
    path = tmp_path / "network.npz"
    network.save_npz(path)
    loaded = Network.load_npz(path)
    model = quantize(loaded, recipe)
    metadata: dict[str, Any] = dict(loaded.metadata)
    for split, key in ((Split.SEARCH, "search_accuracy"), (Split.CONFIRM, "confirm_accuracy")):
        images = digits.split(split)
        assert metadata[key] == np.mean(labels(simulate(model, images.pixels)) == images.labels)
    images = digits.split(Split.SEARCH)
    before = simulate(quantize(start, recipe), images.pixels)
    assert metadata["start_search_accuracy"] == np.mean(labels(before) == images.labels)
    epochs = [state.search_accuracy for state in seen if state.search_accuracy is not None]
    assert metadata["search_accuracy"] == max([metadata["start_search_accuracy"], *epochs])
    assert metadata["search_accuracy"] > metadata["start_search_accuracy"]
    assert metadata["qat"] == recipe.to_dict()
    assert metadata["start"]["network"] == "mlp8k-digits"
    biases = "fp32" if weights == "ternary" else weights
    assert metadata["command"].endswith(f"--augment 1 --qat {weights} --qat-biases {biases} --from mlp8k-digits")


@needs_keras
@needs_digits
def test_a_start_that_is_best_is_kept() -> None:
    """With a learning rate too small to change a parameter, no epoch is better than the start."""
    name, start = find_start("mlp8k-digits", None)
    assert start is not None
    network = train_quantized(
        start.architecture,
        load_digits(),
        parse_recipe("int8"),
        start=start,
        start_name=name,
        settings=TrainingSettings(epochs=1, batch_size=32, learning_rate=1e-30),
    )
    assert network.metadata["best_epoch"] == 0
    for key, array in start.parameters.items():
        assert network.parameters[key].tobytes() == array.tobytes()


@needs_digits
def test_a_start_of_other_layers_is_refused() -> None:
    with pytest.raises(NetworkError, match="training of 'mlp' cannot start from 'mlp8k', whose layers are others"):
        train_quantized(
            zoo_architecture("mlp"), load_digits(), parse_recipe("int4"), start=find_start("mlp8k", None)[1]
        )


def test_what_training_starts_from() -> None:
    assert find_start("mlp", "scratch") == ("scratch", None)
    assert find_start("bitopt2018", None) == ("scratch", None)
    assert find_start("mlp", None)[0] == "mlp"
    with pytest.raises(NetworkError, match="no file"):
        find_start("mlp", "none.npz")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--set", "dense1.weights=int4"], 2, "go with --qat"),
        (["--from", "mlp"], 2, "go with --qat"),
        (["--qat", "int99"], 5, "int99"),
        (["--qat", "int4", "--from", "nosuch"], 5, "nosuch"),
    ],
)
def test_the_command_refuses(arguments: list[str], code: int, message: str, tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", "mlp", "--out", str(tmp_path / "a.npz"), *arguments])
    assert message in result.stderr
    assert result.exit_code == code
    assert list(tmp_path.iterdir()) == []


def test_the_command_takes_the_zoos_recipe_unless_told_otherwise() -> None:
    own = parse_recipe("ternary:channel", "e4m3", ["conv1.weights=int4:channel"])
    entry = zoo_entry("cnn6k")
    assert recipe_of(entry, None, None, (), None) == (own, "scratch")
    assert recipe_of(entry, None, None, (), "a.npz") == (own, "a.npz")
    assert recipe_of(entry, "none", None, (), None) == (None, None)
    assert recipe_of(entry, "int4", "int8", ["conv1.weights=int2"], None) == (
        parse_recipe("int4", "int8", ["conv1.weights=int2"]),
        None,
    )
    assert recipe_of(zoo_entry("mlp"), None, None, (), None) == (None, None)
    for biases, overrides, start in (("int8", (), None), (None, ["conv1.weights=int4"], None), (None, (), "mlp")):
        with pytest.raises(UsageError, match="go with --qat"):
            recipe_of(entry, "none", biases, overrides, start)


@needs_keras
@needs_digits
def test_the_command_trains(tmp_path: Path) -> None:
    out = tmp_path / "a.npz"
    arguments = ["train", "mlp8k-digits", "--qat", "int3", "--set", "dense2.weights=int5", "--from", "scratch"]
    result = CliRunner().invoke(app, [*arguments, "--epochs", "1", "--out", str(out), "--json"])
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["qat"] == {"weights": "int3", "biases": "fp32", "overrides": {"dense2.weights": "int5"}}
    assert document["start"] == {"network": "scratch", "sha256": None}
    assert "start_search_accuracy" not in document
    assert Network.load_npz(out).metadata["command"] == document["command"]


def test_the_default_scale_matters_to_the_mask() -> None:
    """Covering scales clip nothing, so every gradient passes."""
    spec = parse_tensor_spec("int4:channel")
    assert spec.scale is ScaleKind.FP32
    values = np.random.default_rng(1).normal(0, 3, (50, 4)).astype(np.float32)
    assert (fake_quantize(values, spec).inside == 1).all()
