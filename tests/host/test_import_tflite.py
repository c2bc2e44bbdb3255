"""Import of .tflite files: what LiteRT itself answered to the fixtures, and damaged and unsupported files in number.

The fixtures come from scripts/make-import-fixtures.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bitloop.errors import NetworkError, UnsupportedLayerError, UsageError
from bitloop.network import (
    Architecture,
    AveragePool2D,
    Conv2D,
    Dense,
    Flatten,
    MaxPool2D,
    Network,
    ReLU,
    Softmax,
    load_network,
    tflite_file,
)
from bitloop.network.tflite_import import import_tflite
from bitloop.quantize.apply import quantize
from bitloop.quantize.recipe import parse_recipe
from bitloop.simulate.reference import simulate, softmax

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(params=tflite_file.SCHEMA_MODULES)
def schema(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Read with the schema of either package."""
    name: str = request.param
    pytest.importorskip(name, reason=f"{name} is not installed")
    monkeypatch.setattr(tflite_file, "SCHEMA_MODULES", (name,))
    return name


@pytest.fixture(autouse=True)
def _needs_a_schema() -> None:
    try:
        tflite_file.import_schema()
    except UsageError:
        pytest.skip("neither ai_edge_litert nor tflite is installed")


def answer(network: Network, pixels: np.ndarray) -> np.ndarray:
    images = pixels.reshape(len(pixels), *network.architecture.input_shape)
    return simulate(quantize(network, parse_recipe("fp32")), images)


def fixture(name: str) -> tuple[np.ndarray, np.ndarray]:
    with np.load(FIXTURES / f"{name}.npz", allow_pickle=False) as file:
        return file["pixels"], file["litert"]


def expected_windows(flatten: str = "flatten1") -> tuple[Any, ...]:
    return (
        Conv2D("conv1", 4, (3, 2), (2, 1), "same"),
        ReLU("relu1"),
        MaxPool2D("pool1", (2, 3), (1, 2), "same"),
        Conv2D("conv2", 5, (3, 3), use_bias=False),
        ReLU("relu2"),
        AveragePool2D("pool2", (2, 2), (1, 1), "same"),
        Flatten(flatten),
        Dense("dense1", 6),
        ReLU("relu3"),
        Dense("dense2", 10),
        Softmax("softmax"),
    )


@pytest.mark.usefixtures("schema")
def test_every_layer_and_option_is_read() -> None:
    network = import_tflite(FIXTURES / "windows.tflite")
    assert network.architecture == Architecture("windows", (12, 10, 1), expected_windows())
    assert network.dataset == ""
    assert network.metadata["source"] == "windows.tflite"


@pytest.mark.usefixtures("schema")
@pytest.mark.parametrize(("name", "probabilities"), [("windows", True), ("averaged", True), ("vector", False)])
def test_an_imported_network_answers_as_litert_does(name: str, probabilities: bool) -> None:
    pixels, expected = fixture(name)
    # LiteRT's converter folded the rescaling of "windows" into its first convolution.
    network = load_network(FIXTURES / f"{name}.tflite", pixel_range=255 if name == "windows" else 1)
    logits = answer(network, pixels)
    found = softmax(logits) if probabilities else logits
    assert np.abs(expected).max() > 0.05
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
    assert np.array_equal(found.argmax(axis=1), expected.argmax(axis=1))


def test_a_folded_rescaling_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    folded = import_tflite(FIXTURES / "windows.tflite")
    assert "conv1.weights are all below 0.02" in caplog.text
    assert "pixel_range=255" in caplog.text
    caplog.clear()
    restored = import_tflite(FIXTURES / "windows.tflite", pixel_range=255)
    import_tflite(FIXTURES / "vector.tflite")
    assert caplog.text == ""
    exact = folded.parameters["conv1.weights"].astype(np.float64) * 255
    assert np.array_equal(restored.parameters["conv1.weights"], exact.astype(np.float32))
    for key in ("conv1.biases", "conv2.weights", "dense1.weights"):
        assert np.array_equal(restored.parameters[key], folded.parameters[key])
    with pytest.raises(UsageError, match="up to 1 or up to 255, not 256"):
        import_tflite(FIXTURES / "windows.tflite", pixel_range=256)


def test_a_vector_of_49_is_a_square_image_and_8_by_8_gets_a_channel() -> None:
    assert import_tflite(FIXTURES / "vector.tflite").architecture.input_shape == (7, 7, 1)
    averaged = import_tflite(FIXTURES / "averaged.tflite").architecture
    assert averaged.input_shape == (8, 8, 1)
    assert AveragePool2D("pool1", (6, 6), (6, 6)) in averaged.layers


@pytest.mark.parametrize("name", ["mlp", "mlp8k", "cnn"])
def test_the_zoo_as_tflite_is_the_zoo(name: str) -> None:
    """LiteRT's files of the zoo's networks, which other tests run LiteRT on, hold the committed parameters."""
    imported, committed = import_tflite(FIXTURES / f"{name}.tflite"), load_network(name)
    assert list(imported.parameters) == list(committed.parameters)
    for key, array in committed.parameters.items():
        assert imported.parameters[key].tobytes() == array.tobytes()
    kinds = [type(layer) for layer in committed.architecture.layers]
    assert [type(layer) for layer in imported.architecture.layers] == kinds[:-1]  # without the softmax


@pytest.mark.usefixtures("schema")
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("refused-sigmoid", r"operator LOGISTIC is not supported; supported are Dense, Conv2D"),
        ("refused-int8", r"operator QUANTIZE is not supported"),
        ("refused-float16", r"operator DEQUANTIZE is not supported"),
        ("refused-dilated", r"CONV_2D with a dilation|operator SPACE_TO_BATCH_ND is not supported"),
    ],
)
def test_what_is_not_supported_is_named(name: str, message: str) -> None:
    with pytest.raises(UnsupportedLayerError, match=rf"{name}\.tflite: .*({message})"):
        load_network(FIXTURES / f"{name}.tflite")


@pytest.mark.usefixtures("schema")
def test_a_branch_is_refused() -> None:
    with pytest.raises(NetworkError, match=r"must be a chain|ADD"):
        load_network(FIXTURES / "refused-branch.tflite")


@pytest.mark.parametrize("data", [b"", b"TFL3", b"\x00" * 64, b"\x1c\x00\x00\x00TFL3", b"PK\x03\x04" + bytes(60)])
def test_other_files_are_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.tflite"
    path.write_bytes(data)
    with pytest.raises(NetworkError, match=r"cannot import .*other\.tflite"):
        load_network(path)


def damaged(data: bytes, generator: random.Random) -> Iterator[bytes]:
    """Yield cut files, files with bytes and words changed, and some of each offset made extreme."""
    for _ in range(60):
        yield data[: generator.randrange(len(data))]
    for _ in range(500):
        copy = bytearray(data)
        for _ in range(generator.choice((1, 1, 2, 8))):
            copy[generator.randrange(8, len(copy))] = generator.randrange(256)
        yield bytes(copy)
    for _ in range(300):
        copy = bytearray(data)
        at = generator.randrange(2, len(copy) // 4) * 4
        copy[at : at + 4] = generator.choice((b"\xff" * 4, b"\x00" * 4, b"\xff\xff\xff\x7f", b"\x00\x00\x00\x80"))
        yield bytes(copy)


@pytest.mark.usefixtures("schema")
@pytest.mark.parametrize("name", ["windows", "vector"])
def test_no_damaged_file_crashes_the_reader(name: str, tmp_path: Path) -> None:
    path = tmp_path / "damaged.tflite"
    outcomes = {"read": 0, "refused": 0}
    for data in damaged((FIXTURES / f"{name}.tflite").read_bytes(), random.Random(7)):
        path.write_bytes(data)
        try:
            import_tflite(path)
            outcomes["read"] += 1  # a weight or a name changed
        except NetworkError:
            outcomes["refused"] += 1
    assert outcomes["refused"] > 100
    assert outcomes["read"] > 100


def test_weights_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    network = import_tflite(FIXTURES / "vector.tflite")
    weights = network.parameters["dense2.weights"]
    data = (FIXTURES / "vector.tflite").read_bytes()
    stored = np.ascontiguousarray(weights.T).tobytes()  # (out, in)
    assert data.count(stored) == 1
    at = data.index(stored)
    path = tmp_path / "nan.tflite"
    path.write_bytes(data[:at] + np.float32("nan").tobytes() + data[at + 4 :])
    with pytest.raises(NetworkError, match=r"'dense2\.weights' holds nan at index \(0, 0\)"):
        load_network(path)


def test_the_suffix_decides_and_the_name_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "My Net (1).TFLITE"
    shutil.copy(FIXTURES / "vector.tflite", path)
    assert load_network(path).name == "my_net_1"


def test_a_missing_schema_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tflite_file, "SCHEMA_MODULES", ("no_such_package.schema",))
    with pytest.raises(UsageError, match=r"bitloop\[litert\]"):
        load_network(FIXTURES / "vector.tflite")


# --- graphs made by hand ------------------------------------------------------------------------------------------


def tensor(name: str, shape: tuple[int, ...], values: np.ndarray | None = None, **changes: Any) -> Any:
    data = None if values is None else np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
    fields = {"name": name, "shape": shape, "dtype": "FLOAT32", "data": data, "quantized": False, **changes}
    return tflite_file.TfliteTensor(**fields)


def graph(*, options: dict[str, Any] | None = None, **changes: Any) -> Any:
    """A dense layer of 4 to 2: tensors input, weights, biases, output."""
    made = {
        "tensors": (
            tensor("in", (1, 2, 2), **changes.pop("input", {})),
            tensor("w", (2, 4), np.arange(8, dtype=np.float32)),
            tensor("b", (2,), np.float32([1, 2])),
            tensor("out", (1, 2), **changes.pop("output", {})),
            tensor("255", (), np.float32(255)),
            tensor("in2", (1, 2, 2)),
        ),
        "operators": (
            tflite_file.TfliteOperator(
                changes.pop("name", "FULLY_CONNECTED"),
                changes.pop("operands", (0, 1, 2)),
                (3,),
                {"FusedActivationFunction": "NONE", "WeightsFormat": 0, "KeepNumDims": False, **(options or {})},
            ),
        ),
        "inputs": (0,),
        "outputs": (3,),
        **changes,
    }
    return tflite_file.TfliteGraph(**made)


def take(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, made: Any) -> Network:
    monkeypatch.setattr("bitloop.network.tflite_import.read_tflite", lambda data: made)
    path = tmp_path / "hand.tflite"
    path.write_bytes(b"")
    return import_tflite(path)


def test_a_graph_by_hand(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    network = take(monkeypatch, tmp_path, graph())
    assert network.architecture.layers == (Dense("dense1", 2),)
    assert network.parameters["dense1.weights"].tolist() == [[0, 4], [1, 5], [2, 6], [3, 7]]
    assert network.parameters["dense1.biases"].tolist() == [1, 2]


def test_biases_of_zeros_are_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    made = graph()
    tensors = (*made.tensors[:2], tensor("b", (2,), np.float32([0, 0])), *made.tensors[3:])
    network = take(monkeypatch, tmp_path, tflite_file.TfliteGraph(tensors, made.operators, (0,), (3,)))
    assert network.architecture.layers == (Dense("dense1", 2, use_bias=False),)


@pytest.mark.parametrize(("name", "value", "taken"), [("DIV", 4, True), ("MUL", 4, False), ("ADD", 4, False)])
def test_only_a_rescaling_by_255_is_dropped(
    name: str, value: int, taken: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = graph(operands=(5, 1, 2))
    rescale = tflite_file.TfliteOperator(name, (0, value), (5,), {"FusedActivationFunction": "NONE"})
    made = tflite_file.TfliteGraph(made.tensors, (rescale, *made.operators), (0,), (3,))
    if taken:
        network = take(monkeypatch, tmp_path, made)
        assert network.architecture.layers == (Dense("dense1", 2),)
        assert network.parameters["dense1.weights"][1, 0] == 1
    else:
        with pytest.raises(UnsupportedLayerError, match=f"{name} with anything but a rescaling by 1/255"):
            take(monkeypatch, tmp_path, made)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"input": {"dtype": "UINT8"}}, "the input .* is UINT8; only float32"),
        ({"input": {"quantized": True, "dtype": "INT8"}}, "the input .* is quantized INT8"),
        ({"output": {"dtype": "FLOAT16"}}, "the output of FULLY_CONNECTED .* is FLOAT16"),
        ({"options": {"FusedActivationFunction": "RELU6"}}, "fused activation RELU6"),
        ({"options": {"FusedActivationFunction": "TANH"}}, "fused activation TANH"),
        ({"options": {"WeightsFormat": 1}}, "shuffled weights"),
        ({"options": {"KeepNumDims": True}}, "keeps its axes"),
        ({"name": "CUSTOM (MyOp)"}, r"operator CUSTOM \(MyOp\) is not supported"),
        ({"operands": (0, 5, 2)}, "weights that are no constant"),
        ({"operands": (0, 1, 5)}, "biases that are no constant of 2"),
        ({"operands": (0, 1, 4)}, "biases that are no constant of 2"),
        ({"operands": (5, 1, 2)}, "does not follow"),
        ({"operands": (0,)}, "expected 2 to 3"),
        ({"inputs": (0, 5)}, "2 inputs and 1 outputs"),
        ({"outputs": (5,)}, "output is not its last"),
        ({"operators": ()}, "output is not its last"),
    ],
)
def test_odd_graphs_are_refused(
    changes: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(NetworkError, match=message):
        take(monkeypatch, tmp_path, graph(**changes))
