"""The neutral graph: shapes, parameters, and what is refused."""

from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitloop.errors import NetworkError, UnsupportedLayerError
from bitloop.network import (
    ZOO,
    Architecture,
    AveragePool2D,
    Conv2D,
    Dense,
    Flatten,
    MaxPool2D,
    ReLU,
    Softmax,
    zoo_architecture,
)
from bitloop.network.shapes import same_padding, window_outputs

IMAGE = (28, 28, 1)


def chain(*layers: Any, shape: Any = IMAGE) -> Architecture:
    return Architecture("test", shape, layers)


# --- windows ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "outputs", "padding"),
    [
        # From TensorFlow's documentation of padding (tf.nn.convolution): input 13, filter 6, stride 5.
        (13, 6, 5, 3, (1, 2)),
        (28, 3, 1, 28, (1, 1)),
        (7, 2, 2, 4, (0, 1)),
        (5, 1, 3, 2, (0, 0)),
        (4, 5, 1, 4, (2, 2)),
        (4, 4, 1, 4, (1, 2)),
        (1, 3, 2, 1, (1, 1)),
    ],
)
def test_same_padding(size: int, kernel: int, stride: int, outputs: int, padding: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == padding
    assert window_outputs((size, 1), (kernel, 1), (stride, 1), "same") == (outputs, 1)


sizes = st.integers(1, 40)


@given(sizes, sizes, sizes)
def test_windows_cover_what_they_must(size: int, kernel: int, stride: int) -> None:
    before, after = same_padding(size, kernel, stride)
    starts = list(range(-before, size, stride))
    outputs = window_outputs((size, size), (kernel, kernel), (stride, stride), "same")[0]
    assert after - before in (0, 1)
    # The last window ends with the padding, or there is none and it ends within the input.
    end = -before + (outputs - 1) * stride + kernel
    assert end == size + after if before + after else end <= size
    assert all(max(start, 0) < min(start + kernel, size) for start in starts[:outputs])  # no window of padding alone
    inside = [start for start in range(0, size, stride) if start + kernel <= size]
    if inside:
        assert window_outputs((size, size), (kernel, kernel), (stride, stride), "valid") == (len(inside), len(inside))
    else:
        with pytest.raises(NetworkError, match="does not fit"):
            window_outputs((size, size), (kernel, kernel), (stride, stride), "valid")


# --- shapes -------------------------------------------------------------------------------------------------------


def test_shapes_by_hand() -> None:
    architecture = chain(
        Conv2D("conv", 4, (3, 5), (2, 1), "same", use_bias=False),  # ceil(28/2), ceil(28/1)
        ReLU("relu"),
        MaxPool2D("max", (2, 3), (2, 3)),  # (14-2)//2+1, (28-3)//3+1
        AveragePool2D("average", (3, 3), (1, 1), "same"),
        Dense("map", 6),
        ReLU("relu_2"),
        Dense("out", 10),
        Softmax("softmax"),
    )
    assert architecture.output_shapes() == (
        (14, 28, 4),
        (14, 28, 4),
        (7, 9, 4),
        (7, 9, 4),
        (6,),
        (6,),
        (10,),
        (10,),
    )
    assert list(architecture.parameter_shapes().items()) == [
        ("conv.weights", (3, 5, 1, 4)),
        ("map.weights", (252, 6)),
        ("map.biases", (6,)),
        ("out.weights", (6, 10)),
        ("out.biases", (10,)),
    ]
    assert architecture.parameter_count() == 60 + 1512 + 6 + 60 + 10
    assert architecture.macs() == 14 * 28 * 4 * 15 + 252 * 6 + 60


@pytest.mark.parametrize(
    ("name", "parameters", "macs"),
    [
        ("mlp", 784 * 32 + 32 + 32 * 16 + 16 + 16 * 10 + 10, 784 * 32 + 32 * 16 + 16 * 10),
        ("mlp8k", 196 * 20 + 20 + 20 * 10 + 10, 196 * 20 + 200),
        ("cnn", 72 + 8 + 1152 + 16 + 4000 + 10, 26 * 26 * 72 + 11 * 11 * 1152 + 4000),
        # The study itself: 1,379,333 parameters, of which 635 are biases.
        ("bitopt2018", 1_379_333, 784 * 288 + 196 * 18432 + 49 * 73728 + 2048 * 625 + 6250),
    ],
)
def test_the_zoo_has_the_stated_sizes(name: str, parameters: int, macs: int) -> None:
    architecture = zoo_architecture(name)
    assert (architecture.parameter_count(), architecture.macs()) == (parameters, macs)
    assert architecture.output_shapes()[-1] == (10,)
    if name == "bitopt2018":
        biases = [s for n, s in architecture.parameter_shapes().items() if n.endswith(".biases")]
        assert sum(math.prod(shape) for shape in biases) == 635
        assert (4, 4, 128) in architecture.output_shapes()


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((), "1 to 1024 layers"),
        ((Dense("a", 3), Dense("a", 3)), "two layers .* named 'a'"),
        ((Dense("A", 3),), "characters a-z"),
        ((Dense("", 3),), "characters a-z"),
        ((Dense("a\n", 3),), "characters a-z"),
        ((Dense("a", 0),), "units must be one number from 1"),
        ((Dense("a", 65_536),), "units must be one number from 1 to 65535"),
        ((Dense("a", True),), "units must be"),
        ((Dense("a", 2.0),), "units must be"),  # type: ignore[arg-type]
        ((Dense("a", 2, 1),), "use_bias is true or false"),  # type: ignore[arg-type]
        ((Conv2D("a", 2, (3, 0)),), "kernel_size must be 2 numbers"),
        ((Conv2D("a", 2, (3, 3, 3)),), "kernel_size must be 2 numbers"),  # type: ignore[arg-type]
        ((Conv2D("a", 2, [3, 3]),), "kernel_size must be 2 numbers"),  # type: ignore[arg-type]
        ((Conv2D("a", 2, (3, 3), (0, 1)),), "strides must be"),
        ((Conv2D("a", 2, (3, 3), padding="full"),), "'valid' or 'same', not 'full'"),  # type: ignore[arg-type]
        ((MaxPool2D("a", (256, 2)),), "pool_size must be 2 numbers from 1 to 255"),
        ((Conv2D("a", 2, (29, 3)),), "layer 'a' of 'test': a window of 29 does not fit into 28"),
        ((Dense("a", 3), Conv2D("b", 2, (1, 1))), r"layer 'b' of 'test': a conv2d takes a map .* vector \(3,\)"),
        ((Flatten("a"), MaxPool2D("b")), "a max_pool takes a map"),
    ],
)
def test_impossible_chains_are_refused(layers: Any, message: str) -> None:
    with pytest.raises(NetworkError, match=message):
        chain(*layers)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ((Softmax("soft"), Dense("a", 3)), "'soft': a softmax is only supported as the last layer"),
        ((Conv2D("a", 2, (3, 3)), Softmax("soft")), "a softmax takes a vector"),
        (("dense",), "is no layer bitloop knows"),
    ],
)
def test_unsupported_layers_are_refused(layers: Any, message: str) -> None:
    with pytest.raises(UnsupportedLayerError, match=message):
        chain(*layers)


@pytest.mark.parametrize("shape", [(28, 28), (0, 28, 1), (28, 28, 65_536), [28, 28, 1], (28.0, 28, 1)])
def test_impossible_inputs_are_refused(shape: Any) -> None:
    with pytest.raises(NetworkError, match="the input shape must be 3 numbers"):
        chain(Dense("a", 3), shape=shape)


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 129, 7])
def test_impossible_names_are_refused(name: Any) -> None:
    with pytest.raises(NetworkError, match="printable"):
        Architecture(name, IMAGE, (Dense("a", 3),))


# --- JSON ---------------------------------------------------------------------------------------------------------

EVERYTHING = chain(
    Conv2D("conv", 4, (3, 5), (2, 1), "same", use_bias=False),
    ReLU("relu"),
    MaxPool2D("max", (2, 3), (2, 3)),
    AveragePool2D("average", (3, 3), (1, 1), "same"),
    Flatten("flatten"),
    Dense("out", 10),
    Softmax("softmax"),
)


@pytest.mark.parametrize("architecture", [EVERYTHING, *(entry.architecture for entry in ZOO.values())])
def test_json_round_trip(architecture: Architecture) -> None:
    assert Architecture.from_dict(json.loads(json.dumps(architecture.to_dict()))) == architecture


def test_json_is_as_documented() -> None:
    data = chain(Conv2D("c", 4, (3, 5)), Dense("d", 2)).to_dict()
    assert data == {
        "name": "test",
        "input_shape": [28, 28, 1],
        "layers": [
            {
                "kind": "conv2d",
                "name": "c",
                "filters": 4,
                "kernel_size": [3, 5],
                "strides": [1, 1],
                "padding": "valid",
                "use_bias": True,
            },
            {"kind": "dense", "name": "d", "units": 2, "use_bias": True},
        ],
    }


def broken() -> list[tuple[str, Any]]:
    cases: list[tuple[str, Any]] = [("none", None), ("list", []), ("text", "x")]
    good = EVERYTHING.to_dict()
    for key in good:
        cases.append((f"without {key}", {k: v for k, v in good.items() if k != key}))
        cases += [(f"{key}={v!r}", {**good, key: v}) for v in (None, 3, {}, [None], "x" * 200)]
    cases.append(("unknown key", {**good, "extra": 1}))
    for position, layer in enumerate(good["layers"]):
        for key in [*layer, "extra"]:
            for value in (None, -1, [], [1, "x"], {"a": 1}, "tanh"):
                data = copy.deepcopy(good)
                if key in ("name",) and value == "tanh":
                    continue
                data["layers"][position][key] = value
                cases.append((f"layer {position} {key}={value!r}", data))
            if key in layer:
                data = copy.deepcopy(good)
                del data["layers"][position][key]
                cases.append((f"layer {position} without {key}", data))
    return cases


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in broken()])
def test_broken_json_is_refused(data: Any) -> None:
    with pytest.raises(NetworkError):
        Architecture.from_dict(data)
