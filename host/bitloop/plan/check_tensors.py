"""What makes the tensors of an image valid (docs/model.md): format, bounds, scales, zero points, and every code."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from bitloop.errors import ModelError
from bitloop.numeric.codec import is_finite_code
from bitloop.numeric.packing import packed_bytes
from bitloop.plan.check import data_begin, require
from bitloop.plan.check_arena import check_chunk
from bitloop.plan.records import Header, TensorRecord
from bitloop.plan.tensors import check_scales, check_zero_points, record_format, unpack_rows
from bitloop.spec import (
    IMAGE_ALIGNMENT,
    IMAGE_CRC_BYTES,
    MAX_DIMENSION,
    MAX_EXPONENT_BITS,
    MAX_INTEGER_BITS,
    MAX_MANTISSA_BITS,
    MIN_INTEGER_BITS,
    NO_OFFSET,
    FormatKind,
    Granularity,
    Layout,
    Packing,
    ScaleKind,
    TensorFlag,
    TopCodes,
)

_BINARY32_MAX_EXPONENT = 127
_BINARY32_MIN_EXPONENT = -149
_KNOWN_FLAGS = int(TensorFlag.SIGNED | TensorFlag.SUBNORMALS | TensorFlag.AFFINE)


def check_tensor(data: bytes, header: Header, tensor: TensorRecord, what: str) -> None:
    """Check a tensor's format, bounds, scales and zero points, and every code that the image holds."""
    _check_format(tensor, what)
    require(tensor.layout == Layout.IN_MAJOR, f"{what}: unknown layout {tensor.layout}")
    require(tensor.rows >= 1, f"{what} has no rows")
    require(1 <= tensor.columns <= MAX_DIMENSION, f"{what} has {tensor.columns} columns, out of 1 to {MAX_DIMENSION}")
    require(
        tensor.chunk_columns <= tensor.columns,
        f"{what} has {tensor.columns} columns, fewer than a chunk, {tensor.chunk_columns}",
    )
    columns = tensor.chunk_columns if tensor.streamed else tensor.columns
    row_bytes = packed_bytes(columns, tensor.width_bits, Packing(tensor.packing))
    require(tensor.row_bytes == row_bytes, f"{what}: bytes a row is {tensor.row_bytes}, expected {row_bytes}")
    require(
        tensor.data_bytes == tensor.rows * row_bytes,
        f"{what}: data has {tensor.data_bytes} bytes, expected {tensor.rows * row_bytes}",
    )
    if tensor.streamed:
        check_chunk(header, tensor, what)
        _check_groups(data, header, tensor, what)
        return
    _check_part(header, tensor.data_offset, tensor.data_bytes, f"{what}: data")
    require(tensor.crc == 0, f"{what}: a CRC-32 of streamed data, but it is not streamed")
    _check_groups(data, header, tensor, what)
    check_codes(data[tensor.data_offset : tensor.data_offset + tensor.data_bytes], tensor, what)


def check_codes(rows: bytes, tensor: TensorRecord, what: str) -> None:
    """Check that every code is a finite number, and all padding zero.

    Args:
        rows: the tensor's ``data_bytes`` bytes.
        tensor: a checked record, of a tensor or a chunk.
        what: names it in an error.
    """
    fmt = record_format(tensor)
    for first, codes in unpack_rows(rows, tensor, what):
        finite = is_finite_code(codes, fmt)
        if not finite.all():
            element = first * tensor.columns + int(np.flatnonzero(~finite)[0])
            raise ModelError(f"{what}: element {element} has a code that is no finite number")


def scales_of(data: bytes, tensor: TensorRecord) -> npt.NDArray[np.float32]:
    """Return a tensor's scales; its offsets must have been checked."""
    return np.frombuffer(data, "<f4", tensor.groups, tensor.scales_offset)


def zero_points_of(data: bytes, tensor: TensorRecord) -> npt.NDArray[np.int32]:
    """Return a tensor's zero points; its offsets must have been checked."""
    return np.frombuffer(data, "<i4", tensor.groups, tensor.zero_points_offset)


def _check_format(tensor: TensorRecord, what: str) -> None:
    require(tensor.format_kind in FormatKind.__members__.values(), f"{what}: unknown format kind {tensor.format_kind}")
    require(tensor.flags & ~_KNOWN_FLAGS == 0, f"{what}: unknown flags 0x{tensor.flags:02X}")
    require(
        tensor.packing == Packing.BITS
        or (tensor.packing == Packing.TRITS and tensor.format_kind == FormatKind.TERNARY),
        f"{what}: unknown packing {tensor.packing} for this format",
    )
    if tensor.format_kind == FormatKind.FLOAT:
        _check_float(tensor, what)
        return
    for value, name in ((tensor.exponent_bits, "exponent bits"), (tensor.mantissa_bits, "mantissa bits")):
        require(value == 0, f"{what}: {name} of a format that is no float are {value}")
    require(tensor.top_codes == 0, f"{what}: top codes of a format that is no float are {tensor.top_codes}")
    require(not tensor.flags & TensorFlag.SUBNORMALS, f"{what}: the subnormals flag of a format that is no float")
    if tensor.format_kind == FormatKind.INTEGER:
        _check_integer(tensor, what)
        return
    width = 2 if tensor.format_kind == FormatKind.TERNARY else 1
    require(tensor.width_bits == width, f"{what}: width is {tensor.width_bits} bits, expected {width}")
    require(not tensor.flags & TensorFlag.AFFINE, f"{what}: only integers can be affine")
    require(tensor.bias == 0, f"{what}: fraction bits are {tensor.bias}, expected 0")


def _check_float(tensor: TensorRecord, what: str) -> None:
    exponent, mantissa = tensor.exponent_bits, tensor.mantissa_bits
    require(
        1 <= exponent <= MAX_EXPONENT_BITS, f"{what}: exponent bits are {exponent}, out of 1 to {MAX_EXPONENT_BITS}"
    )
    require(mantissa <= MAX_MANTISSA_BITS, f"{what}: mantissa bits are {mantissa}, the most is {MAX_MANTISSA_BITS}")
    require(not tensor.flags & TensorFlag.AFFINE, f"{what}: a float cannot be affine")
    width = bool(tensor.flags & TensorFlag.SIGNED) + exponent + mantissa
    require(tensor.width_bits == width, f"{what}: width is {tensor.width_bits} bits, expected {width}")
    require(tensor.top_codes in TopCodes.__members__.values(), f"{what}: unknown top codes {tensor.top_codes}")
    # The topmost exponent field holds no finite number if it is IEEE's, or if fn's one NaN is all of it.
    without_top = tensor.top_codes == TopCodes.IEEE or (tensor.top_codes == TopCodes.FN and mantissa == 0)
    highest = (1 << exponent) - 1 - without_top - tensor.bias
    lowest = 1 - tensor.bias - mantissa
    require(
        highest <= _BINARY32_MAX_EXPONENT and lowest >= _BINARY32_MIN_EXPONENT,
        f"{what}: with the exponent bias {tensor.bias} not every element is a binary32 number",
    )


def _check_integer(tensor: TensorRecord, what: str) -> None:
    width = tensor.width_bits
    require(
        MIN_INTEGER_BITS <= width <= MAX_INTEGER_BITS,
        f"{what}: width is {width} bits, out of {MIN_INTEGER_BITS} to {MAX_INTEGER_BITS}",
    )
    # The greatest magnitude is 2^(width-1) if signed, else 2^width - 1; code minus zero point stays below 2^width.
    highest = width - 1
    require(
        highest - tensor.bias <= _BINARY32_MAX_EXPONENT and -tensor.bias >= _BINARY32_MIN_EXPONENT,
        f"{what}: with {tensor.bias} fraction bits not every element is a binary32 number",
    )


def _check_part(header: Header, offset: int, size: int, what: str) -> None:
    """A part of a tensor lies behind the records, before the CRC, at a multiple of 4."""
    require(offset % IMAGE_ALIGNMENT == 0, f"{what} offset {offset} is not aligned")
    require(
        data_begin(header) <= offset and offset + size <= header.image_bytes - IMAGE_CRC_BYTES,
        f"{what}, {size} bytes at {offset}, lies outside of the image",
    )


def _check_groups(data: bytes, header: Header, tensor: TensorRecord, what: str) -> None:
    require(tensor.scale_kind in ScaleKind.__members__.values(), f"{what}: unknown scale kind {tensor.scale_kind}")
    require(tensor.granularity in Granularity.__members__.values(), f"{what}: unknown granularity {tensor.granularity}")
    scaled = tensor.scale_kind != ScaleKind.NONE
    affine = bool(tensor.flags & TensorFlag.AFFINE)
    groups = tensor.columns if tensor.granularity == Granularity.CHANNEL else 1
    expected = groups if scaled or affine else 0
    require(tensor.groups == expected, f"{what} has {tensor.groups} groups, expected {expected}")
    for present, offset, name in (
        (scaled, tensor.scales_offset, "scales"),
        (affine, tensor.zero_points_offset, "zero points"),
    ):
        if present:
            _check_part(header, offset, 4 * groups, f"{what}: {name}")
        else:
            require(offset == NO_OFFSET, f"{what}: {name} offset is {offset}, but it has none")
    if scaled:
        check_scales(scales_of(data, tensor), tensor, what)
    if affine:
        check_zero_points(zero_points_of(data, tensor), tensor, what)
