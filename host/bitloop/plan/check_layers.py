"""What makes the layers of an image valid (docs/model.md): kinds, shapes, tensors, and how they follow one another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from bitloop.plan.check import is_shape, require
from bitloop.plan.records import Header, LayerRecord, TensorRecord
from bitloop.spec import NO_INDEX, NO_OFFSET, Activation, LayerKind

WEIGHTED_KINDS = (LayerKind.DENSE, LayerKind.CONV2D)
_POOLS = (LayerKind.MAX_POOL, LayerKind.AVERAGE_POOL)
_WINDOWED = (LayerKind.CONV2D, *_POOLS)

_Pair = tuple[int, int]  # y, x


class _Window(NamedTuple):
    kernel: _Pair
    stride: _Pair
    padding: _Pair


def check_layer(
    header: Header, before: LayerRecord | None, layer: LayerRecord, tensors: Sequence[TensorRecord], what: str
) -> None:
    """Check a layer's kind, shapes, tensors and place in the chain; its regions are checked by ``check_arena``.

    Args:
        header: the checked header.
        before: the checked layer before, or None for the first.
        layer: the one to check.
        tensors: the checked tensors.
        what: names the layer in an error.
    """
    require(layer.kind in LayerKind.__members__.values(), f"{what}: unknown kind {layer.kind}")
    require(is_shape(layer.output_shape), f"{what}: output shape {layer.output_shape} is impossible")
    given = header.input_shape if before is None else before.output_shape
    source = NO_OFFSET if before is None else before.output_offset
    require(
        layer.input_offset == source and (layer.input_offset == NO_OFFSET) == (before is None),
        f"{what}: input offset is {layer.input_offset}, but its input is at {source}",
    )
    same = layer.input_shape == given if layer.kind in _WINDOWED else math.prod(layer.input_shape) == math.prod(given)
    require(same, f"{what}: input shape is {layer.input_shape}, but it is given {given}")
    _check_windows(layer, what)
    _check_parameters(layer, tensors, what)


def check_output(header: Header, last: LayerRecord) -> None:
    """Check that the header's logits are what the last layer gives."""
    require(
        header.output_offset == last.output_offset,
        f"the image's logits are at {header.output_offset}, but the last layer writes at {last.output_offset}",
    )
    count = math.prod(last.output_shape)
    require(header.output_count == count, f"the image has {header.output_count} logits, its last layer gives {count}")


def _check_windows(layer: LayerRecord, what: str) -> None:
    """Check activation, the layer's own window, and that of pooling fused behind it."""
    most = Activation.RELU if layer.kind in WEIGHTED_KINDS else Activation.NONE
    require(layer.activation <= most, f"{what}: activation is {layer.activation}, the most is {int(most)}")
    own = _Window(
        (layer.kernel_height, layer.kernel_width),
        (layer.stride_y, layer.stride_x),
        (layer.padding_top, layer.padding_left),
    )
    pool = _Window(
        (layer.pool_height, layer.pool_width),
        (layer.pool_stride_y, layer.pool_stride_x),
        (layer.pool_padding_top, layer.pool_padding_left),
    )
    taken, given, map_shape = layer.input_shape[:2], layer.output_shape[:2], (layer.map_height, layer.map_width)
    if layer.pool_kind == 0:
        require(
            not any((*pool.kernel, *pool.stride, *pool.padding, *map_shape)),
            f"{what}: kernel, stride, padding or map of a pooling that is not there",
        )
        if layer.kind in _WINDOWED:
            _check_window(own, taken, given, what)
    else:
        require(layer.pool_kind in _POOLS, f"{what}: unknown kind {layer.pool_kind} of fused pooling")
        require(layer.kind == LayerKind.CONV2D, f"{what}: pooling can be fused behind a convolution only")
        require(min(map_shape) >= 1, f"{what}: the convolution's map {map_shape} is impossible")
        _check_window(own, taken, map_shape, what)
        _check_window(pool, map_shape, given, f"{what}: fused pooling")
    require(
        layer.kind in _WINDOWED or not any((*own.kernel, *own.stride, *own.padding)),
        f"{what}: kernel, stride or padding of a layer without a window",
    )


def _check_window(window: _Window, taken: _Pair, given: _Pair, what: str) -> None:
    """Check that each output position's window has an input."""
    kernel, stride, padding = window
    for axis in (0, 1):
        require(kernel[axis] >= 1, f"{what}: a kernel of 0")
        require(stride[axis] >= 1, f"{what}: a stride of 0")
        require(padding[axis] < kernel[axis], f"{what}: padding {padding} is not less than the kernel, {kernel}")
        require(
            (given[axis] - 1) * stride[axis] - padding[axis] < taken[axis],
            f"{what}: output shape {given} has windows without any input ({taken})",
        )


def _check_parameters(layer: LayerRecord, tensors: Sequence[TensorRecord], what: str) -> None:
    """Check weights and biases, or that what has none gives as much as it takes."""
    if layer.kind in WEIGHTED_KINDS:
        if layer.kind == LayerKind.CONV2D:
            rows = layer.kernel_height * layer.kernel_width * layer.input_channels
        else:
            rows = math.prod(layer.input_shape)
            require(layer.output_shape[:2] == (1, 1), f"{what}: a dense layer's output shape is {layer.output_shape}")
        _check_tensor(layer.weights, rows, layer.output_channels, tensors, f"{what}: weight tensor")
        if layer.biases != NO_INDEX:
            _check_tensor(layer.biases, 1, layer.output_channels, tensors, f"{what}: bias tensor")
            require(not tensors[layer.biases].streamed, f"{what}: bias tensor {layer.biases} is streamed")
        return
    require((layer.weights, layer.biases) == (NO_INDEX, NO_INDEX), f"{what}: a weight or bias tensor it cannot have")
    if layer.kind in _WINDOWED:
        fits = layer.input_channels == layer.output_channels
    else:
        fits = math.prod(layer.input_shape) == math.prod(layer.output_shape)
    require(fits, f"{what}: output shape {layer.output_shape} does not follow from {layer.input_shape}")


def _check_tensor(index: int, rows: int, columns: int, tensors: Sequence[TensorRecord], what: str) -> None:
    require(index < len(tensors), f"{what} {index} is not among the {len(tensors)} there are")
    found = (tensors[index].rows, tensors[index].columns)
    require(found == (rows, columns), f"{what} {index} is {found}, expected {(rows, columns)}")
