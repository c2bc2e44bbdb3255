"""Import of .keras files, and networks as Keras models: needs Keras 3, so a CI without TensorFlow skips most of it."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
import zipfile
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
)
from bitloop.network.chain import ChainBuilder
from bitloop.network.export import to_keras, to_tflite_bytes
from bitloop.quantize.apply import quantize
from bitloop.quantize.recipe import parse_recipe
from bitloop.simulate.reference import simulate, softmax

FIXTURES = Path(__file__).parent / "fixtures"

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
needs_keras = pytest.mark.skipif(
    importlib.util.find_spec("keras") is None or importlib.util.find_spec(os.environ["KERAS_BACKEND"]) is None,
    reason="Keras 3 with a backend is not installed (extra 'tensorflow')",
)


def answer(network: Network, pixels: np.ndarray) -> np.ndarray:
    images = pixels.reshape(len(pixels), *network.architecture.input_shape)
    return simulate(quantize(network, parse_recipe("fp32")), images)


@needs_keras
def test_every_layer_and_option_is_read() -> None:
    network = load_network(FIXTURES / "windows.keras")
    assert network.architecture == Architecture(
        "windows",
        (12, 10, 1),
        (
            Conv2D("first_conv", 4, (3, 2), (2, 1), "same"),
            ReLU("first_conv_relu"),
            MaxPool2D("max", (2, 3), (1, 2), "same"),
            Conv2D("conv_b", 5, (3, 3), use_bias=False),
            ReLU("relu"),
            AveragePool2D("average", (2, 2), (1, 1), "same"),
            Flatten("flatten"),
            Dense("dense", 6),
            ReLU("dense_relu"),
            Dense("logits", 10),
            Softmax("softmax"),
        ),
    )


@needs_keras
@pytest.mark.parametrize(("name", "probabilities"), [("windows", True), ("averaged", True), ("vector", False)])
def test_an_imported_network_answers_as_keras_did(name: str, probabilities: bool) -> None:
    with np.load(FIXTURES / f"{name}.npz", allow_pickle=False) as file:
        pixels, expected = file["pixels"], file["keras"]
    logits = answer(load_network(FIXTURES / f"{name}.keras"), pixels)
    found = softmax(logits) if probabilities else logits
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)
    assert np.array_equal(found.argmax(axis=1), expected.argmax(axis=1))


@needs_keras
def test_batch_normalization_is_folded() -> None:
    network = load_network(FIXTURES / "averaged.keras")
    assert network.architecture.layers[0] == Conv2D("conv", 6, (3, 3))  # with the biases that the folding gave it
    assert [layer.kind for layer in network.architecture.layers] == [
        "conv2d",
        "relu",
        "average_pool",
        "flatten",
        "dense",
        "softmax",
    ]


@pytest.mark.parametrize("biased", [True, False])
def test_folding_by_hand(biased: bool) -> None:
    builder = ChainBuilder((2,))
    weights = np.array([[1, 2], [3, 4]], np.float32)
    builder.dense("d", weights, np.array([5, 6], np.float32) if biased else None)
    builder.fold_affine("norm", np.array([2.0, -0.5]), np.array([1.0, 10.0]))
    network = builder.build("folded", {}, pixel_range=1)
    assert network.architecture.layers == (Dense("d", 2),)
    # (x w + b) f + o = x (w f) + (b f + o)
    assert network.parameters["d.weights"].tolist() == [[2, -1], [6, -2]]
    assert network.parameters["d.biases"].tolist() == ([11, 7] if biased else [1, 10])


@needs_keras
@pytest.mark.parametrize("name", ["windows", "averaged", "vector"])
def test_keras_and_tflite_give_the_same_network(name: str) -> None:
    pytest.importorskip("flatbuffers", reason="no package with the schema of .tflite is installed")
    left = load_network(FIXTURES / f"{name}.keras")
    right = load_network(FIXTURES / f"{name}.tflite", pixel_range=255 if name == "windows" else 1)
    for mine, theirs in zip(left.parameters.values(), right.parameters.values(), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=3e-6, atol=1e-7)  # folding rounds differently


@needs_keras
def test_a_model_of_bytes_without_a_rescaling_is_brought_to_one(tmp_path: Path) -> None:
    import keras

    built = model(keras.layers.Flatten(), keras.layers.Dense(3), shape=(4, 4, 1))
    built.layers[-1].set_weights([np.full((16, 3), 0.5, np.float32), np.ones(3, np.float32)])
    built.save(tmp_path / "bytes.keras")
    network = load_network(tmp_path / "bytes.keras", pixel_range=255)
    pixels = np.arange(32, dtype=np.uint8).reshape(2, 4, 4, 1)
    np.testing.assert_allclose(answer(network, pixels)[:, 0], 1 + 0.5 * pixels.reshape(2, -1).sum(axis=1), rtol=1e-6)


@needs_keras
def test_a_model_that_rescales_itself_is_left_as_it_is() -> None:
    one, bytes_ = (load_network(FIXTURES / "windows.keras", pixel_range=value) for value in (1, 255))
    for key, array in one.parameters.items():
        assert np.array_equal(array, bytes_.parameters[key])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("refused-sigmoid", r"'squash' \(Dense\) with activation='sigmoid' is not supported; supported are Dense"),
        ("refused-dilated", r"'holes' \(Conv2D\) with dilation_rate=\(2, 2\)"),
    ],
)
@needs_keras
def test_an_unsupported_option_is_named(name: str, message: str) -> None:
    with pytest.raises(UnsupportedLayerError, match=message):
        load_network(FIXTURES / f"{name}.keras")


def test_an_unknown_layer_is_named_before_keras_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(UnsupportedLayerError, match=r"layer 'sum' \(Add\) is not supported"):
        load_network(FIXTURES / "refused-branch.keras")


def test_a_missing_keras_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "keras", None)
    with pytest.raises(UsageError, match=r"needs Keras 3 .*bitloop\[tensorflow\]"):
        load_network(FIXTURES / "vector.keras")


def rewrite(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(FIXTURES / "vector.keras") as old, zipfile.ZipFile(path, "w") as new:
        for info in old.infolist():
            data = members.get(info.filename.replace(".", "_"), old.read(info))
            if data:
                new.writestr(info.filename, data)
    return path


@pytest.mark.parametrize(
    "data",
    [b"", b"no zip", b"PK\x03\x04" + bytes(40), b"\x89HDF\r\n\x1a\n" + bytes(64)],
    ids=["empty", "text", "zip", "h5"],
)
def test_other_files_are_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "other.keras"
    path.write_bytes(data)
    with pytest.raises(NetworkError, match=r"other\.keras is no \.keras file"):
        load_network(path)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"", "is no .keras file"),
        (b"{", "is no .keras file"),
        (b"[]", "is no .keras file"),
        (b"[" * 100_000, "is no .keras file"),
        (b'{"class_name": "Sequential", "config": {"layers": 3}}', "is no .keras file"),
        (b'{"class_name": "Evil", "config": {"layers": []}}', "holds a Evil"),
        (b'{"class_name": "Sequential", "config": {"layers": [{"class_name": "Lambda", "config": {}}]}}', "Lambda"),
    ],
)
def test_a_damaged_config_is_refused(config: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(NetworkError, match=message):
        load_network(rewrite(tmp_path / "damaged.keras", config_json=config))


@needs_keras
def test_damaged_weights_are_refused(tmp_path: Path) -> None:
    path = rewrite(tmp_path / "damaged.keras", model_weights_h5=b"\x89HDF\r\n\x1a\n" + bytes(100))
    with pytest.raises(NetworkError, match=r"Keras cannot load .*damaged\.keras"):
        load_network(path)
    data = (FIXTURES / "vector.keras").read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(NetworkError):
        load_network(path)


@needs_keras
def test_a_config_with_wrong_values_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(FIXTURES / "vector.keras") as file:
        config = json.loads(file.read("config.json"))
    config["config"]["layers"][1]["config"]["units"] = -3
    path = rewrite(tmp_path / "damaged.keras", config_json=json.dumps(config).encode())
    with pytest.raises(NetworkError, match="Keras cannot load"):
        load_network(path)


def model(*layers: Any, shape: tuple[int, ...]) -> Any:
    import keras

    return keras.Sequential([keras.layers.Input(shape), *layers])


def odd_models() -> list[tuple[str, Any, str, type[NetworkError]]]:
    """Models that are refused: name, a function from keras.layers to a model, what the message says, which error."""
    return [
        ("rescaled", lambda k: model(k.Rescaling(1 / 127), shape=(4, 4, 1)), "scale=", UnsupportedLayerError),
        ("offset", lambda k: model(k.Rescaling(1 / 255, 0.5), shape=(4, 4, 1)), "offset=", UnsupportedLayerError),
        (
            "late",
            lambda k: model(k.ReLU(), k.Rescaling(1 / 255), shape=(4, 4, 1)),
            "at the front",
            UnsupportedLayerError,
        ),
        ("dense on a map", lambda k: model(k.Dense(3), shape=(4, 4, 1)), "put a Flatten", UnsupportedLayerError),
        ("relu6", lambda k: model(k.ReLU(6.0), shape=(4, 4, 1)), "max_value=6.0", UnsupportedLayerError),
        ("leaky", lambda k: model(k.ReLU(negative_slope=0.1), shape=(4,)), "negative_slope", UnsupportedLayerError),
        ("groups", lambda k: model(k.Conv2D(2, 3, groups=2), shape=(4, 4, 2)), "groups=2", UnsupportedLayerError),
        ("reshape", lambda k: model(k.ReLU(), k.Reshape((2, 8, 1)), shape=(4, 4, 1)), "reshapes", NetworkError),
        (
            "two softmaxes",
            lambda k: model(k.Softmax(), k.Softmax(), shape=(4,)),
            "only supported as",
            UnsupportedLayerError,
        ),
        ("norm first", lambda k: model(k.BatchNormalization(), shape=(4,)), "can only be folded", NetworkError),
        (
            "half",
            lambda k: model(k.Dense(3, dtype="mixed_bfloat16"), shape=(4,)),
            "computes in bfloat16",
            UnsupportedLayerError,
        ),
        ("unknown size", lambda k: model(k.ReLU(), shape=(None, 4, 1)), "must be known", NetworkError),
    ]


@needs_keras
@pytest.mark.parametrize(("make", "message", "error"), [pytest.param(*case, id=name) for name, *case in odd_models()])
def test_odd_models_are_refused(make: Any, message: str, error: type[NetworkError], tmp_path: Path) -> None:
    import keras

    path = tmp_path / "odd.keras"
    make(keras.layers).save(path)
    with pytest.raises(error, match=message):
        load_network(path)


@needs_keras
def test_a_layer_used_twice_is_refused(tmp_path: Path) -> None:
    import keras

    inputs = keras.Input((4,))
    shared = keras.layers.Dense(4, name="shared")
    keras.Model(inputs, shared(shared(inputs))).save(tmp_path / "shared.keras")
    with pytest.raises(NetworkError, match="must be a chain"):
        load_network(tmp_path / "shared.keras")


@needs_keras
def test_a_network_survives_the_way_through_keras(tmp_path: Path) -> None:
    network = load_network("cnn")
    to_keras(network).save(tmp_path / "cnn.keras")
    again = load_network(tmp_path / "cnn.keras")
    assert again.architecture == network.architecture
    for key, array in network.parameters.items():
        assert again.parameters[key].tobytes() == array.tobytes()


@needs_keras
@pytest.mark.parametrize("name", ["mlp-digits", "mlp8k-digits", "cnn-digits"])
def test_the_simulation_agrees_with_keras(name: str) -> None:
    """Labels agree wherever the top two logits differ by more than 1e-4."""
    network = load_network(name)
    pixels = np.random.default_rng(1).integers(0, 256, (200, 28, 28, 1), dtype=np.uint8)
    expected = np.asarray(to_keras(network, softmax=False).predict_on_batch(pixels.astype(np.float32) / 255))
    found = answer(network, pixels)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-3)
    top = np.sort(expected, axis=1)
    clear = top[:, -1] - top[:, -2] > 1e-4
    assert clear.sum() > 190
    assert np.array_equal(found.argmax(axis=1)[clear], expected.argmax(axis=1)[clear])


@needs_keras
def test_a_network_survives_the_way_through_tflite(tmp_path: Path) -> None:
    pytest.importorskip("tensorflow", reason="TensorFlow is not installed: only it writes .tflite files")
    network = load_network("mlp8k")
    path = tmp_path / "mlp8k.tflite"
    path.write_bytes(to_tflite_bytes(network))
    again = load_network(path)
    for key, array in network.parameters.items():
        assert again.parameters[key].tobytes() == array.tobytes()
    assert isinstance(again.architecture.layers[-1], Softmax)
