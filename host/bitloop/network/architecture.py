"""The neutral graph: which layers a network has, in which order, and the shapes that follow.

An architecture is a chain. It holds no numbers but sizes; a :class:`bitloop.network.network.Network` adds the
parameters. Shapes are checked when it is built, so that whoever holds one need not ask again.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Literal, TypeAlias

from bitloop.errors import NetworkError, UnsupportedLayerError
from bitloop.network.shapes import window_outputs
from bitloop.spec import MAX_DIMENSION

Padding: TypeAlias = Literal["valid", "same"]
Shape: TypeAlias = tuple[int, ...]

MAX_LAYERS = 1024
MAX_WINDOW = 255
"""Longest kernel or stride: an image holds them in a byte."""
MAX_NAME_LENGTH = 128

_LAYER_NAME = re.compile(r"[a-z0-9_]+")


@dataclass(frozen=True)
class Dense:
    """Every output sees every input; a map (H, W, C) is taken as a vector in that order."""

    kind: ClassVar[str] = "dense"
    name: str
    units: int
    use_bias: bool = True


@dataclass(frozen=True)
class Conv2D:
    """Cross-correlation over height and width, as Keras and LiteRT compute it."""

    kind: ClassVar[str] = "conv2d"
    name: str
    filters: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: Padding = "valid"
    use_bias: bool = True


@dataclass(frozen=True)
class MaxPool2D:
    """The greatest of each window, channel by channel."""

    kind: ClassVar[str] = "max_pool"
    name: str
    pool_size: tuple[int, int] = (2, 2)
    strides: tuple[int, int] = (2, 2)
    padding: Padding = "valid"


@dataclass(frozen=True)
class AveragePool2D:
    """The mean of each window's valid positions, channel by channel."""

    kind: ClassVar[str] = "average_pool"
    name: str
    pool_size: tuple[int, int] = (2, 2)
    strides: tuple[int, int] = (2, 2)
    padding: Padding = "valid"


@dataclass(frozen=True)
class ReLU:
    """``x > 0 ? x : +0``, element by element."""

    kind: ClassVar[str] = "relu"
    name: str


@dataclass(frozen=True)
class Flatten:
    """A map as a vector in the order H, W, C."""

    kind: ClassVar[str] = "flatten"
    name: str


@dataclass(frozen=True)
class Softmax:
    """Logits to probabilities; only as the last layer, over a vector."""

    kind: ClassVar[str] = "softmax"
    name: str


Layer: TypeAlias = Dense | Conv2D | MaxPool2D | AveragePool2D | ReLU | Flatten | Softmax
LAYER_CLASSES: tuple[type[Layer], ...] = (Dense, Conv2D, MaxPool2D, AveragePool2D, ReLU, Flatten, Softmax)
LAYER_KINDS: dict[str, type[Layer]] = {cls.kind: cls for cls in LAYER_CLASSES}

_PAIRS = frozenset({"kernel_size", "strides", "pool_size"})
_COUNTS = frozenset({"units", "filters"})


@dataclass(frozen=True)
class Architecture:
    """A chain of layers over an image.

    Attributes:
        name: Text, not empty.
        input_shape: Height, width and channels of the image (u8 pixels, row-major H, W, C).
        layers: One or more, each with a name of its own.

    Raises:
        NetworkError: A name, a size or a chain of shapes that cannot be.
        UnsupportedLayerError: A layer of another kind, or a Softmax that is not last.
    """

    name: str
    input_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]

    def __post_init__(self) -> None:
        self.validate()

    def validate(self) -> None:
        """Check names, sizes and the chain of shapes; runs when an architecture is built.

        Raises:
            NetworkError: A name, a size or a chain of shapes that cannot be.
            UnsupportedLayerError: A layer of another kind, or a Softmax that is not last.
        """
        if not isinstance(self.name, str) or not self.name.isprintable() or not 0 < len(self.name) <= MAX_NAME_LENGTH:
            raise NetworkError(
                f"an architecture's name is 1 to {MAX_NAME_LENGTH} printable characters, not {self.name!r}"
            )
        _check_sizes("the input shape", self.input_shape, count=3, most=MAX_DIMENSION)
        if not isinstance(self.layers, tuple) or not 0 < len(self.layers) <= MAX_LAYERS:
            raise NetworkError(f"architecture {self.name!r} needs a tuple of 1 to {MAX_LAYERS} layers")
        seen: set[str] = set()
        for position, layer in enumerate(self.layers):
            _check_layer(layer)
            if layer.name in seen:
                raise NetworkError(f"two layers of {self.name!r} are named {layer.name!r}; names must be unique")
            seen.add(layer.name)
            if isinstance(layer, Softmax) and position != len(self.layers) - 1:
                raise UnsupportedLayerError(
                    f"layer {layer.name!r}: a softmax is only supported as the last layer, where the host computes it"
                )
        self.output_shapes()

    def output_shapes(self) -> tuple[Shape, ...]:
        """Return the shape that each layer gives, without the batch: (H, W, C) or (N,).

        Raises:
            NetworkError: A layer does not take what the one before gives.
        """
        shape: Shape = self.input_shape
        shapes: list[Shape] = []
        for layer in self.layers:
            try:
                shape = output_shape(layer, shape)
            except NetworkError as error:
                raise type(error)(f"layer {layer.name!r} of {self.name!r}: {error}") from error
            if max(shape) > MAX_DIMENSION and not isinstance(layer, Flatten):
                raise NetworkError(
                    f"layer {layer.name!r} of {self.name!r} gives {shape}; a side has at most {MAX_DIMENSION} elements"
                )
            shapes.append(shape)
        return tuple(shapes)

    def input_shapes(self) -> tuple[Shape, ...]:
        """Return the shape that each layer takes, without the batch."""
        return (self.input_shape, *self.output_shapes()[:-1])

    def parameter_shapes(self) -> dict[str, Shape]:
        """Return the shape of each tensor of parameters, in the order of the layers, weights before biases.

        Dense weights are (in, out), convolution weights (ky, kx, in, out), biases (out,).
        """
        shapes: dict[str, Shape] = {}
        for layer, inputs in zip(self.layers, self.input_shapes(), strict=True):
            if isinstance(layer, Dense):
                shapes[f"{layer.name}.weights"] = (math.prod(inputs), layer.units)
                outputs = layer.units
            elif isinstance(layer, Conv2D):
                shapes[f"{layer.name}.weights"] = (*layer.kernel_size, inputs[2], layer.filters)
                outputs = layer.filters
            else:
                continue
            if layer.use_bias:
                shapes[f"{layer.name}.biases"] = (outputs,)
        return shapes

    def parameter_count(self) -> int:
        """Return the number of weights and biases together."""
        return sum(math.prod(shape) for shape in self.parameter_shapes().values())

    def macs(self) -> int:
        """Return the multiplications of one image, counting those with zeros and with padding."""
        total = 0
        for layer, inputs, outputs in zip(self.layers, self.input_shapes(), self.output_shapes(), strict=True):
            if isinstance(layer, Dense):
                total += math.prod(inputs) * layer.units
            elif isinstance(layer, Conv2D):
                total += math.prod(outputs) * math.prod(layer.kernel_size) * inputs[2]
        return total

    def to_dict(self) -> dict[str, Any]:
        """Return the architecture as JSON has it (docs/model.md)."""
        return {
            "name": self.name,
            "input_shape": list(self.input_shape),
            "layers": [_layer_to_dict(layer) for layer in self.layers],
        }

    @classmethod
    def from_dict(cls, data: object) -> Architecture:
        """Build an architecture from what :meth:`to_dict` gave.

        Args:
            data: A decoded JSON object; nothing in it is trusted.

        Raises:
            NetworkError: A key is missing, unknown or of the wrong type, or shapes do not fit.
            UnsupportedLayerError: A layer of an unknown kind.
        """
        entries = _object(data, {"name", "input_shape", "layers"}, "the architecture")
        layers = entries["layers"]
        if not isinstance(layers, list):
            raise NetworkError("the architecture's layers are no list")
        return cls(
            name=entries["name"],
            input_shape=_tuple(entries["input_shape"], 3, "the architecture's input_shape"),
            layers=tuple(_layer_from_dict(layer) for layer in layers),
        )


def output_shape(layer: Layer, shape: Shape) -> Shape:
    """Return the shape that a layer gives for one that it takes, both without the batch.

    Raises:
        NetworkError: It does not take that shape.
    """
    match layer:
        case Dense():
            return (layer.units,)
        case Flatten():
            return (math.prod(shape),)
        case ReLU():
            return shape
        case Softmax():
            if len(shape) != 1:
                raise UnsupportedLayerError(f"a softmax takes a vector, not a map {shape}; put a flatten before it")
            return shape
        case Conv2D() | MaxPool2D() | AveragePool2D():
            if len(shape) != 3:
                raise NetworkError(f"a {layer.kind} takes a map (H, W, C), but the layer before gives a vector {shape}")
            kernel = layer.kernel_size if isinstance(layer, Conv2D) else layer.pool_size
            height, width = window_outputs((shape[0], shape[1]), kernel, layer.strides, layer.padding)
            return (height, width, layer.filters if isinstance(layer, Conv2D) else shape[2])


def _check_layer(layer: Layer) -> None:
    if not isinstance(layer, LAYER_CLASSES):
        raise UnsupportedLayerError(
            f"{layer!r} is no layer bitloop knows; it knows {', '.join(cls.__name__ for cls in LAYER_CLASSES)}"
        )
    if (
        not isinstance(layer.name, str)
        or not _LAYER_NAME.fullmatch(layer.name)
        or not len(layer.name) <= MAX_NAME_LENGTH
    ):
        raise NetworkError(
            f"a layer's name is 1 to {MAX_NAME_LENGTH} of the characters a-z, 0-9 and _, not {layer.name!r}"
        )
    for field in fields(layer):
        value = getattr(layer, field.name)
        what = f"layer {layer.name!r}: {field.name}"
        if field.name in _PAIRS:
            _check_sizes(what, value, count=2, most=MAX_WINDOW)
        elif field.name in _COUNTS:
            _check_sizes(what, (value,), count=1, most=MAX_DIMENSION)
        elif field.name == "padding" and value not in ("valid", "same"):
            raise NetworkError(f"{what} is 'valid' or 'same', not {value!r}")
        elif field.name == "use_bias" and not isinstance(value, bool):
            raise NetworkError(f"{what} is true or false, not {value!r}")


def _check_sizes(what: str, sizes: object, *, count: int, most: int) -> None:
    fits = (
        isinstance(sizes, tuple)
        and len(sizes) == count
        and all(isinstance(size, int) and not isinstance(size, bool) and 1 <= size <= most for size in sizes)
    )
    if not fits:
        number = "one number" if count == 1 else f"{count} numbers"
        raise NetworkError(f"{what} must be {number} from 1 to {most}, not {sizes!r}")


def _layer_to_dict(layer: Layer) -> dict[str, Any]:
    entries: dict[str, Any] = {"kind": layer.kind}
    for field in fields(layer):
        value = getattr(layer, field.name)
        entries[field.name] = list(value) if isinstance(value, tuple) else value
    return entries


def _layer_from_dict(data: object) -> Layer:
    kind = data.get("kind") if isinstance(data, Mapping) else None
    cls = LAYER_KINDS.get(kind) if isinstance(kind, str) else None
    if cls is None:
        raise UnsupportedLayerError(f"unknown kind of layer {kind!r}; known are {', '.join(LAYER_KINDS)}")
    names = {field.name for field in fields(cls)}
    entries = _object(data, names | {"kind"}, f"a layer of kind {kind!r}")
    values = {name: _tuple(entries[name], 2, name) if name in _PAIRS else entries[name] for name in names}
    return cls(**values)


def _object(data: object, keys: set[str], what: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise NetworkError(f"{what} is no JSON object")
    if set(data) != keys:
        unknown, missing = sorted(set(map(str, data)) - keys), sorted(keys - set(data))
        raise NetworkError(f"{what} has unknown keys {unknown} and lacks {missing}")
    return data


def _tuple(value: object, count: int, what: str) -> Any:
    if not isinstance(value, list) or len(value) != count:
        raise NetworkError(f"{what} must be a list of {count} numbers, not {value!r}")
    return tuple(value)
