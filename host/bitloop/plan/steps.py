"""What a device computes for a network: its layers, with ReLU and pooling made part of the layer before."""

from __future__ import annotations

import math
from dataclasses import dataclass

from bitloop.errors import UnsupportedLayerError
from bitloop.network.architecture import (
    Architecture,
    AveragePool2D,
    Conv2D,
    Dense,
    Flatten,
    Layer,
    MaxPool2D,
    ReLU,
    Softmax,
)
from bitloop.network.shapes import same_padding
from bitloop.plan.records import Shape
from bitloop.spec import LayerKind

Pair = tuple[int, int]
Pool = MaxPool2D | AveragePool2D


@dataclass(frozen=True)
class Window:
    """Kernel, strides and padding before of a layer, each (y, x); all 0 for layers without a window."""

    kernel: Pair = (0, 0)
    strides: Pair = (0, 0)
    padding: Pair = (0, 0)


@dataclass(frozen=True)
class Step:
    """One operation of a device, before memory is planned.

    Attributes:
        layer: the network's layer that it is named after.
        covers: names of the network's layers it computes, in order.
        kind: what the device knows it as.
        relu: whether a ReLU is part of it.
        pool: the pooling that is fused behind a convolution, or None.
        before: shape it takes.
        map_shape: shape the layer gives before pooling.
        after: shape it gives.
    """

    layer: Layer
    covers: tuple[str, ...]
    kind: LayerKind
    relu: bool
    pool: Pool | None
    before: Shape
    map_shape: Shape
    after: Shape

    @property
    def output_bytes(self) -> int:
        """Bytes of what it gives, in binary32."""
        return 4 * math.prod(self.after)

    @property
    def positions(self) -> int:
        """How often each weight is used for one image."""
        return self.map_shape[0] * self.map_shape[1]

    @property
    def window(self) -> Window:
        """The layer's own window."""
        return _window(self.layer, self.before)

    @property
    def pool_window(self) -> Window:
        """The window of the pooling fused behind it."""
        return Window() if self.pool is None else _window(self.pool, self.map_shape)

    @property
    def kinds(self) -> tuple[tuple[str, LayerKind], ...]:
        """What a device must know to run it: names of the network's layers with their kinds."""
        own = (self.layer.name, self.kind)
        return (own,) if self.pool is None else (own, (self.pool.name, _kind(self.pool)))

    @property
    def pool_kind(self) -> int:
        """Kind of the fused pooling, or 0."""
        return 0 if self.pool is None else _kind(self.pool)


def steps_of(architecture: Architecture) -> list[Step]:
    """Return what a device computes; shapes are maps throughout, as a Flatten does not move anything.

    A ReLU right behind a dense layer or a convolution is part of it. So is pooling right behind a convolution (and its
    ReLU) if no two windows share an element: then no output of the convolution is computed twice.

    Raises:
        UnsupportedLayerError: a layer that no device runs.
    """
    steps: list[Step] = []
    before: Shape = architecture.input_shape
    pairs = list(zip(architecture.layers, architecture.output_shapes(), strict=True))
    while pairs:
        layer, output = pairs.pop(0)
        if isinstance(layer, Flatten | Softmax):
            continue
        map_shape = after = _shape(layer, before, output)
        covers = [layer.name]
        pool: Pool | None = None
        relu = isinstance(layer, Dense | Conv2D) and bool(pairs) and isinstance(pairs[0][0], ReLU)
        if relu:
            covers.append(pairs.pop(0)[0].name)
        if isinstance(layer, Conv2D) and pairs:
            following, output = pairs[0]
            if isinstance(following, MaxPool2D | AveragePool2D) and _windows_are_apart(following):
                pool, after = following, _shape(following, map_shape, output)
                covers.append(pairs.pop(0)[0].name)
        steps.append(Step(layer, tuple(covers), _kind(layer), relu, pool, before, map_shape, after))
        before = after
    return steps


def _shape(layer: Layer, before: Shape, output: tuple[int, ...]) -> Shape:
    if isinstance(layer, Dense):
        return 1, 1, layer.units
    return before if isinstance(layer, ReLU) else (output[0], output[1], output[2])


def _windows_are_apart(pool: Pool) -> bool:
    return all(stride >= size for stride, size in zip(pool.strides, pool.pool_size, strict=True))


def _kind(layer: Layer) -> LayerKind:
    match layer:
        case Dense():
            return LayerKind.DENSE
        case Conv2D():
            return LayerKind.CONV2D
        case MaxPool2D():
            return LayerKind.MAX_POOL
        case AveragePool2D():
            return LayerKind.AVERAGE_POOL
        case ReLU():
            return LayerKind.RELU
    raise UnsupportedLayerError(f"layer {layer.name!r}: no device runs a {type(layer).__name__}")


def _window(layer: Layer, taken: Shape) -> Window:
    if not isinstance(layer, Conv2D | MaxPool2D | AveragePool2D):
        return Window()
    kernel = layer.kernel_size if isinstance(layer, Conv2D) else layer.pool_size
    padding = (0, 0)
    if layer.padding == "same":
        padding = (
            same_padding(taken[0], kernel[0], layer.strides[0])[0],
            same_padding(taken[1], kernel[1], layer.strides[1])[0],
        )
    return Window(kernel, layer.strides, padding)
