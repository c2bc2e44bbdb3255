"""Tensors as an image holds them: rows that begin at a byte, and the record that describes them (docs/model.md)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from bitloop.errors import FormatError, ModelError
from bitloop.numeric.formats import Format
from bitloop.numeric.packing import pack, packed_bytes, unpack
from bitloop.plan.records import TensorRecord
from bitloop.quantize.model import QuantizedTensor
from bitloop.spec import (
    NO_OFFSET,
    TRITS_PER_BYTE,
    FormatKind,
    Granularity,
    Layout,
    Packing,
    ScaleKind,
    TensorFlag,
    TopCodes,
)

Codes = npt.NDArray[np.uint32]

_CHUNK_CODES = 1 << 20
_DIGIT_0_CODE = 3  # of trits: the ternary code whose digit is 0, which padding must have
_MIN_NORMAL_BITS = 0x00800000
_INFINITY_BITS = 0x7F800000
_MANTISSA_MASK = 0x007FFFFF


@dataclass(frozen=True)
class PackedTensor:
    """A tensor ready for an image.

    Attributes:
        record: its record; offsets of what the image holds are filled in when it is written.
        codes: rows of packed codes; where they are streamed, those of one chunk after another.
        scales: binary32 numbers, or nothing.
        zero_points: i32 numbers, or nothing.
    """

    record: TensorRecord
    codes: bytes
    scales: bytes = b""
    zero_points: bytes = b""

    @property
    def parts(self) -> tuple[bytes, bytes, bytes]:
        """What an image holds of it, in this order, each at a multiple of 4."""
        return b"" if self.record.streamed else self.codes, self.scales, self.zero_points

    def placed(self, data: int, scales: int, zero_points: int) -> TensorRecord:
        """Return the record with the offsets of the parts that exist; a chunk's place in the arena stays."""
        return replace(
            self.record,
            data_offset=self.record.data_offset if self.record.streamed else data,
            scales_offset=scales if self.scales else NO_OFFSET,
            zero_points_offset=zero_points if self.zero_points else NO_OFFSET,
        )


def tensor_record(tensor: QuantizedTensor, ternary_packing: Packing) -> TensorRecord:
    """Describe a tensor of a MODEL as it would lie in an image, all offsets unset.

    Args:
        tensor: dense weights (in, out), convolution weights (ky, kx, in, out) or biases (out,).
        ternary_packing: how the device wants ternary codes; all others are packed as bits.
    """
    fmt = tensor.format
    columns = tensor.shape[-1]
    rows = tensor.codes.size // columns
    packing = ternary_packing if fmt.kind is FormatKind.TERNARY else Packing.BITS
    row_bytes = packed_bytes(columns, fmt.width_bits, packing)
    return TensorRecord(
        format_kind=fmt.kind,
        width_bits=fmt.width_bits,
        exponent_bits=fmt.exponent_bits,
        mantissa_bits=fmt.mantissa_bits,
        flags=_flags(fmt, affine=tensor.affine),
        top_codes=fmt.top_codes,
        packing=packing,
        layout=Layout.IN_MAJOR,
        bias=fmt.bias if fmt.is_float else fmt.fraction_bits,
        scale_kind=tensor.scale,
        granularity=tensor.granularity if tensor.groups else Granularity.TENSOR,
        rows=rows,
        columns=columns,
        row_bytes=row_bytes,
        data_offset=NO_OFFSET,
        data_bytes=rows * row_bytes,
        scales_offset=NO_OFFSET,
        zero_points_offset=NO_OFFSET,
        groups=tensor.groups,
    )


def pack_tensor(
    tensor: QuantizedTensor, ternary_packing: Packing, *, chunk_columns: int = 0, chunk_offset: int = NO_OFFSET
) -> PackedTensor:
    """Lay a tensor of a MODEL out for an image, or for the stream beside it.

    Args:
        tensor: as in :func:`tensor_record`; it has none but finite codes, scales and zero points.
        ternary_packing: as there.
        chunk_columns: outputs a chunk if the tensor is streamed, else 0.
        chunk_offset: where in the arena a streamed tensor's chunk lies.
    """
    record = tensor_record(tensor, ternary_packing)
    codes = np.asarray(tensor.codes, np.uint32).reshape(-1, record.columns)
    if chunk_columns:
        record = replace(part_record(record, chunk_columns), columns=record.columns, chunk_columns=chunk_columns)
        packed = b"".join(
            pack_rows(codes[:, first : first + chunk.columns], chunk) for first, chunk in chunk_records(record)
        )
        record = replace(record, data_offset=chunk_offset, crc=zlib.crc32(packed))
    else:
        packed = pack_rows(codes, record)
    scales = np.asarray([] if tensor.scales is None else tensor.scales, "<f4")
    zero_points = np.asarray([] if tensor.zero_points is None else tensor.zero_points, "<i4")
    return PackedTensor(record, packed, scales.tobytes(), zero_points.tobytes())


def part_record(record: TensorRecord, columns: int) -> TensorRecord:
    """Describe so many columns of a tensor as a tensor of its own, which is what a chunk is."""
    row_bytes = packed_bytes(columns, record.width_bits, Packing(record.packing))
    return replace(
        record, columns=columns, row_bytes=row_bytes, data_bytes=record.rows * row_bytes, chunk_columns=0, crc=0
    )


def chunk_records(record: TensorRecord) -> Iterator[tuple[int, TensorRecord]]:
    """Yield the chunks of a streamed tensor in order, each with the number of its first column."""
    for first in range(0, record.columns, record.chunk_columns):
        yield first, part_record(record, min(record.chunk_columns, record.columns - first))


def streamed_bytes(record: TensorRecord, chunk_columns: int) -> int:
    """Return the bytes of all chunks of a tensor, with so many columns a chunk."""
    width, packing = record.width_bits, Packing(record.packing)
    whole, rest = divmod(record.columns, chunk_columns)
    row_bytes = whole * packed_bytes(chunk_columns, width, packing) + packed_bytes(rest, width, packing)
    return record.rows * row_bytes


def pack_rows(codes: Codes, record: TensorRecord) -> bytes:
    """Pack codes [rows, columns] so that each row begins at a byte; padding is zero."""
    packing = Packing(record.packing)
    step = _codes_a_step(packing)
    padding = -record.columns % step
    filler = _DIGIT_0_CODE if packing is Packing.TRITS else 0
    parts = []
    for first, last in _row_chunks(record):
        block = np.pad(codes[first:last], ((0, 0), (0, padding)), constant_values=filler)
        packed = np.frombuffer(pack(block, record.width_bits, packing), np.uint8).reshape(last - first, -1)
        parts.append(packed[:, : record.row_bytes].tobytes())
    return b"".join(parts)


def unpack_rows(data: bytes, record: TensorRecord, what: str) -> Iterator[tuple[int, Codes]]:
    """Yield blocks of rows of codes, each with the number of its first row.

    Args:
        data: ``record.data_bytes`` bytes.
        record: its ``row_bytes`` is what its width, packing and columns ask for.
        what: names the tensor in an error.

    Raises:
        ModelError: padding is not zero, or a byte of trits is above 242.
    """
    packing = Packing(record.packing)
    step = _codes_a_step(packing)
    padded_columns = -(-record.columns // step) * step
    padded_bytes = packed_bytes(padded_columns, record.width_bits, packing)
    filler = _DIGIT_0_CODE if packing is Packing.TRITS else 0
    raw = np.frombuffer(data, np.uint8).reshape(record.rows, record.row_bytes)
    for first, last in _row_chunks(record):
        block = np.pad(raw[first:last], ((0, 0), (0, padded_bytes - record.row_bytes)))
        count = (last - first) * padded_columns
        try:
            codes = unpack(block.tobytes(), record.width_bits, count, packing).reshape(-1, padded_columns)
        except FormatError as error:
            raise ModelError(f"{what}, rows {first} to {last - 1}: {error}") from error
        if (codes[:, record.columns :] != filler).any():
            row = first + int(np.flatnonzero((codes[:, record.columns :] != filler).any(axis=1))[0])
            raise ModelError(f"{what}: the padding behind row {row} is not zero")
        yield first, codes[:, : record.columns]


def record_format(record: TensorRecord) -> Format:
    """Return the format that a record describes; its fields must have been checked."""
    is_float = record.format_kind == FormatKind.FLOAT
    return Format(
        FormatKind(record.format_kind),
        record.width_bits,
        signed=bool(record.flags & TensorFlag.SIGNED),
        exponent_bits=record.exponent_bits,
        mantissa_bits=record.mantissa_bits,
        bias=record.bias if is_float else 0,
        subnormals=bool(record.flags & TensorFlag.SUBNORMALS),
        top_codes=TopCodes(record.top_codes),
        fraction_bits=0 if is_float else record.bias,
        fixed_point=not is_float and record.bias != 0,
    )


def check_scales(scales: npt.NDArray[np.float32], record: TensorRecord, what: str) -> None:
    """Raise ModelError, naming tensor and group, unless scales are positive, normal, and powers of two if so kept."""
    bits = np.asarray(scales, "<f4").view("<u4")
    bad = (bits < _MIN_NORMAL_BITS) | (bits >= _INFINITY_BITS)
    if bad.any():
        group = int(np.flatnonzero(bad)[0])
        raise ModelError(
            f"{what}: the scale of group {group} is {scales[group]}; it must be positive, normal and finite"
        )
    bad = (bits & _MANTISSA_MASK) != 0
    if record.scale_kind == ScaleKind.POW2 and bad.any():
        group = int(np.flatnonzero(bad)[0])
        raise ModelError(f"{what}: the scale of group {group} is {scales[group]}, which is no power of two")


def check_zero_points(zero_points: npt.NDArray[np.int32], record: TensorRecord, what: str) -> None:
    """Raise ModelError, naming tensor and group, unless zero points are integers of the format."""
    low, high = record_format(record).integer_limits
    bad = (zero_points < low) | (zero_points > high)
    if bad.any():
        group = int(np.flatnonzero(bad)[0])
        raise ModelError(f"{what}: the zero point of group {group} is {zero_points[group]}, out of {low} to {high}")


def codes_a_step(record: TensorRecord) -> int:
    """Return after how many codes a row is at a byte again: so many columns, or a multiple, waste no bits."""
    return TRITS_PER_BYTE if record.packing == Packing.TRITS else 8 // math.gcd(8, record.width_bits)


def _flags(fmt: Format, *, affine: bool) -> TensorFlag:
    flags = TensorFlag(0)
    if fmt.signed:
        flags |= TensorFlag.SIGNED
    if fmt.is_float and fmt.subnormals:
        flags |= TensorFlag.SUBNORMALS
    if affine:
        flags |= TensorFlag.AFFINE
    return flags


def _codes_a_step(packing: Packing) -> int:
    """Return after how many codes, whatever their width, a packing is at a byte again."""
    return TRITS_PER_BYTE if packing is Packing.TRITS else 8


def _row_chunks(record: TensorRecord) -> Iterator[tuple[int, int]]:
    rows = max(1, _CHUNK_CODES // record.columns)
    for first in range(0, record.rows, rows):
        yield first, min(first + rows, record.rows)
