"""What makes an image valid: its length and header (docs/model.md), as the device enforces it too.

Tensors, layers and the arena are checked by ``check_tensors``, ``check_layers`` and ``check_arena``. Every function
raises :class:`bitloop.errors.ModelError`, and the message begins with the layer or tensor it is about. Python's
integers do not wrap, so sizes are compared as they are.
"""

from __future__ import annotations

import math
import zlib

from bitloop.errors import ModelError
from bitloop.plan.records import Header, Shape, slot_bytes
from bitloop.spec import (
    ARENA_ALIGNMENT,
    IMAGE_CRC_BYTES,
    IMAGE_HEADER_BYTES,
    LAYER_RECORD_BYTES,
    MAX_IMAGE_BYTES,
    TENSOR_RECORD_BYTES,
)

MAX_ELEMENTS = 0x3FFFFFFF  # four bytes each, their offsets fit 32 bits
MAX_LOGITS = 0x0FFFFFFF


def check_whole(data: bytes, header: Header) -> None:
    """Check length and CRC-32."""
    require(
        header.image_bytes == len(data),
        f"the image's length field is {header.image_bytes}, but it has {len(data)} bytes",
    )
    require(len(data) <= MAX_IMAGE_BYTES, f"the image has {len(data)} bytes; the most is {MAX_IMAGE_BYTES}")
    found = int.from_bytes(data[-IMAGE_CRC_BYTES:], "little")
    computed = zlib.crc32(memoryview(data)[:-IMAGE_CRC_BYTES])
    require(found == computed, f"the image's CRC-32 is 0x{found:08X}, computed 0x{computed:08X}; it is damaged")


def check_header(header: Header, *, arena_bytes: int | None, max_layers: int | None, max_tensors: int | None) -> None:
    """Check counts, input and the regions of the arena that the header names."""
    require(header.layer_count >= 1, "the image's layer count is 0")
    for count, most, what in ((header.layer_count, max_layers, "layer"), (header.tensor_count, max_tensors, "tensor")):
        require(most is None or count <= most, f"the image's {what} count is {count}; the device takes {most}")
    require(
        data_begin(header) <= header.image_bytes - IMAGE_CRC_BYTES,
        f"the image's layer count {header.layer_count} and tensor count {header.tensor_count} do not fit its length",
    )
    require(is_shape(header.input_shape), f"the image's input shape {header.input_shape} is impossible")
    require(
        arena_bytes is None or header.arena_bytes <= arena_bytes,
        f"the image's arena has {header.arena_bytes} bytes; the device has {arena_bytes}",
    )
    require(header.arena_bytes >= header.image_bytes, "the image's arena is smaller than the image")
    require(1 <= header.output_count <= MAX_LOGITS, f"the image's number of logits is {header.output_count}")
    expected = slot_bytes(math.prod(header.input_shape), header.output_count, header.layer_count)
    require(header.slot_bytes == expected, f"the image's slots have {header.slot_bytes} bytes, expected {expected}")
    require(header.slots >= 1, "the image's queue has no slot")
    require(
        header.queue_offset % ARENA_ALIGNMENT == 0, f"the image's queue offset {header.queue_offset} is not aligned"
    )
    require(
        header.image_bytes <= header.queue_offset
        and header.queue_offset + header.slots * header.slot_bytes <= header.arena_bytes,
        f"the image's queue, {header.slots} slots at {header.queue_offset}, is outside of the arena or over the image",
    )


def data_begin(header: Header) -> int:
    """Return the offset behind the records, where tensors' data may begin."""
    return IMAGE_HEADER_BYTES + header.layer_count * LAYER_RECORD_BYTES + header.tensor_count * TENSOR_RECORD_BYTES


def require(condition: bool, message: str) -> None:
    """Raise ModelError with the message unless the condition holds."""
    if not condition:
        raise ModelError(message)


def is_shape(shape: Shape) -> bool:
    """Tell whether no dimension is 0 and the elements, in binary32, have offsets of 32 bits."""
    return min(shape) >= 1 and math.prod(shape) <= MAX_ELEMENTS
