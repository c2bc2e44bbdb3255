"""The image that travels: writing it, and reading it back with every check a device makes (docs/model.md)."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from bitloop.errors import ModelError
from bitloop.plan.check import check_header, check_whole
from bitloop.plan.check_arena import check_arena
from bitloop.plan.check_layers import check_layer, check_output
from bitloop.plan.check_tensors import check_codes, check_tensor, scales_of, zero_points_of
from bitloop.plan.records import Header, LayerRecord, TensorRecord, align4
from bitloop.plan.tensors import PackedTensor, chunk_records, streamed_bytes, unpack_rows
from bitloop.spec import (
    IMAGE_CRC_BYTES,
    IMAGE_HEADER_BYTES,
    LAYER_RECORD_BYTES,
    MAX_IMAGE_BYTES,
    NO_INDEX,
    NO_OFFSET,
    TENSOR_RECORD_BYTES,
    ScaleKind,
    TensorFlag,
)


@dataclass(frozen=True)
class ParsedImage:
    """An image whose every field has been checked."""

    data: bytes
    header: Header
    layers: tuple[LayerRecord, ...]
    tensors: tuple[TensorRecord, ...]

    def codes(self, tensor: int) -> npt.NDArray[np.uint32]:
        """Return the codes of a tensor, [rows, columns]; ternary ones as 2-bit two's complement.

        Raises:
            ModelError: the tensor is streamed, so the image does not hold them.
        """
        record = self.tensors[tensor]
        if record.streamed:
            raise ModelError(f"tensor {tensor} is streamed: its codes are not in the image")
        data = self.data[record.data_offset : record.data_offset + record.data_bytes]
        return np.concatenate([block for _, block in unpack_rows(data, record, f"tensor {tensor}")])

    def scales(self, tensor: int) -> npt.NDArray[np.float32] | None:
        """Return the scales of a tensor, [groups], or None."""
        record = self.tensors[tensor]
        return None if record.scales_offset == NO_OFFSET else scales_of(self.data, record)

    def zero_points(self, tensor: int) -> npt.NDArray[np.int32] | None:
        """Return the zero points of a tensor, [groups], or None."""
        record = self.tensors[tensor]
        return None if record.zero_points_offset == NO_OFFSET else zero_points_of(self.data, record)

    def streamed_codes(self, data: bytes) -> dict[int, npt.NDArray[np.uint32]]:
        """Read the weights that travel with a batch; nothing in them is trusted.

        Args:
            data: one pass: the chunks of all streamed layers, in their order.

        Returns:
            The codes of each streamed layer, [rows, columns], by the number of the layer.

        Raises:
            ModelError: anything a device refuses in them.
        """
        if len(data) != self.header.streamed_bytes:
            raise ModelError(f"the pass has {len(data)} bytes, the image asks for {self.header.streamed_bytes}")
        found = {}
        begin = 0
        for index, layer in enumerate(self.layers):
            if layer.weights == NO_INDEX or not self.tensors[layer.weights].streamed:
                continue
            record, what = self.tensors[layer.weights], f"tensor {layer.weights}"
            end = begin + streamed_bytes(record, record.chunk_columns)
            computed = zlib.crc32(data[begin:end])
            if computed != record.crc:
                raise ModelError(f"{what}: the chunks' CRC-32 is 0x{computed:08X}, expected 0x{record.crc:08X}")
            parts = []
            for first, chunk in chunk_records(record):
                rows = data[begin : begin + chunk.data_bytes]
                begin += chunk.data_bytes
                check_codes(rows, chunk, f"{what}, chunk from column {first} on")
                parts.append(np.concatenate([block for _, block in unpack_rows(rows, chunk, what)]))
            found[index] = np.concatenate(parts, axis=1)
        return found


def image_bytes(layer_count: int, tensors: Sequence[TensorRecord]) -> int:
    """Return the length of the image that :func:`write_image` gives if no tensor is streamed; a multiple of 4."""
    total = IMAGE_HEADER_BYTES + layer_count * LAYER_RECORD_BYTES + len(tensors) * TENSOR_RECORD_BYTES
    for tensor in tensors:
        scaled, affine = tensor.scale_kind != ScaleKind.NONE, bool(tensor.flags & TensorFlag.AFFINE)
        total += align4(tensor.data_bytes) + 4 * tensor.groups * (scaled + affine)
    return total + IMAGE_CRC_BYTES


def write_image(header: Header, layers: Sequence[LayerRecord], tensors: Sequence[PackedTensor]) -> bytes:
    """Return the bytes of an image: header, records, data in the order of the tensors, CRC-32.

    Args:
        header: ``image_bytes`` is that of :func:`image_bytes` less what is streamed, each tensor's data rounded up to
            4; the counts are those of ``layers`` and ``tensors``.
        layers: in the order they are computed.
        tensors: in the order that layers name them.

    Raises:
        ModelError: a value does not fit into its field, or the image would be longer than MAX_IMAGE_BYTES.
    """
    if header.image_bytes > MAX_IMAGE_BYTES:
        raise ModelError(f"the image would have {header.image_bytes} bytes; the most is {MAX_IMAGE_BYTES}")
    offset = IMAGE_HEADER_BYTES + len(layers) * LAYER_RECORD_BYTES + len(tensors) * TENSOR_RECORD_BYTES
    records, data = [], []
    for tensor in tensors:
        offsets = []
        for part in tensor.parts:
            offsets.append(offset)
            data.append(part + bytes(align4(len(part)) - len(part)))
            offset += align4(len(part))
        records.append(tensor.placed(*offsets).pack())
    body = b"".join([header.pack(), *(layer.pack() for layer in layers), *records, *data])
    return body + struct.pack("<I", zlib.crc32(body))


def read_image(
    data: bytes, *, arena_bytes: int | None = None, max_layers: int | None = None, max_tensors: int | None = None
) -> ParsedImage:
    """Read an image; nothing in it is trusted.

    Args:
        data: the whole image and nothing else.
        arena_bytes: memory of the device, if it is to be held against it.
        max_layers: most layers the device takes, or None.
        max_tensors: most tensors the device takes, or None.

    Raises:
        ModelError: anything a device refuses; the message names layer or tensor and field.
    """
    header = Header.unpack(data)
    check_whole(data, header)
    check_header(header, arena_bytes=arena_bytes, max_layers=max_layers, max_tensors=max_tensors)
    offset = IMAGE_HEADER_BYTES
    layers = []
    for index in range(header.layer_count):
        layers.append(LayerRecord.unpack(data, offset, f"layer {index}"))
        offset += LAYER_RECORD_BYTES
    tensors = []
    for _ in range(header.tensor_count):
        tensors.append(TensorRecord.unpack(data, offset))
        offset += TENSOR_RECORD_BYTES
    for index, tensor in enumerate(tensors):
        check_tensor(data, header, tensor, f"tensor {index}")
    for index, layer in enumerate(layers):
        check_layer(header, layers[index - 1] if index else None, layer, tensors, f"layer {index}")
    check_output(header, layers[-1])
    check_arena(header, layers, tensors)
    return ParsedImage(data, header, tuple(layers), tuple(tensors))
