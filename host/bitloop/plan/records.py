"""The fixed-size parts of an image (docs/model.md): header, layer records and tensor records.

Each class mirrors one table of the page, field by field and in its order; reserved fields are left out, written as 0
and refused otherwise. Nothing is checked here but that a value fits into its field.
"""

from __future__ import annotations

import struct
from dataclasses import astuple, dataclass

from bitloop.errors import ModelError
from bitloop.spec import (
    IMAGE_HEADER_BYTES,
    IMAGE_MAGIC,
    IMAGE_VERSION,
    LAYER_RECORD_BYTES,
    NO_OFFSET,
    TENSOR_RECORD_BYTES,
)

_HEADER = struct.Struct("<4sHHIHHHHHHHHIIHHIIII8s")
_LAYER = struct.Struct("<BBBBBBBBHHHHHHHHIIIBxBBBBBBHHII")
_TENSOR = struct.Struct("<BBBBBBBBhBBIIIIIIIIII")
_LAYER_RESERVED = 37
_NO_RESERVED = bytes(8)

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Header:
    """An image's header; offsets are of the arena; ``streamed_bytes`` of weights travel with each batch."""

    image_bytes: int
    layer_count: int
    tensor_count: int
    input_height: int
    input_width: int
    input_channels: int
    arena_bytes: int
    queue_offset: int
    slots: int
    slot_bytes: int
    output_offset: int
    output_count: int
    streamed_bytes: int = 0

    @property
    def input_shape(self) -> Shape:
        """Height, width and channels of the pixels."""
        return self.input_height, self.input_width, self.input_channels

    def pack(self) -> bytes:
        """Return the 64 bytes; ModelError where a value does not fit into its field."""
        return _packed(
            _HEADER,
            "header",
            (
                *(
                    IMAGE_MAGIC,
                    IMAGE_VERSION,
                    IMAGE_HEADER_BYTES,
                    self.image_bytes,
                    self.layer_count,
                    self.tensor_count,
                ),
                *(LAYER_RECORD_BYTES, TENSOR_RECORD_BYTES, *self.input_shape, 0, self.arena_bytes, self.queue_offset),
                *(
                    self.slots,
                    0,
                    self.slot_bytes,
                    self.output_offset,
                    self.output_count,
                    self.streamed_bytes,
                    _NO_RESERVED,
                ),
            ),
        )

    @classmethod
    def unpack(cls, data: bytes) -> Header:
        """Read the header.

        Args:
            data: an image, or its start.

        Raises:
            ModelError: too short, or magic, version, a record length or a reserved field is wrong.
        """
        if len(data) < IMAGE_HEADER_BYTES:
            raise ModelError(f"the image has {len(data)} bytes; its header alone has {IMAGE_HEADER_BYTES}")
        (magic, version, header_bytes, image_bytes, layers, tensors, layer_bytes, tensor_bytes, *rest) = (
            _HEADER.unpack_from(data)
        )
        height, width, channels, reserved1, arena, queue, slots, reserved2, slot_bytes, output, count, *rest = rest
        streamed, reserved3 = rest
        for found, expected, what in (
            (magic, IMAGE_MAGIC, "magic"),
            (version, IMAGE_VERSION, "version"),
            (header_bytes, IMAGE_HEADER_BYTES, "header length"),
            (layer_bytes, LAYER_RECORD_BYTES, "layer record length"),
            (tensor_bytes, TENSOR_RECORD_BYTES, "tensor record length"),
            (reserved1, 0, "reserved field at byte 26"),
            (reserved2, 0, "reserved field at byte 38"),
            (reserved3, _NO_RESERVED, "reserved field at byte 56"),
        ):
            if found != expected:
                raise ModelError(f"the image's {what} is {found!r}, expected {expected!r}")
        return cls(
            *(image_bytes, layers, tensors, height, width, channels, arena, queue),
            *(slots, slot_bytes, output, count, streamed),
        )


@dataclass(frozen=True)
class LayerRecord:
    """One operation; offsets are of the arena, ``spec.NO_OFFSET`` and ``spec.NO_INDEX`` mean none.

    ``pool_kind`` and what follows up to ``tile_offset`` are of a pooling that is fused behind a convolution, 0 without;
    ``map_height`` and ``map_width`` are then those of the convolution's own output.
    """

    kind: int
    activation: int
    kernel_height: int
    kernel_width: int
    stride_y: int
    stride_x: int
    padding_top: int
    padding_left: int
    input_height: int
    input_width: int
    input_channels: int
    output_height: int
    output_width: int
    output_channels: int
    weights: int
    biases: int
    input_offset: int
    output_offset: int
    table_offset: int
    pool_kind: int = 0
    pool_height: int = 0
    pool_width: int = 0
    pool_stride_y: int = 0
    pool_stride_x: int = 0
    pool_padding_top: int = 0
    pool_padding_left: int = 0
    map_height: int = 0
    map_width: int = 0
    tile_offset: int = NO_OFFSET
    batch_stride: int = 0

    @property
    def input_shape(self) -> Shape:
        """Height, width and channels taken."""
        return self.input_height, self.input_width, self.input_channels

    @property
    def output_shape(self) -> Shape:
        """Height, width and channels given."""
        return self.output_height, self.output_width, self.output_channels

    def pack(self) -> bytes:
        """Return the 56 bytes; ModelError where a value does not fit into its field."""
        return _packed(_LAYER, "layer record", astuple(self))

    @classmethod
    def unpack(cls, data: bytes, offset: int, what: str) -> LayerRecord:
        """Read the record at ``offset``; ModelError, beginning with ``what``, where the reserved field is not 0."""
        reserved = data[offset + _LAYER_RESERVED]
        if reserved:
            raise ModelError(f"{what}: the reserved field is {reserved}, expected 0")
        return cls(*_LAYER.unpack_from(data, offset))


@dataclass(frozen=True)
class TensorRecord:
    """One tensor; offsets are of the image, ``spec.NO_OFFSET`` means none.

    ``bias`` is the exponent bias of floats and the fraction bits of integers. A tensor with ``chunk_columns`` is
    streamed: ``row_bytes`` and ``data_bytes`` are then of a whole chunk, ``data_offset`` is its place in the arena, and
    ``crc`` is over all chunks.
    """

    format_kind: int
    width_bits: int
    exponent_bits: int
    mantissa_bits: int
    flags: int
    top_codes: int
    packing: int
    layout: int
    bias: int
    scale_kind: int
    granularity: int
    rows: int
    columns: int
    row_bytes: int
    data_offset: int
    data_bytes: int
    scales_offset: int
    zero_points_offset: int
    groups: int
    chunk_columns: int = 0
    crc: int = 0

    @property
    def streamed(self) -> bool:
        """Whether the data travel with each batch instead of lying in the image."""
        return self.chunk_columns != 0

    def pack(self) -> bytes:
        """Return the 52 bytes; ModelError where a value does not fit into its field."""
        return _packed(_TENSOR, "tensor record", astuple(self))

    @classmethod
    def unpack(cls, data: bytes, offset: int) -> TensorRecord:
        """Read the record at ``offset``."""
        return cls(*_TENSOR.unpack_from(data, offset))


def align4(size: int) -> int:
    """Return the next multiple of 4 (spec.IMAGE_ALIGNMENT, spec.ARENA_ALIGNMENT)."""
    return -(-size // 4) * 4


def slot_bytes(pixels: int, logits: int, layers: int) -> int:
    """Return the bytes of one queue slot: the pixels, then the result record, each rounded up to 4."""
    return align4(pixels) + 12 + 4 * logits + 4 * layers


def _packed(layout: struct.Struct, what: str, values: tuple[int | bytes, ...]) -> bytes:
    try:
        return layout.pack(*values)
    except struct.error as error:
        raise ModelError(f"a value does not fit into the image's {what}: {error}") from error
