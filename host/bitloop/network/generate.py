"""Architectures from short texts such as ``conv3x8-max2-conv3x16-avg2-dense10``, for studies of many networks."""

from __future__ import annotations

import re

from bitloop.errors import NetworkError
from bitloop.network.architecture import (
    MAX_NAME_LENGTH,
    Architecture,
    AveragePool2D,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    MaxPool2D,
    Padding,
    ReLU,
    Softmax,
)

INPUT_SHAPE = (28, 28, 1)
SYNTAX = (
    "convKxN (kernel KxK, N filters), maxK and avgK (pools of KxK), each with /S behind it for a stride and s for SAME "
    "padding, and denseN, joined by -, a dense last: conv3x8-max2-conv5x16/2s-dense10"
)

_NUMBER = "([1-9][0-9]{0,4})"
_CONV = re.compile(f"conv{_NUMBER}x{_NUMBER}(?:/{_NUMBER})?(s?)")
_POOL = re.compile(f"(max|avg){_NUMBER}(?:/{_NUMBER})?(s?)")
_DENSE = re.compile(f"dense{_NUMBER}")
_POOLS: dict[str, type[MaxPool2D | AveragePool2D]] = {"max": MaxPool2D, "avg": AveragePool2D}


def generate(text: str) -> Architecture:
    """Return the architecture of a text, over images of 28x28 pixels.

    A ReLU follows each convolution and dense layer but the last, which a softmax follows. Strides are 1 for a
    convolution and the pool's own size for a pool, padding is VALID, unless the text says otherwise.

    Args:
        text: Tokens as :data:`SYNTAX` has them, such as ``conv5x16/2-max2-dense10``; it is the architecture's name.

    Raises:
        NetworkError: A token cannot be read, or its layer does not fit behind those before it; the message names it.
    """
    if len(text) > MAX_NAME_LENGTH:
        raise NetworkError(f"a text of {len(text)} characters is too long: {MAX_NAME_LENGTH} at most")
    tokens = text.split("-")
    layers: list[Layer] = []
    for position in range(len(tokens)):
        layers = _longer(layers, text, tokens, position)
    return Architecture(text, INPUT_SHAPE, tuple(layers))


def describe(architecture: Architecture) -> str:
    """Return the text that :func:`generate` makes the layers of an architecture from.

    Raises:
        NetworkError: There is none: it has other layers, names, images, or an order that no text gives.
    """
    text = "-".join(token for token in map(_token, architecture.layers) if token)
    try:
        made = generate(text)
    except NetworkError as error:
        raise NetworkError(f"no text says what the layers of {architecture.name!r} are: {error}") from error
    if (made.input_shape, made.layers) != (architecture.input_shape, architecture.layers):
        raise NetworkError(f"no text says what the layers of {architecture.name!r} are; the nearest is {text!r}")
    return text


def _longer(layers: list[Layer], text: str, tokens: list[str], position: int) -> list[Layer]:
    """Return layers with those of the token at a position behind them.

    Raises:
        NetworkError: That cannot be; the message names the token.
    """
    try:
        more = list(layers)
        _append(more, tokens[position], last=position == len(tokens) - 1)
        Architecture(text, INPUT_SHAPE, tuple(more))
    except NetworkError as error:
        raise type(error)(f"{tokens[position]!r}, number {position + 1} of the layers {text!r}: {error}") from error
    return more


def _append(layers: list[Layer], token: str, *, last: bool) -> None:
    """Add the layers of a token.

    Raises:
        NetworkError: It cannot be read, or is not what may stand there.
    """
    if conv := _CONV.fullmatch(token):
        kernel, filters, stride = int(conv[1]), int(conv[2]), int(conv[3] or 1)
        name = f"conv{_count(layers, Conv2D) + 1}"
        layers.append(Conv2D(name, filters, (kernel, kernel), (stride, stride), _padding(conv[4])))
    elif pool := _POOL.fullmatch(token):
        size, stride = int(pool[2]), int(pool[3] or pool[2])
        name = f"pool{_count(layers, MaxPool2D, AveragePool2D) + 1}"
        layers.append(_POOLS[pool[1]](name, (size, size), (stride, stride), _padding(pool[4])))
    elif dense := _DENSE.fullmatch(token):
        if not _count(layers, Flatten):
            layers.append(Flatten("flatten"))
        layers.append(Dense(f"dense{_count(layers, Dense) + 1}", int(dense[1])))
    else:
        raise NetworkError(f"this cannot be read; expected {SYNTAX}")
    if last:
        if not isinstance(layers[-1], Dense):
            raise NetworkError("the last layer must be dense, with one unit a class, such as dense10")
        layers.append(Softmax("softmax"))
    elif isinstance(layers[-1], Conv2D | Dense):
        layers.append(ReLU(f"relu{_count(layers, ReLU) + 1}"))


def _count(layers: list[Layer], *kinds: type[Layer]) -> int:
    return sum(isinstance(layer, kinds) for layer in layers)


def _padding(suffix: str) -> Padding:
    return "same" if suffix else "valid"


def _token(layer: Layer) -> str:
    """Return the token that is likeliest to give a layer, "" for one that comes with others."""
    match layer:
        case Conv2D():
            stride, usual = layer.strides[0], 1
            text = f"conv{layer.kernel_size[0]}x{layer.filters}"
        case MaxPool2D() | AveragePool2D():
            stride, usual = layer.strides[0], layer.pool_size[0]
            text = f"{'max' if isinstance(layer, MaxPool2D) else 'avg'}{layer.pool_size[0]}"
        case Dense():
            return f"dense{layer.units}"
        case _:
            return ""
    return f"{text}{'' if stride == usual else f'/{stride}'}{'s' if layer.padding == 'same' else ''}"
