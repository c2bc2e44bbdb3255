"""What makes an image valid, field by field: the rules that the device enforces too (docs/model.md).

Every function raises :class:`bitloop.errors.ModelError`, and the message begins with the layer or tensor it is about.
Python's integers do not wrap, so sizes are compared as they are.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from bitloop.errors import ModelError
from bitloop.numeric.codec import is_finite_code
from bitloop.numeric.packing import packed_bytes
from bitloop.plan.records import Header, LayerRecord, Shape, TensorRecord, slot_bytes
from bitloop.plan.tensors import check_scales, check_zero_points, record_format, unpack_rows
from bitloop.spec import (
    ARENA_ALIGNMENT,
    IMAGE_ALIGNMENT,
    IMAGE_CRC_BYTES,
    IMAGE_HEADER_BYTES,
    LAYER_RECORD_BYTES,
    MAX_DIMENSION,
    MAX_EXPONENT_BITS,
    MAX_IMAGE_BYTES,
    MAX_INTEGER_BITS,
    MAX_MANTISSA_BITS,
    MIN_INTEGER_BITS,
    NO_INDEX,
    NO_OFFSET,
    TENSOR_RECORD_BYTES,
    Activation,
    FormatKind,
    Granularity,
    LayerKind,
    Layout,
    Packing,
    ScaleKind,
    TensorFlag,
    TopCodes,
)

MAX_ELEMENTS = 0x3FFFFFFF  # four bytes each, their offsets fit 32 bits
MAX_LOGITS = 0x0FFFFFFF
MAX_TABLE_BITS = 16
_BINARY32_MAX_EXPONENT = 127
_BINARY32_MIN_EXPONENT = -149

_KNOWN_FLAGS = int(TensorFlag.SIGNED | TensorFlag.SUBNORMALS | TensorFlag.AFFINE)
_WEIGHTED = (LayerKind.DENSE, LayerKind.CONV2D)
_WINDOWED = (LayerKind.CONV2D, LayerKind.MAX_POOL, LayerKind.AVERAGE_POOL)


def check_whole(data: bytes, header: Header) -> None:
    """Check length and CRC-32."""
    _require(
        header.image_bytes == len(data),
        f"the image's length field is {header.image_bytes}, but it has {len(data)} bytes",
    )
    _require(len(data) <= MAX_IMAGE_BYTES, f"the image has {len(data)} bytes; the most is {MAX_IMAGE_BYTES}")
    found = int.from_bytes(data[-IMAGE_CRC_BYTES:], "little")
    computed = zlib.crc32(memoryview(data)[:-IMAGE_CRC_BYTES])
    _require(found == computed, f"the image's CRC-32 is 0x{found:08X}, computed 0x{computed:08X}; it is damaged")


def check_header(header: Header, *, arena_bytes: int | None, max_layers: int | None, max_tensors: int | None) -> None:
    """Check counts, input and the regions of the arena that the header names."""
    _require(header.layer_count >= 1, "the image's layer count is 0")
    for count, most, what in ((header.layer_count, max_layers, "layer"), (header.tensor_count, max_tensors, "tensor")):
        _require(most is None or count <= most, f"the image's {what} count is {count}; the device takes {most}")
    _require(
        data_begin(header) <= header.image_bytes - IMAGE_CRC_BYTES,
        f"the image's layer count {header.layer_count} and tensor count {header.tensor_count} do not fit its length",
    )
    _require(_is_shape(header.input_shape), f"the image's input shape {header.input_shape} is impossible")
    _require(
        arena_bytes is None or header.arena_bytes <= arena_bytes,
        f"the image's arena has {header.arena_bytes} bytes; the device has {arena_bytes}",
    )
    _require(header.arena_bytes >= header.image_bytes, "the image's arena is smaller than the image")
    _require(1 <= header.output_count <= MAX_LOGITS, f"the image's number of logits is {header.output_count}")
    expected = slot_bytes(math.prod(header.input_shape), header.output_count, header.layer_count)
    _require(header.slot_bytes == expected, f"the image's slots have {header.slot_bytes} bytes, expected {expected}")
    _require(header.slots >= 1, "the image's queue has no slot")
    _require(
        header.queue_offset % ARENA_ALIGNMENT == 0, f"the image's queue offset {header.queue_offset} is not aligned"
    )
    _require(
        header.image_bytes <= header.queue_offset
        and header.queue_offset + header.slots * header.slot_bytes <= header.arena_bytes,
        f"the image's queue, {header.slots} slots at {header.queue_offset}, is outside of the arena or over the image",
    )


def data_begin(header: Header) -> int:
    """Return the offset behind the records, where tensors' data may begin."""
    return IMAGE_HEADER_BYTES + header.layer_count * LAYER_RECORD_BYTES + header.tensor_count * TENSOR_RECORD_BYTES


def check_tensor(data: bytes, header: Header, tensor: TensorRecord, what: str) -> None:
    """Check a tensor's format, bounds, scales, zero points and every code."""
    _check_format(tensor, what)
    _require(tensor.layout == Layout.IN_MAJOR, f"{what}: unknown layout {tensor.layout}")
    _require(tensor.rows >= 1, f"{what} has no rows")
    _require(1 <= tensor.columns <= MAX_DIMENSION, f"{what} has {tensor.columns} columns, out of 1 to {MAX_DIMENSION}")
    row_bytes = packed_bytes(tensor.columns, tensor.width_bits, Packing(tensor.packing))
    _require(tensor.row_bytes == row_bytes, f"{what}: bytes a row is {tensor.row_bytes}, expected {row_bytes}")
    _require(
        tensor.data_bytes == tensor.rows * row_bytes,
        f"{what}: data has {tensor.data_bytes} bytes, expected {tensor.rows * row_bytes}",
    )
    _check_part(header, tensor.data_offset, tensor.data_bytes, f"{what}: data")
    _check_groups(data, header, tensor, what)
    fmt = record_format(tensor)
    rows = data[tensor.data_offset : tensor.data_offset + tensor.data_bytes]
    for first, codes in unpack_rows(rows, tensor, what):
        finite = is_finite_code(codes, fmt)
        if not finite.all():
            element = first * tensor.columns + int(np.flatnonzero(~finite)[0])
            raise ModelError(f"{what}: element {element} has a code that is no finite number")


def check_layer(
    header: Header, before: LayerRecord | None, layer: LayerRecord, tensors: Sequence[TensorRecord], what: str
) -> None:
    """Check a layer's kind, shapes, tensors, place in the chain, and regions.

    Args:
        header: the checked header.
        before: the checked layer before, or None for the first.
        layer: the one to check.
        tensors: the checked tensors.
        what: names the layer in an error.
    """
    _require(layer.kind in LayerKind.__members__.values(), f"{what}: unknown kind {layer.kind}")
    _require(_is_shape(layer.output_shape), f"{what}: output shape {layer.output_shape} is impossible")
    given = header.input_shape if before is None else before.output_shape
    source = NO_OFFSET if before is None else before.output_offset
    _require(
        layer.input_offset == source and (layer.input_offset == NO_OFFSET) == (before is None),
        f"{what}: input offset is {layer.input_offset}, but its input is at {source}",
    )
    same = layer.input_shape == given if layer.kind in _WINDOWED else math.prod(layer.input_shape) == math.prod(given)
    _require(same, f"{what}: input shape is {layer.input_shape}, but it is given {given}")
    _check_kind(layer, tensors, what)
    _check_regions(header, layer, tensors, what)


def check_output(header: Header, last: LayerRecord) -> None:
    """Check that the header's logits are what the last layer gives."""
    _require(
        header.output_offset == last.output_offset,
        f"the image's logits are at {header.output_offset}, but the last layer writes at {last.output_offset}",
    )
    count = math.prod(last.output_shape)
    _require(header.output_count == count, f"the image has {header.output_count} logits, its last layer gives {count}")


def scales_of(data: bytes, tensor: TensorRecord) -> npt.NDArray[np.float32]:
    """Return a tensor's scales; its offsets must have been checked."""
    return np.frombuffer(data, "<f4", tensor.groups, tensor.scales_offset)


def zero_points_of(data: bytes, tensor: TensorRecord) -> npt.NDArray[np.int32]:
    """Return a tensor's zero points; its offsets must have been checked."""
    return np.frombuffer(data, "<i4", tensor.groups, tensor.zero_points_offset)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ModelError(message)


def _is_shape(shape: Shape) -> bool:
    return min(shape) >= 1 and math.prod(shape) <= MAX_ELEMENTS


def _check_format(tensor: TensorRecord, what: str) -> None:
    _require(tensor.format_kind in FormatKind.__members__.values(), f"{what}: unknown format kind {tensor.format_kind}")
    _require(tensor.flags & ~_KNOWN_FLAGS == 0, f"{what}: unknown flags 0x{tensor.flags:02X}")
    _require(
        tensor.packing == Packing.BITS
        or (tensor.packing == Packing.TRITS and tensor.format_kind == FormatKind.TERNARY),
        f"{what}: unknown packing {tensor.packing} for this format",
    )
    if tensor.format_kind == FormatKind.FLOAT:
        _check_float(tensor, what)
        return
    for value, name in ((tensor.exponent_bits, "exponent bits"), (tensor.mantissa_bits, "mantissa bits")):
        _require(value == 0, f"{what}: {name} of a format that is no float are {value}")
    _require(tensor.top_codes == 0, f"{what}: top codes of a format that is no float are {tensor.top_codes}")
    _require(not tensor.flags & TensorFlag.SUBNORMALS, f"{what}: the subnormals flag of a format that is no float")
    if tensor.format_kind == FormatKind.INTEGER:
        _check_integer(tensor, what)
        return
    width = 2 if tensor.format_kind == FormatKind.TERNARY else 1
    _require(tensor.width_bits == width, f"{what}: width is {tensor.width_bits} bits, expected {width}")
    _require(not tensor.flags & TensorFlag.AFFINE, f"{what}: only integers can be affine")
    _require(tensor.bias == 0, f"{what}: fraction bits are {tensor.bias}, expected 0")


def _check_float(tensor: TensorRecord, what: str) -> None:
    exponent, mantissa = tensor.exponent_bits, tensor.mantissa_bits
    _require(
        1 <= exponent <= MAX_EXPONENT_BITS, f"{what}: exponent bits are {exponent}, out of 1 to {MAX_EXPONENT_BITS}"
    )
    _require(mantissa <= MAX_MANTISSA_BITS, f"{what}: mantissa bits are {mantissa}, the most is {MAX_MANTISSA_BITS}")
    _require(not tensor.flags & TensorFlag.AFFINE, f"{what}: a float cannot be affine")
    width = bool(tensor.flags & TensorFlag.SIGNED) + exponent + mantissa
    _require(tensor.width_bits == width, f"{what}: width is {tensor.width_bits} bits, expected {width}")
    _require(tensor.top_codes in TopCodes.__members__.values(), f"{what}: unknown top codes {tensor.top_codes}")
    # The topmost exponent field holds no finite number if it is IEEE's, or if fn's one NaN is all of it.
    without_top = tensor.top_codes == TopCodes.IEEE or (tensor.top_codes == TopCodes.FN and mantissa == 0)
    highest = (1 << exponent) - 1 - without_top - tensor.bias
    lowest = 1 - tensor.bias - mantissa
    _require(
        highest <= _BINARY32_MAX_EXPONENT and lowest >= _BINARY32_MIN_EXPONENT,
        f"{what}: with the exponent bias {tensor.bias} not every element is a binary32 number",
    )


def _check_integer(tensor: TensorRecord, what: str) -> None:
    width = tensor.width_bits
    _require(
        MIN_INTEGER_BITS <= width <= MAX_INTEGER_BITS,
        f"{what}: width is {width} bits, out of {MIN_INTEGER_BITS} to {MAX_INTEGER_BITS}",
    )
    # The greatest magnitude is 2^(width-1) if signed, else 2^width - 1; code minus zero point stays below 2^width.
    highest = width - 1
    _require(
        highest - tensor.bias <= _BINARY32_MAX_EXPONENT and -tensor.bias >= _BINARY32_MIN_EXPONENT,
        f"{what}: with {tensor.bias} fraction bits not every element is a binary32 number",
    )


def _check_part(header: Header, offset: int, size: int, what: str) -> None:
    """A part of a tensor lies behind the records, before the CRC, at a multiple of 4."""
    _require(offset % IMAGE_ALIGNMENT == 0, f"{what} offset {offset} is not aligned")
    _require(
        data_begin(header) <= offset and offset + size <= header.image_bytes - IMAGE_CRC_BYTES,
        f"{what}, {size} bytes at {offset}, lies outside of the image",
    )


def _check_groups(data: bytes, header: Header, tensor: TensorRecord, what: str) -> None:
    _require(tensor.scale_kind in ScaleKind.__members__.values(), f"{what}: unknown scale kind {tensor.scale_kind}")
    _require(
        tensor.granularity in Granularity.__members__.values(), f"{what}: unknown granularity {tensor.granularity}"
    )
    scaled = tensor.scale_kind != ScaleKind.NONE
    affine = bool(tensor.flags & TensorFlag.AFFINE)
    groups = tensor.columns if tensor.granularity == Granularity.CHANNEL else 1
    expected = groups if scaled or affine else 0
    _require(tensor.groups == expected, f"{what} has {tensor.groups} groups, expected {expected}")
    for present, offset, name in (
        (scaled, tensor.scales_offset, "scales"),
        (affine, tensor.zero_points_offset, "zero points"),
    ):
        if present:
            _check_part(header, offset, 4 * groups, f"{what}: {name}")
        else:
            _require(offset == NO_OFFSET, f"{what}: {name} offset is {offset}, but it has none")
    if scaled:
        check_scales(scales_of(data, tensor), tensor, what)
    if affine:
        check_zero_points(zero_points_of(data, tensor), tensor, what)


def _check_kind(layer: LayerRecord, tensors: Sequence[TensorRecord], what: str) -> None:
    weighted, windowed = layer.kind in _WEIGHTED, layer.kind in _WINDOWED
    most = Activation.RELU if weighted else Activation.NONE
    _require(layer.activation <= most, f"{what}: activation is {layer.activation}, the most is {int(most)}")
    kernel, stride = (layer.kernel_height, layer.kernel_width), (layer.stride_y, layer.stride_x)
    padding = (layer.padding_top, layer.padding_left)
    if windowed:
        for axis in (0, 1):
            _require(kernel[axis] >= 1, f"{what}: a kernel of 0")
            _require(stride[axis] >= 1, f"{what}: a stride of 0")
            _require(padding[axis] < kernel[axis], f"{what}: padding {padding} is not less than the kernel, {kernel}")
            last_begin = (layer.output_shape[axis] - 1) * stride[axis] - padding[axis]
            _require(
                last_begin < layer.input_shape[axis],
                f"{what}: output shape {layer.output_shape} has windows without any input ({layer.input_shape})",
            )
    else:
        _require(
            not any((*kernel, *stride, *padding)), f"{what}: kernel, stride or padding of a layer without a window"
        )
    if weighted:
        if layer.kind == LayerKind.CONV2D:
            rows = math.prod(kernel) * layer.input_channels
        else:
            rows = math.prod(layer.input_shape)
            _require(layer.output_shape[:2] == (1, 1), f"{what}: a dense layer's output shape is {layer.output_shape}")
        _check_parameters(layer.weights, rows, layer.output_channels, tensors, f"{what}: weight tensor")
        if layer.biases != NO_INDEX:
            _check_parameters(layer.biases, 1, layer.output_channels, tensors, f"{what}: bias tensor")
        return
    _require((layer.weights, layer.biases) == (NO_INDEX, NO_INDEX), f"{what}: a weight or bias tensor it cannot have")
    if windowed:
        fits = layer.input_channels == layer.output_channels
    else:
        fits = math.prod(layer.input_shape) == math.prod(layer.output_shape)
    _require(fits, f"{what}: output shape {layer.output_shape} does not follow from {layer.input_shape}")


def _check_parameters(index: int, rows: int, columns: int, tensors: Sequence[TensorRecord], what: str) -> None:
    _require(index < len(tensors), f"{what} {index} is not among the {len(tensors)} there are")
    found = (tensors[index].rows, tensors[index].columns)
    _require(found == (rows, columns), f"{what} {index} is {found}, expected {(rows, columns)}")


def _check_regions(header: Header, layer: LayerRecord, tensors: Sequence[TensorRecord], what: str) -> None:
    """Input, output and table lie in the arena and not over one another, the image or the queue."""
    queue = (header.queue_offset, header.slots * header.slot_bytes)
    regions = [("output", layer.output_offset, 4 * math.prod(layer.output_shape))]
    if layer.input_offset != NO_OFFSET:
        in_place = layer.kind == LayerKind.RELU and layer.input_offset == layer.output_offset
        if not in_place:
            regions.append(("input", layer.input_offset, 4 * math.prod(layer.input_shape)))
    if layer.table_offset != NO_OFFSET:
        _require(layer.kind in _WEIGHTED, f"{what}: a decode table of a layer without weights")
        width = tensors[layer.weights].width_bits
        _require(width <= MAX_TABLE_BITS, f"{what}: a decode table for {width} bits; the most is {MAX_TABLE_BITS}")
        regions.append(("decode table", layer.table_offset, 4 << width))
    for index, (name, offset, size) in enumerate(regions):
        _require(offset % ARENA_ALIGNMENT == 0, f"{what}: {name} offset {offset} is not aligned")
        _require(
            header.image_bytes <= offset and offset + size <= header.arena_bytes,
            f"{what}: {name}, {size} bytes at {offset}, lies outside of the arena or over the image",
        )
        for other, start, length in (("queue", *queue), *regions[:index]):
            _require(
                offset >= start + length or start >= offset + size,
                f"{what}: {name}, {size} bytes at {offset}, overlaps the {other}",
            )
