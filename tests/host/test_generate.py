"""Architectures from texts: those of the zoo, any text there and back, and errors that name the token."""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from bitloop.cli.app import app
from bitloop.errors import NetworkError
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
    zoo_architecture,
)
from bitloop.network.generate import describe, generate

needs_keras = pytest.mark.skipif(
    any(importlib.util.find_spec(name) is None for name in ("keras", os.environ.get("KERAS_BACKEND", "tensorflow")))
    or importlib.util.find_spec("sklearn") is None,
    reason="Keras 3 with a backend, or scikit-learn, is not installed (extras 'tensorflow' and 'digits')",
)

ZOO_TEXTS = {
    "mlp": "dense32-dense16-dense10",
    "mlp8k": "avg2-dense20-dense10",
    "cnn": "conv3x8-max2-conv3x16-max2-dense10",
    "cnn2k": "conv3x8-max2-conv3x18-max2-conv3x32-dense10",
    "cnn6k": "conv5x16/2-conv3x32-max2-conv3x48-dense10",
}


@pytest.mark.parametrize("name", ZOO_TEXTS)
def test_texts_of_the_zoo(name: str) -> None:
    made, zoo = generate(ZOO_TEXTS[name]), zoo_architecture(name)
    assert made == replace(zoo, name=ZOO_TEXTS[name])
    assert describe(zoo) == ZOO_TEXTS[name]


def test_strides_and_padding_by_hand() -> None:
    text = "avg3/1s-conv5x6/3s-max2s-dense7-dense3"
    assert generate(text) == Architecture(
        text,
        (28, 28, 1),
        (
            AveragePool2D("pool1", (3, 3), (1, 1), "same"),
            Conv2D("conv1", 6, (5, 5), (3, 3), "same"),
            ReLU("relu1"),
            MaxPool2D("pool2", (2, 2), (2, 2), "same"),
            Flatten("flatten"),
            Dense("dense1", 7),
            ReLU("relu2"),
            Dense("dense2", 3),
            Softmax("softmax"),
        ),
    )
    assert generate("conv3x8/1-max2/2-dense10").layers == generate("conv3x8-max2-dense10").layers


KIND = st.sampled_from(["conv", "max", "avg"])
STRIDE = st.sampled_from([None, 1, 2, 3])


@settings(deadline=None)
@given(
    st.lists(st.tuples(KIND, st.integers(1, 9), st.integers(1, 40), STRIDE, st.booleans()), max_size=5),
    st.lists(st.integers(1, 300), min_size=1, max_size=3),
)
def test_there_and_back(maps: list[tuple[str, int, int, int | None, bool]], vectors: list[int]) -> None:
    """Whether a text is an architecture, and its sizes, from the rule of each padding."""
    tokens, size, channels, sizes = [], 28, 1, []
    for kind, kernel, filters, stride, same in maps:
        tail = ("" if stride is None else f"/{stride}") + ("s" if same else "")
        tokens.append(f"conv{kernel}x{filters}{tail}" if kind == "conv" else f"{kind}{kernel}{tail}")
        step = stride or (1 if kind == "conv" else kernel)
        size = -(-size // step) if same else (size - kernel) // step + 1
        channels = filters if kind == "conv" else channels
        sizes.append((size, size, channels))
    text = "-".join([*tokens, *(f"dense{units}" for units in vectors)])
    if any(min(shape) < 1 for shape in sizes):
        with pytest.raises(NetworkError):
            generate(text)
        return
    made = generate(text)
    assert made.name == text
    shapes = [
        shape
        for layer, shape in zip(made.layers, made.output_shapes(), strict=True)
        if not isinstance(layer, ReLU | Flatten | Softmax)
    ]
    assert shapes == [*sizes, *((units,) for units in vectors)]
    assert sum(isinstance(layer, ReLU) for layer in made.layers) == text.count("conv") + len(vectors) - 1
    again = describe(made)
    assert generate(again).layers == made.layers
    assert describe(generate(again)) == again


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "'', number 1 of the layers '': this cannot be read; expected convKxN"),
        ("conv3x8--dense10", "'', number 2 of"),
        ("conv3-dense10", "'conv3', number 1 of the layers 'conv3-dense10': this cannot be read"),
        ("conv3x8-max2s/2-dense10", "'max2s/2', number 2"),
        ("conv3x08-dense10", "'conv3x08', number 1"),
        ("conv3x8-min2-dense10", "'min2', number 2"),
        ("Conv3x8-dense10", "'Conv3x8', number 1"),
        ("conv3x8-dense10\n", "printable"),
        ("conv3x8-dense\u0661", "number 2"),
        ("conv29x8-dense10", "'conv29x8', number 1 of"),
        ("max2-max2-max2-max2-max2-dense10", "'max2', number 5 of"),
        ("conv300x1-dense10", "'conv300x1', number 1 of .*from 1 to 255"),
        ("dense32-conv3x8-dense10", "'conv3x8', number 2 of .*a conv2d takes a map"),
        ("conv3x8-max2", "'max2', number 2 of .*the last layer must be dense"),
        ("conv3x8", "'conv3x8', number 1 of .*the last layer must be dense"),
        ("-".join(["conv1x1"] * 20), "a text of 159 characters is too long: 128 at most"),
    ],
)
def test_errors_name_the_token(text: str, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        generate(text)


def test_what_no_text_says_is_refused() -> None:
    with pytest.raises(NetworkError, match="'bitopt2018' are; the nearest is 'conv3x32s-max2s-"):
        describe(zoo_architecture("bitopt2018"))  # without biases
    with pytest.raises(NetworkError, match="the last layer must be dense"):
        describe(Architecture("map", (28, 28, 1), (Conv2D("conv1", 3, (3, 3)),)))
    cnn = generate("conv3x8-dense10")
    with pytest.raises(NetworkError, match="no text says"):
        describe(Architecture("small", (27, 28, 1), cnn.layers))
    with pytest.raises(NetworkError, match="no text says"):
        describe(replace(cnn, layers=(replace(cnn.layers[0], name="first"), *cnn.layers[1:])))  # type: ignore[type-var]


@needs_keras
def test_the_command_trains_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "conv5x3/3-dense10"
    result = CliRunner().invoke(app, ["train", text, "--dataset", "digits", "--epochs", "1", "--json"])
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["command"].startswith(f"bitloop train {text} --dataset digits --seed 1 --epochs 1 ")
    network = Network.load_npz(tmp_path / "conv5x3_3-dense10.npz")
    assert network.architecture == generate(text)
    assert document["path"] == "conv5x3_3-dense10.npz"


def test_the_command_says_what_it_knows(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", "mlp9", "--out", str(tmp_path / "a.npz")])
    assert result.exit_code == 5
    message = result.stderr.replace("\n", " ")
    assert "no network 'mlp9' in the zoo, which has mlp, " in message
    assert "convKxN" in message
