"""What the simulation takes, refuses and keeps: batches, layers, errors, independence, LiteRT as a witness."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import bitloop
from bitloop.errors import DisagreementError, NetworkError, UsageError
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
from bitloop.network.network import Network
from bitloop.quantize.apply import quantize
from bitloop.quantize.recipe import parse_recipe
from bitloop.simulate import activations, activations_upto, reference, simulate
from bitloop.simulate.litert import run_tflite

WITNESS = Path(__file__).parents[1] / "vectors" / "windows.tflite"
ARCHITECTURE = Architecture(
    "windows",
    (11, 10, 1),
    (
        Conv2D("conv1", 3, (3, 2), (2, 1), "same"),
        ReLU("relu1"),
        AveragePool2D("pool1", (3, 3), (2, 2), "same"),
        Conv2D("conv2", 4, (2, 3), (1, 1), "same"),
        ReLU("relu2"),
        MaxPool2D("pool2", (2, 3), (2, 2), "same"),
        Conv2D("conv3", 5, (2, 2), (1, 1), "valid"),
        Flatten("flatten"),
        Dense("dense1", 6),
        Softmax("softmax"),
    ),
)


def numbers(shape: tuple[int, ...]) -> np.ndarray:
    """Multiples of 1/16 from -15/16 to 15/16 by a rule, not by a library's generator."""
    index = np.arange(int(np.prod(shape)), dtype=np.int64)
    return ((index * index * 7919 + index * 104729) % 31 - 15).astype(np.float32).reshape(shape) / np.float32(16)


def network() -> Network:
    """The network of tests/vectors/windows.tflite: `to_tflite_bytes(network(), softmax=False)` writes it."""
    values = {name: numbers(shape) for name, shape in ARCHITECTURE.parameter_shapes().items()}
    return Network(ARCHITECTURE, values, dataset="", metadata={})


@pytest.fixture(scope="module")
def model():
    return quantize(network(), parse_recipe("fp32"))


@pytest.fixture(scope="module")
def pixels():
    index = np.arange(40 * 110, dtype=np.int64)
    values = (index * index * 31 + index * 17) % 257
    return np.where(values % 3 == 0, 0, values % 256).astype(np.uint8).reshape(40, 11, 10, 1)


def test_litert_computes_the_same_network(model, pixels):
    """Strides, SAME and pooling as TensorFlow has them. LiteRT is not bound to our order of sums: 1e-5 is allowed."""
    pytest.importorskip("ai_edge_litert", reason="the extra 'litert' is not installed: no outside oracle")
    expected = run_tflite(WITNESS, pixels)
    found = simulate(model, pixels)
    assert found.shape == (40, 6)
    assert np.ptp(expected) > 1
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert (run_tflite(WITNESS.read_bytes(), pixels[:2]) == expected[:2]).all()


@pytest.mark.parametrize(
    ("model_file", "message"),
    [
        (b"", "cannot read the model"),
        (b"TFL3" * 50, "cannot read the model"),
        (Path("no/such.tflite"), "cannot be read"),
    ],
)
def test_litert_refuses_what_is_no_model(model_file, message, pixels):
    pytest.importorskip("ai_edge_litert", reason="the extra 'litert' is not installed: no outside oracle")
    with pytest.raises(NetworkError, match=message):
        run_tflite(model_file, pixels)


def test_litert_refuses_images_of_another_size(pixels):
    pytest.importorskip("ai_edge_litert", reason="the extra 'litert' is not installed: no outside oracle")
    with pytest.raises(UsageError, match=r"\[10, 10, 1\] pixels do not fit"):
        run_tflite(WITNESS, pixels[:, 1:])
    with pytest.raises(UsageError, match="expected uint8"):
        run_tflite(WITNESS, pixels.astype(np.float32))


def test_without_litert_the_error_says_what_to_install(pixels, monkeypatch):
    from bitloop.simulate import litert

    monkeypatch.setattr(litert, "_PACKAGES", ("no_such_package_of_litert.interpreter",))
    with pytest.raises(UsageError, match=r"not installed .*pip install 'bitloop\[litert\]'"):
        run_tflite(WITNESS, pixels)


@pytest.mark.parametrize("batch", [1, 7, 39, 40, 1000, None])
def test_the_batch_changes_no_bit(model, pixels, batch):
    expected = np.concatenate([simulate(model, pixels[i : i + 1]) for i in range(len(pixels))])
    found = simulate(model, pixels, batch=batch)
    assert (found.view(np.uint32) == expected.view(np.uint32)).all()


def test_tiles_of_outputs_change_no_bit(pixels, monkeypatch):
    """A dense layer wider than a tile is computed in several."""
    wide = Architecture("wide", (11, 10, 1), (Dense("d", 300),))
    values = {name: numbers(shape) for name, shape in wide.parameter_shapes().items()}
    model = quantize(Network(wide, values, dataset="", metadata={}), parse_recipe("fp32"))
    whole = simulate(model, pixels)
    monkeypatch.setattr(reference.kernels, "TILE_BYTES", 4 * 40 * 7)
    assert (simulate(model, pixels).view(np.uint32) == whole.view(np.uint32)).all()


def test_layers_are_given_by_name_and_in_order(model, pixels):
    found = activations(model, pixels, batch=16)
    assert list(found) == [layer.name for layer in ARCHITECTURE.layers[:-1]]
    for (name, values), shape in zip(found.items(), ARCHITECTURE.output_shapes(), strict=False):
        assert values.shape == (40, *shape)
        assert values.dtype == np.float32
        assert (activations_upto(model, pixels, name) == values).all()
    assert (found["dense1"] == simulate(model, pixels)).all()
    assert (found["flatten"] == found["conv3"].reshape(40, -1)).all()
    with pytest.raises(UsageError, match=r"no layer 'softmax'; its layers are conv1, .*dense1"):
        activations_upto(model, pixels, "softmax")


def test_a_map_as_the_last_layer_is_flattened_in_the_order_h_w_c(pixels):
    architecture = Architecture("map", (11, 10, 1), (Conv2D("conv", 2, (3, 3)),))
    values = {name: numbers(shape) for name, shape in architecture.parameter_shapes().items()}
    model = quantize(Network(architecture, values, dataset="", metadata={}), parse_recipe("fp32"))
    logits = simulate(model, pixels)
    assert logits.shape == (40, 9 * 8 * 2)
    assert (logits.reshape(40, 9, 8, 2) == activations(model, pixels)["conv"]).all()


def test_no_images_give_no_logits(model, pixels):
    assert simulate(model, pixels[:0]).shape == (0, 6)
    assert activations(model, pixels[:0])["pool1"].shape == (0, 3, 5, 3)
    assert activations_upto(model, pixels[:0], "pool1").shape == (0, 3, 5, 3)


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros((2, 11, 10, 1), np.float32),
        np.zeros((2, 10, 11, 1), np.uint8),
        np.zeros((11, 10, 1), np.uint8),
        np.zeros((2, 11, 10), np.uint8),
    ],
)
def test_pixels_that_the_network_does_not_take(model, bad):
    with pytest.raises(UsageError, match=r"but the network takes uint8 \[N, 11, 10, 1\]"):
        simulate(model, bad)


def test_a_batch_of_nothing_is_refused(model, pixels):
    with pytest.raises(UsageError, match="a batch of 0 images"):
        simulate(model, pixels, batch=0)


def test_numpy_keeps_subnormals():
    """Elementwise operations, vectorised and not, at the places where a flush would show."""
    for count in (1, 3, 64):
        least = np.full(count, 2.0**-149, np.float32)
        smallest = np.full(count, 2.0**-126, np.float32)
        assert (np.multiply(smallest, np.float32(0.5)).view(np.uint32) == 0x00400000).all()
        assert (np.add(least, least).view(np.uint32) == 2).all()
        assert (np.divide(smallest, np.float32(4)).view(np.uint32) == 0x00200000).all()


def test_a_process_that_flushes_subnormals_is_refused(model, pixels, monkeypatch):
    class Flushing:
        """numpy, as it is in a thread where a library has set flush-to-zero."""

        def __getattr__(self, name):
            return getattr(np, name)

        @staticmethod
        def multiply(a, b):
            product = np.multiply(a, b)
            return np.where(np.abs(product) < 2.0**-126, np.float32(0), product)

    monkeypatch.setattr(reference, "np", Flushing())
    with pytest.raises(DisagreementError, match="flushes subnormal"):
        simulate(model, pixels)


def test_overflow_is_a_result_not_a_warning(recwarn):
    architecture = Architecture("loud", (1, 1, 1), (Dense("d", 2), Dense("e", 1), ReLU("r")))
    huge = {name: np.full(shape, 3e38, np.float32) for name, shape in architecture.parameter_shapes().items()}
    model = quantize(Network(architecture, huge, dataset="", metadata={}), parse_recipe("fp32"))
    assert np.isposinf(simulate(model, np.full((1, 1, 1, 1), 255, np.uint8))).all()
    assert not recwarn.list


FORBIDDEN = ("bitloop.native", "bitloop.link", "bitloop.plan", "bitloop.bench", "ctypes", "serial")


def test_the_simulation_imports_neither_core_nor_link():
    """In a process of its own, as pytest has imported everything here; numpy itself may load ctypes."""
    root = str(Path(bitloop.__file__).parents[1])
    program = (
        f"import sys; sys.path.insert(0, {root!r})\n"
        "import bitloop.simulate, bitloop.simulate.litert\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    loaded = done.stdout.split()
    assert "bitloop.simulate.reference" in loaded
    assert not [name for name in loaded if name.startswith(FORBIDDEN[:4])]


def test_no_function_of_the_simulation_imports_them_later():
    sources = sorted(Path(reference.__file__).parent.glob("*.py"))
    assert len(sources) == 7
    for source in sources:
        for node in ast.walk(ast.parse(source.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            if isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{source.name}: relative import"
                names = [f"{node.module}.{name}" for name in names]
            assert not [name for name in names if name.startswith(FORBIDDEN)], f"{source.name} imports {names}"
